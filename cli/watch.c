/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev watch: files and directories. A directory is watched with all that is
 * below it, everything else for itself.
 */

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "report.h"
#include "session.h"

static void gather(struct session *s, const struct subject *subject, const char *path) {
        struct text t = { 0 };

        if (!path)
                return;
        subject_put_path(subject, path, text_puts, &t);
        exec_gather(s->exec, t.failed ? subject->name : t.data);
        text_free(&t);
}

static bool take(struct session *s, struct subject *subject, const struct kev_event *event) {
        if (s->exec) {
                gather(s, subject, kev_event_from_path(event));
                gather(s, subject, kev_event_path(event));
        } else
                session_print(s, subject, event);
        return true;
}

/* What isn't there is not decided here: the daemon refuses it, with its reason. */
static enum kev_filter filter_of(const char *path) {
        struct stat st;

        if (stat(path, &st) < 0)
                return KEV_FILTER_TREE;
        return S_ISDIR(st.st_mode) ? KEV_FILTER_TREE : KEV_FILTER_VNODE;
}

/* Options that make no sense together, or not for this path. */
static int check(const struct command *command, const struct options *o, const char *path) {
        enum kev_filter filter = filter_of(path);

        if (*path == 0)
                return usage_error(command, "an empty PATH");
        if (filter != KEV_FILTER_TREE && (o->given & OPTIONS_TREE))
                return usage_error(command, "--include, --exclude, --depth, --settle, --list, --cross-mounts and --who are "
                                            "for directories, '%s' is none", path);
        if (o->notes && !(o->notes & kev_filter_notes(filter)))
                return usage_error(command, "--notes: none of these happens to '%s', a %s", path,
                                   filter == KEV_FILTER_TREE ? "directory" : "file");
        return 0;
}

static int add_globs(struct kev_watch *watch, const struct options *o) {
        int r = 0;

        for (size_t i = 0; r == 0 && i < o->n_globs; i++)
                r = o->globs[i].exclude ? kev_watch_add_exclude(watch, o->globs[i].pattern)
                                        : kev_watch_add_include(watch, o->globs[i].pattern);
        return r;
}

static int fill_in(struct kev_watch *watch, const struct options *o, enum kev_filter filter) {
        uint64_t who = o->given & OPTION_WHO ? KEV_NOTE_WHO : 0;
        int r = kev_watch_set_notes(watch, (o->notes & kev_filter_notes(filter)) | who);

        if (r == 0 && (o->given & OPTION_LIST))
                r = kev_watch_set_list(watch, true);
        if (r == 0 && (o->given & OPTION_CROSS_MOUNTS))
                r = kev_watch_set_cross_mounts(watch, true);
        if (r == 0)
                r = add_globs(watch, o);
        if (r == 0 && o->depth > 0)
                r = kev_watch_set_depth(watch, o->depth);
        return r == 0 && o->settle_msec > 0 ? kev_watch_set_settle(watch, o->settle_msec, o->max_latency_msec) : r;
}

static void add(struct session *s, const char *path) {
        enum kev_filter filter = filter_of(path);
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(filter, &watch);

        if (r == 0)
                r = fill_in(watch, s->options, filter);
        if (r == 0)
                (void)session_add(s, watch, path, true);
        else
                session_refuse(s, path, r, NULL);
        kev_watch_free(watch);
}

int watch_run(const struct command *command, const struct options *options) {
        static const char *const here[] = { ".", NULL };
        const char *const *paths = options->n_arguments > 0 ? (const char *const *)options->arguments : here;
        struct session s;

        if ((options->given & OPTION_EXEC) && (options->given & OPTION_JSON))
                return usage_error(command, "--exec and --json don't go together");
        if ((options->given & OPTION_MAX_LATENCY) && !(options->given & OPTION_SETTLE))
                return usage_error(command, "--max-latency is of no use without --settle");
        for (size_t i = 0; paths[i]; i++)
                if (check(command, options, paths[i]) != 0)
                        return STATUS_USAGE;
        if (session_open(&s, options, take) == 0)
                s.says_mechanism = true;
        if (s.kev && options->exec) {
                s.exec = exec_new(options->exec);
                if (!s.exec)
                        session_refuse(&s, NULL, -ENOMEM, NULL);
        }
        for (size_t i = 0; s.kev && paths[i]; i++)
                add(&s, paths[i]);
        return session_finish(&s);
}
