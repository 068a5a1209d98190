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
 * FOLDS_MAX of them. An event that comes later and lies within one of them is
 * only counted there.
 *
 * A directory's move changes the paths of what comes after it, but not of a
 * rescan that waits: while a watch has such, moves of directories are folded
 * into them.
 *
 * Counts are exact: those of what is merged are added.
 */

#include <string.h>

#include "queue.h"

enum { FOLDS_MAX = 64 };

/* Of directories: they change what other paths mean. */
#define NOTES_OF_PLACE (KEV_NOTE_CREATE | KEV_NOTE_DELETE | KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT | KEV_NOTE_RENAME)
/* Told as they are, whatever happens. */
#define NOTES_KEPT (KEV_NOTE_GONE | KEV_NOTE_BACK | KEV_NOTE_LISTED)

bool merge_is_single(enum kev_filter filter) {
        return filter != KEV_FILTER_TREE && filter != KEV_FILTER_PROC;
}

static void count_merged(struct queue *queue, uint64_t n) {
        queue->merged += n;
        queue->context->merged += n;
}

/* ---- single objects ------------------------------------------------------------------------ */

/* False: no memory, and the entry is as it was. */
static bool merge_into(struct entry *entry, const struct event *event) {
        struct event *merged;

        if (event_merge(entry->event, event, &merged) < 0)
                return false;
        entry_replace(entry, merged);
        count_merged(entry->watch->queue, 1);
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
        count_merged(entry->watch->queue, 1);
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

/* Makes the rescan of a directory, or counts it where there is one. */
static bool fold_at(struct watch *watch, const struct event *like, size_t size, uint64_t notes, uint64_t count) {
        struct event template = {
                .filter = watch->filter,
                .kind = KEV_KIND_DIRECTORY,
                .notes = KEV_NOTE_RESCAN | (notes & KEV_NOTE_DEGRADED),
                .count = count,
                .realtime_usec = like->realtime_usec,
                .data = ABSENT,
        }, *event;
        const char *path = like->path.bytes ? like->path.bytes : "";
        struct entry *entry = find_cover(watch, path, size);
        char *copy _cleanup_(freep) = NULL;

        if (entry && !(notes & KEV_NOTE_DEGRADED & ~entry->event->notes)) {
                entry->more += count;
                return true;
        }
        if (like->path.bytes) {
                copy = strndup(path, size);
                if (!copy)
                        return false;
                template.path = (struct event_path){ copy, size };
        }
        if (event_new(&template, &event) < 0)
                return false;
        entry = queue_append(watch->queue, watch, event);
        if (!entry)
                return false;
        entry->is_folded = hash_add(watch->folded, &entry->node, hash_bytes(path, size, 0)) == 0;
        watch->queue->context->rescans++;
        return true;
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

/* How deep the rescans may lie so that there are FOLDS_MAX at most. */
static size_t choose_depth(struct watch *watch) {
        size_t deepest = 0, lowest = watch->prefix ? depth_of(watch->prefix->text, watch->prefix->size) : 0;

        list_for_each(link, &watch->entries) {
                const struct event *e = list_entry(link, struct entry, in_watch)->event;

                deepest = MAX(deepest, depth_of(e->path.bytes ? e->path.bytes : "", cover_size(watch, e)));
        }
        for (size_t depth = deepest; depth > lowest; depth--) {
                uint64_t seen[FOLDS_MAX + 1];
                size_t n = 0;

                list_for_each(link, &watch->entries) {
                        const struct event *e = list_entry(link, struct entry, in_watch)->event;
                        const char *path = e->path.bytes ? e->path.bytes : "";
                        uint64_t hash = hash_bytes(path, cut_to_depth(watch, path, cover_size(watch, e), depth), 0);
                        size_t i = 0;

                        while (i < n && seen[i] != hash)
                                i++;
                        if (i == n)
                                seen[n++] = hash;
                        if (n > FOLDS_MAX)
                                break;
                }
                if (n <= FOLDS_MAX)
                        return depth;
        }
        return lowest;
}

/* Everything that the watch has becomes rescans. */
static bool fold_all(struct watch *watch) {
        struct list entries;
        size_t depth;
        bool done = true;

        if (!watch->folded) {
                watch->folded = calloc(1, sizeof(*watch->folded));
                if (!watch->folded)
                        return false;
        }
        depth = choose_depth(watch);
        list_init(&entries);
        list_splice(&entries, &watch->entries);
        /* The old rescans are folded anew with the rest. */
        hash_free(watch->folded);
        /* From the shallow to the deep, so that one covers the next. */
        for (size_t d = 0; d <= depth && !list_empty(&entries); d++)
                list_for_each(link, &entries) {
                        struct entry *entry = list_entry(link, struct entry, in_watch);
                        const struct event *e = entry->event;
                        const char *path = e->path.bytes ? e->path.bytes : "";
                        size_t size = cut_to_depth(watch, path, cover_size(watch, e), depth);

                        if (depth_of(path, size) > d)
                                continue;
                        entry->is_folded = false;
                        list_remove(&entry->in_watch);
                        if (e->notes & NOTES_KEPT || !fold_at(watch, e, size, e->notes, e->count + entry->more)) {
                                list_append(&watch->entries, &entry->in_watch);
                                done = done && e->notes & NOTES_KEPT;
                                continue;
                        }
                        count_merged(watch->queue, 1);
                        entry_free(entry);
                }
        list_splice(&watch->entries, &entries);
        return done;
}

static bool is_within(const struct watch *watch, const struct entry *cover, struct event_path path) {
        size_t size = cover->event->path.size;

        return path.size >= size && (size == 0 || memcmp(path.bytes, cover->event->path.bytes, size) == 0) &&
               (path.size == size || size <= root_size(watch) || path.bytes[size] == '/');
}

bool merge_into_folded(struct watch *watch, const struct event *event) {
        size_t size = cover_size(watch, event);
        struct entry *entry;
        bool moves_directory = is_about_place(event) && event->kind == KEV_KIND_DIRECTORY && event->from_path.bytes;

        if (event->notes & (NOTES_KEPT | KEV_NOTE_DEGRADED) || !event->path.bytes)
                return false;
        entry = find_cover(watch, event->path.bytes, size);
        if (entry && (!event->from_path.bytes || is_within(watch, entry, event->from_path))) {
                entry->more += event->count;
                count_merged(watch->queue, 1);
                return true;
        }
        if (!moves_directory)
                return false;
        if (!fold_at(watch, event, size, 0, event->count))
                return false;
        count_merged(watch->queue, 1);
        return true;
}

/* ---- the bound ------------------------------------------------------------------------------------- */

static struct watch *largest_tree(struct queue *queue) {
        struct watch *largest = NULL;
        size_t most = 0;

        hash_for_each(node, &queue->watches) {
                struct watch *watch = container_of(node, struct watch, node);
                size_t bytes = 0;

                if (watch->filter != KEV_FILTER_TREE)
                        continue;
                list_for_each(link, &watch->entries) {
                        struct entry *entry = list_entry(link, struct entry, in_watch);

                        if (!entry->is_folded && !(entry->event->notes & NOTES_KEPT))
                                bytes += entry->charge;
                }
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
        while (queue->bytes > queue->bytes_max / 2 && (watch = largest_tree(queue)))
                if (!fold_all(watch))
                        break;
}

bool merge_event(struct queue *queue, struct watch *watch, struct event *event) {
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
