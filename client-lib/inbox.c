/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The events between their arrival and the program. Knows no socket and calls
 * no handler. See struct inbox for what holds.
 */

#include <errno.h>

#include "internal.h"

enum { INBOX_CAPACITY_MIN = 16 };

static struct arrival *slot(const struct inbox *inbox, uint64_t place) {
        return &inbox->slots[place & (inbox->capacity - 1)];
}

void inbox_free(struct inbox *inbox) {
        for (uint64_t place = inbox->start; place < inbox->end; place++)
                event_unref(slot(inbox, place)->event);
        free(inbox->slots);
        *inbox = (struct inbox){ 0 };
}

static int inbox_grow(struct inbox *inbox) {
        struct inbox larger = *inbox;

        larger.capacity = MAX(inbox->capacity * 2, (size_t)INBOX_CAPACITY_MIN);
        larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
        if (!larger.slots)
                return -ENOMEM;
        for (uint64_t place = inbox->start; place < inbox->end; place++)
                *slot(&larger, place) = *slot(inbox, place);
        free(inbox->slots);
        *inbox = larger;
        return 0;
}

int inbox_put(struct inbox *inbox, struct event *event, kev_handler *handler, void *userdata) {
        if (inbox->end - inbox->start == inbox->capacity) {
                int r = inbox_grow(inbox);

                if (r < 0)
                        return r;
        }
        *slot(inbox, inbox->end++) = (struct arrival){ event, handler, userdata };
        return 0;
}

bool inbox_is_empty(const struct inbox *inbox) {
        return inbox->start == inbox->end;
}

bool inbox_has_news(const struct inbox *inbox) {
        return MAX(inbox->start, inbox->passed) < inbox->end;
}

uint64_t inbox_find(const struct inbox *inbox, uint64_t from, uint64_t end) {
        for (from = MAX(from, inbox->start); from < end; from++)
                if (slot(inbox, from)->event && slot(inbox, from)->handler)
                        return from;
        return end;
}

/* Past the places at the front that have no event any more. */
static void inbox_advance(struct inbox *inbox) {
        while (inbox->start < inbox->end && !slot(inbox, inbox->start)->event)
                inbox->start++;
}

struct arrival inbox_take(struct inbox *inbox, uint64_t place) {
        struct arrival arrival = *slot(inbox, place);

        slot(inbox, place)->event = NULL;
        inbox_advance(inbox);
        return arrival;
}

size_t inbox_drop(struct inbox *inbox, int64_t id) {
        size_t n = 0;

        for (uint64_t place = inbox->start; place < inbox->end; place++) {
                struct arrival *arrival = slot(inbox, place);

                if (!arrival->event || arrival->event->id != id)
                        continue;
                arrival->event = event_unref(arrival->event);
                n++;
        }
        inbox_advance(inbox);
        return n;
}
