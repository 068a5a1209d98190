/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the program in the kernel hands over: processes.bpf.c writes it, feed_bpf.c reads it. */

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
        char comm[16];
};

/* What the ring had no room for. */
struct bpf_losses {
        unsigned long long forks, others;
};
