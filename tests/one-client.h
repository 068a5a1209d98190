/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/* A fixture: a daemon of the test's own, and one client's connection to it. */

#include "harness.h"

extern struct daemon *daemon_;
extern int kevd; /* the connection */

void start(void);
void stop(void);
