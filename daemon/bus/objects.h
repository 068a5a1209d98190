/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the objects on the bus have in common.
 */

#include "authorize.h"
#include "server.h"

struct bus {
        struct server *server;
        sd_bus *bus; /* NULL: there is none just now */
        bool is_up;  /* it has answered */
        struct mux_io io;
        struct mux_timer timer;
        struct mux_deferred prepare;

        unsigned attempts; /* to connect, that came to nothing */
        struct mux_timer again;
        struct mux_deferred configured;

        struct authorizer authorizer;
        struct list reloads; /* calls that wait for the configuration */
        size_t n_reloads;

        struct mux_deferred figures;
        struct mux_timer figures_pause; /* set: they were signalled less than a second ago */
        uint64_t told_connections, told_watches;
};

/* /org/kevd/Manager */
int manager_publish(struct bus *bus);
/* The bus is lost, or is closed next. */
void manager_withdraw(struct bus *bus);

/* /org/freedesktop/LogControl1 */
int log_control_publish(struct bus *bus);
