/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "feed_writer.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mux.h"

enum { EXE_BYTES_MAX = 4096, READS_MAX = 16 };

void feed_writer_init(struct feed_writer *w, struct mailbox *mailbox, struct feed_shared *shared) {
        *w = (struct feed_writer){ .mailbox = mailbox, .shared = shared };
        list_init(&w->done);
}

void feed_writer_close(struct feed_writer *w) {
        struct list *entry;

        while ((entry = list_pop(&w->done)))
                chunk_free(list_entry(entry, struct chunk, link), w->shared);
        if (w->chunk)
                chunk_free(w->chunk, w->shared);
        w->chunk = NULL;
}

int feed_start_thread(pthread_t *ret_thread, void *(*main)(void *feed), struct feed *feed) {
        sigset_t all, before;
        int r;

        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        r = -pthread_create(ret_thread, NULL, main, feed);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        return r;
}

void feed_hurry(void) {
        (void)setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), -19);
}

bool feed_try(bool (*hears_of)(struct feed *feed, pid_t child), struct feed *feed) {
        pid_t child = fork();
        siginfo_t end;
        bool heard;

        if (child == 0)
                _exit(0);
        if (child < 0)
                return false;
        heard = hears_of(feed, child);
        while (waitid(P_PID, (id_t)child, &end, WEXITED) < 0 && errno == EINTR)
                ;
        return heard;
}

/* ---- records --------------------------------------------------------------------------------------------- */

static bool begin_chunk(struct feed_writer *w) {
        if (w->chunk && w->chunk->n < CHUNK_RECORDS)
                return true;
        if (w->chunk)
                list_append(&w->done, &w->chunk->link);
        w->chunk = malloc(sizeof(*w->chunk));
        if (!w->chunk)
                return false;
        atomic_fetch_add(&w->shared->n_chunks, 1);
        list_init(&w->chunk->link);
        w->chunk->n = w->chunk->text_size = 0;
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
        if (kind == RECORD_FORK)
                w->pids[bit_of(pid) / 64] |= UINT64_C(1) << bit_of(pid) % 64;
        return r;
}

void feed_writer_post(struct feed_writer *w) {
        struct list *entry;

        while ((entry = list_pop(&w->done)))
                mailbox_post(w->mailbox, entry);
        if (w->chunk && w->chunk->n > 0) {
                struct chunk *chunk = take_pointer(&w->chunk);

                mailbox_post(w->mailbox, &chunk->link);
        }
        if (w->had_records)
                w->busy_nsec = monotonic_nsec();
        w->had_records = false;
        memset(w->pids, 0, sizeof(w->pids));
}

bool feed_writer_is_full(const struct feed_writer *w) {
        return atomic_load(&w->shared->n_chunks) > FEED_CHUNKS_MAX;
}

/* What began a program is gone before long: it is looked at at once. */
bool feed_writer_should_gather(const struct feed_writer *w) {
        return !w->had_exec && monotonic_nsec() - w->busy_nsec < 2 * FEED_GATHER_USEC * NSEC_PER_USEC;
}

/* ---- what would vanish --------------------------------------------------------------------------------------- */

static void read_program(struct chunk *chunk, struct record *r) {
        size_t room = CHUNK_TEXT - chunk->text_size;
        char *text = chunk->text + chunk->text_size;

        if (!r->knows_comm)
                r->knows_comm = r->read_comm = process_read_comm(r->pid, r->comm) == 0;
        if (room < EXE_BYTES_MAX || process_read_exe(r->pid, text, room) < 0)
                return;
        r->knows_exe = r->read_exe = true;
        r->exe = (uint32_t)chunk->text_size;
        chunk->text_size += strlen(text) + 1;
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

                if (!(r->read_comm || r->read_exe || r->read_ids) ||
                    !(w->pids[bit_of(r->pid) / 64] >> bit_of(r->pid) % 64 & 1) || !was_forked_after(w, chunk, i))
                        continue;
                r->knows_comm &= !r->read_comm;
                r->knows_exe &= !r->read_exe;
                r->knows_ids &= !r->read_ids;
        }
}

void feed_writer_read(struct feed_writer *w, void (*drain)(void *owner), void *owner) {
        w->had_exec = false;
        for (int i = 0; i < READS_MAX && read_details(w); i++) /* more may have come meanwhile */
                drain(owner);
        list_for_each(entry, &w->done)
                check_details_of(w, list_entry(entry, struct chunk, link));
        if (w->chunk)
                check_details_of(w, w->chunk);
}
