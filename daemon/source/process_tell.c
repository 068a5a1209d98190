/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who is to be told what becomes of a process, and telling it. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "processes.h"

enum {
        DESCENDANTS_MAX = 65536,              /* that one watch follows at a time */
        DESCENDANTS_OF_USER_MAX = 256 * 1024, /* that all watches of a user do */
        UNDECIDED_MSEC = 100,
};

/* ---- who follows it ------------------------------------------------------------------------------------------------ */

struct interest *interest_make(struct processes *s, struct proc_watch *w, struct process *p, bool is_child) {
        struct interest *i = calloc(1, sizeof(*i));

        if (!i || share_take(&s->shares, is_child ? NULL : p, w->asker->uid) < 0) {
                free(i);
                errno = ENOMEM;
                return NULL;
        }
        i->watch = w;
        i->process = p;
        i->is_child = is_child;
        list_append(&p->interests, &i->of_process);
        list_append(&w->interests, &i->of_watch);
        w->n_interests++;
        return i;
}

void interest_free(struct processes *s, struct interest *i) {
        list_remove(&i->of_process);
        list_remove(&i->of_watch);
        i->watch->n_interests--;
        share_return(&s->shares, i->is_child ? NULL : i->process, i->watch->asker->uid);
        free(i);
}

/* Those who have a pidfd may know what it tells: the root of such a watch is theirs. */
static bool is_given(const struct interest *i) {
        return i->watch->by_pidfd && !i->is_child;
}

bool watch_may_see(const struct proc_watch *w, const struct process *p) {
        return w->sees_all || (p->profile->knows_ids && process_ids_are(&p->profile->ids, w->asker->uid));
}

static bool interest_may_see(const struct interest *i) {
        return is_given(i) || watch_may_see(i->watch, i->process);
}

static bool follows(const struct proc_watch *w, const struct process *p) {
        list_for_each(entry, &p->interests)
                if (list_entry(entry, struct interest, of_process)->watch == w)
                        return true;
        return false;
}

/* ---- what it is about ------------------------------------------------------------------------------------------------ */

/* A glob without a slash is about the last name. */
static enum verdict match_text(struct glob *glob, bool has_slash, const char *text) {
        const char *name;

        if (!glob)
                return VERDICT_YES;
        if (!text)
                return VERDICT_UNDECIDED;
        name = has_slash ? NULL : strrchr(text, '/');
        if (name && name[1])
                text = name + 1;
        return glob_matches(glob, text, strlen(text)) ? VERDICT_YES : VERDICT_NO;
}

static enum verdict both(enum verdict a, enum verdict b) {
        return a == VERDICT_NO || b == VERDICT_NO ? VERDICT_NO : a == VERDICT_YES ? b : a;
}

static enum verdict either(enum verdict a, enum verdict b) {
        return a == VERDICT_YES || b == VERDICT_YES ? VERDICT_YES : a == VERDICT_NO ? b : a;
}

static enum verdict match_uid(const struct process_predicate *m, const struct profile *profile) {
        if (m->uid == ABSENT)
                return VERDICT_YES;
        if (!profile->knows_ids)
                return VERDICT_UNDECIDED;
        return (int64_t)profile->ids.real == m->uid ? VERDICT_YES : VERDICT_NO;
}

/* Its program: what may not be told is not to be found out by asking, either. */
static enum verdict match_exe(const struct proc_watch *w, const struct profile *profile) {
        const struct process_predicate *m = &w->predicate;

        if (!m->exe)
                return VERDICT_YES;
        if (w->asker->uid != 0 && !profile->knows_ids)
                return VERDICT_UNDECIDED;
        if (w->asker->uid != 0 && !process_ids_are(&profile->ids, w->asker->uid))
                return VERDICT_NO;
        return match_text(m->exe, m->exe_has_slash, profile->exe);
}

/* What costs least comes first. */
static enum verdict judge(const struct proc_watch *w, const struct profile *profile) {
        const struct process_predicate *m = &w->predicate;
        enum verdict v = match_uid(m, profile);

        if (v != VERDICT_NO)
                v = both(v, match_text(m->comm, true, profile->knows_comm ? profile->comm : NULL));
        if (v != VERDICT_NO)
                v = both(v, match_text(m->cgroup, m->cgroup_has_slash, profile->cgroup));
        if (v != VERDICT_NO)
                v = both(v, match_exe(w, profile));
        return v;
}

/* Many processes are alike: what was said of the last one is kept. */
static enum verdict judge_process(struct proc_watch *w, struct profile *profile) {
        if (w->judged != profile) {
                profile_unref(w->judged);
                w->judged = profile_ref(profile);
                w->verdict = judge(w, profile);
        }
        return w->verdict;
}

/* ---- reports --------------------------------------------------------------------------------------------------------- */

static int64_t known_or_absent(int64_t value) {
        return value > 0 ? value : ABSENT;
}

static void describe(const struct process *p, struct event_process *ret, struct report *report) {
        const struct profile *profile = p->profile;

        report->process = ret;
        *ret = (struct event_process){
                .pid = p->pid,
                .parent = known_or_absent(p->parent_pid),
                .uid = profile->knows_ids ? (int64_t)profile->ids.real : ABSENT,
                .exit_code = ABSENT,
                .signal = ABSENT,
                .cpu_usec = ABSENT,
                .peak_bytes = ABSENT,
                .comm = profile->knows_comm ? profile->comm : NULL,
                .exe = profile->exe,
                .cgroup = profile->cgroup,
                .has_other_ids = !profile->knows_ids || !process_ids_are(&profile->ids, profile->ids.real),
        };
}

/* How it ended, with what it was; both live as long as the report. */
static void describe_end(const struct process *p, uint64_t note, uint64_t realtime_usec, struct event_process *process,
                         struct report *report) {
        *report = REPORT_INIT;
        describe(p, process, report);
        report->notes = note;
        report->realtime_usec = realtime_usec;
        if (p->knows_usage) {
                process->cpu_usec = (int64_t)p->cpu_usec;
                process->peak_bytes = (int64_t)p->peak_bytes;
        }
        if (!p->knows_status)
                return;
        report->data = p->status;
        process_describe_status(process, p->status);
}

static uint64_t now_usec(void) {
        return realtime_nsec() / NSEC_PER_USEC;
}

static void tell(struct processes *s, struct proc_watch *w, struct report *report, uint32_t flags) {
        report->flags = flags;
        w->has_ended |= flags & KEV_FLAG_EOF;
        source_report(&s->source, w->subscription, report);
}

/* `trackerr`: it is not to be followed any more. Of the watch's own process that is the end. */
static void tell_lost_track(struct processes *s, struct proc_watch *w, const struct process *p, bool end) {
        struct event_process process = {
                .pid = p->pid, .parent = ABSENT, .uid = ABSENT, .exit_code = ABSENT, .signal = ABSENT, .cpu_usec = ABSENT, .peak_bytes = ABSENT,
        };
        struct report report = REPORT_INIT;

        report.notes = KEV_NOTE_TRACKERR;
        report.process = &process;
        report.realtime_usec = now_usec();
        tell(s, w, &report, end ? KEV_FLAG_EOF : 0);
        report_done(&report);
}

/* Told once it may be. */
static void tell_child_to(struct processes *s, struct interest *i) {
        struct process *p = i->process;
        struct event_process process;
        struct report report = REPORT_INIT;

        if (!i->is_child || i->was_told || !interest_may_see(i))
                return;
        i->was_told = true;
        describe(p, &process, &report);
        report.notes = KEV_NOTE_CHILD;
        report.data = process.parent;
        report.realtime_usec = now_usec();
        tell(s, i->watch, &report, 0);
        report_done(&report);
}

static void follow_child(struct processes *s, struct proc_watch *w, struct process *p) {
        struct interest *i = NULL;

        if (follows(w, p))
                return;
        if (w->n_interests < DESCENDANTS_MAX && share_count(&s->shares, NULL, w->asker->uid) < DESCENDANTS_OF_USER_MAX)
                i = interest_make(s, w, p, true);
        if (!i) {
                tell_lost_track(s, w, p, false);
                return;
        }
        tell_child_to(s, i);
        if (w->subscription->notes & KEV_NOTE_REAP)
                (void)process_open_pidfd(s, p);
}

void tell_descendant(struct processes *s, struct proc_watch *w, struct process *p) {
        if (w->subscription->notes & KEV_NOTE_TRACK)
                follow_child(s, w, p);
}

void tell_child(struct processes *s, struct process *p, struct process *parent) {
        if (!parent)
                return;
        list_for_each(entry, &parent->interests) {
                struct proc_watch *w = list_entry(entry, struct interest, of_process)->watch;

                if (w->subscription->notes & KEV_NOTE_TRACK)
                        follow_child(s, w, p);
        }
        list_for_each(entry, &s->by_match) {
                struct proc_watch *w = list_entry(entry, struct proc_watch, link);

                if (w->subscription->notes & KEV_NOTE_TRACK && watch_may_see(w, parent) &&
                    judge_process(w, parent->profile) == VERDICT_YES)
                        follow_child(s, w, p);
        }
}

/* Another user's by now, or its own again. False: the watch has ended with that. */
static bool check_sight(struct processes *s, struct interest *i) {
        bool may_see = interest_may_see(i), is_end = !i->is_child && i->watch->n_interests == 1;

        if (!may_see && !i->was_hidden && (i->was_told || !i->is_child)) {
                tell_lost_track(s, i->watch, i->process, is_end);
                if (is_end) {
                        interest_free(s, i);
                        return false;
                }
        }
        i->was_hidden = !may_see;
        tell_child_to(s, i);
        return true;
}

static bool is_wanted_by_match(const struct processes *s, uint64_t note) {
        list_for_each(entry, &s->by_match)
                if (list_entry(entry, struct proc_watch, link)->subscription->notes & note)
                        return true;
        return false;
}

static void tell_lost_to(struct processes *s, struct proc_watch *w, uint64_t count) {
        struct report report = REPORT_INIT;

        report.notes = KEV_NOTE_LOST;
        report.count = count;
        report.realtime_usec = now_usec();
        tell(s, w, &report, 0);
        report_done(&report);
}

static void on_undecided_timer(struct mux_timer *timer) {
        struct processes *s = container_of(timer, struct processes, undecided_timer);

        list_for_each(entry, &s->by_match) {
                struct proc_watch *w = list_entry(entry, struct proc_watch, link);

                if (w->n_undecided > 0)
                        tell_lost_to(s, w, w->n_undecided);
                w->n_undecided = 0;
        }
}

void tell_undecided_soon(struct processes *s) {
        if (s->undecided_timer.heap_index == 0)
                (void)mux_timer_set(s->mux, &s->undecided_timer,
                                    monotonic_nsec() + UNDECIDED_MSEC * NSEC_PER_MSEC, on_undecided_timer);
}

/* Nobody knows whether it would have matched. There may be many at a time. */
static void count_undecided(struct processes *s, struct proc_watch *w) {
        w->n_undecided++;
        tell_undecided_soon(s);
}

/* Whether it is for the watch, and its owner may know of it. */
static enum verdict judge_sight(struct proc_watch *w, const struct process *p, struct profile *profile) {
        enum verdict verdict = judge_process(w, profile);

        if (watch_may_see(w, p))
                return verdict;
        return p->profile->knows_ids ? VERDICT_NO : both(VERDICT_UNDECIDED, verdict);
}

/* False: it may not know. Of a descendant of which that can't be said it is told as much. */
static bool tell_follower(struct processes *s, struct interest *i, struct report *report, uint32_t flags) {
        bool may_see = interest_may_see(i);

        if (may_see)
                tell(s, i->watch, report, flags);
        else if (i->watch->subscription->notes & KEV_NOTE_TRACK && !i->process->profile->knows_ids)
                tell_lost_to(s, i->watch, 1);
        return may_see;
}

void tell_change(struct processes *s, struct process *p, uint64_t note, struct profile *before, int64_t data) {
        struct event_process process;
        struct report report = REPORT_INIT;

        if (list_empty(&p->interests) && !is_wanted_by_match(s, note))
                return;
        describe(p, &process, &report);
        report.notes = note;
        report.data = data;
        report.realtime_usec = now_usec();
        list_for_each(entry, &p->interests) {
                struct interest *i = list_entry(entry, struct interest, of_process);

                if (note & (KEV_NOTE_UID | KEV_NOTE_EXEC) && !check_sight(s, i))
                        continue;
                if (i->watch->subscription->notes & note)
                        tell_follower(s, i, &report, 0);
        }
        list_for_each(entry, &s->by_match) {
                struct proc_watch *w = list_entry(entry, struct proc_watch, link);
                enum verdict verdict;

                if (!(w->subscription->notes & note) || follows(w, p))
                        continue;
                verdict = before ? judge_sight(w, p, before) : VERDICT_NO;
                if (verdict != VERDICT_YES)
                        verdict = either(verdict, judge_sight(w, p, p->profile));
                if (verdict == VERDICT_YES)
                        tell(s, w, &report, 0);
                else if (verdict == VERDICT_UNDECIDED)
                        count_undecided(s, w);
        }
        report_done(&report);
}

/* To those that follow it; ends what they know of it, where nothing more is to come. */
static void tell_followers(struct processes *s, struct process *p, struct report *report) {
        list_for_each(entry, &p->interests) {
                struct interest *i = list_entry(entry, struct interest, of_process);
                struct proc_watch *w = i->watch;
                bool goes_on = report->notes == KEV_NOTE_EXIT && w->subscription->notes & KEV_NOTE_REAP;
                bool is_last = !w->by_match && w->n_interests == 1 && !goes_on;
                bool is_told = w->subscription->notes & report->notes &&
                               tell_follower(s, i, report, is_last ? KEV_FLAG_EOF : 0);

                if (!is_told && is_last && !w->has_ended) /* but not to be seen */
                        tell_lost_track(s, w, p, true);
                if (!goes_on)
                        interest_free(s, i);
        }
}

/* Of the past, as far as it isn't known otherwise: a loss may have taken what would say that it is for the watch. */
static bool is_in_doubt(const struct processes *s, const struct proc_watch *w, const struct process *p) {
        const struct process_predicate *m = &w->predicate;

        return ((m->uid != ABSENT || !w->sees_all) && p->age.ids < s->n_losses) ||
               (m->comm && p->age.comm < s->n_losses) || ((m->exe || m->cgroup) && p->age.program < s->n_losses);
}

static void tell_matching(struct processes *s, struct process *p, struct report *report) {
        list_for_each(entry, &s->by_match) {
                struct proc_watch *w = list_entry(entry, struct proc_watch, link);
                enum verdict verdict;

                if (!(w->subscription->notes & report->notes) || follows(w, p))
                        continue;
                verdict = judge_sight(w, p, p->profile);
                if (verdict == VERDICT_NO && is_in_doubt(s, w, p))
                        verdict = VERDICT_UNDECIDED;
                if (verdict == VERDICT_YES)
                        tell(s, w, report, 0);
                else if (verdict == VERDICT_UNDECIDED && report->notes == KEV_NOTE_EXIT)
                        count_undecided(s, w);
        }
}

bool is_reap_wanted(const struct processes *s, const struct process *p) {
        list_for_each(entry, &p->interests)
                if (list_entry(entry, struct interest, of_process)->watch->subscription->notes & KEV_NOTE_REAP)
                        return true;
        return is_wanted_by_match(s, KEV_NOTE_REAP);
}

/* What has that number and has not ended is another process: this one was reaped. Or its end was told early. */
static bool is_zombie(struct processes *s, struct process *p) {
        return p->state != PROCESS_REAPED && process_open_pidfd(s, p) == 0 && (s->feed_class->knows_maker || pidfd_has_ended(p->pidfd)) &&
               !pidfd_has_hung_up(p->pidfd);
}

void tell_exit(struct processes *s, struct process *p) {
        struct event_process process;
        struct report report;
        bool reap_wanted;

        if (list_empty(&p->interests) && list_empty(&s->by_match)) {
                process_close_pidfd(s, p);
                return;
        }
        reap_wanted = is_reap_wanted(s, p);
        describe_end(p, KEV_NOTE_EXIT, p->exit_usec, &process, &report);
        tell_matching(s, p, &report);
        tell_followers(s, p, &report);
        report_done(&report);
        if (!reap_wanted)
                process_close_pidfd(s, p);
        else if (!is_zombie(s, p))
                tell_reap(s, p);
}

void tell_reap(struct processes *s, struct process *p) {
        struct event_process process;
        struct report report;

        p->state = PROCESS_REAPED;
        p->reap_usec = now_usec();
        process_close_pidfd(s, p);
        describe_end(p, KEV_NOTE_REAP, p->reap_usec, &process, &report);
        tell_matching(s, p, &report);
        tell_followers(s, p, &report);
        report_done(&report);
}

void tell_late(struct processes *s, struct proc_watch *w, struct process *p) {
        bool wants_reap = w->subscription->notes & KEV_NOTE_REAP, is_there = wants_reap && is_zombie(s, p);
        struct event_process process;
        struct report report;

        describe_end(p, KEV_NOTE_EXIT, p->exit_usec, &process, &report);
        if (w->subscription->notes & KEV_NOTE_EXIT)
                tell(s, w, &report, wants_reap ? 0 : KEV_FLAG_EOF);
        else if (!wants_reap)
                tell_lost_track(s, w, p, true);
        report_done(&report);
        if (!wants_reap || (is_there && interest_make(s, w, p, false))) /* the pidfd will tell */
                return;
        process_close_pidfd(s, p);
        describe_end(p, KEV_NOTE_REAP, p->reap_usec ? p->reap_usec : now_usec(), &process, &report);
        tell(s, w, &report, KEV_FLAG_EOF);
        report_done(&report);
}

void tell_lost(struct processes *s, uint64_t count) {
        list_for_each(entry, &s->by_match)
                tell_lost_to(s, list_entry(entry, struct proc_watch, link), count);
        list_for_each(entry, &s->trackers) {
                struct proc_watch *w = list_entry(entry, struct proc_watch, tracker);

                if (w->subscription->notes & KEV_NOTE_TRACK && !w->has_ended)
                        tell_lost_to(s, w, count);
        }
}

void tell_lost_changes(struct processes *s) {
        const uint64_t unseen = KEV_NOTE_FORK | KEV_NOTE_EXEC | KEV_NOTE_UID | KEV_NOTE_COMM | KEV_NOTE_CORE;

        list_for_each(entry, &s->by_match) {
                struct proc_watch *w = list_entry(entry, struct proc_watch, link);

                if (w->subscription->notes & unseen)
                        tell_lost_to(s, w, 0);
        }
        list_for_each(entry, &s->trackers) {
                struct proc_watch *w = list_entry(entry, struct proc_watch, tracker);

                if (w->subscription->notes & unseen && !w->has_ended)
                        tell_lost_to(s, w, 0);
        }
}
