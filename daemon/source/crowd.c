/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crowd.h"

#include <stdlib.h>

#include "file_watch.h"
#include "tree.h"
#include "tree_report.h"

enum {
        CROWD_MIN = 8,          /* watches */
        TELLINGS_A_TURN = 8192, /* to crowds of one user */
        RESCANS_A_TURN = 256,
        PAUSE_MSEC = 100,       /* between two rounds of `rescan` */
};

struct user {
        struct hash_node node;
        uid_t uid;
        size_t n_crowds;
        uint64_t turn; /* the loop's, in which so many were told */
        size_t n_told;
};

struct crowd {
        struct hash_node node;
        struct crowds *all;
        const struct dir *dir;
        struct user *user;
        struct list *first, *last; /* links of subscriptions */
        size_t n;
        struct list behind; /* alone: nothing is put off */
        struct list *next;  /* who is told `rescan` next; NULL: this round is over */
        uint64_t begin_nsec; /* not before */
        uint64_t since;      /* the earliest that this round is about, in crowds.serial */
        uint64_t again_since; /* and that has happened in it; UINT64_MAX: nothing */
};

/* ---- having them --------------------------------------------------------------------------------------------- */

static void on_go_on(struct mux_deferred *deferred);

void crowds_init(struct crowds *all, struct mux *mux, void (*told)(struct crowds *crowds)) {
        *all = (struct crowds){ .mux = mux, .told = told, .serial = 1 };
        list_init(&all->behind);
        mux_deferred_init(&all->go_on, on_go_on);
}

void crowds_close(struct crowds *all) {
        mux_deferred_cancel(&all->go_on);
        mux_timer_clear(all->mux, &all->timer);
}

static uint64_t hash_of(const struct dir *dir, uid_t uid) {
        return hash_u64(dir->id ^ (uint64_t)uid << 32);
}

static struct crowd *find(const struct crowds *all, const struct dir *dir, uid_t uid) {
        struct hash_node *n = all->table.n_nodes > 0 ? hash_first(&all->table, hash_of(dir, uid)) : NULL;

        while (n && (container_of(n, struct crowd, node)->dir != dir || container_of(n, struct crowd, node)->user->uid != uid))
                n = hash_next(n);
        return n ? container_of(n, struct crowd, node) : NULL;
}

static struct user *get_user(struct crowds *all, uid_t uid) {
        struct hash_node *n = hash_first(&all->users, hash_u64(uid));
        struct user *user;

        while (n && container_of(n, struct user, node)->uid != uid)
                n = hash_next(n);
        if (n)
                return container_of(n, struct user, node);
        user = calloc(1, sizeof(*user));
        if (!user)
                return NULL;
        user->uid = uid;
        if (hash_add(&all->users, &user->node, hash_u64(uid)) == 0)
                return user;
        free(user);
        return NULL;
}

static void put_user(struct crowds *all, struct user *user) {
        if (user->n_crowds > 0)
                return;
        hash_remove(&all->users, &user->node);
        free(user);
}

static struct crowd *crowd_new(struct crowds *all, const struct dir *dir, uid_t uid) {
        struct user *user = get_user(all, uid);
        struct crowd *crowd = user ? calloc(1, sizeof(*crowd)) : NULL;

        if (crowd) {
                crowd->all = all;
                crowd->dir = dir;
                crowd->user = user;
                list_init(&crowd->behind);
                if (hash_add(&all->table, &crowd->node, hash_of(dir, uid)) == 0) {
                        user->n_crowds++;
                        return crowd;
                }
                free(crowd);
        }
        if (user)
                put_user(all, user);
        return NULL;
}

static void crowd_free(struct crowd *crowd) {
        struct crowds *all = crowd->all;

        list_remove(&crowd->behind);
        hash_remove(&all->table, &crowd->node);
        crowd->user->n_crowds--;
        put_user(all, crowd->user);
        free(crowd);
}

struct crowd *crowd_of(const struct crowds *all, const struct file_watch *watch) {
        return find(all, watch->dir, watch->asker->uid);
}

struct list *crowd_last(const struct crowd *crowd) {
        return crowd->last;
}

static struct subscription *subscription_of(struct list *link) {
        return list_entry(link, struct subscription, link);
}

/* At the end of its list. */
static void take(struct crowd *crowd, struct list *list, struct list *link) {
        list_remove(link);
        list_append(list, link);
        subscription_of(link)->in_crowd = true;
        if (crowd->n++ == 0)
                crowd->first = link;
        crowd->last = link;
}

void crowd_enter(struct crowds *all, struct file_watch *watch) {
        struct crowd *crowd = find(all, watch->dir, watch->asker->uid);
        struct list *list = &watch->dir->subscriptions, *link = &watch->subscription->link, *others[CROWD_MIN - 1];
        size_t n = 0;

        if (crowd) {
                take(crowd, crowd->last->next, link);
                return;
        }
        for (struct list *entry = list->next; entry != list; entry = entry->next) {
                const struct file_watch *other = subscription_of(entry)->object;

                if (subscription_of(entry)->in_crowd)
                        entry = crowd_of(all, other)->last;
                else if (other->asker->uid == watch->asker->uid && n < ARRAY_SIZE(others))
                        others[n++] = entry;
        }
        list_append(list, link);
        if (n == ARRAY_SIZE(others))
                crowd = crowd_new(all, watch->dir, watch->asker->uid);
        if (!crowd)
                return;
        for (size_t i = 0; i < n; i++)
                take(crowd, list, others[i]);
        take(crowd, list, link);
}

void crowd_leave(struct crowds *all, struct file_watch *watch) {
        struct list *link = &watch->subscription->link;
        struct crowd *crowd = watch->subscription->in_crowd ? crowd_of(all, watch) : NULL;

        if (crowd) {
                if (crowd->next == link)
                        crowd->next = link == crowd->last ? NULL : link->next;
                if (crowd->first == link)
                        crowd->first = link->next;
                if (crowd->last == link)
                        crowd->last = link->previous;
                if (--crowd->n == 0)
                        crowd_free(crowd);
        }
        list_remove(link);
        watch->subscription->in_crowd = false;
}

/* ---- what is put off ----------------------------------------------------------------------------------------- */

static void begin_round(struct crowd *crowd, uint64_t since) {
        crowd->next = crowd->first;
        crowd->since = since;
        crowd->again_since = UINT64_MAX;
}

bool crowd_puts_off(struct crowd *crowd) {
        struct crowds *all = crowd->all;
        struct user *user = crowd->user;
        uint64_t turn = mux_turn(all->mux);

        if (!list_empty(&crowd->behind)) {
                crowd->again_since = MIN(crowd->again_since, all->serial);
                return true;
        }
        if (user->turn != turn)
                user->n_told = 0;
        user->turn = turn;
        if (user->n_told + crowd->n <= TELLINGS_A_TURN) {
                user->n_told += crowd->n;
                return false;
        }
        crowd->begin_nsec = 0;
        begin_round(crowd, all->serial);
        list_append(all->behind.next, &crowd->behind); /* before those that pause */
        mux_defer(all->mux, &all->go_on);
        return true;
}

/* Its round is over. */
static void end_round(struct crowd *crowd) {
        list_remove(&crowd->behind);
        if (crowd->again_since == UINT64_MAX)
                return;
        crowd->begin_nsec = monotonic_nsec() + PAUSE_MSEC * NSEC_PER_MSEC;
        begin_round(crowd, crowd->again_since);
        list_append(&crowd->all->behind, &crowd->behind);
}

static void tell_rescan(struct file_watch *watch) {
        if (watch->state == WATCH_IN_FORCE)
                tree_tell_rescan(watch, "", 0);
}

static unsigned tell(struct crowd *crowd, unsigned budget) {
        for (; budget > 0 && crowd->next; budget--) {
                struct list *link = crowd->next;

                crowd->next = link == crowd->last ? NULL : link->next;
                tell_rescan(subscription_of(link)->object);
        }
        return budget;
}

static void on_timer(struct mux_timer *timer) {
        struct crowds *all = container_of(timer, struct crowds, timer);

        mux_defer(all->mux, &all->go_on);
}

static void on_go_on(struct mux_deferred *deferred) {
        struct crowds *all = container_of(deferred, struct crowds, go_on);
        unsigned budget = RESCANS_A_TURN;
        uint64_t now = monotonic_nsec();

        while (budget > 0 && !list_empty(&all->behind)) {
                struct crowd *crowd = list_entry(all->behind.next, struct crowd, behind);

                if (crowd->begin_nsec > now) { /* as those behind it */
                        (void)mux_timer_set(all->mux, &all->timer, crowd->begin_nsec, on_timer);
                        break;
                }
                budget = tell(crowd, budget);
                if (!crowd->next)
                        end_round(crowd);
        }
        if (budget == 0)
                mux_defer(all->mux, &all->go_on);
        all->told(all);
}

void crowd_catch_up(const struct crowds *all, struct file_watch *watch) {
        if (watch->subscription->in_crowd && !list_empty(&crowd_of(all, watch)->behind))
                tell_rescan(watch);
}

uint64_t crowds_mark(struct crowds *all) {
        return all->serial++;
}

bool crowds_have_told(const struct crowds *all, uid_t uid, uint64_t mark) {
        list_for_each(entry, &all->behind) {
                const struct crowd *crowd = list_entry(entry, struct crowd, behind);

                if (crowd->user->uid == uid && (crowd->since <= mark || crowd->again_since <= mark))
                        return false;
        }
        return true;
}
