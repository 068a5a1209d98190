/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { READ_BYTES = 128 * 1024, REPLY_MSEC = 60000, LIMIT_MAX = 1 << 30 };

const char *wire_path(const struct bench *b) {
        return b->address + strlen("unix:");
}

void wire_open(struct wire *w, const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int r;

        *w = (struct wire){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
        bench_check_system(w->fd >= 0, "socket");
        (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
        do
                r = connect(w->fd, (struct sockaddr *)&address, sizeof(address));
        while (r < 0 && errno == EINTR);
        bench_check_system(r == 0, path);
}

void wire_close(struct wire *w) {
        (void)close(w->fd);
        free(w->in);
        *w = (struct wire){ .fd = -1 };
}

void wire_send(struct wire *w, const char *text, size_t size) {
        for (size_t done = 0; done < size + 1;) {
                ssize_t n = send(w->fd, text + done, size + 1 - done, MSG_NOSIGNAL);

                bench_check_system(n >= 0 || errno == EINTR, "sending to the daemon");
                done += (size_t)MAX(n, 0);
        }
}

static void make_room(struct wire *w) {
        if (w->begin > 0) {
                memmove(w->in, w->in + w->begin, w->end - w->begin);
                w->end -= w->begin;
                w->begin = 0;
        }
        if (w->capacity - w->end >= READ_BYTES)
                return;
        w->capacity = w->end + 2 * READ_BYTES;
        w->in = realloc(w->in, w->capacity);
        bench_check_system(w->in, "realloc");
}

const char *wire_receive(struct wire *w, int timeout_msec) {
        size_t scanned = w->begin;

        for (;;) {
                const char *message = w->in + w->begin;
                char *end = w->end > scanned ? memchr(w->in + scanned, 0, w->end - scanned) : NULL;
                struct pollfd p = { .fd = w->fd, .events = POLLIN };
                size_t before;
                ssize_t n;

                if (end) {
                        w->begin = (size_t)(end - w->in) + 1;
                        return message;
                }
                before = w->end - w->begin;
                make_room(w);
                scanned = before;
                /* Where there is no bound the kernel is asked once. */
                if (timeout_msec >= 0 && poll(&p, 1, timeout_msec) == 0)
                        return NULL;
                n = recv(w->fd, w->in + w->end, w->capacity - w->end, 0);
                if (n < 0 && errno == EINTR)
                        continue;
                bench_check_system(n >= 0, "receiving from the daemon");
                if (n == 0)
                        bench_fail("the daemon has closed the connection");
                w->end += (size_t)n;
        }
}

const char *wire_call(struct wire *w, const char *text, size_t size) {
        const char *reply;

        wire_send(w, text, size);
        reply = wire_receive(w, REPLY_MSEC);
        if (!reply)
                bench_fail("no reply to %.100s", text);
        if (strstr(reply, "\"error\":") || strstr(reply, "\"errno\":"))
                bench_fail("the answer to %.100s is %.300s", text, reply);
        return reply;
}

long long wire_number(const char *message, const char *name) {
        char key[64];
        const char *p;

        (void)snprintf(key, sizeof(key), "\"%s\":", name);
        p = strstr(message, key);
        return p ? strtoll(p + strlen(key), NULL, 10) : -1;
}

size_t wire_count_events(const char *message) {
        size_t n = 0;

        for (const char *p = message; (p = strstr(p, "\"seq\":")); p++)
                n++;
        return n;
}

void daemon_raise_limits(struct bench *b, const char *more) {
        static const char *const names[] = {
                "connections", "watches", "watch-bytes", "queue-bytes", "output-bytes", "descriptors", "timers",
                "requests",
        };
        static char option[300];
        char *path = bench_path(b, "kevd.conf");
        FILE *file = fopen(path, "we");

        bench_check_system(file, path);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++)
                (void)fprintf(file, "limit-%s = %d\n", names[i], LIMIT_MAX);
        (void)fprintf(file, "%s", more ? more : "");
        bench_check_system(fclose(file) == 0, path);
        (void)snprintf(option, sizeof(option), "--config=%s", path);
        b->option = option;
        free(path);
}

long raise_descriptors(void) {
        struct rlimit limit;

        bench_check_system(getrlimit(RLIMIT_NOFILE, &limit) == 0, "getrlimit");
        limit.rlim_cur = limit.rlim_max;
        bench_check_system(setrlimit(RLIMIT_NOFILE, &limit) == 0, "setrlimit");
        return (long)limit.rlim_cur;
}
