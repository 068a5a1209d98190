/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "recent.h"

#include <stdlib.h>

#include "macro.h"

struct recent_note {
        struct hash_node node;
        uint64_t number; /* 0: not in the table */
};

void recent_free(struct recent *recent) {
        hash_free(&recent->table);
        free(recent->notes);
        *recent = (struct recent){ 0 };
}

void recent_lose(struct recent *recent, uint64_t number) {
        recent->forgotten = MAX(recent->forgotten, number);
}

static struct recent_note *find(const struct recent *recent, uint64_t hash) {
        struct hash_node *n = hash_first(&recent->table, hash);

        return n ? container_of(n, struct recent_note, node) : NULL;
}

static void take_out(struct recent *recent, struct recent_note *note) {
        hash_remove(&recent->table, &note->node);
        note->number = 0;
}

void recent_note(struct recent *recent, uint64_t hash, uint64_t number) {
        struct recent_note *note = find(recent, hash);

        if (note)
                take_out(recent, note);
        if (!recent->notes)
                recent->notes = calloc(RECENT_MAX, sizeof(*recent->notes));
        if (!recent->notes) {
                recent_lose(recent, number);
                return;
        }
        note = &recent->notes[recent->n++ % RECENT_MAX];
        if (note->number > 0) {
                recent_lose(recent, note->number);
                take_out(recent, note);
        }
        if (hash_add(&recent->table, &note->node, hash) == 0)
                note->number = number;
        else
                recent_lose(recent, number);
}

void recent_settle(struct recent *recent, uint64_t number) {
        uint64_t first = recent->n > RECENT_MAX ? recent->n - RECENT_MAX : 0;

        if (recent->forgotten == RECENT_UNKNOWN)
                recent->forgotten = number;
        for (uint64_t i = MAX(first, recent->n_known); i < recent->n; i++)
                if (recent->notes[i % RECENT_MAX].number == RECENT_UNKNOWN)
                        recent->notes[i % RECENT_MAX].number = number;
        recent->n_known = recent->n;
}

bool recent_has_since(const struct recent *recent, uint64_t hash, uint64_t number) {
        const struct recent_note *note = find(recent, hash);

        return recent->forgotten > number || (note && note->number > number);
}
