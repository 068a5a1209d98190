/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Crowds: the tree watches that one user has of one directory, where they are many.
 *
 * What happens is told to a crowd as to anybody, as long as its user is not told more than so much in one turn of the
 * loop. What is more is put off: the crowd will be told `rescan` instead, a part of it in each turn, and what happens
 * until then costs the loop next to nothing, however many they are. So nobody can be told so much that others are late.
 *
 * The watches of a crowd are neighbours in their directory's list.
 */

#include "hash.h"
#include "list.h"
#include "mux.h"

struct crowd;
struct file_watch;

/* Of one source. */
struct crowds {
        struct mux *mux;
        void (*told)(struct crowds *crowds); /* the owner's: barriers may be past */
        struct hash table; /* struct crowd, by directory and user */
        struct hash users;
        struct list behind; /* those with something put off, in the order in which they are told */
        struct mux_deferred go_on;
        struct mux_timer timer;
        uint64_t serial;
};

void crowds_init(struct crowds *crowds, struct mux *mux, void (*told)(struct crowds *crowds));
/* No watch is left. */
void crowds_close(struct crowds *crowds);

/* Puts the watch into its directory's list; takes it out. */
void crowd_enter(struct crowds *crowds, struct file_watch *watch);
void crowd_leave(struct crowds *crowds, struct file_watch *watch);

/* That of a watch whose subscription is `in_crowd`. */
struct crowd *crowd_of(const struct crowds *crowds, const struct file_watch *watch);
/* The last of the neighbours. */
struct list *crowd_last(const struct crowd *crowd);
/* Something happens. True: it is put off, and nobody of the crowd is told now. */
bool crowd_puts_off(struct crowd *crowd);

/* A point in what happens, never 0; and whether the user has been told all that was put off before it. */
uint64_t crowds_mark(struct crowds *crowds);
bool crowds_have_told(const struct crowds *crowds, uid_t uid, uint64_t mark);
/* What is put off is told to that watch now: there is no later. */
void crowd_catch_up(const struct crowds *crowds, struct file_watch *watch);
