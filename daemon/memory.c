/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "memory.h"

#include <malloc.h>

enum {
        LOOK_MSEC = 5000,
        TURNS_MANY = 64, /* after which there may be something to give back */
        TURNS_CALM = 5000, /* at most, from one look to the next */
        QUIET_MAX = 3,    /* what is kept for a while, as of processes that have ended, is freed by then */
};

static void on_look(struct mux_timer *timer);

static void look_later(struct memory *m) {
        (void)mux_timer_set(m->mux, &m->timer, monotonic_nsec() + LOOK_MSEC * NSEC_PER_MSEC, on_look);
}

static void on_look(struct mux_timer *timer) {
        struct memory *m = container_of(timer, struct memory, timer);
        uint64_t n = m->turns - m->looked_at;

        m->looked_at = m->turns;
        m->n_quiet = n <= 1 ? m->n_quiet + 1 : 0; /* the last look's own turn is one */
        m->owes |= n > 1;
        if (m->owes && n <= TURNS_CALM) {
                (void)malloc_trim(0);
                m->owes = false;
        }
        if (m->n_quiet < QUIET_MAX)
                look_later(m);
}

void memory_open(struct memory *m, struct mux *mux) {
        *m = (struct memory){ .mux = mux, .timer = MUX_TIMER_INIT };
}

void memory_close(struct memory *m) {
        if (m->mux)
                mux_timer_clear(m->mux, &m->timer);
}

void memory_after_turn(struct memory *m) {
        if (++m->turns - m->looked_at >= TURNS_MANY && m->timer.heap_index == 0) {
                m->n_quiet = 0;
                look_later(m);
        }
}
