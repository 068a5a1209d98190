/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fanotify.h"

#include <errno.h>

enum { BARRIER_MAX_MSEC = 1000 };

/* ---- inquiries, and barriers ------------------------------------------------------------------------ */

void inquiry_begin(struct fanotify *s, struct inquiry *inquiry) {
        inquiry->serial = ++s->serial;
        list_append(&s->inquiries, &inquiry->link);
}

void inquiry_end(struct fanotify *s _unused_, struct inquiry *inquiry) {
        list_remove(&inquiry->link);
}

static bool is_past(struct fanotify *s, struct source_barrier *barrier) {
        list_for_each(entry, &s->groups) {
                const struct group *g = list_entry(entry, struct group, link);

                if (g->ready && !group_has_handled(g, barrier->position))
                        return false;
        }
        if (barrier->serial == 0)
                barrier->serial = s->serial; /* what the events up to here have asked */
        list_for_each(entry, &s->inquiries) {
                const struct inquiry *inquiry = list_entry(entry, struct inquiry, link);

                if (inquiry->serial > barrier->serial)
                        break;
                if (!inquiry->of_user || inquiry->uid == barrier->asker->uid)
                        return false;
        }
        return true;
}

void fanotify_check_barriers(struct fanotify *s) {
        list_for_each(entry, &s->barriers) {
                struct source_barrier *barrier = list_entry(entry, struct source_barrier, link);

                if (!is_past(s, barrier))
                        continue;
                list_remove(&barrier->link);
                barrier->fn(barrier);
        }
}

static void on_barrier_timer(struct mux_timer *timer) {
        struct fanotify *s = container_of(timer, struct fanotify, barrier_timer);
        uint64_t now = monotonic_nsec();

        while (!list_empty(&s->barriers)) {
                struct source_barrier *barrier = list_entry(s->barriers.next, struct source_barrier, link);

                if (barrier->deadline_nsec > now) {
                        (void)mux_timer_set(s->mux, &s->barrier_timer, barrier->deadline_nsec, on_barrier_timer);
                        break;
                }
                list_remove(&barrier->link);
                barrier->fn(barrier);
        }
}

static bool fanotify_barrier(struct source *source, struct source_barrier *barrier) {
        struct fanotify *s = container_of(source, struct fanotify, source);

        list_for_each(entry, &s->groups) {
                struct group *g = list_entry(entry, struct group, link);

                if (g->ready)
                        group_run(g);
        }
        barrier->position = s->n_chunks;
        barrier->serial = 0;
        if (is_past(s, barrier))
                return false;
        barrier->deadline_nsec = monotonic_nsec() + BARRIER_MAX_MSEC * NSEC_PER_MSEC;
        if (list_empty(&s->barriers))
                (void)mux_timer_set(s->mux, &s->barrier_timer, barrier->deadline_nsec, on_barrier_timer);
        list_append(&s->barriers, &barrier->link);
        return true;
}

/* ---- the source -------------------------------------------------------------------------------------------- */

static void on_tidy(struct mux_deferred *deferred) {
        struct fanotify *s = container_of(deferred, struct fanotify, tidy);

        fanotify_take_unanswered(s);
        list_for_each(entry, &s->groups)
                group_release(list_entry(entry, struct group, link));
        peers_tidy(s);
        fanotify_check_barriers(s);
}

static int fanotify_open(struct source_context *context, struct source **ret_source) {
        struct fanotify *s;
        int r;

        if (context->broker_fd < 0)
                return context->broker_fd;
        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->mux = context->mux;
        s->pid = getpid();
        list_init(&s->groups);
        list_init(&s->peers);
        list_init(&s->holding);
        list_init(&s->waiting);
        list_init(&s->unanswered);
        list_init(&s->inquiries);
        list_init(&s->barriers);
        mux_deferred_init(&s->tidy, on_tidy);
        r = broker_open(s->mux, context->broker_fd, &s->broker);
        if (r < 0) {
                free(s);
                return r;
        }
        fanotify_follow_mounts(s);
        *ret_source = &s->source;
        return 0;
}

static void fanotify_close(struct source *source) {
        struct fanotify *s = container_of(source, struct fanotify, source);

        mounts_close(&s->mounts);
        while (!list_empty(&s->groups))
                group_free(list_entry(s->groups.next, struct group, link));
        peers_free(s);
        fan_wait_free(s);
        mux_deferred_cancel(&s->tidy);
        mux_timer_clear(s->mux, &s->barrier_timer);
        s->broker = broker_close(s->broker);
        free(s);
}

/* Marks. */
static uint64_t fanotify_registrations(const struct source *source) {
        const struct fanotify *s = container_of(source, const struct fanotify, source);
        uint64_t n = 0;

        list_for_each(entry, &s->groups)
                n += list_entry(entry, const struct group, link)->ready;
        return n;
}

static const char *fanotify_mechanism(const struct source *source _unused_) {
        return "fanotify";
}

const struct source_class source_fanotify = {
        .name = "fanotify",
        .filters = 1u << KEV_FILTER_TREE,
        .open = fanotify_open,
        .close = fanotify_close,
        .attach = fanotify_attach,
        .modify = fanotify_modify,
        .select = fanotify_select,
        .detach = fanotify_detach,
        .barrier = fanotify_barrier,
        .registrations = fanotify_registrations,
        .mechanism = fanotify_mechanism,
};
