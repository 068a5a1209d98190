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

enum {
        EVENTS_A_TURN = 256,
        RECORDS_AT_ONCE = 16,       /* between two looks at the time */
        RECORDS_NSEC = 500 * 1000,  /* of them in a turn: what the feed holds is bounded, and lost beyond that */
        ATTACH_NSEC = 100 * 1000,   /* of watches that are put in force, in a turn */
        IDLE_MSEC = 10000,
        MATCHES_OF_USER_MAX = 128,
        TRACKERS_OF_USER_MAX = 256,
};

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

void processes_on_mark(struct processes *s, uint64_t serial) {
        s->passed = serial;
        process_on_mark(s);
        rescan_on_mark(s);
        mux_defer(s->mux, &s->attach);
        barriers_check(&s->barriers);
}

/* ---- the feed -------------------------------------------------------------------------------------------------------- */

/* So many of the records, of one chunk, or fewer: until they were told to so many watches as are enough for a turn. False:
 * there are none. */
static bool take_records(struct processes *s, size_t n) {
        uint64_t n_reports = s->source.n_reports;
        size_t end;

        if (!s->chunk) {
                struct list *entry = mailbox_take(&s->mailbox);

                if (!entry)
                        return false;
                s->chunk = list_entry(entry, struct chunk, link);
                s->n_taken = 0;
        }
        end = MIN(s->chunk->n, s->n_taken + n);
        while (s->n_taken < end && s->source.n_reports - n_reports < REPORTS_A_TURN) {
                process_on_record(s, s->chunk, &s->chunk->records[s->n_taken]);
                s->n_taken++;
        }
        if (s->n_taken == s->chunk->n) {
                chunk_free(take_pointer(&s->chunk), &s->shared);
                ended_trim(s);
        }
        return true;
}

/* Where a user has many watches of a process, or by what processes are like, each record is long work. */
static void take_for_a_turn(struct processes *s) {
        uint64_t end = monotonic_nsec() + RECORDS_NSEC;

        do
                if (!take_records(s, RECORDS_AT_ONCE))
                        return;
        while (monotonic_nsec() < end);
        mux_defer(s->mux, &s->go_on);
}

void processes_take_all(struct processes *s) {
        while (take_records(s, SIZE_MAX / 2))
                ;
}

static void on_chunks(struct mailbox *mailbox) {
        take_for_a_turn(container_of(mailbox, struct processes, mailbox));
}

static void on_go_on(struct mux_deferred *deferred) {
        struct processes *s = container_of(deferred, struct processes, go_on);

        if (s->state == FEED_STARTING || s->state == FEED_READY)
                take_for_a_turn(s);
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

static void open_next(struct processes *s);

static struct feed_settings settings_of_feed(const struct processes *s) {
        const struct source_settings *settings = &s->source.context->settings;

        return (struct feed_settings){
                .buffer_bytes = settings->process_buffer, .is_only = settings->process_feed != PROCESS_FEED_AUTO,
        };
}

/* What one can't do is said, and the next is asked. */
static void note_failure(struct processes *s, int error, const char *why) {
        size_t size = strlen(s->source.reason);

        s->had_shortage |= opener_may_try_again(error);
        (void)snprintf(s->source.reason + size, sizeof(s->source.reason) - size, "%s%s", size > 0 ? "; " : "",
                       why[0] ? why : strerror(-error));
        s->next_choice++;
}

static void on_feed_open(struct processes *s) {
        s->source.reason[0] = 0;
        s->state = FEED_STARTING;
        rescan_start(s);
        mux_defer(s->mux, &s->decide);
}

static void on_no_feed(struct processes *s) {
        chunk_free_spare(&s->shared);
        mailbox_close(&s->mailbox);
        rescan_close(s);
        s->state = FEED_FAILED;
        if (!s->source.reason[0])
                (void)snprintf(s->source.reason, sizeof(s->source.reason), "this build has no such feed");
        log_info("processes can't be followed: %s", s->source.reason);
        mux_defer(s->mux, &s->decide);
}

/* `opened`: NULL where there is no helper. False: another has to be tried. */
static bool open_feed(struct processes *s, const struct opened *opened) {
        struct feed_settings settings = settings_of_feed(s);
        char why[120] = "";
        int r = s->feed_class->open(&settings, opened, &s->mailbox, &s->shared, &s->feed, why, sizeof(why));

        if (r < 0)
                note_failure(s, r, why);
        return r == 0;
}

static void on_opened(struct opener_call *call, int error, const struct opened *opened, const char *why) {
        struct processes *s = container_of(call, struct processes, opening);
        char sentence[120];

        if (error < 0) {
                (void)snprintf(sentence, sizeof(sentence), "%s%s%s", why, why[0] ? "" : s->feed_class->title,
                               why[0] ? "" : strerror(-error));
                note_failure(s, error, sentence);
        } else if (open_feed(s, opened)) {
                on_feed_open(s);
                return;
        }
        open_next(s);
}

/* False: it can't be tried now. */
static bool ask_helper(struct processes *s) {
        struct feed_settings settings = settings_of_feed(s);
        char sentence[120];
        int r;

        s->opening.fn = on_opened;
        r = opener_begin(&s->opening, s->source.context->opener, s->feed_class->helper, -1, settings.buffer_bytes,
                         settings.is_only);
        if (r == 0)
                return true;
        (void)snprintf(sentence, sizeof(sentence), "%s%s", s->feed_class->title, strerror(-r));
        note_failure(s, r, sentence);
        return false;
}

static void open_next(struct processes *s) {
        enum process_feed wanted = s->source.context->settings.process_feed;

        while (s->next_choice < ARRAY_SIZE(feeds)) {
                if (wanted != PROCESS_FEED_AUTO && wanted != feeds[s->next_choice].choice) {
                        s->next_choice++;
                        continue;
                }
                s->feed_class = feeds[s->next_choice].class;
                if (s->source.context->opener) {
                        if (ask_helper(s))
                                return;
                } else if (open_feed(s, NULL)) {
                        on_feed_open(s);
                        return;
                }
        }
        on_no_feed(s);
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
        s->next_choice = 0;
        r = open_mailboxes(s);
        if (r == 0) {
                s->state = FEED_OPENING;
                open_next(s);
                return;
        }
        s->state = FEED_FAILED;
        s->had_shortage = is_shortage(r);
        (void)snprintf(s->source.reason, sizeof(s->source.reason), "%s", strerror(-r));
        log_info("processes can't be followed: %s", s->source.reason);
}

static void finish_opening(struct processes *s) {
        while (s->state == FEED_OPENING)
                opener_finish(&s->opening);
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

        if (s->state != FEED_OPENING && s->state != FEED_STARTING && s->state != FEED_READY)
                return;
        if (s->state == FEED_OPENING)
                opener_cancel(&s->opening);
        else
                s->feed_class->close(s->feed);
        if (s->chunk)
                chunk_free(take_pointer(&s->chunk), &s->shared);
        while ((entry = mailbox_take(&s->mailbox)))
                chunk_free(list_entry(entry, struct chunk, link), &s->shared);
        chunk_free_spare(&s->shared);
        mailbox_close(&s->mailbox);
        rescan_close(s);
        mux_timer_clear(s->mux, &s->zombie_timer);
        mux_timer_clear(s->mux, &s->undecided_timer);
        mux_timer_clear(s->mux, &s->rescan_timer);
        mux_deferred_cancel(&s->go_on);
        mux_deferred_cancel(&s->attach);
        mux_deferred_cancel(&s->decide);
        hash_for_each(node, &s->table)
                process_free(s, container_of(node, struct process, node));
        history_free(&s->history);
        s->state = FEED_CLOSED;
        s->has_lost = false;
        s->n_forks_lost = s->n_forks_found = s->n_found_early = s->n_lost_told = 0;
}

void processes_on_rescanned(struct processes *s) {
        s->state = FEED_READY;
        s->has_profiles = processes_are_watched(s) && atomic_load(&s->shared.wants_details) && !s->rescan;
        mux_defer(s->mux, &s->attach);
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

        if (subject->match)
                return check_pids(subject->asker, "match", refusal);
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
               subject->match || subject->notes & ~PIDFD_NOTES;
}

/* There is a feed: once it has told all that was so by now the watch is in force. */
static void begin_pending(struct processes *s, struct pending *pending) {
        struct proc_watch *w = pending->watch;

        list_remove(&pending->link);
        list_append(&s->pending, &pending->link);
        if (w->subscription->notes & KEV_NOTE_TRACK)
                tag(s, w, pending->subject.pidfd);
        if (w->by_match && !s->has_profiles && s->state == FEED_READY)
                pending->rescan = rescan_for_profiles(s);
        pending->serial = processes_mark(s);
}

static int refuse_without_feed(const struct processes *s, bool by_match, struct refusal *refusal) {
        return refuse(refusal, EOPNOTSUPP, "%s: %s", by_match ? "match" : "notes", s->source.reason);
}

static void end_pending(struct processes *s, struct pending *pending, const struct refusal *refusal) {
        struct proc_watch *w = pending->watch;

        list_remove(&pending->link);
        (void)safe_close(pending->subject.pidfd);
        w->pending = NULL;
        free(pending);
        s->source.context->sink->attached(w->subscription, refusal);
}

/* There is no feed after all: then pidfds have to do. */
static void pass_on(struct processes *s, struct pending *pending) {
        struct subscription *subscription = pending->watch->subscription;
        const struct sink *upper = s->source.context->upper; /* the nearer one asks what it is attached to */
        int pidfd = pending->subject.pidfd, r;
        struct subject subject = {
                .filter = KEV_FILTER_PROC, .notes = subscription->notes, .fd = pidfd, .pid = pending->pid,
                .data = ABSENT, .asker = pending->watch->asker,
        };
        struct refusal refusal;

        pending->subject.pidfd = -1;
        r = sources_pass_on(subscription, &subject, &refusal); /* frees it here */
        (void)safe_close(pidfd);
        if (r <= 0)
                upper->attached(subscription, r < 0 ? &refusal : NULL);
}

static bool may_do_without_feed(const struct processes *s, const struct proc_watch *w) {
        enum process_feed wanted = s->source.context->settings.process_feed;

        return !w->by_match && !(w->subscription->notes & ~PIDFD_NOTES) &&
               (wanted == PROCESS_FEED_AUTO || w->by_pidfd);
}

static void decide(struct processes *s, struct pending *pending) {
        struct refusal refusal;
        int r;

        if (s->state == FEED_FAILED && may_do_without_feed(s, pending->watch)) {
                pass_on(s, pending);
                return;
        }
        if (s->state == FEED_FAILED)
                r = refuse_without_feed(s, pending->watch->by_match, &refusal);
        else
                r = check_notes(s, pending->watch->subscription->notes, &refusal);
        if (r < 0)
                end_pending(s, pending, &refusal);
        else
                begin_pending(s, pending);
}

/* Those that came while it was being opened: not from within a call that makes watches. */
static void on_decide(struct mux_deferred *deferred) {
        struct processes *s = container_of(deferred, struct processes, decide);

        while (s->state != FEED_OPENING && !list_empty(&s->undecided))
                decide(s, list_entry(s->undecided.next, struct pending, link));
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
                return refuse_without_feed(s, subject->match != NULL, refusal);
        r = check_notes(s, subject->notes, refusal);
        if (r == 0)
                r = check_limits(s, subject, refusal);
        if (r == 0)
                r = make_watch(s, subscription, subject, &w, refusal);
        if (!w)
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
        list_append(&s->undecided, &w->pending->link);
        if (s->state != FEED_OPENING)
                begin_pending(s, w->pending);
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
        struct process *p = w->by_match ? NULL : find_subject(s, pending);
        struct refusal refusal;
        int r = 0;

        if (w->by_match)
                list_append(&s->by_match, &w->link);
        else if (!p || (!w->by_pidfd && !watch_may_see(w, p) && (pending->subject.pidfd < 0 || p->profile->knows_ids)))
                r = refuse(&refusal, ESRCH, "pid: there is no process %d", (int)pending->pid);
        else if (share_count(&s->shares, p, w->asker->uid) >= USER_WATCHES_MAX)
                r = refuse(&refusal, EDQUOT, "%s: the limit of %d watches of one process is reached",
                           w->by_pidfd ? "descriptor" : "pid", USER_WATCHES_MAX);
        else if (p->state == PROCESS_RUNS)
                r = attach_to(s, w, p, &refusal);
        end_pending(s, pending, r < 0 ? &refusal : NULL);
        if (!p || p->state == PROCESS_RUNS)
                return;
        if (r == 0)
                tell_late(s, w, p);
        process_put_away(s, p);
}

/* What a process is like is read for each. */
static void on_attach(struct mux_deferred *deferred) {
        struct processes *s = container_of(deferred, struct processes, attach);
        uint64_t end = monotonic_nsec() + ATTACH_NSEC;

        while (s->state == FEED_READY && !list_empty(&s->pending)) {
                struct pending *pending = list_entry(s->pending.next, struct pending, link);

                if (pending->serial > s->passed || pending->rescan > s->last_rescan)
                        break;
                if (monotonic_nsec() >= end) {
                        mux_defer(s->mux, &s->attach);
                        break;
                }
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
        list_init(&s->undecided);
        list_init(&s->pending);
        list_init(&s->ended);
        list_init(&s->unreaped);
        list_init(&s->by_match);
        list_init(&s->trackers);
        list_init(&s->all);
        list_init(&s->zombies);
        mux_deferred_init(&s->go_on, on_go_on);
        mux_deferred_init(&s->attach, on_attach);
        mux_deferred_init(&s->decide, on_decide);
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
        mux_deferred_cancel(&s->decide);
        barriers_close(&s->barriers);
        mux_timer_clear(s->mux, &s->idle_timer);
        mux_remove(s->mux, &s->io);
        (void)close(s->epoll_fd);
        hash_free(&s->table);
        hash_free(&s->shares);
        free(s);
}

static uint64_t processes_registrations(const struct source *source) {
        const struct processes *s = processes_of(source);

        return s->state == FEED_STARTING || s->state == FEED_READY;
}

/* Who asks wants to know: what is being opened is waited for. */
static const char *processes_mechanism(const struct source *source) {
        struct processes *s = processes_of(source);

        finish_opening(s);
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
        .is_settled = processes_are_settled,
        .save_source = processes_save_source,
        .load_source = processes_load_source,
        .save = processes_save,
        .restore = processes_restore,
        .restored = processes_restored,
};
