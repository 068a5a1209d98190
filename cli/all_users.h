/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include "session.h"

/* Asks the daemon, by D-Bus, to let the session's connection see the processes of all users: kevd(8), "D-BUS". May take
 * as long as somebody needs to type a password. A negative errno after a message. */
int all_users_ask(struct session *s);
