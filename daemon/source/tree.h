/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The tree of directories that file sources keep: which directory is where, by
 * name, from / down. A directory's rename moves one node, and every path below
 * it is right again.
 *
 * The tree knows no kernel interface. Nodes that nothing is attached to (no
 * mark, no subscription, no lookup, no gap to be closed, no child) are of no use; tree_prune() frees
 * them. A node with references is not freed before the last of them goes.
 */

#include "buffer.h"
#include "hash.h"
#include "list.h"

struct event_process;
struct file_watch;
struct listing;
struct lookup;
struct mark;
struct place;
struct report;

struct dir {
        struct hash_node node; /* by parent and name */
        struct dir *parent;    /* NULL: the root, or taken out of the tree */
        struct dir *first_child, *next, *previous;
        char *name;  /* `own_name`, or what was given with a move */
        uint64_t id; /* never used again */
        uint64_t placed; /* when it came to this place, in tree.n_placed */
        uint32_t n_watches; /* tree_count(), here and below */
        bool again;    /* what the lookup says will be in doubt */
        uint8_t again_purpose;
        bool changed;  /* its attributes, since it was asked about */
        bool limbo;    /* out of the tree, and freed with the last reference */
        /* The file source's own. */
        struct list subscriptions; /* tree watches of this very directory */
        struct mark *mark;         /* the kernel's watch; NULL: none */
        union {
                struct dir *next_on_mark;
                struct place *place; /* fanotify: its handle; NULL: not known */
        };
        struct list degraded;      /* among those that could not be watched */
        struct lookup *lookup;     /* under way, or NULL */
        uint32_t refs;             /* lookups that know it otherwise */
        uint32_t lookup_index;
        uint32_t mount; /* 0: not known, or of no interest */
        uint32_t renewed; /* inotify: tree.n_placed, as a move made what is below new to some */
        uint64_t listed_by; /* order of the last lookup that saw its name in a listing */
        struct listing *listing; /* it is new to some */
        char own_name[];
};

struct tree {
        struct hash names;
        struct dir *root;
        uint64_t next_id;
        uint64_t n_placed; /* how often a directory was made or moved */
        size_t n_dirs;
        struct list watches; /* the tree watches that have a directory here */
        char *scratch, *from_scratch; /* SCRATCH_BYTES each: paths, built from the end */
        /* The event at hand: where it happened, in both directories for a rename; who did it, or NULL. */
        const struct dir *where, *from_where;
        const struct event_process *process;
        unsigned n_merged; /* how many events of the kernel it stands for */
        /* Whether this watch may be told; NULL: all may. Of `where` NULL it may always. */
        bool (*may_tell)(struct tree *tree, struct file_watch *watch, const struct report *report);
        /* The same for a crowd (crowd.h) of which `one` is any: all of it may, or none, and `*ret_all` says which; but for the
         * watches of the process `*ret_except`, if that is not 0. False: each has to be asked. */
        bool (*may_tell_all)(struct tree *tree, struct file_watch *one, const struct report *report, bool *ret_all,
                             pid_t *ret_except);
};

enum { SCRATCH_BYTES = 128 * 1024 };

int tree_init(struct tree *tree);
/* The root alone must be left. */
void tree_free(struct tree *tree);

/* NULL: there is none of that name. */
struct dir *tree_child(const struct tree *tree, const struct dir *parent, const char *name);
/* The child, made if it isn't there. NULL: no memory. */
struct dir *tree_make_child(struct tree *tree, struct dir *parent, const char *name);
/* The node for the first `size` bytes of such a path as below. NULL: there is none. */
struct dir *tree_find_path(const struct tree *tree, const char *path, size_t size);
/* The node for an absolute path without ".", ".." and doubled slashes. */
struct dir *tree_make_path(struct tree *tree, const char *path);

/* Gives it another place and name, which no other node may have, and which is not
 * below it. -ENOMEM: it may be out of the tree. */
int tree_move(struct tree *tree, struct dir *dir, struct dir *parent, const char *name);
/* Takes it, with all below it, out of the tree; it is not freed. */
void tree_cut(struct tree *tree, struct dir *dir);
/* Frees a node that was cut, or is a leaf; with its last reference, if it has any.
 * It must have no children. */
void tree_free_dir(struct tree *tree, struct dir *dir);
struct dir *tree_ref(struct dir *dir);
/* What is of no use without the reference is freed. NULL is passed over. */
void tree_unref(struct tree *tree, struct dir *dir);
/* Frees `dir` and its ancestors as long as nothing is attached to them. */
void tree_prune(struct tree *tree, struct dir *dir);

/* One watch more, or less, of this very directory. */
void tree_count(struct dir *dir, int by);
/* Whether `dir` is `above` or below it. */
bool tree_is_below(const struct dir *dir, const struct dir *above);
/* On the way up from a directory, with a `*mount` of 0 at first: whether `dir` is on another mount than what was passed
 * so far. What is mounted below a watched directory does not belong to it. */
static inline bool tree_leaves_mount(const struct dir *dir, uint32_t *mount) {
        if (*mount == 0)
                *mount = dir->mount;
        return dir->mount != 0 && dir->mount != *mount;
}
/* The nearest that both are below. NULL: one of them is out of the tree. */
struct dir *tree_common(struct dir *a, struct dir *b);
/* Appends the absolute path, with a NUL that isn't counted. */
void tree_path(const struct dir *dir, struct buffer *b);
