/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * org.kevd.Manager: the methods of the Varlink interface org.kevd.manager, its single figures as properties, and who
 * may see all processes. Who only reads was let through by the bus's policy; who changes something is authorized here.
 */

#include <errno.h>
#include <string.h>

#include "buffer.h"
#include "config.h"
#include "log.h"
#include "message.h"
#include "objects.h"

#define OBJECT "/org/kevd/Manager"
#define INTERFACE "org.kevd.Manager"

enum {
        FIGURES_PAUSE_SEC = 1,
        WRITES_MAX = 64, /* that the bus has not taken: it is told no more changes until it has */
        RELOADS_MAX = 64,
};

/* ---- figures --------------------------------------------------------------------------------------------- */

static struct server *server_of(void *userdata) {
        struct bus *b = userdata;

        return b->server;
}

/* The same text as the reply of the Varlink method, as one JSON object. */
static int reply_json(sd_bus_message *call, struct server *server, void (*put)(struct server *, struct buffer *)) {
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;

        buffer_put_literal(&b, "{");
        put(server, &b);
        buffer_put(&b, "}", 2);
        return b.error ? b.error : sd_bus_reply_method_return(call, "s", b.data);
}

static int get_status(sd_bus_message *call, void *userdata, sd_bus_error *error _unused_) {
        return reply_json(call, server_of(userdata), manager_put_status);
}

static int list_queues(sd_bus_message *call, void *userdata, sd_bus_error *error _unused_) {
        return reply_json(call, server_of(userdata), manager_put_queues);
}

static int get_statistics(sd_bus_message *call, void *userdata, sd_bus_error *error _unused_) {
        return reply_json(call, server_of(userdata), manager_put_statistics);
}

static int get_version(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                       const char *property _unused_, sd_bus_message *reply, void *userdata _unused_,
                       sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "s", KEVD_VERSION);
}

static int get_mode(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                    const char *property _unused_, sd_bus_message *reply, void *userdata,
                    sd_bus_error *error _unused_) {
        const struct server *server = server_of(userdata);

        return sd_bus_message_append(reply, "s", mode_name(server->mode));
}

static int get_mux(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                   const char *property _unused_, sd_bus_message *reply, void *userdata,
                   sd_bus_error *error _unused_) {
        const struct server *server = server_of(userdata);

        return sd_bus_message_append(reply, "s", mux_backend_name(server->mux));
}

static int get_figure(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                      const char *property, sd_bus_message *reply, void *userdata, sd_bus_error *error _unused_) {
        const struct server *s = server_of(userdata);
        const struct {
                const char *name;
                uint64_t value;
        } figures[] = {
                { "UptimeUsec", monotonic_nsec() / NSEC_PER_USEC - s->start_usec },
                { "Connections", s->n_connections },
                { "Watches", s->queues.n_watches },
                { "EventsIn", s->queues.figures[FIGURE_EVENTS_IN] },
                { "Delivered", s->queues.figures[FIGURE_DELIVERED] },
                { "Merged", s->queues.figures[FIGURE_MERGED] },
                { "Rescans", s->queues.figures[FIGURE_RESCANS] },
                { "KernelOverflows", s->sources.context.kernel_overflows },
                { "Refused", s->queues.figures[FIGURE_REFUSED] },
                { "ProtocolErrors", s->protocol_errors },
                { "ConnectionsAccepted", s->accepted },
                { "ConnectionsRefused", s->turned_away },
        };

        for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
                if (strcmp(figures[i].name, property) == 0)
                        return sd_bus_message_append(reply, "t", figures[i].value);
        return -ENOENT;
}

/* What changes with every event, or always, is read and not signalled. */
#define FIGURE(name) SD_BUS_PROPERTY(name, "t", get_figure, 0, 0)
#define SIGNALLED(name) SD_BUS_PROPERTY(name, "t", get_figure, 0, SD_BUS_VTABLE_PROPERTY_EMITS_CHANGE)

static void signal_figures(struct bus *b);

static void on_pause_over(struct mux_timer *timer) {
        signal_figures(container_of(timer, struct bus, figures_pause));
}

static void on_figures(struct mux_deferred *deferred) {
        struct bus *b = container_of(deferred, struct bus, figures);

        if (b->is_up && b->figures_pause.heap_index == 0)
                signal_figures(b);
}

/* At once if it was quiet, and once a second for as long as they change. */
static void signal_figures(struct bus *b) {
        uint64_t n_queued = 0;

        if (b->told_connections == b->server->n_connections && b->told_watches == b->server->queues.n_watches)
                return;
        if (mux_timer_set(b->server->mux, &b->figures_pause, monotonic_nsec() + FIGURES_PAUSE_SEC * NSEC_PER_SEC,
                          on_pause_over) < 0)
                return;
        if (sd_bus_get_n_queued_write(b->bus, &n_queued) < 0 || n_queued >= WRITES_MAX)
                return;
        b->told_connections = b->server->n_connections;
        b->told_watches = b->server->queues.n_watches;
        (void)sd_bus_emit_properties_changed(b->bus, OBJECT, INTERFACE, "Connections", "Watches", NULL);
        mux_defer(b->server->mux, &b->prepare);
}

/* ---- what changes something ------------------------------------------------------------------------------- */

static struct bus *bus_of(struct authorizer *authorizer) {
        return container_of(authorizer, struct bus, authorizer);
}

static void observe(struct authorizer *authorizer, sd_bus_message *call, uid_t uid, pid_t pid) {
        size_t n = server_let_observe(bus_of(authorizer)->server, pid, uid);

        if (n == 0) {
                (void)sd_bus_reply_method_errorf(call, "org.kevd.Error.NoConnection",
                                                 "the calling process has no connection to kevd");
                return;
        }
        log_info("process %d of user %u may see the processes of all users", (int)pid, (unsigned)uid);
        (void)sd_bus_reply_method_return(call, NULL);
}

static int on_observe(sd_bus_message *call, void *userdata, sd_bus_error *error) {
        struct bus *b = userdata;

        return authorize(&b->authorizer, call, "org.kevd.observe-processes", observe, error);
}

static void disconnect(struct authorizer *authorizer, sd_bus_message *call, uid_t uid _unused_, pid_t pid _unused_) {
        uint64_t id;

        if (sd_bus_message_rewind(call, true) < 0 || sd_bus_message_read(call, "t", &id) < 0)
                return;
        if (server_disconnect(bus_of(authorizer)->server, id) < 0)
                (void)sd_bus_reply_method_errorf(call, "org.kevd.Error.NoSuchConnection",
                                                 "there is no connection %llu", (unsigned long long)id);
        else
                (void)sd_bus_reply_method_return(call, NULL);
}

static int on_disconnect(sd_bus_message *call, void *userdata, sd_bus_error *error) {
        struct bus *b = userdata;

        return authorize(&b->authorizer, call, "org.kevd.disconnect", disconnect, error);
}

struct reload_call {
        struct list link; /* in the bus's */
        struct bus *bus;
        sd_bus_message *call;
        struct reload_waiter waiter;
};

static void free_reload_call(struct reload_call *r) {
        list_remove(&r->waiter.link);
        list_remove(&r->link);
        r->bus->n_reloads--;
        sd_bus_message_unref(r->call);
        free(r);
}

static void on_reloaded(struct reload_waiter *waiter, int error, const char *complaint) {
        struct reload_call *r = container_of(waiter, struct reload_call, waiter);

        if (error < 0)
                (void)sd_bus_reply_method_errorf(r->call, "org.kevd.Error.ConfigurationInvalid", "%s",
                                                 utf8_is_valid(complaint, strlen(complaint)) ? complaint :
                                                                                               strerror(-error));
        else
                (void)sd_bus_reply_method_return(r->call, NULL);
        mux_defer(r->bus->server->mux, &r->bus->prepare);
        free_reload_call(r);
}

static void reload(struct authorizer *authorizer, sd_bus_message *call, uid_t uid _unused_, pid_t pid _unused_) {
        struct bus *b = bus_of(authorizer);
        struct reload_call *r = b->n_reloads < RELOADS_MAX ? calloc(1, sizeof(*r)) : NULL;

        if (!r) {
                (void)sd_bus_reply_method_errorf(call, SD_BUS_ERROR_LIMITS_EXCEEDED, "too many others wait for it");
                return;
        }
        r->bus = b;
        r->call = sd_bus_message_ref(call);
        r->waiter.done = on_reloaded;
        list_init(&r->waiter.link);
        list_init(&r->link);
        list_append(&b->reloads, &r->link);
        b->n_reloads++;
        server_reload(b->server, &r->waiter);
}

static int on_reload(sd_bus_message *call, void *userdata, sd_bus_error *error) {
        struct bus *b = userdata;

        return authorize(&b->authorizer, call, "org.kevd.reload", reload, error);
}

static const sd_bus_vtable manager_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("GetStatus", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", status), get_status,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListQueues", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", queues), list_queues,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("GetStatistics", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", statistics), get_statistics,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Disconnect", SD_BUS_ARGS("t", id), SD_BUS_NO_RESULT, on_disconnect,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("Reload", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_reload, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ObserveProcesses", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, on_observe,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Mode", "s", get_mode, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Mux", "s", get_mux, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        FIGURE("UptimeUsec"),
        SIGNALLED("Connections"),
        SIGNALLED("Watches"),
        FIGURE("EventsIn"),
        FIGURE("Delivered"),
        FIGURE("Merged"),
        FIGURE("Rescans"),
        FIGURE("KernelOverflows"),
        FIGURE("Refused"),
        FIGURE("ProtocolErrors"),
        FIGURE("ConnectionsAccepted"),
        FIGURE("ConnectionsRefused"),
        SD_BUS_VTABLE_END,
};

int manager_publish(struct bus *b) {
        list_init(&b->reloads);
        mux_deferred_init(&b->figures, on_figures);
        b->server->on_figures = &b->figures;
        return sd_bus_add_object_vtable(b->bus, NULL, OBJECT, INTERFACE, manager_vtable, b);
}

void manager_withdraw(struct bus *b) {
        b->server->on_figures = NULL;
        mux_deferred_cancel(&b->figures);
        mux_timer_clear(b->server->mux, &b->figures_pause);
        while (!list_empty(&b->reloads))
                free_reload_call(list_entry(b->reloads.next, struct reload_call, link));
}
