/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Names of which the events may say too little. The kernel merges an event into one
 * that is still queued if both are about the same object under the same name, by the
 * same process: what happened in between comes up behind it, in the wrong order. So a
 * name that had two events while the queue was never empty, or a merged one that
 * made and removed it, is looked at when all is handled, and what it is not as told
 * is told. An event about it that comes meanwhile puts it in doubt anew.
 */

#include <errno.h>
#include <string.h>
#include <sys/fanotify.h>

#include "fanotify.h"

#ifndef FAN_RENAME
#define FAN_RENAME 0x10000000 /* Linux 5.17 */
#endif

enum {
        ASKED_MAX = 256, /* names of a group that are being looked at */
        NAMES_MAX = 256 * 1024,
};

struct name {
        struct hash_node node; /* in group->names */
        struct list order;
        struct due due;
        struct inquiry inquiry;
        struct group *group;
        struct handle dir;
        uint64_t object; /* hash of the handle that was told to have it last */
        bool exists;     /* as told */
        bool doubtful;
        bool touched;    /* had an event since it was asked */
        unsigned n;      /* events in the era */
        uint64_t era;
        struct asked *asked;
        struct buffer link;
        int error;
        char name[];
};

static uint64_t hash_of(struct handle_ref dir, const char *name) {
        return hash_bytes(name, strlen(name), handle_hash(dir));
}

static struct name *find(const struct group *g, struct handle_ref dir, const char *name) {
        if (g->names.n_nodes == 0)
                return NULL;
        for (struct hash_node *node = hash_first(&g->names, hash_of(dir, name)); node; node = hash_next(node)) {
                struct name *n = container_of(node, struct name, node);

                if (handle_ref_equal(handle_refer(&n->dir), dir) && strcmp(n->name, name) == 0)
                        return n;
        }
        return NULL;
}

static void on_due(struct due *due);

static struct name *get(struct group *g, struct handle_ref dir, const char *name) {
        struct name *n = find(g, dir, name);
        size_t size = strlen(name) + 1;

        if (n)
                return n;
        if (g->names.n_nodes >= NAMES_MAX) {
                names_forget_all(g);
                group_doubt(g, "more names than can be remembered");
        }
        n = calloc(1, sizeof(*n) + size);
        if (!n)
                return NULL;
        n->group = g;
        handle_copy(&n->dir, dir);
        memcpy(n->name, name, size);
        n->due.fn = on_due;
        n->era = g->era;
        list_init(&n->due.link);
        list_init(&n->inquiry.link);
        if (hash_add(&g->names, &n->node, hash_of(dir, name)) < 0) {
                free(n);
                return NULL;
        }
        list_append(&g->names_order, &n->order);
        return n;
}

static void free_name(struct name *n) {
        if (n->asked) {
                asked_forget(n->asked);
                n->group->n_names_asked--;
        }
        list_remove(&n->due.link);
        list_remove(&n->order);
        if (!list_empty(&n->inquiry.link))
                inquiry_end(n->group->s, &n->inquiry);
        hash_remove(&n->group->names, &n->node);
        buffer_free(&n->link);
        free(n);
}

static void on_told(struct group *g, struct handle_ref dir, const char *name, bool exists, struct handle_ref object,
                    bool both) {
        struct name *n = get(g, dir, name);

        if (!n) {
                group_doubt(g, "no memory for a name");
                return;
        }
        if (n->era != g->era)
                n->n = 0;
        n->era = g->era;
        n->n++;
        n->exists = exists;
        n->object = handle_hash(object);
        n->doubtful |= both || n->n > 1;
        n->touched = true;
}

enum told names_told(const struct group *g, struct handle_ref dir, const char *name, struct handle_ref object) {
        const struct name *n = find(g, dir, name);

        return !n ? TOLD_UNKNOWN : !n->exists ? TOLD_ABSENT : n->object == handle_hash(object) ? TOLD_THIS : TOLD_OTHER;
}

void names_on_corrected(struct group *g, struct handle_ref dir, const char *name, bool exists,
                        struct handle_ref object) {
        struct name *n = find(g, dir, name);

        if (!n)
                return;
        n->exists = exists;
        n->object = handle_hash(object);
}

void names_on_event(struct group *g, const struct event_info *e) {
        bool other;

        if (e->mask & FAN_RENAME) {
                other = names_told(g, e->dir, e->name, e->object) == TOLD_OTHER;
                if (!other)
                        on_told(g, e->dir, e->name, false, e->object, false);
                on_told(g, e->to_dir, e->to_name, true, e->object, false);
        } else if (e->mask & (FAN_CREATE | FAN_DELETE))
                on_told(g, e->dir, e->name, !(e->mask & FAN_DELETE), e->object,
                        (e->mask & FAN_CREATE) && (e->mask & FAN_DELETE));
}

/* ---- looking ------------------------------------------------------------------------------------------- */

static void on_answer(void *owner, const struct answer *answer, const char *bytes) {
        struct name *n = owner;

        if (answer->size > 0)
                buffer_put(&n->link, bytes, answer->size);
        if (answer->more)
                return;
        n->asked = NULL;
        n->group->n_names_asked--;
        n->error = n->link.error ? ENOMEM : answer->error;
        group_await(n->group, &n->due);
}

/* By a mount that is there. False: nobody would be told. */
static bool ask(struct name *n) {
        list_for_each(entry, &n->group->views) {
                struct view *v = list_entry(entry, struct view, link);
                const struct place *p = place_find(v, handle_refer(&n->dir));
                struct question question;

                if (!p || !p->dir || v->is_lost)
                        continue;
                question = view_question(v, QUESTION_NAME, handle_refer(&n->dir));
                memcpy(question.name, n->name, strlen(n->name) + 1);
                buffer_reset(&n->link);
                n->touched = false;
                n->asked = helper_ask(&n->group->surveyor, &question, NULL, -1, on_answer, n);
                if (n->asked)
                        n->group->n_names_asked++;
                else
                        group_doubt(n->group, "a name can't be asked for");
                return n->asked != NULL;
        }
        return false;
}

static void correct(struct view *v, struct name *n, const struct link_view *found, uint64_t now) {
        const struct place *p = place_find(v, handle_refer(&n->dir));
        struct dir *dir = p ? p->dir : NULL, *child;
        bool is_dir = found && found->kind == KEV_KIND_DIRECTORY, other;

        if (!dir)
                return;
        child = tree_child(&v->tree, dir, n->name);
        other = n->exists && found &&
                ((is_dir && found->handle.size > 0 && n->object != handle_hash(handle_refer(&found->handle))) ||
                 (!is_dir && child));
        v->tree.process = NULL;
        v->pid = 0;
        v->tree.n_merged = 1;
        if (n->exists && (!found || other)) {
                listing_on_name(&v->lister, dir, n->name, false, KEV_KIND_UNKNOWN, handle_refer(&n->dir));
                tree_report_entry(&v->tree, dir, n->name, KEV_NOTE_DELETE,
                                  child ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN, now, NULL);
                if (child)
                        fan_tree_drop(v, child, now);
        }
        if (!found || (n->exists && !other))
                return;
        listing_on_name(&v->lister, dir, n->name, true, found->kind, handle_refer(&found->handle));
        tree_report_entry(&v->tree, dir, n->name, KEV_NOTE_CREATE, found->kind, now, NULL);
        if (!is_dir || found->handle.size == 0 || !tree_is_watched_below(dir, NULL))
                return;
        p = place_find(v, handle_refer(&found->handle));
        if (p && p->dir && p->dir != tree_child(&v->tree, dir, n->name)) /* it is not where it was thought to be */
                fan_tree_take_away(v, p->dir, now);
        v->generation++;
        child = fan_tree_place(v, dir, n->name, handle_refer(&found->handle));
        if (child)
                job_start(&v->lister, child, NULL, NULL);
}

static void on_due(struct due *due) {
        struct name *n = container_of(due, struct name, due);
        struct group *g = n->group;
        const char *bytes = n->link.data;
        size_t size = n->link.size;
        struct link_view found;
        bool exists = n->error == 0 && link_take(&bytes, &size, &found);

        if (n->touched) { /* it is in doubt anew */
                n->doubtful = true;
                mux_defer(g->s->mux, &g->go_on);
                return;
        }
        if (n->error == 0 || n->error == ENOENT || n->error == ENOTDIR)
                list_for_each(entry, &g->views)
                        correct(list_entry(entry, struct view, link), n, exists ? &found : NULL,
                                realtime_nsec() / NSEC_PER_USEC);
        else if (n->error != ESTALE) /* else the directory is no more */
                group_doubt(g, strerror(n->error));
        free_name(n);
        mux_defer(g->s->mux, &g->go_on);
}

void names_settle(struct group *g) {
        g->era++;
        list_for_each(entry, &g->names_order) {
                struct name *n = list_entry(entry, struct name, order);

                if (n->doubtful && !n->asked && list_empty(&n->due.link)) {
                        list_remove(&n->order);
                        list_append(&g->names_doubtful, &n->order);
                        if (list_empty(&n->inquiry.link))
                                inquiry_begin(g->s, &n->inquiry);
                } else if (n->era + 1 < g->era && list_empty(&n->inquiry.link))
                        free_name(n);
        }
        while (g->n_names_asked < ASKED_MAX && !list_empty(&g->names_doubtful)) {
                struct name *n = list_entry(g->names_doubtful.next, struct name, order);

                n->doubtful = false;
                list_remove(&n->order);
                list_append(&g->names_order, &n->order);
                if (!ask(n))
                        free_name(n);
        }
}

void names_forget_all(struct group *g) {
        while (!list_empty(&g->names_order))
                free_name(list_entry(g->names_order.next, struct name, order));
        while (!list_empty(&g->names_doubtful))
                free_name(list_entry(g->names_doubtful.next, struct name, order));
        hash_free(&g->names);
}
