/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * timer watches, user watches and Trigger against the real daemon. Nothing here relies on a machine
 * that is quick: an event must not come before its time, must come in the end, and its figures must
 * lie between what the clock says before and after.
 */

#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"

/* ---- helpers --------------------------------------------------------------------------------------- */

static char *format_list(const char *format, va_list args) {
        char *text;

        ck_assert_int_ge(vasprintf(&text, format, args), 0);
        return text;
}

__attribute__((format(printf, 2, 3))) static void change(int fd, const char *format, ...) {
        _cleanup_(freep) char *parameters = NULL;
        struct json_object *reply;
        va_list args;

        va_start(args, format);
        parameters = format_list(format, args);
        va_end(args);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        ck_assert_msg(json_at(reply, "/parameters/refused") && !json_at(reply, "/parameters/refused/0"), "%s: %s",
                      parameters, json_object_to_json_string(reply));
        json_object_put(reply);
}

static void refused(int fd, const char *parameters, const char *error) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Change", parameters);

        ck_assert_msg(strcmp(text_at(reply, "/parameters/refused/0/errno"), error) == 0, "%s: %s", parameters,
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

static void drain(int fd) {
        struct json_object *event;

        while ((event = due_event(fd)))
                json_object_put(event);
}

static void expect_nothing(int fd) {
        struct json_object *event = due_event(fd);

        ck_assert_msg(!event, "%s", json_object_to_json_string(event));
}

static int64_t clock_usec(clockid_t clock) {
        struct timespec t;

        ck_assert_int_eq(clock_gettime(clock, &t), 0);
        return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static int64_t now_usec(void) {
        return clock_usec(CLOCK_MONOTONIC);
}

static void let_pass(int64_t msec) {
        (void)poll(NULL, 0, (int)msec);
}

/* ---- periods ------------------------------------------------------------------------------------------ */

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
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":%s}]}", (long long)periods[_i].data,
               periods[_i].notes);
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
        change(fd, "{\"remove\":[1]}");
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

        change(fd, "{\"add\":[{\"id\":0,\"filter\":\"timer\",\"data\":0,\"notes\":[\"sec\"]},"
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
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5}]}");
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
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%d,\"notes\":[\"usec\"]}]}", PERIOD_USEC);
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
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"%s\"]}]}",
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
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5},{\"id\":2,\"filter\":\"user\",\"name\":\"n\"}]}");
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
        change(fd, "{\"remove\":[2]}"); /* with its events */
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

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5,\"flags\":[\"oneshot\"]}]}");
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

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5,\"flags\":[\"dispatch\"]}]}");
        for (int i = 0; i < 5; i++) {
                json_object_put(next_event(fd));
                let_pass(12);
                expect_nothing(fd);
                change(fd, "{\"enable\":[1]}");
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- moments --------------------------------------------------------------------------------------------- */

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

                change(fd, "{\"add\":[{\"id\":%zu,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"abstime\",\"%s\"]}]}", i,
                       (long long)moments[i], units[_i].note);
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
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"%s\",\"abstime\"]}]}",
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

                change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"abstime\"]%s}]}",
                       (long long)moment, flags[i]);
                event = next_event(fd);
                ck_assert_int_ge(number_at(event, "/realtimeUsec"), moment * 1000);
                ck_assert_int_eq(number_at(event, "/data"), 1);
                json_object_put(event);
                let_pass(60); /* twice the time that it took: a period would come again */
                expect_nothing(fd);
                if (i == 0)
                        change(fd, "{\"remove\":[1]}");
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
                change(fd, "{\"add\":[{\"id\":%d,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"abstime\"]}]}", i,
                       (long long)(i % 10 == 0 ? now + 3600 * 1000 : moments[i]));
        }
        for (int i = 0; i < N; i += 10) {
                change(fd, "{\"remove\":[%d]}", i);
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

static void add_moment(int fd, int64_t id, int64_t msec) {
        change(fd, "{\"add\":[{\"id\":%lld,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"abstime\"]}]}",
               (long long)id, (long long)msec);
}

static void expect_moment(int fd, int64_t id, int64_t msec) {
        struct json_object *event = next_event(fd);

        ck_assert_int_eq(number_at(event, "/id"), id);
        ck_assert_int_eq(number_at(event, "/data"), 1);
        ck_assert_int_ge(number_at(event, "/realtimeUsec"), msec * 1000);
        ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
        json_object_put(event);
}

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
                change(fd, "{\"add\":[%s]}", list);
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
                change(fd, "{\"remove\":[1]}"); /* with its event, if it was so late */
        }
        expect_moment(fd, 0, moment);

        /* None is left: the next one after that comes, too. */
        change(fd, "{\"remove\":[0]}");
        moment = clock_usec(CLOCK_REALTIME) / 1000 + 20;
        add_moment(fd, 2, moment);
        expect_moment(fd, 2, moment);
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- what can't be, and what is changed ---------------------------------------------------------------------- */

static const char *const impossible[] = {
        "{\"add\":[{\"id\":2,\"filter\":\"timer\"}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":-1}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":-9223372036854775807}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":9223372036854775807}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":9223372036854775807,\"notes\":[\"nsec\"]}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":9223372036854775807,\"notes\":[\"abstime\",\"nsec\"]}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":1000000000000,\"notes\":[\"sec\"]}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":1,\"notes\":[\"sec\",\"nsec\"]}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":1,\"notes\":[\"sec\",\"abstime\",\"usec\"]}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":1,\"notes\":[\"trigger\"]}]}",
        "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":1,\"name\":\"n\"}]}",
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":-1}]}",
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"notes\":[\"sec\",\"msec\"]}]}",
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"notes\":[\"sec\"]}]}",
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"notes\":[\"abstime\"]}]}",
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"pid\":1}]}",
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":9223372036854775807,\"notes\":[\"sec\"]}]}",
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":9223372036854775807,\"notes\":[\"abstime\",\"sec\"]}]}",
};

/* What is refused changes nothing: the timer that is there goes on as it was. */
START_TEST(test_refused) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *event;

        harness_label(impossible[_i]);
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":20}]}");
        refused(fd, impossible[_i], "EINVAL");
        for (int i = 0; i < 3; i++) {
                drain(fd);
                event = next_event(fd);
                ck_assert_int_eq(number_at(event, "/id"), 1);
                ck_assert_str_eq(text_at(event, "/notes/0"), "msec");
                json_object_put(event);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The same for a moment that is there. */
START_TEST(test_refused_beside_moment) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        int64_t moment = clock_usec(CLOCK_REALTIME) / 1000 + 150;

        add_moment(fd, 1, moment);
        for (size_t i = 0; i < ARRAY_SIZE(impossible); i++)
                if (!strstr(impossible[i], "\"timer\",\"notes\":[\"abstime\"]")) /* which it has already */
                        refused(fd, impossible[i], "EINVAL");
        expect_moment(fd, 1, moment);
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static const struct {
        const char *notes;
        int64_t unit_nsec;
} products[] = {
        { "[\"sec\"]", 1000000000 },
        { "[\"msec\"]", 1000000 },
        { "[\"usec\"]", 1000 },
        { "[\"nsec\"]", 1 },
        { "[\"abstime\",\"sec\"]", 1000000000 },
        { "[\"abstime\",\"msec\"]", 1000000 },
        { "[\"abstime\",\"usec\"]", 1000 },
        { "[\"abstime\",\"nsec\"]", 1 },
};

/* As far as it goes, one further, and where the product begins again at 0: what is refused names the field. */
START_TEST(test_products) {
        static const char *const muxes[] = { "epoll", "poll", "select" };
        struct daemon *daemon = daemon_start("--mux", muxes[_i % ARRAY_SIZE(muxes)]);
        int fd = client_connect(daemon->socket);
        int64_t unit = products[_i].unit_nsec, longest = INT64_MAX / 2 / unit;
        int64_t again = unit > 1 ? (int64_t)(UINT64_MAX / (uint64_t)unit) + 1 : INT64_MAX;
        int64_t too_long[] = { longest + 1, INT64_MAX / unit, again, INT64_MAX };

        harness_label(products[_i].notes);
        for (size_t i = 0; i < ARRAY_SIZE(too_long); i++) {
                char parameters[200];
                struct json_object *reply;

                (void)snprintf(parameters, sizeof(parameters),
                               "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":%s}]}",
                               (long long)too_long[i], products[_i].notes);
                reply = client_call(fd, "org.kevd.events.Change", parameters);
                ck_assert_msg(strcmp(text_at(reply, "/parameters/refused/0/errno"), "EINVAL") == 0 &&
                                      strncmp(text_at(reply, "/parameters/refused/0/message"), "data:", 5) == 0,
                              "%s: %s", parameters, json_object_to_json_string(reply));
                json_object_put(reply);
        }
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":%s}]}", (long long)longest,
               products[_i].notes);
        /* It is far off: one that is near comes without it. */
        change(fd, "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":5,\"flags\":[\"oneshot\"]}]}");
        for (struct json_object *event = next_event(fd); event; event = due_event(fd)) {
                ck_assert_int_eq(number_at(event, "/id"), 2);
                json_object_put(event);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static const char *const later[] = {
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":4000000000,\"notes\":[\"sec\",\"abstime\"]}]}",
        "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}]}",
        "{\"remove\":[1]}",
};

/* What would have come soon, of a moment or a period, is to come much later, or never: nothing comes of it then. */
START_TEST(test_put_off) {
        bool is_moment = (size_t)_i < ARRAY_SIZE(later);
        const char *parameters = later[(size_t)_i % ARRAY_SIZE(later)];
        struct daemon *daemon = daemon_start(NULL);
        int64_t lead_msec = 40, moment;
        int fd;

        harness_label(parameters);
        for (;;) { /* until it is changed before it is due */
                int64_t before = now_usec();

                fd = client_connect(daemon->socket);
                moment = clock_usec(CLOCK_REALTIME) / 1000 + lead_msec;
                if (is_moment)
                        add_moment(fd, 1, moment);
                else
                        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld}]}", (long long)lead_msec);
                change(fd, "%s", parameters);
                if (now_usec() - before < (lead_msec - 1) * 1000)
                        break;
                (void)close(fd);
                lead_msec *= 2;
        }
        add_moment(fd, 2, moment + 10);
        expect_moment(fd, 2, moment + 10);
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static const char *const far_off[] = { "[\"sec\",\"abstime\"]", "[\"sec\"]" };

/* And what would have come much later comes soon, once. */
START_TEST(test_brought_forward) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        int64_t moment;

        harness_label(far_off[_i]);
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":4000000000,\"notes\":%s}]}", far_off[_i]);
        moment = clock_usec(CLOCK_REALTIME) / 1000 + 50;
        change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"msec\",\"abstime\"]}]}",
               (long long)moment);
        expect_moment(fd, 1, moment);
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_modify_restarts) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":100}]}");
        for (int i = 0; i < 3; i++) {
                int64_t before;
                struct json_object *event;

                let_pass(60);
                before = now_usec();
                change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":100}]}");
                drain(fd); /* of the time before, on a slow machine */
                if (now_usec() - before >= 100000)
                        continue;
                event = next_event(fd);
                ck_assert_int_ge(now_usec() - before, 100000);
                ck_assert_int_ge(number_at(event, "/data"), 1);
                json_object_put(event);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* From a period to another unit, to a moment, and back. */
START_TEST(test_modify_kind) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *event;
        int64_t before;

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}]}");
        before = now_usec();
        change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":20,\"notes\":[\"msec\"]}]}");
        event = next_event(fd);
        ck_assert_int_ge(now_usec() - before, 20000);
        ck_assert_str_eq(text_at(event, "/notes/0"), "msec");
        json_object_put(event);

        change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"notes\":[\"sec\",\"abstime\"]}]}");
        do /* events of the period may stand before it */
                event = due_event(fd);
        while (event && strcmp(text_at(event, "/flags/0"), "eof") != 0 && (json_object_put(event), true));
        ck_assert_msg(event, "the moment did not fire");
        json_object_put(event);
        expect_nothing(fd);

        change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":20,\"notes\":[\"msec\"]}]}");
        for (int i = 0; i < 2; i++) {
                event = next_event(fd);
                ck_assert_ptr_null(json_at(event, "/flags"));
                json_object_put(event);
        }
        /* Without a new period it runs on. */
        change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\"}]}");
        drain(fd);
        json_object_put(next_event(fd));
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* A timer that is added again with its id starts again: what it had counted is forgotten, and it is as it was now made. */
START_TEST(test_added_again) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *event;
        int64_t before;

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1}]}");
        json_object_put(next_event(fd));
        let_pass(20);
        before = now_usec();
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}]}");
        expect_nothing(fd);

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":50,\"flags\":[\"oneshot\"]}]}");
        event = next_event(fd);
        ck_assert_int_ge(now_usec() - before, 50000);
        ck_assert_str_eq(text_at(event, "/notes/0"), "msec");
        ck_assert_str_eq(text_at(event, "/flags/0"), "oneshot");
        json_object_put(event);
        refused(fd, "{\"remove\":[1]}", "ENOENT");

        /* One that is disabled counts for when it is enabled; added again it does so from the start. */
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"flags\":[\"disabled\"]}]}");
        let_pass(20);
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}],\"enable\":[1]}");
        expect_nothing(fd);
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"flags\":[\"disabled\"]}]}");
        let_pass(20);
        expect_nothing(fd);

        /* Again and again before its time: it never expires. */
        before = now_usec();
        for (int i = 0; i < 100; i++)
                change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}]}");
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":30},{\"id\":1,\"filter\":\"timer\",\"data\":60}]}");
        event = next_event(fd);
        ck_assert_int_ge(now_usec() - before, 60000);
        json_object_put(event);

        /* Moments, too; one that is past comes at once, and after it a period again. */
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"notes\":[\"sec\",\"abstime\"]}]}");
        event = next_event(fd);
        ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
        json_object_put(event);
        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5}]}");
        for (int i = 0; i < 3; i++) {
                event = next_event(fd);
                ck_assert_ptr_null(json_at(event, "/flags"));
                json_object_put(event);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The id of a timer is in use for all other filters, and that of any other watch for a timer; and what can't be added
 * leaves the timer as it was. */
START_TEST(test_added_as_another) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":20},{\"id\":2,\"filter\":\"user\",\"name\":\"n\"}]}");
        refused(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}", "EEXIST");
        refused(fd, "{\"add\":[{\"id\":1,\"filter\":\"vnode\",\"path\":\"/\"}]}", "EEXIST");
        refused(fd, "{\"add\":[{\"id\":1,\"filter\":\"proc\",\"pid\":1}]}", "EEXIST");
        refused(fd, "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":20}]}", "EEXIST");
        refused(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":-1}]}", "EINVAL");
        refused(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":9223372036854775807,\"notes\":[\"sec\"]}]}", "EINVAL");
        refused(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\"}]}", "EINVAL");
        for (int i = 0; i < 3; i++) {
                struct json_object *event = next_event(fd);

                ck_assert_int_eq(number_at(event, "/id"), 1);
                json_object_put(event);
        }
        change(fd, "{\"remove\":[1],\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        refused(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":20}]}", "EEXIST");
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- user watches ------------------------------------------------------------------------------------------- */

static int64_t trigger(int fd, const char *parameters) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Trigger", parameters);
        int64_t reached = number_at(reply, "/parameters/reached");

        json_object_put(reply);
        return reached;
}

START_TEST(test_trigger) {
        static const int64_t data[] = { 0, 1, -1, INT64_MAX, -INT64_MAX };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), second = client_connect(daemon->socket);
        struct json_object *event;
        char parameters[128];

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"},{\"id\":2,\"filter\":\"user\",\"name\":\"n\"},"
                   "{\"id\":3,\"filter\":\"user\",\"name\":\"nn\"},{\"id\":4,\"filter\":\"user\",\"name\":\"N\"}]}");
        change(second, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\",\"flags\":[\"disabled\"]}]}");
        for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
                (void)snprintf(parameters, sizeof(parameters), "{\"name\":\"n\",\"data\":%lld}", (long long)data[i]);
                ck_assert_int_eq(trigger(second, parameters), 3);
                for (int64_t id = 1; id <= 2; id++) {
                        event = due_event(fd);
                        ck_assert_ptr_nonnull(event);
                        ck_assert_int_eq(number_at(event, "/id"), id);
                        ck_assert_int_eq(number_at(event, "/data"), data[i]);
                        ck_assert_int_eq(number_at(event, "/count"), 1);
                        ck_assert_str_eq(text_at(event, "/notes/0"), "trigger");
                        json_object_put(event);
                }
                expect_nothing(fd);
                expect_nothing(second);
        }
        ck_assert_int_eq(trigger(fd, "{\"name\":\"n\"}"), 3);
        event = due_event(fd);
        ck_assert_ptr_null(json_at(event, "/data")); /* none was given */
        json_object_put(event);

        /* What goes is not reached any more. */
        change(fd, "{\"remove\":[1]}");
        ck_assert_int_eq(trigger(fd, "{\"name\":\"n\"}"), 2);
        (void)close(second);
        while (trigger(fd, "{\"name\":\"n\"}") > 1)
                ;
        change(fd, "{\"remove\":[2]}");
        ck_assert_int_eq(trigger(fd, "{\"name\":\"n\"}"), 0);
        ck_assert_int_eq(trigger(fd, "{\"name\":\"nn\"}"), 1);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* A name is its user's own, root's too: nobody else sets its watches off, or learns that there are any. */
START_TEST(test_other_user) {
        enum { SOMEBODY = 64001, ANOTHER = 64002 };
        static const uid_t users[] = { 0, SOMEBODY, ANOTHER };
        int fds[ARRAY_SIZE(users)];
        struct daemon *daemon;

        if (geteuid() != 0)
                harness_skip("only root can be several users");
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        daemon = daemon_start("--mode=system");
        for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
                fds[i] = client_connect_as(daemon->socket, users[i]);
                ck_assert_int_eq(trigger(fds[i], "{\"name\":\"n\"}"), 0);
                change(fds[i], "{\"add\":[{\"id\":%zu,\"filter\":\"user\",\"name\":\"n\"}]}", i + 1);
        }
        for (size_t i = 0; i < ARRAY_SIZE(users); i++) {
                int second = client_connect_as(daemon->socket, users[i]);

                ck_assert_int_eq(trigger(second, "{\"name\":\"n\",\"data\":7}"), 1);
                for (size_t j = 0; j < ARRAY_SIZE(users); j++) {
                        struct json_object *event = due_event(fds[j]);

                        ck_assert_msg((event != NULL) == (i == j), "set off by user %u, user %u got %s", users[i], users[j],
                                      json_object_to_json_string(event));
                        if (event)
                                ck_assert_int_eq(number_at(event, "/id"), (int64_t)j + 1);
                        json_object_put(event);
                }
                (void)close(second);
        }
        for (size_t i = 0; i < ARRAY_SIZE(users); i++)
                (void)close(fds[i]);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_names) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        char longest[256], parameters[400];
        const char *names[] = { " ", "/", "a.b", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", "\\\"", "\\n\\t", longest };

        memset(longest, 'x', 255);
        longest[255] = 0;
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                change(fd, "{\"add\":[{\"id\":%zu,\"filter\":\"user\",\"name\":\"%s\"}]}", i, names[i]);
                (void)snprintf(parameters, sizeof(parameters), "{\"name\":\"%s\"}", names[i]);
                ck_assert_int_eq(trigger(fd, parameters), 1);
        }
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                struct json_object *event = due_event(fd);

                ck_assert_int_eq(number_at(event, "/id"), (int64_t)i);
                json_object_put(event);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* A watch that is set off by the connection that waits for it, in a stream and ended by the call itself. */
START_TEST(test_trigger_by_itself) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *reply;

        change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\",\"flags\":[\"oneshot\"]}]}");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"more\":true}");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"n\"}}");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"more\":true}");
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_uint_eq(json_object_array_length(json_at(reply, "/parameters/events")), 0);
        json_object_put(reply);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_int_eq(number_at(reply, "/parameters/reached"), 1);
        json_object_put(reply);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_uint_eq(json_object_array_length(json_at(reply, "/parameters/events")), 1);
        ck_assert(json_object_get_boolean(json_at(reply, "/continues")));
        json_object_put(reply);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("timer");
        TCase *c;

        c = harness_case(suite, "periods");
        tcase_add_loop_test(c, test_period, 0, ARRAY_SIZE(periods));
        tcase_add_test(c, test_seconds);
        tcase_add_test(c, test_missed);
        tcase_add_test(c, test_phase);
        tcase_add_loop_test(c, test_short_periods, 0, ARRAY_SIZE(short_periods));
        tcase_add_test(c, test_merged);
        tcase_add_test(c, test_oneshot);
        tcase_add_test(c, test_dispatch);

        c = harness_case(suite, "moments");
        tcase_add_loop_test(c, test_past, 0, ARRAY_SIZE(units));
        tcase_add_loop_test(c, test_future, 0, ARRAY_SIZE(units));
        tcase_add_test(c, test_moment_ends);
        tcase_add_test(c, test_moments);
        tcase_add_test(c, test_many_past);
        tcase_add_loop_test(c, test_many_due, 0, 2);
        tcase_add_test(c, test_earliest_taken_back);

        c = harness_case(suite, "changes");
        tcase_add_loop_test(c, test_refused, 0, ARRAY_SIZE(impossible));
        tcase_add_test(c, test_refused_beside_moment);
        tcase_add_loop_test(c, test_products, 0, ARRAY_SIZE(products));
        tcase_add_loop_test(c, test_put_off, 0, 2 * ARRAY_SIZE(later));
        tcase_add_loop_test(c, test_brought_forward, 0, ARRAY_SIZE(far_off));
        tcase_add_test(c, test_modify_restarts);
        tcase_add_test(c, test_modify_kind);
        tcase_add_test(c, test_added_again);
        tcase_add_test(c, test_added_as_another);

        c = harness_case(suite, "user");
        tcase_add_test(c, test_trigger);
        tcase_add_test(c, test_other_user);
        tcase_add_test(c, test_names);
        tcase_add_test(c, test_trigger_by_itself);
        return harness_main(argc, argv);
}
