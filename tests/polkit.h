/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * In polkit's place: a process of the test's on the bus of buses.h, which answers as it is told.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum answer {
        ANSWER_YES,
        ANSWER_NO,
        ANSWER_CHALLENGE,
        ANSWER_NONE,
        ANSWER_ODD,
        ANSWER_LATE, /* when it has become another */
};

/* What both sides read and write. */
extern struct authority {
        enum answer answer;
        bool is_there;
        unsigned n_asked, n_answered;
        uint32_t flags;
        char subject[128], action[128];
} *authority;

/* Returns its pid when it has its name. */
pid_t authority_start(void);
void authority_stop(pid_t pid);

/* For wait_until(): whether so many questions have come, of which there are `unsigned *n`. */
bool authority_was_asked(void *n);
/* The same, of those that it has made up its mind about. */
bool authority_has_answered(void *n);
