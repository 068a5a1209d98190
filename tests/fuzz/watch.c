/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A watch as a client describes it: what can be read is written, and read once more, and is the same then. The input
 * is the text of a Watch object.
 */

#include <errno.h>
#include <json-c/json.h>

#include "buffer.h"
#include "fuzz.h"
#include "macro.h"
#include "message.h"
#include "watch_spec.h"

static void expect_texts(char **found, char **expected) {
        size_t n = 0;

        fuzz_assert(!found == !expected);
        for (; expected && expected[n]; n++)
                fuzz_assert(fuzz_texts_equal(found[n], expected[n]));
        fuzz_assert(!found || !found[n]);
}

static void expect_spec(const struct watch_spec *found, const struct watch_spec *expected) {
        fuzz_assert(found->filter == expected->filter);
        fuzz_assert(found->id == expected->id);
        fuzz_assert(found->notes == expected->notes);
        fuzz_assert(found->flags == expected->flags);
        fuzz_assert(found->path_size == expected->path_size);
        fuzz_assert(fuzz_texts_equal(found->path, expected->path));
        fuzz_assert(found->pid == expected->pid);
        fuzz_assert(found->descriptor == expected->descriptor);
        fuzz_assert(found->data == expected->data);
        fuzz_assert(fuzz_texts_equal(found->name, expected->name));
        fuzz_assert(found->tree.given == expected->tree.given);
        expect_texts(found->tree.include, expected->tree.include);
        expect_texts(found->tree.exclude, expected->tree.exclude);
        fuzz_assert(found->tree.depth == expected->tree.depth);
        fuzz_assert(found->tree.settle_msec == expected->tree.settle_msec);
        fuzz_assert(found->tree.max_latency_msec == expected->tree.max_latency_msec);
        fuzz_assert(found->tree.list == expected->tree.list);
        fuzz_assert(found->tree.cross_mounts == expected->tree.cross_mounts);
        fuzz_assert(found->tree.exclude_self == expected->tree.exclude_self);
        fuzz_assert(found->match.given == expected->match.given);
        fuzz_assert(fuzz_texts_equal(found->match.exe, expected->match.exe));
        fuzz_assert(fuzz_texts_equal(found->match.comm, expected->match.comm));
        fuzz_assert(fuzz_texts_equal(found->match.cgroup, expected->match.cgroup));
        fuzz_assert(found->match.uid == expected->match.uid);
}

/* The refusal of words that are none is the first reader's: they are in what it read no more. */
static void send_spec(const struct watch_spec *spec) {
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT, again _cleanup_(buffer_free) = BUFFER_INIT;
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        struct watch_spec found;
        struct json_object *json;

        watch_spec_put(&b, spec);
        fuzz_assert(!b.error);
        json = fuzz_parse(b.data, b.size);
        fuzz_assert(watch_spec_read(json, false, &where, &found) == 0);
        fuzz_assert(where.size == 0);
        json_object_put(json);
        expect_spec(&found, spec);
        watch_spec_put(&again, &found);
        fuzz_assert(b.size == again.size && memcmp(b.data, again.data, b.size) == 0);
        watch_spec_free(&found);
}

static void input(const uint8_t *data, size_t size) {
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        struct watch_spec spec, checked;
        struct json_object *json = NULL;
        int r;

        if (message_parse((const char *)data, size, &json) < 0)
                return;
        r = watch_spec_read(json, false, &where, &spec);
        json_object_put(json);
        if (r < 0) {
                /* A name, which goes into the reply as it is. */
                fuzz_assert(r == -EINVAL && where.data && utf8_is_valid(where.data, where.size));
                return;
        }
        send_spec(&spec);
        for (int modify = 0; modify <= 1; modify++) {
                checked = spec;
                watch_spec_check(&checked, modify);
                fuzz_assert(memchr(checked.refusal, 0, sizeof(checked.refusal)));
                if (checked.refusal[0])
                        continue;
                fuzz_assert(!spec.path || spec.path[0] == '/');
                fuzz_assert((spec.notes & ~kev_filter_notes(spec.filter)) == 0);
                fuzz_assert((spec.flags & ~(uint32_t)FLAGS_OF_WATCH) == 0);
        }
        watch_spec_free(&spec);
}

const struct fuzz_target fuzz_target = { .input = input };
