/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* How sandbox.c's tables are written: a line allows a system call, always or with an argument like that. */

#include <seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct rule {
        int call;
        bool is_checked;
        struct scmp_arg_cmp argument;
};

/* clone(2): where the flags are. */
#ifdef __s390__
#define CLONE_FLAGS_ARGUMENT 1
#else
#define CLONE_FLAGS_ARGUMENT 0
#endif

#define ANY(name) { .call = SCMP_SYS(name) }
/* The bits of argument `n` under the mask are these. Arguments that are an int have no more than 32. */
#define MASKED(name, n, mask, bits) \
        { .call = SCMP_SYS(name), .is_checked = true, .argument = { (n), SCMP_CMP_MASKED_EQ, (mask), (bits) } }
#define IS(name, n, value) MASKED(name, n, UINT32_MAX, (uint32_t)(value))
#define WITHOUT(name, n, bits) MASKED(name, n, (bits), 0)

struct rules {
        const struct rule *list;
        size_t n;
};

/* What a build with sanitizers, or one that counts coverage, asks for beside, in every process: sandbox_sanitizers.c,
 * sandbox_coverage.c; or nothing: sandbox_plain.c. */
extern const struct rules rules_of_build;
