/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Watches of the real daemon, without the library: their flags, their removal, and what is refused in a path that is a
 * loop, and in globs that are too long together.
 */

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#include <json-c/json.h>

#include "macro.h"
#include "protocol.h"

START_TEST(test_disabled) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *reply;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\",\"flags\":[\"disabled\"]}]}");
        ck_assert_int_eq(trigger(fd, "n", 1), 1);
        expect_nothing(fd);
        client_change(fd, "{\"enable\":[1]}");
        reply = take(fd);
        ck_assert_uint_eq(n_events(reply), 1); /* it went on accumulating */
        json_object_put(reply);

        ck_assert_int_eq(trigger(fd, "n", 2), 1);
        client_change(fd, "{\"disable\":[1]}");
        expect_nothing(fd);
        ck_assert_int_eq(trigger(fd, "n", 3), 1);
        client_change(fd, "{\"enable\":[1],\"disable\":[1]}"); /* in this order */
        expect_nothing(fd);
        client_change(fd, "{\"enable\":[1]}");
        reply = take(fd);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/data"), 2);
        ck_assert_int_eq(number_at(reply, "/parameters/events/1/data"), 3);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), 2);
        json_object_put(reply);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_oneshot) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *reply;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\",\"flags\":[\"oneshot\"]}]}");
        ck_assert_int_eq(trigger(fd, "n", 1), 1);
        ck_assert_int_eq(trigger(fd, "n", 2), 1);
        reply = take(fd);
        ck_assert_uint_eq(n_events(reply), 1);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/count"), 2);
        json_object_put(reply);
        ck_assert_int_eq(trigger(fd, "n", 3), 0);
        expect_nothing(fd);
        reply = call(fd, "Change", "{\"remove\":[1],\"enable\":[1]}");
        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "ENOENT");
        ck_assert_str_eq(text_at(reply, "/parameters/refused/1/errno"), "ENOENT");
        json_object_put(reply);
        /* Its number is free again. */
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_dispatch) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *reply;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\",\"flags\":[\"dispatch\"]}]}");
        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(trigger(fd, "n", i), 1);
                reply = take(fd);
                ck_assert_uint_eq(n_events(reply), 1);
                json_object_put(reply);
                ck_assert_int_eq(trigger(fd, "n", i), 1);
                expect_nothing(fd);
                client_change(fd, "{\"enable\":[1]}");
                reply = take(fd); /* what came while it was disabled */
                ck_assert_uint_eq(n_events(reply), 1);
                json_object_put(reply);
                expect_nothing(fd);
                client_change(fd, "{\"enable\":[1]}");
                expect_nothing(fd);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Removed, a watch takes its events with it. */
START_TEST(test_remove) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *reply;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"},"
                          "{\"id\":2,\"filter\":\"user\",\"name\":\"n\"}]}");
        ck_assert_int_eq(trigger(fd, "n", 1), 2);
        client_change(fd, "{\"remove\":[1],\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"m\"}]}");
        reply = take(fd);
        ck_assert_uint_eq(n_events(reply), 1);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/id"), 2);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), 1);
        json_object_put(reply);
        ck_assert_int_eq(trigger(fd, "n", 1), 1);
        ck_assert_int_eq(trigger(fd, "m", 1), 1);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static void symlink_loop(char *path, size_t size) {
        (void)snprintf(path, size, "%s/loop", harness_tempdir());
        assert_system(symlink("loop", path) == 0, path);
}

START_TEST(test_refused_loop) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        char path[PATH_MAX], watch[PATH_MAX + 64];

        symlink_loop(path, sizeof(path));
        (void)snprintf(watch, sizeof(watch), "{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"}", path);
        refused(fd, watch, "ELOOP");
        (void)snprintf(watch, sizeof(watch), "{\"id\":1,\"filter\":\"vnode\",\"path\":\"%s/file\"}", path);
        refused(fd, watch, "ELOOP");
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* All globs of a watch together: at the bound, and beyond it in one list or the other. */
START_TEST(test_globs_of_a_watch) {
        static const struct {
                int include, exclude;
                const char *at_fault;
        } cases[] = { { 8, 0, NULL }, { 0, 8, NULL }, { 4, 4, NULL }, { 9, 0, "tree.include: " },
                      { 9, 9, "tree.include: " }, { 0, 9, "tree.exclude: " }, { 8, 1, "tree.exclude: " } };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        char glob[1024 + 4] = ",\"", text[2][10 * 1027 + 1];

        memset(glob + 2, '?', 1024);
        glob[1026] = '"';
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct json_object *reply;
                const char *message;

                text[0][0] = text[1][0] = 0;
                for (int n = 0; n < cases[i].include; n++)
                        strcat(text[0], glob + (n == 0));
                for (int n = 0; n < cases[i].exclude; n++)
                        strcat(text[1], glob + (n == 0));
                reply = call(fd, "Change", "{\"add\":[{\"id\":%zu,\"filter\":\"tree\",\"path\":\"%s\",\"tree\":"
                             "{\"include\":[%s],\"exclude\":[%s]}}]}", i, harness_tempdir(), text[0], text[1]);
                message = text_at(reply, "/parameters/refused/0/message");
                if (cases[i].at_fault) {
                        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EINVAL");
                        ck_assert_msg(strncmp(message, cases[i].at_fault, strlen(cases[i].at_fault)) == 0, "%s", message);
                } else
                        ck_assert_str_eq(message, "");
                json_object_put(reply);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("protocol-watches"), "watches");

        tcase_add_test(c, test_disabled);
        tcase_add_test(c, test_oneshot);
        tcase_add_test(c, test_dispatch);
        tcase_add_test(c, test_remove);
        tcase_add_test(c, test_refused_loop);
        tcase_add_test(c, test_globs_of_a_watch);
        return harness_main(argc, argv);
}
