/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * proto/message: which messages are taken, and what is read of their members. What is read believes nothing.
 */

#include <json-c/json.h>
#include <stdio.h>

#include "buffer.h"
#include "harness.h"
#include "macro.h"
#include "message.h"
#include "messages.h"
#include "unit.h"

/* ---- messages ----------------------------------------------------------------------------------------- */

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
                for (unsigned depth = MESSAGE_DEPTH_MAX; depth < 200; depth++) {
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
        const size_t rounds = (size_t)harness_rounds(100000);
        size_t n_taken = 0;

        for (size_t round = 0; round < rounds; round++) {
                char text[128];
                size_t size = sizeof(good) - 1;
                struct json_object *json = NULL;
                int e;

                memcpy(text, good, size);
                for (size_t n = random_below(&r, 4); n > 0; n--)
                        text[random_below(&r, size)] = bytes[random_below(&r, sizeof(bytes) - 1)];
                e = parse_bytes(text, size, &json);
                assert_often(e == 0 || e == -EBADMSG, "round %zu: %d", round, e);
                assert_often(e != 0 || json_object_is_type(json, json_type_object), "round %zu: no object", round);
                n_taken += e == 0;
                json_object_put(json);
        }
        ck_assert_uint_gt(n_taken, rounds / 10);
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
                { "unknown", "1" }, { "unknown", "null" }, { "Number", "1" }, { "numbe", "1" },
        };
        char text[256];

        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                (void)snprintf(text, sizeof(text), "{\"other\":1,\"%s\":%s}", wrong[i].member, wrong[i].value);
                assert_fields(text, wrong[i].member);
                (void)snprintf(text, sizeof(text), "{\"%s\":%s,\"other\":1%s}", wrong[i].member, wrong[i].value,
                               strcmp(wrong[i].member, "text") != 0 ? ",\"text\":\"x\"" : "");
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

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("message");
        TCase *c;

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
        return harness_main(argc, argv);
}
