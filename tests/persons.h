/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Users, each of them a process with the credentials of that user: it connects to the daemon, and it is the
 * reference for what the user may see, by what inotify(7) tells it. Takes root. What goes wrong fails the test.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct person_page;

struct person {
        const char *name;
        bool is_root;
        pid_t pid;
        int socket;
        struct person_page *page; /* what both sides read and write */
};

/* Real, effective and saved ids, and the supplementary groups, are these. */
struct person *person_new(const char *name, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups);
void person_free(struct person *person);

/* A connection that is the person's: the peer is its process, which lives on. The caller closes it. */
int person_connect(struct person *person, const char *socket_path);
/* Opens the path without reading it, O_PATH, as the person can. */
int person_open_path(struct person *person, const char *path);
/* 0 if the person may read the directory, or else why not (an errno value). */
int person_may_read(struct person *person, const char *path);

/* Watches those of the directories (each with a NUL behind it) of which the person may be told now, and no other. */
void person_watch(struct person *person, const char *directories, size_t size);
/* Whether the directory is one of those. */
bool person_watches(struct person *person, const char *path);
/* What was seen since then: lines "NOTE PATH" and "rename PATH -> PATH". They live until the next request. */
const char *person_read(struct person *person);
