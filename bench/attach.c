/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How long it takes from asking for a tree watch until it is in force, for kevd,
 * for others, and for what a program does that uses inotify itself (the floor):
 * walk the tree with readdir(3), and inotify_add_watch(2) on each directory. A
 * walk without watches is there for comparison. They take turns on the same
 * tree, whose directories the kernel has in memory; with --cold it has to read
 * them from the disk, as after a boot.
 *
 * What is in force has to tell: then files are made in directories all over the
 * tree, and each of them has to be told.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "result.h"
#include "watcher.h"

static long smallest = 100, largest = 100000, fan_out = 10, n_files = 0, rounds = 5, cold = 0, peers = 1;

static const struct bench_option options[] = {
        { "smallest", &smallest, 1, "directories of the smallest tree; the next has ten times as many" },
        { "largest", &largest, 100, "directories of the largest tree" },
        { "fan-out", &fan_out, 1, "directories in each" },
        { "files", &n_files, 0, "files in each directory" },
        { "rounds", &rounds, 1, "of which the median is shown" },
        { "cold", &cold, 0, "1: the kernel's caches are dropped before each measurement, which takes root" },
        { "peers", &peers, 0, "0: kevd and the floor alone" },
};

enum {
        SAMPLES = 100, /* files that have to be told */
        TOLD_SEC = 20,
        BARE_WALK = WATCHER_KINDS, /* one more, behind those that watch */
        CONTENDERS,
};

enum metric { TIME, FIRST, MEMORY, GROWTH, SLAB, CPU, LET_GO, METRICS };

static const struct {
        const char *name, *unit;
        double scale; /* in the table */
} metrics[METRICS] = {
        [TIME] = { "time", "ms", 1 },
        [FIRST] = { "first time", "ms", 1 }, /* of a daemon that has served nobody yet */
        [MEMORY] = { "memory", "bytes", 1048576 },
        [GROWTH] = { "growth", "bytes", 1048576 }, /* of the daemon's memory, by the watch */
        [SLAB] = { "slab", "bytes", 1048576 },     /* of the kernel's memory */
        [CPU] = { "CPU", "ms", 1 },
        [LET_GO] = { "let go", "ms", 1 },
};

struct contender {
        const char *name;
        bool is_out;
        double *values[METRICS]; /* of the rounds */
        long n[METRICS];
        uint64_t n_missing;
};

struct tree {
        const char *path;
        uint64_t n_directories;
        char last[PATH_MAX];
        char *samples[SAMPLES];
        size_t n_samples;
};

struct check {
        bool told[SAMPLES];
        size_t n;
};

/* proc_sys_vm(5): what is written to the disk, and in no use. */
static void forget(void) {
        FILE *file;

        if (!cold)
                return;
        sync();
        file = fopen("/proc/sys/vm/drop_caches", "we");
        bench_check_system(file && fputs("3\n", file) >= 0, "drop_caches");
        bench_check_system(fclose(file) == 0, "drop_caches");
}

/* proc_meminfo(5): all of the kernel's objects, those of others that run here as well */
static double slab_bytes(void) {
        FILE *file = fopen("/proc/meminfo", "re");
        char line[256];
        double kib = 0;

        while (file && fgets(line, sizeof(line), file))
                if (sscanf(line, "Slab: %lf kB", &kib) == 1)
                        break;
        if (file)
                (void)fclose(file);
        return kib * 1024;
}

static void add(struct contender *c, enum metric metric, double value) {
        c->values[metric][c->n[metric]++] = value;
}

static void told(uint64_t number, void *userdata) {
        struct check *check = userdata;

        if (number >= SAMPLES || check->told[number])
                return;
        check->told[number] = true;
        check->n++;
}

static void change_samples(const struct tree *tree, bool make) {
        for (size_t i = 0; i < tree->n_samples; i++) {
                char name[WATCHER_NAME_SIZE], *path _cleanup_(freep) = NULL;
                int fd;

                watcher_file_name(name, i);
                bench_check_system(asprintf(&path, "%s/%s", tree->samples[i], name) >= 0, "asprintf");
                if (!make) {
                        (void)unlink(path);
                        continue;
                }
                fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
                bench_check_system(fd >= 0, path);
                (void)close(fd);
        }
}

/* Returns how many of the files were not told. */
static size_t count_missing(struct watcher *w, const struct tree *tree, const struct check *check) {
        uint64_t deadline;

        change_samples(tree, true);
        deadline = now_nsec() + TOLD_SEC * NSEC_PER_SEC;
        while (check->n < tree->n_samples && now_nsec() < deadline)
                (void)watcher_read(w, 100);
        return tree->n_samples - check->n;
}

static void let_go(struct watcher *w, struct contender *c) {
        uint64_t start = now_nsec();

        (void)bench_check(kev_remove(w->kev, w->id), w->kev, "removing the watch");
        daemon_wait_registrations(w->kev, bench_is_on_fanotify() ? 1 : 0);
        add(c, LET_GO, (double)(now_nsec() - start) / 1e6);
}

/* False: it is left out from now on. */
static bool measure_watcher(const struct bench *b, enum watcher_kind kind, const struct tree *tree,
                            struct contender *c) {
        bool is_kevd = kind == WATCHER_KEVD_INOTIFY || kind == WATCHER_KEVD_FANOTIFY, ok;
        uint64_t time, cpu, growth;
        struct check check = { 0 };
        struct watcher w;
        double slab;

        if (!watcher_prepare(&w, b, kind, WATCHER_CHANGES, false))
                return false;
        forget();
        cpu = watcher_cpu_nsec(&w);
        growth = is_kevd ? usage_read(w.pid).private_bytes : 0;
        slab = slab_bytes();
        ok = watcher_attach(&w, tree->path, tree->last, told, &check, &time);
        if (ok) {
                add(c, SLAB, slab_bytes() - slab);
                add(c, TIME, (double)time / 1e6);
                if (kind != WATCHER_FLOOR) {
                        add(c, CPU, (double)(watcher_cpu_nsec(&w) - cpu) / 1e6);
                        add(c, MEMORY, (double)watcher_memory(&w));
                }
                if (is_kevd)
                        add(c, GROWTH, (double)usage_read(w.pid).private_bytes - (double)growth);
                c->n_missing += count_missing(&w, tree, &check);
                if (is_kevd)
                        let_go(&w, c);
        }
        watcher_end(&w);
        change_samples(tree, false);
        return ok;
}

/* The very first watch of a daemon that has just started: helpers are started, and the file system is marked. */
static void measure_first(const struct bench *b, enum watcher_kind kind, const struct tree *tree,
                          struct contender *c) {
        struct check check = { 0 };
        struct watcher w;
        uint64_t time;

        if (!watcher_prepare(&w, b, kind, WATCHER_CHANGES, true))
                return;
        forget();
        if (watcher_attach(&w, tree->path, tree->last, told, &check, &time))
                add(c, FIRST, (double)time / 1e6);
        watcher_end(&w);
}

static void measure_walk(const struct tree *tree, struct contender *c) {
        struct walk walk = { .inotify_fd = -1 };
        uint64_t start;

        forget();
        start = now_nsec();
        walk_tree(&walk, tree->path);
        add(c, TIME, (double)(now_nsec() - start) / 1e6);
        if (walk.n != tree->n_directories)
                bench_fail("the walk found %" PRIu64 " directories", walk.n);
}

static void print(const struct contender *c, const struct tree *tree, const struct contender *floor) {
        const char *variant = cold ? "cold caches" : "warm caches";
        double time = result_median(c->values[TIME], (size_t)c->n[TIME]);

        printf("%11" PRIu64 " %-19s %10.2f %7.2f", tree->n_directories, c->name, time,
               time / result_median(floor->values[TIME], (size_t)floor->n[TIME]));
        for (enum metric m = 0; m < METRICS; m++) {
                struct result result = {
                        .workload = "attach", .program = c->name, .variant = variant, .metric = metrics[m].name,
                        .unit = metrics[m].unit, .x = (double)tree->n_directories, .values = c->values[m],
                        .n = (size_t)c->n[m],
                };

                if (m != TIME && c->n[m] > 0)
                        printf(" %10.2f", result_median(c->values[m], (size_t)c->n[m]) / metrics[m].scale);
                else if (m != TIME)
                        printf(" %10s", "-");
                if (m == TIME && c->n[m] == floor->n[m])
                        result.floor = floor->values[m];
                if (m == TIME && c->name != watcher_name(WATCHER_FLOOR))
                        result.completeness = c->n_missing > 0 ? COMPLETENESS_MISSING : COMPLETENESS_WHOLE;
                if (strcmp(c->name, "walk") == 0)
                        result.completeness = COMPLETENESS_NONE;
                result_write(&result);
        }
        printf("%s\n", c->n_missing > 0 ? " wrong: events missing" : "");
        (void)fflush(stdout);
}

static void measure_round(const struct bench *b, const struct tree *tree, struct contender *contenders) {
        for (int kind = 0; kind < CONTENDERS; kind++) {
                struct contender *c = &contenders[kind];

                if (c->is_out)
                        continue;
                if (kind == BARE_WALK)
                        measure_walk(tree, c);
                else
                        c->is_out = !measure_watcher(b, (enum watcher_kind)kind, tree, c);
                if (kind == WATCHER_KEVD_INOTIFY || kind == WATCHER_KEVD_FANOTIFY)
                        measure_first(b, (enum watcher_kind)kind, tree, c);
        }
}

/* Who stays out: what isn't there, and settings that make no difference here. */
static bool is_wanted(int kind) {
        if (kind == BARE_WALK)
                return true;
        if (!peers && kind != WATCHER_FLOOR && kind != WATCHER_KEVD_INOTIFY && kind != WATCHER_KEVD_FANOTIFY)
                return false;
        return kind != WATCHER_WATCHMAN && kind != WATCHER_FSWATCH && watcher_is_there((enum watcher_kind)kind);
}

static void measure(const struct bench *b, const struct tree *tree) {
        struct contender contenders[CONTENDERS] = { 0 };
        double *values = calloc((size_t)rounds * METRICS * CONTENDERS, sizeof(*values)), *next = values;

        bench_check_system(values, "calloc");
        for (int kind = 0; kind < CONTENDERS; kind++) {
                struct contender *c = &contenders[kind];

                c->name = kind == BARE_WALK ? "walk" : watcher_name((enum watcher_kind)kind);
                c->is_out = !is_wanted(kind);
                for (enum metric m = 0; m < METRICS; m++, next += rounds)
                        c->values[m] = next;
        }
        for (long i = 0; i < rounds; i++)
                measure_round(b, tree, contenders);
        for (int kind = 0; kind < CONTENDERS; kind++)
                if (contenders[kind].n[TIME] > 0)
                        print(&contenders[kind], tree, &contenders[WATCHER_FLOOR]);
        free(values);
}

/* The first walk also says where files are to be made. */
static void look_around(struct tree *tree) {
        struct walk walk = {
                .inotify_fd = -1, .last = tree->last, .every = MAX(tree->n_directories / SAMPLES, 1u),
                .samples = tree->samples, .n_samples_max = SAMPLES - 1,
        };

        walk_tree(&walk, tree->path);
        tree->n_samples = walk.n_samples;
        tree->samples[tree->n_samples] = strdup(tree->last);
        bench_check_system(tree->samples[tree->n_samples], "strdup");
        tree->n_samples++;
}

static void run_size(const struct bench *b, long size) {
        char *path _cleanup_(freep) = bench_path(b, "%ld", size);
        struct tree *tree = calloc(1, sizeof(*tree));

        bench_check_system(tree, "calloc");
        tree->path = path;
        tree->n_directories = (uint64_t)size;
        tree_make(path, (unsigned)size, (unsigned)fan_out, (unsigned)n_files);
        look_around(tree);
        measure(b, tree);
        tree_remove(path);
        for (size_t i = 0; i < tree->n_samples; i++)
                free(tree->samples[i]);
        free(tree);
}

static void run(struct bench *b) {
        uint64_t watches_max = inotify_watches_max();

        printf("attach: median of %ld rounds; fan-out %ld, %ld files in each directory; caches %s\n", rounds, fan_out,
               n_files, cold ? "cold" : "warm");
        printf("%11s %-19s %10s %7s %10s %10s %10s %10s %10s %10s\n", "directories", "program", "ms", "ratio",
               "first ms", "memory MiB", "growth MiB", "slab MiB", "CPU ms", "let go ms");
        for (long size = smallest; size <= largest; size *= 10)
                if ((uint64_t)size + 100 > watches_max)
                        printf("%11ld skipped: fs.inotify.max_user_watches is %" PRIu64 "\n", size, watches_max);
                else
                        run_size(b, size);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "attach", "How long it takes until a tree watch is in force.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
