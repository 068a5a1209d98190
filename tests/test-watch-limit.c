/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The limit of inotify watches, which is as low as a test wants it in a user namespace of its own
 * (user.max_inotify_watches). What doesn't fit is refused, or said to be `degraded`, and is watched once there is room.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "connect.h"
#include "files.h"
#include "harness.h"
#include "kev.h"
#include "losses.h"
#include "macro.h"
#include "replay.h"

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
        n = make_file_everywhere(root, name);
        told = take_with_blind(f, b, name);
        ck_assert_msg(told == seen, "%s: of %zu directories, %zu were not said to be degraded, but %zu are watched", what, n,
                      seen, told);
        return n - told;
}

/* A watch that does not fit is refused, or made in part, and says so; others don't notice. */
START_TEST(test_at_attach) {
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
        watch = new_tree_watch(large, 0);
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
START_TEST(test_at_growth) {
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

/* Who comes later is told, and nobody else once more. */
START_TEST(test_another_watch) {
        const char *root = make_root("w"), *below = at("%s/d0", root);
        static struct blind b, b_of_root, b_of_below;
        struct follower *f, *of_root, *of_below;

        start_with_limit(30);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        (void)make_tree(root, 3, 4);
        ck_assert_uint_gt(check_said(f, &b, root, "what does not fit"), 0);
        of_root = follower_new(kevd, root, REPLAY_AT_REST);
        of_below = follower_new(kevd, below, REPLAY_AT_REST);
        ck_assert_msg(!follower_take(f, 0, NULL), "the first one is told again");
        ck_assert_uint_gt(check_said(of_root, &b_of_root, root, "the same directory"), 0);
        ck_assert_uint_gt(check_said(of_below, &b_of_below, below, "one below"), 0);
        follower_free(f);
        follower_free(of_root);
        follower_free(of_below);
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
START_TEST(test_recovery) {
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

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("watch-limit"), "inotify");

        tcase_set_timeout(c, 120);
        tcase_add_test(c, test_at_attach);
        tcase_add_loop_test(c, test_at_growth, 0, 2);
        tcase_add_test(c, test_another_watch);
        tcase_add_loop_test(c, test_recovery, 0, 2);
        return harness_main(argc, argv);
}
