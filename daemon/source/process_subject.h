/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* The single process that a proc watch is about, opened for whoever asks. */

#include "process_info.h"
#include "source.h"

/* What can be told of a process by its pidfd alone. */
#define PIDFD_NOTES (KEV_NOTE_EXIT | KEV_NOTE_REAP)

struct process_subject {
        int pidfd; /* the caller's, to close */
        pid_t pid;
        bool knows_ids; /* else it was reaped, or can't be seen */
        struct process_ids ids;
};

/* A pid of another namespace means another process. `member`: of the watch, that the refusal names. */
int check_pids(const struct asker *asker, const char *member, struct refusal *refusal);

/* By its number, if all of its user ids are the asker's or the asker sees all processes; or by the passed pidfd, with which the
 * asker could learn as much by itself. A negative errno, with the reason, otherwise; -ESRCH: there is none of that
 * number. */
int process_subject_open(const struct source_context *context, const struct subject *subject,
                         struct process_subject *ret, struct refusal *refusal);
