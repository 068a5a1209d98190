/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What feeds have in common: a thread that takes what the kernel has, reads what would vanish, and hands it over in
 * chunks.
 *
 * It works in rounds. Where little is going on a round begins when the kernel has something; in a storm one begins
 * FEED_GATHER_USEC after the one before, whatever comes: a wake-up costs more than a message. What two of these have
 * taken is handed over at once.
 */

#include <pthread.h>

#include "feed.h"

enum { FEED_PIDS_BITS = 4096, FEED_CHUNKS_MAX = 256, FEED_GATHER_USEC = 2000 };

struct feed_writer {
        /* The feed's, set before the thread is started. */
        struct feed *feed;
        int fd; /* readable: the kernel has something */
        bool (*drain)(struct feed *feed);       /* takes it, and says whether that is all */
        void (*tell_losses)(struct feed *feed); /* what is missing in this round, or before */

        struct mailbox *mailbox;
        struct feed_shared *shared;
        pthread_t thread;
        bool is_started;
        int wake_fd; /* a mark, or the end; while the thread is asleep */
        atomic_bool ending, is_asleep;
        atomic_ullong mark_wanted;

        /* The thread's own. */
        uint64_t mark_told;
        int timeout_msec; /* when to look next though there is nothing. -1: never */
        struct chunk *chunk;
        struct list done; /* chunks of this round */
        bool failed;      /* no memory: a record is missing */
        bool had_exec, had_records, had_mark; /* in this round, or the last one */
        bool is_behind; /* the kernel may have more, for which there was no room */
        bool gathers, keeps; /* a storm goes on; what was taken is handed over with the next round's */
        uint64_t busy_nsec; /* when the last round that had records ended */
        uint64_t pids[FEED_PIDS_BITS / 64]; /* who was forked in this round */
};

/* Negative errnos. */
int feed_writer_init(struct feed_writer *w, struct mailbox *mailbox, struct feed_shared *shared);
int feed_writer_start(struct feed_writer *w);
/* Ends the thread, once what it has taken is in the mailbox. */
void feed_writer_stop(struct feed_writer *w);
/* The same, if there is one, and frees what it holds. */
void feed_writer_close(struct feed_writer *w);
/* feed.h: mark(). */
void feed_writer_mark(struct feed_writer *w, uint64_t serial);

/* NULL: no memory. */
struct record *feed_writer_put(struct feed_writer *w, enum record_kind kind, pid_t pid);
/* The loop has more to do than it should: the kernel is not asked for more. */
bool feed_writer_is_full(const struct feed_writer *w);
