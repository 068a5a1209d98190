/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mailbox.h"

#include <errno.h>
#include <sys/eventfd.h>

static void look(struct mailbox *m);

static void on_timer(struct mux_timer *timer) {
        look(container_of(timer, struct mailbox, timer));
}

/* Looks again in a while, if there was a part. */
static void look(struct mailbox *m) {
        bool again;

        (void)pthread_mutex_lock(&m->lock);
        again = m->has_part;
        m->has_part = false;
        /* Before it is said that nobody need wake it. */
        m->paced = again && mux_timer_set(m->mux, &m->timer, monotonic_nsec() + MAILBOX_PACE_USEC * NSEC_PER_USEC,
                                          on_timer) == 0;
        (void)pthread_mutex_unlock(&m->lock);
        m->fn(m);
}

static void on_ready(struct mux_io *io, unsigned events _unused_) {
        struct mailbox *m = container_of(io, struct mailbox, io);
        uint64_t count;

        (void)pthread_mutex_lock(&m->lock);
        (void)!read(m->event_fd, &count, sizeof(count));
        m->woken = false;
        (void)pthread_mutex_unlock(&m->lock);
        look(m);
}

int mailbox_open(struct mailbox *m, struct mux *mux, mailbox_fn *fn) {
        int r;

        *m = (struct mailbox){ .io = MUX_IO_INIT, .timer = MUX_TIMER_INIT, .mux = mux, .fn = fn };
        (void)pthread_mutex_init(&m->lock, NULL);
        list_init(&m->messages);
        m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (m->event_fd < 0)
                return -errno;
        r = mux_add(mux, &m->io, m->event_fd, MUX_IN, on_ready);
        if (r < 0) {
                m->event_fd = safe_close(m->event_fd);
                return r;
        }
        return 0;
}

void mailbox_close(struct mailbox *m) {
        mux_timer_clear(m->mux, &m->timer);
        mux_remove(m->mux, &m->io);
        m->event_fd = safe_close(m->event_fd);
        (void)pthread_mutex_destroy(&m->lock);
}

static void post(struct mailbox *m, struct list *message, bool part) {
        uint64_t one = 1;

        (void)pthread_mutex_lock(&m->lock);
        list_append(&m->messages, message);
        m->has_part |= part;
        if (!m->woken && !(part && m->paced)) {
                m->woken = true;
                (void)!write(m->event_fd, &one, sizeof(one));
        }
        (void)pthread_mutex_unlock(&m->lock);
}

void mailbox_post(struct mailbox *m, struct list *message) {
        post(m, message, false);
}

void mailbox_post_part(struct mailbox *m, struct list *message) {
        post(m, message, true);
}

struct list *mailbox_take(struct mailbox *m) {
        struct list *message;

        (void)pthread_mutex_lock(&m->lock);
        message = list_pop(&m->messages);
        (void)pthread_mutex_unlock(&m->lock);
        return message;
}
