/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "manager.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "macro.h"

enum { STORE_MAX = 2048, OPTIONS_MAX = 16, MANAGER_MSEC = 20000, FIRST_FD = 3 };

struct stored {
        char name[256];
        int fd;
};

struct manager {
        char socket[108], notify[108], log[108];
        char *options[OPTIONS_MAX];
        size_t n_options;
        int listen_fd, notify_fd;
        pid_t pid; /* 0: none runs */
        int pidfd;
        bool is_ready, is_deaf; /* deaf: to what is to be removed */
        struct stored store[STORE_MAX]; /* in the order in which it came */
        size_t n_stored;
};

/* ---- what the daemon says ------------------------------------------------------------ */

static struct stored *find(const struct manager *m, const char *name) {
        for (size_t i = 0; i < m->n_stored; i++)
                if (strcmp(m->store[i].name, name) == 0)
                        return (struct stored *)&m->store[i];
        return NULL;
}

/* The rest keeps its order. */
static void drop(struct manager *m, struct stored *stored) {
        (void)close(stored->fd);
        memmove(stored, stored + 1, (size_t)(&m->store[m->n_stored] - (stored + 1)) * sizeof(*stored));
        m->n_stored--;
}

/* As systemd does: what is there already stays under the name that it has. */
static bool is_stored(const struct manager *m, int fd) {
        for (size_t i = 0; i < m->n_stored; i++)
                if (syscall(SYS_kcmp, getpid(), getpid(), KCMP_FILE, (long)fd, (long)m->store[i].fd) == 0)
                        return true;
        return false;
}

static void store(struct manager *m, const char *name, int fd) {
        if (is_stored(m, fd)) {
                (void)close(fd);
                return;
        }
        ck_assert_int_lt((int)m->n_stored, STORE_MAX);
        (void)snprintf(m->store[m->n_stored].name, sizeof(m->store[0].name), "%s", name);
        m->store[m->n_stored++].fd = fd;
}

static void on_message(struct manager *m, char *text, int fd) {
        bool stores = false, removes = false, polls = true;
        const char *name = "stored";
        char *state = NULL;

        for (char *line = strtok_r(text, "\n", &state); line; line = strtok_r(NULL, "\n", &state)) {
                m->is_ready |= strcmp(line, "READY=1") == 0;
                stores |= strcmp(line, "FDSTORE=1") == 0;
                removes |= strcmp(line, "FDSTOREREMOVE=1") == 0;
                polls &= strcmp(line, "FDPOLL=0") != 0;
                if (strncmp(line, "FDNAME=", 7) == 0)
                        name = line + 7;
        }
        while (removes && !m->is_deaf && find(m, name))
                drop(m, find(m, name));
        if (stores) {
                ck_assert_msg(fd >= 0, "%s: nothing to be stored", name);
                ck_assert_msg(!polls, "%s: a socket that hangs up would leave the store", name);
                store(m, name, fd);
        } else if (fd >= 0) /* BARRIER=1: closing it is the answer */
                (void)close(fd);
}

/* One message. False: there was none in that time, or the daemon has ended. */
static bool hear(struct manager *m, int timeout_msec) {
        struct pollfd p[] = { { .fd = m->notify_fd, .events = POLLIN }, { .fd = m->pidfd, .events = POLLIN } };
        char text[4096];
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control;
        struct iovec part = { text, sizeof(text) - 1 };
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
        };
        const struct cmsghdr *header;
        ssize_t size;
        int fd = -1;

        if (poll(p, ARRAY_SIZE(p), timeout_msec) <= 0 || !p[0].revents)
                return false;
        size = recvmsg(m->notify_fd, &message, MSG_CMSG_CLOEXEC);
        assert_system(size >= 0, "recvmsg");
        text[size] = 0;
        header = CMSG_FIRSTHDR(&message);
        if (header && header->cmsg_type == SCM_RIGHTS)
                memcpy(&fd, CMSG_DATA(header), sizeof(fd));
        on_message(m, text, fd);
        return true;
}

/* ---- running it ------------------------------------------------------------------------ */

/* In the child: the descriptors have to be 3, 4, ..., wherever they lie now. Of the store the newest is the first. */
static void place_fds(const struct manager *m, char *names, size_t size) {
        size_t n = m->n_stored + 1;
        int above = FIRST_FD + (int)n;
        int *fds = calloc(n, sizeof(*fds));

        names[0] = 0;
        for (size_t i = 0; i < n; i++) {
                fds[i] = fcntl(i == 0 ? m->listen_fd : m->store[n - 1 - i].fd, F_DUPFD, above + 64);
                (void)snprintf(names + strlen(names), size - strlen(names), "%s%s", i > 0 ? ":" : "",
                               i == 0 ? "kevd.socket" : m->store[n - 1 - i].name);
        }
        for (size_t i = 0; i < n; i++)
                (void)dup2(fds[i], FIRST_FD + (int)i);
        free(fds);
        (void)close_range((unsigned)above, ~0U, 0);
}

static void run(const struct manager *m, pid_t parent) __attribute__((noreturn));
static void run(const struct manager *m, pid_t parent) {
        int log = open(m->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
        char *arguments[OPTIONS_MAX + 3] = { getenv("KEVD"), (char *)"--mode=user" };
        static char names[STORE_MAX * 16];
        char number[32];

        (void)dup2(log, STDOUT_FILENO);
        (void)dup2(log, STDERR_FILENO);
        memcpy(&arguments[2], m->options, m->n_options * sizeof(char *));
        place_fds(m, names, sizeof(names));
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)setenv("NOTIFY_SOCKET", m->notify, 1);
        (void)snprintf(number, sizeof(number), "%d", STORE_MAX);
        (void)setenv("FDSTORE", number, 1);
        (void)snprintf(number, sizeof(number), "%d", (int)getpid());
        (void)setenv("LISTEN_PID", number, 1);
        (void)snprintf(number, sizeof(number), "%zu", m->n_stored + 1);
        (void)setenv("LISTEN_FDS", number, 1);
        (void)setenv("LISTEN_FDNAMES", names, 1);
        if (getppid() == parent)
                (void)execv(arguments[0], arguments);
        _exit(126);
}

void manager_start(struct manager *m) {
        int64_t deadline = now_msec() + MANAGER_MSEC;
        pid_t parent = getpid();

        m->is_ready = false;
        m->pid = fork();
        assert_system(m->pid >= 0, "fork");
        if (m->pid == 0)
                run(m, parent);
        m->pidfd = pidfd_open(m->pid, 0);
        assert_system(m->pidfd >= 0, "pidfd_open");
        while (!m->is_ready)
                ck_assert_msg(hear(m, (int)MAX(deadline - now_msec(), 0)), "kevd was not ready");
}

static void wait_for_end(struct manager *m, int *ret_status) {
        ck_assert_int_eq(waitpid(m->pid, ret_status, 0), m->pid);
        m->pid = 0;
        m->pidfd = safe_close(m->pidfd);
}

static void await_end(struct manager *m, bool hears, int expected) {
        int64_t deadline = now_msec() + MANAGER_MSEC;
        struct pollfd end = { .fd = m->pidfd, .events = POLLIN };
        int status;

        while (poll(&end, 1, hears ? 0 : MANAGER_MSEC) == 0) {
                if (hears)
                        (void)hear(m, (int)MAX(deadline - now_msec(), 0));
                ck_assert_msg(now_msec() < deadline, "kevd still ran after %d ms", MANAGER_MSEC);
        }
        wait_for_end(m, &status);
        while (hear(m, 0))
                ;
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == expected, "kevd ended with the status %x", (unsigned)status);
}

static void stop(struct manager *m, bool hears) {
        assert_system(kill(m->pid, SIGTERM) == 0, "kill");
        await_end(m, hears, EXIT_SUCCESS);
}

void manager_wait_failed(struct manager *m) {
        await_end(m, true, EXIT_FAILURE);
}

void manager_stop(struct manager *m) {
        stop(m, true);
}

void manager_stop_unheard(struct manager *m) {
        stop(m, false);
}

void manager_kill(struct manager *m) {
        int status;

        assert_system(kill(m->pid, SIGKILL) == 0, "kill");
        wait_for_end(m, &status);
        while (hear(m, 0))
                ;
}

/* ---- the store ---------------------------------------------------------------------------- */

void manager_wait_stored(struct manager *m, size_t n) {
        int64_t deadline = now_msec() + MANAGER_MSEC;

        while (m->n_stored != n)
                ck_assert_msg(hear(m, (int)MAX(deadline - now_msec(), 0)), "%zu are stored, not %zu", m->n_stored, n);
}

size_t manager_n_stored(const struct manager *m) {
        return m->n_stored;
}

bool manager_has_stored(const struct manager *m, const char *name) {
        return find(m, name);
}

void manager_drop(struct manager *m, const char *name) {
        while (name ? find(m, name) != NULL : m->n_stored > 0)
                drop(m, name ? find(m, name) : &m->store[0]);
}

void manager_replace(struct manager *m, const char *name, int fd) {
        manager_drop(m, name);
        store(m, name, fd);
}

void manager_ignore_removals(struct manager *m) {
        m->is_deaf = true;
}

void manager_reload(struct manager *m) {
        for (size_t i = 0; i < m->n_stored / 2; i++) {
                struct stored stored = m->store[i];

                m->store[i] = m->store[m->n_stored - 1 - i];
                m->store[m->n_stored - 1 - i] = stored;
        }
}

int manager_take_copy(const struct manager *m, const char *name) {
        const struct stored *stored = find(m, name);
        int fd;

        ck_assert_msg(stored, "nothing is stored as %s", name);
        fd = fcntl(stored->fd, F_DUPFD_CLOEXEC, FIRST_FD);
        assert_system(fd >= 0, "fcntl");
        return fd;
}

/* ---- the manager ---------------------------------------------------------------------------- */

static int bind_at(const char *path, int type) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, type | SOCK_CLOEXEC, 0);

        assert_system(fd >= 0, "socket");
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        assert_system(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0, path);
        return fd;
}

struct manager *manager_new(const char *const *options) {
        struct manager *m = calloc(1, sizeof(*m));

        ck_assert_ptr_nonnull(m);
        (void)snprintf(m->socket, sizeof(m->socket), "%s/socket", harness_tempdir());
        (void)snprintf(m->notify, sizeof(m->notify), "%s/notify", harness_tempdir());
        (void)snprintf(m->log, sizeof(m->log), "%s/kevd-manager.log", harness_tempdir());
        for (; options[m->n_options]; m->n_options++) {
                ck_assert_int_lt((int)m->n_options, OPTIONS_MAX);
                m->options[m->n_options] = strdup(options[m->n_options]);
        }
        m->pidfd = -1;
        m->notify_fd = bind_at(m->notify, SOCK_DGRAM);
        m->listen_fd = bind_at(m->socket, SOCK_STREAM);
        assert_system(listen(m->listen_fd, SOMAXCONN) == 0, "listen");
        return m;
}

void manager_free(struct manager *m) {
        if (m->pid > 0)
                manager_kill(m);
        manager_drop(m, NULL);
        (void)close(m->listen_fd);
        (void)close(m->notify_fd);
        for (size_t i = 0; i < m->n_options; i++)
                free(m->options[i]);
        free(m);
}

const char *manager_socket(const struct manager *m) {
        return m->socket;
}

pid_t manager_pid(const struct manager *m) {
        return m->pid;
}
