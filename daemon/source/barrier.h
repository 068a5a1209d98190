/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The barriers of a source that reads ahead of what it has told: each waits until what had been read as it came is
 * told, and the questions that this led to are answered, for a second at most.
 */

#include <stdbool.h>

#include "mux.h"
#include "source.h"

/* What an inquiry finds may lead to events: barriers wait for those that are older than they. */
struct inquiry {
        struct list link;
        uint64_t serial;
        bool of_user; /* only this one's barriers wait */
        uid_t uid;
};

struct barriers;
/* Whether the barrier has nothing to wait for any more. It may keep in barrier->serial the last
 * question that counts, and in barrier->crowds a crowds_mark(): both are 0 at first. */
typedef bool barrier_is_past_fn(struct barriers *barriers, struct source_barrier *barrier);

struct barriers {
        struct mux *mux;
        struct list list; /* in the order of their coming */
        struct mux_timer timer;
        barrier_is_past_fn *is_past; /* the owner's */
};

void barriers_init(struct barriers *barriers, struct mux *mux, barrier_is_past_fn *is_past);
/* `position`: how far the source has read, in its own measure. False: it is past already, and barrier->fn isn't
 * called. The barrier stays the caller's, who may take it out of the list. */
bool barriers_add(struct barriers *barriers, struct source_barrier *barrier, uint64_t position);
/* Those that are past by now are done. */
void barriers_check(struct barriers *barriers);
/* The source ends; nobody waits any more. */
void barriers_close(struct barriers *barriers);
