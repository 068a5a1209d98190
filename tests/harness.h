/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What every test program is built on: Check (libcheck), with results as TAP, skipping, and a look
 * at what a test leaves behind.
 *
 * A program makes suites with harness_suite(), cases in them with harness_case(), adds its tests
 * with Check's tcase_add_test(), and ends in harness_main(). Each test runs in a process of its
 * own, so that a crash fails one test. A test fails, too, if it ends with other descriptors open
 * than it began with, or with a child process: fixtures of the case's own have cleaned up by then.
 *
 * Everything below may be called within a test or a checked fixture only, but for the first three.
 * What goes wrong in it fails the test, so that callers need not look. A daemon's log is shown with
 * the message when a test fails.
 */

#include <check.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

struct json_object;

enum {
        HARNESS_CASE_SECONDS = 30,  /* for one test, unless tcase_set_timeout() says otherwise */
        HARNESS_REPLY_MSEC = 10000, /* bound for what comes at once on an idle machine */
};

/* For system calls: says what failed, and errno's text. */
#define assert_system(expression, what) ck_assert_msg((expression), "%s: %s", (what), strerror(errno))

/* Suites run in the order in which they were made. The names appear in TAP as "suite:case:test", and
 * hold no colon. No two programs have a suite of the same name. */
Suite *harness_suite(const char *name);
TCase *harness_case(Suite *suite, const char *name);

/* Runs all suites, or what the command line names as SUITE or SUITE:CASE. Returns main()'s value: 0 if
 * no test failed. Frees the suites. */
int harness_main(int argc, char *argv[]);

/* Ends the test as skipped; the case's own teardown does not run. The reason is one line. */
void harness_skip(const char *reason) __attribute__((noreturn));

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { IS_SANITIZED = 1 };
#else
enum { IS_SANITIZED = 0 };
#endif

/* How often to do what is done over and over: less with the sanitizers, which find other faults, and under which it
 * takes several times as long. */
static inline int harness_rounds(int n) {
        return IS_SANITIZED ? (n + 4) / 5 : n;
}

/* Adds to the test's name what a loop test is about: a file of a corpus, say. */
void harness_label(const char *label);

/* A directory of this test's own, mode 0700, absolute, the same on each call, short enough for a
 * socket's address. It is removed after the test with all that is in it. */
const char *harness_tempdir(void);

/* CLOCK_MONOTONIC. */
int64_t now_msec(void);

/* Whether `predicate` became true in time; it is asked every millisecond or so. */
bool wait_until(bool (*predicate)(void *userdata), void *userdata, int timeout_msec);

/* As snprintf(3); all of it fits. */
void format(char *text, size_t size, const char *form, ...) __attribute__((format(printf, 3, 4)));

/* A child, which does nothing until it is killed and reaped. */
pid_t start_process(void);
/* This one, or another that goes on until it is killed: if it has ended before, something has failed in it. */
void end_process(pid_t pid);

/* ---- the daemon ------------------------------------------------------------ */

struct daemon {
        pid_t pid;
        char *socket; /* where it listens */
        int pidfd;
        int notify_fd; /* what it tells the service manager: one datagram a message */
};

/*
 * Runs kevd ($KEVD) with the given options (up to a NULL) behind --listen=SOCKET and --mode=user. On
 * return it has reported that it is ready. It finds no configuration of the user's, and no bus but one
 * that the test has put into the environment. It ends with the test at the latest.
 */
struct daemon *daemon_start_with(const char *const *options);

/* daemon_start(NULL), daemon_start("--mux=poll", "--log-level=debug") */
#define daemon_start(...) daemon_start_with((const char *const[]){ __VA_ARGS__, NULL })

/* Ends it with SIGTERM, frees it, and fails the test unless its exit status was 0. */
void daemon_stop(struct daemon *daemon);

/* How many descriptors are open, and 2 for "." and "..": to be compared with another such count. */
size_t n_fds_of(pid_t pid);

/* How many inotify watches the process holds, on all its instances. */
size_t daemon_fdinfo_inotify_watches(pid_t pid);
/* A process that the daemon's broker has started, by its name; of several the one with the highest number. 0: there is
 * none. */
pid_t daemon_find_helper(pid_t daemon, const char *name);
/* Sends it to all of that name. Returns how many there are. */
size_t daemon_signal_helpers(pid_t daemon, const char *name, int signal);

/* Waits until what was lost, as the kernel has announced so far, was looked at again. Returns how many losses. */
int64_t daemon_expect_repaired(const struct daemon *daemon);

/* Waits until so many are left: what is not needed any more is let go of in its own time. */
void daemon_expect_watches(const struct daemon *daemon, size_t n);

/* Daemons follow processes by BPF ($KEVD_PROCESS_FEED). Where that can't be, daemon_start() skips the test. */
bool daemon_is_on_bpf(void);
/* By BPF or the connector. */
bool daemon_is_on_feed(void);

/* Daemons serve trees with fanotify, which holds none ($KEVD_FILE_MECHANISM). Where it is not to be had for the
 * temporary directory, daemon_start() skips the test then. */
bool daemon_is_on_fanotify(void);

/* NULL, or why a test's directory can't be watched with fanotify here. */
const char *fanotify_missing(void);

/* Skips the test where that is so. */
void need_fanotify(void);

/* So many watches that inotify takes, as they are with the mechanism at hand. */
static inline size_t on_inotify(size_t n) {
        return daemon_is_on_fanotify() ? 0 : n;
}

/* ---- a client without the library ------------------------------------------ */

/* Connected to the socket; the caller closes it. */
int client_connect(const char *socket_path);

/* The same as another user, which only root can be. */
enum { OTHER_CLIENT = 65534 };

/* Whatever connects in between is another user's than the daemon's if $KEVD_OTHER_CLIENT is set, and daemons are a
 * system's then, so that files are watched by deputies. */
bool client_is_other(void);
void client_begin(void);
void client_end(void);

int client_connect_as(const char *socket_path, uid_t uid);

/* All of the bytes, with up to 16 descriptors beside the first of them. */
void client_send(int fd, const void *data, size_t size);
void client_send_with_fds(int fd, const void *data, size_t size, const int *fds, size_t n_fds);

/* The text and its NUL byte. */
void client_send_message(int fd, const char *text);

/* One message, which the caller frees with json_object_put(), or NULL if none came in time. A part of
 * one, anything but a JSON object, or the connection's end fails the test. */
struct json_object *client_receive(int fd, int timeout_msec);

/* Sends a call (parameters: a JSON object as text, or NULL) and returns its reply, which the caller
 * frees: parameters and, for an error, error. */
struct json_object *client_call(int fd, const char *method, const char *parameters);

/* A Change of which nothing may be refused. */
void client_change(int fd, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What a Wait brings, one event, which the caller frees. No event in time fails the test; due_event() returns NULL
 * then, and waits for nothing. */
struct json_object *next_event(int fd);
struct json_object *due_event(int fd);
/* The same with as many as one Wait brings: an array. due_events() returns an empty one. */
struct json_object *next_events(int fd);
struct json_object *due_events(int fd);
/* No event is due. */
void expect_nothing(int fd);
bool has_note(struct json_object *event, const char *note);
bool has_flag(struct json_object *object, const char *flag);

/* What a JSON pointer points to in an object (RFC 6901), or NULL. It stays the object's. */
struct json_object *json_at(struct json_object *object, const char *pointer);

/* A number, which has to be there, and a text, "" if there is none. */
int64_t number_at(struct json_object *object, const char *pointer);
const char *text_at(struct json_object *object, const char *pointer);

/* Waits for the daemon to close the connection; what it sends before that is thrown away. */
void client_expect_close(int fd, int timeout_msec);
