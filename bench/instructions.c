/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The paths that every event takes, each by itself and so often, for instructions.py, which counts instructions under
 * valgrind's callgrind: all that runs within counted(), and nothing else.
 *
 * It links the daemon's own objects, and one thread is client and daemon in turn. What differs from run to run - the
 * hash tables' key, the clock, the length of the temporary directory's name - is made the same here.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "macro.h"
#include "match.h"
#include "queue.h"
#include "server.h"
#include "workers.h"

enum { EVENTS = 1000, BATCH = 100, CLIENTS = 100, DEADLINE_MSEC = 60000, MIB = 1024 * 1024 };

static const struct limits limits = {
        .values = { [RESOURCE_CONNECTIONS] = 1000, [RESOURCE_WATCHES] = 10000, [RESOURCE_WATCH_BYTES] = 16 * MIB,
                    [RESOURCE_QUEUE_BYTES] = 64 * MIB, [RESOURCE_OUTPUT_BYTES] = 16 * MIB,
                    [RESOURCE_DESCRIPTORS] = 10000,
                    [RESOURCE_TIMERS] = 1000, [RESOURCE_REQUESTS] = 1 << 30 },
};

static const struct source_settings settings = {
        .file_mechanism = FILE_MECHANISM_INOTIFY, .process_feed = PROCESS_FEED_PIDFD,
};

static char directory[] = "/tmp/kevd-instructions-XXXXXX"; /* wherever $TMPDIR is: its length counts */
static char file_names[2][64];
static int files[2];

static struct mux *mux;
static struct workers *workers;

/* ---- what is the same in each run ----------------------------------------------------------- */

int __wrap_clock_gettime(clockid_t clock, struct timespec *ret);
int __real_clock_gettime(clockid_t clock, struct timespec *ret);
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags);
long __wrap_syscall(long number, ...);
long __real_syscall(long number, ...);

void counted(void (*fn)(void));

/* How much is done in a turn is measured by the clock, which valgrind makes go fifty times as fast: here each look at it
 * takes a microsecond. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *ret) {
        static atomic_ullong n_looks;
        uint64_t nsec = (1000 + atomic_fetch_add(&n_looks, 1)) * UINT64_C(1000);

        if (clock != CLOCK_MONOTONIC && clock != CLOCK_REALTIME)
                return __real_clock_gettime(clock, ret);
        *ret = (struct timespec){ (time_t)(nsec / 1000000000), (long)(nsec % 1000000000) };
        return 0;
}

/* For the hash tables' key. */
ssize_t __wrap_getrandom(void *buffer, size_t size, unsigned flags _unused_) {
        memset(buffer, 0x5a, size);
        return (ssize_t)size;
}

/* valgrind didn't know openat2(2) before 3.23. */
long __wrap_syscall(long number, ...) {
        va_list list;
        long a[6];

        va_start(list, number);
        for (size_t i = 0; i < ARRAY_SIZE(a); i++)
                a[i] = va_arg(list, long);
        va_end(list);
        if (number == SYS_openat2) {
                const struct open_how *how = (const struct open_how *)a[2];

                return openat((int)a[0], (const char *)a[1], (int)how->flags, (mode_t)how->mode);
        }
        return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* ---- what all paths need ---------------------------------------------------------------------- */

static void remove_files(void) {
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
                (void)unlink(file_names[i]);
        (void)rmdir(directory);
}

static _Noreturn void fail(const char *what) {
        (void)fprintf(stderr, "%s: %s\n", what, strerror(errno));
        exit(EXIT_FAILURE);
}

static void check(bool ok, const char *what) {
        if (!ok)
                fail(what);
}

static void begin(void) {
        check(mkdtemp(directory) != NULL, directory);
        (void)atexit(remove_files);
        for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
                (void)snprintf(file_names[i], sizeof(file_names[i]), "%s/source-%zu.c", directory, i);
                files[i] = open(file_names[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
                check(files[i] >= 0, file_names[i]);
        }
        check(mux_open("epoll", &mux) == 0 && workers_new(mux, &workers) == 0, "the loop");
}

static void end(void) {
        (void)workers_free(workers);
        mux_close(mux);
        for (size_t i = 0; i < ARRAY_SIZE(files); i++)
                (void)close(files[i]);
}

/* What is counted: callgrind's --toggle-collect names it. */
__attribute__((noinline)) void counted(void (*fn)(void)) {
        fn();
        __asm__ volatile(""); /* or it would be a jump, and its end not be seen */
}

static void turn(void) {
        check(mux_wait(mux, 0) == 0, "mux_wait");
}

/* Not counted. */
static void turn_until(bool (*done)(void)) {
        uint64_t deadline = monotonic_nsec() + DEADLINE_MSEC * NSEC_PER_MSEC;

        while (!done()) {
                check(monotonic_nsec() < deadline, "nothing has happened in time");
                check(mux_wait(mux, NSEC_PER_MSEC) == 0, "mux_wait");
        }
}

/* The two files in turn: the kernel joins an event to one that is the same. */
static void write_files(size_t n) {
        for (size_t i = 0; i < n; i++)
                check(pwrite(files[i % 2], "x", 1, 0) == 1, "pwrite");
}

static struct event_path path_of(const char *text) {
        return (struct event_path){ text, strlen(text) };
}

/* ---- event in: from the kernel's queue to the sink -------------------------------------------- */

static struct sources sources;
static struct subscription subscription;
static size_t n_told;
static bool is_attached;

static void on_report(struct subscription *s _unused_, struct report *report _unused_) {
        n_told++;
}

static void on_attached(struct subscription *s _unused_, const struct refusal *refusal) {
        check(!refusal, refusal ? refusal->message : "");
        is_attached = true;
}

static bool descends(const struct subscription *s _unused_, struct event_path below _unused_) {
        return true;
}

static bool sees_alike(const struct subscription *s _unused_, struct event_path a _unused_,
                       struct event_path b _unused_) {
        return true;
}

static bool has_room(const struct subscription *s _unused_) {
        return true;
}

static const struct sink counting_sink = {
        .report = on_report, .attached = on_attached, .modified = on_attached, .descends = descends,
        .sees_alike = sees_alike, .has_room = has_room,
};

static bool attached(void) {
        return is_attached;
}

static void run_event_in(void) {
        struct asker asker = { .uid = geteuid(), .gid = getegid(), .pid = getpid() };
        struct subject subject = {
                .filter = KEV_FILTER_TREE, .notes = KEV_NOTE_WRITE, .path = directory, .fd = -1, .pid = ABSENT,
                .data = ABSENT, .asker = &asker,
        };
        struct refusal refusal;
        int r;

        sources_open(&sources, mux, workers, &counting_sink, &settings, -EOPNOTSUPP);
        list_init(&subscription.link);
        subscription.notes = subject.notes;
        r = sources_attach(&sources, &subscription, &subject, &refusal);
        check(r >= 0, refusal.message);
        if (r == 1)
                turn_until(attached);
        for (size_t i = 0; i < EVENTS / BATCH; i++) {
                write_files(BATCH);
                while (n_told < (i + 1) * BATCH)
                        counted(turn);
        }
        source_detach(&subscription);
        sources_close(&sources);
}

/* ---- match: is a path one that a watch is about ----------------------------------------------- */

static struct match *match;
static size_t n_matches;

static void match_all(void) {
        static const char *const paths[] = {
                "README.md", "daemon/queue/match.c", "daemon/queue/match.h", "build/daemon/kevd",
                "tests/corpus/a/b/c/d.c", "client-lib/kev.h", ".git/objects/5a/b7f4c1d2e3",
                "a-very-long-name-that-fits-nothing-at-all.txt",
        };

        for (size_t i = 0; i < EVENTS; i++)
                n_matches += match_path(match, path_of(paths[i % ARRAY_SIZE(paths)]));
}

static void run_match(void) {
        const char *include[] = { "**/*.c", "**/*.[ch]", "*.md", NULL };
        const char *exclude[] = { "build", ".git", "!build/keep", NULL };
        struct tree_options globs = {
                .given = true, .include = (char **)include, .exclude = (char **)exclude, .depth = ABSENT,
                .settle_msec = ABSENT, .max_latency_msec = ABSENT,
        };
        const char *wrong;

        check(match_new(&globs, &match, &wrong) == 0, "the globs");
        counted(match_all);
        check(n_matches == EVENTS / 8 * 5, "the matches");
        match_free(match);
}

/* ---- encode: an event, and its text as a client gets it --------------------------------------- */

static void encode_all(void) {
        static const struct event template = {
                .filter = KEV_FILTER_TREE, .kind = KEV_KIND_FILE, .notes = KEV_NOTE_WRITE | KEV_NOTE_CLOSEWRITE,
                .count = 1, .realtime_usec = UINT64_C(1700000000123456), .data = ABSENT,
                .path = { "/home/somebody/src/kevd/daemon/queue/match.c", 44 },
        };
        struct buffer b = BUFFER_INIT;

        for (size_t i = 0; i < EVENTS; i++) {
                struct event *event;

                check(event_new(&template, &event) == 0, "event_new");
                event_put(&b, event, 1, i + 1000);
                event_unref(event);
                buffer_reset(&b);
        }
        buffer_free(&b);
}

static void run_encode(void) {
        counted(encode_all);
}

/* ---- queue: a report that many watches are told of; and merging at the bound ------------------- */

static struct queue_context context;
static struct accounts accounts;
static struct queue queue;
static size_t n_added;

static void on_queue_ready(struct queue *q _unused_) {
}

static void on_queue_added(struct queue *q _unused_, int64_t id _unused_, const struct refusal *refusal) {
        check(!refusal, refusal ? refusal->message : "");
        n_added++;
}

static void on_queue_lost(struct queue *q _unused_) {
        fail("an event was lost");
}

static bool all_added(void) {
        return n_added == 1;
}

static struct watch *watch_tree(void) {
        struct watch_spec spec;
        struct refusal refusal;
        int r;

        watch_spec_init(&spec, KEV_FILTER_TREE);
        spec.id = 1;
        spec.path = strdup(directory);
        spec.path_size = strlen(directory);
        r = queue_add(&queue, &spec, -1, &refusal);
        check(r >= 0, refusal.message);
        if (r == 1)
                turn_until(all_added);
        watch_spec_free(&spec);
        return queue_find(&queue, 1);
}

static struct watch *watch;

/* The `i`-th of a hundred paths in ten directories. */
static void report_path(size_t i) {
        struct report r = REPORT_INIT;
        char path[64];
        int size = snprintf(path, sizeof(path), "directory-%zu/file-%zu.c", i % 10, i % 100);

        r.notes = KEV_NOTE_WRITE;
        r.kind = KEV_KIND_FILE;
        r.realtime_usec = UINT64_C(1700000000000000) + i;
        r.below = (struct event_path){ path, (size_t)size };
        queue_sink.report(&watch->subscription, &r);
        report_done(&r);
}

static void queue_all(void) {
        struct buffer b = BUFFER_INIT;

        for (size_t i = 0; i < EVENTS;) {
                for (size_t k = 0; k < BATCH; k++)
                        report_path(i++);
                while (queue_has_events(&queue))
                        check(queue_take(&queue, &b) == 0, "queue_take");
                buffer_reset(&b);
        }
        buffer_free(&b);
}

static void merge_all(void) {
        for (size_t i = 0; i < EVENTS; i++)
                report_path(i);
}

/* `bytes`: the queue's bound. */
static void run_queue_with(size_t bytes, void (*fn)(void)) {
        static const struct queue_listener listener = {
                .ready = on_queue_ready, .added = on_queue_added, .lost = on_queue_lost,
        };
        struct asker asker = { .uid = geteuid(), .gid = getegid(), .pid = getpid() };
        struct account *account;

        sources_open(&sources, mux, workers, &queue_sink, &settings, -EOPNOTSUPP);
        queue_context_init(&context, &sources);
        accounts_init(&accounts, &limits);
        account = account_get(&accounts, asker.uid);
        check(account != NULL, "memory");
        queue_init(&queue, &context, &listener, account, &asker, bytes);
        watch = watch_tree();
        counted(fn);
        queue_close(&queue);
        queue_context_free(&context);
        account_unref(account);
        accounts_free(&accounts);
        sources_close(&sources);
}

static void run_queue(void) {
        run_queue_with(16 * MIB, queue_all);
}

static void run_merge(void) {
        run_queue_with(4096, merge_all);
}

/* ---- with a server and its clients ------------------------------------------------------------- */

static struct server server;
static int clients[CLIENTS];
static size_t n_clients;
static char reply[64 * 1024];

static void send_text(int fd, const char *text) {
        check(send(fd, text, strlen(text) + 1, MSG_NOSIGNAL) == (ssize_t)strlen(text) + 1, "send");
}

static bool all_have_replies(void) {
        for (size_t i = 0; i < n_clients; i++) {
                struct pollfd p = { .fd = clients[i], .events = POLLIN };

                if (poll(&p, 1, 0) != 1)
                        return false;
        }
        return true;
}

/* How many events each has got, all together. */
static size_t take_replies(void) {
        size_t n = 0;

        for (size_t i = 0; i < n_clients; i++) {
                ssize_t size = recv(clients[i], reply, sizeof(reply) - 1, MSG_DONTWAIT);

                check(size > 0 || errno == EAGAIN, "a client");
                for (ssize_t k = 0; k + 5 < size; k++)
                        n += memcmp(reply + k, "\"seq\":", 6) == 0;
                if (size > 0)
                        check(!memmem(reply, (size_t)size, "\"errno\"", 7) &&
                                      !memmem(reply, (size_t)size, "\"error\"", 7), reply);
        }
        return n;
}

/* So many clients, each of which waits, with this watch. */
static void serve(size_t n, const char *watch_text) {
        char text[512];

        check(server_open(&server, mux, workers, MODE_USER, &settings, &limits, -EOPNOTSUPP) == 0, "server_open");
        (void)snprintf(text, sizeof(text),
                       "{\"method\":\"org.kevd.events.Monitor\",\"more\":true,\"parameters\":{\"watches\":[%s]}}",
                       watch_text);
        n_clients = n;
        for (size_t i = 0; i < n; i++) {
                int pair[2];

                check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0 &&
                              fcntl(pair[1], F_SETFL, O_NONBLOCK) == 0 && server_serve(&server, pair[1]) == 0,
                      "a connection");
                clients[i] = pair[0];
                send_text(clients[i], text);
        }
        turn_until(all_have_replies);
        (void)take_replies();
        for (int i = 0; i < 10; i++) /* the barriers that a Wait begins with */
                turn();
}

static void stop_serving(void) {
        for (size_t i = 0; i < n_clients; i++)
                (void)close(clients[i]);
        server_close(&server);
        server_free(&server);
}

static void until_taken(size_t n) {
        for (size_t taken = 0; taken < n; taken += take_replies())
                counted(turn);
}

/* From the queue to the socket, one event a turn. */
static void run_write(void) {
        serve(1, "{\"id\":1,\"filter\":\"user\",\"name\":\"a\"}");
        for (size_t i = 0; i < EVENTS; i++) {
                check(user_trigger(&server.sources, geteuid(), "a", 1) == 1, "user_trigger");
                until_taken(1);
        }
        stop_serving();
}

static void set_off_all(void) {
        check(user_trigger(&server.sources, geteuid(), "a", 1) == CLIENTS, "user_trigger");
}

/* One event that a hundred clients are told, into their queues and out of their sockets. */
static void run_fan_out(void) {
        serve(CLIENTS, "{\"id\":1,\"filter\":\"user\",\"name\":\"a\"}");
        for (size_t i = 0; i < EVENTS / CLIENTS; i++) {
                counted(set_off_all);
                until_taken(CLIENTS);
        }
        stop_serving();
}

/* A call, and its reply. */
static void run_call(void) {
        serve(1, "");
        for (size_t i = 0; i < EVENTS; i++) {
                send_text(clients[0], "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{"
                                      "\"name\":\"nobody\",\"data\":1}}");
                while (!all_have_replies())
                        counted(turn);
                (void)take_replies();
        }
        stop_serving();
}

/* Watches are made, a hundred a call: of each. */
static void run_add(void) {
        static char text[64 * 1024];

        serve(1, "");
        for (size_t i = 0; i < EVENTS;) {
                int size = sprintf(text, "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[");

                for (size_t k = 0; k < BATCH; k++, i++)
                        size += sprintf(text + size, "%s{\"id\":%zu,\"filter\":\"user\",\"name\":\"name-%zu\"}",
                                        k > 0 ? "," : "", i, i);
                (void)sprintf(text + size, "]}}");
                send_text(clients[0], text);
                while (!all_have_replies())
                        counted(turn);
                (void)take_replies();
        }
        stop_serving();
}

/* A file is written, and a client told: all of it, one at a time. */
static void run_whole(void) {
        char text[256];

        (void)snprintf(text, sizeof(text),
                       "{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"notes\":[\"write\"],"
                       "\"tree\":{\"include\":[\"**/*.c\"]}}",
                       directory);
        serve(1, text);
        for (size_t i = 0; i < EVENTS; i++) {
                write_files(1);
                until_taken(1);
        }
        stop_serving();
}

/* ---- the program -------------------------------------------------------------------------------- */

/* Each has EVENTS events (of fan-out: each client's). */
static const struct {
        const char *name;
        void (*run)(void);
} paths[] = {
        { "event-in", run_event_in }, { "match", run_match }, { "encode", run_encode }, { "queue", run_queue },
        { "merge", run_merge }, { "write", run_write }, { "fan-out", run_fan_out }, { "call", run_call },
        { "add", run_add }, { "whole", run_whole },
};

int main(int argc, char **argv) {
        if (argc == 1) {
                for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
                        printf("%s %d\n", paths[i].name, EVENTS);
                return EXIT_SUCCESS;
        }
        for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
                if (strcmp(paths[i].name, argv[1]) == 0) {
                        begin();
                        paths[i].run();
                        end();
                        return EXIT_SUCCESS;
                }
        (void)fprintf(stderr, "%s: there is no path %s\n", argv[0], argv[1]);
        return 2;
}
