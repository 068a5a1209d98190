/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a passed descriptor is, and what there is to be read or written, without keeping a copy of it.
 *
 * A copy would hide that its owner has closed it. An epoll set does not: it has the open file for as long as others
 * do. So each is in a set of its own (`set`), which shows what it is ready for, and by which it can be told from any
 * other (kcmp(2), KCMP_EPOLL_TFD). Figures take a descriptor, which is had for a moment from the process that passed
 * it (pidfd_getfd(2), Linux 5.6): that is left to the kernel to allow, see ptrace(2), PTRACE_MODE_ATTACH_REALCREDS.
 *
 * All of it may wait (for the process's own lock, or for whatever the last close of a descriptor does), and runs on
 * workers.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "vocabulary.h"

enum descriptor_kind {
        DESCRIPTOR_OTHER, /* it is ready or not, and there are no figures but what FIONREAD says */
        DESCRIPTOR_SOCKET,
        DESCRIPTOR_PIPE,
        DESCRIPTOR_EVENTFD,
        DESCRIPTOR_FILE, /* a regular one: epoll has none */
};

/* One open file that was passed, as long as a set has it. */
struct descriptor_handle {
        enum descriptor_kind kind;
        int set;    /* the epoll set that has nothing else; -1: none, a regular file */
        int slot;   /* the number by which it was added */
        int number; /* what its owner calls it; -1: not known */
        uint32_t serial; /* it was passed as the so many-th by its owner */
        dev_t device;
        ino_t inode;
};

/* Who has passed it. */
struct descriptor_owner {
        pid_t pid;
        int pidfd;       /* -1: can't be asked */
        _Atomic uint64_t found; /* the serial and number that a thread has found last: others are likely to be near */
};

/* Finds out what it is, and makes the set; the serial is the caller's. Negative errno, with a sentence: EPERM, it can't
 * be watched; EINVAL, no eventfd; EBADF; ENOSPC; ENOMEM. */
int descriptor_open(int fd, enum kev_filter filter, uint32_t events, struct descriptor_handle *ret_handle,
                    const char **ret_message);
/* Finds the owner's number for what `fd` is. That, and the handle's set, are `holder`'s. */
void descriptor_find(struct descriptor_handle *handle, struct descriptor_owner *owner, pid_t holder, int fd);
/* The owner's descriptor, which is to be closed at once; negative errno: EPERM, or EBADF, it has it no more. The handle's
 * set is `holder`'s. */
int descriptor_get(struct descriptor_handle *handle, struct descriptor_owner *owner, pid_t holder);
/* Whether that is another descriptor for what the handle is of. Doesn't wait. */
bool descriptor_is(const struct descriptor_handle *handle, int fd);

/* Another set, asked for other events, by a descriptor for the same. Negative errno. */
int descriptor_reopen(int fd, uint32_t events, int *ret_set, int *ret_slot);

/* read: what is to be read; write: the room; aio: completions. Bytes, or connections. ABSENT: can't be told. */
int64_t descriptor_figure(const struct descriptor_handle *handle, enum kev_filter filter, int fd);

/* What it is ready for, of the events that the set is asked for, ERR and HUP; EPOLL* bits. */
uint32_t descriptor_ready(const struct descriptor_handle *handle);
