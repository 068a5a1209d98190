/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Parts of a watch that crosses mounts: what is told of them, what they want, and what becomes of them. */

#include <errno.h>
#include <string.h>

#include "buffer.h"
#include "crossing.h"

static struct crossing_part *part_of(struct subscription *subscription) {
        return container_of(subscription, struct crossing_part, subscription);
}

void crossing_tell(struct crossing *c, uint64_t notes, const char *below) {
        struct report report = REPORT_INIT;

        report.notes = notes;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        report.below = (struct event_path){ below, strlen(below) };
        crossing_upper(c)->report(c->outer, &report);
        report_done(&report);
}

void crossing_check_listed(struct crossing *c) {
        if (!c->subject.list || c->is_listed || !c->in_force || !c->main->listed || c->resolving ||
            crossing_is_stale(c) || c->n_put_off > 0)
                return;
        list_for_each(entry, &c->parts)
                if (!list_entry(entry, struct crossing_part, link)->listed)
                        return;
        c->is_listed = true;
        crossing_tell(c, KEV_NOTE_LISTED, "");
}

/* The path with the part's own place in front. False: no memory. */
static bool place(const struct crossing_part *part, struct event_path path, struct buffer *b) {
        const char *below = part->mount_point + part->below;

        buffer_put_string(b, below);
        if (below[0] && path.size > 0)
                buffer_put_literal(b, "/");
        buffer_put(b, path.bytes, path.size);
        return !b->error;
}

/* A directory that moves takes along what is mounted below it. */
static bool may_move_mounts(const struct report *report) {
        return report->kind == KEV_KIND_DIRECTORY &&
               report->notes & (KEV_NOTE_RENAME | KEV_NOTE_MOVEDIN | KEV_NOTE_MOVEDOUT | KEV_NOTE_RESCAN);
}

static void report_of_part(struct crossing_part *part, const struct report *report) {
        struct crossing *c = part->crossing;
        struct buffer below _cleanup_(buffer_free) = BUFFER_INIT, from _cleanup_(buffer_free) = BUFFER_INIT;
        struct report copy = report_copy(report);

        if (copy.notes & (KEV_NOTE_GONE | KEV_NOTE_BACK)) {
                part->ended = copy.notes & KEV_NOTE_GONE;
                crossing_look_later(c);
                copy.notes = KEV_NOTE_RESCAN;
                copy.flags &= ~(uint32_t)KEV_FLAG_EOF;
        }
        if (copy.notes & KEV_NOTE_LISTED) {
                part->listed = true;
                crossing_look_later(c);
                copy.notes &= ~KEV_NOTE_LISTED;
                if (!copy.notes)
                        return;
        }
        if (may_move_mounts(report))
                crossings_compare_later(c->all);
        if (!place(part, report->below, &below) ||
            (report->from_below.bytes && !place(part, report->from_below, &from))) {
                crossing_tell(c, KEV_NOTE_RESCAN, "");
                return;
        }
        copy.below = (struct event_path){ below.data, below.size };
        if (report->from_below.bytes)
                copy.from_below = (struct event_path){ from.data, from.size };
        crossing_upper(c)->report(c->outer, &copy);
        report_done(&copy);
}

static void report_of_main(struct crossing *c, struct report *report) {
        if (report->notes & KEV_NOTE_LISTED && !c->is_listed) {
                c->main->listed = true;
                crossing_look_later(c);
                return;
        }
        if (report->notes & (KEV_NOTE_GONE | KEV_NOTE_BACK)) {
                c->is_gone = report->notes & KEV_NOTE_GONE;
                c->is_back = report->notes & KEV_NOTE_BACK;
                crossing_look_later(c);
        }
        if (may_move_mounts(report))
                crossings_compare_later(c->all);
        crossing_upper(c)->report(c->outer, report);
}

static void on_report(struct subscription *subscription, struct report *report) {
        struct crossings *all;
        struct crossing_part *part;

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

/* Without memory more is watched than need be. */
static bool descends(const struct subscription *subscription, struct event_path directory) {
        const struct crossing_part *part;
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;

        if (!subscription->is_part)
                return subscription->source->context->upper->descends(subscription, directory);
        part = container_of(subscription, const struct crossing_part, subscription);
        return !part->crossing || !place(part, directory, &b) ||
               crossing_upper(part->crossing)->descends(part->crossing->outer, (struct event_path){ b.data, b.size });
}

static bool sees_alike(const struct subscription *subscription, struct event_path a, struct event_path b) {
        const struct crossing_part *part;
        struct buffer in_a _cleanup_(buffer_free) = BUFFER_INIT, in_b _cleanup_(buffer_free) = BUFFER_INIT;

        if (!subscription->is_part)
                return subscription->source->context->upper->sees_alike(subscription, a, b);
        part = container_of(subscription, const struct crossing_part, subscription);
        return part->crossing && place(part, a, &in_a) && place(part, b, &in_b) &&
               crossing_upper(part->crossing)->sees_alike(part->crossing->outer,
                                                          (struct event_path){ in_a.data, in_a.size },
                                                          (struct event_path){ in_b.data, in_b.size });
}

static bool has_room(const struct subscription *subscription) {
        const struct crossing_part *part;

        if (!subscription->is_part)
                return subscription->source->context->upper->has_room(subscription);
        part = container_of(subscription, const struct crossing_part, subscription);
        return part->crossing && crossing_upper(part->crossing)->has_room(part->crossing->outer);
}

static void free_part(struct crossing_part *part) {
        source_detach(&part->subscription);
        list_remove(&part->link);
        free(part);
}

/* A barrier waits for those of its user that are in force. */
void crossing_count_unsettled(struct crossing *c) {
        bool is_unsettled = c->in_force && (c->resolving || c->n_starting > 0);

        if (is_unsettled == c->is_unsettled)
                return;
        c->is_unsettled = is_unsettled;
        c->user->n_unsettled += is_unsettled ? 1 : (size_t)-1;
}

void crossing_set_starting(struct crossing_part *part, bool starting) {
        part->crossing->n_starting += (size_t)starting - (size_t)part->starting;
        part->starting = starting;
        crossing_count_unsettled(part->crossing);
}

/* A source may be at work on it, or on another whose watch it is of. */
void crossing_bury_part(struct crossing_part *part) {
        struct crossing *c = part->crossing;
        struct crossings *all = c->all;

        crossing_set_starting(part, false);
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
void crossings_free_dead(struct crossings *all) {
        while (all->n_calls == 0 && !list_empty(&all->dead))
                free_part(list_entry(all->dead.next, struct crossing_part, link));
}

void crossing_bury_parts(struct crossing *c) {
        while (!list_empty(&c->parts))
                crossing_bury_part(list_entry(c->parts.next, struct crossing_part, link));
}

struct crossing_part *crossing_new_part(struct crossing *c, const char *mount_point, size_t below) {
        size_t size = strlen(mount_point) + 1;
        struct crossing_part *part = calloc(1, sizeof(*part) + size);

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

void crossing_check_in_force(struct crossing *c) {
        if (c->in_force || c->main->starting || c->resolving || crossing_is_stale(c))
                return;
        crossing_ask_since(c);
        if (c->resolving || c->n_starting > 0)
                return;
        c->in_force = true;
        crossing_upper(c)->attached(c->outer, NULL);
        crossing_check_listed(c);
}

/* What can't be read is none of the client's, and not even its name is; a file has nothing below it. The rest could be
 * watched, and is not covered. */
static void on_part_refused(struct crossing_part *part, int error) {
        struct crossing *c = part->crossing;

        part->ended = part->refused = part->listed = true;
        if (error != EACCES && error != EPERM && error != ENOENT && error != ENOTDIR)
                crossing_tell(c, KEV_NOTE_DEGRADED, part->mount_point + part->below);
        crossing_look_later(c); /* what is mounted in it may have waited for its list */
}

void crossing_give_up(struct crossing_part *part) {
        part->refused = part->listed = true;
        crossing_tell(part->crossing, KEV_NOTE_DEGRADED, part->mount_point + part->below);
        crossing_look_later(part->crossing);
}

void crossing_attach_part(struct crossing_part *part) {
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
                crossing_set_starting(part, true);
        else if (part->returns)
                crossing_tell(c, KEV_NOTE_RESCAN, part->mount_point + part->below);
}

static void on_part_attached(struct crossing_part *part, const struct refusal *refusal) {
        struct crossing *c = part->crossing;

        crossing_set_starting(part, false);
        if (refusal) {
                struct refusal copy = *refusal;

                source_detach(&part->subscription);
                if (part == c->main) {
                        crossing_upper(c)->attached(c->outer, &copy); /* buries all of it */
                        return;
                }
                on_part_refused(part, copy.error);
        } else if (part != c->main && part->returns)
                crossing_tell(c, KEV_NOTE_RESCAN, part->mount_point + part->below);
        crossing_check_in_force(c);
        crossing_check_listed(c);
        mux_defer(c->all->mux, &c->all->run); /* for the barriers */
}

static void on_attached(struct subscription *subscription, const struct refusal *refusal) {
        struct crossings *all;
        struct crossing_part *part;

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
