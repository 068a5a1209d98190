/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "connection.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "live.h"
#include "log.h"
#include "peer.h"
#include "violation.h"

enum {
        WATCHES_AT_ONCE = 16, /* ended between two looks at the time, */
        PIECES_AT_ONCE = 32,  /* or freed */
        CALL_BYTES = 1024,    /* of a call: so many cost as much as a short one */
        SEND_NSEC = 1500,     /* what a reply takes, about, */
        SEND_NSEC_A_BYTE = 1, /* and what it takes to fill it */
};

static void on_flush(struct mux_deferred *deferred);
static void on_io(struct mux_io *io, unsigned events);
static void protocol_error(struct connection *c, enum violation violation);

/* ---- life ------------------------------------------------------------------------------------ */

/* The peer needn't wait for the close. */
static void close_socket(struct server *server, struct account *account, int fd) {
        (void)shutdown(fd, SHUT_RDWR);
        closer_add(&server->closer, account, &fd, 1);
}

/* Takes the descriptor over, also when it fails. */
static int take_socket(struct connection *c, int fd) {
        int r = account_charge(c->account, RESOURCE_DESCRIPTORS, 1);

        if (r < 0) {
                (void)close(fd);
                return r;
        }
        r = account_charge(c->account, RESOURCE_CONNECTIONS, 1);
        if (r == 0) {
                r = mux_add(c->server->mux, &c->io, fd, MUX_ONCE | MUX_IN, on_io);
                if (r < 0)
                        account_return(c->account, RESOURCE_CONNECTIONS, 1);
        }
        if (r < 0)
                close_socket(c->server, c->account, fd);
        else
                c->fd = fd;
        return r;
}

size_t connection_queue_bytes(const struct account *account) {
        return account_limit(account, RESOURCE_QUEUE_BYTES) / 4;
}

int connection_make(struct server *server, int fd, const struct asker *asker, struct connection **ret_connection) {
        struct connection *c = calloc(1, sizeof(*c));
        int r;

        if (!c) {
                free(asker->groups);
                (void)close(fd);
                return -ENOMEM;
        }
        c->server = server;
        c->fd = -1;
        c->io = MUX_IO_INIT;
        c->asker = *asker;
        list_init(&c->link);
        list_init(&c->postponed);
        list_init(&c->reload.link);
        mux_deferred_init(&c->flush, on_flush);
        c->account = account_get(&server->accounts, c->asker.uid);
        if (c->account)
                r = take_socket(c, fd);
        else {
                r = -ENOMEM;
                (void)close(fd);
        }
        if (r == -EDQUOT)
                violation_log(VIOLATION_TOO_MANY_CONNECTIONS, &c->asker);
        if (r < 0) {
                account_unref(c->account);
                peer_done(&c->asker);
                free(c);
                return r;
        }
        wait_init(c);
        queue_init(&c->queue, &server->queues, &connection_listener, c->account, &c->asker,
                   connection_queue_bytes(c->account));
        c->connected_usec = monotonic_nsec() / NSEC_PER_USEC;
        list_append(&server->connections, &c->link);
        server->n_connections++;
        c->id = ++server->last_id;
        server_figures_changed(server);
        *ret_connection = c;
        return 0;
}

int connection_new(struct server *server, int fd, struct connection **ret_connection) {
        struct asker asker = { 0 };
        int r = peer_identify(fd, &asker);

        if (r == 0)
                return connection_make(server, fd, &asker, ret_connection);
        peer_done(&asker);
        (void)close(fd);
        return r;
}

int connection_keep_fd(struct connection *c, uint64_t message, int fd) {
        if (c->n_fds == FDS_KEPT_MAX)
                return -EMSGSIZE;
        if (c->n_fds == c->fds_room) {
                size_t room = c->fds_room > 0 ? FDS_KEPT_MAX : 4;
                struct passed_fd *fds = realloc(c->fds, room * sizeof(*fds));

                if (!fds)
                        return -ENOMEM;
                c->fds = fds;
                c->fds_room = room;
        }
        c->fds[c->n_fds++] = (struct passed_fd){ message, fd };
        return 0;
}

void connection_drop_fds(struct connection *c, uint64_t message) {
        int fds[FDS_KEPT_MAX];
        size_t n = 0, kept = 0;

        if (c->n_fds == 0)
                return;
        for (size_t i = 0; i < c->n_fds; i++)
                if (c->fds[i].message < message)
                        fds[n++] = c->fds[i].fd;
                else
                        c->fds[kept++] = c->fds[i];
        c->n_fds = kept;
        if (kept == 0) {
                free(take_pointer(&c->fds));
                c->fds_room = 0;
        }
        closer_add(&c->server->closer, c->account, fds, n);
}

static void on_fds_timer(struct mux_timer *timer) {
        struct connection *c = container_of(timer, struct connection, fds_timer);

        protocol_error(c, VIOLATION_DESCRIPTORS_LEFT);
}

/* One of them may be the peer's own end of this connection, by which it would never end. */
static void time_fds(struct connection *c) {
        if (c->n_fds == 0)
                mux_timer_clear(c->server->mux, &c->fds_timer);
        else if (c->fds_timer.heap_index == 0 &&
                 mux_timer_set(c->server->mux, &c->fds_timer, monotonic_nsec() + FDS_SEC * NSEC_PER_SEC, on_fds_timer) < 0)
                connection_doom(c);
}

struct connection *connection_free(struct connection *c) {
        struct server *server = c->server;

        call_unread(c);
        call_abandon(c);
        c->discard = discard_free(c->discard);
        call_pass_on(c);
        live_end(c);
        mux_deferred_cancel(&c->flush);
        mux_timer_clear(server->mux, &c->pace);
        mux_timer_clear(server->mux, &c->fds_timer);
        list_remove(&c->postponed);
        if (list_empty(&c->account->postponed))
                list_remove(&c->account->in_turn);
        mux_remove(server->mux, &c->io);
        queue_close(&c->queue);
        connection_drop_fds(c, UINT64_MAX);
        close_socket(server, c->account, c->fd);
        buffer_free(&c->in);
        buffer_free(&c->out);
        account_return(c->account, RESOURCE_OUTPUT_BYTES, c->charged);
        account_return(c->account, RESOURCE_CONNECTIONS, 1);
        account_unref(c->account);
        peer_done(&c->asker);
        list_remove(&c->link);
        server->n_connections--;
        server_figures_changed(server);
        if (server->mode == MODE_PRIVATE)
                server->stop = true;
        free(c);
        return NULL;
}

void connection_doom(struct connection *c) {
        c->doomed = true;
        mux_defer(c->server->mux, &c->flush);
}

/* The descriptor stays open, but out of the mux, to which a peer's end is news in every turn. */
static void peer_gone(struct connection *c) {
        c->gone = true;
        mux_remove(c->server->mux, &c->io);
        mux_defer(c->server->mux, &c->flush);
}

static void protocol_error(struct connection *c, enum violation violation) {
        c->server->protocol_errors++;
        violation_log(violation, &c->asker);
        connection_doom(c);
}

/* ---- output ------------------------------------------------------------------------------------ */

/* An idle connection holds no buffer. */
static void borrow(struct buffer *buffer, struct buffer *spare) {
        if (buffer->data)
                return;
        *buffer = *spare;
        *spare = BUFFER_INIT;
}

/* It is empty. */
static void give_back(struct buffer *buffer, struct buffer *spare) {
        if (spare->data || buffer->capacity > SPARE_BYTES_MAX) {
                buffer_free(buffer);
                return;
        }
        buffer_reset(buffer);
        *spare = *buffer;
        *buffer = BUFFER_INIT;
}

struct buffer *reply_begin(struct connection *c) {
        if (c->oneway)
                return NULL;
        borrow(&c->out, &c->server->spare_out);
        buffer_put_literal(&c->out, "{\"parameters\":{");
        return &c->out;
}

void reply_end(struct connection *c, bool continues) {
        if (c->oneway)
                return;
        buffer_put_literal(&c->out, "}");
        if (continues)
                buffer_put_literal(&c->out, ",\"continues\":true");
        buffer_put(&c->out, "}", 2); /* with the NUL that ends a message */
        mux_defer(c->server->mux, &c->flush);
}

void reply_error(struct connection *c, const char *error, const char *member, const char *value) {
        if (c->oneway)
                return;
        borrow(&c->out, &c->server->spare_out);
        buffer_put_literal(&c->out, "{\"error\":");
        json_put_string(&c->out, error, strlen(error));
        buffer_put_literal(&c->out, ",\"parameters\":{");
        if (member) {
                json_put_string(&c->out, member, strlen(member));
                buffer_put_literal(&c->out, ":");
                json_put_string(&c->out, value, strlen(value));
        }
        reply_end(c, false);
}

void reply_invalid(struct connection *c, const char *parameter) {
        reply_error(c, "org.varlink.service.InvalidParameter", "parameter", parameter);
}

static size_t unwritten(const struct connection *c) {
        return c->out.size - c->written;
}

/* What waits to be written is the user's. */
static int charge_output(struct connection *c) {
        size_t size = unwritten(c) > 0 ? c->out.capacity : 0;

        if (size > c->charged) {
                if (account_charge(c->account, RESOURCE_OUTPUT_BYTES, size - c->charged) < 0)
                        return -EDQUOT;
        } else
                account_return(c->account, RESOURCE_OUTPUT_BYTES, c->charged - size);
        c->charged = size;
        return 0;
}

/* To a peer that is gone: it is written off. */
static int send_out(struct connection *c) {
        while (unwritten(c) > 0) {
                ssize_t n = c->gone ? (ssize_t)unwritten(c) :
                                      send(c->fd, c->out.data + c->written, unwritten(c), MSG_NOSIGNAL | MSG_DONTWAIT);

                if (n < 0 && errno == EAGAIN) {
                        c->ask_again = true;
                        return 0;
                }
                if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
                        peer_gone(c);
                else if (n < 0 && errno != EINTR)
                        return -errno;
                c->written += (size_t)MAX(n, 0);
                server_charge_work(c->server, c->account, SEND_NSEC + (uint64_t)MAX(n, 0) * SEND_NSEC_A_BYTE);
        }
        return 0;
}

/* All is written, or written off. The clock may have been set meanwhile. */
static void measure_latency(struct connection *c) {
        uint64_t now = c->n_told > 0 && !c->gone ? realtime_nsec() / NSEC_PER_USEC : 0;

        if (now > 0)
                histogram_add(&c->server->latency, now - MIN(now, c->oldest_usec), c->n_told);
        c->n_told = 0;
}

/* Of a client that always leaves something unread: no more is moved than was written. */
static void forget_written(struct connection *c) {
        if (c->written < unwritten(c))
                return;
        buffer_consume(&c->out, c->written);
        c->written = 0;
}

static int write_out(struct connection *c) {
        int r = send_out(c);

        if (r < 0)
                return r;
        if (unwritten(c) > 0) {
                forget_written(c);
                return charge_output(c);
        }
        measure_latency(c);
        c->written = 0;
        give_back(&c->out, &c->server->spare_out);
        return charge_output(c);
}

/* ---- input ------------------------------------------------------------------------------------- */

/*
 * Which message descriptors belong to: they came with the last piece that was
 * sent of what was just read (unix(7): one read never joins what lies behind
 * descriptors), and a message with descriptors is sent by itself, so they are
 * the last message's that has begun here.
 */
static int keep_fds(struct connection *c, const struct msghdr *header, size_t start, size_t size) {
        const char *data = c->in.data + start;
        uint64_t message = c->messages_received;
        int result = header->msg_flags & MSG_CTRUNC ? -EMSGSIZE : 0, not_kept[FDS_MAX];
        size_t n_not_kept = 0;

        for (size_t i = 0; i + 1 < size; i++)
                message += data[i] == 0;
        for (struct cmsghdr *h = CMSG_FIRSTHDR(header); h; h = CMSG_NXTHDR((struct msghdr *)header, h)) {
                size_t n;

                if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
                        continue;
                n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);
                for (size_t i = 0; i < n; i++) {
                        int fd, r;

                        memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(int));
                        r = connection_keep_fd(c, message, fd);
                        if (r == 0)
                                continue;
                        not_kept[n_not_kept++] = fd;
                        result = r;
                }
                account_charge_anyway(c->account, RESOURCE_DESCRIPTORS, n); /* there is room: receive() */
        }
        closer_add(&c->server->closer, c->account, not_kept, n_not_kept);
        return result;
}

union control {
        struct cmsghdr align;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
};

/* Without descriptors, or with all that there are. */
static ssize_t receive_all(struct connection *c, struct iovec piece) {
        size_t start = c->in.size;
        union control control;
        struct msghdr header = {
                .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control),
        };
        ssize_t n = recvmsg(c->fd, &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
        int r;

        if (n <= 0)
                return n < 0 ? -errno : 0;
        c->in.size += (size_t)n;
        r = header.msg_controllen > 0 ? keep_fds(c, &header, start, (size_t)n) : 0;
        return r < 0 ? r : n;
}

/*
 * With descriptors, of which there is room for few. Those that do not go into the control buffer the kernel would close
 * by itself, on this very thread, which their file system may keep waiting, and so may the close of a copy (flush; see
 * closer.h). So they are copied where they lie, and the copies kept; what then is read loses its own, which are not the
 * last. -EDQUOT: there are too many.
 */
static ssize_t receive_few(struct connection *c, struct iovec piece, size_t room) {
        size_t start = c->in.size;
        union control control;
        struct msghdr header = {
                .msg_iov = &piece, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = CMSG_LEN(room * sizeof(int)),
        };
        ssize_t n = recvmsg(c->fd, &header, MSG_DONTWAIT | MSG_PEEK | MSG_CMSG_CLOEXEC);
        bool too_many = header.msg_flags & MSG_CTRUNC;
        int r, error;

        if (n < 0)
                return -errno;
        piece.iov_len = (size_t)n;
        if (!too_many)
                n = recvmsg(c->fd, &(struct msghdr){ .msg_iov = &piece, .msg_iovlen = 1 }, MSG_DONTWAIT);
        error = errno;
        c->in.size += (size_t)MAX(n, 0);
        r = keep_fds(c, &header, start, (size_t)MAX(n, 0));
        return too_many ? -EDQUOT : n < 0 ? -error : r < 0 ? r : n;
}

static ssize_t receive(struct connection *c, struct iovec piece) {
        size_t room = account_room(c->account, RESOURCE_DESCRIPTORS);
        struct msghdr header = { .msg_iov = &piece, .msg_iovlen = 1 };
        ssize_t n;

        if (room >= FDS_MAX)
                return receive_all(c, piece);
        n = recvmsg(c->fd, &header, MSG_DONTWAIT | MSG_PEEK);
        if (n <= 0)
                return n < 0 ? -errno : 0;
        piece.iov_len = (size_t)n;
        if (!(header.msg_flags & MSG_CTRUNC))
                return receive_all(c, piece);
        return room > 0 ? receive_few(c, piece, room) : -EDQUOT;
}

/* One read. 0: there was nothing; a negative errno: the end. */
static int read_in(struct connection *c) {
        size_t start = c->in.size;
        struct iovec piece = {
                .iov_len = MIN(MESSAGE_BYTES_MAX - start, start ? 65536u : 4096u),
        };
        ssize_t n;

        borrow(&c->in, &c->server->spare_in);
        piece.iov_base = buffer_reserve(&c->in, piece.iov_len);
        if (!piece.iov_base)
                return -ENOMEM;
        n = receive(c, piece);
        if (n == -EAGAIN || n == 0)
                c->readable = false;
        c->ask_again |= n == -EAGAIN;
        if (n < 0)
                return n == -EAGAIN || n == -EINTR ? 0 : (int)n;
        if (n == 0) {
                c->end_of_input = true;
                return 0;
        }
        if ((size_t)n < piece.iov_len) /* most likely it is all, and a turn for nothing would cost more than to ask */
                c->readable = recv(c->fd, &(char){ 0 }, 1, MSG_DONTWAIT | MSG_PEEK) >= 0 || errno != EAGAIN;
        for (size_t i = start; i < c->in.size; i++)
                c->messages_received += c->in.data[i] == 0;
        return 1;
}

static bool has_message(const struct connection *c) {
        return c->messages_received > c->messages_taken;
}

static void on_pace(struct mux_timer *timer) {
        struct connection *c = container_of(timer, struct connection, pace);

        mux_defer(c->server->mux, &c->flush);
}

/* Whether a call may be run now, as far as it goes by how many its user sends. */
static bool is_in_time(struct connection *c, size_t cost) {
        uint64_t when = account_pace(c->account, cost, monotonic_nsec());

        if (when == 0) {
                mux_timer_clear(c->server->mux, &c->pace);
                return true;
        }
        c->account->met[RESOURCE_REQUESTS] += c->pace.heap_index == 0;
        if (mux_timer_set(c->server->mux, &c->pace, when, on_pace) < 0)
                connection_doom(c);
        return false;
}

/* Of a long call that was run: as much as the turn has room for. */
static void discard_call(struct connection *c) {
        while (c->discard && server_has_room(c->server, c->account))
                if (discard_some(c->discard, PIECES_AT_ONCE)) {
                        c->discard = discard_free(c->discard);
                        call_pass_on(c);
                }
}

static bool may_run_next(const struct connection *c) {
        return has_message(c) && !c->discard && !c->doomed && !c->server->stopping && (c->parser || unwritten(c) < OUTPUT_HIGH);
}

/* `was_long`: a long call of its own was under way as the turn began. */
static void handle_messages(struct connection *c, bool was_long) {
        size_t done = 0;

        c->has_to_wait = false;
        if (c->change)
                change_go_on(c);
        while (may_run_next(c) && !(was_long && c->account->long_call != c)) { /* others come before its next one */
                const char *message = c->in.data + done;
                size_t size;
                int r;

                if (c->call == CALL_BARRIER || c->call == CALL_WAIT)
                        wait_interrupt(c);
                if (c->call != CALL_NONE || !server_has_room(c->server, c->account))
                        break;
                size = strlen(message);
                c->has_to_wait = call_has_to_wait(c, size);
                if (c->has_to_wait || (!c->parser && !is_in_time(c, 1 + size / CALL_BYTES)))
                        break;
                r = call_dispatch(c, message, size);
                if (r == 0)
                        break;
                if (r < 0)
                        protocol_error(c, VIOLATION_NOT_A_CALL);
                c->messages_taken++;
                done += size + 1;
                if (!c->change)
                        connection_drop_fds(c, c->messages_taken);
        }
        buffer_consume(&c->in, done);
        if (c->in.size == 0)
                give_back(&c->in, &c->server->spare_in);
        if (!has_message(c) && c->in.size >= MESSAGE_BYTES_MAX)
                protocol_error(c, VIOLATION_TOO_LONG);
}

/* ---- the turn ---------------------------------------------------------------------------------------- */

/* Whole messages are run before more is read, so that the input is one read more than a message at most. The one
 * that ends a Wait is whole. What is too long without an end is not read on: handle_messages() sees to it. */
static bool wants_input(const struct connection *c) {
        return !c->end_of_input && !has_message(c) && c->in.size < MESSAGE_BYTES_MAX && c->call != CALL_RESTORE &&
               !c->server->stopping;
}

static void read_more(struct connection *c) {
        int r = read_in(c);

        if (r == -ECONNRESET) { /* it closed with replies unread */
                c->end_of_input = true;
                peer_gone(c);
        } else if (r == -EMSGSIZE)
                protocol_error(c, VIOLATION_TOO_MANY_DESCRIPTORS);
        else if (r == -EDQUOT) {
                c->account->met[RESOURCE_DESCRIPTORS]++;
                protocol_error(c, VIOLATION_DESCRIPTORS_OVER_LIMIT);
        } else if (r < 0) {
                log_info("connection of pid %d, user %u, ended: %s", c->asker.pid, c->asker.uid, strerror(-r));
                connection_doom(c);
        } else if (r == 0 && c->gone)
                c->end_of_input = true; /* all that it sent was read */
}

/* What is there, or may be, and can be read. */
static bool has_input(const struct connection *c) {
        return (c->readable || c->gone) && wants_input(c);
}

/* What was taken is told again when there is more, and what could not be written when there is room. */
static int rearm(struct connection *c) {
        unsigned taken = (c->readable ? 0u : MUX_IN) | MUX_OUT;
        unsigned events = MUX_ONCE | MUX_IN | (unwritten(c) > 0 ? MUX_OUT : 0u);
        bool ask_again = c->ask_again && events == c->io.events;
        int r = mux_modify(c->server->mux, &c->io, events);

        c->ask_again = false;
        if (r == 0 && ask_again)
                return mux_ask_again(c->server->mux, &c->io);
        return r < 0 ? r : mux_rearm(c->server->mux, &c->io, taken);
}

static void read_now(struct connection *c) {
        server_begin_work(c->server, c->account);
        read_more(c);
        server_end_work(c->server, c->account);
}

static void on_io(struct mux_io *io, unsigned events) {
        struct connection *c = container_of(io, struct connection, io);

        live_touch(c);
        c->readable |= (events & MUX_IN) != 0;
        if (events & (MUX_ERR | MUX_HUP))
                peer_gone(c);
        else if (!(events & MUX_IN) || !wants_input(c))
                mux_defer(c->server->mux, &c->flush);
        else if (server_is_behind(c->server) || !server_has_room(c->server, c->account))
                server_postpone(c->server, c);
        else {
                read_now(c);
                mux_defer(c->server->mux, &c->flush);
        }
}

static bool is_finished(const struct connection *c) {
        return c->end_of_input && !has_message(c) && c->call == CALL_NONE && unwritten(c) == 0;
}

/* More calls, or more to answer with, than this turn had room for; or more that a peer left behind, of
 * which the mux does not tell. */
static void go_on_later(struct connection *c) {
        if (c->pace.heap_index > 0 || c->server->stopping)
                return;
        if (c->has_to_wait) {
                server_let_wait(c);
                return;
        }
        if (c->change || c->discard || (may_run_next(c) && c->call == CALL_NONE) || has_input(c))
                server_postpone(c->server, c);
        else if (c->gone || (unwritten(c) == 0 && wait_is_due(c)))
                mux_defer(c->server->mux, &c->flush);
}

/* Of very many watches this is long work: so many as the turn has room for. False: some are left. */
static bool close_watches(struct connection *c) {
        bool done = c->queue.watches.n_nodes == 0;

        call_abandon(c);
        discard_call(c);
        while (!done && server_has_room(c->server, c->account))
                done = queue_close_some(&c->queue, WATCHES_AT_ONCE);
        done &= !c->discard;
        if (!done)
                server_postpone(c->server, c);
        return done;
}

static void end(struct connection *c) {
        c->doomed = true;
        mux_remove(c->server->mux, &c->io);
        call_unread(c);
        if (close_watches(c))
                connection_free(c);
}

static void flush(struct connection *c) {
        bool was_long = c->account->long_call == c;
        int r;

        live_touch(c);
        list_remove(&c->postponed);
        if (c->gone && !c->doomed && !close_watches(c))
                return;
        if (!c->doomed && has_input(c))
                read_more(c);
        discard_call(c);
        if (!c->doomed)
                handle_messages(c, was_long);
        if (!c->doomed)
                wait_go_on(c);
        if (!c->doomed && unwritten(c) == 0)
                wait_flush(c);
        r = c->out.error ? c->out.error : write_out(c);
        if (r == -EDQUOT && !c->doomed)
                violation_log(VIOLATION_UNREAD, &c->asker);
        if (r < 0 || c->doomed || is_finished(c) ||
            (!c->gone && rearm(c) < 0)) {
                if (c->server->work_begin > 0)
                        end(c);
                else /* long work perhaps, and next time it is measured */
                        connection_doom(c);
                return;
        }
        time_fds(c);
        mux_deferred_cancel(&c->flush); /* replies ask for what was just done */
        go_on_later(c);
        live_rest(c);
}

void connection_flush(struct connection *c) {
        struct account *account = account_ref(c->account);
        struct server *server = c->server;
        bool more_than_output = has_message(c) || c->change || c->discard || has_input(c) || c->gone || c->doomed;

        if (more_than_output)
                server_begin_work(server, account);
        flush(c);
        if (more_than_output)
                server_end_work(server, account);
        account_unref(account);
}

/* The end of every turn in which something happened here. */
static void on_flush(struct mux_deferred *deferred) {
        struct connection *c = container_of(deferred, struct connection, flush);

        if (server_has_room(c->server, c->account))
                connection_flush(c);
        else
                server_postpone(c->server, c);
}
