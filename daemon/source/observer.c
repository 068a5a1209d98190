/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "observer.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "event.h"
#include "log.h"
#include "mailbox.h"
#include "packet.h"

enum {
        ANSWER_MSEC = 5000,
        START_MSEC = 1000,
        AGAIN_MSEC = 10, /* after the second that has ended, then four times as long with each */
        AGAIN_MAX_MSEC = 250,
        ENDS_TOLD = 5, /* then it is logged */
        LASTS_SEC = 10,
        USERS_MAX = 256, /* that have one */
};

enum look { LOOK_LINKS = 1, LOOK_STAT, LOOK_NETWORK, LOOK_FIND, LOOK_TAKE, LOOK_FIGURE };

/* FIND, TAKE and FIGURE have the owner's pidfd beside it. */
struct look_request {
        enum look look;
        pid_t pid;
        unsigned links; /* 1 << OBSERVED_... */
        struct descriptor_handle handle; /* whose set is the daemon's, as `fd` is */
        int fd;
        enum kev_filter filter;
        uint64_t found; /* of struct descriptor_owner */
};

struct look_answer {
        int error; /* a negative errno */
        struct process_stat stat;
        int number;
        uint64_t found;
        int64_t figure;
        size_t size; /* of `text` */
        char text[4 * 4096]; /* links: of each a byte, whether it is there, and it with its NUL */
};

static const size_t ANSWER_BYTES_MIN = offsetof(struct look_answer, text);

/* ---- looking ------------------------------------------------------------------------------------------------------ */

static const char *const link_names[OBSERVED_LINKS] = {
        [OBSERVED_MOUNTS] = "ns/mnt",  [OBSERVED_ROOT] = "root", [OBSERVED_PIDS] = "ns/pid",
        [OBSERVED_NETWORK] = "ns/net", [OBSERVED_EXE] = "exe",
};

/* Two of them are paths, and never both. */
static void look_at_links(const struct look_request *q, struct look_answer *a) {
        for (int i = 0; i < OBSERVED_LINKS; i++) {
                char path[64], *text = a->text + a->size + 1;
                size_t room = MIN(sizeof(a->text) - a->size - 1, (size_t)PATH_MAX);
                ssize_t n;

                if (!(q->links & 1u << i) || room < 64)
                        continue;
                (void)snprintf(path, sizeof(path), "/proc/%d/%s", q->pid, link_names[i]);
                n = readlink(path, text, room - 1);
                if (n < 0)
                        a->error = errno == ENOENT ? -ESRCH : -errno;
                text[MAX(n, 0)] = 0;
                text[-1] = n >= 0;
                a->size += 1 + (size_t)MAX(n, 0) + 1;
        }
}

static void look_at_stat(const struct look_request *q, struct look_answer *a) {
        a->error = process_read_stat(q->pid, &a->stat);
        a->stat.knows_status = a->error == 0 && (a->stat.status != 0 || process_may_see_status(q->pid));
}

static int look_at_network(const struct look_request *q, struct look_answer *a) {
        char path[48];
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", q->pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        a->error = fd < 0 ? -errno : 0;
        return fd;
}

/* What the daemon has no set of it never had, maybe, and is shown a number of. */
static int look_at_descriptor(const struct look_request *q, pid_t daemon, int pidfd, struct look_answer *a) {
        struct descriptor_owner owner = { .pid = q->pid, .pidfd = pidfd, .found = q->found };
        struct descriptor_handle handle = q->handle;
        int fd = -1;

        if (q->look == LOOK_FIND)
                descriptor_find(&handle, &owner, daemon, q->fd);
        else if (q->look == LOOK_TAKE && handle.set < 0)
                a->error = -EPERM;
        else {
                fd = descriptor_get(&handle, &owner, daemon);
                a->error = MIN(fd, 0);
        }
        if (q->look == LOOK_FIGURE) {
                a->figure = fd < 0 ? ABSENT : descriptor_figure(&handle, q->filter, fd);
                fd = safe_close(fd);
        }
        a->number = handle.number;
        a->found = owner.found;
        return fd;
}

/* Returns the answer's descriptor, or something negative. */
static int look(const struct look_request *q, pid_t daemon, int pidfd, struct look_answer *a) {
        a->error = 0;
        a->size = 0;
        switch (q->look) {
        case LOOK_LINKS:
                look_at_links(q, a);
                return -1;
        case LOOK_STAT:
                look_at_stat(q, a);
                return -1;
        case LOOK_NETWORK:
                return look_at_network(q, a);
        case LOOK_FIND:
        case LOOK_TAKE:
        case LOOK_FIGURE:
                return look_at_descriptor(q, daemon, pidfd, a);
        }
        a->error = -EINVAL;
        return -1;
}

/* ---- the observer ------------------------------------------------------------------------------------------------- */

void observer_run(int socket, pid_t daemon) {
        static struct look_request q;
        static struct look_answer a;
        int pidfd;
        ssize_t n;

        while ((n = packet_receive(socket, &q, sizeof(q), &pidfd, 0)) > 0) {
                struct iovec part = { &a, 0 };
                int fd;

                if (n != sizeof(q))
                        _exit(EXIT_FAILURE);
                fd = look(&q, daemon, pidfd, &a);
                part.iov_len = ANSWER_BYTES_MIN + a.size;
                (void)safe_close(pidfd);
                (void)packet_send(socket, &part, 1, fd, 0);
                (void)safe_close(fd); /* which may take its time */
        }
        _exit(0);
}

/* ---- having one --------------------------------------------------------------------------------------------------- */

struct observer {
        struct list link; /* among the users' */
        uid_t uid;
        unsigned refs;

        pthread_mutex_t lock; /* of these, and of one question with its answer */
        pthread_cond_t started;
        int fd;               /* -1: there is none */
        bool is_coming;       /* as soon as the last one has ended, or after a pause */
        unsigned n_starts;
        bool is_lost;         /* it did not answer: the loop will be told */
        unsigned lost_start;  /* which of them that was */

        struct list lost; /* the message that says so */
        struct helper helper;
        bool is_ending; /* it was told to */
        unsigned n_ends; /* of those that came to an end before long, one after the other */
        uint64_t started_nsec;
        struct mux_timer again;
};

/* The process's own: what looks has no other context in common. */
static struct {
        struct broker *broker; /* NULL: there is none */
        pthread_t loop; /* the thread that starts them */
        struct mailbox mailbox;
        bool has_mailbox;
        struct list users;
} observers;

static struct observer everybodys = {
        .lock = PTHREAD_MUTEX_INITIALIZER, .started = PTHREAD_COND_INITIALIZER, .fd = -1,
};

/* Another is started in a moment. */
static bool is_paused(const struct observer *o) {
        return o->again.heap_index != 0;
}

static void set_socket(struct observer *o, int fd) {
        (void)pthread_mutex_lock(&o->lock);
        (void)safe_close(o->fd);
        o->fd = fd;
        o->n_starts += fd >= 0;
        o->is_coming = is_paused(o);
        (void)pthread_cond_broadcast(&o->started);
        (void)pthread_mutex_unlock(&o->lock);
}

static void on_helper(struct helper *helper, int error, int fd);

static void on_again(struct mux_timer *timer);

static void start_later(struct observer *o, uint64_t msec) {
        (void)mux_timer_set(broker_mux(observers.broker), &o->again, monotonic_nsec() + msec * NSEC_PER_MSEC, on_again);
}

static void start(struct observer *o) {
        struct helper_request request = { .kind = o == &everybodys ? HELPER_OBSERVER : HELPER_USERS_OBSERVER };
        int pair[2], r;

        o->started_nsec = monotonic_nsec();
        r = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0 ? -errno : 0;
        if (r == 0) {
                r = helper_start_with(observers.broker, &o->helper, &request, pair[1], on_helper);
                (void)close(pair[1]);
                if (r < 0)
                        (void)close(pair[0]);
        }
        if (r < 0)
                start_later(o, AGAIN_MAX_MSEC);
        set_socket(o, r < 0 ? -1 : pair[0]);
}

static void on_again(struct mux_timer *timer) {
        start(container_of(timer, struct observer, again));
}

static uint64_t pause_msec(const struct observer *o) {
        uint64_t msec = AGAIN_MSEC;

        for (unsigned n = 2; n < o->n_ends && msec < AGAIN_MAX_MSEC; n++)
                msec *= 4;
        return MIN(msec, AGAIN_MAX_MSEC);
}

/* Without its sockets it ends, if it has not. Another is started at once, then after pauses: what ended it may pass. */
static void replace(struct observer *o) {
        helper_close(&o->helper);
        o->n_ends = monotonic_nsec() - o->started_nsec > LASTS_SEC * NSEC_PER_SEC ? 1 : o->n_ends + 1;
        if (o->n_ends > 1)
                start_later(o, pause_msec(o));
        set_socket(o, -1);
        if (!is_paused(o))
                start(o);
        else if (o->n_ends == ENDS_TOLD)
                log_error("no observer stays: less can be told of processes for a while");
}

static void stop_pausing(struct observer *o) {
        if (is_paused(o))
                mux_timer_clear(broker_mux(observers.broker), &o->again);
}

static bool is_wanted(const struct observer *o) {
        return o == &everybodys || o->refs > 0;
}

static void user_free(struct observer *o) {
        list_remove(&o->link);
        stop_pausing(o);
        (void)pthread_cond_destroy(&o->started);
        (void)pthread_mutex_destroy(&o->lock);
        free(o);
}

/* Neither the message that says so is under way, nor a process to be waited for: nobody remembers that user. */
static void forget_unwanted(struct observer *o) {
        if (!is_wanted(o) && o->helper.state == HELPER_CLOSED && !o->is_lost)
                user_free(o);
}

static void on_helper(struct helper *helper, int error, int fd) {
        struct observer *o = container_of(helper, struct observer, helper);

        (void)safe_close(fd);
        if (error == 0)
                return;
        if (!o->is_ending && is_wanted(o)) {
                replace(o);
                return;
        }
        helper_close(helper);
        o->is_ending = false;
        if (is_wanted(o))
                start(o);
        else
                forget_unwanted(o);
}

/* A user's hangs in what is that user's: there is none until it has ended. */
static void give_up_lost(struct observer *o) {
        bool is_there;

        (void)pthread_mutex_lock(&o->lock);
        is_there = o->is_lost && o->lost_start == o->n_starts && o->fd >= 0;
        (void)pthread_mutex_unlock(&o->lock);
        if (is_there && o == &everybodys)
                replace(o);
        else if (is_there)
                set_socket(o, -1);
}

static void on_lost(struct mailbox *mailbox) {
        struct list *entry;

        while ((entry = mailbox_take(mailbox))) {
                struct observer *o = list_entry(entry, struct observer, lost);

                give_up_lost(o);
                (void)pthread_mutex_lock(&o->lock);
                o->is_lost = false;
                (void)pthread_mutex_unlock(&o->lock);
                forget_unwanted(o);
        }
}

/* Where there was no memory it is tried again. */
static void ensure(struct observer *o) {
        if (!observers.broker || o->fd >= 0 || is_paused(o))
                return;
        if (o->helper.state != HELPER_CLOSED) { /* it hangs, or is just about to end */
                (void)pthread_mutex_lock(&o->lock);
                o->is_coming = !o->is_lost;
                (void)pthread_mutex_unlock(&o->lock);
                return;
        }
        if (!observers.has_mailbox && mailbox_open(&observers.mailbox, broker_mux(observers.broker), on_lost) < 0)
                return;
        observers.has_mailbox = true;
        start(o);
}

static void end(struct observer *o) {
        helper_close(&o->helper);
        stop_pausing(o);
        set_socket(o, -1);
        o->is_lost = false;
        o->n_ends = 0;
}

void observer_open(struct broker *broker) {
        observers.broker = broker;
        observers.loop = pthread_self();
        list_init(&observers.users);
        list_init(&everybodys.lost);
        ensure(&everybodys);
}

bool observer_is_ready(void) {
        return !observers.broker || everybodys.helper.state == HELPER_READY ||
               (everybodys.helper.state == HELPER_CLOSED && !is_paused(&everybodys));
}

void observer_close(void) {
        struct list *entry;

        if (observers.has_mailbox) {
                while (mailbox_take(&observers.mailbox))
                        ;
                mailbox_close(&observers.mailbox);
                observers.has_mailbox = false;
        }
        end(&everybodys);
        while (observers.broker && (entry = list_pop(&observers.users))) {
                struct observer *o = list_entry(entry, struct observer, link);

                end(o);
                user_free(o);
        }
        observers.broker = NULL;
}

static size_t count_users(void) {
        size_t n = 0;

        list_for_each(entry, &observers.users)
                n++;
        return n;
}

static struct observer *find_user(uid_t uid) {
        list_for_each(entry, &observers.users)
                if (list_entry(entry, struct observer, link)->uid == uid)
                        return list_entry(entry, struct observer, link);
        return NULL;
}

struct observer *observer_get(uid_t uid) {
        struct observer *o = observers.broker ? find_user(uid) : NULL;

        if (!o && observers.broker && count_users() < USERS_MAX) {
                o = calloc(1, sizeof(*o));
                if (!o)
                        return NULL;
                o->uid = uid;
                o->fd = -1;
                (void)pthread_mutex_init(&o->lock, NULL);
                (void)pthread_cond_init(&o->started, NULL);
                list_init(&o->lost);
                list_init(&o->link);
                list_append(&observers.users, &o->link);
        }
        if (o) {
                o->refs++;
                ensure(o);
        }
        return o;
}

/* It ends, unless it hangs: then that user has no other. */
void observer_put(struct observer *o) {
        if (!o || --o->refs > 0)
                return;
        stop_pausing(o);
        set_socket(o, -1);
        o->is_ending = o->helper.state != HELPER_CLOSED;
        forget_unwanted(o);
}

/* ---- asking it ---------------------------------------------------------------------------------------------------- */

static bool receive(struct observer *o, struct look_answer *a, int *ret_fd) {
        struct pollfd p = { .fd = o->fd, .events = POLLIN };
        ssize_t n;

        do
                n = poll(&p, 1, ANSWER_MSEC);
        while (n < 0 && (errno == EINTR || packet_again(n, 0)));
        n = n > 0 ? packet_receive(o->fd, a, sizeof(*a), ret_fd, 0) : -1;
        return n >= (ssize_t)ANSWER_BYTES_MIN && (size_t)n == ANSWER_BYTES_MIN + a->size;
}

/* Under the lock. */
static bool exchange(struct observer *o, const struct look_request *q, int pidfd, struct look_answer *a, int *ret_fd) {
        struct iovec part = { (void *)q, sizeof(*q) };

        if (packet_send(o->fd, &part, 1, pidfd, 0) >= 0 && receive(o, a, ret_fd))
                return true;
        (void)shutdown(o->fd, SHUT_RDWR); /* an answer that comes late is nobody's */
        *ret_fd = safe_close(*ret_fd);
        if (!o->is_lost)
                mailbox_post(&observers.mailbox, &o->lost);
        o->is_lost = true;
        o->lost_start = o->n_starts;
        return false;
}

/* Under the lock: whether there is one. */
static bool await_start(struct observer *o) {
        struct timespec deadline;

        if (pthread_equal(pthread_self(), observers.loop)) /* it would wait for itself */
                return o->fd >= 0;
        (void)clock_gettime(CLOCK_MONOTONIC, &deadline);
        deadline.tv_sec += START_MSEC / 1000;
        while (o->fd < 0 && o->is_coming)
                if (pthread_cond_clockwait(&o->started, &o->lock, CLOCK_MONOTONIC, &deadline) != 0)
                        break;
        return o->fd >= 0;
}

/* Without a broker the kernel is asked. -EIO: there is an observer to be, and no answer. */
static int ask(struct observer *o, const struct look_request *q, int pidfd, struct look_answer *a) {
        int fd = -1;

        if (!o || !observers.broker)
                return look(q, getpid(), pidfd, a);
        (void)pthread_mutex_lock(&o->lock);
        if (!await_start(o) || !exchange(o, q, pidfd, a, &fd)) {
                a->error = -EIO;
                a->size = 0;
        }
        (void)pthread_mutex_unlock(&o->lock);
        return fd;
}

static void take_links(unsigned links, const struct look_answer *a, struct observed_links *ret) {
        const char *p = ret->space;

        _Static_assert(sizeof(ret->space) == sizeof(a->text), "all of it has room");
        memcpy(ret->space, a->text, a->size);
        for (int i = 0; i < OBSERVED_LINKS; i++) {
                bool is_there = links & 1u << i && p < ret->space + a->size;

                ret->text[i] = is_there && *p ? p + 1 : NULL;
                if (is_there)
                        p += 1 + strlen(p + 1) + 1;
        }
}

void observer_read_namespaces(pid_t pid, struct observed_links *ret) {
        struct look_request q = {
                .look = LOOK_LINKS, .pid = pid,
                .links = 1u << OBSERVED_MOUNTS | 1u << OBSERVED_ROOT | 1u << OBSERVED_PIDS | 1u << OBSERVED_NETWORK,
        };
        struct look_answer a;

        ensure(&everybodys);
        (void)ask(pid == getpid() ? NULL : &everybodys, &q, -1, &a);
        if (a.error == -EIO) { /* the next has more luck */
                give_up_lost(&everybodys);
                (void)ask(&everybodys, &q, -1, &a);
        }
        if (a.error == -EIO) /* or there is none: then what the kernel shows */
                (void)look(&q, getpid(), -1, &a);
        take_links(q.links, &a, ret);
}

int observer_read_exe(pid_t pid, char *path, size_t size) {
        struct look_request q = { .look = LOOK_LINKS, .pid = pid, .links = 1u << OBSERVED_EXE };
        struct look_answer a;

        (void)ask(&everybodys, &q, -1, &a);
        if (a.error < 0)
                return a.error;
        (void)snprintf(path, size, "%s", a.text + 1);
        return 0;
}

int observer_read_stat(pid_t pid, struct process_stat *ret) {
        struct look_request q = { .look = LOOK_STAT, .pid = pid };
        struct look_answer a;
        int r = process_read_stat(pid, ret);

        if (r < 0 || (ret->state != 'Z' && ret->state != 'X'))
                return r;
        (void)ask(&everybodys, &q, -1, &a);
        if (a.error == 0)
                *ret = a.stat;
        return a.error == -EIO ? 0 : a.error;
}

/* What came has no descriptor: this process has room for no more. */
static int or_no_room(int fd, const struct look_answer *a) {
        return fd >= 0 ? fd : a->error < 0 ? a->error : -EMFILE;
}

int observer_open_network(pid_t pid) {
        struct look_request q = { .look = LOOK_NETWORK, .pid = pid };
        struct look_answer a;
        int fd = ask(&everybodys, &q, -1, &a);

        return or_no_room(fd, &a);
}

/* `fd`: what was passed, or -1. */
static int ask_for_descriptor(struct observer *o, enum look look, struct descriptor_handle *handle,
                              struct descriptor_owner *owner, enum kev_filter filter, int fd, struct look_answer *a) {
        struct look_request q = {
                .look = look, .pid = owner->pid, .handle = *handle, .fd = fd, .filter = filter,
                .found = atomic_load(&owner->found),
        };
        int taken;

        a->figure = ABSENT;
        taken = ask(o, &q, owner->pidfd, a);
        if (a->error == -EIO) {
                handle->number = look == LOOK_FIND ? -1 : handle->number;
                a->figure = ABSENT;
                return -1;
        }
        handle->number = a->number;
        if (a->found != q.found)
                atomic_store(&owner->found, a->found);
        return taken;
}

void observer_find(struct observer *o, struct descriptor_handle *handle, struct descriptor_owner *owner, int fd) {
        struct look_answer a;

        (void)ask_for_descriptor(o, LOOK_FIND, handle, owner, 0, fd, &a);
}

int observer_take(struct observer *o, struct descriptor_handle *handle, struct descriptor_owner *owner) {
        struct look_answer a;
        int fd = ask_for_descriptor(o, LOOK_TAKE, handle, owner, 0, -1, &a);

        return or_no_room(fd, &a);
}

int64_t observer_figure(struct observer *o, struct descriptor_handle *handle, struct descriptor_owner *owner,
                        enum kev_filter filter, int *ret_error) {
        struct look_answer a;
        int64_t figure;
        int fd;

        if (handle->set < 0) {
                (void)ask_for_descriptor(o, LOOK_FIGURE, handle, owner, filter, -1, &a);
                *ret_error = a.error;
                return a.figure;
        }
        fd = observer_take(o, handle, owner);
        *ret_error = MIN(fd, 0);
        figure = fd < 0 ? ABSENT : descriptor_figure(handle, filter, fd);
        (void)safe_close(fd); /* the last close, if its owner has closed it meanwhile */
        return figure;
}
