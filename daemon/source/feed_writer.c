/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "feed_writer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "mux.h"
#include "observer.h"

enum { PATH_BYTES_MAX = 4096, READS_MAX = 16 };

int feed_writer_init(struct feed_writer *w, struct mailbox *mailbox, struct feed_shared *shared) {
        *w = (struct feed_writer){ .mailbox = mailbox, .shared = shared, .timeout_msec = -1 };
        list_init(&w->done);
        w->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        return w->wake_fd < 0 ? -errno : 0;
}

/* ---- records --------------------------------------------------------------------------------------------- */

static bool begin_chunk(struct feed_writer *w) {
        if (w->chunk && w->chunk->n < CHUNK_RECORDS)
                return true;
        if (w->chunk)
                list_append(&w->done, &w->chunk->link);
        w->chunk = atomic_exchange(&w->shared->spare, NULL);
        if (!w->chunk)
                w->chunk = malloc(sizeof(*w->chunk));
        if (!w->chunk)
                return false;
        atomic_fetch_add(&w->shared->n_chunks, 1);
        list_init(&w->chunk->link);
        w->chunk->n = w->chunk->cgroup = 0;
        w->chunk->text[0] = 0;
        w->chunk->text_size = 1;
        return true;
}

static unsigned bit_of(pid_t pid) {
        return (unsigned)pid % FEED_PIDS_BITS;
}

struct record *feed_writer_put(struct feed_writer *w, enum record_kind kind, pid_t pid) {
        struct record *r;

        if (!begin_chunk(w)) {
                w->failed = true;
                return NULL;
        }
        r = &w->chunk->records[w->chunk->n++];
        *r = (struct record){ .kind = (uint8_t)kind, .pid = pid, .tid = pid };
        w->had_records |= kind != RECORD_MARK;
        w->had_mark |= kind == RECORD_MARK;
        if (kind == RECORD_FORK)
                w->pids[bit_of(pid) / 64] |= UINT64_C(1) << bit_of(pid) % 64;
        return r;
}

/* In a storm the loop is woken every other round: to wake it, and who waits for it, costs as much as the records do. */
static bool may_keep(struct feed_writer *w) {
        bool keeps = w->gathers && !w->keeps && !w->had_exec && !w->had_mark && list_empty(&w->done);

        w->keeps = keeps;
        return keeps;
}

static void end_round(struct feed_writer *w) {
        struct list *entry;

        if (w->had_records)
                w->busy_nsec = monotonic_nsec();
        if (may_keep(w))
                return;
        while ((entry = list_pop(&w->done)))
                mailbox_post(w->mailbox, entry);
        if (w->chunk && w->chunk->n > 0) {
                struct chunk *chunk = take_pointer(&w->chunk);

                mailbox_post(w->mailbox, &chunk->link);
        }
        w->had_records = w->had_mark = false;
        memset(w->pids, 0, sizeof(w->pids));
}

bool feed_writer_is_full(const struct feed_writer *w) {
        return atomic_load(&w->shared->n_chunks) > FEED_CHUNKS_MAX;
}

/* ---- what would vanish --------------------------------------------------------------------------------------- */

/* Where a path can be read to, as what follows the text. NULL: there is no more room. */
static char *text_end(struct chunk *chunk) {
        return CHUNK_TEXT - chunk->text_size < PATH_BYTES_MAX ? NULL : chunk->text + chunk->text_size;
}

static uint32_t keep_text(struct chunk *chunk) {
        uint32_t place = (uint32_t)chunk->text_size;

        chunk->text_size += strlen(chunk->text + place) + 1;
        return place;
}

/* Mostly that of the process before. */
static void read_cgroup(struct chunk *chunk, struct record *r) {
        char *text = text_end(chunk);

        if (!text || process_read_cgroup(r->pid, text, PATH_BYTES_MAX) < 0)
                return;
        if (strcmp(text, chunk->text + chunk->cgroup) != 0)
                chunk->cgroup = keep_text(chunk);
        r->cgroup = chunk->cgroup;
        r->knows_cgroup = r->read_cgroup = true;
}

static void read_program(struct chunk *chunk, struct record *r) {
        char *text = text_end(chunk);

        if (!r->knows_comm)
                r->knows_comm = r->read_comm = process_read_comm(r->pid, r->comm) == 0;
        if (text && observer_read_exe(r->pid, text, PATH_BYTES_MAX) == 0) {
                r->exe = keep_text(chunk);
                r->knows_exe = r->read_exe = true;
        }
        read_cgroup(chunk, r);
}

static bool wants_reading(const struct feed_writer *w, const struct record *r) {
        if (r->was_looked_at)
                return false;
        return (r->kind == RECORD_EXEC && atomic_load_explicit(&w->shared->wants_details, memory_order_relaxed)) ||
               (r->kind == RECORD_IDS && r->pid == r->tid && !r->knows_ids);
}

/* True: there was something to be read. */
static bool read_details_of(struct feed_writer *w, struct chunk *chunk) {
        bool any = false;

        for (size_t i = 0; i < chunk->n; i++) {
                struct record *r = &chunk->records[i];

                if (!wants_reading(w, r))
                        continue;
                any = r->was_looked_at = true;
                if (r->kind == RECORD_EXEC) {
                        read_program(chunk, r);
                        w->had_exec = true;
                } else
                        r->knows_ids = r->read_ids = process_read_ids(r->pid, &r->ids) == 0;
        }
        return any;
}

static bool read_details(struct feed_writer *w) {
        bool any = false;

        list_for_each(entry, &w->done)
                any |= read_details_of(w, list_entry(entry, struct chunk, link));
        return (w->chunk && read_details_of(w, w->chunk)) || any;
}

static bool was_forked_after(const struct feed_writer *w, const struct chunk *chunk, size_t i) {
        pid_t pid = chunk->records[i].pid;

        for (i++; chunk; i = 0) {
                for (; i < chunk->n; i++) {
                        const struct record *r = &chunk->records[i];

                        if (r->kind == RECORD_FORK && r->pid == pid && r->tid == pid)
                                return true;
                }
                if (chunk == w->chunk)
                        return false;
                chunk = chunk->link.next == &w->done ? w->chunk : list_entry(chunk->link.next, struct chunk, link);
        }
        return false;
}

/* A pid that was another's by the time it was read: its fork has been told by now. */
static void check_details_of(struct feed_writer *w, struct chunk *chunk) {
        for (size_t i = 0; i < chunk->n; i++) {
                struct record *r = &chunk->records[i];

                if (!(r->read_comm || r->read_exe || r->read_cgroup || r->read_ids) ||
                    !(w->pids[bit_of(r->pid) / 64] >> bit_of(r->pid) % 64 & 1) || !was_forked_after(w, chunk, i))
                        continue;
                r->knows_comm &= !r->read_comm;
                r->knows_exe &= !r->read_exe;
                r->knows_cgroup &= !r->read_cgroup;
                r->knows_ids &= !r->read_ids;
        }
}

/* What was read of a pid that was forked again before is dropped. */
static void read_what_vanishes(struct feed_writer *w, bool *drained) {
        w->had_exec = false;
        for (int i = 0; i < READS_MAX && read_details(w); i++) /* more may have come meanwhile */
                *drained = w->drain(w->feed);
        list_for_each(entry, &w->done)
                check_details_of(w, list_entry(entry, struct chunk, link));
        if (w->chunk)
                check_details_of(w, w->chunk);
}

/* ---- the thread ------------------------------------------------------------------------------------------------- */

/* Any delay may be one too many. Where more than the usual priority is not allowed, it is as it is. */
static void hurry(void) {
        (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), -19);
}

static void sleep_on(struct feed_writer *w) {
        struct pollfd fds[] = { { .fd = w->fd, .events = POLLIN }, { .fd = w->wake_fd, .events = POLLIN } };
        uint64_t value;

        atomic_store(&w->is_asleep, true);
        if (atomic_load(&w->mark_wanted) == w->mark_told && !atomic_load(&w->ending) &&
            poll(fds, ARRAY_SIZE(fds), w->timeout_msec) > 0 && fds[1].revents)
                (void)!read(w->wake_fd, &value, sizeof(value));
        atomic_store(&w->is_asleep, false);
}

/* What began a program is gone before long: it is looked at at once. */
static void begin_round(struct feed_writer *w) {
        w->gathers = w->keeps || w->is_behind ||
                     (!w->had_exec && monotonic_nsec() - w->busy_nsec < 2 * FEED_GATHER_USEC * NSEC_PER_USEC);
        if (w->gathers)
                (void)usleep(FEED_GATHER_USEC);
        else
                sleep_on(w);
}

static void *thread_main(void *argument) {
        struct feed_writer *w = argument;

        hurry();
        while (!atomic_load(&w->ending)) {
                uint64_t mark;
                bool drained;

                if (feed_writer_is_full(w)) {
                        (void)usleep(FEED_GATHER_USEC);
                        continue;
                }
                begin_round(w);
                mark = atomic_load(&w->mark_wanted);
                drained = w->drain(w->feed);
                read_what_vanishes(w, &drained);
                w->is_behind = !drained;
                w->tell_losses(w->feed);
                if (mark > w->mark_told && drained) {
                        struct record *r = feed_writer_put(w, RECORD_MARK, 0);

                        if (r)
                                r->serial = w->mark_told = mark;
                        else
                                (void)usleep(FEED_GATHER_USEC); /* no memory: it is tried again */
                }
                end_round(w);
        }
        if (w->keeps)
                end_round(w);
        return NULL;
}

int feed_writer_start(struct feed_writer *w) {
        sigset_t all, before;
        int r;

        (void)sigfillset(&all); /* signals are the loop's */
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        r = -pthread_create(&w->thread, NULL, thread_main, w);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        w->is_started = r == 0;
        return r;
}

static void wake(struct feed_writer *w) {
        uint64_t one = 1;

        if (atomic_load(&w->is_asleep))
                (void)!write(w->wake_fd, &one, sizeof(one));
}

void feed_writer_mark(struct feed_writer *w, uint64_t serial) {
        atomic_store(&w->mark_wanted, serial);
        wake(w);
}

void feed_writer_stop(struct feed_writer *w) {
        if (!w->is_started)
                return;
        atomic_store(&w->ending, true);
        wake(w);
        (void)pthread_join(w->thread, NULL);
        w->is_started = false;
}

void feed_writer_close(struct feed_writer *w) {
        struct list *entry;

        feed_writer_stop(w);
        w->wake_fd = safe_close(w->wake_fd);
        while ((entry = list_pop(&w->done)))
                chunk_free(list_entry(entry, struct chunk, link), w->shared);
        if (w->chunk)
                chunk_free(w->chunk, w->shared);
        w->chunk = NULL;
}
