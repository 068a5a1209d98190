/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * One event to many clients: when the first and when the last of them has it, and what that costs the daemon.
 *
 * Beside it a bare server: a program that waits for the same event, by an inotify instance of its own, and writes
 * the very bytes that the daemon's clients got to as many Unix sockets. Both have the same clients: sockets of one
 * process with one thread, which waits by epoll, reads each with one recv(2), and looks for the event's number.
 * Both are there all the while, and take turns.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "result.h"
#include "wire.h"

enum {
        MESSAGE_BYTES = 4096,
        READY_AT_ONCE = 512,
        PATIENCE_MSEC = 10000, /* no event for so long, and those that are missing are missing */
        CLIENT_EVENTS = 100000, /* of a round, about */
        EVENTS_MIN = 20,
        EVENTS_MAX = 500,
        SPARE_DESCRIPTORS = 100,
};

static long min_clients = 1, max_clients = 5000, rounds = 5;

static const struct bench_option options[] = {
        { "clients", &max_clients, 1, "at most" },
        { "least", &min_clients, 1, "at least" },
        { "rounds", &rounds, 1, "with each number of clients" },
};

/* What the clients tell of each event. */
struct delivery {
        uint64_t first_nsec, last_nsec; /* CLOCK_MONOTONIC */
        uint64_t cpu_nsec;              /* of the clients' process, for this event */
        size_t n_got, n_wrong;          /* messages; those with another number than the next */
};

/* A message that a client has got, for the bare server to send. */
struct example {
        char bytes[MESSAGE_BYTES];
        size_t size;
};

/* The daemon or the bare server, with its clients. */
struct side {
        const char *name;
        pid_t server, clients;
        int control; /* the clients' process tells deliveries */
        int file;    /* a byte is written to it */
        double *first, *last, *cpu, *client_cpu; /* of the rounds; us */
        long n_rounds;
        bool missing;
};

static struct example *example; /* shared */

/* ---- the clients ---------------------------------------------------------------------------- */

struct client {
        struct wire wire;
        long long seq;
};

static void subscribe(struct client *clients, size_t n, const char *path, const char *directory) {
        char request[512];
        int size = snprintf(request, sizeof(request),
                            "{\"method\":\"org.kevd.events.Monitor\",\"more\":true,\"parameters\":{\"watches\":["
                            "{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"write\"]}]}}", directory);

        for (size_t i = 0; i < n; i++) {
                wire_open(&clients[i].wire, path);
                wire_send(&clients[i].wire, request, (size_t)size);
        }
        for (size_t i = 0; i < n; i++) {
                const char *reply = wire_receive(&clients[i].wire, PATIENCE_MSEC * 6);

                if (!reply || strstr(reply, "\"errno\"") || strstr(reply, "\"error\""))
                        bench_fail("client %zu: %s", i, reply ? reply : "no reply");
                free(take_pointer(&clients[i].wire.in)); /* from here on all read into one place */
        }
}

static uint64_t process_cpu_nsec(void) {
        struct timespec t = { 0 };

        (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* One event to all of them. */
static void await_event(int epoll, size_t n, bool counts, struct delivery *d) {
        static struct epoll_event ready[READY_AT_ONCE];
        static char message[MESSAGE_BYTES];
        uint64_t cpu = process_cpu_nsec();

        *d = (struct delivery){ 0 };
        while (d->n_got < n) {
                int n_ready = epoll_wait(epoll, ready, READY_AT_ONCE, PATIENCE_MSEC);

                bench_check_system(n_ready >= 0 || errno == EINTR, "epoll_wait");
                if (n_ready == 0)
                        break;
                for (int i = 0; i < n_ready; i++) {
                        struct client *c = ready[i].data.ptr;
                        ssize_t size = recv(c->wire.fd, message, sizeof(message) - 1, MSG_DONTWAIT);

                        if (size <= 0)
                                bench_fail("a client has lost its connection");
                        d->last_nsec = now_nsec();
                        if (d->first_nsec == 0)
                                d->first_nsec = d->last_nsec;
                        d->n_got++;
                        /* One message, one event, and its number is the next one. */
                        d->n_wrong += memchr(message, 0, (size_t)size) != message + size - 1 ||
                                      (counts && wire_number(message, "seq") != ++c->seq);
                        if (counts && d->n_got == n) {
                                memcpy(example->bytes, message, (size_t)size);
                                example->size = (size_t)size;
                        }
                }
        }
        d->cpu_nsec = process_cpu_nsec() - cpu;
}

/* Asked for as many events as there are bytes in `control`. */
static _Noreturn void be_clients(int control, size_t n, const char *path, const char *directory, bool counts) {
        struct client *clients = calloc(n, sizeof(*clients));
        int epoll = epoll_create1(EPOLL_CLOEXEC);
        struct delivery d = { 0 };
        char byte;

        bench_check_system(clients && epoll >= 0, "the clients");
        subscribe(clients, n, path, directory);
        for (size_t i = 0; i < n; i++) {
                struct epoll_event event = { .events = EPOLLIN, .data.ptr = &clients[i] };

                bench_check_system(epoll_ctl(epoll, EPOLL_CTL_ADD, clients[i].wire.fd, &event) == 0, "epoll_ctl");
        }
        for (;;) {
                bench_check_system(send(control, &d, sizeof(d), MSG_NOSIGNAL) == sizeof(d), "send");
                if (recv(control, &byte, 1, 0) != 1)
                        exit(EXIT_SUCCESS);
                await_event(epoll, n, counts, &d);
        }
}

/* ---- the bare server -------------------------------------------------------------------------- */

static _Noreturn void be_bare(int listener, size_t n, const char *file) {
        int *fds = calloc(n, sizeof(*fds)), inotify = inotify_init1(IN_CLOEXEC);
        char buffer[4096];

        bench_check_system(fds && inotify >= 0 && inotify_add_watch(inotify, file, IN_MODIFY) >= 0, "the bare server");
        for (size_t i = 0; i < n; i++) {
                fds[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
                bench_check_system(fds[i] >= 0 && recv(fds[i], buffer, sizeof(buffer), 0) > 0 &&
                                   send(fds[i], "{}", 3, MSG_NOSIGNAL) == 3, "the bare server's clients");
        }
        while (read(inotify, buffer, sizeof(buffer)) > 0)
                for (size_t i = 0; i < n; i++)
                        bench_check_system(send(fds[i], example->bytes, example->size, MSG_NOSIGNAL | MSG_DONTWAIT) ==
                                           (ssize_t)example->size, "the bare server");
        exit(EXIT_FAILURE);
}

/* ---- both ------------------------------------------------------------------------------------- */

static void receive_delivery(const struct side *side, struct delivery *d) {
        if (recv(side->control, d, sizeof(*d), 0) != sizeof(*d))
                bench_fail("%s: the clients have ended", side->name);
}

static void start_clients(struct side *side, size_t n, const char *path, const char *directory, bool counts) {
        struct delivery ready;
        int pair[2];

        bench_check_system(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
        side->clients = bench_fork();
        if (side->clients == 0) {
                (void)close(pair[0]);
                be_clients(pair[1], n, path, directory, counts);
        }
        (void)close(pair[1]);
        side->control = pair[0];
        receive_delivery(side, &ready);
}

static char *make_file(const struct bench *b, struct side *side) {
        char *directory = bench_path(b, "%s", side->name), *path = bench_path(b, "%s/file", side->name);

        bench_check_system(mkdir(directory, 0700) == 0 || errno == EEXIST, directory);
        side->file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        bench_check_system(side->file >= 0, path);
        free(directory);
        return path;
}

static void start_daemon(struct bench *b, struct side *side, size_t n) {
        char *file = make_file(b, side), *directory = bench_path(b, "%s", side->name);

        daemon_start(b);
        side->server = b->daemon;
        start_clients(side, n, wire_path(b), directory, true);
        free(directory);
        free(file);
}

static void start_bare(struct bench *b, struct side *side, size_t n) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        char *file = make_file(b, side), *path = bench_path(b, "bare-socket");
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        (void)unlink(path);
        bench_check_system(listener >= 0 && bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                           listen(listener, SOMAXCONN) == 0, path);
        side->server = bench_fork();
        if (side->server == 0)
                be_bare(listener, n, file);
        (void)close(listener);
        start_clients(side, n, path, b->directory, false);
        free(path);
        free(file);
}

static void stop(struct bench *b, struct side *side) {
        (void)close(side->control);
        (void)close(side->file);
        (void)waitpid(side->clients, NULL, 0);
        if (side->server == b->daemon)
                daemon_stop(b);
        else {
                (void)kill(side->server, SIGKILL);
                (void)waitpid(side->server, NULL, 0);
        }
}

static double median(uint64_t *values, size_t n) {
        sort_u64(values, n);
        return (double)percentile(values, n, 0.5);
}

/* One event after the other: each waits until all have the one before. */
static void measure(struct side *side, long round, size_t n, size_t n_events) {
        uint64_t first[EVENTS_MAX], last[EVENTS_MAX], client_cpu = 0, cpu = usage_read(side->server).cpu_nsec;
        double shares = (double)n * (double)n_events * 1e3; /* us of each client and event */

        for (size_t i = 0; i < n_events; i++) {
                struct delivery d;
                uint64_t start;

                bench_check_system(send(side->control, "", 1, MSG_NOSIGNAL) == 1, "send");
                bench_check_system(pwrite(side->file, "x", 1, 0) == 1, "pwrite");
                start = now_nsec();
                receive_delivery(side, &d);
                side->missing |= d.n_got < n || d.n_wrong > 0;
                /* It may be there before the writer has the processor again. */
                first[i] = d.first_nsec - MIN(start, d.first_nsec);
                last[i] = d.last_nsec - MIN(start, d.last_nsec);
                client_cpu += d.cpu_nsec;
                if (side->missing)
                        n_events = i + 1;
        }
        side->cpu[round] = (double)(usage_read(side->server).cpu_nsec - cpu) / shares;
        side->client_cpu[round] = (double)client_cpu / shares;
        side->first[round] = median(first, n_events) / 1e3;
        side->last[round] = median(last, n_events) / 1e3;
        side->n_rounds = round + 1;
}

static void write_one(const struct side *side, const struct side *floor, size_t n, const char *metric,
                      const double *values, const double *floor_values) {
        struct result result = {
                .workload = "fan-out", .program = side->name, .variant = "one event", .metric = metric, .unit = "us",
                .x = (double)n, .values = values, .n = (size_t)side->n_rounds, .floor = floor ? floor_values : NULL,
                .completeness = side->missing ? COMPLETENESS_MISSING : COMPLETENESS_WHOLE,
        };

        result_write(&result);
}

static void write_all(const struct side *side, const struct side *floor, size_t n) {
        size_t n_rounds = (size_t)side->n_rounds;

        write_one(side, floor, n, "first delivery", side->first, floor ? floor->first : NULL);
        write_one(side, floor, n, "last delivery", side->last, floor ? floor->last : NULL);
        write_one(side, floor, n, "CPU a client and event", side->cpu, floor ? floor->cpu : NULL);
        write_one(side, floor, n, "CPU of the clients, a client and event", side->client_cpu,
                  floor ? floor->client_cpu : NULL);
        printf("%7zu %-8s %10.1f us %10.1f us %8.2f us %8.2f us%s\n", n, side->name,
               result_median(side->first, n_rounds), result_median(side->last, n_rounds),
               result_median(side->cpu, n_rounds), result_median(side->client_cpu, n_rounds),
               side->missing ? "  WRONG: events are missing" : "");
}

static void allocate(struct side *side, const char *name) {
        *side = (struct side){ .name = name };
        side->first = calloc(4 * (size_t)rounds, sizeof(double));
        bench_check_system(side->first, "calloc");
        side->last = side->first + rounds;
        side->cpu = side->last + rounds;
        side->client_cpu = side->cpu + rounds;
}

static void measure_number(struct bench *b, size_t n) {
        size_t n_events = MIN(MAX((size_t)CLIENT_EVENTS / n, (size_t)EVENTS_MIN), (size_t)EVENTS_MAX);
        struct side kevd, bare;

        allocate(&kevd, "kevd");
        allocate(&bare, "floor");
        start_daemon(b, &kevd, n);
        start_bare(b, &bare, n);
        for (long i = 0; i < rounds && !kevd.missing && !bare.missing; i++) {
                measure(&kevd, i, n, n_events);
                measure(&bare, i, n, n_events);
        }
        stop(b, &bare);
        stop(b, &kevd);
        write_all(&bare, NULL, n);
        write_all(&kevd, &bare, n);
        (void)fflush(stdout);
        free(kevd.first);
        free(bare.first);
}

static void run(struct bench *b) {
        static const long numbers[] = { 1, 10, 100, 1000, 5000 };
        long room = raise_descriptors() - SPARE_DESCRIPTORS;

        example = mmap(NULL, sizeof(*example), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        bench_check_system(example != MAP_FAILED, "mmap");
        daemon_raise_limits(b, NULL);
        printf("fan-out: one event to many clients, %ld rounds\n", rounds);
        printf("%7s %-8s %13s %13s %11s %11s\n", "clients", "", "first", "last", "CPU each", "client's");
        for (size_t i = 0; i < ARRAY_SIZE(numbers) && numbers[i] <= max_clients; i++)
                if (numbers[i] < min_clients)
                        continue;
                else if (numbers[i] <= room)
                        measure_number(b, (size_t)numbers[i]);
                else
                        printf("%7ld skipped: a process may have no more than %ld descriptors\n", numbers[i], room);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "fan-out", "One event to many clients.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
