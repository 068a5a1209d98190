/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "match.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "glob.h"
#include "macro.h"
#include "watch_spec.h"

struct match {
        struct glob *include, *exclude;
        int64_t depth;
        size_t bytes; /* that it takes up */
};

static int compile_all(char **globs, struct glob **ret, size_t *bytes, const char **ret_glob) {
        struct glob **end = ret;
        int r;

        for (size_t i = 0; globs && globs[i]; i++) {
                bool negated = globs[i][0] == '!';
                struct glob *g;

                r = glob_new(globs[i] + negated, &g);
                if (r < 0) {
                        *ret_glob = globs[i];
                        return r;
                }
                g->negated = negated;
                *bytes += glob_bytes(g);
                *end = g;
                end = &g->next;
        }
        return 0;
}

struct match *match_free(struct match *m) {
        if (!m)
                return NULL;
        for (struct glob *g = m->include, *next; g; g = next) {
                next = g->next;
                glob_free(g);
        }
        for (struct glob *g = m->exclude, *next; g; g = next) {
                next = g->next;
                glob_free(g);
        }
        free(m);
        return NULL;
}

int match_new(const struct tree_options *options, struct match **ret_match, const char **ret_glob) {
        struct match *m;
        int r;

        *ret_match = NULL;
        if (!options->include && !options->exclude && options->depth == ABSENT)
                return 0;
        m = calloc(1, sizeof(*m));
        if (!m)
                return -ENOMEM;
        m->depth = options->depth;
        m->bytes = sizeof(*m);
        r = compile_all(options->include, &m->include, &m->bytes, ret_glob);
        if (r == 0)
                r = compile_all(options->exclude, &m->exclude, &m->bytes, ret_glob);
        if (r < 0)
                match_free(m);
        else
                *ret_match = m;
        return r;
}

size_t match_bytes(const struct match *m) {
        return m ? m->bytes : 0;
}

/* ---- matching ---------------------------------------------------------------------------- */

/* What the globs say of the path up to here: the last one that matches decides. */
static bool verdict(const struct glob *globs) {
        bool matches = false;

        for (const struct glob *g = globs; g; g = g->next)
                if (glob_has_matched(g))
                        matches = !g->negated;
        return matches;
}

static bool any_matches(struct glob *globs, struct event_path path) {
        bool matches = false;

        for (struct glob *g = globs; g; g = g->next)
                if (g->negated == matches && glob_matches(g, path.bytes, path.size))
                        matches = !matches;
        return matches;
}

/* A directory on the way to the path will do. */
static bool any_matches_above(struct glob *globs, struct event_path path) {
        for (struct glob *g = globs; g; g = g->next)
                glob_start(g);
        for (size_t i = 0; i < path.size; i++) {
                bool any = false;

                if (path.bytes[i] == '/' && verdict(globs))
                        return true;
                for (struct glob *g = globs; g; g = g->next)
                        any |= glob_step(g, (unsigned char)path.bytes[i]);
                if (!any)
                        return false;
        }
        return verdict(globs);
}

static int64_t depth_of(struct event_path path) {
        int64_t depth = path.size > 0;

        for (size_t i = 0; i < path.size; i++)
                depth += path.bytes[i] == '/';
        return depth;
}

bool match_path(const struct match *m, struct event_path path) {
        if (!m || path.size == 0)
                return true;
        if (m->depth != ABSENT && depth_of(path) > m->depth)
                return false;
        if (m->include && !any_matches(m->include, path))
                return false;
        return !any_matches_above(m->exclude, path);
}

/* Follows the glob into the directory; returns whether anything in there may match. */
static bool enter(struct glob *g, struct event_path directory) {
        bool any = true;

        glob_start(g);
        for (size_t i = 0; i < directory.size && any; i++)
                any = glob_step(g, (unsigned char)directory.bytes[i]);
        if (directory.size > 0 && any)
                (void)glob_step(g, '/');
        return any && glob_may_match(g);
}

bool match_below(const struct match *m, struct event_path directory) {
        bool any = false;

        if (!m || directory.size == 0)
                return true;
        if ((m->depth != ABSENT && depth_of(directory) >= m->depth) || any_matches_above(m->exclude, directory))
                return false;
        for (struct glob *g = m->include; g; g = g->next)
                any |= !g->negated && enter(g, directory);
        return !m->include || any;
}

static bool same_below(struct glob *globs, struct event_path a, struct event_path b) {
        for (struct glob *g = globs; g; g = g->next) {
                bool in_a = enter(g, a), in_b;
                size_t size;
                const void *progress = glob_progress(g, &size);
                void *progress_in_a _cleanup_(freep) = malloc(size);

                if (!progress_in_a)
                        return false;
                memcpy(progress_in_a, progress, size);
                in_b = enter(g, b);
                if (in_a != in_b || (in_a && memcmp(progress_in_a, progress, size) != 0))
                        return false;
        }
        return true;
}

bool match_same_below(const struct match *m, struct event_path a, struct event_path b) {
        if (!m)
                return true;
        if (m->depth != ABSENT && depth_of(b) < depth_of(a))
                return false; /* what was too deep may not be any more */
        return match_below(m, a) == match_below(m, b) && same_below(m->include, a, b) && same_below(m->exclude, a, b);
}

static bool equal_globs(const struct glob *a, const struct glob *b) {
        for (; a && b; a = a->next, b = b->next)
                if (!glob_equal(a, b))
                        return false;
        return !a && !b;
}

bool match_equal(const struct match *a, const struct match *b) {
        if (!a || !b)
                return a == b;
        return a->depth == b->depth && equal_globs(a->include, b->include) && equal_globs(a->exclude, b->exclude);
}
