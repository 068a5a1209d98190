/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A file system whose names may have up to 1024 bytes, which is more than NAME_MAX, as those of vfat may: it holds
 * directories, which can be made, listed and renamed. fuse(4), without a library.
 */

#include <sys/types.h>

/* Mounts it on the directory, and serves it. What goes with the mount namespace need not be unmounted. Returns the
 * server's pid, a child, or a negative errno: it takes root, and /dev/fuse. */
pid_t long_names_mount(const char *path);
/* Ends the server. */
void long_names_end(pid_t server, const char *path);
