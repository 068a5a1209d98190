/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Several tree watches on the real daemon: one within another, on the same directory, on one connection, and such as
 * come and go.
 */

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "connect.h"
#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"
#include "trees.h"

/* ---- several watches ------------------------------------------------------------------------- */

START_TEST(test_nested_watches) {
        const char *outer = make_root("a"), *outside = make_root("outside");
        char inner[PATH_MAX];
        struct follower *of_outer, *of_inner;

        (void)snprintf(inner, sizeof(inner), "%s/b", outer);
        harness_label(_i == 0 ? "the outer ends" : "the inner ends");
        of_outer = follower_new(kevd, outer, REPLAY_STRICT);
        make_dir(inner);
        of_inner = follower_new(kevd, inner, REPLAY_STRICT);
        make_tree(inner, 3, 3);
        make_dir(at("%s/c", outer));
        make_tree(at("%s/c", outer), 2, 2);
        follower_check(of_outer, "outer");
        follower_check(of_inner, "inner");

        /* Within the outer, into the inner: a rename to one, new to the other. */
        move(at("%s/c/d0", outer), at("%s/in", inner));
        follower_check(of_outer, "outer, moved");
        follower_check(of_inner, "inner, moved");
        move(at("%s/d1", inner), at("%s/c/out", outer));
        follower_check(of_outer, "outer, moved back");
        follower_check(of_inner, "inner, moved back");

        follower_free(_i == 0 ? of_outer : of_inner);
        touch_tree(at("%s/d2", inner), 3, 2, "later");
        touch_tree(at("%s/in", inner), 2, 1, "later");
        make_dir(at("%s/d2/new", inner));
        make_file(at("%s/d2/new/file", inner));
        move(at("%s/d2", inner), at("%s/gone", outside));
        if (_i == 0) {
                follower_check(of_inner, "inner, alone");
                move(at("%s/c/out", outer), at("%s/back", inner));
                touch_tree(at("%s/back", inner), 3, 2, "back");
                follower_check(of_inner, "inner, moved in from what was once watched");
        } else
                follower_check(of_outer, "outer, alone");
        follower_free(_i == 0 ? of_inner : of_outer);
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* Moving the inner watch's directory ends that watch alone. */
START_TEST(test_nested_root_moved) {
        const char *outer = make_root("a");
        char inner[PATH_MAX];
        struct follower *of_outer = follower_new(kevd, outer, REPLAY_STRICT), *of_inner;

        (void)snprintf(inner, sizeof(inner), "%s/b", outer);
        make_dir(inner);
        of_inner = follower_new(kevd, inner, REPLAY_STRICT);
        make_tree(inner, 2, 2);
        move(inner, at("%s/c", outer));
        touch_tree(at("%s/c", outer), 2, 2, "later");
        expect_gone(of_inner, "inner");
        follower_check(of_outer, "outer");
        make_dir(inner);
        make_file(at("%s/file", inner));
        follower_check(of_outer, "outer, made again");
        ck_assert(!follower_take(of_inner, 0, NULL));
        follower_free(of_inner);
        touch_tree(at("%s/c", outer), 2, 2, "last");
        follower_check(of_outer, "outer, alone");
        follower_free(of_outer);
}
END_TEST

static size_t count_inotify_instances(pid_t pid) {
        char path[64], link[64];
        size_t n = 0;

        for (int fd = 0; fd < 1024; fd++) {
                ssize_t size;

                (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
                size = readlink(path, link, sizeof(link));
                n += size == (ssize_t)strlen("anon_inode:inotify") &&
                     memcmp(link, "anon_inode:inotify", (size_t)size) == 0;
        }
        return n;
}

START_TEST(test_shared) {
        const char *root = make_root("w");
        struct follower *f[3];

        for (size_t i = 0; i < ARRAY_SIZE(f); i++)
                f[i] = follower_new(kevd, root, REPLAY_STRICT);
        for (int i = 0; i < 999; i++)
                make_dir(at("%s/d%d", root, i));
        for (size_t i = 0; i < ARRAY_SIZE(f); i++)
                follower_check(f[i], "made");
        daemon_expect_watches(kevd, on_inotify(1000));
        ck_assert_uint_eq(count_inotify_instances(kevd->pid), 1);
        for (int i = 0; i < 999; i++)
                make_file(at("%s/d%d/file", root, i));
        for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
                follower_check(f[i], "filled");
                ck_assert_uint_eq(f[i]->n_counted, 999 * 3);
        }
        follower_free(f[0]);
        follower_free(f[1]);
        make_file(at("%s/d7/later", root));
        follower_check(f[2], "alone");
        daemon_expect_watches(kevd, on_inotify(1000));
        follower_free(f[2]);
        daemon_expect_watches(kevd, 0);
        ck_assert_uint_eq(count_inotify_instances(kevd->pid), 1);
}
END_TEST

/* Several watches of one connection on one directory. */
START_TEST(test_twice_on_one_connection) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        struct kev_watch *watch;
        const struct kev_event *event;
        int64_t id;
        size_t n[2] = { 0 };

        watch = new_tree_watch(root, 0);
        ck_assert_int_eq(kev_add(f->kev, watch, NULL, NULL, &id), 0);
        kev_watch_free(watch);
        make_dir(at("%s/d", root));
        make_file(at("%s/d/file", root));
        while (kev_wait(f->kev, 0, &event) == 1)
                n[kev_event_id(event) == id]++;
        ck_assert_uint_ge(n[0], 2);
        ck_assert_uint_eq(n[0], n[1]);
        ck_assert_int_eq(kev_remove(f->kev, f->id), 0);
        make_file(at("%s/d/later", root));
        ck_assert_int_eq(kev_wait(f->kev, 0, &event), 1);
        ck_assert_int_eq(kev_event_id(event), id);
        follower_free(f);
}
END_TEST

/* ---- watches that come and go ---------------------------------------------------------------- */

START_TEST(test_removed_while_pending) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT), *other = follower_new(kevd, root, REPLAY_STRICT);
        const struct kev_event *event;

        make_tree(root, 5, 3);
        ck_assert_int_eq(kev_remove(f->kev, f->id), 0);
        ck_assert_int_eq(kev_wait(f->kev, 0, &event), 0);
        follower_check(other, "the other");
        ck_assert_int_eq(kev_remove(f->kev, f->id), -ENOENT);
        follower_free(f);
        follower_free(other);
}
END_TEST

START_TEST(test_made_and_removed) {
        const char *root = make_root("w");
        struct kev_watch *watch;
        struct kev *kev;

        make_tree(root, 3, 2);
        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        watch = new_tree_watch(root, 0);
        for (int i = 0; i < harness_rounds(1000); i++) {
                const struct kev_event *event;
                int64_t id;

                ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, &id), 0);
                if (i % 10 == 0) {
                        append(at("%s/d0/d1/file", root), "x");
                        ck_assert_int_eq(kev_wait(kev, 0, &event), 1);
                }
                ck_assert_int_eq(kev_remove(kev, id), 0);
        }
        daemon_expect_watches(kevd, 0);
        kev_watch_free(watch);
        kev_close(kev);
}
END_TEST

/* One client's watch ends while another's of the same tree is being made. */
START_TEST(test_handed_over) {
        const char *root = make_root("w");
        struct follower *f, *next;

        make_tree(root, 4, 3);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        for (int i = 0; i < n_rounds(); i++) {
                pid_t pid = fork_writer();
                size_t n;

                if (pid == 0) { /* the connection ends while the other is being made */
                        follower_free(f);
                        _exit(0);
                }
                follower_free(f);
                next = follower_new(kevd, root, REPLAY_AT_REST);
                reap(pid);
                touch_tree(root, 4, 3, at("later%d", i));
                n = count_about(next, at("later%d", i));
                ck_assert_msg(n == 85 * 2, "round %d: %zu events of 170", i, n);
                f = next;
        }
        follower_free(f);
        daemon_expect_watches(kevd, 0);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_tree_case(harness_suite("tree-watches"), "watches", 120);

        tcase_add_loop_test(c, test_nested_watches, 0, 2);
        tcase_add_test(c, test_nested_root_moved);
        tcase_add_test(c, test_shared);
        tcase_add_test(c, test_twice_on_one_connection);
        tcase_add_test(c, test_removed_while_pending);
        tcase_add_test(c, test_made_and_removed);
        tcase_add_test(c, test_handed_over);
        return harness_main(argc, argv);
}
