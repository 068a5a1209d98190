/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The instance for the next daemon: the descriptor, in which the kernel goes on queuing events, and the tree as the
 * events up to now have made it, with the wds that later ones will name. No directory is looked at for this.
 *
 * It can be done while everything is settled: no look-up under way, nothing read that isn't handled. Otherwise all
 * watches are made anew, and say `rescan`.
 */

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "inotify_tree.h"
#include "log.h"
#include "state.h"

/* ---- writing ------------------------------------------------------------------------------------------ */

bool inotify_is_settled(const struct source *source) {
        const struct inotify *s = container_of(source, struct inotify, source);

        if (s->in_doubt || !s->drained || s->trash || s->awaited_wd >= 0)
                return false;
        if (!list_empty(&s->chunks) || !list_empty(&s->moves) || !list_empty(&s->lookups) || !list_empty(&s->due) ||
            !list_empty(&s->unblocked) || !list_empty(&s->lister.listings))
                return false;
        if (s->orphans.n_nodes > 0 || s->listed.n_nodes > 0)
                return false;
        hash_for_each(node, &s->marks) {
                const struct mark *mark = container_of(node, const struct mark, node);

                if (mark->vnode && !vnode_is_settled(mark))
                        return false;
        }
        return true;
}

/* From above, each before what is below it. NULL: that was the last. */
static struct dir *next_dir(struct dir *dir, uint64_t *level) {
        if (dir->first_child) {
                ++*level;
                return dir->first_child;
        }
        while (dir->parent && !dir->next) {
                --*level;
                dir = dir->parent;
        }
        return dir->parent ? dir->next : NULL;
}

static void put_tree(struct state_writer *w, const struct inotify *s) {
        uint64_t level = 1;

        for (struct dir *dir = s->tree.root; dir; dir = next_dir(dir, &level)) {
                state_put_u64(w, level);
                state_put_string(w, dir == s->tree.root ? "" : dir->name);
                state_put_i64(w, dir->mark ? dir->mark->wd : -1);
                state_put_u64(w, dir->mount);
                state_put_bool(w, !list_empty(&dir->degraded));
        }
        state_put_u64(w, 0);
}

static void put_vnodes(struct state_writer *w, const struct inotify *s) {
        hash_for_each(node, &s->marks) {
                const struct mark *mark = container_of(node, const struct mark, node);

                if (!mark->vnode || mark->dying)
                        continue;
                state_put_i64(w, mark->wd);
                vnode_save(mark, w);
        }
        state_put_i64(w, -1);
}

/* Half of an exchange may be in the queue still. */
static void put_arrivals(struct state_writer *w, const struct inotify *s) {
        hash_for_each(node, &s->marks) {
                const struct mark *mark = container_of(node, const struct mark, node);

                if (mark->arrival.name == 0)
                        continue;
                state_put_i64(w, mark->wd);
                state_put_u64(w, mark->arrival.name);
                state_put_u64(w, mark->arrival.origin);
        }
}

void inotify_save_source(struct source *source, struct state_writer *w) {
        struct inotify *s = container_of(source, struct inotify, source);

        s->is_saved = inotify_is_settled(source);
        if (!s->is_saved)
                return;
        state_put_fd(w, s->fd);
        state_put_i64(w, atomic_load(&s->lookup_context.newest_wd));
        mounts_save(&s->mounts, w);
        put_tree(w, s);
        put_vnodes(w, s);
        put_arrivals(w, s);
}

bool inotify_save(struct source *source, struct subscription *subscription, struct state_writer *w) {
        const struct inotify *s = container_of(source, struct inotify, source);
        struct file_watch *watch = subscription->object;
        struct buffer path _cleanup_(buffer_free) = BUFFER_INIT;

        if (watch->dir)
                tree_path(watch->dir, &path);
        if (path.error)
                w->bytes.error = path.error;
        crowd_catch_up(watch);
        state_put_u64(w, watch->state);
        state_put_string(w, watch->dir ? path.data : NULL);
        state_put_i64(w, watch->mark ? watch->mark->wd : -1);
        state_put_u64(w, watch->device);
        state_put_u64(w, watch->inode);
        if (watch->state == WATCH_IN_FORCE)
                return s->is_saved && !watch->again;
        return watch->state == WATCH_WAITING || watch->state == WATCH_ENDED;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

static bool get_dir(struct inotify *s, struct state_reader *r, struct dir *dir, int64_t wd) {
        struct mark *mark = wd > 0 && wd <= INT32_MAX ? mark_get(s, (int)wd) : NULL;
        uint64_t mount = state_get_u64(r);
        bool degraded = state_get_bool(r);

        if (r->failed || (wd >= 0 && !mark) || dir->mark || !list_empty(&dir->degraded)) /* twice the same */
                return false;
        dir->mount = (uint32_t)mount;
        if (mark) {
                tree_set_mark(dir, mark);
                mark->is_fresh = false; /* get_arrivals() */
        }
        if (degraded)
                list_append(&s->degraded, &dir->degraded);
        return true;
}

static bool get_tree(struct inotify *s, struct state_reader *r) {
        struct dir *dir = NULL;
        uint64_t at = 0, level;

        while ((level = state_get_u64(r)) > 0) {
                const char *name = state_get_string(r);
                int64_t wd = state_get_i64(r);

                if (!name || level > at + 1 || (level == 1) != (dir == NULL))
                        return false;
                for (; dir && at >= level; at--)
                        dir = dir->parent;
                if (dir && (*name == 0 || strchr(name, '/')))
                        return false;
                dir = dir ? tree_make_child(&s->tree, dir, name) : s->tree.root;
                if (!dir || !get_dir(s, r, dir, wd))
                        return false;
                at = level;
        }
        return !r->failed;
}

static bool get_vnodes(struct inotify *s, struct state_reader *r) {
        int64_t wd;

        while ((wd = state_get_i64(r)) > 0 && wd <= INT32_MAX) {
                struct mark *mark = mark_get(s, (int)wd);

                if (!mark || !vnode_load(mark, r))
                        return false;
        }
        return !r->failed && wd == -1;
}

/* Up to the end. */
static bool get_arrivals(struct inotify *s, struct state_reader *r) {
        while (!r->failed && !state_is_at_end(r)) {
                int64_t wd = state_get_i64(r);
                uint64_t name = state_get_u64(r), origin = state_get_u64(r);
                struct mark *mark = wd > 0 && wd <= INT32_MAX ? mark_find(s, (int)wd) : NULL;

                if (mark)
                        mark->arrival = (struct arrival){ (uint32_t)name, (uint32_t)origin };
        }
        return !r->failed;
}

static bool is_instance(int fd) {
        char path[32], text[32];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, text, sizeof(text) - 1);
        text[MAX(n, 0)] = 0;
        return strcmp(text, "anon_inode:inotify") == 0;
}

static int load(struct inotify *s, struct state_reader *r) {
        int fd = state_get_fd(r), result;
        int64_t newest = state_get_i64(r);

        if (fd < 0 || !is_instance(fd)) {
                (void)safe_close(fd);
                return -EBADF;
        }
        result = inotify_adopt(s, fd);
        if (result < 0)
                return result;
        atomic_store(&s->lookup_context.newest_wd, (int)newest);
        mounts_load(&s->mounts, r);
        return get_tree(s, r) && get_vnodes(s, r) && get_arrivals(s, r) ? 0 : -EBADMSG;
}

static void release_unwatched(struct inotify *s) {
        tree_release_all(s);
        hash_for_each(node, &s->marks) {
                struct mark *mark = container_of(node, struct mark, node);

                if (mark->vnode)
                        vnode_release(s, mark);
        }
}

/* As there are no watches yet that is nothing; the kernel's go with the instance. */
static void begin_anew(struct inotify *s) {
        int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK), result = fd < 0 ? -errno : 0;

        release_unwatched(s);
        tree_empty_trash(s, UINT_MAX);
        marks_free(s);
        atomic_store(&s->lookup_context.newest_wd, 0);
        if (result == 0)
                result = inotify_adopt(s, fd);
        if (result < 0)
                log_warning("inotify: there is no instance to begin anew with: %s", strerror(-result));
}

/* Half a tree would be worse than none. */
void inotify_load_source(struct source *source, struct state_reader *r) {
        struct inotify *s = container_of(source, struct inotify, source);

        if (state_is_at_end(r))
                return;
        s->is_restored = load(s, r) == 0;
        if (!s->is_restored)
                begin_anew(s);
}

static int restore_tree(struct inotify *s, struct file_watch *watch, const char *path) {
        struct dir *dir = path ? tree_find_path(&s->tree, path, strlen(path)) : NULL;

        if (!dir || !dir->mark)
                return -EBADMSG;
        tree_enter(s, watch, dir);
        return 0;
}

static int restore_vnode(struct inotify *s, struct file_watch *watch, int64_t wd) {
        struct mark *mark = wd > 0 && wd <= INT32_MAX ? mark_find(s, (int)wd) : NULL;

        if (!mark || !mark->vnode)
                return -EBADMSG;
        vnode_attach(watch, mark);
        return 0;
}

int inotify_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                    struct state_reader *r, struct refusal *refusal) {
        struct inotify *s = container_of(source, struct inotify, source);
        uint64_t state = state_get_u64(r);
        const char *path = state_get_string(r);
        int64_t wd = state_get_i64(r);
        struct file_watch *watch;
        int result = 0;

        if (state == WATCH_WAITING ? !subject->path : state != WATCH_ENDED && !s->is_restored)
                return -EBADMSG;
        watch = watch_new(subscription, subject);
        if (!watch)
                return refuse(refusal, ENOMEM, "no memory");
        watch->device = (dev_t)state_get_u64(r);
        watch->inode = (ino_t)state_get_u64(r);
        watch->state = (enum watch_state)state;
        subscription->object = watch;
        if (state == WATCH_IN_FORCE)
                result = subject->filter == KEV_FILTER_TREE ? restore_tree(s, watch, path) : restore_vnode(s, watch, wd);
        if (r->failed || result < 0) {
                subscription->object = NULL;
                free(watch->path);
                free(watch);
                return -EBADMSG;
        }
        if (state == WATCH_WAITING)
                wait_begin(s, watch);
        return 0;
}

/* What nobody watches any more goes. */
void inotify_restored(struct source *source) {
        struct inotify *s = container_of(source, struct inotify, source);

        if (!s->is_restored)
                return;
        release_unwatched(s);
        if (!list_empty(&s->degraded))
                tree_retry_soon(s);
        mounts_compare(&s->mounts);
}
