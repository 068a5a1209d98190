/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * proc on a feed of all processes: what each is, who follows it, how those ended
 * that did so a while ago.
 *
 *   processes.c        the source: watches, and the feed's records as they come
 *   process_profile.c  what they are like
 *   process_table.c    those that run, and those that have ended and are waited for
 *   process_history.c  the others that have ended
 *   process_tell.c     who is to be told, and telling it
 *   process_change.c   what a record does to the table
 *   process_rescan.c   all that /proc has: at the start, and after a loss
 *   process_save.c     all of it for the next daemon
 *   feed.h             where records come from: feed_bpf.c, connector.c; feed_writer.c is theirs
 *
 * A watch is made in two steps: the process is opened, and once the feed has told
 * all that was so by then (struct pending), the table says which it is. So a pid
 * that is another's meanwhile is never taken for it.
 *
 * Not every feed knows who made a process: the connector tells whose child it is, and
 * with CLONE_PARENT a sibling has made it. What a process is made to be like - user, name,
 * program - is therefore known only if its parent and all of that's children are
 * alike (process_heritage()). What isn't known is asked, or is absent.
 */

#include "barrier.h"
#include "feed.h"
#include "glob.h"
#include "hash.h"
#include "opener_call.h"
#include "process_history.h"
#include "process_profile.h"
#include "process_subject.h"
#include "share.h"
#include "source.h"

enum process_state {
        PROCESS_RUNS,
        PROCESS_ENDED,
        PROCESS_REAPED,
};

/* How many losses the feed had told of when what a process is like was last heard: what was heard before the last of them
 * may be of the past. */
struct process_age {
        uint64_t ids, comm, program; /* its cgroup is of the program: who makes a service moves it before */
};

struct process {
        struct hash_node node; /* by pid */
        struct list order;     /* in processes->ended, the oldest first, ->unreaped, or ->zombies */
        struct list interests;
        struct process *parent; /* that runs; NULL: none is known */
        struct list children, of_parent; /* of those that run */
        size_t n_children;
        size_t n_unlike;      /* children whose profile is another */
        bool unlike_unknown;  /* there were too many to look: nobody knows */
        struct profile *profile;
        struct process_age age; /* of that */
        pid_t pid, parent_pid;
        enum process_state state;
        bool is_certain;   /* it never had a second thread: its end is that of the first */
        bool was_displaced; /* its end was told without the record, as its number was another's */
        bool is_displaced; /* it has ended, since its number is another's; the record of that is to come */
        unsigned n_tries;  /* PROCESS_RUNS, in processes->zombies: looks for the record of its end so far */
        bool first_ended;  /* its first thread has */
        bool had_record;   /* of its end */
        bool knows_status;
        int status;        /* as of wait(2), of the last thread that ended */
        bool knows_usage;
        uint64_t cpu_usec, peak_bytes;
        uint64_t seen;     /* the last rescan that has found it, or (where no record has told of its fork) that had begun */
        uint64_t forked_nsec; /* CLOCK_MONOTONIC; 0: no record has told */
        uint64_t start_time;  /* as /proc has it; 0: not read yet */
        struct profile *before_read; /* its profile was completed by asking; NULL: no, or it has changed since */
        uint64_t read_nsec;          /* when */
        uint64_t exit_usec, reap_usec;
        uint64_t ended_nsec; /* as its record has it */
        int pidfd;         /* -1: none */
        uint32_t number;   /* process_save.c: which one it is, from 1 on */
};

enum verdict {
        VERDICT_NO,
        VERDICT_YES,
        VERDICT_UNDECIDED, /* something of it isn't known */
};

/* What a process has to be like; all that is given. */
struct process_predicate {
        struct glob *exe, *comm, *cgroup; /* NULL: any */
        bool exe_has_slash, cgroup_has_slash;
        int64_t uid; /* or ABSENT */
};

/* One watch. */
struct proc_watch {
        struct subscription *subscription;
        const struct asker *asker;
        struct list link;      /* in processes->by_match, or nowhere */
        struct list all;       /* in processes->all, if it is about more than one process, or was */
        struct list tracker;   /* in processes->trackers: those of single processes, in force */
        struct list interests; /* what it follows */
        size_t n_interests;
        bool by_match, by_pidfd, sees_all;
        bool has_ended; /* its last event was told */
        uint64_t tag; /* by which the feed finds its descendants; 0: not asked for */
        struct process_predicate predicate;
        /* What was said of the last process. */
        struct profile *judged;
        enum verdict verdict;
        uint64_t n_undecided; /* processes that have ended, not told yet as lost */
        struct pending *pending;
};

/* A watch follows a process. */
struct interest {
        struct list of_process, of_watch;
        struct proc_watch *watch;
        struct process *process;
        bool is_child;  /* a descendant of what the watch is about */
        bool was_told;  /* `child` */
        bool was_hidden; /* the process is another user's by now: `trackerr` has said so */
};

/* An attach, or a barrier's, that waits for a mark. */
struct pending {
        struct list link;
        uint64_t serial;
        struct proc_watch *watch;
        struct process_subject subject; /* pidfd -1: by what it is, or of one that has ended */
        uint64_t rescan; /* the one that it needs, or 0 */
        pid_t pid;
};

enum feed_state {
        FEED_CLOSED,
        FEED_OPENING,  /* a helper is at it */
        FEED_STARTING, /* /proc is being read */
        FEED_READY,
        FEED_FAILED, /* source.reason says why */
};

struct processes {
        struct source source;
        struct mux *mux;
        const struct feed_class *feed_class;
        struct feed *feed;
        enum feed_state state;
        struct opener_call opening;
        struct mux_deferred decide; /* it is open, or is not to be had: what becomes of those who wait for it */
        size_t next_choice; /* FEED_OPENING: which feed is tried */
        bool had_shortage; /* FEED_FAILED: the next who needs it tries again */
        struct mailbox mailbox;
        struct feed_shared shared;
        uint64_t serial, passed; /* of marks: asked for, and told */
        uint64_t last_tag;
        struct list undecided;   /* those that came before there was a feed */
        struct list pending;     /* by serial */
        struct barriers barriers;
        struct mux_timer idle_timer;
        struct chunk *chunk;       /* that is being taken; NULL: none is */
        size_t n_taken;            /* of its records */
        struct mux_deferred go_on;  /* more of them */
        struct mux_deferred attach; /* pending ones that can be in force by now */
        struct hash shares; /* of processes: watches of each; of NULL: descendants that watches follow */

        struct hash table;
        struct list ended; /* that are waited for: to be reaped, or for a record */
        struct list unreaped; /* the older ones of these */
        size_t n_ended;       /* in both */
        struct history history; /* all the others that have ended */
        struct list by_match, trackers, all;
        struct mux_timer undecided_timer;

        int epoll_fd; /* pidfds */
        struct mux_io io;
        struct list zombies; /* their pidfds say that they have ended, and a record will tell how */
        struct mux_timer zombie_timer;
        size_t n_displaced;

        /* process_rescan.c */
        struct mailbox rescan_mailbox;
        struct rescan *rescan; /* under way */
        bool rescan_again;
        struct losses losses;
        uint64_t n_losses;    /* that the feed has told of */
        bool was_lost;        /* one was certain, and no rescan has seen to it yet */
        uint64_t n_rescans, last_rescan; /* begun, and the last that is done */
        uint64_t last_nsec; /* of the last record */
        uint64_t lost_nsec; /* that of the last one before a loss that no rescan has seen to; or 0 */
        struct mux_timer rescan_timer;
        unsigned n_late_rescans; /* since the loss */
        bool is_saved, is_restored; /* process_save.c */
        struct process **restored;  /* the same: by number, until all watches are restored */
        size_t n_restored;
        bool has_profiles; /* what processes are like is known as well as it can be */
        bool has_lost;
        uint64_t n_forks_lost, n_forks_found, n_lost_told;
        uint64_t n_found_early; /* before the first loss was told of */
};

/* ---- process_table.c ------------------------------------------------------------------------------------------- */

/* The one that runs; NULL: none is known. */
struct process *process_find(const struct processes *s, pid_t pid);
/* The one that ended last. From the history it comes back, until it is put away. */
struct process *process_find_ended(struct processes *s, pid_t pid);
/* Whether the record of its end may be still to come. */
struct process *process_find_unrecorded(const struct processes *s, pid_t pid);
/* NULL: no memory. Takes the profile over; `parent` may be NULL. */
struct process *process_make(struct processes *s, pid_t pid, struct process *parent, struct profile *profile);
/* What a child of it is like, as far as that is certain: is it known that the parent made it? */
struct profile *process_heritage(const struct process *parent, bool is_maker);
/* Takes the profile over. */
void process_set_profile(struct process *p, struct profile *profile);
/* A process that has none becomes a child of it. */
void process_join(struct process *p, struct process *parent);
/* Has its pidfd, which was open before. Takes it over. */
int process_adopt_pidfd(struct processes *s, struct process *p, int pidfd);
/* It runs no more. */
void process_retire(struct processes *s, struct process *p);
/* One that has ended, once that was told: into the history, if nothing more is to come. It may be freed. */
void process_put_away(struct processes *s, struct process *p);
/* What nobody follows is forgotten in time. */
void ended_trim(struct processes *s);
void process_free(struct processes *s, struct process *p);
int process_open_pidfd(struct processes *s, struct process *p);
void process_close_pidfd(struct processes *s, struct process *p);

/* ---- process_tell.c ----------------------------------------------------------------------------------------------- */

/* NULL: no memory. */
struct interest *interest_make(struct processes *s, struct proc_watch *w, struct process *p, bool is_child);
void interest_free(struct processes *s, struct interest *i);
bool watch_may_see(const struct proc_watch *w, const struct process *p);
/* To all whom it concerns. `before`: what it was like until now, or NULL. */
void tell_change(struct processes *s, struct process *p, uint64_t note, struct profile *before, int64_t data);
/* The process has ended. */
void tell_exit(struct processes *s, struct process *p);
/* And was reaped. */
void tell_reap(struct processes *s, struct process *p);
/* To one watch, what is past. */
void tell_late(struct processes *s, struct proc_watch *w, struct process *p);
/* `child`, to those that track its parent. */
void tell_child(struct processes *s, struct process *p, struct process *parent);
/* `child`, late: it was found to be a descendant. */
void tell_descendant(struct processes *s, struct proc_watch *w, struct process *p);
/* Whether anybody waits for it to be reaped: then a pidfd will tell. */
bool is_reap_wanted(const struct processes *s, const struct process *p);
/* Of those of which nobody knows whether they would have matched, in a moment. */
void tell_undecided_soon(struct processes *s);
/* So many have come and gone unseen. */
void tell_lost(struct processes *s, uint64_t count);
/* Something of what can't be seen afterwards may be missing: nobody knows how much. */
void tell_lost_changes(struct processes *s);

/* ---- process_change.c ------------------------------------------------------------------------------------------- */

void process_on_record(struct processes *s, const struct chunk *chunk, const struct record *r);
void process_on_mark(struct processes *s);
void process_on_pidfd(struct processes *s, struct process *p, uint32_t events);
/* Some process has that number, and has not ended. */
bool process_is_alive(pid_t pid);
/* What it was found to be like by a look at it after so many losses: what differs was lost, and is told. False: no memory. */
bool process_on_difference(struct processes *s, struct process *p, const struct profile *found, uint64_t n_losses);
/* It runs no more. How it ended is told as far as that is known. */
void process_end(struct processes *s, struct process *p, uint64_t realtime_usec);

/* ---- processes.c ----------------------------------------------------------------------------------------------------- */

/* Asks for a mark. All that had happened by now is handled once `passed` has reached the answer. */
uint64_t processes_mark(struct processes *s);
void processes_on_mark(struct processes *s, uint64_t serial);
/* The table has all of them. */
void processes_on_rescanned(struct processes *s);
/* Whether anybody wants to know what processes are like. */
bool processes_are_watched(const struct processes *s);

/* All that the feed has handed over. */
void processes_take_all(struct processes *s);
/* A watch, without what it is about. NULL: refused. */
struct proc_watch *proc_watch_new(struct subscription *subscription, const struct subject *subject,
                                  struct refusal *refusal);
void proc_watch_free(struct processes *s, struct proc_watch *w);
/* Goes on with the feed of the last daemon's. */
int processes_resume_feed(struct processes *s, const struct feed_class *class, struct state_reader *r);
void processes_start_feed(struct processes *s);
void processes_stop_feed(struct processes *s);
void processes_set_idle_timer(struct processes *s);

/* ---- process_save.c ------------------------------------------------------------------------------------------------- */

/* Of the class: source.h. */
void processes_describe(const struct subscription *subscription, struct subject *subject);
bool processes_are_settled(const struct source *source);
void processes_save_source(struct source *source, struct state_writer *w);
void processes_load_source(struct source *source, struct state_reader *r);
bool processes_save(struct source *source, struct subscription *subscription, struct state_writer *w);
int processes_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                      struct state_reader *r, struct refusal *refusal);
void processes_restored(struct source *source);

/* ---- process_rescan.c --------------------------------------------------------------------------------------------- */

int rescan_init(struct processes *s);
/* Compares the table with /proc, and tells what is missing there. */
void rescan_start(struct processes *s);
/* For what processes are like, which is not asked while nobody watches. Returns its number, or 0: there will be none. */
uint64_t rescan_for_profiles(struct processes *s);
void rescan_on_mark(struct processes *s);
/* What came and went unseen, as far as it is certain by now. */
void rescan_count(struct processes *s);
/* No worker is at it any more. */
void rescan_close(struct processes *s);
