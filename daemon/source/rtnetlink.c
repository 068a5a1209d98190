/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The source of netdev watches, and the network namespaces that they are about: rtnetlink.h has the design. */

#include "rtnetlink.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "observer.h"

static struct rtnetlink *rtnetlink_of(const struct source *source) {
        return container_of(source, struct rtnetlink, source);
}

/* ---- namespaces -------------------------------------------------------------------------------------- */

struct network *network_find(const struct rtnetlink *s, const struct asker *asker) {
        uint64_t inode = asker->other_network ? asker->network : s->own;

        list_for_each(entry, &s->networks) {
                struct network *net = list_entry(entry, struct network, link);

                if (net->inode == inode && net->sync != SYNC_FAILED)
                        return net;
        }
        return NULL;
}

static void refuse_starting(struct network *net, int error) {
        const struct sink *sink = net->all->source.context->sink;
        struct list *entry;

        net->sync = SYNC_FAILED;
        while ((entry = list_pop(&net->starting))) {
                struct refusal refusal;

                (void)refuse(&refusal, error, "netdev: the network namespace can't be watched: %s", strerror(error));
                sink->attached(list_entry(entry, struct subscription, link), &refusal);
        }
}

static void on_helper(struct helper *helper, int error, int fd);

/* Asks for the next socket. */
static int ask_for_socket(struct network *net) {
        static const struct helper_request request = { .kind = HELPER_NETWORK, .buffer_bytes = RTNETLINK_RECEIVE_BUFFER };

        return helper_start_with(net->all->source.context->opener, &net->helper, &request, net->namespace_fd, on_helper);
}

static void on_helper(struct helper *helper, int error, int fd) {
        struct network *net = container_of(helper, struct network, helper);
        int r = -error;

        helper_close(helper);
        if (r == 0 && fd < 0)
                r = -EIO;
        if (r == 0 && net->events_fd < 0) {
                net->events_fd = fd;
                r = ask_for_socket(net);
        } else if (r == 0)
                r = network_begin(net, take_fd(&net->events_fd), fd); /* which keep the namespace */
        else
                (void)safe_close(fd);
        if (r < 0 || net->sync != SYNC_OPENING)
                net->namespace_fd = safe_close(net->namespace_fd);
        if (r < 0)
                refuse_starting(net, -r);
}

/* That of a process which was there as it connected; -EXDEV: it can't be had. */
static int open_namespace(const struct asker *asker) {
        int fd = observer_open_network(asker->pid);
        struct stat st;

        if (fd >= 0 && fstat(fd, &st) == 0 && st.st_ino == asker->network)
                return fd;
        (void)safe_close(fd);
        return -EXDEV;
}

/* Takes the namespace's descriptor over, which is -1 for the daemon's own. */
static int start_network(struct network *net, int namespace_fd) {
        int events, dump;

        net->namespace_fd = namespace_fd;
        if (namespace_fd >= 0 || net->all->source.context->opener)
                return ask_for_socket(net);
        events = network_socket();
        dump = events < 0 ? -1 : network_socket();
        if (dump >= 0)
                return network_begin(net, events, dump);
        (void)safe_close(events);
        return events < 0 ? events : dump;
}

void network_free(struct network *net) {
        network_end(net);
        helper_close(&net->helper);
        (void)safe_close(net->namespace_fd);
        (void)safe_close(net->events_fd);
        list_remove(&net->link);
        free(net);
}

struct network *network_new(struct rtnetlink *s, uint64_t inode) {
        struct network *net = calloc(1, sizeof(*net));

        if (!net)
                return NULL;
        net->all = s;
        net->inode = inode;
        net->namespace_fd = net->events_fd = -1;
        net->events_io = net->dump_io = MUX_IO_INIT;
        net->quiet = net->barrier_timer = MUX_TIMER_INIT;
        list_init(&net->routes);
        list_init(&net->everybody);
        list_init(&net->starting);
        list_init(&net->barriers);
        list_init(&net->unread);
        list_init(&net->link);
        return net;
}

static int get_network(struct rtnetlink *s, const struct asker *asker, struct network **ret) {
        int fd _cleanup_(closep) = asker->other_network ? open_namespace(asker) : -1, r;
        struct network *net;

        if (asker->other_network && fd < 0)
                return fd;
        net = network_find(s, asker); /* its inode is that namespace's for as long as it is open */
        *ret = net;
        if (net)
                return 0;
        net = network_new(s, asker->other_network ? asker->network : s->own);
        if (!net)
                return -ENOMEM;
        r = start_network(net, take_fd(&fd));
        if (r < 0) {
                network_free(net);
                return r;
        }
        list_append(&s->networks, &net->link);
        *ret = net;
        return 0;
}

/* The sockets keep a namespace that nobody may need any more. */
static void on_tidy(struct mux_deferred *deferred) {
        struct rtnetlink *s = container_of(deferred, struct rtnetlink, tidy);

        list_for_each(entry, &s->networks) {
                struct network *net = list_entry(entry, struct network, link);

                if (net->n_watches == 0)
                        network_free(net);
        }
}

/* ---- attach ------------------------------------------------------------------------------------------ */

static int check_asker(const struct rtnetlink *s, const struct asker *asker, struct refusal *refusal) {
        if (!asker->other_network || (asker->network && s->source.context->broker))
                return 0;
        return refuse(refusal, EXDEV, "netdev: the caller lives in another network namespace, which %s",
                      s->source.context->broker ? "can't be told" : "this daemon may not enter");
}

int netdev_watch_join(struct netdev_watch *w, struct device *d, struct refusal *refusal) {
        struct hash *shares = &w->network->all->shares;
        const void *thing = d ? (const void *)d : w->network;

        if (share_count(shares, thing, w->uid) >= USER_WATCHES_MAX)
                return refuse(refusal, EDQUOT, "%s: the limit of %d watches of %s is reached", d ? "name" : "filter",
                              USER_WATCHES_MAX, d ? "one device" : "all devices");
        if (share_take(shares, thing, w->uid) < 0)
                return refuse(refusal, ENOMEM, "no memory");
        w->shared = thing;
        w->device = d;
        list_append(d ? &d->subscriptions : &w->network->everybody, &w->subscription->link);
        return 0;
}

void netdev_watch_leave(struct netdev_watch *w) {
        list_remove(&w->subscription->link);
        w->device = NULL;
        if (w->shared)
                share_return(&w->network->all->shares, take_pointer(&w->shared), w->uid);
}

static int follow(struct network *net, struct netdev_watch *w, struct refusal *refusal) {
        struct device *d = w->name[0] ? device_find_by_name(net, w->name) : NULL;

        if (w->name[0] && !d)
                return refuse(refusal, ENODEV, "name: there is no network device \"%s\"", w->name);
        return netdev_watch_join(w, d, refusal);
}

void network_start_watches(struct network *net) {
        const struct sink *sink = net->all->source.context->sink;
        struct list *entry;
        struct list waiting;

        list_init(&waiting);
        list_splice(&waiting, &net->starting);
        while ((entry = list_pop(&waiting))) {
                struct subscription *subscription = list_entry(entry, struct subscription, link);
                struct refusal refusal;
                int r = follow(net, subscription->object, &refusal);

                sink->attached(subscription, r < 0 ? &refusal : NULL);
        }
}

static void free_watch(struct rtnetlink *s, struct netdev_watch *w) {
        netdev_watch_leave(w);
        w->network->n_watches--;
        free(w);
        mux_defer(s->mux, &s->tidy);
}

static int rtnetlink_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                            struct refusal *refusal) {
        struct rtnetlink *s = rtnetlink_of(source);
        struct network *net = NULL;
        struct netdev_watch *w;
        int r = check_asker(s, subject->asker, refusal);

        if (r < 0)
                return r;
        if (subject->name && strlen(subject->name) >= IFNAMSIZ)
                return refuse(refusal, ENODEV, "name: no network device has so long a name");
        r = get_network(s, subject->asker, &net);
        if (r < 0)
                return refuse(refusal, -r, "netdev: %s",
                              r == -EXDEV ? "who connected has gone, and its network namespace can't be had" :
                                            strerror(-r));
        w = calloc(1, sizeof(*w));
        if (!w) {
                mux_defer(s->mux, &s->tidy);
                return refuse(refusal, ENOMEM, "no memory");
        }
        w->subscription = subscription;
        w->network = net;
        w->uid = subject->asker->uid;
        net->n_watches++;
        if (subject->name)
                (void)snprintf(w->name, sizeof(w->name), "%s", subject->name);
        if (net->sync == SYNC_DONE) {
                r = follow(net, w, refusal);
                if (r < 0) {
                        free_watch(s, w);
                        return r;
                }
                subscription->object = w;
                return 0;
        }
        subscription->object = w;
        list_append(&net->starting, &subscription->link);
        return 1;
}

static void rtnetlink_detach(struct source *source, struct subscription *subscription) {
        free_watch(rtnetlink_of(source), take_pointer(&subscription->object));
}

static bool rtnetlink_barrier(struct source *source, struct source_barrier *barrier) {
        struct network *net = network_find(rtnetlink_of(source), barrier->asker);

        return net && network_barrier(net, barrier);
}

/* ---- the source ---------------------------------------------------------------------------------------- */

static int rtnetlink_open(struct source_context *context, struct source **ret_source) {
        struct rtnetlink *s = calloc(1, sizeof(*s));
        struct stat st;

        if (!s)
                return -ENOMEM;
        s->buffer = malloc(RTNETLINK_BUFFER);
        if (!s->buffer) {
                free(s);
                return -ENOMEM;
        }
        s->mux = context->mux;
        s->own = stat("/proc/self/ns/net", &st) == 0 ? st.st_ino : 0;
        list_init(&s->networks);
        list_init(&s->unread);
        mux_deferred_init(&s->read, networks_read);
        mux_deferred_init(&s->tidy, on_tidy);
        *ret_source = &s->source;
        return 0;
}

static void rtnetlink_close(struct source *source) {
        struct rtnetlink *s = rtnetlink_of(source);

        while (!list_empty(&s->networks))
                network_free(list_entry(s->networks.next, struct network, link));
        mux_deferred_cancel(&s->read);
        mux_deferred_cancel(&s->tidy);
        hash_free(&s->shares);
        free(s->buffer);
        free(s);
}

/* Namespaces. */
static uint64_t rtnetlink_registrations(const struct source *source) {
        uint64_t n = 0;

        list_for_each(entry, &rtnetlink_of(source)->networks)
                n++;
        return n;
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
        .detach = rtnetlink_detach,
        .barrier = rtnetlink_barrier,
        .registrations = rtnetlink_registrations,
        .mechanism = rtnetlink_mechanism,
        .describe = rtnetlink_describe,
        .is_settled = rtnetlink_is_settled,
        .save_source = rtnetlink_save_source,
        .load_source = rtnetlink_load_source,
        .save = rtnetlink_save,
        .restore = rtnetlink_restore,
        .restored = rtnetlink_restored,
};
