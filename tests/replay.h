/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A model of a directory that knows only what a tree watch has told it, and a client that feeds
 * one. It begins empty, as the directory has to be when the watch is made; the events, replayed in
 * their order, must make it what is on the disk: the same names, and the same ones directories.
 *
 *   create             the entry is there; what a directory holds is told in events of its own
 *   delete, movedout   it is not, nor what was below it
 *   movedin            as create, in the place of what was there
 *   rename             it changes its place, with all below it, in the place of what was there;
 *                      where the old place isn't known, it is a create of the new one
 *   rescan             the directory is read again from the disk, with all below it
 *                      (and what is renamed away from there before, where it goes)
 *   all else           changes nothing
 *
 * Of notes that were merged, what takes away comes before what makes.
 *
 * A rescan read at once is followed by events from before the reading: they are harmless only as
 * long as they say what is there, and not what becomes of what is (a directory's rename). So a
 * client that must be right reads again when nothing more is due: REPLAY_AT_REST. REPLAY_AT_ONCE sees
 * more: whether what comes behind a rescan in the queue came behind it in truth.
 *
 * Failures fail the test, and leave the events that may explain them in a log for the harness to
 * show. Deep trees are no problem; one path may have more bytes than PATH_MAX.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "harness.h"
#include "kev.h"

struct event; /* proto's */

enum replay_rescan {
        REPLAY_STRICT, /* there must be none */
        REPLAY_AT_ONCE,
        REPLAY_AT_REST,
};

/* `root`: the watched path as the client named it. */
struct replay *replay_new(const char *root, enum replay_rescan rescan);
void replay_free(struct replay *replay);

void replay_event(struct replay *replay, const struct kev_event *event);
/* The same, as proto's event_from_json() gives it, with its text. */
void replay_raw_event(struct replay *replay, const struct event *event, const char *json);

size_t replay_n_rescans(const struct replay *replay);
/* Fails the test if something was made that was there already, or in a directory that was not: signs of
 * what was told twice, or in the wrong order. */
void replay_check_sane(struct replay *replay, const char *what);

/* Nothing is due: what has to be read again is read now. */
void replay_rest(struct replay *replay);
/* NULL: the model is what is on the disk. Otherwise the first differences, to be freed. */
char *replay_compare(struct replay *replay);
/* Fails the test with them. `what`: a word on what was done. */
void replay_check(struct replay *replay, const char *what);
/* The events so far in which the text occurs, or the last ones (NULL), go to the log. */
void replay_log(struct replay *replay, const char *text);

/* ---- a client that follows one directory --------------------------------------------------- */

struct follower {
        struct kev *kev;
        int64_t id;
        struct replay *replay;
        uint64_t seq;     /* of the last event */
        uint64_t n_events;
        uint64_t n_counted; /* kernel events that they stand for */
        uint64_t notes;   /* all that were seen */
        bool ended;       /* `gone` with eof */
};

/* A watch of a tree, which the caller may fill in further. `notes` of 0: the default ones. */
struct kev_watch *new_tree_watch(const char *path, uint64_t notes);

/* Follows the directory, which is empty, on a connection of its own, until it is gone. */
struct follower *follower_new(const struct daemon *daemon, const char *path, enum replay_rescan rescan);
/* The same on a watch that the caller has filled in; takes the watch over. */
struct follower *follower_new_with(const struct daemon *daemon, struct kev_watch *watch, const char *path,
                                   enum replay_rescan rescan);
void follower_free(struct follower *follower);

/* Takes one event: false when none came in time. `ret_event`, if given, lives until the next. */
bool follower_take(struct follower *follower, int timeout_msec, const struct kev_event **ret_event);
/* Takes all that is due: what the caller did before is then in the model. */
void follower_drain(struct follower *follower);
/* Drains, and fails unless the model is what is on the disk. */
void follower_check(struct follower *follower, const char *what);
