/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on inotify; inotify.h has the design.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>

#include "inotify.h"
#include "log.h"

enum { PATH_BYTES_MAX = 32 * 1024 }; /* of a directory that is watched; SCRATCH_BYTES has room for what is below */

static void crawl(struct inotify *s, struct dir *dir, enum lookup_purpose purpose, uint64_t serial, uid_t user,
                  struct dir *stop);
static void drop(struct inotify *s, struct dir *dir, uint64_t realtime_usec);

/* ---- telling: from a directory up, to the watches on the way ------------------------------- */

/* A path that grows towards the front. */
struct climb {
        char *buffer;
        size_t start; /* SCRATCH_BYTES - 1: empty */
};

static void climb_begin(struct climb *c, char *buffer, const char *name) {
        size_t size = strlen(name);

        c->buffer = buffer;
        c->start = SCRATCH_BYTES - 1 - size;
        memcpy(buffer + c->start, name, size + 1);
}

/* Puts a directory's name in front. False: no room for it. */
static bool climb_up(struct climb *c, const char *name) {
        size_t size = strlen(name);
        bool separate = c->start < SCRATCH_BYTES - 1;

        if (c->start < size + 1)
                return false;
        if (separate)
                c->buffer[--c->start] = '/';
        c->start -= size;
        memcpy(c->buffer + c->start, name, size);
        return true;
}

static struct event_path climb_path(const struct climb *c) {
        return (struct event_path){ c->buffer + c->start, SCRATCH_BYTES - 1 - c->start };
}

/* Those who watch this very directory. */
static void report_at(struct inotify *s, struct dir *dir, struct report *report) {
        bool always = report->notes & KEV_NOTE_DEGRADED; /* part of what the watch is made of */

        list_for_each(entry, &dir->subscriptions) {
                struct subscription *subscription = list_entry(entry, struct subscription, link);
                struct file_watch *watch = subscription->object;

                if (watch->state == WATCH_IN_FORCE || (always && watch->state == WATCH_STARTING))
                        report_to(s, watch, report);
        }
        report_done(report);
}

static bool has_above(const struct dir *dir, uint64_t id) {
        while (dir && dir->id != id)
                dir = dir->parent;
        return dir != NULL;
}

/* About `name` in `dir` (or `dir` itself where it is empty), to the watches from
 * there up, those below the directory `start` left out, and those at `stop` and
 * above. With a `start` of 0, or that is not above any more, none below are. */
static void report_up(struct inotify *s, struct dir *dir, const char *name, struct report *report, uint64_t start,
                      const struct dir *stop) {
        bool started = start == 0 || !has_above(dir, start);
        struct climb below;

        climb_begin(&below, s->scratch, name);
        for (struct dir *d = dir; d && d != stop; d = d->parent) {
                started |= d->id == start;
                if (started && !list_empty(&d->subscriptions)) {
                        report->below = climb_path(&below);
                        report_at(s, d, report);
                }
                if (!climb_up(&below, d->name)) {
                        /* Deeper than can be said: the part that can. */
                        report->notes = KEV_NOTE_RESCAN;
                        climb_begin(&below, s->scratch, d->name);
                }
        }
}

static void report_entry(struct inotify *s, struct dir *dir, const char *name, uint64_t notes, enum kev_kind kind,
                         uint64_t realtime_usec, struct dir *stop) {
        struct report report = REPORT_INIT;

        report.notes = notes;
        report.kind = kind;
        report.realtime_usec = realtime_usec;
        report_up(s, dir, name, &report, 0, stop);
}

/* `dir` and all below it are in doubt: told to those above for `dir`, to those
 * within for themselves. */
static void report_rescan(struct inotify *s, struct dir *dir) {
        struct report report = REPORT_INIT;

        report.notes = KEV_NOTE_RESCAN;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        report_up(s, dir, "", &report, 0, NULL);
        report.below = (struct event_path){ "", 0 };
        if (dir->n_watches == 0)
                return;
        list_for_each(entry, &s->trees) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (watch->state == WATCH_IN_FORCE && watch->dir != dir && tree_is_below(watch->dir, dir))
                        report_to(s, watch, &report);
                report_done(&report);
        }
}

/* ---- names that were told by a listing, or by an event while one was made -------------------- */

struct listed {
        struct hash_node node;
        uint64_t dir;
        uint64_t stop; /* who watches this directory or one above was not told; 0: everybody was */
        char name[];
};

static struct listed *find_name(const struct hash *table, const struct dir *dir, const char *name, uint64_t *ret_hash) {
        *ret_hash = hash_bytes(name, strlen(name), dir->id);
        for (struct hash_node *n = hash_first(table, *ret_hash); n; n = hash_next(n)) {
                struct listed *l = container_of(n, struct listed, node);

                if (l->dir == dir->id && strcmp(l->name, name) == 0)
                        return l;
        }
        return NULL;
}

/* Without memory for it the name is told twice. */
static void add_name(struct hash *table, const struct dir *dir, const char *name, const struct dir *stop) {
        size_t size = strlen(name) + 1;
        uint64_t hash;
        struct listed *l = find_name(table, dir, name, &hash);

        if (l) {
                l->stop = stop ? l->stop : 0;
                return;
        }
        l = malloc(sizeof(*l) + size);
        if (!l)
                return;
        l->dir = dir->id;
        l->stop = stop ? stop->id : 0;
        memcpy(l->name, name, size);
        if (hash_add(table, &l->node, hash) < 0)
                free(l);
}

/* Whether it is there; it is forgotten. */
static bool take_name(struct hash *table, const struct dir *dir, const char *name, uint64_t *ret_stop) {
        uint64_t hash;
        struct listed *l = table->n_nodes > 0 ? find_name(table, dir, name, &hash) : NULL;

        if (!l)
                return false;
        if (ret_stop)
                *ret_stop = l->stop;
        hash_remove(table, &l->node);
        free(l);
        return true;
}

static void forget_names(struct hash *table) {
        if (table->n_nodes == 0)
                return;
        hash_for_each(node, table)
                free(container_of(node, struct listed, node));
        hash_free(table);
}

void tree_forget_listed(struct inotify *s) {
        forget_names(&s->listed);
}

void tree_forget_touched(struct inotify *s) {
        forget_names(&s->touched);
}

/* An event about an entry was handled. */
static void touch(struct inotify *s, const struct dir *dir, const char *name) {
        if (dir->lookup && dir->mark && dir->lookup->purpose == PURPOSE_NEW)
                add_name(&s->touched, dir, name, NULL);
}

/* ---- directories and their marks -------------------------------------------------------------------- */

static bool is_in_tree(const struct inotify *s, const struct dir *dir) {
        return tree_is_below(dir, s->tree.root);
}

/* Whether a watch of `dir` or of one above it, but below `stop`, covers it. */
static bool is_covered_below(const struct dir *dir, const struct dir *stop) {
        for (; dir && dir != stop; dir = dir->parent)
                list_for_each(entry, &dir->subscriptions) {
                        struct file_watch *watch = list_entry(entry, struct subscription, link)->object;

                        if (watch->state == WATCH_STARTING || watch->state == WATCH_IN_FORCE)
                                return true;
                }
        return false;
}

static bool is_covered(const struct dir *dir) {
        return is_covered_below(dir, NULL);
}

/* Takes the node off its mark, which may be left with none. */
static void leave_mark(struct dir *dir) {
        struct mark *mark = take_pointer(&dir->mark);

        for (struct dir **p = &mark->dirs; *p; p = &(*p)->next_on_mark)
                if (*p == dir) {
                        *p = dir->next_on_mark;
                        break;
                }
        dir->next_on_mark = NULL;
}

static void unmark(struct inotify *s, struct dir *dir) {
        struct mark *mark = dir->mark;

        if (!mark)
                return;
        leave_mark(dir);
        mark_release(s, mark);
}

static void forget_lookup(struct dir *dir) {
        struct lookup *lookup = take_pointer(&dir->lookup);

        if (!lookup)
                return;
        lookup->dirs[dir->lookup_index] = NULL;
        if (dir->lookup_index == 0)
                atomic_store(&lookup->cancelled, true);
}

/* What a lookup was put for, as long as it is in the tree and watched. */
static struct dir *root_of(const struct inotify *s, const struct lookup *lookup) {
        return lookup->root && !lookup->forgotten && is_in_tree(s, lookup->root) ? lookup->root : NULL;
}

/* True: there were some. */
static bool forget_lookups_below(struct inotify *s, struct dir *dir) {
        bool any = false;

        list_for_each(entry, &s->lookups) {
                struct lookup *lookup = list_entry(entry, struct lookup, link);

                if (lookup->forgotten || !lookup->root || !tree_is_below(lookup->root, dir))
                        continue;
                lookup->forgotten = true;
                list_splice(&s->unblocked, &lookup->blocked);
                any = true;
        }
        return any;
}

/* Watches within `dir` that relied on a lookup which was for more than them. */
static void ask_again_below(struct inotify *s, struct dir *dir) {
        if (dir->n_watches == 0)
                return;
        list_for_each(entry, &s->trees) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (!tree_is_below(watch->dir, dir))
                        continue;
                crawl(s, watch->dir, watch->state == WATCH_STARTING ? PURPOSE_INITIAL : PURPOSE_RECHECK, 0,
                      watch->asker->uid, NULL);
                watch->serial = s->serial;
        }
}

/* Takes it out of the tree; it and what is below it are freed, in slices if it has been read. */
static void throw_away(struct inotify *s, struct dir *dir) {
        tree_cut(&s->tree, dir);
        forget_lookup(dir);
        if (!dir->mark && !dir->first_child) {
                tree_free_dir(&s->tree, dir);
                return;
        }
        dir->next = s->trash;
        s->trash = dir;
        mux_defer(s->mux, &s->empty_trash);
}

void tree_empty_trash(struct inotify *s, unsigned budget) {
        while (s->trash && budget-- > 0) {
                struct dir *dir = s->trash;

                s->trash = dir->next;
                dir->next = NULL;
                while (dir->first_child) {
                        struct dir *child = dir->first_child;

                        tree_cut(&s->tree, child);
                        child->next = s->trash;
                        s->trash = child;
                }
                unmark(s, dir);
                forget_lookup(dir);
                tree_free_dir(&s->tree, dir);
        }
        if (s->trash)
                mux_defer(s->mux, &s->empty_trash);
}

static void leave_tree(struct file_watch *watch) {
        list_remove(&watch->subscription->link);
        list_remove(&watch->link);
        list_remove(&watch->blocked);
        tree_count(watch->dir, -1);
        watch->dir = NULL;
        watch->state = WATCH_ENDED;
}

/* The watched directory itself is gone from where it was. */
static void end_watch(struct inotify *s, struct file_watch *watch, uint64_t realtime_usec) {
        struct report report = REPORT_INIT;
        bool starting = watch->state == WATCH_STARTING;

        leave_tree(watch);
        if (starting) {
                watch_attached(s, watch, ENOENT, "path: the directory vanished while it was read");
                return;
        }
        report.notes = KEV_NOTE_GONE;
        report.flags = KEV_FLAG_EOF;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_usec;
        report.below = (struct event_path){ "", 0 };
        report_to(s, watch, &report);
        report_done(&report);
}

/* Every watch whose directory is `dir` or below it. */
static void end_watches(struct inotify *s, struct dir *dir, uint64_t realtime_usec) {
        if (dir->n_watches == 0)
                return;
        list_for_each(entry, &s->trees) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (tree_is_below(watch->dir, dir))
                        end_watch(s, watch, realtime_usec);
        }
}

static void drop(struct inotify *s, struct dir *dir, uint64_t realtime_usec) {
        end_watches(s, dir, realtime_usec);
        throw_away(s, dir);
}

/* A watch of `dir` has ended: what nobody else watches goes. */
static void release(struct inotify *s, struct dir *dir) {
        struct dir *d = dir;
        bool disturbed;

        if (is_covered(dir))
                return;
        disturbed = forget_lookups_below(s, dir);
        /* Down through what is kept because something below it is watched. */
        for (;;) {
                bool covered = d != dir && is_covered(d);
                struct dir *child = covered ? NULL : d->first_child;

                if (!covered) {
                        unmark(s, d);
                        forget_lookup(d);
                }
                for (struct dir *next; child && child->n_watches == 0; child = next) {
                        next = child->next;
                        throw_away(s, child);
                }
                if (child) {
                        d = child;
                        continue;
                }
                /* The next that is kept, beside or further up. */
                while (d != dir) {
                        struct dir *next = d->next;

                        while (next && next->n_watches == 0) {
                                struct dir *after = next->next;

                                throw_away(s, next);
                                next = after;
                        }
                        if (next) {
                                d = next;
                                break;
                        }
                        d = d->parent;
                }
                if (d == dir)
                        break;
        }
        if (disturbed)
                ask_again_below(s, dir);
        tree_prune(&s->tree, dir);
        tree_check_starting(s);
}

/* `dir` is where the mark's inode is. A bind mount may show it in another place as well; on the same mount no two
 * places have it. False: one is about to leave with it, and its events tell where to. */
static bool claim(struct inotify *s, struct dir *dir, struct mark *mark) {
        if (dir->mark == mark)
                return true;
        for (const struct dir *d = mark->dirs; d; d = d->next_on_mark)
                if (d->mount == dir->mount && is_in_tree(s, d) && move_is_pending(s, d))
                        return false;
        for (struct dir *d = mark->dirs, *next; d; d = next) {
                next = d->next_on_mark;
                if (d->mount != dir->mount)
                        continue;
                leave_mark(d);
                if (is_in_tree(s, d))
                        crawl(s, d, PURPOSE_RECHECK, 0, 0, NULL);
        }
        unmark(s, dir);
        dir->mark = mark;
        dir->next_on_mark = mark->dirs;
        mark->dirs = dir;
        return true;
}

/* ---- crawling ----------------------------------------------------------------------------------------- */

static bool give_index(struct lookup *lookup, struct dir *dir, uint32_t index) {
        if (index >= lookup->dirs_capacity) {
                size_t capacity = MAX((size_t)index + 1, lookup->dirs_capacity * 2);
                struct dir **dirs = realloc(lookup->dirs, capacity * sizeof(*dirs));

                if (!dirs)
                        return false;
                lookup->dirs = dirs;
                lookup->dirs_capacity = capacity;
        }
        while (lookup->n_dirs <= index)
                lookup->dirs[lookup->n_dirs++] = NULL;
        if (dir) {
                lookup->dirs[index] = dir;
                dir->lookup = lookup;
                dir->lookup_index = index;
        }
        return true;
}

/* Part of a watch can't be covered: it says so. */
static void degrade(struct inotify *s, struct dir *dir, int error) {
        log_debug("inotify: a directory can't be watched: %s", strerror(error));
        report_entry(s, dir, "", KEV_NOTE_DEGRADED, KEV_KIND_DIRECTORY, realtime_nsec() / NSEC_PER_USEC, NULL);
}

bool tree_is_watched_by(const struct inotify *s, const struct dir *dir, const struct asker *asker) {
        for (const struct dir *d = dir; d; d = d->parent)
                list_for_each(entry, &d->subscriptions) {
                        const struct file_watch *watch = list_entry(entry, struct subscription, link)->object;

                        if (watch->asker == asker)
                                return true;
                }
        list_for_each(entry, &s->trees) {
                const struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (watch->asker == asker && watch->dir && tree_is_below(watch->dir, dir))
                        return true;
        }
        return false;
}

static uid_t user_of(const struct dir *dir) {
        for (; dir; dir = dir->parent)
                if (!list_empty(&dir->subscriptions)) {
                        struct file_watch *watch =
                                list_entry(dir->subscriptions.next, struct subscription, link)->object;

                        return watch->asker->uid;
                }
        return 0;
}

/* Asks what `dir` and all below it are. With a serial it takes the place of an
 * earlier question. */
static void crawl(struct inotify *s, struct dir *dir, enum lookup_purpose purpose, uint64_t serial, uid_t user,
                  struct dir *stop) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        struct lookup *lookup;
        int r;

        if (dir->lookup) {
                dir->again_purpose = (uint8_t)MAX((int)purpose, dir->again ? dir->again_purpose : 0);
                dir->again = true;
                dir->lookup->doubted = true;
                return;
        }
        tree_path(dir, &path);
        if (path.error || path.size > PATH_BYTES_MAX) {
                degrade(s, dir, path.error ? ENOMEM : ENAMETOOLONG);
                return;
        }
        lookup = lookup_new(LOOKUP_CRAWL, path.data);
        if (!lookup || !give_index(lookup, dir, 0)) {
                lookup_free(lookup);
                degrade(s, dir, ENOMEM);
                return;
        }
        lookup->mask = TREE_MASK;
        lookup->purpose = purpose;
        lookup->list_files = purpose == PURPOSE_NEW;
        lookup->serial = serial;
        r = submit(s, lookup, serial || user ? user : user_of(dir), dir, stop);
        if (r < 0) {
                dir->lookup = NULL;
                lookup_free(lookup);
                degrade(s, dir, -r);
        }
}

static bool is_absence(int error) {
        return error == ENOENT || error == ENOTDIR || error == ELOOP;
}

/* Watches that wait for this directory can't be. */
static bool refuse_starting(struct inotify *s, struct dir *dir, int error) {
        bool any = false;

        list_for_each(entry, &dir->subscriptions) {
                struct file_watch *watch = list_entry(entry, struct subscription, link)->object;

                if (watch->state != WATCH_STARTING)
                        continue;
                leave_tree(watch);
                any = true;
                watch_attached(s, watch, error, lookup_message_text(error));
        }
        return any;
}

/* Those who watch a directory above: if that is not where it was, nothing can be found in it by its path. */
static void check_places(struct inotify *s, const struct dir *dir) {
        for (const struct dir *d = dir->parent; d; d = d->parent)
                list_for_each(entry, &d->subscriptions) {
                        struct file_watch *watch = list_entry(entry, struct subscription, link)->object;
                        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;

                        if (watch->state != WATCH_IN_FORCE || watch->lookup)
                                continue;
                        tree_path(d, &path);
                        watch->lookup = path.error ? NULL : lookup_new(LOOKUP_PLACE, path.data);
                        if (!watch->lookup)
                                continue;
                        watch->lookup->watch = watch;
                        if (submit(s, watch->lookup, watch->asker->uid, NULL, NULL) < 0)
                                watch->lookup = lookup_free(watch->lookup);
                }
}

void tree_on_place(struct inotify *s, struct lookup *lookup) {
        struct file_watch *watch = lookup->watch;
        struct dir *dir;

        if (!watch)
                return;
        watch->lookup = NULL;
        dir = watch->dir;
        if (!dir || (lookup->error && !is_absence(lookup->error)) ||
            (!lookup->error && lookup->state.device == watch->device && lookup->state.inode == watch->inode))
                return;
        end_watch(s, watch, realtime_nsec() / NSEC_PER_USEC);
        release(s, dir);
}

static void on_unfound(struct inotify *s, struct lookup *lookup, struct dir *dir, int error) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;
        struct dir *parent = dir->parent;

        switch (error) {
        case ERROR_TOO_DEEP:
                crawl(s, dir, lookup->purpose, lookup->serial, lookup->user, lookup->stop);
                return;
        case ENOENT:
        case ENOTDIR:
        case ELOOP:
                check_places(s, dir);
                drop(s, dir, now); /* the parent's events tell */
                tree_prune(&s->tree, parent);
                return;
        case EXDEV:   /* another file system is mounted there */
        case EACCES:  /* nobody who asked may look into it */
        case EPERM:
                if (dir == lookup->root)
                        (void)refuse_starting(s, dir, error);
                if (list_empty(&dir->subscriptions) && !dir->first_child && !dir->mark) {
                        throw_away(s, dir);
                        tree_prune(&s->tree, parent);
                }
                return;
        default:
                if (dir != lookup->root || !refuse_starting(s, dir, error))
                        degrade(s, dir, error);
        }
}

/* Whether the answer of `other` does for what is asked by `lookup`: a recheck is about what `other` may
 * have seen before it was in doubt, and an initial crawl tells nobody what it finds. */
static bool is_enough(const struct lookup *other, const struct lookup *lookup) {
        return other->order >= lookup->order || lookup->purpose == PURPOSE_INITIAL ||
               (lookup->purpose == PURPOSE_NEW && other->purpose != PURPOSE_INITIAL);
}

/* Whether its path leads somewhere else than when the question was put. */
static bool has_moved(const struct dir *dir, const struct lookup *lookup) {
        for (; dir; dir = dir->parent)
                if (dir->placed > lookup->n_placed)
                        return true;
        return false;
}

/* One directory that was listed as a child of `dir`. */
static void on_child(struct inotify *s, struct lookup *lookup, struct dir *dir, const char *name, uint32_t index) {
        struct dir *child = tree_child(&s->tree, dir, name);

        if (!child && lookup->stop)
                child = NULL; /* known to nobody yet: its IN_CREATE tells everybody what is in it */
        else if (!child)
                child = tree_make_child(&s->tree, dir, name);
        else if (child->lookup) { /* asked about already */
                if (!is_enough(child->lookup, lookup))
                        crawl(s, child, lookup->purpose, 0, lookup->user, lookup->stop);
                child = NULL;
        } else if (child->placed > lookup->n_placed) {
                /* An event has told since: the answer may be about another. */
                if (lookup->purpose == PURPOSE_RECHECK)
                        crawl(s, child, PURPOSE_RECHECK, 0, lookup->user, NULL);
                child = NULL;
        }
        if (!give_index(lookup, child, index))
                s->in_doubt = true;
}

/* Children that stood here before the question and are not in the answer. Those that have come since may have
 * been taken for others. */
static void drop_unlisted(struct inotify *s, struct lookup *lookup, struct dir *dir) {
        for (struct dir *child = dir->first_child, *next; child; child = next) {
                next = child->next;
                if (child->lookup)
                        continue;
                if (child->placed <= lookup->n_placed)
                        drop(s, child, realtime_nsec() / NSEC_PER_USEC);
                else
                        crawl(s, child, PURPOSE_RECHECK, 0, lookup->user, NULL);
        }
}

static void on_entries(struct inotify *s, struct lookup *lookup, struct dir *dir, const struct found *f) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;
        uint32_t index = f->first_child;

        for (const char *p = f->entries; p < f->entries + f->size; p += strlen(p) + 1) {
                enum kev_kind kind = (enum kev_kind)*p++;

                if (lookup->purpose == PURPOSE_NEW) {
                        if (!take_name(&s->touched, dir, p, NULL)) {
                                add_name(&s->listed, dir, p, lookup->stop);
                                report_entry(s, dir, p, KEV_NOTE_CREATE, kind, now, lookup->stop);
                        }
                        s->listed_tick = ++s->tick;
                }
                if (kind == KEV_KIND_DIRECTORY)
                        on_child(s, lookup, dir, p, index++);
        }
        if (lookup->purpose == PURPOSE_RECHECK && !f->more && !f->error)
                drop_unlisted(s, lookup, dir);
}

/* The directory that has this index, as long as it is in the tree; it has no
 * lookup any more. */
static struct dir *take_index(struct inotify *s, struct lookup *lookup, uint32_t index) {
        struct dir *dir = index < lookup->n_dirs ? take_pointer(&lookup->dirs[index]) : NULL;

        if (!dir)
                return NULL;
        dir->lookup = NULL;
        return is_in_tree(s, dir) ? dir : NULL;
}

/* Whether an answer about `dir` can't be relied on, so that it has to be asked again. */
static bool is_doubtful(struct dir *dir, const struct found *f) {
        const struct lookup *lookup = f->message.lookup;

        if (f->index == 0 && has_moved(dir, lookup))
                return true;
        /* It was there, and something else is the matter than what events tell: asked by itself, that is found out. */
        return f->index > 0 && f->message.wd < 0 && is_absence(f->error) && (dir->mark || dir->first_child);
}

void tree_on_found(struct inotify *s, struct found *f) {
        struct lookup *lookup = f->message.lookup;
        struct dir *dir = take_index(s, lookup, f->index);
        enum lookup_purpose purpose = lookup->purpose;
        int wd = f->message.wd;
        bool late = mark_was_late(s, f->message.first_wd), again;
        struct mark *mark;

        if (!dir) { /* of no interest any more, nor what is below it */
                if (wd >= 0)
                        mark_orphan(s, wd);
                return;
        }
        again = dir->again || is_doubtful(dir, f);
        if (dir->again)
                purpose = MAX((enum lookup_purpose)dir->again_purpose, purpose);
        dir->again = false;
        if (!again && wd < 0) {
                on_unfound(s, lookup, dir, f->error);
                return;
        }
        mark = again ? NULL : mark_get(s, wd);
        if (!mark || mark->dying || (dir->mount = lookup->mount, !claim(s, dir, mark))) {
                if (wd >= 0)
                        mark_orphan(s, wd);
                crawl(s, dir, purpose, lookup->serial, lookup->user, lookup->stop);
                return;
        }
        on_entries(s, lookup, dir, f);
        if (f->more && !give_index(lookup, dir, f->index))
                s->in_doubt = true;
        if (f->more && late) {
                dir->again = true;
                dir->again_purpose = PURPOSE_RECHECK;
        }
        if (f->error)
                degrade(s, dir, f->error);
        if (late && !f->more)
                crawl(s, dir, PURPOSE_RECHECK, 0, lookup->user, NULL);
}

void tree_on_crawled(struct inotify *s, struct lookup *lookup) {
        /* Of those that the thread did not come to. */
        for (uint32_t i = 0; i < lookup->n_dirs; i++) {
                struct dir *dir = take_index(s, lookup, i);

                if (!dir)
                        continue;
                dir->again = false;
                if (lookup->error != ECANCELED)
                        on_unfound(s, lookup, dir, lookup->error ? lookup->error : EIO);
        }
        if (lookup->purpose == PURPOSE_RECHECK && root_of(s, lookup) && lookup->error != ECANCELED)
                report_rescan(s, lookup->root);
}

void tree_recheck_all(struct inotify *s) {
        list_for_each(entry, &s->trees) {
                struct file_watch *watch = list_entry(entry, struct file_watch, link);

                if (!is_covered(watch->dir->parent))
                        crawl(s, watch->dir, PURPOSE_RECHECK, 0, watch->asker->uid, NULL);
        }
}

/* ---- watches ----------------------------------------------------------------------------------------- */

void tree_on_resolved(struct inotify *s, struct lookup *lookup) {
        struct file_watch *watch = lookup->watch;
        struct dir *dir;
        bool covered;

        if (!watch)
                return;
        watch->lookup = NULL;
        if (lookup->error) {
                watch_attached(s, watch, lookup->error, lookup_message_text(lookup->error));
                return;
        }
        dir = tree_make_path(&s->tree, lookup->canonical);
        if (!dir) {
                watch_attached(s, watch, ENOMEM, "no memory");
                return;
        }
        covered = dir->mark && is_covered(dir);
        watch->dir = dir;
        watch->device = lookup->state.device;
        watch->inode = lookup->state.inode;
        watch->state = WATCH_STARTING;
        tree_count(dir, 1);
        list_append(&dir->subscriptions, &watch->subscription->link);
        list_append(&s->trees, &watch->link);
        if (!covered) /* what is being watched for others is not asked again */
                crawl(s, dir, PURPOSE_INITIAL, 0, watch->asker->uid, NULL);
        watch->serial = s->serial;
        list_append(&s->unblocked, &watch->blocked);
        tree_check_starting(s);
}

void tree_add_crawl(struct inotify *s, struct lookup *lookup) {
        struct list *before = s->crawls.previous;

        while (before != &s->crawls && list_entry(before, struct lookup, crawl)->serial > lookup->serial)
                before = before->previous;
        list_append(before->next, &lookup->crawl);
}

/* What the watch has to wait for. */
static struct lookup *find_blocker(const struct inotify *s, const struct file_watch *watch) {
        list_for_each(entry, &s->crawls) {
                struct lookup *lookup = list_entry(entry, struct lookup, crawl);

                if (lookup->serial > watch->serial)
                        break;
                if (root_of(s, lookup) &&
                    (tree_is_below(lookup->root, watch->dir) || tree_is_below(watch->dir, lookup->root)))
                        return lookup;
        }
        return NULL;
}

void tree_check_starting(struct inotify *s) {
        struct list *entry;

        while ((entry = list_pop(&s->unblocked))) {
                struct file_watch *watch = list_entry(entry, struct file_watch, blocked);
                struct lookup *blocker = find_blocker(s, watch);

                if (blocker)
                        list_append(&blocker->blocked, &watch->blocked);
                else
                        watch_attached(s, watch, 0, NULL);
        }
}

void tree_detach(struct inotify *s, struct file_watch *watch) {
        struct dir *dir = watch->dir;

        if (!dir)
                return;
        leave_tree(watch);
        release(s, dir);
}

/* ---- events ------------------------------------------------------------------------------------------- */

/* A directory that is not known, or not watched yet. */
static void discover(struct inotify *s, struct dir *dir, const char *name) {
        struct dir *child = tree_make_child(&s->tree, dir, name);

        if (child)
                crawl(s, child, PURPOSE_NEW, 0, 0, NULL);
        else
                s->in_doubt = true;
}

static void on_create(struct inotify *s, struct dir *dir, const char *name, bool is_dir, uint64_t realtime_usec) {
        struct report report = REPORT_INIT;
        uint64_t start = 0;

        if (take_name(&s->listed, dir, name, &start) && start == 0)
                return;
        touch(s, dir, name);
        report.notes = KEV_NOTE_CREATE;
        report.kind = is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN;
        report.realtime_usec = realtime_usec;
        report_up(s, dir, name, &report, start, NULL);
        if (is_dir && is_covered(dir))
                discover(s, dir, name);
}

/* One that could not be read perhaps can be now. */
static void on_attrib_of_dir(struct inotify *s, struct dir *dir, const char *name) {
        const struct dir *child = tree_child(&s->tree, dir, name);

        if (!(child && (child->mark || child->lookup)) && is_covered(dir))
                discover(s, dir, name);
}

static void on_delete(struct inotify *s, struct dir *dir, const char *name, bool is_dir, uint64_t realtime_usec) {
        struct dir *child = is_dir ? tree_child(&s->tree, dir, name) : NULL;

        (void)take_name(&s->listed, dir, name, NULL);
        touch(s, dir, name);
        report_entry(s, dir, name, KEV_NOTE_DELETE, is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN, realtime_usec,
                     NULL);
        if (child)
                drop(s, child, realtime_usec);
}

void tree_on_entry(struct inotify *s, struct dir *dir, uint32_t mask, const char *name, uint64_t realtime_usec) {
        bool is_dir = mask & IN_ISDIR;
        uint64_t notes = (mask & IN_MODIFY ? KEV_NOTE_WRITE : 0) | (mask & IN_CLOSE_WRITE ? KEV_NOTE_CLOSEWRITE : 0) |
                         (mask & IN_ATTRIB ? KEV_NOTE_ATTRIB : 0);

        if (mask & IN_CREATE)
                on_create(s, dir, name, is_dir, realtime_usec);
        else if (mask & IN_DELETE)
                on_delete(s, dir, name, is_dir, realtime_usec);
        else if (notes)
                report_entry(s, dir, name, notes, is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN, realtime_usec,
                             NULL);
        if (is_dir && (mask & IN_ATTRIB))
                on_attrib_of_dir(s, dir, name);
}

void tree_on_self(struct inotify *s, struct dir *dir, uint32_t mask, uint64_t realtime_usec) {
        struct report report = REPORT_INIT;

        if (mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_UNMOUNT)) {
                /* Within a tree the parent's events have told. A watched directory
                 * that moved within one has moved with its node, and is not where
                 * its client named it. */
                list_for_each(entry, &dir->subscriptions)
                        end_watch(s, list_entry(entry, struct subscription, link)->object, realtime_usec);
                if (is_in_tree(s, dir))
                        release(s, dir);
                return;
        }
        if (!(mask & IN_ATTRIB) || list_empty(&dir->subscriptions))
                return;
        report.notes = KEV_NOTE_ATTRIB;
        report.kind = KEV_KIND_DIRECTORY;
        report.realtime_usec = realtime_usec;
        report.below = (struct event_path){ "", 0 };
        report_at(s, dir, &report);
}

void tree_on_unmarked(struct inotify *s, struct dir *dir) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;

        if (!is_in_tree(s, dir))
                return;
        /* Deleted, or unmounted: within a tree the parent's events tell what of. */
        list_for_each(entry, &dir->subscriptions)
                end_watch(s, list_entry(entry, struct subscription, link)->object, now);
        release(s, dir);
}

/* To the watches that see both ends. */
static void report_rename(struct inotify *s, struct dir *from, const char *from_name, struct dir *to,
                          const char *to_name, struct dir *common, struct report *report) {
        struct climb below, from_below;

        climb_begin(&below, s->scratch, to_name);
        climb_begin(&from_below, s->from_scratch, from_name);
        for (struct dir *d = to; d != common; d = d->parent)
                if (!climb_up(&below, d->name))
                        return;
        for (struct dir *d = from; d != common; d = d->parent)
                if (!climb_up(&from_below, d->name))
                        return;
        for (struct dir *d = common; d; d = d->parent) {
                if (!list_empty(&d->subscriptions)) {
                        report->below = climb_path(&below);
                        report->from_below = climb_path(&from_below);
                        report_at(s, d, report);
                }
                if (!climb_up(&below, d->name) || !climb_up(&from_below, d->name)) {
                        report_rescan(s, d);
                        return;
                }
        }
}

/* A directory that is known, to its new place. */
static void move_known(struct inotify *s, struct dir *moved, struct dir *to, const char *to_name, struct dir *common,
                       uint64_t realtime_usec) {
        struct dir *target = tree_child(&s->tree, to, to_name), *from = moved->parent;
        bool new_to_some = is_covered_below(to, common);

        if (target == moved)
                return;
        if (tree_is_below(to, moved)) { /* it is elsewhere by now: an exchange that is not understood yet */
                drop(s, moved, realtime_usec);
                crawl(s, from, PURPOSE_RECHECK, 0, 0, NULL);
                return;
        }
        if (target)
                drop(s, target, realtime_usec);
        end_watches(s, moved, realtime_usec); /* they are not where they were named */
        if (tree_move(&s->tree, moved, to, to_name) < 0) {
                throw_away(s, moved);
                s->in_doubt = true;
                return;
        }
        if (moved->lookup) /* the answer will be about the old place */
                crawl(s, moved, new_to_some ? PURPOSE_NEW : moved->lookup->purpose, 0, 0, NULL);
        else if (!moved->mark)
                crawl(s, moved, PURPOSE_NEW, 0, 0, NULL);
        else if (new_to_some)
                /* To those who did not see it before, all of it is new. */
                crawl(s, moved, PURPOSE_NEW, 0, 0, common);
}

void tree_on_move(struct inotify *s, struct dir *from, const char *from_name, struct dir *to, const char *to_name,
                  bool is_dir, uint64_t realtime_usec) {
        struct dir *moved = from && is_dir ? tree_child(&s->tree, from, from_name) : NULL;
        struct dir *common = from && to ? tree_common(from, to) : NULL;
        enum kev_kind kind = is_dir ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN;
        struct report report = REPORT_INIT;
        uint64_t start = UINT64_MAX;
        bool listed = to && take_name(&s->listed, to, to_name, &start) && start == 0;

        report.notes = KEV_NOTE_RENAME;
        report.kind = kind;
        report.realtime_usec = realtime_usec;
        if (is_dir && from && to && listed && !moved) {
                /* Both directories were listed after this: it was told where it is now, and hardly where it was. */
                (void)take_name(&s->listed, from, from_name, NULL);
                touch(s, from, from_name);
                report_entry(s, from, from_name, KEV_NOTE_MOVEDOUT, kind, realtime_usec, NULL);
                return;
        }
        if (from) {
                (void)take_name(&s->listed, from, from_name, NULL);
                touch(s, from, from_name);
                report_entry(s, from, from_name, KEV_NOTE_MOVEDOUT, kind, realtime_usec, common);
        }
        if (to) {
                touch(s, to, to_name);
                report_entry(s, to, to_name, KEV_NOTE_MOVEDIN, kind, realtime_usec, common);
        }
        if (common)
                report_rename(s, from, from_name, to, to_name, common, &report);
        if (!is_dir)
                return;
        if (moved && to && is_covered(to))
                move_known(s, moved, to, to_name, common, realtime_usec);
        else if (moved)
                drop(s, moved, realtime_usec);
        else if (to && is_covered(to)) {
                struct dir *child = tree_child(&s->tree, to, to_name);

                if (child)
                        drop(s, child, realtime_usec);
                discover(s, to, to_name);
        }
}

static void doubt_both(struct inotify *s, struct dir *a, struct dir *b) {
        if (a)
                crawl(s, a, PURPOSE_RECHECK, 0, 0, NULL);
        if (b && b != a)
                crawl(s, b, PURPOSE_RECHECK, 0, 0, NULL);
}

/* Without memory to ask it is taken to be there. */
static void ask_for_name(struct inotify *s, struct dir *dir, const char *name, struct dir *other) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        struct lookup *lookup;

        tree_path(dir, &path);
        if (path.size > 1)
                buffer_put_literal(&path, "/");
        buffer_put(&path, name, strlen(name) + 1);
        lookup = path.error ? NULL : lookup_new(LOOKUP_NAME, path.data);
        if (lookup) {
                if (submit(s, lookup, user_of(dir), dir, other) == 0)
                        return;
                lookup_free(lookup);
        }
        doubt_both(s, dir, other);
}

/* Something of that name is there: the two were exchanged, or it was made since. */
void tree_on_name(struct inotify *s, struct lookup *lookup) {
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;
        const char *name = strrchr(lookup->path, '/');
        struct dir *other = lookup->stop && is_in_tree(s, lookup->stop) ? lookup->stop : NULL;
        bool moved;

        if (!root_of(s, lookup))
                return;
        tree_path(lookup->root, &path);
        moved = path.error || strncmp(path.data, lookup->path, path.size) != 0 ||
                lookup->path + (path.size > 1 ? path.size : 0) != name;
        if (moved) /* the directory has another place by now */
                ask_for_name(s, lookup->root, name + 1, other);
        else if (!is_absence(lookup->error))
                doubt_both(s, lookup->root, other);
}

void tree_on_exchange(struct inotify *s, struct dir *from, const char *from_name, struct dir *to, const char *to_name,
                      bool is_dir, uint64_t realtime_usec) {
        tree_on_move(s, from, from_name, to, to_name, is_dir, realtime_usec);
        /* The move itself may have taken one of them out of the tree. */
        to = is_in_tree(s, to) ? to : NULL;
        if (is_in_tree(s, from))
                ask_for_name(s, from, from_name, to);
        else
                doubt_both(s, NULL, to);
}
