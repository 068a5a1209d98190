/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * supervisor PID...: says how processes end that are not its children, and ends
 * with the last of them. It shows handlers, and a loop around plain poll(2).
 *
 * It starts nothing: that is its users' business, or systemd's. What it gets
 * from kevd is what wait(2) would tell the parent.
 */

#include <errno.h>
#include <kev.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct supervisor {
        struct kev *kev;
        size_t n_running;
        bool failure; /* one of them ended badly, or nobody knows how */
};

static void on_end(struct kev *kev, const struct kev_event *event, void *userdata) {
        struct supervisor *s = userdata;
        bool reaped = kev_event_notes(event) & KEV_NOTE_REAP;
        pid_t pid = 0;
        int value;

        (void)kev_event_pid(event, &pid);
        if (kev_event_exit_code(event, &value) == 0) {
                printf("%d: exit code %d\n", (int)pid, value);
                s->failure |= value != 0;
        } else if (kev_event_signal(event, &value) == 0) {
                printf("%d: killed by signal %d%s\n", (int)pid, value,
                       kev_event_core_dumped(event) ? ", core dumped" : "");
                s->failure = true;
        } else if (!reaped && !(kev_event_flags(event) & KEV_FLAG_EOF)) {
                return; /* some kernels tell the status only once the parent has asked for it */
        } else {
                printf("%d: ended, nobody can tell how\n", (int)pid);
                s->failure = true;
        }
        /* A handler may remove its own watch: the reap, if it is still to come, is
         * not handed out any more. */
        (void)kev_remove(kev, kev_event_id(event));
        s->n_running--;
}

static int add(struct supervisor *s, const char *argument) {
        struct kev_watch *watch = NULL;
        int r = kev_watch_new(KEV_FILTER_PROC, &watch);

        if (r == 0)
                r = kev_watch_set_pid(watch, (pid_t)strtol(argument, NULL, 10));
        if (r == 0)
                r = kev_watch_set_notes(watch, KEV_NOTE_EXIT | KEV_NOTE_REAP);
        if (r < 0) {
                fprintf(stderr, "%s: %s\n", argument, strerror(-r));
        } else {
                /* From here on its end is not missed, however soon it comes. */
                r = kev_add(s->kev, watch, on_end, s, NULL);
                if (r < 0)
                        fprintf(stderr, "%s: %s\n", argument, kev_error_message(s->kev));
        }
        kev_watch_free(watch);
        return r;
}

static int loop(struct supervisor *s) {
        struct pollfd fds[] = {
                { .fd = kev_get_fd(s->kev), .events = POLLIN },
                /* ... and whatever else the program waits for. */
        };

        while (s->n_running > 0) {
                int r;

                if (poll(fds, sizeof(fds) / sizeof(fds[0]), -1) < 0) {
                        if (errno == EINTR)
                                continue;
                        return -errno;
                }
                /* 0: poll(2) has done the waiting. */
                r = fds[0].revents ? kev_dispatch(s->kev, 0) : 0;
                if (r < 0 && r != -EINTR)
                        return r;
        }
        return 0;
}

int main(int argc, char **argv) {
        struct supervisor s = { 0 };
        int r = kev_open(NULL, &s.kev);

        if (r < 0) {
                fprintf(stderr, "%s\n", kev_error_message(NULL));
                return EXIT_FAILURE;
        }
        setlinebuf(stdout);
        for (int i = 1; i < argc; i++)
                if (add(&s, argv[i]) == 0)
                        s.n_running++;
                else
                        s.failure = true;
        r = loop(&s);
        if (r < 0)
                fprintf(stderr, "%s\n", kev_error_message(s.kev));
        kev_close(s.kev);
        return r < 0 || s.failure ? EXIT_FAILURE : EXIT_SUCCESS;
}
