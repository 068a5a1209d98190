/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/: one contract for every backend, by name; then mailboxes.
 */

#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#include "harness.h"
#include "list.h"
#include "macro.h"
#include "mailbox.h"
#include "mux.h"
#include "unit.h"

enum { A_TURN = 256 }; /* so many callbacks fit into one */

static struct mux *mux;

static void open_mux(int backend) {
        const char *name = mux_backend_name_at((unsigned)backend);

        harness_label(name);
        ck_assert_int_eq(mux_open(name, &mux), 0);
        ck_assert_str_eq(mux_backend_name(mux), name);
}

static void close_mux(void) {
        ck_assert_ptr_null(mux_close(mux));
}

static void turn(int64_t timeout_nsec) {
        ck_assert_int_eq(mux_wait(mux, timeout_nsec), 0);
}

static void turns(unsigned n) {
        while (n-- > 0)
                turn(0);
}

static void make_ready(int fd) {
        uint64_t one = 1;

        assert_system(write(fd, &one, sizeof(one)) == sizeof(one), "write");
}

static void make_unready(int fd) {
        uint64_t value;

        assert_system(read(fd, &value, sizeof(value)) == sizeof(value), "read");
}

static int make_eventfd(bool ready) {
        int fd = eventfd(ready, EFD_CLOEXEC | EFD_NONBLOCK);

        assert_system(fd >= 0, "eventfd");
        return fd;
}

/* ---- one descriptor ------------------------------------------------------------------------------ */

/* An io that counts. */
struct counted {
        struct mux_io io;
        unsigned calls;
        unsigned events; /* of the last call */
};

static void count(struct mux_io *io, unsigned events) {
        struct counted *c = container_of(io, struct counted, io);

        c->calls++;
        c->events = events;
}

static void add_counted(struct counted *c, int fd, unsigned events) {
        *c = (struct counted){ .io = MUX_IO_INIT };
        ck_assert_int_eq(mux_add(mux, &c->io, fd, events, count), 0);
}

/* How often it is called in one turn that doesn't wait. */
static unsigned calls_in_a_turn(struct counted *c) {
        unsigned before = c->calls;

        turn(0);
        return c->calls - before;
}

START_TEST(backend_by_name) {
        struct mux *m = NULL;

        ck_assert_int_eq(mux_open("nothing", &m), -EINVAL);
        ck_assert_int_eq(mux_open("", &m), -EINVAL);
        ck_assert_ptr_null(m);
        ck_assert_ptr_null(mux_close(NULL));
        ck_assert_int_eq(mux_open(NULL, &m), 0);
        ck_assert_str_eq(mux_backend_name(m), mux_backend_name_at(0));
        mux_close(m);
        ck_assert_ptr_null(mux_backend_name_at(1000));
        ck_assert_ptr_null(mux_backend_at(1000));
}
END_TEST

START_TEST(add_and_remove) {
        int fd = make_eventfd(false);
        struct counted c;

        open_mux(_i);
        turn(0);
        add_counted(&c, fd, MUX_IN);
        ck_assert_int_eq(c.io.fd, fd);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        make_ready(fd);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_IN);
        /* Level-triggered. */
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        make_unready(fd);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);

        make_ready(fd);
        mux_remove(mux, &c.io);
        ck_assert_int_eq(c.io.fd, -1);
        mux_remove(mux, &c.io);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        add_counted(&c, fd, MUX_IN);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        mux_remove(mux, &c.io);
        close_mux();
        (void)close(fd);
}
END_TEST

START_TEST(modify) {
        int fd = make_eventfd(false); /* writable, not readable */
        struct counted c;

        open_mux(_i);
        add_counted(&c, fd, 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        ck_assert_int_eq(mux_modify(mux, &c.io, MUX_OUT), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_OUT);
        ck_assert_int_eq(mux_modify(mux, &c.io, MUX_OUT), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_int_eq(mux_modify(mux, &c.io, MUX_IN), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        make_ready(fd);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_IN);
        ck_assert_int_eq(mux_modify(mux, &c.io, MUX_IN | MUX_OUT), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_IN | MUX_OUT);
        ck_assert_int_eq(mux_modify(mux, &c.io, 0), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        mux_remove(mux, &c.io);
        close_mux();
        (void)close(fd);
}
END_TEST

START_TEST(add_twice) {
        int fd = make_eventfd(true);
        struct counted c, other = { .io = MUX_IO_INIT };

        open_mux(_i);
        add_counted(&c, fd, MUX_IN);
        ck_assert_int_eq(mux_add(mux, &other.io, fd, MUX_OUT, count), -EEXIST);
        ck_assert_int_eq(other.io.fd, -1);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_IN);
        ck_assert_uint_eq(other.calls, 0);
        mux_remove(mux, &other.io);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        mux_remove(mux, &c.io);
        close_mux();
        (void)close(fd);
}
END_TEST

static int add_error(int fd) {
        struct counted c = { .io = MUX_IO_INIT };
        int r = mux_add(mux, &c.io, fd, MUX_IN, count);

        if (r < 0)
                ck_assert_int_eq(c.io.fd, -1);
        mux_remove(mux, &c.io);
        turn(0);
        ck_assert_uint_eq(c.calls, 0);
        return r;
}

static int open_error(const char *path, int flags) {
        int fd = open(path, flags | O_CLOEXEC), r;

        assert_system(fd >= 0, path);
        r = add_error(fd);
        (void)close(fd);
        return r;
}

START_TEST(files_are_refused) {
        char path[PATH_MAX];

        open_mux(_i);
        (void)snprintf(path, sizeof(path), "%s/file", harness_tempdir());
        ck_assert_int_eq(open_error(path, O_RDWR | O_CREAT), -EPERM);
        ck_assert_int_eq(open_error(harness_tempdir(), O_RDONLY | O_DIRECTORY), -EPERM);
        close_mux();
}
END_TEST

static void raise_fd_limit(size_t n) {
        struct rlimit limit;

        assert_system(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
        if (limit.rlim_cur >= n + 64)
                return;
        limit.rlim_cur = limit.rlim_max;
        assert_system(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
        if (limit.rlim_cur < n + 64)
                harness_skip("too few descriptors are allowed");
}

START_TEST(closed_descriptors_are_refused) {
        int fd = make_eventfd(true);

        open_mux(_i);
        (void)close(fd);
        ck_assert_int_eq(add_error(fd), -EBADF);
        ck_assert_int_eq(add_error(-1), -EBADF);
        ck_assert_int_eq(add_error(INT_MAX), -EBADF);
        close_mux();
}
END_TEST

/* "Errors: those of epoll_ctl(2), on every backend." */
START_TEST(other_refusals_are_those_of_epoll) {
        open_mux(_i);
        if (_i == 0) /* a device that can't be waited for: only epoll knows */
                ck_assert_int_eq(open_error("/dev/null", O_RDONLY), -EPERM);
        ck_assert_int_eq(open_error("/dev/null", O_PATH), -EBADF);
        ck_assert_int_eq(open_error(harness_tempdir(), O_PATH), -EBADF);
        close_mux();
}
END_TEST

/* What there is no room for is refused, and disturbs none of the others. */
START_TEST(numbers_beyond_the_room) {
        struct counted in;
        struct mux_io io;
        int fd = make_eventfd(true), far, r;

        open_mux(_i);
        add_counted(&in, fd, MUX_IN);
        raise_fd_limit(FD_SETSIZE + 1);
        far = fcntl(fd, F_DUPFD_CLOEXEC, FD_SETSIZE);
        assert_system(far >= FD_SETSIZE, "F_DUPFD_CLOEXEC");
        r = mux_add(mux, &io, far, MUX_IN, NULL);
        ck_assert_int_eq(r, strcmp(mux_backend_name(mux), "select") == 0 ? -EMFILE : 0);
        if (r == 0)
                mux_remove(mux, &io);
        ck_assert_uint_eq(calls_in_a_turn(&in), 1);
        mux_remove(mux, &in.io);
        (void)close(far);
        (void)close(fd);
        close_mux();
}
END_TEST

START_TEST(hup_and_err_unasked) {
        struct counted in, out;
        int fds[2];

        open_mux(_i);
        assert_system(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
        add_counted(&in, fds[0], 0);
        ck_assert_uint_eq(calls_in_a_turn(&in), 0);
        (void)close(fds[1]);
        ck_assert_uint_eq(calls_in_a_turn(&in), 1);
        ck_assert_uint_eq(in.events, MUX_HUP);
        mux_remove(mux, &in.io);
        (void)close(fds[0]);

        assert_system(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
        add_counted(&out, fds[1], 0);
        (void)close(fds[0]);
        ck_assert_uint_eq(calls_in_a_turn(&out), 1);
        ck_assert_uint_eq(out.events, MUX_ERR);
        ck_assert_int_eq(mux_modify(mux, &out.io, MUX_OUT), 0);
        ck_assert_uint_eq(calls_in_a_turn(&out), 1);
        ck_assert_uint_eq(out.events, MUX_ERR | MUX_OUT);
        mux_remove(mux, &out.io);
        (void)close(fds[1]);
        close_mux();
}
END_TEST

/* A socket's end: what is left can be read, and the end as well. */
START_TEST(end_of_a_socket) {
        struct counted c;
        int fds[2];

        open_mux(_i);
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        add_counted(&c, fds[0], MUX_IN);
        assert_system(write(fds[1], "x", 1) == 1, "write");
        (void)close(fds[1]);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_IN | MUX_HUP);
        mux_remove(mux, &c.io);
        (void)close(fds[0]);
        close_mux();
}
END_TEST

/* A peer that only won't write any more has not hung up. */
START_TEST(half_an_end_of_a_socket) {
        struct counted c;
        int fds[2];

        open_mux(_i);
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        add_counted(&c, fds[0], MUX_IN);
        assert_system(shutdown(fds[1], SHUT_WR) == 0, "shutdown");
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_IN);
        ck_assert_int_eq(mux_modify(mux, &c.io, MUX_IN | MUX_OUT), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_IN | MUX_OUT);
        ck_assert_int_eq(mux_modify(mux, &c.io, 0), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        (void)close(fds[1]);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_HUP);
        mux_remove(mux, &c.io);
        (void)close(fds[0]);
        close_mux();
}
END_TEST

static uint64_t used_nsec(void) {
        struct timespec t;

        assert_system(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) == 0, "clock_gettime");
        return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* What nobody wants to read or write lets the loop sleep, be there data, room, and half an end. */
START_TEST(what_nobody_wants_is_left_alone) {
        struct counted c;
        uint64_t start, used;
        int fds[2];

        open_mux(_i);
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        add_counted(&c, fds[0], 0);
        assert_system(write(fds[1], "x", 1) == 1, "write");
        assert_system(shutdown(fds[1], SHUT_WR) == 0, "shutdown");
        start = monotonic_nsec();
        used = used_nsec();
        turn(200 * (int64_t)NSEC_PER_MSEC);
        ck_assert_uint_ge(monotonic_nsec() - start, 199 * NSEC_PER_MSEC);
        ck_assert_uint_lt(used_nsec() - used, 50 * NSEC_PER_MSEC);
        ck_assert_uint_eq(c.calls, 0);
        mux_remove(mux, &c.io);
        (void)close(fds[0]);
        (void)close(fds[1]);
        close_mux();
}
END_TEST

static void *close_later(void *fd) {
        (void)poll(NULL, 0, 50);
        (void)close(*(int *)fd);
        return NULL;
}

/* Its end comes while the loop sleeps. Level-triggered, as everything. */
START_TEST(an_end_ends_the_wait) {
        struct counted c;
        pthread_t thread;
        int fds[2];

        open_mux(_i);
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        add_counted(&c, fds[0], 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, close_later, &fds[1]), 0);
        turn(20 * (int64_t)NSEC_PER_SEC);
        ck_assert_uint_eq(c.calls, 1);
        ck_assert_uint_eq(c.events, MUX_HUP);
        turn(-1);
        ck_assert_uint_eq(c.calls, 2);
        ck_assert_int_eq(mux_modify(mux, &c.io, MUX_OUT), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events & MUX_HUP, MUX_HUP);
        ck_assert_int_eq(mux_modify(mux, &c.io, 0), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_HUP);
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        mux_remove(mux, &c.io);
        (void)close(fds[0]);
        close_mux();
}
END_TEST

static void connect_tcp(int fds[2]) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(address);
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        assert_system(listener >= 0, "socket");
        assert_system(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
        assert_system(listen(listener, 1) == 0, "listen");
        assert_system(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
        fds[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_system(connect(fds[0], (struct sockaddr *)&address, sizeof(address)) == 0, "connect");
        fds[1] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_system(fds[1] >= 0, "accept4");
        (void)close(listener);
}

/* A socket's error that isn't its end: nobody listens where it sends to. */
START_TEST(an_error_is_told) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t size = sizeof(address);
        struct counted c;
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), other = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        open_mux(_i);
        assert_system(fd >= 0 && other >= 0, "socket");
        assert_system(bind(other, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
        assert_system(getsockname(other, (struct sockaddr *)&address, &size) == 0, "getsockname");
        assert_system(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "connect");
        (void)close(other);
        add_counted(&c, fd, MUX_IN);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        assert_system(send(fd, "x", 1, 0) == 1, "send");
        turn(20 * (int64_t)NSEC_PER_SEC);
        ck_assert_uint_eq(c.calls, 1);
        ck_assert_uint_eq(c.events & MUX_ERR, MUX_ERR);
        ck_assert_int_eq(mux_modify(mux, &c.io, 0), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_ERR);
        mux_remove(mux, &c.io);
        (void)close(fd);
        close_mux();
}
END_TEST

START_TEST(pri) {
        struct counted c;
        int fds[2];

        open_mux(_i);
        connect_tcp(fds);
        add_counted(&c, fds[1], MUX_PRI);
        assert_system(send(fds[0], "a", 1, 0) == 1, "send");
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        assert_system(send(fds[0], "b", 1, MSG_OOB) == 1, "send");
        turn((int64_t)NSEC_PER_SEC);
        ck_assert_uint_eq(c.calls, 1);
        ck_assert_uint_eq(c.events, MUX_PRI);
        mux_remove(mux, &c.io);
        (void)close(fds[0]);
        (void)close(fds[1]);
        close_mux();
}
END_TEST

/* ---- callbacks that change what is watched --------------------------------------------------------- */

/* Many ios, on memory of their own. */
struct many {
        struct mux_io io;
        size_t index;
        unsigned calls;
};

static struct many **many;
static size_t n_many;
static unsigned n_calls; /* of all together */
static mux_io_fn *many_fn;

static void on_many(struct mux_io *io, unsigned events) {
        struct many *m = container_of(io, struct many, io);

        ck_assert_uint_ne(events, 0);
        n_calls++;
        m->calls++;
        if (many_fn)
                many_fn(io, events);
}

static void add_many(size_t n, bool ready, mux_io_fn *fn) {
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

static void free_one(size_t i) {
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

static void free_many(void) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
        free(many);
}

static void remove_itself(struct mux_io *io, unsigned events _unused_) {
        int fd = io->fd;

        mux_remove(mux, io);
        (void)close(fd);
}

START_TEST(remove_itself_in_callback) {
        open_mux(_i);
        add_many(3, true, remove_itself);
        turns(3);
        ck_assert_uint_eq(n_calls, 3);
        for (size_t i = 0; i < 3; i++)
                ck_assert_uint_eq(many[i]->calls, 1);
        free_many();
        close_mux();
}
END_TEST

static void remove_the_others(struct mux_io *io, unsigned events _unused_) {
        for (size_t i = 0; i < n_many; i++)
                if (many[i] && &many[i]->io != io)
                        free_one(i);
}

/* All are ready; the one that is called first frees the others. */
START_TEST(free_others_in_callback) {
        open_mux(_i);
        add_many(200, true, remove_the_others);
        turn(0);
        ck_assert_uint_eq(n_calls, 1);
        turn(0);
        ck_assert_uint_eq(n_calls, 2);
        free_many();
        close_mux();
}
END_TEST

static void remove_all(struct mux_io *io _unused_, unsigned events _unused_) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
}

START_TEST(free_all_in_callback) {
        open_mux(_i);
        add_many(200, true, remove_all);
        turns(3);
        ck_assert_uint_eq(n_calls, 1);
        free_many();
        close_mux();
}
END_TEST

static struct counted replacement;

/* The numbers of what is closed are taken again at once. */
static void replace_all(struct mux_io *io _unused_, unsigned events _unused_) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
        add_counted(&replacement, make_eventfd(false), MUX_IN);
}

START_TEST(a_new_descriptor_inherits_nothing) {
        open_mux(_i);
        add_many(20, true, replace_all);
        turns(3);
        ck_assert_uint_eq(n_calls, 1);
        ck_assert_uint_eq(replacement.calls, 0);
        make_ready(replacement.io.fd);
        ck_assert_uint_eq(calls_in_a_turn(&replacement), 1);
        remove_itself(&replacement.io, 0);
        free_many();
        close_mux();
}
END_TEST

static void again(struct mux_io *io, unsigned events _unused_) {
        int fd = io->fd;

        mux_remove(mux, io);
        ck_assert_int_eq(mux_add(mux, io, fd, MUX_IN, on_many), 0);
}

START_TEST(remove_and_add_itself) {
        open_mux(_i);
        add_many(10, true, again);
        turns(4);
        ck_assert_uint_eq(n_calls, 40);
        for (size_t i = 0; i < 10; i++)
                ck_assert_uint_eq(many[i]->calls, 4);
        free_many();
        close_mux();
}
END_TEST

static struct mux_timer remover;

static void remover_fires(struct mux_timer *timer _unused_) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
}

/* Timers run before the descriptors of the same turn. */
START_TEST(free_in_timer) {
        open_mux(_i);
        add_many(10, true, NULL);
        ck_assert_int_eq(mux_timer_set(mux, &remover, 1, remover_fires), 0);
        turns(2);
        ck_assert_uint_eq(n_calls, 0);
        free_many();
        close_mux();
}
END_TEST

static void remover_removes_one(struct mux_timer *timer _unused_) {
        mux_remove(mux, &many[0]->io);
}

/* The same where the memory stays: it isn't called all the same. */
START_TEST(remove_in_timer) {
        int fd;

        open_mux(_i);
        add_many(2, true, NULL);
        fd = many[0]->io.fd;
        ck_assert_int_eq(mux_timer_set(mux, &remover, 1, remover_removes_one), 0);
        turn(0);
        ck_assert_uint_eq(many[0]->calls, 0);
        ck_assert_uint_eq(many[1]->calls, 1);
        (void)close(fd);
        free_many();
        close_mux();
}
END_TEST

static struct mux_deferred deferred_remover;

static void deferred_removes(struct mux_deferred *deferred _unused_) {
        for (size_t i = 0; i < n_many; i++)
                free_one(i);
}

START_TEST(free_in_deferred) {
        open_mux(_i);
        add_many(600, true, NULL);
        mux_deferred_init(&deferred_remover, deferred_removes);
        turn(0);
        mux_defer(mux, &deferred_remover);
        turns(3);
        ck_assert_uint_eq(n_calls, 2 * A_TURN);
        free_many();
        close_mux();
}
END_TEST

static struct random chance;

static void change_anything(struct mux_io *io, unsigned events _unused_) {
        for (size_t n = random_below(&chance, 4); n > 0; n--) {
                size_t i = random_below(&chance, n_many);

                switch (random_below(&chance, 4)) {
                case 0:
                        free_one(i);
                        break;
                case 1:
                        if (many[i])
                                ck_assert_int_eq(mux_modify(mux, &many[i]->io, MUX_IN | MUX_OUT), 0);
                        break;
                default:
                        if (many[i])
                                break;
                        many[i] = calloc(1, sizeof(*many[i]));
                        ck_assert_ptr_nonnull(many[i]);
                        many[i]->io = MUX_IO_INIT;
                        many[i]->index = i;
                        ck_assert_int_eq(mux_add(mux, &many[i]->io, make_eventfd(true), MUX_IN, on_many), 0);
                        break;
                }
        }
        (void)io;
}

/* Callbacks add, remove and change at random; each one that is called is there, and in time all
 * that are there have been. */
START_TEST(random_changes) {
        open_mux(_i);
        chance = (struct random){ 21 };
        add_many(500, true, change_anything);
        turns(500);
        many_fn = NULL;
        for (size_t i = 0; i < n_many; i++)
                if (many[i])
                        many[i]->calls = 0;
        turns((unsigned)(n_many / A_TURN + 1));
        for (size_t i = 0; i < n_many; i++)
                ck_assert_msg(!many[i] || many[i]->calls > 0, "number %zu was not called", i);
        free_many();
        close_mux();
}
END_TEST

/* ---- many ---------------------------------------------------------------------------------------------- */

START_TEST(all_that_are_ready_are_served) {
        open_mux(_i);
        add_many(1000, true, NULL);
        turns(1000 / A_TURN + 1);
        for (size_t i = 0; i < n_many; i++)
                ck_assert_msg(many[i]->calls > 0, "number %zu was not called", i);
        free_many();
        close_mux();
}
END_TEST

static void for_both(struct mux_io *io _unused_, unsigned events) {
        ck_assert_uint_eq(events, MUX_IN | MUX_OUT);
}

/* One call for both directions, and as many calls a turn. */
START_TEST(both_directions_at_once) {
        open_mux(_i);
        add_many(600, true, for_both);
        for (size_t i = 0; i < n_many; i++)
                ck_assert_int_eq(mux_modify(mux, &many[i]->io, MUX_IN | MUX_OUT), 0);
        turn(0);
        ck_assert_uint_eq(n_calls, A_TURN);
        turns(600 / A_TURN);
        for (size_t i = 0; i < n_many; i++)
                ck_assert_msg(many[i]->calls > 0, "number %zu was not called", i);
        free_many();
        close_mux();
}
END_TEST

/* They stay ready: each gets its share. */
START_TEST(none_starves) {
        unsigned least = UINT_MAX, most = 0;

        open_mux(_i);
        add_many(700, true, NULL);
        turns(200);
        for (size_t i = 0; i < n_many; i++) {
                least = MIN(least, many[i]->calls);
                most = MAX(most, many[i]->calls);
        }
        ck_assert_uint_ge(n_calls, 200 * A_TURN / 2);
        ck_assert_msg(most - least <= 2, "from %u to %u calls", least, most);
        free_many();
        close_mux();
}
END_TEST

/* 300 are busy all the time; any other one that becomes ready is served soon. */
START_TEST(the_busy_do_not_starve_others) {
        open_mux(_i);
        add_many(900, false, NULL);
        for (size_t i = 300; i < 600; i++)
                make_ready(many[i]->io.fd);
        turns(5);
        for (size_t i = 0; i < 900; i += i == 299 ? 301 : 1) {
                many[i]->calls = 0;
                make_ready(many[i]->io.fd);
                turns(2);
                ck_assert_msg(many[i]->calls > 0, "number %zu was not called", i);
                make_unready(many[i]->io.fd);
        }
        free_many();
        close_mux();
}
END_TEST

/* Each is called once and removes itself. */
START_TEST(many_that_remove_themselves) {
        open_mux(_i);
        add_many(1000, true, remove_itself);
        turns(1000 / A_TURN + 1);
        ck_assert_uint_eq(n_calls, 1000);
        turns(2);
        ck_assert_uint_eq(n_calls, 1000);
        free_many();
        close_mux();
}
END_TEST

/* ---- timers -------------------------------------------------------------------------------------------- */

struct timed {
        struct mux_timer timer;
        unsigned calls;
        uint64_t fired_nsec;
        struct timed *other;
        bool model_set;
        uint64_t model_deadline;
};

static uint64_t last_deadline; /* of what fired last */

static void timed_fires(struct mux_timer *timer) {
        struct timed *t = container_of(timer, struct timed, timer);

        t->calls++;
        t->fired_nsec = monotonic_nsec();
        ck_assert_uint_ge(t->fired_nsec, t->timer.deadline_nsec);
        ck_assert_uint_ge(t->timer.deadline_nsec, last_deadline);
        last_deadline = t->timer.deadline_nsec;
}

static void set_timed(struct timed *t, uint64_t deadline_nsec, mux_timer_fn *fn) {
        ck_assert_int_eq(mux_timer_set(mux, &t->timer, deadline_nsec, fn), 0);
}

START_TEST(timers_fire_in_order) {
        static struct timed timers[500];
        struct random r = { 31 };
        uint64_t start;
        unsigned fired = 0;

        open_mux(_i);
        start = monotonic_nsec();
        for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
                set_timed(&timers[i], start - 5 * NSEC_PER_MSEC + random_below(&r, 25 * NSEC_PER_MSEC), timed_fires);
        while (monotonic_nsec() < start + 21 * NSEC_PER_MSEC)
                turn(2 * (int64_t)NSEC_PER_MSEC);
        for (int i = 0; i < 4; i++) /* where the machine stood still they are all due now: so many turns' worth */
                turn(0);
        for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
                fired += timers[i].calls;
        ck_assert_uint_eq(fired, ARRAY_SIZE(timers));
        turn(0);
        for (size_t i = 0; i < ARRAY_SIZE(timers); i++)
                ck_assert_uint_eq(timers[i].calls, 1);
        close_mux();
}
END_TEST

/* Waiting for a timer is one sleep, not many. */
START_TEST(timers_are_not_early_and_not_polled) {
        static const uint64_t delays[] = { 1, 1000, 300000, 999999, 1000000, 1000001, 3500000, 20000000 };
        struct timed t = { 0 };

        open_mux(_i);
        for (size_t i = 0; i < ARRAY_SIZE(delays); i++) {
                unsigned n = 0;

                last_deadline = 0;
                t.calls = 0;
                set_timed(&t, monotonic_nsec() + delays[i], timed_fires);
                for (; t.calls == 0; n++)
                        turn(-1);
                ck_assert_msg(n <= 3, "%u turns for %llu ns", n, (unsigned long long)delays[i]);
        }
        close_mux();
}
END_TEST

START_TEST(the_wait_is_as_long_as_asked) {
        struct timed t = { 0 };
        uint64_t start;

        open_mux(_i);
        start = monotonic_nsec();
        turn(15 * (int64_t)NSEC_PER_MSEC);
        ck_assert_uint_ge(monotonic_nsec() - start, 14 * NSEC_PER_MSEC);

        /* A timer that is far off changes nothing, one that is near ends it. */
        set_timed(&t, monotonic_nsec() + 3600 * NSEC_PER_SEC, timed_fires);
        start = monotonic_nsec();
        turn(15 * (int64_t)NSEC_PER_MSEC);
        ck_assert_uint_ge(monotonic_nsec() - start, 14 * NSEC_PER_MSEC);
        ck_assert_uint_lt(monotonic_nsec() - start, 5 * NSEC_PER_SEC);
        set_timed(&t, monotonic_nsec() + 5 * NSEC_PER_MSEC, timed_fires);
        turn(3600 * (int64_t)NSEC_PER_SEC);
        ck_assert_uint_lt(monotonic_nsec() - start, 20 * NSEC_PER_SEC);
        turn(0);
        ck_assert_uint_eq(t.calls, 1);

        set_timed(&t, UINT64_MAX, timed_fires);
        turn(0);
        turn(2 * (int64_t)NSEC_PER_MSEC);
        ck_assert_uint_eq(t.calls, 1);
        mux_timer_clear(mux, &t.timer);
        close_mux();
}
END_TEST

static void clear_other(struct mux_timer *timer) {
        struct timed *t = container_of(timer, struct timed, timer);

        t->calls++;
        mux_timer_clear(mux, timer);
        mux_timer_clear(mux, &t->other->timer);
}

START_TEST(clear_in_callback) {
        struct timed a = { 0 }, b = { .other = &a };

        open_mux(_i);
        a.other = &b;
        set_timed(&a, 5, clear_other);
        set_timed(&b, 5, clear_other);
        turns(3);
        ck_assert_uint_eq(a.calls + b.calls, 1);
        set_timed(&a, 5, clear_other);
        mux_timer_clear(mux, &a.timer);
        mux_timer_clear(mux, &a.timer);
        turn(0);
        ck_assert_uint_eq(a.calls + b.calls, 1);
        close_mux();
}
END_TEST

static struct timed *heap_timers[50];

static void free_timers(struct mux_timer *timer) {
        n_calls++;
        for (size_t i = 0; i < ARRAY_SIZE(heap_timers); i++) {
                if (&heap_timers[i]->timer != timer)
                        mux_timer_clear(mux, &heap_timers[i]->timer);
                free(heap_timers[i]);
        }
}

START_TEST(free_timers_in_callback) {
        open_mux(_i);
        for (size_t i = 0; i < ARRAY_SIZE(heap_timers); i++) {
                heap_timers[i] = calloc(1, sizeof(**heap_timers));
                ck_assert_ptr_nonnull(heap_timers[i]);
                set_timed(heap_timers[i], 1 + i % 7, free_timers);
        }
        turns(2);
        ck_assert_uint_eq(n_calls, 1);
        close_mux();
}
END_TEST

static void set_again_soon(struct mux_timer *timer) {
        struct timed *t = container_of(timer, struct timed, timer);

        ck_assert_msg(++t->calls < 1000, "the timer keeps the loop from the kernel");
        set_timed(t, monotonic_nsec(), set_again_soon);
}

START_TEST(set_again_in_callback) {
        struct timed t = { 0 };

        open_mux(_i);
        set_timed(&t, 1, set_again_soon);
        turn(0);
        ck_assert_uint_eq(t.calls, 1);
        turn(-1);
        ck_assert_uint_eq(t.calls, 2);
        mux_timer_clear(mux, &t.timer);
        turn(0);
        ck_assert_uint_eq(t.calls, 2);
        close_mux();
}
END_TEST

static void set_again_for_the_past(struct mux_timer *timer) {
        struct timed *t = container_of(timer, struct timed, timer);

        ck_assert_msg(++t->calls < 1000, "the timer keeps the loop from the kernel");
        set_timed(t, 1, set_again_for_the_past);
}

/* "One that sets itself again for now waits for the next turn": for earlier too. */
START_TEST(set_again_in_callback_for_the_past) {
        struct timed t = { 0 };

        open_mux(_i);
        set_timed(&t, 1, set_again_for_the_past);
        turn(0);
        ck_assert_uint_eq(t.calls, 1);
        turn(-1);
        ck_assert_uint_eq(t.calls, 2);
        mux_timer_clear(mux, &t.timer);
        close_mux();
}
END_TEST

START_TEST(set_twice_fires_once) {
        struct timed t = { 0 };

        open_mux(_i);
        set_timed(&t, 1, timed_fires);
        set_timed(&t, monotonic_nsec() + 5 * NSEC_PER_MSEC, timed_fires);
        turn(0);
        ck_assert_uint_eq(t.calls, 0);
        turn(-1);
        turn(0);
        ck_assert_uint_eq(t.calls, 1);
        close_mux();
}
END_TEST

/* Set and cleared at random, all of them due: they fire in the order of a sorted array. */
START_TEST(random_timers) {
        static struct timed timers[300];
        struct random r = { 32 };

        open_mux(_i);
        for (unsigned round = 0; round < 200; round++) {
                for (unsigned i = 0; i < 600; i++) {
                        struct timed *t = &timers[random_below(&r, ARRAY_SIZE(timers))];

                        t->model_set = !random_once_in(&r, 3);
                        t->model_deadline = 1 + random_below(&r, 1000);
                        if (t->model_set)
                                set_timed(t, t->model_deadline, timed_fires);
                        else
                                mux_timer_clear(mux, &t->timer);
                }
                last_deadline = 0;
                turn(0);
                for (size_t i = 0; i < ARRAY_SIZE(timers); i++) {
                        ck_assert_uint_eq(timers[i].calls, timers[i].model_set);
                        if (timers[i].model_set)
                                ck_assert_uint_eq(timers[i].timer.deadline_nsec, timers[i].model_deadline);
                        timers[i].calls = timers[i].model_set = 0;
                }
        }
        close_mux();
}
END_TEST

/* ---- deferred work ------------------------------------------------------------------------------------------ */

struct work_item {
        struct mux_deferred deferred;
        unsigned calls, place;
        struct work_item *defers, *cancels;
};

static void on_deferred(struct mux_deferred *deferred) {
        struct work_item *w = container_of(deferred, struct work_item, deferred);

        w->calls++;
        w->place = ++n_calls;
        if (w->defers)
                mux_defer(mux, &w->defers->deferred);
        if (w->cancels)
                mux_deferred_cancel(&w->cancels->deferred);
}

static void init_items(struct work_item *items, size_t n) {
        for (size_t i = 0; i < n; i++) {
                items[i] = (struct work_item){ 0 };
                mux_deferred_init(&items[i].deferred, on_deferred);
        }
}

START_TEST(deferred_in_order_and_once) {
        struct work_item w[3];

        open_mux(_i);
        init_items(w, 3);
        mux_defer(mux, &w[2].deferred);
        mux_defer(mux, &w[0].deferred);
        mux_defer(mux, &w[2].deferred);
        mux_defer(mux, &w[1].deferred);
        turn(-1); /* doesn't wait */
        ck_assert_uint_eq(w[2].place, 1);
        ck_assert_uint_eq(w[0].place, 2);
        ck_assert_uint_eq(w[1].place, 3);
        turn(0);
        ck_assert_uint_eq(n_calls, 3);
        mux_defer(mux, &w[1].deferred);
        turn(-1);
        ck_assert_uint_eq(w[1].calls, 2);
        close_mux();
}
END_TEST

START_TEST(deferred_by_deferred_runs_in_the_next_turn) {
        struct work_item w[2];

        open_mux(_i);
        init_items(w, 2);
        w[0].defers = &w[0];
        w[1].defers = &w[1];
        mux_defer(mux, &w[0].deferred);
        mux_defer(mux, &w[1].deferred);
        for (unsigned i = 1; i <= 5; i++) {
                turn(-1);
                ck_assert_uint_eq(w[0].calls, i);
                ck_assert_uint_eq(w[1].calls, i);
        }
        w[0].defers = w[1].defers = NULL;
        turn(-1);
        turn(0);
        ck_assert_uint_eq(n_calls, 12);
        close_mux();
}
END_TEST

/* What keeps on deferring itself doesn't keep the loop from timers and descriptors. */
START_TEST(deferred_and_others) {
        struct work_item w[1];
        struct timed t = { 0 };
        struct counted c;
        int fd = make_eventfd(true);

        open_mux(_i);
        init_items(w, 1);
        w[0].defers = &w[0];
        mux_defer(mux, &w[0].deferred);
        add_counted(&c, fd, MUX_IN);
        set_timed(&t, 1, timed_fires);
        turns(2);
        ck_assert_uint_eq(c.calls, 2);
        ck_assert_uint_eq(t.calls, 1);
        mux_deferred_cancel(&w[0].deferred);
        mux_remove(mux, &c.io);
        (void)close(fd);
        close_mux();
}
END_TEST

START_TEST(deferred_cancel) {
        struct work_item w[3];

        open_mux(_i);
        init_items(w, 3);
        w[0].cancels = &w[1];
        mux_defer(mux, &w[0].deferred);
        mux_defer(mux, &w[1].deferred);
        mux_defer(mux, &w[2].deferred);
        turn(0);
        ck_assert_uint_eq(w[0].calls, 1);
        ck_assert_uint_eq(w[1].calls, 0);
        ck_assert_uint_eq(w[2].calls, 1);
        mux_defer(mux, &w[2].deferred);
        mux_deferred_cancel(&w[2].deferred);
        mux_deferred_cancel(&w[2].deferred);
        turn(0);
        ck_assert_uint_eq(w[2].calls, 1);
        mux_defer(mux, &w[1].deferred);
        turn(0);
        ck_assert_uint_eq(w[1].calls, 1);
        close_mux();
}
END_TEST

static struct work_item from_callback;

static void defer_from_callback(struct mux_io *io _unused_, unsigned events _unused_) {
        ck_assert_uint_eq(from_callback.calls, 0);
        mux_defer(mux, &from_callback.deferred);
}

START_TEST(deferred_by_a_callback_runs_in_the_same_turn) {
        open_mux(_i);
        init_items(&from_callback, 1);
        add_many(3, true, defer_from_callback);
        turn(0);
        ck_assert_uint_eq(from_callback.calls, 1);
        free_many();
        close_mux();
}
END_TEST

/* ---- barriers ----------------------------------------------------------------------------------------------- */

struct gate {
        struct mux_barrier barrier;
        unsigned calls;
        size_t n_uncalled; /* of all ios, when it opened */
};

static void gate_opens(struct mux_deferred *deferred) {
        struct gate *g = container_of(container_of(deferred, struct mux_barrier, deferred), struct gate, barrier);

        g->calls++;
        for (size_t i = 0; i < n_many; i++)
                g->n_uncalled += many[i] && many[i]->calls == 0;
}

static void add_gate(struct gate *g) {
        *g = (struct gate){ 0 };
        mux_barrier_init(&g->barrier, gate_opens);
        mux_barrier_add(mux, &g->barrier);
}

/* Turns that don't wait, until it opens. */
static unsigned turns_until_open(struct gate *g) {
        unsigned n = 0;

        for (; g->calls == 0; n++) {
                ck_assert_uint_lt(n, 100);
                turn(-1);
        }
        return n;
}

START_TEST(barrier_with_nothing_ready) {
        struct gate g;

        open_mux(_i);
        add_many(3, false, NULL);
        add_gate(&g);
        ck_assert_uint_eq(turns_until_open(&g), 1);
        turns(3);
        ck_assert_uint_eq(g.calls, 1);
        free_many();
        close_mux();
}
END_TEST

START_TEST(barrier_waits_for_all) {
        static const size_t sizes[] = { 1, 10, A_TURN - 1, A_TURN, A_TURN + 1, 2 * A_TURN, 1000, 1500 };

        open_mux(_i);
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                struct gate g;
                unsigned n;

                add_many(sizes[i], true, NULL);
                add_gate(&g);
                n = turns_until_open(&g);
                ck_assert_msg(g.n_uncalled == 0, "with %zu ready, %zu were not called", sizes[i], g.n_uncalled);
                ck_assert_uint_le(n, sizes[i] / A_TURN + 2);
                free_many();
        }
        close_mux();
}
END_TEST

/* Turns in which more than fits was ready have gone before: the barrier begins anywhere. */
START_TEST(barrier_begins_anywhere) {
        open_mux(_i);
        add_many(700, true, NULL);
        for (unsigned before = 0; before < 6; before++) {
                struct gate g;

                turns(before);
                for (size_t i = 0; i < n_many; i++)
                        many[i]->calls = 0;
                add_gate(&g);
                (void)turns_until_open(&g);
                ck_assert_msg(g.n_uncalled == 0, "%zu were not called", g.n_uncalled);
        }
        free_many();
        close_mux();
}
END_TEST

/* Some of those that were called are removed: what is left keeps its turn. */
static void some_remove_themselves(struct mux_io *io, unsigned events) {
        if (n_calls > 200 && n_calls <= A_TURN)
                remove_itself(io, events);
}

START_TEST(barrier_and_removals) {
        struct gate g;

        open_mux(_i);
        add_many(600, true, some_remove_themselves);
        add_gate(&g);
        (void)turns_until_open(&g);
        ck_assert_msg(g.n_uncalled == 0, "%zu were not called", g.n_uncalled);
        free_many();
        close_mux();
}
END_TEST

static void random_remove_themselves(struct mux_io *io, unsigned events) {
        if (random_once_in(&chance, 5))
                remove_itself(io, events);
}

START_TEST(barrier_and_random_removals) {
        open_mux(_i);
        for (uint64_t round = 0; round < 30; round++) {
                struct gate g;

                chance = (struct random){ round };
                add_many(300 + random_below(&chance, 900), true, random_remove_themselves);
                add_gate(&g);
                (void)turns_until_open(&g);
                ck_assert_msg(g.n_uncalled == 0, "seed %llu: %zu were not called", (unsigned long long)round, g.n_uncalled);
                free_many();
        }
        close_mux();
}
END_TEST

static struct gate inner;

static void gate_from_callback(struct mux_io *io, unsigned events _unused_) {
        struct many *m = container_of(io, struct many, io);

        if (m->calls > 1)
                return;
        /* The others are ready from now on, and have been called never or before. */
        for (size_t i = 0; i < n_many; i++)
                if (many[i] != m) {
                        make_ready(many[i]->io.fd);
                        many[i]->calls = 0;
                }
        many_fn = NULL;
        add_gate(&inner);
}

START_TEST(barrier_from_a_callback) {
        open_mux(_i);
        add_many(400, false, gate_from_callback);
        make_ready(many[17]->io.fd);
        turn(0);
        (void)turns_until_open(&inner);
        ck_assert_uint_eq(inner.n_uncalled, 0);
        free_many();
        close_mux();
}
END_TEST

START_TEST(barrier_cancel) {
        struct gate a, b;

        open_mux(_i);
        add_many(600, true, NULL);
        add_gate(&a);
        add_gate(&b);
        turn(0);
        mux_barrier_cancel(&a.barrier);
        mux_barrier_cancel(&a.barrier);
        (void)turns_until_open(&b);
        turns(3);
        ck_assert_uint_eq(a.calls, 0);
        ck_assert_uint_eq(b.calls, 1);
        /* Added once more before it opened: it opens once. */
        add_gate(&a);
        mux_barrier_add(mux, &a.barrier);
        (void)turns_until_open(&a);
        turns(5);
        ck_assert_uint_eq(a.calls, 1);
        free_many();
        close_mux();
}
END_TEST

static void cancel_inner(struct mux_io *io _unused_, unsigned events _unused_) {
        mux_barrier_cancel(&inner.barrier);
}

START_TEST(barrier_cancel_in_callback) {
        open_mux(_i);
        add_many(2, true, cancel_inner);
        add_gate(&inner);
        turns(3);
        ck_assert_uint_eq(inner.calls, 0);
        free_many();
        close_mux();
}
END_TEST

static void add_inner_again(struct mux_deferred *deferred _unused_) {
        make_ready(many[1]->io.fd);
        mux_barrier_add(mux, &inner.barrier);
}

static void defer_add_inner_again(struct mux_io *io, unsigned events _unused_) {
        if (container_of(io, struct many, io)->index == 0)
                mux_defer(mux, &deferred_remover);
}

/* It was about to open when it was added again: what is ready by then counts. */
START_TEST(barrier_added_again_when_due) {
        open_mux(_i);
        add_many(2, false, defer_add_inner_again);
        mux_deferred_init(&deferred_remover, add_inner_again);
        make_ready(many[0]->io.fd);
        add_gate(&inner);
        turn(0);
        make_unready(many[0]->io.fd);
        (void)turns_until_open(&inner);
        ck_assert_uint_eq(many[0]->calls, 1);
        ck_assert_msg(inner.n_uncalled == 0, "what was ready was not called before");
        turns(3);
        ck_assert_uint_eq(inner.calls, 1);
        free_many();
        close_mux();
}
END_TEST

/* ---- signals ------------------------------------------------------------------------------------------------ */

static atomic_int n_signals;

static void on_signal(int number _unused_) {
        n_signals++;
}

START_TEST(a_signal_ends_the_wait) {
        struct sigaction action = { .sa_handler = on_signal };
        struct sigevent event = { .sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1 };
        struct itimerspec when = { .it_value.tv_nsec = 5000000, .it_interval.tv_nsec = 5000000 };
        struct counted c;
        timer_t timer;
        int fd = make_eventfd(false);

        open_mux(_i);
        add_counted(&c, fd, MUX_IN);
        assert_system(sigaction(SIGUSR1, &action, NULL) == 0, "sigaction");
        assert_system(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
        assert_system(timer_settime(timer, 0, &when, NULL) == 0, "timer_settime");
        for (int i = 0; i < 5; i++)
                turn(i % 2 ? -1 : 20 * (int64_t)NSEC_PER_SEC);
        assert_system(timer_delete(timer) == 0, "timer_delete");
        ck_assert_int_ge(n_signals, 5);
        ck_assert_uint_eq(c.calls, 0);
        mux_remove(mux, &c.io);
        (void)close(fd);
        close_mux();
}
END_TEST

/* ---- mailboxes ---------------------------------------------------------------------------------------------- */

enum { SENDERS = 4, LETTERS = 20000 };

struct letter {
        struct list link;
        unsigned sender, number;
};

static struct mailbox mailbox;
static unsigned next_number[SENDERS], n_letters;
static bool in_parts; /* all letters but the last of each */

static void on_mail(struct mailbox *m) {
        struct list *message;

        ck_assert_ptr_eq(m, &mailbox);
        while ((message = mailbox_take(m))) {
                struct letter *letter = list_entry(message, struct letter, link);

                ck_assert_uint_eq(letter->number, next_number[letter->sender]++);
                free(letter);
                n_letters++;
        }
}

static void send_letter(unsigned sender, unsigned number) {
        struct letter *letter = malloc(sizeof(*letter));

        if (!letter)
                abort();
        *letter = (struct letter){ .sender = sender, .number = number };
        list_init(&letter->link);
        if (in_parts && number + 1 < LETTERS)
                mailbox_post_part(&mailbox, &letter->link);
        else
                mailbox_post(&mailbox, &letter->link);
}

static void *sender_main(void *argument) {
        unsigned sender = (unsigned)(uintptr_t)argument;

        for (unsigned i = 0; i < LETTERS; i++)
                send_letter(sender, i);
        return NULL;
}

START_TEST(mail_from_threads) {
        uint64_t deadline = monotonic_nsec() + 25 * NSEC_PER_SEC;

        open_mux(_i);
        for (int n = 0; n < 2; n++) {
                pthread_t threads[SENDERS];

                in_parts = n == 1;
                n_letters = 0;
                memset(next_number, 0, sizeof(next_number));
                ck_assert_int_eq(mailbox_open(&mailbox, mux, on_mail), 0);
                for (uintptr_t i = 0; i < SENDERS; i++)
                        ck_assert_int_eq(pthread_create(&threads[i], NULL, sender_main, (void *)i), 0);
                while (n_letters < SENDERS * LETTERS && monotonic_nsec() < deadline)
                        turn((int64_t)NSEC_PER_SEC);
                for (size_t i = 0; i < SENDERS; i++)
                        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
                ck_assert_uint_eq(n_letters, SENDERS * LETTERS);
                ck_assert_ptr_null(mailbox_take(&mailbox));
                mailbox_close(&mailbox);
        }
        close_mux();
}
END_TEST

START_TEST(mail_wakes_the_loop_once) {
        unsigned calls;

        open_mux(_i);
        ck_assert_int_eq(mailbox_open(&mailbox, mux, on_mail), 0);
        send_letter(0, 0);
        send_letter(0, 1);
        turn(-1);
        ck_assert_uint_eq(n_letters, 2);
        calls = n_letters;
        turns(3);
        ck_assert_uint_eq(n_letters, calls);
        /* Taken without being called: the next letter wakes it all the same. */
        send_letter(0, 2);
        free(list_entry(mailbox_take(&mailbox), struct letter, link));
        next_number[0]++;
        send_letter(0, 3);
        turn(-1);
        ck_assert_uint_eq(n_letters, 3);
        mailbox_close(&mailbox);
        close_mux();
}
END_TEST

/* A part wakes a loop that doesn't look by itself, and one that does comes to it with nothing else to wake it. */
START_TEST(mail_in_parts) {
        open_mux(_i);
        ck_assert_int_eq(mailbox_open(&mailbox, mux, on_mail), 0);
        in_parts = true;
        for (unsigned i = 0; i < 100; i++) {
                send_letter(0, i);
                while (n_letters <= i)
                        turn(-1);
                while (i % 2 == 0 && mailbox.paced) /* until it would sleep */
                        turn(-1);
        }
        mailbox_close(&mailbox);
        close_mux();
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("mux");
        TCase *c;
        int n = 0;

        while (mux_backend_name_at((unsigned)n))
                n++;

        c = harness_case(suite, "backend");
        tcase_add_test(c, backend_by_name);
        tcase_add_loop_test(c, add_and_remove, 0, n);
        tcase_add_loop_test(c, modify, 0, n);
        tcase_add_loop_test(c, add_twice, 0, n);
        tcase_add_loop_test(c, files_are_refused, 0, n);
        tcase_add_loop_test(c, closed_descriptors_are_refused, 0, n);
        tcase_add_loop_test(c, other_refusals_are_those_of_epoll, 0, n);
        tcase_add_loop_test(c, numbers_beyond_the_room, 0, n);
        tcase_add_loop_test(c, hup_and_err_unasked, 0, n);
        tcase_add_loop_test(c, end_of_a_socket, 0, n);
        tcase_add_loop_test(c, half_an_end_of_a_socket, 0, n);
        tcase_add_loop_test(c, what_nobody_wants_is_left_alone, 0, n);
        tcase_add_loop_test(c, an_end_ends_the_wait, 0, n);
        tcase_add_loop_test(c, an_error_is_told, 0, n);
        tcase_add_loop_test(c, pri, 0, n);
        tcase_add_loop_test(c, a_signal_ends_the_wait, 0, n);

        c = harness_case(suite, "callbacks");
        tcase_add_loop_test(c, remove_itself_in_callback, 0, n);
        tcase_add_loop_test(c, free_others_in_callback, 0, n);
        tcase_add_loop_test(c, free_all_in_callback, 0, n);
        tcase_add_loop_test(c, a_new_descriptor_inherits_nothing, 0, n);
        tcase_add_loop_test(c, remove_and_add_itself, 0, n);
        tcase_add_loop_test(c, free_in_timer, 0, n);
        tcase_add_loop_test(c, remove_in_timer, 0, n);
        tcase_add_loop_test(c, free_in_deferred, 0, n);
        tcase_add_loop_test(c, random_changes, 0, n);

        c = harness_case(suite, "many");
        tcase_add_loop_test(c, all_that_are_ready_are_served, 0, n);
        tcase_add_loop_test(c, both_directions_at_once, 0, n);
        tcase_add_loop_test(c, none_starves, 0, n);
        tcase_add_loop_test(c, the_busy_do_not_starve_others, 0, n);
        tcase_add_loop_test(c, many_that_remove_themselves, 0, n);

        c = harness_case(suite, "timers");
        tcase_add_loop_test(c, timers_fire_in_order, 0, n);
        tcase_add_loop_test(c, timers_are_not_early_and_not_polled, 0, n);
        tcase_add_loop_test(c, the_wait_is_as_long_as_asked, 0, n);
        tcase_add_loop_test(c, clear_in_callback, 0, n);
        tcase_add_loop_test(c, free_timers_in_callback, 0, n);
        tcase_add_loop_test(c, set_again_in_callback, 0, n);
        tcase_add_loop_test(c, set_again_in_callback_for_the_past, 0, n);
        tcase_add_loop_test(c, set_twice_fires_once, 0, n);
        tcase_add_loop_test(c, random_timers, 0, n);

        c = harness_case(suite, "deferred");
        tcase_add_loop_test(c, deferred_in_order_and_once, 0, n);
        tcase_add_loop_test(c, deferred_by_deferred_runs_in_the_next_turn, 0, n);
        tcase_add_loop_test(c, deferred_and_others, 0, n);
        tcase_add_loop_test(c, deferred_cancel, 0, n);
        tcase_add_loop_test(c, deferred_by_a_callback_runs_in_the_same_turn, 0, n);

        c = harness_case(suite, "barriers");
        tcase_add_loop_test(c, barrier_with_nothing_ready, 0, n);
        tcase_add_loop_test(c, barrier_waits_for_all, 0, n);
        tcase_add_loop_test(c, barrier_begins_anywhere, 0, n);
        tcase_add_loop_test(c, barrier_and_removals, 0, n);
        tcase_add_loop_test(c, barrier_and_random_removals, 0, n);
        tcase_add_loop_test(c, barrier_from_a_callback, 0, n);
        tcase_add_loop_test(c, barrier_cancel, 0, n);
        tcase_add_loop_test(c, barrier_cancel_in_callback, 0, n);
        tcase_add_loop_test(c, barrier_added_again_when_due, 0, n);

        c = harness_case(suite, "mailbox");
        tcase_add_loop_test(c, mail_from_threads, 0, n);
        tcase_add_loop_test(c, mail_wakes_the_loop_once, 0, n);
        tcase_add_loop_test(c, mail_in_parts, 0, n);
        return harness_main(argc, argv);
}
