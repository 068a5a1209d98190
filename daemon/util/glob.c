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
 *
 * A state is a bit, and so all states of a word take their step together: what
 * the byte lets go on is shifted by one. For that each kind of token has a mask
 * of the states that it stands behind. Bytes and sets are looked at one by one,
 * but only where a state is reached.
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

enum { GLOB_BYTES_MAX = 16 * 1024 };

/* n_words of each; then the sets, 256 bits each; then for each token its byte or the number of its set. */
enum mask {
        MASK_STATES,    /* that are reached */
        MASK_START,     /* what they begin with */
        MASK_STAY,      /* go on standing behind any byte, */
        MASK_STAY_NAME, /* any but a slash */
        MASK_ANY,       /* go on to the next with any byte, */
        MASK_NAME,      /* any but a slash, */
        MASK_SLASH,     /* a slash */
        MASK_SKIP,      /* go on with none, by one */
        MASK_SKIP_TWO,
        MASK_BYTE,      /* go on with this one */
        MASK_SET,       /* go on with one of these */
        MASKS,
};

/* ---- compiling --------------------------------------------------------------------------- */

struct program {
        size_t n_tokens;
        struct token *tokens;
        uint64_t (*sets)[4];
        size_t n_sets;
};

static bool set_has(const uint64_t *set, unsigned char byte) {
        return set[byte >> 6] >> (byte & 63) & 1;
}

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

static bool at_name_start(const struct program *program) {
        return program->n_tokens == 0 ||
               (program->tokens[program->n_tokens - 1].type == TOKEN_BYTE && program->tokens[program->n_tokens - 1].byte == '/') ||
               program->tokens[program->n_tokens - 1].type == TOKEN_DIRS_ON;
}

static void add_token(struct program *program, enum token_type type, unsigned char byte) {
        program->tokens[program->n_tokens++] = (struct token){ .type = (uint8_t)type, .byte = byte };
}

/* At most. */
static size_t count_sets(const char *p) {
        size_t n = 0;

        for (; *p; p++)
                n += *p == '[';
        return n;
}

/* The token's set is the glob's last, or an earlier one that is the same. */
static void share_set(struct program *program, struct token *token) {
        size_t i = 0, last = program->n_sets;

        while (i < last && memcmp(program->sets[i], program->sets[last], sizeof(*program->sets)) != 0)
                i++;
        token->set = (uint16_t)i;
        if (i == last)
                program->n_sets++;
        else
                memset(program->sets[last], 0, sizeof(*program->sets));
}

/* -EINVAL: not a glob. */
static int compile(struct program *program, const char *p) {
        program->tokens = calloc(strlen(p) + 2, sizeof(*program->tokens));
        program->sets = calloc(count_sets(p) + 1, sizeof(*program->sets));
        if (!program->tokens || !program->sets)
                return -ENOMEM;
        while (*p) {
                if (p[0] == '*' && p[1] == '*') {
                        p += 2;
                        if (*p == '/' && at_name_start(program)) {
                                p++;
                                add_token(program, TOKEN_DIRS, 0);
                                add_token(program, TOKEN_DIRS_ON, 0);
                        } else
                                add_token(program, TOKEN_ANYTHING, 0);
                } else if (*p == '*') {
                        p++;
                        add_token(program, TOKEN_NAME, 0);
                } else if (*p == '?') {
                        p++;
                        add_token(program, TOKEN_ONE, 0);
                } else if (*p == '[') {
                        add_token(program, TOKEN_SET, 0);
                        p = compile_set(p + 1, program->sets[program->n_sets]);
                        if (!p)
                                return -EINVAL;
                        share_set(program, &program->tokens[program->n_tokens - 1]);
                } else {
                        if (*p == '\\' && *++p == 0)
                                return -EINVAL;
                        add_token(program, TOKEN_BYTE, (unsigned char)*p++);
                }
        }
        return 0;
}

/* ---- its masks ------------------------------------------------------------------------------ */

static uint64_t *mask_of(const struct glob *g, size_t mask) {
        return (uint64_t *)g->words + mask * g->n_words;
}

static uint64_t *set_at(const struct glob *g, size_t i) {
        return mask_of(g, MASKS) + 4 * i;
}

/* Bytes, and numbers of sets. */
static uint16_t *operands_of(const struct glob *g) {
        return (uint16_t *)set_at(g, g->n_sets);
}

size_t glob_bytes(const struct glob *g) {
        return sizeof(*g) + ((size_t)MASKS * g->n_words + 4u * g->n_sets) * sizeof(*g->words) +
               g->n_tokens * sizeof(*operands_of(g));
}

/* Without a byte: as often as there is something new. */
static inline void pass_on(struct glob *g, size_t n_words) {
        const uint64_t *skip = mask_of(g, MASK_SKIP), *skip_two = mask_of(g, MASK_SKIP_TWO);
        uint64_t *states = mask_of(g, MASK_STATES), news;

        do {
                uint64_t carry = 0;

                news = 0;
                for (size_t i = 0; i < n_words; i++) {
                        uint64_t one = states[i] & skip[i], two = states[i] & skip_two[i];
                        uint64_t reached = one << 1 | two << 2 | carry;

                        carry = one >> 63 | two >> 62;
                        news |= reached & ~states[i];
                        states[i] |= reached;
                }
        } while (news);
}

/* What counts of a token is in these masks. */
static void put_token(struct glob *g, const struct token *t, size_t i) {
        static const uint8_t masks[][2] = {
                [TOKEN_BYTE] = { MASK_BYTE, MASK_BYTE },
                [TOKEN_SET] = { MASK_SET, MASK_SET },
                [TOKEN_ONE] = { MASK_NAME, MASK_NAME },
                [TOKEN_NAME] = { MASK_STAY_NAME, MASK_SKIP },
                [TOKEN_ANYTHING] = { MASK_STAY, MASK_SKIP },
                [TOKEN_DIRS] = { MASK_ANY, MASK_SKIP_TWO },
                [TOKEN_DIRS_ON] = { MASK_STAY, MASK_SLASH },
        };

        for (size_t k = 0; k < ARRAY_SIZE(masks[0]); k++)
                mask_of(g, masks[t->type][k])[i >> 6] |= UINT64_C(1) << (i & 63);
        operands_of(g)[i] = t->type == TOKEN_SET ? t->set : t->byte;
}

static int build(const struct program *p, struct glob **ret_glob) {
        struct glob sizes = { .n_tokens = (uint16_t)p->n_tokens, .n_words = (uint16_t)(p->n_tokens / 64 + 1),
                              .n_sets = (uint16_t)p->n_sets }, *g;

        while (sizes.n_suffix < p->n_tokens && p->tokens[p->n_tokens - sizes.n_suffix - 1].type == TOKEN_BYTE)
                sizes.n_suffix++;
        g = calloc(1, glob_bytes(&sizes));
        if (!g)
                return -ENOMEM;
        *g = sizes;
        for (size_t i = 0; i < g->n_sets; i++)
                memcpy(set_at(g, i), p->sets[i], sizeof(p->sets[i]));
        for (size_t i = 0; i < p->n_tokens; i++)
                put_token(g, &p->tokens[i], i);
        mask_of(g, MASK_STATES)[0] = 1;
        pass_on(g, g->n_words);
        memcpy(mask_of(g, MASK_START), mask_of(g, MASK_STATES), g->n_words * sizeof(*g->words));
        *ret_glob = g;
        return 0;
}

int glob_new(const char *text, struct glob **ret_glob) {
        struct program program = { 0 };
        int r = strlen(text) > GLOB_BYTES_MAX ? -EINVAL : compile(&program, text);

        if (r == 0)
                r = build(&program, ret_glob);
        free(program.tokens);
        free(program.sets);
        return r;
}

struct glob *glob_free(struct glob *g) {
        free(g);
        return NULL;
}

/* ---- matching ---------------------------------------------------------------------------- */

void glob_start(struct glob *g) {
        memcpy(mask_of(g, MASK_STATES), mask_of(g, MASK_START), g->n_words * sizeof(*g->words));
}

/* Of the states of a word, which all stand behind a byte or all behind a set, those that go on. */
static uint64_t looked_at(const struct glob *g, uint64_t states, const uint16_t *operands, unsigned char byte, bool sets) {
        uint64_t goes_on = 0;

        for (; states; states &= states - 1) {
                int i = __builtin_ctzll(states);

                goes_on |= (uint64_t)(sets ? set_has(set_at(g, operands[i]), byte) : operands[i] == byte) << i;
        }
        return goes_on;
}

static inline __attribute__((always_inline)) bool step(struct glob *g, unsigned char byte, size_t n_words) {
        bool in_name = byte != '/';
        const uint64_t *any = mask_of(g, MASK_ANY), *some = mask_of(g, in_name ? MASK_NAME : MASK_SLASH);
        const uint64_t *stay = mask_of(g, MASK_STAY), *stay_name = mask_of(g, MASK_STAY_NAME);
        const uint64_t *bytes = mask_of(g, MASK_BYTE), *sets = mask_of(g, MASK_SET);
        const uint16_t *operands = operands_of(g);
        uint64_t *states = mask_of(g, MASK_STATES), carry = 0, left = 0;

        for (size_t i = 0; i < n_words; i++) {
                uint64_t stays = stay[i] | (in_name ? stay_name[i] : 0);
                uint64_t moved = (states[i] & (any[i] | some[i])) |
                                 looked_at(g, states[i] & bytes[i], operands + 64 * i, byte, false) |
                                 looked_at(g, states[i] & sets[i], operands + 64 * i, byte, true);

                states[i] = moved << 1 | carry | (states[i] & stays);
                carry = moved >> 63;
                left |= states[i];
        }
        if (left)
                pass_on(g, n_words);
        return left;
}

bool glob_step(struct glob *g, unsigned char byte) {
        return g->n_words == 1 ? step(g, byte, 1) : step(g, byte, g->n_words);
}

bool glob_has_matched(const struct glob *g) {
        return g->words[g->n_tokens >> 6] >> (g->n_tokens & 63) & 1;
}

bool glob_may_match(const struct glob *g) {
        uint64_t left = 0;

        for (size_t i = 0; i < g->n_words; i++)
                left |= i < g->n_words - 1u ? g->words[i] : g->words[i] & ~(UINT64_C(1) << (g->n_tokens & 63));
        return left;
}

const void *glob_progress(const struct glob *g, size_t *ret_size) {
        *ret_size = g->n_words * sizeof(*g->words);
        return g->words;
}

/* Most that don't match end otherwise. */
static bool has_suffix(const struct glob *g, const char *text, size_t size) {
        const uint16_t *operands = operands_of(g) + g->n_tokens;

        for (size_t i = 1; i <= g->n_suffix; i++)
                if (i > size || operands[-(ptrdiff_t)i] != (unsigned char)text[size - i])
                        return false;
        return true;
}

bool glob_matches(struct glob *g, const char *text, size_t size) {
        bool left = has_suffix(g, text, size);

        if (left)
                glob_start(g);
        for (size_t i = 0; left && i < size; i++)
                left = glob_step(g, (unsigned char)text[i]);
        return left && glob_has_matched(g);
}

/* All but the states. */
bool glob_equal(const struct glob *a, const struct glob *b) {
        size_t states = a->n_words * sizeof(*a->words), size = glob_bytes(a) - offsetof(struct glob, words) - states;

        return a->negated == b->negated && a->n_tokens == b->n_tokens && a->n_words == b->n_words &&
               a->n_sets == b->n_sets && memcmp((const char *)a->words + states, (const char *)b->words + states, size) == 0;
}
