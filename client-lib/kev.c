/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A connection's beginning and end, what can be asked about it in between, and
 * what every public call begins and ends with.
 */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include "config.h"
#include "internal.h"

enum { RECONNECT_MSEC = 10000 };

/* The descriptor that stands for the socket and for the inbox. */
static int make_epoll(struct kev *kev) {
        struct epoll_event event = { .events = EPOLLIN };

        kev->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        kev->epoll = epoll_create1(EPOLL_CLOEXEC);
        if (kev->wake < 0 || kev->epoll < 0 || epoll_ctl(kev->epoll, EPOLL_CTL_ADD, kev->wake, &event) < 0 ||
            epoll_ctl(kev->epoll, EPOLL_CTL_ADD, kev->fd, &event) < 0)
                return error_set(NULL, -errno, "Can't make the descriptors of a connection: %s", error_text(errno));
        return 0;
}

_public_ int kev_open(const char *address, struct kev **ret_kev) {
        struct kev *kev = calloc(1, sizeof(*kev));
        int r;

        if (!kev)
                return error_set(NULL, -ENOMEM, "There is no memory for a connection");
        kev->fd = kev->wake = kev->epoll = kev->own_signals.fd = -1;
        kev->highest_id = -1;
        kev->reconnecting = (struct reconnecting){ .timeout_msec = RECONNECT_MSEC, .timer = -1 };
        r = address_open(address, &kev->fd, &kev->address);
        if (r == 0)
                r = make_epoll(kev);
        if (r < 0) {
                kev_close(kev);
                return r;
        }
        *ret_kev = kev;
        return 0;
}

_public_ struct kev *kev_close(struct kev *kev) {
        if (!kev)
                return NULL;
        kev->reconnecting.timeout_msec = 0;
        kev->epoll = safe_close(kev->epoll);
        (void)safe_close(kev->wake);
        (void)safe_close(kev->fd);
        own_signals_close(&kev->own_signals);
        event_unref(kev->handed_out);
        inbox_free(&kev->inbox);
        known_free(&kev->known);
        reconnect_close(kev);
        buffer_free(&kev->calls);
        buffer_free(&kev->out);
        buffer_free(&kev->in);
        free(kev->address);
        free(kev);
        return NULL;
}

_public_ const char *kev_address(const struct kev *kev) {
        return kev->address;
}

_public_ int kev_get_fd(const struct kev *kev) {
        return kev->epoll;
}

_public_ const char *kev_version(void) {
        return KEVD_VERSION;
}

/* ---- the frame of a public call ------------------------------------------------ */

int call_enter(struct kev *kev) {
        kev->handed_out = event_unref(kev->handed_out);
        return kev->error;
}

/* Keeps what kev_get_fd() gives readable as long as kev_dispatch(0) has something
 * to find that isn't in the socket: events, the connection's end, or that nobody
 * has asked yet. */
static void wake_set(struct kev *kev) {
        bool wanted = kev->error || inbox_has_news(&kev->inbox) ||
                      (kev->has_levels && kev->waits == 0 && kev->fd >= 0);
        eventfd_t value;

        if (wanted == kev->woken)
                return;
        if (wanted)
                (void)eventfd_write(kev->wake, 1);
        else
                (void)eventfd_read(kev->wake, &value);
        kev->woken = wanted;
}

/* What could not be written yet has to wake the program's loop as well. */
static void writing_set(struct kev *kev) {
        bool wanted = kev->out.size > 0;
        struct epoll_event event = { .events = EPOLLIN | (wanted ? EPOLLOUT : 0u) };

        if (kev->fd < 0 || wanted == kev->writing)
                return;
        (void)epoll_ctl(kev->epoll, EPOLL_CTL_MOD, kev->fd, &event);
        kev->writing = wanted;
}

int call_leave(struct kev *kev, int r) {
        (void)connection_keep_waiting(kev); /* where it fails the connection is over: the next call tells */
        if (!kev->dispatching) {
                writing_set(kev);
                wake_set(kev);
        }
        return r;
}
