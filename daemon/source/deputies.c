/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The daemon's side of deputies: deputy.h says what they are. */

#include "deputy.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "barrier.h"
#include "channel.h"
#include "client.h"
#include "close_elsewhere.h"
#include "file_watch.h"
#include "hash.h"
#include "identity.h"
#include "log.h"
#include "source.h"
#include "workers.h"

enum {
        DEPUTIES_MAX = 256,
        DEPUTIES_OF_USER_MAX = 8, /* and as many that are leaving */
        RESTARTS_MAX = 5, /* within a minute: something ends it over and over */
        ROOM_MSEC = 5,
        ROOM_AT_ONCE = 256,
        UNSENT_FDS_MAX = 1024,
        BEHIND_MAX = 12 * 1024 * 1024, /* bytes of orders that wait for a deputy, with which no more watches are made */
        UNSENT_MAX = 64 * 1024 * 1024, /* and with which it is given up: the end of each watch is an order, too */
};

#define IDLE_NSEC (2 * NSEC_PER_SEC)

struct deputies {
        struct source source;
        struct mux *mux;
        struct list list;
        struct list leaving; /* deputies that have been told to end */
        struct hash wards;
        uint64_t last_id;
        struct barriers barriers;
        struct mux_timer room_timer;
        struct list waiting; /* wards whose reports have found no room yet */
        struct mux_deferred tidy;
        struct mux_timer idle_timer;
};

/* One set of credentials. */
struct deputy {
        struct list link;
        struct deputies *all;
        struct identity identity;
        struct helper helper; /* until its socket is there */
        struct channel channel;
        bool is_there;
        bool has_ended; /* there is no process, nor one to come */
        bool is_lost;   /* the same, and its wards are to be seen to */
        bool is_leaving;
        int error; /* why, if it said so; positive errno */
        struct list wards;
        uint64_t idle_nsec; /* since when it has none; 0: it has */
        uint64_t n_barriers, n_past;
        uint64_t registrations, overflows, repaired;
};

enum ward_state {
        WARD_STARTING,
        WARD_IN_FORCE,
        WARD_RETURNING, /* its deputy has ended: another is asked */
        WARD_ENDED,     /* it has told its last event */
};

struct ward {
        struct subscription *subscription;
        struct list link;
        struct hash_node node; /* by id */
        uint64_t id;
        struct deputy *deputy;
        struct list waiting; /* reports to be acknowledged */
        uint64_t n_taken;
        enum ward_state state;
        bool list;
        bool is_listed; /* and was told so */
        /* To order it again. */
        struct order order;
        char *path;
        int fd; /* until it is ordered, or -1 */
};

static struct ward *find_ward(const struct deputies *all, uint64_t id) {
        if (all->wards.n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&all->wards, hash_u64(id)); n; n = hash_next(n))
                if (container_of(n, struct ward, node)->id == id)
                        return container_of(n, struct ward, node);
        return NULL;
}

/* ---- orders --------------------------------------------------------------------------------------------- */

static void lose(struct deputy *d);

/* What a deputy does not take, or can't be told, ends it: another begins anew. */
static void order(struct deputy *d, const struct order *o, const char *path, int fd) {
        struct iovec parts[] = {
                { .iov_base = (void *)o, .iov_len = sizeof(*o) },
                { .iov_base = (void *)path, .iov_len = o->path_size },
        };

        if (!d->is_there)
                return;
        if (channel_send(&d->channel, parts, ARRAY_SIZE(parts), fd) < 0 || d->channel.unsent_bytes > UNSENT_MAX)
                lose(d);
}

static void order_ward(struct ward *w, enum order_kind kind, uint64_t serial) {
        struct order o = w->order;

        o.kind = kind;
        o.serial = serial;
        o.path_size = 0;
        order(w->deputy, &o, NULL, -1);
}

static void close_passed(struct deputy *d, int fd) {
        close_elsewhere(d->all->source.context->workers, d->identity.uid, fd);
}

static void order_attach(struct ward *w) {
        w->order.flags = (w->order.flags & ~(uint32_t)ORDER_SELECTIVE) |
                         (w->subscription->selective ? ORDER_SELECTIVE : 0);
        w->order.path_size = w->path ? (uint32_t)strlen(w->path) + 1 : 0;
        order(w->deputy, &w->order, w->path, w->fd);
        close_passed(w->deputy, take_fd(&w->fd));
}

/* ---- wards ------------------------------------------------------------------------------------------------ */

static void tell_self(struct ward *w, uint64_t notes, uint32_t flags) {
        struct report report = REPORT_INIT;

        report.notes = notes;
        report.flags = flags;
        report.kind = w->order.filter == KEV_FILTER_TREE ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        report.below = (struct event_path){ "", 0 };
        source_report(w->subscription->source, w->subscription, &report);
        report_done(&report);
}

/* It is not watched any more, and won't be. */
static void end_ward(struct ward *w) {
        w->state = WARD_ENDED;
        tell_self(w, w->order.filter == KEV_FILTER_TREE ? KEV_NOTE_GONE : KEV_NOTE_REVOKE, KEV_FLAG_EOF);
}

static void on_attached(struct ward *w, const struct word *word, const char *message, size_t size) {
        const struct sink *sink = w->deputy->all->source.context->sink;
        struct refusal refusal;

        if (w->state != WARD_STARTING && w->state != WARD_RETURNING)
                return;
        if (w->state == WARD_RETURNING) {
                if (word->error) {
                        end_ward(w);
                        return;
                }
                w->state = WARD_IN_FORCE;
                tell_self(w, KEV_NOTE_RESCAN, 0);
                if (w->list && !w->is_listed) { /* what waits for the end of the list goes on */
                        w->is_listed = true;
                        tell_self(w, KEV_NOTE_LISTED, 0);
                }
                return;
        }
        if (word->error) {
                (void)refuse(&refusal, word->error, "%.*s", (int)size, message);
                sink->attached(w->subscription, &refusal); /* detaches it */
                return;
        }
        w->state = WARD_IN_FORCE;
        sink->attached(w->subscription, NULL);
}

static void on_room_timer(struct mux_timer *timer);

static void set_room_timer(struct deputies *all) {
        if (all->room_timer.heap_index == 0)
                (void)mux_timer_set(all->mux, &all->room_timer, monotonic_nsec() + ROOM_MSEC * NSEC_PER_MSEC, on_room_timer);
}

/* Its list goes on as there is room. */
static void acknowledge(struct ward *w) {
        struct deputies *all = w->deputy->all;

        if (!all->source.context->sink->has_room(w->subscription)) {
                if (list_empty(&w->waiting))
                        list_append(&all->waiting, &w->waiting);
                set_room_timer(all);
                return;
        }
        list_remove(&w->waiting);
        order_ward(w, ORDER_TAKEN, w->n_taken);
        w->n_taken = 0;
}

static void on_room_timer(struct mux_timer *timer) {
        struct deputies *all = container_of(timer, struct deputies, room_timer);

        struct list *entry;

        for (int i = 0; i < ROOM_AT_ONCE && (entry = list_pop(&all->waiting)); i++)
                acknowledge(list_entry(entry, struct ward, waiting)); /* or puts it last */
        if (!list_empty(&all->waiting))
                set_room_timer(all);
}

static void on_report(struct ward *w, const struct word *word, const char *paths) {
        struct report report = REPORT_INIT;

        report.notes = word->notes;
        report.flags = word->report_flags;
        report.kind = (enum kev_kind)word->file_kind;
        report.data = word->data;
        report.count = word->count;
        report.realtime_usec = word->realtime_usec;
        if (word->has_below)
                report.below = (struct event_path){ paths, word->below_size };
        if (word->has_from)
                report.from_below = (struct event_path){ paths + word->below_size, word->from_size };
        w->is_listed |= (word->notes & KEV_NOTE_LISTED) != 0;
        source_report(w->subscription->source, w->subscription, &report);
        report_done(&report);
        if (report.flags & KEV_FLAG_EOF)
                w->state = WARD_ENDED;
        if (++w->n_taken >= DEPUTY_IN_FLIGHT / 4)
                acknowledge(w);
}

static void answer(struct ward *w, const struct word *word, const char *paths) {
        const struct sink *sink = w->deputy->all->source.context->sink;
        struct event_path a = { paths, word->below_size }, b = { paths + word->below_size, word->from_size };

        order_ward(w, ORDER_ANSWER,
                   word->kind == WORD_DESCENDS ? sink->descends(w->subscription, a) :
                                                 sink->sees_alike(w->subscription, a, b));
}

/* ---- words ------------------------------------------------------------------------------------------------ */

static void on_counts(struct deputy *d, const struct word *word) {
        struct source *source = &d->all->source;

        d->error = word->error;
        d->registrations = word->count;
        source->kernel_overflows += word->serial - d->overflows;
        source->context->kernel_overflows += word->serial - d->overflows;
        source->losses_repaired += word->notes - d->repaired;
        d->overflows = word->serial;
        d->repaired = word->notes;
}

static void on_message(struct channel *channel, const void *data, size_t size, int fd) {
        struct deputy *d = container_of(channel, struct deputy, channel);
        const struct word *word = data;
        const char *paths = (const char *)(word + 1);
        struct ward *w;

        (void)safe_close(fd);
        if (size < sizeof(*word) || size - sizeof(*word) != (size_t)word->below_size + word->from_size)
                return;
        if (word->kind == WORD_COUNTS) {
                on_counts(d, word);
                return;
        }
        if (word->kind == WORD_PAST) {
                d->n_past = MAX(d->n_past, word->serial);
                barriers_check(&d->all->barriers);
                return;
        }
        w = find_ward(d->all, word->id);
        if (!w || w->deputy != d) {
                struct order none = { .kind = ORDER_ANSWER };

                if (word->kind == WORD_DESCENDS || word->kind == WORD_ALIKE)
                        order(d, &none, NULL, -1);
                return;
        }
        if (word->kind == WORD_ATTACHED)
                on_attached(w, word, paths, word->below_size);
        else if (word->kind == WORD_REPORT)
                on_report(w, word, paths);
        else if (word->kind == WORD_DESCENDS || word->kind == WORD_ALIKE)
                answer(w, word, paths);
}

/* ---- deputies ---------------------------------------------------------------------------------------------- */

static void free_deputy(struct deputy *d) {
        helper_close(&d->helper);
        channel_close(&d->channel);
        list_remove(&d->link);
        identity_free(&d->identity);
        free(d);
}

/* It is not needed any more. A thread of it that a file system keeps waiting can't be ended (FUSE: once the server has
 * the request, not even by SIGKILL), and the process stays with it, of which a user could make any number: so it counts
 * as the user's until its end of the socket is closed. */
static void dismiss(struct deputy *d) {
        if (!d->is_there || shutdown(d->channel.io.fd, SHUT_WR) < 0) {
                free_deputy(d);
                return;
        }
        d->is_leaving = true;
        list_remove(&d->link);
        list_append(&d->all->leaving, &d->link);
}

static size_t count_of(const struct list *deputies, uid_t uid) {
        size_t n = 0;

        list_for_each(entry, deputies)
                n += list_entry(entry, struct deputy, link)->identity.uid == uid;
        return n;
}

static size_t count(const struct list *deputies) {
        size_t n = 0;

        list_for_each(entry, deputies)
                n++;
        return n;
}

static void lose(struct deputy *d) {
        channel_close(&d->channel);
        d->is_there = false;
        d->has_ended = d->is_lost = true;
        d->all->source.losses_repaired += d->overflows - d->repaired; /* its watches are made anew, and told so */
        d->registrations = d->overflows = d->repaired = 0;
        d->n_past = d->n_barriers;
        mux_defer(d->all->mux, &d->all->tidy);
}

static void on_end(struct channel *channel) {
        struct deputy *d = container_of(channel, struct deputy, channel);

        if (d->is_leaving) {
                free_deputy(d);
                return;
        }
        log_info("what watches files for user %u has ended", d->identity.uid);
        lose(d);
}

static void on_close(struct channel *channel, int fd) {
        close_passed(container_of(channel, struct deputy, channel), fd);
}

static void order_all(struct deputy *d) {
        list_for_each(entry, &d->wards) {
                struct ward *w = list_entry(entry, struct ward, link);

                if (w->state != WARD_ENDED)
                        order_attach(w);
        }
}

static void on_helper(struct helper *helper, int error, int fd) {
        struct deputy *d = container_of(helper, struct deputy, helper);
        int socket = -1;

        (void)safe_close(fd);
        if (error == 0)
                socket = helper_take_socket(helper);
        if (socket >= 0)
                error = -channel_open(&d->channel, d->all->mux, socket, on_message, on_end);
        if (error) {
                (void)safe_close(socket);
                d->error = error;
                lose(d);
                return;
        }
        d->channel.close_fd = on_close;
        d->is_there = true;
        order_all(d);
}

static int start(struct deputy *d) {
        int r = identity_start(&d->identity, d->all->source.context->broker, &d->helper, HELPER_DEPUTY, on_helper);

        if (r < 0)
                return r;
        d->has_ended = false;
        d->error = 0;
        return 0;
}

static struct deputy *find_deputy(const struct deputies *all, const struct asker *asker) {
        list_for_each(entry, &all->list)
                if (identity_is_of(&list_entry(entry, struct deputy, link)->identity, asker))
                        return list_entry(entry, struct deputy, link);
        return NULL;
}

/* For one that is needed. `uid`: of that user, or NULL. */
static bool end_idle(struct deputies *all, const uid_t *uid) {
        list_for_each(entry, &all->list) {
                struct deputy *d = list_entry(entry, struct deputy, link);

                if (!list_empty(&d->wards) || (uid && d->identity.uid != *uid))
                        continue;
                dismiss(d);
                return true;
        }
        return false;
}

static int get_deputy(struct deputies *all, const struct asker *asker, struct deputy **ret) {
        struct deputy *d = find_deputy(all, asker);
        size_t n = count(&all->list), n_of_user = count_of(&all->list, asker->uid);
        int r;

        if (d) {
                *ret = d;
                if (!d->has_ended || d->is_lost)
                        return 0;
                d->identity.n_restarts = 0;
                return start(d);
        }
        if (count_of(&all->leaving, asker->uid) >= DEPUTIES_OF_USER_MAX || count(&all->leaving) >= DEPUTIES_MAX ||
            (n_of_user >= DEPUTIES_OF_USER_MAX && !end_idle(all, &asker->uid)) ||
            (n >= DEPUTIES_MAX && n_of_user < DEPUTIES_OF_USER_MAX && !end_idle(all, NULL)))
                return -EDQUOT;
        d = calloc(1, sizeof(*d));
        r = d ? identity_copy(&d->identity, asker) : -ENOMEM;
        if (r < 0) {
                free(d);
                return r;
        }
        d->all = all;
        list_init(&d->link);
        list_init(&d->wards);
        r = start(d);
        if (r < 0) {
                free_deputy(d);
                return r;
        }
        list_append(&all->list, &d->link);
        *ret = d;
        return 0;
}

/* Detaches it, and what else depends on it. */
static void refuse_ward(struct ward *w, int error) {
        struct refusal refusal;

        (void)refuse(&refusal, error, error == EMFILE ? "path: the limit fs.inotify.max_user_instances is reached" :
                                                        "path: what watches files for you can't be started: %s",
                     strerror(error));
        w->deputy->all->source.context->sink->attached(w->subscription, &refusal);
}

typedef void ward_fn(struct ward *w);

/* For each in this state. What is done may end it, and others. */
static void for_wards(struct deputy *d, enum ward_state state, ward_fn *fn) {
        struct list all;
        struct list *entry;

        list_init(&all);
        list_splice(&all, &d->wards);
        while ((entry = list_pop(&all))) {
                struct ward *w = list_entry(entry, struct ward, link);

                list_append(&d->wards, &w->link);
                if (w->state == state)
                        fn(w);
        }
}

static void refuse_start(struct ward *w) {
        refuse_ward(w, w->deputy->error ? w->deputy->error : EAGAIN);
}

/* It is ordered from the next deputy. */
static void begin_return(struct ward *w) {
        w->order.flags &= ~(uint32_t)ORDER_SECOND_CHOICE;
        w->order.flags |= ORDER_LISTED;
        if (w->path) {
                w->state = WARD_RETURNING;
                tell_self(w, KEV_NOTE_DEGRADED, 0);
        } else
                end_ward(w);
}

/* It has ended: those that were in force are ordered from another, and those under way refused. */
static void replace(struct deputy *d) {
        bool again = d->error == 0 && identity_may_restart(&d->identity, RESTARTS_MAX), returning = false;

        d->is_lost = false;
        helper_close(&d->helper);
        for_wards(d, WARD_STARTING, refuse_start);
        for_wards(d, WARD_IN_FORCE, again ? begin_return : end_ward);
        if (!again)
                for_wards(d, WARD_RETURNING, end_ward);
        list_for_each(entry, &d->wards)
                returning |= list_entry(entry, struct ward, link)->state == WARD_RETURNING;
        if (returning && start(d) < 0)
                for_wards(d, WARD_RETURNING, end_ward);
}

static void on_idle_timer(struct mux_timer *timer);

/* One that has nothing to do stays for a while. The kernel is slow to forget what it has held, of which a user has a
 * few only: with one for each watch that comes and goes there would soon be none. */
static void on_tidy(struct mux_deferred *deferred) {
        struct deputies *all = container_of(deferred, struct deputies, tidy);
        uint64_t now = monotonic_nsec(), next = UINT64_MAX;

        list_for_each(entry, &all->list) {
                struct deputy *d = list_entry(entry, struct deputy, link);

                if (d->is_lost)
                        replace(d);
                if (!list_empty(&d->wards))
                        d->idle_nsec = 0;
                else if (d->idle_nsec == 0)
                        d->idle_nsec = now;
                if (d->idle_nsec && d->has_ended)
                        free_deputy(d);
                else if (d->idle_nsec && d->idle_nsec + IDLE_NSEC <= now)
                        dismiss(d);
                else if (d->idle_nsec)
                        next = MIN(next, d->idle_nsec + IDLE_NSEC);
        }
        if (next != UINT64_MAX)
                (void)mux_timer_set(all->mux, &all->idle_timer, next, on_idle_timer);
        barriers_check(&all->barriers);
}

static void on_idle_timer(struct mux_timer *timer) {
        struct deputies *all = container_of(timer, struct deputies, idle_timer);

        mux_defer(all->mux, &all->tidy);
}

/* ---- the source ---------------------------------------------------------------------------------------------- */

static void free_ward(struct ward *w) {
        struct deputies *all = w->deputy->all;

        hash_remove(&all->wards, &w->node);
        list_remove(&w->link);
        list_remove(&w->waiting);
        close_passed(w->deputy, take_fd(&w->fd));
        free(w->path);
        free(w);
        mux_defer(all->mux, &all->tidy);
}

static int deputies_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                           struct refusal *refusal) {
        struct deputies *all = container_of(source, struct deputies, source);
        struct deputy *d = NULL;
        struct ward *w;
        int r;

        if (subject->exclude_self || subject->notes & KEV_NOTE_WHO)
                return refuse_self_and_who(subject, refusal);
        if (workers_are_stuck(source->context->workers, subject->asker->uid))
                return refuse(refusal, EDQUOT, "path: all of your look-ups wait for file systems that don't answer");
        r = get_deputy(all, subject->asker, &d);
        if (r < 0)
                return refuse(refusal, -r, "path: what watches files for you can't be started: %s", strerror(-r));
        if (subject->fd >= 0 && (workers_are_full_of_fds(source->context->workers, subject->asker->uid) ||
                                 d->channel.n_unsent_fds > UNSENT_FDS_MAX))
                return refuse(refusal, EDQUOT, "descriptor: too many of yours are still looked at");
        if (d->is_there && d->channel.unsent_bytes > BEHIND_MAX)
                return refuse(refusal, EDQUOT, "path: what watches files for you has too much to do");
        w = calloc(1, sizeof(*w));
        if (!w)
                return refuse(refusal, ENOMEM, "no memory");
        list_init(&w->waiting);
        list_init(&w->link);
        w->deputy = d;
        w->subscription = subscription;
        w->id = ++all->last_id;
        w->fd = -1;
        w->list = subject->list;
        w->is_listed = subject->listed;
        w->order = (struct order){
                .kind = ORDER_ATTACH, .id = w->id, .notes = subject->notes, .filter = subject->filter,
                .flags = (subject->waits ? ORDER_WAITS : 0u) | (subject->list ? ORDER_LIST : 0u) |
                         (subject->listed ? ORDER_LISTED : 0u) |
                         (subject->second_choice ? ORDER_SECOND_CHOICE : 0u) |
                         (subject->asker->other_mounts ? ORDER_OTHER_MOUNTS : 0u),
        };
        if (subject->fd >= 0)
                w->fd = fcntl(subject->fd, F_DUPFD_CLOEXEC, 3);
        else
                w->path = strdup(subject->path);
        r = subject->fd >= 0 ? (w->fd < 0 ? -errno : 0) : (w->path ? 0 : -ENOMEM);
        if (r == 0)
                r = hash_add(&all->wards, &w->node, hash_u64(w->id));
        if (r < 0) {
                free_ward(w);
                return refuse(refusal, -r, "%s: %s", subject->fd >= 0 ? "descriptor" : "path", strerror(-r));
        }
        list_append(&d->wards, &w->link);
        subscription->object = w;
        if (d->is_there)
                order_attach(w);
        return 1;
}

static int deputies_modify(struct source *source _unused_, struct subscription *subscription,
                           const struct subject *subject, struct refusal *refusal) {
        const uint64_t late = KEV_NOTE_OPEN | KEV_NOTE_CLOSE | KEV_NOTE_READ;
        struct ward *w = subscription->object;

        if (subject->list && !w->list)
                return refuse_later(refusal, "tree.list");
        if (subject->cross_mounts)
                return refuse_later(refusal, "tree.crossMounts");
        if (subject->exclude_self || subject->notes & KEV_NOTE_WHO)
                return refuse_self_and_who(subject, refusal);
        if (w->order.filter == KEV_FILTER_VNODE && subject->notes & late & ~w->order.notes)
                return refuse(refusal, EOPNOTSUPP, "notes: open, close and read can't be added later; "
                                                   "remove the watch and add another");
        w->order.notes = subject->notes;
        w->order.flags = (w->order.flags & ~(uint32_t)ORDER_SELECTIVE) |
                         (subscription->selective ? ORDER_SELECTIVE : 0);
        order_ward(w, ORDER_MODIFY, 0);
        return 0;
}

static void deputies_select(struct source *source _unused_, struct subscription *subscription) {
        struct ward *w = subscription->object;

        w->order.flags = (w->order.flags & ~(uint32_t)ORDER_SELECTIVE) |
                         (subscription->selective ? ORDER_SELECTIVE : 0);
        order_ward(w, ORDER_MODIFY, 0);
        order_ward(w, ORDER_SELECT, 0);
}

static void deputies_detach(struct source *source _unused_, struct subscription *subscription) {
        struct ward *w = take_pointer(&subscription->object);

        order_ward(w, ORDER_DETACH, 0);
        free_ward(w);
}

static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        const struct deputies *all = container_of(barriers, struct deputies, barriers);
        const struct deputy *d = find_deputy(all, barrier->asker);

        return !d || d->n_past >= barrier->position;
}

static bool deputies_barrier(struct source *source, struct source_barrier *barrier) {
        struct deputies *all = container_of(source, struct deputies, source);
        struct deputy *d = find_deputy(all, barrier->asker);
        struct order o = { .kind = ORDER_BARRIER };

        if (!d || !d->is_there)
                return false;
        o.serial = ++d->n_barriers;
        order(d, &o, NULL, -1);
        return barriers_add(&all->barriers, barrier, d->n_barriers);
}

static int deputies_open(struct source_context *context, struct source **ret_source) {
        struct deputies *all;

        if (!context->broker)
                return -EOPNOTSUPP;
        all = calloc(1, sizeof(*all));
        if (!all)
                return -ENOMEM;
        all->mux = context->mux;
        list_init(&all->list);
        list_init(&all->leaving);
        list_init(&all->waiting);
        barriers_init(&all->barriers, all->mux, is_past);
        mux_deferred_init(&all->tidy, on_tidy);
        *ret_source = &all->source;
        return 0;
}

static void deputies_close(struct source *source) {
        struct deputies *all = container_of(source, struct deputies, source);

        while (!list_empty(&all->list))
                free_deputy(list_entry(all->list.next, struct deputy, link));
        while (!list_empty(&all->leaving))
                free_deputy(list_entry(all->leaving.next, struct deputy, link));
        hash_free(&all->wards);
        barriers_close(&all->barriers);
        mux_timer_clear(all->mux, &all->room_timer);
        mux_timer_clear(all->mux, &all->idle_timer);
        mux_deferred_cancel(&all->tidy);
        free(all);
}

static uint64_t deputies_registrations(const struct source *source) {
        const struct deputies *all = container_of(source, const struct deputies, source);
        uint64_t n = 0;

        list_for_each(entry, &all->list)
                n += list_entry(entry, const struct deputy, link)->registrations;
        return n;
}

static const char *deputies_mechanism(const struct source *source _unused_) {
        return "inotify";
}

const struct source_class source_deputies = {
        .name = "deputies",
        .filters = 1u << KEV_FILTER_VNODE | 1u << KEV_FILTER_TREE,
        .open = deputies_open,
        .close = deputies_close,
        .attach = deputies_attach,
        .modify = deputies_modify,
        .select = deputies_select,
        .detach = deputies_detach,
        .barrier = deputies_barrier,
        .registrations = deputies_registrations,
        .mechanism = deputies_mechanism,
};
