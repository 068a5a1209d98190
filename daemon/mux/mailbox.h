/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * How other threads speak to the loop: messages, taken in the order in which
 * they were posted.
 */

#include <pthread.h>

#include "mux.h"

struct mailbox;
typedef void mailbox_fn(struct mailbox *mailbox);

struct mailbox {
        pthread_mutex_t lock;
        struct list messages; /* under the lock */
        int event_fd;
        struct mux_io io;
        struct mux *mux;
        mailbox_fn *fn;
};

/* `fn` runs on the loop when messages have come, and takes what it likes; it is
 * called again for what it left once it called mailbox_again(). */
int mailbox_open(struct mailbox *mailbox, struct mux *mux, mailbox_fn *fn);
/* Messages that are left are the caller's to take before. */
void mailbox_close(struct mailbox *mailbox);

/* Any thread. The message is the receiver's from here on. */
void mailbox_post(struct mailbox *mailbox, struct list *message);
/* The loop. NULL: there is none. */
struct list *mailbox_take(struct mailbox *mailbox);
bool mailbox_is_empty(struct mailbox *mailbox);
void mailbox_again(struct mailbox *mailbox);
