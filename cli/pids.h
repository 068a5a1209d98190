/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Watches on processes by pid, for kev wait and kev proc: their exit and reap.
 */

#include "session.h"

/* Whether all arguments are pids; -EINVAL after a message. */
int pids_check(const struct command *command, const struct options *options);
/* Watches all arguments. */
void pids_add(struct session *s);
/* Watches one; session_try_add() says how. */
int pids_try_add(struct session *s, const char *pid);
