/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * kev proc --track on a terminal: the processes that are followed, as a tree that
 * is drawn again in place as events come. Those that have ended stay for a
 * moment, with how they ended.
 *
 * The terminal is left in no other state than it was found in, at any moment: the
 * cursor stands at the beginning of the line below the tree, and nothing has to
 * be put back, however kev ends.
 */

#include <kev.h>

#include "text.h"

struct process_tree;

/* NULL where there is no memory. */
struct process_tree *process_tree_new(bool colour);
struct process_tree *process_tree_free(struct process_tree *t);

/* The process that a watch is about; it stands in front of those that were added earlier. -ENOMEM. */
int process_tree_add(struct process_tree *t, int64_t id, pid_t pid);
/* Out of memory is process_tree_draw()'s error. */
void process_tree_take(struct process_tree *t, const struct kev_event *event);

/* Appends what brings the terminal up to date, if it is time for that or, with `last`, if anything has changed. */
void process_tree_draw(struct process_tree *t, struct text *out, bool last);
/* When to draw though no event came (CLOCK_MONOTONIC, nanoseconds); -1: there is no need to. */
int64_t process_tree_due(const struct process_tree *t);
