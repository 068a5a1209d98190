/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * settleMsec and maxLatencyMsec of tree watches, against the real daemon. As with timers: nothing may come
 * before its time, and all must come in the end, however slow the machine is.
 */

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "macro.h"

#define NEVER "3600000" /* milliseconds: not while a test runs */

/* The watch 1 of the test's directory, added or modified with these tree options. */
static void set(int fd, const char *what, const char *tree) {
        bool add = strcmp(what, "add") == 0;

        client_change(fd, "{\"%s\":[{\"id\":1,\"filter\":\"tree\"%s%s%s,"
                          "\"notes\":[\"create\",\"write\"],\"tree\":%s}]}", what,
                      add ? ",\"path\":\"" : "", add ? harness_tempdir() : "", add ? "\"" : "", tree);
}

static void call_change(int fd, const char *parameters) {
        json_object_put(client_call(fd, "org.kevd.events.Change", parameters));
}

/* How many events one reply has. */
static size_t take(int fd, int timeout_msec) {
        char parameters[64];
        struct json_object *reply;
        size_t n;

        (void)snprintf(parameters, sizeof(parameters), "{\"timeoutMsec\":%d}", timeout_msec);
        reply = client_call(fd, "org.kevd.events.Wait", parameters);
        n = json_object_array_length(json_at(reply, "/parameters/events"));
        json_object_put(reply);
        return n;
}

static void make(const char *name) {
        make_file(at("%s/%s", harness_tempdir(), name));
}

static void write_on(int fd) {
        for (;;) {
                struct timespec pause = { .tv_nsec = 5000000 };

                if (write(fd, "x", 1) != 1)
                        _exit(1);
                (void)nanosleep(&pause, NULL);
        }
}

/* ---- the tests ------------------------------------------------------------------------------------- */

START_TEST(test_together) {
        enum { N = 5, SETTLE_MSEC = 300 };
        struct daemon *daemon = daemon_start(NULL);
        int settled = client_connect(daemon->socket), plain = client_connect(daemon->socket);
        int64_t last = 0;

        set(settled, "add", "{\"settleMsec\":300,\"maxLatencyMsec\":" NEVER "}");
        set(plain, "add", "{}");
        for (int i = 0; i < N; i++) {
                last = now_msec();
                make(at("f%d", i));
                ck_assert_uint_eq(take(plain, 0), 1); /* the other's settling is not its own */
        }
        /* A machine that stood still in between may have let it settle twice. */
        for (size_t n = 0; n < N;) {
                size_t more = take(settled, HARNESS_REPLY_MSEC);

                ck_assert_uint_gt(more, 0);
                n += more;
                ck_assert_uint_le(n, N);
        }
        ck_assert_msg(now_msec() >= last + SETTLE_MSEC, "the last came too early");
        (void)close(settled);
        (void)close(plain);
        daemon_stop(daemon);
}
END_TEST

/* Somebody writes all the time: what came is not kept back until that ends. */
START_TEST(test_no_starvation) {
        static const char *const trees[] = {
                "{\"settleMsec\":" NEVER ",\"maxLatencyMsec\":50}", "{\"settleMsec\":40,\"maxLatencyMsec\":100}",
                "{\"settleMsec\":50}",
        };
        struct daemon *daemon = daemon_start(NULL);
        const char *path = at("%s/file", harness_tempdir());
        int fd = client_connect(daemon->socket), file;
        pid_t pid;

        harness_label(trees[_i]);
        file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        assert_system(file >= 0, path);
        set(fd, "add", trees[_i]);
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0)
                write_on(file);
        for (int i = 0; i < 5; i++)
                ck_assert_uint_gt(take(fd, HARNESS_REPLY_MSEC), 0);
        ck_assert_int_eq(waitpid(pid, NULL, WNOHANG), 0); /* it still writes */
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        (void)close(file);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Only the end of settling lets go what is kept back. */
START_TEST(test_kept_back) {
        struct daemon *daemon = daemon_start(NULL);
        int fd = client_connect(daemon->socket);

        set(fd, "add", "{\"settleMsec\":" NEVER "}");
        make("a");
        ck_assert_uint_eq(take(fd, 0), 0);
        call_change(fd, "{\"disable\":[1]}");
        call_change(fd, "{\"enable\":[1]}");
        ck_assert_uint_eq(take(fd, 0), 0);

        call_change(fd, "{\"disable\":[1]}");
        set(fd, "modify", "{\"settleMsec\":0}"); /* enables it too */
        ck_assert_uint_eq(take(fd, 0), 1);
        make("b");
        ck_assert_uint_eq(take(fd, 0), 1);

        set(fd, "modify", "{\"settleMsec\":" NEVER "}");
        make("c");
        ck_assert_uint_eq(take(fd, 0), 0);
        set(fd, "modify", "{\"settleMsec\":" NEVER ",\"maxLatencyMsec\":1}"); /* what was kept back comes at once */
        ck_assert_uint_eq(take(fd, 0), 1);
        make("d");
        ck_assert_uint_eq(take(fd, HARNESS_REPLY_MSEC), 1);

        make("e"); /* goes with its watch */
        set(fd, "modify", "{\"settleMsec\":" NEVER "}");
        (void)take(fd, 0);
        make("f");
        ck_assert_uint_eq(take(fd, 0), 0);
        call_change(fd, "{\"remove\":[1]}");
        ck_assert_uint_eq(take(fd, 0), 0);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("settle");
        TCase *c = harness_case(suite, "settle");

        tcase_add_test(c, test_together);
        tcase_add_loop_test(c, test_no_starvation, 0, 3);
        tcase_add_test(c, test_kept_back);
        return harness_main(argc, argv);
}
