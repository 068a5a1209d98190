/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tally.h"

#include <err.h>
#include <stdlib.h>
#include <time.h>

#include "macro.h"

struct thing {
        int64_t made_at;
        bool is_settled;
};

int64_t now_nsec(void) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * (int64_t)NSEC_PER_SEC + now.tv_nsec;
}

size_t tally_make(struct tally *tally, struct sums *sums) {
        if (tally->n == tally->capacity) {
                tally->capacity = MAX(tally->capacity * 2, 256U);
                tally->things = reallocarray(tally->things, tally->capacity, sizeof(*tally->things));
                if (!tally->things)
                        err(EXIT_FAILURE, "no memory");
        }
        tally->things[tally->n] = (struct thing){ .made_at = now_nsec() };
        sums->made++;
        return tally->n++;
}

void tally_begin(struct tally *tally, size_t number) {
        tally->things[number].made_at = now_nsec();
}

static void settle(struct tally *tally, size_t number, size_t *count, struct sums *sums) {
        struct thing *thing = &tally->things[number];

        thing->is_settled = true;
        (*count)++;
        sums->gap = MAX(sums->gap, now_nsec() - thing->made_at);
        while (tally->first_open < tally->n && tally->things[tally->first_open].is_settled)
                tally->first_open++;
}

void tally_tell(struct tally *tally, size_t number, struct sums *sums) {
        if (number >= tally->n || tally->things[number].is_settled)
                sums->twice++;
        else
                settle(tally, number, &sums->told, sums);
}

void tally_cover(struct tally *tally, size_t end, bool (*is_covered)(void *userdata, size_t number), void *userdata,
                 struct sums *sums) {
        for (size_t i = tally->first_open; i < MIN(end, tally->n); i++)
                if (!tally->things[i].is_settled && (!is_covered || is_covered(userdata, i)))
                        settle(tally, i, &sums->covered, sums);
}

void tally_take_back(struct tally *tally, size_t number, struct sums *sums) {
        tally->things[number].is_settled = true;
        sums->made--;
}

size_t tally_count_missing(struct tally *tally, size_t *ret_first, size_t *ret_last) {
        size_t n = 0;

        for (size_t i = tally->first_open; i < tally->n; i++) {
                if (tally->things[i].is_settled)
                        continue;
                if (n++ == 0)
                        *ret_first = i;
                *ret_last = i;
        }
        return n;
}

void tally_close(struct tally *tally) {
        for (size_t i = tally->first_open; i < tally->n; i++)
                tally->things[i].is_settled = true;
        tally->first_open = tally->n;
}

void tally_free(struct tally *tally) {
        free(tally->things);
        *tally = (struct tally){ 0 };
}
