/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * signal: the signals that are sent to a process, counted as kqueue counts them: those too that are ignored, blocked or
 * pending already. What the kernel says of them comes through signal_feed.h, for as long as there are watches, and a
 * while longer: to start it costs more than to have it.
 *
 * One target is one process, however many watch it; its pidfd tells when it has ended. Who may watch it must have all of
 * its user ids, or see all processes, and that at each signal: a program that it begins may give it others.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "hash.h"
#include "opener_call.h"
#include "process_subject.h"
#include "share.h"
#include "signal_feed.h"
#include "source.h"

enum { IDLE_MSEC = 10000, FAILED_SEC = 60, TARGETS_OF_USER_MAX = 1024, READS_MAX = 64 };

#ifdef HAVE_BPF
static const struct signal_feed_class *const feed_class = &signal_feed_bpf;
#else
static const struct signal_feed_class *const feed_class = NULL;
#endif

struct signals {
        struct source source;
        struct mux *mux;
        struct signal_feed *feed; /* NULL: not open */
        struct mux_io io;
        struct opener_guard guard;
        struct opener_call opening;
        struct list waiting; /* struct signal_watch: for the feed to be open */
        struct mux_timer idle_timer;
        struct hash targets; /* by pid */
        struct hash shares;  /* of targets */
        uint64_t again_nsec; /* when the feed may be tried again, after it could not be had */
};

struct target {
        struct hash_node node;
        struct signals *all;
        struct list watches; /* struct signal_watch */
        struct mux_io io;
        pid_t pid;
        int pidfd;
        struct process_ids ids; /* the last that were seen */
};

struct signal_watch {
        struct list link;
        struct target *target; /* NULL: it has ended, or there is no feed yet */
        struct process_subject wanted; /* while it waits for the feed; else the pidfd is -1 */
        struct subscription *subscription;
        const struct asker *asker;
        bool sees_all;
        int number; /* 0: all signals */
};

static struct signals *signals_of(struct source *source) {
        return container_of(source, struct signals, source);
}

static struct target *find_target(const struct signals *s, pid_t pid) {
        for (struct hash_node *n = hash_first(&s->targets, hash_u64((uint64_t)pid)); n; n = hash_next(n)) {
                struct target *t = container_of(n, struct target, node);

                if (t->pid == pid)
                        return t;
        }
        return NULL;
}

/* ---- telling ------------------------------------------------------------------------------------------------------------ */

static void on_record(void *userdata, const struct signal_record *record) {
        struct signals *s = userdata;
        struct target *t = find_target(s, record->pid);
        struct event_process sender = {
                .pid = record->sender, .parent = ABSENT, .uid = record->sender_uid, .exit_code = ABSENT,
                .signal = ABSENT, .cpu_usec = ABSENT, .peak_bytes = ABSENT, .comm = record->sender_comm,
        };
        struct report report = REPORT_INIT;

        if (!t)
                return;
        if (record->knows_ids)
                t->ids = record->ids;
        report.data = record->number;
        report.count = record->count;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        report.process = record->sender > 0 ? &sender : NULL;
        list_for_each(entry, &t->watches) {
                struct signal_watch *w = list_entry(entry, struct signal_watch, link);

                if ((w->number == 0 || w->number == record->number) &&
                    (w->sees_all || process_ids_are(&t->ids, w->asker->uid)))
                        source_report(&s->source, w->subscription, &report);
        }
        report_done(&report);
}

static void on_ready(struct mux_io *io, unsigned events _unused_) {
        (void)feed_class->read(container_of(io, struct signals, io)->feed);
}

/* ---- targets ------------------------------------------------------------------------------------------------------------- */

static void target_free(struct target *t) {
        feed_class->leave(t->all->feed, t->pid);
        mux_remove(t->all->mux, &t->io);
        (void)close(t->pidfd);
        hash_remove(&t->all->targets, &t->node);
        free(t);
}

/* It is told of the target from here on. */
static int enter(struct signal_watch *w, struct target *t, struct refusal *refusal) {
        struct hash *shares = &t->all->shares;

        if (share_count(shares, t, w->asker->uid) >= USER_WATCHES_MAX)
                return refuse(refusal, EDQUOT, "pid: the limit of %d watches of one process is reached", USER_WATCHES_MAX);
        if (share_take(shares, t, w->asker->uid) < 0)
                return refuse(refusal, ENOMEM, "no memory");
        w->target = t;
        list_append(&t->watches, &w->link);
        return 0;
}

/* It isn't any more. */
static void leave(struct signal_watch *w) {
        list_remove(&w->link);
        if (w->target)
                share_return(&w->target->all->shares, w->target, w->asker->uid);
        w->target = NULL;
}

/* What was sent before is told before. */
static void on_end(struct mux_io *io, unsigned events _unused_) {
        struct target *t = container_of(io, struct target, io);
        struct report report = REPORT_INIT;

        for (int i = 0; i < READS_MAX && !feed_class->read(t->all->feed); i++)
                ;
        report.flags = KEV_FLAG_EOF;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        list_for_each(entry, &t->watches) {
                struct signal_watch *w = list_entry(entry, struct signal_watch, link);

                leave(w);
                source_report(&t->all->source, w->subscription, &report);
        }
        report_done(&report);
        target_free(t);
}

/* Takes the pidfd over, also when it fails. */
static struct target *target_new(struct signals *s, const struct process_subject *subject, struct refusal *refusal) {
        struct target *t = calloc(1, sizeof(*t));
        int r;

        if (!t) {
                (void)close(subject->pidfd);
                refusal_set(refusal, ENOMEM, "no memory");
                return NULL;
        }
        t->all = s;
        t->pid = subject->pid;
        t->pidfd = subject->pidfd;
        t->ids = subject->ids;
        t->io = MUX_IO_INIT;
        list_init(&t->watches);
        r = hash_add(&s->targets, &t->node, hash_u64((uint64_t)t->pid));
        if (r == 0)
                r = feed_class->follow(s->feed, t->pid, pidfd_identity(t->pidfd, t->pid));
        if (r == 0)
                r = mux_add(s->mux, &t->io, t->pidfd, MUX_IN, on_end);
        if (r == 0 && pidfd_has_hung_up(t->pidfd)) /* another may have had the number by then */
                r = -ESRCH;
        if (r < 0) {
                target_free(t);
                refusal_set(refusal, -r, "pid: %s", strerror(-r));
                return NULL;
        }
        return t;
}

/* ---- the feed ------------------------------------------------------------------------------------------------------------- */

static void close_feed(struct signals *s) {
        mux_remove(s->mux, &s->io);
        opener_unguard(&s->guard);
        feed_class->close(take_pointer(&s->feed));
}

static int open_feed(struct signals *s, const struct opened *opened) {
        char *why = s->source.reason;
        int r = feed_class->open(opened, on_record, s, &s->feed, why, sizeof(s->source.reason));

        if (r < 0)
                return r;
        why[0] = 0;
        r = mux_add(s->mux, &s->io, feed_class->fd(s->feed), MUX_IN, on_ready);
        if (r == 0)
                r = opener_guard(&s->guard, s->source.context->opener, feed_class->helper_socket(s->feed));
        if (r < 0)
                close_feed(s);
        return r;
}

static void on_idle(struct mux_timer *timer) {
        struct signals *s = container_of(timer, struct signals, idle_timer);

        if (s->targets.n_nodes == 0)
                close_feed(s);
}

static void close_when_idle(struct signals *s) {
        if (s->feed && s->targets.n_nodes == 0) /* without memory it stays open */
                (void)mux_timer_set(s->mux, &s->idle_timer, monotonic_nsec() + IDLE_MSEC * NSEC_PER_MSEC, on_idle);
}

/* It may be tried again at once where it was only that something had run out. */
static void note_failure(struct signals *s, int error, const char *why) {
        if (!s->source.reason[0])
                (void)snprintf(s->source.reason, sizeof(s->source.reason), "%s", why[0] ? why : strerror(-error));
        if (!opener_may_try_again(error))
                s->again_nsec = monotonic_nsec() + FAILED_SEC * NSEC_PER_SEC;
}

static int refuse_without_feed(const struct signals *s, struct refusal *refusal) {
        return refuse(refusal, EOPNOTSUPP, "filter: no signals are told here: %s", s->source.reason);
}

static void on_opened(struct opener_call *call, int error, const struct opened *opened, const char *why);

/* Unless it is being opened. */
static int begin_opening(struct signals *s, struct refusal *refusal) {
        const struct source_settings *settings = &s->source.context->settings;
        struct broker *opener = s->source.context->opener;
        int r = -EOPNOTSUPP;

        if (s->opening.is_under_way)
                return 0;
        if (monotonic_nsec() < s->again_nsec)
                return refuse_without_feed(s, refusal);
        s->source.reason[0] = 0;
        if (!feed_class || !opener) {
                note_failure(s, r, feed_class ? "BPF: this daemon hasn't CAP_BPF and CAP_PERFMON" : "this build has no BPF");
                return refuse_without_feed(s, refusal);
        }
        s->opening.fn = on_opened;
        r = opener_begin(&s->opening, opener, feed_class->helper, -1, settings->process_buffer, false);
        if (r == 0)
                return 0;
        note_failure(s, r, "");
        return refuse_without_feed(s, refusal);
}

/* ---- attach --------------------------------------------------------------------------------------------------------------- */

/* Those that wait for the feed may be of the same processes: each holds one by itself. */
static int check_limit(const struct signals *s, uid_t uid, struct refusal *refusal) {
        size_t n = 0;

        hash_for_each(node, &s->targets) {
                const struct target *t = container_of(node, struct target, node);

                n += list_entry(t->watches.next, struct signal_watch, link)->asker->uid == uid;
        }
        list_for_each(entry, &s->waiting)
                n += list_entry(entry, struct signal_watch, link)->asker->uid == uid;
        return n < TARGETS_OF_USER_MAX ? 0 : refuse(refusal, EDQUOT, "pid: the limit of %d processes a user is reached",
                                                    TARGETS_OF_USER_MAX);
}

/* The caller's own process, which is who has connected, where none is named. */
static int open_wanted(const struct signals *s, const struct subject *subject, struct process_subject *ret,
                       struct refusal *refusal) {
        struct subject own = *subject;
        struct asker asker = *subject->asker;
        int r;

        if (subject->pid == ABSENT) {
                own.pid = asker.pid;
                asker.other_pids = asker.pid <= 0;
                own.asker = &asker;
        }
        r = process_subject_open(s->source.context, &own, ret, refusal);
        if (r == 0 && subject->pid == ABSENT && asker.process != 0 && pidfd_inode(ret->pidfd) != asker.process) {
                ret->pidfd = safe_close(ret->pidfd);
                r = refuse(refusal, ESRCH, "pid: the process that has connected is no more");
        }
        return r;
}

/* Takes the pidfd over, also when it fails: NULL. */
static struct target *find_or_make(struct signals *s, const struct process_subject *wanted, uid_t uid,
                                   struct refusal *refusal) {
        struct target *t = find_target(s, wanted->pid);

        if (t && !pidfd_has_hung_up(t->pidfd)) {
                (void)close(wanted->pidfd);
                return t;
        }
        if (t) /* its number is another's by now */
                on_end(&t->io, MUX_IN);
        if (check_limit(s, uid, refusal) < 0) {
                (void)close(wanted->pidfd);
                return NULL;
        }
        return target_new(s, wanted, refusal);
}

static struct signal_watch *watch_new(struct subscription *subscription, const struct subject *subject) {
        struct signal_watch *w = calloc(1, sizeof(*w));

        if (!w)
                return NULL;
        w->subscription = subscription;
        w->asker = subject->asker;
        w->sees_all = asker_sees_all_processes(subscription->source->context, subject->asker);
        w->number = subject->data == ABSENT ? 0 : (int)subject->data;
        w->wanted.pidfd = -1;
        list_init(&w->link);
        return w;
}

/* There is a feed. */
static int join(struct signals *s, struct signal_watch *w, struct refusal *refusal) {
        struct process_subject wanted = w->wanted;
        struct target *t;
        int r;

        w->wanted.pidfd = -1;
        t = find_or_make(s, &wanted, w->asker->uid, refusal);
        if (!t)
                return -refusal->error;
        r = enter(w, t, refusal);
        if (r < 0 && list_empty(&t->watches))
                target_free(t);
        if (r == 0)
                mux_timer_clear(s->mux, &s->idle_timer);
        return r;
}

static void on_opened(struct opener_call *call, int error, const struct opened *opened, const char *why) {
        struct signals *s = container_of(call, struct signals, opening);
        struct list *entry;

        if (error == 0)
                error = open_feed(s, opened);
        if (error < 0)
                note_failure(s, error, why);
        while ((entry = list_pop(&s->waiting))) {
                struct signal_watch *w = list_entry(entry, struct signal_watch, link);
                struct refusal refusal;
                int r = error < 0 ? refuse_without_feed(s, &refusal) : join(s, w, &refusal);

                s->source.context->sink->attached(w->subscription, r < 0 ? &refusal : NULL); /* detaches it then */
        }
        close_when_idle(s);
}

static int signals_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                          struct refusal *refusal) {
        struct signals *s = signals_of(source);
        struct signal_watch *w;
        int r = s->feed ? 0 : begin_opening(s, refusal);

        if (r < 0)
                return r;
        w = watch_new(subscription, subject);
        r = w ? 0 : refuse(refusal, ENOMEM, "no memory");
        if (r == 0 && !s->feed)
                r = check_limit(s, subject->asker->uid, refusal);
        if (r == 0)
                r = open_wanted(s, subject, &w->wanted, refusal);
        if (r == 0 && s->feed)
                r = join(s, w, refusal);
        if (r < 0) {
                free(w);
                close_when_idle(s);
                return r;
        }
        subscription->object = w;
        if (w->target)
                return 0;
        list_append(&s->waiting, &w->link);
        return 1;
}

static int signals_modify(struct source *source _unused_, struct subscription *subscription,
                          const struct subject *subject, struct refusal *refusal _unused_) {
        struct signal_watch *w = subscription->object;

        if (subject->data != ABSENT)
                w->number = (int)subject->data;
        return 0;
}

static void signals_detach(struct source *source, struct subscription *subscription) {
        struct signals *s = signals_of(source);
        struct signal_watch *w = take_pointer(&subscription->object);
        struct target *t = w->target;

        leave(w);
        (void)safe_close(w->wanted.pidfd);
        if (t && list_empty(&t->watches))
                target_free(t);
        free(w);
        close_when_idle(s);
}

/* A signal is in the ring before the call that sends it returns. */
static bool signals_barrier(struct source *source, struct source_barrier *barrier _unused_) {
        struct signals *s = signals_of(source);

        for (int i = 0; s->feed && i < READS_MAX && !feed_class->read(s->feed); i++)
                ;
        return false;
}

/* ---- for the next daemon --------------------------------------------------------------------------------------------------- */

static void signals_describe(const struct subscription *subscription, struct subject *subject) {
        const struct signal_watch *w = subscription->object;

        int pidfd = w->target ? w->target->pidfd : w->wanted.pidfd;

        subject->pid = w->target ? w->target->pid : pidfd >= 0 ? w->wanted.pid : ABSENT;
        subject->identity = pidfd >= 0 ? pidfd_identity(pidfd, (pid_t)subject->pid) : 0;
        subject->data = w->number ? w->number : ABSENT;
}

/* The ring ends with the daemon: of a process that goes on what it was sent meanwhile is lost. */
static bool signals_save(struct source *source _unused_, struct subscription *subscription,
                         struct state_writer *writer _unused_) {
        const struct signal_watch *w = subscription->object;

        return !w->target && w->wanted.pidfd < 0;
}

/* One whose process has ended. */
static int signals_restore(struct source *source _unused_, struct subscription *subscription,
                           const struct subject *subject, struct state_reader *r _unused_, struct refusal *refusal) {
        subscription->object = watch_new(subscription, subject);
        return subscription->object ? 0 : refuse(refusal, ENOMEM, "no memory");
}

/* ---- the source ------------------------------------------------------------------------------------------------------------ */

static int signals_open(struct source_context *context, struct source **ret_source) {
        struct signals *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        s->mux = context->mux;
        s->io = s->guard.io = MUX_IO_INIT;
        s->idle_timer = MUX_TIMER_INIT;
        list_init(&s->waiting);
        *ret_source = &s->source;
        return 0;
}

static void signals_close(struct source *source) {
        struct signals *s = signals_of(source);

        mux_timer_clear(s->mux, &s->idle_timer);
        opener_cancel(&s->opening);
        if (s->feed)
                close_feed(s);
        hash_free(&s->targets);
        hash_free(&s->shares);
        free(s);
}

static uint64_t signals_registrations(const struct source *source) {
        return container_of(source, const struct signals, source)->targets.n_nodes;
}

static const char *signals_mechanism(const struct source *source) {
        return container_of(source, const struct signals, source)->feed ? "bpf" : "none";
}

const struct source_class source_signals = {
        .name = "signals",
        .filters = 1u << KEV_FILTER_SIGNAL,
        .open = signals_open,
        .close = signals_close,
        .attach = signals_attach,
        .modify = signals_modify,
        .detach = signals_detach,
        .barrier = signals_barrier,
        .registrations = signals_registrations,
        .mechanism = signals_mechanism,
        .describe = signals_describe,
        .save = signals_save,
        .restore = signals_restore,
};
