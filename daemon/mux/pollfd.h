/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the backends share that speak poll(2)'s language, or ask it for what their own kernel interface doesn't say. */

#include <errno.h>
#include <poll.h>
#include <sys/stat.h>

#include "mux.h"

static inline short to_poll(unsigned events) {
        return (short)((events & MUX_IN ? POLLIN : 0) | (events & MUX_OUT ? POLLOUT : 0) |
                       (events & MUX_PRI ? POLLPRI : 0));
}

static inline unsigned from_poll(short got) {
        return (got & POLLIN ? MUX_IN : 0u) | (got & POLLOUT ? MUX_OUT : 0u) | (got & POLLPRI ? MUX_PRI : 0u) |
               (got & (POLLERR | POLLNVAL) ? MUX_ERR : 0u) | (got & POLLHUP ? MUX_HUP : 0u);
}

/* What poll(2) says of it now. */
static inline unsigned ask_poll(int fd, unsigned events) {
        struct pollfd p = { .fd = fd, .events = to_poll(events) };

        return poll(&p, 1, 0) > 0 ? from_poll(p.revents) : 0;
}

/* 0, or the error with which epoll_ctl(2) would refuse it: a file that is always ready, says poll(2), to be written, too.
 * /proc/self/mountinfo isn't. */
static inline int check_descriptor(int fd) {
        struct pollfd probe = { .fd = fd, .events = POLLOUT };
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        if (poll(&probe, 1, 0) > 0 && (probe.revents & POLLNVAL))
                return -EBADF;
        return (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) && probe.revents & POLLOUT ? -EPERM : 0;
}
