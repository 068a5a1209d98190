/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The network devices of kev's own network namespace as they are now, out of a
 * list of getifaddrs(3) and, for what that lacks, of /sys/class/net.
 */

#include <ifaddrs.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

enum {
        LINK_ADDRESS_MAX = 32 * 3,              /* of a hardware address as text, with its NUL */
        LINK_IP_ADDRESS_MAX = INET6_ADDRSTRLEN + 4, /* "/128" */
};

/* The interface's type Link. */
struct link {
        int index;
        const char *name; /* the list's */
        bool up, carrier; /* of a device that is down the carrier isn't known, and false */
        char oper_state[16];
        int64_t mtu;                    /* -1: not known */
        char address[LINK_ADDRESS_MAX]; /* empty: it has none */
};

/* The next device from `*at` on, which moves behind it. False: there is none. */
bool links_next(const struct ifaddrs **at, struct link *ret_link);
/* The same of a device's IP addresses, each with its prefix length. */
bool links_next_ip_address(const struct ifaddrs **at, const char *name, char ret_text[static LINK_IP_ADDRESS_MAX]);
