/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A feed tells of all processes of the machine what happens to them: forks, programs, users, names, ends. It has a
 * thread that takes what the kernel says as soon as it can, reads what would have vanished by the time the loop looks,
 * and hands records over in chunks, in the kernel's order.
 *
 * What the kernel had no room for is counted, and said: a feed never keeps silent about a loss.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "mailbox.h"
#include "opener.h"
#include "process_info.h"

enum record_kind {
        RECORD_FORK = 1, /* pid, tid, parent: a thread where pid and tid differ. ids and comm, if the feed knows them */
        RECORD_EXEC,     /* pid; comm and exe where they could be read; ids, if the feed knows them */
        RECORD_EXIT,     /* pid, tid, parent, status: of one thread, or (is_last) of the process */
        RECORD_IDS,      /* pid; ids, where they could be read */
        RECORD_COMM,     /* pid, tid; comm */
        RECORD_CORE,     /* pid: it dies and leaves a core dump behind */
        RECORD_LOST,     /* something is missing here, or (unless is_certain) may be */
        RECORD_FORKS_LOST, /* count: so many forks more that no record told of */
        RECORD_MARK,     /* serial: all that had happened when it was asked for is behind */
};

struct record {
        uint8_t kind;
        bool knows_comm, knows_exe, knows_cgroup, knows_ids, is_last, is_certain;
        /* The thread's own: what it has read, as the kernel has not told it. */
        bool was_looked_at, read_comm, read_exe, read_cgroup, read_ids;
        pid_t pid, tid;  /* the process, and the thread */
        pid_t parent;    /* 0: not known */
        int status;      /* as of wait(2) */
        uint64_t nsec;   /* CLOCK_MONOTONIC */
        union {
                struct {
                        uint64_t cpu_usec, peak_bytes; /* EXIT, is_last */
                };
                struct {
                        bool knows_two; /* IDS without knows_ids: of the process's ids these */
                        uid_t real, effective;
                };
        };
        union {
                uint64_t serial, count;
                struct process_ids ids;
        };
        char comm[16];
        uint32_t exe, cgroup; /* where they are in the chunk's text */
};

enum { CHUNK_RECORDS = 1024, CHUNK_TEXT = 32 * 1024 };

/* chunk_free()d by whoever takes it out of the mailbox. */
struct chunk {
        struct list link;
        size_t n;
        size_t text_size;
        uint32_t cgroup; /* the last that was read, in the text; it begins with none, which is empty */
        struct record records[CHUNK_RECORDS];
        char text[CHUNK_TEXT];
};

struct feed_settings {
        size_t buffer_bytes; /* of the kernel's queue; 0: as the feed likes it */
        bool is_only;        /* no other feed is asked where this one is not to be had */
};

/* What the loop and the feed's thread share beside messages. */
struct feed_shared {
        atomic_bool wants_details; /* programs' names and paths are to be read */
        atomic_uint n_chunks;      /* handed over, and not freed yet */
        _Atomic(struct chunk *) spare; /* one to be used again: malloc() asks the kernel for what is so large */
        atomic_ullong n_received, n_lost; /* messages of the kernel */
        uint64_t notes_missing; /* KEV_NOTE_...: the feed can't tell. Set by open() */
};

struct broker;
struct feed;
struct state_reader;
struct state_writer;

/* A process that was made by one with that tag. */
struct tagged {
        pid_t pid;
        uint64_t id;
};

struct feed_class {
        const char *name;
        const char *title; /* of what is said of it, with a colon */
        bool knows_maker; /* RECORD_FORK's parent is who forked, and RECORD_EXIT comes before the process is a zombie */
        uint32_t helper;  /* HELPER_...: what opens it, and has tried it */
        /* With what the helper has opened, which is the feed's from here on, also where this fails; or by itself, NULL. A
         * negative errno, and why. */
        int (*open)(const struct feed_settings *settings, const struct opened *opened, struct mailbox *mailbox,
                    struct feed_shared *shared, struct feed **ret_feed, char *why, size_t why_size);
        void (*close)(struct feed *feed);
        /* Any record of what has happened by now comes before RECORD_MARK. */
        void (*mark)(struct feed *feed, uint64_t serial);
        /* May be NULL. Descendants that the process makes from now on are found by the id, which is used once, even
         * if their forks are lost. Ids below `oldest` are of no use any more. */
        void (*tag)(struct feed *feed, int pidfd, uint64_t id, uint64_t oldest);
        /* With tag(): all that are found, from any thread. -ENOMEM. */
        int (*list_tagged)(struct feed *feed, struct tagged **ret, size_t *ret_n);
        /* For the next daemon: stops to take what the kernel has, once all that was taken is in the mailbox, and writes
         * down what it takes to go on with the rest. False: it can't be gone on with. May be NULL. */
        bool (*save)(struct feed *feed, struct state_writer *w);
        /* As open(), with what save() has written. -EBADMSG. */
        int (*resume)(struct broker *opener, struct mailbox *mailbox, struct feed_shared *shared, struct state_reader *r,
                      struct feed **ret_feed);
};

extern const struct feed_class feed_bpf; /* in builds with HAVE_BPF */
extern const struct feed_class feed_connector;

/* In the broker's helper. */
open_fn feed_bpf_load; /* in builds with HAVE_BPF */

static inline void chunk_free(struct chunk *chunk, struct feed_shared *shared) {
        atomic_fetch_sub(&shared->n_chunks, 1);
        free(atomic_exchange(&shared->spare, chunk));
}

/* Behind the last chunk_free(). */
static inline void chunk_free_spare(struct feed_shared *shared) {
        free(atomic_exchange(&shared->spare, NULL));
}
