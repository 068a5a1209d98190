/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Tree watches on inotify: what their parts share.
 *
 *   inotify_tree.c    which directories are watched, and what events do to them
 *   inotify_crawl.c   asking what is there, and taking the answers
 *   inotify_names.c   names that must not be told twice
 */

#include "inotify.h"
#include "tree_report.h"

/* ---- inotify_tree.c ------------------------------------------------------------------- */

/* False: it was taken out, and is freed soon. */
bool tree_holds(const struct inotify *s, const struct dir *dir);
/* What a lookup was put for, as long as it is in the tree and watched. */
struct dir *tree_root_of(const struct inotify *s, const struct lookup *lookup);
/* `dir` is where the mark's inode is. A bind mount may show it in another place as well; on the same mount no two
 * places have it. False: one is about to leave with it, and its events tell where to. */
bool tree_claim(struct inotify *s, struct dir *dir, struct mark *mark);
/* The same without a question. It has no mark yet. */
void tree_set_mark(struct dir *dir, struct mark *mark);
/* Gives the watch its directory. */
void tree_enter(struct inotify *s, struct file_watch *watch, struct dir *dir);
/* Takes it out of the tree; it and what is below it are freed, in slices if it has been read. */
void tree_throw_away(struct inotify *s, struct dir *dir);
/* The same, of a directory that is gone, or may not be read: watches of it and below end. The root stays, and is not
 * watched any more. */
void tree_drop(struct inotify *s, struct dir *dir, uint64_t realtime_usec);
/* Something else is to be seen in its place: what no watch of its own holds goes. */
void tree_hide(struct inotify *s, struct dir *dir, uint64_t realtime_usec);
/* The watch has no directory any more. */
void tree_leave(struct inotify *s, struct file_watch *watch);
/* The watched directory itself is gone from where it was. */
void tree_end_watch(struct inotify *s, struct file_watch *watch, uint64_t realtime_usec);
/* Begins to watch what was looked up. */
void tree_start(struct inotify *s, struct file_watch *watch, struct lookup *lookup);
/* A watch of `dir` has ended: what nobody else watches goes. */
void tree_release(struct inotify *s, struct dir *dir);
/* The same, wherever one may have ended. */
void tree_release_all(struct inotify *s);

/* ---- inotify_crawl.c ------------------------------------------------------------------ */

/* Asks what `dir` and all below it are. With a serial it takes the place of an earlier question; with a user of 0, of
 * whoever watches it. Those who watch `stop`, which may be NULL, or above are not told. */
void tree_crawl(struct inotify *s, struct dir *dir, enum lookup_purpose purpose, uint64_t serial, uid_t user,
                struct dir *stop);
/* Nobody wants its answers any more; what has gone elsewhere meanwhile is asked by itself. */
void tree_forget_lookup(struct inotify *s, struct lookup *lookup);
/* To this watch alone: what of its directory, or below it, can't be watched. */
void tree_tell_degraded(struct inotify *s, struct file_watch *watch);
uid_t tree_user_of(const struct dir *dir);
/* Whether its path leads somewhere else than when the question was put. */
bool tree_has_moved(const struct dir *dir, const struct lookup *lookup);

/* ---- inotify_names.c ------------------------------------------------------------------ */

/* In s->listed. Without memory for it the name is told twice. */
void names_add_listed(struct inotify *s, const struct dir *dir, const char *name, const struct dir *stop);
/* Whether it is there; it is forgotten. `ret_stop`: who watches the directory of this id or one above was not told;
 * 0: everybody was. */
bool names_take(struct hash *table, const struct dir *dir, const char *name, uint64_t *ret_stop);
/* Whether an event has told of it, to all to whom it is news; it is forgotten. */
bool names_take_touched(struct inotify *s, const struct dir *dir, const char *name);
/* An event about an entry was handled. */
void names_touch(struct inotify *s, const struct dir *dir, const char *name);
