/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "barrier.h"

enum { BARRIER_MAX_MSEC = 1000 };

void barriers_init(struct barriers *b, struct mux *mux, barrier_is_past_fn *is_past) {
        b->mux = mux;
        b->is_past = is_past;
        b->timer = MUX_TIMER_INIT;
        list_init(&b->list);
}

static void on_timer(struct mux_timer *timer) {
        struct barriers *b = container_of(timer, struct barriers, timer);
        uint64_t now = monotonic_nsec();

        while (!list_empty(&b->list)) {
                struct source_barrier *barrier = list_entry(b->list.next, struct source_barrier, link);

                if (barrier->deadline_nsec > now) {
                        (void)mux_timer_set(b->mux, &b->timer, barrier->deadline_nsec, on_timer);
                        break;
                }
                list_remove(&barrier->link);
                barrier->fn(barrier);
        }
}

bool barriers_add(struct barriers *b, struct source_barrier *barrier, uint64_t position) {
        barrier->position = position;
        barrier->serial = 0;
        if (b->is_past(b, barrier))
                return false;
        barrier->deadline_nsec = monotonic_nsec() + BARRIER_MAX_MSEC * NSEC_PER_MSEC;
        if (list_empty(&b->list))
                (void)mux_timer_set(b->mux, &b->timer, barrier->deadline_nsec, on_timer);
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
