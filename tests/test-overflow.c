/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What becomes of losses of the kernel's (losses.h): trees get `rescan`, files are compared, and what was made
 * meanwhile is watched. rtnetlink's losses are in test-netdev.c.
 */

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "connect.h"
#include "files.h"
#include "harness.h"
#include "kev.h"
#include "losses.h"
#include "macro.h"
#include "replay.h"
#include "unit.h"

enum {
        SECONDS = 120,
        SPLITS = 70, /* more than do_changes() has events */
};

/* ---- afterwards ---------------------------------------------------------------------------------- */

/* All that is due: how many files of that name were made. */
static size_t count_made(struct follower *f, const char *name) {
        const struct kev_event *event;
        size_t n = 0;

        while (follower_take(f, 0, &event))
                n += kev_event_notes(event) & KEV_NOTE_CREATE && strcmp(strrchr(kev_event_path(event), '/') + 1, name) == 0;
        return n;
}

/* Every directory that there is now is watched: what happens in it is told. */
static size_t check_watched(struct follower *f, const char *root, const char *what) {
        static int serial;
        const char *name = at("later%d", serial++);
        size_t rescans = replay_n_rescans(f->replay), n = make_file_everywhere(root, name), told = count_made(f, name);
        char *differences = replay_compare(f->replay);

        ck_assert_msg(told == n && !differences, "%s: later a file was made in each of %zu directories, and %zu were told:\n%s",
                      what, n, told, differences);
        ck_assert_msg(replay_n_rescans(f->replay) == rescans, "%s: a rescan for what was not lost", what);
        return n;
}

/* A follower would wait for ever. */
static void check_alive(void) {
        int fd = client_connect(kevd->socket);

        json_object_put(client_call(fd, "org.kevd.events.GetLimits", NULL));
        (void)close(fd);
}

static size_t check_all(struct follower *f, const char *root, const char *what) {
        check_alive();
        follower_check(f, what);
        ck_assert_int_eq(daemon_expect_repaired(kevd), (int64_t)count_overflows());
        return check_watched(f, root, what);
}

/* ---- trees ------------------------------------------------------------------------------------------ */

/* Of everything that changes a tree something. */
static void do_changes(const char *root, const char *outside) {
        make_dir(at("%s/new", root));
        make_dir(at("%s/new/below", root));
        append(at("%s/new/below/file", root), "text");
        move(at("%s/known", root), at("%s/renamed", root));
        append(at("%s/renamed/d0/file2", root), "text");
        run(root, "rm -r doomed");
        exchange(at("%s/a", root), at("%s/b/d1", root));
        remove_file(at("%s/file", root));
        make_dir(at("%s/file", root));
        move(at("%s/in", outside), at("%s/in", root));
        move(at("%s/out", root), at("%s/out", outside));
        make_dir(at("%s/out", root)); /* another in its place */
        append(at("%s/out/file", root), "text");
        move(at("%s/b/d0", root), at("%s/d0", root));
}

/* The loss begins before, between and behind them: a rename may lose its second half alone. */
START_TEST(test_changes) {
        static const char *const names[] = { "known", "doomed", "a", "b", "out" };
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        int split = _i * SPLITS / harness_rounds(SPLITS);

        harness_label(at("%d events before the loss", split));
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                make_dir(at("%s/%s", root, names[i]));
                make_tree(at("%s/%s", root, names[i]), 2, 2);
        }
        make_file(at("%s/file", root));
        make_dir(at("%s/in", outside));
        make_tree(at("%s/in", outside), 2, 1);
        follower_check(f, "before");
        ck_assert_uint_eq(replay_n_rescans(f->replay), 0);

        fill_queue((size_t)split);
        do_changes(root, outside);
        let_go_on();
        check_held(check_all(f, root, "after the loss"), "after the loss");
        ck_assert_uint_le(count_overflows(), 1);
        ck_assert_msg(split > 0 || count_overflows() == 1, "there was no loss");
        ck_assert_msg(split < SPLITS || count_overflows() == 0, "the test is to be given more rounds");
        ck_assert_msg(count_overflows() == 0 || replay_n_rescans(f->replay) > 0, "a loss, and no rescan");
        follower_free(f);
}
END_TEST

/* All that the kernel still had is told as ever; of the rest, one rescan of the directory. */
START_TEST(test_what_was_queued) {
        enum { LOST = 1000 };
        const char *root = make_root("w"), *other_root = make_root("other");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST), *other = follower_new(kevd, other_root, REPLAY_AT_REST);
        size_t n = max_queued(), told = 0;
        const struct kev_event *event;

        make_file(at("%s/0", root));
        make_file(at("%s/1", root));
        follower_drain(f);
        stop_daemon();
        for (size_t i = 0; i < n + LOST; i++)
                ck_assert_int_eq(chmod(at("%s/%zu", root, i % 2), 0600), 0);
        make_dir(at("%s/d", other_root));
        let_go_on();
        while (follower_take(f, 0, &event)) {
                if (kev_event_notes(event) == KEV_NOTE_RESCAN) {
                        ck_assert_str_eq(kev_event_path(event), root);
                        continue;
                }
                ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_ATTRIB);
                ck_assert_str_eq(kev_event_path(event), at("%s/%zu", root, told % 2));
                ck_assert_uint_eq(kev_event_count(event), 1);
                told++;
        }
        ck_assert_uint_eq(told, n);
        ck_assert_uint_eq(replay_n_rescans(f->replay), 1);
        ck_assert(follower_take(other, 0, &event));
        ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_RESCAN);
        ck_assert_str_eq(kev_event_path(event), other_root);
        ck_assert(!follower_take(other, 0, NULL));
        ck_assert_uint_eq(count_overflows(), 1);
        check_held(check_all(f, root, "the one that overflowed") + check_all(other, other_root, "the other"), "both");
        follower_free(f);
        follower_free(other);
}
END_TEST

static struct follower *follow(const char *path, uint64_t notes, const char *include) {
        struct kev_watch *watch = new_tree_watch(path, notes);

        if (include)
                ck_assert_int_eq(kev_watch_add_include(watch, include), 0);
        return follower_new_with(kevd, watch, path, REPLAY_AT_REST);
}

/* Each watch hears of its own directory, whatever it asked for, and whoever else watches above or below. */
START_TEST(test_every_watch) {
        const char *root = make_root("w"), *below = at("%s/a/below", root);
        struct follower *all[6];

        make_dir(at("%s/a", root));
        make_dir(below);
        all[0] = follow(below, 0, NULL);
        all[1] = follow(root, 0, NULL);
        all[2] = follow(root, 0, NULL);
        all[3] = follow(below, 0, NULL);
        all[4] = follow(root, KEV_NOTE_CLOSEWRITE, NULL);
        all[5] = follow(root, 0, "**/*.none");
        begin_loss();
        make_dir(at("%s/d", below));
        let_go_on();
        for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
                const struct kev_event *event;
                bool found = false;

                while (follower_take(all[i], 0, &event))
                        found |= kev_event_notes(event) & KEV_NOTE_RESCAN &&
                                 strcmp(kev_event_path(event), i == 0 || i == 3 ? below : root) == 0;
                ck_assert_msg(found, "watch %zu was not told that its directory is to be read again", i);
        }
        (void)check_all(all[0], below, "below");
        for (size_t i = 0; i < ARRAY_SIZE(all); i++)
                follower_free(all[i]);
}
END_TEST

/* Lost is what happened to the watched directory itself. */
START_TEST(test_root) {
        static const char *const scripts[] = {
                "rm -r w", "mv w elsewhere", "rm -r w; mkdir w; mkdir w/d; touch w/d/file",
                "mv w elsewhere; mkdir w; mkdir w/d; touch w/d/file", "rm -r w; touch w",
        };
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        struct stat st;

        harness_label(scripts[_i]);
        make_tree(root, 2, 2);
        follower_check(f, "before");
        begin_loss();
        run(harness_tempdir(), scripts[_i]);
        let_go_on();
        follower_drain(f);
        if (!f->ended) { /* it may go on with what has the name now */
                ck_assert_msg(stat(root, &st) == 0 && S_ISDIR(st.st_mode), "the watch was not ended");
                ck_assert_uint_gt(replay_n_rescans(f->replay), 0);
                check_held(check_all(f, root, "what has the name now"), "what has the name now");
        } else {
                check_held(0, "nothing is watched");
        }
        follower_free(f);
}
END_TEST

/* ---- more than once, and while something else goes on ----------------------------------------------- */

/* A path of a few names out of a few. */
static void random_path(struct random *r, const char *root, char path[PATH_MAX]) {
        int size = snprintf(path, PATH_MAX, "%s", root);

        for (size_t depth = 1 + random_below(r, 4); depth > 0; depth--)
                size += snprintf(path + size, (size_t)(PATH_MAX - size), "/%c", 'a' + (int)random_below(r, 5));
}

/* What can't be done is not done. */
static void do_random(struct random *r, const char *root, const char *outside) {
        char a[PATH_MAX], b[PATH_MAX];
        int fd;

        random_path(r, root, a);
        random_path(r, random_once_in(r, 8) ? outside : root, b);
        switch (random_below(r, 12)) {
        case 0:
        case 1:
        case 2:
                (void)mkdir(a, 0755);
                break;
        case 3:
                (void)mkdir(b, 0755);
                break;
        case 4:
                fd = open(a, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
                if (fd >= 0)
                        (void)close(fd);
                break;
        case 5:
                (void)unlink(a);
                break;
        case 6:
                (void)rmdir(a);
                break;
        case 7:
        case 8:
                (void)rename(a, b);
                break;
        case 9:
        case 10:
                (void)rename(b, a);
                break;
        default:
                (void)renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
        }
}

/* Rounds of losses, one right behind the other: odd seeds leave the daemon no time to recover in between. */
START_TEST(test_again_and_again) {
        enum { ROUNDS = 6 };
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        struct random r = { (uint64_t)_i };

        harness_label(at("seed %d", _i));
        for (int round = 0; round < ROUNDS; round++) {
                for (int i = 0; i < 100; i++)
                        do_random(&r, root, outside);
                if (_i % 2 == 0)
                        (void)check_all(f, root, at("seed %d, round %d", _i, round));
                else
                        for (size_t n = random_below(&r, 20); n > 0 && follower_take(f, 1, NULL); n--)
                                check_alive();
                fill_queue(random_below(&r, 30));
                for (int i = 0; i < 500; i++)
                        do_random(&r, root, outside);
                let_go_on();
        }
        check_held(check_all(f, root, at("seed %d", _i)), at("seed %d", _i));
        ck_assert_uint_ge(count_overflows(), 1);
        follower_free(f);
}
END_TEST

/*
 * What was lost is not known yet when the next events are handled: a directory that moved in the loss is
 * where it was, and another of its name seems to be itself. `y` is still `x/a` when the new `x/a` moves into it.
 */
START_TEST(test_into_itself) {
        enum { ROUNDS = 5 };
        const char *root = make_root("w"), *a, *b;
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        size_t n = make_tree(root, 6, 4); /* takes some time to be looked at again */

        for (int round = 0; round < ROUNDS; round++) {
                pid_t pid;

                a = at("%s/x%d/a", root, round);
                b = at("%s/y%d/a", root, round);
                make_dir(at("%s/x%d", root, round));
                make_dir(a);
                follower_check(f, "before");
                begin_loss();
                move(a, at("%s/y%d", root, round));
                make_dir(a);
                n += 3;
                pid = fork();
                assert_system(pid >= 0, "fork");
                if (pid == 0)
                        for (;;)
                                if (rename(a, b) < 0 || rename(b, a) < 0)
                                        _exit(1);
                let_go_on();
                while (follower_take(f, HARNESS_REPLY_MSEC, NULL) && !(f->notes & KEV_NOTE_RESCAN))
                        ;
                f->notes = 0;
                end_process(pid);
                ck_assert_uint_eq(check_all(f, root, at("round %d", round)), n);
        }
        check_held(n, "at last");
        follower_free(f);
}
END_TEST

static bool has_some(void *userdata) {
        return daemon_fdinfo_inotify_watches(kevd->pid) > *(size_t *)userdata;
}

/* In a child: once the crawl has begun, everything is lost that is done to what it reads. */
static void disturb_crawl(const char *root) {
        size_t some = 200;

        if (!wait_until(has_some, &some, HARNESS_REPLY_MSEC))
                _exit(1);
        begin_loss();
        some = daemon_fdinfo_inotify_watches(kevd->pid);
        run(root, "for d in d?; do mkdir $d/d1/new; mkdir $d/d1/new/below; touch $d/d1/new/below/file; mv $d/d2 $d/moved; "
                  "rm -r $d/d3; mv $d/d4 $d/d5/in; done; mv d1 dd; mv d2 d3/d0/in");
        let_go_on();
        _exit(some < 5000 ? 0 : 2);
}

/* While the crawl of a watch that is being made runs. */
START_TEST(test_while_starting) {
        enum { TRIES = 5 };
        int status = -1;

        for (int i = 0; i < TRIES && status != 0; i++) {
                const char *root = make_root(at("w%d", i));
                struct kev_watch *watch;
                struct follower *f;
                const char *name;
                size_t n, told;
                pid_t pid;

                ck_assert_uint_gt(make_tree(root, 9, 4), 5000);
                watch = new_tree_watch(root, 0);
                pid = fork();
                assert_system(pid >= 0, "fork");
                if (pid == 0)
                        disturb_crawl(root);
                f = follower_new_with(kevd, watch, root, REPLAY_AT_REST);
                assert_system(waitpid(pid, &status, 0) == pid, "waitpid");
                ck_assert_msg(status == 0 || (WIFEXITED(status) && WEXITSTATUS(status) == 2), "a child's status was %d", status);
                /* What is there when the watch is in force is not told, but all of it is watched. */
                follower_drain(f);
                name = at("later%d", i);
                n = make_file_everywhere(root, name);
                told = count_made(f, name);
                ck_assert_msg(told == n, "a file in each of %zu directories, and %zu told", n, told);
                check_held(n, "after the crawl");
                follower_free(f);
                check_held(0, "after the watch");
        }
        if (status != 0)
                harness_skip("the daemon is too fast to be caught while it crawls");
        ck_assert_uint_ge(count_overflows(), 1);
}
END_TEST

/* While the crawl of a large directory that has just come runs. */
START_TEST(test_while_crawling) {
        enum { TRIES = 5 };
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        size_t n_watches = 0, n = 0;
        bool caught = false;

        for (int i = 0; i < TRIES && !caught; i++) {
                const char *large = at("%s/large%d", outside, i);
                size_t some, size;

                make_dir(large);
                size = make_tree(large, 9, 4);
                some = n_watches = daemon_fdinfo_inotify_watches(kevd->pid);
                some += 100;
                move(large, at("%s/large%d", root, i));
                ck_assert_msg(wait_until(has_some, &some, HARNESS_REPLY_MSEC), "there is no crawl");
                begin_loss();
                caught = daemon_fdinfo_inotify_watches(kevd->pid) < n_watches + size - 100;
                run(root, at("cd large%d; mv d0 x; mkdir d0; mkdir d0/new; touch d0/new/file; mv d8/d8 d7/d7/d7/in; rm -r d6; "
                             "mv d5 ../moved%d", i, i));
                let_go_on();
                n = check_all(f, root, "after the crawl");
        }
        check_held(n, "after the crawl");
        if (!caught)
                harness_skip("the daemon is too fast to be caught while it crawls");
        ck_assert_uint_ge(count_overflows(), 1);
        follower_free(f);
}
END_TEST

/* ---- single files -------------------------------------------------------------------------------------- */

#define ASKED_BY_DEFAULT 0

/* Each is told to look again, and the difference that can be seen. */
static const struct vnode_case {
        const char *name;
        const char *before; /* is done before the watch is made; "f" is what is watched */
        const char *while_watched;
        const char *lost;
        uint64_t asked;
        uint64_t told; /* beside rescan, exactly */
        bool ends;     /* what has the name is not what is watched any more */
} vnode_cases[] = {
        { "untouched", "echo a > f", "", "touch other", ASKED_BY_DEFAULT, 0, false },
        { "made longer", "echo a > f", "", "echo b >> f", ASKED_BY_DEFAULT, KEV_NOTE_WRITE | KEV_NOTE_EXTEND, false },
        { "made shorter", "echo a > f", "", ": > f", ASKED_BY_DEFAULT, KEV_NOTE_WRITE, false },
        { "same size", "echo a > f", "", "echo b 1<> f", ASKED_BY_DEFAULT, KEV_NOTE_WRITE, false },
        { "extend alone", "echo a > f", "", "echo b >> f", KEV_NOTE_EXTEND, KEV_NOTE_EXTEND, false },
        { "chmod", "echo a > f", "", "chmod 600 f", ASKED_BY_DEFAULT, KEV_NOTE_ATTRIB, false },
        { "link", "echo a > f", "", "ln f g", ASKED_BY_DEFAULT, KEV_NOTE_LINK, false },
        { "deleted", "echo a > f", "", "rm f", ASKED_BY_DEFAULT, 0, true },
        { "one of two names deleted", "echo a > f; ln f g", "", "rm f", ASKED_BY_DEFAULT, 0, true },
        { "replaced", "echo a > f", "", "echo b > g; mv g f", ASKED_BY_DEFAULT, 0, true },
        { "renamed", "echo a > f", "", "mv f g", ASKED_BY_DEFAULT, 0, true },
        { "written and chmod", "echo a > f", "", "echo b >> f; chmod 600 f", ASKED_BY_DEFAULT,
          KEV_NOTE_WRITE | KEV_NOTE_EXTEND | KEV_NOTE_ATTRIB, false },
        { "attrib alone, written and chmod", "echo a > f", "", "echo b >> f; chmod 600 f", KEV_NOTE_ATTRIB, KEV_NOTE_ATTRIB, false },
        { "attrib alone, link and chmod", "echo a > f", "", "ln f g; chmod 600 f", KEV_NOTE_ATTRIB, KEV_NOTE_ATTRIB, false },
        { "closewrite alone, written", "echo a > f", "", "echo b >> f", KEV_NOTE_CLOSEWRITE, 0, false },
        { "renamed, then written in the loss", "echo a > f", "mv f g", "echo b >> g", ASKED_BY_DEFAULT, 0, true },
        { "renamed, then deleted in the loss", "echo a > f", "mv f g", "rm g", ASKED_BY_DEFAULT, 0, true },
        { "directory, file made", "mkdir f", "", "echo a > f/a", ASKED_BY_DEFAULT, KEV_NOTE_WRITE, false },
        { "directory, directory made", "mkdir f", "", "mkdir f/a", ASKED_BY_DEFAULT, KEV_NOTE_WRITE | KEV_NOTE_LINK, false },
        { "directory, chmod", "mkdir f", "", "chmod 700 f", ASKED_BY_DEFAULT, KEV_NOTE_ATTRIB, false },
        { "directory, deleted", "mkdir f", "", "rmdir f", ASKED_BY_DEFAULT, 0, true },
};

/* All that is due; `text` gets it for a message. */
static uint64_t take_notes(struct kev *kev, char *text, size_t size) {
        const struct kev_event *event;
        uint64_t notes = 0;
        int r;

        *text = 0;
        while ((r = kev_wait(kev, 0, &event)) == 1) {
                notes |= kev_event_notes(event);
                if (strlen(text) + strlen(kev_event_json(event)) + 2 < size)
                        strcat(strcat(text, "\n"), kev_event_json(event));
        }
        ck_assert_int_eq(r, 0);
        return notes;
}

START_TEST(test_vnode) {
        const struct vnode_case *c = &vnode_cases[_i];
        const char *root = make_root("w");
        struct kev_watch *watch;
        struct kev *kev;
        char text[4096];
        uint64_t notes;

        harness_label(c->name);
        run(root, c->before);
        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_VNODE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, at("%s/f", root)), 0);
        ck_assert_int_eq(kev_watch_set_notes(watch, c->asked), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
        kev_watch_free(watch);
        run(root, c->while_watched);
        (void)take_notes(kev, text, sizeof(text));

        begin_loss();
        run(root, c->lost);
        let_go_on();
        notes = take_notes(kev, text, sizeof(text));
        ck_assert_msg(notes == (c->told | KEV_NOTE_RESCAN), "%s", *text ? text : "nothing is told");
        ck_assert_uint_eq(count_overflows(), 1);

        /* It goes on. */
        if (!c->ends) {
                run(root, "if test -d f; then mkdir f/later; chmod 711 f; else echo later >> f; chmod 640 f; fi");
                notes = take_notes(kev, text, sizeof(text));
                ck_assert_msg(notes, "later nothing is told");
        }
        kev_close(kev);
}
END_TEST

/* ---- the program ------------------------------------------------------------------------------------------ */

static TCase *make_case(Suite *suite, const char *name) {
        TCase *c = harness_case(suite, name);

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, SECONDS);
        return c;
}

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("overflow");
        TCase *c = make_case(suite, "trees");

        tcase_add_loop_test(c, test_changes, 0, harness_rounds(SPLITS) + 1);
        tcase_add_test(c, test_what_was_queued);
        tcase_add_test(c, test_every_watch);
        tcase_add_loop_test(c, test_root, 0, 5);
        c = make_case(suite, "again");
        tcase_add_loop_test(c, test_again_and_again, 0, harness_rounds(16));
        tcase_add_test(c, test_into_itself);
        tcase_add_test(c, test_while_starting);
        tcase_add_test(c, test_while_crawling);
        c = make_case(suite, "vnode");
        tcase_add_loop_test(c, test_vnode, 0, ARRAY_SIZE(vnode_cases));
        return harness_main(argc, argv);
}
