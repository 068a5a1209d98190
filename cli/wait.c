/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev wait: waits for processes, anybody's, and ends as the last of them did.
 *
 * A process's status comes with its exit or, where it can't be known by then,
 * when its parent reaps it.
 */

#include "commands.h"
#include "pids.h"

static int status_of(const struct kev_event *event) {
        int value;

        if (kev_event_exit_code(event, &value) == 0)
                return value;
        return kev_event_signal(event, &value) == 0 ? 128 + value : -1;
}

static bool take(struct session *s, struct subject *subject, const struct kev_event *event) {
        int status = status_of(event);

        if (status < 0 && !(kev_event_notes(event) & KEV_NOTE_REAP) && !(kev_event_flags(event) & KEV_FLAG_EOF))
                return false;
        session_print(s, subject, event);
        s->status = status < 0 ? STATUS_FAILED : status;
        session_end_subject(s, subject);
        return true;
}

int wait_run(const struct command *command, const struct options *options) {
        struct session s;

        if (pids_check(command, options) < 0)
                return STATUS_USAGE;
        if (session_open(&s, options, take) == 0)
                pids_add(&s);
        s.outlives_output = true;
        return session_finish(&s);
}
