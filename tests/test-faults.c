/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What fails in the middle: each allocation and each system call of the daemon's (faults/faults.h) in turn, in one
 * connection's life. Whatever it is, the daemon goes on; the client has an answer, an error, or the end of its
 * connection, and all of it in time; of what it was promised no event is lost without a word; the next client is
 * served as if nothing had been; and nothing is held for a client that has gone.
 *
 * A life with no fault comes first. What it was refused and how many calls it takes is what the others are compared
 * with. Then come lives with the first, second ... call of a kind failing, until one passes without.
 *
 * KEVD_FAULTS_EVERY  only each so manieth; 1: all. A sample is what there is without it
 * KEVD_FAULTS_ONLY   CALL:ERROR:NUMBER:TIMES:COLD, as a problem is told: this one alone, again and again
 */

#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "faults/faults.h"
#include "files.h"
#include "harness.h"
#include "macro.h"

enum {
        SAMPLE = 53,           /* without KEVD_FAULTS_EVERY */
        BURST = 12,            /* so many in a row, the second time */
        REST_MSEC = 300,
        MORE_CALLS = 2,
        ATTEMPTS = 20,
        COLD_RARER = 7, /* a daemon for each takes its time */
        PROBLEMS_MAX = 100,
        LIFE_FDS = 4,
        ID_VNODE = 1, ID_TREE, ID_PROC, ID_MATCH, ID_NETDEV, ID_READ, ID_WRITE, ID_POLL, ID_SIGNAL, ID_TIMER, ID_USER,
        ID_AIO, ID_LATER, ID_END,
};

/* ---- the daemon, and what it shares --------------------------------------------------------------------- */

struct variant {
        const char *name;
        const char *options[5];
        bool with_devices; /* in a network namespace, which the process connector can't be in */
        bool other;        /* the client is another user */
};

static const struct variant variants[] = {
        { "inotify", { "--file-mechanism=inotify" }, true, false },
        { "fanotify", { "--file-mechanism=fanotify" }, true, false },
        { "stand-ins", { "--mode=system", "--file-mechanism=fanotify" }, true, true },
        { "deputies", { "--mode=system", "--file-mechanism=inotify" }, true, true },
        { "connector", { "--process-feed=connector", "--mux=poll", "--file-mechanism=inotify" }, false, false },
        { "pidfd", { "--process-feed=pidfd", "--mux=select", "--file-mechanism=inotify" }, true, false },
};

static const char *const call_names[FAULT_COUNT] = {
#define FAULT_CALL(name, ...) [FAULT_##name] = #name,
        FAULT_CALLS(FAULT_CALL)
#undef FAULT_CALL
};

enum { NO_ERROR = -1 };

#define FAULT_CALL(name, ...) static const int errors_##name[] = { __VA_ARGS__, NO_ERROR };
FAULT_CALLS(FAULT_CALL)
#undef FAULT_CALL

static const int *const call_errors[FAULT_COUNT] = {
#define FAULT_CALL(name, ...) [FAULT_##name] = errors_##name,
        FAULT_CALLS(FAULT_CALL)
#undef FAULT_CALL
};

static const struct variant *variant;
static struct daemon *kevd;
static struct faults *faults;
static bool has_devices;
static uint64_t refused_at_first; /* ids, as bits */
static size_t fds_at_first;
static int64_t registrations_at_first, delivered_so_far;
static unsigned n_problems;
static uint64_t n_lives;

static const char *error_name(int error) {
        return error == SHORT ? "SHORT" : strerrorname_np(error);
}

/* The time that something may take: those of the harness are for an idle machine. */
static int patience_msec(void) {
        const char *multiplier = getenv("CK_TIMEOUT_MULTIPLIER");

        return HARNESS_REPLY_MSEC * (multiplier && atoi(multiplier) > 1 ? atoi(multiplier) : 1);
}

static void arm(enum fault_call call, int error, uint32_t first, uint32_t times) {
        faults->armed = 0;
        for (size_t i = 0; i < FAULT_COUNT; i++)
                faults->n[i] = 0;
        faults->hits = 0;
        faults->call = (int)call;
        faults->error = error;
        faults->first = first;
        faults->times = times;
        faults->armed = 1;
}

static void share(void) {
        const char *path = at("%s/faults", harness_tempdir());
        int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        void *map;

        assert_system(fd >= 0 && ftruncate(fd, sizeof(*faults)) == 0, path);
        map = mmap(NULL, sizeof(*faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        assert_system(map != MAP_FAILED, "mmap");
        (void)close(fd);
        faults = map;
        assert_system(setenv("KEVD_FAULTS", path, 1) == 0, "setenv");
}

/* ---- one life ---------------------------------------------------------------------------------------------- */

struct life {
        int fd;
        bool closed;        /* by the daemon */
        char problem[400];  /* "": all is well */
        uint64_t refused;   /* ids */
        uint64_t told;      /* ids that something was told of */
        uint64_t ended;     /* ids of watches that are told to have ended */
        unsigned tree_told; /* names, and that it is listed, as bits */
        bool quiet;         /* what comes now is not what is waited for */
        int64_t n_events;
        pid_t child;
        bool child_lives;
        int ends[2][2], event_fds[2];
        const char *directory;
};

static const char *const tree_names[] = { "/tree/a", "/tree/sub", "/tree/sub/b" };

static void problem(struct life *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void problem(struct life *l, const char *format, ...) {
        va_list args;

        if (l->problem[0])
                return;
        va_start(args, format);
        (void)vsnprintf(l->problem, sizeof(l->problem), format, args);
        va_end(args);
}

static bool goes_on(const struct life *l) {
        return !l->closed && !l->problem[0];
}

/* One message. NULL: there is a problem, or the connection was closed. */
static struct json_object *receive(struct life *l) {
        static char message[1 << 20];
        int64_t deadline = now_msec() + patience_msec();
        size_t size = 0;

        while (size < sizeof(message)) {
                struct pollfd p = { .fd = l->fd, .events = POLLIN };
                const char *end;
                ssize_t n;

                if (poll(&p, 1, (int)MAX(deadline - now_msec(), 0)) == 0) {
                        problem(l, "no answer");
                        return NULL;
                }
                n = recv(l->fd, message + size, sizeof(message) - size, MSG_PEEK);
                end = n > 0 ? memchr(message + size, '\0', (size_t)n) : NULL;
                if (end) /* what stands behind it stays in the socket */
                        n = end + 1 - (message + size);
                if (n <= 0 || recv(l->fd, message + size, (size_t)n, 0) != n) { /* whatever has come of a message */
                        l->closed = true;
                        return NULL;
                }
                size += (size_t)n;
                if (end) {
                        struct json_object *reply = json_tokener_parse(message);

                        if (!reply)
                                problem(l, "not JSON: %.200s", message);
                        return reply;
                }
        }
        problem(l, "no end of a message");
        return NULL;
}

/* The daemon may close the connection while this is on its way. */
static void put_call(struct life *l, const char *text, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr header;
                char bytes[CMSG_SPACE(LIFE_FDS * sizeof(int))];
        } control = { 0 };
        struct iovec part = { .iov_base = (char *)text, .iov_len = strlen(text) + 1 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        if (n_fds > 0) {
                control.header = (struct cmsghdr){
                        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(n_fds * sizeof(int)),
                };
                memcpy(CMSG_DATA(&control.header), fds, n_fds * sizeof(int));
                message.msg_control = control.bytes;
                message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        }
        if (sendmsg(l->fd, &message, MSG_NOSIGNAL) < 0)
                l->closed = true;
}

static struct json_object *call(struct life *l, const char *method, const char *parameters, const int *fds, size_t n_fds) {
        static char text[16384];
        struct json_object *reply;

        if (!goes_on(l))
                return NULL;
        (void)snprintf(text, sizeof(text), "{\"method\":\"org.%s\",\"parameters\":%s}", method, parameters);
        put_call(l, text, fds, n_fds);
        reply = goes_on(l) ? receive(l) : NULL;
        if (reply && !json_at(reply, "/parameters"))
                problem(l, "%s: no answer: %.200s", method, json_object_to_json_string(reply));
        return reply;
}

static void ask(struct life *l, const char *method, const char *parameters) {
        json_object_put(call(l, method, parameters, NULL, 0));
}

/* A Change; what is refused has an errno, and is not waited for. */
static void change(struct life *l, const int *fds, size_t n_fds, const char *format, ...)
        __attribute__((format(printf, 4, 5)));
static void change(struct life *l, const int *fds, size_t n_fds, const char *format, ...) {
        char parameters[8192];
        struct json_object *reply, *refused;
        va_list args;

        va_start(args, format);
        (void)vsnprintf(parameters, sizeof(parameters), format, args);
        va_end(args);
        reply = call(l, "kevd.events.Change", parameters, fds, n_fds);
        refused = json_at(reply, "/parameters/refused");
        if (reply && !refused && !json_at(reply, "/error"))
                problem(l, "Change: %.200s", json_object_to_json_string(reply));
        for (size_t i = 0; refused && i < json_object_array_length(refused); i++) {
                struct json_object *one = json_object_array_get_idx(refused, i);

                l->refused |= UINT64_C(1) << number_at(one, "/id");
                if (!text_at(one, "/errno")[0])
                        problem(l, "refused with no errno: %.200s", json_object_to_json_string(one));
        }
        json_object_put(reply);
}

/* What is told of a tree: names, or directories of which all may be different; and that it is listed. */
static void take_tree(struct life *l, struct json_object *event) {
        const char *path = text_at(event, "/path");

        for (size_t i = 0; i < ARRAY_SIZE(tree_names); i++) {
                char name[PATH_MAX];

                (void)snprintf(name, sizeof(name), "%s%s", l->directory, tree_names[i]);
                if (strcmp(path, name) == 0 ||
                    (((has_note(event, "rescan") && !l->quiet) || has_note(event, "degraded")) &&
                     strncmp(name, path, strlen(path)) == 0))
                        l->tree_told |= 1u << i;
        }
        if (has_note(event, "listed"))
                l->tree_told |= 1u << ARRAY_SIZE(tree_names);
        if (l->tree_told == (2u << ARRAY_SIZE(tree_names)) - 1)
                l->told |= UINT64_C(1) << ID_TREE;
}

static void take_event(struct life *l, struct json_object *event) {
        int64_t id = number_at(event, "/id");
        bool of_child = json_at(event, "/process/pid") && number_at(event, "/process/pid") == l->child;

        l->n_events++;
        if (has_flag(event, "eof"))
                l->ended |= UINT64_C(1) << id;
        if (l->quiet && id != ID_TREE)
                return;
        if (id == ID_TREE)
                take_tree(l, event);
        else if (id == ID_PROC && !has_note(event, "exit"))
                return;
        else if (id == ID_MATCH && !(of_child && has_note(event, "exit")) && !has_note(event, "lost"))
                return;
        else
                l->told |= UINT64_C(1) << id;
}

static void wait_once(struct life *l, const char *parameters) {
        struct json_object *reply = call(l, "kevd.events.Wait", parameters, NULL, 0), *events;

        events = json_at(reply, "/parameters/events");
        if (reply && !events && !json_at(reply, "/error"))
                problem(l, "Wait: %.200s", json_object_to_json_string(reply));
        for (size_t i = 0; events && i < json_object_array_length(events); i++)
                take_event(l, json_object_array_get_idx(events, i));
        json_object_put(reply);
}

/* Events of these, but for those that were refused or have ended. */
static void expect(struct life *l, uint64_t ids, const char *when) {
        int64_t deadline = now_msec() + patience_msec();
        uint64_t missing;

        while (goes_on(l) && (missing = ids & ~l->refused & ~l->ended & ~l->told)) {
                if (now_msec() > deadline)
                        problem(l, "%s: nothing is told of the watches %#llx", when, (unsigned long long)missing);
                wait_once(l, "{\"timeoutMsec\":100}");
        }
}

static void set_mtu(void) {
        static int mtu = 60000;
        struct ifreq request = { .ifr_name = "lo", .ifr_mtu = mtu };
        int fd;

        if (!has_devices)
                return;
        mtu = mtu < 65000 ? mtu + 1 : 60000;
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_system(fd >= 0 && ioctl(fd, SIOCSIFMTU, &request) == 0, "SIOCSIFMTU");
        (void)close(fd);
}

/* It ignores the signal, and is the client's user's. */
static pid_t start_child(void) {
        int ends[2];
        pid_t pid;
        char byte;

        assert_system(pipe2(ends, O_CLOEXEC) == 0, "pipe2");
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
                (void)signal(SIGUSR1, SIG_IGN);
                if (variant->other && setresuid(OTHER_CLIENT, OTHER_CLIENT, OTHER_CLIENT) < 0)
                        _exit(1);
                (void)!write(ends[1], "x", 1);
                for (;;)
                        (void)pause();
        }
        (void)close(ends[1]);
        ck_assert_int_eq(read(ends[0], &byte, 1), 1);
        (void)close(ends[0]);
        return pid;
}

static void end_child(struct life *l) {
        if (l->child_lives) {
                (void)kill(l->child, SIGKILL);
                (void)waitpid(l->child, NULL, 0);
        }
        l->child_lives = false;
}

static void put_watches(struct life *l) {
        const int fds[LIFE_FDS] = { l->ends[0][0], l->ends[1][0], l->event_fds[0], l->event_fds[1] };

        change(l, fds, LIFE_FDS,
               "{\"add\":[{\"id\":1,\"filter\":\"vnode\",\"path\":\"%s/file\"},"
               "{\"id\":2,\"filter\":\"tree\",\"path\":\"%s/tree\",\"tree\":{\"exclude\":[\"no/**\"],\"list\":true}},"
               "{\"id\":3,\"filter\":\"proc\",\"pid\":%d,\"notes\":[\"exit\",\"reap\"]},"
               "{\"id\":4,\"filter\":\"proc\",\"match\":{\"comm\":\"test-faults*\"},\"notes\":[\"exit\",\"fork\"]},"
               "{\"id\":5,\"filter\":\"netdev\",\"name\":\"lo\"},"
               "{\"id\":6,\"filter\":\"read\",\"descriptor\":0},"
               "{\"id\":7,\"filter\":\"write\",\"descriptor\":1},"
               "{\"id\":8,\"filter\":\"poll\",\"notes\":[\"in\"],\"descriptor\":2},"
               "{\"id\":9,\"filter\":\"signal\",\"pid\":%d},"
               "{\"id\":10,\"filter\":\"timer\",\"data\":5},"
               "{\"id\":11,\"filter\":\"user\",\"name\":\"life\"},"
               "{\"id\":12,\"filter\":\"aio\",\"descriptor\":3}]}",
               l->directory, l->directory, (int)l->child, (int)l->child);
}

static uint64_t bit(int id) {
        return UINT64_C(1) << id;
}

/* Something for each watch. */
static void do_much(struct life *l) {
        static const uint64_t one = 1;

        append(at("%s/file", l->directory), "more");
        make_file(at("%s/tree/a", l->directory));
        make_dir(at("%s/tree/sub", l->directory));
        make_file(at("%s/tree/sub/b", l->directory));
        set_mtu();
        ck_assert_int_eq(write(l->ends[0][1], "x", 1), 1);
        ck_assert_int_eq(write(l->event_fds[0], &one, sizeof(one)), sizeof(one));
        ck_assert_int_eq(write(l->event_fds[1], &one, sizeof(one)), sizeof(one));
        assert_system(kill(l->child, SIGUSR1) == 0, "kill");
        ask(l, "kevd.events.Trigger", "{\"name\":\"life\"}");
}

/* The second half of a life: watches are modified, let go, and removed. */
static void change_much(struct life *l) {
        change(l, NULL, 0,
               "{\"modify\":[{\"id\":1,\"filter\":\"vnode\",\"notes\":[\"closewrite\",\"attrib\"]},"
               "{\"id\":10,\"filter\":\"timer\",\"data\":3}],\"disable\":[11,6],\"remove\":[2,5,7]}");
        change(l, NULL, 0, "{\"enable\":[11]}");
        l->told &= ~(bit(ID_VNODE) | bit(ID_USER) | bit(ID_TIMER));
        l->quiet = true;
        wait_once(l, "{\"timeoutMsec\":0}");
        l->quiet = false;
        if (!goes_on(l))
                return;
        append(at("%s/file", l->directory), "still more");
        ask(l, "kevd.events.Trigger", "{\"name\":\"life\"}");
        expect(l, bit(ID_VNODE) | bit(ID_USER) | bit(ID_TIMER), "after a change");
        ask(l, "kevd.events.GetLimits", "{}");
        change(l, NULL, 0, "{\"remove\":[1,3]}");
}

static void live_on(struct life *l) {
        uint64_t all = bit(ID_LATER) - 1 - 1 - (has_devices ? 0 : bit(ID_NETDEV));

        ask(l, "varlink.service.GetInfo", "{}");
        put_watches(l);
        l->quiet = true;
        wait_once(l, "{\"timeoutMsec\":0}");
        l->quiet = false;
        if (!goes_on(l))
                return;
        do_much(l);
        expect(l, all & ~bit(ID_PROC) & ~bit(ID_MATCH) & ~bit(ID_WRITE), "first");
        end_child(l);
        expect(l, bit(ID_PROC) | bit(ID_MATCH), "end of a process");
        change_much(l);
}

/* The daemon may turn it away. */
static void connect_to(struct life *l) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };

        memcpy(address.sun_path, kevd->socket, strlen(kevd->socket) + 1);
        l->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_system(l->fd >= 0, "socket");
        if (variant->other)
                assert_system(seteuid(OTHER_CLIENT) == 0, "seteuid");
        if (connect(l->fd, (struct sockaddr *)&address, sizeof(address)) < 0)
                problem(l, "connect: %s", strerror(errno));
        if (variant->other)
                assert_system(seteuid(0) == 0, "seteuid");
}

/* What there is to be watched. The directory is new each time: nothing is left of one that was here. */
static void prepare(struct life *l) {
        static unsigned number;

        l->directory = at("%s/life-%u", harness_tempdir(), number++);
        make_dir(l->directory);
        make_dir(at("%s/tree", l->directory));
        make_file(at("%s/file", l->directory));
        assert_system(chmod(l->directory, 0755) == 0 && chmod(at("%s/tree", l->directory), 0755) == 0 &&
                              chmod(at("%s/file", l->directory), 0644) == 0,
                      "chmod");
        assert_system(pipe2(l->ends[0], O_CLOEXEC | O_NONBLOCK) == 0, "pipe2");
        assert_system(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, l->ends[1]) == 0, "socketpair");
        for (size_t i = 0; i < 2; i++) {
                l->event_fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
                assert_system(l->event_fds[i] >= 0, "eventfd");
        }
        l->child = start_child();
        l->child_lives = true;
}

static void clean_up(struct life *l) {
        end_child(l);
        for (size_t i = 0; i < 2; i++) {
                (void)close(l->ends[i][0]);
                (void)close(l->ends[i][1]);
                (void)close(l->event_fds[i]);
        }
        (void)close(l->fd);
        (void)unlink(at("%s/tree/sub/b", l->directory));
        (void)rmdir(at("%s/tree/sub", l->directory));
        (void)unlink(at("%s/tree/a", l->directory));
        (void)rmdir(at("%s/tree", l->directory));
        (void)unlink(at("%s/file", l->directory));
        (void)rmdir(l->directory);
}

static void live(struct life *l) {
        *l = (struct life){ 0 };
        prepare(l);
        connect_to(l);
        live_on(l);
        clean_up(l);
        n_lives++;
}

/* ---- what is left of it ------------------------------------------------------------------------------------- */

/* What is not as it was; "": nothing. Sources are to hold what they held at first. */
static void compare_status(struct json_object *status, char *text, size_t size) {
        static const struct {
                const char *pointer;
                int64_t value;
        } expected[] = {
                { "/parameters/connections", 1 },        { "/parameters/watches", 0 },
                { "/parameters/queueBytes", 0 },         { "/parameters/users/0/connections", 1 },
                { "/parameters/users/0/watches", 0 },    { "/parameters/users/0/watchBytes", 0 },
                { "/parameters/users/0/queueBytes", 0 }, { "/parameters/users/0/outputBytes", 0 },
                { "/parameters/users/0/timers", 0 },     { "/parameters/users/0/descriptors", 1 },
        };
        struct json_object *sources = json_at(status, "/parameters/sources");
        int64_t registrations = 0;

        text[0] = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(expected); i++)
                if (number_at(status, expected[i].pointer) != expected[i].value)
                        (void)snprintf(text, size, "%s is %lld", expected[i].pointer,
                                       (long long)number_at(status, expected[i].pointer));
        if (json_object_array_length(json_at(status, "/parameters/users")) != 1)
                (void)snprintf(text, size, "there are users still");
        for (size_t i = 0; i < json_object_array_length(sources); i++) {
                struct json_object *source = json_object_array_get_idx(sources, i);

                registrations += number_at(source, "/registrations");
                if (number_at(source, "/watches") != 0)
                        (void)snprintf(text, size, "%s has watches", text_at(source, "/name"));
        }
        if (registrations_at_first >= 0 && registrations > registrations_at_first)
                (void)snprintf(text, size, "%lld registrations instead of %lld", (long long)registrations,
                               (long long)registrations_at_first);
        if (!text[0] && registrations_at_first < 0)
                registrations_at_first = registrations;
}

/* Waits until the daemon holds what it held at first. */
static void expect_rest(struct life *l) {
        int64_t deadline = now_msec() + patience_msec();
        bool at_rest = false;
        char text[200] = "no answer";

        if (l->problem[0])
                return;
        *l = (struct life){ .fd = client_connect(kevd->socket) };
        while (goes_on(l) && !at_rest && now_msec() < deadline) {
                struct json_object *status = call(l, "kevd.manager.GetStatus", "{}", NULL, 0);
                size_t fds = n_fds_of(kevd->pid);

                if (status) {
                        compare_status(status, text, sizeof(text));
                        delivered_so_far = number_at(status, "/parameters/counters/delivered");
                }
                json_object_put(status);
                if (!text[0] && fds_at_first == 0)
                        fds_at_first = fds;
                if (!text[0] && fds > fds_at_first) /* a helper that was given up is made again when it is needed */
                        (void)snprintf(text, sizeof(text), "%zu descriptors instead of %zu", fds, fds_at_first);
                at_rest = !text[0];
                if (!at_rest)
                        (void)poll(NULL, 0, 2);
        }
        if (!at_rest)
                problem(l, "what is left: %s", l->closed ? "closed" : text);
        (void)close(l->fd);
}

/* ---- faults ---------------------------------------------------------------------------------------------------- */

struct point {
        enum fault_call call;
        int error;
        uint32_t first, times;
        bool cold; /* it is the daemon's first life */
};

/* What it holds after a life or two is what it is to hold after each. That is taken once it has not changed for a while:
 * what is closed, and which threads and helpers end, has its own time. */
static void start(void) {
        struct life l = { 0 };
        int64_t since = now_msec();

        kevd = daemon_start_with(variant->options);
        for (int i = 0; i < 2; i++) {
                live(&l);
                ck_assert_msg(!l.problem[0] && !l.closed, "a life with no fault: %s", l.problem);
        }
        refused_at_first = l.refused;
        do {
                int64_t registrations = registrations_at_first;
                size_t fds = fds_at_first;

                registrations_at_first = -1;
                fds_at_first = 0;
                expect_rest(&l);
                ck_assert_msg(!l.problem[0], "after a life with no fault: %s", l.problem);
                if (fds_at_first != fds || registrations_at_first != registrations)
                        since = now_msec();
                (void)poll(NULL, 0, 2);
        } while (now_msec() - since < REST_MSEC);
}

static bool has_ended(void) {
        struct pollfd p = { .fd = kevd->pidfd, .events = POLLIN };

        return poll(&p, 1, 0) > 0;
}

/* It is as it should not be, and its end is not what is looked at. */
static void give_up(void) {
        (void)kill(kevd->pid, SIGKILL);
        (void)waitpid(kevd->pid, NULL, 0);
        (void)close(kevd->pidfd);
        (void)close(kevd->notify_fd);
        free(kevd->socket);
        free(kevd);
}

static void note_problem(const struct point *point, const char *when, const char *what) {
        n_problems++;
        (void)fprintf(stderr, "# %s: %s:%s:%u:%u:%d: %s: %s\n", variant->name, call_names[point->call],
                      error_name(point->error), point->first, point->times, point->cold, when, what);
}

static const char *how_it_ended(void) {
        siginfo_t info;
        static char text[64];

        assert_system(waitid(P_PID, (id_t)kevd->pid, &info, WEXITED | WNOWAIT) == 0, "waitid");
        (void)snprintf(text, sizeof(text), info.si_code == CLD_EXITED ? "exit status %d" : "signal %d", info.si_status);
        return text;
}

/* A life without a fault is as the first one was. */
static bool is_well(const struct point *point) {
        struct life l;
        int64_t delivered = delivered_so_far, n;

        live(&l);
        if (l.closed)
                problem(&l, "the connection was closed");
        if (l.refused != refused_at_first)
                problem(&l, "refused are %#llx", (unsigned long long)l.refused);
        n = l.n_events;
        expect_rest(&l);
        if (delivered_so_far - delivered != n)
                problem(&l, "%lld events came, %lld were delivered", (long long)n,
                        (long long)(delivered_so_far - delivered));
        if (l.problem[0])
                note_problem(point, "the next client", l.problem);
        return !l.problem[0];
}

/* Whether the fault came to pass. */
static bool live_with(const struct point *point) {
        struct life l;
        bool hit, well;

        if (point->cold) {
                daemon_stop(kevd);
                kevd = daemon_start_with(variant->options);
                delivered_so_far = 0;
        }
        arm(point->call, point->error, point->first, point->times);
        live(&l);
        faults->armed = 0;
        hit = faults->hits > 0;
        if (has_ended())
                problem(&l, "the daemon has ended, %s", how_it_ended());
        if (l.problem[0])
                note_problem(point, "in its life", l.problem);
        well = !l.problem[0];
        if (hit && well) {
                expect_rest(&l);
                if (l.problem[0])
                        note_problem(point, "afterwards", l.problem);
                well = !l.problem[0] && is_well(point);
        }
        if (!well) {
                ck_assert_msg(n_problems < PROBLEMS_MAX, "too many problems");
                give_up();
                start();
        }
        return hit;
}

/* From that one on, each so manieth; but what others on the machine do may make for ever more calls. Answers where to
 * begin with the next kind, so that a sample is of all. */
static uint32_t live_with_each(struct point point, uint32_t every, uint32_t n_calls) {
        while (point.first <= MORE_CALLS * n_calls && live_with(&point))
                point.first += every;
        return point.first;
}

/* How often a kind of call is in a life. */
static void count_calls(bool cold, uint32_t ret_n[FAULT_COUNT]) {
        struct life l;

        if (cold) {
                daemon_stop(kevd);
                kevd = daemon_start_with(variant->options);
        }
        arm(FAULT_NONE, 0, 0, 0);
        live(&l);
        faults->armed = 0;
        ck_assert_str_eq(l.problem, "");
        for (size_t i = 0; i < FAULT_COUNT; i++)
                ret_n[i] = faults->n[i];
}

static void try_all(uint32_t times, bool cold, uint32_t every) {
        uint32_t n[FAULT_COUNT], first = 1;

        count_calls(cold, n);
        for (enum fault_call c = FAULT_NONE + 1; c < FAULT_COUNT; c++)
                for (const int *error = call_errors[c]; *error != NO_ERROR; error++) {
                        uint32_t end = first;

                        if (first <= n[c])
                                end = live_with_each((struct point){ c, *error, first, times, cold }, every, n[c]);
                        if (every <= COLD_RARER && n[c] > 0) {
                                printf("# %s: %s %s: %u of %u\n", variant->name, call_names[c], error_name(*error),
                                       (end - first) / every, n[c]);
                                (void)fflush(stdout);
                        }
                        /* Those that were left out are the beginning of the next kind's. */
                        first = end > n[c] ? end - n[c] : 1;
                }
}

/* CALL:ERROR:NUMBER:TIMES:COLD. Whether it came to pass. */
static bool try_one(const char *text, int attempts) {
        char name[64], error[64];
        struct point point = { FAULT_NONE, SHORT, 0, 0, false };
        bool hit = false;
        int cold = 0;

        ck_assert_int_ge(sscanf(text, "%63[^:]:%63[^:]:%u:%u:%d", name, error, &point.first, &point.times, &cold), 4);
        point.cold = cold;
        for (enum fault_call c = FAULT_NONE + 1; c < FAULT_COUNT; c++)
                if (strcmp(call_names[c], name) == 0)
                        point.call = c;
        ck_assert_int_ne(point.call, FAULT_NONE);
        for (const int *e = call_errors[point.call]; *e != NO_ERROR; e++)
                if (strcmp(error_name(*e), error) == 0)
                        point.error = *e;
        for (int i = 0; i < attempts && n_problems == 0; i++)
                hit |= live_with(&point);
        return hit;
}

/* Where faults were found, as far as it still is there: a later version may make its calls in another order. */
static const struct {
        const char *variant, *point;
} found[] = {
        { "inotify", "allocate:ENOMEM:40:1:0" },    /* a refusal was left out of a reply */
        { "inotify", "allocate:ENOMEM:71:1:1" },    /* signals were refused for a minute */
        { "inotify", "allocate:ENOMEM:57:12:1" },   /* inotify's queue was not read again, and a Change waited for it */
        { "inotify", "allocate:ENOMEM:116:1:0" },   /* the end of a list was not told */
        { "inotify", "allocate:ENOMEM:127:12:1" },  /* the next client was charged with the error, and closed */
        { "fanotify", "recvmsg:ENOBUFS:5:1:0" },    /* the broker had ended */
        { "fanotify", "sendmsg:EINTR:2:1:0" },      /* a helper's first words were lost, and waited for without end */
        { "connector", "ppoll:ENOMEM:1:1:0" },      /* the daemon ended */
        { "fanotify", "open64:EINTR:1:1:1" },       /* the broker had ended as it began */
        { "deputies", "recvmsg:ENOBUFS:14:1:0" },   /* the deputy had ended */
        { "deputies", "open64:EINTR:2:1:1" },       /* the daemon ended: what was passed on was refused */
        { "connector", "pidfd_open:ENOMEM:4:12:1" }, /* an end was not told */
        { "connector", "pthread_create:EAGAIN:4:12:1" }, /* processes were refused from then on */
};

static void try_found(void) {
        unsigned n = 0, n_hit = 0;

        for (size_t i = 0; i < ARRAY_SIZE(found); i++) {
                bool hit;

                if (strcmp(found[i].variant, variant->name) != 0)
                        continue;
                hit = try_one(found[i].point, 1);
                if (!hit)
                        printf("# %s: %s did not come to pass\n", variant->name, found[i].point);
                n++;
                n_hit += hit;
        }
        ck_assert_msg(n == 0 || n_hit > 0, "%s: none of the %u points where faults were found came to pass",
                      variant->name, n);
}

/* What is made to fail, and when. Of all of it each is a test by itself: check(3) knows of none that takes more than half
 * an hour. */
static const struct {
        uint32_t times;
        bool cold;
} phases[] = { { 1, false }, { BURST, false }, { 1, true }, { BURST, true } };
static int n_tests; /* of a variant: as many as there are phases, or one for all of them */

static void try_phases(int test, uint32_t step) {
        for (size_t i = 0; i < ARRAY_SIZE(phases); i++)
                if (n_tests == 1 || (size_t)test == i)
                        try_all(phases[i].times, phases[i].cold, phases[i].cold ? step * COLD_RARER : step);
}

START_TEST(test_life) {
        int test = _i % n_tests;
        const char *only = getenv("KEVD_FAULTS_ONLY"), *every = getenv("KEVD_FAULTS_EVERY");
        uint32_t step = every ? (uint32_t)atoi(every) : SAMPLE;

        variant = &variants[_i / n_tests];
        if (variant->other && geteuid() != 0)
                harness_skip("to be another user takes root");
        if (strcmp(variant->name, "fanotify") == 0)
                need_fanotify();
        has_devices = variant->with_devices && unshare(CLONE_NEWNET) == 0;
        if (variant->other)
                ck_assert_int_eq(chmod(harness_tempdir(), 0755), 0);
        share();
        start();
        if (!only && test == 0)
                try_found();
        if (!only)
                try_phases(test, step);
        else if (test == 0)
                (void)try_one(only, ATTEMPTS);
        printf("# %s: %llu lives, refused %#llx\n", variant->name, (unsigned long long)n_lives,
               (unsigned long long)refused_at_first);
        daemon_stop(kevd);
        ck_assert_msg(n_problems == 0, "%u problems", n_problems);
}
END_TEST

/* ---- mounts ------------------------------------------------------------------------------------------------------- */

struct listener {
        int fd;
        const char *directory;
        unsigned n_files;
};

/* Whether what is made there now is told. */
static bool hears(void *userdata) {
        struct listener *l = userdata;
        const char *path = at("%s/file%u", l->directory, l->n_files++);
        struct json_object *event;
        bool told = false;

        make_file(path);
        while ((event = due_event(l->fd))) {
                told |= strcmp(text_at(event, "/path"), path) == 0;
                json_object_put(event);
        }
        return told;
}

static bool hears_that_it_is_degraded(void *userdata) {
        struct listener *l = userdata;
        struct json_object *event = due_event(l->fd);
        bool told = event && has_note(event, "degraded");

        json_object_put(event);
        return told;
}

static const char *make_mount_point(void) {
        const char *path;

        need_private_mounts();
        variant = &variants[0];
        share();
        path = at("%s/m", make_root("w"));
        make_dir(path);
        return path;
}

static void mount_on(const char *path) {
        assert_system(mount("none", path, "tmpfs", 0, NULL) == 0, path);
}

/* What is mounted there is told of in the end. */
static void expect_heard(struct listener *l) {
        ck_assert(wait_until(hears, l, patience_msec()));
        (void)close(l->fd);
        daemon_stop(kevd);
        assert_system(umount2(l->directory, 0) == 0, l->directory);
}

static void cross_mounts(struct listener *l) {
        l->fd = client_connect(kevd->socket);
        client_change(l->fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\",\"tree\":{\"crossMounts\":true}}]}",
                      at("%s/w", harness_tempdir()));
}

/* The kernel says once that mounts have changed: what can't be read then is read later. */
START_TEST(test_mounts_unread) {
        struct listener l = { .directory = make_mount_point() };

        kevd = daemon_start_with(variant->options);
        cross_mounts(&l);
        arm(FAULT_pread64, ENOMEM, 1, BURST);
        mount_on(l.directory);
        expect_heard(&l);
        ck_assert_uint_eq(faults->hits, BURST);
}
END_TEST

START_TEST(test_mounts_unread_at_first) {
        struct listener l = { .directory = make_mount_point() };

        mount_on(l.directory);
        arm(FAULT_pread64, ENOMEM, 1, UINT32_MAX);
        kevd = daemon_start_with(variant->options);
        cross_mounts(&l);
        ck_assert(wait_until(hears_that_it_is_degraded, &l, patience_msec()));
        faults->armed = 0;
        expect_heard(&l);
}
END_TEST

/* Until then it may be that something was missed: who waits already is told so. */
START_TEST(test_mounts_in_doubt) {
        struct listener l = { .directory = make_mount_point() };
        struct json_object *reply;
        int other;

        kevd = daemon_start_with(variant->options);
        l.fd = client_connect(kevd->socket);
        client_change(l.fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s/w\"}]}", harness_tempdir());
        expect_nothing(l.fd);
        client_send_message(l.fd, "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{}}");
        other = client_connect(kevd->socket);
        for (int i = 0; i < 500; i++) /* the other call has come, and nothing is under way any more */
                json_object_put(client_call(other, "org.varlink.service.GetInfo", "{}"));
        arm(FAULT_pread64, ENOMEM, 1, UINT32_MAX);
        mount_on(l.directory);
        reply = client_receive(l.fd, patience_msec());
        ck_assert(has_note(json_at(reply, "/parameters/events/0"), "rescan"));
        json_object_put(reply);
        faults->armed = 0;
        (void)close(other);
        (void)close(l.fd);
        daemon_stop(kevd);
        assert_system(umount2(l.directory, 0) == 0, l.directory);
}
END_TEST

/* Where the watched directory is can't be found out: for once, for a while, or at all. */
START_TEST(test_not_resolved) {
        struct listener l = { .directory = make_mount_point() };

        mount_on(l.directory);
        kevd = daemon_start_with(variant->options);
        arm(FAULT_realpath, ENOENT, 1, 1); /* as if it had been made a moment later */
        cross_mounts(&l);
        ck_assert(wait_until(hears, &l, patience_msec()));
        (void)close(l.fd);
        arm(FAULT_realpath, ENOMEM, 1, 2);
        cross_mounts(&l);
        ck_assert(wait_until(hears_that_it_is_degraded, &l, patience_msec()));
        ck_assert(wait_until(hears, &l, patience_msec()));
        (void)close(l.fd);
        arm(FAULT_realpath, EACCES, 1, UINT32_MAX);
        cross_mounts(&l);
        ck_assert(wait_until(hears_that_it_is_degraded, &l, patience_msec()));
        faults->armed = 0;
        (void)close(l.fd);
        daemon_stop(kevd);
        assert_system(umount2(l.directory, 0) == 0, l.directory);
}
END_TEST

/* Something is mounted on the watched directory itself, and whether it still is in its place can't be found out at
 * once. */
START_TEST(test_place_not_found_out) {
        struct listener l = { .directory = make_mount_point() };
        struct json_object *event;

        kevd = daemon_start_with(variant->options);
        l.fd = client_connect(kevd->socket);
        client_change(l.fd, "{\"add\":[{\"id\":1,\"filter\":\"tree\",\"path\":\"%s\"}]}", l.directory);
        arm(FAULT_syscall, EMFILE, 1, 1);
        mount_on(l.directory);
        event = next_event(l.fd);
        ck_assert_msg(has_note(event, "gone"), "%s", json_object_to_json_string(event));
        ck_assert_uint_eq(faults->hits, 1);
        json_object_put(event);
        (void)close(l.fd);
        daemon_stop(kevd);
        assert_system(umount2(l.directory, 0) == 0, l.directory);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("faults");
        TCase *mounts;

        n_tests = getenv("KEVD_FAULTS_EVERY") ? (int)ARRAY_SIZE(phases) : 1;
        for (size_t i = 0; i < ARRAY_SIZE(variants); i++) {
                TCase *one = harness_case(suite, variants[i].name);

                tcase_set_timeout(one, 36000);
                tcase_add_loop_test(one, test_life, (int)i * n_tests, (int)(i + 1) * n_tests);
        }
        mounts = harness_case(suite, "mounts");
        tcase_add_test(mounts, test_mounts_unread);
        tcase_add_test(mounts, test_mounts_unread_at_first);
        tcase_add_test(mounts, test_mounts_in_doubt);
        tcase_add_test(mounts, test_not_resolved);
        tcase_add_test(mounts, test_place_not_found_out);
        return harness_main(argc, argv);
}
