/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What makes kevd kevd-faults. System calls, and libraries that make them, are wrapped by the linker (--wrap), so that
 * it is the daemon's calls that fail, beside whatever a sanitizer has put in the place of the C library's functions.
 * Allocations are replaced in the whole program, since those of the libraries are on the daemon's account as well: the
 * functions below come before the C library's, and call it, or the sanitizer, by another name.
 */

#include "faults.h"

#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json_tokener.h>

#include "macro.h"

static struct faults *faults;
static _Thread_local bool inside; /* of what is here: its own calls do well */

static const char *const names[FAULT_COUNT] = {
#define FAULT_CALL(name, ...) [FAULT_##name] = #name,
        FAULT_CALLS(FAULT_CALL)
#undef FAULT_CALL
};

static void tell(enum fault_call call, uint32_t number) {
        void *callers[24];
        int n = backtrace(callers, ARRAY_SIZE(callers));

        dprintf(STDERR_FILENO, "fault: %s %u of process %d: %s\n", names[call], number, (int)getpid(),
                strerror(faults->error));
        backtrace_symbols_fd(callers, n, STDERR_FILENO);
}

/* Whether this call is to fail: errno is set then. */
static bool fails(enum fault_call call) {
        uint32_t number;

        if (!faults || !faults->armed || inside)
                return false;
        number = atomic_fetch_add(&faults->n[call], 1) + 1;
        if ((int)call != faults->call || number < faults->first || number - faults->first >= faults->times)
                return false;
        atomic_fetch_add(&faults->hits, 1);
        inside = true;
        tell(call, number);
        inside = false;
        errno = faults->error;
        return true;
}

__attribute__((constructor)) static void find(void) {
        const char *path = getenv("KEVD_FAULTS");
        int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
        void *first[1], *map;

        if (fd < 0)
                return;
        (void)backtrace(first, 1); /* loads what it needs */
        map = mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        (void)close(fd);
        if (map != MAP_FAILED)
                faults = map;
}

/* ---- allocations ------------------------------------------------------------------------------------- */

#ifdef __SANITIZE_ADDRESS__
#define REAL(name) __interceptor_##name
#else
#define REAL(name) __libc_##name
#endif

void *REAL(malloc)(size_t size);
void *REAL(calloc)(size_t n, size_t size);
void *REAL(realloc)(void *p, size_t size);

/* For the libraries, too; but those call the sanitizer's while it is not there yet. */
#ifdef __SANITIZE_ADDRESS__
#define REPLACES
#else
#define REPLACES __attribute__((visibility("default")))
#endif

REPLACES void *malloc(size_t size) {
        return fails(FAULT_allocate) ? NULL : REAL(malloc)(size);
}

REPLACES void *calloc(size_t n, size_t size) {
        return fails(FAULT_allocate) ? NULL : REAL(calloc)(n, size);
}

REPLACES void *realloc(void *p, size_t size) {
        return fails(FAULT_allocate) ? NULL : REAL(realloc)(p, size);
}

static char *duplicate(const char *text, size_t n) {
        char *copy = REAL(malloc)(n + 1);

        if (copy) {
                memcpy(copy, text, n);
                copy[n] = '\0';
        }
        return copy;
}

REPLACES char *strndup(const char *text, size_t size) {
        return fails(FAULT_allocate) ? NULL : duplicate(text, strnlen(text, size));
}

REPLACES char *strdup(const char *text) {
        return fails(FAULT_allocate) ? NULL : duplicate(text, strlen(text));
}

/* ---- calls ---------------------------------------------------------------------------------------------- */

/* What the call returns if it fails may use `errno`. */
#define WRAP(name, type, failed, parameters, arguments)                                         \
        type __real_##name parameters;                                                          \
        type __wrap_##name parameters;                                                          \
        type __wrap_##name parameters {                                                         \
                return fails(FAULT_##name) ? (failed) : __real_##name arguments;                \
        }

#define ADDRESS struct sockaddr

WRAP(accept4, int, -1, (int fd, ADDRESS *address, socklen_t *size, int flags), (fd, address, size, flags))
WRAP(recvmmsg, int, -1, (int fd, struct mmsghdr *m, unsigned n, int flags, struct timespec *t), (fd, m, n, flags, t))
WRAP(recvfrom, ssize_t, -1, (int fd, void *p, size_t size, int flags, ADDRESS *address, socklen_t *address_size),
     (fd, p, size, flags, address, address_size))
WRAP(sendmsg, ssize_t, -1, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(writev, ssize_t, -1, (int fd, const struct iovec *parts, int n), (fd, parts, n))
WRAP(opendir, void *, NULL, (const char *path), (path))
WRAP(fdopendir, void *, NULL, (int fd), (fd))
WRAP(readdir64, void *, NULL, (void *directory), (directory))
WRAP(fopen64, FILE *, NULL, (const char *path, const char *mode), (path, mode))
WRAP(socket, int, -1, (int domain, int type, int protocol), (domain, type, protocol))
WRAP(socketpair, int, -1, (int domain, int type, int protocol, int fds[2]), (domain, type, protocol, fds))
WRAP(connect, int, -1, (int fd, const ADDRESS *address, socklen_t size), (fd, address, size))
WRAP(getsockopt, int, -1, (int fd, int level, int name, void *p, socklen_t *size), (fd, level, name, p, size))
WRAP(setsockopt, int, -1, (int fd, int level, int name, const void *p, socklen_t size), (fd, level, name, p, size))
WRAP(eventfd, int, -1, (unsigned count, int flags), (count, flags))
WRAP(timerfd_create, int, -1, (int clock, int flags), (clock, flags))
WRAP(memfd_create, int, -1, (const char *name, unsigned flags), (name, flags))
WRAP(epoll_create1, int, -1, (int flags), (flags))
WRAP(poll, int, -1, (struct pollfd *fds, nfds_t n, int msec), (fds, n, msec))
WRAP(ppoll, int, -1, (struct pollfd *fds, nfds_t n, const struct timespec *t, const sigset_t *set), (fds, n, t, set))
WRAP(inotify_init1, int, -1, (int flags), (flags))
WRAP(inotify_add_watch, int, -1, (int fd, const char *path, uint32_t mask), (fd, path, mask))
WRAP(fanotify_init, int, -1, (unsigned flags, unsigned event_flags), (flags, event_flags))
WRAP(name_to_handle_at, int, -1, (int fd, const char *path, struct file_handle *handle, int *mount, int flags),
     (fd, path, handle, mount, flags))
WRAP(open_by_handle_at, int, -1, (int fd, struct file_handle *handle, int flags), (fd, handle, flags))
WRAP(pidfd_open, int, -1, (pid_t pid, unsigned flags), (pid, flags))
WRAP(pidfd_getfd, int, -1, (int pidfd, int fd, unsigned flags), (pidfd, fd, flags))
WRAP(fstatat64, int, -1, (int fd, const char *path, struct stat64 *st, int flags), (fd, path, st, flags))
WRAP(stat64, int, -1, (const char *path, struct stat64 *st), (path, st))
WRAP(lstat64, int, -1, (const char *path, struct stat64 *st), (path, st))
WRAP(statx, int, -1, (int fd, const char *path, int flags, unsigned mask, struct statx *st), (fd, path, flags, mask, st))
WRAP(readlink, ssize_t, -1, (const char *path, char *target, size_t size), (path, target, size))
WRAP(readlinkat, ssize_t, -1, (int fd, const char *path, char *target, size_t size), (fd, path, target, size))
WRAP(realpath, char *, NULL, (const char *path, char *resolved), (path, resolved))
WRAP(waitid, int, -1, (idtype_t type, id_t id, siginfo_t *info, int options), (type, id, info, options))
WRAP(waitpid, pid_t, -1, (pid_t pid, int *status, int options), (pid, status, options))
WRAP(fork, pid_t, -1, (void), ())
WRAP(pthread_create, int, errno,
     (pthread_t *thread, const pthread_attr_t *attributes, void *(*fn)(void *), void *argument),
     (thread, attributes, fn, argument))
WRAP(unshare, int, -1, (int flags), (flags))
WRAP(setns, int, -1, (int fd, int type), (fd, type))
WRAP(bpf_map_update_elem, int, -errno, (int fd, const void *key, const void *value, uint64_t flags), (fd, key, value, flags))
WRAP(bpf_map_lookup_elem, int, -errno, (int fd, const void *key, void *value), (fd, key, value))
WRAP(bpf_iter_create, int, -errno, (int fd), (fd))
WRAP(mnl_socket_open2, void *, NULL, (int bus, int flags), (bus, flags))
WRAP(mnl_socket_bind, int, -1, (void *s, unsigned groups, pid_t pid), (s, groups, pid))
WRAP(mnl_socket_recvfrom, ssize_t, -1, (const void *s, void *p, size_t size), (s, p, size))
WRAP(mnl_socket_sendto, ssize_t, -1, (const void *s, const void *p, size_t size), (s, p, size))

/* ---- calls of which not every one counts, or that may be short ----------------------------------------------- */

static bool is_stream(int fd) {
        struct stat64 st;

        return syscall(SYS_fstat, fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISSOCK(st.st_mode) || S_ISFIFO(st.st_mode));
}

/* What the kernel answers without taking memory for it, and without waiting. */
static bool never_fails(int fd) {
        static const char *const kinds[] = {
                "anon_inode:[eventfd]", "anon_inode:[timerfd]", "anon_inode:[signalfd]", "anon_inode:[pidfd]",
        };
        char path[32], target[64] = "";

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        (void)!syscall(SYS_readlinkat, AT_FDCWD, path, target, sizeof(target) - 1);
        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
                if (strcmp(target, kinds[i]) == 0)
                        return true;
        return false;
}

/* Whether it fails. *size becomes 1 instead if it is to be short, and can be. */
static bool fails_or_is_short(enum fault_call call, int fd, size_t *size) {
        int before = errno;

        if (!faults || !faults->armed || inside || never_fails(fd)) {
                errno = before;
                return false;
        }
        if (!fails(call)) {
                errno = before;
                return false;
        }
        if (faults->error != SHORT)
                return true;
        if (*size > 1 && is_stream(fd))
                *size = 1;
        errno = before;
        return false;
}

#define WRAP_SIZED(name, parameters, arguments)                                                    \
        ssize_t __real_##name parameters;                                                          \
        ssize_t __wrap_##name parameters;                                                          \
        ssize_t __wrap_##name parameters {                                                         \
                return fails_or_is_short(FAULT_##name, fd, &size) ? -1 : __real_##name arguments;  \
        }

WRAP_SIZED(read, (int fd, void *p, size_t size), (fd, p, size))
WRAP_SIZED(write, (int fd, const void *p, size_t size), (fd, p, size))
WRAP_SIZED(pread64, (int fd, void *p, size_t size, off_t at), (fd, p, size, at))
WRAP_SIZED(send, (int fd, const void *p, size_t size, int flags), (fd, p, size, flags))

#define WRAP_STAT(name, parameters)                                                                \
        int __real_##name parameters;                                                              \
        int __wrap_##name parameters;                                                              \
        int __wrap_##name parameters {                                                             \
                size_t size = 0;                                                                   \
                                                                                                   \
                return fails_or_is_short(FAULT_##name, fd, &size) ? -1 : __real_##name(fd, st);    \
        }

WRAP_STAT(fstat64, (int fd, struct stat64 *st))
WRAP_STAT(fstatfs64, (int fd, struct statfs64 *st))

/* Of a packet, the rest of which would be lost, no part is asked for. */
static bool keeps_packets(int fd) {
        int type = 0;
        socklen_t size = sizeof(type);

        return syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 || type != SOCK_STREAM;
}

ssize_t __real_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags);
ssize_t __wrap_recvmsg(int fd, struct msghdr *message, int flags) {
        struct iovec *first = message->msg_iov;
        size_t before = message->msg_iovlen > 0 ? first->iov_len : 0, size = before;
        ssize_t n;

        if (fails_or_is_short(FAULT_recvmsg, fd, &size))
                return -1;
        if (size == before || keeps_packets(fd))
                return __real_recvmsg(fd, message, flags);
        first->iov_len = size;
        n = __real_recvmsg(fd, message, flags);
        first->iov_len = before;
        return n;
}

/* The kernel does not look at signals where it need not wait. */
int __real_epoll_wait(int fd, struct epoll_event *events, int n, int msec);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int n, int msec);
int __wrap_epoll_wait(int fd, struct epoll_event *events, int n, int msec) {
        return msec != 0 && fails(FAULT_epoll_wait) ? -1 : __real_epoll_wait(fd, events, n, msec);
}

int __real_epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *t, const sigset_t *set);
int __wrap_epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *t, const sigset_t *set);
int __wrap_epoll_pwait2(int fd, struct epoll_event *events, int n, const struct timespec *t, const sigset_t *set) {
        bool waits = !t || t->tv_sec > 0 || t->tv_nsec > 0;

        return waits && fails(FAULT_epoll_pwait2) ? -1 : __real_epoll_pwait2(fd, events, n, t, set);
}

/* Only what is added takes memory. */
int __real_epoll_ctl(int fd, int operation, int what, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int operation, int what, struct epoll_event *event);
int __wrap_epoll_ctl(int fd, int operation, int what, struct epoll_event *event) {
        return operation == EPOLL_CTL_ADD && fails(FAULT_epoll_ctl) ? -1 : __real_epoll_ctl(fd, operation, what, event);
}

/* The same. FAN_MARK_ADD is 1. */
int __real_fanotify_mark(int fd, unsigned flags, uint64_t mask, int at, const char *path);
int __wrap_fanotify_mark(int fd, unsigned flags, uint64_t mask, int at, const char *path);
int __wrap_fanotify_mark(int fd, unsigned flags, uint64_t mask, int at, const char *path) {
        return flags & 1u && fails(FAULT_fanotify_mark) ? -1 : __real_fanotify_mark(fd, flags, mask, at, path);
}

/* ---- libraries whose allocations do well ----------------------------------------------------------------------------- */

#define WRAP_WHOLE(name, type, is_to_fail, failed, parameters, arguments)        \
        type __real_##name parameters;                                           \
        type __wrap_##name parameters;                                           \
        type __wrap_##name parameters {                                          \
                type r;                                                          \
                                                                                 \
                if (is_to_fail)                                                  \
                        return failed;                                           \
                inside = true;                                                   \
                r = __real_##name arguments;                                     \
                inside = false;                                                  \
                return r;                                                        \
        }

/* json-c 0.16 can't do without: it drops a member, or ends the program. And where newlocale(3), which it calls, finds no
 * memory, glibc 2.36 keeps its lock. */
WRAP_WHOLE(json_tokener_parse_ex, struct json_object *, false, NULL,
           (struct json_tokener *t, const char *text, int size), (t, text, size))
/* There are a thousand for each process; that there is no filter is one case. */
WRAP_WHOLE(seccomp_rule_add_array, int, false, -ENOMEM,
           (void *filter, uint32_t action, int call, unsigned n, const void *arguments),
           (filter, action, call, n, arguments))
WRAP_WHOLE(seccomp_load, int, fails(FAULT_seccomp_load), -errno, (void *filter), (filter))
/* libbpf 1.1 takes a want of memory for a program that isn't one, or a kernel without BTF. */
WRAP_WHOLE(bpf_object__open_skeleton, int, fails(FAULT_bpf_object__open_skeleton), -errno,
           (void *skeleton, const void *options), (skeleton, options))
WRAP_WHOLE(bpf_object__load_skeleton, int, fails(FAULT_bpf_object__load_skeleton), -errno, (void *skeleton), (skeleton))

/* ---- calls with more arguments than they tell of ------------------------------------------------------------- */

#define LAST_ARGUMENT(before, type, ret)           \
        do {                                       \
                va_list list;                      \
                                                   \
                va_start(list, before);            \
                *(ret) = va_arg(list, type);       \
                va_end(list);                      \
        } while (false)

int __real_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...);
int __wrap_open64(const char *path, int flags, ...) {
        mode_t mode;

        LAST_ARGUMENT(flags, mode_t, &mode);
        return fails(FAULT_open64) ? -1 : __real_open64(path, flags, mode);
}

int __real_openat64(int fd, const char *path, int flags, ...);
int __wrap_openat64(int fd, const char *path, int flags, ...);
int __wrap_openat64(int fd, const char *path, int flags, ...) {
        mode_t mode;

        LAST_ARGUMENT(flags, mode_t, &mode);
        return fails(FAULT_openat64) ? -1 : __real_openat64(fd, path, flags, mode);
}

/* A copy is what can fail. */
int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...) {
        long argument;

        LAST_ARGUMENT(command, long, &argument);
        return command == F_DUPFD_CLOEXEC && fails(FAULT_fcntl64) ? -1 : __real_fcntl64(fd, command, argument);
}

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...) {
        void *argument;

        LAST_ARGUMENT(request, void *, &argument);
        return fails(FAULT_ioctl) ? -1 : __real_ioctl(fd, request, argument);
}

/* What opens, and what lists. */
long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...) {
        long a[6];
        va_list list;

        va_start(list, number);
        for (size_t i = 0; i < ARRAY_SIZE(a); i++)
                a[i] = va_arg(list, long);
        va_end(list);
        if ((number == SYS_openat2 || number == SYS_getdents64 || number == SYS_fsopen || number == SYS_fsmount) &&
            fails(FAULT_syscall))
                return -1;
        return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
