/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What an expiry costs the daemon with few and with many other timers set, none of which expires, and how long it
 * takes to set those.
 */

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "bench.h"

enum { WATCHES_A_CALL = 1000, FEW = 10, FAR_SEC = 24 * 3600, PAUSE_MSEC = 1, LEAD_MSEC = 500 };

static long n_many = 100000, n_expiries = 2000;

static const struct bench_option options[] = {
        { "timers", &n_many, FEW, "others that are set" },
        { "expiries", &n_expiries, 1, "while they are" },
};

static int64_t realtime_msec(void) {
        struct timespec t = { 0 };

        (void)clock_gettime(CLOCK_REALTIME, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* One each millisecond from `first_msec` on, the i-th at the place (i * step) % n. */
static void add_timers(struct kev *kev, bool moments, long n, int64_t first_msec, uint64_t step) {
        struct kev_watch *watches[WATCHES_A_CALL];
        size_t n_watches = (size_t)MIN(n, WATCHES_A_CALL);
        int r = 0;

        for (size_t i = 0; i < n_watches; i++)
                if (kev_watch_new(KEV_FILTER_TIMER, &watches[i]) < 0 ||
                    kev_watch_set_notes(watches[i], KEV_NOTE_MSEC | (moments ? KEV_NOTE_ABSTIME : 0)) < 0)
                        bench_fail("no such watch can be");
        for (uint64_t i = 0; i < (uint64_t)n; i += n_watches) {
                size_t m = MIN(n_watches, (uint64_t)n - i);

                for (size_t k = 0; k < m; k++)
                        r |= kev_watch_set_data(watches[k], first_msec + (int64_t)((i + k) * step % (uint64_t)n));
                if (r < 0)
                        bench_fail("no such watch can be");
                if (bench_check(kev_add_many(kev, (const struct kev_watch *const *)watches, m, NULL, NULL, NULL, NULL),
                                kev, "setting timers") > 0)
                        bench_fail("setting timers: %s", kev_error_message(kev));
        }
        for (size_t i = 0; i < n_watches; i++)
                kev_watch_free(watches[i]);
}

/* The daemon's CPU time for one, and for its event. */
static double measure_expiries(struct bench *b, struct kev *kev, bool moments) {
        const struct kev_event *event;
        uint64_t before;

        if (moments)
                add_timers(kev, true, n_expiries, realtime_msec() + LEAD_MSEC, 1);
        else
                add_timers(kev, false, 1, PAUSE_MSEC, 1);
        before = usage_read(b->daemon).cpu_nsec;
        for (long i = 0; i < n_expiries; i++)
                (void)bench_check(kev_wait(kev, -1, &event), kev, "kev_wait");
        return (double)(usage_read(b->daemon).cpu_nsec - before) / (double)n_expiries;
}

static void measure(struct bench *b, bool moments, long n) {
        struct usage before, after;
        uint64_t start, nsec;
        double expiry;
        struct kev *kev;

        daemon_start(b);
        kev = client_open(b);
        before = usage_read(b->daemon);
        start = now_nsec();
        /* In no order: 7919 is a prime. */
        add_timers(kev, moments, n, FAR_SEC * INT64_C(1000) + (moments ? realtime_msec() : 0), 7919);
        nsec = now_nsec() - start;
        after = usage_read(b->daemon);
        expiry = measure_expiries(b, kev, moments);
        printf("%-8s %9ld %9.0f ms %9.2f us %9.0f %12.2f us\n", moments ? "moments" : "periods", n, (double)nsec / 1e6,
               (double)(after.cpu_nsec - before.cpu_nsec) / (double)n / 1e3,
               (double)(after.rss_bytes - before.rss_bytes) / (double)n, expiry / 1e3);
        (void)fflush(stdout);
        kev_close(kev);
        daemon_stop(b);
}

static void run(struct bench *b) {
        printf("timers: %ld expiries, a millisecond apart, while others are set\n", n_expiries);
        printf("%-8s %9s %12s %12s %9s %15s\n", "", "others", "set in", "CPU each", "bytes", "CPU an expiry");
        for (int moments = 0; moments <= 1; moments++) {
                measure(b, moments, FEW);
                measure(b, moments, n_many);
        }
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "timers", "What a timer costs beside many others.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
