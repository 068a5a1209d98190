/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "process_history.h"

#include <stdlib.h>

#include "hash.h"
#include "macro.h"

enum {
        KEPT_MIN = 1024,
        CAPACITY_MIN = 256,
        CAPACITY_MAX = 32 * 1024,
};

static struct past *at(const struct history *h, uint32_t number) {
        return &h->ring[number & (h->capacity - 1)];
}

static uint32_t *bucket_of(const struct history *h, pid_t pid) {
        return &h->buckets[hash_u64((uint64_t)pid) & (h->capacity - 1)];
}

static void put(struct history *h, const struct past *past) {
        uint32_t *bucket = bucket_of(h, past->pid);
        struct past *p = at(h, h->n_ever);

        *p = *past;
        p->before = *bucket;
        *bucket = h->n_ever++;
        h->n++;
}

static void forget_oldest(struct history *h) {
        struct past *p = at(h, h->n_ever - h->n);

        p->profile = profile_unref(p->profile);
        h->n--;
}

static bool resize(struct history *h, uint32_t capacity) {
        struct history new = {
                .ring = malloc(capacity * sizeof(*new.ring)), .buckets = calloc(capacity, sizeof(*new.buckets)),
                .capacity = capacity,
        };

        if (!new.ring || !new.buckets) {
                free(new.ring);
                free(new.buckets);
                return false;
        }
        for (uint32_t number = h->n_ever - h->n; number != h->n_ever; number++)
                if (at(h, number)->profile)
                        put(&new, at(h, number));
        free(h->ring);
        free(h->buckets);
        *h = new;
        return true;
}

void history_put(struct history *h, const struct past *past) {
        uint32_t more = MAX(h->capacity * 2, (uint32_t)CAPACITY_MIN);

        if (h->n == h->capacity && (h->capacity == CAPACITY_MAX || !resize(h, more))) {
                if (h->n == 0) {
                        profile_unref(past->profile);
                        return;
                }
                forget_oldest(h);
        }
        put(h, past);
}

/* Numbers in a bucket go down, as far as they mean anything. */
bool history_take(struct history *h, pid_t pid, uint64_t exit_usec, struct past *ret) {
        uint32_t age = 0, number = h->n > 0 ? *bucket_of(h, pid) : 0;

        while (h->n_ever - number > age && h->n_ever - number <= h->n) {
                struct past *p = at(h, number);

                if (p->pid == pid && p->profile) {
                        if (p->exit_usec <= exit_usec)
                                return false;
                        *ret = *p;
                        p->profile = NULL;
                        return true;
                }
                age = h->n_ever - number;
                number = p->before;
        }
        return false;
}

void history_forget(struct history *h, uint64_t exit_usec) {
        while (h->n > KEPT_MIN && at(h, h->n_ever - h->n)->exit_usec < exit_usec)
                forget_oldest(h);
        if (h->capacity > 4 * KEPT_MIN && h->n < h->capacity / 8)
                (void)resize(h, h->capacity / 4); /* without the memory it stays as it is */
}

void history_free(struct history *h) {
        while (h->n > 0)
                forget_oldest(h);
        free(h->ring);
        free(h->buckets);
        *h = (struct history){ 0 };
}
