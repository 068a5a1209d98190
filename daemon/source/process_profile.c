/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "process_profile.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "macro.h"
#include "observer.h"

struct profile *profile_ref(struct profile *profile) {
        if (profile)
                profile->refs++;
        return profile;
}

struct profile *profile_unref(struct profile *profile) {
        if (!profile || --profile->refs > 0)
                return NULL;
        free(profile->exe);
        free(profile->cgroup);
        free(profile);
        return NULL;
}

static bool equal_texts(const char *a, const char *b) {
        return a == b || (a && b && strcmp(a, b) == 0);
}

static bool equal_ids(const struct profile *a, const struct profile *b) {
        return a->knows_ids == b->knows_ids && (!a->knows_ids || memcmp(&a->ids, &b->ids, sizeof(a->ids)) == 0);
}

static bool equal_comms(const struct profile *a, const struct profile *b) {
        return a->knows_comm == b->knows_comm && (!a->knows_comm || strcmp(a->comm, b->comm) == 0);
}

bool profile_equal(const struct profile *a, const struct profile *b) {
        return a == b || (equal_ids(a, b) && equal_comms(a, b) && equal_texts(a->exe, b->exe) &&
                          equal_texts(a->cgroup, b->cgroup));
}

struct profile *profile_new(void) {
        struct profile *p = calloc(1, sizeof(*p));

        if (p)
                p->refs = 1;
        return p;
}

struct profile *profile_unknown(void) {
        static struct profile unknown = { .refs = 1 };

        return profile_ref(&unknown);
}

struct profile *profile_copy(const struct profile *profile) {
        struct profile *p = malloc(sizeof(*p));

        if (!p)
                return NULL;
        *p = *profile;
        p->refs = 1;
        p->exe = profile->exe ? strdup(profile->exe) : NULL;
        p->cgroup = profile->cgroup ? strdup(profile->cgroup) : NULL;
        return p;
}

struct profile *profile_read(pid_t pid) {
        struct profile *p = profile_new();
        char path[PATH_MAX];

        if (!p)
                return NULL;
        p->knows_ids = process_read_ids(pid, &p->ids) == 0;
        p->knows_comm = process_read_comm(pid, p->comm) == 0;
        if (observer_read_exe(pid, path, sizeof(path)) == 0)
                p->exe = strdup(path);
        if (process_read_cgroup(pid, path, sizeof(path)) == 0)
                p->cgroup = strdup(path);
        return p;
}

void profile_complete(struct profile *profile, struct profile *read) {
        if (!profile->knows_ids) {
                profile->knows_ids = read->knows_ids;
                profile->ids = read->ids;
        }
        if (!profile->knows_comm) {
                profile->knows_comm = read->knows_comm;
                memcpy(profile->comm, read->comm, sizeof(profile->comm));
        }
        if (!profile->exe)
                profile->exe = take_pointer(&read->exe);
        if (!profile->cgroup)
                profile->cgroup = take_pointer(&read->cgroup);
}

void profile_forget_unlike(struct profile *profile, const struct profile *other) {
        if (!equal_ids(profile, other))
                profile->knows_ids = false;
        if (!equal_comms(profile, other))
                profile->knows_comm = false;
        if (!equal_texts(profile->exe, other->exe)) {
                free(profile->exe);
                profile->exe = NULL;
        }
        if (!equal_texts(profile->cgroup, other->cgroup)) {
                free(profile->cgroup);
                profile->cgroup = NULL;
        }
}
