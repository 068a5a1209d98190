/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <sys/types.h>

struct workers;

/*
 * Closes a descriptor that a client has passed, on a thread of its user's: a file system that its client controls may
 * take its time for the close, or for ever. -1 is passed over. Without memory it is closed at once, which is logged.
 */
void close_elsewhere(struct workers *workers, uid_t user, int fd);
