/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The daemon's side of the broker and its helpers: asking never waits, and answers
 * come as calls from the loop, a helper's in the order of its questions.
 */

#include "list.h"
#include "mux.h"
#include "question.h"

struct broker;

/* Takes the socket over. */
int broker_open(struct mux *mux, int fd, struct broker **ret_broker);
struct mux *broker_mux(const struct broker *broker);
/* `failed` is deferred when the broker has ended, or what a helper keeps for the daemon is gone (broker_fail()). Without
 * it nobody is told, as with NULL. */
void broker_watch(struct broker *broker, struct mux_deferred *failed);
/* The daemon can't go on as it is. */
void broker_fail(struct broker *broker, const char *why);
bool broker_has_failed(const struct broker *broker);
/* No helper may be left. */
struct broker *broker_close(struct broker *broker);

struct helper;
/* A helper is ready, or (with a positive errno) is not to be had, or has ended; then it has to be closed before it can
 * be started again. `fd`: a surveyor's fanotify group, or a network namespace's socket, the callee's from here on. */
typedef void helper_fn(struct helper *helper, int error, int fd);

enum helper_state {
        HELPER_CLOSED,
        HELPER_ASKED_FOR, /* the broker will send its socket */
        HELPER_STARTING,  /* it will say whether it can work */
        HELPER_READY,
        HELPER_ENDED,
};

/* Embedded in its owner. Questions may be asked from the start on. */
struct helper {
        struct broker *broker;
        enum helper_state state;
        struct list link; /* among those that the broker was asked for */
        struct mux_io io;
        helper_fn *fn;
        void (*has_socket)(struct helper *helper); /* or NULL, as it begins: HELPER_STARTING */
        struct list unsent, sent; /* questions */
        uint64_t moved_nsec; /* CLOCK_MONOTONIC: its last answer, or the first question after it */
        struct helper *heir; /* takes its place among those, should it be closed before */
        char *space;
};

/* 0, or a negative errno; `fn` is not called from within. */
int helper_start(struct broker *broker, struct helper *helper, const struct helper_request *request, helper_fn *fn);
/* The same with a descriptor, which is borrowed for the call. */
int helper_start_with(struct broker *broker, struct helper *helper, const struct helper_request *request, int fd,
                      helper_fn *fn);
/* Until the broker has sent its socket: for what can't go on without. False: it has not, or there will be none. */
bool helper_wait(struct helper *helper, uint64_t deadline_nsec);
/* Questions that are open are forgotten. */
void helper_close(struct helper *helper);
/* Of one that is there and is not for questions: its socket, the caller's from here on. It is closed by that. */
int helper_take_socket(struct helper *helper);

/* A part of an answer, or the whole; `bytes` live until the return. With a helper that has ended the error is EIO, and
 * with one that was abandoned ETIMEDOUT for the question that it was at. */
typedef void answer_fn(void *owner, const struct answer *answer, const char *bytes);

struct asked; /* a question under way */

/* `path` may be NULL; `fd`, or -1, is borrowed until the answer. NULL: no memory, or the helper has ended. */
struct asked *helper_ask(struct helper *helper, const struct question *question, const char *path, int fd,
                         answer_fn *fn, void *owner);
/* Nobody waits for the answer any more. */
void asked_forget(struct asked *asked);
/* Since when it has said nothing, though it was asked something: CLOCK_MONOTONIC. 0: it has answered all. */
uint64_t helper_waits_since(const struct helper *helper);
/* Of one that is ready: those that have come. */
void helper_take_answers(struct helper *helper);
/* Of one that is asked something: for the daemon it has ended, with ETIMEDOUT. Its socket is the caller's. */
int helper_abandon(struct helper *helper);
