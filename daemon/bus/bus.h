/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The control plane on D-Bus: org.freedesktop.LogControl1, and org.kevd.Manager
 * with what org.kevd.manager has. No event goes over D-Bus. Without a bus the
 * daemon runs the same, and looks for one again.
 */

struct bus;
struct server;

/* -ENOMEM. That there is no bus is no error. */
int bus_open(struct server *server, struct bus **ret_bus);
struct bus *bus_close(struct bus *bus);
