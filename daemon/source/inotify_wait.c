/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches whose directory is not there, and that wait for it: gone, or not made yet.
 *
 * Their path is looked up again when its next name appears in the nearest directory above that is there, when that
 * directory goes, and now and then: a symbolic link on the way, or a mount, may lead elsewhere without an event.
 */

#include <string.h>
#include <sys/inotify.h>

#include "inotify_tree.h"

enum {
        POLL_MIN_MSEC = 1000,
        POLL_MAX_MSEC = 16000,
};

static void on_wait_timer(struct mux_timer *timer);

static void set_timer(struct inotify *s) {
        (void)mux_timer_set(s->mux, &s->wait_timer, monotonic_nsec() + s->wait_msec * NSEC_PER_MSEC, on_wait_timer);
}

void wait_look(struct inotify *s, struct file_watch *watch) {
        if (watch->lookup) { /* its answer may be older than what led here */
                watch->again = true;
                return;
        }
        watch->lookup = lookup_new(LOOKUP_RESOLVE, watch->path);
        if (!watch->lookup)
                return;
        watch->lookup->watch = watch;
        watch->lookup->wait = true;
        if (submit(s, watch->lookup, watch->asker->uid, NULL, NULL) < 0)
                watch->lookup = lookup_free(watch->lookup);
}

void wait_look_all(struct inotify *s) {
        list_for_each(entry, &s->waiting)
                wait_look(s, list_entry(entry, struct file_watch, link));
}

static void on_wait_timer(struct mux_timer *timer) {
        struct inotify *s = container_of(timer, struct inotify, wait_timer);

        if (list_empty(&s->waiting))
                return;
        s->wait_msec = MIN(s->wait_msec * 2, (uint64_t)POLL_MAX_MSEC);
        set_timer(s);
        wait_look_all(s);
}

/* It waits for nothing in that directory any more. */
static void leave_above(struct inotify *s, struct file_watch *watch) {
        struct mark *mark = take_pointer(&watch->mark);

        list_remove(&watch->subscription->link);
        if (mark)
                mark_release(s, mark);
}

static void begin(struct inotify *s, struct file_watch *watch) {
        watch->state = WATCH_WAITING;
        list_append(&s->waiting, &watch->link);
        if (s->wait_timer.heap_index > 0 && s->wait_msec == POLL_MIN_MSEC)
                return; /* soon enough */
        s->wait_msec = POLL_MIN_MSEC;
        set_timer(s);
}

void wait_begin(struct inotify *s, struct file_watch *watch) {
        begin(s, watch);
        wait_look(s, watch);
}

void wait_end(struct inotify *s, struct file_watch *watch) {
        list_remove(&watch->link);
        leave_above(s, watch);
}

void wait_on_resolved(struct inotify *s, struct lookup *lookup) {
        struct file_watch *watch = lookup->watch;
        int wd = lookup->end.wd;
        struct mark *mark = lookup->error && wd >= 0 ? mark_of_answer(s, &lookup->end) : NULL;
        struct mark *before = take_pointer(&watch->mark);
        bool again = watch->again || mark_was_late(s, lookup->end.first_wd) || (mark && mark->dying);

        watch->again = false;
        list_remove(&watch->subscription->link);
        if (mark && !mark->dying) {
                watch->mark = mark;
                watch->missing = lookup->missing;
                list_append(&mark->waiters, &watch->subscription->link);
        } else if (wd >= 0)
                mark_orphan(s, wd);
        if (before)
                mark_release(s, before);
        if (again)
                wait_look(s, watch);
        else if (!lookup->error) {
                list_remove(&watch->link);
                watch->returning = true;
                tree_start(s, watch, lookup);
        }
}

void wait_on_started(struct inotify *s, struct file_watch *watch, int error) {
        watch->returning = false;
        if (error) {
                begin(s, watch);
                if (file_is_absent(error))
                        wait_look(s, watch);
                return;
        }
        watch->state = WATCH_IN_FORCE;
        crowd_begin(&s->crowds, watch);
        if (watch->again) {
                watch->again = false;
                tree_check_place(s, watch);
        }
        tree_tell_self(watch, KEV_NOTE_BACK | KEV_NOTE_RESCAN);
        if (watch->list)
                job_start(&s->lister, watch->dir, NULL, watch);
}

void wait_on_entry(struct inotify *s, struct mark *mark, const char *name) {
        size_t size = strlen(name);

        list_for_each(entry, &mark->waiters) {
                struct file_watch *watch = list_entry(entry, struct subscription, link)->object;
                const char *missing = watch->path + watch->missing;

                if (strncmp(missing, name, size) == 0 && (missing[size] == '/' || missing[size] == 0))
                        wait_look(s, watch);
        }
}

void wait_on_self(struct inotify *s, struct mark *mark) {
        list_for_each(entry, &mark->waiters)
                wait_look(s, list_entry(entry, struct subscription, link)->object);
}

void wait_on_unmarked(struct inotify *s, struct mark *mark) {
        struct list *entry;

        while ((entry = list_pop(&mark->waiters))) {
                struct file_watch *watch = list_entry(entry, struct subscription, link)->object;

                watch->mark = NULL;
                wait_look(s, watch);
        }
}
