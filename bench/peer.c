/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The programs of others: how they are started, how they say that they watch,
 * and reading what they write. README.md says why with these options.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "watcher-class.h"

enum {
        NAME_LENGTH = 5 + 8, /* watcher_file_name() */
        START_SEC = 10,
        DESCRIPTORS_MAX = 1048576, /* fs.nr_open, as it comes */
        IN_FORCE_SEC = 300,
};

/* Prints the path of whatever changes, as the others do, with the least that watchdog permits. */
static const char watchdog_script[] =
        "import os, sys\n"
        "from watchdog.observers import Observer\n"
        "from watchdog.events import FileSystemEventHandler\n"
        "class Handler(FileSystemEventHandler):\n"
        "    def on_any_event(self, event):\n"
        "        os.write(1, os.fsencode(event.src_path) + b'\\n')\n"
        "observer = Observer()\n"
        "observer.schedule(Handler(), sys.argv[1], recursive=True)\n"
        "observer.start()\n"
        "observer.join()\n";

/* In the child. */
static _Noreturn void become_peer(const struct watcher *w, const char *const *arguments, int out, int err,
                                  pid_t parent) {
        char *log _cleanup_(freep) = bench_path(w->bench, "peer.log");
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        struct rlimit limit = { DESCRIPTORS_MAX, DESCRIPTORS_MAX };

        if (out < 0)
                out = null;
        if (err < 0)
                err = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
        if (null < 0 || err < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
            dup2(err, STDERR_FILENO) < 0 || prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
                _exit(126);
        if (getppid() != parent)
                _exit(126);
        /* fsnotifywait holds descriptors of each directory. */
        if (setrlimit(RLIMIT_NOFILE, &limit) < 0 && getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE, &limit);
        }
        (void)execv(arguments[0], (char *const *)(uintptr_t)arguments);
        _exit(127);
}

/* What it writes goes into pipes, to be read from w->fd and w->errors_fd. */
static void start(struct watcher *w, const char *const *arguments, bool has_output, bool has_errors) {
        int out[2] = { -1, -1 }, err[2] = { -1, -1 };
        pid_t parent = getpid();

        bench_check_system(!has_output || pipe2(out, O_CLOEXEC) == 0, "pipe");
        bench_check_system(!has_errors || pipe2(err, O_CLOEXEC) == 0, "pipe");
        w->pid = fork();
        bench_check_system(w->pid >= 0, "fork");
        if (w->pid == 0)
                become_peer(w, arguments, out[1], err[1], parent);
        (void)safe_close(out[1]);
        (void)safe_close(err[1]);
        w->fd = out[0];
        w->errors_fd = err[0];
        if (w->fd >= 0)
                (void)fcntl(w->fd, F_SETFL, O_NONBLOCK);
}

void peer_explain(const struct watcher *w) {
        char *path _cleanup_(freep) = bench_path(w->bench, "peer.log"), line[256];
        FILE *log = fopen(path, "re");
        siginfo_t end = { 0 };

        while (log && fgets(line, sizeof(line), log))
                printf("left out: %s says: %s", watcher_name(w->kind), line);
        if (log)
                (void)fclose(log);
        if (w->pid > 0 && waitid(P_PID, (id_t)w->pid, &end, WEXITED | WNOHANG | WNOWAIT) == 0 && end.si_pid == w->pid)
                printf("left out: %s ended with %s %d\n", watcher_name(w->kind),
                       end.si_code == CLD_EXITED ? "status" : "signal", end.si_status);
}

/* Reads until `text` has come. False, and what came instead: it ended, or the time was up. */
static bool wait_for_text(const struct watcher *w, int fd, const char *text, int seconds) {
        uint64_t deadline = now_nsec() + (uint64_t)seconds * NSEC_PER_SEC;
        char buffer[4096] = "";
        size_t size = 0;

        for (uint64_t now = now_nsec(); now < deadline; now = now_nsec()) {
                struct pollfd ready = { .fd = fd, .events = POLLIN };
                ssize_t n;

                if (poll(&ready, 1, (int)((deadline - now) / NSEC_PER_MSEC) + 1) <= 0)
                        continue;
                n = read(fd, buffer + size, sizeof(buffer) - 1 - size);
                if (n == 0 || (n < 0 && errno != EAGAIN))
                        break;
                size += n > 0 ? (size_t)n : 0;
                buffer[size] = 0;
                if (strstr(buffer, text))
                        return true;
                if (size > sizeof(buffer) / 2) { /* the text may have begun */
                        memmove(buffer, buffer + size - strlen(text), strlen(text));
                        size = strlen(text);
                        buffer[size] = 0;
                }
        }
        if (size > 0 && buffer[size - 1] == '\n')
                buffer[size - 1] = 0;
        if (size > 0)
                printf("left out: %s says: %s\n", watcher_name(w->kind), buffer);
        return false;
}

/* ---- inotify-tools -------------------------------------------------------------------------- */

bool peer_attach_inotifywait(struct watcher *w, const char *tree) {
        const struct watcher_class *class = &watcher_classes[w->kind];
        const char *events = w->events == WATCHER_CONTENT ?
                "create,modify" : "create,delete,move,modify,close_write,attrib,delete_self,move_self";
        const char *arguments[] = { class->path, "-m", class->argument, "-e", events, "--format", "%w%f", tree, NULL };

        /* fanotify has no such events of a whole file system */
        if (w->kind == WATCHER_FSNOTIFYWAIT_SYSTEM && w->events == WATCHER_CHANGES)
                arguments[4] = "create,delete,move,modify,close_write,attrib";
        start(w, arguments, true, true);
        return wait_for_text(w, w->errors_fd, "Watches established.", IN_FORCE_SEC);
}

/* ---- fswatch, watchdog ---------------------------------------------------------------------- */

bool peer_attach_fswatch(struct watcher *w, const char *tree) {
        const struct watcher_class *class = &watcher_classes[w->kind];
        /* -d: watches on directories alone, which tell what happens in them; else there is one on each file, too.
         * It watches how directories are read, by itself as well, and would end when that is too much. */
        const char *const arguments[] = { class->path, "-r", "-d", "--allow-overflow", "-l", class->argument, tree,
                                          NULL };

        start(w, arguments, true, false);
        return true;
}

bool peer_attach_watchdog(struct watcher *w, const char *tree) {
        const char *const arguments[] = { "/usr/bin/python3", "-c", watchdog_script, tree, NULL };

        start(w, arguments, true, false);
        return true;
}

/* ---- watchman ------------------------------------------------------------------------------- */

static bool connect_watchman(struct watcher *w, const char *socket_path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        uint64_t deadline = now_nsec() + START_SEC * NSEC_PER_SEC;

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
        w->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bench_check_system(w->fd >= 0, "socket");
        while (connect(w->fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
                if (waitpid(w->pid, NULL, WNOHANG) != 0) {
                        w->pid = 0;
                        return false;
                }
                if (now_nsec() > deadline)
                        return false;
                sleep_msec(2); /* nothing tells when a socket begins to listen */
        }
        return fcntl(w->fd, F_SETFL, O_NONBLOCK) == 0;
}

static bool ask_watchman(struct watcher *w, const char *request, const char *answer) {
        return write(w->fd, request, strlen(request)) == (ssize_t)strlen(request) &&
               wait_for_text(w, w->fd, answer, IN_FORCE_SEC);
}

bool peer_prepare_watchman(struct watcher *w, bool is_new _unused_) {
        const struct watcher_class *class = &watcher_classes[w->kind];
        char *directory _cleanup_(freep) = bench_path(w->bench, "watchman");
        char *config _cleanup_(freep) = bench_path(w->bench, "watchman/config");
        char *socket_path _cleanup_(freep) = bench_path(w->bench, "watchman/socket");
        char *log _cleanup_(freep) = bench_path(w->bench, "watchman/log");
        char *pid_file _cleanup_(freep) = bench_path(w->bench, "watchman/pid");
        char *state _cleanup_(freep) = bench_path(w->bench, "watchman/state");
        const char *const arguments[] = { class->path, "--foreground", "--no-save-state", "-U", socket_path, "-o", log,
                                          "--pidfile", pid_file, "--statefile", state, NULL };
        FILE *file;

        tree_remove(directory);
        bench_check_system(mkdir(directory, 0700) == 0, directory);
        file = fopen(config, "we");
        bench_check_system(file && fprintf(file, "{\"settle\": %s}\n", class->argument) > 0 && fclose(file) == 0,
                           config);
        (void)setenv("WATCHMAN_CONFIG_FILE", config, 1);
        start(w, arguments, false, false);
        if (connect_watchman(w, socket_path) && ask_watchman(w, "[\"version\"]\n", "}\n"))
                return true;
        printf("left out: %s: its server doesn't answer\n", class->name);
        return false;
}

bool peer_attach_watchman(struct watcher *w, const char *tree) {
        char request[512];

        (void)snprintf(request, sizeof(request), "[\"watch\", \"%s\"]\n", tree);
        if (!ask_watchman(w, request, "}\n"))
                return false;
        /* This is answered when the tree was walked, and what had happened before has been seen. */
        (void)snprintf(request, sizeof(request), "[\"clock\", \"%s\", {\"sync_timeout\": %d}]\n", tree,
                       IN_FORCE_SEC * 1000);
        if (!ask_watchman(w, request, "\"clock\":\""))
                return false;
        (void)snprintf(request, sizeof(request),
                       "[\"subscribe\", \"%s\", \"bench\", "
                       "{\"fields\": [\"name\"], \"empty_on_fresh_instance\": true}]\n", tree);
        return ask_watchman(w, request, "\"subscribe\":\"bench\"");
}

/* ---- all of them ---------------------------------------------------------------------------- */

/* Tells the numbers of the names in what has come, and keeps what may be the beginning of one. */
static void take(struct watcher *w) {
        const char *p = w->buffer, *end = w->buffer + w->size, *name;

        while ((name = memmem(p, (size_t)(end - p), "kevd-", 5)) && name + NAME_LENGTH <= end) {
                p = name + NAME_LENGTH;
                if (name[5] < '0' || name[5] > '9') { /* the benchmark's directory, in a path */
                        p = name + 5;
                        continue;
                }
                w->n_read++;
                w->told(strtoull(name + 5, NULL, 10), w->userdata);
        }
        if (end - p > NAME_LENGTH - 1)
                p = end - (NAME_LENGTH - 1);
        w->size = (size_t)(end - p);
        memmove(w->buffer, p, w->size);
}

bool peer_read(struct watcher *w, int timeout_msec) {
        struct pollfd ready = { .fd = w->fd, .events = POLLIN };
        ssize_t size;

        if (poll(&ready, 1, timeout_msec) <= 0)
                return false;
        size = read(w->fd, w->buffer + w->size, WATCHER_BUFFER - w->size);
        if (size < 0 && errno == EAGAIN)
                return false;
        if (size <= 0) { /* it has ended, and tells nothing any more */
                w->fd = safe_close(w->fd);
                return false;
        }
        for (const char *p = w->buffer + w->size, *end = p + size; (p = memchr(p, '\n', (size_t)(end - p))); p++)
                w->n_events++;
        w->size += (size_t)size;
        take(w);
        return true;
}

void peer_end(struct watcher *w) {
        if (w->pid > 0) {
                (void)kill(w->pid, SIGKILL);
                (void)waitpid(w->pid, NULL, 0);
        }
        w->pid = 0;
        w->fd = safe_close(w->fd);
        w->errors_fd = safe_close(w->errors_fd);
}
