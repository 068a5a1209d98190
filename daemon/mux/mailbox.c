/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mailbox.h"

#include <errno.h>
#include <sys/eventfd.h>

static void wake(struct mailbox *m) {
        uint64_t one = 1;

        (void)!write(m->event_fd, &one, sizeof(one)); /* fails only where it is awake already */
}

static void on_ready(struct mux_io *io, unsigned events _unused_) {
        struct mailbox *m = container_of(io, struct mailbox, io);
        uint64_t count;

        (void)!read(m->event_fd, &count, sizeof(count));
        m->fn(m);
}

int mailbox_open(struct mailbox *m, struct mux *mux, mailbox_fn *fn) {
        int r;

        m->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (m->event_fd < 0)
                return -errno;
        m->io = MUX_IO_INIT;
        r = mux_add(mux, &m->io, m->event_fd, MUX_IN, on_ready);
        if (r < 0) {
                m->event_fd = safe_close(m->event_fd);
                return r;
        }
        (void)pthread_mutex_init(&m->lock, NULL);
        list_init(&m->messages);
        m->mux = mux;
        m->fn = fn;
        return 0;
}

void mailbox_close(struct mailbox *m) {
        mux_remove(m->mux, &m->io);
        m->event_fd = safe_close(m->event_fd);
        (void)pthread_mutex_destroy(&m->lock);
}

void mailbox_post(struct mailbox *m, struct list *message) {
        bool first;

        (void)pthread_mutex_lock(&m->lock);
        first = list_empty(&m->messages);
        list_append(&m->messages, message);
        if (first)
                wake(m);
        (void)pthread_mutex_unlock(&m->lock);
}

struct list *mailbox_take(struct mailbox *m) {
        struct list *message;

        (void)pthread_mutex_lock(&m->lock);
        message = list_pop(&m->messages);
        (void)pthread_mutex_unlock(&m->lock);
        return message;
}

bool mailbox_is_empty(struct mailbox *m) {
        bool empty;

        (void)pthread_mutex_lock(&m->lock);
        empty = list_empty(&m->messages);
        (void)pthread_mutex_unlock(&m->lock);
        return empty;
}

void mailbox_again(struct mailbox *m) {
        wake(m);
}
