/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * timer watches on the real daemon, and changes: what is refused, which changes nothing, and timers that are modified,
 * or added again with their id.
 */

#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"
#include "timers.h"

static void drain(int fd) {
        struct json_object *event;

        while ((event = due_event(fd)))
                json_object_put(event);
}

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
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":20}]}");
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
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,\"notes\":%s}]}", (long long)longest,
                      products[_i].notes);
        /* It is far off: one that is near comes without it. */
        client_change(fd, "{\"add\":[{\"id\":2,\"filter\":\"timer\",\"data\":5,\"flags\":[\"oneshot\"]}]}");
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
                        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld}]}",
                                      (long long)lead_msec);
                client_change(fd, "%s", parameters);
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
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":4000000000,\"notes\":%s}]}", far_off[_i]);
        moment = clock_usec(CLOCK_REALTIME) / 1000 + 50;
        client_change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,"
                          "\"notes\":[\"msec\",\"abstime\"]}]}", (long long)moment);
        expect_moment(fd, 1, moment);
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_modify_restarts) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":100}]}");
        for (int i = 0; i < 3; i++) {
                int64_t before;
                struct json_object *event;

                let_pass(60);
                before = now_usec();
                client_change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":100}]}");
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

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}]}");
        before = now_usec();
        client_change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":20,\"notes\":[\"msec\"]}]}");
        event = next_event(fd);
        ck_assert_int_ge(now_usec() - before, 20000);
        ck_assert_str_eq(text_at(event, "/notes/0"), "msec");
        json_object_put(event);

        client_change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"notes\":[\"sec\",\"abstime\"]}]}");
        do /* events of the period may stand before it */
                event = due_event(fd);
        while (event && strcmp(text_at(event, "/flags/0"), "eof") != 0 && (json_object_put(event), true));
        ck_assert_msg(event, "the moment did not fire");
        json_object_put(event);
        expect_nothing(fd);

        client_change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":20,\"notes\":[\"msec\"]}]}");
        for (int i = 0; i < 2; i++) {
                event = next_event(fd);
                ck_assert_ptr_null(json_at(event, "/flags"));
                json_object_put(event);
        }
        /* Without a new period it runs on. */
        client_change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\"}]}");
        drain(fd);
        json_object_put(next_event(fd));
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* What had expired and was not taken is forgotten: the end of a moment that is told is the new one's. */
START_TEST(test_modify_forgets) {
        static const char *const before[] = { "\"data\":1,\"notes\":[\"sec\",\"abstime\"]", "\"data\":1" };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *event;
        int64_t moment;

        harness_label(before[_i]);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",%s,\"flags\":[\"disabled\"]},"
                          "{\"id\":2,\"filter\":\"timer\",\"data\":5,\"flags\":[\"oneshot\"]}]}", before[_i]);
        event = next_event(fd); /* which is later */
        ck_assert_int_eq(number_at(event, "/id"), 2);
        json_object_put(event);
        moment = clock_usec(CLOCK_REALTIME) / 1000 + 30;
        client_change(fd, "{\"modify\":[{\"id\":1,\"filter\":\"timer\",\"data\":%lld,"
                          "\"notes\":[\"msec\",\"abstime\"]}]}", (long long)moment);
        expect_moment(fd, 1, moment);
        expect_nothing(fd);
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

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1}]}");
        json_object_put(next_event(fd));
        let_pass(20);
        before = now_usec();
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}]}");
        expect_nothing(fd);

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":50,\"flags\":[\"oneshot\"]}]}");
        event = next_event(fd);
        ck_assert_int_ge(now_usec() - before, 50000);
        ck_assert_str_eq(text_at(event, "/notes/0"), "msec");
        ck_assert_str_eq(text_at(event, "/flags/0"), "oneshot");
        json_object_put(event);
        refused(fd, "{\"remove\":[1]}", "ENOENT");

        /* One that is disabled counts for when it is enabled; added again it does so from the start. */
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"flags\":[\"disabled\"]}]}");
        let_pass(20);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}],"
                          "\"enable\":[1]}");
        expect_nothing(fd);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"flags\":[\"disabled\"]}]}");
        let_pass(20);
        expect_nothing(fd);

        /* Again and again before its time: it never expires. */
        before = now_usec();
        for (int i = 0; i < 100; i++)
                client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":3600,\"notes\":[\"sec\"]}]}");
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":30},"
                          "{\"id\":1,\"filter\":\"timer\",\"data\":60}]}");
        event = next_event(fd);
        ck_assert_int_ge(now_usec() - before, 60000);
        json_object_put(event);

        /* Moments, too; one that is past comes at once, and after it a period again. */
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1,\"notes\":[\"sec\",\"abstime\"]}]}");
        event = next_event(fd);
        ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
        json_object_put(event);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":5}]}");
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

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":20},"
                          "{\"id\":2,\"filter\":\"user\",\"name\":\"n\"}]}");
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
        client_change(fd, "{\"remove\":[1],\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        refused(fd, "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":20}]}", "EEXIST");
        expect_nothing(fd);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("timer-changes"), "changes");

        tcase_add_loop_test(c, test_refused, 0, ARRAY_SIZE(impossible));
        tcase_add_test(c, test_refused_beside_moment);
        tcase_add_loop_test(c, test_products, 0, ARRAY_SIZE(products));
        tcase_add_loop_test(c, test_put_off, 0, 2 * ARRAY_SIZE(later));
        tcase_add_loop_test(c, test_brought_forward, 0, ARRAY_SIZE(far_off));
        tcase_add_test(c, test_modify_restarts);
        tcase_add_test(c, test_modify_kind);
        tcase_add_loop_test(c, test_modify_forgets, 0, 2);
        tcase_add_test(c, test_added_again);
        tcase_add_test(c, test_added_as_another);
        return harness_main(argc, argv);
}
