/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The source of proc watches on a feed: processes.h has the design. */

#include "processes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "config.h"
#include "log.h"
#include "watch_spec.h"

enum { EVENTS_A_TURN = 256, IDLE_MSEC = 10000, CHUNKS_A_TURN = 4, MATCHES_OF_USER_MAX = 128, TRACKERS_OF_USER_MAX = 256 };

static struct processes *processes_of(const struct source *source) {
        return container_of(source, struct processes, source);
}

/* ---- marks ----------------------------------------------------------------------------------------------------------- */

uint64_t processes_mark(struct processes *s) {
        s->feed_class->mark(s->feed, ++s->serial);
        return s->serial;
}

bool processes_are_watched(const struct processes *s) {
        return s->source.n_subscriptions > 0;
}

static void run_pending(struct processes *s);

void processes_on_mark(struct processes *s, uint64_t serial) {
        s->passed = serial;
        process_on_mark(s);
        rescan_on_mark(s);
        if (s->state == FEED_READY)
                run_pending(s);
        barriers_check(&s->barriers);
}

/* ---- the feed -------------------------------------------------------------------------------------------------------- */

/* False: there is none. */
static bool take_chunk(struct processes *s) {
        struct list *entry = mailbox_take(&s->mailbox);
        struct chunk *chunk;

        if (!entry)
                return false;
        chunk = list_entry(entry, struct chunk, link);
        for (size_t i = 0; i < chunk->n; i++)
                process_on_record(s, chunk, &chunk->records[i]);
        chunk_free(chunk, &s->shared);
        ended_trim(s);
        return true;
}

static void take_chunks(struct processes *s) {
        for (int n = 0; n < CHUNKS_A_TURN; n++)
                if (!take_chunk(s))
                        return;
        mux_defer(s->mux, &s->go_on);
}

void processes_take_all(struct processes *s) {
        while (take_chunk(s))
                ;
}

static void on_chunks(struct mailbox *mailbox) {
        take_chunks(container_of(mailbox, struct processes, mailbox));
}

static void on_go_on(struct mux_deferred *deferred) {
        struct processes *s = container_of(deferred, struct processes, go_on);

        if (s->state == FEED_STARTING || s->state == FEED_READY)
                take_chunks(s);
}

static void on_pidfds(struct mux_io *io, unsigned events _unused_) {
        struct processes *s = container_of(io, struct processes, io);
        struct epoll_event ready[EVENTS_A_TURN];
        int n;

        do {
                n = epoll_wait(s->epoll_fd, ready, EVENTS_A_TURN, 0);
                for (int i = 0; i < n; i++)
                        process_on_pidfd(s, ready[i].data.ptr, ready[i].events);
        } while (n == EVENTS_A_TURN);
}

static int open_mailboxes(struct processes *s) {
        int r = mailbox_open(&s->mailbox, s->mux, on_chunks);

        if (r < 0)
                return r;
        r = rescan_init(s);
        if (r < 0)
                mailbox_close(&s->mailbox);
        return r;
}

/* The best first. */
static const struct {
        enum process_feed choice;
        const struct feed_class *class;
} feeds[] = {
#ifdef HAVE_BPF
        { PROCESS_FEED_BPF, &feed_bpf },
#endif
        { PROCESS_FEED_CONNECTOR, &feed_connector },
};

/* What one can't do is said, and the next is asked. */
static int open_feed(struct processes *s) {
        const struct source_settings *settings = &s->source.context->settings;
        struct feed_settings feed_settings = {
                .buffer_bytes = settings->process_buffer, .is_only = settings->process_feed != PROCESS_FEED_AUTO,
                .opener = s->source.context->opener,
        };
        size_t size = 0;
        int r = -EOPNOTSUPP;

        for (size_t i = 0; i < ARRAY_SIZE(feeds) && r < 0; i++) {
                char why[120] = "";

                if (settings->process_feed != PROCESS_FEED_AUTO && settings->process_feed != feeds[i].choice)
                        continue;
                s->feed_class = feeds[i].class;
                r = s->feed_class->open(&feed_settings, &s->mailbox, &s->shared, &s->feed, why, sizeof(why));
                s->had_shortage |= is_shortage(r);
                if (r < 0 && size < sizeof(s->source.reason))
                        size += (size_t)snprintf(s->source.reason + size, sizeof(s->source.reason) - size, "%s%s",
                                                 size > 0 ? "; " : "", why[0] ? why : strerror(-r));
        }
        return r;
}

void processes_start_feed(struct processes *s) {
        int r;

        if (s->state == FEED_FAILED && s->had_shortage)
                s->state = FEED_CLOSED;
        if (s->state != FEED_CLOSED)
                return;
        s->had_shortage = false;
        s->source.reason[0] = 0;
        s->shared.notes_missing = 0;
        r = open_mailboxes(s);
        if (r == 0) {
                r = open_feed(s);
                if (r < 0) {
                        chunk_free_spare(&s->shared);
                        mailbox_close(&s->mailbox);
                        rescan_close(s);
                }
        }
        if (r < 0) {
                s->state = FEED_FAILED;
                s->had_shortage |= is_shortage(r);
                if (!s->source.reason[0])
                        (void)snprintf(s->source.reason, sizeof(s->source.reason), "%s",
                                       r == -EOPNOTSUPP ? "this build has no such feed" : strerror(-r));
                log_info("processes can't be followed: %s", s->source.reason);
                return;
        }
        s->state = FEED_STARTING;
        rescan_start(s);
}

int processes_resume_feed(struct processes *s, const struct feed_class *class, struct state_reader *r) {
        int result = open_mailboxes(s);

        if (result < 0)
                return result;
        s->feed_class = class;
        result = class->resume(s->source.context->opener, &s->mailbox, &s->shared, r, &s->feed);
        if (result < 0) {
                chunk_free_spare(&s->shared);
                mailbox_close(&s->mailbox);
                rescan_close(s);
                return result;
        }
        s->state = FEED_READY;
        return 0;
}

void processes_stop_feed(struct processes *s) {
        struct list *entry;

        if (s->state != FEED_STARTING && s->state != FEED_READY)
                return;
        s->feed_class->close(s->feed);
        while ((entry = mailbox_take(&s->mailbox)))
                chunk_free(list_entry(entry, struct chunk, link), &s->shared);
        chunk_free_spare(&s->shared);
        mailbox_close(&s->mailbox);
        rescan_close(s);
        mux_timer_clear(s->mux, &s->zombie_timer);
        mux_timer_clear(s->mux, &s->undecided_timer);
        mux_timer_clear(s->mux, &s->rescan_timer);
        mux_deferred_cancel(&s->go_on);
        hash_for_each(node, &s->table)
                process_free(s, container_of(node, struct process, node));
        history_free(&s->history);
        s->state = FEED_CLOSED;
        s->has_lost = false;
        s->n_forks_lost = s->n_forks_found = s->n_lost_told = 0;
}

void processes_on_rescanned(struct processes *s) {
        s->state = FEED_READY;
        s->has_profiles = processes_are_watched(s) && atomic_load(&s->shared.wants_details) && !s->rescan;
        run_pending(s);
        if (!processes_are_watched(s))
                processes_set_idle_timer(s);
}

/* Elsewhere than in a system daemon there is a feed as long as somebody needs it, and a while longer: to start one
 * costs more than to have it. */
static void on_idle(struct mux_timer *timer) {
        struct processes *s = container_of(timer, struct processes, idle_timer);

        if (s->source.n_subscriptions == 0 && !s->rescan)
                processes_stop_feed(s);
}

void processes_set_idle_timer(struct processes *s) {
        if (!s->source.context->settings.keeps_feed)
                (void)mux_timer_set(s->mux, &s->idle_timer, monotonic_nsec() + IDLE_MSEC * NSEC_PER_MSEC, on_idle);
}

/* ---- attach ------------------------------------------------------------------------------------------------------------ */

/* Nobody needs its pidfd: neither those who follow it nor we ourselves, to learn of its end. */
static void close_needless_pidfd(struct processes *s, struct process *p) {
        if (p->pidfd >= 0 && list_empty(&p->interests) && p->n_tries == 0 &&
            !(p->state == PROCESS_RUNS && p->first_ended) && !is_reap_wanted(s, p))
                process_close_pidfd(s, p);
}

static void free_predicate(struct process_predicate *m) {
        glob_free(m->exe);
        glob_free(m->comm);
        glob_free(m->cgroup);
}

void proc_watch_free(struct processes *s, struct proc_watch *w) {
        struct pending *pending = take_pointer(&w->pending);

        if (pending) {
                (void)safe_close(pending->subject.pidfd);
                list_remove(&pending->link);
                free(pending);
        }
        while (!list_empty(&w->interests)) {
                struct interest *i = list_entry(w->interests.next, struct interest, of_watch);
                struct process *p = i->process;

                interest_free(s, i);
                close_needless_pidfd(s, p);
        }
        list_remove(&w->link);
        if (w->by_match && w->subscription->notes & KEV_NOTE_REAP)
                hash_for_each(node, &s->table)
                        close_needless_pidfd(s, container_of(node, struct process, node));
        list_remove(&w->tracker);
        list_remove(&w->all);
        free_predicate(&w->predicate);
        profile_unref(w->judged);
        free(w);
}

static int make_glob(const char *name, const char *text, struct glob **ret, struct refusal *refusal) {
        int r = text ? glob_new(text, ret) : 0;

        if (r == -EINVAL)
                return refuse(refusal, EINVAL, "match.%s: \"%.80s\" is not a glob", name, text);
        return r < 0 ? refuse(refusal, -r, "no memory") : 0;
}

static int make_predicate(const struct process_match *match, struct process_predicate *m, struct refusal *refusal) {
        int r = make_glob("exe", match->exe, &m->exe, refusal);

        if (r == 0)
                r = make_glob("comm", match->comm, &m->comm, refusal);
        if (r == 0)
                r = make_glob("cgroup", match->cgroup, &m->cgroup, refusal);
        m->exe_has_slash = match->exe && strchr(match->exe, '/');
        m->cgroup_has_slash = match->cgroup && strchr(match->cgroup, '/');
        m->uid = match->uid;
        return r;
}

static void no_memory(struct refusal *refusal) {
        (void)refuse(refusal, ENOMEM, "no memory");
}

struct proc_watch *proc_watch_new(struct subscription *subscription, const struct subject *subject,
                                  struct refusal *refusal) {
        struct proc_watch *w = calloc(1, sizeof(*w));

        if (!w) {
                no_memory(refusal);
                return NULL;
        }
        w->subscription = subscription;
        w->asker = subject->asker;
        w->sees_all = asker_sees_all_processes(subscription->source->context, subject->asker);
        w->by_match = subject->match != NULL;
        w->by_pidfd = subject->fd >= 0;
        list_init(&w->link);
        list_init(&w->tracker);
        list_init(&w->all);
        list_init(&w->interests);
        if (subject->match && make_predicate(subject->match, &w->predicate, refusal) < 0) {
                free_predicate(&w->predicate);
                free(w);
                return NULL;
        }
        return w;
}

static int make_watch(struct processes *s, struct subscription *subscription, const struct subject *subject,
                      struct proc_watch **ret, struct refusal *refusal) {
        struct proc_watch *w = proc_watch_new(subscription, subject, refusal);

        if (!w)
                return -refusal->error;
        w->pending = calloc(1, sizeof(*w->pending));
        if (!w->pending) {
                proc_watch_free(s, w);
                no_memory(refusal);
                return -ENOMEM;
        }
        w->pending->watch = w;
        w->pending->subject.pidfd = -1;
        w->pending->pid = (pid_t)subject->pid;
        list_init(&w->pending->link);
        *ret = w;
        return 0;
}

/* What the watch is about, as far as it can be said before the feed has caught up. */
static int open_subject(const struct source_context *context, struct pending *pending, const struct subject *subject,
                        struct refusal *refusal) {
        int r;

        if (subject->match) {
                if (subject->asker->other_pids)
                        return refuse(refusal, EXDEV, "match: the caller lives in another pid namespace; pass a pidfd");
                return 0;
        }
        r = process_subject_open(context, subject, &pending->subject, refusal);
        if (r == -ESRCH && subject->fd < 0) /* it may have ended just now */
                return 0;
        if (r < 0)
                return r;
        pending->pid = pending->subject.pid;
        if (pending->pid <= 0)
                return refuse(refusal, EOPNOTSUPP, "descriptor: its process was reaped, or lives in another pid "
                                                   "namespace: it can be watched for exit and reap only");
        return 0;
}

static int check_notes(const struct processes *s, uint64_t notes, struct refusal *refusal) {
        uint64_t missing = notes & s->shared.notes_missing;

        if (!missing)
                return 0;
        return refuse(refusal, EOPNOTSUPP, "notes: \"%s\" can't be told by the feed %s on this kernel",
                      kev_note_name(missing & -missing), s->feed_class->name);
}

/* Each costs time with every process that begins or ends. */
static int check_limits(const struct processes *s, const struct subject *subject, struct refusal *refusal) {
        size_t n_matches = 0, n_trackers = 0;

        list_for_each(entry, &s->all)
                if (list_entry(entry, struct proc_watch, all)->asker->uid == subject->asker->uid) {
                        const struct proc_watch *w = list_entry(entry, struct proc_watch, all);

                        n_matches += w->by_match;
                        n_trackers += (w->subscription->notes & KEV_NOTE_TRACK) != 0;
                }
        if (subject->match && n_matches >= MATCHES_OF_USER_MAX)
                return refuse(refusal, EDQUOT, "match: the limit of %d such watches a user is reached", MATCHES_OF_USER_MAX);
        if (subject->notes & KEV_NOTE_TRACK && n_trackers >= TRACKERS_OF_USER_MAX)
                return refuse(refusal, EDQUOT, "notes: the limit of %d watches with track a user is reached",
                              TRACKERS_OF_USER_MAX);
        return 0;
}

static void tag(struct processes *s, struct proc_watch *w, int pidfd) {
        uint64_t oldest;

        if (!s->feed_class->tag || pidfd < 0 || w->tag)
                return;
        w->tag = oldest = ++s->last_tag;
        list_for_each(entry, &s->all) {
                const struct proc_watch *other = list_entry(entry, struct proc_watch, all);

                if (other->tag && other->tag < oldest)
                        oldest = other->tag;
        }
        s->feed_class->tag(s->feed, pidfd, w->tag, oldest);
}

static bool needs_feed(const struct processes *s, const struct subject *subject) {
        return s->state != FEED_CLOSED || s->source.context->settings.process_feed != PROCESS_FEED_AUTO ||
               subject->match || subject->notes & ~(KEV_NOTE_EXIT | KEV_NOTE_REAP);
}

static int processes_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                            struct refusal *refusal) {
        struct processes *s = processes_of(source);
        struct proc_watch *w = NULL;
        int r;

        if (!needs_feed(s, subject))
                return refuse(refusal, EOPNOTSUPP, "filter: a single process is watched without a feed");
        processes_start_feed(s);
        if (s->state == FEED_FAILED)
                return refuse(refusal, EOPNOTSUPP, "%s: %s", subject->match ? "match" : "notes", s->source.reason);
        r = check_notes(s, subject->notes, refusal);
        if (r == 0)
                r = check_limits(s, subject, refusal);
        if (r == 0)
                r = make_watch(s, subscription, subject, &w, refusal);
        if (r < 0)
                return r;
        r = open_subject(source->context, w->pending, subject, refusal);
        if (r < 0) {
                proc_watch_free(s, w);
                return r;
        }
        subscription->object = w;
        if (w->by_match || subject->notes & KEV_NOTE_TRACK)
                list_append(&s->all, &w->all);
        atomic_store(&s->shared.wants_details, true);
        if (subject->notes & KEV_NOTE_TRACK)
                tag(s, w, w->pending->subject.pidfd);
        if (w->by_match && !s->has_profiles && s->state == FEED_READY)
                w->pending->rescan = rescan_for_profiles(s);
        w->pending->serial = processes_mark(s);
        list_append(&s->pending, &w->pending->link);
        return 1;
}

/* ---- once the feed has caught up --------------------------------------------------------------------------------------- */

/* Of several that had this number, the one whose pidfd this is ended as that says. */
static struct process *find_ended_of(struct processes *s, const struct pending *pending) {
        struct process *p = process_find_ended(s, pending->pid);
        struct pidfd_info info;

        if (pending->subject.pidfd < 0 || !pidfd_get_info(pending->subject.pidfd, PIDFD_INFO_EXIT, &info) ||
            !(info.mask & PIDFD_INFO_EXIT))
                return p;
        if (p && p->knows_status && p->status == info.exit_code)
                return p;
        p = process_make(s, pending->pid, NULL, process_heritage(NULL, false));
        if (!p)
                return NULL;
        p->knows_status = true;
        p->status = info.exit_code;
        p->exit_usec = realtime_nsec() / NSEC_PER_USEC;
        process_retire(s, p); /* its end was told, if there was anybody */
        return p;
}

/* NULL: there is none, or nothing is known of it. */
static struct process *find_subject(struct processes *s, const struct pending *pending) {
        int pidfd = pending->subject.pidfd;
        struct process *p = process_find(s, pending->pid);
        struct profile *profile;

        if (pidfd < 0 || pidfd_has_hung_up(pidfd))
                return find_ended_of(s, pending);
        /* Its number is nobody else's: what had it last and does not run has just ended. */
        if (!p) {
                p = process_find_ended(s, pending->pid);
                if (p && !pidfd_has_ended(pidfd) && p->exit_usec + USEC_PER_SEC < realtime_nsec() / NSEC_PER_USEC)
                        p = NULL; /* that was an older one */
        }
        if (!p) {
                p = process_make(s, pending->pid, NULL, process_heritage(NULL, false));
                if (p) {
                        p->is_certain = false;
                        p->seen = s->n_rescans;
                }
        }
        if (!p || p->state != PROCESS_RUNS)
                return p;
        profile = profile_read(p->pid);
        if (profile && pidfd_has_hung_up(pidfd))
                profile = profile_unref(profile);
        if (profile)
                process_set_profile(p, profile);
        return p;
}

static int attach_to(struct processes *s, struct proc_watch *w, struct process *p, struct refusal *refusal) {
        if (!interest_make(s, w, p, false) || (process_open_pidfd(s, p) < 0 && errno != ESRCH))
                return refuse(refusal, errno, "pid: %s", strerror(errno));
        list_append(&s->trackers, &w->tracker);
        return 0;
}

static void finish(struct processes *s, struct pending *pending) {
        struct proc_watch *w = pending->watch;
        const struct sink *sink = s->source.context->sink;
        struct process *p = w->by_match ? NULL : find_subject(s, pending);
        struct refusal refusal;
        int r = 0;

        if (w->by_match)
                list_append(&s->by_match, &w->link);
        else if (!p || (!w->by_pidfd && !watch_may_see(w, p) && (pending->subject.pidfd < 0 || p->profile->knows_ids)))
                r = refuse(&refusal, ESRCH, "pid: there is no process %d", (int)pending->pid);
        else if (p->state == PROCESS_RUNS)
                r = attach_to(s, w, p, &refusal);
        (void)safe_close(pending->subject.pidfd);
        w->pending = NULL;
        free(pending);
        sink->attached(w->subscription, r < 0 ? &refusal : NULL);
        if (!p || p->state == PROCESS_RUNS)
                return;
        if (r == 0)
                tell_late(s, w, p);
        process_put_away(s, p);
}

static void run_pending(struct processes *s) {
        while (!list_empty(&s->pending)) {
                struct pending *pending = list_entry(s->pending.next, struct pending, link);

                if (pending->serial > s->passed || pending->rescan > s->last_rescan)
                        break;
                list_remove(&pending->link);
                finish(s, pending);
        }
}

/* ---- the source -------------------------------------------------------------------------------------------------------- */

static int processes_modify(struct source *source, struct subscription *subscription, const struct subject *subject,
                            struct refusal *refusal) {
        struct processes *s = processes_of(source);
        struct proc_watch *w = subscription->object;
        bool tracks_now = subject->notes & ~w->subscription->notes & KEV_NOTE_TRACK;
        int r = check_notes(s, subject->notes, refusal);

        if (r == 0 && tracks_now)
                r = check_limits(s, subject, refusal);
        if (r < 0)
                return r;
        if (tracks_now && list_empty(&w->all))
                list_append(&s->all, &w->all);
        list_for_each(entry, &w->interests) {
                const struct interest *i = list_entry(entry, struct interest, of_watch);

                if (subject->notes & KEV_NOTE_REAP)
                        (void)process_open_pidfd(s, i->process);
                if (subject->notes & KEV_NOTE_TRACK && !i->is_child)
                        tag(s, w, i->process->pidfd);
        }
        return 0;
}

static void processes_detach(struct source *source, struct subscription *subscription) {
        struct processes *s = processes_of(source);

        proc_watch_free(s, take_pointer(&subscription->object));
        if (source->n_subscriptions > 1)
                return;
        atomic_store(&s->shared.wants_details, false);
        s->has_profiles = false;
        processes_set_idle_timer(s);
}

static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        const struct processes *s = container_of(barriers, struct processes, barriers);

        return s->passed >= barrier->position && list_empty(&s->zombies);
}

static bool processes_barrier(struct source *source, struct source_barrier *barrier) {
        struct processes *s = processes_of(source);

        if (s->state != FEED_READY || source->n_subscriptions == 0)
                return false;
        on_pidfds(&s->io, 0);
        return barriers_add(&s->barriers, barrier, processes_mark(s));
}

static int processes_open(struct source_context *context, struct source **ret_source) {
        struct processes *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->source.context = context;
        s->mux = context->mux;
        s->zombie_timer = s->undecided_timer = s->idle_timer = s->rescan_timer = MUX_TIMER_INIT;
        list_init(&s->pending);
        list_init(&s->ended);
        list_init(&s->unreaped);
        list_init(&s->by_match);
        list_init(&s->trackers);
        list_init(&s->all);
        list_init(&s->zombies);
        mux_deferred_init(&s->go_on, on_go_on);
        barriers_init(&s->barriers, s->mux, is_past);
        s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
        r = s->epoll_fd < 0 ? -errno : mux_add(s->mux, &s->io, s->epoll_fd, MUX_IN, on_pidfds);
        if (r < 0) {
                (void)safe_close(s->epoll_fd);
                free(s);
                return r;
        }
        if (context->settings.process_feed == PROCESS_FEED_PIDFD) {
                s->state = FEED_FAILED;
                (void)snprintf(s->source.reason, sizeof(s->source.reason),
                               "this daemon runs without a feed of processes (process-feed=pidfd)");
        } else if (context->settings.keeps_feed && !context->settings.restores)
                processes_start_feed(s);
        *ret_source = &s->source;
        return 0;
}

static void processes_close(struct source *source) {
        struct processes *s = processes_of(source);

        processes_stop_feed(s);
        barriers_close(&s->barriers);
        mux_timer_clear(s->mux, &s->idle_timer);
        mux_remove(s->mux, &s->io);
        (void)close(s->epoll_fd);
        hash_free(&s->table);
        free(s);
}

static uint64_t processes_registrations(const struct source *source) {
        const struct processes *s = processes_of(source);

        return s->state == FEED_STARTING || s->state == FEED_READY;
}

static const char *processes_mechanism(const struct source *source) {
        const struct processes *s = processes_of(source);

        return s->state == FEED_FAILED || !s->feed_class ? "none" : s->feed_class->name;
}

const struct source_class source_processes = {
        .name = "processes",
        .filters = 1u << KEV_FILTER_PROC,
        .open = processes_open,
        .close = processes_close,
        .attach = processes_attach,
        .modify = processes_modify,
        .detach = processes_detach,
        .barrier = processes_barrier,
        .registrations = processes_registrations,
        .mechanism = processes_mechanism,
        .describe = processes_describe,
        .save_source = processes_save_source,
        .load_source = processes_load_source,
        .save = processes_save,
        .restore = processes_restore,
        .restored = processes_restored,
};
