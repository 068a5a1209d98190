/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "protocol.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "macro.h"

/* ---- the daemon ---------------------------------------------------------------------------------------- */

struct daemon *start_for_all(void) {
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        return daemon_start("--mode=system", "--file-mechanism=inotify");
}

struct fd_count {
        pid_t pid;
        size_t expected;
};

static bool has_fds(void *userdata) {
        const struct fd_count *count = userdata;

        return n_fds_of(count->pid) == count->expected;
}

void expect_fds(struct daemon *daemon, size_t expected) {
        struct fd_count count = { daemon->pid, expected };

        ck_assert_msg(wait_until(has_fds, &count, HARNESS_REPLY_MSEC), "the daemon has %zu descriptors, not %zu",
                      n_fds_of(daemon->pid), expected);
}

/* ---- a client ------------------------------------------------------------------------------------------ */

struct json_object *call(int fd, const char *method, const char *format, ...) {
        _cleanup_(freep) char *parameters = NULL;
        char name[128];
        va_list args;

        va_start(args, format);
        ck_assert_int_ge(vasprintf(&parameters, format, args), 0);
        va_end(args);
        (void)snprintf(name, sizeof(name), "%s%s", strchr(method, '.') ? "" : "org.kevd.events.", method);
        return client_call(fd, name, parameters);
}

struct json_object *receive(int fd) {
        struct json_object *reply = client_receive(fd, HARNESS_REPLY_MSEC);

        ck_assert_msg(reply, "no reply");
        return reply;
}

void expect_answers(int fd) {
        json_object_put(call(fd, "GetLimits", "{}"));
}

void refused(int fd, const char *watch, const char *error) {
        struct json_object *reply = call(fd, "Change", "{\"add\":[%s]}", watch);

        ck_assert_msg(strcmp(text_at(reply, "/parameters/refused/0/errno"), error) == 0, "%s instead of %s for %s",
                      json_object_to_json_string(reply), error, watch);
        json_object_put(reply);
}

int64_t trigger(int fd, const char *name, int64_t data) {
        struct json_object *reply = call(fd, "Trigger", "{\"name\":\"%s\",\"data\":%lld}", name, (long long)data);
        int64_t reached = number_at(reply, "/parameters/reached");

        json_object_put(reply);
        return reached;
}

struct json_object *take(int fd) {
        return call(fd, "Wait", "{\"timeoutMsec\":0}");
}

size_t n_events(struct json_object *reply) {
        struct json_object *events = json_at(reply, "/parameters/events");

        ck_assert_msg(json_object_is_type(events, json_type_array), "no events in %s", json_object_to_json_string(reply));
        return json_object_array_length(events);
}

void send_with_fd(int fd, int passed, const char *text) {
        client_send_with_fds(fd, text, strlen(text) + 1, &passed, 1);
}

void expect_none_refused(int fd) {
        struct json_object *reply = receive(fd);

        ck_assert_msg(json_at(reply, "/parameters/refused") &&
                              json_object_array_length(json_at(reply, "/parameters/refused")) == 0,
                      "%s", json_object_to_json_string(reply));
        json_object_put(reply);
}

void send_watches(int fd, const char *name, int first, int n) {
        char *text = malloc((size_t)n * 64 + 128);
        size_t size;

        ck_assert_ptr_nonnull(text);
        size = (size_t)sprintf(text, "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[");
        for (int id = first; id < first + n; id++)
                size += (size_t)sprintf(text + size, "%s{\"id\":%d,\"filter\":\"user\",\"name\":\"%s\"}",
                                        id > first ? "," : "", id, name);
        (void)sprintf(text + size, "]}}");
        client_send_message(fd, text);
        free(text);
}

void watch_name(int fd, const char *name, int first, int n) {
        enum { A_CALL = 500 };

        for (int i = 0; i < n; i += A_CALL) {
                send_watches(fd, name, first + i, n - i < A_CALL ? n - i : A_CALL);
                expect_none_refused(fd);
        }
}

/* ---- what is watched ----------------------------------------------------------------------------------- */

int open_new_file(const char *name) {
        char path[PATH_MAX];
        int fd;

        (void)snprintf(path, sizeof(path), "%s/%s", harness_tempdir(), name);
        fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        assert_system(fd >= 0, path);
        return fd;
}

void touch(int fd) {
        ck_assert_int_eq(write(fd, "x", 1), 1);
}
