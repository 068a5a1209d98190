/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A watch of a file, or of a tree of directories, as the sources of files see it.
 */

#include "crowd.h"
#include "source.h"

struct dir;
struct lookup;
struct mark;

enum watch_state {
        WATCH_RESOLVING, /* a lookup tells what it is */
        WATCH_STARTING,  /* tree: directories are being watched */
        WATCH_IN_FORCE,
        WATCH_WAITING,   /* tree: the directory is not there; inotify_wait.c, fanotify_wait.c */
        WATCH_ENDED,     /* what was watched is gone */
};

/* One subscription here. */
struct file_watch {
        struct subscription *subscription;
        enum kev_filter filter;
        enum watch_state state;
        struct list link;      /* among all tree watches, or those that wait */
        struct lookup *lookup; /* while resolving, or while it is asked whether it is still there */
        uint64_t serial;       /* tree: in force once no crawl up to this is under way */
        struct list blocked;   /* tree, starting: among those that wait for the same crawl */
        struct dir *dir;       /* tree */
        struct crowd *crowd;   /* tree: with others of its user on that directory; NULL: they are few */
        uint64_t told_to;      /* tree: what a crowd's log has up to here is told, or none of it: crowd.c */
        dev_t device;          /* tree: of the directory */
        ino_t inode;
        struct mark *mark;     /* vnode; waiting: of the nearest directory above that is there, or NULL */
        char *path;            /* tree: as the client named it; NULL: by descriptor */
        size_t missing;        /* waiting: where in the path the name begins that is not there */
        bool again;            /* while a lookup is under way: it is to be asked once more */
        bool waits_first;      /* tree: the directory need not be there as the watch is made */
        bool returning;        /* starting after it waited: `back` is told when it is in force */
        uint32_t mask;         /* vnode */
        bool list;          /* tree: what is there is to be told, */
        bool was_listed;    /* but not at first: when it is back */
        bool second_choice; /* what covers more could not serve it */
        const struct asker *asker; /* as identity, too; outlives the watch */
};

/* Whether a positive errno says that there is nothing of that name; what it means to whoever asked for the path. */
bool file_is_absent(int error);
const char *file_error_text(int error);
/* A path of another mount namespace means something else. */
int check_mounts(const struct subject *subject, struct refusal *refusal);
/* inotify does not know who does what. */
int refuse_self_and_who(const struct subject *subject, struct refusal *refusal);

static inline void watch_report(struct file_watch *watch, struct report *report) {
        if (watch->crowd)
                crowd_before(watch, report);
        source_report(watch->subscription->source, watch->subscription, report);
}
