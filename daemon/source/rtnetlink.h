/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * netdev on rtnetlink(7), with libmnl.
 *
 *   rtnetlink.c         the source: watches, and the network namespaces that they are about
 *   rtnetlink_sync.c    a namespace's sockets: dumps, messages, losses
 *   rtnetlink_device.c  its devices: what messages say of them, and telling what has changed
 *   rtnetlink_route.c   its default routes
 *   rtnetlink_save.c    all of it for the next daemon
 *
 * The messages say what a device is like now, not what has changed: the state
 * of all devices is kept, each message compared with it, and the difference
 * told. The carrier's counters (IFLA_CARRIER_UP_COUNT, _DOWN_COUNT, Linux 4.16)
 * reveal changes that had no message of their own: `flaps`. With them every
 * change is told once: event.h says how an event counts them.
 *
 * A namespace has one socket that gets the messages. It is opened for the first
 * watch, before a dump on a second socket fills the state, and is not read until
 * the dump is whole, so nothing falls between the two. ENOBUFS (the kernel dropped
 * messages) ends in another dump once it has been quiet for a moment, whose
 * differences are told like any other. What was sent before the dump and is read
 * after it is known by its counters, and passed over. With the last watch both
 * sockets are closed: while they are open they keep the namespace.
 *
 * Sockets of another namespace than the daemon's are made by a helper of the
 * broker's, which may enter it.
 */

#include <libmnl/libmnl.h>
#include <linux/if.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <arpa/inet.h>

#include "client.h"
#include "hash.h"
#include "share.h"
#include "source.h"

enum { RTNETLINK_BUFFER = 64 * 1024, RTNETLINK_RECEIVE_BUFFER = 8 * 1024 * 1024 };

struct rtnetlink {
        struct source source;
        struct mux *mux;
        struct list networks;
        struct list unread; /* those with something to read, in turns */
        struct mux_deferred read, tidy;
        struct hash shares; /* of devices, and of networks: those on all devices */
        uint64_t own; /* its own namespace's inode */
        char *buffer; /* RTNETLINK_BUFFER */
};

enum sync {
        SYNC_OPENING,   /* the broker has been asked for the sockets */
        SYNC_LINKS,     /* dumping links */
        SYNC_ADDRESSES, /* dumping addresses */
        SYNC_ROUTES,    /* dumping routes */
        SYNC_REREAD,    /* dumping routes alone */
        SYNC_DONE,
        SYNC_LOST,      /* messages were dropped; waiting for quiet */
        SYNC_FAILED,    /* nobody can be served */
};

/* A network namespace that is watched. */
struct network {
        struct list link;
        struct rtnetlink *all;
        uint64_t inode;
        size_t n_watches;
        struct helper helper; /* SYNC_OPENING: makes one socket after the other */
        int namespace_fd, events_fd;
        struct mnl_socket *events, *dump;
        struct mux_io events_io, dump_io;
        struct list unread; /* in rtnetlink->unread, until its sockets were seen empty */
        enum sync sync;
        bool dump_interrupted;
        bool has_dead_ways; /* of default routes; no message tells when they live again */
        uint32_t sequence;
        uint64_t generation; /* of the last dump */
        struct losses losses;
        struct mux_timer quiet;
        uint64_t lost_since;
        struct hash devices;   /* by index */
        struct list routes;
        struct list everybody; /* subscriptions on all devices */
        struct list starting;  /* subscriptions that wait for the dump */
        struct list barriers;
        struct mux_timer barrier_timer;
};

struct address {
        struct list link;
        uint64_t generation;
        char text[INET6_ADDRSTRLEN + 5]; /* with /prefix */
};

/* A default route, or one of the ways that it has. */
struct route {
        struct list link;
        uint64_t generation;
        uint8_t family, tos;
        uint32_t table, metric;
        int index;
        char gateway[INET6_ADDRSTRLEN]; /* "0.0.0.0" or "::" where there is none */
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

/* Follows all devices, or one by its name. */
struct netdev_watch {
        struct subscription *subscription;
        struct network *network;
        struct device *device; /* NULL: all, or it is gone */
        const void *shared;    /* of what its user has a share by it, or NULL */
        uid_t uid;
        char name[IFNAMSIZ];   /* empty: all */
};

struct change {
        uint64_t notes;
        uint32_t flags;
        int64_t flaps;
        const char *old_name;
        int64_t new_namespace, new_index; /* where it has gone to, or ABSENT */
};

#define CHANGE_INIT ((struct change){ .new_namespace = ABSENT, .new_index = ABSENT })

/* ---- rtnetlink_save.c ------------------------------------------------------------------------------- */

/* Of the class: source.h. */
void rtnetlink_describe(const struct subscription *subscription, struct subject *subject);
bool rtnetlink_is_settled(const struct source *source);
void rtnetlink_save_source(struct source *source, struct state_writer *w);
void rtnetlink_load_source(struct source *source, struct state_reader *r);
bool rtnetlink_save(struct source *source, struct subscription *subscription, struct state_writer *w);
int rtnetlink_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                      struct state_reader *r, struct refusal *refusal);
void rtnetlink_restored(struct source *source);

/* ---- rtnetlink.c ----------------------------------------------------------------------------------- */

/* NULL: no memory. In no list. */
struct network *network_new(struct rtnetlink *s, uint64_t inode);
void network_free(struct network *net);
/* The one that the asker lives in, if it is known. */
struct network *network_find(const struct rtnetlink *s, const struct asker *asker);
/* It is told of the device from here on; NULL: of all. */
int netdev_watch_join(struct netdev_watch *w, struct device *d, struct refusal *refusal);
/* It isn't any more; one that never was is passed over. */
void netdev_watch_leave(struct netdev_watch *w);
/* The state is whole: those that waited for it. */
void network_start_watches(struct network *net);

/* ---- rtnetlink_sync.c ------------------------------------------------------------------------------ */

/* Takes the descriptors over. */
int network_begin(struct network *net, int events_fd, int dump_fd);
/* Goes on with sockets that a daemon had before, whose state is known. The same. */
int network_resume(struct network *net, int events_fd, int dump_fd);
/* A socket for that, in the daemon's own namespace. */
int network_socket(void);
/* The state is in doubt: dump again, once there was no message for a while. */
void network_resynchronise(struct network *net);
/* What the kernel has done with routes is not told: they alone are dumped. */
void network_reread_routes(struct network *net);
void network_end(struct network *net);
/* True: it waits for the state to be certain, and for what has not been read. */
bool network_barrier(struct network *net, struct source_barrier *barrier);
/* Of rtnetlink->read. */
void networks_read(struct mux_deferred *deferred);

/* ---- rtnetlink_device.c ---------------------------------------------------------------------------- */

void network_on_message(struct network *net, const struct nlmsghdr *header);
void device_tell(struct network *net, const struct device *d, const struct change *change);
/* NULL: no memory. Nothing but its index is known. */
struct device *device_new(struct network *net, int index);
/* False: no memory. */
bool device_add_address(struct device *d, const char *text, uint64_t generation);
struct device *device_find(const struct network *net, int index);
struct device *device_find_by_name(const struct network *net, const char *name);
void device_free(struct network *net, struct device *d);
/* What the last dump did not mention is gone. */
void devices_remove_stale(struct network *net);

/* ---- rtnetlink_route.c ------------------------------------------------------------------------------ */

void route_on_message(struct network *net, const struct nlmsghdr *header);
/* The device is down: the kernel drops these without a word. True: there were some. */
bool routes_drop_of(struct network *net, int index, uint8_t family);
void routes_remove_stale(struct network *net);
/* Of the routes through a device: an array with NULL at its end, the caller's to free, whose texts live as long as the
 * routes. NULL: none, or no memory. */
const char **routes_gateways(const struct network *net, int index);
void routes_free(struct network *net);
