/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches that go on in what is mounted below (tree.crossMounts): one subscription of the watch's tree itself, and
 * one for each mount below it, made and ended as mounts come and go. Which mechanism serves each is its own affair;
 * what is told of a part gets the part's place in front.
 *
 * A mount whose file system is a view of the kernel's own state (/proc, say) has no part: nobody tells of changes in
 * it. The watch is told `degraded` for it.
 */

#include <errno.h>
#include <string.h>

#include "crossing.h"

enum {
        COMPARE_MSEC = 10, /* between two readings of the mounts that what clients do has led to */
        SLICE_NSEC = 100 * 1000, /* of a turn, for watches that are to be looked at */
};

static struct crossings *crossings_of(struct source *source) {
        return container_of(source, struct crossings, source);
}

static void give_turn(struct crossing_user *user) {
        if (list_empty(&user->to_look_at))
                return;
        if (list_empty(&user->in_turn))
                list_append(&user->all->in_turn, &user->in_turn);
        mux_defer(user->all->mux, &user->all->run);
}

void crossing_look_later(struct crossing *c) {
        if (c->is_to_be_looked_at)
                return;
        c->is_to_be_looked_at = true;
        list_remove(&c->link);
        list_append(&c->user->to_look_at, &c->link);
        give_turn(c->user);
}

void crossings_look_at_all(struct crossings *all) {
        all->n_changes++;
        hash_for_each(node, &all->users) {
                struct crossing_user *user = container_of(node, struct crossing_user, node);

                list_splice(&user->to_look_at, &user->looked_at);
                give_turn(user);
        }
}

static void on_compare_timer(struct mux_timer *timer);

/* Now, or soon after it was. */
void crossings_compare(struct crossings *all) {
        uint64_t now = monotonic_nsec(), next = all->compared_nsec + COMPARE_MSEC * NSEC_PER_MSEC;

        if (now >= next) {
                all->compared_nsec = now;
                all->n_compared++;
                mounts_compare(&all->mounts);
        } else if (all->compare_timer.heap_index == 0)
                (void)mux_timer_set(all->mux, &all->compare_timer, next, on_compare_timer);
}

static void on_compare_timer(struct mux_timer *timer) {
        struct crossings *all = container_of(timer, struct crossings, compare_timer);

        crossings_compare(all);
        mux_defer(all->mux, &all->run); /* for the barriers */
}

void crossings_compare_later(struct crossings *all) {
        all->compares = true;
        mux_defer(all->mux, &all->run);
}

static struct crossing_user *find_user(const struct crossings *all, uid_t uid) {
        struct hash_node *n = hash_first(&all->users, hash_u64(uid));

        while (n && container_of(n, struct crossing_user, node)->uid != uid)
                n = hash_next(n);
        return n ? container_of(n, struct crossing_user, node) : NULL;
}

static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        const struct crossings *all = container_of(barriers, struct crossings, barriers);
        const struct crossing_user *user = find_user(all, barrier->asker->uid);

        return !user || (all->n_compared >= barrier->position && list_empty(&user->to_look_at) &&
                         user->n_unsettled == 0);
}

static void look_at(struct crossing *c) {
        c->is_to_be_looked_at = false;
        c->n_changes = c->all->n_changes;
        list_append(&c->user->looked_at, &c->link);
        if (c->is_gone) {
                c->is_gone = c->is_degraded = false;
                list_remove(&c->asking);
                crossing_bury_parts(c);
                free(take_pointer(&c->canonical));
                c->reading = 0;
        }
        if (c->is_back && !c->resolving) {
                c->is_back = false;
                c->is_listed = true; /* it was, or is told with a rescan */
                crossing_ask_again(c);
        }
        crossing_look(c);
}

/* Of each user one at a time. */
static void look_at_some(struct crossings *all) {
        uint64_t end_nsec = monotonic_nsec() + SLICE_NSEC;
        struct list *entry;

        do {
                struct crossing_user *user;

                entry = list_pop(&all->in_turn);
                if (!entry)
                        return;
                user = list_entry(entry, struct crossing_user, in_turn);
                look_at(list_entry(list_pop(&user->to_look_at), struct crossing, link));
                give_turn(user);
        } while (monotonic_nsec() < end_nsec);
        if (!list_empty(&all->in_turn))
                mux_defer(all->mux, &all->run);
}

static void on_run(struct mux_deferred *deferred) {
        struct crossings *all = container_of(deferred, struct crossings, run);

        crossings_free_dead(all);
        if (all->compares) {
                all->compares = false;
                crossings_compare(all);
        }
        look_at_some(all);
        barriers_check(&all->barriers);
}

/* For one more watch. NULL: no memory. */
static struct crossing_user *get_user(struct crossings *all, uid_t uid) {
        struct crossing_user *user = find_user(all, uid);

        if (!user) {
                user = calloc(1, sizeof(*user));
                if (!user || hash_add(&all->users, &user->node, hash_u64(uid)) < 0) {
                        free(user);
                        return NULL;
                }
                user->all = all;
                user->uid = uid;
                list_init(&user->looked_at);
                list_init(&user->to_look_at);
                list_init(&user->in_turn);
        }
        user->n_watches++;
        return user;
}

static void put_user(struct crossing_user *user) {
        if (list_empty(&user->to_look_at))
                list_remove(&user->in_turn);
        if (--user->n_watches > 0)
                return;
        hash_remove(&user->all->users, &user->node);
        free(user);
}

static void free_crossing(struct crossing *c) {
        if (c->main)
                crossing_bury_part(c->main);
        crossing_bury_parts(c);
        crossings_free_dead(c->all);
        if (c->resolving)
                c->resolving->crossing = NULL;
        c->in_force = false;
        crossing_count_unsettled(c);
        list_remove(&c->link);
        list_remove(&c->asking);
        put_user(c->user);
        free(c->path);
        free(c->canonical);
        free(c);
}

static int crossings_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                            struct refusal *refusal) {
        struct crossings *all = crossings_of(source);
        struct crossing *c;
        struct crossing_user *user;
        struct subject own = *subject;
        int r = 0;

        own.cross_mounts = false;
        if (workers_are_stuck(source->context->workers, subject->asker->uid))
                return refuse(refusal, EDQUOT, "path: all of your look-ups wait for file systems that don't answer");
        c = calloc(1, sizeof(*c));
        user = c ? get_user(all, subject->asker->uid) : NULL;
        if (!user) {
                free(c);
                return refuse(refusal, ENOMEM, "no memory");
        }
        c->all = all;
        c->user = user;
        c->n_changes = all->n_changes;
        c->n_doubts = all->n_doubts;
        c->outer = subscription;
        c->subject = own;
        c->subject.path = NULL;
        c->subject.fd = -1;
        list_init(&c->link);
        list_init(&c->asking);
        list_init(&c->parts);
        list_append(&user->looked_at, &c->link);
        c->path = subject->fd < 0 ? strdup(subject->path) : NULL;
        c->asked_since = subject->fd >= 0; /* what is passed is there */
        c->main = crossing_new_part(c, "", 0);
        if (!c->main || (subject->fd < 0 && !c->path))
                r = refuse(refusal, ENOMEM, "no memory");
        if (r == 0) {
                r = crossing_ask_where(c, subject->fd);
                if (r < 0)
                        (void)refuse(refusal, -r, "path: %s", strerror(-r));
        }
        if (r == 0)
                r = sources_attach_part(source, &c->main->subscription, &own, refusal);
        if (r < 0) {
                free_crossing(c);
                return r;
        }
        crossing_set_starting(c->main, r == 1);
        c->is_listed = subject->listed;
        c->main->listed = !subject->list || subject->listed;
        subscription->object = c;
        return 1;
}

static int crossings_modify(struct source *source _unused_, struct subscription *subscription,
                            const struct subject *subject, struct refusal *refusal) {
        struct crossing *c = subscription->object;
        struct subject own = *subject;
        int r;

        own.cross_mounts = false;
        r = source_modify(&c->main->subscription, &own, refusal);

        if (r < 0)
                return r;
        c->subject.notes = subject->notes;
        c->subject.exclude_self = subject->exclude_self;
        own.list = false; /* parts that came later have none */
        list_for_each(entry, &c->parts) {
                struct crossing_part *part = list_entry(entry, struct crossing_part, link);
                struct refusal ignored; /* what the main part takes, all do */

                (void)source_modify(&part->subscription, &own, &ignored);
        }
        return 0;
}

static void crossings_select(struct source *source _unused_, struct subscription *subscription) {
        struct crossing *c = subscription->object;

        c->main->subscription.selective = subscription->selective;
        source_select(&c->main->subscription);
        list_for_each(entry, &c->parts) {
                struct crossing_part *part = list_entry(entry, struct crossing_part, link);

                part->subscription.selective = subscription->selective;
                source_select(&part->subscription);
        }
        c->reading = 0; /* other mounts may be wanted */
        crossing_look_later(c);
}

static void crossings_detach(struct source *source _unused_, struct subscription *subscription) {
        free_crossing(take_pointer(&subscription->object));
}

static bool crossings_barrier(struct source *source, struct source_barrier *barrier) {
        struct crossings *all = crossings_of(source);
        bool is_due = all->compares || all->compare_timer.heap_index > 0;

        return barriers_add(&all->barriers, barrier, all->n_compared + is_due);
}

static int crossings_open(struct source_context *context, struct source **ret_source) {
        struct crossings *all = calloc(1, sizeof(*all));
        int r;

        if (!all)
                return -ENOMEM;
        all->mux = context->mux;
        list_init(&all->in_turn);
        list_init(&all->asking);
        list_init(&all->dead);
        mux_deferred_init(&all->run, on_run);
        all->retry_timer = MUX_TIMER_INIT;
        all->compare_timer = MUX_TIMER_INIT;
        barriers_init(&all->barriers, all->mux, is_past);
        r = mailbox_open(&all->mailbox, all->mux, crossings_on_resolved);
        if (r < 0) {
                free(all);
                return r;
        }
        all->mounts.changed = crossings_on_changed;
        all->mounts.done = crossings_on_done;
        all->mounts.doubt = crossings_on_doubt;
        mounts_open(&all->mounts, all->mux);
        *ret_source = &all->source;
        return 0;
}

/* The workers have ended before. */
static void crossings_close(struct source *source) {
        struct crossings *all = crossings_of(source);

        crossings_free_dead(all);
        crossings_on_resolved(&all->mailbox);
        mounts_close(&all->mounts);
        mux_deferred_cancel(&all->run);
        mux_timer_clear(all->mux, &all->retry_timer);
        mux_timer_clear(all->mux, &all->compare_timer);
        barriers_close(&all->barriers);
        mailbox_close(&all->mailbox);
        free(all);
}

/* Those that are made are counted where they are served. */
static uint64_t crossings_registrations(const struct source *source _unused_) {
        return 0;
}

static const char *crossings_mechanism(const struct source *source _unused_) {
        return "parts";
}

const struct source_class source_crossings = {
        .name = "crossings",
        .filters = 1u << KEV_FILTER_TREE,
        .open = crossings_open,
        .close = crossings_close,
        .attach = crossings_attach,
        .modify = crossings_modify,
        .select = crossings_select,
        .detach = crossings_detach,
        .barrier = crossings_barrier,
        .registrations = crossings_registrations,
        .mechanism = crossings_mechanism,
};

const struct source *crossing_served_by(const struct subscription *subscription) {
        const struct crossing *c = subscription->object;

        return c->main->subscription.source;
}
