/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Closing what came from a peer. The last close of a socket that lingers, or of
 * a file of a FUSE file system, may take as long as its owner likes, and so may
 * that of a connection in which such a descriptor still lies: it is done on the
 * user's own workers.
 *
 * Descriptors are charged to the user from their coming until they are closed.
 */

#include <stddef.h>

#include "mailbox.h"

struct account;
struct workers;

struct closer {
        struct workers *workers;
        struct mailbox mailbox;
};

int closer_open(struct closer *closer, struct mux *mux, struct workers *workers);
/* After the workers have ended. */
void closer_close(struct closer *closer);

/* Takes the descriptors over, each of them charged. Where there is no memory they
 * are closed at once. */
void closer_add(struct closer *closer, struct account *account, const int *fds, size_t n);
