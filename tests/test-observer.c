/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The processes that look at others for the daemon. The one for all is replaced if it ends, or does not answer, and
 * missed if it is not. A user's may hang in what is that user's, and nobody else waits for it.
 */

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "descriptors.h"
#include "files.h"
#include "harness.h"
#include "holdings.h"
#include "macro.h"
#include "silent.h"

enum {
        STRANGER = 65533,
        HANGING = 64300, /* whose observer does */
        OTHERS = 64301,  /* each time another one */
        ENDS_MAX = 5,
        NO_FIGURES = 3, /* a status */
        AT_ONCE_MSEC = 3000, /* the daemon waits 5 s for an observer that does not answer */
};

struct observer {
        const struct daemon *daemon;
        pid_t before, now;
};

static bool is_another(void *userdata) {
        struct observer *observer = userdata;

        observer->now = daemon_find_helper(observer->daemon->pid, "kevd-observer");
        return observer->now > 0 && observer->now != observer->before;
}

/* One that is not `before`. */
static pid_t expect_observer(const struct daemon *daemon, pid_t before) {
        struct observer observer = { daemon, before, 0 };

        ck_assert_msg(wait_until(is_another, &observer, HARNESS_REPLY_MSEC), "there is no observer but %d", (int)before);
        return observer.now;
}

/* The daemon lets a user name a path only if it could see that the user's mounts are its own. */
static bool may_name_paths(const struct daemon *daemon, const char *path) {
        char parameters[512];
        int fd = client_connect_as(daemon->socket, STRANGER);
        struct json_object *reply;
        bool may;

        (void)snprintf(parameters, sizeof(parameters), "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"}]}", path);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        may = !json_at(reply, "/parameters/refused/0");
        if (!may)
                ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EXDEV");
        json_object_put(reply);
        (void)close(fd);
        return may;
}

static struct daemon *start(void) {
        struct daemon *daemon;

        if (geteuid() != 0)
                harness_skip("only root's daemon has helpers");
        assert_system(chmod(harness_tempdir(), 0755) == 0, harness_tempdir());
        daemon = daemon_start("--mode=system");
        assert_system(chmod(daemon->socket, 0666) == 0, daemon->socket);
        return daemon;
}

START_TEST(test_replaced) {
        struct daemon *daemon = start();
        pid_t pid = expect_observer(daemon, 0);

        ck_assert(may_name_paths(daemon, harness_tempdir()));
        for (int i = 1; i < ENDS_MAX; i++) {
                assert_system(kill(pid, SIGKILL) == 0, "kill");
                pid = expect_observer(daemon, pid);
                ck_assert(may_name_paths(daemon, harness_tempdir()));
        }
        daemon_stop(daemon);
}
END_TEST

/* However often it ends another comes. Until then it sees less, says no, and serves on. */
START_TEST(test_ends_again_and_again) {
        struct daemon *daemon = start();
        pid_t pid = expect_observer(daemon, 0);

        for (int i = 0; i < 2 * ENDS_MAX; i++) {
                assert_system(kill(pid, SIGKILL) == 0, "kill");
                (void)may_name_paths(daemon, harness_tempdir()); /* as far as the kernel lets the daemon see by itself */
                pid = expect_observer(daemon, pid);
        }
        ck_assert(may_name_paths(daemon, harness_tempdir()));
        daemon_stop(daemon);
}
END_TEST

/* Who connects while it hangs waits a few seconds, and is told all the same: by another. */
START_TEST(test_hangs) {
        struct daemon *daemon = start();
        pid_t pid = expect_observer(daemon, 0);

        ck_assert(may_name_paths(daemon, harness_tempdir())); /* by then it has begun */
        assert_system(kill(pid, SIGSTOP) == 0, "kill");
        ck_assert(may_name_paths(daemon, harness_tempdir()));
        (void)expect_observer(daemon, pid);
        assert_system(kill(pid, SIGCONT) == 0, "kill");
        daemon_stop(daemon);
}
END_TEST

/* ---- a user's ----------------------------------------------------------------------------------------------------- */

/* Real, effective and saved: whose process it is goes by all of them. */
static void become(uid_t uid) {
        assert_system(setgroups(0, NULL) == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0,
                      "setresuid");
}

/* What the daemon has to look at a process for: which namespaces it lives in, and how much is in a pipe of its own. Its
 * status is 0, or NO_FIGURES. */
static _Noreturn void be_served(const struct daemon *daemon, uid_t uid) {
        struct json_object *reply, *event;
        int kevd, fds[2], n_refused;

        become(uid);
        kevd = client_connect(daemon->socket);
        make_pipe(fds);
        ck_assert_int_eq(write(fds[1], "hello", 5), 5);
        reply = change_reply(kevd, fds[0], "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0,\"data\":2},"
                                           "{\"id\":2,\"filter\":\"tree\",\"path\":\"%s\"}]}", harness_tempdir());
        n_refused = (int)json_object_array_length(json_at(reply, "/parameters/refused"));
        if (n_refused > 0) {
                ck_assert_int_eq(n_refused, 1);
                ck_assert_int_eq(number_at(reply, "/parameters/refused/0/id"), 1);
                ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EAGAIN");
        }
        json_object_put(reply);
        if (n_refused > 0)
                _exit(NO_FIGURES);
        event = next_event(kevd);
        ck_assert_int_eq(number_at(event, "/id"), 1);
        ck_assert_int_eq(number_at(event, "/data"), 5);
        json_object_put(event);
        _exit(0);
}

static int status_of(pid_t pid) {
        int status;

        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFEXITED(status), "%d", status);
        return WEXITSTATUS(status);
}

/* As a process of that user's sees it. */
static bool is_served(const struct daemon *daemon, uid_t uid) {
        pid_t pid = fork();
        int status;

        assert_system(pid >= 0, "fork");
        if (pid == 0)
                be_served(daemon, uid);
        status = status_of(pid);
        ck_assert_msg(status == 0 || status == NO_FIGURES, "user %u: %d", (unsigned)uid, status);
        return status == 0;
}

static void expect_served_at_once(const struct daemon *daemon, uid_t uid) {
        int64_t before = now_msec();

        ck_assert_msg(is_served(daemon, uid), "user %u is told no figures", (unsigned)uid);
        ck_assert_msg(now_msec() - before < AT_ONCE_MSEC, "user %u has waited %lld ms", (unsigned)uid,
                      (long long)(now_msec() - before));
}

/* Has a watch of a file, and then what never answers under the file's number: that is found out by asking it. Others of
 * its watches have no figures then. */
static _Noreturn void have_observer_hang(const struct daemon *daemon, const char *file, int silent_fd) {
        int kevd, fd, fds[2];

        become(HANGING);
        kevd = client_connect(daemon->socket);
        fd = open(file, O_RDONLY | O_CLOEXEC);
        assert_system(fd >= 0, file);
        change(kevd, fd, "{\"add\":[{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}");
        expect_notes(kevd, "lowat");
        assert_system(dup2(silent_fd, fd) == fd, "dup2");
        append(file, "and more");
        make_pipe(fds);
        refused(kevd, fds[0], "EAGAIN", "{\"add\":[{\"id\":2,\"filter\":\"read\",\"descriptor\":0,\"data\":2}]}");
        _exit(0);
}

/* And stays for waitpid(2). */
static bool has_ended(pid_t pid) {
        siginfo_t end = { 0 };

        assert_system(waitid(P_PID, (id_t)pid, &end, WEXITED | WNOHANG | WNOWAIT) == 0, "waitid");
        return end.si_pid == pid;
}

static bool has_asked(void *userdata) {
        return silent_requests() > *(unsigned *)userdata;
}

static bool has_two_observers(void *userdata) {
        const struct daemon *daemon = userdata;

        return holdings_named(daemon->pid, "kevd-observer") == 2;
}

static bool is_served_again(void *userdata) {
        return is_served(userdata, HANGING);
}

/* While the daemon waits for it, and once it has given it up. */
START_TEST(test_of_user_hangs) {
        unsigned before = silent_requests();
        const char *silent, *file;
        struct daemon *daemon;
        pid_t server, hanging;
        uid_t other = OTHERS;
        int silent_fd;

        if (geteuid() != 0)
                harness_skip("only root's daemon has helpers");
        need_private_mounts();
        silent = make_root("silent");
        server = silent_mount(silent);
        if (server < 0)
                harness_skip("there is no FUSE");
        silent_fd = open(silent, O_PATH | O_DIRECTORY | O_CLOEXEC); /* which asks it nothing */
        assert_system(silent_fd >= 0, silent);
        file = at("%s/file", harness_tempdir());
        append(file, "something");
        assert_system(chmod(file, 0666) == 0, file);
        daemon = start();
        expect_served_at_once(daemon, HANGING);

        hanging = fork();
        assert_system(hanging >= 0, "fork");
        if (hanging == 0)
                have_observer_hang(daemon, file, silent_fd);
        ck_assert_msg(wait_until(has_asked, &before, HARNESS_REPLY_MSEC), "the observer does not look");
        do
                expect_served_at_once(daemon, other++);
        while (!has_ended(hanging));
        ck_assert_int_eq(status_of(hanging), 0);
        ck_assert(!is_served(daemon, HANGING));
        expect_served_at_once(daemon, other++);
        ck_assert_msg(wait_until(has_two_observers, daemon, HARNESS_REPLY_MSEC), "there are %zu observers",
                      holdings_named(daemon->pid, "kevd-observer"));

        silent_end(server, silent);
        ck_assert_msg(wait_until(is_served_again, daemon, HARNESS_REPLY_MSEC), "the user has no observer any more");
        (void)close(silent_fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("observer");
        TCase *c = harness_case(suite, "helper");

        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_replaced);
        tcase_add_test(c, test_ends_again_and_again);
        tcase_add_test(c, test_hangs);

        c = harness_case(suite, "users");
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_of_user_hangs);
        return harness_main(argc, argv);
}
