/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What processes do, told from within the kernel (bpf(2), bpf-helpers(7)). Only what is used of the kernel's structures
 * is declared here: where it lies is found out as the program is loaded (CO-RE).
 */

#include <linux/bpf.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "processes.h"

#define SIGNAL_GROUP_EXIT 0x00000004 /* <linux/sched/signal.h> */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

typedef struct {
        unsigned int val;
} kuid_t;

typedef struct {
        int counter;
} atomic_t;

struct cred {
        kuid_t uid, euid, suid;
};

struct signal_struct {
        atomic_t live;
        unsigned int flags;
        int group_exit_code;
        unsigned long long sum_sched_runtime; /* of threads that are gone, in nanoseconds */
        unsigned long maxrss;                 /* pages */
};

struct sched_entity {
        unsigned long long sum_exec_runtime;
};

struct task_struct {
        int pid, tgid;
        struct task_struct *real_parent, *group_leader;
        int exit_code;
        struct sched_entity se;
        char comm[16];
        struct signal_struct *signal;
        const struct cred *real_cred;
        unsigned int in_execve : 1;
};

struct seq_file;

struct bpf_iter_meta {
        struct seq_file *seq;
};

struct bpf_iter__task {
        struct bpf_iter_meta *meta;
        struct task_struct *task;
};

#pragma clang attribute pop

struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, 4096); /* as the loader likes it */
} records SEC(".maps");

/* What tagged processes do, while `records` has no room. */
struct {
        __uint(type, BPF_MAP_TYPE_RINGBUF);
        __uint(max_entries, BPF_RESERVE_BYTES);
} reserve SEC(".maps");

struct bpf_losses losses;

struct {
        __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __type(key, int);
        __type(value, struct bpf_tags);
} tags SEC(".maps"); /* of first threads */

/* Of the process that the thread belongs to. */
static struct bpf_record *begin(unsigned int kind, struct task_struct *thread) {
        struct task_struct *task = thread->group_leader;
        unsigned long long now = bpf_ktime_get_ns(); /* before there is a place: it is no later than those behind it */
        struct bpf_record *r = bpf_ringbuf_reserve(&records, sizeof(*r), 0);

        if (!r && bpf_task_storage_get(&tags, task, 0, 0))
                r = bpf_ringbuf_reserve(&reserve, sizeof(*r), 0);
        if (!r) {
                __sync_fetch_and_add(kind == BPF_RECORD_FORK ? &losses.forks : &losses.others, 1);
                return 0;
        }
        r->kind = kind;
        r->pid = task->tgid;
        r->parent = task->real_parent->tgid;
        r->status = 0;
        r->real = task->real_cred->uid.val;
        r->effective = task->real_cred->euid.val;
        r->saved = task->real_cred->suid.val;
        r->reserved = 0;
        r->nsec = now;
        r->cpu_nsec = r->peak_pages = 0;
        __builtin_memcpy(r->comm, task->comm, sizeof(r->comm));
        return r;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *maker, struct task_struct *child) {
        struct bpf_tags *inherited;
        struct bpf_record *r;

        if (child->pid != child->tgid) /* a thread */
                return 0;
        inherited = bpf_task_storage_get(&tags, maker->group_leader, 0, 0);
        if (inherited)
                (void)bpf_task_storage_get(&tags, child, inherited, BPF_LOCAL_STORAGE_GET_F_CREATE);
        r = begin(BPF_RECORD_FORK, child);
        if (!r)
                return 0;
        r->parent = maker->tgid;
        bpf_ringbuf_submit(r, 0);
        return 0;
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task) {
        struct bpf_record *r = begin(BPF_RECORD_EXEC, task);

        if (r)
                bpf_ringbuf_submit(r, 0);
        return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task) {
        struct bpf_record *r;

        if (task->signal->live.counter != 0) /* others of its threads go on */
                return 0;
        r = begin(BPF_RECORD_EXIT, task);
        if (!r)
                return 0;
        r->status = task->signal->flags & SIGNAL_GROUP_EXIT ? task->signal->group_exit_code : task->exit_code;
        r->cpu_nsec = task->signal->sum_sched_runtime + task->se.sum_exec_runtime;
        if (task != task->group_leader) /* which ended before, and is there until it is reaped */
                r->cpu_nsec += task->group_leader->se.sum_exec_runtime;
        r->peak_pages = task->signal->maxrss;
        bpf_ringbuf_submit(r, 0);
        return 0;
}

SEC("tp_btf/task_rename")
int BPF_PROG(on_rename, struct task_struct *task, const char *comm) {
        struct bpf_record *r;

        /* The first thread's name is the process's; a program that begins is told as such. */
        if (task->pid != task->tgid || BPF_CORE_READ_BITFIELD_PROBED(task, in_execve))
                return 0;
        r = begin(BPF_RECORD_COMM, task);
        if (!r)
                return 0;
        bpf_probe_read_kernel_str(r->comm, sizeof(r->comm), comm);
        bpf_ringbuf_submit(r, 0);
        return 0;
}

/* The thread's own, once they are in force. No tracepoint tells of them. */
SEC("kretprobe/commit_creds")
int on_creds(void *context) {
        struct task_struct *task = (struct task_struct *)bpf_get_current_task_btf();
        struct bpf_record *r;

        if (task->pid != task->tgid)
                return 0;
        r = begin(BPF_RECORD_IDS, task);
        if (r)
                bpf_ringbuf_submit(r, 0);
        return 0;
}

SEC("iter/task")
int list_tagged(struct bpf_iter__task *context) {
        struct task_struct *task = context->task;
        struct bpf_tagged tagged = { 0 };
        struct bpf_tags *found;

        if (!task || task->pid != task->tgid)
                return 0;
        found = bpf_task_storage_get(&tags, task, 0, 0);
        if (!found)
                return 0;
        tagged.pid = task->tgid;
        tagged.tags = *found;
        bpf_seq_write(context->meta->seq, &tagged, sizeof(tagged));
        return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
