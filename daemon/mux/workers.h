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

struct mux;
struct workers;

struct work {
        struct list link;
        uid_t user; /* workers_submit()'s */
        bool has_fd; /* one that the user has passed, and which nobody is charged for by now */
        void (*run)(struct work *work); /* on a thread; the work may be freed by it, or by whom it told */
};

enum {
        WORKERS_PER_USER = 4,
        WORKERS_FDS_MAX = 4096, /* of a user */
        WORKERS_IDLE_MSEC = 1000, /* a thread that had no work for so long ends */
        /* A user all of whose threads have been at one piece of work for so long is stuck. */
        WORKERS_STUCK_MSEC = 2000,
};

/* For what is the daemon's own, and begun one at a time: its threads are nobody's, and none of a user's file systems
 * keeps it from running. */
#define WORKERS_NO_USER ((uid_t)-1)

/* The loop that submits. It is to be there until they are freed. */
int workers_new(struct mux *mux, struct workers **ret_workers);
/* Waits for the threads. False: one of them is stuck; then nothing that it may
 * use can be freed. */
bool workers_free(struct workers *workers);

/* -EAGAIN, -ENOMEM: no thread could be started. -EDQUOT: it has a descriptor, and too many of the user's have. */
int workers_submit(struct workers *workers, uid_t user, struct work *work);
/* It is not refused: if there is no thread now, it is tried again until there is. */
void workers_submit_anyhow(struct workers *workers, uid_t user, struct work *work);
/* Whether so many of the user's descriptors wait for its threads that there should be no more. */
bool workers_are_full_of_fds(struct workers *workers, uid_t user);
/* Whether all of the user's threads are: what is submitted now may wait for ever. */
bool workers_are_stuck(struct workers *workers, uid_t user);
