/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "violation.h"

#include "log.h"

static const struct {
        const char *message_id, *text;
} violations[] = {
        [VIOLATION_NOT_A_CALL] = { "eae5253d3acd46e3a6f3d7d14efbcbb4", "not a Varlink call" },
        [VIOLATION_TOO_LONG] = { "3b0eb39c03654330af5fc106620d6080", "a message of more than 64 KiB" },
        [VIOLATION_TOO_MANY_DESCRIPTORS] = { "87d117f5bc23481c916e5eccf18d72db", "too many descriptors" },
        [VIOLATION_DESCRIPTORS_OVER_LIMIT] = { "5d8a19b85b954fa589601f3cc5b51e99",
                                               "more descriptors than the user's limit has room for" },
        [VIOLATION_DESCRIPTORS_LEFT] = { "dbabe660fb0741d788a4925c0175ffc8", "descriptors lay there for too long" },
        [VIOLATION_UNREAD] = { "89fca5a0b5b942239625f8aadcb3ee71",
                               "more unread replies than the user's limit has room for" },
        [VIOLATION_TOO_MANY_CONNECTIONS] = { "4e9a8d053f384bb2b96e4fa987e365b7",
                                             "more connections or descriptors than the user's limit" },
};

void violation_log(enum violation violation, const struct asker *asker) {
        struct log_subject subject = {
                .message_id = violations[violation].message_id, .has_peer = true, .pid = asker->pid, .uid = asker->uid,
        };

        log_about(LOG_INFO, &subject, "connection of pid %d, user %u, ended: %s", (int)asker->pid, (unsigned)asker->uid,
                  violations[violation].text);
}
