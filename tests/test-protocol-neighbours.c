/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One client of the real daemon is not harmed by another: not by one that sends garbage, nor by those that keep the
 * daemon busy with calls, with long calls, or with timers.
 */

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "macro.h"
#include "protocol.h"

START_TEST(test_garbage_beside) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), bad[16];
        unsigned seed = 1;
        size_t before;

        expect_answers(fd);
        before = n_fds_of(daemon->pid);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        for (int i = 0; i < 300; i++) {
                struct json_object *reply;

                for (size_t n = 0; n < ARRAY_SIZE(bad); n++) {
                        char garbage[300];

                        for (size_t k = 0; k < sizeof(garbage); k++)
                                garbage[k] = (char)(rand_r(&seed) >> 8);
                        bad[n] = client_connect(daemon->socket);
                        client_send(bad[n], garbage, 1 + n * 18);
                }
                ck_assert_int_eq(trigger(fd, "n", i), 1);
                reply = take(fd);
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/data"), i);
                json_object_put(reply);
                for (size_t n = 0; n < ARRAY_SIZE(bad); n++)
                        (void)close(bad[n]);
        }
        expect_fds(daemon, before);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static int64_t events_in(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        int64_t n = number_at(reply, "/parameters/counters/eventsIn");

        json_object_put(reply);
        return n;
}

static void connect_busy(struct daemon *daemon, int *busy, int n) {
        for (int i = 0; i < n; i++) {
                busy[i] = client_connect(daemon->socket);
                expect_answers(busy[i]);
        }
}

/* Several connections, each with many calls that reach thousands of watches: they are run in turns, and another's call
 * comes between them. */
START_TEST(test_busy_triggers_beside) {
        enum { WATCHES = 4096, BUSY = 5, CALLS = 32 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket), busy[BUSY];
        struct json_object *reply;

        watch_name(fd, "n", 0, WATCHES);
        connect_busy(daemon, busy, BUSY);
        expect_answers(other);
        expect_answers(fd); /* so that the other is not what the daemon looks at first */
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        for (int i = 0; i < BUSY; i++)
                for (int n = 0; n < CALLS; n++)
                        client_send_message(busy[i], TRIGGER_REPLIED);
        client_send_message(other, "{\"method\":\"org.kevd.manager.GetStatus\"}");
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        reply = receive(other);
        ck_assert_int_le(number_at(reply, "/parameters/counters/eventsIn"), BUSY * CALLS * WATCHES / 4);
        json_object_put(reply);
        for (int i = 0; i < BUSY; i++)
                for (int n = 0; n < CALLS; n++) {
                        reply = receive(busy[i]);
                        ck_assert_int_eq(number_at(reply, "/parameters/reached"), WATCHES);
                        json_object_put(reply);
                }
        ck_assert_int_eq(events_in(other), BUSY * CALLS * WATCHES);
        for (int i = 0; i < BUSY; i++)
                (void)close(busy[i]);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* The same with calls that are long by themselves, of which a user has one under way at a time. */
START_TEST(test_long_calls_beside) {
        static const char *const names[] = { "a", "b", "c", "d", "e" };
        enum { BUSY = ARRAY_SIZE(names), CALLS = 4, WATCHES = 1000 };
        struct daemon *daemon = daemon_start(NULL);
        int other = client_connect(daemon->socket), busy[BUSY];
        struct json_object *reply;

        connect_busy(daemon, busy, BUSY);
        expect_answers(other);
        expect_answers(busy[0]);
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        for (int n = 0; n < CALLS; n++)
                for (int i = 0; i < BUSY; i++)
                        send_watches(busy[i], names[i], n * WATCHES, WATCHES);
        client_send_message(other, "{\"method\":\"org.kevd.manager.GetStatus\"}");
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        reply = receive(other);
        ck_assert_int_le(number_at(reply, "/parameters/watches"), BUSY * CALLS * WATCHES / 4);
        json_object_put(reply);
        for (int i = 0; i < BUSY; i++)
                for (int n = 0; n < CALLS; n++)
                        expect_none_refused(busy[i]);
        reply = client_call(other, "org.kevd.manager.GetStatus", NULL);
        ck_assert_int_eq(number_at(reply, "/parameters/watches"), BUSY * CALLS * WATCHES);
        json_object_put(reply);
        for (int i = 0; i < BUSY; i++)
                (void)close(busy[i]);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* Hundreds of connections with calls of their own: none is passed over, and each has its calls run in their order. */
START_TEST(test_many_busy_connections) {
        enum { N = 200, CALLS = 150 };
        struct daemon *daemon = daemon_start("--mux", _i == 0 ? "epoll" : "poll");
        int fds[N];

        for (int i = 0; i < N; i++) {
                fds[i] = client_connect(daemon->socket);
                expect_answers(fds[i]);
        }
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        for (int i = 0; i < N; i++) {
                char all[CALLS * 64];
                size_t size = 0;

                for (int n = 0; n < CALLS; n++)
                        size += (size_t)snprintf(all + size, sizeof(all) - size, "{\"method\":\"org.kevd.events.M%d\"}", n) + 1;
                client_send(fds[i], all, size);
        }
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        for (int i = 0; i < N; i++) {
                for (int n = 0; n < CALLS; n++) {
                        struct json_object *reply = receive(fds[i]);
                        char expected[64];

                        (void)snprintf(expected, sizeof(expected), "org.kevd.events.M%d", n);
                        ck_assert_str_eq(text_at(reply, "/parameters/method"), expected);
                        json_object_put(reply);
                }
                (void)close(fds[i]);
        }
        daemon_stop(daemon);
}
END_TEST

/* Timers that fire all the time: another client's call still goes through. */
START_TEST(test_busy_timers_beside) {
        enum { TIMERS = 100000, A_CALL = 1000, BOUND_MSEC = 100 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        char *text = malloc(A_CALL * 80);
        int64_t worst = 0;

        ck_assert_ptr_nonnull(text);
        for (int id = 0; id < TIMERS;) {
                size_t size = 0;

                for (int i = 0; i < A_CALL; i++)
                        size += (size_t)sprintf(text + size, "%s{\"id\":%d,\"filter\":\"timer\",\"data\":0,\"notes\":[\"nsec\"]}",
                                                i ? "," : "", id++);
                client_change(fd, "{\"add\":[%s]}", text);
        }
        for (int i = 0; i < 20; i++) {
                int64_t start = now_msec();

                expect_answers(other);
                worst = MAX(worst, now_msec() - start);
        }
        /* "a few milliseconds" is what is promised; a busy machine gets room. */
        ck_assert_msg(worst <= BOUND_MSEC, "another client's call took %lld ms", (long long)worst);
        free(text);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

enum { PILE = 40, OBJECTS = 20000 };

/* A long call, as costly to parse and to free as there is one. The caller frees it. */
static char *make_costly_call(void) {
        static const char begin[] = "{\"method\":\"org.kevd.none\",\"parameters\":{\"a\":[{}", end[] = "]}}";
        char *text = malloc(sizeof(begin) + (size_t)OBJECTS * 3 + sizeof(end)), *at;

        ck_assert_ptr_nonnull(text);
        at = stpcpy(text, begin);
        for (int i = 1; i < OBJECTS; i++)
                at = stpcpy(at, ",{}");
        (void)strcpy(at, end);
        return text;
}

/* Short calls without end, and their replies, on as many connections. */
static pid_t start_flood(struct daemon *daemon) {
        static const char call[] = "{\"method\":\"org.kevd.events.GetLimits\"}";
        pid_t pid = fork();
        struct pollfd fds[PILE];

        assert_system(pid >= 0, "fork");
        if (pid > 0)
                return pid;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (int i = 0; i < PILE; i++)
                fds[i] = (struct pollfd){ .fd = client_connect(daemon->socket), .events = POLLIN | POLLOUT };
        while (poll(fds, PILE, -1) > 0)
                for (int i = 0; i < PILE; i++) {
                        static char replies[65536];

                        if (fds[i].revents & POLLOUT)
                                (void)!send(fds[i].fd, call, sizeof(call), MSG_DONTWAIT | MSG_NOSIGNAL);
                        if (fds[i].revents & POLLIN)
                                (void)!recv(fds[i].fd, replies, sizeof(replies), MSG_DONTWAIT);
                }
        _exit(1);
}

static int64_t peak_mib(pid_t pid) {
        FILE *status = fopen(at("/proc/%d/status", (int)pid), "re");
        char line[256];
        long kib = -1;

        assert_system(status, "status");
        while (kib < 0 && fgets(line, sizeof(line), status))
                (void)sscanf(line, "VmHWM: %ld", &kib);
        (void)fclose(status);
        ck_assert_int_ge(kib, 0);
        return kib / 1024;
}

/* What was parsed of a long call is freed by and by, and the next one waits for that: one by one they take the memory of
 * one, with however many connections, and whatever else these do. */
START_TEST(test_long_calls_pile_up) {
        struct daemon *daemon = daemon_start("--limit-requests=1000000");
        char *text = make_costly_call();
        int64_t one, all;
        pid_t flood;
        int fds[PILE];

        if (IS_SANITIZED)
                harness_skip("the sanitizers keep what was freed");
        fds[0] = client_connect(daemon->socket);
        client_send_message(fds[0], text);
        json_object_put(receive(fds[0]));
        expect_answers(fds[0]);
        one = peak_mib(daemon->pid);
        flood = start_flood(daemon);
        for (int i = 1; i < PILE; i++) {
                fds[i] = client_connect(daemon->socket);
                client_send_message(fds[i], text);
        }
        for (int i = 1; i < PILE; i++)
                json_object_put(receive(fds[i]));
        all = peak_mib(daemon->pid);
        ck_assert_msg(all < 3 * one, "%d calls: %lld MiB, one: %lld", PILE, (long long)all, (long long)one);
        (void)kill(flood, SIGKILL);
        ck_assert_int_eq(waitpid(flood, NULL, 0), flood);
        for (int i = 0; i < PILE; i++)
                (void)close(fds[i]);
        free(text);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("protocol-neighbours"), "neighbours");

        tcase_add_test(c, test_garbage_beside);
        tcase_add_test(c, test_busy_triggers_beside);
        tcase_add_test(c, test_long_calls_beside);
        tcase_add_loop_test(c, test_many_busy_connections, 0, 2);
        tcase_add_test(c, test_busy_timers_beside);
        tcase_add_test(c, test_long_calls_pile_up);
        return harness_main(argc, argv);
}
