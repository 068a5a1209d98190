/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the sources of files have in common above the tree of directories: which
 * of them are wanted, and telling what happened to the watches on the way up.
 */

#include "file_watch.h"
#include "tree.h"

/* ---- tree_cover.c ------------------------------------------------------------------ */

/* A path that grows towards the front. */
struct climb {
        char *buffer;
        size_t start; /* SCRATCH_BYTES - 1: empty */
};

void climb_begin(struct climb *c, char *buffer, const char *name);
/* Puts a directory's name in front. False: no room for it. */
bool climb_up(struct climb *c, const char *name);
struct event_path climb_path(const struct climb *c);

/* Whether there is a watch of `dir` or of one above it, but below `stop`. */
bool tree_is_watched_below(const struct dir *dir, const struct dir *stop);
/* Whether such a watch is about anything below the directory `name` in `dir`, or `dir` itself where it is empty. */
bool tree_wants(struct tree *tree, const struct dir *dir, const char *name);
/* Whether one of them is about all below `dir`. */
bool tree_wants_all(const struct dir *dir);
/* Whether to those who see both ends what is below is of the same interest after a move as before. */
bool tree_wants_alike(struct tree *tree, const struct dir *from, const char *from_name, const struct dir *to,
                      const char *to_name, const struct dir *common);

/* ---- tree_report.c ----------------------------------------------------------------- */

/* To those who watch this very directory. */
void tree_report_at(struct tree *tree, struct dir *dir, struct report *report);
/* About `name` in `dir` (or `dir` itself where it is empty), to the watches from there up, those below the directory
 * `start` left out, and those at `stop` and above. With a `start` of 0, or that is not above any more, none below
 * are. */
void tree_report_up(struct tree *tree, struct dir *dir, const char *name, struct report *report, uint64_t start,
                    const struct dir *stop);
/* About `dir` itself, as it is seen in the directory above. */
void tree_report_self(struct tree *tree, struct dir *dir, struct report *report);
void tree_report_entry(struct tree *tree, struct dir *dir, const char *name, uint64_t notes, enum kev_kind kind,
                       uint64_t realtime_usec, struct dir *stop);
/* To the watches that see both ends. */
void tree_report_rename(struct tree *tree, struct dir *from, const char *from_name, struct dir *to,
                        const char *to_name, struct dir *common, struct report *report);
/* To this watch alone: what is at that path is to be looked at again. */
void tree_tell_rescan(struct file_watch *watch, const char *path, size_t size);
/* To this watch alone, about what it watches or a directory below that, unless that is on another mount. */
void tree_tell_below(struct tree *tree, struct file_watch *watch, const struct dir *dir, uint64_t notes);
/* To this watch alone, about what it watches. */
void tree_tell_self(struct file_watch *watch, uint64_t notes);
/* The same: it is gone, and if the watch does not wait for it, that is the end. */
void tree_tell_gone(struct file_watch *watch, bool waits, uint64_t realtime_usec);
/* To this watch alone, as far as it sees the two ends of a move, or the one place. `unfolds`: what is in a directory
 * that it sees arrive was not told, and nobody is going to. */
void tree_tell_seen(struct file_watch *watch, const struct report *report, bool sees_to, bool sees_from, bool unfolds);
/* `dir` and all below it are in doubt: told to those above for `dir`, to those within for themselves. */
void tree_report_rescan(struct tree *tree, struct dir *dir);
