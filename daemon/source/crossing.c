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
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "barrier.h"
#include "buffer.h"
#include "close_elsewhere.h"
#include "file_watch.h"
#include "mailbox.h"
#include "mounts.h"
#include "source.h"
#include "workers.h"

enum {
        PARTS_MAX = 1024, /* of a watch */
        TRIES_MAX = 8,
        RETRY_MSEC = 1000,
        COMPARE_MSEC = 10, /* between two readings of the mounts that what clients do has led to */
};

struct crossings {
        struct source source;
        struct mux *mux;
        struct list list;
        struct mounts mounts;
        struct mailbox mailbox; /* of what the workers have found */
        struct mux_deferred run;
        bool differs;  /* the reading at hand from the last one */
        bool compares; /* mounts may be in other places, of which poll(2) says nothing */
        uint64_t compared_nsec, n_compared;
        struct mux_timer compare_timer;
        struct mux_timer retry_timer;
        struct barriers barriers;
        struct list dead; /* parts of nobody's, to be detached: not while a source is walking its own */
        unsigned n_calls; /* of sources, under way */
};

struct part {
        struct subscription subscription;
        struct crossing *crossing;
        struct list link;
        bool starting;
        bool returns;  /* came while the watch was in force: told with a rescan */
        bool listed;
        bool ended;    /* nothing is told of it any more */
        unsigned tries; /* how often it had ended, and was made anew */
        bool refused;  /* it can't be watched, until the mounts change there */
        bool changed;  /* another mount than the one it is of may be there */
        bool seen;     /* in this look at the mounts */
        size_t below;  /* where in `mount_point` the path below the watched directory begins */
        char mount_point[];
};

struct resolving {
        struct work work;
        struct list message;
        struct crossings *all;
        struct crossing *crossing; /* the loop's: NULL, it has ended */
        char *path;
        int fd; /* or -1 */
        char *canonical; /* the thread's, until it is sent; NULL: not to be found */
        int error;       /* why; positive errno */
};

struct crossing {
        struct list link;
        struct crossings *all;
        struct subscription *outer;
        struct part *main;
        struct list parts;
        struct subject subject; /* what parts are asked for; no path, no descriptor */
        char *path;             /* as the client named it */
        char *canonical;
        struct resolving *resolving;
        bool in_force;
        bool is_listed;
        bool is_stale; /* its parts are to be looked at */
        size_t n_put_off; /* mounts that get a part when what they are in is listed */
        bool is_back;  /* its path is to be resolved again */
        bool is_gone;
        bool asked_since; /* or is being asked: where it is, since the main part is in force */
        bool asks_again;  /* with the timer */
        bool is_degraded; /* as a whole: it is not known what is mounted below */
};

static struct crossings *crossings_of(struct source *source) {
        return container_of(source, struct crossings, source);
}

static struct part *part_of(struct subscription *subscription) {
        return container_of(subscription, struct part, subscription);
}

static const struct sink *upper(const struct crossing *c) {
        return c->all->source.context->upper;
}

/* ---- telling --------------------------------------------------------------------------------------------- */

static void tell(struct crossing *c, uint64_t notes, const char *below) {
        struct report report = REPORT_INIT;

        report.notes = notes;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        report.below = (struct event_path){ below, strlen(below) };
        upper(c)->report(c->outer, &report);
        report_done(&report);
}

/* The list is told when all parts of it are. */
static void check_listed(struct crossing *c) {
        if (!c->subject.list || c->is_listed || !c->in_force || !c->main->listed || c->resolving || c->is_stale ||
            c->n_put_off > 0)
                return;
        list_for_each(entry, &c->parts)
                if (!list_entry(entry, struct part, link)->listed)
                        return;
        c->is_listed = true;
        tell(c, KEV_NOTE_LISTED, "");
}

/* The path with the part's own place in front. False: no memory. */
static bool place(const struct part *part, struct event_path path, struct buffer *b) {
        const char *below = part->mount_point + part->below;

        buffer_put_string(b, below);
        if (below[0] && path.size > 0)
                buffer_put_literal(b, "/");
        buffer_put(b, path.bytes, path.size);
        return !b->error;
}

static void look_later(struct crossing *c) {
        c->is_stale = true;
        mux_defer(c->all->mux, &c->all->run);
}

static void on_compare_timer(struct mux_timer *timer);

/* Now, or soon after it was. */
static void compare(struct crossings *all) {
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

        compare(all);
        mux_defer(all->mux, &all->run); /* for the barriers */
}

static void compare_later(struct crossings *all) {
        all->compares = true;
        mux_defer(all->mux, &all->run);
}

/* A directory that moves takes along what is mounted below it. */
static bool may_move_mounts(const struct report *report) {
        return report->kind == KEV_KIND_DIRECTORY &&
               report->notes & (KEV_NOTE_RENAME | KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT | KEV_NOTE_RESCAN);
}

static void report_of_part(struct part *part, const struct report *report) {
        struct crossing *c = part->crossing;
        struct buffer below _cleanup_(buffer_free) = BUFFER_INIT, from _cleanup_(buffer_free) = BUFFER_INIT;
        struct report copy = report_copy(report);

        if (copy.notes & (KEV_NOTE_GONE | KEV_NOTE_BACK)) {
                part->ended = copy.notes & KEV_NOTE_GONE;
                look_later(c);
                copy.notes = KEV_NOTE_RESCAN;
                copy.flags &= ~(uint32_t)KEV_FLAG_EOF;
        }
        if (copy.notes & KEV_NOTE_LISTED) {
                part->listed = true;
                look_later(c);
                copy.notes &= ~KEV_NOTE_LISTED;
                if (!copy.notes)
                        return;
        }
        if (may_move_mounts(report))
                compare_later(c->all);
        if (!place(part, report->below, &below) || (report->from_below.bytes && !place(part, report->from_below, &from))) {
                tell(c, KEV_NOTE_RESCAN, "");
                return;
        }
        copy.below = (struct event_path){ below.data, below.size };
        if (report->from_below.bytes)
                copy.from_below = (struct event_path){ from.data, from.size };
        upper(c)->report(c->outer, &copy);
        report_done(&copy);
}

static void report_of_main(struct crossing *c, struct report *report) {
        if (report->notes & KEV_NOTE_LISTED && !c->is_listed) {
                c->main->listed = true;
                look_later(c);
                return;
        }
        if (report->notes & (KEV_NOTE_GONE | KEV_NOTE_BACK)) {
                c->is_gone = report->notes & KEV_NOTE_GONE;
                c->is_back = report->notes & KEV_NOTE_BACK;
                look_later(c);
        }
        if (may_move_mounts(report))
                compare_later(c->all);
        upper(c)->report(c->outer, report);
}

static void on_report(struct subscription *subscription, struct report *report) {
        struct crossings *all;
        struct part *part;

        if (!subscription->is_part) {
                subscription->source->context->upper->report(subscription, report);
                return;
        }
        part = part_of(subscription);
        if (!part->crossing)
                return;
        all = part->crossing->all;
        all->n_calls++;
        if (part == part->crossing->main)
                report_of_main(part->crossing, report);
        else
                report_of_part(part, report);
        all->n_calls--;
}

/* ---- what parts want ---------------------------------------------------------------------------------------- */

/* Without memory more is watched than need be. */
static bool descends(const struct subscription *subscription, struct event_path directory) {
        const struct part *part;
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;

        if (!subscription->is_part)
                return subscription->source->context->upper->descends(subscription, directory);
        part = container_of(subscription, const struct part, subscription);
        return !part->crossing || !place(part, directory, &b) ||
               upper(part->crossing)->descends(part->crossing->outer, (struct event_path){ b.data, b.size });
}

static bool sees_alike(const struct subscription *subscription, struct event_path a, struct event_path b) {
        const struct part *part;
        struct buffer in_a _cleanup_(buffer_free) = BUFFER_INIT, in_b _cleanup_(buffer_free) = BUFFER_INIT;

        if (!subscription->is_part)
                return subscription->source->context->upper->sees_alike(subscription, a, b);
        part = container_of(subscription, const struct part, subscription);
        return part->crossing && place(part, a, &in_a) && place(part, b, &in_b) &&
               upper(part->crossing)->sees_alike(part->crossing->outer, (struct event_path){ in_a.data, in_a.size },
                                                 (struct event_path){ in_b.data, in_b.size });
}

static bool has_room(const struct subscription *subscription) {
        const struct part *part;

        if (!subscription->is_part)
                return subscription->source->context->upper->has_room(subscription);
        part = container_of(subscription, const struct part, subscription);
        return part->crossing && upper(part->crossing)->has_room(part->crossing->outer);
}

/* ---- parts ---------------------------------------------------------------------------------------------------- */

static void free_part(struct part *part) {
        source_detach(&part->subscription);
        list_remove(&part->link);
        free(part);
}

/* A source may be at work on it, or on another whose watch it is of. */
static void bury_part(struct part *part) {
        struct crossings *all = part->crossing->all;

        part->crossing = NULL;
        list_remove(&part->link);
        list_append(&all->dead, &part->link);
        mux_defer(all->mux, &all->run);
}

/* What a watch has is gone before the watch is, unless it ends within a source's call: then whoever asked for it lives
 * on until the deferred work of this turn. */
static void free_dead(struct crossings *all) {
        while (all->n_calls == 0 && !list_empty(&all->dead))
                free_part(list_entry(all->dead.next, struct part, link));
}

static void bury_parts(struct crossing *c) {
        while (!list_empty(&c->parts))
                bury_part(list_entry(c->parts.next, struct part, link));
}

static struct part *new_part(struct crossing *c, const char *mount_point, size_t below) {
        size_t size = strlen(mount_point) + 1;
        struct part *part = calloc(1, sizeof(*part) + size);

        if (!part)
                return NULL;
        memcpy(part->mount_point, mount_point, size);
        part->crossing = c;
        part->below = below;
        part->subscription.is_part = true;
        part->subscription.selective = c->outer->selective;
        list_init(&part->subscription.link);
        list_init(&part->link);
        return part;
}

static void on_retry_timer(struct mux_timer *timer);

/* It goes on without what is mounted below. */
static void degrade(struct crossing *c) {
        if (!c->is_degraded)
                tell(c, KEV_NOTE_DEGRADED, "");
        c->is_degraded = true;
}

/* Where it is can't be found out, which may be so for a while only. */
static void on_unresolved(struct crossing *c, int error) {
        struct crossings *all = c->all;

        degrade(c);
        c->asks_again = c->path && is_shortage(-error);
        if (c->asks_again && all->retry_timer.heap_index == 0)
                (void)mux_timer_set(all->mux, &all->retry_timer, monotonic_nsec() + RETRY_MSEC * NSEC_PER_MSEC,
                                    on_retry_timer);
}

static int ask_where(struct crossing *c, int fd);

static void ask_again(struct crossing *c) {
        int r = ask_where(c, -1);

        if (r < 0)
                on_unresolved(c, -r);
}

/* Made after its path was asked for, it is there, and never comes back. */
static void ask_since(struct crossing *c) {
        if (!c->canonical && !c->asked_since)
                ask_again(c);
        c->asked_since = true;
}

static void check_in_force(struct crossing *c) {
        if (c->in_force || c->main->starting || c->resolving)
                return;
        ask_since(c);
        if (c->resolving)
                return;
        list_for_each(entry, &c->parts)
                if (list_entry(entry, struct part, link)->starting)
                        return;
        c->in_force = true;
        upper(c)->attached(c->outer, NULL);
        check_listed(c);
}

/* What can't be read is none of the client's, and not even its name is; a file has nothing below it. The rest could be
 * watched, and is not covered. */
static void on_part_refused(struct part *part, int error) {
        struct crossing *c = part->crossing;

        part->ended = part->refused = part->listed = true;
        if (error != EACCES && error != EPERM && error != ENOENT && error != ENOTDIR)
                tell(c, KEV_NOTE_DEGRADED, part->mount_point + part->below);
        look_later(c); /* what is mounted in it may have waited for its list */
}

/* It ends over and over. */
static void give_up(struct part *part) {
        part->refused = part->listed = true;
        tell(part->crossing, KEV_NOTE_DEGRADED, part->mount_point + part->below);
        look_later(part->crossing);
}

static void attach_part(struct part *part) {
        struct crossing *c = part->crossing;
        struct subject subject = c->subject;
        struct refusal refusal;
        int r;

        subject.path = part->mount_point;
        subject.list = c->subject.list && !c->is_listed;
        subject.waits = false;
        subject.notes &= ~KEV_NOTE_BACK;
        part->listed = !subject.list;
        part->returns = c->in_force && !subject.list;
        r = sources_attach_part(&c->all->source, &part->subscription, &subject, &refusal);
        if (r < 0)
                on_part_refused(part, -r);
        else if (r == 1)
                part->starting = true;
        else if (part->returns)
                tell(c, KEV_NOTE_RESCAN, part->mount_point + part->below);
}

static void on_part_attached(struct part *part, const struct refusal *refusal) {
        struct crossing *c = part->crossing;

        part->starting = false;
        if (refusal) {
                struct refusal copy = *refusal;

                source_detach(&part->subscription);
                if (part == c->main) {
                        upper(c)->attached(c->outer, &copy); /* buries all of it */
                        return;
                }
                on_part_refused(part, copy.error);
        } else if (part != c->main && part->returns)
                tell(c, KEV_NOTE_RESCAN, part->mount_point + part->below);
        check_in_force(c);
        check_listed(c);
        mux_defer(c->all->mux, &c->all->run); /* for the barriers */
}

static void on_attached(struct subscription *subscription, const struct refusal *refusal) {
        struct crossings *all;
        struct part *part;

        if (!subscription->is_part) {
                subscription->source->context->upper->attached(subscription, refusal);
                return;
        }
        part = part_of(subscription);
        if (!part->crossing) /* it is detached soon */
                return;
        all = part->crossing->all;
        all->n_calls++;
        on_part_attached(part, refusal);
        all->n_calls--;
}

/* Of a watch that has parts it is never said. */
static void on_modified(struct subscription *subscription, const struct refusal *refusal) {
        subscription->source->context->upper->modified(subscription, refusal);
}

const struct sink crossing_sink = {
        .report = on_report,
        .attached = on_attached,
        .modified = on_modified,
        .descends = descends,
        .sees_alike = sees_alike,
        .has_room = has_room,
};

/* ---- mounts --------------------------------------------------------------------------------------------------- */

/* Of a path: what is below the watched directory. NULL: it is not below. */
static const char *below(const struct crossing *c, const char *path) {
        size_t size = strcmp(c->canonical, "/") == 0 ? 0 : strlen(c->canonical);

        return strncmp(path, c->canonical, size) == 0 && path[size] == '/' && path[size + 1] ? path + size + 1 : NULL;
}

static struct part *find_part(const struct crossing *c, const char *mount_point) {
        list_for_each(entry, &c->parts) {
                struct part *part = list_entry(entry, struct part, link);

                if (strcmp(part->mount_point, mount_point) == 0)
                        return part;
        }
        return NULL;
}

/* What a mount is in. */
static const struct part *part_above(const struct crossing *c, const char *mount_point) {
        const struct part *above = c->main;

        list_for_each(entry, &c->parts) {
                const struct part *part = list_entry(entry, struct part, link);
                size_t size = strlen(part->mount_point);

                if (strncmp(mount_point, part->mount_point, size) == 0 && mount_point[size] == '/' &&
                    size > strlen(above->mount_point))
                        above = part;
        }
        return above;
}

static void on_mount(void *userdata, const struct mount_view *mount) {
        struct crossing *c = userdata;
        const char *rest = below(c, mount->path);
        struct part *part = rest ? find_part(c, mount->path) : NULL;
        unsigned tries = 0;
        size_t n = 0;

        if (!rest || (c->outer->selective && !upper(c)->descends(c->outer, (struct event_path){ rest, strlen(rest) })))
                return;
        if (part && !part->changed && part->ended && !part->refused && part->tries >= TRIES_MAX)
                give_up(part);
        if (part && !part->changed && (!part->ended || part->refused)) {
                part->seen = true;
                return;
        }
        if (part) {
                tries = part->ended ? part->tries + 1 : 0;
                if (c->in_force)
                        tell(c, KEV_NOTE_RESCAN, rest);
                bury_part(part);
        }
        /* What is in a directory comes after the directory. */
        if (c->subject.list && !c->is_listed && !part_above(c, mount->path)->listed) {
                c->n_put_off++;
                return;
        }
        list_for_each(entry, &c->parts)
                n++;
        part = n < PARTS_MAX ? new_part(c, mount->path, (size_t)(rest - mount->path)) : NULL;
        if (!part) {
                tell(c, KEV_NOTE_DEGRADED, rest);
                return;
        }
        part->seen = true;
        part->tries = tries;
        list_append(&c->parts, &part->link);
        if (mount->is_kernels_own) {
                part->ended = part->refused = part->listed = true;
                tell(c, KEV_NOTE_DEGRADED, rest);
        } else
                attach_part(part);
}

/* Parts for the mounts that there are. */
static void look(struct crossing *c) {
        c->is_stale = false;
        if (!c->canonical) { /* it is not there yet */
                check_in_force(c);
                check_listed(c);
                return;
        }
        if (mounts_are_known(&c->all->mounts))
                c->is_degraded = false;
        else
                degrade(c);
        list_for_each(entry, &c->parts)
                list_entry(entry, struct part, link)->seen = false;
        c->n_put_off = 0;
        mounts_for_each(&c->all->mounts, on_mount, c);
        for (struct list *entry = c->parts.next, *next; entry != &c->parts; entry = next) {
                struct part *part = list_entry(entry, struct part, link);

                next = entry->next;
                if (part->seen)
                        continue;
                if (c->in_force)
                        tell(c, KEV_NOTE_RESCAN, part->mount_point + part->below);
                bury_part(part);
        }
        check_in_force(c);
        check_listed(c);
}

/* Another mount may be seen there: then the part is made anew. */
static void on_changed(struct mounts *mounts, const char *path) {
        struct crossings *all = container_of(mounts, struct crossings, mounts);

        all->differs = true;
        list_for_each(entry, &all->list) {
                struct crossing *c = list_entry(entry, struct crossing, link);
                struct part *part = c->canonical && below(c, path) ? find_part(c, path) : NULL;

                if (part)
                        part->changed = true;
        }
}

static void on_done(struct mounts *mounts) {
        struct crossings *all = container_of(mounts, struct crossings, mounts);

        if (!all->differs)
                return;
        all->differs = false;
        list_for_each(entry, &all->list)
                look_later(list_entry(entry, struct crossing, link));
}

static void on_doubt(struct mounts *mounts) {
        struct crossings *all = container_of(mounts, struct crossings, mounts);

        all->differs = true;
        list_for_each(entry, &all->list) {
                struct crossing *c = list_entry(entry, struct crossing, link);

                bury_parts(c);
                look_later(c);
        }
}

/* ---- where the watched directory is ------------------------------------------------------------------------------ */

static struct resolving *free_resolving(struct resolving *r) {
        (void)safe_close(r->fd);
        free(r->path);
        free(r->canonical);
        free(r);
        return NULL;
}

/* On a thread: the file system may never answer. */
static void resolve(struct work *work) {
        struct resolving *r = container_of(work, struct resolving, work);
        char link[32], path[PATH_MAX];
        ssize_t n;

        if (r->fd < 0) {
                r->canonical = realpath(r->path, NULL);
                r->error = r->canonical ? 0 : errno;
        } else {
                (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", r->fd);
                n = readlink(link, path, sizeof(path));
                if (n == sizeof(path))
                        r->error = ENAMETOOLONG;
                else if (n < 0 || !(r->canonical = strndup(path, (size_t)n)))
                        r->error = errno;
                r->fd = safe_close(r->fd);
        }
        mailbox_post(&r->all->mailbox, &r->message);
}

static int ask_where(struct crossing *c, int fd) {
        struct resolving *r = calloc(1, sizeof(*r));
        struct workers *workers = c->all->source.context->workers;
        uid_t uid = c->subject.asker->uid;
        int error = -ENOMEM;

        if (!r)
                return -ENOMEM;
        if (fd >= 0 && workers_are_full_of_fds(workers, uid)) {
                free(r);
                return -EDQUOT;
        }
        r->all = c->all;
        r->crossing = c;
        r->work.run = resolve;
        r->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
        r->work.has_fd = r->fd >= 0;
        r->path = c->path ? strdup(c->path) : NULL;
        list_init(&r->message);
        if (r->path || r->fd >= 0)
                error = workers_submit(workers, uid, &r->work);
        if (error < 0) {
                close_elsewhere(workers, uid, take_fd(&r->fd));
                free_resolving(r);
                return error;
        }
        c->resolving = r;
        return 0;
}

static void on_resolved(struct mailbox *mailbox) {
        struct list *entry;

        while ((entry = mailbox_take(mailbox))) {
                struct resolving *r = list_entry(entry, struct resolving, message);
                struct crossing *c = r->crossing;

                if (c) {
                        c->resolving = NULL;
                        free(c->canonical);
                        c->canonical = take_pointer(&r->canonical);
                        if (c->canonical)
                                compare(c->all);
                        else if (c->asked_since && !file_is_absent(r->error))
                                on_unresolved(c, r->error);
                        look(c);
                        mux_defer(c->all->mux, &c->all->run); /* for the barriers */
                }
                free_resolving(r);
        }
}

static bool is_settled(const struct crossing *c) {
        if (c->is_stale || c->resolving || c->main->starting)
                return false;
        list_for_each(entry, &c->parts)
                if (list_entry(entry, struct part, link)->starting)
                        return false;
        return true;
}

static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        const struct crossings *all = container_of(barriers, struct crossings, barriers);

        list_for_each(entry, &all->list) {
                const struct crossing *c = list_entry(entry, struct crossing, link);

                if (c->subject.asker == barrier->asker && c->in_force &&
                    (all->n_compared < barrier->position || !is_settled(c)))
                        return false;
        }
        return true;
}

static void on_run(struct mux_deferred *deferred) {
        struct crossings *all = container_of(deferred, struct crossings, run);

        free_dead(all);
        if (all->compares) {
                all->compares = false;
                compare(all);
        }
        list_for_each(entry, &all->list) {
                struct crossing *c = list_entry(entry, struct crossing, link);

                if (c->is_gone) {
                        c->is_gone = c->asks_again = c->is_degraded = false;
                        bury_parts(c);
                        free(take_pointer(&c->canonical));
                }
                if (c->is_back && !c->resolving) {
                        c->is_back = false;
                        c->is_listed = true; /* it was, or is told with a rescan */
                        ask_again(c);
                }
                if (c->is_stale)
                        look(c);
        }
        barriers_check(&all->barriers);
}

static void on_retry_timer(struct mux_timer *timer) {
        struct crossings *all = container_of(timer, struct crossings, retry_timer);

        list_for_each(entry, &all->list) {
                struct crossing *c = list_entry(entry, struct crossing, link);

                if (!c->asks_again)
                        continue;
                c->asks_again = false;
                if (!c->canonical && !c->resolving)
                        ask_again(c);
        }
}

/* ---- the source ---------------------------------------------------------------------------------------------------- */

static void free_crossing(struct crossing *c) {
        if (c->main)
                bury_part(c->main);
        bury_parts(c);
        free_dead(c->all);
        if (c->resolving)
                c->resolving->crossing = NULL;
        list_remove(&c->link);
        free(c->path);
        free(c->canonical);
        free(c);
}

static int crossings_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                            struct refusal *refusal) {
        struct crossings *all = crossings_of(source);
        struct crossing *c;
        struct subject own = *subject;
        int r = 0;

        own.cross_mounts = false;
        if (workers_are_stuck(source->context->workers, subject->asker->uid))
                return refuse(refusal, EDQUOT, "path: all of your look-ups wait for file systems that don't answer");
        c = calloc(1, sizeof(*c));
        if (!c)
                return refuse(refusal, ENOMEM, "no memory");
        c->all = all;
        c->outer = subscription;
        c->subject = own;
        c->subject.path = NULL;
        c->subject.fd = -1;
        list_init(&c->link);
        list_init(&c->parts);
        c->path = subject->fd < 0 ? strdup(subject->path) : NULL;
        c->asked_since = subject->fd >= 0; /* what is passed is there */
        c->main = new_part(c, "", 0);
        if (!c->main || (subject->fd < 0 && !c->path))
                r = refuse(refusal, ENOMEM, "no memory");
        if (r == 0) {
                r = ask_where(c, subject->fd);
                if (r < 0)
                        (void)refuse(refusal, -r, "path: %s", strerror(-r));
        }
        if (r == 0)
                r = sources_attach_part(source, &c->main->subscription, &own, refusal);
        if (r < 0) {
                free_crossing(c);
                return r;
        }
        c->main->starting = r == 1;
        c->is_listed = subject->listed;
        c->main->listed = !subject->list || subject->listed;
        list_append(&all->list, &c->link);
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
                struct part *part = list_entry(entry, struct part, link);
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
                struct part *part = list_entry(entry, struct part, link);

                part->subscription.selective = subscription->selective;
                source_select(&part->subscription);
        }
        look_later(c);
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
        list_init(&all->list);
        list_init(&all->dead);
        mux_deferred_init(&all->run, on_run);
        all->retry_timer = MUX_TIMER_INIT;
        all->compare_timer = MUX_TIMER_INIT;
        barriers_init(&all->barriers, all->mux, is_past);
        r = mailbox_open(&all->mailbox, all->mux, on_resolved);
        if (r < 0) {
                free(all);
                return r;
        }
        all->mounts.changed = on_changed;
        all->mounts.done = on_done;
        all->mounts.doubt = on_doubt;
        mounts_open(&all->mounts, all->mux);
        *ret_source = &all->source;
        return 0;
}

/* The workers have ended before. */
static void crossings_close(struct source *source) {
        struct crossings *all = crossings_of(source);

        free_dead(all);
        on_resolved(&all->mailbox);
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
