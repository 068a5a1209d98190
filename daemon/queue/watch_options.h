/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What clients have said in `tree` and `match` of their watches. Many say the same: it is kept, and its globs are
 * compiled, once for all of them.
 */

#include "hash.h"
#include "match.h"

struct queue_context;
struct watch_spec;

struct watch_options {
        struct hash_node node;
        size_t refs;
        size_t bytes;        /* that all of it takes up */
        struct match *match; /* NULL: everything */
        bool list, cross_mounts; /* as in struct tree_options: these can't be changed */
        bool exclude_self;       /* the same, but it can */
        char text[];         /* as a watch with nothing else, in JSON: for the next daemon */
};

/* NULL in `ret_options` when nothing was said. -EINVAL: `ret_glob` is a glob that isn't one; -ENOMEM. */
int watch_options_get(struct queue_context *context, const struct watch_spec *spec, struct watch_options **ret_options,
                      const char **ret_glob);
/* NULL is passed over. */
void watch_options_put(struct queue_context *context, struct watch_options *options);

static inline const struct match *watch_options_match(const struct watch_options *options) {
        return options ? options->match : NULL;
}

static inline size_t watch_options_bytes(const struct watch_options *options) {
        return options ? options->bytes : 0;
}
