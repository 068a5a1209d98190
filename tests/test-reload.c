/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What is changed under a running daemon: its configuration, by SIGHUP and by Reload, with clients that hold something;
 * connections that an administrator ends; and what the service manager is told meanwhile, the watchdog too, and if it
 * is busy, later.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"

/* ---- the configuration ------------------------------------------------------------------------------- */

static const char *configuration(void) {
        static char path[PATH_MAX];

        format(path, sizeof(path), "%s/kevd.conf", harness_tempdir());
        return path;
}

static void write_configuration(const char *text) {
        FILE *file = fopen(configuration(), "we");

        assert_system(file, configuration());
        ck_assert_int_ge(fputs(text, file), 0);
        ck_assert_int_eq(fclose(file), 0);
}

static struct daemon *start(const char *text) {
        char option[PATH_MAX + 16];

        write_configuration(text);
        format(option, sizeof(option), "--config=%s", configuration());
        return daemon_start(option);
}

/* The next that the daemon tells the service manager, which lives until the one after it. NULL: nothing in time. */
static const char *next_notification(const struct daemon *daemon, int timeout_msec) {
        static char text[4096];
        struct pollfd p = { .fd = daemon->notify_fd, .events = POLLIN };
        ssize_t n;

        if (poll(&p, 1, timeout_msec) <= 0)
                return NULL;
        n = recv(daemon->notify_fd, text, sizeof(text) - 1, 0);
        assert_system(n >= 0, "recv");
        text[n] = 0;
        return text;
}

static uint64_t monotonic_usec(void) {
        struct timespec now;

        ck_assert_int_eq(clock_gettime(CLOCK_MONOTONIC, &now), 0);
        return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

static void expect_begin(const struct daemon *daemon, uint64_t since) {
        const char *text = next_notification(daemon, HARNESS_REPLY_MSEC), *usec;

        ck_assert_ptr_nonnull(text);
        ck_assert_msg(strncmp(text, "RELOADING=1\n", 12) == 0, "%s", text);
        usec = strstr(text, "\nMONOTONIC_USEC=");
        ck_assert_msg(usec, "%s", text);
        ck_assert_uint_ge(strtoull(usec + 16, NULL, 10), since);
        ck_assert_uint_le(strtoull(usec + 16, NULL, 10), monotonic_usec());
}

static void expect_end(const struct daemon *daemon) {
        const char *text = next_notification(daemon, HARNESS_REPLY_MSEC);

        ck_assert_ptr_nonnull(text);
        ck_assert_msg(strncmp(text, "READY=1\n", 8) == 0, "%s", text);
}

static void hang_up(const struct daemon *daemon) {
        uint64_t since = monotonic_usec();

        assert_system(kill(daemon->pid, SIGHUP) == 0, "kill");
        expect_begin(daemon, since);
        expect_end(daemon);
}

/* "" or the error's name, which lives until the next. */
static const char *call(int fd, const char *method, const char *parameters) {
        static char name[128];
        struct json_object *reply = client_call(fd, method, parameters);

        format(name, sizeof(name), "%s", text_at(reply, "/error"));
        json_object_put(reply);
        return name;
}

/* By either way. */
static void reload(const struct daemon *daemon, bool by_call) {
        int fd;

        if (!by_call) {
                hang_up(daemon);
                return;
        }
        fd = client_connect(daemon->socket);
        ck_assert_str_eq(call(fd, "org.kevd.manager.Reload", NULL), "");
        (void)close(fd);
        expect_begin(daemon, 0);
        expect_end(daemon);
}

static const char *log_text(void) {
        static char log[256 * 1024];
        char path[PATH_MAX];
        FILE *file;

        format(path, sizeof(path), "%s/kevd-1.log", harness_tempdir());
        file = fopen(path, "re");
        assert_system(file, path);
        log[fread(log, 1, sizeof(log) - 1, file)] = 0;
        (void)fclose(file);
        return log;
}

/* ---- clients --------------------------------------------------------------------------------------------- */

/* "" or what it was refused with. */
static const char *add(int fd, int id) {
        static char name[128];
        struct json_object *reply;
        char parameters[160];

        format(parameters, sizeof(parameters), "{\"add\":[{\"id\":%d,\"filter\":\"user\",\"name\":\"n%d\"}]}", id, id);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        format(name, sizeof(name), "%s%s", text_at(reply, "/error"), text_at(reply, "/parameters/refused/0/errno"));
        json_object_put(reply);
        return name;
}

static void trigger(int fd, int id) {
        struct json_object *reply;
        char parameters[64];

        format(parameters, sizeof(parameters), "{\"name\":\"n%d\"}", id);
        reply = client_call(fd, "org.kevd.events.Trigger", parameters);
        ck_assert_int_eq(number_at(reply, "/parameters/reached"), 1);
        json_object_put(reply);
}

static void expect_event(int fd, int id) {
        struct json_object *event = due_event(fd);

        ck_assert_ptr_nonnull(event);
        ck_assert_int_eq(number_at(event, "/id"), id);
        json_object_put(event);
}

static void expect_works(int fd, int id) {
        trigger(fd, id);
        expect_event(fd, id);
}

static int64_t limit_of(int fd, const char *pointer) {
        struct json_object *reply = client_call(fd, "org.kevd.events.GetLimits", NULL);
        int64_t value = number_at(reply, pointer);

        json_object_put(reply);
        return value;
}

/* ---- limits ------------------------------------------------------------------------------------------------- */

START_TEST(test_watches) {
        struct daemon *daemon = start("limit-watches = 5\n");
        int fd = client_connect(daemon->socket);

        harness_label(_i ? "Reload" : "SIGHUP");
        for (int id = 1; id <= 5; id++)
                ck_assert_str_eq(add(fd, id), "");
        ck_assert_str_eq(add(fd, 6), "EDQUOT");
        write_configuration("limit-watches = 2\n");
        reload(daemon, _i);
        ck_assert_int_eq(limit_of(fd, "/parameters/watches"), 2);
        for (int id = 1; id <= 5; id++)
                expect_works(fd, id);
        ck_assert_str_eq(call(fd, "org.kevd.events.Change", "{\"remove\":[1,2]}"), "");
        ck_assert_str_eq(add(fd, 1), "EDQUOT"); /* three are one too many still */
        ck_assert_str_eq(call(fd, "org.kevd.events.Change", "{\"remove\":[3,4]}"), "");
        ck_assert_str_eq(add(fd, 1), "");
        write_configuration("limit-watches = 6\n");
        reload(daemon, _i);
        for (int id = 2; id <= 4; id++)
                ck_assert_str_eq(add(fd, id), "");
        ck_assert_str_eq(add(fd, 6), "");
        ck_assert_str_eq(add(fd, 7), "EDQUOT");
        for (int id = 1; id <= 6; id++)
                expect_works(fd, id);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_connections) {
        struct daemon *daemon = start("limit-connections = 3\n");
        int fds[5];

        for (int i = 0; i < 3; i++) {
                fds[i] = client_connect(daemon->socket);
                ck_assert_str_eq(add(fds[i], i + 1), "");
        }
        write_configuration("limit-connections = 1\n");
        hang_up(daemon);
        for (int i = 0; i < 3; i++)
                expect_works(fds[i], i + 1);
        fds[3] = client_connect(daemon->socket);
        client_expect_close(fds[3], HARNESS_REPLY_MSEC);
        (void)close(fds[3]);
        write_configuration("limit-connections = 5\n");
        hang_up(daemon);
        for (int i = 3; i < 5; i++) {
                fds[i] = client_connect(daemon->socket);
                ck_assert_str_eq(add(fds[i], i + 1), "");
        }
        for (int i = 0; i < 5; i++) {
                expect_works(fds[i], i + 1);
                (void)close(fds[i]);
        }
        daemon_stop(daemon);
}
END_TEST

/* What waits in a queue is there, each event by itself; and a queue of before has the limit of now. */
START_TEST(test_queues) {
        enum { EVENTS = 2000 };
        struct daemon *daemon = start("limit-queue-bytes = 16777216\n");
        int fd = client_connect(daemon->socket);

        ck_assert_str_eq(add(fd, 1), "");
        ck_assert_int_eq(limit_of(fd, "/parameters/queueBytes"), 4194304);
        for (int i = 0; i < EVENTS; i++)
                trigger(fd, 1);
        write_configuration("limit-queue-bytes = 65536\n");
        hang_up(daemon);
        ck_assert_int_eq(limit_of(fd, "/parameters/queueBytes"), 16384);
        for (int i = 1; i <= EVENTS; i++) {
                struct json_object *event = due_event(fd);

                ck_assert_msg(event, "only %d events", i - 1);
                ck_assert_int_eq(number_at(event, "/seq"), i);
                ck_assert_int_eq(number_at(event, "/count"), 1);
                json_object_put(event);
        }
        ck_assert_ptr_null(due_event(fd));
        /* From here on it is bounded: all are told, by fewer events. */
        for (int i = 0; i < EVENTS; i++)
                trigger(fd, 1);
        for (int64_t count = 0, n = 0; count < EVENTS; n++) {
                struct json_object *event = due_event(fd);

                ck_assert_ptr_nonnull(event);
                ck_assert_int_lt(n, EVENTS - 1);
                count += number_at(event, "/count");
                ck_assert_int_le(count, EVENTS);
                json_object_put(event);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- what else ------------------------------------------------------------------------------------------------- */

static const char *watch_process(int fd, int id, pid_t pid) {
        static char name[64];
        struct json_object *reply;
        char parameters[128];

        format(parameters, sizeof(parameters), "{\"add\":[{\"id\":%d,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\"]}]}", id,
               (int)pid);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        format(name, sizeof(name), "%s", text_at(reply, "/parameters/refused/0/errno"));
        json_object_put(reply);
        return name;
}

/* A group that may see all processes may from then on, and what it sees already it goes on seeing. */
START_TEST(test_observers) {
        struct daemon *daemon;
        int fd;

        if (geteuid() != 0)
                harness_skip("takes root, who can become other users");
        daemon = start("");
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        ck_assert_int_eq(chmod(daemon->socket, 0666), 0);
        fd = client_connect_as(daemon->socket, OTHER_CLIENT);
        ck_assert_str_eq(watch_process(fd, 1, getpid()), "EPERM");
        write_configuration("process-observers = 0\n"); /* root's own group, which client_connect_as() leaves to it */
        hang_up(daemon);
        ck_assert_str_eq(watch_process(fd, 1, getpid()), "");
        write_configuration("");
        hang_up(daemon);
        ck_assert_str_eq(watch_process(fd, 2, getpid()), "EPERM");
        ck_assert_str_eq(call(fd, "org.kevd.events.Change", "{\"remove\":[1]}"), ""); /* it was there */
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_log_level) {
        struct daemon *daemon = start("log-level = err\n");
        struct json_object *status;
        int fd = client_connect(daemon->socket);

        hang_up(daemon);
        ck_assert_msg(!strstr(log_text(), "was read again"), "%s", log_text());
        write_configuration("log-level = debug\n");
        hang_up(daemon);
        ck_assert_msg(strstr(log_text(), "the configuration was read again"), "%s", log_text());
        status = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        ck_assert_str_eq(text_at(status, "/parameters/logLevel"), "debug");
        json_object_put(status);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* What can't change under way is said. */
START_TEST(test_restart) {
        static const char *const keys[] = {
                "mode", "file-queue", "netdev-buffer", "process-buffer", "listen",
        };
        struct daemon *daemon = start("mode = user\n");
        char text[128];

        write_configuration("limit-timers = 7\n");
        hang_up(daemon);
        ck_assert_msg(!strstr(log_text(), "takes a restart"), "%s", log_text());
        write_configuration("mode = private\nfile-queue = limited\nnetdev-buffer = 4096\nprocess-buffer = 8192\n"
                            "listen = /nowhere\nlimit-timers = 7\n");
        hang_up(daemon);
        /* The harness gives these on the command line, which goes before the file. */
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
                bool given = strcmp(keys[i], "mode") == 0 || strcmp(keys[i], "listen") == 0;

                format(text, sizeof(text), "kevd: %s: what the configuration has now takes a restart", keys[i]);
                ck_assert_msg(!strstr(log_text(), text) == given, "%s in %s", keys[i], log_text());
        }
        daemon_stop(daemon);
}
END_TEST

/* ---- a configuration that is wrong --------------------------------------------------------------------------- */

static const struct {
        const char *text, *complaint; /* behind the file's name */
} wrong[] = {
        { "# fine\nlimit-watches = none\n", ":2: limit-watches: \"none\" is not a number" },
        { "limit-watches = 1\nlog-level = loud\n", ":2: log-level: \"loud\"" },
        { "limit-watches = 1\nlimit-colours = 1\n", ":2: there is no key \"limit-colours\"" },
        { "limit-watches = 1\nprocess-observers = nobody-of-that-name\n", ":2: process-observers: there is no group" },
        { "limit-watches = 1\n\xff\xfe = 1\n", ":2: there is no key" },
        { NULL, ": No such file or directory" },
};

START_TEST(test_wrong) {
        struct daemon *daemon = start("limit-watches = 3\n");
        int fd = client_connect(daemon->socket);
        char complaint[PATH_MAX + 128];
        struct json_object *reply;

        harness_label(wrong[_i].complaint + 1);
        if (wrong[_i].text)
                write_configuration(wrong[_i].text);
        else
                assert_system(unlink(configuration()) == 0, "unlink");
        format(complaint, sizeof(complaint), "%s%s", configuration(), wrong[_i].complaint);
        hang_up(daemon);
        ck_assert_msg(strstr(log_text(), complaint), "%s is not in %s", complaint, log_text());
        reply = client_call(fd, "org.kevd.manager.Reload", NULL);
        ck_assert_str_eq(text_at(reply, "/error"), "org.kevd.manager.ConfigurationInvalid");
        if (wrong[_i].text && strchr(wrong[_i].text, '\xff'))
                ck_assert_str_eq(text_at(reply, "/parameters/reason"), "Invalid argument"); /* it is no text */
        else
                ck_assert_msg(strncmp(text_at(reply, "/parameters/reason"), complaint, strlen(complaint)) == 0 &&
                                      !strchr(text_at(reply, "/parameters/reason"), '\n'),
                              "%s", json_object_to_json_string(reply));
        json_object_put(reply);
        /* All is as it was. */
        ck_assert_int_eq(limit_of(fd, "/parameters/watches"), 3);
        write_configuration("limit-watches = 4\n");
        ck_assert_str_eq(call(fd, "org.kevd.manager.Reload", NULL), "");
        ck_assert_int_eq(limit_of(fd, "/parameters/watches"), 4);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- under way --------------------------------------------------------------------------------------------------- */

static void make_fifo(void) {
        assert_system(unlink(configuration()) == 0 && mkfifo(configuration(), 0600) == 0, "mkfifo");
}

/* A file that is slow to be read holds nobody up but who waits for it. */
START_TEST(test_slow) {
        struct daemon *daemon = start("limit-watches = 3\n");
        int waiting = client_connect(daemon->socket), leaving = client_connect(daemon->socket);
        int fd = client_connect(daemon->socket);
        struct json_object *reply;

        make_fifo();
        client_send_message(waiting, "{\"method\":\"org.kevd.manager.Reload\"}");
        client_send_message(waiting, "{\"method\":\"org.kevd.events.GetLimits\"}");
        client_send_message(leaving, "{\"method\":\"org.kevd.manager.Reload\"}");
        expect_begin(daemon, 0);
        ck_assert_str_eq(add(fd, 1), "");
        expect_works(fd, 1);
        (void)close(leaving);
        ck_assert_ptr_null(client_receive(waiting, 50));
        expect_works(fd, 1);
        /* Whoever asked while it was read has it read again: what it says then counts. */
        write_configuration("limit-watches = 4\n");
        expect_end(daemon);
        reply = client_receive(waiting, HARNESS_REPLY_MSEC);
        ck_assert(reply && !json_at(reply, "/error"));
        json_object_put(reply);
        reply = client_receive(waiting, HARNESS_REPLY_MSEC);
        ck_assert_int_eq(number_at(reply, "/parameters/watches"), 4);
        json_object_put(reply);
        /* The second reading finds nobody who writes, until somebody does. */
        expect_begin(daemon, 0);
        expect_works(fd, 1);
        write_configuration("limit-watches = 5\n");
        expect_end(daemon);
        ck_assert_int_eq(limit_of(fd, "/parameters/watches"), 5);
        (void)close(waiting);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* One that hangs does not keep the daemon from ending. */
START_TEST(test_end_while_reading) {
        struct daemon *daemon = start("");
        int fd = client_connect(daemon->socket);

        make_fifo();
        client_send_message(fd, "{\"method\":\"org.kevd.manager.Reload\"}");
        expect_begin(daemon, 0);
        daemon_stop(daemon);
        (void)close(fd);
}
END_TEST

struct fds {
        pid_t pid;
        size_t n;
};

static bool has_fds(void *userdata) {
        const struct fds *fds = userdata;

        return n_fds_of(fds->pid) == fds->n;
}

/* From many sides at once: each is answered, and nothing is left behind. */
START_TEST(test_many) {
        enum { CLIENTS = 5, CALLS = 20 };
        struct daemon *daemon = start("limit-watches = 3\n");
        struct fds before = { .pid = daemon->pid };
        int fds[CLIENTS];

        hang_up(daemon);
        for (int i = 0; i < CLIENTS; i++) {
                fds[i] = client_connect(daemon->socket);
                ck_assert_int_eq(limit_of(fds[i], "/parameters/watches"), 3);
        }
        before.n = n_fds_of(daemon->pid);
        for (int n = 0; n < CALLS; n++) {
                for (int i = 0; i < CLIENTS; i++)
                        client_send_message(fds[i], i == 0 ? "{\"method\":\"org.kevd.manager.Reload\",\"oneway\":true}" :
                                                             "{\"method\":\"org.kevd.manager.Reload\"}");
                (void)kill(daemon->pid, SIGHUP);
                while (next_notification(daemon, 0)) /* there is not much room for them */
                        ;
        }
        for (int i = 1; i < CLIENTS; i++)
                for (int n = 0; n < CALLS; n++) {
                        struct json_object *reply = NULL;

                        for (int64_t deadline = now_msec() + HARNESS_REPLY_MSEC; !reply && now_msec() < deadline;) {
                                while (next_notification(daemon, 0))
                                        ;
                                reply = client_receive(fds[i], 10);
                        }
                        ck_assert_msg(reply && !json_at(reply, "/error"), "reply %d of client %d", n, i);
                        json_object_put(reply);
                }
        for (int i = 0; i < CLIENTS; i++)
                ck_assert_int_eq(limit_of(fds[i], "/parameters/watches"), 3);
        ck_assert(wait_until(has_fds, &before, HARNESS_REPLY_MSEC));
        for (int i = 0; i < CLIENTS; i++)
                (void)close(fds[i]);
        daemon_stop(daemon);
}
END_TEST

/* ---- the manager's methods ------------------------------------------------------------------------------------ */

static void change_manager(int fd, const char *error) {
        static const char *const denied[][2] = {
                { "org.kevd.manager.Reload", NULL }, { "org.kevd.manager.Disconnect", "{\"id\":1}" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(denied); i++)
                ck_assert_str_eq(call(fd, denied[i][0], denied[i][1]), error);
}

/* They are root's, and the daemon's user's. */
START_TEST(test_denied) {
        struct daemon *daemon;
        int fd, root;

        if (geteuid() != 0)
                harness_skip("takes root, who can become other users");
        daemon = start("");
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        ck_assert_int_eq(chmod(daemon->socket, 0666), 0);
        root = client_connect(daemon->socket);
        ck_assert_str_eq(add(root, 1), "");
        fd = client_connect_as(daemon->socket, OTHER_CLIENT);
        change_manager(fd, "org.varlink.service.PermissionDenied");
        expect_works(root, 1);
        ck_assert_ptr_null(next_notification(daemon, 0));
        (void)close(fd);
        (void)close(root);
        daemon_stop(daemon);
}
END_TEST

static int64_t first_id(int fd) {
        struct json_object *reply = client_call(fd, "org.kevd.manager.ListQueues", NULL);
        int64_t id = number_at(reply, "/parameters/queues/0/id");

        json_object_put(reply);
        return id;
}

START_TEST(test_disconnect) {
        struct daemon *daemon = start("");
        int fd = client_connect(daemon->socket), other;
        char parameters[64];
        int64_t id = first_id(fd);

        other = client_connect(daemon->socket);
        ck_assert_str_eq(add(fd, 1), "");
        ck_assert_str_eq(add(other, 2), "");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"more\":true}");
        format(parameters, sizeof(parameters), "{\"id\":%lld}", (long long)id);
        ck_assert_str_eq(call(other, "org.kevd.manager.Disconnect", parameters), "");
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        (void)close(fd);
        ck_assert_str_eq(call(other, "org.kevd.manager.Disconnect", parameters), "org.kevd.manager.NoSuchConnection");
        ck_assert_str_eq(call(other, "org.kevd.manager.Disconnect", "{\"id\":-1}"), "org.kevd.manager.NoSuchConnection");
        ck_assert_str_eq(call(other, "org.kevd.manager.Disconnect", NULL), "org.varlink.service.InvalidParameter");
        expect_works(other, 2);
        /* Its own, by a call that is answered. */
        format(parameters, sizeof(parameters), "{\"id\":%lld}", (long long)first_id(other));
        ck_assert_str_eq(call(other, "org.kevd.manager.Disconnect", parameters), "");
        client_expect_close(other, HARNESS_REPLY_MSEC);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* ---- the watchdog ------------------------------------------------------------------------------------------------ */

enum { WATCHDOG_MSEC = 200 };

static void set_watchdog(const char *pid) {
        char usec[32];

        format(usec, sizeof(usec), "%d", WATCHDOG_MSEC * 1000);
        ck_assert_int_eq(setenv("WATCHDOG_USEC", usec, 1), 0);
        ck_assert_int_eq(pid ? setenv("WATCHDOG_PID", pid, 1) : unsetenv("WATCHDOG_PID"), 0);
}

/* The loop feeds it: while that stands still nothing comes, and it goes on after. */
START_TEST(test_watchdog) {
        struct daemon *daemon;

        set_watchdog(NULL);
        daemon = start("");
        for (int i = 0; i < 5; i++) {
                const char *text = next_notification(daemon, HARNESS_REPLY_MSEC);

                ck_assert_ptr_nonnull(text);
                ck_assert_str_eq(text, "WATCHDOG=1");
        }
        assert_system(kill(daemon->pid, SIGSTOP) == 0, "kill");
        while (next_notification(daemon, 0)) /* what was under way */
                ;
        ck_assert_ptr_null(next_notification(daemon, 2 * WATCHDOG_MSEC));
        assert_system(kill(daemon->pid, SIGCONT) == 0, "kill");
        ck_assert_ptr_nonnull(next_notification(daemon, HARNESS_REPLY_MSEC));
        daemon_stop(daemon);
}
END_TEST

/* None for this process: none is fed, and an idle daemon does nothing. */
START_TEST(test_no_watchdog) {
        struct daemon *daemon;

        harness_label(_i ? "another's" : "none");
        if (_i)
                set_watchdog("1");
        daemon = start("");
        ck_assert_ptr_null(next_notification(daemon, 2 * WATCHDOG_MSEC));
        daemon_stop(daemon);
}
END_TEST

/* ---- a service manager that is busy ----------------------------------------------------------------------------- */

#define FILLER "STATUS="

/* Whoever else says something would have to wait. One socket alone may not have so much under way. Returns how many. */
static unsigned fill_queue(const struct daemon *daemon) {
        struct sockaddr_un address;
        socklen_t size = sizeof(address);
        unsigned n = 0, before;

        assert_system(getsockname(daemon->notify_fd, (struct sockaddr *)&address, &size) == 0, "getsockname");
        do {
                int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

                assert_system(fd >= 0, "socket");
                before = n;
                while (sendto(fd, FILLER, strlen(FILLER), 0, (struct sockaddr *)&address, size) > 0)
                        n++;
                ck_assert_int_eq(errno, EAGAIN);
                (void)close(fd);
        } while (n > before);
        return n;
}

static bool has_limit(void *fd) {
        return limit_of(*(int *)fd, "/parameters/watches") == 4;
}

/* Clients do not wait for it, and what it is to know it is told when it has room. */
START_TEST(test_busy_reload) {
        struct daemon *daemon = start("limit-watches = 3\n");
        int fd = client_connect(daemon->socket);
        uint64_t since = monotonic_usec();
        unsigned n;

        write_configuration("limit-watches = 4\n");
        n = fill_queue(daemon);
        assert_system(kill(daemon->pid, SIGHUP) == 0, "kill");
        ck_assert(wait_until(has_limit, &fd, HARNESS_REPLY_MSEC));
        for (; n > 0; n--)
                ck_assert_str_eq(next_notification(daemon, 0), FILLER);
        expect_begin(daemon, since);
        expect_end(daemon);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_busy_watchdog) {
        struct daemon *daemon;
        struct json_object *reply;
        char call[96];
        int fd;

        set_watchdog(NULL);
        daemon = start("");
        fd = client_connect(daemon->socket);
        ck_assert_str_eq(add(fd, 1), "");
        (void)fill_queue(daemon);
        /* By its end it was to be fed more than once. */
        format(call, sizeof(call), "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":%d}}",
               2 * WATCHDOG_MSEC);
        client_send_message(fd, call);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_ptr_nonnull(reply);
        json_object_put(reply);
        for (const char *text = FILLER; strcmp(text, "WATCHDOG=1") != 0;) {
                text = next_notification(daemon, HARNESS_REPLY_MSEC);
                ck_assert_ptr_nonnull(text);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("reload");
        TCase *c;

        c = harness_case(suite, "limits");
        tcase_add_loop_test(c, test_watches, 0, 2);
        tcase_add_test(c, test_connections);
        tcase_add_test(c, test_queues);

        c = harness_case(suite, "keys");
        tcase_add_test(c, test_observers);
        tcase_add_test(c, test_log_level);
        tcase_add_test(c, test_restart);
        tcase_add_loop_test(c, test_wrong, 0, ARRAY_SIZE(wrong));

        c = harness_case(suite, "under_way");
        tcase_add_test(c, test_slow);
        tcase_add_test(c, test_end_while_reading);
        tcase_add_test(c, test_many);

        c = harness_case(suite, "manager");
        tcase_add_test(c, test_denied);
        tcase_add_test(c, test_disconnect);

        c = harness_case(suite, "watchdog");
        tcase_add_test(c, test_watchdog);
        tcase_add_loop_test(c, test_no_watchdog, 0, 2);

        c = harness_case(suite, "busy");
        tcase_add_test(c, test_busy_reload);
        tcase_add_test(c, test_busy_watchdog);
        return harness_main(argc, argv);
}
