/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * poll(2), as ppoll for its nanoseconds. The set is a dense array; a second one
 * finds a descriptor's place in it by number.
 */

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"
#include "macro.h"
#include "pollfd.h"

struct poll_set {
        struct pollfd *fds;
        void **tokens;
        size_t n, capacity;
        size_t *places; /* by descriptor: place in `fds` plus one */
        size_t n_places;
        size_t start; /* the next look at the answers begins here, so that none starves: those before had their turn */
};

static int poll_open(void **ret_state) {
        *ret_state = calloc(1, sizeof(struct poll_set));
        return *ret_state ? 0 : -ENOMEM;
}

static void poll_close(void *state) {
        struct poll_set *s = state;

        free(s->fds);
        free(s->tokens);
        free(s->places);
        free(s);
}

static int make_room(struct poll_set *s, size_t fd) {
        if (s->n == s->capacity) {
                size_t capacity = s->capacity ? s->capacity * 2 : 16;
                struct pollfd *fds = realloc(s->fds, capacity * sizeof(*fds));
                void **tokens;

                if (!fds)
                        return -ENOMEM;
                s->fds = fds;
                tokens = realloc(s->tokens, capacity * sizeof(*tokens));
                if (!tokens)
                        return -ENOMEM;
                s->tokens = tokens;
                s->capacity = capacity;
        }
        if (fd >= s->n_places) {
                size_t n_places = MAX(fd + 1, s->n_places * 2);
                size_t *places = realloc(s->places, n_places * sizeof(*places));

                if (!places)
                        return -ENOMEM;
                memset(places + s->n_places, 0, (n_places - s->n_places) * sizeof(*places));
                s->places = places;
                s->n_places = n_places;
        }
        return 0;
}

static int poll_add(void *state, int fd, unsigned events, void *token) {
        struct poll_set *s = state;
        int r = check_descriptor(fd);

        if (r == 0)
                r = make_room(s, (size_t)fd);
        if (r < 0)
                return r;
        if (s->places[fd] != 0)
                return -EEXIST;
        s->fds[s->n] = (struct pollfd){ .fd = fd, .events = to_poll(events) };
        s->tokens[s->n] = token;
        s->places[fd] = ++s->n;
        return 0;
}

static int poll_modify(void *state, int fd, unsigned events, void *token) {
        struct poll_set *s = state;
        size_t place;

        if ((size_t)fd >= s->n_places || s->places[fd] == 0)
                return -ENOENT;
        place = s->places[fd] - 1;
        s->fds[place].events = to_poll(events);
        s->tokens[place] = token;
        return 0;
}

static void move(struct poll_set *s, size_t from, size_t to) {
        s->fds[to] = s->fds[from];
        s->tokens[to] = s->tokens[from];
        s->places[s->fds[to].fd] = to + 1;
}

static void poll_remove(void *state, int fd) {
        struct poll_set *s = state;
        size_t place;

        if ((size_t)fd >= s->n_places || s->places[fd] == 0)
                return;
        place = s->places[fd] - 1;
        if (place < s->start) { /* the gap is filled from its own side, and the last from the other */
                move(s, --s->start, place);
                place = s->start;
        }
        move(s, --s->n, place);
        s->places[fd] = 0;
}

static int poll_wait(void *state, struct mux_ready *ready, size_t n_ready, int64_t timeout_nsec) {
        struct poll_set *s = state;
        struct timespec t = {
                .tv_sec = timeout_nsec / (int64_t)NSEC_PER_SEC,
                .tv_nsec = timeout_nsec % (int64_t)NSEC_PER_SEC,
        };
        size_t n = 0;
        int r = ppoll(s->fds, s->n, timeout_nsec < 0 ? NULL : &t, NULL);

        if (r < 0)
                return errno == EINTR ? 0 : -errno;
        if (s->start >= s->n)
                s->start = 0;
        for (size_t i = 0, first = s->start; i < s->n && (int)n < r && n < n_ready; i++) {
                size_t place = (first + i) % s->n;

                if (s->fds[place].revents == 0)
                        continue;
                ready[n].token = s->tokens[place];
                ready[n++].events = from_poll(s->fds[place].revents);
                if (n == n_ready)
                        s->start = place + 1;
        }
        return (int)n;
}

const struct mux_backend mux_backend_poll = {
        .name = "poll",
        .open = poll_open,
        .close = poll_close,
        .add = poll_add,
        .modify = poll_modify,
        .remove = poll_remove,
        .wait = poll_wait,
};
