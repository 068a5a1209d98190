/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A service manager as kevd sees it: it listens for it, hears what it says (sd_notify(3)), keeps its descriptors
 * (FDSTORE=1), and hands them to the next one (sd_listen_fds(3)), the newest first, as systemd does. What goes wrong
 * fails the test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct manager;

/* Options as of daemon_start(). Nothing runs yet; who connects to the socket waits. */
struct manager *manager_new(const char *const *options);
/* Kills what runs. */
void manager_free(struct manager *manager);
const char *manager_socket(const struct manager *manager);
pid_t manager_pid(const struct manager *manager);

/* On return it is ready. */
void manager_start(struct manager *manager);
/* SIGTERM; on return it has ended well. */
void manager_stop(struct manager *manager);
/* The same, but hears nothing of what it says before it has ended. */
void manager_stop_unheard(struct manager *manager);
void manager_kill(struct manager *manager);
/* It ends by itself, and says that it has failed. */
void manager_wait_failed(struct manager *manager);

/* Hears what it says until so many are in the store. */
void manager_wait_stored(struct manager *manager, size_t n);

/* Of the store. */
size_t manager_n_stored(const struct manager *manager);
bool manager_has_stored(const struct manager *manager, const char *name);
/* Forgets that one, or all with NULL. */
void manager_drop(struct manager *manager, const char *name);
/* Puts the descriptor there instead. Takes it over. */
void manager_replace(struct manager *manager, const char *name, int fd);
/* From now on what is to be removed stays, as if that had never been heard. */
void manager_ignore_removals(struct manager *manager);
/* What systemd's own reload does to the order of all that it has: it is the other way round. */
void manager_reload(struct manager *manager);
/* The test's own copy. */
int manager_take_copy(const struct manager *manager, const char *name);
