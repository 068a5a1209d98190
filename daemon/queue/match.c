/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "match.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "macro.h"
#include "watch_spec.h"

/*
 * A glob is compiled into tokens, and matched by following all the ways through
 * them at once: a set of states, state i meaning "the first i tokens have
 * matched". A token that may stand for nothing leads to the next state at once.
 */
enum token_type {
        TOKEN_BYTE,
        TOKEN_ONE, /* any byte but a slash */
        TOKEN_SET,
        TOKEN_NAME,     /* any bytes but a slash, or none */
        TOKEN_ANYTHING, /* any bytes, or none */
        TOKEN_DIRS,     /* whole directories, or none: the state before them */
        TOKEN_DIRS_ON,  /* within such directories */
};

struct token {
        uint8_t type;
        uint8_t byte;
        uint16_t set; /* index of its 256 bits */
};

struct glob {
        struct glob *next;
        bool negated;
        size_t n_tokens;
        struct token *tokens;
        uint64_t (*sets)[4];
        size_t n_sets;
        uint8_t *states, *next_states; /* n_tokens + 1 each; match_path() is not reentrant */
};

struct match {
        struct glob *include, *exclude;
        int64_t depth;
        size_t bytes; /* that it takes up */
};

/* ---- compiling --------------------------------------------------------------------------- */

static void set_add(uint64_t *set, unsigned byte) {
        set[byte >> 6] |= UINT64_C(1) << (byte & 63);
}

/* "[a-z]", "[!a-z]". Returns the first byte behind it; NULL: it has no end. */
static const char *compile_set(const char *p, uint64_t *set) {
        bool negated = *p == '!' || *p == '^', first = true;

        for (p += negated; *p && (*p != ']' || first); first = false) {
                unsigned char low = (unsigned char)*p++, high = low;

                if (low == '\\' && *p)
                        low = high = (unsigned char)*p++;
                if (*p == '-' && p[1] && p[1] != ']') {
                        p++;
                        p += *p == '\\' && p[1];
                        high = (unsigned char)*p++;
                }
                for (unsigned c = low; c <= high; c++)
                        set_add(set, c);
        }
        if (*p != ']')
                return NULL;
        for (size_t i = 0; negated && i < 4; i++)
                set[i] = ~set[i];
        set['/' >> 6] &= ~(UINT64_C(1) << ('/' & 63));
        return p + 1;
}

static struct glob *glob_free(struct glob *g) {
        free(MIN(g->states, g->next_states)); /* one piece */
        free(g->tokens);
        free(g->sets);
        free(g);
        return NULL;
}

static bool at_name_start(const struct glob *g) {
        return g->n_tokens == 0 ||
               (g->tokens[g->n_tokens - 1].type == TOKEN_BYTE && g->tokens[g->n_tokens - 1].byte == '/') ||
               g->tokens[g->n_tokens - 1].type == TOKEN_DIRS_ON;
}

static void add_token(struct glob *g, enum token_type type, unsigned char byte) {
        g->tokens[g->n_tokens++] = (struct token){ .type = (uint8_t)type, .byte = byte };
}

/* At most. */
static size_t count_sets(const char *p) {
        size_t n = 0;

        for (; *p; p++)
                n += *p == '[';
        return n;
}

/* The token's set is the glob's last, or an earlier one that is the same. */
static void share_set(struct glob *g, struct token *token) {
        size_t i = 0, last = g->n_sets;

        while (i < last && memcmp(g->sets[i], g->sets[last], sizeof(*g->sets)) != 0)
                i++;
        token->set = (uint16_t)i;
        if (i == last)
                g->n_sets++;
        else
                memset(g->sets[last], 0, sizeof(*g->sets));
}

/* What was reserved for more sets than it has. */
static int trim_sets(struct glob *g) {
        void *sets = realloc(g->sets, MAX(g->n_sets, (size_t)1) * sizeof(*g->sets));

        if (!sets)
                return -ENOMEM;
        g->sets = sets;
        return 0;
}

/* -EINVAL: not a glob. */
static int compile(struct glob *g, const char *p) {
        g->tokens = calloc(strlen(p) + 2, sizeof(*g->tokens));
        g->sets = calloc(count_sets(p) + 1, sizeof(*g->sets));
        if (!g->tokens || !g->sets)
                return -ENOMEM;
        while (*p) {
                if (p[0] == '*' && p[1] == '*') {
                        p += 2;
                        if (*p == '/' && at_name_start(g)) {
                                p++;
                                add_token(g, TOKEN_DIRS, 0);
                                add_token(g, TOKEN_DIRS_ON, 0);
                        } else
                                add_token(g, TOKEN_ANYTHING, 0);
                } else if (*p == '*') {
                        p++;
                        add_token(g, TOKEN_NAME, 0);
                } else if (*p == '?') {
                        p++;
                        add_token(g, TOKEN_ONE, 0);
                } else if (*p == '[') {
                        add_token(g, TOKEN_SET, 0);
                        p = compile_set(p + 1, g->sets[g->n_sets]);
                        if (!p)
                                return -EINVAL;
                        share_set(g, &g->tokens[g->n_tokens - 1]);
                } else {
                        if (*p == '\\' && *++p == 0)
                                return -EINVAL;
                        add_token(g, TOKEN_BYTE, (unsigned char)*p++);
                }
        }
        g->states = malloc(2 * (g->n_tokens + 1));
        if (!g->states)
                return -ENOMEM;
        g->next_states = g->states + g->n_tokens + 1;
        return trim_sets(g);
}

static size_t glob_bytes(const struct glob *g, const char *text) {
        return sizeof(*g) + (strlen(text) + 2) * sizeof(*g->tokens) + MAX(g->n_sets, (size_t)1) * sizeof(*g->sets) +
               2 * (g->n_tokens + 1);
}

static int compile_all(char **globs, struct glob **ret, size_t *bytes, const char **ret_glob) {
        struct glob **end = ret;
        int r;

        for (size_t i = 0; globs && globs[i]; i++) {
                struct glob *g = calloc(1, sizeof(*g));

                if (!g)
                        return -ENOMEM;
                g->negated = globs[i][0] == '!';
                r = compile(g, globs[i] + g->negated);
                if (r < 0) {
                        glob_free(g);
                        *ret_glob = globs[i];
                        return r;
                }
                *bytes += glob_bytes(g, globs[i]);
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

static bool set_has(const uint64_t *set, unsigned char byte) {
        return set[byte >> 6] >> (byte & 63) & 1;
}

/* The first state from `i` on that is reached and has a token behind it; n_tokens: none. Mostly there are few. */
static size_t next_state(const struct glob *g, const uint8_t *states, size_t i) {
        const uint8_t *found = i < g->n_tokens ? memchr(states + i, 1, g->n_tokens - i) : NULL;

        return found ? (size_t)(found - states) : g->n_tokens;
}

/* States that are reached without a byte. */
static void pass_on(const struct glob *g, uint8_t *states) {
        for (size_t i = next_state(g, states, 0); i < g->n_tokens; i = next_state(g, states, i + 1)) {
                if (g->tokens[i].type == TOKEN_NAME || g->tokens[i].type == TOKEN_ANYTHING)
                        states[i + 1] = 1;
                else if (g->tokens[i].type == TOKEN_DIRS)
                        states[i + 2] = 1;
        }
}

static void start(struct glob *g) {
        memset(g->states, 0, g->n_tokens + 1);
        g->states[0] = 1;
        pass_on(g, g->states);
}

/* Returns whether any state is left. */
static bool step(struct glob *g, unsigned char byte) {
        const uint8_t *states = g->states;
        uint8_t *next = g->next_states;
        bool any = false;

        memset(next, 0, g->n_tokens + 1);
        for (size_t i = next_state(g, states, 0); i < g->n_tokens; i = next_state(g, states, i + 1)) {
                const struct token *t = &g->tokens[i];

                any = true;
                switch ((enum token_type)t->type) {
                case TOKEN_BYTE:
                        next[i + 1] |= t->byte == byte;
                        break;
                case TOKEN_ONE:
                        next[i + 1] |= byte != '/';
                        break;
                case TOKEN_SET:
                        next[i + 1] |= set_has(g->sets[t->set], byte);
                        break;
                case TOKEN_NAME:
                        next[i] |= byte != '/';
                        break;
                case TOKEN_ANYTHING:
                        next[i] = 1;
                        break;
                case TOKEN_DIRS:
                        next[i + 1] = 1;
                        break;
                case TOKEN_DIRS_ON:
                        next[i] = 1;
                        next[i + 1] |= byte == '/';
                        break;
                }
        }
        pass_on(g, next);
        g->next_states = g->states;
        g->states = next;
        return any;
}

/* What the globs say of the path up to here: the last one that matches decides. */
static bool verdict(const struct glob *globs) {
        bool matches = false;

        for (const struct glob *g = globs; g; g = g->next)
                if (g->states[g->n_tokens])
                        matches = !g->negated;
        return matches;
}

/* `above`: a directory on the way to the path will do. */
static bool any_matches(struct glob *globs, struct event_path path, bool above) {
        for (struct glob *g = globs; g; g = g->next)
                start(g);
        for (size_t i = 0; i < path.size; i++) {
                bool any = false;

                if (above && path.bytes[i] == '/' && verdict(globs))
                        return true;
                for (struct glob *g = globs; g; g = g->next)
                        any |= step(g, (unsigned char)path.bytes[i]);
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
        if (m->include && !any_matches(m->include, path, false))
                return false;
        return !any_matches(m->exclude, path, true);
}

/* Follows the glob into the directory; returns whether anything in there may match. */
static bool enter(struct glob *g, struct event_path directory) {
        bool any = true;

        start(g);
        for (size_t i = 0; i < directory.size && any; i++)
                any = step(g, (unsigned char)directory.bytes[i]);
        if (directory.size > 0 && any)
                (void)step(g, '/');
        return any && memchr(g->states, 1, g->n_tokens);
}

bool match_below(const struct match *m, struct event_path directory) {
        bool any = false;

        if (!m || directory.size == 0)
                return true;
        if ((m->depth != ABSENT && depth_of(directory) >= m->depth) || any_matches(m->exclude, directory, true))
                return false;
        for (struct glob *g = m->include; g; g = g->next)
                any |= !g->negated && enter(g, directory);
        return !m->include || any;
}

static bool same_below(struct glob *globs, struct event_path a, struct event_path b) {
        for (struct glob *g = globs; g; g = g->next) {
                uint8_t *states _cleanup_(freep) = malloc(g->n_tokens + 1);
                bool in_a = enter(g, a), in_b;

                if (!states)
                        return false;
                memcpy(states, g->states, g->n_tokens + 1);
                in_b = enter(g, b);
                if (in_a != in_b || (in_a && memcmp(states, g->states, g->n_tokens) != 0))
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
                if (a->negated != b->negated || a->n_tokens != b->n_tokens || a->n_sets != b->n_sets ||
                    memcmp(a->tokens, b->tokens, a->n_tokens * sizeof(*a->tokens)) != 0 ||
                    (a->n_sets > 0 && memcmp(a->sets, b->sets, a->n_sets * sizeof(*a->sets)) != 0))
                        return false;
        return !a && !b;
}

bool match_equal(const struct match *a, const struct match *b) {
        if (!a || !b)
                return a == b;
        return a->depth == b->depth && equal_globs(a->include, b->include) && equal_globs(a->exclude, b->exclude);
}
