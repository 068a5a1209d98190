/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * A message becomes a call of a method: the Varlink part that is the same for
 * all interfaces, and org.varlink.service.
 */

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "config.h"
#include "connection.h"
#include "interfaces.h"

static const struct {
        const char *name;
        const char *text;
} interfaces[] = {
        { "org.varlink.service", interface_service },
        { "org.kevd.events", interface_events },
        { "org.kevd.manager", interface_manager },
};

/* ---- org.varlink.service ------------------------------------------------------------------ */

static void get_info(struct connection *c, struct json_object *parameters) {
        struct buffer *b;

        if (!call_read(c, parameters, NULL, 0, NULL))
                return;
        b = reply_begin(c);
        if (!b)
                return;
        buffer_put_literal(b, "\"vendor\":\"kevd\",\"product\":\"kevd\",\"version\":\"" KEVD_VERSION
                              "\",\"url\":\"https://kevd.org/\",\"interfaces\":[");
        for (size_t i = 0; i < ARRAY_SIZE(interfaces); i++) {
                if (i > 0)
                        buffer_put_literal(b, ",");
                json_put_string(b, interfaces[i].name, strlen(interfaces[i].name));
        }
        buffer_put_literal(b, "]");
        reply_end(c, false);
}

static void get_interface_description(struct connection *c, struct json_object *parameters) {
        static const struct field fields[] = { { "interface", FIELD_STRING, 0, true } };
        const char *name = NULL;
        struct buffer *b;

        if (!call_read(c, parameters, fields, ARRAY_SIZE(fields), &name))
                return;
        for (size_t i = 0; i < ARRAY_SIZE(interfaces); i++) {
                if (strcmp(interfaces[i].name, name) != 0)
                        continue;
                b = reply_begin(c);
                if (!b)
                        return;
                buffer_put_literal(b, "\"description\":");
                json_put_string(b, interfaces[i].text, strlen(interfaces[i].text));
                reply_end(c, false);
                return;
        }
        reply_error(c, "org.varlink.service.InterfaceNotFound", "interface", name);
}

static const struct method methods_service[] = {
        { "org.varlink.service.GetInfo", get_info },
        { "org.varlink.service.GetInterfaceDescription", get_interface_description },
        { NULL, NULL },
};

/* ---- dispatch ------------------------------------------------------------------------------ */

static const struct method *const methods[] = { methods_service, methods_events, methods_manager };

bool call_read(struct connection *c, struct json_object *parameters, const struct field *fields, size_t n_fields,
               void *target) {
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        struct json_object *empty = NULL;
        int r;

        if (!parameters) {
                empty = json_object_new_object();
                if (!empty) {
                        connection_doom(c);
                        return false;
                }
        }
        r = fields_read(parameters ? parameters : empty, fields, n_fields, target, &where);
        json_object_put(empty);
        if (r < 0)
                reply_invalid(c, where.size > 0 ? where.data : "");
        return r == 0;
}

static void not_found(struct connection *c, const char *method) {
        const char *dot = strrchr(method, '.');
        size_t size = dot ? (size_t)(dot - method) : 0;
        char *interface _cleanup_(freep) = strndup(method, size);

        if (!interface) {
                connection_doom(c);
                return;
        }
        if (!dot || size == 0 || !dot[1]) {
                reply_invalid(c, "method");
                return;
        }
        for (size_t i = 0; i < ARRAY_SIZE(interfaces); i++)
                if (strcmp(interfaces[i].name, interface) == 0) {
                        reply_error(c, "org.varlink.service.MethodNotFound", "method", method);
                        return;
                }
        reply_error(c, "org.varlink.service.InterfaceNotFound", "interface", interface);
}

struct header {
        const char *method;
        struct json_object *parameters;
        bool oneway, more, upgrade;
};

static const struct field header_fields[] = {
        { "method", FIELD_STRING, offsetof(struct header, method), true },
        { "parameters", FIELD_OBJECT, offsetof(struct header, parameters), false },
        { "oneway", FIELD_BOOL, offsetof(struct header, oneway), false },
        { "more", FIELD_BOOL, offsetof(struct header, more), false },
        { "upgrade", FIELD_BOOL, offsetof(struct header, upgrade), false },
};

/* Members of other vendors have a dot in their names, and are theirs. */
static void remove_extensions(struct json_object *call) {
        struct lh_table *members = json_object_get_object(call);
        struct lh_entry *member, *next;

        lh_foreach_safe(members, member, next)
                if (strchr((const char *)lh_entry_k(member), '.'))
                        (void)lh_table_delete_entry(members, member);
}

static bool dispatch(struct connection *c, struct json_object *call) {
        struct buffer where _cleanup_(buffer_free) = BUFFER_INIT;
        struct header h = { 0 };
        int r;

        c->oneway = c->more = false;
        remove_extensions(call);
        r = fields_read(call, header_fields, ARRAY_SIZE(header_fields), &h, &where);
        if (r < 0 && (!h.method || where.error))
                return false;
        if (h.oneway && h.more)
                return false;
        c->oneway = h.oneway;
        c->more = h.more;
        if (r < 0 || h.upgrade) {
                reply_invalid(c, r < 0 ? where.data : "upgrade");
                return true;
        }
        for (size_t i = 0; i < ARRAY_SIZE(methods); i++)
                for (const struct method *m = methods[i]; m->name; m++)
                        if (strcmp(m->name, h.method) == 0) {
                                m->fn(c, h.parameters);
                                return true;
                        }
        not_found(c, h.method);
        return true;
}

/* ---- long calls ------------------------------------------------------------------------------ */

enum { PIECE_BYTES = 2048 }; /* are read in a go; a call that is no longer is run in one, too */

void call_unread(struct connection *c) {
        if (c->parser)
                message_parser_close(c->parser);
        free(take_pointer(&c->parser));
}

void call_pass_on(struct connection *c) {
        if (!c->parser && !c->change && !c->discard && c->account->long_call == c)
                server_end_long_call(c->server, c->account);
}

bool call_has_to_wait(const struct connection *c, size_t size) {
        return size > PIECE_BYTES && c->account->long_call && c->account->long_call != c;
}

static int begin_long(struct connection *c, const char *message, size_t size) {
        c->parser = calloc(1, sizeof(*c->parser));
        c->account->long_call = c;
        return c->parser ? message_parser_open(c->parser, message, size) : -ENOMEM;
}

/* As message_parser_go_on(). */
static int read_long(struct connection *c, const char *message, size_t size, struct json_object **ret_call) {
        int r = c->parser ? 0 : begin_long(c, message, size);

        while (r == 0) {
                r = message_parser_go_on(c->parser, message, PIECE_BYTES, ret_call);
                if (r == 0 && !server_has_room(c->server, c->account))
                        return 0;
        }
        call_unread(c);
        return r;
}

static int read_short(const char *message, size_t size, struct json_object **ret_call) {
        int r = message_parse(message, size, ret_call);

        return r < 0 ? r : 1;
}

int call_dispatch(struct connection *c, const char *message, size_t size) {
        struct json_object *call = NULL;
        int r = size <= PIECE_BYTES ? read_short(message, size, &call) : read_long(c, message, size, &call);

        if (r == 0)
                return 0;
        if (r == 1) {
                r = dispatch(c, call) ? 1 : -EBADMSG;
                if (size > PIECE_BYTES && !c->change && !c->discard) /* nobody else has a part of it */
                        c->discard = discard_new(call);
                else
                        json_object_put(call);
        } else if (r == -ENOMEM) {
                connection_doom(c);
                r = 1;
        }
        call_pass_on(c);
        return r;
}

void call_abandon(struct connection *c) {
        wait_cancel(c);
        if (c->change) {
                change_free(c);
                connection_drop_fds(c, c->messages_taken);
        }
        call_pass_on(c);
        list_remove(&c->reload.link);
        buffer_free(&c->refused);
        c->n_starting = 0;
        c->call = CALL_NONE;
        (void)connection_on_settled(c);
}
