/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One daemon after another: the clients keep their connections, and what happened in between is told. The service
 * manager is the test's own (manager.h); each daemon is a process, as ever.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "links.h"
#include "macro.h"
#include "manager.h"

static struct manager *manager;
static int client;

static void begin(const char *const *options) {
        manager = manager_new(options);
        manager_start(manager);
        client = client_connect(manager_socket(manager));
        json_object_put(client_call(client, "org.kevd.events.GetLimits", NULL)); /* by then it is accepted */
}

static void setup(void) {
        begin((const char *const[]){ "--file-mechanism=inotify", NULL });
}

static void teardown(void) {
        (void)close(client);
        manager_free(manager);
}

/* How many events it has taken over, or made for what may be missing. Each has become of something. */
static int64_t count_restored(void) {
        int fd = client_connect(manager_socket(manager));
        struct json_object *reply = client_call(fd, "org.kevd.manager.GetStatistics", NULL),
                           *events = json_at(reply, "/parameters/events");
        int64_t n = number_at(events, "/restored");

        ck_assert_msg(n + number_at(events, "/eventsIn") + number_at(events, "/summaries") ==
                              number_at(events, "/delivered") + number_at(events, "/merged") +
                                      number_at(events, "/discarded") + number_at(events, "/pending"),
                      "%s", json_object_to_json_string(events));
        json_object_put(reply);
        (void)close(fd);
        return n;
}

static void restart(void) {
        manager_stop(manager);
        manager_start(manager);
        (void)count_restored();
}

/* ---- what a client does ------------------------------------------------------------------- */

static void watch_it(const char *text) {
        struct json_object *reply = client_call(client, "org.kevd.events.Change", at("{\"add\":[%s]}", text));

        ck_assert_msg(json_at(reply, "/parameters/refused") && !json_at(reply, "/parameters/refused/0"), "%s",
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

static void trigger(const char *name, int data) {
        int other = client_connect(manager_socket(manager));
        struct json_object *reply = client_call(other, "org.kevd.events.Trigger", at("{\"name\":\"%s\",\"data\":%d}", name, data));

        ck_assert_int_eq(number_at(reply, "/parameters/reached"), 1);
        json_object_put(reply);
        (void)close(other);
}

/* A call without waiting for its reply. */
static void send_call(const char *method, const char *parameters, const char *more) {
        client_send_message(client, at("{\"method\":\"org.kevd.events.%s\",\"parameters\":%s%s}", method, parameters, more));
}

/* The next event, which has this note and these values. */
static struct json_object *expect(const char *note) {
        struct json_object *event = next_event(client);

        ck_assert_msg(has_note(event, note), "%s wanted, %s came", note, json_object_to_json_string(event));
        return event;
}

static void expect_data(const char *note, int64_t data, int64_t seq) {
        struct json_object *event = expect(note);

        ck_assert_int_eq(number_at(event, "/data"), data);
        ck_assert_int_eq(number_at(event, "/seq"), seq);
        json_object_put(event);
}

static void expect_path(const char *note, const char *path) {
        struct json_object *event = expect(note);

        ck_assert_str_eq(text_at(event, "/path"), path);
        json_object_put(event);
}

static void expect_silence(void) {
        struct json_object *event = due_event(client);

        ck_assert_msg(!event, "%s", json_object_to_json_string(event));
}

/* ---- connections ------------------------------------------------------------------------------ */

#define USER_WATCH "{\"id\":7,\"filter\":\"user\",\"name\":\"bell\"}"

START_TEST(test_events_that_nobody_took) {
        watch_it(USER_WATCH);
        trigger("bell", 1);
        expect_data("trigger", 1, 1);
        trigger("bell", 2);
        trigger("bell", 3);
        restart();
        ck_assert_int_eq(count_restored(), 2);
        expect_data("trigger", 2, 2);
        expect_data("trigger", 3, 3);
        trigger("bell", 4);
        expect_data("trigger", 4, 4);
        expect_silence();
}
END_TEST

START_TEST(test_wait_goes_on) {
        struct json_object *reply;

        watch_it(USER_WATCH);
        send_call("Wait", "{}", "");
        restart();
        trigger("bell", 5);
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/data"), 5);
        json_object_put(reply);
        expect_silence();
}
END_TEST

START_TEST(test_wait_has_its_timeout) {
        struct json_object *reply;
        int64_t start = now_msec();

        watch_it(USER_WATCH);
        send_call("Wait", "{\"timeoutMsec\":1500}", "");
        restart();
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert_ptr_nonnull(reply);
        ck_assert(!json_at(reply, "/parameters/events/0"));
        ck_assert_int_ge(now_msec() - start, 1500);
        json_object_put(reply);
}
END_TEST

START_TEST(test_stream_goes_on) {
        struct json_object *reply;

        send_call("Monitor", "{\"watches\":[" USER_WATCH "]}", ",\"more\":true");
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert(reply && !json_at(reply, "/parameters/refused/0"));
        json_object_put(reply);
        for (int i = 1; i <= 3; i++) {
                restart();
                trigger("bell", i);
                reply = client_receive(client, HARNESS_REPLY_MSEC);
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/data"), i);
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), i);
                ck_assert(json_at(reply, "/continues"));
                json_object_put(reply);
        }
}
END_TEST

START_TEST(test_half_a_message) {
        const char *text = "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"bell\"}}";
        struct json_object *reply;

        watch_it(USER_WATCH);
        client_send(client, text, 20);
        restart();
        client_send(client, text + 20, strlen(text) - 20 + 1);
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert_int_eq(number_at(reply, "/parameters/reached"), 1);
        json_object_put(reply);
}
END_TEST

/* A descriptor that has come with the first half. */
START_TEST(test_half_a_message_with_a_descriptor) {
        const char *text = "{\"method\":\"org.kevd.events.Change\",\"parameters\":"
                           "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}}";
        struct json_object *reply;
        int fd = eventfd(0, EFD_CLOEXEC);

        client_send_with_fds(client, text, 20, &fd, 1);
        restart();
        client_send(client, text + 20, strlen(text) - 20 + 1);
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert_msg(reply && !json_at(reply, "/parameters/refused/0"), "%s", json_object_to_json_string(reply));
        json_object_put(reply);
        ck_assert_int_eq(eventfd_write(fd, 5), 0);
        expect_data("lowat", 5, 1);
        (void)close(fd);
}
END_TEST

enum { MANY = 400, CALLS = 5000 };

/* Replies of a client that doesn't read, a part of one written: none is missing, none comes twice. */
START_TEST(test_unread_replies) {
        struct json_object *reply;

        for (int i = 0; i < CALLS; i++)
                client_send_message(client, at("{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"n%d\"}}", i));
        restart();
        for (int i = 0; i < CALLS; i++) {
                reply = client_receive(client, HARNESS_REPLY_MSEC);
                ck_assert_int_eq(number_at(reply, "/parameters/reached"), 0);
                json_object_put(reply);
        }
        ck_assert_ptr_null(client_receive(client, 0));
}
END_TEST

START_TEST(test_many_clients) {
        int clients[MANY];

        for (int i = 0; i < MANY; i++) {
                clients[i] = client = i == 0 ? client : client_connect(manager_socket(manager));
                watch_it(at("{\"id\":1,\"filter\":\"user\",\"name\":\"n%d\"}", i));
        }
        restart();
        for (int i = 0; i < MANY; i++)
                trigger(at("n%d", i), i);
        for (int i = 0; i < MANY; i++) {
                client = clients[i];
                expect_data("trigger", i, 1);
                if (i > 0)
                        (void)close(client);
        }
        client = clients[0];
}
END_TEST

/* A service manager that has no time until the daemon has given up waiting for it. */
START_TEST(test_busy_manager) {
        watch_it(USER_WATCH);
        trigger("bell", 1);
        manager_stop_unheard(manager);
        manager_start(manager);
        expect_data("trigger", 1, 1);
        trigger("bell", 2);
        expect_data("trigger", 2, 2);
}
END_TEST

/* Who connects while there is no daemon waits for the next. */
START_TEST(test_connecting_meanwhile) {
        int other;

        manager_stop(manager);
        other = client_connect(manager_socket(manager));
        client_send_message(other, "{\"method\":\"org.kevd.events.GetLimits\"}");
        manager_start(manager);
        json_object_put(client_receive(other, HARNESS_REPLY_MSEC));
        (void)close(other);
}
END_TEST

START_TEST(test_client_goes_meanwhile) {
        int other = client_connect(manager_socket(manager));

        json_object_put(client_call(other, "org.kevd.events.Change", "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"x\"}]}"));
        manager_stop(manager);
        (void)close(other);
        manager_start(manager);
        watch_it(USER_WATCH);
        trigger("bell", 1);
        expect_data("trigger", 1, 1);
}
END_TEST

/* ---- watches -------------------------------------------------------------------------------------- */

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
}
END_TEST

static pid_t start_process(void) {
        pid_t pid = fork();

        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        (void)pause();
        }
        ck_assert_int_gt(pid, 0);
        return pid;
}

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
        (void)kill(pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
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
        (void)kill(pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
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

static void add_processes(TCase *c) {
        tcase_add_test(c, test_process);
        tcase_add_test(c, test_process_goes_on);
        tcase_add_test(c, test_process_family);
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

/* ---- files ------------------------------------------------------------------------------------------ */

static void setup_fanotify(void) {
        need_fanotify();
        begin((const char *const[]){ "--file-mechanism=fanotify", NULL });
}

static void watch_root(const char *root, const char *more) {
        watch_it(at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"%s}", root, more));
}

/* All that happens without a daemon, as it happened. */
START_TEST(test_tree) {
        const char *root = make_root("t");

        make_dir(at("%s/old", root));
        make_file(at("%s/old/g", root));
        watch_root(root, ",\"notes\":[\"create\",\"delete\",\"rename\"]");
        make_file(at("%s/before", root));
        manager_stop(manager);
        make_file(at("%s/a", root));
        make_dir(at("%s/d", root));
        make_file(at("%s/d/b", root));
        move(at("%s/d", root), at("%s/e", root));
        make_file(at("%s/e/c", root));
        make_file(at("%s/old/f", root));
        remove_file(at("%s/old/g", root));
        manager_start(manager);
        expect_path("create", at("%s/before", root));
        expect_path("create", at("%s/a", root));
        expect_path("create", at("%s/d", root));
        expect_path("create", at("%s/d/b", root));
        expect_path("rename", at("%s/e", root));
        expect_path("create", at("%s/e/c", root));
        expect_path("create", at("%s/old/f", root));
        expect_path("delete", at("%s/old/g", root));
        make_file(at("%s/e/g", root));
        expect_path("create", at("%s/e/g", root));
        expect_silence();
}
END_TEST

/* What is made in a directory of which nobody knows yet is told where it is found. */
START_TEST(test_tree_of_new_ones) {
        const char *root = make_root("t");

        watch_root(root, ",\"notes\":[\"create\",\"delete\",\"rename\"]");
        manager_stop(manager);
        make_dir(at("%s/d", root));
        make_dir(at("%s/d/e", root));
        make_file(at("%s/d/e/f", root));
        manager_start(manager);
        expect_path("create", at("%s/d", root));
        expect_path("create", at("%s/d/e", root));
        expect_path("create", at("%s/d/e/f", root));
        manager_stop(manager);
        remove_file(at("%s/d/e/f", root));
        move(at("%s/d/e", root), at("%s/e", root));
        make_file(at("%s/e/g", root));
        manager_start(manager);
        expect_path("delete", at("%s/d/e/f", root));
        expect_path("rename", at("%s/e", root));
        expect_path("create", at("%s/e/g", root));
        expect_silence();
}
END_TEST

START_TEST(test_tree_with_globs) {
        const char *root = make_root("t");

        make_dir(at("%s/d", root));
        watch_root(root, ",\"notes\":[\"create\"],\"tree\":{\"include\":[\"**/*.c\"],\"exclude\":[\"x*\"]}");
        manager_stop(manager);
        make_file(at("%s/d/a.c", root));
        make_file(at("%s/d/a.o", root));
        make_file(at("%s/x.c", root));
        manager_start(manager);
        expect_path("create", at("%s/d/a.c", root));
        expect_silence();
        restart();
        make_file(at("%s/d/b.o", root));
        make_file(at("%s/d/b.c", root));
        expect_path("create", at("%s/d/b.c", root));
        expect_silence();
}
END_TEST

START_TEST(test_tree_gone_and_back) {
        const char *root = make_root("t");

        watch_root(root, "");
        manager_stop(manager);
        remove_dir(root);
        manager_start(manager);
        expect_path("gone", root);
        restart();
        make_dir(root);
        expect_path("back", root);
        make_file(at("%s/a", root));
        expect_path("create", at("%s/a", root));
}
END_TEST

/* Another directory under the name. */
START_TEST(test_tree_replaced) {
        const char *root = make_root("t");

        watch_root(root, ",\"notes\":[\"create\",\"gone\",\"back\"]");
        manager_stop(manager);
        move(root, at("%s.old", root));
        make_dir(root);
        make_file(at("%s/a", root));
        manager_start(manager);
        expect_path("gone", root);
        expect_path("back", root);
        make_file(at("%s/b", root));
        expect_path("create", at("%s/b", root));
        make_file(at("%s.old/c", root));
        expect_silence();
        run(root, at("rm -r %s.old", root));
}
END_TEST

/* Another file system of the same kind, which may have the numbers of the old one. */
START_TEST(test_tree_mounted_anew) {
        const char *mount_point = make_root("m"), *root = at("%s/t", mount_point);
        struct json_object *event;
        bool told = false;

        if (mount("tmpfs", mount_point, "tmpfs", 0, NULL) < 0 && errno == EPERM)
                harness_skip("nothing can be mounted here");
        make_dir(root);
        watch_root(root, ",\"notes\":[\"create\",\"gone\",\"back\"]");
        manager_stop(manager);
        assert_system(umount2(mount_point, 0) == 0, "umount");
        assert_system(mount("tmpfs", mount_point, "tmpfs", 0, NULL) == 0, "mount");
        make_dir(root);
        manager_start(manager);
        while (!told) {
                event = next_event(client);
                told = has_note(event, "rescan");
                ck_assert_msg(told || has_note(event, "gone"), "%s", json_object_to_json_string(event));
                json_object_put(event);
        }
        make_file(at("%s/a", root));
        expect_path("create", at("%s/a", root));
        assert_system(umount2(mount_point, MNT_DETACH) == 0, "umount");
}
END_TEST

/* Many directories, most of them never looked at. */
START_TEST(test_tree_of_many) {
        const char *root = make_root("t");
        struct json_object *event;
        size_t n = make_tree(root, 6, 3), n_told = 0;

        watch_root(root, ",\"notes\":[\"create\"]");
        restart();
        manager_stop(manager);
        touch_tree(root, 6, 3, "new");
        manager_start(manager);
        while ((event = due_event(client))) {
                ck_assert_msg(has_note(event, "create"), "%s", json_object_to_json_string(event));
                json_object_put(event);
                n_told++;
        }
        ck_assert_int_eq(n_told, n);
}
END_TEST

/* What can't be gone on with is said to be in doubt, and goes on. */
START_TEST(test_tree_in_doubt) {
        const char *root = make_root("t");

        make_dir(at("%s/d", root));
        watch_root(root, ",\"notes\":[\"create\"],\"tree\":{\"crossMounts\":true}");
        make_file(at("%s/before", root));
        restart();
        expect_path("create", at("%s/before", root));
        expect_path("rescan", root);
        make_file(at("%s/d/after", root));
        expect_path("create", at("%s/d/after", root));
        expect_silence();
}
END_TEST

/* Another watch's directories are not forgotten with a client that goes meanwhile. */
START_TEST(test_tree_of_two) {
        const char *root = make_root("t");
        int first = client;

        make_dir(at("%s/d", root));
        make_dir(at("%s/d/e", root));
        watch_root(root, "");
        client = client_connect(manager_socket(manager));
        watch_root(at("%s/d", root), ",\"notes\":[\"create\"]");
        manager_stop(manager);
        (void)close(first);
        manager_start(manager);
        make_file(at("%s/d/e/f", root));
        expect_path("create", at("%s/d/e/f", root));
        make_file(at("%s/f", root));
        expect_silence();
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
        (void)kill(pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        if (refused)
                harness_skip("signals can't be followed here");
}
END_TEST

static void watch_fd(const char *text, int fd) {
        struct json_object *reply;
        const char *call = at("{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[%s]}}", text);

        client_send_with_fds(client, call, strlen(call) + 1, &fd, 1);
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert_msg(reply && !json_at(reply, "/parameters/refused/0"), "%s", json_object_to_json_string(reply));
        json_object_put(reply);
}

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

/* ---- what the last daemon has left ------------------------------------------------------------------- */

enum { STORED_TABLE = 1, STORED_EACH = 2 }; /* the connection, and its watches */

static void expect_clean_start(void) {
        manager_start(manager);
        client_expect_close(client, HARNESS_REPLY_MSEC);
        (void)close(client);
        client = client_connect(manager_socket(manager));
        watch_it(USER_WATCH);
        trigger("bell", 1);
        expect_data("trigger", 1, 1);
        manager_wait_stored(manager, STORED_TABLE + STORED_EACH); /* nothing of what there was */
}

static int memory_file(const void *bytes, size_t size, int seals) {
        int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_system(fd >= 0, "memfd_create");
        ck_assert_int_eq(write(fd, bytes, size), size);
        assert_system(fcntl(fd, F_ADD_SEALS, seals) == 0, "seal");
        return fd;
}

enum { ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, STATE_MAX = 64 * 1024 };

static size_t read_state(char *bytes) {
        int fd = manager_take_copy(manager, "kevd-state");
        ssize_t n = pread(fd, bytes, STATE_MAX, 0);

        ck_assert_int_eq(fcntl(fd, F_GET_SEALS), ALL_SEALS);
        ck_assert_int_gt(n, 0);
        (void)close(fd);
        return (size_t)n;
}

START_TEST(test_state_is_missing) {
        watch_it(USER_WATCH);
        manager_stop(manager);
        ck_assert_int_eq(manager_n_stored(manager), 2);
        manager_drop(manager, "kevd-state");
        expect_clean_start();
}
END_TEST

START_TEST(test_state_of_another_version) {
        static char bytes[STATE_MAX];
        size_t size;

        watch_it(USER_WATCH);
        manager_stop(manager);
        size = read_state(bytes);
        bytes[8]++;
        manager_replace(manager, "kevd-state", memory_file(bytes, size, ALL_SEALS));
        expect_clean_start();
}
END_TEST

START_TEST(test_state_is_not_sealed) {
        static char bytes[STATE_MAX];
        size_t size;

        watch_it(USER_WATCH);
        manager_stop(manager);
        size = read_state(bytes);
        manager_replace(manager, "kevd-state", memory_file(bytes, size, 0));
        expect_clean_start();
}
END_TEST

/* Cut off anywhere: the daemon starts, and the client is gone on with, or its connection ends. */
START_TEST(test_state_is_cut) {
        static char bytes[STATE_MAX];
        size_t size;

        watch_it(USER_WATCH);
        manager_stop(manager);
        size = read_state(bytes);
        for (size_t cut = 0; cut < size; cut += 8 * (size_t)(24 / harness_rounds(24))) {
                manager_replace(manager, "kevd-state", memory_file(bytes, MAX(cut, (size_t)1), ALL_SEALS));
                manager_start(manager);
                client_expect_close(client, HARNESS_REPLY_MSEC);
                (void)close(client);
                client = client_connect(manager_socket(manager));
                watch_it(USER_WATCH);
                manager_stop(manager);
        }
        manager_start(manager);
        trigger("bell", 1);
        expect_data("trigger", 1, 1);
}
END_TEST

/* A descriptor that the store had no room for. */
START_TEST(test_connection_was_not_kept) {
        manager_stop(manager);
        ck_assert(manager_has_stored(manager, "kevd-descriptors"));
        manager_drop(manager, "kevd-descriptors");
        expect_clean_start();
}
END_TEST

/* ---- a daemon that is killed ------------------------------------------------------------------------------ */

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
        json_object_put(client_receive(client, HARNESS_REPLY_MSEC));
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
        (void)kill(gone, SIGKILL);
        ck_assert_int_eq(waitpid(gone, NULL, 0), gone);
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
        (void)kill(pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        json_object_put(expect("exit"));
        make_file(at("%s/newer", root));
        expect_path("create", at("%s/newer", root));
        (void)close(fd);
}
END_TEST

START_TEST(test_kill_of_many) {
        int clients[MANY];

        for (int i = 0; i < MANY; i++) {
                clients[i] = client = i == 0 ? client : client_connect(manager_socket(manager));
                watch_it(at("{\"id\":1,\"filter\":\"user\",\"name\":\"n%d\"}", i));
        }
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

        for (int i = 0; i < MANY; i++) {
                clients[i] = client = i == 0 ? client : client_connect(manager_socket(manager));
                watch_it(at("{\"id\":1,\"filter\":\"user\",\"name\":\"n%d\"}", i));
        }
        wait_kept(MANY);
        manager_stop(manager);
        ck_assert(!manager_has_stored(manager, "kevd-live"));
        for (int i = 0; i < MANY; i++)
                ck_assert_msg(!manager_has_stored(manager, at("c%x", (unsigned)i)), "connection %d", i);
        manager_start(manager);
        for (int i = 0; i < MANY; i++)
                trigger(at("n%d", i), i);
        for (int i = 0; i < MANY; i++) {
                client = clients[i];
                expect_data("trigger", i, 1);
                if (i > 0)
                        (void)close(client);
        }
        client = clients[0];
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
        (void)kill(pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
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
        (void)kill(other, SIGKILL);
        ck_assert_int_eq(waitpid(other, NULL, 0), other);
        expect_silence();
}
END_TEST

static void add_trees(TCase *c) {
        tcase_add_test(c, test_tree_of_new_ones);
        tcase_add_test(c, test_tree_with_globs);
        tcase_add_test(c, test_tree_of_many);
        tcase_add_test(c, test_tree_of_two);
        tcase_add_test(c, test_tree_in_doubt);
        tcase_add_test(c, test_tree_gone_and_back);
        tcase_add_test(c, test_tree_replaced);
        tcase_add_test(c, test_tree_mounted_anew);
}

int main(int argc, char *argv[]) {
        Suite *s = harness_suite("restart");
        TCase *c;

        c = harness_case(s, "connections");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_events_that_nobody_took);
        tcase_add_test(c, test_wait_goes_on);
        tcase_add_test(c, test_wait_has_its_timeout);
        tcase_add_test(c, test_stream_goes_on);
        tcase_add_test(c, test_half_a_message);
        tcase_add_test(c, test_half_a_message_with_a_descriptor);
        tcase_add_test(c, test_unread_replies);
        tcase_add_test(c, test_many_clients);
        tcase_add_test(c, test_busy_manager);
        tcase_add_test(c, test_connecting_meanwhile);
        tcase_add_test(c, test_client_goes_meanwhile);

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

        c = harness_case(s, "inotify");
        tcase_add_checked_fixture(c, setup, teardown);
        add_trees(c);

        c = harness_case(s, "fanotify");
        tcase_add_checked_fixture(c, setup_fanotify, teardown);
        add_trees(c);
        tcase_add_test(c, test_tree);

        c = harness_case(s, "state");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_set_timeout(c, 120);
        tcase_add_test(c, test_state_is_missing);
        tcase_add_test(c, test_state_of_another_version);
        tcase_add_test(c, test_state_is_not_sealed);
        tcase_add_test(c, test_state_is_cut);
        tcase_add_test(c, test_connection_was_not_kept);

        c = harness_case(s, "kill");
        tcase_add_checked_fixture(c, setup, teardown);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_kill);
        tcase_add_test(c, test_kill_while_waiting);
        tcase_add_test(c, test_kill_of_a_stream);
        tcase_add_test(c, test_kill_within_a_call);
        tcase_add_test(c, test_kill_without_watches);
        tcase_add_test(c, test_kill_of_all_filters);
        tcase_add_test(c, test_kill_of_many);
        tcase_add_test(c, test_restart_of_many);
        tcase_add_test(c, test_kill_and_another_process);
        return harness_main(argc, argv);
}
