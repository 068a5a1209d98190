/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev signal: which signals are sent to processes, and by whom.
 */

#include <stdlib.h>

#include "commands.h"
#include "pids.h"
#include "session.h"

static void add(struct session *s, const char *pid) {
        const struct options *o = s->options;
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_SIGNAL, &watch);

        if (r == 0)
                r = kev_watch_set_pid(watch, (pid_t)strtol(pid, NULL, 10));
        if (r == 0 && (o->given & OPTION_SIGNAL))
                r = kev_watch_set_data(watch, o->signal);
        if (r == 0)
                (void)session_add(s, watch, pid, false);
        else
                session_refuse(s, pid, r, NULL);
        kev_watch_free(watch);
}

int signal_run(const struct command *command, const struct options *options) {
        struct session s;

        if (pids_check(command, options, false) < 0)
                return STATUS_USAGE;
        if (session_open(&s, options, session_take_and_print) == 0)
                for (int i = 0; i < options->n_arguments; i++)
                        add(&s, options->arguments[i]);
        return session_finish(&s);
}
