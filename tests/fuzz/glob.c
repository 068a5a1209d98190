/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Globs, and what is made of them for a tree. A glob is held against a matcher that does as glob.h says and nothing
 * else; what a tree's match promises for directories has to hold for what is below them.
 *
 * The input is lines: a depth and how many globs include, a glob, a path, two directories, and then the globs.
 */

#include <errno.h>
#include <stdlib.h>
#include <time.h>

#include "fuzz.h"
#include "glob.h"
#include "macro.h"
#include "match.h"
#include "watch_spec.h"

enum { REFERENCE_MAX = 100, LINES_MAX = 24, NSEC_A_STEP = 200 };

/* ---- the reference ------------------------------------------------------------------------------------------- */

/* What stands behind the set that begins behind `p`; NULL: it has no end. `ret_has`: whether it has the byte. */
static const char *read_set(const char *p, unsigned char byte, bool *ret_has) {
        bool negated = *p == '!' || *p == '^', has = false, first = true;

        p += negated;
        while (*p && (first || *p != ']')) {
                unsigned char low, high;

                first = false;
                if (p[0] == '\\' && p[1])
                        p++;
                low = high = (unsigned char)*p++;
                if (p[0] == '-' && p[1] && p[1] != ']') {
                        p++;
                        if (p[0] == '\\' && p[1])
                                p++;
                        high = (unsigned char)*p++;
                }
                has |= byte >= low && byte <= high;
        }
        *ret_has = has != negated && byte != '/';
        return *p ? p + 1 : NULL;
}

static bool is_glob(const char *p) {
        bool has;

        while (p && *p)
                if (*p == '[')
                        p = read_set(p + 1, 0, &has);
                else if (*p == '\\')
                        p = p[1] ? p + 2 : NULL;
                else
                        p++;
        return p;
}

static struct {
        const char *glob, *text;
        /* By places in both: 0 not tried, else whether the rest matches, plus 1. */
        uint8_t known[REFERENCE_MAX + 1][REFERENCE_MAX + 1];
} reference;

static bool matches(const char *p, bool at_name_start, const char *t);

/* Any bytes, or none, as long as `slashes` lets them; then the rest. */
static bool matches_many(const char *rest, bool slashes, const char *t) {
        for (;; t++) {
                if (matches(rest, false, t))
                        return true;
                if (!*t || (*t == '/' && !slashes))
                        return false;
        }
}

static bool matches_directories(const char *rest, const char *t) {
        if (matches(rest, true, t))
                return true;
        for (; *t; t++)
                if (*t == '/' && matches(rest, true, t + 1))
                        return true;
        return false;
}

static bool matches_here(const char *p, bool at_name_start, const char *t) {
        bool has;

        if (!*p)
                return !*t;
        if (p[0] == '*' && p[1] == '*')
                return p[2] == '/' && at_name_start ? matches_directories(p + 3, t) : matches_many(p + 2, true, t);
        if (*p == '*')
                return matches_many(p + 1, false, t);
        if (!*t)
                return false;
        if (*p == '?')
                return *t != '/' && matches(p + 1, false, t + 1);
        if (*p == '[') {
                p = read_set(p + 1, (unsigned char)*t, &has);
                return has && matches(p, false, t + 1);
        }
        p += *p == '\\';
        return *p == *t && matches(p + 1, *p == '/', t + 1);
}

static bool matches(const char *p, bool at_name_start, const char *t) {
        uint8_t *known = &reference.known[p - reference.glob][t - reference.text];

        if (!*known)
                *known = 1 + matches_here(p, at_name_start, t);
        return *known - 1;
}

static bool reference_matches(const char *glob, const char *text) {
        reference.glob = glob;
        reference.text = text;
        for (size_t i = 0; i <= strlen(glob); i++)
                memset(reference.known[i], 0, strlen(text) + 1);
        return matches(glob, true, text);
}

/* ---- a glob --------------------------------------------------------------------------------------------------- */

static uint64_t cpu_nsec(void) {
        struct timespec t = { 0 };

        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

/* As paths below a directory are. */
static bool is_path(const char *text) {
        return text[0] != '/' && !strstr(text, "//");
}

static void try_glob(const char *text, const char *path) {
        uint64_t before = cpu_nsec();
        struct glob *g = NULL;
        int r = glob_new(text, &g);
        bool found;

        fuzz_assert(r == (is_glob(text) ? 0 : -EINVAL));
        if (r < 0)
                return;
        found = glob_matches(g, path, strlen(path));
        /* Bytes of the one times bytes of the other. */
        fuzz_assert(cpu_nsec() - before < NSEC_PER_SEC + (strlen(text) + 1) * (strlen(path) + 1) * NSEC_A_STEP);
        fuzz_assert(glob_matches(g, path, strlen(path)) == found);
        if (strlen(text) <= REFERENCE_MAX && strlen(path) <= REFERENCE_MAX && is_path(path))
                fuzz_assert_msg(reference_matches(text, path) == found, "\"%s\" and \"%s\": %d", text, path, found);
        fuzz_assert(glob_bytes(g) >= sizeof(*g));
        glob_free(g);
}

/* ---- a tree's ---------------------------------------------------------------------------------------------------- */

static struct event_path path_of(const char *text) {
        return (struct event_path){ text, strlen(text) };
}

static char *join(const char *directory, const char *name) {
        char *path = malloc(strlen(directory) + strlen(name) + 2);

        fuzz_assert(path);
        (void)stpcpy(stpcpy(stpcpy(path, directory), *directory ? "/" : ""), name);
        return path;
}

static bool list_matches(char *const *globs, const char *path) {
        bool is_in = false;

        for (; globs && *globs; globs++) {
                bool negated = **globs == '!';

                if (reference_matches(*globs + negated, path))
                        is_in = !negated;
        }
        return is_in;
}

/* Out of what match.h says, one directory after the other. */
static bool is_excluded(char *const *globs, const char *path) {
        bool excluded = false;

        for (size_t i = 1; !excluded && i <= strlen(path); i++)
                if (path[i] == '/' || path[i] == 0) {
                        char *above = fuzz_text(path, i);

                        excluded = list_matches(globs, above);
                        free(above);
                }
        return excluded;
}

static bool reference_match(const struct tree_options *o, const char *path) {
        int64_t depth = 1;

        for (const char *p = path; *p; p++)
                depth += *p == '/';
        return !*path || ((o->depth == ABSENT || depth <= o->depth) && (!o->include || list_matches(o->include, path)) &&
                          !is_excluded(o->exclude, path));
}

static bool is_plain_path(const char *path) {
        return is_path(path) && (!*path || path[strlen(path) - 1] != '/');
}

static bool are_short(char *const *globs) {
        for (; globs && *globs; globs++)
                if (strlen(*globs) > REFERENCE_MAX)
                        return false;
        return true;
}

static void try_match(const struct tree_options *options, const char *path, const char *a, const char *b) {
        struct match *match = NULL, *same = NULL;
        const char *wrong = NULL;
        char *in_a, *in_b;

        if (match_new(options, &match, &wrong) < 0) {
                fuzz_assert(wrong && !is_glob(wrong + (wrong[0] == '!')));
                return;
        }
        fuzz_assert(match_new(options, &same, &wrong) == 0 && match_equal(match, same));
        match_free(same);
        in_a = join(a, path);
        in_b = join(b, path);
        if (strlen(in_a) <= REFERENCE_MAX && is_plain_path(in_a) && are_short(options->include) && are_short(options->exclude))
                fuzz_assert(match_path(match, path_of(in_a)) == reference_match(options, in_a));
        if (*path && is_plain_path(in_a) && is_plain_path(in_b)) {
                if (match_path(match, path_of(in_a)))
                        fuzz_assert(match_below(match, path_of(a)));
                if (match_same_below(match, path_of(a), path_of(b)) && match_path(match, path_of(in_b)))
                        fuzz_assert_msg(match_path(match, path_of(in_a)), "\"%s\", but not \"%s\"", in_b, in_a);
        }
        free(in_a);
        free(in_b);
        match_free(match);
}

static size_t read_lines(struct input *in, char **lines) {
        size_t n = 0;

        while (n < LINES_MAX && in->size > 0) {
                const uint8_t *end = memchr(in->data, '\n', in->size);
                size_t size = end ? (size_t)(end - in->data) : in->size;

                lines[n++] = fuzz_text(in->data, size);
                (void)input_bytes(in, size + 1, &size);
        }
        return n;
}

static void input(const uint8_t *data, size_t size) {
        struct input in = { data, size };
        char *lines[LINES_MAX + 1] = { 0 }, *include[LINES_MAX + 1] = { 0 }, *exclude[LINES_MAX + 1] = { 0 };
        struct tree_options options = { .depth = ABSENT };
        uint8_t depth = input_byte(&in), n_include = input_byte(&in);
        size_t n = read_lines(&in, lines), n_exclude = 0;

        if (n >= 2)
                try_glob(lines[0], lines[1]);
        for (size_t i = 4; i < n; i++)
                if (i < 4 + (size_t)n_include % 8)
                        include[i - 4] = lines[i];
                else
                        exclude[n_exclude++] = lines[i];
        if (depth % 16 > 0 && depth % 16 < 8)
                options.depth = depth % 16;
        options.include = include[0] ? include : NULL;
        options.exclude = exclude[0] ? exclude : NULL;
        if (n >= 4)
                try_match(&options, lines[1], lines[2], lines[3]);
        for (size_t i = 0; i < n; i++)
                free(lines[i]);
}

const struct fuzz_target fuzz_target = { .input = input };
