/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Who sees what, and where directories are: what all share that ask stand-ins. fanotify_peer.c, fanotify_verdict.c,
 * fanotify_access.c, fanotify_attach.c and fanotify_wait.c. */

#include "fanotify_watch.h"
#include "identity.h"

/* ---- fanotify_peer.c ------------------------------------------------------------------------ */

/* The stand-in for all peers of the same user and groups. */
struct peer {
        struct list link;
        struct fanotify *s;
        struct helper helper;
        struct identity identity;
        bool trusted; /* sees everything */
        size_t n_asked; /* verdicts that are awaited */
        struct list verdicts;
        size_t n_holding; /* watches */
        struct hash hidden; /* directories of which no verdict is kept, and with events that it was not told */
        bool hidden_any;    /* there are more of them than is known: any may be */
        size_t n_resolving;     /* watches of which it is asked where their directory is, */
        struct list unasked;    /* and those that come next */
        struct list absent;     /* watches whose directory is not there, the one asked for longest ago first */
        struct mux_timer wait_timer; /* then some are asked for */
        uint64_t wait_msec, wait_round;
        struct list waiting;    /* the same, */
        struct list to_look_at; /* and those of them that may wait for what has come to be */
        struct list looking;    /* in s->looking as long as there are such */
        uint64_t since;         /* the first serial of what has come to be that they are looked at for */
        uint64_t again_since;   /* and that has come to be meanwhile; UINT64_MAX: nothing */
        bool is_started;
        bool has_begun; /* the stand-in that was started last */
        struct leaving *leaving; /* for it, should it not answer */
        bool lost;      /* the stand-in has ended, and no other was started yet, */
        uint64_t restart_nsec; /* which is not to be before: CLOCK_MONOTONIC */
        uint64_t check_nsec;   /* when checks of place are tried again, CLOCK_MONOTONIC; or 0 */
        unsigned refs;
};

bool peer_is_there(const struct peer *peer);
/* Something in the directory was not told to its watches on that mount, and no verdict is going to say so. */
void peer_hide(struct peer *peer, uint64_t mount, struct handle_ref handle);
/* Whether it was hidden; the verdict at hand has that from now on. */
bool peer_take_hidden(struct peer *peer, uint64_t mount, struct handle_ref handle);

/* ---- fanotify_verdict.c --------------------------------------------------------------------- */

enum verdict_state {
        VERDICT_AWAITED,
        VERDICT_ALLOWED,
        VERDICT_DENIED,
        VERDICT_NONE, /* the directory was not there any more, or nobody could look */
};

struct verdict {
        struct list link; /* in place->verdicts */
        struct list of_peer;
        struct inquiry inquiry;
        unsigned refs;    /* the place's, and those of events that wait for it */
        struct place *place; /* NULL: gone */
        struct group *group;
        struct peer *peer;
        enum verdict_state state;
        struct asked *asked;
        struct look *look;   /* while it is awaited, for which the place may be gone */
        uint64_t asked_nsec; /* CLOCK_MONOTONIC */
        uint64_t asked_at, answered_at; /* the last event that was read then */
        bool was_denied;  /* by the verdict before: what is in it was not told so far, */
        uint64_t seen_at; /* but for this event, with which that was made good; 0: it was not yet */
        bool expired;     /* it is kept for that alone */
        uint64_t doubted_in; /* the letting go in which `rescan` was told for it */
        size_t n_chain;
        uint64_t chain[]; /* hashes of the handles of the directory and all above */
};

/* The one that holds for what happens in `dir` now. NULL: no memory. */
struct verdict *verdict_get(struct peer *peer, const struct dir *dir);
void verdict_unref(struct verdict *v);
/* Whether an event of that number can be judged by it. */
bool verdict_is_certain(const struct verdict *v, uint64_t number);
/* Something in its directory was not told, or may not have been. */
bool verdict_hides(const struct verdict *v);
/* What it hides is not forgotten with the verdicts. */
void verdicts_keep_of(struct peer *peer);
void verdicts_forget_of(struct peer *peer);

/* ---- fanotify_access.c ---------------------------------------------------------------------- */

/* A verdict is there: what waits for it goes on. */
void access_let_go(struct fanotify *s);
