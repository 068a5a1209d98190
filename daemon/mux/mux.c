/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "mux.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend.h"
#include "heap.h"

enum {
        READY_MAX = 256,
        TIMERS_A_TURN = 64,
        NO_MEMORY_NSEC = 1000000, /* then the kernel is asked again */
};

struct mux {
        const struct mux_backend *backend;
        void *state;
        size_t n_ios;
        struct heap timers; /* by their deadlines */
        uint64_t turn;
        uint64_t timers_nsec; /* while timers run: those due by then do */
        struct list deferred;
        struct list barriers;
        struct mux_ready ready[READY_MAX]; /* tokens are struct mux_io, NULL once removed */
};

static const struct mux_backend *const backends[] = {
        &mux_backend_epoll,
#ifdef HAVE_KQUEUE
        &mux_backend_kqueue,
#endif
#ifdef HAVE_DEVPOLL
        &mux_backend_devpoll,
#endif
        &mux_backend_poll,
        &mux_backend_select,
};

const struct mux_backend *mux_backend_at(unsigned i) {
        return i < ARRAY_SIZE(backends) ? backends[i] : NULL;
}

const char *mux_backend_name_at(unsigned i) {
        return i < ARRAY_SIZE(backends) ? backends[i]->name : NULL;
}

static uint64_t clock_nsec(clockid_t clock) {
        struct timespec t;

        (void)clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

uint64_t monotonic_nsec(void) {
        return clock_nsec(CLOCK_MONOTONIC);
}

uint64_t realtime_nsec(void) {
        return clock_nsec(CLOCK_REALTIME);
}

uint64_t boottime_nsec(void) {
        return clock_nsec(CLOCK_BOOTTIME);
}

static const struct mux_backend *find_backend(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(backends); i++)
                if (!name || strcmp(backends[i]->name, name) == 0)
                        return backends[i];
        return NULL;
}

int mux_open(const char *backend_name, struct mux **ret_mux) {
        const struct mux_backend *backend = find_backend(backend_name);
        struct mux *mux;
        int r;

        if (!backend)
                return -EINVAL;
        mux = calloc(1, sizeof(*mux));
        if (!mux)
                return -ENOMEM;
        r = heap_reserve(&mux->timers);
        if (r == 0)
                r = backend->open(&mux->state);
        if (r < 0) {
                heap_free(&mux->timers);
                free(mux);
                return r;
        }
        mux->backend = backend;
        list_init(&mux->deferred);
        list_init(&mux->barriers);
        *ret_mux = mux;
        return 0;
}

struct mux *mux_close(struct mux *mux) {
        if (!mux)
                return NULL;
        mux->backend->close(mux->state);
        heap_free(&mux->timers);
        free(mux);
        return NULL;
}

const char *mux_backend_name(const struct mux *mux) {
        return mux->backend->name;
}

uint64_t mux_turn(const struct mux *mux) {
        return mux->turn;
}

/* ---- descriptors ------------------------------------------------------------- */

/* What the backend is asked for. */
static unsigned asked(const struct mux *mux, unsigned events, unsigned told) {
        return (mux->backend->tells_once ? events : events & ~(unsigned)MUX_ONCE) & ~told;
}

int mux_add(struct mux *mux, struct mux_io *io, int fd, unsigned events, mux_io_fn *fn) {
        int r = mux->backend->add(mux->state, fd, asked(mux, events, 0), io);

        if (r < 0)
                return r;
        *io = (struct mux_io){ .fn = fn, .fd = fd, .events = events, .ready_slot = -1 };
        mux->n_ios++;
        return 0;
}

int mux_modify(struct mux *mux, struct mux_io *io, unsigned events) {
        int r;

        if (io->events == events)
                return 0;
        r = mux->backend->modify(mux->state, io->fd, asked(mux, events, 0), io);
        if (r == 0) {
                io->events = events;
                io->told = 0;
        }
        return r;
}

int mux_rearm(struct mux *mux, struct mux_io *io, unsigned events) {
        unsigned told = io->told & ~events;
        int r;

        if (told == io->told)
                return 0;
        r = mux->backend->modify(mux->state, io->fd, asked(mux, io->events, told), io);
        if (r == 0)
                io->told = told;
        return r;
}

int mux_ask_again(struct mux *mux, struct mux_io *io) {
        int r = mux->backend->modify(mux->state, io->fd, asked(mux, io->events, 0), io);

        if (r == 0)
                io->told = 0;
        return r;
}

/* Where that fails it is told again. */
static void note_told(struct mux *mux, struct mux_io *io, unsigned events) {
        unsigned told = io->told | (events & (MUX_IN | MUX_OUT | MUX_PRI));

        if (told != io->told && mux->backend->modify(mux->state, io->fd, asked(mux, io->events, told), io) == 0)
                io->told = told;
}

void mux_remove(struct mux *mux, struct mux_io *io) {
        if (io->fd < 0)
                return;
        mux->backend->remove(mux->state, io->fd);
        if (io->ready_slot >= 0)
                mux->ready[io->ready_slot].token = NULL;
        *io = MUX_IO_INIT;
        mux->n_ios--;
}

/* ---- timers -------------------------------------------------------------------- */

int mux_timer_set(struct mux *mux, struct mux_timer *timer, uint64_t deadline_nsec, mux_timer_fn *fn) {
        uint64_t deadline = MAX(deadline_nsec, mux->timers_nsec + 1);
        int r = heap_set(&mux->timers, &timer->heap_index, deadline);

        if (r < 0)
                return r;
        timer->fn = fn;
        timer->deadline_nsec = deadline;
        return 0;
}

void mux_timer_clear(struct mux *mux, struct mux_timer *timer) {
        heap_clear(&mux->timers, &timer->heap_index);
}

/* Those that were due when the turn began, the earliest first: one that sets
 * itself again for now waits for the next turn, as do those there are too many of. */
static void run_timers(struct mux *mux) {
        uint32_t *first = heap_first(&mux->timers);

        if (!first)
                return;
        mux->timers_nsec = monotonic_nsec();
        for (unsigned n = 0; n < TIMERS_A_TURN && first; n++, first = heap_first(&mux->timers)) {
                struct mux_timer *timer = container_of(first, struct mux_timer, heap_index);

                if (timer->deadline_nsec > mux->timers_nsec)
                        break;
                mux_timer_clear(mux, timer);
                timer->fn(timer);
        }
        mux->timers_nsec = 0;
}

/* ---- deferred work and barriers ------------------------------------------------ */

void mux_deferred_init(struct mux_deferred *deferred, mux_deferred_fn *fn) {
        list_init(&deferred->link);
        deferred->fn = fn;
}

void mux_defer(struct mux *mux, struct mux_deferred *deferred) {
        if (list_empty(&deferred->link))
                list_append(&mux->deferred, &deferred->link);
}

void mux_deferred_cancel(struct mux_deferred *deferred) {
        list_remove(&deferred->link);
}

static void run_deferred(struct mux *mux) {
        struct list now;
        struct list *entry;

        list_init(&now);
        list_splice(&now, &mux->deferred);
        while ((entry = list_pop(&now))) {
                struct mux_deferred *deferred = list_entry(entry, struct mux_deferred, link);

                deferred->fn(deferred);
        }
}

void mux_barrier_init(struct mux_barrier *barrier, mux_deferred_fn *fn) {
        list_init(&barrier->link);
        mux_deferred_init(&barrier->deferred, fn);
}

void mux_barrier_cancel(struct mux_barrier *barrier) {
        list_remove(&barrier->link);
        mux_deferred_cancel(&barrier->deferred);
}

void mux_barrier_add(struct mux *mux, struct mux_barrier *barrier) {
        /* The kernel's list of what is ready goes round: so many passes see all of it. */
        barrier->passes = (unsigned)(mux->n_ios / READY_MAX + 1);
        mux_barrier_cancel(barrier);
        list_append(&mux->barriers, &barrier->link);
}

/* `now`: the barriers that were there before this turn's look at the kernel. */
static void pass_barriers(struct mux *mux, struct list *now, bool saw_all) {
        struct list *entry;

        while ((entry = list_pop(now))) {
                struct mux_barrier *barrier = container_of(entry, struct mux_barrier, link);

                if (saw_all || --barrier->passes == 0)
                        mux_defer(mux, &barrier->deferred);
                else
                        list_append(&mux->barriers, &barrier->link);
        }
}

/* ---- the turn ------------------------------------------------------------------ */

static int64_t time_to_wait(const struct mux *mux, int64_t timeout_nsec) {
        uint64_t now, deadline;

        if (!list_empty(&mux->deferred) || !list_empty(&mux->barriers))
                return 0;
        if (!heap_first(&mux->timers))
                return timeout_nsec;
        now = monotonic_nsec();
        deadline = heap_first_key(&mux->timers);
        if (deadline <= now)
                return 0;
        if (timeout_nsec >= 0 && deadline - now >= (uint64_t)timeout_nsec)
                return timeout_nsec;
        return (int64_t)MIN(deadline - now, (uint64_t)INT64_MAX);
}

static void run_ready(struct mux *mux, int n) {
        for (int i = 0; i < n; i++) {
                struct mux_io *io = mux->ready[i].token;

                if (!io)
                        continue;
                io->ready_slot = -1;
                if ((io->events & MUX_ONCE) && !mux->backend->tells_once)
                        note_told(mux, io, mux->ready[i].events);
                io->fn(io, mux->ready[i].events);
        }
}

int mux_wait(struct mux *mux, int64_t timeout_nsec) {
        struct list barriers;
        int n;

        mux->turn++;
        n = mux->backend->wait(mux->state, mux->ready, READY_MAX, time_to_wait(mux, timeout_nsec));
        if (n == -ENOMEM) { /* poll(2), select(2): nothing was asked, so a barrier is not passed either */
                (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &(struct timespec){ .tv_nsec = NO_MEMORY_NSEC }, NULL);
                return 0;
        }
        if (n < 0)
                return n;
        for (int i = 0; i < n; i++)
                ((struct mux_io *)mux->ready[i].token)->ready_slot = i;
        list_init(&barriers);
        list_splice(&barriers, &mux->barriers);
        run_timers(mux);
        run_ready(mux, n);
        pass_barriers(mux, &barriers, n < READY_MAX);
        run_deferred(mux);
        return 0;
}
