/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What the last daemon has left is not taken on trust: where a part of it is missing, of another version, not sealed or
 * cut off, the next one starts anew (restarts.h).
 */

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"
#include "manager.h"
#include "restarts.h"

static int memory_file(const void *bytes, size_t size, int seals) {
        int fd = memfd_create("state", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        assert_system(fd >= 0, "memfd_create");
        ck_assert_int_eq(write(fd, bytes, size), size);
        assert_system(fcntl(fd, F_ADD_SEALS, seals) == 0, "seal");
        return fd;
}

enum { ALL_SEALS = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE, STATE_MAX = 64 * 1024 };

static size_t read_state(char *bytes) {
        int fd = manager_take_copy(manager, "kevd-state");
        ssize_t n = pread(fd, bytes, STATE_MAX, 0);

        ck_assert_int_eq(fcntl(fd, F_GET_SEALS), ALL_SEALS);
        ck_assert_int_gt(n, 0);
        (void)close(fd);
        return (size_t)n;
}

START_TEST(test_state_is_missing) {
        watch_it(USER_WATCH);
        manager_stop(manager);
        ck_assert_int_eq(manager_n_stored(manager), 2);
        manager_drop(manager, "kevd-state");
        expect_clean_start();
}
END_TEST

START_TEST(test_state_of_another_version) {
        static char bytes[STATE_MAX];
        size_t size;

        watch_it(USER_WATCH);
        manager_stop(manager);
        size = read_state(bytes);
        bytes[8]++;
        manager_replace(manager, "kevd-state", memory_file(bytes, size, ALL_SEALS));
        expect_clean_start();
}
END_TEST

START_TEST(test_state_is_not_sealed) {
        static char bytes[STATE_MAX];
        size_t size;

        watch_it(USER_WATCH);
        manager_stop(manager);
        size = read_state(bytes);
        manager_replace(manager, "kevd-state", memory_file(bytes, size, 0));
        expect_clean_start();
}
END_TEST

/* Cut off anywhere: the daemon starts, and the client is gone on with, or its connection ends. */
START_TEST(test_state_is_cut) {
        static char bytes[STATE_MAX];
        size_t size;

        watch_it(USER_WATCH);
        manager_stop(manager);
        size = read_state(bytes);
        for (size_t cut = 0; cut < size; cut += 8 * (size_t)(24 / harness_rounds(24))) {
                manager_replace(manager, "kevd-state", memory_file(bytes, MAX(cut, (size_t)1), ALL_SEALS));
                manager_start(manager);
                client_expect_close(client, HARNESS_REPLY_MSEC);
                (void)close(client);
                client = client_connect(manager_socket(manager));
                watch_it(USER_WATCH);
                manager_stop(manager);
        }
        manager_start(manager);
        trigger("bell", 1);
        expect_data("trigger", 1, 1);
}
END_TEST

/* A descriptor that the store had no room for. */
START_TEST(test_connection_was_not_kept) {
        manager_stop(manager);
        ck_assert(manager_has_stored(manager, "kevd-descriptors"));
        manager_drop(manager, "kevd-descriptors");
        expect_clean_start();
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("restart-state"), "state");

        tcase_add_checked_fixture(c, setup, teardown);
        tcase_set_timeout(c, 120);
        tcase_add_test(c, test_state_is_missing);
        tcase_add_test(c, test_state_of_another_version);
        tcase_add_test(c, test_state_is_not_sealed);
        tcase_add_test(c, test_state_is_cut);
        tcase_add_test(c, test_connection_was_not_kept);
        return harness_main(argc, argv);
}
