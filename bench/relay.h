/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The least that a daemon could do, beside one that is measured: a process with an inotify instance of its own, which
 * passes on each event to its only client by a socket. What else the machine does delays it as well.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { RELAY_SECONDS_MAX = 120 };

struct relay_page;

struct relay {
        pid_t server, client; /* both end with the thread that started them */
        struct relay_page *page;
};

/* Each 5 ms a name is made in `directory`, for RELAY_SECONDS_MAX at most. What can't be done ends the program, as in
 * bench.h. */
void relay_start(struct relay *relay, const char *directory);
/* How long it took to be told what happened between the two moments (CLOCK_MONOTONIC), in nanoseconds; as many as
 * there is room for. */
size_t relay_latencies(const struct relay *relay, uint64_t from_nsec, uint64_t to_nsec, uint64_t *latencies, size_t n_max);
void relay_end(struct relay *relay);
