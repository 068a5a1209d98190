/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The lists of system calls. What is not in a process's list ends it: no list has what executes a program, opens a
 * socket to another machine, mounts, traces, or makes a namespace.
 *
 * A filter is inherited and can only be narrowed. So the broker's list is its own and those of all that it starts;
 * those have one each, which is loaded as soon as they have what they began with.
 */

#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/kcmp.h>
#include <linux/netlink.h>
#include <linux/perf_event.h>
#include <linux/sockios.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel.h"
#include "macro.h"
#include "sandbox_rules.h"

static char state[120] = "none: not in force yet";

/* ---- what there is of calls ------------------------------------------------------------------------------------------ */

static const struct rule memory_and_time[] = {
        ANY(brk), ANY(munmap), ANY(mremap), ANY(madvise),
        WITHOUT(mmap, 2, PROT_EXEC), WITHOUT(mmap2, 2, PROT_EXEC), WITHOUT(mprotect, 2, PROT_EXEC),
        ANY(clock_gettime), ANY(clock_gettime64), ANY(clock_nanosleep), ANY(clock_nanosleep_time64), ANY(nanosleep),
        ANY(clock_getres), ANY(clock_getres_time64), ANY(gettimeofday), ANY(time), ANY(getrandom), ANY(restart_syscall),
};

static const struct rule itself[] = {
        ANY(exit), ANY(exit_group), ANY(getpid), ANY(gettid), ANY(getppid), ANY(uname), ANY(sysinfo), ANY(sched_getaffinity),
        ANY(getuid), ANY(geteuid), ANY(getgid), ANY(getegid), ANY(getuid32), ANY(geteuid32), ANY(getgid32), ANY(getegid32),
        ANY(rt_sigprocmask), ANY(rt_sigaction), ANY(rt_sigreturn), ANY(sigreturn), ANY(sigaltstack),
        ANY(getrlimit), ANY(ugetrlimit), IS(prlimit64, 0, 0),
        ANY(futex), ANY(futex_time64), ANY(sched_yield), ANY(set_robust_list), ANY(rseq), ANY(membarrier),
        IS(prctl, 0, PR_SET_NAME), IS(prctl, 0, PR_GET_NAME), IS(prctl, 0, PR_SET_DUMPABLE),
        IS(prctl, 0, PR_SET_NO_NEW_PRIVS),
};

/* No processes of its own. */
enum { THREAD_FLAGS = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND };
enum { NAMESPACE_FLAGS = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
                         CLONE_NEWNET };

static const struct rule threads[] = {
        MASKED(clone, CLONE_FLAGS_ARGUMENT, (uint32_t)THREAD_FLAGS | (uint32_t)NAMESPACE_FLAGS | CLONE_PTRACE | CLONE_UNTRACED,
               THREAD_FLAGS),
        IS(unshare, 0, CLONE_FS), /* a worker's own directory */
        IS(setpriority, 0, PRIO_PROCESS),
};

static const struct rule descriptors[] = {
        ANY(read), ANY(write), ANY(readv), ANY(writev), ANY(pread64), ANY(pwrite64), ANY(lseek), ANY(_llseek), ANY(close),
        ANY(fstat), ANY(fstat64), ANY(poll), ANY(ppoll), ANY(ppoll_time64), ANY(eventfd2), ANY(memfd_create),
        IS(ioctl, 1, TCGETS), /* isatty(3) */
        IS(fcntl, 1, F_DUPFD_CLOEXEC), IS(fcntl, 1, F_GETFD), IS(fcntl, 1, F_SETFD), IS(fcntl, 1, F_GETFL),
        IS(fcntl, 1, F_SETFL), IS(fcntl, 1, F_GETPIPE_SZ),
        IS(fcntl64, 1, F_DUPFD_CLOEXEC), IS(fcntl64, 1, F_GETFD), IS(fcntl64, 1, F_SETFD), IS(fcntl64, 1, F_GETFL),
        IS(fcntl64, 1, F_SETFL), IS(fcntl64, 1, F_GETPIPE_SZ),
};

static const struct rule multiplexers[] = {
        ANY(epoll_create1), ANY(epoll_ctl), ANY(epoll_wait), ANY(epoll_pwait), ANY(epoll_pwait2),
        ANY(select), ANY(_newselect), ANY(pselect6), ANY(pselect6_time64),
        ANY(signalfd4), ANY(timerfd_create), ANY(timerfd_settime), ANY(timerfd_settime64), ANY(timerfd_gettime),
        ANY(timerfd_gettime64),
};

/* What is left to the next daemon, in memory files; sd_notify_barrier(3) has a pipe. */
static const struct rule handover[] = {
        ANY(ftruncate), ANY(ftruncate64), IS(fcntl, 1, F_ADD_SEALS), IS(fcntl, 1, F_GET_SEALS),
        IS(fcntl64, 1, F_ADD_SEALS), IS(fcntl64, 1, F_GET_SEALS), ANY(pipe2), ANY(pipe),
};

/* Of those that it has. */
static const struct rule messages[] = {
        ANY(recvmsg), ANY(sendmsg), ANY(recvfrom), ANY(sendto), ANY(recv), ANY(send), ANY(getsockopt), ANY(shutdown),
};

/* To listen on, D-Bus, the service manager, and the kernel's own. */
static const struct rule sockets[] = {
        IS(socket, 0, AF_UNIX), IS(socket, 0, AF_NETLINK), IS(socketpair, 0, AF_UNIX),
        ANY(bind), ANY(listen), ANY(accept4), ANY(connect), ANY(getsockname), ANY(getpeername), ANY(setsockopt),
        ANY(recvmmsg), ANY(recvmmsg_time64), ANY(sendmmsg),
        ANY(mkdir), ANY(mkdirat), ANY(chmod), ANY(fchmodat), ANY(unlink), ANY(unlinkat), ANY(umask),
        ANY(dup2), ANY(dup3),
};

static const struct rule files[] = {
        ANY(open), ANY(openat), ANY(openat2), ANY(stat), ANY(stat64), ANY(lstat), ANY(lstat64), ANY(newfstatat),
        ANY(fstatat64), ANY(statx), ANY(statfs), ANY(statfs64), ANY(fstatfs), ANY(fstatfs64), ANY(access), ANY(faccessat),
        ANY(faccessat2), ANY(readlink), ANY(readlinkat), ANY(getcwd), ANY(getdents64), ANY(name_to_handle_at),
};

static const struct rule handles[] = {
        ANY(open_by_handle_at),
};

static const struct rule watches_of_files[] = {
        ANY(inotify_init1), ANY(inotify_add_watch), ANY(inotify_rm_watch), IS(ioctl, 1, FIONREAD), ANY(chdir), ANY(fchdir),
};

/* What descriptors that were passed are, and processes. SIOCINQ is FIONREAD. */
static const struct rule looks[] = {
        IS(ioctl, 1, FIONREAD), IS(ioctl, 1, SIOCOUTQ), IS(ioctl, 1, PIDFD_GET_INFO),
        IS(kcmp, 2, KCMP_FILE), IS(kcmp, 2, KCMP_EPOLL_TFD), ANY(pidfd_open), ANY(pidfd_getfd),
        ANY(waitid), ANY(wait4),
};

/* What programs say that a helper has loaded, and telling them whom to follow. */
static const struct rule programs[] = {
        IS(bpf, 0, BPF_MAP_LOOKUP_ELEM), IS(bpf, 0, BPF_MAP_UPDATE_ELEM), IS(bpf, 0, BPF_MAP_DELETE_ELEM),
        IS(bpf, 0, BPF_OBJ_GET_INFO_BY_FD), IS(bpf, 0, BPF_ITER_CREATE),
};

/* To start helpers, and what those begin with; to wait for them. */
static const struct rule helpers[] = {
        WITHOUT(clone, CLONE_FLAGS_ARGUMENT, (uint32_t)NAMESPACE_FLAGS | CLONE_PTRACE | CLONE_UNTRACED), ANY(fork),
        ANY(wait4), ANY(alarm), ANY(setitimer), IS(setns, 1, CLONE_NEWNET), IS(socketpair, 0, AF_UNIX),
        IS(socket, 0, AF_NETLINK),
        ANY(capget), ANY(capset), ANY(setgroups), ANY(setresgid), ANY(setresuid), ANY(setgroups32), ANY(setresgid32),
        ANY(setresuid32),
        ANY(fanotify_init), ANY(fanotify_mark), ANY(fsopen), ANY(fsconfig), ANY(fsmount),
        ANY(bpf), ANY(perf_event_open), IS(ioctl, 1, PERF_EVENT_IOC_SET_BPF), IS(ioctl, 1, PERF_EVENT_IOC_ENABLE),
        IS(ioctl, 1, PERF_EVENT_IOC_DISABLE), ANY(bind), ANY(setsockopt),
        ANY(seccomp), IS(prctl, 0, PR_SET_SECCOMP),
};

/* ---- whose they are -------------------------------------------------------------------------------------------------- */

enum { GROUPS_MAX = 12 };

#define RULES(list) { (list), ARRAY_SIZE(list) }

static const struct rules lists[][GROUPS_MAX] = {
        [SANDBOX_DAEMON] = { RULES(memory_and_time), RULES(itself), RULES(threads), RULES(descriptors), RULES(multiplexers),
                             RULES(messages), RULES(sockets), RULES(files), RULES(watches_of_files), RULES(looks),
                             RULES(programs), RULES(handover) },
        [SANDBOX_BROKER] = { RULES(memory_and_time), RULES(itself), RULES(threads), RULES(descriptors), RULES(multiplexers),
                             RULES(messages), RULES(files), RULES(handles), RULES(watches_of_files), RULES(looks),
                             RULES(helpers) },
        [SANDBOX_SURVEYOR] = { RULES(memory_and_time), RULES(itself), RULES(descriptors), RULES(messages), RULES(files),
                               RULES(handles) },
        [SANDBOX_STAND_IN] = { RULES(memory_and_time), RULES(itself), RULES(descriptors), RULES(messages), RULES(files) },
        [SANDBOX_OPENER] = { RULES(memory_and_time), RULES(itself), RULES(descriptors), RULES(messages) },
        [SANDBOX_OBSERVER] = { RULES(memory_and_time), RULES(itself), RULES(descriptors), RULES(messages), RULES(files),
                               RULES(looks) },
        [SANDBOX_DEPUTY] = { RULES(memory_and_time), RULES(itself), RULES(threads), RULES(descriptors), RULES(multiplexers),
                             RULES(messages), RULES(files), RULES(watches_of_files) },
};

/* Answered with an error instead: what libraries try, and do without. No filter sees clone3(2)'s arguments. An address
 * of D-Bus may be another machine's, or a program's. */
static const struct {
        int error;
        struct rule rule;
} refused[] = {
        { ENOSYS, ANY(clone3) },
        { EAFNOSUPPORT, IS(socket, 0, AF_INET) },
        { EAFNOSUPPORT, IS(socket, 0, AF_INET6) },
        { EPERM, WITHOUT(clone, CLONE_FLAGS_ARGUMENT, CLONE_VM) },
};

/* ---- putting it in force --------------------------------------------------------------------------------------------- */

/* What this architecture doesn't have is passed over. */
static int add_rule(scmp_filter_ctx filter, uint32_t action, const struct rule *rule) {
        int r = seccomp_rule_add_array(filter, action, rule->call, rule->is_checked, &rule->argument);

        return rule->call < 0 || r == -EEXIST ? 0 : r;
}

static int add_rules(scmp_filter_ctx filter, const struct rules *rules) {
        int r = 0;

        for (size_t i = 0; i < rules->n && r == 0; i++)
                r = add_rule(filter, SCMP_ACT_ALLOW, &rules->list[i]);
        return r;
}

/* To nobody but itself: abort(3), and the trial of a program that tells of signals. */
static int add_signals(scmp_filter_ctx filter) {
        const struct rule own[] = { IS(kill, 0, getpid()), IS(tgkill, 0, getpid()) };
        const struct rules rules = RULES(own);

        return add_rules(filter, &rules);
}

static int load(scmp_filter_ctx filter, enum sandbox sandbox) {
        int r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_TSYNC, 1);

        if (r == 0)
                r = seccomp_attr_set(filter, SCMP_FLTATR_CTL_OPTIMIZE, 2); /* not one comparison after the other */
        for (size_t i = 0; i < ARRAY_SIZE(refused) && r == 0; i++)
                if (refused[i].rule.call != SCMP_SYS(clone) || sandbox == SANDBOX_DAEMON)
                        r = add_rule(filter, SCMP_ACT_ERRNO((uint32_t)refused[i].error), &refused[i].rule);
        for (size_t i = 0; i < GROUPS_MAX && r == 0; i++)
                r = add_rules(filter, &lists[sandbox][i]);
        if (r == 0)
                r = add_rules(filter, &rules_of_build);
        if (r == 0)
                r = add_signals(filter);
        return r == 0 ? seccomp_load(filter) : r;
}

int sandbox_enter(enum sandbox sandbox) {
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
        int r = filter ? load(filter, sandbox) : -EOPNOTSUPP;

        if (filter)
                seccomp_release(filter);
        (void)snprintf(state, sizeof(state), r == 0 ? "seccomp" : "none: %s", strerror(-r));
        return r;
}

bool sandbox_is_in_force(void) {
        return strcmp(state, "seccomp") == 0;
}

const char *sandbox_state(void) {
        return state;
}
