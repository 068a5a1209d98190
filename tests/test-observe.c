/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * org.kevd.Manager.ObserveProcesses: who asks on D-Bus may see the processes of all users, if polkit says so. In
 * polkit's place stands a process of the test's, which answers as it is told.
 */

#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>
#include <systemd/sd-bus.h>

#include "buses.h"
#include "macro.h"
#include "manager.h"
#include "polkit.h"
#include "processes.h"

/* A dbus-daemon turns away who is in no list of users. */
enum { NOBODY = 65534 };

#define NO_CONNECTION "org.kevd.Error.NoConnection"

/* ---- a test's surroundings ------------------------------------------------------------------------------ */

static struct {
        pid_t bus, authority;
        struct daemon *daemon;   /* or */
        struct manager *manager; /* of one that is killed */
        struct maker other; /* of root's */
        sd_bus *caller;     /* the user's */
        int fd;             /* the same process's connection */
} t;

static void start_around(void) {
        t.bus = 0;
        if (geteuid() != 0)
                harness_skip("takes root, who can become other users");
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        t.bus = bus_start();
        t.authority = authority_start();
        t.other = maker_start(0);
}

static void connect_to(const char *socket) {
        sd_bus_flush_close_unref(bus_connect_to_daemon());
        t.fd = client_connect_as(socket, NOBODY);
        t.caller = bus_connect_as(NOBODY);
}

static void start(void) {
        start_around();
        t.daemon = start_following(NULL);
        connect_to(t.daemon->socket);
}

static void start_managed(void) {
        start_around();
        t.manager = manager_new((const char *const[]){ "--mode=system", "--process-feed=connector", NULL });
        assert_system(chmod(manager_socket(t.manager), 0666) == 0, manager_socket(t.manager));
        manager_start(t.manager);
        need_feed_at(manager_socket(t.manager));
        connect_to(manager_socket(t.manager));
}

static void stop(void) {
        if (t.bus == 0)
                return;
        t.caller = sd_bus_flush_close_unref(t.caller);
        (void)close(t.fd);
        maker_stop(&t.other);
        if (t.manager)
                manager_free(t.manager);
        else
                daemon_stop(t.daemon);
        authority_stop(t.authority);
        bus_stop(t.bus);
}

/* "" if it was granted, or the error's name. It lives until the next. */
static const char *ask(bool interactive) {
        static char name[128];
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *call = NULL;
        int r;

        ck_assert_int_ge(sd_bus_message_new_method_call(t.caller, &call, "org.kevd", "/org/kevd/Manager",
                                                        "org.kevd.Manager", "ObserveProcesses"), 0);
        ck_assert_int_ge(sd_bus_message_set_allow_interactive_authorization(call, interactive), 0);
        r = sd_bus_call(t.caller, call, 0, &error, NULL);
        (void)snprintf(name, sizeof(name), "%s", r < 0 ? error.name : "");
        sd_bus_message_unref(call);
        sd_bus_error_free(&error);
        return name;
}

/* Whether the connection is told how a process of root's ends. */
static void expect_sees(int fd, bool sees) {
        struct maker own = maker_start(NOBODY);
        pid_t roots = maker_fork(&t.other, run_exit, 3), mine = maker_fork(&own, run_exit, 4);

        watch(fd, "", "'id':1,'match':{},'notes':['exit']");
        watch(fd, sees ? "" : "EPERM", "'id':2,'pid':%d,'notes':['exit']", (int)roots);
        go(&t.other, 1);
        ck_assert_int_eq(maker_reap(&t.other, roots), 3 << 8);
        go(&own, 1);
        ck_assert_int_eq(maker_reap(&own, mine), 4 << 8);
        for (bool seen = false, seen_by_pid = false, seen_mine = false;;) {
                struct json_object *event = next_told(fd);
                pid_t pid = pid_of(event);
                bool by_pid = json_object_get_int64(json_at(event, "/id")) == 2;

                ck_assert_msg(is_note(event, "exit"), "%s", json_object_to_json_string(event));
                json_object_put(event);
                seen |= pid == roots && !by_pid;
                seen_by_pid |= pid == roots && by_pid;
                seen_mine |= pid == mine;
                if (!seen_mine || (sees && !(seen && seen_by_pid))) /* just after a start they may come in another order */
                        continue;
                ck_assert_int_eq(seen, sees);
                ck_assert_int_eq(seen_by_pid, sees);
                break;
        }
        change(fd, "", sees ? "'remove':[1,2]" : "'remove':[1]");
        maker_stop(&own);
}

/* ---- tests ---------------------------------------------------------------------------------------------------- */

START_TEST(test_granted) {
        const char *name;

        authority->answer = ANSWER_YES;
        ck_assert_str_eq(ask(false), "");
        ck_assert_uint_eq(authority->n_asked, 1);
        ck_assert_str_eq(authority->action, "org.kevd.observe-processes");
        ck_assert_int_ge(sd_bus_get_unique_name(t.caller, &name), 0);
        ck_assert_str_eq(authority->subject, name);
        ck_assert_uint_eq(authority->flags, 0);
        expect_sees(t.fd, true);
        ck_assert_str_eq(ask(true), "");
        ck_assert_uint_eq(authority->flags, 1);
}
END_TEST

/* To the connections that the process has, and to no other user's, nor to those that it makes later. */
START_TEST(test_granted_to_these) {
        int stranger = client_connect_as(t.daemon->socket, STRANGER), later;

        authority->answer = ANSWER_YES;
        ck_assert_str_eq(ask(false), "");
        later = client_connect_as(t.daemon->socket, NOBODY);
        expect_sees(later, false);
        watch(stranger, "EPERM", "'id':1,'pid':%d,'notes':['exit']", (int)t.other.pid);
        (void)close(stranger);
        (void)close(later);
}
END_TEST

struct sketch {
        char bytes[1024];
        ssize_t size;
};

static struct sketch read_sketch(void) {
        int fd = manager_take_copy(t.manager, "w0");
        struct sketch sketch = { 0 };

        sketch.size = pread(fd, sketch.bytes, sizeof(sketch.bytes), 0);
        ck_assert_int_gt(sketch.size, 0);
        (void)close(fd);
        return sketch;
}

static bool is_another(void *sketch) {
        struct sketch now = read_sketch();

        return memcmp(&now, sketch, sizeof(now)) != 0;
}

/* The daemon is killed, and the next one knows of it. */
START_TEST(test_granted_before_a_kill) {
        int root = client_connect(manager_socket(t.manager));
        struct sketch before;

        authority->answer = ANSWER_YES;
        change(t.fd, "", "'add':[{'id':7,'filter':'user','name':'bell'}]");
        manager_wait_stored(t.manager, 3);
        before = read_sketch();
        ck_assert_str_eq(ask(false), "");
        ck_assert(wait_until(is_another, &before, HARNESS_REPLY_MSEC));
        json_object_put(client_call(root, "org.kevd.events.GetLimits", NULL)); /* by then it is whole */
        (void)close(root);
        manager_kill(t.manager);
        manager_start(t.manager);
        expect_sees(t.fd, true);
}
END_TEST

static const struct {
        const char *name;
        enum answer answer;
        const char *error;
} refusals[] = {
        { "no", ANSWER_NO, SD_BUS_ERROR_ACCESS_DENIED },
        { "challenge", ANSWER_CHALLENGE, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED },
        { "not to be understood", ANSWER_ODD, SD_BUS_ERROR_ACCESS_DENIED },
};

START_TEST(test_refused) {
        harness_label(refusals[_i].name);
        authority->answer = refusals[_i].answer;
        ck_assert_str_eq(ask(false), refusals[_i].error);
        ck_assert_uint_eq(authority->n_asked, 1);
        expect_sees(t.fd, false);
}
END_TEST

START_TEST(test_no_polkit) {
        authority_stop(t.authority);
        ck_assert_str_eq(ask(false), SD_BUS_ERROR_ACCESS_DENIED);
        expect_sees(t.fd, false);
        t.authority = authority_start();
}
END_TEST

static bool is_alone(void *fd) {
        struct json_object *status = client_call(*(const int *)fd, "org.kevd.manager.GetStatus", NULL);
        int64_t n = json_object_get_int64(json_at(status, "/parameters/connections"));

        json_object_put(status);
        return n == 1;
}

START_TEST(test_no_connection) {
        int root = client_connect(t.daemon->socket);

        authority->answer = ANSWER_YES;
        (void)close(t.fd);
        ck_assert(wait_until(is_alone, &root, HARNESS_REPLY_MSEC));
        (void)close(root);
        ck_assert_str_eq(ask(false), NO_CONNECTION);
        t.fd = client_connect_as(t.daemon->socket, NOBODY);
        expect_sees(t.fd, false);
}
END_TEST

static int on_reply(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error _unused_) {
        const sd_bus_error *error = sd_bus_message_get_error(reply);

        if (error && strcmp(error->name, SD_BUS_ERROR_LIMITS_EXCEEDED) == 0)
                (*(unsigned *)userdata)++;
        return 0;
}

/* Who waits for an answer that doesn't come is dropped when he goes, and there are never many of one user. */
START_TEST(test_unanswered) {
        const unsigned room = 4;
        unsigned refused = 0;

        authority->answer = ANSWER_NONE;
        for (unsigned i = 0; i < room + 3; i++)
                ck_assert_int_ge(sd_bus_call_method_async(t.caller, NULL, "org.kevd", "/org/kevd/Manager",
                                                          "org.kevd.Manager", "ObserveProcesses", on_reply, &refused,
                                                          ""), 0);
        while (refused < 3) {
                int r = sd_bus_process(t.caller, NULL);

                ck_assert_int_ge(r, 0);
                if (r == 0)
                        ck_assert_int_gt(sd_bus_wait(t.caller, HARNESS_REPLY_MSEC * UINT64_C(1000)), 0);
        }
        ck_assert(wait_until(authority_was_asked, &(unsigned){ room }, HARNESS_REPLY_MSEC));
        ck_assert_uint_eq(authority->n_asked, room);
        sd_bus_flush_close_unref(t.caller);
        t.caller = bus_connect_as(NOBODY);
        /* There is room again, and the daemon has not granted anything. */
        expect_sees(t.fd, false);
        authority->answer = ANSWER_NO;
        for (unsigned i = 0; i < room + 1; i++)
                ck_assert_str_eq(ask(false), SD_BUS_ERROR_ACCESS_DENIED);
}
END_TEST

/* ---- what is seen ---------------------------------------------------------------------------------------------- */

static int run_half(int code) {
        wait_go();
        return setresuid(NOBODY, 0, 0) == 0 ? code : 99; /* as a set-user-ID program has it */
}

struct seen {
        pid_t pid;
        unsigned n[3]; /* by watch */
        bool exe;
};

static void note_seen(struct json_object *event, void *userdata) {
        struct seen *seen = userdata;
        int64_t id = json_object_get_int64(json_at(event, "/id"));

        if (pid_of(event) != seen->pid || !is_note(event, "exit"))
                return;
        ck_assert_int_lt(id, (int64_t)ARRAY_SIZE(seen->n));
        seen->n[id]++;
        seen->exe |= json_at(event, "/process/exe") != NULL;
}

/* An observer is told of a process that isn't his own, but not what program it runs, nor whether it is one that he
 * asks for. */
static void expect_program(int fd, struct maker *maker, run_fn *run, bool knows) {
        struct seen seen = { .pid = maker_fork(maker, run, 3) };

        (void)take_events(fd, 0, note_seen, &seen); /* it is known by then */
        go(maker, 1);
        ck_assert_int_eq(maker_reap(maker, seen.pid), 3 << 8);
        for (int64_t end = now_msec() + HARNESS_REPLY_MSEC; seen.n[1] == 0 && now_msec() < end;)
                (void)take_events(fd, 50, note_seen, &seen);
        while (take_events(fd, 0, note_seen, &seen) > 0)
                ;
        ck_assert_uint_eq(seen.n[1], 1);
        ck_assert_uint_eq(seen.n[2], knows);
        ck_assert_int_eq(seen.exe, knows);
}

static void expect_programs(int fd) {
        struct maker own = maker_start(NOBODY);

        watch(fd, "", "'id':1,'match':{},'notes':['exit']");
        watch(fd, "", "'id':2,'match':{'exe':'test-observe'},'notes':['exit']");
        expect_program(fd, &own, run_exit, true);
        expect_program(fd, &t.other, run_exit, false);
        expect_program(fd, &t.other, run_half, false);
        maker_stop(&own);
}

START_TEST(test_programs) {
        authority->answer = ANSWER_YES;
        ck_assert_str_eq(ask(false), "");
        expect_programs(t.fd);
}
END_TEST

/* The administrator's group is let see the same. */
START_TEST(test_group) {
        const gid_t group = 64777;
        struct daemon *daemon = start_following("--process-observers=64777");
        int member, other = client_connect_as(daemon->socket, NOBODY);

        assert_system(setgroups(1, &group) == 0, "setgroups");
        member = client_connect_as(daemon->socket, NOBODY);
        assert_system(setgroups(0, NULL) == 0, "setgroups");
        expect_sees(other, false);
        expect_sees(member, true);
        expect_programs(member);
        (void)close(member);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* ---- kev ------------------------------------------------------------------------------------------------------- */

static int run_named(int code) {
        (void)prctl(PR_SET_NAME, "kevd-observed");
        return code;
}

/* Returns its pid. */
static pid_t start_kev(int *ret_output) {
        const char *kev = getenv("KEV");
        int fds[2];
        pid_t pid;

        if (!kev)
                harness_skip("KEV, the path of the program, is not in the environment");
        assert_system(pipe(fds) == 0, "pipe");
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                if (setresuid(NOBODY, NOBODY, NOBODY) < 0 || dup2(fds[1], STDOUT_FILENO) < 0 ||
                    dup2(fds[1], STDERR_FILENO) < 0)
                        _exit(126);
                (void)close(fds[0]);
                (void)execl(kev, "kev", "proc", "--all-users", "--json", "--comm", "kevd-observed",
                            "--address", t.daemon->socket, NULL);
                _exit(127);
        }
        (void)close(fds[1]);
        *ret_output = fds[0];
        return pid;
}

/* What it says until the text comes. */
static void read_until(int fd, const char *text) {
        static char output[64 * 1024];
        size_t size = 0;
        ssize_t n;

        do {
                n = read(fd, output + size, sizeof(output) - 1 - size);
                size += (size_t)MAX(n, 0);
                output[size] = 0;
                ck_assert_msg(n > 0, "%s", output);
        } while (!strstr(output, text));
}

START_TEST(test_program) {
        int output, status;
        pid_t kev, pid;

        authority->answer = ANSWER_YES;
        kev = start_kev(&output);
        read_until(output, "kev: watching\n");
        pid = maker_fork(&t.other, run_named, 5);
        ck_assert_int_eq(maker_reap(&t.other, pid), 5 << 8);
        read_until(output, "\"exitCode\":5");
        ck_assert_uint_eq(authority->flags, 1); /* somebody may be asked */
        (void)kill(kev, SIGKILL);
        ck_assert_int_eq(waitpid(kev, &status, 0), kev);
        (void)close(output);
        /* And without. */
        authority->answer = ANSWER_NO;
        kev = start_kev(&output);
        read_until(output, "kev: --all-users: Permission denied: polkit doesn't permit org.kevd.observe-processes\n");
        ck_assert_int_eq(waitpid(kev, &status, 0), kev);
        ck_assert_int_eq(WEXITSTATUS(status), 1);
        (void)close(output);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("observe");
        TCase *c = harness_case(suite, "polkit");

        tcase_add_checked_fixture(c, start, stop);
        tcase_add_test(c, test_granted);
        tcase_add_test(c, test_granted_to_these);
        tcase_add_loop_test(c, test_refused, 0, ARRAY_SIZE(refusals));
        tcase_add_test(c, test_no_polkit);
        tcase_add_test(c, test_no_connection);
        tcase_add_test(c, test_unanswered);
        tcase_add_test(c, test_programs);
        tcase_add_test(c, test_group);
        tcase_add_test(c, test_program);
        c = harness_case(suite, "killed");
        tcase_add_checked_fixture(c, start_managed, stop);
        tcase_add_test(c, test_granted_before_a_kill);
        return harness_main(argc, argv);
}
