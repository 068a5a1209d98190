/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* read, write and aio watches: low-water marks of each watch's own, and what asynchronous input and output completes. */

#include <fcntl.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "descriptors.h"
#include "macro.h"
#include "one-client.h"

/* ---- low-water marks -------------------------------------------------------------------------------- */

static void (*const pairs[])(int fds[2]) = { make_pipe, make_unix_pair, make_tcp_pair };

static void put_bytes(int fd, size_t n) {
        for (; n > 0; n--)
                ck_assert_int_eq(write(fd, "x", 1), 1);
}

static size_t get_bytes(int fd, size_t n) {
        static char bytes[65536];
        ssize_t got = read(fd, bytes, MIN(n, sizeof(bytes)));

        return got > 0 ? (size_t)got : 0;
}

static int64_t next_figure(int connection) {
        struct json_object *event = next_event(connection);
        int64_t figure = number_at(event, "/data");

        json_object_put(event);
        return figure;
}

/* Two clients with marks of their own on one descriptor. */
START_TEST(test_lowat_of_two) {
        int other = client_connect(daemon_->socket), fds[2];

        pairs[_i](fds);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"data\":5}]}");
        change(other, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"data\":8}]}");
        for (int i = 1; i <= 10; i++) {
                put_bytes(fds[1], 1);
                if (i >= 5)
                        ck_assert_int_eq(next_figure(kevd), i);
                if (i >= 8)
                        ck_assert_int_eq(next_figure(other), i);
                expect_nothing(kevd);
                expect_nothing(other);
        }
        ck_assert_uint_eq(get_bytes(fds[0], 10), 10);
        put_bytes(fds[1], 4);
        expect_nothing(kevd);
        /* The end is told however little there is. */
        (void)close(fds[1]);
        expect_notes(kevd, "eof");
        expect_notes(other, "eof");
        (void)close(fds[0]);
        (void)close(other);
}
END_TEST

/* Another mark is put in place. */
START_TEST(test_lowat_modified) {
        int fds[2];

        pairs[_i](fds);
        put_bytes(fds[1], 10);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"data\":11}]}");
        expect_nothing(kevd);
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"read\",\"data\":10}]}");
        ck_assert_int_eq(next_figure(kevd), 10);
        expect_nothing(kevd);
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"read\",\"data\":12}]}");
        expect_nothing(kevd);
        put_bytes(fds[1], 1);
        expect_nothing(kevd);
        put_bytes(fds[1], 1);
        ck_assert_int_eq(next_figure(kevd), 12);
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"read\"}]}"); /* the mark stays */
        ck_assert_int_eq(next_figure(kevd), 12);
        ck_assert_uint_eq(get_bytes(fds[0], 5), 5);
        put_bytes(fds[1], 1);
        expect_nothing(kevd);
        refused(kevd, -1, "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"read\",\"data\":-1}]}");
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

/* Room for so much, which comes bit by bit. */
START_TEST(test_lowat_of_writer) {
        static char bytes[4096];
        int fds[2], size;
        socklen_t size_of_size = sizeof(size);

        make_unix_pair(fds);
        assert_system(getsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &size, &size_of_size) == 0, "SO_SNDBUF");
        while (write(fds[1], bytes, sizeof(bytes)) > 0)
                ;
        change(kevd, fds[1], "{\"add\":[{\"id\":1,\"filter\":\"write\",\"descriptor\":0,\"data\":%d}]}", size * 9 / 10);
        while (!poll_now(fds[1], POLLOUT))
                ck_assert_uint_gt(get_bytes(fds[0], sizeof(bytes)), 0);
        expect_nothing(kevd);
        while (get_bytes(fds[0], sizeof(bytes)) > 0)
                ;
        ck_assert_int_ge(next_figure(kevd), size * 9 / 10);
        (void)close(fds[1]);
        (void)close(fds[0]);
}
END_TEST

/* ---- the descriptor is not the caller's own ------------------------------------------------------------ */

/* The peer is the process that has connected. What another passes over its connection is watched without figures. */
START_TEST(test_of_another_process) {
        pid_t child = fork();
        int status;

        assert_system(child >= 0, "fork");
        if (child == 0) {
                int fds[2];

                make_pipe(fds);
                put_bytes(fds[1], 3);
                refused(kevd, fds[0], "EOPNOTSUPP", "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"data\":2}]}");
                change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}");
                ck_assert_uint_eq(due(kevd, "lowat"), 1);
                refused(kevd, -1, "EOPNOTSUPP", "{\"modify\":[{\"id\":1,\"filter\":\"read\",\"data\":2}]}");
                put_bytes(fds[1], 1);
                expect_notes(kevd, "lowat");
                (void)close(fds[1]);
                expect_notes(kevd, "lowat,eof");
                _exit(0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_int_eq(status, 0);
        expect_nothing(kevd);
        change(kevd, -1, "{\"remove\":[1]}");
}
END_TEST

/* ---- completions ------------------------------------------------------------------------------------------ */

/* io_uring(7), with the queue of submissions only: completions are counted by the eventfd. */
struct ring {
        int fd;
        char *queue, *entries;
        struct io_uring_params params;
};

static void ring_open(struct ring *ring) {
        *ring = (struct ring){ 0 };
        ring->fd = (int)syscall(SYS_io_uring_setup, 64, &ring->params);
        if (ring->fd < 0)
                harness_skip("the kernel does not allow io_uring");
        ring->queue = mmap(NULL, ring->params.sq_off.array + 64 * sizeof(unsigned), PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
                           IORING_OFF_SQ_RING);
        ring->entries = mmap(NULL, 64 * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
                             IORING_OFF_SQES);
        ck_assert(ring->queue != MAP_FAILED && ring->entries != MAP_FAILED);
}

static void ring_close(struct ring *ring) {
        (void)munmap(ring->queue, ring->params.sq_off.array + 64 * sizeof(unsigned));
        (void)munmap(ring->entries, 64 * sizeof(struct io_uring_sqe));
        (void)close(ring->fd);
}

static void ring_submit(const struct ring *ring, struct io_uring_sqe entry) {
        unsigned *tail = (unsigned *)(void *)(ring->queue + ring->params.sq_off.tail);
        unsigned *array = (unsigned *)(void *)(ring->queue + ring->params.sq_off.array);
        unsigned at = *tail % 64;

        ((struct io_uring_sqe *)(void *)ring->entries)[at] = entry;
        array[at] = at;
        __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
        assert_system(syscall(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) == 1, "io_uring_enter");
}

START_TEST(test_aio) {
        enum { N = 20 };
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), fds[2];
        char byte[N];
        struct ring ring;
        uint64_t n;

        ring_open(&ring);
        make_pipe(fds);
        assert_system(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_EVENTFD, &fd, 1) == 0, "io_uring_register");
        change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"aio\",\"descriptor\":0}]}");
        expect_nothing(kevd);
        /* Done at once. */
        ring_submit(&ring, (struct io_uring_sqe){ .opcode = IORING_OP_NOP });
        ck_assert_int_eq(next_figure(kevd), 1);
        expect_nothing(kevd);
        ck_assert_int_eq(read(fd, &n, sizeof(n)), sizeof(n));
        /* Under way, until something comes. */
        assert_system(fcntl(fds[0], F_SETFL, 0) == 0, "F_SETFL");
        for (size_t i = 0; i < N; i++)
                ring_submit(&ring, (struct io_uring_sqe){ .opcode = IORING_OP_READ, .fd = fds[0], .len = 1,
                                                          .off = UINT64_MAX, .addr = (uintptr_t)&byte[i] });
        expect_nothing(kevd);
        put_bytes(fds[1], N);
        for (int64_t completed = 0; completed < N;) { /* told of all since the eventfd was read */
                completed = next_figure(kevd);
                ck_assert_int_le(completed, N);
        }
        (void)close(fds[0]);
        (void)close(fds[1]);
        ring_close(&ring);
        (void)close(fd);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("descriptors-marks");
        TCase *c;

        c = harness_case(suite, "lowat");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_lowat_of_two, 0, ARRAY_SIZE(pairs));
        tcase_add_loop_test(c, test_lowat_modified, 0, ARRAY_SIZE(pairs));
        tcase_add_test(c, test_lowat_of_writer);
        tcase_add_test(c, test_of_another_process);

        c = harness_case(suite, "aio");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, test_aio);
        return harness_main(argc, argv);
}
