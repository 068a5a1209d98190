/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The server: listening sockets, their connections, and what all of these share.
 */

#include "account.h"
#include "closer.h"
#include "queue.h"

struct connection;

enum mode {
        MODE_SYSTEM,
        MODE_USER,
        MODE_PRIVATE,
};

const char *mode_name(enum mode mode);
int mode_from_name(const char *name, enum mode *ret_mode);

enum { LISTENERS_MAX = 16 };

struct listener {
        struct server *server;
        struct mux_io io;
        int fd;
};

struct server {
        struct mux *mux;
        struct workers *workers;
        struct sources sources;
        struct queue_context queues;
        struct accounts accounts;
        struct closer closer;
        enum mode mode;
        uint64_t start_usec; /* CLOCK_MONOTONIC */
        struct list connections;
        size_t n_connections;
        uint64_t accepted, turned_away, protocol_errors;
        struct listener listeners[LISTENERS_MAX];
        size_t n_listeners;
        struct mux_timer accept_again;
        bool stop; /* the loop is to end */
};

int server_open(struct server *server, struct mux *mux, struct workers *workers, enum mode mode);
/* Ends all connections. The workers are ended next, then it is freed, then the mux closed. */
void server_close(struct server *server);
void server_free(struct server *server);

/* Takes a listening socket over, also when it fails. */
int server_listen(struct server *server, int fd);
/* Takes a connected socket over, also when it fails. In private mode its end
 * ends the daemon. */
int server_serve(struct server *server, int fd);

/* ---- the manager's figures (manager.c) ------------------------------------------------- */

struct buffer;

/* Append the reply's parameters as JSON, without the outer braces. */
void manager_put_status(struct server *server, struct buffer *b);
void manager_put_queues(struct server *server, struct buffer *b);
