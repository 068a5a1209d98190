/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/workers: work is done, on so many threads of a user's; those that wait for ever hold up nobody else.
 */

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"
#include "mux.h"
#include "workers.h"

struct job {
        struct work work;
        int gate; /* -1, or what it waits for: a pipe's reading end */
};

static struct mux *mux;
static struct workers *workers; /* also after a test that leaves threads behind */
static atomic_uint n_started, n_done;
static int gate[2];

static void open_workers(void) {
        ck_assert_int_eq(mux_open(NULL, &mux), 0);
        ck_assert_int_eq(workers_new(mux, &workers), 0);
        assert_system(pipe2(gate, O_CLOEXEC) == 0, "pipe2");
}

static void open_gate(void) {
        if (gate[1] >= 0)
                (void)close(gate[1]);
        gate[1] = -1;
}

static void free_workers(void) {
        open_gate();
        ck_assert(workers_free(workers));
        mux_close(mux);
        (void)close(gate[0]);
}

static void run_job(struct work *work) {
        struct job *job = container_of(work, struct job, work);
        char byte;

        n_started++;
        while (job->gate >= 0 && read(job->gate, &byte, 1) > 0)
                ;
        free(job);
        n_done++;
}

static struct job *new_job(int gate_fd) {
        struct job *job = malloc(sizeof(*job));

        ck_assert_ptr_nonnull(job);
        *job = (struct job){ .work.run = run_job, .gate = gate_fd };
        list_init(&job->work.link);
        return job;
}

static int submit_job(uid_t user, int gate_fd) {
        struct job *job = new_job(gate_fd);
        int r = workers_submit(workers, user, &job->work);

        if (r < 0)
                free(job);
        return r;
}

static bool reached(void *userdata) {
        unsigned *wanted = userdata;

        return n_started >= wanted[0] && n_done >= wanted[1];
}

static void assert_reached(unsigned started, unsigned done, int timeout_msec) {
        unsigned wanted[2] = { started, done };

        ck_assert_msg(wait_until(reached, wanted, timeout_msec), "%u of %u started, %u of %u done", (unsigned)n_started,
                      started, (unsigned)n_done, done);
}

START_TEST(work_is_done) {
        open_workers();
        for (unsigned i = 0; i < 2000; i++)
                ck_assert_int_eq(submit_job((uid_t)(i % 3), -1), 0);
        assert_reached(2000, 2000, HARNESS_REPLY_MSEC);
        free_workers();
}
END_TEST

/* What was submitted is done before the end. */
START_TEST(work_is_done_before_free) {
        open_workers();
        for (unsigned i = 0; i < 500; i++)
                ck_assert_int_eq(submit_job(7, -1), 0);
        free_workers();
        ck_assert_uint_eq(n_done, 500);
}
END_TEST

START_TEST(so_many_a_user) {
        open_workers();
        for (uid_t user = 0; user < 3; user++)
                for (unsigned i = 0; i < WORKERS_PER_USER + 2; i++)
                        ck_assert_int_eq(submit_job(user, gate[0]), 0);
        assert_reached(3 * WORKERS_PER_USER, 0, HARNESS_REPLY_MSEC);
        (void)poll(NULL, 0, 20);
        ck_assert_uint_eq(n_started, 3 * WORKERS_PER_USER);
        open_gate();
        assert_reached(3 * (WORKERS_PER_USER + 2), 3 * (WORKERS_PER_USER + 2), HARNESS_REPLY_MSEC);
        free_workers();
}
END_TEST

/* One thread is idle; of a burst, each piece of work gets a thread as long as there may be more. */
START_TEST(a_burst_after_idleness) {
        open_workers();
        ck_assert_int_eq(submit_job(1, -1), 0);
        assert_reached(1, 1, HARNESS_REPLY_MSEC);
        (void)poll(NULL, 0, 20); /* it waits for more by now */
        for (unsigned i = 0; i < WORKERS_PER_USER; i++)
                ck_assert_int_eq(submit_job(1, gate[0]), 0);
        assert_reached(1 + WORKERS_PER_USER, 1, 3000);
        free_workers();
}
END_TEST

static void expect_stuck(uid_t user, unsigned n_before) {
        for (unsigned i = 0; i < WORKERS_PER_USER; i++)
                ck_assert_int_eq(submit_job(user, gate[0]), 0);
        assert_reached(n_before + WORKERS_PER_USER, n_before, 3000);
        /* Not yet. */
        ck_assert(!workers_are_stuck(workers, user));
        ck_assert_int_eq(submit_job(user, -1), 0);
        (void)poll(NULL, 0, WORKERS_STUCK_MSEC + 100);
        ck_assert(workers_are_stuck(workers, user));
}

START_TEST(stuck) {
        open_workers();
        expect_stuck(1, 0);
        ck_assert_int_eq(submit_job(1, -1), 0); /* taken all the same */
        /* Nobody else notices. */
        ck_assert(!workers_are_stuck(workers, 2));
        ck_assert_int_eq(submit_job(2, -1), 0);
        assert_reached(WORKERS_PER_USER + 1, 1, HARNESS_REPLY_MSEC);
        open_gate();
        assert_reached(WORKERS_PER_USER + 3, WORKERS_PER_USER + 3, HARNESS_REPLY_MSEC);
        ck_assert_int_eq(submit_job(1, -1), 0);
        assert_reached(WORKERS_PER_USER + 4, WORKERS_PER_USER + 4, HARNESS_REPLY_MSEC);
        free_workers();
}
END_TEST

/* Threads that found nothing to do when they started count as well. */
START_TEST(stuck_after_a_burst) {
        open_workers();
        for (unsigned i = 1; i <= 200; i++) {
                ck_assert_int_eq(submit_job(1, -1), 0);
                if (i % 4 == 0)
                        assert_reached(i, i, HARNESS_REPLY_MSEC);
        }
        (void)poll(NULL, 0, 20);
        expect_stuck(1, 200);
        free_workers();
}
END_TEST

/* Three of four: there is still one. */
START_TEST(not_quite_stuck) {
        open_workers();
        for (unsigned i = 0; i < WORKERS_PER_USER - 1; i++)
                ck_assert_int_eq(submit_job(1, gate[0]), 0);
        (void)poll(NULL, 0, WORKERS_STUCK_MSEC + 100);
        ck_assert(!workers_are_stuck(workers, 1));
        ck_assert_int_eq(submit_job(1, -1), 0);
        assert_reached(WORKERS_PER_USER, 1, HARNESS_REPLY_MSEC);
        free_workers();
}
END_TEST

START_TEST(free_does_not_wait_for_the_stuck) {
        int64_t start = now_msec();

        open_workers();
        ck_assert_int_eq(submit_job(1, gate[0]), 0);
        ck_assert_int_eq(submit_job(2, -1), 0);
        assert_reached(2, 1, HARNESS_REPLY_MSEC);
        ck_assert(!workers_free(workers));
        ck_assert_int_lt(now_msec() - start, 5000);
        /* Nothing that it may use was freed. */
        open_gate();
        assert_reached(2, 2, HARNESS_REPLY_MSEC);
        (void)close(gate[0]);
        mux_close(mux);
}
END_TEST

static size_t count_threads(void) {
        FILE *f = fopen("/proc/self/status", "re");
        char line[256];
        unsigned n = 0;

        ck_assert_ptr_nonnull(f);
        while (fgets(line, sizeof(line), f))
                if (sscanf(line, "Threads: %u", &n) == 1)
                        break;
        (void)fclose(f);
        return n;
}

static bool threads_are(void *userdata) {
        return count_threads() == *(size_t *)userdata;
}

static void *nothing(void *argument) {
        return argument;
}

START_TEST(idle_threads_end) {
        size_t before, with_one;
        pthread_t thread;

        /* ThreadSanitizer makes one of its own beside the first. */
        ck_assert_int_eq(pthread_create(&thread, NULL, nothing, NULL), 0);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        before = count_threads();
        with_one = before + 1;
        open_workers();
        for (unsigned i = 0; i < 8; i++)
                ck_assert_int_eq(submit_job(5, -1), 0);
        assert_reached(8, 8, HARNESS_REPLY_MSEC);
        ck_assert(wait_until(threads_are, &before, WORKERS_IDLE_MSEC + HARNESS_REPLY_MSEC));

        /* The user may come back, and what is under way is finished. */
        ck_assert_int_eq(submit_job(5, gate[0]), 0);
        assert_reached(9, 8, HARNESS_REPLY_MSEC);
        ck_assert_int_eq(submit_job(5, -1), 0);
        assert_reached(10, 9, HARNESS_REPLY_MSEC);
        ck_assert(wait_until(threads_are, &with_one, WORKERS_IDLE_MSEC + HARNESS_REPLY_MSEC));
        open_gate();
        assert_reached(10, 10, HARNESS_REPLY_MSEC);
        ck_assert(wait_until(threads_are, &before, WORKERS_IDLE_MSEC + HARNESS_REPLY_MSEC));
        free_workers();
}
END_TEST

/* A signal to the process is for the loop's thread. */
START_TEST(threads_take_no_signals) {
        sigset_t set, pending;

        open_workers();
        ck_assert_int_eq(submit_job(1, gate[0]), 0);
        assert_reached(1, 0, HARNESS_REPLY_MSEC);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGUSR2);
        assert_system(sigprocmask(SIG_BLOCK, &set, NULL) == 0, "sigprocmask");
        assert_system(kill(getpid(), SIGUSR2) == 0, "kill");
        (void)poll(NULL, 0, 20);
        assert_system(sigpending(&pending) == 0, "sigpending");
        ck_assert(sigismember(&pending, SIGUSR2));
        free_workers();
}
END_TEST

/* A user that may have no further thread. */
static void forbid_threads(bool forbidden) {
        static struct rlimit before;
        struct rlimit none;

        if (forbidden)
                assert_system(getrlimit(RLIMIT_NPROC, &before) == 0, "getrlimit");
        none = (struct rlimit){ .rlim_cur = 1, .rlim_max = before.rlim_max };
        assert_system(setrlimit(RLIMIT_NPROC, forbidden ? &none : &before) == 0, "setrlimit");
}

START_TEST(postponed_until_there_is_a_thread) {
        enum { USER = 64100, N = 3 };

        if (geteuid() != 0)
                harness_skip("takes root, for whom there is no such limit, and who can become another user");
        assert_system(setresuid(USER, USER, 0) == 0, "setresuid");
        forbid_threads(true);
        open_workers();
        if (submit_job(1, -1) == 0)
                harness_skip("the user's threads can't be limited");
        for (uid_t user = 0; user < N; user++)
                workers_submit_anyhow(workers, user, &new_job(-1)->work);
        (void)mux_wait(mux, HARNESS_REPLY_MSEC * NSEC_PER_MSEC); /* it is tried again */
        ck_assert_uint_eq(n_started, 0);
        forbid_threads(false);
        for (int64_t end = now_msec() + HARNESS_REPLY_MSEC; n_done < N && now_msec() < end;)
                (void)mux_wait(mux, 10 * NSEC_PER_MSEC);
        ck_assert_uint_eq(n_done, N);

        /* With none until the end it is done all the same. */
        forbid_threads(true);
        workers_submit_anyhow(workers, N, &new_job(-1)->work);
        ck_assert_uint_eq(n_done, N);
        free_workers();
        ck_assert_uint_eq(n_done, N + 1);
        forbid_threads(false);
        assert_system(setresuid(0, 0, 0) == 0, "setresuid");
}
END_TEST

static int submit_with_fd(uid_t user) {
        struct job *job = new_job(gate[0]);
        int r;

        job->work.has_fd = true;
        r = workers_submit(workers, user, &job->work);
        if (r < 0)
                free(job);
        return r;
}

/* Descriptors that wait with the work, of which nobody is charged for any more: so many of a user, and of each one. */
START_TEST(so_many_descriptors_a_user) {
        struct job *more;

        open_workers();
        for (unsigned i = 0; i < WORKERS_FDS_MAX; i++)
                ck_assert_int_eq(submit_with_fd(7), 0);
        ck_assert(workers_are_full_of_fds(workers, 7));
        ck_assert_int_eq(submit_with_fd(7), -EDQUOT);
        ck_assert_int_eq(submit_job(7, gate[0]), 0);
        ck_assert(!workers_are_full_of_fds(workers, 8));
        ck_assert_int_eq(submit_with_fd(8), 0);
        more = new_job(gate[0]);
        more->work.has_fd = true;
        workers_submit_anyhow(workers, 7, &more->work);
        open_gate();
        assert_reached(WORKERS_FDS_MAX + 3, WORKERS_FDS_MAX + 3, HARNESS_REPLY_MSEC);
        ck_assert(!workers_are_full_of_fds(workers, 7));
        free_workers();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("workers"), "workers");

        tcase_add_test(c, work_is_done);
        tcase_add_test(c, work_is_done_before_free);
        tcase_add_test(c, so_many_a_user);
        tcase_add_test(c, a_burst_after_idleness);
        tcase_add_test(c, stuck);
        tcase_add_test(c, stuck_after_a_burst);
        tcase_add_test(c, not_quite_stuck);
        tcase_add_test(c, free_does_not_wait_for_the_stuck);
        tcase_add_test(c, idle_threads_end);
        tcase_add_test(c, threads_take_no_signals);
        tcase_add_test(c, postponed_until_there_is_a_thread);
        tcase_add_test(c, so_many_descriptors_a_user);
        return harness_main(argc, argv);
}
