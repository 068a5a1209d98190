/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Marks, the kernel's watches of inodes; and wds that are by themselves. */

#include "inotify.h"

#include <sys/inotify.h>

enum {
        MARKS_LATE_MAX = 1024,
        ORPHANS_A_TURN = 256, /* each leaves an event in the kernel's queue */
};

/* A wd by itself. */
struct lone_wd {
        struct hash_node node;
        int wd;
};

struct mark *mark_find(const struct inotify *s, int wd) {
        struct hash_node *n = hash_first(&s->marks, hash_u64((uint64_t)wd));

        while (n && container_of(n, struct mark, node)->wd != wd)
                n = hash_next(n);
        return n ? container_of(n, struct mark, node) : NULL;
}

struct mark *mark_get(struct inotify *s, int wd) {
        struct mark *mark = mark_find(s, wd);

        if (mark)
                return mark;
        mark = calloc(1, sizeof(*mark));
        if (!mark)
                return NULL;
        mark->wd = wd;
        mark->is_fresh = true;
        list_init(&mark->waiters);
        if (hash_add(&s->marks, &mark->node, hash_u64((uint64_t)wd)) < 0) {
                free(mark);
                return NULL;
        }
        return mark;
}

struct mark *mark_of_answer(struct inotify *s, const struct lookup_message *message) {
        struct mark *mark = mark_find(s, message->wd);

        if (!mark) {
                mark = mark_get(s, message->wd);
                if (mark)
                        mark->awaits_first = message->is_second;
        } else if (!message->is_second)
                mark->awaits_first = false;
        return mark;
}

void mark_free(struct inotify *s, struct mark *mark) {
        moves_forget(s, mark);
        mark->dying = true;
        if (mark->is_ghost) {
                s->n_ghosts--;
                list_remove(&mark->ghost);
        }
        hash_remove(&s->marks, &mark->node);
        mark->node.next = s->dead_marks;
        s->dead_marks = &mark->node;
}

void marks_bury(struct inotify *s) {
        while (s->dead_marks) {
                struct mark *mark = container_of(s->dead_marks, struct mark, node);

                s->dead_marks = mark->node.next;
                free(mark);
        }
}

void mark_make_ghost(struct inotify *s, struct mark *mark) {
        mark->dying = true;
        if (list_empty(&s->lookups)) {
                mark_free(s, mark);
                return;
        }
        if (mark->is_ghost)
                return;
        mark->is_ghost = true;
        mark->order = s->order;
        list_append(&s->ghosts, &mark->ghost);
        s->n_ghosts++;
}

void marks_lay_ghosts(struct inotify *s) {
        const struct lookup *first = list_empty(&s->lookups) ? NULL : list_entry(s->lookups.next, struct lookup, link);

        while (!list_empty(&s->ghosts)) {
                struct mark *mark = list_entry(s->ghosts.next, struct mark, ghost);

                if (first && first->order <= mark->order)
                        break;
                mark_free(s, mark);
        }
}

static bool is_used(const struct mark *mark) {
        return mark->dirs || mark->vnode || !list_empty(&mark->waiters);
}

void mark_release(struct inotify *s, struct mark *mark) {
        if (is_used(mark) || mark->dying)
                return;
        if (inotify_rm_watch(s->fd, mark->wd) < 0)
                mark_make_ghost(s, mark);
        else
                mark->dying = true;
}

static struct lone_wd *find_lone(const struct hash *table, int wd) {
        struct hash_node *n = table->n_nodes > 0 ? hash_first(table, hash_u64((uint64_t)wd)) : NULL;

        while (n && container_of(n, struct lone_wd, node)->wd != wd)
                n = hash_next(n);
        return n ? container_of(n, struct lone_wd, node) : NULL;
}

/* False: no memory. */
static bool add_lone(struct hash *table, int wd) {
        struct lone_wd *lone;

        if (find_lone(table, wd))
                return true;
        lone = calloc(1, sizeof(*lone));
        if (!lone)
                return false;
        lone->wd = wd;
        if (hash_add(table, &lone->node, hash_u64((uint64_t)wd)) == 0)
                return true;
        free(lone);
        return false;
}

static void forget_lone(struct hash *table) {
        if (table->n_nodes == 0)
                return;
        hash_for_each(node, table)
                free(container_of(node, struct lone_wd, node));
        hash_free(table);
}

void mark_orphan(struct inotify *s, int wd) {
        struct mark *mark = mark_find(s, wd);

        if (!mark || (!is_used(mark) && !mark->dying))
                (void)add_lone(&s->orphans, wd);
}

void marks_remove_orphans(struct inotify *s) {
        unsigned budget = ORPHANS_A_TURN;

        if (s->orphans.n_nodes == 0 || !list_empty(&s->lookups))
                return;
        hash_for_each(node, &s->orphans) {
                struct lone_wd *lone = container_of(node, struct lone_wd, node);
                struct mark *mark = mark_find(s, lone->wd);

                if (budget-- == 0) {
                        mux_defer(s->mux, &s->empty_trash);
                        return;
                }
                if (mark)
                        mark_release(s, mark);
                else
                        (void)inotify_rm_watch(s->fd, lone->wd);
                hash_remove(&s->orphans, node);
                free(lone);
        }
}

bool mark_is_late(const struct inotify *s, int wd) {
        return find_lone(&s->late, wd) != NULL;
}

bool mark_was_late(struct inotify *s, int wd) {
        struct lone_wd *late = find_lone(&s->late, wd);

        if (!late)
                return false;
        hash_remove(&s->late, &late->node);
        free(late);
        return true;
}

void mark_pass_over(struct inotify *s, int wd) {
        if (s->late.n_nodes >= MARKS_LATE_MAX || !add_lone(&s->late, wd))
                inotify_doubt(s);
}

void marks_forget_late(struct inotify *s) {
        forget_lone(&s->late);
}

void marks_free(struct inotify *s) {
        hash_for_each(node, &s->marks)
                mark_free(s, container_of(node, struct mark, node));
        marks_bury(s);
        forget_lone(&s->late);
        forget_lone(&s->orphans);
}
