/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How listings (listing.h) are made on inotify: by a lookup, whose answer is handled once all is that was queued as it
 * came. So an entry that had an event meanwhile is as the last such event says.
 */

#include "inotify_tree.h"

#include <errno.h>

static struct inotify *source_of(const struct lister *lister) {
        return container_of(lister, struct inotify, lister);
}

/* A directory that has not been crawled yet is on that of the one above, or is not to be listed. */
static uint32_t mount_of(const struct dir *dir) {
        while (dir && dir->mount == 0)
                dir = dir->parent;
        return dir ? dir->mount : 0;
}

static int ask(struct lister *lister, struct listing *l) {
        struct inotify *s = source_of(lister);
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        struct lookup *lookup;
        int r;

        tree_path(l->dir, &path);
        lookup = path.error ? NULL : lookup_new(LOOKUP_LIST, path.data);
        if (!lookup)
                return -ENOMEM;
        lookup->only_mount = mount_of(l->dir);
        lookup->listing = l;
        r = submit(s, lookup, tree_user_of(l->dir), l->dir, NULL);
        if (r < 0) {
                lookup_free(lookup);
                return r;
        }
        l->asked = lookup;
        return 0;
}

static void forget(struct listing *l) {
        struct lookup *lookup = take_pointer(&l->asked);

        if (!lookup)
                return;
        lookup->listing = NULL;
        atomic_store(&lookup->cancelled, true);
}

/* Events are handled in their order, and the answer after all that may be older than it. */
static bool is_older(const struct lister *lister _unused_, const struct listing *l _unused_) {
        return false;
}

static int find(struct lister *lister, struct dir *dir, const char *name, struct handle_ref handle _unused_,
                struct dir **ret_dir) {
        *ret_dir = tree_child(lister->tree, dir, name);
        return 0;
}

static void doubt(struct lister *lister, const char *why _unused_) {
        inotify_doubt(source_of(lister));
}

const struct lister_class inotify_lister = {
        .ask = ask,
        .forget = forget,
        .is_older = is_older,
        .find = find,
        .doubt = doubt,
};

void list_on_listed(struct lookup *lookup) {
        struct listing *l = take_pointer(&lookup->listing);
        int error = lookup->error;

        if (!l)
                return;
        l->asked = NULL;
        if (tree_has_moved(l->dir, lookup)) {
                listing_ask_again(l);
                return;
        }
        buffer_free(&l->entries);
        l->entries = lookup->entries;
        lookup->entries = BUFFER_INIT;
        /* Nobody can look into it, or it is another by now, and events will say so. */
        if (file_is_absent(error) || error == EXDEV || error == EACCES || error == EPERM)
                error = ENOENT;
        listing_on_answer(l, error);
}

void list_doubt(struct inotify *s) {
        list_for_each(entry, &s->lister.listings) {
                struct listing *l = list_entry(entry, struct listing, link);

                if (l->state != LISTING_ASKED)
                        continue;
                forget(l);
                listing_ask_again(l);
        }
}

bool list_may_tell(struct tree *tree, struct file_watch *watch, const struct report *report) {
        struct lister *lister = &container_of(tree, struct inotify, tree)->lister;
        const struct dir *where = tree->where, *from_where = report->from_below.bytes ? tree->from_where : NULL;
        bool hidden, from_hidden;

        if (lister->telling && !job_is_for(lister->telling, watch))
                return false;
        if (list_empty(&lister->listings) || !where || report->notes & (KEV_NOTE_RESCAN | KEV_NOTE_DEGRADED))
                return true;
        hidden = listing_hides(lister, where, watch);
        from_hidden = from_where && listing_hides(lister, from_where, watch);
        if (!hidden && !from_hidden)
                return true;
        if (!hidden || (from_where && !from_hidden))
                tree_tell_seen(watch, report, !hidden, !from_hidden, false);
        return false;
}

bool list_may_tell_all(struct tree *tree, struct file_watch *one _unused_, const struct report *report, bool *ret_all,
                       pid_t *ret_except) {
        const struct lister *lister = &container_of(tree, struct inotify, tree)->lister;

        *ret_all = true;
        *ret_except = 0;
        return !lister->telling && !listing_is_near(lister, tree->where) &&
               !(report->from_below.bytes && listing_is_near(lister, tree->from_where));
}
