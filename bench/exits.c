/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What it costs the daemon to tell how every process of the machine ended, beside a bare reader of the process
 * connector that gathers for as long, and does nothing with what it reads, and beside forkstat(8), if that is there.
 * And what it costs to tell ten clients of ten thousand processes that each of them watches one by one.
 *
 * Complete is who was told of each process of the storm; of others there are more.
 */

#include <errno.h>
#include <inttypes.h>
#include <linux/cn_proc.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "result.h"
#include "wire.h"

enum {
        WRITERS = 2,
        BATCH = 64,
        MESSAGE_BYTES = 128,
        GATHER_USEC = 2000,
        BUFFER_BYTES = 16 * 1024 * 1024,
        REST_MSEC = 500,
        START_MSEC = 10000,
        PATIENCE_MSEC = 20000, /* nothing for so long, and what is missing is missing */
};

static long n_processes = 60000, n_watched = 10000, n_clients = 10, rounds = 5;

static const struct bench_option options[] = {
        { "processes", &n_processes, WRITERS, "short ones, from two writers" },
        { "watched", &n_watched, 1, "processes, each of them by each client" },
        { "clients", &n_clients, 1, "that watch those" },
        { "rounds", &rounds, 1, "of them" },
};

static pid_t *storm_pids; /* shared; of the last storm's processes, 0 where none could be made */

/* ---- who was told of ------------------------------------------------------------------------- */

struct told {
        pid_t *pids;
        size_t n, room;
};

static void told_add(struct told *told, pid_t pid) {
        if (told->n == told->room) {
                told->room = MAX(2 * told->room, (size_t)1024);
                told->pids = realloc(told->pids, told->room * sizeof(*told->pids));
                bench_check_system(told->pids, "realloc");
        }
        told->pids[told->n++] = pid;
}

static int compare_pids(const void *a, const void *b) {
        pid_t x = *(const pid_t *)a, y = *(const pid_t *)b;

        return (x > y) - (x < y);
}

/* How many of the last storm's processes are not among them. Forgets them. */
static size_t told_missing(struct told *told) {
        size_t missing = 0, k = 0;

        qsort(told->pids, told->n, sizeof(*told->pids), compare_pids);
        qsort(storm_pids, (size_t)n_processes, sizeof(*storm_pids), compare_pids);
        for (long i = 0; i < n_processes; i++) {
                if (storm_pids[i] == 0)
                        continue;
                while (k < told->n && told->pids[k] < storm_pids[i])
                        k++;
                if (k < told->n && told->pids[k] == storm_pids[i])
                        k++; /* a number that came twice has to be told twice */
                else
                        missing++;
        }
        free(told->pids);
        *told = (struct told){ 0 };
        return missing;
}

/* All forks since the boot (proc_stat(5)). */
static uint64_t count_forks(void) {
        FILE *file = fopen("/proc/stat", "re");
        char line[8192];
        uint64_t n = 0;

        bench_check_system(file != NULL, "/proc/stat");
        while (fgets(line, sizeof(line), file))
                if (sscanf(line, "processes %" SCNu64, &n) == 1)
                        break;
        (void)fclose(file);
        return n;
}

static void make_processes(pid_t *pids, long n) {
        for (long i = 0; i < n; i++) {
                pid_t child = fork();

                if (child == 0)
                        _exit(0);
                pids[i] = MAX(child, 0);
                if (child > 0)
                        (void)waitpid(child, NULL, 0);
        }
}

static void storm_of_processes(void) {
        pid_t writers[WRITERS];

        memset(storm_pids, 0, (size_t)n_processes * sizeof(*storm_pids));
        for (size_t i = 0; i < WRITERS; i++) {
                writers[i] = bench_fork();
                if (writers[i] == 0) {
                        make_processes(storm_pids + (long)i * (n_processes / WRITERS), n_processes / WRITERS);
                        _exit(0);
                }
        }
        for (size_t i = 0; i < WRITERS; i++)
                (void)waitpid(writers[i], NULL, 0);
}

/* ---- the bare reader ------------------------------------------------------------------------- */

static int listen_to_connector(void) {
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC };
        enum proc_cn_mcast_op op = PROC_CN_MCAST_LISTEN;
        struct nlmsghdr header = {
                .nlmsg_len = NLMSG_LENGTH(sizeof(struct cn_msg) + sizeof(op)), .nlmsg_type = NLMSG_DONE,
        };
        struct cn_msg cn = { .id = { CN_IDX_PROC, CN_VAL_PROC }, .len = sizeof(op) };
        struct iovec parts[] = { { &header, sizeof(header) }, { &cn, sizeof(cn) }, { &op, sizeof(op) } };
        int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_CONNECTOR), size = BUFFER_BYTES;

        bench_check_system(fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, "NETLINK_CONNECTOR");
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
                (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        bench_check_system(writev(fd, parts, ARRAY_SIZE(parts)) >= 0, "PROC_CN_MCAST_LISTEN");
        return fd;
}

static _Noreturn void read_barely(void) {
        static char messages[BATCH][MESSAGE_BYTES];
        static struct mmsghdr headers[BATCH];
        static struct iovec parts[BATCH];
        int fd = listen_to_connector();

        for (size_t i = 0; i < BATCH; i++) {
                parts[i] = (struct iovec){ messages[i], MESSAGE_BYTES };
                headers[i].msg_hdr = (struct msghdr){ .msg_iov = &parts[i], .msg_iovlen = 1 };
        }
        for (;;) {
                struct pollfd p = { .fd = fd, .events = POLLIN };

                (void)poll(&p, 1, -1);
                (void)usleep(GATHER_USEC);
                while (recvmmsg(fd, headers, BATCH, MSG_DONTWAIT, NULL) > 0 || errno == ENOBUFS)
                        errno = 0;
        }
}

/* What lies in the process's socket of the connector, as /proc/net/netlink says; less than 0: it has none. */
static long queued_for(pid_t pid) {
        FILE *file = fopen("/proc/net/netlink", "re");
        char line[256];
        long queued = -1;

        bench_check_system(file, "/proc/net/netlink");
        while (fgets(line, sizeof(line), file)) {
                unsigned protocol, port, groups;
                long bytes;

                if (sscanf(line, "%*s %u %u %x %ld", &protocol, &port, &groups, &bytes) == 4 &&
                    protocol == NETLINK_CONNECTOR && port == (unsigned)pid && groups != 0)
                        queued = bytes;
        }
        (void)fclose(file);
        return queued;
}

/* Until it listens. */
static void wait_for_listener(pid_t pid) {
        uint64_t deadline = now_nsec() + START_MSEC * NSEC_PER_MSEC;

        while (queued_for(pid) < 0) {
                if (now_nsec() > deadline || waitpid(pid, NULL, WNOHANG) != 0)
                        bench_fail("nobody listens to the process connector");
                sleep_msec(2);
        }
}

/* Until it has read what there is. */
static void wait_for_reader(pid_t pid) {
        uint64_t deadline = now_nsec() + START_MSEC * NSEC_PER_MSEC;

        sleep_msec(REST_MSEC);
        while (queued_for(pid) > 0 && now_nsec() < deadline)
                sleep_msec(REST_MSEC);
}

static uint64_t measure_bare(uint64_t *ret_forks) {
        struct usage before, after;
        pid_t reader = bench_fork();
        uint64_t forks;

        if (reader == 0)
                read_barely();
        wait_for_listener(reader);
        before = usage_read(reader);
        forks = count_forks();
        storm_of_processes();
        wait_for_reader(reader);
        after = usage_read(reader);
        *ret_forks = count_forks() - forks;
        (void)kill(reader, SIGKILL);
        (void)waitpid(reader, NULL, 0);
        return after.cpu_nsec - before.cpu_nsec;
}

/* ---- forkstat --------------------------------------------------------------------------------- */

static bool has_forkstat(void) {
        return access("/usr/bin/forkstat", X_OK) == 0 || access("/usr/sbin/forkstat", X_OK) == 0;
}

/* Its lines: time, "exit", the process, and more. */
static void take_line(struct told *told, const char *line) {
        int pid;

        if (sscanf(line, "%*s exit %d", &pid) == 1)
                told_add(told, pid);
}

static void *read_lines(void *argument) {
        struct told *told = ((void **)argument)[0];
        FILE *file = ((void **)argument)[1];
        char line[512];

        while (fgets(line, sizeof(line), file))
                take_line(told, line);
        (void)fclose(file);
        return NULL;
}

/* Through a pipe, which it fills as it likes. Returns its CPU time. */
static uint64_t measure_forkstat(size_t *ret_missing, uint64_t *ret_forks) {
        struct told told = { 0 };
        void *argument[2] = { &told };
        uint64_t cpu, forks;
        pthread_t thread;
        int fds[2];
        pid_t child;

        bench_check_system(pipe(fds) == 0, "pipe");
        child = bench_fork();
        if (child == 0) {
                (void)dup2(fds[1], STDOUT_FILENO);
                (void)close(fds[0]);
                (void)close(fds[1]);
                (void)execlp("forkstat", "forkstat", "-e", "exit", (char *)NULL);
                _exit(127);
        }
        (void)close(fds[1]);
        argument[1] = fdopen(fds[0], "r");
        bench_check_system(argument[1] && pthread_create(&thread, NULL, read_lines, argument) == 0, "a thread");
        wait_for_listener(child);
        cpu = usage_read(child).cpu_nsec;
        forks = count_forks();
        storm_of_processes();
        wait_for_reader(child);
        cpu = usage_read(child).cpu_nsec - cpu;
        *ret_forks = count_forks() - forks;
        (void)kill(child, SIGINT); /* it writes what it still has */
        (void)waitpid(child, NULL, 0);
        (void)pthread_join(thread, NULL);
        *ret_missing = told_missing(&told);
        return cpu;
}

/* ---- the daemon ------------------------------------------------------------------------------- */

struct reader {
        struct kev *kev;
        atomic_bool stop;
        uint64_t exits, lost;
        struct told told;
};

static void *read_exits(void *argument) {
        struct reader *r = argument;
        const struct kev_event *event;

        while (!atomic_load(&r->stop))
                while (bench_check(kev_wait(r->kev, 100, &event), r->kev, "kev_wait") > 0) {
                        pid_t pid = 0;

                        if (kev_event_notes(event) & KEV_NOTE_LOST)
                                r->lost += kev_event_count(event);
                        else
                                r->exits++;
                        if (kev_event_pid(event, &pid) == 0)
                                told_add(&r->told, pid);
                }
        return NULL;
}

struct round {
        uint64_t bare, daemon, forkstat; /* CPU, ns */
        /* Meanwhile, those of others too: what each costs is what is compared, or others would count. */
        uint64_t bare_forks, daemon_forks, forkstat_forks;
        size_t missing, forkstat_missing;
        double ratio;
};

static double a_process_usec(uint64_t cpu_nsec, uint64_t forks) {
        return (double)cpu_nsec / (double)MAX(forks, (uint64_t)1) / 1e3;
}

static void measure_daemon(struct bench *b, struct round *round) {
        struct reader reader = { 0 };
        struct kev_watch *watch;
        struct usage before, after;
        pthread_t thread;
        uint64_t forks, exits, lost;

        daemon_start(b);
        reader.kev = client_open(b);
        bench_check(kev_watch_new_from_json("{\"filter\":\"proc\",\"match\":{}}", &watch, NULL), NULL, "the watch");
        bench_check(kev_add(reader.kev, watch, NULL, NULL, NULL), reader.kev, "the watch");
        kev_watch_free(watch);
        bench_check_system(pthread_create(&thread, NULL, read_exits, &reader) == 0, "a thread");
        sleep_msec(REST_MSEC);
        before = usage_read(b->daemon);
        forks = count_forks();
        exits = reader.exits;
        lost = reader.lost;
        storm_of_processes();
        sleep_msec(REST_MSEC);
        after = usage_read(b->daemon);
        forks = count_forks() - forks;
        atomic_store(&reader.stop, true);
        (void)pthread_join(thread, NULL);
        kev_close(reader.kev);
        daemon_stop(b);
        round->daemon = after.cpu_nsec - before.cpu_nsec;
        round->daemon_forks = forks;
        round->ratio = a_process_usec(round->daemon, forks) / a_process_usec(round->bare, round->bare_forks);
        round->missing = told_missing(&reader.told);
        printf("the daemon %.0f ms of CPU, %.2f us a process, a bare reader %.0f ms, %.2f us (%.2f times); %" PRIu64
               " exits + %" PRIu64 " lost of %" PRIu64 " that the kernel counted; %zu of the storm's are missing\n",
               (double)round->daemon / 1e6, a_process_usec(round->daemon, forks), (double)round->bare / 1e6,
               a_process_usec(round->bare, round->bare_forks), round->ratio, reader.exits - exits, reader.lost - lost,
               forks, round->missing);
}

/* ---- many that are watched one by one ----------------------------------------------------------- */

struct watcher {
        struct wire wire;
        bool *told; /* of each process */
        size_t n_told, n_wrong;
};

/* How many a message has. */
static size_t note_ends(struct watcher *w, const char *message) {
        size_t n = 0;

        for (const char *p = message; (p = strstr(p, "\"id\":")); p++) {
                long id = strtol(p + 5, NULL, 10);
                bool right = id >= 0 && id < n_watched && !w->told[id];

                w->n_wrong += !right;
                if (right) {
                        w->told[id] = true;
                        n++;
                }
        }
        w->n_told += n;
        return n;
}

/* What the clients were told, all together, until there is nothing more. */
static uint64_t take_ends(struct watcher *watchers) {
        struct pollfd *polled = calloc((size_t)n_clients, sizeof(*polled));
        size_t n = 0, all = (size_t)n_clients * (size_t)n_watched;
        uint64_t last = now_nsec();

        bench_check_system(polled, "calloc");
        for (long i = 0; i < n_clients; i++)
                polled[i] = (struct pollfd){ .fd = watchers[i].wire.fd, .events = POLLIN };
        while (n < all && poll(polled, (nfds_t)n_clients, PATIENCE_MSEC) > 0)
                for (long i = 0; i < n_clients; i++) {
                        const char *message;

                        /* All that was read: poll(2) tells of no message that is here already. */
                        while (polled[i].revents && (message = wire_receive(&watchers[i].wire, 0))) {
                                n += note_ends(&watchers[i], message);
                                last = now_nsec();
                        }
                }
        free(polled);
        return last;
}

static void watch_all(struct watcher *w, const struct bench *b, const pid_t *pids) {
        enum { A_CALL = 500, WATCH = 100 };
        char *text = malloc(A_CALL * WATCH + 200);

        bench_check_system(text, "malloc");
        w->told = calloc((size_t)n_watched, sizeof(*w->told));
        bench_check_system(w->told, "calloc");
        wire_open(&w->wire, wire_path(b));
        for (long i = 0; i < n_watched;) {
                int size = sprintf(text, "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[");

                for (long k = 0; k < A_CALL && i < n_watched; k++, i++)
                        size += snprintf(text + size, WATCH,
                                         "%s{\"id\":%ld,\"filter\":\"proc\",\"notes\":[\"exit\"],\"pid\":%d}",
                                         k > 0 ? "," : "", i, (int)pids[i]);
                size += sprintf(text + size, "]}}");
                (void)wire_call(&w->wire, text, (size_t)size);
        }
        free(text);
        wire_send(&w->wire, "{\"method\":\"org.kevd.events.Wait\",\"more\":true}",
                  strlen("{\"method\":\"org.kevd.events.Wait\",\"more\":true}"));
}

enum watched_metric { WATCHED_BYTES, WATCHED_ADD, WATCHED_CPU, WATCHED_LAST, WATCHED_METRICS };

/* Whether all were told, once. */
static bool measure_watched(struct bench *b, double *figures) {
        struct watcher *watchers = calloc((size_t)n_clients, sizeof(*watchers));
        pid_t *pids = calloc((size_t)n_watched, sizeof(*pids));
        double all = (double)n_clients * (double)n_watched;
        bool whole = true;
        struct usage before;
        uint64_t start_nsec;

        bench_check_system(watchers && pids, "calloc");
        for (long i = 0; i < n_watched; i++) {
                pids[i] = bench_fork();
                if (pids[i] == 0)
                        for (;;)
                                (void)pause();
        }
        daemon_start(b);
        before = usage_read(b->daemon);
        start_nsec = now_nsec();
        for (long i = 0; i < n_clients; i++)
                watch_all(&watchers[i], b, pids);
        figures[WATCHED_ADD] = (double)(now_nsec() - start_nsec) / 1e6;
        figures[WATCHED_BYTES] = (double)(usage_read(b->daemon).private_bytes - before.private_bytes) / all;
        before = usage_read(b->daemon);
        start_nsec = now_nsec();
        for (long i = 0; i < n_watched; i++)
                (void)kill(pids[i], SIGKILL);
        figures[WATCHED_LAST] = (double)(take_ends(watchers) - start_nsec) / 1e6;
        figures[WATCHED_CPU] = (double)(usage_read(b->daemon).cpu_nsec - before.cpu_nsec) / all / 1e3;
        for (long i = 0; i < n_watched; i++)
                (void)waitpid(pids[i], NULL, 0);
        for (long i = 0; i < n_clients; i++) {
                whole &= watchers[i].n_told == (size_t)n_watched && watchers[i].n_wrong == 0;
                wire_close(&watchers[i].wire);
                free(watchers[i].told);
        }
        daemon_stop(b);
        free(pids);
        free(watchers);
        return whole;
}

static bool has_room_for_processes(void) {
        struct rlimit limit;

        bench_check_system(getrlimit(RLIMIT_NPROC, &limit) == 0, "getrlimit");
        return limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur > (rlim_t)n_watched * 2;
}

static void run_watched(struct bench *b) {
        static const struct {
                const char *name, *unit;
        } metrics[WATCHED_METRICS] = {
                [WATCHED_BYTES] = { "bytes a watch", "bytes" }, [WATCHED_ADD] = { "all added in", "ms" },
                [WATCHED_CPU] = { "CPU a client and end", "us" }, [WATCHED_LAST] = { "last told after", "ms" },
        };
        double *values = calloc((size_t)rounds * WATCHED_METRICS, sizeof(*values)), figures[WATCHED_METRICS];
        char variant[80];
        bool whole = true;

        bench_check_system(values, "calloc");
        (void)snprintf(variant, sizeof(variant), "%ld processes watched by %ld clients", n_watched, n_clients);
        if (!has_room_for_processes()) {
                printf("%s: skipped, the user may not have so many (RLIMIT_NPROC)\n", variant);
                free(values);
                return;
        }
        for (long i = 0; i < rounds; i++) {
                whole &= measure_watched(b, figures);
                for (size_t m = 0; m < WATCHED_METRICS; m++)
                        values[m * (size_t)rounds + (size_t)i] = figures[m];
                printf("%s: %.0f bytes a watch, added in %.0f ms; %.2f us of CPU a client and end, the last after "
                       "%.0f ms%s\n", variant, figures[WATCHED_BYTES], figures[WATCHED_ADD], figures[WATCHED_CPU],
                       figures[WATCHED_LAST],
                       whole ? "" : "; WRONG: some are missing");
                (void)fflush(stdout);
        }
        for (size_t m = 0; m < WATCHED_METRICS; m++)
                result_write(&(struct result){
                        .workload = "exits", .program = "kevd", .variant = variant, .metric = metrics[m].name,
                        .unit = metrics[m].unit, .x = (double)n_watched, .values = values + m * (size_t)rounds,
                        .n = (size_t)rounds, .completeness = whole ? COMPLETENESS_WHOLE : COMPLETENESS_MISSING,
                });
        free(values);
}

/* ---- all ------------------------------------------------------------------------------------------ */

static void write_storm(const struct round *all) {
        double *values = calloc(3 * (size_t)rounds, sizeof(*values)), *floor = values + rounds, *peer = floor + rounds;
        struct result result = {
                .workload = "exits", .variant = "storm", .metric = "CPU a process", .unit = "us",
                .x = (double)n_processes, .n = (size_t)rounds,
        };
        bool whole = true, peer_whole = true;

        bench_check_system(values, "calloc");
        for (long i = 0; i < rounds; i++) {
                values[i] = a_process_usec(all[i].daemon, all[i].daemon_forks);
                floor[i] = a_process_usec(all[i].bare, all[i].bare_forks);
                peer[i] = a_process_usec(all[i].forkstat, all[i].forkstat_forks);
                whole &= all[i].missing == 0;
                peer_whole &= all[i].forkstat_missing == 0;
        }
        result.program = "floor";
        result.values = floor;
        result_write(&result);
        result.program = "kevd";
        result.values = values;
        result.floor = floor;
        result.completeness = whole ? COMPLETENESS_WHOLE : COMPLETENESS_MISSING;
        result_write(&result);
        result.program = "forkstat";
        result.values = peer;
        result.completeness = peer_whole ? COMPLETENESS_WHOLE : COMPLETENESS_MISSING;
        if (has_forkstat())
                result_write(&result);
        free(values);
}

static int compare_ratios(const void *a, const void *b) {
        const struct round *x = a, *y = b;

        return (x->ratio > y->ratio) - (x->ratio < y->ratio);
}

/* One after the other in each round: what else the machine does is about the same for both. */
static void run(struct bench *b) {
        struct round *all = calloc((size_t)rounds, sizeof(*all));

        bench_check_system(all != NULL, "memory");
        n_processes -= n_processes % WRITERS;
        storm_pids = mmap(NULL, (size_t)n_processes * sizeof(*storm_pids), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        bench_check_system(storm_pids != MAP_FAILED, "mmap");
        daemon_raise_limits(b, "process-feed = connector\n"); /* as the bare reader */
        printf("exits: %ld processes from %d writers, %ld times\n", n_processes, WRITERS, rounds);
        for (long i = 0; i < rounds; i++) {
                all[i].bare = measure_bare(&all[i].bare_forks);
                measure_daemon(b, &all[i]);
                if (has_forkstat()) {
                        all[i].forkstat = measure_forkstat(&all[i].forkstat_missing, &all[i].forkstat_forks);
                        printf("forkstat %.0f ms of CPU, %.2f us a process; %zu of the storm's are missing\n",
                               (double)all[i].forkstat / 1e6, a_process_usec(all[i].forkstat, all[i].forkstat_forks),
                               all[i].forkstat_missing);
                }
                (void)fflush(stdout);
        }
        if (!has_forkstat())
                printf("forkstat is not there: skipped\n");
        write_storm(all);
        qsort(all, (size_t)rounds, sizeof(*all), compare_ratios);
        printf("%-34s %.2f times, from %.2f to %.2f\n", "the median", all[rounds / 2].ratio, all[0].ratio,
               all[rounds - 1].ratio);
        free(all);
        run_watched(b);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "exits", "What it costs to tell how every process ended.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
