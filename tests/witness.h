/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A client that behaves, in a process and of a user of its own, and notes when it is told what: each millisecond a name
 * is made in its tree, each 5 ms it sets off a name, each 10 ms one of its timers is due. None of that waits for what
 * came before, so that what is late makes the rest late as well, and is seen to. No assertions here: benchmarks use it, too.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum witness_kind {
        WITNESS_TREE,
        WITNESS_USER,
        WITNESS_TIMER,
        WITNESS_KINDS,
};

enum { WITNESS_SECONDS_MAX = 120 };

struct witness_page;

struct witness {
        pid_t pid;
        struct witness_page *page;
        uint64_t goal; /* the caller's own */
};

struct witness_result {
        uint64_t expected;
        uint64_t missing; /* of what was expected */
        char lacks[128];  /* of which kind how many, and when the first and the last of them were due before the end */
        uint64_t odd;     /* twice, merged, of another kind, or a `seq` that does not follow */
        char error[128];  /* why it ended before its time; or empty */
};

/* `directory`: its own to write to. On return its watches are in force; it goes on for WITNESS_SECONDS_MAX at most.
 * 0, or -EIO with the reason in the result of witness_end(), which is due all the same. */
int witness_start(struct witness *witness, const char *address, const char *directory, uid_t uid);
/* How much it has been told so far. */
uint64_t witness_n_told(const struct witness *witness);
/* Nothing more happens; waits until all is told, or nothing was for ten seconds. */
struct witness_result witness_end(struct witness *witness);
/* Between witness_end() and this: from when to when (CLOCK_MONOTONIC) it took to be told what happened between the two,
 * in nanoseconds, in no order. As many as the array has room for are written; returns how many. */
size_t witness_latencies(const struct witness *witness, enum witness_kind kind, uint64_t from_nsec, uint64_t to_nsec,
                         uint64_t *latencies, size_t n_max);
void witness_free(struct witness *witness);
