/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What one watch is about, in the user's own words.
 *
 * The daemon is told absolute paths and answers with them; the user typed "src"
 * or ".", and reads "src/a.c" or "a.c". A subject keeps both spellings.
 */

#include <stdbool.h>
#include <stdint.h>

#include "text.h"

struct session;

struct subject {
        struct subject *next;
        struct session *session;
        char *name;   /* as the user named it; NULL: it has no name */
        char *prefix; /* the absolute path that its events' paths begin with; NULL: it isn't a path */
        int64_t id;   /* its watch's */
        bool ended;   /* nothing more will come of it */
};

/* With `path`, the name is one. NULL where there is no memory, or (errno tells) no current directory. */
struct subject *subject_new(struct session *session, const char *name, bool path);
struct subject *subject_free(struct subject *subject);

/* An event's path, as the user would have typed it. */
void subject_put_path(const struct subject *subject, const char *path, text_append *append, struct text *out);
