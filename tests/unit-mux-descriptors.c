/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/, with every backend (muxes.h): descriptors. What is told of one, and when; which are refused; that each of many
 * gets its share of the turns.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"
#include "mux.h"
#include "muxes.h"

/* ---- one descriptor ------------------------------------------------------------------------------ */

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
        if (strcmp(mux_backend_name(mux), "epoll") == 0) /* a device that can't be waited for: it alone knows */
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

/* ---- what is told once -------------------------------------------------------------------------------------- */

static void make_stream(int fds[2]) {
        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds), 0);
}

static void read_away(int fd) {
        char space[65536];

        while (read(fd, space, sizeof(space)) > 0)
                ;
        ck_assert_int_eq(errno, EAGAIN);
}

static void write_full(int fd) {
        static const char space[65536];

        while (write(fd, space, sizeof(space)) > 0)
                ;
        ck_assert_int_eq(errno, EAGAIN);
}

static void begin_once(int backend, int fds[2], struct counted *c, unsigned events) {
        open_mux(backend);
        make_stream(fds);
        add_counted(c, fds[0], MUX_ONCE | events);
}

static void end_once(struct counted *c, const int fds[2]) {
        mux_remove(mux, &c->io);
        close_mux();
        (void)close(fds[0]);
        (void)close(fds[1]);
}

START_TEST(input_is_told_once) {
        struct counted c;
        int fds[2];

        begin_once(_i, fds, &c, MUX_IN);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(write(fds[1], "ab", 2), 2);
                ck_assert_uint_eq(calls_in_a_turn(&c), 1);
                ck_assert_uint_eq(c.events, MUX_IN);
                ck_assert_uint_eq(calls_in_a_turn(&c), 0); /* it is there still */
                ck_assert_uint_eq(calls_in_a_turn(&c), 0);
                read_away(fds[0]);
                ck_assert_int_eq(mux_rearm(mux, &c.io, MUX_IN), 0);
                ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        }
        end_once(&c, fds);
}
END_TEST

/* What comes before it can be said that all was taken is not missed. */
START_TEST(input_between_is_told) {
        struct counted c;
        int fds[2];

        begin_once(_i, fds, &c, MUX_IN);
        ck_assert_int_eq(write(fds[1], "a", 1), 1);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        read_away(fds[0]);
        ck_assert_int_eq(write(fds[1], "a", 1), 1);
        ck_assert_int_eq(mux_rearm(mux, &c.io, MUX_IN), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        read_away(fds[0]);
        ck_assert_int_eq(mux_rearm(mux, &c.io, MUX_IN), 0);
        ck_assert_int_eq(shutdown(fds[1], SHUT_WR), 0); /* an end is input */
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_ne(c.events & MUX_IN, 0);
        end_once(&c, fds);
}
END_TEST

START_TEST(room_is_told_once) {
        struct counted c;
        int fds[2];

        begin_once(_i, fds, &c, MUX_IN);
        write_full(fds[0]);
        ck_assert_int_eq(mux_modify(mux, &c.io, MUX_ONCE | MUX_IN | MUX_OUT), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        for (int i = 0; i < 3; i++) {
                read_away(fds[1]);
                ck_assert_uint_eq(calls_in_a_turn(&c), 1);
                ck_assert_uint_eq(c.events, MUX_OUT);
                ck_assert_uint_eq(calls_in_a_turn(&c), 0);
                write_full(fds[0]);
                ck_assert_int_eq(mux_rearm(mux, &c.io, MUX_OUT), 0);
                ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        }
        ck_assert_int_eq(mux_modify(mux, &c.io, MUX_ONCE | MUX_IN), 0);
        read_away(fds[1]);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        ck_assert_int_eq(write(fds[1], "a", 1), 1);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_IN);
        end_once(&c, fds);
}
END_TEST

/* What was told and left is told again if it is asked for, and what is not there is not. */
START_TEST(asked_again) {
        struct counted c;
        int fds[2];

        begin_once(_i, fds, &c, MUX_IN | MUX_OUT);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        ck_assert_int_eq(mux_ask_again(mux, &c.io), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_OUT);
        write_full(fds[0]);
        ck_assert_int_eq(mux_ask_again(mux, &c.io), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        end_once(&c, fds);
}
END_TEST

/* One of the two is told, and taken, as the other goes on lying there. */
START_TEST(input_and_room_apart) {
        struct counted c;
        int fds[2];

        begin_once(_i, fds, &c, MUX_IN | MUX_OUT);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_eq(c.events, MUX_OUT);
        ck_assert_int_eq(write(fds[1], "a", 1), 1);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_ne(c.events & MUX_IN, 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        write_full(fds[0]);
        ck_assert_int_eq(mux_rearm(mux, &c.io, MUX_OUT), 0);
        ck_assert_uint_eq(calls_in_a_turn(&c), 0);
        read_away(fds[1]);
        ck_assert_uint_eq(calls_in_a_turn(&c), 1);
        ck_assert_uint_ne(c.events & MUX_OUT, 0);
        end_once(&c, fds);
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

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("mux-descriptors");
        TCase *c;
        int n = count_backends();

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

        c = harness_case(suite, "once");
        tcase_add_loop_test(c, input_is_told_once, 0, n);
        tcase_add_loop_test(c, input_between_is_told, 0, n);
        tcase_add_loop_test(c, room_is_told_once, 0, n);
        tcase_add_loop_test(c, input_and_room_apart, 0, n);
        tcase_add_loop_test(c, asked_again, 0, n);

        c = harness_case(suite, "many");
        tcase_add_loop_test(c, all_that_are_ready_are_served, 0, n);
        tcase_add_loop_test(c, both_directions_at_once, 0, n);
        tcase_add_loop_test(c, none_starves, 0, n);
        tcase_add_loop_test(c, the_busy_do_not_starve_others, 0, n);
        tcase_add_loop_test(c, many_that_remove_themselves, 0, n);
        return harness_main(argc, argv);
}
