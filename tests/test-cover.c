/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What tree watches with globs and a depth cover, on the real daemon: all directories that may hold something of
 * interest, and, as the kernel shows in /proc, no others.
 */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"

enum {
        WATCHES = 3,
        OPERATIONS = 400,
};

static struct daemon *kevd;

static void start(void) {
        kevd = daemon_start(NULL);
}

static void stop(void) {
        daemon_stop(kevd);
}

/* ---- watches, and what they are about ---------------------------------------------------------- */

/* Directories named x are left out; or what is too deep; or nothing. */
struct scope {
        bool without_x;
        int depth; /* 0: any */
};

static struct kev_watch *make_watch(const char *root, struct scope scope) {
        struct kev_watch *watch = new_tree_watch(root, 0);

        if (scope.without_x)
                ck_assert_int_eq(kev_watch_add_exclude(watch, "**/x"), 0);
        if (scope.depth > 0)
                ck_assert_int_eq(kev_watch_set_depth(watch, scope.depth), 0);
        return watch;
}

static struct follower *follow(const char *root, struct scope scope) {
        return follower_new_with(kevd, make_watch(root, scope), root, REPLAY_AT_REST);
}

/* Whether what happens in the directory, which lies so deep, is of interest. */
static bool is_wanted(struct scope scope, const char *below, int depth) {
        if (scope.depth > 0 && depth >= scope.depth)
                return false;
        for (const char *p = below; scope.without_x && *p; p += strcspn(p, "/"), p += *p == '/')
                if (*p == 'x' && (p[1] == '/' || p[1] == 0))
                        return false;
        return true;
}

struct count {
        const struct scope *scopes;
        size_t n;
        size_t wanted[WATCHES], by_any;
        const char *name; /* of a file to be made in each directory, or NULL */
};

static void count_below(struct count *c, const char *path, const char *below, int depth) {
        DIR *directory = opendir(path);
        struct dirent *entry;
        bool any = false;

        assert_system(directory, path);
        for (size_t i = 0; i < c->n; i++) {
                bool wanted = is_wanted(c->scopes[i], below, depth);

                c->wanted[i] += wanted;
                any |= wanted;
        }
        c->by_any += any;
        if (c->name)
                make_file(at("%s/%s", path, c->name));
        while ((entry = readdir(directory)))
                if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
                        count_below(c, at("%s/%s", path, entry->d_name),
                                    *below ? at("%s/%s", below, entry->d_name) : at("%s", entry->d_name), depth + 1);
        (void)closedir(directory);
}

static bool holds(void *userdata) {
        return daemon_fdinfo_inotify_watches(kevd->pid) == on_inotify(*(size_t *)userdata);
}

/* All that is wanted is watched, and nothing else; and each is told of all that it wants, once. */
static void check(struct follower **followers, const struct scope *scopes, size_t n, const char *root,
                  const char *what) {
        static int serial;
        struct count c = { .scopes = scopes, .n = n };

        for (size_t i = 0; i < n; i++)
                follower_drain(followers[i]);
        count_below(&c, root, "", 0);
        ck_assert_msg(wait_until(holds, &c.by_any, HARNESS_REPLY_MSEC), "%s: %zu directories are wanted, %zu are watched",
                      what, c.by_any, daemon_fdinfo_inotify_watches(kevd->pid));
        c = (struct count){ .scopes = scopes, .n = n, .name = at("later%d", serial++) };
        count_below(&c, root, "", 0);
        for (size_t i = 0; i < n; i++) {
                const struct kev_event *event;
                size_t told = 0;

                while (follower_take(followers[i], 0, &event))
                        told += kev_event_notes(event) & KEV_NOTE_CREATE &&
                                strcmp(strrchr(kev_event_path(event), '/') + 1, c.name) == 0;
                ck_assert_msg(told == c.wanted[i], "%s: watch %zu is told of %zu directories, of %zu that it wants", what, i,
                              told, c.wanted[i]);
        }
}

/* In each of three levels the directories a, b and x. */
static void make_abx(const char *path, int depth) {
        static const char *const names[] = { "a", "b", "x" };

        for (size_t i = 0; depth > 0 && i < ARRAY_SIZE(names); i++) {
                make_dir(at("%s/%s", path, names[i]));
                make_abx(at("%s/%s", path, names[i]), depth - 1);
        }
}

static const struct scope scopes[] = {
        { .without_x = true }, { .depth = 2 }, { .without_x = true, .depth = 3 }, { .depth = 1 }, { 0 },
};

START_TEST(test_there_before) {
        const char *root = make_root("w");
        struct follower *f;

        make_abx(root, 4);
        f = follow(root, scopes[_i]);
        check(&f, &scopes[_i], 1, root, "there before");
        follower_free(f);
}
END_TEST

START_TEST(test_made_later) {
        const char *root = make_root("w");
        struct follower *f = follow(root, scopes[_i]);

        make_abx(root, 4);
        check(&f, &scopes[_i], 1, root, "made later");
        make_dir(at("%s/b/new", root));
        make_abx(at("%s/b/new", root), 2);
        check(&f, &scopes[_i], 1, root, "made later still");
        follower_free(f);
}
END_TEST

/* A directory's new name, or place, decides anew. */
START_TEST(test_renamed) {
        const char *root = make_root("w");
        struct follower *f;

        make_abx(root, 4);
        f = follow(root, scopes[_i]);
        move(at("%s/x", root), at("%s/y", root));
        check(&f, &scopes[_i], 1, root, "x is y");
        move(at("%s/a", root), at("%s/x", root));
        check(&f, &scopes[_i], 1, root, "a is x");
        move(at("%s/x", root), at("%s/a", root));
        check(&f, &scopes[_i], 1, root, "a is a again");
        move(at("%s/a/a/a", root), at("%s/up", root));
        check(&f, &scopes[_i], 1, root, "up");
        move(at("%s/y", root), at("%s/b/b/b/down", root));
        check(&f, &scopes[_i], 1, root, "down");
        move(at("%s/b/b/b/down/x", root), at("%s/b/b/b/down/a/in", root));
        check(&f, &scopes[_i], 1, root, "x is in");
        follower_free(f);
}
END_TEST

/* Watches come and go: what is held is what those want that are there. */
START_TEST(test_come_and_go) {
        const char *root = make_root("w");
        struct follower *followers[WATCHES];
        static const struct scope all[WATCHES] = { { .without_x = true }, { 0 }, { .depth = 2 } };

        make_abx(root, 4);
        for (size_t i = 0; i < WATCHES; i++) {
                followers[i] = follow(root, all[i]);
                check(followers, all, i + 1, root, "one more");
        }
        make_dir(at("%s/x/new", root));
        make_abx(at("%s/x/new", root), 2);
        check(followers, all, WATCHES, root, "all");
        follower_free(followers[1]);
        followers[1] = followers[2];
        check(followers, (struct scope[]){ all[0], all[2] }, 2, root, "one gone");
        make_abx(at("%s/x/new/a/a", root), 2);
        check(followers, (struct scope[]){ all[0], all[2] }, 2, root, "one gone, later");
        follower_free(followers[0]);
        check(&followers[1], &all[2], 1, root, "two gone");
        follower_free(followers[1]);
        ck_assert(wait_until(holds, &(size_t){ 0 }, HARNESS_REPLY_MSEC));
}
END_TEST

START_TEST(test_modified) {
        const char *root = make_root("w");
        struct follower *f;

        make_abx(root, 4);
        f = follow(root, scopes[0]);
        for (size_t i = 1; i < 2 * ARRAY_SIZE(scopes); i++) {
                const struct scope *scope = &scopes[(i * 3) % ARRAY_SIZE(scopes)];
                struct kev_watch *watch = make_watch(root, *scope);

                if (!scope->without_x && scope->depth == 0)
                        ck_assert_int_eq(kev_watch_add_include(watch, "**"), 0);
                f->notes = 0;
                ck_assert_int_eq(kev_modify(f->kev, f->id, watch), 0);
                kev_watch_free(watch);
                check(&f, scope, 1, root, at("modified, %zu", i));
                ck_assert_msg(f->notes & KEV_NOTE_RESCAN, "modified, %zu: no rescan", i);
        }
        follower_free(f);
}
END_TEST

/* What one leaves out another watches by itself: nothing that the first does ends that. */
START_TEST(test_left_out_and_watched) {
        const char *root = make_root("w");
        struct follower *f, *at_x;

        make_abx(root, 3);
        f = follow(root, scopes[0]);
        at_x = follow(at("%s/x", root), scopes[4]);
        for (size_t i = 1; i < 2 * ARRAY_SIZE(scopes); i++) {
                const struct scope *scope = &scopes[i % 4];
                struct kev_watch *watch = make_watch(root, *scope);
                const struct kev_event *event;
                bool told = false;

                ck_assert_int_eq(kev_modify(f->kev, f->id, watch), 0);
                kev_watch_free(watch);
                follower_drain(f);
                make_file(at("%s/x/a/file%zu", root, i));
                while (follower_take(at_x, 0, &event))
                        told |= kev_event_notes(event) & KEV_NOTE_CREATE;
                ck_assert_msg(told && !(at_x->notes & KEV_NOTE_GONE), "modified, %zu", i);
        }
        follower_free(f);
        follower_free(at_x);
}
END_TEST

/* ---- whatever happens ------------------------------------------------------------------------------ */

static unsigned seed;

static unsigned any(unsigned n) {
        seed = seed * 1103515245u + 12345u;
        return (seed >> 16) % n;
}

/* A path of up to four names. */
static const char *any_path(const char *root) {
        static const char *const names[] = { "a", "b", "x" };
        const char *path = root;

        for (unsigned depth = 1 + any(4); depth > 0; depth--)
                path = at("%s/%s", path, names[any(3)]);
        return path;
}

static void do_anything(const char *root) {
        const char *path = any_path(root), *other = any_path(root);

        switch (any(8)) {
        case 0:
        case 1:
        case 2:
                (void)mkdir(path, 0755);
                break;
        case 3:
                if (access(path, F_OK) == 0 && any(3) == 0)
                        run(root, at("rm -r %s", path));
                break;
        case 4:
                if (access(path, F_OK) < 0 && mkdir(path, 0755) == 0)
                        make_abx(path, 2);
                break;
        default:
                (void)rename(path, other);
        }
}

START_TEST(test_random) {
        const char *root = make_root("w");
        struct scope all[WATCHES];
        struct follower *followers[WATCHES];

        harness_label(at("seed %d", _i));
        seed = (unsigned)_i;
        make_abx(root, 2);
        for (size_t i = 0; i < WATCHES; i++) {
                all[i] = scopes[any(_i % 2 ? 4 : ARRAY_SIZE(scopes))];
                followers[i] = follow(root, all[i]);
        }
        for (int n = 0; n < harness_rounds(OPERATIONS); n++) {
                do_anything(root);
                if (n % 25 == 0)
                        check(followers, all, WATCHES, root, at("operation %d", n));
                if (n % 50 == 0) {
                        size_t i = any(WATCHES);

                        follower_free(followers[i]);
                        all[i] = scopes[any(ARRAY_SIZE(scopes))];
                        followers[i] = follow(root, all[i]);
                }
        }
        check(followers, all, WATCHES, root, "at last");
        for (size_t i = 0; i < WATCHES; i++)
                follower_free(followers[i]);
        ck_assert(wait_until(holds, &(size_t){ 0 }, HARNESS_REPLY_MSEC));
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("cover");
        TCase *c = harness_case(suite, "scopes");

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_loop_test(c, test_there_before, 0, ARRAY_SIZE(scopes));
        tcase_add_loop_test(c, test_made_later, 0, ARRAY_SIZE(scopes));
        tcase_add_loop_test(c, test_renamed, 0, ARRAY_SIZE(scopes));
        tcase_add_test(c, test_come_and_go);
        tcase_add_test(c, test_modified);
        tcase_add_test(c, test_left_out_and_watched);
        tcase_add_loop_test(c, test_random, 0, 8);
        return harness_main(argc, argv);
}
