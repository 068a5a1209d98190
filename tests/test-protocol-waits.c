/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Wait and Monitor on the real daemon, without the library: what ends a Wait, what has happened before it is told by it
 * (its barrier), streams, how many events come at a time, and readers that are slow.
 */

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "protocol.h"

START_TEST(test_call_ends_wait) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        struct json_object *reply;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        for (int i = 0; i < 100; i++) {
                client_send_message(fd, i % 2 ? "{\"method\":\"org.kevd.events.Wait\"}"
                                              : "{\"method\":\"org.kevd.events.Wait\",\"more\":true}");
                if (i % 4 >= 2) /* it is waiting by then */
                        expect_answers(other);
                client_send_message(fd, "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"none\"}}");
                reply = receive(fd);
                ck_assert_uint_eq(n_events(reply), 0);
                ck_assert_ptr_null(json_at(reply, "/continues"));
                json_object_put(reply);
                reply = receive(fd);
                ck_assert_int_eq(number_at(reply, "/parameters/reached"), 0);
                json_object_put(reply);
        }
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* Each of these Waits is ended by the next. */
START_TEST(test_pipelined_waits) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct json_object *reply;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        for (int i = 0; i < 300; i++)
                client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\"}");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"n\"}}");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\"}");
        for (int i = 0; i < 300; i++) {
                reply = receive(fd);
                ck_assert_uint_eq(n_events(reply), 0);
                json_object_put(reply);
        }
        reply = receive(fd);
        ck_assert_int_eq(number_at(reply, "/parameters/reached"), 1);
        json_object_put(reply);
        reply = receive(fd);
        ck_assert_uint_eq(n_events(reply), 1);
        json_object_put(reply);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_timeout) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        int64_t start = now_msec();
        struct json_object *reply = call(fd, "Wait", "{\"timeoutMsec\":60}");

        ck_assert_uint_eq(n_events(reply), 0);
        ck_assert_int_ge(now_msec() - start, 59); /* both clocks count whole milliseconds */
        json_object_put(reply);

        /* In a stream: the longest silence. */
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"more\":true,\"parameters\":{\"timeoutMsec\":20}}");
        for (int i = 0; i < 4; i++) {
                reply = receive(fd);
                ck_assert_uint_eq(n_events(reply), 0);
                ck_assert(json_object_get_boolean(json_at(reply, "/continues")));
                json_object_put(reply);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_barrier_file) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), file = open_new_file("file");
        struct json_object *reply;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"vnode\",\"path\":\"%s/file\"}]}", harness_tempdir());
        for (int i = 0; i < 500; i++) {
                touch(file);
                reply = take(fd);
                ck_assert_msg(n_events(reply) >= 1, "round %d", i);
                json_object_put(reply);
        }
        (void)close(file);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* In a directory that is made in the same round. */
START_TEST(test_barrier_tree) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        char path[PATH_MAX], file[PATH_MAX + 16];

        (void)snprintf(path, sizeof(path), "%s/tree", harness_tempdir());
        ck_assert_int_eq(mkdir(path, 0700), 0);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"}]}", path);
        for (int i = 0; i < 500; i++) {
                struct json_object *reply;
                bool found = false;
                int f;

                (void)snprintf(path, sizeof(path), "%s/tree/%d", harness_tempdir(), i);
                (void)snprintf(file, sizeof(file), "%s/file", path);
                ck_assert_int_eq(mkdir(path, 0700), 0);
                f = open(file, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                ck_assert_int_ge(f, 0);
                (void)close(f);
                reply = take(fd);
                for (size_t n = 0; n < n_events(reply); n++) {
                        struct json_object *event = json_object_array_get_idx(json_at(reply, "/parameters/events"), n);

                        found |= strcmp(text_at(event, "/path"), file) == 0;
                }
                ck_assert_msg(found, "round %d: %s", i, json_object_to_json_string(reply));
                json_object_put(reply);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_barrier_process) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);

        for (int i = 0; i < 500; i++) {
                pid_t pid = start_process();
                struct json_object *reply;

                client_change(fd, "{\"add\":[{\"id\":%d,\"filter\":\"proc\",\"pid\":%d,"
                                  "\"notes\":[\"exit\",\"reap\"]}]}", i, (int)pid);
                end_process(pid);
                reply = take(fd);
                ck_assert_msg(n_events(reply) == 2, "round %d: %s", i, json_object_to_json_string(reply));
                ck_assert_str_eq(text_at(reply, "/parameters/events/0/notes/0"), "exit");
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/process/signal"), SIGKILL);
                ck_assert_str_eq(text_at(reply, "/parameters/events/1/notes/0"), "reap");
                json_object_put(reply);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_barrier_timer) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);

        for (int i = 0; i < 100; i++) {
                struct json_object *reply;

                client_change(fd, "{\"add\":[{\"id\":%d,\"filter\":\"timer\",\"data\":1,\"flags\":[\"oneshot\"]}]}", i);
                (void)poll(NULL, 0, 2); /* the time that the timer is about */
                reply = take(fd);
                ck_assert_msg(n_events(reply) == 1, "round %d", i);
                ck_assert_int_ge(number_at(reply, "/parameters/events/0/data"), 1);
                json_object_put(reply);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_barrier_trigger) {
        struct daemon *daemon = daemon_start("--mux", _i == 0 ? "epoll" : "poll");
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        for (int i = 0; i < 500; i++) {
                struct json_object *reply;

                ck_assert_int_eq(trigger(other, "n", i), 1);
                reply = take(fd);
                ck_assert_uint_eq(n_events(reply), 1);
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/data"), i);
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), i + 1);
                json_object_put(reply);
        }
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_stream) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        struct json_object *reply;
        int64_t seq = 0;

        client_send_message(fd, "{\"method\":\"org.kevd.events.Monitor\",\"more\":true,\"parameters\":{\"watches\":["
                                "{\"id\":1,\"filter\":\"user\",\"name\":\"n\"},{\"id\":1,\"filter\":\"user\",\"name\":\"m\"},"
                                "{\"id\":2,\"filter\":\"proc\",\"pid\":2147483647}]}}");
        reply = receive(fd);
        ck_assert_uint_eq(n_events(reply), 0);
        ck_assert(json_object_get_boolean(json_at(reply, "/continues")));
        ck_assert_uint_eq(json_object_array_length(json_at(reply, "/parameters/refused")), 2);
        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EEXIST");
        ck_assert_int_eq(number_at(reply, "/parameters/refused/1/id"), 2);
        ck_assert_str_eq(text_at(reply, "/parameters/refused/1/errno"), "ESRCH");
        json_object_put(reply);

        for (int i = 0; i < 50; i++) {
                ck_assert_int_eq(trigger(other, "n", i), 1);
                reply = receive(fd);
                ck_assert_uint_eq(n_events(reply), 1);
                ck_assert(json_object_get_boolean(json_at(reply, "/continues")));
                ck_assert_ptr_null(json_at(reply, "/parameters/refused"));
                ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), ++seq);
                json_object_put(reply);
        }

        /* A call ends the stream; the watches stay, and numbers go on. */
        client_send_message(fd, "{\"method\":\"org.kevd.events.GetLimits\"}");
        reply = receive(fd);
        ck_assert_uint_eq(n_events(reply), 0);
        ck_assert_ptr_null(json_at(reply, "/continues"));
        json_object_put(reply);
        json_object_put(receive(fd));
        ck_assert_int_eq(trigger(other, "n", 0), 1);
        ck_assert_ptr_null(client_receive(fd, 0));
        reply = take(fd);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/seq"), ++seq);
        json_object_put(reply);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_max_events) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        int64_t seq = 0;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        for (int i = 0; i < 100; i++)
                ck_assert_int_eq(trigger(other, "n", i), 1);
        while (seq < 100) {
                struct json_object *reply = call(fd, "Wait", "{\"maxEvents\":3}");
                size_t n = n_events(reply);

                ck_assert_uint_ge(n, 1);
                ck_assert_uint_le(n, 3);
                for (size_t i = 0; i < n; i++) {
                        struct json_object *event = json_object_array_get_idx(json_at(reply, "/parameters/events"), i);

                        ck_assert_int_eq(number_at(event, "/data"), seq);
                        ck_assert_int_eq(number_at(event, "/seq"), ++seq);
                }
                json_object_put(reply);
        }
        expect_nothing(fd);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* A stream keeps to maxEvents too, and nothing stays behind for want of a further event. */
START_TEST(test_max_events_of_stream) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        int64_t seq = 0;

        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        for (int i = 0; i < 100; i++)
                ck_assert_int_eq(trigger(other, "n", i), 1);
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"more\":true,\"parameters\":{\"maxEvents\":7}}");
        while (seq < 100) {
                struct json_object *reply = receive(fd);

                ck_assert_uint_le(n_events(reply), 7);
                for (size_t i = 0; i < n_events(reply); i++)
                        ck_assert_int_eq(number_at(json_object_array_get_idx(json_at(reply, "/parameters/events"), i),
                                                   "/seq"),
                                         ++seq);
                json_object_put(reply);
        }
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* Who doesn't read has its events merged, and is told how many there were. */
START_TEST(test_slow_reader) {
        enum { N = 150000, BATCH = 500 };
        struct daemon *daemon = daemon_start(NULL);
        int slow = client_connect(daemon->socket), fd = client_connect(daemon->socket);
        struct json_object *reply;
        int64_t count = 0, seq = 0, bound;

        reply = call(slow, "GetLimits", "{}");
        bound = number_at(reply, "/parameters/queueBytes");
        json_object_put(reply);
        client_send_message(slow, "{\"method\":\"org.kevd.events.Monitor\",\"more\":true,\"parameters\":{\"watches\":["
                                  "{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}}");
        json_object_put(receive(slow));
        for (int i = 0; i < N; i += BATCH) {
                for (int j = 0; j < BATCH; j++)
                        client_send_message(fd, "{\"method\":\"org.kevd.events.Trigger\",\"oneway\":true,\"parameters\":"
                                                "{\"name\":\"n\",\"data\":123456789}}");
                expect_answers(fd);
        }
        reply = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        ck_assert_int_le(number_at(reply, "/parameters/queueBytes"), bound + 4096);
        ck_assert_int_gt(number_at(reply, "/parameters/counters/merged"), 0);
        json_object_put(reply);

        while (count < N) {
                reply = receive(slow);
                for (size_t i = 0; i < n_events(reply); i++) {
                        struct json_object *event = json_object_array_get_idx(json_at(reply, "/parameters/events"), i);

                        count += number_at(event, "/count");
                        ck_assert_int_eq(number_at(event, "/seq"), ++seq);
                }
                json_object_put(reply);
        }
        ck_assert_int_eq(count, N);
        (void)close(slow);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("protocol-waits"), "waits");

        tcase_add_test(c, test_call_ends_wait);
        tcase_add_test(c, test_pipelined_waits);
        tcase_add_test(c, test_timeout);
        tcase_add_test(c, test_barrier_file);
        tcase_add_test(c, test_barrier_tree);
        tcase_add_test(c, test_barrier_process);
        tcase_add_test(c, test_barrier_timer);
        tcase_add_loop_test(c, test_barrier_trigger, 0, 2);
        tcase_add_test(c, test_stream);
        tcase_add_test(c, test_max_events);
        tcase_add_test(c, test_max_events_of_stream);
        tcase_add_test(c, test_slow_reader);
        return harness_main(argc, argv);
}
