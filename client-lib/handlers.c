/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Which handler gets the events of a watch. Knows ids only, and calls nobody.
 *
 * At most three quarters of the slots are used, so a search always meets a free
 * one; no entry has a free slot between its own place and where it stands.
 */

#include <errno.h>

#include "internal.h"

enum { HANDLERS_CAPACITY_MIN = 16 };

void handlers_free(struct handlers *handlers) {
        free(handlers->slots);
        *handlers = (struct handlers){ 0 };
}

/* Ids are mostly counted up: the multiplication (2^64 divided by the golden
 * ratio) spreads multiples of a power of two as well. */
static size_t place_of(const struct handlers *handlers, int64_t id) {
        return (size_t)(((uint64_t)id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (handlers->capacity - 1);
}

static size_t next(const struct handlers *handlers, size_t place) {
        return (place + 1) & (handlers->capacity - 1);
}

int handlers_reserve(struct handlers *handlers, size_t n) {
        struct handlers larger = { .capacity = MAX(handlers->capacity, (size_t)HANDLERS_CAPACITY_MIN) };

        while (larger.capacity / 4 * 3 < handlers->used + n)
                larger.capacity *= 2;
        if (larger.capacity == handlers->capacity)
                return 0;
        larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
        if (!larger.slots)
                return -ENOMEM;
        for (size_t i = 0; i < handlers->capacity; i++)
                if (handlers->slots[i].handler)
                        handlers_set(&larger, &handlers->slots[i]);
        free(handlers->slots);
        *handlers = larger;
        return 0;
}

struct handler_entry *handlers_find(const struct handlers *handlers, int64_t id) {
        if (handlers->used == 0)
                return NULL;
        for (size_t i = place_of(handlers, id); handlers->slots[i].handler; i = next(handlers, i))
                if (handlers->slots[i].id == id)
                        return &handlers->slots[i];
        return NULL;
}

void handlers_set(struct handlers *handlers, const struct handler_entry *entry) {
        size_t i;

        if (!entry->handler) {
                handlers_remove(handlers, entry->id);
                return;
        }
        for (i = place_of(handlers, entry->id); handlers->slots[i].handler; i = next(handlers, i))
                if (handlers->slots[i].id == entry->id)
                        break;
        if (!handlers->slots[i].handler)
                handlers->used++;
        handlers->slots[i] = *entry;
}

void handlers_remove(struct handlers *handlers, int64_t id) {
        struct handler_entry *entry = handlers_find(handlers, id);
        size_t hole, mask = handlers->capacity - 1;

        if (!entry)
                return;
        hole = (size_t)(entry - handlers->slots);
        /* What stands behind the hole moves into it, unless its own place is
         * behind the hole as well. */
        for (size_t i = next(handlers, hole); handlers->slots[i].handler; i = next(handlers, i)) {
                size_t place = place_of(handlers, handlers->slots[i].id);

                if (((i - place) & mask) < ((i - hole) & mask))
                        continue;
                handlers->slots[hole] = handlers->slots[i];
                hole = i;
        }
        handlers->slots[hole] = (struct handler_entry){ 0 };
        handlers->used--;
}
