/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How other threads speak to the loop: messages, taken in the order in which
 * they were posted.
 *
 * To wake a loop that sleeps costs the waking thread more than most of what it
 * has to say. One that has much to say posts parts: the first wakes the loop,
 * which then looks by itself every MAILBOX_PACE_USEC for as long as it finds
 * some, and sleeps again after that.
 */

#include <pthread.h>

#include "mux.h"

enum { MAILBOX_PACE_USEC = 1000 };

struct mailbox;
typedef void mailbox_fn(struct mailbox *mailbox);

struct mailbox {
        pthread_mutex_t lock;
        struct list messages; /* this and what follows: under the lock */
        bool woken;           /* the loop will come */
        bool paced;           /* the loop looks by itself */
        bool has_part;        /* one of the messages is */
        int event_fd;
        struct mux_io io;
        struct mux_timer timer;
        struct mux *mux;
        mailbox_fn *fn;
};

/* `fn` runs on the loop when messages have come, and takes them all. One that could not be opened is empty, and may be
 * closed. */
int mailbox_open(struct mailbox *mailbox, struct mux *mux, mailbox_fn *fn);
/* Messages that are left are the caller's to take before. */
void mailbox_close(struct mailbox *mailbox);

/* Any thread. The message is the receiver's from here on. */
void mailbox_post(struct mailbox *mailbox, struct list *message);
/* The same, of one that may wait until the loop looks. */
void mailbox_post_part(struct mailbox *mailbox, struct list *message);
/* The loop. NULL: there is none. */
struct list *mailbox_take(struct mailbox *mailbox);
