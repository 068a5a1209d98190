/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What is left of the connections if the daemon is killed: their sockets are in the service manager's store all the
 * while, each beside a memfd in which its watches are written down a moment after they have changed, and a table,
 * shared with that store too, says what each is at.
 *
 * A connection is at rest while nothing of it is in the daemon's own memory but events that were not taken: no part of
 * a call, no part of a reply, no change of its watches. The next daemon goes on with those that were, makes their
 * watches anew, and has them say that something may be missing. It ends the others. The same goes for what a kill in
 * the middle of a system call leaves behind: the table says `busy` from before it until after it.
 */

#include <stddef.h>
#include <stdint.h>

struct connection;
struct server;

/* Keeps descriptors for the next daemon, under names. */
struct store {
        /* Neither waits; -EAGAIN: not now, be it that the store is busy or that something is short. */
        int (*keep)(int fd, const char *name);
        int (*drop)(const char *name);
        /* Until all that it was told up to now is done, for some seconds at most: not while the loop runs. */
        int (*wait)(void);
};

struct live;       /* of a connection */
struct live_table; /* of all */

/* NULL for the store: there is none, and nothing is kept. Without memory nothing is, either, which is logged. */
void live_open(struct server *server, const struct store *store);
/* Nothing of it is left in the store, for which it may wait. */
void live_close(struct server *server);

/* Something is about to be done for it. */
void live_touch(struct connection *connection);
/* It was done, and nothing is left over. */
void live_rest(struct connection *connection);
/* The connection ends. */
void live_end(struct connection *connection);

/* ---- the next daemon -------------------------------------------------------------- */

/* systemd compares each descriptor that it is given with all that it has. */
enum { LIVE_SLOTS = 1024 };

enum live_kind {
        LIVE_NONE,
        LIVE_TABLE,
        LIVE_SOCKET,
        LIVE_SKETCH,
        LIVE_KINDS,
};

/* What a name in the store stands for, and of which connection. */
enum live_kind live_kind_of(const char *name, size_t *ret_index);
void live_name(enum live_kind kind, size_t index, char ret_name[static 16]);

struct state_fds;

/* Goes on with the connections that were at rest. Takes out what it needs; a negative errno: the table is none.
 * Sockets and sketches are by their indices. The store may have more than one under a name, if it was not told that
 * one is to go, and may hand them over in any order: systemd begins with the newest, but after a reload of its own with
 * the oldest. So the others are LIVE_SLOTS further on each, and the table says which is meant. */
int live_restore(struct server *server, int table, struct state_fds *sockets, const struct state_fds *sketches);
