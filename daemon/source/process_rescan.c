/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * All processes that there are, from /proc: at the start, and after the feed has lost something. A worker reads; once
 * the feed has told all that had happened by then, what it found and what is known are compared. Who is known to run
 * and isn't there has ended, nobody knows how. Who is there and isn't known is new.
 */

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "observer.h"
#include "processes.h"
#include "workers.h"

enum { AGAIN_MSEC = 250 }; /* after /proc could not be read */

/* Clock ticks are 10 ms, and a fork is told a little later than it begins. */
#define SAME_NSEC (200 * NSEC_PER_MSEC)

struct found {
        pid_t pid;
        struct process_stat stat;
        bool knows_status;
        struct profile *profile;
};

struct rescan {
        struct work work;
        struct list message;
        struct processes *s;
        uint64_t since_usec, since_nsec; /* realtime, CLOCK_MONOTONIC */
        uint64_t n_losses;   /* that had been told of by then */
        uint64_t mark;       /* 0: still at work */
        bool lists_tagged;
        int error;
        size_t n, capacity;
        struct found *found;
        size_t n_tagged;
        struct tagged *tagged;
};

/* ---- the worker -------------------------------------------------------------------------------------------------- */

/* One that can't be read may be there all the same: is_hidden(). */
static int add_found(struct rescan *r, pid_t pid) {
        struct process_stat again;
        struct found *f;
        int result;

        if (r->n == r->capacity) {
                size_t capacity = MAX(r->capacity * 2, (size_t)256);
                struct found *found = realloc(r->found, capacity * sizeof(*found));

                if (!found)
                        return -ENOMEM;
                r->found = found;
                r->capacity = capacity;
        }
        f = &r->found[r->n];
        *f = (struct found){ .pid = pid };
        result = process_read_stat(pid, &f->stat);
        if (is_shortage(result))
                return result;
        /* It has ended meanwhile, or is being reaped: then the kernel says that it has no threads, and no parent. */
        if (result < 0 || f->stat.n_threads == 0)
                return 0;
        /* The kernel reads the status before it looks whether it is one: of a zombie it is right the second time. */
        f->knows_status = f->stat.state == 'Z' && observer_read_stat(pid, &again) == 0 &&
                          again.start_time == f->stat.start_time && again.knows_status;
        if (f->knows_status)
                f->stat.status = again.status;
        f->profile = profile_read(pid);
        if (!f->profile)
                return -ENOMEM;
        r->n++;
        return 0;
}

static void run(struct work *work) {
        struct rescan *r = container_of(work, struct rescan, work);
        DIR *proc = opendir("/proc");
        struct dirent *entry;

        r->error = proc ? 0 : errno;
        for (errno = 0; proc && r->error == 0 && (entry = readdir(proc)); errno = 0)
                if (entry->d_name[strspn(entry->d_name, "0123456789")] == 0)
                        r->error = -add_found(r, (pid_t)strtol(entry->d_name, NULL, 10));
        if (r->error == 0)
                r->error = errno; /* readdir(3) */
        if (proc)
                (void)closedir(proc);
        if (r->error == 0 && r->lists_tagged)
                r->error = -r->s->feed_class->list_tagged(r->s->feed, &r->tagged, &r->n_tagged);
        mailbox_post(&r->s->rescan_mailbox, &r->message);
}

/* Its first thread has ended, and maybe others go on: proc_pid_stat(5) counts them. */
static bool has_ended(const struct found *f) {
        return f->stat.state == 'Z' && f->stat.n_threads <= 1;
}

/* ---- comparing ------------------------------------------------------------------------------------------------------ */

/* CLOCK_MONOTONIC. */
static uint64_t started_nsec(const struct found *f) {
        uint64_t awake = monotonic_nsec(), asleep = boottime_nsec() - awake;
        uint64_t start = f->stat.start_time * (NSEC_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK));

        return start > asleep ? start - asleep : 0;
}

static bool is_same(const struct process *p, const struct found *f) {
        uint64_t start;

        if (p->start_time)
                return p->start_time == f->stat.start_time;
        if (!p->forked_nsec)
                return true;
        start = started_nsec(f);
        return start < p->forked_nsec + SAME_NSEC && start + SAME_NSEC > p->forked_nsec;
}

static void end_unseen(struct processes *s, struct process *p) {
        p->knows_status = false;
        process_end(s, p, realtime_nsec() / NSEC_PER_USEC);
}

/* Its end was told before it came, when the rescan began or just before, and it was on its way out when it was found. */
static bool was_ending(const struct processes *s, const struct rescan *r, const struct process *p) {
        return s->feed_class->knows_maker && p->exit_usec + SAME_NSEC / NSEC_PER_USEC >= r->since_usec;
}

/* Nobody has reaped it, and its end was told: it was there before anything was lost. Or that was told since. */
static bool has_been_told(struct processes *s, const struct rescan *r, const struct found *f) {
        struct process *ended = process_find_ended(s, f->pid);
        bool told = ended && (ended->exit_usec >= r->since_usec || (was_ending(s, r, ended) && is_same(ended, f)));

        if (s->state == FEED_READY && has_ended(f))
                told |= s->lost_nsec == 0 || started_nsec(f) + SAME_NSEC < s->lost_nsec || (ended && is_same(ended, f));
        if (ended)
                process_put_away(s, ended);
        return told;
}

static void on_late(struct mux_timer *timer) {
        rescan_start(container_of(timer, struct processes, rescan_timer));
}

static void rescan_later(struct processes *s) {
        (void)mux_timer_set(s->mux, &s->rescan_timer, monotonic_nsec() + AGAIN_MSEC * NSEC_PER_MSEC, on_late);
}

/* Its first thread has ended, and others go on: its pidfd tells of its end, or the next look at /proc. */
static void follow_others(struct processes *s, struct process *p) {
        if (process_open_pidfd(s, p) < 0)
                rescan_later(s);
}

static void on_new(struct processes *s, struct rescan *r, struct found *f) {
        struct process *parent, *p;

        if (has_been_told(s, r, f))
                return;
        parent = process_find(s, (pid_t)f->stat.parent);
        p = process_make(s, f->pid, parent, take_pointer(&f->profile));
        if (!p) {
                tell_lost(s, 1);
                rescan_later(s);
                return;
        }
        p->parent_pid = (pid_t)f->stat.parent;
        p->is_certain = false;
        p->start_time = f->stat.start_time;
        p->seen = s->n_rescans;
        p->age = (struct process_age){ r->n_losses, r->n_losses, r->n_losses };
        if (s->has_lost) {
                s->n_forks_found++; /* its threads may have been told of, though it was not */
                tell_child(s, p, parent);
        }
        if (!has_ended(f)) {
                p->first_ended = f->stat.state == 'Z';
                if (p->first_ended) /* no record will tell of its end */
                        follow_others(s, p);
                return;
        }
        p->knows_status = f->knows_status;
        p->status = f->stat.status;
        process_end(s, p, realtime_nsec() / NSEC_PER_USEC);
}

static void complete(struct process *p, struct profile *found) {
        const struct profile *old = p->profile;
        struct profile *now;

        if ((old->knows_ids || !found->knows_ids) && (old->knows_comm || !found->knows_comm) &&
            (old->exe || !found->exe) && (old->cgroup || !found->cgroup))
                return;
        now = profile_copy(old);
        if (!now)
                return;
        profile_complete(now, found);
        process_set_profile(p, now);
}

static void on_known(struct processes *s, const struct rescan *r, struct process *p, struct found *f) {
        p->seen = s->n_rescans;
        p->start_time = f->stat.start_time;
        if (!process_on_difference(s, p, f->profile, r->n_losses))
                rescan_later(s);
        complete(p, f->profile);
        if (!has_ended(f) && p->first_ended)
                follow_others(s, p);
        if (!has_ended(f) || p->n_tries > 0)
                return;
        if (f->knows_status) {
                p->knows_status = true;
                p->status = f->stat.status;
        }
        process_end(s, p, realtime_nsec() / NSEC_PER_USEC);
}

/* So that the rescan has to have found it. Records may be handled long after they were made. */
static bool was_there(const struct processes *s, const struct rescan *r, const struct process *p) {
        return p->seen < s->n_rescans && (!p->forked_nsec || p->forked_nsec < r->since_nsec);
}

/* proc(5), hidepid: it is there, and /proc does not show it. */
static bool is_hidden(const struct process *p) {
        return p->pidfd >= 0 ? !pidfd_has_ended(p->pidfd) : process_is_alive(p->pid);
}

static void compare(struct processes *s, struct rescan *r) {
        for (size_t i = 0; i < r->n; i++) {
                struct found *f = &r->found[i];
                struct process *p = process_find(s, f->pid);

                if (p && was_there(s, r, p) && !is_same(p, f)) {
                        end_unseen(s, p);
                        p = NULL;
                }
                if (!p)
                        on_new(s, r, f);
                else if (is_same(p, f))
                        on_known(s, r, p, f);
        }
        hash_for_each(node, &s->table) {
                struct process *p = container_of(node, struct process, node);

                if (p->state == PROCESS_RUNS && was_there(s, r, p) && p->n_tries == 0 && !is_hidden(p))
                        end_unseen(s, p);
        }
        ended_trim(s);
}

/* Descendants whose forks were lost, whoever their parents are by now. */
static void find_descendants(struct processes *s, const struct rescan *r) {
        for (size_t i = 0; i < r->n_tagged; i++) {
                struct process *p = process_find(s, r->tagged[i].pid);

                list_for_each(entry, &s->trackers) {
                        struct proc_watch *w = list_entry(entry, struct proc_watch, tracker);

                        if (p && w->tag == r->tagged[i].id)
                                tell_descendant(s, w, p);
                }
        }
}

static void free_rescan(struct rescan *r) {
        for (size_t i = 0; i < r->n; i++)
                profile_unref(r->found[i].profile);
        free(r->found);
        free(r->tagged);
        free(r);
}

/* ---- the loop -------------------------------------------------------------------------------------------------------- */

static void on_message(struct mailbox *mailbox) {
        struct processes *s = container_of(mailbox, struct processes, rescan_mailbox);
        struct list *entry;

        while ((entry = mailbox_take(mailbox)))
                list_entry(entry, struct rescan, message)->mark = processes_mark(s);
}

int rescan_init(struct processes *s) {
        return mailbox_open(&s->rescan_mailbox, s->mux, on_message);
}

void rescan_start(struct processes *s) {
        struct rescan *r;

        if (s->rescan) {
                s->rescan_again = true;
                return;
        }
        s->rescan_again = false;
        r = calloc(1, sizeof(*r));
        if (r) {
                r->work.run = run;
                r->s = s;
                r->lists_tagged = s->feed_class->list_tagged && s->state == FEED_READY;
                r->since_usec = realtime_nsec() / NSEC_PER_USEC;
                r->since_nsec = monotonic_nsec();
                r->n_losses = s->n_losses;
                list_init(&r->work.link);
                list_init(&r->message);
        }
        if (!r || workers_submit(s->source.context->workers, WORKERS_NO_USER, &r->work) < 0) {
                log_warning("what became of processes that a loss was about can't be found out just now");
                free(r);
                rescan_later(s);
                return;
        }
        s->n_rescans++;
        s->rescan = r;
        losses_begin_repair(&s->losses);
}

uint64_t rescan_for_profiles(struct processes *s) {
        bool under_way = s->rescan != NULL;

        rescan_start(s);
        if (!s->rescan)
                return 0;
        return under_way ? s->n_rescans + 1 : s->n_rescans;
}

/* A feed that tells of ends early may have lost one of a process that was still to be seen when we looked. */
static void rescan_late(struct processes *s) {
        static const unsigned msec[] = { 250, 1000, 5000 };

        if (!s->feed_class->knows_maker || !s->has_lost || s->n_late_rescans == ARRAY_SIZE(msec))
                return;
        (void)mux_timer_set(s->mux, &s->rescan_timer,
                            monotonic_nsec() + msec[s->n_late_rescans++] * NSEC_PER_MSEC, on_late);
}

void rescan_on_mark(struct processes *s) {
        struct rescan *r = s->rescan;

        if (!r || r->mark == 0 || s->passed < r->mark)
                return;
        s->rescan = NULL;
        if (r->error) { /* what was not found might be there */
                log_warning("/proc can't be read just now: %s", strerror(r->error));
                free_rescan(r);
                rescan_later(s);
                return;
        }
        compare(s, r);
        find_descendants(s, r);
        source_on_repaired(&s->source, &s->losses);
        free_rescan(r);
        s->last_rescan = s->n_rescans;
        if (s->was_lost)
                tell_lost_changes(s);
        s->was_lost = false;
        if (s->rescan_again)
                rescan_start(s);
        else {
                s->lost_nsec = 0;
                rescan_late(s);
        }
        rescan_count(s);
        processes_on_rescanned(s);
}

void rescan_count(struct processes *s) {
        uint64_t lost = s->n_forks_lost > s->n_forks_found ? s->n_forks_lost - s->n_forks_found : 0;

        if (s->rescan || lost <= s->n_lost_told)
                return;
        tell_lost(s, lost - s->n_lost_told);
        s->n_lost_told = lost;
}

void rescan_close(struct processes *s) {
        struct list *entry;

        while ((entry = mailbox_take(&s->rescan_mailbox)))
                ;
        if (s->rescan)
                free_rescan(s->rescan);
        s->rescan = NULL;
        mailbox_close(&s->rescan_mailbox);
}
