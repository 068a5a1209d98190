/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the kernel tells of one process when it is asked: /proc/PID (proc_pid_stat(5) and its siblings), and pidfds
 * (pidfd_open(2), PIDFD_GET_INFO).
 *
 * A pid may be given to another process between two reads. What was read counts if a pidfd that was opened before has
 * not hung up after it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "kernel.h"

struct process_stat {
        char comm[16];
        char state;          /* 'Z': ended, and not reaped */
        int64_t parent;
        int64_t n_threads;
        uint64_t start_time; /* clock ticks since the boot */
        int status;          /* as of wait(2); 0 for whoever may not see it, too */
        bool knows_status;   /* it is one: observer_read_stat() */
};

/* -ESRCH: there is no such process; or another negative errno. */
int process_read_stat(pid_t pid, struct process_stat *ret);
/* Whether `status` is what it says: the ptrace access that it takes is the same that is asked of who reads a link in
 * /proc/PID/ns. */
bool process_may_see_status(pid_t pid);

struct event_process; /* proto's */

/* The members that a status as of wait(2) stands for. */
void process_describe_status(struct event_process *process, int status);

/* Real, effective, saved. */
struct process_ids {
        uid_t real, effective, saved;
};
int process_read_ids(pid_t pid, struct process_ids *ret);
static inline bool process_ids_are(const struct process_ids *ids, uid_t uid) {
        return ids->real == uid && ids->effective == uid && ids->saved == uid;
}

int process_read_comm(pid_t pid, char ret_comm[16]);
/* That of the unified hierarchy, which begins with a slash. -ENODATA: there is none. */
int process_read_cgroup(pid_t pid, char *path, size_t size);

/* Its process was reaped. */
bool pidfd_has_hung_up(int pidfd);
/* Its process has ended, all threads of it. */
bool pidfd_has_ended(int pidfd);
/* The process's number here. -EBADF: it is none; 0 in *ret_pid: it lives in a namespace that is not below this one;
 * -1: it was reaped. */
int pidfd_get_pid(int pidfd, pid_t *ret_pid);
/* In pidfs (Linux 6.9); 0: there is none such. */
uint64_t pidfd_inode(int pidfd);
/* The inode in pidfs, which no other process ever has, or else the start time. */
uint64_t pidfd_identity(int pidfd, pid_t pid);
/* False: this kernel can't (Linux 6.13 can). ret->mask says what it knows. */
bool pidfd_get_info(int pidfd, uint64_t mask, struct pidfd_info *ret);
/* The ids of a process that was not reaped. */
int pidfd_read_ids(int pidfd, pid_t pid, struct process_ids *ret);
