/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The feed of processes by a program in the kernel: bpf/processes.bpf.c. It knows who forked, what the new program is
 * called, the user ids of the moment, and which thread is a process's last. What its ring had no room for is counted
 * there, forks by themselves; but what tagged processes do goes into a second ring then. What both have is put into the
 * order of its time: a fork may be in one of them and the end in the other.
 *
 * To load it takes CAP_BPF and CAP_PERFMON (Linux 5.8), and a kernel that describes its structures (BTF).
 */

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <kev.h>

#include "bpf/processes.h"
#include "feed_writer.h"
#include "mux.h"
#include "question.h"
#include "state.h"
/* Generated; the program is in it as one string. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
#include "processes.skel.h"
#pragma GCC diagnostic pop

enum { RING_BYTES = 8 * 1024 * 1024, TEST_MSEC = 1000, RESERVED_MAX = 65536 };

/* What the helper hands over: the program's maps, and what it is attached by, for as long as somebody has these. */
enum { FD_RECORDS, FD_RESERVE, FD_BSS, FD_TAGS, FD_LIST, FD_LINKS };

_Static_assert(FD_LINKS + 5 == OPENING_FDS_MAX, "the links of a program with all that it can tell");

struct feed {
        struct feed_shared *shared;
        struct feed_writer writer;
        struct opened opened;
        struct ring_buffer *ring;
        struct processes_bpf__bss *bss;

        /* The thread's own. */
        struct bpf_losses losses; /* told of */
        uint64_t drain_nsec;      /* CLOCK_MONOTONIC: what is older has been taken from the reserve */
        struct bpf_record held;   /* from the ring, and not older; kind 0: none */
        struct bpf_record *reserved; /* taken from the reserve, not put yet */
        size_t n_reserved, n_reserved_put, reserved_capacity;
};

static void put_record(struct feed *f, const struct bpf_record *b) {
        static const enum record_kind kinds[] = {
                [BPF_RECORD_FORK] = RECORD_FORK, [BPF_RECORD_EXEC] = RECORD_EXEC, [BPF_RECORD_EXIT] = RECORD_EXIT,
                [BPF_RECORD_IDS] = RECORD_IDS,   [BPF_RECORD_COMM] = RECORD_COMM,
        };
        struct record *r;

        if (b->kind >= ARRAY_SIZE(kinds) || !kinds[b->kind])
                return;
        atomic_fetch_add_explicit(&f->shared->n_received, 1, memory_order_relaxed);
        r = feed_writer_put(&f->writer, kinds[b->kind], b->pid);
        if (!r)
                return;
        r->parent = b->parent;
        r->nsec = b->nsec;
        r->status = b->status;
        r->is_last = b->kind == BPF_RECORD_EXIT;
        r->cpu_usec = b->cpu_nsec / NSEC_PER_USEC;
        r->peak_bytes = b->peak_pages * (uint64_t)sysconf(_SC_PAGESIZE);
        r->knows_ids = r->knows_comm = true;
        r->ids = (struct process_ids){ b->real, b->effective, b->saved };
        memcpy(r->comm, b->comm, sizeof(r->comm));
        r->comm[sizeof(r->comm) - 1] = 0;
}

static void put(struct feed *f, const struct bpf_record *b) {
        if (b->kind == BPF_RECORD_EXIT && WCOREDUMP(b->status))
                (void)feed_writer_put(&f->writer, RECORD_CORE, b->pid);
        put_record(f, b);
}

/* ---- two rings in one order ---------------------------------------------------------------------------------------- */

static int on_reserved(void *context, void *data, size_t size) {
        struct feed *f = context;

        if (size < sizeof(*f->reserved))
                return 0;
        if (f->n_reserved == f->reserved_capacity && f->n_reserved_put > 0) {
                f->n_reserved -= f->n_reserved_put;
                memmove(f->reserved, f->reserved + f->n_reserved_put, f->n_reserved * sizeof(*f->reserved));
                f->n_reserved_put = 0;
        }
        if (f->n_reserved == f->reserved_capacity) {
                size_t capacity = MAX(f->reserved_capacity * 2, (size_t)256);
                struct bpf_record *larger = capacity > RESERVED_MAX ? NULL :
                        realloc(f->reserved, capacity * sizeof(*larger));

                if (!larger) {
                        f->writer.failed = true;
                        return 0;
                }
                f->reserved = larger;
                f->reserved_capacity = capacity;
        }
        memcpy(&f->reserved[f->n_reserved++], data, sizeof(*f->reserved));
        return 0;
}

/* Those that came before. */
static void put_reserved(struct feed *f, uint64_t nsec) {
        while (f->n_reserved_put < f->n_reserved && f->reserved[f->n_reserved_put].nsec <= nsec)
                put(f, &f->reserved[f->n_reserved_put++]);
        if (f->n_reserved_put == f->n_reserved)
                f->n_reserved = f->n_reserved_put = 0;
}

static void put_in_order(struct feed *f, const struct bpf_record *b) {
        put_reserved(f, b->nsec);
        put(f, b);
}

static void put_held(struct feed *f) {
        if (!f->held.kind)
                return;
        put_in_order(f, &f->held);
        f->held.kind = 0;
}

/* The reserve was taken just before. What has come since may follow on something that is in the reserve only now. */
static int on_sample(void *context, void *data, size_t size) {
        struct feed *f = context;
        const struct bpf_record *b = data;

        put_held(f);
        if (size < sizeof(*b))
                return 0;
        if (b->nsec >= f->drain_nsec) {
                f->held = *b;
                return -EAGAIN;
        }
        put_in_order(f, b);
        return feed_writer_is_full(&f->writer) ? -EAGAIN : 0;
}

static bool drain(struct feed *f) {
        int r;

        do {
                f->drain_nsec = monotonic_nsec();
                r = ring_buffer__consume(f->ring); /* on_sample() may end it */
        } while (r == -EAGAIN && !feed_writer_is_full(&f->writer));
        if (r < 0)
                return false;
        put_held(f);
        put_reserved(f, UINT64_MAX);
        return true;
}

/* It grows only. */
static uint64_t read_loss(const unsigned long long *counter) {
        return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

static void tell_losses(struct feed *f) {
        struct bpf_losses now = {
                read_loss(&f->bss->losses.forks), read_loss(&f->bss->losses.others),
        };
        struct record *r;

        if (now.forks == f->losses.forks && now.others == f->losses.others && !f->writer.failed)
                return;
        f->writer.failed = false;
        atomic_fetch_add(&f->shared->n_lost, now.forks + now.others - f->losses.forks - f->losses.others);
        r = feed_writer_put(&f->writer, RECORD_LOST, 0);
        if (!r)
                return;
        r->is_certain = true;
        r = now.forks > f->losses.forks ? feed_writer_put(&f->writer, RECORD_FORKS_LOST, 0) : NULL;
        if (r)
                r->count = now.forks - f->losses.forks;
        f->losses = now;
}

/* ---- the loop's side -------------------------------------------------------------------------------------------- */

static int print_nothing(enum libbpf_print_level level _unused_, const char *format _unused_, va_list arguments _unused_) {
        return 0;
}

static void free_feed(struct feed *f) {
        feed_writer_close(&f->writer);
        ring_buffer__free(f->ring);
        if (f->bss)
                (void)munmap(f->bss, sizeof(*f->bss));
        opened_close(&f->opened);
        free(f->reserved);
        free(f);
}

/* What another daemon has left may be anything. */
static bool is_bss(int fd) {
        struct bpf_map_info info = { 0 };
        uint32_t size = sizeof(info);

        return bpf_obj_get_info_by_fd(fd, &info, &size) == 0 && info.type == BPF_MAP_TYPE_ARRAY &&
               info.value_size >= sizeof(struct processes_bpf__bss) && info.map_flags & BPF_F_MMAPABLE;
}

static int take_program(struct feed *f) {
        void *bss;

        (void)libbpf_set_print(print_nothing);
        if (f->opened.lacks_ids)
                f->shared->notes_missing = KEV_NOTE_UID;
        if (!is_bss(f->opened.fds[FD_BSS]))
                return -EBADMSG;
        bss = mmap(NULL, sizeof(*f->bss), PROT_READ, MAP_SHARED, f->opened.fds[FD_BSS], 0);
        if (bss == MAP_FAILED)
                return -errno;
        f->bss = bss;
        /* In this order they are taken. */
        f->ring = ring_buffer__new(f->opened.fds[FD_RESERVE], on_reserved, f, NULL);
        return f->ring ? ring_buffer__add(f->ring, f->opened.fds[FD_RECORDS], on_sample, f) : -errno;
}

static int start(struct feed *f) {
        int r = take_program(f);

        if (r < 0)
                return r;
        f->writer.feed = f;
        f->writer.fd = ring_buffer__epoll_fd(f->ring);
        f->writer.drain = drain;
        f->writer.tell_losses = tell_losses;
        return feed_writer_start(&f->writer);
}

static int bpf_open(const struct feed_settings *settings _unused_, const struct opened *opened, struct mailbox *mailbox,
                    struct feed_shared *shared, struct feed **ret_feed, char *why, size_t why_size) {
        struct feed *f = calloc(1, sizeof(*f));
        int r;

        if (!f) {
                opened_drop(opened);
                return -ENOMEM;
        }
        f->shared = shared;
        f->opened = opened ? *opened : OPENED_NONE;
        f->opened.socket = safe_close(f->opened.socket); /* the helper has no more to do */
        r = feed_writer_init(&f->writer, mailbox, shared);
        if (r == 0)
                r = opened ? start(f) : -EPERM;
        if (r < 0) {
                (void)snprintf(why, why_size, "BPF: %s",
                               opened ? strerror(-r) : "this daemon hasn't CAP_BPF and CAP_PERFMON");
                free_feed(f);
                return r;
        }
        *ret_feed = f;
        return 0;
}

static void bpf_tag(struct feed *f, int pidfd, uint64_t id, uint64_t oldest) {
        struct bpf_tags tags = { 0 };
        int map = f->opened.fds[FD_TAGS];

        (void)bpf_map_lookup_elem(map, &pidfd, &tags);
        for (size_t i = 0; i < BPF_TAGS; i++)
                if (tags.ids[i] < oldest) {
                        tags.ids[i] = id;
                        (void)bpf_map_update_elem(map, &pidfd, &tags, BPF_ANY);
                        return;
                }
        /* Too many follow it at a time: this one has the records alone. */
}

static bool put_tagged(const struct bpf_tagged *from, struct tagged **list, size_t *n, size_t *capacity) {
        for (size_t i = 0; i < BPF_TAGS; i++) {
                if (from->tags.ids[i] == 0)
                        continue;
                if (*n == *capacity) {
                        size_t more = MAX(*capacity * 2, (size_t)256);
                        struct tagged *larger = realloc(*list, more * sizeof(*larger));

                        if (!larger)
                                return false;
                        *list = larger;
                        *capacity = more;
                }
                (*list)[(*n)++] = (struct tagged){ from->pid, from->tags.ids[i] };
        }
        return true;
}

static int bpf_list_tagged(struct feed *f, struct tagged **ret, size_t *ret_n) {
        struct bpf_tagged some[64];
        struct tagged *list = NULL;
        size_t n = 0, capacity = 0;
        int fd = bpf_iter_create(f->opened.fds[FD_LIST]), r = fd < 0 ? fd : 0;
        ssize_t size;

        /* Whole ones: each is written at once (bpf_seq_write()). */
        while (r == 0 && (size = read(fd, some, sizeof(some))) > 0)
                for (size_t i = 0; i < (size_t)size / sizeof(some[0]); i++)
                        if (!put_tagged(&some[i], &list, &n, &capacity))
                                r = -ENOMEM;
        (void)safe_close(fd);
        if (r < 0) {
                free(list);
                return r;
        }
        *ret = list;
        *ret_n = n;
        return 0;
}

static void bpf_mark(struct feed *f, uint64_t serial) {
        feed_writer_mark(&f->writer, serial);
}

/* ---- for the next daemon -------------------------------------------------------------------------------------------- */

/* What the program tells from now on stays in its rings. */
static bool bpf_save(struct feed *f, struct state_writer *w) {
        feed_writer_stop(&f->writer);
        if (f->writer.failed || f->held.kind || f->n_reserved_put < f->n_reserved) /* it was taken, and there was no room */
                return false;
        state_put_u64(w, BPF_FORMAT);
        for (size_t i = 0; i < OPENING_FDS_MAX; i++)
                state_put_fd(w, f->opened.fds[i]);
        state_put_bool(w, f->opened.lacks_ids);
        state_put_u64(w, f->losses.forks);
        state_put_u64(w, f->losses.others);
        return true;
}

static int bpf_resume(struct broker *opener _unused_, struct mailbox *mailbox, struct feed_shared *shared,
                      struct state_reader *r, struct feed **ret_feed) {
        bool is_ours = state_get_u64(r) == BPF_FORMAT; /* another version's program may tell otherwise */
        struct feed *f = calloc(1, sizeof(*f));
        int result;

        if (!f)
                return -ENOMEM;
        f->shared = shared;
        f->opened = OPENED_NONE;
        for (size_t i = 0; i < OPENING_FDS_MAX; i++)
                f->opened.fds[i] = state_get_fd(r);
        f->opened.lacks_ids = state_get_bool(r);
        f->losses.forks = state_get_u64(r);
        f->losses.others = state_get_u64(r);
        result = feed_writer_init(&f->writer, mailbox, shared);
        if (result == 0)
                result = r->failed || !is_ours ? -EBADMSG : start(f);
        if (result < 0)
                free_feed(f);
        else
                *ret_feed = f;
        return result;
}

const struct feed_class feed_bpf = {
        .name = "bpf",
        .title = "BPF: ",
        .knows_maker = true,
        .helper = HELPER_PROCESSES,
        .open = bpf_open,
        .close = free_feed,
        .mark = bpf_mark,
        .tag = bpf_tag,
        .list_tagged = bpf_list_tagged,
        .save = bpf_save,
        .resume = bpf_resume,
};

/* ---- in the helper ------------------------------------------------------------------------------------------------ */

/* The kernel wants a power of two. */
static uint32_t ring_size(size_t wanted) {
        uint32_t size = (uint32_t)sysconf(_SC_PAGESIZE);

        while (size < (wanted ? wanted : RING_BYTES) && size < UINT32_C(1) << 30)
                size *= 2;
        return size;
}

/* A child that has ended, once it was told of. */
static int on_test_sample(void *context, void *data, size_t size) {
        const struct bpf_record *b = data;
        pid_t *child = context;

        if (size >= sizeof(*b) && b->kind == BPF_RECORD_EXIT && b->pid == *child)
                *child = 0;
        return 0;
}

/* 1: it does, 0: it says nothing; or a negative errno. */
static int hears(struct processes_bpf *program) {
        uint64_t deadline = monotonic_nsec() + TEST_MSEC * NSEC_PER_MSEC, now;
        pid_t child = -1;
        struct ring_buffer *ring = ring_buffer__new(bpf_map__fd(program->maps.records), on_test_sample, &child, NULL);

        if (!ring)
                return -errno;
        child = fork();
        if (child < 0) {
                ring_buffer__free(ring);
                return -EAGAIN;
        }
        if (child == 0)
                _exit(0);
        while (child > 0 && (now = monotonic_nsec()) < deadline &&
               ring_buffer__poll(ring, (int)((deadline - now) / NSEC_PER_MSEC) + 1) >= 0)
                ;
        ring_buffer__free(ring);
        return child == 0;
}

/* Without kprobes nobody tells when user ids change: then another feed is better, if there may be another. */
static int attach(struct processes_bpf *program, bool is_only, struct opening *opening) {
        struct bpf_link *creds = bpf_program__attach(program->progs.on_creds);

        program->links.on_creds = creds;
        if (!creds && !is_only) {
                (void)snprintf(opening->why, sizeof(opening->why),
                               "BPF: this kernel has no kprobes, and can't tell when user ids change");
                return -EOPNOTSUPP;
        }
        opening->lacks_ids = !creds;
        bpf_program__set_autoattach(program->progs.on_creds, false);
        return processes_bpf__attach(program);
}

/* They are attached as long as anybody has them. */
static void add_link(const struct bpf_link *link, int fds[OPENING_FDS_MAX], struct opening *opening) {
        if (link)
                fds[opening->n_fds++] = bpf_link__fd(link);
}

int feed_bpf_load(size_t buffer_bytes, bool is_only, int ret_fds[OPENING_FDS_MAX], struct opening *opening) {
        struct processes_bpf *program;
        int r;

        (void)libbpf_set_print(print_nothing);
        program = processes_bpf__open();
        if (!program)
                return -errno;
        r = bpf_map__set_max_entries(program->maps.records, ring_size(buffer_bytes));
        if (r == 0)
                r = processes_bpf__load(program);
        if (r == 0)
                r = attach(program, is_only, opening);
        if (r == 0)
                r = hears(program);
        if (r == 0) {
                r = -EOPNOTSUPP;
                (void)snprintf(opening->why, sizeof(opening->why), "BPF: the program says nothing (of this pid namespace)");
        }
        if (r < 0) {
                processes_bpf__destroy(program);
                return r;
        }
        ret_fds[FD_RECORDS] = bpf_map__fd(program->maps.records);
        ret_fds[FD_RESERVE] = bpf_map__fd(program->maps.reserve);
        ret_fds[FD_BSS] = bpf_map__fd(program->maps.bss);
        ret_fds[FD_TAGS] = bpf_map__fd(program->maps.tags);
        ret_fds[FD_LIST] = bpf_link__fd(program->links.list_tagged);
        opening->n_fds = FD_LINKS;
        add_link(program->links.on_fork, ret_fds, opening);
        add_link(program->links.on_exec, ret_fds, opening);
        add_link(program->links.on_exit, ret_fds, opening);
        add_link(program->links.on_rename, ret_fds, opening);
        add_link(program->links.on_creds, ret_fds, opening);
        return 0;
}
