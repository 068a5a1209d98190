/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "process_info.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "event.h"
#include "macro.h"

/* With a NUL behind it. */
static int read_file(const char *path, char *text, size_t size) {
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n;
        int r;

        if (fd < 0)
                return errno == ENOENT ? -ESRCH : -errno;
        n = read(fd, text, size - 1);
        r = n < 0 ? -errno : n == 0 ? -ESRCH : 0;
        (void)close(fd);
        text[MAX(n, 0)] = 0;
        return r;
}

static int read_of(pid_t pid, const char *name, char *text, size_t size) {
        char path[40];

        (void)snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
        return read_file(path, text, size);
}

/* The name is in parentheses and may hold anything. */
int process_read_stat(pid_t pid, struct process_stat *ret) {
        char line[1024], *p, *end;
        int r = read_of(pid, "stat", line, sizeof(line));

        if (r < 0)
                return r;
        if (!strchr(line, '\n'))
                return -EAGAIN; /* not the whole of it */
        p = strchr(line, '(');
        end = strrchr(line, ')');
        if (!p || !end || end < p)
                return -EBADMSG;
        *ret = (struct process_stat){ 0 };
        (void)snprintf(ret->comm, sizeof(ret->comm), "%.*s", (int)(end - p - 1), p + 1);
        p = end + 1;
        for (int field = 3; field <= 52 && *p == ' '; field++) {
                p++;
                if (field == 3)
                        ret->state = *p;
                else if (field == 4)
                        ret->parent = strtoll(p, NULL, 10);
                else if (field == 20)
                        ret->n_threads = strtoll(p, NULL, 10);
                else if (field == 22)
                        ret->start_time = strtoull(p, NULL, 10);
                else if (field == 52)
                        ret->status = (int)strtol(p, NULL, 10);
                p += strcspn(p, " \n");
        }
        return 0;
}

bool process_may_see_status(pid_t pid) {
        char path[40], target;

        (void)snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
        return readlink(path, &target, 1) == 1;
}

void process_describe_status(struct event_process *process, int status) {
        if ((status & 0x7f) == 0)
                process->exit_code = status >> 8 & 0xff;
        else {
                process->signal = status & 0x7f;
                process->core_dumped = status & 0x80;
        }
}

int process_read_ids(pid_t pid, struct process_ids *ret) {
        char text[2048];
        const char *p;
        int r = read_of(pid, "status", text, sizeof(text));

        if (r < 0)
                return r;
        p = strstr(text, "\nUid:");
        return p && sscanf(p + 5, "%u %u %u", &ret->real, &ret->effective, &ret->saved) == 3 ? 0 : -EBADMSG;
}

int process_read_comm(pid_t pid, char ret_comm[16]) {
        char text[64];
        int r = read_of(pid, "comm", text, sizeof(text));

        if (r < 0)
                return r;
        text[strcspn(text, "\n")] = 0;
        (void)snprintf(ret_comm, 16, "%.15s", text);
        return 0;
}

int process_read_cgroup(pid_t pid, char *path, size_t size) {
        char text[8192];
        const char *p;
        int r;

        text[0] = 0;
        r = read_of(pid, "cgroup", text, sizeof(text));
        if (r < 0)
                return r;
        p = strncmp(text, "0::", 3) == 0 ? text : strstr(text, "\n0::");
        if (!p)
                return -ENODATA;
        p += *p == '\n' ? 4 : 3;
        (void)snprintf(path, size, "%.*s", (int)strcspn(p, "\n"), p);
        return 0;
}

static short poll_now(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };

        return poll(&p, 1, 0) > 0 ? p.revents : 0;
}

bool pidfd_has_hung_up(int pidfd) {
        return poll_now(pidfd) & POLLHUP;
}

bool pidfd_has_ended(int pidfd) {
        return poll_now(pidfd) & (POLLIN | POLLHUP);
}

/* By its name, of which the kernel asks nobody. Some have had the inode's number in it. */
static bool is_pidfd(int fd) {
        static const char name[] = "anon_inode:[pidfd]", numbered[] = "pidfd:[";
        char path[48], target[64];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof(target) - 1);
        target[MAX(n, 0)] = 0;
        return strcmp(target, name) == 0 || strncmp(target, numbered, sizeof(numbered) - 1) == 0;
}

/* "Pid:" in /proc/self/fdinfo. That of anything else may be of any length, or wait for a lock which its owner has. */
int pidfd_get_pid(int pidfd, pid_t *ret_pid) {
        char path[48], text[512];
        const char *p;
        int r;

        if (!is_pidfd(pidfd))
                return -EBADF;
        (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
        r = read_file(path, text, sizeof(text));
        if (r < 0)
                return r;
        p = strstr(text, "\nPid:");
        if (!p)
                return -EBADF;
        *ret_pid = (pid_t)strtol(p + 5, NULL, 10);
        return 0;
}

uint64_t pidfd_inode(int pidfd) {
        struct statfs fs;
        struct stat st;

        return fstatfs(pidfd, &fs) == 0 && fs.f_type == PID_FS_MAGIC && fstat(pidfd, &st) == 0 ? st.st_ino : 0;
}

uint64_t pidfd_identity(int pidfd, pid_t pid) {
        struct process_stat line = { 0 };
        uint64_t inode = pidfd_inode(pidfd);

        if (inode != 0)
                return inode;
        (void)process_read_stat(pid, &line);
        return line.start_time;
}

bool pidfd_get_info(int pidfd, uint64_t mask, struct pidfd_info *ret) {
        *ret = (struct pidfd_info){ .mask = mask };
        return ioctl(pidfd, PIDFD_GET_INFO, ret) == 0;
}

int pidfd_read_ids(int pidfd, pid_t pid, struct process_ids *ret) {
        struct pidfd_info info;
        int r;

        if (pidfd_get_info(pidfd, PIDFD_INFO_PID | PIDFD_INFO_CREDS, &info) && (info.mask & PIDFD_INFO_CREDS)) {
                *ret = (struct process_ids){ info.ruid, info.euid, info.suid };
                return 0;
        }
        r = process_read_ids(pid, ret);
        return r == 0 && pidfd_has_hung_up(pidfd) ? -ESRCH : r;
}
