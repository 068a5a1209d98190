/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Events that kevd has not sent. */

#include <json-c/json.h>
#include <time.h>

#include "internal.h"
#include "message.h"

static uint64_t realtime_usec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * USEC_PER_SEC + (uint64_t)t.tv_nsec / 1000;
}

int own_event_new(struct event *template, int64_t id, struct event **ret_event) {
        struct event *bare _cleanup_(event_unrefp) = NULL;
        struct buffer text _cleanup_(buffer_free) = BUFFER_INIT;
        struct json_object *json = NULL;
        int r;

        template->realtime_usec = realtime_usec();
        r = event_new(template, &bare);
        if (r < 0)
                return r;
        event_put(&text, bare, id, 0);
        buffer_put(&text, "", 1);
        r = text.error ? text.error : message_parse(text.data, text.size - 1, &json);
        if (r < 0)
                return r;
        r = event_from_json(json, ret_event);
        json_object_put(json);
        return r;
}
