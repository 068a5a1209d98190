/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What a user may have of the real daemon: connections, watches, and watches of one name, device or process. Who has all
 * of it is refused more, what goes makes room, and others are not concerned.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "macro.h"
#include "protocol.h"

START_TEST(test_quota_connections) {
        enum { LIMIT = 1024, MORE = 50 };
        struct rlimit limit = { 4096, 4096 };
        struct daemon *daemon;
        static int fds[LIMIT + MORE];
        int other = -1;

        if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
                harness_skip("the limit of descriptors can't be raised");
        if (getenv("KEVD_MUX") && strcmp(getenv("KEVD_MUX"), "select") == 0)
                harness_skip("select has no room for so many connections");
        daemon = geteuid() == 0 ? start_for_all() : daemon_start(NULL);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                fds[i] = client_connect(daemon->socket);
        for (size_t i = LIMIT; i < ARRAY_SIZE(fds); i++)
                client_expect_close(fds[i], HARNESS_REPLY_MSEC);
        for (size_t i = 0; i < LIMIT; i += 93)
                expect_answers(fds[i]);
        if (geteuid() == 0) { /* another user is not concerned */
                other = client_connect_as(daemon->socket, NOBODY);
                expect_answers(other);
                (void)close(other);
        }

        /* What goes makes room. */
        for (size_t i = 0; i < 3; i++)
                (void)close(fds[i]);
        for (size_t i = 0; i < 3; i++) {
                struct json_object *reply;

                for (;;) { /* until the daemon has seen that they went */
                        static const char call[] = "{\"method\":\"org.kevd.events.GetLimits\"}";
                        char byte;

                        fds[i] = client_connect(daemon->socket);
                        if (send(fds[i], call, sizeof(call), MSG_NOSIGNAL) == sizeof(call) &&
                            recv(fds[i], &byte, 1, MSG_PEEK) == 1)
                                break;
                        (void)close(fds[i]);
                }
                reply = receive(fds[i]);
                json_object_put(reply);
        }
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                (void)close(fds[i]);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_quota_watches) {
        enum { A_CALL = 1000, A_NAME = 4096 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        struct json_object *reply = call(fd, "GetLimits", "{}");
        int64_t limit = number_at(reply, "/parameters/watches"), made = 0, no_more = 0, id = 0;
        char *text = malloc(A_CALL * 64);

        json_object_put(reply);
        ck_assert_ptr_nonnull(text);
        ck_assert_int_lt(limit, 1000000);
        while (id < limit + 2 * A_CALL) {
                size_t size = 0;

                for (int i = 0; i < A_CALL; i++, id++)
                        size += (size_t)sprintf(text + size, "%s{\"id\":%lld,\"filter\":\"user\",\"name\":\"n%lld\"}",
                                                i ? "," : "", (long long)id, (long long)id / A_NAME);
                reply = call(fd, "Change", "{\"add\":[%s]}", text);
                no_more += (int64_t)json_object_array_length(json_at(reply, "/parameters/refused"));
                if (json_object_array_length(json_at(reply, "/parameters/refused")) > 0)
                        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EDQUOT");
                json_object_put(reply);
        }
        made = id - no_more;
        ck_assert_int_eq(made, limit);
        refused(other, "{\"id\":1,\"filter\":\"timer\",\"data\":1000}", "EDQUOT"); /* it is the user's limit */
        ck_assert_int_eq(trigger(other, "n1", 1), A_NAME);

        /* All goes with the connection, a part in each turn: another's call is answered in between. */
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        (void)close(fd);
        client_send_message(other, "{\"method\":\"org.kevd.manager.GetStatus\"}");
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        reply = receive(other);
        ck_assert_int_gt(number_at(reply, "/parameters/watches"), limit / 2);
        json_object_put(reply);
        do {
                reply = call(other, "Change", "{\"add\":[{\"id\":1,\"filter\":\"timer\",\"data\":1000000}]}");
                made = (int64_t)json_object_array_length(json_at(reply, "/parameters/refused"));
                json_object_put(reply);
        } while (made > 0);
        do {
                reply = client_call(other, "org.kevd.manager.GetStatus", NULL);
                made = number_at(reply, "/parameters/watches");
                if (made == 1)
                        ck_assert_int_eq(number_at(reply, "/parameters/queueBytes"), 0);
                json_object_put(reply);
        } while (made > 1);
        ck_assert_int_eq(made, 1);
        free(text);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_quota_watches_of_a_name) {
        enum { LIMIT = 4096 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        struct json_object *reply;

        watch_name(fd, "n", 0, LIMIT - 1);
        watch_name(other, "n", 0, 1);
        for (int i = 0; i < 2; i++) {
                reply = call(other, "Change", "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
                ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EDQUOT");
                ck_assert_msg(strncmp(text_at(reply, "/parameters/refused/0/message"), "name: ", 6) == 0, "%s",
                              json_object_to_json_string(reply));
                json_object_put(reply);
                ck_assert_int_eq(trigger(other, "n", 1), LIMIT);
        }
        watch_name(other, "m", 2, 1); /* another name is not concerned */
        if (geteuid() == 0)
                ck_assert_int_eq(trigger(fd, "m", 1), 1);
        client_change(fd, "{\"remove\":[17]}");
        watch_name(other, "n", 1, 1);
        ck_assert_int_eq(trigger(other, "n", 1), LIMIT);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* All watches of one thing are told in one go, whatever it is. `first` of them on, and so many. Returns what the last
 * refusal says, and "" if there was none. */
static const char *watch_thing(int fd, const char *members, int first, int n) {
        enum { A_CALL = 256 };
        static char message[256];

        message[0] = 0;
        while (n > 0) {
                int end = first + (n < A_CALL ? n : A_CALL);
                char *text = malloc(A_CALL * 128);
                struct json_object *reply, *refusal;
                size_t size = 0;

                ck_assert_ptr_nonnull(text);
                n -= end - first;
                for (int id = first; id < end; id++)
                        size += (size_t)sprintf(text + size, "%s{\"id\":%d,%s}", id > first ? "," : "", id, members);
                first = end;
                reply = call(fd, "Change", "{\"add\":[%s]}", text);
                refusal = json_at(reply, "/parameters/refused/0");
                if (refusal && strcmp(text_at(refusal, "/errno"), "EOPNOTSUPP") == 0)
                        harness_skip(text_at(refusal, "/message"));
                if (refusal)
                        ck_assert_str_eq(text_at(refusal, "/errno"), "EDQUOT");
                format(message, sizeof(message), "%s", text_at(refusal, "/message"));
                json_object_put(reply);
                free(text);
        }
        return message;
}

START_TEST(test_quota_watches_of_a_thing) {
        enum { LIMIT = 4096 };
        static const char of_process[] = "pid: the limit of 4096 watches of one process is reached";
        static const struct {
                const char *label, *members, *refusal;
        } things[] = {
                { "all-devices", "\"filter\":\"netdev\"", "filter: the limit of 4096 watches of all devices is reached" },
                { "device", "\"filter\":\"netdev\",\"name\":\"lo\"",
                  "name: the limit of 4096 watches of one device is reached" },
                { "process", "\"filter\":\"proc\",\"notes\":[\"exit\"]", of_process },
                { "process-on-feed", "\"filter\":\"proc\",\"notes\":[\"exec\"]", of_process },
                { "signals", "\"filter\":\"signal\"", of_process },
        };
        struct daemon *daemon = geteuid() == 0 ? start_for_all() : daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket), foreign;
        bool has_pid = things[_i].refusal == of_process;
        char members[128], pid[32] = "";

        harness_label(things[_i].label);
        if (has_pid)
                format(pid, sizeof(pid), ",\"pid\":%d", (int)getpid());
        format(members, sizeof(members), "%s%s", things[_i].members, pid);
        ck_assert_str_eq(watch_thing(fd, members, 0, LIMIT - 1), "");
        ck_assert_str_eq(watch_thing(other, members, 0, 1), "");
        for (int i = 0; i < 2; i++)
                ck_assert_str_eq(watch_thing(other, members, 1, 1), things[_i].refusal);
        if (geteuid() == 0 && !has_pid) { /* another user is not concerned */
                foreign = client_connect_as(daemon->socket, NOBODY);
                ck_assert_str_eq(watch_thing(foreign, members, 0, 1), "");
                (void)close(foreign);
        }
        client_change(fd, "{\"remove\":[17]}");
        ck_assert_str_eq(watch_thing(other, members, 1, 1), "");
        ck_assert_str_eq(watch_thing(other, members, 2, 1), things[_i].refusal);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

static pid_t start_private(int fd, const char *option) {
        pid_t pid = fork();

        assert_system(pid >= 0, "fork");
        if (pid > 0)
                return pid;
        (void)dup2(fd, STDIN_FILENO);
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)execl(getenv("KEVD"), "kevd", "--mode=private", option, (char *)NULL);
        _exit(126);
}

/* Replies of many times the limit, of which most of the time some are unread, but never much: the socket takes little
 * at a time, and the next calls are there already. */
START_TEST(test_quota_output_that_is_read) {
        static const char description[] = "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":"
                                          "{\"interface\":\"org.kevd.events\"}}";
        enum { LIMIT = 1024 * 1024, CALLS = 1000 };
        static char calls[CALLS * sizeof(description)];
        int fds[2], little = 4096, status;
        size_t size = 0;
        pid_t pid;

        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0, "socketpair");
        assert_system(setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &little, sizeof(little)) == 0, "SO_SNDBUF");
        pid = start_private(fds[1], "--limit-output-bytes=1048576");
        (void)close(fds[1]);
        for (int i = 0; i < CALLS; i++)
                memcpy(calls + (size_t)i * sizeof(description), description, sizeof(description));
        client_send(fds[0], calls, sizeof(calls));
        for (int i = 0; i < CALLS; i++) {
                struct json_object *reply = receive(fds[0]);

                size += strlen(text_at(reply, "/parameters/description"));
                json_object_put(reply);
        }
        ck_assert_uint_gt(size, 4 * LIMIT);
        (void)close(fds[0]);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("protocol-quotas"), "quotas");

        tcase_add_test(c, test_quota_connections);
        tcase_add_test(c, test_quota_watches);
        tcase_add_test(c, test_quota_watches_of_a_name);
        tcase_add_loop_test(c, test_quota_watches_of_a_thing, 0, 5);
        tcase_add_test(c, test_quota_output_that_is_read);
        return harness_main(argc, argv);
}
