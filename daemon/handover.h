/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * From one daemon to the next, by the service manager's store of descriptors (sd_pid_notify_with_fds(3), FDSTORE=1;
 * systemd.service(5), FileDescriptorStoreMax=): "kevd-state" is the state, in a sealed memfd, and "kevd-descriptors" a
 * socket in whose queue all the descriptors lie that it speaks of. So the service manager has two of them whatever
 * there is: systemd compares each that it is given with all that it has, and looks at it (fstat(2)), which with a
 * client's could wait for ever. What is missing the state's reader sees.
 *
 * All of it is for the loop's thread, and blocks: before the loop, and after it.
 */

#include "live.h"
#include "state.h"

struct handover {
        char *state; /* mapped; NULL: nothing was left */
        size_t size;
        struct state_fds fds;
        int live_table; /* of a daemon that was killed: live.h; -1: none */
        struct state_fds live_sockets, live_sketches; /* as of live_restore() */
        size_t n_taken;
};

#define HANDOVER_INIT ((struct handover){ .live_table = -1 })

/* Whether there is a service manager that may have a store. */
bool handover_is_possible(void);
/* Leaves it all to the next daemon. Nothing of it may be shut down from then on, only closed. */
int handover_give(const struct state_writer *w);

/* One of the descriptors that the service manager has handed over. True: it is of the last daemon's, and taken. */
bool handover_take(struct handover *handover, int fd, const char *name);
/* What a daemon keeps there while it runs: live.h. */
extern const struct store handover_store;

/* Whether it has something to be gone on with. */
static inline bool handover_has_state(const struct handover *handover) {
        return handover->state != NULL;
}
/* All are taken: from here on the store doesn't have them any more. Reads what comes first: whether the state is one
 * that can be understood. *ret_reader is good until handover_free(). */
bool handover_open(struct handover *handover, struct state_reader *ret_reader);
/* Closes what nobody has taken out. */
void handover_free(struct handover *handover);
