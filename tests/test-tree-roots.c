/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on the real daemon, and the watched directory itself: what ends the watch, links on the way to it,
 * what is refused, and what a user may not read.
 */

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "connect.h"
#include "files.h"
#include "harness.h"
#include "kev.h"
#include "replay.h"
#include "trees.h"

enum { NOBODY = 65534 };

/* ---- the watched directory itself ------------------------------------------------------------ */

START_TEST(test_root_deleted) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        make_tree(root, 3, 2);
        follower_check(f, "before");
        run("/", at("rm -r %s", root));
        expect_gone(f, "deleted");
        follower_check(f, "deleted");
        daemon_expect_watches(kevd, 0);
        /* The watch can be removed, and another made in its place. */
        ck_assert_int_eq(kev_remove(f->kev, f->id), 0);
        follower_free(f);
        make_dir(root);
        f = follower_new(kevd, root, REPLAY_STRICT);
        make_file(at("%s/file", root));
        follower_check(f, "made again");
        follower_free(f);
}
END_TEST

/* Some process has it as its current directory, say. */
START_TEST(test_root_deleted_while_open) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        remove_dir(root);
        (void)close(fd); /* the kernel tells no earlier */
        expect_gone(f, "closed");
        follower_free(f);
}
END_TEST

START_TEST(test_root_moved) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char moved[PATH_MAX];

        (void)snprintf(moved, sizeof(moved), "%s/moved", harness_tempdir());
        make_tree(root, 3, 2);
        follower_check(f, "before");
        move(root, moved);
        expect_gone(f, "moved");
        touch_tree(moved, 3, 2, "later");
        ck_assert(!follower_take(f, 0, NULL));
        daemon_expect_watches(kevd, 0);
        follower_free(f);
}
END_TEST

/* A directory further up gets another name: the watch goes on, or says that it ends. */
START_TEST(test_ancestor_moved) {
        const char *above = make_root("above");
        char root[PATH_MAX], moved[PATH_MAX];
        struct follower *f;

        (void)snprintf(root, sizeof(root), "%s/w", above);
        (void)snprintf(moved, sizeof(moved), "%s/moved", harness_tempdir());
        make_dir(root);
        f = follower_new(kevd, root, REPLAY_STRICT);
        move(above, moved);
        make_dir(at("%s/w/d", moved));
        make_file(at("%s/w/d/file", moved));
        follower_drain(f);
        if (!f->ended) {
                make_file(at("%s/w/d/later", moved));
                ck_assert_msg(see(f, at("%s/d/later", root)).notes & KEV_NOTE_CREATE,
                              "neither `gone` nor what happened in a new directory");
        }
        follower_free(f);
}
END_TEST

/* ---- links ----------------------------------------------------------------------------------- */

START_TEST(test_links_not_followed) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f;

        ck_assert_int_eq(symlink(outside, at("%s/before", root)), 0);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        ck_assert_int_eq(symlink(outside, at("%s/after", root)), 0);
        make_dir(at("%s/d", root));
        ck_assert_int_eq(symlink("..", at("%s/d/up", root)), 0);
        follower_drain(f);
        make_dir(at("%s/d", outside));
        make_file(at("%s/file", outside));
        make_file(at("%s/after/through", root));
        ck_assert(!follower_take(f, 0, NULL));
        daemon_expect_watches(kevd, on_inotify(2));
        /* A directory is replaced by a link to where it was moved. */
        make_dir(at("%s/d2", root));
        follower_drain(f);
        move(at("%s/d2", root), at("%s/d2", outside));
        ck_assert_int_eq(symlink(at("%s/d2", outside), at("%s/d2", root)), 0);
        follower_drain(f);
        make_file(at("%s/d2/file", root));
        ck_assert(!follower_take(f, 0, NULL));
        follower_free(f);
}
END_TEST

START_TEST(test_root_by_link) {
        const char *root = make_root("w");
        struct follower *by_link, *f;
        char link_path[PATH_MAX], dotted[PATH_MAX];

        (void)snprintf(link_path, sizeof(link_path), "%s/link", harness_tempdir());
        (void)snprintf(dotted, sizeof(dotted), "%s/./w/../w", harness_tempdir());
        ck_assert_int_eq(symlink("w", link_path), 0);
        by_link = follower_new(kevd, link_path, REPLAY_STRICT); /* fails an event that is not below this path */
        f = follower_new(kevd, dotted, REPLAY_STRICT);
        make_tree(root, 2, 2);
        follower_check(by_link, "by a link");
        follower_check(f, "by dots");
        daemon_expect_watches(kevd, on_inotify(7));
        follower_free(by_link);
        follower_free(f);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

static void expect_refusal(const char *path, int error, const char *field) {
        struct kev_watch *watch;
        struct kev *kev;
        int r;

        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        watch = new_tree_watch(path, 0);
        r = kev_add(kev, watch, NULL, NULL, NULL);
        ck_assert_msg(r == -error, "%s: %s instead of %s (%s)", path, strerror(-r), strerror(error),
                      kev_error_message(kev));
        ck_assert_msg(strstr(kev_error_message(kev), field), "%s: not named in \"%s\"", field, kev_error_message(kev));
        kev_watch_free(watch);
        kev_close(kev);
}

START_TEST(test_refusals) {
        const char *root = make_root("w");

        make_file(at("%s/file", root));
        ck_assert_int_eq(symlink("loop", at("%s/loop", root)), 0);
        expect_refusal(at("%s/none", root), ENOENT, "path");
        expect_refusal(at("%s/file", root), ENOTDIR, "path");
        expect_refusal(at("%s/file/below", root), ENOTDIR, "path");
        expect_refusal(at("%s/loop", root), ELOOP, "path");
        daemon_expect_watches(kevd, 0);
}
END_TEST

START_TEST(test_relative_path) {
        int fd = client_connect(kevd->socket);
        struct json_object *reply = client_call(fd, "org.kevd.events.Change",
                                                "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"tmp\"},"
                                                "{\"id\":2,\"filter\":\"tree\",\"path\":\"\"},"
                                                "{\"id\":3,\"filter\":\"tree\"}]}");
        const char *text = json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PLAIN);

        for (int i = 1; i <= 3; i++) {
                const char *refusal = strstr(text, at("{\"id\":%d,\"errno\":\"EINVAL\",\"message\":\"path: ", i));

                ck_assert_msg(refusal, "%s", text);
        }
        json_object_put(reply);
        (void)close(fd);
}
END_TEST

/* ---- as another user ------------------------------------------------------------------------- */

/* Runs it in a process of the user nobody, who owns the test's directory. */
static void run_as_nobody(void (*fn)(const char *root)) {
        const char *root;
        pid_t pid;

        if (geteuid() != 0)
                harness_skip("needs root, to become another user");
        if (daemon_is_on_fanotify())
                harness_skip("a daemon without privileges has no fanotify");
        root = make_root("w");
        ck_assert_int_eq(chown(root, NOBODY, NOBODY), 0);
        ck_assert_int_eq(chown(harness_tempdir(), NOBODY, NOBODY), 0);
        pid = fork_writer();
        if (pid == 0) {
                ck_assert_int_eq(setgroups(0, NULL), 0);
                ck_assert_int_eq(setresgid(NOBODY, NOBODY, NOBODY), 0);
                ck_assert_int_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
                ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 1), 0); /* or the daemon can't tell its namespaces */
                start();
                fn(root);
                stop();
                _exit(0);
        }
        reap(pid);
}

static void do_unreadable(const char *root) {
        struct follower *f;

        make_dir(at("%s/closed", root));
        make_dir(at("%s/closed/below", root));
        make_dir(at("%s/open", root));
        ck_assert_int_eq(chmod(at("%s/closed", root), 0), 0);
        expect_refusal(at("%s/closed", root), EACCES, "path");
        expect_refusal(at("%s/closed/below", root), EACCES, "path");
        f = follower_new(kevd, root, REPLAY_AT_REST);
        make_file(at("%s/open/file", root));
        expect(f, at("%s/open/file", root), KEV_NOTE_CREATE | KEV_NOTE_CLOSEWRITE);
        ck_assert_int_eq(mkdir(at("%s/new", root), 0), 0);
        expect(f, at("%s/new", root), KEV_NOTE_CREATE);
        follower_free(f);
}

START_TEST(test_unreadable) {
        run_as_nobody(do_unreadable);
}
END_TEST

/* Becomes readable: from then on it is a part of the tree like any other. */
static void do_readable_again(const char *root) {
        struct follower *f;

        make_dir(at("%s/closed", root));
        ck_assert_int_eq(chmod(at("%s/closed", root), 0), 0);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        ck_assert_int_eq(chmod(at("%s/closed", root), 0755), 0);
        follower_drain(f);
        make_file(at("%s/closed/file", root));
        ck_assert_msg(see(f, at("%s/closed/file", root)).notes & KEV_NOTE_CREATE,
                      "a file in a directory that has become readable is not told");
        follower_free(f);
}

START_TEST(test_readable_again) {
        run_as_nobody(do_readable_again);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("tree-roots");
        TCase *c = make_tree_case(suite, "roots", 60);

        tcase_add_test(c, test_root_deleted);
        tcase_add_test(c, test_root_deleted_while_open);
        tcase_add_test(c, test_root_moved);
        tcase_add_test(c, test_ancestor_moved);
        tcase_add_test(c, test_links_not_followed);
        tcase_add_test(c, test_root_by_link);
        tcase_add_test(c, test_refusals);
        tcase_add_test(c, test_relative_path);
        c = harness_case(suite, "users"); /* with a daemon of their own */
        tcase_add_test(c, test_unreadable);
        tcase_add_test(c, test_readable_again);
        return harness_main(argc, argv);
}
