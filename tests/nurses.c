/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "nurses.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

int go_fds[2];
int run_code;

/* ---- the protocol -------------------------------------------------------------------------------- */

void expect_change(struct json_object *reply, const char *error) {
        ck_assert_msg(json_at(reply, "/parameters/refused") &&
                              strcmp(text_at(reply, "/parameters/refused/0/errno"), error) == 0,
                      "%s instead of \"%s\"", json_object_to_json_string(reply), error);
        json_object_put(reply);
}

void watch_pid(int fd, int64_t id, pid_t pid, const char *error) {
        char parameters[256];

        (void)snprintf(parameters, sizeof(parameters),
                       "{\"add\":[{\"id\":%lld,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"]}]}", (long long)id,
                       (int)pid);
        expect_change(client_call(fd, "org.kevd.events.Change", parameters), error);
}

void check_status(struct json_object *event, int status) {
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

void check_event(struct json_object *event, int64_t id, const char *note, pid_t pid) {
        ck_assert_int_eq(number_at(event, "/id"), id);
        ck_assert_msg(strcmp(text_at(event, "/notes/0"), note) == 0 &&
                              json_object_array_length(json_at(event, "/notes")) == 1,
                      "%s instead of %s", json_object_to_json_string(event), note);
        ck_assert_int_eq(number_at(event, "/process/pid"), pid);
        ck_assert_int_eq(number_at(event, "/count"), 1);
}

void expect_event(int fd, int64_t id, const char *note, pid_t pid, int status) {
        struct json_object *event = next_event(fd);

        check_event(event, id, note, pid);
        check_status(event, status);
        json_object_put(event);
}

/* ---- processes of somebody else -------------------------------------------------------------------- */

void wait_go(void) {
        char byte;

        (void)!read(go_fds[0], &byte, 1);
}

void go(size_t n) {
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

struct nurse nurse_start(void) {
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

struct answer nurse_next(struct nurse *nurse) {
        struct answer answer;

        ck_assert_int_eq(recv(nurse->fd, &answer, sizeof(answer), 0), sizeof(answer));
        ck_assert_int_gt(answer.pid, 0);
        return answer;
}

void nurse_order(struct nurse *nurse, struct order order) {
        ck_assert_int_eq(send(nurse->fd, &order, sizeof(order), MSG_NOSIGNAL), sizeof(order));
}

pid_t nurse_fork(struct nurse *nurse, void (*run)(void)) {
        nurse_order(nurse, (struct order){ .what = FORK, .n = 1, .run = run });
        return nurse_next(nurse).pid;
}

int nurse_reap(struct nurse *nurse, pid_t pid) {
        nurse_order(nurse, (struct order){ .what = REAP, .n = 1, .pid = pid });
        return nurse_next(nurse).status;
}

void nurse_stop(struct nurse *nurse) {
        int status;

        (void)close(nurse->fd);
        ck_assert_int_eq(waitpid(nurse->pid, &status, 0), nurse->pid);
        ck_assert_int_eq(status, 0);
        (void)close(go_fds[0]);
        (void)close(go_fds[1]);
}

void wait_zombie(pid_t pid) {
        int pidfd = pidfd_open(pid, 0);
        struct pollfd p = { .fd = pidfd, .events = POLLIN };

        assert_system(pidfd >= 0, "pidfd_open");
        ck_assert_int_eq(poll(&p, 1, HARNESS_REPLY_MSEC), 1);
        (void)close(pidfd);
}

void run_exit(void) {
        wait_go();
        _exit(run_code);
}

void run_exit_at_once(void) {
        _exit(run_code);
}
