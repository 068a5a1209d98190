/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/, with every backend (muxes.h): barriers. One opens when all that was ready when it was added has been called,
 * however many that is and whatever they do.
 */

#include <unistd.h>

#include "harness.h"
#include "macro.h"
#include "mux.h"
#include "muxes.h"
#include "unit.h"

struct gate {
        struct mux_barrier barrier;
        unsigned calls;
        size_t n_uncalled; /* of all ios, when it opened */
};

static void gate_opens(struct mux_deferred *deferred) {
        struct gate *g = container_of(container_of(deferred, struct mux_barrier, deferred), struct gate, barrier);

        g->calls++;
        for (size_t i = 0; i < n_many; i++)
                g->n_uncalled += many[i] && many[i]->calls == 0;
}

static void add_gate(struct gate *g) {
        *g = (struct gate){ 0 };
        mux_barrier_init(&g->barrier, gate_opens);
        mux_barrier_add(mux, &g->barrier);
}

/* Turns that don't wait, until it opens. */
static unsigned turns_until_open(struct gate *g) {
        unsigned n = 0;

        for (; g->calls == 0; n++) {
                ck_assert_uint_lt(n, 100);
                turn(-1);
        }
        return n;
}

START_TEST(barrier_with_nothing_ready) {
        struct gate g;

        open_mux(_i);
        add_many(3, false, NULL);
        add_gate(&g);
        ck_assert_uint_eq(turns_until_open(&g), 1);
        turns(3);
        ck_assert_uint_eq(g.calls, 1);
        free_many();
        close_mux();
}
END_TEST

START_TEST(barrier_waits_for_all) {
        static const size_t sizes[] = { 1, 10, A_TURN - 1, A_TURN, A_TURN + 1, 2 * A_TURN, 1000, 1500 };

        open_mux(_i);
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                struct gate g;
                unsigned n;

                add_many(sizes[i], true, NULL);
                add_gate(&g);
                n = turns_until_open(&g);
                ck_assert_msg(g.n_uncalled == 0, "with %zu ready, %zu were not called", sizes[i], g.n_uncalled);
                ck_assert_uint_le(n, sizes[i] / A_TURN + 2);
                free_many();
        }
        close_mux();
}
END_TEST

/* Turns in which more than fits was ready have gone before: the barrier begins anywhere. */
START_TEST(barrier_begins_anywhere) {
        open_mux(_i);
        add_many(700, true, NULL);
        for (unsigned before = 0; before < 6; before++) {
                struct gate g;

                turns(before);
                for (size_t i = 0; i < n_many; i++)
                        many[i]->calls = 0;
                add_gate(&g);
                (void)turns_until_open(&g);
                ck_assert_msg(g.n_uncalled == 0, "%zu were not called", g.n_uncalled);
        }
        free_many();
        close_mux();
}
END_TEST

/* Some of those that were called are removed: what is left keeps its turn. */
static void some_remove_themselves(struct mux_io *io, unsigned events) {
        if (n_calls > 200 && n_calls <= A_TURN)
                remove_itself(io, events);
}

START_TEST(barrier_and_removals) {
        struct gate g;

        open_mux(_i);
        add_many(600, true, some_remove_themselves);
        add_gate(&g);
        (void)turns_until_open(&g);
        ck_assert_msg(g.n_uncalled == 0, "%zu were not called", g.n_uncalled);
        free_many();
        close_mux();
}
END_TEST

static struct random chance;

static void random_remove_themselves(struct mux_io *io, unsigned events) {
        if (random_once_in(&chance, 5))
                remove_itself(io, events);
}

START_TEST(barrier_and_random_removals) {
        open_mux(_i);
        for (uint64_t round = 0; round < 30; round++) {
                struct gate g;

                chance = (struct random){ round };
                add_many(300 + random_below(&chance, 900), true, random_remove_themselves);
                add_gate(&g);
                (void)turns_until_open(&g);
                ck_assert_msg(g.n_uncalled == 0, "seed %llu: %zu were not called", (unsigned long long)round, g.n_uncalled);
                free_many();
        }
        close_mux();
}
END_TEST

static struct gate inner;

static void gate_from_callback(struct mux_io *io, unsigned events _unused_) {
        struct many *m = container_of(io, struct many, io);

        if (m->calls > 1)
                return;
        /* The others are ready from now on, and have been called never or before. */
        for (size_t i = 0; i < n_many; i++)
                if (many[i] != m) {
                        make_ready(many[i]->io.fd);
                        many[i]->calls = 0;
                }
        many_fn = NULL;
        add_gate(&inner);
}

START_TEST(barrier_from_a_callback) {
        open_mux(_i);
        add_many(400, false, gate_from_callback);
        make_ready(many[17]->io.fd);
        turn(0);
        (void)turns_until_open(&inner);
        ck_assert_uint_eq(inner.n_uncalled, 0);
        free_many();
        close_mux();
}
END_TEST

START_TEST(barrier_cancel) {
        struct gate a, b;

        open_mux(_i);
        add_many(600, true, NULL);
        add_gate(&a);
        add_gate(&b);
        turn(0);
        mux_barrier_cancel(&a.barrier);
        mux_barrier_cancel(&a.barrier);
        (void)turns_until_open(&b);
        turns(3);
        ck_assert_uint_eq(a.calls, 0);
        ck_assert_uint_eq(b.calls, 1);
        /* Added once more before it opened: it opens once. */
        add_gate(&a);
        mux_barrier_add(mux, &a.barrier);
        (void)turns_until_open(&a);
        turns(5);
        ck_assert_uint_eq(a.calls, 1);
        free_many();
        close_mux();
}
END_TEST

static void cancel_inner(struct mux_io *io _unused_, unsigned events _unused_) {
        mux_barrier_cancel(&inner.barrier);
}

START_TEST(barrier_cancel_in_callback) {
        open_mux(_i);
        add_many(2, true, cancel_inner);
        add_gate(&inner);
        turns(3);
        ck_assert_uint_eq(inner.calls, 0);
        free_many();
        close_mux();
}
END_TEST

static struct mux_deferred deferred_remover;

static void add_inner_again(struct mux_deferred *deferred _unused_) {
        make_ready(many[1]->io.fd);
        mux_barrier_add(mux, &inner.barrier);
}

static void defer_add_inner_again(struct mux_io *io, unsigned events _unused_) {
        if (container_of(io, struct many, io)->index == 0)
                mux_defer(mux, &deferred_remover);
}

/* It was about to open when it was added again: what is ready by then counts. */
START_TEST(barrier_added_again_when_due) {
        open_mux(_i);
        add_many(2, false, defer_add_inner_again);
        mux_deferred_init(&deferred_remover, add_inner_again);
        make_ready(many[0]->io.fd);
        add_gate(&inner);
        turn(0);
        make_unready(many[0]->io.fd);
        (void)turns_until_open(&inner);
        ck_assert_uint_eq(many[0]->calls, 1);
        ck_assert_msg(inner.n_uncalled == 0, "what was ready was not called before");
        turns(3);
        ck_assert_uint_eq(inner.calls, 1);
        free_many();
        close_mux();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("mux-barriers"), "barriers");
        int n = count_backends();

        tcase_add_loop_test(c, barrier_with_nothing_ready, 0, n);
        tcase_add_loop_test(c, barrier_waits_for_all, 0, n);
        tcase_add_loop_test(c, barrier_begins_anywhere, 0, n);
        tcase_add_loop_test(c, barrier_and_removals, 0, n);
        tcase_add_loop_test(c, barrier_and_random_removals, 0, n);
        tcase_add_loop_test(c, barrier_from_a_callback, 0, n);
        tcase_add_loop_test(c, barrier_cancel, 0, n);
        tcase_add_loop_test(c, barrier_cancel_in_callback, 0, n);
        tcase_add_loop_test(c, barrier_added_again_when_due, 0, n);
        return harness_main(argc, argv);
}
