/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The service manager's watchdog (sd_watchdog_enabled(3), WatchdogSec=), fed by the loop itself: one that hangs is
 * noticed. It wakes the daemon up twice in the time that is given, and where there is no watchdog never.
 */

#include "mux.h"

struct watchdog {
        struct mux *mux;
        struct mux_timer timer;
        uint64_t pause_nsec;
};

/* Does nothing where the service manager has no watchdog for this process. */
void watchdog_open(struct watchdog *watchdog, struct mux *mux);
/* Nothing happens to one that was not opened, and is zero. */
void watchdog_close(struct watchdog *watchdog);
