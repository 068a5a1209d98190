/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * read, write, poll and aio: descriptors that were passed (descriptor_look.h says how without keeping them).
 *
 * Each watch has an epoll set that holds nothing but its descriptor, level-triggered: to ask it is to poll(2) the
 * descriptor. All the sets are in one more (`all`), edge-triggered, which tells when to ask: whatever wakes a
 * descriptor wakes its set. The mux sees that one. (A set that is asked doesn't wake the one that it is in, Linux
 * 5.5.)
 *
 * A path of one event: the kernel wakes the set -> on_ready() -> poll: its bits are told. read, write and aio want a
 * figure beside: a worker gets it (`look`), and what it brings is told if it is enough. One look of a watch is under
 * way at a time; what comes meanwhile asks for one more. A Wait's barrier waits for the looks of its user.
 *
 * The looks are also how a watch with the flag `level` is asked whether it still holds: source->look().
 *
 * When the last copy of a descriptor is closed the kernel takes it out of its set: the watch stays, and is silent, as
 * with epoll(7).
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>

#include "close_elsewhere.h"
#include "descriptors.h"
#include "observer.h"
#include "process_info.h"
#include "workers.h"

enum {
        BATCH = 32,              /* between two looks at the time */
        SLICE_NSEC = 100 * 1000, /* of a turn, for what is ready; for answers; and for asking again */
        ASK_AGAIN_MSEC = 200,
};

/* A question to a worker: what is this, at first; then how much there is. */
struct look {
        struct work work;
        struct list message;
        uint32_t in_owner; /* its index in the heap */
        uid_t uid;
        struct descriptors *all;
        struct descriptor *descriptor; /* the loop's: NULL, it is gone, and what it had is the look's */
        struct owner *owner;
        struct descriptor_handle handle;
        enum kev_filter filter;
        uint32_t events;
        bool is_first;
        bool keeps_fd; /* and is to bring it back */
        int fd;        /* the passed one, for the first */
        int mark; /* in the files, or -1 */
        bool is_reopening; /* the set, for other events */
        /* The answer. */
        int set, slot; /* the new set; -1: none */
        int error;
        const char *why; /* a sentence, where it was refused */
        bool has_figures;
        bool refused;      /* the kernel doesn't let us have the owner's descriptors */
        bool is_elsewhere; /* or the owner has it no more */
        bool is_unanswered; /* by the user's observer */
        uint32_t ready;
        int64_t figure;
};

static struct descriptors *descriptors_of(struct source *source) {
        return container_of(source, struct descriptors, source);
}

/* ---- words ------------------------------------------------------------------------------------------------------------ */

static const struct {
        uint64_t note;
        uint32_t event;
} words[] = {
        { KEV_NOTE_IN, EPOLLIN },         { KEV_NOTE_OUT, EPOLLOUT },       { KEV_NOTE_PRI, EPOLLPRI },
        { KEV_NOTE_ERR, EPOLLERR },       { KEV_NOTE_HUP, EPOLLHUP },       { KEV_NOTE_RDHUP, EPOLLRDHUP },
        { KEV_NOTE_RDNORM, EPOLLRDNORM }, { KEV_NOTE_RDBAND, EPOLLRDBAND }, { KEV_NOTE_WRNORM, EPOLLWRNORM },
        { KEV_NOTE_WRBAND, EPOLLWRBAND },
};

static uint32_t events_of(enum kev_filter filter, uint64_t notes) {
        uint32_t events = 0;

        if (filter == KEV_FILTER_READ)
                return EPOLLIN | EPOLLRDHUP;
        if (filter == KEV_FILTER_WRITE)
                return EPOLLOUT;
        if (filter == KEV_FILTER_AIO)
                return EPOLLIN;
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                events |= notes & words[i].note ? words[i].event : 0;
        return events | EPOLLERR | EPOLLHUP;
}

/* Wakes name what they are about, some of them IN or OUT alone (tty_wakeup()), and epoll passes over those that were
 * not asked for. */
static uint32_t wakes_of(uint32_t events) {
        if (events & (EPOLLRDNORM | EPOLLRDBAND))
                events |= EPOLLIN;
        if (events & (EPOLLWRNORM | EPOLLWRBAND))
                events |= EPOLLOUT;
        return events;
}

static uint64_t notes_of_poll(uint32_t events) {
        uint64_t notes = 0;

        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                notes |= events & words[i].event ? words[i].note : 0;
        return notes;
}

/* What is ready may be so without a byte that counts: a datagram is empty, a TCP mark is next. */
static bool is_enough(const struct descriptor *d, bool at_end, int64_t figure) {
        return figure == ABSENT || figure >= d->least || (figure == 0 && d->least == 1 && !at_end);
}

/* kqueue(2): enough is there, or the end is. */
static uint64_t notes_of_figure(const struct descriptor *d, uint32_t ready, int64_t figure) {
        uint32_t end = d->filter == KEV_FILTER_READ ? EPOLLRDHUP | EPOLLHUP | EPOLLERR : EPOLLHUP | EPOLLERR;
        uint64_t notes = 0;

        if (d->handle.kind == DESCRIPTOR_FILE)
                return d->filter == KEV_FILTER_WRITE || (figure != ABSENT && (figure < 0 || figure >= d->least)) ?
                               KEV_NOTE_LOWAT : 0;
        if (d->filter == KEV_FILTER_AIO)
                return ready & EPOLLIN ? KEV_NOTE_COMPLETE : 0;
        if (ready & (EPOLLIN | EPOLLOUT) && is_enough(d, ready & end, figure))
                notes |= KEV_NOTE_LOWAT;
        if (ready & end)
                notes |= KEV_NOTE_EOF;
        return notes;
}

static void tell(struct descriptor *d, uint64_t notes, int64_t figure) {
        struct report report = REPORT_INIT;

        if (!(notes & d->subscription->notes))
                return;
        report.notes = notes;
        report.data = figure;
        report.flags = notes & KEV_NOTE_EOF ? KEV_FLAG_EOF : 0;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        source_report(&d->all->source, d->subscription, &report);
        report_done(&report);
}

/* ---- owners ------------------------------------------------------------------------------------------------------------ */

static struct owner *owner_find(struct descriptors *s, pid_t pid, uid_t uid) {
        for (struct hash_node *n = hash_first(&s->owners, hash_u64((uint64_t)pid)); n; n = hash_next(n)) {
                struct owner *o = container_of(n, struct owner, node);

                if (o->owner.pid == pid && o->uid == uid)
                        return o;
        }
        return NULL;
}

struct owner *owner_get(struct descriptors *s, const struct asker *asker) {
        pid_t pid = asker->pid;
        struct owner *o = owner_find(s, pid, asker->uid);

        if (o && o->owner.pidfd >= 0 && pidfd_has_hung_up(o->owner.pidfd)) { /* the number is another's by now */
                hash_remove(&s->owners, &o->node);
                o = NULL;
        }
        if (o) {
                o->refs++;
                return o;
        }
        o = calloc(1, sizeof(*o));
        if (!o || hash_add(&s->owners, &o->node, hash_u64((uint64_t)pid)) < 0) {
                free(o);
                return NULL;
        }
        o->refs = 1;
        o->owner.pid = pid;
        o->uid = asker->uid;
        o->owner.pidfd = asker_open_process(asker);
        o->observer = observer_get(asker->uid);
        return o;
}

static void owner_put(struct descriptors *s, struct owner *o) {
        if (!o || --o->refs > 0)
                return;
        hash_remove(&s->owners, &o->node);
        (void)safe_close(o->owner.pidfd);
        observer_put(o->observer);
        heap_free(&o->looks);
        free(o);
}

/* ---- looks, on a worker ------------------------------------------------------------------------------------------------- */

/* The daemon may look at more processes than the asker may. -EPERM: it may not; another: it is not known just now. */
static int check_owner(const struct look *l) {
        struct process_ids ids;
        int r;

        if (l->uid == 0 || l->owner->owner.pidfd < 0)
                return 0;
        r = pidfd_read_ids(l->owner->owner.pidfd, l->owner->owner.pid, &ids);
        if (is_shortage(r))
                return r;
        return r == 0 && process_ids_are(&ids, l->uid) ? 0 : -EPERM;
}

static void look_for_figure(struct look *l) {
        int r = check_owner(l);

        l->error = r < 0 ? r : -EPERM;
        l->figure = r < 0 ? ABSENT :
                            observer_figure(l->owner->observer, &l->handle, &l->owner->owner, l->filter, &l->error);
        /* Asked after the figure: it is ready for no less. */
        l->ready = l->handle.set < 0 ? 0 : descriptor_ready(&l->handle);
}

static void look_first(struct look *l) {
        int fd = take_fd(&l->fd);

        l->error = descriptor_open(fd, l->filter, l->events, &l->handle, &l->why);
        if (l->error == 0)
                observer_find(l->owner->observer, &l->handle, &l->owner->owner, fd);
        if (l->error == 0 && l->handle.kind == DESCRIPTOR_FILE && l->filter == KEV_FILTER_READ) {
                l->mark = descriptor_files_mark(&l->all->files, fd);
                l->error = MIN(l->mark, 0);
                l->why = "descriptor: inotify doesn't take it";
        }
        if (l->keeps_fd && l->error == 0)
                l->fd = fd;
        else
                (void)close(fd);
        if (l->error < 0 || l->filter == KEV_FILTER_POLL)
                return;
        look_for_figure(l);
        l->has_figures = l->figure != ABSENT;
        l->refused = l->error == -EPERM || l->owner->owner.pidfd < 0;
        l->is_unanswered = l->error == -EIO || is_shortage(l->error);
        l->is_elsewhere = l->error < 0;
        l->error = 0;
}

static int look_for_set(struct look *l) {
        int r = check_owner(l);
        int fd _cleanup_(closep) = r < 0 ? r : observer_take(l->owner->observer, &l->handle, &l->owner->owner);

        return fd < 0 ? fd : descriptor_reopen(fd, l->events, &l->set, &l->slot);
}

static void run_look(struct work *work) {
        struct look *l = container_of(work, struct look, work);

        if (l->is_first)
                look_first(l);
        else if (l->is_reopening)
                l->error = look_for_set(l);
        else
                look_for_figure(l);
        mailbox_post(&l->all->mailbox, &l->message);
}

/* ---- looks, on the loop ------------------------------------------------------------------------------------------------- */

/* `fd`: for the first one, which has it from here on, also when this fails. `reopen_for`: events of another set, or 0.
 * `serial`: of what has led to it. */
static int look_start(struct descriptor *d, int fd, uint32_t reopen_for, uint64_t serial) {
        struct look *l = calloc(1, sizeof(*l));
        int r;

        if (!l) {
                (void)safe_close(fd);
                return -ENOMEM;
        }
        *l = (struct look){
                .work = { .run = run_look, .has_fd = fd >= 0 }, .uid = d->uid, .all = d->all, .descriptor = d,
                .owner = d->owner, .handle = d->handle, .filter = (enum kev_filter)d->filter,
                .events = reopen_for ? reopen_for : d->events, .is_reopening = reopen_for != 0, .set = -1, .fd = fd,
                .is_first = fd >= 0, .keeps_fd = d->is_exclusive, .mark = -1, .figure = ABSENT,
        };
        list_init(&l->message);
        if (!d->owner->observer && !heap_first(&d->owner->looks)) /* there may be one by now */
                d->owner->observer = observer_get(d->owner->uid);
        d->owner->refs++;
        d->look = l;
        r = heap_set(&d->owner->looks, &l->in_owner, serial);
        if (r == 0)
                r = workers_submit(d->all->source.context->workers, d->uid, &l->work);
        if (r == 0)
                return 0;
        d->look = NULL;
        heap_clear(&d->owner->looks, &l->in_owner);
        d->owner->refs--;
        close_elsewhere(d->all->source.context->workers, d->uid, l->fd);
        free(l);
        return r;
}

static void tell_now(struct descriptor *d) {
        uint32_t ready = d->handle.set < 0 ? 0 : descriptor_ready(&d->handle);

        if (d->filter == KEV_FILTER_POLL)
                tell(d, notes_of_poll(ready & d->wanted), ABSENT);
        else
                tell(d, notes_of_figure(d, ready, ABSENT), ABSENT);
}

static void on_ask_again(struct mux_timer *timer);

/* What can't be told without the figure is asked again. */
static bool takes_a_figure(const struct descriptor *d) {
        return d->least > 1 || d->handle.kind == DESCRIPTOR_FILE;
}

static void keep_unanswered(struct descriptor *d) {
        struct descriptors *s = d->all;

        if (list_empty(&d->in_unanswered))
                list_append(&s->unanswered, &d->in_unanswered);
        if (s->ask_again.heap_index == 0)
                (void)mux_timer_set(s->source.context->mux, &s->ask_again,
                                    monotonic_nsec() + ASK_AGAIN_MSEC * NSEC_PER_MSEC, on_ask_again);
}

/* Tells what holds, now or when it is known. */
static void ask_since(struct descriptor *d, uint64_t serial) {
        if (!d->has_figures)
                tell_now(d);
        else if (d->look)
                d->again = serial;
        else if (look_start(d, -1, 0, serial) == 0)
                return;
        else if (takes_a_figure(d))
                keep_unanswered(d);
        else
                tell_now(d);
}

static void ask(struct descriptor *d) {
        if (!d->again)
                ask_since(d, ++d->all->serial);
}

static void on_ask_again(struct mux_timer *timer) {
        struct descriptors *s = container_of(timer, struct descriptors, ask_again);

        list_splice(&s->asked_again, &s->unanswered);
        mux_defer(s->mux, &s->ask_some);
}

/* Whom no look can be begun for is among those that are unanswered, for another time. */
static void on_ask_some(struct mux_deferred *deferred) {
        struct descriptors *s = container_of(deferred, struct descriptors, ask_some);
        uint64_t end = monotonic_nsec() + SLICE_NSEC;
        struct list *entry;

        while ((entry = list_pop(&s->asked_again))) {
                ask(list_entry(entry, struct descriptor, in_unanswered));
                if (monotonic_nsec() >= end) {
                        mux_defer(s->mux, &s->ask_some);
                        break;
                }
        }
}

static void on_figure(struct descriptor *d, const struct look *l) {
        uint64_t again = d->again;
        bool is_outdated = d->is_outdated;

        d->handle.number = l->handle.number;
        d->has_figures = l->error != -EPERM && l->error != -EBADF; /* anything else may pass */
        d->again = 0;
        d->is_outdated = false;
        if ((l->error == -EIO || is_shortage(l->error)) && takes_a_figure(d))
                keep_unanswered(d);
        else if (!is_outdated)
                tell(d, notes_of_figure(d, l->ready, l->figure), l->figure);
        if (again)
                ask_since(d, again);
}

/* ---- exclusive ---------------------------------------------------------------------------------------------------------- */

uint64_t group_hash(const struct descriptor *d) {
        return hash_u64(d->handle.device ^ d->handle.inode);
}

int group_enter(struct descriptor *d, struct group *group) {
        if (!group) {
                group = calloc(1, sizeof(*group));
                if (!group || hash_add(&d->all->groups, &group->node, group_hash(d)) < 0) {
                        free(group);
                        return -ENOMEM;
                }
                group->wanted = d->wanted;
                list_init(&group->members);
        }
        d->group = group;
        list_append(&group->members, &d->in_group);
        return 0;
}

/* `fd`: the passed one. */
static int group_join(struct descriptor *d, int fd) {
        for (struct hash_node *n = hash_first(&d->all->groups, group_hash(d)); n; n = hash_next(n)) {
                struct group *group = container_of(n, struct group, node);

                if (group->wanted == d->wanted &&
                    descriptor_is(&list_entry(group->members.next, struct descriptor, in_group)->handle, fd))
                        return group_enter(d, group);
        }
        return group_enter(d, NULL);
}

static void group_leave(struct descriptor *d) {
        struct group *group = take_pointer(&d->group);

        if (!group)
                return;
        list_remove(&d->in_group);
        list_for_each(entry, &group->members) /* it may be the one that stood for the others */
                list_entry(entry, struct descriptor, in_group)->is_covered = false;
        if (!list_empty(&group->members))
                return;
        hash_remove(&d->all->groups, &group->node);
        free(group);
}

/* What wakes one of them wakes all, and it may take several turns to come to them: the first stands for the others. What
 * wakes them meanwhile is another thing to that one alone, and there it shows. */
static void cover_others(const struct descriptor *first) {
        list_for_each(entry, &first->group->members) {
                struct descriptor *d = list_entry(entry, struct descriptor, in_group);

                d->is_covered = d != first;
        }
}

static void ask_one(struct descriptor *woken) {
        struct group *group = woken->group;

        if (woken->is_covered) {
                woken->is_covered = false;
                return;
        }
        list_for_each(entry, &group->members) {
                struct descriptor *d = list_entry(entry, struct descriptor, in_group);

                if (d->subscription->held || !(descriptor_ready(&d->handle) & d->wanted))
                        continue;
                list_remove(&d->in_group);
                list_append(&group->members, &d->in_group);
                cover_others(woken);
                ask(d);
                return;
        }
}

static void on_event(struct descriptor *d) {
        d->is_anew = false;
        if (d->group)
                ask_one(d);
        else
                ask(d);
}

static void on_ready(struct mux_io *io, unsigned events _unused_) {
        struct descriptors *s = container_of(io, struct descriptors, io);
        struct epoll_event ready[BATCH];
        uint64_t end = monotonic_nsec() + SLICE_NSEC;
        int n;

        do {
                n = epoll_wait(s->all, ready, BATCH, 0);
                for (int i = 0; i < n; i++)
                        on_event(ready[i].data.ptr);
                s->n_taken += (uint64_t)MAX(n, 0);
        } while (n == BATCH && monotonic_nsec() < end);
        s->is_behind = n == BATCH;
        if (s->is_behind)
                mux_defer(s->mux, &s->behind);
        barriers_check(&s->barriers);
}

/* What was left may be ready no more, or gone, or have been nothing: then the mux has nothing to say. */
static void on_behind(struct mux_deferred *deferred) {
        struct descriptors *s = container_of(deferred, struct descriptors, behind);

        s->is_behind = s->is_behind && poll(&(struct pollfd){ .fd = s->all, .events = POLLIN }, 1, 0) > 0;
        if (s->is_behind)
                mux_defer(s->mux, &s->behind);
        else
                barriers_check(&s->barriers);
}

static void on_written(struct descriptor_file *file) {
        ask(container_of(file, struct descriptor, file));
}

static void on_files_told(struct descriptor_files *files) {
        barriers_check(&container_of(files, struct descriptors, files)->barriers);
}

/* ---- attach --------------------------------------------------------------------------------------------------------------- */

static bool may_be_file(enum kev_filter filter) {
        return filter == KEV_FILTER_READ || filter == KEV_FILTER_WRITE;
}

/* Also of one that is not quite there yet. */
void descriptor_free(struct descriptor *d) {
        struct descriptors *s = d->all;

        if (d->look)
                d->look->descriptor = NULL; /* and the set is the look's to close */
        group_leave(d);
        list_remove(&d->in_unanswered);
        descriptor_files_remove(&s->files, &d->file);
        if (d->handle.set >= 0) {
                (void)epoll_ctl(s->all, EPOLL_CTL_DEL, d->handle.set, NULL);
                if (!d->look)
                        (void)close(d->handle.set);
        }
        owner_put(s, d->owner);
        free(d);
}

int descriptor_begin(struct descriptor *d, struct refusal *refusal) {
        struct epoll_event event = { .events = EPOLLIN | EPOLLET, .data.ptr = d };

        if (d->handle.set < 0 || epoll_ctl(d->all->all, EPOLL_CTL_ADD, d->handle.set, &event) == 0)
                return 0;
        switch (errno) {
        case EINVAL: /* eventpoll.c, path_limits */
                return refuse(refusal, ENOSPC, "descriptor: the kernel lets no more watches be on the same one");
        default:
                return refuse(refusal, errno, "descriptor: %s", strerror(errno));
        }
}

/* What can't be served without a look at the owner's descriptor. */
static int check_figures(struct descriptor *d, const struct look *l, struct refusal *refusal) {
        bool needed = d->least > 1 || (d->handle.kind == DESCRIPTOR_FILE && d->filter == KEV_FILTER_READ);
        const char *what = d->least > 1 ? "data" : "descriptor";

        if (l->refused)
                (void)snprintf(d->all->source.reason, sizeof(d->all->source.reason),
                               "no figures for what process %d passes: the kernel does not let this daemon look at its "
                               "descriptors (ptrace(2))", (int)d->owner->owner.pid);
        if (d->has_figures || !needed)
                return 0;
        if (l->refused)
                return refuse(refusal, EOPNOTSUPP, "%s: the kernel does not let this daemon look at the caller's "
                                                   "descriptors (ptrace(2))", what);
        if (l->is_unanswered)
                return refuse(refusal, EAGAIN, "%s: what looks at your descriptors does not answer, or is not to be had",
                              what);
        if (l->is_elsewhere)
                return refuse(refusal, EOPNOTSUPP, "%s: the caller itself has to have the descriptor open", what);
        return refuse(refusal, EOPNOTSUPP, "%s: there are no figures for such a descriptor", what);
}

static int join_mark(struct descriptor *d, int mark, struct refusal *refusal) {
        int r = descriptor_files_add(&d->all->files, mark, &d->file);

        if (r == -EAGAIN)
                return refuse(refusal, EAGAIN, "descriptor: the look at it took so long that inotify's watch was "
                                               "removed meanwhile");
        return r < 0 ? refuse(refusal, -r, "no memory") : 0;
}

static int finish(struct descriptor *d, const struct look *l, struct refusal *refusal) {
        int r = 0;

        d->handle = l->handle;
        d->has_figures = l->has_figures;
        if (l->error < 0)
                return refuse(refusal, -l->error, "%s", l->why);
        if (d->filter != KEV_FILTER_POLL)
                r = check_figures(d, l, refusal);
        d->has_figures |= l->is_unanswered; /* there may be: they are asked for again */
        if (r == 0 && l->mark >= 0)
                r = join_mark(d, l->mark, refusal);
        if (r == 0 && d->is_exclusive && group_join(d, l->fd) < 0)
                r = refuse(refusal, ENOMEM, "no memory");
        return r < 0 ? r : descriptor_begin(d, refusal);
}

/* Nobody wants it any more. */
static void drop_first(struct look *l) {
        struct descriptor_file nobody = { .mark = NULL };

        list_init(&nobody.link);
        if (l->mark >= 0 && descriptor_files_add(&l->all->files, l->mark, &nobody) == 0)
                descriptor_files_remove(&l->all->files, &nobody);
}

static void on_first(struct descriptor *d, struct look *l) {
        const struct sink *sink = d->all->source.context->sink;
        struct refusal refusal;

        if (finish(d, l, &refusal) == 0) {
                sink->attached(d->subscription, NULL);
                if (d->handle.kind == DESCRIPTOR_FILE)
                        tell(d, notes_of_figure(d, 0, l->figure), l->figure);
                return; /* what it is ready for, its set tells */
        }
        if (!d->file.mark)
                drop_first(l);
        sink->attached(d->subscription, &refusal); /* detaches it */
}

/* Takes the set's place. */
static int replace_set(struct descriptor *d, int set, int slot, uint32_t events, struct refusal *refusal) {
        struct descriptor_handle old = d->handle;
        int r;

        d->handle.set = set;
        d->handle.slot = slot;
        d->is_anew = descriptor_ready(&d->handle) & events;
        r = descriptor_begin(d, refusal);
        if (r < 0) {
                d->handle = old;
                (void)close(set);
                return r;
        }
        (void)epoll_ctl(d->all->all, EPOLL_CTL_DEL, old.set, NULL);
        (void)close(old.set);
        d->events = events;
        return 0;
}

static void on_reopened(struct descriptor *d, struct look *l) {
        const struct sink *sink = d->all->source.context->sink;
        struct refusal refusal;
        int r;

        d->handle.number = l->handle.number;
        if (l->error == -EIO)
                r = refuse(&refusal, EAGAIN, "descriptor: what looks at your descriptors does not answer, or is not to be had");
        else if (l->error < 0)
                r = refuse(&refusal, EBADF, "descriptor: has to be passed again for notes that the watch did not have: the "
                                            "caller's own is not to be had");
        else
                r = replace_set(d, take_fd(&l->set), l->slot, l->events, &refusal);
        if (r < 0) {
                d->subscription->notes = d->notes_before;
                d->wanted = d->wanted_before;
        }
        sink->modified(d->subscription, r < 0 ? &refusal : NULL);
}

static void on_look(struct look *l) {
        struct descriptor *d = l->descriptor;

        heap_clear(&l->owner->looks, &l->in_owner);
        if (d)
                d->look = NULL;
        if (d && l->is_first)
                on_first(d, l);
        else if (d && l->is_reopening)
                on_reopened(d, l);
        else if (d)
                on_figure(d, l);
        else {
                drop_first(l);
                (void)safe_close(l->handle.set);
                (void)safe_close(l->set);
        }
        if (l->is_first && may_be_file(l->filter))
                descriptor_files_end(&l->all->files);
        if (l->all->is_closing)
                (void)safe_close(l->fd);
        else
                close_elsewhere(l->all->source.context->workers, l->uid, l->fd);
        owner_put(l->all, l->owner);
        free(l);
}

/* Until then, or until there is none. */
static void take_looks(struct descriptors *s, uint64_t end_nsec) {
        struct list *entry;

        while ((entry = mailbox_take(&s->mailbox))) {
                on_look(list_entry(entry, struct look, message));
                if (monotonic_nsec() >= end_nsec) {
                        mux_defer(s->mux, &s->go_on);
                        break;
                }
        }
        barriers_check(&s->barriers);
}

static void on_looks(struct mailbox *mailbox) {
        take_looks(container_of(mailbox, struct descriptors, mailbox), monotonic_nsec() + SLICE_NSEC);
}

static void on_more_looks(struct mux_deferred *deferred) {
        take_looks(container_of(deferred, struct descriptors, go_on), monotonic_nsec() + SLICE_NSEC);
}

static int start(struct descriptors *s, struct descriptor *d, const struct subject *subject, struct refusal *refusal) {
        int fd, r;

        d->owner = owner_get(s, subject->asker);
        if (!d->owner)
                return refuse(refusal, ENOMEM, "no memory");
        if (may_be_file((enum kev_filter)d->filter)) {
                r = descriptor_files_open(&s->files);
                if (r < 0)
                        return refuse(refusal, -r, "inotify_init1: %s", strerror(-r));
        }
        d->handle.serial = ++d->owner->n_passed;
        if (workers_are_full_of_fds(s->source.context->workers, d->uid))
                return refuse(refusal, EDQUOT, "descriptor: too many of yours are still looked at");
        fd = fcntl(subject->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return refuse(refusal, errno, "descriptor: the daemon has no descriptor left");
        r = look_start(d, fd, 0, ++s->serial);
        if (r < 0)
                return refuse(refusal, -r, "descriptor: no thread to look at it: %s", strerror(-r));
        if (may_be_file((enum kev_filter)d->filter))
                descriptor_files_begin(&s->files);
        return 1;
}

struct descriptor *descriptor_new(struct descriptors *s, struct subscription *subscription, const struct subject *subject) {
        struct descriptor *d = calloc(1, sizeof(*d));

        if (!d)
                return NULL;
        d->all = s;
        d->subscription = subscription;
        d->filter = (uint8_t)subject->filter;
        d->uid = subject->asker->uid;
        d->wanted = events_of(subject->filter, subject->notes);
        d->events = wakes_of(d->wanted);
        d->least = MAX(subject->data, (int64_t)1); /* ABSENT is less */
        d->is_exclusive = subject->flags & KEV_FLAG_EXCLUSIVE;
        d->handle = (struct descriptor_handle){ .set = -1 };
        list_init(&d->in_group);
        list_init(&d->in_unanswered);
        list_init(&d->file.link);
        return d;
}

static int descriptors_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                              struct refusal *refusal) {
        struct descriptors *s = descriptors_of(source);
        struct descriptor *d;
        int r;

        if (workers_are_stuck(source->context->workers, subject->asker->uid))
                return refuse(refusal, EDQUOT, "descriptor: all of your look-ups wait for file systems that don't answer");
        d = descriptor_new(s, subscription, subject);
        if (!d)
                return refuse(refusal, ENOMEM, "no memory");
        r = start(s, d, subject, refusal);
        if (r < 0)
                descriptor_free(d);
        else
                subscription->object = d;
        return r;
}

static void descriptors_detach(struct source *source _unused_, struct subscription *subscription) {
        descriptor_free(take_pointer(&subscription->object));
}

bool descriptor_is_being_made(const struct descriptor *d) {
        return d->look && (d->look->is_first || d->look->is_reopening);
}

/* ---- change ----------------------------------------------------------------------------------------------------------------- */

/* The passed one is taken at once. */
static int reopen_passed(struct descriptor *d, uint32_t events, const struct subject *subject, struct refusal *refusal) {
        struct epoll_event event = { .events = events };
        int set, fd, r = 0;

        if (workers_are_full_of_fds(d->all->source.context->workers, d->uid))
                return refuse(refusal, EDQUOT, "descriptor: too many of yours are still looked at");
        fd = fcntl(subject->fd, F_DUPFD_CLOEXEC, 3);
        if (fd < 0)
                return refuse(refusal, errno, "descriptor: the daemon has no descriptor left");
        set = epoll_create1(EPOLL_CLOEXEC);
        if (set < 0 || epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0)
                r = refuse(refusal, errno, "descriptor: %s", strerror(errno));
        close_elsewhere(d->all->source.context->workers, d->uid, fd);
        if (r == 0)
                return replace_set(d, set, fd, events, refusal);
        (void)safe_close(set);
        return r;
}

/* A set that is asked for something else takes the descriptor again: from the call, or from its owner. */
static int reopen(struct descriptor *d, uint32_t events, uint32_t wanted, const struct subject *subject,
                  struct refusal *refusal) {
        int r;

        if (subject->fd >= 0)
                return reopen_passed(d, events, subject, refusal);
        d->notes_before = d->subscription->notes;
        d->wanted_before = d->wanted;
        d->wanted = wanted;
        r = look_start(d, -1, events, ++d->all->serial);
        if (r == 0)
                return 1;
        d->wanted = d->wanted_before;
        return refuse(refusal, -r, "descriptor: no thread to look at it: %s", strerror(-r));
}

static int descriptors_modify(struct source *source _unused_, struct subscription *subscription,
                              const struct subject *subject, struct refusal *refusal) {
        struct descriptor *d = subscription->object;
        uint32_t wanted = events_of(subject->filter, subject->notes), events = wakes_of(wanted);
        int r = 0;

        if (d->is_exclusive || subject->flags & KEV_FLAG_EXCLUSIVE)
                return refuse(refusal, EINVAL, "flags: an exclusive watch can't be changed, nor another be made one");
        if (descriptor_is_being_made(d))
                return refuse(refusal, EBUSY, "id: the watch is still being made or changed");
        if (subject->data != ABSENT && subject->data > 1 && !d->has_figures)
                return refuse(refusal, EOPNOTSUPP, "data: there are no figures for this descriptor");
        if (subject->fd >= 0 && !descriptor_is(&d->handle, subject->fd))
                return refuse(refusal, EINVAL, "descriptor: not the one that is watched");
        if (events & ~d->events)
                r = reopen(d, events | d->events, wanted, subject, refusal);
        if (r != 0)
                return r;
        d->wanted = wanted;
        if (subject->data != ABSENT)
                d->least = MAX(subject->data, (int64_t)1);
        return 0;
}

static void descriptors_look(struct source *source _unused_, struct subscription *subscription) {
        struct descriptor *d = subscription->object;

        if (!d || (d->look && d->look->is_first) || d->is_anew)
                return;
        d->is_outdated = d->look != NULL;
        ask(d);
}

/* ---- the source ------------------------------------------------------------------------------------------------------------ */

/* What was ready, and written to, is taken first; then the looks that this has led to count, those before `serial`. */
static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        struct descriptors *s = container_of(barriers, struct descriptors, barriers);
        struct owner *o = owner_find(s, barrier->asker->pid, barrier->asker->uid);

        if (barrier->files == 0)
                barrier->files = descriptor_files_read(&s->files) + 1;
        if (barrier->serial == 0 && s->is_behind && s->n_taken < barrier->position)
                return false;
        if (barrier->serial == 0 && !descriptor_files_have_told(&s->files, barrier->files - 1))
                return false;
        if (barrier->serial == 0)
                barrier->serial = s->serial + 1;
        return !o || !heap_first(&o->looks) || heap_first_key(&o->looks) >= barrier->serial;
}

static bool descriptors_barrier(struct source *source, struct source_barrier *barrier) {
        struct descriptors *s = descriptors_of(source);

        return barriers_add(&s->barriers, barrier, s->n_taken + source->n_subscriptions);
}

static int descriptors_open(struct source_context *context, struct source **ret_source) {
        struct descriptors *s = calloc(1, sizeof(*s));
        int r;

        if (!s)
                return -ENOMEM;
        s->mux = context->mux;
        s->io = MUX_IO_INIT;
        descriptor_files_init(&s->files, s->mux, on_written, on_files_told);
        barriers_init(&s->barriers, s->mux, is_past);
        list_init(&s->unanswered);
        list_init(&s->asked_again);
        mux_deferred_init(&s->behind, on_behind);
        mux_deferred_init(&s->go_on, on_more_looks);
        mux_deferred_init(&s->ask_some, on_ask_some);
        s->ask_again = MUX_TIMER_INIT;
        s->all = epoll_create1(EPOLL_CLOEXEC);
        r = s->all < 0 ? -errno : mux_add(s->mux, &s->io, s->all, MUX_IN, on_ready);
        if (r == 0)
                r = mailbox_open(&s->mailbox, s->mux, on_looks);
        if (r < 0) {
                mux_remove(s->mux, &s->io);
                (void)safe_close(s->all);
                free(s);
                return r;
        }
        *ret_source = &s->source;
        return 0;
}

/* The workers have ended before. */
static void descriptors_close(struct source *source) {
        struct descriptors *s = descriptors_of(source);

        s->is_closing = true;
        take_looks(s, UINT64_MAX);
        mux_deferred_cancel(&s->behind);
        mux_deferred_cancel(&s->go_on);
        mux_deferred_cancel(&s->ask_some);
        mux_timer_clear(s->mux, &s->ask_again);
        barriers_close(&s->barriers);
        mailbox_close(&s->mailbox);
        descriptor_files_close(&s->files);
        mux_remove(s->mux, &s->io);
        (void)close(s->all);
        hash_free(&s->owners);
        hash_free(&s->groups);
        free(s);
}

static uint64_t descriptors_registrations(const struct source *source) {
        return source->n_subscriptions;
}

static const char *descriptors_mechanism(const struct source *source _unused_) {
        return "epoll";
}

const struct source_class source_descriptors = {
        .name = "descriptors",
        .filters = 1u << KEV_FILTER_READ | 1u << KEV_FILTER_WRITE | 1u << KEV_FILTER_POLL | 1u << KEV_FILTER_AIO,
        .open = descriptors_open,
        .close = descriptors_close,
        .attach = descriptors_attach,
        .modify = descriptors_modify,
        .look = descriptors_look,
        .detach = descriptors_detach,
        .barrier = descriptors_barrier,
        .registrations = descriptors_registrations,
        .mechanism = descriptors_mechanism,
        .describe = descriptors_describe,
        .save = descriptors_save,
        .restore = descriptors_restore,
};
