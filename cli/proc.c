/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev proc: how processes end. Where the daemon can't see processes that don't
 * exist yet, those that run now are watched one by one.
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "commands.h"
#include "pids.h"
#include "report.h"

/* Of single processes: nothing comes after the reap. */
static bool take(struct session *s, struct subject *subject, const struct kev_event *event) {
        session_print(s, subject, event);
        if (kev_event_notes(event) & KEV_NOTE_REAP)
                session_end_subject(s, subject);
        return true;
}

/* A process of the caller's own, but not kev itself, which can't see its own end. */
static bool is_ours(DIR *proc, const char *name) {
        struct stat st;

        if (name[strspn(name, "0123456789")] != 0 || strtol(name, NULL, 10) == getpid())
                return false;
        return fstatat(dirfd(proc), name, &st, 0) == 0 && st.st_uid == geteuid();
}

/* Watches what runs; returns how many it found, and in `ret_error` what stopped it. */
static size_t add_running(struct session *s, int *ret_error) {
        DIR *proc = opendir("/proc");
        struct dirent *entry;
        size_t n = 0;

        *ret_error = proc ? 0 : -errno;
        while (proc && *ret_error == 0 && (entry = readdir(proc))) {
                int r = is_ours(proc, entry->d_name) ? pids_try_add(s, entry->d_name) : -ESRCH;

                if (r == 0)
                        n++;
                else if (r != -ESRCH) /* which is: it has ended meanwhile */
                        *ret_error = r;
        }
        if (proc)
                (void)closedir(proc);
        return n;
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
        n = add_running(s, &r);
        if (n == 0 && r < 0) {
                session_refuse(s, "running processes", r, s->refusal);
                return;
        }
        (void)snprintf(sentence, sizeof(sentence), "instead, the %zu processes of user %u that run now are watched%s", n,
                       (unsigned)geteuid(), r < 0 ? ", and no more of them" : "");
        if (!quiet)
                report(NULL, sentence, r < 0 ? s->refusal : NULL);
}

static void add_all(struct session *s) {
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_PROC, &watch);

        if (r == 0)
                r = kev_watch_set_match(watch, NULL, NULL, NULL, -1);
        if (r == 0)
                r = kev_watch_set_notes(watch, KEV_NOTE_EXIT | KEV_NOTE_REAP);
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

        if (pids_check(command, options) < 0)
                return STATUS_USAGE;
        if (session_open(&s, options, options->n_arguments > 0 ? take : session_take_and_print) == 0) {
                if (options->n_arguments > 0)
                        pids_add(&s);
                else
                        add_all(&s);
        }
        return session_finish(&s);
}
