/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The default routes of devices, in a network namespace of each test's own: after each command the gateways that
 * events have, and those that ip(8) shows, are the same, and where they have changed there was the note route. Not all
 * that the kernel does with routes has a message of its own. A way that is dead, since its device is down, is none.
 */

#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "links.h"
#include "macro.h"

/* /via: where it is of another family than the route. */
static void add_way(struct json_object *gateways, struct json_object *way, const char *device, const char *gateway) {
        if (json_at(way, "/gateway"))
                gateway = text_at(way, "/gateway");
        else if (json_at(way, "/via"))
                gateway = text_at(way, "/via/host");
        if (strcmp(text_at(way, "/dev"), device) == 0 && !has_flag(way, "dead"))
                json_object_array_add(gateways, json_object_new_string(gateway));
}

/* Of the default routes through the device, as ip(8) has them. */
static struct json_object *gateways_now(const char *device) {
        static const char *const families[][2] = {
                { "-4 route show default", "0.0.0.0" }, { "-6 route show default", "::" },
        };
        struct json_object *gateways = json_object_new_array();

        for (size_t f = 0; f < ARRAY_SIZE(families); f++) {
                struct json_object *routes = ip_json(families[f][0]);

                for (size_t i = 0; i < json_object_array_length(routes); i++) {
                        struct json_object *route = json_object_array_get_idx(routes, i);
                        struct json_object *ways = json_at(route, "/nexthops");

                        if (json_at(route, "/type") && strcmp(text_at(route, "/type"), "unicast") != 0)
                                continue;
                        if (!ways)
                                add_way(gateways, route, device, families[f][1]);
                        for (size_t j = 0; ways && j < json_object_array_length(ways); j++)
                                add_way(gateways, json_object_array_get_idx(ways, j), device, families[f][1]);
                }
                json_object_put(routes);
        }
        return gateways;
}

static const char *const route_devices[] = { "d0", "d1" };

struct router {
        int fd;
        struct json_object *gateways[ARRAY_SIZE(route_devices)]; /* as events have them */
        bool told[ARRAY_SIZE(route_devices)];                    /* the note route came */
};

static void take_routes(struct router *r) {
        struct json_object *event;

        while ((event = due_event(r->fd))) {
                for (size_t i = 0; i < ARRAY_SIZE(route_devices); i++) {
                        struct json_object *gateways = json_at(event, "/link/gateways");

                        if (strcmp(text_at(event, "/link/name"), route_devices[i]) != 0)
                                continue;
                        json_object_put(r->gateways[i]);
                        r->gateways[i] = gateways ? json_object_get(gateways) : json_object_new_array();
                        r->told[i] |= has_note(event, "route");
                }
                json_object_put(event);
        }
}

static void expect_same(const struct router *r, const char *after) {
        for (size_t i = 0; i < ARRAY_SIZE(route_devices); i++) {
                struct json_object *now = gateways_now(route_devices[i]);

                ck_assert_msg(same_texts(now, r->gateways[i]), "after %s: %s: told %s, but there is %s", after,
                              route_devices[i], json_object_to_json_string(r->gateways[i]),
                              json_object_to_json_string(now));
                json_object_put(now);
        }
}

/* After the command the events agree with ip(8), and there was a note where something has changed. */
static void try_route(struct router *r, const char *command) {
        struct json_object *before[ARRAY_SIZE(route_devices)];

        for (size_t i = 0; i < ARRAY_SIZE(route_devices); i++) {
                before[i] = gateways_now(route_devices[i]);
                r->told[i] = false;
        }
        ip("%s", command);
        settle_links();
        take_routes(r);
        expect_same(r, command);
        for (size_t i = 0; i < ARRAY_SIZE(route_devices); i++) {
                ck_assert_msg(r->told[i] || same_texts(before[i], r->gateways[i]), "after %s: %s: no note route",
                              command, route_devices[i]);
                json_object_put(before[i]);
        }
}

/* ---- what is done ------------------------------------------------------------------------------------- */

static const struct {
        const char *name;
        const char *commands[12];
} routes[] = {
        { "add and delete", {
                "route add default via 192.0.2.254",
                "route del default",
                "-6 route add default via 2001:db8::fe",
                "-6 route del default",
        } },
        { "without a gateway", {
                "route add default dev d0",
                "-6 route add default dev d0",
                "route del default dev d0",
                "-6 route del default dev d0",
        } },
        { "replace", {
                "route add default via 192.0.2.254",
                "route replace default via 192.0.2.253",
                "route replace default via 198.51.100.254",
                "route change default via 192.0.2.254",
                "route replace default dev d1",
                "route del default",
        } },
        { "replace IPv6", {
                "-6 route add default via 2001:db8::fe",
                "-6 route replace default via 2001:db8::fd",
                "-6 route replace default via 2001:db8:1::fe",
                "-6 route change default via 2001:db8::fe",
                "-6 route del default",
        } },
        { "metrics", {
                "route add default via 192.0.2.254 metric 10",
                "route add default via 192.0.2.254 metric 20",
                "route add default via 198.51.100.254 metric 30",
                "route replace default via 198.51.100.253 metric 20",
                "route del default metric 10",
                "route del default metric 30",
                "route del default metric 20",
        } },
        { "metrics IPv6", {
                "-6 route add default via 2001:db8::fe metric 10",
                "-6 route add default via 2001:db8::fe metric 20",
                "-6 route add default via 2001:db8:1::fe metric 30",
                "-6 route replace default via 2001:db8:1::fd metric 20",
                "-6 route del default metric 10",
                "-6 route del default metric 30",
                "-6 route del default metric 20",
        } },
        { "several ways", {
                "route add default nexthop via 192.0.2.254 nexthop via 198.51.100.254 nexthop via 192.0.2.253",
                "route replace default nexthop via 192.0.2.254 nexthop via 198.51.100.253",
                "route replace default via 192.0.2.254",
                "route replace default nexthop via 198.51.100.253 nexthop via 198.51.100.254",
                "route del default",
        } },
        { "several ways IPv6", {
                "-6 route add default nexthop via 2001:db8::fe nexthop via 2001:db8:1::fe",
                "-6 route append default via 2001:db8::fd",
                "-6 route del default via 2001:db8::fe",
                "-6 route replace default nexthop via 2001:db8::fc nexthop via 2001:db8:1::fc",
                "-6 route replace default via 2001:db8::fe",
                "-6 route del default",
        } },
        { "IPv4 by way of IPv6", {
                "-4 route add default via inet6 2001:db8::fe dev d0",
                "-4 route add default metric 7 nexthop via inet6 2001:db8::fd dev d0 nexthop via 198.51.100.254",
                "route del default metric 7",
                "route del default",
        } },
        { "another table", {
                "route add default via 192.0.2.254 table 100",
                "route add default via 192.0.2.253",
                "route del default table 100",
                "route del default",
        } },
        { "not to be reached", {
                "route add default via 192.0.2.254 metric 5",
                "route add unreachable default metric 6",
                "-6 route add unreachable default metric 6",
                "route del default metric 5",
        } },
        { "down and up", {
                "route add default via 192.0.2.254",
                "route add default via 198.51.100.254 metric 7",
                "-6 route add default via 2001:db8::fe",
                "link set d0 down",
                "link set d0 up",
                "route add default via 192.0.2.254",
                "addr add 2001:db8::1/64 dev d0 nodad",
                "-6 route add default via 2001:db8::fe",
                "link set d1 down",
        } },
        { "without a carrier", {
                "route add default via 192.0.2.254",
                "-6 route add default via 2001:db8::fe",
                "link set d0p down",
                "route del default",
                "link set d0p up",
        } },
        { "renamed twice", { /* it is the same device */
                "route add default via 192.0.2.254",
                "link set d1 down",
                "link set d1 name e1",
                "link set e1 name d1",
                "link set d1 up",
                "route add default via 198.51.100.254 metric 9",
        } },
        { "last address deleted", { /* the kernel drops all of the device's then */
                "route add default via 192.0.2.254",
                "addr del 192.0.2.1/24 dev d0",
        } },
        { "several ways, down and up", { /* one is dead for a while */
                "route add default nexthop via 192.0.2.254 nexthop via 198.51.100.254",
                "link set d0 down",
                "link set d0 up",
                "link set d0 down",
                "route del default",
        } },
        { "several ways IPv6, down and up", {
                "-6 route add default nexthop via 2001:db8::fe nexthop via 2001:db8:1::fe",
                "link set d0 down",
                "link set d0 up",
                "-6 route del default",
        } },
        { "several ways, one device deleted", { /* the whole route goes */
                "route add default nexthop via 192.0.2.254 nexthop via 198.51.100.254",
                "link del d1",
        } },
        { "one of two replaced", { /* the first */
                "route add default via 192.0.2.254",
                "route append default via 192.0.2.253",
                "route append default via 198.51.100.254",
                "route replace default via 192.0.2.252",
                "route del default via 192.0.2.253",
                "route del default via 198.51.100.254",
                "route del default",
        } },
        { "one of two alike deleted", {
                "route add default via 192.0.2.254",
                "route add default via 192.0.2.254 tos 0x10",
                "route del default tos 0x10",
        } },
        { "replaced by none", {
                "route add default via 192.0.2.254",
                "route replace unreachable default",
                "route replace default via 192.0.2.253",
                "route replace blackhole default",
        } },
        { "replaced by none IPv6", {
                "-6 route add default via 2001:db8::fe",
                "-6 route replace unreachable default",
        } },
        { "next hop deleted", { /* ip-nexthop(8) */
                "nexthop add id 1 via 192.0.2.254 dev d0",
                "route add default nhid 1",
                "nexthop del id 1",
        } },
        { "deleted", {
                "route add default via 192.0.2.254",
                "-6 route add default via 2001:db8::fe",
                "route add default via 198.51.100.254 metric 7",
                "link del d1p",
        } },
};

static void add_end(int i) {
        static const char *const addresses[][2] = {
                { "192.0.2.1/24", "2001:db8::1/64" }, { "198.51.100.1/24", "2001:db8:1::1/64" },
        };

        ip("link add d%d type veth peer name d%dp", i, i);
        ip("link set d%d up", i);
        ip("link set d%dp up", i);
        ip("addr add %s dev d%d", addresses[i][0], i);
        ip("addr add %s dev d%d nodad", addresses[i][1], i);
}

static void begin_watching(struct daemon **daemon, struct router *r, const char *option) {
        *daemon = daemon_start(option);
        r->fd = client_connect((*daemon)->socket);
        watch(r->fd, "");
        for (size_t i = 0; i < ARRAY_SIZE(route_devices); i++)
                r->gateways[i] = json_object_new_array();
}

static void begin_routes(struct daemon **daemon, struct router *r, const char *option) {
        enter_namespace();
        add_end(0);
        add_end(1);
        begin_watching(daemon, r, option);
}

static void end_routes(struct daemon *daemon, struct router *r) {
        for (size_t i = 0; i < ARRAY_SIZE(route_devices); i++)
                json_object_put(r->gateways[i]);
        (void)close(r->fd);
        daemon_stop(daemon);
}

START_TEST(test_routes) {
        struct daemon *daemon;
        struct router router;

        harness_label(routes[_i].name);
        begin_routes(&daemon, &router, NULL);
        for (size_t i = 0; i < ARRAY_SIZE(routes[_i].commands) && routes[_i].commands[i]; i++)
                try_route(&router, routes[_i].commands[i]);
        end_routes(daemon, &router);
}
END_TEST

/* The device d0, which has a carrier only once somebody takes it. */
static int open_tap(void) {
        int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

        if (tap < 0)
                harness_skip("/dev/net/tun can't be opened");
        ip("tuntap add d0 mode tap");
        ip("link set d0 up");
        ip("addr add 192.0.2.1/24 dev d0");
        ip("addr add 2001:db8::1/64 dev d0 nodad");
        return tap;
}

static void take_tap(int tap) {
        struct ifreq request = { .ifr_name = "d0", .ifr_flags = IFF_TAP | IFF_NO_PI };

        ck_assert_int_eq(ioctl(tap, TUNSETIFF, &request), 0);
        settle_links();
}

/* With the carrier the kernel revives ways of IPv6, and says of the link alone that it has come. */
START_TEST(test_carrier_comes_later) {
        struct daemon *daemon;
        struct router router;
        int tap;

        enter_namespace();
        tap = open_tap();
        add_end(1);
        begin_watching(&daemon, &router, NULL);
        try_route(&router, "-6 route add default nexthop via 2001:db8::fe nexthop via 2001:db8:1::fe");
        try_route(&router, "link set d0 down");
        try_route(&router, "link set d0 up");
        ck_assert_int_eq(json_object_array_length(router.gateways[0]), 0);
        take_tap(tap);
        take_routes(&router);
        ck_assert_int_eq(json_object_array_length(router.gateways[0]), 1);
        expect_same(&router, "the carrier has come");
        (void)close(tap);
        end_routes(daemon, &router);
}
END_TEST

/* Where that is set, a way without a carrier is dead, and lives again with it: it is the only one there is. */
START_TEST(test_only_way_revived) {
        struct daemon *daemon;
        struct router router;
        FILE *setting;
        int tap;

        enter_namespace();
        setting = fopen("/proc/sys/net/ipv4/conf/all/ignore_routes_with_linkdown", "we");
        ck_assert(setting && fputs("1", setting) > 0 && fclose(setting) == 0);
        tap = open_tap();
        begin_watching(&daemon, &router, NULL);
        try_route(&router, "route add default via 192.0.2.254");
        for (int i = 0; i < 3; i++) {
                take_tap(tap);
                take_routes(&router);
                ck_assert_int_eq(json_object_array_length(router.gateways[0]), 1);
                expect_same(&router, "the carrier has come");
                (void)close(tap);
                settle_links();
                take_routes(&router);
                ck_assert_int_eq(json_object_array_length(router.gateways[0]), 0);
                expect_same(&router, "the carrier has gone");
                tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
                ck_assert_int_ge(tap, 0);
        }
        (void)close(tap);
        end_routes(daemon, &router);
}
END_TEST

/* The messages of all of that are lost: what is there in the end is told all the same. */
START_TEST(test_lost) {
        static const char *const lost[][3] = {
                { "route add default via 192.0.2.254", "-6 route add default via 2001:db8::fe", "" },
                { "route replace default via 192.0.2.253", "-6 route replace default via 2001:db8::fd", "" },
                { "route add default via 198.51.100.254 metric 5", "route del default via 192.0.2.253", "" },
                { "-6 route del default", "-6 route add default via 2001:db8:1::fe", "" },
                { "route add default via 192.0.2.254 metric 7", "link set d0 down", "link set d0 up" },
                { "link set d1 down", "", "" },
                { "link set d1 up", "route add default via 198.51.100.253", "" },
                { "link del d1", "", "" },
        };
        struct daemon *daemon;
        struct router router;
        int64_t before = 0, now;

        begin_routes(&daemon, &router, "--netdev-buffer=4096");
        for (size_t i = 0; i < ARRAY_SIZE(lost); i++) {
                FILE *batch = ip_batch();
                int status;

                ck_assert_int_eq(kill(daemon->pid, SIGSTOP), 0);
                ck_assert_int_eq(waitpid(daemon->pid, &status, WUNTRACED), daemon->pid);
                for (int j = 0; j < 50; j++) /* the socket's buffer is full */
                        (void)fprintf(batch, "link set d0 mtu %d\n", 1300 + j % 2);
                ip_batch_end(batch);
                for (size_t j = 0; j < ARRAY_SIZE(lost[i]); j++)
                        if (lost[i][j][0])
                                ip("%s", lost[i][j]);
                settle_links();
                ck_assert_int_eq(kill(daemon->pid, SIGCONT), 0);
                take_routes(&router);
                now = status_number(daemon, "/parameters/counters/kernelOverflows");
                ck_assert_msg(now > before, "there was no loss: the test is to be made larger");
                before = now;
                expect_same(&router, lost[i][0]);
        }
        end_routes(daemon, &router);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("netroute");
        TCase *c = harness_case(suite, "routes");

        tcase_add_loop_test(c, test_routes, 0, ARRAY_SIZE(routes));
        tcase_add_test(c, test_carrier_comes_later);
        tcase_add_test(c, test_only_way_revived);
        tcase_add_test(c, test_lost);
        return harness_main(argc, argv);
}
