/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What is under way as one daemon follows another (manager.h): events that are kept back, queues at their bound,
 * others who write all the while, watches that are being made, limits and mounts that become others.
 */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "restarts.h"

#define NEVER "3600000" /* milliseconds: not while a test runs */

enum { QUEUE_BYTES = 64 * 1024 }; /* of a connection, a quarter of the user's */

static void prepare(const char *mechanism) {
        manager = manager_new((const char *const[]){ mechanism, at("--limit-queue-bytes=%d", 4 * QUEUE_BYTES),
                                                     at("--config=%s/kevd.conf", harness_tempdir()), NULL });
}

static void set_limits(const char *text) {
        put(at("%s/kevd.conf", harness_tempdir()), O_CREAT | O_TRUNC, text);
}

static void start(void) {
        set_limits("");
        manager_start(manager);
        client = client_connect(manager_socket(manager));
}

static void setup_inotify(void) {
        prepare("--file-mechanism=inotify");
        start();
}

static void setup_fanotify(void) {
        need_fanotify();
        prepare("--file-mechanism=fanotify");
        start();
}

/* ---- what a client does ------------------------------------------------------------------- */

static void watch_root(const char *root, const char *more) {
        client_change(client, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"%s}]}", root, more);
}

static bool event_has(struct json_object *event, const char *member, const char *word) {
        struct json_object *words = json_at(event, member);

        for (size_t i = 0; words && i < json_object_array_length(words); i++)
                if (strcmp(json_object_get_string(json_object_array_get_idx(words, i)), word) == 0)
                        return true;
        return false;
}

static void expect_event(struct json_object *event, const char *note, const char *path) {
        ck_assert_msg(event_has(event, "/notes", note) && strcmp(text_at(event, "/path"), path) == 0,
                      "%s of %s wanted, %s came", note, path, json_object_to_json_string(event));
        json_object_put(event);
}

static void expect_at(const char *note, const char *path) {
        expect_event(next_event(client), note, path);
}

static void expect_trigger(int64_t data, int64_t seq) {
        struct json_object *event = next_event(client);

        ck_assert_int_eq(number_at(event, "/data"), data);
        ck_assert_int_eq(number_at(event, "/seq"), seq);
        json_object_put(event);
}

/* ---- events that are kept back ---------------------------------------------------------------- */

/* Not before it was quiet for so long, counted from what was written before the restart. */
START_TEST(test_settling_goes_on) {
        const char *root = make_root("t");
        int64_t written;

        watch_root(root, ",\"notes\":[\"create\"],\"tree\":{\"settleMsec\":1500,\"maxLatencyMsec\":" NEVER "}");
        written = now_msec();
        make_file(at("%s/a", root));
        restart();
        expect_at("create", at("%s/a", root));
        ck_assert_int_ge(now_msec() - written, 1500);
        expect_silence();
}
END_TEST

/* Nor before the latency is up, and then all of it, in spite of what comes all the while. */
START_TEST(test_latency_goes_on) {
        const char *root = make_root("t");
        int64_t written;

        watch_root(root, ",\"notes\":[\"create\"],\"tree\":{\"settleMsec\":1000000,\"maxLatencyMsec\":2000}");
        written = now_msec();
        make_file(at("%s/a", root));
        restart();
        make_file(at("%s/b", root));
        restart();
        expect_at("create", at("%s/a", root));
        ck_assert_int_ge(now_msec() - written, 1990); /* it is to be there when they are up */
        expect_at("create", at("%s/b", root));
}
END_TEST

/* What would be kept back for long is let go as soon as the watch says so. */
START_TEST(test_settling_ends) {
        const char *root = make_root("t");

        watch_root(root, ",\"notes\":[\"create\"],\"tree\":{\"settleMsec\":" NEVER "}");
        make_file(at("%s/a", root));
        restart();
        make_file(at("%s/b", root));
        expect_silence();
        restart();
        expect_silence();
        client_change(client, "{\"modify\":[{\"id\":1,\"filter\":\"tree\",\"tree\":{}}]}");
        expect_at("create", at("%s/a", root));
        expect_at("create", at("%s/b", root));
        expect_silence();
}
END_TEST

/* Disabled by its event, before or after the restart. */
START_TEST(test_dispatch) {
        client_change(client, "{\"add\":[{\"id\":7,\"filter\":\"user\",\"name\":\"bell\",\"flags\":[\"dispatch\"]}]}");
        trigger("bell", 1);
        restart();
        expect_trigger(1, 1);
        trigger("bell", 2);
        restart();
        trigger("bell", 3);
        expect_silence();
        client_change(client, "{\"enable\":[7]}");
        expect_trigger(2, 2);
        expect_silence();
        restart();
        expect_silence();
        client_change(client, "{\"enable\":[7]}");
        expect_trigger(3, 3);
        expect_silence();
}
END_TEST

/* As long as it holds each Wait tells it, and none after that. */
START_TEST(test_level) {
        const char *call = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":"
                           "[{\"id\":1,\"filter\":\"read\",\"flags\":[\"level\"],\"descriptor\":0}]}}";
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        eventfd_t value;

        client_send_with_fds(client, call, strlen(call) + 1, &fd, 1);
        json_object_put(client_receive(client, HARNESS_REPLY_MSEC));
        ck_assert_int_eq(eventfd_write(fd, 5), 0);
        for (int i = 0; i < 3; i++) {
                for (int k = 0; k < 2; k++) {
                        struct json_object *event = next_event(client);

                        ck_assert_int_eq(number_at(event, "/data"), 5);
                        json_object_put(event);
                }
                restart();
        }
        ck_assert_int_eq(eventfd_read(fd, &value), 0);
        expect_silence();
        manager_stop(manager);
        ck_assert_int_eq(eventfd_write(fd, 7), 0);
        manager_start(manager);
        json_object_put(next_event(client));
        ck_assert_int_eq(eventfd_read(fd, &value), 0);
        restart();
        expect_silence();
        (void)close(fd);
}
END_TEST

/* ---- at the bounds ------------------------------------------------------------------------------ */

enum { BOUND_DIRS = 8, BOUND_FILES = 150 };

/* FIFOs: nothing but their making is told by the kernel, which may merge with that what becomes of a file. */
static void make_many(const char *root, int round) {
        for (int i = 0; i < BOUND_FILES; i++)
                for (int k = 0; k < BOUND_DIRS; k++) {
                        const char *path = at("%s/d%d/a-name-that-is-not-short-%d-%d", root, k, round, i);

                        assert_system(mkfifo(path, 0600) == 0, path);
                }
}

/* How many things the events stand for that are due. */
static int64_t count_all(int *ret_events, int *ret_rescans) {
        struct json_object *event;
        int64_t sum = 0, seq = 0;

        for (*ret_events = *ret_rescans = 0; (event = due_event(client)); ++*ret_events) {
                ck_assert_int_eq(number_at(event, "/seq"), ++seq);
                *ret_rescans += event_has(event, "/notes", "rescan");
                sum += json_at(event, "/count") ? number_at(event, "/count") : 1;
                json_object_put(event);
        }
        return sum;
}

/* More than the queue has room for, before and after: what was merged is counted, exactly. */
START_TEST(test_bound) {
        const char *root = make_root("t");
        int n_events, n_rescans;

        for (int k = 0; k < BOUND_DIRS; k++)
                make_dir(at("%s/d%d", root, k));
        watch_root(root, ",\"notes\":[\"create\"]");
        for (int round = 0; round < 3; round++) {
                make_many(root, round);
                restart();
        }
        ck_assert_int_eq(count_all(&n_events, &n_rescans), 3 * BOUND_FILES * BOUND_DIRS);
        ck_assert_int_gt(n_rescans, 0);
        ck_assert_int_lt(n_events, 3 * BOUND_FILES * BOUND_DIRS);
        expect_silence();
        make_file(at("%s/d0/last", root));
        expect_at("create", at("%s/d0/last", root));
}
END_TEST

/* Who has more than there is room for from now on ends; those before and behind go on, and may have what is left. */
START_TEST(test_limits_are_lowered) {
        int large = client_connect(manager_socket(manager)), last = client_connect(manager_socket(manager));
        int first = client;

        client_change(client, "{\"add\":[{\"id\":7,\"filter\":\"user\",\"name\":\"bell\"}]}");
        client = last;
        client_change(client, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"gong\"}]}");
        client = large;
        for (int i = 0; i < 5; i++)
                client_change(client, "{\"add\":[{\"id\":%d,\"filter\":\"user\",\"name\":\"n%d\"}]}", i, i);
        set_limits("limit-watches = 3\n");
        restart();
        client_expect_close(large, HARNESS_REPLY_MSEC);
        (void)close(large);
        client = last;
        trigger("gong", 1);
        expect_trigger(1, 1);
        (void)close(last);
        client = first;
        trigger("bell", 1);
        expect_trigger(1, 1);
        client_change(client, "{\"add\":[{\"id\":8,\"filter\":\"user\",\"name\":\"a\"}]}");
        restart();
        trigger("a", 2);
        expect_trigger(2, 2);
}
END_TEST

/* ---- under load ------------------------------------------------------------------------------------ */

enum { WRITERS = 2, LOAD_RESTARTS = 3, LOAD_DIRS = 4, NAMES_MAX = 100000 };

/* Until it is told to stop. So slowly that the kernel's queue takes what comes while nobody reads it. */
static void write_on(const char *root, int writer, const char *stop) {
        char path[512];

        for (int i = 0; i < NAMES_MAX; i++) {
                struct timespec pause = { .tv_nsec = 1000000 };
                int fd;

                if (access(stop, F_OK) == 0)
                        _exit(0);
                (void)snprintf(path, sizeof(path), "%s/d%d/%d-%d", root, i % LOAD_DIRS, writer, i);
                fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
                if (fd < 0)
                        _exit(1);
                (void)close(fd);
                (void)nanosleep(&pause, NULL);
        }
        _exit(2);
}

static int count_files(const char *root, int writer) {
        const char *prefix = at("%d-", writer);
        int n = 0;

        for (int i = 0; i < LOAD_DIRS; i++) {
                DIR *dir = opendir(at("%s/d%d", root, i));
                const struct dirent *entry;

                ck_assert_ptr_nonnull(dir);
                while ((entry = readdir(dir)))
                        n += strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
                (void)closedir(dir);
        }
        return n;
}

/* Each name once, in the order in which its writer has made them. On a busy machine fanotify may say rescan instead:
 * who may be told was not known in time. Then those are left out, at most, that are there when it is taken. */
struct told {
        int next[WRITERS];
        int seen[WRITERS]; /* so many were there at the last rescan */
        int64_t seq;
        bool may_rescan;
};

static void note_told(struct told *told, const char *root, struct json_object *event) {
        const char *path = text_at(event, "/path");
        int dir, writer, i;

        ck_assert_int_eq(number_at(event, "/seq"), ++told->seq);
        if (event_has(event, "/notes", "rescan")) {
                ck_assert_msg(told->may_rescan, "%s", json_object_to_json_string(event));
                for (writer = 0; writer < WRITERS; writer++)
                        told->seen[writer] = count_files(root, writer);
                return;
        }
        ck_assert_msg(event_has(event, "/notes", "create") && strncmp(path, root, strlen(root)) == 0 &&
                              sscanf(path + strlen(root), "/d%d/%d-%d", &dir, &writer, &i) == 3,
                      "%s", json_object_to_json_string(event));
        ck_assert_int_lt(writer, WRITERS);
        ck_assert_msg(dir == i % LOAD_DIRS && i >= told->next[writer] &&
                              i <= MAX(told->next[writer], told->seen[writer]),
                      "%s, not %d", path, told->next[writer]);
        told->next[writer] = i + 1;
}

static void take_told(struct told *told, const char *root) {
        size_t n;

        do {
                struct json_object *events = due_events(client);

                n = json_object_array_length(events);
                for (size_t i = 0; i < n; i++)
                        note_told(told, root, json_object_array_get_idx(events, i));
                json_object_put(events);
        } while (n > 0);
}

static void load(bool may_rescan) {
        const char *root = make_root("t");
        struct told told = { .may_rescan = may_rescan };
        pid_t writers[WRITERS];
        int sum = 0;

        for (int i = 0; i < LOAD_DIRS; i++)
                make_dir(at("%s/d%d", root, i));
        watch_root(root, ",\"notes\":[\"create\"]");
        for (int i = 0; i < WRITERS; i++) {
                writers[i] = fork_writer();
                if (writers[i] == 0)
                        write_on(root, i, at("%s.stop", root));
        }
        for (int i = 0; i < LOAD_RESTARTS; i++) {
                take_told(&told, root);
                restart();
                take_told(&told, root);
        }
        make_file(at("%s.stop", root));
        for (int i = 0; i < WRITERS; i++)
                reap(writers[i]);
        take_told(&told, root);
        for (int i = 0; i < WRITERS; i++) {
                ck_assert_int_eq(MAX(told.next[i], told.seen[i]), count_files(root, i));
                sum += told.next[i];
        }
        ck_assert_int_gt(sum, 0);
}

START_TEST(test_load) {
        load(false);
}
END_TEST

START_TEST(test_load_with_fanotify) {
        load(true);
}
END_TEST

/* ---- watches that are being made ----------------------------------------------------------------------- */

enum { WIDTH = 12, DEPTH = 3 }; /* 1,885 directories */

static size_t n_wanted;

static bool has_watches(void *userdata _unused_) {
        return daemon_fdinfo_inotify_watches(manager_pid(manager)) >= n_wanted;
}

/* The call is answered, and the tree whole, or the client sees the end; which of them is the daemon's to say. */
static void restart_while_attaching(const char *root, size_t n_watches) {
        const char *deepest = at("%s/d%d/d%d/d%d", root, WIDTH - 1, WIDTH - 1, WIDTH - 1);
        const char *name = at("%s/n%zu", deepest, n_watches);
        struct json_object *reply;

        client_send_message(client, at("{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                                       "\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]}]}}", root));
        n_wanted = n_watches;
        ck_assert(wait_until(has_watches, NULL, HARNESS_REPLY_MSEC));
        restart();
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        if (!reply) {
                client_expect_close(client, 0);
                (void)close(client);
                client = client_connect(manager_socket(manager));
                watch_root(root, ",\"notes\":[\"create\"]");
        }
        ck_assert_msg(!reply || !json_at(reply, "/parameters/refused/0"), "%s", json_object_to_json_string(reply));
        json_object_put(reply);
        make_file(name);
        expect_at("create", name);
        expect_silence();
        client_change(client, "{\"remove\":[1]}");
}

START_TEST(test_attaching) {
        const char *root = make_root("t");

        (void)make_tree(root, WIDTH, DEPTH);
        for (size_t n = 0; n <= 1600; n += 400)
                restart_while_attaching(root, n);
}
END_TEST

/* No watch of the kernel's says how far it is. */
START_TEST(test_attaching_with_fanotify) {
        const char *root = make_root("t");

        (void)make_tree(root, WIDTH, DEPTH);
        restart_while_attaching(root, 0);
}
END_TEST

/* ---- mounts ------------------------------------------------------------------------------------------------ */

static void mount_tmpfs(const char *path) {
        assert_system(mount("tmpfs", path, "tmpfs", 0, "mode=700") == 0, path);
}

/* What is due, or comes in time, about this path: until it has this note. */
static void expect_among(const char *note, const char *path) {
        struct json_object *event;
        bool is_it;

        do {
                event = next_event(client);
                is_it = event_has(event, "/notes", note) && strcmp(text_at(event, "/path"), path) == 0;
                json_object_put(event);
        } while (!is_it);
}

/* Within the tree, while there is no daemon: the next one finds that what is to be seen there is something else. */
START_TEST(test_mount_within) {
        const char *root = make_root("t"), *place = at("%s/d", root);

        make_dir(place);
        make_dir(at("%s/hidden", place));
        watch_root(root, "");
        manager_stop(manager);
        mount_tmpfs(place);
        manager_start(manager);
        expect_among("rescan", place);
        make_file(at("%s/file", place)); /* of the other file system, which is not entered */
        make_file(at("%s/beside", root));
        expect_at("create", at("%s/beside", root));
        manager_stop(manager);
        assert_system(umount2(place, 0) == 0, place);
        manager_start(manager);
        expect_among("rescan", place);
        make_file(at("%s/hidden/file", place));
        expect_among("create", at("%s/hidden/file", place));
}
END_TEST

/* What is watched is something else: it has gone and is back, or is made anew, as its file system is gone. */
static void expect_replaced(const char *root) {
        struct json_object *event = next_event(client);

        if (event_has(event, "/notes", "rescan")) {
                expect_event(event, "rescan", root);
                return;
        }
        expect_event(event, "gone", root);
        expect_at("back", root);
}

/* Over what is watched. */
START_TEST(test_mount_over) {
        const char *root = make_root("t");

        make_dir(at("%s/d", root));
        watch_root(root, ",\"notes\":[\"create\",\"gone\",\"back\"]");
        for (int i = 0; i < 2; i++) {
                manager_stop(manager);
                if (i == 0)
                        mount_tmpfs(root);
                else
                        assert_system(umount2(root, 0) == 0, root);
                manager_start(manager);
                expect_replaced(root);
                make_file(at("%s/file%d", root, i));
                expect_at("create", at("%s/file%d", root, i));
                expect_silence();
        }
        make_file(at("%s/d/file", root));
        expect_at("create", at("%s/d/file", root));
}
END_TEST

static void setup_mounts(void) {
        need_private_mounts();
        setup_inotify();
}

static void setup_mounts_fanotify(void) {
        need_fanotify();
        need_private_mounts();
        prepare("--file-mechanism=fanotify");
        start();
}

int main(int argc, char *argv[]) {
        Suite *s = harness_suite("restart-meanwhile");
        TCase *c;

        c = harness_case(s, "events");
        tcase_add_checked_fixture(c, setup_inotify, teardown);
        tcase_add_test(c, test_settling_goes_on);
        tcase_add_test(c, test_latency_goes_on);
        tcase_add_test(c, test_settling_ends);
        tcase_add_test(c, test_dispatch);
        tcase_add_test(c, test_level);
        tcase_add_test(c, test_limits_are_lowered);

        c = harness_case(s, "inotify");
        tcase_add_checked_fixture(c, setup_inotify, teardown);
        tcase_set_timeout(c, 120);
        tcase_add_test(c, test_bound);
        tcase_add_test(c, test_load);
        tcase_add_test(c, test_attaching);

        c = harness_case(s, "fanotify");
        tcase_add_checked_fixture(c, setup_fanotify, teardown);
        tcase_set_timeout(c, 120);
        tcase_add_test(c, test_bound);
        tcase_add_test(c, test_load_with_fanotify);
        tcase_add_test(c, test_attaching_with_fanotify);

        c = harness_case(s, "mounts");
        tcase_add_checked_fixture(c, setup_mounts, teardown);
        tcase_add_test(c, test_mount_within);
        tcase_add_test(c, test_mount_over);

        c = harness_case(s, "mounts-fanotify");
        tcase_add_checked_fixture(c, setup_mounts_fanotify, teardown);
        tcase_add_test(c, test_mount_within);
        tcase_add_test(c, test_mount_over);
        return harness_main(argc, argv);
}
