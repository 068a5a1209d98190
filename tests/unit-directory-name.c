/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * broker/directory_name: what directories are called.
 */

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

#include "directory_name.h"
#include "files.h"
#include "harness.h"

static char name[256];

/* What that directory is called in `parent`. */
static int ask(const char *parent, const char *directory) {
        int above = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
        int fd = openat(above, directory, O_PATH | O_DIRECTORY | O_CLOEXEC), r;

        assert_system(above >= 0 && fd >= 0, directory);
        name[0] = 0;
        r = directory_name(above, fd, name);
        (void)close(fd);
        (void)close(above);
        return r;
}

static void expect(const char *parent, const char *directory) {
        ck_assert_int_eq(ask(parent, directory), 0);
        ck_assert_str_eq(name, directory);
}

/* In a listing each has a number that is not its inode's. */
START_TEST(subvolume) {
        const char *top;

        need_private_mounts();
        top = make_root("btrfs");
        if (system(at("cd '%s' && truncate -s 256M image && mkfs.btrfs -q image && mount -o loop image btrfs",
                      harness_tempdir())) != 0) /* NOLINT(cert-env33-c) */
                harness_skip("no btrfs can be mounted");
        run(top, "mkdir plain; btrfs -q subvolume create one; btrfs -q subvolume create one/two; mkdir one/two/plain");
        expect(top, "plain");
        expect(top, "one");
        expect(at("%s/one", top), "two");
        expect(at("%s/one/two", top), "plain");
        assert_system(umount2(top, 0) == 0, top);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("directory-name"), "names");

        tcase_add_test(c, subvolume);
        return harness_main(argc, argv);
}
