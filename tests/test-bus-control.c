/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * What changes something in the daemon on D-Bus, and who may: root, and whom polkit lets. In polkit's place stands a
 * process of the test's.
 */

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>
#include <systemd/sd-bus.h>

#include "bus-client.h"
#include "buses.h"
#include "harness.h"
#include "macro.h"
#include "polkit.h"

/* A dbus-daemon turns away who is in no list of users. */
enum { NOBODY = 65534 };

#define NO_SUCH_CONNECTION "org.kevd.Error.NoSuchConnection"

/* The id of the connection that has so many watches. */
static uint64_t id_of(sd_bus *bus, int64_t n_watches) {
        struct json_object *object = call_manager(bus, "ListQueues"), *queues = json_at(object, "/queues");
        int64_t id = 0;

        for (size_t i = 0; i < json_object_array_length(queues); i++)
                if (number_at(json_object_array_get_idx(queues, i), "/watches") == n_watches)
                        id = number_at(json_object_array_get_idx(queues, i), "/id");
        json_object_put(object);
        ck_assert_int_gt(id, 0);
        return (uint64_t)id;
}

/* "" or the error's name, which lives until the next. */
static const char *name_of(const sd_bus_error *error) {
        static char name[128];

        format(name, sizeof(name), "%s", error && error->name ? error->name : "");
        return name;
}

static const char *disconnect(sd_bus *bus, uint64_t id) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        const char *name;

        (void)sd_bus_call_method(bus, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "Disconnect", &error, NULL, "t", id);
        name = name_of(&error);
        sd_bus_error_free(&error);
        return name;
}

START_TEST(test_disconnect) {
        pid_t bus_pid = bus_start();
        struct daemon *daemon = daemon_start(NULL);
        sd_bus *bus = bus_connect_to_daemon();
        int fd = client_connect(daemon->socket), other = client_connect(daemon->socket);
        uint64_t id;

        watch_name(fd, "a");
        trigger(other, "a"); /* for it to be in the middle of something */
        id = id_of(bus, 1);
        ck_assert_str_eq(disconnect(bus, 0), NO_SUCH_CONNECTION);
        ck_assert_str_eq(disconnect(bus, UINT64_MAX), NO_SUCH_CONNECTION);
        ck_assert_str_eq(disconnect(bus, id), "");
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        ck_assert_str_eq(disconnect(bus, id), NO_SUCH_CONNECTION);
        (void)close(fd);
        /* Nobody else notices, and nobody gets the number again. */
        watch_name(other, "b");
        trigger(other, "b");
        expect_event(other);
        ck_assert_uint_ne(id_of(bus, 1), id);
        fd = client_connect(daemon->socket);
        watch_name(fd, "c");
        (void)close(other);
        ck_assert_uint_gt(id_of(bus, 1), id);
        (void)close(fd);
        sd_bus_flush_close_unref(bus);
        daemon_stop(daemon);
        bus_stop(bus_pid);
}
END_TEST

static struct {
        pid_t bus_pid, authority;
        struct daemon *daemon;
        sd_bus *root, *caller;
        char configuration[PATH_MAX];
        int victim; /* a connection */
        uint64_t id; /* its */
} t;

static void authorized_start(void) {
        char option[PATH_MAX + 16];
        FILE *file;

        t.bus_pid = 0;
        if (geteuid() != 0)
                harness_skip("takes root, who can become other users");
        ck_assert_int_eq(chmod(harness_tempdir(), 0711), 0);
        format(t.configuration, sizeof(t.configuration), "%s/kevd.conf", harness_tempdir());
        file = fopen(t.configuration, "we");
        assert_system(file && fclose(file) == 0, t.configuration);
        format(option, sizeof(option), "--config=%s", t.configuration);
        t.bus_pid = bus_start();
        t.authority = authority_start();
        t.daemon = daemon_start(option);
        t.root = bus_connect_to_daemon();
        t.caller = bus_connect_as(NOBODY);
        t.victim = client_connect(t.daemon->socket);
        watch_name(t.victim, "a");
        t.id = id_of(t.root, 1);
}

static void authorized_stop(void) {
        if (t.bus_pid == 0)
                return;
        (void)close(t.victim);
        sd_bus_flush_close_unref(t.caller);
        sd_bus_flush_close_unref(t.root);
        daemon_stop(t.daemon);
        authority_stop(t.authority);
        bus_stop(t.bus_pid);
}

static bool victim_is_gone(void) {
        struct json_object *object = call_manager(t.root, "ListQueues");
        bool gone = json_object_array_length(json_at(object, "/queues")) == 0;

        json_object_put(object);
        return gone;
}

static bool was_reloaded(void) {
        return count_in_log("the configuration was read again") > 0;
}

static bool level_is_set(void) {
        _cleanup_(freep) char *level = get_string(t.root, LOG_PATH, LOG_INTERFACE, "LogLevel");

        return strcmp(level, "debug") == 0;
}

static const struct {
        const char *action;
        bool (*has_effect)(void);
} actions[] = {
        { "org.kevd.disconnect", victim_is_gone },
        { "org.kevd.reload", was_reloaded },
        { "org.kevd.set-log-level", level_is_set },
};

static sd_bus_message *call_of(int action) {
        sd_bus_message *call = NULL;
        int r;

        if (action == 2) {
                r = sd_bus_message_new_method_call(t.caller, &call, "org.kevd", LOG_PATH,
                                                   "org.freedesktop.DBus.Properties", "Set");
                if (r >= 0)
                        r = sd_bus_message_append(call, "ssv", LOG_INTERFACE, "LogLevel", "s", "debug");
        } else {
                r = sd_bus_message_new_method_call(t.caller, &call, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE,
                                                   action ? "Reload" : "Disconnect");
                if (r >= 0 && action == 0)
                        r = sd_bus_message_append(call, "t", t.id);
        }
        ck_assert_int_ge(r, 0);
        return call;
}

/* What has come of an asynchronous call. */
struct outcome {
        bool came;
        char error[128];
};

static int on_outcome(sd_bus_message *reply, void *userdata, sd_bus_error *ret_error _unused_) {
        struct outcome *outcome = userdata;

        outcome->came = true;
        format(outcome->error, sizeof(outcome->error), "%s", name_of(sd_bus_message_get_error(reply)));
        return 0;
}

static void begin_call(int action, struct outcome *outcome) {
        sd_bus_message *call = call_of(action);

        *outcome = (struct outcome){ 0 };
        ck_assert_int_ge(sd_bus_call_async(t.caller, NULL, call, on_outcome, outcome, UINT64_C(1000) * HARNESS_REPLY_MSEC),
                         0);
        ck_assert_int_ge(sd_bus_flush(t.caller), 0);
        sd_bus_message_unref(call);
}

static void await_outcome(sd_bus *bus, const struct outcome *outcome) {
        while (!outcome->came) {
                int r = sd_bus_process(bus, NULL);

                ck_assert_int_ge(r, 0);
                if (r == 0)
                        ck_assert_int_ge(sd_bus_wait(bus, UINT64_C(1000) * HARNESS_REPLY_MSEC), 0);
        }
}

static void end_call(const struct outcome *outcome, const char *error) {
        await_outcome(t.caller, outcome);
        ck_assert_str_eq(outcome->error, error);
}

static void answer(enum answer answer) {
        __atomic_store_n(&authority->answer, answer, __ATOMIC_SEQ_CST);
}

static bool call_effect(void *action) {
        return actions[*(int *)action].has_effect();
}

/* By polkit's word, and not before it. */
START_TEST(test_authorized) {
        static const struct {
                enum answer answer;
                const char *name, *error;
        } answers[] = {
                { ANSWER_YES, "yes", "" },
                { ANSWER_NO, "no", SD_BUS_ERROR_ACCESS_DENIED },
                { ANSWER_CHALLENGE, "challenge", SD_BUS_ERROR_INTERACTIVE_AUTHORIZATION_REQUIRED },
                { ANSWER_ODD, "not to be understood", SD_BUS_ERROR_ACCESS_DENIED },
        };
        int action = _i / (int)ARRAY_SIZE(answers), n = _i % (int)ARRAY_SIZE(answers);
        struct outcome outcome;
        char label[128];

        format(label, sizeof(label), "%s, %s", actions[action].action, answers[n].name);
        harness_label(label);
        answer(ANSWER_LATE);
        begin_call(action, &outcome);
        ck_assert(wait_until(authority_was_asked, &(unsigned){ 1 }, HARNESS_REPLY_MSEC));
        ck_assert_str_eq(authority->action, actions[action].action);
        /* Nothing has happened, and nobody waits meanwhile. */
        expect_service(t.daemon);
        ck_assert(!actions[action].has_effect());
        answer(answers[n].answer);
        end_call(&outcome, answers[n].error);
        if (answers[n].answer == ANSWER_YES) /* a connection is taken out at the end of a turn */
                ck_assert(wait_until(call_effect, &action, HARNESS_REPLY_MSEC));
        else
                ck_assert(!actions[action].has_effect());
        expect_service(t.daemon);
        ck_assert_uint_eq(authority->n_asked, 1);
}
END_TEST

static bool caller_has_left(void *name) {
        sd_bus_message *reply = NULL;
        int owned = 0;

        ck_assert_int_ge(sd_bus_call_method(t.root, "org.freedesktop.DBus", "/org/freedesktop/DBus",
                                            "org.freedesktop.DBus", "NameHasOwner", NULL, &reply, "s", name), 0);
        ck_assert_int_ge(sd_bus_message_read(reply, "b", &owned), 0);
        sd_bus_message_unref(reply);
        return !owned;
}

/* Who has asked and gone is given nothing. */
START_TEST(test_caller_leaves) {
        struct outcome outcome;
        const char *unique;
        char name[128];

        harness_label(actions[_i].action);
        ck_assert_int_ge(sd_bus_get_unique_name(t.caller, &unique), 0);
        format(name, sizeof(name), "%s", unique);
        answer(ANSWER_LATE);
        begin_call(_i, &outcome);
        ck_assert(wait_until(authority_was_asked, &(unsigned){ 1 }, HARNESS_REPLY_MSEC));
        t.caller = sd_bus_close_unref(t.caller);
        ck_assert(wait_until(caller_has_left, name, HARNESS_REPLY_MSEC));
        answer(ANSWER_YES);
        ck_assert(wait_until(authority_has_answered, &(unsigned){ 1 }, HARNESS_REPLY_MSEC));
        /* The answer to a second question comes behind that to the first. */
        t.caller = bus_connect_as(NOBODY);
        answer(ANSWER_NO);
        begin_call(_i, &outcome);
        end_call(&outcome, SD_BUS_ERROR_ACCESS_DENIED);
        ck_assert_uint_eq(authority->n_asked, 2);
        ck_assert(!actions[_i].has_effect());
        expect_service(t.daemon);
}
END_TEST

/* Where it says more than the call does it is none that may be decided about: nothing of it is kept meanwhile. */
START_TEST(test_other_signature) {
        static const char more[1024 * 1024];
        sd_bus_error error = SD_BUS_ERROR_NULL;
        sd_bus_message *call = call_of(2);

        ck_assert_int_ge(sd_bus_message_append_array(call, 'y', more, sizeof(more)), 0);
        ck_assert_int_lt(sd_bus_call(t.caller, call, 0, &error, NULL), 0);
        ck_assert_str_eq(name_of(&error), SD_BUS_ERROR_ACCESS_DENIED);
        ck_assert_uint_eq(authority->n_asked, 0);
        ck_assert(!level_is_set());
        sd_bus_error_free(&error);
        sd_bus_message_unref(call);
}
END_TEST

/* When it has been done, all that came before it lies at the daemon. */
static void begin_reloads(sd_bus *bus, struct outcome *outcomes, size_t n) {
        for (size_t i = 0; i < n; i++)
                ck_assert_int_ge(sd_bus_call_method_async(bus, NULL, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE,
                                                          "Reload", on_outcome, &outcomes[i], ""), 0);
        ck_assert(bus_has_daemon(bus));
}

/* One user asks more than is taken, by many connections, before the bus can say that it is one: somebody else is let in
 * all the same. */
START_TEST(test_many_callers) {
        enum { CALLERS = 40, CALLS = 8 };
        struct outcome outcomes[CALLERS][CALLS] = { 0 }, outcome = { 0 };
        sd_bus *callers[CALLERS];

        for (size_t i = 0; i < CALLERS; i++)
                callers[i] = bus_connect_as(NOBODY);
        answer(ANSWER_NO);
        assert_system(kill(t.daemon->pid, SIGSTOP) == 0, "kill");
        for (size_t i = 0; i < CALLERS; i++)
                begin_reloads(callers[i], outcomes[i], CALLS);
        begin_reloads(t.root, &outcome, 1);
        assert_system(kill(t.daemon->pid, SIGCONT) == 0, "kill");
        await_outcome(t.root, &outcome);
        ck_assert_str_eq(outcome.error, "");
        for (size_t i = 0; i < CALLERS; i++) {
                for (size_t n = 0; n < CALLS; n++) {
                        await_outcome(callers[i], &outcomes[i][n]);
                        if (n >= 4 || strcmp(outcomes[i][n].error, SD_BUS_ERROR_ACCESS_DENIED) != 0)
                                ck_assert_str_eq(outcomes[i][n].error, SD_BUS_ERROR_LIMITS_EXCEEDED);
                }
                sd_bus_flush_close_unref(callers[i]);
        }
        ck_assert_uint_gt(authority->n_asked, 0);
}
END_TEST

/* Root needs no polkit, and learns what is wrong. */
START_TEST(test_reload) {
        sd_bus_error error = SD_BUS_ERROR_NULL;
        char expected[PATH_MAX + 64];
        FILE *file;

        ck_assert_int_ge(sd_bus_call_method(t.root, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "Reload", &error, NULL,
                                            ""), 0);
        ck_assert(was_reloaded());
        file = fopen(t.configuration, "we");
        ck_assert_ptr_nonnull(file);
        (void)fprintf(file, "# fine\nlog-level = loud\n");
        ck_assert_int_eq(fclose(file), 0);
        ck_assert_int_lt(sd_bus_call_method(t.root, "org.kevd", MANAGER_PATH, MANAGER_INTERFACE, "Reload", &error, NULL,
                                            ""), 0);
        ck_assert_str_eq(error.name, "org.kevd.Error.ConfigurationInvalid");
        format(expected, sizeof(expected), "%s:2: log-level: \"loud\"", t.configuration);
        ck_assert_msg(strncmp(error.message, expected, strlen(expected)) == 0, "%s", error.message);
        sd_bus_error_free(&error);
        ck_assert_uint_eq(authority->n_asked, 0);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("bus-control");
        TCase *c;

        c = harness_case(suite, "control");
        tcase_add_test(c, test_disconnect);
        c = harness_case(suite, "authorized");
        tcase_add_checked_fixture(c, authorized_start, authorized_stop);
        tcase_add_loop_test(c, test_authorized, 0, 4 * (int)ARRAY_SIZE(actions));
        tcase_add_loop_test(c, test_caller_leaves, 0, ARRAY_SIZE(actions));
        tcase_add_test(c, test_other_signature);
        tcase_add_test(c, test_many_callers);
        tcase_add_test(c, test_reload);
        return harness_main(argc, argv);
}
