/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the tests of the protocol have in common: calls and what is said to them, how many descriptors the daemon has,
 * and what is watched. What goes wrong fails the test.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-c/json.h>

#include "harness.h"

/* ---- the daemon ------------------------------------------------------------------------------------ */

enum { NOBODY = 65534 };

/* A daemon that every user finds. */
struct daemon *start_for_all(void);
/* Waits until it has so many descriptors, as n_fds_of() counts them. */
void expect_fds(struct daemon *daemon, size_t expected);

/* ---- a client -------------------------------------------------------------------------------------- */

#define TRIGGER_REPLIED "{\"method\":\"org.kevd.events.Trigger\",\"parameters\":{\"name\":\"n\"}}"

/* Replies are the caller's to free. A method without a dot is one of org.kevd.events. */
struct json_object *call(int fd, const char *method, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* To a message that was sent before. */
struct json_object *receive(int fd);
void expect_answers(int fd);

/* One watch that must be refused. */
void refused(int fd, const char *watch, const char *error);
/* Returns how many watches it reached. */
int64_t trigger(int fd, const char *name, int64_t data);

/* Wait(0): what is due just now. */
struct json_object *take(int fd);
size_t n_events(struct json_object *reply);

/* A message with a descriptor, and the reply to a Change that was sent so. */
void send_with_fd(int fd, int passed, const char *text);
void expect_none_refused(int fd);

/* The call that makes watches of one name, and its reply. */
void send_watches(int fd, const char *name, int first, int n);
/* The same in as many calls as it takes. */
void watch_name(int fd, const char *name, int first, int n);

/* ---- what is watched ------------------------------------------------------------------------------- */

/* In the test's directory. */
int open_new_file(const char *name);
void touch(int fd);
