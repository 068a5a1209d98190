/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What it costs the daemon to tell how every process of the machine ended, beside a bare reader of the process
 * connector that gathers for as long, and does nothing with what it reads.
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
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

enum { WRITERS = 2, BATCH = 64, MESSAGE_BYTES = 128, GATHER_USEC = 2000, BUFFER_BYTES = 16 * 1024 * 1024, REST_MSEC = 500 };

static long n_processes = 20000, rounds = 5;

static const struct bench_option options[] = {
        { "processes", &n_processes, WRITERS, "short ones, from two writers" },
        { "rounds", &rounds, 1, "of them" },
};

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

static void make_processes(long n) {
        for (long i = 0; i < n; i++) {
                pid_t child = fork();

                if (child == 0)
                        _exit(0);
                if (child > 0)
                        (void)waitpid(child, NULL, 0);
        }
}

static void storm_of_processes(void) {
        pid_t writers[WRITERS];

        for (size_t i = 0; i < WRITERS; i++) {
                writers[i] = fork();
                bench_check_system(writers[i] >= 0, "fork");
                if (writers[i] == 0) {
                        make_processes(n_processes / WRITERS);
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

static uint64_t measure_bare(void) {
        struct usage before, after;
        pid_t reader = fork();

        bench_check_system(reader >= 0, "fork");
        if (reader == 0)
                read_barely();
        sleep_msec(REST_MSEC);
        before = usage_read(reader);
        storm_of_processes();
        sleep_msec(REST_MSEC);
        after = usage_read(reader);
        (void)kill(reader, SIGKILL);
        (void)waitpid(reader, NULL, 0);
        return after.cpu_nsec - before.cpu_nsec;
}

/* ---- the daemon ------------------------------------------------------------------------------- */

struct reader {
        struct kev *kev;
        atomic_bool stop;
        uint64_t exits, lost;
};

static void *read_exits(void *argument) {
        struct reader *r = argument;
        const struct kev_event *event;

        while (!atomic_load(&r->stop))
                while (bench_check(kev_wait(r->kev, 100, &event), r->kev, "kev_wait") > 0) {
                        if (kev_event_notes(event) & KEV_NOTE_LOST)
                                r->lost += kev_event_count(event);
                        else
                                r->exits++;
                }
        return NULL;
}

struct round {
        uint64_t bare, daemon; /* CPU, ns */
        double ratio;
};

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
        round->ratio = (double)round->daemon / (double)round->bare;
        printf("the daemon %.0f ms of CPU, a bare reader %.0f ms (%.2f times); %" PRIu64 " exits + %" PRIu64
               " lost of %" PRIu64 " that the kernel counted\n",
               (double)round->daemon / 1e6, (double)round->bare / 1e6, round->ratio, reader.exits - exits, reader.lost - lost,
               forks);
}

static int compare_ratios(const void *a, const void *b) {
        const struct round *x = a, *y = b;

        return (x->ratio > y->ratio) - (x->ratio < y->ratio);
}

/* One after the other in each round: what else the machine does is about the same for both. */
static void run(struct bench *b) {
        struct round *all = calloc((size_t)rounds, sizeof(*all));

        bench_check_system(all != NULL, "memory");
        printf("exits: %ld processes from %d writers, %ld times\n", n_processes, WRITERS, rounds);
        for (long i = 0; i < rounds; i++) {
                all[i].bare = measure_bare();
                measure_daemon(b, &all[i]);
        }
        qsort(all, (size_t)rounds, sizeof(*all), compare_ratios);
        printf("%-34s %.2f times, from %.2f to %.2f\n", "the median", all[rounds / 2].ratio, all[0].ratio,
               all[rounds - 1].ratio);
        free(all);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "exits", "What it costs to tell how every process ended.", options, ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
