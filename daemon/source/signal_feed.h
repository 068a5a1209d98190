/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Signals that are sent to chosen processes, as the kernel tells them. Everything runs on the loop.
 */

#include <stddef.h>

#include "opener.h"
#include "process_info.h"

struct signal_record {
        pid_t pid;
        int number;
        uint64_t count;   /* more than 1: the rest is not known of them */
        bool knows_ids;
        struct process_ids ids; /* the target's, as it was sent */
        pid_t sender;     /* 0: the kernel, or not known */
        uid_t sender_uid;
        const char *sender_comm;
};

/* True: that is enough for now. */
typedef bool signal_feed_fn(void *userdata, const struct signal_record *record);

/* What had been sent at some moment: compared by the feed. */
struct signal_position {
        uint64_t ring, lost;
};

struct signal_feed;

struct signal_feed_class {
        uint32_t helper; /* HELPER_...: what opens it */
        /* With what that has opened, which is the feed's from here on, also where this fails. Tries it, on the daemon
         * itself. Negative errno, and why. */
        int (*open)(const struct opened *opened, signal_feed_fn *fn, void *userdata, struct signal_feed **ret, char *why,
                    size_t why_size);
        void (*close)(struct signal_feed *feed);
        /* The socket of the helper without which it hears nothing, or -1. */
        int (*helper_socket)(const struct signal_feed *feed);
        /* Readable: there are records. */
        int (*fd)(const struct signal_feed *feed);
        /* Hands over what there is, and what there was no room for, until that is enough. False: that was not all. Called
         * again, it goes on: each has its turn, whatever is sent meanwhile. */
        bool (*read)(struct signal_feed *feed);
        /* A signal is in front of it once the call that sends it has returned. */
        struct signal_position (*position)(const struct signal_feed *feed);
        /* Whether all in front of it was handed over. */
        bool (*is_past)(const struct signal_feed *feed, const struct signal_position *position);
        /* `identity`: as of pidfd_identity(). -ENOSPC, or another negative errno. */
        int (*follow)(struct signal_feed *feed, pid_t pid, uint64_t identity);
        void (*leave)(struct signal_feed *feed, pid_t pid);
};

extern const struct signal_feed_class signal_feed_bpf; /* in builds with HAVE_BPF */

/* In the broker's helper. */
open_fn signal_feed_bpf_load; /* in builds with HAVE_BPF */
