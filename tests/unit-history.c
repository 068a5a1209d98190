/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The history of processes (process_history.h) beside a plain list of all that were put in. */

#include <stdlib.h>

#include "harness.h"
#include "macro.h"
#include "process_history.h"

enum {
        PIDS = 5000,
        STEPS = 200000,
        KEPT_MAX = 32 * 1024,
        KEPT_MIN = 1024, /* however old */
};

static struct profile *new_profile(void) {
        struct profile *profile = profile_new();

        ck_assert_ptr_nonnull(profile);
        return profile;
}

/* Each has its status, which is nobody else's. */
static void put(struct history *h, pid_t pid, struct profile *profile, int status, uint64_t exit_usec) {
        struct past past = {
                .pid = pid, .parent_pid = pid + 1, .status = status, .knows_status = true, .exit_usec = exit_usec,
                .profile = profile_ref(profile),
        };

        history_put(h, &past);
}

/* Random numbers, of few and of many processes; what is taken is the last of that number, and as it was put in. */
START_TEST(test_random) {
        struct history h = { 0 };
        struct profile *profile = new_profile();
        int *last = calloc(20 * PIDS, sizeof(*last)), n = 0; /* status by pid; 0: none */
        unsigned seed = (unsigned)_i + 1;

        ck_assert_ptr_nonnull(last);
        for (int step = 0; step < STEPS; step++) {
                pid_t pid = rand_r(&seed) % (_i == 0 ? 50 : _i == 1 ? PIDS : 20 * PIDS);
                struct past past;

                if (rand_r(&seed) % 3) {
                        n++;
                        put(&h, pid, profile, n, (uint64_t)n);
                        last[pid] = n;
                        continue;
                }
                if (!history_take(&h, pid, 0, &past)) {
                        ck_assert_msg(last[pid] == 0 || n - last[pid] >= KEPT_MAX, "%d of %d", last[pid], n);
                        continue;
                }
                profile_unref(past.profile);
                ck_assert_int_eq(past.pid, pid);
                ck_assert_int_eq(past.parent_pid, pid + 1);
                /* What was taken before it lets an older one be seen. */
                ck_assert(last[pid] == 0 || past.status == last[pid]);
                last[pid] = 0;
        }
        history_free(&h);
        ck_assert_uint_eq(profile->refs, 1);
        profile_unref(profile);
        free(last);
}
END_TEST

/* It has a bound, and keeps those that came last. */
START_TEST(test_bound) {
        struct history h = { 0 };
        struct profile *profile = new_profile();
        const int n = 2 * KEPT_MAX + 77;
        struct past past;

        for (int i = 1; i <= n; i++)
                put(&h, i, profile, i, (uint64_t)i);
        ck_assert_uint_eq(profile->refs, KEPT_MAX + 1);
        ck_assert(!history_take(&h, n - KEPT_MAX, 0, &past));
        for (int i = n - KEPT_MAX + 1; i <= n; i++) {
                ck_assert(history_take(&h, i, 0, &past));
                ck_assert_int_eq(past.status, i);
                profile_unref(past.profile);
                ck_assert(!history_take(&h, i, 0, &past));
        }
        ck_assert_uint_eq(profile->refs, 1);
        history_free(&h);
        profile_unref(profile);
}
END_TEST

/* What is old goes, but for some, and with it the memory. */
START_TEST(test_forget) {
        struct history h = { 0 };
        struct profile *profile = new_profile();
        struct past past;

        for (int i = 1; i <= KEPT_MAX; i++)
                put(&h, i, profile, i, (uint64_t)i);
        history_forget(&h, KEPT_MAX - 2 * KEPT_MIN);
        ck_assert(!history_take(&h, KEPT_MAX - 2 * KEPT_MIN - 1, 0, &past));
        for (int i = KEPT_MAX; i > KEPT_MAX - 2 * KEPT_MIN; i--) {
                ck_assert(!history_take(&h, i, (uint64_t)i, &past)); /* it is no younger */
                ck_assert(history_take(&h, i, (uint64_t)i - 1, &past));
                ck_assert_int_eq(past.status, i);
                profile_unref(past.profile);
        }
        for (int i = 1; i <= 3; i++)
                history_forget(&h, KEPT_MAX * 2);
        ck_assert_uint_le(h.capacity, 8 * KEPT_MIN);
        for (int i = 1; i <= KEPT_MIN / 2; i++)
                put(&h, i, profile, -i, 1);
        history_forget(&h, KEPT_MAX * 2);
        for (int i = 1; i <= KEPT_MIN / 2; i++) {
                ck_assert(history_take(&h, i, 0, &past));
                ck_assert_int_eq(past.status, -i);
                profile_unref(past.profile);
        }
        history_free(&h);
        ck_assert_uint_eq(profile->refs, 1);
        profile_unref(profile);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("history"), "history");

        tcase_add_loop_test(c, test_random, 0, 4);
        tcase_add_test(c, test_bound);
        tcase_add_test(c, test_forget);
        return harness_main(argc, argv);
}
