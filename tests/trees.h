/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the tests of tree watches share: the daemon of a test, what it holds, and what a follower is told of one path.
 * Whatever is done in a directory, replaying its events on an empty model (replay.h) gives what is on the disk. A Wait
 * with a timeout of 0 is the barrier throughout, so nothing here waits for a time to pass. What goes wrong fails the
 * test.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "harness.h"
#include "replay.h"

enum { ROUNDS_SECONDS = 300 }; /* for a test that goes in rounds */

extern struct daemon *kevd; /* the test's own */

void start(void);
void stop(void);

/* Each of its tests has a daemon, and so many seconds. */
TCase *make_tree_case(Suite *suite, const char *name, int seconds);

/* The same is done with inotify, with deputies and with fanotify, and most often with the first. */
int n_rounds(void);

/* Takes events until the writers have ended. */
void follow_writers(struct follower *f, pid_t *pids, size_t n);

/* ---- events one at a time -------------------------------------------------------------------- */

struct seen {
        uint64_t notes; /* or'ed */
        size_t n;
};

/* What is due about one path. */
struct seen see(struct follower *f, const char *path);
/* What is due about one path has these notes. */
void expect(struct follower *f, const char *path, uint64_t notes);
/* The watch ends with `gone`. */
void expect_gone(struct follower *f, const char *what);
/* Takes all that is due, and counts what mentions the text in its path. */
size_t count_about(struct follower *f, const char *text);
