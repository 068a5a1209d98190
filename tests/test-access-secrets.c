/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who is told what (access.h), as fast as it goes: a directory is closed and opened without a pause, and while it is
 * closed names are made in it. None of these may come to be known to who may not read it.
 */

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "access.h"
#include "event.h"
#include "files.h"
#include "harness.h"
#include "macro.h"
#include "persons.h"

enum {
        LEAK_MSEC = 400, /* for each way to close a directory */
        SECRETS_MIN = 100,
        CROWD = 900, /* open files of a process may be 1024 */
        CROWD_OF_USER = 100,
        CROWD_FIRST = 64300, /* users */
        NO_CROWD = 77, /* the writer's exit code */
};

static struct {
        size_t n_events, n_secrets, n_public;
        char *first; /* event with a secret */
} counts[PARTIES_MAX];

static bool mentions(const struct event *event, const char *text) {
        return (event->path.bytes && strstr(event->path.bytes, text)) ||
               (event->from_path.bytes && strstr(event->from_path.bytes, text));
}

static void count_event(struct party *party, const struct event *event, const char *json) {
        size_t i = (size_t)(party - all.parties);

        counts[i].n_events++;
        counts[i].n_public += mentions(event, "public");
        if (!mentions(event, "secret"))
                return;
        counts[i].n_secrets++;
        if (!counts[i].first)
                counts[i].first = strdup(json);
}

/* How a directory is closed to the user, and opened. */
struct way {
        const char *name;
        bool (*set)(bool open);
        bool moves;   /* the place in which names are made is another when it is open */
        bool others;  /* another process makes the names */
        bool crowded; /* many others watch the directory, so that what is done takes effect long before it is told */
};

static struct {
        const char *above, *d, *open_d;
        char acl_open[256], acl_closed[256];
        ssize_t acl_open_size, acl_closed_size;
} leak;

static const char acl_name[] = "system.posix_acl_access";

static bool set_mode(bool open) {
        return chmod(leak.d, open ? 0755 : 0700) == 0;
}

static bool set_mode_above(bool open) {
        return chmod(leak.above, open ? 0755 : 0700) == 0;
}

/* It may be read, but not searched. */
static bool set_mode_to_read(bool open) {
        return chmod(leak.d, open ? 0744 : 0700) == 0;
}

static bool set_owner(bool open) {
        return chown(leak.d, open ? USER : 0, 0) == 0;
}

static bool set_group(bool open) {
        return chown(leak.d, 0, open ? GROUP_TOO : GROUP_OTHER) == 0;
}

static bool set_xattr(bool open) {
        return setxattr(leak.d, acl_name, open ? leak.acl_open : leak.acl_closed,
                        (size_t)(open ? leak.acl_open_size : leak.acl_closed_size), 0) == 0;
}

static bool set_location(bool open) {
        return rename(open ? leak.d : leak.open_d, open ? leak.open_d : leak.d) == 0;
}

static const struct way ways[] = {
        { .name = "mode", .set = set_mode },
        { .name = "mode, by another process", .set = set_mode, .others = true },
        { .name = "mode, in a crowd", .set = set_mode, .crowded = true },
        { .name = "mode of the directory above", .set = set_mode_above },
        { .name = "mode of the directory above, by another process", .set = set_mode_above, .others = true },
        { .name = "mode of the directory above, in a crowd", .set = set_mode_above, .crowded = true },
        { .name = "mode, to read alone, in a crowd", .set = set_mode_to_read, .crowded = true },
        { .name = "owner", .set = set_owner },
        { .name = "owner, in a crowd", .set = set_owner, .crowded = true },
        { .name = "group", .set = set_group },
        { .name = "group, in a crowd", .set = set_group, .crowded = true },
        { .name = "ACL", .set = set_xattr },
        { .name = "ACL, in a crowd", .set = set_xattr, .crowded = true },
        { .name = "place", .set = set_location, .moves = true },
        { .name = "place, by another process", .set = set_location, .moves = true, .others = true },
        { .name = "place of the directory above", .set = set_location, .moves = true },
};

/* One name is made and removed in the directory. */
static bool make_and_remove(const char *directory, const char *word, unsigned i) {
        char path[PATH_MAX], other[PATH_MAX];
        bool is_new = (i / 64) % 2; /* or one that was there before */
        int fd;

        (void)snprintf(path, sizeof(path), "%s/%s%u%s", directory, word, is_new ? i : i % 4, i % 8 == 5 ? "\xff" : "");
        (void)snprintf(other, sizeof(other), "%s/%s-too%u", directory, word, is_new ? i : i % 4);
        if (i % 4 == 3)
                return mkdir(path, 0755) == 0 && rmdir(path) == 0;
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
                return false;
        (void)!write(fd, "x", 1);
        (void)close(fd);
        if (i % 4 == 1)
                return rename(path, other) == 0 && unlink(other) == 0;
        return unlink(path) == 0;
}

/* What is done at once most of the time is done with a small pause in between now and then: what the daemon does
 * meanwhile falls into different moments. */
static void pause_shortly(unsigned i) {
        struct timespec t = { .tv_nsec = (long)(i * 7919 % 300) * 1000 };

        if ((i / 256) % 2)
                (void)nanosleep(&t, NULL);
}

/* Instances of inotify are limited for each user. */
static bool gather_crowd(const struct way *way) {
        const char *path = way->set == set_mode_above ? leak.above : leak.d;

        for (unsigned i = 0; i < CROWD; i++) {
                int fd = seteuid(CROWD_FIRST + i / CROWD_OF_USER) < 0 ? -1 : inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

                if (fd < 0 || seteuid(0) < 0 || inotify_add_watch(fd, path, IN_ATTRIB) < 0)
                        return false;
        }
        return true;
}

static bool make_secrets(const struct way *way, bool (*make)(const char *, const char *, unsigned)) {
        int64_t end;

        if (way->crowded && !gather_crowd(way))
                _exit(NO_CROWD);
        end = now_msec() + LEAK_MSEC;
        for (unsigned i = 0; now_msec() < end || i < SECRETS_MIN * 2; i++) {
                if (!way->set(false) || !make(leak.d, "secret", i))
                        return false;
                if (i % 3 == 0)
                        pause_shortly(i);
                if (!way->set(true) || !make(way->moves ? leak.open_d : leak.d, "public", i))
                        return false;
                if (i % 3 == 1)
                        pause_shortly(i);
        }
        return way->set(false);
}

/* The names are another process's, which is asked for each: `order` is its socket. */
static int order;

struct order {
        char directory[PATH_MAX], word[16];
        unsigned i;
};

static bool make_by_other(const char *directory, const char *word, unsigned i) {
        static struct order o;
        char byte;

        (void)snprintf(o.directory, sizeof(o.directory), "%s", directory);
        (void)snprintf(o.word, sizeof(o.word), "%s", word);
        o.i = i;
        return send(order, &o, sizeof(o), MSG_NOSIGNAL) == sizeof(o) && recv(order, &byte, 1, 0) == 1;
}

static void serve_orders(int fd) {
        static struct order o;

        while (recv(fd, &o, sizeof(o), 0) == sizeof(o))
                if (!make_and_remove(o.directory, o.word, o.i) || send(fd, ".", 1, MSG_NOSIGNAL) != 1)
                        _exit(1);
        _exit(0);
}

static pid_t start_writer(const struct way *way) {
        pid_t pid = fork(), other = 0;
        int sockets[2], status = 0;
        bool done;

        assert_system(pid >= 0, "fork");
        if (pid > 0)
                return pid;
        if (way->others) {
                if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets) < 0 || (other = fork()) < 0)
                        _exit(1);
                if (other == 0) {
                        (void)close(sockets[0]);
                        serve_orders(sockets[1]);
                }
                (void)close(sockets[1]);
                order = sockets[0];
        }
        done = make_secrets(way, way->others ? make_by_other : make_and_remove);
        if (way->others) {
                (void)close(order);
                done &= waitpid(other, &status, 0) == other && status == 0;
        }
        _exit(done ? 0 : 1);
}

static void prepare_leak(const char *root, const struct way *way) {
        const char *a = at("%s/a", root);

        make_dir(a);
        leak.above = leak.d = at("%s/d", a);
        make_dir(leak.d);
        if (way->set == set_mode_above) {
                leak.d = at("%s/e", leak.above);
                make_dir(leak.d);
        } else if (way->set == set_owner) {
                assert_system(chmod(leak.d, 0700) == 0, leak.d);
        } else if (way->set == set_group) {
                assert_system(chmod(leak.d, 0750) == 0, leak.d);
        } else if (way->set == set_xattr) {
                need_acl();
                assert_system(chmod(leak.d, 0700) == 0, leak.d);
                set_acl("u:64100:---", leak.d);
                leak.acl_closed_size = getxattr(leak.d, acl_name, leak.acl_closed, sizeof(leak.acl_closed));
                set_acl("u:64100:rx", leak.d);
                leak.acl_open_size = getxattr(leak.d, acl_name, leak.acl_open, sizeof(leak.acl_open));
                ck_assert(leak.acl_closed_size > 0 && leak.acl_open_size > 0);
        } else if (way->moves) {
                make_dir(at("%s/closed", root));
                assert_system(chmod(at("%s/closed", root), 0700) == 0, root);
                leak.d = at("%s/closed/d", root);
                leak.open_d = at("%s/a/d", root);
        }
}

/* What is moved is the directory above: the names are made in "e" in it, in either place. */
static bool set_location_above(bool open) {
        char from[PATH_MAX], to[PATH_MAX];

        (void)snprintf(from, sizeof(from), "%.*s", (int)strlen(leak.d) - 2, leak.d);
        (void)snprintf(to, sizeof(to), "%.*s", (int)strlen(leak.open_d) - 2, leak.open_d);
        return rename(open ? from : to, open ? to : from) == 0;
}

static void finish_writer(pid_t writer) {
        int status;

        for (;;) {
                pid_t ended = waitpid(writer, &status, WNOHANG);

                assert_system(ended >= 0, "waitpid");
                for (size_t i = 0; i < all.n_parties; i++)
                        (void)take(&all.parties[i], 1, count_event);
                if (ended == writer)
                        break;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == NO_CROWD)
                harness_skip("so many instances of inotify are not to be had");
        ck_assert_msg(status == 0, "the writer failed: status %d", status);
}

START_TEST(test_secret) {
        const char *root = make_root("w"), *marker = at("%s/public-marker", root);
        struct way way = ways[_i];

        harness_label(way.name);
        memset(counts, 0, sizeof(counts));
        prepare_leak(root, &way);
        if (strcmp(way.name, "place of the directory above") == 0) {
                make_dir(at("%s/e", leak.open_d));
                leak.d = at("%s/e", leak.d);
                leak.open_d = at("%s/e", leak.open_d);
                way.set = set_location_above;
        }
        follow(root);
        finish_writer(start_writer(&way));
        /* Behind all that was before. */
        for (size_t i = 0; i < all.n_parties; i++)
                counts[i].n_public = 0;
        make_file(marker);
        for (size_t i = 0; i < all.n_parties; i++) {
                int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;

                while (counts[i].n_public == 0 && now_msec() < deadline)
                        (void)take(&all.parties[i], 50, count_event);
                drain(&all.parties[i], count_event);
                ck_assert_msg(counts[i].n_public > 0, "%s: not told of what was made at the end",
                              all.parties[i].person->name);
        }
        ck_assert_msg(counts[0].n_secrets >= SECRETS_MIN, "root was told of %zu secrets", counts[0].n_secrets);
        for (size_t i = 1; i < all.n_parties; i++)
                ck_assert_msg(counts[i].n_secrets == 0, "%s: %zu of %zu events tell a secret, %zu of root's do: %s",
                              all.parties[i].person->name, counts[i].n_secrets, counts[i].n_events, counts[0].n_secrets,
                              counts[i].first);
        for (size_t i = 0; i < all.n_parties; i++)
                free(counts[i].first);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_access_case(harness_suite("access-secrets"), "secrets", start_parties);

        tcase_add_loop_test(c, test_secret, 0, ARRAY_SIZE(ways));
        return harness_main(argc, argv);
}
