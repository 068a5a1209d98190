/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The sockets that the daemon listens on: handed over by systemd, or made.
 */

#include <sys/types.h>

#include "handover.h"
#include "options.h"

/* A path that is to be removed at the end, if it is still the socket that was made there. */
struct made_socket {
        char *path;
        dev_t device;
        ino_t inode;
};

struct sockets {
        struct made_socket made[LISTENERS_MAX];
        size_t n_made;
        int given[LISTENERS_MAX]; /* by the service manager: sd_listen_fds(3) */
        char **names;
        size_t n_given;
};

/* What the service manager has given; what the last daemon has left there goes to the handover. Before anything else. */
void sockets_take(struct sockets *sockets, struct handover *handover);

/* Gives the server all that it is to listen on (private: its one connection, on
 * standard input). Says on standard error what went wrong. */
int sockets_open(struct sockets *sockets, const struct options *options, struct server *server);
/* While the server still listens: nobody replaces a socket that is served. */
void sockets_close(struct sockets *sockets);
