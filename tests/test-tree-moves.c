/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on the real daemon, and renames: into the tree, out of it, within it and from one to another,
 * exchanges, and moves while others write.
 */

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"
#include "trees.h"

/* ---- what the daemon holds ------------------------------------------------------------------- */

/* How many inotify watches the daemon believes that it holds. */
static size_t count_registrations(void) {
        struct json_object *status, *sources, *mechanism, *registrations;
        struct kev *kev; /* the test's own: not everybody may ask */
        size_t n = 0;
        char *text;

        ck_assert_int_eq(kev_open(kevd->socket, &kev), 0);
        ck_assert_int_eq(kev_call(kev, "org.kevd.manager.GetStatus", NULL, &text), 0);
        status = json_tokener_parse(text);
        ck_assert(json_object_object_get_ex(status, "sources", &sources));
        for (size_t i = 0; i < json_object_array_length(sources); i++) {
                struct json_object *source = json_object_array_get_idx(sources, i);

                if (json_object_object_get_ex(source, "mechanism", &mechanism) &&
                    strcmp(json_object_get_string(mechanism), "inotify") == 0 &&
                    json_object_object_get_ex(source, "registrations", &registrations))
                        n += (size_t)json_object_get_int64(registrations);
        }
        json_object_put(status);
        free(text);
        kev_close(kev);
        return n;
}

static bool agrees_with_kernel(void *userdata _unused_) {
        return count_registrations() == daemon_fdinfo_inotify_watches(kevd->pid);
}

/* A directory that the daemon takes for watched and the kernel doesn't watch is one whose events are lost. */
static void check_registrations(struct follower *f, const char *what) {
        follower_drain(f);
        ck_assert_msg(wait_until(agrees_with_kernel, NULL, HARNESS_REPLY_MSEC),
                      "%s: the daemon counts %zu inotify watches, the kernel %zu", what, count_registrations(),
                      daemon_fdinfo_inotify_watches(kevd->pid));
}

/* ---- into and out of the tree ---------------------------------------------------------------- */

START_TEST(test_moved_in) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        make_dir(at("%s/tree", outside));
        make_tree(at("%s/tree", outside), 4, 3);
        make_file(at("%s/file", outside));
        ck_assert(!follower_take(f, 0, NULL));
        move(at("%s/tree", outside), at("%s/in", root));
        move(at("%s/file", outside), at("%s/in/moved", root));
        ck_assert_uint_eq(see(f, at("%s/in", root)).notes, KEV_NOTE_MOVEDIN);
        follower_check(f, "moved in");
        touch_tree(at("%s/in", root), 4, 3, "later");
        follower_check(f, "moved in, later");
        replay_check_sane(f->replay, "sane");
        follower_free(f);
}
END_TEST

/* What is handled late is asked about when it has moved already, and where it has come to is not known. */
START_TEST(test_moved_in_meanwhile) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f;

        make_dir(at("%s/a", root));
        make_dir(at("%s/a/b", root));
        make_dir(at("%s/tree", outside));
        make_dir(at("%s/tree/sub", outside));
        f = follower_new(kevd, root, REPLAY_STRICT); /* which is not told what is there */
        ck_assert_int_eq(kill(kevd->pid, SIGSTOP), 0);
        append(at("%s/tree/sub/file", outside), "before");
        move(at("%s/tree", outside), at("%s/a/b/in", root));
        append(at("%s/a/b/in/sub/later", root), "after");
        ck_assert_int_eq(kill(kevd->pid, SIGCONT), 0);
        expect(f, at("%s/a/b/in", root), KEV_NOTE_MOVEDIN);
        append(at("%s/a/b/in/sub/later", root), "text");
        expect(f, at("%s/a/b/in/sub/later", root), KEV_NOTE_WRITE | KEV_NOTE_CLOSEWRITE);
        make_dir(at("%s/a/b/new", root));
        expect(f, at("%s/a/b/new", root), KEV_NOTE_CREATE);
        follower_free(f);
}
END_TEST

/* Gives what has the name in the directory one new name after the other. */
static pid_t keep_renaming(int directory, const char *name) {
        pid_t pid = fork_writer();
        char names[2][32];

        if (pid != 0)
                return pid;
        format(names[0], sizeof(names[0]), "%s", name);
        for (int i = 1;; i++) {
                format(names[i % 2], sizeof(names[0]), "%d", i);
                if (renameat(directory, names[(i - 1) % 2], directory, names[i % 2]) < 0)
                        _exit(1);
        }
}

enum { UNKNOWN = 300, UNKNOWN_DEPTH = 800 };

/* Directories that nobody knows, in one that is held, at the end of a path which is renamed at both ends all the while. */
struct restless {
        int above[2], bottom;
        pid_t writers[2];
};

static struct restless make_restless(const char *directory) {
        const char *path = at("%s/a", directory);
        struct restless r;

        make_dir(path);
        for (int i = 0; i < UNKNOWN_DEPTH; i++)
                make_dir(path = at("%s/b", path));
        for (int i = 0; i < harness_rounds(UNKNOWN); i++)
                make_dir(at("%s/%d", path, i));
        r.bottom = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        r.above[0] = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);
        r.above[1] = openat(r.bottom, "..", O_PATH | O_DIRECTORY | O_CLOEXEC);
        assert_system(r.bottom >= 0 && r.above[0] >= 0 && r.above[1] >= 0, path);
        return r;
}

static void begin_renames(struct restless *r) {
        r->writers[0] = keep_renaming(r->above[0], "a");
        r->writers[1] = keep_renaming(r->above[1], "b");
}

static void end_renames(struct restless *r) {
        for (size_t i = 0; i < ARRAY_SIZE(r->writers); i++) {
                end_process(r->writers[i]);
                (void)close(r->above[i]);
        }
        (void)close(r->bottom);
}

static void make_file_in(const struct restless *r, int i) {
        int fd = openat(r->bottom, at("%d/file", i), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        assert_system(fd >= 0, "file");
        (void)close(fd);
}

/* Something happens in each, outside: whoever watches elsewhere has nothing to look for. */
START_TEST(test_outside_is_renamed) {
        const char *root = make_root("w");
        struct restless r = make_restless(make_root("outside"));
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        begin_renames(&r);
        for (int i = 0; i < harness_rounds(UNKNOWN); i++) {
                make_file_in(&r, i);
                if (i % 10 == 0)
                        follower_drain(f);
        }
        make_tree(root, 2, 2);
        end_renames(&r);
        follower_check(f, "while others renamed");
        follower_free(f);
}
END_TEST

static void expect_file(struct follower *f, const char *end) {
        const struct kev_event *event;
        const char *path;

        do {
                ck_assert_msg(follower_take(f, HARNESS_REPLY_MSEC, &event), "%s is not told", end);
                path = kev_event_path(event);
        } while (strlen(path) < strlen(end) || strcmp(path + strlen(path) - strlen(end), end) != 0);
}

/* The same within the tree: each is told. */
START_TEST(test_inside_is_renamed) {
        enum { FILES = 10 }; /* there is a bound to the names that are remembered */
        const char *root = make_root("w");
        struct restless r = make_restless(root);
        struct follower *f = follower_new_with(kevd, new_tree_watch(root, KEV_NOTE_CREATE), root, REPLAY_STRICT);

        begin_renames(&r);
        for (int i = 0; i < FILES; i++)
                make_file_in(&r, i);
        end_renames(&r);
        for (int i = 0; i < FILES; i++)
                expect_file(f, at("/%d/file", i));
        follower_free(f);
}
END_TEST

/* With one end out of sight; the order of the arguments is that of the kernel's events. */
START_TEST(test_exchanged_with_outside) {
        const char *root = make_root("w"), *outside = make_root("outside"), *in, *out;
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);

        in = at("%s/in", root);
        out = at("%s/out", outside);
        make_dir(in);
        make_tree(in, 2, 2);
        if (_i % 2)
                make_file(out);
        else {
                make_dir(out);
                make_tree(out, 3, 1);
        }
        follower_check(f, "before");
        for (int round = 0; round < 4; round++) {
                if (_i / 2)
                        exchange(in, out);
                else
                        exchange(out, in);
                follower_check(f, at("exchanged, round %d", round));
                if (_i % 2 == 0 || round % 2)
                        touch_tree(in, 2, 1, at("later%d", round));
                follower_check(f, at("later, round %d", round));
        }
        follower_free(f);
}
END_TEST

START_TEST(test_moved_out) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char out[PATH_MAX];

        (void)snprintf(out, sizeof(out), "%s/out", outside);
        make_dir(at("%s/tree", root));
        make_tree(at("%s/tree", root), 4, 3);
        follower_check(f, "before");
        move(at("%s/tree", root), out);
        expect(f, at("%s/tree", root), KEV_NOTE_MOVEDOUT);
        touch_tree(out, 4, 3, "later");
        run(out, "rm -r d0; mkdir -p d1/new; touch d1/new/file");
        ck_assert(!follower_take(f, 0, NULL));
        follower_check(f, "moved out");
        follower_free(f);
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* What is done to it outside before the daemon can know is none of the client's business. */
START_TEST(test_moved_out_and_touched) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        for (int i = 0; i < n_rounds(); i++) {
                char name[32];
                const struct kev_event *event;

                (void)snprintf(name, sizeof(name), "d%d", i);
                make_dir(at("%s/%s", root, name));
                follower_drain(f);
                move(at("%s/%s", root, name), at("%s/%s", outside, name));
                make_file(at("%s/%s/secret", outside, name));
                while (follower_take(f, 0, &event))
                        ck_assert_msg(!strstr(kev_event_path(event), "secret"), "round %d: %s", i,
                                      kev_event_json(event));
                follower_check(f, at("round %d", i));
        }
        follower_free(f);
}
END_TEST

/* Out, and in again at once, before what was known of it is given up. */
START_TEST(test_moved_out_and_in) {
        const char *root = make_root("w"), *outside = make_root("outside");

        for (int i = 0; i < harness_rounds(20); i++) {
                struct follower *f;
                char watched[PATH_MAX];

                (void)snprintf(watched, sizeof(watched), "%s/r%d", root, i);
                make_dir(watched);
                f = follower_new(kevd, watched, REPLAY_AT_REST);
                make_dir(at("%s/tree", watched));
                make_dir(at("%s/other", watched));
                make_tree(at("%s/tree", watched), 5, 4);
                follower_check(f, at("round %d, before", i));
                move(at("%s/tree", watched), at("%s/tree%d", outside, i));
                move(at("%s/tree%d", outside, i), at("%s/%s", watched, i % 2 ? "tree" : "other/tree"));
                follower_check(f, at("round %d, out and in", i));
                check_registrations(f, at("round %d", i));
                touch_tree(at("%s/%s", watched, i % 2 ? "tree" : "other/tree"), 5, 4, "later");
                follower_check(f, at("round %d, later", i));
                follower_free(f);
        }
}
END_TEST

/* Into a directory that was made a moment ago, and may not be watched yet. */
START_TEST(test_moved_into_new) {
        const char *root = make_root("w");

        for (int i = 0; i < n_rounds(); i++) {
                struct follower *f;
                char watched[PATH_MAX];

                (void)snprintf(watched, sizeof(watched), "%s/r%d", root, i);
                make_dir(watched);
                f = follower_new(kevd, watched, REPLAY_AT_REST);
                make_dir(at("%s/tree", watched));
                make_tree(at("%s/tree", watched), 4, 3);
                make_file(at("%s/file", watched));
                follower_check(f, at("round %d, before", i));
                make_dir(at("%s/new", watched));
                move(at("%s/tree", watched), at("%s/new/tree", watched));
                move(at("%s/file", watched), at("%s/new/file", watched));
                follower_check(f, at("round %d", i));
                check_registrations(f, at("round %d", i));
                touch_tree(at("%s/new/tree", watched), 4, 3, "later");
                follower_check(f, at("round %d, later", i));
                follower_free(f);
        }
}
END_TEST

START_TEST(test_moved_between) {
        const char *a = make_root("a"), *b = make_root("b");
        struct follower *at_a = follower_new(kevd, a, REPLAY_AT_REST), *at_b = follower_new(kevd, b, REPLAY_AT_REST);
        const char *from = a, *to = b;

        make_dir(at("%s/tree", a));
        make_tree(at("%s/tree", a), 3, 4);
        for (int i = 0; i < harness_rounds(20); i++) {
                struct follower *source = from == a ? at_a : at_b, *target = from == a ? at_b : at_a;

                follower_check(source, at("move %d, source, before", i));
                follower_check(target, at("move %d, target, before", i));
                move(at("%s/tree", from), at("%s/tree", to));
                ck_assert_uint_eq(see(source, at("%s/tree", from)).notes, KEV_NOTE_MOVEDOUT);
                ck_assert_uint_eq(see(target, at("%s/tree", to)).notes, KEV_NOTE_MOVEDIN);
                check_registrations(source, at("move %d", i));
                follower_check(source, at("move %d, source", i));
                follower_check(target, at("move %d, target", i));
                touch_tree(at("%s/tree", to), 3, 4, at("later%d", i));
                ck_assert(!follower_take(source, 0, NULL));
                follower_check(target, at("move %d, target, later", i));
                from = to;
                to = from == a ? b : a;
        }
        follower_free(at_a);
        follower_free(at_b);
}
END_TEST

/* Two renames, one after the other, are no exchange: nothing has to be read again for them. */
START_TEST(test_renamed_and_back) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        make_dir(at("%s/d", root));
        make_tree(at("%s/d", root), 2, 2);
        make_file(at("%s/file", root));
        for (int i = 0; i < harness_rounds(10); i++) {
                move(at("%s/d", root), at("%s/e", root));
                move(at("%s/file", root), at("%s/e/file%d", root, i));
                follower_check(f, "renamed");
                make_file(at("%s/between%d", root, i));
                follower_check(f, "between");
                move(at("%s/e/file%d", root, i), at("%s/file", root));
                move(at("%s/e", root), at("%s/d", root));
                follower_check(f, "renamed back");
        }
        follower_free(f);
}
END_TEST

/* Nor are an arrival, a departure and another arrival, seen together. */
START_TEST(test_in_and_out) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        for (int i = 0; i < harness_rounds(10); i++) {
                make_file(at("%s/one%d", outside, i));
                make_dir(at("%s/two%d", outside, i));
                make_tree(at("%s/two%d", outside, i), 2, 1);
                assert_system(kill(kevd->pid, SIGSTOP) == 0, "kill");
                move(at("%s/one%d", outside, i), at("%s/in%d", root, i));
                move(at("%s/in%d", root, i), at("%s/out%d", outside, i));
                move(at("%s/two%d", outside, i), at("%s/in%d", root, i));
                assert_system(kill(kevd->pid, SIGCONT) == 0, "kill");
                follower_check(f, "another is there");
                touch_tree(at("%s/in%d", root, i), 2, 1, "later");
                follower_check(f, "later");
        }
        follower_free(f);
}
END_TEST

/* ---- exchanges ------------------------------------------------------------------------------- */

START_TEST(test_exchange) {
        static const char *const pairs[][2] = {
                { "file", "dir" },        { "dir", "file" },       { "dir", "other" },
                { "dir/d0", "other/d1" }, { "dir", "other/d0" },   { "file", "dir/file" },
        };
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);

        harness_label(at("%s and %s", pairs[_i][0], pairs[_i][1]));
        make_file(at("%s/file", root));
        make_dir(at("%s/dir", root));
        make_dir(at("%s/other", root));
        make_tree(at("%s/dir", root), 2, 2);
        make_tree(at("%s/other", root), 3, 1);
        follower_check(f, "before");
        for (int i = 0; i < harness_rounds(10); i++) {
                exchange(at("%s/%s", root, pairs[_i][0]), at("%s/%s", root, pairs[_i][1]));
                follower_check(f, at("exchange %d", i));
                check_registrations(f, at("exchange %d", i));
                run(root, at("for d in $(find . -type d); do touch $d/later%d; done", i));
                follower_check(f, at("exchange %d, later", i));
        }
        follower_free(f);
}
END_TEST

/* An exchange, and what has happened before the daemon came to look. A deputy is not stopped: it sees them come. */
START_TEST(test_exchanged_and_moved_on) {
        static const struct step {
                const char *from, *to; /* NULL: it is removed */
        } steps[][4] = {
                { { "q/two", "out/two" } },
                { { "q/two", NULL } },
                { { "q/two", "r/three" } },
                { { "q", "out/q" } },
                { { "q", NULL } },
                { { "q/two", "out/two" }, { "p/other", "q/two" } },
                { { "p/one", "r/three" }, { "q/two", "out/two" } },
                { { "p/one", "r/three" }, { "q/two", NULL } },
                { { "p/one", "r/three" }, { "q", "out/q" } },
                { { "p", "s" }, { "q/two", "out/two" } },
                { { "p", "s" }, { "s/one", "r/three" }, { "q", "out/q" } },
                { { "q", "t" }, { "t/two", "out/two" } },
                { { "q", "t" }, { "p/one", "t/one" }, { "t", "out/t" } },
                { { "q", "t" }, { "t/two", "r/three" }, { "p/one", "out/one" } },
        };
        const char *root = make_root("w"), *outside = make_root("outside");
        const struct step *step = steps[_i];
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);

        harness_label(at("%d: %s to %s", _i, step->from, step->to ? step->to : "nowhere"));
        for (const char *name = "pqr"; *name; name++)
                make_dir(at("%s/%c", root, *name));
        make_dir(at("%s/p/one", root));
        make_dir(at("%s/p/other", root));
        make_dir(at("%s/q/two", root));
        make_tree(at("%s/p/one", root), 2, 2);
        make_tree(at("%s/q/two", root), 3, 1);
        follower_check(f, "before");
        assert_system(kill(kevd->pid, SIGSTOP) == 0, "kill");
        exchange(at("%s/p/one", root), at("%s/q/two", root));
        for (; step->from; step++)
                if (!step->to)
                        run(root, at("rm -r %s", step->from));
                else if (strncmp(step->to, "out/", 4) == 0)
                        move(at("%s/%s", root, step->from), at("%s/%s", outside, step->to + 4));
                else
                        move(at("%s/%s", root, step->from), at("%s/%s", root, step->to));
        assert_system(kill(kevd->pid, SIGCONT) == 0, "kill");
        follower_check(f, "moved on");
        check_registrations(f, "moved on");
        run(harness_tempdir(), "for d in $(find w outside -type d); do touch $d/later; done");
        follower_check(f, "later");
        follower_free(f);
}
END_TEST

/* What others do in other directories comes between the kernel's events of one exchange. */
static void write_between(const char *root, int writer) {
        char a[PATH_MAX], b[PATH_MAX];

        (void)snprintf(a, sizeof(a), "%s/between%d/a", root, writer);
        (void)snprintf(b, sizeof(b), "%s/between%d/b", root, writer);
        for (;;) {
                make_file(a);
                move(a, b);
                remove_file(b);
        }
}

START_TEST(test_exchanged_while_others_write) {
        const int pairs = harness_rounds(1000);
        const char *root = make_root("w"), *outside = make_root("outside"), *there = at("%s/there", root);
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        pid_t exchanger, others[2];

        harness_label(_i == 0 ? "within" : "with outside");
        if (_i == 0)
                make_dir(there);
        else
                there = outside;
        make_dir(at("%s/here", root));
        for (int i = 0; i < pairs; i++) {
                make_dir(at("%s/here/%d", root, i));
                make_dir(at("%s/here/%d/a", root, i));
                make_dir(at("%s/%d", there, i));
                make_dir(at("%s/%d/b", there, i));
        }
        follower_check(f, "before");
        for (int i = 0; i < 2; i++) {
                make_dir(at("%s/between%d", root, i));
                others[i] = fork_writer();
                if (others[i] == 0)
                        write_between(root, i);
        }
        exchanger = fork_writer();
        if (exchanger == 0) {
                for (int i = 0; i < pairs; i++)
                        exchange(at("%s/%d/b", there, i), at("%s/here/%d/a", root, i));
                _exit(0);
        }
        follow_writers(f, &exchanger, 1);
        for (int i = 0; i < 2; i++)
                end_process(others[i]);
        follower_check(f, "exchanged");
        for (int i = 0; i < pairs; i++) {
                make_file(at("%s/here/%d/a/later", root, i));
                make_file(at("%s/%d/b/later", there, i));
        }
        follower_check(f, "later");
        follower_free(f);
}
END_TEST

/* ---- several at once ------------------------------------------------------------------------- */

/* Renames within and across directories; no name is ever used twice. */
static void write_renames(const char *root, int writer) {
        char from[PATH_MAX], to[PATH_MAX];

        for (int i = 0; i < harness_rounds(1000); i++) {
                (void)snprintf(from, sizeof(from), "%s/d%d/f%d-%d", root, (writer + i) % 4, writer, i);
                make_file(from);
                (void)snprintf(to, sizeof(to), "%s/d%d/t%d-%d", root, i % 4, writer, i);
                move(from, to);
                if (i % 4 == 0)
                        remove_file(to);
                if (i % 16 == 1) {
                        make_dir(at("%s/d%d/dir%d-%d", root, i % 4, writer, i));
                        make_file(at("%s/d%d/dir%d-%d/file", root, i % 4, writer, i));
                        move(at("%s/d%d/dir%d-%d", root, i % 4, writer, i),
                             at("%s/d%d/DIR%d-%d", root, (i + 1) % 4, writer, i));
                }
        }
}

START_TEST(test_parallel_renames) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        pid_t pids[4];

        for (int i = 0; i < 4; i++)
                make_dir(at("%s/d%d", root, i));
        for (int i = 0; i < 4; i++) {
                pids[i] = fork_writer();
                if (pids[i] == 0) {
                        write_renames(root, i);
                        _exit(0);
                }
        }
        follow_writers(f, pids, 4);
        follower_check(f, "renames by four");
        ck_assert_uint_eq(replay_n_rescans(f->replay), 0);
        follower_free(f);
}
END_TEST

/* Fills a directory by a descriptor, wherever it is just now. */
static void fill(int fd, int n) {
        for (int i = 0; i < n; i++) {
                char name[32];
                int file, below;

                (void)snprintf(name, sizeof(name), "d%d", i);
                assert_system(mkdirat(fd, name, 0755) == 0, name);
                below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                assert_system(below >= 0, name);
                file = openat(below, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
                assert_system(file >= 0, name);
                (void)close(file);
                assert_system(mkdirat(below, "below", 0755) == 0, name);
                file = openat(below, "below/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
                assert_system(file >= 0, name);
                (void)close(file);
                (void)close(below);
        }
}

START_TEST(test_renamed_while_filled) {
        for (int i = 0; i < n_rounds(); i++) {
                char root[PATH_MAX];
                struct follower *f;
                pid_t pids[2];
                int fd;

                (void)snprintf(root, sizeof(root), "%s/r%d", harness_tempdir(), i);
                make_dir(root);
                f = follower_new(kevd, root, REPLAY_AT_REST);
                make_dir(at("%s/a0", root));
                fd = open(at("%s/a0", root), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                assert_system(fd >= 0, root);
                pids[0] = fork_writer();
                if (pids[0] == 0) {
                        fill(fd, 50);
                        _exit(0);
                }
                pids[1] = fork_writer();
                if (pids[1] == 0) {
                        for (int k = 0; k < 50; k++)
                                move(at("%s/a%d", root, k), at("%s/a%d", root, k + 1));
                        _exit(0);
                }
                (void)close(fd);
                follow_writers(f, pids, 2);
                follower_check(f, at("round %d", i));
                touch_tree(at("%s/a50", root), 50, 1, "later");
                follower_check(f, at("round %d, later", i));
                follower_free(f);
        }
}
END_TEST

/* The same by one writer: a directory is made in one that is renamed at once. */
START_TEST(test_made_and_renamed) {
        for (int i = 0; i < n_rounds(); i++) {
                char root[PATH_MAX];
                struct follower *f;

                (void)snprintf(root, sizeof(root), "%s/r%d", harness_tempdir(), i);
                make_dir(root);
                f = follower_new(kevd, root, REPLAY_STRICT);
                make_dir(at("%s/a0", root));
                follower_check(f, "the beginning");
                for (int k = 0; k < 20; k++) {
                        make_dir(at("%s/a%d/d%d", root, k, k));
                        make_file(at("%s/a%d/d%d/file", root, k, k));
                        move(at("%s/a%d", root, k), at("%s/a%d", root, k + 1));
                }
                follower_check(f, at("round %d", i));
                for (int k = 0; k < 20; k++)
                        make_file(at("%s/a20/d%d/later", root, k));
                follower_check(f, at("round %d, later", i));
                follower_free(f);
        }
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("tree-moves");
        TCase *c = make_tree_case(suite, "moves", 120);

        tcase_add_test(c, test_moved_in);
        tcase_add_test(c, test_moved_in_meanwhile);
        tcase_add_test(c, test_moved_out);
        tcase_add_test(c, test_moved_out_and_touched);
        tcase_add_test(c, test_moved_out_and_in);
        tcase_add_test(c, test_moved_into_new);
        tcase_add_test(c, test_moved_between);
        tcase_add_test(c, test_renamed_and_back);
        tcase_add_test(c, test_in_and_out);
        tcase_add_loop_test(c, test_exchange, 0, 6);
        tcase_add_loop_test(c, test_exchanged_with_outside, 0, 4);
        tcase_add_loop_test(c, test_exchanged_and_moved_on, 0, 14);
        tcase_add_loop_test(c, test_exchanged_while_others_write, 0, 2);
        tcase_add_test(c, test_parallel_renames);
        tcase_add_test(c, test_renamed_while_filled);
        tcase_add_test(c, test_made_and_renamed);
        c = make_tree_case(suite, "outside", 120);
        tcase_add_test(c, test_outside_is_renamed);
        tcase_add_test(c, test_inside_is_renamed);
        return harness_main(argc, argv);
}
