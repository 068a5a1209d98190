/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "hostile.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "macro.h"

enum {
        CALL_BYTES = 64 * 1024, /* the longest message that the daemon takes */
        FDS_A_CALL = 253,       /* SCM_MAX_FD */
};

struct crowd {
        struct hostile_place place;
        unsigned n;
        int ready_fd;
        struct client *clients;
        unsigned n_files; /* that were made in the directory */
};

struct client {
        int fd;         /* -1: not connected */
        size_t n_sent;  /* of what it sends in pieces */
        unsigned n_calls;
};

/* ---- what all of them do ---------------------------------------------------------------------------------------- */

static void sleep_msec(long msec) {
        (void)nanosleep(&(struct timespec){ .tv_sec = msec / 1000, .tv_nsec = msec % 1000 * 1000000 }, NULL);
}

static int connect_once(const struct crowd *crowd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", crowd->place.socket);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return safe_close(fd);
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
        return fd;
}

/* All that are not. */
static void connect_all(struct crowd *crowd) {
        for (unsigned i = 0; i < crowd->n; i++)
                if (crowd->clients[i].fd < 0)
                        crowd->clients[i] = (struct client){ .fd = connect_once(crowd) };
}

static void leave(struct client *client) {
        client->fd = safe_close(client->fd);
}

static void say_ready(const struct crowd *crowd) {
        (void)!write(crowd->ready_fd, ".", 1);
}

/* As much of it as the socket takes. How much that was, or -1: the connection has ended. */
static ssize_t try_send(struct client *client, const char *data, size_t size) {
        ssize_t n = client->fd < 0 ? -1 : send(client->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (n < 0 && client->fd >= 0 && (errno == EAGAIN || errno == EINTR))
                return 0;
        if (n < 0)
                leave(client);
        return n;
}

/* The text, with the NUL behind it. */
static void send_text(struct client *client, const char *text) {
        (void)try_send(client, text, strlen(text) + 1);
}

/* Throws away what has come. Whether there was something. */
static bool read_away(struct client *client) {
        static char space[64 * 1024];
        ssize_t n = client->fd < 0 ? 0 : recv(client->fd, space, sizeof(space), MSG_DONTWAIT);

        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
                leave(client);
        return n > 0;
}

/* Something happens in the directory: one event. */
static void make_file(struct crowd *crowd) {
        char path[512];

        (void)snprintf(path, sizeof(path), "%s/tree/%u", crowd->place.directory, crowd->n_files++ % 4096);
        if (symlink("x", path) < 0)
                (void)unlink(path);
}

/* The `n` watches from this id on, of what `format` says with the id, in one call. */
static void add_watches(struct client *client, const char *format, unsigned first, unsigned n, const char *text) {
        static char call[CALL_BYTES];
        size_t size = (size_t)snprintf(call, sizeof(call), "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[");

        for (unsigned id = first; id < first + n && size < sizeof(call) - 1024; id++) {
                size += (size_t)snprintf(call + size, sizeof(call) - size, "%s{\"id\":%u,", id > first ? "," : "", id);
                size += (size_t)snprintf(call + size, sizeof(call) - size, format, text, id);
                size += (size_t)snprintf(call + size, sizeof(call) - size, "}");
        }
        size += (size_t)snprintf(call + size, sizeof(call) - size, "]}}") + 1;
        (void)try_send(client, call, size);
}

#define TREE "\"filter\":\"tree\",\"path\":\"%1$s/tree\""
#define TIMER "\"filter\":\"timer\",\"data\":10"
#define INFO "{\"method\":\"org.varlink.service.GetInfo\"}"
#define TEXT "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":\"org.kevd.events\"}}"
#define STREAM "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{},\"more\":true}"

/* A stream of what happens in the directory, and of a timer. */
static void begin_stream(struct crowd *crowd, struct client *client) {
        add_watches(client, TREE, 1, 1, crowd->place.directory);
        add_watches(client, TIMER, 2, 1, "");
        send_text(client, STREAM);
}

/* ---- those who are slow ----------------------------------------------------------------------------------------- */

/* One half streams events, the other has replies pile up. */
static void run_never_reads(struct crowd *crowd) {
        connect_all(crowd);
        for (unsigned i = 0; i < crowd->n; i++)
                if (i % 2)
                        begin_stream(crowd, &crowd->clients[i]);
        say_ready(crowd);
        for (;; sleep_msec(50)) {
                make_file(crowd);
                for (unsigned i = 0; i < crowd->n; i += 2)
                        send_text(&crowd->clients[i], TEXT);
                connect_all(crowd); /* who was thrown out */
        }
}

static void run_reads_slowly(struct crowd *crowd) {
        char byte;

        connect_all(crowd);
        for (unsigned i = 0; i < crowd->n; i++)
                begin_stream(crowd, &crowd->clients[i]);
        say_ready(crowd);
        for (unsigned turn = 0;; turn++, sleep_msec(50)) {
                make_file(crowd);
                for (unsigned i = turn % 20; i < crowd->n; i += 20)
                        if (crowd->clients[i].fd >= 0)
                                (void)!recv(crowd->clients[i].fd, &byte, 1, MSG_DONTWAIT);
        }
}

static void run_sends_slowly(struct crowd *crowd) {
        static const char call[] = TEXT;

        connect_all(crowd);
        say_ready(crowd);
        for (unsigned turn = 0;; turn++, sleep_msec(50))
                for (unsigned i = turn % 20; i < crowd->n; i += 20) {
                        struct client *c = &crowd->clients[i];

                        if (try_send(c, &call[c->n_sent % sizeof(call)], 1) == 1)
                                c->n_sent++;
                }
}

/* As much of a call as there may be. */
static void run_half_a_message(struct crowd *crowd) {
        static char half[CALL_BYTES - 1];

        memset(half, ' ', sizeof(half));
        half[0] = '{';
        connect_all(crowd);
        say_ready(crowd);
        for (;; sleep_msec(50))
                for (unsigned i = 0; i < crowd->n; i++) {
                        struct client *c = &crowd->clients[i];

                        if (c->n_sent < sizeof(half))
                                c->n_sent += (size_t)MAX(try_send(c, half + c->n_sent, sizeof(half) - c->n_sent), 0);
                }
}

/* ---- those who want much ---------------------------------------------------------------------------------------- */

static void wait_for_any(const struct crowd *crowd, short events) {
        struct pollfd *p = calloc(crowd->n, sizeof(*p));

        for (unsigned i = 0; p && i < crowd->n; i++)
                p[i] = (struct pollfd){ .fd = crowd->clients[i].fd, .events = events };
        (void)(p && poll(p, crowd->n, 100));
        free(p);
}

static void run_floods(struct crowd *crowd) {
        static char calls[1000 * sizeof(INFO)];

        for (size_t i = 0; i < sizeof(calls); i += sizeof(INFO))
                memcpy(calls + i, INFO, sizeof(INFO));
        connect_all(crowd);
        say_ready(crowd);
        for (;; wait_for_any(crowd, POLLIN | POLLOUT))
                for (unsigned i = 0; i < crowd->n; i++) {
                        struct client *c = &crowd->clients[i];
                        ssize_t n;

                        while (read_away(c))
                                ;
                        n = try_send(c, calls + c->n_sent, sizeof(calls) - c->n_sent);
                        c->n_sent = n < 0 ? 0 : (c->n_sent + (size_t)n) % sizeof(calls);
                        if (c->fd < 0)
                                connect_all(crowd);
                }
}

/* What it costs to look at what is long: the same as above, with calls of 60 KiB. */
static void run_long_calls(struct crowd *crowd) {
        connect_all(crowd);
        say_ready(crowd);
        for (;; wait_for_any(crowd, POLLIN | POLLOUT))
                for (unsigned i = 0; i < crowd->n; i++) {
                        struct client *c = &crowd->clients[i];

                        while (read_away(c))
                                ;
                        add_watches(c, "\"filter\":\"user\",\"name\":\"%s-%u\"", 1, 1400, "n");
                        leave(c); /* half of it was sent, perhaps */
                        c->fd = connect_once(crowd);
                }
}

union control {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(FDS_A_CALL * sizeof(int))];
};

/* The call, whole or only its first bytes. */
static void send_fds(struct client *client, const char *call, size_t size, const int *fds) {
        struct iovec part = { .iov_base = (char *)call, .iov_len = size };
        union control control = { 0 };
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1,
                .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes),
        };

        control.header = (struct cmsghdr){
                .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(FDS_A_CALL * sizeof(int)),
        };
        memcpy(CMSG_DATA(&control.header), fds, FDS_A_CALL * sizeof(int));
        if (client->fd >= 0 && sendmsg(client->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 && errno != EAGAIN &&
            errno != ETOOMANYREFS)
                leave(client);
}

/* Every second call watches one of them; every fifth client never ends its message. */
static void run_descriptors(struct crowd *crowd) {
        static const char call[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"remove\":[1],\"add\":["
                                   "{\"id\":1,\"filter\":\"read\",\"descriptor\":252}]}}";
        int fds[FDS_A_CALL];

        for (unsigned i = 0; i < FDS_A_CALL; i++)
                fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        connect_all(crowd);
        say_ready(crowd);
        for (;; wait_for_any(crowd, POLLIN)) {
                for (unsigned i = 0; i < crowd->n; i++) {
                        struct client *c = &crowd->clients[i];

                        (void)read_away(c);
                        if (i % 5 == 0)
                                send_fds(c, "{", 1, fds);
                        else if (c->n_calls++ % 2)
                                send_fds(c, call, sizeof(call), fds);
                        else
                                send_fds(c, INFO, sizeof(INFO), fds);
                }
                connect_all(crowd);
        }
}

/* Of each sort there is, until the daemon allows no more, and then more. */
static void run_watches(struct crowd *crowd) {
        static const struct {
                const char *format;
                unsigned n;
        } sorts[] = {
                { "\"filter\":\"user\",\"name\":\"%s-%u\"", 800 },
                { "\"filter\":\"timer\",\"data\":100000000%.0s", 400 },
                { TREE, 200 },
                { "\"filter\":\"vnode\",\"path\":\"%s\"", 200 },
                { "\"filter\":\"netdev\"%.0s", 200 },
                { "\"filter\":\"proc\",\"match\":{\"comm\":\"%s-%u\"}", 100 },
        };

        connect_all(crowd);
        say_ready(crowd);
        for (;; wait_for_any(crowd, POLLIN))
                for (unsigned i = 0; i < crowd->n; i++) {
                        struct client *c = &crowd->clients[i];
                        unsigned sort = c->n_calls % ARRAY_SIZE(sorts);

                        if (c->n_calls > 0 && !read_away(c))
                                continue;
                        add_watches(c, sorts[sort].format, c->n_calls * 1000, sorts[sort].n, crowd->place.directory);
                        c->n_calls++;
                        if (c->fd < 0)
                                connect_all(crowd);
                }
}

/* Each client watches the directory so many times, all without reading; it changes as often as it can, or now and then. */
static void watch_often(struct crowd *crowd, unsigned n_watches, long pause_msec) {
        connect_all(crowd);
        for (unsigned i = 0; i < crowd->n; i++)
                add_watches(&crowd->clients[i], TREE, 1, n_watches, crowd->place.directory);
        say_ready(crowd);
        for (;;) {
                make_file(crowd);
                if (pause_msec > 0)
                        sleep_msec(pause_msec);
        }
}

static void run_fills_queues(struct crowd *crowd) {
        watch_often(crowd, 1, 0);
}

static void run_fans_out(struct crowd *crowd) {
        watch_often(crowd, 250, 20);
}

static void run_short_timers(struct crowd *crowd) {
        connect_all(crowd);
        for (unsigned i = 0; i < crowd->n; i++)
                add_watches(&crowd->clients[i], "\"filter\":\"timer\",\"notes\":[\"nsec\"],\"data\":1%.0s", 1, 130, "");
        say_ready(crowd);
        for (;;)
                sleep_msec(1000);
}

/* ---- those who come and go --------------------------------------------------------------------------------------- */

/* They hold what they can get, and more come on top of that. */
static void run_connects(struct crowd *crowd) {
        connect_all(crowd);
        say_ready(crowd);
        for (;;) {
                struct client extra = { .fd = connect_once(crowd) };
                struct client *c = &crowd->clients[(unsigned)rand() % crowd->n];

                begin_stream(crowd, &extra);
                leave(c);
                *c = extra;
        }
}

/* One client, in a process of its own, which a further descriptor may tell of its connection. */
static void be_one(struct crowd *crowd) {
        struct client client = { .fd = -1 };

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        while ((client.fd = connect_once(crowd)) < 0)
                sleep_msec(10);
        begin_stream(crowd, &client);
        add_watches(&client, "\"filter\":\"proc\",\"match\":{\"comm\":\"%s\"}", 3, 1, "none");
        add_watches(&client, "\"filter\":\"vnode\",\"path\":\"%s\"", 4, 1, crowd->place.directory);
}

/* Each is killed with calls under way, and another takes its place. */
static void run_killed(struct crowd *crowd) {
        pid_t *pids = calloc(crowd->n, sizeof(*pids));

        for (unsigned i = 0; pids; i++) {
                pid_t *pid = &pids[i % crowd->n];

                if (i == crowd->n)
                        say_ready(crowd);
                if (*pid > 0) {
                        (void)kill(*pid, SIGKILL);
                        (void)waitpid(*pid, NULL, 0);
                }
                *pid = fork();
                if (*pid == 0) {
                        be_one(crowd);
                        for (;;)
                                (void)pause();
                }
        }
}

static void run_stopped(struct crowd *crowd) {
        for (unsigned i = 0; i < crowd->n; i++) {
                pid_t pid = fork();

                if (pid == 0) {
                        be_one(crowd);
                        (void)raise(SIGSTOP);
                        _exit(0);
                }
                if (pid > 0)
                        (void)waitpid(pid, NULL, WUNTRACED);
        }
        say_ready(crowd);
        for (;; sleep_msec(20))
                make_file(crowd);
}

/* ---- those who have the daemon wait ------------------------------------------------------------------------------- */

/* Every fifth leaves with its watch under way, and comes again. */
static void run_silent_paths(struct crowd *crowd) {
        static const char *const formats[] = {
                "\"filter\":\"tree\",\"path\":\"%s/%u\"",
                "\"filter\":\"vnode\",\"path\":\"%s/%u\"",
                "\"filter\":\"tree\",\"path\":\"%s\",\"tree\":{\"crossMounts\":true}",
        };

        for (unsigned turn = 0;; turn++, wait_for_any(crowd, POLLIN)) {
                connect_all(crowd);
                for (unsigned i = 0; i < crowd->n; i++) {
                        struct client *c = &crowd->clients[i];

                        if (i % 5 == 0 && turn > 0) {
                                leave(c);
                                c->fd = connect_once(crowd);
                        } else if (turn > 0 && !read_away(c))
                                continue;
                        add_watches(c, formats[i % ARRAY_SIZE(formats)], c->n_calls++, 1, crowd->place.silent);
                }
                if (turn == 0)
                        say_ready(crowd);
        }
}

const struct hostile_kind hostile_kinds[] = {
        { "never-reads", "streams and replies that nobody reads", run_never_reads },
        { "reads-slowly", "a byte of a stream is read each second", run_reads_slowly },
        { "sends-slowly", "a byte of a call is sent each second", run_sends_slowly },
        { "half-a-message", "64 KiB of a call, and no end", run_half_a_message },
        { "floods", "as many calls as the socket takes", run_floods },
        { "long-calls", "calls with 1,400 watches, whose sender leaves at once", run_long_calls },
        { "descriptors", "253 descriptors with each call", run_descriptors },
        { "killed", "processes that are killed with calls under way", run_killed },
        { "stopped", "processes that are stopped with a stream under way", run_stopped },
        { "silent-paths", "paths on a file system that never answers", run_silent_paths },
        { "watches", "as many watches of all sorts as are allowed", run_watches },
        { "fills-queues", "a tree that changes all the time, and nobody reads", run_fills_queues },
        { "fans-out", "250 watches of one tree each, and nobody reads", run_fans_out },
        { "short-timers", "130 timers of a nanosecond each", run_short_timers },
        { "connects", "connections that come and go", run_connects },
};
const size_t n_hostile_kinds = ARRAY_SIZE(hostile_kinds);

/* ---- starting and ending ------------------------------------------------------------------------------------------ */

static void raise_descriptors(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE, &limit);
        }
}

static _Noreturn void lead(const struct hostile_kind *kind, struct crowd *crowd, uid_t uid, pid_t parent) {
        char path[512];

        raise_descriptors();
        (void)snprintf(path, sizeof(path), "%s/tree", crowd->place.directory);
        crowd->clients = calloc(crowd->n, sizeof(*crowd->clients));
        if (!crowd->clients || setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0 ||
            prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent || nice(19) < 0 ||
            (mkdir(path, 0700) < 0 && errno != EEXIST))
                _exit(1);
        for (unsigned i = 0; i < crowd->n; i++)
                crowd->clients[i].fd = -1;
        kind->run(crowd);
        _exit(1);
}

pid_t hostile_start(const struct hostile_kind *kind, const struct hostile_place *place, uid_t uid, unsigned n) {
        struct crowd crowd = { .place = *place, .n = n };
        pid_t parent = getpid(), leader;
        int ready[2];
        char byte;
        ssize_t r;

        if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0 || pipe2(ready, O_CLOEXEC) < 0)
                return -errno;
        leader = fork();
        if (leader == 0) {
                (void)setpgid(0, 0);
                (void)close(ready[0]);
                crowd.ready_fd = ready[1];
                lead(kind, &crowd, uid, parent);
        }
        (void)setpgid(leader, leader); /* whoever comes first */
        (void)close(ready[1]);
        while ((r = read(ready[0], &byte, 1)) < 0 && errno == EINTR)
                ;
        (void)close(ready[0]);
        if (leader > 0 && r != 1) {
                hostile_end(leader);
                return -EIO;
        }
        return leader > 0 ? leader : -EAGAIN;
}

void hostile_end(pid_t leader) {
        (void)kill(-leader, SIGKILL);
        while (waitpid(-leader, NULL, 0) > 0 || errno == EINTR)
                ;
}
