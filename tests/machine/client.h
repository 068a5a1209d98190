/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A client with one watch of each kind, that ticks off what it is told: files that appear in its directory, the
 * device's MTU, triggers of its name, a timer, and how its children end. Where its connection ends it counts that,
 * connects again and watches again, as any program would; what happened meanwhile is covered by that.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "connection.h"
#include "tally.h"

enum {
        TIMER_MSEC = 50,
        MTU_FIRST = 1000, /* the MTU of the device's first change; each one is larger */
        FILES_TOGETHER = 16, /* so many in the directory itself, and as many in a new one below it, in turn */
};

/* What happened to all clients in one round. */
struct round {
        struct sums sums;
        size_t rescans, lost, disconnected;
        size_t seq_gaps;
        size_t wrong; /* events that nothing was made for, and refusals; each was printed */
};

struct child {
        pid_t pid;
        int end; /* the child ends when this does; -1: it has been told to */
};

struct client {
        size_t number;
        const char *socket_path;
        const char *link;
        char *directory;
        uid_t uid;
        bool is_stream;  /* one Wait with more, else one after the other */
        bool is_lenient; /* a rescan is nothing to speak of, and an MTU covers those before it */
        bool may_lack_status; /* the daemon may not know how a process has ended */
        struct round *round;

        struct connection connection;
        int calls[8]; /* that are not answered, in their order */
        size_t n_calls;
        bool is_in_force; /* the watches, on this connection */
        int64_t last_seq;

        struct tally files, links, triggers, exits;
        struct child *children; /* one for each exit */
        size_t n_ended, n_reaped;
        int64_t timer_since, timer_told; /* how many expirations */
        int64_t timer_told_at;           /* the last one */
};

/* Until client_is_in_force(), which takes client_read(), nothing may be made for it. */
void client_start(struct client *client);
bool client_is_in_force(const struct client *client);

/* Reads what has come. To be called when the connection is readable, and now and then, as there may be none. */
void client_read(struct client *client);

/* Expirations count from now on. */
void client_count_timer(struct client *client);

/* A new child, whose exit is watched from when client_is_in_force() again. */
void client_add_child(struct client *client);
/* Has the next child end. False: all have. */
bool client_end_child(struct client *client);
/* Reaps those that it was told of, or, `all`, every one: they have been told to end. */
void client_reap(struct client *client, bool all);

/* The path of the file of that number: the caller frees it. */
char *client_file(const struct client *client, size_t number);

void client_free(struct client *client);
