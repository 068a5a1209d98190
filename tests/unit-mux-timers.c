/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/, with every backend (muxes.h): timers. They fire in order, each once and not before its time, and the loop
 * sleeps until then.
 */

#include <stdlib.h>

#include "harness.h"
#include "macro.h"
#include "mux.h"
#include "muxes.h"
#include "unit.h"

START_TEST(timers_fire_in_order) {
        static struct timed timers[500];
        struct random r = { 31 };
        uint64_t start;
        unsigned fired = 0;

        open_mux(_i);
        start = monotonic_nsec();
        for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
                set_timed(&timers[i], start - 5 * NSEC_PER_MSEC + random_below(&r, 25 * NSEC_PER_MSEC), timed_fires);
        while (monotonic_nsec() < start + 21 * NSEC_PER_MSEC)
                turn(2 * (int64_t)NSEC_PER_MSEC);
        for (int i = 0; i < 8; i++) /* where the machine stood still they are all due now: so many turns' worth */
                turn(0);
        for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
                fired += timers[i].calls;
        ck_assert_uint_eq(fired, ARRAY_SIZE(timers));
        turn(0);
        for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
                ck_assert_uint_eq(timers[i].calls, 1);
        close_mux();
}
END_TEST

/* Waiting for a timer is one sleep, not many. */
START_TEST(timers_are_not_early_and_not_polled) {
        static const uint64_t delays[] = { 1, 1000, 300000, 999999, 1000000, 1000001, 3500000, 20000000 };
        struct timed t = { 0 };

        open_mux(_i);
        for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
                unsigned n = 0;

                last_deadline = 0;
                t.calls = 0;
                set_timed(&t, monotonic_nsec() + delays[i], timed_fires);
                for (; t.calls == 0; n++)
                        turn(-1);
                ck_assert_msg(n <= 3, "%u turns for %llu ns", n, (unsigned long long)delays[i]);
        }
        close_mux();
}
END_TEST

START_TEST(the_wait_is_as_long_as_asked) {
        struct timed t = { 0 };
        uint64_t start;

        open_mux(_i);
        start = monotonic_nsec();
        turn(15 * (int64_t)NSEC_PER_MSEC);
        ck_assert_uint_ge(monotonic_nsec() - start, 14 * NSEC_PER_MSEC);

        /* A timer that is far off changes nothing, one that is near ends it. */
        set_timed(&t, monotonic_nsec() + 3600 * NSEC_PER_SEC, timed_fires);
        start = monotonic_nsec();
        turn(15 * (int64_t)NSEC_PER_MSEC);
        ck_assert_uint_ge(monotonic_nsec() - start, 14 * NSEC_PER_MSEC);
        ck_assert_uint_lt(monotonic_nsec() - start, 5 * NSEC_PER_SEC);
        set_timed(&t, monotonic_nsec() + 5 * NSEC_PER_MSEC, timed_fires);
        turn(3600 * (int64_t)NSEC_PER_SEC);
        ck_assert_uint_lt(monotonic_nsec() - start, 20 * NSEC_PER_SEC);
        turn(0);
        ck_assert_uint_eq(t.calls, 1);

        set_timed(&t, UINT64_MAX, timed_fires);
        turn(0);
        turn(2 * (int64_t)NSEC_PER_MSEC);
        ck_assert_uint_eq(t.calls, 1);
        mux_timer_clear(mux, &t.timer);
        close_mux();
}
END_TEST

static void clear_other(struct mux_timer *timer) {
        struct timed *t = container_of(timer, struct timed, timer);

        t->calls++;
        mux_timer_clear(mux, timer);
        mux_timer_clear(mux, &t->other->timer);
}

START_TEST(clear_in_callback) {
        struct timed a = { 0 }, b = { .other = &a };

        open_mux(_i);
        a.other = &b;
        set_timed(&a, 5, clear_other);
        set_timed(&b, 5, clear_other);
        turns(3);
        ck_assert_uint_eq(a.calls + b.calls, 1);
        set_timed(&a, 5, clear_other);
        mux_timer_clear(mux, &a.timer);
        mux_timer_clear(mux, &a.timer);
        turn(0);
        ck_assert_uint_eq(a.calls + b.calls, 1);
        close_mux();
}
END_TEST

static struct timed *heap_timers[50];

static void free_timers(struct mux_timer *timer) {
        n_calls++;
        for (size_t i = 0; i < ARRAY_SIZE(heap_timers); i++) {
                if (&heap_timers[i]->timer != timer)
                        mux_timer_clear(mux, &heap_timers[i]->timer);
                free(heap_timers[i]);
        }
}

START_TEST(free_timers_in_callback) {
        open_mux(_i);
        for (size_t i = 0; i < ARRAY_SIZE(heap_timers); i++) {
                heap_timers[i] = calloc(1, sizeof(**heap_timers));
                ck_assert_ptr_nonnull(heap_timers[i]);
                set_timed(heap_timers[i], 1 + i % 7, free_timers);
        }
        turns(2);
        ck_assert_uint_eq(n_calls, 1);
        close_mux();
}
END_TEST

static void set_again_soon(struct mux_timer *timer) {
        struct timed *t = container_of(timer, struct timed, timer);

        ck_assert_msg(++t->calls < 1000, "the timer keeps the loop from the kernel");
        set_timed(t, monotonic_nsec(), set_again_soon);
}

START_TEST(set_again_in_callback) {
        struct timed t = { 0 };

        open_mux(_i);
        set_timed(&t, 1, set_again_soon);
        turn(0);
        ck_assert_uint_eq(t.calls, 1);
        turn(-1);
        ck_assert_uint_eq(t.calls, 2);
        mux_timer_clear(mux, &t.timer);
        turn(0);
        ck_assert_uint_eq(t.calls, 2);
        close_mux();
}
END_TEST

static void set_again_for_the_past(struct mux_timer *timer) {
        struct timed *t = container_of(timer, struct timed, timer);

        ck_assert_msg(++t->calls < 1000, "the timer keeps the loop from the kernel");
        set_timed(t, 1, set_again_for_the_past);
}

/* "One that sets itself again for now waits for the next turn": for earlier too. */
START_TEST(set_again_in_callback_for_the_past) {
        struct timed t = { 0 };

        open_mux(_i);
        set_timed(&t, 1, set_again_for_the_past);
        turn(0);
        ck_assert_uint_eq(t.calls, 1);
        turn(-1);
        ck_assert_uint_eq(t.calls, 2);
        mux_timer_clear(mux, &t.timer);
        close_mux();
}
END_TEST

START_TEST(set_twice_fires_once) {
        struct timed t = { 0 };

        open_mux(_i);
        set_timed(&t, 1, timed_fires);
        set_timed(&t, monotonic_nsec() + 5 * NSEC_PER_MSEC, timed_fires);
        turn(0);
        ck_assert_uint_eq(t.calls, 0);
        turn(-1);
        turn(0);
        ck_assert_uint_eq(t.calls, 1);
        close_mux();
}
END_TEST

/* Set and cleared at random, all of them due: they fire in the order of a sorted array, some in each turn. */
START_TEST(random_timers) {
        static struct timed timers[300];
        struct random r = { 32 };

        open_mux(_i);
        for (unsigned round = 0; round < 200; round++) {
                for (unsigned i = 0; i < 600; i++) {
                        struct timed *t = &timers[random_below(&r, ARRAY_SIZE(timers))];

                        t->model_set = !random_once_in(&r, 3);
                        t->model_deadline = 1 + random_below(&r, 1000);
                        if (t->model_set)
                                set_timed(t, t->model_deadline, timed_fires);
                        else
                                mux_timer_clear(mux, &t->timer);
                }
                last_deadline = 0;
                turns(ARRAY_SIZE(timers) / 30);
                for (size_t i = 0; i < ARRAY_SIZE(timers); i++) {
                        ck_assert_uint_eq(timers[i].calls, timers[i].model_set);
                        if (timers[i].model_set)
                                ck_assert_uint_eq(timers[i].timer.deadline_nsec, timers[i].model_deadline);
                        timers[i].calls = timers[i].model_set = 0;
                }
        }
        close_mux();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("mux-timers"), "timers");
        int n = count_backends();

        tcase_add_loop_test(c, timers_fire_in_order, 0, n);
        tcase_add_loop_test(c, timers_are_not_early_and_not_polled, 0, n);
        tcase_add_loop_test(c, the_wait_is_as_long_as_asked, 0, n);
        tcase_add_loop_test(c, clear_in_callback, 0, n);
        tcase_add_loop_test(c, free_timers_in_callback, 0, n);
        tcase_add_loop_test(c, set_again_in_callback, 0, n);
        tcase_add_loop_test(c, set_again_in_callback_for_the_past, 0, n);
        tcase_add_loop_test(c, set_twice_fires_once, 0, n);
        tcase_add_loop_test(c, random_timers, 0, n);
        return harness_main(argc, argv);
}
