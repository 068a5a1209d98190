/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on the real daemon that want a part of a tree: globs of what is included and excluded, a depth, and
 * what is moved into that part and out of it. Which directories are watched for it is in test-cover.c.
 */

#include <stddef.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "replay.h"
#include "trees.h"

static struct follower *follow_with(const char *root, const char *include, const char *exclude, int depth) {
        struct kev_watch *watch = new_tree_watch(root, 0);

        if (include)
                ck_assert_int_eq(kev_watch_add_include(watch, include), 0);
        if (exclude)
                ck_assert_int_eq(kev_watch_add_exclude(watch, exclude), 0);
        if (depth > 0)
                ck_assert_int_eq(kev_watch_set_depth(watch, depth), 0);
        return follower_new_with(kevd, watch, root, REPLAY_AT_REST);
}

START_TEST(test_include) {
        const char *root = make_root("w");
        struct follower *f = follow_with(root, "**/*.c", NULL, 0);

        make_dir(at("%s/d", root));
        make_file(at("%s/d/a.c", root));
        make_file(at("%s/d/a.h", root));
        make_file(at("%s/b.c", root));
        ck_assert_uint_eq(count_about(f, ".h"), 0);
        move(at("%s/d/a.h", root), at("%s/d/b.c", root));
        ck_assert_uint_gt(count_about(f, "d/b.c"), 0);
        follower_free(f);
}
END_TEST

START_TEST(test_exclude) {
        const char *root = make_root("w");
        struct follower *f = follow_with(root, NULL, "build", 0);

        make_dir(at("%s/build", root));
        make_tree(at("%s/build", root), 2, 2);
        make_file(at("%s/file", root));
        ck_assert_uint_eq(count_about(f, "build"), 0);
        follower_free(f);
}
END_TEST

START_TEST(test_depth) {
        const char *root = make_root("w");
        struct follower *f = follow_with(root, NULL, NULL, 2);

        make_tree(root, 2, 3);
        ck_assert_uint_eq(count_about(f, "/d0/d0/"), 0);
        make_file(at("%s/d1/later", root));
        ck_assert_uint_gt(count_about(f, "/d1/later"), 0);
        make_file(at("%s/d1/d1/later", root));
        ck_assert_uint_eq(count_about(f, "later"), 0);
        follower_free(f);
}
END_TEST

/* A directory changes its name; what is wanted of what is below it changes its path, and that may not go
 * untold. */
START_TEST(test_include_and_renamed_directory) {
        const char *root = make_root("w");
        struct follower *f = follow_with(root, "**/*.c", NULL, 0);

        make_dir(at("%s/d", root));
        make_file(at("%s/d/a.c", root));
        ck_assert_uint_gt(count_about(f, "d/a.c"), 0);
        move(at("%s/d", root), at("%s/e", root));
        ck_assert_msg(count_about(f, "/e") > 0, "nothing is told of what d/a.c is now");
        follower_free(f);
}
END_TEST

START_TEST(test_include_and_directory_moved_out) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follow_with(root, "**/*.c", NULL, 0);

        make_dir(at("%s/d", root));
        make_file(at("%s/d/a.c", root));
        ck_assert_uint_gt(count_about(f, "d/a.c"), 0);
        move(at("%s/d", root), at("%s/d", outside));
        ck_assert_msg(count_about(f, "/d") > 0, "nothing is told of the end of d/a.c");
        follower_free(f);
}
END_TEST

/* From where it was excluded, or too deep, to where it is wanted. */
START_TEST(test_moved_into_sight) {
        const char *root = make_root("w");
        struct follower *f = _i == 0 ? follow_with(root, NULL, "build", 0) : follow_with(root, NULL, NULL, 2);

        harness_label(_i == 0 ? "exclude" : "depth");
        make_dir(at("%s/build", root));
        make_dir(at("%s/build/d", root));
        make_dir(at("%s/build/d/dir", root));
        make_file(at("%s/build/d/dir/file", root));
        ck_assert_uint_eq(count_about(f, "/file"), 0);
        move(at("%s/build/d/dir", root), at("%s/dir", root));
        ck_assert_msg(count_about(f, "/dir/file") > 0 || replay_n_rescans(f->replay) > 0,
                      "nothing is told of dir/file");
        follower_free(f);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_tree_case(harness_suite("tree-globs"), "globs", 60);

        tcase_add_test(c, test_include);
        tcase_add_test(c, test_exclude);
        tcase_add_test(c, test_depth);
        tcase_add_test(c, test_include_and_renamed_directory);
        tcase_add_test(c, test_include_and_directory_moved_out);
        tcase_add_loop_test(c, test_moved_into_sight, 0, 2);
        return harness_main(argc, argv);
}
