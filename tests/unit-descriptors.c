/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * source/descriptors: that others have their turn while many of them are ready, and that a Wait's barrier waits for
 * what is there, and for nothing else; and what becomes of looks for which there are no threads.
 */

#include <fcntl.h>

#include "eventfds.h"
#include "harness.h"
#include "macro.h"
#include "source.h"
#include "workers.h"

enum { A_SLICE = 32, READY = 2 * A_SLICE };

static struct source_context context;
static struct source *source;
static unsigned n_attached, n_told, n_passed;
static bool takes_long;

static void on_report(struct subscription *subscription _unused_, struct report *report _unused_) {
        uint64_t begin = monotonic_nsec();

        n_told++;
        while (takes_long && monotonic_nsec() - begin < 10 * NSEC_PER_USEC)
                ;
}

static void on_attached(struct subscription *subscription _unused_, const struct refusal *refusal) {
        ck_assert_ptr_null(refusal);
        n_attached++;
}

static const struct sink sink = { .report = on_report, .attached = on_attached };

static void on_passed(struct source_barrier *barrier _unused_) {
        n_passed++;
}

static struct asker asker;
static struct source_barrier barrier = { .fn = on_passed, .asker = &asker };

static void start(void) {
        asker = (struct asker){ .uid = geteuid(), .pid = getpid() };
        context = (struct source_context){ .sink = &sink };
        ck_assert_int_eq(mux_open(NULL, &context.mux), 0);
        ck_assert_int_eq(workers_new(context.mux, &context.workers), 0);
        ck_assert_int_eq(source_descriptors.open(&context, &source), 0);
        source->class = &source_descriptors;
        source->context = &context;
}

static void stop(void) {
        ck_assert(workers_free(context.workers));
        source_descriptors.close(source);
        (void)mux_close(context.mux);
}

static void attach(struct subscription *subscription, enum kev_filter filter, uint64_t notes, int fd) {
        struct subject subject = { .filter = filter, .notes = notes, .fd = fd, .data = ABSENT, .asker = &asker };
        struct refusal refusal;
        unsigned before = n_attached;

        *subscription = (struct subscription){ .source = source, .notes = notes };
        ck_assert_int_eq(source_descriptors.attach(source, subscription, &subject, &refusal), 1);
        source->n_subscriptions++;
        while (n_attached == before)
                ck_assert_int_eq(mux_wait(context.mux, -1), 0);
}

/* ---- behind what is ready -------------------------------------------------------------------------------------- */

static struct subscription watches[READY];
static int fds[READY];

static void start_ready(void) {
        start();
        for (int i = 0; i < READY; i++) {
                fds[i] = make_eventfd(false);
                attach(&watches[i], KEV_FILTER_POLL, KEV_NOTE_IN, fds[i]);
        }
        takes_long = true; /* so that a slice is one batch */
}

static void stop_ready(void) {
        for (int i = 0; i < READY; i++) {
                source_detach(&watches[i]);
                (void)close(fds[i]);
        }
        stop();
}

static void make_some_ready(int n) {
        for (int i = 0; i < n; i++)
                make_ready(fds[i]);
}

/* All that was ready has been told: no Wait waits for more, though a slice ended with it. */
START_TEST(none_is_left) {
        make_some_ready(A_SLICE);
        ck_assert_int_eq(mux_wait(context.mux, -1), 0);
        ck_assert_uint_eq(n_told, A_SLICE);
        ck_assert(!source_descriptors.barrier(source, &barrier));
}
END_TEST

START_TEST(some_are_left) {
        make_some_ready(READY);
        ck_assert_int_eq(mux_wait(context.mux, -1), 0);
        ck_assert_uint_eq(n_told, A_SLICE);
        ck_assert(source_descriptors.barrier(source, &barrier));
        while (n_passed == 0)
                ck_assert_int_eq(mux_wait(context.mux, -1), 0);
        ck_assert_uint_eq(n_told, READY);
}
END_TEST

/* What is left is ready no more, or its watch has ended. */
START_TEST(what_is_left_goes) {
        harness_label(_i ? "ended" : "unready");
        make_some_ready(READY);
        ck_assert_int_eq(mux_wait(context.mux, -1), 0);
        ck_assert_uint_eq(n_told, A_SLICE);
        ck_assert(source_descriptors.barrier(source, &barrier));
        for (int i = 0; i < READY; i++)
                if (_i == 0)
                        make_unready(fds[i]);
                else
                        source_detach(&watches[i]);
        ck_assert_int_eq(mux_wait(context.mux, 0), 0);
        ck_assert_uint_eq(n_told, A_SLICE);
        ck_assert_uint_eq(n_passed, 1);
        ck_assert(!source_descriptors.barrier(source, &barrier));
}
END_TEST

/* ---- asking again ---------------------------------------------------------------------------------------------- */

enum { ASKED = 4000 };

static bool has_no_threads;
static unsigned n_submitted;

int __real_workers_submit(struct workers *workers, uid_t user, struct work *work);
int __wrap_workers_submit(struct workers *workers, uid_t user, struct work *work);
int __wrap_workers_submit(struct workers *workers, uid_t user, struct work *work) {
        n_submitted++;
        return has_no_threads ? -EAGAIN : __real_workers_submit(workers, user, work);
}

/* Of many that could not be looked at others have their turn in between as it is tried again; and in the end all are
 * told. */
START_TEST(asked_again) {
        static struct subscription files[ASKED];
        int fd = open(harness_tempdir(), O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

        assert_system(fd >= 0, harness_tempdir());
        for (int i = 0; i < ASKED; i++)
                attach(&files[i], KEV_FILTER_WRITE, KEV_NOTE_LOWAT, fd);
        has_no_threads = true;
        for (int i = 0; i < ASKED; i++)
                source_look(&files[i]);
        n_submitted = n_told = 0;
        while (n_submitted < ASKED) {
                unsigned before = n_submitted;

                ck_assert_int_eq(mux_wait(context.mux, -1), 0);
                ck_assert_uint_lt(n_submitted - before, ASKED);
        }
        ck_assert_uint_eq(n_told, 0);
        has_no_threads = false;
        while (n_told < ASKED)
                ck_assert_int_eq(mux_wait(context.mux, -1), 0);
        for (int i = 0; i < ASKED; i++)
                source_detach(&files[i]);
        (void)close(fd);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("descriptors");
        TCase *c;

        c = harness_case(suite, "behind");
        tcase_add_checked_fixture(c, start_ready, stop_ready);
        tcase_add_test(c, none_is_left);
        tcase_add_test(c, some_are_left);
        tcase_add_loop_test(c, what_is_left_goes, 0, 2);

        c = harness_case(suite, "again");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, asked_again);
        return harness_main(argc, argv);
}
