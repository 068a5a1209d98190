/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "holdings.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "macro.h"

static bool starts_with(const char *line, const char *start) {
        return strncmp(line, start, strlen(start)) == 0;
}

static FILE *open_of(pid_t pid, const char *name) {
        char path[128];

        (void)snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, name);
        return fopen(path, "re");
}

static void add_status(pid_t pid, struct holdings *h) {
        FILE *file = open_of(pid, "status");
        char line[256];

        while (file && fgets(line, sizeof(line), file))
                if (starts_with(line, "Threads:"))
                        h->threads += strtoull(line + strlen("Threads:"), NULL, 10);
        if (file)
                (void)fclose(file);
        file = open_of(pid, "smaps_rollup");
        while (file && fgets(line, sizeof(line), file))
                if (starts_with(line, "Rss:"))
                        h->rss_bytes += strtoull(line + strlen("Rss:"), NULL, 10) * 1024;
                else if (starts_with(line, "Anonymous:"))
                        h->heap_bytes += strtoull(line + strlen("Anonymous:"), NULL, 10) * 1024;
        if (file)
                (void)fclose(file);
}

static void add_descriptor(int directory, const char *name, struct holdings *h) {
        int fd = openat(directory, name, O_RDONLY | O_CLOEXEC);
        FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
        char line[512];

        if (!file) {
                (void)safe_close(fd);
                return; /* closed meanwhile */
        }
        h->descriptors++;
        while (fgets(line, sizeof(line), file)) {
                h->watches += starts_with(line, "inotify wd:");
                h->marks += starts_with(line, "fanotify ino:") || starts_with(line, "fanotify mnt_id:") ||
                            starts_with(line, "fanotify sdev:");
                h->polled += starts_with(line, "tfd:");
        }
        (void)fclose(file);
}

static void add_process(pid_t pid, struct holdings *h) {
        struct dirent *entry;
        char path[64];
        DIR *directory;

        (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo", (int)pid);
        directory = opendir(path);
        if (!directory)
                return;
        h->processes++;
        while ((entry = readdir(directory)))
                if (entry->d_name[0] != '.')
                        add_descriptor(dirfd(directory), entry->d_name, h);
        (void)closedir(directory);
        add_status(pid, h);
}

/* proc_tid_children(5) */
static size_t add_children(pid_t pid, pid_t *family, size_t n) {
        char path[64];
        struct dirent *entry;
        DIR *threads;

        (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        threads = opendir(path);
        while (threads && (entry = readdir(threads))) {
                FILE *file;
                int child;

                (void)snprintf(path, sizeof(path), "task/%.16s/children", entry->d_name);
                file = entry->d_name[0] == '.' ? NULL : open_of(pid, path);
                while (file && n < HOLDINGS_FAMILY_MAX && fscanf(file, "%d", &child) == 1)
                        family[n++] = child;
                if (file)
                        (void)fclose(file);
        }
        if (threads)
                (void)closedir(threads);
        return n;
}

size_t holdings_family(pid_t daemon, pid_t family[HOLDINGS_FAMILY_MAX]) {
        size_t n = 1;

        family[0] = daemon;
        for (size_t i = 0; i < n; i++)
                n = add_children(family[i], family, n);
        return n;
}

static bool has_name(pid_t pid, const char *name) {
        FILE *file = open_of(pid, "comm");
        char comm[32] = "";
        bool has;

        if (!file)
                return false;
        has = fgets(comm, sizeof(comm), file) && strcspn(comm, "\n") == strlen(name) && starts_with(comm, name);
        (void)fclose(file);
        return has;
}

size_t holdings_named(pid_t daemon, const char *name) {
        pid_t family[HOLDINGS_FAMILY_MAX];
        size_t n = holdings_family(daemon, family), n_named = 0;

        for (size_t i = 0; i < n; i++)
                n_named += has_name(family[i], name);
        return n_named;
}

struct holdings holdings_read(pid_t daemon) {
        struct holdings h = { 0 };
        pid_t family[HOLDINGS_FAMILY_MAX];
        size_t n = holdings_family(daemon, family);

        for (size_t i = 0; i < n; i++)
                add_process(family[i], &h);
        return h;
}

static void list_descriptors(pid_t pid, FILE *file) {
        struct dirent *entry;
        char path[64];
        DIR *directory;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        directory = opendir(path);
        while (directory && (entry = readdir(directory))) {
                char link[256];
                ssize_t n = readlinkat(dirfd(directory), entry->d_name, link, sizeof(link));

                if (n > 0)
                        (void)fprintf(file, "%d: %s %.*s\n", (int)pid, entry->d_name, (int)n, link);
        }
        if (directory)
                (void)closedir(directory);
}

void holdings_list(pid_t daemon, FILE *file) {
        pid_t family[HOLDINGS_FAMILY_MAX];
        size_t n = holdings_family(daemon, family);

        for (size_t i = 0; i < n; i++)
                list_descriptors(family[i], file);
}

size_t holdings_descriptors(pid_t daemon) {
        char path[64];
        struct stat st;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)daemon);
        return stat(path, &st) == 0 ? (size_t)st.st_size : 0; /* 0 before Linux 6.2 */
}

static const struct {
        const char *name;
        size_t offset;
} figures[] = {
        { "processes", offsetof(struct holdings, processes) },
        { "threads", offsetof(struct holdings, threads) },
        { "descriptors", offsetof(struct holdings, descriptors) },
        { "inotify watches", offsetof(struct holdings, watches) },
        { "fanotify marks", offsetof(struct holdings, marks) },
        { "polled descriptors", offsetof(struct holdings, polled) },
};

static size_t figure(const struct holdings *h, size_t i) {
        size_t value;

        memcpy(&value, (const char *)h + figures[i].offset, sizeof(value));
        return value;
}

bool holdings_are_back(const struct holdings *now, const struct holdings *before) {
        for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
                if (figure(now, i) > figure(before, i))
                        return false;
        return true;
}

static int msec_since(const struct timespec *start) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (int)((now.tv_sec - start->tv_sec) * 1000 + (now.tv_nsec - start->tv_nsec) / 1000000);
}

int holdings_wait_back(pid_t daemon, const struct holdings *before, int timeout_msec, struct holdings *ret_last) {
        struct timespec start;

        (void)clock_gettime(CLOCK_MONOTONIC, &start);
        for (;;) {
                *ret_last = holdings_read(daemon);
                if (holdings_are_back(ret_last, before))
                        return msec_since(&start);
                if (msec_since(&start) > timeout_msec)
                        return -1;
                (void)nanosleep(&(struct timespec){ .tv_nsec = 50000000 }, NULL);
        }
}

const char *holdings_difference(const struct holdings *now, const struct holdings *before) {
        static char text[256];
        size_t size = 0;

        (void)snprintf(text, sizeof(text), "nothing");
        for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
                if (figure(now, i) > figure(before, i))
                        size += (size_t)snprintf(text + size, sizeof(text) - size, "%s%zu %s", size ? ", " : "",
                                                 figure(now, i) - figure(before, i), figures[i].name);
        return text;
}
