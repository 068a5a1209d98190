/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev monitor: watches as the interface has them, for what the other commands
 * have no words for.
 */

#include <errno.h>
#include <stdlib.h>

#include "commands.h"
#include "session.h"

static int read_watches(const struct command *command, const struct options *options, struct kev_watch **watches) {
        for (int i = 0; i < options->n_arguments; i++) {
                char *error = NULL;
                int r = kev_watch_new_from_json(options->arguments[i], &watches[i], &error);

                if (r < 0) {
                        usage_error(command, "'%s' is not a watch: %s", options->arguments[i],
                                    error ? error : "out of memory");
                        free(error);
                        return r;
                }
        }
        return 0;
}

/* The text names it only where it is refused; in its events it is a number. */
static void add(struct session *s, struct kev_watch *watch, const char *text) {
        int r = session_try_add(s, watch, NULL, false);

        if (r < 0)
                session_refuse(s, text, r, s->refusal);
}

int monitor_run(const struct command *command, const struct options *options) {
        struct kev_watch **watches = calloc((size_t)options->n_arguments, sizeof(*watches));
        struct session s;
        int status = STATUS_USAGE;

        if (watches && read_watches(command, options, watches) == 0) {
                if (session_open(&s, options, session_take_and_print) == 0)
                        for (int i = 0; i < options->n_arguments; i++)
                                add(&s, watches[i], options->arguments[i]);
                status = session_finish(&s);
        }
        for (int i = 0; watches && i < options->n_arguments; i++)
                kev_watch_free(watches[i]);
        free(watches);
        return status;
}
