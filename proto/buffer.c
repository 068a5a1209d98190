/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "buffer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void buffer_free(struct buffer *b) {
        if (!b->is_borrowed)
                free(b->data);
        *b = BUFFER_INIT;
}

void buffer_reset(struct buffer *b) {
        b->size = 0;
        b->error = 0;
}

char *buffer_grow(struct buffer *b, size_t size) {
        size_t capacity = b->capacity ? b->capacity : 256;
        char *data;

        while (capacity - b->size < size)
                capacity *= 2;
        data = realloc(b->is_borrowed ? NULL : b->data, capacity);
        if (!data) {
                b->error = -ENOMEM;
                return NULL;
        }
        if (b->is_borrowed && b->data)
                memcpy(data, b->data, b->size);
        b->is_borrowed = false;
        b->data = data;
        b->capacity = capacity;
        return data + b->size;
}

void buffer_put_u64(struct buffer *b, uint64_t value) {
        char digits[20], *p = digits + sizeof(digits);

        do
                *--p = (char)('0' + value % 10);
        while (value /= 10);
        buffer_put(b, p, (size_t)(digits + sizeof(digits) - p));
}

void buffer_put_i64(struct buffer *b, int64_t value) {
        if (value < 0)
                buffer_put_literal(b, "-");
        buffer_put_u64(b, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void buffer_consume(struct buffer *b, size_t size) {
        b->size -= size;
        if (b->size > 0)
                memmove(b->data, b->data + size, b->size);
}

/* A byte of eight, each. */
#define EACH(byte) (UINT64_C(0x0101010101010101) * (byte))

/* Whether none of eight bytes is a control character, which are below the space and DEL, a quote or a backslash: the high
 * bit of a byte from which one was taken too much, and of none that had it before. */
static inline bool are_plain(uint64_t eight) {
        uint64_t quote = eight ^ EACH('"'), backslash = eight ^ EACH('\\'), del = eight ^ EACH(0x7f);
        uint64_t control = (eight - EACH(0x20)) & ~eight;

        quote = (quote - EACH(1)) & ~quote;
        backslash = (backslash - EACH(1)) & ~backslash;
        del = (del - EACH(1)) & ~del;
        return ((control | quote | backslash | del) & EACH(0x80)) == 0;
}

void json_put_string(struct buffer *b, const char *data, size_t size) {
        static const char hex[] = "0123456789abcdef";
        /* 0: as it is; u: \u00XX; else the letter behind the backslash. */
        static const char escape[256] = {
                'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'b', 't', 'n', 'u', 'f', 'r', 'u', 'u',
                'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u', 'u',
                ['"'] = '"', ['\\'] = '\\', [0x7f] = 'u',
        };
        char *p = buffer_reserve(b, size * 6 + 2), *start = p;

        if (!p)
                return;
        *p++ = '"';
        for (size_t i = 0; i < size; i++) {
                unsigned char c;
                uint64_t eight;

                for (; i + sizeof(eight) <= size; i += sizeof(eight), p += sizeof(eight)) {
                        memcpy(&eight, data + i, sizeof(eight));
                        if (!are_plain(eight))
                                break;
                        memcpy(p, &eight, sizeof(eight));
                }
                if (i == size)
                        break;
                c = (unsigned char)data[i];
                if (escape[c] == 0) {
                        *p++ = (char)c;
                        continue;
                }
                *p++ = '\\';
                *p++ = escape[c];
                if (escape[c] == 'u') {
                        *p++ = '0';
                        *p++ = '0';
                        *p++ = hex[c >> 4];
                        *p++ = hex[c & 15];
                }
        }
        *p++ = '"';
        b->size += (size_t)(p - start);
}

void json_put_base64(struct buffer *b, const void *data, size_t size) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        const unsigned char *in = data;
        char *p = buffer_reserve(b, (size + 2) / 3 * 4 + 2), *start = p;

        if (!p)
                return;
        *p++ = '"';
        for (size_t i = 0; i < size; i += 3) {
                size_t left = size - i;
                unsigned v = (unsigned)in[i] << 16 | (left > 1 ? (unsigned)in[i + 1] << 8 : 0) |
                             (left > 2 ? in[i + 2] : 0);

                *p++ = digits[v >> 18];
                *p++ = digits[v >> 12 & 63];
                *p++ = left > 1 ? digits[v >> 6 & 63] : '=';
                *p++ = left > 2 ? digits[v & 63] : '=';
        }
        *p++ = '"';
        b->size += (size_t)(p - start);
}
