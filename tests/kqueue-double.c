/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The double's other half: sys/event.h says of what. A queue is an epoll set, edge-triggered, which only says that
 * something has happened to a descriptor; then its filters are run, which ask poll(2), and what they hold for is put on
 * the queue's list. They run again when it is taken off, as the manual page says.
 *
 * What the manual page leaves open is as in FreeBSD's kernel: parameters of what is added again are `fflags`, `data`
 * and `udata`, not the flags; a pipe that nobody reads has no EVFILT_WRITE to add (EPIPE); a filter for what a FIFO
 * wasn't opened for is there and never holds. EVFILT_EXCEPT is for sockets alone, as in OpenBSD's manual page.
 *
 * Not as there: an EV_CLEAR event may come more often than its condition did; `data` is 1 where Linux can't say how
 * much, `fflags` is EIO where it can't say which error without taking it away; of a regular file only its state at
 * EV_ADD counts; only close(2) removes what a descriptor has, not dup2(2) and the like.
 *
 * One thread uses a queue; close(2) may be called by any. The program is linked with --wrap=close.
 */

#include "kqueue/sys/event.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "list.h"

int __real_close(int fd);
int __wrap_close(int fd);

enum { READ, WRITE, EXCEPT, N_FILTERS, EDGES = 64 };

struct knote {
        struct list link; /* in the queue's list, or in none */
        struct kevent event;
};

struct descriptor {
        struct knote *knotes[N_FILTERS];
        bool armed; /* in the epoll set */
};

struct queue {
        struct list link;
        int fd;
        struct list active;
        struct descriptor *descriptors; /* by number */
        size_t n;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct list queues = { &queues, &queues };
static struct {
        int error;
        unsigned n;
} refusals[N_FILTERS];

static int filter_index(short filter) {
        return filter == EVFILT_READ ? READ : filter == EVFILT_WRITE ? WRITE :
#ifdef EVFILT_EXCEPT
               filter == EVFILT_EXCEPT ? EXCEPT :
#endif
               -1;
}

static struct queue *find_queue(int fd) {
        list_for_each(entry, &queues)
                if (list_entry(entry, struct queue, link)->fd == fd)
                        return list_entry(entry, struct queue, link);
        return NULL;
}

static struct descriptor *find_descriptor(const struct queue *q, uintptr_t fd) {
        return fd < q->n ? &q->descriptors[fd] : NULL;
}

static void remove_knote(struct descriptor *d, int filter) {
        struct knote *k = d->knotes[filter];

        if (!k)
                return;
        list_remove(&k->link);
        free(k);
        d->knotes[filter] = NULL;
}

static void free_queue(struct queue *q) {
        for (size_t fd = 0; fd < q->n; fd++)
                for (int i = 0; i < N_FILTERS; i++)
                        remove_knote(&q->descriptors[fd], i);
        list_remove(&q->link);
        free(q->descriptors);
        free(q);
}

static void lock_queues(void) {
        (void)pthread_mutex_lock(&lock);
}

static void unlock_queues(void) {
        (void)pthread_mutex_unlock(&lock);
}

/* A child has none. */
static void close_queues(void) {
        list_for_each(entry, &queues) {
                (void)__real_close(list_entry(entry, struct queue, link)->fd);
                free_queue(list_entry(entry, struct queue, link));
        }
        unlock_queues();
}

/* Before any other's handlers, which may close descriptors. */
__attribute__((constructor)) static void close_queues_in_children(void) {
        (void)pthread_atfork(lock_queues, unlock_queues, close_queues);
}

int kqueue(void) {
        struct queue *q = calloc(1, sizeof(*q));

        if (!q)
                return -1;
        q->fd = epoll_create1(0);
        if (q->fd < 0) {
                free(q);
                return -1;
        }
        list_init(&q->active);
        lock_queues();
        list_append(&queues, &q->link);
        unlock_queues();
        return q->fd;
}

/* ---- filters ----------------------------------------------------------------- */

static bool has_no_such_side(int fd, int filter, const struct stat *st) {
        int mode = fcntl(fd, F_GETFL) & O_ACCMODE;

        return S_ISFIFO(st->st_mode) && mode == (filter == READ ? O_WRONLY : O_RDONLY);
}

static int64_t readable_bytes(int fd, short got) {
        int n = 0;

        if (ioctl(fd, FIONREAD, &n) < 0)
                n = (got & POLLIN) != 0;
        return n;
}

static bool read_holds(struct kevent *event, const struct stat *st, short got) {
        int fd = (int)event->ident;
        bool ended = got & (POLLHUP | POLLRDHUP);

        if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) {
                event->data = st->st_size - lseek(fd, 0, SEEK_CUR);
                return event->data != 0;
        }
        if (!ended && !(got & (POLLIN | POLLERR)))
                return false;
        event->data = readable_bytes(fd, got);
        event->flags |= ended ? EV_EOF : 0;
        event->fflags = ended && got & POLLERR ? EIO : 0;
        return true;
}

static bool write_holds(struct kevent *event, const struct stat *st, short got) {
        bool ended = got & POLLHUP || (S_ISFIFO(st->st_mode) && got & POLLERR);

        if (!ended && !(got & (POLLOUT | POLLERR)))
                return false;
        event->data = (got & POLLOUT) != 0;
        event->flags |= ended ? EV_EOF : 0;
        event->fflags = S_ISSOCK(st->st_mode) && ended && got & POLLERR ? EIO : 0;
        return true;
}

/* Whether there is something to tell of it: what goes to `ret_event`. */
static bool holds(const struct knote *k, struct kevent *ret_event) {
        static const short questions[] = { [READ] = POLLIN | POLLRDHUP, [WRITE] = POLLOUT, [EXCEPT] = POLLPRI };
        int filter = filter_index(k->event.filter), fd = (int)k->event.ident;
        struct pollfd p = { .fd = fd, .events = questions[filter] };
        struct stat st;

        if (fstat(fd, &st) < 0 || poll(&p, 1, 0) < 0 || (filter != EXCEPT && has_no_such_side(fd, filter, &st)))
                return false;
        *ret_event = k->event;
        ret_event->data = 0;
        ret_event->fflags = filter == EXCEPT ? k->event.fflags : 0;
        return filter == READ  ? read_holds(ret_event, &st, p.revents) :
               filter == WRITE ? write_holds(ret_event, &st, p.revents) :
                                 p.revents & POLLPRI;
}

static void run_filter(struct queue *q, struct knote *k) {
        struct kevent event;

        if (k && list_empty(&k->link) && holds(k, &event))
                list_append(&q->active, &k->link);
}

/* ---- changes ------------------------------------------------------------------- */

static int make_room(struct queue *q, size_t fd) {
        size_t n = fd + 64;
        struct descriptor *descriptors;

        if (fd < q->n)
                return 0;
        descriptors = realloc(q->descriptors, n * sizeof(*descriptors));
        if (!descriptors)
                return ENOMEM;
        memset(descriptors + q->n, 0, (n - q->n) * sizeof(*descriptors));
        q->descriptors = descriptors;
        q->n = n;
        return 0;
}

static int arm(const struct queue *q, struct descriptor *d, int fd) {
        struct epoll_event event = {
                .events = EPOLLIN | EPOLLOUT | EPOLLPRI | EPOLLRDHUP | (uint32_t)EPOLLET,
                .data.fd = fd,
        };
        struct stat st;

        if (d->armed)
                return 0;
        if (epoll_ctl(q->fd, EPOLL_CTL_ADD, fd, &event) == 0) {
                d->armed = true;
                return 0;
        }
        if (errno != EPERM)
                return errno;
        return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) ? 0 : ENODEV;
}

static void disarm_if_idle(const struct queue *q, struct descriptor *d, int fd) {
        for (int i = 0; i < N_FILTERS; i++)
                if (d->knotes[i])
                        return;
        if (d->armed)
                (void)epoll_ctl(q->fd, EPOLL_CTL_DEL, fd, NULL);
        d->armed = false;
}

static int refuse(int fd, int filter) {
        struct pollfd p = { .fd = fd };
        struct stat st;

        if (refusals[filter].n > 0) {
                refusals[filter].n--;
                return refusals[filter].error;
        }
        if (fstat(fd, &st) < 0)
                return errno;
        if (filter != READ && (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)))
                return EINVAL;
        if (filter == EXCEPT && !S_ISSOCK(st.st_mode))
                return EINVAL;
        if (filter == WRITE && S_ISFIFO(st.st_mode) && !has_no_such_side(fd, filter, &st) && poll(&p, 1, 0) > 0 &&
            p.revents & POLLERR)
                return EPIPE;
        return 0;
}

static int add_knote(struct queue *q, const struct kevent *change, int filter) {
        int fd = (int)change->ident, error = refuse(fd, filter);
        struct descriptor *d;
        struct knote *k;

        if (error == 0)
                error = make_room(q, (size_t)fd);
        if (error != 0)
                return error;
        d = &q->descriptors[fd];
        k = calloc(1, sizeof(*k));
        error = k ? arm(q, d, fd) : ENOMEM;
        if (error != 0) {
                free(k);
                return error;
        }
        list_init(&k->link);
        k->event = *change;
        k->event.flags &= EV_CLEAR;
        d->knotes[filter] = k;
        run_filter(q, k);
        return 0;
}

static int apply(struct queue *q, const struct kevent *change) {
        int filter = filter_index(change->filter), fd;
        struct descriptor *d = find_descriptor(q, change->ident);
        struct knote *k;

        if (filter < 0)
                return EINVAL;
        if (change->ident > INT_MAX || fcntl((int)change->ident, F_GETFD) < 0)
                return EBADF;
        fd = (int)change->ident;
        k = d ? d->knotes[filter] : NULL;
        if (!k)
                return change->flags & EV_ADD ? add_knote(q, change, filter) : ENOENT;
        if (change->flags & EV_DELETE) {
                remove_knote(d, filter);
                disarm_if_idle(q, d, fd);
                return 0;
        }
        k->event.fflags = change->fflags;
        k->event.data = change->data;
        k->event.udata = change->udata;
        run_filter(q, k);
        return 0;
}

/* Returns how many are filled, or -1 with errno. */
static int apply_all(struct queue *q, const struct kevent *changes, int n_changes, struct kevent *events,
                     int n_events) {
        int n = 0;

        for (int i = 0; i < n_changes; i++) {
                struct kevent change = changes[i]; /* both may be one array */
                int error = apply(q, &change);

                if (error == 0 && !(change.flags & EV_RECEIPT))
                        continue;
                if (n == n_events) {
                        errno = error;
                        return error ? -1 : n;
                }
                change.flags = EV_ERROR;
                change.data = error;
                events[n++] = change;
        }
        return n;
}

/* ---- events -------------------------------------------------------------------- */

/* What is told goes to the list's end, unless it is EV_CLEAR. */
static int take(struct queue *q, struct kevent *events, int n_events) {
        struct list after;
        int n = 0;

        list_init(&after);
        while (n < n_events && !list_empty(&q->active)) {
                struct knote *k = list_entry(list_pop(&q->active), struct knote, link);

                if (!holds(k, &events[n]))
                        continue;
                n++;
                if (!(k->event.flags & EV_CLEAR))
                        list_append(&after, &k->link);
        }
        list_splice(&q->active, &after);
        return n;
}

static int64_t now_nsec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Until the time has come (for ever when negative), or something has happened. Returns -1 with errno. */
static int wait_for_edges(int fd, int64_t deadline_nsec) {
        int64_t left = deadline_nsec < 0 ? 0 : deadline_nsec - now_nsec();
        struct timespec t = { .tv_sec = left > 0 ? left / 1000000000 : 0, .tv_nsec = left > 0 ? left % 1000000000 : 0 };
        struct epoll_event edges[EDGES];
        struct queue *q;
        int n = epoll_pwait2(fd, edges, EDGES, deadline_nsec < 0 ? NULL : &t, NULL);

        lock_queues();
        q = find_queue(fd);
        for (int i = 0; q && i < n; i++) {
                struct descriptor *d = find_descriptor(q, (uintptr_t)edges[i].data.fd);

                for (int filter = 0; d && filter < N_FILTERS; filter++)
                        run_filter(q, d->knotes[filter]);
        }
        unlock_queues();
        return n;
}

static int take_now(int fd, struct kevent *events, int n_events) {
        struct queue *q;
        int n;

        while (wait_for_edges(fd, 0) == EDGES)
                ;
        lock_queues();
        q = find_queue(fd);
        n = q ? take(q, events, n_events) : 0;
        unlock_queues();
        return n;
}

int kevent(int queue, const struct kevent *changes, int n_changes, struct kevent *events, int n_events,
           const struct timespec *timeout) {
        int64_t deadline = -1;
        struct queue *q;
        int n = 0;

        lock_queues();
        q = find_queue(queue);
        if (q)
                n = apply_all(q, changes, n_changes, events, n_events);
        unlock_queues();
        if (!q)
                errno = EBADF;
        else if (timeout && (timeout->tv_sec < 0 || timeout->tv_nsec < 0 || timeout->tv_nsec >= 1000000000))
                errno = EINVAL;
        else if (n != 0 || n_events == 0)
                return n;
        else {
                if (timeout)
                        deadline = now_nsec() + (int64_t)timeout->tv_sec * 1000000000 + timeout->tv_nsec;
                for (;;) {
                        n = take_now(queue, events, n_events);
                        if (n > 0 || (deadline >= 0 && now_nsec() >= deadline))
                                return n;
                        if (wait_for_edges(queue, deadline) < 0)
                                return -1;
                }
        }
        return -1;
}

/* ---- close(2) ------------------------------------------------------------------ */

static void forget_descriptor(int fd) {
        list_for_each(entry, &queues) {
                struct queue *q = list_entry(entry, struct queue, link);
                struct descriptor *d = find_descriptor(q, (uintptr_t)fd);

                for (int i = 0; d && i < N_FILTERS; i++)
                        remove_knote(d, i);
                if (d)
                        disarm_if_idle(q, d, fd);
        }
}

int __wrap_close(int fd) {
        struct queue *q;

        lock_queues();
        if (fd >= 0)
                forget_descriptor(fd);
        q = find_queue(fd);
        if (q)
                free_queue(q);
        unlock_queues();
        return __real_close(fd);
}

/* ---- for the tests --------------------------------------------------------------- */

void kqueue_double_refuse(short filter, int error, unsigned n) {
        int i = filter_index(filter);

        if (i < 0)
                abort();
        refusals[i].error = error;
        refusals[i].n = n;
}

unsigned kqueue_double_count(int fd) {
        unsigned n = 0;

        lock_queues();
        list_for_each(entry, &queues) {
                const struct descriptor *d = find_descriptor(list_entry(entry, struct queue, link), (uintptr_t)fd);

                for (int i = 0; d && i < N_FILTERS; i++)
                        n += d->knotes[i] != NULL;
        }
        unlock_queues();
        return n;
}
