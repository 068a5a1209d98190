/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "workers.h"

#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "mux.h"

enum {
        SLOT_IDLE = 1,
        AGAIN_MSEC = 100,
        FREE_MSEC = 1000,
};

/* One user's threads. Everything is under the lock of the whole. */
struct pool {
        struct list link;
        struct workers *workers;
        uid_t user;
        struct list queue;
        unsigned n_queued, n_fds; /* the latter in work that is queued or under way */
        pthread_cond_t wake;
        unsigned n_threads, n_idle;
        uint64_t busy_since[WORKERS_PER_USER]; /* CLOCK_MONOTONIC; 0: no such thread; or SLOT_IDLE */
};

struct workers {
        pthread_mutex_t lock;
        pthread_cond_t ended;
        struct list pools;
        unsigned n_threads;
        bool closing;
        /* The loop's own. */
        struct mux *mux;
        struct list postponed;
        struct mux_timer again;
};

static void init_condition(pthread_cond_t *condition) {
        pthread_condattr_t attributes;

        (void)pthread_condattr_init(&attributes);
        (void)pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
        (void)pthread_cond_init(condition, &attributes);
        (void)pthread_condattr_destroy(&attributes);
}

static struct timespec in_msec(uint64_t msec) {
        uint64_t nsec = monotonic_nsec() + msec * NSEC_PER_MSEC;

        return (struct timespec){ .tv_sec = (time_t)(nsec / NSEC_PER_SEC), .tv_nsec = (long)(nsec % NSEC_PER_SEC) };
}

int workers_new(struct mux *mux, struct workers **ret_workers) {
        struct workers *w = calloc(1, sizeof(*w));

        if (!w)
                return -ENOMEM;
        (void)pthread_mutex_init(&w->lock, NULL);
        init_condition(&w->ended);
        list_init(&w->pools);
        list_init(&w->postponed);
        w->mux = mux;
        *ret_workers = w;
        return 0;
}

static void pool_free(struct pool *pool) {
        list_remove(&pool->link);
        (void)pthread_cond_destroy(&pool->wake);
        free(pool);
}

/* False: nothing has come for a while, or nothing will. */
static bool wait_for_work(struct pool *pool) {
        struct timespec deadline = in_msec(WORKERS_IDLE_MSEC);
        bool in_time = true;

        pool->n_idle++;
        while (in_time && list_empty(&pool->queue) && !pool->workers->closing)
                in_time = pthread_cond_timedwait(&pool->wake, &pool->workers->lock, &deadline) == 0;
        pool->n_idle--;
        return !list_empty(&pool->queue);
}

static void *thread_main(void *argument) {
        struct pool *pool = argument;
        struct workers *w = pool->workers;
        unsigned slot = 0;

        (void)pthread_mutex_lock(&w->lock);
        while (pool->busy_since[slot] != 0)
                slot++;
        pool->busy_since[slot] = SLOT_IDLE;
        do {
                struct list *entry;

                while ((entry = list_pop(&pool->queue))) {
                        struct work *work = list_entry(entry, struct work, link);
                        bool has_fd = work->has_fd;

                        pool->n_queued--;
                        pool->busy_since[slot] = monotonic_nsec();
                        (void)pthread_mutex_unlock(&w->lock);
                        work->run(work);
                        (void)pthread_mutex_lock(&w->lock);
                        pool->busy_since[slot] = SLOT_IDLE;
                        pool->n_fds -= has_fd;
                }
        } while (wait_for_work(pool));
        pool->busy_since[slot] = 0;
        if (--pool->n_threads == 0)
                pool_free(pool);
        w->n_threads--;
        (void)pthread_cond_signal(&w->ended);
        (void)pthread_mutex_unlock(&w->lock);
        return NULL;
}

static int start_thread(struct pool *pool) {
        pthread_attr_t attributes;
        pthread_t thread;
        sigset_t all, before;
        int r;

        (void)pthread_attr_init(&attributes);
        (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
        (void)sigfillset(&all);
        (void)pthread_sigmask(SIG_SETMASK, &all, &before);
        r = pthread_create(&thread, &attributes, thread_main, pool);
        (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
        (void)pthread_attr_destroy(&attributes);
        if (r != 0)
                return -r;
        pool->n_threads++;
        pool->workers->n_threads++;
        return 0;
}

static struct pool *find_pool(struct workers *w, uid_t user) {
        list_for_each(entry, &w->pools) {
                struct pool *pool = list_entry(entry, struct pool, link);

                if (pool->user == user)
                        return pool;
        }
        return NULL;
}

static struct pool *make_pool(struct workers *w, uid_t user) {
        struct pool *pool = calloc(1, sizeof(*pool));

        if (!pool)
                return NULL;
        pool->workers = w;
        pool->user = user;
        list_init(&pool->queue);
        init_condition(&pool->wake);
        list_append(&w->pools, &pool->link);
        return pool;
}

static bool is_stuck(const struct pool *pool) {
        uint64_t long_ago = monotonic_nsec() - WORKERS_STUCK_MSEC * NSEC_PER_MSEC;

        if (pool->n_threads < WORKERS_PER_USER)
                return false;
        for (unsigned i = 0; i < WORKERS_PER_USER; i++)
                if (pool->busy_since[i] <= SLOT_IDLE || pool->busy_since[i] > long_ago)
                        return false;
        return true;
}

static int submit(struct workers *w, uid_t user, struct work *work, unsigned n_fds_max) {
        struct pool *pool;
        int r = 0;

        work->user = user;
        (void)pthread_mutex_lock(&w->lock);
        pool = find_pool(w, user);
        if (!pool)
                pool = make_pool(w, user);
        if (!pool)
                r = -ENOMEM;
        else if (work->has_fd && pool->n_fds >= n_fds_max)
                r = -EDQUOT; /* it has work, so that it stays */
        else {
                /* A thread that was woken counts as idle until it runs. */
                if (pool->n_queued < pool->n_idle)
                        (void)pthread_cond_signal(&pool->wake);
                else if (pool->n_threads < WORKERS_PER_USER)
                        r = start_thread(pool);
                if (r < 0 && pool->n_threads > 0)
                        r = 0; /* one that is there will come to it */
                if (r == 0) {
                        list_append(&pool->queue, &work->link);
                        pool->n_queued++;
                        pool->n_fds += work->has_fd;
                } else
                        pool_free(pool);
        }
        (void)pthread_mutex_unlock(&w->lock);
        return r;
}

int workers_submit(struct workers *w, uid_t user, struct work *work) {
        return submit(w, user, work, WORKERS_FDS_MAX);
}

static void on_again(struct mux_timer *timer);

void workers_submit_anyhow(struct workers *w, uid_t user, struct work *work) {
        list_init(&work->link);
        if (submit(w, user, work, UINT_MAX) < 0)
                list_append(&w->postponed, &work->link);
        if (!list_empty(&w->postponed) && w->again.heap_index == 0)
                (void)mux_timer_set(w->mux, &w->again, monotonic_nsec() + AGAIN_MSEC * NSEC_PER_MSEC, on_again);
}

static void on_again(struct mux_timer *timer) {
        struct workers *w = container_of(timer, struct workers, again);
        struct list all;
        struct list *entry;

        list_init(&all);
        list_splice(&all, &w->postponed);
        while ((entry = list_pop(&all))) {
                struct work *work = list_entry(entry, struct work, link);

                workers_submit_anyhow(w, work->user, work);
        }
}

bool workers_are_full_of_fds(struct workers *w, uid_t user) {
        const struct pool *pool;
        bool full;

        (void)pthread_mutex_lock(&w->lock);
        pool = find_pool(w, user);
        full = pool && pool->n_fds >= WORKERS_FDS_MAX;
        (void)pthread_mutex_unlock(&w->lock);
        return full;
}

bool workers_are_stuck(struct workers *w, uid_t user) {
        const struct pool *pool;
        bool stuck;

        (void)pthread_mutex_lock(&w->lock);
        pool = find_pool(w, user);
        stuck = pool && is_stuck(pool);
        (void)pthread_mutex_unlock(&w->lock);
        return stuck;
}

bool workers_free(struct workers *w) {
        struct timespec deadline = in_msec(FREE_MSEC);
        bool stuck;

        (void)pthread_mutex_lock(&w->lock);
        w->closing = true;
        list_for_each(entry, &w->pools)
                (void)pthread_cond_broadcast(&list_entry(entry, struct pool, link)->wake);
        while (w->n_threads > 0 && pthread_cond_timedwait(&w->ended, &w->lock, &deadline) == 0)
                ;
        stuck = w->n_threads > 0;
        (void)pthread_mutex_unlock(&w->lock);
        if (!stuck) {
                struct list *entry;

                while ((entry = list_pop(&w->postponed)))
                        list_entry(entry, struct work, link)->run(list_entry(entry, struct work, link));
                mux_timer_clear(w->mux, &w->again);
                (void)pthread_cond_destroy(&w->ended);
                (void)pthread_mutex_destroy(&w->lock);
                free(w);
        }
        return !stuck;
}
