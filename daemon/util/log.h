/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The log. Where standard error is the journal's (systemd.exec(5), $JOURNAL_STREAM) lines go to it by its own protocol
 * <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>, with fields; else to standard error as text.
 *
 * No line is waited for: what the journal has no room for is lost, and counted. What is the same line for the same
 * user is written LOG_BURST times in LOG_PERIOD_SEC; then it is left out, and the next one that is written says how
 * often. So no peer can fill the log, and what one does leaves room for what others do.
 *
 * Any thread.
 */

#include <stdbool.h>
#include <sys/types.h>
#include <syslog.h>

#include "macro.h"

enum {
        LOG_BURST = 20,
        LOG_PERIOD_SEC = 10,
};

/* What a line is about, beside its text. The fields are KEVD_PEER_PID= and KEVD_PEER_UID=. */
struct log_subject {
        const char *message_id; /* 32 hexadecimal digits, described in systemd/kevd.catalog; or NULL */
        bool has_peer;
        pid_t pid;
        uid_t uid;
};

void log_set_level(int level);
int log_level(void);

/* "debug", "info", "notice", "warning", "err", ...; -EINVAL if it is none. */
int log_level_from_name(const char *name);
const char *log_level_name(int level);

/* "journal", or "console". */
const char *log_target_name(void);

/* `subject` may be NULL. Control characters are written as '?'. */
_printf_(3, 4) void log_write(int level, const struct log_subject *subject, const char *format, ...);

#define log_about(level, subject, ...) ((level) <= log_level() ? log_write((level), (subject), __VA_ARGS__) : (void)0)
#define log_at(level, ...) log_about((level), NULL, __VA_ARGS__)
#define log_error(...) log_at(LOG_ERR, __VA_ARGS__)
#define log_warning(...) log_at(LOG_WARNING, __VA_ARGS__)
#define log_notice(...) log_at(LOG_NOTICE, __VA_ARGS__)
#define log_info(...) log_at(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_at(LOG_DEBUG, __VA_ARGS__)
