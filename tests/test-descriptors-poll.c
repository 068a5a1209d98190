/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * poll watches against poll(2) itself: each kind of descriptor is brought from state to state, and kevd has to see in
 * each what the test's own process sees. Then: when a change is told, and how often.
 */

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "descriptors.h"
#include "macro.h"
#include "one-client.h"

/* ---- what is seen ------------------------------------------------------------------------------------- */

/* The watches on one descriptor: each note alone, some together, and all. The ids are the places here. */
static const struct {
        const char *notes;
        short events;
} asked[] = {
        { "\"in\"", POLLIN },
        { "\"out\"", POLLOUT },
        { "\"pri\"", POLLPRI },
        { "\"err\"", POLLERR },
        { "\"hup\"", POLLHUP },
        { "\"rdhup\"", POLLRDHUP },
        { "\"rdnorm\"", POLLRDNORM },
        { "\"rdband\"", POLLRDBAND },
        { "\"wrnorm\"", POLLWRNORM },
        { "\"wrband\"", POLLWRBAND },
        { "\"in\",\"rdhup\"", POLLIN | POLLRDHUP },
        { "\"out\",\"pri\"", POLLOUT | POLLPRI },
        { "\"rdband\",\"wrnorm\",\"rdhup\"", POLLRDBAND | POLLWRNORM | POLLRDHUP },
        { "\"in\",\"out\",\"pri\",\"err\",\"hup\",\"rdhup\",\"rdnorm\",\"rdband\",\"wrnorm\",\"wrband\"",
          POLLIN | POLLOUT | POLLPRI | POLLERR | POLLHUP | POLLRDHUP | POLLRDNORM | POLLRDBAND | POLLWRNORM | POLLWRBAND },
};

enum { N_ASKED = ARRAY_SIZE(asked), ALL = N_ASKED - 1 };

struct answer {
        short bits[N_ASKED], of_epoll;
};

static void watch_all(int fd) {
        for (size_t i = 0; i < N_ASKED; i++)
                change(kevd, fd, "{\"add\":[{\"id\":%zu,\"filter\":\"poll\",\"descriptor\":0,\"flags\":[\"level\"],"
                                 "\"notes\":[%s]}]}", i, asked[i].notes);
}

static struct answer ask_kernel(int fd, int set) {
        struct epoll_event event;
        struct answer answer;

        for (size_t i = 0; i < N_ASKED; i++)
                answer.bits[i] = poll_now(fd, asked[i].events);
        answer.of_epoll = epoll_wait(set, &event, 1, 0) == 1 ? (short)event.events : 0;
        return answer;
}

static struct answer ask_kevd(void) {
        struct json_object *events = take_events(kevd, 0);
        struct answer answer = { 0 };
        size_t n = 0;

        for (size_t i = 0; i < N_ASKED; i++) {
                struct json_object *event = event_of(events, (int64_t)i);

                if (!event)
                        continue;
                n++;
                ck_assert_str_eq(text_at(event, "/filter"), "poll");
                ck_assert_ptr_null(json_at(event, "/data"));
                answer.bits[i] = poll_bits(event);
                ck_assert_int_ne(answer.bits[i], 0);
        }
        ck_assert_uint_eq(n, json_object_array_length(events));
        answer.of_epoll = answer.bits[ALL];
        json_object_put(events);
        return answer;
}

/* What is on its way through TCP or a terminal may arrive in between. */
static struct answer compare(int fd, int set, const char *step) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;
        struct answer before, seen, after = ask_kernel(fd, set);

        do {
                ck_assert_msg(now_msec() < deadline, "it never comes to rest: %s", step);
                before = after;
                seen = ask_kevd();
                after = ask_kernel(fd, set);
        } while (memcmp(&before, &after, sizeof(before)) != 0);
        for (size_t i = 0; i < N_ASKED; i++)
                ck_assert_msg(seen.bits[i] == after.bits[i], "at \"%s\", %s: %#x, and the kernel says %#x", step,
                              asked[i].notes, (unsigned)seen.bits[i], (unsigned)after.bits[i]);
        ck_assert_msg(seen.of_epoll == after.of_epoll, "at \"%s\": %#x, and epoll says %#x", step, (unsigned)seen.of_epoll,
                      (unsigned)after.of_epoll);
        return seen;
}

START_TEST(test_as_poll) {
        const struct script *script = &scripts[_i];
        const char *steps = script->steps;
        int set = epoll_create1(EPOLL_CLOEXEC), seen = 0;
        struct object object;
        struct epoll_event event = { .events = (uint32_t)asked[ALL].events };

        harness_label(script->name);
        object_make(&object, script);
        if (script->is_file) {
                refused(kevd, object.fd[0], "EPERM", "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0}]}");
        } else {
                assert_system(epoll_ctl(set, EPOLL_CTL_ADD, object.fd[0], &event) == 0, "epoll_ctl");
                watch_all(object.fd[0]);
                do
                        seen |= compare(object.fd[0], set, steps).bits[ALL];
                while (object_step(&object, &steps));
                ck_assert_msg((seen & script->seen) == script->seen, "%#x was seen, of %#x", (unsigned)seen,
                              (unsigned)script->seen);
        }
        (void)close(set);
        object_close(&object);
}
END_TEST

/* A watch without notes, one without flags, and one made for each state anew. */
START_TEST(test_made_anew) {
        const struct script *script = &scripts[_i];
        const char *steps = script->steps;
        struct object object;

        harness_label(script->name);
        object_make(&object, script);
        do {
                short before = poll_now(object.fd[0], asked[ALL].events), bits = 0;
                struct json_object *events;

                if (script->is_file)
                        break;
                change(kevd, object.fd[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[%s]}]}",
                       asked[ALL].notes);
                events = take_events(kevd, 0);
                for (size_t i = 0; i < json_object_array_length(events); i++)
                        bits = poll_bits(json_object_array_get_idx(events, i)); /* the last, if something came meanwhile */
                json_object_put(events);
                if (before == poll_now(object.fd[0], asked[ALL].events))
                        ck_assert_msg(bits == before, "at \"%s\": %#x, and the kernel says %#x", steps, (unsigned)bits,
                                      (unsigned)before);
                change(kevd, -1, "{\"remove\":[1]}");
        } while (object_step(&object, &steps));
        object_close(&object);
}
END_TEST

/* ---- when it is told ---------------------------------------------------------------------------------- */

static const char *const edges[] = { "[]", "[\"edge\"]" };

static void put_bytes(int fd, size_t n) {
        ck_assert_int_eq(write(fd, "0123456789", n), (ssize_t)n);
}

static void get_bytes(int fd, size_t n) {
        char bytes[16];

        ck_assert_int_eq(read(fd, bytes, n), (ssize_t)n);
}

/* One event for one change, and none without. */
START_TEST(test_edge) {
        static void (*const makes[])(int fds[2]) = { make_pipe, make_unix_pair, make_tcp_pair };
        int fds[2];

        makes[_i % 3](fds);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"],\"flags\":%s}]}",
               edges[_i / 3]);
        expect_nothing(kevd);
        for (int i = 0; i < 20; i++) {
                put_bytes(fds[1], 5);
                expect_notes(kevd, "in");
                expect_nothing(kevd);
                if (i % 2) { /* or it adds up, which is a change as well */
                        get_bytes(fds[0], 5);
                        expect_nothing(kevd);
                }
        }
        (void)close(fds[1]);
        expect_notes(kevd, _i % 3 == 2 ? "in" : "in,hup");
        (void)close(fds[0]);
}
END_TEST

/* It is told while somebody waits for it. */
START_TEST(test_waited_for) {
        int fds[2];

        make_pipe(fds);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"],\"flags\":%s}]}",
               _i ? "[\"level\"]" : "[]");
        for (int i = 0; i < 20; i++) {
                struct json_object *reply;

                client_send_message(kevd, "{\"method\":\"org.kevd.events.Wait\"}");
                put_bytes(fds[1], 1);
                reply = client_receive(kevd, HARNESS_REPLY_MSEC);
                ck_assert_msg(reply, "no event");
                ck_assert_int_eq(poll_bits(json_at(reply, "/parameters/events/0")), POLLIN);
                json_object_put(reply);
                get_bytes(fds[0], 1);
        }
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

/* After modify, what holds is told once more; and once only, also where the descriptor had to be had again. */
START_TEST(test_modify) {
        int fds[2];

        make_unix_pair(fds);
        put_bytes(fds[1], 1);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        ck_assert_uint_eq(due(kevd, "in"), 1);
        expect_nothing(kevd);
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"in\"]}]}");
        ck_assert_uint_eq(due(kevd, "in"), 1);
        expect_nothing(kevd);
        change(kevd, _i ? fds[0] : -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"in\",\"out\"]%s}]}",
               _i ? ",\"descriptor\":0" : "");
        ck_assert_uint_eq(due(kevd, "in,out"), 1);
        expect_nothing(kevd);
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"out\"]}]}");
        ck_assert_uint_eq(due(kevd, "out"), 1);
        expect_nothing(kevd);
        put_bytes(fds[1], 1); /* is not asked for any more */
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"rdhup\"]}]}");
        expect_nothing(kevd);
        (void)close(fds[1]);
        expect_notes(kevd, "hup,rdhup");
        (void)close(fds[0]);
}
END_TEST

/* Told at each Wait while it holds, and not when it no longer does. */
START_TEST(test_level) {
        int fds[2];

        make_pipe(fds);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"],"
                             "\"flags\":[\"level\"]}]}");
        for (int i = 0; i < 20; i++) {
                expect_nothing(kevd);
                put_bytes(fds[1], 2);
                if (i % 3 == 0)
                        (void)poll_now(fds[0], POLLIN);
                for (int n = 0; n < i % 4; n++)
                        ck_assert_uint_eq(due(kevd, "in"), 1);
                get_bytes(fds[0], 1);
                ck_assert_uint_eq(due(kevd, "in"), 1);
                get_bytes(fds[0], 1);
        }
        /* Not from a change that was not waited for, either. */
        change(kevd, -1, "{\"modify\":[{\"id\":1,\"filter\":\"poll\",\"notes\":[\"in\"]}]}");
        put_bytes(fds[1], 2);
        ck_assert_uint_eq(due(kevd, "in"), 1);
        expect_nothing(kevd);
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

/* A reply that has room for few events: each of them has its turn. */
START_TEST(test_level_in_turn) {
        enum { N = 5 };
        int fds[N][2], n[N] = { 0 };

        for (int i = 0; i < N; i++) {
                make_pipe(fds[i]);
                put_bytes(fds[i][1], 1);
                change(kevd, fds[i][0], "{\"add\":[{\"id\":%d,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"],"
                                        "\"flags\":[\"level\"]}]}", i);
        }
        for (int i = 0; i < 4 * N; i++) {
                struct json_object *event = due_event(kevd);

                ck_assert_ptr_nonnull(event);
                n[number_at(event, "/id")]++;
                json_object_put(event);
        }
        for (int i = 0; i < N; i++) {
                ck_assert_msg(n[i] > 0, "%d, %d, %d, %d and %d times", n[0], n[1], n[2], n[3], n[4]);
                (void)close(fds[i][0]);
                (void)close(fds[i][1]);
        }
}
END_TEST

static size_t count_due(size_t from, size_t to) {
        struct json_object *reply = client_call(kevd, "org.kevd.events.Wait", "{\"timeoutMsec\":0,\"maxEvents\":1024}");
        struct json_object *events = json_at(reply, "/parameters/events");
        size_t n = json_object_array_length(events);

        for (size_t i = 0; i < n; i++) {
                int64_t id = number_at(json_object_array_get_idx(events, i), "/id");

                ck_assert_msg(id >= (int64_t)from && id < (int64_t)to, "%lld", (long long)id);
        }
        json_object_put(reply);
        return n;
}

/* More than are looked at in a go: none is left out, and none is told that holds no longer. */
START_TEST(test_level_of_many) {
        enum { PIPES = 8, WATCHES = 50, N = PIPES * WATCHES };
        int fds[PIPES][2];

        for (int i = 0; i < PIPES; i++) {
                make_pipe(fds[i]);
                put_bytes(fds[i][1], 1);
        }
        for (int i = 0; i < N; i++)
                change(kevd, fds[i / WATCHES][0], "{\"add\":[{\"id\":%d,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"],"
                                                  "\"flags\":[\"level\"]}]}", i);
        for (int i = 0; i < 3; i++)
                ck_assert_uint_eq(count_due(0, N), N);
        for (int i = 0; i < PIPES; i++) {
                get_bytes(fds[i][0], 1);
                ck_assert_uint_eq(count_due((size_t)(i + 1) * WATCHES, N), (size_t)(PIPES - 1 - i) * WATCHES);
        }
        for (int i = 0; i < PIPES; i++) {
                put_bytes(fds[i][1], 1);
                (void)close(fds[i][1]);
        }
        ck_assert_uint_eq(count_due(0, N), N);
        for (int i = 0; i < PIPES; i++)
                (void)close(fds[i][0]);
}
END_TEST

/* Whoever polls as well, by epoll, sees what there is to be seen. */
START_TEST(test_beside_epoll) {
        int fds[2], set = epoll_create1(EPOLL_CLOEXEC);
        struct epoll_event event = { .events = EPOLLIN | EPOLLET };

        make_unix_pair(fds);
        change(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"poll\",\"descriptor\":0,\"notes\":[\"in\"]}]}");
        assert_system(epoll_ctl(set, EPOLL_CTL_ADD, fds[0], &event) == 0, "epoll_ctl");
        for (int i = 0; i < 10; i++) {
                put_bytes(fds[1], 1);
                if (i % 2)
                        ck_assert_uint_eq(due(kevd, "in"), 1);
                ck_assert_int_eq(epoll_wait(set, &event, 1, HARNESS_REPLY_MSEC), 1);
                if (i % 2 == 0)
                        ck_assert_uint_eq(due(kevd, "in"), 1);
                ck_assert_int_eq(epoll_wait(set, &event, 1, 0), 0);
        }
        (void)close(set);
        (void)close(fds[0]);
        (void)close(fds[1]);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("descriptors-poll");
        TCase *c;

        c = harness_case(suite, "states");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_as_poll, 0, (int)n_scripts);
        tcase_add_loop_test(c, test_made_anew, 0, (int)n_scripts);

        c = harness_case(suite, "changes");
        tcase_add_checked_fixture(c, start, stop);
        tcase_add_loop_test(c, test_edge, 0, 6);
        tcase_add_loop_test(c, test_waited_for, 0, 2);
        tcase_add_loop_test(c, test_modify, 0, 2);
        tcase_add_test(c, test_level);
        tcase_add_test(c, test_level_in_turn);
        tcase_add_test(c, test_level_of_many);
        tcase_add_test(c, test_beside_epoll);
        return harness_main(argc, argv);
}
