/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * timer watches on the real daemon, and periods: each expiry is counted once, however late it is told and however short
 * the period.
 */

#include <signal.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"
#include "timers.h"

/* All expiries up to now. */
static int64_t expiries_due(int fd) {
        struct json_object *event;
        int64_t n = 0;

        while ((event = due_event(fd))) {
                ck_assert_int_ge(number_at(event, "/data"), 1);
                ck_assert_int_eq(number_at(event, "/count"), 1);
                n += number_at(event, "/data");
                json_object_put(event);
        }
        return n;
}

static const struct {
        const char *notes;
        int64_t data, period_usec;
} periods[] = {
        { "[]", 7, 7000 },         { "[\"msec\"]", 10, 10000 }, { "[\"usec\"]", 7500, 7500 },
        { "[\"nsec\"]", 5000000, 5000 }, { "[\"msec\"]", 0, 1000 }, { "[]", 0, 1000 },
};

/* A timer of 7 ms has expired as often as 7 ms fit into the time since it was made. */
START_TEST(test_period) {
        struct daemon *daemon = daemon_start("--mux", _i % 2 ? "poll" : "epoll");
        int fd = client_connect(daemon->socket);
        int64_t before, made, end, least, most, found;
        struct json_object *event;

        harness_label(periods[_i].notes);
        before = now_usec();
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":%s}]}",
                      (long long)periods[_i].data, periods[_i].notes);
        made = now_usec();
        event = next_event(fd);
        ck_assert_str_eq(text_at(event, "/filter"), "timer");
        ck_assert_ptr_null(json_at(event, "/flags"));
        found = number_at(event, "/data");
        json_object_put(event);
        ck_assert_int_ge(now_usec() - before, periods[_i].period_usec);

        let_pass(150);
        end = now_usec();
        found += expiries_due(fd);
        least = (end - made) / periods[_i].period_usec;
        most = (now_usec() - before) / periods[_i].period_usec;
        ck_assert_msg(found >= least && found <= most, "%lld expiries, not from %lld to %lld", (long long)found,
                      (long long)least, (long long)most);
        client_change(fd, "{\"remove\":[1]}");
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Seconds: not before one has passed, for 1 and for 0. */
START_TEST(test_seconds) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        int64_t before = now_usec();
        struct json_object *event;

        client_change(fd, "{\"add\":[{\"id\":0,\"filter\":\"timer\",\"data\":0,\"notes\":[\"sec\"]},"
                          "{\"id\":1,\"filter\":\"timer\",\"data\":1,\"notes\":[\"sec\"]}]}");
        for (int i = 0; i < 2; i++) {
                event = next_event(fd);
                ck_assert_int_ge(now_usec() - before, 1000000);
                ck_assert_int_eq(number_at(event, "/data"), 1);
                ck_assert_str_eq(text_at(event, "/notes/0"), "sec");
                json_object_put(event);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* What passes while the daemon does not run is counted. */
START_TEST(test_missed) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        int64_t before, made, end, found;
        struct json_object *event;

        before = now_usec();
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5}]}");
        made = now_usec();
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        let_pass(100);
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        end = now_usec();
        event = due_event(fd);
        ck_assert_ptr_nonnull(event);
        found = number_at(event, "/data");
        json_object_put(event);
        found += expiries_due(fd);
        ck_assert_int_ge(found, (end - made) / 5000);
        ck_assert_int_le(found, (now_usec() - before) / 5000);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Late again and again, it loses nothing: the next expiry is counted from the start, not from the last one told. */
START_TEST(test_phase) {
        enum { PERIOD_USEC = 10000, ROUNDS = 12 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        int64_t before, made, found = 0;

        before = now_usec();
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%d,\"notes\":[\"usec\"]}]}", PERIOD_USEC);
        made = now_usec();
        for (int i = 0; i < ROUNDS; i++) {
                struct json_object *event;

                ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
                let_pass(11 + i);
                ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
                event = next_event(fd);
                found += number_at(event, "/data");
                ck_assert_int_ge(now_usec() - before, found * PERIOD_USEC);
                json_object_put(event);
        }
        made = now_usec() - made;
        found += expiries_due(fd);
        ck_assert_msg(found >= made / PERIOD_USEC && found <= (now_usec() - before) / PERIOD_USEC,
                      "%lld expiries, not from %lld to %lld", (long long)found, (long long)made / PERIOD_USEC,
                      (long long)(now_usec() - before) / PERIOD_USEC);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static const struct {
        const char *name;
        int64_t data;
        const char *unit;
        int64_t period_nsec;
} short_periods[] = {
        { "0 usec", 0, "usec", 1000 },
        { "1 usec", 1, "usec", 1000 },
        { "0 nsec", 0, "nsec", 1 },
        { "1 nsec", 1, "nsec", 1 },
};

/* Shorter than anybody can be told of: expiries come in numbers, none of them early, and others are served. */
START_TEST(test_short_periods) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        int64_t before = now_usec(), found = 0;

        harness_label(short_periods[_i].name);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"%s\"]}]}",
                      (long long)short_periods[_i].data, short_periods[_i].unit);
        for (int i = 0; i < 20 || found < 1000; i++) {
                struct json_object *event = next_event(fd);

                ck_assert_int_ge(number_at(event, "/data"), 1);
                found += number_at(event, "/data");
                ck_assert_int_le(found, (now_usec() - before + 1) * 1000 / short_periods[_i].period_nsec);
                json_object_put(event);
                json_object_put(client_call(other, "org.kevd.manager.GetStatus", NULL));
        }
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

static int64_t pending_bytes(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        int64_t bytes = number_at(reply, "/parameters/queueBytes");

        json_object_put(reply);
        return bytes;
}

/* At the queue's bound its events are merged into one: which has all the expiries. */
START_TEST(test_merged) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        int64_t before, made, end, found = 0, bound, bytes;
        struct json_object *reply, *event;

        reply = client_call(fd, "org.kevd.events.GetLimits", NULL);
        bound = number_at(reply, "/parameters/queueBytes");
        json_object_put(reply);
        before = now_usec();
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5},"
                          "{\"id\":2,\"filter\":\"user\",\"name\":\"n\"}]}");
        made = now_usec();
        /* Other events fill the queue up to where the timer's meet its bound. */
        while ((bytes = pending_bytes(other)) < bound - 4096)
                for (int i = 0; i < (bound - bytes > 1024 * 1024 ? 500 : 3); i++)
                        client_send_message(other, "{\"method\":\"org.kevd.events.Trigger\",\"oneway\":true,"
                                                   "\"parameters\":{\"name\":\"n\"}}");
        do {
                let_pass(20);
                reply = client_call(other, "org.kevd.manager.GetStatus", NULL);
                bytes = number_at(reply, "/parameters/counters/merged");
                json_object_put(reply);
        } while (bytes == 0);
        end = now_usec();
        client_change(fd, "{\"remove\":[2]}"); /* with its events */
        while ((event = due_event(fd))) {
                found += number_at(event, "/data");
                json_object_put(event);
        }
        ck_assert_msg(found >= (end - made) / 5000 && found <= (now_usec() - before) / 5000,
                      "%lld expiries, not from %lld to %lld", (long long)found, (long long)(end - made) / 5000,
                      (long long)(now_usec() - before) / 5000);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* It delivers once: all that was due by then. */
START_TEST(test_oneshot) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *event;
        int64_t before = now_usec();

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5,\"flags\":[\"oneshot\"]}]}");
        let_pass(30);
        event = next_event(fd);
        /* One expiry, as kqueue has it, or all: but none of what it stands for may be missing. */
        ck_assert_int_ge(number_at(event, "/data"), number_at(event, "/count"));
        ck_assert_int_le(number_at(event, "/data"), (now_usec() - before) / 5000);
        json_object_put(event);
        refused(fd, "{\"remove\":[1]}", "ENOENT");
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_dispatch) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5,\"flags\":[\"dispatch\"]}]}");
        for (int i = 0; i < 5; i++) {
                json_object_put(next_event(fd));
                let_pass(12);
                expect_nothing(fd);
                client_change(fd, "{\"enable\":[1]}");
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("timer-periods"), "periods");

        tcase_add_loop_test(c, test_period, 0, ARRAY_SIZE(periods));
        tcase_add_test(c, test_seconds);
        tcase_add_test(c, test_missed);
        tcase_add_test(c, test_phase);
        tcase_add_loop_test(c, test_short_periods, 0, ARRAY_SIZE(short_periods));
        tcase_add_test(c, test_merged);
        tcase_add_test(c, test_oneshot);
        tcase_add_test(c, test_dispatch);
        return harness_main(argc, argv);
}
