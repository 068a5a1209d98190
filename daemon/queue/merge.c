/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What happens at a queue's bound. Nothing is dropped: events are merged until
 * half of the bound is free, so that the work is spread over many events.
 *
 * First, everywhere, what loses little:
 *   - single objects: one event a watch;
 *   - trees: one event a path, as long as no directory came, went or moved in
 *     between (positions in the queue then have no meaning for each other). Of
 *     create and delete the merged event has what is true at its end: `delete`
 *     alone for what is gone, `create` beside it for what was replaced.
 * If that isn't enough, tree watches are folded (fold.c), those that hold much
 * before the others: all that such a watch has becomes `rescan` for the smallest
 * directories that cover it, at most FOLDS_MAX of them. Directories that came or went stay by themselves as long as
 * there is room, for they would be covered by little less than everything. If
 * there is still no room, one rescan a watch is left. An event that comes later
 * and lies within a directory that is to be told so is only counted there.
 *
 * A directory's move changes the paths of what comes after it, but not of a
 * rescan that waits: while a watch has such, moves of directories are folded
 * into them. What else comes later and changes what a rescan covers (its
 * directory is removed and made anew, a file is moved into it) is told before
 * it: the rescan goes back to the queue's end, since it holds whenever it is
 * read.
 *
 * A process's end is told by itself, as is its reap; all else that a watch of one
 * process has is one event. A watch of many processes counts what there is no room
 * for: `lost`, once, with how many events that stands for.
 *
 * Counts are exact: those of what is merged are added.
 */

#include <string.h>

#include "fold.h"
#include "queue.h"

bool merge_is_single(enum kev_filter filter) {
        return filter != KEV_FILTER_TREE && filter != KEV_FILTER_PROC && filter != KEV_FILTER_SIGNAL;
}

/* ---- single objects ------------------------------------------------------------------------ */

/* False: no memory, and the entry is as it was. */
static bool merge_into(struct entry *entry, const struct event *event) {
        struct event *merged;

        if (event_merge(entry->event, event, &merged) < 0)
                return false;
        entry_replace(entry, merged);
        queue_count_merged(entry->watch->queue);
        return true;
}

static struct entry *first_entry(const struct watch *watch) {
        return list_entry(watch->entries.next, struct entry, in_watch);
}

static void compact_single(struct watch *watch) {
        struct entry *first;

        if (list_empty(&watch->entries))
                return;
        first = first_entry(watch);
        list_for_each(link, &watch->entries) {
                struct entry *entry = list_entry(link, struct entry, in_watch);

                if (entry == first)
                        continue;
                if (!merge_into(first, entry->event))
                        return;
                entry_free(entry);
        }
}

/* ---- trees: one event a path ------------------------------------------------------------------ */

static bool is_about_place(const struct event *e) {
        return e->from_path.bytes || (e->notes & (KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT | NOTES_KEPT | NOTES_UNASKED)) ||
               (e->kind == KEV_KIND_DIRECTORY && (e->notes & NOTES_OF_PLACE));
}

static bool merge_paths(struct entry *entry, const struct event *event) {
        struct event first = *entry->event, *merged;

        if (event->notes & KEV_NOTE_DELETE)
                first.notes &= ~KEV_NOTE_CREATE;
        if (event_merge(&first, event, &merged) < 0)
                return false;
        entry_replace(entry, merged);
        queue_count_merged(entry->watch->queue);
        return true;
}

/* Uses the entries' nodes, which folded ones need for themselves: those are not
 * among what is merged here. */
static void compact_paths(struct watch *watch) {
        struct hash paths = HASH_INIT;

        list_for_each(link, &watch->entries) {
                struct entry *entry = list_entry(link, struct entry, in_watch), *same = NULL;
                const struct event *e = entry->event;
                uint64_t hash;

                if (is_about_place(e) || !e->path.bytes) {
                        hash_free(&paths);
                        continue;
                }
                hash = hash_bytes(e->path.bytes, e->path.size, 0);
                for (struct hash_node *n = hash_first(&paths, hash); n && !same; n = hash_next(n)) {
                        struct entry *other = container_of(n, struct entry, node);

                        if (other->event->path.size == e->path.size &&
                            memcmp(other->event->path.bytes, e->path.bytes, e->path.size) == 0)
                                same = other;
                }
                if (!same)
                        (void)hash_add(&paths, &entry->node, hash); /* without memory it stays by itself */
                else if (merge_paths(same, e))
                        entry_free(entry);
        }
        hash_free(&paths);
}

/* ---- the bound ------------------------------------------------------------------------------------- */

enum { WATCHES_AT_ONCE = 2048 };

/* What is done with all watches, one step after another, until there is room. */
struct step {
        bool folds; /* or else merges */
        bool begins; /* with those that hold a quarter of what there is: they are few, and it is most often theirs */
        struct fold_degree degree;
};

static const struct step steps[] = {
        { .folds = false },
        { true, true, { true, FOLDS_MAX } }, { true, false, { true, FOLDS_MAX } },
        { true, true, { false, FOLDS_MAX } }, { true, false, { false, FOLDS_MAX } },
        { true, true, { false, 1 } }, { true, false, { false, 1 } },
};

static void merge_watch(struct watch *watch) {
        if (merge_is_single(watch->filter))
                compact_single(watch);
        else if (watch->filter == KEV_FILTER_TREE && !(watch->folded && watch->folded->n_nodes > 0))
                compact_paths(watch);
}

/* False: no memory. */
static bool compact_watch(struct watch *watch, const struct step *step) {
        const struct queue *queue = watch->queue;
        size_t bytes;

        if (list_empty(&watch->entries))
                return true;
        if (!step->folds) {
                merge_watch(watch);
                return true;
        }
        if (watch->filter != KEV_FILTER_TREE)
                return true;
        bytes = fold_bytes(watch, &step->degree);
        if (bytes == 0 || bytes < (step->begins ? queue->bytes / 4 : queue->compaction.goal / queue->watches.n_nodes))
                return true;
        return fold_watch(watch, &step->degree);
}

/* One is worth its while if much came since the last. At the user's bound a queue gives half of what it has itself. */
static void begin(struct queue *queue) {
        struct compaction *c = &queue->compaction;

        if (c->n_appended < (queue->n_entries + queue->watches.n_nodes) / 4 &&
            queue->bytes < c->bytes_left + queue->bytes_max / 8)
                return;
        c->goal = MIN(queue->bytes, queue->bytes_max) / 2;
        c->bucket = 0;
        c->is_under_way = true;
        c->step = 0;
}

static void end(struct queue *queue) {
        queue->compaction.is_under_way = false;
        queue->compaction.n_appended = 0;
        queue->compaction.bytes_left = queue->bytes;
}

/* Until half of the bound is free, or nothing more can be. So many watches at a time: then it goes on with the next
 * event. */
static void compact(struct queue *queue) {
        struct compaction *c = &queue->compaction;
        size_t n = 0;

        if (!c->is_under_way)
                begin(queue);
        if (c->bucket >= queue->watches.n_buckets) /* there are fewer by now */
                c->bucket = 0;
        while (c->is_under_way && n < WATCHES_AT_ONCE) {
                const struct step *step = &steps[c->step];

                for (struct hash_node *node = queue->watches.buckets[c->bucket], *next; node; node = next, n++) {
                        next = node->next;
                        if ((step->folds && queue->bytes <= c->goal) ||
                            !compact_watch(container_of(node, struct watch, node), step)) {
                                end(queue);
                                return;
                        }
                }
                if (++c->bucket < queue->watches.n_buckets)
                        continue;
                c->bucket = 0;
                if (++c->step == ARRAY_SIZE(steps))
                        end(queue);
        }
}

/* What the watch holds is told by one rescan, if it is more than one event. */
static void fold_to_one(struct watch *watch) {
        static const struct fold_degree one = { false, 1 };

        if (fold_bytes(watch, &one) > 0)
                (void)fold_watch(watch, &one);
}

static bool is_folded_in(struct watch *watch, const struct event *event) {
        return watch->folded && watch->folded->n_nodes > 0 && fold_in(watch, event);
}

static bool is_same_absence(const struct event *a, const struct event *b) {
        return a->notes == b->notes && !(a->flags & KEV_FLAG_EOF) && a->path.size == b->path.size &&
               (a->path.size == 0 || memcmp(a->path.bytes, b->path.bytes, a->path.size) == 0);
}

/* A tree that goes and comes again, over and over: of each of the two the last counts, and the order of these. */
static bool merge_absence(struct watch *watch, const struct event *event) {
        if (!(event->notes & (KEV_NOTE_GONE | KEV_NOTE_BACK)) || event->flags & KEV_FLAG_EOF)
                return false;
        for (struct list *link = watch->entries.previous; link != &watch->entries; link = link->previous) {
                struct entry *entry = list_entry(link, struct entry, in_watch);

                if (!is_same_absence(entry->event, event))
                        continue;
                entry->more += event->count;
                entry_put_last(entry);
                queue_count_merged(watch->queue);
                return true;
        }
        return false;
}

static bool merge_of_tree(struct watch *watch, const struct event *event) {
        struct queue *queue = watch->queue;

        if (merge_absence(watch, event))
                return true;
        compact(queue);
        if (is_folded_in(watch, event))
                return true;
        if (queue->compaction.is_under_way || queue_has_room(queue, event))
                return false;
        fold_to_one(watch);
        return is_folded_in(watch, event); /* or it is one event more */
}

/* ---- processes ------------------------------------------------------------------------------------- */

#define NOTES_OF_END (KEV_NOTE_EXIT | KEV_NOTE_REAP)

/* The watch's newest event that may take up others. */
static struct entry *find_absorbing(const struct watch *watch, uint64_t none_of) {
        for (struct list *link = watch->entries.previous; link != &watch->entries; link = link->previous) {
                struct entry *entry = list_entry(link, struct entry, in_watch);

                if (!(entry->event->notes & none_of))
                        return entry;
        }
        return NULL;
}

/* Of many processes: that there was more, and how much. */
static bool count_as_lost(struct queue *queue, struct watch *watch, const struct event *event) {
        struct entry *entry;
        struct event template = {
                .filter = KEV_FILTER_PROC, .notes = KEV_NOTE_LOST, .count = event->count, .data = ABSENT,
                .realtime_usec = event->realtime_usec,
        }, *lost;

        if (event->flags & KEV_FLAG_EOF) /* nothing follows */
                return false;
        if (watch->lost) {
                watch->lost->more += event->count;
                queue_count_merged(queue);
                return true;
        }
        if (event_new(&template, &lost) < 0)
                return false;
        entry = queue_append(queue, watch, lost);
        if (!entry)
                return false;
        watch->lost = entry;
        queue_count(queue, FIGURE_SUMMARIES);
        queue_count_merged(queue);
        return true;
}

/* Of one process: how it ended is told by itself; all else it did may be told at once. */
static bool merge_of_process(struct watch *watch, const struct event *event) {
        struct entry *entry = event->notes & NOTES_OF_END ? NULL : find_absorbing(watch, NOTES_OF_END);

        return entry && merge_into(entry, event);
}

/* ---- signals --------------------------------------------------------------------------------------- */

static bool has_same_sender(const struct event *a, const struct event *b) {
        return a->process && b->process && a->process->pid == b->process->pid;
}

/* Of each number one event: there are no more than NSIG of them. Who has sent it is said as long as it was one. */
static bool merge_signal(struct watch *watch, const struct event *event) {
        list_for_each(link, &watch->entries) {
                struct entry *entry = list_entry(link, struct entry, in_watch);
                struct event second = *event;

                if (entry->event->data != event->data || entry->event->flags != event->flags)
                        continue;
                if (!has_same_sender(entry->event, event))
                        second.process = NULL;
                return merge_into(entry, &second);
        }
        return false;
}

bool merge_event(struct queue *queue, struct watch *watch, struct event *event) {
        if (watch->filter == KEV_FILTER_SIGNAL) {
                if (!merge_signal(watch, event))
                        return false;
                event_unref(event);
                return true;
        }
        if (watch->filter == KEV_FILTER_PROC) {
                if (!(watch->is_of_many ? count_as_lost(queue, watch, event) : merge_of_process(watch, event)))
                        return false; /* a process has three events at most past the bound */
                event_unref(event);
                return true;
        }
        if (merge_is_single(watch->filter)) {
                compact_single(watch);
                if (list_empty(&watch->entries) || !merge_into(first_entry(watch), event))
                        return false; /* one event a watch has room past the bound */
                event_unref(event);
                return true;
        }
        if (watch->filter != KEV_FILTER_TREE)
                return false;
        if (!merge_of_tree(watch, event))
                return false;
        event_unref(event);
        return true;
}
