/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The devices of a network namespace: what messages say of them, and telling what has changed. */

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "rtnetlink.h"

/* ---- telling -------------------------------------------------------------------- */

static const char *oper_state_name(uint8_t state) {
        static const char *const names[] = {
                "unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up",
        };

        return state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

void device_tell(struct network *net, const struct device *d, const struct change *change) {
        const char **addresses _cleanup_(freep) = NULL, **gateways _cleanup_(freep) = NULL;
        struct event_link link = {
                .index = d->index,
                .name = d->name,
                .old_name = change->old_name,
                .oper_state = oper_state_name(d->oper_state),
                .address = d->hardware[0] ? d->hardware : NULL,
                .up = d->flags & IFF_UP,
                .carrier = d->carrier,
                .mtu = d->mtu,
                .flaps = change->flaps ? change->flaps : ABSENT,
                .new_namespace = change->new_namespace,
                .new_index = change->new_index,
        };
        struct report report = REPORT_INIT;
        size_t n = 0;

        if (list_empty(&d->subscriptions) && list_empty(&net->everybody))
                return;
        addresses = calloc(d->n_addresses + 1, sizeof(char *));
        if (addresses) { /* without memory the event goes out without them */
                list_for_each(entry, &d->addresses)
                        addresses[n++] = list_entry(entry, struct address, link)->text;
                link.addresses = addresses;
        }
        gateways = routes_gateways(net, d->index);
        link.gateways = gateways;
        report.notes = change->notes;
        report.flags = change->flags;
        report.data = d->carrier;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        report.link = &link;
        list_for_each(entry, &d->subscriptions)
                source_report(&net->all->source, list_entry(entry, struct subscription, link), &report);
        report.flags = 0; /* a watch on all devices goes on */
        report_done(&report);
        list_for_each(entry, &net->everybody)
                source_report(&net->all->source, list_entry(entry, struct subscription, link), &report);
        report_done(&report);
}

/* ---- state ---------------------------------------------------------------------- */

struct device *device_find(const struct network *net, int index) {
        struct hash_node *n = hash_first(&net->devices, hash_u64((uint64_t)index));

        while (n && container_of(n, struct device, node)->index != index)
                n = hash_next(n);
        return n ? container_of(n, struct device, node) : NULL;
}

struct device *device_find_by_name(const struct network *net, const char *name) {
        hash_for_each(node, &net->devices) {
                struct device *d = container_of(node, struct device, node);

                if (strcmp(d->name, name) == 0)
                        return d;
        }
        return NULL;
}

struct device *device_new(struct network *net, int index) {
        struct device *d = calloc(1, sizeof(*d));

        if (!d)
                return NULL;
        d->index = index;
        list_init(&d->subscriptions);
        list_init(&d->addresses);
        if (hash_add(&net->devices, &d->node, hash_u64((uint64_t)index)) < 0) {
                free(d);
                return NULL;
        }
        return d;
}

bool device_add_address(struct device *d, const char *text, uint64_t generation) {
        struct address *a = calloc(1, sizeof(*a));

        if (!a)
                return false;
        (void)snprintf(a->text, sizeof(a->text), "%s", text);
        a->generation = generation;
        list_append(&d->addresses, &a->link);
        d->n_addresses++;
        return true;
}

static void address_free(struct device *d, struct address *a) {
        list_remove(&a->link);
        d->n_addresses--;
        free(a);
}

void device_free(struct network *net, struct device *d) {
        while (!list_empty(&d->subscriptions))
                netdev_watch_leave(list_entry(d->subscriptions.next, struct subscription, link)->object);
        list_for_each(a, &d->addresses)
                address_free(d, list_entry(a, struct address, link));
        hash_remove(&net->devices, &d->node);
        free(d);
}

/* `change`: where to. */
static void device_gone(struct network *net, struct device *d, struct change change) {
        change.notes = KEV_NOTE_LINKINV;
        change.flags = KEV_FLAG_EOF;
        if (d->carrier)
                change.notes |= KEV_NOTE_LINKDOWN;
        (void)routes_drop_of(net, d->index, AF_INET);
        (void)routes_drop_of(net, d->index, AF_INET6);
        d->flags &= ~(unsigned)IFF_UP;
        d->carrier = false;
        device_tell(net, d, &change);
        device_free(net, d);
}

/* ---- messages ------------------------------------------------------------------- */

static int collect_attribute(const struct nlattr *attribute, void *data) {
        const struct nlattr **table = data;

        if (mnl_attr_type_valid(attribute, IFLA_MAX) > 0)
                table[mnl_attr_get_type(attribute)] = attribute;
        return MNL_CB_OK;
}

static uint32_t get_u32(const struct nlattr *attribute, uint32_t otherwise) {
        return attribute && mnl_attr_validate(attribute, MNL_TYPE_U32) >= 0 ? mnl_attr_get_u32(attribute) : otherwise;
}

static uint8_t get_u8(const struct nlattr *attribute, uint8_t otherwise) {
        return attribute && mnl_attr_validate(attribute, MNL_TYPE_U8) >= 0 ? mnl_attr_get_u8(attribute) : otherwise;
}

/* A device as a message has it. */
static bool parse_link(const struct nlmsghdr *header, const struct device *before, struct device *ret) {
        const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
        const struct nlattr *table[IFLA_MAX + 1] = { 0 };

        if (header->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(*info) || info->ifi_family != AF_UNSPEC)
                return false; /* bridges report their ports in messages of their own */
        (void)mnl_attr_parse(header, sizeof(*info), collect_attribute, table);
        if (table[IFLA_WIRELESS])
                return false; /* an event of a wireless device, which says no more of it than its name and flags */
        if (!table[IFLA_IFNAME] || mnl_attr_validate(table[IFLA_IFNAME], MNL_TYPE_NUL_STRING) < 0)
                return false;
        *ret = (struct device){ .index = info->ifi_index, .flags = info->ifi_flags };
        (void)snprintf(ret->name, sizeof(ret->name), "%s", mnl_attr_get_str(table[IFLA_IFNAME]));
        ret->carrier = get_u8(table[IFLA_CARRIER], (info->ifi_flags & IFF_LOWER_UP) != 0);
        ret->oper_state = get_u8(table[IFLA_OPERSTATE], 0);
        ret->mtu = get_u32(table[IFLA_MTU], before ? before->mtu : 0);
        ret->ups = get_u32(table[IFLA_CARRIER_UP_COUNT], before ? before->ups : 0);
        ret->downs = get_u32(table[IFLA_CARRIER_DOWN_COUNT], before ? before->downs : 0);
        if (table[IFLA_ADDRESS]) {
                const uint8_t *bytes = mnl_attr_get_payload(table[IFLA_ADDRESS]);
                size_t n = MIN(mnl_attr_get_payload_len(table[IFLA_ADDRESS]), 32);

                for (size_t i = 0; i < n; i++)
                        (void)snprintf(ret->hardware + i * 3, sizeof(ret->hardware) - i * 3,
                                       i + 1 < n ? "%02x:" : "%02x", bytes[i]);
        }
        return true;
}

/* How often the carrier changed; negative where `now` is of an earlier time. */
static int32_t turns_between(const struct device *before, const struct device *now) {
        return (int32_t)(now->ups - before->ups + (now->downs - before->downs));
}

static struct change compare(const struct device *before, const struct device *now) {
        struct change change = CHANGE_INIT;
        int32_t turns = turns_between(before, now);

        if (strcmp(before->name, now->name) != 0) {
                change.notes |= KEV_NOTE_RENAME;
                change.old_name = before->name;
        }
        if (before->carrier != now->carrier) {
                change.notes |= now->carrier ? KEV_NOTE_LINKUP : KEV_NOTE_LINKDOWN;
                if (turns > 1)
                        change.flaps = turns - 1;
        } else if (turns > 0) {
                change.notes |= KEV_NOTE_LINKUP | KEV_NOTE_LINKDOWN;
                change.flaps = turns;
        }
        if ((before->flags ^ now->flags) & IFF_UP)
                change.notes |= KEV_NOTE_FLAGS;
        if (before->mtu != now->mtu)
                change.notes |= KEV_NOTE_MTU;
        if (strcmp(before->hardware, now->hardware) != 0)
                change.notes |= KEV_NOTE_ADDRESS;
        /* It mostly follows the carrier, and where it comes later nothing else tells. */
        if (!change.notes && before->oper_state != now->oper_state)
                change.notes |= KEV_NOTE_FLAGS;
        return change;
}

static void on_new_link(struct network *net, const struct nlmsghdr *header) {
        const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
        struct device *d = device_find(net, info->ifi_index), now, before;
        bool ways_change = false;
        struct change change;

        if (!parse_link(header, d, &now))
                return;
        if (d && net->sync != SYNC_LINKS && turns_between(d, &now) < 0)
                return; /* the dump was ahead of it */
        if (d) {
                before = *d;
                change = compare(&before, &now);
                ways_change = (before.flags ^ now.flags) & IFF_UP || turns_between(&before, &now) != 0 ||
                              before.carrier != now.carrier || before.oper_state != now.oper_state;
        } else {
                d = device_new(net, now.index);
                if (!d) {
                        network_resynchronise(net);
                        return;
                }
                change = CHANGE_INIT;
                change.notes = KEV_NOTE_ADD | (now.carrier ? KEV_NOTE_LINKUP : 0);
        }
        memcpy(d->name, now.name, sizeof(d->name));
        memcpy(d->hardware, now.hardware, sizeof(d->hardware));
        d->flags = now.flags;
        d->carrier = now.carrier;
        d->oper_state = now.oper_state;
        d->mtu = now.mtu;
        d->ups = now.ups;
        d->downs = now.downs;
        d->generation = net->generation;
        if (change.notes & KEV_NOTE_FLAGS && !(d->flags & IFF_UP) && routes_drop_of(net, d->index, AF_INET))
                change.notes |= KEV_NOTE_ROUTE; /* the kernel does so without a word */
        if (change.notes)
                device_tell(net, d, &change);
        if (ways_change)
                network_reread_routes(net); /* they die and live again */
}

static void on_del_link(struct network *net, const struct nlmsghdr *header) {
        const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
        const struct nlattr *table[IFLA_MAX + 1] = { 0 };
        struct device *d = device_find(net, info->ifi_index);
        struct change change = CHANGE_INIT;

        if (!d || info->ifi_family != AF_UNSPEC)
                return;
        /* It has moved: rtnetlink(7) has no word of it, but the kernel numbers the namespace as RTM_GETNSID does. */
        (void)mnl_attr_parse(header, sizeof(*info), collect_attribute, table);
        if (table[IFLA_NEW_NETNSID]) {
                change.new_namespace = (int32_t)get_u32(table[IFLA_NEW_NETNSID], 0);
                change.new_index = get_u32(table[IFLA_NEW_IFINDEX], 0);
        }
        device_gone(net, d, change);
        network_reread_routes(net); /* those that had other ways, too */
}

static bool parse_address(const struct nlmsghdr *header, char *text, size_t size) {
        const struct ifaddrmsg *info = mnl_nlmsg_get_payload(header);
        const struct nlattr *table[IFLA_MAX + 1] = { 0 }, *attribute;
        char address[INET6_ADDRSTRLEN];
        size_t expected = info->ifa_family == AF_INET ? 4 : 16;

        if (info->ifa_family != AF_INET && info->ifa_family != AF_INET6)
                return false;
        (void)mnl_attr_parse(header, sizeof(*info), collect_attribute, table);
        attribute = table[IFA_LOCAL] ? table[IFA_LOCAL] : table[IFA_ADDRESS];
        if (!attribute || mnl_attr_get_payload_len(attribute) != expected ||
            !inet_ntop(info->ifa_family, mnl_attr_get_payload(attribute), address, sizeof(address)))
                return false;
        (void)snprintf(text, size, "%s/%u", address, info->ifa_prefixlen);
        return true;
}

static void on_address(struct network *net, const struct nlmsghdr *header) {
        struct change change = CHANGE_INIT;
        const struct ifaddrmsg *info = mnl_nlmsg_get_payload(header);
        struct device *d;
        struct address *a = NULL;
        char text[sizeof(a->text)];

        change.notes = KEV_NOTE_ADDRESS;
        if (header->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(*info) || !parse_address(header, text, sizeof(text)))
                return;
        d = device_find(net, (int)info->ifa_index);
        if (!d)
                return;
        list_for_each(entry, &d->addresses)
                if (strcmp(list_entry(entry, struct address, link)->text, text) == 0)
                        a = list_entry(entry, struct address, link);
        if (header->nlmsg_type == RTM_DELADDR) {
                if (!a)
                        return;
                address_free(d, a);
        } else if (a) {
                a->generation = net->generation;
                return; /* new life times are no news */
        } else if (!device_add_address(d, text, net->generation)) {
                network_resynchronise(net);
                return;
        }
        device_tell(net, d, &change);
        if (header->nlmsg_type == RTM_DELADDR)
                network_reread_routes(net); /* the last one takes them with it */
}

void network_on_message(struct network *net, const struct nlmsghdr *header) {
        switch (header->nlmsg_type) {
        case RTM_NEWLINK:
        case RTM_DELLINK:
                if (header->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(struct ifinfomsg))
                        return;
                if (header->nlmsg_type == RTM_NEWLINK)
                        on_new_link(net, header);
                else
                        on_del_link(net, header);
                return;
        case RTM_NEWADDR:
        case RTM_DELADDR:
                on_address(net, header);
                return;
        case RTM_NEWROUTE:
        case RTM_DELROUTE:
                route_on_message(net, header);
                return;
        case RTM_DELNEXTHOP:
                network_reread_routes(net);
                return;
        default:
                return;
        }
}

/* ---- after a dump ----------------------------------------------------------------- */

static void remove_stale_addresses(struct network *net, struct device *d) {
        struct change change = CHANGE_INIT;

        list_for_each(entry, &d->addresses) {
                struct address *a = list_entry(entry, struct address, link);

                if (a->generation == net->generation)
                        continue;
                address_free(d, a);
                change.notes = KEV_NOTE_ADDRESS;
        }
        if (change.notes)
                device_tell(net, d, &change);
}

void devices_remove_stale(struct network *net) {
        hash_for_each(node, &net->devices) {
                struct device *d = container_of(node, struct device, node);

                if (d->generation == net->generation)
                        remove_stale_addresses(net, d);
                else
                        device_gone(net, d, CHANGE_INIT);
        }
}
