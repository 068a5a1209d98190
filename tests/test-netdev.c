/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * netdev watches against the real daemon, in a network namespace of each test's own: what is done
 * to the devices with ip(8) must come out as exactly the events that stand for it, and after a loss
 * of messages the state that the events build up must be the kernel's.
 */

#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "links.h"
#include "macro.h"

/* ---- the protocol ---------------------------------------------------------------------------------- */

/* How often the device's carrier has changed: the kernel's own count. */
static int64_t carrier_changes(const char *device) {
        struct json_object *links, *changes;
        char command[64];
        int64_t n;

        (void)snprintf(command, sizeof(command), "-s -s link show %s", device);
        links = ip_json(command);
        changes = json_at(links, "/0/stats64/tx/carrier_changes");
        ck_assert_msg(changes, "%s", json_object_to_json_string(links));
        n = json_object_get_int64(changes);
        json_object_put(links);
        return n;
}

/* What comes of `device` ("": of all), in the order in which it came, until a marker that is set off here:
 * a device of a name that nothing else has. */
static void collect(int fd, const char *device, char *lines, size_t size) {
        static unsigned serial;
        char marker[16];
        bool found = false;
        size_t used = 0;

        lines[0] = 0;
        (void)snprintf(marker, sizeof(marker), "end%u", serial++);
        add_device(marker);
        while (!found) {
                struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":9000}");
                struct json_object *events = json_at(reply, "/parameters/events");

                ck_assert_msg(json_object_array_length(events) > 0, "the marker did not come, but %s", lines);
                for (size_t i = 0; i < json_object_array_length(events); i++) {
                        struct json_object *event = json_object_array_get_idx(events, i);
                        char line[256];

                        if (strcmp(text_at(event, "/link/name"), marker) == 0)
                                found = true;
                        else if (strncmp(text_at(event, "/link/name"), "end", 3) == 0)
                                continue;
                        else if (device[0] ? strcmp(text_at(event, "/link/name"), device) == 0
                                           : !is_other_end(text_at(event, "/link/name"))) {
                                describe(event, line, sizeof(line));
                                used += (size_t)snprintf(lines + used, size - used, "%s\n", line);
                        }
                }
                json_object_put(reply);
        }
}

static void expect(int fd, const char *device, const char *expected) {
        char lines[4096];

        collect(fd, device, lines, sizeof(lines));
        ck_assert_str_eq(lines, expected);
}

/* ---- what is done, and what is told ------------------------------------------------------------------ */

static bool has_state(void *userdata) {
        struct json_object *links = ip_json("link show v0");
        bool has = strcmp(text_at(links, "/0/operstate"), userdata) == 0;

        json_object_put(links);
        return has;
}

/* The kernel looks at the carrier when it has time (link_watch.c), and tells of it before anybody can see it. */
static void await_state(const char *state) {
        ck_assert_msg(wait_until(has_state, (void *)state, HARNESS_REPLY_MSEC), "v0 is not %s", state);
}

/* Acceptance point 5. */
START_TEST(test_veth) {
        struct daemon *daemon;
        int fd;

        enter_namespace();
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, "");
        expect(fd, "", "");

        ip("link add v0 type veth peer name v1");
        expect(fd, "v0", "v0 add\n");
        ip("link set v0 up");
        expect(fd, "v0", "v0 flags\n");
        ip("link set v1 up");
        await_state("UP");
        expect(fd, "v0", "v0 linkup\n");
        ip("link set v1 down");
        await_state("LOWERLAYERDOWN");
        expect(fd, "v0", "v0 linkdown\n");
        ip("link set v1 up");
        await_state("UP");
        expect(fd, "v0", "v0 linkup\n");
        ip("link set v0 mtu 1400");
        expect(fd, "v0", "v0 mtu\n");
        ip("link set v0 down");
        expect(fd, "v0", "v0 linkdown+flags\n");
        ip("link set v0 name w0");
        expect(fd, "w0", "w0<v0 rename\n");
        ip("link set w0 address 02:00:00:00:00:01");
        expect(fd, "w0", "w0 address\n");
        ip("link del w0");
        expect(fd, "w0", "w0 linkinv\n");
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* All in one go: none too many, none in the wrong order, and a name that comes back. */
START_TEST(test_sequence) {
        struct daemon *daemon;
        int fd;

        enter_namespace();
        add_device("d0");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, "");
        ip("link set d0 up");
        ip("link set d0 down");
        ip("link set d0 name e0");
        ip("link set e0 name f0");
        ip("link del f0");
        add_device("d0");
        ip("link del d0");
        expect(fd, "", "d0 flags\nd0 flags\ne0<d0 rename\nf0<e0 rename\nf0 linkinv\nd0 add\nd0 linkinv\n");
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_fields) {
        struct daemon *daemon;
        struct json_object *event;
        int fd;

        enter_namespace();
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, "");
        ip("link add v0 index 77 mtu 1300 address 02:00:00:00:00:aa type veth peer name v1");
        for (event = next_event(fd); strcmp(text_at(event, "/link/name"), "v0") != 0; event = next_event(fd))
                json_object_put(event);
        ck_assert_int_eq(json_object_get_int64(json_at(event, "/link/index")), 77);
        ck_assert_int_eq(json_object_get_int64(json_at(event, "/link/mtu")), 1300);
        ck_assert_str_eq(text_at(event, "/link/address"), "02:00:00:00:00:aa");
        ck_assert_str_eq(text_at(event, "/link/operState"), "down");
        ck_assert(!json_object_get_boolean(json_at(event, "/link/up")));
        ck_assert(!json_object_get_boolean(json_at(event, "/link/carrier")));
        ck_assert_int_eq(json_object_get_int64(json_at(event, "/data")), 0);
        ck_assert_int_eq(json_object_get_int64(json_at(event, "/count")), 1);
        ck_assert_uint_eq(json_object_array_length(json_at(event, "/link/addresses")), 0);
        json_object_put(event);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

struct oper_state {
        int fd;
        char last[16]; /* that an event of v1 had */
};

static bool is_up(void *userdata) {
        struct oper_state *state = userdata;
        struct json_object *event;

        while ((event = due_event(state->fd))) {
                if (strcmp(text_at(event, "/link/name"), "v1") == 0)
                        (void)snprintf(state->last, sizeof(state->last), "%s", text_at(event, "/link/operState"));
                json_object_put(event);
        }
        return strcmp(state->last, "up") == 0;
}

/* The kernel sets it a moment after the carrier, with a message of its own. */
START_TEST(test_oper_state) {
        struct daemon *daemon;
        struct oper_state state = { 0 };

        enter_namespace();
        daemon = daemon_start(NULL);
        state.fd = client_connect(daemon->socket);
        watch(state.fd, "");
        ip("link add v0 type veth peer name v1");
        for (int i = 0; i < 5; i++) {
                struct json_object *links;

                ip("link set v0 up");
                ip("link set v1 up");
                if (!wait_until(is_up, &state, HARNESS_REPLY_MSEC / 2)) {
                        links = ip_json("link show v1");
                        ck_abort_msg("round %d: told %s, but it is %s", i, state.last,
                                     text_at(links, "/0/operstate"));
                }
                ip("link set v1 down");
                (void)is_up(&state);
        }
        (void)close(state.fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_addresses) {
        static const char *const addresses[] = { "192.0.2.1/24", "192.0.2.77/32", "2001:db8::1/64" };
        struct daemon *daemon;
        struct json_object *event;
        int fd;

        enter_namespace();
        add_device("d0");
        ip("link set d0 up");
        ip("addr add 198.51.100.1/24 dev d0"); /* there before */
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, ",\"name\":\"d0\",\"notes\":[\"address\"]");
        ck_assert_ptr_null(due_event(fd));
        for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
                ip("addr add %s dev d0%s", addresses[i], strchr(addresses[i], ':') ? " nodad" : "");
                event = next_event(fd);
                ck_assert_str_eq(text_at(event, "/notes/0"), "address");
                ck_assert_uint_eq(json_object_array_length(json_at(event, "/link/addresses")), i + 2);
                ck_assert_str_eq(text_at(event, "/link/addresses/0"), "198.51.100.1/24");
                ck_assert_str_eq(json_object_get_string(
                                         json_object_array_get_idx(json_at(event, "/link/addresses"), i + 1)),
                                 addresses[i]);
                json_object_put(event);
        }
        for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
                ip("addr del %s dev d0", addresses[i]);
                event = next_event(fd);
                ck_assert_uint_eq(json_object_array_length(json_at(event, "/link/addresses")),
                                  ARRAY_SIZE(addresses) - i);
                json_object_put(event);
        }
        /* A new life time is no news. */
        ip("addr change 198.51.100.1/24 dev d0 valid_lft 1000 preferred_lft 1000");
        ck_assert_ptr_null(due_event(fd));
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* Default routes are told with the note route, to who wants it; test-netroute has what becomes of them. */
START_TEST(test_route) {
        struct daemon *daemon;
        struct json_object *event;
        int fd, other;

        enter_namespace();
        add_device("d0");
        ip("link set d0 up");
        ip("addr add 192.0.2.1/24 dev d0");
        ip("route add default via 192.0.2.254"); /* there before */
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        other = client_connect(daemon->socket);
        watch(fd, ",\"name\":\"d0\",\"notes\":[\"route\"]");
        watch(other, ",\"name\":\"d0\",\"notes\":[\"mtu\"]");
        ck_assert_ptr_null(due_event(fd));
        ip("route add 203.0.113.0/24 via 192.0.2.254"); /* no default */
        ip("route add default via 192.0.2.253 table 7");
        ip("link set d0 mtu 1400");
        ck_assert_ptr_null(due_event(fd));
        ip("route add default via 192.0.2.253 metric 9");
        event = next_event(fd);
        ck_assert_str_eq(text_at(event, "/notes/0"), "route");
        ck_assert_uint_eq(json_object_array_length(json_at(event, "/notes")), 1);
        ck_assert_str_eq(text_at(event, "/link/gateways/0"), "192.0.2.254");
        ck_assert_str_eq(text_at(event, "/link/gateways/1"), "192.0.2.253");
        ck_assert_str_eq(text_at(event, "/link/addresses/0"), "192.0.2.1/24");
        json_object_put(event);
        event = next_event(other); /* what there was before is in any event */
        ck_assert_str_eq(text_at(event, "/notes/0"), "mtu");
        ck_assert_str_eq(text_at(event, "/link/gateways/0"), "192.0.2.254");
        json_object_put(event);
        ck_assert_ptr_null(due_event(other));
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* In each answer is what was done right before: 200 times. */
START_TEST(test_barrier) {
        struct daemon *daemon;
        int fd;

        enter_namespace();
        add_device("d0");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, ",\"name\":\"d0\"");
        for (int i = 0; i < 200; i++) {
                struct json_object *event;

                ip("link set d0 mtu %d", 1200 + i);
                event = due_event(fd);
                ck_assert_msg(event, "round %d", i);
                ck_assert_int_eq(json_object_get_int64(json_at(event, "/link/mtu")), 1200 + i);
                json_object_put(event);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

START_TEST(test_by_name) {
        struct daemon *daemon;
        struct json_object *reply;
        int fd, second;

        enter_namespace();
        add_device("d0");
        add_device("d1");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        second = client_connect(daemon->socket);
        /* The first watch waits for the state, the second finds it: both refuse. */
        for (int i = 0; i < 2; i++) {
                reply = client_call(fd, "org.kevd.events.Change",
                                    "{\"add\":[{\"id\":9,\"filter\":\"netdev\",\"name\":\"nosuch0\"}]}");
                ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "ENODEV");
                json_object_put(reply);
                if (i == 0)
                        watch(fd, ",\"name\":\"d0\"");
        }
        watch(second, ",\"name\":\"d1\"");
        ip("link set d0 up");
        ip("link set d1 mtu 1400");
        /* By name it was found, and it is followed by what it is. */
        ip("link set d0 name e0");
        ip("link set e0 down");
        /* Another one of the name is another device. */
        ip("link add d0 type veth peer name xp");
        ip("link set d0 mtu 1000");
        ip("link del e0");
        for (int i = 0; i < 4; i++) {
                static const char *const expected[] = { "d0 flags", "e0<d0 rename", "e0 flags", "e0 linkinv eof" };
                struct json_object *event = next_event(fd);
                char line[256];

                describe(event, line, sizeof(line));
                ck_assert_str_eq(line, expected[i]);
                json_object_put(event);
        }
        /* It is over, but the watch is there until it is removed. */
        add_device("e0");
        ck_assert_ptr_null(due_event(fd));
        reply = client_call(fd, "org.kevd.events.Change", "{\"remove\":[1]}");
        ck_assert_ptr_null(json_at(reply, "/parameters/refused/0"));
        json_object_put(reply);
        watch(fd, ",\"name\":\"e0\"");
        reply = next_event(second);
        ck_assert_str_eq(text_at(reply, "/notes/0"), "mtu");
        json_object_put(reply);
        ck_assert_ptr_null(due_event(second));
        (void)close(fd);
        (void)close(second);
        daemon_stop(daemon);
}
END_TEST

/* linkinv comes unasked: nothing else will. */
START_TEST(test_gone_unasked) {
        struct daemon *daemon;
        struct json_object *event;
        int fd;

        enter_namespace();
        add_device("d0");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, ",\"name\":\"d0\",\"notes\":[\"mtu\"]");
        ip("link set d0 up");
        ip("link del d0");
        event = next_event(fd);
        ck_assert(has_note(event, "linkinv"));
        ck_assert(!has_note(event, "linkdown"));
        ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
        ck_assert(!json_at(event, "/link/newNamespace"));
        ck_assert(!json_at(event, "/link/newIndex"));
        json_object_put(event);
        ck_assert_ptr_null(due_event(fd));
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* A device that moves away is gone from here. */
START_TEST(test_moved_away) {
        struct daemon *daemon;
        struct json_object *event, *links;
        int fd, fds[2];
        pid_t pid;
        char byte;

        enter_namespace();
        add_device("d0");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, ",\"name\":\"d0\"");
        ck_assert_int_eq(pipe2(fds, O_CLOEXEC), 0);
        pid = fork();
        assert_system(pid >= 0, "fork");
        if (pid == 0) {
                if (unshare(CLONE_NEWNET) < 0)
                        _exit(1);
                (void)!write(fds[1], "x", 1);
                for (;;)
                        (void)pause();
        }
        ck_assert_int_eq(read(fds[0], &byte, 1), 1);
        ip("link set d0 netns %d", (int)pid);
        do
                event = next_event(fd);
        while (!has_note(event, "linkinv") && (json_object_put(event), true));
        ck_assert_str_eq(text_at(event, "/flags/0"), "eof");
        /* The other end, which is still here, knows the namespace by the same number. */
        links = ip_json("link show d0p");
        ck_assert_int_eq(number_at(event, "/link/newNamespace"), number_at(links, "/0/link_netnsid"));
        ck_assert_int_eq(number_at(event, "/link/newIndex"), number_at(links, "/0/link_index"));
        json_object_put(links);
        json_object_put(event);
        ck_assert_int_eq(kill(pid, SIGKILL), 0);
        ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
        (void)close(fds[0]);
        (void)close(fds[1]);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- none is missed ---------------------------------------------------------------------------------- */

struct turns {
        int64_t ups, downs, flaps, events;
};

/* How often the carrier turned, by an event: once where it says which way alone, not at all where it says both or
 * neither; `flaps` is what there was besides. */
static void count_turns(struct json_object *event, struct turns *t) {
        bool up = has_note(event, "linkup"), down = has_note(event, "linkdown");

        t->events++;
        t->ups += up && !down;
        t->downs += down && !up;
        t->flaps += json_object_get_int64(json_at(event, "/link/flaps"));
}

static void expect_turns(int fd, const char *device, int64_t changes_before) {
        int64_t changes = carrier_changes(device) - changes_before;
        struct turns t = { 0 };
        int64_t deadline = now_msec() + HARNESS_REPLY_MSEC;

        ck_assert_int_gt(changes, 0);
        while (t.ups + t.downs + t.flaps < changes && now_msec() < deadline) {
                struct json_object *event, *reply;

                reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":500}");
                for (size_t i = 0; i < json_object_array_length(json_at(reply, "/parameters/events")); i++) {
                        event = json_object_array_get_idx(json_at(reply, "/parameters/events"), i);
                        if (strcmp(text_at(event, "/link/name"), device) == 0)
                                count_turns(event, &t);
                }
                json_object_put(reply);
        }
        ck_assert_msg(t.ups + t.downs + t.flaps == changes,
                      "%lld ups, %lld downs, %lld flaps in %lld events, but the carrier changed %lld times",
                      (long long)t.ups, (long long)t.downs, (long long)t.flaps, (long long)t.events, (long long)changes);
}

START_TEST(test_flaps) {
        struct daemon *daemon;
        int64_t before;
        FILE *batch;
        int fd;

        enter_namespace();
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        before = carrier_changes("v0");
        watch(fd, ",\"name\":\"v0\",\"notes\":[\"linkup\",\"linkdown\"]");
        batch = ip_batch();
        for (int i = 0; i < 200; i++)
                (void)fprintf(batch, "link set v1 down\nlink set v1 up\n");
        ip_batch_end(batch);
        expect_turns(fd, "v0", before);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The same with a client that takes nothing until so much came that its events are merged. */
START_TEST(test_flaps_merged) {
        struct daemon *daemon;
        struct json_object *status;
        int64_t before, merged = 0;
        int fd, other;

        enter_namespace();
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        for (int i = 0; i < 120; i++) /* makes events large */
                ip("addr add 2001:db8:1111:2222:3333:4444:5555:%x/128 dev v0 nodad", 0x1000 + i);
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        other = client_connect(daemon->socket);
        before = carrier_changes("v0");
        watch(fd, ",\"name\":\"v0\"");
        for (int round = 0; merged < 2000; round++) {
                FILE *batch = ip_batch();

                ck_assert_int_lt(round, 60);
                for (int i = 0; i < 1000; i++)
                        (void)fprintf(batch, "link set v0 mtu %d\n", 1300 + i % 2);
                (void)fprintf(batch, "link set v1 down\nlink set v1 up\nlink set v1 down\nlink set v1 up\n");
                ip_batch_end(batch);
                status = client_call(other, "org.kevd.manager.GetStatus", NULL);
                merged = json_object_get_int64(json_at(status, "/parameters/counters/merged"));
                json_object_put(status);
        }
        expect_turns(fd, "v0", before);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* The same while the kernel drops the messages: the counters tell, once the state was read again. While that is
 * done it goes on: what was sent before the state was read, and is looked at behind it, tells nothing twice. */
START_TEST(test_flaps_lost) {
        struct daemon *daemon;
        struct json_object *status;
        int64_t before;
        FILE *batch;
        int fd, other;

        enter_namespace();
        ip("link add v0 type veth peer name v1");
        ip("link set v0 up");
        ip("link set v1 up");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        other = client_connect(daemon->socket);
        before = carrier_changes("v0");
        watch(fd, ",\"name\":\"v0\",\"notes\":[\"linkup\",\"linkdown\"]");
        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        batch = ip_batch();
        for (int i = 0; i < 20; i++)
                (void)fprintf(batch, "link set v1 down\nlink set v1 up\n");
        for (int i = 0; i < 20000; i++) /* the socket's buffer is full long before the end */
                (void)fprintf(batch, "link set v1 mtu %d\n", 1300 + i % 2);
        for (int i = 0; i < 200; i++)
                (void)fprintf(batch, "link set v1 down\nlink set v1 up\n");
        (void)fprintf(batch, "link set v1 down\n");
        ip_batch_end(batch);
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        batch = ip_batch();
        for (int i = 0; i < 10000; i++)
                (void)fprintf(batch, "link set v1 up\nlink set v1 down\n");
        ip_batch_end(batch);
        expect_turns(fd, "v0", before);
        status = client_call(other, "org.kevd.manager.GetStatus", NULL);
        ck_assert_msg(json_object_get_int64(json_at(status, "/parameters/counters/kernelOverflows")) > 0,
                      "there was no loss: the test is to be made larger");
        json_object_put(status);
        ck_assert_int_gt(daemon_expect_repaired(daemon), 0);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

/* ---- more than is read in one go ------------------------------------------------------------------------- */

/* A child that gives v0 one MTU after the other, until it is killed. */
static pid_t start_changes(void) {
        pid_t pid = fork();
        struct ifreq request = { .ifr_name = "v0" };
        int fd;

        ck_assert_int_ge(pid, 0);
        if (pid > 0)
                return pid;
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        for (unsigned i = 0; fd >= 0; i++) {
                request.ifr_mtu = 1000 + (int)(i & 1);
                if (ioctl(fd, SIOCSIFMTU, &request) < 0)
                        break;
        }
        _exit(1);
}

/* Whose devices change faster than that can be told is not all that the daemon attends to. */
START_TEST(test_endless) {
        enum { WATCHES = 2000, CALLS = 20 };
        struct daemon *daemon;
        int fd, other;
        pid_t changes;

        enter_namespace();
        add_device("v0");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        other = client_connect(daemon->socket);
        for (int i = 0; i < WATCHES; i++)
                client_change(fd, "{\"add\":[{\"id\":%d,\"filter\":\"netdev\"}]}", i);
        changes = start_changes();
        json_object_put(next_event(fd));
        for (int i = 0; i < CALLS; i++)
                json_object_put(client_call(other, "org.kevd.events.GetLimits", NULL));
        ck_assert_int_eq(waitpid(changes, NULL, WNOHANG), 0);
        end_process(changes);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

static void stop_daemon(const struct daemon *daemon) {
        int status;

        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        ck_assert_int_eq(waitpid(daemon->pid, &status, WUNTRACED), daemon->pid);
        ck_assert(WIFSTOPPED(status));
}

/* A Wait's answer has all that had happened, though it takes several turns to read that. */
START_TEST(test_wait_for_many) {
        struct daemon *daemon;
        struct json_object *reply;
        FILE *batch;
        int fd;

        enter_namespace();
        add_device("d0");
        add_device("v0");
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        watch(fd, ",\"name\":\"d0\"");
        stop_daemon(daemon);
        batch = ip_batch();
        for (int i = 0; i < 2000; i++)
                (void)fprintf(batch, "link set v0 mtu %d\n", 1300 + i % 2);
        ip_batch_end(batch);
        ip("link set d0 mtu 1001");
        client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":0}}");
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        reply = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_ptr_nonnull(reply);
        ck_assert_msg(json_at(reply, "/parameters/events/0") && number_at(reply, "/parameters/events/0/link/mtu") == 1001,
                      "%s", json_object_to_json_string(reply));
        json_object_put(reply);
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* ---- after a loss ---------------------------------------------------------------------------------------- */

START_TEST(test_loss) {
        enum { DEVICES = 600 };
        struct daemon *daemon;
        struct json_object *status;
        struct links links;
        int fd, other;
        FILE *batch;
        int64_t overflows, deadline;
        const char *difference = "";

        enter_namespace();
        batch = ip_batch();
        for (int i = 0; i < 50; i++)
                (void)fprintf(batch, "link add old%d type veth peer name old%dp\n", i, i);
        ip_batch_end(batch);
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        other = client_connect(daemon->socket);

        watch(fd, "");
        links = links_new();
        ck_assert_str_eq(links_compare(&links), "");

        ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
        batch = ip_batch();
        for (int i = 0; i < DEVICES; i++) {
                (void)fprintf(batch, "link add n%d type veth peer name n%dp\nlink set n%d mtu %d\nlink set n%d up\n", i, i, i,
                              1000 + i % 500, i);
                for (int j = 0; i == DEVICES / 2 && j < 10000; j++) /* from about here on all is lost */
                        (void)fprintf(batch, "link set n0 mtu %d\n", 1000 + j % 2);
        }
        for (int i = 0; i < DEVICES; i += 3)
                (void)fprintf(batch, "link del n%d\n", i);
        for (int i = 0; i < 50; i++)
                switch (i % 5) {
                case 0:
                        (void)fprintf(batch, "link set old%d name new%d\n", i, i);
                        break;
                case 1:
                        (void)fprintf(batch, "link del old%d\n", i);
                        break;
                case 2:
                        (void)fprintf(batch, "link set old%d mtu 999\n", i);
                        break;
                case 3: /* another device under an old name */
                        (void)fprintf(batch, "link del old%d\nlink add old%d type veth peer name old%dp\n", i, i, i);
                        break;
                default:
                        break;
                }
        ip_batch_end(batch);
        ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);

        /* The Wait goes on until the re-reading is done: what it answers is all. */
        deadline = now_msec() + 20000;
        do {
                struct json_object *reply = client_call(fd, "org.kevd.events.Wait", "{\"timeoutMsec\":0}");
                struct json_object *events = json_at(reply, "/parameters/events");
                size_t n = json_object_array_length(events);

                for (size_t i = 0; i < n; i++)
                        links_apply(&links, json_object_array_get_idx(events, i));
                json_object_put(reply);
                if (n == 0)
                        break;
        } while (now_msec() < deadline);
        difference = links_compare(&links);
        status = client_call(other, "org.kevd.manager.GetStatus", NULL);
        overflows = json_object_get_int64(json_at(status, "/parameters/counters/kernelOverflows"));
        json_object_put(status);
        ck_assert_msg(!difference[0], "%s (%lld overflows)", difference, (long long)overflows);
        ck_assert_msg(overflows > 0, "there was no loss: the test is to be made larger");
        ck_assert_int_eq(daemon_expect_repaired(daemon), overflows);

        /* And it goes on from there. */
        ip("link set old4 mtu 888");
        {
                struct json_object *event = next_event(fd);
                char line[256];

                describe(event, line, sizeof(line));
                ck_assert_str_eq(line, "old4 mtu");
                json_object_put(event);
        }
        links_free(&links);
        (void)close(fd);
        (void)close(other);
        daemon_stop(daemon);
}
END_TEST

enum { DUMP_MSEC = 1000, MISSED_MAX = 20 };

/* Whether a socket in this namespace has a dump under way: netlink(7)'s table has it, and nobody else dumps here. */
static bool is_dumping(void) {
        FILE *table = fopen("/proc/net/netlink", "re");
        char *line = NULL;
        size_t capacity = 0;
        bool found = false;

        assert_system(table, "/proc/net/netlink");
        while (getline(&line, &capacity, table) >= 0) {
                unsigned protocol, running;

                if (sscanf(line, "%*s %u %*u %*x %*u %*u %u", &protocol, &running) == 2)
                        found |= protocol == 0 && running != 0;
        }
        free(line);
        (void)fclose(table);
        return found;
}

/* Stopped in the middle of reading the state again. False: it was quicker, and goes on. */
static bool stop_in_dump(const struct daemon *daemon) {
        int64_t deadline = now_msec() + DUMP_MSEC;

        while (now_msec() < deadline) {
                stop_daemon(daemon);
                if (is_dumping())
                        return true;
                ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
        }
        return false;
}

/* What happens while the state is read, behind the reader's back, is in the answer all the same. */
START_TEST(test_wait_in_dump) {
        struct daemon *daemon;
        unsigned n_missed = 0;
        FILE *batch;
        int fd;

        enter_namespace();
        add_device("d0");
        batch = ip_batch();
        for (int i = 0; i < 500; i++)
                (void)fprintf(batch, "link add n%d type veth peer name n%dp\n", i, i);
        ip_batch_end(batch);
        daemon = daemon_start("--netdev-buffer=4096");
        fd = client_connect(daemon->socket);
        watch(fd, ",\"name\":\"d0\"");
        for (int i = 0; i < 10; i++) {
                struct json_object *reply;

                stop_daemon(daemon);
                batch = ip_batch();
                for (int j = 0; j < 100; j++)
                        (void)fprintf(batch, "link set n0 mtu %d\n", 1300 + j % 2);
                ip_batch_end(batch);
                ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
                if (!stop_in_dump(daemon)) {
                        ck_assert_msg(++n_missed < MISSED_MAX, "no dump was to be seen");
                        i--;
                        continue;
                }
                ip("link set d0 mtu %d", 1000 + i);
                client_send_message(fd, "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":0}}");
                ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
                reply = client_receive(fd, HARNESS_REPLY_MSEC);
                ck_assert_ptr_nonnull(reply);
                ck_assert_msg(json_at(reply, "/parameters/events/0") &&
                                      number_at(reply, "/parameters/events/0/link/mtu") == 1000 + i,
                              "round %d: %s", i, json_object_to_json_string(reply));
                json_object_put(reply);
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

/* The last watch gone, the daemon lets go of the kernel's; a new one starts again. */
START_TEST(test_again) {
        struct daemon *daemon;
        int fd;

        enter_namespace();
        daemon = daemon_start(NULL);
        fd = client_connect(daemon->socket);
        for (int i = 0; i < 20; i++) {
                struct json_object *reply;

                watch(fd, "");
                add_device("d0");
                ip("link del d0");
                reply = next_event(fd);
                ck_assert(has_note(reply, "add"));
                json_object_put(reply);
                reply = client_call(fd, "org.kevd.events.Change", "{\"remove\":[1]}");
                ck_assert_ptr_null(json_at(reply, "/parameters/refused/0"));
                json_object_put(reply);
                ck_assert_ptr_null(due_event(fd));
        }
        (void)close(fd);
        daemon_stop(daemon);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("netdev");
        TCase *c;

        c = harness_case(suite, "events");
        tcase_add_test(c, test_veth);
        tcase_add_test(c, test_sequence);
        tcase_add_test(c, test_fields);
        tcase_add_test(c, test_oper_state);
        tcase_add_test(c, test_addresses);
        tcase_add_test(c, test_route);
        tcase_add_test(c, test_barrier);
        tcase_add_test(c, test_by_name);
        tcase_add_test(c, test_gone_unasked);
        tcase_add_test(c, test_moved_away);
        tcase_add_test(c, test_again);

        c = harness_case(suite, "many");
        tcase_add_test(c, test_endless);
        tcase_add_test(c, test_wait_for_many);

        c = harness_case(suite, "losses");
        tcase_set_timeout(c, 120);
        tcase_add_test(c, test_flaps);
        tcase_add_test(c, test_flaps_merged);
        tcase_add_test(c, test_flaps_lost);
        tcase_add_test(c, test_loss);
        tcase_add_test(c, test_wait_in_dump);
        return harness_main(argc, argv);
}
