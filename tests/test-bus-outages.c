/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The daemon does the same work when there is no bus, when there is one that does not answer, when its name is taken,
 * when the bus goes away and comes again, and when it is flooded.
 */

#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>
#include <systemd/sd-bus.h>

#include "bus-client.h"
#include "buses.h"
#include "harness.h"
#include "macro.h"

static bool is_in_log(void *text) {
        return count_in_log(text) > 0;
}

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

static int on_figure(sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        uint64_t value;

        ck_assert_int_ge(sd_bus_message_read(reply, "v", "t", &value), 0);
        *(int64_t *)userdata = (int64_t)value;
        return 0;
}

/* Nobody waits for the reply, of which a bus allows not so many. */
static void send_introspect(sd_bus *bus) {
        sd_bus_message *call = NULL;

        ck_assert_int_ge(sd_bus_message_new_method_call(bus, &call, "org.kevd", MANAGER_PATH,
                                                        "org.freedesktop.DBus.Introspectable", "Introspect"), 0);
        ck_assert_int_ge(sd_bus_message_set_expect_reply(call, false), 0);
        ck_assert_int_ge(sd_bus_send(bus, call, NULL), 0);
        sd_bus_message_unref(call);
}

/* Calls that have no end: what clients want has its part of each turn. Here both are there when the daemon goes on, and
 * the last call on the bus tells how much of the client's was done before it. */
START_TEST(test_bus_floods) {
        enum { CALLS = 200, TRIGGERS = 400 };
        static const char trigger_n[] = "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"n\"},"
                                        "\"oneway\":true}";
        char triggers[TRIGGERS * sizeof(trigger_n)];
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        int fd = client_connect(daemon->socket);
        int64_t n_events = -1;

        watch_name(fd, "n");
        assert_system(kill(daemon->pid, SIGSTOP) == 0, "kill");
        for (int i = 0; i < CALLS; i++)
                send_introspect(bus);
        ck_assert_int_ge(sd_bus_call_method_async(bus, NULL, "org.kevd", MANAGER_PATH,
                                                  "org.freedesktop.DBus.Properties", "Get", on_figure, &n_events, "ss",
                                                  MANAGER_INTERFACE, "EventsIn"), 0);
        ck_assert(bus_has_daemon(bus)); /* it passed on what came before */
        for (size_t i = 0; i < TRIGGERS; i++)
                memcpy(triggers + i * sizeof(trigger_n), trigger_n, sizeof(trigger_n));
        client_send(fd, triggers, sizeof(triggers)); /* one by one they would not all have room */
        assert_system(kill(daemon->pid, SIGCONT) == 0, "kill");
        while (n_events < 0) {
                int r = sd_bus_process(bus, NULL);

                ck_assert_int_ge(r, 0);
                if (r == 0)
                        ck_assert_int_ge(sd_bus_wait(bus, UINT64_C(1000) * HARNESS_REPLY_MSEC), 0);
        }
        ck_assert_int_ge(n_events, TRIGGERS / 4); /* what one turn does is far less */
        (void)close(fd);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("bus-outages"), "coming_and_going");

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
        tcase_add_test(c, test_bus_floods);
        return harness_main(argc, argv);
}
