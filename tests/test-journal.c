/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The log in the journal: what comes at its socket when standard error is the journal's. In journald's place stands the
 * test itself, in a mount namespace of its own.
 */

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"
#define NOT_A_CALL "eae5253d3acd46e3a6f3d7d14efbcbb4"

enum {
        BURST = 20,        /* lines of a kind and a user */
        PERIOD_MSEC = 10000,
};

/* ---- in journald's place -------------------------------------------------------------------------------- */

static int journal; /* its socket, or -1 */

static void log_path(char path[static PATH_MAX]) {
        format(path, PATH_MAX, "%s/kevd-1.log", harness_tempdir());
}

/* What the daemon has as its standard error, under the name by which the harness opens it, is said to be the journal's. */
static void begin(void) {
        char path[PATH_MAX], stream[64];
        struct stat st;
        int fd;

        journal = -1;
        if (geteuid() != 0)
                harness_skip("takes root, who can have a /run of its own");
        assert_system(chmod(harness_tempdir(), 0711) == 0, "chmod");
        if (unshare(CLONE_NEWNS) < 0)
                harness_skip("there can be no mount namespace here");
        assert_system(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
                              mount("tmpfs", "/run", "tmpfs", 0, NULL) == 0 && mkdir("/run/systemd", 0755) == 0 &&
                              mkdir("/run/systemd/journal", 0755) == 0,
                      "/run");
        log_path(path);
        fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_system(fd >= 0 && fstat(fd, &st) == 0, path);
        (void)close(fd);
        format(stream, sizeof(stream), "%llu:%llu", (unsigned long long)st.st_dev, (unsigned long long)st.st_ino);
        ck_assert_int_eq(setenv("JOURNAL_STREAM", stream, 1), 0);
}

static void end(void) {
        if (journal >= 0)
                (void)close(journal);
}

static void listen_as_journal(void) {
        struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = JOURNAL_SOCKET };

        journal = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        assert_system(journal >= 0 && bind(journal, (struct sockaddr *)&address, sizeof(address)) == 0 &&
                              chmod(JOURNAL_SOCKET, 0666) == 0,
                      JOURNAL_SOCKET);
}

/* The next entry, which lives until the one after it. False: none came in time. */
static char entry[65536];

static bool next_entry(int timeout_msec) {
        struct pollfd p = { .fd = journal, .events = POLLIN };
        ssize_t n;

        if (poll(&p, 1, timeout_msec) <= 0)
                return false;
        n = recv(journal, entry, sizeof(entry) - 1, 0);
        assert_system(n > 0, "recv");
        entry[n] = 0;
        ck_assert_int_eq(entry[n - 1], '\n');
        return true;
}

/* "" if the entry has none. */
static const char *field(const char *name) {
        static char value[2048];
        size_t n = strlen(name);

        for (const char *line = entry; *line; line = strchr(line, '\n') + 1)
                if (strncmp(line, name, n) == 0 && line[n] == '=') {
                        format(value, sizeof(value), "%.*s", (int)strcspn(line + n + 1, "\n"), line + n + 1);
                        return value;
                }
        return "";
}

/* Passes over what else is logged. */
static void expect_entry(const char *message_id) {
        for (int64_t deadline = now_msec() + 2 * PERIOD_MSEC; now_msec() < deadline;)
                if (next_entry((int)(deadline - now_msec())) && strcmp(field("MESSAGE_ID"), message_id) == 0)
                        return;
        ck_abort_msg("no entry %s", message_id);
}

static size_t count_entries(const char *message_id) {
        size_t n = 0;

        while (next_entry(0))
                n += strcmp(field("MESSAGE_ID"), message_id) == 0;
        return n;
}

/* ---- what peers do ----------------------------------------------------------------------------------------- */

static void offend(const struct daemon *daemon, uid_t uid) {
        int fd = uid == 0 ? client_connect(daemon->socket) : client_connect_as(daemon->socket, uid);

        client_send_message(fd, "nonsense");
        client_expect_close(fd, HARNESS_REPLY_MSEC);
        (void)close(fd);
}

static void expect_service(const struct daemon *daemon) {
        int fd = client_connect(daemon->socket);

        json_object_put(client_call(fd, "org.kevd.events.GetLimits", NULL));
        (void)close(fd);
}

static void send_nonsense(int fd) {
        client_send_message(fd, "nonsense");
}

static void send_long(int fd) {
        static char text[64 * 1024];

        memset(text, ' ', sizeof(text));
        client_send(fd, text, sizeof(text));
}

static void send_fds(int fd) {
        int fds[16];

        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                fds[i] = STDIN_FILENO;
        client_send_with_fds(fd, "{", 1, fds, ARRAY_SIZE(fds));
}

/* More than two messages can have. */
static void send_many_fds(int fd) {
        int fds[16], r;

        for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
                fds[i] = STDIN_FILENO;
        for (int i = 0; i < 32; i++) {
                struct pollfd p = { .fd = fd, .events = POLLOUT };

                r = poll(&p, 1, HARNESS_REPLY_MSEC);
                if (r == 1 && p.revents & (POLLHUP | POLLERR))
                        return;
                client_send_with_fds(fd, " ", 1, fds, ARRAY_SIZE(fds));
        }
}

/* And reads none of the replies. */
static void send_calls(int fd) {
        static const char call[] = "{\"method\":\"org.varlink.service.GetInterfaceDescription\","
                                   "\"parameters\":{\"interface\":\"org.kevd.events\"}}";

        for (int i = 0; i < 200; i++)
                if (send(fd, call, sizeof(call), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
                        return;
}

static void send_nothing(int fd _unused_) {
}

static const struct {
        const char *name, *option, *message_id;
        void (*offend)(int fd);
} kinds[] = {
        { "not a call", "--mode=user", NOT_A_CALL, send_nonsense },
        { "too long", "--mode=user", "3b0eb39c03654330af5fc106620d6080", send_long },
        { "too many descriptors", "--mode=user", "87d117f5bc23481c916e5eccf18d72db", send_many_fds },
        { "descriptors over the limit", "--limit-descriptors=10", "5d8a19b85b954fa589601f3cc5b51e99", send_fds },
        { "descriptors left", "--mode=user", "dbabe660fb0741d788a4925c0175ffc8", send_fds },
        { "unread replies", "--limit-output-bytes=65536", "89fca5a0b5b942239625f8aadcb3ee71", send_calls },
        { "connections", "--limit-connections=1", "4e9a8d053f384bb2b96e4fa987e365b7", send_nothing },
};

/* ---- tests ----------------------------------------------------------------------------------------------------- */

START_TEST(test_kind) {
        struct daemon *daemon;
        char pid[32];
        int fd, first;

        harness_label(kinds[_i].name);
        listen_as_journal();
        daemon = daemon_start(kinds[_i].option);
        ck_assert_int_eq(chmod(daemon->socket, 0666), 0);
        first = client_connect_as(daemon->socket, OTHER_CLIENT);
        fd = kinds[_i].offend == send_nothing ? client_connect_as(daemon->socket, OTHER_CLIENT) : first;
        kinds[_i].offend(fd);
        expect_entry(kinds[_i].message_id);
        format(pid, sizeof(pid), "%d", (int)getpid());
        ck_assert_str_eq(field("KEVD_PEER_PID"), pid);
        ck_assert_str_eq(field("KEVD_PEER_UID"), "65534");
        ck_assert_str_eq(field("PRIORITY"), "6");
        ck_assert_str_eq(field("SYSLOG_IDENTIFIER"), "kevd");
        ck_assert_msg(strstr(field("MESSAGE"), "ended: "), "%s", entry);
        if (fd != first)
                (void)close(fd);
        (void)close(first);
        expect_service(daemon);
        daemon_stop(daemon);
}
END_TEST

/* One user's are left out beyond some, another's are not; and it is said how many were. */
START_TEST(test_flood) {
        enum { ROUNDS = 300 };
        struct daemon *daemon;
        size_t n_kept, n_left_out = 0;

        listen_as_journal();
        daemon = daemon_start(NULL);
        ck_assert_int_eq(chmod(daemon->socket, 0666), 0);
        n_kept = 0;
        for (int i = 0; i < ROUNDS; i++) {
                offend(daemon, OTHER_CLIENT);
                n_kept += count_entries(NOT_A_CALL);
        }
        ck_assert_uint_ge(n_kept, BURST);
        ck_assert_uint_lt(n_kept, ROUNDS / 2); /* a slow machine has several periods */
        offend(daemon, 0);
        expect_entry(NOT_A_CALL);
        ck_assert_str_eq(field("KEVD_PEER_UID"), "0");
        for (int64_t deadline = now_msec() + 3 * PERIOD_MSEC; n_left_out == 0 && now_msec() < deadline;) {
                offend(daemon, OTHER_CLIENT);
                while (n_left_out == 0 && next_entry(100)) {
                        const char *text = strstr(field("MESSAGE"), " (");

                        n_left_out = text ? strtoul(text + 2, NULL, 10) : 0;
                }
        }
        ck_assert_uint_ge(n_left_out, ROUNDS - n_kept);
        daemon_stop(daemon);
}
END_TEST

/* A journal that takes nothing holds nobody up, and is told later that something was lost. */
START_TEST(test_full) {
        struct daemon *daemon;
        bool told = false;

        listen_as_journal();
        daemon = daemon_start(NULL);
        ck_assert_int_eq(chmod(daemon->socket, 0666), 0);
        /* More lines than net.unix.max_dgram_qlen allows: the limit is each user's. */
        for (uid_t uid = 60000; uid < 60050; uid++)
                for (int i = 0; i < BURST; i++)
                        offend(daemon, uid);
        expect_service(daemon);
        while (next_entry(0)) /* it may have found room for that already */
                told |= strstr(field("MESSAGE"), "lines of the log were lost") != NULL;
        for (int64_t deadline = now_msec() + 3 * PERIOD_MSEC; !told && now_msec() < deadline;) {
                offend(daemon, 0);
                while (!told && next_entry(100))
                        told = strstr(field("MESSAGE"), "lines of the log were lost");
        }
        ck_assert(told);
        daemon_stop(daemon);
}
END_TEST

/* Whatever a peer calls itself or its files, a line stays a line; here by what the configuration's author wrote. */
START_TEST(test_control_characters) {
        char path[PATH_MAX], option[PATH_MAX + 16];
        struct daemon *daemon;
        FILE *file;

        listen_as_journal();
        format(path, sizeof(path), "%s/kevd.conf", harness_tempdir());
        file = fopen(path, "we");
        assert_system(file, path);
        ck_assert_int_eq(fclose(file), 0);
        format(option, sizeof(option), "--config=%s", path);
        daemon = daemon_start(option);
        file = fopen(path, "we");
        (void)fprintf(file, "log-level = a\x1b[31mb\rPRIORITY=0\n");
        ck_assert_int_eq(fclose(file), 0);
        assert_system(kill(daemon->pid, SIGHUP) == 0, "kill");
        expect_entry("06e0549539ea4da9852746bfcecf33cc");
        ck_assert_msg(strstr(field("MESSAGE"), "kevd.conf:1: log-level: \"a?[31mb?PRIORITY=0\""), "%s", entry);
        ck_assert_str_eq(field("PRIORITY"), "3");
        file = fopen(path, "we");
        ck_assert_int_eq(fclose(file), 0);
        assert_system(kill(daemon->pid, SIGHUP) == 0, "kill");
        expect_entry("d4e802eef41a4083a9ef0ba272c6f060");
        ck_assert_str_eq(field("PRIORITY"), "5");
        daemon_stop(daemon);
}
END_TEST

/* The same journal reads standard error, with the level in front. */
START_TEST(test_no_socket) {
        struct daemon *daemon = daemon_start(NULL);
        char path[PATH_MAX], log[4096];
        FILE *file;

        offend(daemon, 0);
        daemon_stop(daemon);
        log_path(path);
        file = fopen(path, "re");
        assert_system(file, path);
        log[fread(log, 1, sizeof(log) - 1, file)] = 0;
        (void)fclose(file);
        ck_assert_msg(strstr(log, "<6>connection of pid "), "%s", log);
        ck_assert_msg(!strstr(log, "kevd: "), "%s", log);
}
END_TEST

int main(int argc, char *argv[]) {
        Suite *suite = harness_suite("journal");
        TCase *c;

        c = harness_case(suite, "entries");
        tcase_set_timeout(c, 90);
        tcase_add_checked_fixture(c, begin, end);
        tcase_add_loop_test(c, test_kind, 0, ARRAY_SIZE(kinds));
        tcase_add_test(c, test_control_characters);
        tcase_add_test(c, test_no_socket);

        c = harness_case(suite, "flood");
        tcase_set_timeout(c, 90);
        tcase_add_checked_fixture(c, begin, end);
        tcase_add_test(c, test_flood);
        tcase_add_test(c, test_full);
        return harness_main(argc, argv);
}
