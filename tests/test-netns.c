/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * netdev watches of clients that live in other network namespaces than the daemon's: they are told of their own
 * devices and of no other, by sockets that are there as long as somebody watches, and that keep no namespace beyond
 * that. Where a device goes to when it leaves one. And devices that change at random in two namespaces, while the
 * kernel drops messages all the time.
 *
 * In the environment, for long runs:
 *
 *   KEVD_NETNS_ROUNDS   how many rounds at random; there is no timeout, and progress is shown
 *   KEVD_NETNS_SEED     of what happens in them
 *
 * The test's process and the daemon are in a namespace of the test's own.
 */

#include <dirent.h>
#include <inttypes.h>
#include <net/if.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "links.h"
#include "macro.h"

enum {
        END_MSEC = 60000, /* for the end of a namespace, which the kernel takes its time for */
        ROUNDS_MSEC = 20000,
        LOSS_MSEC = 60000, /* until there was one at last */
};

static void need_root(void) {
        if (geteuid() != 0)
                harness_skip("to live in two namespaces takes root");
        enter_namespace();
}

/* ---- what the daemon has ------------------------------------------------------------------------------- */

/* Network namespaces that are watched. */
static int64_t registrations(const struct daemon *daemon) {
        int fd = client_connect(daemon->socket);
        struct json_object *status = client_call(fd, "org.kevd.manager.GetStatus", NULL);
        struct json_object *sources = json_at(status, "/parameters/sources");
        int64_t n = -1;

        for (size_t i = 0; i < json_object_array_length(sources); i++) {
                struct json_object *source = json_object_array_get_idx(sources, i);

                if (strcmp(text_at(source, "/name"), "rtnetlink") == 0)
                        n = number_at(source, "/registrations");
        }
        json_object_put(status);
        (void)close(fd);
        return n;
}

static int64_t overflows(const struct daemon *daemon) {
        return status_number(daemon, "/parameters/counters/kernelOverflows");
}

/* Descriptors that begin so: "socket:", "net:". */
static int count_descriptors(pid_t pid, const char *what) {
        char path[64], link[64];
        struct dirent *entry;
        DIR *directory;
        int n = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        directory = opendir(path);
        assert_system(directory, path);
        while ((entry = readdir(directory))) {
                ssize_t size = readlinkat(dirfd(directory), entry->d_name, link, sizeof(link));

                n += size > (ssize_t)strlen(what) && strncmp(link, what, strlen(what)) == 0;
        }
        (void)closedir(directory);
        return n;
}

struct held {
        pid_t pid;
        int sockets, namespaces;
};

static bool holds(void *userdata) {
        const struct held *held = userdata;

        return count_descriptors(held->pid, "socket:") == held->sockets &&
               count_descriptors(held->pid, "net:") <= held->namespaces;
}

/* So many sockets, those of connections among them, and no more descriptors of namespaces than that. */
static void expect_held(const struct daemon *daemon, int sockets, int namespaces) {
        struct held held = { daemon->pid, sockets, namespaces };

        ck_assert_msg(wait_until(holds, &held, HARNESS_REPLY_MSEC),
                      "%d sockets instead of %d, and %d namespaces instead of %d at most",
                      count_descriptors(daemon->pid, "socket:"), sockets, count_descriptors(daemon->pid, "net:"),
                      namespaces);
}

/* Processes that the daemon has started, and theirs, hold none either. */
static void expect_no_namespace_in_broker(const struct daemon *daemon) {
        char path[64];
        FILE *children;
        int pid;

        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)daemon->pid, (int)daemon->pid);
        children = fopen(path, "re");
        if (!children) /* a kernel without CONFIG_PROC_CHILDREN */
                return;
        while (fscanf(children, "%d", &pid) == 1) {
                struct held held = { pid, count_descriptors(pid, "socket:"), 0 };

                ck_assert_msg(wait_until(holds, &held, HARNESS_REPLY_MSEC), "process %d has %d namespaces open", pid,
                              count_descriptors(pid, "net:"));
        }
        (void)fclose(children);
}

/* With all of the connections accepted, and nothing watched nor being opened yet. */
static int count_sockets(const struct daemon *daemon, const int *fds, size_t n_fds) {
        for (size_t i = 0; i < n_fds; i++)
                json_object_put(client_call(fds[i], "org.kevd.manager.GetStatus", NULL));
        return count_descriptors(daemon->pid, "socket:");
}

static void unwatch(int fd) {
        client_change(fd, "{\"remove\":[1]}");
}

/* ---- the caller's own devices --------------------------------------------------------------------------- */

static void expect_line(struct json_object *event, const char *expected) {
        char line[256];

        describe(event, line, sizeof(line));
        ck_assert_msg(strcmp(line, expected) == 0, "\"%s\" instead of \"%s\": %s", line, expected,
                      json_object_to_json_string(event));
}

/* The next of the device, which the caller frees. */
static struct json_object *next_of(int fd, const char *device) {
        for (;;) {
                struct json_object *event = next_event(fd);

                if (strcmp(text_at(event, "/link/name"), device) == 0)
                        return event;
                ck_assert_msg(is_other_end(text_at(event, "/link/name")), "%s", json_object_to_json_string(event));
                json_object_put(event);
        }
}

static void expect_next(int fd, const char *device, const char *expected) {
        struct json_object *event = next_of(fd, device);

        expect_line(event, expected);
        json_object_put(event);
}

/* Puts the name in the place of each "@". */
static const char *expand(const char *text, const char *name) {
        static char expanded[2][128];
        static unsigned n;
        char *to = expanded[n++ % 2];
        size_t used = 0;

        for (; *text; text++)
                used += (size_t)snprintf(to + used, sizeof(expanded[0]) - used, "%.*s", *text == '@' ? IFNAMSIZ : 1,
                                         *text == '@' ? name : text);
        return to;
}

/* Everything that can happen to a device of that name in there is told to all of the clients, which have taken all
 * that there was before. */
static void try_device(const struct home *home, const char *name, const int *fds, size_t n_fds) {
        static const struct {
                const char *command, *expected; /* which begins with the device's name */
        } steps[] = {
                { "link add @ type veth peer name @p", "@ add" },
                { "link set @ up", "@ flags" },
                { "link set @p up", "@ linkup" },
                { "link set @p down", "@ linkdown" },
                { "link set @p up", "@ linkup" },
                { "link set @ mtu 1400", "@ mtu" },
                { "addr add 192.0.2.1/24 dev @", "@ address" },
                { "addr add 2001:db8::1/64 dev @ nodad", "@ address" },
                { "route add default via 192.0.2.254 dev @", "@ route" },
                { "-6 route add default via 2001:db8::2 dev @", "@ route" },
                { "-6 route del default via 2001:db8::2 dev @", "@ route" },
                { "route del default via 192.0.2.254 dev @", "@ route" },
                { "addr del 2001:db8::1/64 dev @", "@ address" },
                { "addr del 192.0.2.1/24 dev @", "@ address" },
                { "link set @ address 02:00:00:00:00:01", "@ address" },
                { "link set @ down", "@ linkdown+flags" },
                { "link set @ name @x", "@x<@ rename" },
                { "link del @x", "@x linkinv" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
                char expected[128], device[IFNAMSIZ];

                ip_at(home, "%s", expand(steps[i].command, name));
                (void)snprintf(expected, sizeof(expected), "%s", expand(steps[i].expected, name));
                (void)snprintf(device, sizeof(device), "%.*s", (int)strcspn(expected, " <"), expected);
                for (size_t j = 0; j < n_fds; j++)
                        expect_next(fds[j], device, expected);
        }
        /* The other end has gone with it. */
        for (size_t j = 0; j < n_fds; j++) {
                struct json_object *event;

                while ((event = due_event(fds[j]))) {
                        ck_assert_msg(is_other_end(text_at(event, "/link/name")), "%s",
                                      json_object_to_json_string(event));
                        json_object_put(event);
                }
        }
}

START_TEST(test_own_devices) {
        struct daemon *daemon;
        struct home *home;
        int sockets, here, there[2];

        need_root();
        daemon = daemon_start("--mode=system");
        home = home_new(0);
        here = client_connect(daemon->socket);
        there[0] = home_connect(home, daemon->socket);
        there[1] = home_connect(home, daemon->socket);
        sockets = count_sockets(daemon, (const int[]){ here, there[0], there[1] }, 3);
        ck_assert_int_eq(registrations(daemon), 0);
        watch(here, "");
        ck_assert_int_eq(registrations(daemon), 1);
        expect_held(daemon, sockets + 2, 0);
        watch(there[0], "");
        ck_assert_int_eq(registrations(daemon), 2);
        expect_held(daemon, sockets + 4, 1);
        watch(there[1], "");
        ck_assert_int_eq(registrations(daemon), 2);
        expect_held(daemon, sockets + 4, 1);
        expect_no_namespace_in_broker(daemon);

        try_device(home, "v0", there, 2);
        expect_nothing(here);
        try_device(NULL, "v0", &here, 1);
        expect_nothing(there[0]);
        expect_nothing(there[1]);

        unwatch(there[0]);
        ck_assert_int_eq(registrations(daemon), 2);
        expect_held(daemon, sockets + 4, 1);
        try_device(home, "v1", &there[1], 1);
        expect_nothing(there[0]);
        unwatch(there[1]);
        expect_held(daemon, sockets + 2, 0);
        ck_assert_int_eq(registrations(daemon), 1);
        unwatch(here);
        expect_held(daemon, sockets, 0);
        ck_assert_int_eq(registrations(daemon), 0);
        (void)close(here);
        (void)close(there[0]);
        (void)close(there[1]);
        home_free(home);
        daemon_stop(daemon);
}
END_TEST

/* By a name that two namespaces have, each follows its own; and another user's is served like root's. */
START_TEST(test_by_name) {
        struct daemon *daemon;
        struct home *first, *second;
        struct json_object *reply;
        int a, b;

        need_root();
        assert_system(chmod(harness_tempdir(), 0755) == 0, "chmod");
        daemon = daemon_start("--mode=system");
        first = home_new(0);
        second = home_new(OTHER_CLIENT);
        a = home_connect(first, daemon->socket);
        b = home_connect(second, daemon->socket);
        add_device("here"); /* is not there */
        ip_at(first, "link add d0 type veth peer name d0p");
        ip_at(second, "link add d0 type veth peer name d0p");
        reply = client_call(a, "org.kevd.events.Change",
                            "{\"add\":[{\"id\":9,\"filter\":\"netdev\",\"name\":\"here\"}]}");
        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "ENODEV");
        json_object_put(reply);
        watch(a, ",\"name\":\"d0\"");
        watch(b, ",\"name\":\"d0\"");
        for (int i = 0; i < 20; i++) {
                ip_at(first, "link set d0 mtu %d", 1000 + i);
                expect_next(a, "d0", "d0 mtu");
                ip_at(second, "link set d0 mtu %d", 1300 + i);
                expect_next(b, "d0", "d0 mtu");
                expect_nothing(a);
                expect_nothing(b);
        }
        (void)close(a);
        (void)close(b);
        home_free(first);
        home_free(second);
        daemon_stop(daemon);
}
END_TEST

/* The last watch gone, all is let go of; a new one starts again. */
START_TEST(test_again) {
        struct daemon *daemon;
        struct home *home;
        int fd, sockets;

        need_root();
        daemon = daemon_start("--mode=system");
        home = home_new(0);
        fd = home_connect(home, daemon->socket);
        sockets = count_sockets(daemon, &fd, 1);
        for (int i = 0; i < 20; i++) {
                watch(fd, "");
                ip_at(home, "link add d0 type veth peer name d0p");
                expect_next(fd, "d0", "d0 add");
                ip_at(home, "link del d0");
                expect_next(fd, "d0", "d0 linkinv");
                if (i % 2) { /* right after each other, or with all gone between them */
                        unwatch(fd);
                        expect_nothing(fd);
                        continue;
                }
                unwatch(fd);
                expect_held(daemon, sockets, 0);
                expect_nothing(fd);
        }
        (void)close(fd);
        home_free(home);
        daemon_stop(daemon);
}
END_TEST

/* As after a restart of the daemon: from many namespaces at the same moment. */
START_TEST(test_many_at_once) {
        enum { HOMES = 60 };
        struct daemon *daemon;
        struct home *homes[HOMES];
        int fds[HOMES];

        need_root();
        daemon = daemon_start("--mode=system");
        for (int i = 0; i < HOMES; i++) {
                homes[i] = home_new(0);
                fds[i] = home_connect(homes[i], daemon->socket);
        }
        (void)count_sockets(daemon, fds, HOMES);
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        for (int i = 0; i < HOMES; i++)
                client_send_message(fds[i], "{\"method\":\"org.kevd.events.Change\",\"parameters\":"
                                            "{\"add\":[{\"id\":1,\"filter\":\"netdev\"}]}}");
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        for (int i = 0; i < HOMES; i++) {
                struct json_object *reply = client_receive(fds[i], HARNESS_REPLY_MSEC);

                ck_assert_ptr_nonnull(reply);
                ck_assert_msg(!json_at(reply, "/parameters/refused/0"), "%d: %s", i, json_object_to_json_string(reply));
                json_object_put(reply);
        }
        ck_assert_int_eq(registrations(daemon), HOMES);
        for (int i = 0; i < HOMES; i++) {
                (void)close(fds[i]);
                home_free(homes[i]);
        }
        daemon_stop(daemon);
}
END_TEST

/* ---- the end of a namespace -------------------------------------------------------------------------------- */

static bool is_gone(void *userdata) {
        char command[128];

        (void)snprintf(command, sizeof(command), "ip link show %s >/dev/null 2>&1", (const char *)userdata);
        return system(command) != 0;
}

/* A device of this name, whose peer is in there: with the namespace it goes. */
static void add_canary(const struct home *home, const char *name) {
        ip("link add %s type veth peer name %sp", name, name);
        ip("link set %sp netns %d", name, (int)home->pid);
}

/* Nobody watches, though one has: the namespace ends with its last process and connection. */
START_TEST(test_end) {
        struct daemon *daemon;
        struct home *home;
        int fd;

        need_root();
        daemon = daemon_start("--mode=system");
        for (int i = 0; i < 3; i++) {
                home = home_new(0);
                fd = home_connect(home, daemon->socket);
                add_canary(home, "canary");
                watch(fd, "");
                ip_at(home, "link set canaryp up");
                expect_next(fd, "canaryp", "canaryp flags");
                if (i == 0) { /* the watch ends before the connection, with it, or as the daemon asks for sockets */
                        unwatch(fd);
                        expect_nothing(fd);
                        (void)close(fd);
                } else if (i == 1) {
                        (void)close(fd);
                } else {
                        unwatch(fd);
                        client_send_message(fd, "{\"method\":\"org.kevd.events.Change\",\"parameters\":"
                                                "{\"add\":[{\"id\":1,\"filter\":\"netdev\"}]}}");
                        (void)close(fd);
                }
                home_free(home);
                ck_assert_msg(wait_until(is_gone, (char[]){ "canary" }, END_MSEC),
                              "%d: the namespace is there though nobody watches, and %d are registered", i,
                              (int)registrations(daemon));
        }
        ck_assert_int_eq(registrations(daemon), 0);
        ck_assert_int_eq(count_descriptors(daemon->pid, "net:"), 0);
        daemon_stop(daemon);
}
END_TEST

/* A watch's namespace stays with all in it as long as there is somebody to be told. */
START_TEST(test_watched_on) {
        struct daemon *daemon;
        struct home *home;
        int fd, here;

        need_root();
        daemon = daemon_start("--mode=system");
        home = home_new(0);
        fd = home_connect(home, daemon->socket);
        here = client_connect(daemon->socket);
        add_canary(home, "canary");
        watch(fd, ",\"name\":\"canaryp\"");
        watch(here, ",\"name\":\"canary\"");
        home_free(home); /* the connection is the test's now */
        ip("link set canary up");
        expect_next(here, "canary", "canary flags");
        expect_nothing(fd);
        ip("link set canary down");
        expect_next(here, "canary", "canary flags");
        (void)close(fd);
        ck_assert_msg(wait_until(is_gone, (char[]){ "canary" }, END_MSEC), "the namespace is there");
        /* Its peer's namespace took this end with it. */
        {
                struct json_object *event = next_event(here);

                expect_line(event, "canary linkinv eof");
                ck_assert(!json_at(event, "/link/newNamespace"));
                ck_assert(!json_at(event, "/link/newIndex"));
                json_object_put(event);
        }
        (void)close(here);
        daemon_stop(daemon);
}
END_TEST

/* ---- moving -------------------------------------------------------------------------------------------------- */

static int64_t link_number(const struct home *home, const char *device, const char *pointer) {
        int before = home_enter(home);
        struct json_object *links;
        char command[64];
        int64_t number;

        (void)snprintf(command, sizeof(command), "link show %s", device);
        links = ip_json(command);
        number = number_at(links, pointer);
        json_object_put(links);
        home_leave(before);
        return number;
}

static int64_t index_of(const struct home *home, const char *device) {
        return link_number(home, device, "/0/ifindex");
}

/* How the namespace of the device numbers that of its peer. */
static int64_t peers_namespace(const struct home *home, const char *device) {
        return link_number(home, device, "/0/link_netnsid");
}

static struct json_object *next_linkinv(int fd, const char *device) {
        struct json_object *event;

        while (event = next_event(fd), !has_note(event, "linkinv") || strcmp(text_at(event, "/link/name"), device) != 0)
                json_object_put(event);
        return event;
}

/* From one namespace to another, and both are told. The index there is the same if it is free, and another one if
 * not; the number is how the old one numbers the new one. */
static void try_move(const struct daemon *daemon, const struct home *from, const struct home *to, int from_fd,
                     int to_fd, int64_t index, bool is_free) {
        struct json_object *event;
        int64_t there;

        ip_at(from, "link add m0 index %" PRId64 " type veth peer name m0p", index);
        if (!is_free)
                ip_at(to, "link add taken index %" PRId64 " type veth peer name takenp", index);
        ip_at(from, "link set m0 netns %d", (int)(to ? to->pid : daemon->pid));
        there = index_of(to, "m0");
        ck_assert_msg((there == index) == is_free, "%" PRId64 " became %" PRId64, index, there);

        event = next_linkinv(from_fd, "m0");
        ck_assert_int_eq(number_at(event, "/link/index"), index);
        ck_assert_int_eq(number_at(event, "/link/newIndex"), there);
        ck_assert_int_eq(number_at(event, "/link/newNamespace"), peers_namespace(from, "m0p"));
        json_object_put(event);
        while (event = next_event(to_fd), strcmp(text_at(event, "/link/name"), "m0") != 0)
                json_object_put(event);
        expect_line(event, "m0 add");
        ck_assert_int_eq(number_at(event, "/link/index"), there);
        json_object_put(event);

        ip_at(from, "link del m0p");
        event = next_linkinv(to_fd, "m0");
        ck_assert(!json_at(event, "/link/newNamespace"));
        ck_assert(!json_at(event, "/link/newIndex"));
        json_object_put(event);
        if (!is_free) {
                ip_at(to, "link del taken");
                json_object_put(next_linkinv(to_fd, "taken"));
        }
}

START_TEST(test_moves) {
        struct daemon *daemon;
        struct home *homes[3] = { NULL, NULL, NULL }; /* the first is here */
        int fds[3];
        int64_t index = 100;

        need_root();
        daemon = daemon_start("--mode=system");
        homes[1] = home_new(0);
        homes[2] = home_new(0);
        for (int i = 0; i < 3; i++) {
                fds[i] = homes[i] ? home_connect(homes[i], daemon->socket) : client_connect(daemon->socket);
                watch(fds[i], "");
        }
        for (int from = 0; from < 3; from++)
                for (int to = 0; to < 3; to++) {
                        if (from == to)
                                continue;
                        try_move(daemon, homes[from], homes[to], fds[from], fds[to], index++, true);
                        try_move(daemon, homes[from], homes[to], fds[from], fds[to], index++, false);
                }
        for (int i = 0; i < 3; i++) {
                (void)close(fds[i]);
                if (homes[i])
                        home_free(homes[i]);
        }
        daemon_stop(daemon);
}
END_TEST

/* ---- refusals ------------------------------------------------------------------------------------------------ */

/* Without a broker nobody can go there. */
START_TEST(test_refused) {
        struct daemon *daemon;
        struct home *home;
        struct json_object *reply;
        int fd, here;

        need_root();
        daemon = daemon_start("--mode=user");
        home = home_new(0);
        fd = home_connect(home, daemon->socket);
        here = client_connect(daemon->socket);
        watch(here, "");
        for (int i = 0; i < 2; i++) {
                reply = client_call(fd, "org.kevd.events.Change", "{\"add\":[{\"id\":1,\"filter\":\"netdev\"}]}");
                ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EXDEV");
                ck_assert_msg(strstr(text_at(reply, "/parameters/refused/0/message"), "another network namespace"),
                              "%s", text_at(reply, "/parameters/refused/0/message"));
                json_object_put(reply);
        }
        add_device("d0");
        expect_next(here, "d0", "d0 add");
        expect_nothing(fd);
        (void)close(fd);
        (void)close(here);
        home_free(home);
        daemon_stop(daemon);
}
END_TEST

/* ---- at random ------------------------------------------------------------------------------------------------ */

enum { NAMES = 6, COMMANDS_MAX = 80 };

struct churn {
        unsigned seed, state;
        int round;
        struct home *homes[2];
        int fds[2]; /* of clients that watch all devices of a home */
        struct links links[2];
        int named; /* of one that watches one of the first home's */
        struct links named_links;
        char named_index[16]; /* "": it is over */
        int differences;
        char first[2560]; /* of them */
};

static int pick(struct churn *c, int n) {
        c->state = c->state * 1103515245 + 12345;
        return (int)(c->state >> 16) % n;
}

static int64_t number_of_environment(const char *name, int64_t otherwise) {
        const char *value = getenv(name);

        return value ? strtoll(value, NULL, 0) : otherwise;
}

/* Few names, so that much is about the same ones, and some of it can't be done. */
static const char *pick_name(struct churn *c) {
        static char names[2][IFNAMSIZ];
        static unsigned n;
        char *name = names[n++ % 2];

        (void)snprintf(name, IFNAMSIZ, "c%d%s", pick(c, NAMES), pick(c, 3) ? "" : "p");
        return name;
}

static void put_command(struct churn *c, FILE *batch, const struct home *other) {
        const char *name = pick_name(c);

        switch (pick(c, 14)) {
        case 0:
        case 1:
                (void)fprintf(batch, "link add %s type veth peer name %s\n", name, pick_name(c));
                return;
        case 2:
                (void)fprintf(batch, "link del %s\n", name);
                return;
        case 3:
        case 4:
                (void)fprintf(batch, "link set %s up\n", name);
                return;
        case 5:
                (void)fprintf(batch, "link set %s down\n", name);
                return;
        case 6:
                (void)fprintf(batch, "link set %s mtu %d\n", name, 1300 + pick(c, 10));
                return;
        case 7:
                (void)fprintf(batch, "link set %s address 02:00:00:00:00:%02x\n", name, pick(c, 256));
                return;
        case 8:
                (void)fprintf(batch, "addr add 10.0.%d.%d/24 dev %s\n", pick(c, 3), 1 + pick(c, 3), name);
                return;
        case 9:
                (void)fprintf(batch, "addr add 2001:db8::%x/64 dev %s nodad\n", 1 + pick(c, 3), name);
                return;
        case 10:
                (void)fprintf(batch, "addr del 10.0.%d.%d/24 dev %s\n", pick(c, 3), 1 + pick(c, 3), name);
                return;
        case 11:
                (void)fprintf(batch, "addr del 2001:db8::%x/64 dev %s\n", 1 + pick(c, 3), name);
                return;
        case 12:
                (void)fprintf(batch, "link set %s name %s\n", name, pick_name(c));
                return;
        case 13:
                (void)fprintf(batch, "link set %s netns %d\n", name, (int)other->pid);
                return;
        }
}

/* In both namespaces at once. */
static void change_devices(struct churn *c) {
        FILE *batches[2];

        for (int i = 0; i < 2; i++) {
                int before = home_enter(c->homes[i]);

                batches[i] = popen("ip -force -batch - >/dev/null 2>&1", "we");
                ck_assert_ptr_nonnull(batches[i]);
                home_leave(before);
        }
        for (int n = 1 + pick(c, COMMANDS_MAX); n > 0; n--) {
                int i = pick(c, 2);

                put_command(c, batches[i], c->homes[1 - i]);
        }
        for (int i = 0; i < 2; i++)
                (void)pclose(batches[i]); /* what can't be done is passed over */
}

/* Whether a watch of one device has come to its end. */
static bool take_links(int fd, struct links *links) {
        bool ended = false;

        for (;;) {
                struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}");
                struct json_object *events = json_at(reply, "/parameters/events");
                size_t n = json_object_array_length(events);

                ck_assert_msg(events, "%s", json_object_to_json_string(reply));
                for (size_t i = 0; i < n; i++) {
                        struct json_object *event = json_object_array_get_idx(events, i);

                        links_apply(links, event);
                        ended |= strcmp(text_at(event, "/flags/0"), "eof") == 0;
                }
                json_object_put(reply);
                if (n == 0)
                        return ended;
        }
}

static void count_difference(struct churn *c, const char *who, const char *difference) {
        if (!difference[0])
                return;
        if (c->differences++ == 0)
                (void)snprintf(c->first, sizeof(c->first), "round %d, %s: %s", c->round, who, difference);
}

struct at_rest {
        int fd;
        struct links *links;
};

static bool is_at_rest(void *userdata) {
        const struct at_rest *r = userdata;

        (void)take_links(r->fd, r->links);
        return !links_compare_at_rest(r->links)[0];
}

/* Nothing goes on any more: the client with all devices knows all. */
static void compare_all(struct churn *c, int i) {
        struct at_rest at_rest = { c->fds[i], &c->links[i] };
        int before = home_enter(c->homes[i]), differences = c->differences;

        (void)take_links(c->fds[i], &c->links[i]);
        count_difference(c, i ? "second" : "first", links_compare(&c->links[i]));
        if (c->differences == differences && !wait_until(is_at_rest, &at_rest, HARNESS_REPLY_MSEC))
                count_difference(c, i ? "second, at rest" : "first, at rest", links_compare_at_rest(&c->links[i]));
        if (c->differences > differences) { /* it is not counted again */
                links_free(&c->links[i]);
                c->links[i] = links_new();
        }
        home_leave(before);
}

/* The one with one device may be told of its end, though it has come back since. */
static void compare_named(struct churn *c) {
        int before;

        if (!c->named_index[0])
                return;
        before = home_enter(c->homes[0]);
        if (take_links(c->named, &c->named_links))
                c->named_index[0] = 0;
        else
                count_difference(c, "by name", links_compare_device(&c->named_links, c->named_index));
        home_leave(before);
}

static void watch_by_name(struct churn *c) {
        struct json_object *name = NULL;
        char members[64];
        int n = 0;

        if (c->named_index[0])
                return;
        if (c->named_links.by_index) {
                unwatch(c->named);
                links_free(&c->named_links);
        }
        json_object_object_foreach(c->links[0].by_index, index, link) {
                if (pick(c, ++n) != 0)
                        continue;
                name = json_at(link, "/name");
                (void)snprintf(c->named_index, sizeof(c->named_index), "%s", index);
        }
        if (n == 0)
                return;
        (void)snprintf(members, sizeof(members), ",\"name\":\"%s\"", json_object_get_string(name));
        n = home_enter(c->homes[0]);
        c->named_links = links_new();
        home_leave(n);
        watch(c->named, members);
}

static void show_progress(const struct churn *c, const struct daemon *daemon) {
        if (getenv("KEVD_NETNS_ROUNDS"))
                (void)fprintf(stderr, "# %d rounds, %lld losses, %d differences\n", c->round,
                              (long long)overflows(daemon), c->differences);
}

static bool goes_on(const struct churn *c, const struct daemon *daemon, int64_t rounds, int64_t begun) {
        int64_t past = now_msec() - begun;

        if (rounds < INT64_MAX)
                return c->round < rounds;
        return past < harness_rounds(ROUNDS_MSEC) || (past < LOSS_MSEC && overflows(daemon) == 0);
}

START_TEST(test_random) {
        struct churn c = { .seed = (unsigned)number_of_environment("KEVD_NETNS_SEED", now_msec() & 0xffffff) };
        int64_t rounds = number_of_environment("KEVD_NETNS_ROUNDS", INT64_MAX), begun = now_msec();
        struct daemon *daemon;

        need_root();
        (void)fprintf(stderr, "# seed %u\n", c.seed); /* however it ends */
        c.state = c.seed;
        daemon = daemon_start("--mode=system", "--netdev-buffer=4096");
        for (int i = 0; i < 2; i++) {
                int before;

                c.homes[i] = home_new(0);
                c.fds[i] = home_connect(c.homes[i], daemon->socket);
                before = home_enter(c.homes[i]);
                c.links[i] = links_new();
                home_leave(before);
                watch(c.fds[i], "");
        }
        c.named = home_connect(c.homes[0], daemon->socket);
        while (goes_on(&c, daemon, rounds, begun)) {
                watch_by_name(&c);
                c.round++;
                change_devices(&c);
                compare_all(&c, 0);
                compare_all(&c, 1);
                compare_named(&c);
                if (c.round % 20 == 0)
                        show_progress(&c, daemon);
        }
        show_progress(&c, daemon);
        ck_assert_msg(c.differences == 0, "seed %u: %d differences in %d rounds with %lld losses; %s", c.seed,
                      c.differences, c.round, (long long)overflows(daemon), c.first);
        ck_assert_msg(overflows(daemon) > 0, "there was no loss: the test is to be made larger");
        for (int i = 0; i < 2; i++) {
                links_free(&c.links[i]);
                (void)close(c.fds[i]);
                home_free(c.homes[i]);
        }
        if (c.named_links.by_index)
                links_free(&c.named_links);
        (void)close(c.named);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("netns");
        TCase *c;

        c = harness_case(suite, "own");
        tcase_add_test(c, test_own_devices);
        tcase_add_test(c, test_by_name);
        tcase_add_test(c, test_again);
        tcase_add_test(c, test_many_at_once);
        tcase_add_test(c, test_refused);

        c = harness_case(suite, "end");
        tcase_set_timeout(c, 240);
        tcase_add_test(c, test_end);
        tcase_add_test(c, test_watched_on);

        c = harness_case(suite, "moves");
        tcase_add_test(c, test_moves);

        c = harness_case(suite, "random");
        tcase_set_timeout(c, getenv("KEVD_NETNS_ROUNDS") ? 0 : 120);
        tcase_add_test(c, test_random);
        return harness_main(argc, argv);
}
