/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What events do to the trees, and telling them. */

#include <string.h>
#include <sys/fanotify.h>

#include "fanotify.h"

#ifndef FAN_RENAME
#define FAN_RENAME 0x10000000 /* Linux 5.17 */
#endif

/* ---- directories that go ------------------------------------------------------------------------------ */

static void end_watches(struct view *v, struct dir *dir, uint64_t realtime_usec) {
        if (dir->n_watches == 0)
                return;
        list_for_each(entry, &v->tree.watches) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (tree_is_below(watch->dir, dir))
                        fanotify_end_watch(v->group->s, watch, realtime_usec);
        }
}

void fan_tree_drop(struct view *v, struct dir *dir, uint64_t realtime_usec) {
        struct dir *d = dir;

        end_watches(v, dir, realtime_usec);
        listings_drop(&v->lister, dir);
        /* From the leaves up. */
        for (;;) {
                struct dir *next;

                while (d->first_child)
                        d = d->first_child;
                if (d->place)
                        place_free(d->place);
                next = d->next ? d->next : d->parent;
                if (d == dir) {
                        tree_free_dir(&v->tree, d);
                        return;
                }
                tree_free_dir(&v->tree, d);
                d = next;
        }
}

void fan_tree_take_away(struct view *v, struct dir *dir, uint64_t realtime_usec) {
        struct dir *parent = dir->parent;
        const struct event_process *process = v->tree.process;
        pid_t pid = v->pid;

        if (parent && parent->place && dir->place)
                names_on_corrected(v->group, place_handle(parent->place), dir->name, false, place_handle(dir->place));
        v->tree.process = NULL;
        v->pid = 0;
        if (parent) {
                listing_on_name(&v->lister, parent, dir->name, false, KEV_KIND_DIRECTORY,
                                dir->place ? place_handle(dir->place) : NO_HANDLE);
                tree_report_entry(&v->tree, parent, dir->name, KEV_NOTE_DELETE, KEV_KIND_DIRECTORY, realtime_usec, NULL);
        }
        v->tree.process = process;
        v->pid = pid;
        fan_tree_drop(v, dir, realtime_usec);
}

void fan_tree_make_good(struct view *v, struct dir *dir, enum told told) {
        struct dir *parent = dir->parent;
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;

        v->tree.process = NULL;
        v->pid = 0;
        v->tree.n_merged = 1;
        if (told == TOLD_OTHER)
                tree_report_entry(&v->tree, parent, dir->name, KEV_NOTE_DELETE, KEV_KIND_UNKNOWN, now, NULL);
        listing_on_name(&v->lister, parent, dir->name, true, KEV_KIND_DIRECTORY, place_handle(dir->place));
        tree_report_entry(&v->tree, parent, dir->name, KEV_NOTE_CREATE, KEV_KIND_DIRECTORY, now, NULL);
        names_on_corrected(v->group, place_handle(parent->place), dir->name, true, place_handle(dir->place));
        job_start(&v->lister, dir, NULL, NULL);
}

/* Nothing that is known is certain any more. */
void fan_tree_rescan_all(struct view *v) {
        struct dir *d = v->tree.root;

        jobs_free(&v->lister);
        verdicts_expire(v);
        hash_for_each(node, &v->places)
                verdicts_keep(container_of(node, const struct place, node));
        /* Only what leads to the watches is kept. */
        while (d) {
                struct dir *child = d->first_child;

                while (child && child->n_watches == 0) {
                        struct dir *next = child->next;

                        fan_tree_drop(v, child, 0);
                        child = next;
                }
                if (child) {
                        d = child;
                        continue;
                }
                while (d && d != v->tree.root) {
                        struct dir *next = d->next;

                        while (next && next->n_watches == 0) {
                                struct dir *after = next->next;

                                fan_tree_drop(v, next, 0);
                                next = after;
                        }
                        if (next) {
                                d = next;
                                break;
                        }
                        d = d->parent;
                }
                if (!d || d == v->tree.root)
                        break;
        }
        v->generation++;
        list_for_each(entry, &v->tree.watches) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                fanotify_check_watch(v->group->s, watch);
                if (watch->state != WATCH_IN_FORCE)
                        continue;
                tree_tell_rescan(watch, "", 0);
        }
}

/* ---- entries -------------------------------------------------------------------------------------------- */

static enum kev_kind kind_of(const struct event_info *e) {
        return e->mask & FAN_ONDIR ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN;
}

struct dir *fan_tree_place(struct view *v, struct dir *parent, const char *name, struct handle_ref handle) {
        struct dir *dir = tree_child(&v->tree, parent, name);

        if (dir && dir->place) {
                struct place *p = place_find(v, handle);

                if (p && p->dir == dir)
                        return dir;
                fan_tree_drop(v, dir, realtime_nsec() / NSEC_PER_USEC);
        }
        dir = tree_make_child(&v->tree, parent, name);
        if (!dir || (handle.size > 0 && !place_bind(v, handle, dir)))
                group_doubt(v->group, "no memory for a directory");
        return dir;
}

static void on_made(struct view *v, const struct event_info *e, struct dir *dir) {
        const struct place *p = place_find(v, e->object);

        if (!(p && p->dir) && tree_is_watched_below(dir, NULL))
                (void)fan_tree_place(v, dir, e->name, e->object);
}

/* What was known to have the name hasn't any more. */
static void drop_child(struct view *v, struct dir *dir, const char *name, uint64_t now) {
        struct dir *child = tree_child(&v->tree, dir, name);

        if (child)
                fan_tree_drop(v, child, now);
}

static void on_deleted_directory(struct view *v, const struct event_info *e, struct dir *dir, uint64_t now) {
        struct place *p = place_find(v, e->object);
        struct dir *child = tree_child(&v->tree, dir, e->name);

        peers_forget_directory(v->group->s, v->mount, e->object);
        if (child && (!child->place || child->place == p))
                fan_tree_drop(v, child, now);
        else if (p && p->dir) /* it had another name than was known */
                fan_tree_take_away(v, p->dir, now);
}

static void on_self(struct view *v, const struct event_info *e, struct dir *dir, uint64_t now) {
        struct report report = REPORT_INIT;

        if (!(e->mask & FAN_ATTRIB))
                return;
        if (dir->place)
                dir->place->changed = e->number;
        report.notes = KEV_NOTE_ATTRIB;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = now;
        report.process = v->tree.process;
        tree_report_self(&v->tree, dir, &report);
}

static void on_entry(struct view *v, const struct event_info *e, struct dir *dir, uint64_t now) {
        uint64_t notes = (e->mask & FAN_CREATE ? KEV_NOTE_CREATE : 0) | (e->mask & FAN_MODIFY ? KEV_NOTE_WRITE : 0) |
                         (e->mask & FAN_CLOSE_WRITE ? KEV_NOTE_CLOSEWRITE : 0) |
                         (e->mask & FAN_ATTRIB ? KEV_NOTE_ATTRIB : 0);

        if (strcmp(e->name, ".") == 0) {
                on_self(v, e, dir, now);
                return;
        }
        if (notes) {
                if (e->mask & FAN_CREATE) {
                        struct dir *child = tree_child(&v->tree, dir, e->name);

                        /* Its end was merged into something that came up too early. */
                        if (names_told(v->group, e->dir, e->name, e->object) == TOLD_OTHER) {
                                tree_report_entry(&v->tree, dir, e->name, KEV_NOTE_DELETE,
                                                  child ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN, now, NULL);
                                if (child)
                                        fan_tree_drop(v, child, now);
                        }
                        listing_on_name(&v->lister, dir, e->name, true, kind_of(e), e->object);
                        if (!(e->mask & FAN_ONDIR))
                                drop_child(v, dir, e->name, now);
                }
                v->tree.n_merged = (unsigned)__builtin_popcountll(notes);
                tree_report_entry(&v->tree, dir, e->name, notes, kind_of(e), now, NULL);
        }
        if ((e->mask & (FAN_CREATE | FAN_ONDIR)) == (FAN_CREATE | FAN_ONDIR) && !(e->mask & FAN_DELETE))
                on_made(v, e, dir);
        if (!(e->mask & FAN_DELETE))
                return;
        v->tree.n_merged = 1;
        listing_on_name(&v->lister, dir, e->name, false, kind_of(e), e->object);
        tree_report_entry(&v->tree, dir, e->name, KEV_NOTE_DELETE, kind_of(e), now, NULL);
        if (e->mask & FAN_ONDIR)
                on_deleted_directory(v, e, dir, now);
}

/* ---- renames ----------------------------------------------------------------------------------------------- */

/* A directory that is known, or that is only now: to its new place. `common`: the nearest directory that both ends
 * are below, or NULL. */
static void move_directory(struct view *v, const struct event_info *e, struct dir *moved, struct dir *from,
                           struct dir *to, struct dir *common, uint64_t now) {
        struct dir *target = tree_child(&v->tree, to, e->to_name);
        bool new_to_some = tree_is_watched_below(to, common);

        if (target && target == moved) {
                if (moved->place)
                        moved->place->changed = e->number;
                if (!from && new_to_some) { /* it was told as new: so is what is in it */
                        v->generation++;
                        job_start(&v->lister, moved, common, NULL);
                }
                return;
        }
        if (moved && tree_is_below(to, moved)) { /* what is known of it can't be right */
                group_doubt(v->group, "a directory is said to be moved below itself");
                return;
        }
        if (target && ((from && tree_is_below(from, target)) || (moved && tree_is_below(moved, target)))) {
                group_doubt(v->group, "a directory is said to be moved over one that it is in");
                from = moved = NULL;
        }
        if (target)
                fan_tree_drop(v, target, now);
        if (moved) {
                end_watches(v, moved, now); /* they are not where they were named */
                if (tree_move(&v->tree, moved, to, e->to_name) < 0) {
                        fan_tree_drop(v, moved, now);
                        group_doubt(v->group, "no memory for a move");
                        return;
                }
                if (moved->place)
                        moved->place->changed = e->number;
        }
        if (!new_to_some && list_empty(&v->lister.listings))
                return;
        v->generation++; /* places below it may have been outside */
        if (!moved)
                moved = fan_tree_place(v, to, e->to_name, e->object);
        if (moved && from)
                listing_on_left(&v->lister, moved, from, to);
        if (moved && new_to_some)
                job_start(&v->lister, moved, common, NULL);
}

/* The directory that is moved, if it is known. */
static struct dir *find_moved(struct view *v, const struct event_info *e, struct dir *from) {
        struct place *p = place_find(v, e->object);
        struct dir *dir;

        if (p && p->dir)
                return p->dir;
        dir = from ? tree_child(&v->tree, from, e->name) : NULL;
        return dir && !dir->place ? dir : NULL;
}

static void on_rename(struct view *v, const struct event_info *e, struct dir *from, struct dir *to, uint64_t now) {
        bool is_dir = e->mask & FAN_ONDIR;
        struct dir *moved = is_dir ? find_moved(v, e, from) : NULL, *common;
        enum told told = from ? names_told(v->group, e->dir, e->name, e->object) : TOLD_UNKNOWN;
        struct report report = REPORT_INIT;

        /* The name stands for something else: this is the second half of an exchange, which was told to have come
         * there by the first. Or for nothing: that it came there was the same as an earlier event, and merged. */
        if (told == TOLD_OTHER || told == TOLD_ABSENT) {
                if (moved && moved->parent == from && strcmp(moved->name, e->name) == 0)
                        moved = NULL;
                from = NULL;
        }
        /* It was known to be elsewhere, since moves are merged: all of it is told anew. */
        if (moved && moved->parent && moved->place && !(moved->parent == from && strcmp(moved->name, e->name) == 0) &&
            !(moved->parent == to && strcmp(moved->name, e->to_name) == 0)) {
                if (to && tree_is_below(to, moved)) {
                        group_doubt(v->group, "a directory is said to be moved into itself");
                        to = NULL;
                }
                fan_tree_take_away(v, moved, now);
                moved = NULL;
                from = NULL;
        }
        common = from && to ? tree_common(from, to) : NULL;
        report.notes = KEV_NOTE_RENAME | (e->replaces ? KEV_NOTE_REPLACE : 0);
        report.kind = kind_of(e);
        report.realtime_usec = now;
        report.process = v->tree.process;
        if (from) {
                listing_on_name(&v->lister, from, e->name, false, report.kind, e->object);
                tree_report_entry(&v->tree, from, e->name, KEV_NOTE_MOVEDOUT, report.kind, now, common);
        }
        if (to) {
                listing_on_name(&v->lister, to, e->to_name, true, report.kind, e->object);
                tree_report_entry(&v->tree, to, e->to_name,
                                  KEV_NOTE_MOVEDIN | (e->replaces ? KEV_NOTE_REPLACE : 0), report.kind, now, common);
        }
        if (common)
                tree_report_rename(&v->tree, from, e->name, to, e->to_name, common, &report);
        if (!is_dir) {
                if (to)
                        drop_child(v, to, e->to_name, now);
                return;
        }
        if (to)
                move_directory(v, e, moved, from, to, common, now);
        else if (moved)
                fan_tree_drop(v, moved, now);
}

void fan_tree_on_event(struct view *v, const struct event_info *e, struct dir *dir, struct dir *to_dir,
                       uint64_t realtime_usec) {
        v->tree.n_merged = 1;
        v->pid = e->pid;
        v->tree.process = v->n_who > 0 ? who_is(v->group, e->pid) : NULL;
        if (e->mask & FAN_RENAME)
                on_rename(v, e, dir, to_dir, realtime_usec);
        else if (dir)
                on_entry(v, e, dir, realtime_usec);
}
