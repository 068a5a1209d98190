/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Which paths of a tree a watch is about: depth, and globs.
 *
 * glob.h has the language of globs. A leading `!` takes back what earlier globs said; the last one that
 * matches decides. What is below an excluded directory is excluded.
 *
 * Time: bytes of the path times bytes of the globs, whatever they hold.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "event.h"

struct tree_options;
struct match;

/* NULL in `ret_match` when everything matches. -EINVAL: `ret_glob` is the glob
 * that isn't one (a set without an end, a lone backslash). */
int match_new(const struct tree_options *options, struct match **ret_match, const char **ret_glob);
struct match *match_free(struct match *match);
/* How much it takes up. */
size_t match_bytes(const struct match *match);

/* `path`: below the watched directory, without a leading slash. The directory
 * itself (empty) always matches. With NULL for the match, everything does. */
bool match_path(const struct match *match, struct event_path path);
/* Whether anything below the directory may match. */
bool match_below(const struct match *match, struct event_path directory);
/* Whether both were made from the same options. */
bool match_equal(const struct match *a, const struct match *b);
/* Whether all that matches below `b` would have matched below `a`, so that a
 * directory that moves from there to here brings nothing into sight. False if
 * that isn't certain. */
bool match_same_below(const struct match *match, struct event_path a, struct event_path b);
