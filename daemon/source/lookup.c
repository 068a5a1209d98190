/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "lookup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "buffer.h"
#include "file_system.h"
#include "file_watch.h"

enum {
        LISTING_BYTES = 32 * 1024,
        PART_ENTRIES = 1024, /* of a message, and what one getdents64(2) brings */
};

int lookup_context_open(struct lookup_context *c, int inotify_fd, struct mailbox *mailbox) {
        c->inotify_fd = inotify_fd;
        c->mailbox = mailbox;
        c->marker_fd = memfd_create("kevd-marker", MFD_CLOEXEC);
        if (c->marker_fd < 0)
                return -errno;
        (void)pthread_mutex_init(&c->marker_lock, NULL);
        (void)pthread_mutex_init(&c->section_lock, NULL);
        list_init(&c->sections);
        c->n_sections = 0;
        atomic_init(&c->newest_wd, 0);
        return 0;
}

void lookup_context_close(struct lookup_context *c) {
        c->marker_fd = safe_close(c->marker_fd);
        (void)pthread_mutex_destroy(&c->marker_lock);
        (void)pthread_mutex_destroy(&c->section_lock);
}

uint64_t lookup_count_sections(struct lookup_context *c) {
        uint64_t n;

        (void)pthread_mutex_lock(&c->section_lock);
        n = c->n_sections;
        (void)pthread_mutex_unlock(&c->section_lock);
        return n;
}

bool lookup_has_ended_sections(struct lookup_context *c, uint64_t n) {
        bool ended;

        (void)pthread_mutex_lock(&c->section_lock);
        ended = list_empty(&c->sections) || list_entry(c->sections.next, struct lookup, section)->section_number > n;
        (void)pthread_mutex_unlock(&c->section_lock);
        return ended;
}

void lookup_end_section(struct lookup *l) {
        (void)pthread_mutex_lock(&l->context->section_lock);
        list_remove(&l->section);
        (void)pthread_mutex_unlock(&l->context->section_lock);
}

struct lookup *lookup_new(enum lookup_kind kind, const char *path) {
        struct lookup *l = calloc(1, sizeof(*l));

        if (!l)
                return NULL;
        l->kind = kind;
        l->fd = -1;
        list_init(&l->link);
        list_init(&l->answers);
        list_init(&l->section);
        list_init(&l->among);
        list_init(&l->blocked);
        l->entries = BUFFER_INIT;
        l->end = (struct lookup_message){ .lookup = l, .end = true, .wd = -1, .first_wd = -1 };
        if (path) {
                l->path = strdup(path);
                if (!l->path)
                        return lookup_free(l);
        }
        return l;
}

struct lookup *lookup_free(struct lookup *l) {
        if (!l)
                return NULL;
        l->fd = safe_close(l->fd);
        free(l->path);
        free(l->canonical);
        free(l->dirs);
        buffer_free(&l->entries);
        free(l);
        return NULL;
}

/* ---- on the thread ------------------------------------------------------------------- */

/* By the descriptor, so that what was opened is what gets watched. */
static int add_watch(const struct lookup *l, int fd, uint32_t mask) {
        char path[32];
        int wd;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        wd = inotify_add_watch(l->context->inotify_fd, path, mask | IN_MASK_ADD);
        return wd < 0 ? -errno : wd;
}

/* The same of a directory, at half the cost: from within it. Where it may be read and not searched, as above. */
static int add_watch_within(const struct lookup *l, int fd, uint32_t mask) {
        int wd;

        if (!l->has_own_cwd || fchdir(fd) < 0)
                return add_watch(l, fd, mask);
        wd = inotify_add_watch(l->context->inotify_fd, ".", mask | IN_MASK_ADD);
        return wd < 0 ? -errno : wd;
}

/* Whether nobody can have had this wd before. */
static bool is_new(const struct lookup *l, int wd) {
        int newest = atomic_load(&l->context->newest_wd);

        while (wd > newest)
                if (atomic_compare_exchange_weak(&l->context->newest_wd, &newest, wd))
                        return true;
        return false;
}

/* An event that tells the loop how far the kernel's queue was by now. Returns its wd; -1: the limit of watches is
 * reached. */
static int put_marker(const struct lookup *l) {
        struct lookup_context *c = l->context;
        int wd;

        (void)pthread_mutex_lock(&c->marker_lock);
        wd = add_watch(l, c->marker_fd, IN_DELETE_SELF);
        if (wd >= 0)
                (void)inotify_rm_watch(c->inotify_fd, wd);
        (void)pthread_mutex_unlock(&c->marker_lock);
        return MAX(wd, -1);
}

static void begin_section(struct lookup *l) {
        (void)pthread_mutex_lock(&l->context->section_lock);
        l->section_number = ++l->context->n_sections;
        list_append(&l->context->sections, &l->section);
        (void)pthread_mutex_unlock(&l->context->section_lock);
}

static int get_state(int fd, struct file_state *ret) {
        struct stat st;

        if (fstat(fd, &st) < 0)
                return -errno;
        *ret = (struct file_state){
                .device = st.st_dev,
                .inode = st.st_ino,
                .mode = st.st_mode,
                .uid = st.st_uid,
                .gid = st.st_gid,
                .links = st.st_nlink,
                .size = st.st_size,
                .modified = st.st_mtim,
                .changed = st.st_ctim,
        };
        return 0;
}

static int get_mount_of(struct lookup *l, int fd) {
        uint64_t mount;
        int r = get_mount(fd, &mount);

        if (r == 0)
                l->mount = (uint32_t)mount;
        return r;
}

/* Where a descriptor is, if it can be reached by that name from here. */
static int get_canonical(struct lookup *l, int fd) {
        char link[32], path[PATH_MAX];
        struct stat here, there;
        ssize_t n;

        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        n = readlink(link, path, sizeof(path) - 1);
        if (n < 0)
                return -errno;
        path[n] = 0;
        if (fstat(fd, &here) < 0)
                return -errno;
        if (path[0] != '/' || stat(path, &there) < 0 || here.st_dev != there.st_dev || here.st_ino != there.st_ino)
                return here.st_nlink == 0 ? -ENOENT : -EXDEV;
        l->canonical = strdup(path);
        return l->canonical ? 0 : -ENOMEM;
}

static int open_subject(struct lookup *l, uint64_t flags) {
        return l->fd >= 0 ? fcntl(l->fd, F_DUPFD_CLOEXEC, 3) : open_below(AT_FDCWD, l->path, flags, 0);
}

static int resolve(struct lookup *l) {
        int fd _cleanup_(closep) = open_subject(l, O_PATH | O_DIRECTORY), r;

        if (fd < 0)
                return fd;
        r = get_state(fd, &l->state);
        if (r == 0 && !S_ISDIR(l->state.mode))
                r = -ENOTDIR;
        if (r == 0)
                r = get_canonical(l, fd);
        return r < 0 ? r : get_mount_of(l, fd);
}

/* Watches the nearest directory that is there, for the next name on the way. */
static void watch_above(struct lookup *l) {
        char *path _cleanup_(freep) = strdup(l->path);
        size_t size = strlen(l->path);

        while (path && size > 1) {
                int fd _cleanup_(closep) = -1;

                while (size > 1 && path[size - 1] == '/')
                        size--;
                while (path[size - 1] != '/')
                        size--;
                path[size] = 0;
                fd = open_below(AT_FDCWD, path, O_PATH | O_DIRECTORY, 0);
                if (fd < 0)
                        continue;
                begin_section(l); /* ended by the loop */
                l->missing = size;
                l->end.wd = add_watch(l, fd, IN_CREATE | IN_MOVED_TO | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR);
                if (l->end.wd >= 0) {
                        l->end.is_second = !is_new(l, l->end.wd);
                        l->end.first_wd = l->end.is_second ? put_marker(l) : l->end.wd;
                }
                return;
        }
}

static int run_resolve(struct lookup *l) {
        int r = resolve(l);

        if (!l->wait || !file_is_absent(-r))
                return r;
        watch_above(l);
        return resolve(l); /* it may have come before the watch was made */
}

/* Opens the directory that holds `path`, and says which it is. */
static int open_parent(struct lookup *l, const char *path, const char **ret_name) {
        const char *slash = strrchr(path, '/');
        char *parent _cleanup_(freep) = slash ? strndup(path, (size_t)(slash - path) + 1) : NULL;
        struct stat st;
        int fd;

        if (!parent)
                return slash ? -ENOMEM : -ENOENT;
        fd = open_below(AT_FDCWD, parent, O_PATH | O_DIRECTORY, RESOLVE_NO_SYMLINKS);
        if (fd >= 0 && fstat(fd, &st) == 0) {
                l->parent_device = st.st_dev;
                l->parent_inode = st.st_ino;
        }
        *ret_name = slash[1] ? slash + 1 : ".";
        return fd;
}

static int run_vnode(struct lookup *l) {
        int fd _cleanup_(closep) = open_subject(l, O_PATH), parent _cleanup_(closep) = -1, r;
        const char *name;

        if (fd < 0)
                return fd;
        r = get_state(fd, &l->state);
        if (r == 0) {
                r = get_canonical(l, fd);
                if (r == 0)
                        parent = open_parent(l, l->canonical, &name);
                else if (l->fd < 0)
                        r = 0; /* it can't be looked at again */
        }
        if (r < 0)
                return r;
        begin_section(l); /* ended by the loop */
        r = add_watch(l, fd, l->mask | (S_ISDIR(l->state.mode) ? (uint32_t)IN_EXCL_UNLINK : 0));
        l->end.wd = l->end.first_wd = MAX(r, -1);
        l->end.is_second = !is_new(l, r);
        return MIN(r, 0);
}

static int run_stat(struct lookup *l) {
        const char *name;
        int parent _cleanup_(closep) = open_parent(l, l->path, &name), fd _cleanup_(closep) = -1;

        if (parent < 0)
                return parent;
        fd = open_below(parent, name, O_PATH | O_NOFOLLOW, 0);
        return fd < 0 ? fd : get_state(fd, &l->state);
}

/* ---- the walk ---------------------------------------------------------------------------- */

struct entry64 { /* getdents64(2) */
        uint64_t inode;
        int64_t offset;
        uint16_t size;
        uint8_t type;
        char name[];
};

static enum kev_kind kind_of_entry(int fd, const struct entry64 *entry) {
        struct stat st;

        if (entry->type != DT_UNKNOWN)
                return kind_of_mode(DTTOIF(entry->type));
        return fstatat(fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? KEV_KIND_UNKNOWN : kind_of_mode(st.st_mode);
}

static bool is_dot(const char *name) {
        return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

/* A part of a listing: the message to the loop, and the names of all directories so far. */
struct answer_part {
        struct lookup *lookup;
        uint32_t index, next_child;
        int wd;
        int first_wd;       /* of the next part */
        bool is_second;
        struct buffer part; /* a struct found, and its entries */
        size_t n_entries;
        struct buffer directories; /* each with its NUL */
};

static void begin_part(struct answer_part *list) {
        list->part = BUFFER_INIT;
        list->n_entries = 0;
        list->next_child = list->lookup->next_index;
        if (buffer_reserve(&list->part, sizeof(struct found) + 512))
                list->part.size = sizeof(struct found);
}

/* The message is the loop's from here on, which may keep very many of them. */
static int post_part(struct answer_part *list, bool more, int error) {
        struct found *f;

        if (list->part.error) {
                buffer_free(&list->part);
                return -ENOMEM;
        }
        f = realloc(list->part.data, list->part.size);
        if (!f)
                f = (void *)list->part.data;
        *f = (struct found){
                .message = { .lookup = list->lookup, .wd = list->wd, .is_second = list->is_second,
                             .first_wd = list->first_wd },
                .index = list->index,
                .first_child = list->next_child,
                .error = error,
                .more = more,
                .n_entries = list->n_entries,
                .size = list->part.size - sizeof(struct found),
        };
        list->first_wd = -1;
        mailbox_post_part(list->lookup->context->mailbox, &f->message.link);
        return 0;
}

static void put_entry(struct answer_part *list, enum kev_kind kind, const char *name) {
        char byte = (char)kind;

        buffer_put(&list->part, &byte, 1);
        buffer_put(&list->part, name, strlen(name) + 1);
        list->n_entries++;
        if (kind == KEV_KIND_DIRECTORY) {
                buffer_put(&list->directories, name, strlen(name) + 1);
                list->lookup->next_index++;
        }
}

/* Lists a directory into messages: the directories, and the rest if wanted. -ENOMEM: the last of them was not sent. */
static int list_directory(struct answer_part *list, int fd) {
        struct lookup *l = list->lookup;
        int r;

        begin_part(list);
        for (;;) {
                long n = syscall(SYS_getdents64, fd, l->space, LISTING_BYTES);
                const char *p = l->space, *end = p + MAX(n, 0);

                if (n <= 0)
                        return post_part(list, false, n < 0 ? errno : 0);
                if (list->n_entries >= PART_ENTRIES) {
                        r = post_part(list, true, 0);
                        if (r < 0)
                                return r;
                        begin_part(list);
                }
                while (p < end) {
                        const struct entry64 *entry = (const void *)p;
                        enum kev_kind kind;

                        p += entry->size;
                        if (is_dot(entry->name))
                                continue;
                        kind = kind_of_entry(fd, entry);
                        if (kind == KEV_KIND_DIRECTORY || l->list_files)
                                put_entry(list, kind, entry->name);
                }
        }
}

static bool post_error(struct lookup *l, uint32_t index, int error) {
        struct found *f = calloc(1, sizeof(*f));

        if (!f)
                return false;
        f->message.lookup = l;
        f->message.wd = f->message.first_wd = -1;
        f->index = index;
        f->error = error;
        mailbox_post_part(l->context->mailbox, &f->message.link);
        return true;
}

static int visit(struct lookup *l, int fd, uint32_t index, unsigned depth);

/* One after another; they have the indices from `first` on. */
static int visit_children(struct lookup *l, int fd, const struct buffer *names, uint32_t first, unsigned depth) {
        uint32_t index = first;
        int r = 0;

        for (size_t at = 0; r == 0 && at < names->size; at += strlen(names->data + at) + 1, index++) {
                const char *p = names->data + at;
                int child _cleanup_(closep) = -1;

                if (depth + 1 >= LOOKUP_DEPTH_MAX) {
                        r = post_error(l, index, ERROR_TOO_DEEP) ? 0 : -ENOMEM;
                        continue;
                }
                child = open_below(fd, p, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_NO_XDEV);
                if (child < 0)
                        r = post_error(l, index, -child) ? 0 : -ENOMEM;
                else
                        r = visit(l, child, index, depth + 1);
        }
        return r;
}

/* Watch first, list after: what appears in between is in both. Without memory the kernel's watch may stay; others
 * may have it too. */
static int visit(struct lookup *l, int fd, uint32_t index, unsigned depth) {
        struct answer_part list = { .lookup = l, .index = index, .directories = BUFFER_INIT };
        uint32_t first = l->next_index;
        int r;

        if (atomic_load(&l->cancelled))
                return -ECANCELED;
        begin_section(l);
        list.wd = add_watch_within(l, fd, l->mask);
        if (list.wd < 0) {
                lookup_end_section(l);
                return post_error(l, index, -list.wd) ? 0 : -ENOMEM;
        }
        list.is_second = !is_new(l, list.wd);
        list.first_wd = list.is_second ? put_marker(l) : list.wd;
        /* btrfs (Linux 6.5) and tmpfs (6.11) list what was there when the directory was opened, or rewound. */
        (void)lseek(fd, 0, SEEK_SET);
        r = list_directory(&list, fd);
        if (list.directories.error)
                r = -ENOMEM;
        lookup_end_section(l);
        if (r == 0 && !l->shallow)
                r = visit_children(l, fd, &list.directories, first, depth);
        buffer_free(&list.directories);
        return r;
}

static int run_crawl(struct lookup *l) {
        int fd _cleanup_(closep) = -1;
        int r;

        l->space = malloc(LISTING_BYTES);
        if (!l->space)
                return -ENOMEM;
        l->next_index = 1;
        l->has_own_cwd = unshare(CLONE_FS) == 0;
        fd = open_below(AT_FDCWD, l->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
        r = fd < 0 ? fd : get_mount_of(l, fd);
        if (r == 0 && l->only_mount && l->mount != l->only_mount)
                r = -EXDEV;
        if (r < 0)
                r = post_error(l, 0, -r) ? 0 : -ENOMEM;
        else
                r = visit(l, fd, 0, 0);
        if (l->has_own_cwd)
                (void)chdir("/"); /* what it was in can be unmounted */
        free(take_pointer(&l->space));
        return r;
}

static int run_access(struct lookup *l) {
        int fd _cleanup_(closep) = open_below(AT_FDCWD, l->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_NO_SYMLINKS);

        return MIN(fd, 0);
}

static int read_entries(struct lookup *l, int fd) {
        long n;

        while ((n = syscall(SYS_getdents64, fd, l->space, LISTING_BYTES)) > 0) {
                for (const char *p = l->space; p < l->space + n;) {
                        const struct entry64 *entry = (const void *)p;

                        p += entry->size;
                        if (!is_dot(entry->name))
                                link_put(&l->entries, NULL, kind_of_entry(fd, entry), entry->name, strlen(entry->name));
                }
                if (atomic_load(&l->cancelled))
                        return -ECANCELED;
        }
        return n < 0 ? -errno : l->entries.error ? -ENOMEM : 0;
}

static int run_list(struct lookup *l) {
        int fd _cleanup_(closep) = open_below(AT_FDCWD, l->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, RESOLVE_NO_SYMLINKS);
        int r = fd < 0 ? fd : get_mount_of(l, fd);

        if (r == 0 && l->mount != l->only_mount)
                r = -EXDEV;
        if (r < 0)
                return r;
        l->space = malloc(LISTING_BYTES);
        r = l->space ? read_entries(l, fd) : -ENOMEM;
        free(take_pointer(&l->space));
        return r;
}

/* The last close of a descriptor may take its time: here, not on the loop. */
static int replace_fd(struct lookup *l) {
        int passed = l->fd, r;
        char link[32];

        if (passed < 0)
                return 0;
        (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", passed);
        l->fd = open(link, O_PATH | O_CLOEXEC);
        r = l->fd < 0 ? -errno : 0;
        (void)close(passed);
        return r;
}

static int run_kind(struct lookup *l) {
        switch (l->kind) {
        case LOOKUP_RESOLVE:
                return run_resolve(l);
        case LOOKUP_CRAWL:
                return run_crawl(l);
        case LOOKUP_VNODE:
                return run_vnode(l);
        case LOOKUP_STAT:
        case LOOKUP_PLACE:
        case LOOKUP_NAME:
                return run_stat(l);
        case LOOKUP_LIST:
                return run_list(l);
        case LOOKUP_ACCESS:
                return run_access(l);
        }
        return -EINVAL;
}

static void run(struct work *work) {
        struct lookup *l = container_of(work, struct lookup, work);
        int r = replace_fd(l);

        if (atomic_load(&l->cancelled))
                r = -ECANCELED;
        if (r == 0)
                r = run_kind(l);
        l->error = -r;
        mailbox_post(l->context->mailbox, &l->end.link); /* from here on it is the loop's */
}

int lookup_submit(struct workers *workers, struct lookup *l) {
        l->work.run = run;
        l->work.has_fd = l->fd >= 0;
        return workers_submit(workers, l->user, &l->work);
}
