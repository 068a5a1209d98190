/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * queue/: a million events, and a queue at its bound, which merges nearly all of them. A test must end in its time,
 * however slow the machine.
 */

#include <stdio.h>

#include "harness.h"
#include "queue.h"
#include "queues.h"
#include "unit.h"

START_TEST(million_in_a_tree) {
        const unsigned n = (unsigned)harness_rounds(1000000);
        struct watch *tree = add_tree(1);
        struct random r = { 81 };

        for (unsigned i = 0; i < n; i++) {
                char path[64];

                (void)sprintf(path, "dir%zu/file%zu", random_below(&r, 1000), random_below(&r, 1000));
                report_file(tree, random_once_in(&r, 2) ? KEV_NOTE_CREATE : KEV_NOTE_DELETE, path);
        }
        ck_assert_uint_le(queue.bytes, 16 * MIB + 1024);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

START_TEST(million_of_directories) {
        const unsigned n = (unsigned)harness_rounds(1000000);
        struct watch *tree = add_tree(1);

        for (unsigned i = 0; i < n; i++) {
                char path[64];

                (void)sprintf(path, "dir%u/sub%u", i / 1000, i);
                report_path(tree, KEV_NOTE_CREATE, KEV_KIND_DIRECTORY, path, NULL);
        }
        ck_assert_uint_le(queue.bytes, 16 * MIB + 1024);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

START_TEST(million_deep) {
        const unsigned n = (unsigned)harness_rounds(200000);
        struct watch *tree = add_tree(1);
        struct random r = { 82 };

        for (unsigned i = 0; i < n; i++)
                random_report(&r, tree, 3, 60);
        ck_assert_uint_le(queue.bytes, 16 * MIB + 4096);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

START_TEST(million_of_one_name) {
        const int64_t n = harness_rounds(1000000);
        struct watch *watch = add_user(1, "a", 0);

        for (int64_t i = 0; i < n; i++)
                report(watch, KEV_NOTE_TRIGGER, i);
        ck_assert_uint_le(queue.bytes, 16 * MIB + 1024);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

/* The bound is full of what can't be merged further: the next ones are not slow for that. */
START_TEST(million_beside_a_full_queue) {
        const unsigned n = (unsigned)harness_rounds(300000);
        struct watch *trees[100];
        struct random r = { 83 };

        for (int64_t i = 0; i < 100; i++)
                trees[i] = add_tree(i);
        queue.bytes_max = MIB;
        for (unsigned i = 0; i < n; i++)
                random_report(&r, trees[random_below(&r, 100)], 50, 3);
        ck_assert_uint_gt(queue.merged, 0);
        ck_assert_uint_eq(take_all_counts(), n);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_queue_case(harness_suite("queue-speed"), "speed");

        tcase_add_test(c, million_in_a_tree);
        tcase_add_test(c, million_of_directories);
        tcase_add_test(c, million_deep);
        tcase_add_test(c, million_of_one_name);
        tcase_add_test(c, million_beside_a_full_queue);
        return harness_main(argc, argv);
}
