/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * queue/match: globs. The rules are those at the top of match.h; a slow matcher
 * below follows them word by word, and the two are compared.
 */

#include <stdio.h>
#include <stdlib.h>

#include "harness.h"
#include "macro.h"
#include "match.h"
#include "unit.h"
#include "watch_spec.h"

/* ---- asking ---------------------------------------------------------------------------------- */

enum { GLOBS_MAX = 8 };

struct globs {
        char *include[GLOBS_MAX + 1], *exclude[GLOBS_MAX + 1]; /* NULL-terminated; none: not given */
        int64_t depth;
};

static struct match *compile(const struct globs *globs) {
        struct tree_options options = {
                .given = true,
                .include = globs->include[0] ? (char **)globs->include : NULL,
                .exclude = globs->exclude[0] ? (char **)globs->exclude : NULL,
                .depth = globs->depth ? globs->depth : ABSENT,
        };
        struct match *match = NULL;
        const char *glob = NULL;

        assert_often(match_new(&options, &match, &glob) == 0, "\"%s\" was refused", glob);
        return match;
}

/* The path is copied to where a byte too many would be found. */
static bool ask(const struct match *match, const char *path) {
        size_t size = strlen(path);
        char *copy = malloc(size ? size : 1);
        bool matches;

        assert_often(copy, "no memory");
        memcpy(copy, path, size);
        matches = match_path(match, (struct event_path){ copy, size });
        free(copy);
        return matches;
}

static bool matches(const struct globs *globs, const char *path) {
        struct match *match = compile(globs);
        bool yes = ask(match, path);

        ck_assert_ptr_null(match_free(match));
        return yes;
}

static bool glob_matches(const char *glob, const char *path) {
        struct globs globs = { .include = { (char *)(uintptr_t)glob } };

        return matches(&globs, path);
}

#define assert_match(glob, path) ck_assert_msg(glob_matches((glob), (path)), "\"%s\" isn't found by \"%s\"", (path), (glob))
#define assert_no_match(glob, path) ck_assert_msg(!glob_matches((glob), (path)), "\"%s\" is found by \"%s\"", (path), (glob))

/* ---- the rules one by one ----------------------------------------------------------------------- */

START_TEST(nothing_given) {
        struct globs globs = { 0 };

        ck_assert_ptr_null(compile(&globs));
        ck_assert(ask(NULL, "a/b"));
        ck_assert_ptr_null(match_free(NULL));
}
END_TEST

START_TEST(equal) {
        const struct globs all[] = {
                { .include = { (char[]){ "a" } } },
                { .include = { (char[]){ "b" } } },
                { .include = { (char[]){ "a" }, (char[]){ "b" } } },
                { .include = { (char[]){ "[ab]" } } },
                { .include = { (char[]){ "[ac]" } } },
                { .exclude = { (char[]){ "a" } } },
                { .exclude = { (char[]){ "a" }, (char[]){ "!a" } } },
                { .include = { (char[]){ "a" } }, .depth = 1 },
                { .depth = 1 },
                { .depth = 2 },
        };

        ck_assert(match_equal(NULL, NULL));
        for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
                struct match *a = compile(&all[i]);

                ck_assert(!match_equal(a, NULL) && !match_equal(NULL, a));
                for (size_t k = 0; k < ARRAY_SIZE(all); k++) {
                        struct match *b = compile(&all[k]);

                        ck_assert_msg(match_equal(a, b) == (i == k), "%zu and %zu", i, k);
                        match_free(b);
                }
                match_free(a);
        }
}
END_TEST

START_TEST(the_directory_itself) {
        struct globs globs = { .include = { (char[]){ "x" } }, .exclude = { (char[]){ "**" } }, .depth = 1 };

        ck_assert(matches(&globs, ""));
}
END_TEST

START_TEST(plain) {
        assert_match("a", "a");
        assert_match("a/b.c", "a/b.c");
        assert_no_match("a", "b");
        assert_no_match("a", "aa");
        assert_no_match("aa", "a");
        assert_no_match("a", "a/a");
        assert_no_match("a", "b/a");
        assert_no_match("a/", "a");
        assert_match("\xff\x80", "\xff\x80");
}
END_TEST

START_TEST(star) {
        assert_match("*", "a");
        assert_match("*", ".hidden");
        assert_no_match("*", "a/b");
        assert_match("*.c", ".c");
        assert_match("*.c", "x.c.c");
        assert_no_match("*.c", "x.c.d");
        assert_no_match("*.c", "d/x.c");
        assert_match("a*b*c", "abc");
        assert_match("a*b*c", "aXbYbZc");
        assert_no_match("a*b*c", "aXbY/bZc");
        assert_match("*/*", "a/b");
        assert_no_match("*/*", "a");
        assert_no_match("*/*", "a/b/c");
}
END_TEST

START_TEST(question_mark) {
        assert_match("?", "a");
        assert_match("?", "?");
        assert_match("?", "\xff");
        assert_no_match("?", "ab");
        assert_no_match("?", "/");
        assert_no_match("a?b", "a/b");
        assert_no_match("a?", "a");
}
END_TEST

/* Every byte but the slash is one byte within a name. */
START_TEST(question_mark_each_byte) {
        for (int byte = 1; byte < 256; byte++) {
                char path[2] = { (char)byte, 0 };

                if (byte == '/')
                        assert_no_match("?", path);
                else
                        ck_assert_msg(glob_matches("?", path), "? doesn't find the byte 0x%02x", byte);
        }
}
END_TEST

/* More sets than half the glob's bytes. */
START_TEST(question_marks) {
        for (size_t n = 1; n <= 64; n++) {
                char glob[65] = "", path[65] = "";

                memset(glob, '?', n);
                memset(path, 'x', n);
                assert_match(glob, path);
                memset(path, 'x', n + 1 < sizeof(path) ? n + 1 : 1);
                path[n + 1 < sizeof(path) ? n + 1 : 1] = 0;
                assert_no_match(glob, path);
        }
}
END_TEST

START_TEST(longest_glob) {
        char glob[WATCH_GLOB_BYTES_MAX + 1] = "", path[WATCH_GLOB_BYTES_MAX + 1] = "";

        memset(glob, '?', WATCH_GLOB_BYTES_MAX);
        memset(path, 'x', WATCH_GLOB_BYTES_MAX);
        assert_match(glob, path);
        path[7] = '/';
        assert_no_match(glob, path);
}
END_TEST

/* What a glob takes up: something for each token, and little for each byte, whatever they are. */
START_TEST(bytes_of_globs) {
        static const char *const parts[] = { "a", "?", "*", "**", "**/", "[ab]", "[!a-z]", "[a][b]", "\\a" };

        ck_assert_uint_eq(match_bytes(NULL), 0);
        for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
                char glob[WATCH_GLOB_BYTES_MAX + 1] = "";
                struct match *match;

                while (strlen(glob) + strlen(parts[i]) <= WATCH_GLOB_BYTES_MAX)
                        strcat(glob, parts[i]);
                match = compile(&(struct globs){ .include = { glob } });
                ck_assert_msg(match_bytes(match) >= strlen(glob) / strlen(parts[i]), "%s: %zu", parts[i],
                              match_bytes(match));
                ck_assert_msg(match_bytes(match) <= 8 * WATCH_GLOB_BYTES_MAX, "%s: %zu", parts[i], match_bytes(match));
                match_free(match);
        }
}
END_TEST

/* Those that are the same are kept once, and those that differ each. */
START_TEST(many_sets) {
        char glob[WATCH_GLOB_BYTES_MAX + 1] = "", path[WATCH_GLOB_BYTES_MAX + 1] = "";
        size_t n = 0;

        while (4 * n + 4 < WATCH_GLOB_BYTES_MAX) {
                (void)sprintf(glob + 4 * n, "[%c%c]", 'a' + (int)(n % 20), 'b' + (int)(n % 20));
                path[n] = (char)('a' + n % 20 + n % 2);
                n++;
        }
        assert_match(glob, path);
        for (size_t i = 0; i < n; i++) {
                char byte = path[i];

                path[i] = (char)('c' + i % 20);
                assert_no_match(glob, path);
                path[i] = byte;
        }
}
END_TEST

START_TEST(sets) {
        assert_match("[abc]", "b");
        assert_no_match("[abc]", "d");
        assert_match("[a-c]", "b");
        assert_no_match("[a-c]", "d");
        assert_no_match("[a-c]", "-");
        assert_match("[-a]", "-");
        assert_match("[a-]", "-");
        assert_match("[a-]", "a");
        assert_match("[]]", "]");
        assert_match("[]a]", "a");
        assert_match("[!a]", "b");
        assert_no_match("[!a]", "a");
        assert_no_match("[!]]", "]");
        assert_match("[!]]", "a");
        assert_match("[a!]", "!");
        assert_match("x[0-9][0-9]y", "x42y");
        assert_match("[\\]]", "]");
        assert_match("[\\\\]", "\\");
        assert_match("[a\\-z]", "-");
        assert_no_match("[a\\-z]", "b");
        assert_match("[a-\\z]", "m");
        assert_match("[*]", "*");
        assert_no_match("[*]", "a");
        assert_match("[?]", "?");
        assert_match("[[]", "[");
        assert_match("[\x80-\xff]", "\xc3");
        assert_match("[a-cx-z]", "y");
        assert_no_match("[z-a]", "m");
}
END_TEST

/* A set stands for a byte within a name. */
START_TEST(sets_and_slashes) {
        assert_no_match("a[/]b", "a/b");
        assert_no_match("a[!x]b", "a/b");
        assert_no_match("a[.-0]b", "a/b");
        assert_match("a[.-0]b", "a.b");
}
END_TEST

START_TEST(escapes) {
        assert_match("\\*", "*");
        assert_no_match("\\*", "a");
        assert_match("\\?", "?");
        assert_no_match("\\?", "a");
        assert_match("\\[a]", "[a]");
        assert_match("\\\\", "\\");
        assert_match("\\a", "a");
        assert_match("\\!a", "!a");
        assert_no_match("\\*\\*", "ab");
        assert_match("*\\*", "ab*");
}
END_TEST

START_TEST(two_stars) {
        assert_match("**", "a");
        assert_match("**", "a/b/c");
        assert_match("a/**", "a/b");
        assert_match("a/**", "a/b/c");
        assert_no_match("a/**", "a");
        assert_no_match("a/**", "ab/c");
        assert_match("a**b", "ab");
        assert_match("a**b", "a/x/b");
        assert_match("**b", "a/xb");
        assert_match("***", "a/b");
        assert_no_match("a/**", "b/a/c");
}
END_TEST

START_TEST(two_stars_and_slash) {
        assert_match("**/a", "a");
        assert_match("**/a", "x/a");
        assert_match("**/a", "x/y/a");
        assert_no_match("**/a", "xa");
        assert_no_match("**/a", "x/ya");
        assert_no_match("**/a", "a/b");
        assert_match("a/**/b", "a/b");
        assert_match("a/**/b", "a/x/b");
        assert_match("a/**/b", "a/x/y/b");
        assert_no_match("a/**/b", "a/xb");
        assert_no_match("a/**/b", "ab");
        assert_match("**/**/a", "a");
        assert_match("**/**/a", "x/a");
        assert_match("**/.git/**", ".git/x");
        assert_match("**/.git/**", "a/b/.git/x/y");
        assert_no_match("**/.git/**", "a/.gitx/x");
        assert_match("**/*.c", "x.c");
        assert_match("**/*.c", "d/e/x.c");
        /* Not at the start of a name: anything, then a slash. */
        assert_match("a**/b", "a/b");
        assert_match("a**/b", "ax/y/b");
        assert_no_match("a**/b", "ab");
}
END_TEST

START_TEST(taken_back) {
        struct globs globs = { .include = { (char[]){ "*" }, (char[]){ "!a*" }, (char[]){ "ab" } } };

        ck_assert(matches(&globs, "x"));
        ck_assert(!matches(&globs, "ax"));
        ck_assert(matches(&globs, "ab"));

        globs = (struct globs){ .exclude = { (char[]){ "*.o" }, (char[]){ "!keep.o" } } };
        ck_assert(!matches(&globs, "x.o"));
        ck_assert(matches(&globs, "keep.o"));
        ck_assert(matches(&globs, "x.c"));

        /* Nothing was said before it. */
        globs = (struct globs){ .include = { (char[]){ "!a" } } };
        ck_assert(!matches(&globs, "a"));
        ck_assert(!matches(&globs, "b"));
}
END_TEST

START_TEST(below_an_excluded_directory) {
        struct globs globs = { .exclude = { (char[]){ "build" }, (char[]){ "**/.git" }, (char[]){ "a/b" } } };

        ck_assert(!matches(&globs, "build"));
        ck_assert(!matches(&globs, "build/x/y"));
        ck_assert(!matches(&globs, "sub/.git/x/y"));
        ck_assert(!matches(&globs, "a/b/c"));
        ck_assert(matches(&globs, "a/bc"));
        ck_assert(matches(&globs, "a"));
        ck_assert(matches(&globs, "sub/build/x"));
        ck_assert(matches(&globs, "builds/x"));
}
END_TEST

/* "What is below an excluded directory is excluded": also where a later glob takes
 * back a path below it, but not the directory. */
START_TEST(below_an_excluded_directory_nothing_is_taken_back) {
        struct globs globs = { .exclude = { (char[]){ "a" }, (char[]){ "!a/b" } } };

        ck_assert(!matches(&globs, "a"));
        ck_assert(!matches(&globs, "a/c"));
        ck_assert(!matches(&globs, "a/b"));
        ck_assert(!matches(&globs, "a/b/c"));
}
END_TEST

/* A directory that is taken back isn't excluded; what the globs say of a path below
 * it still holds. */
START_TEST(below_a_directory_that_was_taken_back) {
        struct globs globs = { .exclude = { (char[]){ "**/x" }, (char[]){ "!d" } } };

        ck_assert(matches(&globs, "d"));
        ck_assert(matches(&globs, "d/y"));
        ck_assert(!matches(&globs, "d/x"));
}
END_TEST

/* A glob of include is about the path alone. */
START_TEST(include_is_not_about_directories) {
        struct globs globs = { .include = { (char[]){ "a" } } };

        ck_assert(matches(&globs, "a"));
        ck_assert(!matches(&globs, "a/b"));
}
END_TEST

START_TEST(include_and_exclude) {
        struct globs globs = { .include = { (char[]){ "**/*.c" } }, .exclude = { (char[]){ "build" } } };

        ck_assert(matches(&globs, "x.c"));
        ck_assert(matches(&globs, "src/x.c"));
        ck_assert(!matches(&globs, "build/x.c"));
        ck_assert(!matches(&globs, "src/x.h"));
}
END_TEST

START_TEST(depth_limit) {
        struct globs globs = { .depth = 2 };

        ck_assert(matches(&globs, "a"));
        ck_assert(matches(&globs, "a/b"));
        ck_assert(!matches(&globs, "a/b/c"));
        globs = (struct globs){ .depth = 1, .include = { (char[]){ "**" } } };
        ck_assert(matches(&globs, "a"));
        ck_assert(!matches(&globs, "a/b"));
}
END_TEST

START_TEST(bad_globs) {
        static const char *const bad[] = {
                "[", "[a", "[]", "[!]", "[!", "a[b-", "[a-]b[", "\\", "a\\", "[\\]", "[a\\", "!\\", "![", "?[", "**/[a",
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                for (unsigned where = 0; where < 4; where++) {
                        char *copy = strdup(bad[i]), good[] = "ok", *globs[] = { copy, NULL, NULL };
                        struct tree_options options = { .depth = ABSENT };
                        const char *glob = NULL;
                        struct match *match = NULL;

                        if (where & 1) {
                                globs[0] = good;
                                globs[1] = copy;
                        }
                        if (where & 2)
                                options.exclude = globs;
                        else
                                options.include = globs;
                        ck_assert_msg(match_new(&options, &match, &glob) == -EINVAL, "\"%s\" was taken for a glob", bad[i]);
                        ck_assert_ptr_eq(glob, copy);
                        ck_assert_ptr_null(match);
                        free(copy);
                }
}
END_TEST

/* Bytes of the path times bytes of the globs: this takes for ever by backtracking. */
START_TEST(no_backtracking) {
        char glob[WATCH_GLOB_BYTES_MAX + 1] = "", path[4096] = "";

        for (size_t i = 0; i + 2 < sizeof(glob); i += 2)
                memcpy(glob + i, "*a", 2);
        glob[sizeof(glob) - 2] = 'b';
        memset(path, 'a', sizeof(path) - 1);
        assert_no_match(glob, path);
        for (size_t i = 0; i + 3 < sizeof(glob); i += 3)
                memcpy(glob + i, "**/", 3);
        glob[1023] = 'b';
        memset(path, '/', sizeof(path) - 1);
        assert_no_match(glob, path);
}
END_TEST

/* ---- the slow matcher --------------------------------------------------------------------------------- */

/* One of the set that `p` points into (behind its bracket); `ret_end`: behind it. */
static bool slow_set(const char *p, char byte, const char **ret_end) {
        bool negated = *p == '!' || *p == '^', in = false;
        unsigned char c = (unsigned char)byte;

        p += negated;
        for (bool first = true; first || *p != ']'; first = false) {
                unsigned char low, high;

                p += *p == '\\';
                low = high = (unsigned char)*p++;
                if (p[0] == '-' && p[1] != ']') {
                        p++;
                        p += *p == '\\';
                        high = (unsigned char)*p++;
                }
                in = in || (c >= low && c <= high);
        }
        *ret_end = p + 1;
        return c != '/' && in != negated;
}

/* `start`: at the start of a name of the glob. */
static bool slow(const char *glob, const char *path, bool start) {
        const char *end;

        if (!*glob)
                return !*path;
        if (strncmp(glob, "**/", 3) == 0 && start) {
                if (slow(glob + 3, path, true))
                        return true;
                for (const char *p = path; *p; p++)
                        if (*p == '/' && p > path && slow(glob, p + 1, true))
                                return true;
                return false;
        }
        if (strncmp(glob, "**", 2) == 0) {
                for (const char *p = path;; p++) {
                        if (slow(glob + 2, p, false))
                                return true;
                        if (!*p)
                                return false;
                }
        }
        if (*glob == '*') {
                for (const char *p = path;; p++) {
                        if (slow(glob + 1, p, false))
                                return true;
                        if (!*p || *p == '/')
                                return false;
                }
        }
        if (!*path)
                return false;
        if (*glob == '?')
                return *path != '/' && slow(glob + 1, path + 1, false);
        if (*glob == '[')
                return slow_set(glob + 1, *path, &end) && slow(end, path + 1, false);
        glob += *glob == '\\';
        return *glob == *path && slow(glob + 1, path + 1, *glob == '/');
}

/* The last one that matches decides. */
static bool slow_list(char *const *globs, const char *path) {
        bool yes = false;

        for (; *globs; globs++) {
                bool negated = (*globs)[0] == '!';

                if (slow(*globs + negated, path, true))
                        yes = !negated;
        }
        return yes;
}

static bool slow_path(const struct globs *globs, const char *path) {
        char copy[64];
        int64_t depth = 1;

        if (!*path)
                return true;
        for (const char *p = path; *p; p++)
                depth += *p == '/';
        if (globs->depth && depth > globs->depth)
                return false;
        if (globs->include[0] && !slow_list(globs->include, path))
                return false;
        /* Excluded: itself, or a directory that it is below. */
        for (size_t i = 1; i <= strlen(path); i++) {
                if (path[i] != '/' && path[i] != 0)
                        continue;
                memcpy(copy, path, i);
                copy[i] = 0;
                if (slow_list(globs->exclude, copy))
                        return false;
        }
        return true;
}

/* ---- random --------------------------------------------------------------------------------------------- */

static void random_path(struct random *r, char *path) {
        static const char bytes[] = "aaabbc]-";
        size_t n = 0, names = 1 + random_below(r, 4);

        for (size_t i = 0; i < names; i++) {
                if (i > 0)
                        path[n++] = '/';
                for (size_t j = 1 + random_below(r, 3); j > 0; j--)
                        path[n++] = bytes[random_below(r, sizeof(bytes) - 1)];
        }
        path[n] = 0;
}

static char *random_glob(struct random *r, bool may_negate) {
        static const char *const parts[] = {
                "a", "b", "c", "a", "b", "/", "/", "*", "*", "**", "**/", "/**/", "/**", "?", "?", "[ab]", "[!a]", "[a-c]", "[]-]",
                "\\a", "\\]",
        };
        char glob[64] = "";

        if (may_negate && random_once_in(r, 3))
                strcat(glob, "!");
        for (size_t n = 1 + random_below(r, 6); n > 0; n--)
                strcat(glob, parts[random_below(r, ARRAY_SIZE(parts))]);
        return strdup(glob);
}

static void fill(struct random *r, char **globs, size_t n, bool may_negate) {
        for (size_t i = 0; i < n; i++) {
                globs[i] = random_glob(r, may_negate);
                assert_often(globs[i], "no memory");
        }
}

static void empty(char **globs) {
        for (; *globs; globs++) {
                free(*globs);
                *globs = NULL;
        }
}

static void describe(const struct globs *globs, char *text, size_t size) {
        size_t n = (size_t)snprintf(text, size, "include:");

        for (char *const *g = globs->include; *g; g++)
                n += (size_t)snprintf(text + n, size - n, " %s", *g);
        n += (size_t)snprintf(text + n, size - n, " exclude:");
        for (char *const *g = globs->exclude; *g; g++)
                n += (size_t)snprintf(text + n, size - n, " %s", *g);
}

static void compare_random(uint64_t seed, size_t includes, size_t excludes, bool may_negate) {
        const uint64_t rounds = (uint64_t)harness_rounds(20000);
        size_t n_yes = 0, n_no = 0;

        for (uint64_t round = 0; round < rounds; round++) {
                struct random r = { seed + round };
                struct globs globs = { .depth = random_once_in(&r, 4) ? 1 + (int64_t)random_below(&r, 3) : 0 };
                struct match *match;
                char path[64], text[1024];

                fill(&r, globs.include, includes ? random_below(&r, includes + 1) : 0, may_negate);
                fill(&r, globs.exclude, excludes ? random_below(&r, excludes + 1) : 0, may_negate);
                match = compile(&globs);
                describe(&globs, text, sizeof(text));
                for (size_t i = 0; i < 8; i++) {
                        bool expected, yes;

                        random_path(&r, path);
                        expected = slow_path(&globs, path);
                        yes = ask(match, path);
                        assert_often(yes == expected, "seed %llu: \"%s\" %s by %s", (unsigned long long)(seed + round),
                                     path, yes ? "is let through" : "isn't let through", text);
                        n_yes += yes;
                        n_no += !yes;
                }
                match_free(match);
                empty(globs.include);
                empty(globs.exclude);
        }
        ck_assert_uint_gt(n_yes, rounds / 20);
        ck_assert_uint_gt(n_no, rounds / 20);
}

START_TEST(random_include) {
        compare_random(1000000, 1, 0, false);
}
END_TEST

START_TEST(random_include_taken_back) {
        compare_random(2000000, 4, 0, true);
}
END_TEST

START_TEST(random_exclude) {
        compare_random(3000000, 2, 3, false);
}
END_TEST

START_TEST(random_exclude_taken_back) {
        compare_random(4000000, 2, 4, true);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("match");
        TCase *c = harness_case(suite, "rules");

        tcase_add_test(c, nothing_given);
        tcase_add_test(c, equal);
        tcase_add_test(c, the_directory_itself);
        tcase_add_test(c, plain);
        tcase_add_test(c, star);
        tcase_add_test(c, question_mark);
        tcase_add_test(c, question_mark_each_byte);
        tcase_add_test(c, question_marks);
        tcase_add_test(c, longest_glob);
        tcase_add_test(c, bytes_of_globs);
        tcase_add_test(c, many_sets);
        tcase_add_test(c, sets);
        tcase_add_test(c, sets_and_slashes);
        tcase_add_test(c, escapes);
        tcase_add_test(c, two_stars);
        tcase_add_test(c, two_stars_and_slash);
        tcase_add_test(c, taken_back);
        tcase_add_test(c, below_an_excluded_directory);
        tcase_add_test(c, below_an_excluded_directory_nothing_is_taken_back);
        tcase_add_test(c, below_a_directory_that_was_taken_back);
        tcase_add_test(c, include_is_not_about_directories);
        tcase_add_test(c, include_and_exclude);
        tcase_add_test(c, depth_limit);
        tcase_add_test(c, bad_globs);
        tcase_add_test(c, no_backtracking);

        c = harness_case(suite, "random");
        tcase_add_test(c, random_include);
        tcase_add_test(c, random_include_taken_back);
        tcase_add_test(c, random_exclude);
        tcase_add_test(c, random_exclude_taken_back);
        return harness_main(argc, argv);
}
