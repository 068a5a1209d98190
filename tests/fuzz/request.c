/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What clients send to the server, with the sources that are about no file, device or process: timer, user, and
 * descriptors.
 *
 * The input is what is sent, over one of two connections, but for the byte 0xff: that and the next one say what else
 * happens (enum act). So what a connection may send is an input as it is.
 *
 * Every reply has to be a message, and to be the next call's; a connection ends if, and only if, what came is no call;
 * and nothing is left behind it.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <json-c/json.h>

#include "buffer.h"
#include "connection.h"
#include "fuzz.h"
#include "log.h"
#include "workers.h"

enum {
        CLIENTS = 2,
        FDS_KEPT = 16,       /* for something to happen to them later */
        PIECES_MAX = 512,    /* of one input */
        TURNS_MAX = 5000,    /* until something has to have come */
};

/* Little, so that an input comes to its limits. */
static const struct limits limits = {
        .values = {
                [RESOURCE_CONNECTIONS] = 8,
                [RESOURCE_WATCHES] = 32,
                [RESOURCE_WATCH_BYTES] = 16 * 1024,
                [RESOURCE_QUEUE_BYTES] = 32 * 1024,
                [RESOURCE_OUTPUT_BYTES] = 64 * 1024 * 1024,
                [RESOURCE_DESCRIPTORS] = FDS_MAX + 100,
                [RESOURCE_TIMERS] = 16,
                [RESOURCE_REQUESTS] = 1 << 30, /* nothing waits */
        },
};

enum act {
        ACT_SEND,       /* what was gathered is sent, and a turn run */
        ACT_SEND_FD,    /* the same with a descriptor of the kind that the next byte says */
        ACT_SEND_FDS,   /* with as many as the next byte says */
        ACT_TURNS,      /* so many turns */
        ACT_BYTE,       /* 0xff is sent */
        ACT_OTHER,      /* the other connection */
        ACT_DEAF,       /* replies are left in the socket, or are read again */
        ACT_TOUCH,      /* something happens to a descriptor that was sent */
        ACT_CLOSE_FD,   /* one that was sent is closed here */
        ACT_SHUTDOWN,   /* nothing more is sent */
        ACT_LEAVE,      /* the connection is closed here */
        ACTS,
};

/* A call that has not got its last reply. */
struct expected {
        char method[48];
        bool more;
};

struct client {
        int fd; /* -1: closed */
        struct buffer gathered;
        struct buffer message;  /* of what was sent, behind the last NUL */
        struct buffer received; /* the same of what came */
        struct buffer expected; /* struct expected */
        bool deaf, silent, ended;
        bool wrong;  /* what was sent was no call */
        size_t n_fds; /* sent */
        bool mine;   /* the last call is this program's */
};

static struct mux *mux;
static struct workers *workers;
static struct server server;
static struct account *account; /* so that the user's threads stay */

static struct client clients[CLIENTS];
static struct {
        int fd, other; /* -1: none */
} kept[FDS_KEPT];
static size_t n_kept;

/* ---- descriptors to be passed ------------------------------------------------------------------------------------- */

static void keep(int fd, int other) {
        size_t i = n_kept++ % FDS_KEPT;

        (void)safe_close(kept[i].fd);
        (void)safe_close(kept[i].other);
        kept[i].fd = fd;
        kept[i].other = other;
}

static int make_fd(uint8_t kind) {
        int fds[2] = { -1, -1 };

        switch (kind % 10) {
        case 0:
                fds[0] = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
                break;
        case 1:
                fuzz_assert(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
                break;
        case 2:
                fuzz_assert(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
                keep(fds[1], fds[0]);
                return fds[1];
        case 3:
                fuzz_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
                break;
        case 4:
                fuzz_assert(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
                break;
        case 5:
                fds[0] = open("/dev/null", O_RDWR | O_CLOEXEC);
                break;
        case 6:
                fds[0] = memfd_create("fuzz", MFD_CLOEXEC);
                break;
        case 7:
                fds[0] = epoll_create1(EPOLL_CLOEXEC);
                break;
        case 8:
                fds[0] = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
                break;
        default:
                fds[0] = open("/", O_PATH | O_CLOEXEC);
                break;
        }
        fuzz_assert(fds[0] >= 0);
        keep(fds[0], fds[1]);
        return fds[0];
}

/* It can be read from, or written to, or hangs up. */
static void touch_fd(uint8_t which) {
        uint64_t one = 1;
        int i = which % FDS_KEPT;

        if (kept[i].other >= 0 && which & 0x80)
                kept[i].other = safe_close(kept[i].other);
        else if (kept[i].other >= 0)
                (void)!write(kept[i].other, &one, sizeof(one));
        if (kept[i].fd >= 0 && which & 0x40)
                (void)!read(kept[i].fd, &one, sizeof(one));
        else if (kept[i].fd >= 0)
                (void)!write(kept[i].fd, &one, sizeof(one));
}

/* ---- what has to come --------------------------------------------------------------------------------------------- */

static void expect_reply_to(struct client *c, const char *method, bool more) {
        struct expected e = { .more = more };

        (void)snprintf(e.method, sizeof(e.method), "%s", method);
        buffer_put(&c->expected, &e, sizeof(e));
}

static bool is_true(struct json_object *call, const char *name) {
        struct json_object *value = json_object_object_get(call, name);

        return json_object_is_type(value, json_type_boolean) && json_object_get_boolean(value);
}

/* What is parsed in pieces is what it is whole. */
static void parse_again(const char *text, size_t size, struct json_object *whole) {
        struct json_object *call = NULL;
        struct message_parser parser;
        int r = message_parser_open(&parser, text, size);

        while (r == 0)
                r = message_parser_go_on(&parser, text, 1 + size / 8, &call);
        fuzz_assert(whole ? r == 1 && json_object_equal(call, whole) : r < 0);
        message_parser_close(&parser);
        json_object_put(call);
}

/* One message was sent. */
static void note_call(struct client *c, const char *text, size_t size) {
        struct json_object *call = NULL, *method;

        if (c->wrong)
                return;
        c->wrong = size >= MESSAGE_BYTES_MAX || message_parse(text, size, &call) < 0;
        if (size < MESSAGE_BYTES_MAX)
                parse_again(text, size, call);
        if (c->wrong)
                return;
        method = json_object_object_get(call, "method");
        c->wrong = !json_object_is_type(method, json_type_string) || (is_true(call, "oneway") && is_true(call, "more"));
        if (!c->wrong && !is_true(call, "oneway"))
                expect_reply_to(c, json_object_get_string(method), is_true(call, "more"));
        json_object_put(call);
}

static void note_sent(struct client *c, const char *data, size_t size) {
        for (size_t i = 0; i < size; i++) {
                if (data[i]) {
                        buffer_put(&c->message, data + i, 1);
                        continue;
                }
                note_call(c, c->message.data ? c->message.data : "", c->message.size);
                buffer_reset(&c->message);
        }
        if (c->message.size >= MESSAGE_BYTES_MAX)
                c->wrong = true;
}

static const struct {
        const char *method, *member;
        bool continues;
} replies[] = {
        { "org.varlink.service.GetInfo", "interfaces", false },
        { "org.varlink.service.GetInterfaceDescription", "description", false },
        { "org.kevd.events.GetLimits", "watches", false },
        { "org.kevd.events.GetMechanism", "mechanism", false },
        { "org.kevd.events.Change", "refused", false },
        { "org.kevd.events.Wait", "events", true },
        { "org.kevd.events.Monitor", "events", true },
        { "org.kevd.events.Trigger", "reached", false },
        { "org.kevd.manager.GetStatus", "sources", false },
        { "org.kevd.manager.ListQueues", "queues", false },
        { "org.kevd.manager.GetStatistics", "latency", false },
};

static void expect_parameters(const struct expected *e, struct json_object *parameters, bool continues) {
        for (size_t i = 0; i < ARRAY_SIZE(replies); i++) {
                if (strcmp(e->method, replies[i].method) != 0)
                        continue;
                fuzz_assert_msg(json_object_object_get_ex(parameters, replies[i].member, NULL), "%s: %s", e->method,
                                json_object_to_json_string(parameters));
                fuzz_assert(!continues || (e->more && replies[i].continues));
                return;
        }
        fuzz_fail(__FILE__, __LINE__, "%s was answered", e->method);
}

static void expect_events(struct json_object *parameters) {
        struct json_object *events;
        struct event *event = NULL;

        if (!json_object_object_get_ex(parameters, "events", &events) || !json_object_is_type(events, json_type_array))
                return; /* GetStatistics has figures of that name */
        for (size_t i = 0; i < json_object_array_length(events); i++) {
                fuzz_assert(event_from_json(json_object_array_get_idx(events, i), &event) == 0);
                event_unref(event);
        }
}

static void take_reply(struct client *c, const char *text, size_t size) {
        struct json_object *reply = fuzz_parse(text, size), *parameters, *error;
        bool continues = is_true(reply, "continues");
        struct expected e;

        fuzz_assert_msg(c->expected.size > 0, "to no call: %.*s", (int)size, text);
        memcpy(&e, c->expected.data, sizeof(e));
        if (!continues)
                buffer_consume(&c->expected, sizeof(e));
        fuzz_assert(json_object_object_get_ex(reply, "parameters", &parameters));
        fuzz_assert(json_object_is_type(parameters, json_type_object));
        if (json_object_object_get_ex(reply, "error", &error)) {
                fuzz_assert(json_object_is_type(error, json_type_string) && !continues);
                fuzz_assert(strcmp(e.method, "org.varlink.service.GetInfo") != 0 || !c->mine || c->expected.size > 0);
        } else {
                expect_parameters(&e, parameters, continues);
                expect_events(parameters);
        }
        json_object_put(reply);
}

/* More descriptors were sent than there may be room for. */
static bool is_unsure(void) {
        size_t n = 0;

        for (size_t i = 0; i < CLIENTS; i++)
                n += clients[i].n_fds;
        return n > FDS_MAX;
}

/* All that has come. */
static void receive_all(struct client *c) {
        char data[65536];
        ssize_t n;

        if (c->fd < 0 || c->ended)
                return;
        while ((n = recv(c->fd, data, sizeof(data), MSG_DONTWAIT)) > 0) {
                const char *from = data, *end;

                while ((end = memchr(from, 0, (size_t)(n - (from - data))))) {
                        buffer_put(&c->received, from, (size_t)(end - from));
                        take_reply(c, c->received.data ? c->received.data : "", c->received.size);
                        buffer_reset(&c->received);
                        from = end + 1;
                }
                buffer_put(&c->received, from, (size_t)(n - (from - data)));
        }
        c->ended = n == 0 || (n < 0 && errno != EAGAIN);
        fuzz_assert_msg(!c->ended || c->wrong || is_unsure() || c->silent, "the connection has ended");
        fuzz_assert(!c->ended || c->received.size == 0 || c->wrong || is_unsure());
}

/* ---- turns ---------------------------------------------------------------------------------------------------------- */

static void turn(int64_t timeout_nsec) {
        fuzz_assert(mux_wait(mux, timeout_nsec) == 0);
        for (size_t i = 0; i < CLIENTS; i++)
                if (!clients[i].deaf)
                        receive_all(&clients[i]);
}

/* What doesn't go into the socket is given up, and with it the connection. */
static void send_gathered(struct client *c, const int *fds, size_t n_fds) {
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
        } control = { 0 };
        struct iovec piece = { c->gathered.data, c->gathered.size };
        struct msghdr header = { .msg_iov = &piece, .msg_iovlen = 1 };

        for (int tries = 0; c->fd >= 0 && !c->ended && !c->silent && piece.iov_len > 0 && tries < 64; tries++) {
                ssize_t n;

                if (n_fds > 0) {
                        header.msg_control = &control;
                        header.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
                        control.align = (struct cmsghdr){
                                .cmsg_len = CMSG_LEN(n_fds * sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS,
                        };
                        memcpy(CMSG_DATA(&control.align), fds, n_fds * sizeof(int));
                }
                n = sendmsg(c->fd, &header, MSG_NOSIGNAL | MSG_DONTWAIT);
                if (n > 0) {
                        note_sent(c, piece.iov_base, (size_t)n);
                        piece.iov_base = (char *)piece.iov_base + n;
                        piece.iov_len -= (size_t)n;
                        header.msg_control = NULL;
                        header.msg_controllen = 0;
                        n_fds = 0;
                }
                turn(0);
        }
        if (piece.iov_len > 0 && c->fd >= 0 && !c->silent) {
                (void)shutdown(c->fd, SHUT_WR);
                c->silent = true;
        }
        buffer_reset(&c->gathered);
}

static void send_fds(struct client *c, uint8_t kind, size_t n) {
        int fds[FDS_MAX];

        n = MIN(n, (size_t)FDS_MAX);
        c->n_fds += n;
        for (size_t i = 0; i < n; i++)
                fds[i] = i == 0 ? make_fd(kind) : fds[0];
        send_gathered(c, fds, n);
}

/* ---- one input ------------------------------------------------------------------------------------------------------ */

static void client_open(struct client *c) {
        int fds[2];

        *c = (struct client){ .fd = -1 };
        fuzz_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
        fuzz_assert(server_serve(&server, fds[0]) == 0);
        c->fd = fds[1];
}

static void client_leave(struct client *c) {
        c->fd = safe_close(c->fd);
        c->ended = true;
}

/* Whatever has come before, a call at the end is answered, and what stood before it. */
static void client_finish(struct client *c) {
        static const char info[] = "{\"method\":\"org.varlink.service.GetInfo\"}";
        bool whole;

        c->deaf = false;
        send_gathered(c, NULL, 0);
        whole = c->message.size == 0 && !c->wrong && !c->silent && c->fd >= 0;
        if (whole) {
                c->mine = true;
                buffer_put(&c->gathered, info, sizeof(info));
                send_gathered(c, NULL, 0);
        }
        for (int i = 0; i < TURNS_MAX && !c->ended && (whole ? c->expected.size > 0 : c->wrong && !c->silent); i++)
                turn(i < 16 ? 0 : (int64_t)NSEC_PER_MSEC);
        fuzz_assert_msg(c->ended || !whole || c->expected.size == 0, "there is no reply");
        fuzz_assert_msg(c->ended || !c->wrong || c->silent, "the connection goes on");
}

static void client_close(struct client *c) {
        client_leave(c);
        buffer_free(&c->gathered);
        buffer_free(&c->message);
        buffer_free(&c->received);
        buffer_free(&c->expected);
}

static void act(struct client **c, struct input *in) {
        switch ((enum act)(input_byte(in) % ACTS)) {
        case ACT_SEND:
                send_gathered(*c, NULL, 0);
                return;
        case ACT_SEND_FD:
                send_fds(*c, input_byte(in), 1);
                return;
        case ACT_SEND_FDS:
                send_fds(*c, 0, input_byte(in));
                return;
        case ACT_TURNS:
                for (int n = input_byte(in) % 16; n > 0; n--)
                        turn(0);
                return;
        case ACT_BYTE:
                buffer_put(&(*c)->gathered, "\xff", 1);
                return;
        case ACT_OTHER:
                *c = *c == &clients[0] ? &clients[1] : &clients[0];
                return;
        case ACT_DEAF:
                (*c)->deaf = !(*c)->deaf;
                return;
        case ACT_TOUCH:
                touch_fd(input_byte(in));
                return;
        case ACT_CLOSE_FD: {
                int i = input_byte(in) % FDS_KEPT;

                kept[i].fd = safe_close(kept[i].fd);
                return;
        }
        case ACT_SHUTDOWN:
                send_gathered(*c, NULL, 0);
                if ((*c)->fd >= 0)
                        (void)shutdown((*c)->fd, SHUT_WR);
                (*c)->silent = true;
                return;
        case ACT_LEAVE:
                send_gathered(*c, NULL, 0);
                client_leave(*c);
                return;
        case ACTS:
                return;
        }
}

static bool is_unused(void) {
        for (size_t i = 0; i < RESOURCE_COUNT; i++)
                if (account->used[i] != 0)
                        return false;
        return server.n_connections == 0;
}

static void expect_nothing_left(void) {
        for (int i = 0; i < TURNS_MAX && !is_unused(); i++)
                turn(i < 16 ? 0 : (int64_t)NSEC_PER_MSEC);
        fuzz_assert(server.n_connections == 0);
        for (size_t i = 0; i < RESOURCE_COUNT; i++)
                fuzz_assert_msg(account->used[i] == 0, "%zu of resource %zu are charged", account->used[i], i);
        fuzz_assert(account->refs == 1 && server.accounts.table.n_nodes == 1);
        fuzz_assert(server.queues.n_watches == 0 && server.queues.prefixes.n_nodes == 0);
        fuzz_assert(list_empty(&server.postponed));
        for (size_t i = 0; i < server.sources.n; i++)
                fuzz_assert(!server.sources.list[i] || server.sources.list[i]->n_subscriptions == 0);
}

/* What threads had is given back by now, and closed a moment later. */
static void expect_descriptors(size_t n_descriptors) {
        for (int i = 0; i < TURNS_MAX && fuzz_count_descriptors() != n_descriptors; i++)
                turn((int64_t)NSEC_PER_MSEC);
        fuzz_assert_msg(fuzz_count_descriptors() == n_descriptors, "%zu descriptors, there were %zu",
                        fuzz_count_descriptors(), n_descriptors);
}

static void run(const uint8_t *data, size_t size) {
        size_t n_pieces = 0;
        struct client *c = &clients[0];
        struct input in = { data, size };

        for (size_t i = 0; i < CLIENTS; i++)
                client_open(&clients[i]);
        while (in.size > 0) {
                const uint8_t *end = memchr(in.data, 0xff, in.size);
                size_t n;

                data = input_bytes(&in, end ? (size_t)(end - in.data) : in.size, &n);
                buffer_put(&c->gathered, data, n);
                (void)input_byte(&in);
                if (end && n_pieces++ < PIECES_MAX)
                        act(&c, &in);
        }
        for (size_t i = 0; i < CLIENTS; i++)
                client_finish(&clients[i]);
        for (size_t i = 0; i < CLIENTS; i++)
                client_close(&clients[i]);
        for (size_t i = 0; i < FDS_KEPT; i++)
                keep(-1, -1);
        n_kept = 0;
        expect_nothing_left();
}

static void input(const uint8_t *data, size_t size) {
        size_t n_descriptors = fuzz_count_descriptors();

        run(data, size);
        expect_descriptors(n_descriptors);
}

/* ---- the server ------------------------------------------------------------------------------------------------------ */

/* As if they could not be opened: what is named in a request is not this machine's. */
static void leave_out_sources(void) {
        struct sources *s = &server.sources;

        for (size_t i = 0; i < s->n; i++) {
                struct source *source = s->list[i];

                if (!source || source->class == &source_timer || source->class == &source_user ||
                    source->class == &source_descriptors)
                        continue;
                s->failed[i] = source->class;
                s->errors[i] = EOPNOTSUPP;
                s->list[i] = NULL;
                source->class->close(source);
        }
}

/* So that what a source opens when it is first needed, and keeps, is there. */
static const char first[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":["
                            "{\"id\":1,\"filter\":\"read\",\"descriptor\":0}]}}\0\xff\1\1";

/* What threads had until then is closed later. */
static void begin_with_first(void) {
        size_t n_descriptors = fuzz_count_descriptors();

        run((const uint8_t *)first, sizeof(first) - 1);
        for (int i = 0; i < TURNS_MAX && fuzz_count_descriptors() > n_descriptors + 1; i++)
                turn((int64_t)NSEC_PER_MSEC);
}

static void refuse_to_reload(struct reload_hook *hook, struct reload_waiter *waiter) {
        (void)hook;
        waiter->done(waiter, -EINVAL, "no");
}

static struct reload_hook reload = { .request = refuse_to_reload };

static void begin(void) {
        static const struct source_settings settings = { .process_feed = PROCESS_FEED_PIDFD };

        struct rlimit limit;

        log_set_level(LOG_CRIT);
        (void)signal(SIGPIPE, SIG_IGN); /* of what happens to descriptors that were sent */
        if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
                limit.rlim_cur = limit.rlim_max;
                (void)setrlimit(RLIMIT_NOFILE, &limit);
        }
        for (size_t i = 0; i < FDS_KEPT; i++)
                kept[i].fd = kept[i].other = -1;
        fuzz_assert(mux_open(NULL, &mux) == 0);
        fuzz_assert(workers_new(mux, &workers) == 0);
        fuzz_assert(server_open(&server, mux, workers, MODE_USER, &settings, &limits, -EOPNOTSUPP) == 0);
        server.reload = &reload;
        server.last_id = INT64_MAX; /* no input can name a connection, to have it ended */
        leave_out_sources();
        account = account_get(&server.accounts, getuid());
        fuzz_assert(account);
        begin_with_first();
}

static void end(void) {
        account_unref(account);
        server_close(&server);
        fuzz_assert(workers_free(workers));
        server_free(&server);
        mux_close(mux);
}

const struct fuzz_target fuzz_target = { .begin = begin, .input = input, .end = end };
