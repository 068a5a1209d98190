/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Processes that have ended, and nobody follows any more: who asks late is told how. A ring, so that one that comes
 * costs no search for memory, and only those that run are in the way of who looks for one that does.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "process_profile.h"

struct past {
        struct profile *profile; /* a reference; NULL: taken out again */
        uint64_t forked_nsec, ended_nsec, exit_usec, reap_usec, cpu_usec, peak_bytes, start_time; /* of struct process */
        pid_t pid, parent_pid;
        int status;
        uint32_t before; /* the number of the one before it in its bucket */
        bool is_reaped, knows_status, knows_usage, had_record;
};

/* All zeros: empty. */
struct history {
        struct past *ring;
        uint32_t *buckets;  /* numbers of those that came last */
        uint32_t capacity;  /* of either: a power of two, or 0 */
        uint32_t n, n_ever; /* modulo 2^32, which no ring comes near to */
};

/* Takes the profile over. Where there is no room the oldest is forgotten, or, with no memory at all, this one. */
void history_put(struct history *h, const struct past *past);
/* The last one of that number, if it ended later than that: taken out. Its profile is the caller's. */
bool history_take(struct history *h, pid_t pid, uint64_t exit_usec, struct past *ret);
/* Those that have ended before are forgotten, but for some. */
void history_forget(struct history *h, uint64_t exit_usec);
void history_free(struct history *h);
