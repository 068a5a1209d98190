/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Crowds: the tree watches that one user has of one directory, where they are many.
 *
 * What is told to few is told at once. What is told to more is put down in the crowd's log, and told from there a slice
 * in each turn of the loop, whatever one user's crowds are; so nobody has so many watches that others are late. A user's
 * logs have a bound. Beyond it a crowd's is dropped, and all of it are told `rescan` instead, a slice in each turn as
 * well; what happens until then costs next to nothing, however many they are.
 *
 * Each watch is told in the order in which things happen: before it is told anything by itself it is told what the log
 * has for it (crowd_before()).
 *
 * The watches of a crowd are neighbours in their directory's list.
 */

#include "hash.h"
#include "list.h"
#include "mux.h"

struct crowd;
struct file_watch;
struct report;

/* Of one source. */
struct crowds {
        struct mux *mux;
        void (*told)(struct crowds *crowds); /* the owner's: barriers may be past */
        /* Whether two watches of a user's are told the same of whatever happens; NULL: they always are. */
        bool (*alike)(const struct file_watch *a, const struct file_watch *b);
        struct hash users;
        struct list telling; /* users with something in a log, in turns */
        struct list behind;  /* crowds that are to be told `rescan`, in the order in which they are */
        struct mux_deferred go_on;
        struct mux_timer timer;
        uint64_t serial; /* of what happens, and of marks */
};

void crowds_init(struct crowds *crowds, struct mux *mux, void (*told)(struct crowds *crowds));
/* No watch is left. */
void crowds_close(struct crowds *crowds);

/* Puts the watch into its directory's list; takes it out. What the log had for it is not told any more. */
void crowd_enter(struct crowds *crowds, struct file_watch *watch);
void crowd_leave(struct file_watch *watch);
/* The watch is in force from here on: what is in the log is none of it. */
void crowd_begin(struct crowds *crowds, struct file_watch *watch);

/* The last of the neighbours. */
struct list *crowd_last(const struct crowd *crowd);
/* They are few, their user has not been told much in this turn, and nothing is put off: what happens is told at once. */
bool crowd_is_at_rest(struct crowd *crowd);
/* Something happens of which all are told the same; `report` NULL: nothing. `except`: but for the watches of that process;
 * 0: for all. */
void crowd_put_down(struct crowd *crowd, const struct report *report, pid_t except);
/* Something happens that may not be the same for all. True: they are to be told `rescan` anyway; else each is told by
 * itself. */
bool crowd_covers(struct crowd *crowd);
/* The watch of a crowd is about to be told something by itself; NULL: nothing, but it changes, or ends. */
void crowd_before(struct file_watch *watch, const struct report *report);

/* A point in what happens, never 0; and whether the user has been told all that was put off before it. */
uint64_t crowds_mark(struct crowds *crowds);
bool crowds_have_told(const struct crowds *crowds, uid_t uid, uint64_t mark);
/* What is put off for that watch is told to it now, as `rescan`: there is no later. */
void crowd_catch_up(struct file_watch *watch);
