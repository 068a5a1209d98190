/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * For long: two daemons of the system, one that serves trees by fanotify and one that does so by inotify, and clients of
 * several users that come and go. Each client makes watches of all filters, has something happen to each, and is told; then
 * it closes its connection, or ends without, or is killed with a call under way, or does not read for a while and leaves
 * then what it has not read.
 *
 * Now and then all of them are gone, and what the daemons hold is compared with what they held at the first such time,
 * after the warm-up: processes, threads, descriptors, watches and marks of the kernel are as many as then. Memory is
 * allowed to grow by so much, and has a minute to come back: a leak does not.
 * Under the sanitizers memory says nothing: there the daemon itself tells of leaks as it ends.
 *
 * This one judges: its exit status is 0 only if nobody missed anything, and nothing was left behind.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "bench.h"
#include "holdings.h"

enum {
        DAEMONS = 2,
        WORKERS = 10, /* clients of each daemon at a time */
        FIRST_USER = 64210,
        USERS = 4,       /* and root, of whom the rest are */
        TOLD_MSEC = 60000,
        BACK_MSEC = 60000,
        MEMORY_BYTES = 8 * 1024 * 1024, /* that each daemon may need more than after the warm-up: the allocator's holes */
};

static long n_seconds = 3600, n_rests = 6;

static const struct bench_option options[] = {
        { "seconds", &n_seconds, 10, "all in all, about" },
        { "rests", &n_rests, 2, "times that all clients go, the first after the warm-up" },
};

/* Shared by all processes. */
struct tally {
        atomic_ullong lives, events, killed;
        atomic_bool has_failed;
        char failure[256];
};

static struct tally *tally;

struct place {
        struct bench bench; /* its daemon */
        const char *mechanism;
        pid_t workers[WORKERS];
        unsigned n_started;
        struct holdings first, last;
};

/* ---- a client ----------------------------------------------------------------------------------------------------- */

struct client {
        struct kev *kev;
        char directory[400]; /* its own, with a file and a directory in it */
        int pipe[2], event;
        bool in_namespace;
        unsigned life;
};

static _Noreturn _printf_(1, 2) void fail(const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        if (!atomic_exchange(&tally->has_failed, true))
                (void)vsnprintf(tally->failure, sizeof(tally->failure), format, arguments);
        va_end(arguments);
        _exit(1);
}

static void check(const struct client *c, int r, const char *what) {
        if (r < 0)
                fail("%s: %s", what, kev_error_message(c->kev));
}

static void check_system(bool ok, const char *what) {
        if (!ok)
                fail("%s: %s", what, strerror(errno));
}

/* What happens to one watch. */
typedef void act_fn(struct client *client);
typedef void describe_fn(struct client *client, struct kev_watch *watch);

static void change_file(struct client *c) {
        char path[512];
        int fd;

        (void)snprintf(path, sizeof(path), "%s/file", c->directory);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        check_system(fd >= 0 && write(fd, "x", 1) == 1, path);
        (void)close(fd);
}

static void describe_vnode(struct client *c, struct kev_watch *watch) {
        char path[512];

        change_file(c);
        (void)snprintf(path, sizeof(path), "%s/file", c->directory);
        (void)kev_watch_set_path(watch, path);
}

static void describe_tree(struct client *c, struct kev_watch *watch) {
        (void)kev_watch_set_path(watch, c->directory);
        (void)kev_watch_add_exclude(watch, "none-*");
        (void)kev_watch_set_list(watch, c->life % 3 == 0);
}

/* A directory is made, filled, moved and removed. */
static void change_tree(struct client *c) {
        char old[480], new[480], path[512];

        (void)snprintf(old, sizeof(old), "%s/old", c->directory);
        (void)snprintf(new, sizeof(new), "%s/new", c->directory);
        check_system(mkdir(old, 0700) == 0, old);
        for (int i = 0; i < 20; i++) {
                (void)snprintf(path, sizeof(path), "%s/%d", old, i);
                check_system(symlink("x", path) == 0, path);
        }
        check_system(rename(old, new) == 0, new);
        tree_remove(new);
}

static pid_t start_child(void) {
        pid_t pid = fork();

        check_system(pid >= 0, "fork");
        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        (void)pause();
        }
        return pid;
}

static pid_t child;

static void describe_process(struct client *c _unused_, struct kev_watch *watch) {
        child = start_child();
        (void)kev_watch_set_pid(watch, child);
}

static void end_child(struct client *c _unused_) {
        (void)kill(child, SIGTERM);
        (void)waitpid(child, NULL, 0);
}

static void describe_match(struct client *c _unused_, struct kev_watch *watch) {
        char name[16];

        (void)snprintf(name, sizeof(name), "soak-%d", (int)getpid());
        (void)kev_watch_set_match(watch, NULL, name, NULL, -1);
        (void)kev_watch_set_notes(watch, KEV_NOTE_EXIT | KEV_NOTE_FORK | KEV_NOTE_COMM);
}

static void name_and_end(struct client *c _unused_) {
        char name[16];
        pid_t pid;

        (void)snprintf(name, sizeof(name), "soak-%d", (int)getpid());
        pid = fork();
        check_system(pid >= 0, "fork");
        if (pid == 0) {
                (void)prctl(PR_SET_NAME, name);
                _exit(7);
        }
        (void)waitpid(pid, NULL, 0);
}

static void set_loopback(struct client *c _unused_) {
        struct ifreq request = { .ifr_name = "lo" };
        int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        check_system(fd >= 0 && ioctl(fd, SIOCGIFFLAGS, &request) == 0, "lo");
        request.ifr_flags ^= IFF_UP;
        check_system(ioctl(fd, SIOCSIFFLAGS, &request) == 0, "lo");
        (void)close(fd);
}

static void describe_device(struct client *c _unused_, struct kev_watch *watch) {
        (void)kev_watch_set_name(watch, "lo");
}

static void describe_read(struct client *c, struct kev_watch *watch) {
        check_system(pipe2(c->pipe, O_CLOEXEC | O_NONBLOCK) == 0, "pipe");
        check_system(kev_watch_set_fd(watch, c->pipe[0]) == 0, "a pipe");
}

static void write_pipe(struct client *c) {
        check_system(write(c->pipe[1], "x", 1) == 1, "a pipe");
}

static void describe_write(struct client *c, struct kev_watch *watch) {
        check_system(kev_watch_set_fd(watch, c->pipe[1]) == 0, "a pipe");
}

static void describe_poll(struct client *c, struct kev_watch *watch) {
        c->event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        check_system(kev_watch_set_fd(watch, c->event) == 0, "an eventfd");
        (void)kev_watch_set_notes(watch, KEV_NOTE_IN);
}

static void describe_aio(struct client *c, struct kev_watch *watch) {
        check_system(kev_watch_set_fd(watch, c->event) == 0, "an eventfd");
}

static void add_to_event(struct client *c) {
        check_system(write(c->event, &(uint64_t){ 1 }, sizeof(uint64_t)) == sizeof(uint64_t), "an eventfd");
}

static void describe_signal(struct client *c _unused_, struct kev_watch *watch) {
        (void)kev_watch_set_pid(watch, getpid());
        (void)kev_watch_set_data(watch, SIGUSR1);
}

static void send_signal(struct client *c _unused_) {
        (void)kill(getpid(), SIGUSR1);
}

static void describe_timer(struct client *c, struct kev_watch *watch) {
        (void)kev_watch_set_data(watch, 1 + c->life % 20);
}

static void describe_moment(struct client *c _unused_, struct kev_watch *watch) {
        struct timespec now;

        (void)clock_gettime(CLOCK_REALTIME, &now);
        (void)kev_watch_set_notes(watch, KEV_NOTE_ABSTIME | KEV_NOTE_MSEC);
        (void)kev_watch_set_data(watch, (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 + 15);
}

static void describe_name(struct client *c _unused_, struct kev_watch *watch) {
        (void)kev_watch_set_name(watch, "soak");
}

static void set_off(struct client *c) {
        check(c, kev_trigger(c->kev, "soak", 7), "kev_trigger");
}

static void do_nothing(struct client *c _unused_) {
}

static const struct {
        const char *name;
        enum kev_filter filter;
        describe_fn *describe;
        act_fn *act;
} sorts[] = {
        { "vnode", KEV_FILTER_VNODE, describe_vnode, change_file },
        { "tree", KEV_FILTER_TREE, describe_tree, change_tree },
        { "proc, one", KEV_FILTER_PROC, describe_process, end_child },
        { "proc, all that match", KEV_FILTER_PROC, describe_match, name_and_end },
        { "read", KEV_FILTER_READ, describe_read, write_pipe },
        { "write", KEV_FILTER_WRITE, describe_write, do_nothing },
        { "poll", KEV_FILTER_POLL, describe_poll, add_to_event },
        { "aio", KEV_FILTER_AIO, describe_aio, add_to_event },
        { "signal", KEV_FILTER_SIGNAL, describe_signal, send_signal },
        { "timer, a period", KEV_FILTER_TIMER, describe_timer, do_nothing },
        { "timer, a moment", KEV_FILTER_TIMER, describe_moment, do_nothing },
        { "user", KEV_FILTER_USER, describe_name, set_off },
        { "netdev", KEV_FILTER_NETDEV, describe_device, set_loopback }, /* the last: in a namespace of its own */
};

static void add_all(struct client *c, size_t n) {
        for (size_t i = 0; i < n; i++) {
                struct kev_watch *watch;

                check(c, kev_watch_new(sorts[i].filter, &watch), sorts[i].name);
                (void)kev_watch_set_id(watch, (int64_t)i);
                sorts[i].describe(c, watch);
                check(c, kev_add(c->kev, watch, NULL, NULL, NULL), sorts[i].name);
                (void)kev_watch_free(watch);
        }
}

/* Each is told at least once. */
static void expect_all(struct client *c, size_t n) {
        uint64_t end = now_nsec() + TOLD_MSEC * NSEC_PER_MSEC, told = 0;
        const struct kev_event *event;

        while (told != (UINT64_C(1) << n) - 1) {
                int r = kev_wait(c->kev, 1000, &event);

                check(c, r, "kev_wait");
                if (r > 0) {
                        told |= UINT64_C(1) << kev_event_id(event);
                        atomic_fetch_add(&tally->events, 1);
                }
                for (size_t i = 0; now_nsec() > end && i < n; i++)
                        if (!(told & UINT64_C(1) << i))
                                fail("%s: not told for %d s", sorts[i].name, TOLD_MSEC / 1000);
        }
}

static void take_some_away(struct client *c, size_t n) {
        for (size_t i = c->life % 2; i < n; i += 2)
                check(c, kev_remove(c->kev, (int64_t)i), "kev_remove");
}

/* One way to go, each time another. */
static _Noreturn void go(struct client *c, size_t n) {
        switch (c->life % 5) {
        case 0: /* does not read, and then leaves it all behind */
                for (size_t i = 0; i < n; i++)
                        if (sorts[i].act != end_child)
                                sorts[i].act(c);
                sleep_msec(200);
                break;
        case 1: /* killed, with a call under way */
                if (kev_wait(c->kev, 0, &(const struct kev_event *){ NULL }) >= 0) {
                        pid_t parent = getpid(), killer = fork();

                        if (killer == 0) {
                                (void)kill(parent, SIGKILL);
                                _exit(0);
                        }
                        for (;;)
                                change_file(c), (void)kev_trigger(c->kev, "soak", 1);
                }
                break;
        case 2:
                take_some_away(c, n);
                kev_close(c->kev);
                break;
        case 3:
                kev_close(c->kev);
                break;
        default: /* just ends */
                break;
        }
        _exit(0);
}

static _Noreturn void live(const struct place *place, unsigned worker, unsigned life, pid_t parent) {
        struct client c = { .life = life, .in_namespace = worker >= USERS };
        uid_t uid = worker < USERS ? FIRST_USER + worker : 0;
        size_t n = ARRAY_SIZE(sorts) - !c.in_namespace;
        sigset_t blocked;

        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)sigemptyset(&blocked);
        (void)sigaddset(&blocked, SIGUSR1);
        (void)sigprocmask(SIG_BLOCK, &blocked, NULL);
        (void)snprintf(c.directory, sizeof(c.directory), "%s/%s-%u", place->bench.directory, place->mechanism, worker);
        if (getppid() != parent)
                _exit(1);
        check_system(!c.in_namespace || unshare(CLONE_NEWNET) == 0, "a network namespace");
        tree_remove(c.directory);
        check_system(mkdir(c.directory, 0700) == 0 && chown(c.directory, uid, uid) == 0, c.directory);
        check_system(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0, "setresuid");
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* which other credentials have taken back */
        (void)prctl(PR_SET_DUMPABLE, 1);
        check(&c, kev_open(place->bench.address, &c.kev), "kev_open");
        add_all(&c, n);
        for (size_t i = 0; i < n; i++)
                sorts[i].act(&c);
        expect_all(&c, n);
        atomic_fetch_add(&tally->lives, 1);
        go(&c, n);
}

/* ---- all of them -------------------------------------------------------------------------------------------------- */

static void give_up_if_failed(void) {
        if (atomic_load(&tally->has_failed))
                bench_fail("after %llu lives: %s", (unsigned long long)tally->lives, tally->failure);
}

static void start_worker(struct place *place, unsigned worker) {
        pid_t parent = getpid();
        unsigned life = place->n_started++;

        place->workers[worker] = fork();
        bench_check_system(place->workers[worker] >= 0, "fork");
        if (place->workers[worker] == 0)
                live(place, worker, life, parent);
}

/* Those that have ended: children of killed workers are inherited, and are nobody's. Whether it was a worker. */
static bool reap_one(struct place *places, int options_of_wait, bool again) {
        int status;
        pid_t pid = waitpid(-1, &status, options_of_wait);

        if (pid <= 0)
                return false;
        for (size_t i = 0; i < DAEMONS; i++) {
                if (pid == places[i].bench.daemon)
                        bench_fail("the daemon with %s has ended: status 0x%x", places[i].mechanism, (unsigned)status);
                for (unsigned w = 0; w < WORKERS; w++)
                        if (places[i].workers[w] == pid) {
                                places[i].workers[w] = 0;
                                tally->killed += WIFSIGNALED(status);
                                if (again)
                                        start_worker(&places[i], w);
                        }
        }
        return true;
}

static bool has_workers(const struct place *places) {
        for (size_t i = 0; i < DAEMONS; i++)
                for (unsigned w = 0; w < WORKERS; w++)
                        if (places[i].workers[w] > 0)
                                return true;
        return false;
}

static void work(struct place *places, uint64_t end_nsec) {
        for (size_t i = 0; i < DAEMONS; i++)
                for (unsigned w = 0; w < WORKERS; w++)
                        start_worker(&places[i], w);
        while (now_nsec() < end_nsec) {
                give_up_if_failed();
                if (!reap_one(places, WNOHANG, true))
                        sleep_msec(1);
        }
        while (has_workers(places) && reap_one(places, 0, false))
                give_up_if_failed();
}

/* ---- what they hold ----------------------------------------------------------------------------------------------- */

static bool is_same(const struct holdings *a, const struct holdings *b) {
        return holdings_are_back(a, b) && holdings_are_back(b, a);
}

/* For as long as nothing changes any more. */
static struct holdings settle(pid_t daemon) {
        struct holdings before = holdings_read(daemon), now;
        uint64_t end = now_nsec() + BACK_MSEC * NSEC_PER_MSEC;
        int n_same = 0;

        while (n_same < 8 && now_nsec() < end) {
                sleep_msec(500); /* deputies stay for two seconds */
                now = holdings_read(daemon);
                n_same = is_same(&now, &before) ? n_same + 1 : 0;
                before = now;
        }
        return before;
}

static void print_holdings(const struct place *place, const char *when) {
        const struct holdings *h = &place->last;

        printf("%-9s %-10s %6zu %7zu %11zu %7zu %5zu %6zu %9.2f\n", place->mechanism, when, h->processes, h->threads,
               h->descriptors, h->watches, h->marks, h->polled, (double)h->heap_bytes / 1048576);
        (void)fflush(stdout);
}

static bool is_sanitized(void) {
#if defined(__SANITIZE_ADDRESS__)
        return true;
#else
        return false;
#endif
}

static _Noreturn void fail_for_rest(const struct place *p) {
        holdings_list(p->bench.daemon, stderr);
        bench_fail("%s: left behind: %s", p->mechanism, holdings_difference(&p->last, &p->first));
}

/* proc_pid_stat(5). */
static bool is_foreign_zombie(const char *pid) {
        char path[64], state = 0;
        FILE *file;
        int parent = 0;

        (void)snprintf(path, sizeof(path), "/proc/%.16s/stat", pid);
        file = pid[0] >= '0' && pid[0] <= '9' ? fopen(path, "re") : NULL;
        if (!file)
                return false;
        if (fscanf(file, "%*d (%*[^)]) %c %d", &state, &parent) != 2)
                state = 0;
        (void)fclose(file);
        return state == 'Z' && parent != getpid();
}

/* Processes that have ended, and that nobody has waited for: a daemon has a pidfd for each, until somebody does. */
static struct holdings with_foreign_zombies(struct holdings h) {
        DIR *directory = opendir("/proc");
        struct dirent *entry;

        bench_check_system(directory, "/proc");
        while ((entry = readdir(directory)))
                if (is_foreign_zombie(entry->d_name)) {
                        h.descriptors++;
                        h.polled++;
                }
        (void)closedir(directory);
        return h;
}

static bool has_more_memory(const struct place *p) {
        return !is_sanitized() && p->first.heap_bytes > 0 && p->last.heap_bytes > p->first.heap_bytes + MEMORY_BYTES;
}

/* It gives back what was freed once it is calm, and what others have done is known to it for a while. */
static void await_memory(struct place *p) {
        uint64_t end = now_nsec() + BACK_MSEC * NSEC_PER_MSEC;

        while (has_more_memory(p) && now_nsec() < end) {
                sleep_msec(500);
                p->last = holdings_read(p->bench.daemon);
        }
}

static void rest(struct place *places, long number) {
        char when[32];

        (void)snprintf(when, sizeof(when), number == 1 ? "warm" : "rest %ld", number);
        for (size_t i = 0; i < DAEMONS; i++) {
                struct place *p = &places[i];
                struct holdings most = with_foreign_zombies(p->first);

                if (number > 1 && holdings_wait_back(p->bench.daemon, &most, BACK_MSEC, &p->last) < 0)
                        fail_for_rest(p);
                p->last = settle(p->bench.daemon);
                if (number == 1)
                        most = p->first = p->last;
                await_memory(p);
                print_holdings(p, when);
                if (!holdings_are_back(&p->last, &most))
                        fail_for_rest(p);
                if (has_more_memory(p))
                        bench_fail("%s: %.2f MiB of memory more than after the warm-up", p->mechanism,
                                   (double)(p->last.heap_bytes - p->first.heap_bytes) / 1048576);
        }
}

static void run(struct bench *b) {
        static const char *const mechanisms[DAEMONS] = { "fanotify", "inotify" };
        uint64_t start = now_nsec();
        struct place *places _cleanup_(freep) = calloc(DAEMONS, sizeof(*places));

        if (geteuid() != 0)
                bench_fail("daemons of the system take root");
        tally = mmap(NULL, sizeof(*tally), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        bench_check_system(places && tally != MAP_FAILED && prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "memory");
        for (size_t i = 0; i < DAEMONS; i++) {
                places[i].mechanism = mechanisms[i];
                places[i].bench = *b;
                places[i].bench.system = true;
                (void)snprintf(places[i].bench.address, sizeof(places[i].bench.address), "unix:%s/%s", b->directory,
                               mechanisms[i]);
                bench_check_system(setenv("KEVD_FILE_MECHANISM", mechanisms[i], 1) == 0, "setenv");
                daemon_start(&places[i].bench);
        }
        printf("soak: %ld s, %d clients at a time\n%-9s %-10s %6s %7s %11s %7s %5s %6s %9s\n", n_seconds, DAEMONS * WORKERS,
               "", "", "procs", "threads", "descriptors", "watches", "marks", "polled", "heap MiB");
        for (long number = 1; number <= n_rests; number++) {
                work(places, start + (uint64_t)n_seconds * NSEC_PER_SEC * (uint64_t)number / (uint64_t)n_rests);
                rest(places, number);
        }
        printf("%llu lives, of which %llu ended by a signal, %llu events; nothing missed, nothing left behind\n",
               (unsigned long long)tally->lives, (unsigned long long)tally->killed, (unsigned long long)tally->events);
        for (size_t i = 0; i < DAEMONS; i++)
                daemon_stop(&places[i].bench);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "soak", "All filters, with clients that come and go, for long: nothing is missed or left behind.", options,
                ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
