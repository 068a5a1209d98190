/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a daemon can't be without ends: its broker, or the helper that keeps what a feed reads. It gives way to another
 * one, and the clients are told what may be missing; a private one has no other. The service manager is the test's own
 * (manager.h).
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
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
static pid_t find_broker(pid_t daemon) {
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
        lose(find_broker(manager_pid(manager)));
        make_dir(at("%s/d", root)); /* another file system's would not be served by the daemon that has lost it */
        await("create");
        make_file(at("%s/d/after", root));
        await("create");
}
END_TEST

/* ---- a private daemon: its environment is its client's --------------------------------------------------------- */

static struct {
        pid_t pid;
        int notify_fd; /* what the client's service manager hears */
} private;

static int bind_notify(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        assert_system(fd >= 0, "socket");
        format(address.sun_path, sizeof(address.sun_path), "%s", path);
        assert_system(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, path);
        return fd;
}

static void become_private(int fd) __attribute__((noreturn));
static void become_private(int fd) {
        int log = open(at("%s/kevd-private.log", harness_tempdir()), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

        if (log < 0 || dup2(fd, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 || dup2(log, STDERR_FILENO) < 0 ||
            prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                _exit(126);
        (void)execl(getenv("KEVD"), "kevd", "--mode=private", (char *)NULL);
        _exit(127);
}

static void setup_private(void) {
        int fds[2];

        private.notify_fd = bind_notify(at("%s/notify", harness_tempdir()));
        ck_assert_int_eq(setenv("NOTIFY_SOCKET", at("%s/notify", harness_tempdir()), 1), 0);
        ck_assert_int_eq(setenv("FDSTORE", "16", 1), 0);
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        private.pid = fork();
        assert_system(private.pid >= 0, "fork");
        if (private.pid == 0)
                become_private(fds[1]);
        (void)close(fds[1]);
        client = fds[0];
        ck_assert_ptr_null(watch(USER_WATCH));
}

static void expect_private_end(int expected) {
        struct pollfd end = { .fd = pidfd_open(private.pid, 0), .events = POLLIN };
        char text[4096];
        int status;

        assert_system(end.fd >= 0, "pidfd_open");
        ck_assert_int_eq(poll(&end, 1, HARNESS_REPLY_MSEC), 1);
        ck_assert_int_eq(waitpid(private.pid, &status, 0), private.pid);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == expected, "kevd ended with the status %x",
                      (unsigned)status);
        ck_assert_int_lt(recv(private.notify_fd, text, sizeof(text), 0), 0);
        ck_assert_int_eq(errno, EAGAIN);
        (void)close(end.fd);
        (void)close(private.notify_fd);
        (void)close(client);
}

static bool has_ended(void *pid) {
        char state = 0;
        FILE *file = fopen(at("/proc/%d/stat", (int)*(pid_t *)pid), "re");

        if (!file)
                return true;
        ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %c", &state), 1);
        (void)fclose(file);
        return state == 'Z';
}

/* There is nobody to whom it could leave its client: it goes on with less. */
START_TEST(test_private_broker) {
        pid_t broker = find_broker(private.pid);

        assert_system(kill(broker, SIGKILL) == 0, "kill");
        ck_assert(wait_until(has_ended, &broker, HARNESS_REPLY_MSEC));
        for (int i = 0; i < 3; i++) { /* each in a turn of its own */
                struct json_object *reply = client_call(client, "org.kevd.events.Trigger", "{\"name\":\"bell\"}");

                ck_assert_int_eq(number_at(reply, "/parameters/reached"), 1);
                json_object_put(reply);
        }
        (void)shutdown(client, SHUT_RDWR);
        expect_private_end(EXIT_SUCCESS);
}
END_TEST

/* Without the opener it would say nothing of what it misses. */
START_TEST(test_private_opener) {
        pid_t opener;

        if (watch(at("{\"id\":2,\"filter\":\"signal\",\"pid\":%d}", (int)getpid())))
                harness_skip("signals can't be followed here");
        opener = daemon_find_helper(private.pid, "kevd-opener");
        ck_assert_int_gt(opener, 0);
        assert_system(kill(opener, SIGKILL) == 0, "kill");
        expect_private_end(EXIT_FAILURE);
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
        c = harness_case(suite, "private");
        tcase_add_checked_fixture(c, setup_private, NULL);
        tcase_add_test(c, test_private_broker);
        tcase_add_test(c, test_private_opener);
        return harness_main(argc, argv);
}
