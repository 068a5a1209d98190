/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Processes of a test that do what they are asked on a SOCK_SEQPACKET socket, and answer with a descriptor, or without
 * one. There are no assertions here: these are the test's.
 */

#include <stdbool.h>

/* ---- in the process ------------------------------------------------------------------------------- */

/* Closes the descriptor, which may be -1. Ends the process if nobody hears it. */
void send_answer(int socket, int fd);
/* What listens at this path, or -1. */
int connect_to(const char *path);

/* ---- in the test ---------------------------------------------------------------------------------- */

/* -1: the answer has none. False: there is no answer. */
bool receive_answer(int socket, int *ret_fd);
