/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* Between watcher.c and those that know how a program is driven. */

#include "watcher.h"

struct watcher_class {
        const char *name;     /* in the results */
        const char *path;     /* that has to be there, or NULL */
        const char *argument; /* for prepare and attach: what sets this one apart from others of its kind */
        bool (*prepare)(struct watcher *w, bool is_new);     /* or NULL */
        bool (*attach)(struct watcher *w, const char *tree); /* returns when it is in force, if it says so */
        bool tells_in_force;                                 /* else files are made until one is told */
        bool (*read)(struct watcher *w, int timeout_msec);
        void (*end)(struct watcher *w);
};

extern const struct watcher_class watcher_classes[WATCHER_KINDS];

enum { WATCHER_BUFFER = 65536 };

/* peer.c */
bool peer_attach_inotifywait(struct watcher *w, const char *tree);
bool peer_attach_fswatch(struct watcher *w, const char *tree);
bool peer_attach_watchdog(struct watcher *w, const char *tree);
bool peer_prepare_watchman(struct watcher *w, bool is_new);
bool peer_attach_watchman(struct watcher *w, const char *tree);
bool peer_read(struct watcher *w, int timeout_msec);
/* Prints why it doesn't work, as far as it said so. */
void peer_explain(const struct watcher *w);
void peer_end(struct watcher *w);
