/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libkev by itself: what a program may rely on whatever it watches.
 */

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>

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

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("library");
        TCase *tcase = harness_case(suite, "call");

        tcase_add_checked_fixture(tcase, setup, teardown);
        tcase_add_test(tcase, call_depth);
        tcase_add_loop_test(tcase, call_not_object, 0, ARRAY_SIZE(not_objects));
        tcase = harness_case(suite, "private");
        tcase_add_test(tcase, private_is_no_child);
        tcase_add_test(tcase, private_is_inherited);
        return harness_main(argc, argv);
}
