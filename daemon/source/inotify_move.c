/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Moves: IN_MOVED_FROM and IN_MOVED_TO joined. */

#include "inotify.h"

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
                exchange_on_move(s, from, from_name, to, to_name, is_dir, now);
        else
                tree_on_move(s, from, from_name, to, to_name, is_dir, now);
}

/* That out of the mark's directory: there is one at most. */
static struct move *find_move(const struct inotify *s, const struct mark *mark) {
        struct hash_node *n = s->moves_by_wd.n_nodes > 0 ? hash_first(&s->moves_by_wd, hash_u64((uint64_t)mark->wd)) : NULL;

        while (n && container_of(n, struct move, by_wd)->mark != mark)
                n = hash_next(n);
        return n ? container_of(n, struct move, by_wd) : NULL;
}

static struct move *find_first_half(const struct inotify *s, uint32_t cookie) {
        struct hash_node *n = hash_first(&s->moves_by_cookie, hash_u64(cookie));

        while (n && container_of(n, struct move, by_cookie)->cookie != cookie)
                n = hash_next(n);
        return n ? container_of(n, struct move, by_cookie) : NULL;
}

static void take_out(struct inotify *s, struct move *move) {
        list_remove(&move->link);
        hash_remove(&s->moves_by_wd, &move->by_wd);
        hash_remove(&s->moves_by_cookie, &move->by_cookie);
}

static void move_out(struct inotify *s, struct move *move) {
        take_out(s, move);
        for (struct dir *d = move->mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                tell(s, move->was_filled, d, move->name, NULL, NULL, move->is_dir, move->realtime_usec);
        }
        if (move->mark->vnode)
                vnode_on_move(move->mark, move->is_dir, false, move->realtime_usec);
        free(move);
}

void moves_out_of(struct inotify *s, const struct mark *mark) {
        struct move *move = find_move(s, mark);

        if (move)
                move_out(s, move);
}

void moves_out_before(struct inotify *s, const struct mark *mark, const struct inotify_event *event) {
        struct move *move = find_move(s, mark);

        if (move && !(event->mask & IN_MOVED_TO && move->cookie == event->cookie))
                move_out(s, move);
}

void moves_out_all(struct inotify *s) {
        while (!list_empty(&s->moves))
                move_out(s, list_entry(s->moves.next, struct move, link));
}

void moves_forget(struct inotify *s, const struct mark *mark) {
        struct move *move = find_move(s, mark);

        if (!move)
                return;
        take_out(s, move);
        free(move);
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
        size_t size = strlen(event->name) + 1;
        struct move *move = calloc(1, sizeof(*move) + size);
        struct arrival last = mark->arrival;
        bool was_fresh = mark->is_fresh;

        mark->arrival = (struct arrival){ 0 };
        mark->is_fresh = false;
        if (!move || hash_add(&s->moves_by_wd, &move->by_wd, hash_u64((uint64_t)mark->wd)) < 0 ||
            hash_add(&s->moves_by_cookie, &move->by_cookie, hash_u64(event->cookie)) < 0) {
                if (move)
                        hash_remove(&s->moves_by_wd, &move->by_wd);
                free(move);
                inotify_doubt(s);
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
        memcpy(move->name, event->name, size);
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
        struct move *move = find_first_half(s, event->cookie);
        bool is_dir = event->mask & IN_ISDIR, exchange = false;

        if (move) {
                take_out(s, move);
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

/* That of `dir` itself. */
static struct move *find_move_of(const struct inotify *s, const struct dir *dir) {
        struct move *move = dir->parent && dir->parent->mark ? find_move(s, dir->parent->mark) : NULL;

        return move && move->is_dir && strcmp(dir->name, move->name) == 0 ? move : NULL;
}

bool move_is_pending(const struct inotify *s, const struct dir *dir) {
        if (list_empty(&s->moves))
                return false;
        while (dir && !find_move_of(s, dir))
                dir = dir->parent;
        return dir != NULL;
}

void moves_out_self(struct inotify *s, const struct mark *mark) {
        struct move *move = NULL;

        for (const struct dir *d = mark->dirs; d && !move; d = d->next_on_mark)
                move = find_move_of(s, d);
        if (move)
                move_out(s, move);
}
