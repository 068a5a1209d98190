/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An intrusive binary heap: what has the smallest key comes first, of equal keys
 * any. The caller embeds a uint32_t, its index in the heap, which the heap alone
 * writes: from 1 on, 0 while it isn't in. Keys stand in the heap's array, so that
 * comparing them touches nothing else.
 */

#include <stddef.h>
#include <stdint.h>

struct heap_entry {
        uint64_t key;
        uint32_t *index;
};

struct heap {
        struct heap_entry *entries; /* from 1 on */
        size_t size, capacity;
};

#define HEAP_INIT ((struct heap){ 0 })

/* Sees to room for the next few dozen, which heap_set() does as well: there is no memory for a long while before it
 * fails. -ENOMEM: they have the room that there is. */
int heap_reserve(struct heap *heap);
/* Puts it in, or gives it another key. -ENOMEM, and nothing has changed: never for one that is in, nor for the next
 * one after another has gone. */
int heap_set(struct heap *heap, uint32_t *index, uint64_t key);
/* One that isn't in is passed over. */
void heap_clear(struct heap *heap, uint32_t *index);
/* Frees the heap, not what was in it. */
void heap_free(struct heap *heap);

/* The first one's index, for container_of(); NULL: it is empty. */
static inline uint32_t *heap_first(const struct heap *heap) {
        return heap->size > 0 ? heap->entries[1].index : NULL;
}

/* Of one that is in. */
static inline uint64_t heap_key(const struct heap *heap, uint32_t index) {
        return heap->entries[index].key;
}

/* Not of an empty heap. */
static inline uint64_t heap_first_key(const struct heap *heap) {
        return heap->entries[1].key;
}
