/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * org.kevd.events.
 */

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "connection.h"

/* ---- GetLimits --------------------------------------------------------------------------------- */

static void put_number(struct buffer *b, const char *name, uint64_t value) {
        json_put_string(b, name, strlen(name));
        buffer_put_literal(b, ":");
        buffer_put_u64(b, value);
}

static void get_limits(struct connection *c, struct json_object *parameters) {
        static const struct {
                const char *name;
                enum resource resource;
        } limits[] = {
                { "watches", RESOURCE_WATCHES },         { "connections", RESOURCE_CONNECTIONS },
                { "watchBytes", RESOURCE_WATCH_BYTES },  { "userQueueBytes", RESOURCE_QUEUE_BYTES },
                { "outputBytes", RESOURCE_OUTPUT_BYTES }, { "descriptors", RESOURCE_DESCRIPTORS },
                { "timers", RESOURCE_TIMERS },           { "requestsPerSecond", RESOURCE_REQUESTS },
        };
        struct buffer *b;

        if (!call_read(c, parameters, NULL, 0, NULL))
                return;
        b = reply_begin(c);
        if (!b)
                return;
        put_number(b, "messageBytes", MESSAGE_BYTES_MAX);
        buffer_put_literal(b, ",");
        put_number(b, "queueBytes", c->queue.bytes_max);
        for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
                buffer_put_literal(b, ",");
                put_number(b, limits[i].name, account_limit(c->account, limits[i].resource));
        }
        reply_end(c, false);
}

/* ---- GetMechanism -------------------------------------------------------------------------------- */

struct mechanism_fields {
        int64_t id;
};

static void get_mechanism(struct connection *c, struct json_object *parameters) {
        static const struct field fields[] = {
                { "id", FIELD_INT, offsetof(struct mechanism_fields, id), true },
        };
        struct mechanism_fields f = { 0 };
        const struct watch *watch;
        const struct source *source;
        struct buffer *b;

        if (!call_read(c, parameters, fields, ARRAY_SIZE(fields), &f))
                return;
        watch = queue_find(&c->queue, f.id);
        source = watch ? source_serving(&watch->subscription) : NULL;
        if (!source) {
                reply_invalid(c, "id");
                return;
        }
        b = reply_begin(c);
        if (!b)
                return;
        buffer_put_literal(b, "\"mechanism\":");
        buffer_put_string(b, "\"");
        buffer_put_string(b, source->class->mechanism(source));
        buffer_put_string(b, "\"");
        reply_end(c, false);
}

/* ---- Trigger ------------------------------------------------------------------------------------ */

struct trigger_fields {
        const char *name;
        int64_t data;
};

static void trigger(struct connection *c, struct json_object *parameters) {
        static const struct field fields[] = {
                { "name", FIELD_STRING, offsetof(struct trigger_fields, name), true },
                { "data", FIELD_INT, offsetof(struct trigger_fields, data), false },
        };
        struct trigger_fields f = { .data = ABSENT };
        struct buffer *b;
        uint64_t reached;

        if (!call_read(c, parameters, fields, ARRAY_SIZE(fields), &f))
                return;
        if (f.name[0] == 0 || strlen(f.name) > WATCH_NAME_MAX) {
                reply_invalid(c, "name");
                return;
        }
        reached = user_trigger(&c->server->sources, c->asker.uid, f.name, f.data);
        call_charge(c, reached / CALL_REACHES);
        b = reply_begin(c);
        if (!b)
                return;
        put_number(b, "reached", reached);
        reply_end(c, false);
}

/* ---- Change ------------------------------------------------------------------------------------- */

static void wait_start(struct connection *c);

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

/* All watches are in force, or refused. */
static void change_done(struct connection *c) {
        struct buffer *b;

        if (c->monitor) {
                bool watches = c->queue.watches.n_nodes > 0;

                b = reply_begin(c);
                if (b) {
                        buffer_put_literal(b, "\"events\":[],\"refused\":[");
                        buffer_put(b, c->refused.data, c->refused.size);
                        buffer_put_literal(b, "]");
                }
                reply_end(c, watches);
                c->call = CALL_NONE;
                if (watches)
                        wait_start(c);
        } else {
                b = reply_begin(c);
                if (b) {
                        buffer_put_literal(b, "\"refused\":[");
                        buffer_put(b, c->refused.data, c->refused.size);
                        buffer_put_literal(b, "]");
                }
                reply_end(c, false);
                c->call = CALL_NONE;
        }
        if (c->refused.error)
                c->out.error = c->refused.error; /* the reply is not whole, and ends the connection unsent */
        buffer_free(&c->refused);
        mux_defer(c->server->mux, &c->flush);
        if (c->server->stopping && c->call == CALL_NONE)
                connection_settle(c);
}

static void on_added(struct queue *queue, int64_t id, const struct refusal *refusal) {
        struct connection *c = container_of(queue, struct connection, queue);

        if (c->call != CALL_CHANGE && c->call != CALL_RESTORE) /* it was abandoned */
                return;
        if (refusal)
                put_refusal(c, id, refusal);
        if (--c->n_starting > 0)
                return;
        if (c->call == CALL_CHANGE)
                change_done(c);
        else
                connection_on_restored(c);
}

/* The descriptor that a watch of this very call means. */
static int find_fd(const struct connection *c, int64_t index) {
        for (size_t i = 0; i < c->n_fds; i++)
                if (c->fds[i].message == c->messages_taken && index-- == 0)
                        return c->fds[i].fd;
        return -1;
}

/* -1 as well where none is meant. */
static int fd_of(const struct connection *c, const struct watch_spec *spec, int *ret_fd, struct refusal *refusal) {
        *ret_fd = spec->descriptor < 0 ? -1 : find_fd(c, spec->descriptor);
        if (*ret_fd >= 0 || spec->descriptor == ABSENT || spec->refusal[0])
                return 0;
        return refuse(refusal, EBADF, "descriptor: no descriptor %lld came with the call", (long long)spec->descriptor);
}

static void add_one(struct connection *c, const struct watch_spec *spec) {
        struct refusal refusal;
        int fd, r = fd_of(c, spec, &fd, &refusal);

        if (r == 0)
                r = queue_add(&c->queue, spec, fd, &refusal);
        if (r < 0)
                put_refusal(c, spec->id, &refusal);
        c->n_starting += r == 1;
}

static void modify_one(struct connection *c, const struct watch_spec *spec) {
        struct refusal refusal;
        int fd, r = fd_of(c, spec, &fd, &refusal);

        if (r == 0)
                r = queue_modify(&c->queue, spec, fd, &refusal);
        if (r < 0)
                put_refusal(c, spec->id, &refusal);
        c->n_starting += r == 1;
}

/* What Change was called with, read and checked before anything is changed. */
struct change {
        struct json_object *remove, *modify, *add, *enable, *disable;
        struct watch_spec *to_modify, *to_add;
        size_t n_to_modify, n_to_add;
};

static void specs_free(struct watch_spec *specs, size_t n) {
        for (size_t i = 0; i < n; i++)
                watch_spec_free(&specs[i]);
        free(specs);
}

static void change_free(struct change *change) {
        specs_free(change->to_modify, change->n_to_modify);
        specs_free(change->to_add, change->n_to_add);
}

/* -EINVAL: `where` says what is wrong. */
static int read_specs(struct json_object *array, const char *name, bool modify, struct buffer *where,
                      struct watch_spec **ret_specs, size_t *ret_n) {
        size_t n = array ? json_object_array_length(array) : 0;

        if (n == 0)
                return 0;
        *ret_specs = calloc(n, sizeof(**ret_specs));
        if (!*ret_specs)
                return -ENOMEM;
        for (size_t i = 0; i < n; i++) {
                int r;

                buffer_reset(where);
                where_put_name(where, name);
                where_put_index(where, i);
                r = watch_spec_read(json_object_array_get_idx(array, i), true, where, &(*ret_specs)[i]);
                if (r < 0)
                        return r;
                (*ret_n)++;
                watch_spec_check(&(*ret_specs)[i], modify);
        }
        buffer_reset(where);
        return 0;
}

static int check_ids(struct json_object *array, const char *name, struct buffer *where) {
        for (size_t i = 0; array && i < json_object_array_length(array); i++) {
                int64_t id;

                if (int_read(json_object_array_get_idx(array, i), &id))
                        continue;
                where_put_name(where, name);
                where_put_index(where, i);
                return -EINVAL;
        }
        return 0;
}

static const struct field change_fields[] = {
        { "remove", FIELD_ARRAY, offsetof(struct change, remove), false },
        { "modify", FIELD_ARRAY, offsetof(struct change, modify), false },
        { "add", FIELD_ARRAY, offsetof(struct change, add), false },
        { "enable", FIELD_ARRAY, offsetof(struct change, enable), false },
        { "disable", FIELD_ARRAY, offsetof(struct change, disable), false },
};

static int check_change(struct change *change, const char *name_of_add, struct buffer *where) {
        int r = check_ids(change->remove, "remove", where);

        if (r == 0)
                r = check_ids(change->enable, "enable", where);
        if (r == 0)
                r = check_ids(change->disable, "disable", where);
        if (r == 0)
                r = read_specs(change->modify, "modify", true, where, &change->to_modify, &change->n_to_modify);
        if (r == 0)
                r = read_specs(change->add, name_of_add, false, where, &change->to_add, &change->n_to_add);
        return r;
}

typedef int by_id_fn(struct queue *queue, int64_t id, struct refusal *refusal);

static int enable(struct queue *queue, int64_t id, struct refusal *refusal) {
        return queue_enable(queue, id, true, refusal);
}

static int disable(struct queue *queue, int64_t id, struct refusal *refusal) {
        return queue_enable(queue, id, false, refusal);
}

static void for_ids(struct connection *c, struct json_object *ids, by_id_fn *fn) {
        for (size_t i = 0; ids && i < json_object_array_length(ids); i++) {
                struct refusal refusal;
                int64_t id;

                if (int_read(json_object_array_get_idx(ids, i), &id) && fn(&c->queue, id, &refusal) < 0)
                        put_refusal(c, id, &refusal);
        }
}

static void make_change(struct connection *c, const struct change *change) {
        c->call = CALL_CHANGE;
        c->n_starting = 1; /* this very function */
        for_ids(c, change->remove, queue_remove);
        for (size_t i = 0; i < change->n_to_modify; i++)
                modify_one(c, &change->to_modify[i]);
        for (size_t i = 0; i < change->n_to_add; i++)
                add_one(c, &change->to_add[i]);
        for_ids(c, change->enable, enable);
        for_ids(c, change->disable, disable);
        if (--c->n_starting == 0)
                change_done(c);
}

static void reply_too_many_watches(struct connection *c, size_t limit) {
        c->account->met[RESOURCE_WATCHES]++;
        if (c->oneway)
                return;
        buffer_put_literal(&c->out, "{\"error\":\"org.kevd.events.TooManyWatches\",\"parameters\":{");
        put_number(&c->out, "limit", limit);
        reply_end(c, false);
}

static void run_change(struct connection *c, struct change *change, const char *name_of_add) {
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        size_t limit = account_limit(c->account, RESOURCE_WATCHES);
        int r = check_change(change, name_of_add, &where);

        if (r == -EINVAL)
                reply_invalid(c, where.size > 0 ? where.data : name_of_add);
        else if (c->gone)
                ; /* nobody's watches */
        else if (r < 0)
                connection_doom(c);
        else if (change->n_to_add > limit)
                reply_too_many_watches(c, limit);
        else
                make_change(c, change);
        change_free(change);
}

static void change(struct connection *c, struct json_object *parameters) {
        struct change change = { 0 };

        if (!call_read(c, parameters, change_fields, ARRAY_SIZE(change_fields), &change))
                return;
        c->monitor = false;
        run_change(c, &change, "add");
}

/* ---- Monitor ----------------------------------------------------------------------------------------- */

static void monitor(struct connection *c, struct json_object *parameters) {
        static const struct field fields[] = {
                { "watches", FIELD_ARRAY, offsetof(struct change, add), true },
        };
        struct change change = { 0 };

        if (!c->more) {
                reply_error(c, "org.varlink.service.ExpectedMore", NULL, NULL);
                return;
        }
        if (!call_read(c, parameters, fields, ARRAY_SIZE(fields), &change))
                return;
        c->monitor = true;
        c->max_events = EVENTS_MAX;
        c->timeout_msec = ABSENT;
        run_change(c, &change, "watches");
}

/* ---- Wait --------------------------------------------------------------------------------------------- */

static void on_timer(struct mux_timer *timer);
static void on_barrier(struct mux_deferred *deferred);
static void on_source_barrier(struct source_barrier *barrier);

void wait_init(struct connection *c) {
        mux_barrier_init(&c->mux_barrier, on_barrier);
        for (size_t i = 0; i < ARRAY_SIZE(c->barriers); i++) {
                list_init(&c->barriers[i].barrier.link);
                c->barriers[i].barrier.fn = on_source_barrier;
                c->barriers[i].barrier.asker = &c->asker;
                c->barriers[i].connection = c;
        }
}

void wait_cancel(struct connection *c) {
        mux_timer_clear(c->server->mux, &c->timer);
        mux_barrier_cancel(&c->mux_barrier);
        for (size_t i = 0; i < ARRAY_SIZE(c->barriers); i++)
                list_remove(&c->barriers[i].barrier.link);
}

/* When a stream has to speak up, if only to say nothing. Those of all connections
 * that are silent do so together. */
static uint64_t end_of_silence(const struct connection *c) {
        const uint64_t grid = 5 * NSEC_PER_SEC;
        uint64_t latest = c->last_reply_nsec + SILENCE_SEC * NSEC_PER_SEC;

        if (c->timeout_msec != ABSENT)
                return c->last_reply_nsec + (uint64_t)c->timeout_msec * NSEC_PER_MSEC;
        return latest - latest % grid;
}

static void set_timer(struct connection *c, uint64_t deadline_nsec) {
        if (mux_timer_set(c->server->mux, &c->timer, deadline_nsec, on_timer) < 0)
                connection_doom(c);
}

static void wait_begin(struct connection *c) {
        if (connection_on_settled(c))
                return;
        c->call = CALL_WAIT;
        if (c->more)
                set_timer(c, end_of_silence(c));
        else if (c->timeout_msec > 0)
                set_timer(c, monotonic_nsec() + (uint64_t)c->timeout_msec * NSEC_PER_MSEC);
        else if (c->timeout_msec == 0)
                c->timed_out = true;
        mux_defer(c->server->mux, &c->flush);
}

static void on_source_barrier(struct source_barrier *barrier) {
        struct connection *c = container_of(barrier, struct barrier_of_source, barrier)->connection;

        if (--c->n_barriers == 0)
                wait_begin(c);
}

/* The mux has run all that was ready: now what the sources still hold. */
static void on_barrier(struct mux_deferred *deferred) {
        struct connection *c =
                container_of(container_of(deferred, struct mux_barrier, deferred), struct connection, mux_barrier);
        struct sources *sources = &c->server->sources;

        c->n_barriers = 1; /* this very function */
        for (size_t i = 0; i < sources->n; i++) {
                struct source *source = sources->list[i];
                bool concerned = false;

                for (int f = 0; source && f < FILTER_COUNT; f++)
                        concerned |= (source->class->filters & 1u << f) && c->queue.n_of_filter[f] > 0;
                if (concerned && source->class->barrier && source->class->barrier(source, &c->barriers[i].barrier))
                        c->n_barriers++;
        }
        if (--c->n_barriers == 0)
                wait_begin(c);
}

/* Each look costs about a microsecond or two, and counts as a part of a call. */
static void look_again(struct connection *c) {
        size_t n = queue_look_again(&c->queue);

        if (n >= CALL_LOOKS)
                account_pace_anyway(c->account, n / CALL_LOOKS, monotonic_nsec());
}

static void wait_start(struct connection *c) {
        c->call = CALL_BARRIER;
        c->interrupted = c->timed_out = false;
        c->last_reply_nsec = monotonic_nsec();
        look_again(c);
        mux_barrier_add(c->server->mux, &c->mux_barrier);
}

void wait_resume(struct connection *c) {
        uint64_t last_reply = c->last_reply_nsec;

        wait_start(c);
        c->last_reply_nsec = last_reply;
}

struct wait_fields {
        int64_t max_events, timeout_msec;
};

static void wait(struct connection *c, struct json_object *parameters) {
        static const struct field fields[] = {
                { "maxEvents", FIELD_INT, offsetof(struct wait_fields, max_events), false },
                { "timeoutMsec", FIELD_INT, offsetof(struct wait_fields, timeout_msec), false },
        };
        struct wait_fields f = { .max_events = EVENTS_MAX, .timeout_msec = ABSENT };

        if (!call_read(c, parameters, fields, ARRAY_SIZE(fields), &f))
                return;
        if (f.max_events < 1) {
                reply_invalid(c, "maxEvents");
                return;
        }
        /* For a stream it is the longest silence, of which none makes no sense. */
        if (f.timeout_msec != ABSENT && (f.timeout_msec < c->more || f.timeout_msec > INT32_MAX)) {
                reply_invalid(c, "timeoutMsec");
                return;
        }
        if (c->oneway || c->gone)
                return; /* events that nobody would get stay where they are */
        c->max_events = MIN(f.max_events, EVENTS_MAX);
        c->timeout_msec = f.timeout_msec;
        wait_start(c);
}

/* ---- Wait's reply ---------------------------------------------------------------------------------------- */

/* As many events as go into one reply. */
static void put_events(struct connection *c, struct buffer *b) {
        size_t start = b->size;
        uint64_t oldest_usec = c->n_told > 0 ? c->oldest_usec : UINT64_MAX;

        c->n_told += queue_has_events(&c->queue);
        (void)buffer_reserve(b, MIN(MIN(c->queue.n_entries, (size_t)c->max_events) * EVENT_BYTES, (size_t)EVENTS_BYTES_MAX));
        buffer_put_literal(b, "\"events\":[");
        for (int64_t n = 0; n < c->max_events && queue_has_events(&c->queue); n++) {
                if (b->size - start > EVENTS_BYTES_MAX)
                        break;
                if (n > 0)
                        buffer_put_literal(b, ",");
                oldest_usec = MIN(oldest_usec, queue_first_usec(&c->queue));
                if (queue_take(&c->queue, b) < 0) {
                        connection_doom(c);
                        return;
                }
        }
        c->oldest_usec = oldest_usec;
        buffer_put_literal(b, "]");
}

bool wait_is_due(const struct connection *c) {
        return c->call == CALL_WAIT && (queue_has_events(&c->queue) || c->interrupted || c->timed_out);
}

void wait_flush(struct connection *c) {
        bool last;

        if (!wait_is_due(c))
                return;
        last = !c->more || c->interrupted;
        put_events(c, reply_begin(c));
        reply_end(c, !last);
        c->last_reply_nsec = monotonic_nsec();
        c->timed_out = false;
        if (last) {
                c->call = CALL_NONE;
                mux_timer_clear(c->server->mux, &c->timer);
                return;
        }
        if (c->timer.heap_index == 0)
                set_timer(c, end_of_silence(c));
        look_again(c);
}


void wait_interrupt(struct connection *c) {
        c->interrupted = true;
        if (c->call == CALL_WAIT)
                wait_flush(c);
}

void call_abandon(struct connection *c) {
        wait_cancel(c);
        list_remove(&c->reload.link);
        buffer_free(&c->refused);
        c->n_starting = 0;
        c->call = CALL_NONE;
        (void)connection_on_settled(c);
}

static void on_timer(struct mux_timer *timer) {
        struct connection *c = container_of(timer, struct connection, timer);

        if (c->more && end_of_silence(c) > monotonic_nsec()) {
                set_timer(c, end_of_silence(c)); /* it has spoken in between */
                return;
        }
        c->timed_out = true;
        mux_defer(c->server->mux, &c->flush);
}

static void on_ready(struct queue *queue) {
        struct connection *c = container_of(queue, struct connection, queue);

        if (c->call == CALL_WAIT)
                mux_defer(c->server->mux, &c->flush);
}

static void on_lost(struct queue *queue) {
        connection_doom(container_of(queue, struct connection, queue));
}

const struct queue_listener connection_listener = {
        .ready = on_ready,
        .added = on_added,
        .lost = on_lost,
};

const struct method methods_events[] = {
        { "org.kevd.events.GetLimits", get_limits },
        { "org.kevd.events.GetMechanism", get_mechanism },
        { "org.kevd.events.Change", change },
        { "org.kevd.events.Wait", wait },
        { "org.kevd.events.Monitor", monitor },
        { "org.kevd.events.Trigger", trigger },
        { NULL, NULL },
};
