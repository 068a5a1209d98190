/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Clients that mean harm, a few of each kind (bench-hostile has a thousand): one of another user misses nothing and gets
 * its turn, and what they made the daemon hold is given back.
 */

#include <dirent.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <json-c/json.h>

#include "files.h"
#include "harness.h"
#include "holdings.h"
#include "hostile.h"
#include "macro.h"
#include "silent.h"
#include "witness.h"

enum {
        HOSTILE_USER = 64200,
        WITNESS_UID = 64201,
        CLIENTS = 40,
        EVENTS = 400,        /* that the witness is told meanwhile, at least */
        BACK_MSEC = 120000,
        OWN_WORKERS = 4,     /* threads of the daemon's own user, which stay */
        DEPUTIES_MAX = 2 * 8, /* of a user, those that are leaving among them */
        STUCK_MAX = 8,        /* stand-ins of a user */
};

static struct daemon *kevd;
static pid_t silent_server;
static const char *silent;

static void start(void) {
        if (geteuid() != 0)
                return;
        need_private_mounts();
        ck_assert_int_eq(chmod(harness_tempdir(), 0755), 0);
        silent = make_root("silent");
        silent_server = silent_mount(silent);
        kevd = daemon_start("--mode=system", "--file-mechanism", daemon_is_on_fanotify() ? "fanotify" : "inotify");
}

static void stop(void) {
        if (!kevd)
                return;
        if (silent_server > 0)
                silent_end(silent_server, silent);
        daemon_stop(kevd);
}

static void need_root(void) {
        if (!kevd)
                harness_skip("to be other users takes root");
}

static void need_silence(void) {
        need_root();
        if (silent_server < 0)
                harness_skip("there is no FUSE");
}

static const char *own_directory(const char *name, uid_t uid) {
        const char *path = make_root(name);

        assert_system(chmod(path, 0700) == 0 && chown(path, uid, uid) == 0, path);
        return path;
}

/* ---- each kind ---------------------------------------------------------------------------------------------------- */

static bool has_told(void *userdata) {
        const struct witness *witness = userdata;

        return witness_n_told(witness) >= witness->goal;
}

static bool has_processes(void *userdata) {
        return holdings_read(kevd->pid).processes <= *(size_t *)userdata;
}

/* What the daemon begins with is there: who asks for the status waits for that. */
static void expect_opened(void) {
        int fd = client_connect(kevd->socket);

        json_object_put(client_call(fd, "org.kevd.manager.GetStatus", NULL));
        (void)close(fd);
}

static void come(const struct hostile_kind *kind, const struct hostile_place *place, struct witness *witness) {
        pid_t leader = hostile_start(kind, place, HOSTILE_USER, CLIENTS);

        ck_assert_msg(leader > 0, "%s: %s", kind->name, strerror(-(int)leader));
        witness->goal = witness_n_told(witness) + EVENTS;
        ck_assert_msg(wait_until(has_told, witness, BACK_MSEC), "the witness is told nothing any more");
        hostile_end(leader);
}

/* What is made when it is first needed, and kept, is there after the first time; the second time is judged. Threads of
 * deputies on a file system that does not answer stay with it. */
START_TEST(test_kind) {
        const struct hostile_kind *kind = &hostile_kinds[_i];
        bool is_silent = strcmp(kind->name, "silent-paths") == 0;
        struct hostile_place place = { .directory = NULL };
        struct witness witness;
        struct witness_result result;
        struct holdings first, last;
        char address[128];
        size_t processes;

        harness_label(kind->name);
        need_root();
        if (is_silent)
                need_silence();
        place = (struct hostile_place){
                .socket = kevd->socket, .directory = own_directory("hostile", HOSTILE_USER), .silent = silent,
        };
        (void)snprintf(address, sizeof(address), "unix:%s", kevd->socket);
        if (witness_start(&witness, address, own_directory("witness", WITNESS_UID), WITNESS_UID) < 0)
                ck_abort_msg("the witness: %s", witness_end(&witness).error);
        expect_opened();
        processes = holdings_read(kevd->pid).processes;
        come(kind, &place, &witness);
        if (!is_silent)
                ck_assert_msg(wait_until(has_processes, &processes, BACK_MSEC), "a process is left");
        first = holdings_read(kevd->pid);
        first.threads += OWN_WORKERS;
        come(kind, &place, &witness);
        result = witness_end(&witness);
        ck_assert_str_eq(result.error, "");
        ck_assert_msg(result.missing == 0, "%llu are missing:%s; %llu are odd", (unsigned long long)result.missing,
                      result.lacks, (unsigned long long)result.odd);
        ck_assert_uint_eq(result.odd, 0);
        witness_free(&witness);
        if (!is_silent && holdings_wait_back(kevd->pid, &first, BACK_MSEC, &last) < 0) {
                holdings_list(kevd->pid, stderr);
                ck_abort_msg("left behind: %s", holdings_difference(&last, &first));
        }
}
END_TEST

/* ---- a user's share ----------------------------------------------------------------------------------------------- */

/* Very many connections of one user have long calls under way: another user's call does not wait for all of them. */
START_TEST(test_turns) {
        enum { BUSY = 100, REACHED = 4096, A_CALL = 512, SHARE = 16 };
        static const char set_off[] = "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"n\"}}";
        struct json_object *reply;
        int watches, other, busy[BUSY];

        need_root();
        watches = client_connect_as(kevd->socket, HOSTILE_USER);
        for (int id = 0; id < REACHED; id += A_CALL) {
                char *text = malloc(A_CALL * 64);
                size_t size = (size_t)sprintf(text, "{\"add\":[");

                for (int i = 0; i < A_CALL; i++)
                        size += (size_t)sprintf(text + size, "%s{\"id\":%d,\"filter\":\"user\",\"name\":\"n\"}",
                                                i ? "," : "", id + i);
                (void)sprintf(text + size, "]}");
                reply = client_call(watches, "org.kevd.events.Change", text);
                ck_assert_ptr_null(json_at(reply, "/parameters/refused/0"));
                json_object_put(reply);
                free(text);
        }
        other = client_connect(kevd->socket);
        json_object_put(client_call(other, "org.kevd.events.GetLimits", NULL));
        for (int i = 0; i < BUSY; i++) {
                busy[i] = client_connect_as(kevd->socket, HOSTILE_USER);
                json_object_put(client_call(busy[i], "org.kevd.events.GetLimits", NULL));
        }
        ck_assert_int_eq(kill(kevd->pid, SIGSTOP), 0);
        for (int i = 0; i < BUSY; i++)
                client_send_message(busy[i], set_off);
        client_send_message(other, "{\"method\":\"org.kevd.manager.GetStatus\"}");
        ck_assert_int_eq(kill(kevd->pid, SIGCONT), 0);
        reply = client_receive(other, HARNESS_REPLY_MSEC);
        ck_assert_ptr_nonnull(reply);
        ck_assert_int_le(number_at(reply, "/parameters/counters/eventsIn"), SHARE * REACHED);
        json_object_put(reply);
        for (int i = 0; i < BUSY; i++) {
                reply = client_receive(busy[i], HARNESS_REPLY_MSEC);
                ck_assert_ptr_nonnull(reply);
                ck_assert_int_eq(number_at(reply, "/parameters/reached"), REACHED);
                json_object_put(reply);
                (void)close(busy[i]);
        }
        (void)close(watches);
        (void)close(other);
}
END_TEST

/* ---- deputies that can't end -------------------------------------------------------------------------------------- */

/* With these groups: each set has a deputy of its own. */
static int connect_with_group(gid_t group) {
        int fd;

        assert_system(setgroups(1, &group) == 0, "setgroups");
        fd = client_connect_as(kevd->socket, HOSTILE_USER);
        assert_system(setgroups(0, NULL) == 0, "setgroups");
        return fd;
}

static bool is_asked(void *userdata) {
        return silent_lookups() >= *(unsigned *)userdata;
}

static bool has_no_deputies(void *userdata) {
        (void)userdata;
        return holdings_named(kevd->pid, "kevd-deputy") == 0;
}

/* A file system keeps threads of a deputy for ever: it is the user's still, of whom no more can be made than are
 * allowed. */
START_TEST(test_stuck_deputies) {
        unsigned n_refused = 0, lookups = silent_lookups();

        need_silence();
        if (daemon_is_on_fanotify())
                harness_skip("there is no deputy with fanotify");
        for (unsigned i = 0; i < DEPUTIES_MAX + 8; i++) {
                int fd = connect_with_group(1000 + i);

                client_send_message(fd, at("{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                                           "\"filter\":\"vnode\",\"path\":\"%s/%u\"}]}}", silent, i));
                if (i < DEPUTIES_MAX) {
                        lookups++;
                        ck_assert_msg(wait_until(is_asked, &lookups, HARNESS_REPLY_MSEC), "nothing is looked up");
                } else {
                        struct json_object *reply = client_receive(fd, HARNESS_REPLY_MSEC);

                        ck_assert_ptr_nonnull(reply);
                        ck_assert_str_eq(text_at(reply, "/parameters/refused/0/errno"), "EDQUOT");
                        n_refused++;
                        json_object_put(reply);
                }
                (void)close(fd);
                /* It is over with the connection, and the deputy idle. */
                json_object_put(client_call(fd = client_connect(kevd->socket), "org.kevd.events.GetLimits", NULL));
                (void)close(fd);
        }
        ck_assert_uint_eq(n_refused, 8);
        ck_assert_uint_eq(holdings_named(kevd->pid, "kevd-deputy"), DEPUTIES_MAX);
        silent_end(silent_server, silent);
        silent_server = -1;
        ck_assert_msg(wait_until(has_no_deputies, NULL, BACK_MSEC), "deputies are left");
}
END_TEST

/* All threads of the daemon's own user wait for a file system: /proc, which a watch of processes begins with, is read by
 * another. */
START_TEST(test_stuck_own_user) {
        unsigned lookups;
        int fds[OWN_WORKERS], fd;

        need_silence();
        lookups = silent_lookups() + OWN_WORKERS;
        for (unsigned i = 0; i < OWN_WORKERS; i++) {
                fds[i] = client_connect(kevd->socket);
                client_send_message(fds[i], at("{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                                               "\"filter\":\"vnode\",\"path\":\"%s/%u\"}]}}", silent, i));
        }
        ck_assert_msg(wait_until(is_asked, &lookups, HARNESS_REPLY_MSEC), "nothing is looked up");
        fd = client_connect(kevd->socket);
        client_change(fd, "{\"add\":[{\"id\":1,\"filter\":\"proc\",\"match\":{\"comm\":\"*\"}}]}");
        (void)close(fd);
        for (unsigned i = 0; i < OWN_WORKERS; i++)
                (void)close(fds[i]);
        silent_end(silent_server, silent);
        silent_server = -1;
}
END_TEST

/* ---- stand-ins that can't end ------------------------------------------------------------------------------------- */

static void ask_for(int fd, const char *members) {
        client_send_message(fd, at("{\"method\":\"org.kevd.events.Change\",\"parameters\":{\"add\":[{\"id\":1,"
                                   "\"filter\":\"tree\",%s}]}}", members));
}

/* "": it is made. */
static const char *take_error(int fd) {
        struct json_object *reply = client_receive(fd, HARNESS_REPLY_MSEC);
        const char *error;

        ck_assert_msg(reply, "there is no reply");
        error = at("%s", text_at(reply, "/parameters/refused/0/errno"));
        json_object_put(reply);
        return error;
}

static void need_stand_ins(void) {
        need_silence();
        if (!daemon_is_on_fanotify())
                harness_skip("there is no stand-in with inotify");
}

static bool has_no_stand_ins(void *userdata _unused_) {
        return holdings_named(kevd->pid, "kevd-stand-in") == 0;
}

START_TEST(test_stuck_stand_ins) {
        unsigned lookups = silent_lookups();
        int fd;

        need_stand_ins();
        for (unsigned i = 0; i < STUCK_MAX + 8; i++) {
                fd = connect_with_group(1000 + i);
                ask_for(fd, at("\"path\":\"%s/%u\"", silent, i));
                if (i < STUCK_MAX) {
                        lookups++;
                        ck_assert_msg(wait_until(is_asked, &lookups, HARNESS_REPLY_MSEC), "nothing is looked up");
                } else
                        ck_assert_str_eq(take_error(fd), "EDQUOT");
                (void)close(fd);
                json_object_put(client_call(fd = client_connect(kevd->socket), "org.kevd.events.GetLimits", NULL));
                (void)close(fd);
        }
        ck_assert_uint_eq(holdings_named(kevd->pid, "kevd-stand-in"), STUCK_MAX);
        silent_end(silent_server, silent);
        silent_server = -1;
        ck_assert_msg(wait_until(has_no_stand_ins, NULL, BACK_MSEC), "stand-ins are left");
        fd = connect_with_group(1000);
        ask_for(fd, at("\"path\":\"%s\"", own_directory("hostile", HOSTILE_USER)));
        ck_assert_str_eq(take_error(fd), "");
        (void)close(fd);
}
END_TEST

/* Others may come before it. */
static void await_event(int fd, const char *note, const char *path) {
        for (bool found = false; !found;) {
                struct json_object *event = next_event(fd);

                found = has_note(event, note) && strcmp(text_at(event, "/path"), path) == 0;
                json_object_put(event);
        }
}

/* Looking for one path takes for ever: that is refused, what is looked at for the same user's other watches is said to be
 * in doubt, and all goes on with another stand-in. */
START_TEST(test_silent_path) {
        unsigned lookups = silent_lookups() + 1;
        const char *root;
        int fd, other;

        need_stand_ins();
        root = own_directory("hostile", HOSTILE_USER);
        make_dir(at("%s/d", root));
        fd = client_connect_as(kevd->socket, HOSTILE_USER);
        ask_for(fd, at("\"path\":\"%s\"", root));
        ck_assert_str_eq(take_error(fd), "");
        other = client_connect_as(kevd->socket, HOSTILE_USER);
        ask_for(other, at("\"path\":\"%s/x\"", silent));
        ck_assert_msg(wait_until(is_asked, &lookups, HARNESS_REPLY_MSEC), "nothing is looked up");
        make_file(at("%s/d/doubtful", root));
        await_event(fd, "rescan", root);
        ck_assert_str_eq(take_error(other), "EAGAIN");
        make_file(at("%s/d/certain", root));
        await_event(fd, "create", at("%s/d/certain", root));
        ask_for(other, at("\"path\":\"%s\"", root));
        ck_assert_str_eq(take_error(other), "");
        (void)close(other);
        (void)close(fd);
}
END_TEST

static bool has_two_stand_ins(void *userdata _unused_) {
        return holdings_named(kevd->pid, "kevd-stand-in") == 2;
}

/* A watch waits for its directory, and the path leads to silence. Once that is over it is looked for again. */
START_TEST(test_waits_beyond_silence) {
        unsigned lookups = silent_lookups() + 1;
        const char *root, *path;
        int fd;

        need_stand_ins();
        root = own_directory("hostile", HOSTILE_USER);
        path = at("%s/link/x", root);
        fd = client_connect_as(kevd->socket, HOSTILE_USER);
        ask_for(fd, at("\"path\":\"%s\",\"notes\":[\"create\",\"gone\",\"back\"]", path));
        ck_assert_str_eq(take_error(fd), "");
        assert_system(symlink(silent, at("%s/link", root)) == 0, "symlink");
        ck_assert_msg(wait_until(is_asked, &lookups, HARNESS_REPLY_MSEC), "nothing is looked up");
        ck_assert_msg(wait_until(has_two_stand_ins, NULL, HARNESS_REPLY_MSEC), "there is no other stand-in");
        /* On a file system of which there are no events: only looking tells. */
        silent_end(silent_server, silent);
        silent_server = -1;
        make_dir(at("%s/x", silent));
        await_event(fd, "back", path);
        (void)close(fd);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("hostile");
        TCase *c = harness_case(suite, "kinds");

        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 300);
        tcase_add_loop_test(c, test_kind, 0, (int)n_hostile_kinds);

        c = harness_case(suite, "limits");
        tcase_add_checked_fixture(c, start, stop);
        tcase_set_timeout(c, 120);
        tcase_add_test(c, test_turns);
        tcase_add_test(c, test_stuck_deputies);
        tcase_add_test(c, test_stuck_own_user);
        tcase_add_test(c, test_stuck_stand_ins);
        tcase_add_test(c, test_silent_path);
        tcase_add_test(c, test_waits_beyond_silence);
        return harness_main(argc, argv);
}
