/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Where the directory is that a watch is about, by which it is known what is mounted below. */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "close_elsewhere.h"
#include "crossing.h"
#include "file_watch.h"

enum { RETRY_MSEC = 1000 };

static void on_retry_timer(struct mux_timer *timer);

void crossing_degrade(struct crossing *c) {
        if (!c->is_degraded)
                crossing_tell(c, KEV_NOTE_DEGRADED, "");
        c->is_degraded = true;
}

/* Where it is can't be found out, which may be so for a while only. */
static void on_unresolved(struct crossing *c, int error) {
        struct crossings *all = c->all;

        crossing_degrade(c);
        list_remove(&c->asking);
        if (!c->path || !is_shortage(-error))
                return;
        list_append(&all->asking, &c->asking);
        if (all->retry_timer.heap_index == 0)
                (void)mux_timer_set(all->mux, &all->retry_timer, monotonic_nsec() + RETRY_MSEC * NSEC_PER_MSEC,
                                    on_retry_timer);
}

void crossing_ask_again(struct crossing *c) {
        int r = crossing_ask_where(c, -1);

        if (r < 0)
                on_unresolved(c, -r);
}

/* Made after its path was asked for, it is there, and never comes back. */
void crossing_ask_since(struct crossing *c) {
        if (!c->canonical && !c->asked_since)
                crossing_ask_again(c);
        c->asked_since = true;
}

static struct resolving *free_resolving(struct resolving *r) {
        (void)safe_close(r->fd);
        free(r->path);
        free(r->canonical);
        free(r);
        return NULL;
}

/* On a thread: the file system may never answer. */
static void resolve(struct work *work) {
        struct resolving *r = container_of(work, struct resolving, work);
        char link[32], path[PATH_MAX];
        ssize_t n;

        if (r->fd < 0) {
                r->canonical = realpath(r->path, NULL);
                r->error = r->canonical ? 0 : errno;
        } else {
                (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", r->fd);
                n = readlink(link, path, sizeof(path));
                if (n == sizeof(path))
                        r->error = ENAMETOOLONG;
                else if (n < 0 || !(r->canonical = strndup(path, (size_t)n)))
                        r->error = errno;
                r->fd = safe_close(r->fd);
        }
        mailbox_post(&r->all->mailbox, &r->message);
}

int crossing_ask_where(struct crossing *c, int fd) {
        struct resolving *r = calloc(1, sizeof(*r));
        struct workers *workers = c->all->source.context->workers;
        uid_t uid = c->subject.asker->uid;
        int error = -ENOMEM;

        if (!r)
                return -ENOMEM;
        if (fd >= 0 && workers_are_full_of_fds(workers, uid)) {
                free(r);
                return -EDQUOT;
        }
        r->all = c->all;
        r->crossing = c;
        r->work.run = resolve;
        r->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
        r->work.has_fd = r->fd >= 0;
        r->path = c->path ? strdup(c->path) : NULL;
        list_init(&r->message);
        if (r->path || r->fd >= 0)
                error = workers_submit(workers, uid, &r->work);
        if (error < 0) {
                close_elsewhere(workers, uid, take_fd(&r->fd));
                free_resolving(r);
                return error;
        }
        c->resolving = r;
        crossing_count_unsettled(c);
        return 0;
}

void crossings_on_resolved(struct mailbox *mailbox) {
        struct list *entry;

        while ((entry = mailbox_take(mailbox))) {
                struct resolving *r = list_entry(entry, struct resolving, message);
                struct crossing *c = r->crossing;

                if (c) {
                        c->resolving = NULL;
                        crossing_count_unsettled(c);
                        free(c->canonical);
                        c->canonical = take_pointer(&r->canonical);
                        if (c->canonical)
                                crossings_compare(c->all);
                        else if (c->asked_since && !file_is_absent(r->error))
                                on_unresolved(c, r->error);
                        crossing_look_later(c);
                }
                free_resolving(r);
        }
}

static void on_retry_timer(struct mux_timer *timer) {
        struct crossings *all = container_of(timer, struct crossings, retry_timer);
        struct list now, *entry;

        list_init(&now);
        list_splice(&now, &all->asking);
        while ((entry = list_pop(&now))) {
                struct crossing *c = list_entry(entry, struct crossing, asking);

                if (!c->canonical && !c->resolving)
                        crossing_ask_again(c);
        }
}
