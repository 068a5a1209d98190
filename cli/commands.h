/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The commands, a file each. All return the exit status; those that watch have
 * said by then what went wrong.
 */

#include "options.h"

typedef int command_run(const struct command *command, const struct options *options);

command_run watch_run;
command_run wait_run;
command_run proc_run;
command_run netdev_run;
command_run timer_run;
command_run signal_run;
command_run fd_run;
command_run monitor_run;
command_run status_run;
