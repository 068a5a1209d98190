/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * read, write and aio watches: their figures are those that the test's own process finds with ioctl(2) and the like,
 * for each kind of descriptor in each state.
 */

#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "descriptors.h"
#include "event.h"
#include "files.h"
#include "macro.h"
#include "one-client.h"

/* ---- figures ------------------------------------------------------------------------------------- */

static bool is_eventfd(int fd) {
        char path[64], target[64] = "";

        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        return readlink(path, target, sizeof(target) - 1) > 0 && strcmp(target, "anon_inode:[eventfd]") == 0;
}

/* Files of the kernel's own say less than nothing of themselves. */
static int64_t ask(int fd, unsigned long request) {
        int n = 0;

        return ioctl(fd, request, &n) == 0 && n >= 0 ? n : ABSENT;
}

static int64_t eventfd_count(int fd) {
        unsigned long long count = 0;
        char path[64], line[256];
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
        file = fopen(path, "re");
        assert_system(file, path);
        while (fgets(line, sizeof(line), file))
                (void)sscanf(line, "eventfd-count: %llx", &count);
        (void)fclose(file);
        return count > INT64_MAX ? INT64_MAX : (int64_t)count;
}

static int64_t backlog(const struct object *o) {
        struct tcp_info info;
        socklen_t size = sizeof(info);

        if (!o->path[0]) {
                assert_system(getsockopt(o->fd[0], IPPROTO_TCP, TCP_INFO, &info, &size) == 0, "TCP_INFO");
                ck_assert_int_eq(info.tcpi_unacked, o->backlog);
        }
        return o->backlog;
}

static int64_t to_read(const struct object *o) {
        struct stat st;

        assert_system(fstat(o->fd[0], &st) == 0, "fstat");
        if (o->is_listener)
                return backlog(o);
        if (S_ISREG(st.st_mode) && o->path[0])
                return st.st_size - lseek(o->fd[0], 0, SEEK_CUR);
        return is_eventfd(o->fd[0]) ? eventfd_count(o->fd[0]) : ask(o->fd[0], FIONREAD);
}

static int64_t room(const struct object *o) {
        int fd = o->fd[0], size;
        socklen_t size_of_size = sizeof(size);
        int64_t used;
        struct stat st;

        assert_system(fstat(fd, &st) == 0, "fstat");
        if (S_ISREG(st.st_mode) && o->path[0])
                return 0;
        if (is_eventfd(fd))
                return INT64_MAX - eventfd_count(fd);
        if (S_ISFIFO(st.st_mode))
                return fcntl(fd, F_GETPIPE_SZ) - ask(fd, FIONREAD);
        if (!S_ISSOCK(st.st_mode))
                return ABSENT;
        assert_system(getsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, &size_of_size) == 0, "SO_SNDBUF");
        used = ask(fd, SIOCOUTQ);
        return used == ABSENT ? ABSENT : size - used;
}

/* The watches on one descriptor; the ids are the places here. */
static const struct {
        const char *filter;
        int64_t least;
} asked[] = {
        { "read", 1 }, { "write", 1 }, { "aio", 1 }, { "read", 15 }, { "write", 5000 }, { "read", 1000 },
};

enum { N_ASKED = ARRAY_SIZE(asked), AIO = 2 };

static bool is_made[N_ASKED]; /* else it was refused: there are no figures to compare with a mark */

struct told {
        bool lowat, eof, complete;
        int64_t figure;
};

struct answer {
        struct told told[N_ASKED];
        short bits;
};

static void put_state(struct told *told, const char *filter, int64_t figure, int64_t least, short bits) {
        bool reads = strcmp(filter, "read") == 0;
        short end = POLLERR | POLLHUP | (reads ? POLLRDHUP : 0), ready = reads ? POLLIN : POLLOUT;

        told->eof = bits & end;
        /* What is to be read may be of no length: a datagram. */
        told->lowat = bits & ready &&
                      (figure == ABSENT || figure >= least || (figure == 0 && least == 1 && !told->eof));
        told->figure = told->lowat || told->eof ? figure : 0;
}

static void put_file_state(struct told *told, const char *filter, int64_t figure, int64_t least) {
        told->lowat = strcmp(filter, "write") == 0 || figure < 0 || figure >= least;
        told->figure = told->lowat ? figure : 0;
}

static struct answer ask_kernel(const struct object *o, bool is_file) {
        struct answer answer = { .bits = poll_now(o->fd[0], POLLIN | POLLOUT | POLLRDHUP) };

        for (size_t i = 0; i < N_ASKED; i++) {
                struct told *told = &answer.told[i];
                int64_t figure = strcmp(asked[i].filter, "write") == 0 ? room(o) : to_read(o);

                if (i == AIO) {
                        told->complete = is_eventfd(o->fd[0]) && answer.bits & POLLIN;
                        told->figure = told->complete ? figure : 0;
                } else if (is_file) {
                        put_file_state(told, asked[i].filter, figure, asked[i].least);
                } else {
                        put_state(told, asked[i].filter, figure, asked[i].least, answer.bits);
                }
        }
        return answer;
}

static struct answer ask_kevd(void) {
        struct json_object *events = take_events(kevd, 0);
        struct answer answer = { 0 };

        for (size_t i = 0; i < N_ASKED; i++) {
                struct json_object *event = event_of(events, (int64_t)i);
                struct told *told = &answer.told[i];

                if (!event)
                        continue;
                ck_assert_str_eq(text_at(event, "/filter"), asked[i].filter);
                *told = (struct told){ has_note(event, "lowat"), has_note(event, "eof"), has_note(event, "complete"),
                                       json_at(event, "/data") ? number_at(event, "/data") : ABSENT };
                ck_assert_int_eq(told->eof, strcmp(text_at(event, "/flags/0"), "eof") == 0);
        }
        json_object_put(events);
        return answer;
}

static void compare(const struct object *o, bool is_file, const char *step) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;
        struct answer before, seen, after = ask_kernel(o, is_file);

        do {
                ck_assert_msg(now_msec() < deadline, "it never comes to rest: %s", step);
                before = after;
                seen = ask_kevd();
                after = ask_kernel(o, is_file);
        } while (memcmp(&before, &after, sizeof(before)) != 0);
        for (size_t i = 0; i < N_ASKED; i++) {
                const struct told *s = &seen.told[i], *k = &after.told[i];

                if (!is_made[i]) {
                        ck_assert(!k->lowat || k->figure == ABSENT);
                        continue;
                }
                ck_assert_msg(s->lowat == k->lowat && s->eof == k->eof && s->complete == k->complete && s->figure == k->figure,
                              "at \"%s\", %s of %lld: lowat %d, eof %d, complete %d, %lld; the kernel says %d, %d, %d, %lld",
                              step, asked[i].filter, (long long)asked[i].least, s->lowat, s->eof, s->complete,
                              (long long)s->figure, k->lowat, k->eof, k->complete, (long long)k->figure);
        }
}

/* With a mark it may be refused, for want of figures. */
static bool make(int fd, size_t i) {
        char mark[32] = "";
        struct json_object *reply;
        const char *error;
        bool made;

        if (asked[i].least > 1)
                (void)snprintf(mark, sizeof(mark), ",\"data\":%lld", (long long)asked[i].least);
        reply = change_reply(kevd, fd, "{\"add\":[{\"id\":%zu,\"filter\":\"%s\",\"descriptor\":0,\"flags\":[\"level\"]%s}]}", i,
                             asked[i].filter, mark);
        error = text_at(reply, "/parameters/refused/0/errno");
        made = !error[0];

        ck_assert_msg(made || (asked[i].least > 1 && strcmp(error, "EOPNOTSUPP") == 0), "%s: %s", asked[i].filter, error);
        json_object_put(reply);
        return made;
}

START_TEST(test_figures) {
        const struct script *script = &scripts[_i];
        const char *steps = script->steps;
        struct object object;

        harness_label(script->name);
        object_make(&object, script);
        for (size_t i = 0; i < N_ASKED; i++) {
                if (i == AIO && !is_eventfd(object.fd[0])) {
                        refused(kevd, object.fd[0], "EINVAL", "{\"add\":[{\"id\":2,\"filter\":\"aio\",\"descriptor\":0}]}");
                        is_made[i] = true; /* for the other side says nothing of it, too */
                        continue;
                }
                is_made[i] = make(object.fd[0], i);
        }
        do
                compare(&object, script->is_file, steps);
        while (object_step(&object, &steps));
        object_close(&object);
}
END_TEST

/* A datagram may be empty, and is to be read all the same. */
START_TEST(test_empty_datagram) {
        int fds[2];

        assert_system(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}");
        expect_nothing(kevd);
        ck_assert_int_eq(send(fds[1], "", 0, 0), 0);
        ck_assert_int_eq(poll_now(fds[0], POLLIN), POLLIN);
        expect_notes(kevd, "lowat");
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

/* More than a number of 63 bits says, and still there is room. */
START_TEST(test_great_counts) {
        static const uint64_t counts[] = { INT64_MAX - 1, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX - 2, UINT64_MAX - 1 };
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        uint64_t n;

        for (size_t i = 0; i < ARRAY_SIZE(counts); i++) {
                bool is_full = counts[i] == UINT64_MAX - 1;
                struct json_object *events;

                ck_assert_int_eq(write(fd, &counts[i], sizeof(counts[i])), sizeof(counts[i]));
                change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0},"
                                 "{\"id\":2,\"filter\":\"write\",\"descriptor\":0},"
                                 "{\"id\":3,\"filter\":\"aio\",\"descriptor\":0}]}");
                events = take_events(kevd, 0);
                ck_assert_int_eq(number_at(event_of(events, 1), "/data"), (int64_t)MIN(counts[i], (uint64_t)INT64_MAX));
                ck_assert_int_eq(number_at(event_of(events, 3), "/data"), (int64_t)MIN(counts[i], (uint64_t)INT64_MAX));
                ck_assert_msg(!event_of(events, 2) == is_full, "%#llx: %s", (unsigned long long)counts[i],
                              json_object_to_json_string(events));
                json_object_put(events);
                change(kevd, -1, "{\"remove\":[1,2,3]}");
                ck_assert_int_eq(read(fd, &n, sizeof(n)), sizeof(n));
        }
        (void)close(fd);
}
END_TEST

/* It grows, and what is behind the reader's place is told; with level as long as there is something. */
START_TEST(test_file) {
        const char *path = at("%s/file", harness_tempdir());
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        struct json_object *event;

        assert_system(fd >= 0, path);
        change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}");
        expect_nothing(kevd);
        for (int i = 1; i < 10; i++) {
                ck_assert_int_eq(pwrite(fd, "0123456789", 10, (i - 1) * 10), 10);
                do { /* the write may be told while it is being made, see inotify(7) */
                        event = next_event(kevd);
                        if (number_at(event, "/data") == 10 * i)
                                break;
                        json_object_put(event);
                } while (true);
                ck_assert_str_eq(text_at(event, "/notes/0"), "lowat");
                json_object_put(event);
        }
        expect_nothing(kevd);
        ck_assert_int_eq(lseek(fd, 0, SEEK_CUR), 0);
        (void)close(fd);
        remove_file(path);
}
END_TEST

/* With level, what no longer holds is not told: nor is what was being looked at when it still did. */
START_TEST(test_past) {
        int fds[2];

        make_pipe(fds);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"flags\":[\"level\"]}]}");
        for (int i = 0; i < harness_rounds(2000); i++) {
                char bytes[3];

                ck_assert_int_eq(write(fds[1], "x", 1), 1);
                ck_assert_uint_eq(due(kevd, "lowat"), 1);
                ck_assert_int_eq(write(fds[1], "y", 1), 1);
                for (int n = 0; n < i % 50; n++) /* the look that this sets off has begun or not */
                        (void)poll_now(fds[0], POLLIN);
                ck_assert_int_eq(write(fds[1], "z", 1), 1);
                ck_assert_int_eq(read(fds[0], bytes, sizeof(bytes)), sizeof(bytes));
                expect_nothing(kevd);
        }
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("descriptors-figures");
        TCase *c;

        c = harness_case(suite, "figures");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_figures, 0, (int)n_scripts);
        tcase_add_test(c, test_empty_datagram);
        tcase_add_test(c, test_great_counts);
        tcase_add_test(c, test_file);
        tcase_add_test(c, test_past);
        return harness_main(argc, argv);
}
