/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "all_users.h"

#include <errno.h>
#include <stdlib.h>
#include <systemd/sd-bus.h>

enum { ANSWER_SEC = 150 };

static int call(sd_bus **bus, sd_bus_error *error) {
        sd_bus_message *message = NULL;
        int r = sd_bus_open_system(bus);

        if (r >= 0)
                r = sd_bus_message_new_method_call(*bus, &message, "org.kevd", "/org/kevd/Manager", "org.kevd.Manager",
                                                   "ObserveProcesses");
        if (r >= 0)
                r = sd_bus_message_set_allow_interactive_authorization(message, true);
        if (r >= 0)
                r = sd_bus_call(*bus, message, ANSWER_SEC * UINT64_C(1000000), error, NULL);
        sd_bus_message_unref(message);
        return r;
}

int all_users_ask(struct session *s) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus *bus = NULL;
        char *reply = NULL;
        /* Once a call was answered the daemon knows the connection. */
        int r = kev_call(s->kev, "org.varlink.service.GetInfo", NULL, &reply);

        free(reply);
        if (r < 0) {
                session_refuse(s, NULL, r, kev_error_message(s->kev));
                return r;
        }
        r = call(&bus, &error);
        if (r < 0)
                session_refuse(s, "--all-users", r, error.message);
        sd_bus_error_free(&error);
        sd_bus_flush_close_unref(bus);
        return r;
}
