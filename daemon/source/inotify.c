/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "inotify.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

#include "log.h"

enum {
        CHUNK_BYTES = 64 * 1024,
        BACKLOG_MAX = 64 * 1024 * 1024, /* then the kernel's queue may overflow */
        EVENTS_A_TURN = 1024,
        TRASH_A_TURN = 64,
        ANSWERS_A_TURN = 256,
        ENTRIES_AN_ANSWER = 16, /* that cost as much as an answer */
        MOVE_WAIT_USEC = 2000,     /* for the second half: who renames may be preempted in between */
        AWAITED_RETRY_USEC = 200,
        AWAITED_MAX_MSEC = 50,
        BARRIER_MAX_MSEC = 1000,
        MARKS_LATE_MAX = 1024,
};

struct chunk {
        struct list link;
        size_t size, position;
        char data[CHUNK_BYTES] __attribute__((aligned(8)));
};

/* A wd by itself. */
struct lone_wd {
        struct hash_node node;
        int wd;
};

/* ---- marks ------------------------------------------------------------------------------- */

struct mark *mark_find(const struct inotify *s, int wd) {
        struct hash_node *n = hash_first(&s->marks, hash_u64((uint64_t)wd));

        while (n && container_of(n, struct mark, node)->wd != wd)
                n = hash_next(n);
        return n ? container_of(n, struct mark, node) : NULL;
}

struct mark *mark_get(struct inotify *s, int wd) {
        struct mark *mark = mark_find(s, wd);

        if (mark)
                return mark;
        mark = calloc(1, sizeof(*mark));
        if (!mark)
                return NULL;
        mark->wd = wd;
        list_init(&mark->ghost);
        if (hash_add(&s->marks, &mark->node, hash_u64((uint64_t)wd)) < 0) {
                free(mark);
                return NULL;
        }
        return mark;
}

/* It is out of the table now, and freed before the next event. */
static void mark_free(struct inotify *s, struct mark *mark) {
        list_for_each(entry, &s->moves) {
                struct move *move = list_entry(entry, struct move, link);

                if (move->mark != mark)
                        continue;
                list_remove(&move->link);
                free(move);
        }
        mark->dying = true;
        s->n_ghosts -= !list_empty(&mark->ghost);
        list_remove(&mark->ghost);
        hash_remove(&s->marks, &mark->node);
        mark->node.next = s->dead_marks;
        s->dead_marks = &mark->node;
}

/* Marks may end while an event of theirs is being handled. */
static void bury_marks(struct inotify *s) {
        while (s->dead_marks) {
                struct mark *mark = container_of(s->dead_marks, struct mark, node);

                s->dead_marks = mark->node.next;
                free(mark);
        }
}

/* The kernel has dropped it. Lookups that are under way may still bring its wd: then they are asked again. */
static void make_ghost(struct inotify *s, struct mark *mark) {
        mark->dying = true;
        if (list_empty(&s->lookups)) {
                mark_free(s, mark);
                return;
        }
        if (!list_empty(&mark->ghost))
                return;
        mark->order = s->order;
        list_append(&s->ghosts, &mark->ghost);
        s->n_ghosts++;
}

/* No lookup under way can bring their wds any more. */
static void lay_ghosts(struct inotify *s) {
        const struct lookup *first = list_empty(&s->lookups) ? NULL : list_entry(s->lookups.next, struct lookup, link);

        while (!list_empty(&s->ghosts)) {
                struct mark *mark = list_entry(s->ghosts.next, struct mark, ghost);

                if (first && first->order <= mark->order)
                        break;
                mark_free(s, mark);
        }
}

void mark_release(struct inotify *s, struct mark *mark) {
        if (mark->dirs || mark->vnode || mark->dying)
                return;
        if (inotify_rm_watch(s->fd, mark->wd) < 0)
                make_ghost(s, mark);
        else
                mark->dying = true;
}

static struct lone_wd *find_lone(const struct hash *table, int wd) {
        struct hash_node *n = table->n_nodes > 0 ? hash_first(table, hash_u64((uint64_t)wd)) : NULL;

        while (n && container_of(n, struct lone_wd, node)->wd != wd)
                n = hash_next(n);
        return n ? container_of(n, struct lone_wd, node) : NULL;
}

/* False: no memory. */
static bool add_lone(struct hash *table, int wd) {
        struct lone_wd *lone;

        if (find_lone(table, wd))
                return true;
        lone = calloc(1, sizeof(*lone));
        if (!lone)
                return false;
        lone->wd = wd;
        if (hash_add(table, &lone->node, hash_u64((uint64_t)wd)) == 0)
                return true;
        free(lone);
        return false;
}

static void forget_lone(struct hash *table) {
        if (table->n_nodes == 0)
                return;
        hash_for_each(node, table)
                free(container_of(node, struct lone_wd, node));
        hash_free(table);
}

void mark_orphan(struct inotify *s, int wd) {
        struct mark *mark = mark_find(s, wd);

        if (!mark || (!mark->dirs && !mark->vnode && !mark->dying))
                (void)add_lone(&s->orphans, wd);
}

/* With no lookup under way nobody will claim them any more. */
static void remove_orphans(struct inotify *s) {
        if (s->orphans.n_nodes == 0)
                return;
        hash_for_each(node, &s->orphans) {
                int wd = container_of(node, struct lone_wd, node)->wd;
                struct mark *mark = mark_find(s, wd);

                if (mark)
                        mark_release(s, mark);
                else
                        (void)inotify_rm_watch(s->fd, wd);
        }
        forget_lone(&s->orphans);
}

bool mark_was_late(struct inotify *s, int wd) {
        struct lone_wd *late = find_lone(&s->late, wd);

        if (!late)
                return false;
        hash_remove(&s->late, &late->node);
        free(late);
        return true;
}

/* An event of it is passed over: whoever claims it looks at it again. */
static void pass_over(struct inotify *s, int wd) {
        if (s->late.n_nodes >= MARKS_LATE_MAX || !add_lone(&s->late, wd))
                s->in_doubt = true;
}

/* ---- moves: MOVED_FROM and MOVED_TO joined ------------------------------------------------- */

static void move_out(struct inotify *s, struct move *move) {
        list_remove(&move->link);
        for (struct dir *d = move->mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                if (move->was_filled)
                        tree_on_exchange(s, d, move->name, NULL, NULL, move->is_dir, move->realtime_usec);
                else
                        tree_on_move(s, d, move->name, NULL, NULL, move->is_dir, move->realtime_usec);
        }
        if (move->mark->vnode)
                vnode_on_move(s, move->mark, move->is_dir, false, move->realtime_usec);
        free(move);
}

/* Those of one mark. */
static void move_out_of(struct inotify *s, const struct mark *mark) {
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

/* Those that have waited long enough. */
static void move_out_late(struct inotify *s) {
        uint64_t now = monotonic_nsec();

        while (!list_empty(&s->moves)) {
                struct move *first = list_entry(s->moves.next, struct move, link);

                if (first->deadline_nsec > now)
                        break;
                move_out(s, first);
        }
}

static void on_move_timer(struct mux_timer *timer);

static void on_moved_from(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t now) {
        struct move *move = calloc(1, sizeof(*move));

        if (!move) {
                s->in_doubt = true;
                return;
        }
        move->cookie = event->cookie;
        move->mark = mark;
        move->is_dir = event->mask & IN_ISDIR;
        move->was_filled = s->last_arrival.wd == mark->wd && strcmp(s->last_arrival.name, event->name) == 0;
        move->realtime_usec = now;
        move->deadline_nsec = monotonic_nsec() + MOVE_WAIT_USEC * NSEC_PER_USEC;
        move->position = s->bytes_handled;
        (void)snprintf(move->name, sizeof(move->name), "%s", event->name);
        list_append(&s->moves, &move->link);
}

/* Two moves that undo each other may be one exchange (renameat2(2)), after which
 * neither name has what the first of the two said. */
static bool is_exchange(struct inotify *s, struct dir *from, const char *from_name, struct dir *to,
                        const char *to_name) {
        bool mirrored = s->last_rename.from_dir == to->id && s->last_rename.to_dir == from->id &&
                        strcmp(s->last_rename.from, to_name) == 0 && strcmp(s->last_rename.to, from_name) == 0;

        s->last_rename.from_dir = from->id;
        s->last_rename.to_dir = to->id;
        (void)snprintf(s->last_rename.from, sizeof(s->last_rename.from), "%s", from_name);
        (void)snprintf(s->last_rename.to, sizeof(s->last_rename.to), "%s", to_name);
        return mirrored;
}

/* The directory on `mark` that is on the mount of `like`. */
static struct dir *dir_on_mount(const struct mark *mark, const struct dir *like) {
        struct dir *d = mark->dirs;

        while (d && d->mount != like->mount)
                d = d->next_on_mark;
        return d;
}

static void on_moved_to(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t now) {
        struct move *move = NULL;
        bool is_dir = event->mask & IN_ISDIR;

        list_for_each(entry, &s->moves)
                if (list_entry(entry, struct move, link)->cookie == event->cookie)
                        move = list_entry(entry, struct move, link);
        if (move)
                list_remove(&move->link);
        else {
                s->last_arrival.wd = mark->wd;
                (void)snprintf(s->last_arrival.name, sizeof(s->last_arrival.name), "%s", event->name);
        }
        for (struct dir *d = mark->dirs, *next; d; d = next) {
                struct dir *from = move ? dir_on_mount(move->mark, d) : NULL;

                next = d->next_on_mark;
                if (from && is_exchange(s, from, move->name, d, event->name))
                        tree_on_exchange(s, from, move->name, d, event->name, is_dir, now);
                else
                        tree_on_move(s, from, from ? move->name : NULL, d, event->name, is_dir, now);
        }
        if (move)
                for (struct dir *d = move->mark->dirs, *next; d; d = next) {
                        next = d->next_on_mark;
                        if (!dir_on_mount(mark, d))
                                tree_on_move(s, d, move->name, NULL, NULL, is_dir, now);
                }
        if (mark->vnode)
                vnode_on_move(s, mark, is_dir, move && move->mark == mark, now);
        if (move && move->mark != mark && move->mark->vnode)
                vnode_on_move(s, move->mark, is_dir, false, now);
        free(move);
}

/* ---- lookups ---------------------------------------------------------------------------------------- */

int submit(struct inotify *s, struct lookup *lookup, uid_t user, struct dir *root, struct dir *stop) {
        int r;

        lookup->context = &s->lookup_context;
        lookup->user = user;
        lookup->n_placed = s->tree.n_placed;
        if (lookup->serial == 0)
                lookup->serial = ++s->serial;
        lookup->order = ++s->order;
        r = lookup_submit(s->source.context->workers, lookup);
        if (r < 0)
                return r;
        lookup->root = tree_ref(root);
        lookup->stop = tree_ref(stop);
        list_append(&s->lookups, &lookup->link);
        if (lookup->kind == LOOKUP_CRAWL)
                tree_add_crawl(s, lookup);
        return 0;
}

static void end_lookup(struct inotify *s, struct lookup *lookup) {
        list_remove(&lookup->link);
        list_remove(&lookup->crawl);
        list_splice(&s->unblocked, &lookup->blocked);
        tree_unref(&s->tree, lookup->root);
        tree_unref(&s->tree, lookup->stop);
        lookup_free(lookup);
}

void lookup_ended(struct inotify *s, struct lookup *lookup) {
        end_lookup(s, lookup);
        lay_ghosts(s);
        if (list_empty(&s->lookups)) {
                remove_orphans(s);
                forget_lone(&s->late);
                tree_forget_touched(s);
        }
        tree_check_starting(s);
}

/* Returns what it cost, in directories without entries. */
static unsigned answer(struct inotify *s, struct lookup_message *message) {
        struct lookup *lookup = message->lookup;

        list_remove(&message->link);
        list_remove(&message->due);
        if (message->first_wd >= 0)
                hash_remove(&s->answered, &message->node);
        if (!message->end) {
                struct found *found = container_of(message, struct found, message);
                unsigned cost = 1 + (unsigned)(found->n_entries / ENTRIES_AN_ANSWER);

                tree_on_found(s, found);
                free(found);
                return cost;
        }
        switch (lookup->kind) {
        case LOOKUP_RESOLVE:
                tree_on_resolved(s, lookup);
                break;
        case LOOKUP_CRAWL:
                tree_on_crawled(s, lookup);
                break;
        case LOOKUP_VNODE:
                vnode_on_watched(s, lookup);
                break;
        case LOOKUP_STAT:
                vnode_on_stat(s, lookup);
                break;
        case LOOKUP_PLACE:
                tree_on_place(s, lookup);
                break;
        case LOOKUP_NAME:
                tree_on_name(s, lookup);
                break;
        }
        lookup_ended(s, lookup);
        return 1;
}

/* The answer that this wd is the first event of, and what the same lookup has told before. False: there is none. */
static bool answer_for(struct inotify *s, int wd) {
        struct hash_node *n = s->answered.n_nodes > 0 ? hash_first(&s->answered, hash_u64((uint64_t)wd)) : NULL;
        struct lookup_message *last, *message;
        struct lookup *lookup;

        while (n && container_of(n, struct lookup_message, node)->first_wd != wd)
                n = hash_next(n);
        if (!n)
                return false;
        last = container_of(n, struct lookup_message, node);
        lookup = last->lookup;
        do {
                message = list_entry(lookup->answers.next, struct lookup_message, link);
                (void)answer(s, message);
        } while (message != last);
        return true;
}

/* There may be many where directories come and go at once: they wait for nothing. */
static bool is_of_no_interest(const struct lookup_message *message) {
        const struct lookup *lookup = message->lookup;

        return message->end && lookup->error == ECANCELED && lookup->answers.next == &message->link;
}

static void take_answers(struct inotify *s) {
        struct list *entry;

        while ((entry = mailbox_take(&s->mailbox))) {
                struct lookup_message *message = list_entry(entry, struct lookup_message, link);

                message->position = UINT64_MAX;
                list_append(&message->lookup->answers, &message->link);
                list_append(&s->due, &message->due);
                if (message->end)
                        lookup_end_section(message->lookup);
                if (message->first_wd >= 0 &&
                    hash_add(&s->answered, &message->node, hash_u64((uint64_t)message->first_wd)) < 0)
                        s->in_doubt = true;
                if (is_of_no_interest(message))
                        (void)answer(s, message);
        }
}

/* The kernel's queue is read: what is in the chunks is older than the answers, or younger than their watches. */
static void place_answers(struct inotify *s) {
        for (struct list *entry = s->due.previous; entry != &s->due; entry = entry->previous) {
                struct lookup_message *message = list_entry(entry, struct lookup_message, due);

                if (message->position != UINT64_MAX)
                        break;
                message->position = s->bytes_read;
        }
}

/* ---- handling one event ------------------------------------------------------------------------ */

static void on_ignored(struct inotify *s, struct mark *mark) {
        mark->dying = true; /* nothing to be removed from the kernel */
        move_out_of(s, mark);
        while (mark->dirs) {
                struct dir *d = mark->dirs;

                mark->dirs = d->next_on_mark;
                d->next_on_mark = NULL;
                d->mark = NULL;
                tree_on_unmarked(s, d);
        }
        if (mark->vnode)
                vnode_on_unmarked(s, mark);
        make_ghost(s, mark);
}

static void on_entry(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t now) {
        /* A directory is locked while an entry changes: a move out of it whose
         * second half has not come by now went elsewhere. */
        if ((event->mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO)) && !list_empty(&s->moves))
                list_for_each(entry, &s->moves) {
                        struct move *move = list_entry(entry, struct move, link);

                        if (move->mark != mark || (event->mask & IN_MOVED_TO && move->cookie == event->cookie))
                                continue;
                        move_out(s, move);
                        break; /* there is one a directory at most */
                }
        if (event->mask & IN_MOVED_FROM)
                on_moved_from(s, mark, event, now);
        if (event->mask & (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO))
                s->last_arrival.wd = 0;
        if (event->mask & IN_MOVED_FROM)
                return;
        if (event->mask & IN_MOVED_TO) {
                on_moved_to(s, mark, event, now);
                return;
        }
        for (struct dir *d = mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                tree_on_entry(s, d, event->mask, event->name, now);
        }
        if (mark->vnode)
                vnode_on_event(s, mark, event->mask, true, now);
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

/* The MOVED_TO of a directory precedes its MOVE_SELF: if there was none, it went where nobody looks. */
static void move_out_self(struct inotify *s, const struct mark *mark) {
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

static void on_self(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t now) {
        if (event->mask & IN_MOVE_SELF)
                move_out_self(s, mark);
        for (struct dir *d = mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                tree_on_self(s, d, event->mask, now);
        }
        if (mark->vnode)
                vnode_on_event(s, mark, event->mask, false, now);
}

static void on_awaited_timer(struct mux_timer *timer) {
        struct inotify *s = container_of(timer, struct inotify, awaited_timer);

        mux_defer(s->mux, &s->go_on);
}

/* Whether a lookup may be about to tell whose `wd` is: it was making a watch as the event came up, and is still at it. */
static bool is_awaited(struct inotify *s, int wd) {
        if (s->awaited_wd != wd) {
                s->awaited_wd = wd;
                s->awaited_sections = lookup_count_sections(&s->lookup_context);
                s->awaited_since = monotonic_nsec();
        }
        return !lookup_has_ended_sections(&s->lookup_context, s->awaited_sections);
}

/* False: its file system doesn't answer, and nobody else waits for it; it will be looked at again once it is known. */
static bool wait_on(struct inotify *s, int wd) {
        uint64_t now = monotonic_nsec();

        if (now - s->awaited_since > AWAITED_MAX_MSEC * NSEC_PER_MSEC) {
                pass_over(s, wd);
                return false;
        }
        (void)mux_timer_set(s->mux, &s->awaited_timer, now + AWAITED_RETRY_USEC * NSEC_PER_USEC, on_awaited_timer);
        return true;
}

/* Whose event it is. NULL: nobody's. False: it has to wait for an answer. */
static bool find_marked(struct inotify *s, const struct inotify_event *event, struct mark **ret_mark) {
        bool awaited;

        *ret_mark = mark_find(s, event->wd);
        if (*ret_mark || find_lone(&s->late, event->wd))
                return true;
        awaited = is_awaited(s, event->wd); /* before the mailbox is looked into: what was told meanwhile is in it */
        take_answers(s);
        while (!*ret_mark && answer_for(s, event->wd)) {
                *ret_mark = mark_find(s, event->wd);
                awaited = false;
        }
        if (awaited && wait_on(s, event->wd))
                return false;
        s->awaited_wd = -1;
        return true;
}

/* False: it has to wait for an answer. */
static bool handle(struct inotify *s, const struct inotify_event *event, uint64_t now) {
        struct mark *mark;

        bury_marks(s);
        if (event->mask & IN_Q_OVERFLOW) {
                /* Their second halves are lost, and what is found from here on is younger than they. */
                while (!list_empty(&s->moves))
                        move_out(s, list_entry(s->moves.next, struct move, link));
                s->source.context->kernel_overflows++;
                s->in_doubt = true;
                return true;
        }
        if (!find_marked(s, event, &mark))
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
        s->drained = false;
        while (s->backlog < BACKLOG_MAX) {
                struct chunk *chunk = take_chunk(s);
                ssize_t n;

                if (!chunk)
                        return; /* later; the kernel's queue holds what it can */
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
        if (s->drained) {
                s->drained_tick = ++s->tick;
                place_answers(s);
        }
}

/* Whether all that was read up to there is handled, moves too whose second half may be still to come. */
static bool has_handled(const struct inotify *s, uint64_t position) {
        return s->bytes_handled >= position &&
               (list_empty(&s->moves) || list_entry(s->moves.next, struct move, link)->position >= position);
}

static void answer_some(struct inotify *s) {
        unsigned cost = 0;

        while (!list_empty(&s->due)) {
                struct lookup_message *first = list_entry(s->due.next, struct lookup_message, due);

                if (!has_handled(s, first->position))
                        break;
                if (cost >= ANSWERS_A_TURN) {
                        mux_defer(s->mux, &s->go_on);
                        break;
                }
                cost += answer(s, first);
        }
}

static void check_barriers(struct inotify *s);

/* What everything that was handled leads to. */
static void after_handling(struct inotify *s) {
        if (list_empty(&s->chunks) && s->drained) {
                if (s->drained_tick > s->listed_tick)
                        tree_forget_listed(s);
                if (!list_empty(&s->moves) && s->move_timer.heap_index == 0)
                        (void)mux_timer_set(s->mux, &s->move_timer,
                                            list_entry(s->moves.next, struct move, link)->deadline_nsec, on_move_timer);
        }
        answer_some(s);
        if (s->in_doubt && list_empty(&s->chunks)) {
                s->in_doubt = false;
                tree_recheck_all(s);
                vnode_recheck_all(s);
        }
        check_barriers(s);
}

static void handle_some(struct inotify *s) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;
        unsigned budget = EVENTS_A_TURN;

        while (!list_empty(&s->chunks)) {
                struct chunk *chunk = list_entry(s->chunks.next, struct chunk, link);

                while (chunk->position < chunk->size) {
                        const struct inotify_event *event = (const void *)(chunk->data + chunk->position);
                        size_t size = sizeof(*event) + event->len;

                        if (budget-- == 0) {
                                mux_defer(s->mux, &s->go_on);
                                return;
                        }
                        if (!handle(s, event, now))
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
                move_out_late(s);
        after_handling(s);
}

static void on_messages(struct mailbox *mailbox) {
        struct inotify *s = container_of(mailbox, struct inotify, mailbox);

        take_answers(s);
        mux_timer_clear(s->mux, &s->awaited_timer);
        take_turn(s);
}

/* ---- barriers ------------------------------------------------------------------------------------------ */

/* Whether its answer may be an event for a watch of the asker that is in force. */
static bool concerns(const struct inotify *s, const struct lookup *lookup, const struct asker *asker) {
        const struct mark *mark;

        switch (lookup->kind) {
        case LOOKUP_RESOLVE:
        case LOOKUP_VNODE:
                return false;
        case LOOKUP_PLACE:
                return lookup->watch && lookup->watch->asker == asker;
        case LOOKUP_NAME:
                return tree_is_watched_by(s, lookup->root, asker);
        case LOOKUP_CRAWL:
                return (lookup->purpose != PURPOSE_INITIAL || lookup->doubted) &&
                       tree_is_watched_by(s, lookup->root, asker);
        case LOOKUP_STAT:
                mark = mark_find(s, lookup->watched_wd);
                return mark && mark->vnode && vnode_is_watched_by(mark, asker);
        }
        return false;
}

static bool is_past(struct inotify *s, struct source_barrier *barrier) {
        if (!has_handled(s, barrier->position))
                return false;
        if (barrier->serial == 0)
                barrier->serial = s->serial; /* what the events up to here have asked */
        list_for_each(entry, &s->lookups) {
                const struct lookup *lookup = list_entry(entry, struct lookup, link);

                if (lookup->serial <= barrier->serial && concerns(s, lookup, barrier->asker))
                        return false;
        }
        return true;
}

static void check_barriers(struct inotify *s) {
        list_for_each(entry, &s->barriers) {
                struct source_barrier *barrier = list_entry(entry, struct source_barrier, link);

                if (!is_past(s, barrier))
                        continue;
                list_remove(&barrier->link);
                barrier->fn(barrier);
        }
}

static void on_barrier_timer(struct mux_timer *timer) {
        struct inotify *s = container_of(timer, struct inotify, barrier_timer);
        struct list *entry;

        while ((entry = list_pop(&s->barriers))) {
                struct source_barrier *barrier = list_entry(entry, struct source_barrier, link);

                barrier->fn(barrier);
        }
}

static bool inotify_barrier(struct source *source, struct source_barrier *barrier) {
        struct inotify *s = container_of(source, struct inotify, source);

        take_turn(s);
        barrier->position = s->bytes_read;
        barrier->serial = 0;
        if (is_past(s, barrier))
                return false;
        if (list_empty(&s->barriers))
                (void)mux_timer_set(s->mux, &s->barrier_timer,
                                    monotonic_nsec() + BARRIER_MAX_MSEC * NSEC_PER_MSEC, on_barrier_timer);
        list_append(&s->barriers, &barrier->link);
        return true;
}

/* ---- attach ------------------------------------------------------------------------------------------------ */

void watch_attached(struct inotify *s, struct file_watch *watch, int error, const char *message) {
        struct refusal refusal;

        if (error == 0) {
                watch->state = WATCH_IN_FORCE;
                s->source.context->sink->attached(watch->subscription, NULL);
                return;
        }
        (void)refuse(&refusal, error, "%s", message);
        s->source.context->sink->attached(watch->subscription, &refusal);
}

const char *lookup_message_text(int error) {
        switch (error) {
        case ENOENT:
                return "path: there is no such file or directory";
        case ENOTDIR:
                return "path: not a directory";
        case EACCES:
                return "path: it may not be read";
        case ELOOP:
                return "path: too many symbolic links";
        case ENOSPC:
                return "path: the limit fs.inotify.max_user_watches is reached";
        case EXDEV:
                return "descriptor: not to be found from where the daemon is";
        default:
                return "path: it can't be watched";
        }
}

void report_to(struct inotify *s, struct file_watch *watch, struct report *report) {
        source_report(&s->source, watch->subscription, report);
}

/* For now the daemon can't tell what a user other than its own could see by
 * itself, so it serves files to that one, and to root, alone. */
static int check_asker(const struct inotify *s, const struct subject *subject, struct refusal *refusal) {
        const struct asker *asker = subject->asker;

        if (asker->uid != 0 && asker->uid != s->source.context->uid)
                return refuse(refusal, EOPNOTSUPP, "%s: this daemon runs as another user, and can't yet tell which "
                                                   "files you may see; ask one of your own (address user or private)",
                              subject->path ? "path" : "descriptor");
        if (subject->path && subject->fd < 0 && asker->other_mounts)
                return refuse(refusal, EXDEV, "path: the caller lives in another mount namespace; pass a descriptor");
        return 0;
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
        if (workers_are_stuck(source->context->workers, subject->asker->uid))
                return refuse(refusal, EDQUOT, "path: all of your look-ups wait for file systems that don't answer");
        watch = calloc(1, sizeof(*watch));
        lookup = lookup_new(tree ? LOOKUP_RESOLVE : LOOKUP_VNODE, subject->path);
        if (!watch || !lookup) {
                free(watch);
                lookup_free(lookup);
                return refuse(refusal, ENOMEM, "no memory");
        }
        watch->subscription = subscription;
        watch->filter = subject->filter;
        watch->lookup = lookup;
        watch->asker = subject->asker;
        watch->mask = tree ? 0 : vnode_mask(subject->notes);
        list_init(&watch->link);
        list_init(&watch->blocked);
        lookup->watch = watch;
        lookup->mask = watch->mask;
        if (subject->fd >= 0)
                lookup->fd = fcntl(subject->fd, F_DUPFD_CLOEXEC, 3);
        r = subject->fd >= 0 && lookup->fd < 0 ? -errno : submit(s, lookup, watch->asker->uid, NULL, NULL);
        if (r < 0) {
                free(watch);
                lookup_free(lookup);
                return refuse(refusal, -r, "path: %s", strerror(-r));
        }
        subscription->object = watch;
        return 1;
}

static int inotify_modify(struct source *source _unused_, struct subscription *subscription,
                          const struct subject *subject, struct refusal *refusal) {
        struct file_watch *watch = subscription->object;

        if (watch->filter == KEV_FILTER_VNODE && (vnode_mask(subject->notes) & ~watch->mask))
                return refuse(refusal, EOPNOTSUPP, "notes: open, close and read can't be added later; "
                                                   "remove the watch and add another");
        return 0;
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
        free(watch);
}

/* ---- the source -------------------------------------------------------------------------------------------- */

static void on_empty_trash(struct mux_deferred *deferred) {
        struct inotify *s = container_of(deferred, struct inotify, empty_trash);

        tree_empty_trash(s, TRASH_A_TURN);
}

static void inotify_init_lists(struct inotify *s) {
        list_init(&s->chunks);
        list_init(&s->moves);
        list_init(&s->trees);
        list_init(&s->ghosts);
        list_init(&s->lookups);
        list_init(&s->due);
        list_init(&s->crawls);
        list_init(&s->unblocked);
        list_init(&s->barriers);
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
        s->scratch = malloc(SCRATCH_BYTES);
        s->from_scratch = malloc(SCRATCH_BYTES);
        s->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        r = !s->scratch || !s->from_scratch ? -ENOMEM : s->fd < 0 ? -errno : tree_init(&s->tree);
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
                free(s->scratch);
                free(s->from_scratch);
                free(s);
                return r;
        }
        *ret_source = &s->source;
        return 0;
}

/* The workers have ended before: no lookup is on a thread any more. */
static void inotify_close(struct source *source) {
        struct inotify *s = container_of(source, struct inotify, source);
        struct list *entry;

        take_answers(s);
        hash_free(&s->answered);
        while ((entry = list_pop(&s->due))) {
                struct lookup_message *message = list_entry(entry, struct lookup_message, due);

                list_remove(&message->link);
                if (!message->end)
                        free(container_of(message, struct found, message));
        }
        while (!list_empty(&s->lookups)) {
                struct lookup *lookup = list_entry(s->lookups.next, struct lookup, link);

                for (size_t i = 0; i < lookup->n_dirs; i++)
                        if (lookup->dirs[i])
                                lookup->dirs[i]->lookup = NULL;
                end_lookup(s, lookup);
        }
        tree_empty_trash(s, UINT32_MAX);
        mux_remove(s->mux, &s->io);
        mailbox_close(&s->mailbox);
        lookup_context_close(&s->lookup_context);
        mux_deferred_cancel(&s->go_on);
        mux_deferred_cancel(&s->empty_trash);
        mux_timer_clear(s->mux, &s->awaited_timer);
        mux_timer_clear(s->mux, &s->move_timer);
        mux_timer_clear(s->mux, &s->barrier_timer);
        while ((entry = list_pop(&s->chunks)))
                free(list_entry(entry, struct chunk, link));
        free(s->spare);
        tree_forget_listed(s);
        tree_forget_touched(s);
        while (s->marks.n_nodes > 0) {
                struct mark *mark = NULL;

                hash_for_each(node, &s->marks)
                        mark = container_of(node, struct mark, node);
                mark_free(s, mark);
        }
        bury_marks(s);
        forget_lone(&s->late);
        forget_lone(&s->orphans);
        tree_free(&s->tree);
        (void)close(s->fd);
        free(s->scratch);
        free(s->from_scratch);
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
        .detach = inotify_detach,
        .barrier = inotify_barrier,
        .registrations = inotify_registrations,
        .mechanism = inotify_mechanism,
        .reason = "fanotify is not part of this version",
};
