/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Queues for the next daemon: the watches with what their sources need of them, and the events that were not taken
 * yet, as their JSON text.
 *
 * What is told of a watch that goes on without its source's state, or can't go on, is what libkev tells of its own
 * after it had to connect again (client-lib/reconnect.c).
 */

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "message.h"
#include "queue.h"
#include "state.h"
#include "watch_options.h"

/* ---- writing ------------------------------------------------------------------------- */

/* One that is over has no source any more, there. */
static void save_watch(struct watch *watch, bool goes_on, struct state_writer *w) {
        struct subscription *subscription = watch->is_over ? NULL : &watch->subscription;

        state_put_i64(w, watch->id);
        state_put_u64(w, watch->filter);
        state_put_u64(w, watch->flags);
        state_put_bool(w, watch->disabled);
        state_put_bool(w, watch->is_of_many);
        state_put_u64(w, watch->subscription.notes);
        state_put_bytes(w, watch->prefix ? watch->prefix->text : NULL, watch->prefix ? watch->prefix->size + 1 : 0);
        state_put_string(w, watch->options ? watch->options->text : NULL);
        settle_save(watch->settle, w);
        if (goes_on)
                source_sketch(subscription, w);
        else
                source_save(subscription, w);
}

static void save_entry(const struct entry *entry, struct state_writer *w) {
        struct buffer text _cleanup_(buffer_free) = BUFFER_INIT;

        event_put(&text, entry->event, 0, 0);
        if (text.error)
                w->bytes.error = text.error;
        state_put_i64(w, entry->watch->id);
        state_put_u64(w, entry->more);
        state_put_bytes(w, text.data, text.size);
}

/* First what can be taken, in its order; then what is held back. Of each watch that is the order in which it came. */
static void save_entries(const struct queue *queue, struct state_writer *w) {
        state_put_u64(w, queue->n_entries);
        list_for_each(link, &queue->pending)
                save_entry(list_entry(link, struct entry, in_queue), w);
        hash_for_each(node, &queue->watches) {
                const struct watch *watch = container_of(node, struct watch, node);

                list_for_each(link, &watch->entries) {
                        const struct entry *entry = list_entry(link, struct entry, in_watch);

                        if (list_empty(&entry->in_queue))
                                save_entry(entry, w);
                }
        }
}

static void save_watches(struct queue *queue, bool goes_on, struct state_writer *w) {
        state_put_u64(w, queue->seq);
        state_put_u64(w, queue->delivered);
        state_put_u64(w, queue->merged);
        state_put_u64(w, queue->watches.n_nodes);
        hash_for_each(node, &queue->watches) {
                size_t begin = state_begin(w);

                save_watch(container_of(node, struct watch, node), goes_on, w);
                state_end(w, begin);
        }
}

void queue_save(struct queue *queue, struct state_writer *w) {
        save_watches(queue, false, w);
        save_entries(queue, w);
}

void queue_sketch(struct queue *queue, struct state_writer *w) {
        save_watches(queue, true, w);
        state_put_u64(w, 0);
}

/* ---- what may have been missed ------------------------------------------------------------ */

static uint64_t notes_of_gap(const struct watch *watch) {
        const uint64_t ends = KEV_NOTE_EXIT | KEV_NOTE_REAP;

        if (watch->filter == KEV_FILTER_TREE || watch->filter == KEV_FILTER_VNODE || watch->filter == KEV_FILTER_NETDEV)
                return KEV_NOTE_RESCAN;
        if (watch->filter == KEV_FILTER_PROC && !watch->is_of_many && !(watch->subscription.notes & ~ends))
                return 0;
        return filter_is_of_descriptor(watch->filter) ? 0 : KEV_NOTE_LOST;
}

/* Or had listed: what waits for the end of that goes on. */
static bool was_listing(const struct watch *watch) {
        return watch->options && watch->options->list && watch->subscription.notes & KEV_NOTE_LISTED;
}

/* `refusal`: why it could not be made again, or NULL. `pid`: of one process, or ABSENT. */
static void tell_gap(struct watch *watch, const struct refusal *refusal, int64_t pid) {
        struct event_process process = {
                .pid = pid, .parent = ABSENT, .uid = ABSENT, .exit_code = ABSENT, .signal = ABSENT,
                .cpu_usec = ABSENT, .peak_bytes = ABSENT,
        };
        struct event template = {
                .filter = watch->filter, .notes = notes_of_gap(watch), .data = ABSENT,
                .realtime_usec = realtime_nsec() / NSEC_PER_USEC,
                .flags = (refusal ? KEV_FLAG_EOF : 0) | (watch->flags & (KEV_FLAG_ONESHOT | KEV_FLAG_DISPATCH)),
                .kind = watch->filter == KEV_FILTER_TREE ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN,
        }, *event;

        if (watch->prefix)
                template.path = (struct event_path){ watch->prefix->text, watch->prefix->size };
        if (refusal && refusal->error == ESRCH && pid != ABSENT) {
                template.notes |= KEV_NOTE_EXIT;
                template.process = &process;
                template.count = 1;
        }
        if (was_listing(watch))
                template.notes |= KEV_NOTE_LISTED;
        if (!template.notes && !refusal)
                return;
        queue_count(watch->queue, FIGURE_RESTORED);
        if (template.notes & KEV_NOTE_RESCAN)
                queue_count(watch->queue, FIGURE_RESCANS);
        if (event_new(&template, &event) < 0)
                queue_lose(watch->queue, watch);
        else
                queue_push(watch->queue, watch, event);
}

void watch_restored(struct watch *watch, const struct refusal *refusal) {
        if (refusal || watch->is_anew || watch->subscription.anew)
                tell_gap(watch, refusal, ABSENT);
        watch->is_restored = watch->is_anew = watch->subscription.anew = false;
}

/* ---- reading -------------------------------------------------------------------------- */

static int read_json(const char *text, size_t size, struct json_object **ret_json) {
        return message_parse(text, size, ret_json) < 0 ? -EBADMSG : 0;
}

/* Its `tree` and `match`. */
static int read_options(const char *text, struct watch_spec *spec) {
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        struct json_object *json;
        enum kev_filter filter = spec->filter;
        int r = read_json(text, strlen(text), &json);

        if (r < 0)
                return r;
        r = watch_spec_read(json, true, &where, spec);
        json_object_put(json);
        return r < 0 || spec->filter != filter ? -EBADMSG : 0;
}

static int read_spec(struct state_reader *r, struct watch_spec *spec, bool *ret_is_of_many) {
        int64_t id = state_get_i64(r);
        uint64_t filter = state_get_u64(r), flags = state_get_u64(r);
        bool disabled = state_get_bool(r), is_of_many = state_get_bool(r);
        uint64_t notes = state_get_u64(r);
        const char *path, *options;
        size_t size;
        int result = 0;

        path = state_get_bytes(r, &size);
        options = state_get_string(r);
        if (r->failed || filter >= FILTER_COUNT || flags > UINT8_MAX || (path && (size == 0 || path[size - 1] != 0)))
                return -EBADMSG;
        spec->filter = (enum kev_filter)filter;
        if (options)
                result = read_options(options, spec);
        if (result == 0 && path) {
                spec->path = strdup(path);
                spec->path_size = strlen(path);
                result = spec->path ? 0 : -ENOMEM;
        }
        spec->id = id;
        spec->flags = (uint32_t)flags & ~(uint32_t)KEV_FLAG_DISABLED;
        if (disabled)
                spec->flags |= KEV_FLAG_DISABLED;
        spec->notes = notes;
        watch_spec_check_values(spec);
        if (result == 0 && spec->refusal[0])
                result = -EBADMSG;
        if (result == 0)
                *ret_is_of_many = is_of_many;
        return result;
}

/* A watch on its way. */
struct restoring {
        struct watch *watch;
        struct watch_spec spec;
        struct state_reader rest; /* what is its source's */
};

static int make_one(struct queue *queue, struct state_reader *r, struct restoring *ret) {
        struct refusal refusal;
        bool is_of_many;
        int result;

        watch_spec_init(&ret->spec, KEV_FILTER_USER);
        ret->rest = state_get_section(r);
        result = read_spec(&ret->rest, &ret->spec, &is_of_many);
        if (result == 0 && queue_find(queue, ret->spec.id))
                result = -EBADMSG;
        if (result == 0)
                result = watch_make(queue, &ret->spec, &ret->watch, &refusal);
        if (result < 0)
                return result;
        ret->watch->is_of_many |= is_of_many; /* it was, with what it had asked for before */
        settle_load(ret->watch->settle, &ret->rest);
        return 0;
}

/* 1: under way. */
static int attach(struct restoring *restoring) {
        struct watch *watch = restoring->watch;
        struct subject subject;
        struct refusal refusal;
        bool anew;
        int r;

        watch_fill_subject(watch, &restoring->spec, -1, &subject);
        r = sources_restore(watch->queue->context->sources, &watch->subscription, &subject, &restoring->rest, &anew,
                            &refusal);
        if (r == -EBADMSG)
                return r;
        watch->is_anew = anew;
        watch->is_restored = r == 1;
        if (r < 0 || (r == 0 && anew))
                tell_gap(watch, r < 0 ? &refusal : NULL, subject.pid);
        return r == 1;
}

static int restore_entry(struct queue *queue, struct state_reader *r) {
        struct watch *watch = queue_find(queue, state_get_i64(r));
        uint64_t more = state_get_u64(r);
        struct event *read _cleanup_(event_unrefp) = NULL, *event = NULL;
        struct json_object *json;
        struct entry *entry;
        const char *text;
        size_t size;
        int result;

        text = state_get_bytes(r, &size);
        if (!watch || !text || more > QUEUE_NUMBER_MAX)
                return -EBADMSG;
        result = read_json(text, size, &json);
        if (result < 0)
                return result;
        result = event_from_json(json, &read);
        json_object_put(json);
        if (result == 0 && (read->filter != watch->filter || read->count > QUEUE_NUMBER_MAX))
                result = -EBADMSG;
        if (result == 0)
                result = event_new(read, &event);
        if (!event)
                return result;
        entry = queue_append(queue, watch, event);
        if (!entry)
                return -ENOMEM;
        queue_count(queue, FIGURE_RESTORED);
        entry->more = more;
        if (watch->filter == KEV_FILTER_PROC && event->notes == KEV_NOTE_LOST)
                watch->lost = entry;
        if (watch->flags & KEV_FLAG_LEVEL && list_empty(&watch->in_levels))
                list_append(&queue->levels, &watch->in_levels);
        return 0;
}

static int restore_entries(struct queue *queue, struct state_reader *r) {
        size_t n = state_get_count(r, 3 * sizeof(uint64_t));
        int result = 0;

        for (size_t i = 0; result == 0 && i < n; i++)
                result = restore_entry(queue, r);
        return result;
}

/* The events that there were come before what is told of the gap. */
int queue_restore(struct queue *queue, struct state_reader *r) {
        struct restoring *all;
        size_t n;
        int result = 0, n_starting = 0;

        queue->seq = state_get_u64(r);
        queue->delivered = state_get_u64(r);
        queue->merged = state_get_u64(r);
        if (queue->seq > QUEUE_NUMBER_MAX)
                return -EBADMSG;
        n = state_get_count(r, sizeof(uint64_t));
        all = calloc(MAX(n, (size_t)1), sizeof(*all));
        if (!all)
                return -ENOMEM;
        for (size_t i = 0; result == 0 && i < n; i++)
                result = make_one(queue, r, &all[i]);
        if (result == 0)
                result = restore_entries(queue, r);
        if (r->failed)
                result = -EBADMSG;
        for (size_t i = 0; result >= 0 && i < n; i++) {
                result = attach(&all[i]);
                n_starting += result == 1;
        }
        for (size_t i = 0; i < n; i++)
                watch_spec_free(&all[i].spec);
        free(all);
        return result < 0 ? result : n_starting;
}
