/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* user watches on the real daemon, and Trigger: it sets off all watches of a name, and none of another user's. */

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"
#include "timers.h"

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

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"},"
                          "{\"id\":2,\"filter\":\"user\",\"name\":\"n\"},"
                          "{\"id\":3,\"filter\":\"user\",\"name\":\"nn\"},{\"id\":4,\"filter\":\"user\",\"name\":\"N\"}]}");
        client_change(second, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\",\"flags\":[\"disabled\"]}]}");
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
        client_change(fd, "{\"remove\":[1]}");
        ck_assert_int_eq(trigger(fd, "{\"name\":\"n\"}"), 2);
        (void)close(second);
        while (trigger(fd, "{\"name\":\"n\"}") > 1)
                ;
        client_change(fd, "{\"remove\":[2]}");
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
                client_change(fds[i], "{\"add\":[{\"id\":%zu,\"filter\":\"user\",\"name\":\"n\"}]}", i + 1);
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
                client_change(fd, "{\"add\":[{\"id\":%zu,\"filter\":\"user\",\"name\":\"%s\"}]}", i, names[i]);
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

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\",\"flags\":[\"oneshot\"]}]}");
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
        TCase *c = harness_case(harness_suite("user"), "user");

        tcase_add_test(c, test_trigger);
        tcase_add_test(c, test_other_user);
        tcase_add_test(c, test_names);
        tcase_add_test(c, test_trigger_by_itself);
        return harness_main(argc, argv);
}
