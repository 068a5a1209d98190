/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the threads of feeds have in common: putting records into chunks, reading what would vanish, and handing the
 * chunks over. A round begins when the thread wakes, and ends with feed_writer_post().
 */

#include <pthread.h>

#include "feed.h"

enum { FEED_PIDS_BITS = 4096, FEED_CHUNKS_MAX = 256, FEED_GATHER_USEC = 1000 };

struct feed_writer {
        struct mailbox *mailbox;
        struct feed_shared *shared;
        struct chunk *chunk;
        struct list done; /* chunks of this round */
        bool failed;      /* no memory: a record is missing */
        bool had_exec, had_records; /* in this round, or the last one */
        uint64_t busy_nsec; /* when the last round that had records ended */
        uint64_t pids[FEED_PIDS_BITS / 64]; /* who was forked in this round */
};

void feed_writer_init(struct feed_writer *w, struct mailbox *mailbox, struct feed_shared *shared);
void feed_writer_close(struct feed_writer *w);

/* With all signals blocked: they are the loop's. */
int feed_start_thread(pthread_t *ret_thread, void *(*main)(void *feed), struct feed *feed);
/* The caller's priority: any delay may be one too many. Where that is not allowed, it is as it is. */
void feed_hurry(void);
/* Makes a child that ends at once, and asks whether its end is heard of. */
bool feed_try(bool (*hears_of)(struct feed *feed, pid_t child), struct feed *feed);

/* NULL: no memory. */
struct record *feed_writer_put(struct feed_writer *w, enum record_kind kind, pid_t pid);
/* Reads programs and, where they aren't known, user ids. `drain` takes all that the kernel has by now: what was read of
 * a pid that was forked again before is dropped. */
void feed_writer_read(struct feed_writer *w, void (*drain)(void *owner), void *owner);
void feed_writer_post(struct feed_writer *w);

/* The loop has more to do than it should: the kernel is not asked for more. */
bool feed_writer_is_full(const struct feed_writer *w);
/* Much is going on: what comes within FEED_GATHER_USEC costs little. */
bool feed_writer_should_gather(const struct feed_writer *w);
