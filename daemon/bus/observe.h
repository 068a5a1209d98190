/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * org.kevd.Manager.ObserveProcesses: polkit is asked whether the calling process may see the processes of all users
 * (action org.kevd.observe-processes); then its connections may, for as long as they last.
 */

#include <stddef.h>

#include <systemd/sd-bus.h>

#include "list.h"

struct server;

struct observe {
        struct server *server;
        struct list requests; /* that are waiting for others' answers */
        size_t n_requests;
};

void observe_init(struct observe *observe, struct server *server);
/* The bus is lost, or is closed next: nobody is answered any more. */
void observe_close(struct observe *observe);

/* The method's handler, with the struct observe as its userdata. */
int observe_processes(sd_bus_message *call, void *userdata, sd_bus_error *error);
