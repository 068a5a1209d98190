/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who may be told, by the verdicts (fanotify_verdict.c). While one is awaited the watch's events are held, in their
 * order. Of what is in doubt the watch is told `rescan`, to look for itself.
 *
 * What happened where the peer was refused is made good by a `rescan` with the first that it sees there. Of all that
 * is in doubt where it may not look now the watch as a whole is told one `rescan`, a moment later, since such doubts
 * come in hundreds.
 */

#include <string.h>

#include "fanotify_verdict.h"

enum {
        HELD_MAX = 4096, /* events of a watch */
        DOUBT_MSEC = 100,
};

/* An event of a watch that waits for a verdict, or behind one that does. */
struct held {
        struct list link;
        struct verdict *to, *from; /* references; NULL: visible */
        bool has_from, hidden, from_hidden;
        bool is_listed; /* it is told to some alone */
        uint64_t number;
        uint64_t notes, count, realtime_usec;
        uint32_t flags;
        enum kev_kind kind;
        bool has_process;
        struct event_process process; /* without what it would have to be copied for */
        size_t size, from_size;
        char text[]; /* both paths */
};

/* The directory of a path. */
static size_t size_above(struct event_path path) {
        size_t size = path.size;

        while (size > 0 && path.bytes[size - 1] != '/')
                size--;
        return size > 0 ? size - 1 : 0;
}

/* What is known now of what the watch may see there; NULL: everything. */
static struct verdict *verdict_for(struct fan_watch *w, const struct dir *dir, bool *ret_hidden) {
        struct verdict *v;

        *ret_hidden = false;
        if (w->peer->trusted || !dir)
                return NULL;
        if (!dir->place) { /* nobody can say */
                *ret_hidden = true;
                return NULL;
        }
        v = verdict_get(w->peer, dir);
        *ret_hidden = !v;
        if (!v) /* no memory: it may look for itself */
                tree_tell_rescan(&w->watch, "", 0);
        return v;
}

static void free_held(struct held *h) {
        list_remove(&h->link);
        verdict_unref(h->to);
        verdict_unref(h->from);
        free(h);
}

static void end_holding(struct fan_watch *w) {
        w->peer->n_holding -= !list_empty(&w->holding);
        list_remove(&w->holding);
}

static void on_doubt_timer(struct mux_timer *timer);

void held_forget(struct fan_watch *w) {
        while (!list_empty(&w->held))
                free_held(list_entry(w->held.next, struct held, link));
        w->n_held = 0;
        end_holding(w);
        list_remove(&w->doubtful);
}

/* The outcome for one end: 1 seen, 0 not, -1 not to be told by what is known. */
static int judge(const struct verdict *v, bool hidden, uint64_t number) {
        if (hidden)
                return 0;
        if (!v)
                return 1;
        if (!verdict_is_certain(v, number))
                return -1;
        return v->state == VERDICT_ALLOWED;
}

/* All that the watch is about is in doubt. That may come with each of very many events, as where directories are made that
 * are opened to others at the end only; one look covers them, which may be told late, but not after a Wait. */
static void doubt_all(struct fan_watch *w) {
        struct fanotify *s = w->s;

        if (!list_empty(&w->doubtful))
                return;
        list_append(&s->doubtful, &w->doubtful);
        if (s->doubt_timer.heap_index == 0 &&
            mux_timer_set(s->mux, &s->doubt_timer, monotonic_nsec() + DOUBT_MSEC * NSEC_PER_MSEC, on_doubt_timer) < 0)
                access_tell_doubts(s, NULL);
}

void access_tell_doubts(struct fanotify *s, const struct asker *asker) {
        list_for_each(entry, &s->doubtful) {
                struct fan_watch *w = list_entry(entry, struct fan_watch, doubtful);

                if (asker && w->watch.asker->uid != asker->uid)
                        continue;
                list_remove(&w->doubtful);
                tree_tell_rescan(&w->watch, "", 0);
        }
}

static void on_doubt_timer(struct mux_timer *timer) {
        access_tell_doubts(container_of(timer, struct fanotify, doubt_timer), NULL);
}

/* What is in the directory was not told so far. All watches of the peer are told with the same event. */
static bool is_to_be_made_good(const struct verdict *v, uint64_t number) {
        return v && v->was_denied && (v->seen_at == 0 || v->seen_at == number);
}

/* `rescan` for the directory of which the verdict is. */
static void tell_look(struct fan_watch *w, struct verdict *v, struct event_path path, uint64_t number) {
        if (is_to_be_made_good(v, number))
                v->seen_at = number;
        tree_tell_rescan(&w->watch, path.bytes, size_above(path));
}

static void make_good(struct fan_watch *w, struct verdict *v, struct event_path path, uint64_t number) {
        if (is_to_be_made_good(v, number))
                tell_look(w, v, path, number);
}

/* It may look for itself where it may now, and else where it surely may. What happened before is covered by one look,
 * whatever it was: of all that is let go together (of one number, not 0) one is told. */
static void tell_doubt(struct fan_watch *w, struct event_path path, struct verdict *v, int sees, uint64_t number,
                       uint64_t letting_go) {
        bool seen_now = sees > 0 || (v && v->state == VERDICT_ALLOWED);

        if (sees == 0 || (v && letting_go != 0 && v->doubted_in == letting_go))
                return;
        if (v)
                v->doubted_in = letting_go;
        if (seen_now)
                tell_look(w, v, path, number);
        else
                doubt_all(w);
}

static void tell_judged(struct fan_watch *w, const struct report *report, struct verdict *to, bool hidden,
                        struct verdict *from, bool from_hidden, uint64_t number, bool is_listed, uint64_t letting_go) {
        int sees_to = judge(to, hidden, number);
        int sees_from = report->from_below.bytes ? judge(from, from_hidden, number) : 0;

        if (sees_to < 0 || sees_from < 0) {
                tell_doubt(w, report->below, to, sees_to, number, letting_go);
                tell_doubt(w, report->from_below, from, sees_from, number, letting_go);
                return;
        }
        if (sees_to > 0 && !is_listed)
                make_good(w, to, report->below, number);
        if (sees_from > 0 && from != to)
                make_good(w, from, report->from_below, number);
        if (report->notes != 0) /* or it was the client's own doing */
                tree_tell_seen(&w->watch, report, sees_to > 0, sees_from > 0, !from_hidden);
}

/* What has its verdict by now, up to the first that has not. */
static void let_go_of(struct fan_watch *w) {
        uint64_t letting_go = ++w->s->n_let_go;

        while (!list_empty(&w->held)) {
                struct held *h = list_entry(w->held.next, struct held, link);
                struct report report = REPORT_INIT;

                if ((h->to && h->to->state == VERDICT_AWAITED) || (h->from && h->from->state == VERDICT_AWAITED))
                        return;
                report.notes = h->notes;
                report.flags = h->flags;
                report.kind = h->kind;
                report.count = h->count;
                report.realtime_usec = h->realtime_usec;
                report.process = h->has_process ? &h->process : NULL;
                report.below = (struct event_path){ h->text, h->size };
                if (h->has_from)
                        report.from_below = (struct event_path){ h->text + h->size, h->from_size };
                w->n_held--;
                tell_judged(w, &report, h->to, h->hidden, h->from, h->from_hidden, h->number, h->is_listed,
                            letting_go);
                free_held(h);
        }
        end_holding(w);
}

void access_let_go(struct fanotify *s) {
        list_for_each(entry, &s->holding)
                let_go_of(list_entry(entry, struct fan_watch, holding));
}

static bool holds_listed(const struct fan_watch *w) {
        list_for_each(entry, &w->held)
                if (list_entry(entry, struct held, link)->notes & KEV_NOTE_LISTED)
                        return true;
        return false;
}

bool access_has_room(const struct file_watch *watch) {
        return container_of(watch, const struct fan_watch, watch)->n_held < HELD_MAX / 2;
}

static void hold(struct fan_watch *w, const struct report *report, struct verdict *to, bool hidden,
                 struct verdict *from, bool from_hidden, uint64_t number) {
        struct held *h = w->n_held < HELD_MAX ? malloc(sizeof(*h) + report->below.size + report->from_below.size) : NULL;

        if (!h) { /* more than can be remembered: all of it is to be looked at */
                bool listed = report->notes & KEV_NOTE_LISTED || holds_listed(w);

                held_forget(w);
                tree_tell_rescan(&w->watch, "", 0);
                if (listed)
                        tree_tell_self(&w->watch, KEV_NOTE_LISTED);
                return;
        }
        *h = (struct held){
                .to = to, .from = from, .has_from = report->from_below.bytes != NULL,
                .hidden = hidden, .from_hidden = from_hidden,
                .is_listed = w->view->lister.telling != NULL,
                .number = number,
                .notes = report->notes, .count = report->count, .realtime_usec = report->realtime_usec,
                .flags = report->flags, .kind = report->kind,
                .has_process = report->process != NULL,
                .size = report->below.size, .from_size = report->from_below.size,
        };
        list_init(&h->link);
        if (h->has_process) {
                h->process = *report->process;
                h->process.comm = h->process.exe = h->process.cgroup = NULL;
        }
        memcpy(h->text, report->below.bytes, h->size);
        if (h->has_from)
                memcpy(h->text + h->size, report->from_below.bytes, h->from_size);
        if (to)
                to->refs++;
        if (from)
                from->refs++;
        list_append(&w->held, &h->link);
        w->n_held++;
        w->peer->n_holding += list_empty(&w->holding);
        if (list_empty(&w->holding))
                list_append(&w->s->holding, &w->holding);
}

bool access_is_alike(const struct file_watch *a, const struct file_watch *b) {
        const struct fan_watch *v = container_of(a, const struct fan_watch, watch);
        const struct fan_watch *w = container_of(b, const struct fan_watch, watch);

        return v->peer == w->peer && v->exclude_self == w->exclude_self;
}

/* What is certain, and the same whichever watch of the peer it is. Where some are told part of it, or hold events, or
 * something is listed to some, each is asked. */
bool access_may_tell_all(struct tree *tree, struct file_watch *one, const struct report *report, bool *ret_all,
                         pid_t *ret_except) {
        struct view *view = container_of(tree, struct view, tree);
        struct fan_watch *w = fan_watch_of(one);
        const struct dir *where = tree->where, *from_where = report->from_below.bytes ? tree->from_where : NULL;
        uint64_t number = view->group->n_handled + 1;
        bool hidden = false, from_hidden = false;
        struct verdict *to, *from;
        int sees, sees_from;

        if (view->lister.telling || listing_is_near(&view->lister, where) || listing_is_near(&view->lister, from_where))
                return false;
        *ret_all = true;
        *ret_except = w->exclude_self ? view->pid : 0;
        if (w->peer->trusted)
                return true;
        if (w->peer->n_holding > 0)
                return false;
        to = report->below.size == 0 ? NULL : verdict_for(w, where, &hidden);
        from = to;
        if (from_where == where)
                from_hidden = hidden;
        else
                from = verdict_for(w, from_where, &from_hidden);
        if ((to && to->state == VERDICT_AWAITED) || (from && from->state == VERDICT_AWAITED))
                return false;
        sees = judge(to, hidden, number);
        sees_from = from_where ? judge(from, from_hidden, number) : sees;
        *ret_all = sees > 0;
        return sees >= 0 && sees == sees_from && !is_to_be_made_good(to, number) && !is_to_be_made_good(from, number);
}

void access_catch_up(struct fan_watch *w) {
        if (list_empty(&w->doubtful))
                return;
        list_remove(&w->doubtful);
        tree_tell_rescan(&w->watch, "", 0);
}

bool access_may_tell_unknown(const struct view *v _unused_, struct file_watch *watch) {
        return fan_watch_of(watch)->peer->trusted;
}

bool access_may_tell(struct tree *tree, struct file_watch *watch, const struct report *report) {
        struct view *view = container_of(tree, struct view, tree);
        struct fan_watch *w = fan_watch_of(watch);
        const struct dir *where = tree->where, *from_where = report->from_below.bytes ? tree->from_where : NULL;
        bool hidden = false, from_hidden = false, denied = false, from_denied = false, awaited;
        bool own = w->exclude_self && !view->lister.telling && view->pid != 0 && view->pid == watch->asker->pid;
        struct verdict *to, *from;
        uint64_t number = view->group->n_handled + 1;
        struct report nothing;

        if (view->lister.telling && !job_is_for(view->lister.telling, watch))
                return false;
        if (where) {
                hidden = listing_hides(&view->lister, where, watch);
                from_hidden = from_where && listing_hides(&view->lister, from_where, watch);
        }
        if (w->peer->trusted && !hidden && !from_hidden)
                return !own;
        if (hidden && (!from_where || from_hidden))
                return false;
        /* What is told of the watched directory itself, by whatever is above it, it may know. */
        to = report->below.size == 0 ? NULL : verdict_for(w, where, &denied);
        if (from_where == where) {
                from = to;
                from_denied = denied;
        } else
                from = verdict_for(w, from_where, &from_denied);
        hidden |= denied;
        from_hidden |= from_denied;
        awaited = (to && to->state == VERDICT_AWAITED) || (from && from->state == VERDICT_AWAITED);
        if (own) { /* it may be the first that is seen there */
                if (!awaited && !is_to_be_made_good(to, number) && !is_to_be_made_good(from, number))
                        return false;
                nothing = report_copy(report);
                nothing.notes = 0;
                report = &nothing;
        }
        if (!list_empty(&w->held) || awaited)
                hold(w, report, to, hidden, from, from_hidden, number);
        else
                tell_judged(w, report, to, hidden, from, from_hidden, number, view->lister.telling, 0);
        return false;
}
