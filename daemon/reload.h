/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Reading the configuration again, for SIGHUP and for who calls Reload. Files, and who knows the groups, may take their
 * time: they are read on a thread, and what was read is put in force on the loop.
 *
 * In force are then the limits, the group of process-observers, and the log level, also where another was set in
 * between. What is different of all else is told in the log, and takes a restart. A configuration that is wrong changes
 * nothing. The command line, which goes before the files, is what it was.
 */

#include "mailbox.h"
#include "options.h"

struct reading;

struct reload {
        struct reload_hook hook; /* the server's */
        struct server *server;
        const struct options *options; /* that the daemon was started with */
        int argc;
        char **argv;
        struct mailbox mailbox;
        struct reading *reading; /* what a thread is at, or NULL */
        bool again;              /* it was asked for since that began */
        struct list waiters, next_waiters; /* struct reload_waiter: of this, and of the one after it */
        uint64_t untold_begin_usec; /* that the service manager had no room for; 0: none */
        bool untold_end;            /* the same, after that */
        struct mux_timer notify_timer;
};

/* Is whom server_reload() asks from here on. All but `reload` itself is the caller's, and outlives it. */
int reload_open(struct reload *reload, struct server *server, const struct options *options, int argc, char **argv);
/* After the workers and all who wait have ended. Nothing happens to one that was not opened, and is zero. */
void reload_close(struct reload *reload);
