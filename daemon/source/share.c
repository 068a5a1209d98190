/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "share.h"

#include <errno.h>
#include <stdlib.h>

#include "macro.h"

struct share {
        struct hash_node node;
        const void *thing;
        uid_t uid;
        size_t n;
};

static uint64_t hash_of(const void *thing, uid_t uid) {
        return hash_bytes(&thing, sizeof(thing), uid);
}

static struct share *find(const struct hash *shares, const void *thing, uid_t uid) {
        for (struct hash_node *n = hash_first(shares, hash_of(thing, uid)); n; n = hash_next(n)) {
                struct share *share = container_of(n, struct share, node);

                if (share->thing == thing && share->uid == uid)
                        return share;
        }
        return NULL;
}

size_t share_count(const struct hash *shares, const void *thing, uid_t uid) {
        const struct share *share = find(shares, thing, uid);

        return share ? share->n : 0;
}

int share_take(struct hash *shares, const void *thing, uid_t uid) {
        struct share *share = find(shares, thing, uid);

        if (!share) {
                share = calloc(1, sizeof(*share));
                if (!share || hash_add(shares, &share->node, hash_of(thing, uid)) < 0) {
                        free(share);
                        return -ENOMEM;
                }
                share->thing = thing;
                share->uid = uid;
        }
        share->n++;
        return 0;
}

void share_return(struct hash *shares, const void *thing, uid_t uid) {
        struct share *share = find(shares, thing, uid);

        if (!share || --share->n > 0)
                return;
        hash_remove(shares, &share->node);
        free(share);
}
