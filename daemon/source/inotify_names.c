/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Names in directories: those that were told by a listing, and those that had an event while one was made. */

#include "inotify_tree.h"

#include <string.h>

struct listed {
        struct hash_node node;
        uint64_t dir;
        uint64_t stop; /* who watches this directory or one above was not told; 0: everybody was */
        uint32_t placed; /* tree.n_placed then */
        char name[];
};

static struct listed *find(const struct hash *table, const struct dir *dir, const char *name, uint64_t *ret_hash) {
        *ret_hash = hash_bytes(name, strlen(name), dir->id);
        for (struct hash_node *n = hash_first(table, *ret_hash); n; n = hash_next(n)) {
                struct listed *l = container_of(n, struct listed, node);

                if (l->dir == dir->id && strcmp(l->name, name) == 0)
                        return l;
        }
        return NULL;
}

static void add(struct hash *table, const struct dir *dir, const char *name, const struct dir *stop, uint32_t placed) {
        size_t size = strlen(name) + 1;
        uint64_t hash;
        struct listed *l = find(table, dir, name, &hash);

        if (l) {
                l->stop = stop ? l->stop : 0;
                l->placed = placed;
                return;
        }
        l = malloc(sizeof(*l) + size);
        if (!l)
                return;
        l->dir = dir->id;
        l->stop = stop ? stop->id : 0;
        l->placed = placed;
        memcpy(l->name, name, size);
        if (hash_add(table, &l->node, hash) < 0)
                free(l);
}

void names_add_listed(struct inotify *s, const struct dir *dir, const char *name, const struct dir *stop) {
        add(&s->listed, dir, name, stop, 0);
}

bool names_take(struct hash *table, const struct dir *dir, const char *name, uint64_t *ret_stop) {
        uint64_t hash;
        struct listed *l = table->n_nodes > 0 ? find(table, dir, name, &hash) : NULL;

        if (!l)
                return false;
        if (ret_stop)
                *ret_stop = l->stop;
        hash_remove(table, &l->node);
        free(l);
        return true;
}

static void forget(struct hash *table) {
        if (table->n_nodes == 0)
                return;
        hash_for_each(node, table)
                free(container_of(node, struct listed, node));
        hash_free(table);
}

void names_forget_listed(struct inotify *s) {
        forget(&s->listed);
}

void names_forget_touched(struct inotify *s) {
        forget(&s->touched);
}

static bool is_renewed_since(const struct dir *dir, uint32_t placed) {
        for (; dir; dir = dir->parent)
                if (dir->renewed != 0 && (int32_t)(dir->renewed - placed) > 0)
                        return true;
        return false;
}

bool names_take_touched(struct inotify *s, const struct dir *dir, const char *name) {
        uint64_t hash;
        struct listed *l = s->touched.n_nodes > 0 ? find(&s->touched, dir, name, &hash) : NULL;
        bool counts;

        if (!l)
                return false;
        counts = !is_renewed_since(dir, l->placed);
        hash_remove(&s->touched, &l->node);
        free(l);
        return counts;
}

void names_touch(struct inotify *s, const struct dir *dir, const char *name) {
        if (dir->lookup && dir->mark &&
            (dir->lookup->purpose == PURPOSE_NEW || (dir->again && dir->again_purpose == PURPOSE_NEW)))
                add(&s->touched, dir, name, NULL, (uint32_t)s->tree.n_placed);
}
