/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A queue: the watches of one connection, and the events that it has not taken.
 * It knows no kernel interface and no socket.
 *
 * Under its bound a queue keeps every event by itself, in the order in which
 * they were reported. At the bound events are merged (merge.c), never dropped:
 *
 *   single objects (vnode, netdev, timer, user, descriptors)  one event a watch; notes or'ed
 *   signal one event a number
 *   tree   one event a path, where no directory changed its place in between;
 *          then `rescan` for the smallest directories that cover what was merged
 *   proc   exit and reap of one process never, all else it does is one event; a watch
 *          of many processes has one event, `lost`, that counts the rest
 *
 * What is kept is so at most: the bound, and one event more for each watch. It is
 * three for a tree that is gone or back, which are told beside the rescan, three for
 * a watch of one process, and two for one of many: `lost`, and the last of all.
 */

#include "account.h"
#include "buffer.h"
#include "settle.h"
#include "source.h"
#include "watch_spec.h"

struct queue;
struct watch;
struct watch_options;

/* What all queues share. */
struct queue_context {
        struct sources *sources;
        struct hash prefixes, options;
        struct buffer path, from_path;
        uint64_t figures[FIGURE_COUNT];
        size_t n_watches;
        void (*changed)(struct queue_context *context); /* n_watches is another; or NULL */
};

/* What is above a queue. */
struct queue_listener {
        /* There is an event to be taken; called when there was none before. */
        void (*ready)(struct queue *queue);
        /* The end of a queue_add() that answered 1: after a refusal the watch is
         * gone. Or of a queue_modify(). */
        void (*added)(struct queue *queue, int64_t id, const struct refusal *refusal);
        /* An event could not be kept, for want of memory: the queue can't be
         * trusted any more. Must not close it at once. */
        void (*lost)(struct queue *queue);
};

/* What was counted by another daemon is no more, so that it goes on to fit into JSON. */
#define QUEUE_NUMBER_MAX (UINT64_MAX / 8)

/* At the bound: merge.c. */
struct compaction {
        bool is_under_way;
        uint8_t step;
        size_t bucket; /* of the watches: the next one */
        size_t goal;   /* bytes */
        size_t n_appended, bytes_left; /* since the last one, and by that */
};

struct queue {
        struct queue_context *context;
        const struct queue_listener *listener;
        struct account *account;
        const struct asker *asker;
        struct hash watches; /* by id */
        size_t closed;       /* buckets of it that have been emptied, as it is closed */
        struct list pending; /* struct entry, to be taken in this order */
        struct list levels;  /* struct watch, of those with the flag `level` that have told what held */
        struct list to_look; /* of those, whom queue_look_some() is to ask */
        size_t n_entries;    /* the held ones too */
        size_t bytes, bytes_max;
        size_t watch_bytes; /* of paths and globs, as charged */
        struct compaction compaction;
        uint64_t seq;
        uint64_t version; /* changes with every watch that is made, changed or ends, and with the asker */
        uint64_t delivered, merged;
        size_t n_of_filter[FILTER_COUNT];
};

/* A watched path, as clients name it; shared by all who name it so. */
struct prefix {
        struct hash_node node;
        size_t refs, size;
        char text[];
};

struct watch {
        struct hash_node node;
        struct subscription subscription;
        struct queue *queue;
        int64_t id;
        struct prefix *prefix; /* NULL: its events have no path */
        struct watch_options *options; /* NULL: none were given */
        size_t charged;        /* bytes of both, though they are shared, and of a predicate */
        struct list entries;   /* all of its events, in order */
        struct hash *folded;   /* struct entry by path: its pending rescans; or NULL */
        struct entry *lost;    /* proc: its pending `lost`; or NULL */
        struct settle *settle; /* NULL: events can be taken as they come */
        struct list in_levels; /* in the queue's; or alone */
        uint8_t filter;
        uint8_t flags;
        uint8_t flags_before; /* queue_modify() answered 1: in case that it is refused */
        bool disabled;
        bool is_of_many; /* proc: of more than one process */
        bool is_restored; /* under way, for a client of the last daemon's */
        bool is_anew;     /* the same: what happened meanwhile may be missing */
        bool is_over;     /* its last event was taken */
};

/* One event in one queue. */
struct entry {
        struct list in_queue; /* in the queue's pending, or nowhere while held */
        struct list in_watch;
        struct watch *watch;
        struct event *event;
        uint64_t more; /* events that it has come to stand for since */
        size_t charge;
        struct hash_node node; /* in the watch's folded */
        bool is_folded;
};

extern const struct sink queue_sink;

void queue_context_init(struct queue_context *context, struct sources *sources);
void queue_context_free(struct queue_context *context);

/* `bytes_max`: its bound. The account and the asker outlive it. */
void queue_init(struct queue *queue, struct queue_context *context, const struct queue_listener *listener,
                struct account *account, const struct asker *asker, size_t bytes_max);
/* Ends all watches. */
void queue_close(struct queue *queue);
/* A part of that: so many watches at most. Whether none is left. */
bool queue_close_some(struct queue *queue, size_t n);

/* ---- watches --------------------------------------------------------------------- */

/* 0: in force. 1: under way; listener->added() will tell. Negative errno:
 * refused. `fd`: the passed descriptor that the spec means, or -1; borrowed. */
int queue_add(struct queue *queue, const struct watch_spec *spec, int fd, struct refusal *refusal);
/* The same; after a refusal, then or later, the watch is as it was. */
int queue_modify(struct queue *queue, const struct watch_spec *spec, int fd, struct refusal *refusal);
int queue_remove(struct queue *queue, int64_t id, struct refusal *refusal);
int queue_enable(struct queue *queue, int64_t id, bool enable, struct refusal *refusal);

/* ---- for the next daemon (queue_save.c) ----------------------------------------------- */

struct state_reader;
struct state_writer;

/* The watches, their events, and where the numbers are. */
void queue_save(struct queue *queue, struct state_writer *w);
/* The same while it goes on: the watches alone, which are made anew by what is read of this. */
void queue_sketch(struct queue *queue, struct state_writer *w);
/* Into a queue without watches. Returns how many are under way: listener->added() will tell, and never with a refusal.
 * A watch that can't be made says so by an event with the flag eof. -EBADMSG, -EDQUOT, -ENOMEM: the queue can't be
 * trusted. */
int queue_restore(struct queue *queue, struct state_reader *r);

/* ---- events ---------------------------------------------------------------------- */

static inline bool queue_has_events(const struct queue *queue) {
        return !list_empty(&queue->pending);
}

/* When the event that is taken next happened; there must be one. */
static inline uint64_t queue_first_usec(const struct queue *queue) {
        return list_entry(queue->pending.next, struct entry, in_queue)->event->realtime_usec;
}

/* Somebody is about to wait: watches with the flag `level` that have told what held are to be asked whether it still
 * does, and what they had told and nobody took is forgotten. */
void queue_look_again(struct queue *queue);
/* So many of them at most. Returns how many they were. */
size_t queue_look_some(struct queue *queue, size_t n_max);
static inline bool queue_has_looked(const struct queue *queue) {
        return list_empty(&queue->to_look);
}

/* Takes the first event and appends it as an Event object. There must be one.
 * -ENOMEM: it stays. */
int queue_take(struct queue *queue, struct buffer *b);

/* ---- between watch.c, queue.c, merge.c and queue_save.c ------------------------------- */

/* All of it but the source's. NULL in *ret_watch after an error. */
int watch_make(struct queue *queue, const struct watch_spec *spec, struct watch **ret_watch, struct refusal *refusal);
void watch_fill_subject(const struct watch *watch, const struct watch_spec *spec, int fd, struct subject *ret);
/* Of one that was restored: it is in force, or can't be. */
void watch_restored(struct watch *watch, const struct refusal *refusal);

static inline void queue_count(struct queue *queue, enum figure figure) {
        queue->context->figures[figure]++;
        queue->account->figures[figure]++;
}

static inline void queue_count_merged(struct queue *queue) {
        queue->merged++;
        queue_count(queue, FIGURE_MERGED);
}

struct watch *queue_find(struct queue *queue, int64_t id);
void watch_free(struct watch *watch);
/* Of a descriptor: forgets what it had told, and tells what holds. */
void watch_look(struct watch *watch);
/* Takes the event over. */
void queue_push(struct queue *queue, struct watch *watch, struct event *event);
void queue_lose(struct queue *queue, struct watch *watch);
void queue_hold(struct watch *watch, bool hold);
/* What was kept back can be taken, unless something else holds it. */
void queue_let_go(struct watch *watch);
struct entry *queue_append(struct queue *queue, struct watch *watch, struct event *event);
void entry_free(struct entry *entry);
/* To the end of its queue. */
void entry_put_last(struct entry *entry);
/* Puts another event in the place of an entry's. Takes the event over. */
void entry_replace(struct entry *entry, struct event *event);
size_t event_charge(const struct event *event);
/* Under the queue's bound, and its user's. */
bool queue_has_room(const struct queue *queue, const struct event *event);

/* One event a watch is enough to say all. */
bool merge_is_single(enum kev_filter filter);
/* The bound is reached: finds a place for the event without more bytes, if it
 * can, by merging what is there. True: the event was taken over. */
bool merge_event(struct queue *queue, struct watch *watch, struct event *event);
