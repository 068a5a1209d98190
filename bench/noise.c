/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the daemon pays for events of a file system that happen outside of all that
 * is watched there: a mark on the file system brings them too.
 */

#include <inttypes.h>
#include <stdio.h>

#include "bench.h"
#include "result.h"

static long n_events = 2000000, n_directories = 1000, rounds = 1;

static const struct bench_option options[] = {
        { "events", &n_events, STORM_CYCLE, "that happen elsewhere on the file system" },
        { "directories", &n_directories, 1, "in which they happen, in turn" },
        { "rounds", &rounds, 1, "with a new daemon each" },
};

enum { READ_TURNS_MAX = 100 };

enum metric { CPU, MEMORY, PEAK, TOLD, METRICS };

static const struct {
        const char *name, *unit;
} metrics[METRICS] = {
        [CPU] = { "CPU an event", "us" },
        [MEMORY] = { "memory", "bytes" },
        [PEAK] = { "peak memory", "bytes" },
        [TOLD] = { "told", "1" },
};

/* Until the daemon has read all: nothing else says so. Others may write to the file system all the time. */
static struct usage wait_until_read(pid_t daemon) {
        struct usage last = usage_read(daemon), now = last;

        for (int i = 0; i < READ_TURNS_MAX; i++, last = now) {
                sleep_msec(200);
                now = usage_read(daemon);
                if (now.cpu_nsec - last.cpu_nsec < 2000000)
                        break;
        }
        return now;
}

static void print(const struct storm *storm, uint64_t time, const struct usage *before, const struct usage *after,
                  const double *values) {
        printf("noise: %" PRIu64 " events in %ld directories outside of what is watched, made in %.2f s\n",
               storm->n_events, n_directories, (double)time / 1e9);
        printf("%-34s %.0f ns\n", "the daemon's CPU time, an event", values[CPU] * 1e3);
        printf("%-34s %.1f, %.1f, %.1f MiB\n", "memory before, behind, at most", (double)before->rss_bytes / 1048576,
               (double)after->rss_bytes / 1048576, (double)after->peak_rss_bytes / 1048576);
        printf("%-34s %.0f\n", "events told", values[TOLD]);
        (void)fflush(stdout);
}

static void measure(struct bench *b, const struct storm *storm, const char *watched, double *values) {
        struct usage before, after;
        uint64_t start, time;
        struct kev *kev;

        daemon_start(b);
        kev = client_open(b);
        (void)client_watch_tree(kev, watched, 0, NULL, NULL);
        before = usage_read(b->daemon);
        start = now_nsec();
        (void)storm_run((void *)(uintptr_t)storm);
        time = now_nsec() - start;
        (void)daemon_counter(kev, "eventsIn"); /* a call that is answered behind what was queued before it */
        after = wait_until_read(b->daemon);
        values[CPU] = (double)(after.cpu_nsec - before.cpu_nsec) / 1e3 / (double)storm->n_events;
        values[MEMORY] = (double)after.rss_bytes;
        values[PEAK] = (double)after.peak_rss_bytes;
        values[TOLD] = (double)daemon_counter(kev, "eventsIn");
        print(storm, time, &before, &after, values);
        kev_close(kev);
        daemon_stop(b);
}

static void write_results(const double *values) {
        double *of_rounds = calloc((size_t)rounds, sizeof(*of_rounds));

        bench_check_system(of_rounds, "calloc");
        for (enum metric m = 0; m < METRICS; m++) {
                struct result result = {
                        .workload = "noise", .program = bench_is_on_fanotify() ? "kevd, fanotify" : "kevd, inotify",
                        .variant = "outside of all that is watched", .metric = metrics[m].name,
                        .unit = metrics[m].unit, .values = of_rounds, .n = (size_t)rounds,
                };

                for (long i = 0; i < rounds; i++)
                        of_rounds[i] = values[i * METRICS + m];
                result_write(&result);
        }
        free(of_rounds);
}

static void run(struct bench *b) {
        char *watched _cleanup_(freep) = bench_path(b, "watched"), *noisy _cleanup_(freep) = bench_path(b, "noisy");
        double *values _cleanup_(freep) = calloc((size_t)rounds * METRICS, sizeof(*values));
        struct storm storm = {
                .directory = noisy,
                .n_directories = (unsigned)n_directories,
                .n_events = (uint64_t)(n_events - n_events % STORM_CYCLE),
        };

        bench_check_system(values, "calloc");
        tree_make(watched, 100, 10, 1);
        tree_make(noisy, 1, 1, 0);
        storm_begin(&storm);
        for (long i = 0; i < rounds; i++)
                measure(b, &storm, watched, values + i * METRICS);
        storm_end(&storm);
        write_results(values);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "noise", "What events outside of all that is watched cost.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
