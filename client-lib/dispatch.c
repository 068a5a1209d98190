/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Handing out events: to handlers, and one at a time.
 *
 * Reading and running handlers are two steps: the first fills the inbox, the
 * second empties it, as far as it was filled when the step began. When
 * handlers run, a Wait is in flight, so that events come while the program
 * works.
 */

#include <errno.h>
#include <limits.h>
#include <time.h>

#include "internal.h"

static const struct kev_event *public(const struct event *event) {
        return (const struct kev_event *)(const void *)event;
}

static int64_t now_msec(void) {
        struct timespec t;

        (void)clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* A handler that dispatched would run handlers within handlers, and the event
 * that it was given would end. */
static int refuse_in_handler(struct kev *kev, const char *function) {
        if (!kev->dispatching)
                return 0;
        return error_set(kev, -EBUSY, "%s() can't be called from a handler", function);
}

/* ---- to handlers -------------------------------------------------------------- */

static int run_handlers(struct kev *kev) {
        struct inbox *inbox = &kev->inbox;
        uint64_t end = inbox->end;
        int n = 0;

        kev->dispatching = true;
        for (uint64_t place = inbox_find(inbox, 0, end); place < end; place = inbox_find(inbox, place + 1, end)) {
                struct arrival arrival = inbox_take(inbox, place);

                arrival.handler(kev, public(arrival.event), arrival.userdata);
                event_unref(arrival.event);
                n++;
        }
        kev->dispatching = false;
        inbox->passed = end;
        return n;
}

static int time_left(int timeout_msec, int64_t since) {
        int64_t left;

        if (timeout_msec <= 0)
                return timeout_msec;
        left = timeout_msec - (now_msec() - since);
        return left > 0 ? (int)left : 0;
}

_public_ int kev_dispatch(struct kev *kev, int timeout_msec) {
        int64_t since = timeout_msec > 0 ? now_msec() : 0;
        int n, r = refuse_in_handler(kev, "kev_dispatch");

        if (r < 0)
                return r;
        (void)call_enter(kev); /* the connection may be over, but not its events */
        n = run_handlers(kev);
        do {
                (void)connection_keep_waiting(kev); /* where that had to wait for the handlers */
                r = connection_step(kev, n > 0 ? 0 : time_left(timeout_msec, since));
                (void)connection_keep_waiting(kev);
                n += run_handlers(kev);
        } while (r > 0 && n == 0);
        return call_leave(kev, n > 0 ? n : r);
}

/* ---- one at a time -------------------------------------------------------------- */

/* kevd says that there is none: its answer to a Wait that is sent now covers all that happened before. What a Wait
 * before it brings is as good: it is older. */
static int ask_whether_none(struct kev *kev) {
        int r = connection_ask(kev);
        uint64_t last = kev->sent;

        while (r >= 0 && kev->answered < last && inbox_is_empty(&kev->inbox))
                r = connection_step(kev, -1);
        return r;
}

/* Until there is an event, or none in time. */
static int receive(struct kev *kev, int timeout_msec) {
        int64_t since = timeout_msec > 0 ? now_msec() : 0;
        int r = connection_read(kev);

        while (r >= 0 && inbox_is_empty(&kev->inbox)) {
                int left = time_left(timeout_msec, since);

                if (left == 0)
                        return ask_whether_none(kev);
                r = connection_wait(kev);
                if (r >= 0)
                        r = connection_step(kev, left);
        }
        return r;
}

_public_ int kev_wait(struct kev *kev, int timeout_msec, const struct kev_event **ret_event) {
        int r = refuse_in_handler(kev, "kev_wait");

        if (r < 0)
                return r;
        r = call_enter(kev);
        if (r == 0 && inbox_is_empty(&kev->inbox))
                r = receive(kev, timeout_msec);
        if (!inbox_is_empty(&kev->inbox)) {
                kev->handed_out = inbox_take(&kev->inbox, kev->inbox.start).event;
                *ret_event = public(kev->handed_out);
                r = 1;
        } else if (r > 0)
                r = 0;
        return call_leave(kev, r);
}
