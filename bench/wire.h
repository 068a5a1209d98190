/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A client of the daemon that costs as little as can be: the protocol's messages (kevd(8)) on a bare socket, for
 * benchmarks with more clients, or more watches, than the library should spend time and memory on. What can't be done
 * ends the program, as in bench.h.
 */

#include <stdbool.h>
#include <stddef.h>

#include "bench.h"

struct wire {
        int fd;
        char *in;
        size_t begin, end, capacity; /* of `in`: what was read and not taken */
};

/* To the daemon, or to whatever else listens at that path. Blocks. */
void wire_open(struct wire *wire, const char *path);
void wire_close(struct wire *wire);
/* The path in the daemon's address. */
const char *wire_path(const struct bench *b);

/* `text`: one message; the NUL behind it is sent, too. */
void wire_send(struct wire *wire, const char *text, size_t size);
/* The next message, until the next call; NULL: none came in time. */
const char *wire_receive(struct wire *wire, int timeout_msec);
/* Sends, and takes the one reply; fails if that is an error, or refuses a watch. */
const char *wire_call(struct wire *wire, const char *text, size_t size);

/* The number behind `"name":`; -1: there is none. */
long long wire_number(const char *message, const char *name);
/* How many events are in a reply. */
size_t wire_count_events(const char *message);

/* Has the next daemon_start() allow one user as much as a limit can say, and read `more` lines of configuration, which
 * may be NULL. */
void daemon_raise_limits(struct bench *b, const char *more);
/* So many descriptors may this process have, now that its limit is raised as far as it goes. */
long raise_descriptors(void);
