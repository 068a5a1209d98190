/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Trees at a queue's bound: what a watch has becomes `rescan` for the directories that cover it. merge.c says when. */

#include <stdbool.h>
#include <stddef.h>

struct event;
struct watch;

enum { FOLDS_MAX = 64 };

/* How much is given up, one step after another. */
struct fold_degree {
        bool keep_directories; /* those that came or went are left by themselves */
        size_t n_folds;        /* rescans of a watch, at most */
};

/* Notes of directories by which other paths mean something else. */
#define NOTES_OF_PLACE (KEV_NOTE_CREATE | KEV_NOTE_DELETE | KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT | KEV_NOTE_RENAME)
/* Told as they are, whatever happens. */
#define NOTES_KEPT (KEV_NOTE_GONE | KEV_NOTE_BACK | KEV_NOTE_LISTED)

/* The bytes that folding would make fewer. */
size_t fold_bytes(const struct watch *watch, const struct fold_degree *degree);
/* Everything that the watch has. False: no memory; what could not be folded is still there. */
bool fold_watch(struct watch *watch, const struct fold_degree *degree);
/* Of a watch with pending rescans: whether the event is covered by one, and counted there. */
bool fold_in(struct watch *watch, const struct event *event);
/* An event was appended: pending rescans whose meaning it changes come after it. */
void fold_put_last(struct watch *watch, const struct event *event);
