/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "watch_options.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "queue.h"

static struct watch_options *find(const struct queue_context *context, const char *text, uint64_t hash) {
        for (struct hash_node *n = hash_first(&context->options, hash); n; n = hash_next(n)) {
                struct watch_options *o = container_of(n, struct watch_options, node);

                if (strcmp(o->text, text) == 0)
                        return o;
        }
        return NULL;
}

static int make(struct queue_context *context, const struct watch_spec *spec, const struct buffer *text, uint64_t hash,
                struct watch_options **ret_options, const char **ret_glob) {
        struct match *match;
        struct watch_options *o;
        int r = match_new(&spec->tree, &match, ret_glob);

        if (r < 0)
                return r;
        o = malloc(sizeof(*o) + text->size);
        if (!o || hash_add(&context->options, &o->node, hash) < 0) {
                match_free(match);
                free(o);
                return -ENOMEM;
        }
        o->refs = 1;
        o->bytes = match_bytes(match) + sizeof(*o) + text->size;
        o->match = match;
        o->list = spec->tree.list;
        o->cross_mounts = spec->tree.cross_mounts;
        o->exclude_self = spec->tree.exclude_self;
        memcpy(o->text, text->data, text->size);
        *ret_options = o;
        return 0;
}

int watch_options_get(struct queue_context *context, const struct watch_spec *spec, struct watch_options **ret_options,
                      const char **ret_glob) {
        struct watch_spec bare = { .filter = spec->filter, .pid = ABSENT, .descriptor = ABSENT, .data = ABSENT,
                                   .tree = spec->tree, .match = spec->match };
        struct buffer text _cleanup_(buffer_free) = BUFFER_INIT;
        uint64_t hash;

        *ret_options = NULL;
        if (!spec->tree.given && !spec->match.given)
                return 0;
        watch_spec_put(&text, &bare);
        buffer_put(&text, "", 1);
        if (text.error)
                return -ENOMEM;
        hash = hash_bytes(text.data, text.size, 0);
        *ret_options = find(context, text.data, hash);
        if (!*ret_options)
                return make(context, spec, &text, hash, ret_options, ret_glob);
        (*ret_options)->refs++;
        return 0;
}

void watch_options_put(struct queue_context *context, struct watch_options *options) {
        if (!options || --options->refs > 0)
                return;
        hash_remove(&context->options, &options->node);
        match_free(options->match);
        free(options);
}
