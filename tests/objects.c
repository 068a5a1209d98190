/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <fcntl.h>
#include <limits.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "descriptors.h"
#include "macro.h"

/* ---- objects ------------------------------------------------------------------------------- */

short poll_now(int fd, short events) {
        struct pollfd p = { .fd = fd, .events = events };

        assert_system(poll(&p, 1, 0) >= 0, "poll");
        return p.revents;
}

void poll_until(int fd, short events) {
        struct pollfd p = { .fd = fd, .events = events };

        ck_assert_msg(poll(&p, 1, HARNESS_REPLY_MSEC) == 1, "poll(2) saw nothing in time");
}

void make_nonblocking(int fd) {
        assert_system(fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) == 0, "F_SETFL");
}

static int checked(int fd, const char *what) {
        assert_system(fd >= 0, what);
        return fd;
}

static int put_fd(struct object *o, int fd) {
        ck_assert_uint_lt(o->n_fds, OBJECT_FDS);
        o->fd[o->n_fds++] = fd;
        return fd;
}

int tcp_listen(int backlog) {
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        int fd = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket");

        assert_system(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
        assert_system(listen(fd, backlog) == 0, "listen");
        return fd;
}

int tcp_connect(int listener) {
        struct sockaddr_in address;
        socklen_t size = sizeof(address);
        int fd = checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket");

        assert_system(getsockname(listener, (struct sockaddr *)&address, &size) == 0, "getsockname");
        assert_system(connect(fd, (struct sockaddr *)&address, size) == 0 || errno == EINPROGRESS, "connect");
        return fd;
}

void make_unix_pair(int fds[2]) {
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0, "socketpair");
}

void make_tcp_pair(int fds[2]) {
        int listener = tcp_listen(8);

        fds[1] = tcp_connect(listener);
        poll_until(listener, POLLIN);
        fds[0] = checked(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), "accept");
        poll_until(fds[1], POLLOUT);
        (void)close(listener);
}

void make_pipe(int fds[2]) {
        assert_system(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0, "pipe2");
}

static void put_pair(struct object *o, void (*make)(int fds[2]), bool turned) {
        int fds[2];

        make(fds);
        put_fd(o, fds[turned]);
        put_fd(o, fds[!turned]);
}

static void make_unix_stream(struct object *o) {
        put_pair(o, make_unix_pair, false);
}

static void make_tcp_stream(struct object *o) {
        put_pair(o, make_tcp_pair, false);
}

static void make_reading_end(struct object *o) {
        put_pair(o, make_pipe, false);
}

static void make_writing_end(struct object *o) {
        put_pair(o, make_pipe, true);
}

static void make_unix_datagrams(struct object *o) {
        int fds[2];

        assert_system(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0, "socketpair");
        put_fd(o, fds[0]);
        put_fd(o, fds[1]);
}

static void make_udp(struct object *o) {
        struct sockaddr_in address[2] = { 0 };

        for (int i = 0; i < 2; i++) {
                socklen_t size = sizeof(address[i]);

                address[i].sin_family = AF_INET;
                address[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK);
                put_fd(o, checked(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
                assert_system(bind(o->fd[i], (struct sockaddr *)&address[i], size) == 0, "bind");
                assert_system(getsockname(o->fd[i], (struct sockaddr *)&address[i], &size) == 0, "getsockname");
        }
        for (int i = 0; i < 2; i++)
                assert_system(connect(o->fd[i], (struct sockaddr *)&address[!i], sizeof(address[i])) == 0, "connect");
}

static void make_tcp_listener(struct object *o) {
        o->is_listener = true;
        put_fd(o, tcp_listen(8));
}

static void make_path(struct object *o) {
        ck_assert_int_lt(snprintf(o->path, sizeof(o->path), "%s/o", harness_tempdir()), (int)sizeof(o->path));
        (void)unlink(o->path);
}

static struct sockaddr_un unix_address(const struct object *o) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        memcpy(address.sun_path, o->path, sizeof(o->path));
        return address;
}

static void make_unix_listener(struct object *o) {
        struct sockaddr_un address;

        o->is_listener = true;
        make_path(o);
        address = unix_address(o);
        put_fd(o, checked(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
        assert_system(bind(o->fd[0], (struct sockaddr *)&address, sizeof(address)) == 0, "bind");
        assert_system(listen(o->fd[0], 8) == 0, "listen");
}

/* The accepted one is not there yet: the queue is full. */
static void make_in_progress(struct object *o) {
        int listener = tcp_listen(0);

        put_fd(o, -1);
        put_fd(o, listener);
        for (int i = 0; i < 3; i++) {
                (void)safe_close(o->fd[0]);
                o->fd[0] = tcp_connect(listener);
                if (i == 0)
                        o->fd[o->n_fds++] = take_fd(&o->fd[0]);
        }
}

static void make_unconnected(struct object *o) {
        put_fd(o, checked(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), "socket"));
}

static void make_fifo(struct object *o) {
        make_path(o);
        assert_system(mkfifo(o->path, 0600) == 0, o->path);
        put_fd(o, checked(open(o->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC), o->path));
        put_fd(o, -1);
}

static void make_fifo_writer(struct object *o) {
        make_fifo(o);
        o->fd[1] = take_fd(&o->fd[0]);
        o->fd[0] = checked(open(o->path, O_WRONLY | O_NONBLOCK | O_CLOEXEC), o->path);
}

static void make_pty(struct object *o) {
        int master = checked(posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), "/dev/ptmx"), slave;
        struct termios t;

        assert_system(grantpt(master) == 0 && unlockpt(master) == 0 &&
                              ptsname_r(master, o->path, sizeof(o->path)) == 0, "/dev/ptmx");
        slave = checked(open(o->path, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC), o->path);
        assert_system(tcgetattr(slave, &t) == 0, "tcgetattr");
        cfmakeraw(&t);
        assert_system(tcsetattr(slave, TCSANOW, &t) == 0, "tcsetattr");
        put_fd(o, master);
        put_fd(o, slave);
}

static void make_pty_in_packets(struct object *o) {
        int on = 1;

        make_pty(o);
        assert_system(ioctl(o->fd[0], TIOCPKT, &on) == 0, "TIOCPKT");
}

static void make_terminal(struct object *o) {
        int master;

        make_pty(o);
        master = o->fd[0];
        o->fd[0] = o->fd[1];
        o->fd[1] = master;
}

static void make_eventfd(struct object *o) {
        put_fd(o, checked(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), "eventfd"));
}

static void make_semaphore(struct object *o) {
        put_fd(o, checked(eventfd(2, EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE), "eventfd"));
}

static void make_timer(struct object *o) {
        put_fd(o, checked(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK), "timerfd_create"));
}

static void make_inotify(struct object *o) {
        put_fd(o, checked(inotify_init1(IN_CLOEXEC | IN_NONBLOCK), "inotify_init1"));
        assert_system(inotify_add_watch(o->fd[0], harness_tempdir(), IN_CREATE) >= 0, "inotify_add_watch");
}

static void make_mountinfo(struct object *o) {
        put_fd(o, checked(open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC), "/proc/self/mountinfo"));
}

static void make_regular(struct object *o) {
        make_path(o);
        put_fd(o, checked(open(o->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), o->path));
        put_fd(o, checked(open(o->path, O_WRONLY | O_APPEND | O_CLOEXEC), o->path));
}

enum { READY_TO_READ = POLLIN | POLLRDNORM, READY_TO_WRITE = POLLOUT | POLLWRNORM };

const struct script scripts[] = {
        { "unix stream", make_unix_stream, "n w1 w1 r0 R0 W0 r1 R1 W1 R0 c1", READY_TO_READ | READY_TO_WRITE | POLLWRBAND | POLLHUP | POLLRDHUP, false },
        { "unix stream, EOF before data's end", make_unix_stream, "w1 s1 r0 R0 w0 c1", POLLIN | POLLRDHUP | POLLHUP, false },
        { "unix stream, last data", make_unix_stream, "w1 c1 r0 R0", POLLIN | POLLRDHUP | POLLHUP, false },
        { "unix stream, reset", make_unix_stream, "w0 c1", POLLERR | POLLHUP | POLLRDHUP, false },
        { "unix stream, halves", make_unix_stream, "s0 w1 S0 R0 b1", POLLIN | POLLRDHUP | POLLHUP, false },
        { "unix stream, reading shut", make_unix_stream, "S1 b0", POLLRDHUP | POLLHUP, false },
        { "unix datagrams", make_unix_datagrams, "n w1 w1 r0 R0 W0 r1 R1 s1 c1", READY_TO_READ | READY_TO_WRITE, false },
        { "tcp", make_tcp_stream, "n w1 w1 r0 R0 W0 r1 R1 W1 R0 c1 w0", READY_TO_READ | READY_TO_WRITE | POLLRDHUP, false },
        { "tcp, out of band", make_tcp_stream, "o1 w1 r0 O0 R0 o1 w1 s1 O0 R0", POLLPRI | POLLIN | POLLRDHUP, false },
        { "tcp, reset", make_tcp_stream, "w1 x1 R0", POLLERR | POLLHUP | POLLRDHUP | POLLIN, false },
        { "tcp, halves", make_tcp_stream, "s0 w1 s1 R0", POLLHUP | POLLRDHUP | POLLIN, false },
        { "tcp, own halves", make_tcp_stream, "w1 S0 R0 s0 c1", POLLHUP | POLLRDHUP, false },
        { "tcp, unconnected", make_unconnected, "n n", POLLHUP, false },
        { "tcp, in progress", make_in_progress, "n a1 !0 a1 w0", READY_TO_WRITE, false },
        { "tcp, refused", make_in_progress, "n c1 !0 n", POLLERR | POLLHUP, false },
        { "tcp listener", make_tcp_listener, "n k0 k0 k0 a0 a0 a0 k0 c7 a0", READY_TO_READ, false },
        { "unix listener", make_unix_listener, "n k0 k0 k0 a0 a0 a0 k0 c7 a0", READY_TO_READ, false },
        { "udp", make_udp, "n w1 w1 r0 R0 w0 c1 w0 n", READY_TO_READ | READY_TO_WRITE | POLLERR, false },
        { "pipe", make_reading_end, "n w1 w1 r0 R0 W1 r0 R0 w1 c1 r0 R0", READY_TO_READ | POLLHUP, false },
        { "pipe, writing end", make_writing_end, "n w0 W0 r1 R1 W0 c1", READY_TO_WRITE | POLLERR, false },
        { "fifo", make_fifo, "n p1 w1 r0 R0 w1 c1 R0 p1 w1 R0 c1", READY_TO_READ | POLLHUP, false },
        { "fifo, writing end", make_fifo_writer, "n W0 R1 W0 c1 q1 R1", READY_TO_WRITE | POLLERR, false },
        { "pty", make_pty, "n w1 r0 R0 w0 R1 W1,R0 c1 p1 w1 R0", READY_TO_READ | READY_TO_WRITE | POLLHUP, false },
        { "pty, packets", make_pty_in_packets, "n f1 R0 w1 R0", POLLPRI, false },
        { "terminal", make_terminal, "n w1 r0 R0 W0,R1 w1 c1", READY_TO_READ | READY_TO_WRITE | POLLHUP, false },
        { "eventfd", make_eventfd, "n e0 e0 r0 F0 r0 e0", POLLIN | POLLOUT, false },
        { "semaphore", make_semaphore, "n r0 r0 e0 r0", POLLIN | POLLOUT, false },
        { "timer", make_timer, "n t0 r0 t0", POLLIN, false },
        { "inotify", make_inotify, "n i0 i0 R0 i0", READY_TO_READ, false },
        { "mountinfo", make_mountinfo, "n n", READY_TO_READ, false },
        { "file", make_regular, "n w1 r0 R0 w1 w1 R0 w1 T0 w1", 0, true },
};

const size_t n_scripts = ARRAY_SIZE(scripts);

void object_make(struct object *object, const struct script *script) {
        *object = (struct object){ 0 };
        script->make(object);
}

void object_close(struct object *object) {
        for (size_t i = 0; i < object->n_fds; i++)
                object->fd[i] = safe_close(object->fd[i]);
}

/* ---- steps ---------------------------------------------------------------------------------------- */

/* Bytes that take their time through TCP, or a pty, are waited for where it matters: by who compares. */
static void write_to(int fd, size_t n_max) {
        static const char bytes[1000] = "";
        size_t size = n_max == 1 ? 10 : sizeof(bytes);

        for (size_t n = 0; n < n_max; n++)
                if (send(fd, bytes, size, MSG_NOSIGNAL) < 0 && (errno != ENOTSOCK || write(fd, bytes, size) < 0))
                        return;
}

static void read_from(int fd, size_t n_max) {
        char bytes[4096];

        for (size_t n = 0; n < n_max; n++)
                if (read(fd, bytes, n_max == 1 ? 8 : sizeof(bytes)) <= 0)
                        return;
}

static void close_reset(int *fd) {
        struct linger linger = { .l_onoff = 1 };

        assert_system(setsockopt(*fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0, "SO_LINGER");
        (void)close(take_fd(fd));
}

static void set_timer(int fd) {
        const struct itimerspec soon = { .it_value.tv_nsec = 1 };

        assert_system(timerfd_settime(fd, 0, &soon, NULL) == 0, "timerfd_settime");
        poll_until(fd, POLLIN);
}

static void touch(void) {
        char path[PATH_MAX];

        (void)snprintf(path, sizeof(path), "%s/i", harness_tempdir());
        (void)close(checked(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600), path));
        assert_system(unlink(path) == 0, path);
}

static void connect_to(struct object *o) {
        struct sockaddr_un address;
        int fd;

        o->backlog++;
        if (!o->path[0]) {
                fd = put_fd(o, tcp_connect(o->fd[0]));
                poll_until(fd, POLLOUT);
                return;
        }
        address = unix_address(o);
        fd = put_fd(o, checked(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
        assert_system(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, o->path);
}

static void accept_from(struct object *o, int listener) {
        poll_until(listener, POLLIN);
        put_fd(o, checked(accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), "accept"));
        o->backlog--;
}

static void add_to_eventfd(int fd, uint64_t n) {
        ck_assert_int_eq(write(fd, &n, sizeof(n)), sizeof(n));
}

static void reopen(struct object *o, int *fd, int how) {
        (void)safe_close(*fd);
        *fd = checked(open(o->path, how | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), o->path);
}

static void make_step(struct object *object, char what, int *fd) {
        switch (what) {
        case 'w': write_to(*fd, 1); break;
        case 'W': write_to(*fd, 100000); break;
        case 'r': read_from(*fd, 1); break;
        case 'R': read_from(*fd, SIZE_MAX); break;
        case 'c': (void)close(take_fd(fd)); break;
        case 'x': close_reset(fd); break;
        case 's': ck_assert_int_eq(shutdown(*fd, SHUT_WR), 0); break;
        case 'S': ck_assert_int_eq(shutdown(*fd, SHUT_RD), 0); break;
        case 'b': ck_assert_int_eq(shutdown(*fd, SHUT_RDWR), 0); break;
        case 'o': ck_assert_int_eq(send(*fd, "!", 1, MSG_OOB | MSG_NOSIGNAL), 1); break;
        case 'O': (void)recv(*fd, &(char){ 0 }, 1, MSG_OOB); break;
        case 'k': connect_to(object); break;
        case 'a': accept_from(object, *fd); break;
        case 'p': reopen(object, fd, O_WRONLY); break;
        case 'q': reopen(object, fd, O_RDONLY); break;
        case 'e': add_to_eventfd(*fd, 3); break;
        case 'F': add_to_eventfd(*fd, UINT64_MAX - 1); break;
        case 't': set_timer(*fd); break;
        case 'i': touch(); break;
        case 'f': ck_assert_int_eq(tcflush(*fd, TCIFLUSH), 0); break;
        case 'T': ck_assert_int_eq(ftruncate(*fd, 0), 0); break;
        case 'n': break;
        case '!': poll_until(*fd, POLLOUT); break;
        default: ck_abort_msg("no step '%c'", what);
        }
}

bool object_step(struct object *object, const char **steps) {
        char *end = (char *)*steps, separator = ',';

        if (!*end)
                return false;
        while (separator == ',') {
                char what = *end;
                long number = strtol(end + 1, &end, 10);

                make_step(object, what, &object->fd[number]);
                separator = *end;
                end += separator != 0;
        }
        *steps = end;
        return true;
}
