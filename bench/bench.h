/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the benchmarks share: a temporary directory, a kevd of their own, files
 * to be watched, and the figures of /proc.
 *
 * A benchmark may give up at any point: what can't be done ends the program with
 * a sentence and status 1. Whatever its end, the directory and the daemon go
 * with it. Nothing here judges a figure.
 */

#include <kev.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "macro.h"

/* ---- the program ------------------------------------------------------------------------ */

struct bench {
        const char *kevd;    /* the daemon's path */
        char directory[256]; /* temporary; empty at the start */
        char address[280];   /* of the daemon's socket, for kev_open() */
        bool system;         /* the daemon is the whole system's, which takes root, and everybody may connect */
        const char *option;  /* one more of the daemon's, or NULL */
        pid_t daemon;        /* 0: none runs */
};

/* --NAME=NUMBER, no less than `min`. `value` holds the default. */
struct bench_option {
        const char *name;
        long *value;
        long min;
        const char *help;
};

struct bench_program {
        const char *name, *purpose;
        const struct bench_option *options;
        size_t n_options;
        void (*run)(struct bench *b);
};

/* PROGRAM KEVD [OPTION...]. Returns the exit status. */
int bench_main(const struct bench_program *program, int argc, char **argv);

/* As fork(2), of a child that ends with its parent. Fails as bench_check_system() does. */
pid_t bench_fork(void);

_Noreturn void bench_fail(const char *format, ...) _printf_(1, 2);
/* Fails with the library's sentence if `r` is negative. Returns `r`. */
int bench_check(int r, const struct kev *kev, const char *what);
/* The same with errno's, if `ok` is false. */
void bench_check_system(bool ok, const char *what);

/* Appends to the temporary directory's path. The result is allocated. */
char *bench_path(const struct bench *b, const char *format, ...) _printf_(2, 3);

/* ---- the daemon and its clients ----------------------------------------------------------- */

/* With the file mechanism that $KEVD_FILE_MECHANISM names; inotify if it names none. */
void daemon_start(struct bench *b);
bool bench_is_on_fanotify(void);
void daemon_stop(struct bench *b);

struct kev *client_open(const struct bench *b);
/* Returns the watch's id. `notes` 0: the default ones. */
int64_t client_watch_tree(struct kev *kev, const char *path, uint64_t notes, kev_handler *handler, void *userdata);
/* Of the daemon's counters (org.kevd.manager.GetStatus). */
uint64_t daemon_counter(struct kev *kev, const char *name);
/* Watches, or marks, of the kernel that the daemon has for files. */
uint64_t daemon_registrations(struct kev *kev);
/* Waits until it has no more than `n`. */
void daemon_wait_registrations(struct kev *kev, uint64_t n);

/* ---- files ------------------------------------------------------------------------------- */

/* A directory with directories in it, `n_directories` with itself, `fan_out` in each as long as
 * there are more, and `n_files` empty files in each. */
void tree_make(const char *path, unsigned n_directories, unsigned fan_out, unsigned n_files);
void tree_remove(const char *path);
/* fs.inotify.max_user_watches */
uint64_t inotify_watches_max(void);

/* A writer of file events. */
struct storm {
        const char *directory;
        unsigned n_directories; /* in it, made by storm_begin(); they take turns */
        bool rewrite; /* false: a file is made, written to, closed and removed, four events; true: a byte is written
                       * to a file that is open, one event */
        uint64_t n_events;
        unsigned writer; /* names of different writers differ */
        const atomic_ullong *seen; /* the writer is about `window` events ahead of it at most; NULL: it never waits */
        uint64_t window;
        int fd;   /* of the directory */
        int *fds; /* rewrite: a file in each */
        uint64_t *last_nsec; /* rewrite: when the last write to each began */
};

enum { STORM_CYCLE = 4 }; /* n_events is a multiple of it */

/* All that has to be there; before anybody watches. */
void storm_begin(struct storm *storm);
/* For pthread_create(3), too: `storm` is a struct storm. */
void *storm_run(void *storm);
void storm_end(struct storm *storm);

/* ---- figures ------------------------------------------------------------------------------ */

uint64_t now_nsec(void);        /* CLOCK_MONOTONIC */
uint64_t thread_cpu_nsec(void); /* of the caller */
void sleep_msec(unsigned msec);

/* Sorts. */
void sort_u64(uint64_t *values, size_t n);
/* The nearest rank, `fraction` from 0 to 1, of sorted values; 0 if there are none. */
uint64_t percentile(const uint64_t *sorted, size_t n, double fraction);

struct usage {
        uint64_t cpu_nsec;       /* user and system, all threads, since its start */
        uint64_t rss_bytes;      /* now */
        uint64_t peak_rss_bytes; /* since its start */
        uint64_t private_bytes;  /* of rss: what is not a file's */
};

struct usage usage_read(pid_t pid);

struct thread_switches {
        pid_t tid;
        uint64_t voluntary, involuntary;
};

/* Every thread's context switches. Returns how many threads there are, `n_max` at most. */
size_t switches_read(pid_t pid, struct thread_switches *threads, size_t n_max);
