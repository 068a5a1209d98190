/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The broker: a process of its own, started before the daemon reads anything from
 * anybody, that keeps the capabilities which the daemon then gives up.
 */

#include <sys/types.h>

/* What a deputy does; doesn't return. */
typedef void deputy_fn(int socket);

/*
 * Starts it, and takes from this process the capabilities that it alone needs. The
 * socket is the caller's; the broker ends when it is closed. -EPERM: this process
 * hasn't the capabilities. To be called before there are threads.
 */
int broker_start(deputy_fn *deputy, int *ret_fd, pid_t *ret_pid);
/* Waits for its end, once its socket is closed: with that of its helpers, a second at most. 0 is passed over. */
void broker_wait(pid_t pid);

/* ---- within it ------------------------------------------------------------------------- */

/* The helpers' part: they answer until the socket is closed, and don't return. */
_Noreturn void surveyor_run(int fd);
_Noreturn void stand_in_run(int fd);
