/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "harness.h"
#include "kev.h"

/* kev_open(3), as whoever the test's clients are. */
static inline int open_kev(const char *address, struct kev **ret_kev) {
        int r;

        client_begin();
        r = kev_open(address, ret_kev);
        client_end();
        return r;
}
