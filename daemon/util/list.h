/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An intrusive, circular, doubly linked list. An entry that is in no list
 * points at itself, so that it can be removed twice.
 */

#include <stdbool.h>

#include "macro.h"

struct list {
        struct list *previous, *next;
};

static inline void list_init(struct list *l) {
        l->previous = l->next = l;
}

static inline bool list_empty(const struct list *l) {
        return l->next == l;
}

static inline void list_append(struct list *list, struct list *entry) {
        entry->previous = list->previous;
        entry->next = list;
        /* Nothing in a list is NULL, which clang's analyzer takes for possible: NOLINTNEXTLINE(clang-analyzer-core.*) */
        list->previous->next = entry;
        list->previous = entry;
}

static inline void list_remove(struct list *entry) {
        entry->previous->next = entry->next;
        entry->next->previous = entry->previous;
        list_init(entry);
}

/* Moves all entries of `from` to the end of `to`. */
static inline void list_splice(struct list *to, struct list *from) {
        if (list_empty(from))
                return;
        from->next->previous = to->previous;
        to->previous->next = from->next;
        from->previous->next = to;
        to->previous = from->previous;
        list_init(from);
}

/* The first entry, taken out of the list; NULL if there is none. */
static inline struct list *list_pop(struct list *l) {
        struct list *entry = l->next;

        if (entry == l)
                return NULL;
        list_remove(entry);
        return entry;
}

#define list_entry(pointer, type, member) container_of(pointer, type, member)

/* The entry at hand may be removed by the body, its neighbours may not. */
#define list_for_each(entry, head) \
        for (struct list *entry = (head)->next, *entry##_next = entry->next; entry != (head); \
             entry = entry##_next, entry##_next = entry->next)
