/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Why connections are ended, or turned away: each has an id of its own in the journal, which systemd/kevd.catalog and
 * kevd(8) explain.
 */

#include "source.h"

enum violation {
        VIOLATION_NOT_A_CALL,
        VIOLATION_TOO_LONG,
        VIOLATION_TOO_MANY_DESCRIPTORS,   /* with one message */
        VIOLATION_DESCRIPTORS_OVER_LIMIT, /* more than the user's limit has room for */
        VIOLATION_DESCRIPTORS_LEFT,       /* beside a message that is not completed */
        VIOLATION_UNREAD,                 /* replies, beyond the user's limit */
        VIOLATION_TOO_MANY_CONNECTIONS,
};

void violation_log(enum violation violation, const struct asker *asker);
