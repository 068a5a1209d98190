/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker: a process of its own that has the capabilities which the daemon has
 * not. The daemon starts it before it reads anything from anybody, and gives up
 * its own; or it is there already, in a service of its own.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "opener.h"

/* What some helpers do is above the broker. */
struct helper_programs {
        void (*deputy)(int socket);   /* these two don't return */
        void (*observer)(int socket, pid_t daemon);
        struct opener processes, signals, connector;
};

/*
 * Starts it, and takes from this process all capabilities but those that it is known to need, also where this fails.
 * The socket is the caller's; the broker ends when it is closed. `files`: it is to be able to start surveyors,
 * stand-ins and deputies; false behind it: this process hasn't the capabilities for that. -EPERM: nor any other that a
 * helper needs; -EOPNOTSUPP: the same where `files` was false. To be called before there are threads.
 */
int broker_start(const struct helper_programs *programs, bool *files, int *ret_fd, pid_t *ret_pid);
/* The same with one that is there already, and listens at `path`. Returns what socket(2) or connect(2) say. */
int broker_connect(const char *path, int *ret_fd);
/* Is the broker of a daemon whose end of the socket is elsewhere, until that is closed. Returns where it can't. */
int broker_serve(const struct helper_programs *programs, int socket);
/* Waits for its end, once its socket is closed: with that of its helpers, a second at most. 0 is passed over. */
void broker_wait(pid_t pid);

/* ---- within it ------------------------------------------------------------------------- */

/* The helpers' part: they answer until the socket is closed, and don't return. */
_Noreturn void surveyor_run(int fd);
_Noreturn void stand_in_run(int fd);
