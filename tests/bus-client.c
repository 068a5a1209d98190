/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus-client.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "macro.h"

/* ---- D-Bus ------------------------------------------------------------------------------------------------ */

char *get_string(sd_bus *bus, const char *path, const char *interface, const char *property) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        char *value = NULL;
        int r = sd_bus_get_property_string(bus, "org.kevd", path, interface, property, &error, &value);

        ck_assert_msg(r >= 0, "%s: %s", property, error.message ? error.message : strerror(-r));
        return value;
}

void expect_string(sd_bus *bus, const char *path, const char *interface, const char *property, const char *expected) {
        _cleanup_(freep) char *value = get_string(bus, path, interface, property);

        ck_assert_str_eq(value, expected);
}

int64_t get_figure(sd_bus *bus, const char *property) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        uint64_t value = 0;
        int r = sd_bus_get_property_trivial(bus, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, property, &error, 't', &value);

        ck_assert_msg(r >= 0, "%s: %s", property, error.message ? error.message : strerror(-r));
        return (int64_t)value;
}

char *set_string(sd_bus *bus, const char *property, const char *value) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        char *name = NULL;
        int r = sd_bus_set_property(bus, "org.kevd", LOG_PATH, LOG_INTERFACE, property, &error, "s", value);

        if (r < 0) {
                ck_assert_ptr_nonnull(error.name);
                name = strdup(error.name);
        }
        sd_bus_error_free(&error);
        return name;
}

void set_level(sd_bus *bus, const char *level) {
        char *error = set_string(bus, "LogLevel", level);

        ck_assert_msg(!error, "%s: %s", level, error);
}

struct json_object *call_manager(sd_bus *bus, const char *method) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *reply = NULL;
        struct json_object *object;
        const char *text;
        int r = sd_bus_call_method(bus, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, method, &error, &reply, "");

        ck_assert_msg(r >= 0, "%s: %s", method, error.message ? error.message : strerror(-r));
        ck_assert_int_ge(sd_bus_message_read(reply, "s", &text), 0);
        object = json_tokener_parse(text);
        ck_assert_msg(json_object_is_type(object, json_type_object), "%s", text);
        sd_bus_message_unref(reply);
        return object;
}

/* ---- Varlink ---------------------------------------------------------------------------------------------- */

void watch_name(int fd, const char *name) {
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"%s\"}]}", name);
}

void trigger(int fd, const char *name) {
        struct json_object *reply;
        char parameters[128];

        format(parameters, sizeof(parameters), "{\"name\":\"%s\"}", name);
        reply = client_call(fd, "org.kevd.events.Trigger", parameters);
        ck_assert_int_eq(json_object_get_int64(json_at(reply, "/parameters/reached")), 1);
        json_object_put(reply);
}

void expect_event(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}");

        ck_assert_msg(json_at(reply, "/parameters/events/0") && !json_at(reply, "/parameters/events/1"), "%s",
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

void expect_service(const struct daemon *daemon) {
        int fd = client_connect(daemon->socket);

        watch_name(fd, "service");
        trigger(fd, "service");
        expect_event(fd);
        (void)close(fd);
}

/* ---- the log -------------------------------------------------------------------------------------------- */

void make_log_line(const struct daemon *daemon) {
        int fd = client_connect(daemon->socket);

        client_send_message(fd, "nonsense");
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        (void)close(fd);
}

int count_in_log(const char *text) {
        static char log[256 * 1024];
        char path[PATH_MAX];
        FILE *file;
        int n = 0;

        format(path, sizeof(path), "%s/kevd-1.log", harness_tempdir());
        file = fopen(path, "re");
        assert_system(file, path);
        log[fread(log, 1, sizeof(log) - 1, file)] = 0;
        (void)fclose(file);
        for (const char *p = log; (p = strstr(p, text)); p += strlen(text))
                n++;
        return n;
}
