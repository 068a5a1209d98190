/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdint.h>
#include <sys/types.h>

/* How many connections wait for accept(2) on a listening AF_UNIX socket of this network namespace, by sock_diag(7).
 * ABSENT: can't be told. Blocks for the kernel's answer. */
int64_t unix_backlog(ino_t inode);
