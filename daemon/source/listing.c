/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* listing.h says what this is about. One directory is listed at a time, so that its entries can be told in their place
 * among the events. */

#include "listing.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "log.h"
#include "tree_report.h"

enum {
        ASKED_MAX = 8, /* listings of a view under way */
        ROOM_ENTRIES = 64, /* of a list that are told between two looks at the queue */
        ROOM_MSEC = 5,
        TOUCHED_MAX = 256, /* names that had an event while a listing was asked; with more there is a rescan */
        /* What globs leave out takes its time, too. What many are told is in the way of what happens meanwhile, which
         * they have as a rescan then. */
        TOLD_USEC = 500, /* at a time, to one watch */
        TOLD_TO_MANY_USEC = 5000,
};

struct job {
        struct inquiry inquiry; /* of those without `only` */
        struct dir *stop;        /* a reference, or NULL */
        struct file_watch *only; /* NULL: all below `stop` from before the job */
        size_t n_listings;
        size_t n_in_part; /* of them, told in part */
        bool cancelled_only; /* the watch that it was for has ended */
};

struct touched {
        struct hash_node node;
        bool exists;
        enum kev_kind kind;
        struct handle object;
        char name[];
};

/* ---- names that had an event --------------------------------------------------------------------------- */

static uint64_t hash_name(const char *name, size_t size) {
        return hash_bytes(name, size, 0);
}

static struct touched *find_touched(const struct listing *l, const char *name, size_t size) {
        if (l->touched.n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&l->touched, hash_name(name, size)); n; n = hash_next(n)) {
                struct touched *t = container_of(n, struct touched, node);

                if (strncmp(t->name, name, size) == 0 && t->name[size] == 0)
                        return t;
        }
        return NULL;
}

/* NULL: there are too many, or there is no memory; or something was told already, and what is hidden since is told with
 * a rescan anyway. */
static struct touched *add_touched(struct listing *l, const char *name, size_t size) {
        bool has_room = l->state == LISTING_ASKED && l->touched.n_nodes < TOUCHED_MAX;
        struct touched *t = has_room ? malloc(sizeof(*t) + size + 1) : NULL;

        if (!t || hash_add(&l->touched, &t->node, hash_name(name, size)) < 0) {
                free(t);
                return NULL;
        }
        memcpy(t->name, name, size + 1);
        return t;
}

static void on_name(struct lister *lister, struct listing *l, const char *name, bool exists, enum kev_kind kind,
                    struct handle_ref object) {
        size_t size = strlen(name);
        struct touched *t;

        /* What is older than the question is in its answer. */
        if (l->state == LISTING_TO_DO || lister->class->is_older(lister, l))
                return;
        t = find_touched(l, name, size);
        if (!t)
                t = add_touched(l, name, size);
        if (!t) {
                l->missed = true;
                return;
        }
        t->exists = exists;
        t->kind = kind;
        handle_copy(&t->object, object);
}

void listing_on_name(struct lister *lister, struct dir *dir, const char *name, bool exists, enum kev_kind kind,
                     struct handle_ref object) {
        for (struct listing *l = dir->listing; l; l = l->next_on_dir)
                on_name(lister, l, name, exists, kind, object);
}

/* ---- jobs ----------------------------------------------------------------------------------------------- */

bool job_is_for(const struct job *job, const struct file_watch *watch) {
        if (job->only || job->cancelled_only)
                return job->only == watch;
        return watch->serial < job->inquiry.serial && !(job->stop && tree_is_below(job->stop, watch->dir));
}

/* Behind what is held back of the list. */
static void tell_listed(struct lister *lister, struct file_watch *watch) {
        struct report report = REPORT_INIT;

        report.notes = KEV_NOTE_LISTED;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        report.below = (struct event_path){ "", 0 };
        lister->tree->where = lister->tree->from_where = NULL;
        if (!lister->tree->may_tell || lister->tree->may_tell(lister->tree, watch, &report))
                watch_report(watch, &report);
        report_done(&report);
}

static void end_job(struct lister *lister, struct job *job) {
        if (job->only && job->only->state == WATCH_IN_FORCE)
                tell_listed(lister, job->only);
        tree_unref(lister->tree, job->stop);
        list_remove(&job->inquiry.link);
        free(job);
}

static void forget_touched(struct listing *l) {
        if (l->touched.n_nodes > 0)
                hash_for_each(node, &l->touched)
                        free(container_of(node, struct touched, node));
        hash_free(&l->touched);
}

static void free_listing(struct listing *l) {
        struct lister *lister = l->lister;
        struct job *job = l->job;

        lister->class->forget(l);
        list_remove(&l->link);
        job->n_in_part -= l->state == LISTING_TOLD_IN_PART;
        mux_defer(lister->mux, &lister->run); /* others have room now */
        for (struct listing **p = &l->dir->listing; *p; p = &(*p)->next_on_dir)
                if (*p == l) {
                        *p = l->next_on_dir;
                        break;
                }
        forget_touched(l);
        buffer_free(&l->entries);
        free(l);
        if (--job->n_listings == 0)
                end_job(lister, job);
}

static bool add_listing(struct lister *lister, struct job *job, struct dir *dir) {
        struct listing *l;

        for (l = dir->listing; l; l = l->next_on_dir)
                if (l->job == job)
                        return true;
        l = calloc(1, sizeof(*l));
        if (!l)
                return false;
        l->lister = lister;
        l->job = job;
        l->dir = dir;
        list_init(&l->due.link);
        l->next_on_dir = dir->listing;
        dir->listing = l;
        job->n_listings++;
        list_append(&lister->listings, &l->link);
        return true;
}

void job_start(struct lister *lister, struct dir *dir, struct dir *stop, struct file_watch *only) {
        struct job *job = calloc(1, sizeof(*job));

        if (!job) {
                lister->class->doubt(lister, "no memory for a list");
                if (only)
                        tell_listed(lister, only);
                return;
        }
        list_init(&job->inquiry.link);
        if (!only) /* a list is as fast as it is taken: nobody waits for its end */
                lister->class->inquire(lister, &job->inquiry);
        job->stop = tree_ref(stop);
        job->only = only;
        job->n_listings = 1; /* this very function */
        if (!add_listing(lister, job, dir))
                lister->class->doubt(lister, "no memory for a list");
        if (--job->n_listings == 0)
                end_job(lister, job);
        else
                mux_defer(lister->mux, &lister->run);
}

static bool is_covered(const struct dir *dir, const struct job *job) {
        for (; dir; dir = dir->parent)
                for (const struct listing *l = dir->listing; l; l = l->next_on_dir)
                        if (l->job == job)
                                return true;
        return false;
}

void listing_on_left(struct lister *lister, struct dir *dir, struct dir *from, struct dir *to) {
        if (list_empty(&lister->listings))
                return;
        for (struct dir *d = from; d; d = d->parent)
                for (struct listing *l = d->listing; l; l = l->next_on_dir)
                        if (!is_covered(to, l->job) && l->dir != dir && !add_listing(lister, l->job, dir))
                                lister->class->doubt(lister, "no memory for a list");
        mux_defer(lister->mux, &lister->run);
}

/* ---- asking, and telling ----------------------------------------------------------------------------------- */

static bool has_room(const struct lister *lister, const struct listing *l) {
        const struct file_watch *watch = l->job->only;

        return !watch || (watch->subscription->source->context->sink->has_room(watch->subscription) &&
                          (!lister->class->has_room || lister->class->has_room(watch)));
}

static void on_timer(struct mux_timer *timer);

static void go_on_later(struct lister *lister) {
        if (lister->timer.heap_index == 0)
                (void)mux_timer_set(lister->mux, &lister->timer, monotonic_nsec() + ROOM_MSEC * NSEC_PER_MSEC,
                                    on_timer);
}

static void run_listings(struct lister *lister) {
        size_t n = 0;

        list_for_each(entry, &lister->listings) {
                struct listing *l = list_entry(entry, struct listing, link);
                int r;

                if (n >= ASKED_MAX)
                        break;
                n += l->state == LISTING_ASKED || (l->state == LISTING_TOLD_IN_PART && has_room(lister, l));
                if (l->state != LISTING_TO_DO)
                        continue;
                if (l->job->n_in_part > 0 || !has_room(lister, l)) { /* one is enough to be kept */
                        go_on_later(lister);
                        continue;
                }
                l->state = LISTING_ASKED;
                r = lister->class->ask(lister, l);
                n++;
                if (r == 0)
                        continue;
                if (r != -ENOENT)
                        lister->class->doubt(lister, "a list can't be asked for");
                free_listing(l);
        }
}

static void tell_created(struct lister *lister, struct listing *l, const char *name, enum kev_kind kind,
                         struct handle_ref handle) {
        struct dir *child;

        tree_report_entry(lister->tree, l->dir, name, KEV_NOTE_CREATE, kind, realtime_nsec() / NSEC_PER_USEC, NULL);
        if (!l->job->only && lister->class->on_told)
                lister->class->on_told(lister, l->dir, name, handle);
        if (kind != KEV_KIND_DIRECTORY || !tree_wants(lister->tree, l->dir, name))
                return;
        if (lister->class->find(lister, l->dir, name, handle, &child) < 0 ||
            (child && !add_listing(lister, l->job, child)))
                lister->class->doubt(lister, "no memory for a list");
}

/* False: there is no room for more just now, or no time. */
static bool tell_listing(struct lister *lister, struct listing *l) {
        uint64_t until = monotonic_nsec() + (l->job->only ? TOLD_USEC : TOLD_TO_MANY_USEC) * NSEC_PER_USEC;
        const char *bytes = l->entries.data + l->n_told;
        size_t size = l->entries.size - l->n_told;
        struct link_view link;
        char name[PATH_MAX]; /* some file systems have more than NAME_MAX */

        for (unsigned n = 1; link_take(&bytes, &size, &link); n++) {
                l->n_told = l->entries.size - size;
                l->missed |= link.name_size >= sizeof(name);
                if (link.name_size >= sizeof(name) || find_touched(l, link.name, link.name_size))
                        continue;
                memcpy(name, link.name, link.name_size);
                name[link.name_size] = 0;
                tell_created(lister, l, name, link.kind, handle_refer(&link.handle));
                if ((n % ROOM_ENTRIES == 0 && !has_room(lister, l)) || (size > 0 && monotonic_nsec() >= until))
                        return false;
        }
        if (l->touched.n_nodes == 0)
                return true;
        hash_for_each(node, &l->touched) {
                const struct touched *t = container_of(node, struct touched, node);

                if (t->exists)
                        tell_created(lister, l, t->name, t->kind, handle_refer(&t->object));
        }
        return true;
}

static void tell(struct lister *lister, struct listing *l) {
        bool whole = true;

        lister->telling = l->job;
        lister->tree->process = NULL;
        lister->tree->n_merged = 1;
        if (l->error == 0)
                whole = tell_listing(lister, l);
        else if (l->error != ESTALE && l->error != ENOENT) {
                log_debug("a directory can't be listed: %s", strerror(l->error));
                tree_report_entry(lister->tree, l->dir, "", KEV_NOTE_RESCAN, KEV_KIND_DIRECTORY,
                                  realtime_nsec() / NSEC_PER_USEC, NULL);
        }
        if (whole && l->missed)
                tree_report_entry(lister->tree, l->dir, "", KEV_NOTE_RESCAN, KEV_KIND_DIRECTORY,
                                  realtime_nsec() / NSEC_PER_USEC, NULL);
        lister->telling = NULL;
        if (whole)
                free_listing(l);
        else {
                l->job->n_in_part += l->state != LISTING_TOLD_IN_PART;
                l->state = LISTING_TOLD_IN_PART;
                mux_defer(lister->mux, &lister->run);
        }
}

void listing_on_answer(struct listing *l, int error) {
        l->error = l->entries.error ? ENOMEM : error;
        tell(l->lister, l);
}

void listing_ask_again(struct listing *l) {
        forget_touched(l);
        buffer_reset(&l->entries);
        l->missed = false;
        l->state = LISTING_TO_DO;
        mux_defer(l->lister->mux, &l->lister->run);
}

/* With one that was told in part, and has room; the others have their turns after it. */
static void go_on(struct lister *lister) {
        list_for_each(entry, &lister->listings) {
                struct listing *l = list_entry(entry, struct listing, link);

                if (l->state != LISTING_TOLD_IN_PART)
                        continue;
                if (!has_room(lister, l)) {
                        go_on_later(lister);
                        continue;
                }
                list_remove(&l->link);
                list_append(&lister->listings, &l->link);
                mux_defer(lister->mux, &lister->run);
                tell(lister, l);
                return;
        }
}

static void on_run(struct mux_deferred *deferred) {
        struct lister *lister = container_of(deferred, struct lister, run);

        go_on(lister);
        run_listings(lister);
}

static void on_timer(struct mux_timer *timer) {
        struct lister *lister = container_of(timer, struct lister, timer);

        mux_defer(lister->mux, &lister->run);
}

void lister_init(struct lister *lister, const struct lister_class *class, struct tree *tree, struct mux *mux) {
        *lister = (struct lister){ .class = class, .tree = tree, .mux = mux, .timer = MUX_TIMER_INIT };
        list_init(&lister->listings);
        mux_deferred_init(&lister->run, on_run);
}

void lister_close(struct lister *lister) {
        jobs_free(lister);
        mux_deferred_cancel(&lister->run);
        mux_timer_clear(lister->mux, &lister->timer);
}

/* ---- what the rest has to know -------------------------------------------------------------------------------- */

bool listing_is_near(const struct lister *lister, const struct dir *dir) {
        if (list_empty(&lister->listings))
                return false;
        while (dir && !dir->listing)
                dir = dir->parent;
        return dir != NULL;
}

bool listing_hides(struct lister *lister, const struct dir *dir, const struct file_watch *watch) {
        if (list_empty(&lister->listings))
                return false;
        for (const struct dir *d = dir; d && d != watch->dir->parent; d = d->parent)
                for (struct listing *l = d->listing; l; l = l->next_on_dir) {
                        if (l->job == lister->telling || !job_is_for(l->job, watch))
                                continue;
                        l->missed |= l->state == LISTING_TOLD_IN_PART; /* it may be about what was told */
                        return true;
                }
        return false;
}

void listings_drop(struct lister *lister, struct dir *dir) {
        if (!dir->first_child && !dir->listing)
                return;
        list_for_each(entry, &lister->listings) {
                struct listing *l = list_entry(entry, struct listing, link);

                if (tree_is_below(l->dir, dir))
                        free_listing(l);
        }
}

void jobs_forget(struct lister *lister, struct file_watch *watch) {
        list_for_each(entry, &lister->listings) {
                struct listing *l = list_entry(entry, struct listing, link);

                if (l->job->only != watch)
                        continue;
                l->job->only = NULL;
                l->job->cancelled_only = true;
        }
        for (struct list *entry = lister->listings.next, *next; entry != &lister->listings; entry = next) {
                struct listing *l = list_entry(entry, struct listing, link);

                next = entry->next;
                if (l->job->cancelled_only)
                        free_listing(l);
        }
}

void jobs_free(struct lister *lister) {
        while (!list_empty(&lister->listings))
                free_listing(list_entry(lister->listings.next, struct listing, link));
}
