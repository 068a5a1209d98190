/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Watches of descriptors that were passed: what the parts of this source share.
 *
 *   descriptors.c       the source
 *   descriptor_look.c   what a descriptor is, and how much there is
 *   descriptor_files.c  regular files
 *   descriptor_save.c   all of it for the next daemon
 */

#include "barrier.h"
#include "descriptor_files.h"
#include "descriptor_look.h"
#include "hash.h"
#include "heap.h"
#include "mailbox.h"
#include "source.h"

struct descriptors {
        struct source source;
        struct mux *mux;
        int all;
        struct mux_io io;
        struct mailbox mailbox;
        struct mux_deferred go_on; /* more of what came by it */
        bool is_behind;   /* `all` was not seen empty the last time */
        struct mux_deferred behind; /* whether it still is */
        uint64_t n_taken; /* out of `all`, which goes round */
        struct hash owners; /* by pid */
        struct hash groups; /* by inode */
        struct descriptor_files files;
        struct barriers barriers;
        uint64_t serial;
        struct list unanswered; /* struct descriptor */
        struct mux_timer ask_again;
        struct list asked_again; /* the same, whose turn has come */
        struct mux_deferred ask_some;
        uint64_t n_groups_saved;
        bool is_closing; /* there are no workers any more */
};

struct owner {
        struct hash_node node;
        struct descriptor_owner owner;
        struct observer *observer; /* its user's */
        uid_t uid;         /* of whoever has connected */
        struct heap looks; /* under way, by the serials of what has led to them */
        uint32_t n_passed;
        unsigned refs;
};

/* Watches with the flag `exclusive` that want the same of one open file: each event is for one of them, in turn. */
struct group {
        struct hash_node node; /* by inode, which others may have as well: both ends of a pipe, all eventfds */
        uint32_t wanted;
        struct list members;
        uint64_t number; /* descriptor_save.c; 0: none */
};

struct descriptor {
        struct descriptors *all;
        struct subscription *subscription;
        struct owner *owner;
        struct descriptor_handle handle;
        struct descriptor_file file;
        struct look *look; /* under way, or NULL */
        struct group *group;
        struct list in_group;
        struct list in_unanswered; /* no observer was there that could say whether there is something to be told */
        uint32_t events; /* that the set is asked for */
        uint32_t wanted; /* of them */
        uint32_t wanted_before; /* as it is being opened anew: what a refusal leads back to */
        uint64_t notes_before; /* the same */
        int64_t least;   /* lowat */
        uint64_t again;  /* something has happened since the look began: its serial; or 0 */
        uid_t uid;
        uint8_t filter;
        bool has_figures, is_exclusive;
        bool is_covered; /* exclusive: one of the group was told of what has woken this one as well */
        bool is_outdated; /* what the look under way brings: it began before what is to be told now */
        bool is_anew; /* the set is another one, and what it is ready for still to be told by `all` */
};

/* ---- descriptors.c ---------------------------------------------------------------------------------------------------- */

/* A watch of nothing yet. NULL: no memory. */
struct descriptor *descriptor_new(struct descriptors *s, struct subscription *subscription, const struct subject *subject);
void descriptor_free(struct descriptor *d);
/* The watch, or its set for other events. */
bool descriptor_is_being_made(const struct descriptor *d);
/* From now on it is told what it is ready for. */
int descriptor_begin(struct descriptor *d, struct refusal *refusal);
/* NULL: no memory. */
struct owner *owner_get(struct descriptors *s, const struct asker *asker);
/* Joins it, or a new one where there is none. -ENOMEM. */
int group_enter(struct descriptor *d, struct group *group);
uint64_t group_hash(const struct descriptor *d);

/* ---- descriptor_save.c, of the class: source.h -------------------------------------------------------------------------- */

void descriptors_describe(const struct subscription *subscription, struct subject *subject);
bool descriptors_save(struct source *source, struct subscription *subscription, struct state_writer *w);
int descriptors_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                        struct state_reader *r, struct refusal *refusal);
