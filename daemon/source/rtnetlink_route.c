/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The default routes of a network namespace, in its main table. */

#include <stdlib.h>
#include <string.h>

#include "rtnetlink.h"

static int collect_attribute(const struct nlattr *attribute, void *data) {
        const struct nlattr **table = data;

        if (mnl_attr_type_valid(attribute, RTA_MAX) > 0)
                table[mnl_attr_get_type(attribute)] = attribute;
        return MNL_CB_OK;
}

static uint32_t get_u32(const struct nlattr *attribute, uint32_t otherwise) {
        return attribute && mnl_attr_validate(attribute, MNL_TYPE_U32) >= 0 ? mnl_attr_get_u32(attribute) : otherwise;
}

static void tell(struct network *net, int index) {
        struct change change = CHANGE_INIT;
        const struct device *d = device_find(net, index);

        change.notes = KEV_NOTE_ROUTE;
        if (d)
                device_tell(net, d, &change);
}

static bool is_same(const struct route *a, const struct route *b) {
        return a->family == b->family && a->tos == b->tos && a->table == b->table && a->metric == b->metric && a->index == b->index &&
               strcmp(a->gateway, b->gateway) == 0;
}

static struct route *find(const struct network *net, const struct route *wanted) {
        list_for_each(entry, &net->routes)
                if (is_same(list_entry(entry, struct route, link), wanted))
                        return list_entry(entry, struct route, link);
        return NULL;
}

static void free_route(struct route *route) {
        list_remove(&route->link);
        free(route);
}

static size_t address_size(uint16_t family) {
        return family == AF_INET ? 4 : 16;
}

/* RTA_VIA: one of another family than the route's. */
static void set_gateway(struct route *route, const struct nlattr *const *table) {
        const struct nlattr *attribute = table[RTA_GATEWAY];
        const char none[16] = { 0 };
        const void *address = none;
        uint16_t family = route->family;

        if (attribute && mnl_attr_get_payload_len(attribute) == address_size(family))
                address = mnl_attr_get_payload(attribute);
        else if (table[RTA_VIA] && mnl_attr_get_payload_len(table[RTA_VIA]) > sizeof(struct rtvia)) {
                const struct rtvia *via = mnl_attr_get_payload(table[RTA_VIA]);

                if ((via->rtvia_family == AF_INET || via->rtvia_family == AF_INET6) &&
                    mnl_attr_get_payload_len(table[RTA_VIA]) == sizeof(*via) + address_size(via->rtvia_family)) {
                        family = via->rtvia_family;
                        address = via->rtvia_addr;
                }
        }
        (void)inet_ntop(family, address, route->gateway, sizeof(route->gateway));
}

static void on_way(struct network *net, const struct nlmsghdr *header, const struct route *way) {
        struct route *known = find(net, way);

        if (header->nlmsg_type == RTM_DELROUTE) {
                if (!known)
                        return;
                free_route(known);
        } else if (known) {
                known->generation = net->generation;
                return;
        } else {
                known = malloc(sizeof(*known));
                if (!known) {
                        network_resynchronise(net);
                        return;
                }
                *known = *way;
                known->generation = net->generation;
                list_init(&known->link);
                list_append(&net->routes, &known->link);
        }
        tell(net, way->index);
}

/* Those in whose place the new one is. */
static void drop_replaced(struct network *net, const struct route *by) {
        list_for_each(entry, &net->routes) {
                struct route *route = list_entry(entry, struct route, link);
                int index = route->index;

                if (route->family != by->family || route->tos != by->tos || route->table != by->table || route->metric != by->metric ||
                    is_same(route, by))
                        continue;
                free_route(route);
                tell(net, index);
        }
}

static void on_ways(struct network *net, const struct nlmsghdr *header, struct route *route,
                    const struct nlattr *ways) {
        const struct rtnexthop *hop = mnl_attr_get_payload(ways);
        size_t left = mnl_attr_get_payload_len(ways);

        while (left >= sizeof(*hop) && hop->rtnh_len >= sizeof(*hop) && hop->rtnh_len <= left) {
                const struct nlattr *table[RTA_MAX + 1] = { 0 };

                (void)mnl_attr_parse_payload((const char *)hop + sizeof(*hop), hop->rtnh_len - sizeof(*hop),
                                             collect_attribute, table);
                route->index = hop->rtnh_ifindex;
                set_gateway(route, table);
                if (hop->rtnh_flags & RTNH_F_DEAD)
                        net->has_dead_ways = true;
                else
                        on_way(net, header, route);
                if (RTNH_ALIGN((size_t)hop->rtnh_len) >= left)
                        break;
                left -= RTNH_ALIGN((size_t)hop->rtnh_len);
                hop = (const void *)((const char *)hop + RTNH_ALIGN((size_t)hop->rtnh_len));
        }
}

void route_on_message(struct network *net, const struct nlmsghdr *header) {
        const struct rtmsg *info = mnl_nlmsg_get_payload(header);
        const struct nlattr *table[RTA_MAX + 1] = { 0 };
        struct route route = { 0 };

        if (header->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(*info) || info->rtm_dst_len != 0 ||
            (info->rtm_flags & RTM_F_CLONED) ||
            (info->rtm_family != AF_INET && info->rtm_family != AF_INET6))
                return;
        (void)mnl_attr_parse(header, sizeof(*info), collect_attribute, table);
        route.family = info->rtm_family;
        route.tos = info->rtm_tos;
        route.table = get_u32(table[RTA_TABLE], info->rtm_table);
        route.metric = get_u32(table[RTA_PRIORITY], 0);
        if (route.table != RT_TABLE_MAIN)
                return;
        if (header->nlmsg_type == RTM_NEWROUTE && header->nlmsg_flags & NLM_F_REPLACE)
                drop_replaced(net, &route);
        if (info->rtm_type == RTN_UNICAST && table[RTA_MULTIPATH]) {
                on_ways(net, header, &route, table[RTA_MULTIPATH]);
        } else if (info->rtm_type == RTN_UNICAST && info->rtm_flags & RTNH_F_DEAD) {
                net->has_dead_ways = true;
        } else if (info->rtm_type == RTN_UNICAST) {
                route.index = (int)get_u32(table[RTA_OIF], 0);
                set_gateway(&route, table);
                on_way(net, header, &route);
        }
        if (header->nlmsg_type == RTM_NEWROUTE && header->nlmsg_flags & NLM_F_REPLACE)
                network_reread_routes(net); /* of several it was the first alone */
}

bool routes_drop_of(struct network *net, int index, uint8_t family) {
        bool any = false;

        list_for_each(entry, &net->routes) {
                struct route *route = list_entry(entry, struct route, link);

                if (route->index != index || route->family != family)
                        continue;
                free_route(route);
                any = true;
        }
        return any;
}

void routes_remove_stale(struct network *net) {
        list_for_each(entry, &net->routes) {
                struct route *route = list_entry(entry, struct route, link);
                int index = route->index;

                if (route->generation == net->generation)
                        continue;
                free_route(route);
                tell(net, index);
        }
}

const char **routes_gateways(const struct network *net, int index) {
        const char **gateways;
        size_t n = 0;

        list_for_each(entry, &net->routes)
                n += list_entry(entry, struct route, link)->index == index;
        gateways = n > 0 ? calloc(n + 1, sizeof(*gateways)) : NULL;
        if (!gateways)
                return NULL;
        n = 0;
        list_for_each(entry, &net->routes)
                if (list_entry(entry, struct route, link)->index == index)
                        gateways[n++] = list_entry(entry, struct route, link)->gateway;
        return gateways;
}

void routes_free(struct network *net) {
        while (!list_empty(&net->routes))
                free_route(list_entry(net->routes.next, struct route, link));
}
