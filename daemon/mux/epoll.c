/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * epoll(7). epoll_pwait2(2) takes nanoseconds (Linux 5.11); where the call is
 * missing, milliseconds, rounded up.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>

#include "backend.h"
#include "macro.h"
#include "mux.h"

enum { BATCH = 256 };

struct epoll {
        int fd;
        bool no_pwait2;
};

static int epoll_open(void **ret_state) {
        struct epoll *e = calloc(1, sizeof(*e));

        if (!e)
                return -ENOMEM;
        e->fd = epoll_create1(EPOLL_CLOEXEC);
        if (e->fd < 0) {
                int r = -errno;

                free(e);
                return r;
        }
        *ret_state = e;
        return 0;
}

static void epoll_close(void *state) {
        struct epoll *e = state;

        (void)close(e->fd);
        free(e);
}

static int control(struct epoll *e, int operation, int fd, unsigned events, void *token) {
        struct epoll_event event = {
                .events = (events & MUX_IN ? (uint32_t)EPOLLIN : 0u) | (events & MUX_OUT ? (uint32_t)EPOLLOUT : 0u) |
                          (events & MUX_PRI ? (uint32_t)EPOLLPRI : 0u) | (events & MUX_ONCE ? (uint32_t)EPOLLET : 0u),
                .data.ptr = token,
        };

        return epoll_ctl(e->fd, operation, fd, &event) < 0 ? -errno : 0;
}

static int epoll_add(void *state, int fd, unsigned events, void *token) {
        return control(state, EPOLL_CTL_ADD, fd, events, token);
}

static int epoll_modify(void *state, int fd, unsigned events, void *token) {
        return control(state, EPOLL_CTL_MOD, fd, events, token);
}

static void epoll_remove(void *state, int fd) {
        (void)control(state, EPOLL_CTL_DEL, fd, 0, NULL);
}

static int wait_kernel(struct epoll *e, struct epoll_event *events, int n_events, int64_t timeout_nsec) {
        if (timeout_nsec > 0 && !e->no_pwait2) {
                struct timespec t = {
                        .tv_sec = timeout_nsec / (int64_t)NSEC_PER_SEC,
                        .tv_nsec = timeout_nsec % (int64_t)NSEC_PER_SEC,
                };
                int n = epoll_pwait2(e->fd, events, n_events, &t, NULL);

                if (n >= 0 || errno != ENOSYS)
                        return n;
                e->no_pwait2 = true;
        }
        if (timeout_nsec > 0)
                timeout_nsec = MIN((timeout_nsec - 1) / (int64_t)NSEC_PER_MSEC + 1, (int64_t)INT32_MAX);
        return epoll_wait(e->fd, events, n_events, timeout_nsec < 0 ? -1 : (int)timeout_nsec);
}

static int epoll_backend_wait(void *state, struct mux_ready *ready, size_t n_ready, int64_t timeout_nsec) {
        struct epoll_event events[BATCH];
        int n = wait_kernel(state, events, (int)MIN(n_ready, (size_t)BATCH), timeout_nsec);

        if (n < 0)
                return errno == EINTR ? 0 : -errno;
        for (int i = 0; i < n; i++) {
                uint32_t got = events[i].events;

                ready[i].token = events[i].data.ptr;
                ready[i].events = (got & EPOLLIN ? MUX_IN : 0u) | (got & EPOLLOUT ? MUX_OUT : 0u) |
                                  (got & EPOLLPRI ? MUX_PRI : 0u) | (got & EPOLLERR ? MUX_ERR : 0u) |
                                  (got & EPOLLHUP ? MUX_HUP : 0u);
        }
        return n;
}

const struct mux_backend mux_backend_epoll = {
        .name = "epoll",
        .tells_once = true,
        .open = epoll_open,
        .close = epoll_close,
        .add = epoll_add,
        .modify = epoll_modify,
        .remove = epoll_remove,
        .wait = epoll_backend_wait,
};
