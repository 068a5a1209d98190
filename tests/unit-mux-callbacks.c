/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/, with every backend (muxes.h): callbacks that change what is watched. They may remove, free, add and modify
 * anything, themselves too: what is gone is not called any more, and what is there is.
 */

#include <stdlib.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"
#include "mux.h"
#include "muxes.h"
#include "unit.h"

START_TEST(remove_itself_in_callback) {
        open_mux(_i);
        add_many(3, true, remove_itself);
        turns(3);
        ck_assert_uint_eq(n_calls, 3);
        for (size_t i = 0; i < 3; i++)
                ck_assert_uint_eq(many[i]->calls, 1);
        free_many();
        close_mux();
}
END_TEST

static void remove_the_others(struct mux_io *io, unsigned events _unused_) {
        for (size_t i = 0; i < n_many; i++)
                if (many[i] && &many[i]->io != io)
                        free_one(i);
}

/* All are ready; the one that is called first frees the others. */
START_TEST(free_others_in_callback) {
        open_mux(_i);
        add_many(200, true, remove_the_others);
        turn(0);
        ck_assert_uint_eq(n_calls, 1);
        turn(0);
        ck_assert_uint_eq(n_calls, 2);
        free_many();
        close_mux();
}
END_TEST

static void remove_all(struct mux_io *io _unused_, unsigned events _unused_) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
}

START_TEST(free_all_in_callback) {
        open_mux(_i);
        add_many(200, true, remove_all);
        turns(3);
        ck_assert_uint_eq(n_calls, 1);
        free_many();
        close_mux();
}
END_TEST

static struct counted replacement;

/* The numbers of what is closed are taken again at once. */
static void replace_all(struct mux_io *io _unused_, unsigned events _unused_) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
        add_counted(&replacement, make_eventfd(false), MUX_IN);
}

START_TEST(a_new_descriptor_inherits_nothing) {
        open_mux(_i);
        add_many(20, true, replace_all);
        turns(3);
        ck_assert_uint_eq(n_calls, 1);
        ck_assert_uint_eq(replacement.calls, 0);
        make_ready(replacement.io.fd);
        ck_assert_uint_eq(calls_in_a_turn(&replacement), 1);
        remove_itself(&replacement.io, 0);
        free_many();
        close_mux();
}
END_TEST

static void again(struct mux_io *io, unsigned events _unused_) {
        int fd = io->fd;

        mux_remove(mux, io);
        ck_assert_int_eq(mux_add(mux, io, fd, MUX_IN, on_many), 0);
}

START_TEST(remove_and_add_itself) {
        open_mux(_i);
        add_many(10, true, again);
        turns(4);
        ck_assert_uint_eq(n_calls, 40);
        for (size_t i = 0; i < 10; i++)
                ck_assert_uint_eq(many[i]->calls, 4);
        free_many();
        close_mux();
}
END_TEST

static struct mux_timer remover;

static void remover_fires(struct mux_timer *timer _unused_) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
}

/* Timers run before the descriptors of the same turn. */
START_TEST(free_in_timer) {
        open_mux(_i);
        add_many(10, true, NULL);
        ck_assert_int_eq(mux_timer_set(mux, &remover, 1, remover_fires), 0);
        turns(2);
        ck_assert_uint_eq(n_calls, 0);
        free_many();
        close_mux();
}
END_TEST

static void remover_removes_one(struct mux_timer *timer _unused_) {
        mux_remove(mux, &many[0]->io);
}

/* The same where the memory stays: it isn't called all the same. */
START_TEST(remove_in_timer) {
        int fd;

        open_mux(_i);
        add_many(2, true, NULL);
        fd = many[0]->io.fd;
        ck_assert_int_eq(mux_timer_set(mux, &remover, 1, remover_removes_one), 0);
        turn(0);
        ck_assert_uint_eq(many[0]->calls, 0);
        ck_assert_uint_eq(many[1]->calls, 1);
        (void)close(fd);
        free_many();
        close_mux();
}
END_TEST

static struct mux_deferred deferred_remover;

static void deferred_removes(struct mux_deferred *deferred _unused_) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
}

START_TEST(free_in_deferred) {
        open_mux(_i);
        add_many(600, true, NULL);
        mux_deferred_init(&deferred_remover, deferred_removes);
        turn(0);
        mux_defer(mux, &deferred_remover);
        turns(3);
        ck_assert_uint_eq(n_calls, 2 * A_TURN);
        free_many();
        close_mux();
}
END_TEST

static struct random chance;

static void change_anything(struct mux_io *io, unsigned events _unused_) {
        for (size_t n = random_below(&chance, 4); n > 0; n--) {
                size_t i = random_below(&chance, n_many);

                switch (random_below(&chance, 4)) {
                case 0:
                        free_one(i);
                        break;
                case 1:
                        if (many[i])
                                ck_assert_int_eq(mux_modify(mux, &many[i]->io, MUX_IN | MUX_OUT), 0);
                        break;
                default:
                        if (many[i])
                                break;
                        many[i] = calloc(1, sizeof(*many[i]));
                        ck_assert_ptr_nonnull(many[i]);
                        many[i]->io = MUX_IO_INIT;
                        many[i]->index = i;
                        ck_assert_int_eq(mux_add(mux, &many[i]->io, make_eventfd(true), MUX_IN, on_many), 0);
                        break;
                }
        }
        (void)io;
}

/* Callbacks add, remove and change at random; each one that is called is there, and in time all
 * that are there have been. */
START_TEST(random_changes) {
        open_mux(_i);
        chance = (struct random){ 21 };
        add_many(500, true, change_anything);
        turns(500);
        many_fn = NULL;
        for (size_t i = 0; i < n_many; i++)
                if (many[i])
                        many[i]->calls = 0;
        turns((unsigned)(n_many / A_TURN + 1));
        for (size_t i = 0; i < n_many; i++)
                ck_assert_msg(!many[i] || many[i]->calls > 0, "number %zu was not called", i);
        free_many();
        close_mux();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("mux-callbacks"), "callbacks");
        int n = count_backends();

        tcase_add_loop_test(c, remove_itself_in_callback, 0, n);
        tcase_add_loop_test(c, free_others_in_callback, 0, n);
        tcase_add_loop_test(c, free_all_in_callback, 0, n);
        tcase_add_loop_test(c, a_new_descriptor_inherits_nothing, 0, n);
        tcase_add_loop_test(c, remove_and_add_itself, 0, n);
        tcase_add_loop_test(c, free_in_timer, 0, n);
        tcase_add_loop_test(c, remove_in_timer, 0, n);
        tcase_add_loop_test(c, free_in_deferred, 0, n);
        tcase_add_loop_test(c, random_changes, 0, n);
        return harness_main(argc, argv);
}
