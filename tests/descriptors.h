/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the tests of read, write, poll and aio have in common: a client that passes descriptors, and objects of each
 * kind that are brought from state to state by a script. What goes wrong fails the test.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-c/json.h>

#include "harness.h"

/* ---- a client -------------------------------------------------------------------- */

/* Change, with a descriptor to go with it (or -1): the reply. */
struct json_object *change_reply(int kevd, int fd, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Of which nothing may be refused. */
void change(int kevd, int fd, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Whose first refusal has this errno. */
void refused(int kevd, int fd, const char *error, const char *format, ...) __attribute__((format(printf, 4, 5)));

/* Wait for so long, and no longer than for the first events: an array of them, which the caller frees. */
struct json_object *take_events(int kevd, int timeout_msec);
/* An event's notes, and an event's of this watch; 0: there is none. In the bits of poll(2), which are epoll's, too. */
short poll_bits(struct json_object *event);
struct json_object *event_of(struct json_object *events, int64_t id);
/* How many events are due, all of which have these notes, "lowat,eof" for instance. */
size_t due(int kevd, const char *notes);
/* The next event comes in time, and has these notes. */
void expect_notes(int kevd, const char *notes);

/* ---- the daemon -------------------------------------------------------------------- */

/* What it has when nothing is under way. */
size_t fds_at_rest(const struct daemon *daemon);
/* Waits until it has so many again, at most: what is closed for others is closed in its own time. */
void expect_fds(const struct daemon *daemon, size_t n);
/* On a connection of its own. */
void expect_answers(const struct daemon *daemon);

/* ---- objects --------------------------------------------------------------------------- */

enum { OBJECT_FDS = 16 };

struct object {
        int fd[OBJECT_FDS]; /* the first is what is watched; -1: closed */
        size_t n_fds;
        char path[64];     /* of what can be opened again */
        int64_t backlog;   /* connections that wait to be accepted */
        bool is_listener;
};

/*
 * A script's steps are a letter and the number of the object's descriptor:
 *   w write a little, W all that it takes; r read a little, R all that there is
 *   c close, x close with a reset; s, S, b shut down its writing, its reading, both
 *   o, O send, and receive, a byte out of band
 *   k connect to it, a accept
 *   p, q open the path as this number for writing, for reading
 *   e add 3 to an eventfd, F all that it takes; t set a timer, and wait for it; i have inotify something to say
 *   f flush what a terminal has received; T truncate
 *   n nothing; ! wait until it can be written, or fails
 * Between steps that a comma joins it is not looked at. (A terminal that is nearly full can be written again, by
 * poll(2), without waking anybody, epoll neither.)
 */
struct script {
        const char *name;
        void (*make)(struct object *object);
        const char *steps;
        short seen; /* of poll(2), in one step or another */
        bool is_file; /* a regular one, which can't be polled */
};

extern const struct script scripts[];
extern const size_t n_scripts;

void object_make(struct object *object, const struct script *script);
/* One step, of which `*steps` is moved on to the next; false: there is none. */
bool object_step(struct object *object, const char **steps);
void object_close(struct object *object);

/* poll(2), at once, with these events. */
short poll_now(int fd, short events);
/* Until one of them is there. */
void poll_until(int fd, short events);
void make_nonblocking(int fd);
/* A TCP socket that listens on 127.0.0.1, and one that is connected, or in progress. */
int tcp_listen(int backlog);
int tcp_connect(int listener);
/* The two ends. */
void make_unix_pair(int fds[2]);
void make_tcp_pair(int fds[2]);
void make_pipe(int fds[2]);
