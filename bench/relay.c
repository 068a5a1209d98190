/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "relay.h"

#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define PERIOD_NSEC (5 * NSEC_PER_MSEC)

enum { NAMES_MAX = RELAY_SECONDS_MAX * 200 };

struct moment {
        atomic_ullong begun_nsec, told_nsec; /* CLOCK_MONOTONIC; 0: not yet */
};

struct relay_page {
        struct moment moments[NAMES_MAX];
};

static pid_t fork_here(void) {
        pid_t parent = getpid(), pid = fork();

        bench_check_system(pid >= 0, "fork");
        if (pid == 0 && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent))
                _exit(1);
        return pid;
}

static _Noreturn void serve(int inotify, int socket) {
        static char buffer[65536] __attribute__((aligned(__alignof__(struct inotify_event))));
        ssize_t size;

        while ((size = read(inotify, buffer, sizeof(buffer))) > 0)
                for (ssize_t at = 0; at < size;) {
                        const struct inotify_event *event = (const void *)(buffer + at);

                        bench_check_system(send(socket, event->name, event->len, MSG_NOSIGNAL) == (ssize_t)event->len,
                                           "the bare relay");
                        at += (ssize_t)(sizeof(*event) + event->len);
                }
        _exit(1);
}

struct client {
        struct relay_page *page;
        const char *directory;
};

/* Without regard to what is told. */
static void *make_names(void *argument) {
        const struct client *client = argument;
        uint64_t start = now_nsec();

        for (unsigned i = 0; i < NAMES_MAX; i++) {
                uint64_t due = start + i * PERIOD_NSEC;
                struct timespec t = { .tv_sec = (time_t)(due / NSEC_PER_SEC), .tv_nsec = (long)(due % NSEC_PER_SEC) };
                char path[PATH_MAX];

                (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
                (void)snprintf(path, sizeof(path), "%s/%u", client->directory, i);
                client->page->moments[i].begun_nsec = now_nsec();
                bench_check_system(symlink("x", path) == 0, path);
                client->page->moments[i].begun_nsec = now_nsec(); /* not what the file system takes */
        }
        return NULL;
}

static _Noreturn void be_client(struct client client, int socket) {
        char name[NAME_MAX + 1];
        pthread_t thread;

        bench_check_system(pthread_create(&thread, NULL, make_names, &client) == 0, "pthread_create");
        while (recv(socket, name, sizeof(name), 0) > 0) {
                unsigned long i = strtoul(name, NULL, 10);

                if (i < NAMES_MAX)
                        client.page->moments[i].told_nsec = now_nsec();
        }
        _exit(1);
}

void relay_start(struct relay *relay, const char *directory) {
        int inotify = inotify_init1(IN_CLOEXEC), ends[2];

        bench_check_system(inotify >= 0 && inotify_add_watch(inotify, directory, IN_CREATE) >= 0, directory);
        bench_check_system(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
        relay->page = mmap(NULL, sizeof(*relay->page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        bench_check_system(relay->page != MAP_FAILED, "mmap");
        relay->server = fork_here();
        if (relay->server == 0)
                serve(inotify, ends[0]);
        (void)close(inotify);
        (void)close(ends[0]);
        relay->client = fork_here();
        if (relay->client == 0)
                be_client((struct client){ relay->page, directory }, ends[1]);
        (void)close(ends[1]);
}

size_t relay_latencies(const struct relay *relay, uint64_t from_nsec, uint64_t to_nsec, uint64_t *latencies, size_t n_max) {
        size_t n = 0;

        for (size_t i = 0; i < NAMES_MAX && n < n_max; i++) {
                uint64_t begun = relay->page->moments[i].begun_nsec, told = relay->page->moments[i].told_nsec;

                if (begun >= from_nsec && begun < to_nsec && told != 0)
                        latencies[n++] = told - MIN(told, begun);
        }
        return n;
}

void relay_end(struct relay *relay) {
        (void)kill(relay->client, SIGKILL);
        (void)kill(relay->server, SIGKILL);
        (void)waitpid(relay->client, NULL, 0);
        (void)waitpid(relay->server, NULL, 0);
        (void)munmap(relay->page, sizeof(*relay->page));
}
