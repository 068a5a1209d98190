/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "process_info.h"

/* What processes are like; shared by those that are alike, and never changed. */
struct profile {
        unsigned refs;
        bool knows_ids, knows_comm;
        struct process_ids ids;
        char comm[16];
        char *exe, *cgroup; /* NULL where not known */
};

/* NULL: no memory. Nothing is known. */
struct profile *profile_new(void);
/* The one of which nothing is known. It is always to be had. */
struct profile *profile_unknown(void);
struct profile *profile_ref(struct profile *profile);
struct profile *profile_unref(struct profile *profile);
bool profile_equal(const struct profile *a, const struct profile *b);
/* A copy, or NULL. */
struct profile *profile_copy(const struct profile *profile);
/* Fills in what isn't known. */
void profile_complete(struct profile *profile, struct profile *read);
/* What /proc says of a process now. NULL: no memory. */
struct profile *profile_read(pid_t pid);
/* What the other has otherwise is not known any more. */
void profile_forget_unlike(struct profile *profile, const struct profile *other);
