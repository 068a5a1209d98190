/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on the real daemon, while two processes do at random what may be done to files, on a few names. With
 * file systems of their own, and for long, is test-random.c.
 */

#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "replay.h"
#include "trees.h"

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

/* Others of the same user and directory, so many that what happens is told to them by and by: crowd.h. */
static int add_crowd(const char *root) {
        enum { OTHERS = 100 };
        int fd = client_connect(kevd->socket);

        for (int i = 0; i < OTHERS; i++)
                client_change(fd, "{\"add\":[{\"id\":%d,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"create\"]}]}",
                              i, root);
        return fd;
}

static void random_test(uint64_t seed, int n_operations, bool exchanges, bool in_crowd) {
        const char *root = make_root("w"), *outside = make_root("outside");
        int others = in_crowd ? add_crowd(root) : -1;
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
        follow_writers(f, pids, ARRAY_SIZE(pids));
        follower_check(f, at("seed %d", (int)seed));
        run(root, "for d in $(find . -type d); do touch $d/later; done");
        follower_check(f, at("seed %d, later", (int)seed));
        follower_free(f);
        (void)safe_close(others);
}

START_TEST(test_random) {
        harness_label(at("seed %d", _i));
        random_test((uint64_t)_i, harness_rounds(20000), false, false);
}
END_TEST

START_TEST(test_random_in_crowd) {
        harness_label(at("seed %d", _i));
        random_test((uint64_t)_i, harness_rounds(20000), true, true);
}
END_TEST

START_TEST(test_random_with_exchanges) {
        harness_label(at("seed %d", _i));
        random_test((uint64_t)_i, harness_rounds(20000), true, false);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_tree_case(harness_suite("tree-random"), "random", ROUNDS_SECONDS);

        tcase_add_loop_test(c, test_random, 1, 6);
        tcase_add_loop_test(c, test_random_with_exchanges, 1, 6);
        tcase_add_loop_test(c, test_random_in_crowd, 1, 4);
        return harness_main(argc, argv);
}
