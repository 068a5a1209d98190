/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Starting a kevd for one connection: it serves what it finds as its standard
 * input, and ends when that does.
 *
 * The program must not notice that it has a child. So kevd is a grandchild, and
 * the child in between, which ends at once, is made by clone() without a
 * signal: SIGCHLD is not sent for it, and wait() doesn't find it, whatever the
 * program does about its own children.
 *
 * That leaves kevd an orphan, which goes to the nearest subreaper, or to
 * process 1. Where the program is that itself, kevd becomes its child after
 * all: wait() finds it, and SIGCHLD is sent at its end. Nothing here can help
 * that: exec makes SIGCHLD the signal at the end again, so kevd can't be a
 * silent child, and a silent one that stays in between, without exec, would
 * hold on to the program's memory. Nor is kevd reaped by kev_close(): it would
 * have to wait for kevd's end, and the program sees both all the same. Who
 * inherits orphans reaps them.
 *
 * The program may have threads: between clone() and exec only what is
 * async-signal-safe is called, and nothing that allocates. Whatever else is
 * needed is made before.
 */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <linux/close_range.h>

#include "config.h"
#include "internal.h"

struct start {
        char *paths; /* to try in turn, each with its NUL; an empty one is the end */
        int socket;  /* kevd's end */
        int null;    /* /dev/null */
        int report;  /* where an errno goes if there is no kevd; closed by exec */
};

/* ---- in the child and the grandchild ------------------------------------------ */

static _Noreturn void give_up(const struct start *start, int error) {
        (void)!write(start->report, &error, sizeof(error));
        _exit(1);
}

/* A fork without a signal at its end, and without the handlers of
 * pthread_atfork(). A debugger would take such a child for a thread of the
 * program: it doesn't get to see it. */
static pid_t fork_silently(void) {
#ifdef __s390__
        return (pid_t)syscall(SYS_clone, 0, CLONE_UNTRACED, 0, 0, 0); /* the stack comes first there */
#else
        return (pid_t)syscall(SYS_clone, CLONE_UNTRACED, 0, 0, 0, 0);
#endif
}

/* Signals as a program expects to find them. What is caught exec resets. */
static void reset_signals(void) {
        struct sigaction action = { .sa_handler = SIG_DFL };
        sigset_t none;

        for (int i = 1; i < NSIG; i++)
                (void)sigaction(i, &action, NULL); /* not for SIGKILL and SIGSTOP, and the C library's own */
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Standard input, output and error; nothing else stays open. */
static int arrange_descriptors(const struct start *start) {
        if (dup2(start->socket, STDIN_FILENO) < 0 || dup2(start->null, STDOUT_FILENO) < 0)
                return -errno;
        if (fcntl(STDERR_FILENO, F_GETFD) < 0 && dup2(start->null, STDERR_FILENO) < 0)
                return -errno;
        return syscall(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC) < 0 ? -errno : 0;
}

static _Noreturn void become_kevd(const struct start *start) {
        char name[] = "kevd", mode[] = "--mode=private";
        char *const arguments[] = { name, mode, NULL };
        int error = ENOENT, r;

        (void)setsid();
        r = arrange_descriptors(start);
        if (r < 0)
                give_up(start, -r);
        reset_signals();
        for (const char *path = start->paths; path[0]; path += strlen(path) + 1) {
                (void)execv(path, arguments);
                if (errno != ENOENT && errno != ENOTDIR && errno != EACCES)
                        give_up(start, errno);
                if (errno == EACCES)
                        error = EACCES; /* there is one, at least */
        }
        give_up(start, error);
}

/* ---- in the program -------------------------------------------------------------- */

/* Descriptors 0 to 2 are the standard ones, also where the program closed them. */
static int lift(int *fd) {
        int lifted;

        if (*fd < 0)
                return -errno;
        if (*fd > STDERR_FILENO)
                return 0;
        lifted = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        if (lifted < 0)
                return -errno;
        (void)safe_close(*fd);
        *fd = lifted;
        return 0;
}

/* $KEVD alone; or where kevd was installed, and then where the shell finds it.
 * Neither variable counts in a setuid program. */
static int list_paths(struct buffer *paths) {
        const char *kevd = secure_getenv("KEVD"), *directories = kevd ? NULL : secure_getenv("PATH");

        buffer_put_string(paths, kevd ? kevd : KEVD_PATH);
        buffer_put(paths, "", 1);
        while (directories && directories[0]) {
                size_t size = strcspn(directories, ":");

                if (size > 0) {
                        buffer_put(paths, directories, size);
                        buffer_put_literal(paths, "/kevd\0");
                }
                directories += size + (directories[size] == ':');
        }
        buffer_put(paths, "", 1);
        return paths->error;
}

/* Starts the child, and waits until it has made the grandchild. No handler of
 * the program's may run in either. */
static int fork_twice(const struct start *start) {
        sigset_t all, before;
        pid_t child;
        int r;

        (void)sigfillset(&all);
        r = pthread_sigmask(SIG_SETMASK, &all, &before);
        if (r != 0)
                return -r;
        child = fork_silently();
        r = child < 0 ? -errno : 0;
        if (child == 0) {
                pid_t grandchild = fork_silently();

                if (grandchild == 0)
                        become_kevd(start);
                if (grandchild < 0)
                        give_up(start, errno);
                _exit(0);
        }
        while (child > 0 && waitpid(child, NULL, __WCLONE) < 0 && errno == EINTR)
                ;
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        return r;
}

/* 0 once exec has closed the pipe, or what went wrong before it. */
static int read_report(int fd) {
        int error = 0;
        ssize_t n;

        do
                n = read(fd, &error, sizeof(error));
        while (n < 0 && errno == EINTR);
        return n < 0 ? -errno : -error;
}

static int make_descriptors(int sockets[2], int pipes[2], int *null) {
        int r;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) < 0 || pipe2(pipes, O_CLOEXEC) < 0)
                return -errno;
        *null = open("/dev/null", O_RDWR | O_CLOEXEC);
        r = lift(null);
        for (size_t i = 0; r == 0 && i < 2; i++) {
                r = lift(&sockets[i]);
                if (r == 0)
                        r = lift(&pipes[i]);
        }
        return r;
}

static int start_kevd(char *paths, int *ret_fd) {
        int ours _cleanup_(closep) = -1, report _cleanup_(closep) = -1;
        int sockets[2] = { -1, -1 }, pipes[2] = { -1, -1 }, null = -1;
        int r;

        r = make_descriptors(sockets, pipes, &null);
        if (r == 0)
                r = fork_twice(&(struct start){ paths, sockets[1], null, pipes[1] });
        if (r < 0)
                (void)error_set(NULL, r, "Can't make a process for kevd: %s", error_text(r));
        ours = sockets[0];
        report = pipes[0];
        (void)safe_close(sockets[1]);
        (void)safe_close(pipes[1]);
        (void)safe_close(null);
        if (r < 0)
                return r;
        r = read_report(report);
        if (r == -ENOENT)
                return error_set(NULL, r, "No kevd found: tried %s%s", paths,
                                 secure_getenv("KEVD") ? ", from $KEVD" : ", then the directories in $PATH");
        if (r < 0)
                return error_set(NULL, r, "Can't start %s: %s", paths, error_text(r));
        *ret_fd = take_fd(&ours);
        return 0;
}

int private_open(int *ret_fd) {
        struct buffer paths _cleanup_(buffer_free) = BUFFER_INIT;

        if (list_paths(&paths) < 0)
                return error_set(NULL, -ENOMEM, "There is no memory for the places where kevd may be");
        return start_kevd(paths.data, ret_fd);
}
