/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * Who is told what, on fanotify: a user follows a tree through a root daemon, and has to see what a program of that
 * user could have seen with inotify, not one name more, and when all is at rest not one less. Beside it root follows
 * the same tree, and sees everything.
 *
 * Where one operation is done at a time there is such a program (persons.h): what it saw is what must be told. Tests do
 * these in steps.
 */

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "harness.h"

struct event; /* proto's */
struct person;

/* Nobody's ids: they need not be known to the system. */
enum {
        USER = 64100,
        STRANGER = 64101,
        GROUP = 64200,       /* the user's own */
        GROUP_TOO = 64201,   /* supplementary ones */
        GROUP_THREE = 64202,
        GROUP_OTHER = 64203, /* without the user */
};

extern const gid_t user_groups[2]; /* the supplementary ones */

/* A set of texts. */
struct lines {
        char **texts;
        size_t n, capacity;
};

void lines_add(struct lines *lines, const char *format, ...) __attribute__((format(printf, 2, 3)));

bool is_at_or_below(const char *path, const char *above);

/* ---- parties: who follows the tree ---------------------------------------------------------------------------- */

enum { PARTIES_MAX = 4 };

struct party {
        struct person *person;
        int fd; /* to the daemon */
        struct lines told, rescans, seen;
};

struct everybody {
        struct daemon *daemon;
        const char *root;      /* the tree that is followed */
        const char *listed;    /* came into the tree with content, which is told as created */
        const char *rescan_at; /* a rescan may come there or below, for others than root; NULL: none */
        const char *ends[2];   /* of a move: who may read both, or neither, is not to look again either */
        struct party parties[PARTIES_MAX];
        size_t n_parties;
};

extern struct everybody all;

/* Root, the user, and one who is in no group and owns nothing. */
extern struct party *const root_party, *const user_party;

/* `start` is start_parties(), or calls it. */
TCase *make_access_case(Suite *suite, const char *name, void (*start)(void));

/* A daemon, and the three, with a directory that all of them may search. Takes root. */
void start_parties(void);
void stop_parties(void);

/* Another. */
void add_party(const char *name, uid_t uid, gid_t gid, const gid_t *groups, size_t n_groups);
/* Its connection ends. */
void leave(struct party *party);

/* What becomes of a watch on the path: "" if it is made, or else the errno value's name. It lives until the next. */
const char *try_watch(int fd, const char *members);
/* Connects, and makes a watch with these members. */
void follow_with(struct party *party, const char *members);
/* All follow the tree. */
void follow(const char *root);

typedef void event_fn(struct party *party, const struct event *event, const char *json);

/* What is due, or the first that becomes so in time. Returns how many events these are. */
size_t take(struct party *party, int timeout_msec, event_fn *fn);
void drain(struct party *party, event_fn *fn);

/* 0, or the errno value of which the party may not read the directory; or else the test is wrong. */
void expect_may_read(struct party *party, const char *path, int error);

/* ---- steps: one operation, and what everybody sees of it ------------------------------------------------------ */

void step_begin(void);
void step_begin_of(struct party *party);
void step_end(const char *what);
void step_end_of(struct party *party, const char *what);

/* Does it; everybody must be told what he could see, and by no rescan. */
#define STEP(what) for (bool once_ = (step_begin(), true); once_; once_ = false, step_end(what))

/* For whoever is not root, a rescan there may take the place of an event: it became visible to him. */
#define STEP_NEW(what, path) \
        for (bool once_ = (step_begin(), all.rescan_at = (path), true); once_; \
             once_ = false, step_end(what), all.rescan_at = NULL)

/* What was done outside of steps is told, to whom is not asked. */
void skip_due(void);

/* Behind the last one. */
void tidy_steps(void);

/* ---- access control lists ------------------------------------------------------------------------------------- */

/* Skips the test where there are none. */
void need_acl(void);
/* setfacl(1)'s words. */
void set_acl(const char *entry, const char *path);
