/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "bus.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <systemd/sd-bus.h>

#include "log.h"
#include "objects.h"

/*
 * sd-bus in a loop that isn't sd-event (sd_bus_get_fd(3)): before each wait its
 * descriptor, events and timeout are asked for anew, after it sd_bus_process()
 * runs until it has nothing to do, or for a slice: who floods the bus gets no more
 * of a turn. `prepare` does both, as deferred work after whatever may have changed
 * them.
 *
 * Of sd-bus only what does not wait for the other side may be called: no
 * sd_bus_call(), no sd_bus_flush(), which waits for a bus that never answers, or
 * that could not be connected to, without end; and no member without
 * SD_BUS_VTABLE_UNPRIVILEGED, for which sd-bus asks the bus who its caller is,
 * and waits. Who may call what is the bus's policy (systemd/org.kevd.conf), and authorize.c's.
 *
 * A bus that is lost, or was not there, is tried again: after pauses that grow, for some minutes, and after that when
 * the configuration is read again.
 */
enum {
        PAUSE_MSEC_MIN = 250,
        PAUSE_MSEC_MAX = 60 * 1000,
        ATTEMPTS_MAX = 16, /* some nine minutes */
        SLICE_NSEC = 100 * 1000, /* of a turn */
};

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

/* ---- coming and going ----------------------------------------------------------------------------------------- */

static void attempt(struct bus *b);

static void on_again(struct mux_timer *timer) {
        attempt(container_of(timer, struct bus, again));
}

static uint64_t pause_nsec(unsigned attempts) {
        return MIN((uint64_t)PAUSE_MSEC_MIN << MIN(attempts, 16u), (uint64_t)PAUSE_MSEC_MAX) * NSEC_PER_MSEC;
}

static void withdraw(struct bus *b) {
        mux_timer_clear(b->server->mux, &b->timer);
        mux_remove(b->server->mux, &b->io);
        manager_withdraw(b);
        authorizer_close(&b->authorizer);
        b->bus = sd_bus_close_unref(b->bus);
        b->is_up = false;
}

static void lose(struct bus *b, int error) {
        if (b->is_up)
                log_warning("the bus is lost: %s; the daemon goes on without it", strerror(error));
        else
                log_at(b->attempts == 0 ? LOG_INFO : LOG_DEBUG, "no bus to be reached: %s", strerror(error));
        withdraw(b);
        if (b->attempts == ATTEMPTS_MAX) {
                log_info("no bus is looked for any more, until the configuration is read again");
                return;
        }
        (void)mux_timer_set(b->server->mux, &b->again, monotonic_nsec() + pause_nsec(b->attempts++), on_again);
}

/* The bus has answered. */
static void come_up(struct bus *b) {
        if (b->attempts > 0)
                log_notice("the bus is there again");
        b->is_up = true;
        b->attempts = 0;
        b->told_connections = b->server->n_connections;
        b->told_watches = b->server->queues.n_watches;
}

static void on_prepare(struct mux_deferred *deferred) {
        struct bus *b = container_of(deferred, struct bus, prepare);
        uint64_t end_nsec = monotonic_nsec() + SLICE_NSEC;
        int r;

        if (!b->bus)
                return;
        do
                r = sd_bus_process(b->bus, NULL);
        while (r > 0 && monotonic_nsec() < end_nsec);
        if (r > 0)
                mux_defer(b->server->mux, deferred);
        if (r >= 0 && !b->is_up && sd_bus_is_ready(b->bus) > 0)
                come_up(b);
        if (r >= 0)
                r = arm(b);
        if (r < 0)
                lose(b, -r);
}

static int on_name(sd_bus_message *reply, void *userdata _unused_, sd_bus_error *ret_error _unused_) {
        const sd_bus_error *error = sd_bus_message_get_error(reply);

        if (error && sd_bus_is_open(sd_bus_message_get_bus(reply)) > 0) /* else it is the bus that is lost */
                log_notice("the name org.kevd is not to be had on the bus: %s", error->message);
        return 0;
}

/* None of this waits: what is sent is queued until the bus has answered. */
static int connect_to_bus(struct bus *b) {
        int r = b->server->mode == MODE_SYSTEM ? sd_bus_open_system(&b->bus) : sd_bus_open_user(&b->bus);

        if (r >= 0)
                r = log_control_publish(b);
        if (r >= 0)
                r = manager_publish(b);
        if (r >= 0)
                r = sd_bus_request_name_async(b->bus, NULL, "org.kevd", 0, on_name, NULL);
        if (r >= 0)
                r = mux_add(b->server->mux, &b->io, sd_bus_get_fd(b->bus), 0, on_ready);
        return r;
}

static void attempt(struct bus *b) {
        int r = connect_to_bus(b);

        if (r < 0)
                lose(b, -r);
        else
                mux_defer(b->server->mux, &b->prepare);
}

static void on_configured(struct mux_deferred *deferred) {
        struct bus *b = container_of(deferred, struct bus, configured);

        if (b->bus)
                return;
        b->attempts = 0;
        mux_timer_clear(b->server->mux, &b->again);
        attempt(b);
}

int bus_open(struct server *server, struct bus **ret_bus) {
        struct bus *b = calloc(1, sizeof(*b));

        if (!b)
                return -ENOMEM;
        b->server = server;
        b->io = MUX_IO_INIT;
        list_init(&b->reloads);
        authorizer_init(&b->authorizer);
        mux_deferred_init(&b->prepare, on_prepare);
        mux_deferred_init(&b->figures, NULL);
        mux_deferred_init(&b->configured, on_configured);
        server->on_configured = &b->configured;
        attempt(b);
        *ret_bus = b;
        return 0;
}

struct bus *bus_close(struct bus *b) {
        if (!b)
                return NULL;
        b->server->on_configured = NULL;
        mux_deferred_cancel(&b->configured);
        mux_deferred_cancel(&b->prepare);
        mux_timer_clear(b->server->mux, &b->again);
        withdraw(b);
        free(b);
        return NULL;
}
