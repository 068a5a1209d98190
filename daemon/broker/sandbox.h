/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>

/*
 * What each process may ask of the kernel: seccomp(2). All else ends it at once, and is said in the kernel's log.
 */

enum sandbox {
        SANDBOX_DAEMON,   /* reads what clients send */
        SANDBOX_BROKER,   /* and what its helpers are, until they have filters of their own */
        SANDBOX_SURVEYOR,
        SANDBOX_STAND_IN,
        SANDBOX_DEPUTY,
        SANDBOX_OPENER,
        SANDBOX_OBSERVER,
};

/*
 * From here on it is in force, for all threads that there are and will be, and for good, with no_new_privs set. 0, or a
 * negative errno where this kernel has no such filters: then all is as before.
 */
int sandbox_enter(enum sandbox sandbox);
/* Of this process: "seccomp", or "none" and why. */
const char *sandbox_state(void);
bool sandbox_is_in_force(void);
