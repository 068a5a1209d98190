/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev proc: how processes end, and with --track what they start. Where the daemon
 * can't see processes that don't exist yet, those that run now are watched one by
 * one.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "all_users.h"
#include "commands.h"
#include "pids.h"
#include "print.h"
#include "report.h"

#define NOTES_OF_END (KEV_NOTE_EXIT | KEV_NOTE_REAP)
/* The daemon that can follow descendants knows with its end how a process ended. */
#define NOTES_OF_TRACK (KEV_NOTE_EXIT | KEV_NOTE_EXEC | KEV_NOTE_TRACK)

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
        const struct options *o = s->options;
        const char *name = o->given & OPTIONS_MATCH ? "matching processes" : "all processes";
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_PROC, &watch);

        if (r == 0)
                r = kev_watch_set_match(watch, o->exe, o->comm, o->cgroup, o->uid);
        if (r == 0)
                r = kev_watch_set_notes(watch, o->given & OPTION_TRACK ? NOTES_OF_TRACK : NOTES_OF_END);
        if (r == 0)
                r = session_try_add(s, watch, name, false);
        kev_watch_free(watch);
        if (r == -EOPNOTSUPP && !(o->given & (OPTIONS_MATCH | OPTION_TRACK)))
                add_running_instead(s, s->refusal);
        else if (r < 0)
                session_refuse(s, name, r, s->refusal);
}

/* ---- descendants --------------------------------------------------------------- */

static bool take_into_tree(struct session *s, struct subject *subject, const struct kev_event *event) {
        (void)subject;
        process_tree_take(s->tree, event);
        return true;
}

static void show_tree(struct session *s) {
        int r = -ENOMEM;

        s->take = take_into_tree;
        s->tree = process_tree_new(s->colour);
        if (s->tree)
                r = 0;
        /* The last argument is the first subject. */
        for (const struct subject *subject = s->subjects; r == 0 && subject; subject = subject->next)
                r = process_tree_add(s->tree, subject->id, (pid_t)strtol(subject->name, NULL, 10));
        if (r < 0)
                session_refuse(s, NULL, r, NULL);
}

static void add_tracked(struct session *s) {
        s->take = session_take_and_print;
        pids_add(s, NOTES_OF_TRACK);
        if (!(s->options->given & OPTION_JSON) && print_on_terminal(STDOUT_FILENO))
                show_tree(s);
}

int proc_run(const struct command *command, const struct options *options) {
        struct session s;

        if (pids_check(command, options, false) < 0)
                return STATUS_USAGE;
        if ((options->given & OPTIONS_MATCH) && options->n_arguments > 0)
                return usage_error(command, "--exe, --comm, --cgroup and --uid don't go together with a PID");
        if (session_open(&s, options, options->n_arguments > 0 ? take : session_take_and_print) == 0 &&
            (!(options->given & OPTION_ALL_USERS) || all_users_ask(&s) >= 0)) {
                if (options->n_arguments == 0)
                        add_all(&s);
                else if (options->given & OPTION_TRACK)
                        add_tracked(&s);
                else
                        pids_add(&s, NOTES_OF_END);
        }
        return session_finish(&s);
}
