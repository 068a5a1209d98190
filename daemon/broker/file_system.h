/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Mounts, directories and their handles, for the helpers. Negative errnos throughout.
 */

#include <stdint.h>
#include <sys/types.h>

#include "question.h"

/* The root of a mount, to be read. -ENODEV: it is not there any more. */
int open_mount(const char *mount_point, uint64_t mount, int *ret_fd);
int get_mount(int fd, uint64_t *ret_mount);
/* A mount of the root of the whole file system, nowhere in the tree of mounts. */
int open_top_of_btrfs(uint64_t mount, int *ret_fd);

struct mount_info {
        uint64_t device;
        char mount_point[HELPER_PATH_MAX];
        char file_system[32];
        char source[HELPER_PATH_MAX];
};

/* proc_pid_mountinfo(5). -ENOENT: there is no such mount. */
int get_mount_info(uint64_t mount, struct mount_info *ret);

/* Of what `fd` is with an empty name, else of the name in it. A link is not followed, but what is mounted there is:
 * `ret_mount` tells, a number that is the same for all in one mount. */
int get_handle(int fd, const char *name, struct handle *ret, int *ret_mount);
int open_handle(int mount_fd, const struct handle *handle, int flags);

enum kev_kind kind_of_mode(mode_t mode);

/* openat2(2); paths may be longer than what one call takes. */
int open_below(int at, const char *path, uint64_t flags, uint64_t resolve);
