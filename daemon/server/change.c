/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Change and Monitor. What they are called with is read and checked before anything is changed, and then done one after
 * the other. Both are long work where there is much of it, and go on over as many turns as they take.
 */

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "connection.h"

enum part {
        PART_REMOVE,
        PART_MODIFY,
        PART_ADD,
        PART_ENABLE,
        PART_DISABLE,
        PARTS,
};

enum { IDS_AT_ONCE = 16 }; /* between two looks at the time */

struct change {
        struct json_object *parameters;
        struct json_object *arrays[PARTS]; /* of these; NULL: there is none */
        const char *name_of_add;
        uint64_t message; /* the number of the one that it came in */
        /* What was read: ids, or, to modify and to add, watches. */
        size_t n[PARTS];
        int64_t *ids[PARTS];
        struct watch_spec *specs[PARTS];
        bool is_read;
        unsigned at; /* in the order of the parts, either of reading or of making */
        size_t next; /* of that part */
};

static const enum part order_of_reading[PARTS] = { PART_REMOVE, PART_ENABLE, PART_DISABLE, PART_MODIFY, PART_ADD };
static const enum part order_of_making[PARTS] = { PART_REMOVE, PART_MODIFY, PART_ADD, PART_ENABLE, PART_DISABLE };

static bool has_watches(enum part part) {
        return part == PART_MODIFY || part == PART_ADD;
}

/* A watch with globs is long work by itself. */
static size_t end_of_some(const struct change *change, enum part part, size_t n) {
        return MIN(n, change->next + (has_watches(part) ? 1 : IDS_AT_ONCE));
}

/* Returns what it was read from, for the caller to free. */
static struct json_object *free_change(struct change *change) {
        struct json_object *parameters = change->parameters;

        for (int p = 0; p < PARTS; p++) {
                for (size_t i = 0; has_watches(p) && change->specs[p] && i < change->n[p]; i++)
                        watch_spec_free(&change->specs[p][i]);
                free(change->specs[p]);
                free(change->ids[p]);
        }
        free(change);
        return parameters;
}

void change_free(struct connection *c) {
        struct json_object *parameters;
        size_t n = 0;

        if (!c->change)
                return;
        for (int p = 0; p < PARTS; p++)
                n += c->change->n[p];
        parameters = free_change(take_pointer(&c->change));
        if (n > IDS_AT_ONCE && !c->discard)
                c->discard = discard_new(parameters);
        else
                json_object_put(parameters);
}

/* ---- the reply ---------------------------------------------------------------------------------------- */

static void put_refusal(struct connection *c, int64_t id, const struct refusal *refusal) {
        struct buffer *b = &c->refused;
        const char *name = errno_name(refusal->error);

        if (b->size > 0)
                buffer_put_literal(b, ",");
        buffer_put_literal(b, "{\"id\":");
        buffer_put_i64(b, id);
        buffer_put_literal(b, ",\"errno\":");
        json_put_string(b, name, strlen(name));
        buffer_put_literal(b, ",\"message\":");
        if (utf8_is_valid(refusal->message, strlen(refusal->message)))
                json_put_string(b, refusal->message, strlen(refusal->message));
        else /* cut within a character, or a name that is none */
                json_put_string(b, name, strlen(name));
        buffer_put_literal(b, "}");
}

static void put_refused(struct connection *c, struct buffer *b) {
        buffer_put_literal(b, "\"refused\":[");
        buffer_put(b, c->refused.data, c->refused.size);
        buffer_put_literal(b, "]");
}

/* The call is over, but for what its reply may begin. */
static void end_call(struct connection *c) {
        change_free(c);
        connection_drop_fds(c, c->messages_taken);
        c->call = CALL_NONE;
        mux_defer(c->server->mux, &c->flush);
}

static void settle(struct connection *c) {
        if (c->server->stopping && c->call == CALL_NONE)
                connection_settle(c);
}

/* All watches are in force, or refused. */
static void succeed(struct connection *c) {
        bool goes_on = c->monitor && c->queue.watches.n_nodes > 0;
        struct buffer *b = reply_begin(c);

        if (b && c->monitor)
                buffer_put_literal(b, "\"events\":[],");
        if (b)
                put_refused(c, b);
        reply_end(c, goes_on);
        if (c->refused.error)
                c->out.error = c->refused.error; /* the reply is not whole, and ends the connection unsent */
        buffer_free(&c->refused);
        end_call(c);
        if (goes_on)
                wait_start(c);
        settle(c);
}

static void fail_invalid(struct connection *c, const char *where) {
        reply_invalid(c, where);
        end_call(c);
        settle(c);
}

static void fail_no_memory(struct connection *c) {
        connection_doom(c);
        end_call(c);
        settle(c);
}

/* ---- reading ------------------------------------------------------------------------------------------- */

static const struct field change_fields[] = {
        { "remove", FIELD_ARRAY, offsetof(struct change, arrays[PART_REMOVE]), false },
        { "modify", FIELD_ARRAY, offsetof(struct change, arrays[PART_MODIFY]), false },
        { "add", FIELD_ARRAY, offsetof(struct change, arrays[PART_ADD]), false },
        { "enable", FIELD_ARRAY, offsetof(struct change, arrays[PART_ENABLE]), false },
        { "disable", FIELD_ARRAY, offsetof(struct change, arrays[PART_DISABLE]), false },
};

static const struct field monitor_fields[] = {
        { "watches", FIELD_ARRAY, offsetof(struct change, arrays[PART_ADD]), true },
};

static const char *name_of(const struct change *change, enum part part) {
        static const char *const names[PARTS] = {
                [PART_REMOVE] = "remove", [PART_MODIFY] = "modify", [PART_ENABLE] = "enable", [PART_DISABLE] = "disable",
        };

        return part == PART_ADD ? change->name_of_add : names[part];
}

static void put_where(const struct change *change, enum part part, size_t i, struct buffer *where) {
        where_put_name(where, name_of(change, part));
        where_put_index(where, i);
}

/* -EINVAL: `where` says what is wrong. */
static int read_watch(struct change *change, enum part part, size_t i, struct buffer *where) {
        struct json_object *array = change->arrays[part];
        int r;

        put_where(change, part, i, where);
        r = watch_spec_read(json_object_array_get_idx(array, i), true, where, &change->specs[part][i]);
        if (r < 0)
                return r;
        change->n[part]++;
        watch_spec_check(&change->specs[part][i], part == PART_MODIFY);
        buffer_reset(where);
        return json_object_array_put_idx(array, i, NULL) < 0 ? -ENOMEM : 0; /* not all of it at the end in one go */
}

static int read_id(struct change *change, enum part part, size_t i, struct buffer *where) {
        if (!int_read(json_object_array_get_idx(change->arrays[part], i), &change->ids[part][i])) {
                put_where(change, part, i, where);
                return -EINVAL;
        }
        change->n[part]++;
        return json_object_array_put_idx(change->arrays[part], i, NULL) < 0 ? -ENOMEM : 0;
}

static int make_room(struct change *change, enum part part, size_t n) {
        if (has_watches(part)) {
                change->specs[part] = calloc(n, sizeof(*change->specs[part]));
                return change->specs[part] ? 0 : -ENOMEM;
        }
        change->ids[part] = calloc(n, sizeof(*change->ids[part]));
        return change->ids[part] ? 0 : -ENOMEM;
}

/* The next few of a part. 1: that was all of it. */
static int read_some(struct change *change, enum part part, struct buffer *where) {
        size_t n = change->arrays[part] ? json_object_array_length(change->arrays[part]) : 0;
        size_t end = end_of_some(change, part, n);
        int r = 0;

        if (n > 0 && change->next == 0)
                r = make_room(change, part, n);
        for (; r == 0 && change->next < end; change->next++)
                r = has_watches(part) ? read_watch(change, part, change->next, where) :
                                        read_id(change, part, change->next, where);
        return r < 0 ? r : change->next == n;
}

/* ---- making -------------------------------------------------------------------------------------------- */

/* The descriptor that a watch of this very call means. */
static int find_fd(const struct connection *c, uint64_t message, int64_t index) {
        for (size_t i = 0; i < c->n_fds; i++)
                if (c->fds[i].message == message && index-- == 0)
                        return c->fds[i].fd;
        return -1;
}

/* -1 as well where none is meant. */
static int fd_of(const struct connection *c, const struct watch_spec *spec, int *ret_fd, struct refusal *refusal) {
        *ret_fd = spec->descriptor < 0 ? -1 : find_fd(c, c->change->message, spec->descriptor);
        if (*ret_fd >= 0 || spec->descriptor == ABSENT || spec->refusal[0])
                return 0;
        return refuse(refusal, EBADF, "descriptor: no descriptor %lld came with the call", (long long)spec->descriptor);
}

static int make_watch(struct connection *c, enum part part, const struct watch_spec *spec, struct refusal *refusal) {
        int fd, r = fd_of(c, spec, &fd, refusal);

        if (r < 0)
                return r;
        return part == PART_ADD ? queue_add(&c->queue, spec, fd, refusal) : queue_modify(&c->queue, spec, fd, refusal);
}

static int make_by_id(struct connection *c, enum part part, int64_t id, struct refusal *refusal) {
        return part == PART_REMOVE ? queue_remove(&c->queue, id, refusal) :
                                     queue_enable(&c->queue, id, part == PART_ENABLE, refusal);
}

static void make_one(struct connection *c, enum part part, size_t i) {
        struct watch_spec *spec = has_watches(part) ? &c->change->specs[part][i] : NULL;
        int64_t id = spec ? spec->id : c->change->ids[part][i];
        struct refusal refusal;
        int r = spec ? make_watch(c, part, spec, &refusal) : make_by_id(c, part, id, &refusal);

        if (r < 0)
                put_refusal(c, id, &refusal);
        c->n_starting += spec && r == 1;
        if (spec) {
                watch_spec_free(spec);
                *spec = (struct watch_spec){ 0 };
        }
}

static bool make_some(struct connection *c, enum part part) {
        struct change *change = c->change;
        size_t end = end_of_some(change, part, change->n[part]);

        for (; change->next < end; change->next++)
                make_one(c, part, change->next);
        return change->next == change->n[part];
}

static void on_started(struct connection *c) {
        if (--c->n_starting > 0)
                return;
        if (c->call == CALL_CHANGE)
                succeed(c);
        else
                connection_on_restored(c);
}

void change_on_added(struct queue *queue, int64_t id, const struct refusal *refusal) {
        struct connection *c = container_of(queue, struct connection, queue);

        if (c->call != CALL_CHANGE && c->call != CALL_RESTORE) /* it was abandoned */
                return;
        if (refusal)
                put_refusal(c, id, refusal);
        on_started(c);
}

/* ---- the two after each other ---------------------------------------------------------------------------- */

/* False: the call has failed. */
static bool go_on_reading(struct connection *c) {
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        struct change *change = c->change;
        int r = read_some(change, order_of_reading[change->at], &where);

        if (r == -EINVAL)
                fail_invalid(c, where.size > 0 ? where.data : name_of(change, order_of_reading[change->at]));
        else if (r < 0)
                fail_no_memory(c);
        if (r == 1) {
                change->next = 0;
                change->is_read = ++change->at == PARTS;
                if (change->is_read)
                        change->at = 0;
        }
        return r >= 0;
}

/* False: all is done, or on its way. */
static bool go_on_making(struct connection *c) {
        struct change *change = c->change;

        if (make_some(c, order_of_making[change->at])) {
                change->next = 0;
                change->at++;
        }
        if (change->at < PARTS)
                return true;
        change_free(c);
        connection_drop_fds(c, c->messages_taken);
        on_started(c); /* the one that stands for the making */
        return false;
}

static bool go_on(struct connection *c) {
        return c->change->is_read ? go_on_making(c) : go_on_reading(c);
}

void change_finish(struct connection *c) {
        while (go_on(c))
                ;
        call_pass_on(c);
}

/* One that may not take turns is short. */
void change_go_on(struct connection *c) {
        while (c->account->long_call != c || server_has_room(c->server, c->account))
                if (!go_on(c))
                        break;
        call_pass_on(c);
}

/* ---- the calls -------------------------------------------------------------------------------------------- */

static void run(struct connection *c, struct json_object *parameters, bool monitor) {
        struct change *change = calloc(1, sizeof(*change));

        if (!change) {
                connection_doom(c);
                return;
        }
        change->parameters = json_object_get(parameters);
        change->name_of_add = monitor ? "watches" : "add";
        change->message = c->messages_taken;
        if (!call_read(c, parameters, monitor ? monitor_fields : change_fields,
                       monitor ? ARRAY_SIZE(monitor_fields) : ARRAY_SIZE(change_fields), change) ||
            c->gone) { /* nobody's watches */
                json_object_put(free_change(change));
                return;
        }
        c->change = change;
        c->call = CALL_CHANGE;
        c->monitor = monitor;
        c->n_starting = 1; /* the making itself */
        change_go_on(c);
}

void change_call(struct connection *c, struct json_object *parameters) {
        run(c, parameters, false);
}

void monitor_call(struct connection *c, struct json_object *parameters) {
        if (!c->more) {
                reply_error(c, "org.varlink.service.ExpectedMore", NULL, NULL);
                return;
        }
        c->max_events = EVENTS_MAX;
        c->timeout_msec = ABSENT;
        run(c, parameters, true);
}
