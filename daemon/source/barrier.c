/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "barrier.h"

#include "log.h"

/* Counted, not measured: where the whole machine stood still, one has passed, and what came meanwhile is read first. */
enum { LOOK_MSEC = 100, LOOKS_MAX = 11 };

void barriers_init(struct barriers *b, struct mux *mux, barrier_is_past_fn *is_past) {
        b->mux = mux;
        b->is_past = is_past;
        b->timer = MUX_TIMER_INIT;
        list_init(&b->list);
}

static void on_timer(struct mux_timer *timer);

static void set_timer(struct barriers *b) {
        (void)mux_timer_set(b->mux, &b->timer, monotonic_nsec() + LOOK_MSEC * NSEC_PER_MSEC, on_timer);
}

static void on_timer(struct mux_timer *timer) {
        struct barriers *b = container_of(timer, struct barriers, timer);

        list_for_each(entry, &b->list) {
                struct source_barrier *barrier = list_entry(entry, struct source_barrier, link);

                if (++barrier->n_looks < LOOKS_MAX)
                        continue;
                log_info("a Wait is answered before what it asks for is known: that took over a second");
                list_remove(&barrier->link);
                barrier->fn(barrier);
        }
        if (!list_empty(&b->list))
                set_timer(b);
}

bool barriers_add(struct barriers *b, struct source_barrier *barrier, uint64_t position) {
        barrier->position = position;
        barrier->serial = barrier->appeared = barrier->crowds = barrier->files = 0;
        barrier->n_looks = 0;
        if (b->is_past(b, barrier))
                return false;
        if (list_empty(&b->list))
                set_timer(b);
        list_append(&b->list, &barrier->link);
        return true;
}

void barriers_check(struct barriers *b) {
        list_for_each(entry, &b->list) {
                struct source_barrier *barrier = list_entry(entry, struct source_barrier, link);

                if (!b->is_past(b, barrier))
                        continue;
                list_remove(&barrier->link);
                barrier->fn(barrier);
        }
}

void barriers_close(struct barriers *b) {
        mux_timer_clear(b->mux, &b->timer);
}
