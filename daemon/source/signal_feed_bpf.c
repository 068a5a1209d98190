/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The feed of signals by a program in the kernel: bpf/signals.bpf.c. What its ring had no room for is counted for each
 * process and signal, so that no signal goes uncounted.
 *
 * To load it takes CAP_BPF and CAP_PERFMON (Linux 5.8), and a kernel that describes its structures (BTF).
 */

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <unistd.h>

#include "bpf/signals.h"
#include "hash.h"
#include "list.h"
#include "macro.h"
#include "opener_call.h"
#include "question.h"
#include "signal_feed.h"
/* Generated; the program is in it as one string. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Woverlength-strings"
#include "signals.skel.h"
#pragma GCC diagnostic pop

enum { RING_BYTES = 1024 * 1024, RECORDS_A_TURN = 1024, LOOKS_A_TURN = 256 /* for what was lost */ };

/* What the helper hands over. */
enum { FD_RECORDS, FD_BSS, FD_TARGETS };

struct signal_feed {
        struct opened opened; /* the program is the helper's */
        struct ring_buffer *ring;
        void *positions; /* of the ring, as the kernel maps them: the consumer's page and the producer's */
        struct signals_bpf__bss *bss;
        signal_feed_fn *fn;
        void *userdata;
        struct hash followed;      /* by pid */
        struct list at_rest;       /* of these, and those whose losses are due to be told */
        struct list due;
        unsigned n_records;        /* in this turn */
        unsigned long long n_lost; /* told of */
        unsigned long long n_lost_due; /* with those that are due */
};

struct followed {
        struct hash_node node;
        struct list link;
        pid_t pid;
        int next; /* of its losses: the first that is not told */
        unsigned int lost[BPF_SIGNALS]; /* told of */
};

static int on_sample(void *context, void *data, size_t size) {
        struct signal_feed *f = context;
        const struct bpf_signal *b = data;
        struct signal_record r = { .count = 1, .knows_ids = true };

        if (size < sizeof(*b))
                return 0;
        r.pid = b->pid;
        r.number = b->number;
        r.ids = (struct process_ids){ b->real, b->effective, b->saved };
        r.sender = b->sender;
        r.sender_uid = b->sender_uid;
        r.sender_comm = b->sender ? b->sender_comm : NULL;
        f->n_records++;
        return f->fn(f->userdata, &r) || f->n_records == RECORDS_A_TURN ? -EAGAIN : 0;
}

static int map_of(const struct signal_feed *f) {
        return f->opened.fds[FD_TARGETS];
}

/* False: enough was told. */
static bool tell_lost_of(struct signal_feed *f, struct followed *followed) {
        struct bpf_signal_target target;
        bool is_enough = false;

        if (bpf_map_lookup_elem(map_of(f), &followed->pid, &target) < 0)
                return true;
        while (followed->next < BPF_SIGNALS && !is_enough) {
                int i = followed->next++;
                struct signal_record r = {
                        .pid = followed->pid, .number = i + 1, .count = target.lost[i] - followed->lost[i],
                };

                followed->lost[i] = target.lost[i];
                is_enough = r.count > 0 && f->fn(f->userdata, &r);
        }
        return !is_enough;
}

static unsigned long long count_lost(const struct signal_feed *f) {
        return __atomic_load_n(&f->bss->n_lost, __ATOMIC_RELAXED);
}

/* One round after the other: what is lost during one is told in the next, if not in this one. */
static void tell_lost(struct signal_feed *f) {
        if (list_empty(&f->due)) {
                f->n_lost_due = count_lost(f);
                if (f->n_lost_due == f->n_lost)
                        return;
                list_splice(&f->due, &f->at_rest);
        }
        for (int i = 0; i < LOOKS_A_TURN && !list_empty(&f->due); i++) {
                struct followed *followed = list_entry(f->due.next, struct followed, link);

                if (!tell_lost_of(f, followed))
                        return;
                followed->next = 0;
                list_remove(&followed->link);
                list_append(&f->at_rest, &followed->link);
        }
        if (list_empty(&f->due))
                f->n_lost = f->n_lost_due;
}

/* Neither of the two keeps the other waiting: a record at least is told of each. */
static bool bpf_read(struct signal_feed *f) {
        bool is_empty;

        f->n_records = 0;
        is_empty = ring_buffer__consume(f->ring) >= 0; /* else on_sample() has ended it */
        tell_lost(f);
        return is_empty && count_lost(f) == f->n_lost;
}

static unsigned long read_position(const struct signal_feed *f, size_t offset) {
        return __atomic_load_n((const unsigned long *)(const void *)((const char *)f->positions + offset), __ATOMIC_ACQUIRE);
}

static size_t page_size(void) {
        return (size_t)sysconf(_SC_PAGESIZE);
}

static struct signal_position bpf_position(const struct signal_feed *f) {
        return (struct signal_position){ read_position(f, page_size()), count_lost(f) };
}

/* The kernel's positions may go round where a long is short. */
static bool bpf_is_past(const struct signal_feed *f, const struct signal_position *position) {
        return (long)(read_position(f, 0) - (unsigned long)position->ring) >= 0 && f->n_lost >= position->lost;
}

static int bpf_fd(const struct signal_feed *f) {
        return ring_buffer__epoll_fd(f->ring);
}

/* ---- who is followed ------------------------------------------------------------------------------------------------------ */

static struct followed *find(const struct signal_feed *f, pid_t pid) {
        for (struct hash_node *n = hash_first(&f->followed, hash_u64((uint64_t)pid)); n; n = hash_next(n)) {
                struct followed *followed = container_of(n, struct followed, node);

                if (followed->pid == pid)
                        return followed;
        }
        return NULL;
}

static void forget(struct signal_feed *f, struct followed *followed) {
        hash_remove(&f->followed, &followed->node);
        list_remove(&followed->link);
        free(followed);
}

static int bpf_follow(struct signal_feed *f, pid_t pid, uint64_t identity) {
        struct bpf_signal_target target = { .identity = identity };
        struct followed *followed = calloc(1, sizeof(*followed));
        int r;

        if (!followed || hash_add(&f->followed, &followed->node, hash_u64((uint64_t)pid)) < 0) {
                free(followed);
                return -ENOMEM;
        }
        followed->pid = pid;
        list_init(&followed->link);
        list_append(&f->at_rest, &followed->link);
        r = bpf_map_update_elem(map_of(f), &pid, &target, BPF_NOEXIST);
        if (r < 0)
                forget(f, followed);
        return r == -E2BIG ? -ENOSPC : r;
}

static void bpf_leave(struct signal_feed *f, pid_t pid) {
        struct followed *followed = find(f, pid);

        if (!followed)
                return;
        (void)bpf_map_delete_elem(map_of(f), &pid);
        forget(f, followed);
}

/* ---- opening --------------------------------------------------------------------------------------------------------------- */

static int print_nothing(enum libbpf_print_level level _unused_, const char *format _unused_, va_list arguments _unused_) {
        return 0;
}

static bool on_test_record(void *userdata, const struct signal_record *record) {
        bool *heard = userdata;

        *heard |= record->number == SIGWINCH && record->sender == getpid();
        return false;
}

/* The daemon is sent a signal that it ignores. (A child would have copies of all that clients have passed.) It is in the
 * ring by the time that kill() returns. */
static int test(struct signal_feed *f) {
        int pidfd _cleanup_(closep) = pidfd_open(getpid(), 0);
        int r = pidfd < 0 ? -errno : bpf_follow(f, getpid(), pidfd_identity(pidfd, getpid()));
        bool heard = false;

        f->fn = on_test_record;
        f->userdata = &heard;
        if (r == 0) {
                (void)kill(getpid(), SIGWINCH);
                (void)bpf_read(f);
        }
        bpf_leave(f, getpid());
        f->fn = NULL;
        f->userdata = NULL;
        return r < 0 || heard ? r : -EOPNOTSUPP;
}

static int bpf_helper_socket(const struct signal_feed *f) {
        return f->opened.socket;
}

static int take_program(struct signal_feed *f) {
        void *bss, *positions;

        (void)libbpf_set_print(print_nothing);
        bss = mmap(NULL, sizeof(*f->bss), PROT_READ, MAP_SHARED, f->opened.fds[FD_BSS], 0);
        if (bss == MAP_FAILED)
                return -errno;
        f->bss = bss;
        positions = mmap(NULL, 2 * page_size(), PROT_READ, MAP_SHARED, f->opened.fds[FD_RECORDS], 0);
        if (positions == MAP_FAILED)
                return -errno;
        f->positions = positions;
        f->ring = ring_buffer__new(f->opened.fds[FD_RECORDS], on_sample, f, NULL);
        return f->ring ? 0 : -errno;
}

static void bpf_close(struct signal_feed *f) {
        hash_for_each(node, &f->followed)
                forget(f, container_of(node, struct followed, node));
        ring_buffer__free(f->ring);
        if (f->bss)
                (void)munmap(f->bss, sizeof(*f->bss));
        if (f->positions)
                (void)munmap(f->positions, 2 * page_size());
        opened_close(&f->opened);
        free(f);
}

static int bpf_open(const struct opened *opened, signal_feed_fn *fn, void *userdata, struct signal_feed **ret, char *why,
                    size_t why_size) {
        struct signal_feed *f = calloc(1, sizeof(*f));
        int r;

        if (!f) {
                opened_drop(opened);
                return -ENOMEM;
        }
        f->opened = *opened;
        list_init(&f->at_rest);
        list_init(&f->due);
        r = take_program(f);
        if (r == 0)
                r = test(f);
        if (r < 0) {
                (void)snprintf(why, why_size, "BPF: %s", r == -EOPNOTSUPP ? "the program says nothing (of this pid namespace)" :
                                                                            strerror(-r));
                bpf_close(f);
                return r;
        }
        f->fn = fn;
        f->userdata = userdata;
        *ret = f;
        return 0;
}

const struct signal_feed_class signal_feed_bpf = {
        .helper = HELPER_SIGNALS,
        .open = bpf_open,
        .close = bpf_close,
        .helper_socket = bpf_helper_socket,
        .fd = bpf_fd,
        .read = bpf_read,
        .position = bpf_position,
        .is_past = bpf_is_past,
        .follow = bpf_follow,
        .leave = bpf_leave,
};

/* ---- in the helper ------------------------------------------------------------------------------------------------ */

/* The kernel wants a power of two. */
static uint32_t ring_size(size_t wanted) {
        uint32_t size = (uint32_t)page_size();

        while (size < (wanted ? wanted : RING_BYTES) && size < UINT32_C(1) << 30)
                size *= 2;
        return size;
}

/* It lasts as long as the helper. */
int signal_feed_bpf_load(size_t buffer_bytes, bool is_only _unused_, int ret_fds[OPENING_FDS_MAX], struct opening *opening) {
        struct signals_bpf *program;
        int r;

        (void)libbpf_set_print(print_nothing);
        program = signals_bpf__open();
        if (!program)
                return -errno;
        r = bpf_map__set_max_entries(program->maps.records, ring_size(buffer_bytes));
        if (r == 0)
                r = signals_bpf__load(program);
        if (r == 0)
                r = signals_bpf__attach(program);
        if (r < 0) {
                signals_bpf__destroy(program);
                return r;
        }
        ret_fds[FD_RECORDS] = bpf_map__fd(program->maps.records);
        ret_fds[FD_BSS] = bpf_map__fd(program->maps.bss);
        ret_fds[FD_TARGETS] = bpf_map__fd(program->maps.targets);
        opening->n_fds = FD_TARGETS + 1;
        return 0;
}
