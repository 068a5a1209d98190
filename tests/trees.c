/* SPDX-License-Identifier: LGPL-2.1-or-later */

#include "trees.h"

#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "files.h"

enum { ROUNDS = 50 };

struct daemon *kevd;

void start(void) {
        kevd = daemon_start(NULL);
}

void stop(void) {
        daemon_stop(kevd);
}

int n_rounds(void) {
        return harness_rounds(daemon_is_on_fanotify() || client_is_other() ? ROUNDS * 2 / 5 : ROUNDS);
}

void follow_writers(struct follower *f, pid_t *pids, size_t n) {
        for (size_t left = n; left > 0;) {
                (void)follower_take(f, 5, NULL);
                for (size_t i = 0; i < n; i++) {
                        int status;

                        if (pids[i] <= 0 || waitpid(pids[i], &status, WNOHANG) != pids[i])
                                continue;
                        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child's status was %d", status);
                        pids[i] = 0;
                        left--;
                }
        }
}

struct seen see(struct follower *f, const char *path) {
        const struct kev_event *event;
        struct seen seen = { 0 };

        while (follower_take(f, 0, &event)) {
                if (strcmp(kev_event_path(event), path) != 0)
                        continue;
                seen.notes |= kev_event_notes(event);
                seen.n++;
        }
        return seen;
}

void expect(struct follower *f, const char *path, uint64_t notes) {
        struct seen seen = see(f, path);
        char words[256] = "";

        for (uint64_t left = seen.notes; left; left &= left - 1)
                (void)snprintf(words + strlen(words), sizeof(words) - strlen(words), " %s",
                               kev_note_name(left & -left));
        if (seen.notes != notes)
                replay_log(f->replay, NULL);
        ck_assert_msg(seen.notes == notes, "%s:%s", path, words);
}

void expect_gone(struct follower *f, const char *what) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;

        while (!f->ended && now_msec() < deadline)
                (void)follower_take(f, 100, NULL);
        ck_assert_msg(f->ended, "%s: no `gone`", what);
        ck_assert_uint_eq(f->notes & KEV_NOTE_GONE, KEV_NOTE_GONE);
        ck_assert(!follower_take(f, 0, NULL));
}

size_t count_about(struct follower *f, const char *text) {
        const struct kev_event *event;
        size_t n = 0;

        while (follower_take(f, 0, &event))
                if (strstr(kev_event_path(event) + strlen(harness_tempdir()), text))
                        n += kev_event_count(event);
        return n;
}

TCase *make_tree_case(Suite *suite, const char *name, int seconds) {
        TCase *c = harness_case(suite, name);

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, seconds);
        return c;
}
