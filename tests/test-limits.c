/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a user may make the daemon hold is what the administrator has set, and is told to who asks. */

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "macro.h"

/* A daemon with this configuration file. */
static struct daemon *start(const char *configuration) {
        const char *path = at("%s/kevd.conf", harness_tempdir());
        char option[256];

        put(path, O_WRONLY | O_CREAT | O_TRUNC, configuration);
        (void)snprintf(option, sizeof(option), "--config=%s", path);
        return daemon_start(option);
}

static const char *add(int fd, int64_t id, const char *members) {
        static char name[32];
        char parameters[256];
        struct json_object *reply;

        (void)snprintf(parameters, sizeof(parameters), "{\"add\":[{\"id\":%lld,%s}]}", (long long)id, members);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        (void)snprintf(name, sizeof(name), "%s", text_at(reply, "/parameters/refused/0/errno"));
        json_object_put(reply);
        return name;
}

static void remove_watch(int fd, int64_t id) {
        client_change(fd, "{\"remove\":[%lld]}", (long long)id);
}

#define TIMER "\"filter\":\"timer\",\"data\":1000000"
#define USER "\"filter\":\"user\",\"name\":\"a\""
#define MANY "[{\"id\":2," USER "},{\"id\":3," USER "},{\"id\":4," USER "},{\"id\":5," USER "},{\"id\":6," USER "}]"

START_TEST(test_told) {
        static const struct {
                const char *pointer;
                int64_t value;
        } told[] = {
                { "/parameters/connections", 11 },    { "/parameters/watches", 12 },
                { "/parameters/watchBytes", 131072 }, { "/parameters/userQueueBytes", 262144 },
                { "/parameters/queueBytes", 65536 },  { "/parameters/outputBytes", 524288 },
                { "/parameters/descriptors", 16 },    { "/parameters/timers", 17 },
                { "/parameters/requestsPerSecond", 1800 }, { "/parameters/messageBytes", 65536 },
        };
        struct daemon *daemon = start("limit-connections = 11\nlimit-watches = 12\nlimit-watch-bytes = 131072\n"
                                      "limit-queue-bytes = 262144\nlimit-output-bytes = 524288\n"
                                      "limit-descriptors = 16\nlimit-timers = 17\nlimit-requests = 1800\n");
        int fd = client_connect(daemon->socket);
        struct json_object *reply = client_call(fd, "org.kevd.events.GetLimits", NULL);

        for (size_t i = 0; i < ARRAY_SIZE(told); i++)
                ck_assert_int_eq(number_at(reply, told[i].pointer), told[i].value);
        json_object_put(reply);

        ck_assert_str_eq(add(fd, 1, TIMER), "");
        ck_assert_str_eq(add(fd, 2, USER), "");
        reply = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        ck_assert_int_eq(number_at(reply, "/parameters/limits/timers"), 17);
        ck_assert_int_eq(number_at(reply, "/parameters/limits/requests"), 1800);
        ck_assert_int_eq(number_at(reply, "/parameters/users/0/user"), getuid());
        ck_assert_int_eq(number_at(reply, "/parameters/users/0/connections"), 1);
        ck_assert_int_eq(number_at(reply, "/parameters/users/0/descriptors"), 1);
        ck_assert_int_eq(number_at(reply, "/parameters/users/0/watches"), 2);
        ck_assert_int_eq(number_at(reply, "/parameters/users/0/timers"), 1);
        json_object_put(reply);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_watches) {
        struct daemon *daemon = start("limit-watches = 3\nlimit-timers=2\n");
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);

        ck_assert_str_eq(add(fd, 1, TIMER), "");
        ck_assert_str_eq(add(other, 2, TIMER), "");
        ck_assert_str_eq(add(fd, 3, TIMER), "EDQUOT");
        ck_assert_str_eq(add(fd, 3, USER), "");
        ck_assert_str_eq(add(other, 4, USER), "EDQUOT");
        remove_watch(fd, 1);
        ck_assert_str_eq(add(other, 4, TIMER), "");
        (void)close(other); /* and gives back what it had */
        while (strcmp(add(fd, 5, TIMER), "EDQUOT") == 0)
                ;
        ck_assert_str_eq(add(fd, 6, TIMER), "");
        ck_assert_str_eq(add(fd, 7, USER), "EDQUOT");
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* More in a call than there may be at all: those that there is room for are made, and all else is done. */
static const char *const calls[] = {
        "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"remove\":[1],\"add\":" MANY "}}",
        "{\"method\":\"org.kevd.events.Monitor\",\"more\":true,\"parameters\":{\"watches\":" MANY "}}",
};

START_TEST(test_watches_of_a_call) {
        struct daemon *daemon = start("limit-watches = 3\n");
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket), made = _i == 0 ? 3 : 2;
        struct json_object *reply;

        harness_label(_i == 0 ? "Change" : "Monitor");
        ck_assert_str_eq(add(fd, 1, TIMER), "");
        client_send_message(fd, calls[_i]);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_ptr_nonnull(reply);
        ck_assert_int_eq(json_object_array_length(json_at(reply, "/parameters/refused")), 5 - made);
        for (int i = 0; i < 5 - made; i++) {
                struct json_object *refusal = json_object_array_get_idx(json_at(reply, "/parameters/refused"), (size_t)i);

                ck_assert_int_eq(number_at(refusal, "/id"), 2 + made + i);
                ck_assert_str_eq(text_at(refusal, "/errno"), "EDQUOT");
        }
        json_object_put(reply);
        reply = client_call(other, "org.kevd.events.Trigger", "{\"name\":\"a\"}");
        ck_assert_int_eq(number_at(reply, "/parameters/reached"), made);
        json_object_put(reply);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_connections) {
        struct daemon *daemon = start("limit-connections = 2\n");
        int first = client_connect(daemon->socket), second = client_connect(daemon->socket), third;

        json_object_put(client_call(first, "org.kevd.events.GetLimits", NULL));
        json_object_put(client_call(second, "org.kevd.events.GetLimits", NULL));
        third = client_connect(daemon->socket);
        client_expect_close(third, HARNESS_REPLY_MSEC);
        (void)close(third);
        json_object_put(client_call(first, "org.kevd.events.GetLimits", NULL));
        (void)close(first);
        (void)close(second);
        daemon_stop(daemon);
}
END_TEST

/* A connection is one, the watch another, and what is passed is one until it is closed. */
START_TEST(test_descriptors) {
        static const char change[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":%d,"
                                     "\"filter\":\"poll\",\"notes\":[\"in\"],\"descriptor\":0}]}}";
        struct daemon *daemon = start("limit-descriptors = 6\n"); /* what was passed is closed by a thread, soon */
        int fd = client_connect(daemon->socket), ends[2], n = 0;
        struct json_object *reply;

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        for (int i = 0; i < 3; i++) {
                char text[256];
                int size = snprintf(text, sizeof(text), change, i);

                client_send_with_fds(fd, text, (size_t)size + 1, ends, 1);
                reply = client_receive(fd, HARNESS_REPLY_MSEC);
                ck_assert_ptr_nonnull(reply);
                n += !json_at(reply, "/parameters/refused/0");
                json_object_put(reply);
                json_object_put(client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}"));
        }
        ck_assert_int_ge(n, 2);
        ck_assert_str_eq(add(fd, 9, TIMER), ""); /* which is none */
        (void)close(ends[0]);
        (void)close(ends[1]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* How many replies are there already. */
static int take_replies(int fd, int n_max, int timeout_msec) {
        struct json_object *reply;
        int n = 0;

        while (n < n_max && (reply = client_receive(fd, timeout_msec))) {
                json_object_put(reply);
                n++;
        }
        return n;
}

/* Beside a second's credit they come at the pace of the limit, never earlier; another user's are answered meanwhile. */
START_TEST(test_requests) {
        enum { LIMIT = 10, CALLS = 4 * LIMIT };
        struct daemon *daemon = start("limit-requests = 10\n");
        int fd = client_connect(daemon->socket), other, n = 0;
        int64_t begin = now_msec();

        for (int i = 0; i < CALLS; i++)
                client_send_message(fd, "{\"method\":\"org.kevd.events.GetLimits\"}");
        if (geteuid() == 0) {
                ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
                ck_assert_int_eq(chmod(daemon->socket, 0666), 0);
                other = client_connect_as(daemon->socket, OTHER_CLIENT);
                json_object_put(client_call(other, "org.kevd.events.GetLimits", NULL));
                n = take_replies(fd, CALLS, 0);
                ck_assert_int_lt(n, CALLS);
                (void)close(other);
        }
        ck_assert_int_eq(n + take_replies(fd, CALLS - n, HARNESS_REPLY_MSEC), CALLS);
        ck_assert_int_ge(now_msec() - begin, 1000 * (CALLS - LIMIT - 1) / LIMIT);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static const struct {
        const char *line, *says;
} wrong[] = {
        { "limit-watches = 0", "limit-watches: \"0\" is not a number from 1 to" },
        { "limit-watches = -1", "limit-watches: \"-1\"" },
        { "limit-watches = 1k", "limit-watches: \"1k\"" },
        { "limit-watches =", "limit-watches: \"\"" },
        { "limit-queue-bytes = 1000", "limit-queue-bytes: \"1000\" is not a number from 65536" },
        { "limit-requests = 9999999999", "limit-requests: \"9999999999\"" },
        { "limit-nothing = 1", "there is no key \"limit-nothing\"" },
        { "limit-", "not of the form" },
};

START_TEST(test_wrong) {
        const char *path = at("%s/kevd.conf", harness_tempdir()), *log = at("%s/log", harness_tempdir());

        put(path, O_WRONLY | O_CREAT, "# a comment\n");
        append(path, wrong[_i].line);
        run(harness_tempdir(), at("! $KEVD --check-config --config=%s 2>log", path));
        run(harness_tempdir(), at("grep -qF ':2: %s' %s", wrong[_i].says, log));
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("limits");
        TCase *c = harness_case(suite, "limits");

        tcase_add_test(c, test_told);
        tcase_add_test(c, test_watches);
        tcase_add_loop_test(c, test_watches_of_a_call, 0, ARRAY_SIZE(calls));
        tcase_add_test(c, test_connections);
        tcase_add_test(c, test_descriptors);
        tcase_add_test(c, test_requests);
        tcase_add_loop_test(c, test_wrong, 0, ARRAY_SIZE(wrong));
        return harness_main(argc, argv);
}
