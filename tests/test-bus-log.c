/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The daemon's log on D-Bus: its level, which can be read and set, and where it goes.
 */

#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>
#include <systemd/sd-bus.h>

#include "bus-client.h"
#include "buses.h"
#include "harness.h"
#include "macro.h"

static const char *const levels[] = { "debug", "info", "notice", "warning", "err", "crit", "alert", "emerg" };

START_TEST(test_log_level) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        int fd = client_connect(daemon->socket);

        expect_string(bus, LOG_PATH, LOG_INTERFACE, "LogLevel", "info");
        for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
                struct json_object *status;

                set_level(bus, levels[i]);
                expect_string(bus, LOG_PATH, LOG_INTERFACE, "LogLevel", levels[i]);
                status = client_call(fd, "org.kevd.manager.GetStatus", NULL);
                ck_assert_str_eq(json_object_get_string(json_at(status, "/parameters/logLevel")), levels[i]);
                json_object_put(status);
        }
        sd_bus_flush_close_unref(bus);
        (void)close(fd);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

START_TEST(test_log_level_unknown) {
        static const char *const unknown[] = { "", "loud", "INFO", "info ", "6" };
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start("--log-level=warning");
        sd_bus *bus = bus_connect_to_daemon();

        for (size_t i = 0; i < ARRAY_SIZE(unknown); i++) {
                _cleanup_(freep) char *error = set_string(bus, "LogLevel", unknown[i]);

                ck_assert_msg(error, "\"%s\" was taken", unknown[i]);
                ck_assert_str_eq(error, SD_BUS_ERROR_INVALID_ARGS);
                expect_string(bus, LOG_PATH, LOG_INTERFACE, "LogLevel", "warning");
        }
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

/* The level decides what is written, from the next line on. */
START_TEST(test_log_level_works) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();

        make_log_line(daemon);
        ck_assert_int_eq(count_in_log("connection of pid"), 1);
        set_level(bus, "err");
        make_log_line(daemon);
        ck_assert_int_eq(count_in_log("connection of pid"), 1);
        set_level(bus, "debug");
        make_log_line(daemon);
        ck_assert_int_eq(count_in_log("connection of pid"), 2);
        ck_assert_int_eq(count_in_log("the log level is debug now, as user"), 1);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

/* The daemon's standard error is what the harness opens by this name. */
static void set_journal_stream(bool is_its_own) {
        char path[PATH_MAX], stream[64];
        struct stat st;
        int fd;

        format(path, sizeof(path), "%s/kevd-1.log", harness_tempdir());
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_system(fd >= 0 && fstat(fd, &st) == 0, path);
        (void)close(fd);
        format(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev,
               (unsigned long long)st.st_ino + !is_its_own);
        ck_assert_int_eq(setenv("JOURNAL_STREAM", stream, 1), 0);
}

START_TEST(test_log_target) {
        static const struct {
                const char *name, *target;
        } cases[] = { { "none", "console" }, { "of another", "console" }, { "its own", "journal" } };
        pid_t bus_pid = bus_start();
        struct daemon *daemon;
        sd_bus *bus;
        char *error;

        harness_label(cases[_i].name);
        if (_i == 0)
                ck_assert_int_eq(unsetenv("JOURNAL_STREAM"), 0);
        else
                set_journal_stream(_i == 2);
        daemon = daemon_start(NULL);
        bus = bus_connect_to_daemon();
        expect_string(bus, LOG_PATH, LOG_INTERFACE, "LogTarget", cases[_i].target);
        expect_string(bus, LOG_PATH, LOG_INTERFACE, "SyslogIdentifier", "kevd");
        error = set_string(bus, "LogTarget", "null");
        ck_assert_ptr_nonnull(error);
        ck_assert_str_eq(error, SD_BUS_ERROR_NOT_SUPPORTED);
        free(error);
        expect_string(bus, LOG_PATH, LOG_INTERFACE, "LogTarget", cases[_i].target);
        error = set_string(bus, "SyslogIdentifier", "x");
        ck_assert_ptr_nonnull(error);
        ck_assert_str_eq(error, SD_BUS_ERROR_PROPERTY_READ_ONLY);
        free(error);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("bus-log"), "log");

        tcase_add_test(c, test_log_level);
        tcase_add_test(c, test_log_level_unknown);
        tcase_add_test(c, test_log_level_works);
        tcase_add_loop_test(c, test_log_target, 0, 3);
        return harness_main(argc, argv);
}
