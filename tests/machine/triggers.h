/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Sets off the clients' user watches, over a connection of its own, as which a user can reach its own clients only.
 */

#include "client.h"

struct triggers {
        const char *socket_path;
        uid_t uid;
        struct round *round;
        struct connection connection;
        struct trigger *pending; /* called, and not answered, in their order */
        size_t n_pending, capacity;
        bool is_lenient; /* a client may not be there */
};

void triggers_make(struct triggers *triggers, struct client *client);
/* Reads what has come, as client_read(). */
void triggers_read(struct triggers *triggers);
void triggers_free(struct triggers *triggers);
