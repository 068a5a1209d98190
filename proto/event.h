/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * An event, as both sides hold it: the interface's type Event.
 *
 * An event is one allocation, immutable and counted: the struct, copies of all
 * that it points to, and its JSON text. In the daemon it is shared by all the
 * queues that it goes to; `id` and `seq`, which differ between them, are not in
 * `json` there (event_put() adds them), while the client keeps the whole text.
 *
 * Not thread-safe: the count is a plain integer.
 */

#include "vocabulary.h"

struct buffer;

/* Optional integers are absent at this value. */
#define ABSENT INT64_MIN

struct event_path {
        const char *bytes; /* NULL: none; otherwise with a NUL behind the last byte */
        size_t size;
};

struct event_process {
        int64_t pid;
        int64_t parent, uid, exit_code, signal; /* ABSENT where not known */
        int64_t cpu_usec, peak_bytes;           /* the same */
        bool core_dumped;
        const char *comm, *exe, *cgroup; /* NULL where not known */
        bool has_other_ids; /* not in the JSON: beside `uid`, so that its program is told to root alone */
};

struct event_link {
        int index;
        const char *name, *old_name;
        const char *oper_state;
        const char *address;
        const char *const *addresses; /* NULL-terminated, or NULL */
        const char *const *gateways;  /* of default routes; the same */
        int64_t new_namespace, new_index; /* where it has moved to; or ABSENT */
        bool up, carrier;
        int64_t mtu;
        /* Changes of the carrier beside the one that the event shows, if it has
         * linkup or linkdown alone; ABSENT where there is none. */
        int64_t flaps;
};

struct event {
        unsigned refs;
        enum kev_filter filter;
        enum kev_kind kind;
        uint32_t flags;
        uint64_t notes;
        uint64_t count;
        uint64_t realtime_usec;
        int64_t data; /* ABSENT: none */
        struct event_path path, from_path;
        const struct event_process *process;
        const struct event_link *link;
        int64_t id;   /* client only */
        uint64_t seq; /* client only */
        const char *json;
        size_t json_size;
        size_t allocated; /* bytes, the whole of it */
};

/* A copy of `template`, all that it points to included, with its text. */
int event_new(const struct event *template, struct event **ret_event);

/* The two as one that came at the first one's time: notes or'ed, counts added,
 * timers' data too, links keep the oldest name and all changes of the carrier;
 * everything else as `second` has it. */
int event_merge(const struct event *first, const struct event *second, struct event **ret_event);

struct event *event_ref(struct event *event);
struct event *event_unref(struct event *event);
static inline void event_unrefp(struct event **event) {
        event_unref(*event);
}

/* Appends the Event object, with the id and seq that it has for one client. */
void event_put(struct buffer *b, const struct event *event, int64_t id, uint64_t seq);

/* The largest number of bytes that event_put() may add to the event's own. */
enum { EVENT_HEAD_MAX = 64 };

struct json_object;

/* A path from the two forms that it has in JSON, of which one is NULL; the bytes
 * are those of `text`, or of `scratch`, which the caller frees. -EBADMSG where
 * the base64 is none, or holds a NUL byte. */
int event_path_from_json(const char *text, const char *base64, char **scratch, struct event_path *ret_path);

/* From an Event object: -EBADMSG if it isn't one. */
int event_from_json(struct json_object *json, struct event **ret_event);
