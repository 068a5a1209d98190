/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Trees that go on in what is mounted below: tree.crossMounts. In a mount namespace of the test's own. */

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"

static struct daemon *kevd;
static const char *root;
static const char *mounted[16]; /* in this order */
static size_t n_mounted;

static void start(void) {
        need_private_mounts();
        kevd = daemon_start(NULL);
        root = make_root("w");
}

static bool is_unmounted(void *path) {
        return umount2(path, 0) == 0;
}

/* It may be in use for the moment in which it is listed. */
static void unmount(const char *path) {
        ck_assert_msg(wait_until(is_unmounted, (void *)path, HARNESS_REPLY_MSEC), "umount: %s: %s", path,
                      strerror(errno));
}

/* While they are watched: a watch keeps no file system from being unmounted. */
static void unmount_all(void) {
        while (n_mounted > 0)
                unmount(mounted[--n_mounted]);
}

static void stop(void) {
        unmount_all();
        daemon_stop(kevd);
}

static struct kev_watch *new_watch(const char *path) {
        struct kev_watch *watch = new_tree_watch(path, 0);

        ck_assert_int_eq(kev_watch_set_cross_mounts(watch, true), 0);
        return watch;
}

static struct follower *follow(void) {
        return follower_new_with(kevd, new_watch(root), root, REPLAY_AT_REST);
}

/* What is there is known to it. */
static struct follower *follow_list(void) {
        struct kev_watch *watch = new_watch(root);
        struct follower *f;

        ck_assert_int_eq(kev_watch_set_list(watch, true), 0);
        f = follower_new_with(kevd, watch, root, REPLAY_AT_REST);
        while (!(f->notes & KEV_NOTE_LISTED))
                ck_assert(follower_take(f, HARNESS_REPLY_MSEC, NULL));
        return f;
}

/* In a new directory of that name, which is returned. */
static const char *mount_one(const char *name, const char *type) {
        const char *path = at("%s/%s", root, name);

        if (access(path, F_OK) < 0)
                make_dir(path);
        assert_system(mount("none", path, type, 0, strcmp(type, "tmpfs") == 0 ? "mode=755" : NULL) == 0, path);
        mounted[n_mounted++] = path;
        return path;
}

/* The notes about this path, of what is due or soon will be. */
static void expect_about(struct follower *f, const char *path, uint64_t notes) {
        const struct kev_event *event;

        for (uint64_t seen = 0; !(seen & notes);) {
                ck_assert_msg(follower_take(f, HARNESS_REPLY_MSEC, &event), "nothing about %s", path);
                if (strcmp(kev_event_path(event), path) == 0)
                        seen |= kev_event_notes(event);
        }
}

static void expect_silence(struct follower *f) {
        const struct kev_event *event;

        if (follower_take(f, 0, &event))
                ck_abort_msg("%s", kev_event_json(event));
}

START_TEST(test_within) {
        struct follower *f;

        mount_one("a", "tmpfs");
        mount_one("a/b", "tmpfs");
        make_dir(at("%s/d", root));
        mount_one("d/c", "tmpfs");
        f = follow_list();
        make_tree(at("%s/a", root), 2, 2);
        make_tree(at("%s/a/b", root), 2, 2);
        run(root, "mkdir d/c/x && mv d/c/x d/c/y && touch d/c/y/z a/b/f && mv a/b/f a/b/d0/ && cp -r a/b/d0 d/");
        follower_check(f, "within three mounts");
        ck_assert_uint_eq(replay_n_rescans(f->replay), 0);
        follower_free(f);
}
END_TEST

START_TEST(test_come_and_go) {
        struct follower *f = follow();

        for (int i = 0; i < 5; i++) {
                const char *path = mount_one("m", "tmpfs");

                expect_about(f, path, KEV_NOTE_RESCAN);
                make_file(at("%s/file", path));
                make_dir(at("%s/dir", path));
                follower_check(f, "mounted");
                unmount_all();
                expect_about(f, path, KEV_NOTE_RESCAN);
                make_file(at("%s/under%d", path, i));
                follower_check(f, "unmounted");
        }
        follower_free(f);
}
END_TEST

/* What is mounted over it is seen, and what is covered is not. */
START_TEST(test_covered) {
        const char *outer = mount_one("m", "tmpfs"), *inner = mount_one("m/n", "tmpfs"), *other = at("%s/other", root);
        struct follower *f;

        make_dir(other);
        f = follow_list();
        assert_system(mount(outer, other, NULL, MS_BIND, NULL) == 0, "bind"); /* leads to what is going to be covered */
        mounted[n_mounted++] = other;
        mount_one("m", "tmpfs");
        ck_assert_int_lt(access(inner, F_OK), 0);
        while (follower_take(f, 0, NULL))
                ;
        make_file(at("%s/seen", outer));
        expect_about(f, at("%s/seen", outer), KEV_NOTE_CREATE);
        while (follower_take(f, 0, NULL))
                ;
        make_file(at("%s/below", other));
        expect_about(f, at("%s/below", other), KEV_NOTE_CREATE);
        follower_check(f, "covered");
        follower_free(f);
}
END_TEST

START_TEST(test_list) {
        struct follower *f;
        size_t n;

        mount_one("a", "tmpfs");
        mount_one("b", "tmpfs");
        n = make_tree(at("%s/a", root), 3, 3);
        make_dir(at("%s/c", root));
        f = follow_list();
        ck_assert_uint_eq(f->n_events, 3 + 2 * n - 1 + 1); /* a, b, c; in a; and `listed` */
        follower_check(f, "listed");
        expect_silence(f);
        follower_free(f);
}
END_TEST

START_TEST(test_excluded) {
        struct kev_watch *watch = new_watch(root);
        struct follower *f;

        mount_one("a", "tmpfs");
        make_dir(at("%s/d", root));
        mount_one("d/b", "tmpfs");
        ck_assert_int_eq(kev_watch_add_exclude(watch, "a/**"), 0);
        ck_assert_int_eq(kev_watch_add_exclude(watch, "d/b/not"), 0);
        f = follower_new_with(kevd, watch, root, REPLAY_AT_REST);
        make_file(at("%s/a/file", root));
        make_file(at("%s/d/b/not", root));
        make_file(at("%s/d/b/seen", root));
        expect_about(f, at("%s/d/b/seen", root), KEV_NOTE_CREATE);
        ck_assert_uint_eq(f->n_events, 1);
        follower_free(f);
}
END_TEST

/* Views of the kernel's state can't be watched, and the watch says so. */
START_TEST(test_kernels_own) {
        const char *path = mount_one("proc", "proc");
        struct follower *f = follow();

        expect_about(f, path, KEV_NOTE_DEGRADED);
        make_file(at("%s/file", root));
        expect_about(f, at("%s/file", root), KEV_NOTE_CREATE);
        follower_free(f);
}
END_TEST

/* The watched directory itself is waited for, and what is mounted below it then belongs to it. */
START_TEST(test_waiting) {
        const char *path = at("%s/later", root);
        struct kev_watch *watch = new_watch(path);
        struct follower *f;

        ck_assert_int_eq(kev_watch_set_notes(watch, kev_filter_default_notes(KEV_FILTER_TREE) | KEV_NOTE_BACK), 0);
        f = follower_new_with(kevd, watch, path, REPLAY_AT_REST);
        make_dir(path);
        make_dir(at("%s/m", path));
        assert_system(mount("none", at("%s/m", path), "tmpfs", 0, NULL) == 0, path);
        expect_about(f, path, KEV_NOTE_BACK);
        expect_about(f, at("%s/m", path), KEV_NOTE_RESCAN);
        follower_drain(f); /* another rescan, when the directory was there before what is mounted on it */
        make_file(at("%s/m/file", path));
        expect_about(f, at("%s/m/file", path), KEV_NOTE_CREATE);
        unmount(at("%s/m", path));
        run(root, "rm -r later");
        expect_about(f, path, KEV_NOTE_GONE);
        follower_free(f);
}
END_TEST

START_TEST(test_added_and_removed) {
        mount_one("a", "tmpfs");
        mount_one("b", "tmpfs");
        for (int i = 0; i < harness_rounds(50); i++)
                follower_free(follow());
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* A directory on the way to a mount gets another name: nothing says that mounts have changed. */
START_TEST(test_renamed_above) {
        const char *names[] = { "a", "b" };
        struct follower *f;

        make_dir(at("%s/first", root));
        make_dir(at("%s/first/d", root));
        mount_one("first/d/m", "tmpfs");
        move(at("%s/first", root), at("%s/a", root)); /* before anybody watches */
        f = follow_list();
        for (int i = 0; i < 3; i++) {
                const char *path = at("%s/%s/d/m", root, names[i % 2]);

                mounted[0] = path;
                make_file(at("%s/file%d", path, i));
                expect_about(f, at("%s/file%d", path, i), KEV_NOTE_CREATE);
                follower_check(f, path);
                move(at("%s/%s", root, names[i % 2]), at("%s/%s", root, names[(i + 1) % 2]));
                mounted[0] = at("%s/%s/d/m", root, names[(i + 1) % 2]);
                expect_about(f, mounted[0], KEV_NOTE_RESCAN);
        }
        follower_free(f);
}
END_TEST

/* A mount that its reader may not look into, nor into what is mounted in it: the list ends all the same. */
START_TEST(test_closed_mounts) {
        bool listed = false;
        int fd;

        if (geteuid() != 0)
                harness_skip("to be another user takes root");
        daemon_stop(kevd);
        kevd = daemon_start("--mode=system");
        ck_assert_int_eq(chmod(harness_tempdir(), 0755), 0);
        mount_one("a", "tmpfs");
        for (int i = 0; i < 8; i++) /* they are come to before the one above, or behind it */
                mount_one(at("a/%d", i), "tmpfs");
        ck_assert_int_eq(chmod(at("%s/a", root), 0700), 0);
        fd = client_connect_as(kevd->socket, OTHER_CLIENT);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"tree\":"
                          "{\"crossMounts\":true,\"list\":true}}]}", root);
        while (!listed) {
                struct json_object *event = next_event(fd);

                listed = has_note(event, "listed");
                json_object_put(event);
        }
        (void)close(fd);
}
END_TEST

static void mount_and_drain(int fd, const char *name) {
        struct json_object *event;

        mount_one(name, "tmpfs");
        while ((event = due_event(fd)))
                json_object_put(event);
}

static void expect_others_only(int fd, const char *directory) {
        struct json_object *event;

        make_file(at("%s/%s/own", root, directory));
        expect_nothing(fd);
        run(root, at("touch %s/other", directory));
        event = next_event(fd);
        ck_assert_str_eq(text_at(event, "/path"), at("%s/%s/other", root, directory));
        json_object_put(event);
        while ((event = due_event(fd)))
                json_object_put(event);
}

/* What is said once more of the list holds back nothing else of a change, where a mount has come since; and what is
 * changed is so for those that come after it. */
START_TEST(test_changed_since_list) {
        const char *spec = "\"id\":1,\"filter\":\"tree\",\"tree\":{\"crossMounts\":true,\"list\":true",
                   *change = at("{\"modify\":[{%s,\"excludeSelf\":true}}]}", spec);
        struct json_object *reply, *event;
        int fd = client_connect(kevd->socket);
        bool refused;

        client_change(fd, "{\"add\":[{%s},\"path\":\"%s\"}]}", spec, root);
        event = next_event(fd);
        ck_assert(has_note(event, "listed"));
        json_object_put(event);
        mount_and_drain(fd, "a");
        reply = client_call(fd, "org.kevd.events.Change", change);
        refused = json_at(reply, "/parameters/refused/0");
        json_object_put(reply);
        if (!refused) {
                expect_others_only(fd, "a");
                mount_and_drain(fd, "b");
                expect_others_only(fd, "b");
        }
        (void)close(fd);
        if (refused)
                harness_skip("it takes fanotify to know who does what");
}
END_TEST

enum { N_MOUNTS = 14, USER_PARTS_MAX = 16384, N_WATCHES = USER_PARTS_MAX / N_MOUNTS + 1, AT_ONCE = 50 };

/* Of all its watches. */
static void add_watches(int fd, int first, int n) {
        char text[AT_ONCE * 160];
        size_t size = 0;

        for (int i = first; i < first + n; i++)
                size += (size_t)snprintf(text + size, sizeof(text) - size,
                                         "%s{\"id\":%d,\"filter\":\"tree\",\"path\":\"%s\","
                                         "\"tree\":{\"crossMounts\":true}}", size ? "," : "", i, root);
        client_change(fd, "{\"add\":[%s]}", text);
}

/* How many of the events that are due have the note. */
static int count_due(int fd, const char *note) {
        struct json_object *event;
        int n = 0;

        while ((event = due_event(fd))) {
                n += has_note(event, note);
                json_object_put(event);
        }
        return n;
}

/* A user's watches have so many mounts together, and say once of each more that it is not watched. All of them are told
 * of a change before a Wait that comes behind it is answered. */
START_TEST(test_many) {
        int fd = client_connect(kevd->socket);

        for (int i = 0; i < N_MOUNTS; i++)
                mount_one(at("%d", i), "tmpfs");
        for (int i = 0; i < N_WATCHES; i += AT_ONCE)
                add_watches(fd, i, MIN(AT_ONCE, N_WATCHES - i));
        ck_assert_int_eq(count_due(fd, "degraded"), N_WATCHES * N_MOUNTS - USER_PARTS_MAX);
        mount_one("more", "tmpfs");
        ck_assert_int_eq(count_due(fd, "degraded"), N_WATCHES);
        unmount_all();
        ck_assert_int_ge(count_due(fd, "rescan"), USER_PARTS_MAX);
        (void)close(fd);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("crossing");
        TCase *c = harness_case(suite, "crossing");

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_within);
        tcase_add_test(c, test_come_and_go);
        tcase_add_test(c, test_covered);
        tcase_add_test(c, test_list);
        tcase_add_test(c, test_excluded);
        tcase_add_test(c, test_kernels_own);
        tcase_add_test(c, test_waiting);
        tcase_add_test(c, test_added_and_removed);
        tcase_add_test(c, test_closed_mounts);
        tcase_add_test(c, test_changed_since_list);
        tcase_add_test(c, test_renamed_above);
        tcase_add_test(c, test_many);
        return harness_main(argc, argv);
}
