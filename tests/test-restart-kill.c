/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A daemon that is killed (restarts.h): the next one goes on with its clients and their watches, and says to each that
 * something may be missing.
 */

#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "manager.h"
#include "restarts.h"

/* What the store has of them is whole once the daemon has answered something else. */
static void wait_kept(size_t n_clients) {
        int other = client_connect(manager_socket(manager));

        manager_wait_stored(manager, STORED_TABLE + n_clients * STORED_EACH);
        json_object_put(client_call(other, "org.kevd.events.GetLimits", NULL));
        (void)close(other);
}

static void kill_and_start(size_t n_clients) {
        wait_kept(n_clients);
        manager_kill(manager);
        manager_start(manager);
}

/* What was pending is gone: that is said, and numbers go on. */
START_TEST(test_kill) {
        watch_it(USER_WATCH);
        trigger("bell", 1);
        expect_data("trigger", 1, 1);
        trigger("bell", 2);
        kill_and_start(1);
        json_object_put(expect("lost"));
        trigger("bell", 3);
        expect_data("trigger", 3, 3);
        expect_silence();
        kill_and_start(1);
        json_object_put(expect("lost"));
        expect_silence();
}
END_TEST

START_TEST(test_kill_while_waiting) {
        struct json_object *reply;

        watch_it(USER_WATCH);
        send_call("Wait", "{}", "");
        kill_and_start(1);
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert(reply && has_note(json_at(reply, "/parameters/events/0"), "lost"));
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), 1);
        json_object_put(reply);
}
END_TEST

START_TEST(test_kill_of_a_stream) {
        struct json_object *reply;

        send_call("Monitor", "{\"watches\":[" USER_WATCH "]}", ",\"more\":true");
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert(json_at(reply, "/continues"));
        json_object_put(reply);
        for (int i = 1; i <= 2; i++) {
                kill_and_start(1);
                reply = client_receive(client, HARNESS_REPLY_MSEC);
                ck_assert(reply && has_note(json_at(reply, "/parameters/events/0"), "lost"));
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), i);
                ck_assert(json_at(reply, "/continues"));
                json_object_put(reply);
        }
}
END_TEST

/* In the middle of something nobody knows how far it got: the connection ends. */
START_TEST(test_kill_within_a_call) {
        watch_it(USER_WATCH);
        wait_kept(1);
        client_send(client, "{\"method\":", 10);
        trigger("bell", 1); /* by then it is read */
        manager_kill(manager);
        manager_start(manager);
        client_expect_close(client, HARNESS_REPLY_MSEC);
        (void)close(client);
        client = client_connect(manager_socket(manager));
}
END_TEST

/* Who watches nothing has missed nothing, and connects again. */
START_TEST(test_kill_without_watches) {
        json_object_put(client_call(client, "org.kevd.events.GetLimits", NULL));
        manager_kill(manager);
        expect_clean_start();
}
END_TEST

/* Every filter says that something may be missing, and goes on. */
START_TEST(test_kill_of_all_filters) {
        const char *root = make_root("t");
        struct json_object *event;
        pid_t pid = start_process(), gone = start_process();
        int fd = eventfd(0, EFD_CLOEXEC);
        /* Of a process that goes on only its end was wanted. */
        const unsigned all = 1u << 1 | 1u << 2 | 1u << 4 | 1u << 5 | 1u << 6 | 1u << 7 | 1u << 8;
        unsigned told = 0;

        make_file(at("%s/file", root));
        watch_it(at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]},"
                    "{\"id\":2,\"filter\":\"vnode\",\"path\":\"%s/file\"},"
                    "{\"id\":3,\"filter\":\"proc\",\"pid\":%d},"
                    "{\"id\":4,\"filter\":\"proc\",\"pid\":%d},"
                    "{\"id\":5,\"filter\":\"netdev\"},"
                    "{\"id\":6,\"filter\":\"timer\",\"data\":100000},"
                    "{\"id\":7,\"filter\":\"user\",\"name\":\"bell\"}", root, root, (int)pid, (int)gone));
        watch_fd("{\"id\":8,\"filter\":\"read\",\"descriptor\":0}", fd);
        wait_kept(1);
        manager_kill(manager);
        end_process(gone);
        make_file(at("%s/new", root));
        manager_start(manager);
        while (told != all) {
                int64_t id;

                event = next_event(client);
                id = number_at(event, "/id");
                ck_assert_msg(!(told & 1u << id), "%s", json_object_to_json_string(event));
                told |= 1u << id;
                if (id == 1 || id == 2 || id == 5)
                        ck_assert_msg(has_note(event, "rescan"), "%s", json_object_to_json_string(event));
                else if (id == 6 || id == 7)
                        ck_assert_msg(has_note(event, "lost"), "%s", json_object_to_json_string(event));
                else
                        ck_assert_msg(strcmp(text_at(event, "/flags/0"), "eof") == 0, "%s", json_object_to_json_string(event));
                ck_assert_int_eq(id == 4, has_note(event, "exit"));
                json_object_put(event);
        }
        end_process(pid);
        json_object_put(expect("exit"));
        make_file(at("%s/newer", root));
        expect_path("create", at("%s/newer", root));
        (void)close(fd);
}
END_TEST

/* More than its end was wanted of a process that has ended meanwhile: of that something may be missing. */
START_TEST(test_kill_of_more_than_an_end) {
        pid_t pid = start_process();
        struct json_object *event, *reply = client_call(client, "org.kevd.events.Change",
                                                        at("{\"add\":[{\"id\":1,\"filter\":\"proc\",\"pid\":%d,"
                                                           "\"notes\":[\"exec\",\"exit\"]}]}", (int)pid));
        bool refused = json_at(reply, "/parameters/refused/0");

        json_object_put(reply);
        if (!refused) {
                wait_kept(1);
                manager_kill(manager);
        }
        end_process(pid);
        if (refused)
                harness_skip("there is no feed of processes here");
        manager_start(manager);
        event = expect("exit");
        ck_assert_msg(has_note(event, "lost") && has_flag(event, "eof"), "%s", json_object_to_json_string(event));
        json_object_put(event);
}
END_TEST

/* Whoever waits for the end of a list waits no longer. */
START_TEST(test_kill_of_list) {
        const char *root = make_root("t"), *spec = "\"notes\":[\"create\",\"listed\"],\"tree\":{\"list\":true}";
        struct json_object *event;

        watch_it(at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",%s}", root, spec));
        expect_path("listed", root);
        for (int i = 0; i < 2; i++) {
                kill_and_start(1);
                event = expect("rescan");
                ck_assert(has_note(event, "listed"));
                json_object_put(event);
                client_change(client, "{\"modify\":[{\"id\":1,\"filter\":\"tree\",%s}]}", spec);
                client_change(client, "{\"modify\":[{\"id\":1,\"filter\":\"tree\",\"tree\":{}}]}");
                expect_silence();
        }
}
END_TEST

START_TEST(test_kill_of_many) {
        int clients[MANY];

        connect_many(clients);
        kill_and_start(MANY);
        for (int i = 0; i < MANY; i++) {
                client = clients[i];
                json_object_put(expect("lost"));
                if (i > 0)
                        (void)close(client);
        }
        client = clients[0];
        manager_wait_stored(manager, STORED_TABLE + STORED_EACH); /* the others went */
}
END_TEST

/* What is in the store for a crash does not keep it from taking the rest. */
START_TEST(test_restart_of_many) {
        int clients[MANY];

        connect_many(clients);
        wait_kept(MANY);
        manager_stop(manager);
        ck_assert(!manager_has_stored(manager, "kevd-live"));
        for (int i = 0; i < MANY; i++)
                ck_assert_msg(!manager_has_stored(manager, at("c%x", (unsigned)i)), "connection %d", i);
        manager_start(manager);
        expect_of_many(clients);
}
END_TEST

/* Until what is written down of the first client is another size. */
static void wait_written_down(off_t size) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;
        int fd = manager_take_copy(manager, "w0");
        struct stat st;

        do {
                ck_assert_msg(now_msec() < deadline, "it is not written down");
                (void)poll(NULL, 0, 10);
                ck_assert_int_eq(fstat(fd, &st), 0);
        } while (st.st_size == size);
        (void)close(fd);
}

static off_t written_down(void) {
        int fd = manager_take_copy(manager, "w0");
        struct stat st;

        ck_assert_int_eq(fstat(fd, &st), 0);
        (void)close(fd);
        return st.st_size;
}

/* A process that has ended, and another one that has its number since: that one nobody watches. */
START_TEST(test_kill_and_another_process) {
        pid_t pid = start_process(), other;
        struct clone_args args = { .exit_signal = SIGCHLD, .set_tid = (uintptr_t)&pid, .set_tid_size = 1 };
        struct json_object *event;
        off_t size;

        watch_it(at("{\"id\":1,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"]}", (int)pid));
        wait_kept(1);
        size = written_down();
        end_process(pid);
        json_object_put(expect("exit"));
        json_object_put(expect("reap"));
        other = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
        if (other == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        (void)pause();
        }
        if (other < 0)
                harness_skip("a process's number can't be chosen here, or somebody else has it");
        watch_it(USER_WATCH);
        wait_written_down(size);
        kill_and_start(1);
        while ((event = due_event(client))) /* the ended one may be told again */
                json_object_put(event);
        end_process(other);
        expect_silence();
}
END_TEST

static void expect_end_of(int64_t id) {
        struct json_object *event = next_event(client);

        ck_assert_msg(number_at(event, "/id") == id && strcmp(text_at(event, "/flags/0"), "eof") == 0, "%s",
                      json_object_to_json_string(event));
        json_object_put(event);
}

static bool is_written_down(const char *source) {
        int fd = manager_take_copy(manager, "w0");
        char bytes[4096];
        ssize_t n = pread(fd, bytes, sizeof(bytes), 0);

        ck_assert_int_gt(n, 0);
        (void)close(fd);
        return memmem(bytes, (size_t)n, source, strlen(source) + 1);
}

static bool are_over(void *userdata _unused_) {
        return !is_written_down("inotify") && !is_written_down("timer");
}

/* What has told its end tells nothing more, though there is something under its name again; but a timer that is added
 * again starts again. */
START_TEST(test_kill_after_ends) {
        const char *moment = "{\"id\":3,\"filter\":\"timer\",\"notes\":[\"abstime\",\"sec\"],\"data\":1}";
        const char *root = make_root("t");

        harness_label(_i == 0 ? "at once" : "after a restart");
        make_dir(at("%s/d", root));
        make_file(at("%s/file", root));
        watch_it(at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s/d\",\"notes\":[\"create\"]},"
                    "{\"id\":2,\"filter\":\"vnode\",\"path\":\"%s/file\",\"notes\":[\"delete\"]}", root, root));
        watch_it(USER_WATCH);
        watch_it(moment);
        expect_end_of(3);
        remove_dir(at("%s/d", root));
        expect_end_of(1);
        remove_file(at("%s/file", root));
        expect_end_of(2);
        if (_i == 1)
                restart();
        wait_kept(1);
        ck_assert(wait_until(are_over, NULL, HARNESS_REPLY_MSEC));
        make_dir(at("%s/d", root));
        make_file(at("%s/file", root));
        kill_and_start(1);
        json_object_put(expect("lost")); /* the other watch */
        expect_silence();
        watch_it(moment);
        expect_end_of(3);
        expect_silence();
}
END_TEST

static int64_t connections_seen_by(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        int64_t n = number_at(reply, "/parameters/connections");

        json_object_put(reply);
        return n;
}

static bool is_alone(void *fd) {
        return connections_seen_by(*(const int *)fd) == 1;
}

/* Two under each name of the store, of which only one is of who was served last, in whatever order they come: nobody
 * is given what was another's. */
START_TEST(test_kill_with_leftovers) {
        harness_label(_i == 0 ? "newest first" : "oldest first");
        watch_it(USER_WATCH);
        wait_kept(1);
        manager_ignore_removals(manager);
        (void)close(client);
        client = client_connect(manager_socket(manager));
        ck_assert(wait_until(is_alone, &client, HARNESS_REPLY_MSEC));
        watch_it("{\"id\":8,\"filter\":\"user\",\"name\":\"other\"}");
        wait_kept(2);
        manager_kill(manager);
        if (_i == 1)
                manager_reload(manager);
        manager_start(manager);
        for (int i = 0; i < 2; i++) {
                struct json_object *event = next_event(client);

                ck_assert(has_note(event, i == 0 ? "lost" : "trigger"));
                ck_assert_int_eq(number_at(event, "/id"), 8);
                json_object_put(event);
                if (i == 0)
                        trigger("other", 1);
        }
        ck_assert_int_eq(connections_seen_by(client), 1);
}
END_TEST

/* What was written down speaks of somebody else. */
START_TEST(test_kill_and_another_peer) {
        uint64_t uid = getuid() + 1;
        int fd;

        watch_it(USER_WATCH);
        wait_kept(1);
        fd = manager_take_copy(manager, "w0");
        ck_assert_int_eq(pwrite(fd, &uid, sizeof(uid), 0), sizeof(uid)); /* what comes first (save_asker()) */
        (void)close(fd);
        manager_kill(manager);
        expect_clean_start();
}
END_TEST

/* The daemon can have so many more. Returns the first of these. */
static int leave_descriptors(int n) {
        pid_t pid = manager_pid(manager);
        struct rlimit limit;
        int first = 0;

        while (access(at("/proc/%d/fd/%d", (int)pid, first), F_OK) == 0)
                first++;
        ck_assert_int_eq(prlimit(pid, RLIMIT_NOFILE, NULL, &limit), 0);
        limit.rlim_cur = (rlim_t)(first + n);
        ck_assert_int_eq(prlimit(pid, RLIMIT_NOFILE, &limit, NULL), 0);
        return first;
}

static void leave_all_descriptors(void) {
        struct rlimit limit;

        ck_assert_int_eq(prlimit(manager_pid(manager), RLIMIT_NOFILE, NULL, &limit), 0);
        limit.rlim_cur = limit.rlim_max;
        ck_assert_int_eq(prlimit(manager_pid(manager), RLIMIT_NOFILE, &limit, NULL), 0);
}

/* A connection ends while the daemon can't say so to the service manager: that is said later. */
START_TEST(test_end_without_descriptors) {
        int other = client_connect(manager_socket(manager));

        watch_it(USER_WATCH);
        wait_kept(1);
        ck_assert_int_eq(connections_seen_by(other), 2);
        (void)leave_descriptors(0);
        (void)close(client);
        ck_assert(wait_until(is_alone, &other, HARNESS_REPLY_MSEC));
        leave_all_descriptors();
        manager_wait_stored(manager, STORED_TABLE);
        client = other;
}
END_TEST

static bool has_sketch(void *fd) {
        char target[64] = "";

        return readlink(at("/proc/%d/fd/%d", (int)manager_pid(manager), *(const int *)fd), target, sizeof(target) - 1) > 0 &&
               strstr(target, "kevd-sketch");
}

/* There is one left for what is to be kept, and none for saying so: it is kept later. */
START_TEST(test_keep_without_descriptors) {
        int first = leave_descriptors(1);

        watch_it(USER_WATCH);
        ck_assert(wait_until(has_sketch, &first, HARNESS_REPLY_MSEC));
        json_object_put(client_call(client, "org.kevd.events.GetLimits", NULL)); /* by then it was tried */
        leave_all_descriptors();
        kill_and_start(1);
        json_object_put(expect("lost"));
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("restart-kill"), "kill");

        tcase_add_checked_fixture(c, setup, teardown);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_kill);
        tcase_add_test(c, test_kill_while_waiting);
        tcase_add_test(c, test_kill_of_a_stream);
        tcase_add_test(c, test_kill_within_a_call);
        tcase_add_test(c, test_kill_without_watches);
        tcase_add_test(c, test_kill_of_all_filters);
        tcase_add_test(c, test_kill_of_more_than_an_end);
        tcase_add_test(c, test_kill_of_list);
        tcase_add_test(c, test_kill_of_many);
        tcase_add_test(c, test_restart_of_many);
        tcase_add_test(c, test_kill_and_another_process);
        tcase_add_loop_test(c, test_kill_after_ends, 0, 2);
        tcase_add_loop_test(c, test_kill_with_leftovers, 0, 2);
        tcase_add_test(c, test_kill_and_another_peer);
        tcase_add_test(c, test_end_without_descriptors);
        tcase_add_test(c, test_keep_without_descriptors);
        return harness_main(argc, argv);
}
