/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Programs that watch a tree, kevd one among them, all driven in the same way: so a benchmark measures each with the
 * same lines. What they tell is read by this process, which does no more with it than to find the numbers of files:
 * a benchmark makes files that are called watcher_file_name().
 *
 * In order: watcher_prepare(), watcher_attach(), watcher_read() as often as it takes, watcher_end(). Programs other
 * than kevd are started by the thread that prepares them, and end with it.
 */

#include <kev.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "bench.h"

enum watcher_kind {
        WATCHER_FLOOR, /* this process, with inotify: what any program could do itself */
        WATCHER_KEVD_INOTIFY,
        WATCHER_KEVD_FANOTIFY,
        WATCHER_INOTIFYWAIT,
        WATCHER_FSNOTIFYWAIT,        /* a mark on each directory */
        WATCHER_FSNOTIFYWAIT_SYSTEM, /* a mark on the file system, which tells what happens outside of the tree, too */
        WATCHER_WATCHMAN,            /* as it comes: it waits for 20 ms without a change */
        WATCHER_WATCHMAN_FAST,       /* for 1 ms */
        WATCHER_FSWATCH,             /* as it comes: it looks once a second */
        WATCHER_FSWATCH_FAST,        /* ten times a second, which is the most that it permits */
        WATCHER_WATCHDOG,            /* python3-watchdog */
        WATCHER_KINDS,
};

enum {
        WATCHER_NAME_SIZE = 16,
        WATCHER_FILES_MAX = 90000000, /* numbers are below it */
};

/* What is asked for; watchman, fswatch and watchdog take no such wish. */
enum watcher_events {
        WATCHER_CHANGES, /* all that kevd tells of a tree unless it is told otherwise */
        WATCHER_CONTENT, /* files that are made and written to: an operation is one event */
};

typedef void watcher_told(uint64_t number, void *userdata);

struct watcher {
        enum watcher_kind kind;
        enum watcher_events events;
        const struct bench *bench;
        struct bench own; /* kevd: its daemon */
        struct kev *kev;
        int64_t id;    /* kevd's watch */
        pid_t pid;     /* 0: there is no process beside this one */
        int fd;        /* its output, or inotify */
        int errors_fd; /* what it writes to stderr, where that is of use */
        char *buffer;  /* what was read and isn't a whole name yet */
        size_t size;
        uint64_t n_read; /* files that were told, however often */
        uint64_t n_events; /* floor: events; kevd: the sum of their counts; others: lines that they wrote */
        watcher_told *told;
        void *userdata;
};

const char *watcher_name(enum watcher_kind kind);
/* Says so, once, if it isn't. */
bool watcher_is_there(enum watcher_kind kind);

/* "kevd-00000017"; `name` has WATCHER_NAME_SIZE bytes. */
void watcher_file_name(char *name, uint64_t number);

/* All that doesn't belong to a watch: kevd and watchman are started, since others may use them already. `told` is run
 * by watcher_read(). `is_new`: kevd serves for the first time; else it has served a watch on the file system already.
 * False, and a sentence, where it doesn't work. */
bool watcher_prepare(struct watcher *w, const struct bench *b, enum watcher_kind kind, enum watcher_events events,
                     bool is_new);
/* Until the watch is in force. Where a program doesn't say when that is, files are made in `last`, the directory that a
 * walk comes to last. `ret_nsec` is how long it took. False, and a sentence, where it failed. */
bool watcher_attach(struct watcher *w, const char *tree, const char *last, watcher_told *told, void *userdata,
                    uint64_t *ret_nsec);
/* Reads what has come, and waits for it as long as `timeout_msec`. False when the time was up. */
bool watcher_read(struct watcher *w, int timeout_msec);
void watcher_end(struct watcher *w);

/* Of its process; 0 for the floor. */
uint64_t watcher_cpu_nsec(const struct watcher *w);
/* The private memory of its process and of those below that; 0 for the floor. */
uint64_t watcher_memory(const struct watcher *w);

/* ---- the least that a program has to do itself ---------------------------------------------- */

struct walk {
        int inotify_fd; /* -1: no watches, a bare walk */
        uint32_t mask;
        uint64_t n;      /* directories, counted */
        char *last;      /* with room for PATH_MAX bytes, or NULL */
        uint64_t every;  /* > 0: the path of each so-manieth goes into `samples` */
        char **samples;
        size_t n_samples, n_samples_max;
};

/* All that kevd asks of the kernel, too. */
uint32_t walk_mask(enum watcher_events events);
void walk_tree(struct walk *walk, const char *path);
