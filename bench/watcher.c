/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What all watchers have in common; and the two that live in this process: the
 * floor, and kevd's client.
 */

#include "watcher-class.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

enum {
        NAME_DIGITS = 8,
        NAME_LENGTH = 5 + NAME_DIGITS,
        IN_FORCE_SEC = 300,
        DRAIN_SEC = 60,
};

void watcher_file_name(char *name, uint64_t number) {
        (void)snprintf(name, WATCHER_NAME_SIZE, "kevd-%08u", (unsigned)number);
}

/* ---- the floor ------------------------------------------------------------------------------ */

static bool floor_attach(struct watcher *w, const char *tree) {
        struct walk walk = { .mask = walk_mask(w->events) };

        w->fd = walk.inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        bench_check_system(w->fd >= 0, "inotify_init1");
        walk_tree(&walk, tree);
        return true;
}

static bool floor_read(struct watcher *w, int timeout_msec) {
        struct pollfd ready = { .fd = w->fd, .events = POLLIN };
        ssize_t size;

        if (poll(&ready, 1, timeout_msec) <= 0)
                return false;
        size = read(w->fd, w->buffer, WATCHER_BUFFER);
        bench_check_system(size > 0 || errno == EAGAIN, "reading inotify");
        for (ssize_t i = 0; i < size;) {
                const struct inotify_event *event = (const struct inotify_event *)(const void *)(w->buffer + i);

                w->n_events++;
                if (event->len > NAME_LENGTH && strncmp(event->name, "kevd-", 5) == 0) {
                        w->n_read++;
                        w->told(strtoull(event->name + 5, NULL, 10), w->userdata);
                }
                i += (ssize_t)(sizeof(*event) + event->len);
        }
        return true;
}

static void floor_end(struct watcher *w) {
        w->fd = safe_close(w->fd);
}

/* ---- kevd ----------------------------------------------------------------------------------- */

/* For bench.h's functions about the daemon. */
static void choose_mechanism(const struct watcher *w) {
        (void)setenv("KEVD_FILE_MECHANISM", w->kind == WATCHER_KEVD_FANOTIFY ? "fanotify" : "inotify", 1);
}

static bool kevd_prepare(struct watcher *w, bool is_new) {
        char *empty _cleanup_(freep) = bench_path(w->bench, "empty");
        int64_t id;

        bench_check_system(mkdir(empty, 0700) == 0 || errno == EEXIST, empty);
        choose_mechanism(w);
        w->own = *w->bench;
        w->own.daemon = 0;
        (void)snprintf(w->own.address, sizeof(w->own.address), "unix:%s/socket-%d", w->bench->directory, (int)w->kind);
        daemon_start(&w->own);
        w->pid = w->own.daemon;
        w->kev = client_open(&w->own);
        if (is_new)
                return true;
        /* Its threads and helpers are there. With fanotify, whoever watches something on the file system keeps its
         * mark. */
        id = client_watch_tree(w->kev, empty, 0, NULL, NULL);
        if (w->kind == WATCHER_KEVD_FANOTIFY)
                return true;
        (void)bench_check(kev_remove(w->kev, id), w->kev, "removing the watch");
        daemon_wait_registrations(w->kev, 0);
        return true;
}

static void kevd_take(struct kev *kev _unused_, const struct kev_event *event, void *userdata) {
        const char *path = kev_event_path(event), *name = path ? strrchr(path, '/') : NULL;
        struct watcher *w = userdata;

        w->n_events += kev_event_count(event);
        if (!name || strncmp(name, "/kevd-", 6) != 0)
                return;
        w->n_read++;
        w->told(strtoull(name + 6, NULL, 10), w->userdata);
}

static bool kevd_attach(struct watcher *w, const char *tree) {
        uint64_t notes = w->events == WATCHER_CONTENT ? KEV_NOTE_CREATE | KEV_NOTE_WRITE : 0;

        w->id = client_watch_tree(w->kev, tree, notes, kevd_take, w);
        return true;
}

static bool kevd_read(struct watcher *w, int timeout_msec) {
        return bench_check(kev_dispatch(w->kev, timeout_msec), w->kev, "reading events") > 0;
}

static void kevd_end(struct watcher *w) {
        w->kev = kev_close(w->kev);
        daemon_stop(&w->own);
        (void)unlink(w->own.address + strlen("unix:"));
        w->pid = 0;
}

/* ---- all ------------------------------------------------------------------------------------ */

#define INOTIFYWAIT "/usr/bin/inotifywait"
#define FSNOTIFYWAIT "/usr/bin/fsnotifywait"
#define WATCHMAN "/usr/bin/watchman"
#define FSWATCH "/usr/bin/fswatch"
#define WATCHDOG "/usr/lib/python3/dist-packages/watchdog/observers"

const struct watcher_class watcher_classes[WATCHER_KINDS] = {
        [WATCHER_FLOOR] = { "floor", NULL, NULL, NULL, floor_attach, true, floor_read, floor_end },
        [WATCHER_KEVD_INOTIFY] = { "kevd, inotify", NULL, NULL, kevd_prepare, kevd_attach, true, kevd_read, kevd_end },
        [WATCHER_KEVD_FANOTIFY] = { "kevd, fanotify", NULL, NULL, kevd_prepare, kevd_attach, true, kevd_read,
                                    kevd_end },
        [WATCHER_INOTIFYWAIT] = { "inotifywait", INOTIFYWAIT, "-r", NULL, peer_attach_inotifywait, true, peer_read,
                                  peer_end },
        [WATCHER_FSNOTIFYWAIT] = { "fsnotifywait", FSNOTIFYWAIT, "-Fr", NULL, peer_attach_inotifywait, true, peer_read,
                                   peer_end },
        [WATCHER_FSNOTIFYWAIT_SYSTEM] = { "fsnotifywait -S", FSNOTIFYWAIT, "-S", NULL, peer_attach_inotifywait, true,
                                          peer_read, peer_end },
        [WATCHER_WATCHMAN] = { "watchman", WATCHMAN, "20", peer_prepare_watchman, peer_attach_watchman, true,
                               peer_read, peer_end },
        [WATCHER_WATCHMAN_FAST] = { "watchman, settle 1", WATCHMAN, "1", peer_prepare_watchman, peer_attach_watchman,
                                    true, peer_read, peer_end },
        [WATCHER_FSWATCH] = { "fswatch", FSWATCH, "1", NULL, peer_attach_fswatch, false, peer_read, peer_end },
        [WATCHER_FSWATCH_FAST] = { "fswatch -l 0.1", FSWATCH, "0.1", NULL, peer_attach_fswatch, false, peer_read,
                                   peer_end },
        [WATCHER_WATCHDOG] = { "watchdog", WATCHDOG, NULL, NULL, peer_attach_watchdog, false, peer_read, peer_end },
};

const char *watcher_name(enum watcher_kind kind) {
        return watcher_classes[kind].name;
}

bool watcher_is_there(enum watcher_kind kind) {
        static bool is_told[WATCHER_KINDS];
        const char *path = watcher_classes[kind].path, *why = NULL;

        /* fanotify_init(2) and fanotify_mark(2): a whole file system takes CAP_SYS_ADMIN */
        if ((kind == WATCHER_KEVD_FANOTIFY || kind == WATCHER_FSNOTIFYWAIT_SYSTEM) && geteuid() != 0)
                why = "it takes root";
        if (path && access(path, F_OK) < 0)
                why = "it is not installed";
        if (why && !is_told[kind]) {
                printf("skipped %s: %s\n", watcher_name(kind), why);
                is_told[kind] = true;
        }
        return !why;
}

bool watcher_prepare(struct watcher *w, const struct bench *b, enum watcher_kind kind, enum watcher_events events,
                     bool is_new) {
        const struct watcher_class *class = &watcher_classes[kind];

        *w = (struct watcher){ .kind = kind, .events = events, .bench = b, .fd = -1, .errors_fd = -1 };
        w->buffer = malloc(WATCHER_BUFFER);
        bench_check_system(w->buffer, "malloc");
        if (!class->prepare || class->prepare(w, is_new))
                return true;
        watcher_end(w);
        return false;
}

struct probe {
        int directory_fd;
        uint64_t made_nsec[4096];
        uint64_t n, told, told_last; /* the first that was told, and the latest, from 1 on; 0: none yet */
};

static void probe_told(uint64_t number, void *userdata) {
        struct probe *probe = userdata;

        if (number <= WATCHER_FILES_MAX)
                return;
        if (probe->told == 0)
                probe->told = number - WATCHER_FILES_MAX;
        probe->told_last = MAX(probe->told_last, number - WATCHER_FILES_MAX);
}

static void probe_make(struct probe *probe) {
        char name[WATCHER_NAME_SIZE];
        int fd;

        watcher_file_name(name, WATCHER_FILES_MAX + ++probe->n);
        probe->made_nsec[probe->n] = now_nsec();
        fd = openat(probe->directory_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        bench_check_system(fd >= 0, name);
        (void)close(fd);
}

/* The time between two is a hundredth of the time that has passed, so the figure is off by 1 % at most, or a
 * millisecond. Where it isn't the figure that counts there are fewer: all have to be told before anything else is. */
static uint64_t probe_pause(const struct watcher *w, uint64_t passed) {
        return w->events == WATCHER_CHANGES ? MAX(NSEC_PER_MSEC, passed / 100) : 50 * NSEC_PER_MSEC;
}

/* Files are made, until one of them is told: then the watch was in force when that was made. */
static bool probe_in_force(struct watcher *w, struct probe *probe, uint64_t start) {
        while (probe->told == 0) {
                uint64_t passed = now_nsec() - start, due;

                if (passed > IN_FORCE_SEC * NSEC_PER_SEC || probe->n + 2 >= ARRAY_SIZE(probe->made_nsec))
                        return false;
                probe_make(probe);
                due = probe->made_nsec[probe->n] + probe_pause(w, passed);
                for (uint64_t now = now_nsec(); probe->told == 0 && now < due; now = now_nsec())
                        (void)watcher_read(w, (int)((due - now) / NSEC_PER_MSEC) + 1);
                if (w->fd < 0)
                        return false;
        }
        return true;
}

/* What was told of the files, and of their end, is over when one more is told. */
static void probe_drain(struct watcher *w, struct probe *probe) {
        uint64_t deadline = now_nsec() + DRAIN_SEC * NSEC_PER_SEC;

        probe_make(probe);
        while (probe->told_last < probe->n && w->fd >= 0 && now_nsec() < deadline)
                (void)watcher_read(w, 100);
}

static void probe_remove(const struct probe *probe, uint64_t first) {
        char name[WATCHER_NAME_SIZE];

        for (uint64_t i = first; i <= probe->n; i++) {
                watcher_file_name(name, WATCHER_FILES_MAX + i);
                (void)unlinkat(probe->directory_fd, name, 0);
        }
}

static bool wait_in_force(struct watcher *w, const char *last, uint64_t start, uint64_t *ret_nsec) {
        struct probe probe = { .directory_fd = open(last, O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
        uint64_t n;
        bool ok;

        bench_check_system(probe.directory_fd >= 0, last);
        w->told = probe_told;
        w->userdata = &probe;
        ok = probe_in_force(w, &probe, start);
        n = probe.n;
        probe_remove(&probe, 1);
        if (ok)
                probe_drain(w, &probe);
        probe_remove(&probe, n + 1);
        (void)close(probe.directory_fd);
        if (ok)
                *ret_nsec = probe.made_nsec[probe.told] - start;
        return ok;
}

bool watcher_attach(struct watcher *w, const char *tree, const char *last, watcher_told *told, void *userdata,
                    uint64_t *ret_nsec) {
        const struct watcher_class *class = &watcher_classes[w->kind];
        uint64_t start = now_nsec();

        w->told = told;
        w->userdata = userdata;
        if (!class->attach(w, tree)) {
                printf("left out: %s: no watch came into force\n", watcher_name(w->kind));
                peer_explain(w);
                return false;
        }
        *ret_nsec = now_nsec() - start;
        if (!class->tells_in_force && !wait_in_force(w, last, start, ret_nsec)) {
                printf("left out: %s: it told nothing\n", watcher_name(w->kind));
                peer_explain(w);
                return false;
        }
        w->told = told;
        w->userdata = userdata;
        return true;
}

bool watcher_read(struct watcher *w, int timeout_msec) {
        return watcher_classes[w->kind].read(w, timeout_msec);
}

void watcher_end(struct watcher *w) {
        watcher_classes[w->kind].end(w);
        free(take_pointer(&w->buffer));
}

uint64_t watcher_cpu_nsec(const struct watcher *w) {
        return w->pid > 0 ? usage_read(w->pid).cpu_nsec : 0;
}

/* What is no file's; 0 if the process has ended. */
static uint64_t private_bytes(pid_t pid) {
        char path[64], line[256];
        uint64_t kib = 0;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", (int)pid);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file))
                if (sscanf(line, "Anonymous: %" SCNu64, &kib) == 1)
                        break;
        if (file)
                (void)fclose(file);
        return kib * 1024;
}

/* proc(5): CONFIG_PROC_CHILDREN; where that is missing, children are not counted. kevd's are of its first thread. */
static uint64_t memory_of(pid_t pid) {
        uint64_t bytes = private_bytes(pid);
        char path[64];
        FILE *file;
        int child;

        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
        file = fopen(path, "re");
        while (file && fscanf(file, "%d", &child) == 1)
                bytes += memory_of(child);
        if (file)
                (void)fclose(file);
        return bytes;
}

uint64_t watcher_memory(const struct watcher *w) {
        return w->pid > 0 ? memory_of(w->pid) : 0;
}
