/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a daemon can't be without ends: its broker, or the helper that keeps what a feed reads. It gives way to another
 * one, and the clients are told what may be missing. The service manager is the test's own (manager.h).
 */

#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "restarts.h"

/* NULL: it is in force. */
static const char *watch(const char *text) {
        struct json_object *reply = client_call(client, "org.kevd.events.Change", at("{\"add\":[%s]}", text));
        bool refused = json_at(reply, "/parameters/refused/0");

        json_object_put(reply);
        return refused ? "it is refused" : NULL;
}

/* proc_tid_children(5): its only child. */
static pid_t find_broker(void) {
        pid_t daemon = manager_pid(manager);
        FILE *file = fopen(at("/proc/%d/task/%d/children", (int)daemon, (int)daemon), "re");
        int pid = 0;

        assert_system(file, "children");
        ck_assert_int_eq(fscanf(file, "%d", &pid), 1);
        (void)fclose(file);
        return pid;
}

static void lose(pid_t pid) {
        ck_assert_int_gt(pid, 0);
        assert_system(kill(pid, SIGKILL) == 0, "kill");
        manager_wait_failed(manager);
        manager_start(manager);
}

static pid_t find_opener(void) {
        return daemon_find_helper(manager_pid(manager), "kevd-opener");
}

/* Others may come before it. */
static void await(const char *note) {
        struct json_object *event;

        do {
                event = next_event(client);
                ck_assert_msg(event, "%s is not told", note);
        } while (!has_note(event, note) && json_object_put(event) == 1);
        json_object_put(event);
}

static void await_signal(int number) {
        struct json_object *event = next_event(client);

        ck_assert_int_eq(number_at(event, "/data"), number);
        json_object_put(event);
}

static void make_child(void) {
        pid_t pid = fork();

        if (pid == 0)
                _exit(0);
        assert_system(pid > 0, "fork");
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

static void setup_bpf(void) {
        begin((const char *const[]){ "--file-mechanism=inotify", "--process-feed=bpf", NULL });
        if (watch(at("{\"id\":1,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"fork\"]}", (int)getppid())))
                harness_skip("processes can't be followed by BPF here");
        json_object_put(client_call(client, "org.kevd.events.Change", "{\"remove\":[1]}"));
}

static bool has_no_opener(void *userdata _unused_) {
        return find_opener() == 0;
}

/* What has loaded the feed's program has ended, and the program stays. */
START_TEST(test_feed_of_processes) {
        ck_assert_ptr_null(watch(at("{\"id\":1,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"fork\"]}", (int)getpid())));
        ck_assert(wait_until(has_no_opener, NULL, HARNESS_REPLY_MSEC));
        make_child();
        await("fork");
}
END_TEST

START_TEST(test_feed_of_signals) {
        (void)signal(SIGWINCH, SIG_IGN);
        ck_assert_ptr_null(watch(at("{\"id\":1,\"filter\":\"signal\",\"pid\":%d}", (int)getpid())));
        (void)kill(getpid(), SIGWINCH);
        await_signal(SIGWINCH);
        lose(find_opener());
        await("lost");
        (void)kill(getpid(), SIGWINCH);
        await_signal(SIGWINCH);
}
END_TEST

static void setup_fanotify(void) {
        need_fanotify();
        begin((const char *const[]){ "--file-mechanism=fanotify", NULL });
}

START_TEST(test_broker) {
        const char *root = make_root("t");

        ck_assert_ptr_null(watch(at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]}", root)));
        make_file(at("%s/before", root));
        await("create");
        lose(find_broker());
        make_dir(at("%s/d", root)); /* another file system's would not be served by the daemon that has lost it */
        await("create");
        make_file(at("%s/d/after", root));
        await("create");
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("restart-helpers");
        TCase *c = harness_case(suite, "feeds");

        tcase_add_checked_fixture(c, setup_bpf, teardown);
        tcase_add_test(c, test_feed_of_processes);
        tcase_add_test(c, test_feed_of_signals);
        c = harness_case(suite, "broker");
        tcase_add_checked_fixture(c, setup_fanotify, teardown);
        tcase_add_test(c, test_broker);
        return harness_main(argc, argv);
}
