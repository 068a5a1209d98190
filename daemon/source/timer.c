/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * timer: periods on the mux's timers, moments on one timerfd.
 *
 * Each user has heaps of its own, which take turns: with whatever many timers of one that are due, those of the others
 * come between.
 *
 * A period runs on CLOCK_MONOTONIC and keeps its phase: late or not, the next
 * expiry is a multiple of the period from the start, and what was missed is
 * counted. A moment (abstime) is on CLOCK_REALTIME: those to come are in a heap,
 * and one timerfd, set to the earliest or before, follows when the clock is set
 * (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET). A moment that has passed when it
 * is given fires in the next turn.
 *
 * kqueue's meanings: data is the number of expiries; a period of 0 is one unit.
 *
 * No timer is told more often than every PAUSE_NSEC: a shorter period has its
 * expiries counted together.
 */

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>

#include "heap.h"
#include "log.h"
#include "source.h"
#include "state.h"

enum {
        PAUSE_NSEC = 100 * 1000,
        MOMENTS_A_TURN = 64,
        OF_USER_AT_ONCE = 16, /* of those that are due, before others' */
};

struct timer_source {
        struct source source;
        struct mux *mux;
        struct list users;
        int realtime_fd; /* -1 while no moment is waited for */
        struct mux_io io;
        struct heap moments; /* to come: of each user the first */
        uint64_t armed_nsec; /* the moment that realtime_fd is set to; 0: none */
};

/* All of one user's. */
struct timers {
        struct list link;
        struct timer_source *owner;
        uid_t uid;
        size_t refs;
        struct heap periods, moments; /* by when they are due */
        struct mux_timer timer; /* for the first of the periods */
        uint32_t moment_index;  /* among the users */
};

struct timer {
        struct timers *timers;
        struct subscription *subscription;
        uint32_t period_index; /* of a period, or of a moment that has passed */
        uint32_t moment_index; /* of one to come */
        uint64_t start_nsec, period_nsec;
        uint64_t expiries; /* told so far */
};

static int timer_open(struct source_context *context, struct source **ret_source) {
        struct timer_source *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        s->mux = context->mux;
        list_init(&s->users);
        s->realtime_fd = -1;
        s->io = MUX_IO_INIT;
        *ret_source = &s->source;
        return 0;
}

static void close_realtime(struct timer_source *s) {
        mux_remove(s->mux, &s->io);
        s->realtime_fd = safe_close(s->realtime_fd);
        s->armed_nsec = 0;
}

static void timer_close(struct source *source) {
        struct timer_source *s = container_of(source, struct timer_source, source);

        close_realtime(s);
        heap_free(&s->moments);
        free(s);
}

/* ---- users --------------------------------------------------------------------- */

/* NULL: no memory. */
static struct timers *timers_get(struct timer_source *s, uid_t uid) {
        struct timers *u;

        list_for_each(entry, &s->users) {
                u = list_entry(entry, struct timers, link);
                if (u->uid == uid) {
                        u->refs++;
                        return u;
                }
        }
        u = calloc(1, sizeof(*u));
        if (!u)
                return NULL;
        u->owner = s;
        u->uid = uid;
        u->refs = 1;
        list_init(&u->link);
        list_append(&s->users, &u->link);
        return u;
}

static void timers_put(struct timers *u) {
        if (--u->refs > 0)
                return;
        list_remove(&u->link);
        mux_timer_clear(u->owner->mux, &u->timer);
        heap_clear(&u->owner->moments, &u->moment_index);
        heap_free(&u->periods);
        heap_free(&u->moments);
        free(u);
}

/* ---- periods ------------------------------------------------------------------- */

static void tell(struct timer *t, uint64_t expiries) {
        struct source *source = &t->timers->owner->source;
        struct report report = REPORT_INIT;

        report.notes = t->subscription->notes & (KEV_NOTE_SEC | KEV_NOTE_MSEC | KEV_NOTE_USEC | KEV_NOTE_NSEC);
        if (report.notes == 0)
                report.notes = KEV_NOTE_MSEC;
        if (t->period_nsec == 0) {
                report.notes |= KEV_NOTE_ABSTIME;
                report.flags = KEV_FLAG_EOF;
        }
        report.data = (int64_t)expiries;
        report.realtime_usec = realtime_nsec() / NSEC_PER_USEC;
        source_report(source, t->subscription, &report);
        report_done(&report);
}

static void on_period(struct timer *t, uint64_t now) {
        uint64_t total = (now - t->start_nsec) / t->period_nsec;
        uint64_t expiries = total - t->expiries, next = t->start_nsec + (total + 1) * t->period_nsec;

        t->expiries = total;
        (void)heap_set(&t->timers->periods, &t->period_index, MAX(next, now + PAUSE_NSEC)); /* it is in */
        tell(t, expiries);
}

static void on_due(struct mux_timer *mux_timer) {
        struct timers *u = container_of(mux_timer, struct timers, timer);
        uint64_t now = monotonic_nsec();
        uint32_t *first;

        u->refs++;
        for (unsigned n = 0; n < OF_USER_AT_ONCE && (first = heap_first(&u->periods)); n++) {
                struct timer *t = container_of(first, struct timer, period_index);

                if (heap_first_key(&u->periods) > now)
                        break;
                if (t->period_nsec > 0) {
                        on_period(t, now);
                        continue;
                }
                heap_clear(&u->periods, first);
                tell(t, 1);
        }
        /* There is room for it (mux.h). Others that are due come before. */
        if (heap_first(&u->periods))
                (void)mux_timer_set(u->owner->mux, &u->timer, MAX(heap_first_key(&u->periods), now), on_due);
        timers_put(u);
}

/* -ENOMEM: it is as it was. */
static int set_due(struct timer *t, uint64_t nsec) {
        struct timers *u = t->timers;
        bool was_in = t->period_index > 0;
        int r = heap_set(&u->periods, &t->period_index, nsec);

        if (r < 0)
                return r;
        r = mux_timer_set(u->owner->mux, &u->timer, heap_first_key(&u->periods), on_due);
        if (r < 0 && !was_in)
                heap_clear(&u->periods, &t->period_index);
        return r;
}

static void clear_due(struct timer *t) {
        struct timers *u = t->timers;

        heap_clear(&u->periods, &t->period_index);
        if (heap_first(&u->periods)) /* it is set already */
                (void)mux_timer_set(u->owner->mux, &u->timer, heap_first_key(&u->periods), on_due);
        else
                mux_timer_clear(u->owner->mux, &u->timer);
}

/* ---- moments ------------------------------------------------------------------- */

/* So that it fires by then. It may fire before, for one that was taken back: no call for each of those. */
static int arm_realtime(struct timer_source *s, uint64_t nsec) {
        struct itimerspec when = {
                .it_value = { .tv_sec = (time_t)(nsec / NSEC_PER_SEC), .tv_nsec = (long)(nsec % NSEC_PER_SEC) },
        };

        if (s->armed_nsec > 0 && s->armed_nsec <= nsec)
                return 0;
        /* ECANCELED: the clock was set before, and this is in force by the new time (timerfd_create(2), NOTES). */
        if (timerfd_settime(s->realtime_fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &when, NULL) < 0 &&
            errno != ECANCELED)
                return -errno;
        s->armed_nsec = nsec;
        return 0;
}

/* As the user's first one is. */
static void order_moments(struct timers *u, uint64_t not_before_nsec) {
        if (heap_first(&u->moments)) /* there is room: the user was in, or is to be by start_moment() */
                (void)heap_set(&u->owner->moments, &u->moment_index, MAX(heap_first_key(&u->moments), not_before_nsec));
        else
                heap_clear(&u->owner->moments, &u->moment_index);
}

static void tell_moments_of(struct timers *u, uint64_t now) {
        uint32_t *first;

        u->refs++;
        for (unsigned n = 0; n < OF_USER_AT_ONCE && (first = heap_first(&u->moments)); n++) {
                if (heap_first_key(&u->moments) > now)
                        break;
                heap_clear(&u->moments, first);
                tell(container_of(first, struct timer, moment_index), 1);
        }
        order_moments(u, now); /* behind those of others that are due */
        timers_put(u);
}

/* Those that are due, so many at most: for the rest it is set to what has passed, and fires in the next turn. */
static void on_realtime(struct mux_io *io, unsigned events _unused_) {
        struct timer_source *s = container_of(io, struct timer_source, io);
        uint64_t count, now;
        uint32_t *first;
        int r = 0;

        (void)!read(s->realtime_fd, &count, sizeof(count)); /* ECANCELED: the clock was set */
        s->armed_nsec = 0;
        now = realtime_nsec();
        for (unsigned n = 0; n < MOMENTS_A_TURN / OF_USER_AT_ONCE && (first = heap_first(&s->moments)); n++) {
                if (heap_first_key(&s->moments) > now)
                        break;
                tell_moments_of(container_of(first, struct timers, moment_index), now);
        }
        if (heap_first(&s->moments))
                r = arm_realtime(s, heap_first_key(&s->moments));
        if (r < 0)
                log_error("timer: moments wait for the next one that is given: timerfd_settime: %s", strerror(-r));
}

static int open_realtime(struct timer_source *s) {
        int r;

        if (s->realtime_fd >= 0)
                return 0;
        s->realtime_fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
        if (s->realtime_fd < 0)
                return -errno;
        r = mux_add(s->mux, &s->io, s->realtime_fd, MUX_IN, on_realtime);
        if (r < 0)
                s->realtime_fd = safe_close(s->realtime_fd);
        return r;
}

/* ---- attach -------------------------------------------------------------------- */

static void close_unused(struct timer_source *s) {
        if (!heap_first(&s->moments))
                close_realtime(s);
}

static void leave_moments(struct timer *t) {
        struct timers *u = t->timers;

        if (t->moment_index > 0) {
                heap_clear(&u->moments, &t->moment_index);
                order_moments(u, 0);
        }
        close_unused(u->owner);
}

static int start_past_moment(struct timer *t, struct refusal *refusal) {
        int r = set_due(t, monotonic_nsec());

        if (r < 0)
                return refuse(refusal, -r, "no memory");
        leave_moments(t);
        t->period_nsec = 0;
        return 0;
}

/* -ENOMEM: it is as it was. */
static int enter_moments(struct timer *t, uint64_t nsec) {
        struct timers *u = t->timers;
        bool was_in = t->moment_index > 0;
        int r = u->moment_index > 0 ? 0 : heap_set(&u->owner->moments, &u->moment_index, nsec);

        if (r == 0)
                r = heap_set(&u->moments, &t->moment_index, nsec);
        if (r == 0 || was_in || heap_first(&u->moments))
                order_moments(u, 0);
        else
                heap_clear(&u->owner->moments, &u->moment_index);
        return r;
}

static int start_moment(struct timer *t, uint64_t nsec, struct refusal *refusal) {
        struct timer_source *s = t->timers->owner;
        const char *what = "timerfd_create";
        int r;

        if (nsec <= realtime_nsec())
                return start_past_moment(t, refusal);
        r = open_realtime(s);
        if (r == 0) {
                what = "timerfd_settime";
                r = arm_realtime(s, nsec);
        }
        if (r == 0) {
                what = "heap";
                r = enter_moments(t, nsec);
        }
        if (r < 0) {
                close_unused(s);
                return refuse(refusal, -r, "%s: %s", what, strerror(-r));
        }
        clear_due(t);
        t->period_nsec = 0;
        return 0;
}

static int start_period(struct timer *t, uint64_t nsec, struct refusal *refusal) {
        uint64_t now = monotonic_nsec();
        int r = set_due(t, now + nsec);

        if (r < 0)
                return refuse(refusal, -r, "no memory");
        leave_moments(t);
        t->period_nsec = nsec;
        t->start_nsec = now;
        t->expiries = 0;
        return 0;
}

static uint64_t unit_of(uint64_t notes) {
        return notes & KEV_NOTE_SEC    ? NSEC_PER_SEC :
               notes & KEV_NOTE_USEC   ? NSEC_PER_USEC :
               notes & KEV_NOTE_NSEC   ? 1 :
                                         NSEC_PER_MSEC;
}

/* Also instead of what it does now, which goes on if this is refused. */
static int start(struct timer *t, const struct subject *subject, struct refusal *refusal) {
        uint64_t unit = unit_of(subject->notes);
        uint64_t nsec;

        if (subject->data == ABSENT)
                return refuse(refusal, EINVAL, "data: missing");
        if (__builtin_mul_overflow((uint64_t)subject->data, unit, &nsec) || nsec > INT64_MAX / 2)
                return refuse(refusal, EINVAL, "data: too far in the future");
        return subject->notes & KEV_NOTE_ABSTIME ? start_moment(t, nsec, refusal) :
                                                   start_period(t, MAX(nsec, unit), refusal);
}

static struct timer *make(struct source *source, struct subscription *subscription, uid_t uid) {
        struct timer *t = calloc(1, sizeof(*t));

        if (!t)
                return NULL;
        t->timers = timers_get(container_of(source, struct timer_source, source), uid);
        if (!t->timers) {
                free(t);
                return NULL;
        }
        t->subscription = subscription;
        return t;
}

static void discard(struct timer *t) {
        clear_due(t);
        leave_moments(t);
        timers_put(t->timers);
        free(t);
}

static int timer_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                        struct refusal *refusal) {
        struct timer *t = make(source, subscription, subject->asker->uid);
        int r;

        if (!t)
                return refuse(refusal, ENOMEM, "no memory");
        r = start(t, subject, refusal);
        if (r < 0)
                discard(t);
        else
                subscription->object = t;
        return r;
}

/* A new period or moment starts it again; without one it runs on. */
static int timer_modify(struct source *source _unused_, struct subscription *subscription,
                        const struct subject *subject, struct refusal *refusal) {
        struct timer *t = subscription->object;

        if (subject->data == ABSENT)
                return subject->notes == subscription->notes ?
                               0 : refuse(refusal, EINVAL, "data: missing beside other notes");
        return start(t, subject, refusal);
}

static void timer_detach(struct source *source _unused_, struct subscription *subscription) {
        discard(take_pointer(&subscription->object));
}

/* ---- for the next daemon, which has the same clocks ------------------------------ */

static void timer_describe(const struct subscription *subscription, struct subject *subject) {
        const struct timer *t = subscription->object;
        uint64_t nsec = t->moment_index > 0 ? heap_key(&t->timers->moments, t->moment_index) : t->period_nsec;

        if (nsec > 0) /* else it is a moment that has been told */
                subject->data = (int64_t)(nsec / unit_of(subscription->notes));
}

static bool timer_save(struct source *source _unused_, struct subscription *subscription, struct state_writer *w) {
        const struct timer *t = subscription->object;
        bool moment = t->moment_index > 0;

        state_put_u64(w, moment ? heap_key(&t->timers->moments, t->moment_index) : 0);
        state_put_u64(w, t->period_nsec);
        state_put_u64(w, t->start_nsec);
        state_put_u64(w, t->expiries);
        state_put_bool(w, t->period_index > 0);
        return true;
}

/* What expired meanwhile is counted as what was missed is. */
static int resume(struct timer *t, struct state_reader *r, struct refusal *refusal) {
        uint64_t moment = state_get_u64(r), period = state_get_u64(r), start = state_get_u64(r);
        uint64_t expiries = state_get_u64(r), now = monotonic_nsec();
        bool is_set = state_get_bool(r);
        int result;

        if (r->failed || start > now || period > INT64_MAX / 2 || (period > 0 && expiries > (now - start) / period))
                return -EBADMSG;
        if (moment > 0)
                return start_moment(t, moment, refusal);
        if (!is_set) /* a moment that was told */
                return 0;
        if (period == 0)
                return start_past_moment(t, refusal);
        t->period_nsec = period;
        t->start_nsec = start;
        t->expiries = expiries;
        result = set_due(t, start + (expiries + 1) * period);
        return result < 0 ? refuse(refusal, -result, "no memory") : 0;
}

static int timer_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                         struct state_reader *r, struct refusal *refusal) {
        struct timer *t = make(source, subscription, subject->asker->uid);
        int result;

        if (!t)
                return refuse(refusal, ENOMEM, "no memory");
        result = resume(t, r, refusal);
        if (result < 0)
                discard(t);
        else
                subscription->object = t;
        return result;
}

static uint64_t timer_registrations(const struct source *source) {
        return container_of(source, const struct timer_source, source)->realtime_fd >= 0;
}

static const char *timer_mechanism(const struct source *source _unused_) {
        return "heap, timerfd";
}

const struct source_class source_timer = {
        .name = "timer",
        .filters = 1u << KEV_FILTER_TIMER,
        .open = timer_open,
        .close = timer_close,
        .attach = timer_attach,
        .modify = timer_modify,
        .detach = timer_detach,
        .registrations = timer_registrations,
        .mechanism = timer_mechanism,
        .describe = timer_describe,
        .save = timer_save,
        .restore = timer_restore,
};
