/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a kernel multiplexer has to offer to be one: the same six functions for
 * epoll(7), poll(2), select(2), kqueue(2) and /dev/poll. One file each,
 * compiled where its system header is there; the table is in mux.c.
 *
 * Level-triggered, but for one that says otherwise. A backend may know a descriptor by its number alone (select,
 * poll, /dev/poll), so a number is in it once. It knows no callbacks and no
 * timers.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mux_ready {
        void *token;
        unsigned events;
};

struct mux_backend {
        const char *name;
        bool tells_once; /* it knows MUX_ONCE, and needs no mux_rearm(): the others get neither */
        int (*open)(void **ret_state);
        void (*close)(void *state);
        /* -EEXIST: it is in already. -EMFILE: the backend has no room for that number. */
        int (*add)(void *state, int fd, unsigned events, void *token);
        int (*modify)(void *state, int fd, unsigned events, void *token);
        void (*remove)(void *state, int fd);
        /* Fills `ready`, returns how many; 0 after the time or a signal. The time
         * is rounded up. What didn't fit must come first next time. */
        int (*wait)(void *state, struct mux_ready *ready, size_t n_ready, int64_t timeout_nsec);
};

extern const struct mux_backend mux_backend_epoll;
extern const struct mux_backend mux_backend_poll;
extern const struct mux_backend mux_backend_select;
extern const struct mux_backend mux_backend_devpoll; /* where there is <sys/devpoll.h>: HAVE_DEVPOLL */
extern const struct mux_backend mux_backend_kqueue; /* the system's own, or libkqueue: HAVE_KQUEUE */
