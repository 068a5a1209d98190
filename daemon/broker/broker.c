/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The broker takes requests of one fixed size from the daemon, and starts a helper
 * for each: a surveyor for a file system, a stand-in or a deputy for a peer, one
 * that keeps what a feed reads, one that looks at processes, and one that ends at once for a network's socket. It opens
 * nothing itself, so nothing can make it wait. What it may be asked for is all here:
 *
 *   a fanotify group with a mark on the file system of a mount (CAP_SYS_ADMIN)
 *   a process that may look up handles and read directories (CAP_DAC_READ_SEARCH)
 *   a process of a given user and groups, without capabilities (CAP_SETUID, CAP_SETGID)
 *   a netlink socket with a large buffer (CAP_NET_ADMIN), perhaps in a given network namespace (CAP_SYS_ADMIN)
 *   what feeds of processes and signals read (CAP_BPF and CAP_PERFMON, or CAP_NET_ADMIN)
 *   a process that looks at others (CAP_SYS_PTRACE)
 */

#include "broker.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "file_system.h"
#include "macro.h"
#include "packet.h"
#include "question.h"
#include "sandbox.h"

#ifndef FAN_REPORT_TARGET_FID
#define FAN_REPORT_TARGET_FID 0x00001000 /* Linux 5.17 */
#endif

enum { END_SEC = 1, BROKER_FD = 3, SLICE_NSEC = 100 * 1000 };

static const struct helper_programs *programs;
static pid_t daemons_pid; /* as the kernel knows it, whatever the daemon says; 0: not known */

static const uid_t NOBODYS_UID = 0xffff0000; /* beyond all that is given to users, containers and services */

/* ---- capabilities: capset(2), capabilities(7) -------------------------------------------- */

static uint64_t capability(unsigned number) {
        return UINT64_C(1) << number;
}

static int get_capabilities(uint64_t *ret) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = { 0 };

        *ret = 0;
        if (syscall(SYS_capget, &header, data) < 0)
                return -errno;
        *ret = data[0].permitted | (uint64_t)data[1].permitted << 32;
        return 0;
}

/* What is kept is effective, and can't be had back by a program that is executed. */
static int keep_capabilities(uint64_t kept) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2];
        uint64_t had;
        int r = get_capabilities(&had);

        if (r < 0)
                return r;
        kept &= had;
        data[0] = (struct __user_cap_data_struct){ .effective = (uint32_t)kept, .permitted = (uint32_t)kept };
        data[1] = (struct __user_cap_data_struct){ .effective = (uint32_t)(kept >> 32),
                                                   .permitted = (uint32_t)(kept >> 32) };
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || syscall(SYS_capset, &header, data) < 0)
                return -errno;
        return 0;
}

static uint64_t capabilities_for_files(void) {
        return capability(CAP_SYS_ADMIN) | capability(CAP_DAC_READ_SEARCH) | capability(CAP_SETUID) |
               capability(CAP_SETGID);
}

static uint64_t capabilities_for_programs(void) {
        return capability(CAP_BPF) | capability(CAP_PERFMON);
}

static uint64_t capabilities_for_processes(void) {
        return capability(CAP_NET_ADMIN) | capability(CAP_SYS_PTRACE) | capability(CAP_SYS_NICE) |
               capabilities_for_programs();
}

/* Directories are still read here where inotify serves them. */
static uint64_t capabilities_of_daemon(void) {
        return capability(CAP_DAC_READ_SEARCH) | capability(CAP_SYS_NICE);
}

/* ---- the helpers' beginnings ---------------------------------------------------------------- */

/* The first message of a helper. */
static void say_hello(int socket, int error, int fd) {
        struct answer answer = { .error = -error };
        struct iovec part = { &answer, sizeof(answer) };

        (void)packet_send(socket, &part, 1, fd, 0);
}

static int mark(int group, const struct helper_request *request) {
        int fd _cleanup_(closep) = -1, top _cleanup_(closep) = -1;
        int r = open_mount(request->mount_point, request->mount, &fd);

        if (r < 0)
                return r;
        if (fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, request->mask, fd, NULL) == 0)
                return 0;
        if (errno != EXDEV)
                return -errno;
        /* A subvolume of btrfs: the file system's own root has to be marked. */
        r = open_top_of_btrfs(request->mount, &top);
        if (r < 0)
                return r;
        return fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, request->mask, top, NULL) < 0 ? -errno : 0;
}

static _Noreturn void begin_surveyor(int socket, const struct helper_request *request) {
        int group = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_UNLIMITED_MARKS |
                                          (request->limited_queue ? 0 : FAN_UNLIMITED_QUEUE) | FAN_REPORT_DFID_NAME | FAN_REPORT_FID |
                                          FAN_REPORT_TARGET_FID,
                                  O_RDONLY | O_CLOEXEC | O_LARGEFILE);
        int r = group < 0 ? -errno : mark(group, request);

        if (r == 0)
                r = keep_capabilities(capability(CAP_DAC_READ_SEARCH));
        say_hello(socket, r, r == 0 ? group : -1);
        (void)safe_close(group);
        if (r < 0)
                _exit(0);
        (void)sandbox_enter(SANDBOX_SURVEYOR); /* the daemon has said if there is none */
        surveyor_run(socket);
}

static int become(const struct helper_request *request) {
        gid_t groups[HELPER_GROUPS_MAX];

        for (uint32_t i = 0; i < request->n_groups; i++)
                groups[i] = request->groups[i];
        /* Files are opened by the effective user. The others, by which a signal would be allowed, are nobody's, so that
         * the peer can neither stop nor end it. */
        if (setgroups(request->n_groups, groups) < 0 || setresgid(request->gid, request->gid, request->gid) < 0 ||
            (request->uid != 0 && setresuid(NOBODYS_UID, request->uid, NOBODYS_UID) < 0))
                return -errno;
        /* Root sees what its capability lets it see. */
        return keep_capabilities(request->uid == 0 ? capability(CAP_DAC_READ_SEARCH) : 0);
}

/* A stand-in, or a deputy. */
static _Noreturn void begin_for_peer(int socket, const struct helper_request *request) {
        int r = become(request);

        if (r == 0 && prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) /* not the peer's to look into */
                r = -errno;
        say_hello(socket, r, -1);
        if (r < 0)
                _exit(0);
        (void)sandbox_enter(request->kind == HELPER_DEPUTY ? SANDBOX_DEPUTY : SANDBOX_STAND_IN);
        if (request->kind == HELPER_DEPUTY)
                programs->deputy(socket);
        else
                stand_in_run(socket);
        _exit(EXIT_FAILURE);
}

/* /proc/PID/fd is its owner's to list. `socket` tells the daemon when this ends. What everybody's looks at may be gone
 * before long: it is in as much of a hurry as the thread that asks. A user's has no more than anybody's share. */
static _Noreturn void begin_observer(int socket, const struct helper_request *request, int questions) {
        int r;

        if (request->kind == HELPER_OBSERVER)
                (void)setpriority(PRIO_PROCESS, 0, -19);
        r = keep_capabilities(capability(CAP_SYS_PTRACE) | capability(CAP_DAC_READ_SEARCH));
        (void)prctl(PR_SET_NAME, "kevd-observer", 0, 0, 0);
        say_hello(socket, r, -1);
        if (r < 0 || questions < 0)
                _exit(0);
        (void)sandbox_enter(SANDBOX_OBSERVER);
        programs->observer(questions, daemons_pid);
        _exit(EXIT_FAILURE);
}

/* A socket stays in the namespace that it was made in. */
static _Noreturn void begin_network(int socket_fd, const struct helper_request *request, int namespace_fd) {
        int fd = -1, size = (int)request->buffer_bytes;
        int r = namespace_fd >= 0 && setns(namespace_fd, CLONE_NEWNET) < 0 ? -errno : 0;

        if (r == 0) {
                fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
                r = fd < 0 ? -errno : 0;
        }
        if (r == 0 && size > 0) /* as much as may be */
                (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
        say_hello(socket_fd, r, fd);
        _exit(0);
}

/* Says what it has opened, a descriptor a message. */
static void say_opened(int socket, struct opening *opening, const int *fds) {
        struct iovec part = { opening, sizeof(*opening) };

        if (opening->error < 0)
                (void)packet_send(socket, &part, 1, -1, 0);
        for (uint32_t i = 0; opening->error == 0 && i < opening->n_fds; i++)
                (void)packet_send(socket, &part, 1, fds[i], 0);
}

/* False: to be left as it is, for the next daemon. */
static bool has_to_be_closed(int socket) {
        char nothing;
        ssize_t n;

        do
                n = recv(socket, &nothing, sizeof(nothing), 0);
        while (n < 0 && errno == EINTR);
        return n <= 0;
}

/* Keeps what it has opened, or what has `passed`, until the daemon's end of the socket is closed. */
static _Noreturn void begin_opener(int socket, const struct helper_request *request, int passed) {
        const struct opener *opener = request->kind == HELPER_PROCESSES ? &programs->processes :
                                      request->kind == HELPER_SIGNALS   ? &programs->signals :
                                                                          &programs->connector;
        uint64_t kept = request->kind == HELPER_CONNECTOR ? capability(CAP_NET_ADMIN) : 0;
        struct opening opening = { .n_fds = passed >= 0 };
        int fds[OPENING_FDS_MAX] = { passed };

        (void)prctl(PR_SET_NAME, "kevd-opener", 0, 0, 0);
        opening.error = keep_capabilities(kept ? kept : capabilities_for_programs());
        if (opening.error == 0 && passed < 0)
                opening.error = opener->open ? opener->open(request->buffer_bytes, request->is_only, fds, &opening) :
                                               -EOPNOTSUPP;
        if (opening.error == 0)
                opening.error = keep_capabilities(kept);
        say_opened(socket, &opening, fds);
        (void)sandbox_enter(SANDBOX_OPENER);
        if (opening.error == 0 && has_to_be_closed(socket) && opener->close)
                opener->close(fds[0]);
        _exit(0);
}

/* ---- the broker ---------------------------------------------------------------------------- */

static bool is_whole(const struct helper_request *request, ssize_t size) {
        if (size != sizeof(*request))
                return false;
        if (request->kind == HELPER_SURVEYOR)
                return request->mount_point[0] == '/' && memchr(request->mount_point, 0, HELPER_PATH_MAX);
        if (request->kind >= HELPER_NETWORK && request->kind <= HELPER_CONNECTOR)
                return request->buffer_bytes <= INT32_MAX;
        if (request->kind == HELPER_OBSERVER || request->kind == HELPER_USERS_OBSERVER)
                return true;
        return (request->kind == HELPER_STAND_IN || request->kind == HELPER_DEPUTY) &&
               request->n_groups <= HELPER_GROUPS_MAX;
}

static void answer(int fd, int error, int helper) {
        struct iovec part = { &error, sizeof(error) };

        (void)packet_send(fd, &part, 1, helper, 0);
}

/* `passed`: what came beside the request, or -1. */
static void start_helper(int fd, const struct helper_request *request, int passed) {
        int pair[2], r = 0;
        pid_t pid;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
                answer(fd, -errno, -1);
                return;
        }
        pid = fork();
        if (pid == 0) {
                (void)close(fd);
                (void)close(pair[0]);
                if (request->kind == HELPER_SURVEYOR)
                        begin_surveyor(pair[1], request);
                if (request->kind == HELPER_NETWORK)
                        begin_network(pair[1], request, passed);
                if (request->kind == HELPER_STAND_IN || request->kind == HELPER_DEPUTY)
                        begin_for_peer(pair[1], request);
                if (request->kind == HELPER_OBSERVER || request->kind == HELPER_USERS_OBSERVER)
                        begin_observer(pair[1], request, passed);
                begin_opener(pair[1], request, passed);
        }
        if (pid < 0)
                r = -errno;
        answer(fd, r, r == 0 ? pair[0] : -1);
        (void)close(pair[0]);
        (void)close(pair[1]);
}

/* What sched_setattr(2) takes, as far as it is of interest here; glibc has it from 2.41 on. */
struct schedule {
        uint32_t size, policy;
        uint64_t flags;
        int32_t nice;
        uint32_t priority;
        uint64_t runtime_nsec, deadline_nsec, period_nsec;
};

/* Whoever asks a helper waits for it, and what it does is short: it asks for little of the processor, and so gets it
 * soon, also where the daemon is busy (Linux 6.12; before, this changes nothing). */
static void run_shortly(void) {
        struct schedule s = { .size = sizeof(s) };

        if (syscall(SYS_sched_getattr, 0, &s, sizeof(s), 0) < 0 || s.policy != SCHED_OTHER)
                return;
        s.size = sizeof(s);
        s.runtime_nsec = SLICE_NSEC;
        (void)syscall(SYS_sched_setattr, 0, &s, 0);
}

static _Noreturn void run(int fd) {
        static struct helper_request request;
        sigset_t none;
        int passed = -1;
        ssize_t n;

        (void)prctl(PR_SET_NAME, "kevd-broker", 0, 0, 0);
        run_shortly(); /* as do its helpers */
        (void)signal(SIGCHLD, SIG_IGN); /* nobody waits for helpers that end before it */
        (void)signal(SIGINT, SIG_IGN);  /* the daemon's end is its own */
        (void)signal(SIGTERM, SIG_IGN);
        (void)signal(SIGHUP, SIG_IGN);
        (void)signal(SIGQUIT, SIG_IGN);
        (void)signal(SIGPIPE, SIG_IGN);
        (void)signal(SIGALRM, SIG_DFL);
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)sandbox_enter(SANDBOX_BROKER);
        while ((n = packet_receive(fd, &request, sizeof(request), &passed, 0)) > 0) {
                if (is_whole(&request, n))
                        start_helper(fd, &request, passed);
                else
                        answer(fd, -EINVAL, -1);
                passed = safe_close(passed);
        }
        /* The helpers' sockets are closed, too: all end, but those that a file system keeps. */
        (void)alarm(END_SEC);
        while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
                ;
        _exit(0);
}

static int open_null(void) {
        int fd;

        do
                fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        while (fd < 0 && errno == EINTR);
        return fd < 0 ? -errno : fd;
}

/* Nothing that the daemon was given is the broker's, nor its helpers'. */
static void keep_only(int socket, int null) {
        if (dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0 ||
            dup3(socket, BROKER_FD, O_CLOEXEC) < (socket == BROKER_FD ? -1 : 0) ||
            close_range(BROKER_FD + 1, ~0U, 0) < 0)
                _exit(EXIT_FAILURE);
}

/* What may fail does so here, where it can be said why. */
static int start(const struct helper_programs *of_daemon, uint64_t kept, int *ret_fd, pid_t *ret_pid) {
        int null _cleanup_(closep) = open_null(), pair[2];
        pid_t pid;

        if (null < 0)
                return null;
        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
                return -errno;
        programs = of_daemon;
        daemons_pid = getpid();
        pid = fork();
        if (pid == 0) {
                keep_only(pair[1], null);
                if (keep_capabilities(kept) < 0)
                        _exit(EXIT_FAILURE);
                run(BROKER_FD);
        }
        (void)close(pair[1]);
        if (pid < 0) {
                (void)close(pair[0]);
                return -EAGAIN;
        }
        *ret_fd = pair[0];
        *ret_pid = pid;
        return 0;
}

int broker_start(const struct helper_programs *of_daemon, bool *files, int *ret_fd, pid_t *ret_pid) {
        uint64_t had, wanted;
        int r = get_capabilities(&had), none = *files ? -EPERM : -EOPNOTSUPP, s;

        if (r < 0)
                return r;
        *files &= !(~had & capabilities_for_files());
        wanted = capabilities_for_processes() | (*files ? capabilities_for_files() : 0);
        r = had & wanted ? start(of_daemon, wanted, ret_fd, ret_pid) : none;
        s = keep_capabilities(capabilities_of_daemon());
        if (r == 0 && s < 0)
                *ret_fd = safe_close(*ret_fd);
        return r < 0 ? r : s;
}

int broker_connect(const char *path, int *ret_fd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd _cleanup_(closep) = -1, r = keep_capabilities(capabilities_of_daemon());

        if (r < 0)
                return r;
        if ((size_t)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path) >= sizeof(address.sun_path))
                return -ENAMETOOLONG;
        fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                return -errno;
        *ret_fd = take_fd(&fd);
        return 0;
}

int broker_serve(const struct helper_programs *of_daemon, int socket) {
        struct ucred daemon; /* unix(7), SO_PEERCRED: who has connected */
        socklen_t size = sizeof(daemon);
        int null = open_null(), r;

        if (null < 0)
                return null;
        if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &daemon, &size) < 0)
                return -errno;
        programs = of_daemon;
        daemons_pid = daemon.pid;
        keep_only(socket, null);
        r = keep_capabilities(capabilities_for_processes() | capabilities_for_files());
        if (r == 0)
                run(BROKER_FD);
        return r;
}

void broker_wait(pid_t pid) {
        while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
                ;
}
