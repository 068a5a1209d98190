/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What clients that mean harm cost others: each kind of them (tests/hostile.c), a thousand at a time and of a user of
 * their own, beside a client of another user that behaves (tests/witness.c). The daemon is the system's. A bare relay
 * (relay.h) runs beside it all the while: by how much it gets slower is what the machine does to anybody.
 *
 * Each kind comes twice to the same daemon: what it holds afterwards is compared with what it held before, and memory
 * that was given back to the allocator and not to the system is told from a leak by the second time, which needs no more.
 */

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "bench.h"
#include "holdings.h"
#include "hostile.h"
#include "relay.h"
#include "silent.h"
#include "witness.h"

enum { HOSTILE_USER = 64200, WITNESS_USER_ID = 64201, BACK_MSEC = 180000 };

static long n_clients = 1000, n_seconds = 5, only = 0, apart = 1;

static const struct bench_option options[] = {
        { "clients", &n_clients, 1, "hostile ones" },
        { "seconds", &n_seconds, 1, "without, and twice with each kind" },
        { "only", &only, 0, "one kind, by its number; 0: all" },
        { "apart", &apart, 0, "0: the hostile ones also take what the daemon and who behaves have of the processors" },
};

struct span {
        uint64_t from_nsec, to_nsec;
};

struct run {
        struct holdings before, after[2];
        int back_msec[2];
        size_t descriptors; /* at most */
        struct span without, with[2];
        struct usage start, end;
};

/* From here on this process, and whom it starts, is on the last processor, or on all the others. */
static void keep_to_processors(bool last) {
        static cpu_set_t all;
        cpu_set_t some;
        int n_left;

        if (CPU_COUNT(&all) == 0)
                bench_check_system(sched_getaffinity(0, sizeof(all), &all) == 0, "sched_getaffinity");
        n_left = CPU_COUNT(&all);
        CPU_ZERO(&some);
        for (int i = 0; i < CPU_SETSIZE; i++)
                if (CPU_ISSET(i, &all) && (--n_left == 0) == last)
                        CPU_SET(i, &some);
        bench_check_system(CPU_COUNT(&some) > 0, "one processor is too few, see --apart");
        bench_check_system(sched_setaffinity(0, sizeof(some), &some) == 0, "sched_setaffinity");
}

/* Who behaves uses little, and is not to wait for whoever else runs where it does. */
static void run_first(pid_t pid) {
        const struct sched_param priority = { .sched_priority = 1 };
        char path[64];
        struct dirent *entry;
        DIR *threads;

        (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        threads = opendir(path);
        bench_check_system(threads, path);
        while ((entry = readdir(threads)))
                if (entry->d_name[0] != '.')
                        (void)sched_setscheduler((pid_t)strtol(entry->d_name, NULL, 10), SCHED_RR, &priority);
        (void)closedir(threads);
}

static double mib(uint64_t bytes) {
        return (double)bytes / 1048576;
}

static struct span watch_for(struct bench *b, size_t *descriptors) {
        struct span span = { .from_nsec = now_nsec() };
        uint64_t end = span.from_nsec + (uint64_t)n_seconds * NSEC_PER_SEC;

        while ((span.to_nsec = now_nsec()) < end) {
                *descriptors = MAX(*descriptors, holdings_descriptors(b->daemon));
                sleep_msec(10);
        }
        return span;
}

static char *make_own_directory(struct bench *b, const char *name, unsigned kind, uid_t uid) {
        char *path = bench_path(b, "%s-%u", name, kind);

        bench_check_system(mkdir(path, 0700) == 0 && chown(path, uid, uid) == 0, path);
        return path;
}

/* ---- the figures -------------------------------------------------------------------------------------------------- */

struct latencies {
        uint64_t p50, p99, max;
};

/* Of the witness, or, where that is NULL, of the relay. */
static struct latencies latencies_of(const struct witness *witness, enum witness_kind kind, const struct relay *relay,
                                     const struct span *spans, size_t n_spans) {
        enum { MANY = 200000 };
        uint64_t *all _cleanup_(freep) = calloc(MANY, sizeof(*all));
        size_t n = 0;

        bench_check_system(all, "calloc");
        for (size_t i = 0; i < n_spans; i++)
                n += witness ? witness_latencies(witness, kind, spans[i].from_nsec, spans[i].to_nsec, all + n, MANY - n) :
                               relay_latencies(relay, spans[i].from_nsec, spans[i].to_nsec, all + n, MANY - n);
        sort_u64(all, n);
        return (struct latencies){ percentile(all, n, 0.5), percentile(all, n, 0.99), n > 0 ? all[n - 1] : 0 };
}

static void print_latencies(const struct witness *witness, enum witness_kind kind, const struct relay *relay,
                            const struct run *run) {
        static const char *const names[WITNESS_KINDS] = { "tree", "user", "timer" };
        struct latencies without = latencies_of(witness, kind, relay, &run->without, 1);
        struct latencies with = latencies_of(witness, kind, relay, run->with, ARRAY_SIZE(run->with));

        printf("  %-6s %9.3f %9.3f %9.3f  %9.3f %9.3f %9.3f %8.1f\n", witness ? names[kind] : "bare", (double)without.p50 / 1e6,
               (double)without.p99 / 1e6, (double)without.max / 1e6, (double)with.p50 / 1e6, (double)with.p99 / 1e6,
               (double)with.max / 1e6, without.p99 > 0 ? (double)with.p99 / (double)without.p99 : 0);
}

static void print_back(const struct run *run, int round) {
        if (run->back_msec[round] >= 0)
                printf("all after %.1f s", run->back_msec[round] / 1e3);
        else
                printf("NOT %s", holdings_difference(&run->after[round], &run->before));
}

static void print_run(const struct hostile_kind *kind, const struct run *run, const struct witness *witness,
                      const struct relay *relay, const struct witness_result *result) {
        printf("\n%s: %s\n", kind->name, kind->purpose);
        printf("  %-6s %29s  %29s %8s\n", "", "msec without: p50, p99, max", "with: p50, p99, max", "p99 x");
        for (int k = 0; k < WITNESS_KINDS; k++)
                print_latencies(witness, (enum witness_kind)k, relay, run);
        print_latencies(NULL, 0, relay, run);
        printf("  events %" PRIu64 ", missing %" PRIu64 "%s, odd %" PRIu64 "%s%s\n", result->expected, result->missing,
               result->lacks, result->odd, result->error[0] ? "; " : "", result->error);
        printf("  at most %zu descriptors, %.1f MiB; CPU %.2f s\n", run->descriptors, mib(run->end.peak_rss_bytes),
               (double)(run->end.cpu_nsec - run->start.cpu_nsec) / 1e9);
        printf("  given back: ");
        print_back(run, 0);
        printf("; the second time ");
        print_back(run, 1);
        printf("\n  memory, MiB: before %.1f, after %.1f, after the second time %.1f\n", mib(run->before.heap_bytes),
               mib(run->after[0].heap_bytes), mib(run->after[1].heap_bytes));
        (void)fflush(stdout);
}

/* ---- one kind ----------------------------------------------------------------------------------------------------- */

static void come(struct bench *b, const struct hostile_kind *kind, const struct hostile_place *place, struct run *run,
                 int round) {
        pid_t leader;

        if (apart)
                keep_to_processors(true);
        leader = hostile_start(kind, place, HOSTILE_USER, (unsigned)n_clients);
        if (apart)
                keep_to_processors(false);
        if (leader < 0)
                bench_fail("%s can't be started: %s", kind->name, strerror(-(int)leader));
        run->with[round] = watch_for(b, &run->descriptors);
        hostile_end(leader);
        run->back_msec[round] = holdings_wait_back(b->daemon, &run->before, BACK_MSEC, &run->after[round]);
}

static void run_kind(struct bench *b, unsigned number, const char *silent) {
        const struct hostile_kind *kind = &hostile_kinds[number];
        char *theirs _cleanup_(freep) = make_own_directory(b, "hostile", number, HOSTILE_USER);
        char *own _cleanup_(freep) = make_own_directory(b, "witness", number, WITNESS_USER_ID);
        struct hostile_place place = { .socket = b->address + strlen("unix:"), .directory = theirs, .silent = silent };
        struct witness_result result = { 0 };
        char *bare _cleanup_(freep) = make_own_directory(b, "bare", number, 0);
        struct run run = { 0 };
        struct witness witness;
        struct relay relay;

        if (apart)
                keep_to_processors(false);
        daemon_start(b);
        if (witness_start(&witness, b->address, own, WITNESS_USER_ID) < 0)
                bench_fail("the witness: %s", witness_end(&witness).error);
        relay_start(&relay, bare);
        if (apart) {
                run_first(witness.pid);
                run_first(relay.client);
        }
        sleep_msec(500);
        run.start = usage_read(b->daemon);
        run.without = watch_for(b, &run.descriptors);
        run.before = holdings_read(b->daemon);
        come(b, kind, &place, &run, 0);
        come(b, kind, &place, &run, 1);
        run.end = usage_read(b->daemon);
        result = witness_end(&witness);
        print_run(kind, &run, &witness, &relay, &result);
        witness_free(&witness);
        relay_end(&relay);
        daemon_stop(b);
}

static void run(struct bench *b) {
        char *silent _cleanup_(freep) = bench_path(b, "silent");
        pid_t server;

        if (geteuid() != 0)
                bench_fail("other users take root");
        bench_check_system(unshare(CLONE_NEWNS) == 0 && mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0,
                           "a mount namespace");
        bench_check_system(mkdir(silent, 0755) == 0, silent);
        server = silent_mount(silent);
        if (server < 0)
                printf("no file system of FUSE: %s\n", strerror(-(int)server));
        b->system = true;
        printf("hostile: %ld clients of each kind, beside one that behaves; trees by %s%s\n", n_clients,
               bench_is_on_fanotify() ? "fanotify" : "inotify",
               apart ? "; on a processor of their own" : "");
        for (unsigned i = 0; i < n_hostile_kinds; i++)
                if ((only == 0 || only == (long)i + 1) && (server > 0 || strcmp(hostile_kinds[i].name, "silent-paths") != 0))
                        run_kind(b, i, silent);
        if (server > 0)
                silent_end(server, silent);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "hostile", "What clients that mean harm cost one that behaves, and the daemon.", options,
                ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
