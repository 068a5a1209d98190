/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Messages of the process connector, as they come from the socket (<linux/cn_proc.h>).
 */

#include <linux/cn_proc.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "opener.h"

/* The event of a message, with zeros for what an older kernel does not say, and the number that it has on its CPU.
 * The message is aligned as its header is. False: it is none of the connector's. */
bool connector_parse(const char *message, size_t size, uint32_t *ret_number, struct proc_event *ret_event);

/* A socket that hears of processes, tried out, and how it is left; in the broker's helper or, where there is no broker,
 * in the daemon. */
open_fn connector_listen;
void connector_ignore(int fd);
