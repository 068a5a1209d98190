/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Telling what is in a directory, and in those below it, that is new to somebody: a
 * watch has asked for a list, or the directory was moved into a tree. From the
 * beginning of such a job until a directory's own listing is told, what happens in it
 * is kept from those to whom it is new: the listing tells what that has led to.
 *
 * How a directory is listed is the mechanism's: struct lister_class.
 */

#include "barrier.h"
#include "buffer.h"
#include "file_watch.h"
#include "handle.h"
#include "tree.h"

struct job;
struct lister;

/* An answer that is handled once all that was queued as it came is. */
struct due {
        struct list link;
        uint64_t number; /* the last event that comes before it */
        void (*fn)(struct due *due);
};

enum listing_state {
        LISTING_TO_DO,
        LISTING_ASKED,
        LISTING_TOLD_IN_PART,
};

struct listing {
        struct list link; /* in lister->listings */
        struct lister *lister;
        struct job *job;
        struct dir *dir;
        struct listing *next_on_dir; /* of another job */
        enum listing_state state;
        struct buffer entries; /* question.h: a link for each */
        size_t n_told;         /* bytes of them */
        int error;
        bool missed; /* something was kept back that no listing is going to tell */
        struct hash touched; /* names that had an event since it was asked, until something was told */
        /* The mechanism's own. */
        void *asked;
        uint64_t asked_at;
        struct due due;
};

struct lister_class {
        /* Asks for the entries of listing->dir: they are put into listing->entries, and at the moment, in the order of
         * events, that they are about, listing_on_answer() is called. -ENOENT: it can't be listed, and that is all
         * right; another: events may be missed. */
        int (*ask)(struct lister *lister, struct listing *listing);
        /* It is not wanted any more, asked or not. */
        void (*forget)(struct listing *listing);
        /* Whether the event at hand is older than the question. */
        bool (*is_older)(const struct lister *lister, const struct listing *listing);
        /* The directory of that name, which was listed; NULL: it is none that is followed. -ENOMEM. */
        int (*find)(struct lister *lister, struct dir *dir, const char *name, struct handle_ref handle,
                    struct dir **ret_dir);
        /* An entry was told to all below a directory. May be NULL. */
        void (*on_told)(struct lister *lister, struct dir *dir, const char *name, struct handle_ref handle);
        /* What is found may be events for which a barrier waits. NULL where job_start() is always given a watch. */
        void (*inquire)(struct lister *lister, struct inquiry *inquiry);
        /* Whether more can be told to a watch just now, beside what its sink says. May be NULL. */
        bool (*has_room)(const struct file_watch *watch);
        /* Something was missed. */
        void (*doubt)(struct lister *lister, const char *why);
};

struct lister {
        const struct lister_class *class;
        struct tree *tree;
        struct mux *mux;
        struct list listings;      /* under way, and to come */
        const struct job *telling; /* what is told just now is for those alone to whom it is new */
        struct mux_deferred run;
        struct mux_timer timer;
};

void lister_init(struct lister *lister, const struct lister_class *class, struct tree *tree, struct mux *mux);
void lister_close(struct lister *lister);

/* Tells what is in `dir` and below as created, to the watches from there up that are below `stop`; or to `only`, and
 * then `listed`. */
void job_start(struct lister *lister, struct dir *dir, struct dir *stop, struct file_watch *only);
bool job_is_for(const struct job *job, const struct file_watch *watch);
/* The watch ends. */
void jobs_forget(struct lister *lister, struct file_watch *watch);
void jobs_free(struct lister *lister);

/* Frees the listing, unless the watch has no room for all of it now. `error`: positive errno. */
void listing_on_answer(struct listing *listing, int error);
/* What was asked is of no use: it is asked once more. */
void listing_ask_again(struct listing *listing);
/* An event in `dir` has made or removed the name. */
void listing_on_name(struct lister *lister, struct dir *dir, const char *name, bool exists, enum kev_kind kind,
                     struct handle_ref object);
/* Whether anything is to be listed of `dir`, or of one above it, to whomever. */
bool listing_is_near(const struct lister *lister, const struct dir *dir);
/* Whether what happens in `dir` is still to be listed for the watch: then it is not told. Nor is what another listing
 * finds there: what became of that until the last one is told would be told by none. */
bool listing_hides(struct lister *lister, const struct dir *dir, const struct file_watch *watch);
/* `dir` is leaving: what was to be listed at or below it is not any more. */
void listings_drop(struct lister *lister, struct dir *dir);
/* `dir` has moved out of a directory that is new to some, and into one that is not. */
void listing_on_left(struct lister *lister, struct dir *dir, struct dir *from, struct dir *to);
