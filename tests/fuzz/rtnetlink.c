/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Messages of rtnetlink, in any order, within dumps and outside. What is told of a device can be sent, and is of a
 * device that there is.
 *
 * The input is records: a type, flags, the size of what follows, and that behind the header of the message. Two types
 * begin and end a dump, and one adds a watch of a device by its name.
 */

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "buffer.h"
#include "fuzz.h"
#include "rtnetlink.h"

enum { WATCHES_MAX = 8 };

static struct mux *mux;
static struct subscription everything;
static struct subscription *attached[WATCHES_MAX];
static size_t n_attached;

/* ---- what is told -------------------------------------------------------------------------------------------- */

static void on_report(struct subscription *subscription, struct report *report) {
        struct event template = {
                .filter = KEV_FILTER_NETDEV, .notes = report->notes, .flags = report->flags, .count = report->count,
                .realtime_usec = report->realtime_usec, .data = report->data, .link = report->link,
        };
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;
        const struct netdev_watch *w = subscription->object;
        struct event *event = NULL, *found = NULL;
        struct json_object *json;

        fuzz_assert(report->notes != 0 && (report->notes & ~kev_filter_notes(KEV_FILTER_NETDEV)) == 0);
        fuzz_assert(report->link);
        fuzz_assert(subscription == &everything || w->device);
        fuzz_assert(event_new(&template, &event) == 0);
        event_put(&b, event, 1, 1);
        json = fuzz_parse(b.data, b.size);
        fuzz_assert(event_from_json(json, &found) == (report->link->index < 0 ? -EBADMSG : 0));
        json_object_put(json);
        event_unref(found);
        event_unref(event);
}

/* Of watches by name. */
static void on_attached(struct subscription *subscription, const struct refusal *refusal) {
        struct netdev_watch *w = subscription->object;

        if (!refusal) {
                attached[n_attached++] = subscription;
                return;
        }
        fuzz_assert(refusal->error == ENODEV && !w->device);
        free(w);
        free(subscription);
}

static const struct sink sink = { .report = on_report, .attached = on_attached };

/* ---- what happens -------------------------------------------------------------------------------------------- */

static const uint16_t types[] = {
        RTM_NEWLINK, RTM_DELLINK, RTM_NEWADDR, RTM_DELADDR, RTM_NEWROUTE, RTM_DELROUTE, RTM_DELNEXTHOP,
};
enum { DUMP_BEGIN = ARRAY_SIZE(types), DUMP_END, WATCH, KINDS };

static void on_message(struct network *net, uint16_t type, uint8_t flags, const uint8_t *data, size_t size) {
        char *message;
        struct nlmsghdr header = {
                .nlmsg_len = (uint32_t)(MNL_NLMSG_HDRLEN + size), .nlmsg_type = type,
                .nlmsg_flags = flags & 1 ? NLM_F_REPLACE : 0,
        };
        int left = (int)header.nlmsg_len;

        message = calloc(1, MNL_ALIGN(header.nlmsg_len)); /* with the padding that libmnl relies on */
        fuzz_assert(message);
        memcpy(message, &header, sizeof(header));
        if (size > 0)
                memcpy(message + MNL_NLMSG_HDRLEN, data, size);
        fuzz_assert(mnl_nlmsg_ok((const void *)message, left));
        network_on_message(net, (const void *)message);
        free(message);
}

static void add_watch(struct network *net, const uint8_t *data, size_t size) {
        struct subscription *subscription;
        struct netdev_watch *w;

        if (n_attached == WATCHES_MAX || net->sync != SYNC_DONE)
                return;
        subscription = calloc(1, sizeof(*subscription));
        w = calloc(1, sizeof(*w));
        fuzz_assert(subscription && w);
        subscription->object = w;
        w->subscription = subscription;
        w->network = net;
        memcpy(w->name, data, MIN(size, sizeof(w->name) - 1));
        if (w->name[0] == 0)
                w->name[0] = 'l';
        list_init(&subscription->link);
        list_append(&net->starting, &subscription->link);
        network_start_watches(net);
}

/* The kernel isn't asked: a dump is what the input says. */
static void settle(struct network *net) {
        if (net->sync == SYNC_LOST || net->sync == SYNC_REREAD)
                net->sync = SYNC_DONE;
        mux_timer_clear(mux, &net->quiet);
}

static void step(struct network *net, struct input *in) {
        uint8_t kind = input_byte(in) % KINDS, flags = input_byte(in);
        size_t size;
        const uint8_t *data;

        data = input_bytes(in, input_number(in, 2) % 4096, &size);
        if (kind < ARRAY_SIZE(types))
                on_message(net, types[kind], flags, data, size);
        else if (kind == WATCH)
                add_watch(net, data, size);
        else if (kind == DUMP_BEGIN && net->sync == SYNC_DONE) {
                net->generation++;
                net->sync = SYNC_LINKS;
        } else if (kind == DUMP_END && net->sync == SYNC_LINKS) {
                devices_remove_stale(net);
                routes_remove_stale(net);
                net->sync = SYNC_DONE;
        }
        settle(net);
}

/* ---- a namespace ------------------------------------------------------------------------------------------------ */

static void begin(void) {
        fuzz_assert(mux_open(NULL, &mux) == 0);
}

static void end(void) {
        mux = mux_close(mux);
}

static void expect_state(const struct network *net) {
        for (size_t i = 0; i < n_attached; i++) {
                const struct netdev_watch *w = attached[i]->object;

                fuzz_assert(!w->device || device_find(net, w->device->index) == w->device);
        }
        hash_for_each(node, &net->devices) {
                const struct device *d = container_of(node, struct device, node);
                size_t n = 0;

                fuzz_assert(memchr(d->name, 0, sizeof(d->name)));
                list_for_each(entry, &d->addresses)
                        n++;
                fuzz_assert(n == d->n_addresses);
        }
}

static void input(const uint8_t *data, size_t size) {
        struct source_context context = { .mux = mux, .sink = &sink, .upper = &sink };
        struct rtnetlink all = { .source = { .class = &source_rtnetlink, .context = &context }, .mux = mux };
        struct network net = { .all = &all, .sync = SYNC_DONE, .namespace_fd = -1, .events_fd = -1 };
        struct netdev_watch w = { .subscription = &everything, .network = &net };
        struct input in = { data, size };

        net.events_io = net.dump_io = MUX_IO_INIT;
        list_init(&all.networks);
        list_init(&net.routes);
        list_init(&net.everybody);
        list_init(&net.starting);
        list_init(&net.barriers);
        list_init(&net.unread);
        list_init(&all.unread);
        /* Nobody is at its other end: a dump can't be asked for. */
        net.dump = mnl_socket_open(NETLINK_USERSOCK);
        fuzz_assert(net.dump);
        everything = (struct subscription){ .source = &all.source, .object = &w };
        list_init(&everything.link);
        list_append(&net.everybody, &everything.link);
        while (in.size > 0) {
                step(&net, &in);
                expect_state(&net);
        }
        for (size_t i = 0; i < n_attached; i++) {
                netdev_watch_leave(attached[i]->object);
                free(attached[i]->object);
                free(attached[i]);
        }
        n_attached = 0;
        network_end(&net);
        fuzz_assert(all.shares.n_nodes == 0);
        hash_free(&all.shares);
}

const struct fuzz_target fuzz_target = { .begin = begin, .input = input, .end = end };
