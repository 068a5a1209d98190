/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What mounts that come and go mean for inotify, which tells nothing of them but for the file system of a watched
 * directory that is unmounted: a directory that is mounted over goes on telling what nobody can see.
 */

#include <string.h>

#include "inotify_tree.h"

/* What leads to that place is not in the tree, or not watched: if it is being asked for, the answer may be from before. */
static void doubt_answer(struct inotify *s, const char *path, size_t size) {
        struct dir *dir = tree_find_path(&s->tree, path, size);

        while (!dir && size > 0) {
                while (size > 0 && path[size - 1] == '/')
                        size--;
                while (size > 0 && path[size - 1] != '/')
                        size--;
                dir = tree_find_path(&s->tree, path, size);
        }
        if (dir && dir->lookup)
                tree_crawl(s, dir, PURPOSE_RECHECK, 0, 0, NULL);
}

/* Something else is to be seen in this place than before. */
static void on_changed(struct mounts *mounts, const char *path) {
        struct inotify *s = container_of(mounts, struct inotify, mounts);
        const char *name = strrchr(path, '/') + 1;
        struct dir *parent = tree_find_path(&s->tree, path, (size_t)(name - path));
        struct dir *dir = tree_find_path(&s->tree, path, strlen(path));

        if (dir && dir->n_watches > 0)
                list_for_each(entry, &s->tree.watches) {
                        struct file_watch *watch = list_entry(entry, struct file_watch, link);

                        if (tree_is_below(watch->dir, dir))
                                tree_check_place(s, watch);
                }
        if (dir && !list_empty(&dir->subscriptions)) /* see tree_on_place() */
                return;
        if (*name == 0)
                return;
        if (!parent || !parent->mark) {
                doubt_answer(s, path, (size_t)(name - path));
                return;
        }
        if (!tree_wants(&s->tree, parent, name))
                return;
        dir = tree_make_child(&s->tree, parent, name);
        if (dir)
                tree_crawl(s, dir, PURPOSE_RECHECK, 0, 0, NULL);
        else
                inotify_doubt(s);
}

static void on_done(struct mounts *mounts) {
        wait_look_all(container_of(mounts, struct inotify, mounts));
}

static void on_doubt(struct mounts *mounts) {
        inotify_doubt(container_of(mounts, struct inotify, mounts));
}

void inotify_follow_mounts(struct inotify *s) {
        s->mounts.changed = on_changed;
        s->mounts.done = on_done;
        s->mounts.doubt = on_doubt;
        mounts_open(&s->mounts, s->mux);
}
