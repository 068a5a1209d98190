/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What the tests of the daemon on D-Bus have in common: a client of it there, one on Varlink beside it, and a look at
 * its log. The bus itself is in buses.h. What goes wrong fails the test.
 */

#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>
#include <systemd/sd-bus.h>

#include "harness.h"

#define LOG_PATH "/org/freedesktop/LogControl1"
#define LOG_INTERFACE "org.freedesktop.LogControl1"
#define MANAGER_PATH "/org/kevd/Manager"
#define MANAGER_INTERFACE "org.kevd.Manager"

/* ---- D-Bus ----------------------------------------------------------------------------------------------- */

/* The caller frees it. */
char *get_string(sd_bus *bus, const char *path, const char *interface, const char *property);
void expect_string(sd_bus *bus, const char *path, const char *interface, const char *property, const char *expected);
/* Of the manager. */
int64_t get_figure(sd_bus *bus, const char *property);
/* Of the log. NULL, or the name of the error, which the caller frees. */
char *set_string(sd_bus *bus, const char *property, const char *value);
void set_level(sd_bus *bus, const char *level);

/* What a method of the manager returns: an object, which the caller frees with json_object_put(). */
struct json_object *call_manager(sd_bus *bus, const char *method);

/* ---- Varlink --------------------------------------------------------------------------------------------- */

/* Its id is 1. */
void watch_name(int fd, const char *name);
/* One watch has that name. */
void trigger(int fd, const char *name);
/* One is due. */
void expect_event(int fd);
/* What the daemon is for. */
void expect_service(const struct daemon *daemon);

/* ---- the log --------------------------------------------------------------------------------------------- */

/* Sends what is not a call, of which the daemon's log tells at the level info. */
void make_log_line(const struct daemon *daemon);
/* How often the first daemon's log has the text. */
int count_in_log(const char *text);
