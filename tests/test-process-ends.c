/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * How processes ended, as a feed of all of them tells it: each once, at its true end, with its own status, however it
 * came to that end and whoever asks, and whatever else has had its number.
 */

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "macro.h"
#include "processes.h"

enum { CODES = 256 };

/* ---- ends of all kinds ------------------------------------------------------------------------------------------- */

static void *leave_with_all(void *userdata _unused_) {
        wait_go();
        _exit(17);
        return NULL;
}

static void *leave_alone(void *userdata _unused_) {
        wait_go();
        (void)syscall(SYS_exit, 0x55);
        return NULL;
}

static void *become_program(void *userdata _unused_) {
        wait_go();
        (void)execl("/bin/sh", "sh", "-c", "exit 19", NULL);
        _exit(95);
        return NULL;
}

static void start_thread(void *(*run)(void *userdata)) {
        pthread_t thread;

        if (pthread_create(&thread, NULL, run, NULL) != 0)
                _exit(94);
}

/* The last thread's end is the process's, and its status is the process's own. */
static int run_leader_ends(int unused _unused_) {
        start_thread(leave_with_all);
        (void)syscall(SYS_exit, 3);
        return 0;
}

/* Of threads that end one by one the leader's status counts, although it ended first. */
static int run_all_end_alone(int unused _unused_) {
        start_thread(leave_alone);
        start_thread(leave_alone);
        (void)syscall(SYS_exit, 4);
        return 0;
}

static int run_pthread_exit(int unused _unused_) {
        start_thread(leave_alone);
        pthread_exit(NULL);
        return 0;
}

static int run_thread_executes(int unused _unused_) {
        start_thread(become_program);
        for (;;)
                (void)pause();
        return 0;
}

static int run_threads_then_exit(int unused _unused_) {
        for (int i = 0; i < 4; i++)
                start_thread(leave_alone);
        wait_go();
        return 23;
}

static int run_executes(int unused _unused_) {
        wait_go();
        (void)execl("/bin/sh", "sh", "-c", "exit 29", NULL);
        return 95;
}

static const struct {
        const char *what;
        run_fn *run;
        int n_go;
} kinds[] = {
        { "the leader first, exit_group by the last thread", run_leader_ends, 1 },
        { "the leader first, all by themselves", run_all_end_alone, 2 },
        { "pthread_exit in the leader", run_pthread_exit, 1 },
        { "exec by another thread than the leader", run_thread_executes, 1 },
        { "exit beside threads", run_threads_then_exit, 5 },
        { "exec", run_executes, 1 },
};

/* wait(2) says what is right. */
START_TEST(test_kind) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket), second = client_connect(daemon->socket), status;
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, kinds[_i].run, 0);

        harness_label(kinds[_i].what);
        watch(fd, "", "'id':0,'match':{},'notes':['exit']");
        watch(second, "", "'id':1,'pid':%d,'notes':['exit','reap']", (int)pid);
        expect_only_others(fd, &pid, 1);
        expect_only_others(second, NULL, 0);
        go(&maker, (size_t)kinds[_i].n_go);
        status = maker_reap(&maker, pid);
        (void)expect(fd, 0, "exit", pid, status);
        (void)expect(second, 1, "exit", pid, status);
        ck_assert(expect(second, 1, "reap", pid, status));
        expect_only_others(fd, &pid, 1);
        expect_only_others(second, NULL, 0);
        maker_stop(&maker);
        (void)close(fd);
        (void)close(second);
        daemon_stop(daemon);
}
END_TEST

/* Its child is reaped by the kernel itself, at once. */
static int run_parent_ignores(int unused _unused_) {
        pid_t pid;

        (void)signal(SIGCHLD, SIG_IGN);
        wait_go();
        pid = fork();
        if (pid == 0)
                _exit(code_of(getpid()));
        while (waitpid(pid, NULL, 0) > 0)
                ;
        return 0;
}

START_TEST(test_ignored) {
        enum { N = 50 };
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);

        for (int i = 1; i <= N; i++) {
                pid_t pid = maker_fork(&maker, run_parent_ignores, 0), child = 0;
                int n_exits = 0, n_ends = 0;

                watch(fd, "", "'id':%d,'pid':%d,'notes':['exit','track']", i, (int)pid);
                go(&maker, 1);
                (void)maker_reap(&maker, pid);
                while (n_ends < 2) {
                        struct json_object *event = next_event(fd);

                        if (is_note(event, "child")) {
                                child = pid_of(event);
                                ck_assert_int_eq(number_at(event, "/data"), pid);
                        } else {
                                ck_assert_msg(is_note(event, "exit"), "%s", json_object_to_json_string(event));
                                check_status(event, pid_of(event) == child ? code_of(child) << 8 : 0);
                                n_exits += pid_of(event) == child;
                                n_ends++;
                        }
                        json_object_put(event);
                }
                ck_assert_int_eq(n_exits, 1);
                expect_only_others(fd, NULL, 0);
        }
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static int run_vfork(int unused _unused_) {
        pid_t pid;
        int status;

        wait_go();
        pid = vfork();
        if (pid == 0) {
                (void)execl("/bin/sh", "sh", "-c", "kill -USR1 $$", NULL);
                _exit(95);
        }
        return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status) ? WTERMSIG(status) : 90;
}

START_TEST(test_vfork) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket);
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_vfork, 0), child;
        struct json_object *event;

        watch(fd, "", "'id':1,'pid':%d,'notes':['exit','exec','track']", (int)pid);
        go(&maker, 1);
        event = next_event(fd);
        ck_assert_msg(is_note(event, "child"), "%s", json_object_to_json_string(event));
        child = pid_of(event);
        json_object_put(event);
        (void)expect(fd, 1, "exec", child, ANY);
        (void)expect(fd, 1, "exit", child, SIGUSR1);
        ck_assert(expect(fd, 1, "exit", pid, SIGUSR1 << 8));
        expect_only_others(fd, NULL, 0);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- statuses ---------------------------------------------------------------------------------------------------- */

/* The core, if one is dumped at all, goes into the test's directory. */
static int run_signal(int number) {
        struct rlimit core = { RLIM_INFINITY, RLIM_INFINITY };
        sigset_t none;

        wait_go();
        (void)setrlimit(RLIMIT_CORE, &core);
        (void)chdir(harness_tempdir());
        (void)signal(number, SIG_DFL);
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
        (void)syscall(SYS_kill, getpid(), number); /* the C library keeps some for itself */
        return 99;
}

/* Of which a process dies, unless it does something about it: signal(7). */
static bool is_deadly(int number) {
        switch (number) {
        case 0:
        case SIGCHLD:
        case SIGCONT:
        case SIGURG:
        case SIGWINCH:
        case SIGSTOP:
        case SIGTSTP:
        case SIGTTIN:
        case SIGTTOU:
                return false;
        }
        return true;
}

static const int dumping[] = { SIGQUIT, SIGILL, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS };

/* Whether there is a core at last is the machine's: wait(2) says it. */
START_TEST(test_core) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket), status;
        struct maker maker = maker_start(0);
        pid_t pid = maker_fork(&maker, run_signal, dumping[_i]);

        harness_label(strsignal(dumping[_i]));
        watch(fd, "", "'id':1,'pid':%d,'notes':['core','exit']", (int)pid);
        go(&maker, 1);
        status = maker_reap(&maker, pid);
        ck_assert_int_eq(WTERMSIG(status), dumping[_i]);
        (void)expect(fd, 1, "core", pid, ANY);
        ck_assert(expect(fd, 1, "exit", pid, status));
        expect_only_others(fd, NULL, 0);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

static int run_any(int i) {
        if (i < CODES)
                return run_exit(i);
        return is_deadly(i - CODES) ? run_signal(i - CODES) : run_exit(0);
}

enum { ANY_MAX = CODES + 65 };

/* Exit codes, and then signals. */
struct ends {
        pid_t pids[ANY_MAX];
        int statuses[ANY_MAX], n_exits[ANY_MAX], n_reaps[ANY_MAX], n;
};

static void reap_all(const struct maker *maker, struct ends *ends) {
        for (int i = 0; i < ANY_MAX; i++) {
                int status = ends->statuses[i] = maker_reap(maker, ends->pids[i]);

                if (i < CODES)
                        ck_assert_int_eq(status, i << 8);
                else if (is_deadly(i - CODES))
                        ck_assert_int_eq(WTERMSIG(status), i - CODES);
        }
}

static void note_end(struct json_object *event, void *userdata) {
        struct ends *ends = userdata;
        int64_t id = number_at(event, "/id");
        const char *text = json_object_to_json_string(event);

        if (id == ANY_MAX) { /* of all of them */
                for (id = 0; id < ANY_MAX && ends->pids[id] != pid_of(event); id++)
                        ;
                if (id == ANY_MAX)
                        return;
        }
        ck_assert_msg(pid_of(event) == ends->pids[id], "%s", text);
        check_status(event, ends->statuses[id]);
        if (is_note(event, "exit"))
                ck_assert_msg(++ends->n_exits[id] == 1 && ends->n_reaps[id] == 0, "%s", text);
        else
                ck_assert_msg(is_note(event, "reap") && ++ends->n_reaps[id] == 1 && ends->n_exits[id] == 1, "%s", text);
        ends->n++;
}

static void take_ends(int fd, struct ends *ends, int n) {
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;

        while (ends->n < n) {
                (void)take_events(fd, HARNESS_REPLY_MSEC - 1000, note_end, ends);
                ck_assert_msg(now_msec() < deadline, "%d events of %d", ends->n, n);
        }
        ck_assert_int_eq(ends->n, n);
        ends->n = 0;
        memset(ends->n_exits, 0, sizeof(ends->n_exits));
        memset(ends->n_reaps, 0, sizeof(ends->n_reaps));
}

static void watch_all(int fd, const struct ends *ends) {
        for (int i = 0; i < ANY_MAX; i++)
                watch(fd, "", "'id':%d,'pid':%d,'notes':['exit','reap']", i, (int)ends->pids[i]);
}

/* A user of the system's daemon, who is nobody's parent here; root, by what they are; and both too late. */
START_TEST(test_statuses) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect_as(daemon->socket, USER), all = client_connect(daemon->socket);
        int late = client_connect_as(daemon->socket, USER), stranger = client_connect_as(daemon->socket, STRANGER);
        struct maker maker = maker_start(USER);
        struct ends ends = { 0 };

        assert_system(chmod(harness_tempdir(), 0777) == 0, "chmod");
        maker_fork_many(&maker, run_any, ANY_MAX, ends.pids);
        watch_all(fd, &ends);
        watch(all, "", "'id':%d,'match':{},'notes':['exit','reap']", ANY_MAX);
        expect_only_others(fd, NULL, 0);
        go(&maker, ANY_MAX);
        reap_all(&maker, &ends);
        take_ends(fd, &ends, 2 * ANY_MAX);
        take_ends(all, &ends, 2 * ANY_MAX);
        watch_all(late, &ends);
        take_ends(late, &ends, 2 * ANY_MAX);
        for (int i = 0; i < ANY_MAX; i++)
                watch(stranger, "ESRCH", "'id':%d,'pid':%d,'notes':['exit']", i, (int)ends.pids[i]);
        maker_stop(&maker);
        (void)close(fd);
        (void)close(all);
        (void)close(late);
        (void)close(stranger);
        daemon_stop(daemon);
}
END_TEST

/* A zombie is older than anything that is remembered for those who ask late: its reap is told, and who asks is told of
 * its true end, each time. What passes here is the time itself. */
START_TEST(test_old_zombie) {
        enum { OLDER_MSEC = 11000, ASK_TIMES = 2 };
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket), late;
        struct maker maker = maker_start(USER);
        struct json_object *event;
        int64_t ended;
        pid_t pid;

        watch(fd, "", "'id':0,'match':{'uid':%d},'notes':['exit','reap']", USER);
        pid = maker_fork(&maker, run_exit, 9);
        go(&maker, 1);
        event = next_told(fd);
        ck_assert_msg(is_note(event, "exit") && pid_of(event) == pid, "%s", json_object_to_json_string(event));
        ended = json_object_get_int64(json_at(event, "/realtimeUsec"));
        json_object_put(event);
        (void)poll(NULL, 0, OLDER_MSEC);
        for (int i = 0; i < ASK_TIMES; i++) {
                late = client_connect(daemon->socket);
                watch(late, "", "'id':1,'pid':%d,'notes':['exit']", (int)pid);
                event = next_told(late);
                check_status(event, 9 << 8);
                ck_assert_int_eq(json_object_get_int64(json_at(event, "/realtimeUsec")), ended);
                json_object_put(event);
                (void)close(late);
        }
        expect_only_others(fd, &pid, 1);
        ck_assert_int_eq(maker_reap(&maker, pid), 9 << 8);
        (void)expect(fd, 0, "reap", pid, 9 << 8);
        maker_stop(&maker);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- numbers that are used again --------------------------------------------------------------------------------- */

struct reuse {
        pid_t pid, parents[2];
        int64_t first_id;
        int codes[2];
        int n_told[2], n_all, n_all_expected;
};

/* Others may have had the number before, or in between. */
static bool is_theirs(const struct reuse *reuse, struct json_object *event) {
        pid_t parent = (pid_t)number_at(event, "/process/parent");

        return parent == reuse->parents[0] || parent == reuse->parents[1];
}

static void note_reuse(struct json_object *event, void *userdata) {
        struct reuse *reuse = userdata;
        int64_t id = number_at(event, "/id");
        const char *text = json_object_to_json_string(event);
        int which;

        if (id == 0 && (pid_of(event) != reuse->pid || !is_theirs(reuse, event)))
                return;
        ck_assert_msg(is_note(event, "exit") && pid_of(event) == reuse->pid && number_at(event, "/count") == 1, "%s",
                      text);
        which = id == 0 ? reuse->n_all++ : (int)(id - reuse->first_id);
        ck_assert_msg(which == 0 || which == 1, "%s", text);
        check_status(event, reuse->codes[which] << 8);
        if (id > 0)
                ck_assert_msg(++reuse->n_told[which] == 1, "%s", text);
}

/* False: somebody else had the number meanwhile. */
static bool reuse_once(int fd, struct reuse *reuse, int i, const struct maker *maker, const struct maker *other) {
        bool is_first_watched = i % 3 != 1, is_reused;
        int64_t deadline;

        if (i % 3 == 0)
                watch(fd, "", "'id':%lld,'pid':%d,'notes':['exit']", (long long)reuse->first_id, (int)reuse->pid);
        go(maker, 1);
        ck_assert_int_eq(maker_reap(maker, reuse->pid), reuse->codes[0] << 8);
        if (i % 3 == 2) /* too late */
                watch(fd, "", "'id':%lld,'pid':%d,'notes':['exit']", (long long)reuse->first_id, (int)reuse->pid);
        is_reused = maker_fork_as(other, run_exit, reuse->codes[1], reuse->pid);
        if (is_reused) { /* the first one's end may be on its way yet */
                watch(fd, "", "'id':%lld,'pid':%d,'notes':['exit']", (long long)reuse->first_id + 1, (int)reuse->pid);
                go(other, 1);
                ck_assert_int_eq(maker_reap(other, reuse->pid), reuse->codes[1] << 8);
        }
        reuse->n_all_expected = 1 + is_reused;
        deadline = now_msec() + HARNESS_REPLY_MSEC;
        while (reuse->n_told[0] < is_first_watched || reuse->n_told[1] < is_reused ||
               reuse->n_all < reuse->n_all_expected) {
                (void)take_events(fd, HARNESS_REPLY_MSEC - 1000, note_reuse, reuse);
                ck_assert_msg(now_msec() < deadline, "pid %d: %d of the first, %d of the second, %d of all",
                              (int)reuse->pid, reuse->n_told[0], reuse->n_told[1], reuse->n_all);
        }
        return is_reused;
}

START_TEST(test_reuse) {
        struct daemon *daemon = start_following(NULL);
        int fd = client_connect(daemon->socket), n = getenv("KEVD_STORM_PROCESSES") ? 1000 : 300, n_reused = 0;
        struct maker maker = maker_start(0), other = maker_start(0);
        char label[64];

        if (access("/proc/sys/kernel/ns_last_pid", W_OK) < 0)
                harness_skip("the next process's number can't be chosen here");
        watch(fd, "", "'id':0,'match':{},'notes':['exit']");
        for (int i = 0; n_reused < n; i++) {
                struct reuse reuse = {
                        .parents = { maker.pid, other.pid },
                        .first_id = 1 + 2 * i,
                        .codes = { 1 + i % 100, 101 + i % 100 },
                };

                reuse.pid = maker_fork(&maker, run_exit, reuse.codes[0]);
                n_reused += reuse_once(fd, &reuse, i, &maker, &other);
                (void)snprintf(label, sizeof(label), "%d of %d", n_reused, i + 1);
                harness_label(label);
        }
        maker_stop(&maker);
        maker_stop(&other);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("process-ends");
        TCase *c;

        c = harness_case(suite, "kinds");
        tcase_add_loop_test(c, test_kind, 0, ARRAY_SIZE(kinds));
        tcase_add_test(c, test_ignored);
        tcase_add_test(c, test_vfork);
        c = harness_case(suite, "statuses");
        tcase_add_test(c, test_statuses);
        tcase_add_test(c, test_old_zombie);
        tcase_add_loop_test(c, test_core, 0, ARRAY_SIZE(dumping));
        c = harness_case(suite, "reuse");
        tcase_add_test(c, test_reuse);
        tcase_set_timeout(c, 60);
        return harness_main(argc, argv);
}
