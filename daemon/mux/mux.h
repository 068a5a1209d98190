/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The kernel multiplexer and the loop's turn: descriptors, timers, deferred
 * work, barriers. One thread uses a mux; what other threads have to say comes
 * through a mailbox (mailbox.h).
 *
 * One turn (mux_wait) is: wait for the kernel; run the timers that are due (so
 * many at most; the rest in the next turn, which doesn't wait); run
 * the callbacks of what is ready; run what was deferred, before or during the
 * turn; release barriers.
 *
 * A callback may add and remove anything, itself too: what it removed isn't
 * called any more in this turn, even if it was ready. The memory of what was
 * removed may be freed at once.
 */

#include <stdbool.h>
#include <stdint.h>

#include "list.h"

struct mux;
struct mux_backend;

/* What a descriptor is watched for, and is ready for. ERR and HUP come unasked. */
enum {
        MUX_IN = 1 << 0,
        MUX_OUT = 1 << 1,
        MUX_PRI = 1 << 2,
        MUX_ERR = 1 << 3,
        MUX_HUP = 1 << 4,
        MUX_ONCE = 1 << 5, /* only asked for: each is told once, until mux_rearm(). What comes on top may be told, too */
};

/* The backend of that name, or the best of this build with NULL. -EINVAL: there
 * is none of that name; otherwise the backend's own error. */
int mux_open(const char *backend_name, struct mux **ret_mux);
/* Nothing may be left in it. Returns NULL. */
struct mux *mux_close(struct mux *mux);
const char *mux_backend_name(const struct mux *mux);
/* The i-th backend of this build, best first; NULL past the last. */
const struct mux_backend *mux_backend_at(unsigned i);
const char *mux_backend_name_at(unsigned i);

/* CLOCK_MONOTONIC, CLOCK_REALTIME and CLOCK_BOOTTIME, in nanoseconds. */
uint64_t monotonic_nsec(void);
uint64_t realtime_nsec(void);
uint64_t boottime_nsec(void);

/* ---- descriptors, level-triggered unless with MUX_ONCE ---------------------- */

struct mux_io;
typedef void mux_io_fn(struct mux_io *io, unsigned events);

struct mux_io {
        mux_io_fn *fn;
        int fd; /* -1: not in the mux */
        unsigned events;
        unsigned told;  /* MUX_ONCE: what the backend is not asked for until mux_rearm() */
        int ready_slot; /* in this turn's ready list, or -1 */
};

#define MUX_IO_INIT ((struct mux_io){ .fd = -1, .ready_slot = -1 })

/* The descriptor stays the caller's, and must be removed before it is closed.
 * Errors: those of epoll_ctl(2), on every backend (EPERM for a regular file or a
 * directory, EEXIST); EMFILE where the backend can't hold so high a number. */
int mux_add(struct mux *mux, struct mux_io *io, int fd, unsigned events, mux_io_fn *fn);
int mux_modify(struct mux *mux, struct mux_io *io, unsigned events);
/* For MUX_ONCE: all that was there of these was taken - read(2), or write(2), has said EAGAIN, or less than it might - and
 * is told again when there is more. Errors: those of mux_modify(). */
int mux_rearm(struct mux *mux, struct mux_io *io, unsigned events);
/* For MUX_ONCE: nothing was there, though it was told, or might be. It is told again if it is there now. */
int mux_ask_again(struct mux *mux, struct mux_io *io);
void mux_remove(struct mux *mux, struct mux_io *io);

/* ---- timers ---------------------------------------------------------------- */

struct mux_timer;
typedef void mux_timer_fn(struct mux_timer *timer);

struct mux_timer {
        mux_timer_fn *fn;
        uint64_t deadline_nsec; /* CLOCK_MONOTONIC */
        uint32_t heap_index;    /* from 1 on; 0: not set */
};

#define MUX_TIMER_INIT ((struct mux_timer){ 0 })

/* Sets it, again if it was set. It fires once, never early. -ENOMEM, and nothing has
 * changed: never for one that is set, nor for one that sets itself in its callback
 * before any other is set. */
int mux_timer_set(struct mux *mux, struct mux_timer *timer, uint64_t deadline_nsec, mux_timer_fn *fn);
void mux_timer_clear(struct mux *mux, struct mux_timer *timer);

/* ---- deferred work --------------------------------------------------------- */

struct mux_deferred;
typedef void mux_deferred_fn(struct mux_deferred *deferred);

struct mux_deferred {
        struct list link;
        mux_deferred_fn *fn;
};

void mux_deferred_init(struct mux_deferred *deferred, mux_deferred_fn *fn);
/* Runs once, at the end of this turn (or of the next one, when called by
 * deferred work itself: it can't keep the loop from the kernel). */
void mux_defer(struct mux *mux, struct mux_deferred *deferred);
void mux_deferred_cancel(struct mux_deferred *deferred);

/* ---- barriers -------------------------------------------------------------- */

/*
 * Runs once everything that was ready in the kernel at the time of the call has
 * had its callback. The turns until then don't wait.
 */
struct mux_barrier {
        struct list link;
        mux_deferred_fn *fn; /* gets &barrier->deferred */
        struct mux_deferred deferred;
        unsigned passes; /* that it still needs, at most */
};

void mux_barrier_init(struct mux_barrier *barrier, mux_deferred_fn *fn);
void mux_barrier_add(struct mux *mux, struct mux_barrier *barrier);
void mux_barrier_cancel(struct mux_barrier *barrier);

/* ---- the loop -------------------------------------------------------------- */

/* One turn; waits `timeout_nsec` at most, for ever when negative. Returns 0, or
 * the backend's error: the mux is of no use then. A signal ends the wait. */
int mux_wait(struct mux *mux, int64_t timeout_nsec);
/* The number of the turn: how often mux_wait() was called. */
uint64_t mux_turn(const struct mux *mux);
