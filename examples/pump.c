/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * pump [SECONDS]: copies standard input to standard output, and gives up when
 * nothing came for so many seconds (60). It shows what a program does with
 * descriptors that would wait with poll(2) or epoll(7).
 *
 * The watch has the flag dispatch (EPOLLONESHOT): it is silent from its event on,
 * until the program has read and enables it again. So an event is never older than
 * the last read, and reading once does not block.
 */

#include <errno.h>
#include <kev.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int add_input(struct kev *kev, int64_t *ret_id) {
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_POLL, &watch);

        if (r == 0)
                r = kev_watch_set_fd(watch, STDIN_FILENO);
        if (r == 0)
                r = kev_watch_set_notes(watch, KEV_NOTE_IN); /* hup and err come unasked */
        if (r == 0)
                r = kev_watch_set_flags(watch, KEV_FLAG_DISPATCH);
        if (r == 0)
                r = kev_add(kev, watch, NULL, NULL, ret_id);
        /* With this goes the duplicate: nobody has the descriptor but the program. */
        kev_watch_free(watch);
        return r;
}

/* 1, or 0 at the end of the input. */
static int copy(void) {
        char buffer[65536];
        ssize_t n = read(STDIN_FILENO, buffer, sizeof(buffer)), written = 0;

        while (written < n) {
                ssize_t m = write(STDOUT_FILENO, buffer + written, (size_t)(n - written));

                if (m < 0 && errno != EINTR)
                        return -errno;
                written += m < 0 ? 0 : m;
        }
        return n < 0 ? -errno : n > 0;
}

static int loop(struct kev *kev, int64_t id, int timeout_msec) {
        const struct kev_event *event;
        int r;

        do {
                do
                        r = kev_wait(kev, timeout_msec, &event);
                while (r == -EINTR);
                if (r <= 0)
                        return r < 0 ? r : -ETIMEDOUT;
                /* There is one watch. With more, kev_event_id() says which, and kev_event_notes() what is ready. */
                r = copy();
                if (r <= 0)
                        return r;
                r = kev_enable(kev, id);
        } while (r == 0);
        return r;
}

int main(int argc, char **argv) {
        long seconds = argc > 1 ? strtol(argv[1], NULL, 10) : 60;
        struct kev *kev = NULL;
        int64_t id = 0;
        int r;

        if (seconds < 1 || seconds > INT_MAX / 1000 || argc > 2) {
                fprintf(stderr, "Usage: pump [SECONDS]\n");
                return EXIT_FAILURE;
        }
        r = kev_open(NULL, &kev);
        if (r < 0) {
                fprintf(stderr, "%s\n", kev_error_message(NULL));
                return EXIT_FAILURE;
        }
        r = add_input(kev, &id);
        if (r == -EPERM) /* a regular file or the like, which epoll(7) doesn't take, either: it is always ready */
                while ((r = copy()) > 0)
                        ;
        else if (r == 0)
                r = loop(kev, id, (int)seconds * 1000);
        if (r < 0)
                fprintf(stderr, "pump: %s\n", strerror(-r));
        kev_close(kev);
        return r < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
