/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who is told what (access.h), where it takes more than a look now to know what could be seen then: what a peer could
 * see is told, or where to look is; what it could not is covered once it can.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access.h"
#include "event.h"
#include "files.h"
#include "harness.h"
#include "macro.h"
#include "persons.h"

static struct heard {
        unsigned n_events, n_rescans, n_of_root; /* `rescan` of all that is watched */
        bool is_covered; /* `path` was told of, or is to be looked at */
        bool is_told;    /* it was told of itself */
        bool has_process;
} heard[PARTIES_MAX];

static const char *path; /* of interest */

static void hear(struct party *party, const struct event *event, const char *json _unused_) {
        struct heard *h = &heard[party - all.parties];
        bool is_rescan = event->notes & KEV_NOTE_RESCAN;

        h->n_events++;
        h->n_rescans += is_rescan;
        h->n_of_root += is_rescan && strcmp(event->path.bytes, all.root) == 0;
        h->has_process |= event->process != NULL;
        h->is_told |= path && !is_rescan && strcmp(event->path.bytes, path) == 0;
        h->is_covered |= path && (is_rescan ? is_at_or_below(path, event->path.bytes) : h->is_told);
}

/* All that is due of what has happened, to everybody; what is heard next is heard anew. */
static void hear_all(void) {
        memset(heard, 0, sizeof(heard));
        for (size_t i = 0; i < all.n_parties; i++)
                if (all.parties[i].fd >= 0)
                        drain(&all.parties[i], hear);
}

static const struct heard *of(const struct party *party) {
        return &heard[party - all.parties];
}

static size_t signal_stand_ins(int signal) {
        return daemon_signal_helpers(all.daemon->pid, "kevd-stand-in", signal);
}

/* A closed directory with a file of which the user was not told. */
static const char *make_hidden(const char *root) {
        const char *d = at("%s/d", root);

        make_dir(d);
        change_mode(d, 0700);
        follow(root);
        path = at("%s/hidden", d);
        make_file(path);
        hear_all();
        ck_assert(!of(user_party)->is_covered);
        ck_assert(of(root_party)->is_told);
        return d;
}

static void open_hidden(const char *d) {
        change_mode(d, 0755);
        make_file(at("%s/new", d));
        hear_all();
        ck_assert(of(user_party)->is_covered);
}

/* ---- what was hidden is made good ------------------------------------------------------------------------------- */

START_TEST(test_each_watch_is_made_good) {
        const char *d;

        add_party("again", USER, GROUP, user_groups, ARRAY_SIZE(user_groups));
        d = make_hidden(make_root("w"));
        open_hidden(d);
        ck_assert(heard[all.n_parties - 1].is_covered);
}
END_TEST

START_TEST(test_made_good_after_a_mount) {
        const char *elsewhere = make_root("elsewhere"), *d = make_hidden(make_root("w"));

        assert_system(mount("tmpfs", elsewhere, "tmpfs", 0, NULL) == 0, elsewhere);
        hear_all();
        assert_system(umount2(elsewhere, 0) == 0, elsewhere);
        hear_all();
        open_hidden(d);
}
END_TEST

/* The first that is seen of it is something that leaves it. */
START_TEST(test_made_good_as_one_leaves) {
        const char *root = make_root("w"), *v = at("%s/v", root), *d;

        make_dir(v);
        d = make_hidden(root);
        make_file(at("%s/x", d));
        hear_all();
        change_mode(d, 0755);
        move(at("%s/x", d), at("%s/x", v));
        hear_all();
        ck_assert(of(user_party)->is_covered);
}
END_TEST

static void start_limited(void) {
        daemon_stop(all.daemon);
        all.daemon = daemon_start("--file-mechanism=fanotify", "--file-queue=limited");
        assert_system(chmod(all.daemon->socket, 0666) == 0, all.daemon->socket);
}

/* More happens than the kernel keeps. */
static void lose_events(const char *elsewhere) {
        for (int i = 0; i < 20000; i++)
                make_file(at("%s/%d", elsewhere, i));
}

/* All that is known of directories is forgotten. */
START_TEST(test_made_good_after_a_loss) {
        const char *elsewhere = make_root("elsewhere"), *d;

        start_limited();
        d = make_hidden(make_root("w"));
        ck_assert_int_eq(kill(all.daemon->pid, SIGSTOP), 0);
        lose_events(elsewhere);
        ck_assert_int_eq(kill(all.daemon->pid, SIGCONT), 0);
        hear_all();
        ck_assert_uint_gt(of(user_party)->n_of_root, 0);
        open_hidden(d);
}
END_TEST

/* The same directory, seen through two mounts by two who may see the same. */
START_TEST(test_made_good_on_each_mount) {
        const char *elsewhere = make_root("elsewhere"), *root = make_root("w"), *other = make_root("other"), *d;
        struct party *again;

        start_limited();
        assert_system(mount(root, other, NULL, MS_BIND, NULL) == 0, other);
        d = make_hidden(root);
        add_party("again", USER, GROUP, user_groups, ARRAY_SIZE(user_groups));
        again = &all.parties[all.n_parties - 1];
        follow_with(again, at("\"path\":\"%s\"", other));
        make_file(at("%s/hidden too", d));
        hear_all();
        ck_assert_uint_eq(of(again)->n_events, 0);
        ck_assert_int_eq(kill(all.daemon->pid, SIGSTOP), 0);
        lose_events(elsewhere);
        ck_assert_int_eq(kill(all.daemon->pid, SIGCONT), 0);
        hear_all();
        open_hidden(d);
        ck_assert_uint_gt(of(again)->n_rescans, 0);
        assert_system(umount2(other, MNT_DETACH) == 0, other);
}
END_TEST

/* The directory is forgotten for others. */
START_TEST(test_made_good_after_many) {
        enum { MANY = 70000 }; /* more than are remembered */
        const char *top = make_root("top"), *many = at("%s/many", top), *root = at("%s/w", top), *d;

        assert_system(mount("tmpfs", top, "tmpfs", 0, "mode=755") == 0, top);
        make_dir(many);
        make_dir(root);
        d = make_hidden(root);
        leave(root_party);
        follow_with(root_party, at("\"path\":\"%s\",\"notes\":[\"gone\"]", many));
        for (int i = 0; i < MANY; i++) {
                make_dir(at("%s/%d", many, i));
                make_file(at("%s/%d/f", many, i));
        }
        hear_all();
        open_hidden(d);
        assert_system(umount2(top, MNT_DETACH) == 0, top);
}
END_TEST

/* ---- verdicts of which one is no more ----------------------------------------------------------------------------- */

/* The path by which it is looked at leads to another directory by then, which is closed. */
START_TEST(test_denied_elsewhere) {
        const char *root = make_root("w"), *a = at("%s/a", root), *c = at("%s/c", root);

        make_dir(a);
        make_dir(at("%s/b", a));
        follow(root);
        hear_all();
        ck_assert_uint_eq(signal_stand_ins(SIGSTOP), all.n_parties);
        make_file(at("%s/b/f", a));
        move(a, c);
        make_dir(a);
        change_mode(a, 0700);
        (void)signal_stand_ins(SIGCONT);
        path = at("%s/b/f", c);
        hear_all();
        expect_may_read(user_party, at("%s/b", c), 0);
        path = at("%s/b/g", c);
        make_file(path);
        hear_all();
        ck_assert(of(root_party)->is_told);
        ck_assert(of(user_party)->is_covered);
}
END_TEST

/* What a process does to a file before and after the directory is opened is one event to the kernel. */
START_TEST(test_merged_with_hidden) {
        const char *d = make_hidden(make_root("w"));

        append(path, "1");
        hear_all();
        ck_assert_int_eq(kill(all.daemon->pid, SIGSTOP), 0);
        append(path, "2");
        change_mode(d, 0755);
        append(path, "3");
        ck_assert_int_eq(kill(all.daemon->pid, SIGCONT), 0);
        hear_all();
        ck_assert(of(user_party)->is_covered);
}
END_TEST

/* The kernel drops the event that tells of the mode of the watched directory itself. */
START_TEST(test_mode_in_a_loss) {
        const char *root = make_root("w"), *elsewhere = make_root("elsewhere");
        mode_t before = _i ? 0700 : 0755, after = _i ? 0755 : 0700;

        harness_label(_i ? "opened" : "closed");
        start_limited();
        follow(root);
        change_mode(root, before);
        make_file(at("%s/before", root));
        hear_all();
        ck_assert_int_eq(kill(all.daemon->pid, SIGSTOP), 0);
        lose_events(elsewhere);
        change_mode(root, after);
        ck_assert_int_eq(kill(all.daemon->pid, SIGCONT), 0);
        hear_all();
        ck_assert_uint_gt(of(root_party)->n_of_root, 0);
        path = at("%s/after", root);
        make_file(path);
        hear_all();
        ck_assert(of(root_party)->is_told);
        ck_assert_int_eq(of(user_party)->is_told, after == 0755);
}
END_TEST

/* ---- what is told of nobody's doing ------------------------------------------------------------------------------- */

/* A mount is no doing of who did something last. */
START_TEST(test_mount_is_nobodys) {
        static const char *const members[] = { "\"tree\":{\"excludeSelf\":true}", "\"notes\":[\"create\",\"rescan\",\"who\"]" };
        const char *root = make_root("w"), *d = at("%s/d", root);
        const char *error;

        harness_label(members[_i]);
        make_dir(d);
        all.root = root;
        root_party->fd = client_connect(all.daemon->socket);
        error = try_watch(root_party->fd, at("\"path\":\"%s\",%s", root, members[_i]));
        ck_assert_str_eq(error, "");
        make_file(at("%s/mine", root));
        hear_all();
        path = at("%s/f", d);
        assert_system(mount("tmpfs", d, "tmpfs", 0, NULL) == 0, d);
        hear_all();
        assert_system(umount2(d, MNT_DETACH) == 0, d);
        ck_assert(of(root_party)->is_covered);
        ck_assert(!of(root_party)->has_process);
}
END_TEST

/* ---- no more doubt than there has to be ------------------------------------------------------------------------- */

/* Directories are made for oneself, and opened to others at the end. */
START_TEST(test_copies) {
        static const char *const copies[] = { "cp -a ../from to", "tar xf ../from.tar", "cp -r ../from to" };
        enum { RESCANS_MAX = 8, DOUBT_MSEC = 100 }; /* one for that time, and what is seen of the root itself */
        const char *root = make_root("w"), *from = make_root("from");
        int64_t began;
        unsigned took_msec;

        harness_label(copies[_i]);
        (void)make_tree(from, 6, 3);
        run(harness_tempdir(), "tar cf from.tar from");
        follow(root);
        hear_all();
        began = now_msec();
        run(root, copies[_i]);
        hear_all();
        took_msec = (unsigned)(now_msec() - began);
        ck_assert_uint_gt(of(root_party)->n_events, 200);
        ck_assert_uint_eq(of(root_party)->n_rescans, 0);
        ck_assert_uint_le(of(user_party)->n_of_root, RESCANS_MAX + took_msec / DOUBT_MSEC);
}
END_TEST

/* More than is held back for a watch while it is not known whether it may be told; on a file system where nothing else
 * happens, too. */
START_TEST(test_list_of_many) {
        enum { MANY = 6000 };
        const char *root = make_root("w");

        if (_i == 1)
                assert_system(mount("tmpfs", root, "tmpfs", 0, "mode=755") == 0, root);
        for (int i = 0; i < MANY; i++)
                make_file(at("%s/%d", root, i));
        all.root = root;
        follow_with(user_party, at("\"path\":\"%s\",\"tree\":{\"list\":true}", root));
        memset(heard, 0, sizeof(heard));
        while (of(user_party)->n_events <= MANY) /* and `listed` */
                ck_assert_msg(take(user_party, HARNESS_REPLY_MSEC, hear) > 0, "%u events, %u of them `rescan`",
                              of(user_party)->n_events, of(user_party)->n_rescans);
        ck_assert_uint_eq(of(user_party)->n_events, MANY + 1);
        ck_assert_uint_eq(of(user_party)->n_rescans, 0);
        if (_i == 1)
                assert_system(umount2(root, MNT_DETACH) == 0, root);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_access_case(harness_suite("access-doubts"), "doubts", start_parties);

        tcase_add_test(c, test_each_watch_is_made_good);
        tcase_add_test(c, test_made_good_after_a_mount);
        tcase_add_test(c, test_made_good_as_one_leaves);
        tcase_add_test(c, test_made_good_after_a_loss);
        tcase_add_test(c, test_made_good_on_each_mount);
        tcase_add_test(c, test_made_good_after_many);
        tcase_add_test(c, test_denied_elsewhere);
        tcase_add_test(c, test_merged_with_hidden);
        tcase_add_loop_test(c, test_mode_in_a_loss, 0, 2);
        tcase_add_loop_test(c, test_mount_is_nobodys, 0, 2);
        tcase_add_loop_test(c, test_copies, 0, 3);
        tcase_add_loop_test(c, test_list_of_many, 0, 2);
        return harness_main(argc, argv);
}
