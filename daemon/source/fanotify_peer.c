/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The stand-ins of the peers, each a process with the user and the groups of some and nothing else, and what they were
 * not told. Whoever is root, or the daemon's own user, sees everything.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "channel.h"
#include "fanotify_verdict.h"
#include "log.h"
#include "state.h"

enum {
        PEERS_MAX = 1024,
        PEERS_OF_USER_MAX = 16,
        RESTARTS_MAX = 16, /* within a minute */
        HIDDEN_MAX = 4096, /* directories */
        LEAVING_OF_USER_MAX = 8, /* with which none is started any more */
        LEAVING_MAX = 1024,
};

#define RETRY_NSEC NSEC_PER_SEC /* after one that could not be started, or begin */
#define PATIENCE_NSEC (2 * NSEC_PER_SEC)

/* ---- what it was not told ---------------------------------------------------------------------------- */

/* A directory of which it was not told all, and on which no verdict may be left that knows it. */
struct hidden {
        struct hash_node node;
        uint64_t mount; /* what its watches there were not told */
        int32_t type;
        uint32_t size;
        unsigned char bytes[];
};

static struct hidden *find_hidden(const struct peer *peer, uint64_t mount, struct handle_ref handle) {
        if (peer->hidden.n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&peer->hidden, handle_hash(handle)); n; n = hash_next(n)) {
                struct hidden *h = container_of(n, struct hidden, node);

                if (h->mount == mount &&
                    handle_ref_equal((struct handle_ref){ .type = h->type, .size = h->size, .bytes = h->bytes }, handle))
                        return h;
        }
        return NULL;
}

static void forget_hidden(struct peer *peer) {
        hash_for_each(node, &peer->hidden)
                free(container_of(node, struct hidden, node));
        hash_free(&peer->hidden);
}

static void hide_any(struct peer *peer) {
        peer->hidden_any = true;
        forget_hidden(peer);
}

void peer_hide(struct peer *peer, uint64_t mount, struct handle_ref handle) {
        struct hidden *h;

        if (peer->hidden_any || find_hidden(peer, mount, handle))
                return;
        h = peer->hidden.n_nodes < HIDDEN_MAX ? malloc(sizeof(*h) + handle.size) : NULL;
        if (!h) {
                hide_any(peer);
                return;
        }
        h->mount = mount;
        h->type = handle.type;
        h->size = handle.size;
        memcpy(h->bytes, handle.bytes, handle.size);
        if (hash_add(&peer->hidden, &h->node, handle_hash(handle)) < 0) {
                free(h);
                hide_any(peer);
        }
}

bool peer_take_hidden(struct peer *peer, uint64_t mount, struct handle_ref handle) {
        struct hidden *h = find_hidden(peer, mount, handle);

        if (!h)
                return false;
        hash_remove(&peer->hidden, &h->node);
        free(h);
        return true;
}

void peers_forget_directory(struct fanotify *s, uint64_t mount, struct handle_ref handle) {
        list_for_each(entry, &s->peers)
                (void)peer_take_hidden(list_entry(entry, struct peer, link), mount, handle);
}

/* ---- those that don't answer -------------------------------------------------------------------------- */

/* A stand-in of which nothing is expected any more. One that a file system keeps waiting can't be ended (FUSE: once the
 * server has the request, not even by SIGKILL), and a user could make any number of such: so it counts as the user's
 * until its end of the socket is closed. */
struct leaving {
        struct list link;
        struct fanotify *s;
        struct channel channel;
        uid_t uid;
        bool hung; /* for so long that it was given up */
};

static void free_leaving(struct leaving *l) {
        list_remove(&l->link);
        channel_close(&l->channel);
        free(l);
}

static void on_late_answer(struct channel *channel _unused_, const void *data _unused_, size_t size _unused_, int fd) {
        (void)safe_close(fd);
}

static void on_left(struct channel *channel) {
        struct leaving *l = container_of(channel, struct leaving, channel);
        struct fanotify *s = l->s;
        uid_t uid = l->uid;
        bool hung = l->hung;

        free_leaving(l);
        if (hung)
                fanotify_look_again(s, uid, true);
        mux_defer(s->mux, &s->tidy);
}

/* `fd`: of its stand-in. */
static void let_leave(struct peer *peer, int fd, bool hung) {
        struct leaving *l = take_pointer(&peer->leaving);

        *l = (struct leaving){ .s = peer->s, .uid = peer->identity.uid, .hung = hung };
        list_init(&l->link);
        if (shutdown(fd, SHUT_WR) < 0 || channel_open(&l->channel, l->s->mux, fd, on_late_answer, on_left) < 0) {
                (void)close(fd);
                free(l);
                return;
        }
        list_append(&l->s->leaving, &l->link);
}

static bool may_have_more(const struct fanotify *s, uid_t uid) {
        size_t n = 0, n_of_user = 0;

        list_for_each(entry, &s->leaving) {
                n++;
                n_of_user += list_entry(entry, const struct leaving, link)->uid == uid;
        }
        return n < LEAVING_MAX && n_of_user < LEAVING_OF_USER_MAX;
}

/* ---- stand-ins ---------------------------------------------------------------------------------------- */

static void on_stand_in(struct helper *helper, int error, int fd) {
        struct peer *peer = container_of(helper, struct peer, helper);

        (void)safe_close(fd);
        if (error == 0) {
                peer->has_begun = true;
                peer_is_asked(peer); /* before it was there, perhaps */
                if (peer->identity.n_restarts > 0) /* it has followed another one */
                        fanotify_look_again(peer->s, peer->identity.uid, false);
                return;
        }
        log_info("fanotify: what looks at files for user %u %s", peer->identity.uid,
                 error == ETIMEDOUT ? "waits for a file system that does not answer" : "has ended");
        peer->lost = true;
        if (!peer->has_begun)
                peer->restart_nsec = monotonic_nsec() + RETRY_NSEC;
        mux_defer(peer->s->mux, &peer->s->tidy);
}

static int start(struct peer *peer) {
        int r;

        if (!peer->leaving)
                peer->leaving = malloc(sizeof(*peer->leaving));
        if (!peer->leaving)
                return -ENOMEM;
        r = identity_start(&peer->identity, peer->s->broker, &peer->helper, HELPER_STAND_IN, on_stand_in);
        peer->is_started = r >= 0;
        peer->has_begun = false;
        return r;
}

bool peer_is_there(const struct peer *peer) {
        return peer->helper.state != HELPER_ENDED && peer->helper.state != HELPER_CLOSED;
}

static void on_peer_timer(struct mux_timer *timer) {
        struct fanotify *s = container_of(timer, struct fanotify, peer_timer);

        mux_defer(s->mux, &s->tidy);
}

static void look_at(struct fanotify *s, uint64_t nsec) {
        if (s->peer_timer.heap_index == 0 || s->peer_timer.deadline_nsec > nsec)
                (void)mux_timer_set(s->mux, &s->peer_timer, nsec, on_peer_timer);
}

static void restart_at(struct peer *peer, uint64_t nsec) {
        peer->restart_nsec = nsec;
        look_at(peer->s, nsec);
}

/* Its user may have ended it, and pays for that: what it would have judged is told as a rescan, at most, and what asks
 * where a directory is waits for the next one. */
static void restart(struct peer *peer) {
        uint64_t now = monotonic_nsec();

        if (!may_have_more(peer->s, peer->identity.uid)) /* again as one has left */
                return;
        if (now < peer->restart_nsec) {
                restart_at(peer, peer->restart_nsec);
                return;
        }
        if (!identity_may_restart(&peer->identity, RESTARTS_MAX)) {
                restart_at(peer, identity_restarts_end(&peer->identity));
                return;
        }
        helper_close(&peer->helper);
        if (start(peer) < 0)
                restart_at(peer, now + RETRY_NSEC);
        else
                peer->lost = false;
}

/* What its stand-in is at may never be over: nothing else that it was asked for waits for that. */
static void expect_answer(struct peer *peer) {
        uint64_t since = helper_waits_since(&peer->helper), now = monotonic_nsec();

        if (since != 0 && since + PATIENCE_NSEC <= now) { /* or it was the daemon that had no time */
                helper_take_answers(&peer->helper);
                since = helper_waits_since(&peer->helper);
        }
        if (since == 0)
                return;
        if (since + PATIENCE_NSEC > now)
                look_at(peer->s, since + PATIENCE_NSEC);
        else
                let_leave(peer, helper_abandon(&peer->helper), true);
}

static void free_peer(struct peer *peer) {
        if (helper_waits_since(&peer->helper) != 0)
                let_leave(peer, helper_take_socket(&peer->helper), false);
        helper_close(&peer->helper);
        free(peer->leaving);
        forget_hidden(peer);
        mux_timer_clear(peer->s->mux, &peer->wait_timer);
        list_remove(&peer->looking);
        list_remove(&peer->link);
        identity_free(&peer->identity);
        free(peer);
}

/* One that is not started. NULL: *ret_error. */
static struct peer *new_peer(struct fanotify *s, const struct asker *asker, int *ret_error) {
        struct peer *peer;
        size_t n = 0, n_of_user = 0;

        list_for_each(entry, &s->peers) {
                n++;
                n_of_user += list_entry(entry, struct peer, link)->identity.uid == asker->uid;
        }
        if (n >= PEERS_MAX || n_of_user >= PEERS_OF_USER_MAX) {
                *ret_error = -EDQUOT;
                return NULL;
        }
        peer = calloc(1, sizeof(*peer));
        *ret_error = peer ? identity_copy(&peer->identity, asker) : -ENOMEM;
        if (*ret_error < 0) {
                free(peer);
                return NULL;
        }
        peer->s = s;
        peer->trusted = asker->uid == 0 || asker->uid == s->source.context->uid;
        list_init(&peer->verdicts);
        list_init(&peer->unasked);
        list_init(&peer->absent);
        list_init(&peer->waiting);
        list_init(&peer->to_look_at);
        list_init(&peer->looking);
        list_append(&s->peers, &peer->link);
        return peer;
}

static struct peer *find(const struct fanotify *s, const struct asker *asker) {
        list_for_each(entry, &s->peers) {
                struct peer *peer = list_entry(entry, struct peer, link);

                if (identity_is_of(&peer->identity, asker))
                        return peer;
        }
        return NULL;
}

struct peer *peer_get(struct fanotify *s, const struct asker *asker, int *ret_error) {
        struct peer *peer = find(s, asker);
        int r = -EAGAIN;

        if (!peer)
                peer = new_peer(s, asker, ret_error);
        if (!peer)
                return NULL;
        if (!peer_is_there(peer) && !may_have_more(s, asker->uid))
                r = -EDQUOT;
        else if (peer->lost)
                restart(peer);
        else if (!peer->is_started)
                r = start(peer);
        if (!peer_is_there(peer)) {
                mux_defer(s->mux, &s->tidy);
                *ret_error = r;
                return NULL;
        }
        peer->refs++;
        return peer;
}

/* The last watch of a peer takes its verdicts along. */
void peer_put(struct fanotify *s, struct peer *peer) {
        if (--peer->refs > 0)
                return;
        verdicts_forget_of(peer);
        mux_defer(s->mux, &s->tidy);
}

struct helper *peer_helper(struct peer *peer) {
        return &peer->helper;
}

void peer_is_asked(struct peer *peer) {
        look_at(peer->s, monotonic_nsec() + PATIENCE_NSEC);
}

void peer_check_later(struct peer *peer) {
        if (peer->check_nsec == 0)
                peer->check_nsec = monotonic_nsec() + RETRY_NSEC;
        look_at(peer->s, peer->check_nsec);
}

static void check_again(struct peer *peer) {
        if (peer->check_nsec == 0)
                return;
        if (monotonic_nsec() < peer->check_nsec) {
                look_at(peer->s, peer->check_nsec);
                return;
        }
        peer->check_nsec = 0;
        fanotify_look_again(peer->s, peer->identity.uid, false);
}

void peers_tidy(struct fanotify *s) {
        list_for_each(entry, &s->peers) {
                struct peer *peer = list_entry(entry, struct peer, link);

                if (peer->refs == 0) {
                        free_peer(peer);
                        continue;
                }
                expect_answer(peer);
                if (peer->lost)
                        restart(peer);
                check_again(peer);
        }
}

void peers_free(struct fanotify *s) {
        while (!list_empty(&s->peers))
                free_peer(list_entry(s->peers.next, struct peer, link));
        while (!list_empty(&s->leaving))
                free_leaving(list_entry(s->leaving.next, struct leaving, link));
        mux_timer_clear(s->mux, &s->peer_timer);
}

/* ---- for the next daemon ------------------------------------------------------------------------------ */

static void save_peer(const struct peer *peer, struct state_writer *w) {
        const struct identity *identity = &peer->identity;

        state_put_u64(w, identity->uid);
        state_put_u64(w, identity->gid);
        state_put_u64(w, identity->n_groups);
        for (size_t i = 0; i < identity->n_groups; i++)
                state_put_u64(w, identity->groups[i]);
        state_put_bool(w, peer->hidden_any);
        state_put_u64(w, peer->hidden.n_nodes);
        hash_for_each(node, &peer->hidden) {
                const struct hidden *h = container_of(node, struct hidden, node);

                state_put_u64(w, h->mount);
                state_put_i64(w, h->type);
                state_put_bytes(w, h->bytes, h->size);
        }
}

void peers_save(struct fanotify *s, struct state_writer *w) {
        uint64_t n = 0;

        list_for_each(entry, &s->peers) {
                struct peer *peer = list_entry(entry, struct peer, link);

                verdicts_keep_of(peer);
                n += peer->hidden_any || peer->hidden.n_nodes > 0;
        }
        state_put_u64(w, n);
        list_for_each(entry, &s->peers) {
                const struct peer *peer = list_entry(entry, const struct peer, link);

                if (peer->hidden_any || peer->hidden.n_nodes > 0)
                        save_peer(peer, w);
        }
}

static void load_peer(struct fanotify *s, struct state_reader *r) {
        struct asker asker = { 0 };
        gid_t groups[HELPER_GROUPS_MAX];
        struct peer *peer;
        bool any;
        size_t n;
        int error;

        asker.uid = (uid_t)state_get_u64(r);
        asker.gid = (gid_t)state_get_u64(r);
        asker.n_groups = state_get_count(r, sizeof(uint64_t));
        asker.groups = groups;
        for (size_t i = 0; i < asker.n_groups; i++) {
                gid_t group = (gid_t)state_get_u64(r);

                if (i < HELPER_GROUPS_MAX)
                        groups[i] = group;
        }
        any = state_get_bool(r);
        n = state_get_count(r, 3 * sizeof(uint64_t));
        peer = r->failed || asker.n_groups > HELPER_GROUPS_MAX || find(s, &asker) ? NULL : new_peer(s, &asker, &error);
        if (peer && any)
                hide_any(peer);
        for (size_t i = 0; i < n && !r->failed; i++) {
                uint64_t mount = state_get_u64(r);
                int32_t type = (int32_t)state_get_i64(r);
                size_t size;
                const void *bytes = state_get_bytes(r, &size);

                if (peer && bytes && size > 0 && size <= HANDLE_BYTES_MAX)
                        peer_hide(peer, mount, (struct handle_ref){ .type = type, .size = (uint32_t)size, .bytes = bytes });
        }
}

/* Those for whom no watch is made again go with the next tidying. */
void peers_load(struct fanotify *s, struct state_reader *r) {
        size_t n = state_get_count(r, 5 * sizeof(uint64_t));

        for (size_t i = 0; i < n && !r->failed; i++)
                load_peer(s, r);
        mux_defer(s->mux, &s->tidy);
}
