/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev timer: a period, told each time it is over.
 */

#include "commands.h"
#include "session.h"

/* In the coarsest unit that doesn't round it. */
static int set_period(struct kev_watch *watch, int64_t nsec) {
        static const struct {
                int64_t nsec;
                uint64_t note;
        } units[] = {
                { NSEC_PER_SEC, KEV_NOTE_SEC },
                { NSEC_PER_MSEC, KEV_NOTE_MSEC },
                { NSEC_PER_USEC, KEV_NOTE_USEC },
                { 1, KEV_NOTE_NSEC },
        };
        size_t i = 0;
        int r;

        while (nsec % units[i].nsec != 0)
                i++;
        r = kev_watch_set_data(watch, nsec / units[i].nsec);
        return r < 0 ? r : kev_watch_set_notes(watch, units[i].note);
}

int timer_run(const struct command *command, const struct options *options) {
        const char *period = options->arguments[0];
        struct kev_watch *watch = NULL;
        struct session s;
        int64_t nsec;
        int r;

        if (options->n_arguments > 1)
                return usage_error(command, "more than one PERIOD");
        if (duration_read(period, NSEC_PER_MSEC, &nsec) < 0)
                return usage_error(command, "'%s' is not a period above 0, such as 500, 250us, 2s or 1m", period);
        r = session_open(&s, options, session_take_and_print);
        if (r < 0)
                return session_finish(&s);
        r = kev_watch_new(KEV_FILTER_TIMER, &watch);
        if (r == 0)
                r = set_period(watch, nsec);
        if (r == 0 && (options->given & OPTION_ONCE))
                r = kev_watch_set_flags(watch, KEV_FLAG_ONESHOT);
        if (r == 0)
                (void)session_add(&s, watch, period, false);
        else
                session_refuse(&s, period, r, NULL);
        kev_watch_free(watch);
        return session_finish(&s);
}
