/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * As many file events as two writers can make, and one client that reads:
 * what comes through on its own, what is merged, and what it costs. Nothing
 * slows the writers down, so the kernel's queue may overflow.
 *
 * Once with files that are made and removed, where the file system takes most of
 * the time, and once with writes to open files, where the events come as fast as
 * they can.
 */

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#include "bench.h"

enum { WRITERS_MAX = 64 };

static long n_events = 1000000, n_directories = 100, n_writers = 2;

static const struct bench_option options[] = {
        { "events", &n_events, STORM_CYCLE * WRITERS_MAX, "file events of each kind" },
        { "directories", &n_directories, 2, "in which they happen" },
        { "writers", &n_writers, 1, "that make them, 64 at most" },
};

struct writer {
        struct storm storm;
        pthread_t thread;
        uint64_t end_nsec;
        atomic_uint *n_running;
};

struct client {
        struct kev *kev;
        uint64_t n_events, n_rescans, sum, gaps, last_seq;
};

struct figures {
        struct usage start, end;
        uint64_t made, write_nsec, read_nsec, client_cpu_nsec, merged, overflows;
};

static void take(struct kev *kev _unused_, const struct kev_event *event, void *userdata) {
        struct client *c = userdata;

        c->n_events++;
        c->n_rescans += (kev_event_notes(event) & KEV_NOTE_RESCAN) != 0;
        c->sum += kev_event_count(event);
        c->gaps += kev_event_seq(event) != c->last_seq + 1;
        c->last_seq = kev_event_seq(event);
}

static void *write_all(void *argument) {
        struct writer *writer = argument;

        (void)storm_run(&writer->storm);
        writer->end_nsec = now_nsec();
        (void)atomic_fetch_sub(writer->n_running, 1);
        return NULL;
}

static void print_all(const char *name, const struct client *c, const struct figures *f) {
        double made = (double)f->made, cpu = (double)(f->end.cpu_nsec - f->start.cpu_nsec) / 1e9;

        printf("burst: %" PRIu64 " events by %ld writers in %ld directories: %s\n", f->made, n_writers, n_directories,
               name);
        printf("%-22s %.2f s to make them (%.0f a second), %.2f s until the last was read\n", "elapsed",
               (double)f->write_nsec / 1e9, made / ((double)f->write_nsec / 1e9), (double)f->read_nsec / 1e9);
        printf("%-22s %" PRIu64 " events, of which %" PRIu64 " rescans; sum of counts %" PRIu64 ", seq gaps %" PRIu64
               "\n", "delivered", c->n_events, c->n_rescans, c->sum, c->gaps);
        printf("%-22s %" PRIu64 "\n", "merged", f->merged);
        printf("%-22s %" PRIu64 "\n", "kernel overflows", f->overflows);
        printf("%-22s daemon %.2f s, %.2f a million events made, %.2f a million delivered; client %.2f s\n", "CPU",
               cpu, cpu / made * 1e6, c->n_events > 0 ? cpu / (double)c->n_events * 1e6 : 0,
               (double)f->client_cpu_nsec / 1e9);
        printf("%-22s start %.1f MiB, peak %.1f, end %.1f\n", "daemon's memory", (double)f->start.rss_bytes / 1048576,
               (double)f->end.peak_rss_bytes / 1048576, (double)f->end.rss_bytes / 1048576);
}

/* Reads as long as anybody writes, and then what is left. */
static void read_all(struct client *client, const atomic_uint *n_running) {
        const struct kev_event *event;

        while (atomic_load(n_running) > 0)
                (void)bench_check(kev_dispatch(client->kev, 50), client->kev, "reading events");
        while (bench_check(kev_wait(client->kev, 0, &event), client->kev, "reading events") > 0)
                take(client->kev, event, client);
}

static void measure(struct bench *b, struct writer *writers, struct client *client, struct figures *f) {
        atomic_uint n_running = (unsigned)n_writers;
        uint64_t start, cpu, end = 0;

        f->start = usage_read(b->daemon);
        start = now_nsec();
        cpu = thread_cpu_nsec();
        for (long i = 0; i < n_writers; i++) {
                writers[i].n_running = &n_running;
                if (pthread_create(&writers[i].thread, NULL, write_all, &writers[i]) != 0)
                        bench_fail("no thread can be started");
        }
        read_all(client, &n_running);
        f->read_nsec = now_nsec() - start;
        f->client_cpu_nsec = thread_cpu_nsec() - cpu;
        f->end = usage_read(b->daemon);
        for (long i = 0; i < n_writers; i++) {
                (void)pthread_join(writers[i].thread, NULL);
                f->made += writers[i].storm.n_events;
                end = MAX(end, writers[i].end_nsec);
        }
        f->write_nsec = end - start;
        f->merged = daemon_counter(client->kev, "merged");
        f->overflows = daemon_counter(client->kev, "kernelOverflows");
}

static void burst(struct bench *b, const char *name, bool rewrite) {
        char *path _cleanup_(freep) = bench_path(b, "%s", rewrite ? "open" : "made");
        struct writer writers[WRITERS_MAX] = { 0 };
        struct client client = { 0 };
        struct figures f = { 0 };

        for (long i = 0; i < n_writers; i++) {
                writers[i].storm = (struct storm){
                        .directory = path,
                        .n_directories = (unsigned)n_directories,
                        .rewrite = rewrite,
                        .n_events = (uint64_t)(n_events / n_writers / STORM_CYCLE * STORM_CYCLE),
                        .writer = (unsigned)i,
                };
                storm_begin(&writers[i].storm);
        }
        daemon_start(b);
        client.kev = client_open(b);
        (void)client_watch_tree(client.kev, path, 0, take, &client);
        measure(b, writers, &client, &f);
        print_all(name, &client, &f);
        (void)fflush(stdout);
        kev_close(client.kev);
        daemon_stop(b);
        for (long i = 0; i < n_writers; i++)
                storm_end(&writers[i].storm);
}

static void run(struct bench *b) {
        if (n_writers > WRITERS_MAX)
                bench_fail("writers: %d at most", WRITERS_MAX);
        burst(b, "files made and removed", false);
        burst(b, "writes to open files", true);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "burst", "As many file events as the writers can make, and one client that reads.",
                options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
