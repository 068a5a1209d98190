/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the daemon tells on D-Bus: the manager's figures, beside those that Varlink gives, its signals, and what its
 * objects say of themselves.
 */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <json-c/json.h>
#include <systemd/sd-bus.h>

#include "bus-client.h"
#include "buses.h"
#include "harness.h"
#include "macro.h"

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

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("bus-figures");
        TCase *c;

        c = harness_case(suite, "figures");
        tcase_add_test(c, test_status);
        tcase_add_test(c, test_queues);
        tcase_add_test(c, test_unknown);

        c = harness_case(suite, "signals");
        tcase_add_test(c, test_signals);
        tcase_add_test(c, test_introspection);
        return harness_main(argc, argv);
}
