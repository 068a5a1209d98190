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
#include "hash.h"
#include "mailbox.h"
#include "mounts.h"
#include "source.h"
#include "workers.h"

enum {
        PARTS_MAX = 1024, /* of a watch, */
        USER_PARTS_MAX = 16384, /* and of all of a user */
        PARTS_AT_ONCE = 64, /* that are made in one look at a watch */
        TRIES_MAX = 8,
        RETRY_MSEC = 1000,
        COMPARE_MSEC = 10, /* between two readings of the mounts that what clients do has led to */
        SLICE_NSEC = 100 * 1000, /* of a turn, for watches that are to be looked at */
};

struct crossings {
        struct source source;
        struct mux *mux;
        struct hash users;
        struct list in_turn; /* users some of whose watches are to be looked at */
        struct hash parts;   /* but the main ones, by their watch and place */
        struct list asking;  /* watches that ask again, with the timer */
        struct mounts mounts;
        struct mailbox mailbox; /* of what the workers have found */
        struct mux_deferred run;
        bool differs;  /* the reading at hand from the last one */
        uint64_t n_changes; /* readings that did */
        uint64_t n_doubts;  /* when one may have been missed */
        bool compares; /* mounts may be in other places, of which poll(2) says nothing */
        uint64_t compared_nsec, n_compared;
        struct mux_timer compare_timer;
        struct mux_timer retry_timer;
        struct barriers barriers;
        struct list dead; /* parts of nobody's, to be detached: not while a source is walking its own */
        unsigned n_calls; /* of sources, under way */
};

/* Who has such watches. Those of others are looked at in between, however many these are. */
struct user {
        struct hash_node node;
        struct crossings *all;
        uid_t uid;
        size_t n_watches, n_parts;
        size_t n_unsettled; /* watches in force that wait for an answer */
        struct list looked_at;
        struct list to_look_at; /* those of which is_stale() is true */
        struct list in_turn;
};

struct part {
        struct hash_node node;
        struct subscription subscription;
        struct crossing *crossing;
        struct list link;
        bool starting;
        bool returns;  /* came while the watch was in force: told with a rescan */
        bool listed;
        bool ended;    /* nothing is told of it any more */
        unsigned tries; /* how often it had ended, and was made anew */
        bool refused;  /* it can't be watched, until the mounts change there */
        bool seen;     /* in this look at the mounts */
        uint64_t changed; /* of the mount that it is of, as it was made: with another number there may be another */
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
        struct list link;   /* of its user */
        struct list asking; /* or alone */
        struct crossings *all;
        struct user *user;
        struct subscription *outer;
        struct part *main;
        struct list parts;
        size_t n_parts;
        size_t n_starting; /* with the main one */
        size_t n_made;     /* in this look at the mounts */
        struct subject subject; /* what parts are asked for; no path, no descriptor */
        char *path;             /* as the client named it */
        char *canonical;
        struct resolving *resolving;
        bool in_force;
        bool is_listed;
        bool is_unsettled; /* it is counted as such */
        bool is_to_be_looked_at; /* for a reason of its own, not that mounts have changed */
        uint64_t n_changes, n_doubts; /* as it was looked at last */
        uint64_t reading; /* of the mounts: of those up to it that have no part it was told so; 0: of none */
        size_t n_put_off; /* mounts that get a part when what they are in is listed */
        bool is_back;  /* its path is to be resolved again */
        bool is_gone;
        bool asked_since; /* or is being asked: where it is, since the main part is in force */
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

/* Its parts are to be looked at. */
static bool is_stale(const struct crossing *c) {
        return c->is_to_be_looked_at || c->n_changes != c->all->n_changes;
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
        if (!c->subject.list || c->is_listed || !c->in_force || !c->main->listed || c->resolving || is_stale(c) ||
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

static void give_turn(struct user *user) {
        if (list_empty(&user->to_look_at))
                return;
        if (list_empty(&user->in_turn))
                list_append(&user->all->in_turn, &user->in_turn);
        mux_defer(user->all->mux, &user->all->run);
}

static void look_later(struct crossing *c) {
        if (c->is_to_be_looked_at)
                return;
        c->is_to_be_looked_at = true;
        list_remove(&c->link);
        list_append(&c->user->to_look_at, &c->link);
        give_turn(c->user);
}

static void look_at_all(struct crossings *all) {
        all->n_changes++;
        hash_for_each(node, &all->users) {
                struct user *user = container_of(node, struct user, node);

                list_splice(&user->to_look_at, &user->looked_at);
                give_turn(user);
        }
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

/* A barrier waits for those of its user that are in force. */
static void count_unsettled(struct crossing *c) {
        bool is_unsettled = c->in_force && (c->resolving || c->n_starting > 0);

        if (is_unsettled == c->is_unsettled)
                return;
        c->is_unsettled = is_unsettled;
        c->user->n_unsettled += is_unsettled ? 1 : (size_t)-1;
}

static void set_starting(struct part *part, bool starting) {
        part->crossing->n_starting += (size_t)starting - (size_t)part->starting;
        part->starting = starting;
        count_unsettled(part->crossing);
}

/* A source may be at work on it, or on another whose watch it is of. */
static void bury_part(struct part *part) {
        struct crossing *c = part->crossing;
        struct crossings *all = c->all;

        set_starting(part, false);
        if (part != c->main) {
                hash_remove(&all->parts, &part->node);
                c->n_parts--;
                c->user->n_parts--;
        }
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
        list_remove(&c->asking);
        if (!c->path || !is_shortage(-error))
                return;
        list_append(&all->asking, &c->asking);
        if (all->retry_timer.heap_index == 0)
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
        if (c->in_force || c->main->starting || c->resolving || is_stale(c))
                return;
        ask_since(c);
        if (c->resolving || c->n_starting > 0)
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
                set_starting(part, true);
        else if (part->returns)
                tell(c, KEV_NOTE_RESCAN, part->mount_point + part->below);
}

static void on_part_attached(struct part *part, const struct refusal *refusal) {
        struct crossing *c = part->crossing;

        set_starting(part, false);
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

static uint64_t hash_place(const struct crossing *c, const char *mount_point, size_t size) {
        return hash_bytes(mount_point, size, (uintptr_t)c);
}

static struct part *find_part(const struct crossing *c, const char *mount_point, size_t size) {
        const struct hash *parts = &c->all->parts;

        if (c->n_parts == 0)
                return NULL;
        for (struct hash_node *n = hash_first(parts, hash_place(c, mount_point, size)); n; n = hash_next(n)) {
                struct part *part = container_of(n, struct part, node);

                if (part->crossing == c && strncmp(part->mount_point, mount_point, size) == 0 &&
                    part->mount_point[size] == 0)
                        return part;
        }
        return NULL;
}

/* What a mount is in. */
static const struct part *part_above(const struct crossing *c, const char *mount_point) {
        for (size_t size = strlen(mount_point); size > 0; size--) {
                const struct part *part = mount_point[size] == '/' ? find_part(c, mount_point, size) : NULL;

                if (part)
                        return part;
        }
        return c->main;
}

/* NULL: it has too many, or its user has, or there is no memory. */
static struct part *add_part(struct crossing *c, const char *mount_point, size_t below) {
        bool has_room = c->n_parts < PARTS_MAX && c->user->n_parts < USER_PARTS_MAX;
        struct part *part = has_room ? new_part(c, mount_point, below) : NULL;

        if (!part || hash_add(&c->all->parts, &part->node, hash_place(c, mount_point, strlen(mount_point))) < 0) {
                free(part);
                return NULL;
        }
        list_append(&c->parts, &part->link);
        c->n_parts++;
        c->user->n_parts++;
        return part;
}

static void on_mount(void *userdata, const struct mount_view *mount) {
        struct crossing *c = userdata;
        const char *rest = below(c, mount->path);
        struct part *part = rest ? find_part(c, mount->path, strlen(mount->path)) : NULL;
        bool changed = part && part->changed != mount->changed, is_new = part || mount->changed > c->reading;
        unsigned tries = 0;

        if (!rest || (c->outer->selective && !upper(c)->descends(c->outer, (struct event_path){ rest, strlen(rest) })))
                return;
        if (part && !changed && part->ended && !part->refused && part->tries >= TRIES_MAX)
                give_up(part);
        if (part && !changed && (!part->ended || part->refused)) {
                part->seen = true;
                return;
        }
        if (c->n_made == PARTS_AT_ONCE) { /* in its next turn */
                if (part)
                        part->seen = true;
                look_later(c);
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
        part = add_part(c, mount->path, (size_t)(rest - mount->path));
        if (!part) {
                if (is_new) /* else that was told before */
                        tell(c, KEV_NOTE_DEGRADED, rest);
                return;
        }
        c->n_made++;
        part->seen = true;
        part->tries = tries;
        part->changed = mount->changed;
        if (mount->is_kernels_own) {
                part->ended = part->refused = part->listed = true;
                tell(c, KEV_NOTE_DEGRADED, rest);
        } else
                attach_part(part);
}

/* Parts for the mounts that there are; one is made anew where another may be seen. */
static void look(struct crossing *c) {
        if (c->n_doubts != c->all->n_doubts)
                bury_parts(c);
        c->n_doubts = c->all->n_doubts;
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
        c->n_put_off = c->n_made = 0;
        mounts_for_each(&c->all->mounts, on_mount, c);
        if (c->n_put_off == 0 && c->n_made < PARTS_AT_ONCE)
                c->reading = c->all->mounts.reading;
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

static void on_changed(struct mounts *mounts, const char *path _unused_) {
        container_of(mounts, struct crossings, mounts)->differs = true;
}

static void on_done(struct mounts *mounts) {
        struct crossings *all = container_of(mounts, struct crossings, mounts);

        if (!all->differs)
                return;
        all->differs = false;
        look_at_all(all);
}

/* Each may have another mount. */
static void on_doubt(struct mounts *mounts) {
        struct crossings *all = container_of(mounts, struct crossings, mounts);

        all->differs = true;
        all->n_doubts++;
        look_at_all(all);
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
        count_unsettled(c);
        return 0;
}

static void on_resolved(struct mailbox *mailbox) {
        struct list *entry;

        while ((entry = mailbox_take(mailbox))) {
                struct resolving *r = list_entry(entry, struct resolving, message);
                struct crossing *c = r->crossing;

                if (c) {
                        c->resolving = NULL;
                        count_unsettled(c);
                        free(c->canonical);
                        c->canonical = take_pointer(&r->canonical);
                        if (c->canonical)
                                compare(c->all);
                        else if (c->asked_since && !file_is_absent(r->error))
                                on_unresolved(c, r->error);
                        look_later(c);
                }
                free_resolving(r);
        }
}

static struct user *find_user(const struct crossings *all, uid_t uid) {
        struct hash_node *n = hash_first(&all->users, hash_u64(uid));

        while (n && container_of(n, struct user, node)->uid != uid)
                n = hash_next(n);
        return n ? container_of(n, struct user, node) : NULL;
}

static bool is_past(struct barriers *barriers, struct source_barrier *barrier) {
        const struct crossings *all = container_of(barriers, struct crossings, barriers);
        const struct user *user = find_user(all, barrier->asker->uid);

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
                bury_parts(c);
                free(take_pointer(&c->canonical));
                c->reading = 0;
        }
        if (c->is_back && !c->resolving) {
                c->is_back = false;
                c->is_listed = true; /* it was, or is told with a rescan */
                ask_again(c);
        }
        look(c);
}

/* Of each user one at a time. */
static void look_at_some(struct crossings *all) {
        uint64_t end_nsec = monotonic_nsec() + SLICE_NSEC;
        struct list *entry;

        do {
                struct user *user;

                entry = list_pop(&all->in_turn);
                if (!entry)
                        return;
                user = list_entry(entry, struct user, in_turn);
                look_at(list_entry(list_pop(&user->to_look_at), struct crossing, link));
                give_turn(user);
        } while (monotonic_nsec() < end_nsec);
        if (!list_empty(&all->in_turn))
                mux_defer(all->mux, &all->run);
}

static void on_run(struct mux_deferred *deferred) {
        struct crossings *all = container_of(deferred, struct crossings, run);

        free_dead(all);
        if (all->compares) {
                all->compares = false;
                compare(all);
        }
        look_at_some(all);
        barriers_check(&all->barriers);
}

static void on_retry_timer(struct mux_timer *timer) {
        struct crossings *all = container_of(timer, struct crossings, retry_timer);
        struct list now, *entry;

        list_init(&now);
        list_splice(&now, &all->asking);
        while ((entry = list_pop(&now))) {
                struct crossing *c = list_entry(entry, struct crossing, asking);

                if (!c->canonical && !c->resolving)
                        ask_again(c);
        }
}

/* ---- the source ---------------------------------------------------------------------------------------------------- */

/* For one more watch. NULL: no memory. */
static struct user *get_user(struct crossings *all, uid_t uid) {
        struct user *user = find_user(all, uid);

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

static void put_user(struct user *user) {
        if (list_empty(&user->to_look_at))
                list_remove(&user->in_turn);
        if (--user->n_watches > 0)
                return;
        hash_remove(&user->all->users, &user->node);
        free(user);
}

static void free_crossing(struct crossing *c) {
        if (c->main)
                bury_part(c->main);
        bury_parts(c);
        free_dead(c->all);
        if (c->resolving)
                c->resolving->crossing = NULL;
        c->in_force = false;
        count_unsettled(c);
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
        struct user *user;
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
        set_starting(c->main, r == 1);
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
        c->reading = 0; /* other mounts may be wanted */
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
        list_init(&all->in_turn);
        list_init(&all->asking);
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
