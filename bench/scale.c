/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Whether the daemon minds how much it holds: what an event costs, and what a watch takes up, with 1 to 1,000,000
 * watches of a kind; the same with 1 to 10,000 connections; and how fast watches come and go.
 *
 * Of all that there is one watch is concerned by an event, and others by the next. Each event waits for the one before.
 * What grows is compared with the smallest number in the same round. Clients are bare sockets: the library remembers
 * each watch, which would be more than what is measured.
 */

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "result.h"
#include "wire.h"

enum {
        CALL_BYTES = 60 * 1024, /* a message may have 64 KiB */
        WATCH_BYTES = 512,      /* of one in a call, at most */
        A_DIRECTORY = 1000,     /* files or directories in each */
        EVENT_MSEC = 10000,     /* later it is missing */
        FAR_MSEC = 24 * 3600 * 1000,
        BYTES_MIN = 1000,       /* of fewer no bytes are told: what comes with the first ones would be in it */
        SPARE_DESCRIPTORS = 200,
        CHANGES = 2000,
};

static long max_watches = 1000000, max_connections = 10000, n_events = 2000, rounds = 3, only = 0;

static const struct bench_option options[] = {
        { "watches", &max_watches, 1, "at most" },
        { "connections", &max_connections, 1, "at most" },
        { "events", &n_events, 1, "with each number of them" },
        { "rounds", &rounds, 1, "of all" },
        { "only", &only, 0, "the kind of that number alone, the last: connections; 0: all" },
};

/* ---- figures ---------------------------------------------------------------------------------- */

enum metric { METRIC_CPU, METRIC_P50, METRIC_P99, METRIC_BYTES, METRIC_ADD, METRIC_REMOVE, METRIC_CHANGES, METRICS };

static const struct {
        const char *name, *unit;
} metrics[METRICS] = {
        [METRIC_CPU] = { "CPU an event", "us" },
        [METRIC_P50] = { "p50", "us" },
        [METRIC_P99] = { "p99", "us" },
        [METRIC_BYTES] = { "bytes each", "bytes" },
        [METRIC_ADD] = { "all added in", "ms" },
        [METRIC_REMOVE] = { "all removed in", "ms" },
        [METRIC_CHANGES] = { "added or removed, one a call", "1/s" },
};

enum { SIZES_MAX = 5 };

/* What was measured with one number of watches or connections. */
struct cell {
        long n;
        double *values[METRICS]; /* of the rounds; less than 0: not measured */
        bool missing;
};

static void cell_begin(struct cell *cell, long n) {
        cell->n = n;
        for (size_t m = 0; m < METRICS; m++) {
                cell->values[m] = calloc((size_t)rounds, sizeof(double));
                bench_check_system(cell->values[m], "calloc");
                for (long i = 0; i < rounds; i++)
                        cell->values[m][i] = -1;
        }
}

static void cell_end(struct cell *cell) {
        for (size_t m = 0; m < METRICS; m++)
                free(cell->values[m]);
}

/* `first`: with the smallest number. */
static void cell_tell(const struct cell *cell, const struct cell *first, const char *variant) {
        printf("%-20s %9ld", variant, cell->n);
        for (size_t m = 0; m < METRICS; m++) {
                const double *values = cell->values[m];
                struct result result = {
                        .workload = "scale", .program = "kevd", .variant = variant, .metric = metrics[m].name,
                        .unit = metrics[m].unit, .x = (double)cell->n, .values = values, .n = (size_t)rounds,
                        .floor = m <= METRIC_P99 ? first->values[m] : NULL,
                        .completeness = cell->missing ? COMPLETENESS_MISSING : COMPLETENESS_WHOLE,
                };

                if (values[0] < 0) {
                        printf(" %10s", "-");
                        continue;
                }
                printf(m <= METRIC_P99 ? " %10.2f" : " %10.0f", result_median(values, (size_t)rounds));
                result_write(&result);
        }
        printf("%s\n", cell->missing ? "  WRONG: events are missing" : "");
        (void)fflush(stdout);
}

static void print_head(const char *what) {
        printf("%-20s %9s %10s %10s %10s %10s %10s %10s %10s\n", "", what, "CPU us", "p50 us", "p99 us", "bytes",
               "add ms", "remove ms", "changes/s");
}

/* ---- calls ------------------------------------------------------------------------------------ */

/* A Change with as many members as one message holds. */
struct change {
        struct wire *wire;
        const char *list; /* "add" or "remove" */
        char text[CALL_BYTES + 2 * WATCH_BYTES];
        size_t size;
};

static void change_begin(struct change *c, struct wire *wire, const char *list) {
        c->wire = wire;
        c->list = list;
        c->size = 0;
}

static void change_send(struct change *c) {
        if (c->size == 0)
                return;
        c->size += (size_t)snprintf(c->text + c->size, WATCH_BYTES, "]}}");
        (void)wire_call(c->wire, c->text, c->size);
        c->size = 0;
}

static void change_put(struct change *c, const char *member) {
        if (c->size > CALL_BYTES - WATCH_BYTES)
                change_send(c);
        if (c->size == 0)
                c->size = (size_t)snprintf(c->text, WATCH_BYTES,
                                           "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"%s\":[%s", c->list,
                                           member);
        else
                c->size += (size_t)snprintf(c->text + c->size, WATCH_BYTES, ",%s", member);
}

/* A call that does nothing. */
static void send_nothing(struct wire *wire) {
        static const char text[] = "{\"method\":\"org.kevd.events.Change\"}";

        wire_send(wire, text, strlen(text));
}

static void send_stream(struct wire *wire) {
        static const char text[] = "{\"method\":\"org.kevd.events.Wait\",\"more\":true}";

        wire_send(wire, text, strlen(text));
}

/* ---- kinds of watches ------------------------------------------------------------------------- */

/* Where the n-th watch of all has its file or directory. */
struct place {
        char directory[300];
        long n_places; /* so many there are */
        long n_made;
};

struct kind {
        const char *name;
        /* The `i`-th as JSON, without what is around it. */
        void (*put)(char *text, size_t size, const struct place *place, long i);
        bool uses_kernel; /* a watch of the kernel for each place */
        bool shares;      /* more watches than places are possible */
        void (*make)(const struct place *place, long i);
        /* Sets off the event of the i-th. NULL: a timer that fires. */
        void (*set_off)(struct wire *other, const struct place *place, long i);
};

static void put_path(char *path, size_t size, const struct place *place, long i) {
        (void)snprintf(path, size, "%s/%ld/%ld", place->directory, i % place->n_places / A_DIRECTORY,
                       i % place->n_places % A_DIRECTORY);
}

static void put_user(char *text, size_t size, const struct place *place _unused_, long i) {
        (void)snprintf(text, size, "\"filter\":\"user\",\"name\":\"name-%ld\"", i);
}

static void set_off_user(struct wire *other, const struct place *place _unused_, long i) {
        char text[128];
        int size = snprintf(text, sizeof(text),
                            "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"name-%ld\"}}", i);

        wire_send(other, text, (size_t)size);
}

/* In no order: 7919 is a prime. */
static void put_timer(char *text, size_t size, const struct place *place _unused_, long i) {
        (void)snprintf(text, size, "\"filter\":\"timer\",\"data\":%ld", FAR_MSEC + i * 7919 % 1000000);
}

static void put_vnode(char *text, size_t size, const struct place *place, long i) {
        char path[400];

        put_path(path, sizeof(path), place, i);
        (void)snprintf(text, size, "\"filter\":\"vnode\",\"notes\":[\"closewrite\"],\"path\":\"%s\"", path);
}

static void open_and_close(const char *path, int flags) {
        int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0600);

        bench_check_system(fd >= 0, path);
        (void)close(fd);
}

static void make_file(const struct place *place, long i) {
        char path[400];

        put_path(path, sizeof(path), place, i);
        open_and_close(path, O_CREAT);
}

static void set_off_vnode(struct wire *other _unused_, const struct place *place, long i) {
        char path[400];

        put_path(path, sizeof(path), place, i);
        open_and_close(path, 0);
}

/* Those that share a directory have different globs. */
static void put_tree(char *text, size_t size, const struct place *place, long i) {
        char path[400];

        put_path(path, sizeof(path), place, i);
        (void)snprintf(text, size,
                       "\"filter\":\"tree\",\"notes\":[\"closewrite\"],\"path\":\"%s\","
                       "\"tree\":{\"include\":[\"%ld-*.c\"]}", path, i / place->n_places);
}

static void make_directory(const struct place *place, long i) {
        char path[400];

        put_path(path, sizeof(path), place, i);
        bench_check_system(mkdir(path, 0700) == 0 || errno == EEXIST, path);
}

static void set_off_tree(struct wire *other _unused_, const struct place *place, long i) {
        char path[400], file[500];

        put_path(path, sizeof(path), place, i);
        (void)snprintf(file, sizeof(file), "%s/%ld-x.c", path, i / place->n_places);
        open_and_close(file, O_CREAT);
}

static const struct kind kinds[] = {
        { .name = "user", .put = put_user, .set_off = set_off_user },
        { .name = "timer", .put = put_timer },
        { .name = "vnode", .put = put_vnode, .uses_kernel = true, .make = make_file, .set_off = set_off_vnode },
        { .name = "tree with a glob", .put = put_tree, .uses_kernel = true, .shares = true, .make = make_directory,
          .set_off = set_off_tree },
};

/* As many files or directories as `n` watches take, `places_max` at most. */
static void make_places(struct place *place, const struct kind *kind, long n, long places_max) {
        char path[400];

        place->n_places = MIN(n, places_max);
        bench_check_system(mkdir(place->directory, 0700) == 0 || errno == EEXIST, place->directory);
        for (long i = place->n_made; kind->make && i < place->n_places; i++) {
                if (i % A_DIRECTORY == 0) {
                        (void)snprintf(path, sizeof(path), "%s/%ld", place->directory, i / A_DIRECTORY);
                        bench_check_system(mkdir(path, 0700) == 0 || errno == EEXIST, path);
                }
                kind->make(place, i);
        }
        place->n_made = MAX(place->n_made, place->n_places);
}

/* ---- events ----------------------------------------------------------------------------------- */

static void keep_latencies(struct cell *cell, long round, uint64_t *latencies, size_t n, uint64_t cpu_nsec) {
        sort_u64(latencies, n);
        cell->values[METRIC_CPU][round] = (double)cpu_nsec / (double)n_events / 1e3;
        if (n == 0)
                return;
        cell->values[METRIC_P50][round] = (double)percentile(latencies, n, 0.5) / 1e3;
        cell->values[METRIC_P99][round] = (double)percentile(latencies, n, 0.99) / 1e3;
}

/* `wire` has the watches, and streams. One after the other; of n watches each n/n_events-th. */
static void measure_events(const struct bench *b, struct wire *wire, struct wire *other, const struct kind *kind,
                           const struct place *place, long n, struct cell *cell, long round) {
        uint64_t *latencies = calloc((size_t)n_events, sizeof(*latencies)), cpu;
        long step = n / n_events * 7919 + 1;

        bench_check_system(latencies, "calloc");
        cpu = usage_read(b->daemon).cpu_nsec;
        for (long i = 0; i < n_events; i++) {
                long which = i * step % n;
                const char *message;
                uint64_t start;

                start = now_nsec();
                kind->set_off(other, place, which);
                if (kind->uses_kernel)
                        start = now_nsec();
                message = wire_receive(wire, EVENT_MSEC);
                latencies[i] = now_nsec() - start;
                if (kind->set_off == set_off_user && !wire_receive(other, EVENT_MSEC))
                        cell->missing = true;
                if (!message || wire_count_events(message) != 1 || wire_number(message, "id") != which) {
                        cell->missing = true;
                        break;
                }
        }
        keep_latencies(cell, round, latencies, cell->missing ? 0 : (size_t)n_events,
                       usage_read(b->daemon).cpu_nsec - cpu);
        free(latencies);
}

/* One more, of a millisecond; expiries that come together are one event. */
static void measure_expiries(const struct bench *b, struct wire *other, struct cell *cell, long round) {
        static const char add[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":["
                                  "{\"id\":1,\"filter\":\"timer\",\"data\":1}]}}";
        uint64_t cpu = usage_read(b->daemon).cpu_nsec;
        size_t n = 0;

        (void)wire_call(other, add, strlen(add));
        send_stream(other);
        while (n < (size_t)n_events) {
                const char *message = wire_receive(other, EVENT_MSEC);

                if (!message) {
                        cell->missing = true;
                        return;
                }
                n += wire_count_events(message);
        }
        cell->values[METRIC_CPU][round] = (double)(usage_read(b->daemon).cpu_nsec - cpu) / (double)n / 1e3;
}

/* ---- coming and going ------------------------------------------------------------------------- */

static double add_all(struct change *change, struct wire *wire, const struct kind *kind, const struct place *place,
                      long n) {
        char watch[WATCH_BYTES], subject[WATCH_BYTES - 32];
        uint64_t start = now_nsec();

        change_begin(change, wire, "add");
        for (long i = 0; i < n; i++) {
                kind->put(subject, sizeof(subject), place, i);
                (void)snprintf(watch, sizeof(watch), "{\"id\":%ld,%s}", i, subject);
                change_put(change, watch);
        }
        change_send(change);
        return (double)(now_nsec() - start) / 1e6;
}

static double remove_all(struct change *change, struct wire *wire, long n) {
        char id[32];
        uint64_t start = now_nsec();

        change_begin(change, wire, "remove");
        for (long i = 0; i < n; i++) {
                (void)snprintf(id, sizeof(id), "%ld", i);
                change_put(change, id);
        }
        change_send(change);
        return (double)(now_nsec() - start) / 1e6;
}

/* Beside all others, one of the last that were made, again and again. */
static double change_often(struct change *change, struct wire *wire, const struct kind *kind, const struct place *place,
                           long n) {
        char watch[WATCH_BYTES], subject[WATCH_BYTES - 32], id[32];
        uint64_t start = now_nsec();

        for (long i = 0; i < CHANGES / 2; i++) {
                long which = n - 1 - i % MIN(n, 100);

                (void)snprintf(id, sizeof(id), "%ld", which);
                change_begin(change, wire, "remove");
                change_put(change, id);
                change_send(change);
                kind->put(subject, sizeof(subject), place, which);
                (void)snprintf(watch, sizeof(watch), "{\"id\":%ld,%s}", which, subject);
                change_begin(change, wire, "add");
                change_put(change, watch);
                change_send(change);
        }
        return CHANGES / ((double)(now_nsec() - start) / 1e9);
}

static void measure_watches(struct bench *b, const struct kind *kind, struct place *place, struct cell *cell,
                            long round) {
        struct change *change = malloc(sizeof(*change));
        struct wire wire, other;
        uint64_t before;

        bench_check_system(change, "malloc");
        daemon_start(b);
        wire_open(&wire, wire_path(b));
        wire_open(&other, wire_path(b));
        /* Both have been heard: what that takes is not a watch's. */
        send_nothing(&wire);
        send_nothing(&other);
        if (!wire_receive(&wire, EVENT_MSEC) || !wire_receive(&other, EVENT_MSEC))
                bench_fail("the daemon doesn't answer");
        before = usage_read(b->daemon).private_bytes;
        cell->values[METRIC_ADD][round] = add_all(change, &wire, kind, place, cell->n);
        if (cell->n >= BYTES_MIN)
                cell->values[METRIC_BYTES][round] =
                        (double)(usage_read(b->daemon).private_bytes - before) / (double)cell->n;
        cell->values[METRIC_CHANGES][round] = change_often(change, &wire, kind, place, cell->n);
        if (!kind->set_off)
                measure_expiries(b, &other, cell, round);
        else {
                send_stream(&wire);
                measure_events(b, &wire, &other, kind, place, cell->n, cell, round);
                /* Ends the stream, by a last reply. */
                send_nothing(&wire);
                (void)wire_receive(&wire, EVENT_MSEC);
                (void)wire_receive(&wire, EVENT_MSEC);
        }
        cell->values[METRIC_REMOVE][round] = remove_all(change, &wire, cell->n);
        wire_close(&wire);
        wire_close(&other);
        daemon_stop(b);
        free(change);
}

static void measure_kind(struct bench *b, const struct kind *kind) {
        static const long sizes[] = { 1, 1000, 100000, 1000000 };
        struct cell cells[SIZES_MAX] = { 0 };
        struct place place = { 0 };
        /* A half of what the user may have: others watch, too. */
        long places_max = kind->uses_kernel ? MIN((long)(inotify_watches_max() / 2), 100000) : max_watches;
        size_t n = 0;

        (void)snprintf(place.directory, sizeof(place.directory), "%s/%.5s", b->directory, kind->name);
        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                long size = MIN(sizes[i], max_watches);

                if (kind->uses_kernel && !kind->shares)
                        size = MIN(size, places_max);

                if (n == 0 || size > cells[n - 1].n)
                        cell_begin(&cells[n++], size);
        }
        for (long round = 0; round < rounds; round++)
                for (size_t i = 0; i < n; i++) {
                        make_places(&place, kind, cells[i].n, places_max);
                        measure_watches(b, kind, &place, &cells[i], round);
                }
        for (size_t i = 0; i < n; i++)
                cell_tell(&cells[i], &cells[0], kind->name);
        if (kind->uses_kernel && max_watches > places_max)
                printf("%-20s each %s has a watch of the kernel, of which the user may have %" PRIu64 ": no more than "
                       "%ld%s\n", "", kind->shares ? "directory" : "file", inotify_watches_max(), places_max,
                       kind->shares ? ", shared by watches with different globs" : "");
        for (size_t i = 0; i < n; i++)
                cell_end(&cells[i]);
}

/* ---- connections ------------------------------------------------------------------------------ */

static void open_all(struct wire *wires, long n, const struct bench *b, struct kev *manager) {
        char *reply = NULL;
        long long connections;

        for (long i = 0; i < n; i++)
                wire_open(&wires[i], wire_path(b));
        do { /* until it has accepted them */
                free(reply);
                (void)bench_check(kev_call(manager, "org.kevd.manager.GetStatus", NULL, &reply), manager, "GetStatus");
                connections = wire_number(reply, "connections");
        } while (connections < n + 1);
        free(reply);
}

/* Each has one watch, and waits. */
static void watch_all(struct wire *wires, long n) {
        for (long i = 0; i < n; i++) {
                char text[256];
                int size = snprintf(text, sizeof(text),
                                    "{\"method\":\"org.kevd.events.Monitor\",\"more\":true,\"parameters\":{"
                                    "\"watches\":[{\"id\":%ld,\"filter\":\"user\",\"name\":\"name-%ld\"}]}}", i, i);

                wire_send(&wires[i], text, (size_t)size);
        }
        for (long i = 0; i < n; i++) {
                const char *reply = wire_receive(&wires[i], EVENT_MSEC);

                if (!reply || strstr(reply, "\"errno\""))
                        bench_fail("a connection's watch: %s", reply ? reply : "no reply");
                free(take_pointer(&wires[i].in));
                wires[i] = (struct wire){ .fd = wires[i].fd };
        }
}

/* An event for one of them, then for another. */
static void measure_all(const struct bench *b, struct wire *wires, long n, struct cell *cell, long round) {
        uint64_t *latencies = calloc((size_t)n_events, sizeof(*latencies)), cpu;
        long step = n / n_events * 7919 + 1;
        struct wire other;

        bench_check_system(latencies, "calloc");
        wire_open(&other, wire_path(b));
        cpu = usage_read(b->daemon).cpu_nsec;
        for (long i = 0; i < n_events && !cell->missing; i++) {
                struct wire *wire = &wires[i * step % n];
                uint64_t start = now_nsec();
                const char *message;

                set_off_user(&other, NULL, i * step % n);
                message = wire_receive(wire, EVENT_MSEC);
                latencies[i] = now_nsec() - start;
                cell->missing = !message || wire_count_events(message) != 1 || !wire_receive(&other, EVENT_MSEC);
                free(take_pointer(&wire->in));
                *wire = (struct wire){ .fd = wire->fd };
        }
        keep_latencies(cell, round, latencies, cell->missing ? 0 : (size_t)n_events,
                       usage_read(b->daemon).cpu_nsec - cpu);
        wire_close(&other);
        free(latencies);
}

static void measure_connections(struct bench *b, struct cell *idle, struct cell *waiting, long round) {
        struct wire *wires = calloc((size_t)idle->n, sizeof(*wires));
        struct kev *manager;
        uint64_t before;
        double share;

        bench_check_system(wires, "calloc");
        daemon_start(b);
        manager = client_open(b);
        (void)daemon_registrations(manager); /* what its replies take is there */
        before = usage_read(b->daemon).private_bytes;
        open_all(wires, idle->n, b, manager);
        share = (double)(usage_read(b->daemon).private_bytes - before) / (double)idle->n;
        if (idle->n >= BYTES_MIN)
                idle->values[METRIC_BYTES][round] = share;
        watch_all(wires, idle->n);
        share = (double)(usage_read(b->daemon).private_bytes - before) / (double)idle->n;
        if (idle->n >= BYTES_MIN)
                waiting->values[METRIC_BYTES][round] = share;
        measure_all(b, wires, idle->n, waiting, round);
        for (long i = 0; i < idle->n; i++)
                wire_close(&wires[i]);
        kev_close(manager);
        daemon_stop(b);
        free(wires);
}

static void measure_all_connections(struct bench *b) {
        static const long sizes[] = { 1, 100, 1000, 10000 };
        struct cell idle[SIZES_MAX], waiting[SIZES_MAX];
        long room = raise_descriptors() - SPARE_DESCRIPTORS;
        size_t n = 0;

        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                long size = MIN(MIN(sizes[i], max_connections), room);

                if (n > 0 && size <= idle[n - 1].n)
                        break;
                idle[n] = waiting[n] = (struct cell){ 0 };
                cell_begin(&idle[n], size);
                cell_begin(&waiting[n++], size);
        }
        if (room < max_connections)
                printf("no more than %ld connections: that is what a process may have of descriptors\n", room);
        for (long round = 0; round < rounds; round++)
                for (size_t i = 0; i < n; i++)
                        measure_connections(b, &idle[i], &waiting[i], round);
        for (size_t i = 0; i < n; i++) {
                if (idle[i].n >= BYTES_MIN)
                        cell_tell(&idle[i], &idle[0], "connected");
                cell_tell(&waiting[i], &waiting[0], "watching, waiting");
                cell_end(&idle[i]);
                cell_end(&waiting[i]);
        }
}

static void run(struct bench *b) {
        daemon_raise_limits(b, NULL);
        printf("scale: %ld events each, %ld rounds; CPU, latency and memory are the daemon's\n", n_events, rounds);
        if (only <= (long)ARRAY_SIZE(kinds))
                print_head("watches");
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                if (only == 0 || only == (long)i + 1)
                        measure_kind(b, &kinds[i]);
        if (only > 0 && only <= (long)ARRAY_SIZE(kinds))
                return;
        print_head("connections");
        measure_all_connections(b);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "scale", "What an event and a watch cost beside many others.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
