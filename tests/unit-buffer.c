/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proto/buffer: what is put into a buffer, and taken from its front. Strings in JSON, and in base64, can be read again.
 */

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#include "buffer.h"
#include "event.h"
#include "harness.h"
#include "macro.h"
#include "message.h"
#include "messages.h"
#include "unit.h"

/* ---- buffers ------------------------------------------------------------------------------------------ */

START_TEST(buffer_numbers) {
        static const int64_t numbers[] = { 0, 1, -1, 9, 10, -10, 1234567890123, INT64_MAX, INT64_MIN, INT64_MIN + 1 };
        struct buffer b = BUFFER_INIT;
        char expected[32];

        for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
                buffer_reset(&b);
                buffer_put_i64(&b, numbers[i]);
                (void)snprintf(expected, sizeof(expected), "%lld", (long long)numbers[i]);
                ck_assert_uint_eq(b.size, strlen(expected));
                ck_assert_mem_eq(b.data, expected, b.size);
                buffer_reset(&b);
                buffer_put_u64(&b, (uint64_t)numbers[i]);
                (void)snprintf(expected, sizeof(expected), "%llu", (unsigned long long)numbers[i]);
                ck_assert_uint_eq(b.size, strlen(expected));
                ck_assert_mem_eq(b.data, expected, b.size);
        }
        buffer_free(&b);
}
END_TEST

/* Put at the end, consumed at the front, at random: what is in between is right. */
START_TEST(buffer_random) {
        struct random r = { 44 };
        struct buffer b = BUFFER_INIT;
        uint64_t put = 0, taken = 0;

        buffer_consume(&b, 0);
        for (unsigned step = 0; step < 20000; step++) {
                unsigned char bytes[300];
                size_t n = random_below(&r, sizeof(bytes));

                if (random_once_in(&r, 2)) {
                        for (size_t i = 0; i < n; i++)
                                bytes[i] = (unsigned char)(put++ * 7);
                        buffer_put(&b, bytes, n);
                } else {
                        n = MIN(n, b.size);
                        buffer_consume(&b, n);
                        taken += n;
                }
                ck_assert_uint_eq(b.size, put - taken);
                ck_assert_int_eq(b.error, 0);
                if (b.size > 0) {
                        ck_assert_uint_eq((unsigned char)b.data[0], (unsigned char)(taken * 7));
                        ck_assert_uint_eq((unsigned char)b.data[b.size - 1], (unsigned char)((put - 1) * 7));
                }
        }
        buffer_free(&b);
        ck_assert_ptr_null(b.data);
}
END_TEST

/* The string, as json-c reads it. */
START_TEST(json_strings) {
        struct random r = { 45 };

        for (unsigned round = 0; round < 20000; round++) {
                struct buffer b = BUFFER_INIT;
                struct json_object *json;
                char text[64];
                size_t size = 0;

                for (size_t n = random_below(&r, 12); n > 0; n--)
                        size += encode(random_once_in(&r, 3) ? 1 + (uint32_t)random_below(&r, 0xd7ff) :
                                                               1 + (uint32_t)random_below(&r, 0x7f),
                                       text + size);
                buffer_put_literal(&b, "{\"a\":");
                json_put_string(&b, text, size);
                buffer_put_literal(&b, "}");
                ck_assert(utf8_is_valid(b.data, b.size));
                for (size_t i = 0; i < b.size; i++)
                        ck_assert((unsigned char)b.data[i] >= 0x20);
                ck_assert_int_eq(message_parse(b.data, b.size, &json), 0);
                json_object_object_foreach(json, key, value) {
                        ck_assert_str_eq(key, "a");
                        ck_assert_uint_eq((size_t)json_object_get_string_len(value), size);
                        ck_assert_mem_eq(json_object_get_string(value), text, size);
                }
                json_object_put(json);
                buffer_free(&b);
        }
}
END_TEST

/* ---- base64 ------------------------------------------------------------------------------------------- */

static void assert_base64(const char *bytes, size_t size, const char *expected) {
        struct buffer b = BUFFER_INIT;
        struct event_path path = { 0 };
        char *scratch = NULL;

        json_put_base64(&b, bytes, size);
        buffer_put(&b, "", 1);
        ck_assert_int_eq(b.data[0], '"');
        ck_assert_int_eq(b.data[b.size - 2], '"');
        b.data[b.size - 2] = 0;
        if (expected)
                ck_assert_str_eq(b.data + 1, expected);
        ck_assert_int_eq(event_path_from_json(NULL, b.data + 1, &scratch, &path), 0);
        ck_assert_uint_eq(path.size, size);
        ck_assert_mem_eq(path.bytes, bytes, size);
        ck_assert_int_eq(path.bytes[size], 0);
        free(scratch);
        buffer_free(&b);
}

START_TEST(base64_vectors) {
        assert_base64("", 0, "");
        assert_base64("f", 1, "Zg==");
        assert_base64("fo", 2, "Zm8=");
        assert_base64("foo", 3, "Zm9v");
        assert_base64("foob", 4, "Zm9vYg==");
        assert_base64("fooba", 5, "Zm9vYmE=");
        assert_base64("foobar", 6, "Zm9vYmFy");
        assert_base64("\xfb\xff\xfe", 3, "+//+");
}
END_TEST

START_TEST(base64_random) {
        struct random r = { 46 };

        for (unsigned round = 0; round < 20000; round++) {
                char bytes[64];
                size_t size = random_below(&r, sizeof(bytes));

                for (size_t i = 0; i < size; i++)
                        bytes[i] = (char)(1 + random_below(&r, 255));
                assert_base64(bytes, size, NULL);
        }
}
END_TEST

START_TEST(base64_refused) {
        static const char *const bad[] = {
                "Z", "Zg", "Zg=", "Zm8", "Zg===", "=", "====", "Z===", "Zg=a", "Zg==Zg==", "Zm8=Zm8=", "Zm 9", "Zm9v\n", "-_-_",
                "Zm9\xc3", "Zm9\x80", "Z\"9v", "AAAA", "YQBi", "AA==", "Zg==a", "=Zm9", "Z=m9",
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct event_path path = { 0 };
                char *scratch = NULL;

                ck_assert_msg(event_path_from_json(NULL, bad[i], &scratch, &path) == -EBADMSG, "\"%s\" was taken", bad[i]);
                ck_assert_ptr_null(path.bytes);
                free(scratch);
        }
}
END_TEST

START_TEST(path_forms) {
        struct event_path path = { 0 };
        char *scratch = NULL;

        ck_assert_int_eq(event_path_from_json(NULL, NULL, &scratch, &path), 0);
        ck_assert_ptr_null(path.bytes);
        ck_assert_int_eq(event_path_from_json("/a\xc3\xa9", NULL, &scratch, &path), 0);
        ck_assert_uint_eq(path.size, 4);
        ck_assert_str_eq(path.bytes, "/a\xc3\xa9");
        ck_assert_ptr_null(scratch);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("buffer");
        TCase *c;

        c = harness_case(suite, "buffer");
        tcase_add_test(c, buffer_numbers);
        tcase_add_test(c, buffer_random);
        tcase_add_test(c, json_strings);

        c = harness_case(suite, "base64");
        tcase_add_test(c, base64_vectors);
        tcase_add_test(c, base64_random);
        tcase_add_test(c, base64_refused);
        tcase_add_test(c, path_forms);
        return harness_main(argc, argv);
}
