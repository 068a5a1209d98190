/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What a directory is called in the one that holds it, where the kernel can't say it:
 * its path is longer than readlink(2) on /proc/self/fd gives.
 *
 * The names in the last large directories that were looked into are remembered: who
 * has many directories at such a place would cost all of them for each. For one thread.
 */

/* `ret_name` has 256 bytes. -EAGAIN: it has been moved, or is no more. -EMLINK: there are too many in `parent`, and it
 * is not among those that are looked at. Or another negative errno. */
int directory_name(int parent, int fd, char *ret_name);
/* What is remembered goes. */
void directory_names_forget(void);
