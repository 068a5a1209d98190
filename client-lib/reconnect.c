/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What happens when kevd has gone: the library comes again to the same place,
 * after pauses that grow and differ from program to program, for so long as
 * kev_set_reconnect_timeout() says. Then it makes the watches again, and each of
 * them says what may have been missed:
 *
 *   tree, vnode, netdev            rescan
 *   proc                           lost (of how many can't be known: count is 0), unless exit and reap of
 *                                  one process are all that is wanted; of one that is no more, exit
 *   timer, user, signal            lost
 *   what can't be made again       the same, and the flag eof. For a descriptor of a file or a socket that is
 *                                  always so: to keep it would be to keep it open.
 *
 * These events are the library's own: their seq is 0. That of kevd's begins anew.
 *
 * Attempts are made within the calls that wait, and where a program waits for
 * kev_get_fd() a timerfd wakes it for the next.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>

#include "internal.h"
#include "vocabulary.h"

enum { PAUSE_MIN_MSEC = 10, PAUSE_MAX_MSEC = 1000 };

static int64_t now_msec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Between a half and the whole of it: programs that lose a daemon together come one after another. */
static int jittered(int msec) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return msec / 2 + (int)(((uint64_t)t.tv_nsec ^ (uint64_t)getpid() * 2654435761u) % (uint64_t)(msec / 2 + 1));
}

/* ---- processes by number --------------------------------------------------------------------------- */

uint64_t process_start_time(int64_t pid) {
        char path[48], line[1024], *p;
        ssize_t n;
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/%lld/stat", (long long)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        n = fd < 0 ? -1 : read(fd, line, sizeof(line) - 1);
        (void)safe_close(fd);
        if (n < 0)
                return 0;
        line[n] = 0;
        p = strrchr(line, ')'); /* behind the name, which may have any characters, come the fields from the third on */
        for (int i = 2; p && i < 22; i++)
                p = strchr(p + 1, ' ');
        return p ? strtoull(p, NULL, 10) : 0;
}

/* The number may be another's before kevd is there again. What is gone kevd doesn't find, either; what can't be looked
 * at may well be there. */
static bool is_another_process(const struct known_watch *w, int64_t pid) {
        uint64_t start_time = w->start_time > 0 ? process_start_time(pid) : 0;

        return start_time > 0 && start_time != w->start_time;
}

/* ---- the next attempt ------------------------------------------------------------------- */

static void set_timer(struct kev *kev, int msec) {
        struct reconnecting *rc = &kev->reconnecting;
        struct itimerspec when = { .it_value = { msec / 1000, msec % 1000 * 1000000L + 1 } };
        struct epoll_event event = { .events = EPOLLIN };

        rc->next_msec = now_msec() + msec;
        if (rc->timer < 0) {
                rc->timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
                if (rc->timer >= 0)
                        (void)epoll_ctl(kev->epoll, EPOLL_CTL_ADD, rc->timer, &event);
        }
        if (rc->timer >= 0) /* else a program that waits for kev_get_fd() alone isn't woken */
                (void)timerfd_settime(rc->timer, 0, &when, NULL);
}

void reconnect_close(struct kev *kev) {
        kev->reconnecting.timer = polled_close(kev, kev->reconnecting.timer);
}

static int give_up(struct kev *kev) {
        return connection_fail(kev, -ECONNRESET, "kevd has closed the connection (%s)", kev->address);
}

int reconnect_begin(struct kev *kev) {
        struct reconnecting *rc = &kev->reconnecting;

        if (kev->error || kev->fd < 0)
                return kev->error ? kev->error : 1;
        if (rc->timeout_msec == 0)
                return give_up(kev);
        kev->n_losses++;
        connection_forget(kev);
        if (rc->is_remaking) /* the attempt has failed, no more */
                return 1;
        rc->since_msec = now_msec();
        rc->pause_msec = PAUSE_MIN_MSEC;
        set_timer(kev, jittered(rc->pause_msec));
        return 1;
}

/* ---- what may have been missed ------------------------------------------------------------- */

static int tell(struct kev *kev, const struct known_watch *w, struct event *template) {
        struct event *event;
        int r = own_event_new(template, w->id, &event);

        if (r == 0)
                r = inbox_put(&kev->inbox, event, w->handler, w->userdata);
        return r < 0 ? connection_fail_memory(kev) : 0;
}

static uint64_t notes_of_gap(const struct watch_spec *spec) {
        if (spec->filter == KEV_FILTER_TREE || spec->filter == KEV_FILTER_VNODE || spec->filter == KEV_FILTER_NETDEV)
                return KEV_NOTE_RESCAN;
        if (spec->filter == KEV_FILTER_PROC && !spec->match.given && !(spec->notes & ~(KEV_NOTE_EXIT | KEV_NOTE_REAP)))
                return 0;
        return filter_is_of_descriptor(spec->filter) ? 0 : KEV_NOTE_LOST;
}

/* `error`: why it could not be made again, or 0. */
static int tell_gap(struct kev *kev, struct known_watch *w, const struct watch_spec *spec, int error) {
        struct event_process process = {
                .pid = spec->pid, .parent = ABSENT, .uid = ABSENT, .exit_code = ABSENT, .signal = ABSENT,
                .cpu_usec = ABSENT, .peak_bytes = ABSENT,
        };
        struct event template = {
                .filter = spec->filter, .notes = notes_of_gap(spec), .data = ABSENT,
                .path = { spec->path, spec->path_size },
                .kind = spec->filter == KEV_FILTER_TREE ? KEV_KIND_DIRECTORY : KEV_KIND_UNKNOWN,
        };

        if (error == -ESRCH && spec->filter == KEV_FILTER_PROC && spec->pid != ABSENT) {
                template.notes |= KEV_NOTE_EXIT;
                template.process = &process;
                template.count = 1;
        }
        if (error < 0) {
                template.flags = KEV_FLAG_EOF;
                w->is_over = true;
        }
        return template.notes || template.flags ? tell(kev, w, &template) : 0;
}

/* ---- the watches, again ----------------------------------------------------------------------- */

/* One watch in one list of a Change. The error that it was refused with; another negative errno: kevd has gone again. */
static int change(struct kev *kev, const char *list, const char *item, int fd, bool *ret_refused) {
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;
        struct call call _cleanup_(call_free) = { 0 };
        int r;

        change_begin(&b, list);
        buffer_put(&b, item, strlen(item) - (fd >= 0));
        if (fd >= 0)
                buffer_put_literal(&b, ",\"descriptor\":0}");
        change_end(&b);
        r = call_run(kev, &call, &b, &fd, fd >= 0);
        return r < 0 ? r : change_refusal(kev, &call, ret_refused);
}

static int remake_one(struct kev *kev, struct known_watch *w) {
        struct watch_spec spec;
        bool refused = false;
        char id[24];
        int r, error = 0;

        if (w->is_over || !w->description || known_read(w, &spec) < 0)
                return 0;
        if (w->has_fd)
                error = -EBADF;
        else if (is_another_process(w, spec.pid))
                error = -ESRCH;
        else {
                r = change(kev, "add", w->description, w->pidfd, &refused);
                if (r < 0 && !refused)
                        goto end;
                error = MIN(r, 0);
        }
        r = 0;
        if (error == 0 && w->is_disabled != ((spec.flags & KEV_FLAG_DISABLED) != 0)) {
                (void)snprintf(id, sizeof(id), "%lld", (long long)w->id);
                r = change(kev, w->is_disabled ? "disable" : "enable", id, -1, &refused);
        }
        if (r < 0 && !refused)
                goto end;
        r = tell_gap(kev, w, &spec, error);
end:
        watch_spec_free(&spec);
        return r;
}

static int remake(struct kev *kev) {
        int r = 0;

        kev->reconnecting.is_remaking = true;
        kev->reconnecting.n_remakings++;
        for (size_t i = 0; r >= 0 && i < kev->known.capacity; i++)
                if (kev->known.slots[i].is_used)
                        r = remake_one(kev, &kev->known.slots[i]);
        kev->reconnecting.is_remaking = false;
        return r;
}

/* ---- attempts ------------------------------------------------------------------------------------ */

static int attempt(struct kev *kev) {
        struct epoll_event event = { .events = EPOLLIN };
        int fd, r = address_open_again(kev->address, &fd);

        if (r < 0)
                return r;
        if (epoll_ctl(kev->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
                r = -errno;
                (void)close(fd);
                return r;
        }
        kev->fd = fd;
        r = remake(kev);
        if (r < 0) {
                if (kev->fd >= 0)
                        connection_forget(kev);
                return r;
        }
        reconnect_close(kev);
        return 0;
}

/* Until the next attempt is due. 1: a signal of the program's own came, to be told; 0: it is due, or the time is up. */
static int pause_for(struct kev *kev, int64_t msec) {
        struct pollfd p = { .fd = kev->own_signals.fd, .events = POLLIN };
        int n = poll(&p, 1, (int)MAX(msec, (int64_t)0));

        if (n < 0 && errno == EINTR)
                return error_set(kev, -EINTR, "A signal came before kevd was there again");
        return n > 0 ? own_signals_read(kev) : 0;
}

int reconnect_step(struct kev *kev, int timeout_msec) {
        struct reconnecting *rc = &kev->reconnecting;
        int64_t end = timeout_msec < 0 ? INT64_MAX : now_msec() + timeout_msec;
        int r;

        if (rc->is_remaking) /* who makes the watches sees that kevd has gone again */
                return 1;
        for (;;) {
                int64_t now = now_msec();

                if (now < rc->next_msec) {
                        r = pause_for(kev, MIN(rc->next_msec, end) - now);
                        if (r != 0)
                                return r;
                        if (now_msec() < rc->next_msec)
                                return 0;
                }
                if (attempt(kev) == 0)
                        return 1;
                if (kev->error)
                        return kev->error;
                now = now_msec();
                if (now - rc->since_msec >= rc->timeout_msec)
                        return give_up(kev);
                rc->pause_msec = MIN(rc->pause_msec * 2, (int)PAUSE_MAX_MSEC);
                set_timer(kev, (int)MIN((int64_t)jittered(rc->pause_msec), rc->since_msec + rc->timeout_msec - now));
                if (now >= end)
                        return 0;
        }
}

_public_ int kev_set_reconnect_timeout(struct kev *kev, int timeout_msec) {
        if (timeout_msec < 0)
                return error_set(kev, -EINVAL, "The time to come again for can't be negative");
        kev->reconnecting.timeout_msec = timeout_msec;
        return 0;
}
