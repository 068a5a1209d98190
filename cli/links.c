/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "links.h"

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define LOWER_UP (1u << 16) /* IFF_LOWER_UP; its header and <net/if.h> don't go together */

static bool read_attribute(const char *name, const char *attribute, char *ret, size_t size) {
        char path[sizeof("/sys/class/net/") + IFNAMSIZ + 16];
        FILE *file;
        bool found;

        (void)snprintf(path, sizeof(path), "/sys/class/net/%s/%s", name, attribute);
        file = fopen(path, "re");
        if (!file)
                return false;
        found = fgets(ret, (int)size, file) != NULL;
        (void)fclose(file);
        if (found)
                ret[strcspn(ret, "\n")] = 0;
        return found;
}

/* Where /sys is another namespace's, what it has of that name is another device. */
static void read_sysfs(struct link *link) {
        char text[16];

        link->mtu = -1;
        (void)snprintf(link->oper_state, sizeof(link->oper_state), link->up ? "unknown" : "down");
        if (!read_attribute(link->name, "ifindex", text, sizeof(text)) || strtol(text, NULL, 10) != link->index)
                return;
        if (read_attribute(link->name, "mtu", text, sizeof(text)))
                link->mtu = strtoll(text, NULL, 10);
        if (link->up && read_attribute(link->name, "operstate", text, sizeof(text)) && text[0])
                (void)snprintf(link->oper_state, sizeof(link->oper_state), "%s", text);
}

bool links_next(const struct ifaddrs **at, struct link *ret_link) {
        const struct ifaddrs *i = *at;
        const struct sockaddr_ll *ll;

        while (i && (!i->ifa_addr || i->ifa_addr->sa_family != AF_PACKET))
                i = i->ifa_next;
        if (!i)
                return false;
        ll = (const struct sockaddr_ll *)(const void *)i->ifa_addr;
        *ret_link = (struct link){
                .index = ll->sll_ifindex,
                .name = i->ifa_name,
                .up = i->ifa_flags & IFF_UP,
                .carrier = i->ifa_flags & LOWER_UP,
        };
        for (size_t n = 0; n < ll->sll_halen && n * 3 + 3 <= LINK_ADDRESS_MAX; n++)
                (void)snprintf(ret_link->address + n * 3 - (n > 0), 4, n > 0 ? ":%02x" : "%02x", ll->sll_addr[n]);
        read_sysfs(ret_link);
        *at = i->ifa_next;
        return true;
}

static unsigned prefix_length(const struct sockaddr *mask, const unsigned char *bytes, size_t size) {
        unsigned length = 0;

        for (size_t i = 0; mask && i < size; i++)
                length += (unsigned)__builtin_popcount(bytes[i]);
        return length;
}

/* An IPv4 address may have a label, "eth0:1", for its device's name. */
static bool is_of(const struct ifaddrs *i, const char *name) {
        size_t size = strlen(name);

        return strncmp(i->ifa_name, name, size) == 0 && (i->ifa_name[size] == 0 || i->ifa_name[size] == ':');
}

static const void *bytes_of(const struct sockaddr *address) {
        const void *a = address;

        return !a ? NULL : address->sa_family == AF_INET ? (const void *)&((const struct sockaddr_in *)a)->sin_addr
                                                         : (const void *)&((const struct sockaddr_in6 *)a)->sin6_addr;
}

bool links_next_ip_address(const struct ifaddrs **at, const char *name, char ret_text[static LINK_IP_ADDRESS_MAX]) {
        const struct ifaddrs *i = *at;
        sa_family_t family;

        while (i && (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6) ||
                     !is_of(i, name)))
                i = i->ifa_next;
        if (!i)
                return false;
        family = i->ifa_addr->sa_family;
        if (!inet_ntop(family, bytes_of(i->ifa_addr), ret_text, INET6_ADDRSTRLEN))
                return false;
        (void)snprintf(ret_text + strlen(ret_text), 5, "/%u",
                       prefix_length(i->ifa_netmask, bytes_of(i->ifa_netmask), family == AF_INET ? 4 : 16));
        *at = i->ifa_next;
        return true;
}
