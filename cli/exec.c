/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "exec.h"

#include <errno.h>
#include <search.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "signals.h"

/* What the kernel takes as one argument, with its NUL (MAX_ARG_STRLEN in execve(2)). */
enum { COMMAND_BYTES_MAX = 128 * 1024 };

struct line {
        struct line *next;
        char text[];
};

struct exec {
        const char *command;
        struct line *first, **end; /* gathered, in the order of their coming */
        void *set;                 /* the same lines' texts, for tsearch(3) */
        bool failed;               /* a line could not be kept */
        pid_t pid;                 /* of the run that goes on; 0: none */
        int pidfd;
};

extern char **environ;

static int compare(const void *a, const void *b) {
        return strcmp(a, b);
}

struct exec *exec_new(const char *command) {
        struct exec *e = calloc(1, sizeof(*e));

        if (!e)
                return NULL;
        e->command = command;
        e->end = &e->first;
        e->pidfd = -1;
        return e;
}

static void drop_first(struct exec *e) {
        struct line *line = e->first;

        (void)tdelete(line->text, &e->set, compare);
        e->first = line->next;
        if (!e->first)
                e->end = &e->first;
        free(line);
}

struct exec *exec_free(struct exec *e) {
        if (!e)
                return NULL;
        while (e->first)
                drop_first(e);
        if (e->pidfd >= 0)
                (void)close(e->pidfd);
        free(e);
        return NULL;
}

void exec_gather(struct exec *e, const char *text) {
        size_t size = strlen(text) + 1;
        struct line *line;

        if (tfind(text, &e->set, compare))
                return;
        line = malloc(sizeof(*line) + size);
        if (!line) {
                e->failed = true;
                return;
        }
        line->next = NULL;
        memcpy(line->text, text, size);
        if (!tsearch(line->text, &e->set, compare)) {
                free(line);
                e->failed = true;
                return;
        }
        *e->end = line;
        e->end = &line->next;
}

int exec_fd(const struct exec *e) {
        return e->pidfd;
}

/* How often the command says `{}`. */
static size_t count_places(const char *command) {
        size_t n = 0;

        while ((command = strstr(command, "{}"))) {
                command += 2;
                n++;
        }
        return n;
}

/* Moves lines into the run: all, or as many as the command has room for, but at least one. */
static void take_lines(struct exec *e, struct text *input, struct text *words) {
        size_t places = count_places(e->command), fixed = strlen(e->command) + 1;

        while (e->first) {
                size_t before = words->size;

                text_puts(words, before > 0 ? " " : "");
                text_puts_quoted(words, e->first->text);
                if (before > 0 && places > 0 && fixed + places * words->size > COMMAND_BYTES_MAX) {
                        words->size = before;
                        words->data[before] = 0;
                        return;
                }
                text_puts(input, e->first->text);
                text_puts(input, "\n");
                drop_first(e);
        }
}

static void put_command(struct text *out, const char *command, const char *words) {
        const char *place;

        for (; (place = strstr(command, "{}")); command = place + 2) {
                text_put(out, command, (size_t)(place - command));
                text_puts(out, words);
        }
        text_puts(out, command);
}

/* A file in memory, not a pipe: a command that doesn't read can't make us wait. */
static int open_input(const struct text *input) {
        int fd = memfd_create("kev-paths", MFD_CLOEXEC);

        if (fd < 0)
                return -errno;
        for (size_t written = 0; written < input->size;) {
                ssize_t n = write(fd, input->data + written, input->size - written);

                if (n < 0 && errno != EINTR) {
                        int error = errno;

                        (void)close(fd);
                        return -error;
                }
                written += n < 0 ? 0 : (size_t)n;
        }
        (void)lseek(fd, 0, SEEK_SET);
        return fd;
}

static int spawn(char *command, int input, pid_t *ret_pid) {
        char shell[] = "sh", option[] = "-c", end_of_options[] = "--";
        char *argv[] = { shell, option, end_of_options, command, NULL };
        posix_spawn_file_actions_t actions;
        posix_spawnattr_t attributes;
        sigset_t by_default;
        int r;

        /* main() ignores SIGPIPE; the command is not to inherit that. */
        (void)sigemptyset(&by_default);
        (void)sigaddset(&by_default, SIGPIPE);
        (void)posix_spawnattr_init(&attributes);
        (void)posix_spawnattr_setsigdefault(&attributes, &by_default);
        (void)posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
        (void)posix_spawn_file_actions_init(&actions);
        r = posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
        if (r == 0)
                r = posix_spawn(ret_pid, "/bin/sh", &actions, &attributes, argv, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
        (void)posix_spawnattr_destroy(&attributes);
        return -r;
}

static int start_with(struct exec *e, char *command, const struct text *input) {
        int fd = open_input(input), r;

        if (fd < 0)
                return fd;
        r = spawn(command, fd, &e->pid);
        (void)close(fd);
        if (r < 0) {
                e->pid = 0;
                return r;
        }
        e->pidfd = pidfd_open(e->pid, 0);
        return e->pidfd < 0 ? -errno : 0;
}

static int start(struct exec *e) {
        struct text input = { 0 }, words = { 0 }, command = { 0 };
        int r = -ENOMEM;

        take_lines(e, &input, &words);
        put_command(&command, e->command, words.data);
        if (!e->failed && !input.failed && !words.failed && !command.failed)
                r = start_with(e, command.data, &input);
        text_free(&input);
        text_free(&words);
        text_free(&command);
        return r;
}

static void reap(struct exec *e, int flags) {
        pid_t r;

        do
                r = e->pid ? waitpid(e->pid, NULL, flags) : 0;
        while (r < 0 && errno == EINTR);
        if (r == 0)
                return;
        e->pid = 0;
        (void)close(e->pidfd);
        e->pidfd = -1;
}

int exec_turn(struct exec *e) {
        reap(e, WNOHANG);
        if (e->failed)
                return -ENOMEM;
        return e->pid == 0 && e->first ? start(e) : 0;
}

int exec_finish(struct exec *e) {
        while (!signals_caught()) {
                struct pollfd fd = { .events = POLLIN };
                int r = exec_turn(e);

                if (r < 0 || e->pid == 0)
                        return r;
                fd.fd = e->pidfd;
                (void)signals_poll(&fd, 1, -1);
        }
        /* A terminal's signals go to the command too; this one came to us alone. */
        if (e->pid && signals_caught() == SIGTERM)
                (void)kill(e->pid, SIGTERM);
        reap(e, 0);
        return 0;
}
