/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hash.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static uint64_t key(void) {
        static uint64_t k;

        if (k == 0 && getrandom(&k, sizeof(k), GRND_NONBLOCK) != sizeof(k))
                k = UINT64_C(0x9e3779b97f4a7c15);
        k |= 1;
        return k;
}

static uint64_t mix(uint64_t a, uint64_t b) {
        __extension__ typedef unsigned __int128 u128;
        u128 product = (u128)a * b;

        return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t hash_u64(uint64_t value) {
        return mix(value ^ key(), UINT64_C(0x9e3779b97f4a7c15));
}

uint64_t hash_bytes(const void *data, size_t size, uint64_t seed) {
        const unsigned char *p = data;
        uint64_t h = seed ^ key(), word;

        for (; size >= 8; size -= 8, p += 8) {
                memcpy(&word, p, 8);
                h = mix(h ^ word, UINT64_C(0xa0761d6478bd642f));
        }
        word = size;
        for (size_t i = 0; i < size; i++)
                word = word << 8 | p[i];
        return mix(h ^ word, UINT64_C(0xe7037ed1a0b428db));
}

static int resize(struct hash *table, size_t n_buckets) {
        struct hash_node **buckets = calloc(n_buckets, sizeof(*buckets));

        if (!buckets)
                return -ENOMEM;
        hash_for_each(node, table) {
                size_t i = node->hash & (n_buckets - 1);

                node->next = buckets[i];
                buckets[i] = node;
        }
        free(table->buckets);
        table->buckets = buckets;
        table->n_buckets = n_buckets;
        return 0;
}

int hash_add(struct hash *table, struct hash_node *node, uint64_t hash) {
        struct hash_node **bucket;

        if (table->n_nodes >= table->n_buckets) {
                if (resize(table, table->n_buckets ? table->n_buckets * 2 : 8) < 0 && table->n_buckets == 0)
                        return -ENOMEM;
        } else if (table->n_buckets > 64 && table->n_nodes < table->n_buckets / 8)
                (void)resize(table, table->n_buckets / 4); /* it goes on as it is if there is no memory */
        node->hash = hash;
        bucket = &table->buckets[hash & (table->n_buckets - 1)];
        node->next = *bucket;
        *bucket = node;
        table->n_nodes++;
        return 0;
}

void hash_remove(struct hash *table, struct hash_node *node) {
        struct hash_node **p;

        if (table->n_buckets == 0)
                return;
        for (p = &table->buckets[node->hash & (table->n_buckets - 1)]; *p; p = &(*p)->next)
                if (*p == node) {
                        *p = node->next;
                        table->n_nodes--;
                        break;
                }
        if (table->n_nodes == 0)
                hash_free(table);
}

void hash_free(struct hash *table) {
        free(table->buckets);
        *table = HASH_INIT;
}
