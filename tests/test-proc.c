/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proc watches against the real daemon: how processes ended that are children neither of the daemon
 * nor of the client, but of a process in between that reaps them when it is told to.
 */

#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"

enum { NOBODY = 65534 };

/* ---- the protocol -------------------------------------------------------------------------------- */

/* The errno of the only watch, or "" if it was made. */
static void expect_change(struct json_object *reply, const char *error) {
        ck_assert_msg(json_at(reply, "/parameters/refused") &&
                              strcmp(text_at(reply, "/parameters/refused/0/errno"), error) == 0,
                      "%s instead of \"%s\"", json_object_to_json_string(reply), error);
        json_object_put(reply);
}

static void watch_pid(int fd, int64_t id, pid_t pid, const char *error) {
        char parameters[256];

        (void)snprintf(parameters, sizeof(parameters),
                       "{\"add\":[{\"id\":%lld,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"]}]}", (long long)id,
                       (int)pid);
        expect_change(client_call(fd, "org.kevd.events.Change", parameters), error);
}

static void watch_pidfd(int fd, int64_t id, int pidfd, const char *error) {
        struct json_object *reply;
        char call[256];

        (void)snprintf(call, sizeof(call),
                       "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":%lld,\"filter\":\"proc\","
                       "\"descriptor\":0,\"notes\":[\"exit\",\"reap\"]}]}}", (long long)id);
        client_send_with_fds(fd, call, strlen(call) + 1, &pidfd, 1);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_ptr_nonnull(reply);
        expect_change(reply, error);
}

static void expect_no_event(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}");

        ck_assert_msg(!json_at(reply, "/parameters/events/0"), "%s", json_object_to_json_string(reply));
        json_object_put(reply);
}

/* Whether the event says so of the status, as of wait(2). */
static void check_status(struct json_object *event, int status) {
        ck_assert_msg(json_at(event, "/data"), "no status in %s", json_object_to_json_string(event));
        ck_assert_int_eq(number_at(event, "/data"), status);
        if (WIFEXITED(status)) {
                ck_assert_int_eq(number_at(event, "/process/exitCode"), WEXITSTATUS(status));
                ck_assert_ptr_null(json_at(event, "/process/signal"));
                ck_assert_ptr_null(json_at(event, "/process/coreDumped"));
        } else {
                ck_assert_int_eq(number_at(event, "/process/signal"), WTERMSIG(status));
                ck_assert_int_eq(json_object_get_boolean(json_at(event, "/process/coreDumped")), !!WCOREDUMP(status));
                ck_assert_ptr_null(json_at(event, "/process/exitCode"));
        }
}

/* An event of that note alone, about that process. */
static void check_event(struct json_object *event, int64_t id, const char *note, pid_t pid) {
        ck_assert_int_eq(number_at(event, "/id"), id);
        ck_assert_msg(strcmp(text_at(event, "/notes/0"), note) == 0 &&
                              json_object_array_length(json_at(event, "/notes")) == 1,
                      "%s instead of %s", json_object_to_json_string(event), note);
        ck_assert_int_eq(number_at(event, "/process/pid"), pid);
        ck_assert_int_eq(number_at(event, "/count"), 1);
}

static void expect_event(int fd, int64_t id, const char *note, pid_t pid, int status) {
        struct json_object *event = next_event(fd);

        check_event(event, id, note, pid);
        check_status(event, status);
        json_object_put(event);
}

/* ---- processes of somebody else -------------------------------------------------------------------- */

/* A process in between. It makes children as it is told, says their pids, and reaps them when told. */
struct nurse {
        pid_t pid;
        int fd;
};

struct order {
        enum { FORK, REAP } what;
        int n;             /* how many; FORK answers for each, REAP at last */
        pid_t pid;         /* REAP: which, or -1 */
        void (*run)(void); /* FORK: in the child */
};

struct answer {
        pid_t pid;
        int status; /* REAP: of wait(2) */
};

/* Children run when they get a byte from here. */
static int go_fds[2];

static void wait_go(void) {
        char byte;

        (void)!read(go_fds[0], &byte, 1);
}

static void go(size_t n) {
        while (n-- > 0)
                ck_assert_int_eq(write(go_fds[1], "g", 1), 1);
}

static void nurse_run(int fd) __attribute__((noreturn));
static void nurse_run(int fd) {
        struct order order;

        while (recv(fd, &order, sizeof(order), 0) == sizeof(order)) {
                struct answer answer = { 0 };

                for (int i = 1; i <= order.n; i++) {
                        answer.pid = order.what == FORK ? fork() : waitpid(order.pid, &answer.status, 0);
                        if (answer.pid == 0) {
                                (void)close(fd);
                                order.run();
                                _exit(0);
                        }
                        if (answer.pid < 0)
                                _exit(1);
                        if ((order.what == FORK || i == order.n) && send(fd, &answer, sizeof(answer), 0) != sizeof(answer))
                                _exit(1);
                }
        }
        _exit(0);
}

static struct nurse nurse_start(void) {
        struct nurse nurse;
        int ends[2];

        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends), 0);
        ck_assert_int_eq(pipe2(go_fds, O_CLOEXEC), 0);
        nurse = (struct nurse){ .pid = fork(), .fd = ends[0] };
        assert_system(nurse.pid >= 0, "fork");
        if (nurse.pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void)close(ends[0]);
                nurse_run(ends[1]);
        }
        (void)close(ends[1]);
        return nurse;
}

static struct answer nurse_next(struct nurse *nurse) {
        struct answer answer;

        ck_assert_int_eq(recv(nurse->fd, &answer, sizeof(answer), 0), sizeof(answer));
        ck_assert_int_gt(answer.pid, 0);
        return answer;
}

static void nurse_order(struct nurse *nurse, struct order order) {
        ck_assert_int_eq(send(nurse->fd, &order, sizeof(order), MSG_NOSIGNAL), sizeof(order));
}

static pid_t nurse_fork(struct nurse *nurse, void (*run)(void)) {
        nurse_order(nurse, (struct order){ .what = FORK, .n = 1, .run = run });
        return nurse_next(nurse).pid;
}

static int nurse_reap(struct nurse *nurse, pid_t pid) {
        nurse_order(nurse, (struct order){ .what = REAP, .n = 1, .pid = pid });
        return nurse_next(nurse).status;
}

static void nurse_stop(struct nurse *nurse) {
        int status;

        (void)close(nurse->fd);
        ck_assert_int_eq(waitpid(nurse->pid, &status, 0), nurse->pid);
        ck_assert_int_eq(status, 0);
        (void)close(go_fds[0]);
        (void)close(go_fds[1]);
}

/* Until the process is a zombie. */
static void wait_zombie(pid_t pid) {
        int pidfd = pidfd_open(pid, 0);
        struct pollfd p = { .fd = pidfd, .events = POLLIN };

        assert_system(pidfd >= 0, "pidfd_open");
        ck_assert_int_eq(poll(&p, 1, HARNESS_REPLY_MSEC), 1);
        (void)close(pidfd);
}

static void run_for_ever(void) {
        for (;;)
                (void)pause();
}

static int run_code; /* what run_exit() ends with: known to the nurse when it is started */

static void run_exit(void) {
        wait_go();
        _exit(run_code);
}

static void run_exit_at_once(void) {
        _exit(run_code);
}

static void run_kill_itself(void) {
        struct rlimit core = { RLIM_INFINITY, RLIM_INFINITY };

        wait_go();
        (void)setrlimit(RLIMIT_CORE, &core);
        (void)chdir(harness_tempdir());
        (void)signal(run_code, SIG_DFL);
        (void)raise(run_code);
        _exit(99);
}

/* ---- statuses ------------------------------------------------------------------------------------------ */

static const int exit_codes[] = { 0, 1, 2, 7, 42, 77, 126, 127, 128, 129, 137, 200, 254, 255 };

START_TEST(test_exit_code) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), status;
        struct nurse nurse;
        pid_t pid;

        run_code = exit_codes[_i];
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit);
        watch_pid(fd, 1, pid, "");
        expect_no_event(fd);
        go(1);
        /* A zombie, which nobody has reaped: the daemon may see how it ended. */
        expect_event(fd, 1, "exit", pid, run_code << 8);
        expect_no_event(fd);
        status = nurse_reap(&nurse, pid);
        ck_assert_int_eq(WEXITSTATUS(status), run_code);
        expect_event(fd, 1, "reap", pid, status);
        nurse_stop(&nurse);
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
        struct json_object *event;
        struct nurse nurse;
        pid_t pid;

        harness_label(strsignal(signals[_i]));
        run_code = signals[_i];
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_kill_itself);
        watch_pid(fd, 1, pid, "");
        go(1);
        event = next_event(fd);
        check_event(event, 1, "exit", pid);
        status = nurse_reap(&nurse, pid);
        ck_assert_int_eq(WTERMSIG(status), signals[_i]);
        check_status(event, status);
        json_object_put(event);
        expect_event(fd, 1, "reap", pid, status);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_killed) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct nurse nurse = nurse_start();
        pid_t pid = nurse_fork(&nurse, run_for_ever);

        watch_pid(fd, 1, pid, "");
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        expect_event(fd, 1, "exit", pid, SIGKILL);
        ck_assert_int_eq(nurse_reap(&nurse, pid), SIGKILL);
        expect_event(fd, 1, "reap", pid, SIGKILL);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The parent's death: the process is reaped by whoever inherits it. */
START_TEST(test_orphan) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct nurse nurse;
        pid_t pid;

        run_code = 33;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit);
        watch_pid(fd, 1, pid, "");
        /* The end of its parent. */
        (void)close(nurse.fd);
        ck_assert_int_eq(waitpid(nurse.pid, NULL, 0), nurse.pid);
        go(1);
        expect_event(fd, 1, "exit", pid, 33 << 8);
        (void)close(go_fds[0]);
        (void)close(go_fds[1]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- who has ended ---------------------------------------------------------------------------------------- */

START_TEST(test_zombie) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), second = client_connect(daemon->socket);
        struct nurse nurse;
        pid_t pid;

        run_code = 5;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit_at_once);
        wait_zombie(pid);
        watch_pid(fd, 1, pid, "");
        expect_event(fd, 1, "exit", pid, 5 << 8);
        /* The daemon knows it already. */
        watch_pid(second, 2, pid, "");
        expect_event(second, 2, "exit", pid, 5 << 8);
        expect_no_event(second);
        expect_no_event(fd);
        (void)nurse_reap(&nurse, pid);
        expect_event(fd, 1, "reap", pid, 5 << 8);
        expect_event(second, 2, "reap", pid, 5 << 8);
        expect_no_event(fd);
        nurse_stop(&nurse);
        (void)close(fd);
        (void)close(second);
        daemon_stop(daemon);
}
END_TEST

/* "At once": in the very next answer. */
START_TEST(test_zombie_at_once) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct nurse nurse;

        run_code = 5;
        nurse = nurse_start();
        for (int i = 0; i < 200; i++) {
                pid_t pid = nurse_fork(&nurse, run_exit_at_once);
                struct json_object *reply, *event;

                wait_zombie(pid);
                watch_pid(fd, i, pid, "");
                reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}");
                event = json_at(reply, "/parameters/events/0");
                ck_assert_msg(event, "round %d", i);
                check_event(event, i, "exit", pid);
                check_status(event, 5 << 8);
                json_object_put(reply);
                (void)nurse_reap(&nurse, pid);
                expect_event(fd, i, "reap", pid, 5 << 8);
        }
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_gone) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct nurse nurse = nurse_start();
        pid_t pid = nurse_fork(&nurse, run_exit_at_once);

        (void)nurse_reap(&nurse, pid);
        /* A feed of all processes knows that it has just ended, if it was there by then. */
        if (!daemon_is_on_feed())
                watch_pid(fd, 1, pid, "ESRCH");
        watch_pid(fd, 2, INT_MAX, "ESRCH");
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static void *thread_tid(void *userdata) {
        int *fds = userdata;
        pid_t tid = (pid_t)syscall(SYS_gettid);
        char byte;

        (void)!write(fds[1], &tid, sizeof(tid));
        (void)!read(fds[2], &byte, 1);
        return NULL;
}

/* The number of a thread is no process's. */
START_TEST(test_thread) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), fds[4];
        pthread_t thread;
        pid_t tid;

        ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
        ck_assert_int_eq(pipe2(fds + 2, O_CLOEXEC), 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, thread_tid, fds), 0);
        ck_assert_int_eq(read(fds[0], &tid, sizeof(tid)), sizeof(tid));
        watch_pid(fd, 1, tid, "ESRCH");
        watch_pid(fd, 1, getpid(), "");
        ck_assert_int_eq(write(fds[3], "x", 1), 1);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                (void)close(fds[i]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static void *thread_leave(void *userdata) {
        (void)userdata;
        wait_go();
        _exit(17);
        return NULL;
}

/* Its leader ends first: the process lives on in another thread, whose status is its own. */
static void run_without_leader(void) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, thread_leave, NULL) != 0)
                _exit(1);
        (void)syscall(SYS_exit, 3); /* this thread alone */
}

static bool leader_has_ended(void *userdata) {
        char path[64], line[512];
        const char *p;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", *(pid_t *)userdata);
        file = fopen(path, "re");
        ck_assert_ptr_nonnull(file);
        p = fgets(line, sizeof(line), file) ? strrchr(line, ')') : NULL;
        (void)fclose(file);
        return p && p[2] == 'Z';
}

START_TEST(test_dead_leader) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), status;
        struct nurse nurse = nurse_start();
        pid_t pid = nurse_fork(&nurse, run_without_leader);

        ck_assert(wait_until(leader_has_ended, &pid, HARNESS_REPLY_MSEC));
        watch_pid(fd, 1, pid, "");
        expect_no_event(fd);
        go(1);
        expect_event(fd, 1, "exit", pid, 17 << 8);
        status = nurse_reap(&nurse, pid);
        ck_assert_int_eq(status, 17 << 8);
        expect_event(fd, 1, "reap", pid, status);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- pidfds passed --------------------------------------------------------------------------------------------- */

START_TEST(test_pidfd) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), pidfd;
        struct nurse nurse;
        pid_t pid;

        run_code = 9;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit);
        pidfd = pidfd_open(pid, 0);
        ck_assert_int_ge(pidfd, 0);
        watch_pidfd(fd, 1, pidfd, "");
        expect_no_event(fd);
        go(1);
        expect_event(fd, 1, "exit", pid, 9 << 8);
        (void)nurse_reap(&nurse, pid);
        expect_event(fd, 1, "reap", pid, 9 << 8);
        (void)close(pidfd);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The client keeps its copy: what the daemon let go of is not heard of again, and can be watched again. */
START_TEST(test_pidfd_let_go) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket), pidfd;
        struct nurse nurse;
        pid_t pid;

        run_code = 9;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit);
        pidfd = pidfd_open(pid, 0);
        ck_assert_int_ge(pidfd, 0);
        for (int i = 0; i < 3; i++) {
                watch_pidfd(fd, 1, pidfd, "");
                json_object_put(client_call(fd, "org.kevd.events.Change", "{\"remove\":[1]}"));
        }
        watch_pidfd(other, 2, pidfd, "");
        go(1);
        expect_event(other, 2, "exit", pid, 9 << 8);
        expect_no_event(fd);
        (void)nurse_reap(&nurse, pid);
        expect_event(other, 2, "reap", pid, 9 << 8);
        expect_no_event(fd);
        (void)close(pidfd);
        nurse_stop(&nurse);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* Of what was reaped the kernel may still know the status; the pid is nobody's any more. */
START_TEST(test_pidfd_reaped) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), pidfd;
        struct json_object *event;
        struct nurse nurse;
        pid_t pid;

        run_code = 9;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit_at_once);
        pidfd = pidfd_open(pid, 0);
        ck_assert_int_ge(pidfd, 0);
        (void)nurse_reap(&nurse, pid);
        watch_pidfd(fd, 1, pidfd, "");
        for (int i = 0; i < 2; i++) {
                event = next_event(fd);
                ck_assert_int_eq(number_at(event, "/id"), 1);
                ck_assert_str_eq(text_at(event, "/notes/0"), i ? "reap" : "exit");
                if (json_at(event, "/data"))
                        check_status(event, 9 << 8);
                json_object_put(event);
        }
        expect_no_event(fd);
        (void)close(pidfd);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The status of what was reaped is the kernel's to tell from Linux 6.15 on. */
START_TEST(test_pidfd_reaped_status) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), pidfd;
        struct json_object *event, *status;
        const char *mechanism = NULL;
        struct nurse nurse;
        pid_t pid;

        status = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        for (size_t i = 0; i < json_object_array_length(json_at(status, "/parameters/sources")); i++) {
                struct json_object *source = json_object_array_get_idx(json_at(status, "/parameters/sources"), i);

                if (strcmp(text_at(source, "/name"), "pidfd") == 0)
                        mechanism = text_at(source, "/mechanism");
        }
        ck_assert_ptr_nonnull(mechanism);
        if (!strstr(mechanism, "PIDFD_INFO_EXIT"))
                harness_skip("this kernel does not keep the status of a process that was reaped");
        json_object_put(status);
        run_code = 9;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit_at_once);
        pidfd = pidfd_open(pid, 0);
        (void)nurse_reap(&nurse, pid);
        watch_pidfd(fd, 1, pidfd, "");
        event = next_event(fd);
        check_status(event, 9 << 8);
        json_object_put(event);
        (void)close(pidfd);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- several, and many -------------------------------------------------------------------------------------------- */

START_TEST(test_shared) {
        struct daemon *daemon = daemon_start(NULL);
        int fds[3];
        struct nurse nurse;
        pid_t pid;

        run_code = 3;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
                fds[i] = client_connect(daemon->socket);
                watch_pid(fds[i], (int64_t)i, pid, "");
                watch_pid(fds[i], 10 + (int64_t)i, pid, ""); /* twice on one connection */
        }
        /* One of them goes: the others don't notice. */
        (void)close(fds[1]);
        go(1);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                if (i != 1) {
                        expect_event(fds[i], (int64_t)i, "exit", pid, 3 << 8);
                        expect_event(fds[i], 10 + (int64_t)i, "exit", pid, 3 << 8);
                }
        (void)nurse_reap(&nurse, pid);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                if (i != 1) {
                        expect_event(fds[i], (int64_t)i, "reap", pid, 3 << 8);
                        expect_event(fds[i], 10 + (int64_t)i, "reap", pid, 3 << 8);
                        expect_no_event(fds[i]);
                        (void)close(fds[i]);
                }
        nurse_stop(&nurse);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_oneshot) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct nurse nurse;
        char parameters[256];
        pid_t pid;

        run_code = 1;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit);
        (void)snprintf(parameters, sizeof(parameters),
                       "{\"add\":[{\"id\":1,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"],\"flags\":[\"oneshot\"]},"
                       "{\"id\":2,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"reap\"]}]}", (int)pid, (int)pid);
        expect_change(client_call(fd, "org.kevd.events.Change", parameters), "");
        go(1);
        expect_event(fd, 1, "exit", pid, 1 << 8);
        expect_no_event(fd);
        expect_change(client_call(fd, "org.kevd.events.Change", "{\"remove\":[1]}"), "ENOENT");
        (void)nurse_reap(&nurse, pid);
        expect_event(fd, 2, "reap", pid, 1 << 8);
        expect_no_event(fd);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Made, watched and taken back while it ends. */
START_TEST(test_removed_while_ending) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct nurse nurse;

        run_code = 0;
        nurse = nurse_start();
        for (int i = 0; i < 300; i++) {
                pid_t pid = nurse_fork(&nurse, run_exit_at_once);
                char parameters[256];

                if (i % 2)
                        wait_zombie(pid);
                (void)snprintf(parameters, sizeof(parameters), "{\"add\":[{\"id\":%d,\"filter\":\"proc\",\"pid\":%d}]}", i, (int)pid);
                json_object_put(client_call(fd, "org.kevd.events.Change", parameters));
                (void)snprintf(parameters, sizeof(parameters), "{\"remove\":[%d]}", i);
                json_object_put(client_call(fd, "org.kevd.events.Change", parameters));
                expect_no_event(fd);
                (void)nurse_reap(&nurse, pid);
        }
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static int code_of(pid_t pid) {
        return pid % 256;
}

static void run_exit_of_many(void) {
        wait_go();
        _exit(code_of(getpid()));
}

/* `reaped`: by their parent as they end, or only when all have been reported. */
static void many(bool reaped) {
        enum { N = 2000, A_CALL = 500 };
        struct rlimit limit;
        struct daemon *daemon;
        struct nurse nurse;
        static pid_t pids[N];
        static unsigned exits[N], reaps[N];
        char *text = malloc(A_CALL * 100);
        int fd, n_exits = 0, n_reaps = 0;

        ck_assert_ptr_nonnull(text);
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max < N + 100)
                harness_skip("the daemon may not have enough descriptors");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        nurse = nurse_start();
        nurse_order(&nurse, (struct order){ .what = FORK, .n = N, .run = run_exit_of_many });
        for (int i = 0; i < N; i++)
                pids[i] = nurse_next(&nurse).pid;
        for (int i = 0; i < N;) {
                size_t size = (size_t)sprintf(text, "{\"add\":[");

                for (int j = 0; j < A_CALL; j++, i++)
                        size += (size_t)sprintf(text + size, "%s{\"id\":%d,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"]}",
                                                j ? "," : "", i, (int)pids[i]);
                (void)sprintf(text + size, "]}");
                expect_change(client_call(fd, "org.kevd.events.Change", text), "");
        }
        expect_no_event(fd);
        go(N);
        if (reaped)
                nurse_order(&nurse, (struct order){ .what = REAP, .n = N, .pid = -1 });
        while (n_exits < N || (reaped && n_reaps < N)) {
                struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":9000}");
                size_t n = json_object_array_length(json_at(reply, "/parameters/events"));

                ck_assert_msg(n > 0, "%d exits and %d reaps of %d", n_exits, n_reaps, N);
                for (size_t i = 0; i < n; i++) {
                        struct json_object *event = json_object_array_get_idx(json_at(reply, "/parameters/events"), i);
                        int64_t id = number_at(event, "/id");
                        bool reap = strcmp(text_at(event, "/notes/0"), "reap") == 0;

                        ck_assert_int_lt(id, N);
                        check_event(event, id, reap ? "reap" : "exit", pids[id]);
                        check_status(event, code_of(pids[id]) << 8);
                        if (reap) {
                                ck_assert_uint_eq(exits[id], 1); /* in this order */
                                reaps[id]++;
                                n_reaps++;
                        } else {
                                exits[id]++;
                                n_exits++;
                        }
                }
                json_object_put(reply);
        }
        for (int i = 0; i < N; i++) {
                ck_assert_uint_eq(exits[i], 1);
                ck_assert_uint_eq(reaps[i], reaped);
        }
        expect_no_event(fd);
        if (!reaped)
                nurse_order(&nurse, (struct order){ .what = REAP, .n = N, .pid = -1 });
        (void)nurse_next(&nurse);
        free(text);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}

START_TEST(test_many) {
        many(_i == 1);
}
END_TEST

/* ---- a daemon without rights ---------------------------------------------------------------------------------------- */

static int said_fds[2]; /* what the process has to say before it runs */

static void run_as_nobody(gid_t gid) {
        /* Having changed its ids, it would be closed to everybody else. */
        if (setresgid(gid, gid, gid) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0 ||
            write(said_fds[1], "x", 1) != 1)
                _exit(1);
        wait_go();
        _exit(7);
}

static void run_in_own_group(void) {
        run_as_nobody(NOBODY);
}

static void run_in_another_group(void) {
        run_as_nobody(NOBODY - 1);
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
        struct nurse nurse;
        int fd, status;
        pid_t pid, client;
        char byte;

        if (geteuid() != 0)
                harness_skip("needs root, to be another user's");
        if (daemon_is_on_bpf())
                harness_skip("a daemon without privileges has no BPF");
        harness_label(_i == 0 ? "own group" : "another group");
        ck_assert_int_eq(pipe2(said_fds, O_CLOEXEC), 0);
        nurse = nurse_start();
        pid = nurse_fork(&nurse, _i == 0 ? run_in_own_group : run_in_another_group);
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

        watch_pid(fd, 1, pid, "");
        go(1);
        event = next_event(fd);
        check_event(event, 1, "exit", pid);
        if (json_at(event, "/data"))
                check_status(event, 7 << 8);
        json_object_put(event);
        ck_assert_int_eq(nurse_reap(&nurse, pid), 7 << 8);
        event = next_event(fd);
        check_event(event, 1, "reap", pid);
        if (json_at(event, "/data"))
                check_status(event, 7 << 8);
        json_object_put(event);
        nurse_stop(&nurse);
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
        struct nurse nurse;
        pid_t pid;
        int fd;

        if (geteuid() != 0)
                harness_skip("needs root, to start a system daemon");
        if (getenv("KEVD_PROCESS_FEED"))
                harness_skip("only where the daemon chooses its feed by itself");
        run_code = 7;
        nurse = nurse_start();
        pid = nurse_fork(&nurse, run_exit);
        have_no_feed();
        daemon = daemon_start("--mode=system");
        fd = client_connect(daemon->socket);
        watch_beside_one_that_needs_a_feed(fd, pid);
        go(1);
        expect_event(fd, 1, "exit", pid, 7 << 8);
        ck_assert_int_eq(nurse_reap(&nurse, pid), 7 << 8);
        expect_event(fd, 1, "reap", pid, 7 << 8);
        nurse_stop(&nurse);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("proc");
        TCase *c;

        c = harness_case(suite, "status");
        tcase_add_loop_test(c, test_exit_code, 0, ARRAY_SIZE(exit_codes));
        tcase_add_loop_test(c, test_signal, 0, ARRAY_SIZE(signals));
        tcase_add_test(c, test_killed);
        tcase_add_test(c, test_orphan);
        tcase_add_loop_test(c, test_unprivileged, 0, 2);
        tcase_add_test(c, test_no_feed_after_all);

        c = harness_case(suite, "ended");
        tcase_add_test(c, test_zombie);
        tcase_add_test(c, test_zombie_at_once);
        tcase_add_test(c, test_gone);
        tcase_add_test(c, test_thread);
        tcase_add_test(c, test_dead_leader);

        c = harness_case(suite, "pidfd");
        tcase_add_test(c, test_pidfd);
        tcase_add_test(c, test_pidfd_let_go);
        tcase_add_test(c, test_pidfd_reaped);
        tcase_add_test(c, test_pidfd_reaped_status);

        c = harness_case(suite, "several");
        tcase_add_test(c, test_shared);
        tcase_add_test(c, test_oneshot);
        tcase_add_test(c, test_removed_while_ending);
        tcase_add_loop_test(c, test_many, 0, 2);
        return harness_main(argc, argv);
}
