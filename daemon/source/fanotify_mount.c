/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What mounts that come and go mean for fanotify, which tells nothing of them: what was seen in a tree may be out of
 * sight, a watch's path may lead elsewhere, and a mark ends with its file system.
 */

#include <string.h>

#include "fanotify_verdict.h"

static bool is_at_or_below(const char *path, const char *above) {
        size_t size = strlen(above);

        while (size > 0 && above[size - 1] == '/')
                size--;
        return strncmp(path, above, size) == 0 && (path[size] == 0 || path[size] == '/');
}

/* Whether the watched directory is at that place or below it. */
static bool is_watched_at(const struct view *v, const struct file_watch *watch, const char *path) {
        struct buffer at _cleanup_(buffer_free) = BUFFER_INIT;

        buffer_put(&at, v->mount_point, v->mount_point[1] ? strlen(v->mount_point) : 0);
        tree_path(watch->dir, &at);
        return at.error || is_at_or_below(at.data, path);
}

/* In a tree something else is to be seen at that place, and below it. */
static void on_mounted_within(struct view *v, const char *path) {
        const char *below = path + (v->mount_point[1] ? strlen(v->mount_point) : 0);
        const char *name = strrchr(path, '/') + 1;
        struct dir *dir, *parent;

        parent = tree_find_path(&v->tree, below, MAX(name, below) > below ? (size_t)(name - below) : 0);
        dir = tree_find_path(&v->tree, below, strlen(below));
        v->generation++;
        v->pid = 0;
        v->tree.process = NULL;
        v->tree.n_merged = 1;
        if (dir && dir->n_watches == 0)
                fan_tree_drop(v, dir, realtime_nsec() / NSEC_PER_USEC);
        if (parent) {
                tree_report_entry(&v->tree, parent, name, KEV_NOTE_RESCAN, KEV_KIND_DIRECTORY,
                                  realtime_nsec() / NSEC_PER_USEC, NULL);
                return;
        }
        /* The directories between are not known: those who watch above are told at the path as it is. */
        list_for_each(entry, &v->tree.watches) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);
                struct buffer at _cleanup_(buffer_free) = BUFFER_INIT;
                const char *rest;

                tree_path(watch->dir, &at);
                if (at.error || !is_at_or_below(below, at.data) || watch->state != WATCH_IN_FORCE)
                        continue;
                rest = below + (at.size > 1 ? at.size : 0);
                rest += strspn(rest, "/");
                if (!access_may_tell_unknown(v, watch)) /* the watch as a whole says nothing */
                        rest = "";
                tree_tell_rescan(watch, rest, strlen(rest));
        }
}

static void on_mount_changed(struct mounts *mounts, const char *path) {
        struct fanotify *s = container_of(mounts, struct fanotify, mounts);

        list_for_each(entry, &s->groups) {
                struct group *g = list_entry(entry, struct group, link);

                list_for_each(entry_of_view, &g->views) {
                        struct view *v = list_entry(entry_of_view, struct view, link);

                        list_for_each(entry_of_watch, &v->tree.watches) {
                                struct file_watch *watch = list_entry(entry_of_watch, struct file_watch, link);

                                fan_watch_of(watch)->to_be_checked |= is_watched_at(v, watch, path);
                        }
                        if (is_at_or_below(path, v->mount_point) && strcmp(path, v->mount_point) != 0)
                                on_mounted_within(v, path);
                }
        }
}

/* The file system may have others, which go on. */
static void find_mount(struct view *v, const struct mounts *mounts) {
        bool was_lost = v->is_lost;

        v->is_lost = !mounts_show(mounts, v->mount);
        if (was_lost && !v->is_lost) /* what could not be looked up was not told */
                fan_tree_rescan_all(v);
}

static void on_mounts_done(struct mounts *mounts) {
        struct fanotify *s = container_of(mounts, struct fanotify, mounts);

        list_for_each(entry, &s->groups) {
                struct group *g = list_entry(entry, struct group, link);

                /* With the last mount that was there before its mark is gone, even if the same is mounted again, and has
                 * the same number. */
                g->unmounted |= g->ready && (!mounts_has_lasting(mounts, g->device) || !group_has_mark(g->fd));
                list_for_each(entry_of_view, &g->views) {
                        struct view *v = list_entry(entry_of_view, struct view, link);

                        find_mount(v, mounts);
                        verdicts_expire(v);
                        list_for_each(entry_of_watch, &v->tree.watches) {
                                struct file_watch *watch = list_entry(entry_of_watch, struct file_watch, link);

                                if (fan_watch_of(watch)->to_be_checked || g->unmounted || v->is_lost)
                                        fanotify_check_watch(s, watch);
                                fan_watch_of(watch)->to_be_checked = false;
                        }
                }
        }
        list_for_each(entry, &s->peers)
                fan_wait_look_at_hung(list_entry(entry, struct peer, link));
}

static void on_mounts_doubt(struct mounts *mounts) {
        struct fanotify *s = container_of(mounts, struct fanotify, mounts);

        list_for_each(entry, &s->groups)
                group_doubt(list_entry(entry, struct group, link), "mounts were not read");
}

void fanotify_follow_mounts(struct fanotify *s) {
        s->mounts.changed = on_mount_changed;
        s->mounts.done = on_mounts_done;
        s->mounts.doubt = on_mounts_doubt;
        mounts_open(&s->mounts, s->mux);
}
