/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who is told what (access.h), of operations at random without a pause. A program that watches would be late itself;
 * here every name is made once, and the kernel is asked whether the user could read its directory at any moment of
 * its life.
 */

#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access.h"
#include "event.h"
#include "files.h"
#include "harness.h"
#include "macro.h"
#include "persons.h"

enum {
        NODES_MAX = 512, /* in one round, with those that end in it */
        DIRS_MAX = 24,   /* at the same time */
        FILES_MAX = 48,
        SERIALS_MAX = 65536,
        RANDOM_MSEC = 800,
        ROUND_OPERATIONS = 120,
};

/* A file or directory. Its name is new with each move, and is never used again. */
struct node {
        bool used, alive, is_dir;
        struct node *parent;
        unsigned serial;
        bool visible;        /* the user may read it: directories */
        bool is_new, steady; /* its name was made in this round, and its directory was visible since */
        uint64_t above[NODES_MAX / 64]; /* directories that it was below in this round */
};

static struct {
        const char *path;
        struct node nodes[NODES_MAX]; /* the first is the root */
        unsigned n_serials;
        bool ever[SERIALS_MAX];           /* was to be seen by the user, at some moment */
        bool named[PARTIES_MAX][SERIALS_MAX]; /* an event was about an entry of this name */
        struct node *owner[SERIALS_MAX];
        bool rescanned[PARTIES_MAX][NODES_MAX];
        size_t n_checked[PARTIES_MAX], n_covered[PARTIES_MAX];
        uint64_t state;
} chance;

static unsigned draw(unsigned n) {
        chance.state = chance.state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        return (unsigned)(chance.state >> 33) % n;
}

static size_t number_of(const struct node *node) {
        return (size_t)(node - chance.nodes);
}

static void put_path(const struct node *node, char *path) {
        if (node == chance.nodes) {
                (void)snprintf(path, PATH_MAX, "%s", chance.path);
                return;
        }
        put_path(node->parent, path);
        (void)snprintf(path + strlen(path), PATH_MAX - strlen(path), "/n%06u", node->serial);
}

static bool is_below(const struct node *node, const struct node *above) {
        for (; node; node = node->parent)
                if (node == above)
                        return true;
        return false;
}

/* The kernel's answer for the user, by whose ids this process goes in file systems for the moment (its groups are the
 * user's already, and its capabilities don't count then). At the end of each round the user's own process is asked. */
static bool user_may_read(const char *path) {
        int fd;

        (void)setfsgid(GROUP);
        (void)setfsuid(USER);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        (void)setfsuid(0);
        (void)setfsgid(0);
        return safe_close(fd), fd >= 0;
}

static void mark_above(struct node *node) {
        for (struct node *n = node; n->parent; n = n->parent) {
                chance.ever[n->serial] = true; /* it is in the path of all that is told of there */
                node->above[number_of(n->parent) / 64] |= UINT64_C(1) << number_of(n->parent) % 64;
        }
}

static void add_above(struct node *node) {
        for (const struct node *n = node->parent; n; n = n->parent)
                node->above[number_of(n) / 64] |= UINT64_C(1) << number_of(n) % 64;
}

/* Something has changed who may read the directories at and below `top`. */
static void look(const struct node *top) {
        char path[PATH_MAX];

        for (struct node *n = chance.nodes; n < chance.nodes + NODES_MAX; n++) {
                if (!n->alive || !is_below(n, top))
                        continue;
                add_above(n);
                if (!n->is_dir)
                        continue;
                put_path(n, path);
                n->visible = user_may_read(path);
                if (n->visible)
                        mark_above(n);
        }
        for (struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++) {
                if (!n->alive)
                        continue;
                if (n->parent->visible)
                        chance.ever[n->serial] = true;
                else
                        n->steady = false;
        }
}

static void name_node(struct node *node, struct node *parent) {
        ck_assert_uint_lt(chance.n_serials, SERIALS_MAX - 1);
        node->parent = parent;
        node->serial = ++chance.n_serials;
        node->is_new = true;
        node->steady = parent->visible;
        chance.owner[node->serial] = node;
        if (parent->visible)
                chance.ever[node->serial] = true;
        add_above(node);
}

static struct node *new_node(struct node *parent, bool is_dir) {
        for (struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++)
                if (!n->used) {
                        *n = (struct node){ .used = true, .alive = true, .is_dir = is_dir };
                        name_node(n, parent);
                        return n;
                }
        return NULL;
}

/* One that is alive; a directory, or a file. */
static struct node *pick(bool is_dir, bool with_root) {
        struct node *found = with_root ? chance.nodes : NULL;
        unsigned n = with_root;

        for (struct node *p = chance.nodes + 1; p < chance.nodes + NODES_MAX; p++)
                if (p->alive && p->is_dir == is_dir && draw(++n) == 0)
                        found = p;
        return found;
}

static size_t count(bool is_dir) {
        size_t n = 0;

        for (const struct node *p = chance.nodes + 1; p < chance.nodes + NODES_MAX; p++)
                n += p->alive && p->is_dir == is_dir;
        return n;
}

static void do_make(bool is_dir) {
        struct node *node = count(is_dir) < (is_dir ? DIRS_MAX : FILES_MAX) ? new_node(pick(true, true), is_dir) : NULL;
        char path[PATH_MAX];
        int fd;

        if (!node)
                return;
        put_path(node, path);
        if (is_dir) {
                static const mode_t modes[] = { 0755, 0755, 0700, 0711, 0750 };

                assert_system(mkdir(path, modes[draw(ARRAY_SIZE(modes))]) == 0, path);
                look(node);
                return;
        }
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        assert_system(fd >= 0, path);
        (void)close(fd);
}

static void do_link(void) {
        struct node *node = pick(false, false), *other;
        char path[PATH_MAX], target[PATH_MAX];

        if (!node || count(false) >= FILES_MAX)
                return;
        other = new_node(pick(true, true), false);
        if (!other)
                return;
        put_path(node, path);
        put_path(other, target);
        assert_system(link(path, target) == 0, path);
}

static void do_write(void) {
        struct node *node = pick(false, false);
        char path[PATH_MAX];
        int fd;

        if (!node)
                return;
        put_path(node, path);
        fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
        assert_system(fd >= 0 && write(fd, "x", 1) == 1, path);
        (void)close(fd);
}

static void do_move(bool is_dir) {
        struct node *node = pick(is_dir, false), *to = pick(true, true);
        char path[PATH_MAX], target[PATH_MAX];

        if (!node || is_below(to, node))
                return;
        put_path(node, path);
        name_node(node, to);
        put_path(node, target);
        assert_system(rename(path, target) == 0, path);
        look(node);
}

static void do_rights(void) {
        static const mode_t modes[] = { 0700, 0711, 0755, 0750, 0755 };
        static const gid_t groups[] = { 0, GROUP, GROUP_TOO, GROUP_OTHER };
        struct node *node = pick(true, false);
        char path[PATH_MAX];

        if (!node)
                return;
        put_path(node, path);
        if (draw(4) > 0)
                assert_system(chmod(path, modes[draw(ARRAY_SIZE(modes))]) == 0, path);
        else
                assert_system(chown(path, draw(2) ? USER : 0, groups[draw(ARRAY_SIZE(groups))]) == 0, path);
        look(node);
}

/* From the leaves up, as rm -r does. */
static void do_remove(struct node *node) {
        char path[PATH_MAX];

        if (!node)
                return;
        for (struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++)
                if (n->alive && n->parent == node)
                        do_remove(n);
        put_path(node, path);
        assert_system((node->is_dir ? rmdir(path) : unlink(path)) == 0, path);
        node->alive = false;
}

static void do_something(void) {
        unsigned n = draw(100);

        if (n < 14)
                do_make(true);
        else if (n < 40)
                do_make(false);
        else if (n < 44)
                do_link();
        else if (n < 52)
                do_write();
        else if (n < 64)
                do_move(false);
        else if (n < 72)
                do_move(true);
        else if (n < 92)
                do_rights();
        else if (n < 98)
                do_remove(pick(false, false));
        else
                do_remove(pick(true, false));
}

/* Serials in a path; returns the last, of what the path is. 0: the root's. */
static unsigned take_serials(const struct party *party, const char *path, const char *json) {
        unsigned serial = 0;

        ck_assert_msg(is_at_or_below(path, chance.path), "%s: %s", party->person->name, json);
        for (const char *p = path + strlen(chance.path); (p = strstr(p, "/n")); p++) {
                serial = (unsigned)strtoul(p + 2, NULL, 10);
                ck_assert_msg(serial > 0 && serial <= chance.n_serials, "%s: %s", party->person->name, json);
                ck_assert_msg(party->person->is_root || chance.ever[serial],
                              "%s is told of n%06u, which was never to be seen: %s", party->person->name, serial, json);
        }
        return serial;
}

static void check_event(struct party *party, const struct event *event, const char *json) {
        size_t i = (size_t)(party - all.parties);
        unsigned serial = take_serials(party, event->path.bytes, json);

        if (event->from_path.bytes)
                (void)take_serials(party, event->from_path.bytes, json);
        if (event->notes & (KEV_NOTE_CREATE | KEV_NOTE_MOVEDIN | KEV_NOTE_RENAME))
                chance.named[i][serial] = true;
        if (event->notes & KEV_NOTE_RESCAN)
                chance.rescanned[i][serial > 0 ? number_of(chance.owner[serial]) : 0] = true;
}

static bool is_covered(size_t party, const struct node *node) {
        if (chance.rescanned[party][number_of(node)])
                return true;
        for (size_t i = 0; i < NODES_MAX; i++)
                if (node->above[i / 64] >> i % 64 & 1 && chance.rescanned[party][i])
                        return true;
        return false;
}

/* What was made while it could be seen, and still can, was told. */
static const struct node *find_untold(size_t party) {
        for (const struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++)
                if (n->alive && n->is_new && (all.parties[party].person->is_root || n->steady) &&
                    !chance.named[party][n->serial] && !is_covered(party, n))
                        return n;
        return NULL;
}

static void check_round(size_t i, unsigned round) {
        struct party *party = &all.parties[i];
        const struct node *untold;
        char path[PATH_MAX];

        drain(party, check_event);
        for (int64_t deadline = now_msec() + HARNESS_REPLY_MSEC; (untold = find_untold(i)) && now_msec() < deadline;)
                (void)take(party, 50, check_event);
        if (untold)
                put_path(untold, path);
        ck_assert_msg(!untold, "round %u: %s is not told of %s", round, party->person->name, path);
        for (const struct node *n = chance.nodes + 1; n < chance.nodes + NODES_MAX; n++)
                if (n->alive && n->is_new && (party->person->is_root || n->steady)) {
                        chance.n_checked[i]++;
                        chance.n_covered[i] += !chance.named[i][n->serial];
                }
}

/* The record is what the user's own process finds. */
static void check_record(void) {
        char path[PATH_MAX];

        for (const struct node *n = chance.nodes; n < chance.nodes + NODES_MAX; n++) {
                if (!n->alive || !n->is_dir)
                        continue;
                put_path(n, path);
                ck_assert_msg((person_may_read(user_party->person, path) == 0) == n->visible,
                              "the test is wrong about %s", path);
        }
}

static void begin_round(void) {
        memset(chance.rescanned, 0, sizeof(chance.rescanned));
        for (struct node *n = chance.nodes; n < chance.nodes + NODES_MAX; n++) {
                n->used = n->alive;
                n->is_new = n->steady = false;
                memset(n->above, 0, sizeof(n->above));
                if (n->alive)
                        add_above(n);
        }
}

static void drop_stranger(void) {
        all.n_parties--;
        person_free(all.parties[all.n_parties].person);
}

START_TEST(test_random) {
        int64_t end = now_msec() + RANDOM_MSEC;
        unsigned round = 0;

        chance.path = make_root("w");
        chance.state = (uint64_t)_i + 1;
        chance.nodes[0] = (struct node){ .used = true, .alive = true, .is_dir = true };
        drop_stranger(); /* what is to be seen is recorded for one user */
        follow(chance.path);
        ck_assert_int_eq(setgroups(ARRAY_SIZE(user_groups), user_groups), 0);
        look(chance.nodes);
        for (; now_msec() < end || round < 4; round++) {
                begin_round();
                for (int i = 0; i < ROUND_OPERATIONS; i++)
                        do_something();
                check_record();
                for (size_t i = 0; i < all.n_parties; i++)
                        check_round(i, round);
        }
        /* It was about something. */
        for (size_t i = 0; i < all.n_parties; i++)
                ck_assert_uint_gt(chance.n_checked[i], 10);
        ck_assert_uint_gt(chance.n_checked[1] - chance.n_covered[1], 0);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_access_case(harness_suite("access-random"), "random", start_parties);

        tcase_add_loop_test(c, test_random, 0, 4);
        return harness_main(argc, argv);
}
