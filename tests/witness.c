/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "witness.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <grp.h>
#include <kev.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "macro.h"

enum {
        TREE_USEC = 1000,
        USER_USEC = 5000,
        TIMER_USEC = 10000,
        OPS_MAX = WITNESS_SECONDS_MAX * (int)USEC_PER_SEC / TREE_USEC,
        N_DIRECTORIES = 16,
        TREE_ID = 1,
        USER_ID = 2,
        TIMER_ID = 1000, /* and on */
        TIMERS_A_CALL = 200,
        QUIET_SEC = 10,
};

struct op {
        uint64_t begun_nsec, told_nsec; /* CLOCK_MONOTONIC; 0: not yet */
        unsigned times;
};

struct witness_page {
        atomic_bool is_ready, stops;
        atomic_uint n_begun[WITNESS_KINDS];
        atomic_ullong n_told;
        uint64_t odd, last_seq;
        uint64_t stopped_nsec;
        char error[128];
        struct op ops[WITNESS_KINDS][OPS_MAX];
};

static uint64_t clock_nsec(clockid_t clock) {
        struct timespec t;

        (void)clock_gettime(clock, &t);
        return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static uint64_t now_nsec(void) {
        return clock_nsec(CLOCK_MONOTONIC);
}

/* ---- the witness's process ---------------------------------------------------------------------------------------- */

static struct {
        struct witness_page *page;
        const char *address;
        const char *directory;
        struct kev *kev;
} self;

static _Noreturn _printf_(1, 2) void give_up(const char *format, ...) {
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(self.page->error, sizeof(self.page->error), format, arguments);
        va_end(arguments);
        _exit(1);
}

static void check(int r, const struct kev *kev, const char *what) {
        if (r < 0)
                give_up("%s: %s", what, kev_error_message(kev));
}

/* The time from which it counts: when it was due, if what came before was so late that this is so, too. */
static uint64_t wait_due(uint64_t due_nsec) {
        uint64_t now = now_nsec();
        struct timespec t = { .tv_sec = (time_t)(due_nsec / NSEC_PER_SEC), .tv_nsec = (long)(due_nsec % NSEC_PER_SEC) };

        if (now >= due_nsec)
                return due_nsec;
        while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
                ;
        return now_nsec();
}

typedef void begin_fn(unsigned i);

/* One after the other, without regard to what is told. */
static void begin_all(enum witness_kind kind, uint64_t period_nsec, begin_fn *begin) {
        uint64_t start = now_nsec();

        for (unsigned i = 0; i < OPS_MAX && !self.page->stops; i++) {
                uint64_t begun = wait_due(start + i * period_nsec);

                self.page->ops[kind][i].begun_nsec = begun;
                atomic_store(&self.page->n_begun[kind], i + 1);
                begin(i);
        }
}

static void make_name(unsigned i) {
        char path[512];

        (void)snprintf(path, sizeof(path), "%s/%u/%u", self.directory, i % N_DIRECTORIES, i);
        if (symlink("x", path) < 0)
                give_up("%s: %s", path, strerror(errno));
        self.page->ops[WITNESS_TREE][i].begun_nsec = now_nsec(); /* not what the file system takes */
}

static void *make_names(void *unused _unused_) {
        begin_all(WITNESS_TREE, TREE_USEC * NSEC_PER_USEC, make_name);
        return NULL;
}

static struct kev *caller;

static void set_off(unsigned i) {
        check(kev_trigger(caller, "witness", (int64_t)i), caller, "kev_trigger");
}

static void *set_off_all(void *unused _unused_) {
        begin_all(WITNESS_USER, USER_USEC * NSEC_PER_USEC, set_off);
        return NULL;
}

/* What the event is of. */
static bool find_op(const struct kev_event *event, enum witness_kind *ret_kind, uint64_t *ret_i) {
        const char *path = kev_event_path(event), *name = path ? strrchr(path, '/') : NULL;
        int64_t id = kev_event_id(event), data = -1;

        if (id == TREE_ID) {
                *ret_kind = WITNESS_TREE;
                *ret_i = name ? strtoull(name + 1, NULL, 10) : UINT64_MAX;
                return kev_event_notes(event) == KEV_NOTE_CREATE;
        }
        *ret_kind = id == USER_ID ? WITNESS_USER : WITNESS_TIMER;
        (void)kev_event_data(event, &data);
        *ret_i = id == USER_ID ? (uint64_t)data : (uint64_t)(id - TIMER_ID);
        return true;
}

static void on_event(struct kev *kev _unused_, const struct kev_event *event, void *userdata _unused_) {
        struct witness_page *page = self.page;
        enum witness_kind kind;
        uint64_t i;

        page->odd += kev_event_seq(event) != page->last_seq + 1;
        page->last_seq = kev_event_seq(event);
        if (!find_op(event, &kind, &i) || i >= page->n_begun[kind] || kev_event_count(event) != 1 ||
            page->ops[kind][i].times++ > 0) {
                page->odd++;
                return;
        }
        page->ops[kind][i].told_nsec = now_nsec();
        page->n_told++;
}

static struct kev_watch *new_watch(enum kev_filter filter, int64_t id) {
        struct kev_watch *watch;

        check(kev_watch_new(filter, &watch), NULL, "kev_watch_new");
        (void)kev_watch_set_id(watch, id);
        return watch;
}

static void add(struct kev_watch *watch, const char *what) {
        check(kev_add(self.kev, watch, on_event, NULL, NULL), self.kev, what);
        (void)kev_watch_free(watch);
}

/* A moment each, for as long as it may go on. */
static void add_timers(void) {
        enum { N = WITNESS_SECONDS_MAX * (int)USEC_PER_SEC / TIMER_USEC };
        uint64_t start = now_nsec() + NSEC_PER_SEC / 2, offset = clock_nsec(CLOCK_REALTIME) - now_nsec();
        struct kev_watch *watches[TIMERS_A_CALL];
        unsigned i = 0;

        while (i < N) {
                for (unsigned k = 0; k < TIMERS_A_CALL; k++, i++) {
                        uint64_t due = start + i * TIMER_USEC * NSEC_PER_USEC;

                        watches[k] = new_watch(KEV_FILTER_TIMER, TIMER_ID + i);
                        (void)kev_watch_set_notes(watches[k], KEV_NOTE_ABSTIME | KEV_NOTE_NSEC);
                        (void)kev_watch_set_data(watches[k], (int64_t)(due + offset));
                        (void)kev_watch_set_flags(watches[k], KEV_FLAG_ONESHOT);
                        self.page->ops[WITNESS_TIMER][i].begun_nsec = due;
                }
                self.page->n_begun[WITNESS_TIMER] = i;
                check(kev_add_many(self.kev, (const struct kev_watch *const *)watches, TIMERS_A_CALL, on_event, NULL, NULL,
                                   NULL),
                      self.kev, "timers");
                for (unsigned k = 0; k < TIMERS_A_CALL; k++)
                        (void)kev_watch_free(watches[k]);
        }
}

static void make_watches(void) {
        struct kev_watch *watch;
        char path[512];

        for (unsigned i = 0; i < N_DIRECTORIES; i++) {
                (void)snprintf(path, sizeof(path), "%s/%u", self.directory, i);
                if (mkdir(path, 0700) < 0)
                        give_up("%s: %s", path, strerror(errno));
        }
        check(kev_open(self.address, &self.kev), NULL, "connecting");
        check(kev_open(self.address, &caller), NULL, "connecting");
        watch = new_watch(KEV_FILTER_TREE, TREE_ID);
        (void)kev_watch_set_path(watch, self.directory);
        add(watch, "tree");
        watch = new_watch(KEV_FILTER_USER, USER_ID);
        (void)kev_watch_set_name(watch, "witness");
        add(watch, "user");
        add_timers();
}

/* What was to be told by now. Timers that are due later are none of it. */
static uint64_t n_expected(const struct witness_page *page) {
        uint64_t n = page->n_begun[WITNESS_TREE] + page->n_begun[WITNESS_USER];

        for (unsigned i = 0; i < page->n_begun[WITNESS_TIMER]; i++)
                n += page->ops[WITNESS_TIMER][i].begun_nsec < page->stopped_nsec;
        return n;
}

/* Of these. Timers that are due later may have been told meanwhile. */
static bool is_missing(const struct witness_page *page, int kind, unsigned i) {
        const struct op *op = &page->ops[kind][i];

        return op->times == 0 && (kind != WITNESS_TIMER || op->begun_nsec < page->stopped_nsec);
}

static uint64_t n_missing(const struct witness_page *page) {
        uint64_t n = 0;

        for (int kind = 0; kind < WITNESS_KINDS; kind++)
                for (unsigned i = 0; i < page->n_begun[kind]; i++)
                        n += is_missing(page, kind, i);
        return n;
}

static void describe_missing(const struct witness_page *page, char *text, size_t size) {
        static const char *const names[WITNESS_KINDS] = { "tree", "user", "timer" };
        size_t at = 0;

        for (int kind = 0; kind < WITNESS_KINDS; kind++) {
                uint64_t n = 0, first = 0, last = 0;

                for (unsigned i = 0; i < page->n_begun[kind]; i++)
                        if (is_missing(page, kind, i)) {
                                last = page->ops[kind][i].begun_nsec;
                                first = n++ == 0 ? last : first;
                        }
                if (n > 0 && at < size)
                        at += (size_t)snprintf(text + at, size - at, " %s: %" PRIu64 ", %.1f to %.1f ms", names[kind], n,
                                               ((double)page->stopped_nsec - (double)first) / 1e6,
                                               ((double)page->stopped_nsec - (double)last) / 1e6);
        }
}

static _Noreturn void live(void) {
        uint64_t heard = 0;
        pthread_t names, calls;

        make_watches();
        if (pthread_create(&names, NULL, make_names, NULL) != 0 || pthread_create(&calls, NULL, set_off_all, NULL) != 0)
                give_up("no thread can be started");
        self.page->is_ready = true;
        while (!self.page->stops)
                check(kev_dispatch(self.kev, 100), self.kev, "kev_dispatch");
        (void)pthread_join(names, NULL);
        (void)pthread_join(calls, NULL);
        self.page->stopped_nsec = heard = now_nsec();
        while (n_missing(self.page) > 0 && now_nsec() < heard + QUIET_SEC * NSEC_PER_SEC) {
                int r = kev_dispatch(self.kev, 100);

                check(r, self.kev, "kev_dispatch");
                if (r > 0)
                        heard = now_nsec();
        }
        (void)kev_close(self.kev);
        (void)kev_close(caller);
        _exit(0);
}

/* ---- the caller's side -------------------------------------------------------------------------------------------- */

int witness_start(struct witness *witness, const char *address, const char *directory, uid_t uid) {
        pid_t parent = getpid();

        witness->page = mmap(NULL, sizeof(*witness->page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        if (witness->page == MAP_FAILED)
                abort();
        witness->pid = fork();
        if (witness->pid == 0) {
                self.page = witness->page;
                self.address = address;
                self.directory = directory;
                if (setgroups(0, NULL) < 0 || setresgid(uid, uid, uid) < 0 || setresuid(uid, uid, uid) < 0 ||
                    prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
                        give_up("becoming another user: %s", strerror(errno));
                live();
        }
        while (!witness->page->is_ready) {
                siginfo_t ended = { 0 };

                if (witness->pid < 0 || (waitid(P_PID, (id_t)witness->pid, &ended, WEXITED | WNOHANG | WNOWAIT) == 0 &&
                                         ended.si_pid != 0))
                        return -EIO;
                (void)nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
        }
        return 0;
}

uint64_t witness_n_told(const struct witness *witness) {
        return atomic_load(&witness->page->n_told);
}

struct witness_result witness_end(struct witness *witness) {
        const struct witness_page *page = witness->page;
        struct witness_result result = { 0 };
        int status = 1;

        witness->page->stops = true;
        if (witness->pid > 0)
                (void)waitpid(witness->pid, &status, 0);
        result.expected = n_expected(page);
        result.missing = n_missing(page);
        describe_missing(page, result.lacks, sizeof(result.lacks));
        result.odd = page->odd;
        (void)snprintf(result.error, sizeof(result.error), "%s",
                       page->error[0] || status == 0 ? page->error : "it was killed");
        return result;
}

size_t witness_latencies(const struct witness *witness, enum witness_kind kind, uint64_t from_nsec, uint64_t to_nsec,
                         uint64_t *latencies, size_t n_max) {
        size_t n = 0;

        for (unsigned i = 0; i < witness->page->n_begun[kind] && n < n_max; i++) {
                const struct op *op = &witness->page->ops[kind][i];

                if (op->begun_nsec < from_nsec || op->begun_nsec >= to_nsec || op->told_nsec == 0)
                        continue;
                latencies[n++] = op->told_nsec - MIN(op->told_nsec, op->begun_nsec);
        }
        return n;
}

void witness_free(struct witness *witness) {
        (void)munmap(witness->page, sizeof(*witness->page));
}
