/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proc watches on a feed of all processes: who may see which of them, what a watch is about, and what becomes of
 * watches that are made, changed and taken back.
 */

#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "macro.h"
#include "processes.h"

#define ALL_NOTES "'exit','reap','fork','exec','comm'"

/* ---- programs ---------------------------------------------------------------------------------------------------- */

/* Known to a maker when it is started. */
static char program[256];

/* A program of this name in the test's directory: it ends when it may go on. */
static void make_program(const char *name) {
        char command[600];

        (void)snprintf(program, sizeof(program), "%s/%s", harness_tempdir(), name);
        (void)snprintf(command, sizeof(command), "cp \"$(command -v head)\" '%s' && chmod 755 '%s'", program, program);
        ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c) */
}

__attribute__((noreturn)) static void become_program(void) {
        int null = open("/dev/null", O_WRONLY);

        if (null < 0 || dup2(go_input(), STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
                _exit(94);
        (void)execl(program, program, "-c", "1", NULL);
        _exit(95);
}

static int run_program(int unused _unused_) {
        wait_go();
        become_program();
}

static int run_named(int code) {
        wait_go();
        (void)prctl(PR_SET_NAME, "kevd-named");
        wait_go();
        return code;
}

/* ---- who may see ------------------------------------------------------------------------------------------------- */

static int run_busy(int code) {
        pid_t pid;

        wait_go();
        (void)prctl(PR_SET_NAME, "kevd-secret");
        pid = fork();
        if (pid == 0)
                become_program();
        (void)waitpid(pid, NULL, 0);
        return code;
}

/* What one user's process does is told to root, and to no other user, by no way there is. */
START_TEST(test_other_user) {
        struct daemon *daemon = start_following(NULL);
        int root = client_connect(daemon->socket), user = client_connect_as(daemon->socket, USER);
        struct maker own, other;
        pid_t pid, sentinel;

        make_program("kevd-prog");
        own = maker_start(USER);
        other = maker_start(STRANGER);
        pid = maker_fork(&other, run_busy, 6);
        sentinel = maker_fork(&own, run_exit, 7);
        watch(user, "EPERM", "'id':1,'pid':%d,'notes':['exit']", (int)pid);
        ck_assert_ptr_null(strstr(refusal_message(), "kevd-"));
        watch(user, "EPERM", "'id':1,'pid':%d,'notes':['exit','exec','track']", (int)other.pid);
        watch(user, "", "'id':1,'match':{},'notes':[" ALL_NOTES "%s]", uid_note(daemon));
        watch(user, "", "'id':2,'match':{'uid':%d},'notes':[" ALL_NOTES "%s]", STRANGER, uid_note(daemon));
        watch(user, "", "'id':3,'match':{'comm':'kevd-*'},'notes':[" ALL_NOTES "%s]", uid_note(daemon));
        watch(root, "", "'id':0,'match':{'uid':%d},'notes':['exit','exec','comm']", STRANGER);
        go(&other, 1);
        (void)expect(root, 0, "comm", pid, ANY);
        for (int n = 0; n < 3; n++) { /* its child's exec and exit, and its own */
                struct json_object *event = next_told(root);

                ck_assert_msg(is_note(event, n == 0 ? "exec" : "exit"), "%s", json_object_to_json_string(event));
                if (n == 0)
                        go(&other, 1);
                ck_assert_msg((pid_of(event) == pid) == (n == 2), "%s", json_object_to_json_string(event));
                json_object_put(event);
        }
        ck_assert_int_eq(maker_reap(&other, pid), 6 << 8);
        watch(user, "ESRCH", "'id':9,'pid':%d,'notes':['exit']", (int)pid);
        go(&own, 1);
        ck_assert_int_eq(maker_reap(&own, sentinel), 7 << 8);
        (void)expect(user, 1, "exit", sentinel, 7 << 8);
        (void)expect(user, 1, "reap", sentinel, 7 << 8);
        expect_only_others(user, NULL, 0);
        maker_stop(&own);
        maker_stop(&other);
        (void)close(root);
        (void)close(user);
        daemon_stop(daemon);
}
END_TEST

static int run_setuid_child(int code) {
        pid_t pid;

        wait_go();
        pid = fork();
        if (pid == 0) {
                wait_go();
                become_program();
        }
        (void)waitpid(pid, NULL, 0);
        return code;
}

static void need_setuid_program(void) {
        struct statvfs fs;

        make_program("kevd-prog");
        assert_system(statvfs(program, &fs) == 0, program);
        if (fs.f_flag & ST_NOSUID)
                harness_skip("the temporary directory's file system has no set-user-ID programs");
        assert_system(chown(program, STRANGER, STRANGER) == 0 && chmod(program, 04755) == 0, program);
}

/* The descendant becomes another user's: its end is not the user's to know. */
START_TEST(test_setuid_child) {
        struct daemon *daemon = start_following(NULL);
        int root = client_connect(daemon->socket), user = client_connect_as(daemon->socket, USER);
        struct json_object *event;
        struct maker maker;
        pid_t pid, child;

        need_setuid_program();
        maker = maker_start(USER);
        pid = maker_fork(&maker, run_setuid_child, 8);
        watch(user, "", "'id':1,'pid':%d,'notes':['exit','exec','comm','track'%s]", (int)pid, uid_note(daemon));
        watch(root, "", "'id':1,'pid':%d,'notes':['exit','exec','track']", (int)pid);
        go(&maker, 1);
        event = next_event(user);
        ck_assert_msg(is_note(event, "child"), "%s", json_object_to_json_string(event));
        child = pid_of(event);
        json_object_put(event);
        go(&maker, 1);
        ck_assert(!expect(user, 1, "trackerr", child, ANY));
        go(&maker, 1);
        (void)maker_reap(&maker, pid);
        ck_assert(expect(user, 1, "exit", pid, 8 << 8));
        expect_only_others(user, NULL, 0);
        (void)expect(root, 1, "child", child, pid);
        (void)expect(root, 1, "exec", child, ANY);
        (void)expect(root, 1, "exit", child, 0);
        ck_assert(expect(root, 1, "exit", pid, 8 << 8));
        maker_stop(&maker);
        (void)close(root);
        (void)close(user);
        daemon_stop(daemon);
}
END_TEST

/* The watch's own process: nothing more will come. */
START_TEST(test_setuid_itself) {
        struct daemon *daemon = start_following(NULL);
        int user = client_connect_as(daemon->socket, USER), late = client_connect_as(daemon->socket, USER);
        struct maker maker;
        pid_t pid;

        need_setuid_program();
        maker = maker_start(USER);
        pid = maker_fork(&maker, run_program, 0);
        watch(user, "", "'id':1,'pid':%d,'notes':['exit','exec','comm'%s]", (int)pid, uid_note(daemon));
        go(&maker, 1);
        ck_assert(expect(user, 1, "trackerr", pid, ANY));
        go(&maker, 1);
        ck_assert_int_eq(maker_reap(&maker, pid), 0);
        expect_only_others(user, NULL, 0);
        watch(late, "ESRCH", "'id':1,'pid':%d,'notes':['exit']", (int)pid);
        maker_stop(&maker);
        (void)close(user);
        (void)close(late);
        daemon_stop(daemon);
}
END_TEST

/* It may become whoever it likes, although it is the user's by all its ids. */
static void become(uid_t uid) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = { { .effective = 1u << CAP_SETUID, .permitted = 1u << CAP_SETUID } };

        if (prctl(PR_SET_KEEPCAPS, 1) < 0 || setresuid(uid, uid, uid) < 0 || syscall(SYS_capset, &header, data) < 0)
                _exit(93);
}

static int run_becomes_user(int code) {
        wait_go();
        become(USER);
        wait_go();
        return code;
}

START_TEST(test_uid_changes) {
        struct daemon *daemon = start_following(NULL);
        struct json_object *event;
        struct maker maker;
        pid_t pid;
        int fd;

        need_uid_note(daemon);
        fd = client_connect(daemon->socket);
        maker = maker_start(0);
        pid = maker_fork(&maker, run_becomes_user, 14);
        watch(fd, "", "'id':1,'pid':%d,'notes':['uid','exit']", (int)pid);
        go(&maker, 1);
        event = next_event(fd);
        ck_assert_msg(is_note(event, "uid") && pid_of(event) == pid, "%s", json_object_to_json_string(event));
        ck_assert_int_eq(number_at(event, "/process/uid"), USER);
        json_object_put(event);
        go(&maker, 1);
        ck_assert(expect(fd, 1, "exit", pid, 14 << 8));
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static int run_between_users(int code) {
        pid_t pids[2];

        wait_go();
        become(USER);
        say("r", 1);
        wait_go();
        pids[0] = fork();
        if (pids[0] == 0) {
                become(STRANGER);
                pids[1] = fork(); /* not to be told of yet */
                if (pids[1] == 0) {
                        become(USER);
                        _exit(run_exit(11));
                }
                say(&pids[1], sizeof(pids[1]));
                (void)waitpid(pids[1], NULL, 0);
                _exit(12);
        }
        (void)waitpid(pids[0], NULL, 0);
        return code;
}

START_TEST(test_user_again) {
        struct daemon *daemon = start_following(NULL);
        struct json_object *event;
        struct maker maker;
        pid_t pid, child, grandchild;
        char byte;
        int user;

        need_uid_note(daemon);
        user = client_connect_as(daemon->socket, USER);
        maker = maker_start(0);
        pid = maker_fork(&maker, run_between_users, 13);
        go(&maker, 1);
        hear(&maker, &byte, 1);
        watch(user, "", "'id':1,'pid':%d,'notes':['exit','track']", (int)pid);
        go(&maker, 1);
        hear(&maker, &grandchild, sizeof(grandchild));
        event = next_event(user);
        ck_assert_msg(is_note(event, "child"), "%s", json_object_to_json_string(event));
        child = pid_of(event);
        json_object_put(event);
        (void)expect(user, 1, "trackerr", child, ANY);
        (void)expect(user, 1, "child", grandchild, child);
        go(&maker, 1);
        ck_assert_int_eq(maker_reap(&maker, pid), 13 << 8);
        (void)expect(user, 1, "exit", grandchild, 11 << 8);
        ck_assert(expect(user, 1, "exit", pid, 13 << 8));
        expect_only_others(user, NULL, 0);
        maker_stop(&maker);
        (void)close(user);
        daemon_stop(daemon);
}
END_TEST

static int run_changes_and_ends(int code) {
        wait_go();
        become(USER);
        say("r", 1);
        wait_go();
        (void)setfsuid(0); /* told of as the other ids are */
        return code;
}

/* It was reaped before it could be asked: whose it is, what the kernel says of the change tells. */
START_TEST(test_changes_and_ends) {
        struct daemon *daemon = start_following(NULL);
        struct maker maker;
        pid_t pid;
        char byte;
        int user;

        need_uid_note(daemon);
        user = client_connect_as(daemon->socket, USER);
        maker = maker_start(0);
        pid = maker_fork(&maker, run_changes_and_ends, 15);
        go(&maker, 1);
        hear(&maker, &byte, 1);
        watch(user, "", "'id':1,'pid':%d,'notes':['exit']", (int)pid);
        assert_system(kill(daemon->pid, SIGSTOP) == 0, "SIGSTOP");
        go(&maker, 1);
        ck_assert_int_eq(maker_reap(&maker, pid), 15 << 8);
        assert_system(kill(daemon->pid, SIGCONT) == 0, "SIGCONT");
        ck_assert(expect(user, 1, "exit", pid, 15 << 8));
        expect_only_others(user, NULL, 0);
        maker_stop(&maker);
        (void)close(user);
        daemon_stop(daemon);
}
END_TEST

/* ---- what it is about -------------------------------------------------------------------------------------------- */

START_TEST(test_exe_and_comm) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker;
        pid_t pid, named;

        make_program("kevd-prog");
        maker = maker_start(0);
        watch(fd, "", "'id':1,'match':{'exe':'kevd-pr?g'},'notes':['exec','exit']");
        watch(fd, "", "'id':2,'match':{'exe':'%s/*'},'notes':['exec','exit']", harness_tempdir());
        watch(fd, "", "'id':3,'match':{'exe':'/**/kevd-[a-p]rog','comm':'kevd-*','uid':0},'notes':['exit']");
        watch(fd, "", "'id':4,'match':{'exe':'kevd-prog','comm':'kevd-named'},'notes':['exec','exit']");
        watch(fd, "", "'id':5,'match':{'comm':'kevd-named'},'notes':['comm','exit']");
        watch(fd, "", "'id':6,'match':{'exe':'/kevd-prog'},'notes':['exec','exit']");
        watch(fd, "", "'id':7,'match':{'exe':'kevd-prog','uid':%d},'notes':['exec','exit']", USER);
        pid = maker_fork(&maker, run_program, 0);
        go(&maker, 1);
        (void)expect(fd, 1, "exec", pid, ANY);
        (void)expect(fd, 2, "exec", pid, ANY);
        go(&maker, 1);
        ck_assert_int_eq(maker_reap(&maker, pid), 0);
        (void)expect(fd, 1, "exit", pid, 0);
        (void)expect(fd, 2, "exit", pid, 0);
        (void)expect(fd, 3, "exit", pid, 0);
        named = maker_fork(&maker, run_named, 4);
        expect_only_others(fd, NULL, 0);
        go(&maker, 1);
        (void)expect(fd, 5, "comm", named, ANY);
        go(&maker, 1);
        (void)expect(fd, 5, "exit", named, 4 << 8);
        expect_only_others(fd, NULL, 0);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_uid) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket);
        struct maker user = maker_start(USER), stranger = maker_start(STRANGER);
        pid_t pids[] = { maker_fork(&user, run_exit, 1), maker_fork(&stranger, run_exit, 2) };

        watch(fd, "", "'id':1,'match':{'uid':%d},'notes':['exit']", USER);
        watch(fd, "", "'id':2,'match':{'uid':%d},'notes':['exit']", STRANGER);
        go(&user, 1);
        (void)expect(fd, 1, "exit", pids[0], 1 << 8);
        go(&stranger, 1);
        (void)expect(fd, 2, "exit", pids[1], 2 << 8);
        expect_only_others(fd, NULL, 0);
        maker_stop(&user);
        maker_stop(&stranger);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Where groups of version 2 are mounted. */
static const char *find_cgroups(void) {
        static char point[4096];
        FILE *file = fopen("/proc/self/mountinfo", "re");
        char *line = NULL;
        size_t capacity = 0;
        bool found = false;

        while (file && !found && getline(&line, &capacity, file) >= 0)
                found = strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s / %4095s", point) == 1;
        free(line);
        if (file)
                (void)fclose(file);
        return found && access(point, W_OK) == 0 ? point : NULL;
}

static char cgroup[4200]; /* "": none can be made */

static void enter_cgroup(void) {
        char path[4300];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
        file = fopen(path, "we");
        if (!file || fprintf(file, "%d", (int)getpid()) < 0 || fclose(file) != 0)
                _exit(92);
}

static int run_in_cgroup(int code) {
        pid_t pid;

        wait_go();
        enter_cgroup();
        say("e", 1);
        wait_go();
        pid = fork();
        if (pid == 0)
                _exit(code + 1);
        (void)waitpid(pid, NULL, 0);
        return code;
}

/* As a service is begun: its first process is moved before it begins the program. */
static int begin_service(int code) {
        wait_go();
        enter_cgroup();
        (void)execlp("sleep", "sleep", "1000", NULL);
        return code;
}

/* Around the tests, whatever becomes of them. */
static void name_cgroup(void) {
        const char *top = find_cgroups();

        if (top)
                (void)snprintf(cgroup, sizeof(cgroup), "%s/kevd-test-%d", top, (int)getpid());
}

static void remove_cgroup(void) {
        if (cgroup[0])
                (void)rmdir(cgroup);
}

static bool cgroup_is_gone(void *userdata _unused_) {
        return rmdir(cgroup) == 0 || errno == ENOENT;
}

static void make_cgroup(void) {
        if (geteuid() != 0 || !cgroup[0])
                harness_skip("there are no control groups of version 2 to be made here");
        if (mkdir(cgroup, 0755) < 0)
                harness_skip("no control group can be made here");
}

static void end_cgroup(int fd, struct maker *maker, struct daemon *daemon) {
        expect_only_others(fd, NULL, 0);
        maker_stop(maker);
        ck_assert(wait_until(cgroup_is_gone, NULL, HARNESS_REPLY_MSEC));
        (void)close(fd);
        daemon_stop(daemon);
}

START_TEST(test_cgroup_of_service) {
        struct json_object *event;
        struct daemon *daemon;
        struct maker maker;
        pid_t pid;
        int fd;

        make_cgroup();
        maker = maker_start(0);
        daemon = start_following(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, "", "'id':1,'match':{'cgroup':'%s'},'notes':['exec','exit']", strrchr(cgroup, '/') + 1);
        pid = maker_fork(&maker, begin_service, 99);
        go(&maker, 1);
        event = next_told(fd);
        ck_assert_msg(is_note(event, "exec") && pid_of(event) == pid, "%s", json_object_to_json_string(event));
        json_object_put(event);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        event = next_told(fd);
        ck_assert_msg(is_note(event, "exit") && pid_of(event) == pid, "%s", json_object_to_json_string(event));
        check_status(event, SIGKILL);
        json_object_put(event);
        end_cgroup(fd, &maker, daemon);
}
END_TEST

/* Those who were in it when the daemon began, and their children. */
START_TEST(test_cgroup) {
        const char *name;
        struct json_object *event;
        struct daemon *daemon;
        struct maker maker;
        pid_t pid;
        char byte;
        int fd;

        make_cgroup();
        name = strrchr(cgroup, '/') + 1;
        maker = maker_start(0);
        pid = maker_fork(&maker, run_in_cgroup, 20);
        go(&maker, 1);
        hear(&maker, &byte, 1);
        daemon = start_following(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, "", "'id':1,'match':{'cgroup':'%s'},'notes':['exit']", name);
        watch(fd, "", "'id':2,'match':{'cgroup':'/%s'},'notes':['exit']", name);
        watch(fd, "", "'id':3,'match':{'cgroup':'%s?'},'notes':['exit']", name);
        go(&maker, 1);
        for (int i = 0; i < 4; i++) {
                event = next_told(fd);
                ck_assert_int_eq(number_at(event, "/id"), 1 + i % 2);
                ck_assert_msg(is_note(event, "exit"), "%s", json_object_to_json_string(event));
                ck_assert_int_eq(pid_of(event) == pid, i >= 2);
                check_status(event, (i < 2 ? 21 : 20) << 8);
                ck_assert_str_eq(strrchr(text_at(event, "/process/cgroup"), '/') + 1, name);
                json_object_put(event);
        }
        end_cgroup(fd, &maker, daemon);
}
END_TEST

static const char *const fields[] = { "exe", "comm", "cgroup" };

START_TEST(test_bad_glob) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket);
        char name[32];

        harness_label(fields[_i]);
        (void)snprintf(name, sizeof(name), "match.%s", fields[_i]);
        watch(fd, "EINVAL", "'id':1,'match':{'%s':'[a-'},'notes':['exit']", fields[_i]);
        ck_assert_msg(strstr(refusal_message(), name), "\"%s\" does not name %s", refusal_message(), name);
        watch(fd, "EINVAL", "'id':1,'match':{'%s':'a\\\\'},'notes':['exit']", fields[_i]);
        ck_assert_msg(strstr(refusal_message(), name), "\"%s\" does not name %s", refusal_message(), name);
        watch(fd, "", "'id':1,'match':{'%s':'[a-z]'},'notes':['exit']", fields[_i]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- watches that change ----------------------------------------------------------------------------------------- */

START_TEST(test_two_clients) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_named, 3);

        watch(fd, "", "'id':1,'pid':%d,'notes':['exit','comm','reap']", (int)pid);
        watch(other, "", "'id':1,'pid':%d,'notes':['exit','comm','reap']", (int)pid);
        go(&maker, 1);
        (void)expect(fd, 1, "comm", pid, ANY);
        (void)expect(other, 1, "comm", pid, ANY);
        change(other, "", "'remove':[1]");
        go(&maker, 1);
        ck_assert(!expect(fd, 1, "exit", pid, 3 << 8));
        ck_assert_int_eq(maker_reap(&maker, pid), 3 << 8);
        ck_assert(expect(fd, 1, "reap", pid, 3 << 8));
        expect_only_others(fd, NULL, 0);
        expect_only_others(other, NULL, 0);
        maker_stop(&maker);
        (void)close(fd);
        (void)close(other);
        expect_pidfds(daemon, 0);
        daemon_stop(daemon);
}
END_TEST

/* Nobody asks any more: nothing is held for what still runs, either. */
START_TEST(test_at_rest) {
        enum { N = 20 };
        struct daemon *daemon = start_following(NULL);
        struct maker maker = maker_start(0);
        int fd = client_connect(daemon->socket);
        pid_t pids[N];

        maker_fork_many(&maker, run_exit, N, pids);
        for (int i = 0; i < N; i++)
                watch(fd, "", "'id':%d,'pid':%d,'notes':['exit','reap','track']", i, (int)pids[i]);
        ck_assert_uint_ge(count_pidfds(daemon), N);
        for (int i = 0; i < N / 2; i++)
                change(fd, "", "'remove':[%d]", i);
        (void)close(fd);
        expect_pidfds(daemon, 0);
        go(&maker, N);
        maker_stop(&maker);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_oneshot) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket), all = client_connect(daemon->socket);
        struct maker maker = maker_start(USER);
        pid_t pids[] = { maker_fork(&maker, run_exit, 1), maker_fork(&maker, run_exit_at_once, 2) };
        struct json_object *event;

        ck_assert_int_eq(maker_reap(&maker, pids[1]), 2 << 8);
        watch(all, "", "'id':1,'match':{},'notes':['exit'],'flags':['oneshot']");
        watch(fd, "", "'id':2,'pid':%d,'notes':['exit','reap'],'flags':['oneshot']", (int)pids[0]);
        watch(fd, "", "'id':3,'pid':%d,'notes':['exit','reap']", (int)pids[0]);
        watch(fd, "", "'id':4,'pid':%d,'notes':['exit','reap'],'flags':['oneshot']", (int)pids[1]);
        (void)expect(fd, 4, "exit", pids[1], 2 << 8);
        go(&maker, 1);
        (void)expect(fd, 2, "exit", pids[0], 1 << 8);
        (void)expect(fd, 3, "exit", pids[0], 1 << 8);
        (void)maker_reap(&maker, pids[0]);
        (void)expect(fd, 3, "reap", pids[0], 1 << 8);
        expect_only_others(fd, NULL, 0);
        event = next_event(all); /* this process, or another one's */
        ck_assert_msg(is_note(event, "exit"), "%s", json_object_to_json_string(event));
        json_object_put(event);
        ck_assert_ptr_null(due_event(all));
        change(all, "ENOENT", "'remove':[1]");
        for (int id = 2; id <= 4; id++)
                change(fd, id == 3 ? "" : "ENOENT", "'remove':[%d]", id);
        maker_stop(&maker);
        (void)close(fd);
        (void)close(all);
        daemon_stop(daemon);
}
END_TEST

static int run_twice_parent(int code) {
        for (int i = 1; i <= 2; i++) {
                pid_t pid;

                wait_go();
                pid = fork();
                if (pid == 0)
                        _exit(i);
                (void)waitpid(pid, NULL, 0);
        }
        wait_go();
        return code;
}

/* What is asked for later counts from then on. */
START_TEST(test_modify) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_twice_parent, 9), child;
        struct json_object *event;

        watch(fd, "", "'id':1,'pid':%d,'notes':['exit','fork']", (int)pid);
        go(&maker, 1);
        (void)expect(fd, 1, "fork", pid, ANY);
        expect_only_others(fd, NULL, 0);
        change(fd, "", "'modify':[{'id':1,'filter':'proc','notes':['exit','track','reap']}]");
        go(&maker, 1);
        event = next_event(fd);
        ck_assert_msg(is_note(event, "child"), "%s", json_object_to_json_string(event));
        child = pid_of(event);
        json_object_put(event);
        (void)expect(fd, 1, "exit", child, 2 << 8);
        (void)expect(fd, 1, "reap", child, 2 << 8);
        go(&maker, 1);
        (void)expect(fd, 1, "exit", pid, 9 << 8);
        ck_assert_int_eq(maker_reap(&maker, pid), 9 << 8);
        ck_assert(expect(fd, 1, "reap", pid, 9 << 8));
        expect_only_others(fd, NULL, 0);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* proc(5): with hidepid the daemon does not see who has not its user, and as little of who has more rights. */
static void hide_processes(void) {
        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
            mount("proc", "/proc", "proc", 0, "hidepid=2,gid=64102") < 0)
                harness_skip("a /proc that hides processes can't be mounted here");
}

/* Whom /proc does not show, when all that it has are looked at, is not taken to have ended. */
START_TEST(test_hidden) {
        struct json_object *event;
        struct daemon *daemon;
        struct maker maker;
        int fd, second;
        pid_t pid;

        hide_processes();
        daemon = start_following(NULL);
        fd = client_connect(daemon->socket);
        second = client_connect(daemon->socket);
        maker = maker_start(USER);
        pid = maker_fork(&maker, run_exit, 9);
        watch(fd, "", "'id':1,'pid':%d,'notes':['exit','track']", (int)pid);
        watch(second, "", "'id':1,'match':{'comm':'kevd-nobody'},'notes':['exit']");
        for (int i = 0; i < 3; i++) /* the feed has something to tell */
                (void)maker_reap(&maker, maker_fork(&maker, run_exit_at_once, 0));
        event = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":500}"); /* while they are looked at */
        ck_assert_msg(!json_at(event, "/parameters/events/0"), "%s", json_object_to_json_string(event));
        json_object_put(event);
        go(&maker, 1);
        (void)expect(fd, 1, "exit", pid, 9 << 8);
        ck_assert_int_eq(maker_reap(&maker, pid), 9 << 8);
        maker_stop(&maker);
        (void)close(fd);
        (void)close(second);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("process-watches");
        TCase *c;

        c = harness_case(suite, "users");
        tcase_add_test(c, test_other_user);
        tcase_add_test(c, test_setuid_child);
        tcase_add_test(c, test_setuid_itself);
        tcase_add_test(c, test_user_again);
        tcase_add_test(c, test_uid_changes);
        tcase_add_test(c, test_changes_and_ends);
        c = harness_case(suite, "match");
        tcase_add_test(c, test_exe_and_comm);
        tcase_add_test(c, test_uid);
        tcase_add_test(c, test_cgroup);
        tcase_add_test(c, test_cgroup_of_service);
        tcase_add_unchecked_fixture(c, name_cgroup, remove_cgroup);
        tcase_add_loop_test(c, test_bad_glob, 0, ARRAY_SIZE(fields));
        c = harness_case(suite, "change");
        tcase_add_test(c, test_two_clients);
        tcase_add_test(c, test_at_rest);
        tcase_add_test(c, test_oneshot);
        tcase_add_test(c, test_modify);
        tcase_add_test(c, test_hidden);
        return harness_main(argc, argv);
}
