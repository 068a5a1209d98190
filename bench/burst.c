/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * As many file events as two writers can make: what comes through on its own,
 * what is merged, what it costs the daemon, and how much it slows the writers
 * down. Nothing else does, so the kernel's queue may overflow. The same writers
 * with nobody who watches (the floor), and with inotifywait, take turns with it.
 *
 * Once with files that are made and removed, where the file system takes most of
 * the time, and once with writes to open files, where the events come as fast as
 * they can. Then with more subscribers of the same tree, and with a mix of globs.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "result.h"
#include "watcher.h"

enum {
        WRITERS_MAX = 64,
        EVENTS_MIN = 1000, /* of all writers; so few are left for very many subscribers */
        OVER_SEC = 60,     /* until the others have told what was made */
};

static long n_events = 1000000, n_directories = 100, n_writers = 2, rounds = 3, largest = 1000, peers = 1;

static const struct bench_option options[] = {
        { "events", &n_events, STORM_CYCLE * WRITERS_MAX, "file events, divided by the number of subscribers" },
        { "directories", &n_directories, 2, "in which they happen" },
        { "writers", &n_writers, 1, "that make them, 64 at most" },
        { "rounds", &rounds, 1, "of which the median is shown" },
        { "largest", &largest, 1, "number of subscribers" },
        { "peers", &peers, 0, "0: kevd and the floor alone" },
};

struct workload {
        const char *variant;
        bool rewrite;
        long n_subscribers;
        bool has_globs;
};

struct writer {
        struct storm storm;
        pthread_t thread;
        uint64_t end_nsec;
        atomic_uint *n_running;
};

/* What the subscribers of a mix ask for, and which events that is: of a file, by its directory, writer and number. */
struct wish {
        const char *include, *exclude;
        bool (*fits)(unsigned directory, unsigned writer, uint64_t number);
};

static bool fits_all(unsigned directory _unused_, unsigned writer _unused_, uint64_t number _unused_) {
        return true;
}

static bool fits_writer(unsigned directory _unused_, unsigned writer, uint64_t number _unused_) {
        return writer == 0;
}

static bool fits_not_writer(unsigned directory _unused_, unsigned writer, uint64_t number _unused_) {
        return writer != 0;
}

static bool fits_directory(unsigned directory, unsigned writer _unused_, uint64_t number _unused_) {
        return directory == 7;
}

static bool fits_number(unsigned directory _unused_, unsigned writer _unused_, uint64_t number) {
        return number % 10 == 5;
}

static bool fits_nothing(unsigned directory _unused_, unsigned writer _unused_, uint64_t number _unused_) {
        return false;
}

static const struct wish wishes[] = {
        { NULL, NULL, fits_all },
        { "*/file-0-*", NULL, fits_writer },
        { NULL, "**/file-0-*", fits_not_writer },
        { "7/**", NULL, fits_directory },
        { "**/*5", NULL, fits_number },
        { "**/*.c", "**/*.o", fits_nothing },
};

struct client {
        struct kev *kev;
        const struct wish *wish;
        uint64_t n_events, sum, gaps, last_seq;
        const char *path;    /* that is watched */
        uint64_t *told_nsec; /* of files that are rewritten: when each was told last, by directory and writer */
};

/* Of one round. */
struct figures {
        uint64_t made, write_nsec, cpu_nsec, delivered, merged, overflows, memory;
        bool is_whole;
};

enum metric { WRITERS, CPU, CPU_DELIVERY, DELIVERED, MERGED, OVERFLOWS, PEAK, METRICS };

static const struct {
        const char *name, *unit;
} metrics[METRICS] = {
        [WRITERS] = { "writers", "ms" },
        [CPU] = { "CPU an event", "us" },
        [CPU_DELIVERY] = { "CPU a delivery", "us" },
        [DELIVERED] = { "delivered", "1" },
        [MERGED] = { "merged", "1" },
        [OVERFLOWS] = { "overflows", "1" },
        [PEAK] = { "peak memory", "bytes" },
};

enum contender_kind { NOBODY, KEVD_INOTIFY, KEVD_FANOTIFY, INOTIFYWAIT, CONTENDERS };

static const enum watcher_kind watchers[CONTENDERS] = {
        [KEVD_INOTIFY] = WATCHER_KEVD_INOTIFY,
        [KEVD_FANOTIFY] = WATCHER_KEVD_FANOTIFY,
        [INOTIFYWAIT] = WATCHER_INOTIFYWAIT,
};

struct contender {
        const char *name;
        bool is_out, is_wrong;
        double *values[METRICS];
        long n;
};

static bool is_kevd(enum contender_kind kind) {
        return kind == KEVD_INOTIFY || kind == KEVD_FANOTIFY;
}

/* ---- writers -------------------------------------------------------------------------------- */

static void *write_all(void *argument) {
        struct writer *writer = argument;

        (void)storm_run(&writer->storm);
        writer->end_nsec = now_nsec();
        (void)atomic_fetch_sub(writer->n_running, 1);
        return NULL;
}

static uint64_t events_of_writer(const struct workload *workload) {
        long n = MAX(n_events / workload->n_subscribers, (long)EVENTS_MIN);

        return (uint64_t)(n / n_writers / STORM_CYCLE * STORM_CYCLE);
}

static void prepare_writers(struct writer *writers, const struct workload *workload, const char *path) {
        for (long i = 0; i < n_writers; i++) {
                writers[i].storm = (struct storm){
                        .directory = path,
                        .n_directories = (unsigned)n_directories,
                        .rewrite = workload->rewrite,
                        .n_events = events_of_writer(workload),
                        .writer = (unsigned)i,
                };
                storm_begin(&writers[i].storm);
        }
}

static uint64_t start_writers(struct writer *writers, atomic_uint *n_running) {
        uint64_t start = now_nsec();

        atomic_store(n_running, (unsigned)n_writers);
        for (long i = 0; i < n_writers; i++) {
                writers[i].n_running = n_running;
                if (pthread_create(&writers[i].thread, NULL, write_all, &writers[i]) != 0)
                        bench_fail("no thread can be started");
        }
        return start;
}

static void join_writers(struct writer *writers, uint64_t start, struct figures *f) {
        uint64_t end = 0;

        for (long i = 0; i < n_writers; i++) {
                (void)pthread_join(writers[i].thread, NULL);
                f->made += writers[i].storm.n_events;
                end = MAX(end, writers[i].end_nsec);
        }
        f->write_nsec = end - start;
}

/* How many events a wish is about. */
static uint64_t count_fitting(const struct wish *wish, const struct workload *workload) {
        uint64_t size = workload->rewrite ? 1 : STORM_CYCLE, n = 0;

        for (unsigned writer = 0; writer < (unsigned)n_writers; writer++)
                for (uint64_t i = 0; i < events_of_writer(workload) / size; i++)
                        n += wish->fits((unsigned)(i % (uint64_t)n_directories), writer, i) ? size : 0;
        return n;
}

/* ---- kevd ----------------------------------------------------------------------------------- */

/* An event of a file, or of a directory that is to be looked at again. */
static void note_told(struct client *c, const char *path) {
        uint64_t now = now_nsec();
        long directory = -1, writer = -1;

        (void)sscanf(path + strlen(c->path), "/%ld/file-%ld", &directory, &writer);
        for (long i = directory < 0 ? 0 : directory; i < (directory < 0 ? n_directories : directory + 1); i++)
                for (long k = writer < 0 ? 0 : writer; k < (writer < 0 ? n_writers : writer + 1); k++)
                        c->told_nsec[i * n_writers + k] = now;
}

/* fanotify(7): the kernel merges events of one file that nobody has read yet. So a write need not be an event of its
 * own, but one has to come later than the last write to each file. */
static bool is_last_told(const struct client *c, const struct writer *writers) {
        for (long i = 0; i < n_directories; i++)
                for (long k = 0; k < n_writers; k++)
                        if (c->told_nsec[i * n_writers + k] < writers[k].storm.last_nsec[i])
                                return false;
        return true;
}

static void take(struct kev *kev _unused_, const struct kev_event *event, void *userdata) {
        struct client *c = userdata;

        c->n_events++;
        c->sum += kev_event_count(event);
        c->gaps += kev_event_seq(event) != c->last_seq + 1;
        c->last_seq = kev_event_seq(event);
        if (c->told_nsec)
                note_told(c, kev_event_path(event));
}

static void subscribe(const struct bench *b, const char *path, struct client *c, int epoll_fd) {
        struct epoll_event ready = { .events = EPOLLIN, .data = { .ptr = c } };
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_TREE, &watch);

        c->kev = client_open(b);
        if (r == 0)
                r = kev_watch_set_path(watch, path);
        if (r == 0 && c->wish->include)
                r = kev_watch_add_include(watch, c->wish->include);
        if (r == 0 && c->wish->exclude)
                r = kev_watch_add_exclude(watch, c->wish->exclude);
        if (r < 0)
                bench_fail("no such watch can be");
        (void)bench_check(kev_add(c->kev, watch, take, c, NULL), c->kev, "watching a tree");
        kev_watch_free(watch);
        bench_check_system(epoll_ctl(epoll_fd, EPOLL_CTL_ADD, kev_get_fd(c->kev), &ready) == 0, "epoll_ctl");
}

/* Reads as long as anybody writes, and then what is left. */
static void read_all(struct client *clients, long n, int epoll_fd, const atomic_uint *n_running) {
        struct epoll_event ready[64];

        while (atomic_load(n_running) > 0) {
                int n_ready = epoll_wait(epoll_fd, ready, ARRAY_SIZE(ready), 20);

                for (int i = 0; i < n_ready; i++) {
                        struct client *c = ready[i].data.ptr;

                        (void)bench_check(kev_dispatch(c->kev, 0), c->kev, "reading events");
                }
        }
        for (long i = 0; i < n; i++) {
                const struct kev_event *event;

                while (bench_check(kev_wait(clients[i].kev, 0, &event), clients[i].kev, "reading events") > 0)
                        take(clients[i].kev, event, &clients[i]);
        }
}

static bool is_whole(const struct client *c, const struct workload *workload, enum watcher_kind kind,
                     const struct writer *writers) {
        if (c->gaps > 0)
                return false;
        if (workload->rewrite && kind == WATCHER_KEVD_FANOTIFY)
                return is_last_told(c, writers);
        return c->sum == count_fitting(c->wish, workload);
}

static void sum_up(const struct client *clients, const struct workload *workload, const struct watcher *w,
                   const struct writer *writers, struct figures *f) {
        f->cpu_nsec = watcher_cpu_nsec(w) - f->cpu_nsec;
        f->memory = usage_read(w->pid).peak_rss_bytes;
        f->merged = daemon_counter(w->kev, "merged");
        f->overflows = daemon_counter(w->kev, "kernelOverflows");
        f->is_whole = f->overflows == 0;
        for (long i = 0; i < workload->n_subscribers; i++) {
                f->delivered += clients[i].n_events;
                if (!is_whole(&clients[i], workload, w->kind, writers))
                        f->is_whole = false;
        }
}

static void measure_kevd(const struct bench *b, enum watcher_kind kind, const struct workload *workload,
                         const char *path, struct writer *writers, struct figures *f) {
        struct client *clients = calloc((size_t)workload->n_subscribers, sizeof(*clients));
        int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        atomic_uint n_running;
        struct watcher w;
        uint64_t start;

        bench_check_system(clients && epoll_fd >= 0, "epoll_create1");
        (void)watcher_prepare(&w, b, kind, WATCHER_CHANGES, false);
        for (long i = 0; i < workload->n_subscribers; i++) {
                clients[i].wish = &wishes[workload->has_globs ? (size_t)i % ARRAY_SIZE(wishes) : 0];
                clients[i].path = path;
                if (workload->rewrite) {
                        clients[i].told_nsec = calloc((size_t)(n_directories * n_writers), sizeof(uint64_t));
                        bench_check_system(clients[i].told_nsec, "calloc");
                }
                subscribe(&w.own, path, &clients[i], epoll_fd);
        }
        f->cpu_nsec = watcher_cpu_nsec(&w);
        start = start_writers(writers, &n_running);
        read_all(clients, workload->n_subscribers, epoll_fd, &n_running);
        join_writers(writers, start, f);
        sum_up(clients, workload, &w, writers, f);
        for (long i = 0; i < workload->n_subscribers; i++) {
                kev_close(clients[i].kev);
                free(clients[i].told_nsec);
        }
        watcher_end(&w);
        (void)close(epoll_fd);
        free(clients);
}

/* ---- the others ----------------------------------------------------------------------------- */

static void told(uint64_t number _unused_, void *userdata) {
        *(bool *)userdata = true;
}

/* Files of another name, until one is told: all that happened before was told, too, or never will be. */
static void read_until_told(struct watcher *w, const char *path, const bool *is_told) {
        uint64_t deadline = now_nsec() + OVER_SEC * NSEC_PER_SEC;

        for (uint64_t i = 0; !*is_told && w->fd >= 0 && now_nsec() < deadline; i++) {
                char name[WATCHER_NAME_SIZE], *file _cleanup_(freep) = NULL;
                uint64_t next = now_nsec() + 100 * NSEC_PER_MSEC;
                int fd;

                watcher_file_name(name, i);
                bench_check_system(asprintf(&file, "%s/%s", path, name) >= 0, "asprintf");
                fd = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                bench_check_system(fd >= 0, file);
                (void)close(fd);
                while (!*is_told && w->fd >= 0 && now_nsec() < next)
                        (void)watcher_read(w, 20);
        }
}

static bool measure_peer(const struct bench *b, enum watcher_kind kind, const char *path, struct writer *writers,
                         struct figures *f) {
        uint64_t start, time;
        bool is_told = false;
        atomic_uint n_running;
        struct watcher w;

        if (!watcher_prepare(&w, b, kind, WATCHER_CHANGES, false))
                return false;
        if (!watcher_attach(&w, path, path, told, &is_told, &time)) {
                watcher_end(&w);
                return false;
        }
        f->cpu_nsec = watcher_cpu_nsec(&w);
        start = start_writers(writers, &n_running);
        while (atomic_load(&n_running) > 0)
                (void)watcher_read(&w, 20);
        join_writers(writers, start, f);
        read_until_told(&w, path, &is_told);
        f->cpu_nsec = watcher_cpu_nsec(&w) - f->cpu_nsec;
        f->memory = usage_read(w.pid).peak_rss_bytes;
        f->delivered = w.n_events - w.n_read; /* without the files of another name */
        f->is_whole = f->delivered == f->made;
        watcher_end(&w);
        return true;
}

static void measure_nobody(struct writer *writers, struct figures *f) {
        atomic_uint n_running;
        uint64_t start = start_writers(writers, &n_running);

        join_writers(writers, start, f);
        f->is_whole = true;
}

/* ---- all ------------------------------------------------------------------------------------ */

static void add(struct contender *c, const struct figures *f) {
        const double values[METRICS] = {
                [WRITERS] = (double)f->write_nsec / 1e6,
                [CPU] = (double)f->cpu_nsec / 1e3 / (double)f->made,
                [CPU_DELIVERY] = f->delivered > 0 ? (double)f->cpu_nsec / 1e3 / (double)f->delivered : 0,
                [DELIVERED] = (double)f->delivered,
                [MERGED] = (double)f->merged,
                [OVERFLOWS] = (double)f->overflows,
                [PEAK] = (double)f->memory,
        };

        for (enum metric m = 0; m < METRICS; m++)
                c->values[m][c->n] = values[m];
        c->n++;
        c->is_wrong = c->is_wrong || !f->is_whole;
}

/* The files are new for each. False: it is left out from now on. */
static bool measure(const struct bench *b, enum contender_kind kind, const struct workload *workload,
                    struct contender *c) {
        char *path _cleanup_(freep) = bench_path(b, "work");
        struct writer writers[WRITERS_MAX] = { 0 };
        struct figures f = { 0 };
        bool ok = true;

        prepare_writers(writers, workload, path);
        if (is_kevd(kind))
                measure_kevd(b, watchers[kind], workload, path, writers, &f);
        else if (kind == NOBODY)
                measure_nobody(writers, &f);
        else
                ok = measure_peer(b, watchers[kind], path, writers, &f);
        for (long i = 0; i < n_writers; i++)
                storm_end(&writers[i].storm);
        tree_remove(path);
        if (ok)
                add(c, &f);
        return ok;
}

static void print(const struct workload *workload, const struct contender *c, const struct contender *floor) {
        printf("%-24s %5ld %-15s", workload->variant, workload->n_subscribers, c->name);
        for (enum metric m = 0; m < METRICS; m++) {
                struct result result = {
                        .workload = "burst", .program = c->name, .variant = workload->variant,
                        .metric = metrics[m].name, .unit = metrics[m].unit, .x = (double)workload->n_subscribers,
                        .values = c->values[m], .n = (size_t)c->n,
                        .floor = m == WRITERS ? floor->values[m] : NULL,
                };

                printf(m <= CPU_DELIVERY ? " %10.2f" : " %10.0f",
                       result_median(c->values[m], (size_t)c->n) / (m == PEAK ? 1048576 : 1));
                if (c == floor && m != WRITERS)
                        continue;
                if (c != floor)
                        result.completeness = c->is_wrong ? COMPLETENESS_MISSING : COMPLETENESS_WHOLE;
                result_write(&result);
        }
        printf("%s\n", c->is_wrong ? " wrong: events missing" : "");
        (void)fflush(stdout);
}

static void run_workload(const struct bench *b, const struct workload *workload) {
        struct contender contenders[CONTENDERS] = { 0 };
        double *values = calloc((size_t)rounds * METRICS * CONTENDERS, sizeof(*values)), *next = values;

        bench_check_system(values, "calloc");
        for (int kind = 0; kind < CONTENDERS; kind++) {
                struct contender *c = &contenders[kind];

                c->name = kind == NOBODY ? "floor" : watcher_name(watchers[kind]);
                c->is_out = kind != NOBODY && !watcher_is_there(watchers[kind]);
                if (kind == INOTIFYWAIT && (!peers || workload->n_subscribers > 1 || workload->has_globs))
                        c->is_out = true;
                for (enum metric m = 0; m < METRICS; m++, next += rounds)
                        c->values[m] = next;
        }
        for (long i = 0; i < rounds; i++)
                for (int kind = 0; kind < CONTENDERS; kind++)
                        if (!contenders[kind].is_out)
                                contenders[kind].is_out =
                                        !measure(b, (enum contender_kind)kind, workload, &contenders[kind]);
        for (int kind = 0; kind < CONTENDERS; kind++)
                if (contenders[kind].n > 0)
                        print(workload, &contenders[kind], &contenders[NOBODY]);
        free(values);
}

/* Each subscriber is a descriptor here, and one of the daemon, which inherits the limit. */
static void raise_descriptor_limit(void) {
        struct rlimit limit;

        bench_check_system(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static void run(struct bench *b) {
        static const char made[] = "files made and removed";
        const struct workload workloads[] = {
                { made, false, 1, false },
                { "writes to open files", true, 1, false },
                { made, false, 10, false },
                { made, false, 100, false },
                { made, false, 1000, false },
                { "a mix of globs", false, ARRAY_SIZE(wishes), true },
        };

        if (n_writers > WRITERS_MAX)
                bench_fail("writers: %d at most", WRITERS_MAX);
        raise_descriptor_limit();
        printf("burst: %ld events, divided by the number of subscribers, by %ld writers in %ld directories; medians of "
               "%ld rounds\n", n_events, n_writers, n_directories, rounds);
        printf("%-24s %5s %-15s %10s %10s %10s %10s %10s %10s %10s\n", "", "subs", "program", "writers ms", "CPU us",
               "us a deliv", "delivered", "merged", "overflows", "peak MiB");
        for (size_t i = 0; i < ARRAY_SIZE(workloads); i++)
                if (workloads[i].n_subscribers <= largest || workloads[i].has_globs)
                        run_workload(b, &workloads[i]);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "burst", "As many file events as the writers can make, and what becomes of them.",
                options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
