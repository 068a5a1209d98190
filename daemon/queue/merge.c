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
 * If that isn't enough, the tree watch that holds the most is folded: all that
 * it has becomes `rescan` for the smallest directories that cover it, at most
 * FOLDS_MAX of them. Directories that came or went stay by themselves as long as
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

#include <stdlib.h>
#include <string.h>

#include "queue.h"

enum { FOLDS_MAX = 64 };

/* Of directories: they change what other paths mean. */
#define NOTES_OF_PLACE (KEV_NOTE_CREATE | KEV_NOTE_DELETE | KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT | KEV_NOTE_RENAME)
/* Told as they are, whatever happens. */
#define NOTES_KEPT (KEV_NOTE_GONE | KEV_NOTE_BACK | KEV_NOTE_LISTED)

/* How much is given up, one step after another. */
struct degree {
        bool keep_directories;
        size_t n_folds; /* of a watch, at most */
};

static const struct degree degrees[] = { { true, FOLDS_MAX }, { false, FOLDS_MAX }, { false, 1 } };

/* Whether folding leaves an event as it is. Directories that came or went are
 * left at first, since the directory that they came to covers all that happened
 * in them: their events precede the rescans, and hold whatever those find. */
static bool is_kept(const struct event *e, const struct degree *degree) {
        if (e->notes & NOTES_KEPT)
                return true;
        return degree->keep_directories && e->kind == KEV_KIND_DIRECTORY && !e->from_path.bytes &&
               (e->notes & (NOTES_OF_PLACE | KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT)) && !(e->notes & NOTES_UNASKED);
}

bool merge_is_single(enum kev_filter filter) {
        return filter != KEV_FILTER_TREE && filter != KEV_FILTER_PROC && filter != KEV_FILTER_SIGNAL;
}

static void count_merged(struct queue *queue) {
        queue->merged++;
        queue_count(queue, FIGURE_MERGED);
}

/* ---- single objects ------------------------------------------------------------------------ */

/* False: no memory, and the entry is as it was. */
static bool merge_into(struct entry *entry, const struct event *event) {
        struct event *merged;

        if (event_merge(entry->event, event, &merged) < 0)
                return false;
        entry_replace(entry, merged);
        count_merged(entry->watch->queue);
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
        count_merged(entry->watch->queue);
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

/* ---- trees: folding ------------------------------------------------------------------------------ */

static size_t root_size(const struct watch *watch) {
        return watch->prefix ? watch->prefix->size : 0;
}

/* The size of the directory that holds the path; the watched one at least. */
static size_t parent_size(const struct watch *watch, const char *path, size_t size) {
        while (size > root_size(watch) && path[size - 1] != '/')
                size--;
        while (size > root_size(watch) && path[size - 1] == '/')
                size--;
        return size;
}

/* The size of the smallest directory above both, as a part of `a`. */
static size_t common_size(const struct watch *watch, const char *a, size_t a_size, const char *b, size_t b_size) {
        size_t n = 0;

        while (n < a_size && n < b_size && a[n] == b[n])
                n++;
        if ((n == a_size || a[n] == '/') && (n == b_size || b[n] == '/'))
                return n;
        return parent_size(watch, a, n);
}

/* The smallest directory that covers an event, as a part of its path. */
static size_t cover_size(const struct watch *watch, const struct event *e) {
        size_t size;

        if (!e->path.bytes)
                return 0;
        if (e->notes & (KEV_NOTE_RESCAN | KEV_NOTE_DEGRADED))
                return e->path.size;
        size = parent_size(watch, e->path.bytes, e->path.size);
        if (!e->from_path.bytes)
                return size;
        return common_size(watch, e->path.bytes, size, e->from_path.bytes,
                           parent_size(watch, e->from_path.bytes, e->from_path.size));
}

static bool is_within(const struct watch *watch, struct event_path directory, struct event_path path) {
        size_t size = directory.size;

        return path.size >= size && (size == 0 || memcmp(path.bytes, directory.bytes, size) == 0) &&
               (path.size == size || size <= root_size(watch) || path.bytes[size] == '/');
}

static struct entry *find_folded(const struct watch *watch, const char *path, size_t size) {
        for (struct hash_node *n = hash_first(watch->folded, hash_bytes(path, size, 0)); n; n = hash_next(n)) {
                struct entry *entry = container_of(n, struct entry, node);

                if (entry->event->path.size == size && (size == 0 || memcmp(entry->event->path.bytes, path, size) == 0))
                        return entry;
        }
        return NULL;
}

/* The pending rescan that covers this directory. */
static struct entry *find_cover(const struct watch *watch, const char *path, size_t size) {
        for (;;) {
                struct entry *entry = find_folded(watch, path, size);
                size_t up;

                if (entry || size <= root_size(watch))
                        return entry;
                up = parent_size(watch, path, size);
                size = up < size ? up : root_size(watch);
        }
}

static size_t depth_of(const char *path, size_t size) {
        size_t depth = 0;

        for (size_t i = 0; i < size; i++)
                depth += path[i] == '/';
        return depth;
}

/* Cuts a directory down to `depth` slashes. */
static size_t cut_to_depth(const struct watch *watch, const char *path, size_t size, size_t depth) {
        while (size > root_size(watch) && depth_of(path, size) > depth)
                size = parent_size(watch, path, size);
        return size;
}

/* A directory that is to be told as in doubt. */
struct fold {
        const char *path; /* of an event, which has to live as long */
        size_t size;
        uint64_t hash;
        uint64_t notes;
        uint64_t realtime_usec;
};

/* Makes the rescan of a directory, or counts it where there is one. */
static bool fold_at(struct watch *watch, const struct fold *fold, uint64_t count) {
        struct event template = {
                .filter = watch->filter,
                .kind = KEV_KIND_DIRECTORY,
                .notes = KEV_NOTE_RESCAN | fold->notes,
                .count = count,
                .realtime_usec = fold->realtime_usec,
                .data = ABSENT,
        }, *event;
        struct entry *entry = find_cover(watch, fold->path, fold->size);
        char *path _cleanup_(freep) = strndup(fold->path, fold->size);

        if (entry && !(fold->notes & ~entry->event->notes)) {
                entry->more += count;
                return true;
        }
        if (!path)
                return false;
        if (fold->size > 0)
                template.path = (struct event_path){ path, fold->size };
        if (event_new(&template, &event) < 0)
                return false;
        entry = queue_append(watch->queue, watch, event);
        if (!entry)
                return false;
        entry->is_folded = hash_add(watch->folded, &entry->node, hash_bytes(fold->path, fold->size, 0)) == 0;
        queue_count(watch->queue, FIGURE_SUMMARIES);
        queue_count(watch->queue, FIGURE_RESCANS);
        return entry->is_folded;
}

/* The directories, no deeper than `depth` slashes, that cover all the watch has.
 * Returns how many; one more than there may be if there are more. */
static size_t gather(const struct watch *watch, const struct degree *degree, size_t depth, struct fold *folds) {
        size_t n = 0;

        list_for_each(link, &watch->entries) {
                const struct event *e = list_entry(link, struct entry, in_watch)->event;
                const char *path = e->path.bytes ? e->path.bytes : "";
                size_t size = cut_to_depth(watch, path, cover_size(watch, e), depth), i = 0;
                uint64_t hash = hash_bytes(path, size, 0);

                if (is_kept(e, degree))
                        continue;
                while (i < n && (folds[i].hash != hash || folds[i].size != size))
                        i++;
                if (i == degree->n_folds)
                        return degree->n_folds + 1;
                if (i == n)
                        folds[n++] = (struct fold){ path, size, hash, 0, e->realtime_usec };
                folds[i].notes |= e->notes & KEV_NOTE_DEGRADED;
        }
        return n;
}

static size_t deepest(const struct watch *watch) {
        size_t depth = 0;

        list_for_each(link, &watch->entries) {
                const struct event *e = list_entry(link, struct entry, in_watch)->event;

                depth = MAX(depth, e->path.bytes ? depth_of(e->path.bytes, cover_size(watch, e)) : 0);
        }
        return depth;
}

static int by_size(const void *a, const void *b) {
        const struct fold *x = a, *y = b;

        return (x->size > y->size) - (x->size < y->size);
}

static struct event_path fold_path(const struct fold *fold) {
        return (struct event_path){ fold->path, fold->size };
}

/* What covers others has the time of the first of them. */
static void pass_times_up(const struct watch *watch, struct fold *folds, size_t n) {
        for (size_t i = 0; i < n; i++)
                for (size_t j = i + 1; j < n; j++)
                        if (is_within(watch, fold_path(&folds[i]), fold_path(&folds[j])))
                                folds[i].realtime_usec = MIN(folds[i].realtime_usec, folds[j].realtime_usec);
}

/* Everything that the watch has becomes rescans. False: no memory; what could
 * not be folded is still there. */
static bool fold_all(struct watch *watch, const struct degree *degree) {
        struct fold folds[FOLDS_MAX];
        struct list entries;
        size_t depth = deepest(watch), n;

        if (!watch->folded) {
                watch->folded = calloc(1, sizeof(*watch->folded));
                if (!watch->folded)
                        return false;
        }
        while ((n = gather(watch, degree, depth, folds)) > degree->n_folds)
                depth--; /* at the watched directory itself there is one */
        /* The old rescans are folded anew with the rest. */
        list_for_each(link, &watch->entries)
                list_entry(link, struct entry, in_watch)->is_folded = false;
        hash_free(watch->folded);
        list_init(&entries);
        list_splice(&entries, &watch->entries);
        qsort(folds, n, sizeof(folds[0]), by_size); /* the wide ones first: they cover others */
        pass_times_up(watch, folds, n);
        for (size_t i = 0; i < n; i++)
                if (!fold_at(watch, &folds[i], 0)) {
                        list_splice(&watch->entries, &entries);
                        return false;
                }
        list_for_each(link, &entries) {
                struct entry *entry = list_entry(link, struct entry, in_watch);
                const struct event *e = entry->event;
                const char *path = e->path.bytes ? e->path.bytes : "";

                list_remove(&entry->in_watch);
                if (is_kept(e, degree)) {
                        list_append(&watch->entries, &entry->in_watch);
                        continue;
                }
                find_cover(watch, path, cover_size(watch, e))->more += e->count + entry->more;
                count_merged(watch->queue);
                entry_free(entry);
        }
        return true;
}


bool merge_into_folded(struct watch *watch, const struct event *event) {
        size_t size = cover_size(watch, event);
        struct entry *entry;
        bool moves_directory = event->kind == KEV_KIND_DIRECTORY && event->from_path.bytes;
        struct fold fold;

        if (event->notes & (NOTES_KEPT | KEV_NOTE_DEGRADED) || !event->path.bytes)
                return false;
        entry = find_cover(watch, event->path.bytes, size);
        if (entry && (!event->from_path.bytes || is_within(watch, entry->event->path, event->from_path))) {
                entry->more += event->count;
                count_merged(watch->queue);
                return true;
        }
        if (!moves_directory)
                return false;
        fold = (struct fold){ event->path.bytes, size, 0, 0, event->realtime_usec };
        if (!fold_at(watch, &fold, event->count))
                return false;
        count_merged(watch->queue);
        return true;
}

static bool concerns(const struct watch *watch, const struct event *e, struct event_path cover) {
        if (e->from_path.bytes && (is_within(watch, cover, e->path) || is_within(watch, cover, e->from_path)))
                return true;
        return e->kind != KEV_KIND_FILE && (e->notes & NOTES_OF_PLACE) && is_within(watch, e->path, cover);
}

void merge_put_folded_last(struct watch *watch, const struct event *event) {
        if (!watch->folded || !event->path.bytes)
                return;
        hash_for_each(node, watch->folded) {
                struct entry *entry = container_of(node, struct entry, node);

                if (concerns(watch, event, entry->event->path))
                        entry_put_last(entry);
        }
}

/* ---- the bound ------------------------------------------------------------------------------------- */

/* The bytes that folding would make smaller. */
static size_t bytes_to_fold(const struct watch *watch, const struct degree *degree) {
        bool fold_again = watch->folded && watch->folded->n_nodes > degree->n_folds;
        size_t bytes = 0;

        list_for_each(link, &watch->entries) {
                const struct entry *entry = list_entry(link, struct entry, in_watch);

                if ((fold_again || !entry->is_folded) && !is_kept(entry->event, degree))
                        bytes += entry->charge;
        }
        return bytes;
}

/* The tree watch that has the most of them. */
static struct watch *largest_tree(struct queue *queue, const struct degree *degree) {
        struct watch *largest = NULL;
        size_t most = 0;

        hash_for_each(node, &queue->watches) {
                struct watch *watch = container_of(node, struct watch, node);
                size_t bytes = watch->filter == KEV_FILTER_TREE ? bytes_to_fold(watch, degree) : 0;

                if (bytes > most) {
                        most = bytes;
                        largest = watch;
                }
        }
        return largest;
}

static void compact(struct queue *queue) {
        struct watch *watch;

        hash_for_each(node, &queue->watches) {
                watch = container_of(node, struct watch, node);
                if (merge_is_single(watch->filter))
                        compact_single(watch);
                else if (watch->filter == KEV_FILTER_TREE && !(watch->folded && watch->folded->n_nodes > 0))
                        compact_paths(watch);
        }
        for (size_t i = 0; i < ARRAY_SIZE(degrees); i++)
                while (queue->bytes > queue->bytes_max / 2 && (watch = largest_tree(queue, &degrees[i])))
                        if (!fold_all(watch, &degrees[i]))
                                return;
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
                count_merged(queue);
                return true;
        }
        if (event_new(&template, &lost) < 0)
                return false;
        entry = queue_append(queue, watch, lost);
        if (!entry)
                return false;
        watch->lost = entry;
        queue_count(queue, FIGURE_SUMMARIES);
        count_merged(queue);
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
        compact(queue);
        if (!watch->folded || watch->folded->n_nodes == 0 || !merge_into_folded(watch, event))
                return false;
        event_unref(event);
        return true;
}
