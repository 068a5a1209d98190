/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Signals as they are sent, whether they are ignored, blocked, pending already or handled (bpf(2), bpf-helpers(7)). Only
 * what is used of the kernel's structures is declared here: where it lies is found out as the program is loaded
 * (CO-RE).
 */

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "signals.h"

enum { NSEC_PER_TICK = 10000000 }; /* USER_HZ is 100 everywhere but on Alpha and Itanium */

/* <linux/signal.h>: what stands in the place of a siginfo; <asm-generic/siginfo.h>. */
enum { FROM_USER = 0, FROM_KERNEL = 1, CODE_USER = 0, CODE_QUEUE = -1, CODE_THREAD = -6 };

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
        unsigned int val;
} kuid_t;

struct cred {
        kuid_t uid, euid, suid;
};

struct pid {
        unsigned long long ino; /* in pidfs, Linux 6.9 */
};

struct task_struct {
        int tgid;
        struct task_struct *group_leader;
        struct pid *thread_pid;
        unsigned long long start_boottime;
        char comm[16];
        const struct cred *real_cred;
};

struct kernel_siginfo {
        int si_code;
};

#pragma clang attribute pop

struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, 4096); /* as the loader likes it */
} records SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, BPF_SIGNAL_TARGETS_MAX);
        __type(key, int);
        __type(value, struct bpf_signal_target);
} targets SEC(".maps");

unsigned long long n_lost;

/* process_info.c, pidfd_identity() */
static unsigned long long identity_of(struct task_struct *leader) {
        struct pid *pid = leader->thread_pid;

        if (bpf_core_field_exists(pid->ino))
                return pid ? pid->ino : 0;
        return leader->start_boottime / NSEC_PER_TICK;
}

/* Whether the process that runs here has sent it: others come from the kernel, whoever runs. */
static int is_from_current(const struct kernel_siginfo *info) {
        int code = 0;

        if ((unsigned long)info == FROM_USER)
                return 1;
        if ((unsigned long)info == FROM_KERNEL)
                return 0;
        if (bpf_core_read(&code, sizeof(code), &info->si_code) < 0)
                return 0;
        return code == CODE_USER || code == CODE_QUEUE || code == CODE_THREAD;
}

SEC("tp_btf/signal_generate")
int BPF_PROG(on_signal, int number, struct kernel_siginfo *info, struct task_struct *task) {
        struct task_struct *target = task->group_leader, *sender;
        struct bpf_signal_target *wanted;
        struct bpf_signal *r;
        int pid = task->tgid;

        wanted = bpf_map_lookup_elem(&targets, &pid);
        if (!wanted || wanted->identity != identity_of(target) || number < 1 || number > BPF_SIGNALS)
                return 0;
        r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);
        if (!r) {
                __sync_fetch_and_add(&wanted->lost[(number - 1) % BPF_SIGNALS], 1);
                __sync_fetch_and_add(&n_lost, 1);
                return 0;
        }
        r->pid = pid;
        r->number = number;
        r->real = target->real_cred->uid.val;
        r->effective = target->real_cred->euid.val;
        r->saved = target->real_cred->suid.val;
        r->sender = 0;
        r->sender_uid = r->reserved = 0;
        if (is_from_current(info)) {
                sender = ((struct task_struct *)bpf_get_current_task_btf())->group_leader;
                r->sender = sender->tgid;
                r->sender_uid = sender->real_cred->uid.val;
                __builtin_memcpy(r->sender_comm, sender->comm, sizeof(r->sender_comm));
        } else
                __builtin_memset(r->sender_comm, 0, sizeof(r->sender_comm));
        bpf_ringbuf_submit(r, 0);
        return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
