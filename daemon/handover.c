/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "log.h"
#include "macro.h"
#include "notify.h"

/* Other than before: what is written, in which order, or what it stands for. A daemon that does not know it begins anew,
 * and the clients of the last one find their connections closed. */
enum { STATE_VERSION = 5 };

#define STATE_MAGIC UINT64_C(0x6b65766420737461)
#define STATE_NAME "kevd-state"
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

#define CARRIER_NAME "kevd-descriptors"

enum {
        NAME_MAX_BYTES = 32,
        FDS_MAX = 64 * 1024,
        FDS_OF_MESSAGE = 253, /* SCM_MAX_FD */
        BARRIER_USEC = 5 * 1000 * 1000,
};

/* ---- giving ------------------------------------------------------------------- */

/* systemd says what it keeps at most itself from 254 on; before it, the unit does (systemd.exec(5), $FDSTORE). */
bool handover_is_possible(void) {
        const char *size = getenv("FDSTORE");

        return size && strtoul(size, NULL, 10) > 0;
}

static int give_fd(int fd, const char *name) {
        char text[64 + NAME_MAX_BYTES];
        int r;

        (void)snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
        r = sd_pid_notify_with_fds(0, false, text, &fd, 1);
        return r > 0 ? 0 : r < 0 ? r : -EOPNOTSUPP;
}

static void remove_fd(const char *name) {
        char text[64 + NAME_MAX_BYTES];

        (void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
        (void)sd_notify(false, text);
}

/* ---- while the loop runs ---------------------------------------------------------- */

static int keep_now(int fd, const char *name) {
        char text[64 + NAME_MAX_BYTES];

        (void)snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
        return notify_at_once(text, fd);
}

static int drop_now(const char *name) {
        char text[64 + NAME_MAX_BYTES];

        (void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
        return notify_at_once(text, -1);
}

static int wait_for_all(void) {
        return sd_notify_barrier(false, BARRIER_USEC);
}

const struct store handover_store = {
        .keep = keep_now,
        .drop = drop_now,
        .wait = wait_for_all,
};

/* ---- giving all ------------------------------------------------------------------- */

static int write_all(int fd, const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = write(fd, data, size);

                if (n < 0 && errno != EINTR)
                        return -errno;
                data += MAX(n, 0);
                size -= (size_t)MAX(n, 0);
        }
        return 0;
}

static int make_state(const struct buffer *bytes) {
        const uint64_t head[] = { STATE_MAGIC, STATE_VERSION };
        int fd _cleanup_(closep) = memfd_create(STATE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);
        int r = fd < 0 ? -errno : write_all(fd, (const void *)head, sizeof(head));

        if (r == 0)
                r = write_all(fd, bytes->data, bytes->size);
        if (r == 0 && fcntl(fd, F_ADD_SEALS, SEALS) < 0)
                r = -errno;
        return r < 0 ? r : take_fd(&fd);
}

union fds_control {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_OF_MESSAGE * sizeof(int))];
};

/* Some of them, from this number on. */
static int carry(int carrier, const int *fds, size_t n, uint64_t number) {
        union fds_control control = { 0 };
        struct iovec part = { &number, sizeof(number) };
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_SPACE(n * sizeof(int)),
        };

        control.align = (struct cmsghdr){
                .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n * sizeof(int)),
        };
        memcpy(CMSG_DATA(&control.align), fds, n * sizeof(int));
        return sendmsg(carrier, &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* All of them in one socket's queue, of which the other end is for the store. What has no room in it is missing. */
static int make_carrier(const struct state_writer *w) {
        int ends[2], r = 0;

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
                return -errno;
        for (size_t i = 0, n; r == 0 && i < w->n_fds; i += n) {
                n = MIN(w->n_fds - i, (size_t)FDS_OF_MESSAGE);
                r = carry(ends[0], w->fds + i, n, i);
        }
        if (r < 0)
                log_warning("not all descriptors can be left to the next daemon: %s", strerror(-r));
        (void)close(ends[0]);
        return ends[1];
}

int handover_give(const struct state_writer *w) {
        int state _cleanup_(closep) = -1, carrier _cleanup_(closep) = -1, r = w->bytes.error;

        if (r < 0)
                return r;
        state = make_state(&w->bytes);
        if (state < 0)
                return state;
        carrier = make_carrier(w);
        if (carrier < 0)
                return carrier;
        r = give_fd(carrier, CARRIER_NAME);
        if (r == 0)
                r = give_fd(state, STATE_NAME);
        /* The messages of a process that has ended may be taken for nobody's. Without an answer they are still there:
         * to end in good order now would shut down what the next daemon will be given. */
        if (r == 0 && sd_notify_barrier(false, BARRIER_USEC) < 0)
                log_warning("the service manager does not say whether it has what is left to the next daemon");
        return MIN(r, 0);
}

/* ---- taking ------------------------------------------------------------------- */

static void map_state(struct handover *h, int fd) {
        int seals = fcntl(fd, F_GET_SEALS);
        struct stat st;
        void *p;

        if (h->state || seals < 0 || (seals & SEALS) != SEALS || fstat(fd, &st) < 0 || st.st_size <= 0)
                return;
        p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (p == MAP_FAILED)
                return;
        h->state = p;
        h->size = (size_t)st.st_size;
}

/* Takes the descriptor over. */
static void keep(struct state_fds *all, size_t i, int fd) {
        if (i >= all->n) {
                size_t n = MAX(all->n * 2, i + 64);
                int *fds = realloc(all->fds, n * sizeof(*fds));

                if (!fds) {
                        (void)close(fd);
                        return;
                }
                for (size_t k = all->n; k < n; k++)
                        fds[k] = -1;
                all->fds = fds;
                all->n = n;
        }
        (void)safe_close(all->fds[i]);
        all->fds[i] = fd;
}

/* One message. False: there is none. */
static bool unload_some(struct handover *h, int carrier) {
        union fds_control control;
        uint64_t number = FDS_MAX;
        struct iovec part = { &number, sizeof(number) };
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
        };

        if (recvmsg(carrier, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) <= 0)
                return false;
        for (struct cmsghdr *c = CMSG_FIRSTHDR(&message); c; c = CMSG_NXTHDR(&message, c))
                for (size_t i = 0; c->cmsg_type == SCM_RIGHTS && CMSG_LEN((i + 1) * sizeof(int)) <= c->cmsg_len; i++) {
                        int fd;

                        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
                        if (number + i < FDS_MAX)
                                keep(&h->fds, number + i, fd);
                        else
                                (void)close(fd);
                }
        return true;
}

/* All that there are under one name, for live_restore() to choose from. */
static void keep_live(struct handover *h, enum live_kind kind, size_t i, int fd) {
        struct state_fds *all = kind == LIVE_SOCKET ? &h->live_sockets : &h->live_sketches;

        if (kind == LIVE_TABLE) {
                (void)safe_close(h->live_table);
                h->live_table = fd;
                return;
        }
        while (i < all->n && all->fds[i] >= 0)
                i += LIVE_SLOTS;
        if (i < FDS_MAX)
                keep(all, i, fd);
        else
                (void)close(fd);
}

bool handover_take(struct handover *h, int fd, const char *name) {
        enum live_kind kind;
        size_t i;

        if (strcmp(name, STATE_NAME) == 0) {
                map_state(h, fd);
                (void)close(fd);
        } else if (strcmp(name, CARRIER_NAME) == 0) {
                while (unload_some(h, fd))
                        ;
                (void)close(fd);
        } else if ((kind = live_kind_of(name, &i)) != LIVE_NONE)
                keep_live(h, kind, i, fd);
        else
                return false;
        h->n_taken++;
        return true;
}

/* The state before all else: if this daemon fails from here on, the next one must not go on where the last one was. */
static void empty_store(const struct handover *h) {
        const struct state_fds *live[LIVE_KINDS] = { [LIVE_SOCKET] = &h->live_sockets, [LIVE_SKETCH] = &h->live_sketches };
        char name[NAME_MAX_BYTES];

        remove_fd(STATE_NAME);
        remove_fd(CARRIER_NAME);
        live_name(LIVE_TABLE, 0, name);
        remove_fd(name);
        (void)sd_notify_barrier(false, BARRIER_USEC);
        for (enum live_kind kind = LIVE_SOCKET; kind < LIVE_KINDS; kind++)
                for (size_t i = 0; i < MIN(live[kind]->n, (size_t)LIVE_SLOTS); i++)
                        if (live[kind]->fds[i] >= 0) {
                                live_name(kind, i, name);
                                remove_fd(name);
                        }
}

bool handover_open(struct handover *h, struct state_reader *ret_reader) {
        struct state_reader r = { .next = h->state, .end = h->state ? h->state + h->size : NULL, .fds = &h->fds };

        if (h->n_taken == 0)
                return false;
        empty_store(h);
        if (!h->state && h->live_table >= 0)
                return false;
        if (!h->state)
                log_warning("what the last daemon has left has no state: its clients' connections are closed");
        else if (state_get_u64(&r) != STATE_MAGIC || state_get_u64(&r) != STATE_VERSION)
                log_warning("what the last daemon has left is of another version: its clients' connections are closed");
        else {
                *ret_reader = r;
                return true;
        }
        return false;
}

static void close_all(struct state_fds *all) {
        for (size_t i = 0; i < all->n; i++)
                (void)safe_close(all->fds[i]);
        free(take_pointer(&all->fds));
        all->n = 0;
}

void handover_free(struct handover *h) {
        close_all(&h->fds);
        close_all(&h->live_sockets);
        close_all(&h->live_sketches);
        (void)safe_close(h->live_table);
        if (h->state)
                (void)munmap(h->state, h->size);
        *h = HANDOVER_INIT;
}
