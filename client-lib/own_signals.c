/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Signals to the calling process itself, where kevd can't tell of them: through a signalfd (signalfd(2)) of the
 * connection's own. It takes the signals away, which kevd doesn't, and needs them blocked; of a standard signal that is
 * pending already no second one is counted.
 */

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>

#include "internal.h"

struct own_watch {
        int64_t id;
        uint32_t flags;
        sigset_t signals;
        kev_handler *handler;
        void *userdata;
};

static struct own_watch *find(const struct own_signals *own, int64_t id) {
        for (size_t i = 0; i < own->n; i++)
                if (own->watches[i].id == id)
                        return &own->watches[i];
        return NULL;
}

bool own_signals_has(const struct own_signals *own, int64_t id) {
        return find(own, id);
}

/* ---- which signals ------------------------------------------------------------------------------------------------- */

static bool is_empty(const sigset_t *set) {
        for (int number = 1; number < NSIG; number++)
                if (sigismember(set, number) == 1)
                        return false;
        return true;
}

/* Those that are blocked, or the one that is named: none if it isn't. */
static void choose(int64_t number, sigset_t *ret) {
        sigset_t blocked;

        (void)pthread_sigmask(SIG_BLOCK, NULL, &blocked);
        (void)sigdelset(&blocked, SIGKILL);
        (void)sigdelset(&blocked, SIGSTOP);
        if (number == ABSENT) {
                *ret = blocked;
                return;
        }
        (void)sigemptyset(ret);
        if (sigismember(&blocked, (int)number) == 1)
                (void)sigaddset(ret, (int)number);
}

static int open_signalfd(struct kev *kev, const sigset_t *signals) {
        struct own_signals *own = &kev->own_signals;
        struct epoll_event event = { .events = EPOLLIN };
        int fd = signalfd(own->fd, signals, SFD_CLOEXEC | SFD_NONBLOCK);

        if (fd < 0)
                return -errno;
        if (own->fd < 0 && epoll_ctl(kev->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
                int r = -errno;

                (void)close(fd);
                return r;
        }
        own->fd = fd;
        return 0;
}

/* All that a watch wants. */
static void update(struct kev *kev) {
        struct own_signals *own = &kev->own_signals;
        sigset_t all;

        if (own->n == 0) {
                own->fd = polled_close(kev, own->fd);
                return;
        }
        (void)sigemptyset(&all);
        for (size_t i = 0; i < own->n; i++)
                if (!(own->watches[i].flags & KEV_FLAG_DISABLED))
                        (void)sigorset(&all, &all, &own->watches[i].signals);
        (void)open_signalfd(kev, &all);
}

/* ---- watches --------------------------------------------------------------------------------------------------------- */

int own_signals_add(struct kev *kev, const struct watch_spec *spec, int64_t id, kev_handler *handler, void *userdata) {
        struct own_signals *own = &kev->own_signals;
        struct own_watch w = { .id = id, .flags = spec->flags, .handler = handler, .userdata = userdata }, *more;
        int r;

        choose(spec->data, &w.signals);
        if (is_empty(&w.signals))
                return -EOPNOTSUPP;
        more = realloc(own->watches, (own->n + 1) * sizeof(*more));
        if (!more)
                return -ENOMEM;
        own->watches = more;
        if (own->fd < 0) {
                r = open_signalfd(kev, &w.signals);
                if (r < 0)
                        return r;
        }
        own->watches[own->n++] = w;
        update(kev);
        return 0;
}

static void drop(struct kev *kev, struct own_watch *w) {
        struct own_signals *own = &kev->own_signals;

        *w = own->watches[--own->n];
        update(kev);
}

bool own_signals_remove(struct kev *kev, int64_t id) {
        struct own_watch *w = find(&kev->own_signals, id);

        if (w)
                drop(kev, w);
        return w;
}

bool own_signals_enable(struct kev *kev, int64_t id, bool enable) {
        struct own_watch *w = find(&kev->own_signals, id);

        if (!w)
                return false;
        w->flags = (w->flags & ~KEV_FLAG_DISABLED) | (enable ? 0 : KEV_FLAG_DISABLED);
        update(kev);
        return true;
}

int own_signals_modify(struct kev *kev, int64_t id, const struct watch_spec *spec) {
        struct own_watch *w = find(&kev->own_signals, id);
        sigset_t signals;

        if (spec->filter != KEV_FILTER_SIGNAL || (spec->data != ABSENT && (spec->data < 1 || spec->data >= NSIG)))
                return -EINVAL;
        if (spec->data != ABSENT) {
                choose(spec->data, &signals);
                if (is_empty(&signals))
                        return -EOPNOTSUPP;
                w->signals = signals;
        }
        w->flags = spec->flags;
        update(kev);
        return 0;
}

void own_signals_close(struct own_signals *own) {
        own->fd = safe_close(own->fd);
        free(take_pointer(&own->watches));
        own->n = 0;
}

/* ---- events ------------------------------------------------------------------------------------------------------------ */

static int make_event(const struct own_watch *w, const struct signalfd_siginfo *info, struct event **ret) {
        struct event_process sender = {
                .pid = info->ssi_pid, .parent = ABSENT, .uid = info->ssi_uid, .exit_code = ABSENT, .signal = ABSENT,
                .cpu_usec = ABSENT, .peak_bytes = ABSENT,
        };
        bool is_from_process = info->ssi_code == SI_USER || info->ssi_code == SI_QUEUE || info->ssi_code == SI_TKILL;
        struct event template = {
                .filter = KEV_FILTER_SIGNAL, .flags = w->flags & (KEV_FLAG_ONESHOT | KEV_FLAG_DISPATCH),
                .data = info->ssi_signo, .count = 1, .process = is_from_process ? &sender : NULL,
        };

        return own_event_new(&template, w->id, ret);
}

static int tell(struct kev *kev, struct own_watch *w, const struct signalfd_siginfo *info) {
        struct event *event;

        if (make_event(w, info, &event) < 0)
                return connection_fail_memory(kev);
        if (inbox_put(&kev->inbox, event, w->handler, w->userdata) < 0) {
                event_unref(event);
                return connection_fail_memory(kev);
        }
        if (w->flags & KEV_FLAG_ONESHOT)
                drop(kev, w);
        else if (w->flags & KEV_FLAG_DISPATCH)
                (void)own_signals_enable(kev, w->id, false);
        return 0;
}

/* From the last one on: one that is told once makes room for that. */
static int tell_all(struct kev *kev, const struct signalfd_siginfo *info) {
        struct own_signals *own = &kev->own_signals;

        for (size_t i = own->n; i-- > 0;) {
                struct own_watch *w = &own->watches[i];

                if ((w->flags & KEV_FLAG_DISABLED) || sigismember(&w->signals, (int)info->ssi_signo) != 1)
                        continue;
                if (tell(kev, w, info) < 0)
                        return kev->error;
        }
        return 0;
}

/* One at a time: what a watch that is told once leaves stays with the process. */
int own_signals_read(struct kev *kev) {
        struct signalfd_siginfo info;
        int n = 0;

        while (kev->own_signals.fd >= 0 && read(kev->own_signals.fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
                if (tell_all(kev, &info) < 0)
                        return kev->error;
                n = 1;
        }
        return n;
}
