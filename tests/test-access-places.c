/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who is told what (access.h), by what a directory is: with each mode, owner, group and access control list
 * everything is done in it that can be done to files.
 */

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "access.h"
#include "files.h"
#include "harness.h"
#include "macro.h"

static const struct {
        const char *name;
        mode_t mode;
        uid_t owner;
        gid_t group;
        const char *acl;
        bool search, read; /* by the user */
} places[] = {
        { "0755", 0755, 0, 0, NULL, true, true },
        { "0700", 0700, 0, 0, NULL, false, false },
        { "0711", 0711, 0, 0, NULL, true, false },
        { "0744", 0744, 0, 0, NULL, false, true },
        { "0000", 0000, 0, 0, NULL, false, false },
        { "0700, the user's own", 0700, USER, 0, NULL, true, true },
        { "0077, the user's own", 0077, USER, GROUP, NULL, false, false },
        { "0750, of a group without the user", 0750, 0, GROUP_OTHER, NULL, false, false },
        { "0750, of the user's first group", 0750, 0, GROUP, NULL, true, true },
        { "0750, of a supplementary group", 0750, 0, GROUP_TOO, NULL, true, true },
        { "0705, of a supplementary group", 0705, 0, GROUP_THREE, NULL, false, false },
        { "0700, an ACL gives", 0700, 0, 0, "u:64100:rx", true, true },
        { "0755, an ACL takes", 0755, 0, 0, "u:64100:---", false, false },
        { "0700, an ACL gives a group", 0700, 0, 0, "g:64202:rx", true, true },
};

/* Its name stays, its rights change. */
static void set_place(const char *path, size_t i) {
        assert_system(chown(path, places[i].owner, places[i].group) == 0, path);
        assert_system(chmod(path, places[i].mode) == 0, path);
        if (places[i].acl)
                set_acl(places[i].acl, path);
}

static void do_files(const char *d) {
        STEP("create") make_file(at("%s/file", d));
        STEP("write") append(at("%s/file", d), "text");
        STEP("chmod of a file") assert_system(chmod(at("%s/file", d), 0600) == 0, d);
        STEP("rename") move(at("%s/file", d), at("%s/renamed", d));
        STEP("make another") append(at("%s/other", d), "text");
        STEP("rename over another") move(at("%s/renamed", d), at("%s/other", d));
        STEP("symlink") assert_system(symlink("/", at("%s/symlink", d)) == 0, d);
        STEP("unlink") remove_file(at("%s/other", d));
        STEP("unlink the symlink") remove_file(at("%s/symlink", d));
        STEP("mkdir") make_dir(at("%s/dir", d));
        STEP("create below") make_file(at("%s/dir/file", d));
        STEP("rename a directory") move(at("%s/dir", d), at("%s/dir2", d));
        STEP("write below") append(at("%s/dir2/file", d), "text");
        /* Several operations: the directory may be gone before anybody can look at it. */
        STEP_NEW("rm -r", all.root) run(d, "rm -r dir2");
}

static void do_links(const char *d, const char *v) {
        STEP("create") make_file(at("%s/file", d));
        STEP("link out") assert_system(link(at("%s/file", d), at("%s/link", v)) == 0, v);
        STEP("write by the link") append(at("%s/link", v), "text");
        STEP("write by the first name") append(at("%s/file", d), "text");
        STEP("unlink the first") remove_file(at("%s/file", d));
        STEP("link in") assert_system(link(at("%s/link", v), at("%s/again", d)) == 0, d);
        STEP("write by what is in") append(at("%s/again", d), "text");
        STEP("unlink what is out") remove_file(at("%s/link", v));
        STEP("unlink what is in") remove_file(at("%s/again", d));
}

static void do_moves(const char *d, const char *v) {
        STEP("create") make_file(at("%s/file", d));
        STEP("file out") move(at("%s/file", d), at("%s/out", v));
        STEP("write, out") append(at("%s/out", v), "text");
        STEP("file in") move(at("%s/out", v), at("%s/in", d));
        STEP("write, in") append(at("%s/in", d), "text");
        STEP("make another") make_file(at("%s/there", v));
        STEP("file out, over another") move(at("%s/in", d), at("%s/there", v));
        STEP("delete") remove_file(at("%s/there", v));

        STEP("mkdir") make_dir(at("%s/dir", d));
        STEP("mkdir below") make_dir(at("%s/dir/sub", d));
        STEP("create below") make_file(at("%s/dir/sub/file", d));
        all.ends[0] = d;
        all.ends[1] = v;
        STEP_NEW("directory out", at("%s/moved", v)) move(at("%s/dir", d), at("%s/moved", v));
        STEP_NEW("create in it, out", at("%s/moved", v)) make_file(at("%s/moved/new", v));
        STEP_NEW("create below it, out", at("%s/moved", v)) make_file(at("%s/moved/sub/new", v));
        STEP("write below it, out") append(at("%s/moved/sub/file", v), "text");
        STEP_NEW("directory in", at("%s/back", d)) move(at("%s/moved", v), at("%s/back", d));
        STEP_NEW("create in it, in", at("%s/back", d)) make_file(at("%s/back/new2", d));
        STEP_NEW("create below it, in", at("%s/back", d)) make_file(at("%s/back/sub/new2", d));
        STEP("write below it, in") append(at("%s/back/sub/file", d), "text");
        STEP("delete below it, in") remove_file(at("%s/back/sub/new", d));
        STEP_NEW("directory out again", at("%s/moved", v)) move(at("%s/back", d), at("%s/moved", v));
        STEP_NEW("create below it, out again", at("%s/moved", v)) make_file(at("%s/moved/sub/new3", v));
        STEP("delete below it, out") remove_file(at("%s/moved/sub/file", v));
        all.ends[0] = all.ends[1] = NULL;
        STEP_NEW("rm -r", all.root) run(v, "rm -r moved");
}

static void make_place(size_t i, const char *d) {
        make_dir(d);
        make_dir(at("%s/sub", d)); /* to be reached by name where the place may be searched */
        set_place(d, i);
        expect_may_read(user_party, d, places[i].read ? 0 : EACCES);
        expect_may_read(user_party, at("%s/sub", d), places[i].search ? 0 : EACCES);
}

START_TEST(test_place) {
        const char *root = make_root("w"), *d = at("%s/d", root), *v = at("%s/v", root);

        harness_label(places[_i].name);
        if (places[_i].acl)
                need_acl();
        make_dir(v);
        make_place((size_t)_i, d);
        follow(root);
        do_files(d);
        do_links(d, v);
        do_moves(d, v);
        if (!places[_i].owner && !places[_i].group && !places[_i].acl) { /* the others go the same ways */
                do_files(at("%s/sub", d));
                do_moves(at("%s/sub", d), d);
        }
        STEP_NEW("rm -r", root) run(root, "rm -r d");
        tidy_steps();
}
END_TEST

/* The root of the watch itself becomes such a place, and is opened again. */
START_TEST(test_place_is_root) {
        const char *root = make_root("w"), *sub = at("%s/sub", root);

        harness_label(places[_i].name);
        if (places[_i].acl)
                need_acl();
        make_dir(sub);
        follow(root);
        STEP("create") make_file(at("%s/before", root));
        STEP("create below") make_file(at("%s/before", sub));
        set_place(root, (size_t)_i);
        expect_may_read(user_party, root, places[_i].read ? 0 : EACCES);
        skip_due(); /* what its rights became is told while they do */
        STEP_NEW("create, now", root) make_file(at("%s/during", root));
        STEP_NEW("create below, now", root) make_file(at("%s/during", sub));
        STEP("create, again") make_file(at("%s/during2", root));
        STEP("create below, again") make_file(at("%s/during2", sub));
        assert_system(chown(root, 0, 0) == 0, root);
        if (places[_i].acl)
                run(root, "setfacl -b .");
        assert_system(chmod(root, 0755) == 0, root);
        STEP_NEW("create, open", root) make_file(at("%s/after", root));
        STEP_NEW("create below, open", root) make_file(at("%s/after", sub));
        /* Who may see it again is told to rescan when that is found, which nothing here waits for. */
        STEP_NEW("create, open again", root) make_file(at("%s/after2", root));
        STEP_NEW("create below, open again", root) make_file(at("%s/after2", sub));
        tidy_steps();
}
END_TEST

/* The same user twice, with groups and without. */
START_TEST(test_groups) {
        const char *root = make_root("w");
        static const gid_t groups[] = { GROUP, GROUP_TOO, GROUP_THREE, GROUP_OTHER };

        add_party("user without groups", USER, USER, NULL, 0);
        for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
                const char *d = at("%s/d%zu", root, i);

                make_dir(d);
                assert_system(chown(d, 0, groups[i]) == 0 && chmod(d, 0750) == 0, d);
                expect_may_read(user_party, d, groups[i] == GROUP_OTHER ? EACCES : 0);
                expect_may_read(&all.parties[3], d, EACCES);
        }
        follow(root);
        for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
                do_files(at("%s/d%zu", root, i));
        for (size_t i = 1; i < ARRAY_SIZE(groups); i++)
                do_moves(at("%s/d%zu", root, i - 1), at("%s/d%zu", root, i));
        tidy_steps();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_access_case(harness_suite("access-places"), "places", start_parties);

        tcase_add_loop_test(c, test_place, 0, ARRAY_SIZE(places));
        tcase_add_loop_test(c, test_place_is_root, 0, ARRAY_SIZE(places));
        tcase_add_test(c, test_groups);
        return harness_main(argc, argv);
}
