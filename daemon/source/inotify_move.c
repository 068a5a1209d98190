/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Moves: IN_MOVED_FROM and IN_MOVED_TO joined. */

#include "inotify.h"

#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

enum { MOVE_WAIT_USEC = 2000 }; /* for the second half: who renames may be preempted in between */

/*
 * An exchange of two names (renameat2(2)) is told as two renames that undo each other, after which neither name has
 * what the first of the two said. Others' events come in between, but none of the two directories: they are locked. So
 * each directory remembers its last arrival, and a rename that takes that away at once may be the rest of an exchange
 * if it ends where the arrival has come from, or if one of these places is not known: it is out of sight, or was at the
 * first of the two renames, or the second half of a rename was too late.
 */

/* FNV-1a. */
static uint32_t hash_on(uint32_t h, const char *name) {
        for (; *name; name++)
                h = (h ^ (unsigned char)*name) * UINT32_C(16777619);
        return h ? h : 1;
}

static uint32_t hash_name(const char *name) {
        return hash_on(UINT32_C(2166136261), name);
}

static uint32_t hash_origin(const struct mark *mark, const char *name) {
        return hash_on((uint32_t)mark->wd * UINT32_C(2654435761), name);
}

static void tell(struct inotify *s, bool exchange, struct dir *from, const char *from_name, struct dir *to,
                 const char *to_name, bool is_dir, uint64_t now) {
        if (exchange && from)
                tree_on_exchange(s, from, from_name, to, to_name, is_dir, now);
        else
                tree_on_move(s, from, from_name, to, to_name, is_dir, now);
}

void move_out(struct inotify *s, struct move *move) {
        list_remove(&move->link);
        for (struct dir *d = move->mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                tell(s, move->was_filled, d, move->name, NULL, NULL, move->is_dir, move->realtime_usec);
        }
        if (move->mark->vnode)
                vnode_on_move(move->mark, move->is_dir, false, move->realtime_usec);
        free(move);
}

void moves_out_of(struct inotify *s, const struct mark *mark) {
        for (bool found = true; found;) {
                found = false;
                list_for_each(entry, &s->moves) {
                        struct move *move = list_entry(entry, struct move, link);

                        if (move->mark != mark)
                                continue;
                        move_out(s, move);
                        found = true;
                        break;
                }
        }
}

void moves_out_late(struct inotify *s) {
        uint64_t now = monotonic_nsec();

        while (!list_empty(&s->moves)) {
                struct move *first = list_entry(s->moves.next, struct move, link);

                if (first->deadline_nsec > now)
                        break;
                move_out(s, first);
        }
}

void move_on_from(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t now) {
        struct move *move = calloc(1, sizeof(*move));
        struct arrival last = mark->arrival;
        bool was_fresh = mark->is_fresh;

        mark->arrival = (struct arrival){ 0 };
        mark->is_fresh = false;
        if (!move) {
                s->in_doubt = true;
                return;
        }
        move->cookie = event->cookie;
        move->mark = mark;
        move->is_dir = event->mask & IN_ISDIR;
        move->was_filled = was_fresh || last.name == hash_name(event->name);
        move->origin = last.origin;
        move->realtime_usec = now;
        move->deadline_nsec = monotonic_nsec() + MOVE_WAIT_USEC * NSEC_PER_USEC;
        move->position = s->bytes_handled;
        (void)snprintf(move->name, sizeof(move->name), "%s", event->name);
        list_append(&s->moves, &move->link);
}

/* The directory on `mark` that is on the mount of `like`. */
static struct dir *dir_on_mount(const struct mark *mark, const struct dir *like) {
        struct dir *d = mark->dirs;

        while (d && d->mount != like->mount)
                d = d->next_on_mark;
        return d;
}

void move_on_to(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t now) {
        struct move *move = NULL;
        bool is_dir = event->mask & IN_ISDIR, exchange = false;

        list_for_each(entry, &s->moves)
                if (list_entry(entry, struct move, link)->cookie == event->cookie)
                        move = list_entry(entry, struct move, link);
        if (move) {
                list_remove(&move->link);
                exchange = move->was_filled && (move->origin == 0 || mark->is_fresh ||
                                                move->origin == hash_origin(mark, event->name));
        }
        mark->arrival.name = hash_name(event->name);
        mark->arrival.origin = move ? hash_origin(move->mark, move->name) : 0;
        mark->is_fresh = false;
        for (struct dir *d = mark->dirs, *next; d; d = next) {
                struct dir *from = move ? dir_on_mount(move->mark, d) : NULL;

                next = d->next_on_mark;
                tell(s, exchange, from, from ? move->name : NULL, d, event->name, is_dir, now);
        }
        if (move)
                for (struct dir *d = move->mark->dirs, *next; d; d = next) {
                        next = d->next_on_mark;
                        if (!dir_on_mount(mark, d))
                                tell(s, exchange, d, move->name, NULL, NULL, is_dir, now);
                }
        if (mark->vnode)
                vnode_on_move(mark, is_dir, move && move->mark == mark, now);
        if (move && move->mark != mark && move->mark->vnode)
                vnode_on_move(move->mark, is_dir, false, now);
        free(move);
}

static bool is_of(const struct move *move, const struct dir *dir) {
        return move->is_dir && dir->parent && dir->parent->mark == move->mark && strcmp(dir->name, move->name) == 0;
}

bool move_is_pending(const struct inotify *s, const struct dir *dir) {
        if (list_empty(&s->moves))
                return false;
        for (; dir; dir = dir->parent)
                list_for_each(entry, &s->moves)
                        if (is_of(list_entry(entry, struct move, link), dir))
                                return true;
        return false;
}

void moves_out_self(struct inotify *s, const struct mark *mark) {
        list_for_each(entry, &s->moves) {
                struct move *move = list_entry(entry, struct move, link);
                bool moved = false;

                for (const struct dir *d = mark->dirs; d && !moved; d = d->next_on_mark)
                        moved = is_of(move, d);
                if (moved) {
                        move_out(s, move);
                        return;
                }
        }
}
