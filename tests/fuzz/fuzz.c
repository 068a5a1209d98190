/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fuzz.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <json-c/json.h>

#include "message.h"

void fuzz_fail(const char *file, int line, const char *format, ...) {
        va_list arguments;

        (void)fprintf(stderr, "%s:%d: ", file, line);
        va_start(arguments, format);
        (void)vfprintf(stderr, format, arguments);
        va_end(arguments);
        (void)fputc('\n', stderr);
        abort();
}

struct json_object *fuzz_parse(const char *text, size_t size) {
        struct json_tokener *tokener = json_tokener_new();
        struct json_object *strict, *object = NULL;
        int r;

        fuzz_assert(tokener);
        json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
        strict = json_tokener_parse_ex(tokener, text, (int)size);
        fuzz_assert_msg(json_tokener_get_error(tokener) == json_tokener_success, "no JSON: %.*s", (int)size, text);
        fuzz_assert_msg(json_tokener_get_parse_end(tokener) == size, "more than JSON: %.*s", (int)size, text);
        json_tokener_free(tokener);
        r = message_parse(text, size, &object);
        fuzz_assert_msg(r == 0, "no message (%d): %.*s", r, (int)size, text);
        fuzz_assert(json_object_equal(strict, object));
        json_object_put(strict);
        return object;
}

void *fuzz_copy(const void *data, size_t size) {
        char *copy = malloc(size);

        fuzz_assert(copy || size == 0);
        if (size > 0)
                memcpy(copy, data, size);
        return copy;
}

char *fuzz_text(const void *data, size_t size) {
        char *text = malloc(size + 1);

        fuzz_assert(text);
        for (size_t i = 0; i < size; i++)
                text[i] = ((const char *)data)[i] ? ((const char *)data)[i] : '0';
        text[size] = 0;
        return text;
}

bool fuzz_texts_equal(const char *a, const char *b) {
        return a && b ? strcmp(a, b) == 0 : a == b;
}

size_t fuzz_count_descriptors(void) {
        DIR *directory = opendir("/proc/self/fd");
        struct dirent *entry;
        size_t n = 0;

        fuzz_assert(directory);
        while ((entry = readdir(directory)))
                n += entry->d_name[0] != '.';
        (void)closedir(directory);
        return n - 1; /* the directory's own */
}
