/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * /dev/poll of Solaris and illumos: poll(4D). The set lies in the kernel; what is written to it is added, and events of
 * a descriptor that is in already are or'ed, so a change removes it first. Of two answers to choose from the kernel may
 * always give the same one: so there is room for all.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "backend.h"
#include "macro.h"
#include "pollfd.h"

#include <sys/devpoll.h>

struct devpoll {
        int fd;
        void **tokens; /* by descriptor; NULL: it is not in */
        size_t n_tokens, n;
        struct pollfd *answers; /* as many as there are members */
        size_t capacity;
        int start; /* descriptors before it had their turn */
};

static int devpoll_open(void **ret_state) {
        struct devpoll *d = calloc(1, sizeof(*d));

        if (!d)
                return -ENOMEM;
        d->fd = open("/dev/poll", O_RDWR | O_CLOEXEC);
        if (d->fd < 0) {
                int r = -errno;

                free(d);
                return r;
        }
        *ret_state = d;
        return 0;
}

static void devpoll_close(void *state) {
        struct devpoll *d = state;

        (void)close(d->fd);
        free(d->tokens);
        free(d->answers);
        free(d);
}

static bool is_member(const struct devpoll *d, int fd) {
        return fd >= 0 && (size_t)fd < d->n_tokens && d->tokens[fd];
}

static int make_room(struct devpoll *d, size_t fd) {
        if (d->n == d->capacity) {
                size_t capacity = MAX(d->capacity * 2, (size_t)16);
                struct pollfd *answers = realloc(d->answers, capacity * sizeof(*answers));

                if (!answers)
                        return -ENOMEM;
                d->answers = answers;
                d->capacity = capacity;
        }
        if (fd >= d->n_tokens) {
                size_t n = MAX(fd + 1, d->n_tokens * 2);
                void **tokens = realloc(d->tokens, n * sizeof(*tokens));

                if (!tokens)
                        return -ENOMEM;
                memset(tokens + d->n_tokens, 0, (n - d->n_tokens) * sizeof(*tokens));
                d->tokens = tokens;
                d->n_tokens = n;
        }
        return 0;
}

static int change(struct devpoll *d, const struct pollfd *changes, size_t n) {
        ssize_t written = write(d->fd, changes, n * sizeof(*changes));

        return written == (ssize_t)(n * sizeof(*changes)) ? 0 : written < 0 ? -errno : -EIO;
}

static int devpoll_add(void *state, int fd, unsigned events, void *token) {
        struct pollfd p = { .fd = fd, .events = to_poll(events) };
        struct devpoll *d = state;
        int r = check_descriptor(fd);

        if (r == 0)
                r = is_member(d, fd) ? -EEXIST : make_room(d, (size_t)fd);
        if (r == 0)
                r = change(d, &p, 1);
        if (r < 0)
                return r;
        d->tokens[fd] = token;
        d->n++;
        return 0;
}

static int devpoll_modify(void *state, int fd, unsigned events, void *token) {
        struct pollfd p[] = { { .fd = fd, .events = POLLREMOVE }, { .fd = fd, .events = to_poll(events) } };
        struct devpoll *d = state;
        int r = is_member(d, fd) ? change(d, p, ARRAY_SIZE(p)) : -ENOENT;

        if (r == 0)
                d->tokens[fd] = token;
        return r;
}

static void devpoll_remove(void *state, int fd) {
        struct pollfd p = { .fd = fd, .events = POLLREMOVE };
        struct devpoll *d = state;

        if (!is_member(d, fd))
                return;
        (void)change(d, &p, 1);
        d->tokens[fd] = NULL;
        d->n--;
}

static int compare_numbers(const void *a, const void *b) {
        const struct pollfd *x = a, *y = b;

        return (x->fd > y->fd) - (x->fd < y->fd);
}

/* From `start` on, and round. */
static size_t fill(struct devpoll *d, size_t n_answers, struct mux_ready *ready, size_t n_ready) {
        size_t n = 0, first = 0;

        if (n_answers > n_ready) {
                qsort(d->answers, n_answers, sizeof(*d->answers), compare_numbers);
                while (first < n_answers && d->answers[first].fd < d->start)
                        first++;
        }
        for (size_t i = 0; i < n_answers && n < n_ready; i++) {
                const struct pollfd *p = &d->answers[(first + i) % n_answers];

                if (!is_member(d, p->fd))
                        continue;
                ready[n].token = d->tokens[p->fd];
                ready[n++].events = from_poll(p->revents);
                d->start = p->fd + 1;
        }
        return n;
}

static int devpoll_wait(void *state, struct mux_ready *ready, size_t n_ready, int64_t timeout_nsec) {
        struct devpoll *d = state;
        int64_t msec = timeout_nsec > 0 ? (timeout_nsec - 1) / (int64_t)NSEC_PER_MSEC + 1 : timeout_nsec;
        struct dvpoll question = {
                .dp_fds = d->answers, .dp_nfds = d->n, .dp_timeout = msec < 0 ? -1 : (int)MIN(msec, (int64_t)INT32_MAX),
        };
        int n = ioctl(d->fd, DP_POLL, &question);

        if (n < 0)
                return errno == EINTR ? 0 : -errno;
        return (int)fill(d, (size_t)n, ready, n_ready);
}

const struct mux_backend mux_backend_devpoll = {
        .name = "devpoll",
        .open = devpoll_open,
        .close = devpoll_close,
        .add = devpoll_add,
        .modify = devpoll_modify,
        .remove = devpoll_remove,
        .wait = devpoll_wait,
};
