/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The deputy: the inotify source, for one user, whose sink is at the other end of a socket. */

#include "deputy.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#include "channel.h"
#include "close_elsewhere.h"
#include "hash.h"
#include "log.h"
#include "source.h"
#include "workers.h"

enum { UNSENT_MAX = 16 * 1024 * 1024 }; /* then what is told is that all is to be looked at again */

struct ward { /* a watch that the daemon has ordered */
        struct subscription subscription;
        struct hash_node node; /* by id */
        uint64_t id;
        size_t in_flight;
        bool behind;   /* it has missed something: a rescan is to be told, */
        bool degraded; /* and that part of it can't be watched */
        bool attached;
};

struct waiting_order {
        struct list link;
        int fd;
        struct order order;
        char path[];
};

static struct deputy {
        struct mux *mux;
        struct channel channel;
        struct source_context context;
        struct source *source;
        struct asker asker;
        struct hash wards;
        struct list orders;
        struct mux_deferred run_orders;
        size_t n_behind;
        bool is_answered, answer; /* to the question under way */
        uint64_t registrations, overflows, repaired; /* as they were told last */
} deputy;

static struct ward *find_ward(uint64_t id) {
        if (deputy.wards.n_nodes == 0)
                return NULL;
        for (struct hash_node *n = hash_first(&deputy.wards, hash_u64(id)); n; n = hash_next(n))
                if (container_of(n, struct ward, node)->id == id)
                        return container_of(n, struct ward, node);
        return NULL;
}

/* ---- words ------------------------------------------------------------------------------------------ */

static int say(const struct word *word, struct event_path below, struct event_path from) {
        struct iovec parts[] = {
                { .iov_base = (void *)word, .iov_len = sizeof(*word) },
                { .iov_base = (void *)below.bytes, .iov_len = below.size },
                { .iov_base = (void *)from.bytes, .iov_len = from.size },
        };

        return channel_send(&deputy.channel, parts, ARRAY_SIZE(parts), -1);
}

static void fall_behind(struct ward *ward, const struct report *report) {
        deputy.n_behind += !ward->behind;
        ward->behind = true;
        ward->degraded |= (report->notes & KEV_NOTE_DEGRADED) != 0;
}

static void on_report(struct subscription *subscription, struct report *report) {
        struct ward *ward = container_of(subscription, struct ward, subscription);
        struct word word = {
                .kind = WORD_REPORT, .id = ward->id, .notes = report->notes, .report_flags = report->flags,
                .file_kind = report->kind, .data = report->data, .count = report->count,
                .realtime_usec = report->realtime_usec,
                .has_below = report->below.bytes != NULL, .has_from = report->from_below.bytes != NULL,
                .below_size = (uint32_t)report->below.size, .from_size = (uint32_t)report->from_below.size,
        };

        /* What begins or ends something can't be told by a rescan. */
        bool must = report->flags & KEV_FLAG_EOF ||
                    report->notes & (KEV_NOTE_GONE | KEV_NOTE_BACK | KEV_NOTE_LISTED);
        int r = must || deputy.channel.unsent_bytes <= UNSENT_MAX ? say(&word, report->below, report->from_below) :
                                                                    -EAGAIN;

        if (r == 0)
                ward->in_flight++;
        else if (must)
                _exit(EXIT_FAILURE); /* no memory: the daemon begins anew with another */
        else
                fall_behind(ward, report);
}

static void on_attached(struct subscription *subscription, const struct refusal *refusal) {
        struct ward *ward = container_of(subscription, struct ward, subscription);
        struct word word = { .kind = WORD_ATTACHED, .id = ward->id, .error = refusal ? refusal->error : 0 };
        struct event_path message = { 0 };

        if (refusal) {
                message = (struct event_path){ refusal->message, strlen(refusal->message) };
                word.below_size = (uint32_t)message.size;
        }
        ward->attached = !refusal;
        if (say(&word, message, (struct event_path){ 0 }) < 0)
                _exit(EXIT_FAILURE); /* no memory: the daemon begins anew with another */
        if (refusal)
                source_detach(subscription);
}

/* The daemon never waits for a deputy, so that the deputy may wait for it. */
static bool ask(enum word_kind kind, const struct subscription *subscription, struct event_path a,
                struct event_path b) {
        struct word word = {
                .kind = kind, .id = container_of(subscription, const struct ward, subscription)->id,
                .below_size = (uint32_t)a.size, .from_size = (uint32_t)b.size,
        };

        if (say(&word, a, b) < 0)
                return true;
        for (deputy.is_answered = false; !deputy.is_answered;)
                channel_wait(&deputy.channel);
        return deputy.answer;
}

static bool descends(const struct subscription *subscription, struct event_path directory) {
        return ask(WORD_DESCENDS, subscription, directory, (struct event_path){ 0 });
}

static bool sees_alike(const struct subscription *subscription, struct event_path a, struct event_path b) {
        return ask(WORD_ALIKE, subscription, a, b);
}

static bool has_room(const struct subscription *subscription) {
        return container_of(subscription, const struct ward, subscription)->in_flight < DEPUTY_IN_FLIGHT;
}

static const struct sink sink = {
        .report = on_report,
        .attached = on_attached,
        .descends = descends,
        .sees_alike = sees_alike,
        .has_room = has_room,
};

/* ---- orders ----------------------------------------------------------------------------------------- */

static void on_attach(struct waiting_order *w) {
        const struct order *o = &w->order;
        struct subject subject = {
                .filter = (enum kev_filter)o->filter, .notes = o->notes, .path = w->fd < 0 ? w->path : NULL,
                .fd = w->fd, .pid = ABSENT, .data = ABSENT,
                .waits = o->flags & ORDER_WAITS, .list = o->flags & ORDER_LIST, .listed = o->flags & ORDER_LISTED,
                .second_choice = o->flags & ORDER_SECOND_CHOICE, .asker = &deputy.asker,
        };
        struct ward *ward = calloc(1, sizeof(*ward));
        struct refusal refusal;
        int r;

        if (!ward || hash_add(&deputy.wards, &ward->node, hash_u64(o->id)) < 0)
                _exit(EXIT_FAILURE);
        ward->id = o->id;
        list_init(&ward->subscription.link);
        ward->subscription.source = deputy.source;
        ward->subscription.notes = o->notes;
        ward->subscription.selective = o->flags & ORDER_SELECTIVE;
        deputy.asker.other_mounts = o->flags & ORDER_OTHER_MOUNTS;
        r = source_inotify.attach(deputy.source, &ward->subscription, &subject, &refusal);
        if (r < 0) {
                ward->subscription.source = NULL;
                on_attached(&ward->subscription, &refusal);
                return;
        }
        deputy.source->n_subscriptions++;
        if (r == 0)
                on_attached(&ward->subscription, NULL);
}

static void on_modify(struct ward *ward, const struct order *o) {
        struct subject subject = { .filter = (enum kev_filter)o->filter, .notes = o->notes, .fd = -1, .pid = ABSENT,
                                   .data = ABSENT, .asker = &deputy.asker };
        struct refusal refusal;

        ward->subscription.selective = o->flags & ORDER_SELECTIVE;
        /* The daemon has looked whether it can be. */
        (void)source_modify(&ward->subscription, &subject, &refusal);
}

static void on_detach(struct ward *ward) {
        source_detach(&ward->subscription);
        deputy.n_behind -= ward->behind;
        hash_remove(&deputy.wards, &ward->node);
        free(ward);
}

struct ordered_barrier {
        struct source_barrier barrier;
        uint64_t serial;
};

static void on_past(struct source_barrier *barrier) {
        struct ordered_barrier *b = container_of(barrier, struct ordered_barrier, barrier);
        struct word word = { .kind = WORD_PAST, .serial = b->serial };

        (void)say(&word, (struct event_path){ 0 }, (struct event_path){ 0 });
        free(b);
}

static void on_barrier(const struct order *o) {
        struct ordered_barrier *b = calloc(1, sizeof(*b));

        if (!b)
                return; /* the daemon gives up after a while */
        b->serial = o->serial;
        b->barrier.fn = on_past;
        b->barrier.asker = &deputy.asker;
        list_init(&b->barrier.link);
        if (!source_inotify.barrier(deputy.source, &b->barrier))
                on_past(&b->barrier);
}

static void handle_order(struct waiting_order *w) {
        const struct order *o = &w->order;
        struct ward *ward = find_ward(o->id);

        if (o->kind == ORDER_ATTACH)
                on_attach(w);
        else if (o->kind == ORDER_BARRIER)
                on_barrier(o);
        else if (!ward)
                return;
        else if (o->kind == ORDER_MODIFY)
                on_modify(ward, o);
        else if (o->kind == ORDER_SELECT)
                source_select(&ward->subscription);
        else if (o->kind == ORDER_DETACH)
                on_detach(ward);
        else if (o->kind == ORDER_TAKEN)
                ward->in_flight -= MIN(ward->in_flight, o->serial);
}

/* Not where they are received: that may be in the middle of an event. */
static void on_run_orders(struct mux_deferred *deferred _unused_) {
        struct list *entry;

        while ((entry = list_pop(&deputy.orders))) {
                struct waiting_order *w = list_entry(entry, struct waiting_order, link);

                handle_order(w);
                close_elsewhere(deputy.context.workers, deputy.asker.uid, w->fd);
                free(w);
        }
}

static void on_message(struct channel *channel _unused_, const void *data, size_t size, int fd) {
        const struct order *o = data;
        struct waiting_order *w;

        if (size < sizeof(*o) || size != sizeof(*o) + o->path_size)
                _exit(EXIT_FAILURE);
        if (o->kind == ORDER_ANSWER) {
                deputy.is_answered = true;
                deputy.answer = o->serial != 0;
                return;
        }
        w = malloc(sizeof(*w) + o->path_size + 1);
        if (!w)
                _exit(EXIT_FAILURE);
        w->fd = fd;
        memcpy(&w->order, o, size);
        w->path[o->path_size] = 0;
        list_init(&w->link);
        list_append(&deputy.orders, &w->link);
        mux_defer(deputy.mux, &deputy.run_orders);
}

static void on_end(struct channel *channel _unused_) {
        _exit(0);
}

/* ---- the process ------------------------------------------------------------------------------------- */

static void tell_behind(void) {
        struct report report = REPORT_INIT;

        report.kind = KEV_KIND_DIRECTORY;
        report.below = (struct event_path){ "", 0 };
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        hash_for_each(node, &deputy.wards) {
                struct ward *ward = container_of(node, struct ward, node);

                if (!ward->behind)
                        continue;
                report.notes = KEV_NOTE_RESCAN | (ward->degraded ? KEV_NOTE_DEGRADED : 0);
                ward->behind = ward->degraded = false;
                deputy.n_behind--;
                on_report(&ward->subscription, &report);
        }
}

static void tell_counts(void) {
        struct word word = {
                .kind = WORD_COUNTS, .count = source_inotify.registrations(deputy.source),
                .serial = deputy.source->kernel_overflows, .notes = deputy.source->losses_repaired,
        };

        if (word.count == deputy.registrations && word.serial == deputy.overflows && word.notes == deputy.repaired)
                return;
        deputy.registrations = word.count;
        deputy.overflows = word.serial;
        deputy.repaired = word.notes;
        (void)say(&word, (struct event_path){ 0 }, (struct event_path){ 0 });
}

static int open_all(int socket) {
        struct workers *workers;
        int r = mux_open(NULL, &deputy.mux);

        if (r == 0)
                r = workers_new(deputy.mux, &workers);
        if (r < 0)
                return r;
        deputy.asker = (struct asker){ .uid = geteuid(), .gid = getegid() };
        deputy.context = (struct source_context){
                .mux = deputy.mux, .workers = workers, .sink = &sink, .uid = geteuid(), .revokes = true,
        };
        list_init(&deputy.orders);
        mux_deferred_init(&deputy.run_orders, on_run_orders);
        r = source_inotify.open(&deputy.context, &deputy.source);
        if (r < 0)
                return r;
        deputy.source->class = &source_inotify;
        deputy.source->context = &deputy.context;
        return channel_open(&deputy.channel, deputy.mux, socket, on_message, on_end);
}

void deputy_run(int socket) {
        int r;

        (void)prctl(PR_SET_NAME, "kevd-deputy", 0, 0, 0);
        r = open_all(socket);
        if (r < 0) {
                struct word word = { .kind = WORD_COUNTS, .error = -r };

                (void)send(socket, &word, sizeof(word), MSG_NOSIGNAL);
                _exit(EXIT_FAILURE);
        }
        while (mux_wait(deputy.mux, -1) == 0) {
                if (deputy.n_behind > 0 && list_empty(&deputy.channel.unsent))
                        tell_behind();
                tell_counts();
        }
        _exit(EXIT_FAILURE);
}
