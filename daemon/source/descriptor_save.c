/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Descriptors for the next daemon: the set of each, which does not hold it open. What one is ready for as it goes on is
 * told, even if it was told before.
 */

#include <errno.h>
#include <sys/epoll.h>

#include "descriptors.h"
#include "state.h"

void descriptors_describe(const struct subscription *subscription, struct subject *subject) {
        subject->data = ((const struct descriptor *)subscription->object)->least;
}

/* Members of one group have its number. */
static uint64_t number_of(struct descriptor *d) {
        if (d->group && d->group->number == 0)
                d->group->number = ++d->all->n_groups_saved;
        return d->group ? d->group->number : 0;
}

bool descriptors_save(struct source *source _unused_, struct subscription *subscription, struct state_writer *w) {
        struct descriptor *d = subscription->object;

        if (d->handle.set < 0 || descriptor_is_being_made(d))
                return false;
        state_put_fd(w, d->handle.set);
        state_put_u64(w, d->handle.kind);
        state_put_i64(w, d->handle.slot);
        state_put_i64(w, d->handle.number);
        state_put_u64(w, d->handle.serial);
        state_put_u64(w, d->handle.device);
        state_put_u64(w, d->handle.inode);
        state_put_u64(w, d->events);
        state_put_bool(w, d->has_figures);
        state_put_u64(w, number_of(d));
        return true;
}

static struct group *find_group(const struct descriptor *d, uint64_t number) {
        for (struct hash_node *n = hash_first(&d->all->groups, group_hash(d)); n; n = hash_next(n)) {
                struct group *group = container_of(n, struct group, node);

                if (group->number == number)
                        return group;
        }
        return NULL;
}

static int go_on(struct descriptor *d, const struct asker *asker, struct state_reader *r, struct refusal *refusal) {
        uint64_t kind, number;

        d->handle.set = state_get_fd(r);
        kind = state_get_u64(r);
        d->handle.kind = (enum descriptor_kind)kind;
        d->handle.slot = (int)state_get_i64(r);
        d->handle.number = (int)state_get_i64(r);
        d->handle.serial = (uint32_t)state_get_u64(r);
        d->handle.device = (dev_t)state_get_u64(r);
        d->handle.inode = (ino_t)state_get_u64(r);
        d->events = (uint32_t)state_get_u64(r);
        d->has_figures = state_get_bool(r);
        number = state_get_u64(r);
        if (r->failed || d->handle.set < 0 || kind >= DESCRIPTOR_FILE || d->is_exclusive != (number > 0))
                return -EBADMSG;
        d->owner = owner_get(d->all, asker);
        if (!d->owner)
                return refuse(refusal, ENOMEM, "no memory");
        d->owner->n_passed = MAX(d->owner->n_passed, d->handle.serial);
        if (d->is_exclusive && group_enter(d, find_group(d, number)) < 0)
                return refuse(refusal, ENOMEM, "no memory");
        if (d->group) {
                d->group->number = number;
                d->all->n_groups_saved = MAX(d->all->n_groups_saved, number);
        }
        return descriptor_begin(d, refusal);
}

int descriptors_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                        struct state_reader *r, struct refusal *refusal) {
        struct descriptor *d = descriptor_new(container_of(source, struct descriptors, source), subscription, subject);
        int result;

        if (!d)
                return refuse(refusal, ENOMEM, "no memory");
        result = go_on(d, subject->asker, r, refusal);
        if (result < 0)
                descriptor_free(d);
        else
                subscription->object = d;
        return result;
}
