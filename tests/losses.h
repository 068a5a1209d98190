/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The kernel's own losses, made when a test wants them. The daemon is stopped while more happens than its inotify
 * instance may hold (fs.inotify.max_queued_events): from there on everything is lost, for all watches alike.
 *
 * The noise that fills the queue is made in a directory of its own, of which a client is told nothing though it watches
 * it: so a test can say to the event where the loss begins. What goes wrong fails the test.
 */

#include <stddef.h>
#include <stdint.h>

#include "harness.h"

/* ---- the daemon -------------------------------------------------------------------------------- */

extern struct daemon *kevd; /* the test's own */

/* With the client of the noise. */
void start(void);
void stop(void);

/* Waits until it holds inotify watches of so many directories, and of the noise's: what is gone is let go of. */
void check_held(size_t n, const char *what);

/* ---- the loss ---------------------------------------------------------------------------------- */

/* How many events the queue holds. Skips the test where these are too many. */
size_t max_queued(void);

void stop_daemon(void);
/* On return the daemon is stopped, and its queue has room for `room` events. */
void fill_queue(size_t room);
/* On return it is stopped, and all that happens is lost. */
void begin_loss(void);
void let_go_on(void);

/* How many losses the daemon was told of by the kernel. */
uint64_t count_overflows(void);
