/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the unit tests share: numbers that look random and are the same on every
 * run (SplitMix64). A test that fails names the seed of its round. And what they
 * assert a million times.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct random {
        uint64_t state;
};

static inline uint64_t random_next(struct random *r) {
        uint64_t z = r->state += UINT64_C(0x9e3779b97f4a7c15);

        z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
        z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
        return z ^ z >> 31;
}

/* From 0 to n - 1. */
static inline size_t random_below(struct random *r, size_t n) {
        return (size_t)(random_next(r) % n);
}

/* True once in n. */
static inline bool random_once_in(struct random *r, size_t n) {
        return random_below(r, n) == 0;
}

/* As ck_assert_msg(). Check tells the test's parent of each assertion that held, which takes longer than most
 * of what is asserted here. */
#define assert_often(expression, ...)              \
        do {                                       \
                if (!(expression))                 \
                        ck_abort_msg(__VA_ARGS__); \
        } while (0)
