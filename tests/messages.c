/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "messages.h"

#include <json-c/json.h>
#include <stdlib.h>

#include "harness.h"
#include "macro.h"
#include "message.h"
#include "unit.h"

/* As by the daemon, which has room for so much of a long message at a time, and may move it in between. */
static int parse_in_pieces(const char *data, size_t size, size_t piece, struct json_object **ret) {
        struct message_parser parser;
        int r = message_parser_open(&parser, data, size);

        for (size_t pieces = 0; r == 0; pieces++) {
                char *copy = malloc(size ? size : 1);

                assert_often(copy, "no memory");
                memcpy(copy, data, size);
                assert_often(pieces <= size, "%zu pieces of %zu bytes", pieces, size);
                r = message_parser_go_on(&parser, copy, piece, ret);
                free(copy);
        }
        message_parser_close(&parser);
        return r == 1 ? 0 : r;
}

int parse_bytes(const char *data, size_t size, struct json_object **ret) {
        static const size_t sizes[] = { 1, 2, 7, 64, 2048 };
        char *copy = malloc(size ? size : 1);
        int r;

        assert_often(copy, "no memory");
        memcpy(copy, data, size);
        r = message_parse(copy, size, ret);
        free(copy);
        for (size_t i = 0; i < ARRAY_SIZE(sizes) && size / sizes[i] < 1000; i++) {
                struct json_object *again = NULL;
                int in_pieces = parse_in_pieces(data, size, sizes[i], &again);

                assert_often(in_pieces == r, "%d in pieces of %zu bytes, %d as a whole", in_pieces, sizes[i], r);
                assert_often(r < 0 || json_object_equal(again, *ret), "another one in pieces of %zu bytes", sizes[i]);
                json_object_put(again);
        }
        return r;
}

struct json_object *parse(const char *text) {
        struct json_object *json = NULL;

        ck_assert_msg(parse_bytes(text, strlen(text), &json) == 0, "refused: %s", text);
        ck_assert(json_object_is_type(json, json_type_object));
        return json;
}

size_t encode(uint32_t c, char *out) {
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        static const unsigned first[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

        for (size_t i = n; i > 1; i--, c >>= 6)
                out[i - 1] = (char)(0x80 | (c & 0x3f));
        out[0] = (char)(first[n] | c);
        return n;
}
