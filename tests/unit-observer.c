/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Observers: what they hand out, and to whom. */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "harness.h"
#include "macro.h"
#include "observer.h"

/* Somebody else has the descriptor open, the caller a set that has it. */
static int take(struct observer *observer) {
        struct epoll_event event = { .events = EPOLLIN };
        struct descriptor_owner owner = { 0 };
        struct descriptor_handle handle = { 0 };
        int fds[2], fd;

        assert_system(pipe(fds) == 0, "pipe");
        handle = (struct descriptor_handle){
                .kind = DESCRIPTOR_PIPE, .set = epoll_create1(EPOLL_CLOEXEC), .slot = fds[0], .number = fds[0],
        };
        assert_system(epoll_ctl(handle.set, EPOLL_CTL_ADD, fds[0], &event) == 0, "epoll_ctl");
        owner.pid = fork();
        if (owner.pid == 0) {
                (void)pause();
                _exit(0);
        }
        assert_system(owner.pid > 0, "fork");
        (void)close(fds[0]);
        owner.pidfd = pidfd_open(owner.pid, 0);
        fd = observer_take(observer, &handle, &owner);
        (void)kill(owner.pid, SIGKILL);
        (void)waitpid(owner.pid, NULL, 0);
        (void)close(owner.pidfd);
        (void)close(handle.set);
        (void)close(fds[1]);
        (void)safe_close(fd);
        return fd;
}

/* As the service manager does it: sd_listen_fds(3). */
static pid_t start_broker(int *ret_fd) {
        int pair[2];
        pid_t pid;

        assert_system(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
        pid = fork();
        if (pid == 0) {
                char text[16];

                (void)snprintf(text, sizeof(text), "%d", (int)getpid());
                (void)setenv("LISTEN_PID", text, 1);
                (void)setenv("LISTEN_FDS", "1", 1);
                if (dup2(pair[1], 3) == 3)
                        (void)execl(getenv("KEVD"), "kevd", "--serve-broker", NULL);
                _exit(1);
        }
        assert_system(pid > 0, "fork");
        (void)close(pair[1]);
        *ret_fd = pair[0];
        return pid;
}

static int take_by(int broker_fd) {
        struct broker *broker;
        struct mux *mux;
        int fd;

        ck_assert_int_eq(mux_open(NULL, &mux), 0);
        ck_assert_int_eq(broker_open(mux, broker_fd, &broker), 0);
        observer_open(broker);
        fd = take(observer_get(getuid()));
        observer_close();
        (void)broker_close(broker);
        (void)mux_close(mux);
        return fd;
}

/* By the sets of the process that the broker is of. Whose set it is is nothing that who asks can say. */
START_TEST(test_whose_set) {
        int broker_fd, status;
        pid_t broker, other;

        if (geteuid() != 0)
                harness_skip("needs root, for a broker");
        broker = start_broker(&broker_fd);
        if (_i == 0)
                ck_assert_int_ge(take_by(broker_fd), 0);
        else {
                other = fork();
                if (other == 0)
                        _exit(take_by(broker_fd) >= 0);
                assert_system(other > 0, "fork");
                (void)close(broker_fd);
                ck_assert_int_eq(waitpid(other, &status, 0), other);
                ck_assert_int_eq(status, 0);
        }
        ck_assert_int_eq(waitpid(broker, &status, 0), broker);
        ck_assert_int_eq(status, 0);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("unit-observer");
        TCase *c = harness_case(suite, "descriptors");

        tcase_add_loop_test(c, test_whose_set, 0, 2);
        return harness_main(argc, argv);
}
