/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * In a glob `?` and `*` stand for one and any number of bytes within a name,
 * `[...]` for one of a set, `**` for anything, slashes too, and `**` + `/` for
 * any number of whole directories, none included. `\` takes the next byte as it
 * is.
 *
 * Time: bytes of the text times bytes of the glob, whatever they hold; 64 of the glob's at once.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct glob {
        struct glob *next; /* the owner's */
        bool negated;      /* the owner's */
        uint16_t n_tokens, n_words, n_sets;
        uint16_t n_suffix;    /* the last tokens, that are bytes which stand for themselves */
        uint64_t words[];     /* glob.c; one text is matched at a time */
};

/* -EINVAL: it is none (a set without an end, a lone backslash, or longer than 16 KiB). */
int glob_new(const char *text, struct glob **ret_glob);
struct glob *glob_free(struct glob *g);
/* How much it takes up. */
size_t glob_bytes(const struct glob *g);
bool glob_equal(const struct glob *a, const struct glob *b);

bool glob_matches(struct glob *g, const char *text, size_t size);
/* The same, byte by byte. glob_step(): false once nothing can match any more. */
void glob_start(struct glob *g);
bool glob_step(struct glob *g, unsigned char byte);
/* Whether what was stepped over so far matches. */
bool glob_has_matched(const struct glob *g);
/* Whether something may match that goes on from there. */
bool glob_may_match(const struct glob *g);
/* How far it is, to be compared with where another text has led: so many bytes. */
const void *glob_progress(const struct glob *g, size_t *ret_size);
