/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who may be told. A peer sees what happens in a directory if it could have put an
 * inotify watch there: search on all above, read on the directory itself. Its
 * stand-in, a process with the peer's user and groups and nothing else, tries just
 * that, so the kernel decides, ACLs and all.
 *
 * A verdict is kept with the directory's place, and holds until an event says that the
 * attributes or the place of the directory, or of one above it, have changed. It is about
 * the moment in which the stand-in looked, and the event is older: if one of those was
 * changed in between, the verdict says nothing about the event, and the peer is told to
 * look for itself. The events of all changes that the stand-in saw are in the queue when
 * it answers: it waits for that (helper.c). Where it is refused it can't, so that the
 * surveyor, to whom nothing is, goes the same way after it. While a verdict is awaited the
 * watch's events are held, in their order.
 *
 * What happened where the peer was refused is made good by a `rescan` with the first that
 * it sees there. Of all that is in doubt where it may not look now the watch as a whole is
 * told one `rescan`, a moment later, since such doubts come in hundreds.
 *
 * Whoever is root, or the daemon's own user, sees everything.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "fanotify_watch.h"
#include "log.h"

enum {
        HELD_MAX = 4096, /* events of a watch */
        ASKED_MAX = 1024, /* verdicts of a peer under way */
        PEERS_MAX = 1024,
        PEERS_OF_USER_MAX = 16,
        RESTARTS_MAX = 16,
        DOUBT_MSEC = 100,
};

/* What is asked for a verdict. */
struct look {
        uint64_t mount;
        struct handle handle;
        char path[];
};

/* The stand-in for all peers of the same user and groups. */
struct peer {
        struct list link;
        struct fanotify *s;
        struct helper helper;
        uid_t uid;
        gid_t gid;
        size_t n_groups;
        gid_t *groups;
        bool trusted; /* sees everything */
        size_t n_asked; /* verdicts that are awaited */
        struct list verdicts;
        size_t n_holding; /* watches */
        bool lost;    /* the stand-in has ended */
        unsigned n_restarts;
        unsigned refs;
};

enum verdict_state {
        VERDICT_AWAITED,
        VERDICT_ALLOWED,
        VERDICT_DENIED,
        VERDICT_NONE, /* the directory was not there any more, or nobody could look */
};

struct verdict {
        struct list link; /* in place->verdicts */
        struct list of_peer;
        struct inquiry inquiry;
        unsigned refs;    /* the place's, and those of events that wait for it */
        struct place *place; /* NULL: gone */
        struct group *group;
        struct peer *peer;
        enum verdict_state state;
        struct asked *asked;
        struct look *look;   /* while it is awaited, for which the place may be gone */
        uint64_t asked_nsec; /* CLOCK_MONOTONIC */
        uint64_t asked_at, answered_at; /* the last event that was read then */
        bool was_denied;  /* by the verdict before: what is in it was not told so far, */
        uint64_t seen_at; /* but for this event, with which that was made good; 0: it was not yet */
        bool expired;     /* it is kept for that alone */
        uint64_t doubted_in; /* the letting go in which `rescan` was told for it */
        size_t n_chain;
        uint64_t chain[]; /* hashes of the handles of the directory and all above */
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

/* ---- stand-ins -------------------------------------------------------------------------------------- */

static void on_stand_in(struct helper *helper, int error, int fd) {
        struct peer *peer = container_of(helper, struct peer, helper);

        (void)safe_close(fd);
        if (error == 0)
                return;
        log_info("fanotify: what looks at files for user %u has ended", peer->uid);
        peer->lost = true;
        mux_defer(peer->s->mux, &peer->s->tidy);
}

static bool is_same(const struct peer *peer, const struct asker *asker) {
        return peer->uid == asker->uid && peer->gid == asker->gid && peer->n_groups == asker->n_groups &&
               (peer->n_groups == 0 ||
                memcmp(peer->groups, asker->groups, peer->n_groups * sizeof(*peer->groups)) == 0);
}

static int start(struct peer *peer) {
        static struct helper_request request;

        request = (struct helper_request){
                .kind = HELPER_STAND_IN, .uid = peer->uid, .gid = peer->gid, .n_groups = (uint32_t)peer->n_groups,
        };
        for (size_t i = 0; i < peer->n_groups; i++)
                request.groups[i] = peer->groups[i];
        return helper_start(peer->s->broker, &peer->helper, &request, on_stand_in);
}

static bool peer_is_there(const struct peer *peer) {
        return peer->helper.state != HELPER_ENDED && peer->helper.state != HELPER_CLOSED;
}

/* Its user may have ended it, and pays for that: what it would have judged is told as a rescan, at most. */
static void restart(struct peer *peer) {
        peer->lost = false;
        if (peer->n_restarts++ >= RESTARTS_MAX)
                return;
        helper_close(&peer->helper);
        if (start(peer) < 0)
                peer->helper.state = HELPER_CLOSED;
}

struct peer *peer_get(struct fanotify *s, const struct asker *asker, int *ret_error) {
        struct peer *peer;
        size_t n = 0, n_of_user = 0;
        int r;

        list_for_each(entry, &s->peers) {
                peer = list_entry(entry, struct peer, link);
                n++;
                n_of_user += peer->uid == asker->uid;
                if (is_same(peer, asker)) {
                        if (peer->lost)
                                restart(peer);
                        if (!peer_is_there(peer)) {
                                *ret_error = -EAGAIN;
                                return NULL;
                        }
                        peer->refs++;
                        return peer;
                }
        }
        if (asker->n_groups > HELPER_GROUPS_MAX || n >= PEERS_MAX || n_of_user >= PEERS_OF_USER_MAX) {
                *ret_error = -EDQUOT;
                return NULL;
        }
        peer = calloc(1, sizeof(*peer));
        if (peer && asker->n_groups > 0)
                peer->groups = calloc(asker->n_groups, sizeof(*peer->groups));
        if (!peer || (asker->n_groups > 0 && !peer->groups)) {
                free(peer);
                *ret_error = -ENOMEM;
                return NULL;
        }
        peer->s = s;
        peer->uid = asker->uid;
        peer->gid = asker->gid;
        peer->n_groups = asker->n_groups;
        if (peer->n_groups > 0)
                memcpy(peer->groups, asker->groups, peer->n_groups * sizeof(*peer->groups));
        peer->trusted = asker->uid == 0 || asker->uid == s->source.context->uid;
        peer->refs = 1;
        list_init(&peer->verdicts);
        r = start(peer);
        if (r < 0) {
                free(peer->groups);
                free(peer);
                *ret_error = r;
                return NULL;
        }
        list_append(&s->peers, &peer->link);
        return peer;
}

struct helper *peer_helper(struct peer *peer) {
        return &peer->helper;
}

static void free_peer(struct peer *peer) {
        helper_close(&peer->helper);
        list_remove(&peer->link);
        free(peer->groups);
        free(peer);
}

void peers_tidy(struct fanotify *s) {
        list_for_each(entry, &s->peers) {
                struct peer *peer = list_entry(entry, struct peer, link);

                if (peer->refs == 0)
                        free_peer(peer);
                else if (peer->lost)
                        restart(peer);
        }
}

void peers_free(struct fanotify *s) {
        while (!list_empty(&s->peers))
                free_peer(list_entry(s->peers.next, struct peer, link));
}

/* ---- verdicts ---------------------------------------------------------------------------------------- */

static void unref(struct verdict *v) {
        if (!v || --v->refs > 0)
                return;
        if (v->asked) {
                asked_forget(v->asked);
                v->peer->n_asked--;
        }
        if (!list_empty(&v->inquiry.link))
                inquiry_end(v->peer->s, &v->inquiry);
        list_remove(&v->of_peer);
        free(v->look);
        free(v);
}

static void detach(struct verdict *v) {
        list_remove(&v->link);
        list_remove(&v->of_peer);
        v->place = NULL;
        unref(v);
}

void verdicts_forget(struct place *place) {
        while (!list_empty(&place->verdicts))
                detach(list_entry(place->verdicts.next, struct verdict, link));
}

static void let_go(struct fanotify *s);

static void finish(struct verdict *v, enum verdict_state state) {
        struct fanotify *s = v->peer->s;

        group_read(v->group); /* what was changed before the answer */
        v->state = v->group->drained ? state : VERDICT_NONE;
        v->answered_at = v->group->n_read;
        free(take_pointer(&v->look));
        mux_defer(s->mux, &v->group->go_on);
        inquiry_end(s, &v->inquiry);
        let_go(s);
}

static struct look *look_new(const struct place *place) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        const struct view *view = place->view;
        struct look *look;

        if (view->mount_point[1])
                buffer_put(&path, view->mount_point, strlen(view->mount_point));
        if (place->dir->parent || path.size == 0)
                tree_path(place->dir, &path);
        else
                buffer_put(&path, "", 1);
        if (path.error || path.size >= QUESTION_PATH_MAX)
                return NULL;
        look = malloc(sizeof(*look) + strlen(path.data) + 1);
        if (!look)
                return NULL;
        look->mount = view->mount;
        handle_copy(&look->handle, place_handle(place));
        (void)strcpy(look->path, path.data);
        return look;
}

static bool put(struct verdict *v, struct helper *helper, answer_fn *fn) {
        const struct view *view = view_find(v->group, v->look->mount);
        struct question question;

        if (!view)
                return false;
        question = view_question(view, QUESTION_ACCESS, handle_refer(&v->look->handle));
        v->asked = helper_ask(helper, &question, v->look->path, -1, fn, v);
        v->peer->n_asked += v->asked != NULL;
        return v->asked != NULL;
}

/* The surveyor, to whom nothing is denied, was there. */
static void on_waited(void *owner, const struct answer *answer, const char *bytes _unused_) {
        struct verdict *v = owner;

        v->asked = NULL;
        v->peer->n_asked--;
        finish(v, answer->error == 0 ? VERDICT_DENIED : VERDICT_NONE);
}

static void on_answer(void *owner, const struct answer *answer, const char *bytes _unused_) {
        struct verdict *v = owner;

        v->asked = NULL;
        v->peer->n_asked--;
        if (answer->error != EACCES && answer->error != EPERM) {
                finish(v, answer->error == 0 ? VERDICT_ALLOWED : VERDICT_NONE);
                return;
        }
        /* What has closed it is in effect, and its event may be still to come, for which the stand-in could not wait. */
        if (!put(v, &v->group->surveyor, on_waited))
                finish(v, VERDICT_NONE);
}

static bool ask(struct verdict *v) {
        const struct group *g = v->group;

        v->asked_at = g->n_read;
        /* It is asked by a path of before the moves that are read and not handled yet: there may be another directory by
         * now, of which the answer is. */
        for (const struct dir *d = v->place->dir; d; d = d->parent) {
                const struct pending_move *m = d->place ? group_next_move(g, place_handle(d->place)) : NULL;

                if (m && m->number <= v->asked_at)
                        v->asked_at = m->number - 1;
        }
        v->look = look_new(v->place);
        return v->look && put(v, &v->peer->helper, on_answer);
}

static struct verdict *new_verdict(struct peer *peer, const struct dir *dir, bool was_denied) {
        struct verdict *v;
        size_t n = 0;

        for (const struct dir *d = dir; d; d = d->parent)
                n++;
        v = calloc(1, sizeof(*v) + n * sizeof(v->chain[0]));
        if (!v)
                return NULL;
        for (const struct dir *d = dir; d; d = d->parent)
                if (d->place)
                        v->chain[v->n_chain++] = d->place->node.hash;
        v->refs = 1;
        v->place = dir->place;
        v->group = dir->place->view->group;
        v->peer = peer;
        v->was_denied = was_denied;
        v->state = VERDICT_AWAITED;
        v->asked_nsec = monotonic_nsec();
        list_init(&v->of_peer);
        list_append(&peer->verdicts, &v->of_peer);
        v->inquiry.of_user = true;
        v->inquiry.uid = peer->uid;
        inquiry_begin(peer->s, &v->inquiry);
        list_append(&dir->place->verdicts, &v->link);
        if (!peer_is_there(peer) || peer->n_asked >= ASKED_MAX || !ask(v)) {
                inquiry_end(peer->s, &v->inquiry);
                v->state = VERDICT_NONE;
                v->asked_at = v->answered_at = v->group->n_read;
        }
        return v;
}

/* What happens above the mount's root, on another file system, brings no event: there it is asked anew for whatever is
 * read. */
static bool has_expired(const struct verdict *v, const struct view *view) {
        return view->mount_point[1] && v->asked_nsec < view->group->read_nsec;
}

/* The one that holds for what happens in `dir` now. NULL: no memory. */
static struct verdict *get_verdict(struct peer *peer, const struct dir *dir) {
        bool was_denied = false;

        list_for_each(entry, &dir->place->verdicts) {
                struct verdict *v = list_entry(entry, struct verdict, link);
                size_t n = 0;
                bool holds = v->state != VERDICT_NONE && !v->expired && !has_expired(v, dir->place->view);

                if (v->peer != peer)
                        continue;
                for (const struct dir *d = dir; holds && d; d = d->parent, n++)
                        holds = n < v->n_chain && d->place && d->place->node.hash == v->chain[n] &&
                                d->place->changed <= v->asked_at;
                if (holds && n == v->n_chain)
                        return v;
                was_denied = v->state == VERDICT_DENIED || v->state == VERDICT_NONE || (v->was_denied && v->seen_at == 0);
                detach(v);
                break;
        }
        return new_verdict(peer, dir, was_denied);
}

/* Whether an event of that number can be judged by it. */
static bool is_certain(const struct verdict *v, uint64_t number) {
        if (v->state == VERDICT_NONE)
                return false;
        /* What was merged into it may be younger: what was denied may be allowed by then. */
        for (size_t i = 0; (v->answered_at >= number || v->state == VERDICT_DENIED) && i < v->n_chain; i++)
                if (group_has_changed(v->group, number, v->chain[i]))
                        return false;
        return true;
}

/* The last watch of a peer takes its verdicts along. */
void peer_put(struct fanotify *s, struct peer *peer) {
        if (--peer->refs > 0)
                return;
        while (!list_empty(&peer->verdicts))
                detach(list_entry(peer->verdicts.next, struct verdict, of_peer));
        mux_defer(s->mux, &s->tidy);
}

void verdicts_expire(struct view *v) {
        hash_for_each(node, &v->places)
                list_for_each(entry, &container_of(node, struct place, node)->verdicts)
                        list_entry(entry, struct verdict, link)->expired = true;
}

/* ---- telling ------------------------------------------------------------------------------------------- */

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
        v = get_verdict(w->peer, dir);
        *ret_hidden = !v;
        if (!v) /* no memory: it may look for itself */
                tree_tell_rescan(&w->watch, "", 0);
        return v;
}

static void free_held(struct held *h) {
        list_remove(&h->link);
        unref(h->to);
        unref(h->from);
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
        if (!is_certain(v, number))
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

/* It may look for itself where it may now, and else where it surely may. What happened before is covered by one look,
 * whatever it was: of all that is let go together (of one number, not 0) one is told. */
static void tell_doubt(struct fan_watch *w, struct event_path path, struct verdict *v, int sees, uint64_t letting_go) {
        bool seen_now = sees > 0 || (v && v->state == VERDICT_ALLOWED);

        if (sees == 0 || (v && letting_go != 0 && v->doubted_in == letting_go))
                return;
        if (v)
                v->doubted_in = letting_go;
        if (seen_now)
                tree_tell_rescan(&w->watch, path.bytes, size_above(path));
        else
                doubt_all(w);
}

/* What is in the directory was not told so far. All watches of the peer are told with the same event. */
static bool is_to_be_made_good(const struct verdict *v, uint64_t number) {
        return v && v->was_denied && (v->seen_at == 0 || v->seen_at == number);
}

static void make_good(struct fan_watch *w, struct verdict *v, struct event_path path, uint64_t number) {
        if (!is_to_be_made_good(v, number))
                return;
        v->seen_at = number;
        tree_tell_rescan(&w->watch, path.bytes, size_above(path));
}

static void tell_judged(struct fan_watch *w, const struct report *report, struct verdict *to, bool hidden,
                        struct verdict *from, bool from_hidden, uint64_t number, bool is_listed, uint64_t letting_go) {
        int sees_to = judge(to, hidden, number);
        int sees_from = report->from_below.bytes ? judge(from, from_hidden, number) : 0;

        if (sees_to < 0 || sees_from < 0) {
                tell_doubt(w, report->below, to, sees_to, letting_go);
                tell_doubt(w, report->from_below, from, sees_from, letting_go);
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

static void let_go(struct fanotify *s) {
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
