/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proc watches on the real daemon: several of one process, some that are taken back while it ends, and thousands of
 * processes that end at the same time.
 */

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"
#include "processes.h"

START_TEST(test_shared) {
        struct daemon *daemon = daemon_start(NULL);
        int fds[3];
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit, 3);

        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
                fds[i] = client_connect(daemon->socket);
                watch_pid(fds[i], "", (int64_t)i, pid);
                watch_pid(fds[i], "", 10 + (int64_t)i, pid); /* twice on one connection */
        }
        /* One of them goes: the others don't notice. */
        (void)close(fds[1]);
        go(&maker, 1);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                if (i != 1) {
                        expect_event(fds[i], (int64_t)i, "exit", pid, 3 << 8);
                        expect_event(fds[i], 10 + (int64_t)i, "exit", pid, 3 << 8);
                }
        (void)maker_reap(&maker, pid);
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                if (i != 1) {
                        expect_event(fds[i], (int64_t)i, "reap", pid, 3 << 8);
                        expect_event(fds[i], 10 + (int64_t)i, "reap", pid, 3 << 8);
                        expect_nothing(fds[i]);
                        (void)close(fds[i]);
                }
        maker_stop(&maker);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_oneshot) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_exit, 1);

        change(fd, "", "'add':[{'id':1,'filter':'proc','pid':%d,'notes':['exit','reap'],'flags':['oneshot']},"
                       "{'id':2,'filter':'proc','pid':%d,'notes':['reap']}]", (int)pid, (int)pid);
        go(&maker, 1);
        expect_event(fd, 1, "exit", pid, 1 << 8);
        expect_nothing(fd);
        change(fd, "ENOENT", "'remove':[1]");
        (void)maker_reap(&maker, pid);
        expect_event(fd, 2, "reap", pid, 1 << 8);
        expect_nothing(fd);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Made, watched and taken back while it ends. */
START_TEST(test_removed_while_ending) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);

        for (int i = 0; i < 300; i++) {
                pid_t pid = maker_fork(&maker, run_exit_at_once, 0);

                if (i % 2)
                        wait_zombie(pid);
                watch(fd, "", "'id':%d,'pid':%d", i, (int)pid);
                change(fd, "", "'remove':[%d]", i); /* with its event, if there is one by then */
                expect_nothing(fd);
                (void)maker_reap(&maker, pid);
        }
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* `reaped`: by their parent as they end, or only when all have been reported. */
static void many(bool reaped) {
        enum { N = 2000, A_CALL = 500 };
        const int n_all = harness_rounds(N);
        struct rlimit limit;
        struct daemon *daemon;
        struct maker maker;
        static pid_t pids[N];
        static unsigned exits[N], reaps[N];
        char *text = malloc(A_CALL * 100);
        int fd, n_exits = 0, n_reaps = 0;

        ck_assert_ptr_nonnull(text);
        if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_max < N + 100)
                harness_skip("the daemon may not have enough descriptors");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        maker = maker_start(0);
        maker_fork_many(&maker, run_code_of_pid, n_all, pids);
        for (int i = 0; i < n_all;) {
                size_t size = (size_t)sprintf(text, "{\"add\":[");

                for (int j = 0; j < A_CALL && i < n_all; j++, i++)
                        size += (size_t)sprintf(text + size, "%s{\"id\":%d,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"]}",
                                                j ? "," : "", i, (int)pids[i]);
                (void)sprintf(text + size, "]}");
                client_change(fd, "%s", text);
        }
        expect_nothing(fd);
        go(&maker, (size_t)n_all);
        if (reaped)
                maker_begin_reaping(&maker, n_all);
        while (n_exits < n_all || (reaped && n_reaps < n_all)) {
                struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":9000}");
                size_t n = json_object_array_length(json_at(reply, "/parameters/events"));

                ck_assert_msg(n > 0, "%d exits and %d reaps of %d", n_exits, n_reaps, n_all);
                for (size_t i = 0; i < n; i++) {
                        struct json_object *event = json_object_array_get_idx(json_at(reply, "/parameters/events"), i);
                        int64_t id = number_at(event, "/id");
                        bool reap = strcmp(text_at(event, "/notes/0"), "reap") == 0;

                        ck_assert_int_lt(id, n_all);
                        check_event(event, id, reap ? "reap" : "exit", pids[id]);
                        check_status(event, code_of(pids[id]) << 8);
                        if (reap) {
                                ck_assert_uint_eq(exits[id], 1); /* in this order */
                                reaps[id]++;
                                n_reaps++;
                        } else {
                                exits[id]++;
                                n_exits++;
                        }
                }
                json_object_put(reply);
        }
        for (int i = 0; i < n_all; i++) {
                ck_assert_uint_eq(exits[i], 1);
                ck_assert_uint_eq(reaps[i], reaped);
        }
        expect_nothing(fd);
        if (!reaped)
                maker_begin_reaping(&maker, n_all);
        maker_end_reaping(&maker);
        free(text);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}

START_TEST(test_many) {
        many(_i == 1);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("proc-many"), "several");

        tcase_add_test(c, test_shared);
        tcase_add_test(c, test_oneshot);
        tcase_add_test(c, test_removed_while_ending);
        tcase_add_loop_test(c, test_many, 0, 2);
        return harness_main(argc, argv);
}
