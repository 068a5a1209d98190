/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* What tests do to files and directories. What goes wrong fails the test. */

#include <stddef.h>
#include <sys/types.h>

/* A path, which stays for the test. */
const char *at(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Writes the text, having opened the file with these flags beside O_WRONLY. */
void put(const char *path, int flags, const char *text);
/* A new one, which is empty: nothing is written. */
void make_file(const char *path);
/* Makes the file if need be. */
void append(const char *path, const char *text);
void change_mode(const char *path, mode_t mode);
void remove_file(const char *path);

void make_dir(const char *path);
void remove_dir(const char *path);
/* A directory for the test to watch, in its own. */
const char *make_root(const char *name);
/* In a directory, a tree of `width` directories in each of `depth` levels, with a file in each. Returns how many
 * directories these are with the outermost. */
size_t make_tree(const char *path, int width, int depth);
/* A file of this name in each directory of what make_tree() made. */
void touch_tree(const char *path, int width, int depth, const char *name);
/* A new one of this name in the directory and in each below it. Returns how many these are. */
size_t make_file_everywhere(const char *path, const char *name);

/* In the directory that is open, so many of this name in each other, each with a file; by descriptors, however deep that
 * is. Returns the innermost one's. */
int make_deep(int fd, const char *name, int depth);

void move(const char *from, const char *to);
void exchange(const char *from, const char *to);

/* Has a shell do it in the directory, and waits for it. */
void run(const char *directory, const char *script);

/* Another process, to write at the same time: 0 in it. */
pid_t fork_writer(void);
/* Waits for it; its status was 0. */
void reap(pid_t pid);

/* From here on in a mount namespace of the test's own: what others mount is kept away, and what is mounted here is from
 * them, and ends with the test. NULL, or why that can't be had. */
const char *keep_mounts_private(void);
/* The same; skips the test where it can't be had. */
void need_private_mounts(void);
