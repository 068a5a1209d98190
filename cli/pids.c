/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pids.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <unistd.h>

static bool is_number(const char *text) {
        return *text && text[strspn(text, "0123456789")] == 0;
}

int pids_check(const struct command *command, const struct options *options, bool names) {
        uint64_t pid;

        for (int i = 0; i < options->n_arguments; i++) {
                const char *argument = options->arguments[i];

                if (names && *argument && !is_number(argument))
                        continue;
                if (number_read(argument, 1, INT_MAX, &pid) < 0) {
                        usage_error(command, "'%s' is not a process's number%s", argument, names ? " or name" : "");
                        return -EINVAL;
                }
        }
        return 0;
}

/* By the pidfd, unless that is negative. */
static int try_add(struct session *s, const char *pid, int pidfd, uint64_t notes) {
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_PROC, &watch);

        s->refusal = NULL;
        if (r == 0)
                r = pidfd < 0 ? kev_watch_set_pid(watch, (pid_t)strtol(pid, NULL, 10)) : kev_watch_set_fd(watch, pidfd);
        if (r == 0)
                r = kev_watch_set_notes(watch, notes);
        if (r == 0)
                r = session_try_add(s, watch, pid, false);
        kev_watch_free(watch);
        return r;
}

/* ---- those that run now -------------------------------------------------------- */

bool pids_read_comm(pid_t pid, char ret_comm[static PIDS_COMM_MAX]) {
        char path[40];
        size_t size;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
        file = fopen(path, "re");
        if (!file)
                return false;
        size = fread(ret_comm, 1, PIDS_COMM_MAX - 1, file);
        (void)fclose(file);
        if (size > 0 && ret_comm[size - 1] == '\n')
                size--;
        ret_comm[size] = 0;
        return size > 0;
}

/* Its real user. The owner of its directory is root while it may not be traced. */
static bool is_ours(pid_t pid) {
        char path[40], line[256];
        unsigned uid = 0;
        bool found = false;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
        file = fopen(path, "re");
        while (file && !found && fgets(line, sizeof(line), file))
                found = sscanf(line, "Uid: %u", &uid) == 1;
        if (file)
                (void)fclose(file);
        return found && uid == getuid();
}

/* comm is cut at 15 bytes: the program's file has the whole name. */
static bool is_called(pid_t pid, const char *name) {
        static const char deleted[] = " (deleted)";
        char comm[PIDS_COMM_MAX], path[40], exe[PATH_MAX], *last;
        ssize_t size;

        if (pids_read_comm(pid, comm) && strcmp(comm, name) == 0)
                return true;
        (void)snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
        size = readlink(path, exe, sizeof(exe) - 1);
        if (size <= 0)
                return false;
        exe[size] = 0;
        last = strrchr(exe, '/');
        last = last ? last + 1 : exe;
        size = (ssize_t)strlen(last) - (ssize_t)strlen(deleted);
        if (size > 0 && strcmp(last + size, deleted) == 0)
                last[size] = 0;
        return strcmp(last, name) == 0;
}

static bool has_ended(int pidfd) {
        struct pollfd p = { .fd = pidfd, .events = POLLIN };

        return poll(&p, 1, 0) != 0;
}

static bool is_watched(const struct session *s, const char *pid) {
        for (const struct subject *subject = s->subjects; subject; subject = subject->next)
                if (strcmp(subject->name, pid) == 0)
                        return true;
        return false;
}

/* Looked at and watched by one pidfd: its number may be another's a moment later. -ESRCH: it isn't one of them. */
static int try_add_running(struct session *s, const char *text, const char *name, bool everybodys, uint64_t notes) {
        pid_t pid = (pid_t)strtol(text, NULL, 10);
        int pidfd, r = -ESRCH;

        if (pid == getpid()) /* kev can't see its own end */
                return -ESRCH;
        pidfd = pidfd_open(pid, 0);
        if (pidfd < 0)
                return -errno;
        if ((everybodys || is_ours(pid)) && (!name || is_called(pid, name)) && !has_ended(pidfd))
                r = is_watched(s, text) ? 0 : try_add(s, text, pidfd, notes);
        (void)close(pidfd);
        return r;
}

size_t pids_add_running(struct session *s, const char *name, bool everybodys, uint64_t notes, int *ret_error) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        size_t n = 0;

        *ret_error = proc ? 0 : -errno;
        while (proc && *ret_error == 0 && (entry = readdir(proc))) {
                int r = is_number(entry->d_name) ? try_add_running(s, entry->d_name, name, everybodys, notes) : -ESRCH;

                if (r == 0)
                        n++;
                else if (r != -ESRCH) /* which is also: it has ended meanwhile */
                        *ret_error = r;
        }
        if (proc)
                (void)closedir(proc);
        return n;
}

/* ---- arguments ----------------------------------------------------------------- */

static void add_named(struct session *s, const char *name, uint64_t notes) {
        bool is_root = geteuid() == 0;
        int r;

        if (pids_add_running(s, name, is_root, notes, &r) == 0 && r == 0) {
                r = -ESRCH;
                s->refusal = is_root ? "no such process runs" : "no such process of yours runs";
        }
        if (r < 0)
                session_refuse(s, name, r, s->refusal);
}

void pids_add(struct session *s, uint64_t notes) {
        for (int i = 0; i < s->options->n_arguments; i++) {
                const char *argument = s->options->arguments[i];
                int r;

                if (!is_number(argument)) {
                        add_named(s, argument, notes);
                        continue;
                }
                r = try_add(s, argument, -1, notes);
                if (r < 0)
                        session_refuse(s, argument, r, s->refusal);
        }
}
