/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fanotify.h"

#include <errno.h>

/* ---- inquiries, and barriers ------------------------------------------------------------------------ */

void inquiry_begin(struct fanotify *s, struct inquiry *inquiry) {
        inquiry->serial = ++s->serial;
        list_append(&s->inquiries, &inquiry->link);
}

void inquiry_end(struct fanotify *s _unused_, struct inquiry *inquiry) {
        list_remove(&inquiry->link);
}

static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        struct fanotify *s = container_of(barriers, struct fanotify, barriers);

        list_for_each(entry, &s->groups) {
                const struct group *g = list_entry(entry, struct group, link);

                if (g->inherited || (g->ready && (g->in_doubt || !group_has_handled(g, barrier->position))))
                        return false;
        }
        if (barrier->appeared == 0)
                barrier->appeared = s->serial + 1; /* never 0 */
        if (!fan_wait_has_looked(s, barrier->asker->uid, barrier->appeared - 1))
                return false;
        if (barrier->serial == 0)
                barrier->serial = s->serial; /* what the events up to here have asked */
        list_for_each(entry, &s->inquiries) {
                const struct inquiry *inquiry = list_entry(entry, struct inquiry, link);

                if (inquiry->serial > barrier->serial)
                        break;
                if (!inquiry->of_user || inquiry->uid == barrier->asker->uid)
                        return false;
        }
        if (barrier->crowds == 0)
                barrier->crowds = crowds_mark(&s->crowds); /* what the answers were told as, too */
        if (!crowds_have_told(&s->crowds, barrier->asker->uid, barrier->crowds))
                return false;
        access_tell_doubts(s, barrier->asker);
        return true;
}

static void on_crowds_told(struct crowds *crowds) {
        barriers_check(&container_of(crowds, struct fanotify, crowds)->barriers);
}

static bool fanotify_barrier(struct source *source, struct source_barrier *barrier) {
        struct fanotify *s = container_of(source, struct fanotify, source);

        list_for_each(entry, &s->groups) {
                struct group *g = list_entry(entry, struct group, link);

                if (g->ready)
                        group_run(g);
        }
        return barriers_add(&s->barriers, barrier, s->n_chunks);
}

/* ---- the source -------------------------------------------------------------------------------------------- */

static void on_tidy(struct mux_deferred *deferred) {
        struct fanotify *s = container_of(deferred, struct fanotify, tidy);

        fanotify_take_unanswered(s);
        if (s->compares_mounts) {
                s->compares_mounts = false;
                mounts_compare(&s->mounts);
        }
        list_for_each(entry, &s->groups) {
                group_check_repair(list_entry(entry, struct group, link));
                group_release(list_entry(entry, struct group, link));
        }
        peers_tidy(s);
        barriers_check(&s->barriers);
}

static int fanotify_open(struct source_context *context, struct source **ret_source) {
        struct fanotify *s;

        if (context->settings.file_mechanism == FILE_MECHANISM_INOTIFY)
                return -EOPNOTSUPP;
        if (!context->broker)
                return context->broker_error;
        s = calloc(1, sizeof(*s));
        if (!s)
                return -ENOMEM;
        s->mux = context->mux;
        s->pid = getpid();
        list_init(&s->groups);
        list_init(&s->inherited);
        list_init(&s->restoring);
        list_init(&s->peers);
        list_init(&s->leaving);
        list_init(&s->holding);
        list_init(&s->doubtful);
        list_init(&s->unanswered);
        list_init(&s->inquiries);
        barriers_init(&s->barriers, s->mux, is_past);
        fan_wait_init(s);
        crowds_init(&s->crowds, s->mux, on_crowds_told);
        s->crowds.alike = access_is_alike;
        mux_deferred_init(&s->tidy, on_tidy);
        s->broker = context->broker;
        fanotify_follow_mounts(s);
        *ret_source = &s->source;
        return 0;
}

static void fanotify_close(struct source *source) {
        struct fanotify *s = container_of(source, struct fanotify, source);

        mounts_close(&s->mounts);
        while (!list_empty(&s->groups))
                group_free(list_entry(s->groups.next, struct group, link));
        inherited_free_all(s);
        peers_free(s);
        fan_wait_free(s);
        mux_deferred_cancel(&s->tidy);
        barriers_close(&s->barriers);
        crowds_close(&s->crowds);
        mux_timer_clear(s->mux, &s->doubt_timer);
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
        .is_settled = fanotify_is_settled,
        .save_source = fanotify_save_source,
        .load_source = fanotify_load_source,
        .save = fanotify_save,
        .restore = fanotify_restore,
        .restored = fanotify_restored,
};
