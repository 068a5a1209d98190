/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The lists of system calls: each process's own is put in force in a child, which then does what is not in it. */

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"
#include "sandbox.h"

static const struct {
        enum sandbox sandbox;
        const char *name;
} sandboxes[] = {
        { SANDBOX_DAEMON, "daemon" },     { SANDBOX_BROKER, "broker" }, { SANDBOX_SURVEYOR, "surveyor" },
        { SANDBOX_STAND_IN, "stand-in" }, { SANDBOX_DEPUTY, "deputy" }, { SANDBOX_OPENER, "opener" },
        { SANDBOX_OBSERVER, "observer" },
};

/* ---- what no process may do -------------------------------------------------------------------------------------------- */

static void do_exec(void) {
        (void)execl("/bin/true", "true", NULL);
}

static void do_mount(void) {
        (void)mount("none", "/nowhere", "tmpfs", 0, NULL);
}

static void do_namespace(void) {
        (void)unshare(CLONE_NEWUSER);
}

static void do_process_in_namespace(void) {
        (void)syscall(SYS_clone, CLONE_NEWNET | CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, NULL, NULL, NULL, NULL);
}

static void do_packet_socket(void) {
        (void)socket(AF_PACKET, SOCK_RAW, 0);
}

static void do_kill_of_another(void) {
        (void)kill(1, 0);
}

static void do_terminal_input(void) {
        (void)ioctl(STDIN_FILENO, TIOCSTI, "x");
}

static void do_io_uring(void) {
        struct io_uring_params parameters = { 0 };

        (void)syscall(SYS_io_uring_setup, 1, &parameters);
}

static void do_module(void) {
        (void)syscall(SYS_finit_module, -1, "", 0);
}

static void do_key(void) {
        (void)syscall(SYS_keyctl, 0, 0);
}

static void do_root(void) {
        (void)chroot("/");
}

static void do_limit_of_another(void) {
        (void)syscall(SYS_prlimit64, 1, 0, NULL, NULL);
}

static void do_seccomp_of_the_old_kind(void) {
        (void)prctl(PR_SET_SECCOMP, 1, 0, 0, 0);
}

static const struct {
        const char *name;
        void (*call)(void);
        bool brokers; /* what it needs for its helpers */
} forbidden[] = {
        { "execve", do_exec, false },           { "mount", do_mount, false },
        { "unshare", do_namespace, false },     { "clone", do_process_in_namespace, false },
        { "socket", do_packet_socket, false },  { "kill", do_kill_of_another, false },
        { "ioctl", do_terminal_input, false },  { "io_uring_setup", do_io_uring, false },
        { "finit_module", do_module, false },   { "keyctl", do_key, false },
        { "chroot", do_root, false },           { "prlimit64", do_limit_of_another, false },
        { "prctl", do_seccomp_of_the_old_kind, true },
};

/* What becomes of a child that does it. */
static int end_of(enum sandbox sandbox, void (*call)(void)) {
        int status;
        pid_t child = fork();

        ck_assert_int_ge(child, 0);
        if (child == 0) {
                if (sandbox_enter(sandbox) < 0)
                        _exit(77);
                call();
                _exit(0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
                harness_skip("this kernel has no seccomp");
        return status;
}

static bool is_stopped(int status) {
        return WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

START_TEST(test_forbidden) {
        size_t n = (size_t)_i / ARRAY_SIZE(sandboxes), of = (size_t)_i % ARRAY_SIZE(sandboxes);
        char label[64];
        /* A build with sanitizers allows what they need. */
        bool sanitizers = IS_SANITIZED && (strcmp(forbidden[n].name, "clone") == 0 ||
                                           strcmp(forbidden[n].name, "prctl") == 0 || strcmp(forbidden[n].name, "kill") == 0);

        (void)snprintf(label, sizeof(label), "%s, %s", sandboxes[of].name, forbidden[n].name);
        harness_label(label);
        if (sanitizers)
                harness_skip("the sanitizers need it");
        if (forbidden[n].brokers && sandboxes[of].sandbox == SANDBOX_BROKER)
                ck_assert(!is_stopped(end_of(sandboxes[of].sandbox, forbidden[n].call)));
        else
                ck_assert(is_stopped(end_of(sandboxes[of].sandbox, forbidden[n].call)));
}
END_TEST

/* ---- what is answered with an error -------------------------------------------------------------------------------------- */

static void make_socket(void) {
        _exit(socket(AF_INET, SOCK_STREAM, 0) < 0 && errno == EAFNOSUPPORT ? 0 : 1);
}

static void make_process(void) {
        _exit(fork() < 0 && errno == EPERM ? 0 : 1);
}

static void *nothing(void *argument) {
        return argument;
}

static void make_thread(void) {
        pthread_t thread;

        _exit(pthread_create(&thread, NULL, nothing, NULL) == 0 && pthread_join(thread, NULL) == 0 ? 0 : 1);
}

static void check_no_new_privs(void) {
        int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
        char text[4096] = "";

        _exit(read(fd, text, sizeof(text) - 1) > 0 && strstr(text, "\nNoNewPrivs:\t1\n") && strstr(text, "\nSeccomp:\t2\n") ?
                      0 : 1);
}

START_TEST(test_refused) {
        if (IS_SANITIZED)
                harness_skip("the sanitizers make processes");
        ck_assert_int_eq(end_of(SANDBOX_DAEMON, make_socket), 0);
        ck_assert_int_eq(end_of(SANDBOX_DAEMON, make_process), 0);
}
END_TEST

START_TEST(test_works) {
        ck_assert_int_eq(end_of(SANDBOX_DAEMON, make_thread), 0);
        ck_assert_int_eq(end_of(SANDBOX_DEPUTY, make_thread), 0);
        for (size_t i = 0; i < ARRAY_SIZE(sandboxes); i++)
                if (sandboxes[i].sandbox != SANDBOX_OPENER) /* which reads no file */
                        ck_assert_int_eq(end_of(sandboxes[i].sandbox, check_no_new_privs), 0);
}
END_TEST

/* ---- memory that is run ------------------------------------------------------------------------------------------------------ */

static void do_map(void) {
        (void)mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

static void do_protect(void) {
        void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        (void)mprotect(page, 4096, PROT_READ | PROT_EXEC);
}

START_TEST(test_memory) {
        if (IS_SANITIZED)
                harness_skip("the sanitizers map what they like");
        for (size_t i = 0; i < ARRAY_SIZE(sandboxes); i++) {
                ck_assert(is_stopped(end_of(sandboxes[i].sandbox, do_map)));
                ck_assert(is_stopped(end_of(sandboxes[i].sandbox, do_protect)));
        }
}
END_TEST

/* ---- threads ----------------------------------------------------------------------------------------------------------------- */

static int go[2];

static void *do_it_later(void *argument) {
        char byte;

        if (read(go[0], &byte, 1) == 1)
                do_mount();
        return argument;
}

/* One that was there before the filter was. */
START_TEST(test_older_thread) {
        pthread_t thread;
        pid_t child;
        int status;

        assert_system(pipe2(go, O_CLOEXEC) == 0, "pipe2");
        child = fork();
        if (child == 0) {
                if (pthread_create(&thread, NULL, do_it_later, NULL) != 0 || sandbox_enter(SANDBOX_DAEMON) < 0)
                        _exit(77);
                (void)!write(go[1], "", 1);
                (void)pthread_join(thread, NULL);
                _exit(0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        (void)close(go[0]);
        (void)close(go[1]);
        if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
                harness_skip("this kernel has no seccomp");
        ck_assert(is_stopped(status));
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("unit-sandbox"), "calls");

        tcase_add_loop_test(c, test_forbidden, 0, (int)(ARRAY_SIZE(forbidden) * ARRAY_SIZE(sandboxes)));
        tcase_add_test(c, test_refused);
        tcase_add_test(c, test_works);
        tcase_add_test(c, test_memory);
        tcase_add_test(c, test_older_thread);
        return harness_main(argc, argv);
}
