/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Descriptors that are ready when a test says so. */

#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "harness.h"

static inline int make_eventfd(bool ready) {
        int fd = eventfd(ready, EFD_CLOEXEC | EFD_NONBLOCK);

        assert_system(fd >= 0, "eventfd");
        return fd;
}

static inline void make_ready(int fd) {
        uint64_t one = 1;

        assert_system(write(fd, &one, sizeof(one)) == sizeof(one), "write");
}

static inline void make_unready(int fd) {
        uint64_t value;

        assert_system(read(fd, &value, sizeof(value)) == sizeof(value), "read");
}
