/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static int current_level = LOG_INFO;

static const char *const names[] = {
        [LOG_EMERG] = "emerg",     [LOG_ALERT] = "alert",   [LOG_CRIT] = "crit", [LOG_ERR] = "err",
        [LOG_WARNING] = "warning", [LOG_NOTICE] = "notice", [LOG_INFO] = "info", [LOG_DEBUG] = "debug",
};

void log_set_level(int level) {
        current_level = level;
}

int log_level(void) {
        return current_level;
}

int log_level_from_name(const char *name) {
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                if (strcmp(names[i], name) == 0)
                        return (int)i;
        return -EINVAL;
}

const char *log_level_name(int level) {
        return level >= 0 && (size_t)level < ARRAY_SIZE(names) ? names[level] : NULL;
}

void log_write(int level, const char *format, ...) {
        /* Asked once: the variable doesn't change under a running process. */
        static int to_journal = -1;
        char line[1024];
        va_list arguments;

        if (to_journal < 0)
                to_journal = getenv("JOURNAL_STREAM") != NULL;
        va_start(arguments, format);
        (void)vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        if (to_journal)
                (void)dprintf(STDERR_FILENO, "<%d>%s\n", level, line);
        else
                (void)dprintf(STDERR_FILENO, "kevd: %s\n", line);
}
