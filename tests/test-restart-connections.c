/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One daemon after another (restarts.h): the clients keep their connections. What they have not taken, what they wait
 * for, half a message and replies that nobody has read yet: all of it goes on.
 */

#include <sys/eventfd.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "manager.h"
#include "restarts.h"

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

enum { CALLS = 5000 };

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

        connect_many(clients);
        restart();
        expect_of_many(clients);
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
        struct json_object *reply;
        int other;

        manager_stop(manager);
        other = client_connect(manager_socket(manager));
        client_send_message(other, "{\"method\":\"org.kevd.events.GetLimits\"}");
        manager_start(manager);
        reply = client_receive(other, HARNESS_REPLY_MSEC);
        ck_assert_msg(json_at(reply, "/parameters"), "no reply");
        json_object_put(reply);
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

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("restart-connections"), "connections");

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
        return harness_main(argc, argv);
}
