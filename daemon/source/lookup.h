/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Questions to the file system, asked on a worker since the file system may
 * never answer, and the answers as messages to the loop.
 *
 * A lookup is made by the loop, belongs to the thread from lookup_submit() on
 * until its end message was taken, and is freed by the loop. Of its members the
 * thread uses only those that are marked so.
 */

#include <stdatomic.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "buffer.h"
#include "event.h"
#include "hash.h"
#include "mailbox.h"
#include "workers.h"

enum lookup_kind {
        LOOKUP_RESOLVE, /* which directory is it: canonical path, mount */
        LOOKUP_CRAWL,   /* a directory and all below it: watch and list each */
        LOOKUP_VNODE,   /* watch one file or directory */
        LOOKUP_STAT,    /* what is a file like now */
        LOOKUP_PLACE,   /* the same, of a watched directory: is it still there */
        LOOKUP_NAME,    /* the same, of a name in a directory: is there anything */
        LOOKUP_LIST,    /* what is in a directory */
        LOOKUP_ACCESS,  /* may a directory be read still */
};

/* What a crawl is for; a stronger purpose has a higher number. */
enum lookup_purpose {
        PURPOSE_INITIAL, /* for a watch that is being made: nothing is told */
        PURPOSE_NEW,     /* a directory that has appeared: what is in it is told as created */
        PURPOSE_RECHECK, /* what was known is in doubt: `rescan` is told at the end */
};

struct file_state {
        dev_t device;
        ino_t inode;
        mode_t mode;
        uid_t uid;
        gid_t gid;
        nlink_t links;
        off_t size;
        struct timespec modified, changed;
};

struct lookup_message {
        struct list link; /* in the mailbox, then among its lookup's answers */
        struct lookup *lookup;
        bool end; /* the lookup's last; embedded in it */
        int wd;   /* that it brings, or -1 */
        bool is_second; /* another lookup may have brought this wd before, and its answer may be still to come */
        /* The kernel's first event of this wd comes after the watch was made: of `wd` if that is new, else of a marker.
         * -1: nothing tells. */
        int first_wd;
        /* The loop's own. */
        struct list due;       /* among all answers that were taken, in the order of their coming */
        struct hash_node node; /* by first_wd */
        uint64_t position;     /* what the kernel had queued by then comes first; UINT64_MAX: not known yet */
};

/* One directory of a crawl. */
struct found {
        struct lookup_message message;
        uint32_t index; /* in the lookup's own numbering; the root is 0 */
        uint32_t first_child; /* index of the first directory in `entries` */
        int error; /* positive errno: not watched */
        bool more; /* the same directory's next part follows */
        size_t n_entries;
        size_t size;
        char entries[]; /* each: its kind (enum kev_kind) as a byte, its name, NUL */
};

struct dir;
struct file_watch;
struct listing;
struct vnode;

/* What the lookups of one source share. */
struct lookup_context {
        int inotify_fd;
        struct mailbox *mailbox;
        int marker_fd; /* nobody else's file: a watch of it that is removed at once leaves its IN_IGNORED as a marker */
        pthread_mutex_t marker_lock;
        atomic_int newest_wd; /* the kernel counts up: what is above is new, what is below may be known */
        /* A section: a lookup may have made a watch that no message tells of yet. */
        pthread_mutex_t section_lock;
        struct list sections; /* lookups, in the order of their beginning */
        uint64_t n_sections;  /* ever begun */
};

struct lookup {
        struct work work;

        /* The thread reads. */
        enum lookup_kind kind;
        struct lookup_context *context;
        char *path;
        int fd; /* a passed descriptor, or -1; the thread puts an O_PATH one in its place, which can be closed anywhere */
        uint32_t mask;
        bool list_files; /* CRAWL */
        bool shallow; /* CRAWL: nothing below the directory; the loop asks for what is wanted */
        uint32_t only_mount; /* CRAWL, LIST: another is not entered, EXDEV; 0: whichever it is on */
        bool wait; /* RESOLVE: where nothing is there, watch the nearest directory above that is */
        atomic_bool cancelled;

        /* The thread writes, before the end message. */
        int error; /* positive errno */
        char *canonical;
        uint32_t mount;
        size_t missing; /* RESOLVE, `wait`: where in `path` the name begins that is not there */
        struct list section; /* under section_lock */
        uint64_t section_number;
        struct file_state state;
        dev_t parent_device; /* LOOKUP_VNODE, LOOKUP_STAT: of the directory that the path leads through */
        ino_t parent_inode;
        uint32_t next_index;
        struct buffer entries; /* LIST: question.h, a link for each */
        char *space;      /* for getdents64(2) */
        bool has_own_cwd; /* the thread: it may go where it likes */
        struct lookup_message end;

        /* The loop's own. */
        struct list link;
        struct list answers; /* messages that were taken and are not handled */
        struct list among;   /* CRAWL: among all of these, by serial; NAME: the same, by what they are about, until it is
                              * answered */
        struct hash_node by_name; /* NAME: as long as it is among them */
        struct list blocked; /* watches that wait for this one */
        uint64_t serial;
        uint64_t order; /* of submission */
        uid_t user;
        enum lookup_purpose purpose;
        struct dir **dirs; /* by index; NULL: of no interest any more */
        size_t n_dirs, dirs_capacity;
        struct dir *root; /* CRAWL: what is asked about; NAME: where the name is. A reference; may be out of the tree */
        bool part;        /* of a crawl that goes directory by directory */
        bool was_marked;  /* the root was watched before */
        bool forgotten;   /* nobody watches what `root` is any more */
        bool recovered;   /* some of it could not be watched before */
        bool doubted;     /* something happened meanwhile: it, or part of it, will be asked again */
        struct dir *stop; /* NAME: the other directory; CRAWL: told no higher than below this one. The same */
        struct dir *moved; /* NAME: what may be another than it is taken for. The same */
        uint64_t n_placed; /* tree.n_placed at submission: what was placed since is younger */
        struct file_watch *watch;
        int watched_wd; /* STAT: the mark it is about; NAME: that of `root` as it was asked, or -1 */
        struct listing *listing; /* LIST: that it is for; NULL: it is not wanted any more */
};

/* The error of a directory that lies too deep for one walk: ask for it again. */
enum { LOOKUP_DEPTH_MAX = 128, ERROR_TOO_DEEP = 4096 };

int lookup_context_open(struct lookup_context *context, int inotify_fd, struct mailbox *mailbox);
/* No lookup of it may be on a thread any more. */
void lookup_context_close(struct lookup_context *context);
/* How many sections have begun. */
uint64_t lookup_count_sections(struct lookup_context *context);
/* Whether all of so many have ended: what they have to tell was sent. */
bool lookup_has_ended_sections(struct lookup_context *context, uint64_t n);

struct lookup *lookup_new(enum lookup_kind kind, const char *path);
struct lookup *lookup_free(struct lookup *lookup);
void lookup_end_section(struct lookup *lookup);
/* `context` has to be set. */
int lookup_submit(struct workers *workers, struct lookup *lookup);
