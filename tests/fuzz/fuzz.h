/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What fuzzing targets are built on. A target is one file that defines `fuzz_target`. libfuzzer.c runs it under
 * libFuzzer (tools/fuzz), corpus.c over the inputs that are kept in corpus/NAME, as a test like any other.
 *
 * An input is any bytes. It takes its target from where begin() has left it to there again, so that an input does
 * the same alone as behind others. What must not be ends the process.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct json_object;

struct fuzz_target {
        void (*begin)(void); /* before the first input; may be NULL */
        void (*input)(const uint8_t *data, size_t size);
        void (*end)(void); /* leaves nothing open; may be NULL */
};

extern const struct fuzz_target fuzz_target;

#define fuzz_assert(expression) \
        ((expression) ? (void)0 : fuzz_fail(__FILE__, __LINE__, "%s", #expression))
#define fuzz_assert_msg(expression, ...) \
        ((expression) ? (void)0 : fuzz_fail(__FILE__, __LINE__, __VA_ARGS__))

void fuzz_fail(const char *file, int line, const char *format, ...)
        __attribute__((noreturn, __format__(__printf__, 3, 4)));

/* A JSON object and nothing else, by json-c's strict tokener and by what both sides of the socket take for a message;
 * anything else ends the process. The caller's to put. */
struct json_object *fuzz_parse(const char *text, size_t size);

/* A copy that ends where its memory ends, so that the sanitizer sees what is read behind it. Also of nothing. */
void *fuzz_copy(const void *data, size_t size);
/* The same with a NUL behind it; NUL bytes within become something else. */
char *fuzz_text(const void *data, size_t size);

/* The same or both missing. */
bool fuzz_texts_equal(const char *a, const char *b);

/* How many descriptors are open. */
size_t fuzz_count_descriptors(void);

/* ---- what is left of an input --------------------------------------------------------------------------- */

/* Past its end there are zeros, and pieces are short. */
struct input {
        const uint8_t *data;
        size_t size;
};

static inline const uint8_t *input_bytes(struct input *in, size_t size, size_t *ret_size) {
        const uint8_t *p = in->data;

        *ret_size = size < in->size ? size : in->size;
        in->data += *ret_size;
        in->size -= *ret_size;
        return p;
}

static inline uint64_t input_number(struct input *in, size_t bytes) {
        uint64_t number = 0;
        size_t size;
        const uint8_t *p = input_bytes(in, bytes, &size);

        for (size_t i = 0; i < size; i++)
                number |= (uint64_t)p[i] << 8 * i;
        return number;
}

static inline uint8_t input_byte(struct input *in) {
        return (uint8_t)input_number(in, 1);
}
