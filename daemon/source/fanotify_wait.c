/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches whose directory is not there, and that wait for it: gone, not made yet, or on a file system whose
 * queue has failed.
 *
 * Their path is resolved again when one of its names has come to be, wherever that was, and now and then: what is
 * not on a file system with a group makes no events.
 */

#include <string.h>

#include "fanotify_watch.h"

enum {
        POLL_MIN_MSEC = 50,
        POLL_MAX_MSEC = 2000,
        WAITING_A_TIME = 64,
};

static void on_wait_timer(struct mux_timer *timer);

static void set_wait_timer(struct fanotify *s) {
        uint64_t deadline = monotonic_nsec() + s->wait_msec * NSEC_PER_MSEC;

        if (s->wait_timer.heap_index == 0 || s->wait_timer.deadline_nsec > deadline)
                (void)mux_timer_set(s->mux, &s->wait_timer, deadline, on_wait_timer);
}

/* Some of them, in turn. */
static void on_wait_timer(struct mux_timer *timer) {
        struct fanotify *s = container_of(timer, struct fanotify, wait_timer);
        const struct list *last = s->waiting.previous; /* each goes behind it */
        bool all = list_empty(&s->waiting);

        for (size_t n = 0; n < WAITING_A_TIME && !all; n++) {
                struct fan_watch *w = fan_watch_of(list_entry(s->waiting.next, struct file_watch, link));

                all = &w->watch.link == last;
                list_remove(&w->watch.link);
                list_append(&s->waiting, &w->watch.link);
                if (!w->hangs) /* else it is looked for once what it hangs at has answered, or mounts have changed */
                        fan_watch_ask(w);
        }
        if (list_empty(&s->waiting))
                return;
        if (all)
                s->wait_msec = MIN(s->wait_msec * 2, POLL_MAX_MSEC);
        set_wait_timer(s);
}

/* The names on the path of a watch that waits, so that what happens elsewhere costs a look-up. */
struct awaited {
        struct hash_node node;
        size_t n;
        size_t size;
        char name[];
};

static struct awaited *find_awaited(const struct fanotify *s, const char *name, size_t size) {
        if (s->awaited.n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&s->awaited, hash_bytes(name, size, 0)); n; n = hash_next(n)) {
                struct awaited *a = container_of(n, struct awaited, node);

                if (a->size == size && memcmp(a->name, name, size) == 0)
                        return a;
        }
        return NULL;
}

/* Without memory it is found by the timer. */
static void await_name(struct fanotify *s, const char *name, size_t size) {
        struct awaited *a = find_awaited(s, name, size);

        if (!a) {
                a = calloc(1, sizeof(*a) + size);
                if (!a)
                        return;
                a->size = size;
                memcpy(a->name, name, size);
                if (hash_add(&s->awaited, &a->node, hash_bytes(name, size, 0)) < 0) {
                        free(a);
                        return;
                }
        }
        a->n++;
}

static void forget_name(struct fanotify *s, const char *name, size_t size) {
        struct awaited *a = find_awaited(s, name, size);

        if (!a || --a->n > 0)
                return;
        hash_remove(&s->awaited, &a->node);
        free(a);
}

static void for_names(struct fan_watch *w, void (*fn)(struct fanotify *s, const char *name, size_t size)) {
        const char *p = w->watch.path;

        while (p && *(p += strspn(p, "/"))) {
                size_t size = strcspn(p, "/");

                fn(w->s, p, size);
                p += size;
        }
}

void fan_wait_look_soon(struct fanotify *s) {
        if (list_empty(&s->waiting))
                return;
        s->wait_msec = POLL_MIN_MSEC;
        set_wait_timer(s);
}

void fan_wait_begin(struct fan_watch *w) {
        struct fanotify *s = w->s;

        if (w->watch.state != WATCH_WAITING)
                for_names(w, await_name);
        w->watch.state = WATCH_WAITING;
        list_remove(&w->watch.link);
        list_append(&s->waiting, &w->watch.link);
        fan_wait_look_soon(s);
}

void fan_wait_end(struct fan_watch *w) {
        if (w->watch.state == WATCH_WAITING)
                for_names(w, forget_name);
        list_remove(&w->watch.link);
}

static bool has_name(const char *path, const char *name, size_t size) {
        while (*(path += strspn(path, "/"))) {
                size_t n = strcspn(path, "/");

                if (n == size && memcmp(path, name, n) == 0)
                        return true;
                path += n;
        }
        return false;
}

void fanotify_on_appeared(struct fanotify *s, const char *name) {
        size_t size = strlen(name);

        if (!find_awaited(s, name, size))
                return;
        list_for_each(entry, &s->waiting) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (watch->path && has_name(watch->path, name, size))
                        fan_watch_ask(fan_watch_of(watch));
        }
}

void fan_wait_free(struct fanotify *s) {
        hash_for_each(node, &s->awaited)
                free(container_of(node, struct awaited, node));
        hash_free(&s->awaited);
        mux_timer_clear(s->mux, &s->wait_timer);
}
