/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "text.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void text_free(struct text *t) {
        free(t->data);
        *t = (struct text){ 0 };
}

void text_reset(struct text *t) {
        t->size = 0;
        t->failed = false;
}

/* Room for `size` bytes and the NUL. */
static char *reserve(struct text *t, size_t size) {
        size_t capacity = t->capacity ? t->capacity : 256;
        char *data;

        while (capacity - t->size <= size)
                capacity *= 2;
        if (capacity > t->capacity) {
                data = realloc(t->data, capacity);
                if (!data) {
                        t->failed = true;
                        return NULL;
                }
                t->data = data;
                t->capacity = capacity;
        }
        return t->data + t->size;
}

void text_put(struct text *t, const char *bytes, size_t size) {
        char *p = reserve(t, size);

        if (!p)
                return;
        memcpy(p, bytes, size);
        p[size] = 0;
        t->size += size;
}

void text_puts(struct text *t, const char *string) {
        text_put(t, string, strlen(string));
}

void text_printf(struct text *t, const char *format, ...) {
        va_list ap;
        char *p;
        int n;

        va_start(ap, format);
        n = vsnprintf(NULL, 0, format, ap);
        va_end(ap);
        p = n < 0 ? NULL : reserve(t, (size_t)n);
        if (!p) {
                t->failed = true;
                return;
        }
        va_start(ap, format);
        (void)vsnprintf(p, (size_t)n + 1, format, ap);
        va_end(ap);
        t->size += (size_t)n;
}

/* The length of the UTF-8 sequence that `s` begins with, and what it stands for; 0 where it isn't one. */
static size_t decode(const unsigned char *s, uint32_t *ret_character) {
        static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
        size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : s[0] >= 0xc0 ? 2 : 0;
        uint32_t c = s[0];

        if (n == 0 || s[0] >= 0xf8)
                return 0;
        if (n > 1)
                c &= 0x7fu >> n;
        for (size_t i = 1; i < n; i++) {
                if ((s[i] & 0xc0) != 0x80)
                        return 0;
                c = c << 6 | (s[i] & 0x3f);
        }
        if (c < smallest[n] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
                return 0;
        *ret_character = c;
        return n;
}

/* Controls (C0, DEL, C1), other ends of line, and marks that change the direction of what follows. */
static bool is_harmful(uint32_t c) {
        return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0x61c || c == 0x200e || c == 0x200f ||
               (c >= 0x2028 && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

void text_puts_escaped(struct text *t, const char *string) {
        const unsigned char *s = (const unsigned char *)string;
        uint32_t c = 0;
        size_t n;

        for (; *s; s += n) {
                n = decode(s, &c);
                if (n > 0 && !is_harmful(c)) {
                        text_put(t, (const char *)s, n);
                        continue;
                }
                n = n > 0 ? n : 1;
                for (size_t i = 0; i < n; i++)
                        text_printf(t, "\\x%02x", s[i]);
        }
}

void text_puts_quoted(struct text *t, const char *string) {
        text_puts(t, "'");
        for (const char *s = string; *s; s++)
                if (*s == '\'')
                        text_puts(t, "'\\''");
                else
                        text_put(t, s, 1);
        text_puts(t, "'");
}
