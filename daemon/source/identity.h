/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * For whom a helper looks at files: all peers that have this user and these groups. credentials(7)
 */

#include "client.h"
#include "source.h"

struct identity {
        uid_t uid;
        gid_t gid;
        size_t n_groups; /* supplementary */
        gid_t *groups;
        unsigned n_restarts;
        uint64_t restarts_nsec; /* since when they are counted */
};

/* That of the asker. -EDQUOT: it has more groups than a helper can be given. -ENOMEM. */
int identity_copy(struct identity *identity, const struct asker *asker);
void identity_free(struct identity *identity);
bool identity_is_of(const struct identity *identity, const struct asker *asker);
/* As helper_start(). */
int identity_start(const struct identity *identity, struct broker *broker, struct helper *helper, uint32_t kind,
                   helper_fn *fn);
/* Whether a helper that has ended may be followed by another: so many may within a minute. */
bool identity_may_restart(struct identity *identity, unsigned max);
/* When that minute is over: CLOCK_MONOTONIC. */
uint64_t identity_restarts_end(const struct identity *identity);
