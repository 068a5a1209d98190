/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proc watches on the real daemon: which processes they may be of. One that has ended, is gone, or has lost its first
 * thread, a thread, and whatever a pidfd that was passed is of.
 */

#include <fcntl.h>
#include <limits.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"
#include "processes.h"

/* ---- who has ended ---------------------------------------------------------------------------------------- */

START_TEST(test_zombie) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), second = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit_at_once, 5);

        wait_zombie(pid);
        watch_pid(fd, "", 1, pid);
        expect_event(fd, 1, "exit", pid, 5 << 8);
        /* The daemon knows it already. */
        watch_pid(second, "", 2, pid);
        expect_event(second, 2, "exit", pid, 5 << 8);
        expect_nothing(second);
        expect_nothing(fd);
        (void)maker_reap(&maker, pid);
        expect_event(fd, 1, "reap", pid, 5 << 8);
        expect_event(second, 2, "reap", pid, 5 << 8);
        expect_nothing(fd);
        maker_stop(&maker);
        (void)close(fd);
        (void)close(second);
        daemon_stop(daemon);
}
END_TEST

/* "At once": in the very next answer. */
START_TEST(test_zombie_at_once) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);

        for (int i = 0; i < 200; i++) {
                pid_t pid = maker_fork(&maker, run_exit_at_once, 5);
                struct json_object *reply, *event;

                wait_zombie(pid);
                watch_pid(fd, "", i, pid);
                reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}");
                event = json_at(reply, "/parameters/events/0");
                ck_assert_msg(event, "round %d", i);
                check_event(event, i, "exit", pid);
                check_status(event, 5 << 8);
                json_object_put(reply);
                (void)maker_reap(&maker, pid);
                expect_event(fd, i, "reap", pid, 5 << 8);
        }
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_gone) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit_at_once, 0);

        (void)maker_reap(&maker, pid);
        /* A feed of all processes knows that it has just ended, if it was there by then. */
        if (!daemon_is_on_feed())
                watch_pid(fd, "ESRCH", 1, pid);
        watch_pid(fd, "ESRCH", 2, INT_MAX);
        maker_stop(&maker);
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
        watch_pid(fd, "ESRCH", 1, tid);
        watch_pid(fd, "", 1, getpid());
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
static int run_without_leader(int unused _unused_) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, thread_leave, NULL) != 0)
                return 1;
        return (int)syscall(SYS_exit, 3); /* this thread alone */
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
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_without_leader, 0);

        ck_assert(wait_until(leader_has_ended, &pid, HARNESS_REPLY_MSEC));
        watch_pid(fd, "", 1, pid);
        expect_nothing(fd);
        go(&maker, 1);
        expect_event(fd, 1, "exit", pid, 17 << 8);
        status = maker_reap(&maker, pid);
        ck_assert_int_eq(status, 17 << 8);
        expect_event(fd, 1, "reap", pid, status);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- pidfds passed --------------------------------------------------------------------------------------------- */

static int open_pidfd(pid_t pid) {
        int pidfd = pidfd_open(pid, 0);

        assert_system(pidfd >= 0, "pidfd_open");
        return pidfd;
}

static void watch_pidfd(int fd, int64_t id, int pidfd) {
        struct json_object *reply;
        char call[256];

        (void)snprintf(call, sizeof(call),
                       "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":%lld,\"filter\":\"proc\","
                       "\"descriptor\":0,\"notes\":[\"exit\",\"reap\"]}]}}", (long long)id);
        client_send_with_fds(fd, call, strlen(call) + 1, &pidfd, 1);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_msg(reply && json_at(reply, "/parameters/refused") && !json_at(reply, "/parameters/refused/0"), "%s",
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

START_TEST(test_pidfd) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), pidfd;
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit, 9);

        pidfd = open_pidfd(pid);
        watch_pidfd(fd, 1, pidfd);
        expect_nothing(fd);
        go(&maker, 1);
        expect_event(fd, 1, "exit", pid, 9 << 8);
        (void)maker_reap(&maker, pid);
        expect_event(fd, 1, "reap", pid, 9 << 8);
        (void)close(pidfd);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The client keeps its copy: what the daemon let go of is not heard of again, and can be watched again. */
START_TEST(test_pidfd_let_go) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket), pidfd;
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit, 9);

        pidfd = open_pidfd(pid);
        for (int i = 0; i < 3; i++) {
                watch_pidfd(fd, 1, pidfd);
                change(fd, "", "'remove':[1]");
        }
        watch_pidfd(other, 2, pidfd);
        go(&maker, 1);
        expect_event(other, 2, "exit", pid, 9 << 8);
        expect_nothing(fd);
        (void)maker_reap(&maker, pid);
        expect_event(other, 2, "reap", pid, 9 << 8);
        expect_nothing(fd);
        (void)close(pidfd);
        maker_stop(&maker);
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
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit_at_once, 9);

        pidfd = open_pidfd(pid);
        (void)maker_reap(&maker, pid);
        watch_pidfd(fd, 1, pidfd);
        for (int i = 0; i < 2; i++) {
                event = next_event(fd);
                ck_assert_int_eq(number_at(event, "/id"), 1);
                ck_assert_str_eq(text_at(event, "/notes/0"), i ? "reap" : "exit");
                if (json_at(event, "/data"))
                        check_status(event, 9 << 8);
                json_object_put(event);
        }
        expect_nothing(fd);
        (void)close(pidfd);
        maker_stop(&maker);
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
        struct maker maker;
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
        maker = maker_start(0);
        pid = maker_fork(&maker, run_exit_at_once, 9);
        pidfd = open_pidfd(pid);
        (void)maker_reap(&maker, pid);
        watch_pidfd(fd, 1, pidfd);
        event = next_event(fd);
        check_status(event, 9 << 8);
        json_object_put(event);
        (void)close(pidfd);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* A page of which whoever writes to it waits, and with what the kernel holds then, until `faults` is closed. */
static void *new_waiting_page(int *ret_faults) {
        size_t size = (size_t)sysconf(_SC_PAGESIZE);
        void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        struct uffdio_api api = { .api = UFFD_API };
        struct uffdio_register range = { .range = { (uintptr_t)page, size }, .mode = UFFDIO_REGISTER_MODE_MISSING };
        int faults = (int)syscall(SYS_userfaultfd, O_CLOEXEC);

        assert_system(page != MAP_FAILED, "mmap");
        if (faults < 0)
                harness_skip("there is no userfaultfd(2)");
        assert_system(ioctl(faults, UFFDIO_API, &api) == 0 && ioctl(faults, UFFDIO_REGISTER, &range) == 0, "userfaultfd");
        *ret_faults = faults;
        return page;
}

struct locked_set {
        int set;
        void *page;
};

static void *wait_in_set(void *userdata) {
        const struct locked_set *locked = userdata;

        (void)epoll_wait(locked->set, locked->page, 1, -1);
        return NULL;
}

/* What the kernel shows of an epoll set takes its lock, which its owner may have for ever. */
START_TEST(test_no_pidfd) {
        static const char call[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                                   "\"filter\":\"proc\",\"descriptor\":0,\"notes\":[\"exit\"]}]}}";
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), ready = eventfd(1, EFD_CLOEXEC), faults;
        struct locked_set locked = { epoll_create1(EPOLL_CLOEXEC), new_waiting_page(&faults) };
        struct epoll_event event = { .events = EPOLLIN };
        struct pollfd fault = { .fd = faults, .events = POLLIN };
        struct json_object *reply;
        pthread_t thread;

        assert_system(epoll_ctl(locked.set, EPOLL_CTL_ADD, ready, &event) == 0, "epoll_ctl");
        ck_assert_int_eq(pthread_create(&thread, NULL, wait_in_set, &locked), 0);
        ck_assert_int_eq(poll(&fault, 1, HARNESS_REPLY_MSEC), 1);
        client_send_with_fds(fd, call, sizeof(call), &locked.set, 1);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/message"), "descriptor: not a pidfd");
        json_object_put(reply);
        (void)close(faults);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        (void)munmap(locked.page, (size_t)sysconf(_SC_PAGESIZE));
        (void)close(locked.set);
        (void)close(ready);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("proc-targets");
        TCase *c;

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
        tcase_add_test(c, test_no_pidfd);
        return harness_main(argc, argv);
}
