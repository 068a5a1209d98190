/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "settle.h"

#include <errno.h>
#include <stdlib.h>

#include "queue.h"
#include "state.h"

/* A timer is late by about so much, and to tell takes its time: what is promised to the client is when it comes. */
#define DELIVERY_NSEC (1 * NSEC_PER_MSEC)

struct settle {
        struct watch *watch;
        struct mux *mux;
        struct mux_timer timer;
        uint64_t quiet_nsec, latency_nsec;
        uint64_t first_nsec, last_nsec; /* CLOCK_MONOTONIC, of the events that are kept back; 0: none are */
        uint64_t released_nsec; /* when the last were let go; 0: none were */
};

static uint64_t nsec_of(int64_t msec) {
        return (uint64_t)msec * NSEC_PER_MSEC;
}

int settle_new(struct watch *watch, const struct tree_options *options, struct settle **ret_settle) {
        struct settle *settle;

        *ret_settle = NULL;
        if (options->settle_msec == ABSENT || options->settle_msec == 0)
                return 0;
        settle = calloc(1, sizeof(*settle));
        if (!settle)
                return -ENOMEM;
        settle->watch = watch;
        settle->mux = watch->queue->context->sources->context.mux;
        settle->quiet_nsec = nsec_of(options->settle_msec);
        settle->latency_nsec = options->max_latency_msec != ABSENT ? nsec_of(options->max_latency_msec) :
                                                                     settle->quiet_nsec * SETTLE_LATENCY_FACTOR;
        if (settle->latency_nsec > 10 * DELIVERY_NSEC)
                settle->latency_nsec -= DELIVERY_NSEC;
        *ret_settle = settle;
        return 0;
}

struct settle *settle_free(struct settle *settle) {
        if (settle)
                mux_timer_clear(settle->mux, &settle->timer);
        free(settle);
        return NULL;
}

bool settle_is_holding(const struct settle *settle) {
        return settle && settle->first_nsec != 0;
}

static void on_due(struct mux_timer *timer);

/* Without memory for the timer nothing is kept back. */
static void wait_until_due(struct settle *settle) {
        uint64_t due = MIN(settle->last_nsec + settle->quiet_nsec, settle->first_nsec + settle->latency_nsec);

        if (mux_timer_set(settle->mux, &settle->timer, due, on_due) == 0)
                return;
        settle->first_nsec = 0;
        queue_let_go(settle->watch);
}

/* No event moves the timer: what came since it was set is looked at here. */
static void on_due(struct mux_timer *timer) {
        struct settle *settle = container_of(timer, struct settle, timer);
        uint64_t now = monotonic_nsec();

        if (now < settle->last_nsec + settle->quiet_nsec && now < settle->first_nsec + settle->latency_nsec) {
                wait_until_due(settle);
                return;
        }
        settle->first_nsec = 0;
        settle->released_nsec = now;
        queue_let_go(settle->watch);
}

void settle_touch(struct settle *settle) {
        uint64_t now;

        if (!settle)
                return;
        now = monotonic_nsec();
        settle->last_nsec = now;
        if (settle->first_nsec != 0)
                return;
        /* Where there is no pause, some come in each span of the latency. */
        settle->first_nsec = now;
        if (settle->released_nsec != 0 && now - settle->released_nsec < settle->quiet_nsec)
                settle->first_nsec = settle->released_nsec;
        wait_until_due(settle);
}

void settle_save(const struct settle *settle, struct state_writer *w) {
        state_put_u64(w, settle ? settle->first_nsec : 0);
        state_put_u64(w, settle ? settle->last_nsec : 0);
        state_put_u64(w, settle ? settle->released_nsec : 0);
}

void settle_load(struct settle *settle, struct state_reader *r) {
        uint64_t first = state_get_u64(r), last, released;
        uint64_t now = monotonic_nsec();

        last = state_get_u64(r);
        released = state_get_u64(r);
        if (!settle || r->failed || first > last || last > now || released > now)
                return;
        settle->first_nsec = first;
        settle->last_nsec = last;
        settle->released_nsec = released;
        if (first != 0)
                wait_until_due(settle);
}
