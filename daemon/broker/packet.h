/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Messages on sequenced-packet sockets, each with a descriptor beside it or none: unix(7). */

#include <sys/types.h>
#include <sys/uio.h>

/* As sendmsg(2). `fd`: borrowed, or -1. `flags`: MSG_NOSIGNAL is always set. */
ssize_t packet_send(int socket, const struct iovec *parts, size_t n_parts, int fd, int flags);
/* As recvmsg(2). `ret_fd`: the caller's from here on, or -1. */
ssize_t packet_receive(int socket, void *data, size_t size, int *ret_fd, int flags);
