/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "discard.h"

#include <json-c/json.h>
#include <stdlib.h>

enum { DEPTH_MAX = JSON_TOKENER_DEFAULT_DEPTH + 1 };

/* The way to what is taken apart just now. */
struct discard {
        struct json_object *objects[DEPTH_MAX];
        size_t depth;
};

struct discard *discard_new(struct json_object *object) {
        struct discard *d = calloc(1, sizeof(*d));

        if (!d) {
                json_object_put(object);
                return NULL;
        }
        d->objects[d->depth++] = object;
        return d;
}

/* The last of its parts, taken out of it. False: it has none. */
static bool take_part(struct json_object *object, struct json_object **ret_part) {
        if (json_object_is_type(object, json_type_array) && json_object_array_length(object) > 0) {
                size_t last = json_object_array_length(object) - 1;

                *ret_part = json_object_get(json_object_array_get_idx(object, last));
                (void)json_object_array_del_idx(object, last, 1);
                return true;
        }
        if (json_object_is_type(object, json_type_object) && json_object_object_length(object) > 0) {
                struct lh_table *members = json_object_get_object(object);
                struct lh_entry *member = members->head;

                *ret_part = json_object_get((struct json_object *)lh_entry_v(member));
                (void)lh_table_delete_entry(members, member);
                return true;
        }
        return false;
}

bool discard_some(struct discard *d, size_t n) {
        for (; n > 0 && d->depth > 0; n--) {
                struct json_object *part;

                if (!take_part(d->objects[d->depth - 1], &part))
                        json_object_put(d->objects[--d->depth]);
                else if (d->depth < DEPTH_MAX)
                        d->objects[d->depth++] = part;
                else
                        json_object_put(part);
        }
        return d->depth == 0;
}

struct discard *discard_free(struct discard *d) {
        while (d && d->depth > 0)
                json_object_put(d->objects[--d->depth]);
        free(d);
        return NULL;
}
