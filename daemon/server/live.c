/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "live.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "connection.h"
#include "log.h"
#include "state.h"

/* As of handover.c's: another table, or another sketch. */
enum { LIVE_VERSION = 3 };

#define LIVE_MAGIC UINT64_C(0x6b657664206c6976)

enum {
        WATCHES_MAX = 4096, /* of a connection: to write down more would hold the loop up */
        WATCH_BYTES_MAX = 1024 * 1024, /* the same */
        SKETCH_MSEC = 100, /* after a change, so that many are written down at once */
        SKETCH_SHARE = 20, /* and no more than one part in so many of the time */
};

#define NOTES_NSEC (200 * UINT64_C(1000)) /* in a turn, of the thread's own time, about: then the rest waits */

enum slot_state {
        SLOT_FREE,
        SLOT_BUSY,
        SLOT_AT_REST,
};

/* Shared with the next daemon: numbers, which may be any. */
struct slot {
        atomic_uint state;
        uint32_t waits, more; /* the wait_state */
        uint64_t seq;
        int64_t max_events, timeout_msec;
        uint64_t deadline_nsec, last_reply_nsec;
        uint64_t sketch_size;
        uint64_t socket, sketch; /* which: the cookie of the one, and the inode of the other; 0: not known */
};

struct shared {
        uint64_t magic, version, slot_size, n_slots;
        struct slot slots[LIVE_SLOTS];
};

struct live_table {
        struct server *server;
        const struct store *store;
        int fd;
        struct shared *shared;
        struct list dirty; /* whose watches are to be written down */
        struct mux_timer timer;
        uint64_t next_nsec; /* not before */
        size_t next; /* slots below were taken once */
        size_t *free_slots, *left_slots;
        size_t n_free, n_left; /* left: the store may still have something under their names */
        bool has_table; /* the store */
};

struct live {
        struct connection *connection;
        size_t index;
        int sketch; /* memfd, or -1 */
        bool keeps_socket, keeps_sketch; /* the store */
        uint64_t version; /* of the queue, as it was written down; 0: never */
        uint64_t size;
        struct list dirty;
};

/* ---- names ------------------------------------------------------------------------ */

#define TABLE_NAME "kevd-live"

void live_name(enum live_kind kind, size_t index, char ret[static 16]) {
        if (kind == LIVE_TABLE)
                (void)snprintf(ret, 16, "%s", TABLE_NAME);
        else
                (void)snprintf(ret, 16, "%c%zx", kind == LIVE_SOCKET ? 'c' : 'w', index);
}

enum live_kind live_kind_of(const char *name, size_t *ret_index) {
        enum live_kind kind = name[0] == 'c' ? LIVE_SOCKET : name[0] == 'w' ? LIVE_SKETCH : LIVE_NONE;
        char expected[16], *end;

        *ret_index = 0;
        if (strcmp(name, TABLE_NAME) == 0)
                return LIVE_TABLE;
        if (kind == LIVE_NONE)
                return kind;
        *ret_index = strtoul(name + 1, &end, 16);
        live_name(kind, *ret_index, expected);
        return *ret_index < LIVE_SLOTS && strcmp(name, expected) == 0 ? kind : LIVE_NONE;
}

/* ---- the table -------------------------------------------------------------------- */

static struct slot *slot_of(const struct live *l) {
        return &l->connection->server->live->shared->slots[l->index];
}

static int make_table(struct live_table *t) {
        t->fd = memfd_create(TABLE_NAME, MFD_CLOEXEC);
        if (t->fd < 0 || ftruncate(t->fd, sizeof(struct shared)) < 0)
                return -errno;
        t->shared = mmap(NULL, sizeof(struct shared), PROT_READ | PROT_WRITE, MAP_SHARED, t->fd, 0);
        if (t->shared == MAP_FAILED) {
                t->shared = NULL;
                return -errno;
        }
        t->shared->magic = LIVE_MAGIC;
        t->shared->version = LIVE_VERSION;
        t->shared->slot_size = sizeof(struct slot);
        t->shared->n_slots = LIVE_SLOTS;
        return 0;
}

static void free_table(struct live_table *t) {
        if (t->shared)
                (void)munmap(t->shared, sizeof(struct shared));
        (void)safe_close(t->fd);
        free(t->free_slots);
        free(t->left_slots);
        free(t);
}

void live_open(struct server *s, const struct store *store) {
        struct live_table *t = store ? calloc(1, sizeof(*t)) : NULL;
        int r;

        if (!t)
                return;
        t->server = s;
        t->store = store;
        t->fd = -1;
        list_init(&t->dirty);
        t->free_slots = calloc(LIVE_SLOTS, sizeof(*t->free_slots));
        t->left_slots = calloc(LIVE_SLOTS, sizeof(*t->left_slots));
        r = t->free_slots && t->left_slots ? make_table(t) : -ENOMEM;
        if (r < 0) {
                log_notice("connections would not outlive a crash: %s", strerror(-r));
                free_table(t);
                return;
        }
        s->live = t;
}

/* ---- connections -------------------------------------------------------------------- */

/* Of many users none has more than are left. */
static bool has_slot_for(const struct connection *c) {
        const struct live_table *t = c->server->live;
        size_t n = t->n_free + LIVE_SLOTS - t->next;

        return c->server->mode == MODE_SYSTEM ? c->account->n_live < n : n > 0;
}

/* socket(7), SO_COOKIE: no other socket ever has it. */
static uint64_t cookie_of(int fd) {
        uint64_t cookie;
        socklen_t size = sizeof(cookie);

        return getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &size) == 0 ? cookie : 0;
}

static struct live *begin(struct connection *c) {
        struct live_table *t = c->server->live;
        struct live *l;

        if (!has_slot_for(c))
                return NULL;
        l = calloc(1, sizeof(*l));
        if (!l)
                return NULL;
        l->connection = c;
        l->index = t->n_free > 0 ? t->free_slots[--t->n_free] : t->next++;
        l->sketch = -1;
        list_init(&l->dirty);
        c->live = l;
        slot_of(l)->socket = cookie_of(c->fd);
        slot_of(l)->sketch = 0;
        c->account->n_live++;
        return l;
}

static void on_timer(struct mux_timer *timer);

static void set_timer(struct server *s) {
        struct live_table *t = s->live;

        if (t->timer.heap_index == 0)
                (void)mux_timer_set(s->mux, &t->timer, MAX(t->next_nsec, monotonic_nsec() + SKETCH_MSEC * NSEC_PER_MSEC),
                                    on_timer);
}

/* False: what is under the names is still to go. */
static bool drop(const struct live_table *t, size_t index) {
        char name[16];

        for (enum live_kind kind = LIVE_SOCKET; kind <= LIVE_SKETCH; kind++) {
                live_name(kind, index, name);
                if (t->store->drop(name) == -EAGAIN)
                        return false;
        }
        return true;
}

void live_end(struct connection *c) {
        struct live *l = take_pointer(&c->live);
        struct live_table *t = c->server->live;

        if (!l)
                return;
        c->account->n_live--;
        atomic_store(&t->shared->slots[l->index].state, SLOT_FREE);
        (void)safe_close(l->sketch);
        list_remove(&l->dirty);
        if (!l->keeps_socket || drop(t, l->index))
                t->free_slots[t->n_free++] = l->index;
        else {
                t->left_slots[t->n_left++] = l->index;
                set_timer(c->server);
        }
        free(l);
}

void live_touch(struct connection *c) {
        if (c->live)
                atomic_store(&slot_of(c->live)->state, SLOT_BUSY);
}

static bool can_rest(const struct connection *c) {
        return !c->gone && !c->end_of_input && !c->doomed && !connection_is_busy(c) &&
               c->in.size == 0 && c->n_fds == 0 && c->out.size == c->written;
}

static bool is_too_much(const struct connection *c) {
        return c->queue.watches.n_nodes > WATCHES_MAX || c->queue.watch_bytes > WATCH_BYTES_MAX;
}

void live_rest(struct connection *c) {
        struct live_table *t = c->server->live;
        struct live *l = c->live;
        struct wait_state wait;
        struct slot *slot;

        if (!t || !can_rest(c))
                return;
        if (is_too_much(c))
                return;
        if (!l)
                l = c->queue.watches.n_nodes > 0 ? begin(c) : NULL;
        if (!l) /* who watches nothing connects again without having missed anything */
                return;
        if (l->version != c->queue.version) {
                if (list_empty(&l->dirty))
                        list_append(&t->dirty, &l->dirty);
                set_timer(c->server);
                return;
        }
        slot = slot_of(l);
        slot->seq = c->queue.seq;
        slot->sketch_size = l->size;
        connection_wait_state(c, &wait);
        slot->waits = wait.waits;
        slot->more = wait.more;
        slot->max_events = wait.max_events;
        slot->timeout_msec = wait.timeout_msec;
        slot->deadline_nsec = wait.deadline_nsec;
        slot->last_reply_nsec = wait.last_reply_nsec;
        atomic_store(&slot->state, SLOT_AT_REST);
}

static int make_sketch(struct live *l) {
        struct stat st;

        l->sketch = memfd_create("kevd-sketch", MFD_CLOEXEC);
        if (l->sketch < 0 || fstat(l->sketch, &st) < 0)
                return -errno;
        slot_of(l)->sketch = st.st_ino;
        return 0;
}

static int write_sketch(struct live *l, const struct buffer *bytes) {
        size_t done = 0;

        while (done < bytes->size) {
                ssize_t n = pwrite(l->sketch, bytes->data + done, bytes->size - done, (off_t)done);

                if (n < 0 && errno != EINTR)
                        return -errno;
                done += (size_t)MAX(n, 0);
        }
        l->size = bytes->size;
        return ftruncate(l->sketch, (off_t)bytes->size) < 0 ? -errno : 0;
}

static int keep(struct live *l, const struct store *store) {
        char name[16];
        int r = 0;

        live_name(LIVE_SOCKET, l->index, name);
        if (!l->keeps_socket)
                r = store->keep(l->connection->fd, name);
        l->keeps_socket |= r == 0;
        live_name(LIVE_SKETCH, l->index, name);
        if (r == 0 && !l->keeps_sketch)
                r = store->keep(l->sketch, name);
        l->keeps_sketch |= r == 0;
        return r;
}

static int sketch(struct live *l) {
        struct state_writer w = { 0 };
        int r;

        connection_sketch(l->connection, &w);
        r = w.bytes.error;
        if (r == 0 && l->sketch < 0)
                r = make_sketch(l);
        if (r == 0)
                r = write_sketch(l, &w.bytes);
        state_writer_free(&w);
        return r;
}

/* Those that go wait for the store as well. */
static bool drop_left(struct live_table *t) {
        while (t->n_left > 0) {
                if (!drop(t, t->left_slots[t->n_left - 1]))
                        return false;
                t->free_slots[t->n_free++] = t->left_slots[--t->n_left];
        }
        return true;
}

static bool keep_table(struct live_table *t) {
        t->has_table = t->has_table || t->store->keep(t->fd, TABLE_NAME) == 0;
        return t->has_table;
}

/* False: the store has no time just now. What can't be written down stays busy, and would end with the daemon. */
static bool write_down(struct live_table *t, struct live *l) {
        struct connection *c = l->connection;
        uint64_t version = c->queue.version;
        int r;

        live_touch(c);
        if (connection_is_busy(c) || is_too_much(c)) /* it comes again */
                return true;
        if (sketch(l) < 0)
                return true;
        r = keep(l, t->store);
        if (r < 0)
                return r != -EAGAIN;
        l->version = version;
        live_rest(c);
        return true;
}

/* Of this thread: what others do meanwhile is not its work. */
static uint64_t thread_nsec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
        return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void on_timer(struct mux_timer *timer) {
        struct live_table *t = container_of(timer, struct live_table, timer);
        uint64_t begin_nsec = thread_nsec(), spent_nsec = 0;
        bool goes_on = keep_table(t) && drop_left(t);

        while (goes_on && spent_nsec < NOTES_NSEC && !list_empty(&t->dirty)) {
                struct live *l = list_entry(t->dirty.next, struct live, dirty);

                goes_on = write_down(t, l);
                if (goes_on)
                        list_remove(&l->dirty);
                spent_nsec = thread_nsec() - begin_nsec;
        }
        t->next_nsec = monotonic_nsec() + spent_nsec * SKETCH_SHARE;
        if (!goes_on || t->n_left > 0)
                set_timer(t->server);
        else if (!list_empty(&t->dirty))
                (void)mux_timer_set(t->server->mux, &t->timer, t->next_nsec, on_timer);
}

/* What a store has already it would not take under another name, under which the next daemon looks for it. */
static void empty_store(struct live_table *t) {
        bool waited = true;

        while (waited && !drop_left(t))
                waited = t->store->wait() >= 0;
        while (waited && t->has_table && t->store->drop(TABLE_NAME) == -EAGAIN)
                waited = t->store->wait() >= 0;
}

void live_close(struct server *s) {
        struct live_table *t = s->live;

        if (!t)
                return;
        list_for_each(entry, &s->connections)
                live_end(list_entry(entry, struct connection, link));
        mux_timer_clear(s->mux, &t->timer);
        empty_store(t);
        free_table(t);
        s->live = NULL;
}

/* ---- the next daemon -------------------------------------------------------------- */

static int restore_one(struct server *s, const struct slot *slot, int fd, int sketch) {
        struct state_fds none = { 0 };
        struct state_reader r = { .fds = &none };
        const struct wait_state wait = {
                .waits = slot->waits, .more = slot->more, .max_events = slot->max_events,
                .timeout_msec = slot->timeout_msec, .deadline_nsec = slot->deadline_nsec,
                .last_reply_nsec = slot->last_reply_nsec,
        };
        struct stat st;
        void *bytes;
        int result;

        if (fstat(sketch, &st) < 0 || slot->sketch_size == 0 || slot->sketch_size > (uint64_t)st.st_size) {
                (void)close(fd);
                return -EBADMSG;
        }
        bytes = malloc(slot->sketch_size);
        if (!bytes || pread(sketch, bytes, slot->sketch_size, 0) != (ssize_t)slot->sketch_size) {
                free(bytes);
                (void)close(fd);
                return -EBADMSG;
        }
        r.next = bytes;
        r.end = r.next + slot->sketch_size;
        result = connection_restore_sketch(s, fd, slot->seq, &wait, &r);
        free(bytes);
        return result;
}

/* -1: it is not there. */
static int find_sketch(const struct slot *slot, const struct state_fds *sketches, size_t i) {
        struct stat st;

        for (; i < sketches->n; i += LIVE_SLOTS)
                if (sketches->fds[i] >= 0 && fstat(sketches->fds[i], &st) == 0 && st.st_ino == slot->sketch)
                        return sketches->fds[i];
        return -1;
}

static void restore_all(struct server *s, const struct shared *shared, struct state_fds *sockets,
                        const struct state_fds *sketches) {
        size_t n_ended = 0;

        for (size_t i = 0; i < sockets->n; i++) {
                const struct slot *slot = &shared->slots[i % LIVE_SLOTS];
                int fd = take_fd(&sockets->fds[i]), sketch = -1;

                if (fd < 0)
                        continue;
                if (slot->state == SLOT_AT_REST && slot->socket > 0 && slot->socket == cookie_of(fd))
                        sketch = find_sketch(slot, sketches, i % LIVE_SLOTS);
                if (sketch >= 0)
                        n_ended += restore_one(s, slot, fd, sketch) < 0;
                else { /* whoever else has it open */
                        (void)shutdown(fd, SHUT_RDWR);
                        (void)close(fd);
                        n_ended++;
                }
        }
        log_info("the last daemon did not end by itself: %zu connections go on, and %zu end", s->n_connections, n_ended);
}

int live_restore(struct server *s, int table, struct state_fds *sockets, const struct state_fds *sketches) {
        struct shared *shared;
        struct stat st;
        int r = 0;

        if (fstat(table, &st) < 0 || st.st_size != sizeof(*shared))
                return -EBADMSG;
        shared = mmap(NULL, sizeof(*shared), PROT_READ, MAP_PRIVATE, table, 0);
        if (shared == MAP_FAILED)
                return -errno;
        if (shared->magic == LIVE_MAGIC && shared->version == LIVE_VERSION && shared->slot_size == sizeof(struct slot) &&
            shared->n_slots == LIVE_SLOTS)
                restore_all(s, shared, sockets, sketches);
        else
                r = -EBADMSG;
        (void)munmap(shared, sizeof(*shared));
        return r;
}
