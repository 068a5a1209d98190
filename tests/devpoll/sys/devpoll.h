/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A double of /dev/poll, for daemon/mux/devpoll.c on Linux, which has none: the header of Solaris and illumos, as
 * poll(4D) describes it, and instead of the device devpoll-double.c, which does with poll(2) what the manual page
 * says. Whatever the real device does otherwise is not seen here.
 */

#include <poll.h>
#include <sys/types.h>

struct dvpoll {
        struct pollfd *dp_fds;
        nfds_t dp_nfds;
        int dp_timeout; /* ms */
};

#define DP_POLL 0xd001

#ifndef POLLREMOVE
#define POLLREMOVE 0x1000
#endif

int double_open(const char *path, int flags);
int double_close(int fd);
ssize_t double_write(int fd, const void *data, size_t size);
int double_ioctl(int fd, unsigned long request, struct dvpoll *question);

#define open(path, flags) double_open(path, flags)
#define close(fd) double_close(fd)
#define write(fd, data, size) double_write(fd, data, size)
#define ioctl(fd, request, question) double_ioctl(fd, request, question)
