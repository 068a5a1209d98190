/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Changes of one tree without end, as fast as one process can make them, while nobody takes what is told of them: what
 * they cost the daemon, and a client of the same user that watches another tree. Each kind of change has its own state
 * in the daemon; what grows with what is queued shows here.
 */

#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static long n_seconds = 3, n_directories = 500, only = 0;

static const struct bench_option options[] = {
        { "seconds", &n_seconds, 1, "of each kind" },
        { "directories", &n_directories, 1, "in the one that is moved" },
        { "only", &only, 0, "one kind, by its number; 0: all" },
};

enum {
        MANY = 4000,          /* names that take turns */
        DEPTH = 60,
        PATIENCE_MSEC = 60000, /* for one event, and for the daemon to come to rest */
        LATENCIES_MAX = 65536,
};

/* ---- the changes -------------------------------------------------------------------------------------------------- */

struct kind;

/* They are made in the tree, the nth of them; ../out is not watched. */
typedef void change_fn(const struct kind *kind, uint64_t n);

struct kind {
        const char *name;
        change_fn *change;
        const char *here, *there; /* what it is made to */
};

static void check(int r, const char *what) {
        bench_check_system(r >= 0, what);
}

static void make_file(const char *path) {
        int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        check(fd, path);
        (void)close(fd);
}

static void move_to_and_fro(const struct kind *kind, uint64_t n _unused_) {
        check(rename(kind->here, kind->there), kind->here);
        check(rename(kind->there, kind->here), kind->there);
}

static void exchange(const struct kind *kind, uint64_t n _unused_) {
        check(renameat2(AT_FDCWD, kind->here, AT_FDCWD, kind->there, RENAME_EXCHANGE), kind->here);
}

/* From name to name, each of which comes round again. */
static void rename_on(const struct kind *kind, uint64_t n) {
        char from[64], to[64];

        (void)snprintf(from, sizeof(from), "%s%" PRIu64, kind->here, n % MANY);
        (void)snprintf(to, sizeof(to), "%s%" PRIu64, kind->here, (n + 1) % MANY);
        check(rename(from, to), from);
}

static void make_and_remove(const struct kind *kind _unused_, uint64_t n) {
        char path[64];

        (void)snprintf(path, sizeof(path), "a/new%" PRIu64, n % MANY);
        check(mkdir(path, 0755), path);
        check(rmdir(path), path);
}

static void make_deep_and_remove(const struct kind *kind _unused_, uint64_t n _unused_) {
        check(mkdir("a/p", 0755), "a/p");
        check(mkdir("a/p/q", 0755), "a/p/q");
        make_file("a/p/q/file");
        check(unlink("a/p/q/file"), "a/p/q/file");
        check(rmdir("a/p/q"), "a/p/q");
        check(rmdir("a/p"), "a/p");
}

static void replace_file(const struct kind *kind _unused_, uint64_t n _unused_) {
        make_file("a/temporary");
        check(rename("a/temporary", "a/file"), "a/file");
}

static void replace_directory(const struct kind *kind _unused_, uint64_t n _unused_) {
        check(mkdir("a/temporary", 0755), "a/temporary");
        check(rename("a/temporary", "b/directory"), "b/directory");
}

static void change_mode(const struct kind *kind _unused_, uint64_t n) {
        check(chmod("a/tree", n % 2 ? 0755 : 0700), "a/tree");
}

static void link_and_unlink(const struct kind *kind _unused_, uint64_t n _unused_) {
        check(link("a/file", "b/link"), "b/link");
        check(unlink("b/link"), "b/link");
}

static void swap_symlink(const struct kind *kind _unused_, uint64_t n _unused_) {
        check(symlink("a", "next"), "next");
        check(rename("next", "current"), "current");
}

static const struct kind kinds[] = {
        { "a directory moves to and fro", move_to_and_fro, "a/tree", "b/tree" },
        { "the same, with others below it", move_to_and_fro, "x/x", "x/y" },
        { "the same, out of the tree and in", move_to_and_fro, "a/tree", "../out/tree" },
        { "a directory gets name after name", rename_on, "chain/directory", NULL },
        { "two directories are exchanged", exchange, "a/tree", "b/directory" },
        { "a file moves to and fro", move_to_and_fro, "a/file", "b/moved" },
        { "a file gets name after name", rename_on, "chain/file", NULL },
        { "two files are exchanged", exchange, "a/file", "b/file" },
        { "a directory is made and removed", make_and_remove, NULL, NULL },
        { "two, and a file in them", make_deep_and_remove, NULL, NULL },
        { "a directory is replaced", replace_directory, NULL, NULL },
        { "a file is replaced", replace_file, NULL, NULL },
        { "a directory's mode changes", change_mode, NULL, NULL },
        { "a file is linked and unlinked", link_and_unlink, NULL, NULL },
        { "a symbolic link is swapped", swap_symlink, NULL, NULL },
};

static void make_below(const char *tree) {
        char path[DEPTH * 2 + 1] = "";
        int before = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        check(before, ".");
        check(chdir(tree), tree);
        check(mkdir("a", 0755), "a");
        check(mkdir("b", 0755), "b");
        check(mkdir("b/directory", 0755), "b/directory");
        check(mkdir("chain", 0755), "chain");
        check(mkdir("chain/directory0", 0755), "chain/directory0");
        make_file("chain/file0");
        make_file("a/file");
        make_file("b/file");
        tree_make("a/tree", (unsigned)n_directories, (unsigned)n_directories, 0);
        for (int i = 0; i < DEPTH; i++) {
                (void)strcat(path, i > 0 ? "/x" : "x");
                check(mkdir(path, 0755), path);
        }
        check(fchdir(before), "fchdir");
        (void)close(before);
}

/* In a child: until its time is over; says how many there were. */
_Noreturn static void change_without_end(const struct kind *kind, const char *tree, int fd) {
        uint64_t n = 0, end;

        check(chdir(tree), tree);
        end = now_nsec() + (uint64_t)n_seconds * NSEC_PER_SEC;
        do
                kind->change(kind, n++);
        while (n % 16 != 0 || now_nsec() < end);
        check((int)write(fd, &n, sizeof(n)), "write");
        _exit(EXIT_SUCCESS);
}

/* ---- who watches another tree --------------------------------------------------------------------------------------- */

static void on_event(struct kev *kev _unused_, const struct kev_event *event _unused_, void *userdata) {
        *(bool *)userdata = true;
}

/* How long until the next change there is told. */
static uint64_t measure_latency(struct kev *kev, const char *path, bool *told) {
        uint64_t start;

        while (bench_check(kev_dispatch(kev, 0), kev, "reading events") > 0)
                ;
        *told = false;
        start = now_nsec();
        make_file(path);
        while (!*told) {
                (void)bench_check(kev_dispatch(kev, PATIENCE_MSEC), kev, "reading events");
                if (now_nsec() - start > PATIENCE_MSEC * NSEC_PER_MSEC)
                        bench_fail("a change of another tree was not told");
        }
        return now_nsec() - start;
}

/* ---- one kind ------------------------------------------------------------------------------------------------------- */

/* Until the daemon has nothing to do. Returns how long that took. */
static uint64_t wait_for_rest(pid_t daemon) {
        enum { STEP_MSEC = 100 };
        uint64_t start = now_nsec(), rest = start;
        struct usage last = usage_read(daemon), now;

        do {
                sleep_msec(STEP_MSEC);
                now = usage_read(daemon);
                if (now.cpu_nsec - last.cpu_nsec < 2 * NSEC_PER_MSEC)
                        break;
                last = now;
                rest = now_nsec();
        } while (rest - start < PATIENCE_MSEC * NSEC_PER_MSEC);
        return rest - start;
}

static void run_kind(struct bench *b, unsigned number) {
        const struct kind *kind = &kinds[number];
        char *top _cleanup_(freep) = bench_path(b, "%u", number), *tree _cleanup_(freep) = bench_path(b, "%u/tree", number);
        char *other _cleanup_(freep) = bench_path(b, "%u/other", number), *out _cleanup_(freep) = bench_path(b, "%u/out", number);
        char *file _cleanup_(freep) = bench_path(b, "%u/other/file", number);
        uint64_t *latencies _cleanup_(freep) = calloc(LATENCIES_MAX, sizeof(*latencies)), n_changes = 0, rest;
        struct kev *idle, *kev;
        struct usage usage;
        bool told = false;
        int pipe_fds[2], status = 0;
        size_t n = 0;
        pid_t pid;

        bench_check_system(latencies, "calloc");
        check(mkdir(top, 0755), top);
        check(mkdir(tree, 0755), tree);
        check(mkdir(other, 0755), other);
        check(mkdir(out, 0755), out);
        make_below(tree);
        daemon_start(b);
        idle = client_open(b);
        kev = client_open(b);
        (void)client_watch_tree(idle, tree, 0, NULL, NULL);
        (void)client_watch_tree(kev, other, 0, on_event, &told);
        check(pipe2(pipe_fds, O_CLOEXEC), "pipe");
        pid = bench_fork();
        if (pid == 0)
                change_without_end(kind, tree, pipe_fds[1]);
        (void)close(pipe_fds[1]);
        while (waitpid(pid, &status, WNOHANG) == 0) {
                if (n < LATENCIES_MAX)
                        latencies[n++] = measure_latency(kev, file, &told);
                sleep_msec(10);
        }
        rest = wait_for_rest(b->daemon);
        if (status != 0 || read(pipe_fds[0], &n_changes, sizeof(n_changes)) != sizeof(n_changes))
                bench_fail("%s: the changes can't be made", kind->name);
        (void)close(pipe_fds[0]);
        usage = usage_read(b->daemon);
        sort_u64(latencies, n);
        printf("%2u %-36s %9" PRIu64 " %8.2f %8.2f %9.1f %9.1f %9.1f\n", number + 1, kind->name, n_changes,
               (double)usage.cpu_nsec / 1e3 / (double)n_changes, (double)rest / 1e9, (double)usage.peak_rss_bytes / 1048576,
               (double)percentile(latencies, n, 0.5) / 1e6, n > 0 ? (double)latencies[n - 1] / 1e6 : 0);
        (void)fflush(stdout);
        kev_close(idle);
        kev_close(kev);
        daemon_stop(b);
        tree_remove(top);
}

static void run(struct bench *b) {
        printf("endless: changes of one tree for %ld s; trees by %s\n", n_seconds,
               bench_is_on_fanotify() ? "fanotify" : "inotify");
        printf("%-39s %9s %8s %8s %9s %19s\n", "", "changes", "CPU us", "rest s", "peak MiB", "latency ms p50, max");
        for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
                if (only == 0 || only == (long)i + 1)
                        run_kind(b, i);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "endless", "What changes of one tree without end cost.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
