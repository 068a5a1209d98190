/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Network devices for the tests of netdev: namespaces, ip(8), and what a client that has nothing but its events
 * knows of the devices. ip(8) is the reference for what is there. What goes wrong fails the test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "harness.h"

/* ---- namespaces ---------------------------------------------------------------------------------- */

/* The test's process, and all that it starts, see an empty set of devices from here on. */
void enter_namespace(void);

/* Another network namespace: a process that lives in it and keeps it, and that can connect to the daemon. */
struct home {
        pid_t pid;
        int socket;
};

/* The process is this user's. Takes root. */
struct home *home_new(uid_t uid);
/* Ends the process. */
void home_free(struct home *home);
/* A connection that is the process's: the caller closes it. It keeps the namespace, as the process does. */
int home_connect(struct home *home, const char *socket_path);
/* The test is in there until home_leave(), which takes what home_enter() gave. NULL: it stays where it is. */
int home_enter(const struct home *home);
void home_leave(int before);

/* ---- ip(8) ----------------------------------------------------------------------------------------- */

void ip(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* In there. */
void ip_at(const struct home *home, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* A device is one end of a pair, as every kernel has them: its other end has a "p" behind the name, and is
 * not looked at. */
void add_device(const char *name);
bool is_other_end(const char *name);

/* Many commands in one process. They must all do well: it stops at the first that doesn't. */
FILE *ip_batch(void);
void ip_batch_end(FILE *pipe);

/* The kernel looks at the carrier of devices later than it changes, and does with it what goes with it: until that is
 * done. It is when somebody asks for a device by its name (Linux 6.8, linkwatch_sync_dev()). */
void settle_links(void);

/* What `ip -j` says: an array, which the caller frees. */
struct json_object *ip_json(const char *what);

/* ---- events ------------------------------------------------------------------------------------------ */

/* With the id 1. `members` of Watch are text that begins with a comma, or "". */
void watch(int fd, const char *members);

/* An event in one line: "v0 linkdown+flags", "v1<v0 rename", with "eof" behind its notes. */
void describe(struct json_object *event, char *text, size_t size);

/* Of the daemon's GetStatus, by a connection for that. */
int64_t status_number(const struct daemon *daemon, const char *pointer);

/* The devices as events have them. lo is left out: nothing happens to it. */
struct links {
        struct json_object *by_index; /* Link by index, as text */
};

/* As they are now in the test's namespace. */
struct links links_new(void);
void links_free(struct links *links);
void links_apply(struct links *links, struct json_object *event);
/* Whether the test's namespace is like that: "", or what is different. The text lives until the next call. */
const char *links_compare(const struct links *links);
/* The same about one device alone. */
const char *links_compare_device(const struct links *links, const char *index);
/* The same with the carriers and the IPv6 addresses, which the kernel tells in its own time. */
const char *links_compare_at_rest(const struct links *links);

/* Whether two arrays of texts have the same ones, equally often. */
bool same_texts(struct json_object *a, struct json_object *b);
