/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Two names that may have been exchanged (inotify_move.c): the first of them is there again then, which is asked, or told
 * by the next event of that name.
 */

#include "inotify_tree.h"

#include <string.h>

enum { QUESTIONS_BEFORE_MAX = 64 }; /* that are looked at; with more of them a path is taken to lead astray */

static void doubt(struct inotify *s, struct dir *dir) {
        if (tree_holds(s, dir) && tree_wants(&s->tree, dir, ""))
                tree_crawl(s, dir, PURPOSE_RECHECK, 0, 0, NULL);
}

/* What is taken for `moved` may be another: it is asked by itself, since it may have gone on from `to` by now. */
static void doubt_all(struct inotify *s, struct dir *from, struct dir *to, struct dir *moved) {
        doubt(s, from);
        if (to != from)
                doubt(s, to);
        doubt(s, moved);
}

static const char *name_of(const struct lookup *lookup) {
        return strrchr(lookup->path, '/') + 1;
}

static uint64_t hash_of(int wd, const char *name) {
        return hash_bytes(name, strlen(name), (uint64_t)wd);
}

/* `place`: before which it stands among the questions. Without memory to ask it is taken to be there. */
static void ask(struct inotify *s, struct dir *dir, const char *name, struct dir *other, struct dir *moved,
                struct list *place) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        int wd = dir->mark ? dir->mark->wd : -1;
        struct lookup *lookup;

        tree_path(dir, &path);
        if (path.size > 1)
                buffer_put_literal(&path, "/");
        buffer_put(&path, name, strlen(name) + 1);
        lookup = path.error ? NULL : lookup_new(LOOKUP_NAME, path.data);
        if (lookup && hash_add(&s->exchanges_by_name, &lookup->by_name, hash_of(wd, name)) == 0) {
                lookup->watched_wd = wd;
                if (submit(s, lookup, tree_user_of(dir), dir, other) == 0) {
                        list_append(place, &lookup->among);
                        lookup->moved = tree_ref(moved);
                        return;
                }
                hash_remove(&s->exchanges_by_name, &lookup->by_name);
        }
        lookup_free(lookup);
        doubt_all(s, dir, other, moved);
}

void exchange_settle(struct inotify *s, struct lookup *lookup) {
        list_remove(&lookup->among);
        hash_remove(&s->exchanges_by_name, &lookup->by_name);
}

/* A name that goes was there, and one that is made was not. What comes in its place is told as that; of the other name
 * it tells nothing. */
void exchange_on_entry(struct inotify *s, const struct mark *mark, uint32_t mask, const char *name) {
        struct hash_node *next;

        if (s->exchanges_by_name.n_nodes == 0 || !(mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)))
                return;
        for (struct hash_node *n = hash_first(&s->exchanges_by_name, hash_of(mark->wd, name)); n; n = next) {
                struct lookup *lookup = container_of(n, struct lookup, by_name);

                next = hash_next(n);
                if (lookup->watched_wd != mark->wd || strcmp(name_of(lookup), name) != 0)
                        continue;
                exchange_settle(s, lookup);
                if (mask & IN_CREATE)
                        continue;
                s->answering = lookup->serial; /* as if it were answered */
                doubt_all(s, mask & IN_MOVED_TO ? NULL : lookup->root, lookup->stop, lookup->moved);
                s->answering = 0;
        }
}

/* Whether its path may have led elsewhere: a directory on the way is in doubt itself. */
static bool is_astray(const struct inotify *s, const struct lookup *lookup, const struct dir *dir) {
        unsigned n = 0;

        list_for_each(entry, &s->exchanges) {
                const struct lookup *before = list_entry(entry, struct lookup, among);

                if (before == lookup)
                        break;
                if (n++ == QUESTIONS_BEFORE_MAX || (before->moved && tree_is_below(dir, before->moved)))
                        return true;
        }
        for (const struct dir *d = dir; d; d = d->parent)
                if (d->lookup)
                        return true;
        return false;
}

/* Something of that name is there: the two were exchanged, or it was made since. Where nothing is, they were not; but
 * only if nothing can have gone from there unseen. */
void exchange_on_name(struct inotify *s, struct lookup *lookup) {
        struct dir *dir = tree_root_of(s, lookup);

        if (list_empty(&lookup->among)) /* it was settled */
                return;
        if (!dir || !dir->mark || dir->mark->wd != lookup->watched_wd || is_astray(s, lookup, dir))
                doubt_all(s, dir, lookup->stop, lookup->moved);
        else if (tree_has_moved(dir, lookup))
                ask(s, dir, name_of(lookup), lookup->stop, lookup->moved, &lookup->among);
        else if (!file_is_absent(lookup->error))
                doubt_all(s, dir, lookup->stop, lookup->moved);
}

void exchange_on_move(struct inotify *s, struct dir *from, const char *from_name, struct dir *to, const char *to_name,
                      bool is_dir, uint64_t realtime_usec) {
        struct dir *moved = NULL;

        tree_on_move(s, from, from_name, to, to_name, is_dir, realtime_usec);
        /* The move itself may have taken one of them out of the tree. */
        to = tree_holds(s, to) ? to : NULL;
        if (to && is_dir)
                moved = tree_child(&s->tree, to, to_name);
        if (tree_holds(s, from))
                ask(s, from, from_name, to, moved, &s->exchanges);
        else
                doubt_all(s, NULL, to, moved);
}
