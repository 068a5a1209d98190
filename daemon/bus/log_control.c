/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * org.freedesktop.LogControl1, for systemctl service-log-level. sd-bus wants a property set while its handler runs;
 * polkit may have to be asked, so the call is taken before sd-bus looks at the properties.
 */

#include <errno.h>
#include <string.h>

#include "log.h"
#include "objects.h"

#define OBJECT "/org/freedesktop/LogControl1"
#define INTERFACE "org.freedesktop.LogControl1"

static int get_log_level(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                         const char *property _unused_, sd_bus_message *reply, void *userdata _unused_,
                         sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "s", log_level_name(log_level()));
}

/* on_call() comes before it, with all that may be set. */
static int refuse_to_set(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                         const char *property _unused_, sd_bus_message *value _unused_, void *userdata _unused_,
                         sd_bus_error *error) {
        return sd_bus_error_set(error, SD_BUS_ERROR_ACCESS_DENIED, "it can't be set in this way");
}

static int get_log_target(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                          const char *property _unused_, sd_bus_message *reply, void *userdata _unused_,
                          sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "s", log_target_name());
}

static int set_log_target(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                          const char *property _unused_, sd_bus_message *value _unused_, void *userdata _unused_,
                          sd_bus_error *error) {
        return sd_bus_error_set(error, SD_BUS_ERROR_NOT_SUPPORTED, "the log goes to standard error, whatever that is");
}

static int get_identifier(sd_bus *bus _unused_, const char *path _unused_, const char *interface _unused_,
                          const char *property _unused_, sd_bus_message *reply, void *userdata _unused_,
                          sd_bus_error *error _unused_) {
        return sd_bus_message_append(reply, "s", "kevd");
}

static const sd_bus_vtable log_control_vtable[] = {
        SD_BUS_VTABLE_START(0),
        SD_BUS_WRITABLE_PROPERTY("LogLevel", "s", get_log_level, refuse_to_set, 0, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_WRITABLE_PROPERTY("LogTarget", "s", get_log_target, set_log_target, 0, SD_BUS_VTABLE_UNPRIVILEGED),
        SD_BUS_PROPERTY("SyslogIdentifier", "s", get_identifier, 0, SD_BUS_VTABLE_PROPERTY_CONST),
        SD_BUS_VTABLE_END,
};

/* 0: it is another call, which is as it was. 1: it sets the log level, which is in `ret_name`. Nobody has looked at the
 * signature yet: what it has behind these would be kept as well. */
static int read_call(sd_bus_message *call, const char **ret_name) {
        const char *interface, *property;
        int r;

        if (!sd_bus_message_is_method_call(call, "org.freedesktop.DBus.Properties", "Set") ||
            !sd_bus_message_has_signature(call, "ssv"))
                return 0;
        r = sd_bus_message_read(call, "ss", &interface, &property);
        if (r > 0 && strcmp(interface, INTERFACE) == 0 && strcmp(property, "LogLevel") == 0)
                r = sd_bus_message_read(call, "v", "s", ret_name);
        else
                r = 0;
        return r > 0 ? r : sd_bus_message_rewind(call, true) < 0 ? -EINVAL : 0;
}

static void set_level(struct authorizer *authorizer _unused_, sd_bus_message *call, uid_t uid, pid_t pid _unused_) {
        const char *name;

        if (sd_bus_message_rewind(call, true) < 0 || read_call(call, &name) <= 0)
                return;
        log_set_level(log_level_from_name(name));
        log_notice("the log level is %s now, as user %u asks", log_level_name(log_level()), (unsigned)uid);
        (void)sd_bus_reply_method_return(call, NULL);
}

static int on_call(sd_bus_message *call, void *userdata, sd_bus_error *error) {
        struct bus *b = userdata;
        const char *name;
        int r = read_call(call, &name);

        if (r <= 0)
                return r;
        if (log_level_from_name(name) < 0)
                return sd_bus_error_setf(error, SD_BUS_ERROR_INVALID_ARGS, "\"%s\" is not a log level", name);
        return authorize(&b->authorizer, call, "org.kevd.set-log-level", set_level, error);
}

int log_control_publish(struct bus *b) {
        int r = sd_bus_add_object(b->bus, NULL, OBJECT, on_call, b);

        return r < 0 ? r : sd_bus_add_object_vtable(b->bus, NULL, OBJECT, INTERFACE, log_control_vtable, b);
}
