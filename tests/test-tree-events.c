/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Tree watches on the real daemon: which events tell of what is done to a file and to files of all kinds, and that
 * only the notes that were asked for are told.
 */

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connect.h"
#include "files.h"
#include "harness.h"
#include "kev.h"
#include "replay.h"
#include "trees.h"

START_TEST(test_file) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);
        char file[PATH_MAX];
        int fd;

        (void)snprintf(file, sizeof(file), "%s/file", root);
        ck_assert(!follower_take(f, 0, NULL));
        make_file(file);
        expect(f, file, KEV_NOTE_CREATE | KEV_NOTE_CLOSEWRITE);
        fd = open(file, O_WRONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert(!follower_take(f, 0, NULL)); /* to open is not in the notes by default */
        ck_assert_int_eq(write(fd, "a", 1), 1);
        expect(f, file, KEV_NOTE_WRITE);
        ck_assert_int_eq(ftruncate(fd, 0), 0);
        expect(f, file, KEV_NOTE_WRITE);
        ck_assert_int_eq(close(fd), 0);
        expect(f, file, KEV_NOTE_CLOSEWRITE);
        ck_assert_int_eq(chmod(file, 0600), 0);
        expect(f, file, KEV_NOTE_ATTRIB);
        move(file, at("%s/other", root));
        expect(f, at("%s/other", root), KEV_NOTE_RENAME);
        remove_file(at("%s/other", root));
        expect(f, at("%s/other", root), KEV_NOTE_DELETE);
        ck_assert(!follower_take(f, 0, NULL));
        follower_check(f, "a file");
        replay_check_sane(f->replay, "sane");
        follower_free(f);
}
END_TEST

START_TEST(test_kinds) {
        const char *root = make_root("w");
        struct follower *f = follower_new(kevd, root, REPLAY_STRICT);

        make_dir(at("%s/dir", root));
        ck_assert_int_eq(symlink("dir", at("%s/link", root)), 0);
        ck_assert_int_eq(mkfifo(at("%s/fifo", root), 0600), 0);
        make_file(at("%s/file", root));
        ck_assert_int_eq(link(at("%s/file", root), at("%s/dir/hard", root)), 0);
        follower_check(f, "files of all kinds");
        replay_check_sane(f->replay, "sane");

        remove_file(at("%s/link", root));
        make_dir(at("%s/link", root));
        make_file(at("%s/link/below", root));
        follower_check(f, "a directory in the place of a link");
        /* Changed by chmod as the directory's entry, and, if it is watched, as itself: told once. */
        ck_assert_int_eq(chmod(at("%s/dir", root), 0555), 0);
        ck_assert_uint_eq(see(f, at("%s/dir", root)).n, 1);
        ck_assert_int_eq(chmod(root, 0775), 0);
        expect(f, root, KEV_NOTE_ATTRIB);
        follower_free(f);
}
END_TEST

/* Only the notes that were asked for. */
START_TEST(test_notes) {
        const char *root = make_root("w");
        struct kev_watch *watch;
        struct kev *kev;
        const struct kev_event *event;

        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        watch = new_tree_watch(root, KEV_NOTE_CLOSEWRITE);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
        kev_watch_free(watch);
        make_dir(at("%s/d", root));
        append(at("%s/d/file", root), "text");
        append(at("%s/file", root), "text");
        remove_file(at("%s/file", root));
        ck_assert_int_eq(kev_wait(kev, 0, &event), 1);
        ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_CLOSEWRITE);
        while (kev_wait(kev, 0, &event) == 1)
                ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_CLOSEWRITE);
        kev_close(kev);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = make_tree_case(harness_suite("tree-events"), "events", 60);

        tcase_add_test(c, test_file);
        tcase_add_test(c, test_kinds);
        tcase_add_test(c, test_notes);
        return harness_main(argc, argv);
}
