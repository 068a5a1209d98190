/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Descriptors that are passed with calls to the real daemon, without the library: which call they belong to, what they
 * must not be, how many there may be, and that the daemon lets go of them.
 */

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "macro.h"
#include "protocol.h"
#include "silent.h"

/* Watches on descriptors, calls in one go, some without any and one too long for one read. */
START_TEST(test_descriptor_pipelined) {
        enum { N = 12 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), files[N];
        char *text = malloc(60000);

        ck_assert_ptr_nonnull(text);
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\"}");
        for (int i = 0; i < N; i++) {
                char name[16];
                size_t size;

                (void)snprintf(name, sizeof(name), "file-%d", i);
                files[i] = open_new_file(name);
                size = (size_t)snprintf(text, 60000,
                                        "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":%d,"
                                        "\"filter\":\"vnode\",\"notes\":[\"write\"],\"descriptor\":0}]}%*s}", i, i % 3 == 2 ? 50000 : 1, "");
                client_send_with_fds(fd, text, size + 1, &files[i], 1);
                if (i % 2)
                        client_send_message(fd, "{\"method\":\"org.kevd.events.GetLimits\"}");
        }
        json_object_put(receive(fd)); /* of the Wait */
        for (int i = 0; i < N; i++) {
                expect_none_refused(fd);
                if (i % 2)
                        json_object_put(receive(fd));
        }
        for (int i = 0; i < N; i++) {
                struct json_object *reply;

                touch(files[i]);
                reply = take(fd);
                ck_assert_uint_ge(n_events(reply), 1);
                for (size_t n = 0; n < n_events(reply); n++)
                        ck_assert_int_eq(
                                number_at(json_object_array_get_idx(json_at(reply, "/parameters/events"), n), "/id"),
                                i);
                json_object_put(reply);
                (void)close(files[i]);
        }
        free(text);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_descriptor_index) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), files[4];
        struct json_object *reply;
        const char *text;

        for (int i = 0; i < 4; i++) {
                char name[16];

                (void)snprintf(name, sizeof(name), "file-%d", i);
                files[i] = open_new_file(name);
        }
        text = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":["
               "{\"id\":13,\"filter\":\"vnode\",\"notes\":[\"write\"],\"descriptor\":3},"
               "{\"id\":10,\"filter\":\"vnode\",\"notes\":[\"write\"],\"descriptor\":0},"
               "{\"id\":14,\"filter\":\"vnode\",\"notes\":[\"write\"],\"descriptor\":4},"
               "{\"id\":15,\"filter\":\"vnode\",\"notes\":[\"write\"],\"descriptor\":-1},"
               "{\"id\":11,\"filter\":\"vnode\",\"notes\":[\"write\"],\"descriptor\":1},"
               "{\"id\":12,\"filter\":\"vnode\",\"notes\":[\"write\"],\"descriptor\":2}]}}";
        client_send_with_fds(fd, text, strlen(text) + 1, files, 4);
        reply = receive(fd);
        ck_assert_uint_eq(json_object_array_length(json_at(reply, "/parameters/refused")), 2);
        ck_assert_int_eq(number_at(reply, "/parameters/refused/0/id"), 14);
        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EBADF");
        ck_assert_int_eq(number_at(reply, "/parameters/refused/1/id"), 15);
        json_object_put(reply);

        /* They were that call's, and are no more. */
        refused(fd, "{\"id\":1,\"filter\":\"vnode\",\"descriptor\":0}", "EBADF");
        for (int i = 0; i < 4; i++) {
                touch(files[i]);
                reply = take(fd);
                ck_assert_uint_ge(n_events(reply), 1);
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/id"), 10 + i);
                json_object_put(reply);
                (void)close(files[i]);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_descriptor_of_wrong_kind) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), file = open_new_file("file"), pidfd = pidfd_open(getpid(), 0), ends[2];
        const struct {
                int fd;
                const char *filter;
        } wrong[] = {
                { file, "proc" }, { fd, "proc" }, { file, "tree" }, { pidfd, "tree" }, { -1, "proc" }, { -1, "tree" },
        };
        size_t before;

        expect_answers(fd);
        before = n_fds_of(daemon->pid);
        ck_assert_int_ge(pidfd, 0);
        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                struct json_object *reply;
                char text[256];

                (void)snprintf(text, sizeof(text), "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                                                   "\"filter\":\"%s\",\"descriptor\":0}]}}", wrong[i].filter);
                send_with_fd(fd, wrong[i].fd < 0 ? ends[0] : wrong[i].fd, text);
                reply = receive(fd);
                ck_assert_msg(*text_at(reply, "/parameters/refused/0/errno"), "%zu: %s", i, json_object_to_json_string(reply));
                json_object_put(reply);
        }
        expect_fds(daemon, before);
        (void)close(ends[0]);
        (void)close(ends[1]);
        (void)close(pidfd);
        (void)close(file);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The daemon lets go of what came with a call, whatever the call was. */
START_TEST(test_descriptor_leaks) {
        static const char *const calls[] = {
                "{\"method\":\"org.kevd.events.GetLimits\"}",
                "{\"method\":\"org.kevd.events.GetLimits\",\"oneway\":true}",
                "{\"method\":\"org.kevd.events.None\"}",
                "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":0}}",
                "{\"method\":\"org.kevd.events.Wait\"}",
                "{\"method\":\"org.kevd.events.Monitor\",\"more\":true,\"parameters\":{\"watches\":[{\"id\":1,\"filter\":\"vnode\","
                "\"descriptor\":0}]}}",
                "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,\"filter\":\"tree\",\"descriptor\":0},"
                "{\"id\":2,\"filter\":\"none\"}]}}",
                "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,\"filter\":\"proc\",\"descriptor\":0},"
                "{\"id\":1,\"filter\":\"vnode\",\"descriptor\":0},{\"id\":2,\"filter\":\"vnode\",\"descriptor\":1}]}}",
                "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,\"filter\":\"vnode\",\"descriptor\":0},"
                "{\"id\":2,\"filter\":\"vnode\",\"descriptor\":0}]}}",
                "no JSON",
                "",
        };
        struct daemon *daemon = daemon_start(NULL);
        int other = client_connect(daemon->socket), file = open_new_file("file");
        size_t before;

        /* What a first watch makes it open for good does not count. */
        client_change(other, "{\"add\":[{\"id\":1,\"filter\":\"vnode\",\"path\":\"%s/file\"}]}", harness_tempdir());
        before = n_fds_of(daemon->pid);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                for (int how = 0; how < 3; how++) {
                        int fd = client_connect(daemon->socket), fds[8];

                        for (size_t n = 0; n < ARRAY_SIZE(fds); n++)
                                fds[n] = file;
                        /* Read and answered; closed at once; never whole. */
                        client_send_with_fds(fd, calls[i], strlen(calls[i]) + (how < 2), fds, ARRAY_SIZE(fds));
                        if (how == 0) {
                                ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
                                if (!strstr(calls[i], ".Wait\"}") && !strstr(calls[i], "Monitor"))
                                        client_expect_close(fd, HARNESS_REPLY_MSEC);
                        }
                        (void)close(fd);
                }
        expect_fds(daemon, before);
        (void)close(file);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* Nobody sees from a pipe that the daemon had its other end: it is gone with the answer. */
START_TEST(test_descriptor_is_let_go) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), ends[2];
        struct pollfd p;

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        send_with_fd(fd, ends[1], "{\"method\":\"org.kevd.events.GetLimits\"}");
        (void)close(ends[1]);
        json_object_put(receive(fd));
        p = (struct pollfd){ .fd = ends[0], .events = POLLIN };
        ck_assert_int_eq(poll(&p, 1, HARNESS_REPLY_MSEC), 1);
        ck_assert(p.revents & POLLHUP);
        (void)close(ends[0]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* A byte, with one descriptor so many times. A connection that has ended is passed over. */
static void send_many(int fd, int passed, size_t n) {
        enum { FDS = 253 };
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(FDS * sizeof(int))];
        } control = { 0 };
        struct iovec piece = { .iov_base = (char[]){ '{' }, .iov_len = 1 };
        struct msghdr message = {
                .msg_iov = &piece, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = CMSG_SPACE(n * sizeof(int)),
        };

        control.header = (struct cmsghdr){
                .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n * sizeof(int)),
        };
        for (size_t i = 0; i < n; i++)
                memcpy(CMSG_DATA(&control.header) + i * sizeof(int), &passed, sizeof(int));
        if (sendmsg(fd, &message, MSG_NOSIGNAL) < 0)
                ck_assert_msg(errno == EPIPE || errno == ECONNRESET, "%s", strerror(errno));
}

/* SCM_MAX_FD descriptors with each of many pieces of a message that never ends. */
START_TEST(test_descriptors_too_many) {
        enum { PIECES = 8, FDS = 253 };
        struct daemon *daemon = daemon_start(NULL);
        int other = client_connect(daemon->socket), fd = client_connect(daemon->socket), file = open_new_file("file");
        size_t before;

        expect_answers(other);
        expect_answers(fd);
        before = n_fds_of(daemon->pid) - 1;
        for (int i = 0; i < PIECES; i++)
                send_many(fd, file, FDS);
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        expect_answers(other);
        expect_fds(daemon, before);
        (void)close(file);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* One user's connections hold all the descriptors that it may have the daemon hold: this harms those that pass some. */
START_TEST(test_descriptors_of_a_user) {
        enum { LIMIT = 4096, FDS = 253, A_CONNECTION = 2 * FDS, LEFT = 20 };
        struct rlimit limit = { 3 * LIMIT, 3 * LIMIT };
        struct daemon *daemon;
        int other, passing, file, fds[16], n = 0;
        size_t before, held = 0;
        struct json_object *reply;

        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                harness_skip("the limit of descriptors can't be raised");
        daemon = daemon_start("--mux", _i == 0 ? "epoll" : "poll");
        file = open_new_file("file");
        other = client_connect(daemon->socket);
        passing = client_connect(daemon->socket);
        client_change(other, "{\"add\":[{\"id\":1,\"filter\":\"vnode\",\"path\":\"%s/file\"}]}", harness_tempdir());
        expect_answers(passing);
        before = n_fds_of(daemon->pid);

        /* In messages that never end, until so many are left beside the connections' own. */
        while (held + (size_t)n + 2 < LIMIT - LEFT) {
                size_t now = MIN((size_t)FDS, LIMIT - LEFT - 2 - held - (size_t)n - (held % A_CONNECTION == 0));

                if (held % A_CONNECTION == 0)
                        fds[n++] = client_connect(daemon->socket);
                send_many(fds[n - 1], file, now);
                held += now;
        }
        expect_fds(daemon, before + held + (size_t)n);

        expect_answers(other);
        for (int i = 0; i < 100; i++)
                client_send_message(other, "{\"method\":\"org.kevd.events.GetLimits\"}");
        for (int i = 0; i < 100; i++)
                json_object_put(receive(other));
        /* There is room for as many. */
        client_send_message(passing, "{\"method\":\"org.kevd.events.GetLimits\",\"oneway\":true}");
        send_with_fd(passing, file, "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,\"filter\":\"vnode\","
                                    "\"notes\":[\"write\"],\"descriptor\":0}]}}");
        expect_none_refused(passing);
        touch(file);
        reply = take(passing);
        ck_assert_uint_eq(n_events(reply), 1);
        json_object_put(reply);
        expect_fds(daemon, before + held + (size_t)n);
        send_many(passing, file, LEFT);
        expect_fds(daemon, before + held + (size_t)n + LEFT);
        expect_answers(other);

        /* And for not one more. */
        send_with_fd(fds[0], file, "{");
        client_expect_close(fds[0], HARNESS_REPLY_MSEC);
        expect_fds(daemon, before + held + (size_t)n + LEFT - 1 - A_CONNECTION);
        send_many(fds[1], file, FDS); /* the connection's own limit */
        client_expect_close(fds[1], HARNESS_REPLY_MSEC);
        expect_answers(other);
        for (int i = 0; i < n; i++)
                (void)close(fds[i]);
        (void)close(passing);
        expect_fds(daemon, before - 1);
        expect_answers(other);
        (void)close(file);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/*
 * The last close of a TCP socket with SO_LINGER waits until its peer has taken what was written,
 * non-blocking or not: whoever leaves the last close to the daemon must not stop it.
 */
START_TEST(test_descriptor_that_lingers) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), reader, writer = -1, small = 4096;
        struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        struct linger linger = { .l_onoff = 1, .l_linger = 5 };
        socklen_t size = sizeof(address);
        static char data[1024 * 1024];
        int64_t start;

        ck_assert_int_ge(listener, 0);
        (void)setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
        if (bind(listener, (struct sockaddr *)&address, size) < 0)
                harness_skip("there is no IPv4 here");
        ck_assert_int_eq(listen(listener, 1), 0);
        ck_assert_int_eq(getsockname(listener, (struct sockaddr *)&address, &size), 0);
        writer = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_ge(writer, 0);
        if (connect(writer, (struct sockaddr *)&address, size) < 0)
                harness_skip("the loopback device is down");
        reader = accept(listener, NULL, NULL);
        ck_assert_int_ge(reader, 0);
        ck_assert_int_eq(setsockopt(writer, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
        while (send(writer, data, sizeof(data), MSG_DONTWAIT) > 0)
                ;

        /* Stopped, so that the last close is not the test's own. */
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        send_with_fd(fd, writer, "{\"method\":\"org.kevd.events.GetLimits\"}");
        (void)close(writer);
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        start = now_msec();
        json_object_put(receive(fd));
        for (int i = 0; i < 10; i++)
                expect_answers(other);
        ck_assert_msg(now_msec() - start < 2500, "the loop stood still for %lld ms", (long long)(now_msec() - start));
        (void)close(reader);
        (void)close(listener);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* Passes the file on, and holds it: to close it waits. */
static pid_t start_passing(const struct daemon *daemon, const char *path) {
        int told[2];
        pid_t pid;
        char byte;

        assert_system(pipe2(told, O_CLOEXEC) == 0, "pipe2");
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                int fd = client_connect(daemon->socket), file = open(path, O_RDONLY | O_CLOEXEC);

                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                send_with_fd(fd, file, "{");
                (void)!write(told[1], file >= 0 ? "y" : "n", 1);
                for (;;)
                        (void)pause();
        }
        (void)close(told[1]);
        ck_assert_int_eq(read(told[0], &byte, 1), 1);
        ck_assert_int_eq(byte, 'y');
        (void)close(told[0]);
        return pid;
}

/* Each close(2) asks its file system, which may take its time (flush): also near the limit, where descriptors are looked
 * at before they are taken. */
START_TEST(test_descriptor_that_flushes) {
        const char *silent;
        struct daemon *daemon;
        pid_t server, passing;
        int other;

        if (geteuid() != 0)
                harness_skip("to mount takes root");
        need_private_mounts();
        silent = make_root("silent");
        server = silent_mount(silent);
        if (server < 0)
                harness_skip("there is no FUSE");
        daemon = daemon_start("--limit-descriptors=20");
        other = client_connect(daemon->socket);
        expect_answers(other);
        passing = start_passing(daemon, at("%s/" SILENT_FILE, silent));
        for (int i = 0; i < 10; i++)
                expect_answers(other);
        silent_end(server, silent);
        (void)kill(passing, SIGKILL);
        ck_assert_int_eq(waitpid(passing, NULL, 0), passing);
        expect_answers(other);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("protocol-descriptors"), "descriptors");

        tcase_add_test(c, test_descriptor_pipelined);
        tcase_add_test(c, test_descriptor_index);
        tcase_add_test(c, test_descriptor_of_wrong_kind);
        tcase_add_test(c, test_descriptor_leaks);
        tcase_add_test(c, test_descriptor_is_let_go);
        tcase_add_test(c, test_descriptors_too_many);
        tcase_add_loop_test(c, test_descriptors_of_a_user, 0, 2);
        tcase_add_test(c, test_descriptor_that_lingers);
        tcase_add_test(c, test_descriptor_that_flushes);
        return harness_main(argc, argv);
}
