/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * netdev on rtnetlink(7), with libmnl.
 *
 * The messages say what a device is like now, not what has changed: the state
 * of all devices is kept, each message compared with it, and the difference
 * told. The carrier's counters (IFLA_CARRIER_UP_COUNT, _DOWN_COUNT, Linux 4.16)
 * reveal changes that had no message of their own: `flaps`. With them every
 * change is told once: event.h says how an event counts them.
 *
 * One socket gets the messages. It is opened for the first watch, before a dump
 * on a second socket fills the state, and is not read until the dump is whole,
 * so nothing falls between the two. ENOBUFS (the kernel dropped messages) ends
 * in another dump once it has been quiet for a moment, whose differences are
 * told like any other. What was sent before the dump and is read after it is
 * known by its counters, and passed over. With the last watch both sockets are
 * closed.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

#include "hash.h"
#include "source.h"

enum {
        RECEIVE_BUFFER = 8 * 1024 * 1024,
        MESSAGE_BUFFER = 64 * 1024,
        QUIET_MSEC = 50,      /* without a message, after a loss */
        QUIET_MAX_MSEC = 500, /* or this at the latest */
        BARRIER_MAX_MSEC = 1000,
};

#define NOTES_SERVED (kev_filter_notes(KEV_FILTER_NETDEV) & ~KEV_NOTE_ROUTE)

enum sync {
        SYNC_CLOSED,
        SYNC_LINKS,     /* dumping links */
        SYNC_ADDRESSES, /* dumping addresses */
        SYNC_DONE,
        SYNC_LOST,      /* messages were dropped; waiting for quiet */
};

struct rtnetlink {
        struct source source;
        struct mux *mux;
        struct mnl_socket *events, *dump;
        struct mux_io events_io, dump_io;
        enum sync sync;
        bool dump_interrupted;
        uint32_t sequence;
        uint64_t generation; /* of the last dump */
        struct mux_timer quiet;
        uint64_t lost_since;
        struct hash devices;   /* by index */
        struct list everybody; /* subscriptions on all devices */
        struct list starting;  /* subscriptions that wait for the dump */
        struct list barriers;
        struct mux_timer barrier_timer;
        char *buffer; /* MESSAGE_BUFFER */
};

struct address {
        struct list link;
        uint64_t generation;
        char text[INET6_ADDRSTRLEN + 5]; /* with /prefix */
};

struct device {
        struct hash_node node;
        struct list subscriptions;
        struct list addresses;
        size_t n_addresses;
        uint64_t generation;
        int index;
        char name[IFNAMSIZ];
        unsigned flags;
        bool carrier;
        uint8_t oper_state;
        uint32_t mtu;
        char hardware[3 * 32];
        uint32_t ups, downs;
};

/* A subscription that waits for the dump, or follows a device by name. */
struct netdev_watch {
        struct subscription *subscription;
        struct device *device; /* NULL: all, or it is gone */
        char name[IFNAMSIZ];   /* empty: all */
};

static void resynchronise(struct rtnetlink *s);

/* ---- telling -------------------------------------------------------------------- */

static const char *oper_state_name(uint8_t state) {
        static const char *const names[] = {
                "unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up",
        };

        return state < ARRAY_SIZE(names) ? names[state] : "unknown";
}

struct change {
        uint64_t notes;
        uint32_t flags;
        int64_t flaps;
        const char *old_name;
};

static void tell(struct rtnetlink *s, const struct device *d, const struct change *change) {
        const char **addresses _cleanup_(freep) = NULL;
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
        };
        struct report report = REPORT_INIT;
        size_t n = 0;

        addresses = calloc(d->n_addresses + 1, sizeof(char *));
        if (addresses) { /* without memory the event goes out without them */
                list_for_each(entry, &d->addresses)
                        addresses[n++] = list_entry(entry, struct address, link)->text;
                link.addresses = addresses;
        }
        report.notes = change->notes;
        report.flags = change->flags;
        report.data = d->carrier;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        report.link = &link;
        list_for_each(entry, &d->subscriptions)
                source_report(&s->source, list_entry(entry, struct subscription, link), &report);
        report.flags = 0; /* a watch on all devices goes on */
        report_done(&report);
        list_for_each(entry, &s->everybody)
                source_report(&s->source, list_entry(entry, struct subscription, link), &report);
        report_done(&report);
}

/* ---- state ---------------------------------------------------------------------- */

static struct device *find_device(const struct rtnetlink *s, int index) {
        struct hash_node *n = hash_first(&s->devices, hash_u64((uint64_t)index));

        while (n && container_of(n, struct device, node)->index != index)
                n = hash_next(n);
        return n ? container_of(n, struct device, node) : NULL;
}

static struct device *find_device_by_name(const struct rtnetlink *s, const char *name) {
        hash_for_each(node, &s->devices) {
                struct device *d = container_of(node, struct device, node);

                if (strcmp(d->name, name) == 0)
                        return d;
        }
        return NULL;
}

static struct device *make_device(struct rtnetlink *s, int index) {
        struct device *d = calloc(1, sizeof(*d));

        if (!d)
                return NULL;
        d->index = index;
        list_init(&d->subscriptions);
        list_init(&d->addresses);
        if (hash_add(&s->devices, &d->node, hash_u64((uint64_t)index)) < 0) {
                free(d);
                return NULL;
        }
        return d;
}

static void address_free(struct device *d, struct address *a) {
        list_remove(&a->link);
        d->n_addresses--;
        free(a);
}

static void device_free(struct rtnetlink *s, struct device *d) {
        struct list *entry;

        while ((entry = list_pop(&d->subscriptions)))
                ((struct netdev_watch *)list_entry(entry, struct subscription, link)->object)->device = NULL;
        list_for_each(a, &d->addresses)
                address_free(d, list_entry(a, struct address, link));
        hash_remove(&s->devices, &d->node);
        free(d);
}

static void device_gone(struct rtnetlink *s, struct device *d) {
        struct change change = { .notes = KEV_NOTE_LINKINV, .flags = KEV_FLAG_EOF };

        if (d->carrier)
                change.notes |= KEV_NOTE_LINKDOWN;
        d->flags &= ~(unsigned)IFF_UP;
        d->carrier = false;
        tell(s, d, &change);
        device_free(s, d);
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
        struct change change = { 0 };
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
        return change;
}

static void on_new_link(struct rtnetlink *s, const struct nlmsghdr *header) {
        const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
        struct device *d = find_device(s, info->ifi_index), now, before;
        struct change change;

        if (!parse_link(header, d, &now))
                return;
        if (d && s->sync != SYNC_LINKS && turns_between(d, &now) < 0)
                return; /* the dump was ahead of it */
        if (d) {
                before = *d;
                change = compare(&before, &now);
        } else {
                d = make_device(s, now.index);
                if (!d) {
                        resynchronise(s);
                        return;
                }
                change = (struct change){ .notes = KEV_NOTE_ADD | (now.carrier ? KEV_NOTE_LINKUP : 0) };
        }
        memcpy(d->name, now.name, sizeof(d->name));
        memcpy(d->hardware, now.hardware, sizeof(d->hardware));
        d->flags = now.flags;
        d->carrier = now.carrier;
        d->oper_state = now.oper_state;
        d->mtu = now.mtu;
        d->ups = now.ups;
        d->downs = now.downs;
        d->generation = s->generation;
        if (change.notes)
                tell(s, d, &change);
}

static void on_del_link(struct rtnetlink *s, const struct nlmsghdr *header) {
        const struct ifinfomsg *info = mnl_nlmsg_get_payload(header);
        struct device *d = find_device(s, info->ifi_index);

        if (d && info->ifi_family == AF_UNSPEC)
                device_gone(s, d);
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

static void on_address(struct rtnetlink *s, const struct nlmsghdr *header) {
        static const struct change change = { .notes = KEV_NOTE_ADDRESS };
        const struct ifaddrmsg *info = mnl_nlmsg_get_payload(header);
        struct device *d;
        struct address *a = NULL;
        char text[sizeof(a->text)];

        if (header->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(*info) || !parse_address(header, text, sizeof(text)))
                return;
        d = find_device(s, (int)info->ifa_index);
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
                a->generation = s->generation;
                return; /* new life times are no news */
        } else {
                a = calloc(1, sizeof(*a));
                if (!a) {
                        resynchronise(s);
                        return;
                }
                memcpy(a->text, text, sizeof(text));
                a->generation = s->generation;
                list_append(&d->addresses, &a->link);
                d->n_addresses++;
        }
        tell(s, d, &change);
}

static void on_message(struct rtnetlink *s, const struct nlmsghdr *header) {
        switch (header->nlmsg_type) {
        case RTM_NEWLINK:
        case RTM_DELLINK:
                if (header->nlmsg_len < MNL_NLMSG_HDRLEN + sizeof(struct ifinfomsg))
                        return;
                if (header->nlmsg_type == RTM_NEWLINK)
                        on_new_link(s, header);
                else
                        on_del_link(s, header);
                return;
        case RTM_NEWADDR:
        case RTM_DELADDR:
                on_address(s, header);
                return;
        default:
                return;
        }
}

/* ---- the dump ------------------------------------------------------------------- */

static void on_events(struct mux_io *io, unsigned events);
static void on_dump(struct mux_io *io, unsigned events);

static int send_dump(struct rtnetlink *s, uint16_t type) {
        char space[MNL_NLMSG_HDRLEN + 32] __attribute__((aligned(8))) = { 0 };
        struct nlmsghdr *header = mnl_nlmsg_put_header(space);

        header->nlmsg_type = type;
        header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        header->nlmsg_seq = ++s->sequence;
        if (type == RTM_GETLINK)
                ((struct ifinfomsg *)mnl_nlmsg_put_extra_header(header, sizeof(struct ifinfomsg)))->ifi_family =
                        AF_UNSPEC;
        else
                ((struct ifaddrmsg *)mnl_nlmsg_put_extra_header(header, sizeof(struct ifaddrmsg)))->ifa_family =
                        AF_UNSPEC;
        return mnl_socket_sendto(s->dump, header, header->nlmsg_len) < 0 ? -errno : 0;
}

static int start_dump(struct rtnetlink *s) {
        mux_timer_clear(s->mux, &s->quiet);
        mux_remove(s->mux, &s->events_io); /* not read until the dump is whole */
        s->dump_interrupted = false;
        s->generation++;
        s->sync = SYNC_LINKS;
        return send_dump(s, RTM_GETLINK);
}

static void on_quiet(struct mux_timer *timer) {
        struct rtnetlink *s = container_of(timer, struct rtnetlink, quiet);

        if (start_dump(s) < 0)
                resynchronise(s);
}

/* The state is in doubt: dump again, once there was no message for a while. */
static void resynchronise(struct rtnetlink *s) {
        uint64_t now = monotonic_nsec(), latest;

        if (s->sync != SYNC_LOST)
                s->lost_since = now;
        s->sync = SYNC_LOST;
        latest = s->lost_since + QUIET_MAX_MSEC * NSEC_PER_MSEC;
        (void)mux_timer_set(s->mux, &s->quiet, MIN(MAX(latest, now), now + QUIET_MSEC * NSEC_PER_MSEC), on_quiet);
}

/* What the dump did not mention is gone. */
static void remove_stale(struct rtnetlink *s) {
        static const struct change change = { .notes = KEV_NOTE_ADDRESS };

        hash_for_each(node, &s->devices) {
                struct device *d = container_of(node, struct device, node);
                bool changed = false;

                if (d->generation != s->generation)
                        continue;
                list_for_each(entry, &d->addresses) {
                        struct address *a = list_entry(entry, struct address, link);

                        if (a->generation == s->generation)
                                continue;
                        address_free(d, a);
                        changed = true;
                }
                if (changed)
                        tell(s, d, &change);
        }
        for (bool found = true; found;) { /* removing may shrink the table under the loop */
                found = false;
                hash_for_each(node, &s->devices) {
                        struct device *d = container_of(node, struct device, node);

                        if (d->generation == s->generation)
                                continue;
                        device_gone(s, d);
                        found = true;
                        break;
                }
                if (s->devices.n_nodes == 0)
                        break;
        }
}

static void start_watch(struct rtnetlink *s, struct subscription *subscription) {
        struct netdev_watch *w = subscription->object;
        struct refusal refusal;

        if (w->name[0] == 0)
                list_append(&s->everybody, &subscription->link);
        else {
                w->device = find_device_by_name(s, w->name);
                if (!w->device) {
                        (void)refuse(&refusal, ENODEV, "name: there is no network device \"%s\"", w->name);
                        s->source.context->sink->attached(subscription, &refusal);
                        return;
                }
                list_append(&w->device->subscriptions, &subscription->link);
        }
        s->source.context->sink->attached(subscription, NULL);
}

static void release_barriers(struct rtnetlink *s) {
        struct list *entry;

        mux_timer_clear(s->mux, &s->barrier_timer);
        while ((entry = list_pop(&s->barriers))) {
                struct source_barrier *barrier = list_entry(entry, struct source_barrier, link);

                barrier->fn(barrier);
        }
}

/* No dump can be had just now; later ones tell. */
static void on_barrier_timer(struct mux_timer *timer) {
        release_barriers(container_of(timer, struct rtnetlink, barrier_timer));
}

static void finish_dump(struct rtnetlink *s) {
        struct list *entry;
        struct list waiting;

        if (s->dump_interrupted) {
                resynchronise(s);
                return;
        }
        remove_stale(s);
        s->sync = SYNC_DONE;
        if (mux_add(s->mux, &s->events_io, mnl_socket_get_fd(s->events), MUX_IN, on_events) < 0) {
                resynchronise(s);
                return;
        }
        list_init(&waiting);
        list_splice(&waiting, &s->starting);
        while ((entry = list_pop(&waiting)))
                start_watch(s, list_entry(entry, struct subscription, link));
        release_barriers(s);
}

static void next_dump(struct rtnetlink *s) {
        if (s->sync != SYNC_LINKS) {
                finish_dump(s);
                return;
        }
        s->sync = SYNC_ADDRESSES;
        if (send_dump(s, RTM_GETADDR) < 0)
                resynchronise(s);
}

/* ---- reading ---------------------------------------------------------------------- */

/* One datagram. 0: there is none. */
static int receive(struct rtnetlink *s, struct mnl_socket *socket) {
        ssize_t n = mnl_socket_recvfrom(socket, s->buffer, MESSAGE_BUFFER);

        if (n >= 0)
                return (int)n;
        return errno == EAGAIN || errno == EINTR ? 0 : -errno;
}

static void on_events(struct mux_io *io, unsigned events _unused_) {
        struct rtnetlink *s = container_of(io, struct rtnetlink, events_io);
        int n;

        while (s->events_io.fd >= 0 && (n = receive(s, s->events)) != 0) {
                const struct nlmsghdr *header = (const void *)s->buffer;

                if (n < 0) {
                        s->source.context->kernel_overflows += n == -ENOBUFS;
                        resynchronise(s);
                        continue;
                }
                if (s->sync == SYNC_LOST)
                        resynchronise(s); /* not quiet yet */
                for (; mnl_nlmsg_ok(header, n); header = mnl_nlmsg_next(header, &n))
                        on_message(s, header);
        }
}

static void on_dump(struct mux_io *io, unsigned events _unused_) {
        struct rtnetlink *s = container_of(io, struct rtnetlink, dump_io);
        int n;

        while (s->dump && (n = receive(s, s->dump)) != 0) {
                const struct nlmsghdr *header = (const void *)s->buffer;
                bool done = false;

                if (n < 0) {
                        resynchronise(s);
                        continue;
                }
                for (; mnl_nlmsg_ok(header, n); header = mnl_nlmsg_next(header, &n)) {
                        if (header->nlmsg_seq != s->sequence)
                                continue; /* of a dump that was given up */
                        if (header->nlmsg_flags & NLM_F_DUMP_INTR || header->nlmsg_type == NLMSG_ERROR)
                                s->dump_interrupted = true;
                        if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
                                done = true;
                        else
                                on_message(s, header);
                }
                if (done && (s->sync == SYNC_LINKS || s->sync == SYNC_ADDRESSES))
                        next_dump(s);
        }
}

/* ---- opening for the first watch, closing after the last --------------------------- */

static int open_socket(struct mnl_socket **ret, unsigned groups) {
        struct mnl_socket *socket = mnl_socket_open2(NETLINK_ROUTE, SOCK_NONBLOCK | SOCK_CLOEXEC);
        int size = RECEIVE_BUFFER, fd, r;

        if (!socket)
                return -errno;
        if (mnl_socket_bind(socket, groups, MNL_SOCKET_AUTOPID) < 0) {
                r = -errno;
                (void)mnl_socket_close(socket);
                return r;
        }
        fd = mnl_socket_get_fd(socket);
        /* Past net.core.rmem_max only with CAP_NET_ADMIN; as much as may be without. */
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)) < 0)
                (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        *ret = socket;
        return 0;
}

static void close_sockets(struct rtnetlink *s) {
        mux_timer_clear(s->mux, &s->quiet);
        mux_remove(s->mux, &s->events_io);
        mux_remove(s->mux, &s->dump_io);
        if (s->events)
                (void)mnl_socket_close(take_pointer(&s->events));
        if (s->dump)
                (void)mnl_socket_close(take_pointer(&s->dump));
        while (s->devices.n_nodes > 0) {
                struct device *d = NULL;

                hash_for_each(node, &s->devices)
                        d = container_of(node, struct device, node);
                device_free(s, d);
        }
        s->sync = SYNC_CLOSED;
}

static int open_sockets(struct rtnetlink *s) {
        int r = open_socket(&s->events, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR);

        if (r == 0)
                r = open_socket(&s->dump, 0);
        if (r == 0)
                r = mux_add(s->mux, &s->dump_io, mnl_socket_get_fd(s->dump), MUX_IN, on_dump);
        if (r == 0)
                r = start_dump(s);
        if (r < 0)
                close_sockets(s);
        return r;
}

/* ---- attach ------------------------------------------------------------------------- */

static int check_notes(uint64_t notes, struct refusal *refusal) {
        if (notes & ~NOTES_SERVED)
                return refuse(refusal, EOPNOTSUPP, "notes: \"route\" is not served by this version");
        return 0;
}

static int rtnetlink_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                            struct refusal *refusal) {
        struct rtnetlink *s = container_of(source, struct rtnetlink, source);
        struct netdev_watch *w;
        int r;

        if (subject->asker->other_network)
                return refuse(refusal, EXDEV, "netdev: the caller lives in another network namespace");
        if (subject->name && strlen(subject->name) >= IFNAMSIZ)
                return refuse(refusal, ENODEV, "name: no network device has so long a name");
        /* Not asked for by name, the one note that is not served is left out. */
        if (subject->notes != kev_filter_default_notes(KEV_FILTER_NETDEV) && check_notes(subject->notes, refusal) < 0)
                return -refusal->error;
        w = calloc(1, sizeof(*w));
        if (!w)
                return refuse(refusal, ENOMEM, "no memory");
        if (s->sync == SYNC_CLOSED) {
                r = open_sockets(s);
                if (r < 0) {
                        free(w);
                        return refuse(refusal, -r, "rtnetlink: %s", strerror(-r));
                }
        }
        w->subscription = subscription;
        if (subject->name)
                (void)snprintf(w->name, sizeof(w->name), "%s", subject->name);
        subscription->object = w;
        list_append(&s->starting, &subscription->link);
        if (s->sync != SYNC_DONE)
                return 1;
        list_remove(&subscription->link);
        if (w->name[0] && !find_device_by_name(s, w->name)) {
                free(take_pointer(&subscription->object));
                return refuse(refusal, ENODEV, "name: there is no network device \"%s\"", subject->name);
        }
        w->device = w->name[0] ? find_device_by_name(s, w->name) : NULL;
        list_append(w->device ? &w->device->subscriptions : &s->everybody, &subscription->link);
        return 0;
}

static int rtnetlink_modify(struct source *source _unused_, struct subscription *subscription _unused_,
                            const struct subject *subject, struct refusal *refusal) {
        return subject->notes == kev_filter_default_notes(KEV_FILTER_NETDEV) ? 0 : check_notes(subject->notes, refusal);
}

static void rtnetlink_detach(struct source *source, struct subscription *subscription) {
        struct rtnetlink *s = container_of(source, struct rtnetlink, source);

        list_remove(&subscription->link);
        free(take_pointer(&subscription->object));
        if (source->n_subscriptions == 1)
                close_sockets(s);
}

static bool rtnetlink_barrier(struct source *source, struct source_barrier *barrier) {
        struct rtnetlink *s = container_of(source, struct rtnetlink, source);

        if (s->sync == SYNC_DONE || s->sync == SYNC_CLOSED)
                return false;
        if (list_empty(&s->barriers))
                (void)mux_timer_set(s->mux, &s->barrier_timer,
                                    monotonic_nsec() + BARRIER_MAX_MSEC * NSEC_PER_MSEC, on_barrier_timer);
        list_append(&s->barriers, &barrier->link);
        return true;
}

/* ---- the source ------------------------------------------------------------------------ */

static int rtnetlink_open(struct source_context *context, struct source **ret_source) {
        struct rtnetlink *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        s->buffer = malloc(MESSAGE_BUFFER);
        if (!s->buffer) {
                free(s);
                return -ENOMEM;
        }
        s->mux = context->mux;
        s->events_io = s->dump_io = MUX_IO_INIT;
        list_init(&s->everybody);
        list_init(&s->starting);
        list_init(&s->barriers);
        *ret_source = &s->source;
        return 0;
}

static void rtnetlink_close(struct source *source) {
        struct rtnetlink *s = container_of(source, struct rtnetlink, source);

        mux_timer_clear(s->mux, &s->barrier_timer);
        close_sockets(s);
        free(s->buffer);
        free(s);
}

static uint64_t rtnetlink_registrations(const struct source *source) {
        return container_of(source, const struct rtnetlink, source)->sync != SYNC_CLOSED;
}

static const char *rtnetlink_mechanism(const struct source *source _unused_) {
        return "rtnetlink";
}

const struct source_class source_rtnetlink = {
        .name = "rtnetlink",
        .filters = 1u << KEV_FILTER_NETDEV,
        .open = rtnetlink_open,
        .close = rtnetlink_close,
        .attach = rtnetlink_attach,
        .modify = rtnetlink_modify,
        .detach = rtnetlink_detach,
        .barrier = rtnetlink_barrier,
        .registrations = rtnetlink_registrations,
        .mechanism = rtnetlink_mechanism,
};
