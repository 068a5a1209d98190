/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vnode watches on inotify, in kqueue's words (kqueue(2) of FreeBSD; KEV_NOTE_*).
 *
 * inotify doesn't say whether a write made the file longer, nor whether its
 * inode changed by chmod, link or unlink: the file is looked at again (on a
 * worker, by its path, since a descriptor held would keep the file system from
 * being unmounted) and compared. What happens while that is under way is told
 * with it, as one event. A file that was renamed can't be looked at any more:
 * then a write is told without extend, and every change of the inode as attrib.
 */

#include <errno.h>
#include <string.h>
#include <sys/inotify.h>

#include "inotify.h"

/* What the vnode watches of one mark share. */
struct vnode {
        struct list subscriptions;
        struct file_state state;
        char *path; /* NULL: can't be looked at again */
        bool asked; /* a look is under way */
        bool modified, changed; /* what the look is for */
        bool again;
        bool recheck; /* events were lost */
        uint64_t notes, count, realtime_usec; /* told with the answer */
};

uint32_t vnode_mask(uint64_t notes) {
        return (notes & (KEV_NOTE_WRITE | KEV_NOTE_EXTEND) ?
                        (uint32_t)(IN_MODIFY | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO) : 0u) |
               (notes & KEV_NOTE_LINK ? (uint32_t)(IN_ATTRIB | IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO) :
                                        0u) |
               (notes & KEV_NOTE_ATTRIB ? (uint32_t)IN_ATTRIB : 0u) |
               (notes & KEV_NOTE_DELETE ? (uint32_t)(IN_ATTRIB | IN_DELETE_SELF) : 0u) |
               (notes & KEV_NOTE_CLOSEWRITE ? (uint32_t)IN_CLOSE_WRITE : 0u) |
               (notes & KEV_NOTE_CLOSE ? (uint32_t)IN_CLOSE_NOWRITE : 0u) |
               (notes & KEV_NOTE_OPEN ? (uint32_t)IN_OPEN : 0u) | (notes & KEV_NOTE_READ ? (uint32_t)IN_ACCESS : 0u) |
               IN_MOVE_SELF | IN_DELETE_SELF;
}

/* ---- telling -------------------------------------------------------------------------------- */

static void tell(struct inotify *s, struct vnode *v, uint64_t notes, uint64_t count, uint64_t realtime_usec) {
        struct report report = REPORT_INIT;

        if (notes == 0)
                return;
        report.notes = notes;
        report.count = count;
        report.kind = S_ISDIR(v->state.mode) ? KEV_KIND_DIRECTORY : S_ISREG(v->state.mode) ? KEV_KIND_FILE :
                                                                                             KEV_KIND_UNKNOWN;
        report.realtime_usec = realtime_usec;
        report.below = (struct event_path){ "", 0 };
        list_for_each(entry, &v->subscriptions)
                report_to(s, list_entry(entry, struct subscription, link)->object, &report);
        report_done(&report);
}

/* ---- looking again ----------------------------------------------------------------------------- */

static void look(struct inotify *s, struct mark *mark) {
        struct vnode *v = mark->vnode;
        struct file_watch *watch = list_entry(v->subscriptions.next, struct subscription, link)->object;
        struct lookup *lookup;

        if (v->asked) {
                v->again = true;
                return;
        }
        lookup = v->path ? lookup_new(LOOKUP_STAT, v->path) : NULL;
        if (lookup) {
                lookup->watched_wd = mark->wd;
                if (submit(s, lookup, watch->user) == 0) {
                        v->asked = true;
                        return;
                }
                lookup_free(lookup);
        }
        /* It can't be told more exactly. */
        tell(s, v, v->notes | (v->modified ? KEV_NOTE_WRITE : 0) | (v->changed ? KEV_NOTE_ATTRIB : 0), MAX(v->count, 1u),
             v->realtime_usec);
        v->notes = v->count = 0;
        v->modified = v->changed = false;
}

static bool same_time(struct timespec a, struct timespec b) {
        return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* What the difference between two looks, and the events that led to them, mean. */
static uint64_t compare(const struct vnode *v, const struct lookup *lookup) {
        const struct file_state *before = &v->state, *now = &lookup->state;
        bool there = !lookup->error && now->device == before->device && now->inode == before->inode;
        bool modified = v->modified, changed = v->changed;
        uint64_t notes = 0;

        if (v->recheck && there) {
                modified |= !same_time(before->modified, now->modified);
                changed |= !same_time(before->changed, now->changed) && !modified;
        }
        if (modified)
                notes |= KEV_NOTE_WRITE | (there && now->size > before->size ? KEV_NOTE_EXTEND : 0);
        if (!there && (changed || v->recheck))
                notes |= before->links <= 1 ? KEV_NOTE_DELETE : KEV_NOTE_LINK;
        else if (there && now->links != before->links)
                notes |= KEV_NOTE_LINK;
        else if (changed)
                notes |= KEV_NOTE_ATTRIB;
        return notes;
}

void vnode_on_stat(struct inotify *s, struct lookup *lookup) {
        struct mark *mark = mark_find(s, lookup->watched_wd);
        struct vnode *v = mark ? mark->vnode : NULL;
        uint64_t notes;

        if (!v || !v->asked)
                return;
        v->asked = false;
        if (v->again) { /* something happened since: the look may have been too early */
                v->again = false;
                look(s, mark);
                return;
        }
        notes = v->notes | compare(v, lookup);
        if (!lookup->error && lookup->state.device == v->state.device && lookup->state.inode == v->state.inode)
                v->state = lookup->state;
        else {
                free(take_pointer(&v->path)); /* the name leads elsewhere now */
                v->state.links -= v->state.links > 0;
        }
        tell(s, v, notes, MAX(v->count, 1u), v->realtime_usec);
        v->notes = v->count = 0;
        v->modified = v->changed = v->recheck = false;
}

/* ---- events --------------------------------------------------------------------------------------- */

/* Now, or with the answer that is awaited. */
static void add(struct inotify *s, struct vnode *v, uint64_t notes, uint64_t realtime_usec) {
        if (!v->asked) {
                tell(s, v, notes, 1, realtime_usec);
                return;
        }
        v->notes |= notes;
        v->count++;
}

static void add_with_look(struct inotify *s, struct mark *mark, bool modified, bool changed, uint64_t realtime_usec) {
        struct vnode *v = mark->vnode;

        if (!v->asked)
                v->realtime_usec = realtime_usec;
        v->modified |= modified;
        v->changed |= changed;
        v->count++;
        look(s, mark);
}

static void on_self(struct inotify *s, struct mark *mark, uint32_t mask, uint64_t realtime_usec) {
        struct vnode *v = mark->vnode;
        bool is_dir = S_ISDIR(v->state.mode);
        uint64_t notes = (mask & IN_CLOSE_WRITE ? KEV_NOTE_CLOSEWRITE : 0) |
                         (mask & IN_CLOSE_NOWRITE ? KEV_NOTE_CLOSE : 0) | (mask & IN_OPEN ? KEV_NOTE_OPEN : 0) |
                         (mask & IN_ACCESS ? KEV_NOTE_READ : 0) | (mask & IN_MOVE_SELF ? KEV_NOTE_RENAME : 0) |
                         (mask & IN_UNMOUNT ? KEV_NOTE_REVOKE : 0);

        if (mask & IN_MOVE_SELF)
                free(take_pointer(&v->path));
        if (mask & IN_DELETE_SELF) {
                /* An unlink that was awaited to be told by a look is this one. */
                v->changed = false;
                v->state.links = 0;
                notes |= KEV_NOTE_DELETE;
        }
        if (is_dir && (mask & IN_ATTRIB))
                notes |= KEV_NOTE_ATTRIB;
        else if (mask & (IN_MODIFY | IN_ATTRIB))
                add_with_look(s, mark, mask & IN_MODIFY, mask & IN_ATTRIB, realtime_usec);
        if (notes)
                add(s, v, notes, realtime_usec);
}

void vnode_on_event(struct inotify *s, struct mark *mark, uint32_t mask, bool has_name, uint64_t realtime_usec) {
        if (!has_name)
                on_self(s, mark, mask, realtime_usec);
        else if (mask & (IN_CREATE | IN_DELETE)) /* in a directory; what happens to its entries is theirs */
                add(s, mark->vnode, KEV_NOTE_WRITE | (mask & IN_ISDIR ? KEV_NOTE_LINK : 0), realtime_usec);
}

void vnode_on_move(struct inotify *s, struct mark *mark, bool is_dir, bool within, uint64_t realtime_usec) {
        add(s, mark->vnode,
            KEV_NOTE_WRITE | (within ? 0 : KEV_NOTE_EXTEND) | (!within && is_dir ? KEV_NOTE_LINK : 0), realtime_usec);
}

void vnode_on_unmarked(struct inotify *s, struct mark *mark) {
        struct vnode *v = mark->vnode;
        struct list *entry;

        /* What was still to be learned can't be any more. */
        if (v->asked) {
                if (v->changed && v->state.links <= 1)
                        v->notes |= KEV_NOTE_DELETE;
                tell(s, v, v->notes | (v->modified ? KEV_NOTE_WRITE : 0), MAX(v->count, 1u), v->realtime_usec);
        }
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
        hash_for_each(node, &s->marks) {
                struct mark *mark = container_of(node, struct mark, node);

                if (!mark->vnode || !mark->vnode->path)
                        continue;
                mark->vnode->recheck = true;
                mark->vnode->realtime_usec = realtime_nsec() / NSEC_PER_USEC;
                look(s, mark);
        }
}

/* ---- watches ---------------------------------------------------------------------------------------- */

static struct vnode *make_vnode(const struct lookup *lookup) {
        struct vnode *v = calloc(1, sizeof(*v));
        const char *path = lookup->path ? lookup->path : lookup->canonical;

        if (!v)
                return NULL;
        list_init(&v->subscriptions);
        v->state = lookup->state;
        v->path = path ? strdup(path) : NULL;
        return v;
}

void vnode_on_watched(struct inotify *s, struct lookup *lookup) {
        struct file_watch *watch = lookup->watch;
        struct mark *mark;

        if (!watch) {
                if (!lookup->error)
                        mark_orphan(s, lookup->wd);
                return;
        }
        watch->lookup = NULL;
        if (lookup->error) {
                watch_attached(s, watch, lookup->error, lookup_message_text(lookup->error));
                return;
        }
        mark = mark_get(s, lookup->wd);
        if (mark && mark->dying) { /* removed while the thread found it: it has to be watched anew */
                struct lookup *again = lookup_new(LOOKUP_VNODE, lookup->path);

                if (again) {
                        again->watch = watch;
                        again->mask = lookup->mask;
                        again->fd = take_fd(&lookup->fd);
                        watch->lookup = again;
                        if (submit(s, again, watch->user) == 0)
                                return;
                        watch->lookup = NULL;
                        lookup_free(again);
                }
                mark = NULL;
        }
        if (mark && !mark->vnode)
                mark->vnode = make_vnode(lookup);
        if (!mark || !mark->vnode) {
                watch_attached(s, watch, ENOMEM, "no memory");
                return;
        }
        watch->mark = mark;
        list_append(&mark->vnode->subscriptions, &watch->subscription->link);
        watch_attached(s, watch, 0, NULL);
}

void vnode_detach(struct inotify *s, struct file_watch *watch) {
        struct mark *mark = watch->mark;

        list_remove(&watch->subscription->link);
        if (!mark || !list_empty(&mark->vnode->subscriptions))
                return;
        free(mark->vnode->path);
        free(take_pointer(&mark->vnode));
        mark_release(s, mark);
}
