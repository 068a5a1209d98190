/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kqueue(2) of the BSDs, or libkqueue's. What is asked for is a filter each, whose answers are joined: so there is room
 * for all of them, and whose turn it is is kept here. Three things the filters don't say, and poll(2) is asked:
 *
 * - With EV_EOF, what it is. The peer may have shut down but one direction, which is no hangup, and for a pipe that
 *   nobody reads poll(2) has its own word.
 * - The end of a descriptor that nobody wants to read or write. Its filters are lookouts, with EV_CLEAR, so that data
 *   that is left lying wakes the wait once and no more; but the end, too, is told once.
 * - What the kernel has no filter for: MUX_PRI without EVFILT_EXCEPT, a filter that this kind of file lacks, and a pipe
 *   that nobody reads when it is to be written. It is asked about once a second, and needs no lookouts.
 *
 * Other than with epoll(7) an end of a pipe that is watched only for what it can't do is not told to be broken, and the
 * error of a socket without a connection comes as readable or writable alone, unless it has nothing to be read.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

#include "backend.h"
#include "macro.h"
#include "pollfd.h"

#include <sys/event.h>

#define QUIET_NSEC ((int64_t)NSEC_PER_SEC)
#define LONGEST_NSEC (INT32_MAX * (int64_t)NSEC_PER_MSEC) /* some kernels refuse what is much longer */

enum { EITHER = MUX_IN | MUX_OUT };

static const struct {
        short filter;
        unsigned event;
        unsigned notes;
} filters[] = {
        { EVFILT_READ, MUX_IN, 0 },
        { EVFILT_WRITE, MUX_OUT, 0 },
#if defined(EVFILT_EXCEPT) && defined(NOTE_OOB)
        { EVFILT_EXCEPT, MUX_PRI, NOTE_OOB },
#endif
};

enum { N_FILTERS = ARRAY_SIZE(filters) };

/* Filters that the kernel has of a descriptor, each as its event. None is in both. */
struct filter_set {
        unsigned wanted, lookouts;
};

struct member {
        void *token; /* NULL: it is not in */
        unsigned wanted;
        unsigned found; /* by this wait */
        struct filter_set filters;
        bool asked; /* poll(2) is, about it */
};

struct kqueue_set {
        int fd;
        struct member *members; /* by descriptor */
        size_t n_members, n, n_asked;
        struct kevent *answers; /* for each filter of each member */
        int *found;             /* descriptors, by this wait */
        size_t n_found, capacity;
        int start; /* descriptors before it had their turn */
};

static void kqueue_close(void *state) {
        struct kqueue_set *s = state;

        if (s->fd >= 0)
                (void)close(s->fd);
        free(s->members);
        free(s->answers);
        free(s->found);
        free(s);
}

static int make_room(struct kqueue_set *s, size_t fd) {
        if (s->n == s->capacity) {
                size_t capacity = MAX(s->capacity * 2, (size_t)16);
                struct kevent *answers = realloc(s->answers, N_FILTERS * capacity * sizeof(*answers));
                int *found;

                if (!answers)
                        return -ENOMEM;
                s->answers = answers;
                found = realloc(s->found, capacity * sizeof(*found));
                if (!found)
                        return -ENOMEM;
                s->found = found;
                s->capacity = capacity;
        }
        if (fd >= s->n_members) {
                size_t n = MAX(fd + 1, s->n_members * 2);
                struct member *members = realloc(s->members, n * sizeof(*members));

                if (!members)
                        return -ENOMEM;
                memset(members + s->n_members, 0, (n - s->n_members) * sizeof(*members));
                s->members = members;
                s->n_members = n;
        }
        return 0;
}

static int kqueue_open(void **ret_state) {
        struct kqueue_set *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->fd = kqueue();
        r = s->fd < 0 || fcntl(s->fd, F_SETFD, FD_CLOEXEC) < 0 ? -errno : 0;
        if (r == 0)
                r = make_room(s, 0); /* without room for an answer kevent(2) doesn't wait */
        if (r < 0) {
                kqueue_close(s);
                return r;
        }
        *ret_state = s;
        return 0;
}

static struct member *find_member(const struct kqueue_set *s, int fd) {
        return fd >= 0 && (size_t)fd < s->n_members && s->members[fd].token ? &s->members[fd] : NULL;
}

static void set_asked(struct kqueue_set *s, struct member *m, bool asked) {
        s->n_asked += asked;
        s->n_asked -= m->asked;
        m->asked = asked;
}

/* ---- filters ----------------------------------------------------------------- */

/* From what is there to what shall be, in one call that leaves alone what is pending. `now` gets what is there then,
 * `errors` why it isn't all, by filter. What was to go is gone, be it that the kernel didn't have it any more. */
static void change(const struct kqueue_set *s, int fd, struct filter_set *now, struct filter_set next, int errors[]) {
        struct filter_set gone = { now->wanted & ~next.wanted, now->lookouts & ~next.lookouts };
        struct filter_set come = { next.wanted & ~now->wanted, next.lookouts & ~now->lookouts };
        struct kevent changes[2 * N_FILTERS], receipts[2 * N_FILTERS];
        const struct timespec at_once = { 0 };
        int n = 0, first, r;

        for (int i = 0; i < N_FILTERS; i++)
                if ((gone.wanted | gone.lookouts) & filters[i].event)
                        EV_SET(&changes[n++], (uintptr_t)fd, filters[i].filter, EV_DELETE | EV_RECEIPT, 0, 0, NULL);
        first = n;
        for (int i = 0; i < N_FILTERS; i++) {
                int flags = EV_ADD | EV_RECEIPT | (come.lookouts & filters[i].event ? EV_CLEAR : 0);

                if ((come.wanted | come.lookouts) & filters[i].event)
                        EV_SET(&changes[n++], (uintptr_t)fd, filters[i].filter, (unsigned short)flags,
                               filters[i].notes, 0, NULL);
        }
        r = n > 0 ? kevent(s->fd, changes, n, receipts, n, &at_once) : 0;
        if (r == n)
                *now = next;
        for (int i = 0; i < N_FILTERS; i++) {
                errors[i] = 0;
                if (!((come.wanted | come.lookouts) & filters[i].event))
                        continue;
                errors[i] = r == n ? (int)receipts[first++].data : r < 0 ? errno : EIO;
                if (errors[i] == 0)
                        continue;
                now->wanted &= ~(come.wanted & filters[i].event);
                now->lookouts &= ~(come.lookouts & filters[i].event);
        }
}

/* Nobody reads the pipe that is to be written: the filter is refused, by some with EBADF. */
static bool is_broken(int fd, int error) {
        return error == EPIPE || (error == EBADF && fcntl(fd, F_GETFD) >= 0);
}

static bool is_unsupported(int error) {
        return error == EINVAL || error == ENODEV || error == EOPNOTSUPP;
}

/* Puts back what was there before; what can't be, poll(2) is asked about. */
static void restore(struct kqueue_set *s, int fd, struct member *m, struct filter_set now) {
        int errors[N_FILTERS];

        change(s, fd, &now, m->filters, errors);
        if (now.wanted != m->filters.wanted || now.lookouts != m->filters.lookouts)
                set_asked(s, m, true);
        m->filters = now;
}

static int set_events(struct kqueue_set *s, int fd, struct member *m, unsigned events) {
        struct filter_set now = m->filters, next = { 0 };
        int errors[N_FILTERS], r = 0;
        bool asked;

        for (int i = 0; i < N_FILTERS; i++)
                next.wanted |= events & filters[i].event;
        asked = events & ~next.wanted;
        next.lookouts = asked || events & EITHER ? 0 : EITHER;
        change(s, fd, &now, next, errors);
        for (int i = 0; i < N_FILTERS; i++)
                if (is_broken(fd, errors[i]) || (is_unsupported(errors[i]) && events & filters[i].event))
                        asked = true;
                else if (errors[i] != 0 && !is_unsupported(errors[i]))
                        r = -errors[i];
        if (r < 0) {
                restore(s, fd, m, now);
                return r;
        }
        if (next.lookouts && !now.lookouts)
                asked = true;
        if (asked && now.lookouts) {
                next = (struct filter_set){ .wanted = now.wanted };
                change(s, fd, &now, next, errors);
        }
        m->filters = now;
        m->wanted = events;
        set_asked(s, m, asked);
        return 0;
}

static int kqueue_add(void *state, int fd, unsigned events, void *token) {
        struct kqueue_set *s = state;
        int r = check_descriptor(fd);
        struct member *m;

        if (r == 0)
                r = find_member(s, fd) ? -EEXIST : make_room(s, (size_t)fd);
        if (r < 0)
                return r;
        m = &s->members[fd];
        r = set_events(s, fd, m, events);
        if (r < 0)
                return r;
        m->token = token;
        s->n++;
        return 0;
}

static int kqueue_modify(void *state, int fd, unsigned events, void *token) {
        struct kqueue_set *s = state;
        struct member *m = find_member(s, fd);
        int r = m ? set_events(s, fd, m, events) : -ENOENT;

        if (r == 0)
                m->token = token;
        return r;
}

static void kqueue_remove(void *state, int fd) {
        struct kqueue_set *s = state;
        struct member *m = find_member(s, fd);
        int errors[N_FILTERS];

        if (!m)
                return;
        change(s, fd, &m->filters, (struct filter_set){ 0 }, errors);
        set_asked(s, m, false);
        *m = (struct member){ 0 };
        s->n--;
}

/* ---- answers ------------------------------------------------------------------- */

static void find(struct kqueue_set *s, int fd, unsigned events) {
        struct member *m = &s->members[fd];

        if (events && !m->found)
                s->found[s->n_found++] = fd;
        m->found |= events;
}

static void take(struct kqueue_set *s, const struct kevent *answer) {
        int fd = (int)answer->ident;
        struct member *m = find_member(s, fd);
        unsigned event = 0, events;

        for (int i = 0; i < N_FILTERS; i++)
                if (filters[i].filter == (short)answer->filter)
                        event = filters[i].event;
        if (!m)
                return;
        if (!(m->filters.wanted & event)) {
                events = ask_poll(fd, 0);
                if (events)
                        set_asked(s, m, true);
        } else if (answer->flags & EV_EOF || answer->data == 0) {
                events = ask_poll(fd, m->wanted);
                if (!events && answer->flags & EV_EOF)
                        events = MUX_HUP | (answer->fflags && event != MUX_PRI ? MUX_ERR : 0u);
        } else
                events = event;
        find(s, fd, events);
}

static void ask_all(struct kqueue_set *s) {
        for (size_t fd = 0, n = 0; n < s->n_asked; fd++)
                if (s->members[fd].asked) {
                        find(s, (int)fd, ask_poll((int)fd, s->members[fd].wanted));
                        n++;
                }
}

static int compare_numbers(const void *a, const void *b) {
        const int *x = a, *y = b;

        return (*x > *y) - (*x < *y);
}

/* From `start` on, and round. */
static int fill(struct kqueue_set *s, struct mux_ready *ready, size_t n_ready) {
        size_t n = MIN(s->n_found, n_ready), first = 0;

        if (s->n_found > n_ready) {
                qsort(s->found, s->n_found, sizeof(*s->found), compare_numbers);
                while (first < s->n_found && s->found[first] < s->start)
                        first++;
        }
        for (size_t i = 0; i < s->n_found; i++) {
                int fd = s->found[(first + i) % s->n_found];

                if (i < n) {
                        ready[i].token = s->members[fd].token;
                        ready[i].events = s->members[fd].found;
                        s->start = fd + 1;
                }
                s->members[fd].found = 0;
        }
        s->n_found = 0;
        return (int)n;
}

static int look(struct kqueue_set *s, int64_t timeout_nsec) {
        int64_t nsec = MIN(timeout_nsec, LONGEST_NSEC);
        struct timespec t = {
                .tv_sec = nsec / (int64_t)NSEC_PER_SEC,
                .tv_nsec = nsec % (int64_t)NSEC_PER_SEC,
        };
        size_t room = MIN(N_FILTERS * s->capacity, (size_t)INT32_MAX);
        int n = kevent(s->fd, NULL, 0, s->answers, (int)room, timeout_nsec < 0 ? NULL : &t);

        if (n < 0)
                return -errno;
        for (int i = 0; i < n; i++)
                take(s, &s->answers[i]);
        return 0;
}

static int kqueue_wait(void *state, struct mux_ready *ready, size_t n_ready, int64_t timeout_nsec) {
        struct kqueue_set *s = state;
        uint64_t end = timeout_nsec > 0 ? monotonic_nsec() + (uint64_t)timeout_nsec : 0;

        for (int64_t left = timeout_nsec;;) {
                bool in_parts = s->n_asked > 0 && (left < 0 || left > QUIET_NSEC);
                int r;

                ask_all(s);
                r = look(s, s->n_found > 0 ? 0 : in_parts ? QUIET_NSEC : left);
                if (r < 0 && r != -EINTR)
                        return r;
                if (s->n_found > 0 || r < 0 || left == 0)
                        return fill(s, ready, n_ready);
                if (left > 0) {
                        uint64_t now = monotonic_nsec();

                        left = now < end ? (int64_t)(end - now) : 0;
                }
        }
}

const struct mux_backend mux_backend_kqueue = {
        .name = "kqueue",
        .open = kqueue_open,
        .close = kqueue_close,
        .add = kqueue_add,
        .modify = kqueue_modify,
        .remove = kqueue_remove,
        .wait = kqueue_wait,
};
