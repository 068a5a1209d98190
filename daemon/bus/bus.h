/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The control plane on D-Bus: org.freedesktop.LogControl1, and org.kevd.Manager
 * with the figures of org.kevd.manager. No event goes over D-Bus. Without a bus
 * the daemon runs the same.
 */

struct bus;
struct server;

/* NULL in `ret_bus` where there is no bus. */
int bus_open(struct server *server, struct bus **ret_bus);
struct bus *bus_close(struct bus *bus);
