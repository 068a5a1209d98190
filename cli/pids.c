/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "pids.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>

int pids_check(const struct command *command, const struct options *options) {
        uint64_t pid;

        for (int i = 0; i < options->n_arguments; i++)
                if (number_read(options->arguments[i], 1, INT_MAX, &pid) < 0) {
                        usage_error(command, "'%s' is not a process's number", options->arguments[i]);
                        return -EINVAL;
                }
        return 0;
}

int pids_try_add(struct session *s, const char *pid) {
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_PROC, &watch);

        s->refusal = NULL;
        if (r == 0)
                r = kev_watch_set_pid(watch, (pid_t)strtol(pid, NULL, 10));
        if (r == 0)
                r = kev_watch_set_notes(watch, KEV_NOTE_EXIT | KEV_NOTE_REAP);
        if (r == 0)
                r = session_try_add(s, watch, pid, false);
        kev_watch_free(watch);
        return r;
}

void pids_add(struct session *s) {
        for (int i = 0; i < s->options->n_arguments; i++) {
                const char *pid = s->options->arguments[i];
                int r = pids_try_add(s, pid);

                if (r < 0)
                        session_refuse(s, pid, r, s->refusal);
        }
}
