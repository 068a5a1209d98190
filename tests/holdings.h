/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What a daemon has, together with the processes that it has started. No assertions here: benchmarks use it, too. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

struct holdings {
        size_t processes, threads, descriptors;
        size_t watches;       /* of inotify */
        size_t marks;         /* of fanotify */
        size_t polled;        /* descriptors in epoll sets */
        uint64_t rss_bytes;   /* resident memory, now */
        uint64_t heap_bytes;  /* of it, what is not a file's */
};

enum { HOLDINGS_FAMILY_MAX = 4096 };

/* The daemon, and all below it. Returns how many these are. */
size_t holdings_family(pid_t daemon, pid_t family[HOLDINGS_FAMILY_MAX]);
/* How many of these have that name (comm). */
size_t holdings_named(pid_t daemon, const char *name);
/* All of it; of a process that is just ending, a part. */
struct holdings holdings_read(pid_t daemon);
/* How many descriptors the daemon alone has, without looking at each. */
size_t holdings_descriptors(pid_t daemon);

/* Writes down what descriptors these are, a line each. */
void holdings_list(pid_t daemon, FILE *file);

/* No more than before, memory aside. */
bool holdings_are_back(const struct holdings *now, const struct holdings *before);
/* Waits until it is so. How long that took, or a negative figure if it did not come to be in time; what there was last. */
int holdings_wait_back(pid_t daemon, const struct holdings *before, int timeout_msec, struct holdings *ret_last);
/* What there is more than before, in words; "nothing". The text lives until the next call. */
const char *holdings_difference(const struct holdings *now, const struct holdings *before);
