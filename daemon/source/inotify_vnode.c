/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vnode watches on inotify, in kqueue's words (kqueue(2) of FreeBSD; KEV_NOTE_*).
 *
 * inotify doesn't say whether a write made the file longer, nor whether its
 * inode changed by chmod, link or unlink: the file is looked at again (on a
 * worker, by its path, since a descriptor held would keep the file system from
 * being unmounted) and compared. What happens until the answer comes is told
 * with it, or asked once more if it needs a look of its own: so a file that is
 * written all the time is told of as often as it can be looked at.
 *
 * A name that isn't there any more means that the file was unlinked if the
 * directory is still the one that it was: a rename was told before the answer is
 * looked at. Where that can't be known (the file or a directory above it was
 * renamed, and no other watch has come to it since) a write is told without
 * extend, every change of the inode as attrib, and delete with the last close.
 */

#include <errno.h>
#include <string.h>
#include <sys/inotify.h>

#include "inotify.h"
#include "state.h"

/* What happened, and what a look is to tell about it. */
struct changes {
        bool modified, changed; /* contents, inode */
        bool recheck;           /* events were lost */
        uint64_t notes, count, realtime_usec;
        uint64_t n_wanted; /* of these: the kernel tells of what nobody asks for, too */
};

/* What the vnode watches of one mark share. */
struct vnode {
        struct list subscriptions;
        struct file_state state;
        dev_t parent_device;
        ino_t parent_inode;
        char *path;                /* NULL: can't be looked at again */
        struct changes now, later; /* before and after the question */
        bool asked;
        uint64_t later_serial;     /* of the question about `later` */
        bool deleted;              /* has been told */
};

/* Everything but what is costly, whatever was asked for: other notes may be asked for later, and what the file is like
 * is known as long as each of its changes leads to a look. */
uint32_t vnode_mask(uint64_t notes) {
        return (uint32_t)(IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO |
                          IN_MOVE_SELF | IN_DELETE_SELF) |
               (notes & KEV_NOTE_CLOSE ? (uint32_t)IN_CLOSE_NOWRITE : 0u) |
               (notes & KEV_NOTE_OPEN ? (uint32_t)IN_OPEN : 0u) | (notes & KEV_NOTE_READ ? (uint32_t)IN_ACCESS : 0u);
}

/* ---- telling -------------------------------------------------------------------------------- */

static void tell(struct vnode *v, const struct changes *changes, uint64_t notes, bool end) {
        struct report report = REPORT_INIT;

        notes |= changes->notes;
        if (v->deleted)
                notes &= ~KEV_NOTE_DELETE;
        v->deleted |= notes & KEV_NOTE_DELETE;
        if (notes == 0 && !end)
                return;
        report.notes = notes;
        report.flags = end ? KEV_FLAG_EOF : 0;
        report.count = MAX(changes->n_wanted, 1u);
        report.kind = S_ISDIR(v->state.mode) ? KEV_KIND_DIRECTORY : S_ISREG(v->state.mode) ? KEV_KIND_FILE :
                                                                                             KEV_KIND_UNKNOWN;
        report.realtime_usec = changes->realtime_usec;
        report.below = (struct event_path){ "", 0 };
        list_for_each(entry, &v->subscriptions) {
                struct subscription *subscription = list_entry(entry, struct subscription, link);

                watch_report(subscription->object, &report);
        }
        report_done(&report);
}

/* As far as it can be told without a look. */
static uint64_t blunt_notes(const struct changes *changes) {
        return (changes->modified ? KEV_NOTE_WRITE : 0) | (changes->changed ? KEV_NOTE_ATTRIB : 0) |
               (changes->recheck ? KEV_NOTE_RESCAN : 0);
}

/* ---- looking again ----------------------------------------------------------------------------- */

/* `serial` 0: a new question. */
static void look(struct inotify *s, struct mark *mark, uint64_t serial) {
        struct vnode *v = mark->vnode;
        struct file_watch *watch = list_entry(v->subscriptions.next, struct subscription, link)->object;
        struct lookup *lookup = v->path ? lookup_new(LOOKUP_STAT, v->path) : NULL;

        if (lookup) {
                lookup->watched_wd = mark->wd;
                lookup->serial = serial;
                if (submit(s, lookup, watch->asker->uid, NULL, NULL) == 0) {
                        v->asked = true;
                        return;
                }
                lookup_free(lookup);
        }
        tell(v, &v->now, blunt_notes(&v->now) | (v->path ? KEV_NOTE_RESCAN : 0), false);
        v->now = (struct changes){ 0 };
}

static bool same_time(struct timespec a, struct timespec b) {
        return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* What the difference between two looks, and the events that led to them, mean. */
static uint64_t compare(const struct vnode *v, const struct file_state *now) {
        const struct file_state *before = &v->state;
        bool modified = v->now.modified, changed = v->now.changed, linked = now->links != before->links;
        uint64_t notes = 0;

        if (v->now.recheck) {
                notes |= KEV_NOTE_RESCAN;
                modified |= !same_time(before->modified, now->modified);
                changed |= !same_time(before->changed, now->changed) && !modified;
        }
        if (modified)
                notes |= KEV_NOTE_WRITE | (now->size > before->size ? KEV_NOTE_EXTEND : 0);
        if (linked)
                notes |= KEV_NOTE_LINK;
        if ((changed && !linked) || now->mode != before->mode || now->uid != before->uid || now->gid != before->gid)
                notes |= KEV_NOTE_ATTRIB;
        return notes;
}

/* Its name is not there, or is another file's. */
static uint64_t on_gone(struct vnode *v, const struct lookup *lookup) {
        bool known = v->path && lookup->parent_inode == v->parent_inode && lookup->parent_device == v->parent_device;

        free(take_pointer(&v->path));
        if (!known || !v->now.changed || v->now.recheck)
                return blunt_notes(&v->now);
        v->state.links -= v->state.links > 0;
        return (v->now.modified ? KEV_NOTE_WRITE : 0) | (v->state.links == 0 ? KEV_NOTE_DELETE : KEV_NOTE_LINK);
}

/* What was written without an event so far is left to be compared when there is one. */
static void take_state(struct vnode *v, const struct file_state *now) {
        struct file_state before = v->state;

        v->state = *now;
        if (v->now.modified || v->now.recheck)
                return;
        v->state.size = before.size;
        v->state.modified = before.modified;
}

void vnode_on_stat(struct inotify *s, struct lookup *lookup) {
        struct mark *mark = mark_find(s, lookup->watched_wd);
        struct vnode *v = mark ? mark->vnode : NULL;
        bool there;
        uint64_t notes;

        if (!v || !v->asked)
                return;
        v->asked = false;
        there = !lookup->error && lookup->state.device == v->state.device && lookup->state.inode == v->state.inode;
        if (there)
                notes = compare(v, &lookup->state);
        else if (lookup->error && !file_is_absent(lookup->error))
                notes = blunt_notes(&v->now) | (v->now.count > 0 ? KEV_NOTE_RESCAN : 0); /* nobody knows */
        else
                notes = on_gone(v, lookup);
        if (there)
                take_state(v, &lookup->state);
        tell(v, &v->now, notes, false);
        v->now = v->later;
        v->later = (struct changes){ 0 };
        if (v->now.count > 0)
                look(s, mark, v->later_serial);
}

/* ---- events --------------------------------------------------------------------------------------- */

static bool is_wanted(const struct vnode *v, uint64_t notes) {
        list_for_each(entry, &v->subscriptions)
                if (list_entry(entry, struct subscription, link)->notes & notes)
                        return true;
        return false;
}

/* `notes`: those that it may come to be. */
static void count(const struct vnode *v, struct changes *changes, uint64_t notes, uint64_t realtime_usec) {
        changes->n_wanted += is_wanted(v, notes);
        if (changes->count++ == 0)
                changes->realtime_usec = realtime_usec;
}

/* Now, or with the answer that is awaited. */
static void add(struct vnode *v, uint64_t notes, uint64_t realtime_usec) {
        struct changes *changes = v->later.count > 0 ? &v->later : &v->now;

        changes->notes |= notes;
        count(v, changes, notes, realtime_usec);
        if (v->asked)
                return;
        tell(v, &v->now, 0, false);
        v->now = (struct changes){ 0 };
}

static void add_with_look(struct inotify *s, struct mark *mark, struct changes what, uint64_t realtime_usec) {
        struct vnode *v = mark->vnode;
        struct changes *changes = v->asked ? &v->later : &v->now;

        if (v->asked && v->later.count == 0)
                v->later_serial = ++s->serial;
        changes->modified |= what.modified;
        changes->changed |= what.changed;
        changes->recheck |= what.recheck;
        count(v, changes, blunt_notes(&what) | (what.changed ? KEV_NOTE_LINK | KEV_NOTE_DELETE : 0) |
                                  (what.modified ? KEV_NOTE_EXTEND : 0), realtime_usec);
        if (!v->asked)
                look(s, mark, 0);
}

static void on_self(struct inotify *s, struct mark *mark, uint32_t mask, uint64_t realtime_usec) {
        struct vnode *v = mark->vnode;
        bool is_dir = S_ISDIR(v->state.mode);
        uint64_t notes = (mask & IN_CLOSE_WRITE ? KEV_NOTE_CLOSEWRITE : 0) |
                         (mask & IN_CLOSE_NOWRITE ? KEV_NOTE_CLOSE : 0) | (mask & IN_OPEN ? KEV_NOTE_OPEN : 0) |
                         (mask & IN_ACCESS ? KEV_NOTE_READ : 0) | (mask & IN_MOVE_SELF ? KEV_NOTE_RENAME : 0);

        if (mask & IN_MOVE_SELF)
                free(take_pointer(&v->path));
        if (mask & (IN_DELETE_SELF | IN_UNMOUNT)) { /* IN_IGNORED follows, and this is told with it */
                struct changes *changes = v->later.count > 0 ? &v->later : &v->now;
                uint64_t end = mask & IN_UNMOUNT ? KEV_NOTE_REVOKE : KEV_NOTE_DELETE;

                changes->notes |= end;
                count(v, changes, end, realtime_usec);
                return;
        }
        if (is_dir && (mask & IN_ATTRIB))
                notes |= KEV_NOTE_ATTRIB;
        else if (mask & (IN_MODIFY | IN_ATTRIB))
                add_with_look(s, mark, (struct changes){ .modified = mask & IN_MODIFY, .changed = mask & IN_ATTRIB },
                              realtime_usec);
        if (notes)
                add(v, notes, realtime_usec);
}

void vnode_on_event(struct inotify *s, struct mark *mark, uint32_t mask, bool has_name, uint64_t realtime_usec) {
        if (!has_name)
                on_self(s, mark, mask, realtime_usec);
        else if (mask & (IN_CREATE | IN_DELETE)) /* in a directory; what happens to its entries is theirs */
                add(mark->vnode, KEV_NOTE_WRITE | (mask & IN_ISDIR ? KEV_NOTE_LINK : 0), realtime_usec);
}

void vnode_on_move(struct mark *mark, bool is_dir, bool within, uint64_t realtime_usec) {
        add(mark->vnode,
            KEV_NOTE_WRITE | (within ? 0 : KEV_NOTE_EXTEND) | (!within && is_dir ? KEV_NOTE_LINK : 0), realtime_usec);
}

/* The watch is over. What was still to be learned can't be any more. */
void vnode_on_unmarked(struct mark *mark) {
        struct vnode *v = mark->vnode;
        struct changes all = v->now;
        struct list *entry;

        all.notes |= v->later.notes;
        all.count += v->later.count;
        all.n_wanted += v->later.n_wanted;
        all.modified |= v->later.modified;
        all.changed |= v->later.changed;
        if (all.notes & KEV_NOTE_DELETE) /* the change was the unlink */
                all.changed = false;
        if (all.count == 0)
                all.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        tell(v, &all, blunt_notes(&all), true);
        while ((entry = list_pop(&v->subscriptions))) {
                struct file_watch *watch = list_entry(entry, struct subscription, link)->object;

                watch->mark = NULL;
                watch->state = WATCH_ENDED;
        }
        mark->vnode = NULL;
        free(v->path);
        free(v);
}

void vnode_recheck_all(struct inotify *s) {
        uint64_t now = realtime_nsec() / NSEC_PER_USEC;

        hash_for_each(node, &s->marks) {
                struct mark *mark = container_of(node, struct mark, node);

                if (mark->vnode)
                        add_with_look(s, mark, (struct changes){ .recheck = true }, now);
        }
}

/* ---- watches ---------------------------------------------------------------------------------------- */

static void set_place(struct vnode *v, const struct lookup *lookup) {
        v->state = lookup->state;
        v->parent_device = lookup->parent_device;
        v->parent_inode = lookup->parent_inode;
        v->path = lookup->canonical ? strdup(lookup->canonical) : NULL;
}

static struct vnode *make_vnode(const struct lookup *lookup) {
        struct vnode *v = calloc(1, sizeof(*v));

        if (!v)
                return NULL;
        list_init(&v->subscriptions);
        set_place(v, lookup);
        return v;
}

/* Whoever comes to a file that has lost its path brings another. A rename that was handled since may have made that
 * wrong, which nothing would tell: it is looked at once, and nothing comes of it if the file is not there. */
static void regain_path(struct inotify *s, struct mark *mark, const struct lookup *lookup) {
        struct vnode *v = mark->vnode;

        if (v->path || v->asked)
                return;
        set_place(v, lookup);
        if (v->path)
                look(s, mark, 0);
}

void vnode_on_watched(struct inotify *s, struct lookup *lookup) {
        struct file_watch *watch = lookup->watch;
        struct mark *mark;

        if (!watch) {
                if (!lookup->error)
                        mark_orphan(s, lookup->end.wd);
                return;
        }
        watch->lookup = NULL;
        if (lookup->error) {
                watch_attached(s, watch, lookup->error, file_error_text(lookup->error));
                return;
        }
        mark = mark_of_answer(s, &lookup->end);
        if (mark && mark->dying) { /* removed while the thread found it: it has to be watched anew */
                struct lookup *again = lookup_new(LOOKUP_VNODE, lookup->path);

                if (again) {
                        again->watch = watch;
                        again->mask = lookup->mask;
                        again->fd = take_fd(&lookup->fd);
                        watch->lookup = again;
                        if (submit(s, again, watch->asker->uid, NULL, NULL) == 0)
                                return;
                        watch->lookup = NULL;
                        lookup_free(again);
                }
                mark = NULL;
        }
        if (mark && !mark->vnode)
                mark->vnode = make_vnode(lookup);
        if (!mark || !mark->vnode) {
                mark_orphan(s, lookup->end.wd);
                watch_attached(s, watch, ENOMEM, "no memory");
                return;
        }
        vnode_attach(watch, mark);
        regain_path(s, mark, lookup);
        watch_attached(s, watch, 0, NULL);
}

void vnode_attach(struct file_watch *watch, struct mark *mark) {
        watch->mark = mark;
        list_append(&mark->vnode->subscriptions, &watch->subscription->link);
}

bool vnode_is_watched_by(const struct mark *mark, const struct asker *asker) {
        list_for_each(entry, &mark->vnode->subscriptions) {
                const struct file_watch *watch = list_entry(entry, struct subscription, link)->object;

                if (watch->asker == asker)
                        return true;
        }
        return false;
}

void vnode_release(struct inotify *s, struct mark *mark) {
        if (!mark->vnode || !list_empty(&mark->vnode->subscriptions))
                return;
        free(mark->vnode->path);
        free(take_pointer(&mark->vnode));
        mark_release(s, mark);
}

void vnode_detach(struct inotify *s, struct file_watch *watch) {
        list_remove(&watch->subscription->link);
        if (watch->mark)
                vnode_release(s, watch->mark);
}

/* ---- for the next daemon ------------------------------------------------------------------------- */

bool vnode_is_settled(const struct mark *mark) {
        const struct vnode *v = mark->vnode;

        return !v->asked && v->now.count == 0 && v->later.count == 0;
}

void vnode_save(const struct mark *mark, struct state_writer *w) {
        const struct vnode *v = mark->vnode;

        state_put_bytes(w, &v->state, sizeof(v->state));
        state_put_u64(w, v->parent_device);
        state_put_u64(w, v->parent_inode);
        state_put_string(w, v->path);
        state_put_bool(w, v->deleted);
}

bool vnode_load(struct mark *mark, struct state_reader *r) {
        struct vnode *v = calloc(1, sizeof(*v));
        const char *path;
        const void *bytes;
        size_t size;

        if (!v)
                return false;
        list_init(&v->subscriptions);
        bytes = state_get_bytes(r, &size);
        if (bytes && size == sizeof(v->state))
                memcpy(&v->state, bytes, size);
        else
                r->failed = true;
        v->parent_device = (dev_t)state_get_u64(r);
        v->parent_inode = (ino_t)state_get_u64(r);
        path = state_get_string(r);
        v->path = path ? strdup(path) : NULL;
        v->deleted = state_get_bool(r);
        if (r->failed || mark->vnode) {
                free(v->path);
                free(v);
                return false;
        }
        mark->vnode = v;
        return true;
}
