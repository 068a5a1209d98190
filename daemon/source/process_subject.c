/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "process_subject.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/pidfd.h>

int check_pids(const struct asker *asker, const char *member, struct refusal *refusal) {
        if (!asker->other_pids)
                return 0;
        return refuse(refusal, EXDEV, "%s: the caller lives in another pid namespace, or in one that can't be seen; pass "
                                      "a pidfd", member);
}

static int open_by_pid(const struct source_context *context, const struct subject *subject, struct process_subject *s,
                       struct refusal *refusal) {
        const struct asker *asker = subject->asker;
        int r = check_pids(asker, "pid", refusal);

        if (r < 0)
                return r;
        s->pid = (pid_t)subject->pid;
        s->pidfd = pidfd_open(s->pid, 0);
        if (s->pidfd < 0) {
                r = errno;
                if (r == EMFILE || r == ENFILE)
                        return refuse(refusal, r, "pid: the daemon has no descriptor left");
                return refuse(refusal, ESRCH, "pid: there is no process %d", (int)s->pid);
        }
        s->knows_ids = pidfd_read_ids(s->pidfd, s->pid, &s->ids) == 0;
        if (asker_sees_all_processes(context, asker) || (s->knows_ids && process_ids_are(&s->ids, asker->uid)))
                return 0;
        s->pidfd = safe_close(s->pidfd);
        return refuse(refusal, EPERM, "pid: process %d is another user's", (int)s->pid);
}

static int open_passed(const struct subject *subject, struct process_subject *s, struct refusal *refusal) {
        /* What it is comes first: the last close of anything else might block. */
        if (pidfd_get_pid(subject->fd, &s->pid) < 0)
                return refuse(refusal, EINVAL, "descriptor: not a pidfd");
        s->pidfd = fcntl(subject->fd, F_DUPFD_CLOEXEC, 3);
        if (s->pidfd < 0)
                return refuse(refusal, EMFILE, "descriptor: the daemon has no descriptor left");
        s->knows_ids = s->pid > 0 && pidfd_read_ids(s->pidfd, s->pid, &s->ids) == 0;
        return 0;
}

int process_subject_open(const struct source_context *context, const struct subject *subject,
                         struct process_subject *ret, struct refusal *refusal) {
        *ret = (struct process_subject){ .pidfd = -1 };
        return subject->fd >= 0 ? open_passed(subject, ret, refusal) : open_by_pid(context, subject, ret, refusal);
}
