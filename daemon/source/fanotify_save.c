/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * File systems for the next daemon: their groups, in which the kernel goes on queuing events, and which directory each
 * watch had. The trees are made anew: a handle's place is asked for as it is needed, and what the surveyor answers is
 * set right by the moves that lie in the queue, as always. Only where the watches themselves are has to be known
 * before: so the queue is not read until each has its directory again. One that leads elsewhere by now is told as gone.
 * Of the verdicts it is handed on what was not told.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fanotify_watch.h"
#include "state.h"

/* ---- writing ------------------------------------------------------------------------------------------ */

/* Whether all that was read of it is told, and certain. */
static bool group_is_settled(const struct group *g) {
        if (!g->ready || g->failed || g->unmounted || g->in_doubt || g->inherited)
                return false;
        if (!list_empty(&g->chunks) || !list_empty(&g->due) || !list_empty(&g->names_doubtful) || g->n_names_asked > 0)
                return false;
        list_for_each(entry, &g->views)
                if (!list_empty(&list_entry(entry, const struct view, link)->lister.listings))
                        return false;
        return true;
}

bool fanotify_is_settled(const struct source *source) {
        const struct fanotify *s = container_of(source, struct fanotify, source);

        list_for_each(entry, &s->groups) {
                const struct group *g = list_entry(entry, struct group, link);

                if (!g->failed && !g->unmounted && !group_is_settled(g)) /* with these two there is no hope */
                        return false;
        }
        return true;
}

/* The watches of one that isn't are made anew. */
void fanotify_save_source(struct source *source, struct state_writer *w) {
        struct fanotify *s = container_of(source, struct fanotify, source);
        size_t n = 0;

        list_for_each(entry, &s->groups) {
                struct group *g = list_entry(entry, struct group, link);

                g->is_saved = group_is_settled(g);
                n += g->is_saved;
        }
        mounts_save(&s->mounts, w);
        state_put_u64(w, n);
        list_for_each(entry, &s->groups) {
                const struct group *g = list_entry(entry, struct group, link);

                if (!g->is_saved)
                        continue;
                state_put_u64(w, g->device);
                state_put_fd(w, g->fd);
        }
        peers_save(s, w);
}

bool fanotify_save(struct source *source _unused_, struct subscription *subscription, struct state_writer *writer) {
        struct file_watch *watch = subscription->object;
        struct fan_watch *w = fan_watch_of(watch);
        struct place *place = watch->dir ? watch->dir->place : NULL;
        struct handle_ref handle = place ? place_handle(place) : NO_HANDLE;

        crowd_catch_up(watch);
        access_catch_up(w);
        state_put_u64(writer, watch->state);
        state_put_u64(writer, w->group ? w->group->device : 0);
        state_put_i64(writer, handle.type);
        state_put_bytes(writer, handle.bytes, handle.size);
        if (watch->state != WATCH_IN_FORCE)
                return watch->state == WATCH_WAITING || watch->state == WATCH_ENDED;
        return watch->path && place && w->view && w->group && w->group->is_saved && w->n_held == 0 && !w->returning;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

void fanotify_load_source(struct source *source, struct state_reader *r) {
        struct fanotify *s = container_of(source, struct fanotify, source);
        size_t n;

        mounts_load(&s->mounts, r);
        n = state_get_count(r, 2 * sizeof(uint64_t));
        for (size_t i = 0; i < n; i++) {
                struct inherited *inherited = calloc(1, sizeof(*inherited));
                uint64_t device = state_get_u64(r);
                int fd = state_get_fd(r);

                if (!inherited || fd < 0 || !group_has_mark(fd)) {
                        free(inherited);
                        (void)safe_close(fd);
                        continue;
                }
                inherited->device = device;
                inherited->fd = fd;
                list_init(&inherited->link);
                list_append(&s->inherited, &inherited->link);
        }
        peers_load(s, r);
}

struct inherited *inherited_find(const struct fanotify *s, uint64_t device) {
        list_for_each(entry, &s->inherited) {
                struct inherited *inherited = list_entry(entry, struct inherited, link);

                if (inherited->device == device && inherited->fd >= 0)
                        return inherited;
        }
        return NULL;
}

static void inherited_free(struct inherited *inherited) {
        list_remove(&inherited->link);
        (void)safe_close(inherited->fd);
        free(inherited);
}

void inherited_free_all(struct fanotify *s) {
        mux_timer_clear(s->mux, &s->restore_timer);
        list_for_each(entry, &s->inherited)
                inherited_free(list_entry(entry, struct inherited, link));
}

static bool has_handle(struct state_reader *r, struct handle *ret) {
        int32_t type = (int32_t)state_get_i64(r);
        size_t size;
        const void *bytes = state_get_bytes(r, &size);

        if (!bytes || size > sizeof(ret->bytes))
                return false;
        handle_copy(ret, (struct handle_ref){ .type = type, .size = (uint32_t)size, .bytes = bytes });
        return true;
}

int fanotify_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                     struct state_reader *r, struct refusal *refusal) {
        struct fanotify *s = container_of(source, struct fanotify, source);
        uint64_t state = state_get_u64(r), device = state_get_u64(r);
        struct inherited *inherited = inherited_find(s, device);
        struct fan_watch *w;
        struct handle was = { 0 };
        bool had = has_handle(r, &was);

        if (r->failed || !subject->path || (state == WATCH_IN_FORCE && (!inherited || !had)))
                return -EBADMSG;
        w = fan_watch_new(s, subscription, subject, refusal);
        if (!w)
                return -refusal->error;
        if (state == WATCH_ENDED) {
                w->watch.state = WATCH_ENDED;
                return 0;
        }
        if (state != WATCH_IN_FORCE) {
                w->returning = true;
                fan_wait_begin(w);
                fan_watch_ask(w);
                return 0;
        }
        w->inherited = inherited;
        w->was = was;
        inherited->n_restoring++;
        list_append(&s->restoring, &w->restoring);
        fan_watch_ask(w);
        return 1;
}

/* A path that leads through a file system which does not answer holds up nobody else: what has happened before that
 * watch has its directory is missing there. */
static void on_restore_timer(struct mux_timer *timer) {
        struct fanotify *s = container_of(timer, struct fanotify, restore_timer);

        list_for_each(entry, &s->restoring) {
                struct fan_watch *w = list_entry(entry, struct fan_watch, restoring);

                w->watch.subscription->anew = true;
                (void)fan_watch_end_restoring(w);
        }
}

/* What nobody watches any more. */
void fanotify_restored(struct source *source) {
        struct fanotify *s = container_of(source, struct fanotify, source);

        if (!list_empty(&s->restoring))
                (void)mux_timer_set(s->mux, &s->restore_timer, monotonic_nsec() + RESTORE_MSEC * NSEC_PER_MSEC,
                                    on_restore_timer);

        list_for_each(entry, &s->inherited) {
                struct inherited *inherited = list_entry(entry, struct inherited, link);

                if (inherited->n_restoring == 0)
                        inherited_free(inherited);
        }
        if (list_empty(&s->inherited))
                mounts_compare(&s->mounts);
}

bool fan_watch_was_at(const struct fan_watch *w, const char *links, size_t size) {
        struct link_view link;
        bool same = false;

        while (link_take(&links, &size, &link))
                same = handle_ref_equal(handle_refer(&link.handle), handle_refer(&w->was));
        return same;
}

bool fan_watch_end_restoring(struct fan_watch *w) {
        struct inherited *inherited = take_pointer(&w->inherited);

        if (!inherited)
                return false;
        list_remove(&w->restoring);
        if (--inherited->n_restoring > 0)
                return true;
        list_for_each(entry, &w->s->groups) {
                struct group *g = list_entry(entry, struct group, link);

                if (g->inherited != inherited)
                        continue;
                g->inherited = NULL;
                if (g->ready && group_begin_reading(g) < 0)
                        group_gather(g); /* which tries again */
                mux_defer(w->s->mux, &g->go_on);
        }
        inherited_free(inherited);
        if (list_empty(&w->s->inherited)) /* all is where it was to be compared */
                w->s->compares_mounts = true;
        mux_defer(w->s->mux, &w->s->tidy);
        return true;
}
