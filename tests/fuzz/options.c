/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Any bytes as a configuration file. What is refused names the file and a line of it that has something to be refused;
 * what is taken says nothing, and is as the options can be.
 */

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz.h"
#include "macro.h"
#include "options.h"

static int file = -1;
static char path[32], option[sizeof(path) + 16];

static void begin(void) {
        file = memfd_create("kevd.conf", MFD_CLOEXEC);
        fuzz_assert(file >= 0);
        (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
        (void)snprintf(option, sizeof(option), "--config=%s", path);
}

static void end(void) {
        file = safe_close(file);
}

static void write_file(const uint8_t *data, size_t size) {
        fuzz_assert(ftruncate(file, 0) == 0);
        fuzz_assert(pwrite(file, data, size, 0) == (ssize_t)size);
}

/* The line is more than blanks, or a comment; a NUL byte is so everywhere. */
static bool has_something(const uint8_t *data, size_t size, unsigned long line) {
        const uint8_t *p = data, *behind = data + size, *end;

        while (--line > 0) {
                p = memchr(p, '\n', (size_t)(behind - p));
                if (!p)
                        return false;
                p++;
        }
        end = p < behind ? memchr(p, '\n', (size_t)(behind - p)) : NULL;
        end = end ? end : behind;
        if (p < end && memchr(p, 0, (size_t)(end - p)))
                return true;
        while (p < end && (*p == ' ' || *p == '\t'))
                p++;
        while (p < end && (end[-1] == ' ' || end[-1] == '\t' || end[-1] == '\r'))
                end--;
        return p < end && *p != '#';
}

/* A line for each line at fault, in their order. */
static void expect_complaints(const struct buffer *complaints, const uint8_t *data, size_t size) {
        const char *text = complaints->data, *behind = text + complaints->size;
        size_t n = strlen(path);
        unsigned long last = 0;

        fuzz_assert(complaints->size > 0 && behind[-1] == '\n');
        for (const char *end; text < behind; text = end + 1) {
                unsigned long line;
                char *number_end;

                end = memchr(text, '\n', (size_t)(behind - text));
                fuzz_assert_msg(strncmp(text, path, n) == 0 && text[n] == ':', "said: %s", text);
                line = strtoul(text + n + 1, &number_end, 10);
                fuzz_assert_msg(line > last && strncmp(number_end, ": ", 2) == 0 && number_end + 2 < end, "said: %s",
                                text);
                fuzz_assert_msg(has_something(data, size, line), "line %lu: %s", line, text);
                last = line;
        }
}

static void expect_options(const struct options *o) {
        fuzz_assert(o->n_listen <= LISTENERS_MAX);
        for (size_t i = 0; i < o->n_listen; i++)
                fuzz_assert(o->listen[i][0] == '/');
        fuzz_assert(mode_name(o->mode));
        fuzz_assert(o->log_level >= 0 && o->log_level <= 7);
        fuzz_assert(!o->help && !o->version && !o->check_config);
}

static void input(const uint8_t *data, size_t size) {
        char *arguments[] = { (char[]){ "kevd" }, option, NULL };
        struct options options;
        int r;

        write_file(data, size);
        options_init(&options);
        r = options_read(&options, 2, arguments);
        fuzz_assert_msg(r == 0 || r == -EINVAL, "%d", r);
        if (r < 0)
                expect_complaints(&options.complaints, data, size);
        else {
                fuzz_assert(options.complaints.size == 0);
                fuzz_assert(size == 0 || !memchr(data, 0, size));
                expect_options(&options);
        }
        options_free(&options);
}

const struct fuzz_target fuzz_target = { .begin = begin, .input = input, .end = end };
