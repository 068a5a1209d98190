/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who may be told. */

#include <errno.h>

#include "fanotify_watch.h"
#include "log.h"

/* The stand-in for all peers of the same user and groups. */
struct peer {
        struct list link;
        struct fanotify *s;
        struct helper helper;
        uid_t uid;
        bool trusted; /* sees everything */
        unsigned refs;
        bool ended;
};

static void on_stand_in(struct helper *helper, int error, int fd) {
        struct peer *peer = container_of(helper, struct peer, helper);

        (void)safe_close(fd);
        if (error == 0)
                return;
        log_info("fanotify: what looks at files for user %u has ended", peer->uid);
        peer->ended = true;
        list_remove(&peer->link); /* the next watch gets another */
}

struct peer *peer_get(struct fanotify *s, const struct asker *asker, int *ret_error) {
        static struct helper_request request;
        struct peer *peer;
        int r;

        list_for_each(entry, &s->peers) {
                peer = list_entry(entry, struct peer, link);
                if (peer->uid == asker->uid) {
                        peer->refs++;
                        return peer;
                }
        }
        if (asker->uid != 0 && asker->uid != s->source.context->uid) {
                *ret_error = -EOPNOTSUPP;
                return NULL;
        }
        peer = calloc(1, sizeof(*peer));
        if (!peer) {
                *ret_error = -ENOMEM;
                return NULL;
        }
        peer->s = s;
        peer->uid = asker->uid;
        peer->trusted = true;
        peer->refs = 1;
        request = (struct helper_request){ .kind = HELPER_STAND_IN, .uid = asker->uid };
        r = helper_start(s->broker, &peer->helper, &request, on_stand_in);
        if (r < 0) {
                free(peer);
                *ret_error = r;
                return NULL;
        }
        list_append(&s->peers, &peer->link);
        return peer;
}

void peer_put(struct fanotify *s, struct peer *peer) {
        peer->refs--;
        mux_defer(s->mux, &s->tidy);
}

struct helper *peer_helper(struct peer *peer) {
        return &peer->helper;
}

static void free_peer(struct peer *peer) {
        helper_close(&peer->helper);
        list_remove(&peer->link);
        free(peer);
}

void peers_tidy(struct fanotify *s) {
        list_for_each(entry, &s->peers) {
                struct peer *peer = list_entry(entry, struct peer, link);

                if (peer->refs == 0)
                        free_peer(peer);
        }
}

void peers_free(struct fanotify *s) {
        while (!list_empty(&s->peers))
                free_peer(list_entry(s->peers.next, struct peer, link));
}

void verdicts_forget(struct place *place _unused_) {
}

void held_forget(struct fan_watch *watch _unused_) {
}

bool access_may_tell_unknown(const struct view *v _unused_, struct file_watch *watch) {
        return fan_watch_of(watch)->peer->trusted;
}

bool access_may_tell(struct tree *tree, struct file_watch *watch, const struct report *report _unused_) {
        const struct view *v = container_of(tree, const struct view, tree);

        if (v->telling)
                return job_is_for(v->telling, watch);
        return !listing_hides(v, tree->where, watch);
}
