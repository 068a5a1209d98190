/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "tree.h"

#include <errno.h>
#include <string.h>

static uint64_t hash_name(const struct dir *parent, const char *name, size_t size) {
        return hash_bytes(name, size, (uintptr_t)parent);
}

static struct dir *new_dir(struct tree *tree, const char *name, size_t size) {
        struct dir *dir = calloc(1, sizeof(*dir) + size + 1);

        if (!dir)
                return NULL;
        dir->name = memcpy(dir->own_name, name, size);
        dir->id = tree->next_id++;
        list_init(&dir->subscriptions);
        list_init(&dir->degraded);
        tree->n_dirs++;
        return dir;
}

int tree_init(struct tree *tree) {
        *tree = (struct tree){ .next_id = 1, .n_merged = 1 };
        list_init(&tree->watches);
        tree->root = new_dir(tree, "", 0);
        tree->scratch = malloc(SCRATCH_BYTES);
        tree->from_scratch = malloc(SCRATCH_BYTES);
        if (tree->root && tree->scratch && tree->from_scratch)
                return 0;
        tree_free(tree);
        return -ENOMEM;
}

void tree_free(struct tree *tree) {
        if (tree->root)
                tree_free_dir(tree, tree->root);
        hash_free(&tree->names);
        free(tree->scratch);
        free(tree->from_scratch);
        *tree = (struct tree){ 0 };
}

static struct dir *find(const struct tree *tree, const struct dir *parent, const char *name, size_t size) {
        for (struct hash_node *n = hash_first(&tree->names, hash_name(parent, name, size)); n; n = hash_next(n)) {
                struct dir *dir = container_of(n, struct dir, node);

                if (dir->parent == parent && strncmp(dir->name, name, size) == 0 && dir->name[size] == 0)
                        return dir;
        }
        return NULL;
}

struct dir *tree_child(const struct tree *tree, const struct dir *parent, const char *name) {
        return find(tree, parent, name, strlen(name));
}

/* With all above it. */
static void add_watches(struct dir *dir, uint32_t n) {
        for (; n != 0 && dir; dir = dir->parent)
                dir->n_watches += n;
}

void tree_count(struct dir *dir, int by) {
        add_watches(dir, (uint32_t)by);
}

static void unlink_dir(struct tree *tree, struct dir *dir) {
        if (!dir->parent)
                return;
        add_watches(dir->parent, -dir->n_watches);
        hash_remove(&tree->names, &dir->node);
        if (dir->previous)
                dir->previous->next = dir->next;
        else
                dir->parent->first_child = dir->next;
        if (dir->next)
                dir->next->previous = dir->previous;
        dir->next = dir->previous = dir->parent = NULL;
}

static int link_dir(struct tree *tree, struct dir *dir, struct dir *parent) {
        int r = hash_add(&tree->names, &dir->node, hash_name(parent, dir->name, strlen(dir->name)));

        if (r < 0)
                return r;
        dir->placed = ++tree->n_placed;
        dir->parent = parent;
        add_watches(parent, dir->n_watches);
        dir->previous = NULL;
        dir->next = parent->first_child;
        if (dir->next)
                dir->next->previous = dir;
        parent->first_child = dir;
        return 0;
}

static struct dir *make_child(struct tree *tree, struct dir *parent, const char *name, size_t size) {
        struct dir *dir = find(tree, parent, name, size);

        if (dir)
                return dir;
        dir = new_dir(tree, name, size);
        if (dir && link_dir(tree, dir, parent) < 0) {
                tree_free_dir(tree, dir);
                dir = NULL;
        }
        return dir;
}

struct dir *tree_make_child(struct tree *tree, struct dir *parent, const char *name) {
        return make_child(tree, parent, name, strlen(name));
}

struct dir *tree_find_path(const struct tree *tree, const char *path, size_t size) {
        const char *end = path + size;
        struct dir *dir = tree->root;

        while (dir && path < end) {
                size_t n = 0;

                path += *path == '/';
                while (path + n < end && path[n] != '/')
                        n++;
                if (n > 0)
                        dir = find(tree, dir, path, n);
                path += n;
        }
        return dir;
}

struct dir *tree_make_path(struct tree *tree, const char *path) {
        struct dir *dir = tree->root;

        while (dir && *path) {
                size_t size;

                path += *path == '/';
                size = strcspn(path, "/");
                if (size > 0) {
                        struct dir *child = make_child(tree, dir, path, size);

                        if (!child)
                                tree_prune(tree, dir);
                        dir = child;
                }
                path += size;
        }
        return dir;
}

static void free_name(struct dir *dir) {
        if (dir->name != dir->own_name)
                free(dir->name);
}

int tree_move(struct tree *tree, struct dir *dir, struct dir *parent, const char *name) {
        char *copy = strdup(name);

        if (!copy)
                return -ENOMEM;
        unlink_dir(tree, dir);
        free_name(dir);
        dir->name = copy;
        return link_dir(tree, dir, parent);
}

void tree_cut(struct tree *tree, struct dir *dir) {
        unlink_dir(tree, dir);
}

void tree_free_dir(struct tree *tree, struct dir *dir) {
        unlink_dir(tree, dir);
        if (dir->refs > 0) {
                dir->limbo = true;
                return;
        }
        tree->n_dirs--;
        free_name(dir);
        free(dir);
}

struct dir *tree_ref(struct dir *dir) {
        if (dir)
                dir->refs++;
        return dir;
}

void tree_unref(struct tree *tree, struct dir *dir) {
        if (!dir || --dir->refs > 0)
                return;
        if (dir->limbo)
                tree_free_dir(tree, dir);
        else if (tree_is_below(dir, tree->root))
                tree_prune(tree, dir);
}

void tree_prune(struct tree *tree, struct dir *dir) {
        while (dir && dir != tree->root && !dir->first_child && !dir->mark && !dir->lookup && !dir->place &&
               !dir->listing && dir->refs == 0 &&
               list_empty(&dir->subscriptions) && list_empty(&dir->degraded)) {
                struct dir *parent = dir->parent;

                tree_free_dir(tree, dir);
                dir = parent;
        }
}

bool tree_is_below(const struct dir *dir, const struct dir *above) {
        while (dir && dir != above)
                dir = dir->parent;
        return dir != NULL;
}

static size_t depth_of(const struct dir *dir) {
        size_t depth = 0;

        for (; dir; dir = dir->parent)
                depth++;
        return depth;
}

struct dir *tree_common(struct dir *a, struct dir *b) {
        size_t depth_a = depth_of(a), depth_b = depth_of(b);

        for (; depth_a > depth_b; depth_a--)
                a = a->parent;
        for (; depth_b > depth_a; depth_b--)
                b = b->parent;
        while (a != b) {
                a = a->parent;
                b = b->parent;
        }
        return a;
}

void tree_path(const struct dir *dir, struct buffer *b) {
        size_t size = 0, start = b->size;
        char *p;

        for (const struct dir *d = dir; d->parent; d = d->parent)
                size += strlen(d->name) + 1;
        p = buffer_reserve(b, MAX(size, 1u) + 1);
        if (!p)
                return;
        b->size = start + MAX(size, 1u);
        p[MAX(size, 1u)] = 0;
        p[0] = '/';
        p += size;
        for (const struct dir *d = dir; d->parent; d = d->parent) {
                size_t n = strlen(d->name);

                p -= n + 1;
                p[0] = '/';
                memcpy(p + 1, d->name, n);
        }
}
