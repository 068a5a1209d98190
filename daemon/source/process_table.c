/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Processes, what they are like, and those that have ended. */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>

#include "processes.h"

enum {
        HISTORY_MIN = 1024, /* processes that have ended */
        HISTORY_MAX = 32 * 1024,
        HISTORY_SEC = 10, /* then there are no more than HISTORY_MIN */
        FAMILY_MAX = 64,    /* children that are looked at to say what another one is like */
};

/* ---- profiles ------------------------------------------------------------------------------------------------ */

struct profile *profile_ref(struct profile *profile) {
        if (profile)
                profile->refs++;
        return profile;
}

struct profile *profile_unref(struct profile *profile) {
        if (!profile || --profile->refs > 0)
                return NULL;
        free(profile->exe);
        free(profile->cgroup);
        free(profile);
        return NULL;
}

static bool equal_texts(const char *a, const char *b) {
        return a == b || (a && b && strcmp(a, b) == 0);
}

static bool equal_ids(const struct profile *a, const struct profile *b) {
        return a->knows_ids == b->knows_ids && (!a->knows_ids || memcmp(&a->ids, &b->ids, sizeof(a->ids)) == 0);
}

static bool equal_comms(const struct profile *a, const struct profile *b) {
        return a->knows_comm == b->knows_comm && (!a->knows_comm || strcmp(a->comm, b->comm) == 0);
}

bool profile_equal(const struct profile *a, const struct profile *b) {
        return a == b || (equal_ids(a, b) && equal_comms(a, b) && equal_texts(a->exe, b->exe) &&
                          equal_texts(a->cgroup, b->cgroup));
}

static struct profile *profile_new(void) {
        struct profile *p = calloc(1, sizeof(*p));

        if (p)
                p->refs = 1;
        return p;
}

struct profile *profile_copy(const struct profile *profile) {
        struct profile *p = malloc(sizeof(*p));

        if (!p)
                return NULL;
        *p = *profile;
        p->refs = 1;
        p->exe = profile->exe ? strdup(profile->exe) : NULL;
        p->cgroup = profile->cgroup ? strdup(profile->cgroup) : NULL;
        return p;
}

struct profile *profile_read(pid_t pid) {
        struct profile *p = profile_new();
        char path[PATH_MAX];

        if (!p)
                return NULL;
        p->knows_ids = process_read_ids(pid, &p->ids) == 0;
        p->knows_comm = process_read_comm(pid, p->comm) == 0;
        if (process_read_exe(pid, path, sizeof(path)) == 0)
                p->exe = strdup(path);
        if (process_read_cgroup(pid, path, sizeof(path)) == 0)
                p->cgroup = strdup(path);
        return p;
}

void profile_complete(struct profile *profile, struct profile *read) {
        if (!profile->knows_ids) {
                profile->knows_ids = read->knows_ids;
                profile->ids = read->ids;
        }
        if (!profile->knows_comm) {
                profile->knows_comm = read->knows_comm;
                memcpy(profile->comm, read->comm, sizeof(profile->comm));
        }
        if (!profile->exe)
                profile->exe = take_pointer(&read->exe);
        if (!profile->cgroup)
                profile->cgroup = take_pointer(&read->cgroup);
}

/* ---- families -------------------------------------------------------------------------------------------------- */

static void forget_unlike(struct profile *profile, const struct profile *other) {
        if (!equal_ids(profile, other))
                profile->knows_ids = false;
        if (!equal_comms(profile, other))
                profile->knows_comm = false;
        if (!equal_texts(profile->exe, other->exe)) {
                free(profile->exe);
                profile->exe = NULL;
        }
        if (!equal_texts(profile->cgroup, other->cgroup)) {
                free(profile->cgroup);
                profile->cgroup = NULL;
        }
}

struct profile *process_heritage(const struct process *parent, bool is_maker) {
        struct profile *profile;

        if (!parent)
                return profile_new();
        if (is_maker || (parent->n_unlike == 0 && !parent->unlike_unknown))
                return profile_ref(parent->profile);
        if (parent->n_children > FAMILY_MAX) /* anything may be among them */
                return profile_new();
        profile = profile_copy(parent->profile);
        if (!profile)
                return NULL;
        list_for_each(entry, &parent->children)
                forget_unlike(profile, list_entry(entry, struct process, of_parent)->profile);
        return profile;
}

static bool is_unlike(const struct process *parent, const struct process *child) {
        return !profile_equal(parent->profile, child->profile);
}

static void join_family(struct process *p, struct process *parent) {
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

struct process *process_find_ended(const struct processes *s, pid_t pid) {
        struct process *last = NULL;

        if (s->table.n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&s->table, hash_u64((uint64_t)pid)); n; n = hash_next(n)) {
                struct process *p = container_of(n, struct process, node);

                if (p->pid == pid && p->state != PROCESS_RUNS && (!last || p->exit_usec > last->exit_usec))
                        last = p;
        }
        return last;
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
        list_init(&p->history);
        list_init(&p->interests);
        list_init(&p->children);
        list_init(&p->of_parent);
        join_family(p, parent);
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
        s->n_history -= p->state != PROCESS_RUNS;
        list_remove(&p->history);
        hash_remove(&s->table, &p->node);
        profile_unref(p->profile);
        profile_unref(p->before_read);
        free(p);
}

void process_retire(struct processes *s, struct process *p) {
        leave_family(p);
        leave_children(p);
        p->state = PROCESS_ENDED;
        list_append(&s->history, &p->history);
        s->n_history++;
}

void history_trim(struct processes *s) {
        uint64_t old = realtime_nsec() / NSEC_PER_USEC - HISTORY_SEC * USEC_PER_SEC;

        for (struct list *entry = s->history.next, *next; entry != &s->history && s->n_history > HISTORY_MIN;
             entry = next) {
                struct process *p = list_entry(entry, struct process, history);

                if (s->n_history <= HISTORY_MAX && p->exit_usec > old)
                        break;
                next = entry->next;
                if (list_empty(&p->interests))
                        process_free(s, p);
        }
}

/* ---- pidfds ------------------------------------------------------------------------------------------------------- */

int process_open_pidfd(struct processes *s, struct process *p) {
        struct epoll_event event = { .events = EPOLLIN | EPOLLHUP | EPOLLET, .data.ptr = p };
        int r;

        if (p->pidfd >= 0)
                return 0;
        p->pidfd = pidfd_open(p->pid, 0);
        if (p->pidfd < 0)
                return -errno;
        if (epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, p->pidfd, &event) == 0)
                return 0;
        r = -errno;
        p->pidfd = safe_close(p->pidfd);
        return r;
}

/* The set has it as long as anybody has it open. */
void process_close_pidfd(struct processes *s, struct process *p) {
        if (p->pidfd >= 0)
                (void)epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, p->pidfd, NULL);
        p->pidfd = safe_close(p->pidfd);
}
