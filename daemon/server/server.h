/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The server: listening sockets, their connections, and what all of these share.
 */

#include "account.h"
#include "closer.h"
#include "histogram.h"
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

/* Who wants to know what has become of a server_reload(). It may go before that, by list_remove(). */
struct reload_waiter {
        struct list link;
        /* On the loop; out of the list by then. `error`: 0, or a negative errno, with what was wrong. */
        void (*done)(struct reload_waiter *waiter, int error, const char *complaint);
};

/* Who reads the configuration (reload.c). */
struct reload_hook {
        void (*request)(struct reload_hook *hook, struct reload_waiter *waiter);
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
        struct histogram latency; /* of replies with events: how old the oldest was when all was written */
        struct listener listeners[LISTENERS_MAX];
        size_t n_listeners;
        struct mux_timer accept_again;
        uint64_t turn;         /* the last in which there was something to do for connections, */
        uint64_t work_nsec;    /* which has taken so long */
        uint64_t work_begin;   /* of what is being done; 0: nothing is */
        struct list postponed; /* users with connections for which a turn had no room */
        struct mux_deferred next_turn;
        bool stop; /* the loop is to end: server_has_ended() */
        bool stopping; /* soon: no call is run any more */
        size_t n_unsettled; /* connections, meanwhile */
        struct mux_timer settle_timer;
        uint64_t settle_deadline; /* of the sources; 0: the connections are not settled yet */
        struct live_table *live; /* NULL: nothing outlives a crash */
        struct reload_hook *reload;
        uint64_t last_id; /* of a connection */
        struct buffer spare_in, spare_out; /* whoever reads or writes next has them, and gives them back: connection.c */
        /* Deferred, if there is one, when connections or watches have become more or fewer, and when a configuration
         * was put in force. */
        struct mux_deferred *on_figures, *on_configured;
};

/* `broker_fd`: see struct source_context. */
int server_open(struct server *server, struct mux *mux, struct workers *workers, enum mode mode,
                const struct source_settings *settings, const struct limits *limits, int broker_fd);
/* Ends all connections. The workers are ended next, then it is freed, then the mux closed. */
void server_close(struct server *server);
void server_free(struct server *server);

/* Takes a listening socket over, also when it fails. */
int server_listen(struct server *server, int fd);
/* Takes a connected socket over, also when it fails. In private mode its end
 * ends the daemon. */
int server_serve(struct server *server, int fd);
/* The connections of this process may have watches of all users' processes from here on. How many these are. */
size_t server_let_observe(struct server *server, pid_t pid, uid_t uid);

/* Reads the configuration again, soon. The waiter may be NULL. */
void server_reload(struct server *server, struct reload_waiter *waiter);
/* Puts in force what can change under way: the limits, and who may observe processes. What is held already is kept,
 * also where it is more than a limit now. */
void server_configure(struct server *server, const struct limits *limits, const struct source_settings *settings);
/* Ends the connection of that id (ListQueues). -ENOENT: there is none. */
int server_disconnect(struct server *server, uint64_t id);
/* A connection has come or gone. */
void server_figures_changed(struct server *server);

/* ---- how much is done in a turn --------------------------------------------------------- */

/* By time. Users take turns, and each one's connections do, so that who has many gets no more than who has one. */
enum {
        TURN_NSEC = 50 * 1000,
        TURN_NSEC_OF_USER = 30 * 1000,
};

/* Whether the turn has room for more of the user's, whatever that will take. */
bool server_has_room(struct server *server, const struct account *account);
/* Somebody was postponed: who comes now waits for its user's turn, or the room would be gone before there is one. */
bool server_is_behind(const struct server *server);
/* What is done from here on is the user's, up to the end. */
void server_begin_work(struct server *server, struct account *account);
void server_end_work(struct server *server, struct account *account);
/* The same for what takes about so long, and less than it would take to look at the time. */
void server_charge_work(struct server *server, struct account *account, uint64_t nsec);
/* The connection is flushed in the next turn that has room, behind those of its user that were postponed before it. */
void server_postpone(struct server *server, struct connection *connection);
/* The same for when the long call of its user that is under way is over, */
void server_let_wait(struct connection *connection);
/* and it is. */
void server_end_long_call(struct server *server, struct account *account);

/* ---- for the next daemon (save.c) --------------------------------------------------------- */

struct state_reader;
struct state_writer;

/* Takes no more calls, and has ended once all that has happened up to now is in the queues. */
void server_settle(struct server *server);
/* To be asked after each turn of the loop, and then at once acted upon. */
bool server_has_ended(struct server *server);
/* The connections, and all that is needed to go on with them. */
void server_save(struct server *server, struct state_writer *w);
/* Goes on with the connections of a daemon before. One that can't be gone on with is closed. NULL: with none of them. */
void server_restore(struct server *server, struct state_reader *r);

/* ---- the manager's figures (manager.c) ------------------------------------------------- */

struct buffer;

/* Append the reply's parameters as JSON, without the outer braces. */
void manager_put_status(struct server *server, struct buffer *b);
void manager_put_queues(struct server *server, struct buffer *b);
void manager_put_statistics(struct server *server, struct buffer *b);
