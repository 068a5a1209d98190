/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Settling: a tree watch that asked for it has its events kept back until nothing
 * was added to them for a while, or the first of them has waited long enough.
 * They are in its queue all the while, and count there.
 */

#include "watch_spec.h"

struct settle;
struct watch;

/* Where nothing says how long events may be kept back: so many times as long as it takes to be quiet. */
enum { SETTLE_LATENCY_FACTOR = 10 };

/* Gives NULL where the options ask for none. -ENOMEM. */
int settle_new(struct watch *watch, const struct tree_options *options, struct settle **ret_settle);
struct settle *settle_free(struct settle *settle);

struct state_reader;
struct state_writer;

/* For the next daemon: since when events are kept back. NULL is allowed. */
void settle_save(const struct settle *settle, struct state_writer *w);
void settle_load(struct settle *settle, struct state_reader *r);

/* NULL is allowed in both: an event has come; and whether events are being kept back. */
void settle_touch(struct settle *settle);
bool settle_is_holding(const struct settle *settle);
