/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who may call what: the bus is asked who the caller is, then polkit whether it may. Root, and the user that the daemon
 * runs as, may without polkit. Nothing waits for either, and a caller that leaves the bus is not waited for.
 */

#include <stddef.h>
#include <sys/types.h>

#include <systemd/sd-bus.h>

#include "list.h"

struct authorizer {
        struct list requests; /* that are waiting for others' answers */
        size_t n_requests;
};

/* The caller may. Replies to the call, or keeps a reference to it. */
typedef void authorized_fn(struct authorizer *authorizer, sd_bus_message *call, uid_t uid, pid_t pid);

void authorizer_init(struct authorizer *authorizer);
/* The bus is lost, or is closed next: nobody is answered any more. */
void authorizer_close(struct authorizer *authorizer);

/* Of a method's handler, which returns what this does. `action`, one of systemd/org.kevd.policy, is kept. A caller that
 * may not is answered with the reason. */
int authorize(struct authorizer *authorizer, sd_bus_message *call, const char *action, authorized_fn *granted,
              sd_bus_error *error);
