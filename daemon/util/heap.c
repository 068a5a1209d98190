/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "heap.h"

#include <errno.h>
#include <stdlib.h>

enum { CAPACITY_MIN = 128, SPARE_MIN = 64 };

static void place(struct heap *heap, size_t i, struct heap_entry entry) {
        heap->entries[i] = entry;
        *entry.index = (uint32_t)i;
}

static void place_up(struct heap *heap, size_t i, struct heap_entry entry) {
        for (; i > 1 && heap->entries[i / 2].key > entry.key; i /= 2)
                place(heap, i, heap->entries[i / 2]);
        place(heap, i, entry);
}

static void place_down(struct heap *heap, size_t i, struct heap_entry entry) {
        for (size_t child = 2 * i; child <= heap->size; i = child, child *= 2) {
                if (child < heap->size && heap->entries[child + 1].key < heap->entries[child].key)
                        child++;
                if (heap->entries[child].key >= entry.key)
                        break;
                place(heap, i, heap->entries[child]);
        }
        place(heap, i, entry);
}

/* Instead of what is at `i`. */
static void replace(struct heap *heap, size_t i, struct heap_entry entry) {
        if (i > 1 && heap->entries[i / 2].key > entry.key)
                place_up(heap, i, entry);
        else
                place_down(heap, i, entry);
}

static int resize(struct heap *heap, size_t capacity) {
        struct heap_entry *entries = realloc(heap->entries, capacity * sizeof(*entries));

        if (!entries)
                return -ENOMEM;
        heap->entries = entries;
        heap->capacity = capacity;
        return 0;
}

int heap_reserve(struct heap *heap) {
        if (heap->size + 1 + SPARE_MIN < heap->capacity)
                return 0;
        return resize(heap, heap->capacity > 0 ? heap->capacity * 2 : CAPACITY_MIN);
}

int heap_set(struct heap *heap, uint32_t *index, uint64_t key) {
        struct heap_entry entry = { key, index };

        if (*index > 0) {
                replace(heap, *index, entry);
                return 0;
        }
        if (heap_reserve(heap) < 0 && heap->size + 1 >= heap->capacity)
                return -ENOMEM;
        heap->size++;
        place_up(heap, heap->size, entry);
        return 0;
}

void heap_clear(struct heap *heap, uint32_t *index) {
        size_t i = *index;

        if (i == 0)
                return;
        *index = 0;
        heap->size--;
        if (i <= heap->size)
                replace(heap, i, heap->entries[heap->size + 1]);
        if (heap->capacity > CAPACITY_MIN && heap->size < heap->capacity / 8)
                (void)resize(heap, heap->capacity / 2); /* it goes on as it is if there is no memory */
}

void heap_free(struct heap *heap) {
        free(heap->entries);
        *heap = HEAP_INIT;
}
