/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Calls that have nothing to do with this connection's watches.
 */

#include <errno.h>
#include <json-c/json.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "internal.h"
#include "message.h"

/* Text that goes into a message as it is. */
static int check_text(struct kev *kev, const char *what, const char *text) {
        if (!utf8_is_valid(text, strlen(text)))
                return error_set(kev, -EINVAL, "The %s is not UTF-8", what);
        return 0;
}

_public_ int kev_trigger(struct kev *kev, const char *name, int64_t data) {
        static const struct field fields[] = { { "reached", FIELD_INT, 0, true } };
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;
        struct call call _cleanup_(call_free) = { 0 };
        int64_t reached = 0;
        int r = call_enter(kev);

        if (r == 0)
                r = check_text(kev, "name", name);
        if (r < 0)
                return r;
        buffer_put_literal(&b, "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":");
        json_put_string(&b, name, strlen(name));
        buffer_put_literal(&b, ",\"data\":");
        buffer_put_i64(&b, data);
        buffer_put_literal(&b, "}}\0");
        r = call_run(kev, &call, &b, NULL, 0);
        if (r == 0 && (!call.parameters ||
                       fields_read(call.parameters, fields, ARRAY_SIZE(fields), &reached, NULL) < 0 || reached < 0))
                r = connection_fail(kev, -EPROTO, "kevd answered Trigger with what can't be understood");
        return call_leave(kev, r < 0 ? r : (int)MIN(reached, INT_MAX));
}

/* Wait's reply is awaited by others, a Monitor never ends, and the watches that
 * a Change makes would not be known here. */
static bool is_own_method(const char *method) {
        static const char *const own[] = { "Wait", "Monitor", "Change" };
        static const char prefix[] = "org.kevd.events.";

        if (strncmp(method, prefix, sizeof(prefix) - 1) != 0)
                return false;
        for (size_t i = 0; i < ARRAY_SIZE(own); i++)
                if (strcmp(method + sizeof(prefix) - 1, own[i]) == 0)
                        return true;
        return false;
}

static int check_json(struct kev *kev, const char *text, size_t size, const char *complaint) {
        struct json_object *json;
        int r = message_parse(text, size, &json);

        if (r == -ENOMEM)
                return error_set(kev, r, "There is no memory for the parameters");
        if (r < 0)
                return error_set(kev, -EINVAL, "%s", complaint);
        json_object_put(json);
        return 0;
}

/* An object by themselves, so that they are one member of the call, and no deeper than the call may be: kevd would
 * close the connection. */
static int put_parameters(struct kev *kev, struct buffer *b, const char *parameters) {
        int r = check_json(kev, parameters, strlen(parameters),
                           "The parameters are not a JSON object, or are nested too deeply");

        if (r < 0)
                return r;
        buffer_put_literal(b, ",\"parameters\":");
        buffer_put_string(b, parameters);
        buffer_put_literal(b, "}\0");
        return b->error ? 0 : check_json(kev, b->data, b->size - 1, "The parameters are nested too deeply");
}

static int put_call(struct kev *kev, struct buffer *b, const char *method, const char *parameters) {
        int r = check_text(kev, "method", method);

        if (r < 0)
                return r;
        if (is_own_method(method))
                return error_set(kev, -EINVAL, "%s can't be called: the library itself does it", method);
        buffer_put_literal(b, "{\"method\":");
        json_put_string(b, method, strlen(method));
        if (parameters)
                return put_parameters(kev, b, parameters);
        buffer_put_literal(b, "}\0");
        return 0;
}

/* The parameters as text; -EREMOTEIO, which is told of any error reply. */
static int read_reply(struct kev *kev, const struct call *call, char **ret_text) {
        const char *text = call_parameters(call);
        char *copy;

        if (text && call->error)
                return error_set(kev, -EREMOTEIO, "%s %s", call->error, text);
        copy = text ? strdup(text) : NULL;
        if (!copy)
                return error_set(kev, -ENOMEM, "There is no memory for the reply");
        *ret_text = copy;
        return 0;
}

_public_ int kev_call(struct kev *kev, const char *method, const char *parameters, char **ret_reply) {
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;
        struct call call _cleanup_(call_free) = { 0 };
        char *reply _cleanup_(freep) = NULL;
        int r = call_enter(kev);

        if (r == 0)
                r = put_call(kev, &b, method, parameters);
        if (r == 0)
                r = call_send(kev, &call, &b, NULL, 0);
        if (r == 0)
                r = call_wait(kev, &call);
        if (r == 0)
                r = read_reply(kev, &call, &reply);
        if (r == 0 && ret_reply)
                *ret_reply = take_pointer(&reply);
        return call_leave(kev, r);
}

/* ---- GetMechanism --------------------------------------------------------------- */

static int read_mechanism(struct kev *kev, const struct call *call, char **ret_name) {
        static const struct field fields[] = { { "mechanism", FIELD_STRING, 0, true } };
        const char *name;

        if (!call->parameters || fields_read(call->parameters, fields, ARRAY_SIZE(fields), &name, NULL) < 0)
                return connection_fail(kev, -EPROTO, "kevd answered GetMechanism with what can't be understood");
        *ret_name = strdup(name);
        return *ret_name ? 0 : error_set(kev, -ENOMEM, "There is no memory for the reply");
}

_public_ int kev_get_mechanism(struct kev *kev, int64_t id, char **ret_name) {
        struct buffer b _cleanup_(buffer_free) = BUFFER_INIT;
        struct call call _cleanup_(call_free) = { 0 };
        int r = call_enter(kev);

        if (r < 0)
                return r;
        if (own_signals_has(&kev->own_signals, id)) {
                *ret_name = strdup("signalfd");
                return call_leave(kev, *ret_name ? 0 : error_set(kev, -ENOMEM, "There is no memory for the name"));
        }
        buffer_put_literal(&b, "{\"method\":\"org.kevd.events.GetMechanism\",\"parameters\":{\"id\":");
        buffer_put_i64(&b, id);
        buffer_put_literal(&b, "}}\0");
        r = call_run(kev, &call, &b, NULL, 0);
        if (r == -EINVAL)
                r = error_set(kev, -ENOENT, "There is no watch with the id %lld", (long long)id);
        if (r == 0)
                r = read_mechanism(kev, &call, ret_name);
        return call_leave(kev, r);
}
