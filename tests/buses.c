/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "buses.h"

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"

enum { BUS_MSEC = 20000 };

/* Everybody may do everything. */
static void write_configuration(const char *path) {
        FILE *file = fopen(path, "we");

        assert_system(file, path);
        (void)fprintf(file,
                      "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN\"\n"
                      "          \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n"
                      "<busconfig>\n"
                      "<type>session</type>\n"
                      "<listen>unix:path=%s/bus</listen>\n"
                      "<auth>EXTERNAL</auth>\n"
                      "<policy context=\"default\">\n"
                      "<allow user=\"*\"/>\n"
                      "<allow send_destination=\"*\" eavesdrop=\"true\"/>\n"
                      "<allow eavesdrop=\"true\"/>\n"
                      "<allow own=\"*\"/>\n"
                      "</policy>\n"
                      "</busconfig>\n",
                      harness_tempdir());
        assert_system(fclose(file) == 0, path);
}

static void become_bus(const char *configuration, int address_fd) {
        char option[PATH_MAX + 32], print[32], log_path[PATH_MAX + 16];
        int log;

        (void)snprintf(option, sizeof(option), "--config-file=%s", configuration);
        (void)snprintf(print, sizeof(print), "--print-address=%d", address_fd);
        (void)snprintf(log_path, sizeof(log_path), "%s/bus.log", harness_tempdir());
        log = open(log_path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        if (log < 0 || dup2(log, STDERR_FILENO) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ||
            fcntl(address_fd, F_SETFD, 0) < 0)
                _exit(126);
        (void)execlp("dbus-daemon", "dbus-daemon", option, print, "--nofork", "--nopidfile", (char *)NULL);
        _exit(127);
}

pid_t bus_start(void) {
        char configuration[PATH_MAX], address[PATH_MAX + 64] = "";
        struct pollfd p = { .events = POLLIN };
        int fds[2], status;
        pid_t pid;

        (void)snprintf(configuration, sizeof(configuration), "%s/bus.conf", harness_tempdir());
        write_configuration(configuration);
        assert_system(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0)
                become_bus(configuration, fds[1]);
        (void)close(fds[1]);
        p.fd = fds[0];
        ck_assert_msg(poll(&p, 1, BUS_MSEC) == 1, "dbus-daemon does not say where it listens");
        (void)!read(fds[0], address, sizeof(address) - 1);
        (void)close(fds[0]);
        address[strcspn(address, ",\n")] = 0; /* without the guid, which is another after the next start */
        if (!address[0]) {
                ck_assert_int_eq(waitpid(pid, &status, 0), pid);
                if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
                        harness_skip("there is no dbus-daemon");
                ck_abort_msg("dbus-daemon ended with %d", status);
        }
        ck_assert_int_eq(setenv("DBUS_SESSION_BUS_ADDRESS", address, 1), 0);
        ck_assert_int_eq(setenv("DBUS_SYSTEM_BUS_ADDRESS", address, 1), 0);
        return pid;
}

void bus_stop(pid_t pid) {
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

bool bus_has_daemon(void *bus) {
        sd_bus_message *reply = NULL;
        int owned = 0;

        ck_assert_int_ge(sd_bus_call_method(bus, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                            "org.freedesktop.DBus", "NameHasOwner", NULL, &reply, "s", "org.kevd"), 0);
        ck_assert_int_ge(sd_bus_message_read(reply, "b", &owned), 0);
        sd_bus_message_unref(reply);
        return owned;
}

bool bus_has_no_daemon(void *bus) {
        return !bus_has_daemon(bus);
}

sd_bus *bus_connect(void) {
        sd_bus *bus = NULL;
        int r = sd_bus_open_user(&bus);

        ck_assert_msg(r >= 0, "sd_bus_open_user: %s", strerror(-r));
        ck_assert_int_ge(sd_bus_set_method_call_timeout(bus, HARNESS_REPLY_MSEC * UINT64_C(1000)), 0);
        return bus;
}

sd_bus *bus_connect_as(uid_t uid) {
        const char *name;
        sd_bus *bus;

        ck_assert_int_eq(seteuid(uid), 0);
        bus = bus_connect();
        ck_assert_int_ge(sd_bus_get_unique_name(bus, &name), 0); /* until then it says who it is */
        ck_assert_int_eq(seteuid(0), 0);
        return bus;
}

sd_bus *bus_connect_to_daemon(void) {
        sd_bus *bus = bus_connect();

        ck_assert_msg(wait_until(bus_has_daemon, bus, BUS_MSEC), "nobody took the name org.kevd");
        return bus;
}
