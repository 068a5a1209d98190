/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "list.h"

/* What an inquiry finds may lead to events: barriers wait for those that are older than they. */
struct inquiry {
        struct list link;
        uint64_t serial;
        bool of_user; /* only this one's barriers wait */
        uid_t uid;
};
