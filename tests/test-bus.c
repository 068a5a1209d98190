/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The daemon on D-Bus, seen through sd-bus on a bus that the test starts: the log's properties, the
 * manager's figures beside those that Varlink gives, what changes something and who may, and that the daemon
 * does the same work when there is no bus, when there is one that does not answer, and when the bus goes away
 * and comes again.
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
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>
#include <systemd/sd-bus.h>

#include "buses.h"
#include "harness.h"
#include "macro.h"
#include "polkit.h"

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

/* ---- what changes something ------------------------------------------------------------------------------------ */

/* A dbus-daemon turns away who is in no list of users. */
enum { NOBODY = 65534 };

#define NO_SUCH_CONNECTION "org.kevd.Error.NoSuchConnection"

/* The id of the connection that has so many watches. */
static uint64_t id_of(sd_bus *bus, int64_t n_watches) {
        struct json_object *object = call_manager(bus, "ListQueues"), *queues = json_at(object, "/queues");
        int64_t id = 0;

        for (size_t i = 0; i < json_object_array_length(queues); i++)
                if (number_at(json_object_array_get_idx(queues, i), "/watches") == n_watches)
                        id = number_at(json_object_array_get_idx(queues, i), "/id");
        json_object_put(object);
        ck_assert_int_gt(id, 0);
        return (uint64_t)id;
}

/* "" or the error's name, which lives until the next. */
static const char *name_of(const sd_bus_error *error) {
        static char name[128];

        format(name, sizeof(name), "%s", error && error->name ? error->name : "");
        return name;
}

static const char *disconnect(sd_bus *bus, uint64_t id) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        const char *name;

        (void)sd_bus_call_method(bus, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "Disconnect", &error, NULL, "t", id);
        name = name_of(&error);
        sd_bus_error_free(&error);
        return name;
}

START_TEST(test_disconnect) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        uint64_t id;

        watch_name(fd, "a");
        trigger(other, "a"); /* for it to be in the middle of something */
        id = id_of(bus, 1);
        ck_assert_str_eq(disconnect(bus, 0), NO_SUCH_CONNECTION);
        ck_assert_str_eq(disconnect(bus, UINT64_MAX), NO_SUCH_CONNECTION);
        ck_assert_str_eq(disconnect(bus, id), "");
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        ck_assert_str_eq(disconnect(bus, id), NO_SUCH_CONNECTION);
        (void)close(fd);
        /* Nobody else notices, and nobody gets the number again. */
        watch_name(other, "b");
        trigger(other, "b");
        expect_event(other);
        ck_assert_uint_ne(id_of(bus, 1), id);
        fd = client_connect(daemon->socket);
        watch_name(fd, "c");
        (void)close(other);
        ck_assert_uint_gt(id_of(bus, 1), id);
        (void)close(fd);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

static struct {
        pid_t bus_pid, authority;
        struct daemon *daemon;
        sd_bus *root, *caller;
        char configuration[PATH_MAX];
        int victim; /* a connection */
        uint64_t id; /* its */
} t;

static void authorized_start(void) {
        char option[PATH_MAX + 16];
        FILE *file;

        t.bus_pid = 0;
        if (geteuid() != 0)
                harness_skip("takes root, who can become other users");
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        format(t.configuration, sizeof(t.configuration), "%s/kevd.conf", harness_tempdir());
        file = fopen(t.configuration, "we");
        assert_system(file && fclose(file) == 0, t.configuration);
        format(option, sizeof(option), "--config=%s", t.configuration);
        t.bus_pid = bus_start();
        t.authority = authority_start();
        t.daemon = daemon_start(option);
        t.root = bus_connect_to_daemon();
        t.caller = bus_connect_as(NOBODY);
        t.victim = client_connect(t.daemon->socket);
        watch_name(t.victim, "a");
        t.id = id_of(t.root, 1);
}

static void authorized_stop(void) {
        if (t.bus_pid == 0)
                return;
        (void)close(t.victim);
        sd_bus_flush_close_unref(t.caller);
        sd_bus_flush_close_unref(t.root);
        daemon_stop(t.daemon);
        authority_stop(t.authority);
        bus_stop(t.bus_pid);
}

static bool victim_is_gone(void) {
        struct json_object *object = call_manager(t.root, "ListQueues");
        bool gone = json_object_array_length(json_at(object, "/queues")) == 0;

        json_object_put(object);
        return gone;
}

static bool was_reloaded(void) {
        return count_in_log("the configuration was read again") > 0;
}

static bool level_is_set(void) {
        _cleanup_(freep) char *level = get_string(t.root, LOG_PATH, LOG_INTERFACE, "LogLevel");

        return strcmp(level, "debug") == 0;
}

static const struct {
        const char *action;
        bool (*has_effect)(void);
} actions[] = {
        { "org.kevd.disconnect", victim_is_gone },
        { "org.kevd.reload", was_reloaded },
        { "org.kevd.set-log-level", level_is_set },
};

static sd_bus_message *call_of(int action) {
        sd_bus_message *call = NULL;
        int r;

        if (action == 2) {
                r = sd_bus_message_new_method_call(t.caller, &call, "org.kevd", LOG_PATH,
                                                   "org.freedesktop.DBus.Properties", "Set");
                if (r >= 0)
                        r = sd_bus_message_append(call, "ssv", LOG_INTERFACE, "LogLevel", "s", "debug");
        } else {
                r = sd_bus_message_new_method_call(t.caller, &call, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE,
                                                   action ? "Reload" : "Disconnect");
                if (r >= 0 && action == 0)
                        r = sd_bus_message_append(call, "t", t.id);
        }
        ck_assert_int_ge(r, 0);
        return call;
}

/* What has come of an asynchronous call. */
struct outcome {
        bool came;
        char error[128];
};

static int on_outcome(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error _unused_) {
        struct outcome *outcome = userdata;

        outcome->came = true;
        format(outcome->error, sizeof(outcome->error), "%s", name_of(sd_bus_message_get_error(reply)));
        return 0;
}

static void begin_call(int action, struct outcome *outcome) {
        sd_bus_message *call = call_of(action);

        *outcome = (struct outcome){ 0 };
        ck_assert_int_ge(sd_bus_call_async(t.caller, NULL, call, on_outcome, outcome, UINT64_C(1000) * HARNESS_REPLY_MSEC),
                         0);
        ck_assert_int_ge(sd_bus_flush(t.caller), 0);
        sd_bus_message_unref(call);
}

static void end_call(const struct outcome *outcome, const char *error) {
        while (!outcome->came) {
                int r = sd_bus_process(t.caller, NULL);

                ck_assert_int_ge(r, 0);
                if (r == 0)
                        ck_assert_int_ge(sd_bus_wait(t.caller, UINT64_C(1000) * HARNESS_REPLY_MSEC), 0);
        }
        ck_assert_str_eq(outcome->error, error);
}

static void answer(enum answer answer) {
        __atomic_store_n(&authority->answer, answer, __ATOMIC_SEQ_CST);
}

static bool call_effect(void *action) {
        return actions[*(int *)action].has_effect();
}

/* By polkit's word, and not before it. */
START_TEST(test_authorized) {
        static const struct {
                enum answer answer;
                const char *name, *error;
        } answers[] = {
                { ANSWER_YES, "yes", "" },
                { ANSWER_NO, "no", SD_BUS_ERROR_ACCESS_DENIED },
                { ANSWER_CHALLENGE, "challenge", SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED },
                { ANSWER_ODD, "not to be understood", SD_BUS_ERROR_ACCESS_DENIED },
        };
        int action = _i / (int)ARRAY_SIZE(answers), n = _i % (int)ARRAY_SIZE(answers);
        struct outcome outcome;
        char label[128];

        format(label, sizeof(label), "%s, %s", actions[action].action, answers[n].name);
        harness_label(label);
        answer(ANSWER_LATE);
        begin_call(action, &outcome);
        ck_assert(wait_until(authority_was_asked, &(unsigned){ 1 }, HARNESS_REPLY_MSEC));
        ck_assert_str_eq(authority->action, actions[action].action);
        /* Nothing has happened, and nobody waits meanwhile. */
        expect_service(t.daemon);
        ck_assert(!actions[action].has_effect());
        answer(answers[n].answer);
        end_call(&outcome, answers[n].error);
        if (answers[n].answer == ANSWER_YES) /* a connection is taken out at the end of a turn */
                ck_assert(wait_until(call_effect, &action, HARNESS_REPLY_MSEC));
        else
                ck_assert(!actions[action].has_effect());
        expect_service(t.daemon);
        ck_assert_uint_eq(authority->n_asked, 1);
}
END_TEST

static bool caller_has_left(void *name) {
        sd_bus_message *reply = NULL;
        int owned = 0;

        ck_assert_int_ge(sd_bus_call_method(t.root, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                            "org.freedesktop.DBus", "NameHasOwner", NULL, &reply, "s", name), 0);
        ck_assert_int_ge(sd_bus_message_read(reply, "b", &owned), 0);
        sd_bus_message_unref(reply);
        return !owned;
}

/* Who has asked and gone is given nothing. */
START_TEST(test_caller_leaves) {
        struct outcome outcome;
        const char *unique;
        char name[128];

        harness_label(actions[_i].action);
        ck_assert_int_ge(sd_bus_get_unique_name(t.caller, &unique), 0);
        format(name, sizeof(name), "%s", unique);
        answer(ANSWER_LATE);
        begin_call(_i, &outcome);
        ck_assert(wait_until(authority_was_asked, &(unsigned){ 1 }, HARNESS_REPLY_MSEC));
        t.caller = sd_bus_close_unref(t.caller);
        ck_assert(wait_until(caller_has_left, name, HARNESS_REPLY_MSEC));
        answer(ANSWER_YES);
        ck_assert(wait_until(authority_has_answered, &(unsigned){ 1 }, HARNESS_REPLY_MSEC));
        /* The answer to a second question comes behind that to the first. */
        t.caller = bus_connect_as(NOBODY);
        answer(ANSWER_NO);
        begin_call(_i, &outcome);
        end_call(&outcome, SD_BUS_ERROR_ACCESS_DENIED);
        ck_assert_uint_eq(authority->n_asked, 2);
        ck_assert(!actions[_i].has_effect());
        expect_service(t.daemon);
}
END_TEST

/* Root needs no polkit, and learns what is wrong. */
START_TEST(test_reload) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        char expected[PATH_MAX + 64];
        FILE *file;

        ck_assert_int_ge(sd_bus_call_method(t.root, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "Reload", &error, NULL,
                                            ""), 0);
        ck_assert(was_reloaded());
        file = fopen(t.configuration, "we");
        ck_assert_ptr_nonnull(file);
        (void)fprintf(file, "# fine\nlog-level = loud\n");
        ck_assert_int_eq(fclose(file), 0);
        ck_assert_int_lt(sd_bus_call_method(t.root, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "Reload", &error, NULL,
                                            ""), 0);
        ck_assert_str_eq(error.name, "org.kevd.Error.ConfigurationInvalid");
        format(expected, sizeof(expected), "%s:2: log-level: \"loud\"", t.configuration);
        ck_assert_msg(strncmp(error.message, expected, strlen(expected)) == 0, "%s", error.message);
        sd_bus_error_free(&error);
        ck_assert_uint_eq(authority->n_asked, 0);
}
END_TEST

/* ---- signals, and what the objects say of themselves ------------------------------------------------------------ */

struct told {
        unsigned n;
        uint64_t connections, watches;
};

static int on_changed(sd_bus_message *signal, void *userdata, sd_bus_error *ret_error _unused_) {
        struct told *told = userdata;
        const char *interface, *name;

        ck_assert_int_ge(sd_bus_message_read(signal, "s", &interface), 0);
        ck_assert_str_eq(interface, MANAGER_INTERFACE);
        ck_assert_int_ge(sd_bus_message_enter_container(signal, 'a', "{sv}"), 0);
        while (sd_bus_message_enter_container(signal, 'e', "sv") > 0) {
                uint64_t value;

                ck_assert_int_ge(sd_bus_message_read(signal, "sv", &name, "t", &value), 0);
                ck_assert_int_ge(sd_bus_message_exit_container(signal), 0);
                if (strcmp(name, "Connections") == 0)
                        told->connections = value;
                else {
                        ck_assert_str_eq(name, "Watches");
                        told->watches = value;
                }
        }
        told->n++;
        return 0;
}

/* Takes what the bus has, until both figures are told to be these. */
static void expect_told(sd_bus *bus, const struct told *told, uint64_t connections, uint64_t watches) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;

        while (told->n == 0 || told->connections != connections || told->watches != watches) {
                int r = sd_bus_process(bus, NULL);

                ck_assert_int_ge(r, 0);
                ck_assert_msg(now_msec() < deadline, "%llu connections and %llu watches were told",
                              (unsigned long long)told->connections, (unsigned long long)told->watches);
                if (r == 0)
                        ck_assert_int_ge(sd_bus_wait(bus, 100000), 0);
        }
}

/* Of connections and watches, once a second at most; of events never. */
START_TEST(test_signals) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        struct told told = { 0 };
        int64_t begin;
        int fd, other;
        unsigned n;

        ck_assert_int_ge(sd_bus_match_signal(bus, NULL, "org.kevd", MANAGER_PATH, "org.freedesktop.DBus.Properties",
                                             "PropertiesChanged", on_changed, &told), 0);
        begin = now_msec();
        fd = client_connect(daemon->socket);
        expect_told(bus, &told, 1, 0);
        other = client_connect(daemon->socket);
        for (int i = 0; i < 300; i++) { /* what comes and goes in between is nobody's business */
                watch_name(fd, "a");
                json_object_put(client_call(fd, "org.kevd.events.Change", "{\"remove\":[1]}"));
        }
        watch_name(fd, "a");
        expect_told(bus, &told, 2, 1);
        ck_assert_int_le(told.n, (now_msec() - begin) / 1000 + 1);
        n = told.n;
        for (int i = 0; i < 100; i++) {
                trigger(other, "a");
                expect_event(fd);
        }
        (void)close(other);
        expect_told(bus, &told, 1, 1);
        ck_assert_uint_eq(told.n, n + 1);
        (void)close(fd);
        expect_told(bus, &told, 0, 0);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

/* The text from `begin` up to the end of that element holds the other. */
static void expect_in(const char *xml, const char *begin, const char *end, const char *text, bool expected) {
        const char *from = strstr(xml, begin), *to = from ? strstr(from, end) : NULL;
        _cleanup_(freep) char *part = to ? strndup(from, (size_t)(to - from)) : NULL;

        ck_assert_msg(part, "%s is not in %s", begin, xml);
        ck_assert_msg(!strstr(part, text) == !expected, "%s", part);
}

START_TEST(test_introspection) {
        static const char *const figures[] = { "UptimeUsec", "EventsIn", "Delivered", "Merged", "ProtocolErrors" };
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        sd_bus_message *reply = NULL;
        const char *xml;
        char begin[64];

        ck_assert_int_ge(sd_bus_call_method(bus, "org.kevd", MANAGER_PATH, "org.freedesktop.DBus.Introspectable",
                                            "Introspect", NULL, &reply, ""), 0);
        ck_assert_int_ge(sd_bus_message_read(reply, "s", &xml), 0);
        expect_in(xml, "<method name=\"GetStatus\">", "</method>", "<arg type=\"s\" name=\"status\" direction=\"out\"/>", true);
        expect_in(xml, "<method name=\"ListQueues\">", "</method>", "<arg type=\"s\" name=\"queues\" direction=\"out\"/>", true);
        expect_in(xml, "<method name=\"Disconnect\">", "</method>", "<arg type=\"t\" name=\"id\" direction=\"in\"/>", true);
        ck_assert_ptr_nonnull(strstr(xml, "<method name=\"Reload\">"));
        ck_assert_ptr_nonnull(strstr(xml, "<method name=\"ObserveProcesses\">"));
        expect_in(xml, "<property name=\"Version\"", "</property>", "EmitsChangedSignal\" value=\"const\"", true);
        for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
                format(begin, sizeof(begin), "<property name=\"%s\"", figures[i]);
                expect_in(xml, begin, "</property>", "EmitsChangedSignal\" value=\"false\"", true);
        }
        expect_in(xml, "<property name=\"Connections\"", "</property>", "EmitsChangedSignal", false);
        expect_in(xml, "<property name=\"Watches\"", "</property>", "EmitsChangedSignal", false);
        sd_bus_message_unref(reply);
        sd_bus_flush_close_unref(bus);
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

/* The daemon takes its name again, and its clients notice nothing; also the second time. */
START_TEST(test_bus_returns) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start("--mux", _i ? "poll" : "epoll");
        sd_bus *bus = bus_connect_to_daemon();
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        char lost[] = "the bus is lost";

        harness_label(_i ? "poll" : "epoll");
        watch_name(fd, "n");
        for (int i = 1; i <= 2; i++) {
                trigger(other, "n");
                sd_bus_flush_close_unref(bus);
                bus_stop(bus_pid);
                ck_assert_msg(wait_until(is_in_log, lost, HARNESS_REPLY_MSEC), "the daemon did not notice");
                expect_event(fd);
                trigger(other, "n");
                bus_pid = bus_start();
                bus = bus_connect_to_daemon();
                json_object_put(call_manager(bus, "GetStatus"));
                ck_assert_int_eq(get_figure(bus, "Watches"), 1);
                ck_assert_int_eq(get_figure(bus, "ConnectionsAccepted"), 2);
                set_level(bus, i == 1 ? "debug" : "info");
                expect_event(fd);
                ck_assert_int_eq(count_in_log("the bus is there again"), i);
                ck_assert_int_eq(count_in_log(lost), i);
        }
        (void)close(fd);
        (void)close(other);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

/* There was none when the daemon began. */
START_TEST(test_bus_comes) {
        char address[PATH_MAX + 16], none[] = "no bus to be reached";
        struct daemon *daemon;
        pid_t bus_pid;
        sd_bus *bus;

        format(address, sizeof(address), "unix:path=%s/bus", harness_tempdir());
        ck_assert_int_eq(setenv("DBUS_SESSION_BUS_ADDRESS", address, 1), 0);
        daemon = daemon_start(NULL);
        ck_assert(is_in_log(none));
        expect_service(daemon);
        bus_pid = bus_start();
        bus = bus_connect_to_daemon();
        json_object_put(call_manager(bus, "GetStatus"));
        ck_assert_int_eq(count_in_log(none), 1);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
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
        tcase_add_loop_test(c, test_log_target, 0, 3);

        c = harness_case(suite, "figures");
        tcase_add_test(c, test_status);
        tcase_add_test(c, test_queues);
        tcase_add_test(c, test_unknown);

        c = harness_case(suite, "control");
        tcase_add_test(c, test_disconnect);
        c = harness_case(suite, "authorized");
        tcase_add_checked_fixture(c, authorized_start, authorized_stop);
        tcase_add_loop_test(c, test_authorized, 0, 4 * (int)ARRAY_SIZE(actions));
        tcase_add_loop_test(c, test_caller_leaves, 0, ARRAY_SIZE(actions));
        tcase_add_test(c, test_reload);

        c = harness_case(suite, "signals");
        tcase_add_test(c, test_signals);
        tcase_add_test(c, test_introspection);

        c = harness_case(suite, "coming_and_going");
        tcase_set_timeout(c, 60);
        tcase_add_loop_test(c, test_no_bus, 0, ARRAY_SIZE(no_bus));
        tcase_add_loop_test(c, test_second_address, 0, 2);
        tcase_add_test(c, test_silent_bus);
        tcase_add_loop_test(c, test_bus_goes, 0, 2);
        tcase_add_loop_test(c, test_bus_returns, 0, 2);
        tcase_add_test(c, test_bus_comes);
        tcase_add_test(c, test_name_taken);
        tcase_add_test(c, test_bus_hangs);
        tcase_add_test(c, test_bus_hangs_in_call);
        return harness_main(argc, argv);
}
