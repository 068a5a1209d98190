/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "one-client.h"

#include <unistd.h>

struct daemon *daemon_;
int kevd;

void start(void) {
        daemon_ = daemon_start(NULL);
        kevd = client_connect(daemon_->socket);
}

void stop(void) {
        (void)close(kevd);
        daemon_stop(daemon_);
}
