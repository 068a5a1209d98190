/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Events as people read them: when, what, where, one a line.
 */

#include <kev.h>

#include "links.h"
#include "subject.h"

/* Appends the line. `subject` is what the event's watch is about. */
void print_event(struct text *out, const struct subject *subject, const struct kev_event *event, bool colour);

/* A line for a network device as it is now; `all` is the list that it came from. */
void print_link(struct text *out, const struct link *link, const struct ifaddrs *all, bool colour);

/* How many processes or events were not told; 0: that is not known. */
void print_lost(struct text *out, uint64_t count, bool or_more);

/* How a process ended: "exit code 7", "killed by SIGSEGV (core dumped)" or, where the event can't tell,
 * "status not known". */
void print_outcome(struct text *out, const struct kev_event *event);

/* True if that descriptor is a terminal which has more than lines. */
bool print_on_terminal(int fd);
/* True if colours may be used on that descriptor. */
bool print_in_colour(int fd);
