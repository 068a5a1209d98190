/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libkev by itself: what a program may rely on whatever it watches.
 */

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kev.h>

#include "harness.h"
#include "macro.h"

static struct daemon *kevd;
static struct kev *kev;

static void setup(void) {
        kevd = daemon_start(NULL);
        ck_assert_int_eq(kev_open(kevd->socket, &kev), 0);
}

static void teardown(void) {
        kev = kev_close(kev);
        daemon_stop(kevd);
}

/* ---- kev_call() ------------------------------------------------------------------------------------------ */

/* {"a":{"a":... with so many objects; the innermost is empty. */
static void nest(char *text, size_t size, unsigned depth) {
        size_t n = 0;

        ck_assert_uint_lt(depth * 6, size);
        for (unsigned i = 0; i + 1 < depth; i++)
                n += (size_t)sprintf(text + n, "{\"a\":");
        for (unsigned i = 0; i < depth; i++)
                n += (size_t)sprintf(text + n, "%s", i ? "}" : "{}");
}

/* However deep the parameters are: the library refuses what the daemon would close the connection for, and only
 * that. */
START_TEST(call_depth) {
        char parameters[512], *reply = NULL;
        unsigned sent = 0;

        for (unsigned depth = 1; depth <= 40; depth++) {
                int r;

                nest(parameters, sizeof(parameters), depth);
                r = kev_call(kev, "org.kevd.events.GetLimits", parameters, NULL);
                /* The method takes none of them, but says so. */
                if (r == -EREMOTEIO || r == 0)
                        sent = depth;
                else
                        ck_assert_msg(r == -EINVAL && strstr(kev_error_message(kev), "parameters"), "depth %u: %d, %s",
                                      depth, r, kev_error_message(kev));
                ck_assert_msg(r != -EINVAL || sent == 15, "the deepest that was sent: %u", sent);
        }
        ck_assert_int_eq(kev_call(kev, "org.kevd.events.GetLimits", NULL, &reply), 0);
        free(reply);
}
END_TEST

/* What is no object by itself never becomes a part of the call. */
static const struct {
        const char *name, *parameters;
} not_objects[] = {
        { "nothing", "" },
        { "number", "1" },
        { "array", "[]" },
        { "null", "null" },
        { "open", "{" },
        { "closed_twice", "{}}" },
        { "two", "{}{}" },
        { "member", "{},\"oneway\":true" },
        { "message", "{}},{\"method\":\"x\"" },
        { "escaped_nul", "{\"a\":\"\\u0000\"}" },
        { "not_utf8", "{\"a\":\"\xff\"}" },
};

START_TEST(call_not_object) {
        harness_label(not_objects[_i].name);
        ck_assert_int_eq(kev_call(kev, "org.kevd.events.GetLimits", not_objects[_i].parameters, NULL), -EINVAL);
        ck_assert_int_eq(kev_call(kev, "org.kevd.events.GetLimits", "{}", NULL), 0);
}
END_TEST

/* ---- kev_watch_set_match() ------------------------------------------------------------------------------- */

START_TEST(match_values) {
        char longest[1026];
        struct kev_watch *watch;

        memset(longest, 'x', sizeof(longest));
        longest[1025] = 0;
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_PROC, &watch), 0);
        ck_assert_int_eq(kev_watch_set_match(watch, "", NULL, NULL, -1), -EINVAL);
        ck_assert_int_eq(kev_watch_set_match(watch, NULL, "\xff", NULL, -1), -EINVAL);
        ck_assert_int_eq(kev_watch_set_match(watch, NULL, NULL, longest, -1), -EINVAL);
        ck_assert_int_eq(kev_watch_set_match(watch, NULL, NULL, NULL, -2), -EINVAL);
        ck_assert_int_eq(kev_watch_set_match(watch, NULL, NULL, NULL, INT64_C(1) << 32), -EINVAL);
        longest[1024] = 0;
        ck_assert_int_eq(kev_watch_set_match(watch, longest, longest, longest, UINT32_MAX), 0);
        ck_assert_int_eq(kev_watch_set_match(watch, NULL, NULL, NULL, -1), 0);
        ck_assert_int_eq(kev_watch_set_pid(watch, getpid()), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), -EINVAL);
        ck_assert_ptr_nonnull(strstr(kev_error_message(kev), "only one of them"));
        kev_watch_free(watch);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TREE, &watch), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, "/"), 0);
        ck_assert_int_eq(kev_watch_set_match(watch, NULL, "x", NULL, -1), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), -EINVAL);
        kev_watch_free(watch);
}
END_TEST

/* A child of that name, which ends with that status. */
static pid_t run_child(const char *name, int status) {
        pid_t pid = fork();

        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                (void)prctl(PR_SET_NAME, name);
                _exit(status);
        }
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        return pid;
}

/* The last call counts, and all of what it says. */
START_TEST(match_processes) {
        const struct kev_event *event;
        struct kev_watch *watch;
        pid_t pid, told;
        int r, code;

        ck_assert_int_eq(kev_watch_new(KEV_FILTER_PROC, &watch), 0);
        ck_assert_int_eq(kev_watch_set_match(watch, "/nonexistent", "kevmatch*", "none", getuid() + 1), 0);
        ck_assert_int_eq(kev_watch_set_match(watch, NULL, "kevmatch-[0-9]", NULL, getuid()), 0);
        r = kev_add(kev, watch, NULL, NULL, NULL);
        kev_watch_free(watch);
        if (r == -EOPNOTSUPP)
                harness_skip(kev_error_message(kev));
        ck_assert_int_eq(r, 0);
        run_child("kevmatch-x", 3);
        pid = run_child("kevmatch-1", 7);
        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
        ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_EXIT);
        ck_assert(kev_event_pid(event, &told) == 0 && told == pid);
        ck_assert(kev_event_exit_code(event, &code) == 0 && code == 7);
        ck_assert_str_eq(kev_event_comm(event), "kevmatch-1");
        ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
}
END_TEST

/* ---- a private daemon -------------------------------------------------------------------------------------- */

static volatile sig_atomic_t n_signals;

static void on_child(int signal _unused_) {
        n_signals++;
}

/* The one child that there is, whatever kind it was made of; -ECHILD: none. */
static int wait_for_child(int options, int *ret_status) {
        int r;

        do
                r = waitpid(-1, ret_status, options | __WALL);
        while (r < 0 && errno == EINTR);
        return r < 0 ? -errno : r;
}

static void use_private(void) {
        ck_assert_msg(kev_open("private", &kev) == 0, "%s", kev_error_message(NULL));
        ck_assert_int_eq(kev_call(kev, "org.kevd.events.GetLimits", NULL, NULL), 0);
}

/* The program has no child, and hears of none. */
START_TEST(private_is_no_child) {
        ck_assert(signal(SIGCHLD, on_child) != SIG_ERR);
        use_private();
        ck_assert_int_eq(wait_for_child(WNOHANG, NULL), -ECHILD);
        kev = kev_close(kev);
        ck_assert_int_eq(wait_for_child(0, NULL), -ECHILD);
        ck_assert_int_eq(n_signals, 0);
}
END_TEST

/* But one that inherits orphans inherits it, as libkev(3) says. */
START_TEST(private_is_inherited) {
        int status;

        ck_assert(signal(SIGCHLD, on_child) != SIG_ERR);
        assert_system(prctl(PR_SET_CHILD_SUBREAPER, 1) == 0, "prctl");
        use_private();
        ck_assert_int_eq(wait_for_child(WNOHANG, NULL), 0);
        ck_assert_int_eq(n_signals, 0);
        kev = kev_close(kev);
        ck_assert_int_gt(wait_for_child(0, &status), 0);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "kevd ended with status %#x", (unsigned)status);
        ck_assert_int_eq(wait_for_child(0, NULL), -ECHILD);
        ck_assert_int_eq(n_signals, 1);
}
END_TEST

/* ---- what holds ------------------------------------------------------------------------------------------ */

static int ends[2];

/* On the reading end of a pipe. */
static void add_level(kev_handler *handler, void *userdata) {
        struct kev_watch *watch;

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_POLL, &watch), 0);
        ck_assert_int_eq(kev_watch_set_fd(watch, ends[0]), 0);
        ck_assert_int_eq(kev_watch_set_flags(watch, KEV_FLAG_LEVEL), 0);
        ck_assert_int_eq(kev_add(kev, watch, handler, userdata, NULL), 0);
        kev_watch_free(watch);
}

static void close_ends(void) {
        (void)close(ends[0]);
        (void)close(ends[1]);
}

static void write_byte(void) {
        ck_assert_int_eq(write(ends[1], "x", 1), 1);
}

static bool read_byte(void) {
        char byte;

        return read(ends[0], &byte, 1) == 1;
}

/* Told as long as it holds, and no longer. */
START_TEST(level_waited_for) {
        const struct kev_event *event;

        add_level(NULL, NULL);
        for (int i = 0; i < harness_rounds(200); i++) {
                write_byte();
                for (int again = 0; again < 3; again++)
                        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
                ck_assert(read_byte());
                ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
        }
        close_ends();
}
END_TEST

static bool is_readable(void *userdata) {
        struct pollfd p = { .fd = kev_get_fd(userdata), .events = POLLIN };

        return poll(&p, 1, 0) == 1;
}

/* One event a wake-up, of two that are there. */
START_TEST(level_in_a_loop) {
        const struct kev_event *event;

        add_level(NULL, NULL);
        for (int i = 0; i < harness_rounds(50); i++) {
                write_byte();
                write_byte();
                for (int n = 0; n < 2;) {
                        ck_assert(wait_until(is_readable, kev, HARNESS_REPLY_MSEC));
                        if (kev_wait(kev, 0, &event) == 1)
                                n += read_byte();
                }
                ck_assert(!read_byte());
                ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
                ck_assert(!is_readable(kev)); /* it may sleep */
        }
        close_ends();
}
END_TEST

static void take_byte(struct kev *from _unused_, const struct kev_event *event _unused_, void *userdata) {
        ck_assert(read_byte());
        ++*(int *)userdata;
}

START_TEST(level_handled) {
        int n = 0, rounds = harness_rounds(200);

        add_level(take_byte, &n);
        for (int i = 0; i < rounds; i++) {
                write_byte();
                ck_assert_int_eq(kev_dispatch(kev, HARNESS_REPLY_MSEC), 1);
        }
        ck_assert_int_eq(kev_dispatch(kev, 0), 0);
        ck_assert_int_eq(n, rounds);
        close_ends();
}
END_TEST

/* What is kept for kev_wait() doesn't hold up the handlers of others. */
START_TEST(level_beside_what_is_kept) {
        const struct kev_event *event;
        struct kev_watch *watch;
        int n = 0;

        add_level(take_byte, &n);
        ck_assert_int_eq(kev_watch_new(KEV_FILTER_USER, &watch), 0);
        ck_assert_int_eq(kev_watch_set_name(watch, "a"), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
        kev_watch_free(watch);
        ck_assert_int_eq(kev_trigger(kev, "a", 7), 1);
        for (int i = 1; i < 5; i++) {
                write_byte();
                ck_assert_int_eq(kev_dispatch(kev, HARNESS_REPLY_MSEC), 1);
                ck_assert_int_eq(n, i);
        }
        ck_assert_int_eq(kev_dispatch(kev, 0), 0);
        ck_assert(!is_readable(kev));
        ck_assert_int_eq(kev_wait(kev, 0, &event), 1);
        ck_assert_int_eq(kev_event_filter(event), KEV_FILTER_USER);
        close_ends();
}
END_TEST

/* What it had counted, and had told, is forgotten. */
START_TEST(timer_added_again) {
        const struct kev_event *event;
        struct kev_watch *watch;

        ck_assert_int_eq(kev_watch_new(KEV_FILTER_TIMER, &watch), 0);
        ck_assert_int_eq(kev_watch_set_id(watch, 1), 0);
        ck_assert_int_eq(kev_watch_set_data(watch, 1), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
        ck_assert(wait_until(is_readable, kev, HARNESS_REPLY_MSEC)); /* another is in the socket */
        ck_assert_int_eq(kev_watch_set_data(watch, 1000000), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
        ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
        kev_watch_free(watch);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("library");
        TCase *tcase = harness_case(suite, "call");

        tcase_add_checked_fixture(tcase, setup, teardown);
        tcase_add_test(tcase, call_depth);
        tcase_add_loop_test(tcase, call_not_object, 0, ARRAY_SIZE(not_objects));
        tcase = harness_case(suite, "match");
        tcase_add_checked_fixture(tcase, setup, teardown);
        tcase_add_test(tcase, match_values);
        tcase_add_test(tcase, match_processes);
        tcase = harness_case(suite, "state");
        tcase_add_checked_fixture(tcase, setup, teardown);
        tcase_add_test(tcase, level_waited_for);
        tcase_add_test(tcase, level_in_a_loop);
        tcase_add_test(tcase, level_handled);
        tcase_add_test(tcase, level_beside_what_is_kept);
        tcase_add_test(tcase, timer_added_again);
        tcase = harness_case(suite, "private");
        tcase_add_test(tcase, private_is_no_child);
        tcase_add_test(tcase, private_is_inherited);
        return harness_main(argc, argv);
}
