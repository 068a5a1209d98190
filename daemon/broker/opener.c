/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "opener.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "client.h"
#include "mux.h"
#include "packet.h"

enum { OPENING_SEC = 5 };

void opened_close(struct opened *opened) {
        for (size_t i = 0; i < OPENING_FDS_MAX; i++)
                opened->fds[i] = safe_close(opened->fds[i]);
        opened->socket = safe_close(opened->socket);
}

void opened_leave(struct opened *opened) {
        if (opened->socket >= 0)
                (void)send(opened->socket, "", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
        opened->socket = safe_close(opened->socket);
}

static int wait_readable(int fd, uint64_t deadline) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        uint64_t now = monotonic_nsec();
        int n = now < deadline ? poll(&p, 1, (int)((deadline - now) / NSEC_PER_MSEC) + 1) : 0;

        return n > 0 || (n < 0 && errno == EINTR) ? 0 : n < 0 ? -errno : -ETIMEDOUT;
}

/* One message. */
static int take_opening(int socket, uint64_t deadline, struct opening *ret, int *ret_fd) {
        ssize_t n;
        int r;

        do {
                r = wait_readable(socket, deadline);
                if (r < 0)
                        return r;
                n = packet_receive(socket, ret, sizeof(*ret), ret_fd, MSG_DONTWAIT);
        } while (n < 0 && (errno == EAGAIN || errno == EINTR));
        if (n == sizeof(*ret) && ret->n_fds <= OPENING_FDS_MAX && memchr(ret->why, 0, sizeof(ret->why)))
                return ret->error < 0 || *ret_fd >= 0 ? 0 : -EIO;
        *ret_fd = safe_close(*ret_fd);
        return n < 0 ? -errno : -EIO;
}

static int take_all(struct opened *opened, uint64_t deadline, char *why, size_t why_size) {
        struct opening o = { .n_fds = 1 };
        int r = 0;

        for (uint32_t i = 0; i < o.n_fds && r == 0; i++) {
                r = take_opening(opened->socket, deadline, &o, &opened->fds[i]);
                if (r == 0 && o.error < 0) {
                        r = o.error;
                        (void)snprintf(why, why_size, "%s", o.why);
                }
        }
        opened->lacks_ids = o.lacks_ids;
        opened->n_forks = o.n_forks;
        return r;
}

static void on_helper(struct helper *helper _unused_, int error _unused_, int fd _unused_) {
}

int opener_ask(struct broker *broker, uint32_t kind, int fd, size_t buffer_bytes, bool is_only, struct opened *ret,
               char *why, size_t why_size) {
        static struct helper_request request;
        uint64_t deadline = monotonic_nsec() + OPENING_SEC * NSEC_PER_SEC;
        struct opened opened = OPENED_NONE;
        struct helper helper;
        int r;

        if (!broker)
                return -EOPNOTSUPP;
        request = (struct helper_request){ .kind = kind, .buffer_bytes = buffer_bytes, .is_only = is_only };
        r = helper_start_with(broker, &helper, &request, fd, on_helper);
        if (r == 0 && !helper_wait(&helper, deadline)) {
                helper_close(&helper);
                r = monotonic_nsec() < deadline ? -EAGAIN : -ETIMEDOUT; /* the broker could not start it just now */
        }
        if (r < 0)
                return r;
        opened.socket = helper_take_socket(&helper);
        r = take_all(&opened, deadline, why, why_size);
        if (r < 0)
                opened_close(&opened);
        else
                *ret = opened;
        return r;
}
