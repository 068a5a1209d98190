/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An intrusive hash table with chains. The caller embeds a struct hash_node,
 * computes the hash, and compares.
 *
 * Hashes are keyed with a random number of the process, since names and ids are
 * chosen by peers.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hash_node {
        struct hash_node *next;
        uint64_t hash;
};

struct hash {
        struct hash_node **buckets;
        size_t n_buckets; /* 0, or a power of two */
        size_t n_nodes;
};

#define HASH_INIT ((struct hash){ 0 })

uint64_t hash_bytes(const void *data, size_t size, uint64_t seed);
uint64_t hash_u64(uint64_t value);

/* -ENOMEM: the node is not in the table. */
int hash_add(struct hash *table, struct hash_node *node, uint64_t hash);
/* A node that is not in the table is passed over. The buckets stay where they are (so that nodes can be removed on a
 * walk) until the last node is gone; hash_add() takes fewer when few are used. */
void hash_remove(struct hash *table, struct hash_node *node);
/* Frees the table, not the nodes. */
void hash_free(struct hash *table);

static inline struct hash_node *hash_first(const struct hash *table, uint64_t hash) {
        struct hash_node *n = table->n_buckets ? table->buckets[hash & (table->n_buckets - 1)] : NULL;

        while (n && n->hash != hash)
                n = n->next;
        return n;
}

/* The next node of the same hash. */
static inline struct hash_node *hash_next(const struct hash_node *node) {
        struct hash_node *n = node->next;

        while (n && n->hash != node->hash)
                n = n->next;
        return n;
}

/* All nodes; the body may remove the node at hand, and must not add any. */
#define hash_for_each(node, table)                                                                \
        for (size_t node##_i = 0; node##_i < (table)->n_buckets; node##_i++)                      \
                for (struct hash_node *node = (table)->buckets[node##_i], *node##_next;           \
                     node && (node##_next = node->next, true); node = node##_next)
