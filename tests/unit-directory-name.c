/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * broker/directory_name: what directories are called, and how often a large one is read for that.
 */

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "directory_name.h"
#include "files.h"
#include "harness.h"
#include "unit.h"

enum { NAME_SIZE = 250 };

static char name[256];

static const char *long_name(int i) {
        static char text[NAME_SIZE + 1];

        format(text, sizeof(text), "%0*d", NAME_SIZE, i);
        return text;
}

static void make_dirs(const char *directory, int n) {
        int fd = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC);

        assert_system(fd >= 0, directory);
        for (int i = 0; i < n; i++)
                assert_often(mkdirat(fd, long_name(i), 0755) == 0, "%s: %s", directory, strerror(errno));
        (void)close(fd);
}

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

static int watch_reads(const char *directory) {
        int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

        assert_system(fd >= 0 && inotify_add_watch(fd, directory, IN_OPEN | IN_ONLYDIR) >= 0, directory);
        return fd;
}

/* Since this was asked last. */
static bool was_read(int fd) {
        char events[4096];

        return read(fd, events, sizeof(events)) > 0;
}

/* The first that the listing has, or the last. */
static const char *end_of(const char *path, bool last) {
        static char found[256];
        DIR *directory = opendir(path);
        const struct dirent *entry;

        assert_system(directory, path);
        found[0] = 0;
        while ((last || !found[0]) && (entry = readdir(directory)))
                if (entry->d_name[0] != '.')
                        memcpy(found, entry->d_name, strlen(entry->d_name) + 1);
        (void)closedir(directory);
        return found;
}

START_TEST(two_large) {
        enum { DIRECTORIES = 300 };
        const char *parents[2];
        int reads[2];

        need_fanotify();
        for (int k = 0; k < 2; k++) {
                parents[k] = make_root(k ? "larger" : "large");
                make_dirs(parents[k], DIRECTORIES + k);
                reads[k] = watch_reads(parents[k]);
        }
        for (int i = 0; i < 5; i++)
                for (int k = 0; k < 2; k++) {
                        expect(parents[k], long_name(i));
                        ck_assert_int_eq(was_read(reads[k]), i == 0);
                }
        for (int k = 0; k < 2; k++) {
                make_dir(at("%s/new", parents[k]));
                expect(parents[k], "new");
                ck_assert(was_read(reads[k]));
                ck_assert_int_eq(ask(parents[k], at("%s/%s", parents[!k], long_name(0))), -EAGAIN);
                ck_assert(was_read(reads[k]));
        }
        directory_names_forget();
        for (int k = 0; k < 2; k++) {
                expect(parents[k], "new");
                ck_assert(was_read(reads[k]));
                (void)close(reads[k]);
        }
}
END_TEST

/* One that could not be read to its end is not remembered. */
START_TEST(no_memory) {
        enum { DIRECTORIES = 2000 };
        const char *parent, *first;
        struct rlimit before, none;
        void *room;
        int reads, r;

        if (IS_SANITIZED)
                harness_skip("the sanitizer's memory can't be limited");
        need_fanotify();
        parent = make_root("large");
        make_dirs(parent, DIRECTORIES);
        first = end_of(parent, false);
        reads = watch_reads(parent);
        room = malloc(64 * 1024); /* for the directory, and some names */
        ck_assert_ptr_nonnull(room);
        free(room);
        assert_system(getrlimit(RLIMIT_AS, &before) == 0, "getrlimit");
        none = (struct rlimit){ .rlim_cur = 0, .rlim_max = before.rlim_max };
        assert_system(setrlimit(RLIMIT_AS, &none) == 0, "setrlimit");
        r = ask(parent, first);
        assert_system(setrlimit(RLIMIT_AS, &before) == 0, "setrlimit");
        ck_assert_int_eq(r, -ENOMEM);
        ck_assert(was_read(reads));
        expect(parent, first);
        ck_assert(was_read(reads));
        (void)close(reads);
}
END_TEST

/* Of more than are looked at, those that are have their names whenever they are asked for. */
START_TEST(too_many) {
        enum { DIRECTORIES = 66000 };
        const char *parent;

        need_private_mounts();
        parent = make_root("large");
        assert_system(mount("tmpfs", parent, "tmpfs", 0, NULL) == 0, parent);
        make_dirs(parent, DIRECTORIES);
        for (int i = 0; i < 2; i++) {
                expect(parent, end_of(parent, false));
                ck_assert_int_eq(ask(parent, end_of(parent, true)), -EMLINK);
        }
        assert_system(umount2(parent, MNT_DETACH) == 0, parent);
}
END_TEST

/* In a listing each has a number that is not its inode's. */
START_TEST(subvolume) {
        const char *top;

        need_private_mounts();
        top = make_root("btrfs");
        if (system(at("exec >/dev/null 2>&1; cd '%s' && truncate -s 256M image && mkfs.btrfs -q image && "
                      "mount -o loop image btrfs", harness_tempdir())) != 0) /* NOLINT(cert-env33-c) */
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

        tcase_set_timeout(c, 60);
        tcase_add_test(c, two_large);
        tcase_add_test(c, no_memory);
        tcase_add_test(c, too_many);
        tcase_add_test(c, subvolume);
        return harness_main(argc, argv);
}
