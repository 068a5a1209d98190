/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The sockets that the daemon listens on: handed over by systemd, or made.
 */

#include "options.h"

struct sockets {
        char *made[LISTENERS_MAX]; /* paths to be removed at the end */
        size_t n_made;
};

/* Gives the server all that it is to listen on (private: its one connection, on
 * standard input). Says on standard error what went wrong. */
int sockets_open(struct sockets *sockets, const struct options *options, struct server *server);
void sockets_close(struct sockets *sockets);
