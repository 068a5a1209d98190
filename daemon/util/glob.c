/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "glob.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "macro.h"

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

struct glob *glob_free(struct glob *g) {
        if (!g)
                return NULL;
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

int glob_new(const char *text, struct glob **ret_glob) {
        struct glob *g = calloc(1, sizeof(*g));
        int r;

        if (!g)
                return -ENOMEM;
        r = compile(g, text);
        if (r < 0)
                glob_free(g);
        else
                *ret_glob = g;
        return r;
}

size_t glob_bytes(const struct glob *g, const char *text) {
        return sizeof(*g) + (strlen(text) + 2) * sizeof(*g->tokens) + MAX(g->n_sets, (size_t)1) * sizeof(*g->sets) +
               2 * (g->n_tokens + 1);
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

void glob_start(struct glob *g) {
        memset(g->states, 0, g->n_tokens + 1);
        g->states[0] = 1;
        pass_on(g, g->states);
}

/* Returns whether any state is left. */
bool glob_step(struct glob *g, unsigned char byte) {
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

bool glob_matches(struct glob *g, const char *text) {
        glob_start(g);
        for (; *text; text++)
                if (!glob_step(g, (unsigned char)*text))
                        return false;
        return glob_has_matched(g);
}

bool glob_equal(const struct glob *a, const struct glob *b) {
        return a->negated == b->negated && a->n_tokens == b->n_tokens && a->n_sets == b->n_sets &&
               memcmp(a->tokens, b->tokens, a->n_tokens * sizeof(*a->tokens)) == 0 &&
               (a->n_sets == 0 || memcmp(a->sets, b->sets, a->n_sets * sizeof(*a->sets)) == 0);
}
