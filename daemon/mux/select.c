/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * select(2), as pselect for its nanoseconds. It has room for descriptors below FD_SETSIZE, and shows errors and
 * hangups as readable or writable, so to who asks for that alone: poll(2) says what it is, and is asked once a second
 * about descriptors of which nobody wants to read.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/select.h>

#include "backend.h"
#include "macro.h"
#include "pollfd.h"

#define QUIET_NSEC ((int64_t)NSEC_PER_SEC)

struct fd_sets {
        fd_set read, write, except;
};

struct select_set {
        struct fd_sets wanted;
        fd_set members;
        void *tokens[FD_SETSIZE];
        int end;     /* the highest member, plus one */
        int n_quiet; /* members that are not in `read` */
        int start;   /* the next look at the answers begins here, so that none starves: those before had their turn */
};

static int select_open(void **ret_state) {
        *ret_state = calloc(1, sizeof(struct select_set));
        return *ret_state ? 0 : -ENOMEM;
}

static void select_close(void *state) {
        free(state);
}

static bool is_member(const struct select_set *s, int fd) {
        return fd >= 0 && fd < FD_SETSIZE && FD_ISSET(fd, &s->members);
}

static void put(fd_set *set, int fd, bool in) {
        if (in)
                FD_SET(fd, set);
        else
                FD_CLR(fd, set);
}

static void set_events(struct select_set *s, int fd, unsigned events) {
        put(&s->wanted.read, fd, events & MUX_IN);
        put(&s->wanted.write, fd, events & MUX_OUT);
        put(&s->wanted.except, fd, events & MUX_PRI);
}

static int select_add(void *state, int fd, unsigned events, void *token) {
        struct select_set *s = state;
        int r = check_descriptor(fd);

        if (r < 0)
                return r;
        if (fd >= FD_SETSIZE)
                return -EMFILE;
        if (is_member(s, fd))
                return -EEXIST;
        FD_SET(fd, &s->members);
        set_events(s, fd, events);
        s->n_quiet += !(events & MUX_IN);
        s->tokens[fd] = token;
        s->end = MAX(s->end, fd + 1);
        return 0;
}

static int select_modify(void *state, int fd, unsigned events, void *token) {
        struct select_set *s = state;

        if (!is_member(s, fd))
                return -ENOENT;
        s->n_quiet += (FD_ISSET(fd, &s->wanted.read) != 0) - ((events & MUX_IN) != 0);
        set_events(s, fd, events);
        s->tokens[fd] = token;
        return 0;
}

static void select_remove(void *state, int fd) {
        struct select_set *s = state;

        if (!is_member(s, fd))
                return;
        s->n_quiet -= !FD_ISSET(fd, &s->wanted.read);
        set_events(s, fd, 0);
        FD_CLR(fd, &s->members);
        while (s->end > 0 && !is_member(s, s->end - 1))
                s->end--;
}

static unsigned events_in(const struct fd_sets *sets, int fd) {
        return (FD_ISSET(fd, &sets->read) ? MUX_IN : 0u) | (FD_ISSET(fd, &sets->write) ? MUX_OUT : 0u) |
               (FD_ISSET(fd, &sets->except) ? MUX_PRI : 0u);
}

/* What select(2) has found, which may be gone with the look: so poll(2) is asked for the rest alone. With EBADF, as one
 * was closed, it has found nothing. */
static unsigned find_events(const struct select_set *s, const struct fd_sets *answer, int fd, int error) {
        unsigned wanted = events_in(&s->wanted, fd), found;

        if (error != 0)
                return ask_poll(fd, wanted);
        found = events_in(answer, fd);
        return found || !(wanted & MUX_IN) ? found | ask_poll(fd, 0) : 0;
}

static size_t fill(struct select_set *s, const struct fd_sets *answer, int error, struct mux_ready *ready,
                   size_t n_ready) {
        size_t n = 0;

        if (s->start >= s->end)
                s->start = 0;
        for (int i = 0, first = s->start; i < s->end && n < n_ready; i++) {
                int fd = (first + i) % s->end;
                unsigned events = is_member(s, fd) ? find_events(s, answer, fd, error) : 0;

                if (!events)
                        continue;
                ready[n].token = s->tokens[fd];
                ready[n++].events = events;
                if (n == n_ready)
                        s->start = fd + 1;
        }
        return n;
}

static int look(const struct select_set *s, struct fd_sets *answer, int64_t timeout_nsec) {
        struct timespec t = {
                .tv_sec = timeout_nsec / (int64_t)NSEC_PER_SEC,
                .tv_nsec = timeout_nsec % (int64_t)NSEC_PER_SEC,
        };

        *answer = s->wanted;
        return pselect(s->end, &answer->read, &answer->write, &answer->except, timeout_nsec < 0 ? NULL : &t, NULL) < 0 ?
                       errno :
                       0;
}

static int select_wait(void *state, struct mux_ready *ready, size_t n_ready, int64_t timeout_nsec) {
        struct select_set *s = state;

        for (;;) {
                bool in_parts = s->n_quiet > 0 && (timeout_nsec < 0 || timeout_nsec > QUIET_NSEC);
                struct fd_sets answer;
                int error = look(s, &answer, in_parts ? QUIET_NSEC : timeout_nsec);
                size_t n;

                if (error != 0 && error != EBADF)
                        return error == EINTR ? 0 : -error;
                n = fill(s, &answer, error, ready, n_ready);
                if (n > 0 || !in_parts)
                        return (int)n;
                if (timeout_nsec > 0)
                        timeout_nsec -= QUIET_NSEC;
        }
}

const struct mux_backend mux_backend_select = {
        .name = "select",
        .open = select_open,
        .close = select_close,
        .add = select_add,
        .modify = select_modify,
        .remove = select_remove,
        .wait = select_wait,
};
