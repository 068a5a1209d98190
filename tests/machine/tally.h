/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What was made, and what of it was told: the things of one watch, which have numbers from 0 on. A thing that
 * was not told is missing, unless it is covered: its watcher was told to look again, and knows that there may be
 * something.
 *
 * Times are CLOCK_MONOTONIC in nanoseconds. Out of memory ends the program.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of all tallies of a round. gap: the longest time from being made to being told or covered. */
struct sums {
        size_t made, told, covered;
        size_t twice; /* told again, or never made */
        int64_t gap;
};

struct thing;

struct tally {
        struct thing *things;
        size_t n, capacity;
        size_t first_open; /* all before it are told or covered */
};

int64_t now_nsec(void);

/* The number of the next thing: it is being made. */
size_t tally_make(struct tally *tally, struct sums *sums);
/* It is made only now. */
void tally_begin(struct tally *tally, size_t number);
void tally_tell(struct tally *tally, size_t number, struct sums *sums);
/* Those up to `end` that were not told, and for which the function says so: NULL for all. */
void tally_cover(struct tally *tally, size_t end, bool (*is_covered)(void *userdata, size_t number), void *userdata,
                 struct sums *sums);
/* What `number` was made for can't happen any more. */
void tally_take_back(struct tally *tally, size_t number, struct sums *sums);

/* How many are neither told nor covered, and the first and the last of them. */
size_t tally_count_missing(struct tally *tally, size_t *ret_first, size_t *ret_last);
/* The rest is given up: it doesn't count in the rounds to come. */
void tally_close(struct tally *tally);
void tally_free(struct tally *tally);
