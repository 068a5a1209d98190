/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which directories are wanted: those that a watch of them or of a directory above covers, by its globs and depth. */

#include "tree_report.h"

#include <string.h>

void climb_begin(struct climb *c, char *buffer, const char *name) {
        size_t size = strlen(name);

        c->buffer = buffer;
        c->start = SCRATCH_BYTES - 1 - size;
        memcpy(buffer + c->start, name, size + 1);
}

bool climb_up(struct climb *c, const char *name) {
        size_t size = strlen(name);
        bool separate = c->start < SCRATCH_BYTES - 1;

        if (c->start < size + 1)
                return false;
        if (separate)
                c->buffer[--c->start] = '/';
        c->start -= size;
        memcpy(c->buffer + c->start, name, size);
        return true;
}

struct event_path climb_path(const struct climb *c) {
        return (struct event_path){ c->buffer + c->start, SCRATCH_BYTES - 1 - c->start };
}

static bool is_at_work(const struct file_watch *watch) {
        return watch->state == WATCH_STARTING || watch->state == WATCH_IN_FORCE;
}

bool tree_is_watched_below(const struct dir *dir, const struct dir *stop) {
        uint32_t mount = 0;

        for (; dir && dir != stop && !tree_leaves_mount(dir, &mount); dir = dir->parent)
                list_for_each(entry, &dir->subscriptions)
                        if (is_at_work(list_entry(entry, struct subscription, link)->object))
                                return true;
        return false;
}

bool tree_wants(struct tree *tree, const struct dir *dir, const char *name) {
        struct climb below;
        uint32_t mount = 0;

        climb_begin(&below, tree->scratch, name);
        for (const struct dir *d = dir; d && !tree_leaves_mount(d, &mount); d = d->parent) {
                list_for_each(entry, &d->subscriptions) {
                        struct subscription *subscription = list_entry(entry, struct subscription, link);

                        if (is_at_work(subscription->object) &&
                            (!subscription->selective ||
                             subscription->source->context->sink->descends(subscription, climb_path(&below))))
                                return true;
                }
                if (!climb_up(&below, d->name))
                        return tree_is_watched_below(d->parent, NULL);
        }
        return false;
}

bool tree_wants_all(const struct dir *dir) {
        uint32_t mount = 0;

        for (; dir && !tree_leaves_mount(dir, &mount); dir = dir->parent)
                list_for_each(entry, &dir->subscriptions) {
                        struct subscription *subscription = list_entry(entry, struct subscription, link);

                        if (is_at_work(subscription->object) && !subscription->selective)
                                return true;
                }
        return false;
}

bool tree_wants_alike(struct tree *tree, const struct dir *from, const char *from_name, const struct dir *to,
                      const char *to_name, const struct dir *common) {
        struct climb below, from_below;
        uint32_t mount = 0;

        climb_begin(&below, tree->scratch, to_name);
        climb_begin(&from_below, tree->from_scratch, from_name);
        for (const struct dir *d = to; d != common; d = d->parent)
                if (!climb_up(&below, d->name))
                        return false;
        for (const struct dir *d = from; d != common; d = d->parent)
                if (!climb_up(&from_below, d->name))
                        return false;
        for (const struct dir *d = common; d && !tree_leaves_mount(d, &mount); d = d->parent) {
                list_for_each(entry, &d->subscriptions) {
                        struct subscription *subscription = list_entry(entry, struct subscription, link);

                        if (is_at_work(subscription->object) && subscription->selective &&
                            !subscription->source->context->sink->sees_alike(subscription, climb_path(&from_below),
                                                                 climb_path(&below)))
                                return false;
                }
                if (!climb_up(&below, d->name) || !climb_up(&from_below, d->name))
                        return false;
        }
        return true;
}
