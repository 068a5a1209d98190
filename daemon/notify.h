/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the service manager is told while the loop runs. sd_notify(3) waits while there is no more room in the manager's
 * queue, which is short: that is for before the loop, and after it.
 */

/* So long after -EAGAIN it is tried again. */
enum { NOTIFY_PAUSE_MSEC = 100 };

/* Lines of NAME=VALUE; a copy of the descriptor goes along, unless it is -1. -EAGAIN: there is no room just now.
 * -EOPNOTSUPP: there is no service manager. */
int notify_at_once(const char *text, int fd);
