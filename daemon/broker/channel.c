/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "macro.h"
#include "packet.h"

enum {
        MESSAGES_A_TURN = 64,
        MESSAGES_NSEC = 30 * 1000, /* and about so long, whatever comes of them */
        UNSENT_A_TURN = 1024,
        PARTS_MAX = 4,
};

struct unsent {
        struct list link;
        int fd;
        size_t size;
        char data[];
};

/* ---- sending -------------------------------------------------------------------------------------- */

static void free_unsent(struct channel *c, struct unsent *u) {
        list_remove(&u->link);
        c->unsent_bytes -= u->size;
        c->n_unsent_fds -= u->fd >= 0;
        if (u->fd >= 0 && c->close_fd)
                c->close_fd(c, u->fd);
        else
                (void)safe_close(u->fd);
        free(u);
}

static bool is_end(ssize_t n) {
        return n < 0 && (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN);
}

/* An end that is closed takes any number: the rest waits for the next turn. */
static void send_unsent(struct channel *c) {
        for (int i = 0; !list_empty(&c->unsent); i++) {
                struct unsent *u = list_entry(c->unsent.next, struct unsent, link);
                struct iovec part = { .iov_base = u->data, .iov_len = u->size };
                ssize_t n;

                if (i == UNSENT_A_TURN)
                        return;
                n = packet_send(c->io.fd, &part, 1, u->fd, MSG_DONTWAIT);
                if (n < 0 && !is_end(n)) /* no memory, say: tried again */
                        return;
                free_unsent(c, u);
        }
        (void)mux_modify(c->mux, &c->io, MUX_IN);
}

static int keep(struct channel *c, const struct iovec *parts, size_t n_parts, size_t size, int fd) {
        struct unsent *u = malloc(sizeof(*u) + size);
        char *p;

        if (!u)
                return -ENOMEM;
        u->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd >= 0 && u->fd < 0) {
                free(u);
                return -EMFILE;
        }
        list_init(&u->link);
        u->size = size;
        p = u->data;
        for (size_t i = 0; i < n_parts; i++) {
                if (parts[i].iov_len > 0)
                        memcpy(p, parts[i].iov_base, parts[i].iov_len);
                p += parts[i].iov_len;
        }
        if (list_empty(&c->unsent))
                (void)mux_modify(c->mux, &c->io, MUX_IN | MUX_OUT);
        list_append(&c->unsent, &u->link);
        c->unsent_bytes += size;
        c->n_unsent_fds += u->fd >= 0;
        return 0;
}

int channel_send(struct channel *c, const struct iovec *parts, size_t n_parts, int fd) {
        size_t size = 0;

        for (size_t i = 0; i < n_parts; i++)
                size += parts[i].iov_len;
        if (size > CHANNEL_BYTES_MAX)
                return -EMSGSIZE;
        if (list_empty(&c->unsent)) {
                ssize_t n = packet_send(c->io.fd, parts, n_parts, fd, MSG_DONTWAIT);

                if (n >= 0 || is_end(n))
                        return 0;
                if (!packet_is_for_later(n))
                        return -errno;
        }
        return keep(c, parts, n_parts, size, fd);
}

/* ---- receiving ------------------------------------------------------------------------------------ */

/* False: there is none, or the channel is closed, or at its end. */
static bool take_message(struct channel *c) {
        int fd;
        ssize_t n = packet_receive(c->io.fd, c->space, CHANNEL_BYTES_MAX, &fd, MSG_DONTWAIT);

        if (packet_is_for_later(n))
                return false;
        if (n <= 0) {
                (void)safe_close(fd);
                c->on_end(c);
                return false;
        }
        c->on_message(c, c->space, (size_t)n, fd);
        return c->io.fd >= 0;
}

static void on_ready(struct mux_io *io, unsigned events) {
        struct channel *c = container_of(io, struct channel, io);
        uint64_t end;

        if (events & MUX_OUT)
                send_unsent(c);
        end = monotonic_nsec() + MESSAGES_NSEC;
        for (int i = 0; i < MESSAGES_A_TURN && take_message(c) && monotonic_nsec() < end; i++)
                ;
}

void channel_wait(struct channel *c) {
        struct pollfd p = { .fd = c->io.fd, .events = (short)(POLLIN | (list_empty(&c->unsent) ? 0 : POLLOUT)) };

        if (poll(&p, 1, -1) <= 0)
                return;
        if (p.revents & POLLOUT)
                send_unsent(c);
        if (p.revents & ~POLLOUT)
                (void)take_message(c);
}

int channel_open(struct channel *c, struct mux *mux, int fd, channel_message_fn *on_message, channel_end_fn *on_end) {
        int r;

        *c = (struct channel){ .mux = mux, .io = MUX_IO_INIT, .on_message = on_message, .on_end = on_end };
        list_init(&c->unsent);
        c->space = malloc(CHANNEL_BYTES_MAX);
        r = c->space ? mux_add(mux, &c->io, fd, MUX_IN, on_ready) : -ENOMEM;
        if (r < 0)
                free(take_pointer(&c->space));
        return r;
}

void channel_close(struct channel *c) {
        int fd = c->io.fd;

        if (!c->space)
                return;
        mux_remove(c->mux, &c->io);
        (void)close(fd);
        while (!list_empty(&c->unsent))
                free_unsent(c, list_entry(c->unsent.next, struct unsent, link));
        free(take_pointer(&c->space));
}
