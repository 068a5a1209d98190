/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proto/: what is read believes nothing, what is written can be read again.
 */

#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#include "buffer.h"
#include "event.h"
#include "harness.h"
#include "macro.h"
#include "message.h"
#include "unit.h"
#include "vocabulary.h"
#include "watch_spec.h"

/* ---- UTF-8 ------------------------------------------------------------------------------------------ */

/* The bytes end where their memory ends. */
static bool is_utf8(const void *data, size_t size) {
        char *copy = malloc(size ? size : 1);
        bool valid;

        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data, size);
        valid = utf8_is_valid(copy, size);
        free(copy);
        return valid;
}

/* RFC 3629, by decoding; 0: none begins here. */
static size_t slow_character(const unsigned char *p, size_t size) {
        static const uint32_t smallest[] = { 0, 1, 0x80, 0x800, 0x10000 };
        size_t n = p[0] < 0x80 ? 1 : p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
        uint32_t value;

        if (n == 0 || n > size)
                return 0;
        value = n == 1 ? p[0] : p[0] & (0x7fu >> n);
        for (size_t i = 1; i < n; i++) {
                if (p[i] >> 6 != 2)
                        return 0;
                value = value << 6 | (p[i] & 0x3f);
        }
        return value < smallest[n] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff) ? 0 : n;
}

static bool slow_utf8(const unsigned char *p, size_t size) {
        while (size > 0) {
                size_t n = slow_character(p, size);

                if (n == 0)
                        return false;
                p += n;
                size -= n;
        }
        return true;
}

static size_t encode(uint32_t c, char *out) {
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned first[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

        for (size_t i = n; i > 1; i--, c >>= 6)
                out[i - 1] = (char)(0x80 | (c & 0x3f));
        out[0] = (char)(first[n] | c);
        return n;
}

START_TEST(utf8_each_character) {
        char text[16];

        for (uint32_t c = 0; c < 0x120000; c++) {
                size_t n = encode(c, text);
                bool good = c != 0 && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff);

                assert_often(utf8_is_valid(text, n) == good, "U+%04X", c);
                for (size_t cut = 1; cut < n; cut++)
                        assert_often(!utf8_is_valid(text, cut), "U+%04X cut to %zu", c, cut);
        }
        ck_assert(utf8_is_valid("", 0));
}
END_TEST

/* All sequences of bytes at which the rules change, alone and amid other text. */
START_TEST(utf8_each_edge) {
        static const unsigned char edges[] = { 0x00, 0x01, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc2, 0xdf,
                                               0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xf8, 0xff };
        const size_t n = ARRAY_SIZE(edges);
        unsigned char text[32];

        for (size_t i = 0; i < n * n * n * n; i++) {
                size_t before = i % 11, behind = i % 7;

                memset(text, 'x', sizeof(text));
                text[before] = edges[i % n];
                text[before + 1] = edges[i / n % n];
                text[before + 2] = edges[i / n / n % n];
                text[before + 3] = edges[i / n / n / n];
                for (size_t size = 1; size <= 4 + behind; size += size < 4 ? 1 : behind ? behind : 1) {
                        bool good = slow_utf8(text, before + size);

                        assert_often(utf8_is_valid((char *)text, before + size) == good,
                                     "%02x %02x %02x %02x, %zu bytes of it", text[before], text[before + 1],
                                     text[before + 2], text[before + 3], size);
                }
        }
}
END_TEST

START_TEST(utf8_classes) {
        static const char *const bad[] = {
                "\xc0\x80", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", /* overlong */
                "\xed\xa0\x80", "\xed\xbf\xbf", "\xed\xa0\xbd\xed\xb8\x80",                                     /* surrogates */
                "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfe", "\xff",                 /* too large */
                "\x80", "\xbf", "a\x80", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc3(", "\xe2\x82(", "\xe2(\xa1",
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                char text[64];

                ck_assert_msg(!is_utf8(bad[i], strlen(bad[i])), "number %zu", i);
                for (size_t before = 0; before < 20; before++) {
                        int size = snprintf(text, sizeof(text), "%.*s%s%s", (int)before, "abcdefghijklmnopqrst", bad[i], "0123456789");

                        ck_assert_msg(!is_utf8(text, (size_t)size), "number %zu behind %zu bytes", i, before);
                }
        }
}
END_TEST

START_TEST(utf8_nul_anywhere) {
        char memory[128];

        for (size_t align = 0; align < 8; align++)
                for (size_t size = 1; size < 100; size++) {
                        memset(memory, 'a', sizeof(memory));
                        ck_assert(utf8_is_valid(memory + align, size));
                        for (size_t at = 0; at < size; at++) {
                                memory[align + at] = 0;
                                ck_assert_msg(!utf8_is_valid(memory + align, size), "at %zu of %zu, from %zu on", at, size, align);
                                memory[align + at] = 'a';
                        }
                        /* What is behind doesn't count. */
                        memory[align + size] = 0;
                        ck_assert(utf8_is_valid(memory + align, size));
                        memory[align + size] = (char)0x80;
                        ck_assert(utf8_is_valid(memory + align, size));
                }
}
END_TEST

START_TEST(utf8_random) {
        static const char *const parts[] = { "a", "abcdefgh", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\x7f", "\x01",
                                             "\xef\xbf\xbf" };
        struct random r = { 41 };
        size_t n_good = 0;

        for (unsigned round = 0; round < 100000; round++) {
                char text[128];
                size_t size = 0;
                bool good;

                for (size_t n = random_below(&r, 12); n > 0; n--) {
                        const char *part = parts[random_below(&r, ARRAY_SIZE(parts))];

                        memcpy(text + size, part, strlen(part));
                        size += strlen(part);
                }
                if (size > 0 && random_once_in(&r, 2))
                        text[random_below(&r, size)] = (char)random_next(&r);
                if (size > 0 && random_once_in(&r, 4))
                        size -= random_below(&r, size);
                good = slow_utf8((unsigned char *)text, size);
                n_good += good;
                ck_assert_msg(is_utf8(text, size) == good, "round %u", round);
        }
        ck_assert_uint_gt(n_good, 30000);
        ck_assert_uint_lt(n_good, 90000);
}
END_TEST

/* ---- messages ----------------------------------------------------------------------------------------- */

/* As by the daemon, which has room for so much of a long message at a time, and may move it in between. */
static int parse_in_pieces(const char *data, size_t size, size_t piece, struct json_object **ret) {
        struct message_parser parser;
        int r = message_parser_open(&parser, data, size);

        for (size_t pieces = 0; r == 0; pieces++) {
                char *copy = malloc(size ? size : 1);

                ck_assert_ptr_nonnull(copy);
                memcpy(copy, data, size);
                ck_assert_uint_le(pieces, size);
                r = message_parser_go_on(&parser, copy, piece, ret);
                free(copy);
        }
        message_parser_close(&parser);
        return r == 1 ? 0 : r;
}

/* Whole, and the same in pieces. */
static int parse_bytes(const char *data, size_t size, struct json_object **ret) {
        static const size_t sizes[] = { 1, 2, 7, 64, 2048 };
        char *copy = malloc(size ? size : 1);
        int r;

        ck_assert_ptr_nonnull(copy);
        memcpy(copy, data, size);
        r = message_parse(copy, size, ret);
        free(copy);
        for (size_t i = 0; i < ARRAY_SIZE(sizes) && size / sizes[i] < 1000; i++) {
                struct json_object *again = NULL;

                ck_assert_int_eq(parse_in_pieces(data, size, sizes[i], &again), r);
                ck_assert(r < 0 || json_object_equal(again, *ret));
                json_object_put(again);
        }
        return r;
}

static struct json_object *parse(const char *text) {
        struct json_object *json = NULL;

        ck_assert_msg(parse_bytes(text, strlen(text), &json) == 0, "refused: %s", text);
        ck_assert(json_object_is_type(json, json_type_object));
        return json;
}

static bool is_refused(const char *text) {
        struct json_object *json = NULL;
        int r = parse_bytes(text, strlen(text), &json);

        ck_assert(r == 0 || r == -EBADMSG);
        ck_assert(r == 0 || !json);
        json_object_put(json);
        return r < 0;
}

static void assert_refused(const char *text) {
        ck_assert_msg(is_refused(text), "taken: %s", text);
}

/* Names all that are taken. */
static void assert_all_refused(const char *const *list, size_t n) {
        struct buffer taken = BUFFER_INIT;

        for (size_t i = 0; i < n; i++)
                if (!is_refused(list[i])) {
                        buffer_put_literal(&taken, "  ");
                        buffer_put_string(&taken, list[i]);
                }
        buffer_put(&taken, "", 1);
        ck_assert_msg(taken.size == 1, "taken:%s", taken.data);
        buffer_free(&taken);
}

START_TEST(messages_taken) {
        static const char *const good[] = {
                "{}", " {} ", "\t\r\n{\n}\n\r\t ", "{\"method\":\"a.b.C\",\"parameters\":{\"x\":[1,-2,3.5,1e3,true,false,null,\"\"]}}",
                "{\"a\":\"\\u0041\\u00e9\\ud83d\\ude00\"}", "{\"\\u0061\":1}", "{\"a\":\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"}",
                "{\"a\":\"\\\\u0000\"}", "{\"a\":\"\\\\\\\\u0000\"}", "{\"a\":\"\\\\ud800\"}", "{\"\xc3\xa9\":\"\xf0\x9f\x98\x80\"}",
                "{\"a\":9223372036854775807}", "{\"a\":-9223372036854775808}", "{\"a\":{},\"b\":[]}", "{\"\":\"\"}",
        };

        for (size_t i = 0; i < ARRAY_SIZE(good); i++)
                json_object_put(parse(good[i]));
}
END_TEST

START_TEST(messages_refused) {
        static const char *const bad[] = {
                "", " ", "{", "}", "{}}", "{}{}", "{} {}", "{}x", "{},", "[]", "[{}]", "null", "true", "1", "\"a\"", "x", "{]",
                "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{,}", "{\"a\":1 \"b\":2}", "{\"a\":[1,]}", "{\"a\":[,]}", "{\"a\":[1 2]}",
                "{a:1}", "{'a':1}", "{\"a\":'b'}", "{\"a\":\"b}", "{\"a\":\"\\", "{\"a\":\"\\x\"}", "{\"a\":\"\\u12\"}",
                "{\"a\":\"\\u123g\"}", "{\"a\":tru}", "{\"a\":True}", "{\"a\":nul}", "{\"a\":+1}", "{\"a\":1.}", "{\"a\":.5}",
                "{\"a\":0x10}", "{\"a\":1e}", "{\"a\":--1}", "{\"a\":-}", "{\"a\":01}", "{} /* c */", "/* c */{}", "{}// c",
                "{\"a\":1/**/}", "\xef\xbb\xbf{}", "{\"a\":\"\xc0\x80\"}", "{\"a\":\"\xed\xa0\x80\"}", "{\"\xff\":1}",
                "{\"a\":\"\xf4\x90\x80\x80\"}", "{}\xff", "{}\v", "{}\f", "\xa0{}",
        };

        assert_all_refused(bad, ARRAY_SIZE(bad));
}
END_TEST

/* Not JSON either (RFC 8259). */
START_TEST(messages_refused_numbers) {
        static const char *const bad[] = {
                "{\"a\":[12-3]}", "{\"a\":-1-2}", "{\"a\":[0-9]}", "{\"a\":1-2-3}", /* which json-c takes in pieces */
                "{\"a\":NaN}", "{\"a\":Infinity}", "{\"a\":-Infinity}", "{\"a\":00}", "{\"a\":-01}", "{\"a\":-00}", "{\"a\":01.5}",
                "{\"a\":00.5}", "{\"a\":1.e5}", "{\"a\":-.5}",
        };

        assert_all_refused(bad, ARRAY_SIZE(bad));
}
END_TEST

/* "All code points may be placed within the quotation marks except ... control characters". */
START_TEST(messages_refused_control_characters) {
        unsigned n_taken = 0;

        for (char c = 1; c < 0x20; c++) {
                char text[32];

                (void)snprintf(text, sizeof(text), "{\"a\":\"b%cc\"}", c);
                n_taken += !is_refused(text);
                (void)snprintf(text, sizeof(text), "{\"a%c\":1}", c);
                n_taken += !is_refused(text);
        }
        ck_assert_msg(n_taken == 0, "%u of 62 were taken", n_taken);
}
END_TEST

/* At which json-c would cut a key, or put something else in its place. */
START_TEST(messages_refused_escapes) {
        static const char *const bad[] = {
                "\\u0000", "a\\u0000", "\\u0000a", "\\\\\\u0000", "\\ud800", "\\udbff", "\\udc00", "\\udfff", "\\uD83D", "\\ude00\\ud83d",
                "\\ud83dx", "\\ud83d\\n", "\\ud83d\\u0041", "\\ud83d\\ud83d", "\\ud83d\\u0000", "\\ud83d\\ud83d\\ude00",
                "\\ud83d\\ude00\\ude00", "\\u0041\\u0000", "\\ud83d\\\\ude00",
        };
        char text[128];

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                (void)snprintf(text, sizeof(text), "{\"a\":\"%s\"}", bad[i]);
                assert_refused(text);
                (void)snprintf(text, sizeof(text), "{\"%s\":1}", bad[i]);
                assert_refused(text);
                (void)snprintf(text, sizeof(text), "{\"a\":[{\"b\":\"c%s\"}]}", bad[i]);
                assert_refused(text);
        }
}
END_TEST

/* Every message, cut anywhere, and with a NUL anywhere. */
START_TEST(messages_cut) {
        static const char text[] = "{\"method\":\"a.b\",\"p\":{\"x\":[1,-2.5,true,null,\"\\ud83d\\ude00\xc3\xa9\\\"\"]}}";

        for (size_t size = 0; size < sizeof(text) - 1; size++) {
                struct json_object *json = NULL;
                char copy[sizeof(text)];

                ck_assert_int_eq(parse_bytes(text, size, &json), -EBADMSG);
                memcpy(copy, text, sizeof(copy));
                copy[size] = 0;
                ck_assert_int_eq(parse_bytes(copy, sizeof(copy) - 1, &json), -EBADMSG);
        }
        json_object_put(parse(text));
        ck_assert_int_eq(parse_bytes(text, sizeof(text), &(struct json_object *){ NULL }), -EBADMSG);
}
END_TEST

static void nested(char *text, unsigned depth, const char *open, const char *close) {
        text[0] = 0;
        strcat(text, "{\"a\":");
        for (unsigned i = 1; i < depth; i++)
                strcat(text, open);
        strcat(text, "1");
        for (unsigned i = 1; i < depth; i++)
                strcat(text, close);
        strcat(text, "}");
}

START_TEST(messages_depth) {
        static const char *const kinds[][2] = { { "[", "]" }, { "{\"b\":", "}" } };
        char text[4096];

        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                for (unsigned depth = 1; depth < MESSAGE_DEPTH_MAX; depth++) {
                        nested(text, depth, kinds[i][0], kinds[i][1]);
                        json_object_put(parse(text));
                }
                for (unsigned depth = MESSAGE_DEPTH_MAX + 1; depth < 200; depth++) {
                        nested(text, depth, kinds[i][0], kinds[i][1]);
                        assert_refused(text);
                }
        }
}
END_TEST

/* Nothing may crash, and what is taken is an object. */
START_TEST(messages_random) {
        static const char bytes[] = "{}[]\",:\\u0d8c1-.eE tfn \x80\xc3\xff/*'";
        static const char good[] = "{\"a\":{\"b\":[1,2.5,\"x\\u00e9\",null],\"c\":true},\"\\ud83d\\ude00\":\"\\\\\"}";
        struct random r = { 43 };
        size_t n_taken = 0;

        for (unsigned round = 0; round < 100000; round++) {
                char text[128];
                size_t size = sizeof(good) - 1;
                struct json_object *json = NULL;
                int e;

                memcpy(text, good, size);
                for (size_t n = random_below(&r, 4); n > 0; n--)
                        text[random_below(&r, size)] = bytes[random_below(&r, sizeof(bytes) - 1)];
                e = parse_bytes(text, size, &json);
                ck_assert(e == 0 || e == -EBADMSG);
                ck_assert(e != 0 || json_object_is_type(json, json_type_object));
                n_taken += e == 0;
                json_object_put(json);
        }
        ck_assert_uint_gt(n_taken, 10000);
}
END_TEST

/* ---- fields ------------------------------------------------------------------------------------------- */

struct target {
        int64_t number, other;
        bool yes;
        const char *text;
        struct json_object *list, *object, *array;
};

static const struct field target_fields[] = {
        { "number", FIELD_INT, offsetof(struct target, number), false },
        { "other", FIELD_INT, offsetof(struct target, other), true },
        { "yes", FIELD_BOOL, offsetof(struct target, yes), false },
        { "text", FIELD_STRING, offsetof(struct target, text), false },
        { "list", FIELD_STRINGS, offsetof(struct target, list), false },
        { "object", FIELD_OBJECT, offsetof(struct target, object), false },
        { "array", FIELD_ARRAY, offsetof(struct target, array), false },
};

/* NULL: taken. */
static void assert_fields(const char *text, const char *wrong) {
        struct json_object *json = parse(text);
        struct target target = { .number = 77 };
        struct buffer where = BUFFER_INIT;
        int r = fields_read(json, target_fields, ARRAY_SIZE(target_fields), &target, &where);

        ck_assert_msg(r == (wrong ? -EINVAL : 0), "%s gave %d", text, r);
        if (wrong) {
                ck_assert_msg(where.size > 0, "nothing is named: %s", text);
                ck_assert_str_eq(where.data, wrong);
                ck_assert_uint_eq(where.size, strlen(wrong));
        } else
                ck_assert_uint_eq(where.size, 0);
        buffer_free(&where);
        json_object_put(json);
}

START_TEST(fields_values) {
        struct json_object *json = parse("{\"number\":-5,\"other\":9223372036854775807,\"yes\":true,\"text\":\"t\",\"list\":[\"a\"],"
                                         "\"object\":{},\"array\":[1]}");
        struct target target = { 0 };

        ck_assert_int_eq(fields_read(json, target_fields, ARRAY_SIZE(target_fields), &target, NULL), 0);
        ck_assert_int_eq(target.number, -5);
        ck_assert_int_eq(target.other, INT64_MAX);
        ck_assert(target.yes);
        ck_assert_str_eq(target.text, "t");
        ck_assert_uint_eq(json_object_array_length(target.list), 1);
        ck_assert(json_object_is_type(target.object, json_type_object));
        ck_assert_uint_eq(json_object_array_length(target.array), 1);
        json_object_put(json);

        /* What is absent or null stays as it was. */
        json = parse("{\"other\":0,\"number\":null,\"text\":null,\"list\":null}");
        target = (struct target){ .number = 77, .text = "before" };
        ck_assert_int_eq(fields_read(json, target_fields, ARRAY_SIZE(target_fields), &target, NULL), 0);
        ck_assert_int_eq(target.number, 77);
        ck_assert_str_eq(target.text, "before");
        ck_assert_ptr_null(target.list);
        json_object_put(json);
}
END_TEST

START_TEST(fields_wrong) {
        static const struct {
                const char *member, *value;
        } wrong[] = {
                { "number", "\"1\"" }, { "number", "1.0" }, { "number", "1e3" }, { "number", "true" }, { "number", "[]" },
                { "number", "{}" }, { "number", "0.5" },
                { "number", "9223372036854775808" }, { "number", "18446744073709551615" }, { "number", "18446744073709551616" },
                { "number", "99999999999999999999999999" }, { "number", "-9223372036854775809" },
                { "number", "-99999999999999999999999999" },
                { "yes", "1" }, { "yes", "\"true\"" }, { "yes", "[]" },
                { "text", "1" }, { "text", "true" }, { "text", "[\"a\"]" }, { "text", "{}" },
                { "list", "\"a\"" }, { "list", "[1]" }, { "list", "[\"a\",null]" }, { "list", "[[\"a\"]]" }, { "list", "{}" },
                { "object", "[]" }, { "object", "\"\"" }, { "array", "{}" }, { "array", "1" },
                { "unknown", "1" }, { "unknown", "null" }, { "Number", "1" }, { "numbe", "1" }, { "", "1" },
        };
        char text[256];

        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                (void)snprintf(text, sizeof(text), "{\"other\":1,\"%s\":%s}", wrong[i].member, wrong[i].value);
                if (wrong[i].member[0])
                        assert_fields(text, wrong[i].member);
                (void)snprintf(text, sizeof(text), "{\"%s\":%s,\"other\":1%s}", wrong[i].member, wrong[i].value,
                               strcmp(wrong[i].member, "text") != 0 ? ",\"text\":\"x\"" : "");
                if (wrong[i].member[0])
                        assert_fields(text, wrong[i].member);
        }
        assert_fields("{}", "other");
        assert_fields("{\"other\":null}", "other");
        assert_fields("{\"number\":1}", "other");
        assert_fields("{\"other\":\"x\"}", "other");
        assert_fields("{\"other\":-9223372036854775807}", NULL);
        assert_fields("{\"other\":0}", NULL);
        assert_fields("{\"other\":-0}", NULL);
}
END_TEST

START_TEST(fields_unknown_to_a_client) {
        struct json_object *json = parse("{\"other\":1,\"newer\":{\"x\":1},\"text\":1}");
        struct target target = { 0 };

        ck_assert_int_eq(fields_read(json, target_fields, ARRAY_SIZE(target_fields), &target, NULL), -EINVAL);
        json_object_object_del(json, "text");
        ck_assert_int_eq(fields_read(json, target_fields, ARRAY_SIZE(target_fields), &target, NULL), 0);
        ck_assert_int_eq(target.other, 1);
        json_object_put(json);
}
END_TEST

START_TEST(where_is_built) {
        struct buffer where = BUFFER_INIT;

        where_put_name(&where, "add");
        ck_assert_str_eq(where.data, "add");
        where_put_index(&where, 12);
        ck_assert_str_eq(where.data, "add[12]");
        where_put_name(&where, "tree");
        where_put_name(&where, "depth");
        ck_assert_str_eq(where.data, "add[12].tree.depth");
        ck_assert_uint_eq(where.size, strlen(where.data));
        buffer_free(&where);
}
END_TEST

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

/* ---- events ------------------------------------------------------------------------------------------- */

/* What a text that comes from the kernel looks like in JSON. */
static const char *shown(const char *text) {
        static char out[256];

        if (utf8_is_valid(text, strlen(text)))
                return text;
        (void)snprintf(out, sizeof(out), "%s", text);
        for (char *p = out; *p; p++)
                if (*p < 0x20 || *p > 0x7e || *p == '"' || *p == '\\')
                        *p = '?';
        return out;
}

static void assert_same_text(const char *a, const char *b, const char *what) {
        ck_assert_msg(!a == !b && (!a || strcmp(shown(a), b) == 0), "%s: %s instead of %s", what, b, a);
}

static void assert_same_path(struct event_path a, struct event_path b) {
        ck_assert_int_eq(!a.bytes, !b.bytes);
        ck_assert_uint_eq(a.size, b.size);
        if (!a.bytes)
                return;
        ck_assert_mem_eq(a.bytes, b.bytes, a.size);
        ck_assert_int_eq(b.bytes[b.size], 0);
}

static void assert_same_process(const struct event_process *a, const struct event_process *b) {
        ck_assert_int_eq(!a, !b);
        if (!a)
                return;
        ck_assert_int_eq(a->pid, b->pid);
        ck_assert_int_eq(a->parent, b->parent);
        ck_assert_int_eq(a->uid, b->uid);
        ck_assert_int_eq(a->exit_code, b->exit_code);
        ck_assert_int_eq(a->signal, b->signal);
        ck_assert_int_eq(a->cpu_usec, b->cpu_usec);
        ck_assert_int_eq(a->peak_bytes, b->peak_bytes);
        if (a->signal != ABSENT)
                ck_assert_int_eq(a->core_dumped, b->core_dumped);
        assert_same_text(a->comm, b->comm, "comm");
        assert_same_text(a->exe, b->exe, "exe");
        assert_same_text(a->cgroup, b->cgroup, "cgroup");
}

static void assert_same_link(const struct event_link *a, const struct event_link *b) {
        ck_assert_int_eq(!a, !b);
        if (!a)
                return;
        ck_assert_int_eq(a->index, b->index);
        assert_same_text(a->name, b->name, "name");
        assert_same_text(a->old_name, b->old_name, "oldName");
        assert_same_text(a->oper_state, b->oper_state, "operState");
        assert_same_text(a->address, b->address, "address");
        ck_assert_int_eq(a->up, b->up);
        ck_assert_int_eq(a->carrier, b->carrier);
        ck_assert_int_eq(a->mtu, b->mtu);
        ck_assert_int_eq(a->flaps, b->flaps);
        ck_assert_int_eq(!a->addresses, !b->addresses);
        for (size_t i = 0; a->addresses; i++) {
                ck_assert_int_eq(!a->addresses[i], !b->addresses[i]);
                if (!a->addresses[i])
                        break;
                ck_assert_str_eq(a->addresses[i], b->addresses[i]);
        }
}

static void assert_same_event(const struct event *a, const struct event *b) {
        ck_assert_int_eq((int)a->filter, (int)b->filter);
        ck_assert_int_eq((int)a->kind, (int)b->kind);
        ck_assert_uint_eq(a->flags, b->flags);
        ck_assert_uint_eq(a->notes, b->notes);
        ck_assert_uint_eq(a->count, b->count);
        ck_assert_uint_eq(a->realtime_usec, b->realtime_usec);
        ck_assert_int_eq(a->data, b->data);
        assert_same_path(a->path, b->path);
        assert_same_path(a->from_path, b->from_path);
        assert_same_process(a->process, b->process);
        assert_same_link(a->link, b->link);
}

/* Texts end at the end of a block of their own, and are freed before what was made of
 * them is looked at. */
static char *texts[32];
static size_t n_texts;

static char *random_text(struct random *r, bool bytes) {
        static const char *const words[] = { "", "a", "/", "\"", "\\", "\n", "\x01", "\x7f", "\xc3\xa9", "\xf0\x9f\x98\x80", "abcdefgh",
                                             "\xe2\x80\xa8", "</script>" };
        char text[256] = "";

        for (size_t n = random_below(r, 8); n > 0; n--)
                strcat(text, words[random_below(r, ARRAY_SIZE(words))]);
        if (bytes)
                for (size_t n = random_below(r, 6), at = strlen(text); n > 0; n--) {
                        text[at++] = (char)(1 + random_below(r, 255));
                        text[at] = 0;
                }
        ck_assert_uint_lt(n_texts, ARRAY_SIZE(texts));
        texts[n_texts] = strdup(text);
        ck_assert_ptr_nonnull(texts[n_texts]);
        return texts[n_texts++];
}

static void free_texts(void) {
        while (n_texts > 0)
                free(texts[--n_texts]);
}

static char *maybe_text(struct random *r) {
        return random_once_in(r, 3) ? NULL : random_text(r, random_once_in(r, 2));
}

static int64_t random_number(struct random *r) {
        int64_t n = (int64_t)random_next(r) >> random_below(r, 64);

        return n == ABSENT ? 0 : n;
}

static int64_t maybe_number(struct random *r) {
        return random_once_in(r, 3) ? ABSENT : random_number(r);
}

static struct event_path random_path(struct random *r) {
        char *text = random_text(r, random_once_in(r, 2));

        return random_once_in(r, 4) ? (struct event_path){ 0 } : (struct event_path){ text, strlen(text) };
}

struct parts {
        struct event event;
        struct event_process process;
        struct event_link link;
        const char *addresses[4];
};

static void random_event(struct random *r, struct parts *p) {
        *p = (struct parts){
                .event = {
                        .filter = (enum kev_filter)random_below(r, FILTER_COUNT),
                        .kind = (enum kev_kind)random_below(r, KIND_COUNT),
                        .flags = (uint32_t)random_below(r, 1u << FLAG_COUNT),
                        .notes = random_next(r) & random_next(r) & ((UINT64_C(1) << NOTE_COUNT) - 1),
                        .count = random_next(r) >> (1 + random_below(r, 63)),
                        .realtime_usec = random_next(r) >> (1 + random_below(r, 63)),
                        .data = maybe_number(r),
                        .path = random_path(r),
                        .from_path = random_path(r),
                },
                .process = {
                        .pid = random_number(r), .parent = maybe_number(r), .uid = maybe_number(r),
                        .exit_code = maybe_number(r), .signal = maybe_number(r), .core_dumped = random_once_in(r, 2),
                        .cpu_usec = maybe_number(r), .peak_bytes = maybe_number(r),
                        .comm = maybe_text(r), .exe = maybe_text(r), .cgroup = maybe_text(r),
                },
                .link = {
                        .index = (int)random_below(r, INT32_MAX), .name = random_text(r, true), .old_name = maybe_text(r),
                        .oper_state = random_text(r, false), .address = maybe_text(r), .up = random_once_in(r, 2),
                        .carrier = random_once_in(r, 2), .mtu = maybe_number(r), .flaps = maybe_number(r),
                        .new_namespace = maybe_number(r), .new_index = maybe_number(r),
                },
        };
        for (size_t n = random_below(r, 4), i = 0; i < n; i++)
                p->addresses[i] = random_text(r, false);
        if (!random_once_in(r, 3))
                p->link.addresses = p->addresses;
        if (random_once_in(r, 2))
                p->event.process = &p->process;
        if (random_once_in(r, 2))
                p->event.link = &p->link;
}

/* Through JSON and back. */
static struct event *round_trip(const struct event *event, int64_t id, uint64_t seq) {
        struct buffer b = BUFFER_INIT;
        struct json_object *json = NULL;
        struct event *read = NULL;

        event_put(&b, event, id, seq);
        ck_assert_int_eq(b.error, 0);
        ck_assert_uint_le(b.size, event->json_size + EVENT_HEAD_MAX);
        ck_assert_int_eq(message_parse(b.data, b.size, &json), 0);
        ck_assert_int_eq(event_from_json(json, &read), 0);
        json_object_put(json);
        ck_assert_int_eq(read->id, id);
        ck_assert_uint_eq(read->seq, seq);
        ck_assert_uint_eq(strlen(read->json), read->json_size);
        buffer_free(&b);
        return read;
}

START_TEST(events_round_trip) {
        for (uint64_t round = 0; round < (uint64_t)harness_rounds(20000); round++) {
                struct random r = { round };
                struct event *event, *read;
                struct parts p;
                int64_t id = (int64_t)(random_next(&r) >> (1 + random_below(&r, 63)));

                random_event(&r, &p);
                ck_assert_int_eq(event_new(&p.event, &event), 0);
                ck_assert_uint_eq(event->refs, 1);
                ck_assert_uint_gt(event->allocated, sizeof(*event) + event->json_size);
                read = round_trip(event, id, 1 + (random_next(&r) >> 1) % INT64_MAX);
                assert_same_event(&p.event, read);
                /* The copy holds nothing of its template. */
                free_texts();
                memset(&p, 0xa5, sizeof(p));
                assert_same_event(event, read);
                ck_assert_ptr_eq(event_ref(event), event);
                ck_assert_ptr_null(event_unref(event));
                ck_assert_ptr_null(event_unref(event));
                ck_assert_ptr_null(event_unref(read));
        }
        ck_assert_ptr_null(event_unref(NULL));
}
END_TEST

START_TEST(events_text) {
        struct event_link link = { .index = 2, .name = "eth0", .oper_state = "up", .up = true, .mtu = ABSENT, .flaps = ABSENT, .new_namespace = ABSENT, .new_index = ABSENT };
        struct event_process process = { .pid = 5, .parent = ABSENT, .uid = 0, .exit_code = 3, .signal = ABSENT,
                                         .cpu_usec = ABSENT, .peak_bytes = ABSENT };
        struct event event = { .filter = KEV_FILTER_TREE, .kind = KEV_KIND_FILE, .notes = KEV_NOTE_CREATE | KEV_NOTE_WRITE,
                               .flags = KEV_FLAG_EOF, .count = 2, .realtime_usec = 17, .data = ABSENT,
                               .path = { "/a\n\"", 4 }, .from_path = { "/\xff", 2 }, .process = &process, .link = &link },
                     *made;
        struct buffer b = BUFFER_INIT;

        ck_assert_int_eq(event_new(&event, &made), 0);
        event_put(&b, made, 7, 9);
        buffer_put(&b, "", 1);
        ck_assert_str_eq(b.data,
                         "{\"id\":7,\"seq\":9,\"filter\":\"tree\",\"notes\":[\"write\",\"create\"],\"flags\":[\"eof\"],\"count\":2,"
                         "\"realtimeUsec\":17,\"path\":\"/a\\n\\\"\",\"fromPathBytes\":\"L/8=\",\"kind\":\"file\","
                         "\"process\":{\"pid\":5,\"uid\":0,\"exitCode\":3},"
                         "\"link\":{\"index\":2,\"name\":\"eth0\",\"up\":true,\"carrier\":false,\"operState\":\"up\"}}");
        buffer_free(&b);
        event_unref(made);
}
END_TEST

START_TEST(events_are_merged) {
        struct random r = { 47 };

        for (unsigned round = 0; round < 2000; round++) {
                struct event *first, *second, *merged;
                struct parts p, q;

                random_event(&r, &p);
                p.event.count >>= 1;
                ck_assert_int_eq(event_new(&p.event, &first), 0);
                free_texts();
                random_event(&r, &q);
                q.event.count >>= 1;
                ck_assert_int_eq(event_new(&q.event, &second), 0);
                free_texts();
                ck_assert_int_eq(event_merge(first, second, &merged), 0);
                ck_assert_uint_eq(merged->count, first->count + second->count);
                ck_assert_uint_eq(merged->notes, first->notes | second->notes);
                ck_assert_uint_eq(merged->realtime_usec, first->realtime_usec);
                if (second->filter == KEV_FILTER_TIMER && first->data != ABSENT && second->data != ABSENT)
                        ck_assert(merged->data == INT64_MAX || merged->data - first->data == second->data);
                else
                        ck_assert_int_eq(merged->data, second->data);
                ck_assert_int_eq((int)merged->kind, (int)second->kind);
                assert_same_path(merged->path, second->path);
                assert_same_path(merged->from_path, second->from_path);
                ck_assert_int_eq(!merged->link, !second->link);
                ck_assert_int_eq(!merged->process, !second->process);
                /* Neither is changed, and the third lives without them. */
                ck_assert_uint_eq(first->refs, 1);
                ck_assert_uint_eq(second->refs, 1);
                event_unref(first);
                event_unref(second);
                second = round_trip(merged, 1, 1);
                assert_same_event(merged, second);
                event_unref(second);
                event_unref(merged);
        }
}
END_TEST

/* However events are merged: those that show one change of the carrier, and the flaps, are all changes. */
START_TEST(events_keep_flaps) {
        static const uint64_t notes[] = { KEV_NOTE_MTU, KEV_NOTE_LINKUP, KEV_NOTE_LINKDOWN,
                                          KEV_NOTE_LINKUP | KEV_NOTE_LINKDOWN };
        struct random r = { 48 };

        for (unsigned round = 0; round < 2000; round++) {
                struct event *merged = NULL;
                int64_t changes = 0, told;
                bool one;

                for (size_t i = 0, n = 1 + random_below(&r, 6); i < n; i++) {
                        size_t kind = random_below(&r, 4);
                        int64_t flaps = random_once_in(&r, 2) ? ABSENT : (int64_t)random_below(&r, 3);
                        struct event_link link = { .index = 2, .name = "eth0", .oper_state = "up", .mtu = ABSENT, .flaps = flaps, .new_namespace = ABSENT, .new_index = ABSENT };
                        struct event template = { .filter = KEV_FILTER_NETDEV, .notes = notes[kind], .count = 1,
                                                  .data = ABSENT, .link = &link },
                                     *first = merged, *second;

                        ck_assert_int_eq(event_new(&template, &second), 0);
                        changes += (kind == 1 || kind == 2) + (flaps != ABSENT ? flaps : 0);
                        if (!first) {
                                merged = second;
                                continue;
                        }
                        ck_assert_int_eq(event_merge(first, second, &merged), 0);
                        ck_assert_int_ne(merged->link->flaps, 0);
                        event_unref(first);
                        event_unref(second);
                }
                one = !(merged->notes & KEV_NOTE_LINKUP) != !(merged->notes & KEV_NOTE_LINKDOWN);
                told = one + (merged->link->flaps != ABSENT ? merged->link->flaps : 0);
                ck_assert_int_eq(told, changes);
                event_unref(merged);
        }
}
END_TEST

#define EVENT_START "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[\"write\"],\"count\":1,\"realtimeUsec\":5"

static int read_event(const char *text) {
        struct json_object *json = parse(text);
        struct event *event = NULL;
        int r = event_from_json(json, &event);

        ck_assert(r == 0 || !event);
        json_object_put(json);
        event_unref(event);
        return r;
}

START_TEST(events_taken) {
        ck_assert_int_eq(read_event(EVENT_START "}"), 0);
        /* A newer daemon's words. */
        ck_assert_int_eq(read_event(EVENT_START ",\"new\":{\"x\":[1]},\"flags\":[\"strange\"],\"kind\":\"door\"}"), 0);
        ck_assert_int_eq(read_event("{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[\"strange\"],\"count\":1,\"realtimeUsec\":5}"), 0);
        ck_assert_int_eq(read_event(EVENT_START ",\"path\":null,\"process\":null,\"link\":null,\"data\":null,\"flags\":null}"), 0);
        ck_assert_int_eq(read_event(EVENT_START ",\"process\":{\"pid\":1,\"new\":1}}"), 0);
}
END_TEST

START_TEST(events_refused) {
        static const char *const bad[] = {
                "{}",
                "{\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1}",
                "{\"id\":1,\"seq\":1,\"filter\":\"door\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":-1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":-1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":-1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":-5}",
                "{\"id\":\"1\",\"seq\":1,\"filter\":\"vnode\",\"notes\":[],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[1],\"count\":1,\"realtimeUsec\":5}",
                "{\"id\":1,\"seq\":1,\"filter\":\"vnode\",\"notes\":[null],\"count\":1,\"realtimeUsec\":5}",
                EVENT_START ",\"data\":1.5}",
                EVENT_START ",\"data\":9223372036854775808}",
                EVENT_START ",\"path\":1}",
                EVENT_START ",\"pathBytes\":\"x\"}",
                EVENT_START ",\"pathBytes\":\"AAAA\"}",
                EVENT_START ",\"fromPathBytes\":\"=\"}",
                EVENT_START ",\"path\":\"/a\",\"fromPathBytes\":\"=\"}",
                EVENT_START ",\"pathBytes\":\"L/8=\",\"fromPathBytes\":\"=\"}",
                EVENT_START ",\"flags\":\"eof\"}",
                EVENT_START ",\"process\":{}}",
                EVENT_START ",\"process\":[]}",
                EVENT_START ",\"process\":{\"pid\":\"1\"}}",
                EVENT_START ",\"link\":{\"name\":\"a\",\"up\":true,\"carrier\":true,\"operState\":\"up\"}}",
                EVENT_START ",\"link\":{\"index\":1,\"up\":true,\"carrier\":true,\"operState\":\"up\"}}",
                EVENT_START ",\"link\":{\"index\":4294967297,\"name\":\"a\",\"up\":true,\"carrier\":true,\"operState\":\"up\"}}",
                EVENT_START ",\"link\":{\"index\":1,\"name\":\"a\",\"up\":true,\"carrier\":true,\"operState\":\"up\",\"addresses\":[1]}}",
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
                ck_assert_msg(read_event(bad[i]) == -EBADMSG, "taken: %s", bad[i]);
}
END_TEST

/* "-EBADMSG if it isn't one." */
START_TEST(events_that_are_no_objects) {
        static const char *const bad[] = { "[]", "[1]", "\"a\"", "1", "1.5", "true", "null" };
        struct json_object *json = json_tokener_parse(bad[_i]);
        struct event *event = NULL;

        harness_label(bad[_i]);
        ck_assert_int_eq(event_from_json(json, &event), -EBADMSG);
        json_object_put(json);
}
END_TEST

/* ---- words -------------------------------------------------------------------------------------------- */

/* The design's table of filters. */
static const struct {
        const char *filter, *notes;
} filter_words[] = {
        { "vnode", "delete write extend attrib link rename revoke open close closewrite read" },
        { "tree", "create delete write closewrite attrib rename replace movedin movedout listed rescan gone back degraded "
                  "who" },
        { "proc", "exit reap fork exec track child trackerr uid comm core lost" },
        { "netdev", "linkup linkdown linkinv add rename address mtu route flags" },
        { "read", "lowat eof" },
        { "write", "lowat eof" },
        { "poll", "in out pri err hup rdhup nval rdnorm rdband wrnorm wrband" },
        { "aio", "complete" },
        { "signal", "" },
        { "timer", "sec msec usec nsec abstime" },
        { "user", "trigger" },
};

START_TEST(words_of_filters) {
        ck_assert_uint_eq(ARRAY_SIZE(filter_words), FILTER_COUNT);
        for (size_t i = 0; i < ARRAY_SIZE(filter_words); i++) {
                char words[256], *rest = words, *word;
                enum kev_filter filter;
                uint64_t notes = 0, note;

                ck_assert_int_eq(kev_filter_from_name(filter_words[i].filter, &filter), 0);
                ck_assert_str_eq(kev_filter_name(filter), filter_words[i].filter);
                (void)snprintf(words, sizeof(words), "%s", filter_words[i].notes);
                while ((word = strsep(&rest, " ")))
                        if (*word) {
                                ck_assert_msg(kev_note_from_name(word, &note) == 0, "%s", word);
                                ck_assert_str_eq(kev_note_name(note), word);
                                notes |= note;
                        }
                ck_assert_msg(kev_filter_notes(filter) == notes, "the notes of %s", filter_words[i].filter);
                ck_assert_uint_eq(kev_filter_default_notes(filter) & ~notes, 0);
        }
}
END_TEST

START_TEST(words_both_ways) {
        enum kev_filter filter = KEV_FILTER_USER;
        enum kev_kind kind;
        uint64_t note;
        uint32_t flag;

        for (unsigned i = 0; i < 64; i++) {
                const char *name = kev_note_name(UINT64_C(1) << i);

                ck_assert_int_eq(name != NULL, i < NOTE_COUNT);
                if (!name)
                        continue;
                ck_assert_int_eq(kev_note_from_name(name, &note), 0);
                ck_assert_msg(note == UINT64_C(1) << i, "%s is there twice", name);
        }
        for (unsigned i = 0; i < 32; i++) {
                const char *name = kev_flag_name(UINT32_C(1) << i);

                ck_assert_int_eq(name != NULL, i < FLAG_COUNT);
                if (!name)
                        continue;
                ck_assert_int_eq(flag_from_name(name, &flag), 0);
                ck_assert_uint_eq(flag, UINT32_C(1) << i);
        }
        for (int i = 1; i < KIND_COUNT; i++) {
                ck_assert_int_eq(kind_from_name(kev_kind_name((enum kev_kind)i), &kind), 0);
                ck_assert_int_eq((int)kind, i);
        }
        ck_assert_ptr_null(kev_kind_name(KEV_KIND_UNKNOWN));
        ck_assert_ptr_null(kev_kind_name((enum kev_kind)KIND_COUNT));
        ck_assert_ptr_null(kev_filter_name((enum kev_filter)FILTER_COUNT));
        ck_assert_ptr_null(kev_filter_name((enum kev_filter)-1));
        ck_assert_ptr_null(kev_note_name(0));
        ck_assert_ptr_null(kev_note_name(3));
        ck_assert_ptr_null(kev_flag_name(0));
        ck_assert_ptr_null(kev_flag_name(6));
        ck_assert_int_eq(kev_note_from_name("", &note), -EINVAL);
        ck_assert_int_eq(kev_note_from_name("Write", &note), -EINVAL);
        ck_assert_int_eq(kev_filter_from_name("", &filter), -EINVAL);
        ck_assert_int_eq(kind_from_name("", &kind), -EINVAL);
        ck_assert_int_eq((int)filter, KEV_FILTER_USER);
}
END_TEST

START_TEST(words_of_errors) {
        static const int errors[] = { ENOENT, ENOTDIR, ELOOP, ESRCH, ENODEV, EACCES, EPERM, EINVAL, EEXIST, EOPNOTSUPP,
                                      ENOSPC, EMFILE, EDQUOT, EXDEV, EBADF, ENOMEM, EIO };

        for (size_t i = 0; i < ARRAY_SIZE(errors); i++)
                ck_assert_int_eq(errno_from_name(errno_name(errors[i])), errors[i]);
        ck_assert_str_eq(errno_name(EDQUOT), "EDQUOT");
        ck_assert_str_eq(errno_name(EOPNOTSUPP), "EOPNOTSUPP");
        ck_assert_str_eq(errno_name(100000), "EIO");
        ck_assert_int_eq(errno_from_name("ENOTHING"), 0);
        ck_assert_int_eq(errno_from_name(""), 0);
}
END_TEST

/* ---- watches ------------------------------------------------------------------------------------------ */

/* Reads a Watch object without its braces. */
static int read_watch(const char *members, struct watch_spec *spec, struct buffer *where) {
        char *text = NULL;
        struct json_object *json;
        int r;

        ck_assert_int_gt(asprintf(&text, "{%s}", members), 0);
        json = parse(text);
        buffer_reset(where);
        where_put_name(where, "add");
        where_put_index(where, 3);
        r = watch_spec_read(json, true, where, spec);
        json_object_put(json);
        free(text);
        return r;
}

/* What the refusal says; "": it is good. */
static const char *check_watch(const char *members, bool modify) {
        static char refusal[sizeof(((struct watch_spec *)0)->refusal)];
        struct buffer where = BUFFER_INIT;
        struct watch_spec spec;

        ck_assert_msg(read_watch(members, &spec, &where) == 0, "%s is wrong in %s", where.data, members);
        buffer_free(&where);
        watch_spec_check(&spec, modify);
        (void)snprintf(refusal, sizeof(refusal), "%s", spec.refusal);
        watch_spec_free(&spec);
        return refusal;
}

#define assert_good(members) ck_assert_msg(*check_watch((members), false) == 0, "%s: %s", (members), check_watch((members), false))

/* The refusal begins with the member's name and a colon. */
static void assert_refusal(const char *members, bool modify, const char *member) {
        const char *refusal = check_watch(members, modify);
        size_t size = strlen(member);

        ck_assert_msg(strncmp(refusal, member, size) == 0 && refusal[size] == ':', "\"%s\" instead of one about %s: %s", refusal,
                      member, members);
}

/* A good watch of each filter, without what it needs, and with that. */
static const struct {
        const char *filter, *needs; /* NULL: nothing */
        const char *missing;        /* the member that is named then */
        const char *may;            /* members that it may have */
} watches[] = {
        { "vnode", "\"path\":\"/a\"", "path", " path descriptor " },
        { "tree", "\"path\":\"/a\"", "path", " path descriptor tree " },
        { "proc", "\"pid\":1", "pid", " pid descriptor match " },
        { "netdev", NULL, NULL, " name " },
        { "read", "\"descriptor\":0", "descriptor", " descriptor data " },
        { "write", "\"descriptor\":0", "descriptor", " descriptor data " },
        { "poll", "\"descriptor\":0", "descriptor", " descriptor " },
        { "aio", "\"descriptor\":0", "descriptor", " descriptor " },
        { "signal", NULL, NULL, " pid data " },
        { "timer", "\"data\":100", "data", " data " },
        { "user", "\"name\":\"n\"", "name", " name " },
};

static const struct {
        const char *name, *json;
} members[] = {
        { "path", "\"path\":\"/b\"" },   { "pid", "\"pid\":2" },   { "descriptor", "\"descriptor\":1" }, { "name", "\"name\":\"m\"" },
        { "data", "\"data\":5" },        { "tree", "\"tree\":{}" }, { "match", "\"match\":{\"comm\":\"x\"}" },
        { "path", "\"pathBytes\":\"L/8=\"" },
};

START_TEST(watches_each_member) {
        ck_assert_uint_eq(ARRAY_SIZE(watches), FILTER_COUNT);
        for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
                char text[256], word[32];

                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\"", watches[i].filter);
                if (watches[i].needs)
                        assert_refusal(text, false, watches[i].missing);
                else
                        assert_good(text);
                for (size_t j = 0; j < ARRAY_SIZE(members); j++) {
                        bool is_needed = watches[i].needs && strncmp(members[j].json, watches[i].needs, 6) == 0, may;

                        (void)snprintf(word, sizeof(word), " %s ", members[j].name);
                        may = strstr(watches[i].may, word) != NULL;
                        /* Beside what is needed, where it is something else. */
                        (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",%s%s%s", watches[i].filter,
                                       is_needed || may || !watches[i].needs ? "" : watches[i].needs,
                                       is_needed || may || !watches[i].needs ? "" : ",", members[j].json);
                        if (!may)
                                assert_refusal(text, false, members[j].name);
                        else if (strstr("tree data", members[j].name) && strcmp(watches[i].filter, "timer") != 0 &&
                                 watches[i].needs)
                                assert_refusal(text, false, watches[i].missing);
                        else
                                assert_good(text);
                }
        }
}
END_TEST

START_TEST(watches_each_note) {
        for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
                enum kev_filter filter;
                char text[256];

                ck_assert_int_eq(kev_filter_from_name(watches[i].filter, &filter), 0);
                for (unsigned bit = 0; bit < NOTE_COUNT; bit++) {
                        const char *note = kev_note_name(UINT64_C(1) << bit);

                        (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",\"notes\":[\"%s\"]%s%s", watches[i].filter, note,
                                       watches[i].needs ? "," : "", watches[i].needs ? watches[i].needs : "");
                        if (kev_filter_notes(filter) & UINT64_C(1) << bit)
                                assert_good(text);
                        else {
                                assert_refusal(text, false, "notes");
                                ck_assert_ptr_nonnull(strstr(check_watch(text, false), note));
                        }
                }
                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",\"notes\":[\"strange\"]%s%s", watches[i].filter,
                               watches[i].needs ? "," : "", watches[i].needs ? watches[i].needs : "");
                assert_refusal(text, false, "notes");
                ck_assert_ptr_nonnull(strstr(check_watch(text, false), "strange"));
        }
}
END_TEST

START_TEST(watches_each_flag) {
        static const struct {
                const char *flag, *filters; /* NULL: all */
        } flags[] = {
                { "oneshot", NULL }, { "dispatch", NULL }, { "disabled", NULL }, { "level", " read write poll aio " }, { "edge", " poll " },
                { "exclusive", " poll " }, { "eof", " " }, { "strange", " " },
        };

        for (size_t i = 0; i < ARRAY_SIZE(watches); i++)
                for (size_t j = 0; j < ARRAY_SIZE(flags); j++) {
                        char text[256], word[32];

                        (void)snprintf(word, sizeof(word), " %s ", watches[i].filter);
                        (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",\"flags\":[\"%s\"]%s%s", watches[i].filter,
                                       flags[j].flag, watches[i].needs ? "," : "", watches[i].needs ? watches[i].needs : "");
                        if (!flags[j].filters || strstr(flags[j].filters, word))
                                assert_good(text);
                        else {
                                assert_refusal(text, false, "flags");
                                ck_assert_ptr_nonnull(strstr(check_watch(text, false), flags[j].flag));
                        }
                }
}
END_TEST

START_TEST(watches_flags_together) {
        static const char *const refused[][2] = {
                { "\"flags\":[\"edge\",\"level\"]", "flags" },
                { "\"flags\":[\"exclusive\",\"oneshot\"]", "flags" },
                { "\"flags\":[\"dispatch\",\"exclusive\"]", "flags" },
                { "\"flags\":[\"exclusive\"],\"notes\":[\"in\",\"rdhup\"]", "notes" },
                { "\"flags\":[\"exclusive\"],\"notes\":[\"pri\"]", "notes" },
        };
        static const char *const good[] = {
                "\"flags\":[\"exclusive\"]", "\"flags\":[\"exclusive\",\"level\"],\"notes\":[\"in\",\"out\",\"err\",\"hup\"]",
                "\"flags\":[\"exclusive\",\"edge\",\"disabled\"]", "\"flags\":[\"level\",\"oneshot\"],\"notes\":[\"nval\"]",
        };
        char text[256];

        for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"poll\",\"descriptor\":0,%s", refused[i][0]);
                assert_refusal(text, false, refused[i][1]);
        }
        for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"poll\",\"descriptor\":0,%s", good[i]);
                assert_good(text);
        }
}
END_TEST

#define VNODE "\"id\":1,\"filter\":\"vnode\","
#define TREE "\"id\":1,\"filter\":\"tree\",\"path\":\"/a\","
#define PROC "\"id\":1,\"filter\":\"proc\","
#define USER "\"id\":1,\"filter\":\"user\","
#define TIMER "\"id\":1,\"filter\":\"timer\","

START_TEST(watches_out_of_range) {
        static const struct {
                const char *members, *member; /* NULL: good */
        } cases[] = {
                { "\"id\":0,\"filter\":\"netdev\"", NULL },
                { "\"id\":9223372036854775807,\"filter\":\"netdev\"", NULL },
                { "\"id\":-1,\"filter\":\"netdev\"", "id" },
                { VNODE "\"path\":\"\"", "path" },
                { VNODE "\"path\":\"a\"", "path" },
                { VNODE "\"path\":\"./a\"", "path" },
                { VNODE "\"path\":\"/\"", NULL },
                { VNODE "\"path\":\"/a\",\"pathBytes\":\"L/8=\"", "pathBytes" },
                { VNODE "\"pathBytes\":\"YQ==\"", "path" },
                { VNODE "\"pathBytes\":\"\"", "path" },
                { PROC "\"pid\":0", "pid" },
                { PROC "\"pid\":-1", "pid" },
                { PROC "\"pid\":2147483647", NULL },
                { PROC "\"pid\":2147483648", "pid" },
                { PROC "\"match\":{\"uid\":-1}", "match.uid" },
                { PROC "\"match\":{\"uid\":4294967296}", "match.uid" },
                { PROC "\"match\":{\"uid\":0}", NULL },
                { USER "\"name\":\"\"", "name" },
                { TIMER "\"data\":-1", "data" },
                { TIMER "\"data\":0", NULL },
                { TIMER "\"data\":9223372036854775807", NULL },
                { TIMER "\"data\":1,\"notes\":[\"sec\",\"msec\"]", "notes" },
                { TIMER "\"data\":1,\"notes\":[\"sec\",\"abstime\"]", NULL },
                { TREE "\"tree\":{\"depth\":0}", "tree.depth" },
                { TREE "\"tree\":{\"depth\":-1}", "tree.depth" },
                { TREE "\"tree\":{\"depth\":1}", NULL },
                { TREE "\"tree\":{\"settleMsec\":-1}", "tree.settleMsec" },
                { TREE "\"tree\":{\"settleMsec\":2147483648}", "tree.settleMsec" },
                { TREE "\"tree\":{\"settleMsec\":0}", NULL },
                { TREE "\"tree\":{\"maxLatencyMsec\":-1}", "tree.maxLatencyMsec" },
                { TREE "\"tree\":{\"maxLatencyMsec\":1}", "tree.maxLatencyMsec" },
                { TREE "\"tree\":{\"settleMsec\":0,\"maxLatencyMsec\":1}", "tree.maxLatencyMsec" },
                { TREE "\"tree\":{\"settleMsec\":1,\"maxLatencyMsec\":0}", NULL },
                { TREE "\"tree\":{\"include\":[\"\"]}", "tree.include" },
                { TREE "\"tree\":{\"exclude\":[\"a\",\"\"]}", "tree.exclude" },
                { TREE "\"tree\":{\"include\":[]}", NULL },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                if (cases[i].member)
                        assert_refusal(cases[i].members, false, cases[i].member);
                else
                        assert_good(cases[i].members);
        /* Two ways of saying which process. */
        ck_assert_ptr_nonnull(strstr(check_watch(PROC "\"pid\":1,\"descriptor\":0", false), "pid"));
        ck_assert_ptr_nonnull(strstr(check_watch(PROC "\"pid\":1,\"match\":{}", false), "match"));
        ck_assert_ptr_nonnull(strstr(check_watch(PROC "\"descriptor\":1,\"match\":{}", false), "descriptor"));
}
END_TEST

/* The last that is short enough, and the first that isn't. */
START_TEST(watches_too_long) {
        char *text = malloc(200000), *bytes = malloc(WATCH_PATH_MAX + 2);

        ck_assert_ptr_nonnull(text);
        ck_assert_ptr_nonnull(bytes);
        for (int more = 0; more < 2; more++) {
                size_t n;

                memset(bytes, 'x', WATCH_PATH_MAX + 1);
                bytes[0] = '/';
                bytes[WATCH_PATH_MAX + more] = 0;
                (void)snprintf(text, 200000, VNODE "\"path\":\"%s\"", bytes);
                if (more)
                        assert_refusal(text, false, "path");
                else
                        assert_good(text);
                bytes[WATCH_NAME_MAX + more] = 0;
                (void)snprintf(text, 200000, USER "\"name\":\"%s\"", bytes);
                if (more)
                        assert_refusal(text, false, "name");
                else
                        assert_good(text);
                memset(bytes, 'x', WATCH_GLOB_BYTES_MAX + 1);
                bytes[WATCH_GLOB_BYTES_MAX + more] = 0;
                (void)snprintf(text, 200000, TREE "\"tree\":{\"exclude\":[\"%s\"]}", bytes);
                if (more)
                        assert_refusal(text, false, "tree.exclude");
                else
                        assert_good(text);
                n = (size_t)snprintf(text, 200000, TREE "\"tree\":{\"include\":[\"x\"");
                for (int i = 1; i < WATCH_GLOBS_MAX + more; i++)
                        n += (size_t)snprintf(text + n, 200000 - n, ",\"x\"");
                (void)snprintf(text + n, 200000 - n, "]}");
                if (more)
                        assert_refusal(text, false, "tree.include");
                else
                        assert_good(text);
        }
        free(text);
        free(bytes);
}
END_TEST

/* What a watch is about can't be changed, and need not be said again. */
START_TEST(watches_modify) {
        for (size_t i = 0; i < ARRAY_SIZE(watches); i++) {
                char text[256];

                (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\"", watches[i].filter);
                ck_assert_str_eq(check_watch(text, true), "");
                for (size_t j = 0; j < ARRAY_SIZE(members); j++) {
                        char word[32];

                        (void)snprintf(word, sizeof(word), " %s ", members[j].name);
                        (void)snprintf(text, sizeof(text), "\"id\":1,\"filter\":\"%s\",%s", watches[i].filter, members[j].json);
                        if (strstr(watches[i].may, word) &&
                            strstr(strcmp(watches[i].filter, "poll") == 0 ? "descriptor" : "tree data", members[j].name))
                                ck_assert_str_eq(check_watch(text, true), "");
                        else
                                assert_refusal(text, true, members[j].name);
                }
        }
}
END_TEST

START_TEST(watches_wrong) {
        static const struct {
                const char *members, *where;
        } cases[] = {
                { "\"filter\":\"netdev\"", "add[3].id" },
                { "\"id\":1", "add[3].filter" },
                { "\"id\":1,\"filter\":\"door\"", "add[3].filter" },
                { "\"id\":1,\"filter\":\"\"", "add[3].filter" },
                { "\"id\":1,\"filter\":5", "add[3].filter" },
                { "\"id\":1,\"filter\":null", "add[3].filter" },
                { "\"id\":\"1\",\"filter\":\"netdev\"", "add[3].id" },
                { "\"id\":1.5,\"filter\":\"netdev\"", "add[3].id" },
                { "\"id\":9223372036854775808,\"filter\":\"netdev\"", "add[3].id" },
                { "\"id\":1,\"filter\":\"netdev\",\"strange\":1", "add[3].strange" },
                { "\"id\":1,\"filter\":\"netdev\",\"notes\":\"add\"", "add[3].notes" },
                { "\"id\":1,\"filter\":\"netdev\",\"notes\":[1]", "add[3].notes" },
                { "\"id\":1,\"filter\":\"netdev\",\"flags\":[null]", "add[3].flags" },
                { "\"id\":1,\"filter\":\"netdev\",\"name\":1", "add[3].name" },
                { VNODE "\"path\":1", "add[3].path" },
                { VNODE "\"path\":[]", "add[3].path" },
                { VNODE "\"pathBytes\":\"x\"", "add[3].pathBytes" },
                { VNODE "\"pathBytes\":\"LwAA\"", "add[3].pathBytes" },
                { VNODE "\"pathBytes\":5", "add[3].pathBytes" },
                { VNODE "\"descriptor\":\"0\"", "add[3].descriptor" },
                { PROC "\"pid\":\"1\"", "add[3].pid" },
                { TIMER "\"data\":1.0", "add[3].data" },
                { TREE "\"tree\":[]", "add[3].tree" },
                { TREE "\"tree\":{\"depth\":\"1\"}", "add[3].tree.depth" },
                { TREE "\"tree\":{\"strange\":1}", "add[3].tree.strange" },
                { TREE "\"tree\":{\"include\":\"a\"}", "add[3].tree.include" },
                { TREE "\"tree\":{\"include\":[\"a\"],\"exclude\":[1]}", "add[3].tree.exclude" },
                { TREE "\"tree\":{\"list\":1}", "add[3].tree.list" },
                { TREE "\"tree\":{\"crossMounts\":1}", "add[3].tree.crossMounts" },
                { TREE "\"tree\":{\"excludeSelf\":\"x\"}", "add[3].tree.excludeSelf" },
                { TREE "\"tree\":{},\"match\":{\"uid\":\"1\"}", "add[3].match.uid" },
                { PROC "\"match\":1", "add[3].match" },
                { PROC "\"match\":{\"exe\":1}", "add[3].match.exe" },
                { PROC "\"match\":{\"comm\":[]}", "add[3].match.comm" },
                { PROC "\"match\":{\"cgroup\":true}", "add[3].match.cgroup" },
                { PROC "\"match\":{\"strange\":true}", "add[3].match.strange" },
        };
        struct buffer where = BUFFER_INIT;

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct watch_spec spec;

                ck_assert_msg(read_watch(cases[i].members, &spec, &where) == -EINVAL, "taken: %s", cases[i].members);
                ck_assert_str_eq(where.data, cases[i].where);
        }
        buffer_free(&where);
}
END_TEST

START_TEST(watches_that_are_no_objects) {
        static const char *const bad[] = { "[]", "\"a\"", "1", "null" };
        struct buffer where = BUFFER_INIT;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct json_object *json = json_tokener_parse(bad[i]);
                struct watch_spec spec;

                buffer_reset(&where);
                where_put_name(&where, "add");
                ck_assert_int_eq(watch_spec_read(json, true, &where, &spec), -EINVAL);
                ck_assert_str_eq(where.data, "add");
                json_object_put(json);
        }
        buffer_free(&where);
}
END_TEST

START_TEST(watches_id_may_be_missing) {
        struct json_object *json = parse("{\"filter\":\"netdev\"}");
        struct buffer where = BUFFER_INIT;
        struct watch_spec spec;

        ck_assert_int_eq(watch_spec_read(json, false, &where, &spec), 0);
        ck_assert_int_eq(spec.id, ABSENT);
        ck_assert_int_eq(spec.data, ABSENT);
        ck_assert_int_eq(spec.pid, ABSENT);
        ck_assert_int_eq(spec.descriptor, ABSENT);
        watch_spec_free(&spec);
        json_object_put(json);
        buffer_free(&where);
}
END_TEST

/* ---- watches, written and read ---------------------------------------------------------------------------- */

static char *random_string(struct random *r, size_t most) {
        static const char *const words[] = { "a", "/", "\"", "\\", "*", "\n", "\xc3\xa9", "b", "[!x]" };
        char text[128] = "x";

        for (size_t n = random_below(r, most); n > 0; n--)
                strcat(text, words[random_below(r, ARRAY_SIZE(words))]);
        return strdup(text);
}

static char **random_strings(struct random *r) {
        size_t n = random_below(r, 4);
        char **strings = calloc(n + 1, sizeof(char *));

        ck_assert_ptr_nonnull(strings);
        for (size_t i = 0; i < n; i++)
                strings[i] = random_string(r, 6);
        return strings;
}

static void random_subject(struct random *r, struct watch_spec *s) {
        switch (s->filter) {
        case KEV_FILTER_VNODE:
        case KEV_FILTER_TREE: {
                char *text = random_string(r, 10);

                text[0] = '/';
                if (random_once_in(r, 2) && text[1])
                        text[1] = (char)(0x80 + random_below(r, 0x80));
                s->path = text;
                s->path_size = strlen(text);
                break;
        }
        case KEV_FILTER_PROC:
                if (random_once_in(r, 2)) {
                        s->pid = 1 + (int64_t)random_below(r, INT32_MAX);
                        break;
                }
                s->match.given = true;
                s->match.exe = random_once_in(r, 2) ? random_string(r, 5) : NULL;
                s->match.comm = random_once_in(r, 2) ? random_string(r, 5) : NULL;
                s->match.cgroup = random_once_in(r, 2) ? random_string(r, 5) : NULL;
                s->match.uid = random_once_in(r, 2) ? (int64_t)random_below(r, UINT32_MAX) : ABSENT;
                break;
        case KEV_FILTER_READ:
        case KEV_FILTER_WRITE:
        case KEV_FILTER_POLL:
        case KEV_FILTER_AIO:
                s->descriptor = (int64_t)random_below(r, 250);
                break;
        case KEV_FILTER_TIMER:
                s->data = (int64_t)(random_next(r) >> 1);
                break;
        case KEV_FILTER_USER:
                s->name = random_string(r, 10);
                break;
        case KEV_FILTER_NETDEV:
        case KEV_FILTER_SIGNAL:
                break;
        }
}

static void random_spec(struct random *r, struct watch_spec *s) {
        watch_spec_init(s, (enum kev_filter)random_below(r, FILTER_COUNT));
        s->id = (int64_t)(random_next(r) >> (1 + random_below(r, 63)));
        s->notes = kev_filter_notes(s->filter) & random_next(r);
        if (s->filter == KEV_FILTER_TIMER)
                s->notes &= KEV_NOTE_ABSTIME | KEV_NOTE_USEC;
        s->flags = (uint32_t)random_below(r, 8);
        random_subject(r, s);
        if (s->filter != KEV_FILTER_TREE || random_once_in(r, 3))
                return;
        s->tree.given = true;
        s->tree.include = random_once_in(r, 2) ? random_strings(r) : NULL;
        s->tree.exclude = random_once_in(r, 2) ? random_strings(r) : NULL;
        s->tree.depth = random_once_in(r, 2) ? 1 + (int64_t)random_below(r, 1000) : ABSENT;
        s->tree.settle_msec = random_once_in(r, 2) ? (int64_t)random_below(r, 1000) : ABSENT;
        s->tree.max_latency_msec = s->tree.settle_msec > 0 && random_once_in(r, 2) ? (int64_t)random_below(r, 1000) : ABSENT;
        s->tree.list = random_once_in(r, 2);
        s->tree.cross_mounts = random_once_in(r, 2);
        s->tree.exclude_self = random_once_in(r, 2);
}

static void assert_same_string(const char *a, const char *b) {
        ck_assert_int_eq(!a, !b);
        if (a)
                ck_assert_str_eq(a, b);
}

static void assert_same_strings(char *const *a, char *const *b) {
        ck_assert_int_eq(!a, !b);
        for (; a && *a; a++, b++)
                assert_same_string(*a, *b);
        ck_assert(!a || !*b);
}

static void assert_same_spec(const struct watch_spec *a, const struct watch_spec *b) {
        ck_assert_int_eq((int)a->filter, (int)b->filter);
        ck_assert_int_eq(a->id, b->id);
        ck_assert_uint_eq(a->notes, b->notes);
        ck_assert_uint_eq(a->flags, b->flags);
        assert_same_string(a->path, b->path);
        ck_assert_uint_eq(a->path_size, b->path_size);
        ck_assert_int_eq(a->pid, b->pid);
        ck_assert_int_eq(a->descriptor, b->descriptor);
        ck_assert_int_eq(a->data, b->data);
        assert_same_string(a->name, b->name);
        ck_assert_int_eq(a->tree.given, b->tree.given);
        assert_same_strings(a->tree.include, b->tree.include);
        assert_same_strings(a->tree.exclude, b->tree.exclude);
        ck_assert_int_eq(a->tree.depth, b->tree.depth);
        ck_assert_int_eq(a->tree.settle_msec, b->tree.settle_msec);
        ck_assert_int_eq(a->tree.max_latency_msec, b->tree.max_latency_msec);
        ck_assert_int_eq(a->tree.list, b->tree.list);
        ck_assert_int_eq(a->tree.cross_mounts, b->tree.cross_mounts);
        ck_assert_int_eq(a->tree.exclude_self, b->tree.exclude_self);
        ck_assert_int_eq(a->match.given, b->match.given);
        assert_same_string(a->match.exe, b->match.exe);
        assert_same_string(a->match.comm, b->match.comm);
        assert_same_string(a->match.cgroup, b->match.cgroup);
        ck_assert_int_eq(a->match.uid, b->match.uid);
}

START_TEST(watches_round_trip) {
        struct buffer b = BUFFER_INIT, where = BUFFER_INIT;

        for (uint64_t round = 0; round < 20000; round++) {
                struct random r = { round };
                struct watch_spec spec, read;
                struct json_object *json = NULL;

                random_spec(&r, &spec);
                buffer_reset(&b);
                watch_spec_put(&b, &spec);
                ck_assert_int_eq(message_parse(b.data, b.size, &json), 0);
                buffer_reset(&where);
                ck_assert_msg(watch_spec_read(json, true, &where, &read) == 0, "seed %llu: %s", (unsigned long long)round,
                              where.data);
                json_object_put(json);
                watch_spec_check(&read, false);
                ck_assert_str_eq(read.refusal, "");
                assert_same_spec(&spec, &read);
                watch_spec_free(&spec);
                watch_spec_free(&read);
        }
        buffer_free(&b);
        buffer_free(&where);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("proto");
        TCase *c = harness_case(suite, "utf8");

        tcase_add_test(c, utf8_each_character);
        tcase_add_test(c, utf8_each_edge);
        tcase_add_test(c, utf8_classes);
        tcase_add_test(c, utf8_nul_anywhere);
        tcase_add_test(c, utf8_random);

        c = harness_case(suite, "messages");
        tcase_add_test(c, messages_taken);
        tcase_add_test(c, messages_refused);
        tcase_add_test(c, messages_refused_numbers);
        tcase_add_test(c, messages_refused_control_characters);
        tcase_add_test(c, messages_refused_escapes);
        tcase_add_test(c, messages_cut);
        tcase_add_test(c, messages_depth);
        tcase_add_test(c, messages_random);

        c = harness_case(suite, "fields");
        tcase_add_test(c, fields_values);
        tcase_add_test(c, fields_wrong);
        tcase_add_test(c, fields_unknown_to_a_client);
        tcase_add_test(c, where_is_built);

        c = harness_case(suite, "buffer");
        tcase_add_test(c, buffer_numbers);
        tcase_add_test(c, buffer_random);
        tcase_add_test(c, json_strings);

        c = harness_case(suite, "base64");
        tcase_add_test(c, base64_vectors);
        tcase_add_test(c, base64_random);
        tcase_add_test(c, base64_refused);
        tcase_add_test(c, path_forms);

        c = harness_case(suite, "events");
        tcase_add_test(c, events_round_trip);
        tcase_add_test(c, events_text);
        tcase_add_test(c, events_are_merged);
        tcase_add_test(c, events_keep_flaps);
        tcase_add_test(c, events_taken);
        tcase_add_test(c, events_refused);
        tcase_add_loop_test(c, events_that_are_no_objects, 0, 7);

        c = harness_case(suite, "words");
        tcase_add_test(c, words_of_filters);
        tcase_add_test(c, words_both_ways);
        tcase_add_test(c, words_of_errors);

        c = harness_case(suite, "watches");
        tcase_add_test(c, watches_each_member);
        tcase_add_test(c, watches_each_note);
        tcase_add_test(c, watches_each_flag);
        tcase_add_test(c, watches_flags_together);
        tcase_add_test(c, watches_out_of_range);
        tcase_add_test(c, watches_too_long);
        tcase_add_test(c, watches_modify);
        tcase_add_test(c, watches_wrong);
        tcase_add_test(c, watches_that_are_no_objects);
        tcase_add_test(c, watches_id_may_be_missing);
        tcase_add_test(c, watches_round_trip);
        return harness_main(argc, argv);
}
