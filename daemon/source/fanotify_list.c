/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Telling what is in a directory, and in those below it, that is new to somebody: it
 * was moved into a tree, or the watch asked for a list. One directory is listed at a
 * time, by the surveyor; from the beginning of a job until a directory's own listing
 * is told, what happens in it is kept from those to whom it is new.
 */

#include <errno.h>
#include <string.h>

#include "fanotify.h"
#include "log.h"

enum {
        ASKED_MAX = 8, /* listings of a view under way */
        ROOM_ENTRIES = 64, /* of a list that are told between two looks at the queue */
        ROOM_MSEC = 5,
};

struct job {
        struct inquiry inquiry;
        struct dir *stop;        /* a reference, or NULL */
        struct file_watch *only; /* NULL: all below `stop` from before the job */
        size_t n_listings;
        bool part;           /* of a list that is told by another job */
        bool cancelled_only; /* the watch that it was for has ended */
};

enum listing_state {
        LISTING_TO_DO,
        LISTING_ASKED,
        LISTING_DUE,
        LISTING_TOLD_IN_PART,
};

struct listing {
        struct list link; /* in view->listings */
        struct due due;
        struct view *view;
        struct job *job;
        struct dir *dir;
        struct listing *next_on_dir; /* of another job */
        enum listing_state state;
        struct asked *asked;
        uint64_t asked_at;
        struct buffer entries;
        size_t n_told; /* bytes of them */
        int error;
        struct hash touched; /* names that had an event since it was asked */
};

struct touched {
        struct hash_node node;
        bool exists;
        bool was_told; /* by the listing */
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

/* In the part of a listing that was told already. */
static bool was_told(const struct listing *l, const char *name, size_t size) {
        const char *bytes = l->entries.data;
        size_t left = l->state == LISTING_TOLD_IN_PART ? l->n_told : 0;
        struct link_view link;

        while (link_take(&bytes, &left, &link))
                if (link.name_size == size && memcmp(link.name, name, size) == 0)
                        return true;
        return false;
}

static void on_name(struct view *v, struct listing *l, const char *name, bool exists, enum kev_kind kind,
                    struct handle_ref object) {
        size_t size = strlen(name);
        struct touched *t;

        /* What is older than the question is in its answer. */
        if (l->state == LISTING_TO_DO || v->group->n_handled + 1 <= l->asked_at)
                return;
        t = find_touched(l, name, size);
        if (!t) {
                t = malloc(sizeof(*t) + size + 1);
                if (!t || hash_add(&l->touched, &t->node, hash_name(name, size)) < 0) {
                        free(t);
                        group_doubt(v->group, "no memory for a name");
                        return;
                }
                memcpy(t->name, name, size + 1);
                t->was_told = was_told(l, name, size);
        }
        t->exists = exists;
        t->kind = kind;
        handle_copy(&t->object, object);
}

void listing_on_name(struct view *v, struct dir *dir, const char *name, bool exists, enum kev_kind kind,
                     struct handle_ref object) {
        for (struct listing *l = dir->listing; l; l = l->next_on_dir)
                on_name(v, l, name, exists, kind, object);
}

/* ---- jobs ----------------------------------------------------------------------------------------------- */

bool job_is_for(const struct job *job, const struct file_watch *watch) {
        if (job->only || job->cancelled_only)
                return job->only == watch;
        return watch->serial < job->inquiry.serial && !(job->stop && tree_is_below(job->stop, watch->dir));
}

static void end_job(struct view *v, struct job *job) {
        struct report report = REPORT_INIT;

        if (job->only && !job->part && job->only->state == WATCH_IN_FORCE) {
                report.notes = KEV_NOTE_LISTED;
                report.kind = KEV_KIND_DIRECTORY;
                report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
                report.below = (struct event_path){ "", 0 };
                watch_report(job->only, &report);
                report_done(&report);
        }
        tree_unref(&v->tree, job->stop);
        inquiry_end(v->group->s, &job->inquiry);
        free(job);
}

static void free_listing(struct listing *l) {
        struct view *v = l->view;
        struct job *job = l->job;

        if (l->asked)
                asked_forget(l->asked);
        list_remove(&l->due.link);
        list_remove(&l->link);
        mux_defer(v->group->s->mux, &v->run_listings); /* others have room now */
        for (struct listing **p = &l->dir->listing; *p; p = &(*p)->next_on_dir)
                if (*p == l) {
                        *p = l->next_on_dir;
                        break;
                }
        if (l->touched.n_nodes > 0)
                hash_for_each(node, &l->touched)
                        free(container_of(node, struct touched, node));
        hash_free(&l->touched);
        buffer_free(&l->entries);
        free(l);
        if (--job->n_listings == 0)
                end_job(v, job);
}

static bool has_room(const struct listing *l);
static void go_on_later(struct view *v);
static void run_listings(struct view *v);
static void on_due(struct due *due);

static bool add_listing(struct view *v, struct job *job, struct dir *dir) {
        struct listing *l;

        for (l = dir->listing; l; l = l->next_on_dir)
                if (l->job == job)
                        return true;
        l = calloc(1, sizeof(*l));
        if (!l)
                return false;
        l->view = v;
        l->job = job;
        l->dir = dir;
        l->due.fn = on_due;
        list_init(&l->due.link);
        l->next_on_dir = dir->listing;
        dir->listing = l;
        job->n_listings++;
        list_append(&v->listings, &l->link);
        return true;
}

static void start(struct view *v, struct dir *dir, struct dir *stop, struct file_watch *only, bool part) {
        struct job *job = calloc(1, sizeof(*job));

        if (!job) {
                group_doubt(v->group, "no memory for a list");
                return;
        }
        if (only) /* as fast as it is taken: nobody waits for its end */
                list_init(&job->inquiry.link);
        else
                inquiry_begin(v->group->s, &job->inquiry);
        job->stop = tree_ref(stop);
        job->only = only;
        job->part = part;
        job->n_listings = 1; /* this very function */
        if (!add_listing(v, job, dir))
                group_doubt(v->group, "no memory for a list");
        if (--job->n_listings == 0)
                end_job(v, job);
        else
                mux_defer(v->group->s->mux, &v->run_listings);
}

void job_start(struct view *v, struct dir *dir, struct dir *stop, struct file_watch *only) {
        start(v, dir, stop, only, false);
}

static bool is_covered(const struct dir *dir, const struct job *job) {
        for (; dir; dir = dir->parent)
                for (const struct listing *l = dir->listing; l; l = l->next_on_dir)
                        if (l->job == job)
                                return true;
        return false;
}

void listing_on_left(struct view *v, struct dir *dir, struct dir *from, struct dir *to) {
        for (struct dir *d = from; d; d = d->parent)
                for (struct listing *l = d->listing; l; l = l->next_on_dir)
                        if (!is_covered(to, l->job) && l->dir != dir)
                                start(v, dir, l->job->stop, l->job->only, true);
}

/* ---- asking, and telling ----------------------------------------------------------------------------------- */

static void on_listed(void *owner, const struct answer *answer, const char *bytes) {
        struct listing *l = owner;

        if (answer->size > 0)
                buffer_put(&l->entries, bytes, answer->size);
        if (answer->more)
                return;
        l->asked = NULL;
        l->state = LISTING_DUE;
        l->error = l->entries.error ? ENOMEM : answer->error;
        group_await(l->view->group, &l->due);
}

static void run_listings(struct view *v) {
        size_t n = 0;

        list_for_each(entry, &v->listings) {
                struct listing *l = list_entry(entry, struct listing, link);
                struct question question;

                if (n >= ASKED_MAX)
                        break;
                n += l->state == LISTING_ASKED;
                if (l->state != LISTING_TO_DO)
                        continue;
                if (!has_room(l)) {
                        go_on_later(v);
                        continue;
                }
                if (!l->dir->place) { /* its handle couldn't be had: a file system of its own, say */
                        free_listing(l);
                        continue;
                }
                question = view_question(v, QUESTION_LIST, place_handle(l->dir->place));
                l->asked_at = v->group->n_read;
                l->state = LISTING_ASKED;
                l->asked = helper_ask(&v->group->surveyor, &question, NULL, -1, on_listed, l);
                n++;
                if (!l->asked) {
                        group_doubt(v->group, "a list can't be asked for");
                        free_listing(l);
                }
        }
}

static void tell_created(struct view *v, struct listing *l, const char *name, enum kev_kind kind,
                         struct handle_ref handle) {
        struct dir *child;

        tree_report_entry(&v->tree, l->dir, name, KEV_NOTE_CREATE, kind, realtime_nsec() / NSEC_PER_USEC, NULL);
        if (!l->job->only && l->dir->place && handle.size > 0)
                names_on_corrected(v->group, place_handle(l->dir->place), name, true, handle);
        if (kind != KEV_KIND_DIRECTORY || handle.size == 0 || !tree_wants(&v->tree, l->dir, name))
                return;
        child = fan_tree_place(v, l->dir, name, handle);
        if (!child || !add_listing(v, l->job, child))
                group_doubt(v->group, "no memory for a list");
}

static bool has_room(const struct listing *l) {
        const struct file_watch *watch = l->job->only;

        return !watch || watch->subscription->source->context->sink->has_room(watch->subscription);
}

/* False: there is no room for more just now. */
static bool tell_listing(struct view *v, struct listing *l) {
        const char *bytes = l->entries.data + l->n_told;
        size_t size = l->entries.size - l->n_told;
        struct link_view link;
        char name[256];

        for (unsigned n = 1; link_take(&bytes, &size, &link); n++) {
                l->n_told = l->entries.size - size;
                if (link.name_size >= sizeof(name) || find_touched(l, link.name, link.name_size))
                        continue;
                memcpy(name, link.name, link.name_size);
                name[link.name_size] = 0;
                tell_created(v, l, name, link.kind, handle_refer(&link.handle));
                if (n % ROOM_ENTRIES == 0 && !has_room(l))
                        return false;
        }
        if (l->touched.n_nodes == 0)
                return true;
        hash_for_each(node, &l->touched) {
                const struct touched *t = container_of(node, struct touched, node);

                if (t->was_told)
                        tree_report_entry(&v->tree, l->dir, t->name, KEV_NOTE_DELETE, t->kind,
                                          realtime_nsec() / NSEC_PER_USEC, NULL);
                if (t->exists)
                        tell_created(v, l, t->name, t->kind, handle_refer(&t->object));
        }
        return true;
}

static void on_list_timer(struct mux_timer *timer) {
        struct fanotify *s = container_of(timer, struct fanotify, list_timer);

        list_for_each(entry, &s->groups) {
                struct group *g = list_entry(entry, struct group, link);

                list_for_each(entry_of_view, &g->views)
                        listings_go_on(list_entry(entry_of_view, struct view, link));
        }
}

static void go_on_later(struct view *v) {
        struct fanotify *s = v->group->s;

        if (s->list_timer.heap_index == 0)
                (void)mux_timer_set(s->mux, &s->list_timer, monotonic_nsec() + ROOM_MSEC * NSEC_PER_MSEC,
                                    on_list_timer);
}

static void tell(struct listing *l) {
        struct view *v = l->view;
        bool whole = true;

        v->telling = l->job;
        v->tree.process = NULL;
        v->pid = 0;
        v->tree.n_merged = 1;
        if (l->error == 0)
                whole = tell_listing(v, l);
        else if (l->error != ESTALE && l->error != ENOENT) {
                log_debug("fanotify: a directory can't be listed: %s", strerror(l->error));
                tree_report_entry(&v->tree, l->dir, "", KEV_NOTE_RESCAN, KEV_KIND_DIRECTORY,
                                  realtime_nsec() / NSEC_PER_USEC, NULL);
        }
        v->telling = NULL;
        if (whole)
                free_listing(l);
        else {
                l->state = LISTING_TOLD_IN_PART;
                go_on_later(v);
        }
}

static void on_due(struct due *due) {
        struct listing *l = container_of(due, struct listing, due);

        tell(l);
}

static void on_run_listings(struct mux_deferred *deferred) {
        run_listings(container_of(deferred, struct view, run_listings));
}

void listings_init(struct view *v) {
        mux_deferred_init(&v->run_listings, on_run_listings);
}

void listings_go_on(struct view *v) {
        list_for_each(entry, &v->listings) {
                struct listing *l = list_entry(entry, struct listing, link);

                if (l->state != LISTING_TOLD_IN_PART)
                        continue;
                if (has_room(l))
                        tell(l);
                else
                        go_on_later(v);
        }
        mux_defer(v->group->s->mux, &v->run_listings);
}

/* ---- what the rest has to know -------------------------------------------------------------------------------- */

bool listing_hides(const struct view *v, const struct dir *dir, const struct file_watch *watch) {
        if (list_empty(&v->listings))
                return false;
        for (const struct dir *d = dir; d && d != watch->dir->parent; d = d->parent)
                for (const struct listing *l = d->listing; l; l = l->next_on_dir)
                        if (job_is_for(l->job, watch))
                                return true;
        return false;
}

void listings_drop(struct view *v, struct dir *dir) {
        list_for_each(entry, &v->listings) {
                struct listing *l = list_entry(entry, struct listing, link);

                if (tree_is_below(l->dir, dir))
                        free_listing(l);
        }
}

void jobs_forget(struct view *v, struct file_watch *watch) {
        list_for_each(entry, &v->listings) {
                struct listing *l = list_entry(entry, struct listing, link);

                if (l->job->only != watch)
                        continue;
                l->job->only = NULL;
                l->job->cancelled_only = true;
        }
        for (struct list *entry = v->listings.next, *next; entry != &v->listings; entry = next) {
                struct listing *l = list_entry(entry, struct listing, link);

                next = entry->next;
                if (l->job->cancelled_only)
                        free_listing(l);
        }
}

void jobs_free(struct view *v) {
        while (!list_empty(&v->listings))
                free_listing(list_entry(v->listings.next, struct listing, link));
}
