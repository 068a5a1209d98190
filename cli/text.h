/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Text that grows, and the one way in which bytes that somebody else chose (names
 * of files, processes and devices, the daemon's sentences) come near a terminal.
 *
 * A failed append is remembered in `failed`; the caller appends without looking,
 * and looks once at the end.
 */

#include <stdbool.h>
#include <stddef.h>

struct text {
        char *data; /* NULL while nothing was appended, else with a NUL behind the last byte */
        size_t size;
        size_t capacity;
        bool failed;
};

typedef void text_append(struct text *t, const char *string);

void text_free(struct text *t);
/* Empties it, and keeps the memory. */
void text_reset(struct text *t);

void text_put(struct text *t, const char *bytes, size_t size);
text_append text_puts;
__attribute__((__format__(__printf__, 2, 3))) void text_printf(struct text *t, const char *format, ...);

/* With control characters, what reorders a line, and bytes that are not UTF-8 as \xHH. */
text_append text_puts_escaped;
/* As one word of the shell's. */
text_append text_puts_quoted;
