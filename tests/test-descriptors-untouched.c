/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a client does to its own descriptors has the effect that it would have without kevd: the other side sees the
 * close, a file system is unmounted, and nothing about the descriptor is changed by its being watched.
 */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "descriptors.h"
#include "files.h"
#include "kev.h"
#include "macro.h"
#include "one-client.h"

static const char *const filters[] = { "read", "write", "poll" };

static const struct {
        const char *name;
        void (*make)(int fds[2]);
        short sees; /* the other side, at the end */
} pairs[] = {
        { "unix", make_unix_pair, POLLHUP },
        { "tcp", make_tcp_pair, POLLRDHUP },
        { "pipe", make_pipe, POLLERR },
};

enum { N_PAIRS = 3 * 3 };

/* ---- closing ------------------------------------------------------------------------------------- */

/* The passed one is the reading end, or socket. */
static void expect_end(int other, short sees) {
        struct pollfd p = { .fd = other, .events = POLLRDHUP };

        ck_assert_msg(poll(&p, 1, HARNESS_REPLY_MSEC) == 1, "the other side was not told of the end");
        ck_assert_msg(p.revents & sees, "%#x, and not %#x", (unsigned)p.revents, (unsigned)sees);
}

START_TEST(test_close) {
        const char *filter = filters[_i / 3];
        size_t n_fds = fds_at_rest(daemon_);
        int fds[2];

        harness_label(pairs[_i % 3].name);
        for (int i = 0; i < harness_rounds(50); i++) {
                pairs[_i % 3].make(fds);
                change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"%s\",\"descriptor\":0,\"flags\":[\"level\"]}]}", filter);
                if (i % 2) {
                        json_object_put(take_events(kevd, 0));
                        ck_assert_int_eq(write(fds[1], "x", 1), 1);
                }
                (void)close(fds[0]);
                expect_end(fds[1], pairs[_i % 3].sees);
                json_object_put(take_events(kevd, 0));
                expect_nothing(kevd);
                change(kevd, -1, "{\"remove\":[1]}");
                (void)close(fds[1]);
        }
        if (strcmp(filter, "poll") == 0)
                expect_fds(daemon_, n_fds);
}
END_TEST

/* Of several copies the last one counts. */
START_TEST(test_copies) {
        int fds[2], copy;

        harness_label(pairs[_i % 3].name);
        pairs[_i % 3].make(fds);
        copy = fcntl(fds[0], F_DUPFD_CLOEXEC, 200);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"%s\",\"descriptor\":0,\"flags\":[\"level\"]}]}", filters[_i / 3]);
        (void)close(fds[0]);
        ck_assert_int_eq(poll_now(fds[1], 0), 0);
        if (_i % 3 < 2 || _i / 3 == 0) { /* it is still watched: something comes, or there is room */
                ck_assert_int_eq(write(fds[1], "x", 1), 1);
                json_object_put(next_event(kevd));
        }
        ck_assert_int_eq(poll_now(fds[1], 0), 0);
        (void)close(copy);
        expect_end(fds[1], pairs[_i % 3].sees);
        json_object_put(take_events(kevd, 0));
        expect_nothing(kevd);
        (void)close(fds[1]);
}
END_TEST

/* The library's copy goes with the description of the watch. */
START_TEST(test_library) {
        struct kev_watch *watch;
        struct kev *kev;
        int fds[2];

        ck_assert_int_eq(kev_open(daemon_->socket, &kev), 0);
        make_unix_pair(fds);
        ck_assert_int_eq(kev_watch_new((enum kev_filter[]){ KEV_FILTER_READ, KEV_FILTER_WRITE, KEV_FILTER_POLL }[_i], &watch), 0);
        ck_assert_int_eq(kev_watch_set_fd(watch, fds[0]), 0);
        ck_assert_int_eq(kev_watch_set_flags(watch, KEV_FLAG_LEVEL), 0);
        ck_assert_msg(kev_add(kev, watch, NULL, NULL, NULL) == 0, "%s", kev_error_message(kev));
        (void)close(fds[0]);
        ck_assert_int_eq(poll_now(fds[1], POLLRDHUP), 0);
        kev_watch_free(watch);
        expect_end(fds[1], POLLRDHUP);
        (void)close(fds[1]);
        kev_close(kev);
}
END_TEST

/* ---- file systems ---------------------------------------------------------------------------------- */

static const char *root;

static void start_mounted(void) {
        need_private_mounts();
        start();
        root = make_root("m");
        assert_system(mount("none", root, "tmpfs", 0, NULL) == 0, root);
}

static const struct {
        const char *filter, *more;
        mode_t kind; /* of what is passed */
} mounted[] = {
        { "vnode", "", S_IFDIR },         { "vnode", "", S_IFREG }, { "tree", "", S_IFDIR },
        { "read", "", S_IFREG },          { "write", "", S_IFREG }, { "read", ",\"flags\":[\"level\"]", S_IFREG },
        { "read", ",\"data\":5", S_IFIFO }, { "poll", "", S_IFIFO }, { "write", "", S_IFIFO },
};

static int make_in_it(mode_t kind) {
        const char *path = at("%s/it", root);
        int fd;

        if (kind == S_IFDIR)
                make_dir(path);
        else if (kind == S_IFREG)
                put(path, O_CREAT, "some");
        else
                assert_system(mkfifo(path, 0600) == 0, path);
        fd = open(path, kind == S_IFDIR ? O_RDONLY | O_DIRECTORY | O_CLOEXEC : O_RDWR | O_CLOEXEC);
        assert_system(fd >= 0, path);
        return fd;
}

static bool is_unmounted(void *path) {
        return umount2(path, 0) == 0;
}

START_TEST(test_unmount) {
        int fd = make_in_it(mounted[_i].kind);

        harness_label(mounted[_i].filter);
        change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"%s\",\"descriptor\":0%s}]}", mounted[_i].filter, mounted[_i].more);
        json_object_put(take_events(kevd, 0));
        if (mounted[_i].kind != S_IFDIR)
                ck_assert_int_eq(write(fd, "more", 4), 4);
        (void)close(fd);
        ck_assert_msg(wait_until(is_unmounted, (void *)root, HARNESS_REPLY_MSEC), "umount: %s", strerror(errno));
        json_object_put(take_events(kevd, 0));
        change(kevd, -1, "{\"remove\":[1]}");
        expect_nothing(kevd);
}
END_TEST

/* ---- the descriptor itself ----------------------------------------------------------------------------- */

static void watch_in_all_ways(int fd) {
        change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"flags\":[\"level\"]},"
                         "{\"id\":2,\"filter\":\"write\",\"descriptor\":0},"
                         "{\"id\":3,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\",\"out\",\"pri\",\"rdhup\"]},"
                         "{\"id\":4,\"filter\":\"read\",\"descriptor\":0,\"data\":100}]}");
        for (int i = 0; i < 5; i++)
                json_object_put(take_events(kevd, 0));
}

static int option(int fd, int name) {
        int value;
        socklen_t size = sizeof(value);

        assert_system(getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0, "getsockopt");
        return value;
}

/* Flags and options, and what lies in it. */
START_TEST(test_flags) {
        int fds[2], flags, owner;
        char bytes[16] = "";

        harness_label(pairs[_i].name);
        pairs[_i].make(fds);
        assert_system(fcntl(fds[0], F_SETOWN, getpid()) == 0, "F_SETOWN");
        flags = fcntl(fds[0], F_GETFL);
        owner = fcntl(fds[0], F_GETOWN);
        ck_assert_int_eq(write(fds[1], "content", 7), 7);
        watch_in_all_ways(fds[0]);
        ck_assert_int_eq(fcntl(fds[0], F_GETFL), flags);
        ck_assert_int_eq(fcntl(fds[0], F_GETOWN), owner);
        ck_assert_int_eq(fcntl(fds[0], F_GETSIG), 0);
        ck_assert_int_eq(fcntl(fds[0], F_GETFD), FD_CLOEXEC);
        if (_i < 2) {
                ck_assert_int_eq(option(fds[0], SO_RCVLOWAT), 1);
                ck_assert_int_eq(option(fds[0], SO_ERROR), 0);
        }
        ck_assert_int_eq(read(fds[0], bytes, sizeof(bytes)), 7);
        ck_assert_str_eq(bytes, "content");
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

/* A pending error is the client's to be read. */
START_TEST(test_error) {
        const struct script *script = scripts;
        const char *steps;
        struct object o;

        while (strcmp(script->name, _i ? "udp" : "tcp, reset") != 0)
                script++;
        object_make(&o, script);
        watch_in_all_ways(o.fd[0]);
        steps = _i ? "c1 w0" : "x1";
        while (object_step(&o, &steps))
                ;
        poll_until(o.fd[0], 0); /* POLLERR comes unasked */
        for (int i = 0; i < 5; i++) {
                struct json_object *events = take_events(kevd, 0);

                ck_assert_msg(event_of(events, 1), "no event: %s", json_object_to_json_string(events));
                json_object_put(events);
        }
        ck_assert_int_eq(poll_now(o.fd[0], 0) & POLLERR, POLLERR);
        ck_assert_int_eq(option(o.fd[0], SO_ERROR), _i ? ECONNREFUSED : ECONNRESET);
        ck_assert_int_eq(option(o.fd[0], SO_ERROR), 0);
        object_close(&o);
}
END_TEST

START_TEST(test_offset) {
        const char *path = at("%s/file", harness_tempdir());
        char byte;
        int fd;

        put(path, O_CREAT, "0123456789");
        fd = open(path, O_RDWR | O_CLOEXEC);
        ck_assert_int_eq(lseek(fd, 4, SEEK_SET), 4);
        change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"flags\":[\"level\"]},"
                         "{\"id\":2,\"filter\":\"write\",\"descriptor\":0}]}");
        for (int i = 0; i < 5; i++) {
                struct json_object *events = take_events(kevd, 0);

                ck_assert_int_eq(number_at(event_of(events, 1), "/data"), 6);
                json_object_put(events);
        }
        ck_assert_int_eq(lseek(fd, 0, SEEK_CUR), 4);
        ck_assert_int_eq(read(fd, &byte, 1), 1);
        ck_assert_int_eq(byte, '4');
        (void)close(fd);
        remove_file(path);
}
END_TEST

/* An eventfd's count is read by nobody but the client; nor does a signal come of it (F_SETOWN is not used). */
START_TEST(test_count) {
        int fd = eventfd(5, EFD_CLOEXEC | EFD_NONBLOCK);
        struct json_object *events;
        uint64_t count;

        change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"aio\",\"descriptor\":0,\"flags\":[\"level\"]},"
                         "{\"id\":2,\"filter\":\"read\",\"descriptor\":0},{\"id\":3,\"filter\":\"write\",\"descriptor\":0}]}");
        for (int i = 0; i < 5; i++) {
                events = take_events(kevd, 0);
                ck_assert_int_eq(number_at(event_of(events, 1), "/data"), 5);
                json_object_put(events);
        }
        ck_assert_int_eq(read(fd, &count, sizeof(count)), sizeof(count));
        ck_assert_uint_eq(count, 5);
        (void)close(fd);
        events = take_events(kevd, 0);
        ck_assert_ptr_null(event_of(events, 1));
        ck_assert_ptr_null(event_of(events, 2)); /* but 3 may have been told that there was room again */
        json_object_put(events);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("descriptors-untouched");
        TCase *c;

        c = harness_case(suite, "closing");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_close, 0, N_PAIRS);
        tcase_add_loop_test(c, test_copies, 0, N_PAIRS);
        tcase_add_loop_test(c, test_library, 0, 3);

        c = harness_case(suite, "unmounting");
        tcase_add_checked_fixture(c, start_mounted, stop);
        tcase_add_loop_test(c, test_unmount, 0, ARRAY_SIZE(mounted));

        c = harness_case(suite, "itself");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_flags, 0, ARRAY_SIZE(pairs));
        tcase_add_loop_test(c, test_error, 0, 2);
        tcase_add_test(c, test_offset);
        tcase_add_test(c, test_count);
        return harness_main(argc, argv);
}
