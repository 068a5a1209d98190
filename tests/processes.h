/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What programs about processes have in common: a system daemon that follows all of them, what a watch tells of them,
 * processes that are children neither of the daemon nor of the client and do as they are told, and storms of short
 * ones. What goes wrong fails the test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "harness.h"

/* Nobody's ids, which need not be known to the system; nor those of another test that runs at the same time, whose
 * processes a watch of a user's would tell as well. */
extern uid_t processes_user;
#define USER ((int)processes_user)
#define STRANGER ((int)processes_user + 1)

#define ANY INT64_MIN

/* ---- the daemon -------------------------------------------------------------------------------------------------- */

/* A system daemon with a feed of all processes, that every user may connect to. Where there is no such feed the test is
 * skipped. `option`: one more, or NULL. */
struct daemon *start_following(const char *option);
/* Where the daemon has no such feed the test is skipped. */
void need_feed_at(const char *socket);

/* Without kprobes BPF can't tell when user ids change, but with exec(2): another note after others, or "". */
const char *uid_note(const struct daemon *daemon);
/* Skips the test there. */
void need_uid_note(const struct daemon *daemon);

/* So many processes in a storm: $KEVD_STORM_PROCESSES, or the number. */
int storm_size(int usual);

/* All forks of the machine since the boot, threads too (proc_stat(5)). */
int64_t count_forks(void);

/* How many pidfds the daemon has. */
size_t count_pidfds(const struct daemon *daemon);
void expect_pidfds(const struct daemon *daemon, size_t n);

/* ---- the protocol ------------------------------------------------------------------------------------------------ */

/* Text is JSON with ' for ". `error`: the errno of the only refusal, or "". */
void change(int fd, const char *error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* The members of one proc watch, without the filter. */
void watch(int fd, const char *error, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* For exit and reap. */
void watch_pid(int fd, const char *error, int64_t id, pid_t pid);
/* What the refusal says. It lives until the next. */
const char *refusal_message(void);

/* Events that are due in time, up to a limit of the daemon's. Returns how many came. */
typedef void event_fn(struct json_object *event, void *userdata);
size_t take_events(int fd, int timeout_msec, event_fn *fn, void *userdata);

bool is_note(struct json_object *event, const char *note);
/* 0: the event is about none. */
pid_t pid_of(struct json_object *event);

/* The next one that is not `lost`: what could not be judged is, somewhere else on the machine. */
struct json_object *next_told(int fd);

/* The next one is this; `data` may be ANY. A watch of id 0 is of all processes: what it tells of others is passed over.
 * The event's flag eof is returned. */
bool expect(int fd, int64_t id, const char *note, pid_t pid, int64_t data);
/* Nothing is due, but what the watch of id 0 tells of others than these processes. */
void expect_only_others(int fd, const pid_t *pids, size_t n);

/* Where nothing of others can come between: the next event is this. */
void expect_event(int fd, int64_t id, const char *note, pid_t pid, int status);
/* It has this note alone. */
void check_event(struct json_object *event, int64_t id, const char *note, pid_t pid);
/* As of wait(2): data, exit code and signal belong together. */
void check_status(struct json_object *event, int status);

/* ---- processes of somebody else ---------------------------------------------------------------------------------- */

/* A process in between. It makes children as it is told, and reaps them when told, and those that they leave behind. */
struct maker {
        pid_t pid;
        int fd, go_fd;
};

/* All its ids are these; 0: as they are here. It holds what is open here by then, connections too. */
struct maker maker_start(uid_t uid);
/* All its children have been told to end. */
void maker_stop(struct maker *maker);

/* In the child; what it returns is the exit code. */
typedef int run_fn(int argument);

pid_t maker_fork(const struct maker *maker, run_fn *run, int argument);
/* The i-th gets argument i. */
void maker_fork_many(const struct maker *maker, run_fn *run, int n, pid_t *ret_pids);
/* A child with this pid, which is free. False: somebody else was faster. */
bool maker_fork_as(const struct maker *maker, run_fn *run, int argument, pid_t pid);
/* Returns its status. */
int maker_reap(const struct maker *maker, pid_t pid);
/* So many, whichever, each as soon as it has ended, while the test goes on; and waits for the last. */
void maker_begin_reaping(const struct maker *maker, int n);
void maker_end_reaping(const struct maker *maker);
/* Until the process is a zombie. */
void wait_zombie(pid_t pid);

/* In children: until go() lets one of them go on. */
void wait_go(void);
void go(const struct maker *maker, size_t n);
/* In children: the descriptor that go()'s bytes come from. */
int go_input(void);
/* In children that have been let go on, too: something to tell the test, which it reads with hear(). */
void say(const void *data, size_t size);
void hear(const struct maker *maker, void *data, size_t size);

int run_exit(int code);         /* when it may go on */
int run_exit_at_once(int code);
int run_code_of_pid(int unused);

int code_of(pid_t pid);

/* ---- storms ------------------------------------------------------------------------------------------------------ */

/* Two processes that start short ones, one after the other, which end with code_of(). */
struct storm {
        pid_t writers[2];
        int n;
};

/* `name`: what all of them are called. */
struct storm storm_begin(int n, const char *name);
void storm_end(struct storm *storm);
/* Of them, or a writer itself. */
bool is_of_storm(const struct storm *storm, struct json_object *event);
