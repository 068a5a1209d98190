/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Files of other users than the daemon's, where inotify serves them: by processes that have those users' rights, and
 * no others. That trees and files are followed there like elsewhere is in the tests that run as NAME-deputies.
 */

#include <fcntl.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "macro.h"

enum { USER = 64100, STRANGER = 64101 };

static struct daemon *kevd;
static const char *root;

static void start(void) {
        if (geteuid() != 0)
                return;
        kevd = daemon_start("--mode=system", "--file-mechanism=inotify");
        ck_assert_int_eq(chmod(harness_tempdir(), 0755), 0);
        root = make_root("w");
}

static void stop(void) {
        if (kevd)
                daemon_stop(kevd);
}

static int connect_as(uid_t uid) {
        if (geteuid() != 0)
                harness_skip("to be other users takes root");
        return client_connect_as(kevd->socket, uid);
}

/* The name of the error that the watch is refused with; "": it is made. */
static const char *try_watch(int fd, const char *members) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Change", at("{\"add\":[{%s}]}", members));
        const char *error = json_at(reply, "/parameters/refused/0") ? text_at(reply, "/parameters/refused/0/errno") : "";

        error = at("%s", error);
        json_object_put(reply);
        return error;
}

/* Of the next event. */
static const char *next_path(int fd) {
        struct json_object *event = next_event(fd);
        const char *path = at("%s", text_at(event, "/path"));

        json_object_put(event);
        return path;
}

static void take_up_to(int fd, const char *note) {
        for (bool found = false; !found;) {
                struct json_object *event = next_event(fd);

                found = has_note(event, note);
                json_object_put(event);
        }
}

/* The next event with the flag eof: the bit of its watch. */
static unsigned take_end(int fd) {
        for (unsigned id = 0;; id = 0) {
                struct json_object *event = next_event(fd);

                if (has_flag(event, "eof"))
                        id = (unsigned)number_at(event, "/id");
                json_object_put(event);
                if (id)
                        return 1u << id;
        }
}

/* Up to the first with this note: whether it has the other one, too. */
static bool take_with(int fd, const char *note, const char *other) {
        for (;;) {
                struct json_object *event = next_event(fd);
                bool found = has_note(event, note), both = has_note(event, other);

                json_object_put(event);
                if (found)
                        return both;
        }
}

static void skip_due(int fd) {
        struct json_object *event;

        while ((event = due_event(fd)))
                json_object_put(event);
}

/* The only one. 0: there is none. */
static pid_t deputy(void) {
        return daemon_find_helper(kevd->pid, "kevd-deputy");
}

static bool has_no_deputy(void *userdata _unused_) {
        return deputy() == 0;
}

/* ---- who may ------------------------------------------------------------------------------------------ */

START_TEST(test_rights) {
        static const char change[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":"
                                     "{\"add\":[{\"id\":2,\"filter\":\"vnode\",\"descriptor\":0}]}}";
        int fd = connect_as(USER), secret;
        struct json_object *reply;

        make_file(at("%s/open", root));
        make_file(at("%s/closed", root));
        make_dir(at("%s/private", root));
        make_file(at("%s/private/open", root));
        ck_assert_int_eq(chmod(at("%s/closed", root), 0600), 0);
        ck_assert_int_eq(chmod(at("%s/private", root), 0700), 0);
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"vnode\",\"path\":\"%s/open\"", root)), "");
        ck_assert_str_eq(try_watch(fd, at("\"id\":2,\"filter\":\"vnode\",\"path\":\"%s/closed\"", root)), "EACCES");
        ck_assert_str_eq(try_watch(fd, at("\"id\":2,\"filter\":\"vnode\",\"path\":\"%s/private/open\"", root)),
                         "EACCES");
        ck_assert_str_eq(try_watch(fd, at("\"id\":2,\"filter\":\"tree\",\"path\":\"%s/private\"", root)), "EACCES");
        /* What the client can open without reading it, it can't watch. */
        secret = open(at("%s/closed", root), O_PATH | O_CLOEXEC);
        ck_assert_int_ge(secret, 0);
        client_send_with_fds(fd, change, sizeof(change), &secret, 1);
        (void)close(secret);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EACCES");
        json_object_put(reply);
        append(at("%s/open", root), "text");
        ck_assert_str_eq(next_path(fd), at("%s/open", root));
        (void)close(fd);
}
END_TEST

/* Of a directory that may not be read its name is all that is told. */
START_TEST(test_closed_within) {
        int fd = connect_as(USER);

        make_dir(at("%s/private", root));
        ck_assert_int_eq(chmod(at("%s/private", root), 0700), 0);
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\",\"listed\"],"
                                          "\"tree\":{\"list\":true}", root)), "");
        take_up_to(fd, "listed");
        make_file(at("%s/private/secret", root));
        make_file(at("%s/seen", root));
        ck_assert_str_eq(next_path(fd), at("%s/seen", root));
        (void)close(fd);
}
END_TEST

/* What could be read and can't any more is not told either. */
START_TEST(test_closed_later) {
        int fd = connect_as(USER);

        make_dir(at("%s/d", root));
        make_dir(at("%s/d/below", root));
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]", root)),
                         "");
        make_file(at("%s/d/below/before", root));
        ck_assert_str_eq(next_path(fd), at("%s/d/below/before", root));
        ck_assert_int_eq(chmod(at("%s/d", root), 0700), 0);
        ck_assert_ptr_null(due_event(fd)); /* it has been seen */
        make_file(at("%s/d/secret", root));
        make_file(at("%s/d/below/secret", root));
        make_file(at("%s/seen", root));
        ck_assert_str_eq(next_path(fd), at("%s/seen", root));
        ck_assert_int_eq(chmod(at("%s/d", root), 0755), 0);
        ck_assert_str_eq(next_path(fd), at("%s/d/below", root)); /* what is in it is new to the user */
        (void)close(fd);
}
END_TEST

/* Made closed, and opened at once, as by tar(1): what is in it is told, whichever of the two the daemon saw. */
START_TEST(test_opened_at_once) {
        enum { N = 500 };
        bool told[N] = { false };
        int fd = connect_as(USER);

        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"closewrite\"]", root)), "");
        for (int i = 0; i < N; i++) {
                const char *path = at("%s/%d", root, i);

                ck_assert_int_eq(mkdir(path, 0700), 0);
                ck_assert_int_eq(chmod(path, 0755), 0);
        }
        expect_nothing(fd); /* past all of that */
        for (int i = 0; i < N; i++)
                make_file(at("%s/%d/file", root, i));
        for (int n = 0; n < N;) {
                const char *path = next_path(fd);
                int i = atoi(path + strlen(root) + 1);

                ck_assert_msg(i >= 0 && i < N, "%s", path);
                n += !told[i];
                told[i] = true;
        }
        (void)close(fd);
}
END_TEST

/* A file that can't be looked at for a while is not gone: it is told as in doubt. */
START_TEST(test_file_out_of_reach) {
        int fd = connect_as(USER);
        const char *file;

        ck_assert_int_eq(mkdir(at("%s/d", root), 0755), 0);
        file = at("%s/d/file", root);
        make_file(file);
        ck_assert_int_eq(chmod(file, 0644), 0);
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"vnode\",\"path\":\"%s\",\"notes\":[\"extend\"]", file)), "");
        ck_assert_int_eq(chmod(at("%s/d", root), 0700), 0);
        append(file, "more");
        take_up_to(fd, "rescan");
        ck_assert_int_eq(chmod(at("%s/d", root), 0755), 0);
        append(file, "still more");
        take_up_to(fd, "extend");
        (void)close(fd);
}
END_TEST

/* ---- each for itself ------------------------------------------------------------------------------------ */

/* One that stands still, with all its threads, keeps up nobody else. */
START_TEST(test_stopped) {
        int fd = connect_as(USER), other;
        pid_t pid;

        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"", root)), "");
        pid = deputy();
        ck_assert_int_gt(pid, 0);
        ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        other = connect_as(STRANGER);
        ck_assert_str_eq(try_watch(other, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"", root)), "");
        make_file(at("%s/file", root));
        ck_assert_str_eq(next_path(other), at("%s/file", root));
        ck_assert_int_eq(kill(pid, SIGCONT), 0);
        ck_assert_str_eq(next_path(fd), at("%s/file", root));
        (void)close(fd);
        (void)close(other);
        ck_assert(wait_until(has_no_deputy, NULL, HARNESS_REPLY_MSEC)); /* nobody needs them any more */
}
END_TEST

/* Another takes its place. Who ends them all the time has to do without: each watch is told its end, whatever it asked
 * for. */
START_TEST(test_killed) {
        int fd = connect_as(USER);
        unsigned ends;
        pid_t pid;

        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"", root)), "");
        ck_assert_str_eq(try_watch(fd, at("\"id\":2,\"filter\":\"vnode\",\"path\":\"%s\",\"notes\":[\"rename\"]", root)), "");
        for (int i = 0; i < 5; i++) {
                pid = deputy();
                ck_assert_int_gt(pid, 0);
                ck_assert_int_eq(kill(pid, SIGKILL), 0);
                take_up_to(fd, "degraded");
                take_up_to(fd, "rescan"); /* of each watch */
                take_up_to(fd, "rescan");
                make_file(at("%s/file%d", root, i));
                ck_assert_str_eq(next_path(fd), at("%s/file%d", root, i));
                skip_due(fd);
        }
        pid = deputy();
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ends = take_end(fd);
        ends |= take_end(fd);
        ck_assert_uint_eq(ends, 1 << 1 | 1 << 2);
        (void)close(fd);
}
END_TEST

/* The same one serves watches that come and go; when there are none for a while it ends. */
START_TEST(test_stays_for_a_while) {
        int fd = connect_as(USER);
        pid_t first = 0;

        for (int i = 0; i < 500; i++) { /* more than a user may have instances of inotify */
                ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"", root)), "");
                json_object_put(client_call(fd, "org.kevd.events.Change", "{\"remove\":[1]}"));
                if (i == 0)
                        first = deputy();
        }
        ck_assert_int_gt(first, 0);
        ck_assert_int_eq(deputy(), first);
        ck_assert(wait_until(has_no_deputy, NULL, HARNESS_REPLY_MSEC));
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"", root)), "");
        make_file(at("%s/file", root));
        ck_assert_str_eq(next_path(fd), at("%s/file", root));
        (void)close(fd);
}
END_TEST

START_TEST(test_globs) {
        int fd = connect_as(USER);

        make_tree(root, 3, 3);
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"],"
                                          "\"tree\":{\"exclude\":[\"d1/**\",\"d1\"]}", root)), "");
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(deputy()), 1 + 2 * (1 + 3 + 9));
        make_file(at("%s/d1/not", root));
        make_file(at("%s/d0/d1/seen", root));
        ck_assert_str_eq(next_path(fd), at("%s/d0/d1/seen", root));
        (void)close(fd);
}
END_TEST

struct list {
        int64_t n_events, n_things, n_rescans;
};

/* All that comes: the list's end is the last of it. */
static struct list take_list(int fd) {
        struct list list = { 0 };

        for (bool listed = false; !listed;) {
                struct json_object *events = next_events(fd);

                for (size_t i = 0; i < json_object_array_length(events); i++) {
                        struct json_object *event = json_object_array_get_idx(events, i);

                        ck_assert_msg(!listed, "behind the end: %s", json_object_to_json_string(event));
                        listed = has_note(event, "listed");
                        list.n_events++;
                        list.n_things += number_at(event, "/count");
                        list.n_rescans += has_note(event, "rescan");
                }
                json_object_put(events);
        }
        return list;
}

/* A list that is read slowly waits for its reader. */
START_TEST(test_long_list) {
        enum { N = 30000 };
        int fd = connect_as(USER);
        struct list list;

        run(root, at("seq -f 'a name that takes its room in a queue, as there are many such %%g' %d | tr '\\n' '\\0' | xargs -0 touch", N));
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"tree\":{\"list\":true}",
                                          root)), "");
        list = take_list(fd);
        ck_assert_int_eq(list.n_events, N + 1);
        ck_assert_int_eq(list.n_things, N + 1);
        ck_assert_int_eq(list.n_rescans, 0);
        (void)close(fd);
}
END_TEST

/* What was listing has ended: `rescan` says that the rest is to be looked for, and then the list is at its end. */
START_TEST(test_killed_in_list) {
        enum { N = 30000 }; /* more than is told before anybody has read it */
        int fd = connect_as(USER);
        pid_t pid;

        run(root, at("seq -f 'a name that takes its room in a queue, as there are many such %%g' %d | tr '\\n' '\\0' | xargs -0 touch", N));
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"tree\":{\"list\":true}",
                                          root)), "");
        pid = deputy();
        ck_assert_int_gt(pid, 0);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_gt(take_list(fd).n_rescans, 0);
        make_file(at("%s/later", root));
        ck_assert_str_eq(next_path(fd), at("%s/later", root));
        ck_assert_int_eq(kill(deputy(), SIGKILL), 0);
        for (bool again = false; !again;) { /* it is told once */
                struct json_object *event = next_event(fd);

                ck_assert(!has_note(event, "listed"));
                again = has_note(event, "rescan");
                json_object_put(event);
        }
        expect_nothing(fd);
        (void)close(fd);
}
END_TEST

struct watched {
        pid_t pid;
        size_t n;
};

static bool is_watched(void *userdata) {
        const struct watched *w = userdata;

        return daemon_fdinfo_inotify_watches(w->pid) >= w->n;
}

static void wait_for_watches(size_t n) {
        struct watched w = { deputy(), n };

        ck_assert_msg(wait_until(is_watched, &w, HARNESS_REPLY_MSEC), "%zu watches instead of %zu",
                      daemon_fdinfo_inotify_watches(w.pid), n);
}

/* While nobody takes what a deputy tells, what can't be watched is kept no more than the rest, and told with that. */
START_TEST(test_degraded_while_behind) {
        enum { LEVELS = 100, EVENTS = 1500 }; /* as long as their paths are, more than is kept */
        int fd = connect_as(USER), in_root = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), noise, outside;
        char name[256] = "";
        size_t n;

        memset(name, 'n', 255);
        noise = make_deep(in_root, name, LEVELS);
        ck_assert_int_eq(linkat(noise, "file", noise, "other", 0), 0);
        make_dir(at("%s/outside", harness_tempdir()));
        outside = open(at("%s/outside", harness_tempdir()), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        (void)close(make_deep(outside, name, 140)); /* the last ones' paths are longer than is watched */
        ck_assert_str_eq(try_watch(fd, at("\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"listed\"]", root)), "");
        n = daemon_fdinfo_inotify_watches(deputy());
        ck_assert_uint_eq(n, 1 + LEVELS);
        ck_assert_int_eq(kill(kevd->pid, SIGSTOP), 0);
        for (int i = 0; i < EVENTS; i++)
                ck_assert_int_eq(fchmodat(noise, i % 2 ? "file" : "other", 0644, 0), 0);
        ck_assert_int_eq(renameat(outside, name, in_root, "in"), 0);
        wait_for_watches(n + 128);
        make_dir(at("%s/later", root)); /* when it is watched the answer before has come, too */
        wait_for_watches(n + 128 + 1);
        ck_assert_int_eq(kill(kevd->pid, SIGCONT), 0);
        ck_assert_msg(take_with(fd, "rescan", "degraded"), "what is told instead does not say that a part is not watched");
        (void)close(noise);
        (void)close(outside);
        (void)close(in_root);
        (void)close(fd);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("deputies");
        TCase *c = harness_case(suite, "rights");

        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, test_rights);
        tcase_add_test(c, test_closed_within);
        tcase_add_test(c, test_closed_later);
        tcase_add_test(c, test_opened_at_once);
        tcase_add_test(c, test_file_out_of_reach);
        c = harness_case(suite, "each");
        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_stopped);
        tcase_add_test(c, test_killed);
        tcase_add_test(c, test_stays_for_a_while);
        tcase_add_test(c, test_globs);
        tcase_add_test(c, test_long_list);
        tcase_add_test(c, test_killed_in_list);
        tcase_add_test(c, test_degraded_while_behind);
        return harness_main(argc, argv);
}
