/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * org.kevd.manager: what the daemon does just now, and what an administrator has it do. The same is on D-Bus
 * (bus/manager_object.c).
 */

#include <string.h>

#include "config.h"
#include "connection.h"
#include "log.h"
#include "sandbox.h"

/* Members of the object at hand, comma and all. */
static void put_key(struct buffer *b, const char *name) {
        char last = b->size > 0 ? b->data[b->size - 1] : '{';

        if (last != '{' && last != '[')
                buffer_put_literal(b, ",");
        json_put_string(b, name, strlen(name));
        buffer_put_literal(b, ":");
}

static void put_number(struct buffer *b, const char *name, uint64_t value) {
        put_key(b, name);
        buffer_put_u64(b, value);
}

static void put_string(struct buffer *b, const char *name, const char *value) {
        put_key(b, name);
        json_put_string(b, value, strlen(value));
}

/* Begins an object of an array, comma and all. */
static void put_open(struct buffer *b) {
        if (b->data && b->data[b->size - 1] != '[')
                buffer_put_literal(b, ",");
        buffer_put_literal(b, "{");
}

static void put_filters(struct buffer *b, unsigned filters) {
        put_key(b, "filters");
        buffer_put_literal(b, "[");
        for (int f = 0; f < FILTER_COUNT; f++) {
                const char *name = kev_filter_name((enum kev_filter)f);

                if (!(filters & 1u << f))
                        continue;
                if (b->data[b->size - 1] != '[')
                        buffer_put_literal(b, ",");
                json_put_string(b, name, strlen(name));
        }
        buffer_put_literal(b, "]");
}

static void put_source(struct buffer *b, const struct source_class *class, const struct source *source, int error) {
        put_open(b);
        put_string(b, "name", class->name);
        put_filters(b, class->filters);
        put_string(b, "mechanism", source ? class->mechanism(source) : "none");
        if (!source)
                put_string(b, "reason", strerror(error));
        else if (source->reason[0])
                put_string(b, "reason", source->reason);
        else if (class->reason)
                put_string(b, "reason", class->reason);
        put_number(b, "watches", source ? source->n_subscriptions : 0);
        put_number(b, "registrations", source ? class->registrations(source) : 0);
        buffer_put_literal(b, "}");
}

static void put_counters(struct server *s, struct buffer *b) {
        put_key(b, "counters");
        buffer_put_literal(b, "{");
        put_number(b, "eventsIn", s->queues.figures[FIGURE_EVENTS_IN]);
        put_number(b, "delivered", s->queues.figures[FIGURE_DELIVERED]);
        put_number(b, "merged", s->queues.figures[FIGURE_MERGED]);
        put_number(b, "rescans", s->queues.figures[FIGURE_RESCANS]);
        put_number(b, "kernelOverflows", s->sources.context.kernel_overflows);
        put_number(b, "refused", s->queues.figures[FIGURE_REFUSED]);
        put_number(b, "protocolErrors", s->protocol_errors);
        put_number(b, "connectionsAccepted", s->accepted);
        put_number(b, "connectionsRefused", s->turned_away);
        buffer_put_literal(b, "}");
}

/* By the names of the interface. */
static void put_resource(struct buffer *b, enum resource resource, uint64_t value) {
        static const char *const names[RESOURCE_COUNT] = {
                [RESOURCE_CONNECTIONS] = "connections", [RESOURCE_WATCHES] = "watches",
                [RESOURCE_WATCH_BYTES] = "watchBytes", [RESOURCE_QUEUE_BYTES] = "queueBytes",
                [RESOURCE_OUTPUT_BYTES] = "outputBytes", [RESOURCE_DESCRIPTORS] = "descriptors",
                [RESOURCE_TIMERS] = "timers", [RESOURCE_REQUESTS] = "requests",
        };

        put_number(b, names[resource], value);
}

/* The first `n` of them. */
static void put_resources(struct buffer *b, const size_t *values, size_t n) {
        for (size_t i = 0; i < n; i++)
                put_resource(b, (enum resource)i, values[i]);
}

static void put_limits(struct server *s, struct buffer *b) {
        put_key(b, "limits");
        buffer_put_literal(b, "{");
        put_resources(b, s->accounts.limits.values, RESOURCE_COUNT);
        buffer_put_literal(b, "}");
        put_key(b, "users");
        buffer_put_literal(b, "[");
        hash_for_each(node, &s->accounts.table) {
                const struct account *account = container_of(node, struct account, node);

                if (account->refs == 0) /* has departed */
                        continue;
                put_open(b);
                put_number(b, "user", account->uid);
                put_resources(b, account->used, RESOURCE_REQUESTS); /* of which nothing is held */
                buffer_put_literal(b, "}");
        }
        buffer_put_literal(b, "]");
}

void manager_put_status(struct server *s, struct buffer *b) {
        size_t queue_bytes = 0;

        list_for_each(entry, &s->connections)
                queue_bytes += list_entry(entry, struct connection, link)->queue.bytes;
        put_string(b, "version", KEVD_VERSION);
        put_number(b, "pid", (uint64_t)getpid());
        put_string(b, "mode", mode_name(s->mode));
        put_number(b, "uptimeUsec", monotonic_nsec() / NSEC_PER_USEC - s->start_usec);
        put_string(b, "mux", mux_backend_name(s->mux));
        put_string(b, "logLevel", log_level_name(log_level()));
        put_string(b, "sandbox", sandbox_state());
        put_number(b, "connections", s->n_connections);
        put_number(b, "watches", s->queues.n_watches);
        put_number(b, "queueBytes", queue_bytes);
        put_key(b, "sources");
        buffer_put_literal(b, "[");
        for (size_t i = 0; i < s->sources.n; i++)
                put_source(b, s->sources.list[i] ? s->sources.list[i]->class : s->sources.failed[i],
                           s->sources.list[i], s->sources.errors[i]);
        buffer_put_literal(b, "]");
        put_counters(s, b);
        put_limits(s, b);
}

void manager_put_queues(struct server *s, struct buffer *b) {
        put_key(b, "queues");
        buffer_put_literal(b, "[");
        list_for_each(entry, &s->connections) {
                const struct connection *c = list_entry(entry, struct connection, link);

                put_open(b);
                put_number(b, "id", c->id);
                put_number(b, "peerPid", (uint64_t)c->asker.pid);
                put_number(b, "user", c->asker.uid);
                put_number(b, "watches", c->queue.watches.n_nodes);
                put_number(b, "pendingEvents", c->queue.n_entries);
                put_number(b, "pendingBytes", c->queue.bytes);
                put_number(b, "delivered", c->queue.delivered);
                put_number(b, "merged", c->queue.merged);
                put_number(b, "connectedUsec", monotonic_nsec() / NSEC_PER_USEC - c->connected_usec);
                buffer_put_literal(b, "}");
        }
        buffer_put_literal(b, "]");
}

/* ---- GetStatistics ------------------------------------------------------------------------------- */

static void put_events(struct buffer *b, const uint64_t *figures, size_t pending) {
        put_key(b, "events");
        buffer_put_literal(b, "{");
        put_number(b, "eventsIn", figures[FIGURE_EVENTS_IN]);
        put_number(b, "summaries", figures[FIGURE_SUMMARIES]);
        put_number(b, "restored", figures[FIGURE_RESTORED]);
        put_number(b, "delivered", figures[FIGURE_DELIVERED]);
        put_number(b, "merged", figures[FIGURE_MERGED]);
        put_number(b, "discarded", figures[FIGURE_DISCARDED]);
        put_number(b, "pending", pending);
        put_number(b, "rescans", figures[FIGURE_RESCANS]);
        buffer_put_literal(b, "}");
}

static void put_latency(struct buffer *b, const struct histogram *histogram) {
        put_key(b, "latency");
        buffer_put_literal(b, "{");
        put_key(b, "buckets");
        buffer_put_literal(b, "[");
        for (size_t i = 0; i <= HISTOGRAM_BOUNDS; i++) {
                put_open(b);
                if (i < HISTOGRAM_BOUNDS)
                        put_number(b, "upToUsec", histogram_bounds_usec[i]);
                put_number(b, "count", histogram->counts[i]);
                buffer_put_literal(b, "}");
        }
        buffer_put_literal(b, "]");
        put_number(b, "count", histogram_count(histogram));
        put_number(b, "sumUsec", histogram->sum_usec);
        buffer_put_literal(b, "}");
}

static void put_source_statistics(struct buffer *b, const struct source *source) {
        put_open(b);
        put_string(b, "name", source->class->name);
        put_string(b, "mechanism", source->class->mechanism(source));
        put_number(b, "events", source->n_events);
        put_number(b, "kernelOverflows", source->kernel_overflows);
        put_number(b, "lossesRepaired", source->losses_repaired);
        put_number(b, "watches", source->n_subscriptions);
        put_number(b, "registrations", source->class->registrations(source));
        buffer_put_literal(b, "}");
}

static void put_user_statistics(struct buffer *b, const struct account *account) {
        put_open(b);
        put_number(b, "user", account->uid);
        put_events(b, account->figures, account->n_entries);
        put_number(b, "connections", account->used[RESOURCE_CONNECTIONS]);
        put_number(b, "watches", account->used[RESOURCE_WATCHES]);
        put_number(b, "queueBytes", account->used[RESOURCE_QUEUE_BYTES]);
        put_number(b, "refused", account->figures[FIGURE_REFUSED]);
        put_key(b, "limitsMet");
        buffer_put_literal(b, "{");
        for (size_t i = 0; i < RESOURCE_COUNT; i++)
                put_resource(b, (enum resource)i, account->met[i]);
        buffer_put_literal(b, "}}");
}

void manager_put_statistics(struct server *s, struct buffer *b) {
        size_t n_pending = 0, queue_bytes = 0;

        list_for_each(entry, &s->connections) {
                n_pending += list_entry(entry, struct connection, link)->queue.n_entries;
                queue_bytes += list_entry(entry, struct connection, link)->queue.bytes;
        }
        put_string(b, "version", KEVD_VERSION);
        put_string(b, "mode", mode_name(s->mode));
        put_string(b, "mux", mux_backend_name(s->mux));
        put_number(b, "uptimeUsec", monotonic_nsec() / NSEC_PER_USEC - s->start_usec);
        put_number(b, "connections", s->n_connections);
        put_number(b, "watches", s->queues.n_watches);
        put_number(b, "queueBytes", queue_bytes);
        put_events(b, s->queues.figures, n_pending);
        put_number(b, "refused", s->queues.figures[FIGURE_REFUSED]);
        put_number(b, "protocolErrors", s->protocol_errors);
        put_number(b, "connectionsAccepted", s->accepted);
        put_number(b, "connectionsRefused", s->turned_away);
        put_latency(b, &s->latency);
        put_key(b, "sources");
        buffer_put_literal(b, "[");
        for (size_t i = 0; i < s->sources.n; i++)
                if (s->sources.list[i])
                        put_source_statistics(b, s->sources.list[i]);
        buffer_put_literal(b, "]");
        put_key(b, "users");
        buffer_put_literal(b, "[");
        hash_for_each(node, &s->accounts.table)
                put_user_statistics(b, container_of(node, struct account, node));
        buffer_put_literal(b, "]");
}

/* For root, and the user that the daemon runs as. */
static bool may_ask(struct connection *c) {
        if (c->asker.uid == 0 || c->asker.uid == geteuid())
                return true;
        reply_error(c, "org.varlink.service.PermissionDenied", NULL, NULL);
        return false;
}

static void answer(struct connection *c, struct json_object *parameters,
                   void (*put)(struct server *s, struct buffer *b)) {
        struct buffer *b;

        if (!may_ask(c) || !call_read(c, parameters, NULL, 0, NULL))
                return;
        b = reply_begin(c);
        if (!b)
                return;
        put(c->server, b);
        reply_end(c, false);
}

static void get_status(struct connection *c, struct json_object *parameters) {
        answer(c, parameters, manager_put_status);
}

static void list_queues(struct connection *c, struct json_object *parameters) {
        answer(c, parameters, manager_put_queues);
}

static void get_statistics(struct connection *c, struct json_object *parameters) {
        answer(c, parameters, manager_put_statistics);
}

static void disconnect(struct connection *c, struct json_object *parameters) {
        static const struct field fields[] = { { "id", FIELD_INT, 0, true } };
        int64_t id;

        if (!may_ask(c) || !call_read(c, parameters, fields, ARRAY_SIZE(fields), &id))
                return;
        if (id < 0 || server_disconnect(c->server, (uint64_t)id) < 0) {
                reply_error(c, "org.kevd.manager.NoSuchConnection", NULL, NULL);
                return;
        }
        (void)reply_begin(c);
        reply_end(c, false);
}

static void on_reloaded(struct reload_waiter *waiter, int error, const char *complaint) {
        struct connection *c = container_of(waiter, struct connection, reload);

        c->call = CALL_NONE;
        mux_defer(c->server->mux, &c->flush); /* for the next call, also where this one has no reply */
        if (error < 0)
                reply_error(c, "org.kevd.manager.ConfigurationInvalid", "reason",
                            utf8_is_valid(complaint, strlen(complaint)) ? complaint : strerror(-error));
        else {
                (void)reply_begin(c);
                reply_end(c, false);
        }
        if (c->server->stopping)
                connection_settle(c);
}

static void reload(struct connection *c, struct json_object *parameters) {
        if (!may_ask(c) || !call_read(c, parameters, NULL, 0, NULL))
                return;
        c->call = CALL_RELOAD;
        c->reload.done = on_reloaded;
        server_reload(c->server, &c->reload);
}

const struct method methods_manager[] = {
        { "org.kevd.manager.GetStatus", get_status },
        { "org.kevd.manager.ListQueues", list_queues },
        { "org.kevd.manager.GetStatistics", get_statistics },
        { "org.kevd.manager.Disconnect", disconnect },
        { "org.kevd.manager.Reload", reload },
        { NULL, NULL },
};
