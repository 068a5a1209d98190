/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What clients may do with the descriptors that they pass: very many of them, and whatever is meant to confuse the
 * daemon, or to make it wait. After each it answers, and has no more descriptors than before.
 */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "descriptors.h"
#include "files.h"
#include "kev.h"
#include "macro.h"
#include "silent.h"

static struct daemon *daemon_;
static size_t n_fds; /* that the daemon has */

/* With a watch that read has made: what inotify takes is there from now on. */
static void count_fds(void) {
        int kevd = client_connect(daemon_->socket), fd = eventfd(0, EFD_CLOEXEC);

        change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}");
        (void)close(fd);
        (void)close(kevd);
        n_fds = fds_at_rest(daemon_);
}

static void start(void) {
        daemon_ = daemon_start(NULL);
        count_fds();
}

static void stop(void) {
        expect_answers(daemon_);
        expect_fds(daemon_, n_fds);
        daemon_stop(daemon_);
}

static int new_eventfd(void) {
        int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

        assert_system(fd >= 0, "eventfd");
        return fd;
}

static void put_one(int fd) {
        ck_assert_int_eq(write(fd, &(uint64_t){ 1 }, sizeof(uint64_t)), sizeof(uint64_t));
}

/* ---- many ------------------------------------------------------------------------------------------- */

enum { MANY = 10000, AT_ONCE = 250, SPARE = 600 };

static void need_descriptors(void) {
        struct rlimit limit;

        assert_system(getrlimit(RLIMIT_NOFILE, &limit) == 0, "RLIMIT_NOFILE");
        if (limit.rlim_max < MANY + SPARE)
                harness_skip("RLIMIT_NOFILE: fewer than 10,600 descriptors are allowed");
        limit.rlim_cur = limit.rlim_max;
        assert_system(setrlimit(RLIMIT_NOFILE, &limit) == 0, "RLIMIT_NOFILE");
}

static void start_many(void) {
        need_descriptors();
        start();
}

/* `notes` 0: the default ones. */
static void add_many(struct kev *kev, enum kev_filter filter, uint64_t notes, const int *fds, size_t n) {
        struct kev_watch *watches[AT_ONCE];

        for (size_t i = 0; i < n; i++) {
                ck_assert_int_eq(kev_watch_new(filter, &watches[i]), 0);
                ck_assert_int_eq(kev_watch_set_fd(watches[i], fds[i]), 0);
                if (notes)
                        ck_assert_int_eq(kev_watch_set_notes(watches[i], notes), 0);
        }
        ck_assert_msg(kev_add_many(kev, (const struct kev_watch *const *)watches, n, NULL, NULL, NULL, NULL) == 0, "%s",
                      kev_error_message(kev));
        for (size_t i = 0; i < n; i++)
                kev_watch_free(watches[i]);
}

START_TEST(test_many) {
        static const enum kev_filter filters[] = { KEV_FILTER_POLL, KEV_FILTER_READ, KEV_FILTER_AIO };
        int *fds = calloc(MANY, sizeof(*fds)), *n_told = calloc(MANY, sizeof(*n_told));
        const struct kev_event *event;
        struct kev *kev;

        harness_label(kev_filter_name(filters[_i]));
        ck_assert_int_eq(kev_open(daemon_->socket, &kev), 0);
        for (size_t i = 0; i < MANY; i++)
                fds[i] = new_eventfd();
        for (size_t i = 0; i < MANY; i += AT_ONCE)
                add_many(kev, filters[_i], 0, &fds[i], AT_ONCE);
        if (filters[_i] == KEV_FILTER_POLL) /* they can be written, which is among the default notes or not */
                while (kev_wait(kev, 0, &event) == 1)
                        ck_assert_uint_eq(kev_event_notes(event) & KEV_NOTE_IN, 0);
        else
                ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
        for (size_t i = 0; i < MANY; i++)
                put_one(fds[i]);
        for (size_t i = 0; i < MANY; i++) {
                ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
                ck_assert_uint_eq(n_told[kev_event_id(event)]++, 0);
        }
        ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
        for (int64_t id = 0; id < MANY / 2; id++)
                ck_assert_int_eq(kev_remove(kev, id), 0);
        for (size_t i = 0; i < MANY; i++)
                (void)close(fds[i]);
        kev_close(kev); /* the other half goes with it */
        free(fds);
        free(n_told);
}
END_TEST

static int64_t events_in(struct json_object *status) {
        return number_at(status, "/parameters/counters/eventsIn");
}

/* Many watches on each of few, which become ready at once: others come in between, and a Wait brings what was ready, the
 * last of all as well. */
START_TEST(test_many_at_once) {
        enum { WATCHES = 100, FDS = MANY / WATCHES };
        int fds[FDS], others[WATCHES], other = client_connect(daemon_->socket), behind = client_connect(daemon_->socket);
        int last = new_eventfd();
        struct json_object *status = client_call(other, "org.kevd.manager.GetStatus", NULL);
        int64_t before = events_in(status);
        const struct kev_event *event;
        struct kev *kev;

        harness_label(_i ? "aio" : "poll");
        json_object_put(status);
        ck_assert_int_eq(kev_open(daemon_->socket, &kev), 0);
        for (size_t i = 0; i < FDS; i++) {
                fds[i] = new_eventfd();
                for (size_t k = 0; k < WATCHES; k++)
                        others[k] = fds[i];
                add_many(kev, _i ? KEV_FILTER_AIO : KEV_FILTER_POLL, _i ? 0 : KEV_NOTE_IN, others, WATCHES);
        }
        change(behind, last, "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
        ck_assert_int_eq(kill(daemon_->pid, SIGSTOP), 0);
        for (size_t i = 0; i < FDS; i++)
                put_one(fds[i]);
        put_one(last);
        client_send_message(other, "{\"method\":\"org.kevd.manager.GetStatus\"}");
        client_send_message(behind, "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":0}}");
        ck_assert_int_eq(kill(daemon_->pid, SIGCONT), 0);
        status = client_receive(other, HARNESS_REPLY_MSEC);
        ck_assert_int_lt(events_in(status), before + MANY);
        json_object_put(status);
        status = client_receive(behind, HARNESS_REPLY_MSEC);
        ck_assert_msg(json_at(status, "/parameters/events/0"), "%s", json_object_to_json_string(status));
        json_object_put(status);
        for (size_t i = 0; i < MANY; i++)
                ck_assert_msg(kev_wait(kev, HARNESS_REPLY_MSEC, &event) == 1, "%zu", i);
        ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
        for (size_t i = 0; i < FDS; i++)
                (void)close(fds[i]);
        kev_close(kev);
        (void)close(last);
        (void)close(behind);
        (void)close(other);
}
END_TEST

/* ---- clients that go ---------------------------------------------------------------------------------- */

#define ADD_READ "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[" \
        "{\"id\":1,\"filter\":\"read\",\"descriptor\":0},{\"id\":2,\"filter\":\"write\",\"descriptor\":1}," \
        "{\"id\":3,\"filter\":\"poll\",\"descriptor\":1},{\"id\":4,\"filter\":\"read\",\"descriptor\":1,\"data\":3}]}}"

/* With a part of the message sent, or all of it, and without a word more. */
START_TEST(test_death) {
        for (size_t i = 0; i < (size_t)harness_rounds(60); i++) {
                size_t size = MIN(1 + i * 7, sizeof(ADD_READ));
                pid_t child = fork();
                int status;

                assert_system(child >= 0, "fork");
                if (child == 0) {
                        int kevd = client_connect(daemon_->socket), fds[2];

                        if (i % 2)
                                make_pipe(fds);
                        else
                                make_tcp_pair(fds);
                        client_send_with_fds(kevd, ADD_READ, size, fds, 2);
                        (void)kill(getpid(), SIGKILL);
                }
                ck_assert_int_eq(waitpid(child, &status, 0), child);
                ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "the client's status was %d", status);
        }
}
END_TEST

/* Closed while it is looked at: it is watched, or refused; and what is watched is silent, or tells what was there. */
START_TEST(test_closed_at_once) {
        int kevd = client_connect(daemon_->socket);

        for (int i = 0; i < harness_rounds(300); i++) {
                struct json_object *reply;
                int fds[2];

                if (i % 3 == 0)
                        make_pipe(fds);
                else if (i % 3 == 1)
                        make_unix_pair(fds);
                else
                        make_tcp_pair(fds);
                ck_assert_int_eq(write(fds[1], "x", 1), 1);
                client_send_with_fds(kevd, ADD_READ, sizeof(ADD_READ), fds, 2);
                (void)close(fds[i % 2]);
                (void)close(fds[!(i % 2)]);
                reply = client_receive(kevd, HARNESS_REPLY_MSEC);
                ck_assert_msg(reply && json_at(reply, "/parameters/refused"), "no reply");
                json_object_put(reply);
                json_object_put(take_events(kevd, 0));
                json_object_put(change_reply(kevd, -1, "{\"remove\":[1,2,3,4]}"));
        }
        expect_nothing(kevd);
        (void)close(kevd);
}
END_TEST

/* The number is something else's now: that is never looked at, whether the first is open elsewhere or not. */
START_TEST(test_reused_number) {
        int kevd = client_connect(daemon_->socket), fds[2], other[2], copy, number;

        make_pipe(fds);
        make_pipe(other);
        ck_assert_int_eq(write(other[1], "something else, and much more of it", 35), 35);
        number = fcntl(fds[0], F_DUPFD_CLOEXEC, 100);
        copy = fcntl(fds[0], F_DUPFD_CLOEXEC, 200);
        (void)close(fds[0]);
        change(kevd, number, "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"flags\":[\"level\"]}]}");
        for (int i = 0; i < harness_rounds(2000); i++) {
                struct json_object *events;
                char byte;

                ck_assert_int_eq(write(fds[1], "x", 1), 1);
                ck_assert_int_eq(dup3(i % 2 ? copy : other[0], number, O_CLOEXEC), number);
                events = take_events(kevd, 0);
                ck_assert_msg(json_object_array_length(events) == 1 &&
                                      (!json_at(events, "/0/data") || number_at(events, "/0/data") == 1),
                              "%s", json_object_to_json_string(events));
                json_object_put(events);
                ck_assert_int_eq(read(copy, &byte, 1), 1);
        }
        ck_assert_int_eq(dup3(other[0], number, O_CLOEXEC), number);
        (void)close(copy);
        expect_nothing(kevd);
        ck_assert_int_eq(write(other[1], "x", 1), 1);
        expect_nothing(kevd);
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"read\",\"flags\":[\"level\"]}]}");
        expect_nothing(kevd);
        (void)close(number);
        (void)close(fds[1]);
        (void)close(other[0]);
        (void)close(other[1]);
        (void)close(kevd);
}
END_TEST

/* ---- strange ones ---------------------------------------------------------------------------------------- */

/* Each reply is something to be read: it does not run on by itself, unless a stream was asked for. */
START_TEST(test_own_connection) {
        int kevd = client_connect(daemon_->socket);
        int64_t end;

        change(kevd, kevd, "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\",\"out\",\"rdhup\"],"
                           "\"flags\":[%s]},{\"id\":2,\"filter\":\"read\",\"descriptor\":0}]}", _i ? "\"level\"" : "");
        for (int i = 0; i < 20; i++) {
                json_object_put(take_events(kevd, 0));
                expect_answers(daemon_); /* it had the time for another */
                ck_assert_ptr_null(client_receive(kevd, 0));
        }
        client_send_message(kevd, "{\"method\":\"org.kevd.events.Wait\",\"more\":true}");
        end = now_msec() + 200;
        while (now_msec() < end) { /* nobody else has to wait for that */
                int64_t before = now_msec();

                expect_answers(daemon_);
                ck_assert_int_lt(now_msec() - before, HARNESS_REPLY_MSEC);
                json_object_put(client_receive(kevd, 0));
        }
        (void)close(kevd);
}
END_TEST

static bool has_one_connection(void *userdata) {
        struct json_object *reply = client_call(*(int *)userdata, "org.kevd.manager.GetStatus", NULL);
        bool one = number_at(reply, "/parameters/connections") == 1;

        json_object_put(reply);
        return one;
}

/* Beside a message that never ends: the daemon itself has the peer's end open then, and is not told that the peer has
 * gone. */
START_TEST(test_own_end_in_half_a_message) {
        enum { N = 20 };
        int kevds[N], observer;

        for (int i = 0; i < N; i++)
                kevds[i] = client_connect(daemon_->socket);
        for (int i = 0; i < N; i++) /* each itself, or another one */
                client_send_with_fds(kevds[i], "{", 1, &kevds[i % 2 ? i - 1 : i], 1);
        for (int i = 0; i < N; i++)
                (void)close(kevds[i]);
        observer = client_connect(daemon_->socket);
        ck_assert(wait_until(has_one_connection, &observer, HARNESS_REPLY_MSEC + 10000));
        (void)close(observer);
}
END_TEST

/* A set in a set, and so on. Any of them may hold, now or later, a file of a file system whose owner answers poll(2)
 * when he likes (FUSE): the daemon's loop would wait for him. */
START_TEST(test_sets) {
        enum { DEEP_MAX = 5 };
        struct epoll_event event = { .events = EPOLLIN };
        int kevd = client_connect(daemon_->socket), fds[2], sets[DEEP_MAX], inner;

        make_pipe(fds);
        inner = fds[0];
        for (int i = 0; i <= _i; i++) {
                sets[i] = epoll_create1(EPOLL_CLOEXEC);
                assert_system(epoll_ctl(sets[i], EPOLL_CTL_ADD, inner, &event) == 0, "epoll_ctl");
                inner = sets[i];
        }
        refused(kevd, inner, "EPERM", "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        refused(kevd, inner, "EPERM", "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}");
        refused(kevd, inner, "EPERM", "{\"add\":[{\"id\":1,\"filter\":\"write\",\"descriptor\":0}]}");
        for (int i = 0; i <= _i; i++)
                (void)close(sets[i]);
        (void)close(fds[0]);
        (void)close(fds[1]);
        (void)close(kevd);
}
END_TEST

/* eventpoll.c, path_limits: the rest is refused, and those that were made are as good as any. */
START_TEST(test_same) {
        enum { N = 200 };
        int kevd = client_connect(daemon_->socket), fd = new_eventfd();
        size_t made = 0;

        for (int round = 0; round < 2; round++) {
                made = 0;
                for (int i = 0; i < N; i++) {
                        struct json_object *reply = change_reply(kevd, fd, "{\"add\":[{\"id\":%d,\"filter\":\"%s\",\"descriptor\":0"
                                                                 "%s}]}", i, _i ? "read" : "poll",
                                                                 _i ? "" : ",\"notes\":[\"in\"]");
                        const char *error = text_at(reply, "/parameters/refused/0/errno");

                        ck_assert_msg(!*error || strcmp(error, "ENOSPC") == 0, "%s", json_object_to_json_string(reply));
                        made += !*error;
                        json_object_put(reply);
                }
                ck_assert_uint_ge(made, 90);
                expect_nothing(kevd);
                put_one(fd);
                for (size_t i = 0; i < made; i++)
                        json_object_put(next_event(kevd));
                expect_nothing(kevd);
                for (int i = 0; i < N; i++)
                        json_object_put(change_reply(kevd, -1, "{\"remove\":[%d]}", i));
                ck_assert_int_eq(read(fd, &(uint64_t){ 0 }, sizeof(uint64_t)), sizeof(uint64_t));
        }
        expect_fds(daemon_, n_fds + 1);
        (void)close(fd);
        (void)close(kevd);
}
END_TEST

/* Removed while they are being looked at, in the call that made them even, and with the connection. */
START_TEST(test_removed) {
        for (int round = 0; round < harness_rounds(50); round++) {
                int kevd = client_connect(daemon_->socket), fds[16];

                for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
                        char text[512];

                        fds[i] = new_eventfd();
                        put_one(fds[i]);
                        (void)snprintf(text, sizeof(text), "{\"method\":\"org.kevd.events.Change\",\"oneway\":true,\"parameters\":{"
                                       "\"add\":[{\"id\":%zu,\"filter\":\"%s\",\"descriptor\":0}],\"modify\":[{\"id\":%zu,"
                                       "\"filter\":\"read\",\"data\":2}],\"enable\":[%zu],\"remove\":[%zu]}}",
                                       i, i % 2 ? "read" : "aio", i - 1, i, i / 2);
                        client_send_with_fds(kevd, text, strlen(text) + 1, &fds[i], 1);
                        put_one(fds[i]);
                }
                if (round % 2)
                        json_object_put(take_events(kevd, 0));
                (void)close(kevd);
                for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                        (void)close(fds[i]);
        }
}
END_TEST

/* ---- another user's ------------------------------------------------------------------------------------------ */

static void start_for_all(void) {
        if (geteuid() != 0)
                harness_skip("needs root");
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        daemon_ = daemon_start("--mode=system", "--file-mechanism=inotify");
        count_fds();
}

static void be_other_user(void) {
        int kevd, fds[2];

        if (setresgid(OTHER_CLIENT, OTHER_CLIENT, OTHER_CLIENT) < 0 ||
            setresuid(OTHER_CLIENT, OTHER_CLIENT, OTHER_CLIENT) < 0 || prctl(PR_SET_DUMPABLE, 1) < 0)
                _exit(2);
        kevd = client_connect(daemon_->socket);
        for (int i = 0; i < 50; i++) {
                make_unix_pair(fds);
                change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"data\":3},"
                                     "{\"id\":2,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]},"
                                     "{\"id\":3,\"filter\":\"write\",\"descriptor\":0,\"flags\":[\"oneshot\"]}]}");
                json_object_put(next_event(kevd));
                ck_assert_int_eq(write(fds[1], "xyz", 3), 3);
                json_object_put(next_event(kevd));
                json_object_put(next_event(kevd));
                (void)close(fds[0]);
                ck_assert_int_eq(poll(&(struct pollfd){ .fd = fds[1], .events = POLLRDHUP }, 1, HARNESS_REPLY_MSEC), 1);
                change(kevd, -1, "{\"remove\":[1,2]}");
                (void)close(fds[1]);
        }
        client_send_with_fds(kevd, ADD_READ, sizeof(ADD_READ), (int[]){ kevd, 0 }, 2);
        _exit(0);
}

/* The daemon's root may look at its descriptors; the figures are those, and the other things as for anybody. What the
 * daemon has for itself it has after the first time. */
START_TEST(test_other_user) {
        for (int i = 0; i < 3; i++) {
                pid_t child = fork();
                int status;

                assert_system(child >= 0, "fork");
                if (child == 0)
                        be_other_user();
                ck_assert_int_eq(waitpid(child, &status, 0), child);
                ck_assert_int_eq(status, 0);
                if (i == 0)
                        n_fds = fds_at_rest(daemon_);
        }
}
END_TEST

/* ---- the last close that waits ------------------------------------------------------------------------------------ */

/* SO_LINGER: the close of the last copy, the daemon's, waits for the other side. Only the user's threads do. */
START_TEST(test_linger) {
        enum { N = 8 };
        const struct linger linger = { .l_onoff = 1, .l_linger = 20 };
        static const char bytes[65536] = "";
        int kevd = client_connect(daemon_->socket), clients[N], fds[N][2];

        for (int i = 0; i < N; i++) {
                clients[i] = client_connect(daemon_->socket);
                make_tcp_pair(fds[i]);
                while (write(fds[i][0], bytes, sizeof(bytes)) > 0)
                        ;
                assert_system(fcntl(fds[i][0], F_SETFL, 0) == 0, "F_SETFL");
                assert_system(setsockopt(fds[i][0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0, "SO_LINGER");
        }
        assert_system(kill(daemon_->pid, SIGSTOP) == 0, "SIGSTOP"); /* so that its copy is the last one */
        for (int i = 0; i < N; i++) {
                client_send_with_fds(clients[i], ADD_READ, sizeof(ADD_READ), (int[]){ fds[i][0], fds[i][0] }, 2);
                (void)close(fds[i][0]);
        }
        assert_system(kill(daemon_->pid, SIGCONT) == 0, "SIGCONT");
        for (int64_t end = now_msec() + 500; now_msec() < end;) {
                int64_t before = now_msec();

                json_object_put(client_call(kevd, "org.kevd.events.GetLimits", NULL));
                ck_assert_msg(now_msec() - before < 5000, "an answer took %lld ms", (long long)(now_msec() - before));
        }
        expect_answers(daemon_);
        (void)close(kevd);
        for (int i = 0; i < N; i++) { /* what is unread makes this a reset, and ends the lingering */
                (void)close(fds[i][1]);
                (void)close(clients[i]);
        }
}
END_TEST

static bool has_asked(void *userdata) {
        return silent_requests() > *(const unsigned *)userdata;
}

/* A file that keeps who looks at it waiting. What inotify has of other files, which nobody needs, goes all the same. */
START_TEST(test_look_that_hangs) {
        enum { FILES = 1300, KEPT = 1024 };
        static const char one[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                                  "\"filter\":\"read\",\"descriptor\":0}]}}";
        unsigned before = silent_requests();
        int kevd, hanging, fd;
        const char *silent;
        pid_t server;

        if (geteuid() != 0)
                harness_skip("to mount takes root");
        need_private_mounts();
        silent = make_root("silent");
        server = silent_mount(silent);
        if (server < 0)
                harness_skip("there is no FUSE");
        start();
        hanging = client_connect(daemon_->socket);
        kevd = client_connect(daemon_->socket);
        fd = open(at("%s/" SILENT_FILE, silent), O_RDONLY | O_CLOEXEC);
        assert_system(fd >= 0, silent);
        client_send_with_fds(hanging, one, sizeof(one), &fd, 1);
        ck_assert_msg(wait_until(has_asked, &before, HARNESS_REPLY_MSEC), "nobody looks at it");
        for (int i = 0; i < FILES; i++) {
                int file = open(at("%s/file-%d", harness_tempdir(), i), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

                assert_system(file >= 0, harness_tempdir());
                change(kevd, file, "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}");
                change(kevd, -1, "{\"remove\":[1]}");
                (void)close(file);
        }
        daemon_expect_watches(daemon_, KEPT);
        silent_end(server, silent);
        (void)close(fd);
        (void)close(kevd);
        (void)close(hanging);
        daemon_expect_watches(daemon_, 0);
        stop();
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("descriptors-attacks");
        TCase *c;

        c = harness_case(suite, "many");
        tcase_set_timeout(c, 120);
        tcase_add_checked_fixture(c, start_many, stop);
        tcase_add_loop_test(c, test_many, 0, 3);
        tcase_add_loop_test(c, test_many_at_once, 0, 2);

        c = harness_case(suite, "going");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, test_death);
        tcase_add_test(c, test_closed_at_once);
        tcase_add_test(c, test_reused_number);

        c = harness_case(suite, "strange");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_own_connection, 0, 2);
        tcase_add_test(c, test_own_end_in_half_a_message);
        tcase_add_loop_test(c, test_sets, 0, 5);
        tcase_add_loop_test(c, test_same, 0, 2);
        tcase_add_test(c, test_removed);
        tcase_add_test(c, test_linger);

        c = harness_case(suite, "hanging");
        tcase_add_test(c, test_look_that_hangs);

        c = harness_case(suite, "users");
        tcase_add_checked_fixture(c, start_for_all, stop);
        tcase_add_test(c, test_other_user);
        return harness_main(argc, argv);
}
