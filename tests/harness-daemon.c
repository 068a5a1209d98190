/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The harness: running the real daemon, and talking to it without the library. Every wait has a
 * bound; what exceeds it fails the test.
 */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <sys/pidfd.h>
#include <sys/fanotify.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"

enum {
        SEND_FDS_MAX = 16,
        DAEMON_MSEC = 20000, /* for its start, and for its end */
};

static int remaining_msec(int64_t deadline) {
        return (int)MAX(deadline - now_msec(), 0);
}

/* Whether the descriptor became readable, or was hung up, in time. */
static bool wait_readable(int fd, int64_t deadline) {
        struct pollfd p = { .fd = fd, .events = POLLIN };
        int r;

        do
                r = poll(&p, 1, remaining_msec(deadline));
        while (r < 0 && errno == EINTR);
        assert_system(r >= 0, "poll");
        return r > 0;
}

/* ---- the daemon ------------------------------------------------------------ */

static unsigned n_daemons; /* that this test has started */

static char *new_text(const char *text, ...) __attribute__((format(printf, 1, 2)));
static char *new_text(const char *text, ...) {
        char *result;
        va_list args;

        va_start(args, text);
        ck_assert_int_ge(vasprintf(&result, text, args), 0);
        va_end(args);
        return result;
}

static void address_of(const char *path, struct sockaddr_un *ret_address) {
        *ret_address = (struct sockaddr_un){ .sun_family = AF_UNIX };
        ck_assert_msg(strlen(path) < sizeof(ret_address->sun_path), "%s: too long for a socket", path);
        memcpy(ret_address->sun_path, path, strlen(path) + 1);
}

/* In the child: becomes kevd. */
static void daemon_exec(char **argv, const char *log_path, const char *notify_path, pid_t parent)
        __attribute__((noreturn));
static void daemon_exec(char **argv, const char *log_path, const char *notify_path, pid_t parent) {
        int null = open("/dev/null", O_RDWR | O_CLOEXEC);
        int log = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);

        if (null < 0 || log < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
            dup2(log, STDERR_FILENO) < 0 || close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0 ||
            prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || setenv("NOTIFY_SOCKET", notify_path, 1) < 0)
                _exit(126);
        /* The parent may have gone before the death signal was set. */
        if (getppid() != parent)
                _exit(126);
        (void)execv(argv[0], argv);
        fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
        _exit(127);
}

/* Whether the datagram, lines of NAME=VALUE, says that the daemon is ready. */
static bool says_ready(char *datagram) {
        char *state = NULL;

        for (char *line = strtok_r(datagram, "\n", &state); line; line = strtok_r(NULL, "\n", &state))
                if (strcmp(line, "READY=1") == 0)
                        return true;
        return false;
}

static void daemon_wait_ready(struct daemon *daemon) {
        int64_t deadline = now_msec() + DAEMON_MSEC;

        for (;;) {
                struct pollfd p[] = {
                        { .fd = daemon->notify_fd, .events = POLLIN },
                        { .fd = daemon->pidfd, .events = POLLIN },
                };
                char datagram[4096];
                ssize_t size;
                int r = poll(p, ARRAY_SIZE(p), remaining_msec(deadline));

                assert_system(r >= 0 || errno == EINTR, "poll");
                ck_assert_msg(r != 0, "kevd was not ready after %d ms", DAEMON_MSEC);
                if (r < 0)
                        continue;
                if (p[0].revents) {
                        size = recv(daemon->notify_fd, datagram, sizeof(datagram) - 1, 0);
                        assert_system(size >= 0, "recv");
                        datagram[size] = '\0';
                        if (says_ready(datagram))
                                return;
                } else {
                        ck_assert_msg(!p[1].revents, "kevd ended before it was ready");
                }
        }
}

bool client_is_other(void) {
        return getenv("KEVD_OTHER_CLIENT");
}

void client_begin(void) {
        if (!client_is_other())
                return;
        if (geteuid() != 0)
                harness_skip("to be another user takes root");
        assert_system(seteuid(OTHER_CLIENT) == 0, "seteuid");
}

void client_end(void) {
        if (client_is_other())
                assert_system(seteuid(0) == 0, "seteuid");
}

bool daemon_is_on_bpf(void) {
        const char *feed = getenv("KEVD_PROCESS_FEED");

        return feed && strcmp(feed, "bpf") == 0;
}

bool daemon_is_on_feed(void) {
        const char *feed = getenv("KEVD_PROCESS_FEED");

        return daemon_is_on_bpf() || (feed && strcmp(feed, "connector") == 0);
}

/* bpf(2): what the feed's program talks through. */
static void need_bpf(void) {
        union bpf_attr attributes = { .map_type = BPF_MAP_TYPE_RINGBUF, .max_entries = 4096 };
        int fd;

        if (access("/sys/kernel/btf/vmlinux", R_OK) < 0)
                harness_skip("the kernel does not describe itself to BPF");
        fd = (int)syscall(SYS_bpf, BPF_MAP_CREATE, &attributes, sizeof(attributes));
        if (fd < 0)
                harness_skip("BPF is not allowed here");
        (void)close(fd);
}

struct daemon *daemon_start_with(const char *const *options) {
        unsigned number = ++n_daemons;
        _cleanup_(freep) char *log_path = new_text("%s/kevd-%u.log", harness_tempdir(), number);
        _cleanup_(freep) char *notify_path = new_text("%s/notify-%u", harness_tempdir(), number);
        _cleanup_(freep) char *listen_option = NULL, *mechanism_option = NULL, *feed_option = NULL, *mux_option = NULL;
        _cleanup_(freep) char **argv = NULL;
        const char *path = getenv("KEVD"), *mechanism = getenv("KEVD_FILE_MECHANISM");
        const char *feed = getenv("KEVD_PROCESS_FEED"), *mux = getenv("KEVD_MUX");
        struct daemon *daemon = calloc(1, sizeof(*daemon));
        pid_t parent = getpid();
        struct sockaddr_un address;
        size_t n = 0;

        ck_assert_msg(path, "KEVD, the path of the daemon, is not in the environment");
        ck_assert_ptr_nonnull(daemon);
        daemon->socket = new_text("%s/socket-%u", harness_tempdir(), number);
        listen_option = new_text("--listen=%s", daemon->socket);

        while (options[n])
                n++;
        if (mechanism && strcmp(mechanism, "fanotify") == 0)
                need_fanotify();
        if (client_is_other()) {
                mechanism = "inotify";
                ck_assert_int_eq(chmod(harness_tempdir(), 0755), 0);
        }
        if (mechanism)
                mechanism_option = new_text("--file-mechanism=%s", mechanism);
        if (daemon_is_on_bpf())
                need_bpf();
        if (feed)
                feed_option = new_text("--process-feed=%s", feed);
        mux_option = new_text("--mux=%s", mux ? mux : "epoll"); /* unless the test asks for another */
        argv = calloc(n + 8, sizeof(*argv));
        ck_assert_ptr_nonnull(argv);
        argv[0] = (char *)path;
        argv[1] = listen_option;
        argv[2] = (char *)"--mode=user";
        argv[3] = mux_option;
        memcpy(&argv[4], options, n * sizeof(*argv));
        n += 4;
        if (mechanism)
                argv[n++] = mechanism_option;
        if (feed)
                argv[n++] = feed_option;
        if (client_is_other())
                argv[n++] = (char *)"--mode=system";

        address_of(notify_path, &address);
        daemon->notify_fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_system(daemon->notify_fd >= 0, "socket");
        assert_system(bind(daemon->notify_fd, (struct sockaddr *)&address, sizeof(address)) == 0, "bind");

        daemon->pid = fork();
        assert_system(daemon->pid >= 0, "fork");
        if (daemon->pid == 0)
                daemon_exec(argv, log_path, notify_path, parent);
        daemon->pidfd = pidfd_open(daemon->pid, 0);
        assert_system(daemon->pidfd >= 0, "pidfd_open");
        daemon_wait_ready(daemon);
        return daemon;
}

void daemon_stop(struct daemon *daemon) {
        bool in_time;
        int status;

        /* It is not waited for yet: the pid can't be another process's. */
        assert_system(kill(daemon->pid, SIGTERM) == 0, "kill");
        in_time = wait_readable(daemon->pidfd, now_msec() + DAEMON_MSEC);
        if (!in_time)
                (void)kill(daemon->pid, SIGKILL);
        ck_assert_int_eq(waitpid(daemon->pid, &status, 0), daemon->pid);

        ck_assert_msg(in_time, "kevd still ran %d ms after SIGTERM", DAEMON_MSEC);
        ck_assert_msg(!WIFSIGNALED(status), "kevd was ended by signal %d", WTERMSIG(status));
        ck_assert_msg(WEXITSTATUS(status) == 0, "kevd's exit status was %d", WEXITSTATUS(status));

        (void)close(daemon->pidfd);
        (void)close(daemon->notify_fd);
        free(daemon->socket);
        free(daemon);
}

size_t n_fds_of(pid_t pid) {
        char path[64];
        DIR *directory;
        size_t n = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        directory = opendir(path);
        assert_system(directory, path);
        while (readdir(directory))
                n++;
        (void)closedir(directory);
        return n;
}

static size_t count_lines(FILE *file, const char *start) {
        _cleanup_(freep) char *line = NULL;
        size_t capacity = 0, n = 0;

        while (getline(&line, &capacity, file) >= 0)
                n += strncmp(line, start, strlen(start)) == 0;
        return n;
}

/* proc_pid_stat(5). False: there is no such process any more. */
static bool read_stat(pid_t pid, char comm[64], pid_t *ret_parent) {
        _cleanup_(freep) char *path = new_text("/proc/%d/stat", (int)pid);
        FILE *file = fopen(path, "re");
        bool done;

        if (!file)
                return false;
        done = fscanf(file, "%*d (%63[^)]) %*c %d", comm, ret_parent) == 2;
        (void)fclose(file);
        return done;
}

/* The next in /proc; 0: there is none. */
static pid_t next_helper(DIR *directory, pid_t daemon, const char *name) {
        struct dirent *entry;

        while ((entry = readdir(directory))) {
                pid_t pid = atoi(entry->d_name), parent, grandparent;
                char comm[64], above[64];

                if (pid > 0 && read_stat(pid, comm, &parent) && strcmp(comm, name) == 0 &&
                    read_stat(parent, above, &grandparent) && grandparent == daemon)
                        return pid;
        }
        return 0;
}

pid_t daemon_find_helper(pid_t daemon, const char *name) {
        DIR *directory = opendir("/proc");
        pid_t found = 0;

        assert_system(directory, "/proc");
        for (pid_t pid; (pid = next_helper(directory, daemon, name)) > 0;)
                found = pid;
        (void)closedir(directory);
        return found;
}

size_t daemon_signal_helpers(pid_t daemon, const char *name, int signal) {
        DIR *directory = opendir("/proc");
        size_t n = 0;

        assert_system(directory, "/proc");
        for (pid_t pid; (pid = next_helper(directory, daemon, name)) > 0; n++)
                assert_system(kill(pid, signal) == 0, name);
        (void)closedir(directory);
        return n;
}

size_t daemon_fdinfo_inotify_watches(pid_t pid) {
        pid_t holder = client_is_other() ? daemon_find_helper(pid, "kevd-deputy") : pid;
        _cleanup_(freep) char *path = new_text("/proc/%d/fdinfo", (int)holder);
        DIR *directory = holder > 0 ? opendir(path) : NULL;
        struct dirent *entry;
        size_t n = 0;

        if (!directory && client_is_other()) /* it has ended with its last watch */
                return 0;
        assert_system(directory, path);
        while ((entry = readdir(directory))) {
                int fd = openat(dirfd(directory), entry->d_name, O_RDONLY | O_CLOEXEC);
                FILE *file;

                /* The descriptor may have been closed meanwhile. */
                if (fd < 0)
                        continue;
                file = fdopen(fd, "r");
                ck_assert_ptr_nonnull(file);
                n += count_lines(file, "inotify wd:");
                (void)fclose(file);
        }
        (void)closedir(directory);
        return n;
}

struct expected_watches {
        pid_t daemon;
        size_t n;
};

static bool has_watches(void *userdata) {
        const struct expected_watches *expected = userdata;

        return daemon_fdinfo_inotify_watches(expected->daemon) == expected->n;
}

void daemon_expect_watches(const struct daemon *daemon, size_t n) {
        struct expected_watches expected = { daemon->pid, n };

        ck_assert_msg(wait_until(has_watches, &expected, HARNESS_REPLY_MSEC), "%zu inotify watches instead of %zu",
                      daemon_fdinfo_inotify_watches(daemon->pid), n);
}

struct losses {
        int fd;
        int64_t n, n_repaired;
};

static bool are_repaired(void *userdata) {
        struct losses *losses = userdata;
        struct json_object *reply = client_call(losses->fd, "org.kevd.manager.GetStatistics", NULL),
                           *sources = json_at(reply, "/parameters/sources");

        losses->n = losses->n_repaired = 0;
        for (size_t i = 0; i < json_object_array_length(sources); i++) {
                losses->n += number_at(json_object_array_get_idx(sources, i), "/kernelOverflows");
                losses->n_repaired += number_at(json_object_array_get_idx(sources, i), "/lossesRepaired");
        }
        json_object_put(reply);
        return losses->n == losses->n_repaired;
}

int64_t daemon_expect_repaired(const struct daemon *daemon) {
        struct losses losses = { .fd = client_connect(daemon->socket) };

        ck_assert_msg(wait_until(are_repaired, &losses, HARNESS_REPLY_MSEC), "of %lld losses %lld were repaired",
                      (long long)losses.n, (long long)losses.n_repaired);
        (void)close(losses.fd);
        return losses.n;
}

/* Whether the mount that holds the path is in the list of mounts: that of a chroot's root need not be. */
static bool is_listed(const char *path) {
        _cleanup_(freep) char *line = NULL;
        FILE *file = fopen("/proc/self/mountinfo", "re");
        size_t capacity = 0;
        bool listed = false;
        struct statx st;

        if (!file || statx(AT_FDCWD, path, 0, STATX_MNT_ID, &st) < 0) {
                if (file)
                        (void)fclose(file);
                return false;
        }
        while (!listed && getline(&line, &capacity, file) >= 0)
                listed = strtoull(line, NULL, 10) == st.stx_mnt_id;
        (void)fclose(file);
        return listed;
}

const char *fanotify_missing(void) {
        static char reason[128];
        union {
                struct file_handle handle;
                char bytes[sizeof(struct file_handle) + MAX_HANDLE_SZ];
        } h = { .handle = { .handle_bytes = MAX_HANDLE_SZ } };
        int group, directory, mount, fd = -1, error = 0;

        if (geteuid() != 0)
                return "fanotify on a file system takes root";
        if (!is_listed(harness_tempdir()))
                return "the mount of the temporary directory is not to be seen from here";
        group = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_UNLIMITED_QUEUE | FAN_REPORT_DFID_NAME | FAN_REPORT_FID |
                                      0x1000 /* FAN_REPORT_TARGET_FID */,
                              O_RDONLY | O_CLOEXEC);
        directory = open(harness_tempdir(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (group < 0 || directory < 0 ||
            fanotify_mark(group, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_CREATE | FAN_ONDIR, directory, NULL) < 0 ||
            name_to_handle_at(directory, "", &h.handle, &mount, AT_EMPTY_PATH) < 0 ||
            (fd = open_by_handle_at(directory, &h.handle, O_PATH | O_CLOEXEC)) < 0)
                error = errno;
        if (fd >= 0)
                (void)close(fd);
        if (directory >= 0)
                (void)close(directory);
        if (group >= 0)
                (void)close(group);
        (void)snprintf(reason, sizeof(reason), "fanotify can't watch the file system of the temporary directory: %s",
                       strerror(error));
        return error ? reason : NULL;
}

void need_fanotify(void) {
        const char *missing = fanotify_missing();

        if (missing)
                harness_skip(missing);
}

bool daemon_is_on_fanotify(void) {
        const char *mechanism = getenv("KEVD_FILE_MECHANISM");

        return mechanism && strcmp(mechanism, "fanotify") == 0;
}

/* ---- a client without the library ------------------------------------------ */

int client_connect(const char *socket_path) {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_un address;

        assert_system(fd >= 0, "socket");
        address_of(socket_path, &address);
        assert_system(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0, socket_path);
        return fd;
}

int client_connect_as(const char *socket_path, uid_t uid) {
        int fd;

        ck_assert_int_eq(seteuid(uid), 0);
        fd = client_connect(socket_path);
        ck_assert_int_eq(seteuid(0), 0);
        return fd;
}

void client_send_with_fds(int fd, const void *data, size_t size, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(SEND_FDS_MAX * sizeof(int))];
        } control = { 0 };
        const char *p = data;

        ck_assert_uint_le(n_fds, SEND_FDS_MAX);
        control.header = (struct cmsghdr){
                .cmsg_level = SOL_SOCKET,
                .cmsg_type = SCM_RIGHTS,
                .cmsg_len = CMSG_LEN(n_fds * sizeof(int)),
        };
        if (n_fds > 0)
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));

        while (size > 0) {
                struct iovec part = { .iov_base = (char *)p, .iov_len = size };
                struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };
                ssize_t sent;

                if (n_fds > 0) {
                        message.msg_control = control.bytes;
                        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                }
                sent = sendmsg(fd, &message, MSG_NOSIGNAL);
                assert_system(sent >= 0, "sendmsg");
                p += sent;
                size -= (size_t)sent;
                n_fds = 0;
        }
}

void client_send(int fd, const void *data, size_t size) {
        client_send_with_fds(fd, data, size, NULL, 0);
}

void client_send_message(int fd, const char *text) {
        client_send(fd, text, strlen(text) + 1);
}

static struct json_object *parse(const char *text, size_t size) {
        struct json_tokener *tokener = json_tokener_new();
        struct json_object *object;

        ck_assert_ptr_nonnull(tokener);
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
        object = json_tokener_parse_ex(tokener, text, (int)size);
        ck_assert_msg(json_object_is_type(object, json_type_object), "not a JSON object: %.500s", text);
        json_tokener_free(tokener);
        return object;
}

struct json_object *client_receive(int fd, int timeout_msec) {
        int64_t deadline = now_msec() + timeout_msec;
        _cleanup_(freep) char *message = NULL;
        size_t size = 0;

        for (;;) {
                char part[65536], *end;
                ssize_t n;

                if (!wait_readable(fd, deadline)) {
                        ck_assert_msg(size == 0, "only part of a message came: %.*s", (int)MIN(size, 500U), message);
                        return NULL;
                }
                n = recv(fd, part, sizeof(part), MSG_PEEK);
                assert_system(n >= 0, "recv");
                ck_assert_msg(n > 0, "the daemon closed the connection");

                /* What stands behind the message's end is the next one's, and stays in the socket. */
                end = memchr(part, '\0', (size_t)n);
                if (end)
                        n = end + 1 - part;
                ck_assert_int_eq(recv(fd, part, (size_t)n, 0), n);

                message = realloc(message, size + (size_t)n);
                ck_assert_ptr_nonnull(message);
                memcpy(message + size, part, (size_t)n);
                size += (size_t)n;
                if (end)
                        return parse(message, size);
        }
}

struct json_object *client_call(int fd, const char *method, const char *parameters) {
        _cleanup_(freep) char *text = NULL;
        struct json_object *reply;

        text = new_text("{\"method\":\"%s\",\"parameters\":%s}", method, parameters ? parameters : "{}");
        client_send_message(fd, text);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_msg(reply, "no reply to %s", method);
        return reply;
}

void client_change(int fd, const char *text, ...) {
        _cleanup_(freep) char *parameters = NULL;
        struct json_object *reply;
        va_list arguments;

        va_start(arguments, text);
        ck_assert_int_ge(vasprintf(&parameters, text, arguments), 0);
        va_end(arguments);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        ck_assert_msg(json_at(reply, "/parameters/refused") && !json_at(reply, "/parameters/refused/0"), "%s: %s",
                      parameters, json_object_to_json_string(reply));
        json_object_put(reply);
}

static struct json_object *take_event(int fd, const char *parameters) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Wait", parameters);
        struct json_object *event = json_object_get(json_at(reply, "/parameters/events/0"));

        json_object_put(reply);
        return event;
}

struct json_object *next_event(int fd) {
        struct json_object *event = take_event(fd, "{\"maxEvents\":1,\"timeoutMsec\":9000}");

        ck_assert_msg(event, "no event");
        return event;
}

struct json_object *due_event(int fd) {
        return take_event(fd, "{\"maxEvents\":1,\"timeoutMsec\":0}");
}

static struct json_object *take_events(int fd, const char *parameters) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Wait", parameters);
        struct json_object *events = json_object_get(json_at(reply, "/parameters/events"));

        ck_assert_msg(events, "%s", json_object_to_json_string(reply));
        json_object_put(reply);
        return events;
}

struct json_object *next_events(int fd) {
        struct json_object *events = take_events(fd, "{\"timeoutMsec\":9000}");

        ck_assert_msg(json_object_array_length(events) > 0, "no event");
        return events;
}

struct json_object *due_events(int fd) {
        return take_events(fd, "{\"timeoutMsec\":0}");
}

void expect_nothing(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}");

        ck_assert_msg(json_at(reply, "/parameters/events") && !json_at(reply, "/parameters/events/0"), "%s",
                      json_object_to_json_string(reply));
        json_object_put(reply);
}

static bool holds(struct json_object *texts, const char *text) {
        for (size_t i = 0; texts && i < json_object_array_length(texts); i++)
                if (strcmp(json_object_get_string(json_object_array_get_idx(texts, i)), text) == 0)
                        return true;
        return false;
}

bool has_note(struct json_object *event, const char *note) {
        return holds(json_at(event, "/notes"), note);
}

bool has_flag(struct json_object *object, const char *flag) {
        return holds(json_at(object, "/flags"), flag);
}

struct json_object *json_at(struct json_object *object, const char *pointer) {
        struct json_object *found;

        return json_pointer_get(object, pointer, &found) == 0 ? found : NULL;
}

int64_t number_at(struct json_object *object, const char *pointer) {
        struct json_object *found = json_at(object, pointer);

        ck_assert_msg(json_object_is_type(found, json_type_int), "no number %s in %s", pointer,
                      json_object_to_json_string(object));
        return json_object_get_int64(found);
}

const char *text_at(struct json_object *object, const char *pointer) {
        const char *text = json_object_get_string(json_at(object, pointer));

        return text ? text : "";
}

void client_expect_close(int fd, int timeout_msec) {
        int64_t deadline = now_msec() + timeout_msec;

        for (;;) {
                char part[4096];
                ssize_t n;

                ck_assert_msg(wait_readable(fd, deadline), "the daemon kept the connection for %d ms", timeout_msec);
                n = recv(fd, part, sizeof(part), 0);
                if (n == 0 || (n < 0 && errno == ECONNRESET))
                        return;
                assert_system(n > 0, "recv");
        }
}
