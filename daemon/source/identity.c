/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "identity.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define RESTARTS_NSEC (60 * NSEC_PER_SEC)

int identity_copy(struct identity *identity, const struct asker *asker) {
        size_t bytes = asker->n_groups * sizeof(*asker->groups);

        *identity = (struct identity){ .uid = asker->uid, .gid = asker->gid };
        if (asker->n_groups > HELPER_GROUPS_MAX)
                return -EDQUOT;
        if (asker->n_groups == 0)
                return 0;
        identity->groups = malloc(bytes);
        if (!identity->groups)
                return -ENOMEM;
        memcpy(identity->groups, asker->groups, bytes);
        identity->n_groups = asker->n_groups;
        return 0;
}

void identity_free(struct identity *identity) {
        free(take_pointer(&identity->groups));
        identity->n_groups = 0;
}

bool identity_is_of(const struct identity *identity, const struct asker *asker) {
        return identity->uid == asker->uid && identity->gid == asker->gid && identity->n_groups == asker->n_groups &&
               (identity->n_groups == 0 ||
                memcmp(identity->groups, asker->groups, identity->n_groups * sizeof(*identity->groups)) == 0);
}

int identity_start(const struct identity *identity, struct broker *broker, struct helper *helper, uint32_t kind,
                   helper_fn *fn) {
        static struct helper_request request; /* of the loop, which is one thread */

        request = (struct helper_request){
                .kind = kind, .uid = identity->uid, .gid = identity->gid, .n_groups = (uint32_t)identity->n_groups,
        };
        for (size_t i = 0; i < identity->n_groups; i++)
                request.groups[i] = identity->groups[i];
        return helper_start(broker, helper, &request, fn);
}

bool identity_may_restart(struct identity *identity, unsigned max) {
        uint64_t now = monotonic_nsec();

        if (identity->n_restarts == 0 || identity->restarts_nsec + RESTARTS_NSEC <= now) {
                identity->restarts_nsec = now;
                identity->n_restarts = 0;
        }
        return identity->n_restarts++ < max;
}

uint64_t identity_restarts_end(const struct identity *identity) {
        return identity->restarts_nsec + RESTARTS_NSEC;
}
