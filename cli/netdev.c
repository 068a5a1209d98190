/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev netdev: network devices, those named or all.
 */

#include "commands.h"
#include "session.h"

static void add(struct session *s, const char *name) {
        struct kev_watch *watch = NULL;
        const char *subject = name ? name : "network devices";
        int r = kev_watch_new(KEV_FILTER_NETDEV, &watch);

        if (r == 0 && name)
                r = kev_watch_set_name(watch, name);
        if (r == 0)
                (void)session_add(s, watch, subject, false);
        else
                session_refuse(s, subject, r, NULL);
        kev_watch_free(watch);
}

int netdev_run(const struct command *command, const struct options *options) {
        struct session s;

        (void)command;
        if (session_open(&s, options, session_take_and_print) == 0) {
                if (options->n_arguments == 0)
                        add(&s, NULL);
                for (int i = 0; i < options->n_arguments; i++)
                        add(&s, options->arguments[i]);
        }
        return session_finish(&s);
}
