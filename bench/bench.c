/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The benchmark runs in a child, which may end as it likes; the parent does
 * nothing but wait for it and clean up.
 */

#include "bench.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

enum { DAEMON_START_MSEC = 10000 };

/* ---- failing ------------------------------------------------------------------------------ */

void bench_fail(const char *format, ...) {
        va_list arguments;

        (void)fflush(stdout);
        va_start(arguments, format);
        (void)vfprintf(stderr, format, arguments);
        va_end(arguments);
        (void)fputc('\n', stderr);
        exit(EXIT_FAILURE);
}

int bench_check(int r, const struct kev *kev, const char *what) {
        if (r < 0)
                bench_fail("%s: %s", what, kev_error_message(kev));
        return r;
}

void bench_check_system(bool ok, const char *what) {
        if (!ok)
                bench_fail("%s: %s", what, strerror(errno));
}

char *bench_path(const struct bench *b, const char *format, ...) {
        char name[256], *path;
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(name, sizeof(name), format, arguments);
        va_end(arguments);
        bench_check_system(asprintf(&path, "%s/%s", b->directory, name) >= 0, "asprintf");
        return path;
}

/* ---- the program ------------------------------------------------------------------------ */

static void print_help(const struct bench_program *program) {
        printf("usage: %s KEVD [OPTION...]\n\n%s\n\n", program->name, program->purpose);
        for (size_t i = 0; i < program->n_options; i++)
                printf("  --%-14s %s (%ld)\n", program->options[i].name, program->options[i].help,
                       *program->options[i].value);
}

static bool read_option(const struct bench_program *program, const char *argument) {
        size_t size = strcspn(argument, "=");

        for (size_t i = 0; i < program->n_options; i++) {
                const struct bench_option *option = &program->options[i];
                char *end;

                if (strlen(option->name) + 2 != size || strncmp(argument, "--", 2) != 0 ||
                    strncmp(argument + 2, option->name, size - 2) != 0 || argument[size] != '=')
                        continue;
                *option->value = strtol(argument + size + 1, &end, 10);
                return end != argument + size + 1 && *end == 0 && *option->value >= option->min &&
                       *option->value <= INT_MAX;
        }
        return false;
}

static bool read_arguments(const struct bench_program *program, int argc, char **argv) {
        if (argc < 2 || argv[1][0] == '-')
                return false;
        for (int i = 2; i < argc; i++)
                if (!read_option(program, argv[i])) {
                        (void)fprintf(stderr, "%s: what is %s?\n", program->name, argv[i]);
                        return false;
                }
        return true;
}

/* The child's end, or a signal that ends it. Returns the exit status. */
static int wait_for_end(pid_t child, const sigset_t *signals) {
        int status, by_signal = 0;

        while (waitpid(child, &status, WNOHANG) == 0) {
                int signal_number = sigwaitinfo(signals, NULL);

                if (signal_number <= 0 || signal_number == SIGCHLD)
                        continue;
                by_signal = signal_number;
                (void)kill(child, SIGKILL);
        }
        if (by_signal)
                return 128 + by_signal;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void print_log(const struct bench *b) {
        char *path _cleanup_(freep) = bench_path(b, "kevd.log");
        FILE *log = fopen(path, "re");
        char line[512];

        while (log && fgets(line, sizeof(line), log))
                (void)fprintf(stderr, "kevd: %s", line);
        if (log)
                (void)fclose(log);
}

static void make_directory(const struct bench_program *program, struct bench *b) {
        const char *parent = getenv("TMPDIR");
        int n = snprintf(b->directory, sizeof(b->directory), "%s/kevd-%s-XXXXXX",
                         parent && parent[0] == '/' ? parent : "/tmp", program->name);

        /* sun_path has 108 bytes */
        if (n < 0 || n > 90)
                bench_fail("TMPDIR is too long for a socket's path");
        bench_check_system(mkdtemp(b->directory), b->directory);
        (void)snprintf(b->address, sizeof(b->address), "unix:%s/socket", b->directory);
}

pid_t bench_fork(void) {
        pid_t parent = getpid(), child;

        (void)fflush(stdout);
        child = fork();
        bench_check_system(child >= 0, "fork");
        if (child == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent)
                        _exit(EXIT_FAILURE);
        }
        return child;
}

int bench_main(const struct bench_program *program, int argc, char **argv) {
        struct bench b = { .kevd = argc > 1 ? argv[1] : NULL };
        sigset_t signals, before;
        pid_t parent = getpid(), child;
        int status;

        if (!read_arguments(program, argc, argv)) {
                print_help(program);
                return argc == 2 && strcmp(argv[1], "--help") == 0 ? EXIT_SUCCESS : 2;
        }
        make_directory(program, &b);
        (void)sigemptyset(&signals);
        (void)sigaddset(&signals, SIGCHLD);
        (void)sigaddset(&signals, SIGINT);
        (void)sigaddset(&signals, SIGTERM);
        (void)sigaddset(&signals, SIGHUP);
        (void)sigprocmask(SIG_BLOCK, &signals, &before);
        child = fork();
        if (child == 0) {
                (void)sigprocmask(SIG_SETMASK, &before, NULL);
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                if (getppid() != parent)
                        _exit(EXIT_FAILURE);
                program->run(&b);
                if (b.daemon > 0)
                        daemon_stop(&b);
                exit(EXIT_SUCCESS);
        }
        status = child < 0 ? EXIT_FAILURE : wait_for_end(child, &signals);
        if (status != EXIT_SUCCESS)
                print_log(&b);
        tree_remove(b.directory);
        return status;
}

/* ---- the daemon -------------------------------------------------------------------------- */

/* In the child. Nothing of the user's configuration or session is to have a part in it. */
static _Noreturn void become_daemon(const struct bench *b, pid_t parent) {
        char mechanism_option[48], listen_option[300], no_bus[300];
        char *log_path = bench_path(b, "kevd.log");
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

        (void)snprintf(listen_option, sizeof(listen_option), "--listen=%s", b->address + strlen("unix:"));
        (void)snprintf(mechanism_option, sizeof(mechanism_option), "--file-mechanism=%s",
                       bench_is_on_fanotify() ? "fanotify" : "inotify");
        (void)snprintf(no_bus, sizeof(no_bus), "unix:path=%s/no-bus", b->directory);
        if (null < 0 || log < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
            dup2(log, STDERR_FILENO) < 0 || clearenv() != 0 || setenv("DBUS_SYSTEM_BUS_ADDRESS", no_bus, 1) < 0 ||
            prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || (b->system && chmod(b->directory, 0755) < 0))
                _exit(126);
        if (getppid() != parent)
                _exit(126);
        (void)execl(b->kevd, b->kevd, b->system ? "--mode=system" : "--mode=user", "--config=/dev/null",
                    "--log-level=warning", listen_option, mechanism_option, b->option, (char *)NULL);
        dprintf(STDERR_FILENO, "%s: %s\n", b->kevd, strerror(errno));
        _exit(127);
}

bool bench_is_on_fanotify(void) {
        const char *mechanism = getenv("KEVD_FILE_MECHANISM");

        return mechanism && strcmp(mechanism, "fanotify") == 0;
}

void daemon_start(struct bench *b) {
        uint64_t deadline = now_nsec() + DAEMON_START_MSEC * NSEC_PER_MSEC;
        pid_t parent = getpid();
        struct kev *kev = NULL;

        b->daemon = fork();
        bench_check_system(b->daemon >= 0, "fork");
        if (b->daemon == 0)
                become_daemon(b, parent);
        while (kev_open(b->address, &kev) < 0) {
                if (waitpid(b->daemon, NULL, WNOHANG) != 0)
                        bench_fail("kevd has ended before it served");
                if (now_nsec() > deadline)
                        bench_fail("kevd doesn't serve: %s", kev_error_message(NULL));
                sleep_msec(2);
        }
        kev_close(kev);
}

void daemon_stop(struct bench *b) {
        int status;

        (void)kill(b->daemon, SIGTERM);
        bench_check_system(waitpid(b->daemon, &status, 0) == b->daemon, "waitpid");
        b->daemon = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
                bench_fail("kevd ended with status 0x%x", (unsigned)status);
}

struct kev *client_open(const struct bench *b) {
        struct kev *kev = NULL;

        (void)bench_check(kev_open(b->address, &kev), NULL, "connecting");
        return kev;
}

int64_t client_watch_tree(struct kev *kev, const char *path, uint64_t notes, kev_handler *handler, void *userdata) {
        struct kev_watch *watch = NULL;
        int64_t id = -1;

        if (kev_watch_new(KEV_FILTER_TREE, &watch) < 0 || kev_watch_set_path(watch, path) < 0 ||
            kev_watch_set_notes(watch, notes) < 0)
                bench_fail("%s: no such watch can be", path);
        (void)bench_check(kev_add(kev, watch, handler, userdata, &id), kev, "watching a tree");
        kev_watch_free(watch);
        return id;
}

/* The number that follows `name`, after the first `after`, in the manager's answer. */
static uint64_t status_number(struct kev *kev, const char *after, const char *name) {
        char *reply _cleanup_(freep) = NULL, key[64];
        const char *p;

        (void)bench_check(kev_call(kev, "org.kevd.manager.GetStatus", NULL, &reply), kev, "GetStatus");
        (void)snprintf(key, sizeof(key), "\"%s\":", name);
        p = strstr(reply, after);
        p = p ? strstr(p, key) : NULL;
        if (!p)
                bench_fail("GetStatus says nothing of %s", name);
        return strtoull(p + strlen(key), NULL, 10);
}

uint64_t daemon_counter(struct kev *kev, const char *name) {
        return status_number(kev, "\"counters\":", name);
}

uint64_t daemon_registrations(struct kev *kev) {
        return status_number(kev, bench_is_on_fanotify() ? "\"name\":\"fanotify\"" : "\"name\":\"inotify\"",
                             "registrations");
}

void daemon_wait_registrations(struct kev *kev, uint64_t n) {
        while (daemon_registrations(kev) > n)
                sleep_msec(1);
}

/* ---- files ------------------------------------------------------------------------------- */

struct tree_shape {
        unsigned n_directories, fan_out, n_files;
};

/* Directory `i`'s children are fan_out * i + 1 and so on: the first level is full before the second
 * begins. Takes `fd` over. */
static void fill_directory(int fd, unsigned i, const struct tree_shape *shape) {
        uint64_t first = (uint64_t)shape->fan_out * i + 1;
        char name[32];

        for (unsigned k = 0; k < shape->n_files; k++) {
                int file;

                (void)snprintf(name, sizeof(name), "file-%u", k);
                file = openat(fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                bench_check_system(file >= 0, "making a file");
                (void)close(file);
        }
        for (uint64_t k = first; k < first + shape->fan_out && k < shape->n_directories; k++) {
                int child;

                (void)snprintf(name, sizeof(name), "directory-%" PRIu64, k);
                bench_check_system(mkdirat(fd, name, 0700) == 0, "making a directory");
                child = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                bench_check_system(child >= 0, "opening a directory");
                fill_directory(child, (unsigned)k, shape);
        }
        (void)close(fd);
}

void tree_make(const char *path, unsigned n_directories, unsigned fan_out, unsigned n_files) {
        struct tree_shape shape = { n_directories, fan_out, n_files };
        int fd;

        bench_check_system(mkdir(path, 0700) == 0, path);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bench_check_system(fd >= 0, path);
        fill_directory(fd, 0, &shape);
}

static int remove_one(const char *path, const struct stat *st _unused_, int type _unused_,
                      struct FTW *where _unused_) {
        (void)remove(path);
        return 0;
}

void tree_remove(const char *path) {
        (void)nftw(path, remove_one, 64, FTW_DEPTH | FTW_PHYS);
}

uint64_t inotify_watches_max(void) {
        FILE *file = fopen("/proc/sys/fs/inotify/max_user_watches", "re");
        uint64_t n = 0;

        if (!file || fscanf(file, "%" SCNu64, &n) != 1)
                bench_fail("fs.inotify.max_user_watches can't be read");
        (void)fclose(file);
        return n;
}

void storm_begin(struct storm *storm) {
        char name[64];

        bench_check_system(mkdir(storm->directory, 0700) == 0 || errno == EEXIST, storm->directory);
        storm->fd = open(storm->directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        bench_check_system(storm->fd >= 0, storm->directory);
        storm->fds = storm->rewrite ? calloc(storm->n_directories, sizeof(*storm->fds)) : NULL;
        storm->last_nsec = storm->rewrite ? calloc(storm->n_directories, sizeof(*storm->last_nsec)) : NULL;
        bench_check_system((storm->fds && storm->last_nsec) || !storm->rewrite, "calloc");
        for (unsigned i = 0; i < storm->n_directories; i++) {
                (void)snprintf(name, sizeof(name), "%u", i);
                bench_check_system(mkdirat(storm->fd, name, 0700) == 0 || errno == EEXIST, name);
                if (!storm->rewrite)
                        continue;
                (void)snprintf(name, sizeof(name), "%u/file-%u", i, storm->writer);
                storm->fds[i] = openat(storm->fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                bench_check_system(storm->fds[i] >= 0, name);
        }
}

void storm_end(struct storm *storm) {
        for (unsigned i = 0; storm->fds && i < storm->n_directories; i++)
                (void)close(storm->fds[i]);
        free(take_pointer(&storm->fds));
        free(take_pointer(&storm->last_nsec));
        (void)close(storm->fd);
}

static void make_and_remove(const struct storm *storm, uint64_t i) {
        char name[96];
        int fd;

        (void)snprintf(name, sizeof(name), "%" PRIu64 "/file-%u-%" PRIu64, i % storm->n_directories, storm->writer,
                       i);
        fd = openat(storm->fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        bench_check_system(fd >= 0 && write(fd, "x", 1) == 1, name);
        (void)close(fd);
        bench_check_system(unlinkat(storm->fd, name, 0) == 0, name);
}

static void rewrite(const struct storm *storm, uint64_t i) {
        uint64_t k = i % storm->n_directories;

        storm->last_nsec[k] = now_nsec();
        bench_check_system(pwrite(storm->fds[k], "x", 1, 0) == 1, "writing");
}

void *storm_run(void *argument) {
        const struct storm *storm = argument;
        uint64_t size = storm->rewrite ? 1 : STORM_CYCLE;

        for (uint64_t i = 0; i < storm->n_events / size; i++) {
                while (storm->seen && i * size > atomic_load(storm->seen) + storm->window)
                        sleep_msec(1);
                if (storm->rewrite)
                        rewrite(storm, i);
                else
                        make_and_remove(storm, i);
        }
        return NULL;
}

/* ---- figures ------------------------------------------------------------------------------ */

static uint64_t clock_nsec(clockid_t clock) {
        struct timespec t = { 0 };

        (void)clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

uint64_t now_nsec(void) {
        return clock_nsec(CLOCK_MONOTONIC);
}

uint64_t thread_cpu_nsec(void) {
        return clock_nsec(CLOCK_THREAD_CPUTIME_ID);
}

void sleep_msec(unsigned msec) {
        struct timespec t = { .tv_sec = msec / 1000, .tv_nsec = (long)(msec % 1000) * 1000000 };

        while (nanosleep(&t, &t) < 0 && errno == EINTR)
                ;
}

static int compare_u64(const void *a, const void *b) {
        uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

        return (x > y) - (x < y);
}

void sort_u64(uint64_t *values, size_t n) {
        if (n > 0)
                qsort(values, n, sizeof(*values), compare_u64);
}

uint64_t percentile(const uint64_t *sorted, size_t n, double fraction) {
        size_t rank = (size_t)(fraction * (double)n);

        if (n == 0)
                return 0;
        if ((double)rank < fraction * (double)n)
                rank++;
        return sorted[MIN(MAX(rank, 1u), n) - 1];
}

/* The number behind `key` at a line's start, of a file in /proc/PID. */
static uint64_t proc_number(pid_t pid, const char *name, const char *key) {
        char path[128], line[256];
        uint64_t value = 0;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file))
                if (strncmp(line, key, strlen(key)) == 0) {
                        value = strtoull(line + strlen(key), NULL, 10);
                        break;
                }
        if (file)
                (void)fclose(file);
        return value;
}

struct usage usage_read(pid_t pid) {
        clockid_t clock = CLOCK_MONOTONIC;

        if (clock_getcpuclockid(pid, &clock) != 0)
                bench_fail("the daemon's CPU time can't be read");
        /* smaps_rollup counts pages; the figures in status are not exact. */
        return (struct usage){
                .cpu_nsec = clock_nsec(clock),
                .rss_bytes = proc_number(pid, "smaps_rollup", "Rss:") * 1024,
                .private_bytes = proc_number(pid, "smaps_rollup", "Anonymous:") * 1024,
                .peak_rss_bytes = proc_number(pid, "status", "VmHWM:") * 1024,
        };
}

static int is_number(const struct dirent *entry) {
        return entry->d_name[0] >= '0' && entry->d_name[0] <= '9';
}

size_t switches_read(pid_t pid, struct thread_switches *threads, size_t n_max) {
        struct dirent **entries = NULL;
        char path[64];
        size_t n = 0;
        int n_entries;

        (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        n_entries = scandir(path, &entries, is_number, versionsort);
        bench_check_system(n_entries >= 0, path);
        for (int i = 0; i < n_entries; i++) {
                pid_t tid = (pid_t)strtol(entries[i]->d_name, NULL, 10);

                free(entries[i]);
                if (n == n_max)
                        continue;
                (void)snprintf(path, sizeof(path), "task/%d/status", (int)tid);
                threads[n].tid = tid;
                threads[n].voluntary = proc_number(pid, path, "voluntary_ctxt_switches:");
                threads[n].involuntary = proc_number(pid, path, "nonvoluntary_ctxt_switches:");
                n++;
        }
        free(entries);
        return n;
}
