/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Network namespaces for the next daemon: their sockets, in which the kernel goes on queuing messages, and the state
 * that these are to be compared with.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rtnetlink.h"
#include "state.h"

/* ---- writing ------------------------------------------------------------------------------------------ */

static void put_device(struct state_writer *w, const struct device *d) {
        state_put_i64(w, d->index);
        state_put_string(w, d->name);
        state_put_u64(w, d->flags);
        state_put_bool(w, d->carrier);
        state_put_u64(w, d->oper_state);
        state_put_u64(w, d->mtu);
        state_put_string(w, d->hardware);
        state_put_u64(w, d->ups);
        state_put_u64(w, d->downs);
        state_put_u64(w, d->n_addresses);
        list_for_each(entry, &d->addresses)
                state_put_string(w, list_entry(entry, struct address, link)->text);
}

static void put_route(struct state_writer *w, const struct route *route) {
        state_put_u64(w, route->family);
        state_put_u64(w, route->tos);
        state_put_u64(w, route->table);
        state_put_u64(w, route->metric);
        state_put_i64(w, route->index);
        state_put_string(w, route->gateway);
}

static void put_network(struct state_writer *w, const struct network *net) {
        size_t n = 0;

        state_put_u64(w, net->inode);
        state_put_fd(w, mnl_socket_get_fd(net->events));
        state_put_fd(w, mnl_socket_get_fd(net->dump));
        state_put_u64(w, net->sequence);
        state_put_u64(w, net->devices.n_nodes);
        hash_for_each(node, &net->devices)
                put_device(w, container_of(node, struct device, node));
        list_for_each(entry, &net->routes)
                n++;
        state_put_u64(w, n);
        list_for_each(entry, &net->routes)
                put_route(w, list_entry(entry, struct route, link));
}

bool rtnetlink_is_settled(const struct source *source) {
        const struct rtnetlink *s = container_of(source, struct rtnetlink, source);

        list_for_each(entry, &s->networks)
                if (list_entry(entry, struct network, link)->sync < SYNC_DONE)
                        return false;
        return true;
}

/* One whose state is in doubt is left out: its watches are made anew. */
void rtnetlink_save_source(struct source *source, struct state_writer *w) {
        struct rtnetlink *s = container_of(source, struct rtnetlink, source);

        list_for_each(entry, &s->networks) {
                const struct network *net = list_entry(entry, struct network, link);
                size_t begin;

                if (net->sync != SYNC_DONE)
                        continue;
                begin = state_begin(w);
                put_network(w, net);
                state_end(w, begin);
        }
}

bool rtnetlink_save(struct source *source _unused_, struct subscription *subscription, struct state_writer *w) {
        const struct netdev_watch *watch = subscription->object;

        state_put_u64(w, watch->network->inode);
        state_put_bool(w, watch->device != NULL);
        state_put_i64(w, watch->device ? watch->device->index : 0);
        return watch->network->sync == SYNC_DONE;
}

void rtnetlink_describe(const struct subscription *subscription, struct subject *subject) {
        const struct netdev_watch *watch = subscription->object;

        subject->name = watch->name[0] ? watch->name : NULL;
}

/* ---- reading ------------------------------------------------------------------------------------------ */

static bool get_text(struct state_reader *r, char *ret, size_t size) {
        const char *text = state_get_string(r);

        if (!text || strlen(text) >= size)
                return false;
        memcpy(ret, text, strlen(text) + 1);
        return true;
}

static bool get_device(struct network *net, struct state_reader *r) {
        int64_t index = state_get_i64(r);
        struct device *d = index > 0 && index <= INT32_MAX && !device_find(net, (int)index) ?
                                   device_new(net, (int)index) : NULL;
        size_t n;

        if (!d || !get_text(r, d->name, sizeof(d->name)))
                return false;
        d->flags = (unsigned)state_get_u64(r);
        d->carrier = state_get_bool(r);
        d->oper_state = (uint8_t)state_get_u64(r);
        d->mtu = (uint32_t)state_get_u64(r);
        if (!get_text(r, d->hardware, sizeof(d->hardware)))
                return false;
        d->ups = (uint32_t)state_get_u64(r);
        d->downs = (uint32_t)state_get_u64(r);
        n = state_get_count(r, sizeof(uint64_t));
        for (size_t i = 0; i < n; i++) {
                char text[sizeof(((struct address *)0)->text)];

                if (!get_text(r, text, sizeof(text)) || !device_add_address(d, text, net->generation))
                        return false;
        }
        return !r->failed;
}

static bool get_route(struct network *net, struct state_reader *r) {
        struct route *route = calloc(1, sizeof(*route));

        if (!route)
                return false;
        list_init(&route->link);
        list_append(&net->routes, &route->link);
        route->generation = net->generation;
        route->family = (uint8_t)state_get_u64(r);
        route->tos = (uint8_t)state_get_u64(r);
        route->table = (uint32_t)state_get_u64(r);
        route->metric = (uint32_t)state_get_u64(r);
        route->index = (int)state_get_i64(r);
        return get_text(r, route->gateway, sizeof(route->gateway)) && !r->failed;
}

static bool get_all(struct network *net, struct state_reader *r) {
        size_t n = state_get_count(r, sizeof(uint64_t));

        for (size_t i = 0; i < n; i++)
                if (!get_device(net, r))
                        return false;
        n = state_get_count(r, sizeof(uint64_t));
        for (size_t i = 0; i < n; i++)
                if (!get_route(net, r))
                        return false;
        return !r->failed;
}

static void load_network(struct rtnetlink *s, struct state_reader *r) {
        struct network *net = network_new(s, state_get_u64(r));
        int events = state_get_fd(r), dump = state_get_fd(r);

        if (!net || events < 0 || dump < 0) {
                (void)safe_close(events);
                (void)safe_close(dump);
                free(net);
                return;
        }
        net->sequence = (uint32_t)state_get_u64(r);
        if (!get_all(net, r)) {
                (void)close(events);
                (void)close(dump);
                network_free(net);
                return;
        }
        list_append(&s->networks, &net->link);
        if (network_resume(net, events, dump) < 0)
                network_free(net);
}

void rtnetlink_load_source(struct source *source, struct state_reader *r) {
        while (!state_is_at_end(r)) {
                struct state_reader section = state_get_section(r);

                load_network(container_of(source, struct rtnetlink, source), &section);
        }
}

int rtnetlink_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                      struct state_reader *r, struct refusal *refusal) {
        struct rtnetlink *s = container_of(source, struct rtnetlink, source);
        struct network *net = network_find(s, subject->asker);
        uint64_t inode = state_get_u64(r);
        bool has_device = state_get_bool(r);
        int64_t index = state_get_i64(r);
        struct netdev_watch *w;
        struct device *d;
        int result = 0;

        if (r->failed || !net || net->inode != inode || (subject->name && strlen(subject->name) >= IFNAMSIZ))
                return -EBADMSG;
        w = calloc(1, sizeof(*w));
        if (!w)
                return refuse(refusal, ENOMEM, "no memory");
        w->subscription = subscription;
        w->network = net;
        w->uid = subject->asker->uid;
        net->n_watches++;
        (void)snprintf(w->name, sizeof(w->name), "%s", subject->name ? subject->name : "");
        d = has_device ? device_find(net, (int)index) : NULL;
        if (d || !subject->name)
                result = netdev_watch_join(w, d, refusal);
        if (result < 0) {
                net->n_watches--;
                free(w);
                return result;
        }
        subscription->object = w;
        return 0;
}

/* Those that nobody watches any more. */
void rtnetlink_restored(struct source *source) {
        struct rtnetlink *s = container_of(source, struct rtnetlink, source);

        mux_defer(s->mux, &s->tidy);
}
