/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Mounts that come and go: inotify and fanotify tell nothing of them. /proc/self/mountinfo
 * says that something has changed (proc_pid_mountinfo(5): POLLPRI); what, the
 * difference to the last reading says.
 */

#include <stdbool.h>

#include "hash.h"
#include "mux.h"

struct state_reader;
struct state_writer;

struct mounts {
        struct mux *mux;
        int fd; /* /proc/self/mountinfo, or -1 */
        struct mux_io io;
        struct hash table;
        uint64_t reading; /* how often it was read */
        uint64_t visible_reading; /* the reading of which it is known what can be seen */
        bool is_behind; /* the last reading failed, or has left something out: there is another soon */
        struct mux_timer retry_timer;
        /* The owner's: something else than before is to be seen at `path`; all of one reading is told; a change may
         * have been missed for want of memory. */
        void (*changed)(struct mounts *mounts, const char *path);
        void (*done)(struct mounts *mounts);
        void (*doubt)(struct mounts *mounts);
};

/* The owner's functions have to be set. Without /proc mounts are not followed, which is logged; for want of memory or
 * descriptors it is tried again. */
void mounts_open(struct mounts *mounts, struct mux *mux);
void mounts_close(struct mounts *mounts);
/* One that can be seen: no other covers it. */
struct mount_view {
        const char *path;
        bool is_kernels_own; /* a view of the kernel's state, or a trap that mounts something else: nothing to be watched */
        uint64_t changed; /* the last reading by which another than before may be seen there */
};

/* Whether there was a reading at all. */
static inline bool mounts_are_known(const struct mounts *mounts) {
        return mounts->reading > 0;
}

/* Calls `fn` for each as of the last reading; it must not lead to another. */
void mounts_for_each(struct mounts *mounts, void (*fn)(void *userdata, const struct mount_view *mount), void *userdata);
/* What was there at the last reading, for the next daemon; and what was there at the last reading of the one before:
 * mounts_compare() reads them and tells the difference. */
void mounts_save(const struct mounts *mounts, struct state_writer *w);
void mounts_load(struct mounts *mounts, struct state_reader *r);
void mounts_compare(struct mounts *mounts);
/* Whether the mount is there, and its place leads to it; true, too, if that can't be told. */
bool mounts_show(const struct mounts *mounts, uint64_t id);
/* Whether a mount of the device was there before the last reading already, and still is. */
bool mounts_has_lasting(const struct mounts *mounts, uint64_t device);
