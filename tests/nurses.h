/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What tests of proc watches share: processes that are children neither of the daemon nor of the client, but of one in
 * between that reaps them when it is told to, and what a watch tells of them. What goes wrong fails the test.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-c/json.h>

#include "harness.h"

/* ---- the protocol -------------------------------------------------------------------------------- */

/* The errno of the only watch, or "" if it was made. */
void expect_change(struct json_object *reply, const char *error);
void watch_pid(int fd, int64_t id, pid_t pid, const char *error);

/* Whether the event says so of the status, as of wait(2). */
void check_status(struct json_object *event, int status);
/* An event of that note alone, about that process. */
void check_event(struct json_object *event, int64_t id, const char *note, pid_t pid);
void expect_event(int fd, int64_t id, const char *note, pid_t pid, int status);

/* ---- processes of somebody else -------------------------------------------------------------------- */

/* A process in between. It makes children as it is told, says their pids, and reaps them when told. */
struct nurse {
        pid_t pid;
        int fd;
};

struct order {
        enum { FORK, REAP } what;
        int n;             /* how many; FORK answers for each, REAP at last */
        pid_t pid;         /* REAP: which, or -1 */
        void (*run)(void); /* FORK: in the child */
};

struct answer {
        pid_t pid;
        int status; /* REAP: of wait(2) */
};

struct nurse nurse_start(void);
void nurse_stop(struct nurse *nurse);
void nurse_order(struct nurse *nurse, struct order order);
struct answer nurse_next(struct nurse *nurse);
pid_t nurse_fork(struct nurse *nurse, void (*run)(void));
int nurse_reap(struct nurse *nurse, pid_t pid);

/* Until the process is a zombie. */
void wait_zombie(pid_t pid);

/* Children run when they get a byte from here. */
extern int go_fds[2];
void wait_go(void);
void go(size_t n);

extern int run_code; /* what run_exit() ends with: known to the nurse when it is started */
void run_exit(void);
void run_exit_at_once(void);
