/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What a daemon took for a while goes back to the system once it is calm. */

#include <stdio.h>
#include <unistd.h>

#include "harness.h"
#include "holdings.h"
#include "macro.h"

enum {
        ROUNDS = 20,
        WATCHES = 2000, /* in each */
        CALM_MSEC = 3 * HARNESS_REPLY_MSEC,
};

struct wanted {
        pid_t daemon;
        uint64_t bytes;
};

static int add_users(int fd, int id, int n) {
        char text[64 * 1024];
        size_t size = (size_t)snprintf(text, sizeof(text), "{\"add\":[");

        for (int i = 0; i < n; i++)
                size += (size_t)snprintf(text + size, sizeof(text) - size, "%s{\"id\":%d,\"filter\":\"user\",\"name\":\"n%d\"}",
                                         i > 0 ? "," : "", id + i, id + i);
        (void)snprintf(text + size, sizeof(text) - size, "]}");
        client_change(fd, text);
        return id + n;
}

static bool has_given_back(void *userdata) {
        const struct wanted *wanted = userdata;

        return holdings_read(wanted->daemon).heap_bytes <= wanted->bytes;
}

/* In one call: of small ones there are so many at a time that nothing can be given back before the last. */
static const int chunks[] = { 500, 5 };

/* Between what goes there is what stays, so that it is not at the end of the heap. */
START_TEST(test_goes_back) {
#if defined(__SANITIZE_ADDRESS__)
        harness_skip("the sanitizer's allocator keeps what was freed");
#endif
        struct daemon *daemon = daemon_start("--limit-watches=100000");
        int goes = client_connect(daemon->socket), stays = client_connect(daemon->socket), id = 0;
        uint64_t before = holdings_read(daemon->pid).heap_bytes, most;
        struct wanted wanted = { .daemon = daemon->pid };

        for (int i = 0; i < ROUNDS; i++) {
                for (int n = 0; n < WATCHES; n += chunks[_i])
                        id = add_users(goes, id, chunks[_i]);
                (void)add_users(stays, i, 1);
        }
        most = holdings_read(daemon->pid).heap_bytes;
        ck_assert_uint_gt(most, before + (uint64_t)ROUNDS * WATCHES * 128);
        (void)close(goes);
        wanted.bytes = before + (most - before) / 4;
        ck_assert_msg(wait_until(has_given_back, &wanted, CALM_MSEC), "%lu bytes before, %lu at most, %lu now",
                      (unsigned long)before, (unsigned long)most, (unsigned long)holdings_read(daemon->pid).heap_bytes);
        (void)close(stays);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("memory");
        TCase *c = harness_case(suite, "memory");

        tcase_set_timeout(c, 60);
        tcase_add_loop_test(c, test_goes_back, 0, (int)ARRAY_SIZE(chunks));
        return harness_main(argc, argv);
}
