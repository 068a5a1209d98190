/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A double of kqueue(2), for daemon/mux/kqueue.c on Linux, which has none: of the header what that uses, and instead of
 * the kernel kqueue-double.c, which does with epoll(7) and poll(2) what FreeBSD's manual page says. Whatever a real
 * kernel does otherwise is not seen here.
 *
 * EVFILT_EXCEPT is OpenBSD's. With -DKQUEUE_DOUBLE_PLAIN the header is without, as FreeBSD's is.
 */

#include <stddef.h>
#include <stdint.h>
#include <time.h>

struct kevent {
        uintptr_t ident;
        short filter;
        unsigned short flags;
        unsigned fflags;
        int64_t data;
        void *udata;
};

#define EVFILT_READ (-1)
#define EVFILT_WRITE (-2)
#ifndef KQUEUE_DOUBLE_PLAIN
#define EVFILT_EXCEPT (-9)
#define NOTE_OOB 0x4
#endif

#define EV_ADD 0x1
#define EV_DELETE 0x2
#define EV_CLEAR 0x20
#define EV_RECEIPT 0x40
#define EV_ERROR 0x4000
#define EV_EOF 0x8000

#define EV_SET(event, ident_, filter_, flags_, fflags_, data_, udata_) \
        (*(event) = (struct kevent){ (ident_), (filter_), (flags_), (fflags_), (data_), (udata_) })

int kqueue(void);
int kevent(int queue, const struct kevent *changes, int n_changes, struct kevent *events, int n_events,
           const struct timespec *timeout);

/* Not of kqueue(2), for the tests. The next `n` that are added of the filter are refused with that error. */
void kqueue_double_refuse(short filter, int error, unsigned n);
/* How many a descriptor has, in all queues. */
unsigned kqueue_double_count(int fd);
