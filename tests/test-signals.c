/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Signals: each that is sent to a process is counted, whatever becomes of it, and told to whoever may know. */

#include <errno.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>
#include <kev.h>

#include "harness.h"
#include "macro.h"

enum { SENDS = 1000, MORE_THAN_A_TURN = 2000, FEW = 32, CROWD = 100, NOBODY = OTHER_CLIENT };

static struct daemon *kevd;
static int client;

static void start_with(const char *option) {
        struct json_object *reply;
        const char *why;

        kevd = daemon_start(option);
        client = client_connect(kevd->socket);
        reply = client_call(client, "org.kevd.events.Change", "{\"add\":[{\"id\":0,\"filter\":\"signal\"}],\"remove\":[]}");
        why = text_at(reply, "/parameters/refused/0/message");
        if (strcmp(text_at(reply, "/parameters/refused/0/errno"), "EOPNOTSUPP") == 0)
                harness_skip(why);
        ck_assert_str_eq(why, "");
        json_object_put(reply);
        json_object_put(client_call(client, "org.kevd.events.Change", "{\"remove\":[0]}"));
}

static void start(void) {
        start_with(NULL);
}

static void stop(void) {
        (void)close(client);
        daemon_stop(kevd);
}

/* "" or the errno that it was refused with. */
static const char *add(int fd, int64_t id, const char *members) {
        static char name[32];
        char parameters[256];
        struct json_object *reply;

        (void)snprintf(parameters, sizeof(parameters), "{\"add\":[{\"id\":%lld,\"filter\":\"signal\"%s}]}", (long long)id,
                       members);
        reply = client_call(fd, "org.kevd.events.Change", parameters);
        (void)snprintf(name, sizeof(name), "%s", text_at(reply, "/parameters/refused/0/errno"));
        json_object_put(reply);
        return name;
}

static const char *of(pid_t pid, int number) {
        static char members[64];

        (void)snprintf(members, sizeof(members), number > 0 ? ",\"pid\":%d,\"data\":%d" : ",\"pid\":%d", (int)pid, number);
        return members;
}

/* ---- what is told ------------------------------------------------------------------------------------------------- */

/* Of each signal, and how many of them without a sender; at 0: that the process has ended. */
struct tally {
        uint64_t n[NSIG], n_without_sender;
        size_t n_events;
};

/* Takes all that is due. */
static void take(int fd, struct tally *tally) {
        for (bool any = true; any;) {
                struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}"), *events;

                ck_assert_str_eq(text_at(reply, "/error"), "");
                events = json_at(reply, "/parameters/events");
                any = json_object_array_length(events) > 0;
                tally->n_events += json_object_array_length(events);
                for (size_t i = 0; i < json_object_array_length(events); i++) {
                        struct json_object *event = json_object_array_get_idx(events, i);
                        struct json_object *number = json_at(event, "/data");

                        ck_assert_int_eq(json_object_array_length(json_at(event, "/notes")), 0);
                        tally->n[number ? json_object_get_int(number) : 0] += (uint64_t)number_at(event, "/count");
                        if (!json_at(event, "/process"))
                                tally->n_without_sender += (uint64_t)number_at(event, "/count");
                }
                json_object_put(reply);
        }
}

static void expect_only(int fd, int number, uint64_t n) {
        struct tally tally = { 0 };

        take(fd, &tally);
        for (int i = 0; i < NSIG; i++)
                ck_assert_msg(tally.n[i] == (i == number ? n : 0), "signal %d: %llu of %llu", i,
                              (unsigned long long)tally.n[i], (unsigned long long)(i == number ? n : 0));
}

/* ---- targets ------------------------------------------------------------------------------------------------------- */

enum mode { IGNORES, BLOCKS, HANDLES };

static void do_nothing(int number _unused_) {
}

static void prepare(enum mode mode) {
        sigset_t all;

        (void)sigfillset(&all);
        if (mode == BLOCKS)
                (void)sigprocmask(SIG_BLOCK, &all, NULL);
        for (int i = 1; mode != BLOCKS && i < NSIG; i++)
                (void)signal(i, mode == IGNORES ? SIG_IGN : do_nothing);
}

/* A process that does so, until it is killed. `act`, if given, runs each time that a byte comes. */
static pid_t target(enum mode mode, void (*act)(void), int *ret_wake) {
        int ready[2], wake[2];
        char byte;
        pid_t pid;

        ck_assert_int_eq(pipe(ready), 0);
        ck_assert_int_eq(pipe(wake), 0);
        pid = fork();
        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void)close(wake[1]);
                prepare(mode);
                (void)!write(ready[1], "", 1);
                for (;;) {
                        if (read(wake[0], &byte, 1) == 0)
                                (void)pause();
                        else if (act) {
                                act();
                                (void)!write(ready[1], "", 1);
                        }
                }
        }
        ck_assert_int_gt(pid, 0);
        ck_assert_int_eq(read(ready[0], &byte, 1), 1);
        (void)close(ready[1]);
        (void)close(wake[0]);
        if (ret_wake) {
                ret_wake[0] = ready[0];
                ret_wake[1] = wake[1];
        } else {
                (void)close(ready[0]);
                (void)close(wake[1]);
        }
        return pid;
}

static void act(int *wake) {
        char byte;

        ck_assert_int_eq(write(wake[1], "", 1), 1);
        ck_assert_int_eq(read(wake[0], &byte, 1), 1);
}

static void close_both(const int *wake) {
        (void)close(wake[0]);
        (void)close(wake[1]);
}

static void end(pid_t pid) {
        (void)kill(pid, SIGKILL);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
}

/* ---- tests ---------------------------------------------------------------------------------------------------------- */

START_TEST(test_counted) {
        static const char *const names[] = { "ignored", "blocked", "handled" };
        int sends = harness_rounds(SENDS), other = client_connect(kevd->socket);
        struct tally tally = { 0 };
        pid_t pid = target((enum mode)_i, NULL, NULL);

        harness_label(names[_i]);
        ck_assert_str_eq(add(client, 1, of(pid, 0)), "");
        ck_assert_str_eq(add(other, 1, of(pid, SIGUSR2)), "");
        for (int number = 1; number < NSIG; number++) {
                if (number == SIGKILL || number == SIGSTOP || (number >= 32 && number < SIGRTMIN)) /* the C library's own */
                        continue;
                for (int i = 0; i < sends; i++)
                        ck_assert_int_eq(syscall(SYS_kill, pid, number), 0);
                expect_only(client, number, (uint64_t)sends);
        }
        expect_only(other, SIGUSR2, (uint64_t)sends);
        for (int i = 0; i < sends; i++)
                ck_assert_int_eq(kill(pid, SIGSTOP), 0);
        expect_only(client, SIGSTOP, (uint64_t)sends);
        end(pid);
        take(client, &tally);
        ck_assert_uint_eq(tally.n[SIGKILL], 1);
        ck_assert_uint_eq(tally.n[0], 1); /* the end */
        (void)close(other);
}
END_TEST

static bool is_stopped(void *userdata) {
        char path[64], line[256] = "";
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", *(pid_t *)userdata);
        file = fopen(path, "re");
        ck_assert_ptr_nonnull(file);
        (void)!fgets(line, sizeof(line), file);
        (void)fclose(file);
        return strstr(line, ") T ") != NULL;
}

/* What is done until go_on() the daemon finds all at once. */
static void hold(void) {
        (void)kill(kevd->pid, SIGSTOP);
        ck_assert(wait_until(is_stopped, &kevd->pid, HARNESS_REPLY_MSEC));
}

static void go_on(void) {
        (void)kill(kevd->pid, SIGCONT);
}

/* What the ring had no room for is counted all the same. */
START_TEST(test_more_than_fits) {
        struct tally tally = { 0 };
        pid_t pid = target(IGNORES, NULL, NULL);
        int sends = harness_rounds(SENDS);

        ck_assert_str_eq(add(client, 1, of(pid, 0)), "");
        hold();
        for (int i = 0; i < sends; i++)
                for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
                        ck_assert_int_eq(kill(pid, number), 0);
        go_on();
        take(client, &tally);
        for (int number = SIGRTMIN; number <= SIGRTMAX; number++)
                ck_assert_uint_eq(tally.n[number], (uint64_t)sends);
        ck_assert_uint_gt(tally.n_without_sender, 0);
        ck_assert_int_eq(kill(pid, SIGUSR1), 0); /* and what comes later is told as ever */
        expect_only(client, SIGUSR1, 1);
        end(pid);
}
END_TEST

/* ---- many watches of one process -------------------------------------------------------------------------------------- */

static void watch_often(pid_t pid, int n) {
        for (int i = 1; i <= n; i++)
                ck_assert_str_eq(add(client, i, of(pid, 0)), "");
}

static void send_often(pid_t pid, int sends) {
        for (int i = 0; i < sends; i++)
                ck_assert_int_eq(kill(pid, SIGUSR1), 0);
}

/* Takes no notice of signals, has the number that was another's, and goes with the test. */
static pid_t make_with_number(pid_t number) {
        struct clone_args arguments = {
                .exit_signal = SIGCHLD, .set_tid = (uint64_t)(uintptr_t)&number, .set_tid_size = 1,
        };
        pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof(arguments));

        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                for (;;)
                        (void)pause();
        }
        return pid;
}

/* How many events are made of signals, as the daemon tells when the client's Wait is answered. */
static int64_t count_told(int fd) {
        struct json_object *reply, *sources;
        int64_t n = -1;

        json_object_put(client_receive(fd, HARNESS_REPLY_MSEC)); /* the Wait's */
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        sources = json_at(reply, "/parameters/sources");
        for (size_t i = 0; i < json_object_array_length(sources); i++)
                if (strcmp(text_at(json_object_array_get_idx(sources, i), "/name"), "signals") == 0)
                        n = number_at(json_object_array_get_idx(sources, i), "/events");
        json_object_put(reply);
        ck_assert_int_ge(n, 0);
        return n;
}

/* Who has nothing to do with it comes in between. With very many not even those who watch other processes are kept
 * waiting, whose signals are behind these. */
START_TEST(test_many_watches) {
        struct tally tally = { 0 };
        pid_t pid = target(IGNORES, NULL, NULL), other_pid = target(IGNORES, NULL, NULL);
        int sends = harness_rounds(SENDS), other = client_connect(kevd->socket), n_watches = _i == 0 ? FEW : CROWD;

        harness_label(_i == 0 ? "few" : "very many");
        watch_often(pid, n_watches);
        if (n_watches == CROWD)
                ck_assert_str_eq(add(other, 1, of(other_pid, 0)), "");
        hold();
        send_often(pid, sends);
        (void)kill(other_pid, SIGUSR2);
        client_send_message(other, "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":0}}");
        client_send_message(other, "{\"method\":\"org.kevd.manager.GetStatistics\"}");
        go_on();
        ck_assert_int_lt(count_told(other), (int64_t)sends * n_watches / 2);

        take(client, &tally); /* all of it, for what was sent before a Wait is told by that */
        ck_assert_uint_eq(tally.n[SIGUSR1], (uint64_t)sends * (uint64_t)n_watches);
        ck_assert_uint_eq(tally.n_without_sender, 0);
        end(other_pid);
        end(pid);
        (void)close(other);
}
END_TEST

/* It is told behind all that was sent, and who has the number then is another. */
START_TEST(test_many_watches_to_the_end) {
        int sends = MORE_THAN_A_TURN, other = client_connect(kevd->socket);
        pid_t pid = target(IGNORES, NULL, NULL), next;
        uint64_t n[CROWD + 1] = { 0 };
        struct json_object *event;
        char text[160];

        watch_often(pid, CROWD);
        hold();
        send_often(pid, sends);
        end(pid);
        next = make_with_number(pid);
        (void)snprintf(text, sizeof(text), "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                       "\"filter\":\"signal\",\"pid\":%d}]}}", (int)pid);
        if (next > 0)
                client_send_message(other, text);
        go_on();
        for (int n_ended = 0; n_ended < CROWD;) {
                uint64_t *of_watch;

                event = next_event(client);
                of_watch = &n[number_at(event, "/id")];
                ck_assert_uint_ne(*of_watch, UINT64_MAX);
                if (json_at(event, "/data"))
                        *of_watch += (uint64_t)number_at(event, "/count");
                else {
                        ck_assert_uint_eq(*of_watch, (uint64_t)sends + 1); /* with SIGKILL */
                        *of_watch = UINT64_MAX;
                        n_ended++;
                }
                json_object_put(event);
        }
        ck_assert_ptr_null(due_event(client));
        if (next < 0)
                harness_skip("a process can't be made with a number of choice");
        event = client_receive(other, HARNESS_REPLY_MSEC);
        ck_assert_msg(!json_at(event, "/parameters/refused/0"), "%s", json_object_to_json_string(event));
        json_object_put(event);
        (void)kill(next, SIGWINCH);
        expect_only(other, SIGWINCH, 1);
        end(next);
        (void)close(other);
}
END_TEST

static void alarm_itself(void) {
        union sigval value = { 0 };

        (void)raise(SIGUSR1); /* to the thread */
        (void)sigqueue(getpid(), SIGUSR2, value);
        (void)alarm(1); /* by the kernel */
        (void)pause();
}

START_TEST(test_sender) {
        struct json_object *event;
        int wake[2];
        pid_t pid = target(HANDLES, alarm_itself, wake);

        ck_assert_str_eq(add(client, 1, of(pid, 0)), "");
        ck_assert_int_eq(kill(pid, SIGUSR1), 0);
        event = next_event(client);
        ck_assert_int_eq(number_at(event, "/process/pid"), getpid());
        ck_assert_int_eq(number_at(event, "/process/uid"), getuid());
        ck_assert_str_ne(text_at(event, "/process/comm"), "");
        ck_assert_str_eq(text_at(event, "/filter"), "signal");
        json_object_put(event);

        act(wake);
        for (int i = 0; i < 2; i++) {
                event = next_event(client);
                ck_assert_int_eq(number_at(event, "/data"), i == 0 ? SIGUSR1 : SIGUSR2);
                ck_assert_int_eq(number_at(event, "/process/pid"), pid);
                json_object_put(event);
        }
        event = next_event(client);
        ck_assert_int_eq(number_at(event, "/data"), SIGALRM);
        ck_assert_ptr_null(json_at(event, "/process"));
        json_object_put(event);
        close_both(wake);
        end(pid);
}
END_TEST

/* Its end is told, once; then it is silent, and the number may be another's. */
START_TEST(test_end) {
        struct json_object *event;
        pid_t pid = target(IGNORES, NULL, NULL);

        ck_assert_str_eq(add(client, 1, of(pid, SIGUSR1)), "");
        (void)kill(pid, SIGUSR1);
        end(pid);
        event = next_event(client);
        ck_assert_int_eq(number_at(event, "/data"), SIGUSR1);
        json_object_put(event);
        event = next_event(client);
        ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
        ck_assert_ptr_null(json_at(event, "/data"));
        json_object_put(event);
        ck_assert_ptr_null(due_event(client));
        ck_assert_str_eq(add(client, 1, ""), "EEXIST");
        ck_assert_str_eq(add(client, 2, of(pid, 0)), "ESRCH");
}
END_TEST

START_TEST(test_change) {
        pid_t pid = target(IGNORES, NULL, NULL);

        ck_assert_str_eq(add(client, 1, of(pid, SIGUSR1)), "");
        json_object_put(client_call(client, "org.kevd.events.Change",
                                    "{\"modify\":[{\"id\":1,\"filter\":\"signal\",\"data\":12}]}"));
        (void)kill(pid, SIGUSR1);
        (void)kill(pid, SIGUSR2);
        expect_only(client, SIGUSR2, 1);
        json_object_put(client_call(client, "org.kevd.events.Change", "{\"remove\":[1]}"));
        (void)kill(pid, SIGUSR2);
        ck_assert_ptr_null(due_event(client));
        end(pid);
}
END_TEST

START_TEST(test_own) {
        ck_assert_str_eq(add(client, 1, ""), "");
        (void)signal(SIGWINCH, SIG_IGN);
        (void)raise(SIGWINCH);
        expect_only(client, SIGWINCH, 1);
}
END_TEST

START_TEST(test_refusals) {
        ck_assert_str_eq(add(client, 1, ",\"pid\":0"), "EINVAL");
        ck_assert_str_eq(add(client, 1, ",\"data\":0"), "EINVAL");
        ck_assert_str_eq(add(client, 1, ",\"data\":65"), "EINVAL");
        ck_assert_str_eq(add(client, 1, ",\"data\":-1"), "EINVAL");
        ck_assert_str_eq(add(client, 1, ",\"name\":\"a\""), "EINVAL");
        ck_assert_str_eq(add(client, 1, ",\"notes\":[\"exit\"]"), "EINVAL");
        ck_assert_str_eq(add(client, 1, ",\"flags\":[\"level\"]"), "EINVAL");
        ck_assert_str_eq(add(client, 1, ",\"pid\":4194304"), "ESRCH");
}
END_TEST

/* ---- who may know ------------------------------------------------------------------------------------------------------ */

/* All of its user ids are nobody's, and it can take others. */
static void become_nobody(void) {
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[2] = { 0 };

        if (prctl(PR_SET_KEEPCAPS, 1) < 0 || setresuid(NOBODY, NOBODY, NOBODY) < 0)
                _exit(90);
        data[0].effective = data[0].permitted = 1u << CAP_SETUID | 1u << CAP_KILL;
        if (syscall(SYS_capset, &header, data) < 0)
                _exit(91);
}

static void change_user(void) {
        if (getuid() == 0)
                become_nobody();
        else if (setresuid(0, NOBODY, NOBODY) < 0)
                _exit(92);
}

START_TEST(test_other_user) {
        int wake[2], other;
        pid_t pid;

        if (geteuid() != 0)
                harness_skip("needs root, to be another user's");
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        ck_assert_int_eq(chmod(kevd->socket, 0666), 0);
        pid = target(IGNORES, change_user, wake);
        other = client_connect_as(kevd->socket, NOBODY);
        ck_assert_str_eq(add(other, 1, of(pid, 0)), "EPERM");
        ck_assert_str_eq(add(other, 1, ""), "EPERM"); /* who connected is root's */
        act(wake);
        ck_assert_str_eq(add(other, 1, of(pid, 0)), "");
        (void)kill(pid, SIGUSR1);
        expect_only(other, SIGUSR1, 1);
        ck_assert_str_eq(add(client, 1, of(pid, 0)), "");
        act(wake); /* it isn't the other's alone any more */
        (void)kill(pid, SIGUSR2);
        expect_only(client, SIGUSR2, 1);
        ck_assert_ptr_null(due_event(other));
        close_both(wake);
        end(pid);
        (void)close(other);
}
END_TEST

/* ---- without BPF --------------------------------------------------------------------------------------------------------- */

/* A daemon without privileges. */
static void start_unprivileged(void) {
        if (geteuid() != 0)
                harness_skip("needs root, to become another user");
        ck_assert_int_eq(chown(harness_tempdir(), NOBODY, NOBODY), 0);
        ck_assert_int_eq(setresgid(NOBODY, NOBODY, 0), 0);
        ck_assert_int_eq(setresuid(NOBODY, NOBODY, 0), 0);
        if (access(getenv("KEVD"), X_OK) < 0)
                harness_skip("other users can't execute the daemon");
        kevd = daemon_start(NULL);
        client = client_connect(kevd->socket);
}

static void stop_unprivileged(void) {
        ck_assert_int_eq(setresuid(0, 0, 0), 0);
        stop();
}

START_TEST(test_without_privileges) {
        struct json_object *reply = client_call(client, "org.kevd.events.Change", "{\"add\":[{\"id\":1,\"filter\":\"signal\"}]}");

        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EOPNOTSUPP");
        ck_assert_ptr_nonnull(strstr(text_at(reply, "/parameters/refused/0/message"), "BPF"));
        json_object_put(reply);
}
END_TEST

static void block(int number) {
        sigset_t set;

        (void)sigemptyset(&set);
        (void)sigaddset(&set, number);
        ck_assert_int_eq(sigprocmask(SIG_BLOCK, &set, NULL), 0);
}

static bool is_pending(void *number) {
        sigset_t pending;

        (void)sigpending(&pending);
        return sigismember(&pending, *(int *)number) == 1;
}

static struct kev_watch *watch_of(int number, uint32_t flags) {
        struct kev_watch *watch;

        ck_assert_int_eq(kev_watch_new(KEV_FILTER_SIGNAL, &watch), 0);
        if (number > 0)
                ck_assert_int_eq(kev_watch_set_data(watch, number), 0);
        ck_assert_int_eq(kev_watch_set_flags(watch, flags), 0);
        return watch;
}

static int add_own(struct kev *kev, int number, uint32_t flags, int64_t *ret_id) {
        struct kev_watch *watch = watch_of(number, flags);
        int r = kev_add(kev, watch, NULL, NULL, ret_id);

        kev_watch_free(watch);
        return r;
}

static void expect_own(struct kev *kev, int64_t id, int number, bool from_process) {
        const struct kev_event *event;
        int64_t data;
        pid_t pid = 0;

        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
        ck_assert_int_eq(kev_event_id(event), id);
        ck_assert_int_eq(kev_event_filter(event), KEV_FILTER_SIGNAL);
        ck_assert_int_eq(kev_event_data(event, &data), 0);
        ck_assert_int_eq(data, number);
        ck_assert_int_eq(kev_event_pid(event, &pid), from_process ? 0 : -ENODATA);
        ck_assert_int_eq(pid, from_process ? getpid() : 0);
        ck_assert_uint_eq(kev_event_seq(event), 0);
        ck_assert_ptr_nonnull(strstr(kev_event_json(event), "\"filter\":\"signal\""));
}

static void expect_none(struct kev *kev) {
        const struct kev_event *event;

        ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
}

/* What the library tells itself. */
START_TEST(test_own_by_library) {
        struct kev *kev;
        struct kev_watch *watch;
        int64_t rt, usr, all;

        ck_assert_int_eq(kev_open(kevd->socket, &kev), 0);
        ck_assert_int_eq(add_own(kev, SIGRTMIN, 0, &rt), -EOPNOTSUPP);
        ck_assert_ptr_nonnull(strstr(kev_error_message(kev), "blocked"));
        block(SIGRTMIN);
        ck_assert_int_eq(add_own(kev, SIGUSR1, 0, &usr), -EOPNOTSUPP);
        ck_assert_int_eq(add_own(kev, SIGRTMIN, 0, &rt), 0);
        expect_none(kev);
        for (int i = 0; i < 10; i++)
                ck_assert_int_eq(kill(getpid(), SIGRTMIN), 0);
        for (int i = 0; i < 10; i++)
                expect_own(kev, rt, SIGRTMIN, true);
        expect_none(kev);

        block(SIGUSR1);
        block(SIGALRM);
        ck_assert_int_eq(add_own(kev, SIGUSR1, KEV_FLAG_ONESHOT, &usr), 0);
        (void)raise(SIGUSR1);
        expect_own(kev, usr, SIGUSR1, true);
        (void)raise(SIGUSR1);
        expect_none(kev);
        ck_assert_int_eq(add_own(kev, 0, KEV_FLAG_DISABLED, &all), 0); /* all that are blocked */
        (void)alarm(1);
        ck_assert(wait_until(is_pending, &(int){ SIGALRM }, HARNESS_REPLY_MSEC));
        expect_none(kev);
        ck_assert_int_eq(kev_enable(kev, all), 0);
        expect_own(kev, all, SIGUSR1, true); /* was pending */
        expect_own(kev, all, SIGALRM, false);
        ck_assert_int_eq(kev_disable(kev, all), 0);
        (void)raise(SIGUSR1);
        expect_none(kev);

        watch = watch_of(SIGUSR1, KEV_FLAG_DISPATCH);
        ck_assert_int_eq(kev_modify(kev, all, watch), 0);
        expect_own(kev, all, SIGUSR1, true);
        (void)raise(SIGUSR1);
        expect_none(kev); /* disabled by its event */
        ck_assert_int_eq(kev_watch_set_id(watch, all), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), -EEXIST);
        kev_watch_free(watch);
        ck_assert_int_eq(kev_remove(kev, all), 0);
        ck_assert_int_eq(kev_remove(kev, all), -ENOENT);
        ck_assert_int_eq(kev_remove(kev, rt), 0);
        kev_close(kev);
}
END_TEST

static void count(struct kev *kev _unused_, const struct kev_event *event, void *userdata) {
        int64_t number;

        ck_assert_int_eq(kev_event_data(event, &number), 0);
        ((int *)userdata)[number]++;
}

/* A program's own loop wakes for them. */
START_TEST(test_own_in_a_loop) {
        int counts[NSIG] = { 0 };
        struct kev_watch *watch = watch_of(SIGUSR2, 0);
        struct pollfd p = { .events = POLLIN };
        struct kev *kev;

        block(SIGUSR2);
        ck_assert_int_eq(kev_open(kevd->socket, &kev), 0);
        ck_assert_int_eq(kev_add(kev, watch, count, counts, NULL), 0);
        ck_assert_int_eq(kev_add(kev, watch, count, counts, NULL), 0); /* another of the same */
        kev_watch_free(watch);
        p.fd = kev_get_fd(kev);
        while (poll(&p, 1, 0) == 1)
                (void)kev_dispatch(kev, 0);
        (void)raise(SIGUSR2);
        ck_assert_int_eq(poll(&p, 1, HARNESS_REPLY_MSEC), 1);
        ck_assert_int_eq(kev_dispatch(kev, HARNESS_REPLY_MSEC), 2);
        ck_assert_int_eq(counts[SIGUSR2], 2);
        kev_close(kev);
}
END_TEST

/* At the queue's bound the signals of one number are one event, and those of another are another. */
START_TEST(test_merged) {
        struct tally tally = { 0 };
        pid_t pid = target(IGNORES, NULL, NULL);
        int sends = harness_rounds(SENDS);

        ck_assert_str_eq(add(client, 1, of(pid, 0)), "");
        for (int i = 0; i < sends; i++)
                for (int number = 40; number < 45; number++)
                        for (int k = 40; k <= number; k++)
                                ck_assert_int_eq(kill(pid, number), 0);
        take(client, &tally);
        for (int number = 40; number < 45; number++)
                ck_assert_uint_eq(tally.n[number], (uint64_t)sends * (uint64_t)(number - 39));
        ck_assert_uint_lt(tally.n_events, (size_t)sends * 5);
        end(pid);
}
END_TEST

static void start_bounded(void) {
        start_with("--limit-queue-bytes=65536"); /* of which a connection has a quarter */
}

static void start_small(void) {
        start_with("--process-buffer=4096");
}

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("signals");
        TCase *c = harness_case(suite, "signals");

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 60);
        tcase_add_loop_test(c, test_counted, 0, 3);
        tcase_add_loop_test(c, test_many_watches, 0, 2);
        tcase_add_test(c, test_many_watches_to_the_end);
        tcase_add_test(c, test_sender);
        tcase_add_test(c, test_end);
        tcase_add_test(c, test_change);
        tcase_add_test(c, test_own);
        tcase_add_test(c, test_refusals);
        tcase_add_test(c, test_other_user);
        c = harness_case(suite, "small");
        tcase_add_checked_fixture(c, start_small, stop);
        tcase_add_test(c, test_more_than_fits);
        c = harness_case(suite, "bounded");
        tcase_add_checked_fixture(c, start_bounded, stop);
        tcase_add_test(c, test_merged);
        c = harness_case(suite, "unprivileged");
        tcase_add_checked_fixture(c, start_unprivileged, stop_unprivileged);
        tcase_add_test(c, test_without_privileges);
        tcase_add_test(c, test_own_by_library);
        tcase_add_test(c, test_own_in_a_loop);
        return harness_main(argc, argv);
}
