/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "log.h"
#include "packet.h"

enum { ANSWERS_A_TURN = 64 };

struct broker {
        struct mux *mux;
        struct mux_io io;
        struct list waiting; /* helpers, in the order of the requests */
        struct list unsent;  /* struct request: the socket was full */
        struct mux_deferred *failed; /* or NULL */
        bool has_failed;
};

struct request {
        struct list link;
        struct helper_request request;
        int fd; /* a duplicate, or -1 */
};

struct asked {
        struct list link;
        answer_fn *fn; /* NULL: forgotten */
        void *owner;
        /* Until it is sent. */
        struct question *question;
        char *path;
        int fd; /* borrowed from who asks */
};

static void free_asked(struct asked *asked) {
        list_remove(&asked->link);
        free(asked->question);
        free(asked->path);
        free(asked);
}

/* ---- helpers ------------------------------------------------------------------------------------ */

/* All questions are answered with an error, the first with this one. */
static void end(struct helper *h, int error) {
        struct answer answer = { .error = error };
        struct list open;

        h->state = HELPER_ENDED;
        list_init(&open);
        list_splice(&open, &h->sent);
        list_splice(&open, &h->unsent);
        for (struct list *entry; (entry = list_pop(&open));) {
                struct asked *asked = list_entry(entry, struct asked, link);
                answer_fn *fn = asked->fn;
                void *owner = asked->owner;

                free_asked(asked);
                if (fn)
                        fn(owner, &answer, NULL);
                answer.error = EIO;
        }
        h->fn(h, error, -1);
}

static void on_end(struct helper *h) {
        int fd = h->io.fd;

        if (fd >= 0) {
                mux_remove(h->broker->mux, &h->io);
                (void)close(fd);
        }
        end(h, EIO);
}

static bool send_question(int socket, struct asked *asked) {
        struct iovec parts[] = {
                { .iov_base = asked->question, .iov_len = sizeof(*asked->question) },
                /* It has a question until it is sent, and is in another list then: NOLINTNEXTLINE(clang-analyzer-core.*) */
                { .iov_base = asked->path, .iov_len = asked->question->path_size },
        };

        return packet_send(socket, parts, 2, asked->fd, MSG_DONTWAIT) >= 0;
}

/* As many as the socket takes. An error beside that of a full socket shows at the next read. */
static void send_questions(struct helper *h) {
        bool full = false;

        while (h->state == HELPER_READY && !full && !list_empty(&h->unsent)) {
                struct asked *asked = list_entry(h->unsent.next, struct asked, link);

                full = !send_question(h->io.fd, asked);
                if (full)
                        break;
                free(take_pointer(&asked->question));
                free(take_pointer(&asked->path));
                asked->fd = -1;
                if (list_empty(&h->sent))
                        h->moved_nsec = monotonic_nsec();
                list_remove(&asked->link);
                list_append(&h->sent, &asked->link);
        }
        if (h->state == HELPER_READY && full != ((h->io.events & MUX_OUT) != 0))
                (void)mux_modify(h->broker->mux, &h->io, MUX_IN | (full ? MUX_OUT : 0));
}

/* False: there is none, or the helper has ended. */
static bool take_message(struct helper *h) {
        const struct answer *answer = (const void *)h->space;
        int fd;
        ssize_t n = packet_receive(h->io.fd, h->space, ANSWER_BYTES_MAX, &fd, MSG_DONTWAIT);

        if (packet_is_for_later(n))
                return false;
        if (n < (ssize_t)sizeof(*answer) || (size_t)n != sizeof(*answer) + answer->size) {
                (void)safe_close(fd);
                on_end(h);
                return false;
        }
        if (h->state == HELPER_STARTING) {
                int error = answer->error;

                h->state = HELPER_READY;
                h->fn(h, error, fd); /* may close it, and after an error free it */
                if (error != 0)
                        return false;
                if (h->state == HELPER_READY)
                        send_questions(h);
                return h->state == HELPER_READY;
        }
        (void)safe_close(fd);
        h->moved_nsec = monotonic_nsec();
        if (!list_empty(&h->sent)) {
                struct asked *asked = list_entry(h->sent.next, struct asked, link);
                answer_fn *fn = asked->fn;
                void *owner = asked->owner;

                if (!answer->more)
                        free_asked(asked);
                if (fn)
                        fn(owner, answer, h->space + sizeof(*answer));
        }
        return h->state == HELPER_READY;
}

void helper_take_answers(struct helper *h) {
        for (int i = 0; i < ANSWERS_A_TURN; i++)
                if (!take_message(h))
                        break;
}

static void on_helper(struct mux_io *io, unsigned events) {
        struct helper *h = container_of(io, struct helper, io);

        if (events & MUX_OUT)
                send_questions(h);
        helper_take_answers(h);
}

/* ---- requests ----------------------------------------------------------------------------------- */

static void free_request(struct request *r) {
        list_remove(&r->link);
        (void)safe_close(r->fd);
        free(r);
}

static void forget_requests(struct broker *b) {
        while (!list_empty(&b->unsent))
                free_request(list_entry(b->unsent.next, struct request, link));
}

/* 0: sent. -EAGAIN: the socket is full. */
static int send_request(struct broker *b, const struct helper_request *request, int fd) {
        struct iovec part = { (void *)request, sizeof(*request) };

        if (packet_send(b->io.fd, &part, 1, fd, MSG_DONTWAIT) >= 0)
                return 0;
        return packet_is_for_later(-1) ? -EAGAIN : -EOPNOTSUPP; /* there will be none */
}

static void send_requests(struct broker *b) {
        while (!list_empty(&b->unsent)) {
                struct request *r = list_entry(b->unsent.next, struct request, link);

                int result = send_request(b, &r->request, r->fd);

                if (result == -EAGAIN)
                        return;
                if (result < 0) /* then no answer would be that of whom it is for: it is the broker's end */
                        (void)shutdown(b->io.fd, SHUT_RDWR);
                free_request(r);
        }
        (void)mux_modify(b->mux, &b->io, MUX_IN);
}

static int keep_request(struct broker *b, const struct helper_request *request, int fd) {
        struct request *r = malloc(sizeof(*r));
        int result;

        if (!r)
                return -ENOMEM;
        list_init(&r->link);
        r->request = *request;
        r->fd = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (fd >= 0 && r->fd < 0) {
                free(r);
                return -EMFILE;
        }
        result = mux_modify(b->mux, &b->io, MUX_IN | MUX_OUT);
        if (result < 0) {
                (void)safe_close(r->fd);
                free(r);
                return result;
        }
        list_append(&b->unsent, &r->link);
        return 0;
}

static int ask_broker(struct broker *b, const struct helper_request *request, int fd) {
        int r = list_empty(&b->unsent) ? send_request(b, request, fd) : -EAGAIN;

        return r == -EAGAIN ? keep_request(b, request, fd) : r;
}

int helper_start(struct broker *broker, struct helper *h, const struct helper_request *request, helper_fn *fn) {
        return helper_start_with(broker, h, request, -1, fn);
}

int helper_start_with(struct broker *broker, struct helper *h, const struct helper_request *request, int fd,
                      helper_fn *fn) {
        int r;

        *h = (struct helper){ .broker = broker, .state = HELPER_ASKED_FOR, .io = MUX_IO_INIT, .fn = fn };
        h->heir = calloc(1, sizeof(*h->heir));
        list_init(&h->link);
        list_init(&h->unsent);
        list_init(&h->sent);
        h->space = malloc(ANSWER_BYTES_MAX);
        if (!h->space || !h->heir)
                r = -ENOMEM;
        else
                r = broker->io.fd < 0 ? -EOPNOTSUPP : ask_broker(broker, request, fd);
        if (r < 0) {
                free(take_pointer(&h->space));
                free(take_pointer(&h->heir));
                h->state = HELPER_CLOSED;
                return r;
        }
        list_append(&broker->waiting, &h->link);
        return 0;
}

static void forget_all(struct list *questions) {
        for (struct list *entry; (entry = list_pop(questions));)
                free_asked(list_entry(entry, struct asked, link));
}

void helper_close(struct helper *h) {
        if (h->state == HELPER_CLOSED)
                return;
        if (h->state == HELPER_ASKED_FOR) {
                /* Its place in the order is kept. */
                struct helper *heir = take_pointer(&h->heir);

                *heir = (struct helper){ .state = HELPER_CLOSED };
                list_append(&h->link, &heir->link);
                list_remove(&h->link);
        }
        free(take_pointer(&h->heir));
        if (h->io.fd >= 0) {
                int fd = h->io.fd;

                mux_remove(h->broker->mux, &h->io);
                (void)close(fd);
        }
        forget_all(&h->sent);
        forget_all(&h->unsent);
        free(take_pointer(&h->space));
        h->state = HELPER_CLOSED;
}

int helper_take_socket(struct helper *h) {
        int fd = h->io.fd;

        mux_remove(h->broker->mux, &h->io);
        helper_close(h);
        return fd;
}

struct asked *helper_ask(struct helper *h, const struct question *question, const char *path, int fd, answer_fn *fn,
                         void *owner) {
        struct asked *asked = h->state == HELPER_ENDED || h->state == HELPER_CLOSED ? NULL : calloc(1, sizeof(*asked));

        if (!asked)
                return NULL;
        list_init(&asked->link);
        asked->fd = fd;
        asked->fn = fn;
        asked->owner = owner;
        asked->question = malloc(sizeof(*question));
        asked->path = path ? strdup(path) : NULL;
        if (!asked->question || (path && !asked->path)) {
                free_asked(asked);
                return NULL;
        }
        *asked->question = *question;
        asked->question->path_size = path ? (uint32_t)strlen(path) + 1 : 0;
        list_append(&h->unsent, &asked->link);
        if (h->state == HELPER_READY)
                send_questions(h);
        return asked;
}

void asked_forget(struct asked *asked) {
        asked->fn = NULL;
        if (asked->question) /* not sent yet: nothing will be answered */
                free_asked(asked);
}

uint64_t helper_waits_since(const struct helper *h) {
        return h->state == HELPER_READY && !list_empty(&h->sent) ? h->moved_nsec : 0;
}

int helper_abandon(struct helper *h) {
        int fd = h->io.fd;

        mux_remove(h->broker->mux, &h->io);
        end(h, ETIMEDOUT);
        return fd;
}

/* ---- the broker ---------------------------------------------------------------------------------- */

static void on_broker_end(struct broker *b) {
        int fd = b->io.fd;

        log_error("the broker has ended: no further file system, user or feed can be served");
        if (b->failed)
                mux_defer(b->mux, b->failed);
        mux_remove(b->mux, &b->io);
        (void)close(fd);
        forget_requests(b);
        for (struct list *entry; (entry = list_pop(&b->waiting));) {
                struct helper *h = list_entry(entry, struct helper, link);

                if (h->state == HELPER_CLOSED)
                        free(h);
                else
                        on_end(h);
        }
}

static void on_broker(struct mux_io *io, unsigned events) {
        struct broker *b = container_of(io, struct broker, io);
        int error, fd;
        struct helper *h;
        ssize_t n;

        if (events & MUX_OUT)
                send_requests(b);
        n = packet_receive(io->fd, &error, sizeof(error), &fd, MSG_DONTWAIT);
        if (packet_is_for_later(n))
                return;
        if (n != sizeof(error) || list_empty(&b->waiting)) {
                (void)safe_close(fd);
                on_broker_end(b);
                return;
        }
        h = list_entry(list_pop(&b->waiting), struct helper, link);
        if (h->state == HELPER_CLOSED) { /* nobody wants it any more */
                (void)safe_close(fd);
                free(h);
                return;
        }
        if (fd >= 0)
                error = mux_add(b->mux, &h->io, fd, MUX_IN, on_helper);
        if (fd < 0 || error < 0) {
                (void)safe_close(fd);
                on_end(h);
                return;
        }
        h->state = HELPER_STARTING;
        if (h->has_socket)
                h->has_socket(h);
}

bool helper_wait(struct helper *h, uint64_t deadline) {
        struct broker *b = h->broker;

        while (h->state == HELPER_ASKED_FOR) {
                struct pollfd p = { .fd = b->io.fd, .events = POLLIN | (list_empty(&b->unsent) ? 0 : POLLOUT) };
                uint64_t now = monotonic_nsec();
                int n = now < deadline ? poll(&p, 1, (int)((deadline - now) / NSEC_PER_MSEC) + 1) : 0;

                if (n == 0 || (n < 0 && errno != EINTR))
                        return false;
                if (n > 0)
                        on_broker(&b->io, MUX_IN | (p.revents & POLLOUT ? MUX_OUT : 0));
        }
        return h->state == HELPER_STARTING;
}

int broker_open(struct mux *mux, int fd, struct broker **ret_broker) {
        struct broker *b = calloc(1, sizeof(*b));
        int r;

        if (!b)
                return -ENOMEM;
        b->mux = mux;
        b->io = MUX_IO_INIT;
        list_init(&b->waiting);
        list_init(&b->unsent);
        r = mux_add(mux, &b->io, fd, MUX_IN, on_broker);
        if (r < 0) {
                free(b);
                return r;
        }
        *ret_broker = b;
        return 0;
}

struct mux *broker_mux(const struct broker *b) {
        return b->mux;
}

void broker_watch(struct broker *b, struct mux_deferred *failed) {
        b->failed = failed;
}

void broker_fail(struct broker *b, const char *why) {
        log_error("%s", why);
        b->has_failed = true;
        if (b->failed)
                mux_defer(b->mux, b->failed);
}

bool broker_has_failed(const struct broker *b) {
        return b->has_failed;
}

struct broker *broker_close(struct broker *b) {
        if (!b)
                return NULL;
        if (b->failed)
                mux_deferred_cancel(b->failed);
        for (struct list *entry; (entry = list_pop(&b->waiting));)
                free(list_entry(entry, struct helper, link)); /* places of helpers that were closed */
        forget_requests(b);
        if (b->io.fd >= 0) {
                int fd = b->io.fd;

                mux_remove(b->mux, &b->io);
                (void)close(fd);
        }
        free(b);
        return NULL;
}
