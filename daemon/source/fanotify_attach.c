/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Attaching, and which directory a watch is about. The client's stand-in resolves the path, or the descriptor, and
 * answers with the handles from the mount's root down. That is about the moment in which it looked: so it is asked
 * when the file system's group is ready, and its answer is taken once all that was queued as it came is handled. If
 * one of the directories was moved after the question was put, it is put again. Whether the directory of a watch in
 * force is still where it was named is the same question.
 *
 * A watch has one question under way at most; one that is put meanwhile is put when that one is answered (`again`).
 * What can't be watched here is passed on to the next mechanism, and what isn't there waits (fanotify_wait.c).
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "close_elsewhere.h"
#include "fanotify_verdict.h"
#include "log.h"
#include "workers.h"

enum {
        TRIES_MAX = 64,  /* to find a directory that is being moved about */
        ASKED_MAX = 256, /* questions of a peer under way: each has room for a whole path */
        UNANSWERED_A_TURN = 256,
};

/* ---- watches that end --------------------------------------------------------------------------------- */

/* The watch has no directory any more. */
static void leave(struct fan_watch *w) {
        struct view *v = take_pointer(&w->view);

        if (!v)
                return;
        jobs_forget(&v->lister, &w->watch);
        held_forget(w);
        crowd_leave(&w->watch);
        list_remove(&w->watch.link);
        tree_count(w->watch.dir, -1);
        v->n_who -= w->wants_who;
        w->watch.dir = NULL;
        v->n_watches--;
        mux_defer(w->s->mux, &w->s->tidy);
}

/* It is kept, and its events are read, as long as a watch may need them. */
static void set_group(struct fan_watch *w, struct group *g) {
        if (w->group)
                w->group->n_watches--;
        w->group = g;
        if (g)
                g->n_watches++;
        mux_defer(w->s->mux, &w->s->tidy);
}

/* Nothing more is to be told for it. */
static void answered(struct fan_watch *w) {
        if (!list_empty(&w->inquiry.link))
                inquiry_end(w->s, &w->inquiry);
        mux_defer(w->s->mux, &w->s->tidy);
}

static void ask_more(struct peer *peer);

static void stop_asking(struct fan_watch *w) {
        if (w->asked) {
                asked_forget(take_pointer(&w->asked));
                w->peer->n_resolving--;
                ask_more(w->peer);
        }
        list_remove(&w->due.link);
        list_remove(&w->attaching);
        answered(w);
        w->again = false;
}

void fanotify_end_watch(struct fanotify *s _unused_, struct file_watch *watch, uint64_t realtime_usec) {
        struct fan_watch *w = fan_watch_of(watch);
        bool waits = watch->path && watch->subscription->notes & KEV_NOTE_BACK;

        if (watch->crowd)
                crowd_before(watch, NULL);
        leave(w);
        stop_asking(w);
        watch->state = WATCH_ENDED;
        tree_tell_gone(watch, waits, realtime_usec);
        if (!waits)
                return;
        w->returning = true;
        fan_wait_begin(w);
        fan_watch_ask(w);
}

/* ---- not here, or not there --------------------------------------------------------------------------- */

/* Not here: the next mechanism is asked to serve it. */
static void pass_on(struct fan_watch *w, int error) {
        struct subscription *subscription = w->watch.subscription;
        const struct source_context *context = w->s->source.context;
        /* What nothing serves has no source by which it is known whose part it is. */
        const struct sink *sink = subscription->is_part ? context->sink : context->upper;
        char *path _cleanup_(freep) = take_pointer(&w->watch.path);
        int fd = take_fd(&w->fd), r;
        uid_t user = w->watch.asker->uid;
        struct subject subject = {
                .filter = KEV_FILTER_TREE,
                .notes = subscription->notes,
                .path = path,
                .fd = fd,
                .pid = ABSENT,
                .data = ABSENT,
                .waits = w->watch.waits_first,
                .list = w->list,
                .listed = w->was_listed,
                .exclude_self = w->exclude_self,
                .second_choice = true,
                .asker = w->watch.asker,
        };
        struct refusal refusal;

        subscription->anew |= fan_watch_end_restoring(w);
        (void)snprintf(w->s->source.reason, sizeof(w->s->source.reason), "%s on %s, so inotify serves %.80s",
                       strerror(error), w->kind_of_fs[0] ? w->kind_of_fs : "that file system", path ? path : "it");
        log_debug("fanotify: %s", w->s->source.reason);
        r = sources_pass_on(subscription, &subject, &refusal); /* frees it here */
        close_elsewhere(context->workers, user, fd);
        if (r < 0 && context->settings.file_mechanism == FILE_MECHANISM_FANOTIFY)
                (void)refuse(&refusal, EOPNOTSUPP, "path: fanotify can't watch its file system: %s", strerror(error));
        if (r == 0)
                sink->attached(subscription, NULL);
        else if (r < 0)
                sink->attached(subscription, &refusal);
}

static void give_up(struct fan_watch *w, int error) {
        struct refusal refusal;

        (void)refuse(&refusal, error, "%s",
                     w->hangs ? "path: a file system on the way does not answer" : file_error_text(error));
        w->s->source.context->sink->attached(w->watch.subscription, &refusal);
}

/* Without a directory: it is refused, or goes on waiting. */
static void on_absent(struct fan_watch *w, int error) {
        answered(w);
        if (fan_watch_end_restoring(w) && file_is_absent(error)) { /* it has gone since */
                w->s->source.context->sink->attached(w->watch.subscription, NULL);
                fanotify_end_watch(w->s, &w->watch, realtime_nsec() / NSEC_PER_USEC);
                return;
        }
        if (w->watch.state == WATCH_IN_FORCE) {
                if (file_is_absent(error))
                        fanotify_end_watch(w->s, &w->watch, realtime_nsec() / NSEC_PER_USEC);
                else { /* it is not known, and as good as before */
                        w->to_be_checked = true;
                        if (is_shortage(-error))
                                peer_check_later(w->peer);
                }
                return;
        }
        if (w->watch.state == WATCH_WAITING) { /* whatever it is: it is looked at again */
                if (w->again)
                        fan_watch_ask(w);
                return;
        }
        if (w->watch.waits_first && file_is_absent(error)) {
                w->returning = true;
                fan_wait_begin(w);
                w->s->source.context->sink->attached(w->watch.subscription, NULL);
                return;
        }
        give_up(w, error);
}

/* ---- which directory a watch is about ----------------------------------------------------------------- */

/* Of its links, whether one may have been moved since it was asked. */
static bool is_stale(const struct group *g, uint64_t number, const char *links, size_t size) {
        struct link_view link;

        while (link_take(&links, &size, &link))
                if (group_has_moved(g, number, handle_hash(handle_refer(&link.handle))))
                        return true;
        return false;
}

static void enter(struct fan_watch *w, struct view *v, struct dir *dir) {
        struct file_watch *watch = &w->watch;
        struct fanotify *s = w->s;
        bool returning = w->returning;

        fan_wait_end(w);
        close_elsewhere(s->source.context->workers, watch->asker->uid, take_fd(&w->fd)); /* it would keep the file system from being unmounted */
        w->view = v;
        v->n_watches++;
        if (!tree_is_watched_below(dir, NULL))
                v->generation++; /* what was outside may be below it */
        watch->dir = dir;
        watch->serial = ++s->serial;
        watch->state = WATCH_IN_FORCE;
        crowd_begin(&s->crowds, watch);
        tree_count(dir, 1);
        crowd_enter(&s->crowds, watch);
        list_append(&v->tree.watches, &watch->link);
        w->returning = false;
        w->tries = 0;
        answered(w);
        watch->subscription->anew |= w->inherited && w->group->inherited != w->inherited; /* its queue is another one */
        (void)fan_watch_end_restoring(w);
        w->wants_who = watch->subscription->notes & KEV_NOTE_WHO;
        v->n_who += w->wants_who;
        if (w->list && (returning || !w->was_listed))
                job_start(&v->lister, dir, NULL, watch);
        if (returning)
                tree_tell_self(watch, KEV_NOTE_BACK | KEV_NOTE_RESCAN);
        else
                s->source.context->sink->attached(watch->subscription, NULL);
}

/* All that was queued as the answer came is handled: the tree is as it was then. */
static void on_due(struct due *due) {
        struct fan_watch *w = container_of(due, struct fan_watch, due);
        struct group *g = w->group;
        struct subject_place place;
        const char *path = w->answer.data + sizeof(place), *links;
        char mount_point[HELPER_PATH_MAX];
        struct view *v;
        enum watch_state state = w->watch.state;
        struct dir *dir = NULL;
        size_t size;

        if (g->failed || g->unmounted) { /* what was compared was not its events */
                if (w->view)
                        on_absent(w, ENOENT);
                else {
                        set_group(w, NULL);
                        fan_watch_ask(w);
                }
                return;
        }
        memcpy(&place, w->answer.data, sizeof(place));
        links = path + place.path_size;
        size = w->answer.size - sizeof(place) - place.path_size;
        if (w->again || is_stale(g, w->asked_at, links, size)) {
                if (w->tries++ < TRIES_MAX)
                        fan_watch_ask(w);
                else
                        on_absent(w, ENOENT);
                return;
        }
        memcpy(mount_point, path, place.mount_point_size);
        mount_point[place.mount_point_size] = 0;
        if (w->inherited && !fan_watch_was_at(w, links, size)) { /* another directory has its name since */
                on_absent(w, ENOENT);
                return;
        }
        v = view_get(g, place.mount, mount_point);
        if (v)
                dir = place_take_links(v, links, size);
        if (w->watch.state != state) /* it has ended by what was found */
                return;
        if (w->watch.state == WATCH_IN_FORCE) {
                w->tries = 0;
                if (v != w->view || dir != w->watch.dir)
                        fanotify_end_watch(w->s, &w->watch, realtime_nsec() / NSEC_PER_USEC);
                else
                        answered(w);
        } else if (dir)
                enter(w, v, dir);
        else
                on_absent(w, ENOMEM);
}

/* Whether what a stand-in has answered is what it should be. */
static bool is_whole(const struct fan_watch *w) {
        struct subject_place place;

        if (w->answer.size < sizeof(place))
                return false;
        memcpy(&place, w->answer.data, sizeof(place));
        return place.path_size > 0 && place.path_size <= w->answer.size - sizeof(place) &&
               w->answer.data[sizeof(place) + place.path_size - 1] == 0 &&
               place.mount_point_size < MIN(place.path_size, (uint32_t)HELPER_PATH_MAX) &&
               memchr(place.file_system_name, 0, sizeof(place.file_system_name));
}

static void on_resolved(void *owner, const struct answer *answer, const char *bytes) {
        struct fan_watch *w = owner;
        struct subject_place place;
        struct group *g = NULL;
        char mount_point[HELPER_PATH_MAX];
        int error = answer->error, r;

        if (answer->size > 0)
                buffer_put(&w->answer, bytes, answer->size);
        if (answer->more)
                return;
        w->asked = NULL;
        w->peer->n_resolving--;
        ask_more(w->peer);
        if (w->answer.error)
                error = ENOMEM;
        else if (error == 0 && !is_whole(w))
                error = EIO;
        w->hangs = error == ETIMEDOUT;
        if (error == EIO || error == ETIMEDOUT) /* the stand-in was ended, by its user perhaps, or given up */
                error = EAGAIN;
        if (error != 0) {
                bool here = file_is_absent(error) || error == EACCES || error == ENOMEM || error == EAGAIN ||
                            error == EPERM;

                if (here || w->watch.state == WATCH_IN_FORCE || w->watch.state == WATCH_WAITING)
                        on_absent(w, error);
                else
                        pass_on(w, error);
                return;
        }
        memcpy(&place, w->answer.data, sizeof(place));
        if (w->view) {
                /* Something else is mounted there. */
                if (place.mount != w->view->mount || w->group->unmounted)
                        on_absent(w, ENOENT);
                else
                        group_await(w->group, &w->due);
                return;
        }
        memcpy(w->kind_of_fs, place.file_system_name, sizeof(w->kind_of_fs));
        memcpy(mount_point, w->answer.data + sizeof(place), place.mount_point_size);
        mount_point[place.mount_point_size] = 0;
        r = group_get(w->s, &place, mount_point, &g);
        if (r < 0) {
                on_absent(w, -r);
                return;
        }
        if (g->ready && w->group == g) {
                group_await(g, &w->due);
                return;
        }
        /* The answer has to be younger than the mark, and the events are to be told from one another. */
        set_group(w, g);
        if (g->ready)
                fan_watch_ask(w);
        else
                list_append(&g->attaching, &w->attaching);
}

static void put_question(struct fan_watch *w) {
        struct question question = { .kind = QUESTION_RESOLVE };

        w->again = false; /* what was to be asked since it waits for its turn is asked by this */
        if (!w->view && w->group && w->group->unmounted)
                set_group(w, NULL);
        buffer_reset(&w->answer);
        if (w->group && w->group->ready) {
                group_read(w->group);
                w->asked_at = w->group->n_read;
                mux_defer(w->s->mux, &w->group->go_on);
        }
        w->asked = helper_ask(peer_helper(w->peer), &question, w->fd < 0 ? w->watch.path : NULL,
                              w->fd, on_resolved, w);
        if (w->asked) {
                w->peer->n_resolving++;
                peer_is_asked(w->peer);
                return;
        }
        /* Not from within, since whoever attaches it does not expect an answer yet. */
        list_append(&w->s->unanswered, &w->attaching);
        mux_defer(w->s->mux, &w->s->tidy);
}

/* Of those whose turn it is, as many as may be under way. Without a stand-in it is nobody's. */
static void ask_more(struct peer *peer) {
        while (peer->n_resolving < ASKED_MAX && peer_is_there(peer) && !list_empty(&peer->unasked)) {
                struct fan_watch *w = list_entry(peer->unasked.next, struct fan_watch, attaching);

                list_remove(&w->attaching);
                put_question(w);
        }
        if (peer_is_there(peer) || list_empty(&peer->unasked))
                return;
        list_splice(&peer->s->unanswered, &peer->unasked);
        mux_defer(peer->s->mux, &peer->s->tidy);
}

void fan_watch_ask(struct fan_watch *w) {
        if (w->asked || !list_empty(&w->due.link) || !list_empty(&w->attaching)) {
                w->again = true;
                return;
        }
        w->again = false;
        if (list_empty(&w->inquiry.link) && w->watch.state != WATCH_RESOLVING) {
                w->inquiry.of_user = true;
                w->inquiry.uid = w->watch.asker->uid;
                inquiry_begin(w->s, &w->inquiry);
        }
        list_append(&w->peer->unasked, &w->attaching);
        ask_more(w->peer);
}

void fanotify_take_unanswered(struct fanotify *s) {
        for (size_t n = 0; n < UNANSWERED_A_TURN && !list_empty(&s->unanswered); n++) {
                struct fan_watch *w = list_entry(s->unanswered.next, struct fan_watch, attaching);

                list_remove(&w->attaching);
                on_absent(w, EAGAIN);
        }
        if (!list_empty(&s->unanswered))
                mux_defer(s->mux, &s->tidy);
}

void fanotify_check_watch(struct fanotify *s _unused_, struct file_watch *watch) {
        struct fan_watch *w = fan_watch_of(watch);

        if (w->watch.path)
                fan_watch_ask(w);
        else if (w->group->unmounted || w->view->is_lost) /* a descriptor leads nowhere else */
                fanotify_end_watch(w->s, watch, realtime_nsec() / NSEC_PER_USEC);
}

static void look_again(struct fan_watch *w, bool hung) {
        w->hangs &= !hung;
        if (!w->to_be_checked || w->hangs)
                return;
        w->to_be_checked = false;
        fanotify_check_watch(w->s, &w->watch);
}

static bool is_of(const struct fan_watch *w, uid_t uid) {
        return w->watch.asker->uid == uid;
}

void fanotify_look_again(struct fanotify *s, uid_t uid, bool hung) {
        list_for_each(entry, &s->groups)
                list_for_each(entry_of_view, &list_entry(entry, struct group, link)->views)
                        list_for_each(entry_of_watch, &list_entry(entry_of_view, struct view, link)->tree.watches) {
                                struct fan_watch *w = fan_watch_of(list_entry(entry_of_watch, struct file_watch, link));

                                if (is_of(w, uid))
                                        look_again(w, hung);
                        }
        list_for_each(entry, &s->peers) {
                struct peer *peer = list_entry(entry, struct peer, link);

                if (peer->identity.uid != uid)
                        continue;
                if (hung)
                        fan_wait_look_at_hung(peer);
                else
                        fan_wait_look_soon(peer);
        }
}

void fanotify_on_group(struct group *g, int error) {
        struct fanotify *s = g->s;

        while (!list_empty(&g->attaching)) {
                struct fan_watch *w = list_entry(g->attaching.next, struct fan_watch, attaching);

                list_remove(&w->attaching);
                if (error == 0)
                        fan_watch_ask(w);
                else {
                        set_group(w, NULL);
                        if (w->watch.state == WATCH_WAITING)
                                answered(w); /* again with the timer */
                        else
                                pass_on(w, error);
                }
        }
        if (error == 0)
                return;
        log_info("fanotify: a file system of the kind %s can't be watched: %s", g->name, strerror(error));
        g->failed = true;
        g->ready = false;
        list_for_each(entry, &g->due) {
                struct due *due = list_entry(entry, struct due, link);

                /* One in force is as good as before, and is seen to below. */
                if (due->fn == on_due && !container_of(due, struct fan_watch, due)->view) {
                        list_remove(&due->link);
                        on_due(due);
                }
        }
        /* What it has served is begun anew, with another. */
        list_for_each(entry, &g->views) {
                struct view *v = list_entry(entry, struct view, link);

                while (!list_empty(&v->tree.watches)) {
                        struct fan_watch *w =
                                fan_watch_of(list_entry(v->tree.watches.next, struct file_watch, link));

                        stop_asking(w);
                        leave(w);
                        set_group(w, NULL);
                        if (!w->watch.path) { /* its descriptor is not kept: there is no way back to it */
                                fanotify_end_watch(s, &w->watch, realtime_nsec() / NSEC_PER_USEC);
                                continue;
                        }
                        tree_tell_self(&w->watch, KEV_NOTE_DEGRADED);
                        w->returning = true;
                        fan_wait_begin(w);
                        fan_watch_ask(w);
                }
        }
        mux_defer(s->mux, &s->tidy);
}

/* ---- attach ------------------------------------------------------------------------------------------- */

static void free_watch(struct fan_watch *w) {
        if (!w)
                return;
        close_elsewhere(w->s->source.context->workers, w->watch.asker->uid, take_fd(&w->fd));
        buffer_free(&w->answer);
        free(w->watch.path);
        free(w);
}

struct fan_watch *fan_watch_new(struct fanotify *s, struct subscription *subscription, const struct subject *subject,
                                struct refusal *refusal) {
        struct fan_watch *w = calloc(1, sizeof(*w));
        int r = 0;

        if (!w) {
                (void)refuse(refusal, ENOMEM, "no memory");
                return NULL;
        }
        w->s = s;
        w->fd = -1;
        w->due.fn = on_due;
        w->list = subject->list;
        w->was_listed = subject->listed;
        w->exclude_self = subject->exclude_self;
        w->watch.subscription = subscription;
        w->watch.filter = KEV_FILTER_TREE;
        w->watch.state = WATCH_RESOLVING;
        w->watch.asker = subject->asker;
        list_init(&w->watch.link);
        list_init(&w->due.link);
        list_init(&w->inquiry.link);
        list_init(&w->attaching);
        list_init(&w->waiting);
        list_init(&w->held);
        list_init(&w->holding);
        list_init(&w->doubtful);
        list_init(&w->restoring);
        if (subject->fd >= 0 && workers_are_full_of_fds(s->source.context->workers, subject->asker->uid))
                r = -EDQUOT;
        else if (subject->fd >= 0) {
                w->fd = fcntl(subject->fd, F_DUPFD_CLOEXEC, 3);
                if (w->fd < 0)
                        r = -errno;
        } else {
                w->watch.path = strdup(subject->path);
                if (!w->watch.path)
                        r = -ENOMEM;
                w->watch.waits_first = subject->waits;
        }
        if (r == 0)
                w->peer = peer_get(s, subject->asker, &r);
        if (!w->peer) {
                free_watch(w);
                (void)refuse(refusal, -r, "%s: %s", subject->fd >= 0 ? "descriptor" : "path", strerror(-r));
                return NULL;
        }
        subscription->object = &w->watch;
        s->n_watches++;
        return w;
}

int fanotify_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                           struct refusal *refusal) {
        struct fan_watch *w;
        int r = check_mounts(subject, refusal);

        if (r < 0)
                return r;
        w = fan_watch_new(container_of(source, struct fanotify, source), subscription, subject, refusal);
        if (!w)
                return -refusal->error;
        fan_watch_ask(w);
        return 1;
}

int fanotify_modify(struct source *source _unused_, struct subscription *subscription,
                           const struct subject *subject, struct refusal *refusal) {
        struct file_watch *watch = subscription->object;
        struct fan_watch *w = fan_watch_of(watch);

        if (subject->list && !w->list)
                return refuse_later(refusal, "tree.list");
        if (subject->cross_mounts)
                return refuse_later(refusal, "tree.crossMounts");
        if (watch->crowd)
                crowd_before(watch, NULL); /* by what it has asked for so far */
        if (w->exclude_self != subject->exclude_self && watch->dir) {
                crowd_catch_up(watch);
                crowd_leave(watch);
                w->exclude_self = subject->exclude_self;
                crowd_enter(&w->s->crowds, watch);
        }
        w->exclude_self = subject->exclude_self;
        if (w->view)
                w->view->n_who -= w->wants_who;
        w->wants_who = subject->notes & KEV_NOTE_WHO;
        if (w->view)
                w->view->n_who += w->wants_who;
        return 0;
}

void fanotify_select(struct source *source _unused_, struct subscription *subscription) {
        struct file_watch *watch = subscription->object;

        if (watch->state == WATCH_IN_FORCE) /* what was left out so far was not told */
                tree_tell_self(watch, KEV_NOTE_RESCAN);
}

void fanotify_detach(struct source *source, struct subscription *subscription) {
        struct fanotify *s = container_of(source, struct fanotify, source);
        struct fan_watch *w = fan_watch_of(take_pointer(&subscription->object));

        (void)fan_watch_end_restoring(w);
        stop_asking(w);
        leave(w);
        set_group(w, NULL);
        fan_wait_end(w);
        peer_put(s, w->peer);
        s->n_watches--;
        free_watch(w);
        mux_defer(s->mux, &s->tidy);
}
