/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One daemon after another (restarts.h): watches of all filters but tree go on. What happened in between is told, or
 * that something may be missing.
 */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "links.h"
#include "macro.h"
#include "manager.h"
#include "restarts.h"

/* ---- flags, and timers ------------------------------------------------------------------------------ */

START_TEST(test_disabled) {
        watch_it("{\"id\":7,\"filter\":\"user\",\"name\":\"bell\",\"flags\":[\"disabled\"]}");
        trigger("bell", 1);
        restart();
        expect_silence();
        json_object_put(client_call(client, "org.kevd.events.Change", "{\"enable\":[7]}"));
        expect_data("trigger", 1, 1);
}
END_TEST

START_TEST(test_oneshot) {
        watch_it("{\"id\":7,\"filter\":\"user\",\"name\":\"bell\",\"flags\":[\"oneshot\"]}");
        restart();
        trigger("bell", 1);
        expect_data("trigger", 1, 1);
        watch_it(USER_WATCH); /* the number is free again */
}
END_TEST

/* All periods, those without a daemon too, are counted once. */
START_TEST(test_period) {
        int64_t first, last, sum = 0;
        struct json_object *event;

        watch_it("{\"id\":1,\"filter\":\"timer\",\"data\":20}");
        event = expect("msec");
        first = last = number_at(event, "/realtimeUsec");
        json_object_put(event);
        restart();
        while (last - first < 600000) {
                event = expect("msec");
                sum += number_at(event, "/data");
                last = number_at(event, "/realtimeUsec");
                json_object_put(event);
        }
        ck_assert_int_ge(sum, (last - first) / 20000 - 1);
        ck_assert_int_le(sum, (last - first) / 20000 + 1);
}
END_TEST

START_TEST(test_moment) {
        struct timespec now;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        watch_it(at("{\"id\":1,\"filter\":\"timer\",\"notes\":[\"msec\",\"abstime\"],\"data\":%lld}",
                    (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000 + 30));
        restart();
        json_object_put(expect("abstime"));
        restart();
        expect_silence();
        /* It is still one of moments. */
        client_change(client, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld}]}",
                      (long long)now.tv_sec * 1000);
        json_object_put(expect("abstime"));
        expect_silence();
}
END_TEST

/* ---- processes -------------------------------------------------------------------------------------- */

START_TEST(test_process) {
        struct json_object *event;
        pid_t pid = start_process();

        watch_it(at("{\"id\":1,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"]}", (int)pid));
        manager_stop(manager);
        (void)kill(pid, SIGUSR1);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        manager_start(manager);
        event = expect("exit");
        ck_assert_int_eq(number_at(event, "/process/signal"), SIGUSR1);
        ck_assert_int_eq(number_at(event, "/process/pid"), pid);
        json_object_put(event);
        json_object_put(expect("reap"));
        expect_silence();
        restart();
        expect_silence();
}
END_TEST

START_TEST(test_process_goes_on) {
        pid_t pid = start_process();

        watch_it(at("{\"id\":1,\"filter\":\"proc\",\"pid\":%d}", (int)pid));
        restart();
        restart();
        expect_silence();
        end_process(pid);
        json_object_put(expect("exit"));
}
END_TEST

enum { CARRIED_MAX = 253 };

union carried {
        struct cmsghdr align;
        char space[CMSG_SPACE(CARRIED_MAX * sizeof(int))];
};

static void carry_one(int carrier, uint64_t number, int fd) {
        union carried control = { .align = { CMSG_LEN(sizeof(fd)), SOL_SOCKET, SCM_RIGHTS } };
        struct iovec part = { &number, sizeof(number) };
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(sizeof(fd)),
        };

        memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
        assert_system(sendmsg(carrier, &message, 0) == sizeof(number), "sendmsg");
}

/* What the last daemon has left, but for descriptors like that one. */
static void drop_carried(const char *kind) {
        int carrier = manager_take_copy(manager, "kevd-descriptors"), ends[2], fd;
        union carried control;
        uint64_t number;
        struct iovec part = { &number, sizeof(number) };
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
        };
        size_t n, n_dropped = 0;

        assert_system(recvmsg(carrier, &message, MSG_CMSG_CLOEXEC) == sizeof(number), "recvmsg");
        (void)close(carrier);
        assert_system(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
        n = (control.align.cmsg_len - CMSG_LEN(0)) / sizeof(fd);
        for (size_t i = 0; i < n; i++) {
                char target[64] = "";

                memcpy(&fd, CMSG_DATA(&control.align) + i * sizeof(fd), sizeof(fd));
                (void)!readlink(at("/proc/self/fd/%d", fd), target, sizeof(target) - 1);
                if (strstr(target, kind))
                        n_dropped++;
                else
                        carry_one(ends[0], number + i, fd);
                (void)close(fd);
        }
        ck_assert_msg(n_dropped > 0, "there was no %s", kind);
        (void)close(ends[0]);
        manager_replace(manager, "kevd-descriptors", ends[1]);
}

/* Its pidfd had no room: it is followed anew, and goes on. */
START_TEST(test_process_not_kept) {
        pid_t pid = start_process();

        watch_it(at("{\"id\":1,\"filter\":\"proc\",\"pid\":%d}", (int)pid));
        manager_stop(manager);
        drop_carried("pidfd");
        manager_start(manager);
        expect_silence();
        end_process(pid);
        json_object_put(expect("exit"));
}
END_TEST

/* Some kernels and namespaces are without. */
static void setup_feed(const char *option) {
        const char *feed = strchr(option, '=') + 1;
        struct json_object *reply;
        bool is_there;

        begin((const char *const[]){ "--file-mechanism=inotify", option, NULL });
        json_object_put(client_call(client, "org.kevd.events.Change",
                                    at("{\"add\":[{\"id\":99,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exec\"]}]}", (int)getpid())));
        reply = client_call(client, "org.kevd.events.GetMechanism", "{\"id\":99}");
        is_there = json_at(reply, "/parameters/mechanism") && strcmp(text_at(reply, "/parameters/mechanism"), feed) == 0;
        json_object_put(reply);
        if (!is_there)
                harness_skip("this feed of processes is not to be had here");
        json_object_put(client_call(client, "org.kevd.events.Change", "{\"remove\":[99]}"));
}

static void setup_connector(void) {
        setup_feed("--process-feed=connector");
}

static void setup_bpf(void) {
        setup_feed("--process-feed=bpf");
}

/* Tells its children's pids, and ends as it is told to. */
static pid_t start_family(int *ret_orders, int *ret_pids) {
        int orders[2], pids[2];
        pid_t pid;

        ck_assert_int_eq(pipe2(orders, O_CLOEXEC), 0);
        ck_assert_int_eq(pipe2(pids, O_CLOEXEC), 0);
        pid = fork();
        if (pid == 0) {
                char order;

                (void)close(orders[1]);
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                while (read(orders[0], &order, 1) == 1 && order == 'f') {
                        pid_t child = fork();

                        if (child == 0)
                                _exit(33);
                        (void)waitpid(child, NULL, 0);
                        (void)!write(pids[1], &child, sizeof(child));
                }
                _exit(7);
        }
        ck_assert_int_gt(pid, 0);
        (void)close(orders[0]);
        (void)close(pids[1]);
        *ret_orders = orders[1];
        *ret_pids = pids[0];
        return pid;
}

static void expect_of(const char *note, pid_t pid) {
        struct json_object *event = expect(note);

        ck_assert_msg(number_at(event, "/process/pid") == pid, "%s", json_object_to_json_string(event));
        json_object_put(event);
}

/* Of the machine's other processes, too, some may have ended of which nobody could learn what they were. */
static void expect_among_lost(const char *note, pid_t pid) {
        struct json_object *event;

        while ((event = next_event(client)) && has_note(event, "lost"))
                json_object_put(event);
        ck_assert_msg(has_note(event, note) && number_at(event, "/process/pid") == pid, "%s",
                      json_object_to_json_string(event));
        json_object_put(event);
}

static pid_t fork_one(int orders, int pids) {
        pid_t child;

        ck_assert_int_eq(write(orders, "f", 1), 1);
        ck_assert_int_eq(read(pids, &child, sizeof(child)), sizeof(child));
        return child;
}

/* What is forked and ends while there is no daemon. */
START_TEST(test_process_family) {
        struct json_object *event;
        int orders, pids;
        pid_t parent = start_family(&orders, &pids), child;

        watch_it(at("{\"id\":1,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"track\"]}", (int)parent));
        child = fork_one(orders, pids);
        expect_of("child", child);
        expect_of("exit", child);
        manager_stop(manager);
        child = fork_one(orders, pids);
        manager_start(manager);
        expect_of("child", child);
        event = expect("exit");
        ck_assert_int_eq(number_at(event, "/process/exitCode"), 33);
        ck_assert_int_eq(number_at(event, "/process/pid"), child);
        json_object_put(event);
        child = fork_one(orders, pids);
        expect_of("child", child);
        expect_of("exit", child);
        manager_stop(manager);
        (void)close(orders);
        ck_assert_int_eq(waitpid(parent, NULL, 0), parent);
        (void)close(pids);
        manager_start(manager);
        event = expect("exit");
        ck_assert_int_eq(number_at(event, "/process/exitCode"), 7);
        ck_assert_int_eq(number_at(event, "/process/pid"), parent);
        json_object_put(event);
        expect_silence();
}
END_TEST

/* Its children are not followed any more, by the next daemon neither. */
START_TEST(test_process_without_family) {
        int orders, pids;
        pid_t parent = start_family(&orders, &pids), child;

        watch_it(at("{\"id\":1,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"track\"]}", (int)parent));
        child = fork_one(orders, pids);
        expect_of("child", child);
        expect_of("exit", child);
        client_change(client, "{\"modify\":[{\"id\":1,\"filter\":\"proc\",\"notes\":[\"exit\"]}]}");
        for (int i = 0; i < 2; i++) {
                restart();
                (void)fork_one(orders, pids);
                expect_silence();
        }
        (void)close(orders);
        ck_assert_int_eq(waitpid(parent, NULL, 0), parent);
        (void)close(pids);
        expect_of("exit", parent);
        expect_silence();
}
END_TEST

START_TEST(test_processes_by_match) {
        int orders, pids;
        pid_t parent, child;

        (void)prctl(PR_SET_NAME, at("kevd-r%d", (int)getpid())); /* which nobody else has */
        parent = start_family(&orders, &pids);
        watch_it(at("{\"id\":1,\"filter\":\"proc\",\"match\":{\"comm\":\"kevd-r%d\"}}", (int)getpid()));
        manager_stop(manager);
        child = fork_one(orders, pids);
        manager_start(manager);
        expect_among_lost("exit", child);
        restart();
        (void)close(orders);
        ck_assert_int_eq(waitpid(parent, NULL, 0), parent);
        (void)close(pids);
        expect_among_lost("exit", parent);
}
END_TEST

/* What was sent meanwhile nobody knows; what is sent later is told. */
START_TEST(test_signals) {
        pid_t pid = start_process();
        struct json_object *reply = client_call(client, "org.kevd.events.Change",
                                                at("{\"add\":[{\"id\":1,\"filter\":\"signal\",\"pid\":%d}]}", (int)pid));
        bool refused = json_at(reply, "/parameters/refused/0");

        json_object_put(reply);
        if (!refused) {
                restart();
                json_object_put(expect("lost"));
                ck_assert_int_eq(kill(pid, SIGWINCH), 0);
                reply = next_event(client);
                ck_assert_int_eq(number_at(reply, "/data"), SIGWINCH);
                json_object_put(reply);
        }
        end_process(pid);
        if (refused)
                harness_skip("signals can't be followed here");
}
END_TEST

/* ---- links, and files ------------------------------------------------------------------------------- */

static void add_processes(TCase *c) {
        tcase_add_test(c, test_process);
        tcase_add_test(c, test_process_goes_on);
        tcase_add_test(c, test_process_family);
        tcase_add_test(c, test_process_without_family);
        tcase_add_test(c, test_processes_by_match);
}

/* Up and down while nobody looks, and gone in the end. */
START_TEST(test_links) {
        struct json_object *event;
        char text[200];

        enter_namespace();
        begin((const char *const[]){ "--file-mechanism=inotify", NULL });
        add_device("v0");
        watch_it("{\"id\":1,\"filter\":\"netdev\"}");
        manager_stop(manager);
        ip("link set v0 mtu 1300");
        ip("link set v0 mtu 1301");
        ip("addr add 10.9.8.7/24 dev v0");
        ip("link del v0");
        manager_start(manager);
        event = expect("mtu");
        ck_assert_int_eq(number_at(event, "/link/mtu"), 1300);
        json_object_put(event);
        event = expect("mtu");
        ck_assert_int_eq(number_at(event, "/link/mtu"), 1301);
        json_object_put(event);
        do {
                event = next_event(client);
                describe(event, text, sizeof(text));
                json_object_put(event);
        } while (strncmp(text, "v0 linkinv", 10) != 0);
        teardown();
}
END_TEST

START_TEST(test_file) {
        const char *file = at("%s/file", harness_tempdir());

        put(file, O_CREAT, "one");
        watch_it(at("{\"id\":1,\"filter\":\"vnode\",\"path\":\"%s\",\"notes\":[\"write\",\"extend\",\"delete\",\"rename\"]}", file));
        manager_stop(manager);
        put(file, O_APPEND, "two");
        manager_start(manager);
        expect_path("extend", file);
        restart();
        expect_silence();
        manager_stop(manager);
        remove_file(file);
        manager_start(manager);
        expect_path("delete", file);
}
END_TEST

/* ---- descriptors ------------------------------------------------------------------------------------ */

START_TEST(test_descriptor) {
        struct json_object *event;
        int ends[2];

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        watch_fd("{\"id\":1,\"filter\":\"read\",\"descriptor\":0}", ends[0]);
        manager_stop(manager);
        ck_assert_int_eq(write(ends[1], "one", 3), 3);
        manager_start(manager);
        event = expect("lowat");
        ck_assert_int_eq(number_at(event, "/data"), 3);
        json_object_put(event);
        ck_assert_int_eq(write(ends[1], "four", 4), 4);
        event = expect("lowat");
        ck_assert_int_eq(number_at(event, "/data"), 7);
        json_object_put(event);
        (void)close(ends[0]);
        (void)close(ends[1]);
}
END_TEST

/* Nothing of the daemon's, nor of the store's, hides that it was closed. */
START_TEST(test_descriptor_at_its_end) {
        int ends[2];

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        watch_fd("{\"id\":1,\"filter\":\"poll\",\"notes\":[\"in\"],\"descriptor\":0}", ends[0]);
        manager_stop(manager);
        (void)close(ends[1]);
        manager_start(manager);
        json_object_put(expect("hup"));
        (void)close(ends[0]);
}
END_TEST

START_TEST(test_exclusive) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        struct json_object *event;
        eventfd_t value;

        watch_fd("{\"id\":1,\"filter\":\"poll\",\"notes\":[\"in\"],\"flags\":[\"exclusive\"],\"descriptor\":0}", fd);
        watch_fd("{\"id\":2,\"filter\":\"poll\",\"notes\":[\"in\"],\"flags\":[\"exclusive\"],\"descriptor\":0}", fd);
        restart();
        for (int i = 0; i < 4; i++) {
                ck_assert_int_eq(eventfd_write(fd, 1), 0);
                event = expect("in");
                json_object_put(event);
                expect_silence();
                ck_assert_int_eq(eventfd_read(fd, &value), 0);
        }
        (void)close(fd);
}
END_TEST

/* Of a regular file there is no set: the watch says that it is over. */
START_TEST(test_descriptor_that_is_not_kept) {
        struct json_object *event;
        int fd;

        put(at("%s/file", harness_tempdir()), O_CREAT, "one");
        fd = open(at("%s/file", harness_tempdir()), O_RDONLY | O_CLOEXEC);
        watch_fd("{\"id\":1,\"filter\":\"read\",\"descriptor\":0}", fd);
        json_object_put(expect("lowat"));
        restart();
        event = next_event(client);
        ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
        json_object_put(event);
        (void)close(fd);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *s = harness_suite("restart-watches");
        TCase *c;

        c = harness_case(s, "watches");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_add_test(c, test_disabled);
        tcase_add_test(c, test_oneshot);
        tcase_add_test(c, test_period);
        tcase_add_test(c, test_moment);
        tcase_add_test(c, test_process);
        tcase_add_test(c, test_process_goes_on);
        tcase_add_test(c, test_process_not_kept);
        tcase_add_test(c, test_file);
        tcase_add_test(c, test_signals);
        tcase_add_test(c, test_descriptor);
        tcase_add_test(c, test_descriptor_at_its_end);
        tcase_add_test(c, test_exclusive);
        tcase_add_test(c, test_descriptor_that_is_not_kept);

        c = harness_case(s, "connector");
        tcase_add_checked_fixture(c, setup_connector, teardown);
        add_processes(c);

        c = harness_case(s, "bpf");
        tcase_add_checked_fixture(c, setup_bpf, teardown);
        add_processes(c);

        c = harness_case(s, "links");
        tcase_add_test(c, test_links);
        return harness_main(argc, argv);
}
