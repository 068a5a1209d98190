/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * libkev by itself: what a program may rely on whatever it watches.
 */

#include <stdio.h>
#include <stdlib.h>

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

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("library");
        TCase *tcase = harness_case(suite, "call");

        tcase_add_checked_fixture(tcase, setup, teardown);
        tcase_add_test(tcase, call_depth);
        tcase_add_loop_test(tcase, call_not_object, 0, ARRAY_SIZE(not_objects));
        return harness_main(argc, argv);
}
