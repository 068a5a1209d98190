/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Messages on sequenced-packet sockets, each with a descriptor beside it or none: unix(7). */

#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

/* Whether what sendmsg(2) or recvmsg(2) returned is an error that goes by: it is not ready, or there is no memory. */
bool packet_is_for_later(ssize_t n);

/* Whether it is to be done again: without MSG_DONTWAIT, after such an error. Waits a little before. */
bool packet_again(ssize_t n, int flags);

/* As sendmsg(2) and recvmsg(2), but without MSG_DONTWAIT errors that go by are waited for, too. */

/* `fd`: borrowed, or -1. `flags`: MSG_NOSIGNAL is always set. */
ssize_t packet_send(int socket, const struct iovec *parts, size_t n_parts, int fd, int flags);
/* `ret_fd`: the caller's from here on, or -1. */
ssize_t packet_receive(int socket, void *data, size_t size, int *ret_fd, int flags);
