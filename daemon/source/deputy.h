/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What fanotify can't serve, other users' files are watched for them by deputies: a
 * process for each set of credentials, which has the user's rights and no others, and
 * runs the inotify source. So the kernel decides who may watch what, and what a watch
 * costs is counted against its own user's limits of inotify(7).
 *
 *   source_deputies (deputies.c)  the daemon's side: a source like others
 *   deputy_run() (deputy.c)       the process, a helper of the broker's
 *
 * Orders go to the deputy, words come back. Both sides are one program, so these are
 * plain structures, with paths behind them; each is checked for its size.
 */

#include <stdint.h>

enum order_kind {
        ORDER_ATTACH = 1, /* the path follows, or a descriptor is beside it */
        ORDER_MODIFY,
        ORDER_SELECT,
        ORDER_DETACH,
        ORDER_BARRIER,    /* answered by WORD_PAST with its serial, behind all that came before */
        ORDER_ANSWER,     /* to WORD_DESCENDS or WORD_ALIKE: `serial` is 0 or 1 */
        ORDER_TAKEN,      /* so many reports (`serial`) have found room: a list goes on */
};

enum {
        ORDER_WAITS = 1 << 0,
        ORDER_LIST = 1 << 1,
        ORDER_SECOND_CHOICE = 1 << 2,
        ORDER_SELECTIVE = 1 << 3,
        ORDER_OTHER_MOUNTS = 1 << 4,
        ORDER_LISTED = 1 << 5,
};

struct order {
        uint32_t kind;
        uint32_t flags;
        uint64_t id; /* of the watch; never used again */
        uint64_t serial;
        uint64_t notes;
        uint32_t filter;
        uint32_t path_size; /* with its NUL */
};

enum word_kind {
        WORD_ATTACHED = 1, /* with an error, refused: the message follows */
        WORD_REPORT,       /* `below`, and `from`, follow */
        WORD_PAST,
        WORD_DESCENDS,     /* is anything below the directory that follows of interest? */
        WORD_ALIKE,        /* was what is of interest below the second so below the first? */
        WORD_COUNTS,       /* `count` registrations, `serial` losses so far, `notes` of them repaired; with an error: its
                            * end */
};

struct word {
        uint32_t kind;
        int32_t error; /* positive errno */
        uint64_t id;
        uint64_t serial;
        uint64_t notes;
        uint64_t count;
        uint64_t realtime_usec;
        int64_t data;
        uint32_t report_flags;
        uint32_t file_kind;   /* enum kev_kind */
        uint32_t has_below, has_from; /* an empty path is not none */
        uint32_t below_size, from_size; /* bytes, no NULs */
};

enum { DEPUTY_IN_FLIGHT = 256 }; /* reports of a list that were not found room for yet */

/* Serves orders from the socket until that is closed. */
_Noreturn void deputy_run(int socket);
