/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches whose directory goes and comes, on the real daemon: `gone`, then `back`, and from there on
 * everything as before.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connect.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"

enum { ROUNDS = 50 };

static struct daemon *kevd;

static void start(void) {
        kevd = daemon_start(NULL);
}

static void stop(void) {
        daemon_stop(kevd);
}

/* By the shell, in the test's own directory. */
static void run(const char *script) {
        char command[1024];

        ck_assert_int_lt(snprintf(command, sizeof(command), "cd %s && %s", harness_tempdir(), script),
                         (int)sizeof(command));
        ck_assert_msg(system(command) == 0, "%s", script);
}

static const char *in_tempdir(const char *name) {
        static char path[512];

        (void)snprintf(path, sizeof(path), "%s/%s", harness_tempdir(), name);
        return path;
}

/* With `notes` of 0: the default ones. */
static struct follower *follow(const char *name, uint64_t notes) {
        const char *path = in_tempdir(name);
        struct kev_watch *watch = new_tree_watch(path, notes);

        return follower_new_with(kevd, watch, path, REPLAY_AT_REST);
}

/* Takes events until all of the notes were seen. */
static void expect(struct follower *f, uint64_t notes, const char *what) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;

        while ((f->notes & notes) != notes && now_msec() < deadline)
                (void)follower_take(f, 100, NULL);
        ck_assert_msg((f->notes & notes) == notes, "%s: %s is not told", what,
                      f->notes & KEV_NOTE_GONE ? "`back`" : "`gone`");
        ck_assert_msg(!f->ended, "%s: the watch has ended", what);
        f->notes = 0;
}

static const struct change {
        const char *name, *away, *again;
} changes[] = {
        { "deleted and made", "rm -r d", "mkdir d && touch d/made" },
        { "moved and moved back", "mv d other", "mv other d" },
        { "moved, and another moved there", "mv d other", "mkdir new && touch new/file && mv new d" },
        { "deleted, and made with a subtree", "rm -r d", "mkdir -p d/a/b/c && touch d/a/b/c/file" },
        { "moved, and a link to it in its place", "mv d other", "ln -s other d" },
        { "deleted, and a file for a while", "rm -r d && touch d", "rm d && mkdir d" },
        { "a directory above deleted and made", "rm -r above", "mkdir -p above/between/d" },
        { "a directory above moved and moved back", "mv above other", "mv other above" },
};

START_TEST(test_back) {
        const struct change *c = &changes[_i];
        bool above = strncmp(c->name, "a directory above", 17) == 0;
        const char *name = above ? "above/between/d" : "d";
        struct follower *f;

        harness_label(c->name);
        run(above ? "mkdir -p above/between/d" : "mkdir d");
        f = follow(name, 0);
        run(above ? "touch above/between/d/file; mkdir above/between/d/sub" : "touch d/file; mkdir d/sub");
        follower_check(f, "before");
        f->notes = 0;
        run(c->away);
        if (above && strncmp(c->away, "mv", 2) == 0) /* nothing tells of what moves above the watched directory */
                run("touch other/between/d/moved");
        else
                expect(f, KEV_NOTE_GONE, c->away);
        run(c->again);
        if (!above || strncmp(c->away, "mv", 2) != 0)
                expect(f, KEV_NOTE_BACK | KEV_NOTE_RESCAN, c->again);
        follower_check(f, "back");
        run(above ? "mkdir above/between/d/later && touch above/between/d/later/file" :
                    "mkdir d/later && touch d/later/file");
        follower_check(f, "later");
        follower_free(f);
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* A barrier covers it: what the client did itself is told when it asks. */
START_TEST(test_at_once) {
        struct follower *f;

        run("mkdir d");
        f = follow("d", 0);
        for (int i = 0; i < ROUNDS; i++) {
                run("rm -r d");
                follower_drain(f);
                ck_assert_msg(f->notes & KEV_NOTE_GONE, "round %d: `gone` is not told", i);
                run("mkdir d && touch d/file");
                follower_drain(f);
                ck_assert_msg(f->notes & KEV_NOTE_BACK, "round %d: `back` is not told", i);
                f->notes = 0;
                run("touch d/later && mkdir -p d/a/b && touch d/a/b/file");
                follower_check(f, "made again");
        }
        follower_free(f);
}
END_TEST

/* Never looked at in between. */
START_TEST(test_over_and_over) {
        struct follower *f;

        run("mkdir d");
        f = follow("d", 0);
        run("for i in $(seq 300); do rm -r d; mkdir d; touch d/$i; done");
        run("mkdir d/sub && touch d/sub/file");
        follower_check(f, "over and over");
        run("touch d/sub/later");
        follower_check(f, "later");
        follower_free(f);
}
END_TEST

/* What a ConfigMap is: names are links through a link that is replaced. */
START_TEST(test_link_replaced) {
        struct follower *f;

        run("mkdir -p v/1 && touch v/1/file && ln -s 1 v/data && ln -s data v/d");
        f = follow("v/d", 0);
        for (int i = 2; i < 6; i++) {
                char script[256];

                (void)snprintf(script, sizeof(script),
                               "mkdir v/%d && touch v/%d/file%d && ln -s %d v/new && mv -T v/new v/data && rm -r v/%d", i, i,
                               i, i, i - 1);
                run(script);
                expect(f, KEV_NOTE_GONE | KEV_NOTE_BACK, script);
                follower_check(f, script);
                (void)snprintf(script, sizeof(script), "touch v/%d/later", i);
                run(script);
                follower_check(f, script);
        }
        follower_free(f);
}
END_TEST

/* The link is there, and leads to nothing: no event tells when that comes. */
START_TEST(test_dangling_link) {
        struct follower *f;

        run("mkdir -p there/d && ln -s there/d link");
        f = follow("link", 0);
        run("rm -r there");
        expect(f, KEV_NOTE_GONE, "deleted");
        run("mkdir -p there/d && touch there/d/file");
        expect(f, KEV_NOTE_BACK, "made again");
        follower_check(f, "made again");
        follower_free(f);
}
END_TEST

/* Where `back` is asked for by name, it need not be there at first. */
START_TEST(test_not_there_yet) {
        uint64_t notes = kev_filter_default_notes(KEV_FILTER_TREE);
        struct kev_watch *watch;
        struct follower *f;
        struct kev *kev;

        ck_assert_uint_ne(notes & KEV_NOTE_BACK, 0);
        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        watch = new_tree_watch(in_tempdir("a/b/d"), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), -ENOENT);
        ck_assert_int_eq(kev_watch_set_notes(watch, notes & ~KEV_NOTE_BACK), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), -ENOENT);
        kev_watch_free(watch);
        kev_close(kev);

        f = follow("a/b/d", notes);
        ck_assert(!follower_take(f, 0, NULL));
        run("mkdir -p a/b && touch a/file");
        ck_assert(!follower_take(f, 0, NULL));
        run("mkdir a/b/other && touch a/b/dx && mkdir a/b/d && touch a/b/d/file");
        expect(f, KEV_NOTE_BACK, "made");
        follower_check(f, "made");
        run("mkdir a/b/d/sub && touch a/b/d/sub/file");
        follower_check(f, "later");
        follower_free(f);
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* Where `back` is not among the notes, and by descriptor, gone is the end. */
START_TEST(test_end) {
        uint64_t notes = kev_filter_default_notes(KEV_FILTER_TREE);
        const struct kev_event *event;
        struct kev_watch *watch;
        struct kev *kev;

        run("mkdir d");
        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        if (_i == 0) {
                ck_assert_int_eq(kev_watch_set_path(watch, in_tempdir("d")), 0);
                ck_assert_int_eq(kev_watch_set_notes(watch, notes & ~KEV_NOTE_BACK), 0);
                ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
        } else {
                int fd = open(in_tempdir("d"), O_RDONLY | O_DIRECTORY | O_CLOEXEC);

                ck_assert_int_ge(fd, 0);
                ck_assert_int_eq(kev_watch_set_fd(watch, fd), 0);
                ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
                (void)close(fd);
        }
        kev_watch_free(watch);
        run("rm -r d");
        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
        ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_GONE);
        ck_assert_uint_eq(kev_event_flags(event) & KEV_FLAG_EOF, KEV_FLAG_EOF);
        run("mkdir d");
        ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
        daemon_expect_watches(kevd, 0);
        kev_close(kev);
}
END_TEST

/* Of several on one directory each is told, also those that come while the others wait; one that is removed while it
 * waits leaves nothing behind. */
START_TEST(test_several) {
        struct follower *all[3];

        run("mkdir d");
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                all[i] = follow("d", 0);
        run("rm -r d");
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                expect(all[i], KEV_NOTE_GONE, "deleted");
        ck_assert_int_eq(kev_remove(all[1]->kev, all[1]->id), 0);
        run("mkdir d && touch d/file");
        for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
                if (i == 1)
                        continue;
                expect(all[i], KEV_NOTE_BACK, "made again");
                follower_check(all[i], "made again");
        }
        ck_assert(!follower_take(all[1], 0, NULL));
        run("rm -r d");
        expect(all[0], KEV_NOTE_GONE, "deleted again");
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                follower_free(all[i]);
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* Above the waiting one another watches: both see what is made. */
START_TEST(test_within_another) {
        struct follower *above, *below;

        run("mkdir above");
        above = follow("above", 0);
        run("mkdir -p above/a/d && touch above/a/d/file");
        follower_check(above, "before");
        below = follow("above/a/d", 0);
        for (int i = 0; i < 20; i++) {
                run("rm -r above/a");
                expect(below, KEV_NOTE_GONE, "deleted");
                follower_check(above, "deleted");
                run("mkdir -p above/a/d/sub && touch above/a/d/sub/file");
                expect(below, KEV_NOTE_BACK, "made again");
                follower_check(below, "made again, below");
                follower_check(above, "made again, above");
                run("touch above/a/d/sub/later");
                follower_check(below, "later, below");
                follower_check(above, "later, above");
        }
        follower_free(below);
        follower_free(above);
        daemon_expect_watches(kevd, 0);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("wait");
        TCase *c = harness_case(suite, "back");

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_loop_test(c, test_back, 0, ARRAY_SIZE(changes));
        tcase_add_test(c, test_at_once);
        tcase_add_test(c, test_over_and_over);
        tcase_add_test(c, test_link_replaced);
        tcase_add_test(c, test_dangling_link);
        tcase_add_test(c, test_not_there_yet);
        tcase_add_loop_test(c, test_end, 0, 2);
        tcase_add_test(c, test_several);
        tcase_add_test(c, test_within_another);
        return harness_main(argc, argv);
}
