/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * kev watch --exec: a command that is run with the paths that changed, never
 * twice at once. Paths are gathered, each once, while it runs, and are the next
 * run's. It reads them on its standard input, one a line; `{}` in it stands for
 * all of them, quoted for the shell.
 */

#include "text.h"

struct exec;

/* NULL where there is no memory. `command` is to outlive it. */
struct exec *exec_new(const char *command);
/* Returns NULL. A run that goes on is left alone. */
struct exec *exec_free(struct exec *e);

/* A line for the next run's standard input, unless it has that line already. Out of memory is exec_turn()'s error. */
void exec_gather(struct exec *e, const char *line);

/* Readable when the run has ended; -1 while none goes on. */
int exec_fd(const struct exec *e);
/* Notes the end of a run and starts the next one. A negative errno where the shell can't be started. */
int exec_turn(struct exec *e);
/* Sees to it that all that was gathered is run, and waits for it. After a signal (signals.h) it is passed on to
 * the run, which is still waited for, and nothing new is started. */
int exec_finish(struct exec *e);
