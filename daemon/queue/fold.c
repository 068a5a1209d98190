/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fold.h"

#include <stdlib.h>
#include <string.h>

#include "queue.h"

enum { FOLDS_FEW = 8 }; /* times FOLDS_MAX that a watch may have: each event is compared with all of them */

/* Whether folding leaves an event as it is. Directories that came or went are
 * left at first, since the directory that they came to covers all that happened
 * in them: their events precede the rescans, and hold whatever those find. */
static bool is_kept(const struct event *e, const struct fold_degree *degree) {
        if (e->notes & NOTES_KEPT)
                return true;
        return degree->keep_directories && e->kind == KEV_KIND_DIRECTORY && !e->from_path.bytes &&
               (e->notes & NOTES_OF_PLACE) && !(e->notes & NOTES_UNASKED);
}

/* ---- paths -------------------------------------------------------------------------------------------- */

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

static size_t count_names(const struct watch *watch, const char *path, size_t size) {
        size_t n = 1;

        for (size_t i = root_size(watch); i < size; i++)
                n += path[i] == '/';
        return n;
}

/* The pending rescan that covers this directory. */
static struct entry *find_cover(const struct watch *watch, const char *path, size_t size) {
        struct entry *cover = NULL;

        if (watch->folded->n_nodes < count_names(watch, path, size)) { /* than to ask for each directory above */
                hash_for_each(node, watch->folded) {
                        struct entry *entry = container_of(node, struct entry, node);

                        if (is_within(watch, entry->event->path, (struct event_path){ path, size }) &&
                            (!cover || entry->event->path.size > cover->event->path.size))
                                cover = entry;
                }
                return cover;
        }
        for (;;) {
                struct entry *entry = find_folded(watch, path, size);
                size_t up;

                if (entry || size <= root_size(watch))
                        return entry;
                up = parent_size(watch, path, size);
                size = up < size ? up : root_size(watch);
        }
}

/* ---- which directories --------------------------------------------------------------------------------- */

/* A directory that is to be told as in doubt. */
struct fold {
        const char *path; /* of an event, which has to live as long */
        size_t size;
        size_t common; /* the size of the smallest directory above it and the one before it */
        uint64_t notes;
        uint64_t realtime_usec;
};

/* As in a walk of the tree: a directory, what is below it, what stands beside it. */
struct folds {
        const struct watch *watch;
        size_t n, n_max;
        struct fold all[FOLDS_MAX + 1];
};

static struct event_path fold_path(const struct fold *fold) {
        return (struct event_path){ fold->path, fold->size };
}

static int compare_in_walk(const struct fold *a, const struct fold *b) {
        size_t n = 0;

        while (n < a->size && n < b->size && a->path[n] == b->path[n])
                n++;
        if (n == a->size || n == b->size)
                return (a->size > b->size) - (a->size < b->size);
        if (a->path[n] == '/' || b->path[n] == '/')
                return a->path[n] == '/' ? -1 : 1;
        return (unsigned char)a->path[n] < (unsigned char)b->path[n] ? -1 : 1;
}

static void join(struct fold *into, const struct fold *other) {
        into->notes |= other->notes;
        into->realtime_usec = MIN(into->realtime_usec, other->realtime_usec);
}

static void measure_common(struct folds *f, size_t i) {
        struct fold *fold = &f->all[i];

        if (i > 0 && i < f->n)
                fold->common = common_size(f->watch, fold->path, fold->size, fold[-1].path, fold[-1].size);
}

static void take_out(struct folds *f, size_t i) {
        f->n--;
        memmove(&f->all[i], &f->all[i + 1], (f->n - i) * sizeof(f->all[0]));
}

/* The two next to each other that have the smallest directory in common become that, with all else that is in it. */
static void join_closest(struct folds *f) {
        size_t i = 1, size;

        for (size_t k = 2; k < f->n; k++)
                if (f->all[k].common > f->all[i].common)
                        i = k;
        size = f->all[i].common;
        while (i > 1 && f->all[i - 1].common == size)
                i--;
        f->all[i - 1].size = size;
        do {
                join(&f->all[i - 1], &f->all[i]);
                take_out(f, i);
        } while (i < f->n && f->all[i].common == size);
        measure_common(f, i - 1);
        measure_common(f, i);
}

static void add_fold(struct folds *f, const struct fold *fold) {
        size_t low = 0, high = f->n;

        while (low < high) {
                size_t middle = (low + high) / 2;

                if (compare_in_walk(&f->all[middle], fold) < 0)
                        low = middle + 1;
                else
                        high = middle;
        }
        if (low < f->n && compare_in_walk(&f->all[low], fold) == 0) {
                join(&f->all[low], fold);
                return;
        }
        memmove(&f->all[low + 1], &f->all[low], (f->n - low) * sizeof(f->all[0]));
        f->all[low] = *fold;
        f->n++;
        measure_common(f, low);
        measure_common(f, low + 1);
        while (f->n > f->n_max)
                join_closest(f);
}

/* The directories that cover all that the watch has. */
static void gather(const struct watch *watch, const struct fold_degree *degree, struct folds *f) {
        *f = (struct folds){ .watch = watch, .n_max = degree->n_folds };
        list_for_each(link, &watch->entries) {
                const struct event *e = list_entry(link, struct entry, in_watch)->event;

                if (!is_kept(e, degree))
                        add_fold(f, &(struct fold){
                                            .path = e->path.bytes ? e->path.bytes : "", .size = cover_size(watch, e),
                                            .notes = e->notes & KEV_NOTE_DEGRADED, .realtime_usec = e->realtime_usec,
                                    });
        }
}

/* What covers others has the time of the first of them. */
static void pass_times_up(struct folds *f) {
        for (size_t i = 0; i < f->n; i++)
                for (size_t j = i + 1; j < f->n && is_within(f->watch, fold_path(&f->all[i]), fold_path(&f->all[j])); j++)
                        f->all[i].realtime_usec = MIN(f->all[i].realtime_usec, f->all[j].realtime_usec);
}

/* ---- folding ---------------------------------------------------------------------------------------------- */

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

size_t fold_bytes(const struct watch *watch, const struct fold_degree *degree) {
        bool fold_again = watch->folded && watch->folded->n_nodes > degree->n_folds;
        size_t bytes = 0, n = 0;

        list_for_each(link, &watch->entries) {
                const struct entry *entry = list_entry(link, struct entry, in_watch);

                if ((!fold_again && entry->is_folded) || is_kept(entry->event, degree))
                        continue;
                bytes += entry->charge;
                n++;
        }
        return n > 1 || (n > 0 && watch->folded && watch->folded->n_nodes > 0) ? bytes : 0;
}

bool fold_watch(struct watch *watch, const struct fold_degree *degree) {
        struct folds folds;
        struct list entries;

        if (!watch->folded) {
                watch->folded = calloc(1, sizeof(*watch->folded));
                if (!watch->folded)
                        return false;
        }
        gather(watch, degree, &folds);
        /* The old rescans are folded anew with the rest. */
        list_for_each(link, &watch->entries)
                list_entry(link, struct entry, in_watch)->is_folded = false;
        hash_free(watch->folded);
        list_init(&entries);
        list_splice(&entries, &watch->entries);
        pass_times_up(&folds);
        for (size_t i = 0; i < folds.n; i++) /* those that cover others come before them */
                if (!fold_at(watch, &folds.all[i], 0)) {
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
                queue_count_merged(watch->queue);
                entry_free(entry);
        }
        return true;
}

bool fold_in(struct watch *watch, const struct event *event) {
        size_t size = cover_size(watch, event);
        struct entry *entry;
        bool moves_directory = event->kind == KEV_KIND_DIRECTORY && event->from_path.bytes;
        struct fold fold;

        if (event->notes & (NOTES_KEPT | KEV_NOTE_DEGRADED) || !event->path.bytes)
                return false;
        entry = find_cover(watch, event->path.bytes, size);
        if (entry && (!event->from_path.bytes || is_within(watch, entry->event->path, event->from_path))) {
                entry->more += event->count;
                queue_count_merged(watch->queue);
                return true;
        }
        if (!moves_directory)
                return false;
        fold = (struct fold){ .path = event->path.bytes, .size = size, .realtime_usec = event->realtime_usec };
        if (!fold_at(watch, &fold, event->count))
                return false;
        queue_count_merged(watch->queue);
        if (watch->folded->n_nodes > FOLDS_FEW * FOLDS_MAX)
                (void)fold_watch(watch, &(struct fold_degree){ true, FOLDS_MAX });
        return true;
}

static bool concerns(const struct watch *watch, const struct event *e, struct event_path cover) {
        if (e->from_path.bytes && (is_within(watch, cover, e->path) || is_within(watch, cover, e->from_path)))
                return true;
        return e->kind != KEV_KIND_FILE && (e->notes & NOTES_OF_PLACE) && is_within(watch, e->path, cover);
}

void fold_put_last(struct watch *watch, const struct event *event) {
        if (!watch->folded || !event->path.bytes)
                return;
        hash_for_each(node, watch->folded) {
                struct entry *entry = container_of(node, struct entry, node);

                if (concerns(watch, event, entry->event->path))
                        entry_put_last(entry);
        }
}
