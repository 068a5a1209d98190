/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What one daemon leaves to the next: server_restore() and live_restore() with a server of their own, and real
 * descriptors.
 *
 * The first byte of an input says what follows (enum how). A state: how many descriptors there are, what each is
 * (enum kind), and all that server_save() has written. Connections at rest: how many there are, for each what its
 * socket is and how long its sketch, then the slots of the table as live.c has them, but for what they end with: which
 * socket and which sketch are meant, which are those that are made. Then the sketches.
 * Where these have a number that is this machine's or this moment's, an input has a name of eight bytes (names).
 *
 * Whatever it is: a connection is gone on with, or its client sees the end; and nothing is left behind.
 *
 * The server has a thread of its own, since where this may be had that is in a root directory with next to nothing in
 * it: watches are made of whatever a path has become.
 */

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <linux/connector.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>

#include <json-c/json.h>

#include "connection.h"
#include "fuzz.h"
#include "live.h"
#include "log.h"
#include "process_info.h"
#include "state.h"
#include "workers.h"

enum {
        DESCRIPTORS_MAX = 64,
        SLOTS_MAX = 8,
        SKETCH_MAX = 64 * 1024,
        TABLE_HEAD = 4, /* numbers before the first slot */
        N_WHICH = 2,    /* at the end of each */
        WAIT_MSEC = 15000, /* more than watches may take to be made again */
};

/* Bits of the first byte. */
enum how {
        HOW_LIVE = 1,      /* connections at rest */
        HOW_CONNECTOR = 2, /* processes by the connector, if it is there */
        HOW_SAVES = 4,     /* what was gone on with is written down once more */
        HOW_TOUCHES = 8,   /* something happens to the descriptors */
        HOW_HEAD = 16,     /* the head of the table is in the input */
};

enum kind {
        KIND_NONE,
        KIND_CLIENT, /* a connection */
        KIND_PIDFD,  /* of this process */
        KIND_INOTIFY,
        KIND_EVENTS, /* what rtnetlink tells */
        KIND_DUMP,   /* what it answers */
        KIND_CONNECTOR,
        KIND_SET,    /* of epoll, with an eventfd in it */
        KIND_EVENTFD,
        KIND_PIPE,
        KIND_MEMORY,
        KIND_TIMER,
        KIND_DIRECTORY,
        KINDS,
};

struct descriptor {
        enum kind kind;
        int fd;    /* the server's from a certain point on; it goes by its number */
        int other; /* this program's: the client's end, or what makes it ready; -1: none */
        struct buffer received;
        bool ended, answered;
        bool is_unsure; /* there was output before, which may be anything */
        bool is_deaf;   /* it is said to have sent, or to read, all that it will */
};

/* What the inputs that are kept watch. */
#define ABOVE "/tmp/kevd-test.fuzzfz"
#define PLACE ABOVE "/00"

/* Little, so that an input comes to its limits. */
static const struct limits limits = {
        .values = {
                [RESOURCE_CONNECTIONS] = 8,
                [RESOURCE_WATCHES] = 64,
                [RESOURCE_WATCH_BYTES] = 32 * 1024,
                [RESOURCE_QUEUE_BYTES] = 64 * 1024,
                [RESOURCE_OUTPUT_BYTES] = 64 * 1024 * 1024,
                [RESOURCE_DESCRIPTORS] = 100,
                [RESOURCE_TIMERS] = 32,
                [RESOURCE_REQUESTS] = 1 << 30, /* nothing waits */
        },
};

static struct mux *mux;
static struct workers *workers;
static struct server server;
static struct descriptor all[DESCRIPTORS_MAX];
static size_t n_all;

/* Of the table, as the server makes it. */
static uint64_t table_head[TABLE_HEAD];
static off_t table_size;

/* ---- numbers that are this machine's ----------------------------------------------------------------------------- */

enum { NAME_SIZE = 8 };

static uint64_t own_pid(void) {
        return (uint64_t)getpid();
}

static uint64_t own_identity(void) {
        int pidfd = pidfd_open(getpid(), 0);
        uint64_t identity = pidfd_identity(pidfd, getpid());

        (void)close(pidfd);
        return identity;
}

static uint64_t own_network(void) {
        struct stat st;

        return stat("/proc/self/ns/net", &st) == 0 ? st.st_ino : 0;
}

static uint64_t a_while_ago(void) {
        uint64_t now = monotonic_nsec();

        return now - MIN(now, 10 * NSEC_PER_SEC);
}

static const struct {
        char name[NAME_SIZE + 1];
        uint64_t (*number)(void);
} names[] = {
        { "kevd-pid", own_pid },
        { "kevd-idt", own_identity },
        { "kevd-net", own_network },
        { "kevd-ago", a_while_ago },
};

/* A copy. */
static char *fill_in(const uint8_t *data, size_t size) {
        char *copy = fuzz_copy(data, size);

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                uint64_t number = names[i].number();
                char *p = copy;

                while (p && (p = memmem(p, size - (size_t)(p - copy), names[i].name, NAME_SIZE)))
                        memcpy(p, &number, sizeof(number));
        }
        return copy;
}

/* ---- descriptors ------------------------------------------------------------------------------------------------- */

static int netlink(int protocol, unsigned groups) {
        struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = groups };
        int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol);

        if (fd >= 0)
                (void)bind(fd, (struct sockaddr *)&address, sizeof(address)); /* or it hears nothing */
        return fd;
}

static int make_inotify(void) {
        int fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);

        fuzz_assert(fd >= 0);
        (void)inotify_add_watch(fd, PLACE "/t", IN_ALL_EVENTS | IN_ONLYDIR);
        return fd;
}

static int make_set(int member) {
        struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
        int fd = epoll_create1(EPOLL_CLOEXEC);

        fuzz_assert(fd >= 0 && epoll_ctl(fd, EPOLL_CTL_ADD, member, &event) == 0);
        return fd;
}

static void make_pair(struct descriptor *d) {
        int fds[2];

        if (d->kind == KIND_CLIENT)
                fuzz_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) == 0);
        else
                fuzz_assert(pipe2(fds, O_CLOEXEC | O_NONBLOCK) == 0);
        d->fd = fds[0];
        d->other = fds[1];
}

static void make_descriptor(uint8_t kind) {
        struct descriptor *d = &all[n_all++];

        *d = (struct descriptor){ .kind = kind % KINDS, .fd = -1, .other = -1 };
        switch (d->kind) {
        case KIND_NONE:
        case KINDS:
                return;
        case KIND_CLIENT:
        case KIND_PIPE:
                make_pair(d);
                return;
        case KIND_PIDFD:
                d->fd = pidfd_open(getpid(), 0);
                break;
        case KIND_INOTIFY:
                d->fd = make_inotify();
                break;
        case KIND_EVENTS:
                d->fd = netlink(NETLINK_ROUTE, RTMGRP_LINK);
                break;
        case KIND_DUMP:
                d->fd = netlink(NETLINK_ROUTE, 0);
                break;
        case KIND_CONNECTOR:
                d->fd = netlink(NETLINK_CONNECTOR, CN_IDX_PROC);
                break;
        case KIND_SET:
                d->other = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
                d->fd = make_set(d->other);
                break;
        case KIND_EVENTFD:
                d->fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK);
                break;
        case KIND_MEMORY:
                d->fd = memfd_create("fuzz", MFD_CLOEXEC);
                break;
        case KIND_TIMER:
                d->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
                break;
        case KIND_DIRECTORY:
                d->fd = open("/", O_PATH | O_CLOEXEC);
                break;
        }
        fuzz_assert(d->fd >= 0);
}

static void touch_all(void) {
        uint64_t one = 1;
        int fd;

        for (size_t i = 0; i < n_all; i++)
                if (all[i].kind != KIND_CLIENT && all[i].other >= 0)
                        (void)!write(all[i].other, &one, sizeof(one));
        fd = open(PLACE "/t/new", O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        if (fd >= 0)
                (void)close(fd);
        (void)unlink(PLACE "/t/new");
}

/* ---- clients ----------------------------------------------------------------------------------------------------- */

static const char calls[] = "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":0}}\0"
                            "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"bell\"}}\0"
                            "{\"method\":\"org.kevd.events.Wait\",\"parameters\":{\"timeoutMsec\":0}}\0"
                            "{\"method\":\"org.kevd.events.GetLimits\"}";

static void take_message(struct descriptor *d) {
        struct json_object *reply, *parameters = NULL, *events;
        struct event *event;

        if (d->is_unsure) {
                buffer_put(&d->received, "", 1);
                d->answered |= strstr(d->received.data, "\"watches\":") != NULL;
                return;
        }
        reply = fuzz_parse(d->received.data ? d->received.data : "", d->received.size);
        fuzz_assert(json_object_object_get_ex(reply, "parameters", &parameters));
        if (json_object_object_get_ex(parameters, "events", &events))
                for (size_t i = 0; i < json_object_array_length(events); i++) {
                        fuzz_assert_msg(event_from_json(json_object_array_get_idx(events, i), &event) == 0, "%s",
                                        json_object_to_json_string(reply));
                        event_unref(event);
                }
        d->answered |= json_object_object_get_ex(parameters, "watches", NULL);
        json_object_put(reply);
}

static void receive_all(struct descriptor *d) {
        char data[65536];
        ssize_t n;

        if (d->kind != KIND_CLIENT || d->other < 0 || d->ended)
                return;
        while ((n = recv(d->other, data, sizeof(data), MSG_DONTWAIT)) > 0)
                for (ssize_t i = 0; i < n; i++) {
                        if (data[i]) {
                                buffer_put(&d->received, &data[i], 1);
                                continue;
                        }
                        take_message(d);
                        buffer_reset(&d->received);
                }
        d->ended = n == 0 || (n < 0 && errno != EAGAIN);
}

/* As the server has understood it. What was taken and is no connection may be anything, for which nobody answers. */
static void look_at_connections(const struct state_fds *fds) {
        for (size_t i = 0; i < n_all; i++)
                all[i].is_deaf = fds->fds[i] < 0;
        list_for_each(entry, &server.connections) {
                const struct connection *c = list_entry(entry, struct connection, link);

                for (size_t i = 0; i < n_all; i++) {
                        if (all[i].kind != KIND_CLIENT || all[i].fd != c->fd)
                                continue;
                        all[i].is_unsure = c->out.size > 0;
                        all[i].is_deaf = c->end_of_input || c->gone;
                }
        }
}

static void send_calls(void) {
        for (size_t i = 0; i < n_all; i++)
                if (all[i].kind == KIND_CLIENT)
                        (void)send(all[i].other, calls, sizeof(calls), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- turns ------------------------------------------------------------------------------------------------------- */

static void turn(int64_t timeout_nsec) {
        fuzz_assert(mux_wait(mux, timeout_nsec) == 0);
        for (size_t i = 0; i < n_all; i++)
                receive_all(&all[i]);
}

static bool turn_until(bool (*is_so)(void)) {
        uint64_t deadline = monotonic_nsec() + WAIT_MSEC * NSEC_PER_MSEC;

        for (int i = 0; !is_so(); i++) {
                if (monotonic_nsec() > deadline)
                        return false;
                turn(i < 16 ? 0 : (int64_t)NSEC_PER_MSEC);
        }
        return true;
}

static bool all_have_answers(void) {
        for (size_t i = 0; i < n_all; i++)
                if (all[i].kind == KIND_CLIENT && !all[i].ended && !all[i].answered && !all[i].is_deaf)
                        return false;
        return true;
}

/* Descriptors are given back by a thread. */
static bool is_unused(void) {
        hash_for_each(node, &server.accounts.table)
                for (size_t i = 0; i < RESOURCE_COUNT; i++)
                        if (container_of(node, struct account, node)->used[i] != 0)
                                return false;
        return server.n_connections == 0;
}

static bool has_settled(void) {
        return server_has_ended(&server);
}

/* ---- one input --------------------------------------------------------------------------------------------------- */

/* As if they could not be opened: they have nothing to go on with, and take rights. */
static void leave_out_sources(void) {
        struct sources *s = &server.sources;

        for (size_t i = 0; i < s->n; i++) {
                struct source *source = s->list[i];

                if (!source || source->class != &source_signals)
                        continue;
                s->failed[i] = source->class;
                s->errors[i] = EOPNOTSUPP;
                s->list[i] = NULL;
                source->class->close(source);
        }
}

static void open_server(unsigned how) {
        const struct source_settings settings = {
                .process_feed = how & HOW_CONNECTOR ? PROCESS_FEED_CONNECTOR : PROCESS_FEED_PIDFD, .restores = true,
        };

        fuzz_assert(mux_open(NULL, &mux) == 0);
        fuzz_assert(workers_new(mux, &workers) == 0);
        fuzz_assert(server_open(&server, mux, workers, MODE_USER, &settings, &limits, -EOPNOTSUPP) == 0);
        leave_out_sources();
}

static void close_server(void) {
        server_close(&server);
        fuzz_assert(workers_free(workers));
        fuzz_assert(server.queues.n_watches == 0 && server.queues.prefixes.n_nodes == 0);
        for (size_t i = 0; i < server.sources.n; i++)
                fuzz_assert(!server.sources.list[i] || server.sources.list[i]->n_subscriptions == 0);
        server_free(&server);
        mux_close(mux);
}

/* What nobody has taken is closed, as handover_free() does. */
static void close_rest(const struct state_fds *fds) {
        for (size_t i = 0; i < fds->n; i++)
                (void)safe_close(fds->fds[i]);
}

static void restore_state(struct input *in) {
        int numbers[DESCRIPTORS_MAX];
        struct state_fds fds = { .fds = numbers };
        struct state_reader r = { .fds = &fds };
        char *state;

        for (size_t n = input_byte(in) % DESCRIPTORS_MAX; n > 0; n--) {
                make_descriptor(input_byte(in));
                numbers[fds.n++] = all[n_all - 1].fd;
        }
        state = fill_in(in->data, in->size);
        r.next = state;
        r.end = state ? state + in->size : NULL;
        server_restore(&server, state ? &r : NULL);
        free(state);
        look_at_connections(&fds);
        close_rest(&fds);
}

static int make_memory(const void *head, size_t head_size, const void *data, size_t size, off_t whole) {
        int fd = memfd_create("fuzz", MFD_CLOEXEC);

        fuzz_assert(fd >= 0);
        fuzz_assert(pwrite(fd, head, head_size, 0) == (ssize_t)head_size);
        fuzz_assert(pwrite(fd, data, size, (off_t)head_size) == (ssize_t)size);
        fuzz_assert(ftruncate(fd, whole) == 0);
        return fd;
}

/* As the server would have it, whatever an input says: else hardly any connection would be gone on with. */
static void identify(int socket, int sketch, uint64_t ret_which[N_WHICH]) {
        socklen_t size = sizeof(ret_which[0]);
        struct stat st;

        ret_which[0] = ret_which[1] = 0;
        (void)getsockopt(socket, SOL_SOCKET, SO_COOKIE, &ret_which[0], &size);
        if (sketch >= 0 && fstat(sketch, &st) == 0)
                ret_which[1] = st.st_ino;
}

static void fill_slots(const uint8_t *data, size_t size, const int *numbers, const int *sketches, size_t n, uint8_t *ret) {
        size_t slot_size = table_head[2], own_size = slot_size - N_WHICH * sizeof(uint64_t);
        uint64_t which[N_WHICH];

        for (size_t i = 0; i < n; i++) {
                size_t begin = MIN(i * own_size, size);

                if (size > begin)
                        memcpy(ret + i * slot_size, data + begin, MIN(size - begin, own_size));
                identify(numbers[i], sketches[i], which);
                memcpy(ret + i * slot_size + own_size, which, sizeof(which));
        }
}

static void restore_live(struct input *in, bool has_head) {
        int numbers[SLOTS_MAX], sketches[SLOTS_MAX], table;
        struct state_fds sockets = { .fds = numbers }, sketch_fds = { .fds = sketches };
        size_t sizes[SLOTS_MAX], size, n = input_byte(in) % (SLOTS_MAX + 1);
        uint64_t head[TABLE_HEAD];
        struct input filled;
        const uint8_t *data, *slots_data;
        uint8_t slots[1024] = { 0 };
        size_t slots_size = n * table_head[2], slots_data_size;
        char *copy;

        fuzz_assert(slots_size <= sizeof(slots));
        for (; sockets.n < n; sockets.n++) {
                make_descriptor(input_byte(in));
                numbers[sockets.n] = all[n_all - 1].fd;
                sizes[sockets.n] = input_number(in, 2);
        }
        copy = fill_in(in->data, in->size);
        filled = (struct input){ (const uint8_t *)copy, in->size };
        memcpy(head, table_head, sizeof(head));
        data = input_bytes(&filled, has_head ? sizeof(head) : 0, &size);
        if (size > 0)
                memcpy(head, data, size);
        slots_data = input_bytes(&filled, n * (table_head[2] - N_WHICH * sizeof(uint64_t)), &slots_data_size);
        for (; sketch_fds.n < n; sketch_fds.n++) {
                data = input_bytes(&filled, sizes[sketch_fds.n], &size);
                sketches[sketch_fds.n] = size > 0 ? make_memory("", 0, data, size, (off_t)size) : -1;
        }
        fill_slots(slots_data, slots_data_size, numbers, sketches, n, slots);
        table = make_memory(head, sizeof(head), slots, slots_size, table_size);
        server_restore(&server, NULL);
        (void)live_restore(&server, table, &sockets, &sketch_fds);
        free(copy);
        look_at_connections(&sockets);
        close_rest(&sockets);
        close_rest(&sketch_fds);
        (void)close(table);
}

static void save_again(void) {
        struct state_writer w = { 0 };

        server_settle(&server);
        fuzz_assert_msg(turn_until(has_settled), "the server does not settle");
        server_save(&server, &w);
        fuzz_assert(w.bytes.error == 0);
        state_writer_free(&w);
}

static void close_all(void) {
        for (size_t i = 0; i < n_all; i++) {
                all[i].other = safe_close(all[i].other);
                buffer_free(&all[i].received);
        }
        n_all = 0;
}

static void run(const uint8_t *data, size_t size) {
        struct input in = { data, size };
        unsigned how = input_byte(&in);

        open_server(how);
        if (how & HOW_LIVE)
                restore_live(&in, how & HOW_HEAD);
        else
                restore_state(&in);
        if (how & HOW_TOUCHES)
                touch_all();
        send_calls();
        fuzz_assert_msg(turn_until(all_have_answers), "a connection neither goes on nor ends");
        if (how & HOW_SAVES)
                save_again();
        close_all();
        if (!(how & HOW_SAVES))
                fuzz_assert_msg(turn_until(is_unused), "%zu connections, or what they had, are left",
                                server.n_connections);
        close_server();
}

/* Some are closed on a thread of their own. */
static void expect_descriptors(size_t n) {
        for (int i = 0; i < WAIT_MSEC && fuzz_count_descriptors() != n; i++)
                (void)usleep(1000);
        fuzz_assert_msg(fuzz_count_descriptors() == n, "%zu descriptors, there were %zu", fuzz_count_descriptors(), n);
}

/* ---- the table that the server makes ----------------------------------------------------------------------------- */

static int on_keep(int fd, const char *name) {
        struct stat st;
        size_t i;

        if (live_kind_of(name, &i) != LIVE_TABLE)
                return 0;
        fuzz_assert(fstat(fd, &st) == 0);
        fuzz_assert(pread(fd, table_head, sizeof(table_head), 0) == sizeof(table_head));
        table_size = st.st_size;
        return 0;
}

static int on_drop(const char *name _unused_) {
        return 0;
}

static int on_wait(void) {
        return 0;
}

static bool has_table(void) {
        return table_size > 0;
}

static void learn_table(void) {
        static const struct store store = { .keep = on_keep, .drop = on_drop, .wait = on_wait };
        static const char call[] = "{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":["
                                   "{\"id\":1,\"filter\":\"user\",\"name\":\"bell\"}]}}";

        open_server(0);
        server_restore(&server, NULL);
        live_open(&server, &store);
        make_descriptor(KIND_CLIENT);
        fuzz_assert(server_serve(&server, all[0].fd) == 0);
        fuzz_assert(send(all[0].other, call, sizeof(call), MSG_NOSIGNAL) == sizeof(call));
        fuzz_assert(turn_until(has_table));
        close_all();
        close_server();
}

/* ---- the thread -------------------------------------------------------------------------------------------------- */

static pthread_t thread;
static sem_t wanted, done;
static struct {
        const uint8_t *data; /* NULL: it ends */
        size_t size;
} work;

/* The fuzzer's own signals come in between. */
static void wait_for(sem_t *sem) {
        while (sem_wait(sem) < 0)
                fuzz_assert(errno == EINTR);
}

/* Where tools/fuzz wants to have what it finds, which is written by the thread in which it is found. */
static void keep_findings(int findings) {
        char path[PATH_MAX], from[32];

        (void)snprintf(path, sizeof(path), "/tmp%s", FINDINGS);
        for (char *p = path + strlen("/tmp/"); (p = strchr(p, '/')); *p++ = '/') {
                *p = 0;
                (void)mkdir(path, 0755);
        }
        (void)mkdir(path, 0755);
        (void)snprintf(from, sizeof(from), "/proc/self/fd/%d", findings);
        (void)mount(from, path, NULL, MS_BIND, NULL);
}

/* What can't be had here is gone without: the inputs that are kept name nothing else. */
static void go_elsewhere(void) {
        int findings _cleanup_(closep) = -1;

        if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
                return;
        findings = open(FINDINGS, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (mount("fuzz", "/tmp", "tmpfs", 0, "size=1m") < 0 || mkdir("/tmp/proc", 0755) < 0 ||
            mount("/proc", "/tmp/proc", NULL, MS_BIND | MS_REC, NULL) < 0)
                return;
        if (findings >= 0)
                keep_findings(findings);
        if (chroot("/tmp") < 0 || chdir("/") < 0)
                return;
        (void)mkdir("/tmp", 0755);
        (void)mkdir(ABOVE, 0755);
        (void)mkdir(PLACE, 0755);
        (void)mkdir(PLACE "/t", 0755);
        (void)mkdir(PLACE "/t/d", 0755);
        (void)close(open(PLACE "/t/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
}

static void *run_thread(void *unused _unused_) {
        go_elsewhere();
        learn_table();
        (void)sem_post(&done);
        for (wait_for(&wanted); work.data; wait_for(&wanted)) {
                run(work.data, work.size);
                (void)sem_post(&done);
        }
        return NULL;
}

static void input(const uint8_t *data, size_t size) {
        size_t n_descriptors = fuzz_count_descriptors();

        work.data = data ? data : (const uint8_t *)"";
        work.size = size;
        (void)sem_post(&wanted);
        wait_for(&done);
        expect_descriptors(n_descriptors);
}

static void begin(void) {
        log_set_level(LOG_CRIT);
        (void)signal(SIGPIPE, SIG_IGN);
        fuzz_assert(sem_init(&wanted, 0, 0) == 0 && sem_init(&done, 0, 0) == 0);
        fuzz_assert(pthread_create(&thread, NULL, run_thread, NULL) == 0);
        wait_for(&done);
}

static void end(void) {
        work.data = NULL;
        (void)sem_post(&wanted);
        (void)pthread_join(thread, NULL);
}

const struct fuzz_target fuzz_target = { .begin = begin, .input = input, .end = end };
