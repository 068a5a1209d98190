/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The few helpers that every part uses. Nothing here allocates or logs.
 */

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

/* The object that holds `member` at `pointer`. */
#define container_of(pointer, type, member) ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(text, first) __attribute__((__format__(__printf__, text, first)))
#define _unused_ __attribute__((unused))
#define _public_ __attribute__((visibility("default")))

#define NSEC_PER_SEC UINT64_C(1000000000)
#define NSEC_PER_MSEC UINT64_C(1000000)
#define NSEC_PER_USEC UINT64_C(1000)
#define USEC_PER_SEC UINT64_C(1000000)

/* Whether a negative errno value is about what has run out, or was in the way, just now, and says nothing for later. */
static inline bool is_shortage(int r) {
        return r == -ENOMEM || r == -ENOBUFS || r == -EMFILE || r == -ENFILE || r == -EAGAIN || r == -EINTR;
}

static inline void freep(void *p) {
        free(*(void **)p);
}

static inline void closep(int *fd) {
        if (*fd >= 0)
                (void)close(*fd);
}

/* Closes what is open, and returns -1 to be stored in its place. */
static inline int safe_close(int fd) {
        if (fd >= 0)
                (void)close(fd);
        return -1;
}

static inline int take_fd(int *fd) {
        int r = *fd;

        *fd = -1;
        return r;
}

static inline void *take_pointer(void *p) {
        void **pp = p, *r = *pp;

        *pp = NULL;
        return r;
}
