/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "buffer.h"
#include "config.h"
#include "log.h"
#include "observe.h"
#include "server.h"

/*
 * sd-bus in a loop that isn't sd-event (sd_bus_get_fd(3)): before each wait its
 * descriptor, events and timeout are asked for anew, after it sd_bus_process()
 * runs until it has nothing to do. `prepare` does both, as deferred work after
 * whatever may have changed them.
 *
 * Of sd-bus only what does not wait for the other side may be called: no
 * sd_bus_call(), no sd_bus_flush(), which waits for a bus that never answers, or
 * that could not be connected to, without end; and no member without
 * SD_BUS_VTABLE_UNPRIVILEGED, for which sd-bus asks the bus who its caller is,
 * and waits. Who may call what is the bus's policy (systemd/org.kevd.conf), and for one method polkit's.
 */
struct bus {
        struct server *server;
        sd_bus *bus;
        struct mux_io io;
        struct mux_timer timer;
        struct mux_deferred prepare;
        struct observe observe;
};

/* ---- org.freedesktop.LogControl1 ------------------------------------------------------------- */

static int get_log_level(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                         const char *property _unused_, sd_bus_message *reply, void *userdata _unused_,
                         sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "s", log_level_name(log_level()));
}

static int set_log_level(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                         const char *property _unused_, sd_bus_message *value, void *userdata _unused_,
                         sd_bus_error *error) {
        const char *name;
        int level, r = sd_bus_message_read(value, "s", &name);

        if (r < 0)
                return r;
        level = log_level_from_name(name);
        if (level < 0)
                return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "\"%s\" is not a log level", name);
        log_set_level(level);
        log_notice("the log level is %s now", name);
        return 0;
}

static int get_log_target(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                          const char *property _unused_, sd_bus_message *reply, void *userdata _unused_,
                          sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "s", getenv("JOURNAL_STREAM") ? "journal" : "console");
}

static int set_log_target(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                          const char *property _unused_, sd_bus_message *value _unused_, void *userdata _unused_,
                          sd_bus_error *error) {
        return sd_bus_error_set(error, SD_BUS_ERROR_NOT_SUPPORTED, "the log goes to standard error, whatever that is");
}

static int get_identifier(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                          const char *property _unused_, sd_bus_message *reply, void *userdata _unused_,
                          sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "s", "kevd");
}

static const sd_bus_vtable log_control_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_WRITABLE_PROPERTY("LogLevel", "s", get_log_level, set_log_level, 0, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_WRITABLE_PROPERTY("LogTarget", "s", get_log_target, set_log_target, 0, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("SyslogIdentifier", "s", get_identifier, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_VTABLE_END,
};

/* ---- org.kevd.Manager ----------------------------------------------------------------------------- */

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

/* The figures that change all the time are read, not signalled. */
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
                { "EventsIn", s->queues.events_in },
                { "Delivered", s->queues.delivered },
                { "Merged", s->queues.merged },
                { "Rescans", s->queues.rescans },
                { "KernelOverflows", s->sources.context.kernel_overflows },
                { "Refused", s->queues.refused },
                { "ProtocolErrors", s->protocol_errors },
                { "ConnectionsAccepted", s->accepted },
                { "ConnectionsRefused", s->turned_away },
        };

        for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
                if (strcmp(figures[i].name, property) == 0)
                        return sd_bus_message_append(reply, "t", figures[i].value);
        return -ENOENT;
}

#define FIGURE(name) SD_BUS_PROPERTY(name, "t", get_figure, 0, 0)

static const sd_bus_vtable manager_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_METHOD_WITH_ARGS("GetStatus", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", status), get_status,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS("ListQueues", SD_BUS_NO_ARGS, SD_BUS_RESULT("s", queues), list_queues,
                                SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_METHOD_WITH_ARGS_OFFSET("ObserveProcesses", SD_BUS_NO_ARGS, SD_BUS_NO_RESULT, observe_processes,
                                       offsetof(struct bus, observe), SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("Version", "s", get_version, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Mode", "s", get_mode, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_PROPERTY("Mux", "s", get_mux, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        FIGURE("UptimeUsec"),
        FIGURE("Connections"),
        FIGURE("Watches"),
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

/* ---- in the mux ---------------------------------------------------------------------------------- */

static void give_up(struct bus *b, int error) {
        log_warning("the bus is lost: %s; the daemon goes on without it", strerror(error));
        mux_timer_clear(b->server->mux, &b->timer);
        mux_remove(b->server->mux, &b->io);
        observe_close(&b->observe);
        b->bus = sd_bus_close_unref(b->bus);
}

static void on_timer(struct mux_timer *timer) {
        struct bus *b = container_of(timer, struct bus, timer);

        mux_defer(b->server->mux, &b->prepare);
}

static void on_ready(struct mux_io *io, unsigned events _unused_) {
        struct bus *b = container_of(io, struct bus, io);

        mux_defer(b->server->mux, &b->prepare);
}

/* While it connects, sd-bus may close its descriptor and go on with the next
 * address, on one that may have the same number, or with none. The old number
 * has to leave the mux at once: the next connection may get it. */
static int follow_descriptor(struct bus *b, unsigned events) {
        int fd = sd_bus_get_fd(b->bus);

        if (fd == b->io.fd && sd_bus_is_ready(b->bus) > 0)
                return mux_modify(b->server->mux, &b->io, events);
        mux_remove(b->server->mux, &b->io);
        return fd < 0 ? fd : mux_add(b->server->mux, &b->io, fd, events, on_ready);
}

static int arm(struct bus *b) {
        int events = sd_bus_get_events(b->bus), r;
        uint64_t deadline_usec;

        if (events < 0)
                return events;
        r = follow_descriptor(b, (events & POLLIN ? MUX_IN : 0u) | (events & POLLOUT ? MUX_OUT : 0u));
        if (r < 0)
                return r;
        r = sd_bus_get_timeout(b->bus, &deadline_usec); /* CLOCK_MONOTONIC */
        if (r < 0)
                return r;
        mux_timer_clear(b->server->mux, &b->timer);
        if (deadline_usec == UINT64_MAX)
                return 0;
        return mux_timer_set(b->server->mux, &b->timer, deadline_usec * NSEC_PER_USEC, on_timer);
}

static void on_prepare(struct mux_deferred *deferred) {
        struct bus *b = container_of(deferred, struct bus, prepare);
        int r;

        if (!b->bus)
                return;
        do
                r = sd_bus_process(b->bus, NULL);
        while (r > 0);
        if (r == 0)
                r = arm(b);
        if (r < 0)
                give_up(b, -r);
}

static int on_name(sd_bus_message *reply, void *userdata _unused_, sd_bus_error *ret_error _unused_) {
        const sd_bus_error *error = sd_bus_message_get_error(reply);

        if (error)
                log_notice("the name org.kevd is not to be had on the bus: %s", error->message);
        return 0;
}

static int publish(struct bus *b) {
        int r = sd_bus_add_object_vtable(b->bus, NULL, "/org/freedesktop/LogControl1", "org.freedesktop.LogControl1",
                                         log_control_vtable, NULL);

        if (r >= 0)
                r = sd_bus_add_object_vtable(b->bus, NULL, "/org/kevd/Manager", "org.kevd.Manager", manager_vtable, b);
        if (r >= 0)
                r = sd_bus_request_name_async(b->bus, NULL, "org.kevd", 0, on_name, NULL);
        if (r >= 0)
                r = mux_add(b->server->mux, &b->io, sd_bus_get_fd(b->bus), 0, on_ready);
        return r;
}

int bus_open(struct server *server, struct bus **ret_bus) {
        struct bus *b = calloc(1, sizeof(*b));
        int r;

        *ret_bus = NULL;
        if (!b)
                return -ENOMEM;
        b->server = server;
        b->io = MUX_IO_INIT;
        observe_init(&b->observe, server);
        mux_deferred_init(&b->prepare, on_prepare);
        r = server->mode == MODE_SYSTEM ? sd_bus_open_system(&b->bus) : sd_bus_open_user(&b->bus);
        if (r >= 0)
                r = publish(b);
        if (r < 0) {
                log_info("no bus to be reached: %s", strerror(-r));
                bus_close(b);
                return 0;
        }
        mux_defer(server->mux, &b->prepare);
        *ret_bus = b;
        return 0;
}

struct bus *bus_close(struct bus *b) {
        if (!b)
                return NULL;
        mux_deferred_cancel(&b->prepare);
        mux_timer_clear(b->server->mux, &b->timer);
        mux_remove(b->server->mux, &b->io);
        observe_close(&b->observe);
        sd_bus_close_unref(b->bus);
        free(b);
        return NULL;
}
