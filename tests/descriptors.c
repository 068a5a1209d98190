/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "descriptors.h"

#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "macro.h"

/* ---- a client ------------------------------------------------------------------------ */

static struct json_object *call(int kevd, int fd, const char *parameters) {
        _cleanup_(freep) char *text = NULL;
        struct json_object *reply;
        int size = asprintf(&text, "{\"method\":\"org.kevd.events.Change\",\"parameters\":%s}", parameters);

        ck_assert_int_ge(size, 0);
        client_send_with_fds(kevd, text, (size_t)size + 1, &fd, fd >= 0);
        reply = client_receive(kevd, HARNESS_REPLY_MSEC);
        ck_assert_msg(reply, "no reply to %s", parameters);
        return reply;
}

struct json_object *change_reply(int kevd, int fd, const char *format, ...) {
        _cleanup_(freep) char *parameters = NULL;
        va_list args;

        va_start(args, format);
        ck_assert_int_ge(vasprintf(&parameters, format, args), 0);
        va_end(args);
        return call(kevd, fd, parameters);
}

void change(int kevd, int fd, const char *format, ...) {
        _cleanup_(freep) char *parameters = NULL;
        struct json_object *reply;
        va_list args;

        va_start(args, format);
        ck_assert_int_ge(vasprintf(&parameters, format, args), 0);
        va_end(args);
        reply = call(kevd, fd, parameters);
        ck_assert_msg(json_at(reply, "/parameters/refused") && !json_at(reply, "/parameters/refused/0"), "%s: %s",
                      parameters, json_object_to_json_string(reply));
        json_object_put(reply);
}

void refused(int kevd, int fd, const char *error, const char *format, ...) {
        _cleanup_(freep) char *parameters = NULL;
        struct json_object *reply;
        va_list args;

        va_start(args, format);
        ck_assert_int_ge(vasprintf(&parameters, format, args), 0);
        va_end(args);
        reply = call(kevd, fd, parameters);
        ck_assert_msg(strcmp(text_at(reply, "/parameters/refused/0/errno"), error) == 0, "%s, not %s: %s", parameters, error,
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

struct json_object *take_events(int kevd, int timeout_msec) {
        struct json_object *reply, *events;
        char parameters[64];

        (void)snprintf(parameters, sizeof(parameters), "{\"timeoutMsec\":%d}", timeout_msec);
        reply = client_call(kevd, "org.kevd.events.Wait", parameters);
        events = json_object_get(json_at(reply, "/parameters/events"));
        ck_assert_msg(json_object_is_type(events, json_type_array), "%s", json_object_to_json_string(reply));
        json_object_put(reply);
        return events;
}

static const struct {
        const char *name;
        short bit;
} words[] = {
        { "in", POLLIN },         { "out", POLLOUT },       { "pri", POLLPRI },       { "err", POLLERR },
        { "hup", POLLHUP },       { "rdhup", POLLRDHUP },   { "rdnorm", POLLRDNORM }, { "rdband", POLLRDBAND },
        { "wrnorm", POLLWRNORM }, { "wrband", POLLWRBAND },
};

short poll_bits(struct json_object *event) {
        struct json_object *notes = json_at(event, "/notes");
        int bits = 0;

        for (size_t i = 0; i < json_object_array_length(notes); i++)
                for (size_t w = 0; w < ARRAY_SIZE(words); w++)
                        if (strcmp(json_object_get_string(json_object_array_get_idx(notes, i)), words[w].name) == 0)
                                bits |= words[w].bit;
        return (short)bits;
}

struct json_object *event_of(struct json_object *events, int64_t id) {
        struct json_object *found = NULL;

        for (size_t i = 0; i < json_object_array_length(events); i++) {
                struct json_object *event = json_object_array_get_idx(events, i);

                if (number_at(event, "/id") != id)
                        continue;
                ck_assert_msg(!found, "two events of the watch %lld: %s", (long long)id, json_object_to_json_string(events));
                found = event;
        }
        return found;
}

static void check_notes(struct json_object *event, const char *notes) {
        struct json_object *array = json_at(event, "/notes");
        char found[256] = "";

        for (size_t i = 0; i < json_object_array_length(array); i++) {
                size_t size = strlen(found);

                (void)snprintf(found + size, sizeof(found) - size, "%s%s", i > 0 ? "," : "",
                               json_object_get_string(json_object_array_get_idx(array, i)));
        }
        ck_assert_msg(strcmp(found, notes) == 0, "%s, not %s", json_object_to_json_string(event), notes);
}

size_t due(int kevd, const char *notes) {
        struct json_object *events = take_events(kevd, 0);
        size_t n = json_object_array_length(events);

        for (size_t i = 0; i < n; i++)
                check_notes(json_object_array_get_idx(events, i), notes);
        json_object_put(events);
        return n;
}

void expect_notes(int kevd, const char *notes) {
        struct json_object *event = next_event(kevd);

        check_notes(event, notes);
        json_object_put(event);
}

/* ---- the daemon -------------------------------------------------------------------------- */

struct fd_count {
        pid_t pid;
        size_t n;
};

static bool has_fds(void *userdata) {
        const struct fd_count *count = userdata;

        return n_fds_of(count->pid) <= count->n;
}

void expect_fds(const struct daemon *daemon, size_t n) {
        struct fd_count count = { daemon->pid, n };

        ck_assert_msg(wait_until(has_fds, &count, HARNESS_REPLY_MSEC), "the daemon has %zu descriptors, and had %zu",
                      n_fds_of(daemon->pid), n);
}

size_t fds_at_rest(const struct daemon *daemon) {
        size_t n = SIZE_MAX;

        expect_answers(daemon); /* on a connection that has to be seen to end yet */
        for (int i = 0; i < 50; i++) {
                size_t now = n_fds_of(daemon->pid);

                if (now < n)
                        i = 0;
                n = MIN(now, n);
                (void)poll(NULL, 0, 1);
        }
        return n;
}

void expect_answers(const struct daemon *daemon) {
        int kevd = client_connect(daemon->socket);

        json_object_put(client_call(kevd, "org.kevd.events.GetLimits", NULL));
        (void)close(kevd);
}
