/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev proc: how processes end. Where the daemon can't see processes that don't
 * exist yet, those that run now are watched one by one.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "pids.h"
#include "report.h"

#define NOTES_OF_END (KEV_NOTE_EXIT | KEV_NOTE_REAP)

/* Of single processes: nothing comes after the reap. */
static bool take(struct session *s, struct subject *subject, const struct kev_event *event) {
        session_print(s, subject, event);
        if (kev_event_notes(event) & KEV_NOTE_REAP)
                session_end_subject(s, subject);
        return true;
}

/* `why`: the daemon can't tell of all processes. */
static void add_running_instead(struct session *s, const char *why) {
        bool quiet = s->options->given & OPTION_QUIET;
        char sentence[120];
        size_t n;
        int r;

        if (!quiet)
                report("all processes", strerror(EOPNOTSUPP), why);
        s->take = take;
        n = pids_add_running(s, NULL, false, NOTES_OF_END, &r);
        if (n == 0 && r < 0) {
                session_refuse(s, "running processes", r, s->refusal);
                return;
        }
        (void)snprintf(sentence, sizeof(sentence), "instead, the %zu processes of user %u that run now are watched%s", n,
                       (unsigned)getuid(), r < 0 ? ", and no more of them" : "");
        if (!quiet)
                report(NULL, sentence, r < 0 ? s->refusal : NULL);
}

static void add_all(struct session *s) {
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_PROC, &watch);

        if (r == 0)
                r = kev_watch_set_match(watch, NULL, NULL, NULL, -1);
        if (r == 0)
                r = kev_watch_set_notes(watch, NOTES_OF_END);
        if (r == 0)
                r = session_try_add(s, watch, "all processes", false);
        kev_watch_free(watch);
        if (r == -EOPNOTSUPP)
                add_running_instead(s, s->refusal);
        else if (r < 0)
                session_refuse(s, "all processes", r, s->refusal);
}

int proc_run(const struct command *command, const struct options *options) {
        struct session s;

        if (pids_check(command, options, false) < 0)
                return STATUS_USAGE;
        if (session_open(&s, options, options->n_arguments > 0 ? take : session_take_and_print) == 0) {
                if (options->n_arguments > 0)
                        pids_add(&s, NOTES_OF_END);
                else
                        add_all(&s);
        }
        return session_finish(&s);
}
