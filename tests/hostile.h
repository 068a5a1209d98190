/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Clients that mean harm, or do it: very many at a time, of a user of their own. No assertions here: benchmarks use
 * them, too. What they can't do - the daemon has closed a connection, a limit is reached - they try again.
 */

#include <stddef.h>
#include <sys/types.h>

struct hostile_place {
        const char *socket;    /* the daemon's */
        const char *directory; /* theirs to write to */
        const char *silent;    /* a directory that never answers; or NULL */
};

struct crowd;

struct hostile_kind {
        const char *name;
        const char *purpose;
        void (*run)(struct crowd *crowd); /* in the process of the crowd: for ever */
};

extern const struct hostile_kind hostile_kinds[];
extern const size_t n_hostile_kinds;

/* `n` clients, all of this user and of its group with the same number, in one process or each in its own. On return all
 * of them have connected. They run at the lowest priority, so that what others feel of them is the daemon's doing, and
 * end with the caller. From now on the caller inherits orphans (PR_SET_CHILD_SUBREAPER). Returns the leader, a child, or a
 * negative errno. */
pid_t hostile_start(const struct hostile_kind *kind, const struct hostile_place *place, uid_t uid, unsigned n);
/* Ends all of them, at once. */
void hostile_end(pid_t leader);
