/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * One connection: bytes in, calls one after another, replies in their order,
 * bytes out.
 *
 * One call is under way at a time; what comes behind it waits in the input, and
 * in the socket once that is full. Only a Wait is ended by what comes behind it.
 *
 * A call to Wait runs through: barrier (everything that the kernel had queued
 * before the call is reported) -> waiting -> reply. With "more" it stays
 * waiting. Events are taken from the queue only when all output before them was
 * written: a client that doesn't read leaves them in its queue, where they are
 * bounded.
 *
 * A peer that is gone had its calls received, so those that reach others are
 * still run, in their order. What only concerned the peer ends with it: its
 * watches, a Change or Wait that is under way, and what was not yet written.
 *
 * Nothing frees a connection but its own deferred work (`flush`) and the server:
 * whoever finds that it has to end calls connection_doom().
 */

#include "discard.h"
#include "message.h"
#include "server.h"

enum call_state {
        CALL_NONE,
        CALL_CHANGE,  /* watches are being made */
        CALL_BARRIER, /* Wait: the kernel's queues are being drained */
        CALL_WAIT,    /* Wait: for events */
        CALL_RESTORE, /* none: the watches that the last daemon has left are being made */
        CALL_RELOAD,  /* Reload: the configuration is being read */
};

enum {
        FDS_MAX = 253,                 /* of one message: SCM_MAX_FD */
        FDS_KEPT_MAX = 2 * FDS_MAX,    /* until the messages that they came with are run */
        OUTPUT_HIGH = 128 * 1024,      /* with so much unwritten no further call is answered */
        EVENTS_BYTES_MAX = 64 * 1024,  /* of one reply, about */
        EVENT_BYTES = 256,             /* of most events */
        SPARE_BYTES_MAX = 16 * 1024,   /* of a buffer that is kept for the next who needs one */
        EVENTS_MAX = 1024,             /* of one reply where the call doesn't say */
        SILENCE_SEC = 30,              /* the longest of a stream */
        FDS_SEC = 10,                  /* a message with descriptors has to be whole, and run, by then */
        RESTORE_SEC = 10,              /* the next of the last daemon's watches has to be made by then */
};

/* The Wait that a connection is in, so that another daemon can go on with it. */
struct wait_state {
        bool waits, more;
        int64_t max_events, timeout_msec;
        uint64_t deadline_nsec; /* CLOCK_MONOTONIC, unless `more`; 0: it has not begun, or has none */
        uint64_t last_reply_nsec;
};

struct state_reader;
struct state_writer;

struct passed_fd {
        uint64_t message; /* the number of the message that it came with */
        int fd;
};

struct barrier_of_source {
        struct source_barrier barrier;
        struct connection *connection;
};

struct connection {
        struct list link;
        struct server *server;
        struct mux_io io;
        int fd;
        struct asker asker;
        struct account *account;
        struct queue queue;
        uint64_t connected_usec; /* CLOCK_MONOTONIC */
        uint64_t id; /* among all that there ever were */

        struct buffer in;
        uint64_t messages_received, messages_taken;
        struct passed_fd *fds; /* NULL: there are none */
        size_t n_fds, fds_room;
        struct mux_timer fds_timer; /* while there are some */
        bool readable; /* by what the mux has told, once; not read to its end since */
        bool ask_again; /* what it has told was not so, perhaps */
        bool has_to_wait; /* the next call is a long one, and another of the user's is under way */
        bool end_of_input, doomed;
        bool gone; /* the peer will read nothing more; out of the mux */

        struct buffer out;
        size_t written;  /* of `out` */
        size_t charged;  /* for `out` */
        size_t n_told;        /* replies with events in `out` */
        uint64_t oldest_usec; /* CLOCK_REALTIME: when the first of these events happened */
        struct mux_deferred flush;
        struct list postponed; /* in its user's; or alone */
        struct mux_timer pace; /* set: the user sends too many calls, and the next is run when it is up */

        enum call_state call;
        struct message_parser *parser; /* of a long call that is not read to its end; NULL: there is none */
        struct discard *discard; /* a long call that was run; NULL: there is none */
        struct change *change; /* CALL_CHANGE: what is left of it; NULL: nothing but watches that are under way */
        bool more, oneway;
        bool monitor;   /* the call is Monitor: Change, then Wait */
        bool interrupted; /* a further call has come */
        bool timed_out;
        size_t n_starting; /* CALL_CHANGE: watches that are under way */
        struct buffer refused; /* CALL_CHANGE: Refusal objects */
        int64_t max_events, timeout_msec;
        struct mux_timer timer;
        uint64_t last_reply_nsec;
        struct mux_barrier mux_barrier;
        struct barrier_of_source barriers[SOURCES_MAX];
        size_t n_barriers;
        struct reload_waiter reload; /* CALL_RELOAD */

        struct live *live; /* live.c; NULL: it would end with the daemon */
        bool is_settled; /* the daemon is about to end: all that had happened by then is in the queue */
        bool was_waiting; /* CALL_RESTORE: and goes on with that */
        size_t n_left; /* the same: watches under way, at the last look */
};

/* A call is under way that no other daemon can go on with. */
static inline bool connection_is_busy(const struct connection *c) {
        return c->call == CALL_CHANGE || c->call == CALL_RESTORE || c->call == CALL_RELOAD;
}

/* Takes the socket over, also when it fails. */
int connection_new(struct server *server, int fd, struct connection **ret_connection);
/* The same with a peer that is known already, of which it takes the groups over. */
int connection_make(struct server *server, int fd, const struct asker *asker, struct connection **ret_connection);
struct connection *connection_free(struct connection *connection);
/* Does what is due; may free it. */
void connection_flush(struct connection *connection);
/* How much of a user's queue_bytes one connection may have. */
size_t connection_queue_bytes(const struct account *account);
/* Takes a descriptor that came with that message. -EMSGSIZE: there are too many; -ENOMEM. */
int connection_keep_fd(struct connection *connection, uint64_t message, int fd);
/* Those that came with messages before that one. */
void connection_drop_fds(struct connection *connection, uint64_t message);
/* It ends at the end of this turn. */
void connection_doom(struct connection *connection);

/* ---- replies -------------------------------------------------------------------------- */

/* A reply's parts: begin, parameters (JSON members), end. A call that is oneway
 * gets none: begin returns NULL. */
struct buffer *reply_begin(struct connection *connection);
void reply_end(struct connection *connection, bool continues);
void reply_error(struct connection *connection, const char *error, const char *member, const char *value);
/* org.varlink.service.InvalidParameter */
void reply_invalid(struct connection *connection, const char *parameter);

/* ---- methods ---------------------------------------------------------------------------- */

struct json_object;

/* One call, of which `parameters` may be NULL. */
typedef void method_fn(struct connection *connection, struct json_object *parameters);

struct method {
        const char *name; /* with its interface */
        method_fn *fn;
};

extern const struct method methods_events[];
extern const struct method methods_manager[];

/* Reads the parameters; false: they are wrong, and that was replied. */
bool call_read(struct connection *connection, struct json_object *parameters, const struct field *fields,
               size_t n_fields, void *target);
/* Runs the call in this message. 0: it is a long one, of which the rest is read in a further turn; -EBADMSG: it is none,
 * and the connection has to end. */
int call_dispatch(struct connection *connection, const char *message, size_t size);
/* Forgets what was read so far of a long call. */
void call_unread(struct connection *connection);
/* Of a user's long calls one is under way at a time: what they become takes many times their room. */
bool call_has_to_wait(const struct connection *connection, size_t size);
/* Lets the next one begin, if this connection's is done. */
void call_pass_on(struct connection *connection);
/* Ends the call that is under way, without a reply. */
void call_abandon(struct connection *connection);

/* ---- Change and Monitor (change.c) ------------------------------------------------------ */

method_fn change_call, monitor_call;
/* Does what the turn has room for. */
void change_go_on(struct connection *connection);
/* Does all of it. */
void change_finish(struct connection *connection);
/* Nothing of what is left is done any more. */
void change_free(struct connection *connection);
struct refusal;
/* A watch is in force, or refused. */
void change_on_added(struct queue *queue, int64_t id, const struct refusal *refusal);

/* ---- Wait (events.c) ---------------------------------------------------------------------- */

void wait_init(struct connection *connection);
void wait_start(struct connection *connection);
/* What a turn had no room for. */
void wait_go_on(struct connection *connection);
void wait_cancel(struct connection *connection);
/* There is something to answer a Wait with. */
bool wait_is_due(const struct connection *connection);
/* A further call has come. */
void wait_interrupt(struct connection *connection);
/* Answers if there is something to answer with. */
void wait_flush(struct connection *connection);
/* Goes on with a Wait of the last daemon's. */
void wait_resume(struct connection *connection);

/* ---- for the next daemon (save.c) ------------------------------------------------------------ */

/* No call is run any more: everything that has happened up to now is reported, then it is settled. */
void connection_settle(struct connection *connection);
/* Its barrier is past, or it needs none any more. False: the daemon is not about to end. */
bool connection_on_settled(struct connection *connection);
/* All watches of the last daemon's are made. */
void connection_on_restored(struct connection *connection);
/* Goes on with it, after that number of its last event; the reader is at what connection_sketch() has written. Takes
 * the descriptor over. Negative errno: it ends. */
int connection_restore_sketch(struct server *server, int fd, uint64_t seq, const struct wait_state *wait,
                              struct state_reader *r);
void connection_wait_state(const struct connection *connection, struct wait_state *ret);
/* Who it is, and its watches. */
void connection_sketch(struct connection *connection, struct state_writer *w);
extern const struct queue_listener connection_listener;
