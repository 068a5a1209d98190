/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Varlink messages: JSON objects, each ended by a NUL byte (UAPI.20 "Varlink
 * IPC"). What is read here came from somebody else and is believed in nothing.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json_object;
struct buffer;

enum {
        MESSAGE_BYTES_MAX = 64 * 1024, /* a request, its NUL included */
        MESSAGE_DEPTH_MAX = 16,
        REPLY_BYTES_MAX = 64 * 1024 * 1024, /* what a client takes */
};

/* Well-formed UTF-8 (RFC 3629: no overlong form, no surrogate, nothing past
 * U+10FFFF) without NUL. */
bool utf8_is_valid(const char *data, size_t size);

/*
 * Parses one message, without its NUL: UTF-8 throughout, no \u0000, one JSON
 * object, strict, nothing behind it. -EBADMSG if it isn't that, -ENOMEM.
 */
int message_parse(const char *data, size_t size, struct json_object **ret_object);

struct json_tokener;

/* The same of a message that is long, in pieces. */
struct message_parser {
        struct json_tokener *tokener;
        size_t size, done;
};

/* To be closed also if it fails. -EBADMSG, -ENOMEM. */
int message_parser_open(struct message_parser *parser, const char *data, size_t size);
/* About so many bytes more of the same message, which may have been moved. 1: it is parsed; 0: there is more of it;
 * -EBADMSG. */
int message_parser_go_on(struct message_parser *parser, const char *data, size_t n, struct json_object **ret_object);
void message_parser_close(struct message_parser *parser);

/* ---- fields --------------------------------------------------------------- */

/*
 * Reading an object's members by a table, so that what isn't in the table, or
 * is of another type, is refused with its name.
 */
enum field_type {
        FIELD_INT,     /* int64_t; only true integers */
        FIELD_BOOL,    /* bool */
        FIELD_STRING,  /* const char *, owned by the JSON object */
        FIELD_STRINGS, /* struct json_object *, an array of strings */
        FIELD_OBJECT,  /* struct json_object * */
        FIELD_ARRAY,   /* struct json_object * */
};

struct field {
        const char *name;
        enum field_type type;
        size_t offset;  /* of the member in `target` */
        bool required;  /* null counts as absent */
};

/*
 * Fills `target`, leaving absent and wrong members as they are. -EINVAL: the
 * first member that was wrong is appended to `where` ("add[2].path"). Without `where` (a client,
 * which a newer daemon may tell more than it knows) members that are not in the
 * table are passed over.
 */
int fields_read(struct json_object *object, const struct field *fields, size_t n_fields, void *target,
                struct buffer *where);

/* A true integer of the interface's int. json-c holds integers up to 2^64-1 and clamps what is larger still, so that
 * -2^63 is not told from what lies below it, and is none. */
bool int_read(struct json_object *value, int64_t *ret_value);

/* Appends ".NAME" (without the dot if `where` is empty), "[INDEX]" and a NUL
 * behind them that isn't counted. */
void where_put_name(struct buffer *where, const char *name);
void where_put_index(struct buffer *where, size_t index);
