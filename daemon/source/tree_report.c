/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Telling: from a directory up, to the tree watches on the way. */

#include "tree_report.h"

#include <string.h>

#include "crowd.h"

/* Whether it is told to the crowd of that watch later. */
static bool put_off(struct tree *tree, struct file_watch *watch, const struct report *report) {
        bool all = true;
        pid_t except = 0;

        if (crowd_is_at_rest(watch->crowd))
                return false;
        if (tree->may_tell && !tree->may_tell_all(tree, watch, report, &all, &except))
                return crowd_covers(watch->crowd);
        crowd_put_down(watch->crowd, all ? report : NULL, except);
        return true;
}

static void report_at(struct tree *tree, struct dir *dir, struct report *report) {
        bool always = report->notes & KEV_NOTE_DEGRADED; /* part of what the watch is made of */
        struct list *told = NULL; /* the last of a crowd that is told */

        for (struct list *entry = dir->subscriptions.next; entry != &dir->subscriptions; entry = entry->next) {
                struct subscription *subscription = list_entry(entry, struct subscription, link);
                struct file_watch *watch = subscription->object;

                if (watch->crowd && !told && !always) {
                        told = crowd_last(watch->crowd);
                        if (put_off(tree, watch, report)) {
                                subscription->source->n_reports++;
                                entry = take_pointer(&told);
                                continue;
                        }
                }
                if (entry == told)
                        told = NULL;
                if (watch->state != WATCH_IN_FORCE && !(always && watch->state == WATCH_STARTING))
                        continue;
                if (!tree->may_tell || tree->may_tell(tree, watch, report))
                        watch_report(watch, report);
                else
                        subscription->source->n_reports++; /* it was as much work */
        }
        report_done(report);
}

void tree_report_at(struct tree *tree, struct dir *dir, struct report *report) {
        tree->where = tree->from_where = NULL;
        report_at(tree, dir, report);
}

static bool has_above(const struct dir *dir, uint64_t id) {
        while (dir && dir->id != id)
                dir = dir->parent;
        return dir != NULL;
}

static void report_up(struct tree *tree, struct dir *dir, const char *name, struct report *report, uint64_t start,
                      const struct dir *stop) {
        bool started = start == 0 || !has_above(dir, start);
        struct climb below;
        uint32_t mount = 0;

        climb_begin(&below, tree->scratch, name);
        for (struct dir *d = dir; d && d != stop && !tree_leaves_mount(d, &mount); d = d->parent) {
                started |= d->id == start;
                if (started && !list_empty(&d->subscriptions)) {
                        report->below = climb_path(&below);
                        report_at(tree, d, report);
                }
                if (!climb_up(&below, d->name)) {
                        /* Deeper than can be said: the part that can. */
                        report->notes = KEV_NOTE_RESCAN;
                        climb_begin(&below, tree->scratch, d->name);
                }
        }
}

void tree_report_up(struct tree *tree, struct dir *dir, const char *name, struct report *report, uint64_t start,
                    const struct dir *stop) {
        tree->where = dir;
        tree->from_where = NULL;
        report_up(tree, dir, name, report, start, stop);
}

void tree_report_self(struct tree *tree, struct dir *dir, struct report *report) {
        tree->where = dir->parent ? dir->parent : dir;
        tree->from_where = NULL;
        report_up(tree, dir, "", report, 0, NULL);
}

void tree_report_entry(struct tree *tree, struct dir *dir, const char *name, uint64_t notes, enum kev_kind kind,
                       uint64_t realtime_usec, struct dir *stop) {
        struct report report = REPORT_INIT;

        report.notes = notes;
        report.kind = kind;
        report.realtime_usec = realtime_usec;
        report.process = tree->process;
        report.count = tree->n_merged;
        tree_report_up(tree, dir, name, &report, 0, stop);
}

void tree_report_rescan(struct tree *tree, struct dir *dir) {
        struct report report = REPORT_INIT;

        report.notes = KEV_NOTE_RESCAN;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        tree_report_up(tree, dir, "", &report, 0, NULL);
        report.below = (struct event_path){ "", 0 };
        if (dir->n_watches == 0)
                return;
        list_for_each(entry, &tree->watches) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (watch->state == WATCH_IN_FORCE && watch->dir != dir && tree_is_below(watch->dir, dir))
                        watch_report(watch, &report);
                report_done(&report);
        }
}

/* False: it lies deeper than can be said. */
static bool climb_up_to(struct climb *c, const struct dir *dir, const struct dir *above) {
        for (; dir != above; dir = dir->parent)
                if (!climb_up(c, dir->name))
                        return false;
        return true;
}

void tree_report_rename(struct tree *tree, struct dir *from, const char *from_name, struct dir *to,
                        const char *to_name, struct dir *common, struct report *report) {
        struct climb below, from_below;
        uint32_t mount = 0;

        tree->where = to;
        tree->from_where = from;
        climb_begin(&below, tree->scratch, to_name);
        climb_begin(&from_below, tree->from_scratch, from_name);
        if (!climb_up_to(&below, to, common) || !climb_up_to(&from_below, from, common)) {
                tree_report_rescan(tree, common);
                return;
        }
        for (struct dir *d = common; d && !tree_leaves_mount(d, &mount); d = d->parent) {
                if (!list_empty(&d->subscriptions)) {
                        report->below = climb_path(&below);
                        report->from_below = climb_path(&from_below);
                        report_at(tree, d, report);
                }
                if (!climb_up(&below, d->name) || !climb_up(&from_below, d->name)) {
                        tree_report_rescan(tree, d);
                        return;
                }
        }
}

static void tell_alone(struct file_watch *watch, uint64_t notes, uint32_t flags, const char *path, size_t size,
                       uint64_t realtime_usec) {
        struct report report = REPORT_INIT;

        report.notes = notes;
        report.flags = flags;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_usec;
        report.below = (struct event_path){ path, size };
        watch_report(watch, &report);
        report_done(&report);
}

void tree_tell_rescan(struct file_watch *watch, const char *path, size_t size) {
        tell_alone(watch, KEV_NOTE_RESCAN, 0, path, size, realtime_nsec() / NSEC_PER_USEC);
}

void tree_tell_below(struct tree *tree, struct file_watch *watch, const struct dir *dir, uint64_t notes) {
        struct climb below;
        struct event_path path;
        uint32_t mount = 0;

        climb_begin(&below, tree->scratch, "");
        for (const struct dir *d = dir; d != watch->dir; d = d->parent) {
                if (tree_leaves_mount(d, &mount))
                        return;
                if (!climb_up(&below, d->name)) /* deeper than can be said: the part that can */
                        climb_begin(&below, tree->scratch, d->name);
        }
        if (tree_leaves_mount(watch->dir, &mount))
                return;
        path = climb_path(&below);
        tell_alone(watch, notes, 0, path.bytes, path.size, realtime_nsec() / NSEC_PER_USEC);
}

void tree_tell_self(struct file_watch *watch, uint64_t notes) {
        tell_alone(watch, notes, 0, "", 0, realtime_nsec() / NSEC_PER_USEC);
}

void tree_tell_gone(struct file_watch *watch, bool waits, uint64_t realtime_usec) {
        tell_alone(watch, KEV_NOTE_GONE, waits ? 0 : KEV_FLAG_EOF, "", 0, realtime_usec);
}

void tree_tell_seen(struct file_watch *watch, const struct report *report, bool sees_to, bool sees_from,
                    bool unfolds) {
        struct report part = report_copy(report);

        if (!report->from_below.bytes) {
                if (sees_to)
                        watch_report(watch, &part);
        } else if (sees_to && sees_from) {
                watch_report(watch, &part);
        } else if (sees_to || sees_from) {
                part.notes = (part.notes & ~KEV_NOTE_RENAME) | (sees_to ? KEV_NOTE_MOVEDIN : KEV_NOTE_MOVEDOUT);
                if (sees_from) {
                        part.notes &= ~KEV_NOTE_REPLACE;
                        part.below = part.from_below;
                }
                part.from_below = (struct event_path){ 0 };
                watch_report(watch, &part);
                if (sees_to && unfolds && part.kind == KEV_KIND_DIRECTORY)
                        tree_tell_rescan(watch, part.below.bytes, part.below.size);
        }
        report_done(&part);
}
