/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A growing run of bytes, with the few appenders that JSON needs.
 *
 * A failed append (-ENOMEM) is remembered in `error`: a caller may append
 * without looking, and look once at the end. What was appended before it stays.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct buffer {
        char *data;
        size_t size;
        size_t capacity;
        int error;
        bool is_borrowed; /* `data` is not to be freed */
};

#define BUFFER_INIT ((struct buffer){ 0 })
/* Begins in the array, and leaves it when that is full. */
#define BUFFER_IN(array) ((struct buffer){ .data = (array), .capacity = sizeof(array), .is_borrowed = true })

void buffer_free(struct buffer *b);
void buffer_reset(struct buffer *b);

char *buffer_grow(struct buffer *b, size_t size);
/* Room for `size` more bytes. NULL when there is no memory for it. */
static inline char *buffer_reserve(struct buffer *b, size_t size) {
        return b->capacity - b->size >= size && b->data ? b->data + b->size : buffer_grow(b, size);
}

static inline void buffer_put(struct buffer *b, const void *data, size_t size) {
        char *p = buffer_reserve(b, size);

        if (!p || size == 0)
                return;
        memcpy(p, data, size);
        b->size += size;
}

static inline void buffer_put_string(struct buffer *b, const char *string) {
        buffer_put(b, string, strlen(string));
}

void buffer_put_u64(struct buffer *b, uint64_t value);
void buffer_put_i64(struct buffer *b, int64_t value);

/* Takes `size` bytes away from the front. */
void buffer_consume(struct buffer *b, size_t size);

#define buffer_put_literal(b, literal) buffer_put((b), "" literal "", sizeof(literal) - 1)

/* A JSON string with its quotes. `data` must be UTF-8 without NUL. */
void json_put_string(struct buffer *b, const char *data, size_t size);
/* A JSON string that holds `data` in base64 (RFC 4648, with padding). */
void json_put_base64(struct buffer *b, const void *data, size_t size);
