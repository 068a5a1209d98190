/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "log.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

enum {
        LINE_BYTES = 1024,
        LIMITS = 256,
        LIMIT_PLACES = 8, /* where one's limit may be; lines that find none of these free share the first one's room */
        LEFT_OUT_SEC = 600, /* after so long nobody waits for the next line to say what was left out */
};

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

/* ---- how much is written ------------------------------------------------------------------------- */

struct limit {
        uint64_t key;
        time_t begin; /* CLOCK_MONOTONIC */
        unsigned n;
        uint64_t left_out;
};

static pthread_mutex_t limits_lock = PTHREAD_MUTEX_INITIALIZER;
static struct limit limits[LIMITS];
static uint64_t left_out_elsewhere; /* whose places others have by now */

struct left_out {
        uint64_t alike, others;
};

static bool is_over(const struct limit *limit, time_t now) {
        return limit->n == 0 || now - limit->begin >= LOG_PERIOD_SEC;
}

static bool is_free(const struct limit *limit, time_t now) {
        return is_over(limit, now) && (limit->left_out == 0 || now - limit->begin >= LEFT_OUT_SEC);
}

static struct limit *limit_of(const struct log_subject *subject, const char *format, time_t now) {
        struct limit *free_one = NULL;
        uint64_t key = (uintptr_t)format;

        if (subject)
                key ^= (uintptr_t)subject->message_id * 31 + (subject->has_peer ? subject->uid + UINT64_C(1) : 0);
        key *= UINT64_C(0x9e3779b97f4a7c15);
        for (size_t i = 0; i < LIMIT_PLACES; i++) {
                struct limit *limit = &limits[((key >> 56) + i) % LIMITS];

                if (limit->key == key)
                        return limit;
                if (!free_one && is_free(limit, now))
                        free_one = limit;
        }
        if (!free_one)
                return &limits[key >> 56];
        left_out_elsewhere += free_one->left_out;
        *free_one = (struct limit){ .key = key };
        return free_one;
}

/* False: it is to be left out. `ret_left_out`: how many were and have not been said. */
static bool has_room(const struct log_subject *subject, const char *format, struct left_out *ret_left_out) {
        struct limit *limit;
        struct timespec now;
        bool room;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        (void)pthread_mutex_lock(&limits_lock);
        limit = limit_of(subject, format, now.tv_sec);
        if (is_over(limit, now.tv_sec)) {
                limit->begin = now.tv_sec;
                limit->n = 0;
        }
        room = limit->n < LOG_BURST;
        if (room) {
                limit->n++;
                *ret_left_out = (struct left_out){ limit->left_out, left_out_elsewhere };
                limit->left_out = left_out_elsewhere = 0;
        } else
                limit->left_out++;
        (void)pthread_mutex_unlock(&limits_lock);
        return room;
}

/* ---- where it goes ---------------------------------------------------------------------------------- */

/* Whether standard error is what the service manager connected to the journal. */
static bool is_journal(void) {
        const char *stream = getenv("JOURNAL_STREAM");
        unsigned long long device, inode;
        struct stat st;

        return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 && fstat(STDERR_FILENO, &st) == 0 &&
               st.st_dev == device && st.st_ino == inode;
}

/* Asked once: neither the variable nor standard error changes under a running process. */
static bool goes_to_journal(void) {
        static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
        static int to_journal = -1;
        bool result;

        (void)pthread_mutex_lock(&lock);
        if (to_journal < 0)
                to_journal = is_journal();
        result = to_journal;
        (void)pthread_mutex_unlock(&lock);
        return result;
}

const char *log_target_name(void) {
        return goes_to_journal() ? "journal" : "console";
}

/* A socket for each line: a descriptor that is kept would be another's in a process that has closed all of its
 * parent's. */
static int send_to_journal(const char *fields, size_t size) {
        static const struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };
        int fd _cleanup_(closep) = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -errno;
        return sendto(fd, fields, size, MSG_DONTWAIT | MSG_NOSIGNAL, (const struct sockaddr *)&address,
                      sizeof(address)) < 0 ? -errno : 0;
}

static int write_to_journal(int level, const struct log_subject *subject, const char *line) {
        char fields[LINE_BYTES + 512];
        size_t n = (size_t)snprintf(fields, sizeof(fields), "SYSLOG_IDENTIFIER=kevd\nPRIORITY=%d\nMESSAGE=%s\n", level,
                                    line);

        if (subject && subject->message_id)
                n += (size_t)snprintf(fields + n, sizeof(fields) - n, "MESSAGE_ID=%s\n", subject->message_id);
        if (subject && subject->has_peer)
                n += (size_t)snprintf(fields + n, sizeof(fields) - n, "KEVD_PEER_PID=%d\nKEVD_PEER_UID=%u\n",
                                      (int)subject->pid, (unsigned)subject->uid);
        return send_to_journal(fields, n);
}

static bool had_no_room(int r) {
        return r == -EAGAIN || r == -ENOBUFS;
}

/* Behind what the same journal reads as a stream, where it can't be reached otherwise. */
static void write_line(int level, const struct log_subject *subject, const char *line) {
        static uint64_t lost; /* for want of room */
        uint64_t n;
        int r;

        if (!goes_to_journal()) {
                (void)dprintf(STDERR_FILENO, "kevd: %s\n", line);
                return;
        }
        r = write_to_journal(level, subject, line);
        if (had_no_room(r)) {
                (void)__atomic_add_fetch(&lost, 1, __ATOMIC_RELAXED);
                return;
        }
        if (r < 0)
                (void)dprintf(STDERR_FILENO, "<%d>%s\n", level, line);
        n = __atomic_exchange_n(&lost, 0, __ATOMIC_RELAXED);
        if (n > 0) {
                char text[96];

                (void)snprintf(text, sizeof(text), "%llu lines of the log were lost: the journal had no room",
                               (unsigned long long)n);
                if (had_no_room(write_to_journal(LOG_WARNING, NULL, text))) /* it was room for one line */
                        (void)__atomic_add_fetch(&lost, n, __ATOMIC_RELAXED);
        }
}

void log_write(int level, const struct log_subject *subject, const char *format, ...) {
        char line[LINE_BYTES];
        struct left_out left_out;
        va_list arguments;
        size_t n;

        if (!has_room(subject, format, &left_out))
                return;
        va_start(arguments, format);
        (void)vsnprintf(line, sizeof(line), format, arguments);
        va_end(arguments);
        n = strlen(line);
        if (left_out.alike > 0)
                (void)snprintf(line + n, sizeof(line) - n, " (%llu more like it were left out)",
                               (unsigned long long)left_out.alike);
        n = strlen(line);
        if (left_out.others > 0)
                (void)snprintf(line + n, sizeof(line) - n, " (%llu others were left out long ago)",
                               (unsigned long long)left_out.others);
        for (char *p = line; *p; p++)
                if ((unsigned char)*p < ' ' || *p == 0x7f)
                        *p = '?';
        write_line(level, subject, line);
}
