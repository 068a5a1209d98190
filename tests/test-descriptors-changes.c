/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* read, write, poll and aio watches: flags, changes, refusals, and exclusive watches of several connections. */

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "descriptors.h"
#include "files.h"
#include "macro.h"
#include "one-client.h"

/* Each filter, and what it says of something that is ready for it. */
static const struct {
        const char *filter, *notes;
} filters[] = {
        { "read", "lowat" }, { "write", "lowat" }, { "poll", "in,out" }, { "aio", "complete" },
};

static int new_eventfd(uint64_t count) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

        assert_system(fd >= 0, "eventfd");
        if (count > 0)
                ck_assert_int_eq(write(fd, &count, sizeof(count)), sizeof(count));
        return fd;
}

static void put_one(int fd) {
        ck_assert_int_eq(write(fd, &(uint64_t){ 1 }, sizeof(uint64_t)), sizeof(uint64_t));
}

static void empty(int fd) {
        uint64_t count;

        ck_assert_int_eq(read(fd, &count, sizeof(count)), sizeof(count));
}

static void add(int fd, int64_t id, size_t filter, const char *flags) {
        change(kevd, fd, "{\"add\":[{\"id\":%lld,\"filter\":\"%s\",\"descriptor\":0,\"flags\":[%s]%s}]}", (long long)id,
               filters[filter].filter, flags, filter == 2 ? ",\"notes\":[\"in\",\"out\"]" : "");
}

static void expect_flag(size_t filter, const char *flag) {
        struct json_object *event = next_event(kevd);

        ck_assert_str_eq(text_at(event, "/filter"), filters[filter].filter);
        ck_assert_str_eq(text_at(event, "/flags/0"), flag);
        json_object_put(event);
}

/* ---- flags --------------------------------------------------------------------------------------- */

START_TEST(test_oneshot) {
        int fd = new_eventfd(1);

        add(fd, 1, (size_t)_i, _i % 2 ? "\"oneshot\"" : "\"oneshot\",\"level\"");
        expect_flag((size_t)_i, "oneshot");
        put_one(fd);
        expect_nothing(kevd);
        refused(kevd, -1, "ENOENT", "{\"remove\":[1]}");
        add(fd, 1, (size_t)_i, "\"oneshot\"");
        expect_flag((size_t)_i, "oneshot");
        (void)close(fd);
}
END_TEST

START_TEST(test_dispatch) {
        int fd = new_eventfd(1);

        add(fd, 1, (size_t)_i, _i % 2 ? "\"dispatch\"" : "\"dispatch\",\"level\"");
        for (int i = 0; i < 10; i++) {
                expect_flag((size_t)_i, "dispatch");
                put_one(fd);
                expect_nothing(kevd);
                change(kevd, -1, "{\"enable\":[1]}"); /* it still holds */
        }
        expect_flag((size_t)_i, "dispatch");
        if (_i != 1 && _i != 2) {
                empty(fd);
                change(kevd, -1, "{\"enable\":[1]}"); /* and no longer */
                expect_nothing(kevd);
                put_one(fd);
                expect_flag((size_t)_i, "dispatch");
        }
        (void)close(fd);
}
END_TEST

/* What happens to a disabled watch is not kept: enabled, it tells what holds. */
START_TEST(test_disabled) {
        int fd = new_eventfd(1);

        add(fd, 1, (size_t)_i, "\"disabled\"");
        expect_nothing(kevd);
        put_one(fd);
        expect_nothing(kevd);
        change(kevd, -1, "{\"enable\":[1]}");
        ck_assert_uint_eq(due(kevd, filters[_i].notes), 1);
        expect_nothing(kevd);
        change(kevd, -1, "{\"disable\":[1]}");
        put_one(fd);
        expect_nothing(kevd);
        if (_i != 1 && _i != 2) {
                empty(fd);
                change(kevd, -1, "{\"enable\":[1]}");
                expect_nothing(kevd);
                put_one(fd);
                ck_assert_uint_eq(due(kevd, filters[_i].notes), 1);
        }
        /* One that is due, and disabled before it was taken. */
        change(kevd, -1, "{\"enable\":[1]}");
        put_one(fd);
        change(kevd, -1, "{\"disable\":[1]}");
        expect_nothing(kevd);
        change(kevd, -1, "{\"enable\":[1],\"disable\":[1]}");
        expect_nothing(kevd);
        (void)close(fd);
}
END_TEST

/* From told once to told always, and back. */
START_TEST(test_modified_flags) {
        int fd = new_eventfd(1);

        add(fd, 1, (size_t)_i, "");
        ck_assert_uint_eq(due(kevd, filters[_i].notes), 1);
        expect_nothing(kevd);
        for (int i = 0; i < 3; i++) {
                change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"%s\",\"flags\":[\"level\"]}]}", filters[_i].filter);
                for (int n = 0; n < 5; n++)
                        ck_assert_uint_eq(due(kevd, filters[_i].notes), 1);
                change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"%s\"}]}", filters[_i].filter);
                ck_assert_uint_eq(due(kevd, filters[_i].notes), 1);
                expect_nothing(kevd);
        }
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"%s\",\"flags\":[\"oneshot\"]}]}", filters[_i].filter);
        expect_flag((size_t)_i, "oneshot");
        refused(kevd, -1, "ENOENT", "{\"enable\":[1]}");
        (void)close(fd);
}
END_TEST

/* ---- changes ------------------------------------------------------------------------------------------- */

/* More notes take the descriptor once more: from the call, or from the process that has it. */
START_TEST(test_more_notes) {
        int fds[2], other[2], copy;

        make_unix_pair(fds);
        make_unix_pair(other);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        expect_nothing(kevd);
        refused(kevd, other[0], "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"out\"]}]}");
        refused(kevd, fds[1], "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"out\"]}]}");
        refused(kevd, other[0], "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        refused(kevd, fds[0], "EBADF", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":1,\"notes\":[\"out\"]}]}");
        expect_nothing(kevd);
        put_one(fds[1]);
        ck_assert_uint_eq(due(kevd, "in"), 1); /* what was refused has changed nothing */
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"out\"]}]}");
        ck_assert_uint_eq(due(kevd, "out"), 1);
        change(kevd, fds[0], "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"wrnorm\",\"in\"]}]}");
        ck_assert_uint_eq(due(kevd, "in,wrnorm"), 1);
        /* By another number, the first being closed. */
        copy = fcntl(fds[0], F_DUPFD_CLOEXEC, 100);
        (void)close(fds[0]);
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"rdnorm\"]}]}");
        ck_assert_uint_eq(due(kevd, "rdnorm"), 1);
        change(kevd, copy, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"wrband\"]}]}");
        ck_assert_uint_eq(due(kevd, "wrband"), 1);
        /* Gone: what it had can be modified, and no more. */
        (void)close(copy);
        poll_until(fds[1], POLLRDHUP); /* the daemon's, too, which may be closed just after the reply */
        refused(kevd, -1, "EBADF", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"pri\"]}]}");
        refused(kevd, other[0], "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"pri\"]}]}");
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"in\"]}]}");
        expect_nothing(kevd);
        (void)close(fds[1]);
        (void)close(other[0]);
        (void)close(other[1]);
}
END_TEST

/* A descriptor that is asked for more while it is disabled, and one that is not ready then. */
START_TEST(test_more_notes_disabled) {
        int fds[2];

        make_unix_pair(fds);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"pri\"],"
                             "\"flags\":[\"disabled\"]}]}");
        for (int i = 0; i < 2; i++) {
                change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"%s\"],\"flags\":[\"disabled\"]}]}",
                       i ? "in" : "rdhup");
                expect_nothing(kevd);
                change(kevd, -1, "{\"enable\":[1]}");
                expect_nothing(kevd);
                change(kevd, -1, "{\"disable\":[1]}");
        }
        put_one(fds[1]);
        expect_nothing(kevd);
        change(kevd, -1, "{\"enable\":[1]}");
        ck_assert_uint_eq(due(kevd, "in"), 1);
        expect_nothing(kevd);
        put_one(fds[1]);
        ck_assert_uint_eq(due(kevd, "in"), 1);
        expect_nothing(kevd);
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

static void refuse_more(const char *flags, const char *beside) {
        refused(kevd, -1, "EBADF", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"in\",\"pri\"],"
                                   "\"flags\":[%s]}]%s}", flags, beside);
}

static const char *const other_flags[] = { "", "\"disabled\"", "\"oneshot\"", "\"dispatch\"", "\"level\"" };

/* The client has it no more, but somebody else has: the watch goes on as it was, with its flags, too. */
START_TEST(test_more_notes_refused) {
        const char *flags = other_flags[_i];
        int fds[2], parked[2];

        harness_label(flags);
        make_unix_pair(fds);
        make_unix_pair(parked);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        client_send_with_fds(parked[0], "", 1, fds, 1);
        (void)close(fds[0]);
        put_one(fds[1]);
        refuse_more(flags, "");
        for (int i = 0; i < 3; i++) {
                ck_assert_uint_eq(due(kevd, "in"), 1);
                expect_nothing(kevd);
                put_one(fds[1]);
        }
        refuse_more(flags, ",\"disable\":[1]"); /* which is not */
        expect_nothing(kevd);
        refuse_more(flags, "");
        expect_nothing(kevd);
        refuse_more(flags, ",\"enable\":[1]");
        ck_assert_uint_eq(due(kevd, "in"), 1);
        expect_nothing(kevd);
        (void)close(fds[1]);
        (void)close(parked[0]);
        (void)close(parked[1]);
}
END_TEST

/* ---- refusals -------------------------------------------------------------------------------------------- */

static const struct {
        const char *name, *path;
        int how;
        const char *filter, *more, *error; /* of the watch */
} impossible[] = {
        { "a directory", "/", O_RDONLY | O_DIRECTORY, "poll", "", "EPERM" },
        { "a directory", "/", O_RDONLY | O_DIRECTORY, "read", "", "EPERM" },
        { "a directory", "/", O_RDONLY | O_DIRECTORY, "write", "", "EPERM" },
        { "a regular file", "/proc/self/exe", O_RDONLY, "poll", "", "EPERM" },
        { "no poll(2)", "/dev/null", O_RDWR, "poll", "", "EPERM" },
        { "no poll(2)", "/dev/zero", O_RDONLY, "read", "", "EPERM" },
        { "O_PATH", "/proc/self/mountinfo", O_PATH, "poll", "", "EBADF" },
        { "O_PATH", "/proc/self/mountinfo", O_PATH, "read", "", "EBADF" },
        { "O_PATH, a file", "/etc/passwd", O_PATH, "read", "", "EBADF" },
        { "O_PATH, a file", "/etc/passwd", O_PATH, "write", "", "EBADF" },
        { "only to be written", "/dev/shm", O_TMPFILE | O_WRONLY, "read", "", "EBADF" },
        { "no eventfd", "/proc/self/mountinfo", O_RDONLY, "aio", "", "EINVAL" },
        { "no eventfd", "/proc/self/exe", O_RDONLY, "aio", "", "EINVAL" },
        { "data", "/proc/self/mountinfo", O_RDONLY, "read", ",\"data\":-1", "EINVAL" },
        { "data", "/proc/self/mountinfo", O_RDONLY, "write", ",\"data\":-9223372036854775807", "EINVAL" },
        { "data", "/proc/self/mountinfo", O_RDONLY, "poll", ",\"data\":1", "EINVAL" },
        { "data", "/proc/self/mountinfo", O_RDONLY, "aio", ",\"data\":1", "EINVAL" },
        { "path", "/proc/self/mountinfo", O_RDONLY, "poll", ",\"path\":\"/\"", "EINVAL" },
        { "notes", "/proc/self/mountinfo", O_RDONLY, "poll", ",\"notes\":[\"lowat\"]", "EINVAL" },
        { "nval", "/proc/self/mountinfo", O_RDONLY, "read", ",\"notes\":[\"in\"]", "EINVAL" },
        { "flags", "/proc/self/mountinfo", O_RDONLY, "read", ",\"flags\":[\"edge\"]", "EINVAL" },
        { "flags", "/proc/self/mountinfo", O_RDONLY, "write", ",\"flags\":[\"exclusive\"]", "EINVAL" },
        { "flags", "/proc/self/mountinfo", O_RDONLY, "poll", ",\"flags\":[\"edge\",\"level\"]", "EINVAL" },
        { "flags", "/proc/self/mountinfo", O_RDONLY, "poll", ",\"flags\":[\"exclusive\",\"oneshot\"]", "EINVAL" },
        { "notes", "/proc/self/mountinfo", O_RDONLY, "poll", ",\"flags\":[\"exclusive\"],\"notes\":[\"rdhup\"]", "EINVAL" },
};

START_TEST(test_refused) {
        size_t n = fds_at_rest(daemon_);
        int fd = open(impossible[_i].path, impossible[_i].how | O_CLOEXEC);

        harness_label(impossible[_i].name);
        assert_system(fd >= 0, impossible[_i].path);
        refused(kevd, fd, impossible[_i].error, "{\"add\":[{\"id\":1,\"filter\":\"%s\",\"descriptor\":0%s}]}",
                impossible[_i].filter, impossible[_i].more);
        (void)close(fd);
        refused(kevd, -1, "ENOENT", "{\"remove\":[1]}");
        expect_nothing(kevd);
        if (strcmp(impossible[_i].filter, "poll") == 0) /* with others inotify is opened, and stays */
                expect_fds(daemon_, n);
}
END_TEST

START_TEST(test_refused_ids) {
        int fd = new_eventfd(1);
        const char *filter = filters[_i].filter;

        add(fd, 1, (size_t)_i, "");
        refused(kevd, fd, "EEXIST", "{\"add\":[{\"id\":1,\"filter\":\"%s\",\"descriptor\":0}]}", filter);
        refused(kevd, fd, "EEXIST", "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1}]}");
        ck_assert_uint_eq(due(kevd, filters[_i].notes), 1);
        refused(kevd, fd, "ENOENT", "{\"modify\":[{\"id\":2,\"filter\":\"%s\"}]}", filter);
        refused(kevd, -1, "ENOENT", "{\"enable\":[2]}");
        refused(kevd, -1, "ENOENT", "{\"disable\":[2]}");
        refused(kevd, -1, "ENOENT", "{\"remove\":[2]}");
        refused(kevd, fd, "EBADF", "{\"add\":[{\"id\":2,\"filter\":\"%s\",\"descriptor\":1}]}", filter);
        refused(kevd, -1, "EBADF", "{\"add\":[{\"id\":2,\"filter\":\"%s\",\"descriptor\":0}]}", filter);
        refused(kevd, fd, "EINVAL", "{\"add\":[{\"id\":2,\"filter\":\"%s\"}]}", filter);
        refused(kevd, -1, "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"vnode\"}]}");
        if (_i != 2)
                refused(kevd, fd, "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"%s\",\"descriptor\":0}]}", filter);
        put_one(fd);
        if (_i != 1)
                ck_assert_uint_eq(due(kevd, filters[_i].notes), 1);
        change(kevd, -1, "{\"remove\":[1]}");
        (void)close(fd);
}
END_TEST

/* ---- exclusive ------------------------------------------------------------------------------------------ */

enum { N_EXCLUSIVE = 5 };

static int connections[N_EXCLUSIVE], listener;

static void start_exclusive(void) {
        start();
        listener = tcp_listen(64);
        for (size_t i = 0; i < N_EXCLUSIVE; i++) {
                connections[i] = client_connect(daemon_->socket);
                change(connections[i], listener, "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"],"
                                                 "\"flags\":[\"exclusive\"]}]}");
                expect_nothing(connections[i]);
        }
}

static void stop_exclusive(void) {
        for (size_t i = 0; i < N_EXCLUSIVE; i++)
                (void)close(connections[i]);
        (void)close(listener);
        stop();
}

/* One that connects; who of the watches is told. The bits of several, should the connection wake more than once. */
static unsigned connect_one(void) {
        int client = tcp_connect(listener), fd;
        unsigned told = 0;

        poll_until(listener, POLLIN);
        for (size_t i = 0; i < N_EXCLUSIVE; i++)
                told |= due(connections[i], "in") > 0 ? 1U << i : 0;
        ck_assert_msg(told, "nobody was told");
        fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        assert_system(fd >= 0, "accept4");
        (void)close(fd);
        (void)close(client);
        return told;
}

static void check_turns(unsigned others) {
        int n[N_EXCLUSIVE] = { 0 }, total = 0;

        for (int i = 0; i < 10 * N_EXCLUSIVE; i++) {
                unsigned told = connect_one();

                ck_assert_uint_eq(told & ~others, 0);
                for (int k = 0; k < N_EXCLUSIVE; k++) {
                        n[k] += told >> k & 1;
                        total += told >> k & 1;
                }
        }
        ck_assert_int_lt(total, 20 * N_EXCLUSIVE); /* not all of them each time */
        for (int k = 0; k < N_EXCLUSIVE; k++)
                ck_assert_msg(!(others >> k & 1) || n[k] > 2, "%d, %d, %d, %d and %d turns", n[0], n[1], n[2], n[3], n[4]);
}

START_TEST(test_turns) {
        check_turns((1U << N_EXCLUSIVE) - 1);
        change(connections[1], -1, "{\"disable\":[1]}");
        change(connections[3], -1, "{\"remove\":[1]}");
        check_turns(1U << 0 | 1U << 2 | 1U << 4);
        change(connections[1], -1, "{\"enable\":[1]}");
        check_turns(1U << 0 | 1U << 1 | 1U << 2 | 1U << 4);
}
END_TEST

/* Beside it a watch that is not exclusive is told of each. */
START_TEST(test_beside_exclusive) {
        change(kevd, listener, "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        for (int i = 0; i < 10; i++) {
                (void)connect_one();
                ck_assert_uint_ge(due(kevd, "in"), 1);
        }
}
END_TEST

START_TEST(test_exclusive_unchanged) {
        refused(connections[0], -1, "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"in\"]}]}");
        refused(connections[0], listener, "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,"
                                                    "\"flags\":[\"exclusive\"],\"notes\":[\"in\",\"out\"]}]}");
        change(kevd, listener, "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        refused(kevd, -1, "EINVAL", "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"flags\":[\"exclusive\"],\"notes\":[\"in\"]}]}");
        check_turns((1U << N_EXCLUSIVE) - 1);
}
END_TEST

/* Whoever goes leaves the turns to the others; and with one that comes, what holds is told to one of all. */
START_TEST(test_exclusive_gone) {
        size_t n_fds = fds_at_rest(daemon_), n_told = 0;
        int client;

        for (size_t i = 0; i + 1 < N_EXCLUSIVE; i++) {
                (void)close(connections[i]);
                connections[i] = -1;
        }
        expect_fds(daemon_, n_fds - 2 * (N_EXCLUSIVE - 1)); /* a connection, and a set */
        client = tcp_connect(listener);
        poll_until(listener, POLLIN);
        ck_assert_uint_ge(due(connections[N_EXCLUSIVE - 1], "in"), 1);
        for (size_t i = 0; i + 1 < N_EXCLUSIVE; i++) {
                connections[i] = client_connect(daemon_->socket);
                change(connections[i], listener, "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"],"
                                                 "\"flags\":[\"exclusive\"]}]}");
                n_told += due(connections[i], "in");
        }
        ck_assert_uint_ge(n_told + due(connections[N_EXCLUSIVE - 1], "in"), 1);
        (void)close(client);
}
END_TEST

/* So many that it takes several turns to come to all that were woken: one is told of each event, also when whoever was
 * told last goes. */
START_TEST(test_exclusive_many) {
        enum { MANY = 90 };
        int fd = new_eventfd(0);
        int64_t told = -1;

        for (int i = 0; i < MANY; i++)
                change(kevd, fd, "{\"add\":[{\"id\":%d,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"],"
                                 "\"flags\":[\"exclusive\"]}]}", i);
        for (int i = 0; i + 1 < MANY; i++) {
                struct json_object *events;

                put_one(fd);
                events = take_events(kevd, 0);
                ck_assert_msg(json_object_array_length(events) == 1, "%s", json_object_to_json_string(events));
                ck_assert_int_ne(number_at(json_object_array_get_idx(events, 0), "/id"), told);
                told = number_at(json_object_array_get_idx(events, 0), "/id");
                json_object_put(events);
                empty(fd);
                change(kevd, -1, "{\"remove\":[%d]}", (int)told);
        }
        (void)close(fd);
}
END_TEST

/* They have an inode in common, and are not one another for that: no event of one is taken for the other's. */
START_TEST(test_exclusive_of_one_inode) {
        static const char *const notes[] = { "in", "out" };
        int fds[2];

        if (_i == 0)
                make_pipe(fds);
        else
                for (size_t i = 0; i < 2; i++)
                        fds[i] = new_eventfd(_i == 1 ? 0 : UINT64_MAX - 1);
        for (int i = 0; i < 2; i++)
                change(kevd, fds[i], "{\"add\":[{\"id\":%d,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"%s\"],"
                                     "\"flags\":[\"exclusive\"]}]}", i, notes[_i == 0 ? i : _i - 1]);
        json_object_put(take_events(kevd, 0));
        for (int i = 0; i < harness_rounds(200); i++) {
                struct json_object *events;

                if (_i == 2)
                        empty(fds[0]);
                else
                        put_one(fds[1]);
                if (_i == 1)
                        put_one(fds[0]);
                else if (_i == 2)
                        empty(fds[1]);
                events = take_events(kevd, 0);
                ck_assert_msg(event_of(events, 0) && (_i == 0 || event_of(events, 1)), "%s", json_object_to_json_string(events));
                json_object_put(events);
                for (size_t k = 0; k < 2 && _i == 1; k++)
                        empty(fds[k]);
                for (size_t k = 0; k < 2 && _i == 2; k++)
                        ck_assert_int_eq(write(fds[k], &(uint64_t){ UINT64_MAX - 1 }, sizeof(uint64_t)), sizeof(uint64_t));
        }
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("descriptors-changes");
        TCase *c;

        c = harness_case(suite, "flags");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_oneshot, 0, ARRAY_SIZE(filters));
        tcase_add_loop_test(c, test_dispatch, 0, ARRAY_SIZE(filters));
        tcase_add_loop_test(c, test_disabled, 0, ARRAY_SIZE(filters));
        tcase_add_loop_test(c, test_modified_flags, 0, ARRAY_SIZE(filters));

        c = harness_case(suite, "changes");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, test_more_notes);
        tcase_add_test(c, test_more_notes_disabled);
        tcase_add_loop_test(c, test_more_notes_refused, 0, ARRAY_SIZE(other_flags));

        c = harness_case(suite, "refusals");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_refused, 0, ARRAY_SIZE(impossible));
        tcase_add_loop_test(c, test_refused_ids, 0, ARRAY_SIZE(filters));

        c = harness_case(suite, "exclusive");
        tcase_add_checked_fixture(c, start_exclusive, stop_exclusive);
        tcase_add_test(c, test_turns);
        tcase_add_test(c, test_beside_exclusive);
        tcase_add_test(c, test_exclusive_unchanged);
        tcase_add_test(c, test_exclusive_gone);
        tcase_add_test(c, test_exclusive_many);
        tcase_add_loop_test(c, test_exclusive_of_one_inode, 0, 3);
        return harness_main(argc, argv);
}
