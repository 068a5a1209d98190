/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev fd: descriptors that kev was started with.
 *
 * They are told from what kev opens itself by being open before that is: so all are looked at before the connection
 * is made. None is read, written or closed; the copy that goes to the daemon ends with the watch's description.
 */

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "commands.h"
#include "session.h"

#define NOTES_OF_EXCLUSIVE (KEV_NOTE_IN | KEV_NOTE_OUT | KEV_NOTE_ERR | KEV_NOTE_HUP)

static enum kev_filter filter_of(const struct fd_option *option) {
        enum kev_filter filter;

        return kev_filter_from_name(option->name, &filter) == 0 ? filter : KEV_FILTER_POLL;
}

static uint64_t notes_of(const struct fd_option *option) {
        uint64_t note = 0;

        if (filter_of(option) == KEV_FILTER_POLL)
                (void)kev_note_from_name(option->name, &note);
        return note;
}

static bool is_inherited(const struct options *o, int fd) {
        return fcntl(fd, F_GETFD) >= 0 && !(fd < 3 && o->closed & 1u << fd);
}

/* ---- what makes no sense --------------------------------------------------------- */

static int check_flags(const struct command *command, const struct options *o, const struct fd_option *option) {
        if (!(o->flags & KEV_FLAG_EXCLUSIVE))
                return 0;
        if (o->flags & KEV_FLAG_ONESHOT)
                return usage_error(command, "--exclusive and --oneshot don't go together");
        if (filter_of(option) != KEV_FILTER_POLL || notes_of(option) & ~NOTES_OF_EXCLUSIVE)
                return usage_error(command, "--exclusive is for --in, --out, --err and --hup, not for --%s", option->name);
        return 0;
}

static int check(const struct command *command, const struct options *o) {
        bool has_lowat = false;

        if (o->n_arguments > 0)
                return usage_error(command, "'%s' is no option", o->arguments[0]);
        if (o->n_fds == 0)
                return usage_error(command, "which descriptor? --in FD or the like is missing");
        for (size_t i = 0; i < o->n_fds; i++) {
                enum kev_filter filter = filter_of(&o->fds[i]);

                has_lowat |= filter == KEV_FILTER_READ || filter == KEV_FILTER_WRITE;
                if (!is_inherited(o, o->fds[i].fd))
                        return usage_error(command, "--%s: descriptor %d is not open", o->fds[i].name, o->fds[i].fd);
                if (check_flags(command, o, &o->fds[i]) != 0)
                        return STATUS_USAGE;
        }
        if (o->lowat > 0 && !has_lowat)
                return usage_error(command, "--lowat is of no use without --read or --write");
        return 0;
}

/* ---- watches ----------------------------------------------------------------------- */

/* Nothing comes after the other side has gone. Of read and write the flag eof says so. */
static bool take(struct session *s, struct subject *subject, const struct kev_event *event) {
        session_print(s, subject, event);
        if (kev_event_notes(event) & KEV_NOTE_HUP)
                session_end_subject(s, subject);
        return true;
}

/* The daemon's word for a kind that epoll(7) doesn't take is meant for any such kind. */
static const char *reason(const struct session *s, enum kev_filter filter, int fd, int error) {
        struct stat st;

        if (error == -EPERM && filter == KEV_FILTER_POLL && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
                return "a regular file is always ready; --read tells what is appended to it";
        return s->refusal;
}

static void add(struct session *s, enum kev_filter filter, int fd, uint64_t notes) {
        const struct options *o = s->options;
        struct kev_watch *watch = NULL;
        char name[32];
        int r = kev_watch_new(filter, &watch);

        (void)snprintf(name, sizeof(name), "descriptor %d", fd);
        s->refusal = NULL;
        if (r == 0)
                r = kev_watch_set_fd(watch, fd);
        if (r == 0)
                r = kev_watch_set_notes(watch, notes);
        if (r == 0)
                r = kev_watch_set_flags(watch, o->flags);
        if (r == 0 && o->lowat > 0 && (filter == KEV_FILTER_READ || filter == KEV_FILTER_WRITE))
                r = kev_watch_set_data(watch, o->lowat);
        if (r == 0)
                r = session_try_add(s, watch, name, false);
        if (r < 0)
                session_refuse(s, name, r, reason(s, filter, fd, r));
        kev_watch_free(watch);
}

static bool is_same(const struct fd_option *a, const struct fd_option *b) {
        return a->fd == b->fd && filter_of(a) == filter_of(b);
}

/* One watch for all that is said of a descriptor in the words of one filter, at its first mention. */
static void add_all(struct session *s) {
        const struct fd_option *fds = s->options->fds;
        size_t n = s->options->n_fds;

        for (size_t i = 0; i < n; i++) {
                uint64_t notes = 0;
                size_t first = 0;

                while (!is_same(&fds[first], &fds[i]))
                        first++;
                if (first < i)
                        continue;
                for (size_t k = i; k < n; k++)
                        if (is_same(&fds[k], &fds[i]))
                                notes |= notes_of(&fds[k]);
                add(s, filter_of(&fds[i]), fds[i].fd, notes);
        }
}

int fd_run(const struct command *command, const struct options *options) {
        struct session s;

        if (check(command, options) != 0)
                return STATUS_USAGE;
        if (session_open(&s, options, take) == 0)
                add_all(&s);
        return session_finish(&s);
}
