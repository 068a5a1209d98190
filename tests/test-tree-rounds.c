/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on the real daemon, while programs do in a directory what they do, over and over: nothing is lost, and
 * nothing is told twice.
 */

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "replay.h"
#include "trees.h"

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
                        follow_writers(f, &pid, 1);
                follower_check(f, at("%s, round %d", r->name, i));
                replay_check_sane(f->replay, at("%s, round %d", r->name, i));
                follower_free(f);
        }
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_tree_case(harness_suite("tree-rounds"), "rounds", ROUNDS_SECONDS);

        tcase_add_loop_test(c, test_round, 0, ARRAY_SIZE(rounds));
        return harness_main(argc, argv);
}
