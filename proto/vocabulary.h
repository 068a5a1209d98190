/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The words of the protocol and their values: filters, notes, flags, kinds. The
 * values are those of the public header <kev.h>, so that there is one list; the
 * words are those of proto/org.kevd.events.varlink. The functions that kev.h
 * declares for names are defined here too.
 */

#include <kev.h>

enum { FILTER_COUNT = KEV_FILTER_USER + 1 };
enum { KIND_COUNT = KEV_KIND_CHARACTER_DEVICE + 1 };
enum { NOTE_COUNT = 60, FLAG_COUNT = 7 };

/* Notes that come whether they were asked for or not: they say that something
 * could not be told, or that the watch is over. */
#define NOTES_UNASKED \
        (KEV_NOTE_RESCAN | KEV_NOTE_GONE | KEV_NOTE_BACK | KEV_NOTE_DEGRADED | KEV_NOTE_LOST | KEV_NOTE_TRACKERR | \
         KEV_NOTE_LINKINV)

/* Flags that a client may set on a watch. */
#define FLAGS_OF_WATCH \
        (KEV_FLAG_ONESHOT | KEV_FLAG_DISPATCH | KEV_FLAG_DISABLED | KEV_FLAG_LEVEL | KEV_FLAG_EDGE | \
         KEV_FLAG_EXCLUSIVE)

/* About a descriptor that was passed: it tells what state that is in, and the flag `level` has a meaning. */
static inline bool filter_is_of_descriptor(enum kev_filter filter) {
        return filter == KEV_FILTER_READ || filter == KEV_FILTER_WRITE || filter == KEV_FILTER_POLL ||
               filter == KEV_FILTER_AIO;
}

int flag_from_name(const char *name, uint32_t *ret_flag);
int kind_from_name(const char *name, enum kev_kind *ret_kind);

/* The name of an errno value, "ENOENT", for the refusals; and back (0: unknown). */
const char *errno_name(int error);
int errno_from_name(const char *name);
