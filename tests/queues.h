/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the tests of queue/ share: a queue, watches and events, without a socket. User watches are set off by name; for
 * trees there is a real directory in which nothing happens, and the reports are made here and given to the queue's
 * sink, as a source would. When a test ends all is given back, and every event has become of something. What goes wrong
 * fails the test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness.h"
#include "queue.h"
#include "unit.h"

enum { MIB = 1024 * 1024 };

extern struct mux *mux;
extern struct sources sources;
extern struct queue_context context;
extern struct accounts accounts;
extern struct account *account;
extern struct asker asker;
extern struct queue queue; /* the test's own */

/* What a queue tells is counted. */
extern const struct queue_listener listener;
extern unsigned n_ready, n_added;

extern uint64_t last_seq; /* of the event taken last */
extern uint64_t now_usec; /* the time of the last report */

/* Each of its tests has a queue, and two minutes. */
TCase *make_queue_case(Suite *suite, const char *name);

/* ---- making watches ------------------------------------------------------------------------------- */

struct watch *add_user(int64_t id, const char *name, uint32_t flags);
/* 0, or the error. Waits until it is in force, or refused. */
int try_tree(struct watch_spec *spec, const char *path, int64_t id, struct refusal *refusal);
struct watch *add_tree_with(struct watch_spec *spec, const char *path, int64_t id);
struct watch *add_tree(int64_t id);
void remove_watch(int64_t id);
void enable(int64_t id, bool yes);

/* ---- events in, events out -------------------------------------------------------------------------- */

/* Of a watch by its number. */
void report(struct watch *watch, uint64_t notes, int64_t data);
/* A report's path; NULL: it has none. */
struct event_path below(const char *path);
void report_path(struct watch *watch, uint64_t notes, enum kev_kind kind, const char *path, const char *from);
void report_file(struct watch *watch, uint64_t notes, const char *path);
/* Anything of a tree with so many names a directory, and so many levels. */
void random_report(struct random *r, struct watch *watch, size_t width, size_t depth);

/* The next event; NULL: there is none. The caller frees it. */
struct event *take(void);
void expect_user(int64_t id, int64_t data, uint64_t count);
void expect_none(void);
/* Below the test's directory. */
const char *path_in_watch(const struct event *event);
/* Of all events that there are. */
uint64_t take_all_counts(void);
