/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Handles of files where they lie: in an event, in an answer, or in a place. */

#include <stdint.h>
#include <string.h>

#include "hash.h"
#include "question.h"

struct handle_ref {
        int32_t type;
        uint32_t size; /* 0: none */
        const unsigned char *bytes;
};

#define NO_HANDLE ((struct handle_ref){ 0 })

static inline uint64_t handle_hash(struct handle_ref h) {
        return hash_bytes(h.bytes, h.size, (uint64_t)h.type);
}

static inline bool handle_ref_equal(struct handle_ref a, struct handle_ref b) {
        return a.type == b.type && a.size == b.size && memcmp(a.bytes, b.bytes, a.size) == 0;
}

static inline struct handle_ref handle_refer(const struct handle *h) {
        return (struct handle_ref){ .type = h->type, .size = h->size, .bytes = h->bytes };
}

static inline void handle_copy(struct handle *to, struct handle_ref from) {
        to->type = from.type;
        to->size = from.size;
        if (from.size > 0)
                memcpy(to->bytes, from.bytes, from.size);
}
