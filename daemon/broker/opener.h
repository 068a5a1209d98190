/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a feed reads is opened by a helper of its own, which has the rights that it takes (CAP_BPF and CAP_PERFMON, or
 * CAP_NET_ADMIN), hands the descriptors over, and keeps its own of what it does not hand over. It ends when the daemon
 * closes its socket, or ends itself.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { OPENING_FDS_MAX = 10 };

/* What a helper has opened: its first messages, as many as there are descriptors, each with one beside it. */
struct opening {
        int32_t error; /* a negative errno; then there is one message, without a descriptor */
        uint32_t n_fds;
        uint32_t lacks_ids; /* it won't tell when user ids change */
        uint64_t n_forks;   /* connector: as many as the kernel has counted, about all of which it tells no more */
        char why[120];      /* a sentence beside the error, or empty */
};

struct opened {
        int socket; /* the helper's */
        int fds[OPENING_FDS_MAX];
        bool lacks_ids;
        uint64_t n_forks; /* of struct opening */
};

#define OPENED_NONE ((struct opened){ .socket = -1, .fds = { -1, -1, -1, -1, -1, -1, -1, -1, -1, -1 } })

/* ---- the daemon's side -------------------------------------------------------------------------------------------- */

/* The helper ends and leaves things as they are, for the next daemon. */
void opened_leave(struct opened *opened);
void opened_close(struct opened *opened);
/* The same; NULL is passed over. */
void opened_drop(const struct opened *opened);

/* ---- the helper's ------------------------------------------------------------------------------------------------- */

/* Opens it. What `opening` tells is zero before. A negative errno, perhaps with why. */
typedef int open_fn(size_t buffer_bytes, bool is_only, int ret_fds[OPENING_FDS_MAX], struct opening *opening);

struct opener {
        open_fn *open;
        void (*close)(int fd); /* the first of the descriptors, at the end; or NULL */
};
