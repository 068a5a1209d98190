/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What the program in the kernel hands over: signals.bpf.c writes it, signal_feed_bpf.c reads it. */

enum { BPF_SIGNALS = 64, BPF_SIGNAL_TARGETS_MAX = 16384 };

/* A process whose signals are wanted, by its number. */
struct bpf_signal_target {
        unsigned long long identity; /* as of pidfd_identity(): else another has the number by now */
        unsigned int lost[BPF_SIGNALS]; /* that the ring had no room for, of each signal */
};

struct bpf_signal {
        int pid, number;
        unsigned int real, effective, saved; /* user ids of the target */
        int sender; /* 0: the kernel, or not known */
        unsigned int sender_uid, reserved;
        char sender_comm[16];
};
