/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "processes.h"

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "macro.h"

uid_t processes_user;

/* Before the first fork, so that all processes of a test have the same. */
__attribute__((constructor)) static void choose_users(void) {
        processes_user = 100000 + 2 * (uid_t)getpid();
}

/* ---- the daemon -------------------------------------------------------------------------------------------------- */

void need_feed_at(const char *socket) {
        int fd = client_connect(socket);
        struct json_object *reply = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        struct json_object *sources = json_at(reply, "/parameters/sources");
        bool found = false;

        for (size_t i = 0; i < json_object_array_length(sources); i++) {
                struct json_object *source = json_object_array_get_idx(sources, i);

                if (strcmp(text_at(source, "/name"), "processes") != 0)
                        continue;
                found = true;
                if (strcmp(text_at(source, "/mechanism"), "none") == 0)
                        harness_skip(text_at(source, "/reason"));
        }
        ck_assert_msg(found, "no source of processes in %s", json_object_to_json_string(reply));
        json_object_put(reply);
        (void)close(fd);
}

struct daemon *start_following(const char *option) {
        struct daemon *daemon;

        if (geteuid() != 0)
                harness_skip("takes root, who may follow all processes and become other users");
        ck_assert_int_eq(setenv("KEVD_PROCESS_FEED", "connector", false), 0); /* or as the harness has it */
        assert_system(chmod(harness_tempdir(), 0711) == 0, harness_tempdir());
        daemon = option ? daemon_start("--mode=system", option) : daemon_start("--mode=system");
        assert_system(chmod(daemon->socket, 0666) == 0, daemon->socket);
        need_feed_at(daemon->socket);
        return daemon;
}

static bool can_tell_uid(const struct daemon *daemon) {
        int fd = client_connect(daemon->socket);
        struct json_object *reply = client_call(
                fd, "org.kevd.events.Change", "{\"add\":[{\"filter\":\"proc\",\"id\":1,\"match\":{},\"notes\":[\"uid\"]}]}");
        bool can = !json_at(reply, "/parameters/refused/0");

        if (!can)
                ck_assert_msg(strstr(text_at(reply, "/parameters/refused/0/message"), "\"uid\" can't be told by the feed"),
                              "%s", json_object_to_json_string(reply));
        json_object_put(reply);
        (void)close(fd);
        return can;
}

const char *uid_note(const struct daemon *daemon) {
        return can_tell_uid(daemon) ? ",'uid'" : "";
}

void need_uid_note(const struct daemon *daemon) {
        if (!can_tell_uid(daemon))
                harness_skip("this feed can't tell on this kernel when user ids change");
}

int storm_size(int usual) {
        const char *size = getenv("KEVD_STORM_PROCESSES");

        return size ? atoi(size) : harness_rounds(usual);
}

int64_t count_forks(void) {
        FILE *file = fopen("/proc/stat", "re");
        char *line = NULL;
        size_t capacity = 0;
        int64_t n = -1;

        ck_assert_ptr_nonnull(file);
        while (n < 0 && getline(&line, &capacity, file) >= 0)
                if (strncmp(line, "processes ", 10) == 0)
                        n = strtoll(line + 10, NULL, 10);
        free(line);
        (void)fclose(file);
        ck_assert_int_ge(n, 0);
        return n;
}

/* In clock ticks; 0: there is no such process. */
static unsigned long long start_of(long pid) {
        unsigned long long start = 0;
        char path[64], line[1024], *end;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%ld/stat", pid);
        file = fopen(path, "re");
        if (!file)
                return 0;
        if (fgets(line, sizeof(line), file) && (end = strrchr(line, ')')))
                (void)sscanf(end, ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &start);
        (void)fclose(file);
        return start;
}

/* Whether that pidfd is of a process that was there before the daemon: of one whose first thread has ended it has one,
 * whoever's that is. */
static bool is_older(const struct daemon *daemon, const char *fd) {
        unsigned long long start = 0;
        char path[320], line[256];
        long pid;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/fdinfo/%s", (int)daemon->pid, fd);
        file = fopen(path, "re");
        while (file && fgets(line, sizeof(line), file))
                if (sscanf(line, "Pid: %ld", &pid) == 1 && pid > 0)
                        start = start_of(pid);
        if (file)
                (void)fclose(file);
        return start > 0 && start < start_of(daemon->pid);
}

size_t count_pidfds(const struct daemon *daemon) {
        char path[64], link[256];
        struct dirent *entry;
        DIR *directory;
        size_t n = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)daemon->pid);
        directory = opendir(path);
        assert_system(directory, path);
        while ((entry = readdir(directory))) {
                ssize_t size = readlinkat(dirfd(directory), entry->d_name, link, sizeof(link) - 1);

                link[MAX(size, 0)] = 0;
                n += strstr(link, "pidfd") && !is_older(daemon, entry->d_name);
        }
        (void)closedir(directory);
        return n;
}

struct expected_pidfds {
        const struct daemon *daemon;
        size_t n;
};

static bool has_pidfds(void *userdata) {
        const struct expected_pidfds *expected = userdata;

        return count_pidfds(expected->daemon) == expected->n;
}

void expect_pidfds(const struct daemon *daemon, size_t n) {
        struct expected_pidfds expected = { daemon, n };

        ck_assert_msg(wait_until(has_pidfds, &expected, HARNESS_REPLY_MSEC), "%zu pidfds instead of %zu",
                      count_pidfds(daemon), n);
}

/* ---- the protocol ------------------------------------------------------------------------------------------------ */

static char message[512];

const char *refusal_message(void) {
        return message;
}

static void send_change(int fd, const char *error, const char *before, const char *format, va_list arguments,
                        const char *after) {
        char *members, *text;
        struct json_object *reply;

        ck_assert_int_ge(vasprintf(&members, format, arguments), 0);
        ck_assert_int_ge(asprintf(&text, "{%s%s%s}", before, members, after), 0);
        for (char *p = text; *p; p++)
                if (*p == '\'')
                        *p = '"';
        reply = client_call(fd, "org.kevd.events.Change", text);
        ck_assert_msg(json_at(reply, "/parameters/refused") &&
                              strcmp(text_at(reply, "/parameters/refused/0/errno"), error) == 0,
                      "%s: %s instead of \"%s\"", text, json_object_to_json_string(reply), error);
        (void)snprintf(message, sizeof(message), "%s", text_at(reply, "/parameters/refused/0/message"));
        json_object_put(reply);
        free(members);
        free(text);
}

void change(int fd, const char *error, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        send_change(fd, error, "", format, arguments, "");
        va_end(arguments);
}

void watch(int fd, const char *error, const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        send_change(fd, error, "'add':[{'filter':'proc',", format, arguments, "}]");
        va_end(arguments);
}

void watch_pid(int fd, const char *error, int64_t id, pid_t pid) {
        watch(fd, error, "'id':%lld,'pid':%d,'notes':['exit','reap']", (long long)id, (int)pid);
}

size_t take_events(int fd, int timeout_msec, event_fn *fn, void *userdata) {
        struct json_object *reply, *events;
        char parameters[64];
        size_t n;

        (void)snprintf(parameters, sizeof(parameters), "{\"timeoutMsec\":%d}", timeout_msec);
        reply = client_call(fd, "org.kevd.events.Wait", parameters);
        events = json_at(reply, "/parameters/events");
        n = json_object_array_length(events);
        for (size_t i = 0; i < n; i++)
                fn(json_object_array_get_idx(events, i), userdata);
        json_object_put(reply);
        return n;
}

bool is_note(struct json_object *event, const char *note) {
        return strcmp(text_at(event, "/notes/0"), note) == 0 && json_object_array_length(json_at(event, "/notes")) == 1;
}

pid_t pid_of(struct json_object *event) {
        struct json_object *pid = json_at(event, "/process/pid");

        return pid ? (pid_t)json_object_get_int64(pid) : 0;
}

struct json_object *next_told(int fd) {
        struct json_object *event;

        while (is_note(event = next_event(fd), "lost"))
                json_object_put(event);
        return event;
}

static bool is_of_others(struct json_object *event, const pid_t *pids, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (pid_of(event) == pids[i])
                        return false;
        return number_at(event, "/id") == 0 || is_note(event, "lost");
}

bool expect(int fd, int64_t id, const char *note, pid_t pid, int64_t data) {
        for (;;) {
                struct json_object *event = next_event(fd);
                bool eof;

                if (is_of_others(event, &pid, 1)) {
                        json_object_put(event);
                        continue;
                }
                check_event(event, id, note, pid);
                if (data != ANY)
                        ck_assert_msg(json_at(event, "/data") && number_at(event, "/data") == data,
                                      "%s: its data is not %lld", json_object_to_json_string(event), (long long)data);
                if (strcmp(note, "exit") == 0 && data != ANY)
                        check_status(event, (int)data);
                eof = has_flag(event, "eof");
                json_object_put(event);
                return eof;
        }
}

void expect_only_others(int fd, const pid_t *pids, size_t n) {
        struct json_object *event;

        while ((event = due_event(fd))) {
                ck_assert_msg(is_of_others(event, pids, n), "%s", json_object_to_json_string(event));
                json_object_put(event);
        }
}

void expect_event(int fd, int64_t id, const char *note, pid_t pid, int status) {
        struct json_object *event = next_event(fd);

        check_event(event, id, note, pid);
        check_status(event, status);
        json_object_put(event);
}

void check_event(struct json_object *event, int64_t id, const char *note, pid_t pid) {
        ck_assert_msg(number_at(event, "/id") == id && is_note(event, note) && pid_of(event) == pid &&
                              number_at(event, "/count") == 1,
                      "%s instead of %lld: %s of %d", json_object_to_json_string(event), (long long)id, note, (int)pid);
}

void check_status(struct json_object *event, int status) {
        const char *text = json_object_to_json_string(event);

        ck_assert_msg(json_at(event, "/data") && number_at(event, "/data") == status, "not status %d: %s", status,
                      text);
        if (WIFEXITED(status)) {
                ck_assert_msg(number_at(event, "/process/exitCode") == WEXITSTATUS(status), "%s", text);
                ck_assert_msg(!json_at(event, "/process/signal"), "%s", text);
                ck_assert_msg(!json_at(event, "/process/coreDumped"), "%s", text);
        } else {
                ck_assert_msg(number_at(event, "/process/signal") == WTERMSIG(status), "%s", text);
                ck_assert_msg(!json_at(event, "/process/exitCode"), "%s", text);
                ck_assert_msg(json_object_get_boolean(json_at(event, "/process/coreDumped")) == !!WCOREDUMP(status),
                              "%s", text);
        }
}

/* ---- the maker's process: no assertions here --------------------------------------------------------------------- */

struct order {
        enum { FORK, FORK_AS, REAP, REAP_ANY } what;
        int n, argument;
        pid_t pid;
        run_fn *run;
};

struct answer {
        pid_t pid;
        int status;
};

static int own_fd, own_go_fd;

void wait_go(void) {
        char byte;

        if (read(own_go_fd, &byte, 1) != 1)
                _exit(99);
}

int go_input(void) {
        return own_go_fd;
}

void say(const void *data, size_t size) {
        if (send(own_fd, data, size, MSG_NOSIGNAL) != (ssize_t)size)
                _exit(98);
}

static bool set_last_pid(pid_t pid) {
        int fd = open("/proc/sys/kernel/ns_last_pid", O_WRONLY | O_CLOEXEC);
        char text[16];
        int size = snprintf(text, sizeof(text), "%d", (int)pid);
        bool done = fd >= 0 && write(fd, text, (size_t)size) == size;

        (void)safe_close(fd);
        return done;
}

static pid_t fork_one(const struct order *order, int i) {
        pid_t pid = fork();

        if (pid == 0)
                _exit(order->run(order->argument + i));
        return pid;
}

static pid_t fork_as(const struct order *order) {
        pid_t pid;

        if (!set_last_pid(order->pid - 1))
                return -1;
        pid = fork();
        if (pid == 0)
                _exit(getpid() == order->pid ? order->run(order->argument) : 0);
        if (pid > 0 && pid != order->pid)
                (void)waitpid(pid, NULL, 0);
        return pid;
}

static void serve(const struct order *order) {
        struct answer answer = { 0 };

        switch (order->what) {
        case FORK:
                for (int i = 0; i < order->n; i++) {
                        answer.pid = fork_one(order, i);
                        say(&answer, sizeof(answer));
                }
                return;
        case FORK_AS:
                answer.pid = fork_as(order);
                break;
        case REAP:
                answer.pid = waitpid(order->pid, &answer.status, 0);
                break;
        case REAP_ANY:
                for (int i = 0; i < order->n; i++)
                        answer.pid = waitpid(-1, &answer.status, 0);
                break;
        }
        say(&answer, sizeof(answer));
}

__attribute__((noreturn)) static void live(uid_t uid) {
        struct order order;

        if ((uid != 0 && (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0)) ||
            prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0)
                _exit(1);
        while (recv(own_fd, &order, sizeof(order), 0) == sizeof(order))
                serve(&order);
        while (waitpid(-1, NULL, 0) > 0)
                ;
        _exit(0);
}

/* ---- the test's side --------------------------------------------------------------------------------------------- */

struct maker maker_start(uid_t uid) {
        int ends[2], go_ends[2];
        struct maker maker;

        assert_system(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0, "socketpair");
        assert_system(pipe2(go_ends, O_CLOEXEC) == 0, "pipe2");
        maker = (struct maker){ .fd = ends[0], .go_fd = go_ends[1] };
        maker.pid = fork();
        assert_system(maker.pid >= 0, "fork");
        if (maker.pid == 0) {
                (void)close(ends[0]);
                (void)close(go_ends[1]);
                own_fd = ends[1];
                own_go_fd = go_ends[0];
                live(uid);
        }
        (void)close(ends[1]);
        (void)close(go_ends[0]);
        return maker;
}

void maker_stop(struct maker *maker) {
        int status;

        ck_assert_int_eq(shutdown(maker->fd, SHUT_WR), 0);
        (void)close(maker->go_fd);
        ck_assert_int_eq(waitpid(maker->pid, &status, 0), maker->pid);
        ck_assert_int_eq(status, 0);
        (void)close(maker->fd);
}

static void send_order(const struct maker *maker, struct order order) {
        ck_assert_int_eq(send(maker->fd, &order, sizeof(order), MSG_NOSIGNAL), sizeof(order));
}

void hear(const struct maker *maker, void *data, size_t size) {
        ck_assert_int_eq(recv(maker->fd, data, size, 0), (ssize_t)size);
}

static struct answer hear_answer(const struct maker *maker) {
        struct answer answer;

        hear(maker, &answer, sizeof(answer));
        return answer;
}

void maker_fork_many(const struct maker *maker, run_fn *run, int n, pid_t *ret_pids) {
        send_order(maker, (struct order){ .what = FORK, .n = n, .run = run });
        for (int i = 0; i < n; i++) {
                ret_pids[i] = hear_answer(maker).pid;
                ck_assert_int_gt(ret_pids[i], 0);
        }
}

pid_t maker_fork(const struct maker *maker, run_fn *run, int argument) {
        pid_t pid;

        send_order(maker, (struct order){ .what = FORK, .n = 1, .run = run, .argument = argument });
        pid = hear_answer(maker).pid;
        ck_assert_int_gt(pid, 0);
        return pid;
}

bool maker_fork_as(const struct maker *maker, run_fn *run, int argument, pid_t pid) {
        send_order(maker, (struct order){ .what = FORK_AS, .run = run, .argument = argument, .pid = pid });
        return hear_answer(maker).pid == pid;
}

int maker_reap(const struct maker *maker, pid_t pid) {
        struct answer answer;

        send_order(maker, (struct order){ .what = REAP, .pid = pid });
        answer = hear_answer(maker);
        ck_assert_int_eq(answer.pid, pid);
        return answer.status;
}

void maker_begin_reaping(const struct maker *maker, int n) {
        send_order(maker, (struct order){ .what = REAP_ANY, .n = n });
}

void maker_end_reaping(const struct maker *maker) {
        ck_assert_int_gt(hear_answer(maker).pid, 0);
}

void wait_zombie(pid_t pid) {
        struct pollfd ended = { .fd = pidfd_open(pid, 0), .events = POLLIN };

        assert_system(ended.fd >= 0, "pidfd_open");
        ck_assert_int_eq(poll(&ended, 1, HARNESS_REPLY_MSEC), 1);
        (void)close(ended.fd);
}

void go(const struct maker *maker, size_t n) {
        while (n-- > 0)
                ck_assert_int_eq(write(maker->go_fd, "g", 1), 1);
}

int run_exit(int code) {
        wait_go();
        return code;
}

int run_exit_at_once(int code) {
        return code;
}

int code_of(pid_t pid) {
        return pid % 251;
}

int run_code_of_pid(int unused _unused_) {
        wait_go();
        return code_of(getpid());
}

/* ---- storms ------------------------------------------------------------------------------------------------------ */

__attribute__((noreturn)) static void run_writer(int n, const char *name) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        (void)prctl(PR_SET_NAME, name);
        for (int i = 0; i < n; i++) {
                pid_t pid = fork();

                if (pid == 0)
                        _exit(code_of(getpid()));
                if (pid < 0 || waitpid(pid, NULL, 0) != pid)
                        _exit(1);
        }
        _exit(0);
}

struct storm storm_begin(int n, const char *name) {
        struct storm storm = { .n = n };

        for (size_t i = 0; i < ARRAY_SIZE(storm.writers); i++) {
                storm.writers[i] = fork();
                assert_system(storm.writers[i] >= 0, "fork");
                if (storm.writers[i] == 0)
                        run_writer(i == 0 ? n - n / 2 : n / 2, name);
        }
        return storm;
}

void storm_end(struct storm *storm) {
        int status;

        for (size_t i = 0; i < ARRAY_SIZE(storm->writers); i++) {
                ck_assert_int_eq(waitpid(storm->writers[i], &status, 0), storm->writers[i]);
                ck_assert_int_eq(status, 0);
        }
}

bool is_of_storm(const struct storm *storm, struct json_object *event) {
        struct json_object *parent = json_at(event, "/process/parent");
        pid_t pid = parent ? (pid_t)json_object_get_int64(parent) : -1;

        for (size_t i = 0; i < ARRAY_SIZE(storm->writers); i++)
                if (pid == storm->writers[i] || pid_of(event) == storm->writers[i])
                        return true;
        return false;
}
