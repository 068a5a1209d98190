/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What tests of one daemon after another share: a service manager of the test's own (manager.h), and a client that
 * keeps its connection from each daemon to the next. What goes wrong fails the test.
 */

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-c/json.h>

#include "harness.h"
#include "manager.h"

enum {
        MANY = 400, /* clients */
        STORED_TABLE = 1,
        STORED_EACH = 2, /* the connection, and its watches */
};

extern struct manager *manager;
extern int client;

/* ---- daemons ------------------------------------------------------------------------------ */

void begin(const char *const *options);
/* With inotify. */
void setup(void);
void teardown(void);

void restart(void);
/* How many events it has taken over, or made for what may be missing. Each has become of something. */
int64_t count_restored(void);
/* Starts one that goes on with nothing of the last one's: the connection ends, and the client makes another. */
void expect_clean_start(void);

/* ---- what a client does ------------------------------------------------------------------- */

#define USER_WATCH "{\"id\":7,\"filter\":\"user\",\"name\":\"bell\"}"

void watch_it(const char *text);
void watch_fd(const char *text, int fd);
void trigger(const char *name, int data);
/* A call without waiting for its reply. */
void send_call(const char *method, const char *parameters, const char *more);

/* The next event, which has this note and these values. */
struct json_object *expect(const char *note);
void expect_data(const char *note, int64_t data, int64_t seq);
void expect_path(const char *note, const char *path);
void expect_silence(void);

/* Each with a watch of a name of its own; `client` is the first. */
void connect_many(int clients[MANY]);
/* Each is told of its own, and nothing was told before. All but the first are closed. */
void expect_of_many(int clients[MANY]);
