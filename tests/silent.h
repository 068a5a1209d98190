/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A file system that never answers, for everybody: whoever looks for a name in it waits until it ends. One file is there,
 * and can be opened; whoever closes it waits. fuse(4), without a library. No assertions here: benchmarks use it, too.
 */

#include <sys/types.h>

#define SILENT_FILE "file"

/* Mounts it on the directory, and serves it: INIT is answered, and nothing else but for that file. What goes with the mount namespace need
 * not be unmounted. Returns the server's pid, a child, or a negative errno: it takes root, and /dev/fuse. */
pid_t silent_mount(const char *path);
/* How many names have been looked up so far. */
unsigned silent_lookups(void);
/* How much it was asked in all. Each of these waits until the server ends. */
unsigned silent_requests(void);
/* Ends the server: who waits gets an error. */
void silent_end(pid_t server, const char *path);
