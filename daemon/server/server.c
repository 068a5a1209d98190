/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "server.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "connection.h"
#include "live.h"
#include "log.h"
#include "observer.h"

enum {
        ACCEPTS_A_TURN = 64,
        ACCEPTS_NSEC = 100 * 1000, /* about so long at most: it takes a look at each peer */
        ACCEPT_AGAIN_MSEC = 100, /* after the daemon ran out of descriptors, or memory */
        OBSERVER_AGAIN_MSEC = 5, /* while the observer is not there yet, */
        OBSERVER_SEC = 5,        /* for as long after the start */
};

static const char *const mode_names[] = {
        [MODE_SYSTEM] = "system",
        [MODE_USER] = "user",
        [MODE_PRIVATE] = "private",
};

const char *mode_name(enum mode mode) {
        return mode_names[mode];
}

int mode_from_name(const char *name, enum mode *ret_mode) {
        for (size_t i = 0; i < ARRAY_SIZE(mode_names); i++)
                if (strcmp(mode_names[i], name) == 0) {
                        *ret_mode = (enum mode)i;
                        return 0;
                }
        return -EINVAL;
}

static void on_watches(struct queue_context *context) {
        server_figures_changed(container_of(context, struct server, queues));
}

void server_figures_changed(struct server *s) {
        if (s->on_figures)
                mux_defer(s->mux, s->on_figures);
}

/* ---- turns ---------------------------------------------------------------------------- */

static uint64_t work_so_far(const struct server *s) {
        return s->work_begin > 0 ? monotonic_nsec() - s->work_begin : 0;
}

static bool turn_has_room(const struct server *s) {
        return s->turn != mux_turn(s->mux) || s->work_nsec + work_so_far(s) < TURN_NSEC;
}

bool server_has_room(struct server *s, const struct account *account) {
        return turn_has_room(s) && (account->turn != mux_turn(s->mux) ||
                                    account->work_nsec + work_so_far(s) < TURN_NSEC_OF_USER);
}

bool server_is_behind(const struct server *s) {
        return !list_empty(&s->postponed);
}

void server_charge_work(struct server *s, struct account *account, uint64_t nsec) {
        uint64_t turn = mux_turn(s->mux);

        if (s->turn != turn)
                s->work_nsec = 0;
        if (account->turn != turn)
                account->work_nsec = 0;
        s->turn = account->turn = turn;
        if (s->work_begin > 0) /* it is measured anyway */
                return;
        s->work_nsec += nsec;
        account->work_nsec += nsec;
}

void server_begin_work(struct server *s, struct account *account) {
        server_charge_work(s, account, 0);
        s->work_begin = monotonic_nsec();
}

void server_end_work(struct server *s, struct account *account) {
        uint64_t nsec = work_so_far(s);

        s->work_begin = 0;
        server_charge_work(s, account, nsec);
}

static void give_turn(struct server *s, struct account *account) {
        if (list_empty(&account->in_turn))
                list_append(&s->postponed, &account->in_turn);
        mux_defer(s->mux, &s->next_turn);
}

void server_postpone(struct server *s, struct connection *c) {
        if (list_empty(&c->postponed))
                list_append(&c->account->postponed, &c->postponed);
        give_turn(s, c->account);
}

void server_let_wait(struct connection *c) {
        if (list_empty(&c->postponed))
                list_append(&c->account->waiting, &c->postponed);
}

void server_end_long_call(struct server *s, struct account *account) {
        account->long_call = NULL;
        if (list_empty(&account->waiting))
                return;
        list_splice(&account->postponed, &account->waiting);
        give_turn(s, account);
}

/* Puts what is left of a list back: who had no turn goes before who had one. */
static void put_back(struct list *postponed, struct list *left) {
        list_splice(left, postponed);
        list_splice(postponed, left);
}

/* Before the others in every second turn, and behind them in the rest, so that neither takes all the room there is. */
static void order_long_call(struct server *s, struct connection *c, struct list *connections) {
        struct list others;

        list_init(&others);
        list_remove(&c->postponed);
        if (mux_turn(s->mux) % 2)
                list_splice(&others, connections);
        list_append(connections, &c->postponed);
        list_splice(connections, &others);
}

static void run_postponed(struct server *s, struct account *account) {
        struct list now;
        struct list *entry;

        (void)account_ref(account); /* its last connection may end */
        list_init(&now);
        list_splice(&now, &account->postponed);
        if (account->long_call)
                order_long_call(s, account->long_call, &now);
        while (server_has_room(s, account) && (entry = list_pop(&now)))
                connection_flush(list_entry(entry, struct connection, postponed));
        put_back(&account->postponed, &now);
        if (!list_empty(&account->postponed) && list_empty(&account->in_turn))
                list_append(&s->postponed, &account->in_turn);
        account_unref(account);
}

/* It was deferred in the turn before, and so comes before what this turn has brought. */
static void on_next_turn(struct mux_deferred *deferred) {
        struct server *s = container_of(deferred, struct server, next_turn);
        struct list now;
        struct list *entry;

        list_init(&now);
        list_splice(&now, &s->postponed);
        while (turn_has_room(s) && (entry = list_pop(&now)))
                run_postponed(s, list_entry(entry, struct account, in_turn));
        put_back(&s->postponed, &now);
        if (!list_empty(&s->postponed))
                mux_defer(s->mux, &s->next_turn);
}

/* ---- life ------------------------------------------------------------------------------ */

int server_open(struct server *s, struct mux *mux, struct workers *workers, enum mode mode,
                const struct source_settings *settings, const struct limits *limits, int broker_fd) {
        int r;

        *s = (struct server){
                .mux = mux,
                .workers = workers,
                .mode = mode,
                .start_usec = monotonic_nsec() / NSEC_PER_USEC,
        };
        list_init(&s->connections);
        list_init(&s->postponed);
        mux_deferred_init(&s->next_turn, on_next_turn);
        accounts_init(&s->accounts, limits);
        r = closer_open(&s->closer, mux, workers);
        if (r < 0)
                return r;
        sources_open(&s->sources, mux, workers, &queue_sink, settings, broker_fd);
        queue_context_init(&s->queues, &s->sources);
        s->queues.changed = on_watches;
        return 0;
}

void server_close(struct server *s) {
        mux_timer_clear(s->mux, &s->accept_again);
        mux_timer_clear(s->mux, &s->settle_timer);
        for (size_t i = 0; i < s->n_listeners; i++) {
                mux_remove(s->mux, &s->listeners[i].io);
                (void)close(s->listeners[i].fd);
        }
        s->n_listeners = 0;
        live_close(s);
        while (!list_empty(&s->connections))
                connection_free(list_entry(s->connections.next, struct connection, link));
        mux_deferred_cancel(&s->next_turn);
}

void server_free(struct server *s) {
        closer_close(&s->closer);
        buffer_free(&s->spare_in);
        buffer_free(&s->spare_out);
        accounts_free(&s->accounts);
        queue_context_free(&s->queues);
        sources_close(&s->sources);
}

int server_serve(struct server *s, int fd) {
        struct connection *c;
        int r = connection_new(s, fd, &c);

        if (r < 0)
                s->turned_away++;
        else
                s->accepted++;
        return r;
}

static void listen_again(struct mux_timer *timer) {
        struct server *s = container_of(timer, struct server, accept_again);

        for (size_t i = 0; i < s->n_listeners; i++)
                (void)mux_modify(s->mux, &s->listeners[i].io, MUX_IN);
}

/* What waits in the backlog goes on waiting. */
static void pause_accepting(struct server *s, uint64_t msec) {
        for (size_t i = 0; i < s->n_listeners; i++)
                (void)mux_modify(s->mux, &s->listeners[i].io, 0);
        (void)mux_timer_set(s->mux, &s->accept_again, monotonic_nsec() + msec * NSEC_PER_MSEC, listen_again);
}

/* A broker may be slow to start, and who is to be served already does not wait for it. */
static bool can_identify(struct server *s) {
        return observer_is_ready() || monotonic_nsec() / NSEC_PER_USEC > s->start_usec + OBSERVER_SEC * USEC_PER_SEC;
}

static void on_connect(struct mux_io *io, unsigned events _unused_) {
        struct listener *l = container_of(io, struct listener, io);
        uint64_t end = monotonic_nsec() + ACCEPTS_NSEC;

        if (!can_identify(l->server)) {
                pause_accepting(l->server, OBSERVER_AGAIN_MSEC);
                return;
        }
        for (int i = 0; i < ACCEPTS_A_TURN && monotonic_nsec() < end; i++) {
                int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), r;

                if (fd < 0) {
                        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                                log_warning("connections are not accepted for a moment: %s", strerror(errno));
                                pause_accepting(l->server, ACCEPT_AGAIN_MSEC);
                        }
                        return;
                }
                r = server_serve(l->server, fd);
                if (r < 0 && r != -EDQUOT) /* of which it has told */
                        log_info("a connection was turned away: %s", strerror(-r));
        }
}

int server_listen(struct server *s, int fd) {
        struct listener *l = &s->listeners[s->n_listeners];
        int r = s->n_listeners < LISTENERS_MAX ? mux_add(s->mux, &l->io, fd, MUX_IN, on_connect) : -E2BIG;

        if (r < 0) {
                (void)close(fd);
                return r;
        }
        l->server = s;
        l->fd = fd;
        s->n_listeners++;
        return 0;
}

size_t server_let_observe(struct server *server, pid_t pid, uid_t uid) {
        size_t n = 0;

        list_for_each(entry, &server->connections) {
                struct connection *c = list_entry(entry, struct connection, link);

                if (c->asker.pid != pid || c->asker.uid != uid || c->asker.other_pids)
                        continue;
                live_touch(c);
                c->asker.observes = true;
                c->queue.version++; /* it is written down with the watches */
                mux_defer(server->mux, &c->flush);
                n++;
        }
        return n;
}

/* ---- what the administrator wants ----------------------------------------------------- */

void server_reload(struct server *server, struct reload_waiter *waiter) {
        server->reload->request(server->reload, waiter);
}

void server_configure(struct server *s, const struct limits *limits, const struct source_settings *settings) {
        s->accounts.limits = *limits;
        s->sources.context.settings.has_observers = settings->has_observers;
        s->sources.context.settings.observers = settings->observers;
        list_for_each(entry, &s->connections)
                list_entry(entry, struct connection, link)->queue.bytes_max =
                        connection_queue_bytes(list_entry(entry, struct connection, link)->account);
        if (s->on_configured)
                mux_defer(s->mux, s->on_configured);
}

int server_disconnect(struct server *s, uint64_t id) {
        list_for_each(entry, &s->connections) {
                struct connection *c = list_entry(entry, struct connection, link);

                if (c->id != id)
                        continue;
                log_notice("connection %llu, of pid %d, user %u, is ended as an administrator asks",
                           (unsigned long long)id, (int)c->asker.pid, (unsigned)c->asker.uid);
                connection_doom(c);
                return 0;
        }
        return -ENOENT;
}
