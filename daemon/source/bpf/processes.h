/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the program in the kernel hands over: processes.bpf.c writes it, feed_bpf.c reads it. */

/* Another one with each change of what is told and kept: the next daemon may be of another version. */
enum { BPF_FORMAT = 1 };

enum bpf_record_kind {
        BPF_RECORD_FORK = 1, /* of processes; `parent` is who made it */
        BPF_RECORD_EXEC,
        BPF_RECORD_EXIT, /* of the last thread; `status` is the process's */
        BPF_RECORD_IDS,
        BPF_RECORD_COMM,
};

struct bpf_record {
        unsigned int kind;
        int pid, parent; /* parent: EXIT's is who may reap it */
        int status;
        unsigned int real, effective, saved; /* user ids */
        unsigned int reserved;
        unsigned long long nsec; /* CLOCK_MONOTONIC */
        unsigned long long cpu_nsec, peak_pages; /* EXIT */
        char comm[16];
};

/* Who follows a process: numbers of watches, which are never used again. Its children have them from the fork on, so
 * that they are found even if the ring had no room for that. 0: none. */
enum { BPF_TAGS = 4 };

struct bpf_tags {
        unsigned long long ids[BPF_TAGS];
};

/* What the iterator writes for each process that has tags. */
struct bpf_tagged {
        int pid, reserved;
        struct bpf_tags tags;
};

/* A storm of others may fill the ring, and then there is this for what is followed. */
enum { BPF_RESERVE_BYTES = 1024 * 1024 };

/* What the rings had no room for. */
struct bpf_losses {
        unsigned long long forks, others;
};
