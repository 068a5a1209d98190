/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * mux/kqueue.c on the double: what the contract of all backends (muxes.h) doesn't ask, refusals above all. Before
 * that the double itself: what kqueue(2) says.
 */

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "backend.h"
#include "eventfds.h"
#include "harness.h"
#include "kqueue/sys/event.h"
#include "macro.h"
#include "mux.h"

static const struct timespec at_once;

/* ---- the double ------------------------------------------------------------------------------------ */

static int queue;

static void open_queue(void) {
        queue = kqueue();
        assert_system(queue >= 0, "kqueue");
}

static struct kevent change_of(int fd, short filter, int flags, void *udata) {
        struct kevent k;

        EV_SET(&k, (uintptr_t)fd, filter, (unsigned short)flags, 0, 0, udata);
        return k;
}

/* 0, or the error. */
static int try(int fd, short filter, int flags) {
        struct kevent k = change_of(fd, filter, flags, NULL);

        return kevent(queue, &k, 1, NULL, 0, NULL) < 0 ? errno : 0;
}

static int pending(struct kevent *events, int n) {
        int r = kevent(queue, NULL, 0, events, n, &at_once);

        assert_system(r >= 0, "kevent");
        return r;
}

START_TEST(adding_again_modifies) {
        struct kevent k[2], got[4];
        int fd = make_eventfd(true), a, b;

        open_queue();
        k[0] = change_of(fd, EVFILT_READ, EV_ADD, &a);
        k[1] = change_of(fd, EVFILT_READ, EV_ADD, &b);
        ck_assert_int_eq(kevent(queue, k, 2, NULL, 0, NULL), 0);
        ck_assert_uint_eq(kqueue_double_count(fd), 1);
        ck_assert_int_eq(pending(got, 4), 1);
        ck_assert_ptr_eq(got[0].udata, &b);
        ck_assert_uint_eq(got[0].ident, (uintptr_t)fd);
        ck_assert_int_eq(got[0].filter, EVFILT_READ);
        ck_assert_uint_eq(got[0].flags, 0);
        /* The two filters of a descriptor are two events. */
        ck_assert_int_eq(try(fd, EVFILT_WRITE, EV_ADD), 0);
        ck_assert_uint_eq(kqueue_double_count(fd), 2);
        ck_assert_int_eq(pending(got, 4), 2);
        ck_assert_int_ne(got[0].filter, got[1].filter);
        (void)close(fd);
        (void)close(queue);
}
END_TEST

START_TEST(what_is_not_there) {
        struct kevent k, got;
        int fd = make_eventfd(true);

        open_queue();
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_DELETE), ENOENT);
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_ADD), 0);
        ck_assert_int_eq(try(fd, EVFILT_WRITE, EV_DELETE), ENOENT);
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_DELETE), 0);
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_DELETE), ENOENT);
        ck_assert_int_eq(try(fd, -100, EV_ADD), EINVAL);
        /* With room, the error is an event. */
        k = change_of(fd, EVFILT_READ, EV_DELETE, NULL);
        ck_assert_int_eq(kevent(queue, &k, 1, &got, 1, NULL), 1);
        ck_assert_uint_eq(got.flags, EV_ERROR);
        ck_assert_int_eq(got.data, ENOENT);
        (void)close(fd);
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_ADD), EBADF);
        ck_assert_int_eq(try(-1, EVFILT_READ, EV_ADD), EBADF);
        (void)close(queue);
        ck_assert_int_eq(kevent(queue, NULL, 0, &got, 1, &at_once), -1);
        ck_assert_int_eq(errno, EBADF);
}
END_TEST

/* They are told in order, and what is pending is not; where there is no room for one, the rest is not done. */
START_TEST(receipts) {
        struct kevent k[3], got[4];
        int fd = make_eventfd(true), other = make_eventfd(true);

        open_queue();
        ck_assert_int_eq(try(other, EVFILT_READ, EV_ADD), 0);
        k[0] = change_of(fd, EVFILT_READ, EV_ADD | EV_RECEIPT, NULL);
        k[1] = change_of(fd, EVFILT_WRITE, EV_DELETE | EV_RECEIPT, NULL);
        k[2] = change_of(fd, EVFILT_WRITE, EV_ADD | EV_RECEIPT, NULL);
        ck_assert_int_eq(kevent(queue, k, 3, got, 4, NULL), 3);
        for (int i = 0; i < 3; i++) {
                ck_assert_uint_eq(got[i].flags, EV_ERROR);
                ck_assert_int_eq(got[i].filter, k[i].filter);
                ck_assert_int_eq(got[i].data, i == 1 ? ENOENT : 0);
        }
        ck_assert_int_eq(pending(got, 4), 3);

        k[0] = change_of(fd, EVFILT_READ, EV_DELETE | EV_RECEIPT, NULL);
        k[1] = change_of(fd, EVFILT_WRITE, EV_DELETE | EV_RECEIPT, NULL);
        k[2] = change_of(other, EVFILT_READ, EV_DELETE | EV_RECEIPT, NULL);
        ck_assert_int_eq(kevent(queue, k, 3, got, 1, NULL), 1);
        ck_assert_uint_eq(kqueue_double_count(fd), 0);
        ck_assert_uint_eq(kqueue_double_count(other), 1);
        (void)close(fd);
        (void)close(other);
        (void)close(queue);
}
END_TEST

START_TEST(levels_and_edges) {
        struct kevent got;
        int fd = make_eventfd(true);

        open_queue();
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_ADD), 0);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_int_eq(pending(&got, 1), 1);
        make_unready(fd);
        ck_assert_int_eq(pending(&got, 1), 0);
        make_ready(fd);
        ck_assert_int_eq(pending(&got, 1), 1);

        /* EV_CLEAR is no parameter: the event has to be deleted first. */
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_ADD | EV_CLEAR), 0);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_DELETE), 0);
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_ADD | EV_CLEAR), 0);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_int_eq(pending(&got, 1), 0);
        make_ready(fd);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_int_eq(pending(&got, 1), 0);
        (void)close(fd);
        (void)close(queue);
}
END_TEST

/* Of its number, that is, whoever else has the file. */
START_TEST(closing_removes) {
        struct kevent got;
        int fd = make_eventfd(true), other = dup(fd);

        assert_system(other >= 0, "dup");
        open_queue();
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_ADD), 0);
        ck_assert_int_eq(try(fd, EVFILT_WRITE, EV_ADD), 0);
        (void)close(fd);
        ck_assert_uint_eq(kqueue_double_count(fd), 0);
        ck_assert_int_eq(pending(&got, 1), 0);
        ck_assert_int_eq(make_eventfd(true), fd);
        ck_assert_int_eq(pending(&got, 1), 0);
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_DELETE), ENOENT);
        (void)close(fd);
        (void)close(other);
        (void)close(queue);
}
END_TEST

/* It has none of its own, and what it closes is no matter of the parent's queue. */
START_TEST(a_child_has_no_queue) {
        struct kevent got;
        int fd = make_eventfd(true), status;
        pid_t pid;

        open_queue();
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_ADD), 0);
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                (void)close(fd);
                _exit(try(0, EVFILT_READ, EV_ADD) == EBADF && fcntl(queue, F_GETFD) < 0 ? 0 : 1);
        }
        assert_system(waitpid(pid, &status, 0) == pid, "waitpid");
        ck_assert_int_eq(status, 0);
        ck_assert_uint_eq(kqueue_double_count(fd), 1);
        make_unready(fd);
        ck_assert_int_eq(pending(&got, 1), 0);
        make_ready(fd);
        ck_assert_int_eq(pending(&got, 1), 1);
        (void)close(fd);
        (void)close(queue);
}
END_TEST

START_TEST(no_room_is_no_wait) {
        const struct timespec an_hour = { .tv_sec = 3600 }, none = { .tv_nsec = 1000000000 };
        struct kevent got;

        open_queue();
        ck_assert_int_eq(kevent(queue, NULL, 0, NULL, 0, &an_hour), 0);
        ck_assert_int_eq(kevent(queue, NULL, 0, &got, 1, &none), -1);
        ck_assert_int_eq(errno, EINVAL);
        (void)close(queue);
}
END_TEST

START_TEST(ends) {
        struct kevent got;
        int fds[2];

        open_queue();
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        ck_assert_int_eq(try(fds[0], EVFILT_READ, EV_ADD), 0);
        assert_system(write(fds[1], "xyz", 3) == 3, "write");
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_uint_eq(got.flags, 0);
        ck_assert_int_eq(got.data, 3);
        assert_system(shutdown(fds[1], SHUT_WR) == 0, "shutdown");
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_uint_eq(got.flags, EV_EOF);
        ck_assert_int_eq(got.data, 3);
        ck_assert_int_eq(try(fds[0], EVFILT_READ, EV_DELETE), 0);
        ck_assert_int_eq(try(fds[0], EVFILT_WRITE, EV_ADD), 0);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_uint_eq(got.flags, 0);
        (void)close(fds[1]);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_uint_eq(got.flags, EV_EOF);
        (void)close(fds[0]);

        assert_system(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
        ck_assert_int_eq(try(fds[1], EVFILT_READ, EV_ADD), 0);
        ck_assert_int_eq(try(fds[1], EVFILT_WRITE, EV_ADD), 0);
        (void)close(fds[0]);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_int_eq(got.filter, EVFILT_WRITE);
        ck_assert_uint_eq(got.flags, EV_EOF);
        ck_assert_uint_eq(got.fflags, 0);
        ck_assert_int_eq(try(fds[1], EVFILT_WRITE, EV_DELETE), 0);
        ck_assert_int_eq(try(fds[1], EVFILT_WRITE, EV_ADD), EPIPE);
        (void)close(fds[1]);
        (void)close(queue);
}
END_TEST

/* That a backend refuses them is its own doing. */
START_TEST(files_have_a_filter) {
        struct kevent got;
        char path[4096];
        int fd;

        open_queue();
        (void)snprintf(path, sizeof(path), "%s/file", harness_tempdir());
        fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        assert_system(fd >= 0, path);
        assert_system(pwrite(fd, "xyz", 3, 0) == 3, "pwrite");
        ck_assert_int_eq(try(fd, EVFILT_READ, EV_ADD), 0);
        ck_assert_int_eq(try(fd, EVFILT_WRITE, EV_ADD), EINVAL);
        ck_assert_int_eq(pending(&got, 1), 1);
        ck_assert_int_eq(got.data, 3);
        (void)close(fd);
        (void)close(queue);
}
END_TEST

/* ---- the backend ------------------------------------------------------------------------------------- */

static struct mux *mux;
static struct mux_io io;
static unsigned n_calls, last_events;

static void on_io(struct mux_io *the_io, unsigned events) {
        ck_assert_ptr_eq(the_io, &io);
        n_calls++;
        last_events = events;
}

static void open_mux(void) {
        io = MUX_IO_INIT;
        ck_assert_int_eq(mux_open("kqueue", &mux), 0);
}

static void close_mux(int fd) {
        mux_remove(mux, &io);
        ck_assert_uint_eq(kqueue_double_count(fd), 0);
        mux_close(mux);
        (void)close(fd);
}

static int add(int fd, unsigned events) {
        return mux_add(mux, &io, fd, events, on_io);
}

/* What a turn that doesn't wait tells of it, in one call at most. */
static unsigned told(void) {
        unsigned before = n_calls;

        ck_assert_int_eq(mux_wait(mux, 0), 0);
        ck_assert_uint_le(n_calls - before, 1);
        return n_calls > before ? last_events : 0;
}

#ifdef EVFILT_EXCEPT
enum { URGENT_FILTERS = 1, URGENT_LOOKOUTS = 2 };
#else
enum { URGENT_FILTERS = 0, URGENT_LOOKOUTS = 0 }; /* poll(2) sees the end, too */
#endif

static unsigned n_filters(unsigned events) {
        unsigned n = (events & MUX_IN ? 1 : 0) + (events & MUX_OUT ? 1 : 0) + (events & MUX_PRI ? URGENT_FILTERS : 0);

        return events & (MUX_IN | MUX_OUT) ? n : events ? n + URGENT_LOOKOUTS : 2;
}

/* From anything to anything: what is asked for is there, and no more. */
START_TEST(filters_follow_what_is_wanted) {
        int fds[2];

        open_mux();
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        assert_system(write(fds[1], "x", 1) == 1, "write");
        for (unsigned from = 0; from < 8; from++)
                for (unsigned to = 0; to < 8; to++) {
                        ck_assert_int_eq(add(fds[0], from), 0);
                        ck_assert_uint_eq(kqueue_double_count(fds[0]), n_filters(from));
                        ck_assert_uint_eq(told(), from & (MUX_IN | MUX_OUT));
                        ck_assert_int_eq(mux_modify(mux, &io, to), 0);
                        ck_assert_uint_eq(kqueue_double_count(fds[0]), n_filters(to));
                        ck_assert_uint_eq(told(), to & (MUX_IN | MUX_OUT));
                        ck_assert_uint_eq(told(), to & (MUX_IN | MUX_OUT));
                        mux_remove(mux, &io);
                        ck_assert_uint_eq(kqueue_double_count(fds[0]), 0);
                }
        (void)close(fds[1]);
        close_mux(fds[0]);
}
END_TEST

static const short both_filters[] = { EVFILT_READ, EVFILT_WRITE };

/* Half of it was there. */
START_TEST(a_refused_add_leaves_nothing) {
        static const unsigned wanted[] = { MUX_IN | MUX_OUT, 0 };
        int fd = make_eventfd(true);

        open_mux();
        for (size_t i = 0; i < 2; i++)
                for (size_t j = 0; j < 2; j++) {
                        kqueue_double_refuse(both_filters[j], ENOMEM, 1);
                        ck_assert_int_eq(add(fd, wanted[i]), -ENOMEM);
                        ck_assert_uint_eq(kqueue_double_count(fd), 0);
                        ck_assert_uint_eq(told(), 0);
                        ck_assert_int_eq(add(fd, wanted[i]), 0);
                        ck_assert_uint_eq(told(), wanted[i]);
                        mux_remove(mux, &io);
                }
        close_mux(fd);
}
END_TEST

START_TEST(a_refused_modify_changes_nothing) {
        int fd = make_eventfd(true);

        open_mux();
        ck_assert_int_eq(add(fd, MUX_IN), 0);
        kqueue_double_refuse(EVFILT_WRITE, ENOMEM, 1);
        ck_assert_int_eq(mux_modify(mux, &io, MUX_IN | MUX_OUT), -ENOMEM);
        ck_assert_uint_eq(kqueue_double_count(fd), 1);
        ck_assert_uint_eq(told(), MUX_IN);
        /* This one had removed what was there. */
        kqueue_double_refuse(EVFILT_WRITE, ENOMEM, 1);
        ck_assert_int_eq(mux_modify(mux, &io, MUX_OUT), -ENOMEM);
        ck_assert_uint_eq(kqueue_double_count(fd), 1);
        ck_assert_uint_eq(told(), MUX_IN);
        kqueue_double_refuse(EVFILT_WRITE, ENOMEM, 1);
        ck_assert_int_eq(mux_modify(mux, &io, 0), -ENOMEM);
        ck_assert_uint_eq(kqueue_double_count(fd), 1);
        ck_assert_uint_eq(told(), MUX_IN);
        ck_assert_uint_eq(told(), MUX_IN);
        ck_assert_int_eq(mux_modify(mux, &io, MUX_OUT), 0);
        ck_assert_uint_eq(told(), MUX_OUT);
        close_mux(fd);
}
END_TEST

/* It can't be put back either: it is told of all the same. */
START_TEST(a_refused_modify_that_cannot_be_undone) {
        int fd = make_eventfd(true);

        open_mux();
        ck_assert_int_eq(add(fd, MUX_IN), 0);
        kqueue_double_refuse(EVFILT_READ, ENOMEM, 1);
        kqueue_double_refuse(EVFILT_WRITE, ENOMEM, 1);
        ck_assert_int_eq(mux_modify(mux, &io, MUX_OUT), -ENOMEM);
        ck_assert_uint_eq(kqueue_double_count(fd), 0);
        ck_assert_uint_eq(told(), MUX_IN);
        ck_assert_uint_eq(told(), MUX_IN);
        ck_assert_int_eq(mux_modify(mux, &io, MUX_IN | MUX_OUT), 0);
        ck_assert_uint_eq(kqueue_double_count(fd), 2);
        ck_assert_uint_eq(told(), MUX_IN | MUX_OUT);
        close_mux(fd);
}
END_TEST

/* As epoll, which takes it. */
START_TEST(a_filter_that_the_file_lacks) {
        static const int errors[] = { EINVAL, ENODEV, EOPNOTSUPP };
        int fd = make_eventfd(true);

        open_mux();
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                kqueue_double_refuse(EVFILT_WRITE, errors[i], 1);
                ck_assert_int_eq(add(fd, MUX_IN | MUX_OUT), 0);
                ck_assert_uint_eq(kqueue_double_count(fd), 1);
                ck_assert_uint_eq(told(), MUX_IN | MUX_OUT);
                mux_remove(mux, &io);
                /* Of lookouts one is enough. */
                kqueue_double_refuse(EVFILT_WRITE, errors[i], 1);
                ck_assert_int_eq(add(fd, 0), 0);
                ck_assert_uint_eq(kqueue_double_count(fd), 1);
                ck_assert_uint_eq(told(), 0);
                mux_remove(mux, &io);
        }
        close_mux(fd);
}
END_TEST

static void *make_ready_later(void *fd) {
        uint64_t one = 1;

        (void)poll(NULL, 0, 100);
        return write(*(int *)fd, &one, sizeof(one)) == sizeof(one) ? fd : NULL;
}

/* Not even lookouts: the end is told all the same. */
START_TEST(a_file_that_lacks_both_filters) {
        int fds[2];

        open_mux();
        assert_system(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
        kqueue_double_refuse(EVFILT_READ, EINVAL, 1);
        kqueue_double_refuse(EVFILT_WRITE, EINVAL, 1);
        ck_assert_int_eq(add(fds[0], 0), 0);
        ck_assert_uint_eq(kqueue_double_count(fds[0]), 0);
        ck_assert_uint_eq(told(), 0);
        (void)close(fds[1]);
        ck_assert_uint_eq(told(), MUX_HUP);
        close_mux(fds[0]);
}
END_TEST

/* Once a second, while nothing else ends the wait. */
START_TEST(what_has_no_filter_is_looked_at) {
        int fd = make_eventfd(false);
        int64_t start = now_msec();
        pthread_t thread;
        void *done;

        open_mux();
        kqueue_double_refuse(EVFILT_READ, EINVAL, 1);
        ck_assert_int_eq(add(fd, MUX_IN), 0);
        ck_assert_uint_eq(kqueue_double_count(fd), 0);
        ck_assert_int_eq(pthread_create(&thread, NULL, make_ready_later, &fd), 0);
        ck_assert_int_eq(mux_wait(mux, 20 * (int64_t)NSEC_PER_SEC), 0);
        ck_assert_int_lt(now_msec() - start, 10000);
        ck_assert_uint_eq(n_calls, 1);
        ck_assert_uint_eq(last_events, MUX_IN);
        ck_assert_int_eq(pthread_join(thread, &done), 0);
        ck_assert_ptr_nonnull(done);
        close_mux(fd);
}
END_TEST

/* kevent(2) with no room for events doesn't. */
START_TEST(an_empty_one_sleeps) {
        int64_t start = now_msec();
        clock_t used = clock();

        open_mux();
        ck_assert_int_eq(mux_wait(mux, 200 * (int64_t)NSEC_PER_MSEC), 0);
        ck_assert_int_ge(now_msec() - start, 199);
        ck_assert_int_lt(clock() - used, CLOCKS_PER_SEC / 20);
        mux_close(mux);
}
END_TEST

/* Some say EBADF of a descriptor that is open. */
START_TEST(a_pipe_that_nobody_reads) {
        static const int errors[] = { 0, EBADF }; /* 0: the double's own */
        int fds[2];

        open_mux();
        assert_system(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
        (void)close(fds[0]);
        for (size_t i = 0; i < ARRAY_SIZE(errors); i++) {
                kqueue_double_refuse(EVFILT_WRITE, errors[i], errors[i] != 0);
                ck_assert_int_eq(add(fds[1], MUX_OUT), 0);
                ck_assert_uint_eq(kqueue_double_count(fds[1]), 0);
                ck_assert_uint_eq(told(), MUX_ERR | MUX_OUT);
                ck_assert_uint_eq(told(), MUX_ERR | MUX_OUT);
                ck_assert_int_eq(mux_modify(mux, &io, 0), 0);
                ck_assert_uint_eq(told(), MUX_ERR);
                ck_assert_uint_eq(told(), MUX_ERR);
                mux_remove(mux, &io);
                ck_assert_uint_eq(told(), 0);
        }
        close_mux(fds[1]);
}
END_TEST

/* The lookouts tell of the end, not the look once a second. */
START_TEST(an_end_is_told_at_once) {
        int64_t start;
        int fds[2];
        pid_t pid;

        open_mux();
        assert_system(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                (void)poll(NULL, 0, 100);
                _exit(0);
        }
        (void)close(fds[1]);
        ck_assert_int_eq(add(fds[0], 0), 0);
        ck_assert_uint_eq(told(), 0);
        start = now_msec();
        ck_assert_int_eq(mux_wait(mux, -1), 0);
        ck_assert_int_lt(now_msec() - start, 700);
        ck_assert_uint_eq(n_calls, 1);
        ck_assert_uint_eq(last_events, MUX_HUP);
        assert_system(waitpid(pid, NULL, 0) == pid, "waitpid");
        close_mux(fds[0]);
}
END_TEST

static unsigned wait_backend(void *state, struct mux_ready *ready, size_t n_ready) {
        int n = mux_backend_kqueue.wait(state, ready, n_ready, 0);

        ck_assert_int_ge(n, 0);
        return (unsigned)n;
}

/* What didn't fit comes first, though the kernel would tell all of them, in any order. */
START_TEST(what_did_not_fit_comes_first) {
        struct mux_ready ready[3];
        unsigned calls[7] = { 0 };
        void *state;
        int fds[7];

        ck_assert_int_eq(mux_backend_kqueue.open(&state), 0);
        for (size_t i = 0; i < 7; i++) {
                fds[i] = make_eventfd(true);
                ck_assert_int_eq(mux_backend_kqueue.add(state, fds[i], MUX_IN | MUX_OUT, &calls[i]), 0);
        }
        for (unsigned round = 1; round <= 21; round++) {
                ck_assert_uint_eq(wait_backend(state, ready, 3), 3);
                for (size_t i = 0; i < 3; i++) {
                        ck_assert_uint_eq(ready[i].events, MUX_IN | MUX_OUT);
                        ++*(unsigned *)ready[i].token;
                }
                for (size_t i = 0; i < 7; i++) {
                        ck_assert_uint_ge(calls[i], round * 3 / 7);
                        ck_assert_uint_le(calls[i], (round * 3 + 6) / 7);
                }
        }
        for (size_t i = 0; i < 7; i++) {
                mux_backend_kqueue.remove(state, fds[i]);
                (void)close(fds[i]);
        }
        ck_assert_uint_eq(wait_backend(state, ready, 3), 0);
        mux_backend_kqueue.close(state);
}
END_TEST

START_TEST(a_modify_brings_its_token) {
        struct mux_ready ready;
        void *state;
        int fd = make_eventfd(true), a, b;

        ck_assert_int_eq(mux_backend_kqueue.open(&state), 0);
        ck_assert_int_eq(mux_backend_kqueue.add(state, fd, MUX_IN, &a), 0);
        ck_assert_int_eq(mux_backend_kqueue.modify(state, fd, MUX_IN, &b), 0);
        ck_assert_uint_eq(wait_backend(state, &ready, 1), 1);
        ck_assert_ptr_eq(ready.token, &b);
        mux_backend_kqueue.remove(state, fd);
        mux_backend_kqueue.close(state);
        (void)close(fd);
}
END_TEST

START_TEST(the_queue_is_not_for_programs) {
        void *state;
        int fd = make_eventfd(false), flags;

        (void)close(fd);
        ck_assert_int_eq(mux_backend_kqueue.open(&state), 0); /* it takes the number */
        flags = fcntl(fd, F_GETFD);
        ck_assert_int_eq(flags, FD_CLOEXEC);
        ck_assert_int_eq(mux_backend_kqueue.modify(state, 0, MUX_IN, &io), -ENOENT);
        mux_backend_kqueue.remove(state, 0);
        mux_backend_kqueue.remove(state, -1);
        mux_backend_kqueue.close(state);
}
END_TEST

/* No file but a socket has the filter, and lookouts are of no use then. */
START_TEST(urgent_data_of_what_is_no_socket) {
        int fds[2];

        open_mux();
        assert_system(pipe2(fds, O_CLOEXEC) == 0, "pipe2");
        ck_assert_int_eq(add(fds[0], MUX_PRI), 0);
        ck_assert_uint_eq(kqueue_double_count(fds[0]), 0);
        ck_assert_uint_eq(told(), 0);
        (void)close(fds[1]);
        ck_assert_uint_eq(told(), MUX_HUP);
        ck_assert_uint_eq(told(), MUX_HUP);
        close_mux(fds[0]);
}
END_TEST

/* Without EVFILT_EXCEPT poll(2) tells. */
START_TEST(urgent_data) {
        int fds[2];

        open_mux();
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        ck_assert_int_eq(add(fds[0], MUX_PRI), 0);
        ck_assert_uint_eq(told(), 0);
        if (send(fds[1], "x", 1, MSG_OOB) != 1)
                harness_skip("no urgent data on local sockets");
        ck_assert_int_eq(mux_wait(mux, 20 * (int64_t)NSEC_PER_SEC), 0);
        ck_assert_uint_eq(n_calls, 1);
        ck_assert_uint_eq(last_events, MUX_PRI);
        ck_assert_int_eq(mux_modify(mux, &io, MUX_PRI | MUX_IN), 0);
        ck_assert_uint_eq(told() & MUX_PRI, MUX_PRI);
        (void)close(fds[1]);
        close_mux(fds[0]);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("mux-kqueue");
        TCase *c;

        c = harness_case(suite, "double");
        tcase_add_test(c, adding_again_modifies);
        tcase_add_test(c, what_is_not_there);
        tcase_add_test(c, receipts);
        tcase_add_test(c, levels_and_edges);
        tcase_add_test(c, closing_removes);
        tcase_add_test(c, a_child_has_no_queue);
        tcase_add_test(c, no_room_is_no_wait);
        tcase_add_test(c, ends);
        tcase_add_test(c, files_have_a_filter);

        c = harness_case(suite, "backend");
        tcase_add_test(c, filters_follow_what_is_wanted);
        tcase_add_test(c, a_refused_add_leaves_nothing);
        tcase_add_test(c, a_refused_modify_changes_nothing);
        tcase_add_test(c, a_refused_modify_that_cannot_be_undone);
        tcase_add_test(c, a_filter_that_the_file_lacks);
        tcase_add_test(c, a_file_that_lacks_both_filters);
        tcase_add_test(c, what_has_no_filter_is_looked_at);
        tcase_add_test(c, an_empty_one_sleeps);
        tcase_add_test(c, a_pipe_that_nobody_reads);
        tcase_add_test(c, an_end_is_told_at_once);
        tcase_add_test(c, what_did_not_fit_comes_first);
        tcase_add_test(c, a_modify_brings_its_token);
        tcase_add_test(c, the_queue_is_not_for_programs);
        tcase_add_test(c, urgent_data_of_what_is_no_socket);
        tcase_add_test(c, urgent_data);
        return harness_main(argc, argv);
}
