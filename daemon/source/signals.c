/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * signal: the signals that are sent to a process, counted as kqueue counts them: those too that are ignored, blocked or
 * pending already. What the kernel says of them comes through signal_feed.h, for as long as there are watches, and a
 * while longer: to start it costs more than to have it.
 *
 * One target is one process, however many watch it; its pidfd tells when it has ended. Who may watch it must have all of
 * its user ids, or see all processes, and that at each signal: a program that it begins may give it others.
 *
 * A user may have many watches of one process, and send to it without an end. So a turn tells to so many, and the rest
 * stays in the ring. Of a process with very many watches, a crowd, there a few signals would keep all others waiting: they
 * are taken out and put down, those that are alike as one with a count, and told one a turn.
 *
 * What has to come after a signal waits until the feed is past the position of then, and what was put down is told: a
 * Wait's barrier, the end of a process, and another one that has its number by now.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "barrier.h"
#include "config.h"
#include "hash.h"
#include "opener_call.h"
#include "process_subject.h"
#include "share.h"
#include "signal_feed.h"
#include "source.h"

enum { IDLE_MSEC = 10000, FAILED_SEC = 60, TARGETS_OF_USER_MAX = 1024, CROWD_MIN = 33 /* watches */,
       TALLIES_MAX = 64 };

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
        struct mux_deferred go_on; /* there may be something to be told */
        unsigned n_asked; /* in this turn: watches that were told, or might have been */
        struct list waiting; /* struct signal_watch: for the feed to be open, or another's end to be told */
        struct list ending;  /* struct target: in the order of their positions */
        struct list crowds;  /* struct target: with something put down, in turn */
        uint64_t serial;     /* of what was put down last */
        struct barriers barriers;
        struct mux_timer idle_timer;
        struct hash targets; /* by pid */
        struct hash shares;  /* of targets */
        uint64_t again_nsec; /* when the feed may be tried again, after it could not be had */
};

struct target {
        struct hash_node node;
        struct signals *all;
        struct list watches; /* struct signal_watch */
        unsigned n_watches;
        struct mux_io io;
        pid_t pid;
        int pidfd;
        struct process_ids ids; /* the last that were seen */
        struct list link;       /* among those that are ending */
        struct signal_position end; /* behind all that it was sent */
        bool is_over;           /* all of that was read */
        struct list in_crowds;
        struct list put_down;   /* struct tally: in the order of the first of each */
        unsigned n_put_down;
};

/* Signals to a crowd that are alike. */
struct tally {
        struct list link;
        uint64_t serial;
        struct signal_record record; /* with the sender, as long as there is but one */
        char comm[16];
};

struct signal_watch {
        struct list link;
        struct target *target; /* NULL: it has ended, or is waited for */
        struct process_subject wanted; /* while it waits; else the pidfd is -1 */
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

static void tell(struct target *t, const struct signal_record *record) {
        struct signals *s = t->all;
        struct event_process sender = {
                .pid = record->sender, .parent = ABSENT, .uid = record->sender_uid, .exit_code = ABSENT,
                .signal = ABSENT, .cpu_usec = ABSENT, .peak_bytes = ABSENT, .comm = record->sender_comm,
        };
        struct report report = REPORT_INIT;

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
        s->n_asked += t->n_watches;
}

static bool are_alike(const struct signal_record *a, const struct signal_record *b) {
        return a->number == b->number && a->knows_ids == b->knows_ids && a->ids.real == b->ids.real &&
               a->ids.effective == b->ids.effective && a->ids.saved == b->ids.saved;
}

static bool have_one_sender(const struct signal_record *a, const struct signal_record *b) {
        return a->sender > 0 && a->sender == b->sender && a->sender_uid == b->sender_uid &&
               strcmp(a->sender_comm, b->sender_comm) == 0;
}

static struct tally *find_tally(const struct target *t, const struct signal_record *record) {
        list_for_each(entry, &t->put_down) {
                struct tally *tally = list_entry(entry, struct tally, link);

                if (are_alike(&tally->record, record))
                        return tally;
        }
        return NULL;
}

/* False: no room. */
static bool put_down(struct target *t, const struct signal_record *record) {
        struct tally *tally = find_tally(t, record);

        if (tally) {
                tally->record.count += record->count;
                if (!have_one_sender(&tally->record, record))
                        tally->record.sender = 0;
                return true;
        }
        tally = t->n_put_down < TALLIES_MAX ? calloc(1, sizeof(*tally)) : NULL;
        if (!tally)
                return false;
        tally->record = *record;
        tally->serial = ++t->all->serial;
        (void)snprintf(tally->comm, sizeof(tally->comm), "%s", record->sender_comm ? record->sender_comm : "");
        tally->record.sender_comm = tally->comm;
        if (list_empty(&t->put_down))
                list_append(&t->all->crowds, &t->in_crowds);
        list_append(&t->put_down, &tally->link);
        t->n_put_down++;
        return true;
}

static bool on_record(void *userdata, const struct signal_record *record) {
        struct signals *s = userdata;
        struct target *t = find_target(s, record->pid);

        if (!t || ((t->n_watches >= CROWD_MIN || t->n_put_down > 0) && put_down(t, record)))
                return false;
        tell(t, record);
        return s->n_asked >= REPORTS_A_TURN;
}

/* As long as there is more the ring stays ready. */
static void on_ready(struct mux_io *io, unsigned events _unused_) {
        struct signals *s = container_of(io, struct signals, io);

        mux_defer(s->mux, &s->go_on);
}

/* ---- targets ------------------------------------------------------------------------------------------------------------- */

static void target_free(struct target *t) {
        struct list *entry;

        feed_class->leave(t->all->feed, t->pid);
        if (!list_empty(&t->all->waiting)) /* for its number, perhaps */
                mux_defer(t->all->mux, &t->all->go_on);
        while ((entry = list_pop(&t->put_down)))
                free(list_entry(entry, struct tally, link));
        list_remove(&t->in_crowds);
        list_remove(&t->link);
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
        t->n_watches++;
        return 0;
}

/* It isn't any more. */
static void leave(struct signal_watch *w) {
        list_remove(&w->link);
        if (w->target) {
                share_return(&w->target->all->shares, w->target, w->asker->uid);
                w->target->n_watches--;
        }
        w->target = NULL;
}

/* What was sent before is told before. */
static void begin_end(struct target *t) {
        if (t->is_over || !list_empty(&t->link))
                return;
        mux_remove(t->all->mux, &t->io);
        t->end = feed_class->position(t->all->feed);
        list_append(&t->all->ending, &t->link);
        mux_defer(t->all->mux, &t->all->go_on);
}

static void on_end(struct mux_io *io, unsigned events _unused_) {
        begin_end(container_of(io, struct target, io));
}

static void tell_end(struct target *t) {
        struct signals *s = t->all;
        struct report report = REPORT_INIT;

        s->n_asked += t->n_watches;
        report.flags = KEV_FLAG_EOF;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        list_for_each(entry, &t->watches) {
                struct signal_watch *w = list_entry(entry, struct signal_watch, link);

                leave(w);
                source_report(&s->source, w->subscription, &report);
        }
        report_done(&report);
        target_free(t);
}

/* The one that has nothing left in the ring. */
static struct target *next_to_end(const struct signals *s) {
        struct target *t = list_empty(&s->ending) ? NULL : list_entry(s->ending.next, struct target, link);

        return t && feed_class->is_past(s->feed, &t->end) ? t : NULL;
}

/* One at least, whatever else there was to tell. */
static void tell_ends(struct signals *s) {
        struct target *t;

        while ((t = next_to_end(s))) {
                t->is_over = true;
                list_remove(&t->link);
                if (list_empty(&t->put_down))
                        tell_end(t);
                if (s->n_asked >= REPORTS_A_TURN)
                        break;
        }
}

/* The same. */
static void tell_crowds(struct signals *s) {
        struct list *entry;

        while ((entry = list_pop(&s->crowds))) {
                struct target *t = list_entry(entry, struct target, in_crowds);
                struct tally *tally = list_entry(list_pop(&t->put_down), struct tally, link);

                t->n_put_down--;
                tell(t, &tally->record);
                free(tally);
                if (t->n_put_down > 0)
                        list_append(&s->crowds, &t->in_crowds);
                else if (t->is_over)
                        tell_end(t);
                if (s->n_asked >= REPORTS_A_TURN)
                        break;
        }
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
        list_init(&t->link);
        list_init(&t->in_crowds);
        list_init(&t->put_down);
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
        mux_deferred_cancel(&s->go_on);
        opener_unguard(&s->guard);
        feed_class->close(take_pointer(&s->feed));
        barriers_check(&s->barriers);
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

        if (t || check_limit(s, uid, refusal) < 0) {
                (void)close(wanted->pidfd);
                return t;
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

/* For the feed, or for the end to be told of the process that had the number before. */
static bool has_to_wait(const struct signals *s, const struct signal_watch *w) {
        struct target *t = find_target(s, w->wanted.pid);

        if (!t || !pidfd_has_hung_up(t->pidfd))
                return !s->feed;
        begin_end(t);
        return true;
}

/* It has nothing to wait for. */
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

/* `error`: why there is no feed, or 0. */
static void admit_waiting(struct signals *s, int error) {
        struct list now;
        struct list *entry;

        list_init(&now);
        list_splice(&now, &s->waiting);
        while ((entry = list_pop(&now))) {
                struct signal_watch *w = list_entry(entry, struct signal_watch, link);
                struct refusal refusal;
                int r;

                if (error == 0 && has_to_wait(s, w)) {
                        list_append(&s->waiting, &w->link);
                        continue;
                }
                r = error < 0 ? refuse_without_feed(s, &refusal) : join(s, w, &refusal);
                s->source.context->sink->attached(w->subscription, r < 0 ? &refusal : NULL); /* detaches it then */
        }
        close_when_idle(s);
}

static void on_opened(struct opener_call *call, int error, const struct opened *opened, const char *why) {
        struct signals *s = container_of(call, struct signals, opening);

        if (error == 0)
                error = open_feed(s, opened);
        if (error < 0)
                note_failure(s, error, why);
        admit_waiting(s, error);
}

/* A slice of what there is. */
static void on_go_on(struct mux_deferred *deferred) {
        struct signals *s = container_of(deferred, struct signals, go_on);

        bool is_all;

        s->n_asked = 0;
        is_all = feed_class->read(s->feed);
        tell_ends(s);
        tell_crowds(s);
        if (!is_all || !list_empty(&s->ending) || !list_empty(&s->crowds))
                mux_defer(s->mux, &s->go_on);
        if (!list_empty(&s->waiting))
                admit_waiting(s, 0);
        barriers_check(&s->barriers);
}

static int signals_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                          struct refusal *refusal) {
        struct signals *s = signals_of(source);
        struct signal_watch *w;
        int r = s->feed ? 0 : begin_opening(s, refusal);
        bool waits;

        if (r < 0)
                return r;
        w = watch_new(subscription, subject);
        r = w ? 0 : refuse(refusal, ENOMEM, "no memory");
        if (r == 0 && !s->feed)
                r = check_limit(s, subject->asker->uid, refusal);
        if (r == 0)
                r = open_wanted(s, subject, &w->wanted, refusal);
        waits = r == 0 && has_to_wait(s, w);
        if (r == 0 && !waits)
                r = join(s, w, refusal);
        if (r < 0) {
                free(w);
                close_when_idle(s);
                return r;
        }
        subscription->object = w;
        if (!waits)
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

/* What is in front of it was read, and what of that was put down for the user is told. That takes as long as it takes: it
 * is finite, and nobody's answer is waited for. */
static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        struct signals *s = container_of(barriers, struct signals, barriers);
        struct signal_position position;

        if (!s->feed)
                return true;
        if (barrier->serial == 0)
                barrier->serial = feed_class->position(s->feed).lost + 1;
        barrier->n_looks = 0;
        position = (struct signal_position){ barrier->position, barrier->serial - 1 };
        if (!feed_class->is_past(s->feed, &position) || next_to_end(s))
                return false;
        if (barrier->crowds == 0)
                barrier->crowds = s->serial + 1;
        list_for_each(entry, &s->crowds) {
                const struct target *t = list_entry(entry, struct target, in_crowds);

                if (list_entry(t->put_down.next, struct tally, link)->serial < barrier->crowds &&
                    share_count(&s->shares, t, barrier->asker->uid) > 0)
                        return false;
        }
        return true;
}

static bool signals_barrier(struct source *source, struct source_barrier *barrier) {
        struct signals *s = signals_of(source);

        if (!s->feed || !barriers_add(&s->barriers, barrier, feed_class->position(s->feed).ring))
                return false;
        mux_defer(s->mux, &s->go_on);
        return true;
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
        list_init(&s->ending);
        list_init(&s->crowds);
        mux_deferred_init(&s->go_on, on_go_on);
        barriers_init(&s->barriers, s->mux, is_past);
        *ret_source = &s->source;
        return 0;
}

static void signals_close(struct source *source) {
        struct signals *s = signals_of(source);

        mux_timer_clear(s->mux, &s->idle_timer);
        opener_cancel(&s->opening);
        if (s->feed)
                close_feed(s);
        barriers_close(&s->barriers);
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
