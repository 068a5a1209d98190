/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Threads for whatever may wait on a file system that somebody else controls:
 * a few for each user, so that one user's dead mount costs nobody else.
 *
 * Work runs on a thread and speaks to the loop through a mailbox of its own
 * choice; the thread touches nothing else of the loop's.
 */

#include <stdbool.h>
#include <sys/types.h>

#include "list.h"

struct workers;

struct work {
        struct list link;
        void (*run)(struct work *work); /* on a thread; the work may be freed by it, or by whom it told */
};

enum {
        WORKERS_PER_USER = 4,
        /* A user all of whose threads have been at one piece of work for so long is stuck. */
        WORKERS_STUCK_MSEC = 2000,
};

int workers_new(struct workers **ret_workers);
/* Waits for the threads. False: one of them is stuck; then nothing that it may
 * use can be freed. */
bool workers_free(struct workers *workers);

/* -EAGAIN, -ENOMEM: no thread could be started. */
int workers_submit(struct workers *workers, uid_t user, struct work *work);
/* Whether all of the user's threads are: what is submitted now may wait for ever. */
bool workers_are_stuck(struct workers *workers, uid_t user);

/* The user's idle threads end, the others when they are done. */
void workers_release(struct workers *workers, uid_t user);
