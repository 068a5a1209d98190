/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How long things took: counts of durations by fixed bounds, in microseconds, from 10 us to 10 s in steps
 * of 1, 2 and 5, and behind these one for all that took longer.
 */

#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_BOUNDS = 19 };

struct histogram {
        uint64_t counts[HISTOGRAM_BOUNDS + 1];
        uint64_t sum_usec;
};

/* A bucket's own bound is in it. */
extern const uint32_t histogram_bounds_usec[HISTOGRAM_BOUNDS];

/* `n` things that took so long each. */
void histogram_add(struct histogram *histogram, uint64_t usec, uint64_t n);
uint64_t histogram_count(const struct histogram *histogram);
