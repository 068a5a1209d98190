/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev wait: waits for processes, anybody's, and ends as the last of them did or,
 * with --any, as the first.
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

/* It was the first, also where its status comes later. */
static void end_others(struct session *s, const struct subject *first) {
        for (struct subject *subject = s->subjects; subject; subject = subject->next)
                if (subject != first)
                        session_end_subject(s, subject);
}

static bool take(struct session *s, struct subject *subject, const struct kev_event *event) {
        int status = status_of(event);

        if (s->options->given & OPTION_WAIT_ANY)
                end_others(s, subject);
        if (status < 0 && !(kev_event_notes(event) & KEV_NOTE_REAP) && !(kev_event_flags(event) & KEV_FLAG_EOF))
                return false;
        session_print(s, subject, event);
        s->status = status < 0 ? STATUS_FAILED : status;
        session_end_subject(s, subject);
        return true;
}

int wait_run(const struct command *command, const struct options *options) {
        const unsigned both = OPTION_WAIT_ANY | OPTION_WAIT_ALL;
        struct session s;

        if ((options->given & both) == both)
                return usage_error(command, "--any and --all don't go together");
        if (pids_check(command, options, true) < 0)
                return STATUS_USAGE;
        if (session_open(&s, options, take) == 0)
                pids_add(&s, KEV_NOTE_EXIT | KEV_NOTE_REAP);
        s.outlives_output = true;
        return session_finish(&s);
}
