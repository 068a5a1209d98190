/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What goes to standard error: one line a message, "kev: NAME: WHAT: WHY". The
 * daemon's sentences may hold names that others chose, so all of it is escaped.
 */

/* Each of `name` and `why` may be NULL; `why` is left out where it says no more than `what`. */
void report(const char *name, const char *what, const char *why);
/* The same, `what` being the sentence for a negative errno. */
void report_error(const char *name, int error, const char *why);
