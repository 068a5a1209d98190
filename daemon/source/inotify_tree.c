/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on inotify; inotify.h has the design.
 */

#include <errno.h>
#include <string.h>
#include <sys/inotify.h>

#include "inotify_tree.h"

/* ---- directories and their marks -------------------------------------------------------------------- */

bool tree_holds(const struct inotify *s, const struct dir *dir) {
        return tree_is_below(dir, s->tree.root);
}

/* Takes the node off its mark, which may be left with none. */
static void leave_mark(struct dir *dir) {
        struct mark *mark = take_pointer(&dir->mark);

        for (struct dir **p = &mark->dirs; *p; p = &(*p)->next_on_mark)
                if (*p == dir) {
                        *p = dir->next_on_mark;
                        break;
                }
        dir->next_on_mark = NULL;
}

static void unmark(struct inotify *s, struct dir *dir) {
        struct mark *mark = dir->mark;

        list_remove(&dir->degraded);
        if (!mark)
                return;
        leave_mark(dir);
        dir->mount = 0;
        mark_release(s, mark);
}

static void forget_lookup(struct dir *dir) {
        struct lookup *lookup = take_pointer(&dir->lookup);

        if (!lookup)
                return;
        lookup->dirs[dir->lookup_index] = NULL;
        if (dir->lookup_index == 0)
                atomic_store(&lookup->cancelled, true);
}

struct dir *tree_root_of(const struct inotify *s, const struct lookup *lookup) {
        return lookup->root && !lookup->forgotten && tree_holds(s, lookup->root) ? lookup->root : NULL;
}

/* True: there were some. */
static bool forget_lookups_below(struct inotify *s, struct dir *dir) {
        bool any = false;

        list_for_each(entry, &s->lookups) {
                struct lookup *lookup = list_entry(entry, struct lookup, link);

                if (lookup->forgotten || !lookup->root || !tree_is_below(lookup->root, dir) ||
                    tree_wants(&s->tree, lookup->root, ""))
                        continue;
                tree_forget_lookup(s, lookup);
                any = true;
        }
        return any;
}

/* Watches within `dir` that relied on a lookup which was for more than them. */
static void ask_again_below(struct inotify *s, struct dir *dir) {
        if (dir->n_watches == 0)
                return;
        list_for_each(entry, &s->tree.watches) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (!tree_is_below(watch->dir, dir))
                        continue;
                tree_crawl(s, watch->dir, watch->state == WATCH_STARTING ? PURPOSE_INITIAL : PURPOSE_RECHECK, 0,
                           watch->asker->uid, NULL);
                watch->serial = s->serial;
        }
}

void tree_throw_away(struct inotify *s, struct dir *dir) {
        listings_drop(&s->lister, dir);
        tree_cut(&s->tree, dir);
        list_remove(&dir->degraded);
        forget_lookup(dir);
        if (!dir->mark && !dir->first_child) {
                tree_free_dir(&s->tree, dir);
                return;
        }
        dir->next = s->trash;
        s->trash = dir;
        mux_defer(s->mux, &s->empty_trash);
}

void tree_empty_trash(struct inotify *s, unsigned budget) {
        while (s->trash && budget-- > 0) {
                struct dir *dir = s->trash;

                s->trash = dir->next;
                dir->next = NULL;
                while (dir->first_child) {
                        struct dir *child = dir->first_child;

                        tree_cut(&s->tree, child);
                        child->next = s->trash;
                        s->trash = child;
                }
                unmark(s, dir);
                forget_lookup(dir);
                tree_free_dir(&s->tree, dir);
        }
        if (s->trash)
                mux_defer(s->mux, &s->empty_trash);
}

void tree_leave(struct inotify *s, struct file_watch *watch) {
        crowd_leave(watch);
        list_remove(&watch->link);
        list_remove(&watch->blocked);
        jobs_forget(&s->lister, watch);
        tree_count(watch->dir, -1);
        watch->dir = NULL;
        watch->state = WATCH_ENDED;
}

void tree_end_watch(struct inotify *s, struct file_watch *watch, uint64_t realtime_usec) {
        bool starting = watch->state == WATCH_STARTING;
        bool waits = watch->path && watch->subscription->notes & KEV_NOTE_BACK;

        if (watch->crowd)
                crowd_before(watch, NULL);
        tree_leave(s, watch);
        if (starting) {
                watch_attached(s, watch, ENOENT, "path: the directory vanished while it was read");
                return;
        }
        tree_tell_gone(watch, waits, realtime_usec);
        if (waits)
                wait_begin(s, watch);
}

/* Every watch whose directory is `dir` or below it. */
static void end_watches(struct inotify *s, struct dir *dir, uint64_t realtime_usec) {
        if (dir->n_watches == 0)
                return;
        list_for_each(entry, &s->tree.watches) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (tree_is_below(watch->dir, dir))
                        tree_end_watch(s, watch, realtime_usec);
        }
}

void tree_drop(struct inotify *s, struct dir *dir, uint64_t realtime_usec) {
        end_watches(s, dir, realtime_usec);
        if (dir == s->tree.root)
                tree_release(s, dir);
        else
                tree_throw_away(s, dir);
}

void tree_hide(struct inotify *s, struct dir *dir, uint64_t realtime_usec) {
        if (dir->n_watches == 0) {
                tree_drop(s, dir, realtime_usec);
                return;
        }
        unmark(s, dir);
        for (struct dir *child = dir->first_child, *next; child; child = next) {
                next = child->next;
                if (child->n_watches == 0)
                        tree_drop(s, child, realtime_usec);
        }
}

static bool is_kept(struct inotify *s, const struct dir *dir, bool selective) {
        return dir->n_watches > 0 || (selective && tree_wants(&s->tree, dir, ""));
}

void tree_release(struct inotify *s, struct dir *dir) {
        struct dir *d = dir;
        bool disturbed, selective = tree_is_watched_below(dir, NULL);

        if (tree_wants_all(dir))
                return;
        disturbed = forget_lookups_below(s, dir);
        /* Down through what is kept because something below it is watched, or somebody above wants it. */
        for (;;) {
                struct dir *child = tree_wants_all(d) ? NULL : d->first_child;

                if (!tree_wants(&s->tree, d, "")) {
                        unmark(s, d);
                        forget_lookup(d);
                }
                for (struct dir *next; child && !is_kept(s, child, selective); child = next) {
                        next = child->next;
                        tree_throw_away(s, child);
                }
                if (child) {
                        d = child;
                        continue;
                }
                /* The next that is kept, beside or further up. */
                while (d != dir) {
                        struct dir *next = d->next;

                        while (next && !is_kept(s, next, selective)) {
                                struct dir *after = next->next;

                                tree_throw_away(s, next);
                                next = after;
                        }
                        if (next) {
                                d = next;
                                break;
                        }
                        d = d->parent;
                }
                if (d == dir)
                        break;
        }
        if (disturbed)
                ask_again_below(s, dir);
        tree_prune(&s->tree, dir);
        tree_check_starting(s);
}

/* The next that is not below it. NULL: there is none. */
static struct dir *next_beside(struct dir *dir) {
        while (dir && !dir->next)
                dir = dir->parent;
        return dir ? dir->next : NULL;
}

void tree_release_all(struct inotify *s) {
        for (struct dir *dir = s->tree.root, *next; dir; dir = next) {
                bool wanted = tree_wants(&s->tree, dir, "");

                if (dir != s->tree.root && !is_kept(s, dir, wanted)) {
                        next = next_beside(dir);
                        tree_throw_away(s, dir);
                        continue;
                }
                next = dir->first_child ? dir->first_child : next_beside(dir);
                if (!wanted)
                        unmark(s, dir);
        }
}

void tree_set_mark(struct dir *dir, struct mark *mark) {
        dir->mark = mark;
        dir->next_on_mark = mark->dirs;
        mark->dirs = dir;
}

bool tree_claim(struct inotify *s, struct dir *dir, struct mark *mark) {
        uint32_t mount = dir->mount;

        if (dir->mark == mark)
                return true;
        for (const struct dir *d = mark->dirs; d; d = d->next_on_mark)
                if (d->mount == dir->mount && tree_holds(s, d) && move_is_pending(s, d))
                        return false;
        for (struct dir *d = mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                if (d->mount != dir->mount)
                        continue;
                leave_mark(d);
                if (tree_holds(s, d))
                        tree_crawl(s, d, PURPOSE_RECHECK, 0, 0, NULL);
        }
        unmark(s, dir);
        dir->mount = mount;
        tree_set_mark(dir, mark);
        return true;
}

/* ---- watches ----------------------------------------------------------------------------------------- */

void tree_on_resolved(struct inotify *s, struct lookup *lookup) {
        struct file_watch *watch = lookup->watch;

        if (!watch) {
                if (lookup->end.wd >= 0)
                        mark_orphan(s, lookup->end.wd);
                return;
        }
        watch->lookup = NULL;
        if (watch->state == WATCH_WAITING)
                wait_on_resolved(s, lookup);
        else if (!lookup->error)
                tree_start(s, watch, lookup);
        else if (watch->waits_first && file_is_absent(lookup->error)) {
                s->source.context->sink->attached(watch->subscription, NULL);
                wait_begin(s, watch);
        } else
                watch_attached(s, watch, lookup->error, file_error_text(lookup->error));
}

void tree_enter(struct inotify *s, struct file_watch *watch, struct dir *dir) {
        watch->dir = dir;
        tree_count(dir, 1);
        crowd_enter(&s->crowds, watch);
        list_append(&s->tree.watches, &watch->link);
}

void tree_start(struct inotify *s, struct file_watch *watch, struct lookup *lookup) {
        struct dir *dir;
        bool covered;

        dir = tree_make_path(&s->tree, lookup->canonical);
        if (!dir) {
                watch_attached(s, watch, ENOMEM, "no memory");
                return;
        }
        covered = dir->mark && dir->mount == lookup->mount && tree_wants_all(dir);
        dir->mount = lookup->mount;
        watch->device = lookup->state.device;
        watch->inode = lookup->state.inode;
        watch->state = WATCH_STARTING;
        tree_enter(s, watch, dir);
        tree_tell_degraded(s, watch); /* the others know */
        if (!covered) /* what is being watched for others is not asked again */
                tree_crawl(s, dir, PURPOSE_INITIAL, watch->returning ? lookup->serial : 0, watch->asker->uid, NULL);
        if (watch->returning && dir->lookup)
                dir->lookup->doubted = true; /* a barrier waits for `back` */
        watch->serial = s->serial;
        list_append(&s->unblocked, &watch->blocked);
        tree_check_starting(s);
}

void tree_add_crawl(struct inotify *s, struct lookup *lookup) {
        struct list *before = s->crawls.previous;

        while (before != &s->crawls && list_entry(before, struct lookup, among)->serial > lookup->serial)
                before = before->previous;
        list_append(before->next, &lookup->among);
}

/* What the watch has to wait for. */
static struct lookup *find_blocker(const struct inotify *s, const struct file_watch *watch) {
        list_for_each(entry, &s->crawls) {
                struct lookup *lookup = list_entry(entry, struct lookup, among);

                if (lookup->serial > watch->serial)
                        break;
                if (tree_root_of(s, lookup) &&
                    (tree_is_below(lookup->root, watch->dir) || tree_is_below(watch->dir, lookup->root)))
                        return lookup;
        }
        return NULL;
}

void tree_check_starting(struct inotify *s) {
        struct list *entry;

        while ((entry = list_pop(&s->unblocked))) {
                struct file_watch *watch = list_entry(entry, struct file_watch, blocked);
                struct lookup *blocker = find_blocker(s, watch);

                if (blocker)
                        list_append(&blocker->blocked, &watch->blocked);
                else
                        watch_attached(s, watch, 0, NULL);
        }
}

void tree_select(struct inotify *s, struct file_watch *watch) {
        struct dir *dir = watch->dir;

        if (!dir)
                return;
        tree_release(s, dir);
        tree_crawl(s, dir, watch->state == WATCH_STARTING ? PURPOSE_INITIAL : PURPOSE_RECHECK, 0, watch->asker->uid,
                   NULL);
        watch->serial = s->serial;
}

void tree_detach(struct inotify *s, struct file_watch *watch) {
        struct dir *dir = watch->dir;

        if (watch->state == WATCH_WAITING)
                wait_end(s, watch);
        if (!dir)
                return;
        tree_leave(s, watch);
        tree_release(s, dir);
}

/* ---- events ------------------------------------------------------------------------------------------- */

/* A directory that is not known, or not watched yet. */
static void discover(struct inotify *s, struct dir *dir, const char *name) {
        struct dir *child = tree_make_child(&s->tree, dir, name);

        if (child)
                tree_crawl(s, child, PURPOSE_NEW, 0, 0, NULL);
        else
                inotify_doubt(s);
}

static void on_create(struct inotify *s, struct dir *dir, const char *name, bool is_dir, uint64_t realtime_usec) {
        struct report report = REPORT_INIT;
        uint64_t start = 0;

        if (names_take(&s->listed, dir, name, &start) && start == 0)
                return;
        names_touch(s, dir, name);
        listing_on_name(&s->lister, dir, name, true, is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN, NO_HANDLE);
        report.notes = KEV_NOTE_CREATE;
        report.kind = is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN;
        report.realtime_usec = realtime_usec;
        tree_report_up(&s->tree, dir, name, &report, start, NULL);
        if (is_dir && tree_wants(&s->tree, dir, name))
                discover(s, dir, name);
}

/* Its attributes have changed: may it be read still? */
static void ask_for_access(struct inotify *s, struct dir *dir) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        struct lookup *lookup;

        list_for_each(entry, &s->lookups) {
                lookup = list_entry(entry, struct lookup, link);
                if (lookup->kind != LOOKUP_ACCESS || lookup->root != dir)
                        continue;
                lookup->doubted = true;
                return;
        }
        tree_path(dir, &path);
        lookup = path.error ? NULL : lookup_new(LOOKUP_ACCESS, path.data);
        if (lookup && submit(s, lookup, tree_user_of(dir), dir, NULL) == 0)
                return;
        lookup_free(lookup);
        tree_crawl(s, dir, PURPOSE_RECHECK, 0, 0, NULL);
}

/* What is below can't be reached either. */
void tree_on_access(struct inotify *s, struct lookup *lookup) {
        struct dir *dir = tree_root_of(s, lookup);
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;

        if (!dir)
                return;
        if (lookup->doubted || tree_has_moved(dir, lookup)) {
                list_remove(&lookup->link); /* as it is not the one that is under way any more */
                ask_for_access(s, dir);
                return;
        }
        if (lookup->error == EACCES || lookup->error == EPERM)
                tree_drop(s, dir, now);
}

/* One that could not be read perhaps can be now. */
static void on_attrib_of_dir(struct inotify *s, struct dir *dir, const char *name) {
        struct dir *child = tree_child(&s->tree, dir, name);

        if (child && child->mark && s->source.context->revokes) {
                ask_for_access(s, child);
                return;
        }
        if (child && child->lookup) /* which may have come too early */
                child->changed = true;
        else if (!(child && child->mark) && tree_wants(&s->tree, dir, name))
                discover(s, dir, name);
}

static void on_delete(struct inotify *s, struct dir *dir, const char *name, bool is_dir, uint64_t realtime_usec) {
        struct dir *child = is_dir ? tree_child(&s->tree, dir, name) : NULL;

        (void)names_take(&s->listed, dir, name, NULL);
        names_touch(s, dir, name);
        listing_on_name(&s->lister, dir, name, false, is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN, NO_HANDLE);
        tree_report_entry(&s->tree, dir, name, KEV_NOTE_DELETE, is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN, realtime_usec,
                          NULL);
        if (child)
                tree_drop(s, child, realtime_usec);
}

void tree_on_entry(struct inotify *s, struct dir *dir, uint32_t mask, const char *name, uint64_t realtime_usec) {
        bool is_dir = mask & IN_ISDIR;
        uint64_t notes = (mask & IN_MODIFY ? KEV_NOTE_WRITE : 0) | (mask & IN_CLOSE_WRITE ? KEV_NOTE_CLOSEWRITE : 0) |
                         (mask & IN_ATTRIB ? KEV_NOTE_ATTRIB : 0);

        if (mask & IN_CREATE)
                on_create(s, dir, name, is_dir, realtime_usec);
        else if (mask & IN_DELETE)
                on_delete(s, dir, name, is_dir, realtime_usec);
        else if (notes)
                tree_report_entry(&s->tree, dir, name, notes, is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN, realtime_usec,
                                  NULL);
        if (is_dir && (mask & IN_ATTRIB))
                on_attrib_of_dir(s, dir, name);
}

void tree_on_self(struct inotify *s, struct dir *dir, uint32_t mask, uint64_t realtime_usec) {
        struct report report = REPORT_INIT;

        if (mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) {
                /* Within a tree the parent's events have told. A watched directory
                 * that moved within one has moved with its node, and is not where
                 * its client named it. */
                list_for_each(entry, &dir->subscriptions)
                        tree_end_watch(s, list_entry(entry, struct subscription, link)->object, realtime_usec);
                if (tree_holds(s, dir))
                        tree_release(s, dir);
                return;
        }
        if (!(mask & IN_ATTRIB) || list_empty(&dir->subscriptions))
                return;
        if (s->source.context->revokes)
                ask_for_access(s, dir);
        report.notes = KEV_NOTE_ATTRIB;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_usec;
        report.below = (struct event_path){ "", 0 };
        tree_report_at(&s->tree, dir, &report);
}

void tree_on_unmarked(struct inotify *s, struct dir *dir) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;

        if (!tree_holds(s, dir))
                return;
        /* Deleted, or unmounted: within a tree the parent's events tell what of. */
        list_for_each(entry, &dir->subscriptions)
                tree_end_watch(s, list_entry(entry, struct subscription, link)->object, now);
        tree_release(s, dir);
}

/* What is in the directory is still to be told as new: a crawl is to find it there. */
static bool is_to_be_told(const struct dir *dir) {
        for (; dir; dir = dir->parent)
                if ((dir->lookup && dir->lookup->purpose == PURPOSE_NEW) || (dir->again && dir->again_purpose == PURPOSE_NEW))
                        return true;
        return false;
}

/* A crawl that is under way will tell `rescan` of where it was, and not of where it goes: who is told that it moves does
 * not know what is in it. */
static bool is_in_doubt(const struct inotify *s, const struct dir *from, const struct dir *to) {
        list_for_each(entry, &s->crawls) {
                const struct lookup *lookup = list_entry(entry, struct lookup, among);
                const struct dir *root = lookup->purpose == PURPOSE_RECHECK ? tree_root_of(s, lookup) : NULL;

                if (root && tree_is_below(from, root) && !tree_is_below(to, root))
                        return true;
        }
        return false;
}

/* A directory that is known, to its new place. */
static void move_known(struct inotify *s, struct dir *moved, struct dir *to, const char *to_name, struct dir *common,
                       uint64_t realtime_usec) {
        struct dir *target = tree_child(&s->tree, to, to_name), *from = moved->parent;
        bool new_to_some = tree_is_watched_below(to, common);
        bool alike = tree_wants_all(common) || tree_wants_alike(&s->tree, from, moved->name, to, to_name, common);
        bool to_be_told = is_to_be_told(from), in_doubt = is_in_doubt(s, from, to);

        if (target == moved)
                return;
        if (tree_is_below(to, moved)) { /* it is elsewhere by now: an exchange that is not understood yet */
                tree_drop(s, moved, realtime_usec);
                tree_crawl(s, from, PURPOSE_RECHECK, 0, 0, NULL);
                return;
        }
        if (target)
                tree_drop(s, target, realtime_usec);
        end_watches(s, moved, realtime_usec); /* they are not where they were named */
        if (tree_move(&s->tree, moved, to, to_name) < 0) {
                tree_throw_away(s, moved);
                inotify_doubt(s);
                return;
        }
        if (new_to_some)
                moved->renewed = (uint32_t)s->tree.n_placed;
        listing_on_left(&s->lister, moved, from, to);
        if (moved->lookup) /* the answer will be about the old place */
                tree_crawl(s, moved, new_to_some || to_be_told ? PURPOSE_NEW : moved->lookup->purpose, 0, 0, NULL);
        else if (in_doubt)
                tree_crawl(s, moved, PURPOSE_RECHECK, 0, 0, NULL);
        else if (!moved->mark || to_be_told) /* that crawl does not find it any more */
                tree_crawl(s, moved, PURPOSE_NEW, 0, 0, NULL);
        else if (new_to_some)
                /* To those who did not see it before, all of it is new. */
                tree_crawl(s, moved, PURPOSE_NEW, 0, 0, common);
        else if (!alike) /* some of what was left out before is wanted here */
                tree_crawl(s, moved, PURPOSE_RECHECK, 0, 0, NULL);
}

static void doubt_both(struct inotify *s, struct dir *a, struct dir *b) {
        if (a)
                tree_crawl(s, a, PURPOSE_RECHECK, 0, 0, NULL);
        if (b && b != a)
                tree_crawl(s, b, PURPOSE_RECHECK, 0, 0, NULL);
}

void tree_on_move(struct inotify *s, struct dir *from, const char *from_name, struct dir *to, const char *to_name,
                  bool is_dir, uint64_t realtime_usec) {
        struct dir *moved = from && is_dir ? tree_child(&s->tree, from, from_name) : NULL;
        struct dir *common = from && to ? tree_common(from, to) : NULL;
        enum kev_kind kind = is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN;
        struct report report = REPORT_INIT;
        uint64_t start = UINT64_MAX;
        bool listed = to && names_take(&s->listed, to, to_name, &start) && start == 0;
        bool left_listed = false;

        report.notes = KEV_NOTE_RENAME;
        report.kind = kind;
        report.realtime_usec = realtime_usec;
        if (is_dir && from && to && listed && !moved) {
                /* Both directories were listed after this: it was told where it is now, and hardly where it was. */
                (void)names_take(&s->listed, from, from_name, NULL);
                names_touch(s, from, from_name);
                listing_on_name(&s->lister, from, from_name, false, kind, NO_HANDLE);
                tree_report_entry(&s->tree, from, from_name, KEV_NOTE_MOVEDOUT, kind, realtime_usec, NULL);
                return;
        }
        if (from) {
                left_listed = names_take(&s->listed, from, from_name, NULL);
                names_touch(s, from, from_name);
                listing_on_name(&s->lister, from, from_name, false, kind, NO_HANDLE);
                tree_report_entry(&s->tree, from, from_name, KEV_NOTE_MOVEDOUT, kind, realtime_usec, common);
        }
        if (to) {
                names_touch(s, to, to_name);
                listing_on_name(&s->lister, to, to_name, true, kind, NO_HANDLE);
                tree_report_entry(&s->tree, to, to_name, KEV_NOTE_MOVEDIN, kind, realtime_usec, common);
        }
        if (common)
                tree_report_rename(&s->tree, from, from_name, to, to_name, common, &report);
        if (!is_dir) {
                /* A directory that was listed there is younger: what was told as moved is not that one. */
                if (from && tree_child(&s->tree, from, from_name))
                        doubt_both(s, from, to);
                return;
        }
        if (moved && to && tree_wants(&s->tree, to, to_name))
                move_known(s, moved, to, to_name, common, realtime_usec);
        else if (moved)
                tree_drop(s, moved, realtime_usec);
        else if (to && tree_wants(&s->tree, to, to_name)) {
                struct dir *child = tree_child(&s->tree, to, to_name);

                if (child)
                        tree_drop(s, child, realtime_usec);
                discover(s, to, to_name);
                /* No directory was listed there: something younger was, and was told as moved. */
                if (left_listed && tree_holds(s, from) && tree_wants(&s->tree, from, from_name))
                        doubt_both(s, from, to);
        }
}
