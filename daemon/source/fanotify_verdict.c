/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Whether a peer sees what happens in a directory: if it could have put an inotify watch there, search on all above,
 * read on the directory itself. Its stand-in tries just that, so the kernel decides, ACLs and all.
 *
 * A verdict is kept with the directory's place, and holds until an event says that the attributes or the place of the
 * directory, or of one above it, have changed. It is about the moment in which the stand-in looked, and the event is
 * older: if one of those was changed in between, the verdict says nothing about the event. The events of all changes
 * that the stand-in saw are in the queue when it answers: it waits for that (helper.c). Where it is refused it can't,
 * so that the surveyor, to whom nothing is, goes the same way after it.
 */

#include <errno.h>
#include <string.h>

#include "fanotify_verdict.h"

enum {
        ASKED_MAX = 1024, /* verdicts of a peer under way */
};

/* What is asked for a verdict. */
struct look {
        uint64_t mount;
        struct handle handle;
        char path[];
};

void verdict_unref(struct verdict *v) {
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
        verdict_unref(v);
}

void verdicts_forget(struct place *place) {
        while (!list_empty(&place->verdicts))
                detach(list_entry(place->verdicts.next, struct verdict, link));
}

void verdicts_forget_of(struct peer *peer) {
        while (!list_empty(&peer->verdicts))
                detach(list_entry(peer->verdicts.next, struct verdict, of_peer));
}

bool verdict_hides(const struct verdict *v) {
        return v->state == VERDICT_DENIED || v->state == VERDICT_NONE || (v->was_denied && v->seen_at == 0);
}

static void keep(const struct verdict *v) {
        if (verdict_hides(v))
                peer_hide(v->peer, v->place->view->mount, place_handle(v->place));
}

void verdicts_keep(const struct place *place) {
        list_for_each(entry, &place->verdicts)
                keep(list_entry(entry, const struct verdict, link));
}

void verdicts_keep_of(struct peer *peer) {
        list_for_each(entry, &peer->verdicts)
                keep(list_entry(entry, const struct verdict, of_peer));
}

/* What waits for it will not be told, and it is not kept itself. */
static void pass_on(const struct verdict *v) {
        struct handle_ref handle = handle_refer(&v->look->handle);
        struct view *view = view_find(v->group, v->look->mount);
        struct place *place = view ? place_find(view, handle) : NULL;

        if (place)
                list_for_each(entry, &place->verdicts) {
                        struct verdict *next = list_entry(entry, struct verdict, link);

                        if (next->peer != v->peer)
                                continue;
                        next->was_denied = true;
                        next->seen_at = 0;
                        return;
                }
        peer_hide(v->peer, v->look->mount, handle);
}

static void finish(struct verdict *v, enum verdict_state state) {
        struct fanotify *s = v->peer->s;

        group_read(v->group); /* what was changed before the answer */
        v->state = v->group->drained ? state : VERDICT_NONE;
        v->answered_at = v->group->n_read;
        if (!v->place && state == VERDICT_DENIED)
                pass_on(v);
        free(take_pointer(&v->look));
        mux_defer(s->mux, &v->group->go_on);
        inquiry_end(s, &v->inquiry);
        access_let_go(s);
}

static struct look *look_new(const struct dir *dir) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        const struct view *view = dir->place->view;
        struct look *look;
        size_t size;

        if (view->mount_point[1])
                buffer_put(&path, view->mount_point, strlen(view->mount_point));
        if (dir->parent || path.size == 0)
                tree_path(dir, &path);
        else
                buffer_put(&path, "", 1);
        if (path.error || path.size >= QUESTION_PATH_MAX)
                return NULL;
        size = strlen(path.data) + 1;
        look = malloc(sizeof(*look) + size);
        if (!look)
                return NULL;
        look->mount = view->mount;
        handle_copy(&look->handle, place_handle(dir->place));
        memcpy(look->path, path.data, size);
        return look;
}

static bool put(struct verdict *v, struct helper *helper, answer_fn *fn) {
        const struct view *view = view_find(v->group, v->look->mount);
        struct question question;

        if (!view)
                return false;
        question = view_question(view, QUESTION_ACCESS, handle_refer(&v->look->handle));
        v->asked = helper_ask(helper, &question, v->look->path, -1, fn, v);
        if (!v->asked)
                return false;
        v->peer->n_asked++;
        peer_is_asked(v->peer);
        return true;
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

static bool ask(struct verdict *v, const struct dir *dir) {
        const struct group *g = v->group;

        v->asked_at = g->n_read;
        /* It is asked by a path of before the moves that are read and not handled yet: there may be another directory by
         * now, of which the answer is. */
        for (const struct dir *d = dir; d; d = d->parent) {
                const struct pending_move *m = d->place ? group_next_move(g, place_handle(d->place)) : NULL;

                if (m && m->number <= v->asked_at)
                        v->asked_at = m->number - 1;
        }
        v->look = look_new(dir);
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
        v->inquiry.uid = peer->identity.uid;
        inquiry_begin(peer->s, &v->inquiry);
        list_append(&dir->place->verdicts, &v->link);
        if (!peer_is_there(peer) || peer->n_asked >= ASKED_MAX || !ask(v, dir)) {
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

struct verdict *verdict_get(struct peer *peer, const struct dir *dir) {
        uint64_t mount = dir->place->view->mount;
        struct handle_ref handle = place_handle(dir->place);
        bool was_denied = peer->hidden_any;
        struct verdict *v;

        list_for_each(entry, &dir->place->verdicts) {
                size_t n = 0;
                bool holds;

                v = list_entry(entry, struct verdict, link);
                holds = v->state != VERDICT_NONE && !v->expired && !has_expired(v, dir->place->view);

                if (v->peer != peer)
                        continue;
                for (const struct dir *d = dir; holds && d; d = d->parent, n++)
                        holds = n < v->n_chain && d->place && d->place->node.hash == v->chain[n] &&
                                d->place->changed <= v->asked_at;
                if (holds && n == v->n_chain)
                        return v;
                was_denied = verdict_hides(v);
                detach(v);
                break;
        }
        was_denied |= peer_take_hidden(peer, mount, handle);
        v = new_verdict(peer, dir, was_denied);
        if (!v) /* what it would be asked for is not told */
                peer_hide(peer, mount, handle);
        return v;
}

bool verdict_is_certain(const struct verdict *v, uint64_t number) {
        if (v->state == VERDICT_NONE)
                return false;
        /* What was merged into it may be younger: what was denied may be allowed by then. */
        for (size_t i = 0; (v->answered_at >= number || v->state == VERDICT_DENIED) && i < v->n_chain; i++)
                if (group_has_changed(v->group, number, v->chain[i]))
                        return false;
        return true;
}

void verdicts_expire(struct view *v) {
        hash_for_each(node, &v->places)
                list_for_each(entry, &container_of(node, struct place, node)->verdicts)
                        list_entry(entry, struct verdict, link)->expired = true;
}
