/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The kernel's own losses. The daemon is stopped while more happens than its inotify instance may hold
 * (fs.inotify.max_queued_events): from there on everything is lost, for all watches alike. When it runs
 * again, trees get `rescan`, files are compared, and what was made meanwhile is watched.
 *
 * The noise that fills the queue is made in a directory of its own, which a client watches that never
 * reads: so a test can say to the event where the loss begins. rtnetlink's losses are in test-netdev.c.
 */

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "connect.h"
#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"
#include "unit.h"

enum {
        SECONDS = 120,
        QUEUE_MAX = 1000 * 1000, /* of events: more take too long to make */
        SPLITS = 70,             /* more than do_changes() has events */
};

static struct daemon *kevd;
static struct kev *noise; /* watches what fills the kernel's queue */
static int64_t noise_id;

/* ---- the loss --------------------------------------------------------------------------------- */

static size_t max_queued(void) {
        FILE *file = fopen("/proc/sys/fs/inotify/max_queued_events", "re");
        size_t n = 0;

        if (!file || fscanf(file, "%zu", &n) != 1)
                harness_skip("fs.inotify.max_queued_events can't be read");
        (void)fclose(file);
        if (n > QUEUE_MAX)
                harness_skip("fs.inotify.max_queued_events is too large to be reached");
        return n;
}

/* Every thread: workers go on watching otherwise. */
static bool is_stopped(void *userdata _unused_) {
        DIR *threads = opendir(at("/proc/%d/task", kevd->pid));
        struct dirent *thread;
        bool stopped = true;

        assert_system(threads, "/proc");
        while ((thread = readdir(threads))) {
                FILE *stat = thread->d_name[0] == '.' ? NULL :
                                                        fopen(at("/proc/%d/task/%s/stat", kevd->pid, thread->d_name), "re");
                char state = 0;

                if (!stat)
                        continue;
                stopped &= fscanf(stat, "%*d (%*[^)]) %c", &state) == 1 && state == 'T';
                (void)fclose(stat);
        }
        (void)closedir(threads);
        return stopped;
}

static void stop_daemon(void) {
        assert_system(kill(kevd->pid, SIGSTOP) == 0, "kill");
        ck_assert_msg(wait_until(is_stopped, NULL, HARNESS_REPLY_MSEC), "the daemon does not stop");
}

static void let_go_on(void) {
        assert_system(kill(kevd->pid, SIGCONT) == 0, "kill");
}

/* So many events of their own: the kernel merges only what is equal to the last. */
static void make_noise(size_t n) {
        const char *files[] = { at("%s/noise/0", harness_tempdir()), at("%s/noise/1", harness_tempdir()) };

        for (size_t i = 0; i < n; i++)
                assert_system(chmod(files[i % 2], 0600) == 0, files[i % 2]);
}

/* On return the daemon is stopped, and its queue has room for `room` events. */
static void fill_queue(size_t room) {
        stop_daemon();
        make_noise(max_queued() - room);
}

/* On return it is stopped, and all that happens is lost. */
static void begin_loss(void) {
        fill_queue(0);
        make_noise(2);
}

static uint64_t count_overflows(void) {
        struct json_object *status, *found;
        uint64_t n;
        char *text;

        ck_assert_int_eq(kev_call(noise, "org.kevd.manager.GetStatus", NULL, &text), 0);
        status = json_tokener_parse(text);
        ck_assert_int_eq(json_pointer_get(status, "/counters/kernelOverflows", &found), 0);
        n = (uint64_t)json_object_get_int64(found);
        json_object_put(status);
        free(text);
        return n;
}

static void watch_noise(void) {
        const char *path = make_root("noise");
        struct kev_watch *watch;

        make_file(at("%s/0", path));
        make_file(at("%s/1", path));
        ck_assert_int_eq(open_kev(kevd->socket, &noise), 0);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, path), 0);
        ck_assert_int_eq(kev_add(noise, watch, NULL, NULL, &noise_id), 0);
        kev_watch_free(watch);
}

static void start(void) {
        kevd = daemon_start(NULL);
        watch_noise();
}

static void stop(void) {
        noise = kev_close(noise);
        daemon_stop(kevd);
}

/* ---- afterwards ---------------------------------------------------------------------------------- */

/* A file in every directory of the tree; how many there are. */
static size_t touch_all(const char *path, const char *name) {
        DIR *directory = opendir(path);
        struct dirent *entry;
        size_t n = 1;

        assert_system(directory, path);
        while ((entry = readdir(directory)))
                if (entry->d_type == DT_DIR && strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        n += touch_all(at("%s/%s", path, entry->d_name), name);
        (void)closedir(directory);
        make_file(at("%s/%s", path, name));
        return n;
}

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
        size_t rescans = replay_n_rescans(f->replay), n = touch_all(root, name), told = count_made(f, name);
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

static bool has_watches(void *userdata) {
        const size_t *n = userdata;

        return daemon_fdinfo_inotify_watches(kevd->pid) == *n;
}

/* `n` directories, and that of the noise. What is gone is let go of. */
static void check_held(size_t n, const char *what) {
        n++;
        ck_assert_msg(wait_until(has_watches, &n, HARNESS_REPLY_MSEC), "%s: %zu inotify watches instead of %zu", what,
                      daemon_fdinfo_inotify_watches(kevd->pid), n);
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
        struct kev_watch *watch;

        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, path), 0);
        ck_assert_int_eq(kev_watch_set_notes(watch, notes), 0);
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
                ck_assert_int_eq(kill(pid, SIGKILL), 0);
                ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
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
                ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
                ck_assert_int_eq(kev_watch_set_path(watch, root), 0);
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
                n = touch_all(root, name);
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

/* ---- the limit of watches --------------------------------------------------------------------------------- */

static void write_text(const char *path, const char *text) {
        int fd = open(path, O_WRONLY | O_CLOEXEC);

        if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
                harness_skip(at("%s can't be written", path));
        (void)close(fd);
}

/* The daemon has so many inotify watches at most; nobody else is concerned. */
static void start_with_limit(int limit) {
        const char *ids = at("0 %u 1", geteuid()), *groups = at("0 %u 1", getegid());

        if (unshare(CLONE_NEWUSER) < 0)
                harness_skip("there are no user namespaces");
        write_text("/proc/self/setgroups", "deny");
        write_text("/proc/self/uid_map", ids);
        write_text("/proc/self/gid_map", groups);
        write_text("/proc/sys/user/max_inotify_watches", at("%d", limit));
        start();
}

/* What a client knows that it doesn't see. */
struct blind {
        const char *paths[1024];
        size_t n;
};

static bool is_blind(const struct blind *b, const char *path) {
        for (size_t i = 0; i < b->n; i++) {
                size_t size = strlen(b->paths[i]);

                if (strncmp(path, b->paths[i], size) == 0 && (path[size] == '/' || path[size] == 0))
                        return true;
        }
        return false;
}

/* It and what is below it are watched, but for what is said to be degraded afterwards. */
static void see_again(struct blind *b, const char *path) {
        size_t size = strlen(path), left = 0;

        for (size_t i = 0; i < b->n; i++)
                if (strncmp(b->paths[i], path, size) != 0 || (b->paths[i][size] != '/' && b->paths[i][size] != 0))
                        b->paths[left++] = b->paths[i];
        b->n = left;
}

/* All that is due: what was degraded, and how many files of that name were made. */
static size_t take_with_blind(struct follower *f, struct blind *b, const char *name) {
        const struct kev_event *event;
        size_t n = 0;

        while (follower_take(f, 0, &event)) {
                const char *path = kev_event_path(event);

                if (kev_event_notes(event) & KEV_NOTE_RESCAN)
                        see_again(b, path);
                if (kev_event_notes(event) & KEV_NOTE_DEGRADED && b->n < ARRAY_SIZE(b->paths))
                        b->paths[b->n++] = at("%s", path);
                n += kev_event_notes(event) & KEV_NOTE_CREATE && strcmp(strrchr(path, '/') + 1, name) == 0;
        }
        return n;
}

static size_t count_seen_dirs(const struct blind *b, const char *path) {
        DIR *directory = opendir(path);
        struct dirent *entry;
        size_t n = !is_blind(b, path);

        assert_system(directory, path);
        while ((entry = readdir(directory)))
                if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
                        n += count_seen_dirs(b, at("%s/%s", path, entry->d_name));
        (void)closedir(directory);
        return n;
}

/* Every directory is either watched, or said not to be. */
static size_t check_said(struct follower *f, struct blind *b, const char *root, const char *what) {
        static int serial;
        const char *name = at("later%d", serial++);
        size_t n, told, seen;

        (void)take_with_blind(f, b, name);
        seen = count_seen_dirs(b, root);
        n = touch_all(root, name);
        told = take_with_blind(f, b, name);
        ck_assert_msg(told == seen, "%s: of %zu directories, %zu were not said to be degraded, but %zu are watched", what, n,
                      seen, told);
        return n - told;
}

/* A watch that does not fit is refused, or made in part, and says so; others don't notice. */
START_TEST(test_limit_at_attach) {
        const char *root = make_root("w"), *large = make_root("large");
        static struct blind none, b;
        struct follower *f, *other;
        struct kev_watch *watch;
        struct kev *kev;
        int r, fits = 0;

        start_with_limit(100);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        make_tree(root, 3, 2); /* 13 */
        follower_check(f, "before");
        for (int i = 0; i < 20; i++) {
                make_dir(at("%s/d%d", large, i));
                make_tree(at("%s/d%d", large, i), 3, 2);
        }
        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, large), 0);
        r = kev_add(kev, watch, NULL, NULL, NULL);
        ck_assert_msg(r == 0 || r == -ENOSPC, "%s", kev_error_message(kev));
        kev_close(kev);
        if (r == 0) {
                other = follower_new_with(kevd, watch, large, REPLAY_AT_REST);
                ck_assert_msg(check_said(other, &b, large, "a part") > 0, "more is watched than can be");
                follower_free(other);
        } else {
                kev_watch_free(watch);
        }
        ck_assert_uint_eq(check_said(f, &none, root, "who was there before"), 0);

        /* Single files: as many as fit. */
        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        for (int i = 0; i < 200; i++) {
                make_file(at("%s/f%d", large, i));
                ck_assert_int_eq(kev_watch_new(KEV_FILTER_VNODE, &watch), 0);
                ck_assert_int_eq(kev_watch_set_path(watch, at("%s/f%d", large, i)), 0);
                r = kev_add(kev, watch, NULL, NULL, NULL);
                ck_assert_msg(r == 0 || r == -ENOSPC, "%s", kev_error_message(kev));
                ck_assert_msg(r == 0 || strstr(kev_error_message(kev), "max_user_watches"), "%s", kev_error_message(kev));
                fits += r == 0;
                kev_watch_free(watch);
        }
        /* Beside the noise's: what the other watch had is free again, perhaps not all at once. */
        ck_assert_int_gt(fits, 0);
        ck_assert_int_le(fits, 100 - 14);
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(kevd->pid), (size_t)fits + 14);
        ck_assert_uint_eq(check_said(f, &none, root, "who was there before"), 0);
        kev_close(kev);
        check_held(13, "the rest is free again");
        follower_free(f);
        stop();
}
END_TEST

/* New directories, told one by one or found after a loss. */
START_TEST(test_limit_at_growth) {
        const char *root = make_root("w");
        static struct blind b;
        struct follower *f;

        harness_label(_i ? "in a loss" : "as they come");
        start_with_limit(30);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        if (_i)
                begin_loss();
        for (int i = 0; i < 50; i++) {
                make_dir(at("%s/d%d", root, i));
                make_dir(at("%s/d%d/below", root, i));
                make_file(at("%s/d%d/below/file", root, i));
        }
        if (_i)
                let_go_on();
        ck_assert_uint_gt(check_said(f, &b, root, "what does not fit"), 0);
        ck_assert_msg(f->notes & KEV_NOTE_DEGRADED, "nothing was degraded");
        run(root, "rm -r d*"); /* it lives on */
        follower_drain(f);
        make_file(at("%s/last", root));
        ck_assert(follower_take(f, 0, NULL));
        follower_free(f);
        stop();
}
END_TEST

struct recovery {
        struct follower *f;
        struct blind *b;
};

static bool has_recovered(void *userdata) {
        struct recovery *r = userdata;

        (void)take_with_blind(r->f, r->b, "");
        return r->b->n == 0;
}

/* Watches come free, since somebody else needs them no more, or since the limit is raised: nothing stays degraded. */
START_TEST(test_limit_recovery) {
        const char *root = make_root("w"), *large = make_root("large");
        static struct blind b;
        struct recovery recovery = { .b = &b };
        struct follower *other;

        harness_label(_i ? "the limit is raised" : "another lets go");
        start_with_limit(60);
        recovery.f = follower_new(kevd, root, REPLAY_AT_REST);
        (void)make_tree(large, 6, 2);
        other = follower_new(kevd, large, REPLAY_AT_REST);
        for (int i = 0; i < 5; i++) {
                make_dir(at("%s/d%d", root, i));
                (void)make_tree(at("%s/d%d", root, i), 2, 2);
        }
        ck_assert_uint_gt(check_said(recovery.f, &b, root, "what does not fit"), 0);
        ck_assert_uint_gt(b.n, 0);
        if (_i)
                write_text("/proc/sys/user/max_inotify_watches", "1000");
        else
                follower_free(other);
        ck_assert_msg(wait_until(has_recovered, &recovery, 20 * 1000), "%zu directories are not watched yet", b.n);
        ck_assert_uint_eq(check_said(recovery.f, &b, root, "after that"), 0);
        ck_assert_uint_eq(b.n, 0);
        follower_free(recovery.f);
        if (_i)
                follower_free(other);
        stop();
}
END_TEST

/* ---- the program ------------------------------------------------------------------------------------------ */

static TCase *make_case(Suite *suite, const char *name, bool with_daemon) {
        TCase *c = harness_case(suite, name);

        if (with_daemon)
                tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, SECONDS);
        return c;
}

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("overflow");
        TCase *c = make_case(suite, "trees", true);

        tcase_add_loop_test(c, test_changes, 0, harness_rounds(SPLITS) + 1);
        tcase_add_test(c, test_what_was_queued);
        tcase_add_test(c, test_every_watch);
        tcase_add_loop_test(c, test_root, 0, 5);
        c = make_case(suite, "again", true);
        tcase_add_loop_test(c, test_again_and_again, 0, harness_rounds(16));
        tcase_add_test(c, test_into_itself);
        tcase_add_test(c, test_while_starting);
        tcase_add_test(c, test_while_crawling);
        c = make_case(suite, "vnode", true);
        tcase_add_loop_test(c, test_vnode, 0, ARRAY_SIZE(vnode_cases));
        c = make_case(suite, "limit", false);
        tcase_add_test(c, test_limit_at_attach);
        tcase_add_loop_test(c, test_limit_at_growth, 0, 2);
        tcase_add_loop_test(c, test_limit_recovery, 0, 2);
        return harness_main(argc, argv);
}
