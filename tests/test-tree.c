/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on the real daemon: whatever is done in a directory, replaying its events on an empty
 * model gives what is on the disk. A Wait with a timeout of 0 is the barrier throughout, so nothing
 * here waits for a time to pass.
 */

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"

enum {
        ROUNDS = 100,
        ROUNDS_SECONDS = 300,
        NOBODY = 65534,
};

static struct daemon *kevd;

static void start(void) {
        kevd = daemon_start(NULL);
}

static void stop(void) {
        daemon_stop(kevd);
}

/* The same is done with both mechanisms, and with the second not as often. */
static int n_rounds(void) {
        return harness_rounds(daemon_is_on_fanotify() ? ROUNDS / 5 : ROUNDS);
}

/* ---- what is done to files, and by whom ------------------------------------------------------- */

static void remove_dir(const char *path) {
        assert_system(rmdir(path) == 0, path);
}

/* A file in each directory of what make_tree() made. */
static void touch_tree(const char *path, int width, int depth, const char *name) {
        char child[PATH_MAX];

        make_file(at("%s/%s", path, name));
        for (int i = 0; depth > 0 && i < width; i++) {
                (void)snprintf(child, sizeof(child), "%s/d%d", path, i);
                touch_tree(child, width, depth - 1, name);
        }
}

static void wait_for(pid_t pid) {
        int status;

        assert_system(waitpid(pid, &status, 0) == pid, "waitpid");
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child's status was %d", status);
}

/* Takes events until the children have ended. */
static void follow_children(struct follower *f, pid_t *pids, size_t n) {
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

static pid_t fork_writer(void) {
        pid_t pid = fork();

        assert_system(pid >= 0, "fork");
        return pid;
}

/* ---- what the daemon holds -------------------------------------------------------------------- */

static bool has_no_watches(void *userdata _unused_) {
        return daemon_fdinfo_inotify_watches(kevd->pid) == 0;
}

static void check_released(void) {
        ck_assert_msg(wait_until(has_no_watches, NULL, HARNESS_REPLY_MSEC), "%zu inotify watches are left",
                      daemon_fdinfo_inotify_watches(kevd->pid));
}

/* How many inotify watches the daemon believes that it holds. */
static size_t count_registrations(struct kev *kev) {
        struct json_object *status, *sources, *name, *registrations;
        size_t n = SIZE_MAX;
        char *text;

        ck_assert_int_eq(kev_call(kev, "org.kevd.manager.GetStatus", NULL, &text), 0);
        status = json_tokener_parse(text);
        ck_assert(json_object_object_get_ex(status, "sources", &sources));
        for (size_t i = 0; i < json_object_array_length(sources); i++) {
                struct json_object *source = json_object_array_get_idx(sources, i);

                if (json_object_object_get_ex(source, "name", &name) &&
                    strcmp(json_object_get_string(name), "inotify") == 0 &&
                    json_object_object_get_ex(source, "registrations", &registrations))
                        n = (size_t)json_object_get_int64(registrations);
        }
        json_object_put(status);
        free(text);
        return n;
}

static bool agrees_with_kernel(void *userdata) {
        struct follower *f = userdata;

        return count_registrations(f->kev) == daemon_fdinfo_inotify_watches(kevd->pid);
}

/* A directory that the daemon takes for watched and the kernel doesn't watch is one whose events are lost. */
static void check_registrations(struct follower *f, const char *what) {
        follower_drain(f);
        ck_assert_msg(wait_until(agrees_with_kernel, f, HARNESS_REPLY_MSEC),
                      "%s: the daemon counts %zu inotify watches, the kernel %zu", what, count_registrations(f->kev),
                      daemon_fdinfo_inotify_watches(kevd->pid));
}

/* ---- events one at a time -------------------------------------------------------------------- */

struct seen {
        uint64_t notes; /* or'ed */
        size_t n;
};

/* What is due about one path. */
static struct seen see(struct follower *f, const char *path) {
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

static void expect(struct follower *f, const char *path, uint64_t notes) {
        struct seen seen = see(f, path);
        char words[256] = "";

        for (uint64_t left = seen.notes; left; left &= left - 1)
                (void)snprintf(words + strlen(words), sizeof(words) - strlen(words), " %s",
                               kev_note_name(left & -left));
        if (seen.notes != notes)
                replay_log(f->replay, NULL);
        ck_assert_msg(seen.notes == notes, "%s:%s", path, words);
}

START_TEST(test_file) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char file[PATH_MAX];
        int fd;

        (void)snprintf(file, sizeof(file), "%s/file", root);
        ck_assert(!follower_take(f, 0, NULL));
        make_file(file);
        expect(f, file, KEV_NOTE_CREATE | KEV_NOTE_CLOSEWRITE);
        fd = open(file, O_WRONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert(!follower_take(f, 0, NULL)); /* to open is not in the notes by default */
        ck_assert_int_eq(write(fd, "a", 1), 1);
        expect(f, file, KEV_NOTE_WRITE);
        ck_assert_int_eq(ftruncate(fd, 0), 0);
        expect(f, file, KEV_NOTE_WRITE);
        ck_assert_int_eq(close(fd), 0);
        expect(f, file, KEV_NOTE_CLOSEWRITE);
        ck_assert_int_eq(chmod(file, 0600), 0);
        expect(f, file, KEV_NOTE_ATTRIB);
        move(file, at("%s/other", root));
        expect(f, at("%s/other", root), KEV_NOTE_RENAME);
        remove_file(at("%s/other", root));
        expect(f, at("%s/other", root), KEV_NOTE_DELETE);
        ck_assert(!follower_take(f, 0, NULL));
        follower_check(f, "a file");
        replay_check_sane(f->replay, "sane");
        follower_free(f);
}
END_TEST

START_TEST(test_kinds) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        make_dir(at("%s/dir", root));
        ck_assert_int_eq(symlink("dir", at("%s/link", root)), 0);
        ck_assert_int_eq(mkfifo(at("%s/fifo", root), 0600), 0);
        make_file(at("%s/file", root));
        ck_assert_int_eq(link(at("%s/file", root), at("%s/dir/hard", root)), 0);
        follower_check(f, "files of all kinds");
        replay_check_sane(f->replay, "sane");

        remove_file(at("%s/link", root));
        make_dir(at("%s/link", root));
        make_file(at("%s/link/below", root));
        follower_check(f, "a directory in the place of a link");
        /* Changed by chmod as the directory's entry, and, if it is watched, as itself: told once. */
        ck_assert_int_eq(chmod(at("%s/dir", root), 0700), 0);
        ck_assert_uint_eq(see(f, at("%s/dir", root)).n, 1);
        ck_assert_int_eq(chmod(root, 0711), 0);
        expect(f, root, KEV_NOTE_ATTRIB);
        follower_free(f);
}
END_TEST

/* Only the notes that were asked for. */
START_TEST(test_notes) {
        const char *root = make_root("w");
        struct kev_watch *watch;
        struct kev *kev;
        const struct kev_event *event;

        ck_assert_int_eq(kev_open(kevd->socket, &kev), 0);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, root), 0);
        ck_assert_int_eq(kev_watch_set_notes(watch, KEV_NOTE_CLOSEWRITE), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
        kev_watch_free(watch);
        make_dir(at("%s/d", root));
        append(at("%s/d/file", root), "text");
        append(at("%s/file", root), "text");
        remove_file(at("%s/file", root));
        ck_assert_int_eq(kev_wait(kev, 0, &event), 1);
        ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_CLOSEWRITE);
        while (kev_wait(kev, 0, &event) == 1)
                ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_CLOSEWRITE);
        kev_close(kev);
}
END_TEST

/* ---- rounds: each in a directory of its own -------------------------------------------------- */

/* 100 directories in each other, each with a file that is made at once. */
static void do_nested(const char *root, int round) {
        char path[PATH_MAX];
        int size = snprintf(path, sizeof(path), "%s", root);

        for (int i = 0; i < 100; i++) {
                size += snprintf(path + size, sizeof(path) - (size_t)size, "/d%d", (i + round) % 10);
                make_dir(path);
                make_file(at("%s/file", path));
        }
}

static void do_wide(const char *root, int round _unused_) {
        char path[PATH_MAX];

        for (int i = 0; i < 200; i++) {
                (void)snprintf(path, sizeof(path), "%s/d%d", root, i);
                make_dir(path);
                make_file(at("%s/file", path));
                if (i % 3 == 0) {
                        make_dir(at("%s/below", path));
                        make_file(at("%s/below/file", path));
                }
                if (i % 5 == 0)
                        remove_file(at("%s/file", path));
                if (i % 15 == 0) {
                        remove_file(at("%s/below/file", path));
                        remove_dir(at("%s/below", path));
                        remove_dir(path);
                }
        }
}

/* What the new-directory race is about: everything is over before anybody could look. */
static void do_flicker(const char *root, int round) {
        for (int i = 0; i < 100; i++) {
                make_dir(at("%s/d", root));
                make_file(at("%s/d/file", root));
                if ((i + round) % 2) {
                        make_dir(at("%s/d/e", root));
                        move(at("%s/d/file", root), at("%s/d/e/file", root));
                        remove_file(at("%s/d/e/file", root));
                        remove_dir(at("%s/d/e", root));
                } else
                        remove_file(at("%s/d/file", root));
                if ((i + round) % 7)
                        remove_dir(at("%s/d", root));
                else
                        move(at("%s/d", root), at("%s/kept%d", root, i));
        }
}

static void do_copy(const char *root, int round _unused_) {
        make_dir(at("%s/from", root));
        make_tree(at("%s/from", root), 3, 3);
        run(root, "cp -r from to; cp -r to/d0 from/d1/; mkdir -p a/b/c/d/e/f; touch a/b/c/d/e/f/g a/b/h");
}

static void do_git(const char *root, int round _unused_) {
        run(root, "export HOME=$PWD GIT_CONFIG_NOSYSTEM=1; git init -q .; mkdir -p src/a/b; "
                  "for i in 1 2 3 4 5; do echo $i > src/$i; echo $i > src/a/b/$i; done; git add .; "
                  "git -c user.name=n -c user.email=e commit -q -m first; git mv src/a src/c; rm src/1; "
                  "git -c user.name=n -c user.email=e commit -q -a -m second; git gc -q");
}

static void do_move(const char *root, int round _unused_) {
        make_dir(at("%s/a", root));
        make_tree(at("%s/a", root), 2, 4);
        move(at("%s/a", root), at("%s/b", root));
        touch_tree(at("%s/b", root), 2, 4, "later");
        move(at("%s/b/d0", root), at("%s/c", root));
        move(at("%s/b/d1/d0", root), at("%s/c/d1/moved", root));
        touch_tree(at("%s/c/d1/moved", root), 2, 2, "still");
        make_dir(at("%s/new", root));
        move(at("%s/c", root), at("%s/new/c", root));
        touch_tree(at("%s/new/c/d0", root), 2, 2, "again");
}

static void do_remove(const char *root, int round _unused_) {
        make_dir(at("%s/a", root));
        make_tree(at("%s/a", root), 3, 3);
        run(root, "rm -r a/d1; mv a/d0 c; rm -r a; mkdir a; touch a/x; rm -r c/d2; mv a c/a");
}

static const struct round {
        const char *name;
        void (*run)(const char *root, int round);
        const char *program; /* that it needs */
} rounds[] = {
        { "nested", do_nested, NULL }, { "wide", do_wide, NULL },     { "flicker", do_flicker, NULL },
        { "copy", do_copy, NULL },     { "git", do_git, "git" },      { "move", do_move, NULL },
        { "remove", do_remove, NULL },
};

static bool has_program(const char *name) {
        char command[64];

        (void)snprintf(command, sizeof(command), "command -v %s >/dev/null 2>&1", name);
        return system(command) == 0;
}

/* Half of the rounds read while it happens, the other half after it. */
START_TEST(test_round) {
        const struct round *r = &rounds[_i];

        harness_label(r->name);
        if (r->program && !has_program(r->program)) {
                daemon_stop(kevd);
                harness_skip("the program is missing");
        }
        for (int i = 0; i < n_rounds(); i++) {
                char root[PATH_MAX];
                struct follower *f;
                pid_t pid = 0;

                (void)snprintf(root, sizeof(root), "%s/r%d", harness_tempdir(), i);
                make_dir(root);
                f = follower_new(kevd, root, REPLAY_STRICT);
                if (i % 2)
                        pid = fork_writer();
                if (pid == 0)
                        r->run(root, i);
                if (i % 2 && pid == 0)
                        _exit(0);
                if (i % 2)
                        follow_children(f, &pid, 1);
                follower_check(f, at("%s, round %d", r->name, i));
                replay_check_sane(f->replay, at("%s, round %d", r->name, i));
                follower_free(f);
        }
}
END_TEST

/* ---- several at once ------------------------------------------------------------------------- */

/* Renames within and across directories; no name is ever used twice. */
static void write_renames(const char *root, int writer) {
        char from[PATH_MAX], to[PATH_MAX];

        for (int i = 0; i < 1000; i++) {
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
        follow_children(f, pids, 4);
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
                follow_children(f, pids, 2);
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
        check_released();
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

        for (int i = 0; i < 20; i++) {
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
        for (int i = 0; i < 20; i++) {
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
        for (int i = 0; i < 10; i++) {
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

/* ---- exchanges ------------------------------------------------------------------------------- */

START_TEST(test_exchange) {
        static const char *const pairs[][2] = {
                { "file", "dir" }, { "dir", "file" }, { "dir", "other" }, { "dir/d0", "other/d1" }, { "dir", "other/d0" },
                { "file", "dir/file" },
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
        for (int i = 0; i < 10; i++) {
                exchange(at("%s/%s", root, pairs[_i][0]), at("%s/%s", root, pairs[_i][1]));
                follower_check(f, at("exchange %d", i));
                check_registrations(f, at("exchange %d", i));
                run(root, at("for d in $(find . -type d); do touch $d/later%d; done", i));
                follower_check(f, at("exchange %d, later", i));
        }
        follower_free(f);
}
END_TEST

/* ---- the watched directory itself ------------------------------------------------------------ */

static void expect_gone(struct follower *f, const char *what) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;

        while (!f->ended && now_msec() < deadline)
                (void)follower_take(f, 100, NULL);
        ck_assert_msg(f->ended, "%s: no `gone`", what);
        ck_assert_uint_eq(f->notes & KEV_NOTE_GONE, KEV_NOTE_GONE);
        ck_assert(!follower_take(f, 0, NULL));
}

START_TEST(test_root_deleted) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        make_tree(root, 3, 2);
        follower_check(f, "before");
        run("/", at("rm -r %s", root));
        expect_gone(f, "deleted");
        follower_check(f, "deleted");
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(kevd->pid), 0);
        /* The watch can be removed, and another made in its place. */
        ck_assert_int_eq(kev_remove(f->kev, f->id), 0);
        follower_free(f);
        make_dir(root);
        f = follower_new(kevd, root, REPLAY_STRICT);
        make_file(at("%s/file", root));
        follower_check(f, "made again");
        follower_free(f);
}
END_TEST

/* Some process has it as its current directory, say. */
START_TEST(test_root_deleted_while_open) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        remove_dir(root);
        (void)close(fd); /* the kernel tells no earlier */
        expect_gone(f, "closed");
        follower_free(f);
}
END_TEST

START_TEST(test_root_moved) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char moved[PATH_MAX];

        (void)snprintf(moved, sizeof(moved), "%s/moved", harness_tempdir());
        make_tree(root, 3, 2);
        follower_check(f, "before");
        move(root, moved);
        expect_gone(f, "moved");
        touch_tree(moved, 3, 2, "later");
        ck_assert(!follower_take(f, 0, NULL));
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(kevd->pid), 0);
        follower_free(f);
}
END_TEST

/* A directory further up gets another name: the watch goes on, or says that it ends. */
START_TEST(test_ancestor_moved) {
        const char *above = make_root("above");
        char root[PATH_MAX], moved[PATH_MAX];
        struct follower *f;

        (void)snprintf(root, sizeof(root), "%s/w", above);
        (void)snprintf(moved, sizeof(moved), "%s/moved", harness_tempdir());
        make_dir(root);
        f = follower_new(kevd, root, REPLAY_STRICT);
        move(above, moved);
        make_dir(at("%s/w/d", moved));
        make_file(at("%s/w/d/file", moved));
        follower_drain(f);
        if (!f->ended) {
                make_file(at("%s/w/d/later", moved));
                ck_assert_msg(see(f, at("%s/d/later", root)).notes & KEV_NOTE_CREATE,
                              "neither `gone` nor what happened in a new directory");
        }
        follower_free(f);
}
END_TEST

/* ---- several watches ------------------------------------------------------------------------- */

static bool holds_no_watch(void *userdata) {
        (void)userdata;
        return daemon_fdinfo_inotify_watches(kevd->pid) == 0;
}

START_TEST(test_nested_watches) {
        const char *outer = make_root("a"), *outside = make_root("outside");
        char inner[PATH_MAX];
        struct follower *of_outer, *of_inner;

        (void)snprintf(inner, sizeof(inner), "%s/b", outer);
        harness_label(_i == 0 ? "the outer ends" : "the inner ends");
        of_outer = follower_new(kevd, outer, REPLAY_STRICT);
        make_dir(inner);
        of_inner = follower_new(kevd, inner, REPLAY_STRICT);
        make_tree(inner, 3, 3);
        make_dir(at("%s/c", outer));
        make_tree(at("%s/c", outer), 2, 2);
        follower_check(of_outer, "outer");
        follower_check(of_inner, "inner");

        /* Within the outer, into the inner: a rename to one, new to the other. */
        move(at("%s/c/d0", outer), at("%s/in", inner));
        follower_check(of_outer, "outer, moved");
        follower_check(of_inner, "inner, moved");
        move(at("%s/d1", inner), at("%s/c/out", outer));
        follower_check(of_outer, "outer, moved back");
        follower_check(of_inner, "inner, moved back");

        follower_free(_i == 0 ? of_outer : of_inner);
        touch_tree(at("%s/d2", inner), 3, 2, "later");
        touch_tree(at("%s/in", inner), 2, 1, "later");
        make_dir(at("%s/d2/new", inner));
        make_file(at("%s/d2/new/file", inner));
        move(at("%s/d2", inner), at("%s/gone", outside));
        if (_i == 0) {
                follower_check(of_inner, "inner, alone");
                move(at("%s/c/out", outer), at("%s/back", inner));
                touch_tree(at("%s/back", inner), 3, 2, "back");
                follower_check(of_inner, "inner, moved in from what was once watched");
        } else
                follower_check(of_outer, "outer, alone");
        follower_free(_i == 0 ? of_inner : of_outer);
        ck_assert_msg(wait_until(holds_no_watch, NULL, HARNESS_REPLY_MSEC), "%zu inotify watches are left",
                      daemon_fdinfo_inotify_watches(kevd->pid));
}
END_TEST

/* Moving the inner watch's directory ends that watch alone. */
START_TEST(test_nested_root_moved) {
        const char *outer = make_root("a");
        char inner[PATH_MAX];
        struct follower *of_outer = follower_new(kevd, outer, REPLAY_STRICT), *of_inner;

        (void)snprintf(inner, sizeof(inner), "%s/b", outer);
        make_dir(inner);
        of_inner = follower_new(kevd, inner, REPLAY_STRICT);
        make_tree(inner, 2, 2);
        move(inner, at("%s/c", outer));
        touch_tree(at("%s/c", outer), 2, 2, "later");
        expect_gone(of_inner, "inner");
        follower_check(of_outer, "outer");
        make_dir(inner);
        make_file(at("%s/file", inner));
        follower_check(of_outer, "outer, made again");
        ck_assert(!follower_take(of_inner, 0, NULL));
        follower_free(of_inner);
        touch_tree(at("%s/c", outer), 2, 2, "last");
        follower_check(of_outer, "outer, alone");
        follower_free(of_outer);
}
END_TEST

static size_t count_inotify_instances(pid_t pid) {
        char path[64], link[64];
        size_t n = 0;

        for (int fd = 0; fd < 1024; fd++) {
                ssize_t size;

                (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
                size = readlink(path, link, sizeof(link));
                n += size == (ssize_t)strlen("anon_inode:inotify") && memcmp(link, "anon_inode:inotify", (size_t)size) == 0;
        }
        return n;
}

START_TEST(test_shared) {
        const char *root = make_root("w");
        struct follower *f[3];

        for (size_t i = 0; i < ARRAY_SIZE(f); i++)
                f[i] = follower_new(kevd, root, REPLAY_STRICT);
        for (int i = 0; i < 999; i++)
                make_dir(at("%s/d%d", root, i));
        for (size_t i = 0; i < ARRAY_SIZE(f); i++)
                follower_check(f[i], "made");
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(kevd->pid), on_inotify(1000));
        ck_assert_uint_eq(count_inotify_instances(kevd->pid), 1);
        for (int i = 0; i < 999; i++)
                make_file(at("%s/d%d/file", root, i));
        for (size_t i = 0; i < ARRAY_SIZE(f); i++) {
                follower_check(f[i], "filled");
                ck_assert_uint_eq(f[i]->n_counted, 999 * 3);
        }
        follower_free(f[0]);
        follower_free(f[1]);
        make_file(at("%s/d7/later", root));
        follower_check(f[2], "alone");
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(kevd->pid), on_inotify(1000));
        follower_free(f[2]);
        check_released();
        ck_assert_uint_eq(count_inotify_instances(kevd->pid), 1);
}
END_TEST

/* Several watches of one connection on one directory. */
START_TEST(test_twice_on_one_connection) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        struct kev_watch *watch;
        const struct kev_event *event;
        int64_t id;
        size_t n[2] = { 0 };

        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, root), 0);
        ck_assert_int_eq(kev_add(f->kev, watch, NULL, NULL, &id), 0);
        kev_watch_free(watch);
        make_dir(at("%s/d", root));
        make_file(at("%s/d/file", root));
        while (kev_wait(f->kev, 0, &event) == 1)
                n[kev_event_id(event) == id]++;
        ck_assert_uint_ge(n[0], 2);
        ck_assert_uint_eq(n[0], n[1]);
        ck_assert_int_eq(kev_remove(f->kev, f->id), 0);
        make_file(at("%s/d/later", root));
        ck_assert_int_eq(kev_wait(f->kev, 0, &event), 1);
        ck_assert_int_eq(kev_event_id(event), id);
        follower_free(f);
}
END_TEST

/* ---- links ----------------------------------------------------------------------------------- */

START_TEST(test_links_not_followed) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f;

        ck_assert_int_eq(symlink(outside, at("%s/before", root)), 0);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        ck_assert_int_eq(symlink(outside, at("%s/after", root)), 0);
        make_dir(at("%s/d", root));
        ck_assert_int_eq(symlink("..", at("%s/d/up", root)), 0);
        follower_drain(f);
        make_dir(at("%s/d", outside));
        make_file(at("%s/file", outside));
        make_file(at("%s/after/through", root));
        ck_assert(!follower_take(f, 0, NULL));
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(kevd->pid), on_inotify(2));
        /* A directory is replaced by a link to where it was moved. */
        make_dir(at("%s/d2", root));
        follower_drain(f);
        move(at("%s/d2", root), at("%s/d2", outside));
        ck_assert_int_eq(symlink(at("%s/d2", outside), at("%s/d2", root)), 0);
        follower_drain(f);
        make_file(at("%s/d2/file", root));
        ck_assert(!follower_take(f, 0, NULL));
        follower_free(f);
}
END_TEST

START_TEST(test_root_by_link) {
        const char *root = make_root("w");
        struct follower *by_link, *f;
        char link_path[PATH_MAX], dotted[PATH_MAX];

        (void)snprintf(link_path, sizeof(link_path), "%s/link", harness_tempdir());
        (void)snprintf(dotted, sizeof(dotted), "%s/./w/../w", harness_tempdir());
        ck_assert_int_eq(symlink("w", link_path), 0);
        by_link = follower_new(kevd, link_path, REPLAY_STRICT); /* fails an event that is not below this path */
        f = follower_new(kevd, dotted, REPLAY_STRICT);
        make_tree(root, 2, 2);
        follower_check(by_link, "by a link");
        follower_check(f, "by dots");
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(kevd->pid), on_inotify(7));
        follower_free(by_link);
        follower_free(f);
}
END_TEST

/* ---- names and paths ------------------------------------------------------------------------- */

START_TEST(test_names) {
        static const char *const names[] = {
                "new\nline", "quote\"quote'", "back\\slash", "\xff\xfe", "caf\xe9", "\xc3\xa9", "\xed\xa0\x80", "\xf0\x9f\x98\x80",
                "\xc0\xaf", "\x01\x1f\x7f", " ", "*", "tab\t", "%s", "-rf", "\xe2\x80\xa8", "a\\u0000", "...",
        };
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char longest[256];

        memset(longest, 0xfe, 255);
        longest[255] = '\0';
        for (size_t i = 0; i <= ARRAY_SIZE(names); i++) {
                const char *name = i < ARRAY_SIZE(names) ? names[i] : longest;
                const struct kev_event *event;
                char path[PATH_MAX];

                (void)snprintf(path, sizeof(path), "%s/%s", root, name);
                make_dir(path);
                ck_assert(follower_take(f, 0, &event));
                ck_assert_str_eq(kev_event_path(event), path);
                make_file(at("%s/%s", path, name));
                follower_check(f, "a strange name");
                move(path, at("%s/x%zu", root, i));
                ck_assert(follower_take(f, 0, &event));
                ck_assert_str_eq(kev_event_from_path(event), path);
                follower_check(f, "a strange name, renamed");
        }
        follower_free(f);
}
END_TEST

START_TEST(test_strange_root) {
        const char *root = make_root("w\xff\n\"");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        make_tree(root, 2, 2);
        follower_check(f, "a root that is not UTF-8");
        follower_free(f);
}
END_TEST

/* Makes directories in each other, each with a file, by descriptors; returns the innermost one's. */
static int make_deep(int fd, const char *name, int depth) {
        fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        for (int i = 0; i < depth; i++) {
                int below, file;

                assert_system(mkdirat(fd, name, 0755) == 0, name);
                below = openat(fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                assert_system(below >= 0, name);
                (void)close(fd);
                fd = below;
                file = openat(fd, "file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
                assert_system(file >= 0, "file");
                (void)close(file);
        }
        return fd;
}

START_TEST(test_deep) {
        static const struct {
                int name_size, depth;
        } cases[] = { { 30, 100 }, { 250, 13 }, { 1, 1000 }, { 200, 40 }, { 250, 120 } };
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char name[256] = "";
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), deep, file;

        harness_label(at("%d times %d bytes", cases[_i].depth, cases[_i].name_size));
        ck_assert_int_ge(fd, 0);
        memset(name, 'n', (size_t)cases[_i].name_size);
        deep = make_deep(fd, name, cases[_i].depth);
        follower_check(f, "deep");
        file = openat(deep, "later", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        ck_assert_int_ge(file, 0);
        (void)close(file);
        ck_assert_int_eq(mkdirat(deep, "new", 0755), 0);
        file = openat(deep, "new/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        ck_assert_int_ge(file, 0);
        (void)close(file);
        follower_check(f, "deep, later");
        (void)close(deep);
        (void)close(fd);
        follower_free(f);
}
END_TEST

/* What was there before the watch is watched too. */
START_TEST(test_deep_before) {
        const char *root = make_root("w");
        int fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC), deep = make_deep(fd, "a name of some length", 300), file;
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        const struct kev_event *event;

        file = openat(deep, "later", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        ck_assert_int_ge(file, 0);
        (void)close(file);
        ck_assert(follower_take(f, 0, &event));
        ck_assert_uint_ne(kev_event_notes(event) & KEV_NOTE_CREATE, 0);
        ck_assert_uint_gt(strlen(kev_event_path(event)), 300 * 22);
        (void)close(deep);
        (void)close(fd);
        follower_free(f);
}
END_TEST

/* ---- what is wanted of a tree ---------------------------------------------------------------- */

static struct follower *follow_with(const char *root, const char *include, const char *exclude, int depth) {
        struct kev_watch *watch;

        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, root), 0);
        if (include)
                ck_assert_int_eq(kev_watch_add_include(watch, include), 0);
        if (exclude)
                ck_assert_int_eq(kev_watch_add_exclude(watch, exclude), 0);
        if (depth > 0)
                ck_assert_int_eq(kev_watch_set_depth(watch, depth), 0);
        return follower_new_with(kevd, watch, root, REPLAY_AT_REST);
}

/* Takes all that is due, and counts what mentions the text in its path. */
static size_t count_about(struct follower *f, const char *text) {
        const struct kev_event *event;
        size_t n = 0;

        while (follower_take(f, 0, &event))
                if (strstr(kev_event_path(event) + strlen(harness_tempdir()), text))
                        n += kev_event_count(event);
        return n;
}

START_TEST(test_include) {
        const char *root = make_root("w");
        struct follower *f = follow_with(root, "**/*.c", NULL, 0);

        make_dir(at("%s/d", root));
        make_file(at("%s/d/a.c", root));
        make_file(at("%s/d/a.h", root));
        make_file(at("%s/b.c", root));
        ck_assert_uint_eq(count_about(f, ".h"), 0);
        move(at("%s/d/a.h", root), at("%s/d/b.c", root));
        ck_assert_uint_gt(count_about(f, "d/b.c"), 0);
        follower_free(f);
}
END_TEST

START_TEST(test_exclude) {
        const char *root = make_root("w");
        struct follower *f = follow_with(root, NULL, "build", 0);

        make_dir(at("%s/build", root));
        make_tree(at("%s/build", root), 2, 2);
        make_file(at("%s/file", root));
        ck_assert_uint_eq(count_about(f, "build"), 0);
        follower_free(f);
}
END_TEST

START_TEST(test_depth) {
        const char *root = make_root("w");
        struct follower *f = follow_with(root, NULL, NULL, 2);

        make_tree(root, 2, 3);
        ck_assert_uint_eq(count_about(f, "/d0/d0/"), 0);
        make_file(at("%s/d1/later", root));
        ck_assert_uint_gt(count_about(f, "/d1/later"), 0);
        make_file(at("%s/d1/d1/later", root));
        ck_assert_uint_eq(count_about(f, "later"), 0);
        follower_free(f);
}
END_TEST

/* A directory changes its name; what is wanted of what is below it changes its path, and that may not go
 * untold. */
START_TEST(test_include_and_renamed_directory) {
        const char *root = make_root("w");
        struct follower *f = follow_with(root, "**/*.c", NULL, 0);

        make_dir(at("%s/d", root));
        make_file(at("%s/d/a.c", root));
        ck_assert_uint_gt(count_about(f, "d/a.c"), 0);
        move(at("%s/d", root), at("%s/e", root));
        ck_assert_msg(count_about(f, "/e") > 0, "nothing is told of what d/a.c is now");
        follower_free(f);
}
END_TEST

START_TEST(test_include_and_directory_moved_out) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follow_with(root, "**/*.c", NULL, 0);

        make_dir(at("%s/d", root));
        make_file(at("%s/d/a.c", root));
        ck_assert_uint_gt(count_about(f, "d/a.c"), 0);
        move(at("%s/d", root), at("%s/d", outside));
        ck_assert_msg(count_about(f, "/d") > 0, "nothing is told of the end of d/a.c");
        follower_free(f);
}
END_TEST

/* From where it was excluded, or too deep, to where it is wanted. */
START_TEST(test_moved_into_sight) {
        const char *root = make_root("w");
        struct follower *f = _i == 0 ? follow_with(root, NULL, "build", 0) : follow_with(root, NULL, NULL, 2);

        harness_label(_i == 0 ? "exclude" : "depth");
        make_dir(at("%s/build", root));
        make_dir(at("%s/build/d", root));
        make_dir(at("%s/build/d/dir", root));
        make_file(at("%s/build/d/dir/file", root));
        ck_assert_uint_eq(count_about(f, "/file"), 0);
        move(at("%s/build/d/dir", root), at("%s/dir", root));
        ck_assert_msg(count_about(f, "/dir/file") > 0 || replay_n_rescans(f->replay) > 0, "nothing is told of dir/file");
        follower_free(f);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------- */

static void expect_refusal(const char *path, int error, const char *field) {
        struct kev_watch *watch;
        struct kev *kev;
        int r;

        ck_assert_int_eq(kev_open(kevd->socket, &kev), 0);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, path), 0);
        r = kev_add(kev, watch, NULL, NULL, NULL);
        ck_assert_msg(r == -error, "%s: %s instead of %s (%s)", path, strerror(-r), strerror(error),
                      kev_error_message(kev));
        ck_assert_msg(strstr(kev_error_message(kev), field), "%s: not named in \"%s\"", field, kev_error_message(kev));
        kev_watch_free(watch);
        kev_close(kev);
}

START_TEST(test_refusals) {
        const char *root = make_root("w");

        make_file(at("%s/file", root));
        ck_assert_int_eq(symlink("loop", at("%s/loop", root)), 0);
        expect_refusal(at("%s/none", root), ENOENT, "path");
        expect_refusal(at("%s/file", root), ENOTDIR, "path");
        expect_refusal(at("%s/file/below", root), ENOTDIR, "path");
        expect_refusal(at("%s/loop", root), ELOOP, "path");
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(kevd->pid), 0);
}
END_TEST

START_TEST(test_relative_path) {
        int fd = client_connect(kevd->socket);
        struct json_object *reply = client_call(fd, "org.kevd.events.Change",
                                                "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"tmp\"},"
                                                "{\"id\":2,\"filter\":\"tree\",\"path\":\"\"},"
                                                "{\"id\":3,\"filter\":\"tree\"}]}");
        const char *text = json_object_to_json_string_ext(reply, JSON_C_TO_STRING_PLAIN);

        for (int i = 1; i <= 3; i++) {
                const char *refusal = strstr(text, at("{\"id\":%d,\"errno\":\"EINVAL\",\"message\":\"path: ", i));

                ck_assert_msg(refusal, "%s", text);
        }
        json_object_put(reply);
        (void)close(fd);
}
END_TEST

/* ---- as another user ------------------------------------------------------------------------- */

/* Runs it in a process of the user nobody, who owns the test's directory. */
static void run_as_nobody(void (*fn)(const char *root)) {
        const char *root;
        pid_t pid;

        if (geteuid() != 0)
                harness_skip("needs root, to become another user");
        if (daemon_is_on_fanotify())
                harness_skip("a daemon without privileges has no fanotify");
        root = make_root("w");
        ck_assert_int_eq(chown(root, NOBODY, NOBODY), 0);
        ck_assert_int_eq(chown(harness_tempdir(), NOBODY, NOBODY), 0);
        pid = fork_writer();
        if (pid == 0) {
                ck_assert_int_eq(setgroups(0, NULL), 0);
                ck_assert_int_eq(setresgid(NOBODY, NOBODY, NOBODY), 0);
                ck_assert_int_eq(setresuid(NOBODY, NOBODY, NOBODY), 0);
                ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 1), 0); /* or the daemon can't tell its namespaces */
                start();
                fn(root);
                stop();
                _exit(0);
        }
        wait_for(pid);
}

static void do_unreadable(const char *root) {
        struct follower *f;

        make_dir(at("%s/closed", root));
        make_dir(at("%s/closed/below", root));
        make_dir(at("%s/open", root));
        ck_assert_int_eq(chmod(at("%s/closed", root), 0), 0);
        expect_refusal(at("%s/closed", root), EACCES, "path");
        expect_refusal(at("%s/closed/below", root), EACCES, "path");
        f = follower_new(kevd, root, REPLAY_AT_REST);
        make_file(at("%s/open/file", root));
        expect(f, at("%s/open/file", root), KEV_NOTE_CREATE | KEV_NOTE_CLOSEWRITE);
        ck_assert_int_eq(mkdir(at("%s/new", root), 0), 0);
        expect(f, at("%s/new", root), KEV_NOTE_CREATE);
        follower_free(f);
}

START_TEST(test_unreadable) {
        run_as_nobody(do_unreadable);
}
END_TEST

/* Becomes readable: from then on it is a part of the tree like any other. */
static void do_readable_again(const char *root) {
        struct follower *f;

        make_dir(at("%s/closed", root));
        ck_assert_int_eq(chmod(at("%s/closed", root), 0), 0);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        ck_assert_int_eq(chmod(at("%s/closed", root), 0755), 0);
        follower_drain(f);
        make_file(at("%s/closed/file", root));
        ck_assert_msg(see(f, at("%s/closed/file", root)).notes & KEV_NOTE_CREATE,
                      "a file in a directory that has become readable is not told");
        follower_free(f);
}

START_TEST(test_readable_again) {
        run_as_nobody(do_readable_again);
}
END_TEST

/* ---- watches that come and go ---------------------------------------------------------------- */

START_TEST(test_removed_while_pending) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT), *other = follower_new(kevd, root, REPLAY_STRICT);
        const struct kev_event *event;

        make_tree(root, 5, 3);
        ck_assert_int_eq(kev_remove(f->kev, f->id), 0);
        ck_assert_int_eq(kev_wait(f->kev, 0, &event), 0);
        follower_check(other, "the other");
        ck_assert_int_eq(kev_remove(f->kev, f->id), -ENOENT);
        follower_free(f);
        follower_free(other);
}
END_TEST

START_TEST(test_made_and_removed) {
        const char *root = make_root("w");
        struct kev_watch *watch;
        struct kev *kev;

        make_tree(root, 3, 2);
        ck_assert_int_eq(kev_open(kevd->socket, &kev), 0);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, root), 0);
        for (int i = 0; i < 1000; i++) {
                const struct kev_event *event;
                int64_t id;

                ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, &id), 0);
                if (i % 10 == 0) {
                        append(at("%s/d0/d1/file", root), "x");
                        ck_assert_int_eq(kev_wait(kev, 0, &event), 1);
                }
                ck_assert_int_eq(kev_remove(kev, id), 0);
        }
        check_released();
        kev_watch_free(watch);
        kev_close(kev);
}
END_TEST

/* One client's watch ends while another's of the same tree is being made. */
START_TEST(test_handed_over) {
        const char *root = make_root("w");
        struct follower *f, *next;

        make_tree(root, 4, 3);
        f = follower_new(kevd, root, REPLAY_AT_REST);
        for (int i = 0; i < n_rounds(); i++) {
                pid_t pid = fork_writer();
                size_t n;

                if (pid == 0) { /* the connection ends while the other is being made */
                        follower_free(f);
                        _exit(0);
                }
                follower_free(f);
                next = follower_new(kevd, root, REPLAY_AT_REST);
                wait_for(pid);
                touch_tree(root, 4, 3, at("later%d", i));
                n = count_about(next, at("later%d", i));
                ck_assert_msg(n == 85 * 2, "round %d: %zu events of 170", i, n);
                f = next;
        }
        follower_free(f);
        check_released();
}
END_TEST

/* ---- at random ------------------------------------------------------------------------------- */

struct random {
        uint64_t state;
};

static unsigned next_random(struct random *r, unsigned below) {
        r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(r->state >> 33) % below;
}

/* A path of a few names out of a few: collisions are what is wanted. */
static void random_path(struct random *r, const char *root, char path[PATH_MAX]) {
        int size = snprintf(path, PATH_MAX, "%s", root);

        for (unsigned depth = 1 + next_random(r, 4); depth > 0; depth--)
                size += snprintf(path + size, (size_t)(PATH_MAX - size), "/%c", 'a' + (int)next_random(r, 5));
}

static void remove_all(const char *path) {
        pid_t pid = fork();

        if (pid == 0) {
                (void)close(STDERR_FILENO); /* it races with the other writer */
                (void)execl("/bin/rm", "rm", "-rf", path, NULL);
                _exit(127);
        }
        (void)waitpid(pid, NULL, 0);
}

/* Whatever can't be done is not done. */
static void do_random(struct random *r, const char *root, const char *outside, bool exchanges) {
        char a[PATH_MAX], b[PATH_MAX];
        int fd;

        random_path(r, root, a);
        random_path(r, next_random(r, 8) == 0 ? outside : root, b);
        switch (next_random(r, 20)) {
        case 0:
        case 1:
        case 2:
        case 3:
                (void)mkdir(a, 0755);
                break;
        case 4:
        case 5:
        case 6:
                fd = open(a, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
                if (fd >= 0) {
                        (void)!write(fd, "x", 1);
                        (void)close(fd);
                }
                break;
        case 7:
        case 8:
                (void)unlink(a);
                break;
        case 9:
                (void)rmdir(a);
                break;
        case 10:
        case 11:
        case 12:
        case 13:
                (void)rename(a, b);
                break;
        case 14:
        case 15:
                (void)rename(b, a);
                break;
        case 16:
                (void)symlink("a", a);
                break;
        case 17:
                (void)link(b, a);
                break;
        case 18:
                if (next_random(r, 20) == 0)
                        remove_all(a);
                else
                        (void)chmod(a, 0755);
                break;
        default:
                if (exchanges)
                        (void)renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE);
                else
                        (void)mkdir(b, 0755);
        }
}

static void random_test(uint64_t seed, int n_operations, bool exchanges) {
        const char *root = make_root("w"), *outside = make_root("outside");
        struct follower *f = follower_new(kevd, root, REPLAY_AT_REST);
        pid_t pids[2];

        for (size_t i = 0; i < ARRAY_SIZE(pids); i++) {
                pids[i] = fork_writer();
                if (pids[i] == 0) {
                        struct random r = { .state = seed * 1000 + i };

                        for (int k = 0; k < n_operations / (int)ARRAY_SIZE(pids); k++)
                                do_random(&r, root, outside, exchanges);
                        _exit(0);
                }
        }
        follow_children(f, pids, ARRAY_SIZE(pids));
        follower_check(f, at("seed %d", (int)seed));
        run(root, "for d in $(find . -type d); do touch $d/later; done");
        follower_check(f, at("seed %d, later", (int)seed));
        follower_free(f);
}

START_TEST(test_random) {
        harness_label(at("seed %d", _i));
        random_test((uint64_t)_i, 20000, false);
}
END_TEST

START_TEST(test_random_with_exchanges) {
        harness_label(at("seed %d", _i));
        random_test((uint64_t)_i, 20000, true);
}
END_TEST

/* ---- the program ----------------------------------------------------------------------------- */

static TCase *make_case(Suite *suite, const char *name, int seconds) {
        TCase *c = harness_case(suite, name);

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, seconds);
        return c;
}

static void add_moves(Suite *suite) {
        TCase *c = make_case(suite, "moves", 120);

        tcase_add_test(c, test_moved_in);
        tcase_add_test(c, test_moved_out);
        tcase_add_test(c, test_moved_out_and_touched);
        tcase_add_test(c, test_moved_out_and_in);
        tcase_add_test(c, test_moved_into_new);
        tcase_add_test(c, test_moved_between);
        tcase_add_test(c, test_renamed_and_back);
        tcase_add_loop_test(c, test_exchange, 0, 6);
        tcase_add_loop_test(c, test_exchanged_with_outside, 0, 4);
        tcase_add_test(c, test_parallel_renames);
        tcase_add_test(c, test_renamed_while_filled);
        tcase_add_test(c, test_made_and_renamed);
}

static void add_roots(Suite *suite) {
        TCase *c = make_case(suite, "roots", 60);

        tcase_add_test(c, test_root_deleted);
        tcase_add_test(c, test_root_deleted_while_open);
        tcase_add_test(c, test_root_moved);
        tcase_add_test(c, test_ancestor_moved);
        tcase_add_test(c, test_links_not_followed);
        tcase_add_test(c, test_root_by_link);
        tcase_add_test(c, test_refusals);
        tcase_add_test(c, test_relative_path);
        c = harness_case(suite, "users"); /* with a daemon of their own */
        tcase_add_test(c, test_unreadable);
        tcase_add_test(c, test_readable_again);
}

static void add_watches(Suite *suite) {
        TCase *c = make_case(suite, "watches", 120);

        tcase_add_loop_test(c, test_nested_watches, 0, 2);
        tcase_add_test(c, test_nested_root_moved);
        tcase_add_test(c, test_shared);
        tcase_add_test(c, test_twice_on_one_connection);
        tcase_add_test(c, test_removed_while_pending);
        tcase_add_test(c, test_made_and_removed);
        tcase_add_test(c, test_handed_over);
}

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("tree");
        TCase *c = make_case(suite, "events", 60);

        tcase_add_test(c, test_file);
        tcase_add_test(c, test_kinds);
        tcase_add_test(c, test_notes);
        c = make_case(suite, "names", 60);
        tcase_add_test(c, test_names);
        tcase_add_test(c, test_strange_root);
        tcase_add_loop_test(c, test_deep, 0, 5);
        tcase_add_test(c, test_deep_before);
        c = make_case(suite, "globs", 60);
        tcase_add_test(c, test_include);
        tcase_add_test(c, test_exclude);
        tcase_add_test(c, test_depth);
        tcase_add_test(c, test_include_and_renamed_directory);
        tcase_add_test(c, test_include_and_directory_moved_out);
        tcase_add_loop_test(c, test_moved_into_sight, 0, 2);
        add_moves(suite);
        add_roots(suite);
        add_watches(suite);
        c = make_case(suite, "rounds", ROUNDS_SECONDS);
        tcase_add_loop_test(c, test_round, 0, ARRAY_SIZE(rounds));
        c = make_case(suite, "random", ROUNDS_SECONDS);
        tcase_add_loop_test(c, test_random, 1, 6);
        tcase_add_loop_test(c, test_random_with_exchanges, 1, 6);
        return harness_main(argc, argv);
}
