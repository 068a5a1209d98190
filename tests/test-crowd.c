/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Many tree watches of one user on one directory (crowd.h): each is told what happens, or, where that is too much, to
 * look again; and who is not of them notices nothing.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"
#include "trees.h"

enum {
        A_CALL = 250,
        SMALL = 500,
        LARGE = 8500,
        MANY = 6000, /* events, more than are put down for them */
};

static int open_client(void) {
        return client_connect(kevd->socket);
}

/* Of the ids from `first` on. */
static void watch_root(int fd, const char *root, int first, int n) {
        char *text = malloc(A_CALL * 1000);

        ck_assert_ptr_nonnull(text);
        for (int i = 0; i < n;) {
                size_t size = (size_t)sprintf(text, "{\"add\":[");

                for (int k = 0; k < A_CALL && i < n; k++, i++)
                        size += (size_t)sprintf(text + size, "%s{\"id\":%d,\"filter\":\"tree\",\"path\":\"%s\","
                                                "\"notes\":[\"create\",\"delete\",\"gone\",\"rescan\"]}",
                                                k ? "," : "", first + i, root);
                (void)sprintf(text + size, "]}");
                client_change(fd, "%s", text);
        }
        free(text);
}

/* All that is due. `told[id]`: how many events had this note, and were about this path. NULL: any. */
static void take_all(int fd, const char *note, const char *path, unsigned *told) {
        size_t n;

        do {
                struct json_object *events = due_events(fd);

                n = json_object_array_length(events);
                for (size_t i = 0; i < n; i++) {
                        struct json_object *event = json_object_array_get_idx(events, i);

                        if (note && !has_note(event, note))
                                continue;
                        told[number_at(event, "/id")]++;
                        if (path)
                                ck_assert_str_eq(text_at(event, "/path"), path);
                }
                json_object_put(events);
        } while (n > 0);
}

/* Each of so many watches was told. */
static void expect_all(int fd, const char *note, const char *path, int n) {
        static unsigned told[LARGE];

        memset(told, 0, sizeof(told));
        take_all(fd, note, path, told);
        for (int i = 0; i < LARGE; i++)
                ck_assert_msg((told[i] > 0) == (i < n), "watch %d was told %u", i, told[i]);
}

START_TEST(test_small) {
        const char *root = make_root("w");
        int fds[2] = { open_client(), open_client() };

        for (int i = 0; i < 2; i++)
                watch_root(fds[i], root, 0, SMALL / 2);
        for (int round = 0; round < 3; round++) {
                make_file(at("%s/file%d", root, round));
                for (int i = 0; i < 2; i++)
                        expect_all(fds[i], "create", at("%s/file%d", root, round), SMALL / 2);
        }
        for (int i = 0; i < 2; i++)
                (void)close(fds[i]);
}
END_TEST

/* Each is told in order, and all of it, be it told by the log or by itself. */
START_TEST(test_in_order) {
        const char *root = make_root("w");
        struct follower *first = follower_new(kevd, root, REPLAY_STRICT), *last;
        int fd = open_client();

        watch_root(fd, root, 0, SMALL);
        last = follower_new(kevd, root, REPLAY_STRICT);
        for (int i = 0; i < 300; i++) {
                make_dir(at("%s/d%d", root, i));
                make_file(at("%s/d%d/file", root, i));
                move(at("%s/d%d", root, i), at("%s/e%d", root, i));
                append(at("%s/e%d/file", root, i), "text");
                if (i < 10)
                        continue;
                remove_file(at("%s/e%d/file", root, i - 10));
                remove_dir(at("%s/e%d", root, i - 10));
        }
        follower_check(first, "first");
        follower_check(last, "last");
        follower_free(first);
        follower_free(last);
        (void)close(fd);
}
END_TEST

/* One below and one above are none of them. */
START_TEST(test_large) {
        const char *above = make_root("above"), *root = at("%s/w", above);
        struct follower *of_above = follower_new(kevd, above, REPLAY_STRICT), *of_below, *of_crowd;
        int fd = open_client();

        make_dir(root);
        of_crowd = follower_new(kevd, root, REPLAY_AT_REST);
        make_dir(at("%s/below", root));
        of_below = follower_new(kevd, at("%s/below", root), REPLAY_STRICT);
        watch_root(fd, root, 0, LARGE);
        for (int round = 0; round < 2; round++) {
                for (int i = 0; i < MANY; i++)
                        make_file(at("%s/below/file%d-%d", root, round, i));
                follower_check(of_above, "above");
                follower_check(of_below, "below");
                follower_check(of_crowd, "one of them");
                expect_all(fd, "rescan", NULL, LARGE);
        }
        follower_free(of_crowd);
        follower_free(of_below);
        follower_free(of_above);
        (void)close(fd);
}
END_TEST

/* Told while it goes on, and at the end. */
START_TEST(test_while_writing) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        int fd = open_client();
        pid_t writer;

        watch_root(fd, root, 0, LARGE);
        writer = fork_writer();
        if (writer == 0) {
                for (int i = 0; i < 5000; i++) {
                        make_dir(at("%s/d%d", root, i));
                        if (i >= 100)
                                remove_dir(at("%s/d%d", root, i - 100));
                }
                _exit(0);
        }
        follow_writers(f, &writer, 1);
        follower_check(f, "written");
        expect_all(fd, "rescan", root, LARGE);
        make_file(at("%s/later", root));
        follower_check(f, "later");
        follower_free(f);
        (void)close(fd);
}
END_TEST

/* Some go while something is to be told to them, and the rest are few enough then. */
START_TEST(test_some_leave) {
        const char *root = make_root("w");
        int leaving = open_client(), staying = open_client();

        watch_root(staying, root, 0, 5);
        watch_root(leaving, root, 0, LARGE - 10);
        watch_root(staying, root, 5, 5);
        make_file(at("%s/file", root));
        (void)close(leaving);
        expect_all(staying, NULL, NULL, 10);
        make_file(at("%s/another", root));
        expect_all(staying, "create", at("%s/another", root), 10);
        (void)close(staying);
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* One that changes whose doing it is told before it was told to look again is not forgotten. */
START_TEST(test_one_changes) {
        enum { VERY_MANY = 17000 }; /* that they are behind after what is told to them in one turn */
        const char *root = make_root("w");
        int fd = open_client(), changing = open_client();
        struct json_object *reply, *event;
        pid_t writer;

        if (!daemon_is_on_fanotify())
                harness_skip("excludeSelf takes fanotify");
        watch_root(fd, root, 0, VERY_MANY);
        watch_root(changing, root, 1, 1);
        assert_system(kill(kevd->pid, SIGSTOP) == 0, "SIGSTOP");
        writer = fork_writer();
        if (writer == 0) {
                for (int i = 0; i < 500; i++)
                        make_file(at("%s/file%d", root, i));
                _exit(0);
        }
        reap(writer);
        client_send_message(changing, "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"modify\":[{\"id\":1,"
                                      "\"filter\":\"tree\",\"tree\":{\"excludeSelf\":true}}]}}");
        assert_system(kill(kevd->pid, SIGCONT) == 0, "SIGCONT");
        reply = client_receive(changing, HARNESS_REPLY_MSEC);
        ck_assert_msg(reply && !json_at(reply, "/parameters/refused/0") && !json_at(reply, "/error"), "%s",
                      json_object_to_json_string(reply));
        json_object_put(reply);
        event = due_event(changing);
        ck_assert_ptr_nonnull(event);
        if (!has_note(event, "rescan")) /* it has changed before anything was told */
                ck_assert_str_eq(text_at(event, "/path"), at("%s/file0", root));
        json_object_put(event);
        (void)close(changing);
        (void)close(fd);
}
END_TEST

START_TEST(test_gone) {
        const char *root = make_root("w");
        int fd = open_client();

        watch_root(fd, root, 0, LARGE);
        make_file(at("%s/file", root));
        remove_file(at("%s/file", root));
        remove_dir(root);
        expect_all(fd, "gone", root, LARGE);
        (void)close(fd);
        daemon_expect_watches(kevd, 0);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_tree_case(harness_suite("crowd"), "crowd", 120);

        tcase_add_test(c, test_small);
        tcase_add_test(c, test_in_order);
        tcase_add_test(c, test_large);
        tcase_add_test(c, test_while_writing);
        tcase_add_test(c, test_some_leave);
        tcase_add_test(c, test_one_changes);
        tcase_add_test(c, test_gone);
        return harness_main(argc, argv);
}
