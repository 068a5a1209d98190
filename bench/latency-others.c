/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How long it takes until a program's callback hears of what is no file: a process that ends, a network device that
 * changes, a timer. One at a time: each waits for the one before.
 *
 * The floor is a reader in the program itself: a pidfd, a netlink socket, a timerfd, with poll(2) and one read. For
 * devices there is `ip monitor link` through a pipe as well. The device is one of a network namespace that the
 * benchmark and its daemon live in; its MTU changes, which is one message of the kernel's each time.
 */

#include <errno.h>
#include <inttypes.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "result.h"

enum {
        PATIENCE_MSEC = 10000, /* later it is missing */
        LEAD_USEC = 3000,      /* from setting a timer to its moment */
        MTU_MIN = 1000,
        MTUS = 400,
};

static long n_events = 2000, rounds = 5;

static const struct bench_option options[] = {
        { "events", &n_events, 10, "of each kind, and reader" },
        { "rounds", &rounds, 1, "of all" },
};

static const char device[] = "kevd0";

/* What a reader needs while it is measured. */
struct reader {
        const struct bench *bench;
        struct kev *kev;
        int fd;
        pid_t pid; /* of ip(8) */
        FILE *pipe;
        int control; /* a socket by which devices are changed */
        long mtu;
};

/* What the handler saw last. */
static uint64_t heard_nsec;
static int64_t heard_figure;

enum { MISSING = 0, AGAIN = 1 }; /* instead of a latency */

static uint64_t realtime_nsec(void) {
        struct timespec t = { 0 };

        (void)clock_gettime(CLOCK_REALTIME, &t);
        return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static bool wait_readable(int fd) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int r;

        do
                r = poll(&p, 1, PATIENCE_MSEC);
        while (r < 0 && errno == EINTR);
        return r > 0;
}

static uint64_t since(uint64_t start, uint64_t end) {
        return MAX(end - MIN(start, end), (uint64_t)AGAIN + 1);
}

static void open_client(struct reader *r) {
        r->kev = client_open(r->bench);
}

static void close_client(struct reader *r) {
        kev_close(r->kev);
}

static void open_nothing(struct reader *r _unused_) {
}

/* ---- processes -------------------------------------------------------------------------------- */

static _Atomic uint64_t *ended_nsec; /* shared: when the process was about to end */

/* It ends when `ret_go` is closed. */
static pid_t start_process(int *ret_go) {
        pid_t child;
        int fds[2];
        char byte;

        bench_check_system(pipe(fds) == 0, "pipe");
        child = bench_fork();
        if (child == 0) {
                (void)close(fds[1]);
                (void)!read(fds[0], &byte, 1);
                *ended_nsec = now_nsec();
                _exit(EXIT_SUCCESS);
        }
        (void)close(fds[0]);
        *ret_go = fds[1];
        return child;
}

static uint64_t hear_exit_by_pidfd(struct reader *r _unused_) {
        int go, pidfd;
        pid_t pid = start_process(&go);
        uint64_t end;
        bool heard;

        pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        bench_check_system(pidfd >= 0, "pidfd_open");
        (void)close(go);
        heard = wait_readable(pidfd);
        end = now_nsec();
        (void)waitpid(pid, NULL, 0);
        (void)close(pidfd);
        return heard ? since(*ended_nsec, end) : MISSING;
}

static void on_exit_event(struct kev *kev _unused_, const struct kev_event *event, void *userdata _unused_) {
        pid_t pid = 0;

        heard_nsec = now_nsec();
        (void)kev_event_pid(event, &pid);
        heard_figure = pid;
}

static uint64_t hear_exit_by_kevd(struct reader *r) {
        struct kev_watch *watch;
        int64_t id;
        int go;
        pid_t pid = start_process(&go);

        if (kev_watch_new(KEV_FILTER_PROC, &watch) < 0 || kev_watch_set_pid(watch, pid) < 0 ||
            kev_watch_set_notes(watch, KEV_NOTE_EXIT) < 0)
                bench_fail("no such watch can be");
        (void)bench_check(kev_add(r->kev, watch, on_exit_event, NULL, &id), r->kev, "watching a process");
        kev_watch_free(watch);
        heard_figure = 0;
        (void)close(go);
        while (heard_figure != pid && bench_check(kev_dispatch(r->kev, PATIENCE_MSEC), r->kev, "kev_dispatch") > 0)
                ;
        (void)waitpid(pid, NULL, 0);
        (void)kev_remove(r->kev, id);
        return heard_figure == pid ? since(*ended_nsec, heard_nsec) : MISSING;
}

/* ---- devices ---------------------------------------------------------------------------------- */

/* To another MTU than it has. Returns when that was done. */
static uint64_t change_device(struct reader *r) {
        struct ifreq request = { 0 };

        (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", device);
        r->mtu = MTU_MIN + (r->mtu - MTU_MIN + 1) % MTUS;
        request.ifr_mtu = (int)r->mtu;
        bench_check_system(ioctl(r->control, SIOCSIFMTU, &request) == 0, "SIOCSIFMTU");
        return now_nsec();
}

static void open_control(struct reader *r) {
        r->control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        bench_check_system(r->control >= 0, "socket");
        r->mtu = MTU_MIN;
        (void)change_device(r);
}

static void open_netlink(struct reader *r) {
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = RTMGRP_LINK };

        open_control(r);
        r->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        bench_check_system(r->fd >= 0 && bind(r->fd, (struct sockaddr *)&address, sizeof(address)) == 0,
                           "NETLINK_ROUTE");
}

static void close_netlink(struct reader *r) {
        (void)close(r->fd);
        (void)close(r->control);
}

/* The MTU in a message, or -1. */
static long mtu_of(const struct nlmsghdr *h) {
        const struct ifinfomsg *info = NLMSG_DATA(h);
        int size = (int)IFLA_PAYLOAD(h);

        if (h->nlmsg_type != RTM_NEWLINK)
                return -1;
        for (const struct rtattr *a = IFLA_RTA(info); RTA_OK(a, size); a = RTA_NEXT(a, size))
                if (a->rta_type == IFLA_MTU)
                        return *(const unsigned *)RTA_DATA(a);
        return -1;
}

static uint64_t hear_link_by_netlink(struct reader *r) {
        static _Alignas(struct nlmsghdr) char message[32 * 1024];
        uint64_t start = change_device(r), end = 0;
        long mtu = -1;

        while (mtu != r->mtu) {
                ssize_t n;

                if (!wait_readable(r->fd))
                        return MISSING;
                n = recv(r->fd, message, sizeof(message), 0);
                bench_check_system(n > 0, "NETLINK_ROUTE");
                end = now_nsec();
                mtu = mtu_of((const struct nlmsghdr *)message);
        }
        return since(start, end);
}

static void on_link_event(struct kev *kev _unused_, const struct kev_event *event, void *userdata _unused_) {
        uint32_t mtu = 0;

        heard_nsec = now_nsec();
        (void)kev_event_link_mtu(event, &mtu);
        heard_figure = mtu;
}

static void open_link_client(struct reader *r) {
        struct kev_watch *watch;

        open_control(r);
        open_client(r);
        if (kev_watch_new(KEV_FILTER_NETDEV, &watch) < 0 || kev_watch_set_name(watch, device) < 0 ||
            kev_watch_set_notes(watch, KEV_NOTE_MTU) < 0)
                bench_fail("no such watch can be");
        (void)bench_check(kev_add(r->kev, watch, on_link_event, NULL, NULL), r->kev, "watching a device");
        kev_watch_free(watch);
}

static void close_link_client(struct reader *r) {
        close_client(r);
        (void)close(r->control);
}

static uint64_t hear_link_by_kevd(struct reader *r) {
        uint64_t start = change_device(r);

        while (heard_figure != r->mtu)
                if (bench_check(kev_dispatch(r->kev, PATIENCE_MSEC), r->kev, "kev_dispatch") == 0)
                        return MISSING;
        return since(start, heard_nsec);
}

/* Reads until the MTU is told. */
static bool read_monitor(struct reader *r) {
        char line[512], wanted[32];

        (void)snprintf(wanted, sizeof(wanted), " mtu %ld ", r->mtu);
        do
                if (!wait_readable(fileno(r->pipe)) || !fgets(line, sizeof(line), r->pipe))
                        return false;
        while (!strstr(line, wanted));
        return true;
}

static uint64_t hear_link_by_monitor(struct reader *r) {
        uint64_t start = change_device(r);

        return read_monitor(r) ? since(start, now_nsec()) : MISSING;
}

/* Until it listens, which it shows by telling of a change. */
static void wait_for_monitor(struct reader *r) {
        uint64_t deadline = now_nsec() + PATIENCE_MSEC * NSEC_PER_MSEC;
        struct pollfd p = { .fd = fileno(r->pipe), .events = POLLIN };

        do {
                (void)change_device(r);
                if (now_nsec() > deadline)
                        bench_fail("ip monitor says nothing");
        } while (poll(&p, 1, 20) <= 0);
        if (!read_monitor(r))
                bench_fail("ip monitor has ended");
}

static void open_monitor(struct reader *r) {
        int fds[2];

        open_control(r);
        bench_check_system(pipe(fds) == 0, "pipe");
        r->pid = bench_fork();
        if (r->pid == 0) {
                (void)dup2(fds[1], STDOUT_FILENO);
                (void)close(fds[0]);
                (void)close(fds[1]);
                (void)execlp("ip", "ip", "monitor", "link", (char *)NULL);
                _exit(127);
        }
        (void)close(fds[1]);
        r->pipe = fdopen(fds[0], "r");
        bench_check_system(r->pipe, "fdopen");
        /* What is in its buffer, poll(2) does not see. */
        (void)setvbuf(r->pipe, NULL, _IONBF, 0);
        wait_for_monitor(r);
}

static void close_monitor(struct reader *r) {
        (void)kill(r->pid, SIGKILL);
        (void)waitpid(r->pid, NULL, 0);
        (void)fclose(r->pipe);
        (void)close(r->control);
}

/* ---- timers ----------------------------------------------------------------------------------- */

static void open_timerfd(struct reader *r) {
        r->fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC);
        bench_check_system(r->fd >= 0, "timerfd_create");
}

static void close_timerfd(struct reader *r) {
        (void)close(r->fd);
}

/* Until its moment there must be time to set it: AGAIN if there was none. */
static uint64_t hear_timer_by_timerfd(struct reader *r) {
        uint64_t due = (realtime_nsec() / NSEC_PER_USEC + LEAD_USEC) * NSEC_PER_USEC, n, end;
        struct itimerspec setting = {
                .it_value = { .tv_sec = (time_t)(due / NSEC_PER_SEC), .tv_nsec = (long)(due % NSEC_PER_SEC) },
        };

        bench_check_system(timerfd_settime(r->fd, TFD_TIMER_ABSTIME, &setting, NULL) == 0, "timerfd_settime");
        if (!wait_readable(r->fd) || read(r->fd, &n, sizeof(n)) != sizeof(n))
                return MISSING;
        end = realtime_nsec();
        return end < due ? AGAIN : since(due, end);
}

static void on_timer_event(struct kev *kev _unused_, const struct kev_event *event, void *userdata _unused_) {
        heard_nsec = realtime_nsec();
        heard_figure = kev_event_id(event);
}

static uint64_t hear_timer_by_kevd(struct reader *r) {
        uint64_t due = realtime_nsec() / NSEC_PER_USEC + LEAD_USEC;
        struct kev_watch *watch;
        int64_t id;
        bool in_time;

        if (kev_watch_new(KEV_FILTER_TIMER, &watch) < 0 || kev_watch_set_data(watch, (int64_t)due) < 0 ||
            kev_watch_set_notes(watch, KEV_NOTE_ABSTIME | KEV_NOTE_USEC) < 0 ||
            kev_watch_set_flags(watch, KEV_FLAG_ONESHOT) < 0)
                bench_fail("no such watch can be");
        heard_figure = -1;
        (void)bench_check(kev_add(r->kev, watch, on_timer_event, NULL, &id), r->kev, "setting a timer");
        in_time = realtime_nsec() < due * NSEC_PER_USEC;
        kev_watch_free(watch);
        while (heard_figure != id)
                if (bench_check(kev_dispatch(r->kev, PATIENCE_MSEC), r->kev, "kev_dispatch") == 0)
                        return MISSING;
        return in_time ? since(due * NSEC_PER_USEC, heard_nsec) : AGAIN;
}

/* ---- all -------------------------------------------------------------------------------------- */

enum { PERCENTILES = 3 };

static const struct way {
        const char *what, *program;
        void (*open)(struct reader *r);
        uint64_t (*hear)(struct reader *r);
        void (*close)(struct reader *r);
        bool of_devices;
} ways[] = {
        { "process exit", "floor", open_nothing, hear_exit_by_pidfd, open_nothing, false },
        { "process exit", "kevd", open_client, hear_exit_by_kevd, close_client, false },
        { "link change", "floor", open_netlink, hear_link_by_netlink, close_netlink, true },
        { "link change", "kevd", open_link_client, hear_link_by_kevd, close_link_client, true },
        { "link change", "ip monitor", open_monitor, hear_link_by_monitor, close_monitor, true },
        { "timer", "floor", open_timerfd, hear_timer_by_timerfd, close_timerfd, false },
        { "timer", "kevd", open_client, hear_timer_by_kevd, close_client, false },
};

static const struct {
        const char *name;
        double fraction;
} percentiles[PERCENTILES] = { { "p50", 0.5 }, { "p99", 0.99 }, { "p99.9", 0.999 } };

struct figures {
        double *us[PERCENTILES]; /* of the rounds */
        bool missing;
};

static void measure(const struct bench *b, const struct way *way, struct figures *figures, long round) {
        uint64_t *latencies = calloc((size_t)n_events, sizeof(*latencies));
        struct reader reader = { .bench = b, .fd = -1 };
        size_t n = 0;

        bench_check_system(latencies, "calloc");
        way->open(&reader);
        for (long i = 0; i < n_events && !figures->missing; i++) {
                uint64_t latency = way->hear(&reader);

                if (latency == MISSING)
                        figures->missing = true;
                else if (latency != AGAIN)
                        latencies[n++] = latency;
        }
        way->close(&reader);
        sort_u64(latencies, n);
        for (size_t p = 0; p < PERCENTILES; p++)
                figures->us[p][round] = (double)percentile(latencies, n, percentiles[p].fraction) / 1e3;
        free(latencies);
}

static void tell(const struct way *way, const struct figures *figures, const struct figures *floor) {
        printf("%-14s %-11s", way->what, way->program);
        for (size_t p = 0; p < PERCENTILES; p++) {
                result_write(&(struct result){
                        .workload = "latency", .program = way->program, .variant = way->what,
                        .metric = percentiles[p].name, .unit = "us", .values = figures->us[p], .n = (size_t)rounds,
                        .floor = floor != figures ? floor->us[p] : NULL,
                        .completeness = figures->missing ? COMPLETENESS_MISSING : COMPLETENESS_WHOLE,
                });
                printf(" %10.1f us", result_median(figures->us[p], (size_t)rounds));
        }
        printf("%s\n", figures->missing ? "  WRONG: events are missing" : "");
}

/* A namespace of its own with one device. NULL, or why it can't be had. */
static const char *make_device(void) {
        char command[160];

        if (unshare(geteuid() == 0 ? CLONE_NEWNET : CLONE_NEWNET | CLONE_NEWUSER) < 0)
                return "no network namespace can be made";
        if (system("command -v ip >/dev/null") != 0)
                return "ip is not there";
        /* Not every kernel has dummies. */
        (void)snprintf(command, sizeof(command),
                       "{ ip link add %s type dummy || ip link add %s type veth peer name %sp; } 2>/dev/null", device,
                       device, device);
        return system(command) == 0 ? NULL : "no device can be made";
}

static void run(struct bench *b) {
        struct figures figures[ARRAY_SIZE(ways)] = { 0 };
        const char *no_device = make_device(); /* before the daemon, which lives in there, too */
        size_t floor = 0;

        ended_nsec = mmap(NULL, sizeof(*ended_nsec), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        bench_check_system(ended_nsec != MAP_FAILED, "mmap");
        for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
                for (size_t p = 0; p < PERCENTILES; p++) {
                        figures[i].us[p] = calloc((size_t)rounds, sizeof(double));
                        bench_check_system(figures[i].us[p], "calloc");
                }
        daemon_start(b);
        printf("latency: from the moment to the callback, %ld events one at a time, %ld rounds\n", n_events, rounds);
        for (long round = 0; round < rounds; round++)
                for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
                        if (!ways[i].of_devices || !no_device)
                                measure(b, &ways[i], &figures[i], round);
        printf("%-26s %13s %13s %13s\n", "", "p50", "p99", "p99.9");
        for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
                if (strcmp(ways[i].program, "floor") == 0)
                        floor = i;
                if (ways[i].of_devices && no_device)
                        printf("%-14s %-11s skipped: %s\n", ways[i].what, ways[i].program, no_device);
                else
                        tell(&ways[i], &figures[i], &figures[floor]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
                for (size_t p = 0; p < PERCENTILES; p++)
                        free(figures[i].us[p]);
}

int main(int argc, char **argv) {
        static const struct bench_program program = {
                "latency-others", "How long until a callback hears of processes, devices and timers.", options,
                ARRAY_SIZE(options), run,
        };

        return bench_main(&program, argc, argv);
}
