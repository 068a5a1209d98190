/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * SIGINT, SIGTERM and SIGHUP end a command in order: what is printed is whole,
 * what runs is waited for, and then the signal does what it would have done, so
 * that the shell sees it. A second one ends it at once.
 */

#include <poll.h>
#include <stdint.h>

/* From here on they are noticed. They also interrupt what blocks (EINTR). */
void signals_catch(void);
/* The one that came, or 0. */
int signals_caught(void);
/* poll(2), but a signal that came before it ends it too. `timeout_nsec`: negative for ever. */
int signals_poll(struct pollfd *fds, nfds_t n_fds, int64_t timeout_nsec);
/* Lets the signal that came do its work. Returns only if none came. */
void signals_reraise(void);
