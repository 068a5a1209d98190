/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What was parsed of a long call, and is not needed any more. It is thousands of pieces of memory, and to free them takes
 * long: that is done by and by.
 */

#include <stdbool.h>
#include <stddef.h>

struct json_object;
struct discard;

/* Takes over the only reference. NULL: there was no memory for it, and it was freed at once. */
struct discard *discard_new(struct json_object *object);
/* Frees so many pieces at most. True: that was all. */
bool discard_some(struct discard *discard, size_t n);
/* With all that is left. NULL is passed over. Returns NULL. */
struct discard *discard_free(struct discard *discard);
