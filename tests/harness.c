/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The harness: Check's runner with TAP, skips, and checks of what a test leaves behind.
 *
 * Check forks for each test, runs the case's fixtures and the test in the child, and waits for it:
 * one test runs at a time. So the n-th test to begin is the n-th in Check's list of results, and
 * what a test wants to tell the parent goes into the n-th record of an array in shared memory.
 * The names of tests, which Check's list does not give away, are taken from Check's log.
 *
 * A failed assertion ends the child on the spot, without fixtures: the parent shows the logs in the
 * test's directory then, and removes the directory. Check kills what is left of the child's process
 * group.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"

enum {
        SUITES_MAX = 64,
        TESTS_MAX = 65536,
        FDS_MAX = 1024,
        LOG_BYTES_MAX = 64 * 1024, /* what is shown of a log: its end */
};

enum test_state {
        TEST_UNKNOWN, /* not begun */
        TEST_BEGUN,
        TEST_SKIPPED,
        TEST_ENDED, /* with all its fixtures */
};

struct test_record {
        enum test_state state;
        char label[128];
        char reason[256];
};

struct test_fd {
        int fd;
        char link[PATH_MAX];
};

static struct {
        struct test_record *records; /* shared with the tests' processes */
        size_t *n_begun;             /* shared too */
        char directory[PATH_MAX];    /* holds one directory for each test, named by its number */
        Suite *suites[SUITES_MAX];
        size_t n_suites;
} harness;

/* Of the test's own process. */
static struct {
        struct test_record *record;
        char directory[PATH_MAX + 32];
        struct test_fd *fds;
        size_t n_fds;
} test;

/* ---- time ------------------------------------------------------------------ */

int64_t now_msec(void) {
        struct timespec t;

        assert_system(clock_gettime(CLOCK_MONOTONIC, &t) == 0, "clock_gettime");
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

bool wait_until(bool (*predicate)(void *userdata), void *userdata, int timeout_msec) {
        int64_t deadline = now_msec() + timeout_msec;

        while (!predicate(userdata)) {
                if (now_msec() >= deadline)
                        return predicate(userdata);
                (void)poll(NULL, 0, 1);
        }
        return true;
}

void format(char *text, size_t size, const char *form, ...) {
        va_list args;

        va_start(args, form);
        ck_assert_int_lt(vsnprintf(text, size, form, args), (int)size);
        va_end(args);
}

pid_t start_process(void) {
        pid_t pid = fork();

        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        (void)pause();
        }
        assert_system(pid > 0, "fork");
        return pid;
}

void end_process(pid_t pid) {
        int status;

        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "a child had ended, its status was %d", status);
}

/* ---- directories ----------------------------------------------------------- */

/* Removes what the directory holds, up to a directory that is not empty: 1, and that one open. */
static int directory_clear(DIR *directory, int *ret_child) {
        int parent = dirfd(directory);
        struct dirent *entry;

        while ((entry = readdir(directory))) {
                const char *name = entry->d_name;
                int child;

                if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
                        continue;
                if (unlinkat(parent, name, 0) == 0 || unlinkat(parent, name, AT_REMOVEDIR) == 0)
                        continue;
                if (errno != ENOTEMPTY && errno != EEXIST)
                        return -errno;

                /* A test may have taken away the rights that are needed here. */
                (void)fchmodat(parent, name, 0700, 0);
                child = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
                if (child < 0)
                        return -errno;
                *ret_child = child;
                return 1;
        }
        return 0;
}

/*
 * Empties the directory and everything below it, and closes it. Needs two descriptors however deep
 * the tree is: on the way up it goes by "..", and meets the child again, empty now, as the first
 * entry to remove. Symbolic links are removed, never followed.
 */
static int directory_empty(int fd) {
        unsigned depth = 0;

        for (;;) {
                DIR *directory = fdopendir(fd);
                int r, next = -1;

                if (!directory) {
                        r = -errno;
                        (void)close(fd);
                        return r;
                }

                r = directory_clear(directory, &next);
                if (r > 0) {
                        depth++;
                } else if (r == 0 && depth > 0) {
                        depth--;
                        next = openat(dirfd(directory), "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                        if (next < 0)
                                r = -errno;
                }
                (void)closedir(directory);
                if (next < 0)
                        return r;
                fd = next;
        }
}

/* Removes the directory with all that is in it; it need not exist. */
static int directory_remove(const char *path) {
        int fd, r;

        (void)chmod(path, 0700);
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        r = directory_empty(fd);
        if (r < 0)
                return r;
        return rmdir(path) < 0 ? -errno : 0;
}

const char *harness_tempdir(void) {
        return test.directory;
}

/* ---- before and after each test -------------------------------------------- */

/* The open descriptors and what they are, without the one that is open for reading them. */
static size_t fds_read(struct test_fd *fds) {
        DIR *directory = opendir("/proc/self/fd");
        struct dirent *entry;
        size_t n = 0;

        assert_system(directory, "/proc/self/fd");
        while ((entry = readdir(directory))) {
                struct test_fd *f = &fds[n];
                ssize_t size;

                if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory))
                        continue;
                ck_assert_msg(n < FDS_MAX, "more than %d descriptors are open", FDS_MAX);
                size = readlinkat(dirfd(directory), entry->d_name, f->link, sizeof(f->link) - 1);
                assert_system(size >= 0, "readlinkat");
                f->link[size] = '\0';
                f->fd = atoi(entry->d_name);
                n++;
        }
        (void)closedir(directory);
        return n;
}

static bool fds_contain(const struct test_fd *fds, size_t n, const struct test_fd *f) {
        for (size_t i = 0; i < n; i++)
                if (fds[i].fd == f->fd)
                        return strcmp(fds[i].link, f->link) == 0;
        return false;
}

/*
 * Every assertion, also one that holds, is a message to Check in a file that children would share: what they
 * write at the same time as the test itself goes to pieces. So each child has a file of its own for it, which
 * nobody reads. A child tells by its exit status that an assertion of its own failed.
 */
static void leave_messages(void) {
        for (size_t i = 0; i < test.n_fds; i++) {
                int own;

                if (!strstr(test.fds[i].link, "/check_")) /* below TMPDIR, and unlinked */
                        continue;
                own = memfd_create("check", MFD_CLOEXEC);
                if (own < 0 || dup3(own, test.fds[i].fd, O_CLOEXEC) < 0)
                        _exit(1);
                (void)close(own);
        }
}

static void check_fds(void) {
        struct test_fd *fds = calloc(FDS_MAX, sizeof(*fds));
        size_t n;

        ck_assert_ptr_nonnull(fds);
        n = fds_read(fds);
        for (size_t i = 0; i < n; i++)
                ck_assert_msg(fds_contain(test.fds, test.n_fds, &fds[i]), "descriptor %d was left open: %s",
                              fds[i].fd, fds[i].link);
        for (size_t i = 0; i < test.n_fds; i++)
                ck_assert_msg(fds_contain(fds, n, &test.fds[i]), "descriptor %d was closed, which the test didn't open",
                              test.fds[i].fd);
        free(fds);
}

static void check_children(void) {
        pid_t pid = waitpid(-1, NULL, WNOHANG);

        ck_assert_msg(pid <= 0, "process %d had ended and was not waited for", (int)pid);
        ck_assert_msg(pid < 0 && errno == ECHILD, "a child process was left running");
}

static void test_begin(void) {
        size_t number = (*harness.n_begun)++;
        char no_bus[sizeof(test.directory) + 32];

        ck_assert_msg(number < TESTS_MAX, "more than %d tests", TESTS_MAX);
        test.record = &harness.records[number];
        test.record->state = TEST_BEGUN;

        /* A test must not outlive a harness that was killed. */
        ck_assert_int_eq(prctl(PR_SET_PDEATHSIG, SIGKILL), 0);
        /* The parent's stdout is for TAP. */
        ck_assert_int_eq(dup2(STDERR_FILENO, STDOUT_FILENO), STDOUT_FILENO);

        (void)snprintf(test.directory, sizeof(test.directory), "%s/%zu", harness.directory, number);
        assert_system(mkdir(test.directory, 0700) == 0, test.directory);

        /* What the daemon and the library would look at is the test's own. */
        ck_assert_int_eq(unsetenv("KEV_ADDRESS"), 0);
        ck_assert_int_eq(unsetenv("NOTIFY_SOCKET"), 0);
        ck_assert_int_eq(unsetenv("LISTEN_PID"), 0);
        ck_assert_int_eq(unsetenv("LISTEN_FDS"), 0);
        ck_assert_int_eq(unsetenv("WATCHDOG_USEC"), 0);
        ck_assert_int_eq(setenv("XDG_RUNTIME_DIR", test.directory, 1), 0);
        ck_assert_int_eq(setenv("XDG_CONFIG_HOME", test.directory, 1), 0);
        (void)snprintf(no_bus, sizeof(no_bus), "unix:path=%s/no-bus", test.directory);
        ck_assert_int_eq(setenv("DBUS_SYSTEM_BUS_ADDRESS", no_bus, 1), 0);
        ck_assert_int_eq(setenv("DBUS_SESSION_BUS_ADDRESS", no_bus, 1), 0);

        test.fds = calloc(FDS_MAX, sizeof(*test.fds));
        ck_assert_ptr_nonnull(test.fds);
        test.n_fds = fds_read(test.fds);
        ck_assert_int_eq(pthread_atfork(NULL, NULL, leave_messages), 0);
}

static void test_end(void) {
        int r;

        check_fds();
        check_children();
        free(test.fds);
        r = directory_remove(test.directory);
        ck_assert_msg(r == 0, "%s can't be removed: %s", test.directory, strerror(-r));
        test.record->state = TEST_ENDED;
}

/* What TAP would misread becomes a space. */
static void copy_for_tap(char *target, size_t size, const char *text) {
        (void)snprintf(target, size, "%s", text);
        for (char *p = target; *p; p++)
                if (*p == '#' || (unsigned char)*p < ' ')
                        *p = ' ';
}

void harness_skip(const char *reason) {
        copy_for_tap(test.record->reason, sizeof(test.record->reason), reason);
        test.record->state = TEST_SKIPPED;
        /* Not exit(): what the test holds just now is no leak. */
        _exit(EXIT_SUCCESS);
}

void harness_label(const char *label) {
        copy_for_tap(test.record->label, sizeof(test.record->label), label);
}

/* ---- results --------------------------------------------------------------- */

/* Text as TAP comments. */
static void print_comment(const char *text) {
        while (*text) {
                size_t size = strcspn(text, "\n");

                printf("# %.*s\n", (int)size, text);
                text += size;
                text += *text == '\n';
        }
}

static void print_log(const char *path, const char *name) {
        static char text[LOG_BYTES_MAX + 1];
        FILE *file = fopen(path, "re");
        size_t size;

        if (!file)
                return;
        if (fseek(file, -LOG_BYTES_MAX, SEEK_END) < 0)
                rewind(file);
        size = fread(text, 1, LOG_BYTES_MAX, file);
        (void)fclose(file);
        /* A NUL byte would hide what stands behind it. */
        for (size_t i = 0; i < size; i++)
                if (text[i] == '\0')
                        text[i] = '?';
        text[size] = '\0';
        printf("# --- %s:\n", name);
        print_comment(text);
}

static int is_log(const struct dirent *entry) {
        const char *dot = strrchr(entry->d_name, '.');

        return dot && strcmp(dot, ".log") == 0;
}

/* The logs that the test left in its directory. */
static void print_logs(size_t number) {
        char directory[sizeof(test.directory)], path[sizeof(directory) + NAME_MAX + 2];
        struct dirent **entries;
        int n;

        (void)snprintf(directory, sizeof(directory), "%s/%zu", harness.directory, number);
        n = scandir(directory, &entries, is_log, alphasort);
        for (int i = 0; i < n; i++) {
                (void)snprintf(path, sizeof(path), "%s/%s", directory, entries[i]->d_name);
                print_log(path, entries[i]->d_name);
                free(entries[i]);
        }
        if (n >= 0)
                free(entries);
}

/*
 * Finds the next test's line in Check's log, "FILE:LINE:RESULT:CASE:TEST:ITERATION: MESSAGE", and
 * prints "SUITE:CASE:TEST" (the suite is in a line of its own before that). Lines of a message may
 * stand in between. RESULT is a letter: passed, failed, error, or failed in a fixture (S).
 */
static void print_name(FILE *log, const char *case_name) {
        static const char suite_line[] = "Running suite ";
        static char suite[256];
        _cleanup_(freep) char *line = NULL;
        size_t capacity = 0;

        while (getline(&line, &capacity, log) >= 0) {
                size_t case_size = strlen(case_name);
                char *p = line;

                if (strncmp(line, suite_line, strlen(suite_line)) == 0) {
                        line[strcspn(line, "\n")] = '\0';
                        (void)snprintf(suite, sizeof(suite), "%s", line + strlen(suite_line));
                        continue;
                }

                for (int colons = 0; p && colons < 2; colons++) {
                        p = strchr(p, ':');
                        p = p ? p + 1 : NULL;
                }
                if (!p || !strchr("PFES", p[0]) || p[1] != ':' || strncmp(p + 2, case_name, case_size) != 0 ||
                    p[2 + case_size] != ':')
                        continue;
                p += 2 + case_size + 1;
                printf("%s:%s:%.*s", suite, case_name, (int)strcspn(p, ":"), p);
                return;
        }
        printf("%s", case_name);
}

/* Returns whether it passed or was skipped. */
static bool print_result(TestResult *result, size_t number, FILE *log) {
        const struct test_record *record = &harness.records[number];
        bool passed = tr_rtype(result) == CK_PASS && (record->state == TEST_ENDED || record->state == TEST_SKIPPED);

        printf("%s %zu - ", passed ? "ok" : "not ok", number + 1);
        print_name(log, tr_tcname(result));
        if (record->label[0])
                printf("[%s]", record->label);
        if (passed && record->state == TEST_SKIPPED)
                printf(" # SKIP %s", record->reason);
        printf("\n");

        if (passed)
                return true;
        if (tr_rtype(result) == CK_PASS) {
                printf("# the test's process exited before the test's end\n");
        } else {
                if (tr_lfile(result))
                        printf("# %s:%d:%s\n", tr_lfile(result), tr_lno(result),
                               tr_rtype(result) == CK_ERROR ? " (after this point)" : "");
                print_comment(tr_msg(result));
        }
        print_logs(number);
        return false;
}

/* ---- the program ----------------------------------------------------------- */

static void die(const char *what) {
        fprintf(stderr, "harness: %s: %s\n", what, strerror(errno));
        printf("Bail out! %s\n", what);
        exit(EXIT_FAILURE);
}

Suite *harness_suite(const char *name) {
        Suite *suite = suite_create(name);

        if (harness.n_suites == SUITES_MAX) {
                errno = E2BIG;
                die(name);
        }
        harness.suites[harness.n_suites++] = suite;
        return suite;
}

TCase *harness_case(Suite *suite, const char *name) {
        TCase *tcase = tcase_create(name);

        /* The first fixture is set up first, and torn down last. */
        tcase_add_checked_fixture(tcase, test_begin, test_end);
        tcase_set_timeout(tcase, HARNESS_CASE_SECONDS);
        suite_add_tcase(suite, tcase);
        return tcase;
}

static void prepare(void) {
        const char *parent = getenv("TMPDIR");
        int size;

        harness.records = mmap(NULL, TESTS_MAX * sizeof(*harness.records), PROT_READ | PROT_WRITE,
                               MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (harness.records == MAP_FAILED)
                die("mmap");
        harness.n_begun = mmap(NULL, sizeof(*harness.n_begun), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (harness.n_begun == MAP_FAILED)
                die("mmap");

        size = snprintf(harness.directory, sizeof(harness.directory), "%s/kevd-test.XXXXXX", parent ? parent : "/tmp");
        if (size >= (int)sizeof(harness.directory) || !mkdtemp(harness.directory))
                die("mkdtemp");
        /* Tests that change their user find the way to their own directory. */
        if (chmod(harness.directory, 0711) < 0)
                die("chmod");
}

/* Returns how many failed. */
static size_t print_results(SRunner *runner, const char *log_path) {
        TestResult **results = srunner_results(runner);
        size_t n = (size_t)srunner_ntests_run(runner), failed = 0;
        FILE *log = fopen(log_path, "re");

        if (!log || !results)
                die(log_path);
        /* The first fixture opens a test's record: without it the two lists don't belong together. */
        if (n != *harness.n_begun) {
                errno = EBADSLT;
                die("a case was not made with harness_case()");
        }
        for (size_t i = 0; i < n; i++)
                failed += !print_result(results[i], i, log);
        printf("1..%zu\n", n);

        (void)fclose(log);
        free(results);
        return failed;
}

int harness_main(int argc, char *argv[]) {
        char log_path[PATH_MAX + 16], *case_name = NULL;
        size_t failed;
        SRunner *runner;
        int r;

        if (argc > 2) {
                fprintf(stderr, "usage: %s [SUITE[:CASE]]\n", argv[0]);
                return EXIT_FAILURE;
        }
        if (argc == 2) {
                case_name = strchr(argv[1], ':');
                if (case_name)
                        *case_name++ = '\0';
        }

        prepare();
        (void)snprintf(log_path, sizeof(log_path), "%s/check", harness.directory);

        runner = srunner_create(NULL);
        for (size_t i = 0; i < harness.n_suites; i++)
                srunner_add_suite(runner, harness.suites[i]);
        srunner_set_fork_status(runner, CK_FORK);
        srunner_set_log(runner, log_path);
        srunner_run(runner, argv[1], case_name, CK_SILENT);
        failed = print_results(runner, log_path);
        srunner_free(runner);

        r = directory_remove(harness.directory);
        if (r < 0)
                fprintf(stderr, "%s can't be removed: %s\n", harness.directory, strerror(-r));
        return failed > 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}
