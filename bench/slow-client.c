/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a client that never reads costs the others and the daemon, and what it
 * finds when it reads at last.
 *
 * The writer keeps no more than `window` events ahead of the client that reads,
 * so that the kernel's queue doesn't overflow: then the figures are exact, and
 * what is lost was lost by the daemon. --window=0 lets it run.
 */

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#include "bench.h"

static long n_events = 1000000, n_directories = 100, window = 8192;

static const struct bench_option options[] = {
        { "events", &n_events, STORM_CYCLE, "file events, four for each file" },
        { "directories", &n_directories, 1, "in which they happen" },
        { "window", &window, 0, "events that the writer may be ahead of the reader; 0: any number" },
};

struct client {
        struct kev *kev;
        uint64_t n_events, n_rescans, gaps, last_seq;
        atomic_ullong sum; /* of the counts */
        atomic_bool all_written;
};

static void take(struct kev *kev _unused_, const struct kev_event *event, void *userdata) {
        struct client *c = userdata;

        c->n_events++;
        c->n_rescans += (kev_event_notes(event) & KEV_NOTE_RESCAN) != 0;
        c->gaps += kev_event_seq(event) != c->last_seq + 1;
        c->last_seq = kev_event_seq(event);
        atomic_fetch_add(&c->sum, kev_event_count(event));
}

/* All that the daemon has for it. */
static void take_rest(struct client *c) {
        const struct kev_event *event;

        while (bench_check(kev_wait(c->kev, 0, &event), c->kev, "reading events") > 0)
                take(c->kev, event, c);
}

static void *read_all(void *argument) {
        struct client *c = argument;

        while (!atomic_load(&c->all_written))
                (void)bench_check(kev_dispatch(c->kev, 50), c->kev, "reading events");
        take_rest(c);
        return NULL;
}

static void print_client(const char *name, const struct client *c) {
        printf("  %-20s %10" PRIu64 " %10" PRIu64 " %14llu %10" PRIu64 "\n", name, c->n_events, c->n_rescans,
               (unsigned long long)c->sum, c->gaps);
}

static double mib(uint64_t bytes) {
        return (double)bytes / 1048576;
}

struct figures {
        struct usage start, written, end;
        uint64_t elapsed_nsec, read_nsec, overflows;
};

static void print_all(const struct storm *storm, const struct client *reader, const struct client *slow,
                      const struct figures *f) {
        double made = (double)storm->n_events;

        printf("slow-client: %.0f file events in %ld directories; one client reads, another does not\n", made,
               n_directories);
        printf("%-22s %10s %10s %10s %10s\n", "daemon's memory, MiB", "start", "all made", "peak", "end");
        printf("%-22s %10.1f %10.1f %10.1f %10.1f\n", "", mib(f->start.rss_bytes), mib(f->written.rss_bytes),
               mib(f->end.peak_rss_bytes), mib(f->end.rss_bytes));
        printf("%-22s %10s %10s %14s %10s\n", "delivered", "events", "rescans", "sum of counts", "seq gaps");
        print_client("to the reader", reader);
        print_client("to the slow one", slow);
        printf("%-22s %" PRIu64 "\n", "kernel overflows", f->overflows);
        printf("%-22s %.2f s (%.2f us an event) while they were made, %.3f s for the slow one's reading\n",
               "daemon's CPU", (double)(f->written.cpu_nsec - f->start.cpu_nsec) / 1e9,
               (double)(f->written.cpu_nsec - f->start.cpu_nsec) / 1e3 / made,
               (double)(f->end.cpu_nsec - f->written.cpu_nsec) / 1e9);
        printf("%-22s %.2f s (%.0f events a second); the slow one read for %.3f s\n", "elapsed",
               (double)f->elapsed_nsec / 1e9, made / ((double)f->elapsed_nsec / 1e9), (double)f->read_nsec / 1e9);
}

static void run(struct bench *b) {
        char *path _cleanup_(freep) = bench_path(b, "tree");
        struct client reader = { 0 }, slow = { 0 };
        struct storm storm = {
                .directory = path,
                .n_directories = (unsigned)n_directories,
                .n_events = (uint64_t)n_events / STORM_CYCLE * STORM_CYCLE,
                .seen = window > 0 ? &reader.sum : NULL,
                .window = (uint64_t)window,
        };
        struct figures f;
        pthread_t thread;
        uint64_t start;

        storm_begin(&storm);
        daemon_start(b);
        reader.kev = client_open(b);
        slow.kev = client_open(b);
        (void)client_watch_tree(reader.kev, path, 0, take, &reader);
        (void)client_watch_tree(slow.kev, path, 0, NULL, NULL);
        f.start = usage_read(b->daemon);

        start = now_nsec();
        if (pthread_create(&thread, NULL, read_all, &reader) != 0)
                bench_fail("no thread can be started");
        (void)storm_run(&storm);
        atomic_store(&reader.all_written, true);
        (void)pthread_join(thread, NULL);
        f.elapsed_nsec = now_nsec() - start;
        f.written = usage_read(b->daemon);
        f.overflows = daemon_counter(reader.kev, "kernelOverflows");

        start = now_nsec();
        take_rest(&slow);
        f.read_nsec = now_nsec() - start;
        f.end = usage_read(b->daemon);
        print_all(&storm, &reader, &slow, &f);
        kev_close(reader.kev);
        kev_close(slow.kev);
        storm_end(&storm);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "slow-client", "What a client that never reads costs, and what it finds when it reads at last.",
                options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
