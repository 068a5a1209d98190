/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The figures of org.kevd.manager's GetStatistics as text in the OpenMetrics format, version 1.0.0. node_exporter's
 * textfile collector, which reads the older text format of Prometheus, takes it as well: so no type is used that
 * the older one lacks, and what says of the daemon what it is has the type gauge, not info.
 *
 * Members that the daemon doesn't have read as 0.
 */

#include <inttypes.h>
#include <json-c/json.h>
#include <stdio.h>

#include "metrics.h"
#include "text.h"

static struct json_object *member(struct json_object *object, const char *key) {
        struct json_object *value = NULL;

        (void)json_object_object_get_ex(object, key, &value);
        return value;
}

static int64_t integer(struct json_object *object, const char *key) {
        return json_object_get_int64(member(object, key));
}

static size_t length(struct json_object *array) {
        return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

/* ---- the format ------------------------------------------------------------------ */

enum type {
        COUNTER,
        GAUGE,
        HISTOGRAM,
};

struct family {
        const char *name; /* its end is the unit */
        const char *unit; /* or NULL */
        enum type type;
        const char *help;
};

static void put_family(struct text *out, const struct family *family) {
        static const char *const types[] = { [COUNTER] = "counter", [GAUGE] = "gauge", [HISTOGRAM] = "histogram" };

        text_printf(out, "# TYPE kevd_%s %s\n", family->name, types[family->type]);
        if (family->unit)
                text_printf(out, "# UNIT kevd_%s %s\n", family->name, family->unit);
        text_printf(out, "# HELP kevd_%s %s\n", family->name, family->help);
}

static void put_label_value(struct text *out, const char *value) {
        for (const char *p = value; *p; p++)
                if (*p == '\n')
                        text_puts(out, "\\n");
                else {
                        if (*p == '\\' || *p == '"')
                                text_puts(out, "\\");
                        text_put(out, p, 1);
                }
}

/* `name="value"`. */
static void put_label(struct text *out, const char *name, struct json_object *value) {
        const char *text = json_object_get_string(value);

        text_printf(out, "%s=\"", name);
        put_label_value(out, text ? text : "");
        text_puts(out, "\"");
}

/* Microseconds as seconds, without a locale's comma, and as OpenMetrics would have it for `le`. */
static void put_seconds(struct text *out, int64_t usec) {
        char fraction[8];
        size_t size;

        if (usec > 0 && usec < 100) {
                text_printf(out, "%" PRId64, usec < 10 ? usec : usec / 10);
                if (usec >= 10 && usec % 10 > 0)
                        text_printf(out, ".%" PRId64, usec % 10);
                text_puts(out, usec < 10 ? "e-06" : "e-05");
                return;
        }
        (void)snprintf(fraction, sizeof(fraction), "%06" PRId64, usec % 1000000);
        for (size = 6; size > 1 && fraction[size - 1] == '0'; size--)
                ;
        text_printf(out, "%" PRId64 ".%.*s", usec / 1000000, (int)size, fraction);
}

/* `label`: with the value `of`; or NULL. */
static void put_sample(struct text *out, const struct family *family, const char *label, struct json_object *of,
                       int64_t value) {
        text_printf(out, "kevd_%s%s", family->name, family->type == COUNTER ? "_total" : "");
        if (label) {
                text_puts(out, "{");
                put_label(out, label, of);
                text_puts(out, "}");
        }
        text_printf(out, " %" PRId64 "\n", value);
}

/* ---- what there is ------------------------------------------------------------------ */

/* A family with one value, or one for each source or user. */
struct row {
        struct family family;
        const char *object; /* that has it within, or NULL */
        const char *key;
};

static const struct row rows[] = {
        { { "connections", NULL, GAUGE, "Connections just now." }, NULL, "connections" },
        { { "watches", NULL, GAUGE, "Watches just now." }, NULL, "watches" },
        { { "queue_bytes", "bytes", GAUGE, "What queues hold just now." }, NULL, "queueBytes" },
        { { "events_pending", NULL, GAUGE, "Events in queues just now." }, "events", "pending" },
        { { "events_in", NULL, COUNTER, "Events made of what sources reported, each watch by itself." }, "events",
          "eventsIn" },
        { { "events_summaries", NULL, COUNTER, "Events made at a queue's bound to stand for others." }, "events",
          "summaries" },
        { { "events_restored", NULL, COUNTER, "Events taken over from the last daemon, or about the gap." }, "events",
          "restored" },
        { { "events_delivered", NULL, COUNTER, "Events put into a reply." }, "events", "delivered" },
        { { "events_merged", NULL, COUNTER, "Events joined to another." }, "events", "merged" },
        { { "events_discarded", NULL, COUNTER, "Events that ended with their watch or connection." }, "events",
          "discarded" },
        { { "rescans", NULL, COUNTER, "Events that ask for a look at what is there." }, "events", "rescans" },
        { { "watches_refused", NULL, COUNTER, "Watches refused." }, NULL, "refused" },
        { { "protocol_errors", NULL, COUNTER, "Connections closed for what they sent." }, NULL, "protocolErrors" },
        { { "connections_accepted", NULL, COUNTER, "Connections accepted." }, NULL, "connectionsAccepted" },
        { { "connections_refused", NULL, COUNTER, "Connections turned away." }, NULL, "connectionsRefused" },
};

static const struct row source_rows[] = {
        { { "source_watches", NULL, GAUGE, "Watches that the source serves just now." }, NULL, "watches" },
        { { "source_registrations", NULL, GAUGE, "Registrations in the kernel just now." }, NULL, "registrations" },
        { { "source_events", NULL, COUNTER, "Events made of the source's reports." }, NULL, "events" },
        { { "source_kernel_overflows", NULL, COUNTER, "Losses that the kernel announced." }, NULL, "kernelOverflows" },
        { { "source_losses_repaired", NULL, COUNTER, "Of these, after which all was looked at again." }, NULL,
          "lossesRepaired" },
};

static const struct row user_rows[] = {
        { { "user_connections", NULL, GAUGE, "The user's connections just now." }, NULL, "connections" },
        { { "user_watches", NULL, GAUGE, "The user's watches just now." }, NULL, "watches" },
        { { "user_queue_bytes", "bytes", GAUGE, "What the user's queues hold just now." }, NULL, "queueBytes" },
        { { "user_events_pending", NULL, GAUGE, "Events in the user's queues just now." }, "events", "pending" },
        { { "user_events_in", NULL, COUNTER, "Events made for the user's watches." }, "events", "eventsIn" },
        { { "user_events_summaries", NULL, COUNTER, "Events made at a queue's bound to stand for others." }, "events",
          "summaries" },
        { { "user_events_restored", NULL, COUNTER, "Events taken over from the last daemon, or about the gap." }, "events",
          "restored" },
        { { "user_events_delivered", NULL, COUNTER, "Events put into a reply to the user." }, "events", "delivered" },
        { { "user_events_merged", NULL, COUNTER, "Events joined to another." }, "events", "merged" },
        { { "user_events_discarded", NULL, COUNTER, "Events that ended with their watch or connection." }, "events",
          "discarded" },
        { { "user_rescans", NULL, COUNTER, "Events that ask for a look at what is there." }, "events", "rescans" },
        { { "user_watches_refused", NULL, COUNTER, "Watches of the user that were refused." }, NULL, "refused" },
};

static int64_t value_of(const struct row *row, struct json_object *object) {
        return integer(row->object ? member(object, row->object) : object, row->key);
}

static void put_rows(struct text *out, struct json_object *statistics) {
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
                put_family(out, &rows[i].family);
                put_sample(out, &rows[i].family, NULL, NULL, value_of(&rows[i], statistics));
        }
}

/* For each of the array; `label` has the value of its member `key`. */
static void put_rows_of(struct text *out, const struct row *all, size_t n, struct json_object *array, const char *label,
                        const char *key) {
        for (size_t i = 0; i < n; i++) {
                put_family(out, &all[i].family);
                for (size_t j = 0; j < length(array); j++) {
                        struct json_object *object = json_object_array_get_idx(array, j);

                        put_sample(out, &all[i].family, label, member(object, key), value_of(&all[i], object));
                }
        }
}

static void put_limits(struct text *out, struct json_object *users) {
        static const struct family family = { "user_limits_met", NULL, COUNTER, "How often a limit of the user was met." };
        static const char *const limits[][2] = {
                { "connections", "connections" }, { "watches", "watches" }, { "watchBytes", "watch-bytes" },
                { "queueBytes", "queue-bytes" }, { "outputBytes", "output-bytes" }, { "descriptors", "descriptors" },
                { "timers", "timers" }, { "requests", "requests" },
        };

        put_family(out, &family);
        for (size_t i = 0; i < length(users); i++) {
                struct json_object *user = json_object_array_get_idx(users, i), *met = member(user, "limitsMet");

                for (size_t j = 0; j < sizeof(limits) / sizeof(limits[0]); j++) {
                        text_printf(out, "kevd_%s_total{", family.name);
                        put_label(out, "uid", member(user, "user"));
                        text_printf(out, ",limit=\"%s\"} %" PRId64 "\n", limits[j][1], integer(met, limits[j][0]));
                }
        }
}

static void put_build(struct text *out, struct json_object *statistics) {
        static const struct family family = { "build_info", NULL, GAUGE, "What the daemon is; always 1." };
        static const char *const labels[] = { "version", "mode", "mux" };

        put_family(out, &family);
        text_puts(out, "kevd_build_info{");
        for (size_t i = 0; i < sizeof(labels) / sizeof(labels[0]); i++) {
                text_puts(out, i > 0 ? "," : "");
                put_label(out, labels[i], member(statistics, labels[i]));
        }
        text_puts(out, "} 1\n");
}

static void put_uptime(struct text *out, struct json_object *statistics) {
        static const struct family family = { "uptime_seconds", "seconds", GAUGE, "Since the daemon's start." };

        put_family(out, &family);
        text_puts(out, "kevd_uptime_seconds ");
        put_seconds(out, integer(statistics, "uptimeUsec"));
        text_puts(out, "\n");
}

static void put_latency(struct text *out, struct json_object *histogram) {
        static const struct family family = {
                "latency_seconds", "seconds", HISTOGRAM,
                "From when the oldest event of a reply was read until the reply was given to the socket.",
        };
        struct json_object *buckets = member(histogram, "buckets");
        int64_t count = 0;

        put_family(out, &family);
        for (size_t i = 0; i < length(buckets); i++) {
                struct json_object *bucket = json_object_array_get_idx(buckets, i);

                if (!member(bucket, "upToUsec"))
                        continue;
                count += integer(bucket, "count");
                text_puts(out, "kevd_latency_seconds_bucket{le=\"");
                put_seconds(out, integer(bucket, "upToUsec"));
                text_printf(out, "\"} %" PRId64 "\n", count);
        }
        text_printf(out, "kevd_latency_seconds_bucket{le=\"+Inf\"} %" PRId64 "\n", integer(histogram, "count"));
        text_printf(out, "kevd_latency_seconds_count %" PRId64 "\n", integer(histogram, "count"));
        text_puts(out, "kevd_latency_seconds_sum ");
        put_seconds(out, integer(histogram, "sumUsec"));
        text_puts(out, "\n");
}

static int by_user(const void *a, const void *b) {
        int64_t x = integer(*(struct json_object *const *)a, "user"), y = integer(*(struct json_object *const *)b, "user");

        return (x > y) - (x < y);
}

void metrics_put(struct text *out, struct json_object *statistics) {
        struct json_object *sources = member(statistics, "sources"), *users = member(statistics, "users");

        if (json_object_is_type(users, json_type_array))
                json_object_array_sort(users, by_user);
        put_build(out, statistics);
        put_uptime(out, statistics);
        put_rows(out, statistics);
        put_latency(out, member(statistics, "latency"));
        put_rows_of(out, source_rows, sizeof(source_rows) / sizeof(source_rows[0]), sources, "source", "name");
        put_rows_of(out, user_rows, sizeof(user_rows) / sizeof(user_rows[0]), users, "uid", "user");
        put_limits(out, users);
        text_puts(out, "# EOF\n");
}
