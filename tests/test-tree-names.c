/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on the real daemon: names of all bytes and sizes, and paths so deep that no system call takes them.
 */

#include <fcntl.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "long-names.h"
#include "macro.h"
#include "replay.h"
#include "trees.h"

START_TEST(test_names) {
        static const char *const names[] = {
                "new\nline", "quote\"quote'", "back\\slash", "\xff\xfe", "caf\xe9", "\xc3\xa9", "\xed\xa0\x80",
                "\xf0\x9f\x98\x80", "\xc0\xaf", "\x01\x1f\x7f", " ", "*", "tab\t", "%s", "-rf", "\xe2\x80\xa8", "a\\u0000", "...",
        };
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char longest[256];

        memset(longest, 0xfe, 255);
        longest[255] = '\0';
        for (size_t i = 0; i <= ARRAY_SIZE(names); i++) {
                const char *name = i < ARRAY_SIZE(names) ? names[i] : longest;
                const struct kev_event *event;
                char path[PATH_MAX];

                (void)snprintf(path, sizeof(path), "%s/%s", root, name);
                make_dir(path);
                ck_assert(follower_take(f, 0, &event));
                ck_assert_str_eq(kev_event_path(event), path);
                make_file(at("%s/%s", path, name));
                follower_check(f, "a strange name");
                move(path, at("%s/x%zu", root, i));
                ck_assert(follower_take(f, 0, &event));
                ck_assert_str_eq(kev_event_from_path(event), path);
                follower_check(f, "a strange name, renamed");
        }
        follower_free(f);
}
END_TEST

START_TEST(test_strange_root) {
        const char *root = make_root("w\xff\n\"");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        make_tree(root, 2, 2);
        follower_check(f, "a root that is not UTF-8");
        follower_free(f);
}
END_TEST

START_TEST(test_deep) {
        static const struct {
                int name_size, depth;
        } cases[] = { { 30, 100 }, { 250, 13 }, { 1, 1000 }, { 200, 40 }, { 250, 120 } };
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char name[256] = "";
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), deep, file;

        harness_label(at("%d times %d bytes", cases[_i].depth, cases[_i].name_size));
        ck_assert_int_ge(fd, 0);
        memset(name, 'n', (size_t)cases[_i].name_size);
        deep = make_deep(fd, name, cases[_i].depth);
        follower_check(f, "deep");
        file = openat(deep, "later", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        ck_assert_int_ge(file, 0);
        (void)close(file);
        ck_assert_int_eq(mkdirat(deep, "new", 0755), 0);
        file = openat(deep, "new/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        ck_assert_int_ge(file, 0);
        (void)close(file);
        follower_check(f, "deep, later");
        (void)close(deep);
        (void)close(fd);
        follower_free(f);
}
END_TEST

/* What was there before the watch is watched too. */
START_TEST(test_deep_before) {
        const char *root = make_root("w");
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), file;
        int deep = make_deep(fd, "a name of some length", 300);
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        const struct kev_event *event;

        file = openat(deep, "later", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        ck_assert_int_ge(file, 0);
        (void)close(file);
        ck_assert(follower_take(f, 0, &event));
        ck_assert_uint_ne(kev_event_notes(event) & KEV_NOTE_CREATE, 0);
        ck_assert_uint_gt(strlen(kev_event_path(event)), 300 * 22);
        (void)close(deep);
        (void)close(fd);
        follower_free(f);
}
END_TEST

/* Where parts are moved into each other until the last of them comes to lie deeper than can be said: that is told of the
 * directory above. */
START_TEST(test_deeper_than_can_be_said) {
        enum { PARTS = 7, LEVELS = 100 };
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), innermost[PARTS];
        char name[256] = "";

        ck_assert_int_ge(fd, 0);
        memset(name, 'n', 250);
        for (int i = 0; i < PARTS; i++) {
                int part;

                make_dir(at("%s/%d", root, i));
                part = openat(fd, at("%d", i), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                ck_assert_int_ge(part, 0);
                innermost[i] = make_deep(part, name, LEVELS);
                (void)close(part);
                follower_drain(f);
        }
        for (int i = 1; i < PARTS; i++) {
                ck_assert_msg(!(f->notes & KEV_NOTE_RESCAN), "%d parts: rescan", i);
                assert_system(renameat(fd, at("%d", i), innermost[i - 1], "part") == 0, "renameat");
                follower_drain(f);
        }
        ck_assert_msg(f->notes & KEV_NOTE_RESCAN, "the last rename is told by nothing");
        for (int i = 0; i < PARTS; i++)
                (void)close(innermost[i]);
        (void)close(fd);
        follower_free(f);
}
END_TEST

/* The next event has that note, and is about that path. */
static struct json_object *expect_next(int fd, const char *note, const char *path) {
        struct json_object *event = next_event(fd);

        ck_assert_msg(has_note(event, note), "%s", json_object_to_json_string(event));
        ck_assert_str_eq(text_at(event, "/path"), path);
        return event;
}

/* More than NAME_MAX, which some file systems have: listed, renamed, and of what is known to be there. */
START_TEST(test_longer) {
        const char *root = make_root("w"), *first, *second;
        struct json_object *event;
        char name[601] = "";
        pid_t server;
        int fd;

        if (daemon_is_on_fanotify())
                harness_skip("FUSE can't be watched with fanotify");
        stop();
        need_private_mounts();
        server = long_names_mount(root);
        if (server < 0)
                harness_skip("no file system in user space can be mounted");
        start();
        memset(name, 'a', sizeof(name) - 1);
        first = at("%s/%s", root, name);
        memset(name, 'b', sizeof(name) - 1);
        second = at("%s/%s", root, name);
        make_dir(first);
        fd = client_connect(kevd->socket);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"tree\":{\"list\":true}}]}", root);
        json_object_put(expect_next(fd, "create", first));
        json_object_put(expect_next(fd, "listed", root));
        move(first, second);
        event = expect_next(fd, "rename", second);
        ck_assert_str_eq(text_at(event, "/fromPath"), first);
        json_object_put(event);
        make_dir(at("%s/x", second));
        json_object_put(expect_next(fd, "create", at("%s/x", second)));
        (void)close(fd);
        stop();
        long_names_end(server, root);
        start();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_tree_case(harness_suite("tree-names"), "names", 60);

        tcase_add_test(c, test_names);
        tcase_add_test(c, test_strange_root);
        tcase_add_loop_test(c, test_deep, 0, 5);
        tcase_add_test(c, test_deep_before);
        tcase_add_test(c, test_deeper_than_can_be_said);
        tcase_add_test(c, test_longer);
        return harness_main(argc, argv);
}
