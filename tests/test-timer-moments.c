/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * timer watches on the real daemon, and moments: each comes once and not before its time, of many at the same time too,
 * and at once where it is past.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"
#include "timers.h"

static const struct {
        const char *note;
        int64_t usec; /* of one */
} units[] = {
        { "sec", 1000000 }, { "msec", 1000 }, { "usec", 1 }, { "nsec", 0 },
};

static int64_t in_units(size_t unit, int64_t usec) {
        return units[unit].usec ? usec / units[unit].usec : usec * 1000;
}

START_TEST(test_past) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        const int64_t moments[] = { 0, 1, in_units((size_t)_i, clock_usec(CLOCK_REALTIME)) };

        harness_label(units[_i].note);
        for (size_t i = 0; i < ARRAY_SIZE(moments); i++) {
                struct json_object *event;

                client_change(fd, "{\"add\":[{\"id\":%zu,\"filter\":\"timer\",\"data\":%lld,"
                                  "\"notes\":[\"abstime\",\"%s\"]}]}", i, (long long)moments[i], units[_i].note);
                event = due_event(fd); /* at once: in the very next answer */
                ck_assert_msg(event, "a moment that is past did not fire");
                ck_assert_int_eq(number_at(event, "/id"), (int64_t)i);
                ck_assert_int_eq(number_at(event, "/data"), 1);
                ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
                json_object_put(event);
                expect_nothing(fd); /* once */
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_future) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *event;
        int64_t moment;

        harness_label(units[_i].note);
        moment = clock_usec(CLOCK_REALTIME) + (_i == 0 ? 1500000 : 60000);
        if (units[_i].usec)
                moment -= moment % units[_i].usec;
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"%s\",\"abstime\"]}]}",
                      (long long)in_units((size_t)_i, moment), units[_i].note);
        event = next_event(fd);
        ck_assert_int_ge(clock_usec(CLOCK_REALTIME), moment);
        ck_assert_int_ge(number_at(event, "/realtimeUsec"), moment);
        ck_assert_int_eq(number_at(event, "/data"), 1);
        json_object_put(event);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* A moment comes once as it is: with oneshot its watch is gone then, without it stays until it is removed. */
START_TEST(test_moment_ends) {
        static const char *const flags[] = { "", ",\"flags\":[\"oneshot\"]" };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *event;

        for (int i = 0; i < 2; i++) {
                int64_t moment = clock_usec(CLOCK_REALTIME) / 1000 + 30;

                client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"abstime\"]%s}]}",
                              (long long)moment, flags[i]);
                event = next_event(fd);
                ck_assert_int_ge(number_at(event, "/realtimeUsec"), moment * 1000);
                ck_assert_int_eq(number_at(event, "/data"), 1);
                json_object_put(event);
                let_pass(60); /* twice the time that it took: a period would come again */
                expect_nothing(fd);
                if (i == 0)
                        client_change(fd, "{\"remove\":[1]}");
                else
                        refused(fd, "{\"remove\":[1]}", "ENOENT");
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Many moments, the same and different ones, in no order; some are taken back. */
START_TEST(test_moments) {
        enum { N = 200 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        int64_t now = clock_usec(CLOCK_REALTIME) / 1000, moments[N];
        bool fired[N] = { false };
        size_t left = N;

        for (int i = 0; i < N; i++) {
                moments[i] = now + 150 + i * 37 % 50;
                client_change(fd, "{\"add\":[{\"id\":%d,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"abstime\"]}]}",
                              i, (long long)(i % 10 == 0 ? now + 3600 * 1000 : moments[i]));
        }
        for (int i = 0; i < N; i += 10) {
                client_change(fd, "{\"remove\":[%d]}", i);
                left--;
        }
        while (left > 0) {
                struct json_object *event = next_event(fd);
                int64_t id = number_at(event, "/id");

                ck_assert_int_ne(id % 10, 0);
                ck_assert(!fired[id]);
                fired[id] = true;
                ck_assert_int_ge(number_at(event, "/realtimeUsec"), moments[id] * 1000);
                json_object_put(event);
                left--;
        }
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* `n` watches for one moment, with the ids from 0 on. */
static void add_moments(int fd, int n, int64_t msec) {
        char list[500 * 100]; /* of a request's 64 KiB */
        size_t size = 0;

        for (int i = 0; i < n; i++) {
                size += (size_t)snprintf(list + size, sizeof(list) - size,
                                         "%s{\"id\":%d,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"abstime\"]}",
                                         size ? "," : "", i, (long long)msec);
                if (size < sizeof(list) - 200 && i < n - 1)
                        continue;
                client_change(fd, "{\"add\":[%s]}", list);
                size = 0;
        }
}

/* Each of them once, by any order. */
static void expect_moments(int fd, int n, int64_t msec) {
        _cleanup_(freep) bool *fired = calloc((size_t)n, sizeof(*fired));

        ck_assert_ptr_nonnull(fired);
        for (int i = 0; i < n; i++) {
                struct json_object *event = next_event(fd);
                int64_t id = number_at(event, "/id");

                ck_assert_msg(!fired[id], "%lld came twice", (long long)id);
                fired[id] = true;
                ck_assert_int_eq(number_at(event, "/data"), 1);
                ck_assert_int_ge(number_at(event, "/realtimeUsec"), msec * 1000);
                json_object_put(event);
        }
        expect_nothing(fd);
}

/* More than fire in one turn. */
START_TEST(test_many_past) {
        enum { N = 1500 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);

        add_moments(fd, N, 1);
        expect_moments(fd, N, 1);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static int64_t events_told(struct json_object *status) {
        return number_at(status, "/parameters/counters/eventsIn");
}

/* Stopped, with so many moments that are to come. False: they came before. */
static bool stop_before_moments(const struct daemon *daemon, int fd, int n, int64_t msec) {
        add_moments(fd, n, msec);
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        if (clock_usec(CLOCK_REALTIME) < msec * 1000)
                return true;
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        return false;
}

/* All are due when the daemon goes on, and a call of somebody else's is there: it need not wait for all of them. */
START_TEST(test_many_due) {
        enum { N = 4000 };
        struct daemon *daemon = daemon_start("--mux", _i ? "poll" : "epoll");
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        struct json_object *status;
        int64_t moment, before = 0;

        for (int64_t lead_msec = 500;; lead_msec *= 2) {
                moment = clock_usec(CLOCK_REALTIME) / 1000 + lead_msec;
                if (stop_before_moments(daemon, fd, N, moment))
                        break;
                expect_moments(fd, N, moment); /* a slow machine */
                before += N;
                (void)close(fd);
                fd = client_connect(daemon->socket);
        }
        while (clock_usec(CLOCK_REALTIME) <= moment * 1000)
                let_pass(1);
        client_send_message(other, "{\"method\":\"org.kevd.manager.GetStatus\"}");
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        status = client_receive(other, HARNESS_REPLY_MSEC);
        ck_assert_msg(events_told(status) - before < N, "the call was answered after all %d had fired", N);
        json_object_put(status);
        expect_moments(fd, N, moment);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* The earliest is taken back, again and again: the next one comes all the same, at its time. */
START_TEST(test_earliest_taken_back) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        int64_t moment = clock_usec(CLOCK_REALTIME) / 1000 + 200;

        add_moment(fd, 0, moment);
        for (int i = 1; i <= 20; i++) {
                add_moment(fd, 1, moment - i * 5);
                client_change(fd, "{\"remove\":[1]}"); /* with its event, if it was so late */
        }
        expect_moment(fd, 0, moment);

        /* None is left: the next one after that comes, too. */
        client_change(fd, "{\"remove\":[0]}");
        moment = clock_usec(CLOCK_REALTIME) / 1000 + 20;
        add_moment(fd, 2, moment);
        expect_moment(fd, 2, moment);
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("timer-moments"), "moments");

        tcase_add_loop_test(c, test_past, 0, ARRAY_SIZE(units));
        tcase_add_loop_test(c, test_future, 0, ARRAY_SIZE(units));
        tcase_add_test(c, test_moment_ends);
        tcase_add_test(c, test_moments);
        tcase_add_test(c, test_many_past);
        tcase_add_loop_test(c, test_many_due, 0, 2);
        tcase_add_test(c, test_earliest_taken_back);
        return harness_main(argc, argv);
}
