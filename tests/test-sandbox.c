/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* What the daemon's processes may do: the capabilities that each has, and the filter that ends it. */

#include <dirent.h>
#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"

#define BIT(capability) (UINT64_C(1) << (capability))

/* A line of /proc/PID/status. */
static uint64_t status_of(pid_t pid, const char *key, int base) {
        char path[64];
        char line[512];
        uint64_t value = UINT64_MAX;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
        file = fopen(path, "re");
        assert_system(file, path);
        while (fgets(line, sizeof(line), file))
                if (strncmp(line, key, strlen(key)) == 0 && line[strlen(key)] == ':')
                        value = strtoull(line + strlen(key) + 1, NULL, base);
        (void)fclose(file);
        ck_assert_msg(value != UINT64_MAX, "%s has no %s", path, key);
        return value;
}

static void expect_capabilities(pid_t pid, uint64_t allowed) {
        static const char *const sets[] = { "CapInh", "CapPrm", "CapEff", "CapAmb" };

        for (size_t i = 0; i < ARRAY_SIZE(sets); i++) {
                uint64_t has = status_of(pid, sets[i], 16);

                ck_assert_msg(!(has & ~allowed), "process %d: %s is %llx", (int)pid, sets[i], (unsigned long long)has);
        }
}

static void need_seccomp(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        bool has = strcmp(text_at(reply, "/parameters/sandbox"), "seccomp") == 0;

        json_object_put(reply);
        if (!has)
                harness_skip("this kernel has no seccomp");
}

static void expect_filter(pid_t pid) {
        ck_assert_uint_eq(status_of(pid, "Seccomp", 10), 2);
        ck_assert_uint_eq(status_of(pid, "NoNewPrivs", 10), 1);
}

/* All threads. */
static void expect_filter_of_threads(pid_t pid) {
        char path[64];
        struct dirent *entry;
        DIR *directory;

        (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
        directory = opendir(path);
        assert_system(directory, path);
        while ((entry = readdir(directory)))
                if (entry->d_name[0] != '.')
                        expect_filter(atoi(entry->d_name));
        (void)closedir(directory);
}

static const char *const modes[] = { "--mode=system", "--mode=user" };

/* Also where it is started with all that root has. */
START_TEST(test_serves) {
        static const uint64_t allowed = BIT(CAP_DAC_READ_SEARCH) | BIT(CAP_SYS_NICE);
        struct daemon *daemon = daemon_start(modes[_i]);
        int fd = client_connect(daemon->socket);

        harness_label(modes[_i]);
        need_seccomp(fd);
        expect_capabilities(daemon->pid, allowed);
        expect_filter_of_threads(daemon->pid);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Of a directory of the test's. */
static void watch_tree(int fd) {
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"}]}", harness_tempdir());
}

START_TEST(test_helpers) {
        static const struct {
                const char *name;
                uint64_t allowed;
                bool is_always_there;
        } helpers[] = {
                { "kevd-observer", BIT(CAP_SYS_PTRACE) | BIT(CAP_DAC_READ_SEARCH), true },
                { "kevd-surveyor", BIT(CAP_DAC_READ_SEARCH), false },
                { "kevd-stand-in", BIT(CAP_DAC_READ_SEARCH), false }, /* root's */
                { "kevd-opener", BIT(CAP_NET_ADMIN), false },
        };
        struct daemon *daemon;
        int fd;

        if (geteuid() != 0)
                harness_skip("only root's daemon has helpers");
        daemon = daemon_start("--mode=system");
        fd = client_connect(daemon->socket);
        need_seccomp(fd);
        watch_tree(fd);
        for (size_t i = 0; i < ARRAY_SIZE(helpers); i++) {
                pid_t pid = daemon_find_helper(daemon->pid, helpers[i].name);

                ck_assert(pid != 0 || !helpers[i].is_always_there);
                if (pid == 0)
                        continue; /* not with this file system, or this kernel */
                expect_capabilities(pid, helpers[i].allowed);
                expect_filter(pid);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- what is forbidden ----------------------------------------------------------------------------------------------------- */

static struct daemon *start_breakable(const char *mode) {
        struct daemon *daemon;

        ck_assert_int_eq(setenv("LD_PRELOAD", BREAKER, 1), 0);
        ck_assert_int_eq(setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 1), 0);
        daemon = daemon_start(mode);
        ck_assert_int_eq(unsetenv("LD_PRELOAD"), 0);
        return daemon;
}

/* The process that serves clients runs a program: it is gone, by the filter, and nobody is served any more. */
START_TEST(test_stopped) {
        struct daemon *daemon = start_breakable(modes[_i]);
        int fd = client_connect(daemon->socket), status;
        char byte;

        harness_label(modes[_i]);
        need_seccomp(fd);
        assert_system(kill(daemon->pid, SIGUSR1) == 0, "kill");
        ck_assert_int_eq(waitpid(daemon->pid, &status, 0), daemon->pid);
        ck_assert(WIFSIGNALED(status));
        ck_assert_int_eq(WTERMSIG(status), SIGSYS);
        ck_assert_int_le(read(fd, &byte, 1), 0);
        (void)close(fd);
        (void)close(daemon->pidfd);
        (void)close(daemon->notify_fd);
        free(daemon->socket);
        free(daemon);
}
END_TEST

/* So is a helper that a client's words come to; the daemon goes on. */
START_TEST(test_helper_stopped) {
        struct daemon *daemon;
        pid_t helper;
        struct pollfd ended = { .events = POLLIN };
        int fd;

        if (geteuid() != 0)
                harness_skip("only root's daemon has helpers");
        daemon = start_breakable("--mode=system");
        fd = client_connect(daemon->socket);
        need_seccomp(fd);
        watch_tree(fd);
        helper = daemon_find_helper(daemon->pid, "kevd-stand-in");
        if (helper == 0)
                harness_skip("no stand-in is needed: fanotify doesn't serve this directory");
        ended.fd = pidfd_open(helper, 0);
        assert_system(ended.fd >= 0, "pidfd_open");
        assert_system(kill(helper, SIGUSR1) == 0, "kill");
        ck_assert_int_eq(poll(&ended, 1, 10000), 1);
        (void)close(ended.fd);
        json_object_put(client_call(fd, "org.kevd.manager.GetStatus", NULL));
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("sandbox");
        TCase *c = harness_case(suite, "processes");

        tcase_add_loop_test(c, test_serves, 0, (int)ARRAY_SIZE(modes));
        tcase_add_test(c, test_helpers);
        c = harness_case(suite, "forbidden");
        tcase_add_loop_test(c, test_stopped, 0, (int)ARRAY_SIZE(modes));
        tcase_add_test(c, test_helper_stopped);
        return harness_main(argc, argv);
}
