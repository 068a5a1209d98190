/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The daemon on D-Bus, seen through sd-bus on a bus that the test starts: the log's properties, the
 * manager's figures beside those that Varlink gives, and that the daemon does the same work when there
 * is no bus, when there is one that does not answer, and when the bus goes away.
 */

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>
#include <systemd/sd-bus.h>

#include "buses.h"
#include "harness.h"
#include "macro.h"

#define LOG_PATH "/org/freedesktop/LogControl1"
#define LOG_INTERFACE "org.freedesktop.LogControl1"
#define MANAGER_PATH "/org/kevd/Manager"
#define MANAGER_INTERFACE "org.kevd.Manager"

static void format(char *text, size_t size, const char *form, ...) __attribute__((format(printf, 3, 4)));
static void format(char *text, size_t size, const char *form, ...) {
        va_list args;

        va_start(args, form);
        ck_assert_int_lt(vsnprintf(text, size, form, args), (int)size);
        va_end(args);
}

/* ---- a client of it ------------------------------------------------------------------------------------ */

/* The caller frees it. */
static char *get_string(sd_bus *bus, const char *path, const char *interface, const char *property) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        char *value = NULL;
        int r = sd_bus_get_property_string(bus, "org.kevd", path, interface, property, &error, &value);

        ck_assert_msg(r >= 0, "%s: %s", property, error.message ? error.message : strerror(-r));
        return value;
}

static void expect_string(sd_bus *bus, const char *path, const char *interface, const char *property,
                          const char *expected) {
        _cleanup_(freep) char *value = get_string(bus, path, interface, property);

        ck_assert_str_eq(value, expected);
}

static int64_t get_figure(sd_bus *bus, const char *property) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        uint64_t value = 0;
        int r = sd_bus_get_property_trivial(bus, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, property, &error, 't', &value);

        ck_assert_msg(r >= 0, "%s: %s", property, error.message ? error.message : strerror(-r));
        return (int64_t)value;
}

/* NULL, or the name of the error. */
static char *set_string(sd_bus *bus, const char *property, const char *value) {
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

static void set_level(sd_bus *bus, const char *level) {
        char *error = set_string(bus, "LogLevel", level);

        ck_assert_msg(!error, "%s: %s", level, error);
}

static struct json_object *call_manager(sd_bus *bus, const char *method) {
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

static void watch_name(int fd, const char *name) {
        struct json_object *reply;
        char parameters[128];

        format(parameters, sizeof(parameters), "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"%s\"}]}", name);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        ck_assert_msg(json_at(reply, "/parameters/refused") && !json_at(reply, "/parameters/refused/0"), "%s",
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

static void trigger(int fd, const char *name) {
        struct json_object *reply;
        char parameters[128];

        format(parameters, sizeof(parameters), "{\"name\":\"%s\"}", name);
        reply = client_call(fd, "org.kevd.events.Trigger", parameters);
        ck_assert_int_eq(json_object_get_int64(json_at(reply, "/parameters/reached")), 1);
        json_object_put(reply);
}

static void expect_event(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}");

        ck_assert_msg(json_at(reply, "/parameters/events/0") && !json_at(reply, "/parameters/events/1"), "%s",
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

/* What the daemon is for. */
static void expect_service(const struct daemon *daemon) {
        int fd = client_connect(daemon->socket);

        watch_name(fd, "service");
        trigger(fd, "service");
        expect_event(fd);
        (void)close(fd);
}

/* How often its log has the text. */
static int count_in_log(const char *text) {
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

static bool is_in_log(void *text) {
        return count_in_log(text) > 0;
}

/* ---- the log -------------------------------------------------------------------------------------------- */

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

/* Sends what is not a call, of which the daemon's log tells at the level info. */
static void make_log_line(const struct daemon *daemon) {
        int fd = client_connect(daemon->socket);

        client_send_message(fd, "nonsense");
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        (void)close(fd);
}

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
        ck_assert_int_eq(count_in_log("the log level is debug now"), 1);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

START_TEST(test_log_target) {
        static const struct {
                const char *stream, *target;
        } cases[] = { { NULL, "console" }, { "8:1234", "journal" } };
        pid_t bus_pid = bus_start();
        struct daemon *daemon;
        sd_bus *bus;
        char *error;

        harness_label(cases[_i].target);
        ck_assert_int_eq(cases[_i].stream ? setenv("JOURNAL_STREAM", cases[_i].stream, 1) : unsetenv("JOURNAL_STREAM"), 0);
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

/* ---- the figures ------------------------------------------------------------------------------------------ */

/* One of what has been closed may be on its way out still. */
static void drop_descriptors(struct json_object *status) {
        struct json_object *users = json_at(status, "/users");

        for (size_t i = 0; users && i < json_object_array_length(users); i++)
                json_object_object_del(json_object_array_get_idx(users, i), "descriptors");
}

/* Both the same, but for what grew between the two calls; the members of either are all in the other. */
static void expect_same(struct json_object *bus, struct json_object *varlink, const char *grows) {
        if (grows) {
                ck_assert_int_ge(json_object_get_int64(json_at(bus, grows)),
                                 json_object_get_int64(json_at(varlink, grows)));
                ck_assert_int_gt(json_object_get_int64(json_at(varlink, grows)), 0);
                json_object_object_del(bus, grows + 1);
                json_object_object_del(varlink, grows + 1);
        }
        drop_descriptors(bus);
        drop_descriptors(varlink);
        ck_assert_msg(json_object_equal(bus, varlink), "%s on the bus, but %s", json_object_to_json_string(bus),
                      json_object_to_json_string(varlink));
}

/* A daemon that has something to tell: three connections, watches, events that wait and some that were taken, a
 * refusal and an error of the protocol. */
static void make_figures(const struct daemon *daemon, int fds[static 3]) {
        for (int i = 0; i < 3; i++)
                fds[i] = client_connect(daemon->socket);
        watch_name(fds[0], "a");
        watch_name(fds[1], "b");
        for (int i = 0; i < 5; i++)
                trigger(fds[2], "a");
        trigger(fds[2], "b");
        expect_event(fds[1]);
        json_object_put(client_call(fds[1], "org.kevd.events.Change", "{\"add\":[{\"id\":2,\"filter\":\"timer\"}]}"));
        make_log_line(daemon);
}

START_TEST(test_status) {
        static const struct {
                const char *property, *pointer;
                int64_t least;
        } figures[] = {
                { "Connections", "/parameters/connections", 3 },
                { "Watches", "/parameters/watches", 2 },
                { "EventsIn", "/parameters/counters/eventsIn", 6 },
                { "Delivered", "/parameters/counters/delivered", 1 },
                { "Merged", "/parameters/counters/merged", 0 },
                { "Rescans", "/parameters/counters/rescans", 0 },
                { "KernelOverflows", "/parameters/counters/kernelOverflows", 0 },
                { "Refused", "/parameters/counters/refused", 1 },
                { "ProtocolErrors", "/parameters/counters/protocolErrors", 1 },
                { "ConnectionsAccepted", "/parameters/counters/connectionsAccepted", 4 },
                { "ConnectionsRefused", "/parameters/counters/connectionsRefused", 0 },
        };
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        struct json_object *varlink, *object;
        int64_t uptime;
        int fds[3];

        make_figures(daemon, fds);
        varlink = client_call(fds[2], "org.kevd.manager.GetStatus", NULL);
        for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
                int64_t value = get_figure(bus, figures[i].property);

                ck_assert_msg(value == json_object_get_int64(json_at(varlink, figures[i].pointer)) &&
                                      value >= figures[i].least,
                              "%s is %lld on the bus, in %s", figures[i].property, (long long)value,
                              json_object_to_json_string(varlink));
        }
        uptime = json_object_get_int64(json_at(varlink, "/parameters/uptimeUsec"));
        ck_assert_int_gt(uptime, 0);
        ck_assert_int_ge(get_figure(bus, "UptimeUsec"), uptime);
        expect_string(bus, MANAGER_PATH, MANAGER_INTERFACE, "Mode", "user");
        expect_string(bus, MANAGER_PATH, MANAGER_INTERFACE, "Version",
                      json_object_get_string(json_at(varlink, "/parameters/version")));
        expect_string(bus, MANAGER_PATH, MANAGER_INTERFACE, "Mux",
                      json_object_get_string(json_at(varlink, "/parameters/mux")));

        object = call_manager(bus, "GetStatus");
        expect_same(object, json_at(varlink, "/parameters"), "/uptimeUsec");
        json_object_put(object);
        json_object_put(varlink);
        for (int i = 0; i < 3; i++)
                (void)close(fds[i]);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

START_TEST(test_queues) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        struct json_object *varlink, *object;
        int64_t pending = 0;
        char pointer[32];
        int fds[3];

        make_figures(daemon, fds);
        varlink = client_call(fds[2], "org.kevd.manager.ListQueues", NULL);
        object = call_manager(bus, "ListQueues");
        ck_assert_uint_eq(json_object_array_length(json_at(object, "/queues")), 3);
        ck_assert_uint_eq(json_object_array_length(json_at(varlink, "/parameters/queues")), 3);
        for (size_t i = 0; i < 3; i++) {
                struct json_object *queue = json_object_array_get_idx(json_at(object, "/queues"), i);

                pending += json_object_get_int64(json_at(queue, "/pendingEvents"));
                format(pointer, sizeof(pointer), "/parameters/queues/%zu", i);
                expect_same(queue, json_at(varlink, pointer), "/connectedUsec");
        }
        ck_assert_int_eq(pending, 5);
        expect_same(object, json_at(varlink, "/parameters"), NULL);
        json_object_put(object);
        json_object_put(varlink);
        for (int i = 0; i < 3; i++)
                (void)close(fds[i]);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

/* What is not there is an error, and does no harm. */
START_TEST(test_unknown) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        sd_bus_error error = SD_BUS_ERROR_NULL;
        int r;

        r = sd_bus_call_method(bus, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "Nothing", &error, NULL, "");
        ck_assert_int_lt(r, 0);
        ck_assert_str_eq(error.name, SD_BUS_ERROR_UNKNOWN_METHOD);
        sd_bus_error_free(&error);
        r = sd_bus_call_method(bus, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "GetStatus", &error, NULL, "s", "x");
        ck_assert_int_lt(r, 0);
        ck_assert_str_eq(error.name, SD_BUS_ERROR_INVALID_ARGS);
        sd_bus_error_free(&error);
        r = sd_bus_call_method(bus, "org.kevd", "/nothing", MANAGER_INTERFACE, "GetStatus", &error, NULL, "");
        ck_assert_int_lt(r, 0);
        sd_bus_error_free(&error);
        json_object_put(call_manager(bus, "GetStatus"));
        sd_bus_flush_close_unref(bus);
        expect_service(daemon);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

/* ---- with and without --------------------------------------------------------------------------------------- */

static const char *const no_bus[] = {
        "", "nonsense", "unix:path=/nonexistent/bus", "tcp:host=127.0.0.1,port=1", "unixexec:path=/nonexistent",
};

START_TEST(test_no_bus) {
        struct daemon *daemon;

        harness_label(no_bus[_i]);
        ck_assert_int_eq(setenv("DBUS_SESSION_BUS_ADDRESS", no_bus[_i], 1), 0);
        daemon = daemon_start(NULL);
        expect_service(daemon);
        daemon_stop(daemon);
}
END_TEST

/* The first address leads nowhere, which shows only once it was tried. */
START_TEST(test_second_address) {
        pid_t bus_pid = bus_start();
        char addresses[PATH_MAX + 128];
        struct daemon *daemon;
        sd_bus *bus;

        harness_label(_i ? "poll" : "epoll");
        format(addresses, sizeof(addresses), "tcp:host=127.0.0.1,port=1;%s", getenv("DBUS_SESSION_BUS_ADDRESS"));
        ck_assert_int_eq(setenv("DBUS_SESSION_BUS_ADDRESS", addresses, 1), 0);
        daemon = daemon_start("--mux", _i ? "poll" : "epoll");
        expect_service(daemon);
        bus = bus_connect_to_daemon();
        json_object_put(call_manager(bus, "GetStatus"));
        expect_service(daemon);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

/* Connected to, it says nothing: neither the daemon's start nor its work nor its end waits for it. */
START_TEST(test_silent_bus) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char variable[PATH_MAX];
        struct daemon *daemon;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_system(fd >= 0, "socket");
        format(address.sun_path, sizeof(address.sun_path), "%s/bus", harness_tempdir());
        assert_system(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 8) == 0, "bind");
        format(variable, sizeof(variable), "unix:path=%s", address.sun_path);
        ck_assert_int_eq(setenv("DBUS_SESSION_BUS_ADDRESS", variable, 1), 0);
        daemon = daemon_start(NULL);
        expect_service(daemon);
        daemon_stop(daemon);
        (void)close(fd);
}
END_TEST

static int64_t cpu_ticks(pid_t pid) {
        unsigned long user = 0, system = 0;
        char path[64];
        FILE *file;

        format(path, sizeof(path), "/proc/%d/stat", (int)pid);
        file = fopen(path, "re");
        assert_system(file, path);
        ck_assert_int_eq(fscanf(file, "%*d %*s %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
        (void)fclose(file);
        return (int64_t)(user + system);
}

/* Connections, watches and events that wait are none of the bus's business; and the daemon does not turn in
 * circles on what is left of it. */
START_TEST(test_bus_goes) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start("--mux", _i ? "poll" : "epoll");
        sd_bus *bus = bus_connect_to_daemon();
        char lost[] = "the bus is lost";
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        int64_t ticks;

        harness_label(_i ? "poll" : "epoll");
        watch_name(fd, "n");
        trigger(other, "n");
        sd_bus_flush_close_unref(bus);
        bus_stop(bus_pid);
        ck_assert_msg(wait_until(is_in_log, lost, HARNESS_REPLY_MSEC), "the daemon did not notice");
        ticks = cpu_ticks(daemon->pid);
        (void)poll(NULL, 0, 300); /* what is measured: it has nothing to do */
        ck_assert_int_le(cpu_ticks(daemon->pid) - ticks, sysconf(_SC_CLK_TCK) / 10);
        expect_event(fd);
        trigger(other, "n");
        expect_event(fd);
        expect_service(daemon);
        ck_assert_int_eq(count_in_log(lost), 1);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* A second one on the same bus has no name there, and does its work. */
START_TEST(test_name_taken) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL), *second;
        sd_bus *bus = bus_connect_to_daemon();
        struct json_object *status;

        second = daemon_start(NULL);
        expect_service(second);
        status = call_manager(bus, "GetStatus");
        ck_assert_int_eq(json_object_get_int64(json_at(status, "/pid")), daemon->pid);
        json_object_put(status);
        daemon_stop(second);
        ck_assert(bus_has_daemon(bus));
        /* With the daemon its name goes. */
        daemon_stop(daemon);
        ck_assert(wait_until(bus_has_no_daemon, bus, HARNESS_REPLY_MSEC));
        sd_bus_flush_close_unref(bus);
        bus_stop(bus_pid);
}
END_TEST

static int on_reply(sd_bus_message *reply _unused_, void *userdata _unused_, sd_bus_error *error _unused_) {
        return 0;
}

/* Stopped while the bus does not run: it does not wait for it. */
START_TEST(test_bus_hangs) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();

        sd_bus_flush_close_unref(bus);
        ck_assert_int_eq(kill(bus_pid, SIGSTOP), 0);
        expect_service(daemon);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

/* Stopped while a call of a method waits that is not everybody's: the daemon does not ask it who calls. */
START_TEST(test_bus_hangs_in_call) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon;
        sd_bus *bus;

        if (geteuid() != 0)
                harness_skip("only root can have a system daemon");
        ck_assert_int_eq(setenv("DBUS_SYSTEM_BUS_ADDRESS", getenv("DBUS_SESSION_BUS_ADDRESS"), 1), 0);
        daemon = daemon_start("--mode=system");
        bus = bus_connect_to_daemon();
        json_object_put(call_manager(bus, "ListQueues"));
        set_level(bus, "info");
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        ck_assert_int_ge(sd_bus_call_method_async(bus, NULL, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "ListQueues",
                                                  on_reply, NULL, ""), 0);
        ck_assert(bus_has_daemon(bus)); /* it passed on what came before */
        ck_assert_int_eq(kill(bus_pid, SIGSTOP), 0);
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        expect_service(daemon);
        daemon_stop(daemon);
        sd_bus_close_unref(bus);
        bus_stop(bus_pid);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("bus");
        TCase *c;

        c = harness_case(suite, "log");
        tcase_add_test(c, test_log_level);
        tcase_add_test(c, test_log_level_unknown);
        tcase_add_test(c, test_log_level_works);
        tcase_add_loop_test(c, test_log_target, 0, 2);

        c = harness_case(suite, "figures");
        tcase_add_test(c, test_status);
        tcase_add_test(c, test_queues);
        tcase_add_test(c, test_unknown);

        c = harness_case(suite, "coming_and_going");
        tcase_set_timeout(c, 60);
        tcase_add_loop_test(c, test_no_bus, 0, ARRAY_SIZE(no_bus));
        tcase_add_loop_test(c, test_second_address, 0, 2);
        tcase_add_test(c, test_silent_bus);
        tcase_add_loop_test(c, test_bus_goes, 0, 2);
        tcase_add_test(c, test_name_taken);
        tcase_add_test(c, test_bus_hangs);
        tcase_add_test(c, test_bus_hangs_in_call);
        return harness_main(argc, argv);
}
