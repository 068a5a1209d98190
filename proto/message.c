/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "message.h"

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "buffer.h"
#include "macro.h"

bool utf8_is_valid(const char *data, size_t size) {
        const unsigned char *p = (const unsigned char *)data, *end = p + size;

        while (p < end) {
                unsigned char c = *p;
                size_t more;
                unsigned char low = 0x80, high = 0xbf;

                while (end - p >= 8) {
                        uint64_t word;

                        memcpy(&word, p, 8);
                        /* Eight ASCII bytes, none of them NUL. */
                        if (((word | (word - UINT64_C(0x0101010101010101))) & UINT64_C(0x8080808080808080)) != 0)
                                break;
                        p += 8;
                }
                if (p == end)
                        break;
                c = *p++;
                if (c == 0)
                        return false;
                if (c < 0x80)
                        continue;
                if (c >= 0xc2 && c <= 0xdf)
                        more = 1;
                else if (c >= 0xe0 && c <= 0xef) {
                        more = 2;
                        if (c == 0xe0)
                                low = 0xa0;
                        else if (c == 0xed)
                                high = 0x9f;
                } else if (c >= 0xf0 && c <= 0xf4) {
                        more = 3;
                        if (c == 0xf0)
                                low = 0x90;
                        else if (c == 0xf4)
                                high = 0x8f;
                } else
                        return false;
                if ((size_t)(end - p) < more)
                        return false;
                while (more-- > 0) {
                        if (*p < low || *p > high)
                                return false;
                        p++;
                        low = 0x80;
                        high = 0xbf;
                }
        }
        return true;
}

/* The four digits of "\uXXXX" at `p`; -1: that isn't what stands there. */
static int read_escape(const char *p, const char *end) {
        int value = 0;

        if (end - p < 6 || p[0] != '\\' || p[1] != 'u')
                return -1;
        for (size_t i = 2; i < 6; i++) {
                char c = p[i];
                int digit = c >= '0' && c <= '9' ? c - '0' :
                            c >= 'a' && c <= 'f' ? c - 'a' + 10 :
                            c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

                if (digit < 0)
                        return -1;
                value = value << 4 | digit;
        }
        return value;
}

/* What stands behind the escape at `p`; NULL: json-c would not keep it whole, \u0000 at which it cuts keys, or half
 * of a surrogate pair, which it replaces. */
static const char *skip_escape(const char *p, const char *end) {
        int value, low;

        if (end - p < 2)
                return NULL;
        if (p[1] != 'u')
                return p + 2;
        value = read_escape(p, end);
        if (value <= 0 || (value >= 0xdc00 && value <= 0xdfff))
                return NULL;
        if (value < 0xd800 || value > 0xdbff)
                return p + 6;
        low = read_escape(p + 6, end);
        return low >= 0xdc00 && low <= 0xdfff ? p + 12 : NULL;
}

/* What stands behind the string that begins at `p`; NULL: it is none by RFC 8259, section 7. */
static const char *skip_string(const char *p, const char *end) {
        for (p++; p && p < end && *p != '"';)
                if (*p == '\\')
                        p = skip_escape(p, end);
                else
                        p = (unsigned char)*p < 0x20 ? NULL : p + 1;
        return p && p < end ? p + 1 : NULL;
}

static const char *skip_digits(const char *p, const char *end) {
        while (p < end && *p >= '0' && *p <= '9')
                p++;
        return p;
}

/* The same for a number, section 6. */
static const char *skip_number(const char *p, const char *end) {
        const char *first = p + (*p == '-'), *behind = skip_digits(first, end);

        if (behind == first || (*first == '0' && behind > first + 1))
                return NULL;
        if (behind < end && *behind == '.') {
                first = behind + 1;
                behind = skip_digits(first, end);
                if (behind == first)
                        return NULL;
        }
        if (behind == end || (*behind != 'e' && *behind != 'E'))
                return behind;
        first = behind + 1;
        first += first < end && (*first == '+' || *first == '-');
        behind = skip_digits(first, end);
        return behind > first ? behind : NULL;
}

/* What stands behind so many bytes of tokens of JSON, or the first that ends there or later; NULL: they are none, or not
 * written so that json-c keeps them whole: its strict tokener takes more than JSON in strings and numbers. What stands
 * where is left to it. */
static const char *skip_tokens(const char *p, size_t n, const char *end) {
        const char *enough = p + MIN(n, (size_t)(end - p));

        while (p && p < enough)
                if (*p == '"')
                        p = skip_string(p, end);
                else if (*p == '-' || (*p >= '0' && *p <= '9')) {
                        p = skip_number(p, end);
                        if (p && p < end && *p == '-') /* which json-c takes, and drops, where a piece ends between */
                                p = NULL;
                } else
                        p = strchr("\t\n\r ,:[]{}truefalsn", *p) ? p + 1 : NULL;
        return p;
}

int message_parser_open(struct message_parser *parser, const char *data, size_t size) {
        *parser = (struct message_parser){ .size = size };
        if (size > INT32_MAX || !utf8_is_valid(data, size))
                return -EBADMSG;
        parser->tokener = json_tokener_new_ex(MESSAGE_DEPTH_MAX);
        if (!parser->tokener)
                return -ENOMEM;
        json_tokener_set_flags(parser->tokener, JSON_TOKENER_STRICT);
        return 0;
}

void message_parser_close(struct message_parser *parser) {
        if (parser->tokener)
                json_tokener_free(parser->tokener);
        *parser = (struct message_parser){ 0 };
}

int message_parser_go_on(struct message_parser *parser, const char *data, size_t n, struct json_object **ret_object) {
        const char *start = data + parser->done, *end = data + parser->size;
        const char *behind = skip_tokens(start, n, end);
        struct json_object *object;
        enum json_tokener_error error;

        if (!behind)
                return -EBADMSG;
        object = json_tokener_parse_ex(parser->tokener, start, (int)(behind - start));
        error = json_tokener_get_error(parser->tokener);
        if (error == json_tokener_continue && behind < end) {
                parser->done = (size_t)(behind - data);
                return 0;
        }
        behind = start + json_tokener_get_parse_end(parser->tokener);
        while (behind < end && strchr(" \t\r\n", *behind))
                behind++;
        if (error != json_tokener_success || !json_object_is_type(object, json_type_object) || behind < end) {
                json_object_put(object);
                return -EBADMSG;
        }
        *ret_object = object;
        return 1;
}

int message_parse(const char *data, size_t size, struct json_object **ret_object) {
        struct message_parser parser _cleanup_(message_parser_close);
        int r = message_parser_open(&parser, data, size);

        if (r == 0)
                r = message_parser_go_on(&parser, data, size, ret_object);
        return r < 0 ? r : r == 1 ? 0 : -EBADMSG;
}

static void where_end(struct buffer *where) {
        char *p = buffer_reserve(where, 1);

        if (p)
                *p = 0;
}

void where_put_name(struct buffer *where, const char *name) {
        if (where->size > 0)
                buffer_put_literal(where, ".");
        buffer_put_string(where, name);
        where_end(where);
}

void where_put_index(struct buffer *where, size_t index) {
        buffer_put_literal(where, "[");
        buffer_put_u64(where, index);
        buffer_put_literal(where, "]");
        where_end(where);
}

bool int_read(struct json_object *value, int64_t *ret) {
        int64_t v;

        if (!json_object_is_type(value, json_type_int))
                return false;
        v = json_object_get_int64(value);
        if (v == INT64_MIN || (v == INT64_MAX && json_object_get_uint64(value) > (uint64_t)INT64_MAX))
                return false;
        *ret = v;
        return true;
}

static bool read_value(struct json_object *value, enum field_type type, void *target) {
        switch (type) {
        case FIELD_INT:
                return int_read(value, target);
        case FIELD_BOOL:
                if (!json_object_is_type(value, json_type_boolean))
                        return false;
                *(bool *)target = json_object_get_boolean(value);
                return true;
        case FIELD_STRING:
                if (!json_object_is_type(value, json_type_string))
                        return false;
                *(const char **)target = json_object_get_string(value);
                return true;
        case FIELD_STRINGS:
                if (!json_object_is_type(value, json_type_array))
                        return false;
                for (size_t i = 0; i < json_object_array_length(value); i++)
                        if (!json_object_is_type(json_object_array_get_idx(value, i), json_type_string))
                                return false;
                *(struct json_object **)target = value;
                return true;
        case FIELD_OBJECT:
        case FIELD_ARRAY:
                if (!json_object_is_type(value, type == FIELD_OBJECT ? json_type_object : json_type_array))
                        return false;
                *(struct json_object **)target = value;
                return true;
        }
        return false;
}

int fields_read(struct json_object *object, const struct field *fields, size_t n_fields, void *target,
                struct buffer *where) {
        const char *wrong = NULL;
        uint64_t seen = 0;

        if (!json_object_is_type(object, json_type_object))
                return -EINVAL;
        json_object_object_foreach(object, key, value) {
                size_t i = 0;

                while (i < n_fields && strcmp(fields[i].name, key) != 0)
                        i++;
                if (i == n_fields && !where)
                        continue;
                if (i == n_fields || (value && !read_value(value, fields[i].type, (char *)target + fields[i].offset)))
                        wrong = wrong ? wrong : key;
                else if (value)
                        seen |= UINT64_C(1) << i;
        }
        for (size_t i = 0; !wrong && i < n_fields; i++)
                if (fields[i].required && !(seen & UINT64_C(1) << i))
                        wrong = fields[i].name;
        if (wrong && where)
                where_put_name(where, wrong);
        return wrong ? -EINVAL : 0;
}
