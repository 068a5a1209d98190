/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Log lines on standard error, with the priority in front where the journal
 * reads it (sd-daemon(3)). What a peer caused is logged at debug or info, so
 * that no peer can fill the log.
 */

#include <stdbool.h>
#include <syslog.h>

#include "macro.h"

void log_set_level(int level);
int log_level(void);

/* "debug", "info", "notice", "warning", "err", ...; -EINVAL if it is none. */
int log_level_from_name(const char *name);
const char *log_level_name(int level);

_printf_(2, 3) void log_write(int level, const char *format, ...);

#define log_at(level, ...) ((level) <= log_level() ? log_write((level), __VA_ARGS__) : (void)0)
#define log_error(...) log_at(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) log_at(LOG_NOTICE, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
