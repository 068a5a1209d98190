/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "opener_call.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "mux.h"
#include "packet.h"

enum { OPENING_SEC = 5 };

void opened_close(struct opened *opened) {
        for (size_t i = 0; i < OPENING_FDS_MAX; i++)
                opened->fds[i] = safe_close(opened->fds[i]);
        opened->socket = safe_close(opened->socket);
}

void opened_drop(const struct opened *opened) {
        struct opened copy = opened ? *opened : OPENED_NONE;

        opened_close(&copy);
}

void opened_leave(struct opened *opened) {
        if (opened->socket >= 0)
                (void)send(opened->socket, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        opened->socket = safe_close(opened->socket);
}

/* ---- one call --------------------------------------------------------------------------------------------------- */

static void end(struct opener_call *c) {
        int fd = c->io.fd;

        c->is_under_way = false;
        mux_timer_clear(c->mux, &c->timer);
        helper_close(&c->helper);
        if (fd >= 0)
                mux_remove(c->mux, &c->io);
}

static void fail(struct opener_call *c, int error, const char *why) {
        int fd = c->io.fd;

        end(c);
        (void)safe_close(fd);
        opened_close(&c->opened);
        c->fn(c, error, NULL, why);
}

static void succeed(struct opener_call *c) {
        c->opened.socket = c->io.fd;
        end(c);
        c->fn(c, 0, &c->opened, "");
}

static void take_opening(struct opener_call *c) {
        struct opening o;
        int fd;
        ssize_t n = packet_receive(c->io.fd, &o, sizeof(o), &fd, MSG_DONTWAIT);

        if (packet_is_for_later(n) || (n < 0 && errno == EINTR))
                return;
        if (n != sizeof(o) || o.n_fds > OPENING_FDS_MAX || !memchr(o.why, 0, sizeof(o.why)) || (o.error == 0 && fd < 0) ||
            c->n_taken >= OPENING_FDS_MAX) {
                (void)safe_close(fd);
                fail(c, n < 0 ? -errno : -EIO, "");
                return;
        }
        if (o.error < 0) {
                (void)safe_close(fd);
                fail(c, o.error, o.why);
                return;
        }
        c->opened.fds[c->n_taken++] = fd;
        c->opened.lacks_ids = o.lacks_ids;
        c->opened.n_forks = o.n_forks;
        if (c->n_taken == o.n_fds)
                succeed(c);
}

static void on_opening(struct mux_io *io, unsigned events _unused_) {
        take_opening(container_of(io, struct opener_call, io));
}

static void on_late(struct mux_timer *timer) {
        fail(container_of(timer, struct opener_call, timer), -ETIMEDOUT, "");
}

/* The broker could not start it just now, or has ended. */
static void on_helper(struct helper *helper, int error _unused_, int fd) {
        (void)safe_close(fd);
        fail(container_of(helper, struct opener_call, helper), -EAGAIN, "");
}

static void on_socket(struct helper *helper) {
        struct opener_call *c = container_of(helper, struct opener_call, helper);
        int fd = helper_take_socket(helper), r = mux_add(c->mux, &c->io, fd, MUX_IN, on_opening);

        if (r == 0)
                return;
        (void)close(fd);
        c->io.fd = -1;
        fail(c, r, "");
}

int opener_begin(struct opener_call *c, struct broker *broker, uint32_t kind, int fd, size_t buffer_bytes, bool is_only) {
        static struct helper_request request;
        int r;

        request = (struct helper_request){ .kind = kind, .buffer_bytes = buffer_bytes, .is_only = is_only };
        c->mux = broker_mux(broker);
        c->io = MUX_IO_INIT;
        c->timer = MUX_TIMER_INIT;
        c->opened = OPENED_NONE;
        c->n_taken = 0;
        c->deadline = monotonic_nsec() + OPENING_SEC * NSEC_PER_SEC;
        r = helper_start_with(broker, &c->helper, &request, fd, on_helper);
        if (r < 0)
                return r;
        c->helper.has_socket = on_socket;
        r = mux_timer_set(c->mux, &c->timer, c->deadline, on_late);
        if (r < 0) {
                helper_close(&c->helper);
                return r;
        }
        c->is_under_way = true;
        return 0;
}

static void wait_for_socket(struct opener_call *c) {
        if (!helper_wait(&c->helper, c->deadline) && c->is_under_way && c->io.fd < 0)
                fail(c, monotonic_nsec() < c->deadline ? -EAGAIN : -ETIMEDOUT, "");
}

static void wait_for_opening(struct opener_call *c) {
        struct pollfd p = { .fd = c->io.fd, .events = POLLIN };
        uint64_t now = monotonic_nsec();
        int n = now < c->deadline ? poll(&p, 1, (int)((c->deadline - now) / NSEC_PER_MSEC) + 1) : 0;

        if (n > 0)
                take_opening(c);
        else if (n == 0 || (errno != EINTR && !packet_again(n, 0)))
                fail(c, n < 0 ? -errno : -ETIMEDOUT, "");
}

/* `fn` may begin another. */
void opener_finish(struct opener_call *c) {
        while (c->is_under_way)
                if (c->io.fd < 0)
                        wait_for_socket(c);
                else
                        wait_for_opening(c);
}

void opener_cancel(struct opener_call *c) {
        int fd;

        if (!c->is_under_way)
                return;
        fd = c->io.fd;
        end(c);
        (void)safe_close(fd);
        opened_close(&c->opened);
}

/* ---- and its answer at once ------------------------------------------------------------------------------------- */

struct asking {
        struct opener_call call;
        int error;
        struct opened *opened;
        char *why;
        size_t why_size;
};

static void on_asked(struct opener_call *call, int error, const struct opened *opened, const char *why) {
        struct asking *a = container_of(call, struct asking, call);

        a->error = error;
        if (error == 0)
                *a->opened = *opened;
        else
                (void)snprintf(a->why, a->why_size, "%s", why);
}

int opener_ask(struct broker *broker, uint32_t kind, int fd, size_t buffer_bytes, bool is_only, struct opened *ret,
               char *why, size_t why_size) {
        struct asking a = { .call.fn = on_asked, .opened = ret, .why = why, .why_size = why_size };
        int r = broker ? opener_begin(&a.call, broker, kind, fd, buffer_bytes, is_only) : -EOPNOTSUPP;

        if (r < 0)
                return r;
        opener_finish(&a.call);
        return a.error;
}

/* ---- while it is kept --------------------------------------------------------------------------------------------- */

/* It has nothing more to say. */
static void on_helper_end(struct mux_io *io, unsigned events _unused_) {
        struct opener_guard *guard = container_of(io, struct opener_guard, io);
        struct broker *broker = guard->broker;

        opener_unguard(guard);
        broker_fail(broker, "the helper that keeps a feed has ended");
}

int opener_guard(struct opener_guard *guard, struct broker *broker, int socket) {
        guard->io = MUX_IO_INIT;
        guard->broker = broker;
        return broker && socket >= 0 ? mux_add(broker_mux(broker), &guard->io, socket, MUX_IN, on_helper_end) : 0;
}

void opener_unguard(struct opener_guard *guard) {
        if (guard->io.fd >= 0)
                mux_remove(broker_mux(guard->broker), &guard->io);
}
