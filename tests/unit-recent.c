/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * source/recent: against the last number of each object.
 */

#include "harness.h"
#include "macro.h"
#include "recent.h"
#include "unit.h"

enum { OBJECTS = 64 };

static struct recent recent;

static uint64_t hash_of(uint64_t object) {
        return hash_u64(object % 2 ? object : object << 20); /* some of one bucket, whatever its size */
}

START_TEST(nothing) {
        ck_assert(!recent_has_since(&recent, 1, 0));
        recent_settle(&recent, 5);
        ck_assert(!recent_has_since(&recent, 1, 0));
        recent_free(&recent);
}
END_TEST

START_TEST(since) {
        recent_note(&recent, 1, 10);
        ck_assert(recent_has_since(&recent, 1, 9));
        ck_assert(!recent_has_since(&recent, 1, 10));
        ck_assert(!recent_has_since(&recent, 2, 9));
        recent_note(&recent, 1, 12);
        ck_assert(recent_has_since(&recent, 1, 11));
        ck_assert(!recent_has_since(&recent, 1, 12));
        recent_free(&recent);
}
END_TEST

START_TEST(unknown) {
        recent_note(&recent, 1, RECENT_UNKNOWN);
        ck_assert(recent_has_since(&recent, 1, RECENT_UNKNOWN - 1));
        recent_settle(&recent, 20);
        ck_assert(recent_has_since(&recent, 1, 19));
        ck_assert(!recent_has_since(&recent, 1, 20));
        recent_settle(&recent, 30);
        ck_assert(!recent_has_since(&recent, 1, 20));
        recent_free(&recent);
}
END_TEST

/* Whatever happens to others, and up to the limit: then what is older may have happened to any. */
START_TEST(forgets) {
        recent_note(&recent, hash_of(0), 1);
        for (uint64_t i = 1; i < RECENT_MAX; i++)
                recent_note(&recent, hash_of(i), i + 1);
        ck_assert(recent_has_since(&recent, hash_of(0), 0));
        ck_assert(!recent_has_since(&recent, hash_of(RECENT_MAX), 0));
        recent_note(&recent, hash_of(RECENT_MAX), RECENT_MAX + 1);
        ck_assert(recent_has_since(&recent, hash_of(RECENT_MAX + 1), 0));
        ck_assert(!recent_has_since(&recent, hash_of(RECENT_MAX + 1), 1));
        recent_free(&recent);
}
END_TEST

/* One object alone is what it always was, however often it is noted. */
START_TEST(one_object) {
        for (uint64_t i = 1; i <= 3 * RECENT_MAX; i++)
                recent_note(&recent, 1, i);
        ck_assert_uint_eq(recent.table.n_nodes, 1);
        ck_assert(!recent_has_since(&recent, 2, 0));
        ck_assert(!recent_has_since(&recent, 1, 3 * RECENT_MAX));
        ck_assert(recent_has_since(&recent, 1, 3 * RECENT_MAX - 1));
        recent_free(&recent);
}
END_TEST

/* What was noted when its number was not known, and is forgotten before it is. */
START_TEST(forgets_unknown) {
        for (uint64_t i = 0; i <= RECENT_MAX; i++)
                recent_note(&recent, hash_of(i), RECENT_UNKNOWN);
        ck_assert(recent_has_since(&recent, hash_of(RECENT_MAX + 1), RECENT_UNKNOWN - 1));
        recent_settle(&recent, 7);
        ck_assert(recent_has_since(&recent, hash_of(RECENT_MAX + 1), 6));
        ck_assert(!recent_has_since(&recent, hash_of(RECENT_MAX + 1), 7));
        ck_assert(!recent_has_since(&recent, hash_of(1), 7));
        recent_free(&recent);
}
END_TEST

START_TEST(as_one_by_one) {
        struct random r = { .state = (uint64_t)_i };
        uint64_t last[OBJECTS] = { 0 }, now = 1;

        for (size_t i = 0; i < RECENT_MAX; i++) { /* so many fit, whatever they are about */
                size_t object = random_below(&r, OBJECTS), asked = random_below(&r, OBJECTS);
                uint64_t number = random_below(&r, now + 1);

                now += random_below(&r, 3);
                if (random_once_in(&r, 16)) {
                        recent_settle(&recent, now);
                        for (size_t k = 0; k < OBJECTS; k++)
                                last[k] = last[k] == RECENT_UNKNOWN ? now : last[k];
                }
                last[object] = random_once_in(&r, 2) ? RECENT_UNKNOWN : last[object] == RECENT_UNKNOWN ? RECENT_UNKNOWN : now;
                recent_note(&recent, hash_of(object), last[object]);
                assert_often(recent_has_since(&recent, hash_of(asked), number) == (last[asked] > number),
                             "round %d, step %zu", _i, i);
        }
        recent_free(&recent);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("recent"), "notes");

        tcase_add_test(c, nothing);
        tcase_add_test(c, since);
        tcase_add_test(c, unknown);
        tcase_add_test(c, forgets);
        tcase_add_test(c, one_object);
        tcase_add_test(c, forgets_unknown);
        tcase_add_loop_test(c, as_one_by_one, 0, 32);
        return harness_main(argc, argv);
}
