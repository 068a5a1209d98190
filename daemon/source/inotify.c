/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inotify.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

#include "tree_report.h"

enum {
        CHUNK_BYTES = 64 * 1024,
        BACKLOG_MAX = 64 * 1024 * 1024, /* with what waits for it; then the kernel's queue may overflow */
        EVENTS_A_TURN = 1024,
        TRASH_A_TURN = 64,
        REPAIR_LATE_MSEC = 1000,
};

struct chunk {
        struct list link;
        size_t size, position;
        char data[CHUNK_BYTES] __attribute__((aligned(8)));
};

/* ---- handling one event ------------------------------------------------------------------------ */

static void on_ignored(struct inotify *s, struct mark *mark) {
        mark->dying = true; /* nothing to be removed from the kernel */
        moves_out_of(s, mark);
        while (mark->dirs) {
                struct dir *d = mark->dirs;

                mark->dirs = d->next_on_mark;
                d->next_on_mark = NULL;
                d->mark = NULL;
                d->mount = 0;
                tree_on_unmarked(s, d);
        }
        if (mark->vnode)
                vnode_on_unmarked(mark);
        if (!mark->is_ghost)
                wait_on_unmarked(s, mark);
        tree_retry_soon(s);
        mark_make_ghost(s, mark);
}

static void on_entry(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t now) {
        /* A directory is locked while an entry changes: a move out of it whose
         * second half has not come by now went elsewhere. */
        if (event->mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO))
                moves_out_before(s, mark, event);
        exchange_on_entry(s, mark, event->mask, event->name);
        if (event->mask & (IN_CREATE | IN_MOVED_TO))
                wait_on_entry(s, mark, event->name);
        if (event->mask & IN_MOVED_FROM)
                move_on_from(s, mark, event, now);
        if (event->mask & IN_MOVED_TO)
                move_on_to(s, mark, event, now);
        if (event->mask & (IN_MOVED_FROM | IN_MOVED_TO))
                return;
        if (event->mask & (IN_CREATE | IN_DELETE)) {
                mark->arrival = (struct arrival){ 0 };
                mark->is_fresh = false;
        }
        for (struct dir *d = mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                tree_on_entry(s, d, event->mask, event->name, now);
        }
        if (mark->vnode)
                vnode_on_event(s, mark, event->mask, true, now);
}

static void on_self(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t now) {
        if (event->mask & IN_MOVE_SELF)
                moves_out_self(s, mark);
        wait_on_self(s, mark);
        for (struct dir *d = mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                tree_on_self(s, d, event->mask, now);
        }
        if (mark->vnode)
                vnode_on_event(s, mark, event->mask, false, now);
}

/* False: it has to wait for an answer. */
static bool handle(struct inotify *s, const struct inotify_event *event, uint64_t now) {
        struct mark *mark;

        marks_bury(s);
        if (event->mask & IN_Q_OVERFLOW) {
                /* Their second halves are lost, and what is found from here on is younger than they. */
                moves_out_all(s);
                source_on_loss(&s->source, &s->losses);
                inotify_doubt(s);
                return true;
        }
        if (!answers_find_mark(s, event, &mark))
                return false;
        if (!mark)
                return true;
        if (event->mask & IN_IGNORED)
                on_ignored(s, mark);
        else if (mark->dying)
                return true;
        else if (event->len > 0)
                on_entry(s, mark, event, now);
        else
                on_self(s, mark, event, now);
        return true;
}

/* ---- reading ------------------------------------------------------------------------------------- */

static struct chunk *take_chunk(struct inotify *s) {
        struct chunk *chunk = take_pointer(&s->spare);

        if (!chunk)
                chunk = malloc(sizeof(*chunk));
        if (chunk)
                chunk->size = chunk->position = 0;
        return chunk;
}

static void give_chunk(struct inotify *s, struct chunk *chunk) {
        if (s->spare)
                free(chunk);
        else
                s->spare = chunk;
}

/* All that is queued in the kernel, as far as the backlog has room. */
static void read_kernel(struct inotify *s) {
        int queued = 0; /* inotify(7), FIONREAD: bytes */

        s->drained = false;
        while (s->backlog == 0 || s->backlog + s->answer_bytes < BACKLOG_MAX) {
                struct chunk *chunk = take_chunk(s);
                ssize_t n;

                if (!chunk) { /* the kernel's queue holds what it can, but answers wait for what is in it */
                        mux_defer(s->mux, &s->go_on);
                        return;
                }
                n = read(s->fd, chunk->data, sizeof(chunk->data));
                if (n <= 0) {
                        give_chunk(s, chunk);
                        s->drained = true;
                        break;
                }
                chunk->size = (size_t)n;
                list_append(&s->chunks, &chunk->link);
                s->backlog += (size_t)n;
                s->bytes_read += (uint64_t)n;
                if ((size_t)n < CHUNK_BYTES / 2) { /* there was no more */
                        s->drained = true;
                        break;
                }
        }
        if (s->drained)
                s->drained_tick = ++s->tick;
        if (s->drained || ioctl(s->fd, FIONREAD, &queued) == 0)
                answers_place(s, s->bytes_read + (uint64_t)queued);
}

const struct inotify_event *inotify_first_event(const char *data, size_t size) {
        const struct inotify_event *event = (const void *)data;

        if (size < sizeof(*event) || event->len > size - sizeof(*event) ||
            (event->len > 0 && !memchr(event->name, 0, event->len)))
                return NULL;
        return event;
}

bool inotify_has_handled(const struct inotify *s, uint64_t position) {
        return s->bytes_handled >= position &&
               (list_empty(&s->moves) || list_entry(s->moves.next, struct move, link)->position >= position);
}

static void on_move_timer(struct mux_timer *timer);

/* Whether the questions up to that one are answered. Lists go on as fast as they are taken, and a file that is new
 * to us has lost nothing. */
static bool is_answered(const struct inotify *s, uint64_t serial) {
        list_for_each(entry, &s->lookups) {
                const struct lookup *lookup = list_entry(entry, struct lookup, link);

                if (lookup->serial <= serial && lookup->kind != LOOKUP_VNODE && lookup->kind != LOOKUP_LIST)
                        return false;
        }
        return true;
}

void inotify_doubt(struct inotify *s) {
        if (s->in_doubt)
                return;
        s->in_doubt = true;
        s->doubt_position = s->bytes_read;
        mux_defer(s->mux, &s->go_on);
}

/* While more is lost than can be looked at, no look ends: then who watches is told as much, time and again. */
static void begin_repair(struct inotify *s) {
        uint64_t now = monotonic_nsec();
        bool late = s->under_repair && now - s->repair_since > REPAIR_LATE_MSEC * NSEC_PER_MSEC;

        s->in_doubt = false;
        if (!s->under_repair || late)
                s->repair_since = now;
        s->under_repair = true;
        list_doubt(s);
        tree_recheck_all(s, late);
        vnode_recheck_all(s);
        wait_look_all(s);
        losses_begin_repair(&s->losses);
        s->repair_serial = s->serial;
}

/* What everything that was handled leads to. */
static void after_handling(struct inotify *s) {
        if (list_empty(&s->chunks) && s->drained) {
                if (s->drained_tick > s->listed_tick)
                        names_forget_listed(s);
                if (!list_empty(&s->moves) && s->move_timer.heap_index == 0)
                        (void)mux_timer_set(s->mux, &s->move_timer,
                                            list_entry(s->moves.next, struct move, link)->deadline_nsec, on_move_timer);
        }
        answers_handle(s);
        if (s->in_doubt && s->bytes_handled >= s->doubt_position)
                begin_repair(s);
        if (s->under_repair && is_answered(s, s->repair_serial)) {
                s->under_repair = false;
                source_on_repaired(&s->source, &s->losses);
        }
        barriers_check(&s->barriers);
}

static void handle_some(struct inotify *s) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;
        struct source_turn turn = source_begin_turn(&s->source);
        unsigned budget = EVENTS_A_TURN;

        while (!list_empty(&s->chunks)) {
                struct chunk *chunk = list_entry(s->chunks.next, struct chunk, link);

                while (chunk->position < chunk->size) {
                        size_t size = chunk->size - chunk->position;
                        const struct inotify_event *event = inotify_first_event(chunk->data + chunk->position, size);

                        if (event)
                                size = sizeof(*event) + event->len;
                        else /* as if the kernel had dropped the rest */
                                inotify_doubt(s);
                        if (budget-- == 0 || source_has_told_enough(&s->source, &turn)) {
                                mux_defer(s->mux, &s->go_on);
                                return;
                        }
                        if (answers_are_behind(s) || (event && !handle(s, event, now)))
                                return;
                        chunk->position += size;
                        s->bytes_handled += size;
                }
                s->backlog -= chunk->size;
                list_remove(&chunk->link);
                give_chunk(s, chunk);
        }
}

static void take_turn(struct inotify *s) {
        read_kernel(s);
        handle_some(s);
        after_handling(s);
}

static void on_readable(struct mux_io *io, unsigned events _unused_) {
        take_turn(container_of(io, struct inotify, io));
}

static void on_go_on(struct mux_deferred *deferred) {
        take_turn(container_of(deferred, struct inotify, go_on));
}

static void on_move_timer(struct mux_timer *timer) {
        struct inotify *s = container_of(timer, struct inotify, move_timer);

        read_kernel(s);
        handle_some(s);
        if (list_empty(&s->chunks))
                moves_out_late(s);
        after_handling(s);
}

static void on_messages(struct mailbox *mailbox) {
        struct inotify *s = container_of(mailbox, struct inotify, mailbox);

        answers_take(s);
        mux_timer_clear(s->mux, &s->awaited_timer);
        take_turn(s);
}

/* ---- barriers ------------------------------------------------------------------------------------------ */

/* Whether its answer may be an event for a watch of the asker that is in force. */
static bool concerns(const struct inotify *s, const struct lookup *lookup, const struct asker *asker) {
        const struct mark *mark;

        switch (lookup->kind) {
        case LOOKUP_VNODE:
        case LOOKUP_LIST: /* as fast as it is taken: nobody waits for its end */
                return false;
        case LOOKUP_RESOLVE:
                return lookup->watch && lookup->watch->state == WATCH_WAITING && lookup->watch->asker == asker;
        case LOOKUP_PLACE:
                return lookup->watch && lookup->watch->asker == asker;
        case LOOKUP_ACCESS:
                return tree_is_watched_by(s, lookup->root, asker);
        case LOOKUP_NAME:
                return tree_is_watched_by(s, lookup->root, asker) || tree_is_watched_by(s, lookup->stop, asker) ||
                       tree_is_watched_by(s, lookup->moved, asker);
        case LOOKUP_CRAWL:
                return (lookup->purpose != PURPOSE_INITIAL || lookup->doubted) &&
                       tree_is_watched_by(s, lookup->root, asker);
        case LOOKUP_STAT:
                mark = mark_find(s, lookup->watched_wd);
                return mark && mark->vnode && vnode_is_watched_by(mark, asker);
        }
        return false;
}

static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        struct inotify *s = container_of(barriers, struct inotify, barriers);

        if (!inotify_has_handled(s, barrier->position) || (s->in_doubt && barrier->serial == 0))
                return false;
        if (barrier->serial == 0)
                barrier->serial = s->serial; /* what the events up to here have asked */
        list_for_each(entry, &s->lookups) {
                const struct lookup *lookup = list_entry(entry, struct lookup, link);

                if (lookup->serial <= barrier->serial && concerns(s, lookup, barrier->asker))
                        return false;
        }
        if (barrier->crowds == 0)
                barrier->crowds = crowds_mark(&s->crowds); /* what the answers were told as, too */
        return crowds_have_told(&s->crowds, barrier->asker->uid, barrier->crowds);
}

static void on_crowds_told(struct crowds *crowds) {
        barriers_check(&container_of(crowds, struct inotify, crowds)->barriers);
}

static bool inotify_barrier(struct source *source, struct source_barrier *barrier) {
        struct inotify *s = container_of(source, struct inotify, source);

        take_turn(s);
        return barriers_add(&s->barriers, barrier, s->bytes_read);
}

/* ---- attach ------------------------------------------------------------------------------------------------ */

void watch_attached(struct inotify *s, struct file_watch *watch, int error, const char *message) {
        struct refusal refusal;

        if (watch->returning) {
                wait_on_started(s, watch, error);
                return;
        }
        if (error == 0) {
                watch->state = WATCH_IN_FORCE;
                crowd_begin(&s->crowds, watch);
                if (watch->again) { /* a mount has come or gone meanwhile */
                        watch->again = false;
                        tree_check_place(s, watch);
                }
                s->source.context->sink->attached(watch->subscription, NULL);
                if (watch->second_choice) /* it is served by less than the daemon has for others */
                        tree_tell_self(watch, KEV_NOTE_DEGRADED);
                if (watch->list && !watch->was_listed)
                        job_start(&s->lister, watch->dir, NULL, watch);
                return;
        }
        (void)refuse(&refusal, error, "%s", message);
        s->source.context->sink->attached(watch->subscription, &refusal);
}

/* What a user other than the daemon's own could see by itself is not to be told from here: it has a deputy, where
 * there can be one. */
static int check_asker(const struct inotify *s, const struct subject *subject, struct refusal *refusal) {
        const struct asker *asker = subject->asker;

        if (asker->uid != 0 && asker->uid != s->source.context->uid)
                return refuse(refusal, EOPNOTSUPP, "%s: this daemon runs as another user, and can't tell which files "
                                                   "you may see; ask one of your own (address user or private)",
                              subject->path ? "path" : "descriptor");
        return check_mounts(subject, refusal);
}

static void free_watch(struct file_watch *watch) {
        if (watch)
                free(watch->path);
        free(watch);
}

struct file_watch *watch_new(struct subscription *subscription, const struct subject *subject) {
        bool tree = subject->filter == KEV_FILTER_TREE;
        struct file_watch *watch = calloc(1, sizeof(*watch));

        if (watch && tree && subject->fd < 0) {
                watch->path = strdup(subject->path);
                if (!watch->path) {
                        free(watch);
                        return NULL;
                }
        }
        if (!watch)
                return NULL;
        watch->subscription = subscription;
        watch->filter = subject->filter;
        watch->asker = subject->asker;
        watch->second_choice = subject->second_choice;
        watch->mask = tree ? 0 : vnode_mask(subject->notes);
        watch->list = tree && subject->list;
        watch->was_listed = subject->listed;
        watch->waits_first = tree && watch->path && subject->waits;
        list_init(&watch->link);
        list_init(&watch->blocked);
        return watch;
}

static int inotify_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                          struct refusal *refusal) {
        struct inotify *s = container_of(source, struct inotify, source);
        bool tree = subject->filter == KEV_FILTER_TREE;
        struct file_watch *watch;
        struct lookup *lookup;
        int r = check_asker(s, subject, refusal);

        if (r < 0)
                return r;
        if (subject->exclude_self || subject->notes & KEV_NOTE_WHO)
                return refuse_self_and_who(subject, refusal);
        if (workers_are_stuck(source->context->workers, subject->asker->uid))
                return refuse(refusal, EDQUOT, "path: all of your look-ups wait for file systems that don't answer");
        watch = watch_new(subscription, subject);
        lookup = lookup_new(tree ? LOOKUP_RESOLVE : LOOKUP_VNODE, subject->path);
        if (!watch || !lookup) {
                free_watch(watch);
                lookup_free(lookup);
                return refuse(refusal, ENOMEM, "no memory");
        }
        watch->lookup = lookup;
        lookup->watch = watch;
        lookup->mask = watch->mask;
        if (subject->fd >= 0)
                lookup->fd = fcntl(subject->fd, F_DUPFD_CLOEXEC, 3);
        r = subject->fd >= 0 && lookup->fd < 0 ? -errno : submit(s, lookup, watch->asker->uid, NULL, NULL);
        if (r < 0) {
                free_watch(watch);
                lookup_free(lookup);
                return refuse(refusal, -r, "path: %s", strerror(-r));
        }
        subscription->object = watch;
        return 1;
}

static int inotify_modify(struct source *source _unused_, struct subscription *subscription,
                          const struct subject *subject, struct refusal *refusal) {
        struct file_watch *watch = subscription->object;

        if (subject->list && !watch->list)
                return refuse_later(refusal, "tree.list");
        if (subject->cross_mounts)
                return refuse_later(refusal, "tree.crossMounts");
        if (subject->exclude_self || subject->notes & KEV_NOTE_WHO)
                return refuse_self_and_who(subject, refusal);
        if (watch->filter == KEV_FILTER_VNODE && (vnode_mask(subject->notes) & ~watch->mask))
                return refuse(refusal, EOPNOTSUPP, "notes: open, close and read can't be added later; "
                                                   "remove the watch and add another");
        if (watch->crowd)
                crowd_before(watch, NULL); /* by what it has asked for so far */
        return 0;
}

static void inotify_select(struct source *source, struct subscription *subscription) {
        struct file_watch *watch = subscription->object;

        if (watch->filter == KEV_FILTER_TREE)
                tree_select(container_of(source, struct inotify, source), watch);
}

static void inotify_detach(struct source *source, struct subscription *subscription) {
        struct inotify *s = container_of(source, struct inotify, source);
        struct file_watch *watch = take_pointer(&subscription->object);

        if (watch->lookup) {
                watch->lookup->watch = NULL;
                atomic_store(&watch->lookup->cancelled, true);
        }
        if (watch->filter == KEV_FILTER_TREE)
                tree_detach(s, watch);
        else
                vnode_detach(s, watch);
        free_watch(watch);
}

/* ---- the source -------------------------------------------------------------------------------------------- */

static void on_empty_trash(struct mux_deferred *deferred) {
        struct inotify *s = container_of(deferred, struct inotify, empty_trash);

        tree_empty_trash(s, TRASH_A_TURN);
        marks_remove_orphans(s);
}

static void inotify_init_lists(struct inotify *s) {
        list_init(&s->chunks);
        list_init(&s->moves);
        list_init(&s->waiting);
        list_init(&s->degraded);
        list_init(&s->ghosts);
        list_init(&s->lookups);
        list_init(&s->due);
        list_init(&s->crawls);
        list_init(&s->exchanges);
        list_init(&s->unblocked);
        barriers_init(&s->barriers, s->mux, is_past);
        crowds_init(&s->crowds, s->mux, on_crowds_told);
        mux_deferred_init(&s->go_on, on_go_on);
        mux_deferred_init(&s->empty_trash, on_empty_trash);
        s->io = MUX_IO_INIT;
        s->awaited_wd = -1;
}

static int inotify_open(struct source_context *context, struct source **ret_source) {
        struct inotify *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->mux = context->mux;
        inotify_init_lists(s);
        s->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        r = s->fd < 0 ? -errno : tree_init(&s->tree);
        s->tree.may_tell = list_may_tell;
        s->tree.may_tell_all = list_may_tell_all;
        lister_init(&s->lister, &inotify_lister, &s->tree, s->mux);
        if (r == 0)
                r = lookup_context_open(&s->lookup_context, s->fd, &s->mailbox);
        if (r == 0) {
                r = mailbox_open(&s->mailbox, s->mux, on_messages);
                if (r == 0) {
                        r = mux_add(s->mux, &s->io, s->fd, MUX_IN, on_readable);
                        if (r < 0)
                                mailbox_close(&s->mailbox);
                }
                if (r < 0)
                        lookup_context_close(&s->lookup_context);
        }
        if (r < 0) {
                tree_free(&s->tree);
                (void)safe_close(s->fd);
                free(s);
                return r;
        }
        *ret_source = &s->source;
        inotify_follow_mounts(s);
        return 0;
}

/* Under the same number, which the look-ups have. */
int inotify_adopt(struct inotify *s, int fd) {
        int r;

        mux_remove(s->mux, &s->io);
        r = dup3(fd, s->fd, O_CLOEXEC) < 0 ? -errno : 0;
        (void)close(fd);
        return r < 0 ? r : mux_add(s->mux, &s->io, s->fd, MUX_IN, on_readable);
}

/* The workers have ended before: no lookup is on a thread any more. */
static void inotify_close(struct source *source) {
        struct inotify *s = container_of(source, struct inotify, source);
        struct list *entry;

        answers_free(s);
        lister_close(&s->lister);
        tree_empty_trash(s, UINT32_MAX);
        mounts_close(&s->mounts);
        mux_remove(s->mux, &s->io);
        mailbox_close(&s->mailbox);
        lookup_context_close(&s->lookup_context);
        mux_deferred_cancel(&s->go_on);
        mux_deferred_cancel(&s->empty_trash);
        mux_timer_clear(s->mux, &s->awaited_timer);
        mux_timer_clear(s->mux, &s->move_timer);
        barriers_close(&s->barriers);
        crowds_close(&s->crowds);
        mux_timer_clear(s->mux, &s->retry_timer);
        mux_timer_clear(s->mux, &s->place_timer);
        mux_timer_clear(s->mux, &s->wait_timer);
        while ((entry = list_pop(&s->chunks)))
                free(list_entry(entry, struct chunk, link));
        free(s->spare);
        names_forget_listed(s);
        names_forget_touched(s);
        marks_free(s);
        hash_free(&s->exchanges_by_name);
        hash_free(&s->moves_by_cookie);
        hash_free(&s->moves_by_wd);
        tree_free(&s->tree);
        (void)close(s->fd);
        free(s);
}

static uint64_t inotify_registrations(const struct source *source) {
        const struct inotify *s = container_of(source, const struct inotify, source);

        return s->marks.n_nodes - s->n_ghosts;
}

static const char *inotify_mechanism(const struct source *source _unused_) {
        return "inotify";
}

const struct source_class source_inotify = {
        .name = "inotify",
        .filters = 1u << KEV_FILTER_VNODE | 1u << KEV_FILTER_TREE,
        .open = inotify_open,
        .close = inotify_close,
        .attach = inotify_attach,
        .modify = inotify_modify,
        .select = inotify_select,
        .detach = inotify_detach,
        .barrier = inotify_barrier,
        .registrations = inotify_registrations,
        .mechanism = inotify_mechanism,
        .is_settled = inotify_is_settled,
        .save_source = inotify_save_source,
        .load_source = inotify_load_source,
        .save = inotify_save,
        .restore = inotify_restore,
        .restored = inotify_restored,
};
