/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One client of the real daemon is not harmed by another: not by one that sends garbage, nor by those that keep the
 * daemon busy with calls, with long calls, or with timers.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <json-c/json.h>

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

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("protocol-neighbours"), "neighbours");

        tcase_add_test(c, test_garbage_beside);
        tcase_add_test(c, test_busy_triggers_beside);
        tcase_add_test(c, test_long_calls_beside);
        tcase_add_loop_test(c, test_many_busy_connections, 0, 2);
        tcase_add_test(c, test_busy_timers_beside);
        return harness_main(argc, argv);
}
