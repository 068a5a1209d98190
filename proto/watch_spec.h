/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A watch as a client describes it: the interface's type Watch. The client
 * writes it, the daemon reads and checks it, kev.h's builder fills it in.
 */

#include "event.h"

struct json_object;

struct tree_options {
        bool given;
        char **include, **exclude; /* NULL-terminated, or NULL */
        int64_t depth, settle_msec, max_latency_msec; /* ABSENT where not given */
        bool list, cross_mounts, exclude_self;
};

struct process_match {
        bool given;
        char *exe, *comm, *cgroup; /* globs, or NULL */
        int64_t uid;               /* or ABSENT */
};

struct watch_spec {
        enum kev_filter filter;
        int64_t id; /* ABSENT while not chosen */
        uint64_t notes; /* 0: the filter's own choice */
        uint32_t flags;
        char *path; /* bytes; NULL: none */
        size_t path_size;
        int64_t pid, descriptor, data; /* ABSENT where not given */
        char *name;
        struct tree_options tree;
        struct process_match match;
        /* Why it can't be: a sentence that names the field; empty if it can. */
        char refusal[160];
};

enum {
        WATCH_NAME_MAX = 255,      /* bytes of a user watch's or a device's name */
        WATCH_PATH_MAX = 16 * 1024, /* bytes; longer than PATH_MAX, see path_resolution(7) */
        WATCH_GLOBS_MAX = 64,
        WATCH_GLOB_BYTES_MAX = 1024,
        WATCH_GLOBS_BYTES_MAX = 8 * 1024, /* of all globs of a watch */
};

void watch_spec_init(struct watch_spec *spec, enum kev_filter filter);
void watch_spec_free(struct watch_spec *spec);

/*
 * From a Watch object. -EINVAL: a member is unknown or of the wrong type, and
 * `where` names it. A watch whose members are of the right types but make no
 * sense together is read, and says so in `refusal`.
 */
int watch_spec_read(struct json_object *json, bool id_required, struct buffer *where, struct watch_spec *ret_spec);

/* Appends the Watch object. */
void watch_spec_put(struct buffer *b, const struct watch_spec *spec);

/* Fills in `refusal` if the members don't go together. For `modify` what the
 * watch is about need not be given. */
void watch_spec_check(struct watch_spec *spec, bool modify);
/* The same of what is given, whatever may and has to be. */
void watch_spec_check_values(struct watch_spec *spec);
