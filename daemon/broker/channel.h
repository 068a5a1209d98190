/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Messages between two processes of this program, each with a descriptor beside it
 * if need be, over a sequenced-packet socket. Sending never waits: what the socket
 * doesn't take is kept until it does.
 */

#include <sys/uio.h>

#include "list.h"
#include "mux.h"

enum { CHANNEL_BYTES_MAX = 192 * 1024 }; /* of a message; the kernel's default for a socket's buffer takes it */

struct channel;
/* `data` lives until the return; `fd`, or -1, is the callee's. May close the channel. */
typedef void channel_message_fn(struct channel *channel, const void *data, size_t size, int fd);
typedef void channel_close_fn(struct channel *channel, int fd);
/* The other end is closed. The channel has to be closed. */
typedef void channel_end_fn(struct channel *channel);

struct channel {
        struct mux *mux;
        struct mux_io io; /* fd -1: closed */
        struct list unsent;
        size_t unsent_bytes, n_unsent_fds;
        char *space;
        channel_message_fn *on_message;
        channel_end_fn *on_end;
        channel_close_fn *close_fd; /* of descriptors that were sent; NULL: close(2) */
};

/* Takes the socket over, if it returns 0. */
int channel_open(struct channel *channel, struct mux *mux, int fd, channel_message_fn *on_message,
                 channel_end_fn *on_end);
/* A closed one is passed over. */
void channel_close(struct channel *channel);

/* `fd`: -1, or borrowed. An error: it was not sent; -EMSGSIZE: it never can be. A closed end shows at the next read. */
int channel_send(struct channel *channel, const struct iovec *parts, size_t n_parts, int fd);
/* Waits for messages, and handles them, or for the socket to take what is unsent. */
void channel_wait(struct channel *channel);
