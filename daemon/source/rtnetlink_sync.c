/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The sockets of a network namespace: dumps, messages, and what to do when some were lost. */

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rtnetlink.h"

enum {
        QUIET_MSEC = 50,      /* without a message, after a loss */
        QUIET_MAX_MSEC = 500, /* or this at the latest */
        BARRIER_MAX_MSEC = 1000,
        SLICE_NSEC = 100 * 1000, /* of a turn, for all namespaces */
};

/* ---- the dump ------------------------------------------------------------------------------------------ */


static void on_events(struct mux_io *io, unsigned events);
static void on_dump(struct mux_io *io, unsigned events);

static int send_dump(struct network *net, uint16_t type) {
        char space[MNL_NLMSG_HDRLEN + 32] __attribute__((aligned(8))) = { 0 };
        struct nlmsghdr *header = mnl_nlmsg_put_header(space);

        header->nlmsg_type = type;
        header->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
        header->nlmsg_seq = ++net->sequence;
        /* All begin with the family, and AF_UNSPEC is 0. */
        (void)mnl_nlmsg_put_extra_header(header, type == RTM_GETLINK ? sizeof(struct ifinfomsg) :
                                                 type == RTM_GETADDR ? sizeof(struct ifaddrmsg) :
                                                                       sizeof(struct rtmsg));
        return mnl_socket_sendto(net->dump, header, header->nlmsg_len) < 0 ? -errno : 0;
}

static int start_dump(struct network *net) {
        mux_timer_clear(net->all->mux, &net->quiet);
        mux_remove(net->all->mux, &net->events_io); /* not read until the dump is whole */
        losses_begin_repair(&net->losses);
        net->dump_interrupted = net->has_dead_ways = false;
        net->generation++;
        net->sync = SYNC_LINKS;
        return send_dump(net, RTM_GETLINK);
}

void network_reread_routes(struct network *net) {
        if (net->sync != SYNC_DONE || (list_empty(&net->routes) && !net->has_dead_ways))
                return;
        mux_remove(net->all->mux, &net->events_io);
        net->dump_interrupted = net->has_dead_ways = false;
        net->generation++;
        net->sync = SYNC_REREAD;
        if (send_dump(net, RTM_GETROUTE) < 0)
                network_resynchronise(net);
}

static void on_quiet(struct mux_timer *timer) {
        struct network *net = container_of(timer, struct network, quiet);

        if (start_dump(net) < 0)
                network_resynchronise(net);
}

/* The state is in doubt: dump again, once there was no message for a while. */
void network_resynchronise(struct network *net) {
        uint64_t now = monotonic_nsec(), latest;

        if (net->sync != SYNC_LOST)
                net->lost_since = now;
        net->sync = SYNC_LOST;
        latest = net->lost_since + QUIET_MAX_MSEC * NSEC_PER_MSEC;
        (void)mux_timer_set(net->all->mux, &net->quiet, MIN(MAX(latest, now), now + QUIET_MSEC * NSEC_PER_MSEC), on_quiet);
}

static void release_barriers(struct network *net) {
        struct list *entry;

        mux_timer_clear(net->all->mux, &net->barrier_timer);
        while ((entry = list_pop(&net->barriers))) {
                struct source_barrier *barrier = list_entry(entry, struct source_barrier, link);

                barrier->fn(barrier);
        }
}

/* No dump can be had just now, and later ones tell; or more happens than is read. */
static void on_barrier_timer(struct mux_timer *timer) {
        release_barriers(container_of(timer, struct network, barrier_timer));
}

static void finish_dump(struct network *net) {
        if (net->dump_interrupted) {
                network_resynchronise(net);
                return;
        }
        if (net->sync != SYNC_REREAD)
                devices_remove_stale(net);
        routes_remove_stale(net);
        net->sync = SYNC_DONE;
        if (mux_add(net->all->mux, &net->events_io, mnl_socket_get_fd(net->events), MUX_IN, on_events) < 0) {
                network_resynchronise(net);
                return;
        }
        source_on_repaired(&net->all->source, &net->losses);
        network_start_watches(net); /* barriers wait for what was queued meanwhile */
}

static bool is_dumping(const struct network *net) {
        return net->sync == SYNC_LINKS || net->sync == SYNC_ADDRESSES || net->sync == SYNC_ROUTES ||
               net->sync == SYNC_REREAD;
}

static void next_dump(struct network *net) {
        if (net->sync == SYNC_ROUTES || net->sync == SYNC_REREAD) {
                finish_dump(net);
                return;
        }
        net->sync = net->sync == SYNC_LINKS ? SYNC_ADDRESSES : SYNC_ROUTES;
        if (send_dump(net, net->sync == SYNC_ADDRESSES ? RTM_GETADDR : RTM_GETROUTE) < 0)
                network_resynchronise(net);
}

/* ---- reading ---------------------------------------------------------------------- */

/* One datagram's length, 0 for what is nobody's business. -EAGAIN: there is none; or another negative errno. */
static int receive(struct network *net, struct mnl_socket *socket) {
        struct sockaddr_nl sender = { 0 };
        socklen_t size = sizeof(sender);
        ssize_t n = recvfrom(mnl_socket_get_fd(socket), net->all->buffer, RTNETLINK_BUFFER, 0, (struct sockaddr *)&sender,
                             &size);

        if (n < 0)
                return -errno;
        return sender.nl_pid == 0 ? (int)n : 0; /* the kernel's, or not */
}

/* False: there was none. */
static bool read_event(struct network *net) {
        const struct nlmsghdr *header = (const void *)net->all->buffer;
        int n = receive(net, net->events);

        if (n == -EAGAIN)
                return false;
        if (n == -ENOBUFS)
                source_on_loss(&net->all->source, &net->losses);
        if (n < 0 || net->sync == SYNC_LOST) /* in doubt; or not quiet yet */
                network_resynchronise(net);
        for (; n > 0 && mnl_nlmsg_ok(header, n); header = mnl_nlmsg_next(header, &n))
                network_on_message(net, header);
        return true;
}

/* The same. */
static bool read_dump(struct network *net) {
        const struct nlmsghdr *header = (const void *)net->all->buffer;
        int n = receive(net, net->dump);
        bool done = false;

        if (n == -EAGAIN)
                return false;
        if (n < 0)
                network_resynchronise(net);
        for (; n > 0 && mnl_nlmsg_ok(header, n); header = mnl_nlmsg_next(header, &n)) {
                if (header->nlmsg_seq != net->sequence)
                        continue; /* of a dump that was given up */
                if (header->nlmsg_flags & NLM_F_DUMP_INTR || header->nlmsg_type == NLMSG_ERROR)
                        net->dump_interrupted = true;
                if (header->nlmsg_type == NLMSG_DONE || header->nlmsg_type == NLMSG_ERROR)
                        done = true;
                else
                        network_on_message(net, header);
        }
        if (done && is_dumping(net))
                next_dump(net);
        return true;
}

/* Of one that was given up, too: no other is to be had before it was read. */
static bool read_one(struct network *net) {
        return read_dump(net) || (net->events_io.fd >= 0 && read_event(net));
}

/* Who lives in a namespace of their own can have more happen there than is ever read: one datagram of each after the
 * other, and no more than a slice. */
void networks_read(struct mux_deferred *deferred) {
        struct rtnetlink *s = container_of(deferred, struct rtnetlink, read);
        uint64_t end_nsec = monotonic_nsec() + SLICE_NSEC;
        struct list *entry;

        while (monotonic_nsec() < end_nsec && (entry = list_pop(&s->unread))) {
                struct network *net = list_entry(entry, struct network, unread);

                if (read_one(net))
                        list_append(&s->unread, &net->unread);
                else if (net->sync == SYNC_DONE)
                        release_barriers(net);
        }
        if (!list_empty(&s->unread))
                mux_defer(s->mux, &s->read);
}

static void read_later(struct network *net) {
        if (list_empty(&net->unread))
                list_append(&net->all->unread, &net->unread);
        mux_defer(net->all->mux, &net->all->read);
}

static void on_events(struct mux_io *io, unsigned events _unused_) {
        read_later(container_of(io, struct network, events_io));
}

static void on_dump(struct mux_io *io, unsigned events _unused_) {
        read_later(container_of(io, struct network, dump_io));
}

/* ---- opening for the first watch, closing after the last ------------------------------------------------- */

int network_socket(void) {
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, NETLINK_ROUTE);

        return fd < 0 ? -errno : fd;
}

/* Takes the descriptor over. */
static int take_socket(struct mnl_socket **ret, int fd) {
        int r = 0;

        *ret = mnl_socket_fdopen(fd);
        if (!*ret) {
                r = -errno;
                (void)close(fd);
        }
        return r;
}

/* The same. */
static int open_socket(struct network *net, struct mnl_socket **ret, int fd, unsigned groups, size_t buffer) {
        int size = (int)(buffer ? buffer / 2 : RTNETLINK_RECEIVE_BUFFER); /* the kernel doubles it: socket(7) */
        int r = take_socket(ret, fd);

        if (r < 0)
                return r;
        if (mnl_socket_bind(*ret, groups, MNL_SOCKET_AUTOPID) < 0) {
                r = -errno;
                (void)mnl_socket_close(take_pointer(ret));
                return r;
        }
        /* No more than net.core.rmem_max; the broker's helper has seen to more. */
        if (buffer || !net->all->source.context->opener)
                (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
        return 0;
}

void network_end(struct network *net) {
        release_barriers(net);
        list_remove(&net->unread);
        source_forget_losses(&net->all->source, &net->losses);
        mux_timer_clear(net->all->mux, &net->quiet);
        mux_remove(net->all->mux, &net->events_io);
        mux_remove(net->all->mux, &net->dump_io);
        if (net->events)
                (void)mnl_socket_close(take_pointer(&net->events));
        if (net->dump)
                (void)mnl_socket_close(take_pointer(&net->dump));
        routes_free(net);
        hash_for_each(node, &net->devices)
                device_free(net, container_of(node, struct device, node));
        hash_free(&net->devices);
}

int network_begin(struct network *net, int events_fd, int dump_fd) {
        int r = open_socket(net, &net->events, events_fd,
                            RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                                    RTMGRP_IPV6_ROUTE | 1u << (RTNLGRP_NEXTHOP - 1),
                            net->all->source.context->settings.netdev_buffer);

        if (r < 0) {
                (void)close(dump_fd);
                return r;
        }
        r = open_socket(net, &net->dump, dump_fd, 0, 0);
        if (r == 0)
                r = mux_add(net->all->mux, &net->dump_io, mnl_socket_get_fd(net->dump), MUX_IN, on_dump);
        return r == 0 ? start_dump(net) : r;
}

int network_resume(struct network *net, int events_fd, int dump_fd) {
        int r = take_socket(&net->events, events_fd);

        if (r < 0) {
                (void)close(dump_fd);
                return r;
        }
        r = take_socket(&net->dump, dump_fd);
        if (r == 0)
                r = mux_add(net->all->mux, &net->dump_io, mnl_socket_get_fd(net->dump), MUX_IN, on_dump);
        if (r == 0)
                r = mux_add(net->all->mux, &net->events_io, mnl_socket_get_fd(net->events), MUX_IN, on_events);
        net->sync = SYNC_DONE;
        net->has_dead_ways = true; /* it may have */
        return r;
}

bool network_barrier(struct network *net, struct source_barrier *barrier) {
        if (net->sync == SYNC_OPENING || (net->sync == SYNC_DONE && list_empty(&net->unread)))
                return false;
        if (list_empty(&net->barriers))
                (void)mux_timer_set(net->all->mux, &net->barrier_timer,
                                    monotonic_nsec() + BARRIER_MAX_MSEC * NSEC_PER_MSEC, on_barrier_timer);
        list_append(&net->barriers, &barrier->link);
        return true;
}
