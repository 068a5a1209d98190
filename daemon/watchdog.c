/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "watchdog.h"

#include <errno.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "log.h"
#include "macro.h"
#include "notify.h"

static void feed(struct mux_timer *timer) {
        struct watchdog *w = container_of(timer, struct watchdog, timer);
        uint64_t pause_nsec = w->pause_nsec;
        int r = notify_at_once("WATCHDOG=1", -1);

        if (r == -EAGAIN)
                pause_nsec = MIN(pause_nsec, NOTIFY_PAUSE_MSEC * NSEC_PER_MSEC);
        r = mux_timer_set(w->mux, timer, monotonic_nsec() + pause_nsec, feed);
        if (r < 0)
                log_error("the watchdog can't be fed any more: %s", strerror(-r));
}

void watchdog_open(struct watchdog *w, struct mux *mux) {
        uint64_t usec;

        *w = (struct watchdog){ .mux = mux };
        if (sd_watchdog_enabled(false, &usec) <= 0)
                return;
        w->pause_nsec = usec * NSEC_PER_USEC / 2;
        feed(&w->timer);
}

void watchdog_close(struct watchdog *w) {
        if (w->mux)
                mux_timer_clear(w->mux, &w->timer);
}
