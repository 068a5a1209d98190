/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Mounts over and within watched trees, on the real daemon and real file systems, in a mount namespace of the test's
 * own: what is to be seen in a place is what is told of, and `rescan`, or `gone` and `back`, say when it changes.
 */

#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"

static struct daemon *kevd;

static void start(void) {
        need_private_mounts();
        kevd = daemon_start(NULL);
}

static void stop(void) {
        daemon_stop(kevd);
}

static struct follower *follow(const char *path) {
        struct kev_watch *watch = new_tree_watch(path, 0);

        return follower_new_with(kevd, watch, path, REPLAY_AT_REST);
}

static void mount_tmpfs(const char *path) {
        assert_system(mount("tmpfs", path, "tmpfs", 0, "mode=700") == 0, path);
}

static void unmount(const char *path) {
        assert_system(umount2(path, 0) == 0, path);
}

/* What is due: the notes about the path itself, and how many events there are about what is below it. */
struct seen {
        uint64_t notes;
        size_t below;
};

static struct seen see(struct follower *f, const char *path) {
        struct seen seen = { 0 };
        const struct kev_event *event;
        size_t size = strlen(path);

        while (follower_take(f, 0, &event)) {
                const char *p = kev_event_path(event);

                if (strcmp(p, path) == 0)
                        seen.notes |= kev_event_notes(event);
                else
                        seen.below += strncmp(p, path, size) == 0 && p[size] == '/';
        }
        return seen;
}

START_TEST(test_within) {
        const char *root = make_root("w"), *place = at("%s/d/place", root);
        struct follower *f;

        make_dir(at("%s/d", root));
        make_dir(place);
        make_dir(at("%s/hidden", place));
        f = follow(root);
        for (int i = 0; i < 5; i++) {
                struct seen seen;

                mount_tmpfs(place);
                ck_assert_msg(see(f, place).notes & KEV_NOTE_RESCAN, "mounted, %d: no rescan", i);
                make_file(at("%s/file", place)); /* of the other file system, which is not entered */
                make_dir(at("%s/dir", place));
                make_file(at("%s/dir/file", place));
                seen = see(f, place);
                ck_assert_uint_eq(seen.below, 0);
                make_file(at("%s/d/beside%d", root, i));
                ck_assert_msg(see(f, at("%s/d/beside%d", root, i)).notes & KEV_NOTE_CREATE, "beside it, %d", i);
                unmount(place);
                ck_assert_msg(see(f, place).notes & KEV_NOTE_RESCAN, "unmounted, %d: no rescan", i);
                make_file(at("%s/hidden/file%d", place, i));
                ck_assert_msg(see(f, at("%s/hidden/file%d", place, i)).notes & KEV_NOTE_CREATE, "unmounted, %d", i);
        }
        daemon_expect_watches(kevd, on_inotify(4));
        follower_free(f);
}
END_TEST

struct returning {
        struct follower *follower;
        const char *path;
};

static bool is_back(void *userdata) {
        struct returning *r = userdata;

        return see(r->follower, r->path).notes & KEV_NOTE_BACK;
}

/* Unmounted and mounted between two looks of the daemon, which finds the same mount in the same place. */
START_TEST(test_again) {
        struct returning r = { .path = make_root("w") };

        mount_tmpfs(r.path);
        r.follower = follow(r.path);
        for (int i = 0; i < 5; i++) {
                const char *file = at("%s/file%d", r.path, i);

                assert_system(kill(kevd->pid, SIGSTOP) == 0, "kill");
                unmount(r.path);
                mount_tmpfs(r.path);
                assert_system(kill(kevd->pid, SIGCONT) == 0, "kill");
                ck_assert_msg(wait_until(is_back, &r, HARNESS_REPLY_MSEC), "not back, %d", i);
                make_file(file);
                ck_assert_msg(see(r.follower, file).notes & KEV_NOTE_CREATE, "a file, %d", i);
        }
        follower_free(r.follower);
        unmount(r.path);
}
END_TEST

/* The directory that is watched, or one above it. */
START_TEST(test_over) {
        const char *above = make_root("above"), *root = at("%s/w", above), *place = _i ? above : root;
        struct follower *f;

        harness_label(_i ? "over one above" : "over itself");
        make_dir(root);
        make_dir(at("%s/below", root));
        f = follow(root);
        for (int i = 0; i < 5; i++) {
                uint64_t notes;

                mount_tmpfs(place);
                if (_i) {
                        notes = see(f, root).notes;
                        ck_assert_msg(notes & KEV_NOTE_GONE, "mounted, %d: not gone", i);
                        make_dir(root);
                        notes = see(f, root).notes;
                } else {
                        notes = see(f, root).notes;
                        ck_assert_msg(notes & KEV_NOTE_GONE, "mounted, %d: not gone", i);
                }
                for (int64_t deadline = now_msec() + HARNESS_REPLY_MSEC; !(notes & KEV_NOTE_BACK) && now_msec() < deadline;)
                        notes |= see(f, root).notes;
                ck_assert_msg(notes & KEV_NOTE_BACK, "mounted, %d: not back", i);
                make_file(at("%s/file", root));
                ck_assert_msg(see(f, at("%s/file", root)).notes & KEV_NOTE_CREATE, "mounted, %d", i);
                unmount(place);
                notes = 0;
                for (int64_t deadline = now_msec() + HARNESS_REPLY_MSEC; !(notes & KEV_NOTE_BACK) && now_msec() < deadline;)
                        notes |= see(f, root).notes;
                ck_assert_msg(notes & KEV_NOTE_GONE, "unmounted, %d: not gone", i);
                ck_assert_msg(notes & KEV_NOTE_BACK, "unmounted, %d: not back", i);
                make_file(at("%s/below/file%d", root, i));
                ck_assert_msg(see(f, at("%s/below/file%d", root, i)).notes & KEV_NOTE_CREATE, "unmounted, %d", i);
        }
        follower_free(f);
}
END_TEST

/* One that was there before the watch, and is unmounted; its name has what mountinfo escapes. */
START_TEST(test_there_before) {
        const char *root = make_root("w"), *place = at("%s/a place\\n", root);
        struct follower *f;

        make_dir(place);
        make_dir(at("%s/hidden", place));
        mount_tmpfs(place);
        make_dir(at("%s/dir", place));
        f = follow(root);
        daemon_expect_watches(kevd, on_inotify(1));
        make_file(at("%s/dir/file", place));
        ck_assert_uint_eq(see(f, place).below, 0);
        unmount(place);
        ck_assert_msg(see(f, place).notes & KEV_NOTE_RESCAN, "no rescan");
        make_file(at("%s/hidden/file", place));
        ck_assert_msg(see(f, at("%s/hidden/file", place)).notes & KEV_NOTE_CREATE, "unmounted");
        follower_free(f);
}
END_TEST

/* A mount point is watched by itself, and others come and go above: that concerns nobody. */
START_TEST(test_watched_itself) {
        const char *root = make_root("w"), *place = at("%s/place", root);
        struct follower *at_place, *above;

        make_dir(place);
        mount_tmpfs(place);
        make_dir(at("%s/dir", place));
        at_place = follow(place);
        for (int i = 0; i < 3; i++) {
                above = follow(root);
                ck_assert(!follower_take(at_place, 0, NULL));
                make_file(at("%s/dir/file%d", place, i));
                ck_assert_msg(see(at_place, at("%s/dir/file%d", place, i)).notes & KEV_NOTE_CREATE, "one above, %d", i);
                follower_free(above);
                make_file(at("%s/dir/later%d", place, i));
                ck_assert_msg(see(at_place, at("%s/dir/later%d", place, i)).notes & KEV_NOTE_CREATE, "none above, %d", i);
        }
        follower_free(at_place);
        unmount(place);
}
END_TEST

/* A bind mount of a directory is another way to it: each watch tells by the path that its client named. */
START_TEST(test_bind) {
        const char *a = make_root("a"), *b = make_root("b");
        struct follower *at_a, *at_b;

        make_dir(at("%s/sub", a));
        assert_system(mount(a, b, NULL, MS_BIND, NULL) == 0, b);
        at_a = follow(a);
        at_b = follow(b);
        make_file(at("%s/sub/file", a));
        ck_assert_uint_ne(see(at_a, at("%s/sub/file", a)).notes & KEV_NOTE_CREATE, 0);
        ck_assert_uint_ne(see(at_b, at("%s/sub/file", b)).notes & KEV_NOTE_CREATE, 0);
        make_dir(at("%s/sub/new", b));
        make_file(at("%s/sub/new/file", b));
        ck_assert_uint_ne(see(at_a, at("%s/sub/new/file", a)).notes & KEV_NOTE_CREATE, 0);
        ck_assert_uint_ne(see(at_b, at("%s/sub/new/file", b)).notes & KEV_NOTE_CREATE, 0);
        daemon_expect_watches(kevd, on_inotify(3));
        follower_free(at_a);
        follower_free(at_b);
        unmount(b);
}
END_TEST

/* Mounts go while a new watch comes to them, and the daemon has much else to do: what they have covered is watched. */
START_TEST(test_gone_meanwhile) {
        enum { MOUNTS = 100 };
        const char *root = make_root("w"), *busy = make_root("busy");
        int fd = client_connect(kevd->socket), other = client_connect(kevd->socket);
        bool told[MOUNTS] = { 0 };
        struct json_object *event;
        pid_t writer;

        for (int i = 0; i < MOUNTS; i++) {
                make_dir(at("%s/%d", root, i));
                make_dir(at("%s/%d/place", root, i));
        }
        client_change(other, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"}]}", busy);
        for (int round = 0; round < harness_rounds(5); round++) {
                for (int i = 0; i < MOUNTS; i++)
                        mount_tmpfs(at("%s/%d/place", root, i));
                (void)unlink(at("%s/file", busy)); /* the last writer may have been between the two */
                writer = fork_writer();
                if (writer == 0)
                        for (;;) {
                                make_file(at("%s/file", busy));
                                remove_file(at("%s/file", busy));
                        }
                client_send_message(fd, at("{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                                           "\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]}]}}", root));
                for (int i = 0; i < MOUNTS; i++)
                        assert_system(umount2(at("%s/%d/place", root, i), MNT_DETACH) == 0, root);
                json_object_put(client_receive(fd, HARNESS_REPLY_MSEC));
                end_process(writer);
                while ((event = due_event(fd)))
                        json_object_put(event);
                for (int i = 0; i < MOUNTS; i++)
                        make_file(at("%s/%d/place/%d", root, i, round));
                memset(told, 0, sizeof(told));
                while ((event = due_event(fd))) {
                        int i = -1;

                        (void)sscanf(text_at(event, "/path") + strlen(root), "/%d/place/", &i);
                        told[MAX(i, 0)] |= i >= 0;
                        json_object_put(event);
                }
                for (int i = 0; i < MOUNTS; i++)
                        ck_assert_msg(told[i], "round %d: nothing is told of %d", round, i);
                client_change(fd, "{\"remove\":[1]}");
        }
        (void)close(other);
        (void)close(fd);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("mount");
        TCase *c = harness_case(suite, "mounts");

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_again);
        tcase_add_test(c, test_within);
        tcase_add_loop_test(c, test_over, 0, 2);
        tcase_add_test(c, test_there_before);
        tcase_add_test(c, test_watched_itself);
        tcase_add_test(c, test_bind);
        tcase_add_test(c, test_gone_meanwhile);
        return harness_main(argc, argv);
}
