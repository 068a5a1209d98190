/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proc on pidfds (pidfd_open(2)): the end of single processes that are nobody's
 * child here.
 *
 * A pidfd is readable once the process is a zombie, and hangs up once it was
 * reaped. All of them are in one epoll set of this source, edge-triggered, so
 * that the two can be told apart on any mux, and the mux sees one descriptor.
 *
 * The status comes, in this order, from: PIDFD_GET_INFO with PIDFD_INFO_EXIT
 * (Linux 6.15; once it is reaped); field 52 of the zombie's /proc/PID/stat
 * (where ptrace access allows); nowhere, and then it is absent.
 *
 * Identity is the pidfd's. While a pidfd has not hung up its pid can't be given
 * to another process, so what was read in /proc counts if it had not after.
 */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#include "hash.h"
#include "observer.h"
#include "process_info.h"
#include "process_subject.h"
#include "share.h"
#include "source.h"
#include "state.h"

enum { BATCH = 256 };

struct pidfd_source {
        struct source source;
        int epoll_fd;
        struct mux_io io;
        struct hash processes; /* by pid */
        struct hash shares;    /* of processes; a subscription's tag is the user */
        struct list late;      /* subscriptions on what has ended already */
        struct mux_deferred tell_late;
        bool info_exit;        /* probed */
};

enum process_state {
        PROCESS_RUNNING,
        PROCESS_ZOMBIE,
        PROCESS_REAPED,
};

struct process {
        struct hash_node node;
        struct list subscriptions;
        int pidfd; /* -1 once reaped */
        pid_t pid;
        uint64_t identity; /* pidfs inode, or start time in clock ticks */
        enum process_state state;
        uint64_t exit_usec, reap_usec;
        int64_t parent, uid;
        bool status_known;
        int status; /* as of wait(2) */
        char comm[16];
};

/* ---- telling ----------------------------------------------------------------------- */

/* What comes last has the flag: an exit, to those who did not ask for more. */
static void tell(struct pidfd_source *s, struct subscription *subscription, struct report *report) {
        bool goes_on = report->notes == KEV_NOTE_EXIT && subscription->notes & KEV_NOTE_REAP;

        if (!(subscription->notes & report->notes))
                return;
        report->flags = goes_on ? 0 : KEV_FLAG_EOF;
        source_report(&s->source, subscription, report);
}

static void fill_report(const struct process *p, bool reap, struct event_process *process, struct report *report) {
        *process = (struct event_process){
                .pid = p->pid,
                .parent = p->parent,
                .uid = p->uid,
                .exit_code = ABSENT,
                .signal = ABSENT,
                .cpu_usec = ABSENT,
                .peak_bytes = ABSENT,
                .comm = p->comm[0] ? p->comm : NULL,
        };
        *report = REPORT_INIT;
        report->notes = reap ? KEV_NOTE_REAP : KEV_NOTE_EXIT;
        report->realtime_usec = reap ? p->reap_usec : p->exit_usec;
        report->process = process;
        if (!p->status_known)
                return;
        report->data = p->status;
        process_describe_status(process, p->status);
}

static void tell_all(struct pidfd_source *s, struct process *p, bool reap) {
        struct event_process process;
        struct report report;

        fill_report(p, reap, &process, &report);
        list_for_each(entry, &p->subscriptions)
                tell(s, list_entry(entry, struct subscription, link), &report);
        report_done(&report);
}

/* ---- the end of a process ------------------------------------------------------------ */

static void learn_from_reaped(struct pidfd_source *s, struct process *p) {
        struct pidfd_info info;

        if (p->status_known || !s->info_exit || !pidfd_get_info(p->pidfd, PIDFD_INFO_EXIT, &info) ||
            !(info.mask & PIDFD_INFO_EXIT))
                return;
        p->status = info.exit_code;
        p->status_known = true;
}

/* It may be reaped any moment. */
static void learn_from_zombie(struct pidfd_source *s, struct process *p) {
        struct process_stat line = { .parent = ABSENT };
        bool read = observer_read_stat(p->pid, &line) == 0;

        if (!read || pidfd_has_hung_up(p->pidfd)) {
                learn_from_reaped(s, p);
                return;
        }
        p->parent = line.parent;
        memcpy(p->comm, line.comm, sizeof(p->comm));
        if (line.knows_status) {
                p->status = line.status;
                p->status_known = true;
        }
}

/* The set has it as long as anybody has it open: of one that was passed, its client has a copy. */
static void close_pidfd(struct pidfd_source *s, struct process *p) {
        if (p->pidfd >= 0)
                (void)epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, p->pidfd, NULL);
        p->pidfd = safe_close(p->pidfd);
}

static void on_process(struct pidfd_source *s, struct process *p, uint32_t events) {
        bool reaped = events & (EPOLLHUP | EPOLLERR);
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;

        if (p->state == PROCESS_RUNNING) {
                p->state = PROCESS_ZOMBIE;
                p->exit_usec = now;
                if (reaped)
                        learn_from_reaped(s, p);
                else
                        learn_from_zombie(s, p);
                tell_all(s, p, false);
        }
        if (p->state == PROCESS_ZOMBIE && reaped) {
                learn_from_reaped(s, p);
                p->state = PROCESS_REAPED;
                p->reap_usec = now;
                close_pidfd(s, p);
                tell_all(s, p, true);
        }
}

static void on_ready(struct mux_io *io, unsigned events _unused_) {
        struct pidfd_source *s = container_of(io, struct pidfd_source, io);
        struct epoll_event ready[BATCH];
        int n;

        do {
                n = epoll_wait(s->epoll_fd, ready, BATCH, 0);
                for (int i = 0; i < n; i++)
                        on_process(s, ready[i].data.ptr, ready[i].events);
        } while (n == BATCH);
}

/* Those who asked about a process that had ended before. */
static void tell_late(struct mux_deferred *deferred) {
        struct pidfd_source *s = container_of(deferred, struct pidfd_source, tell_late);
        struct list *entry;

        while ((entry = list_pop(&s->late))) {
                struct subscription *subscription = list_entry(entry, struct subscription, link);
                struct process *p = subscription->object;
                struct event_process process;
                struct report report;

                list_append(&p->subscriptions, &subscription->link);
                fill_report(p, false, &process, &report);
                tell(s, subscription, &report);
                report_done(&report);
                if (p->state != PROCESS_REAPED)
                        continue;
                fill_report(p, true, &process, &report);
                tell(s, subscription, &report);
                report_done(&report);
        }
}

/* ---- attach ---------------------------------------------------------------------------- */

static struct process *find_process(struct pidfd_source *s, pid_t pid, uint64_t identity) {
        for (struct hash_node *n = hash_first(&s->processes, hash_u64((uint64_t)pid)); n; n = hash_next(n)) {
                struct process *p = container_of(n, struct process, node);

                if (p->pid == pid && p->identity == identity)
                        return p;
        }
        return NULL;
}

static void process_free(struct pidfd_source *s, struct process *p) {
        close_pidfd(s, p);
        hash_remove(&s->processes, &p->node);
        free(p);
}

/* Takes the descriptor over, also when it fails. */
static int make_process(struct pidfd_source *s, int pidfd, pid_t pid, int64_t uid, struct process **ret) {
        struct epoll_event event = { .events = EPOLLIN | EPOLLHUP | EPOLLET };
        uint64_t identity = pidfd_identity(pidfd, pid);
        struct process *p = find_process(s, pid, identity);
        int r;

        if (p) {
                (void)close(pidfd);
                *ret = p;
                return 0;
        }
        p = calloc(1, sizeof(*p));
        if (!p || hash_add(&s->processes, &p->node, hash_u64((uint64_t)pid)) < 0) {
                free(p);
                (void)close(pidfd);
                return -ENOMEM;
        }
        list_init(&p->subscriptions);
        p->pidfd = pidfd;
        p->pid = pid;
        p->identity = identity;
        p->uid = uid;
        p->parent = ABSENT;
        event.data.ptr = p;
        if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, pidfd, &event) < 0) {
                r = -errno;
                process_free(s, p);
                return r;
        }
        *ret = p;
        return 0;
}

static int check_notes(uint64_t notes, struct refusal *refusal) {
        uint64_t missing = notes & ~PIDFD_NOTES;

        if (!missing)
                return 0;
        return refuse(refusal, EOPNOTSUPP,
                      "notes: \"%s\" needs a feed of processes, which is not to be had here: kev status says why",
                      kev_note_name(missing & -missing));
}

static void free_unwatched(struct pidfd_source *s, struct process *p) {
        if (!list_empty(&p->subscriptions))
                return;
        list_for_each(entry, &s->late)
                if (list_entry(entry, struct subscription, link)->object == p)
                        return;
        process_free(s, p);
}

/* It is one more of its user's on that process. */
static int take_share(struct pidfd_source *s, struct subscription *subscription, struct process *p,
                      const struct subject *subject, struct refusal *refusal) {
        uid_t uid = subject->asker->uid;

        if (share_count(&s->shares, p, uid) >= USER_WATCHES_MAX)
                return refuse(refusal, EDQUOT, "%s: the limit of %d watches of one process is reached",
                              subject->fd >= 0 ? "descriptor" : "pid", USER_WATCHES_MAX);
        if (share_take(&s->shares, p, uid) < 0)
                return refuse(refusal, ENOMEM, "no memory");
        subscription->object = p;
        subscription->tag = uid;
        return 0;
}

static int pidfd_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                        struct refusal *refusal) {
        struct pidfd_source *s = container_of(source, struct pidfd_source, source);
        struct process_subject opened = { .pidfd = -1 };
        struct process *p = NULL;
        int r;

        if (subject->match)
                return refuse(refusal, EOPNOTSUPP, "match: needs a feed of processes, which is not to be had here: "
                                                   "kev status says why");
        r = check_notes(subject->notes, refusal);
        if (r == 0)
                r = process_subject_open(source->context, subject, &opened, refusal);
        if (r < 0)
                return r;
        r = make_process(s, opened.pidfd, opened.pid, opened.knows_ids ? (int64_t)opened.ids.real : ABSENT, &p);
        if (!p)
                return refuse(refusal, -r, "process %d: %s", opened.pid, strerror(-r));
        r = take_share(s, subscription, p, subject, refusal);
        if (r < 0) {
                free_unwatched(s, p);
                return r;
        }
        if (p->state == PROCESS_RUNNING)
                list_append(&p->subscriptions, &subscription->link);
        else {
                list_append(&s->late, &subscription->link);
                mux_defer(source->context->mux, &s->tell_late);
        }
        return 0;
}

static int pidfd_modify(struct source *source _unused_, struct subscription *subscription _unused_,
                        const struct subject *subject, struct refusal *refusal) {
        return check_notes(subject->notes, refusal);
}

static void pidfd_detach(struct source *source, struct subscription *subscription) {
        struct pidfd_source *s = container_of(source, struct pidfd_source, source);
        struct process *p = take_pointer(&subscription->object);

        list_remove(&subscription->link);
        share_return(&s->shares, p, (uid_t)subscription->tag);
        free_unwatched(s, p);
}

/* ---- for the next daemon ------------------------------------------------------------------- */

static void pidfd_describe(const struct subscription *subscription, struct subject *subject) {
        const struct process *p = subscription->object;

        subject->pid = p->pid;
        subject->identity = p->identity; /* once it is reaped its number may be another's */
}

/* Of one that was reaped everything was told: it has no pidfd. */
static bool pidfd_save(struct source *source _unused_, struct subscription *subscription, struct state_writer *w) {
        const struct process *p = subscription->object;

        state_put_fd(w, p->pidfd);
        state_put_u64(w, p->identity);
        state_put_u64(w, p->state);
        state_put_u64(w, p->exit_usec);
        state_put_u64(w, p->reap_usec);
        state_put_i64(w, p->parent);
        state_put_i64(w, p->uid);
        state_put_bool(w, p->status_known);
        state_put_i64(w, p->status);
        state_put_string(w, p->comm);
        return true;
}

/* Takes the descriptor over. Others may have restored the same process before. */
static int restore_process(struct pidfd_source *s, int pidfd, pid_t pid, struct state_reader *r, struct process **ret) {
        struct epoll_event event = { .events = EPOLLIN | EPOLLHUP | EPOLLET };
        uint64_t identity = state_get_u64(r), state = state_get_u64(r);
        struct process *p = find_process(s, pid, identity);
        const char *comm;

        if (p) {
                (void)safe_close(pidfd);
                *ret = p;
                return 0;
        }
        if (r->failed || state > PROCESS_REAPED || (pidfd < 0) != (state == PROCESS_REAPED)) {
                (void)safe_close(pidfd);
                return -EBADMSG;
        }
        p = calloc(1, sizeof(*p));
        if (!p || hash_add(&s->processes, &p->node, hash_u64((uint64_t)pid)) < 0) {
                free(p);
                (void)safe_close(pidfd);
                return -ENOMEM;
        }
        list_init(&p->subscriptions);
        p->pidfd = pidfd;
        p->pid = pid;
        p->identity = identity;
        p->state = (enum process_state)state;
        p->exit_usec = state_get_u64(r);
        p->reap_usec = state_get_u64(r);
        p->parent = state_get_i64(r);
        p->uid = state_get_i64(r);
        p->status_known = state_get_bool(r);
        p->status = (int)state_get_i64(r);
        comm = state_get_string(r);
        if (comm && strlen(comm) < sizeof(p->comm))
                memcpy(p->comm, comm, strlen(comm) + 1);
        event.data.ptr = p;
        if (pidfd >= 0 && epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, pidfd, &event) < 0) {
                int result = -errno;

                process_free(s, p);
                return result;
        }
        *ret = p;
        return 0;
}

static int pidfd_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                         struct state_reader *r, struct refusal *refusal) {
        struct pidfd_source *s = container_of(source, struct pidfd_source, source);
        struct process *p = NULL;
        int result = restore_process(s, state_get_fd(r), (pid_t)subject->pid, r, &p);

        if (result == -EBADMSG)
                return result;
        if (!p)
                return refuse(refusal, -result, "process %d: %s", (int)subject->pid, strerror(-result));
        result = take_share(s, subscription, p, subject, refusal);
        if (result < 0) {
                free_unwatched(s, p);
                return result;
        }
        list_append(&p->subscriptions, &subscription->link);
        return 0;
}

/* ---- the source -------------------------------------------------------------------------- */

/* What this kernel tells of a process that has ended: tried on a child. */
static void probe(struct pidfd_source *s) {
        struct pidfd_info info;
        siginfo_t end;
        bool can_ask;
        int pidfd;
        pid_t child;

        pidfd = pidfd_open(getpid(), 0);
        can_ask = pidfd >= 0 && pidfd_get_info(pidfd, PIDFD_INFO_PID, &info);
        pidfd = safe_close(pidfd);
        if (!can_ask)
                return;
        child = fork();
        if (child == 0)
                _exit(42);
        if (child < 0)
                return;
        pidfd = pidfd_open(child, 0);
        (void)waitid(P_PID, (id_t)child, &end, WEXITED);
        s->info_exit = pidfd >= 0 && pidfd_get_info(pidfd, PIDFD_INFO_EXIT, &info) &&
                       (info.mask & PIDFD_INFO_EXIT) && info.exit_code == 42 << 8;
        (void)safe_close(pidfd);
}

static int pidfd_open_source(struct source_context *context, struct source **ret_source) {
        struct pidfd_source *s = calloc(1, sizeof(*s));
        int r = -ENOMEM;

        if (!s)
                return r;
        list_init(&s->late);
        mux_deferred_init(&s->tell_late, tell_late);
        s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        r = s->epoll_fd < 0 ? -errno : mux_add(context->mux, &s->io, s->epoll_fd, MUX_IN, on_ready);
        if (r < 0) {
                (void)safe_close(s->epoll_fd);
                free(s);
                return r;
        }
        probe(s);
        *ret_source = &s->source;
        return 0;
}

static void pidfd_close(struct source *source) {
        struct pidfd_source *s = container_of(source, struct pidfd_source, source);

        mux_deferred_cancel(&s->tell_late);
        mux_remove(source->context->mux, &s->io);
        (void)close(s->epoll_fd);
        hash_free(&s->processes);
        hash_free(&s->shares);
        free(s);
}

static uint64_t pidfd_registrations(const struct source *source) {
        return container_of(source, const struct pidfd_source, source)->processes.n_nodes;
}

static const char *pidfd_mechanism(const struct source *source) {
        return container_of(source, const struct pidfd_source, source)->info_exit ? "pidfd, PIDFD_INFO_EXIT" :
                                                                                   "pidfd, status of the zombie";
}

const struct source_class source_pidfd = {
        .name = "pidfd",
        .filters = 1u << KEV_FILTER_PROC,
        .open = pidfd_open_source,
        .close = pidfd_close,
        .attach = pidfd_attach,
        .modify = pidfd_modify,
        .detach = pidfd_detach,
        .registrations = pidfd_registrations,
        .mechanism = pidfd_mechanism,
        .describe = pidfd_describe,
        .save = pidfd_save,
        .restore = pidfd_restore,
};
