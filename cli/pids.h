/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Watches on single processes, for kev wait and kev proc: by pid, or by name of
 * those that run now.
 */

#include "session.h"

enum { PIDS_COMM_MAX = 64 }; /* bytes with the NUL; of kernel threads longer than in events */

/* Whether all arguments are pids or, with `names`, names; -EINVAL after a message. */
int pids_check(const struct command *command, const struct options *options, bool names);
/* Watches all arguments. */
void pids_add(struct session *s, uint64_t notes);

/*
 * Watches the processes that run now, without kev itself: those of the caller's
 * user or of everybody, and with `name` those that are called this. Returns how
 * many there are, and in `ret_error` 0 or what stopped it (session_try_add() says
 * how).
 */
size_t pids_add_running(struct session *s, const char *name, bool everybodys, uint64_t notes, int *ret_error);

/* The first 15 bytes of its name, as its program or itself has set it. False: it is gone. */
bool pids_read_comm(pid_t pid, char ret_comm[static PIDS_COMM_MAX]);
