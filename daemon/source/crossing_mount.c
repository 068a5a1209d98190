/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Which mounts below a watched directory have a part. */

#include <string.h>

#include "crossing.h"

enum {
        PARTS_MAX = 1024, /* of a watch, */
        USER_PARTS_MAX = 16384, /* and of all of a user */
        PARTS_AT_ONCE = 64, /* that are made in one look at a watch */
        TRIES_MAX = 8,
};

/* Of a path: what is below the watched directory. NULL: it is not below. */
static const char *below(const struct crossing *c, const char *path) {
        size_t size = strcmp(c->canonical, "/") == 0 ? 0 : strlen(c->canonical);

        return strncmp(path, c->canonical, size) == 0 && path[size] == '/' && path[size + 1] ? path + size + 1 : NULL;
}

static uint64_t hash_place(const struct crossing *c, const char *mount_point, size_t size) {
        return hash_bytes(mount_point, size, (uintptr_t)c);
}

static struct crossing_part *find_part(const struct crossing *c, const char *mount_point, size_t size) {
        const struct hash *parts = &c->all->parts;

        if (c->n_parts == 0)
                return NULL;
        for (struct hash_node *n = hash_first(parts, hash_place(c, mount_point, size)); n; n = hash_next(n)) {
                struct crossing_part *part = container_of(n, struct crossing_part, node);

                if (part->crossing == c && strncmp(part->mount_point, mount_point, size) == 0 &&
                    part->mount_point[size] == 0)
                        return part;
        }
        return NULL;
}

/* What a mount is in. */
static const struct crossing_part *part_above(const struct crossing *c, const char *mount_point) {
        for (size_t size = strlen(mount_point); size > 0; size--) {
                const struct crossing_part *part = mount_point[size] == '/' ? find_part(c, mount_point, size) : NULL;

                if (part)
                        return part;
        }
        return c->main;
}

/* NULL: it has too many, or its user has, or there is no memory. */
static struct crossing_part *add_part(struct crossing *c, const char *mount_point, size_t below) {
        bool has_room = c->n_parts < PARTS_MAX && c->user->n_parts < USER_PARTS_MAX;
        struct crossing_part *part = has_room ? crossing_new_part(c, mount_point, below) : NULL;

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
        struct crossing_part *part = rest ? find_part(c, mount->path, strlen(mount->path)) : NULL;
        bool changed = part && part->changed != mount->changed, is_new = part || mount->changed > c->reading;
        unsigned tries = 0;

        if (!rest ||
            (c->outer->selective && !crossing_upper(c)->descends(c->outer, (struct event_path){ rest, strlen(rest) })))
                return;
        if (part && !changed && part->ended && !part->refused && part->tries >= TRIES_MAX)
                crossing_give_up(part);
        if (part && !changed && (!part->ended || part->refused)) {
                part->seen = true;
                return;
        }
        if (c->n_made == PARTS_AT_ONCE) { /* in its next turn */
                if (part)
                        part->seen = true;
                crossing_look_later(c);
                return;
        }
        if (part) {
                tries = part->ended ? part->tries + 1 : 0;
                if (c->in_force)
                        crossing_tell(c, KEV_NOTE_RESCAN, rest);
                crossing_bury_part(part);
        }
        /* What is in a directory comes after the directory. */
        if (c->subject.list && !c->is_listed && !part_above(c, mount->path)->listed) {
                c->n_put_off++;
                return;
        }
        part = add_part(c, mount->path, (size_t)(rest - mount->path));
        if (!part) {
                if (is_new) /* else that was told before */
                        crossing_tell(c, KEV_NOTE_DEGRADED, rest);
                return;
        }
        c->n_made++;
        part->seen = true;
        part->tries = tries;
        part->changed = mount->changed;
        if (mount->is_kernels_own) {
                part->ended = part->refused = part->listed = true;
                crossing_tell(c, KEV_NOTE_DEGRADED, rest);
        } else
                crossing_attach_part(part);
}

void crossing_look(struct crossing *c) {
        if (c->n_doubts != c->all->n_doubts)
                crossing_bury_parts(c);
        c->n_doubts = c->all->n_doubts;
        if (!c->canonical) { /* it is not there yet */
                crossing_check_in_force(c);
                crossing_check_listed(c);
                return;
        }
        if (mounts_are_known(&c->all->mounts))
                c->is_degraded = false;
        else
                crossing_degrade(c);
        list_for_each(entry, &c->parts)
                list_entry(entry, struct crossing_part, link)->seen = false;
        c->n_put_off = c->n_made = 0;
        mounts_for_each(&c->all->mounts, on_mount, c);
        if (c->n_put_off == 0 && c->n_made < PARTS_AT_ONCE)
                c->reading = c->all->mounts.reading;
        for (struct list *entry = c->parts.next, *next; entry != &c->parts; entry = next) {
                struct crossing_part *part = list_entry(entry, struct crossing_part, link);

                next = entry->next;
                if (part->seen)
                        continue;
                if (c->in_force)
                        crossing_tell(c, KEV_NOTE_RESCAN, part->mount_point + part->below);
                crossing_bury_part(part);
        }
        crossing_check_in_force(c);
        crossing_check_listed(c);
}

void crossings_on_changed(struct mounts *mounts, const char *path _unused_) {
        container_of(mounts, struct crossings, mounts)->differs = true;
}

void crossings_on_done(struct mounts *mounts) {
        struct crossings *all = container_of(mounts, struct crossings, mounts);

        if (!all->differs)
                return;
        all->differs = false;
        crossings_look_at_all(all);
}

/* Each may have another mount. */
void crossings_on_doubt(struct mounts *mounts) {
        struct crossings *all = container_of(mounts, struct crossings, mounts);

        all->differs = true;
        all->n_doubts++;
        crossings_look_at_all(all);
}
