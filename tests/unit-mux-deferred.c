/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/, with every backend (muxes.h): deferred work. It is done once, in order, in the turn that it was deferred in or
 * the next, and keeps the loop from nothing else.
 */

#include <unistd.h>

#include "harness.h"
#include "macro.h"
#include "mux.h"
#include "muxes.h"

struct work_item {
        struct mux_deferred deferred;
        unsigned calls, place;
        struct work_item *defers, *cancels;
};

static void on_deferred(struct mux_deferred *deferred) {
        struct work_item *w = container_of(deferred, struct work_item, deferred);

        w->calls++;
        w->place = ++n_calls;
        if (w->defers)
                mux_defer(mux, &w->defers->deferred);
        if (w->cancels)
                mux_deferred_cancel(&w->cancels->deferred);
}

static void init_items(struct work_item *items, size_t n) {
        for (size_t i = 0; i < n; i++) {
                items[i] = (struct work_item){ 0 };
                mux_deferred_init(&items[i].deferred, on_deferred);
        }
}

START_TEST(deferred_in_order_and_once) {
        struct work_item w[3];

        open_mux(_i);
        init_items(w, 3);
        mux_defer(mux, &w[2].deferred);
        mux_defer(mux, &w[0].deferred);
        mux_defer(mux, &w[2].deferred);
        mux_defer(mux, &w[1].deferred);
        turn(-1); /* doesn't wait */
        ck_assert_uint_eq(w[2].place, 1);
        ck_assert_uint_eq(w[0].place, 2);
        ck_assert_uint_eq(w[1].place, 3);
        turn(0);
        ck_assert_uint_eq(n_calls, 3);
        mux_defer(mux, &w[1].deferred);
        turn(-1);
        ck_assert_uint_eq(w[1].calls, 2);
        close_mux();
}
END_TEST

START_TEST(deferred_by_deferred_runs_in_the_next_turn) {
        struct work_item w[2];

        open_mux(_i);
        init_items(w, 2);
        w[0].defers = &w[0];
        w[1].defers = &w[1];
        mux_defer(mux, &w[0].deferred);
        mux_defer(mux, &w[1].deferred);
        for (unsigned i = 1; i <= 5; i++) {
                turn(-1);
                ck_assert_uint_eq(w[0].calls, i);
                ck_assert_uint_eq(w[1].calls, i);
        }
        w[0].defers = w[1].defers = NULL;
        turn(-1);
        turn(0);
        ck_assert_uint_eq(n_calls, 12);
        close_mux();
}
END_TEST

/* What keeps on deferring itself doesn't keep the loop from timers and descriptors. */
START_TEST(deferred_and_others) {
        struct work_item w[1];
        struct timed t = { 0 };
        struct counted c;
        int fd = make_eventfd(true);

        open_mux(_i);
        init_items(w, 1);
        w[0].defers = &w[0];
        mux_defer(mux, &w[0].deferred);
        add_counted(&c, fd, MUX_IN);
        set_timed(&t, 1, timed_fires);
        turns(2);
        ck_assert_uint_eq(c.calls, 2);
        ck_assert_uint_eq(t.calls, 1);
        mux_deferred_cancel(&w[0].deferred);
        mux_remove(mux, &c.io);
        (void)close(fd);
        close_mux();
}
END_TEST

START_TEST(deferred_cancel) {
        struct work_item w[3];

        open_mux(_i);
        init_items(w, 3);
        w[0].cancels = &w[1];
        mux_defer(mux, &w[0].deferred);
        mux_defer(mux, &w[1].deferred);
        mux_defer(mux, &w[2].deferred);
        turn(0);
        ck_assert_uint_eq(w[0].calls, 1);
        ck_assert_uint_eq(w[1].calls, 0);
        ck_assert_uint_eq(w[2].calls, 1);
        mux_defer(mux, &w[2].deferred);
        mux_deferred_cancel(&w[2].deferred);
        mux_deferred_cancel(&w[2].deferred);
        turn(0);
        ck_assert_uint_eq(w[2].calls, 1);
        mux_defer(mux, &w[1].deferred);
        turn(0);
        ck_assert_uint_eq(w[1].calls, 1);
        close_mux();
}
END_TEST

static struct work_item from_callback;

static void defer_from_callback(struct mux_io *io _unused_, unsigned events _unused_) {
        ck_assert_uint_eq(from_callback.calls, 0);
        mux_defer(mux, &from_callback.deferred);
}

START_TEST(deferred_by_a_callback_runs_in_the_same_turn) {
        open_mux(_i);
        init_items(&from_callback, 1);
        add_many(3, true, defer_from_callback);
        turn(0);
        ck_assert_uint_eq(from_callback.calls, 1);
        free_many();
        close_mux();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("mux-deferred"), "deferred");
        int n = count_backends();

        tcase_add_loop_test(c, deferred_in_order_and_once, 0, n);
        tcase_add_loop_test(c, deferred_by_deferred_runs_in_the_next_turn, 0, n);
        tcase_add_loop_test(c, deferred_and_others, 0, n);
        tcase_add_loop_test(c, deferred_cancel, 0, n);
        tcase_add_loop_test(c, deferred_by_a_callback_runs_in_the_same_turn, 0, n);
        return harness_main(argc, argv);
}
