/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Calls to the real daemon, without the library: many in a row, in pieces, with members of other vendors, without a
 * reply, and those of a peer that closes its connection, or half of it.
 */

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "macro.h"
#include "protocol.h"

__attribute__((format(printf, 2, 3))) static void send_text(int fd, const char *format, ...) {
        _cleanup_(freep) char *text = NULL;
        va_list args;

        va_start(args, format);
        ck_assert_int_ge(vasprintf(&text, format, args), 0);
        va_end(args);
        client_send_message(fd, text);
}

START_TEST(test_pipelined) {
        enum { N = 1000 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        char all[N * 64];
        size_t size = 0;

        for (int i = 0; i < N; i++)
                size += (size_t)snprintf(all + size, sizeof(all) - size, "{\"method\":\"org.kevd.events.M%d\"}", i) + 1;
        client_send(fd, all, size);
        for (int i = 0; i < N; i++) {
                struct json_object *reply = receive(fd);
                char expected[64];

                (void)snprintf(expected, sizeof(expected), "org.kevd.events.M%d", i);
                ck_assert_str_eq(text_at(reply, "/parameters/method"), expected);
                json_object_put(reply);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* More than all buffers hold, with a client that writes all before it reads. */
START_TEST(test_pipelined_flood) {
        enum { N = 30000 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), status;
        pid_t sender = fork();

        assert_system(sender >= 0, "fork");
        if (sender == 0) {
                for (int i = 0; i < N; i++)
                        send_text(fd, "{\"method\":\"org.kevd.events.M%d\"}", i);
                _exit(0);
        }
        for (int i = 0; i < N; i++) {
                struct json_object *reply = receive(fd);
                char expected[64];

                (void)snprintf(expected, sizeof(expected), "org.kevd.events.M%d", i);
                ck_assert_str_eq(text_at(reply, "/parameters/method"), expected);
                json_object_put(reply);
        }
        ck_assert_int_eq(waitpid(sender, &status, 0), sender);
        ck_assert_int_eq(status, 0);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* One byte a write, and a message that ends and begins in the middle of one. */
START_TEST(test_in_pieces) {
        static const char call_text[] = "{\"method\":\"org.kevd.events.GetLimits\"}";
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        char twice[2 * sizeof(call_text)];

        for (size_t i = 0; i < sizeof(call_text); i++) {
                client_send(fd, call_text + i, 1);
                if (i % 10 == 0)
                        expect_answers(other);
        }
        json_object_put(receive(fd));

        memcpy(twice, call_text, sizeof(call_text));
        memcpy(twice + sizeof(call_text), call_text, sizeof(call_text));
        client_send(fd, twice, sizeof(call_text) + 7);
        json_object_put(receive(fd));
        ck_assert_ptr_null(client_receive(fd, 0));
        client_send(fd, twice + sizeof(call_text) + 7, sizeof(call_text) - 7);
        json_object_put(receive(fd));
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_oneway) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *reply;

        /* It is done, and nothing is said of it. */
        client_send_message(fd, "{\"method\":\"org.kevd.events.Change\",\"oneway\":true,\"parameters\":"
                                "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}}");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Trigger\",\"oneway\":true,\"parameters\":{\"name\":\"n\"}}");
        /* Nor does a Wait swallow events. */
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"oneway\":true}");
        reply = take(fd);
        ck_assert_uint_eq(n_events(reply), 1);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), 1);
        json_object_put(reply);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Thousands of members of other vendors in each call, behind as many that are nobody's: the time is that of reading
 * them once. (More than once for each took minutes.) */
START_TEST(test_extensions) {
        enum { MEMBERS = 3300, CALLS = 1000 };
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        static char text[64 * 1024];
        struct json_object *reply;
        size_t size = (size_t)sprintf(text, "{\"x.first\":{},\"method\":\"org.kevd.events.GetLimits\",\"x.y\":[1]");

        client_send_message(fd, "{\"x.first\":{},\"method\":\"org.kevd.events.GetLimits\",\"x.y\":[1],\"x.last\":null}");
        reply = receive(fd);
        ck_assert_int_gt(number_at(reply, "/parameters/watches"), 0);
        json_object_put(reply);

        for (int i = 0; i < MEMBERS; i++)
                size += (size_t)sprintf(text + size, ",\"%d\":0", i);
        for (int i = 0; i < MEMBERS; i++)
                size += (size_t)sprintf(text + size, ",\".%d\":0", i);
        size += (size_t)sprintf(text + size, "}");
        ck_assert_uint_lt(size, sizeof(text));
        for (int i = 0; i < CALLS; i++) {
                client_send_message(fd, text);
                reply = receive(fd);
                ck_assert_str_eq(text_at(reply, "/parameters/parameter"), "0"); /* the first that is wrong */
                json_object_put(reply);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_half_closed) {
        enum { N = 100 };
        struct daemon *daemon = daemon_start("--mux", _i == 0 ? "epoll" : "poll");
        int fd = client_connect(daemon->socket);

        for (int i = 0; i < N; i++)
                client_send_message(fd, "{\"method\":\"org.kevd.events.GetLimits\"}");
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        for (int i = 0; i < N; i++)
                json_object_put(receive(fd));
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        (void)close(fd);

        /* A call that takes a while, on a worker. */
        fd = client_connect(daemon->socket);
        send_text(fd, "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,\"filter\":\"tree\","
                      "\"path\":\"%s\"}]}}", harness_tempdir());
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":30}}");
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        json_object_put(receive(fd));
        json_object_put(receive(fd));
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        (void)close(fd);

        /* What is not whole never will be. */
        fd = client_connect(daemon->socket);
        client_send(fd, "{\"method\"", 9);
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Half closed, a Wait goes on: it is the client's answer that is missing, not its question. */
START_TEST(test_half_closed_wait) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        struct json_object *reply;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"more\":true}");
        ck_assert_int_eq(shutdown(fd, SHUT_WR), 0);
        for (int i = 0; i < 3; i++) {
                ck_assert_int_eq(trigger(other, "n", i), 1);
                reply = receive(fd);
                ck_assert_uint_eq(n_events(reply), 1);
                json_object_put(reply);
        }
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_closed_at_once) {
        struct daemon *daemon = daemon_start(NULL);
        int other = client_connect(daemon->socket);
        size_t before;
        static const char *const calls[] = {
                "", "{", "{\"method\":\"org.kevd.events.Wait\"}", "{\"method\":\"org.kevd.events.Wait\",\"more\":true}",
                "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"/etc\"},"
                "{\"id\":2,\"filter\":\"netdev\"},{\"id\":3,\"filter\":\"proc\",\"pid\":1}]}}",
        };

        expect_answers(other);
        before = n_fds_of(daemon->pid);
        for (int i = 0; i < 200; i++) {
                int fd = client_connect(daemon->socket);

                client_send_message(fd, calls[i % (int)ARRAY_SIZE(calls)]);
                if (i % 3 == 0)
                        expect_answers(other);
                (void)close(fd);
        }
        expect_answers(other);
        expect_fds(daemon, before);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* ---- a peer that goes ------------------------------------------------------------------------------- */

/* Until so many events came; each of them counts. */
static void expect_events(int fd, int64_t n) {
        for (int64_t count = 0; count < n;) {
                struct json_object *reply = call(fd, "Wait", "{\"timeoutMsec\":%d}", HARNESS_REPLY_MSEC / 2);

                ck_assert_msg(n_events(reply) > 0, "%lld events of %lld came", (long long)count, (long long)n);
                for (size_t i = 0; i < n_events(reply); i++)
                        count += number_at(json_object_array_get_idx(json_at(reply, "/parameters/events"), i),
                                           "/count");
                ck_assert_int_le(count, n);
                json_object_put(reply);
        }
        expect_nothing(fd);
}

#define TRIGGER_ONEWAY "{\"method\":\"org.kevd.events.Trigger\",\"oneway\":true,\"parameters\":{\"name\":\"n\"}}"

static const struct leaving {
        const char *what, *first, *then;
        int n; /* of `then` */
} leavings[] = {
        { "oneway", NULL, TRIGGER_ONEWAY, 1000 },
        { "replies unread", NULL, TRIGGER_REPLIED, 1000 },
        { "wait", "{\"method\":\"org.kevd.events.Wait\"}", TRIGGER_ONEWAY, 1 },
        { "wait, many", "{\"method\":\"org.kevd.events.Wait\"}", TRIGGER_ONEWAY, 1000 },
        { "stream", "{\"method\":\"org.kevd.events.Wait\",\"more\":true}", TRIGGER_ONEWAY, 1 },
        { "change on a worker",
          "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"/etc\"}]}}",
          TRIGGER_ONEWAY, 100 },
        { "monitor",
          "{\"method\":\"org.kevd.events.Monitor\",\"more\":true,\"parameters\":{\"watches\":"
          "[{\"id\":1,\"filter\":\"tree\",\"path\":\"/etc\"}]}}",
          TRIGGER_ONEWAY, 100 },
        { "large replies", "{\"method\":\"org.varlink.service.GetInterfaceDescription\",\"parameters\":{\"interface\":"
          "\"org.kevd.events\"}}", TRIGGER_REPLIED, 1000 },
};

/* Whoever sent a call and went had it received: all calls are run, in one daemon's turn or many, and then
 * the connection is over. */
START_TEST(test_calls_of_a_peer_that_left) {
        const struct leaving *l = &leavings[_i / 4];
        bool stopped = _i % 2;
        struct daemon *daemon = daemon_start("--mux", _i % 4 < 2 ? "epoll" : "poll");
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        struct json_object *reply;
        char *all = malloc(256 * 1024);
        size_t size = 0, before;

        harness_label(l->what);
        ck_assert_ptr_nonnull(all);
        client_change(other, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"},"
                             "{\"id\":2,\"filter\":\"tree\",\"path\":\"%s\"}]}",
                      harness_tempdir());
        expect_answers(fd);
        before = n_fds_of(daemon->pid) - 1;
        if (l->first)
                size += (size_t)sprintf(all, "%s", l->first) + 1;
        for (int i = 0; i < l->n; i++)
                size += (size_t)sprintf(all + size, "%s", l->then) + 1;
        if (stopped)
                ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        client_send(fd, all, size);
        (void)close(fd);
        if (stopped)
                ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        expect_events(other, l->n);
        expect_fds(daemon, before);
        reply = client_call(other, "org.kevd.manager.GetStatus", NULL);
        ck_assert_int_eq(number_at(reply, "/parameters/counters/protocolErrors"), 0);
        ck_assert_int_eq(number_at(reply, "/parameters/watches"), 2);
        json_object_put(reply);
        free(all);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("protocol-calls");
        TCase *c;

        c = harness_case(suite, "calls");
        tcase_add_test(c, test_pipelined);
        tcase_add_test(c, test_pipelined_flood);
        tcase_add_test(c, test_in_pieces);
        tcase_add_test(c, test_oneway);
        tcase_add_loop_test(c, test_half_closed, 0, 2);
        tcase_add_test(c, test_half_closed_wait);
        tcase_add_test(c, test_closed_at_once);
        tcase_add_loop_test(c, test_calls_of_a_peer_that_left, 0, 4 * (int)ARRAY_SIZE(leavings));

        c = harness_case(suite, "extensions");
        tcase_add_test(c, test_extensions);
        return harness_main(argc, argv);
}
