/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who is told what (access.h), and mounts: of what is above a mount point, the events of the file system that is
 * mounted there say nothing.
 */

#include <errno.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "access.h"
#include "files.h"
#include "harness.h"

/* A directory above the mount point is closed: no event of this file system says so. */
START_TEST(test_above_mount) {
        const char *above, *root;

        above = make_root("above");
        root = at("%s/mounted", above);
        make_dir(root);
        assert_system(mount("tmpfs", root, "tmpfs", 0, "mode=755") == 0, root);
        make_dir(at("%s/d", root));
        follow(root);
        STEP("create") make_file(at("%s/file", root));
        STEP("create below") make_file(at("%s/d/file", root));
        for (int i = 0; i < 2; i++) {
                assert_system(chmod(above, 0700) == 0, above);
                expect_may_read(user_party, root, EACCES);
                STEP("create, closed") make_file(at("%s/closed%d", root, i));
                STEP("create below, closed") make_file(at("%s/d/closed%d", root, i));
                assert_system(chmod(above, 0755) == 0, above);
                STEP_NEW("create, open", root) make_file(at("%s/open%d", root, i));
                STEP_NEW("create below, open", root) make_file(at("%s/d/open%d", root, i));
        }
        for (size_t i = 0; i < all.n_parties; i++)
                leave(&all.parties[i]);
        tidy_steps();
        assert_system(umount2(root, MNT_DETACH) == 0, root);
}
END_TEST

/* The watched directory is closed to the user for a while, and something is mounted elsewhere: the watch stays. */
START_TEST(test_mounted_elsewhere) {
        const char *root = make_root("w"), *elsewhere = make_root("elsewhere");

        follow(root);
        STEP("create") make_file(at("%s/file", root));
        STEP("close") assert_system(chmod(root, 0700) == 0, root);
        assert_system(mount("tmpfs", elsewhere, "tmpfs", 0, "mode=755") == 0, elsewhere);
        STEP("create, closed") make_file(at("%s/closed", root));
        assert_system(umount2(elsewhere, 0) == 0, elsewhere);
        STEP("create, closed, again") make_file(at("%s/closed2", root));
        STEP_NEW("open", root) assert_system(chmod(root, 0755) == 0, root);
        STEP_NEW("create, open", root) make_file(at("%s/open", root));
        STEP("create, open, again") make_file(at("%s/open2", root));
        tidy_steps();
}
END_TEST

static void start_with_mounts(void) {
        need_private_mounts();
        start_parties();
}

int main(int argc, char *argv[]) {
        TCase *c = make_access_case(harness_suite("access-mounts"), "mounts", start_with_mounts);

        tcase_add_test(c, test_above_mount);
        tcase_add_test(c, test_mounted_elsewhere);
        return harness_main(argc, argv);
}
