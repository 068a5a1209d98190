/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * What all commands that watch have in common: the connection, the watches and
 * what to say when one is refused, the loop with its ends (count, time, signals,
 * nothing left to watch), and standard output.
 *
 * A batch is what one kev_dispatch() hands out. Standard output is written once
 * for each, whole lines only.
 */

#include <kev.h>

#include "exec.h"
#include "options.h"
#include "process_tree.h"
#include "subject.h"

struct session;

/* Takes an event; true if it counts for --count. */
typedef bool session_take(struct session *s, struct subject *subject, const struct kev_event *event);

struct session {
        const struct options *options;
        struct kev *kev;
        session_take *take;
        struct exec *exec;    /* NULL: events are printed */
        struct process_tree *tree; /* NULL: none is drawn */
        bool says_mechanism;  /* which one serves the watches */
        bool outlives_output; /* goes on though nobody reads what it prints */
        int status;           /* what the command will exit with */

        struct subject *subjects;
        size_t n_watched; /* subjects that haven't ended */
        bool refused, lost; /* something was; the connection was */
        const char *refusal; /* the sentence for the last one, or NULL; valid until the next call */
        struct text out;
        bool colour;
        uint64_t n_taken;
        bool ended;
        bool output_lost;
};

/* Connects; a negative errno after a message. session_finish() is due in any case. */
int session_open(struct session *s, const struct options *options, session_take *take);

/*
 * Makes a watch that the user calls `name`; with `path` that is its path, too,
 * and is filled in. A refusal is said on standard error.
 */
int session_add(struct session *s, struct kev_watch *watch, const char *name, bool path);
/* The same, without a word: `refusal` has the reason. */
int session_try_add(struct session *s, struct kev_watch *watch, const char *name, bool path);
/* Says that something of `name` (or NULL) can't be done, and why (or NULL): the session won't run. */
void session_refuse(struct session *s, const char *name, int error, const char *why);

/* Nothing more will come of the subject; the last one's end is the session's. */
void session_end_subject(struct session *s, struct subject *subject);

/* Runs until an end is reached, unless something was refused; closes, and returns the exit status. */
int session_finish(struct session *s);

/* Appends the event to what is printed, as JSON or for people. */
void session_print(struct session *s, const struct subject *subject, const struct kev_event *event);
/* A session_take that prints, and counts everything. */
session_take session_take_and_print;
