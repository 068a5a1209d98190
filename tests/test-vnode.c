/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * vnode watches on the real daemon, in kqueue's words: the list of their meanings, one test each, by
 * path and by descriptor. A Wait with a timeout of 0 is the barrier.
 */

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "connect.h"
#include "files.h"
#include "harness.h"
#include "kev.h"
#include "macro.h"

#define W KEV_NOTE_WRITE
#define E KEV_NOTE_EXTEND
#define L KEV_NOTE_LINK

enum { BY_PATH, BY_DESCRIPTOR, WAYS };

static struct daemon *kevd;
static struct kev *kev;

static void start(void) {
        kevd = daemon_start(NULL);
        ck_assert_int_eq(open_kev(kevd->socket, &kev), 0);
        /* All names below are in this directory. */
        assert_system(chdir(harness_tempdir()) == 0 && mkdir("w", 0755) == 0 && chdir("w") == 0, "chdir");
}

static void stop(void) {
        assert_system(chdir("/") == 0, "chdir");
        kev_close(kev);
        daemon_stop(kevd);
}

/* ---- what is done ------------------------------------------------------------------------------- */

static void make_text(const char *name) {
        put(name, O_CREAT | O_EXCL, "text");
}

#define must(call) assert_system((call) == 0, #call)

/* To whoever reads the kernel's queue. */
static void signal_watcher(int signal) {
        if (daemon_signal_helpers(kevd->pid, "kevd-deputy", signal) == 0)
                must(kill(kevd->pid, signal));
}

/* ---- watching ------------------------------------------------------------------------------------- */

/* `notes` 0: those by default. */
static int64_t watch_on(struct kev *on, const char *name, int way, uint64_t notes) {
        struct kev_watch *watch;
        int64_t id;
        int r;

        harness_label(way == BY_PATH ? "by path" : "by descriptor");
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_VNODE, &watch), 0);
        if (way == BY_PATH) {
                ck_assert_int_eq(kev_watch_set_path(watch, name), 0);
        } else {
                int fd = open(name, O_PATH | O_CLOEXEC);

                assert_system(fd >= 0, name);
                ck_assert_int_eq(kev_watch_set_fd(watch, fd), 0);
                (void)close(fd);
        }
        ck_assert_int_eq(kev_watch_set_notes(watch, notes), 0);
        r = kev_add(on, watch, NULL, NULL, &id);
        ck_assert_msg(r == 0, "%s: %s", name, kev_error_message(on));
        kev_watch_free(watch);
        return id;
}

static int64_t watch(const char *name, int way) {
        return watch_on(kev, name, way, 0);
}

static void change(int64_t id, uint64_t notes, int expected) {
        struct kev_watch *watch;

        ck_assert_int_eq(kev_watch_new(KEV_FILTER_VNODE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_notes(watch, notes), 0);
        ck_assert_int_eq(kev_modify(kev, id, watch), expected);
        kev_watch_free(watch);
}

struct seen {
        uint64_t notes, counted;
        char text[2048];
};

/* All that is due of one watch. */
static struct seen see_on(struct kev *on, int64_t id) {
        const struct kev_event *event;
        struct seen seen = { 0 };
        int r;

        while ((r = kev_wait(on, 0, &event)) == 1) {
                if (kev_event_id(event) != id)
                        continue;
                seen.notes |= kev_event_notes(event);
                seen.counted += kev_event_count(event);
                if (strlen(seen.text) + strlen(kev_event_json(event)) < sizeof(seen.text) - 2)
                        strcat(strcat(seen.text, "\n"), kev_event_json(event));
        }
        ck_assert_msg(r == 0, "kev_wait: %s", kev_error_message(on));
        return seen;
}

static void expect_on(struct kev *on, int64_t id, uint64_t notes, const char *what) {
        struct seen seen = see_on(on, id);

        ck_assert_msg(seen.notes == notes, "%s:%s", what, seen.notes ? seen.text : " nothing");
}

#define expect(id, notes, what) expect_on(kev, id, notes, what)

/* Where it is the last close of a descriptor that has been passed: others may be a little later. Returns what came. */
static struct seen see_until(int64_t id, uint64_t notes) {
        int64_t until = now_msec() + HARNESS_REPLY_MSEC;
        struct seen all = { 0 }, seen;

        do {
                seen = see_on(kev, id);
                all.notes |= seen.notes;
                all.counted += seen.counted;
                (void)snprintf(all.text + strlen(all.text), sizeof(all.text) - strlen(all.text), "%s", seen.text);
        } while ((all.notes & notes) != notes && now_msec() < until);
        return all;
}

/* These at least. */
static void expect_among(int64_t id, uint64_t notes, const char *what) {
        struct seen seen = see_until(id, notes);

        ck_assert_msg((seen.notes & notes) == notes, "%s:%s", what, seen.notes ? seen.text : " nothing");
}

static void expect_soon(int64_t id, uint64_t notes, const char *what) {
        struct seen seen = see_until(id, notes);

        ck_assert_msg(seen.notes == notes, "%s:%s", what, seen.notes ? seen.text : " nothing");
}

/* ---- a file ------------------------------------------------------------------------------------------ */

START_TEST(test_write) {
        int64_t id;
        int fd;

        make_text("f");
        id = watch("f", _i);
        put("f", O_APPEND, "more");
        expect(id, W | E | KEV_NOTE_CLOSEWRITE, "append");
        put("f", 0, "TEXT");
        expect(id, W | KEV_NOTE_CLOSEWRITE, "in place");
        fd = open("f", O_WRONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        expect(id, 0, "open");
        ck_assert_int_eq(pwrite(fd, "x", 1, 7), 1);
        expect(id, W, "the last byte");
        ck_assert_int_eq(pwrite(fd, "xy", 2, 7), 2);
        expect(id, W | E, "beyond the last byte");
        ck_assert_int_eq(close(fd), 0);
        expect(id, KEV_NOTE_CLOSEWRITE, "close");
}
END_TEST

START_TEST(test_truncate) {
        int64_t id;

        make_text("f");
        id = watch("f", _i);
        must(truncate("f", 2));
        expect(id, W, "shorter");
        must(truncate("f", 1000));
        expect(id, W | E, "longer");
        put("f", O_TRUNC, "text again"); /* whether it was longer in between is hardly to be known */
        ck_assert_uint_eq(see_on(kev, id).notes & ~E, W | KEV_NOTE_CLOSEWRITE);
}
END_TEST

START_TEST(test_attrib) {
        const struct timespec times[2] = { { 1, 0 }, { 2, 0 } };
        int64_t id;

        make_text("f");
        id = watch("f", _i);
        must(chmod("f", 0600));
        expect(id, KEV_NOTE_ATTRIB, "chmod");
        must(utimensat(AT_FDCWD, "f", times, 0));
        expect(id, KEV_NOTE_ATTRIB, "utimensat");
}
END_TEST

START_TEST(test_link) {
        int64_t id;

        make_text("f");
        id = watch("f", _i);
        must(link("f", "g"));
        expect(id, L, "made");
        must(unlink("g"));
        expect(id, L, "removed");
        must(link("f", "g"));
        must(chmod("g", 0600));
        must(link("g", "h"));
        expect_among(id, L, "two links and a chmod");
        must(unlink("f"));
        expect(id, L, "the watched name removed");
        must(unlink("g"));
        must(unlink("h"));
        expect_among(id, KEV_NOTE_DELETE, "deleted");
}
END_TEST

START_TEST(test_rename) {
        int64_t id;

        make_text("f");
        must(mkdir("d", 0755));
        id = watch("f", _i);
        must(rename("f", "g"));
        expect(id, KEV_NOTE_RENAME, "rename");
        must(rename("g", "d/f"));
        expect(id, KEV_NOTE_RENAME, "to another directory");
        make_text("f");
        expect(id, 0, "another file of that name");
        put("d/f", 0, "TEXT");
        expect(id, W | KEV_NOTE_CLOSEWRITE, "written in place");
        must(unlink("d/f"));
        expect_among(id, KEV_NOTE_DELETE, "deleted");
}
END_TEST

START_TEST(test_delete) {
        int64_t id;

        make_text("f");
        id = watch("f", _i);
        must(unlink("f"));
        expect_soon(id, KEV_NOTE_DELETE, "unlink");
        make_text("f");
        expect(id, 0, "made again");
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* At unlink, not at the last close. */
START_TEST(test_delete_while_open) {
        int64_t id;
        int fd;

        make_text("f");
        fd = open("f", O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        id = watch("f", _i);
        must(unlink("f"));
        expect_soon(id, KEV_NOTE_DELETE, "unlink");
        ck_assert_int_eq(close(fd), 0);
        expect(id, KEV_NOTE_CLOSEWRITE, "the last close");
}
END_TEST

/* Where the file has changed its name before (rotated, and then removed) it can't be looked at: the kernel says that
 * the inode changed, and at the last close that it has gone. */
START_TEST(test_renamed_and_deleted_while_open) {
        int64_t id;
        int fd;

        make_text("f");
        fd = open("f", O_RDWR | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        id = watch("f", _i);
        must(rename("f", "g"));
        expect(id, KEV_NOTE_RENAME, "rename");
        ck_assert_int_eq(write(fd, "longer than before", 18), 18);
        expect_among(id, W, "write");
        must(unlink("g"));
        expect(id, KEV_NOTE_ATTRIB, "deleted, as long as the file is open");
        ck_assert_int_eq(close(fd), 0);
        expect_soon(id, KEV_NOTE_CLOSEWRITE | KEV_NOTE_DELETE, "the last close");
}
END_TEST

START_TEST(test_replaced) {
        int64_t id, of_new;
        int fd = -1;

        make_text("f");
        make_text("new");
        if (_i >= WAYS) {
                fd = open("f", O_RDONLY | O_CLOEXEC);
                ck_assert_int_ge(fd, 0);
        }
        id = watch("f", _i % WAYS);
        of_new = watch("new", _i % WAYS);
        must(rename("new", "f"));
        expect_soon(id, KEV_NOTE_DELETE, "replaced");
        put("f", O_APPEND, "x");
        expect(id, 0, "the new one");
        must(rename("f", "new"));
        expect_among(of_new, KEV_NOTE_RENAME, "renamed");
        if (fd >= 0)
                ck_assert_int_eq(close(fd), 0);
}
END_TEST

START_TEST(test_costly_notes) {
        int64_t id, asked;
        char byte;
        int fd;

        make_text("f");
        id = watch("f", _i);
        fd = open("f", O_RDONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(read(fd, &byte, 1), 1);
        ck_assert_int_eq(close(fd), 0);
        expect(id, 0, "not asked for");
        asked = watch_on(kev, "f", _i, KEV_NOTE_OPEN | KEV_NOTE_CLOSE | KEV_NOTE_READ);
        fd = open("f", O_RDONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        expect(asked, KEV_NOTE_OPEN, "open");
        ck_assert_int_eq(read(fd, &byte, 1), 1);
        expect(asked, KEV_NOTE_READ, "read");
        ck_assert_int_eq(close(fd), 0);
        expect(asked, KEV_NOTE_CLOSE, "close");
        put("f", 0, "x");
        ck_assert_uint_eq(see_on(kev, asked).notes & (W | KEV_NOTE_CLOSEWRITE), 0);
        fd = open("f", O_RDONLY | O_CLOEXEC);
        ck_assert_int_eq(close(fd), 0);
        ck_assert_uint_eq(see_on(kev, id).notes & (KEV_NOTE_OPEN | KEV_NOTE_CLOSE | KEV_NOTE_READ), 0);
}
END_TEST

/* Many at once: nothing is lost of what they were, whatever was looked at late. */
START_TEST(test_many_writes) {
        int64_t id;
        int fd;

        make_text("f");
        id = watch("f", _i);
        fd = open("f", O_WRONLY | O_APPEND | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        for (int i = 0; i < 1000; i++) {
                ck_assert_int_eq(write(fd, "x", 1), 1);
                if (i % 100 == 99)
                        expect(id, W | E, "a hundred writes");
        }
        must(fchmod(fd, 0600));
        must(link("f", "g"));
        ck_assert_int_eq(write(fd, "x", 1), 1);
        must(rename("f", "h"));
        must(unlink("h"));
        must(unlink("g"));
        ck_assert_int_eq(close(fd), 0);
        /* The kernel ends its watch with the last name here, before the close. */
        expect_among(id, W | KEV_NOTE_RENAME | KEV_NOTE_DELETE, "all at once");
}
END_TEST

/* Written, made longer and cut again before anybody could look. */
START_TEST(test_extend_is_not_forgotten) {
        int64_t id;
        int fd;

        make_text("f");
        id = watch("f", _i);
        fd = open("f", O_WRONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        must(ftruncate(fd, 0));
        ck_assert_int_eq(write(fd, "text", 4), 4);
        expect_among(id, W, "write");
        ck_assert_int_eq(close(fd), 0);
}
END_TEST

/* Changed, and made longer before anybody could look. */
START_TEST(test_extend_after_attrib) {
        int64_t id;

        make_text("f");
        id = watch("f", _i);
        signal_watcher(SIGSTOP);
        must(chmod("f", 0600));
        put("f", O_APPEND, "x");
        signal_watcher(SIGCONT);
        expect_among(id, KEV_NOTE_ATTRIB | W | E | KEV_NOTE_CLOSEWRITE, "chmod, and a write");
}
END_TEST

/* ---- a directory ---------------------------------------------------------------------------------------- */

START_TEST(test_directory) {
        int64_t id;

        must(mkdir("d", 0755));
        make_text("outside");
        id = watch("d", _i);
        make_text("d/f");
        expect(id, W, "create");
        put("d/f", O_APPEND, "x");
        must(chmod("d/f", 0600));
        expect(id, 0, "what is done to an entry");
        must(symlink("x", "d/symlink"));
        expect(id, W, "symlink");
        must(link("outside", "d/link"));
        expect(id, W, "link");
        must(unlink("d/link"));
        expect(id, W, "unlink");
        must(mkdir("d/d", 0755));
        expect(id, W | L, "mkdir");
        make_text("d/d/f");
        expect(id, 0, "further down");
        must(unlink("d/d/f"));
        must(rmdir("d/d"));
        expect(id, W | L, "rmdir");
        must(rename("d/f", "d/g"));
        expect(id, W, "rename inside");
        must(mkdir("d/d", 0755));
        expect(id, W | L, "mkdir");
        must(rename("d/d", "d/e"));
        expect(id, W, "rename of a directory inside");
        must(chmod("d", 0700));
        expect(id, KEV_NOTE_ATTRIB, "chmod");
}
END_TEST

START_TEST(test_across) {
        int64_t of_a, of_b;

        must(mkdir("a", 0755));
        must(mkdir("b", 0755));
        must(mkdir("c", 0755));
        make_text("a/f");
        must(mkdir("a/d", 0755));
        of_a = watch("a", _i);
        of_b = watch("b", _i);
        must(rename("a/f", "b/f"));
        {
                const struct kev_event *event;
                uint64_t notes[2] = { 0 };

                while (kev_wait(kev, 0, &event) == 1)
                        notes[kev_event_id(event) == of_b] |= kev_event_notes(event);
                ck_assert_uint_eq(notes[0], W | E);
                ck_assert_uint_eq(notes[1], W | E);
                must(rename("a/d", "b/d"));
                notes[0] = notes[1] = 0;
                while (kev_wait(kev, 0, &event) == 1)
                        notes[kev_event_id(event) == of_b] |= kev_event_notes(event);
                ck_assert_uint_eq(notes[0], W | E | L);
                ck_assert_uint_eq(notes[1], W | E | L);
        }
        must(rename("b/f", "c/f"));
        expect(of_b, W | E, "to where nobody watches");
        must(rename("c/f", "a/f"));
        expect(of_a, W | E, "from where nobody watches");
        must(rename("b/d", "c/d"));
        expect(of_b, W | E | L, "a directory to where nobody watches");
}
END_TEST

START_TEST(test_directory_ends) {
        int64_t id;

        must(mkdir("d", 0755));
        id = watch("d", _i);
        must(rename("d", "e"));
        expect(id, KEV_NOTE_RENAME, "rename");
        must(rmdir("e"));
        expect_soon(id, KEV_NOTE_DELETE, "rmdir");
}
END_TEST

/* rmdir of a directory that is open gives no event of its own until the last close. */
START_TEST(test_directory_deleted_while_open) {
        int64_t id;
        int fd;

        must(mkdir("d", 0755));
        fd = open("d", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        id = watch("d", _i);
        must(rmdir("d"));
        expect(id, 0, "deleted, as long as the directory is open");
        ck_assert_int_eq(close(fd), 0);
        expect_soon(id, KEV_NOTE_DELETE, "the last close");
}
END_TEST

/* ---- several watches ---------------------------------------------------------------------------------------- */

START_TEST(test_shared) {
        struct kev *other;
        int64_t ids[4], of_other;

        make_text("f");
        must(link("f", "hard"));
        must(symlink("f", "soft"));
        ck_assert_int_eq(open_kev(kevd->socket, &other), 0);
        ids[0] = watch_on(kev, "f", BY_PATH, 0);
        ids[1] = watch_on(kev, "soft", BY_PATH, KEV_NOTE_WRITE);
        ids[2] = watch_on(kev, "hard", BY_DESCRIPTOR, KEV_NOTE_ATTRIB);
        ids[3] = watch_on(kev, "hard", BY_PATH, KEV_NOTE_OPEN | KEV_NOTE_LINK);
        of_other = watch_on(other, "f", BY_PATH, KEV_NOTE_EXTEND);
        daemon_expect_watches(kevd, 1);

        put("f", O_APPEND, "x");
        {
                const struct kev_event *event;
                uint64_t notes[4] = { 0 };

                while (kev_wait(kev, 0, &event) == 1)
                        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                                notes[i] |= kev_event_id(event) == ids[i] ? kev_event_notes(event) : 0;
                ck_assert_uint_eq(notes[0], W | E | KEV_NOTE_CLOSEWRITE);
                ck_assert_uint_eq(notes[1], W);
                ck_assert_uint_eq(notes[2], 0);
                ck_assert_uint_eq(notes[3], KEV_NOTE_OPEN);
        }
        expect_on(other, of_other, E, "the other connection");
        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                ck_assert_int_eq(kev_remove(kev, ids[i]), 0);
        daemon_expect_watches(kevd, 1);
        put("f", O_APPEND, "x");
        expect_on(other, of_other, E, "the last one");
        ck_assert_int_eq(kev_remove(other, of_other), 0);
        daemon_expect_watches(kevd, 0);
        kev_close(other);
}
END_TEST

/* A directory that a tree watch is about as well. */
START_TEST(test_with_tree) {
        struct kev_watch *w;
        int64_t of_tree, id;
        const struct kev_event *event;
        uint64_t notes[2] = { 0 };

        must(mkdir("d", 0755));
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &w), 0);
        ck_assert_int_eq(kev_watch_set_path(w, "d"), 0);
        ck_assert_int_eq(kev_add(kev, w, NULL, NULL, &of_tree), 0);
        kev_watch_free(w);
        id = watch_on(kev, "d", BY_PATH, kev_filter_notes(KEV_FILTER_VNODE));
        daemon_expect_watches(kevd, 1);
        make_text("d/f");
        while (kev_wait(kev, 0, &event) == 1)
                notes[kev_event_id(event) == id] |= kev_event_notes(event);
        ck_assert_uint_eq(notes[0], KEV_NOTE_CREATE | KEV_NOTE_WRITE | KEV_NOTE_CLOSEWRITE);
        ck_assert_uint_eq(notes[1], W);
        ck_assert_int_eq(kev_remove(kev, id), 0);
        make_text("d/g");
        ck_assert_int_eq(kev_wait(kev, 0, &event), 1);
        ck_assert_int_eq(kev_event_id(event), of_tree);
        ck_assert_int_eq(kev_remove(kev, of_tree), 0);
        daemon_expect_watches(kevd, 0);
}
END_TEST

/* Whatever a watch began with. */
START_TEST(test_notes_are_changed) {
        int64_t id;

        make_text("f");
        id = watch_on(kev, "f", _i, KEV_NOTE_DELETE);
        put("f", O_APPEND, "x");
        must(chmod("f", 0600));
        expect(id, 0, "not asked for");
        change(id, KEV_NOTE_EXTEND | KEV_NOTE_ATTRIB, 0);
        put("f", 0, "x");
        expect(id, 0, "no longer than before");
        put("f", O_APPEND, "x");
        expect(id, E, "longer");
        must(chmod("f", 0644));
        expect(id, KEV_NOTE_ATTRIB, "chmod");
        change(id, KEV_NOTE_CLOSEWRITE | KEV_NOTE_LINK, 0);
        put("f", 0, "x");
        expect(id, KEV_NOTE_CLOSEWRITE, "closed");
        must(link("f", "g"));
        expect(id, L, "link");
        change(id, KEV_NOTE_CLOSEWRITE | KEV_NOTE_OPEN, -EOPNOTSUPP);
        put("f", 0, "x");
        expect(id, KEV_NOTE_CLOSEWRITE, "as before what was refused");
}
END_TEST

/* Of what nobody asks for nothing is counted. */
START_TEST(test_count) {
        const struct kev_event *event;
        int64_t id;

        make_text("f");
        id = watch_on(kev, "f", _i, KEV_NOTE_WRITE);
        must(kill(kevd->pid, SIGSTOP)); /* then all of it is read at once */
        put("f", O_APPEND, "x");
        must(kill(kevd->pid, SIGCONT));
        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
        ck_assert_int_eq(kev_event_id(event), id);
        ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_WRITE);
        ck_assert_uint_eq(kev_event_count(event), 1);
}
END_TEST

/* What has happened while nobody asked for it is known as somebody does. */
START_TEST(test_joined) {
        int64_t first, id;

        make_text("f");
        first = watch_on(kev, "f", _i, KEV_NOTE_CLOSEWRITE);
        must(link("f", "g"));
        expect(first, 0, "not asked for");
        id = watch("f", _i);
        must(chmod("f", 0600));
        expect(id, KEV_NOTE_ATTRIB, "chmod");
        must(unlink("f"));
        expect(id, L, "one of two names");
        must(unlink("g"));
        expect_among(id, KEV_NOTE_DELETE, "the last name");
}
END_TEST

/* The file's first watch does not know what it is called any more, and the second does. */
START_TEST(test_joined_after_rename) {
        int64_t first, id;

        make_text("f");
        first = watch("f", _i);
        must(rename("f", "g"));
        put("g", O_APPEND, "x");
        expect(first, KEV_NOTE_RENAME | W | KEV_NOTE_CLOSEWRITE, "renamed, and longer");
        id = watch("g", _i);
        put("g", 0, "x");
        expect(id, W | KEV_NOTE_CLOSEWRITE, "in place");
        put("g", O_APPEND, "x");
        expect(id, W | E | KEV_NOTE_CLOSEWRITE, "longer");
        must(link("g", "h"));
        expect(id, L, "link");
        must(unlink("g"));
        expect(id, L, "one of two names");
        must(rename("h", "f"));
        expect(id, KEV_NOTE_RENAME, "renamed again");
}
END_TEST

START_TEST(test_made_and_removed) {
        make_text("f");
        for (int i = 0; i < 1000; i++) {
                int64_t id = watch("f", i % WAYS);

                put("f", O_APPEND, "x");
                if (i % 10 == 0)
                        ck_assert_msg(see_on(kev, id).notes & W, "round %d", i);
                ck_assert_int_eq(kev_remove(kev, id), 0);
        }
        harness_label("");
        daemon_expect_watches(kevd, 0);
}
END_TEST

START_TEST(test_paths) {
        const struct kev_event *event;
        char path[PATH_MAX];

        must(mkdir("caf\xe9", 0755));
        make_text("caf\xe9/f");
        must(symlink("caf\xe9", "l"));
        ck_assert_ptr_nonnull(getcwd(path, sizeof(path) - 8));
        (void)strcat(path, "/l/f");
        (void)watch_on(kev, path, BY_PATH, 0);
        put("l/f", O_APPEND, "x");
        ck_assert_int_eq(kev_wait(kev, 0, &event), 1);
        ck_assert_str_eq(kev_event_path(event), path);
        ck_assert_int_eq(kev_event_kind(event), KEV_KIND_FILE);
        while (kev_wait(kev, 0, &event) == 1)
                ck_assert_str_eq(kev_event_path(event), path);
        harness_label("");
}
END_TEST

START_TEST(test_refusals) {
        struct kev_watch *w;

        make_text("f");
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_VNODE, &w), 0);
        ck_assert_int_eq(kev_watch_set_path(w, "none"), 0);
        ck_assert_int_eq(kev_add(kev, w, NULL, NULL, NULL), -ENOENT);
        ck_assert_msg(strstr(kev_error_message(kev), "path"), "%s", kev_error_message(kev));
        ck_assert_int_eq(kev_watch_set_path(w, "f/below"), 0);
        ck_assert_int_eq(kev_add(kev, w, NULL, NULL, NULL), -ENOTDIR);
        kev_watch_free(w);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("vnode");
        TCase *c = harness_case(suite, "file");

        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_write, 0, WAYS);
        tcase_add_loop_test(c, test_truncate, 0, WAYS);
        tcase_add_loop_test(c, test_attrib, 0, WAYS);
        tcase_add_loop_test(c, test_link, 0, WAYS);
        tcase_add_loop_test(c, test_rename, 0, WAYS);
        tcase_add_loop_test(c, test_delete, 0, WAYS);
        tcase_add_loop_test(c, test_delete_while_open, 0, WAYS);
        tcase_add_loop_test(c, test_renamed_and_deleted_while_open, 0, WAYS);
        tcase_add_loop_test(c, test_replaced, 0, 2 * WAYS);
        tcase_add_loop_test(c, test_costly_notes, 0, WAYS);
        tcase_add_loop_test(c, test_many_writes, 0, WAYS);
        tcase_add_loop_test(c, test_extend_is_not_forgotten, 0, WAYS);
        tcase_add_loop_test(c, test_extend_after_attrib, 0, WAYS);
        c = harness_case(suite, "directory");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_directory, 0, WAYS);
        tcase_add_loop_test(c, test_across, 0, WAYS);
        tcase_add_loop_test(c, test_directory_ends, 0, WAYS);
        tcase_add_loop_test(c, test_directory_deleted_while_open, 0, WAYS);
        c = harness_case(suite, "watches");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, test_shared);
        tcase_add_test(c, test_with_tree);
        tcase_add_loop_test(c, test_notes_are_changed, 0, WAYS);
        tcase_add_loop_test(c, test_count, 0, WAYS);
        tcase_add_loop_test(c, test_joined, 0, WAYS);
        tcase_add_loop_test(c, test_joined_after_rename, 0, WAYS);
        tcase_add_test(c, test_made_and_removed);
        tcase_add_test(c, test_paths);
        tcase_add_test(c, test_refusals);
        return harness_main(argc, argv);
}
