/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Who may see what of the real daemon: peers that are another user, and peers in other namespaces or with another root
 * directory.
 */

#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "macro.h"
#include "protocol.h"

static void need_root(void) {
        if (geteuid() != 0)
                harness_skip("needs root");
}

START_TEST(test_other_user) {
        struct daemon *daemon;
        struct json_object *reply;
        char watch[PATH_MAX + 64];
        int fd, root;
        pid_t own;

        need_root();
        daemon = start_for_all();
        root = client_connect(daemon->socket);
        fd = client_connect_as(daemon->socket, NOBODY);

        for (size_t i = 0; i < 2; i++) {
                reply = client_call(fd, i ? "org.kevd.manager.GetStatus" : "org.kevd.manager.ListQueues", NULL);
                ck_assert_str_eq(text_at(reply, "/error"), "org.varlink.service.PermissionDenied");
                json_object_put(reply);
        }
        refused(fd, "{\"id\":1,\"filter\":\"proc\",\"pid\":1}", "EPERM");
        (void)snprintf(watch, sizeof(watch), "{\"id\":1,\"filter\":\"proc\",\"pid\":%d}", (int)daemon->pid);
        refused(fd, watch, "EPERM");
        ck_assert_int_eq(mkdir(at("%s/private", harness_tempdir()), 0700), 0);
        refused(fd, at("{\"id\":1,\"filter\":\"vnode\",\"path\":\"%s/private\"}", harness_tempdir()), "EACCES");
        refused(fd, at("{\"id\":1,\"filter\":\"tree\",\"path\":\"%s/private\"}", harness_tempdir()), "EACCES");

        /* Its own process, and one whose ids are not all its own. */
        own = fork();
        assert_system(own >= 0, "fork");
        if (own == 0) {
                if (setresgid(NOBODY, NOBODY, NOBODY) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
                        _exit(1);
                for (;;)
                        (void)pause();
        }
        for (;;) { /* until it has changed */
                reply = call(fd, "Change", "{\"add\":[{\"id\":5,\"filter\":\"proc\",\"pid\":%d}]}", (int)own);
                if (json_object_array_length(json_at(reply, "/parameters/refused")) == 0)
                        break;
                ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EPERM");
                json_object_put(reply);
        }
        json_object_put(reply);
        end_process(own);
        reply = take(fd);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/process/signal"), SIGKILL);
        json_object_put(reply);

        /* Names are each user's own. */
        client_change(root, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"user\",\"name\":\"n\"}]}");
        ck_assert_int_eq(trigger(fd, "n", 1), 1);
        expect_nothing(root);
        ck_assert_int_eq(trigger(root, "n", 2), 1);
        reply = take(fd);
        ck_assert_uint_eq(n_events(reply), 1);
        ck_assert_int_eq(number_at(reply, "/parameters/events/0/data"), 1);
        json_object_put(reply);
        /* Network devices of one's own namespace are everybody's. */
        client_change(fd, "{\"add\":[{\"id\":2,\"filter\":\"netdev\"}]}");
        (void)close(fd);
        (void)close(root);
        daemon_stop(daemon);
}
END_TEST

/* A process of the user's own, of which one id is another's, is not its own. */
START_TEST(test_other_user_in_part) {
        struct daemon *daemon;
        int fd, ready[2];
        char watch[128], byte;
        pid_t pid;

        need_root();
        daemon = start_for_all();
        fd = client_connect_as(daemon->socket, NOBODY);
        ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                if (setresuid(NOBODY, NOBODY, _i == 0 ? 0 : NOBODY - 1) < 0)
                        _exit(1);
                (void)!write(ready[1], "x", 1);
                for (;;)
                        (void)pause();
        }
        ck_assert_int_eq(read(ready[0], &byte, 1), 1);
        (void)snprintf(watch, sizeof(watch), "{\"id\":1,\"filter\":\"proc\",\"pid\":%d}", (int)pid);
        refused(fd, watch, "EPERM");
        end_process(pid);
        (void)close(ready[0]);
        (void)close(ready[1]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static const struct {
        const char *name;
        int flag;
        const char *path, *pid, *netdev; /* what becomes of such a watch */
} namespaces[] = {
        { "mount", CLONE_NEWNS, "EXDEV", "", "" },
        { "pid", CLONE_NEWPID, "", "EXDEV", "" },
        { "network", CLONE_NEWNET, "", "", "EXDEV" },
        { "root directory", 0, "EXDEV", "", "" },
};

static void check_watch(int fd, const char *watch, const char *error) {
        if (error[0])
                refused(fd, watch, error);
        else
                client_change(fd, "{\"add\":[%s]}", watch);
}

/* What the peer does: in a process of its own, that ends without the harness's checks. */
static void in_namespace(size_t i, const char *socket) {
        int fd, dir = open("/etc", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ready[2], status;
        char byte, watch[PATH_MAX + 64];
        pid_t pid;

        if (namespaces[i].flag) {
                assert_system(unshare(namespaces[i].flag) == 0, "unshare");
        } else {
                assert_system(chroot(harness_tempdir()) == 0, "chroot");
                socket = strrchr(socket, '/');
        }
        if (namespaces[i].flag == CLONE_NEWPID) { /* it is for children */
                pid = fork();
                assert_system(pid >= 0, "fork");
                if (pid > 0) {
                        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
                        ck_assert_int_eq(status, 0);
                        _exit(0);
                }
        }
        fd = client_connect(socket);
        check_watch(fd, "{\"id\":1,\"filter\":\"vnode\",\"path\":\"/\"}", namespaces[i].path);
        (void)snprintf(watch, sizeof(watch), "{\"id\":2,\"filter\":\"tree\",\"path\":\"%s\"}", harness_tempdir());
        check_watch(fd, watch, namespaces[i].path);
        check_watch(fd, "{\"id\":3,\"filter\":\"proc\",\"pid\":1}", namespaces[i].pid);
        check_watch(fd, "{\"id\":4,\"filter\":\"netdev\"}", namespaces[i].netdev);

        /* What it passes is what it means. */
        send_with_fd(fd, dir, "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":5,\"filter\":\"vnode\","
                              "\"descriptor\":0}]}}");
        expect_none_refused(fd);
        ck_assert_int_eq(pipe2(ready, O_CLOEXEC), 0);
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                (void)!read(ready[0], &byte, 1);
                _exit(7);
        }
        status = pidfd_open(pid, 0);
        send_with_fd(fd, status, "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":6,\"filter\":\"proc\","
                                 "\"descriptor\":0}],\"remove\":[1,2,3,4]}}");
        json_object_put(receive(fd));
        ck_assert_int_eq(write(ready[1], "x", 1), 1);
        for (bool found = false; !found;) {
                struct json_object *reply = call(fd, "Wait", "{\"timeoutMsec\":%d}", HARNESS_REPLY_MSEC);

                ck_assert_uint_gt(n_events(reply), 0);
                if (number_at(reply, "/parameters/events/0/id") == 6) {
                        ck_assert_int_eq(number_at(reply, "/parameters/events/0/process/exitCode"), 7);
                        found = true;
                }
                json_object_put(reply);
        }
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        _exit(0);
}

START_TEST(test_namespace) {
        struct daemon *daemon;
        int status;
        pid_t pid;

        harness_label(namespaces[_i].name);
        need_root();
        daemon = daemon_start(NULL);
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0)
                in_namespace((size_t)_i, daemon->socket);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_int_eq(status, 0);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("protocol-peers"), "peers");

        tcase_add_test(c, test_other_user);
        tcase_add_loop_test(c, test_other_user_in_part, 0, 2);
        tcase_add_loop_test(c, test_namespace, 0, ARRAY_SIZE(namespaces));
        return harness_main(argc, argv);
}
