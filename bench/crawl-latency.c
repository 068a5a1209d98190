/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How long events of one client take while another subscribes to a large tree.
 *
 * A thread writes one byte at a steady rate, each time to the next of some
 * files, and notes when write(2) returned; a client that watches those files
 * notes when each event arrived. Meanwhile another client, of the same user,
 * watches the large tree and lets go of it, again and again. A write belongs to
 * what was under way at any time between its return and its event's arrival.
 *
 * A further thread watches the same files with an inotify instance of its own:
 * what it waits for, on a machine that is as busy, is not the daemon.
 *
 * Files take turns because inotify merges an event that equals the one before.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>

#include "bench.h"

enum {
        FILES = 256,
        FILES_A_DIRECTORY = 16,
        SAMPLES_MAX = 8 * 1024 * 1024,
        REST_MSEC = 200,
        LAST_EVENT_MSEC = 2000,
};

static long n_directories = 20000, fan_out = 10, rate = 1000, rounds = 20, quiet_sec = 5;

static const struct bench_option options[] = {
        { "directories", &n_directories, 1, "in the large tree" },
        { "fan-out", &fan_out, 1, "of the large tree" },
        { "rate", &rate, 1, "writes a second" },
        { "rounds", &rounds, 1, "subscriptions" },
        { "quiet", &quiet_sec, 1, "seconds with no subscription, to compare with" },
};

/* By which way an event comes. */
enum way { WAY_KEVD, WAY_DIRECT, WAY_COUNT };

/* One write. now_nsec(); arrived 0: never. */
struct sample {
        uint64_t written, arrived[WAY_COUNT];
};

struct span {
        uint64_t start, end;
};

/* The thread that writes, and those that get the events. */
struct stream {
        const struct bench *bench;
        struct sample *samples;
        struct kev *kev;
        int inotify_fd;
        int fds[FILES];
        atomic_ullong n_begun;    /* writes */
        atomic_bool stop;         /* the writer */
        atomic_bool stopped;
        uint64_t next[WAY_COUNT]; /* sample that the next event is of */
        uint64_t n_rescans;
};

/* ---- writing ------------------------------------------------------------------------------ */

static void make_files(struct stream *s) {
        for (unsigned i = 0; i < FILES; i++) {
                char *directory _cleanup_(freep) = bench_path(s->bench, "small/%u", i / FILES_A_DIRECTORY);
                char *path _cleanup_(freep) = bench_path(s->bench, "small/%u/%u", i / FILES_A_DIRECTORY, i);

                if (i % FILES_A_DIRECTORY == 0)
                        bench_check_system(mkdir(directory, 0700) == 0 &&
                                                   inotify_add_watch(s->inotify_fd, directory, IN_MODIFY) >= 0,
                                           directory);
                s->fds[i] = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                bench_check_system(s->fds[i] >= 0, path);
        }
}

/* A moment that has passed is not made up for: no more than one write each period. */
static void wait_until(uint64_t *moment, uint64_t period) {
        struct timespec t;

        *moment = MAX(*moment + period, now_nsec());
        t = (struct timespec){ .tv_sec = (time_t)(*moment / NSEC_PER_SEC), .tv_nsec = (long)(*moment % NSEC_PER_SEC) };
        (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static void *write_steadily(void *argument) {
        struct stream *s = argument;
        uint64_t moment = now_nsec();

        for (uint64_t i = 0; i < SAMPLES_MAX && !atomic_load(&s->stop); i++) {
                wait_until(&moment, NSEC_PER_SEC / (uint64_t)rate);
                atomic_store(&s->n_begun, i + 1);
                bench_check_system(pwrite(s->fds[i % FILES], "x", 1, 0) == 1, "writing");
                s->samples[i].written = now_nsec();
        }
        atomic_store(&s->stopped, true);
        return NULL;
}

/* ---- reading ------------------------------------------------------------------------------ */

/* Events come in the order of the writes; one that is missing shows in the file's number. */
static void note_arrival(struct stream *s, enum way way, const char *file_name) {
        uint64_t now = now_nsec(), n_begun = atomic_load(&s->n_begun), number = strtoull(file_name, NULL, 10);
        uint64_t *next = &s->next[way];

        while (*next < n_begun && *next % FILES != number)
                (*next)++;
        if (*next < n_begun)
                s->samples[(*next)++].arrived[way] = now;
}

/* Events may still come: called again and again, with `end` 0 at first. */
static bool is_over(const struct stream *s, enum way way, uint64_t *end) {
        if (!atomic_load(&s->stopped))
                return false;
        if (*end == 0)
                *end = now_nsec() + LAST_EVENT_MSEC * NSEC_PER_MSEC;
        return s->next[way] == atomic_load(&s->n_begun) || now_nsec() > *end;
}

static void on_event(struct kev *kev _unused_, const struct kev_event *event, void *userdata) {
        struct stream *s = userdata;
        const char *path = kev_event_path(event), *name = path ? strrchr(path, '/') : NULL;

        if (name && !(kev_event_notes(event) & KEV_NOTE_RESCAN))
                note_arrival(s, WAY_KEVD, name + 1);
        else
                s->n_rescans++;
}

static void *read_events(void *argument) {
        struct stream *s = argument;
        uint64_t end = 0;

        while (!is_over(s, WAY_KEVD, &end))
                (void)bench_check(kev_dispatch(s->kev, 100), s->kev, "reading events");
        return NULL;
}

static void *read_directly(void *argument) {
        struct stream *s = argument;
        struct pollfd p = { .fd = s->inotify_fd, .events = POLLIN };
        char buffer[4096] __attribute__((aligned(8)));
        uint64_t end = 0;

        while (!is_over(s, WAY_DIRECT, &end)) {
                ssize_t n = poll(&p, 1, 100) > 0 ? read(s->inotify_fd, buffer, sizeof(buffer)) : 0;

                for (ssize_t i = 0; i < n;) {
                        const struct inotify_event *event = (const void *)(buffer + i);

                        if (event->len > 0)
                                note_arrival(s, WAY_DIRECT, event->name);
                        i += (ssize_t)(sizeof(*event) + event->len);
                }
        }
        return NULL;
}

/* ---- subscribing --------------------------------------------------------------------------- */

struct rounds {
        struct span *watching, *dropping;
        uint64_t quiet_start, quiet_end;
        uint64_t private_before, private_with;
};

static void run_rounds(const struct bench *b, struct rounds *r) {
        struct kev *kev = client_open(b);
        char *path _cleanup_(freep) = bench_path(b, "large");
        uint64_t registrations = daemon_registrations(kev);

        r->private_before = usage_read(b->daemon).private_bytes;
        for (long i = 0; i < rounds; i++) {
                int64_t id;

                r->watching[i].start = now_nsec();
                id = client_watch_tree(kev, path, 0, NULL, NULL);
                r->watching[i].end = now_nsec();
                sleep_msec(REST_MSEC);
                if (i == 0)
                        r->private_with = usage_read(b->daemon).private_bytes;
                r->dropping[i].start = now_nsec();
                (void)bench_check(kev_remove(kev, id), kev, "removing the watch");
                daemon_wait_registrations(kev, registrations);
                r->dropping[i].end = now_nsec();
                sleep_msec(REST_MSEC);
        }
        kev_close(kev);
}

/* ---- figures ------------------------------------------------------------------------------ */

static bool overlaps(const struct sample *sample, enum way way, const struct span *spans, long n) {
        for (long i = 0; i < n; i++)
                if (sample->written <= spans[i].end && sample->arrived[way] >= spans[i].start)
                        return true;
        return false;
}

/* Of the samples within the spans. */
static void print_way(const struct stream *s, enum way way, const char *name, const struct span *spans,
                      long n_spans) {
        uint64_t n_samples = atomic_load(&s->n_begun), *values = calloc(n_samples + 1, sizeof(*values));
        size_t n = 0;

        bench_check_system(values, "calloc");
        for (uint64_t i = 0; i < n_samples; i++) {
                const struct sample *sample = &s->samples[i];
                uint64_t arrived = sample->arrived[way];

                /* The event may be there before write(2) has returned. */
                if (arrived && overlaps(sample, way, spans, n_spans))
                        values[n++] = arrived > sample->written ? arrived - sample->written : 0;
        }
        sort_u64(values, n);
        printf("%-22s %8zu %9.3f %9.3f %9.3f %9.3f\n", name, n, (double)percentile(values, n, 0.5) / 1e6,
               (double)percentile(values, n, 0.99) / 1e6, (double)percentile(values, n, 0.999) / 1e6,
               (double)percentile(values, n, 1) / 1e6);
        free(values);
}

static void print_latencies(const struct stream *s, const char *name, const struct span *spans, long n_spans) {
        print_way(s, WAY_KEVD, name, spans, n_spans);
        print_way(s, WAY_DIRECT, "  without kevd", spans, n_spans);
}

static void print_spans(const char *name, const struct span *spans) {
        uint64_t *values = calloc((size_t)rounds, sizeof(*values));

        bench_check_system(values, "calloc");
        for (long i = 0; i < rounds; i++)
                values[i] = spans[i].end - spans[i].start;
        sort_u64(values, (size_t)rounds);
        printf("%-22s median %.1f ms, least %.1f, most %.1f\n", name,
               (double)percentile(values, (size_t)rounds, 0.5) / 1e6, (double)values[0] / 1e6,
               (double)values[rounds - 1] / 1e6);
        free(values);
}

static void print_all(const struct stream *s, const struct rounds *r) {
        struct span quiet = { r->quiet_start, r->quiet_end };
        uint64_t missing = 0;

        for (uint64_t i = 0; i < atomic_load(&s->n_begun); i++)
                missing += s->samples[i].arrived[WAY_KEVD] == 0;
        printf("crawl-latency: %ld directories, subscribed %ld times; %ld writes a second by another client\n",
               n_directories, rounds, rate);
        printf("%-22s %8s %9s %9s %9s %9s\n", "write to event, ms", "events", "p50", "p99", "p99.9", "max");
        print_latencies(s, "nothing else", &quiet, 1);
        print_latencies(s, "while it subscribes", r->watching, rounds);
        print_latencies(s, "while it lets go", r->dropping, rounds);
        print_spans("to subscribe", r->watching);
        print_spans("to let go", r->dropping);
        printf("%-22s %.0f bytes a directory in the daemon\n", "memory",
               ((double)r->private_with - (double)r->private_before) / (double)n_directories);
        printf("%-22s %" PRIu64 " writes without an event, %" PRIu64 " rescans\n", "lost", missing, s->n_rescans);
}

/* ---- the whole ------------------------------------------------------------------------------ */

static void run(struct bench *b) {
        struct stream s = { .bench = b, .samples = calloc(SAMPLES_MAX, sizeof(struct sample)) };
        struct rounds r = {
                .watching = calloc((size_t)rounds, sizeof(struct span)),
                .dropping = calloc((size_t)rounds, sizeof(struct span)),
        };
        char *small _cleanup_(freep) = bench_path(b, "small"), *large _cleanup_(freep) = bench_path(b, "large");
        pthread_t writer, reader, direct_reader;

        bench_check_system(s.samples && r.watching && r.dropping, "calloc");
        if (inotify_watches_max() < (uint64_t)n_directories + FILES)
                bench_fail("fs.inotify.max_user_watches is too low for %ld directories", n_directories);
        tree_make(large, (unsigned)n_directories, (unsigned)fan_out, 0);
        bench_check_system(mkdir(small, 0700) == 0, small);
        s.inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        bench_check_system(s.inotify_fd >= 0, "inotify_init1");
        make_files(&s);
        daemon_start(b);
        s.kev = client_open(b);
        (void)client_watch_tree(s.kev, small, KEV_NOTE_WRITE, on_event, &s);

        if (pthread_create(&reader, NULL, read_events, &s) != 0 ||
            pthread_create(&direct_reader, NULL, read_directly, &s) != 0 ||
            pthread_create(&writer, NULL, write_steadily, &s) != 0)
                bench_fail("no thread can be started");
        sleep_msec(REST_MSEC);
        r.quiet_start = now_nsec();
        sleep_msec((unsigned)quiet_sec * 1000);
        r.quiet_end = now_nsec();
        run_rounds(b, &r);
        atomic_store(&s.stop, true);
        (void)pthread_join(writer, NULL);
        (void)pthread_join(reader, NULL);
        (void)pthread_join(direct_reader, NULL);
        print_all(&s, &r);

        for (unsigned i = 0; i < FILES; i++)
                (void)close(s.fds[i]);
        (void)close(s.inotify_fd);
        kev_close(s.kev);
        free(s.samples);
        free(r.watching);
        free(r.dropping);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "crawl-latency", "How long events take while another client subscribes to a large tree.",
                options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
