/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "close_elsewhere.h"

#include "log.h"
#include "workers.h"

struct closing {
        struct work work;
        int fd;
};

static void run(struct work *work) {
        struct closing *closing = container_of(work, struct closing, work);

        (void)close(closing->fd);
        free(closing);
}

void close_elsewhere(struct workers *workers, uid_t user, int fd) {
        struct closing *closing = fd >= 0 ? malloc(sizeof(*closing)) : NULL;

        if (fd < 0)
                return;
        if (closing) {
                *closing = (struct closing){ .work = { .run = run, .has_fd = true }, .fd = fd };
                workers_submit_anyhow(workers, user, &closing->work);
                return;
        }
        log_warning("no memory to have a descriptor of user %u closed by a thread", user);
        (void)close(fd);
}
