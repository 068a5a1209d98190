/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev netdev: network devices, those named or all: how they are, then what
 * happens to them. The daemon tells of changes only, in the namespace that is the
 * caller's; how they are is read there, with the watches in force already.
 */

#include <errno.h>
#include <json-c/json.h>
#include <string.h>

#include "commands.h"
#include "links.h"
#include "print.h"
#include "session.h"

static void add(struct session *s, const char *name) {
        struct kev_watch *watch = NULL;
        const char *subject = name ? name : "network devices";
        int r = kev_watch_new(KEV_FILTER_NETDEV, &watch);

        if (r == 0 && name)
                r = kev_watch_set_name(watch, name);
        if (r == 0)
                (void)session_add(s, watch, subject, false);
        else
                session_refuse(s, subject, r, NULL);
        kev_watch_free(watch);
}

/* ---- how they are -------------------------------------------------------------- */

static bool is_wanted(const struct options *o, const char *name) {
        for (int i = 0; i < o->n_arguments; i++)
                if (strcmp(o->arguments[i], name) == 0)
                        return true;
        return o->n_arguments == 0;
}

/* As the type Link of the interface, in a member that no event has. */
static void put_json(struct text *out, const struct link *link, const struct ifaddrs *all) {
        struct json_object *object = json_object_new_object(), *state = json_object_new_object();
        struct json_object *addresses = json_object_new_array();
        char address[LINK_IP_ADDRESS_MAX];

        (void)json_object_object_add(state, "index", json_object_new_int(link->index));
        (void)json_object_object_add(state, "name", json_object_new_string(link->name));
        (void)json_object_object_add(state, "up", json_object_new_boolean(link->up));
        (void)json_object_object_add(state, "carrier", json_object_new_boolean(link->carrier));
        (void)json_object_object_add(state, "operState", json_object_new_string(link->oper_state));
        if (link->mtu >= 0)
                (void)json_object_object_add(state, "mtu", json_object_new_int64(link->mtu));
        if (link->address[0])
                (void)json_object_object_add(state, "address", json_object_new_string(link->address));
        while (links_next_ip_address(&all, link->name, address))
                (void)json_object_array_add(addresses, json_object_new_string(address));
        (void)json_object_object_add(state, "addresses", addresses);
        (void)json_object_object_add(object, "state", state);
        text_puts(out, json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE));
        text_puts(out, "\n");
        (void)json_object_put(object);
}

static void put_states(struct session *s) {
        struct ifaddrs *all;
        const struct ifaddrs *at;
        struct link link;

        if (getifaddrs(&all) < 0) {
                session_refuse(s, "network devices", -errno, NULL);
                return;
        }
        at = all;
        while (links_next(&at, &link)) {
                if (!is_wanted(s->options, link.name))
                        continue;
                if (s->options->given & OPTION_JSON)
                        put_json(&s->out, &link, all);
                else
                        print_link(&s->out, &link, all, s->colour);
        }
        freeifaddrs(all);
}

int netdev_run(const struct command *command, const struct options *options) {
        struct session s;

        (void)command;
        if (session_open(&s, options, session_take_and_print) == 0) {
                if (options->n_arguments == 0)
                        add(&s, NULL);
                for (int i = 0; i < options->n_arguments; i++)
                        add(&s, options->arguments[i]);
                if (!s.refused)
                        put_states(&s);
        }
        return session_finish(&s);
}
