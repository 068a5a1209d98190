/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a user makes the daemon hold. Everything that a peer can make it hold is
 * charged to its user before it is made, and given back with it.
 */

#include <stddef.h>
#include <sys/types.h>

#include "hash.h"
#include "list.h"

enum resource {
        RESOURCE_CONNECTIONS,
        RESOURCE_WATCHES,
        RESOURCE_WATCH_BYTES, /* of watched paths, and of compiled globs */
        RESOURCE_QUEUE_BYTES,
        RESOURCE_OUTPUT_BYTES,
        RESOURCE_DESCRIPTORS, /* connections, what was passed over them, and watches on that */
        RESOURCE_TIMERS,      /* watches of that filter */
        RESOURCE_REQUESTS,    /* of a second: account_pace() */
        RESOURCE_COUNT,
};

/* What is counted of events, for all and for each user. It adds up, always:
 * EVENTS_IN + SUMMARIES + RESTORED = DELIVERED + MERGED + DISCARDED + those that are in queues. */
enum figure {
        FIGURE_EVENTS_IN, /* made of what sources reported */
        FIGURE_SUMMARIES, /* made at a queue's bound, to stand for others: rescan, lost */
        FIGURE_RESTORED,  /* of the last daemon's, or made to say what may be missing since */
        FIGURE_DELIVERED, /* put into a reply */
        FIGURE_MERGED,    /* joined to another */
        FIGURE_DISCARDED, /* gone with their watch, or never queued */
        FIGURE_RESCANS,   /* of those that were made */
        FIGURE_REFUSED,   /* watches */
        FIGURE_COUNT,
};

/* "watch-bytes", as in a configuration file. */
const char *resource_name(enum resource resource);

/* For each user, but queue_bytes, which is for each connection as well (a
 * quarter of the user's). */
struct limits {
        size_t values[RESOURCE_COUNT];
};

extern const struct limits limits_default;

enum { ACCOUNTS_REMEMBERED = 256 };

/* Of a user who has nothing here any more what was counted is kept, as long as no more than
 * ACCOUNTS_REMEMBERED others have left since. */
struct account {
        struct hash_node node;
        struct accounts *accounts;
        struct list departed; /* in the list of those without a reference */
        unsigned refs;
        uid_t uid;
        size_t used[RESOURCE_COUNT];
        size_t n_entries; /* events in queues */
        size_t n_live;    /* connections that would outlive a crash: live.c's */
        uint64_t figures[FIGURE_COUNT];
        uint64_t met[RESOURCE_COUNT]; /* how often there was no room for more */
        uint64_t paced_nsec; /* CLOCK_MONOTONIC: when all requests so far would have come at the pace of the limit */
        /* How much of a turn its connections take: server.c's. */
        uint64_t turn; /* the last in which there was something to do for them, */
        uint64_t work_nsec; /* which has taken so long */
        struct list postponed; /* connections for which a turn had no room */
        struct list in_turn;   /* among the users that have such; or alone */
        void *long_call;       /* the connection whose call goes on over several turns; NULL: none's does */
        struct list waiting;   /* connections that have one, too, and wait for the end of that */
};

struct accounts {
        struct hash table;
        struct list departed; /* struct account, the longest gone first */
        size_t n_departed;
        struct limits limits;
};

void accounts_init(struct accounts *accounts, const struct limits *limits);
void accounts_free(struct accounts *accounts);

/* A reference to the user's account; NULL: no memory. */
struct account *account_get(struct accounts *accounts, uid_t uid);
struct account *account_ref(struct account *account);
struct account *account_unref(struct account *account);

/* -EDQUOT: it would be more than the limit, which is counted. */
int account_charge(struct account *account, enum resource resource, size_t amount);
/* How much can be charged yet. */
size_t account_room(const struct account *account, enum resource resource);
/* For what is bounded by something else that was charged. */
void account_charge_anyway(struct account *account, enum resource resource, size_t amount);
void account_return(struct account *account, enum resource resource, size_t amount);
size_t account_limit(const struct account *account, enum resource resource);

/* A request that costs so much is about to be run. 0: it is charged; or the time (CLOCK_MONOTONIC) to come again at:
 * the user has sent the limit's number of them within a second. One of a second's cost may always go ahead of its
 * time, so that what comes in bursts is not slowed down. */
uint64_t account_pace(struct account *account, size_t cost, uint64_t now_nsec);
/* The same for what was done already: later ones wait for longer. */
void account_pace_anyway(struct account *account, size_t cost, uint64_t now_nsec);
