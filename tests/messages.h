/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the tests of proto/ have in common: messages, whole and in pieces, and UTF-8. What goes wrong fails the test. */

#include <stddef.h>
#include <stdint.h>

struct json_object;

/* message_parse() of bytes that end where their memory ends. Whole, and the same in pieces. */
int parse_bytes(const char *data, size_t size, struct json_object **ret);
/* A good one, which the caller frees with json_object_put(). */
struct json_object *parse(const char *text);

/* Any number up to 0x1fffff, without a NUL behind it. Returns how many bytes these are: 4 at most. */
size_t encode(uint32_t c, char *out);
