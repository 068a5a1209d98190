/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A tree watch on fanotify: what fanotify_attach.c, fanotify_wait.c, fanotify_mount.c and fanotify_access.c share. */

#include "fanotify.h"

struct fan_watch {
        struct file_watch watch;
        struct fanotify *s;
        struct peer *peer;
        struct view *view;   /* in force */
        struct group *group; /* what the answer that is awaited can be compared with */
        int fd;              /* what the client has passed, or -1 */
        bool list, exclude_self, wants_who;
        bool was_listed;     /* what is there is not to be told at first, but when it is back */
        bool returning;      /* `back` is to be told */
        struct inherited *inherited; /* while it is being restored: what it was in force on, */
        struct handle was;           /* and its directory */
        struct list restoring;       /* among all that are */
        bool again;          /* it is to be asked once more */
        bool to_be_checked;  /* once the mounts are read, or there is a stand-in again */
        bool hangs;          /* on its path is a file system that does not answer */
        unsigned tries;
        char kind_of_fs[32];
        struct asked *asked;
        uint64_t asked_at;
        struct buffer answer;
        struct due due;
        struct inquiry inquiry; /* while it is not known whether something is to be told */
        struct list attaching; /* among those that wait for the group, or for their turn to be asked for */
        struct list waiting;   /* among those of its peer, while its directory is not there */
        uint64_t wait_round;   /* the last in which it was asked for */
        uint64_t looked_at;    /* the last serial of what had come to be by then */
        struct list held;      /* events, until it is known whether they may be told */
        size_t n_held;
        struct list holding;   /* among those that hold some */
        struct list doubtful;  /* among those that are to be told `rescan` */
};

static inline struct fan_watch *fan_watch_of(struct file_watch *watch) {
        return container_of(watch, struct fan_watch, watch);
}

/* ---- fanotify_attach.c -------------------------------------------------------------------- */

/* A watch that asks for nothing yet. NULL: refused. */
struct fan_watch *fan_watch_new(struct fanotify *s, struct subscription *subscription, const struct subject *subject,
                                struct refusal *refusal);

/* Its directory is asked for; once more if that is under way. */
void fan_watch_ask(struct fan_watch *w);

/* ---- fanotify_save.c ---------------------------------------------------------------------- */

/* Whether the directory at the end of the links is the one that it had. */
bool fan_watch_was_at(const struct fan_watch *w, const char *links, size_t size);
/* It has its directory again, or is known not to have one. True: it was being restored. */
bool fan_watch_end_restoring(struct fan_watch *w);

/* ---- fanotify_wait.c ---------------------------------------------------------------------- */

/* The watch has no directory: from now on it waits for it. */
void fan_wait_begin(struct fan_watch *w);
/* It has its directory, or ends. */
void fan_wait_end(struct fan_watch *w);

/* ---- fanotify_access.c -------------------------------------------------------------------- */

/* The watch ends. */
void held_forget(struct fan_watch *watch);
/* What it is still to be told of doubts is told now: there is no later. */
void access_catch_up(struct fan_watch *watch);
/* Whether it may be told of a directory of which nothing is known. */
bool access_may_tell_unknown(const struct view *v, struct file_watch *watch);
