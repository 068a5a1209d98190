/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>

#include "log.h"
#include "macro.h"
#include "mux.h"

/* Other than before: what is written, and in which order. A daemon that does not know it begins anew, and the clients
 * of the last one find their connections closed. */
enum { STATE_VERSION = 1 };

#define STATE_MAGIC UINT64_C(0x6b65766420737461)
#define STATE_NAME "kevd-state"
#define SEALS (F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE)

enum {
        NAME_MAX_BYTES = 16,
        FDS_MAX = 32 * 1024,
        BARRIER_USEC = 5 * 1000 * 1000,
};

/* Short: all names together are one variable of the next daemon's environment, which execve(2) bounds to 128 KiB. */
static void name_of(size_t i, char ret[NAME_MAX_BYTES]) {
        static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
        char reversed[NAME_MAX_BYTES];
        size_t n = 0;

        do {
                reversed[n++] = digits[i % 36];
                i /= 36;
        } while (i > 0);
        *ret++ = '_';
        while (n > 0)
                *ret++ = reversed[--n];
        *ret = 0;
}

/* False: it is no such name. */
static bool index_of(const char *name, size_t *ret) {
        char expected[NAME_MAX_BYTES];
        char *end;

        if (name[0] != '_' || strlen(name) >= NAME_MAX_BYTES)
                return false;
        *ret = strtoul(name + 1, &end, 36);
        name_of(*ret, expected);
        return *end == 0 && *ret < FDS_MAX && strcmp(name, expected) == 0;
}

/* ---- giving ------------------------------------------------------------------- */

/* What the service manager keeps at most; 0: it has no store. systemd says so itself from 254 on; before it, the unit
 * does (systemd.exec(5), $FDSTORE). */
static size_t store_size(void) {
        const char *size = getenv("FDSTORE");

        return size ? MIN(strtoul(size, NULL, 10), (unsigned long)FDS_MAX) : 0;
}

bool handover_is_possible(void) {
        return store_size() > 0;
}

static int give_fd(int fd, const char *name) {
        char text[64 + NAME_MAX_BYTES];
        int r;

        (void)snprintf(text, sizeof(text), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
        r = sd_pid_notify_with_fds(0, false, text, &fd, 1);
        return r > 0 ? 0 : r < 0 ? r : -EOPNOTSUPP;
}

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

int handover_give(const struct state_writer *w) {
        int state _cleanup_(closep) = -1, r = w->bytes.error;

        if (r < 0)
                return r;
        state = make_state(&w->bytes);
        if (state < 0)
                return state;
        for (size_t i = 0; r == 0 && i < MIN(w->n_fds, store_size() - 1); i++) {
                char name[NAME_MAX_BYTES];

                name_of(i, name);
                r = give_fd(w->fds[i], name);
        }
        if (r == 0)
                r = give_fd(state, STATE_NAME); /* last: without it the others are of no use */
        /* The messages of a process that has ended may be taken for nobody's. */
        if (r == 0)
                r = sd_notify_barrier(false, BARRIER_USEC);
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

static bool keep(struct handover *h, size_t i, int fd) {
        if (i >= h->fds.n) {
                size_t n = MAX(h->fds.n * 2, i + 64);
                int *fds = realloc(h->fds.fds, n * sizeof(*fds));

                if (!fds)
                        return false;
                for (size_t k = h->fds.n; k < n; k++)
                        fds[k] = -1;
                h->fds.fds = fds;
                h->fds.n = n;
        }
        if (h->fds.fds[i] >= 0)
                return false;
        h->fds.fds[i] = fd;
        return true;
}

bool handover_take(struct handover *h, int fd, const char *name) {
        size_t i;

        if (strcmp(name, STATE_NAME) == 0) {
                map_state(h, fd);
                (void)close(fd);
        } else if (index_of(name, &i)) {
                if (!keep(h, i, fd))
                        (void)close(fd);
        } else
                return false;
        h->n_taken++;
        return true;
}

/* The state before all else: if this daemon fails from here on, the next one must not go on where the last one was. */
static void empty_store(const struct handover *h) {
        char text[64 + NAME_MAX_BYTES], name[NAME_MAX_BYTES];

        (void)sd_notify(false, "FDSTOREREMOVE=1\nFDNAME=" STATE_NAME);
        (void)sd_notify_barrier(false, BARRIER_USEC);
        for (size_t i = 0; i < h->fds.n; i++) {
                if (h->fds.fds[i] < 0)
                        continue;
                name_of(i, name);
                (void)snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
                (void)sd_notify(false, text);
        }
}

bool handover_open(struct handover *h, struct state_reader *ret_reader) {
        struct state_reader r = { .next = h->state, .end = h->state ? h->state + h->size : NULL, .fds = &h->fds };

        if (h->n_taken == 0)
                return false;
        empty_store(h);
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

void handover_free(struct handover *h) {
        for (size_t i = 0; i < h->fds.n; i++)
                (void)safe_close(h->fds.fds[i]);
        free(take_pointer(&h->fds.fds));
        if (h->state)
                (void)munmap(h->state, h->size);
        *h = (struct handover){ 0 };
}
