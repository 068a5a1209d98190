/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What this daemon leaves to the next one, so that its clients don't notice that it ends.
 *
 * First it settles: no call is run and nothing is read any more, and each connection has a barrier, as a Wait has. Once
 * these are past, all that has happened up to then is in the queues. What happens later is in the kernel's, or in the
 * queues too: the sources have a moment to be done with what they are just about. Then everything is written down in one
 * go (util/state.h). The next daemon begins with it: the sources first, then each connection with its watches. While
 * these are being made a connection has no call (CALL_RESTORE); then it goes on with its Wait, which has a barrier again.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "connection.h"
#include "log.h"
#include "peer.h"
#include "state.h"

enum {
        SETTLE_MSEC = 2000,
        SOURCES_SETTLE_MSEC = 100, /* after all connections have */
        RETRY_USEC = 500,
};

/* ---- settling -------------------------------------------------------------------------- */

void connection_settle(struct connection *c) {
        if (c->call == CALL_NONE || c->call == CALL_WAIT) /* else it has one, or will */
                mux_barrier_add(c->server->mux, &c->mux_barrier);
        else if (c->change)
                change_finish(c);
}

static void on_settle_timer(struct mux_timer *timer) {
        struct server *s = container_of(timer, struct server, settle_timer);

        if (s->n_unsettled == 0)
                return; /* server_has_ended() is asked again */
        log_info("%zu connections are not settled after %d ms", s->n_unsettled, SETTLE_MSEC);
        s->stop = true;
}

static void wake_up(struct server *s, uint64_t nsec) {
        s->stop = mux_timer_set(s->mux, &s->settle_timer, nsec, on_settle_timer) < 0;
}

bool connection_on_settled(struct connection *c) {
        struct server *s = c->server;

        if (!s->stopping || c->is_settled)
                return s->stopping;
        c->is_settled = true;
        s->n_unsettled--;
        return true;
}

/* The kernel never stops telling. What a source is just about would be in doubt: there is a better moment soon. */
bool server_has_ended(struct server *s) {
        uint64_t now;

        if (s->stop || !s->stopping || s->n_unsettled > 0)
                return s->stop;
        now = monotonic_nsec();
        if (s->settle_deadline == 0)
                s->settle_deadline = now + SOURCES_SETTLE_MSEC * NSEC_PER_MSEC;
        if (now >= s->settle_deadline || sources_are_settled(&s->sources))
                s->stop = true;
        else
                wake_up(s, now + RETRY_USEC * NSEC_PER_USEC);
        return s->stop;
}

void server_settle(struct server *s) {
        if (s->stopping)
                return;
        s->stopping = true;
        for (size_t i = 0; i < s->n_listeners; i++)
                mux_remove(s->mux, &s->listeners[i].io);
        mux_timer_clear(s->mux, &s->accept_again);
        s->n_unsettled = s->n_connections;
        wake_up(s, monotonic_nsec() + SETTLE_MSEC * NSEC_PER_MSEC);
        list_for_each(entry, &s->connections)
                connection_settle(list_entry(entry, struct connection, link));
}

/* ---- writing ---------------------------------------------------------------------------- */

static void save_asker(const struct asker *asker, struct state_writer *w) {
        state_put_u64(w, asker->uid);
        state_put_u64(w, asker->gid);
        state_put_i64(w, asker->pid);
        state_put_bytes(w, asker->n_groups > 0 ? asker->groups : NULL, asker->n_groups * sizeof(gid_t));
        state_put_bool(w, asker->other_mounts);
        state_put_bool(w, asker->other_pids);
        state_put_bool(w, asker->other_network);
        state_put_bool(w, asker->observes);
        state_put_u64(w, asker->network);
        state_put_u64(w, asker->process);
}

static void save_buffers(const struct connection *c, struct state_writer *w) {
        state_put_bytes(w, c->in.data, c->in.size);
        state_put_u64(w, c->n_fds);
        for (size_t i = 0; i < c->n_fds; i++) {
                state_put_u64(w, c->fds[i].message - c->messages_taken);
                state_put_fd(w, c->fds[i].fd);
        }
        state_put_bytes(w, c->out.size > c->written ? c->out.data + c->written : NULL, c->out.size - c->written);
}

void connection_wait_state(const struct connection *c, struct wait_state *ret) {
        *ret = (struct wait_state){
                .waits = c->call != CALL_NONE, .more = c->more, .max_events = c->max_events, .timeout_msec = c->timeout_msec,
                .last_reply_nsec = c->last_reply_nsec,
        };
        if (!c->more && c->timed_out)
                ret->timeout_msec = 0;
        else if (!c->more && c->timer.heap_index > 0)
                ret->deadline_nsec = c->timer.deadline_nsec;
}

static void save_wait(const struct connection *c, struct state_writer *w) {
        struct wait_state wait;

        connection_wait_state(c, &wait);
        state_put_bool(w, wait.waits);
        state_put_bool(w, wait.more);
        state_put_i64(w, wait.max_events);
        state_put_i64(w, wait.timeout_msec);
        state_put_u64(w, wait.deadline_nsec);
        state_put_u64(w, wait.last_reply_nsec);
}

static void save_connection(struct connection *c, struct state_writer *w) {
        state_put_fd(w, c->fd);
        save_asker(&c->asker, w);
        state_put_u64(w, c->connected_usec);
        state_put_bool(w, c->end_of_input);
        state_put_bool(w, c->gone);
        save_buffers(c, w);
        save_wait(c, w);
        queue_save(&c->queue, w);
}

/* One that is not settled has watches on their way, or a queue that may lack something: it ends. */
static bool can_be_saved(const struct connection *c) {
        return c->is_settled && !c->doomed && !c->out.error && !connection_is_busy(c);
}

void server_save(struct server *s, struct state_writer *w) {
        sources_save(&s->sources, w);
        list_for_each(entry, &s->connections) {
                struct connection *c = list_entry(entry, struct connection, link);
                size_t begin, n_fds = w->n_fds;

                if (!can_be_saved(c))
                        continue;
                begin = state_begin(w);
                save_connection(c, w);
                if (c->doomed) /* only now: of what a source had still to tell something was lost */
                        state_cancel(w, begin, n_fds);
                else
                        state_end(w, begin);
        }
}

/* ---- reading ------------------------------------------------------------------------------- */

static int read_asker(struct state_reader *r, struct asker *ret) {
        const void *groups;
        size_t size;

        *ret = (struct asker){ 0 };
        ret->uid = (uid_t)state_get_u64(r);
        ret->gid = (gid_t)state_get_u64(r);
        ret->pid = (pid_t)state_get_i64(r);
        groups = state_get_bytes(r, &size);
        ret->other_mounts = state_get_bool(r);
        ret->other_pids = state_get_bool(r);
        ret->other_network = state_get_bool(r);
        ret->observes = state_get_bool(r);
        ret->network = state_get_u64(r);
        ret->process = state_get_u64(r);
        if (r->failed)
                return -EBADMSG;
        if (!groups)
                return 0;
        ret->groups = malloc(MAX(size, (size_t)1));
        if (!ret->groups)
                return -ENOMEM;
        memcpy(ret->groups, groups, size);
        ret->n_groups = size / sizeof(gid_t);
        return 0;
}

static int read_buffers(struct connection *c, struct state_reader *r) {
        const char *bytes;
        size_t size, n;

        bytes = state_get_bytes(r, &size);
        if (bytes)
                buffer_put(&c->in, bytes, size);
        for (size_t i = 0; i < c->in.size; i++)
                c->messages_received += c->in.data[i] == 0;
        n = state_get_count(r, 2 * sizeof(uint64_t));
        for (size_t i = 0; i < n; i++) {
                uint64_t message = state_get_u64(r);
                int fd = state_get_fd(r), result;

                if (fd < 0) /* what it says of its descriptors would be of others */
                        return -EBADF;
                result = connection_keep_fd(c, message, fd);
                if (result < 0) {
                        (void)close(fd);
                        return result;
                }
                account_charge_anyway(c->account, RESOURCE_DESCRIPTORS, 1);
        }
        bytes = state_get_bytes(r, &size);
        if (bytes)
                buffer_put(&c->out, bytes, size);
        return c->in.error || c->out.error ? -ENOMEM : r->failed ? -EBADMSG : 0;
}

static int read_wait(struct state_reader *r, struct wait_state *ret) {
        ret->waits = state_get_bool(r);
        ret->more = state_get_bool(r);
        ret->max_events = state_get_i64(r);
        ret->timeout_msec = state_get_i64(r);
        ret->deadline_nsec = state_get_u64(r);
        ret->last_reply_nsec = state_get_u64(r);
        return r->failed ? -EBADMSG : 0;
}

void connection_on_restored(struct connection *c) {
        mux_timer_clear(c->server->mux, &c->timer);
        c->call = CALL_NONE;
        if (c->was_waiting)
                wait_resume(c);
        else if (c->server->stopping)
                connection_settle(c);
        mux_defer(c->server->mux, &c->flush);
}

static void on_restore_timer(struct mux_timer *timer);

static int set_restore_timer(struct connection *c) {
        c->n_left = c->n_starting;
        return mux_timer_set(c->server->mux, &c->timer, monotonic_nsec() + RESTORE_SEC * NSEC_PER_SEC, on_restore_timer);
}

static void on_restore_timer(struct mux_timer *timer) {
        struct connection *c = container_of(timer, struct connection, timer);

        if (c->n_starting < c->n_left && set_restore_timer(c) == 0)
                return;
        log_info("connection of pid %d, user %u, ended: its watches could not be made again in time", c->asker.pid,
                 c->asker.uid);
        connection_doom(c);
}

/* What is left of it. */
static int64_t timeout_of(const struct wait_state *wait) {
        uint64_t now = monotonic_nsec();

        if (wait->deadline_nsec == 0)
                return wait->timeout_msec;
        return (int64_t)((MAX(wait->deadline_nsec, now) - now + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

/* As of the call (events.c). */
static bool is_right(const struct wait_state *wait) {
        int64_t timeout = timeout_of(wait);

        return wait->max_events >= 1 && wait->max_events <= EVENTS_MAX &&
               (timeout == ABSENT || (timeout >= wait->more && timeout <= INT32_MAX));
}

/* The watches, and then what it has been at. */
static int go_on(struct connection *c, const struct wait_state *wait, struct state_reader *r) {
        int result;

        if (wait->waits && !is_right(wait))
                return -EBADMSG;
        c->was_waiting = wait->waits;
        c->more = wait->more;
        c->max_events = wait->max_events;
        c->timeout_msec = timeout_of(wait);
        c->last_reply_nsec = MIN(wait->last_reply_nsec, monotonic_nsec());
        c->call = CALL_RESTORE;
        c->n_starting = 1; /* this very function */
        result = queue_restore(&c->queue, r);
        if (result < 0)
                return result;
        c->n_starting += (size_t)result - 1;
        if (c->n_starting > 0)
                return set_restore_timer(c);
        connection_on_restored(c);
        return 0;
}

static int read_rest(struct connection *c, struct state_reader *r) {
        struct wait_state wait = { 0 };
        int result;

        c->connected_usec = state_get_u64(r);
        c->end_of_input = state_get_bool(r);
        c->gone = state_get_bool(r);
        result = read_buffers(c, r);
        if (result == 0)
                result = read_wait(r, &wait);
        if (result < 0)
                return result;
        if (c->gone)
                mux_remove(c->server->mux, &c->io);
        return go_on(c, &wait, r);
}

/* Takes the descriptor over. */
static int begin_restored(struct server *s, int fd, struct state_reader *r, struct connection **ret) {
        struct asker asker;
        int result = read_asker(r, &asker);

        if (result < 0) {
                (void)close(fd);
                return result;
        }
        return connection_make(s, fd, &asker, ret);
}

static void restore_connection(struct server *s, struct state_reader *r) {
        int fd = state_get_fd(r), result;
        struct connection *c;

        result = fd < 0 ? -EBADF : begin_restored(s, fd, r, &c);
        if (result == 0) {
                result = read_rest(c, r);
                if (result < 0) /* at once, so that what it had is there for the next one */
                        connection_free(c);
        }
        if (result < 0)
                log_warning("a connection of the last daemon's ends: %s", strerror(-result));
}

void connection_sketch(struct connection *c, struct state_writer *w) {
        save_asker(&c->asker, w);
        state_put_u64(w, c->connected_usec);
        queue_sketch(&c->queue, w);
}

int connection_restore_sketch(struct server *s, int fd, uint64_t seq, const struct wait_state *wait, struct state_reader *r) {
        struct connection *c;
        int result = begin_restored(s, fd, r, &c);

        if (result < 0)
                return result;
        c->connected_usec = state_get_u64(r);
        if (!peer_is(c->fd, &c->asker)) /* nobody goes on with the rights of another */
                result = -EPERM;
        else
                result = seq > QUEUE_NUMBER_MAX ? -EBADMSG : go_on(c, wait, r);
        c->queue.seq = seq;
        if (result < 0)
                connection_free(c);
        return result;
}

void server_restore(struct server *s, struct state_reader *r) {
        if (r)
                sources_load(&s->sources, r);
        while (r && !state_is_at_end(r)) {
                struct state_reader section = state_get_section(r);

                restore_connection(s, &section);
        }
        sources_restored(&s->sources);
}
