/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the kernel shows of a process to its own user alone, or with CAP_SYS_PTRACE: its namespaces, its program, how it
 * ended, its descriptors (ptrace(2), "Ptrace access mode checking"). The daemon has not that capability. It asks helpers
 * of the broker's, the observers, and without a broker the kernel itself, which shows what it likes.
 *
 * One observer reads /proc for all, which never takes long. What a user's processes have open may take for ever to be
 * looked at or closed: for that each user has one, by which nobody else is held up.
 *
 * An observer answers one question after the other; any thread may ask, and waits.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "descriptor_look.h"
#include "process_info.h"

struct broker;

/* For the whole process, from the loop; NULL: there is none. */
void observer_open(struct broker *broker);
/* No other thread may ask any more. */
void observer_close(void);

/* Who connects can be looked at without waiting for a process that is just starting; or there will be none. */
bool observer_is_ready(void);
/* The observer's part: it answers until the socket is closed. Descriptors are shown to be had before by the sets of
 * `daemon`, which is nothing that who asks can choose. */
_Noreturn void observer_run(int socket, pid_t daemon);

/* ---- /proc --------------------------------------------------------------------------------------------------------- */

enum observed_link { OBSERVED_MOUNTS, OBSERVED_ROOT, OBSERVED_PIDS, OBSERVED_NETWORK, OBSERVED_EXE, OBSERVED_LINKS };

struct observed_links {
        const char *text[OBSERVED_LINKS]; /* in `space`; NULL: it can't be read, or was not asked for */
        char space[4 * 4096];
};

/* As readlink(2): what the process lives in, without the exe. From the loop: one that does not answer is replaced. */
void observer_read_namespaces(pid_t pid, struct observed_links *ret);
/* The path of the program, with its NUL. A program that was removed meanwhile ends in " (deleted)". -ESRCH, or another
 * negative errno. */
int observer_read_exe(pid_t pid, char *path, size_t size);
/* As process_read_stat(), with the status, if a process that has ended has one to show. */
int observer_read_stat(pid_t pid, struct process_stat *ret);
/* As open(2) of /proc/PID/ns/net. A negative errno. */
int observer_open_network(pid_t pid);

/* ---- what a user's processes have open ------------------------------------------------------------------------------- */

struct observer;

/* From the loop; each get has its put. NULL: there is none, and what the kernel shows the daemon has to do. */
struct observer *observer_get(uid_t uid);
void observer_put(struct observer *observer);

/* descriptor_find(), for a set and a descriptor of the daemon's. */
void observer_find(struct observer *observer, struct descriptor_handle *handle, struct descriptor_owner *owner, int fd);
/* descriptor_get(), of what has a set: that is how the observer knows that the daemon has had it. */
int observer_take(struct observer *observer, struct descriptor_handle *handle, struct descriptor_owner *owner);
/* descriptor_figure(), by the owner's descriptor. ABSENT with a negative errno in *ret_error, or without. */
int64_t observer_figure(struct observer *observer, struct descriptor_handle *handle, struct descriptor_owner *owner,
                        enum kev_filter filter, int *ret_error);
