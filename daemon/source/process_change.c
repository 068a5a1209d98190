/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What becomes of processes: the feed's records, and their pidfds. */

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "log.h"
#include "observer.h"
#include "processes.h"

enum {
        ZOMBIE_RETRY_USEC = 500,
        ZOMBIE_TRIES_MAX = 40, /* the record of an end comes within microseconds, if a processor is to be had */
        TWICE_NSEC = 20 * 1000 * 1000,
};

/* ---- the end ----------------------------------------------------------------------------------------------------------- */

/* A status that comes from the process's own last breath. */
static void learn_from_pidfd(struct process *p) {
        struct pidfd_info info;
        struct process_stat stat;

        if (p->pidfd < 0 || !pidfd_has_ended(p->pidfd)) /* it may be another's, of the same number */
                return;
        if (pidfd_has_hung_up(p->pidfd)) {
                if (pidfd_get_info(p->pidfd, PIDFD_INFO_EXIT, &info) && (info.mask & PIDFD_INFO_EXIT)) {
                        p->status = info.exit_code;
                        p->knows_status = true;
                }
                return;
        }
        if (observer_read_stat(p->pid, &stat) < 0 || !stat.knows_status || pidfd_has_hung_up(p->pidfd))
                return;
        p->status = stat.status;
        p->knows_status = true;
}

/* A zombie still has its name, and its number is nobody else's. */
static void ask_zombie(struct processes *s, struct process *p) {
        int pidfd _cleanup_(closep) = -1;
        struct profile *now, *read;

        if ((p->profile->knows_ids && p->profile->knows_comm) || !processes_are_watched(s))
                return;
        pidfd = pidfd_open(p->pid, 0);
        if (pidfd < 0 || !pidfd_has_ended(pidfd))
                return;
        read = profile_read(p->pid);
        now = read && !pidfd_has_hung_up(pidfd) ? profile_copy(p->profile) : NULL;
        if (now) {
                profile_complete(now, read);
                process_set_profile(p, now);
        }
        profile_unref(read);
}

void process_end(struct processes *s, struct process *p, uint64_t realtime_usec) {
        list_remove(&p->order); /* of the zombies */
        p->n_tries = 0;
        s->n_displaced -= p->is_displaced;
        p->is_displaced = false;
        if (!p->is_certain)
                learn_from_pidfd(p);
        ask_zombie(s, p);
        p->exit_usec = realtime_usec;
        process_retire(s, p);
        tell_exit(s, p);
        process_put_away(s, p);
}

/* Its pidfd says that it has ended. How, a record will tell that is just coming. */
static void await_record(struct processes *s, struct process *p) {
        if (p->n_tries > 0)
                return;
        p->n_tries = 1;
        p->exit_usec = realtime_nsec() / NSEC_PER_USEC;
        list_append(&s->zombies, &p->order);
        (void)processes_mark(s);
}

static void on_zombie_timer(struct mux_timer *timer) {
        (void)processes_mark(container_of(timer, struct processes, zombie_timer));
}

void process_on_mark(struct processes *s) {
        list_for_each(entry, &s->zombies) {
                struct process *p = list_entry(entry, struct process, order);

                /* Of several threads the last one's record counts: what is known may be another's. */
                if ((p->knows_status && (p->is_certain || p->n_tries > 1)) || ++p->n_tries > ZOMBIE_TRIES_MAX) {
                        if (!p->knows_status)
                                learn_from_pidfd(p);
                        process_end(s, p, p->exit_usec);
                }
        }
        ended_trim(s);
        if (!list_empty(&s->zombies) && s->zombie_timer.heap_index == 0)
                (void)mux_timer_set(s->mux, &s->zombie_timer, monotonic_nsec() + ZOMBIE_RETRY_USEC * NSEC_PER_USEC,
                                    on_zombie_timer);
}

void process_on_pidfd(struct processes *s, struct process *p, uint32_t events) {
        if (p->state == PROCESS_RUNS)
                await_record(s, p);
        else if (p->state == PROCESS_ENDED && events & (EPOLLHUP | EPOLLERR)) {
                tell_reap(s, p);
                process_put_away(s, p);
        }
}

/* ---- records ------------------------------------------------------------------------------------------------------------ */

/* What could not be told from its family is asked, while somebody wants to know. */
static void complete_profile(struct processes *s, struct process *p) {
        struct profile *now, *read;

        if ((p->profile->knows_ids && p->profile->knows_comm) || !processes_are_watched(s))
                return;
        read = profile_read(p->pid);
        now = read ? profile_copy(p->profile) : NULL;
        if (now) {
                p->read_nsec = monotonic_nsec();
                p->before_read = profile_ref(p->profile);
                profile_complete(now, read);
                process_set_profile(p, now);
        }
        profile_unref(read);
}

/* It ended before it was asked, or meanwhile: that may have been another process by then. Both times are of the same
 * clock, and the kernel takes its own before anybody can reap the process. */
static void doubt_what_was_read(struct process *p, uint64_t ended_nsec) {
        if (!p->before_read || ended_nsec >= p->read_nsec)
                return;
        process_set_profile(p, take_pointer(&p->before_read));
}

/* What the feed itself says of it. */
static void learn_from_record(const struct processes *s, struct process *p, const struct record *r) {
        const struct profile *old = p->profile;
        struct profile *now;

        if (r->knows_ids)
                p->age.ids = s->n_losses;
        if (r->knows_comm)
                p->age.comm = s->n_losses;
        if ((!r->knows_ids || (old->knows_ids && memcmp(&old->ids, &r->ids, sizeof(r->ids)) == 0)) &&
            (!r->knows_comm || (old->knows_comm && strcmp(old->comm, r->comm) == 0)))
                return;
        now = profile_copy(old);
        if (!now) {
                process_set_profile(p, profile_unknown());
                return;
        }
        if (r->knows_ids) {
                now->knows_ids = true;
                now->ids = r->ids;
        }
        if (r->knows_comm) {
                now->knows_comm = true;
                memcpy(now->comm, r->comm, sizeof(now->comm));
        }
        process_set_profile(p, now);
}

/* The number is given to another process: the older one has ended, and was reaped. A record will tell how, unless that
 * is what was lost; a feed that tells of ends early would have told by now. */
static void displace(struct processes *s, struct process *p) {
        if (s->lost_nsec || s->rescan || s->feed_class->knows_maker) {
                p->was_displaced = true;
                process_end(s, p, realtime_nsec() / NSEC_PER_USEC);
                return;
        }
        if (p->first_ended || (p->n_tries > 0 && p->knows_status)) {
                process_end(s, p, realtime_nsec() / NSEC_PER_USEC);
                return;
        }
        p->is_displaced = true;
        s->n_displaced++;
}

static bool is_reap_wanted_by_match(const struct processes *s, const struct process *p) {
        list_for_each(entry, &s->by_match) {
                const struct proc_watch *w = list_entry(entry, struct proc_watch, link);

                if (w->subscription->notes & KEV_NOTE_REAP && watch_may_see(w, p))
                        return true;
        }
        return false;
}

/* There is no memory for a process of which a record tells. */
static void lose(struct processes *s) {
        tell_lost(s, 1);
        rescan_start(s);
}

static void on_fork(struct processes *s, const struct record *r) {
        struct process *p = process_find(s, r->pid), *parent;

        if (r->tid != r->pid) {
                if (p)
                        p->is_certain = false;
                return;
        }
        if (p)
                displace(s, p);
        parent = process_find(s, r->parent);
        p = process_make(s, r->pid, parent, process_heritage(parent, s->feed_class->knows_maker));
        if (!p) {
                if (parent)
                        tell_change(s, parent, KEV_NOTE_FORK, NULL, r->pid);
                lose(s);
                return;
        }
        p->parent_pid = r->parent;
        p->forked_nsec = r->nsec;
        learn_from_record(s, p, r);
        complete_profile(s, p);
        if (s->feed_class->knows_maker && is_reap_wanted_by_match(s, p)) /* the end is told before it is a zombie */
                (void)process_open_pidfd(s, p);
        if (parent)
                tell_change(s, parent, KEV_NOTE_FORK, NULL, p->pid);
        tell_child(s, p, parent);
}

/* One whose fork was not told of. */
static struct process *find_or_make(struct processes *s, pid_t pid) {
        struct process *p = process_find(s, pid);

        if (p)
                return p;
        p = process_make(s, pid, NULL, process_heritage(NULL, false));
        if (!p)
                return NULL;
        p->is_certain = false;
        p->seen = s->n_rescans;
        if (s->has_lost)
                s->n_forks_found++;
        else
                s->n_found_early += s->state == FEED_READY;
        return p;
}

/* A copy of what the process is like, to be changed. NULL: no memory. */
static struct profile *copy_profile(const struct process *p) {
        return p ? profile_copy(p->profile) : NULL;
}

/* `now` NULL: there was no memory for it. What it is like is not known then, until /proc was read. */
static void change_profile(struct processes *s, struct process *p, struct profile *now, uint64_t note) {
        struct profile *before;

        if (!p) {
                lose(s);
                return;
        }
        before = profile_ref(p->profile);
        p->before_read = profile_unref(p->before_read);
        process_set_profile(p, now ? now : profile_unknown());
        tell_change(s, p, note, before, ABSENT);
        if (!now)
                rescan_start(s);
        profile_unref(before);
}

static void on_exec(struct processes *s, const struct chunk *chunk, const struct record *r) {
        struct process *p = find_or_make(s, r->pid);
        struct profile *now = copy_profile(p);

        if (now) {
                now->knows_comm = r->knows_comm;
                memcpy(now->comm, r->comm, sizeof(now->comm));
                free(now->exe);
                now->exe = r->knows_exe ? strdup(chunk->text + r->exe) : NULL;
                free(now->cgroup); /* who makes a service moves it in between */
                now->cgroup = r->knows_cgroup ? strdup(chunk->text + r->cgroup) : NULL;
                if (r->knows_ids) {
                        now->knows_ids = true;
                        now->ids = r->ids;
                }
        }
        if (p) {
                p->first_ended = false;
                p->age.comm = p->age.program = s->n_losses;
                if (r->knows_ids)
                        p->age.ids = s->n_losses;
        }
        change_profile(s, p, now, KEV_NOTE_EXEC);
}

/* Those of the first thread are the process's, its name as well. */
static void on_comm(struct processes *s, const struct record *r) {
        struct process *p;
        struct profile *now;

        if (r->tid != r->pid)
                return;
        p = find_or_make(s, r->pid);
        if (p)
                p->age.comm = s->n_losses;
        now = copy_profile(p);
        if (now) {
                now->knows_comm = true;
                memcpy(now->comm, r->comm, sizeof(now->comm));
        }
        change_profile(s, p, now, KEV_NOTE_COMM);
}

/* It was gone before it could be asked. Whose real and effective ids stayed is who it was: where all three were one
 * user's, another saved id is for the privileged to set (setresuid(2)). */
static bool are_as_before(const struct processes *s, const struct process *p, const struct record *r) {
        const struct profile *old = p->profile;

        return !r->knows_ids && r->knows_two && old->knows_ids && r->real == old->ids.real &&
               r->effective == old->ids.effective && !s->lost_nsec && !s->rescan;
}

/* Of one that could not be asked any more they are not known. */
static void on_ids(struct processes *s, const struct record *r) {
        struct process *p;
        struct profile *now;

        if (r->tid != r->pid)
                return;
        p = find_or_make(s, r->pid);
        if (p && r->knows_ids)
                p->age.ids = s->n_losses;
        if (p && r->knows_ids && p->profile->knows_ids && memcmp(&r->ids, &p->profile->ids, sizeof(r->ids)) == 0)
                return; /* other credentials have changed */
        now = copy_profile(p);
        if (now && !are_as_before(s, p, r)) {
                now->knows_ids = r->knows_ids;
                now->ids = r->ids;
        }
        change_profile(s, p, now, KEV_NOTE_UID);
}

static struct process *find_displaced(struct processes *s, pid_t pid) {
        for (struct hash_node *n = hash_first(&s->table, hash_u64((uint64_t)pid)); n; n = hash_next(n)) {
                struct process *p = container_of(n, struct process, node);

                if (p->pid == pid && p->is_displaced)
                        return p;
        }
        return NULL;
}

/* Its end was told without the record, which did not come in time. */
static bool is_of_told(struct process *p, const struct record *r) {
        /* Two threads that end together may both be the last. */
        if (p->had_record)
                return r->is_last && r->nsec < p->ended_nsec + TWICE_NSEC;
        p->had_record = true;
        p->ended_nsec = r->nsec;
        if (!p->knows_status) {
                p->knows_status = true;
                p->status = r->status;
        }
        return true;
}

static bool was_told(struct processes *s, const struct record *r) {
        struct process *p = process_find_ended(s, r->pid);
        bool told = p && is_of_told(p, r);

        if (p)
                process_put_away(s, p);
        return told;
}

bool process_is_alive(pid_t pid) {
        int pidfd _cleanup_(closep) = pidfd_open(pid, 0);

        return pidfd >= 0 && !pidfd_has_ended(pidfd);
}

/* The record may be the end of the older one of that number, whose end was told without: then nothing is to be done. */
static bool is_of_displaced(struct processes *s, const struct process *p, const struct record *r) {
        struct process *older = s->feed_class->knows_maker ? NULL : process_find_unrecorded(s, r->pid);

        if (!older)
                return false;
        if (process_is_alive(r->pid) || (r->parent > 0 && r->parent == older->parent_pid && r->parent != p->parent_pid)) {
                older->had_record = true;
                return true;
        }
        return false;
}

static void on_exit_of(struct processes *s, const struct record *r) {
        struct process *p = s->n_displaced > 0 && r->tid == r->pid ? find_displaced(s, r->pid) : NULL;
        bool was_displaced = p != NULL;
        int error;

        if (!p)
                p = process_find(s, r->pid);
        if (p && !was_displaced && r->tid == r->pid && is_of_displaced(s, p, r))
                return;
        if (!p && r->tid == r->pid && was_told(s, r))
                return;
        if (!p && r->tid != r->pid)
                return;
        if (!p)
                p = find_or_make(s, r->pid);
        if (!p) {
                lose(s);
                return;
        }
        p->had_record = true;
        p->ended_nsec = r->nsec;
        p->status = r->status;
        p->knows_status = true;
        doubt_what_was_read(p, r->nsec);
        learn_from_record(s, p, r);
        if (r->tid != r->pid)
                p->is_certain = false; /* of a thread that no record may have told of */
        p->is_certain |= r->is_last;
        p->knows_usage = r->is_last;
        p->cpu_usec = r->cpu_usec;
        p->peak_bytes = r->peak_bytes;
        if (r->tid == r->pid && r->parent > 0)
                p->parent_pid = r->parent;
        if (p->is_certain || was_displaced) {
                process_end(s, p, realtime_nsec() / NSEC_PER_USEC);
                return;
        }
        /* Another thread may go on, or go on as the first one (execve(2)): its pidfd knows. */
        if (r->tid != r->pid)
                return;
        p->first_ended = true;
        error = -process_open_pidfd(s, p);
        if (error == ESRCH)
                process_end(s, p, realtime_nsec() / NSEC_PER_USEC);
        else if (error)
                rescan_start(s); /* /proc knows, too */
        else if (pidfd_has_ended(p->pidfd))
                await_record(s, p);
}

static void on_core(struct processes *s, const struct record *r) {
        struct process *p = process_find(s, r->pid);

        if (p)
                tell_change(s, p, KEV_NOTE_CORE, NULL, ABSENT);
}

/* ---- losses ------------------------------------------------------------------------------------------------------------ */

/* Of a program whose file is gone /proc says that, too: proc_pid_exe(5). */
static bool is_same_program(const char *known, const char *found) {
        size_t size = strlen(known);

        return strncmp(known, found, size) == 0 && (!found[size] || strcmp(found + size, " (deleted)") == 0);
}

static bool are_other_ids(const struct process *p, const struct profile *found, uint64_t n_losses) {
        const struct profile *old = p->profile;

        return p->age.ids < n_losses && old->knows_ids && found->knows_ids &&
               memcmp(&old->ids, &found->ids, sizeof(old->ids)) != 0;
}

static bool is_other_program(const struct process *p, const struct profile *found, uint64_t n_losses) {
        const struct profile *old = p->profile;

        return p->age.program < n_losses && old->exe && found->exe && !is_same_program(old->exe, found->exe);
}

static bool is_other_comm(const struct process *p, const struct profile *found, uint64_t n_losses) {
        const struct profile *old = p->profile;

        return p->age.comm < n_losses && old->knows_comm && found->knows_comm && strcmp(old->comm, found->comm) != 0;
}

static struct profile *with_ids(const struct process *p, const struct profile *found) {
        struct profile *now = copy_profile(p);

        if (now)
                now->ids = found->ids;
        return now;
}

static struct profile *with_program(const struct process *p, const struct profile *found, bool other_program,
                                    bool other_comm) {
        struct profile *now = copy_profile(p);

        if (!now)
                return NULL;
        if (other_comm)
                memcpy(now->comm, found->comm, sizeof(now->comm));
        if (other_program) {
                free(now->exe);
                now->exe = strdup(found->exe);
                free(now->cgroup);
                now->cgroup = found->cgroup ? strdup(found->cgroup) : NULL;
        }
        return now;
}

bool process_on_difference(struct processes *s, struct process *p, const struct profile *found, uint64_t n_losses) {
        bool other_program = is_other_program(p, found, n_losses), other_comm = is_other_comm(p, found, n_losses);
        struct profile *now;

        /* Whose it is comes first: the rest is not for who may not see it any more. */
        if (are_other_ids(p, found, n_losses)) {
                now = with_ids(p, found);
                if (!now)
                        return false;
                change_profile(s, p, now, KEV_NOTE_UID);
        }
        p->age.ids = MAX(p->age.ids, n_losses);
        if (other_program || other_comm) {
                now = with_program(p, found, other_program, other_comm);
                if (!now)
                        return false;
                change_profile(s, p, now, other_program ? KEV_NOTE_EXEC : KEV_NOTE_COMM);
        }
        p->age.comm = MAX(p->age.comm, n_losses);
        p->age.program = MAX(p->age.program, n_losses);
        return true;
}

/* What happened since the last record before it may be missing. */
static void on_lost(struct processes *s, const struct record *r) {
        s->has_lost |= s->state == FEED_READY;
        s->was_lost |= r->is_certain;
        s->n_losses++;
        s->n_late_rescans = 0;
        if (s->lost_nsec == 0)
                s->lost_nsec = s->last_nsec;
        if (!s->feed_class->knows_maker) /* any of them may have made threads */
                hash_for_each(node, &s->table)
                        container_of(node, struct process, node)->is_certain = false;
        if (r->is_certain) {
                source_on_loss(&s->source, &s->losses);
                log_info("some of what processes did was lost: /proc is read");
        }
        rescan_start(s);
}

/* ---- all of them ------------------------------------------------------------------------------------------------------- */

void process_on_record(struct processes *s, const struct chunk *chunk, const struct record *r) {
        s->last_nsec = MAX(s->last_nsec, r->nsec);
        switch ((enum record_kind)r->kind) {
        case RECORD_FORK:
                on_fork(s, r);
                break;
        case RECORD_EXEC:
                on_exec(s, chunk, r);
                break;
        case RECORD_EXIT:
                on_exit_of(s, r);
                break;
        case RECORD_IDS:
                on_ids(s, r);
                break;
        case RECORD_COMM:
                on_comm(s, r);
                break;
        case RECORD_CORE:
                on_core(s, r);
                break;
        case RECORD_LOST:
                on_lost(s, r);
                break;
        case RECORD_FORKS_LOST:
                /* The end of one may have been read before that its fork was lost. */
                if (s->n_forks_lost == 0 && s->feed_class->knows_maker)
                        s->n_forks_found += MIN(s->n_found_early, r->count);
                s->n_forks_lost += r->count;
                rescan_count(s);
                break;
        case RECORD_MARK:
                processes_on_mark(s, r->serial);
                break;
        }
}
