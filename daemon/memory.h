/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What was freed goes back to the system (malloc_trim(3)) once the daemon is calm
 * after it had much to do: else it keeps for good what a storm has taken. While much
 * is done it is not tried, since nothing else happens meanwhile; and who has nothing
 * to do any more is woken for it a few times, and then not again.
 */

#include "mux.h"

struct memory {
        struct mux *mux;
        struct mux_timer timer;
        uint64_t turns, looked_at; /* of the loop: by now, and by the last look */
        unsigned n_quiet;          /* looks in a row at which nothing had been done */
        bool owes;                 /* something was done since it was given back */
};

void memory_open(struct memory *memory, struct mux *mux);
void memory_close(struct memory *memory);
/* After each turn of the loop. */
void memory_after_turn(struct memory *memory);
