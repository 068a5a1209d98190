/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "timers.h"

#include <poll.h>

#include <json-c/json.h>

void refused(int fd, const char *parameters, const char *error) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Change", parameters);

        ck_assert_msg(strcmp(text_at(reply, "/parameters/refused/0/errno"), error) == 0, "%s: %s", parameters,
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

void add_moment(int fd, int64_t id, int64_t msec) {
        client_change(fd, "{\"add\":[{\"id\":%lld,\"filter\":\"timer\",\"data\":%lld,\"notes\":[\"abstime\"]}]}",
                      (long long)id, (long long)msec);
}

void expect_moment(int fd, int64_t id, int64_t msec) {
        struct json_object *event = next_event(fd);

        ck_assert_int_eq(number_at(event, "/id"), id);
        ck_assert_int_eq(number_at(event, "/data"), 1);
        ck_assert_int_ge(number_at(event, "/realtimeUsec"), msec * 1000);
        ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
        json_object_put(event);
}

int64_t clock_usec(clockid_t clock) {
        struct timespec t;

        ck_assert_int_eq(clock_gettime(clock, &t), 0);
        return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t now_usec(void) {
        return clock_usec(CLOCK_MONOTONIC);
}

void let_pass(int64_t msec) {
        (void)poll(NULL, 0, (int)msec);
}
