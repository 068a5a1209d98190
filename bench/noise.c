/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the daemon pays for events of a file system that happen outside of all that
 * is watched there: a mark on the file system brings them too.
 */

#include <inttypes.h>
#include <stdio.h>

#include "bench.h"

static long n_events = 2000000, n_directories = 1000;

static const struct bench_option options[] = {
        { "events", &n_events, STORM_CYCLE, "that happen elsewhere on the file system" },
        { "directories", &n_directories, 1, "in which they happen, in turn" },
};

static void run(struct bench *b) {
        char *watched = bench_path(b, "watched"), *noisy = bench_path(b, "noisy");
        struct storm storm = {
                .directory = noisy,
                .n_directories = (unsigned)n_directories,
                .n_events = (uint64_t)(n_events - n_events % STORM_CYCLE),
        };
        struct usage before, after;
        uint64_t start, told, time;
        struct kev *kev;

        tree_make(watched, 100, 10, 1);
        tree_make(noisy, 1, 1, 0);
        storm_begin(&storm);
        daemon_start(b);
        kev = client_open(b);
        (void)client_watch_tree(kev, watched, 0, NULL, NULL);
        before = usage_read(b->daemon);
        start = now_nsec();
        (void)storm_run(&storm);
        time = now_nsec() - start;
        told = daemon_counter(kev, "eventsIn"); /* a call that is answered behind what was queued before it */
        for (struct usage last = usage_read(b->daemon);; last = after) { /* until it has read all */
                sleep_msec(200);
                after = usage_read(b->daemon);
                if (after.cpu_nsec - last.cpu_nsec < 2000000)
                        break;
        }
        printf("noise: %" PRIu64 " events in %ld directories outside of what is watched, made in %.2f s\n",
               storm.n_events, n_directories, (double)time / 1e9);
        printf("%-34s %.0f ns\n", "the daemon's CPU time, an event",
               (double)(after.cpu_nsec - before.cpu_nsec) / (double)storm.n_events);
        printf("%-34s %.1f, %.1f, %.1f MiB\n", "memory before, behind, at most", (double)before.rss_bytes / 1048576,
               (double)after.rss_bytes / 1048576, (double)after.peak_rss_bytes / 1048576);
        printf("%-34s %" PRIu64 "\n", "events told", told);
        storm_end(&storm);
        kev_close(kev);
        daemon_stop(b);
        free(watched);
        free(noisy);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "noise", "What events outside of all that is watched cost.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
