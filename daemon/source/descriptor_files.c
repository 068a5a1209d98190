/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "descriptor_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>

#include "macro.h"

enum {
        READ_BYTES = 4096,
        BYTES_A_TURN = 16 * READ_BYTES,
        BATCH = 32,              /* between two looks at the time */
        SLICE_NSEC = 100 * 1000, /* of a turn, for those that are due */
        UNUSED_MAX = 1024,       /* while others are being made */
};

struct mark {
        struct hash_node node; /* by its number */
        int number;
        struct list files; /* that are not due */
        size_t n_files;    /* with those that are */
        struct list unused; /* among those that nobody needs; or alone */
};

static struct mark *find(const struct descriptor_files *f, int number) {
        for (struct hash_node *n = hash_first(&f->marks, hash_u64((uint64_t)number)); n; n = hash_next(n)) {
                struct mark *mark = container_of(n, struct mark, node);

                if (mark->number == number)
                        return mark;
        }
        return NULL;
}

static void make_due(struct descriptor_files *f, struct mark *mark) {
        list_for_each(entry, &mark->files)
                list_entry(entry, struct descriptor_file, link)->serial = ++f->serial;
        list_splice(&f->due, &mark->files);
}

static void handle(struct descriptor_files *f, const struct inotify_event *event) {
        struct mark *mark = find(f, event->wd);

        if (event->mask & IN_Q_OVERFLOW)
                hash_for_each(node, &f->marks)
                        make_due(f, container_of(node, struct mark, node));
        else if (mark)
                make_due(f, mark);
}

/* So much, unless there is less. What is written meanwhile comes behind it. */
static void read_some(struct descriptor_files *f, size_t size) {
        _Alignas(struct inotify_event) char buffer[READ_BYTES];
        ssize_t n;

        for (size_t done = 0; done < size && (n = read(f->inotify_fd, buffer, sizeof(buffer))) > 0; done += (size_t)n)
                for (ssize_t at = 0; at < n;) {
                        const struct inotify_event *event = (const void *)(buffer + at);

                        handle(f, event);
                        at += (ssize_t)sizeof(*event) + event->len;
                }
}

/* Which may become due again at once, behind the others. */
static void tell_some(struct descriptor_files *f) {
        uint64_t end = monotonic_nsec() + SLICE_NSEC;

        do
                for (int i = 0; i < BATCH && !list_empty(&f->due); i++) {
                        struct descriptor_file *file = list_entry(list_pop(&f->due), struct descriptor_file, link);

                        list_append(&file->mark->files, &file->link);
                        f->written(file);
                }
        while (!list_empty(&f->due) && monotonic_nsec() < end);
        if (!list_empty(&f->due))
                mux_defer(f->mux, &f->go_on);
        f->told(f);
}

static void on_ready(struct mux_io *io, unsigned events _unused_) {
        struct descriptor_files *f = container_of(io, struct descriptor_files, io);

        read_some(f, BYTES_A_TURN);
        mux_defer(f->mux, &f->go_on);
}

static void on_go_on(struct mux_deferred *deferred) {
        tell_some(container_of(deferred, struct descriptor_files, go_on));
}

uint64_t descriptor_files_read(struct descriptor_files *f) {
        int queued = 0; /* inotify(7), FIONREAD: bytes */

        if (f->inotify_fd >= 0 && ioctl(f->inotify_fd, FIONREAD, &queued) == 0)
                read_some(f, (size_t)queued);
        if (!list_empty(&f->due))
                mux_defer(f->mux, &f->go_on);
        return f->serial;
}

bool descriptor_files_have_told(const struct descriptor_files *f, uint64_t serial) {
        return list_empty(&f->due) || list_entry(f->due.next, struct descriptor_file, link)->serial > serial;
}

void descriptor_files_init(struct descriptor_files *f, struct mux *mux, void (*written)(struct descriptor_file *file),
                           void (*told)(struct descriptor_files *files)) {
        *f = (struct descriptor_files){
                .mux = mux, .io = MUX_IO_INIT, .inotify_fd = -1, .written = written, .told = told,
        };
        list_init(&f->unused);
        list_init(&f->due);
        mux_deferred_init(&f->go_on, on_go_on);
}

int descriptor_files_open(struct descriptor_files *f) {
        int r;

        if (f->inotify_fd >= 0)
                return 0;
        f->inotify_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
        if (f->inotify_fd < 0)
                return -errno;
        r = mux_add(f->mux, &f->io, f->inotify_fd, MUX_IN, on_ready);
        if (r < 0)
                f->inotify_fd = safe_close(f->inotify_fd);
        return r;
}

void descriptor_files_close(struct descriptor_files *f) {
        mux_deferred_cancel(&f->go_on);
        mux_remove(f->mux, &f->io);
        f->inotify_fd = safe_close(f->inotify_fd);
        hash_free(&f->marks);
}

int descriptor_files_mark(const struct descriptor_files *f, int fd) {
        char path[64];
        int r;

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        r = inotify_add_watch(f->inotify_fd, path, IN_MODIFY);
        return r < 0 ? -errno : r;
}

void descriptor_files_begin(struct descriptor_files *f) {
        f->n_marking++;
}

/* The kernel may have taken it away itself. */
static void remove_watch(struct descriptor_files *f, int number) {
        (void)inotify_rm_watch(f->inotify_fd, number);
        if (f->n_marking > 0)
                f->removed = MAX(f->removed, number);
}

static void drop_unused(struct descriptor_files *f) {
        struct list *entry;

        while ((f->n_marking == 0 || f->n_unused > UNUSED_MAX) && (entry = list_pop(&f->unused))) {
                struct mark *mark = list_entry(entry, struct mark, unused);

                f->n_unused--;
                remove_watch(f, mark->number);
                hash_remove(&f->marks, &mark->node);
                free(mark);
        }
}

void descriptor_files_end(struct descriptor_files *f) {
        if (--f->n_marking == 0)
                f->removed = 0;
        drop_unused(f);
}

static struct mark *make(struct descriptor_files *f, int number) {
        struct mark *mark = calloc(1, sizeof(*mark));

        if (!mark || hash_add(&f->marks, &mark->node, hash_u64((uint64_t)number)) < 0) {
                free(mark);
                remove_watch(f, number); /* others may come with the same */
                return NULL;
        }
        mark->number = number;
        list_init(&mark->files);
        list_init(&mark->unused);
        return mark;
}

int descriptor_files_add(struct descriptor_files *f, int number, struct descriptor_file *file) {
        struct mark *mark = find(f, number);

        if (!mark && number <= f->removed) { /* may be among those: numbers ascend, up to INT_MAX, inotify(7) */
                remove_watch(f, number);
                return -EAGAIN;
        }
        if (!mark)
                mark = make(f, number);
        if (!mark)
                return -ENOMEM;
        f->n_unused -= !list_empty(&mark->unused);
        list_remove(&mark->unused);
        list_append(&mark->files, &file->link);
        mark->n_files++;
        file->mark = mark;
        return 0;
}

void descriptor_files_remove(struct descriptor_files *f, struct descriptor_file *file) {
        struct mark *mark = take_pointer(&file->mark);

        if (!mark)
                return;
        list_remove(&file->link);
        if (--mark->n_files == 0) {
                list_append(&f->unused, &mark->unused);
                f->n_unused++;
        }
        drop_unused(f);
}
