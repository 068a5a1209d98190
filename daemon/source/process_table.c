/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Processes, what they are like, and those that have ended. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>

#include "processes.h"

enum {
        ENDED_MAX = 32 * 1024, /* beside those that are followed one by one */
        HISTORY_SEC = 10,
        FAMILY_MAX = 64,    /* children that are looked at to say what another one is like */
};

/* ---- families -------------------------------------------------------------------------------------------------- */

struct profile *process_heritage(const struct process *parent, bool is_maker) {
        struct profile *profile;

        if (!parent)
                return profile_unknown();
        if (is_maker || (parent->n_unlike == 0 && !parent->unlike_unknown))
                return profile_ref(parent->profile);
        if (parent->n_children > FAMILY_MAX) /* anything may be among them */
                return profile_unknown();
        profile = profile_copy(parent->profile);
        if (!profile)
                return profile_unknown();
        list_for_each(entry, &parent->children)
                profile_forget_unlike(profile, list_entry(entry, struct process, of_parent)->profile);
        return profile;
}

static bool is_unlike(const struct process *parent, const struct process *child) {
        return !profile_equal(parent->profile, child->profile);
}

void process_join(struct process *p, struct process *parent) {
        p->parent = parent;
        if (!parent)
                return;
        list_append(&parent->children, &p->of_parent);
        parent->n_children++;
        if (!parent->unlike_unknown)
                parent->n_unlike += is_unlike(parent, p);
}

static void leave_family(struct process *p) {
        struct process *parent = take_pointer(&p->parent);

        if (!parent)
                return;
        list_remove(&p->of_parent);
        if (!parent->unlike_unknown)
                parent->n_unlike -= is_unlike(parent, p);
        if (--parent->n_children == 0)
                parent->unlike_unknown = false;
}

/* Whose they are now, no record tells. */
static void leave_children(struct process *p) {
        struct list *entry;

        while ((entry = list_pop(&p->children)))
                list_entry(entry, struct process, of_parent)->parent = NULL;
        p->n_children = p->n_unlike = 0;
        p->unlike_unknown = false;
}

void process_set_profile(struct process *p, struct profile *profile) {
        bool counts = p->parent && !p->parent->unlike_unknown;

        if (counts)
                p->parent->n_unlike -= is_unlike(p->parent, p);
        profile_unref(p->profile);
        p->profile = profile;
        if (counts)
                p->parent->n_unlike += is_unlike(p->parent, p);
        p->n_unlike = 0;
        p->unlike_unknown = p->n_children > FAMILY_MAX;
        if (p->unlike_unknown)
                return;
        list_for_each(entry, &p->children)
                p->n_unlike += is_unlike(p, list_entry(entry, struct process, of_parent));
}

/* ---- the table ------------------------------------------------------------------------------------------------- */

struct process *process_find(const struct processes *s, pid_t pid) {
        if (s->table.n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&s->table, hash_u64((uint64_t)pid)); n; n = hash_next(n)) {
                struct process *p = container_of(n, struct process, node);

                if (p->pid == pid && p->state == PROCESS_RUNS && !p->is_displaced)
                        return p;
        }
        return NULL;
}

static struct process *find_ended_whole(const struct processes *s, pid_t pid) {
        struct process *last = NULL;

        if (s->n_ended == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&s->table, hash_u64((uint64_t)pid)); n; n = hash_next(n)) {
                struct process *p = container_of(n, struct process, node);

                if (p->pid == pid && p->state != PROCESS_RUNS && (!last || p->exit_usec > last->exit_usec))
                        last = p;
        }
        return last;
}

static bool may_get_record(const struct process *p) {
        return p->was_displaced && !p->had_record;
}

struct process *process_find_unrecorded(const struct processes *s, pid_t pid) {
        struct process *p = find_ended_whole(s, pid);

        return p && may_get_record(p) ? p : NULL;
}

static struct process *take_from_history(struct processes *s, pid_t pid, uint64_t exit_usec) {
        struct past past;
        struct process *p;

        if (!history_take(&s->history, pid, exit_usec, &past))
                return NULL;
        p = process_make(s, pid, NULL, past.profile);
        if (!p)
                return NULL;
        p->state = past.is_reaped ? PROCESS_REAPED : PROCESS_ENDED;
        p->parent_pid = past.parent_pid;
        p->forked_nsec = past.forked_nsec;
        p->ended_nsec = past.ended_nsec;
        p->exit_usec = past.exit_usec;
        p->reap_usec = past.reap_usec;
        p->start_time = past.start_time;
        p->had_record = past.had_record;
        p->knows_status = past.knows_status;
        p->status = past.status;
        p->knows_usage = past.knows_usage;
        p->cpu_usec = past.cpu_usec;
        p->peak_bytes = past.peak_bytes;
        list_append(&s->ended, &p->order);
        s->n_ended++;
        return p;
}

struct process *process_find_ended(struct processes *s, pid_t pid) {
        struct process *whole = find_ended_whole(s, pid), *p = take_from_history(s, pid, whole ? whole->exit_usec : 0);

        return p ? p : whole;
}

struct process *process_make(struct processes *s, pid_t pid, struct process *parent, struct profile *profile) {
        struct process *p = profile ? calloc(1, sizeof(*p)) : NULL;

        if (!p || hash_add(&s->table, &p->node, hash_u64((uint64_t)pid)) < 0) {
                profile_unref(profile);
                free(p);
                return NULL;
        }
        p->pid = pid;
        p->pidfd = -1;
        p->profile = profile;
        p->is_certain = true;
        p->age = parent ? parent->age : (struct process_age){ s->n_losses, s->n_losses, s->n_losses };
        list_init(&p->order);
        list_init(&p->interests);
        list_init(&p->children);
        list_init(&p->of_parent);
        process_join(p, parent);
        p->parent_pid = parent ? parent->pid : 0;
        return p;
}

void process_free(struct processes *s, struct process *p) {
        while (!list_empty(&p->interests))
                interest_free(s, list_entry(p->interests.next, struct interest, of_process));
        leave_family(p);
        leave_children(p);
        process_close_pidfd(s, p);
        s->n_displaced -= p->is_displaced;
        s->n_ended -= p->state != PROCESS_RUNS;
        list_remove(&p->order);
        hash_remove(&s->table, &p->node);
        profile_unref(p->profile);
        profile_unref(p->before_read);
        free(p);
}

void process_retire(struct processes *s, struct process *p) {
        leave_family(p);
        leave_children(p);
        p->state = PROCESS_ENDED;
        list_append(&s->ended, &p->order);
        s->n_ended++;
}

void process_put_away(struct processes *s, struct process *p) {
        struct past past;

        if (p->state == PROCESS_RUNS || p->pidfd >= 0 || !list_empty(&p->interests) || may_get_record(p))
                return;
        past = (struct past){
                .profile = profile_ref(p->profile), .pid = p->pid, .parent_pid = p->parent_pid,
                .is_reaped = p->state == PROCESS_REAPED,
                .forked_nsec = p->forked_nsec, .ended_nsec = p->ended_nsec,
                .exit_usec = p->exit_usec, .reap_usec = p->reap_usec, .start_time = p->start_time,
                .had_record = p->had_record, .knows_status = p->knows_status, .status = p->status,
                .knows_usage = p->knows_usage, .cpu_usec = p->cpu_usec, .peak_bytes = p->peak_bytes,
        };
        process_free(s, p);
        history_put(&s->history, &past);
}

/* Somebody wants to know when it is reaped. */
static bool is_waited_for(const struct process *p) {
        return p->pidfd >= 0 || !list_empty(&p->interests);
}

static void free_beyond_bound(struct processes *s, struct list *list) {
        list_for_each(entry, list) {
                struct process *p = list_entry(entry, struct process, order);

                if (s->n_ended <= ENDED_MAX)
                        return;
                if (list_empty(&p->interests))
                        process_free(s, p);
        }
}

void ended_trim(struct processes *s) {
        uint64_t old = realtime_nsec() / NSEC_PER_USEC - HISTORY_SEC * USEC_PER_SEC;

        while (!list_empty(&s->ended)) {
                struct process *p = list_entry(s->ended.next, struct process, order);

                if (p->exit_usec > old)
                        break;
                list_remove(&p->order);
                if (is_waited_for(p))
                        list_append(&s->unreaped, &p->order);
                else
                        process_free(s, p);
        }
        free_beyond_bound(s, &s->unreaped);
        free_beyond_bound(s, &s->ended);
        history_forget(&s->history, old);
}

/* ---- pidfds ------------------------------------------------------------------------------------------------------- */

int process_adopt_pidfd(struct processes *s, struct process *p, int pidfd) {
        struct epoll_event event = { .events = EPOLLIN | EPOLLHUP | EPOLLET, .data.ptr = p };
        int r;

        p->pidfd = pidfd;
        if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, p->pidfd, &event) == 0)
                return 0;
        r = -errno;
        p->pidfd = safe_close(p->pidfd);
        return r;
}

int process_open_pidfd(struct processes *s, struct process *p) {
        int pidfd;

        if (p->pidfd >= 0)
                return 0;
        pidfd = pidfd_open(p->pid, 0);
        return pidfd < 0 ? -errno : process_adopt_pidfd(s, p, pidfd);
}

/* The set has it as long as anybody has it open. */
void process_close_pidfd(struct processes *s, struct process *p) {
        if (p->pidfd >= 0)
                (void)epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, p->pidfd, NULL);
        p->pidfd = safe_close(p->pidfd);
}
