/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "crowd.h"

#include <stdlib.h>
#include <string.h>

#include "file_watch.h"
#include "tree.h"
#include "tree_report.h"

enum {
        CROWD_MIN = 8,             /* watches */
        AT_ONCE = 32,              /* so many are told without a log */
        LOG_BYTES_MAX = 1 << 20,   /* of one user's crowds */
        TELLINGS_AT_ONCE = 512,    /* to one user in a turn, without a log */
        TELLINGS_A_TURN = 128,     /* from logs */
        TELLINGS_OF_USER = 64,     /* of these */
        RESCANS_A_TURN = 64,
        LOOK_AFTER = 8,            /* tellings at the time: they may be long where queues are full */
        SLICE_NSEC = 30 * 1000,
        PENDING_MAX = 2000000,     /* tellings of one log, about a second */
        PAUSE_MSEC = 100,          /* between two rounds of `rescan` */
        CATCH_UP_MAX = 64,         /* of the log that one watch is told before its turn, */
        EACH_MAX = 4096,           /* tellings, where each has to be asked */
};

struct user {
        struct hash_node node;
        struct crowds *all;
        uid_t uid;
        size_t n_crowds;
        size_t n_behind;    /* of these */
        size_t log_bytes;
        uint64_t turn; /* the loop's, in which so many were told at once */
        size_t n_told;
        struct list telling; /* crowds with something in their log, in turns */
        struct list in_turn; /* in crowds.telling */
};

/* Something that happened, to be told to all from `next` on. */
struct logged {
        struct list link;
        uint64_t serial;
        pid_t except;
        size_t size;
        struct report report;
        struct event_process process;
        char texts[];
};

struct crowd {
        struct user *user;
        struct list *first, *last; /* links of subscriptions */
        size_t n;
        struct list log;     /* struct logged */
        size_t n_logged;
        struct list in_turn; /* in user->telling while there is something in it */
        struct list behind;  /* in crowds.behind; alone: they are not to be told `rescan` */
        struct list *next;   /* who is told next, what the log has first, or `rescan`; NULL: that is over */
        uint64_t begin_nsec;  /* not before: `rescan` */
        uint64_t since;       /* the earliest that this round of it is about */
        uint64_t again_since; /* and that has happened in it; UINT64_MAX: nothing */
};

/* ---- having them --------------------------------------------------------------------------------------------- */

static void on_go_on(struct mux_deferred *deferred);

void crowds_init(struct crowds *all, struct mux *mux, void (*told)(struct crowds *crowds)) {
        *all = (struct crowds){ .mux = mux, .told = told, .serial = 1 };
        list_init(&all->telling);
        list_init(&all->behind);
        mux_deferred_init(&all->go_on, on_go_on);
}

void crowds_close(struct crowds *all) {
        mux_deferred_cancel(&all->go_on);
        mux_timer_clear(all->mux, &all->timer);
}

static struct user *find_user(const struct crowds *all, uid_t uid) {
        struct hash_node *n = all->users.n_nodes > 0 ? hash_first(&all->users, hash_u64(uid)) : NULL;

        while (n && container_of(n, struct user, node)->uid != uid)
                n = hash_next(n);
        return n ? container_of(n, struct user, node) : NULL;
}

static struct user *get_user(struct crowds *all, uid_t uid) {
        struct user *user = find_user(all, uid);

        if (user)
                return user;
        user = calloc(1, sizeof(*user));
        if (!user)
                return NULL;
        user->all = all;
        user->uid = uid;
        list_init(&user->telling);
        list_init(&user->in_turn);
        if (hash_add(&all->users, &user->node, hash_u64(uid)) == 0)
                return user;
        free(user);
        return NULL;
}

static void put_user(struct user *user) {
        if (user->n_crowds > 0)
                return;
        list_remove(&user->in_turn);
        hash_remove(&user->all->users, &user->node);
        free(user);
}

static struct crowd *crowd_new(struct crowds *all, uid_t uid) {
        struct user *user = get_user(all, uid);
        struct crowd *crowd = user ? calloc(1, sizeof(*crowd)) : NULL;

        if (crowd) {
                crowd->user = user;
                list_init(&crowd->log);
                list_init(&crowd->in_turn);
                list_init(&crowd->behind);
                user->n_crowds++;
        } else if (user)
                put_user(user);
        return crowd;
}

static void drop_first(struct crowd *crowd) {
        struct logged *logged = list_entry(crowd->log.next, struct logged, link);

        list_remove(&logged->link);
        crowd->n_logged--;
        crowd->user->log_bytes -= logged->size;
        report_done(&logged->report);
        free(logged);
}

static void drop_log(struct crowd *crowd) {
        while (!list_empty(&crowd->log))
                drop_first(crowd);
        list_remove(&crowd->in_turn);
}

static bool is_behind(const struct crowd *crowd) {
        return !list_empty(&crowd->behind);
}

static void end_behind(struct crowd *crowd) {
        if (!is_behind(crowd))
                return;
        list_remove(&crowd->behind);
        crowd->user->n_behind--;
}

static void crowd_free(struct crowd *crowd) {
        if (is_behind(crowd) || !list_empty(&crowd->log))
                mux_defer(crowd->user->all->mux, &crowd->user->all->go_on); /* somebody may wait for it */
        drop_log(crowd);
        end_behind(crowd);
        crowd->user->n_crowds--;
        put_user(crowd->user);
        free(crowd);
}

struct list *crowd_last(const struct crowd *crowd) {
        return crowd->last;
}

static struct file_watch *watch_of(struct list *link) {
        return list_entry(link, struct subscription, link)->object;
}

/* Into its neighbours' place in the list. */
static void take(struct crowd *crowd, struct list *before, struct list *link) {
        list_remove(link);
        list_append(before, link);
        watch_of(link)->crowd = crowd;
        if (crowd->n++ == 0)
                crowd->first = link;
        crowd->last = link;
}

static bool are_alike(const struct crowds *all, const struct file_watch *a, const struct file_watch *b) {
        return a->asker->uid == b->asker->uid && (!all->alike || all->alike(a, b));
}

void crowd_enter(struct crowds *all, struct file_watch *watch) {
        struct list *list = &watch->dir->subscriptions, *link = &watch->subscription->link, *others[CROWD_MIN - 1];
        struct crowd *crowd = NULL;
        size_t n = 0;

        for (struct list *entry = list->next; entry != list; entry = entry->next) {
                const struct file_watch *other = watch_of(entry);
                bool alike = are_alike(all, other, watch);

                if (alike && other->crowd) {
                        take(other->crowd, other->crowd->last->next, link);
                        return;
                }
                if (alike && n < ARRAY_SIZE(others))
                        others[n++] = entry;
                if (other->crowd)
                        entry = other->crowd->last;
        }
        list_append(list, link);
        if (n == ARRAY_SIZE(others))
                crowd = crowd_new(all, watch->asker->uid);
        if (!crowd)
                return;
        for (size_t i = 0; i < n; i++)
                take(crowd, list, others[i]);
        take(crowd, list, link);
}

static struct list *behind_of(const struct crowd *crowd, struct list *link) {
        return link == crowd->last ? NULL : link->next;
}

void crowd_leave(struct file_watch *watch) {
        struct list *link = &watch->subscription->link;
        struct crowd *crowd = take_pointer(&watch->crowd);

        if (crowd) {
                if (crowd->next == link)
                        crowd->next = behind_of(crowd, link);
                if (crowd->first == link)
                        crowd->first = link->next;
                if (crowd->last == link)
                        crowd->last = link->previous;
                if (--crowd->n == 0)
                        crowd_free(crowd);
        }
        list_remove(link);
}

void crowd_begin(struct crowds *all, struct file_watch *watch) {
        watch->told_to = all->serial;
}

/* ---- what is put off: as it was --------------------------------------------------------------------------------- */

static void tell(struct file_watch *watch, struct logged *logged) {
        if (watch->told_to >= logged->serial)
                return;
        watch->told_to = logged->serial;
        if (watch->state == WATCH_IN_FORCE && (logged->except == 0 || watch->asker->pid != logged->except))
                source_report(watch->subscription->source, watch->subscription, &logged->report);
}

static const char *keep_text(char **room, const char *text) {
        const char *kept = text ? *room : NULL;

        if (text)
                *room = stpcpy(*room, text) + 1;
        return kept;
}

static struct event_path keep_path(char **room, struct event_path path) {
        struct event_path kept = path;

        if (path.bytes) {
                kept.bytes = memcpy(*room, path.bytes, path.size);
                *room += path.size;
        }
        return kept;
}

static size_t size_of_text(const char *text) {
        return text ? strlen(text) + 1 : 0;
}

/* Tree events have no links. */
static struct logged *logged_new(const struct report *report) {
        const struct event_process *process = report->process;
        size_t size = sizeof(struct logged) + report->below.size + report->from_below.size;
        struct logged *logged;
        char *room;

        if (process)
                size += size_of_text(process->comm) + size_of_text(process->exe) + size_of_text(process->cgroup);
        logged = malloc(size);
        if (!logged)
                return NULL;
        logged->size = size;
        logged->report = report_copy(report);
        room = logged->texts;
        logged->report.below = keep_path(&room, report->below);
        logged->report.from_below = keep_path(&room, report->from_below);
        if (process) {
                logged->process = *process;
                logged->process.comm = keep_text(&room, process->comm);
                logged->process.exe = keep_text(&room, process->exe);
                logged->process.cgroup = keep_text(&room, process->cgroup);
                logged->report.process = &logged->process;
        }
        list_init(&logged->link);
        return logged;
}

/* How many tellings are left of it: one more is done. */
static size_t spend(size_t budget, uint64_t end_nsec) {
        return --budget % LOOK_AFTER == 0 && monotonic_nsec() >= end_nsec ? 0 : budget;
}

/* So many of them at most. What it has told of is told anew by the sink: what it was shared with may be gone by then. */
static size_t tell_some(struct crowd *crowd, size_t budget, uint64_t end_nsec) {
        while (budget > 0 && !list_empty(&crowd->log)) {
                struct logged *logged = list_entry(crowd->log.next, struct logged, link);

                for (; budget > 0 && crowd->next; budget = spend(budget, end_nsec)) {
                        tell(watch_of(crowd->next), logged);
                        crowd->next = behind_of(crowd, crowd->next);
                }
                report_done(&logged->report);
                if (crowd->next)
                        return budget;
                drop_first(crowd);
                crowd->next = crowd->first;
        }
        return budget;
}

/* So much of what the user's crowds have. */
static void tell_user(struct user *user) {
        uint64_t end_nsec = monotonic_nsec() + SLICE_NSEC;
        size_t budget = TELLINGS_OF_USER;

        while (budget > 0 && !list_empty(&user->telling)) {
                struct crowd *crowd = list_entry(list_pop(&user->telling), struct crowd, in_turn);

                budget = tell_some(crowd, budget, end_nsec);
                if (!list_empty(&crowd->log))
                        list_append(&user->telling, &crowd->in_turn);
        }
}

/* ---- what is put off: `rescan` ----------------------------------------------------------------------------------- */

static void begin_round(struct crowd *crowd, uint64_t since) {
        crowd->next = crowd->first;
        crowd->since = since;
        crowd->again_since = UINT64_MAX;
}

static void fall_behind(struct crowd *crowd) {
        struct crowds *all = crowd->user->all;
        struct list *before = &all->behind;
        uint64_t since = list_empty(&crowd->log) ? all->serial : list_entry(crowd->log.next, struct logged, link)->serial;

        drop_log(crowd);
        crowd->begin_nsec = 0;
        crowd->user->n_behind++;
        begin_round(crowd, since);
        while (before->previous != &all->behind && list_entry(before->previous, struct crowd, behind)->begin_nsec > 0)
                before = before->previous;
        list_append(before, &crowd->behind); /* before those that pause */
        mux_defer(all->mux, &all->go_on);
}

static void end_round(struct crowd *crowd) {
        end_behind(crowd);
        if (crowd->again_since == UINT64_MAX)
                return;
        crowd->begin_nsec = monotonic_nsec() + PAUSE_MSEC * NSEC_PER_MSEC;
        begin_round(crowd, crowd->again_since);
        list_append(&crowd->user->all->behind, &crowd->behind);
        crowd->user->n_behind++;
}

static void tell_rescan(struct file_watch *watch) {
        if (watch->state == WATCH_IN_FORCE)
                tree_tell_rescan(watch, "", 0);
}

/* `rescan` of all that it is about: what happened before needs no telling any more. */
static bool covers_all(const struct report *report) {
        return report && report->notes & KEV_NOTE_RESCAN && report->below.bytes && report->below.size == 0;
}

/* Of what is in its log. */
static uint64_t last_serial(const struct crowd *crowd) {
        return list_empty(&crowd->log) ? 0 : list_entry(crowd->log.previous, struct logged, link)->serial;
}

void crowd_before(struct file_watch *watch, const struct report *report) {
        const struct crowd *crowd = watch->crowd;
        uint64_t last = last_serial(crowd);

        if (watch->told_to >= last)
                return;
        if (covers_all(report)) {
                watch->told_to = last;
                return;
        }
        if (crowd->n_logged > CATCH_UP_MAX) {
                tell_rescan(watch);
                return;
        }
        list_for_each(entry, &crowd->log) {
                struct logged *logged = list_entry(entry, struct logged, link);

                tell(watch, logged);
                report_done(&logged->report);
        }
}

static size_t tell_rescans(struct crowd *crowd, size_t budget, uint64_t end_nsec) {
        for (; budget > 0 && crowd->next; budget = spend(budget, end_nsec)) {
                struct list *link = crowd->next;

                crowd->next = behind_of(crowd, link);
                tell_rescan(watch_of(link));
        }
        return budget;
}

/* ---- something happens ------------------------------------------------------------------------------------------- */

bool crowd_is_at_rest(struct crowd *crowd) {
        struct user *user = crowd->user;
        uint64_t turn = mux_turn(user->all->mux);

        if (crowd->n > AT_ONCE || !list_empty(&crowd->log) || is_behind(crowd))
                return false;
        if (user->turn != turn)
                user->n_told = 0;
        user->turn = turn;
        if (user->n_told >= TELLINGS_AT_ONCE)
                return false;
        user->n_told += crowd->n;
        return true;
}

bool crowd_covers(struct crowd *crowd) {
        if (!is_behind(crowd)) {
                if ((crowd->n_logged + 1) * crowd->n <= EACH_MAX)
                        return false;
                fall_behind(crowd);
                return true;
        }
        crowd->again_since = MIN(crowd->again_since, crowd->user->all->serial);
        return true;
}

void crowd_put_down(struct crowd *crowd, const struct report *report, pid_t except) {
        struct user *user = crowd->user;
        struct crowds *all = user->all;
        struct logged *logged;

        if (!report || (is_behind(crowd) && crowd_covers(crowd)))
                return;
        logged = user->log_bytes < LOG_BYTES_MAX && crowd->n_logged * crowd->n < PENDING_MAX ? logged_new(report) : NULL;
        if (!logged) {
                fall_behind(crowd);
                return;
        }
        logged->serial = ++all->serial;
        logged->except = except;
        user->log_bytes += logged->size;
        if (list_empty(&crowd->log)) {
                crowd->next = crowd->first;
                list_append(&user->telling, &crowd->in_turn);
                if (list_empty(&user->in_turn))
                        list_append(&all->telling, &user->in_turn);
                mux_defer(all->mux, &all->go_on);
        }
        list_append(&crowd->log, &logged->link);
        crowd->n_logged++;
}

/* ---- turns --------------------------------------------------------------------------------------------------------- */

static void on_timer(struct mux_timer *timer) {
        struct crowds *all = container_of(timer, struct crowds, timer);

        mux_defer(all->mux, &all->go_on);
}

static void tell_from_logs(struct crowds *all) {
        for (size_t n = 0; n < TELLINGS_A_TURN && !list_empty(&all->telling); n += TELLINGS_OF_USER) {
                struct user *user = list_entry(list_pop(&all->telling), struct user, in_turn);

                tell_user(user);
                if (!list_empty(&user->telling))
                        list_append(&all->telling, &user->in_turn);
        }
        if (!list_empty(&all->telling))
                mux_defer(all->mux, &all->go_on);
}

static void tell_those_behind(struct crowds *all) {
        size_t budget = RESCANS_A_TURN;
        uint64_t now = list_empty(&all->behind) ? 0 : monotonic_nsec();

        while (budget > 0 && !list_empty(&all->behind)) {
                struct crowd *crowd = list_entry(all->behind.next, struct crowd, behind);

                if (crowd->begin_nsec > now) { /* as those behind it */
                        (void)mux_timer_set(all->mux, &all->timer, crowd->begin_nsec, on_timer);
                        break;
                }
                budget = tell_rescans(crowd, budget, now + SLICE_NSEC);
                if (!crowd->next)
                        end_round(crowd);
        }
        if (budget == 0)
                mux_defer(all->mux, &all->go_on);
}

static void on_go_on(struct mux_deferred *deferred) {
        struct crowds *all = container_of(deferred, struct crowds, go_on);

        tell_from_logs(all);
        tell_those_behind(all);
        all->told(all);
}

/* ---- barriers, and the next daemon ------------------------------------------------------------------------------- */

void crowd_catch_up(struct file_watch *watch) {
        const struct crowd *crowd = watch->crowd;

        if (crowd && (is_behind(crowd) || watch->told_to < last_serial(crowd)))
                tell_rescan(watch);
}

uint64_t crowds_mark(struct crowds *all) {
        return ++all->serial;
}

bool crowds_have_told(const struct crowds *all, uid_t uid, uint64_t mark) {
        const struct user *user = find_user(all, uid);

        if (!user)
                return true;
        list_for_each(entry, &user->telling)
                if (list_entry(list_entry(entry, struct crowd, in_turn)->log.next, struct logged, link)->serial < mark)
                        return false;
        if (user->n_behind == 0)
                return true;
        list_for_each(entry, &all->behind) {
                const struct crowd *crowd = list_entry(entry, struct crowd, behind);

                if (crowd->user == user && (crowd->since < mark || crowd->again_since < mark))
                        return false;
        }
        return true;
}
