/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The watches of a connection, by id: who handles their events, and how they are
 * made again. Knows no socket, and calls nobody.
 *
 * Open addressing with linear probing. At most three quarters of the slots are
 * used, so a search always meets a free one; no entry has a free slot between its
 * own place and where it stands.
 */

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "internal.h"
#include "message.h"

enum { KNOWN_CAPACITY_MIN = 16 };

static void entry_done(struct known_watch *entry) {
        free(entry->description);
        (void)safe_close(entry->pidfd);
}

void known_free(struct known *known) {
        for (size_t i = 0; i < known->capacity; i++)
                if (known->slots[i].is_used)
                        entry_done(&known->slots[i]);
        free(known->slots);
        *known = (struct known){ 0 };
}

/* Ids are mostly counted up: the multiplication (2^64 divided by the golden
 * ratio) spreads multiples of a power of two as well. */
static size_t place_of(const struct known *known, int64_t id) {
        return (size_t)(((uint64_t)id * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & (known->capacity - 1);
}

static size_t next(const struct known *known, size_t place) {
        return (place + 1) & (known->capacity - 1);
}

/* Where the id is, or would be. */
static struct known_watch *slot_of(const struct known *known, int64_t id) {
        size_t i = place_of(known, id);

        while (known->slots[i].is_used && known->slots[i].id != id)
                i = next(known, i);
        return &known->slots[i];
}

int known_reserve(struct known *known, size_t n) {
        struct known larger = { .capacity = MAX(known->capacity, (size_t)KNOWN_CAPACITY_MIN), .used = known->used };

        while (larger.capacity / 4 * 3 < known->used + n)
                larger.capacity *= 2;
        if (larger.capacity == known->capacity)
                return 0;
        larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
        if (!larger.slots)
                return -ENOMEM;
        for (size_t i = 0; i < known->capacity; i++)
                if (known->slots[i].is_used)
                        *slot_of(&larger, known->slots[i].id) = known->slots[i];
        free(known->slots);
        *known = larger;
        return 0;
}

struct known_watch *known_find(const struct known *known, int64_t id) {
        struct known_watch *entry = known->used > 0 ? slot_of(known, id) : NULL;

        return entry && entry->is_used ? entry : NULL;
}

void known_set(struct known *known, const struct known_watch *watch) {
        struct known_watch *entry = slot_of(known, watch->id);

        if (entry->is_used)
                entry_done(entry);
        else
                known->used++;
        *entry = *watch;
        entry->is_used = true;
}

bool known_remove(struct known *known, int64_t id) {
        struct known_watch *entry = known_find(known, id);
        size_t hole, mask = known->capacity - 1;

        if (!entry)
                return false;
        entry_done(entry);
        hole = (size_t)(entry - known->slots);
        /* What stands behind the hole moves into it, unless its own place is
         * behind the hole as well. */
        for (size_t i = next(known, hole); known->slots[i].is_used; i = next(known, i)) {
                size_t place = place_of(known, known->slots[i].id);

                if (((i - place) & mask) < ((i - hole) & mask))
                        continue;
                known->slots[hole] = known->slots[i];
                hole = i;
        }
        known->slots[hole] = (struct known_watch){ 0 };
        known->used--;
        return true;
}

/* ---- what they are made from ------------------------------------------------------- */

char *known_describe(const struct watch_spec *spec, int64_t id) {
        struct watch_spec numbered = *spec;
        struct buffer b = BUFFER_INIT;

        numbered.id = id;
        watch_spec_put(&b, &numbered);
        buffer_put(&b, "", 1);
        if (b.error)
                buffer_free(&b);
        return b.data;
}

int known_read(const struct known_watch *watch, struct watch_spec *ret_spec) {
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        struct json_object *json;
        int r = message_parse(watch->description, strlen(watch->description), &json);

        if (r < 0)
                return r;
        r = watch_spec_read(json, true, &where, ret_spec);
        json_object_put(json);
        return r;
}

char *known_describe_changed(const struct known_watch *watch, const struct watch_spec *change) {
        struct watch_spec old, spec;
        char *text;

        if (known_read(watch, &old) < 0)
                return NULL;
        spec = old;
        spec.flags = change->flags;
        if (change->notes != 0)
                spec.notes = change->notes;
        if (change->data != ABSENT)
                spec.data = change->data;
        if (change->tree.given) {
                spec.tree = change->tree;
                spec.tree.list |= old.tree.list;
                spec.tree.cross_mounts |= old.tree.cross_mounts;
        }
        text = known_describe(&spec, watch->id);
        watch_spec_free(&old);
        return text;
}
