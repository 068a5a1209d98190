/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* libkev when kevd goes and comes: it connects again, makes its watches again, and says what may have been missed. */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <json-c/json.h>
#include <kev.h>

#include "files.h"
#include "harness.h"
#include "macro.h"
#include "unit.h"

static pid_t kevd; /* 0: none runs */
static struct kev *kev;

static const char *socket_path(void) {
        return at("%s/socket", harness_tempdir());
}

static bool answers(void *unused _unused_) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), r;

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path());
        r = connect(fd, (struct sockaddr *)&address, sizeof(address));
        (void)close(fd);
        return r == 0;
}

static void read_message(int fd) {
        char byte = 1;

        while (byte != 0 && read(fd, &byte, 1) == 1)
                ;
}

/* Answers one Change, and is gone before the next, or when it has read it. */
static void answer_once(int listener, bool reads_next) {
        static const char reply[] = "{\"parameters\":{\"refused\":[]}}";
        int fd = accept(listener, NULL, NULL);

        read_message(fd);
        if (!reads_next)
                (void)shutdown(fd, SHUT_RD);
        (void)!write(fd, reply, sizeof(reply));
        if (reads_next)
                read_message(fd);
        (void)close(fd);
}

static void be_unsteady(const char *path, int n, bool reads_next) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        (void)unlink(path);
        if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0 || listen(listener, 1) < 0)
                _exit(126);
        while (n-- > 0)
                answer_once(listener, reads_next);
}

/* On its socket, which one that was killed has left there. `n_before`: so many that answer once come first. */
static void begin_kevd_after(int n_before, bool read_next) {
        const char *path = socket_path(), *option = at("--listen=%s", path), *program = getenv("KEVD");
        int null;

        kevd = fork();
        if (kevd == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                null = open("/dev/null", O_RDWR);
                (void)dup2(null, STDERR_FILENO);
                if (n_before > 0)
                        be_unsteady(path, n_before, read_next);
                (void)execl(program, "kevd", "--mode=user", option, NULL);
                _exit(127);
        }
        ck_assert_int_gt(kevd, 0);
}

static void begin_kevd(void) {
        begin_kevd_after(0, false);
}

static void start_kevd(void) {
        begin_kevd();
        ck_assert(wait_until(answers, NULL, HARNESS_REPLY_MSEC));
}

static void kill_kevd(void) {
        ck_assert_int_eq(kill(kevd, SIGKILL), 0);
        ck_assert_int_eq(waitpid(kevd, NULL, 0), kevd);
        kevd = 0;
}

static void setup(void) {
        start_kevd();
        ck_assert_int_eq(kev_open(socket_path(), &kev), 0);
}

static void teardown(void) {
        kev = kev_close(kev);
        if (kevd > 0)
                kill_kevd();
}

/* ---- watches -------------------------------------------------------------------------------------------------------- */

static struct kev_watch *new_watch(enum kev_filter filter) {
        struct kev_watch *watch;

        ck_assert_int_eq(kev_watch_new(filter, &watch), 0);
        return watch;
}

static int64_t add(struct kev_watch *watch) {
        int64_t id;

        ck_assert_msg(kev_add(kev, watch, NULL, NULL, &id) == 0, "%s", kev_error_message(kev));
        kev_watch_free(watch);
        return id;
}

static struct kev_watch *user_watch(const char *name) {
        struct kev_watch *watch = new_watch(KEV_FILTER_USER);

        ck_assert_int_eq(kev_watch_set_name(watch, name), 0);
        return watch;
}

static struct kev_watch *process_watch(pid_t pid) {
        struct kev_watch *watch = new_watch(KEV_FILTER_PROC);

        ck_assert_int_eq(kev_watch_set_pid(watch, pid), 0);
        return watch;
}

/* 0: they are not said. */
static void modify(int64_t id, struct kev_watch *watch, uint64_t notes) {
        ck_assert_int_eq(kev_watch_set_notes(watch, notes), 0);
        ck_assert_msg(kev_modify(kev, id, watch) == 0, "%s", kev_error_message(kev));
}

enum { N_IDS = 16 };

/* What each watch said, until there was no more. */
struct said {
        uint64_t notes[N_IDS];
        uint32_t flags[N_IDS];
        unsigned n[N_IDS], n_own[N_IDS];
};

static struct said listen_to_all(void) {
        const struct kev_event *event;
        struct said said = { 0 };
        int r;

        while ((r = kev_wait(kev, 0, &event)) == 1) {
                int64_t id = kev_event_id(event);

                ck_assert_int_lt(id, N_IDS);
                said.notes[id] |= kev_event_notes(event);
                said.flags[id] |= kev_event_flags(event);
                said.n[id]++;
                said.n_own[id] += kev_event_seq(event) == 0;
        }
        ck_assert_msg(r == 0, "%d: %s", r, kev_error_message(kev));
        return said;
}

/* Until the library has connected again: a call is answered then. */
static void come_again(void) {
        char *reply;

        ck_assert_msg(kev_call(kev, "org.kevd.events.GetLimits", NULL, &reply) == 0, "%s", kev_error_message(kev));
        free(reply);
}

static void restart(void) {
        kill_kevd();
        start_kevd();
        come_again();
}

/* ---- tests ----------------------------------------------------------------------------------------------------------- */

START_TEST(test_each_filter) {
        enum { TREE, VNODE, TIMER, USER, ENDED, RUNS, MATCH, NETDEV, POLL };
        const char *root = make_root("w");
        struct kev_watch *watch = new_watch(KEV_FILTER_TREE);
        pid_t ended = start_process(), runs = start_process();
        struct said said;
        int ends[2];

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        ck_assert_int_eq(kev_watch_set_path(watch, root), 0);
        ck_assert_int_eq(add(watch), TREE);
        watch = new_watch(KEV_FILTER_VNODE);
        ck_assert_int_eq(kev_watch_set_path(watch, root), 0);
        ck_assert_int_eq(add(watch), VNODE);
        watch = new_watch(KEV_FILTER_TIMER);
        ck_assert_int_eq(kev_watch_set_data(watch, 1000000), 0);
        ck_assert_int_eq(add(watch), TIMER);
        ck_assert_int_eq(add(user_watch("a")), USER);
        ck_assert_int_eq(add(process_watch(ended)), ENDED);
        ck_assert_int_eq(add(process_watch(runs)), RUNS);
        watch = new_watch(KEV_FILTER_PROC);
        ck_assert_int_eq(kev_watch_set_match(watch, NULL, "nobody-is-called-so", NULL, -1), 0);
        if (kev_add(kev, watch, NULL, NULL, &(int64_t){ MATCH }) < 0) /* where there is no feed */
                ck_assert_int_eq(kev_watch_set_id(watch, MATCH), 0);
        kev_watch_free(watch);
        watch = new_watch(KEV_FILTER_NETDEV);
        ck_assert_int_eq(kev_watch_set_id(watch, NETDEV), 0);
        ck_assert_int_eq(add(watch), NETDEV);
        watch = new_watch(KEV_FILTER_POLL);
        ck_assert_int_eq(kev_watch_set_fd(watch, ends[0]), 0);
        ck_assert_int_eq(add(watch), POLL);
        (void)listen_to_all();

        kill_kevd();
        end_process(ended);
        make_file(at("%s/missed", root));
        start_kevd();
        come_again();
        said = listen_to_all();
        ck_assert_uint_eq(said.notes[TREE], KEV_NOTE_RESCAN);
        ck_assert_uint_eq(said.notes[VNODE], KEV_NOTE_RESCAN);
        ck_assert_uint_eq(said.notes[NETDEV], KEV_NOTE_RESCAN);
        ck_assert_uint_eq(said.notes[TIMER], KEV_NOTE_LOST);
        ck_assert_uint_eq(said.notes[USER], KEV_NOTE_LOST);
        ck_assert_uint_eq(said.notes[ENDED], KEV_NOTE_EXIT);
        ck_assert_uint_eq(said.flags[ENDED], KEV_FLAG_EOF);
        ck_assert_uint_eq(said.n[RUNS], 0);
        ck_assert_uint_eq(said.flags[POLL], KEV_FLAG_EOF);
        for (size_t i = 0; i < N_IDS; i++)
                ck_assert_uint_eq(said.n[i], said.n_own[i]);

        /* And so on. */
        make_file(at("%s/seen", root));
        ck_assert_int_eq(kev_trigger(kev, "a", 1), 1);
        end_process(runs);
        ck_assert_int_eq(write(ends[1], "x", 1), 1);
        said = listen_to_all();
        ck_assert_uint_ne(said.notes[TREE] & KEV_NOTE_CREATE, 0);
        ck_assert_uint_ne(said.notes[VNODE] & KEV_NOTE_WRITE, 0);
        ck_assert_uint_eq(said.notes[USER], KEV_NOTE_TRIGGER);
        ck_assert_uint_ne(said.notes[RUNS] & KEV_NOTE_EXIT, 0);
        ck_assert_uint_eq(said.n[ENDED], 0);
        ck_assert_uint_eq(said.n[POLL], 0);
        ck_assert_int_eq(kev_remove(kev, POLL), 0); /* it is one of the program's still */
        ck_assert_int_eq(kev_remove(kev, POLL), -ENOENT);
        (void)close(ends[0]);
        (void)close(ends[1]);
}
END_TEST

/* Watches are as they were left. */
START_TEST(test_state) {
        enum { REMOVED, DISABLED, ENABLED, DISPATCHED, ONCE, CHANGED };
        struct kev_watch *watch;
        struct said said;

        ck_assert_int_eq(add(user_watch("a")), REMOVED);
        ck_assert_int_eq(add(user_watch("a")), DISABLED);
        watch = user_watch("a");
        ck_assert_int_eq(kev_watch_set_flags(watch, KEV_FLAG_DISABLED), 0);
        ck_assert_int_eq(add(watch), ENABLED);
        watch = user_watch("a");
        ck_assert_int_eq(kev_watch_set_flags(watch, KEV_FLAG_DISPATCH), 0);
        ck_assert_int_eq(add(watch), DISPATCHED);
        watch = user_watch("a");
        ck_assert_int_eq(kev_watch_set_flags(watch, KEV_FLAG_ONESHOT), 0);
        ck_assert_int_eq(add(watch), ONCE);
        watch = user_watch("a");
        ck_assert_int_eq(kev_watch_set_flags(watch, KEV_FLAG_ONESHOT), 0);
        ck_assert_int_eq(add(watch), CHANGED);
        ck_assert_int_eq(kev_watch_set_flags(watch = user_watch("a"), 0), 0);
        ck_assert_int_eq(kev_modify(kev, CHANGED, watch), 0);
        kev_watch_free(watch);
        ck_assert_int_eq(kev_remove(kev, REMOVED), 0);
        ck_assert_int_eq(kev_disable(kev, DISABLED), 0);
        ck_assert_int_eq(kev_enable(kev, ENABLED), 0);
        ck_assert_int_eq(kev_trigger(kev, "a", 1), 5);
        said = listen_to_all();
        ck_assert_uint_eq(said.n[DISPATCHED], 1);
        ck_assert_uint_eq(said.n[ONCE], 1);

        restart();
        said = listen_to_all();
        ck_assert_uint_eq(said.n[ONCE] + said.n[REMOVED], 0);
        ck_assert_int_eq(kev_trigger(kev, "a", 1), 4);
        said = listen_to_all();
        ck_assert_uint_eq(said.n[DISABLED], 0);
        ck_assert_uint_eq(said.n[ENABLED], 1);
        ck_assert_uint_eq(said.n[DISPATCHED], 0);
        ck_assert_uint_eq(said.n[CHANGED], 1);
        ck_assert_int_eq(kev_enable(kev, DISPATCHED), 0);
        said = listen_to_all();
        ck_assert_uint_eq(said.n[DISPATCHED], 1); /* what it had kept back */
        ck_assert_int_eq(kev_trigger(kev, "a", 1), 4);
        said = listen_to_all();
        ck_assert_uint_eq(said.n[CHANGED], 1);
}
END_TEST

static void count(struct kev *from _unused_, const struct kev_event *event, void *userdata) {
        *(uint64_t *)userdata |= kev_event_notes(event);
}

static bool is_readable(void *unused _unused_) {
        struct pollfd p = { .fd = kev_get_fd(kev), .events = POLLIN };

        return poll(&p, 1, 0) == 1;
}

/* A program's own loop, which only ever waits for the descriptor. */
START_TEST(test_loop) {
        struct kev_watch *watch = user_watch("a");
        uint64_t notes = 0;
        int fd = kev_get_fd(kev);

        ck_assert_int_eq(kev_add(kev, watch, count, &notes, NULL), 0);
        kev_watch_free(watch);
        for (int i = 0; i < harness_rounds(5); i++) {
                kill_kevd();
                start_kevd();
                for (notes = 0; !(notes & KEV_NOTE_LOST);) {
                        ck_assert(wait_until(is_readable, NULL, HARNESS_REPLY_MSEC));
                        ck_assert_int_ge(kev_dispatch(kev, 0), 0);
                }
                ck_assert_int_eq(kev_trigger(kev, "a", 1), 1);
                while (!(notes & KEV_NOTE_TRIGGER)) {
                        ck_assert(wait_until(is_readable, NULL, HARNESS_REPLY_MSEC));
                        ck_assert_int_ge(kev_dispatch(kev, 0), 0);
                }
                ck_assert_int_eq(kev_get_fd(kev), fd);
        }
}
END_TEST

/* A call is made when kevd is there again; one that was under way fails. */
START_TEST(test_calls) {
        kill_kevd();
        begin_kevd();
        (void)add(user_watch("a"));
        ck_assert_int_eq(kev_trigger(kev, "a", 1), 1);
        ck_assert_int_eq(kev_set_reconnect_timeout(kev, 300), 0); /* in case that it has gone before the call */
        ck_assert_int_eq(kill(kevd, SIGSTOP), 0);
        if (fork() == 0) {
                (void)kill(kevd, SIGKILL);
                _exit(0);
        }
        ck_assert_int_eq(kev_trigger(kev, "a", 1), -ECONNRESET);
        while (waitpid(-1, NULL, 0) > 0)
                ;
        kevd = 0;
}
END_TEST

START_TEST(test_nobody_comes) {
        const struct kev_event *event;

        (void)add(user_watch("a"));
        ck_assert_int_eq(kev_set_reconnect_timeout(kev, -1), -EINVAL);
        ck_assert_int_eq(kev_set_reconnect_timeout(kev, _i ? 300 : 0), 0);
        kill_kevd();
        ck_assert_int_eq(kev_wait(kev, -1, &event), -ECONNRESET);
        ck_assert_ptr_nonnull(strstr(kev_error_message(kev), socket_path()));
        start_kevd(); /* too late */
        ck_assert_int_eq(kev_wait(kev, 0, &event), -ECONNRESET);
        ck_assert_int_eq(kev_trigger(kev, "a", 1), -ECONNRESET);
        ck_assert(is_readable(NULL)); /* so that a loop finds out */
}
END_TEST

/* It goes again and again, also while the watches are being made. */
START_TEST(test_again_and_again) {
        enum { WATCHES = 200 };
        struct random r = { 5 };
        const struct kev_event *event;
        char name[16];

        for (int i = 0; i < WATCHES; i++) {
                (void)snprintf(name, sizeof(name), "n%d", i);
                (void)add(user_watch(name));
        }
        for (int i = 0; i < harness_rounds(10); i++) {
                kill_kevd();
                start_kevd();
                for (size_t n = random_below(&r, 4); n > 0; n--)
                        ck_assert_int_ge(kev_wait(kev, (int)random_below(&r, 8), &event), 0);
        }
        come_again();
        while (kev_wait(kev, 0, &event) == 1)
                ;
        for (int i = 0; i < WATCHES; i++) {
                (void)snprintf(name, sizeof(name), "n%d", i);
                ck_assert_int_eq(kev_trigger(kev, name, i), 1);
        }
        for (int i = 0; i < WATCHES; i++) {
                int64_t data;

                ck_assert_int_eq(kev_wait(kev, 0, &event), 1);
                ck_assert_int_eq(kev_event_id(event), i);
                ck_assert_int_eq(kev_event_data(event, &data), 0);
                ck_assert_int_eq(data, i);
        }
        ck_assert_int_eq(kev_wait(kev, 0, &event), 0);
}
END_TEST

/* What has answered may be gone before the next watch is made, several times. */
START_TEST(test_gone_while_remaking) {
        const struct kev_event *event;

        (void)add(user_watch("a"));
        (void)add(user_watch("b"));
        kill_kevd();
        begin_kevd_after(5, false);
        come_again();
        while (kev_wait(kev, 0, &event) == 1)
                ck_assert_uint_eq(kev_event_notes(event), KEV_NOTE_LOST);
        ck_assert_int_eq(kev_trigger(kev, "a", 1), 1);
        ck_assert_int_eq(kev_trigger(kev, "b", 1), 1);
}
END_TEST

/* Watches that take several calls: each of them is in force, or was refused. */
START_TEST(test_gone_while_adding) {
        enum { WATCHES = 3000 };
        struct kev_watch *watches[WATCHES];
        int errors[WATCHES], n_refused = 0, r;
        char name[16];

        for (int i = 0; i < WATCHES; i++) {
                (void)snprintf(name, sizeof(name), "n%d", i);
                watches[i] = user_watch(name);
        }
        kill_kevd();
        begin_kevd_after(1, false);
        r = kev_add_many(kev, (const struct kev_watch *const *)watches, WATCHES, NULL, NULL, NULL, errors);
        for (int i = 0; i < WATCHES; i++) {
                (void)snprintf(name, sizeof(name), "n%d", i);
                ck_assert_int_eq(kev_trigger(kev, name, 1), errors[i] == 0);
                ck_assert(errors[i] == 0 || errors[i] == -ECONNRESET);
                n_refused += errors[i] != 0;
                kev_watch_free(watches[i]);
        }
        ck_assert_int_gt(n_refused, 0);
        ck_assert_int_eq(r, n_refused < WATCHES ? n_refused : -ECONNRESET);
}
END_TEST

/* What may have been missed is what a watch wants now: of the end alone nothing is. A change that says no notes leaves
 * them. */
START_TEST(test_modified) {
        static const uint64_t notes[] = { KEV_NOTE_EXIT, 0 };
        pid_t pid = start_process();
        struct kev_watch *watch = process_watch(pid);

        harness_label(_i == 0 ? "of exit alone" : "with the same notes");
        ck_assert_int_eq(kev_watch_set_notes(watch, KEV_NOTE_EXIT | KEV_NOTE_EXEC), 0);
        if (kev_add(kev, watch, NULL, NULL, NULL) < 0)
                harness_skip("programs that begin can't be told of here");
        modify(0, watch, notes[_i]);
        kev_watch_free(watch);
        restart();
        ck_assert_uint_eq(listen_to_all().notes[0], notes[_i] == 0 ? KEV_NOTE_LOST : 0);
        end_process(pid);
        ck_assert_uint_ne(listen_to_all().notes[0] & KEV_NOTE_EXIT, 0);
}
END_TEST

/* What the last change doesn't say is as the one before has left it. */
START_TEST(test_modified_twice) {
        enum { TREE, TIMER, HOUR_MSEC = 3600 * 1000 };
        const char *root = make_root("w");
        struct kev_watch *tree = new_watch(KEV_FILTER_TREE), *timer = new_watch(KEV_FILTER_TIMER);
        const struct kev_event *event;
        struct said said;

        ck_assert_int_eq(kev_watch_set_path(tree, root), 0);
        ck_assert_int_eq(kev_watch_set_notes(tree, KEV_NOTE_CREATE), 0);
        ck_assert_int_eq(kev_add(kev, tree, NULL, NULL, NULL), 0);
        ck_assert_int_eq(kev_watch_add_include(tree, "*.c"), 0);
        modify(TREE, tree, KEV_NOTE_CREATE | KEV_NOTE_DELETE);
        kev_watch_free(tree);
        tree = new_watch(KEV_FILTER_TREE);
        modify(TREE, tree, KEV_NOTE_CREATE | KEV_NOTE_DELETE | KEV_NOTE_ATTRIB);
        modify(TREE, tree, 0);
        kev_watch_free(tree);

        ck_assert_int_eq(kev_watch_set_flags(timer, KEV_FLAG_DISABLED), 0);
        ck_assert_int_eq(kev_watch_set_data(timer, HOUR_MSEC), 0);
        ck_assert_int_eq(kev_add(kev, timer, NULL, NULL, NULL), 0);
        ck_assert_int_eq(kev_watch_set_data(timer, 1), 0);
        modify(TIMER, timer, 0);
        kev_watch_free(timer);
        timer = new_watch(KEV_FILTER_TIMER);
        ck_assert_int_eq(kev_watch_set_flags(timer, KEV_FLAG_DISABLED), 0);
        modify(TIMER, timer, 0);
        kev_watch_free(timer);

        restart();
        said = listen_to_all();
        ck_assert_uint_eq(said.notes[TREE], KEV_NOTE_RESCAN);
        ck_assert_uint_eq(said.notes[TIMER], KEV_NOTE_LOST);
        make_file(at("%s/a.o", root));
        make_file(at("%s/a.c", root));
        change_mode(at("%s/a.c", root), 0600);
        remove_file(at("%s/a.c", root));
        while (kev_wait(kev, 0, &event) == 1) {
                ck_assert_str_eq(kev_event_path(event), at("%s/a.c", root));
                said.notes[TREE] |= kev_event_notes(event);
        }
        ck_assert_uint_eq(said.notes[TREE] & ~KEV_NOTE_RESCAN, KEV_NOTE_CREATE | KEV_NOTE_DELETE | KEV_NOTE_ATTRIB);
        ck_assert_int_eq(kev_enable(kev, TIMER), 0);
        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
        ck_assert_int_eq(kev_event_id(event), TIMER);
}
END_TEST

static int64_t realtime_msec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_REALTIME, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void expect_moment(void) {
        const struct kev_event *event;

        ck_assert_int_eq(kev_wait(kev, HARNESS_REPLY_MSEC, &event), 1);
        ck_assert_uint_ne(kev_event_seq(event), 0);
        ck_assert_uint_eq(kev_event_flags(event), KEV_FLAG_EOF);
}

/* A timer whose moment was told is not made again, but with another that it was given: before kevd went, or since. */
START_TEST(test_moments) {
        enum { HOUR_MSEC = 3600 * 1000 };
        struct kev_watch *watch = new_watch(KEV_FILTER_TIMER);
        struct said said;

        ck_assert_int_eq(kev_watch_set_data(watch, realtime_msec()), 0);
        ck_assert_int_eq(kev_watch_set_notes(watch, KEV_NOTE_ABSTIME), 0);
        ck_assert_int_eq(kev_add(kev, watch, NULL, NULL, NULL), 0);
        expect_moment();
        ck_assert_int_eq(kev_watch_set_data(watch, realtime_msec() + HOUR_MSEC), 0);
        modify(0, watch, KEV_NOTE_ABSTIME);
        restart();
        said = listen_to_all();
        ck_assert_uint_eq(said.n[0], 1);
        ck_assert_uint_eq(said.notes[0], KEV_NOTE_LOST);
        ck_assert_int_eq(kev_watch_set_data(watch, realtime_msec()), 0);
        modify(0, watch, 0);
        expect_moment();
        restart();
        ck_assert_uint_eq(listen_to_all().n[0], 0);
        ck_assert_int_eq(kev_watch_set_data(watch, realtime_msec() + 1), 0);
        modify(0, watch, 0);
        expect_moment();
        kev_watch_free(watch);
}
END_TEST

/* A watch that one message could not make again is not changed so. */
START_TEST(test_modified_beyond_a_message) {
        enum { N_GLOBS = 8 };
        struct kev_watch *watch = new_watch(KEV_FILTER_TREE);
        char path[9 * 1024], glob[1000];

        for (size_t i = 0; i < sizeof(path); i++)
                path[i] = i % 200 == 0 ? '/' : 1; /* six bytes each, in JSON */
        path[sizeof(path) - 1] = 0;
        memset(glob, 1, sizeof(glob));
        glob[sizeof(glob) - 1] = 0;
        ck_assert_int_eq(kev_watch_set_path(watch, path), 0);
        ck_assert_int_eq(kev_watch_set_notes(watch, KEV_NOTE_CREATE | KEV_NOTE_BACK), 0);
        ck_assert_msg(kev_add(kev, watch, NULL, NULL, NULL) == 0, "%s", kev_error_message(kev));
        ck_assert_int_eq(kev_watch_add_include(watch, "*.c"), 0);
        ck_assert_int_eq(kev_modify(kev, 0, watch), 0);
        for (int i = 0; i < N_GLOBS; i++)
                ck_assert_int_eq(kev_watch_add_include(watch, glob), 0);
        ck_assert_int_eq(kev_modify(kev, 0, watch), -EMSGSIZE);
        kev_watch_free(watch);
        restart();
        ck_assert_uint_eq(listen_to_all().notes[0], KEV_NOTE_RESCAN);
}
END_TEST

/* When it began, in ticks of 10 msec: proc_pid_stat(5). */
static unsigned long long start_time(pid_t pid) {
        FILE *file = fopen(at("/proc/%d/stat", (int)pid), "re");
        unsigned long long ticks;

        ck_assert_ptr_nonnull(file);
        ck_assert_int_eq(fscanf(file, "%*d (%*[^)]) %*c" /* to the 21st */
                                      " %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %llu",
                                &ticks), 1);
        (void)fclose(file);
        return ticks;
}

/* A process of that number that began at another time, if it can be had. */
static pid_t fork_as(pid_t wanted, unsigned long long before) {
        for (int i = 0; i < 1000; i++) {
                FILE *file = fopen("/proc/sys/kernel/ns_last_pid", "we");
                pid_t pid;

                if (!file || fprintf(file, "%d", wanted - 1) < 0 || fclose(file) != 0)
                        return -1;
                pid = start_process();
                if (pid == wanted && start_time(pid) != before)
                        return pid;
                end_process(pid);
        }
        return -1;
}

/* Its number is another process's by the time that kevd is there again, or even before its going is noticed. */
START_TEST(test_number_taken) {
        static const struct {
                const char *label;
                enum kev_filter filter;
                bool is_noticed;
                uint64_t notes;
        } cases[] = {
                { "proc, after the loss", KEV_FILTER_PROC, true, KEV_NOTE_EXIT },
                { "proc, before it is noticed", KEV_FILTER_PROC, false, KEV_NOTE_EXIT },
                { "signal", KEV_FILTER_SIGNAL, false, KEV_NOTE_LOST },
        };
        pid_t pid = start_process(), other;
        unsigned long long began = start_time(pid);
        struct kev_watch *watch = new_watch(cases[_i].filter);
        struct said said;
        int r;

        harness_label(cases[_i].label);
        ck_assert_int_eq(kev_watch_set_pid(watch, pid), 0);
        r = kev_add(kev, watch, NULL, NULL, NULL);
        if (r == -EOPNOTSUPP)
                harness_skip(kev_error_message(kev));
        ck_assert_int_eq(r, 0);
        kev_watch_free(watch);
        (void)listen_to_all();
        kill_kevd();
        if (cases[_i].is_noticed)
                (void)listen_to_all();
        end_process(pid);
        other = fork_as(pid, began);
        if (other < 0)
                harness_skip("a process can't be given a number here");
        start_kevd();
        come_again();
        said = listen_to_all();
        ck_assert_uint_eq(said.n[0], 1);
        ck_assert_uint_eq(said.notes[0], cases[_i].notes);
        ck_assert_uint_eq(said.flags[0], KEV_FLAG_EOF);
        end_process(other);
        ck_assert_uint_eq(listen_to_all().n[0], 0);
}
END_TEST

/* A process that lives is not said to have ended by a program that has no descriptor left to look at it. */
START_TEST(test_no_descriptors) {
        pid_t pid = start_process();
        struct rlimit limit, few;
        int unused;

        ck_assert_int_eq(add(process_watch(pid)), 0);
        kill_kevd();
        (void)listen_to_all(); /* it is noticed */
        start_kevd();
        unused = dup(STDERR_FILENO);
        (void)close(unused);
        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
        few = limit;
        few.rlim_cur = (rlim_t)unused + 1; /* for the connection */
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
        come_again();
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        ck_assert_uint_eq(listen_to_all().n[0], 0);
        end_process(pid);
        ck_assert_uint_ne(listen_to_all().notes[0] & KEV_NOTE_EXIT, 0);
}
END_TEST

/* One that kevd has taken along is not made again, nor told of. */
START_TEST(test_removed_meanwhile) {
        int64_t id = add(user_watch("a"));

        ck_assert_int_eq(kev_trigger(kev, "a", 1), 1);
        kill_kevd();
        begin_kevd_after(1, true);
        ck_assert_int_eq(kev_remove(kev, id), 0);
        ck_assert_int_eq(kev_trigger(kev, "a", 1), 0);
        ck_assert_uint_eq(listen_to_all().n[id], 0);

        id = add(user_watch("a"));
        ck_assert_int_eq(kev_set_reconnect_timeout(kev, 0), 0);
        kill_kevd();
        ck_assert_int_eq(kev_trigger(kev, "a", 1), -ECONNRESET);
        ck_assert_int_eq(kev_remove(kev, id), 0);
        ck_assert_int_eq(kev_remove(kev, id), -ECONNRESET);
}
END_TEST

static bool is_quiet_after_dispatch(void *unused) {
        ck_assert_int_ge(kev_dispatch(kev, 0), 0);
        return !is_readable(unused);
}

/* A loop is not woken for nothing: while nobody is there, nor because a child has the connection's descriptors. */
START_TEST(test_quiet_loop) {
        struct kev_watch *watch = new_watch(KEV_FILTER_POLL);
        pid_t child;
        int ends[2];

        ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
        ck_assert_int_eq(kev_watch_set_fd(watch, ends[0]), 0);
        ck_assert_int_eq(kev_watch_set_flags(watch, KEV_FLAG_LEVEL), 0);
        (void)add(watch);
        child = start_process();
        kill_kevd();
        ck_assert(wait_until(is_quiet_after_dispatch, NULL, HARNESS_REPLY_MSEC));
        start_kevd();
        come_again();
        ck_assert(wait_until(is_quiet_after_dispatch, NULL, HARNESS_REPLY_MSEC));
        end_process(child);
        (void)close(ends[0]);
        (void)close(ends[1]);
}
END_TEST

/* Of a private one there is another then. */
START_TEST(test_private) {
        struct json_object *status;
        char *reply;
        pid_t pid;
        struct said said;

        kev = kev_close(kev);
        ck_assert_int_eq(kev_open("private", &kev), 0);
        ck_assert_int_eq(add(user_watch("a")), 0);
        ck_assert_int_eq(kev_call(kev, "org.kevd.manager.GetStatus", NULL, &reply), 0);
        status = json_tokener_parse(reply);
        pid = (pid_t)number_at(status, "/pid");
        json_object_put(status);
        free(reply);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        said = listen_to_all();
        while (said.n[0] == 0)
                said = listen_to_all();
        ck_assert_uint_eq(said.notes[0], KEV_NOTE_LOST);
        ck_assert_int_eq(kev_trigger(kev, "a", 1), 1);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("reconnect");
        TCase *c = harness_case(suite, "reconnect");

        tcase_add_checked_fixture(c, setup, teardown);
        tcase_set_timeout(c, 60);
        tcase_add_test(c, test_each_filter);
        tcase_add_test(c, test_state);
        tcase_add_test(c, test_loop);
        tcase_add_test(c, test_calls);
        tcase_add_loop_test(c, test_nobody_comes, 0, 2);
        tcase_add_test(c, test_again_and_again);
        tcase_add_test(c, test_gone_while_remaking);
        tcase_add_test(c, test_gone_while_adding);
        tcase_add_loop_test(c, test_modified, 0, 2);
        tcase_add_test(c, test_modified_twice);
        tcase_add_test(c, test_moments);
        tcase_add_test(c, test_modified_beyond_a_message);
        tcase_add_loop_test(c, test_number_taken, 0, 3);
        tcase_add_test(c, test_no_descriptors);
        tcase_add_test(c, test_removed_meanwhile);
        tcase_add_test(c, test_quiet_loop);
        tcase_add_test(c, test_private);
        return harness_main(argc, argv);
}
