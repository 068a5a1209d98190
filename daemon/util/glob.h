/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * In a glob `?` and `*` stand for one and any number of bytes within a name,
 * `[...]` for one of a set, `**` for anything, slashes too, and `**` + `/` for
 * any number of whole directories, none included. `\` takes the next byte as it
 * is.
 *
 * Time: bytes of the text times bytes of the glob, whatever they hold.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct token;

struct glob {
        struct glob *next; /* the owner's */
        bool negated;      /* the owner's */
        size_t n_tokens;
        struct token *tokens;
        uint64_t (*sets)[4];
        size_t n_sets;
        uint8_t *states, *next_states; /* n_tokens + 1 each: one text is matched at a time */
};

/* -EINVAL: it is none (a set without an end, a lone backslash). */
int glob_new(const char *text, struct glob **ret_glob);
struct glob *glob_free(struct glob *g);
/* How much it takes up. */
size_t glob_bytes(const struct glob *g, const char *text);
bool glob_equal(const struct glob *a, const struct glob *b);

bool glob_matches(struct glob *g, const char *text);
/* The same, byte by byte. glob_step(): false once nothing can match any more. */
void glob_start(struct glob *g);
bool glob_step(struct glob *g, unsigned char byte);
/* Whether what was stepped over so far matches. */
static inline bool glob_has_matched(const struct glob *g) {
        return g->states[g->n_tokens];
}
