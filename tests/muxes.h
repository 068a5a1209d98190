/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the tests of mux/ share: one contract for every backend, each of which a test is done with by its number. Here
 * are a mux, and what counts how often it is called. Where a backend is tested with a double (MUX_DOUBLE) it is the only
 * one. What goes wrong fails the test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "eventfds.h"
#include "mux.h"

enum { A_TURN = 256 }; /* so many callbacks fit into one */

extern struct mux *mux; /* the test's own */

int count_backends(void);
void open_mux(int backend);
void close_mux(void);
void turn(int64_t timeout_nsec);
/* None of them waits. */
void turns(unsigned n);

/* Skips the test where so many can't be open. */
void raise_fd_limit(size_t n);

/* ---- one descriptor ------------------------------------------------------------------------------ */

/* An io that counts. */
struct counted {
        struct mux_io io;
        unsigned calls;
        unsigned events; /* of the last call */
};

void count(struct mux_io *io, unsigned events);
void add_counted(struct counted *c, int fd, unsigned events);
/* How often it is called in one turn that doesn't wait. */
unsigned calls_in_a_turn(struct counted *c);

/* ---- many descriptors ---------------------------------------------------------------------------- */

/* Many ios, on memory of their own. */
struct many {
        struct mux_io io;
        size_t index;
        unsigned calls;
};

extern struct many **many;
extern size_t n_many;
extern unsigned n_calls; /* of all together */
extern mux_io_fn *many_fn;

/* Counts, and calls many_fn. */
void on_many(struct mux_io *io, unsigned events);
/* Eventfds, each of which calls `fn`, or NULL. Skips the test where the backend has no room for so many. */
void add_many(size_t n, bool ready, mux_io_fn *fn);
void free_one(size_t i);
void free_many(void);
/* Closes it, too. */
void remove_itself(struct mux_io *io, unsigned events);

/* ---- timers -------------------------------------------------------------------------------------- */

struct timed {
        struct mux_timer timer;
        unsigned calls;
        uint64_t fired_nsec;
        struct timed *other;
        bool model_set;
        uint64_t model_deadline;
};

extern uint64_t last_deadline; /* of what fired last */

/* Not before its time, nor before what was due earlier. */
void timed_fires(struct mux_timer *timer);
void set_timed(struct timed *t, uint64_t deadline_nsec, mux_timer_fn *fn);
