/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "restarts.h"

#include <unistd.h>

#include "files.h"

struct manager *manager;
int client;

/* ---- daemons ------------------------------------------------------------------------------ */

void begin(const char *const *options) {
        manager = manager_new(options);
        manager_start(manager);
        client = client_connect(manager_socket(manager));
        json_object_put(client_call(client, "org.kevd.events.GetLimits", NULL)); /* by then it is accepted */
}

void setup(void) {
        begin((const char *const[]){ "--file-mechanism=inotify", NULL });
}

void teardown(void) {
        (void)close(client);
        manager_free(manager);
}

int64_t count_restored(void) {
        int fd = client_connect(manager_socket(manager));
        struct json_object *reply = client_call(fd, "org.kevd.manager.GetStatistics", NULL),
                           *events = json_at(reply, "/parameters/events");
        int64_t n = number_at(events, "/restored");

        ck_assert_msg(n + number_at(events, "/eventsIn") + number_at(events, "/summaries") ==
                              number_at(events, "/delivered") + number_at(events, "/merged") +
                                      number_at(events, "/discarded") + number_at(events, "/pending"),
                      "%s", json_object_to_json_string(events));
        json_object_put(reply);
        (void)close(fd);
        return n;
}

void restart(void) {
        manager_stop(manager);
        manager_start(manager);
        (void)count_restored();
}

void expect_clean_start(void) {
        manager_start(manager);
        client_expect_close(client, HARNESS_REPLY_MSEC);
        (void)close(client);
        client = client_connect(manager_socket(manager));
        watch_it(USER_WATCH);
        trigger("bell", 1);
        expect_data("trigger", 1, 1);
        manager_wait_stored(manager, STORED_TABLE + STORED_EACH); /* nothing of what there was */
}

/* ---- what a client does ------------------------------------------------------------------- */

void watch_it(const char *text) {
        client_change(client, "{\"add\":[%s]}", text);
}

void watch_fd(const char *text, int fd) {
        struct json_object *reply;
        const char *call = at("{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[%s]}}", text);

        client_send_with_fds(client, call, strlen(call) + 1, &fd, 1);
        reply = client_receive(client, HARNESS_REPLY_MSEC);
        ck_assert_msg(reply && !json_at(reply, "/parameters/refused/0"), "%s", json_object_to_json_string(reply));
        json_object_put(reply);
}

void trigger(const char *name, int data) {
        int other = client_connect(manager_socket(manager));
        struct json_object *reply = client_call(other, "org.kevd.events.Trigger", at("{\"name\":\"%s\",\"data\":%d}", name, data));

        ck_assert_int_eq(number_at(reply, "/parameters/reached"), 1);
        json_object_put(reply);
        (void)close(other);
}

void send_call(const char *method, const char *parameters, const char *more) {
        client_send_message(client, at("{\"method\":\"org.kevd.events.%s\",\"parameters\":%s%s}", method, parameters, more));
}

struct json_object *expect(const char *note) {
        struct json_object *event = next_event(client);

        ck_assert_msg(has_note(event, note), "%s wanted, %s came", note, json_object_to_json_string(event));
        return event;
}

void expect_data(const char *note, int64_t data, int64_t seq) {
        struct json_object *event = expect(note);

        ck_assert_int_eq(number_at(event, "/data"), data);
        ck_assert_int_eq(number_at(event, "/seq"), seq);
        json_object_put(event);
}

void expect_path(const char *note, const char *path) {
        struct json_object *event = expect(note);

        ck_assert_str_eq(text_at(event, "/path"), path);
        json_object_put(event);
}

void expect_silence(void) {
        expect_nothing(client);
}

void connect_many(int clients[MANY]) {
        for (int i = 0; i < MANY; i++) {
                clients[i] = client = i == 0 ? client : client_connect(manager_socket(manager));
                watch_it(at("{\"id\":1,\"filter\":\"user\",\"name\":\"n%d\"}", i));
        }
        client = clients[0];
}

void expect_of_many(int clients[MANY]) {
        for (int i = 0; i < MANY; i++)
                trigger(at("n%d", i), i);
        for (int i = 0; i < MANY; i++) {
                client = clients[i];
                expect_data("trigger", i, 1);
                if (i > 0)
                        (void)close(client);
        }
        client = clients[0];
}
