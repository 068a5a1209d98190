/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Replies: each goes to the call that it answers, and a Wait's events to the
 * inbox. Runs no handler, and waits for nothing. kevd is believed in nothing:
 * what can't be understood ends the connection; what isn't known is passed over,
 * for kevd may be newer.
 */

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "internal.h"
#include "message.h"

/* ---- error replies ---------------------------------------------------------- */

enum { JSON_FORMAT = JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE };

/* A parameter of the error as text, whatever its type. */
static const char *parameter_of(const struct call *call, const char *name, const char *otherwise) {
        struct json_object *value;

        if (!call->parameters || !json_object_object_get_ex(call->parameters, name, &value) || !value)
                return otherwise;
        return json_object_get_string(value);
}

int call_error(struct kev *kev, const struct call *call) {
        if (!call->error)
                return 0;
        if (strcmp(call->error, "org.varlink.service.InvalidParameter") == 0)
                return error_set(kev, -EINVAL, "kevd doesn't accept the parameter \"%s\"",
                                 parameter_of(call, "parameter", "?"));
        if (strcmp(call->error, "org.kevd.events.TooManyWatches") == 0)
                return error_set(kev, -EDQUOT, "There are too many watches; the limit is %s",
                                 parameter_of(call, "limit", "unknown"));
        if (strcmp(call->error, "org.kevd.events.PermissionDenied") == 0 ||
            strcmp(call->error, "org.varlink.service.PermissionDenied") == 0)
                return error_set(kev, -EACCES, "%s", parameter_of(call, "message", "kevd doesn't permit this"));
        return error_set(kev, -EREMOTEIO, "%s %s", call->error, call_parameters(call));
}

const char *call_parameters(const struct call *call) {
        return call->parameters ? json_object_to_json_string_ext(call->parameters, JSON_FORMAT) : "{}";
}

void call_free(struct call *call) {
        json_object_put(call->reply);
        *call = (struct call){ 0 };
}

/* ---- replies ------------------------------------------------------------------ */

static int take_event(struct kev *kev, struct json_object *json) {
        struct known_watch *entry;
        struct event *event = NULL;
        int r;

        r = json_object_is_type(json, json_type_object) ? event_from_json(json, &event) : -EBADMSG;
        if (r == -ENOMEM)
                return connection_fail_memory(kev);
        if (r < 0 || event->id < 0 || (int64_t)event->seq < 1 || (int64_t)event->count < 0) {
                event_unref(event);
                return connection_fail(kev, -EPROTO, "kevd sent an event that can't be understood");
        }
        entry = known_find(&kev->known, event->id);
        r = inbox_put(&kev->inbox, event, entry ? entry->handler : NULL, entry ? entry->userdata : NULL);
        if (r < 0) {
                event_unref(event);
                return connection_fail_memory(kev);
        }
        if (!entry)
                return 0;
        entry->is_disabled |= (event->flags & KEV_FLAG_DISPATCH) != 0;
        entry->is_over |= (event->flags & KEV_FLAG_EOF) && !filter_is_of_descriptor(event->filter);
        if (entry->is_oneshot)
                (void)known_remove(&kev->known, event->id);
        return 0;
}

static int take_events(struct kev *kev, const struct call *wait) {
        static const struct field fields[] = { { "events", FIELD_ARRAY, 0, true } };
        struct json_object *events = NULL;
        int r = call_error(kev, wait);

        if (r < 0)
                return connection_fail(kev, r, "kevd refuses to tell of events: %s", kev->message);
        if (!wait->parameters || fields_read(wait->parameters, fields, ARRAY_SIZE(fields), &events, NULL) < 0)
                return connection_fail(kev, -EPROTO, "kevd answered Wait with no list of events");
        for (size_t i = 0; r == 0 && i < json_object_array_length(events); i++)
                r = take_event(kev, json_object_array_get_idx(events, i));
        return r;
}

struct reply_fields {
        const char *error;
        struct json_object *parameters;
        bool continues;
};

static const struct field reply_fields[] = {
        { "error", FIELD_STRING, offsetof(struct reply_fields, error), false },
        { "parameters", FIELD_OBJECT, offsetof(struct reply_fields, parameters), false },
        { "continues", FIELD_BOOL, offsetof(struct reply_fields, continues), false },
};

/* Takes over `reply`. */
static int take_reply(struct kev *kev, struct json_object *reply) {
        struct call wait = { 0 }, *call;
        struct reply_fields f = { 0 };
        int r = 0;

        if (kev->calls.size > 0)
                memcpy(&call, kev->calls.data, sizeof(call));
        if (kev->calls.size == 0 || fields_read(reply, reply_fields, ARRAY_SIZE(reply_fields), &f, NULL) < 0 ||
            (f.continues && call)) {
                json_object_put(reply);
                return connection_fail(kev, -EPROTO, "kevd sent what is not the reply to a call");
        }
        if (!f.continues) {
                buffer_consume(&kev->calls, sizeof(call));
                kev->answered++;
                kev->waits -= !call;
        }
        *(call ? call : &wait) = (struct call){ .answered = true, .reply = reply, .error = f.error, .parameters = f.parameters };
        if (!call) {
                r = take_events(kev, &wait);
                call_free(&wait);
        }
        return r;
}

int reply_take(struct kev *kev, const char *data, size_t size) {
        struct json_object *reply;
        int r;

        if (size >= REPLY_BYTES_MAX)
                return connection_fail(kev, -EPROTO, "kevd sent a reply of more than %d bytes", REPLY_BYTES_MAX);
        r = message_parse(data, size, &reply);
        if (r == -ENOMEM)
                return connection_fail_memory(kev);
        if (r < 0)
                return connection_fail(kev, -EPROTO, "kevd sent what is not a Varlink message");
        return take_reply(kev, reply);
}
