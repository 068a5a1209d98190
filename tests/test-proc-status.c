/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proc watches on the real daemon: how processes ended, by a code or by a signal, orphans too. A daemon that may not
 * know says nothing of it.
 */

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"
#include "processes.h"

enum { NOBODY = 65534 };

static int run_for_ever(int unused _unused_) {
        while (pause() < 0)
                ;
        return 0;
}

static int run_kill_itself(int number) {
        struct rlimit core = { RLIM_INFINITY, RLIM_INFINITY };

        wait_go();
        (void)setrlimit(RLIMIT_CORE, &core);
        (void)chdir(harness_tempdir());
        (void)signal(number, SIG_DFL);
        (void)raise(number);
        return 99;
}

/* ---- statuses ------------------------------------------------------------------------------------------ */

static const int exit_codes[] = { 0, 1, 2, 7, 42, 77, 126, 127, 128, 129, 137, 200, 254, 255 };

START_TEST(test_exit_code) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), status;
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit, exit_codes[_i]);

        watch_pid(fd, "", 1, pid);
        expect_nothing(fd);
        go(&maker, 1);
        /* A zombie, which nobody has reaped: the daemon may see how it ended. */
        expect_event(fd, 1, "exit", pid, exit_codes[_i] << 8);
        expect_nothing(fd);
        status = maker_reap(&maker, pid);
        ck_assert_int_eq(WEXITSTATUS(status), exit_codes[_i]);
        expect_event(fd, 1, "reap", pid, status);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static const int signals[] = {
        SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGKILL, SIGSEGV, SIGPIPE, SIGALRM, SIGTERM, SIGUSR1,
        SIGXCPU,
};

/* Whether a core is dumped is the machine's: the parent's wait(2) says what is right. */
START_TEST(test_signal) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), status;
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_kill_itself, signals[_i]);
        struct json_object *event;

        harness_label(strsignal(signals[_i]));
        watch_pid(fd, "", 1, pid);
        go(&maker, 1);
        event = next_event(fd);
        check_event(event, 1, "exit", pid);
        status = maker_reap(&maker, pid);
        ck_assert_int_eq(WTERMSIG(status), signals[_i]);
        check_status(event, status);
        json_object_put(event);
        expect_event(fd, 1, "reap", pid, status);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_killed) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_for_ever, 0);

        watch_pid(fd, "", 1, pid);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        expect_event(fd, 1, "exit", pid, SIGKILL);
        ck_assert_int_eq(maker_reap(&maker, pid), SIGKILL);
        expect_event(fd, 1, "reap", pid, SIGKILL);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Who asks for no more than the end has it as the last event. */
START_TEST(test_exit_alone) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit, 3);

        watch(fd, "", "'id':1,'pid':%d,'notes':['exit']", (int)pid);
        go(&maker, 1);
        ck_assert(expect(fd, 1, "exit", pid, 3 << 8));
        ck_assert_int_eq(maker_reap(&maker, pid), 3 << 8);
        expect_nothing(fd);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The parent's death: the process is reaped by whoever inherits it. */
START_TEST(test_orphan) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit, 33);

        watch_pid(fd, "", 1, pid);
        /* The end of its parent. */
        ck_assert_int_eq(kill(maker.pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(maker.pid, NULL, 0), maker.pid);
        go(&maker, 1);
        expect_event(fd, 1, "exit", pid, 33 << 8);
        (void)close(maker.fd);
        (void)close(maker.go_fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- a daemon without rights ------------------------------------------------------------------------------------ */

static int said_fds[2]; /* what the process has to say before it runs */

static int run_as_nobody(int group) {
        gid_t gid = (gid_t)group;

        /* Having changed its ids, it would be closed to everybody else. */
        if (setresgid(gid, gid, gid) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0 ||
            write(said_fds[1], "x", 1) != 1)
                return 1;
        wait_go();
        return 7;
}

/* A client that the daemon can look at: of the same user, all its ids. It stays until it was accepted. */
static void connect_as_nobody(int fd, const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        if (setresuid(0, 0, 0) < 0 || setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0 ||
            prctl(PR_SET_DUMPABLE, 1) < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                _exit(1);
        json_object_put(client_call(fd, "org.kevd.events.GetLimits", NULL));
        _exit(0);
}

/*
 * A process of the daemon's own user whose group is another (a setgid program, say) keeps its status
 * from it until it is reaped: then nothing may be said of it, least of all that it ended well.
 */
START_TEST(test_unprivileged) {
        struct daemon *daemon;
        struct json_object *event;
        struct maker maker;
        int fd, status;
        pid_t pid, client;
        char byte;

        if (geteuid() != 0)
                harness_skip("needs root, to be another user's");
        if (daemon_is_on_bpf())
                harness_skip("a daemon without privileges has no BPF");
        harness_label(_i == 0 ? "own group" : "another group");
        ck_assert_int_eq(pipe2(said_fds, O_CLOEXEC), 0);
        maker = maker_start(0);
        pid = maker_fork(&maker, run_as_nobody, _i == 0 ? NOBODY : NOBODY - 1);
        ck_assert_int_eq(read(said_fds[0], &byte, 1), 1);
        ck_assert_int_eq(chown(harness_tempdir(), NOBODY, NOBODY), 0);
        /* Executing the daemon makes the effective ids its saved ones. */
        ck_assert_int_eq(setresgid(NOBODY, NOBODY, 0), 0);
        ck_assert_int_eq(setresuid(NOBODY, NOBODY, 0), 0);
        if (access(getenv("KEVD"), X_OK) < 0)
                harness_skip("other users can't execute the daemon");
        daemon = daemon_start(NULL);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_ge(fd, 0);
        client = fork();
        assert_system(client >= 0, "fork");
        if (client == 0)
                connect_as_nobody(fd, daemon->socket);
        ck_assert_int_eq(setresuid(0, 0, 0), 0);
        ck_assert_int_eq(setresgid(0, 0, 0), 0);
        ck_assert_int_eq(waitpid(client, &status, 0), client);
        ck_assert_int_eq(status, 0);

        watch_pid(fd, "", 1, pid);
        go(&maker, 1);
        event = next_event(fd);
        check_event(event, 1, "exit", pid);
        if (json_at(event, "/data"))
                check_status(event, 7 << 8);
        json_object_put(event);
        ck_assert_int_eq(maker_reap(&maker, pid), 7 << 8);
        event = next_event(fd);
        check_event(event, 1, "reap", pid);
        if (json_at(event, "/data"))
                check_status(event, 7 << 8);
        json_object_put(event);
        maker_stop(&maker);
        (void)close(said_fds[0]);
        (void)close(said_fds[1]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static void watch_beside_one_that_needs_a_feed(int fd, pid_t pid) {
        struct json_object *reply;
        char text[256];

        (void)snprintf(text, sizeof(text), "{\"add\":[{\"id\":2,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"fork\"]},"
                                           "{\"id\":1,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"]}]}",
                       (int)pid, (int)pid);
        reply = client_call(fd, "org.kevd.events.Change", text);
        ck_assert_msg(json_at(reply, "/parameters/refused/0") && !json_at(reply, "/parameters/refused/1"), "%s",
                      json_object_to_json_string(reply));
        ck_assert_int_eq(number_at(reply, "/parameters/refused/0/id"), 2);
        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EOPNOTSUPP");
        json_object_put(reply);
}

/* BPF takes rights, and the process connector is heard in the first network namespace only (connector.c of Linux). */
static void have_no_feed(void) {
        static const int rights[] = { CAP_NET_ADMIN, CAP_BPF, CAP_PERFMON };

        assert_system(unshare(CLONE_NEWNET) == 0, "unshare");
        for (size_t i = 0; i < ARRAY_SIZE(rights); i++)
                assert_system(prctl(PR_CAPBSET_DROP, rights[i]) == 0, "PR_CAPBSET_DROP");
}

/* A helper finds out that there is no feed. Those that came meanwhile and need none are served. */
START_TEST(test_no_feed_after_all) {
        struct daemon *daemon;
        struct maker maker;
        pid_t pid;
        int fd;

        if (geteuid() != 0)
                harness_skip("needs root, to start a system daemon");
        if (getenv("KEVD_PROCESS_FEED"))
                harness_skip("only where the daemon chooses its feed by itself");
        maker = maker_start(0);
        pid = maker_fork(&maker, run_exit, 7);
        have_no_feed();
        daemon = daemon_start("--mode=system");
        fd = client_connect(daemon->socket);
        watch_beside_one_that_needs_a_feed(fd, pid);
        go(&maker, 1);
        expect_event(fd, 1, "exit", pid, 7 << 8);
        ck_assert_int_eq(maker_reap(&maker, pid), 7 << 8);
        expect_event(fd, 1, "reap", pid, 7 << 8);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("proc-status"), "status");

        tcase_add_loop_test(c, test_exit_code, 0, ARRAY_SIZE(exit_codes));
        tcase_add_loop_test(c, test_signal, 0, ARRAY_SIZE(signals));
        tcase_add_test(c, test_killed);
        tcase_add_test(c, test_exit_alone);
        tcase_add_test(c, test_orphan);
        tcase_add_loop_test(c, test_unprivileged, 0, 2);
        tcase_add_test(c, test_no_feed_after_all);
        return harness_main(argc, argv);
}
