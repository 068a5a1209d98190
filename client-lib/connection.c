/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Connection and message: bytes in and out, and the calls in flight. Knows
 * nothing of what calls and replies say, but for Wait.
 *
 * kevd answers calls in their order, and a Wait at once when a further call
 * arrives. So the calls in flight are a queue, and a Wait among them never
 * delays what is behind it. Between the public calls there is one Wait in
 * flight, from the first watch on, whose replies make the socket readable: they
 * come without being asked for one by one, until a further call ends them.
 *
 * What goes wrong with the socket or with what was read ends the connection:
 * the socket is closed, the calls in flight are forgotten, and the error stays.
 * Events that were read before can still be handed out.
 */

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "internal.h"
#include "message.h"

enum { READ_BYTES = 64 * 1024 };

int polled_close(struct kev *kev, int fd) {
        if (fd >= 0)
                (void)epoll_ctl(kev->epoll, EPOLL_CTL_DEL, fd, NULL);
        return safe_close(fd);
}

int connection_fail(struct kev *kev, int error, const char *format, ...) {
        char message[ERROR_MESSAGE_MAX]; /* the arguments may hold the one before */
        va_list arguments;

        if (kev->error)
                return kev->error;
        va_start(arguments, format);
        sentence_put_list(message, format, arguments);
        va_end(arguments);
        (void)snprintf(kev->message, sizeof(kev->message), "%s", message);
        kev->error = error;
        connection_forget(kev);
        reconnect_close(kev);
        return error;
}

void connection_forget(struct kev *kev) {
        kev->fd = polled_close(kev, kev->fd);
        buffer_reset(&kev->calls);
        buffer_reset(&kev->out);
        buffer_reset(&kev->in);
        kev->scanned = 0;
        kev->n_fds = 0;
        kev->waits = 0;
        kev->answered = kev->sent;
        kev->writing = false;
}

int connection_fail_memory(struct kev *kev) {
        return connection_fail(kev, -ENOMEM, "There is no memory for what goes to kevd or comes from it");
}


/* ---- what is read ---------------------------------------------------------- */

static int take_messages(struct kev *kev) {
        struct buffer *in = &kev->in;
        const char *end;
        size_t start = 0;
        int r = 0;

        while (r == 0 && (end = memchr(in->data + kev->scanned, 0, in->size - kev->scanned))) {
                size_t size = (size_t)(end - in->data) - start;

                r = reply_take(kev, in->data + start, size);
                start += size + 1;
                kev->scanned = start;
        }
        if (r < 0)
                return r;
        buffer_consume(in, start);
        kev->scanned = in->size;
        if (in->size >= REPLY_BYTES_MAX)
                return connection_fail(kev, -EPROTO, "kevd sent a reply of more than %d bytes", REPLY_BYTES_MAX);
        if (in->size == 0 && in->capacity > READ_BYTES)
                buffer_free(in); /* one large reply is no reason to keep its memory */
        return 0;
}

int connection_read(struct kev *kev) {
        struct buffer *in = &kev->in;
        size_t room = MAX((size_t)READ_BYTES, in->size);
        char *p = buffer_reserve(in, room);
        ssize_t n;
        int r, own = own_signals_read(kev);

        if (!p)
                return connection_fail_memory(kev);
        if (own < 0)
                return own;
        if (kev->fd < 0)
                return own > 0 ? own : reconnect_step(kev, 0);
        n = recv(kev->fd, p, room, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
                return own;
        if (n == 0 || (n < 0 && errno == ECONNRESET))
                return reconnect_begin(kev);
        if (n < 0)
                return connection_fail(kev, -errno, "Can't read from kevd: %s", error_text(errno));
        in->size += (size_t)n;
        r = take_messages(kev);
        return r < 0 ? r : 1;
}

/* ---- what is written ------------------------------------------------------- */

static ssize_t send_some(struct kev *kev) {
        struct iovec iov = { kev->out.data, kev->out.size };
        struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
        union {
                struct cmsghdr align;
                char bytes[CMSG_SPACE(sizeof(int) * CALL_FDS_MAX)];
        } control = { 0 };

        if (kev->n_fds > 0) {
                struct cmsghdr *c = &control.align;

                header.msg_control = &control;
                header.msg_controllen = CMSG_SPACE(sizeof(int) * kev->n_fds);
                c->cmsg_level = SOL_SOCKET;
                c->cmsg_type = SCM_RIGHTS;
                c->cmsg_len = CMSG_LEN(sizeof(int) * kev->n_fds);
                memcpy(CMSG_DATA(c), kev->fds, sizeof(int) * kev->n_fds);
        }
        return sendmsg(kev->fd, &header, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* kevd has gone; but what it sent before is still there to be read. */
static int read_the_rest(struct kev *kev) {
        uint64_t n_losses = kev->n_losses;
        int r;

        do
                r = connection_read(kev);
        while (r > 0 && kev->n_losses == n_losses);
        return r == 0 ? reconnect_begin(kev) : r;
}

/* Writes what can be written now. An error while descriptors wait to be sent is
 * the message's own: none of it was written. */
static int flush(struct kev *kev) {
        ssize_t n;

        if (kev->error || kev->fd < 0 || kev->out.size == 0)
                return kev->error;
        n = send_some(kev);
        if (n >= 0) {
                buffer_consume(&kev->out, (size_t)n);
                kev->n_fds = 0;
                return 0;
        }
        if (errno == EAGAIN || errno == EINTR)
                return 0;
        if (errno == EPIPE || errno == ECONNRESET)
                return read_the_rest(kev);
        if (kev->n_fds > 0)
                return error_set(kev, -errno, "Can't send the descriptors to kevd: %s", error_text(errno));
        return connection_fail(kev, -errno, "Can't write to kevd: %s", error_text(errno));
}

int connection_step(struct kev *kev, int timeout_msec) {
        struct pollfd p[] = {
                { .fd = kev->fd, .events = POLLIN }, { .fd = kev->own_signals.fd, .events = POLLIN },
        };
        int n, r = 1;

        if (kev->error)
                return kev->error;
        if (kev->fd < 0)
                return reconnect_step(kev, timeout_msec);
        if (kev->out.size > 0)
                p[0].events |= POLLOUT;
        n = poll(p, ARRAY_SIZE(p), timeout_msec);
        if (n < 0 && errno == EINTR)
                return error_set(kev, -EINTR, "A signal came before kevd's answer");
        if (n < 0)
                return connection_fail(kev, -errno, "Can't wait for kevd: %s", error_text(errno));
        if (n == 0)
                return 0;
        if ((p[0].revents & ~POLLOUT) || p[1].revents)
                r = connection_read(kev);
        if (r >= 0 && (p[0].revents & POLLOUT))
                r = flush(kev);
        return r < 0 ? r : 1;
}

/* ---- calls ------------------------------------------------------------------ */

/* Remembers that a reply to `call` will come. */
static int calls_put(struct kev *kev, struct call *call) {
        buffer_put(&kev->calls, &call, sizeof(call));
        if (kev->calls.error)
                return connection_fail_memory(kev);
        kev->sent++;
        return 0;
}

static int send_wait(struct kev *kev, const char *members) {
        buffer_put_literal(&kev->out, "{\"method\":\"org.kevd.events.Wait\",");
        buffer_put(&kev->out, members, strlen(members));
        buffer_put_literal(&kev->out, "}\0");
        if (kev->out.error)
                return connection_fail_memory(kev);
        if (calls_put(kev, NULL) < 0)
                return kev->error;
        kev->waits++;
        return flush(kev);
}

int connection_ask(struct kev *kev) {
        if (kev->fd < 0)
                return kev->error;
        return send_wait(kev, "\"parameters\":{\"timeoutMsec\":0}");
}

int connection_wait(struct kev *kev) {
        if (kev->error || kev->fd < 0 || kev->waits > 0)
                return kev->error;
        /* It says nothing for as long as there is nothing. A stream would tell what holds again and again. */
        return send_wait(kev, kev->has_levels ? "\"parameters\":{\"timeoutMsec\":2147483647}" :
                                                "\"more\":true,\"parameters\":{\"timeoutMsec\":2147483647}");
}

/* What holds is asked for when the program has handled what it was told of: it may not hold any more. */
int connection_keep_waiting(struct kev *kev) {
        bool is_early = kev->has_levels && (kev->handed_out || inbox_has_news(&kev->inbox));

        return kev->watching && !is_early ? connection_wait(kev) : kev->error;
}

/* A step, whatever signals come. */
static int step_on(struct kev *kev) {
        int r;

        do
                r = connection_step(kev, -1);
        while (r == -EINTR);
        return r;
}

/* Writes the first byte of `out`, with the descriptors; on failure none of it. */
static int send_fds(struct kev *kev, const int *fds, size_t n_fds) {
        int r = 0;

        kev->fds = fds;
        kev->n_fds = n_fds;
        while (r >= 0 && kev->n_fds > 0)
                r = step_on(kev);
        if (r >= 0)
                return 0;
        kev->n_fds = 0;
        buffer_reset(&kev->out);
        return r;
}

int fail_unanswered(struct kev *kev) {
        return error_set(kev, -ECONNRESET, "kevd has gone before it answered (%s)", kev->address);
}

int call_send(struct kev *kev, struct call *call, const struct buffer *message, const int *fds, size_t n_fds) {
        int r = 0;

        *call = (struct call){ 0 };
        if (message->error)
                return error_set(kev, message->error, "There is no memory for the message to kevd");
        if (message->size > MESSAGE_BYTES_MAX)
                return error_set(kev, -EMSGSIZE, "The message would have %zu bytes; kevd takes %d", message->size,
                                 MESSAGE_BYTES_MAX);
        /* Where kevd is found to have gone nothing was written: the message is for the next one. */
        do {
                while (r >= 0 && (kev->out.size > 0 || (kev->fd < 0 && !kev->reconnecting.is_remaking)))
                        r = step_on(kev);
                if (r < 0)
                        return r;
                if (kev->fd < 0)
                        return fail_unanswered(kev);
                buffer_put(&kev->out, message->data, message->size);
                if (kev->out.error)
                        return connection_fail_memory(kev);
                call->n_losses = kev->n_losses;
                r = n_fds > 0 ? send_fds(kev, fds, n_fds) : flush(kev);
        } while (r >= 0 && kev->fd < 0);
        return r < 0 ? r : calls_put(kev, call);
}

int call_wait(struct kev *kev, struct call *call) {
        int r = 0;

        while (r >= 0 && !call->answered && kev->n_losses == call->n_losses)
                r = step_on(kev);
        if (call->answered)
                return 0;
        return r < 0 ? r : fail_unanswered(kev);
}

int call_run(struct kev *kev, struct call *call, const struct buffer *message, const int *fds, size_t n_fds) {
        int r = call_send(kev, call, message, fds, n_fds);

        if (r == 0)
                r = call_wait(kev, call);
        return r < 0 ? r : call_error(kev, call);
}
