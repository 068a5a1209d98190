/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the tests of timer and user watches share. Nothing relies on a machine that is quick: an event must not come
 * before its time, must come in the end, and its figures must lie between what the clock says before and after. What
 * goes wrong fails the test.
 */

#include <stdint.h>
#include <time.h>

#include "harness.h"

/* Change, whose first refusal has this errno. */
void refused(int fd, const char *parameters, const char *error);

/* Watches of one moment, in milliseconds. */
void add_moment(int fd, int64_t id, int64_t msec);
void expect_moment(int fd, int64_t id, int64_t msec);

int64_t clock_usec(clockid_t clock);
/* CLOCK_MONOTONIC. */
int64_t now_usec(void);
void let_pass(int64_t msec);
