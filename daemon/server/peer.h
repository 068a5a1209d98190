/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who is at the other end of a socket, as the kernel says (unix(7)).
 */

#include "source.h"

/* SO_PEERCRED, and whether the peer lives in the daemon's namespaces and root
 * directory: as it was when it connected. What can't be told counts as "other".
 * Returns a negative errno where there is no peer. */
int peer_identify(int fd, struct asker *ret_asker);
/* Whether it is this one. */
bool peer_is(int fd, const struct asker *asker);
/* Frees what it holds. */
void peer_done(struct asker *asker);
