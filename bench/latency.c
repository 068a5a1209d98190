/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How long it takes until a program knows of a file that was made or written to:
 * from the return of creat(2) or write(2) to the moment when this process has the
 * file's name. That is read by a thread of its own, for kevd, for others, and for
 * inotify used right here (the floor). Operations come one at a time - the next
 * when the last was told -, or at a fixed rate, whatever is told meanwhile.
 *
 * Each operation is one on a file of its own, and every file has to be told.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "result.h"
#include "watcher.h"

static long n_operations = 5000, n_directories = 100, rate = 1000, rounds = 5, seconds = 5, both = 1, patience = 20;

static const struct bench_option options[] = {
        { "operations", &n_operations, 10, "in each round" },
        { "directories", &n_directories, 1, "in which they happen, in turn" },
        { "rate", &rate, 1, "operations a second, where they don't wait" },
        { "seconds", &seconds, 1, "after which a round of single operations is over, however many there were" },
        { "rounds", &rounds, 1, "of which the median is shown" },
        { "patience", &patience, 1, "seconds; what isn't told so long after the last operation is missing" },
        { "both", &both, 0, "0: writes alone, and no files that are made" },
};

enum { READ_MSEC = 100 };

enum metric { P50, P99, P999, CALL_P50, CALL_P99, METRICS };

static const struct {
        const char *name;
        double fraction;
        size_t n_min;  /* figures, or it says nothing */
        bool has_call; /* from before the call: what is told while that returns would be 0 */
} metrics[METRICS] = {
        [P50] = { "p50", 0.5, 2, false },
        [P99] = { "p99", 0.99, 100, false },
        [P999] = { "p99.9", 0.999, 1000, false },
        [CALL_P50] = { "p50 with the call", 0.5, 2, true },
        [CALL_P99] = { "p99 with the call", 0.99, 100, true },
};

struct workload {
        const char *variant;
        bool create; /* else files that are there are written to */
        bool paced;
};

struct contender {
        bool is_out;
        double *values[METRICS]; /* usec, of the rounds */
        long n[METRICS];
        uint64_t n_missing, n_operations;
};

struct measurement {
        struct watcher watcher;
        uint64_t *begun_nsec, *done_nsec, *told_nsec; /* by file; 0: not yet */
        uint64_t n_told;                              /* as far as the writer knows */
        sem_t told;                                   /* one more */
        atomic_bool is_over;
        int directory_fd;
};

/* Right when it is told: the reader has nothing else to do before. */
static void take(uint64_t number, void *userdata) {
        struct measurement *m = userdata;

        if (number >= (uint64_t)n_operations || m->told_nsec[number] > 0)
                return;
        m->told_nsec[number] = now_nsec();
        (void)sem_post(&m->told);
}

static void *read_all(void *argument) {
        struct measurement *m = argument;

        while (!atomic_load(&m->is_over))
                (void)watcher_read(&m->watcher, READ_MSEC);
        return NULL;
}

/* sem_overview(7): CLOCK_MONOTONIC with sem_clockwait(3) */
static bool wait_told(struct measurement *m, uint64_t deadline) {
        struct timespec until = { (time_t)(deadline / NSEC_PER_SEC), (long)(deadline % NSEC_PER_SEC) };
        int r;

        while ((r = sem_clockwait(&m->told, CLOCK_MONOTONIC, &until)) < 0 && errno == EINTR)
                ;
        if (r < 0)
                return false;
        m->n_told++;
        return true;
}

static void file_name(char *name, size_t size, uint64_t number) {
        char file[WATCHER_NAME_SIZE];

        watcher_file_name(file, number);
        (void)snprintf(name, size, "%" PRIu64 "/%s", number % (uint64_t)n_directories, file);
}

static void operate(struct measurement *m, bool create, uint64_t number) {
        char name[64];
        int fd;

        file_name(name, sizeof(name), number);
        m->begun_nsec[number] = now_nsec();
        fd = openat(m->directory_fd, name, O_WRONLY | O_CLOEXEC | (create ? O_CREAT | O_EXCL : 0), 0600);
        bench_check_system(fd >= 0, name);
        if (!create) {
                m->begun_nsec[number] = now_nsec();
                bench_check_system(write(fd, "x", 1) == 1, name);
        }
        m->done_nsec[number] = now_nsec();
        (void)close(fd);
}

/* Returns how many operations there were. */
static uint64_t run_single(struct measurement *m, bool create) {
        uint64_t end = now_nsec() + (uint64_t)seconds * NSEC_PER_SEC, n = 0;

        while (n < (uint64_t)n_operations && now_nsec() < end) {
                operate(m, create, n++);
                if (!wait_told(m, now_nsec() + (uint64_t)patience * NSEC_PER_SEC))
                        break;
        }
        return n;
}

static uint64_t run_paced(struct measurement *m, bool create) {
        uint64_t start = now_nsec(), n = (uint64_t)n_operations, deadline;

        for (uint64_t i = 0; i < n; i++) {
                uint64_t due = start + i * NSEC_PER_SEC / (uint64_t)rate;
                struct timespec until = { (time_t)(due / NSEC_PER_SEC), (long)(due % NSEC_PER_SEC) };

                while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
                        ;
                operate(m, create, i);
        }
        deadline = now_nsec() + (uint64_t)patience * NSEC_PER_SEC;
        while (m->n_told < n && wait_told(m, deadline))
                ;
        return n;
}

static void make_files(struct measurement *m, bool create) {
        char name[64];

        for (long i = 0; i < n_directories; i++) {
                (void)snprintf(name, sizeof(name), "%ld", i);
                bench_check_system(mkdirat(m->directory_fd, name, 0700) == 0, name);
        }
        for (uint64_t i = 0; !create && i < (uint64_t)n_operations; i++) {
                int fd;

                file_name(name, sizeof(name), i);
                fd = openat(m->directory_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
                bench_check_system(fd >= 0, name);
                (void)close(fd);
        }
}

/* Sorted. Returns how many of `n` were told. */
static size_t latencies(const struct measurement *m, uint64_t n, bool has_call, uint64_t *values) {
        const uint64_t *from = has_call ? m->begun_nsec : m->done_nsec;
        size_t n_told = 0;

        for (uint64_t i = 0; i < n; i++)
                if (m->told_nsec[i] > 0) /* it may have been told before the call returned */
                        values[n_told++] = m->told_nsec[i] > from[i] ? m->told_nsec[i] - from[i] : 0;
        sort_u64(values, n_told);
        return n_told;
}

static void add(struct contender *c, const struct measurement *m, uint64_t n) {
        uint64_t *values = calloc((size_t)n + 1, sizeof(*values));
        size_t n_told = 0;

        bench_check_system(values, "calloc");
        for (enum metric k = 0; k < METRICS; k++) {
                n_told = latencies(m, n, metrics[k].has_call, values);
                if (n_told >= metrics[k].n_min)
                        c->values[k][c->n[k]++] = (double)percentile(values, n_told, metrics[k].fraction) / 1e3;
        }
        c->n_missing += n - n_told;
        c->n_operations += n;
        free(values);
}

static bool watch(struct measurement *m, const struct bench *b, enum watcher_kind kind, const char *path) {
        char *last _cleanup_(freep) = NULL;
        uint64_t time;

        bench_check_system(asprintf(&last, "%s/%ld", path, n_directories - 1) >= 0, "asprintf");
        if (!watcher_prepare(&m->watcher, b, kind, WATCHER_CONTENT, false))
                return false;
        if (watcher_attach(&m->watcher, path, last, take, m, &time))
                return true;
        watcher_end(&m->watcher);
        return false;
}

/* False: it is left out from now on. */
static bool measure(const struct bench *b, enum watcher_kind kind, const struct workload *workload,
                    struct contender *c) {
        char *path _cleanup_(freep) = bench_path(b, "work");
        struct measurement m = { .begun_nsec = calloc((size_t)n_operations * 3, sizeof(uint64_t)) };
        pthread_t reader;
        uint64_t n;
        bool ok;

        bench_check_system(m.begun_nsec, "calloc");
        m.done_nsec = m.begun_nsec + n_operations;
        m.told_nsec = m.done_nsec + n_operations;
        bench_check_system(mkdir(path, 0700) == 0 && sem_init(&m.told, 0, 0) == 0, path);
        m.directory_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bench_check_system(m.directory_fd >= 0, path);
        make_files(&m, workload->create);
        ok = watch(&m, b, kind, path);
        if (ok) {
                if (pthread_create(&reader, NULL, read_all, &m) != 0)
                        bench_fail("no thread can be started");
                n = (workload->paced ? run_paced : run_single)(&m, workload->create);
                atomic_store(&m.is_over, true);
                (void)pthread_join(reader, NULL);
                add(c, &m, n);
                watcher_end(&m.watcher);
        }
        (void)sem_destroy(&m.told);
        (void)close(m.directory_fd);
        tree_remove(path);
        free(m.begun_nsec);
        return ok;
}

static void print(const char *name, const struct workload *workload, const struct contender *c,
                  const struct contender *floor) {
        bool is_whole = c->n_missing == 0;

        printf("%-24s %-19s %10" PRIu64, workload->variant, name, c->n_operations);
        for (enum metric k = 0; k < METRICS; k++) {
                struct result result = {
                        .workload = "latency", .program = name, .variant = workload->variant, .metric = metrics[k].name,
                        .unit = "us", .values = c->values[k], .n = (size_t)c->n[k],
                        .floor = c->n[k] == floor->n[k] ? floor->values[k] : NULL,
                        .completeness = is_whole ? COMPLETENESS_WHOLE : COMPLETENESS_MISSING,
                };

                result_write(&result);
                if (c->n[k] > 0)
                        printf(" %12.1f", result_median(c->values[k], (size_t)c->n[k]));
                else
                        printf(" %12s", "-");
        }
        if (!is_whole) {
                double missing = (double)c->n_missing;
                const struct result result = {
                        .workload = "latency", .program = name, .variant = workload->variant, .metric = "missing",
                        .unit = "1", .values = &missing, .n = 1, .completeness = COMPLETENESS_MISSING,
                };

                result_write(&result);
                printf(" wrong: %" PRIu64 " events missing", c->n_missing);
        }
        printf("\n");
        (void)fflush(stdout);
}

/* The ways of fanotify that are slower than another of the same program are for attach alone. fswatch, as it comes,
 * tells some dozens of events a second, and would only fall behind. */
static bool is_wanted(enum watcher_kind kind, const struct workload *workload) {
        if (kind == WATCHER_FSWATCH && workload->paced)
                return false;
        return kind != WATCHER_FSNOTIFYWAIT && kind != WATCHER_FSNOTIFYWAIT_SYSTEM && watcher_is_there(kind);
}

static void run_workload(const struct bench *b, const struct workload *workload) {
        struct contender contenders[WATCHER_KINDS] = { 0 };
        double *values = calloc((size_t)rounds * METRICS * WATCHER_KINDS, sizeof(*values)), *next = values;

        bench_check_system(values, "calloc");
        for (enum watcher_kind kind = 0; kind < WATCHER_KINDS; kind++) {
                contenders[kind].is_out = !is_wanted(kind, workload);
                for (enum metric k = 0; k < METRICS; k++, next += rounds)
                        contenders[kind].values[k] = next;
        }
        for (long i = 0; i < rounds; i++)
                for (enum watcher_kind kind = 0; kind < WATCHER_KINDS; kind++)
                        if (!contenders[kind].is_out)
                                contenders[kind].is_out = !measure(b, kind, workload, &contenders[kind]);
        for (enum watcher_kind kind = 0; kind < WATCHER_KINDS; kind++)
                if (contenders[kind].n_operations > 0)
                        print(watcher_name(kind), workload, &contenders[kind], &contenders[WATCHER_FLOOR]);
        free(values);
}

static void run(struct bench *b) {
        char single_write[64] = "write, one at a time", paced_write[64], single_make[64] = "creat, one at a time",
             paced_make[64];
        const struct workload workloads[] = {
                { single_write, false, false }, { paced_write, false, true },
                { single_make, true, false }, { paced_make, true, true },
        };

        (void)snprintf(paced_write, sizeof(paced_write), "write, %ld a second", rate);
        (void)snprintf(paced_make, sizeof(paced_make), "creat, %ld a second", rate);
        printf("latency: microseconds, medians of %ld rounds; %ld directories\n", rounds, n_directories);
        printf("%-24s %-19s %10s %12s %12s %12s %12s %12s\n", "", "program", "operations", "p50", "p99", "p99.9",
               "call + p50", "call + p99");
        for (size_t i = 0; i < ARRAY_SIZE(workloads); i++)
                if (both || !workloads[i].create)
                        run_workload(b, &workloads[i]);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "latency", "How long it takes until a change to a file is known.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
