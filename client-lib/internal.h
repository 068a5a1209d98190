/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the files of libkev share: struct kev and its parts. None of it is seen
 * outside: programs know <kev.h> only.
 *
 * From the bottom up: error (sentences), inbox (events that wait to be handed
 * out), known (the watches, and who gets their events), own_signals (the one thing
 * that kevd need not tell), connection (bytes, and the calls in flight)
 * with reply (what comes back) and reconnect (after its end), and on these the public calls: kev, change,
 * dispatch, call. address and private give kev_open() its socket. watch and
 * event stand for themselves.
 */

#include <kev.h>
#include <stdarg.h>

#include "buffer.h"
#include "event.h"
#include "macro.h"
#include "watch_spec.h"

struct json_object;
struct call;

/* ---- error.c ------------------------------------------------------------- */

enum { ERROR_MESSAGE_MAX = 512 }; /* a sentence with its NUL */

/* Keeps the sentence for kev_error_message(), and returns `error`. Without
 * `kev`: for a kev_open() of this thread. On a connection that is over, the
 * sentence that says why stays. */
int error_set(struct kev *kev, int error, const char *format, ...) _printf_(3, 4);
/* Writes a sentence; what is too long is cut, and marked as that. */
void sentence_put(char *sentence, const char *format, ...) _printf_(2, 3);
void sentence_put_list(char *sentence, const char *format, va_list arguments) _printf_(2, 0);
/* What strerror() says, without its buffer: `error` may be negative. */
const char *error_text(int error);

/* ---- inbox.c ------------------------------------------------------------- */

/* An event, and who was to have it when it arrived. */
struct arrival {
        struct event *event; /* NULL: taken or dropped */
        kev_handler *handler;
        void *userdata;
};

/*
 * The events that arrived and were not handed out, in their order. An event is
 * known by its place, which never changes and is never given again: handlers
 * may drop and add events while somebody walks through the inbox.
 */
struct inbox {
        struct arrival *slots; /* a ring: place p is slots[p % capacity] */
        size_t capacity;       /* 0 or a power of two */
        uint64_t start, end;   /* there is an event at start, unless start == end */
        uint64_t passed;       /* kev_dispatch() left the ones before it for kev_wait() */
};

void inbox_free(struct inbox *inbox);
/* Takes over the reference to the event, but not on failure. */
int inbox_put(struct inbox *inbox, struct event *event, kev_handler *handler, void *userdata);
bool inbox_is_empty(const struct inbox *inbox);
/* Whether there is an event that kev_dispatch() has not seen. */
bool inbox_has_news(const struct inbox *inbox);
/* The first place from `from` on, and before `end`, that has an event with a
 * handler; `end` if there is none. */
uint64_t inbox_find(const struct inbox *inbox, uint64_t from, uint64_t end);
/* The event, with its reference, out of the inbox. */
struct arrival inbox_take(struct inbox *inbox, uint64_t place);
/* Drops all events of a watch; returns how many. */
size_t inbox_drop(struct inbox *inbox, int64_t id);

/* ---- known.c ------------------------------------------------------------- */

struct known_watch {
        int64_t id;
        kev_handler *handler; /* or NULL */
        void *userdata;
        char *description;      /* the Watch object, as it is now; NULL: no memory; then it is not made again */
        int pidfd;              /* proc: a duplicate of what goes with that; -1: nothing */
        uint64_t start_time;    /* of the process that it names by its number: process_start_time() */
        bool is_used;
        bool is_oneshot;
        bool is_disabled;
        bool has_fd;  /* of a file or the like, which can't be kept: it is not made again */
        bool is_over; /* nothing follows: neither */
};

struct known {
        struct known_watch *slots;
        size_t capacity; /* 0 or a power of two */
        size_t used;
};

void known_free(struct known *known);
/* Room for `n` more, so that known_set() can't fail. */
int known_reserve(struct known *known, size_t n);
/* Makes or replaces the entry; takes over what it points to. */
void known_set(struct known *known, const struct known_watch *watch);
/* Lives until the next that is set or removed. */
struct known_watch *known_find(const struct known *known, int64_t id);
bool known_remove(struct known *known, int64_t id);
/* The Watch object as text, with that id. NULL: no memory. */
char *known_describe(const struct watch_spec *spec, int64_t id);
/* What the description says, if there is one; to be freed. */
int known_read(const struct known_watch *watch, struct watch_spec *ret_spec);
/* The description once it is changed so: what the change doesn't say stays, and so do a tree's list and crossMounts. */
char *known_describe_changed(const struct known_watch *watch, const struct watch_spec *change);

/* ---- change.c ------------------------------------------------------------- */

/* A Change with items in one of its lists. */
void change_begin(struct buffer *b, const char *list);
void change_end(struct buffer *b);
/* 0, or the first refusal's error. */
int change_refusal(struct kev *kev, const struct call *call, bool *ret_refused);

/* ---- own_event.c ---------------------------------------------------------- */

/* An event that is the library's own, as kevd would have sent it just now, but for seq, which is 0. */
int own_event_new(struct event *template, int64_t id, struct event **ret_event);

/* ---- own_signals.c ------------------------------------------------------- */

struct own_watch;

/* Signals to this very process, where kevd can't tell of them. */
struct own_signals {
        int fd; /* a signalfd; -1: none */
        struct own_watch *watches;
        size_t n;
};

/* -EOPNOTSUPP: the signal is not blocked (or, where none is named, none is). */
int own_signals_add(struct kev *kev, const struct watch_spec *spec, int64_t id, kev_handler *handler, void *userdata);
bool own_signals_has(const struct own_signals *own, int64_t id);
/* False: it has none of that id. */
bool own_signals_remove(struct kev *kev, int64_t id);
bool own_signals_enable(struct kev *kev, int64_t id, bool enable);
/* It has one of that id. */
int own_signals_modify(struct kev *kev, int64_t id, const struct watch_spec *spec);
/* Those that came go to the inbox. 1, or 0: there were none; else the connection is over. */
int own_signals_read(struct kev *kev);
void own_signals_close(struct own_signals *own);

/* ---- reconnect.c ---------------------------------------------------------- */

struct reconnecting {
        int timeout_msec;  /* from the loss on; 0: none is tried */
        int timer;         /* a timerfd, for programs that wait for kev_get_fd(); -1: kevd is there */
        int pause_msec;
        int64_t since_msec, next_msec; /* CLOCK_MONOTONIC: the loss, and the next attempt */
        bool is_remaking;     /* the watches: a loss ends the attempt */
        uint64_t n_remakings; /* how often they were, ever */
};

/* kevd has gone. -ECONNRESET: the calls in flight have failed, and the connection may be over. */
int reconnect_begin(struct kev *kev);
/* Tries, as long as there is time. As connection_step(). */
int reconnect_step(struct kev *kev, int timeout_msec);
void reconnect_close(struct kev *kev);
/* When the process of that number began: proc_pid_stat(5). 0: there is none, or that can't be known. */
uint64_t process_start_time(int64_t pid);

/* ---- connection.c -------------------------------------------------------- */

struct kev {
        int fd;     /* the socket; -1: kevd has gone, or the connection is over */
        int wake;   /* an eventfd, raised while there is something to find without reading */
        int epoll;  /* what kev_get_fd() gives: both of these */
        int error;  /* why the connection is over: 0, or what every call answers */
        char *address;
        char message[ERROR_MESSAGE_MAX];

        struct buffer in;
        size_t scanned; /* bytes at the front of `in` that hold no NUL */
        struct buffer out;
        const int *fds; /* they go with the first byte of `out` */
        size_t n_fds;

        struct buffer calls;     /* of struct call *, in the order of their replies; NULL: a Wait */
        uint64_t sent, answered; /* how many calls, ever */
        uint64_t n_losses;       /* how often kevd has gone */
        size_t waits;            /* Waits among the calls in flight */

        struct inbox inbox;
        struct known known;
        struct reconnecting reconnecting;
        struct own_signals own_signals;
        struct event *handed_out; /* by kev_wait(), until the next call */
        int64_t highest_id;       /* of all ids used; -1: none was */
        bool watching;            /* there was a watch: keep a Wait in flight */
        bool has_levels;          /* one had the flag `level`: what a Wait in flight brings must be asked for late */
        bool dispatching;         /* a handler runs */
        bool woken, writing;      /* `wake` is raised; `epoll` waits for room to write, too */
};

/* A call in flight. It lives where its caller has it, until it was answered or
 * the connection is over. */
struct call {
        bool answered;
        uint64_t n_losses;              /* of the connection, as it was sent: after another it is not answered */
        struct json_object *reply;      /* the whole of it, owned */
        const char *error;              /* the error's name, or NULL */
        struct json_object *parameters; /* NULL: none */
};

enum { CALL_FDS_MAX = 253 }; /* SCM_MAX_FD; see unix(7) */

/* Ends the connection: from here on every call answers `error`. */
int connection_fail(struct kev *kev, int error, const char *format, ...) _printf_(3, 4);
int connection_fail_memory(struct kev *kev);
/* Forgets what was sent and what was read. */
void connection_forget(struct kev *kev);
/* Closes one that the program is woken for, if it is not -1: the set does not forget it by itself if a child of the
 * program has it, too. Returns -1. */
int polled_close(struct kev *kev, int fd);

/* Reads what has come, without waiting. 1: something had; 0: nothing. */
int connection_read(struct kev *kev);

/* Waits until the socket can be read, or written if there is something to be
 * written, and does that. 1, or 0 when the time was up; -EINTR; else the
 * connection is over. */
int connection_step(struct kev *kev, int timeout_msec);

/* Neither waits for anything. Asks for what there is now. */
int connection_ask(struct kev *kev);
/* Asks for all that comes, if that wasn't done yet. */
int connection_wait(struct kev *kev);
/* The same, if there are watches, and nothing is left that the program has to look at first. */
int connection_keep_waiting(struct kev *kev);

/* Sends a message, which ends in NUL. -EMSGSIZE, -ENOMEM and what sendmsg(2)
 * says about the descriptors leave the connection as it was. */
int call_send(struct kev *kev, struct call *call, const struct buffer *message, const int *fds, size_t n_fds);
/* Waits for its reply, whatever signals come: 0, also for an error reply. */
int call_wait(struct kev *kev, struct call *call);
/* -ECONNRESET, with its message. */
int fail_unanswered(struct kev *kev);
/* Sends it and waits. An error reply is a negative errno here. */
int call_run(struct kev *kev, struct call *call, const struct buffer *message, const int *fds, size_t n_fds);

/* ---- reply.c -------------------------------------------------------------- */

/* One message of kevd's, without its NUL. */
int reply_take(struct kev *kev, const char *data, size_t size);
/* The errno, and the sentence, for an error reply; 0 for any other. */
int call_error(struct kev *kev, const struct call *call);
/* The reply's parameters as JSON; NULL without memory. */
const char *call_parameters(const struct call *call);
void call_free(struct call *call);

/* ---- kev.c ----------------------------------------------------------------- */

/* The frame of each public call: the event that kev_wait() handed out ends with
 * the first; the second sees to the next Wait and to kev_get_fd(), and returns
 * `r`. */
int call_enter(struct kev *kev);
int call_leave(struct kev *kev, int r);

/* ---- address.c, private.c ------------------------------------------------ */

/* The socket, and an allocated text for kev_address(). Sentences go to
 * kev_error_message(NULL). */
int address_open(const char *address, int *ret_fd, char **ret_address);
/* The same place once more, by the text for kev_address(). */
int address_open_again(const char *address, int *ret_fd);
int private_open(int *ret_fd);

/* ---- watch.c ------------------------------------------------------------- */

struct kev_watch {
        struct watch_spec spec; /* without descriptor: its number is the call's */
        int fd;                 /* -1: none */
};
