/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev status: what the daemon does just now, from org.kevd.manager. The replies
 * are the daemon's JSON; members that it doesn't have read as 0 or "-". Its figures
 * in the format of monitoring are in metrics.c.
 */

#include <errno.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <kev.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "commands.h"
#include "metrics.h"
#include "report.h"
#include "text.h"

/* ---- the replies --------------------------------------------------------------- */

static struct json_object *member(struct json_object *object, const char *key) {
        struct json_object *value = NULL;

        (void)json_object_object_get_ex(object, key, &value);
        return value;
}

static int64_t integer(struct json_object *object, const char *key) {
        return json_object_get_int64(member(object, key));
}

static const char *string(struct json_object *object, const char *key) {
        struct json_object *value = member(object, key);

        return json_object_is_type(value, json_type_string) ? json_object_get_string(value) : "-";
}

static size_t length(struct json_object *array) {
        return json_object_is_type(array, json_type_array) ? json_object_array_length(array) : 0;
}

/* Calls a method of the manager; the reply is the caller's, NULL after a message. */
static struct json_object *call(struct kev *kev, const char *method) {
        struct json_object *object;
        char *reply = NULL;
        int r = kev_call(kev, method, NULL, &reply);

        if (r < 0) {
                report(method, r == -EREMOTEIO ? "refused" : strerror(-r), kev_error_message(kev));
                return NULL;
        }
        object = json_tokener_parse(reply);
        free(reply);
        if (json_object_is_type(object, json_type_object))
                return object;
        report(method, "the reply is not an object", NULL);
        (void)json_object_put(object);
        return NULL;
}

/* GetStatus's reply with ListQueues' in it. */
static struct json_object *get_status(struct kev *kev) {
        struct json_object *status = call(kev, "org.kevd.manager.GetStatus"), *queues;

        if (!status)
                return NULL;
        queues = call(kev, "org.kevd.manager.ListQueues");
        if (queues) {
                (void)json_object_object_add(status, "queues", json_object_get(member(queues, "queues")));
                (void)json_object_put(queues);
                return status;
        }
        (void)json_object_put(status);
        return NULL;
}

/* ---- the summary ----------------------------------------------------------------- */

static const char *plural(int64_t n) {
        return n == 1 ? "" : "s";
}

/* The two largest units. */
static void put_duration(struct text *out, int64_t usec) {
        int64_t sec = usec / 1000000;

        if (sec >= 86400)
                text_printf(out, "%" PRId64 "d %" PRId64 "h", sec / 86400, sec / 3600 % 24);
        else if (sec >= 3600)
                text_printf(out, "%" PRId64 "h %" PRId64 "min", sec / 3600, sec / 60 % 60);
        else if (sec >= 60)
                text_printf(out, "%" PRId64 "min %" PRId64 "s", sec / 60, sec % 60);
        else
                text_printf(out, "%" PRId64 "s", sec);
}

static void put_string(struct text *out, struct json_object *object, const char *key) {
        text_puts_escaped(out, string(object, key));
}

static void put_head(struct text *out, struct json_object *status, const char *address) {
        int64_t connections = integer(status, "connections"), watches = integer(status, "watches");

        text_puts(out, "kevd ");
        put_string(out, status, "version");
        text_puts(out, ", ");
        put_string(out, status, "mode");
        text_printf(out, " mode, pid %" PRId64 ", up ", integer(status, "pid"));
        put_duration(out, integer(status, "uptimeUsec"));
        text_puts(out, "\n  address      ");
        text_puts_escaped(out, address);
        text_puts(out, "\n  multiplexer  ");
        put_string(out, status, "mux");
        text_puts(out, "\n  log level    ");
        put_string(out, status, "logLevel");
        text_puts(out, "\n  sandbox      ");
        put_string(out, status, "sandbox");
        text_printf(out, "\n  holds        %" PRId64 " connection%s, %" PRId64 " watch%s, %" PRId64 " bytes queued\n",
                    connections, plural(connections), watches, watches == 1 ? "" : "es",
                    integer(status, "queueBytes"));
}

static void put_source(struct text *out, struct json_object *source) {
        struct json_object *filters = member(source, "filters");
        struct text name = { 0 }, mechanism = { 0 };

        put_string(&name, source, "name");
        put_string(&mechanism, source, "mechanism");
        text_printf(out, "  %-12s %-20s %7" PRId64 " %13" PRId64 "  ", name.data ? name.data : "",
                    mechanism.data ? mechanism.data : "", integer(source, "watches"),
                    integer(source, "registrations"));
        for (size_t i = 0; i < length(filters); i++) {
                const char *filter = json_object_get_string(json_object_array_get_idx(filters, i));

                text_puts(out, i == 0 ? "" : ", ");
                text_puts_escaped(out, filter ? filter : "-");
        }
        text_puts(out, "\n");
        if (member(source, "reason")) {
                text_printf(out, "  %-12s because ", "");
                put_string(out, source, "reason");
                text_puts(out, "\n");
        }
        text_free(&name);
        text_free(&mechanism);
}

static void put_sources(struct text *out, struct json_object *sources) {
        text_printf(out, "\n  %-12s %-20s %7s %13s  %s\n", "SOURCE", "MECHANISM", "WATCHES", "REGISTRATIONS", "FILTERS");
        for (size_t i = 0; i < length(sources); i++)
                put_source(out, json_object_array_get_idx(sources, i));
}

static void put_counters(struct text *out, struct json_object *counters) {
        static const struct {
                const char *key, *name;
        } rows[] = {
                { "eventsIn", "events from the kernel" },
                { "delivered", "events delivered" },
                { "merged", "events merged" },
                { "rescans", "rescans asked for" },
                { "kernelOverflows", "losses by the kernel" },
                { "refused", "watches refused" },
                { "protocolErrors", "protocol errors" },
                { "connectionsAccepted", "connections accepted" },
                { "connectionsRefused", "connections refused" },
        };

        text_puts(out, "\n  COUNTED SINCE THE START\n");
        for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
                text_printf(out, "  %-24s %12" PRId64 "\n", rows[i].name, integer(counters, rows[i].key));
}

static void put_user_name(struct text *out, int64_t uid) {
        const struct passwd *user = getpwuid((uid_t)uid);

        if (user)
                text_puts_escaped(out, user->pw_name);
        else
                text_printf(out, "%" PRId64, uid);
}

static void put_resources(struct text *out, const char *name, struct json_object *values) {
        text_printf(out, "  %-12s %11" PRId64 " %9" PRId64 " %11" PRId64 " %11" PRId64 " %12" PRId64 " %11" PRId64
                    " %9" PRId64 "\n", name ? name : "", integer(values, "connections"), integer(values, "watches"),
                    integer(values, "watchBytes"), integer(values, "queueBytes"), integer(values, "outputBytes"),
                    integer(values, "descriptors"), integer(values, "timers"));
}

static void put_users(struct text *out, struct json_object *users, struct json_object *limits) {
        text_printf(out, "\n  %-12s %11s %9s %11s %11s %12s %11s %9s\n", "USER", "CONNECTIONS", "WATCHES", "WATCH BYTES",
                    "QUEUE BYTES", "OUTPUT BYTES", "DESCRIPTORS", "TIMERS");
        for (size_t i = 0; i < length(users); i++) {
                struct json_object *user = json_object_array_get_idx(users, i);
                struct text name = { 0 };

                put_user_name(&name, integer(user, "user"));
                put_resources(out, name.data, user);
                text_free(&name);
        }
        put_resources(out, "(limit)", limits);
        text_printf(out, "  and %" PRId64 " requests a second\n", integer(limits, "requests"));
}

static void put_queue(struct text *out, struct json_object *queue) {
        struct text name = { 0 };

        put_user_name(&name, integer(queue, "user"));
        text_printf(out, "  %7" PRId64 " %-12s %7" PRId64 " %7" PRId64 " %9" PRId64 " %9" PRId64 " %9" PRId64 "  ",
                    integer(queue, "peerPid"), name.data ? name.data : "", integer(queue, "watches"),
                    integer(queue, "pendingEvents"), integer(queue, "pendingBytes"), integer(queue, "delivered"),
                    integer(queue, "merged"));
        put_duration(out, integer(queue, "connectedUsec"));
        text_puts(out, "\n");
        text_free(&name);
}

static void put_queues(struct text *out, struct json_object *queues) {
        text_printf(out, "\n  %7s %-12s %7s %7s %9s %9s %9s  %s\n", "PEER", "USER", "WATCHES", "PENDING", "BYTES",
                    "DELIVERED", "MERGED", "CONNECTED FOR");
        for (size_t i = 0; i < length(queues); i++)
                put_queue(out, json_object_array_get_idx(queues, i));
}

static int print_status(const struct options *options, struct json_object *status, const char *address) {
        struct text out = { 0 };

        if (options->given & OPTION_METRICS)
                metrics_put(&out, status);
        else if (options->given & OPTION_JSON) {
                text_puts(&out, json_object_to_json_string_ext(status, JSON_C_TO_STRING_PLAIN |
                                                                               JSON_C_TO_STRING_NOSLASHESCAPE));
                text_puts(&out, "\n");
        } else {
                put_head(&out, status, address);
                put_sources(&out, member(status, "sources"));
                put_counters(&out, member(status, "counters"));
                put_users(&out, member(status, "users"), member(status, "limits"));
                put_queues(&out, member(status, "queues"));
        }
        if (out.failed)
                report(NULL, strerror(ENOMEM), NULL);
        else
                (void)fputs(out.data, stdout);
        text_free(&out);
        return out.failed ? STATUS_FAILED : STATUS_DONE;
}

int status_run(const struct command *command, const struct options *options) {
        struct json_object *status;
        struct kev *kev = NULL;
        int r;

        if (options->n_arguments > 0)
                return usage_error(command, "'%s' is not asked for", options->arguments[0]);
        if (options->given & OPTION_JSON && options->given & OPTION_METRICS)
                return usage_error(command, "--json and --metrics are two formats");
        r = kev_open(options->address, &kev);
        if (r < 0) {
                report(NULL, kev_error_message(NULL), NULL);
                return STATUS_FAILED;
        }
        status = options->given & OPTION_METRICS ? call(kev, "org.kevd.manager.GetStatistics") : get_status(kev);
        r = status ? print_status(options, status, kev_address(kev)) : STATUS_FAILED;
        (void)json_object_put(status);
        kev_close(kev);
        return r;
}
