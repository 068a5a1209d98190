/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The process connector: netlink messages about all processes of the machine
 * (Documentation/driver-api/connector.rst, <linux/cn_proc.h>).
 *
 * A fork is told before the child runs; an end after the process has become a zombie, so that its parent may reap it,
 * and its pid be another's, before the message is there.
 *
 * Where messages come too fast, the kernel drops them all until the socket was emptied, and says so once (ENOBUFS).
 * Each message has the number of its kind on its CPU: what is missing there was lost. How many forks are among it the
 * counter `processes` of /proc/stat knows: it and the number of messages about forks run apart only by a loss.
 *
 * The thread empties the socket each time that it wakes, and while there is much to do it wakes every two milliseconds:
 * a wake-up costs more than a message.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/connector.h>
#include <linux/netlink.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "connector.h"
#include "feed_writer.h"
#include "mux.h"
#include "opener_call.h"
#include "question.h"
#include "state.h"

enum {
        BUFFER_BYTES = 32 * 1024 * 1024,
        BATCH = 64,
        MESSAGE_BYTES = 128,
        TEST_MSEC = 1000,
        BEGIN_LOOKS = 100,
        CPUS_MAX = 4096,
        MEASURE_MSEC = 5,      /* between two looks at the counter of forks */
        MEASURE_RARELY_MSEC = 100,
        MEASURE_LATEST_MSEC = 500, /* after a loss: what is certain by then is told */
};

#define NUMBER_UNKNOWN UINT64_MAX

struct feed {
        struct feed_shared *shared;
        struct feed_writer writer;
        struct opened opened; /* the socket; without a helper where there is no broker */
        int stat_fd;          /* /proc/stat */

        /* The thread's own. */
        uint64_t numbers[CPUS_MAX]; /* of the last message, by CPU */
        /* Forks, as the kernel counts them and as they were told. */
        uint64_t n_forks;
        uint64_t base;         /* the counter, less n_forks, before anything was lost */
        uint64_t n_forks_lost; /* told of */
        bool drained;
        bool overflowed; /* what comes behind what is queued is dropped, until that was read */
        uint64_t measure_nsec, lost_nsec; /* when to look next; when it began. 0: nothing is to be measured */
        uint64_t measured_counter, measured_forks;

        struct mmsghdr headers[BATCH];
        struct iovec parts[BATCH];
        char messages[BATCH][MESSAGE_BYTES] __attribute__((aligned(8)));
};

/* ---- messages ---------------------------------------------------------------------------------------------- */

static void on_fork(struct feed *f, const struct proc_event *e) {
        struct record *r = feed_writer_put(&f->writer, RECORD_FORK, e->event_data.fork.child_tgid);

        f->n_forks++;
        if (!r)
                return;
        r->tid = e->event_data.fork.child_pid;
        r->parent = e->event_data.fork.parent_tgid;
        r->nsec = e->timestamp_ns;
}

static void on_exit_of(struct feed *f, const struct proc_event *e) {
        struct record *r = feed_writer_put(&f->writer, RECORD_EXIT, e->event_data.exit.process_tgid);

        if (!r)
                return;
        r->tid = e->event_data.exit.process_pid;
        r->status = (int)e->event_data.exit.exit_code;
        r->parent = e->event_data.exit.parent_tgid; /* Linux 4.18; else 0 */
        r->nsec = e->timestamp_ns;
}

static void on_comm(struct feed *f, const struct proc_event *e) {
        struct record *r = feed_writer_put(&f->writer, RECORD_COMM, e->event_data.comm.process_tgid);

        if (!r)
                return;
        r->tid = e->event_data.comm.process_pid;
        r->nsec = e->timestamp_ns;
        r->knows_comm = true;
        memcpy(r->comm, e->event_data.comm.comm, sizeof(r->comm));
        r->comm[sizeof(r->comm) - 1] = 0;
}

/* NULL: no memory. */
static struct record *on_plain(struct feed *f, const struct proc_event *e, enum record_kind kind, pid_t pid, pid_t tid) {
        struct record *r = feed_writer_put(&f->writer, kind, pid);

        if (!r)
                return NULL;
        r->tid = tid;
        r->nsec = e->timestamp_ns;
        return r;
}

static void on_ids(struct feed *f, const struct proc_event *e) {
        struct record *r = on_plain(f, e, RECORD_IDS, e->event_data.id.process_tgid, e->event_data.id.process_pid);

        if (!r)
                return;
        r->knows_two = true;
        r->real = e->event_data.id.r.ruid;
        r->effective = e->event_data.id.e.euid;
}

/* Where it is: whatever comes behind it comes after the loss. */
static void tell_lost(struct feed *f, bool is_certain) {
        struct record *r = feed_writer_put(&f->writer, RECORD_LOST, 0);

        f->writer.failed = !r;
        if (r)
                r->is_certain = is_certain;
        f->lost_nsec = monotonic_nsec();
        f->measure_nsec = f->lost_nsec;
        f->writer.timeout_msec = MEASURE_MSEC;
        f->measured_counter = 0;
}

/* Messages of one CPU are numbered; those before the first one that came are nobody's loss. Answers to other listeners
 * have numbers, and are not told here: a gap is a reason to look. */
static void check_number(struct feed *f, uint32_t cpu, uint32_t number) {
        uint64_t *last = &f->numbers[cpu % CPUS_MAX];
        uint32_t missing = *last == NUMBER_UNKNOWN ? 0 : number - (uint32_t)*last - 1;

        *last = number;
        if (missing == 0)
                return;
        tell_lost(f, false);
        atomic_fetch_add(&f->shared->n_lost, missing);
}

bool connector_parse(const char *message, size_t size, uint32_t *ret_number, struct proc_event *ret_event) {
        const struct nlmsghdr *header = (const void *)message;
        const struct cn_msg *cn = NLMSG_DATA(header);

        if (size < NLMSG_LENGTH(sizeof(*cn)) || header->nlmsg_len > size || cn->id.idx != CN_IDX_PROC ||
            cn->id.val != CN_VAL_PROC || cn->len < offsetof(struct proc_event, event_data))
                return false;
        memset(ret_event, 0, sizeof(*ret_event));
        memcpy(ret_event, cn->data, MIN((size_t)cn->len, MIN(sizeof(*ret_event), size - NLMSG_LENGTH(sizeof(*cn)))));
        *ret_number = cn->seq;
        return true;
}

static void on_message(struct feed *f, const char *message, size_t size) {
        struct proc_event e;
        uint32_t number;

        if (!connector_parse(message, size, &number, &e))
                return;
        if (e.cpu != UINT32_MAX)
                check_number(f, e.cpu, number);
        if (e.what == PROC_EVENT_NONE) /* the answer to what was sent */
                return;
        atomic_fetch_add_explicit(&f->shared->n_received, 1, memory_order_relaxed);
        switch ((unsigned)e.what) {
        case PROC_EVENT_FORK:
                on_fork(f, &e);
                break;
        case PROC_EVENT_EXIT:
                on_exit_of(f, &e);
                break;
        case PROC_EVENT_EXEC:
                (void)on_plain(f, &e, RECORD_EXEC, e.event_data.exec.process_tgid, e.event_data.exec.process_pid);
                break;
        case PROC_EVENT_UID:
                on_ids(f, &e);
                break;
        case PROC_EVENT_COMM:
                on_comm(f, &e);
                break;
        case PROC_EVENT_COREDUMP:
                (void)on_plain(f, &e, RECORD_CORE, e.event_data.coredump.process_tgid, e.event_data.coredump.process_pid);
                break;
        default:
                break;
        }
}

/* Until the socket is empty. */
static bool drain(struct feed *f) {
        f->drained = false;
        for (;;) {
                int n = recvmmsg(f->opened.fds[0], f->headers, BATCH, MSG_DONTWAIT, NULL);

                if (n < 0 && errno == ENOBUFS) {
                        tell_lost(f, true);
                        f->overflowed = true;
                        continue;
                }
                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0) {
                        f->drained = true;
                        if (f->overflowed) /* until now */
                                tell_lost(f, false);
                        f->overflowed = false;
                        return true;
                }
                /* Of the kernel, or of somebody with CAP_NET_ADMIN in the first user namespace: nobody else may send
                 * here (netlink(7)). */
                for (int i = 0; i < n; i++)
                        on_message(f, f->messages[i], f->headers[i].msg_len);
                if (feed_writer_is_full(&f->writer))
                        return false;
        }
}

/* ---- forks that were lost ---------------------------------------------------------------------------------------- */

/* All forks, threads too, since the boot (proc_stat(5)). */
static uint64_t read_counter(int stat_fd) {
        static _Thread_local char text[256 * 1024];
        size_t size = 0;
        ssize_t n;
        const char *p;

        while (size < sizeof(text) - 1 && (n = pread(stat_fd, text + size, sizeof(text) - 1 - size, (off_t)size)) > 0)
                size += (size_t)n;
        text[size] = 0;
        p = strstr(text, "\nprocesses ");
        return p ? strtoull(p + 11, NULL, 10) : 0;
}

static void tell_forks_lost(struct feed *f, uint64_t n) {
        struct record *r;

        if (n <= f->n_forks_lost)
                return;
        r = feed_writer_put(&f->writer, RECORD_FORKS_LOST, 0);
        if (!r)
                return;
        r->count = n - f->n_forks_lost;
        f->n_forks_lost = n;
}

/* The socket is empty. A look tells for certain if there was no fork since the one before. */
static void measure(struct feed *f) {
        uint64_t now = monotonic_nsec(), counter;
        bool quiet;

        if (f->measure_nsec == 0 || now < f->measure_nsec || !f->drained)
                return;
        counter = read_counter(f->stat_fd);
        quiet = counter == f->measured_counter && f->n_forks == f->measured_forks;
        if (!f->lost_nsec) /* there is time, and it costs */
                f->writer.timeout_msec = MIN(f->writer.timeout_msec * 2, (int)MEASURE_RARELY_MSEC);
        f->measure_nsec = now + (uint64_t)f->writer.timeout_msec * NSEC_PER_MSEC;
        if (quiet && f->lost_nsec == 0) /* the first look */
                f->base = counter - f->n_forks;
        else if (quiet && counter > f->base + f->n_forks)
                tell_forks_lost(f, counter - f->base - f->n_forks);
        /* The older count, and all that were told since: no more than these were lost for certain. */
        else if (f->lost_nsec && now - f->lost_nsec > MEASURE_LATEST_MSEC * NSEC_PER_MSEC &&
                 f->measured_counter > f->base + f->n_forks)
                tell_forks_lost(f, f->measured_counter - f->base - f->n_forks);
        f->measured_counter = counter;
        f->measured_forks = f->n_forks;
        if (quiet) {
                f->measure_nsec = f->lost_nsec = 0;
                f->writer.timeout_msec = -1;
        }
}

static void tell_losses(struct feed *f) {
        if (f->writer.failed)
                tell_lost(f, true);
        measure(f);
}

/* ---- the loop's side -------------------------------------------------------------------------------------------- */

static int say(int fd, enum proc_cn_mcast_op op) {
        struct nlmsghdr header = {
                .nlmsg_len = NLMSG_LENGTH(sizeof(struct cn_msg) + sizeof(op)), .nlmsg_type = NLMSG_DONE,
        };
        struct cn_msg cn = { .id = { CN_IDX_PROC, CN_VAL_PROC }, .len = sizeof(op) };
        struct iovec parts[] = { { &header, sizeof(header) }, { &cn, sizeof(cn) }, { &op, sizeof(op) } };

        return writev(fd, parts, (int)ARRAY_SIZE(parts)) < 0 ? -errno : 0;
}

static int open_socket(size_t buffer_bytes) {
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = CN_IDX_PROC };
        int fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_CONNECTOR), size, r;

        if (fd < 0)
                return -errno;
        size = (int)(buffer_bytes ? buffer_bytes : BUFFER_BYTES) / 2; /* the kernel doubles it: socket(7) */
        if (buffer_bytes || setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
                (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        r = bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : say(fd, PROC_CN_MCAST_LISTEN);
        if (r == 0)
                return fd;
        (void)close(fd);
        return r;
}

static void *end_at_once(void *argument) {
        pid_t *tid = argument;

        *tid = (pid_t)syscall(SYS_gettid);
        return NULL;
}

static bool tells_of_end(int fd, pid_t tid) {
        char message[MESSAGE_BYTES] __attribute__((aligned(8)));
        struct proc_event e;
        uint32_t number;
        ssize_t n;

        while ((n = recv(fd, message, sizeof(message), 0)) >= 0 || errno == ENOBUFS || errno == EINTR)
                if (n > 0 && connector_parse(message, (size_t)n, &number, &e) &&
                    (unsigned)e.what == PROC_EVENT_EXIT && e.event_data.exit.process_pid == tid)
                        return true;
        return false;
}

/* 1: of a thread that is made for it. 0: in another namespace than the first everything seems to work, and nothing ever
 * comes. Negative errno: it can't be found out just now. */
static int hears(int fd) {
        uint64_t deadline = monotonic_nsec() + TEST_MSEC * NSEC_PER_MSEC;
        pthread_t thread;
        pid_t tid = 0;
        int r = pthread_create(&thread, NULL, end_at_once, &tid);

        if (r != 0)
                return -r;
        (void)pthread_join(thread, NULL);
        for (;;) {
                struct pollfd p = { .fd = fd, .events = POLLIN };
                uint64_t now = monotonic_nsec();

                if (tells_of_end(fd, tid))
                        return 1;
                if (now >= deadline)
                        return 0;
                if (poll(&p, 1, (int)((deadline - now) / NSEC_PER_MSEC) + 1) < 0 && errno != EINTR)
                        return -errno;
        }
}

void connector_ignore(int fd) {
        (void)say(fd, PROC_CN_MCAST_IGNORE); /* or the kernel goes on making messages */
}

/* What came up to now is nobody's, and the counter is taken where nothing is left of it. */
static uint64_t begin_counting(int fd) {
        int stat_fd _cleanup_(closep) = open("/proc/stat", O_RDONLY | O_CLOEXEC);
        uint64_t before = 0, after = 0;

        for (int i = 0; stat_fd >= 0 && i < BEGIN_LOOKS; i++) {
                char message[MESSAGE_BYTES];

                before = read_counter(stat_fd);
                while (recv(fd, message, sizeof(message), MSG_DONTWAIT) > 0)
                        ;
                after = read_counter(stat_fd);
                if (before == after)
                        break;
        }
        return after; /* on a machine that never rests: about that; the first look that finds no fork knows */
}

int connector_listen(size_t buffer_bytes, bool is_only _unused_, int ret_fds[OPENING_FDS_MAX], struct opening *opening) {
        int fd = open_socket(buffer_bytes), r = fd < 0 ? fd : hears(fd);

        if (r < 0)
                (void)snprintf(opening->why, sizeof(opening->why), "the process connector: %s", strerror(-r));
        else if (r == 0) {
                (void)snprintf(opening->why, sizeof(opening->why),
                               "the process connector is silent (it speaks in the first pid namespace only)");
                r = -EOPNOTSUPP;
        }
        if (r < 0) {
                if (fd >= 0)
                        connector_ignore(fd);
                (void)safe_close(fd);
                return r;
        }
        ret_fds[0] = fd;
        opening->n_fds = 1;
        opening->n_forks = begin_counting(fd);
        return 0;
}

static void free_feed(struct feed *f) {
        feed_writer_close(&f->writer);
        if (f->opened.fds[0] >= 0 && f->opened.socket < 0)
                connector_ignore(f->opened.fds[0]);
        opened_close(&f->opened);
        (void)safe_close(f->stat_fd);
        free(f);
}

static int open_descriptors(struct feed *f, const struct feed_settings *settings, const struct opened *opened, char *why,
                            size_t why_size) {
        struct opening opening = { 0 };
        int r = 0;

        if (opened)
                f->opened = *opened;
        f->stat_fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
        if (f->stat_fd < 0)
                return -errno;
        if (!opened) {
                r = connector_listen(settings->buffer_bytes, settings->is_only, f->opened.fds, &opening);
                f->opened.n_forks = opening.n_forks;
                (void)snprintf(why, why_size, "%s", opening.why);
        }
        f->base = f->opened.n_forks;
        return r;
}

/* NULL: no memory. */
static struct feed *new_feed(struct feed_shared *shared) {
        struct feed *f = calloc(1, sizeof(*f));

        if (!f)
                return NULL;
        f->shared = shared;
        f->opened = OPENED_NONE;
        f->stat_fd = -1;
        for (size_t i = 0; i < CPUS_MAX; i++)
                f->numbers[i] = NUMBER_UNKNOWN;
        for (size_t i = 0; i < BATCH; i++) {
                f->parts[i] = (struct iovec){ f->messages[i], MESSAGE_BYTES };
                f->headers[i].msg_hdr = (struct msghdr){ .msg_iov = &f->parts[i], .msg_iovlen = 1 };
        }
        return f;
}

static int start(struct feed *f) {
        f->writer.timeout_msec = f->measure_nsec ? MEASURE_MSEC : -1;
        f->writer.feed = f;
        f->writer.fd = f->opened.fds[0];
        f->writer.drain = drain;
        f->writer.tell_losses = tell_losses;
        return feed_writer_start(&f->writer);
}

static int connector_open(const struct feed_settings *settings, const struct opened *opened, struct mailbox *mailbox,
                          struct feed_shared *shared, struct feed **ret_feed, char *why, size_t why_size) {
        struct feed *f = new_feed(shared);
        int r;

        if (!f) {
                opened_drop(opened);
                return -ENOMEM;
        }
        r = feed_writer_init(&f->writer, mailbox, shared);
        if (r == 0)
                r = open_descriptors(f, settings, opened, why, why_size);
        else
                opened_drop(opened);
        if (r < 0 && !why[0])
                (void)snprintf(why, why_size, "the process connector: %s", strerror(-r));
        if (r == 0) {
                f->measure_nsec = 1;
                r = start(f);
        }
        if (r < 0) {
                free_feed(f);
                return r;
        }
        *ret_feed = f;
        return 0;
}

static void connector_mark(struct feed *f, uint64_t serial) {
        feed_writer_mark(&f->writer, serial);
}

/* ---- for the next daemon ------------------------------------------------------------------------------------ */

static bool connector_save(struct feed *f, struct state_writer *w) {
        feed_writer_stop(&f->writer);
        if (f->lost_nsec || f->overflowed || f->writer.failed) /* how much is missing is still being found out */
                return false;
        opened_leave(&f->opened);
        state_put_fd(w, f->opened.fds[0]);
        state_put_u64(w, f->n_forks);
        state_put_u64(w, f->base);
        state_put_u64(w, f->n_forks_lost);
        state_put_bool(w, f->measure_nsec != 0);
        state_put_bytes(w, f->numbers, sizeof(f->numbers));
        return true;
}

/* A helper of this daemon's is to leave the connector. */
static void give_to_helper(struct feed *f, struct broker *opener, int fd) {
        char why[sizeof(((struct opening *)NULL)->why)];

        if (fd >= 0 && opener_ask(opener, HELPER_CONNECTOR, fd, 0, false, &f->opened, why, sizeof(why)) == 0)
                (void)close(fd);
        else
                f->opened.fds[0] = fd;
}

static int connector_resume(struct broker *opener, struct mailbox *mailbox, struct feed_shared *shared,
                            struct state_reader *r, struct feed **ret_feed) {
        struct feed *f = new_feed(shared);
        const void *numbers;
        size_t size;
        int result;

        if (!f)
                return -ENOMEM;
        give_to_helper(f, opener, state_get_fd(r));
        f->n_forks = state_get_u64(r);
        f->base = state_get_u64(r);
        f->n_forks_lost = state_get_u64(r);
        f->measure_nsec = state_get_bool(r);
        numbers = state_get_bytes(r, &size);
        if (numbers && size == sizeof(f->numbers))
                memcpy(f->numbers, numbers, size);
        else
                r->failed = true;
        f->stat_fd = open("/proc/stat", O_RDONLY | O_CLOEXEC);
        result = feed_writer_init(&f->writer, mailbox, shared);
        if (result == 0 && (r->failed || f->opened.fds[0] < 0 || f->stat_fd < 0))
                result = -EBADMSG;
        if (result == 0)
                result = start(f);
        if (result < 0)
                free_feed(f);
        else
                *ret_feed = f;
        return result;
}

const struct feed_class feed_connector = {
        .name = "connector",
        .title = "the process connector: ",
        .helper = HELPER_CONNECTOR,
        .open = connector_open,
        .close = free_feed,
        .mark = connector_mark,
        .save = connector_save,
        .resume = connector_resume,
};
