/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * timer: periods on the mux's heap, moments on one timerfd.
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
};

struct timer_source {
        struct source source;
        struct mux *mux;
        int realtime_fd; /* -1 while no moment is waited for */
        struct mux_io io;
        struct heap moments; /* to come */
        uint64_t armed_nsec; /* the moment that realtime_fd is set to; 0: none */
};

struct timer {
        struct timer_source *owner;
        struct subscription *subscription;
        struct mux_timer timer; /* of a period, or of a moment that has passed */
        uint32_t moment_index;  /* among those to come; 0: it is none of them */
        uint64_t start_nsec, period_nsec;
        uint64_t expiries; /* told so far */
};

static int timer_open(struct source_context *context, struct source **ret_source) {
        struct timer_source *s = calloc(1, sizeof(*s));

        if (!s)
                return -ENOMEM;
        s->mux = context->mux;
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

static void tell(struct timer *t, uint64_t expiries) {
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
        source_report(&t->owner->source, t->subscription, &report);
        report_done(&report);
}

static void on_period(struct mux_timer *mux_timer) {
        struct timer *t = container_of(mux_timer, struct timer, timer);
        uint64_t now = monotonic_nsec(), total = (now - t->start_nsec) / t->period_nsec;
        uint64_t expiries = total - t->expiries, next = t->start_nsec + (total + 1) * t->period_nsec;

        t->expiries = total;
        /* There is room for it (mux.h). */
        (void)mux_timer_set(t->owner->mux, &t->timer, MAX(next, now + PAUSE_NSEC), on_period);
        tell(t, expiries);
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

/* Those that are due, so many at most: for the rest it is set to what has passed, and fires in the next turn. */
static void on_realtime(struct mux_io *io, unsigned events _unused_) {
        struct timer_source *s = container_of(io, struct timer_source, io);
        uint32_t *first = heap_first(&s->moments);
        uint64_t count, now;
        int r = 0;

        (void)!read(s->realtime_fd, &count, sizeof(count)); /* ECANCELED: the clock was set */
        s->armed_nsec = 0;
        now = realtime_nsec();
        for (unsigned n = 0; n < MOMENTS_A_TURN && first && heap_first_key(&s->moments) <= now; n++) {
                heap_clear(&s->moments, first);
                tell(container_of(first, struct timer, moment_index), 1);
                first = heap_first(&s->moments);
        }
        if (first)
                r = arm_realtime(s, heap_first_key(&s->moments));
        if (r < 0)
                log_error("timer: moments wait for the next one that is given: timerfd_settime: %s", strerror(-r));
}

static void on_past_moment(struct mux_timer *mux_timer) {
        tell(container_of(mux_timer, struct timer, timer), 1);
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
        heap_clear(&t->owner->moments, &t->moment_index);
        close_unused(t->owner);
}

static int start_past_moment(struct timer *t, struct refusal *refusal) {
        int r = mux_timer_set(t->owner->mux, &t->timer, monotonic_nsec(), on_past_moment);

        if (r < 0)
                return refuse(refusal, -r, "no memory");
        leave_moments(t);
        t->period_nsec = 0;
        return 0;
}

static int start_moment(struct timer *t, uint64_t nsec, struct refusal *refusal) {
        struct timer_source *s = t->owner;
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
                r = heap_set(&s->moments, &t->moment_index, nsec);
        }
        if (r < 0) {
                close_unused(s);
                return refuse(refusal, -r, "%s: %s", what, strerror(-r));
        }
        mux_timer_clear(s->mux, &t->timer);
        t->period_nsec = 0;
        return 0;
}

static int start_period(struct timer *t, uint64_t nsec, struct refusal *refusal) {
        uint64_t now = monotonic_nsec();
        int r = mux_timer_set(t->owner->mux, &t->timer, now + nsec, on_period);

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

static int timer_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                        struct refusal *refusal) {
        struct timer *t = calloc(1, sizeof(*t));
        int r;

        if (!t)
                return refuse(refusal, ENOMEM, "no memory");
        t->owner = container_of(source, struct timer_source, source);
        t->subscription = subscription;
        r = start(t, subject, refusal);
        if (r < 0)
                free(t);
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
        struct timer *t = take_pointer(&subscription->object);

        mux_timer_clear(t->owner->mux, &t->timer);
        leave_moments(t);
        free(t);
}

/* ---- for the next daemon, which has the same clocks ------------------------------ */

static void timer_describe(const struct subscription *subscription, struct subject *subject) {
        const struct timer *t = subscription->object;
        uint64_t nsec = t->moment_index > 0 ? heap_key(&t->owner->moments, t->moment_index) : t->period_nsec;

        if (nsec > 0) /* else it is a moment that has been told */
                subject->data = (int64_t)(nsec / unit_of(subscription->notes));
}

static bool timer_save(struct source *source _unused_, struct subscription *subscription, struct state_writer *w) {
        const struct timer *t = subscription->object;
        bool moment = t->moment_index > 0;

        state_put_u64(w, moment ? heap_key(&t->owner->moments, t->moment_index) : 0);
        state_put_u64(w, t->period_nsec);
        state_put_u64(w, t->start_nsec);
        state_put_u64(w, t->expiries);
        state_put_bool(w, t->timer.heap_index > 0);
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
        result = mux_timer_set(t->owner->mux, &t->timer, start + (expiries + 1) * period, on_period);
        return result < 0 ? refuse(refusal, -result, "no memory") : 0;
}

static int timer_restore(struct source *source, struct subscription *subscription, const struct subject *subject _unused_,
                         struct state_reader *r, struct refusal *refusal) {
        struct timer *t = calloc(1, sizeof(*t));
        int result;

        if (!t)
                return refuse(refusal, ENOMEM, "no memory");
        t->owner = container_of(source, struct timer_source, source);
        t->subscription = subscription;
        result = resume(t, r, refusal);
        if (result < 0)
                free(t);
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
