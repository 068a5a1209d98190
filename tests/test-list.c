/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Lists: what is in a tree already, told with no gap and nothing twice between it and the events. With each mechanism. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "replay.h"

static struct daemon *kevd;

static void start(void) {
        if (!fanotify_missing())
                kevd = daemon_start(NULL);
}

static void stop(void) {
        if (kevd)
                daemon_stop(kevd);
}

/* ---- lists ------------------------------------------------------------------------------------ */

static struct follower *follow_list_with(const char *root, enum replay_rescan rescan) {
        struct kev_watch *watch = new_tree_watch(root, 0);

        ck_assert_int_eq(kev_watch_set_list(watch, true), 0);
        return follower_new_with(kevd, watch, root, rescan);
}

/* While others are at work a busy machine may lead to a rescan. */
static struct follower *follow_list(const char *root) {
        return follow_list_with(root, REPLAY_AT_REST);
}

/* Takes events up to `listed`. */
static void take_list(struct follower *f) {
        const struct kev_event *event;

        while (!(f->notes & KEV_NOTE_LISTED))
                ck_assert(follower_take(f, HARNESS_REPLY_MSEC, &event));
}

START_TEST(test_list) {
        struct follower *f, *other;
        const char *root;
        size_t n;

        root = make_root("w");
        n = make_tree(root, 4, 4);
        other = follower_new(kevd, root, REPLAY_STRICT);
        f = follow_list_with(root, REPLAY_STRICT);
        take_list(f);
        ck_assert_uint_eq(f->n_events, 2 * n - 1 + 1); /* each directory but the root, a file in each, and `listed` */
        replay_check_sane(f->replay, "listed");
        follower_check(f, "listed");
        ck_assert(!follower_take(other, 0, NULL)); /* for nobody else */
        run(root, "rm -r d1; mkdir new; mv d2 new/; touch new/d2/d0/x");
        follower_check(f, "later");
        follower_free(f);
        follower_free(other);
}
END_TEST

/* More than fits into a queue, and read by nobody for a while: nothing is merged. */
START_TEST(test_long_list) {
        const struct kev_event *event;
        struct follower *f;
        const char *root;

        root = make_root("w");
        make_dir(at("%s/d", root));
        run(at("%s/d", root), "i=0; while [ $i -lt 400 ]; do echo $i; i=$((i + 1)); done | "
                              "xargs -I{} sh -c 'a=0; while [ $a -lt 75 ]; do : > "
                              "\"a name that takes its room in a queue, for there are many of its kind {} $a\"; "
                              "a=$((a + 1)); done'");
        f = follow_list_with(root, REPLAY_STRICT);
        while (!(f->notes & KEV_NOTE_LISTED))
                ck_assert(follower_take(f, HARNESS_REPLY_MSEC, &event));
        ck_assert_uint_eq(f->n_events, 400 * 75 + 2);
        follower_check(f, "a long list");
        follower_free(f);
}
END_TEST

/* While it is made others write: no gap, and nothing twice. */
START_TEST(test_list_while_written) {
        const char *root;

        root = make_root("w");
        make_tree(root, 3, 4);
        for (int round = 0; round < harness_rounds(20); round++) {
                struct follower *f;
                pid_t pid = fork_writer();

                if (pid == 0) {
                        for (int i = 0; i < 60; i++) {
                                const char *to = at("%s/d%d/d%d/m%d-%d", root, i % 3, i / 3 % 3, round, i);

                                make_dir(to);
                                make_file(at("%s/file", to));
                                move(to, at("%s/d%d/m%d-%d", root, (i + 1) % 3, round, i));
                                if (i % 2)
                                        run(root, at("rm -r d%d/m%d-%d", (i + 1) % 3, round, i));
                        }
                        _exit(0);
                }
                f = follow_list(root);
                take_list(f);
                reap(pid);
                follower_check(f, at("round %d", round));
                follower_free(f);
        }
}
END_TEST

/* Two watches of one tree, and one within it: each is told all, once. */
START_TEST(test_several_lists) {
        struct follower *f[3];
        const char *root = make_root("w");
        pid_t pid;

        make_tree(root, 3, 4);
        pid = fork_writer();
        if (pid == 0) {
                for (int i = 0; i < 40; i++) {
                        make_dir(at("%s/d1/n%d", root, i));
                        move(at("%s/d1/n%d", root, i), at("%s/d%d/n%d", root, i % 3, i + 100));
                        make_file(at("%s/d%d/n%d/file", root, i % 3, i + 100));
                }
                _exit(0);
        }
        f[0] = follow_list(root);
        f[1] = follow_list(at("%s/d1", root));
        f[2] = follow_list(root);
        for (size_t i = 0; i < ARRAY_SIZE(f); i++)
                take_list(f[i]);
        reap(pid);
        for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
                follower_check(f[i], at("watch %zu", i));
                follower_free(f[i]);
        }
}
END_TEST

/* A watch that ends in the middle of its list takes nothing of the others along. */
START_TEST(test_removed) {
        const char *root = make_root("w");

        make_tree(root, 4, 4);
        for (int round = 0; round < harness_rounds(30); round++) {
                struct follower *gone = follow_list(root), *f = follow_list(at("%s/d0", root));

                (void)follower_take(gone, round % 3, NULL);
                follower_free(gone);
                take_list(f);
                follower_check(f, "the other");
                follower_free(f);
        }
}
END_TEST

/* What is listed goes meanwhile, with the watched directory at the end. */
START_TEST(test_deleted) {
        for (int round = 0; round < harness_rounds(20); round++) {
                const char *root = make_root(at("w%d", round));
                struct follower *f;
                pid_t pid;

                make_tree(root, 3, 4);
                pid = fork_writer();
                if (pid == 0) {
                        run(root, "rm -rf d0 d1");
                        _exit(0);
                }
                f = follow_list(root);
                take_list(f);
                reap(pid);
                follower_check(f, at("round %d", round));
                run(harness_tempdir(), at("rm -rf w%d", round));
                while (!(f->notes & KEV_NOTE_GONE))
                        ck_assert(follower_take(f, HARNESS_REPLY_MSEC, NULL));
                follower_free(f);
        }
}
END_TEST

/* ---- changes meanwhile ------------------------------------------------------------------------- */

enum { N_FILES = 2000, N_NEW = 64 };

/* More than the queue and the connection take: it is told in part as long as nobody reads on. What becomes of names
 * meanwhile is not remembered, as `rescan` is told anyway. */
START_TEST(test_changed_in_part) {
        const char *root = make_root("w");
        const struct kev_event *event;
        struct follower *f, *other;

        stop();
        kevd = daemon_start("--limit-queue-bytes=262144");
        for (int i = 0; i < N_FILES; i++)
                make_file(at("%s/%0200d", root, i));
        f = follow_list(root);
        other = follower_new_with(kevd, new_tree_watch(root, KEV_NOTE_DELETE), root, REPLAY_AT_REST);
        ck_assert(follower_take(f, HARNESS_REPLY_MSEC, NULL));
        for (int i = 0; i < N_NEW; i++) {
                make_file(at("%s/new%d", root, i));
                if (i % 2)
                        remove_file(at("%s/new%d", root, i));
        }
        follower_drain(other);
        while (!(f->notes & KEV_NOTE_LISTED)) {
                ck_assert(follower_take(f, HARNESS_REPLY_MSEC, &event));
                ck_assert_ptr_null(strstr(kev_event_path(event), "/new"));
        }
        ck_assert_uint_ge(replay_n_rescans(f->replay), 1);
        follower_check(f, "changed in part");
        follower_free(f);
        follower_free(other);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("list");
        TCase *c = harness_case(suite, "list");

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_list);
        tcase_add_test(c, test_long_list);
        tcase_add_test(c, test_list_while_written);
        tcase_add_test(c, test_several_lists);
        tcase_add_test(c, test_removed);
        tcase_add_test(c, test_deleted);
        c = harness_case(suite, "in-part");
        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_changed_in_part);
        return harness_main(argc, argv);
}
