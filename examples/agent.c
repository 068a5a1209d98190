/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * agent DIRECTORY [SECONDS]: a monitoring agent. It writes a line for each change
 * in a directory and below, for each change of a network device and, every so
 * many seconds (60), one with what it has counted. It shows a program without a
 * loop of its own: watches without handlers, and kev_wait().
 *
 * An agent has to be right about what it did not see. Three things are for that:
 * `rescan` and `degraded` say where something may be missing, the count says how
 * many changes a line stands for, and seq has no gap.
 */

#include <errno.h>
#include <inttypes.h>
#include <kev.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The watches' numbers are the program's to choose; events carry them. */
enum { WATCH_DIRECTORY = 1, WATCH_LINKS, WATCH_TIMER };

struct agent {
        struct kev *kev;
        uint64_t changes, rescans;
};

static void print_notes(uint64_t notes) {
        for (; notes != 0; notes &= notes - 1)
                printf(" %s", kev_note_name(notes & -notes));
}

static void on_directory(struct agent *a, const struct kev_event *event) {
        uint64_t notes = kev_event_notes(event);
        const char *path = kev_event_path(event), *from = kev_event_from_path(event);

        a->changes += kev_event_count(event);
        if (notes & (KEV_NOTE_RESCAN | KEV_NOTE_DEGRADED))
                a->rescans++; /* here a real agent would read the path again, and all below it */
        printf("file");
        print_notes(notes);
        printf(" %s", path); /* bytes: an agent that sends them on has to quote them */
        if (from)
                printf(" from %s", from);
        printf(" x%" PRIu64 "\n", kev_event_count(event));
}

static void on_link(struct agent *a, const struct kev_event *event) {
        const char *old_name = kev_event_link_old_name(event);

        a->changes += kev_event_count(event);
        printf("link");
        print_notes(kev_event_notes(event));
        if (!kev_event_link_name(event)) { /* `rescan`: of any, or all; here a real agent would list them again */
                a->rescans++;
                printf("\n");
                return;
        }
        printf(" %s %s %s", kev_event_link_name(event), kev_event_link_up(event) ? "up" : "down",
               kev_event_link_carrier(event) ? "carrier" : "no-carrier");
        if (old_name)
                printf(" was %s", old_name);
        if (kev_event_link_flaps(event) > 0) /* it went up and down faster than the kernel told */
                printf(" flaps %" PRIu64, kev_event_link_flaps(event));
        printf("\n");
}

static void on_event(struct agent *a, const struct kev_event *event) {
        switch (kev_event_id(event)) {
        case WATCH_DIRECTORY:
                on_directory(a, event);
                break;
        case WATCH_LINKS:
                on_link(a, event);
                break;
        case WATCH_TIMER:
                if (kev_event_notes(event) & KEV_NOTE_LOST) /* it begins anew */
                        break;
                printf("alive seq %" PRIu64 " changes %" PRIu64 " rescans %" PRIu64 "\n", kev_event_seq(event),
                       a->changes, a->rescans);
                break;
        }
}

/* All in one call: they come into force together. */
static int add_watches(struct agent *a, const char *directory, int64_t seconds) {
        static const enum kev_filter filters[] = { KEV_FILTER_TREE, KEV_FILTER_NETDEV, KEV_FILTER_TIMER };
        struct kev_watch *watches[3] = { NULL };
        int r = 0;

        for (int i = 0; r == 0 && i < 3; i++) {
                r = kev_watch_new(filters[i], &watches[i]);
                if (r == 0)
                        r = kev_watch_set_id(watches[i], WATCH_DIRECTORY + i);
        }
        if (r == 0)
                r = kev_watch_set_path(watches[0], directory);
        if (r == 0) /* `closewrite` says that a file is complete; each single `write` is of no interest */
                r = kev_watch_set_notes(watches[0], kev_filter_default_notes(KEV_FILTER_TREE) & ~KEV_NOTE_WRITE);
        if (r == 0)
                r = kev_watch_set_data(watches[2], seconds);
        if (r == 0)
                r = kev_watch_set_notes(watches[2], KEV_NOTE_SEC);
        if (r < 0)
                fprintf(stderr, "%s: %s\n", directory, strerror(-r));
        else {
                r = kev_add_many(a->kev, (const struct kev_watch *const *)watches, 3, NULL, NULL, NULL, NULL);
                if (r != 0) /* some were refused, or all */
                        fprintf(stderr, "%s\n", kev_error_message(a->kev));
        }
        for (int i = 0; i < 3; i++)
                kev_watch_free(watches[i]);
        return r;
}

static int loop(struct agent *a) {
        for (;;) {
                const struct kev_event *event;
                int r = kev_wait(a->kev, -1, &event);

                if (r > 0)
                        on_event(a, event); /* the library's, until the next call */
                else if (r < 0 && r != -EINTR)
                        return r;
        }
}

int main(int argc, char **argv) {
        long seconds = argc == 3 ? strtol(argv[2], NULL, 10) : 60;
        struct agent a = { 0 };
        int r;

        if (argc < 2 || argc > 3 || seconds < 1) {
                fprintf(stderr, "usage: %s DIRECTORY [SECONDS]\n", argv[0]);
                return 2;
        }
        r = kev_open(NULL, &a.kev);
        if (r < 0) {
                fprintf(stderr, "%s\n", kev_error_message(NULL));
                return EXIT_FAILURE;
        }
        setlinebuf(stdout);
        r = add_watches(&a, argv[1], seconds);
        if (r == 0) {
                (void)loop(&a); /* until the daemon goes: then whoever started this starts it again */
                fprintf(stderr, "%s\n", kev_error_message(a.kev));
        }
        kev_close(a.kev);
        return EXIT_FAILURE;
}
