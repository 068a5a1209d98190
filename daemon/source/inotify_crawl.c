/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Crawls: asking what a directory and all below it are, and what the answers mean. */

#include "inotify_tree.h"

#include <errno.h>
#include <string.h>

#include "log.h"

enum {
        PATH_BYTES_MAX = 32 * 1024, /* of a directory that is watched; SCRATCH_BYTES has room for what is below */
        RETRY_MIN_MSEC = 500,
        RETRY_MAX_MSEC = 16000,
};

static bool give_index(struct lookup *lookup, struct dir *dir, uint32_t index) {
        if (index >= lookup->dirs_capacity) {
                size_t capacity = MAX((size_t)index + 1, lookup->dirs_capacity * 2);
                struct dir **dirs = realloc(lookup->dirs, capacity * sizeof(*dirs));

                if (!dirs)
                        return false;
                lookup->dirs = dirs;
                lookup->dirs_capacity = capacity;
        }
        while (lookup->n_dirs <= index)
                lookup->dirs[lookup->n_dirs++] = NULL;
        if (dir) {
                lookup->dirs[index] = dir;
                dir->lookup = lookup;
                dir->lookup_index = index;
        }
        return true;
}

static void report_degraded(struct inotify *s, struct dir *dir) {
        tree_report_entry(&s->tree, dir, "", KEV_NOTE_DEGRADED, KEV_KIND_DIRECTORY, realtime_nsec() / NSEC_PER_USEC, NULL);
}

static void on_retry_timer(struct mux_timer *timer);

static void set_retry_timer(struct inotify *s) {
        (void)mux_timer_set(s->mux, &s->retry_timer, monotonic_nsec() + s->retry_msec * NSEC_PER_MSEC, on_retry_timer);
}

/* Part of a watch can't be covered: it says so, and it is tried again. */
static void degrade(struct inotify *s, struct dir *dir, int error) {
        if (!list_empty(&dir->degraded))
                return;
        log_debug("inotify: a directory can't be watched: %s", strerror(error));
        report_degraded(s, dir);
        list_append(&s->degraded, &dir->degraded);
        if (s->retry_timer.heap_index == 0) {
                s->retry_msec = RETRY_MIN_MSEC;
                set_retry_timer(s);
        }
}

/* One is tried, since what one lacks the others lack as well: another limit of the same kernel is no reason to ask for
 * all of them over and over. */
static void retry(struct inotify *s) {
        struct dir *dir = list_entry(s->degraded.next, struct dir, degraded);

        list_remove(&dir->degraded);
        list_append(&s->degraded, &dir->degraded);
        if (tree_holds(s, dir) && !dir->lookup)
                tree_crawl(s, dir, PURPOSE_RECHECK, 0, 0, NULL);
}

static void on_retry_timer(struct mux_timer *timer) {
        struct inotify *s = container_of(timer, struct inotify, retry_timer);

        if (list_empty(&s->degraded))
                return;
        s->retry_msec = MIN(s->retry_msec * 2, (uint64_t)RETRY_MAX_MSEC);
        set_retry_timer(s);
        retry(s);
}

void tree_retry_soon(struct inotify *s) {
        if (list_empty(&s->degraded) || s->retry_msec == RETRY_MIN_MSEC)
                return;
        s->retry_msec = RETRY_MIN_MSEC;
        set_retry_timer(s);
}

/* All of it was looked at again: what is still not covered is said after `rescan`. */
static void report_rechecked(struct inotify *s, struct dir *above) {
        tree_report_rescan(&s->tree, above);
        list_for_each(entry, &s->degraded) {
                struct dir *dir = list_entry(entry, struct dir, degraded);

                if (tree_is_below(dir, above))
                        report_degraded(s, dir);
        }
}

bool tree_is_watched_by(const struct inotify *s, const struct dir *dir, const struct asker *asker) {
        for (const struct dir *d = dir; d; d = d->parent)
                list_for_each(entry, &d->subscriptions) {
                        const struct file_watch *watch = list_entry(entry, struct subscription, link)->object;

                        if (watch->asker == asker)
                                return true;
                }
        list_for_each(entry, &s->tree.watches) {
                const struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (watch->asker == asker && watch->dir && tree_is_below(watch->dir, dir))
                        return true;
        }
        return false;
}

uid_t tree_user_of(const struct dir *dir) {
        for (; dir; dir = dir->parent)
                if (!list_empty(&dir->subscriptions)) {
                        struct file_watch *watch =
                                list_entry(dir->subscriptions.next, struct subscription, link)->object;

                        return watch->asker->uid;
                }
        return 0;
}

/* Who waits for all up to that question waits for this, too. */
static void rely_on(struct inotify *s, struct lookup *lookup, uint64_t serial) {
        if (lookup->serial <= serial)
                return;
        list_remove(&lookup->among);
        lookup->serial = serial;
        tree_add_crawl(s, lookup);
}

void tree_crawl(struct inotify *s, struct dir *dir, enum lookup_purpose purpose, uint64_t serial, uid_t user,
                struct dir *stop) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        struct lookup *lookup;
        int r;

        if (dir->lookup) {
                dir->again_purpose = (uint8_t)MAX((int)purpose, dir->again ? dir->again_purpose : 0);
                dir->again = true;
                dir->lookup->doubted = true;
                if (s->answering)
                        rely_on(s, dir->lookup, s->answering);
                return;
        }
        tree_path(dir, &path);
        if (path.error || path.size > PATH_BYTES_MAX) {
                degrade(s, dir, path.error ? ENOMEM : ENAMETOOLONG);
                return;
        }
        lookup = lookup_new(LOOKUP_CRAWL, path.data);
        if (!lookup || !give_index(lookup, dir, 0)) {
                lookup_free(lookup);
                degrade(s, dir, ENOMEM);
                return;
        }
        lookup->mask = TREE_MASK;
        lookup->purpose = purpose;
        lookup->list_files = purpose == PURPOSE_NEW;
        lookup->shallow = !tree_wants_all(dir);
        if (list_empty(&dir->subscriptions) && dir->parent && dir->parent->mark)
                lookup->only_mount = dir->parent->mount;
        lookup->serial = serial;
        r = submit(s, lookup, serial || user ? user : tree_user_of(dir), dir, stop);
        if (r < 0) {
                dir->lookup = NULL;
                lookup_free(lookup);
                degrade(s, dir, -r);
        }
}

/* Watches that wait for this directory can't be. */
static bool refuse_starting(struct inotify *s, struct dir *dir, int error) {
        bool any = false;

        list_for_each(entry, &dir->subscriptions) {
                struct file_watch *watch = list_entry(entry, struct subscription, link)->object;

                if (watch->state != WATCH_STARTING)
                        continue;
                tree_leave(s, watch);
                any = true;
                watch_attached(s, watch, error, file_error_text(error));
        }
        return any;
}

void tree_tell_degraded(struct inotify *s, struct file_watch *watch) {
        list_for_each(entry, &s->degraded) {
                const struct dir *dir = list_entry(entry, struct dir, degraded);

                if (tree_is_below(dir, watch->dir))
                        tree_tell_below(&s->tree, watch, dir, KEV_NOTE_DEGRADED);
        }
}

static void on_place_timer(struct mux_timer *timer) {
        struct inotify *s = container_of(timer, struct inotify, place_timer);

        list_for_each(entry, &s->tree.watches) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (!watch->again || watch->lookup)
                        continue;
                watch->again = false;
                tree_check_place(s, watch);
        }
}

/* There is no other event that would lead to it. */
static void check_place_later(struct inotify *s, struct file_watch *watch) {
        watch->again = true;
        if (s->place_timer.heap_index == 0)
                (void)mux_timer_set(s->mux, &s->place_timer, monotonic_nsec() + RETRY_MIN_MSEC * NSEC_PER_MSEC,
                                    on_place_timer);
}

void tree_check_place(struct inotify *s, struct file_watch *watch) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;

        if (watch->state != WATCH_IN_FORCE && watch->state != WATCH_STARTING)
                return;
        if (watch->lookup || watch->state == WATCH_STARTING) {
                watch->again = true;
                return;
        }
        tree_path(watch->dir, &path);
        watch->lookup = path.error ? NULL : lookup_new(LOOKUP_PLACE, path.data);
        if (watch->lookup) {
                watch->lookup->watch = watch;
                if (submit(s, watch->lookup, watch->asker->uid, NULL, NULL) < 0)
                        watch->lookup = lookup_free(watch->lookup);
        }
        if (!watch->lookup)
                check_place_later(s, watch);
}

/* Those who watch a directory above: if that is not where it was, nothing can be found in it by its path. */
static void check_places(struct inotify *s, const struct dir *dir) {
        for (const struct dir *d = dir->parent; d; d = d->parent)
                list_for_each(entry, &d->subscriptions)
                        tree_check_place(s, list_entry(entry, struct subscription, link)->object);
}

void tree_on_place(struct inotify *s, struct lookup *lookup) {
        struct file_watch *watch = lookup->watch;
        struct dir *dir;
        bool again;

        if (!watch)
                return;
        watch->lookup = NULL;
        again = watch->again;
        watch->again = false;
        if (watch->state == WATCH_WAITING) {
                wait_look(s, watch);
                return;
        }
        dir = watch->dir;
        if (!dir)
                return;
        if (again) {
                tree_check_place(s, watch);
                return;
        }
        if (is_shortage(-lookup->error)) {
                check_place_later(s, watch);
                return;
        }
        if ((lookup->error && !file_is_absent(lookup->error)) ||
            (!lookup->error && lookup->state.device == watch->device && lookup->state.inode == watch->inode))
                return;
        tree_ref(dir);
        tree_end_watch(s, watch, realtime_nsec() / NSEC_PER_USEC);
        tree_release(s, dir);
        /* For those above: something else may have its place. */
        if (tree_holds(s, dir) && dir->parent && dir->parent->mark && tree_wants(&s->tree, dir->parent, dir->name))
                tree_crawl(s, dir, PURPOSE_RECHECK, 0, 0, NULL);
        tree_unref(&s->tree, dir);
}

static void on_unfound(struct inotify *s, struct lookup *lookup, struct dir *dir, int error) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;
        struct dir *parent = dir->parent;

        switch (error) {
        case ERROR_TOO_DEEP:
                tree_crawl(s, dir, lookup->purpose, lookup->serial, lookup->user, lookup->stop);
                return;
        case ENOENT:
        case ENOTDIR:
        case ELOOP:
                check_places(s, dir);
                tree_drop(s, dir, now); /* the parent's events tell */
                tree_prune(&s->tree, parent);
                return;
        case EXDEV: /* another file system is mounted there */
                if (!list_empty(&dir->subscriptions)) /* its watch is of what is mounted */
                        return;
                if (dir->mark || dir->first_child || (dir == lookup->root && !lookup->part))
                        tree_report_entry(&s->tree, dir, "", KEV_NOTE_RESCAN, KEV_KIND_DIRECTORY, now, NULL);
                tree_hide(s, dir, now);
                tree_prune(&s->tree, parent);
                return;
        case EACCES:  /* nobody who asked may look into it */
        case EPERM:
                if (dir == lookup->root)
                        (void)refuse_starting(s, dir, error);
                if (parent && list_empty(&dir->subscriptions) && !dir->first_child && !dir->mark) {
                        tree_throw_away(s, dir);
                        tree_prune(&s->tree, parent);
                }
                return;
        default:
                if (dir != lookup->root || !refuse_starting(s, dir, error))
                        degrade(s, dir, error);
        }
}

/* Whether the answer of `other` does for what is asked by `lookup`: an initial crawl tells nobody what it finds, and a
 * recheck is about what `other` may have seen before it was in doubt. */
static bool is_enough(const struct lookup *other, const struct lookup *lookup) {
        switch (lookup->purpose) {
        case PURPOSE_INITIAL:
                return true;
        case PURPOSE_NEW:
                return other->purpose != PURPOSE_INITIAL;
        case PURPOSE_RECHECK:
                return other->order >= lookup->order;
        }
        return false;
}

bool tree_has_moved(const struct dir *dir, const struct lookup *lookup) {
        for (; dir; dir = dir->parent)
                if (dir->placed > lookup->n_placed)
                        return true;
        return false;
}

/* One of a crawl that goes directory by directory. */
static void crawl_child(struct inotify *s, struct lookup *lookup, struct dir *dir, const char *name, bool touched) {
        struct dir *child;

        if (lookup->purpose == PURPOSE_NEW && touched) /* the event has had it crawled */
                return;
        child = tree_make_child(&s->tree, dir, name);
        if (!child) {
                inotify_doubt(s);
                return;
        }
        child->listed_by = lookup->order;
        if (child->lookup)
                rely_on(s, child->lookup, lookup->serial);
        if (child->lookup && is_enough(child->lookup, lookup))
                return;
        if (child->lookup) {
                tree_crawl(s, child, lookup->purpose, 0, lookup->user, lookup->stop);
                return;
        }
        tree_crawl(s, child, lookup->purpose, lookup->serial, lookup->user, lookup->stop);
        if (child->lookup)
                child->lookup->part = true;
}

/* One directory that was listed as a child of `dir`. `touched`: an event has told of it meanwhile. */
static void on_child(struct inotify *s, struct lookup *lookup, struct dir *dir, const char *name, bool touched,
                     uint32_t index) {
        struct dir *child = tree_child(&s->tree, dir, name);

        if (child)
                child->listed_by = lookup->order;
        if (lookup->shallow || !tree_wants_all(dir)) {
                if (tree_wants(&s->tree, dir, name))
                        crawl_child(s, lookup, dir, name, touched);
                return;
        }
        if (!child && lookup->stop)
                child = NULL; /* known to nobody yet: its IN_CREATE tells everybody what is in it */
        else if (!child)
                child = tree_make_child(&s->tree, dir, name);
        else if (child->lookup) { /* asked about already */
                rely_on(s, child->lookup, lookup->serial);
                if (!is_enough(child->lookup, lookup))
                        tree_crawl(s, child, lookup->purpose, 0, lookup->user, lookup->stop);
                child = NULL;
        } else if (child->placed > lookup->n_placed) {
                /* The answer may be about another, of which an event has told since; or a watch was made of it. */
                if (lookup->purpose == PURPOSE_RECHECK || (lookup->purpose == PURPOSE_NEW && !touched))
                        tree_crawl(s, child, lookup->purpose, 0, lookup->user, lookup->stop);
                child = NULL;
        }
        if (!give_index(lookup, child, index))
                inotify_doubt(s);
}

/* Children that stood here before the question and are not in the answer. Those that have come since may have
 * been taken for others. */
static void drop_unlisted(struct inotify *s, struct lookup *lookup, struct dir *dir) {
        for (struct dir *child = dir->first_child, *next; child; child = next) {
                next = child->next;
                if (child->lookup || child->listed_by == lookup->order)
                        continue;
                if (child->placed <= lookup->n_placed)
                        tree_drop(s, child, realtime_nsec() / NSEC_PER_USEC);
                else
                        tree_crawl(s, child, PURPOSE_RECHECK, 0, lookup->user, NULL);
        }
}

static void on_entries(struct inotify *s, struct lookup *lookup, struct dir *dir, const struct found *f) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;
        uint32_t index = f->first_child;

        for (const char *p = f->entries; p < f->entries + f->size; p += strlen(p) + 1) {
                enum kev_kind kind = (enum kev_kind)*p++;
                bool touched = false;

                if (lookup->purpose == PURPOSE_NEW) {
                        touched = names_take_touched(s, dir, p);
                        if (!touched) {
                                names_add_listed(s, dir, p, lookup->stop);
                                listing_on_name(&s->lister, dir, p, true, kind, NO_HANDLE);
                                tree_report_entry(&s->tree, dir, p, KEV_NOTE_CREATE, kind, now, lookup->stop);
                        }
                        s->listed_tick = ++s->tick;
                }
                if (kind == KEV_KIND_DIRECTORY)
                        on_child(s, lookup, dir, p, touched, index++);
        }
        if (lookup->purpose == PURPOSE_RECHECK && !f->more && !f->error)
                drop_unlisted(s, lookup, dir);
}

/* The directory that has this index, as long as it is in the tree; it has no
 * lookup any more. */
static struct dir *take_index(struct inotify *s, struct lookup *lookup, uint32_t index) {
        struct dir *dir = index < lookup->n_dirs ? take_pointer(&lookup->dirs[index]) : NULL;

        if (!dir)
                return NULL;
        dir->lookup = NULL;
        return tree_holds(s, dir) ? dir : NULL;
}

/* Whether an answer about `dir` can't be relied on, so that it has to be asked again. */
static bool is_doubtful(struct dir *dir, const struct found *f) {
        const struct lookup *lookup = f->message.lookup;

        if (f->index == 0 && tree_has_moved(dir, lookup))
                return true;
        /* It was there, and something else is the matter than what events tell: asked by itself, that is found out. */
        return f->index > 0 && f->message.wd < 0 && file_is_absent(f->error) && (dir->mark || dir->first_child);
}

/* The lookup won't come to it, but somebody wants it: it has gone elsewhere. */
static void ask_again(struct inotify *s, const struct lookup *lookup, struct dir *dir) {
        enum lookup_purpose purpose = lookup->purpose;

        if (dir->again)
                purpose = MAX((enum lookup_purpose)dir->again_purpose, purpose);
        dir->again = false;
        if (tree_wants(&s->tree, dir, ""))
                tree_crawl(s, dir, purpose, 0, 0, NULL);
}

void tree_forget_lookup(struct inotify *s, struct lookup *lookup) {
        lookup->forgotten = true;
        atomic_store(&lookup->cancelled, true);
        list_splice(&s->unblocked, &lookup->blocked);
        for (uint32_t i = 0; i < lookup->n_dirs; i++) {
                struct dir *dir = take_index(s, lookup, i);

                if (dir)
                        ask_again(s, lookup, dir);
        }
}

void tree_on_found(struct inotify *s, struct found *f) {
        struct lookup *lookup = f->message.lookup;
        struct dir *dir = take_index(s, lookup, f->index);
        enum lookup_purpose purpose = lookup->purpose;
        int wd = f->message.wd;
        bool late = mark_was_late(s, f->message.first_wd);
        bool again, recovered = dir && !f->error && !list_empty(&dir->degraded);
        struct mark *mark;

        if (f->index > 0 && !tree_root_of(s, lookup)) /* all of it went: the thread need not go on */
                atomic_store(&lookup->cancelled, true);
        if (!dir) { /* of no interest any more, nor what is below it */
                if (wd >= 0)
                        mark_orphan(s, wd);
                return;
        }
        again = dir->again || is_doubtful(dir, f);
        if (dir->again)
                purpose = MAX((enum lookup_purpose)dir->again_purpose, purpose);
        dir->again = false;
        again |= dir->changed && (f->error == EACCES || f->error == EPERM) && wd < 0;
        dir->changed = false;
        if (!again && wd < 0) {
                on_unfound(s, lookup, dir, f->error);
                return;
        }
        if (f->index == 0 && !again && dir->mark)
                lookup->was_marked = true;
        mark = again ? NULL : mark_of_answer(s, &f->message);
        if (!mark || mark->dying || (dir->mount = lookup->mount, !tree_claim(s, dir, mark))) {
                if (wd >= 0)
                        mark_orphan(s, wd);
                tree_crawl(s, dir, purpose, lookup->serial, lookup->user, lookup->stop);
                return;
        }
        if (!f->error)
                list_remove(&dir->degraded);
        lookup->recovered |= recovered;
        on_entries(s, lookup, dir, f);
        if (f->more && !give_index(lookup, dir, f->index))
                inotify_doubt(s);
        if (f->more && late) {
                dir->again = true;
                dir->again_purpose = PURPOSE_RECHECK;
        }
        if (f->error && !file_is_absent(f->error)) /* getdents64(2) of one that was removed */
                degrade(s, dir, f->error);
        if ((late && !f->more) || (recovered && purpose != PURPOSE_RECHECK))
                tree_crawl(s, dir, PURPOSE_RECHECK, 0, lookup->user, NULL);
}

void tree_on_crawled(struct inotify *s, struct lookup *lookup) {
        /* Of those that the thread did not come to. */
        for (uint32_t i = 0; i < lookup->n_dirs; i++) {
                struct dir *dir = take_index(s, lookup, i);

                if (!dir)
                        continue;
                if (lookup->error == ECANCELED) {
                        ask_again(s, lookup, dir);
                        continue;
                }
                dir->again = false;
                on_unfound(s, lookup, dir, lookup->error ? lookup->error : EIO);
        }
        if (lookup->purpose == PURPOSE_RECHECK && tree_root_of(s, lookup) && lookup->error != ECANCELED &&
            !(lookup->part && lookup->was_marked) &&
            (lookup->root->mark || list_empty(&lookup->root->degraded)))
                report_rechecked(s, lookup->root);
        if (lookup->recovered && !list_empty(&s->degraded)) { /* there is room: the next at once */
                s->retry_msec = RETRY_MIN_MSEC;
                retry(s);
        }
}

void tree_recheck_all(struct inotify *s, bool tell) {
        list_for_each(entry, &s->tree.watches) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);
                struct dir *dir = watch->dir, *parent = dir->parent;

                if (parent && tree_wants_all(parent) && dir->mount == parent->mount)
                        continue;
                if (tell && dir->subscriptions.next == &watch->subscription->link)
                        tree_report_rescan(&s->tree, dir);
                tree_crawl(s, dir, PURPOSE_RECHECK, 0, watch->asker->uid, NULL);
        }
}
