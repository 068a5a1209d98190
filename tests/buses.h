/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A D-Bus of the test's own. What goes wrong fails the test; without a dbus-daemon the test is skipped.
 */

#include <stdbool.h>
#include <sys/types.h>

#include <systemd/sd-bus.h>

/* Returns its pid once it listens; it is where everybody looks for a bus from here on. */
pid_t bus_start(void);
void bus_stop(pid_t pid);

sd_bus *bus_connect(void);
/* The same, of a test that runs as root. */
sd_bus *bus_connect_as(uid_t uid);
/* When the daemon has its name. */
sd_bus *bus_connect_to_daemon(void);

/* For wait_until(): whether somebody has the daemon's name. */
bool bus_has_daemon(void *bus);
bool bus_has_no_daemon(void *bus);
