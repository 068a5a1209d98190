/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the daemon does when nothing happens: many clients with watches of every
 * kind, and the context switches of each of its threads after some seconds. A
 * thread that never runs has none.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "bench.h"
#include "result.h"
#include "wire.h"

enum {
        THREADS_MAX = 64,
        PROCESSES = 20,
        PERIOD_SEC = 24 * 3600, /* of the timers */
        QUIET_MSEC = 6000,      /* in which it does nothing: then all that the watches led to is over */
        QUIET_TRIES = 10,
        SPARE_DESCRIPTORS = 100,
};

static long n_clients = 100, n_watches = 1000, seconds = 10;

static const struct bench_option options[] = {
        { "clients", &n_clients, 1, "connections" },
        { "watches", &n_watches, 1, "of all clients together" },
        { "seconds", &seconds, 1, "for which nothing happens" },
};

struct subjects {
        char *file, *directory;
        pid_t pids[PROCESSES];
};

static void start_processes(pid_t *pids) {
        for (unsigned i = 0; i < PROCESSES; i++) {
                pids[i] = fork();
                bench_check_system(pids[i] >= 0, "fork");
                if (pids[i] == 0) {
                        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                        for (;;)
                                (void)pause();
                }
        }
}

static void end_processes(const pid_t *pids) {
        for (unsigned i = 0; i < PROCESSES; i++) {
                (void)kill(pids[i], SIGKILL);
                (void)waitpid(pids[i], NULL, 0);
        }
}

/* The `i`-th of all: of ten, four are files, one a tree, two processes, two timers, one the links. */
static void add_watch(struct kev *kev, const struct subjects *subjects, long i) {
        static const enum kev_filter filters[] = {
                KEV_FILTER_VNODE, KEV_FILTER_VNODE, KEV_FILTER_VNODE, KEV_FILTER_VNODE, KEV_FILTER_TREE,
                KEV_FILTER_PROC,  KEV_FILTER_PROC,  KEV_FILTER_TIMER, KEV_FILTER_TIMER, KEV_FILTER_NETDEV,
        };
        enum kev_filter filter = filters[(size_t)i % ARRAY_SIZE(filters)];
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(filter, &watch);

        if (r == 0 && filter == KEV_FILTER_VNODE)
                r = kev_watch_set_path(watch, subjects->file);
        else if (r == 0 && filter == KEV_FILTER_TREE)
                r = kev_watch_set_path(watch, subjects->directory);
        else if (r == 0 && filter == KEV_FILTER_PROC)
                r = kev_watch_set_pid(watch, subjects->pids[i % PROCESSES]);
        else if (r == 0 && filter == KEV_FILTER_TIMER)
                r = kev_watch_set_data(watch, PERIOD_SEC * 1000);
        if (r < 0)
                bench_fail("no such watch can be");
        (void)bench_check(kev_add(kev, watch, NULL, NULL, NULL), kev, kev_filter_name(filter));
        kev_watch_free(watch);
}

static const struct thread_switches *find(const struct thread_switches *threads, size_t n, pid_t tid) {
        static const struct thread_switches none;

        for (size_t i = 0; i < n; i++)
                if (threads[i].tid == tid)
                        return &threads[i];
        return &none;
}

static void write_one(const char *metric, const char *unit, double value) {
        char variant[80];
        struct result result = {
                .workload = "idle", .program = "kevd", .variant = variant, .metric = metric, .unit = unit,
                .x = (double)n_watches, .values = &value, .n = 1,
        };

        (void)snprintf(variant, sizeof(variant), "%ld clients, %ld watches, %ld s", n_clients, n_watches, seconds);
        result_write(&result);
}

static void print_all(const struct bench *b, const struct thread_switches *before, size_t n_before,
                      uint64_t cpu_before) {
        struct thread_switches after[THREADS_MAX];
        size_t n = switches_read(b->daemon, after, THREADS_MAX);
        uint64_t voluntary = 0, involuntary = 0, cpu_nsec = usage_read(b->daemon).cpu_nsec - cpu_before;

        printf("idle: %ld clients, %ld watches, %ld s\n", n_clients, n_watches, seconds);
        printf("%-22s %10s %12s\n", "switches", "voluntary", "involuntary");
        for (size_t i = 0; i < n; i++) {
                const struct thread_switches *then = find(before, n_before, after[i].tid);
                uint64_t v = after[i].voluntary - then->voluntary, in = after[i].involuntary - then->involuntary;

                printf("  %-20s %10" PRIu64 " %12" PRIu64 "\n", after[i].tid == b->daemon ? "the loop" : "a worker", v,
                       in);
                voluntary += v;
                involuntary += in;
        }
        printf("  %-20s %10" PRIu64 " %12" PRIu64 "\n", "all", voluntary, involuntary);
        printf("%-22s %.3f ms\n", "CPU time", (double)cpu_nsec / 1e6);
        printf("%-22s %.1f MiB\n", "memory", (double)usage_read(b->daemon).rss_bytes / 1048576);
        write_one("wake-ups", "1", (double)voluntary);
        write_one("CPU", "ms", (double)cpu_nsec / 1e6);
        write_one("memory", "bytes", (double)usage_read(b->daemon).rss_bytes);
}

static uint64_t count_switches(pid_t daemon) {
        struct thread_switches all[THREADS_MAX];
        size_t n = switches_read(daemon, all, THREADS_MAX);
        uint64_t sum = 0;

        for (size_t i = 0; i < n; i++)
                sum += all[i].voluntary;
        return sum;
}

/* When it had much to do it looks a few times for what it can give back. */
static void await_rest(const struct bench *b) {
        uint64_t before, now = count_switches(b->daemon);
        int n = 0;

        do {
                before = now;
                sleep_msec(QUIET_MSEC);
                now = count_switches(b->daemon);
        } while (now != before && ++n < QUIET_TRIES);
}

static void run(struct bench *b) {
        struct subjects subjects = { .file = bench_path(b, "file"), .directory = bench_path(b, "tree") };
        struct kev **clients = calloc((size_t)n_clients, sizeof(*clients));
        struct thread_switches before[THREADS_MAX];
        uint64_t cpu_before;
        size_t n_before;
        int fd;

        bench_check_system(clients, "calloc");
        fd = open(subjects.file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        bench_check_system(fd >= 0, subjects.file);
        (void)close(fd);
        tree_make(subjects.directory, 10, 10, 1);
        start_processes(subjects.pids);
        daemon_raise_limits(b, NULL);
        if (n_clients > raise_descriptors() - SPARE_DESCRIPTORS)
                bench_fail("a process may not have so many descriptors");
        daemon_start(b);
        for (long i = 0; i < n_clients; i++)
                clients[i] = client_open(b);
        /* Each client has watches of every kind. */
        for (long i = 0; i < n_watches; i++)
                add_watch(clients[i * n_clients / n_watches], &subjects, i);
        await_rest(b);

        n_before = switches_read(b->daemon, before, THREADS_MAX);
        cpu_before = usage_read(b->daemon).cpu_nsec;
        sleep_msec((unsigned)seconds * 1000);
        print_all(b, before, n_before, cpu_before);

        for (long i = 0; i < n_clients; i++)
                kev_close(clients[i]);
        end_processes(subjects.pids);
        free(clients);
        free(subjects.file);
        free(subjects.directory);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "idle", "What the daemon does when nothing happens.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
