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
        b = reply_begin(c);
        if (!b)
                return;
        put_number(b, "reached", reached);
        reply_end(c, false);
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

enum {
        LOOK_NSEC = 1500, /* a microsecond or two each */
        CALL_LOOKS = 4,   /* so many cost as much as a call */
        LOOKS_AT_ONCE = 64,
};

/* As many as there is room for now; the rest in the next turns. */
static void look_some(struct connection *c) {
        size_t n = queue_look_some(&c->queue, LOOKS_AT_ONCE);

        if (n >= CALL_LOOKS) {
                account_pace_anyway(c->account, n / CALL_LOOKS, monotonic_nsec());
                server_charge_work(c->server, c->account, n * LOOK_NSEC);
        }
        if (!queue_has_looked(&c->queue))
                server_postpone(c->server, c);
        else if (c->call == CALL_BARRIER)
                mux_barrier_add(c->server->mux, &c->mux_barrier);
}

static void look_again(struct connection *c) {
        queue_look_again(&c->queue);
        look_some(c);
}

void wait_go_on(struct connection *c) {
        if ((c->call == CALL_BARRIER || c->call == CALL_WAIT) && !queue_has_looked(&c->queue))
                look_some(c);
}

void wait_start(struct connection *c) {
        c->call = CALL_BARRIER;
        c->interrupted = c->timed_out = false;
        c->last_reply_nsec = monotonic_nsec();
        look_again(c);
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
        return c->call == CALL_WAIT && ((queue_has_events(&c->queue) && queue_has_looked(&c->queue)) || c->interrupted || c->timed_out);
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
        .added = change_on_added,
        .lost = on_lost,
};

const struct method methods_events[] = {
        { "org.kevd.events.GetLimits", get_limits },
        { "org.kevd.events.GetMechanism", get_mechanism },
        { "org.kevd.events.Change", change_call },
        { "org.kevd.events.Wait", wait },
        { "org.kevd.events.Monitor", monitor_call },
        { "org.kevd.events.Trigger", trigger },
        { NULL, NULL },
};
