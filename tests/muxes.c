/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "muxes.h"

#include <stdlib.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"

struct mux *mux;

#ifdef MUX_DOUBLE /* all others have been tested without it */
static const char *name_at(int backend) {
        return backend == 0 ? MUX_DOUBLE : NULL;
}
#else
static const char *name_at(int backend) {
        return mux_backend_name_at((unsigned)backend);
}
#endif

int count_backends(void) {
        int n = 0;

        while (name_at(n))
                n++;
        return n;
}

void open_mux(int backend) {
        const char *name = name_at(backend);

        harness_label(name);
        ck_assert_int_eq(mux_open(name, &mux), 0);
        ck_assert_str_eq(mux_backend_name(mux), name);
}

void close_mux(void) {
        ck_assert_ptr_null(mux_close(mux));
}

void turn(int64_t timeout_nsec) {
        ck_assert_int_eq(mux_wait(mux, timeout_nsec), 0);
}

void turns(unsigned n) {
        while (n-- > 0)
                turn(0);
}

void raise_fd_limit(size_t n) {
        struct rlimit limit;

        assert_system(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
        if (limit.rlim_cur >= n + 64)
                return;
        limit.rlim_cur = limit.rlim_max;
        assert_system(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
        if (limit.rlim_cur < n + 64)
                harness_skip("too few descriptors are allowed");
}

/* ---- one descriptor ------------------------------------------------------------------------------ */

void count(struct mux_io *io, unsigned events) {
        struct counted *c = container_of(io, struct counted, io);

        c->calls++;
        c->events = events;
}

void add_counted(struct counted *c, int fd, unsigned events) {
        *c = (struct counted){ .io = MUX_IO_INIT };
        ck_assert_int_eq(mux_add(mux, &c->io, fd, events, count), 0);
}

unsigned calls_in_a_turn(struct counted *c) {
        unsigned before = c->calls;

        turn(0);
        return c->calls - before;
}

/* ---- many descriptors ---------------------------------------------------------------------------- */

struct many **many;
size_t n_many;
unsigned n_calls;
mux_io_fn *many_fn;

void on_many(struct mux_io *io, unsigned events) {
        struct many *m = container_of(io, struct many, io);

        ck_assert_uint_ne(events, 0);
        n_calls++;
        m->calls++;
        if (many_fn)
                many_fn(io, events);
}

void add_many(size_t n, bool ready, mux_io_fn *fn) {
        if (strcmp(mux_backend_name(mux), "select") == 0 && n > FD_SETSIZE - 64)
                harness_skip("select has no room for so many descriptors");
        raise_fd_limit(n);
        n_many = n;
        many_fn = fn;
        many = calloc(n, sizeof(*many));
        ck_assert_ptr_nonnull(many);
        for (size_t i = 0; i < n; i++) {
                many[i] = calloc(1, sizeof(*many[i]));
                ck_assert_ptr_nonnull(many[i]);
                many[i]->io = MUX_IO_INIT;
                many[i]->index = i;
                ck_assert_int_eq(mux_add(mux, &many[i]->io, make_eventfd(ready), MUX_IN, on_many), 0);
        }
}

void free_one(size_t i) {
        int fd = many[i] ? many[i]->io.fd : -1;

        if (!many[i])
                return;
        mux_remove(mux, &many[i]->io);
        if (fd >= 0)
                (void)close(fd);
        memset(many[i], 0xa5, sizeof(*many[i]));
        free(many[i]);
        many[i] = NULL;
}

void free_many(void) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
        free(many);
}

void remove_itself(struct mux_io *io, unsigned events _unused_) {
        int fd = io->fd;

        mux_remove(mux, io);
        (void)close(fd);
}

/* ---- timers -------------------------------------------------------------------------------------- */

uint64_t last_deadline;

void timed_fires(struct mux_timer *timer) {
        struct timed *t = container_of(timer, struct timed, timer);

        t->calls++;
        t->fired_nsec = monotonic_nsec();
        ck_assert_uint_ge(t->fired_nsec, t->timer.deadline_nsec);
        ck_assert_uint_ge(t->timer.deadline_nsec, last_deadline);
        last_deadline = t->timer.deadline_nsec;
}

void set_timed(struct timed *t, uint64_t deadline_nsec, mux_timer_fn *fn) {
        ck_assert_int_eq(mux_timer_set(mux, &t->timer, deadline_nsec, fn), 0);
}
