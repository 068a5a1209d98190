/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Operations at random, by several processes at once, on real file systems and with each mechanism: the events,
 * replayed, must make exactly the tree that is on the disk.
 *
 * A session is a daemon, a watched tree, which begins empty, and a tree beside it, which nobody watches. It goes in
 * rounds: writers are forked, and do what the seed says, on so few names that they get into each other's way all the
 * time; the daemon is stopped now and then, so that the kernel's queue piles up. When they have ended, the model is
 * compared with the disk. Some rounds make a file in each directory then, and compare again: one that is no longer
 * followed shows at once, and not only when something happens in it by chance.
 *
 * What each writer tries is fixed by the seed, how they mix is the scheduler's choice. After a difference the next
 * session begins, with a seed of its own and a new daemon, so that one fault is not counted over and over.
 *
 * In the environment, for long runs (tools/random-files):
 *
 *   KEVD_RANDOM_OPERATIONS   how many for each test; there is no timeout, and progress is shown
 *   KEVD_RANDOM_SEED         of the first session
 *   KEVD_RANDOM_EXCHANGES    set: exchanges of two names (renameat2(2)), and renames to and fro, too
 *   KEVD_RANDOM_LOG          a directory for the daemon's log at level debug, and for all operations and events, of
 *                            each session that differs
 *
 * Mounts are in a mount namespace of the test's own. They end with it, however the test ends.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"
#include "replay.h"

enum {
        SHORT_OPERATIONS = 3000,
        SHORT_SECONDS = 60,
        SESSION_OPERATIONS = 20000, /* the model keeps all events of one */
        POPULATED = 300, /* operations before the first */
        WRITERS_MAX = 3,
        ROUND_MAX = 1 << 15, /* operations */
        NAMES = 5,
        DEPTH_MAX = 6,
        PATH_BYTES = 16,       /* "w/a/b/c/d/e/a" */
        STOP_MAX_MSEC = 20,
        DIFFERENCES_MAX = 20,  /* then the test ends */
        PATIENCE_MSEC = 3000,  /* to tell what comes late from what never comes */
        BARRIER_MSEC = 900,    /* a barrier gives up after a second */
        REST_MSEC = 20000,     /* for all that a round has led to */
        ROUND_SECONDS = 240,   /* then something hangs */
        PROGRESS_MSEC = 10000,
};

struct combination {
        const char *file_system, *mechanism;
};

/* Of two names, and renames that undo each other over and over. inotify tells an exchange as two renames and says
 * nothing of what went where; fanotify merges renames that are the same. Most of this is understood, or found to be
 * in doubt, but not all: it is left out unless it is asked for. */
static bool exchanges;

static const struct combination combinations[] = {
        { "ext4", "fanotify" },  { "ext4", "inotify" },  { "xfs", "fanotify" },   { "xfs", "inotify" },
        { "btrfs", "fanotify" }, { "btrfs", "inotify" }, { "tmpfs", "fanotify" }, { "tmpfs", "inotify" },
        { "overlay", "inotify" },
};

/* ---- chance ---------------------------------------------------------------------------------- */

struct random {
        uint64_t state;
};

static unsigned next_random(struct random *r, unsigned below) {
        r->state = r->state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(r->state >> 33) % below;
}

/* Sequences that have nothing to do with each other, by splitmix64's last step. */
static struct random random_of(uint64_t seed, uint64_t round, uint64_t who) {
        uint64_t x = (seed << 32) + (round << 8) + who;

        x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
        return (struct random){ .state = x ^ (x >> 31) };
}

/* ---- what writers do --------------------------------------------------------------------------- */

/* Paths are relative to the file system's root: "w" is watched, "o" is not. */
struct operation {
        int64_t from_nsec, to_nsec;
        const char *what;
        char a[PATH_BYTES], b[PATH_BYTES];
};

struct writer {
        size_t n;
        struct operation operations[ROUND_MAX];
};

static struct writer *writers; /* shared with the writers */

static int64_t now_nsec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void random_path(struct random *r, char path[PATH_BYTES]) {
        unsigned depth = 1 + next_random(r, 1 + next_random(r, DEPTH_MAX));
        char *p = path;

        *p++ = next_random(r, 5) == 0 ? 'o' : 'w';
        for (; depth > 0; depth--) {
                *p++ = '/';
                *p++ = (char)('a' + next_random(r, NAMES));
        }
        *p = '\0';
}

/* Another name in the same directory. */
static void sibling(struct random *r, const char *path, char other[PATH_BYTES]) {
        memcpy(other, path, PATH_BYTES);
        other[strlen(other) - 1] = (char)('a' + next_random(r, NAMES));
}

static bool write_file(const char *path, int flags) {
        int fd = open(path, O_WRONLY | O_CLOEXEC | O_NONBLOCK | flags, 0644);
        bool done;

        if (fd < 0)
                return false;
        done = write(fd, "text", 4) == 4;
        (void)close(fd);
        return done;
}

static bool make_parents(const char *path) {
        char above[PATH_BYTES];
        bool done = false;

        for (size_t i = 3; i <= strlen(path); i += 2) {
                (void)snprintf(above, sizeof(above), "%.*s", (int)i, path);
                done |= mkdir(above, 0755) == 0;
        }
        return done;
}

static bool remove_all(int at_fd, const char *path) {
        int fd = openat(at_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        DIR *directory = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;

        if (!directory)
                return unlinkat(at_fd, path, 0) == 0;
        while ((entry = readdir(directory)))
                if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                        (void)remove_all(fd, entry->d_name);
        (void)closedir(directory);
        return unlinkat(at_fd, path, AT_REMOVEDIR) == 0;
}

/* A file that has no name at first. */
static bool link_nameless(const char *path) {
        char above[PATH_BYTES], proc[64];
        bool done;
        int fd;

        memcpy(above, path, sizeof(above));
        above[strlen(above) - 2] = '\0';
        fd = open(above, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0644);
        if (fd < 0)
                return false;
        (void)snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
        done = linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0;
        (void)close(fd);
        return done;
}

/* As editors save. */
static bool save(const char *path, const char *meanwhile) {
        if (!write_file(meanwhile, O_CREAT | O_EXCL))
                return false;
        (void)rename(meanwhile, path);
        return true;
}

static bool rename_to_and_fro(const char *from, const char *to) {
        if (rename(from, to) < 0)
                return false;
        (void)rename(to, from);
        return true;
}

/* A file, then a directory of the same name, or the other way round. */
static bool make_two(const char *path, bool file_first) {
        if (file_first ? !write_file(path, O_CREAT | O_EXCL) : mkdir(path, 0755) < 0)
                return false;
        if (file_first) {
                (void)unlink(path);
                (void)mkdir(path, 0755);
        } else {
                (void)rmdir(path);
                (void)write_file(path, O_CREAT);
        }
        return true;
}

/* Tries one of them, and returns its name if it was done, in whole or in part. What can't be done is not: others may
 * have been quicker, and most paths lead nowhere. */
static const char *do_random(struct random *r, char a[PATH_BYTES], char b[PATH_BYTES]) {
        random_path(r, a);
        b[0] = '\0';
        switch (next_random(r, 32)) {
        case 0:
        case 1:
        case 2:
        case 3:
                return write_file(a, O_CREAT) ? "create" : NULL;
        case 4:
                return write_file(a, O_APPEND) ? "write" : NULL;
        case 5:
                return truncate(a, (off_t)next_random(r, 8)) == 0 ? "truncate" : NULL;
        case 6:
        case 7:
        case 8:
                return make_parents(a) ? "mkdir -p" : NULL;
        case 9:
                return mkdir(a, 0755) == 0 ? "mkdir" : NULL;
        case 10:
        case 11:
                return unlink(a) == 0 ? "unlink" : NULL;
        case 12:
                return rmdir(a) == 0 ? "rmdir" : NULL;
        case 13:
        case 14:
        case 15:
        case 16:
        case 17:
                random_path(r, b);
                return rename(a, b) == 0 ? "rename" : NULL;
        case 18:
        case 19:
                sibling(r, a, b);
                return rename(a, b) == 0 ? "rename" : NULL;
        case 20:
        case 21:
                sibling(r, a, b);
                return save(a, b) ? "save" : NULL;
        case 22:
                sibling(r, a, b);
                return symlink(&b[strlen(b) - 1], a) == 0 ? "symlink" : NULL;
        case 23:
        case 24:
                random_path(r, b);
                return link(a, b) == 0 ? "link" : NULL;
        case 25: /* not too much of it */
                return strlen(a) > 4 && remove_all(AT_FDCWD, a) ? "rm -r" : NULL;
        case 26:
                return chmod(a, 0755) == 0 ? "chmod" : NULL;
        case 27:
                random_path(r, b);
                if (!exchanges)
                        return NULL;
                return renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE) == 0 ? "exchange" : NULL;
        case 28:
                return link_nameless(a) ? "link of a nameless file" : NULL;
        case 29:
                return mkfifo(a, 0644) == 0 ? "mkfifo" : NULL;
        case 30:
                random_path(r, b);
                if (!exchanges)
                        return NULL;
                return rename_to_and_fro(a, b) ? "rename to and fro" : NULL;
        default:
                if (next_random(r, 2) == 0)
                        return make_two(a, false) ? "mkdir, rmdir, create" : NULL;
                return make_two(a, true) ? "create, unlink, mkdir" : NULL;
        }
}

/* In a process of its own. */
static void write_at_random(const char *directory, struct random r, struct writer *writer, size_t n)
        __attribute__((noreturn));
static void write_at_random(const char *directory, struct random r, struct writer *writer, size_t n) {
        if (chdir(directory) < 0)
                _exit(1);
        for (size_t tries = 0; writer->n < n && tries < 64 * n; tries++) {
                struct operation *o = &writer->operations[writer->n];

                o->from_nsec = now_nsec();
                o->what = do_random(&r, o->a, o->b);
                o->to_nsec = now_nsec();
                writer->n += o->what != NULL;
                /* So that they take turns even if there is but one processor. */
                if (next_random(&r, 64) == 0)
                        (void)poll(NULL, 0, (int)next_random(&r, 2));
        }
        _exit(0);
}

/* ---- a session ---------------------------------------------------------------------------------- */

struct session {
        const struct combination *combination;
        const char *mount; /* where the file system is */
        uint64_t seed;
        bool keeps_log;
        struct daemon *daemon;
        struct follower *follower;
        size_t n_operations, n_checks;
        int64_t since_nsec;
        FILE *log; /* of all, if that is kept */
        char *events; /* of the round: JSON, one a line, with the time it came */
        size_t events_size;
        FILE *events_file;
};

/* Of all sessions of a test. */
struct totals {
        size_t n_operations, n_rescans, n_checks, n_differences;
        uint64_t n_events;
};

static const char *environment(const char *name) {
        const char *value = getenv(name);

        return value && value[0] ? value : NULL;
}

static bool take(struct session *s, int timeout_msec) {
        const struct kev_event *event;

        if (!follower_take(s->follower, timeout_msec, &event))
                return false;
        fprintf(s->events_file, "%10.6f %s\n", (double)(now_nsec() - s->since_nsec) / 1e9, kev_event_json(event));
        return true;
}

static const char *name_of(const struct session *s) {
        return at("%s %s, seed %llu", s->combination->file_system, s->combination->mechanism,
                  (unsigned long long)s->seed);
}

/* All that is due, which may be more than one barrier waits for. */
static void drain(struct session *s) {
        int64_t begin = now_msec(), since;

        do {
                since = now_msec();
                while (take(s, 0))
                        ;
                ck_assert_msg(since - begin < REST_MSEC, "%s: the daemon has not come to rest after %d ms", name_of(s),
                              (int)(since - begin));
        } while (now_msec() - since >= BARRIER_MSEC);
}

static int compare_operations(const void *a, const void *b) {
        const struct operation *x = *(const struct operation *const *)a, *y = *(const struct operation *const *)b;

        return (x->from_nsec > y->from_nsec) - (x->from_nsec < y->from_nsec);
}

/* What the writers did in this round, in the order in which it began, and what was told. */
static void print_round(struct session *s, FILE *file, const char *what) {
        const struct operation **all = calloc(WRITERS_MAX * (size_t)ROUND_MAX, sizeof(*all));
        size_t n = 0;

        ck_assert_ptr_nonnull(all);
        for (int i = 0; i < WRITERS_MAX; i++)
                for (size_t k = 0; k < writers[i].n; k++)
                        all[n++] = &writers[i].operations[k];
        qsort(all, n, sizeof(const struct operation *), compare_operations);
        fprintf(file, "--- %s:\n", what);
        for (size_t i = 0; i < n; i++)
                fprintf(file, "%10.6f..%.6f %td: %s %s %s\n", (double)(all[i]->from_nsec - s->since_nsec) / 1e9,
                        (double)(all[i]->to_nsec - s->since_nsec) / 1e9,
                        ((const char *)all[i] - (const char *)writers) / (ptrdiff_t)sizeof(*writers), all[i]->what,
                        all[i]->a, all[i]->b);
        (void)fflush(s->events_file);
        fprintf(file, "%.*s", (int)s->events_size, s->events);
        free(all);
}

static void begin_round(struct session *s) {
        for (int i = 0; i < WRITERS_MAX; i++)
                writers[i].n = 0;
        s->events_file = open_memstream(&s->events, &s->events_size);
        ck_assert_ptr_nonnull(s->events_file);
}

static void end_round(struct session *s, const char *what) {
        if (s->log) {
                print_round(s, s->log, what);
                (void)fflush(s->log);
        }
        (void)fclose(s->events_file);
        free(s->events);
}

/* Whether it only comes late, which is a fault as well. */
static const char *explain(struct session *s) {
        int64_t since = now_msec();

        while (now_msec() < since + PATIENCE_MSEC) {
                char *differences;

                if (!take(s, 50))
                        continue;
                drain(s);
                replay_rest(s->follower->replay);
                differences = replay_compare(s->follower->replay);
                if (!differences)
                        return at("right only %d ms after the barrier said that nothing was due",
                                  (int)(now_msec() - since));
                free(differences);
        }
        return "and it stays so";
}

/* Whether the model is what is on the disk. */
static bool check(struct session *s, const char *what) {
        char *differences;
        FILE *file;

        drain(s);
        replay_rest(s->follower->replay);
        s->n_checks++;
        differences = replay_compare(s->follower->replay);
        if (!differences)
                return true;
        fprintf(stderr, "%s, %s: after %zu operations and %llu events, %zu of them rescans:\n%s", name_of(s), what,
                s->n_operations, (unsigned long long)s->follower->n_events, replay_n_rescans(s->follower->replay),
                differences);
        fprintf(stderr, "  %s\n", explain(s));
        free(differences);
        /* What the harness shows if the test fails. */
        file = fopen(at("%s/round.log", harness_tempdir()), "we");
        ck_assert_ptr_nonnull(file);
        print_round(s, file, name_of(s));
        (void)fclose(file);
        return false;
}

static void pause_daemon(struct session *s, struct random *chance) {
        assert_system(kill(s->daemon->pid, SIGSTOP) == 0, "SIGSTOP");
        (void)poll(NULL, 0, 1 + (int)next_random(chance, STOP_MAX_MSEC));
        assert_system(kill(s->daemon->pid, SIGCONT) == 0, "SIGCONT");
}

/* Takes events until the writers have ended. */
static void follow_writers(struct session *s, pid_t *pids, struct random *chance) {
        int left = WRITERS_MAX;

        while (left > 0) {
                if (next_random(chance, 6) == 0)
                        pause_daemon(s, chance);
                (void)take(s, (int)next_random(chance, 5));
                left = 0;
                for (int i = 0; i < WRITERS_MAX; i++) {
                        int status;

                        if (pids[i] == 0)
                                continue;
                        if (waitpid(pids[i], &status, WNOHANG) != pids[i]) {
                                left++;
                                continue;
                        }
                        ck_assert_msg(status == 0, "a writer's status was %d", status);
                        pids[i] = 0;
                }
        }
}

/* Makes a file in each directory, or removes it. */
static void touch_all(int at_fd, const char *path, bool make) {
        int fd = openat(at_fd, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), file;
        DIR *directory = fd < 0 ? NULL : fdopendir(fd);
        struct dirent *entry;

        assert_system(directory, path);
        while ((entry = readdir(directory)))
                if (entry->d_type == DT_DIR && entry->d_name[0] != '.')
                        touch_all(fd, entry->d_name, make);
        if (make) {
                file = openat(fd, "later", O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
                assert_system(file >= 0, "later");
                (void)close(file);
        } else {
                assert_system(unlinkat(fd, "later", 0) == 0, "later");
        }
        (void)closedir(directory);
}

/* Mostly a few, so that there are many checks; in a long run now and then so many that the kernel's queue may
 * overflow. */
static size_t plan_round(struct random *plan, size_t left, bool is_long) {
        size_t n = (size_t)8 << next_random(plan, 7);

        if (next_random(plan, 512) == 511 && is_long)
                n = ROUND_MAX;
        return MIN(n, left);
}

static bool do_round(struct session *s, unsigned number, size_t n, struct random *plan, struct random *chance) {
        const char *root = at("%s/w", s->mount), *what = at("round %u", number);
        unsigned n_writers = 1 + next_random(plan, WRITERS_MAX);
        pid_t pids[WRITERS_MAX] = { 0 };
        bool right;

        exchanges = environment("KEVD_RANDOM_EXCHANGES") != NULL;
        (void)alarm(ROUND_SECONDS);
        begin_round(s);
        if (next_random(plan, 2) == 0)
                pause_daemon(s, chance);
        for (unsigned i = 0; i < n_writers; i++) {
                pids[i] = fork();
                assert_system(pids[i] >= 0, "fork");
                if (pids[i] == 0)
                        write_at_random(s->mount, random_of(s->seed, number, i), &writers[i],
                                        (n + n_writers - 1) / n_writers);
        }
        follow_writers(s, pids, chance);
        for (unsigned i = 0; i < n_writers; i++)
                s->n_operations += writers[i].n;
        right = check(s, what);
        if (right && next_random(plan, 4) == 0) {
                touch_all(AT_FDCWD, root, true);
                right = check(s, at("%s, a file in each directory", what));
                touch_all(AT_FDCWD, root, false);
        }
        end_round(s, what);
        (void)alarm(0);
        return right;
}

/* That it is what is meant to be tested, unless the environment wants another. */
static void check_mechanism(const struct session *s) {
        size_t n = daemon_fdinfo_inotify_watches(s->daemon->pid);

        if (environment("KEVD_FILE_MECHANISM"))
                return;
        if (strcmp(s->combination->mechanism, "fanotify") == 0)
                ck_assert_msg(n == 0, "%zu inotify watches, where fanotify was asked for", n);
        else
                ck_assert_msg(n > 0, "no inotify watch, where inotify was asked for");
}

/* No barrier waits for the end of a list. */
static void take_list(struct follower *f) {
        const struct kev_event *event;
        bool listed = false;

        while (!listed) {
                ck_assert_msg(follower_take(f, HARNESS_REPLY_MSEC, &event), "no `listed`");
                listed = kev_event_notes(event) & KEV_NOTE_LISTED;
        }
}

/* What is there before anybody watches: directories of which no event has told. */
static void populate(const struct session *s) {
        struct writer *writer = &writers[0];
        pid_t pid;
        int status;

        run(s->mount, "rm -rf w && mkdir w && mkdir -p o");
        writer->n = 0;
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0)
                write_at_random(s->mount, random_of(s->seed, 0, 3), writer, POPULATED);
        assert_system(waitpid(pid, &status, 0) == pid && status == 0, "a writer");
}

static void begin_session(struct session *s) {
        const char *root = at("%s/w", s->mount), *log = environment("KEVD_RANDOM_LOG");
        struct kev_watch *watch = new_tree_watch(root, kev_filter_default_notes(KEV_FILTER_TREE) & ~KEV_NOTE_BACK);

        ck_assert_int_eq(kev_watch_set_list(watch, true), 0);
        populate(s);
        s->since_nsec = now_nsec();
        s->daemon = daemon_start_with((const char *const[]){ at("--file-mechanism=%s", s->combination->mechanism),
                                                            log ? "--log-level=debug" : NULL, NULL });
        s->follower = follower_new_with(s->daemon, watch, root, REPLAY_AT_REST);
        take_list(s->follower);
        check_mechanism(s);
        if (!log)
                return;
        s->log = fopen(at("%s/random.trace", harness_tempdir()), "we");
        ck_assert_ptr_nonnull(s->log);
}

static void end_session(struct session *s, bool right, unsigned number) {
        follower_free(s->follower);
        daemon_stop(s->daemon);
        if (!s->log)
                return;
        (void)fclose(s->log);
        if (!right)
                run(harness_tempdir(),
                    at("d=$KEVD_RANDOM_LOG/%s-%s-%llu; cp random.trace \"$d.trace\"; cp kevd-%u.log \"$d.kevd.log\"",
                       s->combination->file_system, s->combination->mechanism, (unsigned long long)s->seed, number));
        run(harness_tempdir(), at("rm -f kevd-%u.log", number));
}

static void do_session(const struct combination *c, const char *mount, uint64_t seed, unsigned number, size_t n,
                       bool is_long, struct totals *totals) {
        struct session s = { .combination = c, .mount = mount, .seed = seed };
        struct random plan = random_of(seed, 0, 1), chance = random_of(seed, 0, 2);
        bool right = true;

        begin_session(&s);
        for (unsigned round = 1; right && s.n_operations < n; round++)
                right = do_round(&s, round, plan_round(&plan, n - s.n_operations, is_long), &plan, &chance);
        totals->n_operations += s.n_operations;
        totals->n_events += s.follower->n_events;
        totals->n_rescans += replay_n_rescans(s.follower->replay);
        totals->n_checks += s.n_checks;
        totals->n_differences += !right;
        end_session(&s, right, number);
}

/* ---- file systems -------------------------------------------------------------------------------- */

/* A shell's status. */
static int try(const char *script) {
        pid_t pid = fork();
        int status;

        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                if (chdir(harness_tempdir()) == 0 && setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin", 1) == 0)
                        (void)execl("/bin/sh", "sh", "-euc", script, NULL);
                _exit(127);
        }
        assert_system(waitpid(pid, &status, 0) == pid, "waitpid");
        return status;
}

/* With a lower layer that the tree beside has something in. */
static void mount_overlay(void) {
        const char *layers = at("%s/layers", harness_tempdir());
        const char *options = at("lowerdir=%s/lower,upperdir=%s/upper,workdir=%s/work", layers, layers, layers);

        run(harness_tempdir(), "mkdir layers && mount -t tmpfs none layers && cd layers && "
                               "mkdir -p lower/o/a/b lower/o/c upper work && "
                               "touch lower/o/a/a lower/o/a/b/a lower/o/d");
        if (mount("overlay", at("%s/m", harness_tempdir()), "overlay", 0, options) < 0)
                harness_skip(at("overlay can't be mounted: %s", strerror(errno)));
}

static void mount_image(const char *type) {
        /* Sparse; no smaller than what mkfs.xfs takes. */
        if (try(at("command -v mkfs.%s >/dev/null", type)) != 0)
                harness_skip(at("mkfs.%s is not there", type));
        run(harness_tempdir(), at("PATH=$PATH:/usr/sbin:/sbin; truncate -s 512M image && mkfs.%s -q image 2>&1", type));
        if (try(at("mount -t %s -o loop image m", type)) != 0)
                harness_skip(at("no loop devices, or no %s in this kernel", type));
}

static const char *mount_one(const char *type) {
        const char *path = at("%s/m", harness_tempdir());

        need_private_mounts();
        make_dir(path);
        if (strcmp(type, "overlay") == 0)
                mount_overlay();
        else if (strcmp(type, "tmpfs") == 0)
                assert_system(mount("none", path, "tmpfs", 0, NULL) == 0, path);
        else
                mount_image(type);
        return path;
}

static bool is_unmounted(void *userdata) {
        const char *path = userdata;

        return umount2(path, 0) == 0;
}

/* Processes of the daemon's may be ending just now. */
static void unmount(const char *path) {
        ck_assert_msg(wait_until(is_unmounted, (void *)path, HARNESS_REPLY_MSEC), "%s: %s", path, strerror(errno));
}

static void need_fanotify_on(const char *path) {
        int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_REPORT_DIR_FID | FAN_REPORT_NAME, O_RDONLY), r;

        if (fd < 0)
                harness_skip(at("fanotify can't be had: %s", strerror(errno)));
        r = fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_ONDIR, AT_FDCWD, path);
        if (r < 0)
                harness_skip(at("fanotify can't mark this file system: %s", strerror(errno)));
        (void)close(fd);
}

/* ---- the test -------------------------------------------------------------------------------------- */

static uint64_t number_in(const char *name, uint64_t otherwise) {
        const char *text = environment(name);
        char *end;
        unsigned long long value;

        if (!text)
                return otherwise;
        errno = 0;
        value = strtoull(text, &end, 10);
        ck_assert_msg(errno == 0 && *end == '\0', "%s is not a number: %s", name, text);
        return value;
}

static void print_totals(const struct combination *c, const struct totals *t) {
        fprintf(stderr, "%s %s: %zu operations, %llu events, %zu rescans, %zu checks, %zu differences\n",
                c->file_system, c->mechanism, t->n_operations, (unsigned long long)t->n_events, t->n_rescans,
                t->n_checks, t->n_differences);
}

START_TEST(test_random) {
        const struct combination *c = &combinations[_i];
        bool is_long = environment("KEVD_RANDOM_OPERATIONS");
        uint64_t n = number_in("KEVD_RANDOM_OPERATIONS", (uint64_t)harness_rounds(SHORT_OPERATIONS));
        uint64_t seed = number_in("KEVD_RANDOM_SEED", 1);
        struct totals totals = { 0 };
        int64_t shown = now_msec();
        const char *path;
        size_t size = WRITERS_MAX * sizeof(*writers);

        harness_label(at("seed %llu", (unsigned long long)seed));
        path = mount_one(c->file_system);
        if (strcmp(c->mechanism, "fanotify") == 0)
                need_fanotify_on(path);
        writers = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        ck_assert_ptr_ne(writers, MAP_FAILED);
        for (unsigned i = 0; totals.n_operations < n && totals.n_differences < DIFFERENCES_MAX; i++) {
                do_session(c, path, seed + i, i + 1, MIN(n - totals.n_operations, (uint64_t)SESSION_OPERATIONS),
                           is_long, &totals);
                if (is_long && now_msec() - shown >= PROGRESS_MSEC) {
                        fprintf(stderr, "  so far ");
                        print_totals(c, &totals);
                        shown = now_msec();
                }
        }
        (void)munmap(writers, size);
        print_totals(c, &totals);
        unmount(path);
        if (strcmp(c->file_system, "overlay") == 0)
                unmount(at("%s/layers", harness_tempdir()));
        ck_assert_msg(totals.n_differences == 0, "%zu sessions differ from the disk", totals.n_differences);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = NULL;

        for (int i = 0; i < (int)ARRAY_SIZE(combinations); i++) {
                TCase *c;

                if (i == 0 || strcmp(combinations[i].file_system, combinations[i - 1].file_system) != 0)
                        suite = harness_suite(combinations[i].file_system);
                c = harness_case(suite, combinations[i].mechanism);
                tcase_set_timeout(c, environment("KEVD_RANDOM_OPERATIONS") ? 0 : SHORT_SECONDS);
                tcase_add_loop_test(c, test_random, i, i + 1);
        }
        return harness_main(argc, argv);
}
