/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "descriptor_look.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <linux/magic.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

#include "event.h"
#include "macro.h"
#include "unix_backlog.h"

enum {
        STRIDE = 4,        /* programs that pass many have opened them one after another, a few at a time */
        GUESSES_MAX = 512,
};

/* ---- what it is ------------------------------------------------------------------------------------------------- */

static bool get_option(int fd, int option, int *ret) {
        socklen_t size = sizeof(*ret);

        return getsockopt(fd, SOL_SOCKET, option, ret, &size) == 0;
}

static bool is_called(int fd, const char *name) {
        char path[64], target[64];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof(target) - 1);
        target[MAX(n, (ssize_t)0)] = 0;
        return strcmp(target, name) == 0;
}

/* Files in which the kernel shows its own state: some of them can be polled. A file of any other may be one whose
 * owner answers poll(2) when he likes. */
static bool is_kernels_own(int fd) {
        struct statfs fs;

        if (fstatfs(fd, &fs) < 0)
                return false;
        return fs.f_type == PROC_SUPER_MAGIC || fs.f_type == SYSFS_MAGIC || fs.f_type == CGROUP2_SUPER_MAGIC ||
               fs.f_type == CGROUP_SUPER_MAGIC || fs.f_type == DEBUGFS_MAGIC || fs.f_type == TRACEFS_MAGIC;
}

/* Opened for what is to be told of it. */
static bool can_be_used(int fd, enum kev_filter filter) {
        int flags = fcntl(fd, F_GETFL);

        return flags >= 0 && !(flags & O_PATH) && (flags & O_ACCMODE) != (filter == KEV_FILTER_READ ? O_WRONLY : O_ACCMODE);
}

static int find_kind(int fd, enum kev_filter filter, struct descriptor_handle *handle, const char **ret_message) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        handle->device = st.st_dev;
        handle->inode = st.st_ino;
        if (S_ISDIR(st.st_mode)) {
                *ret_message = "descriptor: a directory can't be read or polled; watch it with tree or vnode";
                return -EPERM;
        }
        if (S_ISREG(st.st_mode) && !can_be_used(fd, filter)) /* epoll(7) sees to the others */
                return -EBADF;
        if (S_ISREG(st.st_mode))
                handle->kind = is_kernels_own(fd) ? DESCRIPTOR_OTHER : DESCRIPTOR_FILE;
        else if (S_ISSOCK(st.st_mode))
                handle->kind = DESCRIPTOR_SOCKET;
        else if (S_ISFIFO(st.st_mode))
                handle->kind = DESCRIPTOR_PIPE;
        else
                handle->kind = is_called(fd, "anon_inode:[eventfd]") ? DESCRIPTOR_EVENTFD : DESCRIPTOR_OTHER;
        if (is_called(fd, "anon_inode:[eventpoll]")) {
                *ret_message = "descriptor: an epoll set may hold what keeps others waiting; pass what is in it";
                return -EPERM;
        }
        if (filter == KEV_FILTER_POLL && handle->kind == DESCRIPTOR_FILE) {
                *ret_message = "descriptor: a regular file is always ready, and epoll(7) takes none; read tells what is "
                               "appended";
                return -EPERM;
        }
        if (filter == KEV_FILTER_AIO && handle->kind != DESCRIPTOR_EVENTFD) {
                *ret_message = "descriptor: not an eventfd";
                return -EINVAL;
        }
        return 0;
}

static const char *sentence_for(int error) {
        switch (error) {
        case EPERM:
                return "descriptor: of a kind that can't be watched";
        case EBADF:
                return "descriptor: was opened with O_PATH, or not to be read";
        case ENOSPC:
                return "descriptor: the kernel's limit of what epoll watches is reached";
        case EMFILE:
        case ENFILE:
                return "descriptor: the daemon has no descriptor left";
        default:
                return "descriptor: can't be watched";
        }
}

int descriptor_open(int fd, enum kev_filter filter, uint32_t events, struct descriptor_handle *ret_handle,
                    const char **ret_message) {
        struct epoll_event event = { .events = events };
        int r;

        *ret_handle = (struct descriptor_handle){ .set = -1, .slot = fd, .number = -1, .serial = ret_handle->serial };
        *ret_message = NULL;
        r = find_kind(fd, filter, ret_handle, ret_message);
        if (r == 0 && ret_handle->kind != DESCRIPTOR_FILE) {
                ret_handle->set = epoll_create1(EPOLL_CLOEXEC);
                if (ret_handle->set < 0 || epoll_ctl(ret_handle->set, EPOLL_CTL_ADD, fd, &event) < 0)
                        r = -errno;
        }
        if (r == 0)
                return 0;
        if (!*ret_message)
                *ret_message = sentence_for(-r);
        ret_handle->set = safe_close(ret_handle->set);
        return r;
}

uint32_t descriptor_ready(const struct descriptor_handle *handle) {
        struct epoll_event event;

        return epoll_wait(handle->set, &event, 1, 0) == 1 ? event.events : 0;
}

/* ---- the owner's number ------------------------------------------------------------------------------------------- */

static bool is_same_file(const struct descriptor_handle *handle, const struct stat *st) {
        return st->st_dev == handle->device && st->st_ino == handle->inode;
}

static bool has_file(const struct descriptor_handle *handle, pid_t pid, int number) {
        char path[64];
        struct stat st;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", pid, number);
        return stat(path, &st) == 0 && is_same_file(handle, &st);
}

/* Whether `number` of that process is what the set has; without a set, what `fd` is or, if that is -1, the same file:
 * the one that was found first may have been a copy, as libkev makes them. */
static bool is_it(const struct descriptor_handle *handle, pid_t pid, int number, pid_t holder, int fd) {
        struct kcmp_epoll_slot slot = { .efd = (uint32_t)handle->set, .tfd = (uint32_t)handle->slot };

        if (handle->set >= 0)
                return syscall(SYS_kcmp, pid, holder, KCMP_EPOLL_TFD, (long)number, &slot) == 0;
        if (fd < 0)
                return has_file(handle, pid, number);
        return syscall(SYS_kcmp, pid, holder, KCMP_FILE, (long)number, (long)fd) == 0;
}

static int search(const struct descriptor_handle *handle, pid_t pid, pid_t holder, int fd) {
        char path[64];
        struct dirent *entry;
        int found = -1;
        DIR *directory;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        directory = opendir(path);
        if (!directory)
                return -1;
        while (found < 0 && (entry = readdir(directory)))
                if (entry->d_name[0] != '.' && is_it(handle, pid, atoi(entry->d_name), holder, fd))
                        found = atoi(entry->d_name);
        (void)closedir(directory);
        return found;
}

/* From the one that was found last on, as far as the number of what was passed since says. */
static int guess(const struct descriptor_handle *handle, const struct descriptor_owner *owner, pid_t holder, int fd) {
        uint64_t found = atomic_load(&owner->found);
        int last = (int)(uint32_t)found, distance = (int32_t)(handle->serial - (uint32_t)(found >> 32));
        int step = distance < 0 ? -1 : 1, n = MIN(STRIDE * (distance * step + 1), GUESSES_MAX);

        for (int number = last; n > 0 && number >= 0; number += step, n--)
                if (is_it(handle, owner->pid, number, holder, fd))
                        return number;
        return -1;
}

void descriptor_find(struct descriptor_handle *handle, struct descriptor_owner *owner, pid_t holder, int fd) {
        handle->number = owner->pidfd < 0 ? -1 : guess(handle, owner, holder, fd);
        if (handle->number < 0 && owner->pidfd >= 0)
                handle->number = search(handle, owner->pid, holder, fd);
        if (handle->number >= 0)
                atomic_store(&owner->found, (uint64_t)handle->serial << 32 | (uint32_t)handle->number);
}

/* A regular file is taken for the one that was passed if it is the same file. */
static bool is_of(const struct descriptor_handle *handle, pid_t holder, int fd) {
        struct stat st;

        if (handle->set >= 0)
                return is_it(handle, getpid(), fd, holder, -1);
        return fstat(fd, &st) == 0 && is_same_file(handle, &st) && S_ISREG(st.st_mode);
}

bool descriptor_is(const struct descriptor_handle *handle, int fd) {
        return is_of(handle, getpid(), fd);
}

static bool may_be_asked(const struct descriptor_owner *owner, pid_t holder) {
        return syscall(SYS_kcmp, owner->pid, holder, KCMP_FILE, 0L, 0L) >= 0 || errno != EPERM;
}

/* It may have closed that number, and have something else there. */
static int get_known(const struct descriptor_handle *handle, const struct descriptor_owner *owner, pid_t holder) {
        int fd = handle->number < 0 ? -1 : pidfd_getfd(owner->pidfd, handle->number, 0);

        if (fd < 0)
                return handle->number < 0 ? -EBADF : -errno;
        if (is_of(handle, holder, fd))
                return fd;
        (void)close(fd);
        return -EBADF;
}

int descriptor_get(struct descriptor_handle *handle, struct descriptor_owner *owner, pid_t holder) {
        int fd = get_known(handle, owner, holder);

        if (fd != -EBADF)
                return fd;
        descriptor_find(handle, owner, holder, -1);
        return handle->number >= 0 || may_be_asked(owner, holder) ? get_known(handle, owner, holder) : -EPERM;
}

int descriptor_reopen(int fd, uint32_t events, int *ret_set, int *ret_slot) {
        struct epoll_event event = { .events = events };
        int set _cleanup_(closep) = epoll_create1(EPOLL_CLOEXEC);

        if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0)
                return -errno;
        *ret_slot = fd;
        *ret_set = take_fd(&set);
        return 0;
}

/* ---- figures -------------------------------------------------------------------------------------------------------- */

/* proc(5): /proc/PID/fdinfo; in hexadecimal. */
static int64_t eventfd_count(int fd) {
        char path[64], text[512];
        const char *line;
        int info _cleanup_(closep) = -1;
        uint64_t count;
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        info = open(path, O_RDONLY | O_CLOEXEC);
        n = info < 0 ? -1 : read(info, text, sizeof(text) - 1);
        if (n <= 0)
                return ABSENT;
        text[n] = 0;
        line = strstr(text, "eventfd-count:");
        if (!line)
                return ABSENT;
        count = strtoull(line + strlen("eventfd-count:"), NULL, 16);
        return (int64_t)MIN(count, (uint64_t)INT64_MAX);
}

static int64_t ask_number(int fd, unsigned long request) {
        int n = 0;

        return ioctl(fd, request, &n) < 0 ? ABSENT : n;
}

static bool listens(int fd) {
        int listens;

        return get_option(fd, SO_ACCEPTCONN, &listens) && listens;
}

static int64_t backlog(const struct descriptor_handle *handle, int fd) {
        struct tcp_info info;
        socklen_t size = sizeof(info);
        int domain;

        if (get_option(fd, SO_DOMAIN, &domain) && domain == AF_UNIX)
                return unix_backlog(handle->inode);
        if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0)
                return ABSENT;
        return info.tcpi_unacked; /* of a listener: its queue, tcp(7) */
}

static int64_t to_read(const struct descriptor_handle *handle, int fd) {
        struct stat st;
        int64_t n;
        off_t at;

        if (handle->kind == DESCRIPTOR_EVENTFD)
                return eventfd_count(fd);
        if (handle->kind == DESCRIPTOR_SOCKET && listens(fd))
                return backlog(handle, fd);
        if (handle->kind != DESCRIPTOR_FILE) {
                n = ask_number(fd, FIONREAD);
                return n < 0 ? ABSENT : n; /* a file of proc(5) has no size */
        }
        at = lseek(fd, 0, SEEK_CUR);
        return at < 0 || fstat(fd, &st) < 0 ? ABSENT : st.st_size - at;
}

/* What is left of so much. */
static int64_t rest(int64_t size, int64_t used) {
        return size < 0 || used == ABSENT ? ABSENT : MAX(size - used, (int64_t)0);
}

static int64_t room(const struct descriptor_handle *handle, int fd) {
        int size;

        if (handle->kind == DESCRIPTOR_SOCKET)
                return get_option(fd, SO_SNDBUF, &size) ? rest(size, ask_number(fd, SIOCOUTQ)) : ABSENT;
        if (handle->kind == DESCRIPTOR_PIPE)
                return rest(fcntl(fd, F_GETPIPE_SZ), ask_number(fd, FIONREAD));
        if (handle->kind == DESCRIPTOR_EVENTFD) /* which holds 2^64-2 at most, but no figure here is that long */
                return rest(INT64_MAX, eventfd_count(fd));
        return handle->kind == DESCRIPTOR_FILE ? 0 : ABSENT;
}

int64_t descriptor_figure(const struct descriptor_handle *handle, enum kev_filter filter, int fd) {
        if (filter == KEV_FILTER_READ)
                return to_read(handle, fd);
        return filter == KEV_FILTER_WRITE ? room(handle, fd) : eventfd_count(fd);
}
