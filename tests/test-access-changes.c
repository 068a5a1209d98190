/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who is told what (access.h), when that changes: directories are closed and opened, and moved to where they are
 * visible and to where they are not. What they hold is told, or listed, to those alone who may read it.
 */

#include <errno.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access.h"
#include "files.h"
#include "harness.h"
#include "macro.h"
#include "persons.h"

static const struct {
        const char *name;
        const char *at; /* below the root */
        mode_t closed, open;
        uid_t closed_owner, open_owner;
        gid_t closed_group, open_group;
} changes[] = {
        { "mode of the directory", "a/d", 0700, 0755, 0, 0, 0, 0 },
        { "mode of the directory, to be searched alone", "a/d", 0711, 0755, 0, 0, 0, 0 },
        { "mode of the directory above", "a", 0700, 0755, 0, 0, 0, 0 },
        { "mode of the directory above, to be searched alone", "a", 0700, 0711, 0, 0, 0, 0 },
        { "owner", "a/d", 0700, 0700, 0, USER, 0, 0 },
        { "group", "a/d", 0750, 0750, 0, 0, GROUP_OTHER, GROUP_THREE },
        { "owner of the directory above", "a", 0700, 0700, 0, USER, 0, 0 },
};

static void set_rights(const char *path, int i, bool open) {
        uid_t owner = open ? changes[i].open_owner : changes[i].closed_owner;
        gid_t group = open ? changes[i].open_group : changes[i].closed_group;

        assert_system(chown(path, owner, group) == 0, path);
        assert_system(chmod(path, open ? changes[i].open : changes[i].closed) == 0, path);
}

/* Others of the user, so many that what all of them may see is told to them together: crowd.h. */
static int add_crowd(const char *root) {
        enum { OTHERS = 40 };
        int fd = person_connect(user_party->person, all.daemon->socket);

        for (int i = 0; i < OTHERS; i++)
                client_change(fd, "{\"add\":[{\"id\":%d,\"filter\":\"tree\",\"path\":\"%s\"}]}", i, root);
        return fd;
}

static void change_test(int n, bool in_crowd) {
        const char *root = make_root("w"), *d = at("%s/a/d", root), *changed = at("%s/%s", root, changes[n].at);
        int others = -1;

        harness_label(changes[n].name);
        make_dir(at("%s/a", root));
        make_dir(d);
        make_dir(at("%s/v", root));
        set_rights(changed, n, false);
        if (in_crowd)
                others = add_crowd(root);
        follow(root);
        for (int i = 0; i < 3; i++) {
                expect_may_read(user_party, d, EACCES);
                STEP("create, closed") make_file(at("%s/closed%d", d, i));
                STEP("write, closed") append(at("%s/closed%d", d, i), "text");
                STEP_NEW("open", changed) set_rights(changed, n, true);
                expect_may_read(user_party, d, 0);
                STEP_NEW("create, open", changed) make_file(at("%s/open%d", d, i));
                STEP("write, open") append(at("%s/open%d", d, i), "text");
                STEP("write to what was made before") append(at("%s/closed%d", d, i), "text");
                STEP("move out, open") move(at("%s/closed%d", d, i), at("%s/v/%d", root, i));
                STEP("delete, open") remove_file(at("%s/open%d", d, i));
                STEP("close") set_rights(changed, n, false);
                STEP("move in, closed") move(at("%s/v/%d", root, i), at("%s/back%d", d, i));
                STEP("delete, closed") remove_file(at("%s/back%d", d, i));
        }
        tidy_steps();
        (void)safe_close(others);
}

START_TEST(test_change) {
        change_test(_i, false);
}
END_TEST

START_TEST(test_change_in_crowd) {
        change_test(_i, true);
}
END_TEST

START_TEST(test_change_acl) {
        const char *root = make_root("w"), *d = at("%s/d", root);

        need_acl();
        make_dir(d);
        follow(root);
        for (int i = 0; i < 3; i++) {
                STEP("take") set_acl("u:64100:---", d);
                expect_may_read(user_party, d, EACCES);
                STEP("create, closed") make_file(at("%s/closed%d", d, i));
                STEP_NEW("give", d) set_acl("u:64100:rx", d);
                expect_may_read(user_party, d, 0);
                STEP_NEW("create, open", d) make_file(at("%s/open%d", d, i));
                STEP("delete, open") remove_file(at("%s/open%d", d, i));
        }
        tidy_steps();
}
END_TEST

/* A directory goes from an invisible place to a visible one, and back. */
START_TEST(test_moved) {
        const char *root = make_root("w"), *open = at("%s/open", root), *closed = at("%s/closed", root);

        make_dir(open);
        make_dir(closed);
        assert_system(chmod(closed, 0700) == 0, closed);
        make_dir(at("%s/d", closed));
        make_dir(at("%s/d/below", closed));
        make_dir(at("%s/d/own", closed));
        assert_system(chmod(at("%s/d/own", closed), 0700) == 0, closed);
        follow(root);
        for (int i = 0; i < 3; i++) {
                STEP("create, closed") make_file(at("%s/d/c%d", closed, i));
                STEP("create below, closed") make_file(at("%s/d/below/c%d", closed, i));
                STEP_NEW("out", at("%s/d", open)) move(at("%s/d", closed), at("%s/d", open));
                STEP_NEW("create, open", at("%s/d", open)) make_file(at("%s/d/o%d", open, i));
                STEP_NEW("create below, open", at("%s/d", open)) make_file(at("%s/d/below/o%d", open, i));
                STEP("write, open") append(at("%s/d/o%d", open, i), "text");
                STEP("write below, open") append(at("%s/d/below/c%d", open, i), "text");
                STEP("create in its own closed directory") make_file(at("%s/d/own/o%d", open, i));
                STEP("in") move(at("%s/d", open), at("%s/d", closed));
                STEP("write, closed") append(at("%s/d/o%d", closed, i), "text");
                STEP("delete below, closed") remove_file(at("%s/d/below/o%d", closed, i));
        }
        tidy_steps();
}
END_TEST

static void make_mixed(const char *path) {
        static const struct {
                const char *name;
                mode_t mode;
        } mixed[] = {
                { "open", 0755 }, { "closed", 0700 }, { "closed/open", 0755 }, { "search", 0711 },
                { "search/open", 0755 }, { "search/open/closed", 0700 }, { "list", 0744 }, { "list/open", 0755 },
        };

        make_dir(path);
        make_file(at("%s/file", path));
        for (size_t i = 0; i < ARRAY_SIZE(mixed); i++) {
                make_dir(at("%s/%s", path, mixed[i].name));
                make_file(at("%s/%s/file%zu", path, mixed[i].name, i));
        }
        for (size_t i = ARRAY_SIZE(mixed); i-- > 0;)
                assert_system(chmod(at("%s/%s", path, mixed[i].name), mixed[i].mode) == 0, path);
}

/* From outside of the tree, to where all may see it, and to where they may not: what is in it is told as created. */
START_TEST(test_moved_from_outside) {
        const char *root = make_root("w"), *open = at("%s/open", root), *closed = at("%s/closed", root);
        const char *outside = at("%s/outside", harness_tempdir());

        make_dir(open);
        make_dir(closed);
        assert_system(chmod(closed, 0700) == 0, closed);
        follow(root);
        make_mixed(outside);
        all.listed = at("%s/d", open);
        STEP("to where it is seen") move(outside, all.listed);
        all.listed = NULL;
        STEP("create in it") make_file(at("%s/d/new", open));
        STEP("create below it") make_file(at("%s/d/search/open/new", open));
        make_mixed(outside);
        all.listed = at("%s/d", closed);
        STEP("to where it is not") move(outside, all.listed);
        all.listed = NULL;
        STEP("create in it") make_file(at("%s/d/new", closed));
        STEP("create below it") make_file(at("%s/d/search/open/new", closed));
        tidy_steps();
}
END_TEST

/* The list that a watch asks for. */
START_TEST(test_list) {
        const char *root = make_root("w");

        make_mixed(at("%s/d", root));
        all.root = root;
        for (size_t i = 0; i < all.n_parties; i++) {
                struct party *party = &all.parties[i];

                follow_with(party, at("\"path\":\"%s\",\"tree\":{\"list\":true}", root));
                step_begin_of(party);
                lines_add(&party->seen, "listed %s", root);
                all.listed = root;
                step_end_of(party, "list");
                all.listed = NULL;
        }
        STEP("create") make_file(at("%s/d/search/open/new", root));
        tidy_steps();
}
END_TEST

/* Who is asked takes his time, and meanwhile very many directories go elsewhere on the file system (on which nobody else
 * is, since with some thousands nothing is known any more): that says nothing about this one. */
START_TEST(test_removals_elsewhere) {
        enum { N = 1000 };
        const char *top = make_root("top"), *root = at("%s/w", top), *d = at("%s/d", root);
        const char *elsewhere = at("%s/elsewhere", top);

        assert_system(mount("tmpfs", top, "tmpfs", 0, "mode=755") == 0, top);
        make_dir(root);
        make_dir(d);
        follow(root);
        STEP("create") {
                ck_assert_uint_eq(daemon_signal_helpers(all.daemon->pid, "kevd-stand-in", SIGSTOP), all.n_parties);
                make_file(at("%s/f", d));
                make_dir(elsewhere);
                for (int i = 0; i < N; i++)
                        make_dir(at("%s/%d", elsewhere, i));
                for (int i = 0; i < N; i++)
                        remove_dir(at("%s/%d", elsewhere, i));
                (void)daemon_signal_helpers(all.daemon->pid, "kevd-stand-in", SIGCONT);
        }
        tidy_steps();
        assert_system(umount2(top, MNT_DETACH) == 0, top);
}
END_TEST

/* Where a file comes from is in doubt as the move is judged: that is looked at, too, and not only where it goes. */
START_TEST(test_move_from_doubt) {
        const char *root = make_root("w"), *from = at("%s/from", root), *to = at("%s/to", root);

        make_dir(from);
        make_dir(to);
        make_file(at("%s/f", from));
        follow(root);
        STEP("create") make_file(at("%s/g", to));
        STEP_NEW("move", root) {
                ck_assert_uint_eq(daemon_signal_helpers(all.daemon->pid, "kevd-stand-in", SIGSTOP), all.n_parties);
                assert_system(chmod(from, 0711) == 0, from);
                assert_system(chmod(from, 0755) == 0, from);
                move(at("%s/f", from), at("%s/f", to));
                (void)daemon_signal_helpers(all.daemon->pid, "kevd-stand-in", SIGCONT);
        }
        tidy_steps();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_access_case(harness_suite("access-changes"), "changes", start_parties);

        tcase_add_loop_test(c, test_change, 0, ARRAY_SIZE(changes));
        tcase_add_loop_test(c, test_change_in_crowd, 0, ARRAY_SIZE(changes));
        tcase_add_test(c, test_change_acl);
        tcase_add_test(c, test_moved);
        tcase_add_test(c, test_moved_from_outside);
        tcase_add_test(c, test_list);
        tcase_add_test(c, test_removals_elsewhere);
        tcase_add_test(c, test_move_from_doubt);
        return harness_main(argc, argv);
}
