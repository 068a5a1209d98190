/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The daemon's side of openers: having something opened. */

#include <errno.h>

#include "client.h"
#include "macro.h"
#include "opener.h"

/* One that is under way, embedded in whoever waits for it. */
struct opener_call {
        struct mux *mux;
        struct helper helper;
        struct mux_io io; /* of what is opened, once there is a helper */
        struct mux_timer timer;
        uint64_t deadline;
        struct opened opened;
        uint32_t n_taken;
        bool is_under_way;
        /* What was opened is the callee's from here on. `error`: a negative errno, with a sentence or none. */
        void (*fn)(struct opener_call *call, int error, const struct opened *opened, const char *why);
};

/* `kind`: HELPER_PROCESSES, HELPER_SIGNALS or HELPER_CONNECTOR. `fd`: borrowed, what another daemon's helper has opened,
 * for this one to keep; or -1. `buffer_bytes`: of the kernel's queue, 0: as the feed likes it. `is_only`: it is to do
 * with less than all. 0: `fn`, which is set before, is called after a few seconds at most, but not from within. */
int opener_begin(struct opener_call *call, struct broker *broker, uint32_t kind, int fd, size_t buffer_bytes, bool is_only);
/* Waits, and calls `fn`. */
void opener_finish(struct opener_call *call);
/* `fn` is not called any more. Also where none is under way. */
void opener_cancel(struct opener_call *call);

/* Over a helper that keeps what a feed reads: without it nothing is read any more, and nothing else says so. */
struct opener_guard {
        struct mux_io io; /* MUX_IO_INIT */
        struct broker *broker;
};

/* `socket`: the helper's, which stays the feed's; -1: there is none. When it ends, broker_fail(). */
int opener_guard(struct opener_guard *guard, struct broker *broker, int socket);
/* Before the socket is closed. Also where it guards nothing. */
void opener_unguard(struct opener_guard *guard);

/* Why something could not be opened may be over before long: it is worth another try. */
static inline bool opener_may_try_again(int error) {
        return is_shortage(error) || error == -ENOSPC || error == -ETIMEDOUT;
}

/* Both at once. -EOPNOTSUPP where `broker` is NULL. */
int opener_ask(struct broker *broker, uint32_t kind, int fd, size_t buffer_bytes, bool is_only, struct opened *ret,
               char *why, size_t why_size);
