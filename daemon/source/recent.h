/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * To which objects something has happened lately, and after which event the last time. Objects are known by a hash of
 * theirs. What happens to one says nothing about another, whatever happens elsewhere meanwhile, up to RECENT_MAX times:
 * what is older is forgotten, and then it may have happened to any.
 *
 * Numbers are those of events, and never go down.
 */

#include "hash.h"

enum { RECENT_MAX = 4096 };

#define RECENT_UNKNOWN UINT64_MAX /* a number: later than all that are known so far */

struct recent_note;

struct recent {
        struct hash table;
        struct recent_note *notes; /* a ring; NULL before the first */
        uint64_t n, n_known;       /* ever noted; of these, with a number that is known */
        uint64_t forgotten;        /* the highest number of those */
};

/* Before: zeroes. */
void recent_free(struct recent *recent);
void recent_note(struct recent *recent, uint64_t hash, uint64_t number);
/* Whatever was RECENT_UNKNOWN has the number now. */
void recent_settle(struct recent *recent, uint64_t number);
/* It may have happened to any by then. */
void recent_lose(struct recent *recent, uint64_t number);
/* Whether something happened to that object after the event `number`, or may have. */
bool recent_has_since(const struct recent *recent, uint64_t hash, uint64_t number);
