/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Tree watches that cross mounts: what their parts share. crossing.c says how they work.
 *
 *   crossing.c         the watches, and whose turn it is
 *   crossing_part.c    what is told of a part, and what becomes of it
 *   crossing_mount.c   which mounts have one
 *   crossing_where.c   where the watched directory is
 */

#include "barrier.h"
#include "hash.h"
#include "list.h"
#include "mailbox.h"
#include "mounts.h"
#include "source.h"
#include "workers.h"

struct crossings {
        struct source source;
        struct mux *mux;
        struct hash users;
        struct list in_turn; /* users some of whose watches are to be looked at */
        struct hash parts;   /* but the main ones, by their watch and place */
        struct list asking;  /* watches that ask again, with the timer */
        struct mounts mounts;
        struct mailbox mailbox; /* of what the workers have found */
        struct mux_deferred run;
        bool differs;  /* the reading at hand from the last one */
        uint64_t n_changes; /* readings that did */
        uint64_t n_doubts;  /* when one may have been missed */
        bool compares; /* mounts may be in other places, of which poll(2) says nothing */
        uint64_t compared_nsec, n_compared;
        struct mux_timer compare_timer;
        struct mux_timer retry_timer;
        struct barriers barriers;
        struct list dead; /* parts of nobody's, to be detached: not while a source is walking its own */
        unsigned n_calls; /* of sources, under way */
};

/* Who has such watches. Those of others are looked at in between, however many these are. */
struct crossing_user {
        struct hash_node node;
        struct crossings *all;
        uid_t uid;
        size_t n_watches, n_parts;
        size_t n_unsettled; /* watches in force that wait for an answer */
        struct list looked_at;
        struct list to_look_at; /* those of which is_stale() is true */
        struct list in_turn;
};

struct crossing_part {
        struct hash_node node;
        struct subscription subscription;
        struct crossing *crossing;
        struct list link;
        bool starting;
        bool returns;  /* came while the watch was in force: told with a rescan */
        bool listed;
        bool ended;    /* nothing is told of it any more */
        unsigned tries; /* how often it had ended, and was made anew */
        bool refused;  /* it can't be watched, until the mounts change there */
        bool seen;     /* in this look at the mounts */
        uint64_t changed; /* of the mount that it is of, as it was made: with another number there may be another */
        size_t below;  /* where in `mount_point` the path below the watched directory begins */
        char mount_point[];
};

struct resolving {
        struct work work;
        struct list message;
        struct crossings *all;
        struct crossing *crossing; /* the loop's: NULL, it has ended */
        char *path;
        int fd; /* or -1 */
        char *canonical; /* the thread's, until it is sent; NULL: not to be found */
        int error;       /* why; positive errno */
};

struct crossing {
        struct list link;   /* of its user */
        struct list asking; /* or alone */
        struct crossings *all;
        struct crossing_user *user;
        struct subscription *outer;
        struct crossing_part *main;
        struct list parts;
        size_t n_parts;
        size_t n_starting; /* with the main one */
        size_t n_made;     /* in this look at the mounts */
        struct subject subject; /* what parts are asked for; no path, no descriptor */
        char *path;             /* as the client named it */
        char *canonical;
        struct resolving *resolving;
        bool in_force;
        bool is_listed;
        bool is_unsettled; /* it is counted as such */
        bool is_to_be_looked_at; /* for a reason of its own, not that mounts have changed */
        uint64_t n_changes, n_doubts; /* as it was looked at last */
        uint64_t reading; /* of the mounts: of those up to it that have no part it was told so; 0: of none */
        size_t n_put_off; /* mounts that get a part when what they are in is listed */
        bool is_back;  /* its path is to be resolved again */
        bool is_gone;
        bool asked_since; /* or is being asked: where it is, since the main part is in force */
        bool is_degraded; /* as a whole: it is not known what is mounted below */
};

static inline const struct sink *crossing_upper(const struct crossing *c) {
        return c->all->source.context->upper;
}

/* Its parts are to be looked at. */
static inline bool crossing_is_stale(const struct crossing *c) {
        return c->is_to_be_looked_at || c->n_changes != c->all->n_changes;
}

/* ---- crossing.c --------------------------------------------------------------------------------- */

/* In its user's turn. */
void crossing_look_later(struct crossing *c);
void crossings_look_at_all(struct crossings *all);
/* The mounts with the last reading of them, now, or soon after that. */
void crossings_compare(struct crossings *all);
/* The same, for what a report may mean. */
void crossings_compare_later(struct crossings *all);

/* ---- crossing_part.c ---------------------------------------------------------------------------- */

/* To the client: of what it watches, or what is below that. */
void crossing_tell(struct crossing *c, uint64_t notes, const char *below);
/* The list is told when all parts of it are. */
void crossing_check_listed(struct crossing *c);
/* After it was asked where it is, or was answered. */
void crossing_count_unsettled(struct crossing *c);
/* Whether its source is still at it. */
void crossing_set_starting(struct crossing_part *part, bool starting);
/* A source may be at work on it, or on another whose watch it is of: it is freed later. */
void crossing_bury_part(struct crossing_part *part);
void crossings_free_dead(struct crossings *all);
void crossing_bury_parts(struct crossing *c);
/* NULL: no memory. */
struct crossing_part *crossing_new_part(struct crossing *c, const char *mount_point, size_t below);
/* Once nothing is waited for any more. */
void crossing_check_in_force(struct crossing *c);
/* It ends over and over. */
void crossing_give_up(struct crossing_part *part);
void crossing_attach_part(struct crossing_part *part);

/* ---- crossing_mount.c --------------------------------------------------------------------------- */

/* Parts for the mounts that there are; one is made anew where another may be seen. */
void crossing_look(struct crossing *c);
/* Of struct mounts. */
void crossings_on_changed(struct mounts *mounts, const char *path);
void crossings_on_done(struct mounts *mounts);
void crossings_on_doubt(struct mounts *mounts);

/* ---- crossing_where.c --------------------------------------------------------------------------- */

/* It goes on without what is mounted below. */
void crossing_degrade(struct crossing *c);
void crossing_ask_again(struct crossing *c);
/* Once, since the main part is in force. */
void crossing_ask_since(struct crossing *c);
/* `fd`: what the client has passed, or -1: by the path. Negative errno. */
int crossing_ask_where(struct crossing *c, int fd);
/* Of the mailbox. */
void crossings_on_resolved(struct mailbox *mailbox);
