/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "authorize.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "macro.h"

/* Whose a request is the bus has to say first: until then it counts for its sender. A dbus-daemon lets a user have 256
 * connections, so that one user alone can't make all of the requests that there may be. */
enum {
        REQUESTS_MAX = 2048,
        REQUESTS_OF_SENDER_MAX = 4,
        QUESTIONS_MAX = 64, /* to polkit, each with a match: a dbus-daemon has room for 128, and 512 matches */
        QUESTIONS_OF_USER_MAX = 4,
        POLKIT_SEC = 120, /* somebody may have to type a password */
};

#define UID_UNKNOWN ((uid_t)-1)

struct request {
        struct list link;
        struct authorizer *authorizer;
        const char *action;
        authorized_fn *granted;
        sd_bus_message *call;
        sd_bus_slot *question; /* to the bus, then to polkit */
        sd_bus_slot *gone;     /* the caller has left the bus */
        uid_t uid;             /* the bus's word, once polkit is asked */
        uint32_t pid;
};

static struct request *free_request(struct request *r) {
        list_remove(&r->link);
        r->authorizer->n_requests--;
        sd_bus_slot_unref(r->question);
        sd_bus_slot_unref(r->gone);
        sd_bus_message_unref(r->call);
        free(r);
        return NULL;
}

void authorizer_init(struct authorizer *authorizer) {
        list_init(&authorizer->requests);
        authorizer->n_requests = 0;
}

void authorizer_close(struct authorizer *authorizer) {
        while (!list_empty(&authorizer->requests))
                free_request(list_entry(authorizer->requests.next, struct request, link));
}

static void fail(struct request *r, const char *name, const char *message) {
        (void)sd_bus_reply_method_errorf(r->call, name, "%s", message);
        free_request(r);
}

static void fail_errno(struct request *r, int error) {
        (void)sd_bus_reply_method_errno(r->call, error, NULL);
        free_request(r);
}

static void grant(struct request *r) {
        r->granted(r->authorizer, r->call, r->uid, (pid_t)r->pid);
        free_request(r);
}

/* ---- whether the caller stays ------------------------------------------------------------------------ */

/* Without a handler sd-bus gives up the connection where a match can't be had. */
static int on_match(sd_bus_message *reply _unused_, void *userdata _unused_, sd_bus_error *ret_error _unused_) {
        return 0;
}

static int on_owner_changed(sd_bus_message *message, void *userdata, sd_bus_error *ret_error _unused_) {
        const char *name, *before, *now;

        if (sd_bus_message_read(message, "sss", &name, &before, &now) >= 0 && now[0] == 0)
                free_request(userdata);
        return 0;
}

static int watch_caller(struct request *r) {
        char match[256];

        (void)snprintf(match, sizeof(match),
                       "type='signal',sender='org.freedesktop.DBus',path='/org/freedesktop/DBus',"
                       "interface='org.freedesktop.DBus',member='NameOwnerChanged',arg0='%s'",
                       sd_bus_message_get_sender(r->call));
        return sd_bus_add_match_async(sd_bus_message_get_bus(r->call), &r->gone, match, on_owner_changed, on_match, r);
}

/* ---- polkit: org.freedesktop.PolicyKit1.Authority ------------------------------------------------- */

static int on_authorization(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error _unused_) {
        const sd_bus_error *error = sd_bus_message_get_error(reply);
        struct request *r = userdata;
        int authorized = 0, challenge = 0;
        char denial[128];

        if (error) {
                log_notice("polkit can't be asked: %s", error->message ? error->message : error->name);
                fail(r, SD_BUS_ERROR_ACCESS_DENIED, "polkit can't be asked");
        } else if (sd_bus_message_enter_container(reply, 'r', "bba{ss}") < 0 ||
                   sd_bus_message_read(reply, "bb", &authorized, &challenge) < 0)
                fail(r, SD_BUS_ERROR_ACCESS_DENIED, "polkit's answer can't be understood");
        else if (authorized)
                grant(r);
        else if (challenge)
                fail(r, SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED, "it takes an authentication");
        else {
                (void)snprintf(denial, sizeof(denial), "polkit doesn't permit %s", r->action);
                fail(r, SD_BUS_ERROR_ACCESS_DENIED, denial);
        }
        return 0;
}

/* One that left before that polkit does not find. */
static void ask_polkit(struct request *r) {
        sd_bus_message *message = NULL;
        int interactive = sd_bus_message_get_allow_interactive_authorization(r->call) > 0;
        int n = sd_bus_message_new_method_call(sd_bus_message_get_bus(r->call), &message, "org.freedesktop.PolicyKit1",
                                               "/org/freedesktop/PolicyKit1/Authority",
                                               "org.freedesktop.PolicyKit1.Authority", "CheckAuthorization");

        if (n >= 0)
                n = watch_caller(r);
        if (n >= 0)
                n = sd_bus_message_append(message, "(sa{sv})sa{ss}us", "system-bus-name", 1, "name", "s",
                                          sd_bus_message_get_sender(r->call), r->action, 0, interactive ? 1u : 0u, "");
        r->question = sd_bus_slot_unref(r->question);
        if (n >= 0)
                n = sd_bus_call_async(sd_bus_message_get_bus(r->call), &r->question, message, on_authorization, r,
                                      POLKIT_SEC * UINT64_C(1000000));
        sd_bus_message_unref(message);
        if (n < 0)
                fail_errno(r, -n);
}

/* ---- who calls -------------------------------------------------------------------------------------- */

static size_t count_of_sender(const struct authorizer *authorizer, const char *sender) {
        size_t n = 0;

        list_for_each(entry, &authorizer->requests)
                n += strcmp(sd_bus_message_get_sender(list_entry(entry, struct request, link)->call), sender) == 0;
        return n;
}

/* NULL: polkit may be asked. */
static const char *why_not_ask(const struct authorizer *authorizer, uid_t uid) {
        size_t n = 0, n_of_user = 0;

        list_for_each(entry, &authorizer->requests) {
                const struct request *r = list_entry(entry, struct request, link);

                n += r->uid != UID_UNKNOWN;
                n_of_user += r->uid == uid;
        }
        return n_of_user >= QUESTIONS_OF_USER_MAX ? "the user has asked already, and waits for an answer" :
               n >= QUESTIONS_MAX                 ? "too many others wait for an answer" :
                                                    NULL;
}

static int read_number(sd_bus_message *reply, uint32_t *ret) {
        int n = sd_bus_message_enter_container(reply, 'v', "u");

        if (n > 0)
                n = sd_bus_message_read(reply, "u", ret);
        return n < 0 ? n : sd_bus_message_exit_container(reply);
}

static int read_credentials(sd_bus_message *reply, uint32_t *ret_uid, uint32_t *ret_pid) {
        const char *name;
        int n = sd_bus_message_enter_container(reply, 'a', "{sv}");

        while (n > 0 && (n = sd_bus_message_enter_container(reply, 'e', "sv")) > 0) {
                n = sd_bus_message_read(reply, "s", &name);
                if (n >= 0)
                        n = strcmp(name, "UnixUserID") == 0 ? read_number(reply, ret_uid) :
                            strcmp(name, "ProcessID") == 0  ? read_number(reply, ret_pid) :
                                                              sd_bus_message_skip(reply, "v");
                if (n >= 0)
                        n = sd_bus_message_exit_container(reply);
        }
        return n;
}

static int on_credentials(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error _unused_) {
        struct request *r = userdata;
        uint32_t uid = UINT32_MAX;
        const char *refusal;
        bool needs_polkit;

        if (sd_bus_message_get_error(reply) || read_credentials(reply, &uid, &r->pid) < 0 || uid == UINT32_MAX ||
            r->pid == 0) {
                fail(r, SD_BUS_ERROR_ACCESS_DENIED, "the bus doesn't say who calls");
                return 0;
        }
        needs_polkit = uid != 0 && uid != geteuid();
        refusal = needs_polkit ? why_not_ask(r->authorizer, uid) : NULL;
        if (refusal) {
                fail(r, SD_BUS_ERROR_LIMITS_EXCEEDED, refusal);
                return 0;
        }
        r->uid = uid;
        if (needs_polkit)
                ask_polkit(r);
        else
                grant(r);
        return 0;
}

int authorize(struct authorizer *authorizer, sd_bus_message *call, const char *action, authorized_fn *granted,
              sd_bus_error *error) {
        sd_bus *bus = sd_bus_message_get_bus(call);
        const char *sender = sd_bus_message_get_sender(call);
        struct request *r;
        int n;

        if (authorizer->n_requests >= REQUESTS_MAX)
                return sd_bus_error_set(error, SD_BUS_ERROR_LIMITS_EXCEEDED, "too many others wait for an answer");
        if (sender && count_of_sender(authorizer, sender) >= REQUESTS_OF_SENDER_MAX)
                return sd_bus_error_set(error, SD_BUS_ERROR_LIMITS_EXCEEDED,
                                        "the caller has asked already, and waits for an answer");
        r = sender ? calloc(1, sizeof(*r)) : NULL;
        if (!r)
                return -ENOMEM;
        r->authorizer = authorizer;
        r->action = action;
        r->granted = granted;
        r->call = sd_bus_message_ref(call);
        r->uid = UID_UNKNOWN;
        list_init(&r->link);
        list_append(&authorizer->requests, &r->link);
        authorizer->n_requests++;
        n = sd_bus_call_method_async(bus, &r->question, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                     "org.freedesktop.DBus", "GetConnectionCredentials", on_credentials, r, "s",
                                     sender);
        if (n < 0) {
                free_request(r);
                return n;
        }
        return 1;
}
