/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches whose directory is not there, and that wait for it: gone, not made yet, or on a file system whose
 * queue has failed.
 *
 * Their path is resolved again when one of its names has come to be, wherever that was, and now and then: what is
 * not on a file system with a group makes no events. With the event it is only noted that the name has come to be, as a
 * user may have very many that wait for it, and make it come again and again: who waits for it is found in slices. Each
 * peer's are seen to on their own, so that nobody is late by those of others.
 */

#include <string.h>

#include "fanotify_verdict.h"

enum {
        POLL_MIN_MSEC = 50,
        POLL_MAX_MSEC = 2000,
        WAITING_A_TIME = 64,
        LOOKS_A_TURN = 256, /* at watches, as names have come to be, */
        LOOKS_OF_PEER = 64, /* of these */
        SLICE_NSEC = 50 * 1000,
};

static void on_wait_timer(struct mux_timer *timer);

static void set_wait_timer(struct peer *peer, uint64_t msec) {
        uint64_t deadline = monotonic_nsec() + msec * NSEC_PER_MSEC;

        if (peer->wait_timer.heap_index == 0 || peer->wait_timer.deadline_nsec > deadline)
                (void)mux_timer_set(peer->s->mux, &peer->wait_timer, deadline, on_wait_timer);
}

/* The next of this round, if it is not over. */
static struct fan_watch *next_of_round(const struct peer *peer) {
        struct fan_watch *w;

        if (list_empty(&peer->absent))
                return NULL;
        w = fan_watch_of(list_entry(peer->absent.next, struct file_watch, link));
        return w->wait_round != peer->wait_round ? w : NULL;
}

/* Some of them, in turn, and after all of them a longer pause. */
static void on_wait_timer(struct mux_timer *timer) {
        struct peer *peer = container_of(timer, struct peer, wait_timer);
        struct fan_watch *w;

        for (size_t n = 0; n < WAITING_A_TIME && (w = next_of_round(peer)); n++) {
                w->wait_round = peer->wait_round;
                list_remove(&w->watch.link);
                list_append(&peer->absent, &w->watch.link);
                if (!w->hangs) /* else it is looked for once what it hangs at has answered, or mounts have changed */
                        fan_watch_ask(w);
        }
        if (list_empty(&peer->absent))
                return;
        if (next_of_round(peer)) {
                set_wait_timer(peer, POLL_MIN_MSEC);
                return;
        }
        peer->wait_round++;
        peer->wait_msec = MIN(peer->wait_msec * 2, POLL_MAX_MSEC);
        set_wait_timer(peer, peer->wait_msec);
}

/* The names on the paths of a peer's watches that wait, so that what happens elsewhere costs a look-up. */
struct awaited {
        struct hash_node node;
        struct peer *peer;
        uint64_t appeared; /* a serial: when it has come to be last */
        size_t n;
        size_t size;
        char name[];
};

static bool is_name(const struct awaited *a, const char *name, size_t size) {
        return a->size == size && memcmp(a->name, name, size) == 0;
}

static struct awaited *find_awaited(const struct peer *peer, const char *name, size_t size) {
        const struct hash *awaited = &peer->s->awaited;

        if (awaited->n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(awaited, hash_bytes(name, size, 0)); n; n = hash_next(n)) {
                struct awaited *a = container_of(n, struct awaited, node);

                if (a->peer == peer && is_name(a, name, size))
                        return a;
        }
        return NULL;
}

/* Without memory it is found by the timer. */
static void await_name(struct peer *peer, const char *name, size_t size) {
        struct awaited *a = find_awaited(peer, name, size);

        if (!a) {
                a = calloc(1, sizeof(*a) + size);
                if (!a)
                        return;
                a->peer = peer;
                a->size = size;
                memcpy(a->name, name, size);
                if (hash_add(&peer->s->awaited, &a->node, hash_bytes(name, size, 0)) < 0) {
                        free(a);
                        return;
                }
        }
        a->n++;
}

static void forget_name(struct peer *peer, const char *name, size_t size) {
        struct awaited *a = find_awaited(peer, name, size);

        if (!a || --a->n > 0)
                return;
        hash_remove(&peer->s->awaited, &a->node);
        free(a);
}

/* The next name of a path; NULL: there is none. */
static const char *next_name(const char *path, size_t *ret_size) {
        path += strspn(path, "/");
        *ret_size = strcspn(path, "/");
        return *ret_size > 0 ? path : NULL;
}

static void for_names(struct fan_watch *w, void (*fn)(struct peer *peer, const char *name, size_t size)) {
        const char *p = w->watch.path;
        size_t size = 0;

        while (p && (p = next_name(p + size, &size)))
                fn(w->peer, p, size);
}

void fan_wait_look_soon(struct peer *peer) {
        if (list_empty(&peer->absent))
                return;
        peer->wait_msec = POLL_MIN_MSEC;
        peer->wait_round++;
        set_wait_timer(peer, POLL_MIN_MSEC);
}

void fan_wait_look_at_hung(struct peer *peer) {
        list_for_each(entry, &peer->absent)
                fan_watch_of(list_entry(entry, struct file_watch, link))->hangs = false;
        fan_wait_look_soon(peer);
}

void fan_wait_begin(struct fan_watch *w) {
        if (w->watch.state != WATCH_WAITING)
                for_names(w, await_name);
        w->watch.state = WATCH_WAITING;
        list_remove(&w->watch.link);
        list_append(&w->peer->absent, &w->watch.link);
        list_remove(&w->waiting);
        list_append(&w->peer->waiting, &w->waiting);
        w->looked_at = w->s->serial;
        fan_wait_look_soon(w->peer);
}

void fan_wait_end(struct fan_watch *w) {
        if (w->watch.state == WATCH_WAITING)
                for_names(w, forget_name);
        list_remove(&w->watch.link);
        list_remove(&w->waiting);
}

/* ---- names that come to be ---------------------------------------------------------------------------- */

static void begin_looking(struct peer *peer, uint64_t since) {
        struct fanotify *s = peer->s;

        if (!list_empty(&peer->looking)) {
                peer->again_since = MIN(peer->again_since, since);
                return;
        }
        peer->since = since;
        peer->again_since = UINT64_MAX;
        list_splice(&peer->to_look_at, &peer->waiting);
        list_append(&s->looking, &peer->looking);
        mux_defer(s->mux, &s->look);
}

void fanotify_on_appeared(struct fanotify *s, const char *name) {
        size_t size = strlen(name);

        if (s->awaited.n_nodes == 0)
                return;
        for (struct hash_node *n = hash_first(&s->awaited, hash_bytes(name, size, 0)); n; n = hash_next(n)) {
                struct awaited *a = container_of(n, struct awaited, node);

                if (!is_name(a, name, size))
                        continue;
                a->appeared = ++s->serial;
                begin_looking(a->peer, a->appeared);
        }
}

/* Since the watch was looked at, or began to wait. */
static bool has_any_appeared(const struct fan_watch *w) {
        const char *p = w->watch.path;
        size_t size = 0;

        while (p && (p = next_name(p + size, &size))) {
                const struct awaited *a = find_awaited(w->peer, p, size);

                if (a && a->appeared > w->looked_at)
                        return true;
        }
        return false;
}

static void look_at(struct fan_watch *w) {
        bool appeared = has_any_appeared(w);

        list_append(&w->peer->waiting, &w->waiting);
        w->looked_at = w->s->serial;
        if (appeared)
                fan_watch_ask(w);
}

static void look_at_some(struct peer *peer) {
        uint64_t end_nsec = monotonic_nsec() + SLICE_NSEC;
        struct list *entry;

        for (size_t n = 0; n < LOOKS_OF_PEER && (entry = list_pop(&peer->to_look_at)); n++) {
                look_at(list_entry(entry, struct fan_watch, waiting));
                if (monotonic_nsec() >= end_nsec) /* paths may have very many names */
                        break;
        }
}

static void on_look(struct mux_deferred *deferred) {
        struct fanotify *s = container_of(deferred, struct fanotify, look);

        for (size_t n = 0; n < LOOKS_A_TURN && !list_empty(&s->looking); n += LOOKS_OF_PEER) {
                struct peer *peer = list_entry(list_pop(&s->looking), struct peer, looking);

                look_at_some(peer);
                if (!list_empty(&peer->to_look_at))
                        list_append(&s->looking, &peer->looking);
                else if (peer->again_since != UINT64_MAX)
                        begin_looking(peer, peer->again_since);
        }
        if (!list_empty(&s->looking))
                mux_defer(s->mux, &s->look);
        barriers_check(&s->barriers);
}

bool fan_wait_has_looked(const struct fanotify *s, uid_t uid, uint64_t serial) {
        list_for_each(entry, &s->looking) {
                const struct peer *peer = list_entry(entry, const struct peer, looking);

                if (peer->identity.uid == uid && (peer->since <= serial || peer->again_since <= serial))
                        return false;
        }
        return true;
}

void fan_wait_init(struct fanotify *s) {
        list_init(&s->looking);
        mux_deferred_init(&s->look, on_look);
}

void fan_wait_free(struct fanotify *s) {
        hash_for_each(node, &s->awaited)
                free(container_of(node, struct awaited, node));
        hash_free(&s->awaited);
        mux_deferred_cancel(&s->look);
}
