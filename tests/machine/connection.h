/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A connection to the daemon without libkev, which would make it anew where it ends: here its end is seen.
 */

#include <json-c/json.h>
#include <stdbool.h>
#include <sys/types.h>

#include "buffer.h"

struct connection {
        int fd; /* -1: there is none */
        struct buffer input;
};

#define CONNECTION_INIT ((struct connection){ .fd = -1 })

/* As that user. False: nobody listens, or there is no room just now. */
bool connection_open(struct connection *connection, const char *socket_path, uid_t uid);
void connection_close(struct connection *connection);

/* The call and its NUL byte. False: the connection has ended. */
bool connection_send(struct connection *connection, const char *call);
/* The next message, which the caller frees with json_object_put(). 0: there is none yet, -1: the connection has ended. */
int connection_receive(struct connection *connection, struct json_object **ret_message);

/* What a JSON pointer points to (RFC 6901), 0 and "" if there is nothing. The text is the object's. */
int64_t number_at(struct json_object *object, const char *pointer);
const char *text_at(struct json_object *object, const char *pointer);
