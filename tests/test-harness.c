/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The harness itself. Called with the suite "bad", the program runs tests that must not pass; the
 * case "results" calls it so and reads the TAP that it prints.
 */

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"

/* ---- the suite "bad" ------------------------------------------------------- */

START_TEST(bad_assertion) {
        FILE *log;
        char path[PATH_MAX];

        (void)snprintf(path, sizeof(path), "%s/kevd-1.log", harness_tempdir());
        log = fopen(path, "we");
        ck_assert_ptr_nonnull(log);
        (void)fputs("first line\nlast line\n", log);
        (void)fclose(log);
        ck_abort_msg("one line\nok 1 - another line");
}
END_TEST

START_TEST(bad_crash) {
        abort();
}
END_TEST

START_TEST(bad_exit) {
        exit(EXIT_SUCCESS);
}
END_TEST

START_TEST(bad_hang) {
        for (;;)
                (void)pause();
}
END_TEST

START_TEST(bad_descriptor) {
        ck_assert_int_ge(open("/dev/null", O_RDONLY | O_CLOEXEC), 0);
}
END_TEST

START_TEST(bad_child) {
        pid_t pid = fork();

        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                for (;;)
                        (void)pause();
}
END_TEST

START_TEST(bad_zombie) {
        siginfo_t info;
        pid_t pid = fork();

        ck_assert_int_ge(pid, 0);
        if (pid == 0)
                _exit(0);
        ck_assert_int_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
}
END_TEST

START_TEST(bad_daemon) {
        ck_assert_int_eq(setenv("KEVD", "/bin/false", 1), 0);
        (void)daemon_start(NULL);
}
END_TEST

START_TEST(good_skip) {
        harness_skip("there is\nno reason");
}
END_TEST

START_TEST(good_label) {
        harness_label(_i == 0 ? "the first" : "the #second");
}
END_TEST

static void bad_suite(void) {
        Suite *suite = harness_suite("bad");
        TCase *c = harness_case(suite, "tests");

        tcase_set_timeout(c, 1);
        tcase_add_test(c, bad_assertion);
        tcase_add_test(c, bad_crash);
        tcase_add_test(c, bad_exit);
        tcase_add_test(c, bad_hang);
        tcase_add_test(c, bad_descriptor);
        tcase_add_test(c, bad_child);
        tcase_add_test(c, bad_zombie);
        tcase_add_test(c, bad_daemon);
        tcase_add_test(c, good_skip);
        tcase_add_loop_test(c, good_label, 0, 2);
}

/* ---- the case "results" ---------------------------------------------------- */

/* What the suite "bad" prints; a line that ends in "..." stands for any that begin so. */
static const char *const bad_tap[] = {
        "not ok 1 - bad:tests:bad_assertion",
        "# ...",
        "# one line",
        "# ok 1 - another line",
        "# --- kevd-1.log:",
        "# first line",
        "# last line",
        "not ok 2 - bad:tests:bad_crash",
        "# ...",
        "# Received signal 6 (Aborted)",
        "not ok 3 - bad:tests:bad_exit",
        "# the test's process exited before the test's end",
        "not ok 4 - bad:tests:bad_hang",
        "# ...",
        "# Test timeout expired",
        "not ok 5 - bad:tests:bad_descriptor",
        "# ...",
        "# descriptor ...",
        "not ok 6 - bad:tests:bad_child",
        "# ...",
        "# a child process was left running",
        "not ok 7 - bad:tests:bad_zombie",
        "# ...",
        "# process ...",
        "not ok 8 - bad:tests:bad_daemon",
        "# ...",
        "# kevd ended before it was ready",
        "# --- kevd-1.log:",
        "ok 9 - bad:tests:good_skip # SKIP there is no reason",
        "ok 10 - bad:tests:good_label[the first]",
        "ok 11 - bad:tests:good_label[the  second]",
        "1..11",
};

static bool line_is(const char *line, const char *expected) {
        size_t size = strlen(expected);

        if (size > 3 && strcmp(expected + size - 3, "...") == 0)
                return strncmp(line, expected, size - 3) == 0;
        return strcmp(line, expected) == 0;
}

START_TEST(test_bad_results) {
        char program[PATH_MAX], command[PATH_MAX + 16], line[1024];
        ssize_t size = readlink("/proc/self/exe", program, sizeof(program) - 1);
        FILE *tap;

        ck_assert_int_gt(size, 0);
        program[size] = '\0';
        ck_assert_int_eq(setenv("TMPDIR", harness_tempdir(), 1), 0);
        (void)snprintf(command, sizeof(command), "'%s' bad", program);
        tap = popen(command, "re");
        assert_system(tap, "popen");

        for (size_t i = 0; i < ARRAY_SIZE(bad_tap); i++) {
                ck_assert_msg(fgets(line, sizeof(line), tap), "no line \"%s\"", bad_tap[i]);
                line[strcspn(line, "\n")] = '\0';
                ck_assert_msg(line_is(line, bad_tap[i]), "\"%s\" instead of \"%s\"", line, bad_tap[i]);
        }
        ck_assert_msg(!fgets(line, sizeof(line), tap), "a line too many: %s", line);
        ck_assert_int_eq(WEXITSTATUS(pclose(tap)), 1);
        /* Its directories are gone. */
        ck_assert_msg(rmdir(harness_tempdir()) == 0, "something was left behind");
}
END_TEST

/* ---- the helpers ----------------------------------------------------------- */

static bool count_down(void *userdata) {
        int *n = userdata;

        return --*n <= 0;
}

START_TEST(test_wait_until) {
        int n = 3, never = INT_MAX;

        ck_assert(wait_until(count_down, &n, HARNESS_REPLY_MSEC));
        ck_assert_int_eq(n, 0);
        ck_assert(!wait_until(count_down, &never, 5));
}
END_TEST

/* The fixture that removes it fails the test if it can't. */
START_TEST(test_tempdir) {
        struct stat st;

        ck_assert_int_eq(stat(harness_tempdir(), &st), 0);
        ck_assert_uint_eq(st.st_mode & 07777, 0700);

        /* Deeper than a path can say, with a link that must not be followed. */
        ck_assert_int_eq(chdir(harness_tempdir()), 0);
        for (int i = 0; i < 400; i++) {
                ck_assert_int_eq(mkdir("a-directory-with-a-long-name", 0700), 0);
                ck_assert_int_eq(mkdir("beside", 0700), 0);
                ck_assert_int_eq(symlink("/dev", "link"), 0);
                ck_assert_int_eq(chdir("a-directory-with-a-long-name"), 0);
        }
        ck_assert_int_eq(chdir("/"), 0);
        ck_assert_int_eq(chmod(harness_tempdir(), 0), 0);
}
END_TEST

START_TEST(test_inotify_watches) {
        int fd = inotify_init1(IN_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(getpid()), 0);
        ck_assert_int_ge(inotify_add_watch(fd, "/", IN_DELETE_SELF), 0);
        ck_assert_int_ge(inotify_add_watch(fd, harness_tempdir(), IN_DELETE_SELF), 0);
        ck_assert_uint_eq(daemon_fdinfo_inotify_watches(getpid()), 2);
        ck_assert_int_eq(close(fd), 0);
}
END_TEST

START_TEST(test_receive) {
        struct json_object *message;
        int fds[2];

        ck_assert_int_eq(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
        ck_assert_ptr_null(client_receive(fds[0], 0));

        client_send(fds[1], "{\"a\":1}\0{\"b\"", 12);
        message = client_receive(fds[0], HARNESS_REPLY_MSEC);
        ck_assert_str_eq(json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN), "{\"a\":1}");
        json_object_put(message);

        client_send_message(fds[1], ":2}");
        message = client_receive(fds[0], HARNESS_REPLY_MSEC);
        ck_assert_str_eq(json_object_to_json_string_ext(message, JSON_C_TO_STRING_PLAIN), "{\"b\":2}");
        json_object_put(message);

        ck_assert_ptr_null(client_receive(fds[0], 0));
        ck_assert_int_eq(close(fds[1]), 0);
        client_expect_close(fds[0], HARNESS_REPLY_MSEC);
        ck_assert_int_eq(close(fds[0]), 0);
}
END_TEST

static bool contains(struct json_object *array, const char *string) {
        for (size_t i = 0; i < json_object_array_length(array); i++)
                if (strcmp(json_object_get_string(json_object_array_get_idx(array, i)), string) == 0)
                        return true;
        return false;
}

/* Two at once, so that they share nothing. */
START_TEST(test_daemon) {
        struct daemon *first = daemon_start(NULL), *second = daemon_start("--mux=poll", "--log-level=debug");
        int fd = client_connect(second->socket);
        struct json_object *reply = client_call(fd, "org.varlink.service.GetInfo", NULL), *parameters, *interfaces;

        ck_assert(json_object_object_get_ex(reply, "parameters", &parameters));
        ck_assert(json_object_object_get_ex(parameters, "interfaces", &interfaces));
        ck_assert(contains(interfaces, "org.kevd.events"));
        json_object_put(reply);

        daemon_stop(first);
        ck_assert_ptr_null(client_receive(fd, 0));
        client_send_message(fd, "no JSON");
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        daemon_stop(second);
        ck_assert_int_eq(close(fd), 0);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("harness");
        TCase *c;

        c = harness_case(suite, "results");
        tcase_add_test(c, test_bad_results);

        c = harness_case(suite, "helpers");
        tcase_add_test(c, test_wait_until);
        tcase_add_test(c, test_tempdir);
        tcase_add_test(c, test_inotify_watches);
        tcase_add_test(c, test_receive);
        tcase_add_test(c, test_daemon);

        if (argc == 2 && strcmp(argv[1], "bad") == 0)
                bad_suite();
        return harness_main(argc, argv);
}
