/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How long it takes from asking for a tree watch until it is in force, against
 * what a program does that uses inotify itself: walk the tree with readdir(3),
 * and inotify_add_watch(2) on each directory. Both ask for the same events, and
 * take turns on the same tree, whose directories the kernel has in memory.
 */

#include <dirent.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

#include "bench.h"

static long largest = 100000, fan_out = 10, n_files = 0, rounds = 5;

static const struct bench_option options[] = {
        { "largest", &largest, 100, "directories of the largest tree; the others have a tenth of the next" },
        { "fan-out", &fan_out, 1, "directories in each" },
        { "files", &n_files, 0, "files in each directory" },
        { "rounds", &rounds, 1, "of which the median is shown" },
};

enum {
        MASK = IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB |
               IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK,
};

/* `path` has PATH_MAX bytes. Returns how many directories were watched. */
static uint64_t walk(int inotify_fd, char *path) {
        size_t size = strlen(path);
        struct dirent *entry;
        uint64_t n = 1;
        DIR *directory;

        bench_check_system(inotify_add_watch(inotify_fd, path, (uint32_t)MASK) >= 0, path);
        directory = opendir(path);
        bench_check_system(directory, path);
        while ((entry = readdir(directory))) {
                size_t name_size = strlen(entry->d_name);

                if (entry->d_type != DT_DIR || strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
                    size + name_size + 2 > PATH_MAX)
                        continue;
                path[size] = '/';
                memcpy(path + size + 1, entry->d_name, name_size + 1);
                n += walk(inotify_fd, path);
                path[size] = 0;
        }
        (void)closedir(directory);
        return n;
}

static uint64_t time_walk(const char *tree, uint64_t n_directories) {
        int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        uint64_t start, time, n;
        char path[PATH_MAX];

        bench_check_system(fd >= 0, "inotify_init1");
        (void)snprintf(path, sizeof(path), "%s", tree);
        start = now_nsec();
        n = walk(fd, path);
        time = now_nsec() - start;
        (void)close(fd);
        if (n != n_directories)
                bench_fail("the walk found %" PRIu64 " directories", n);
        return time;
}

struct figures {
        uint64_t *walk, *attach, *release, *cpu; /* nsec, for each round */
        uint64_t bytes_before, bytes_with;
};

static void time_daemon(const struct bench *b, struct kev *kev, const char *tree, struct figures *f, long i) {
        struct usage before = usage_read(b->daemon), with;
        uint64_t start = now_nsec();
        int64_t id = client_watch_tree(kev, tree, 0, NULL, NULL);

        f->attach[i] = now_nsec() - start;
        with = usage_read(b->daemon);
        f->cpu[i] = with.cpu_nsec - before.cpu_nsec;
        if (i == 0) {
                f->bytes_before = before.private_bytes;
                f->bytes_with = with.private_bytes;
        }
        start = now_nsec();
        (void)bench_check(kev_remove(kev, id), kev, "removing the watch");
        daemon_wait_registrations(kev, bench_is_on_fanotify() ? 1 : 0);
        f->release[i] = now_nsec() - start;
}

/* The very first watch of a daemon that has just started: helpers are started, and the file system is marked. */
static void time_first(const struct bench *b, struct kev *kev, const char *tree, uint64_t n_directories) {
        uint64_t before = usage_read(b->daemon).private_bytes, start = now_nsec();
        int64_t id = client_watch_tree(kev, tree, 0, NULL, NULL);

        printf("%11" PRIu64 " first of all: %.2f ms, %+.2f MiB\n", n_directories, (double)(now_nsec() - start) / 1e6,
               ((double)usage_read(b->daemon).private_bytes - (double)before) / 1048576);
        (void)bench_check(kev_remove(kev, id), kev, "removing the watch");
}

static double median_msec(uint64_t *values) {
        sort_u64(values, (size_t)rounds);
        return (double)percentile(values, (size_t)rounds, 0.5) / 1e6;
}

/* A new daemon each time, for what it holds to be this tree's. */
static void measure(struct bench *b, const char *tree, const char *empty, uint64_t n_directories) {
        uint64_t *values = calloc((size_t)rounds * 4, sizeof(*values));
        struct figures f = { values, values + rounds, values + 2 * rounds, values + 3 * rounds, 0, 0 };
        double walked, attached;
        struct kev *kev;

        bench_check_system(values, "calloc");
        daemon_start(b);
        kev = client_open(b);
        if (bench_is_on_fanotify()) {
                time_first(b, kev, tree, n_directories);
                /* Whoever watches something on the file system keeps its mark. */
                (void)client_watch_tree(kev, empty, 0, NULL, NULL);
        } else {
                /* Its threads and their stacks are there before the first measurement. */
                (void)bench_check(kev_remove(kev, client_watch_tree(kev, empty, 0, NULL, NULL)), kev,
                                  "removing the watch");
                daemon_wait_registrations(kev, 0);
        }
        (void)time_walk(tree, n_directories);
        for (long i = 0; i < rounds; i++) {
                f.walk[i] = time_walk(tree, n_directories);
                time_daemon(b, kev, tree, &f, i);
        }
        walked = median_msec(f.walk);
        attached = median_msec(f.attach);
        printf("%11" PRIu64 " %10.2f %10.2f %7.2f %10.2f %10.2f %16.0f\n", n_directories, walked, attached,
               attached / walked, median_msec(f.cpu), median_msec(f.release),
               ((double)f.bytes_with - (double)f.bytes_before) / (double)n_directories);
        (void)fflush(stdout);
        kev_close(kev);
        daemon_stop(b);
        free(values);
}

static void run(struct bench *b) {
        char *empty _cleanup_(freep) = bench_path(b, "empty");
        uint64_t watches_max = inotify_watches_max();
        long size = largest;

        while (size / 10 >= 100)
                size /= 10;
        tree_make(empty, 1, 1, 0);
        printf("attach: median of %ld rounds; fan-out %ld, %ld files in each directory\n", rounds, fan_out, n_files);
        printf("%11s %10s %10s %7s %10s %10s %16s\n", "directories", "walk ms", "kevd ms", "ratio", "CPU ms",
               "let go ms", "bytes/directory");
        for (; size <= largest; size *= 10) {
                char *tree _cleanup_(freep) = bench_path(b, "%ld", size);

                if ((uint64_t)size + 100 > watches_max) {
                        printf("%11ld skipped: fs.inotify.max_user_watches is %" PRIu64 "\n", size, watches_max);
                        continue;
                }
                tree_make(tree, (unsigned)size, (unsigned)fan_out, (unsigned)n_files);
                measure(b, tree, empty, (uint64_t)size);
                tree_remove(tree);
        }
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "attach", "How long it takes until a tree watch is in force.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
