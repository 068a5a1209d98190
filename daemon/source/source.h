/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * A source turns one kernel interface into reports about what it is asked to
 * watch. It knows the mux and the workers below it; of what is above it knows
 * two functions, the sink. Subscriptions of any number of watches on the same
 * object share one registration in the kernel.
 *
 * All of it runs on the loop's thread.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "event.h"
#include "list.h"
#include "mux.h"

struct broker;
struct process_match;
struct source;
struct state_reader;
struct state_writer;
struct workers;

/* Who asks, as the kernel told us. */
struct asker {
        uid_t uid;
        gid_t gid;
        pid_t pid;
        size_t n_groups; /* supplementary */
        gid_t *groups;
        /* Lives in another namespace than the daemon, or can't be shown not to:
         * its paths, pids and devices mean something else. */
        bool other_mounts, other_pids, other_network;
        bool observes; /* was let see the processes of all users */
        uint64_t network; /* its namespace's inode, as it connected; 0: can't be told */
        uint64_t process; /* its inode in pidfs, which no other process ever has; 0: can't be told */
};

/* A pidfd of the process that has connected, the caller's. -1: it is no more, or can't be seen from here. */
int asker_open_process(const struct asker *asker);

/* What is to be watched. Borrowed for the call that it is given to. */
struct subject {
        enum kev_filter filter;
        uint64_t notes;
        const char *path; /* absolute, or NULL */
        const char *name; /* or NULL */
        int fd;           /* a passed descriptor, or -1 */
        int64_t pid;      /* or ABSENT */
        uint64_t identity; /* as describe() knows it: which process of that number, as of pidfd_identity(); or 0 */
        int64_t data;     /* or ABSENT */
        uint32_t flags;
        const struct process_match *match; /* proc: by what they are like; or NULL */
        bool waits;       /* tree: it need not be there yet */
        bool list;        /* tree: what is there already is to be told */
        bool listed;      /* and was, or is said to be in doubt: not at first, but when it is back */
        bool exclude_self; /* tree: what the asker's process does is not */
        bool cross_mounts; /* tree: what is mounted below belongs to it */
        bool second_choice; /* another mechanism could not serve it */
        const struct asker *asker;
};

/* One watch, as its source sees it; embedded in the watch. */
struct subscription {
        struct list link;       /* among those on the same object */
        struct source *source;  /* NULL: attached to none */
        void *object;           /* the source's own */
        uint64_t notes;         /* wanted */
        uint64_t tag;           /* the source's own */
        bool selective;         /* tree: sink->descends() may say no */
        bool is_part;           /* of a watch that crosses mounts: crossing.c */
        bool held;              /* its events are kept back, or let go: it is disabled */
        bool anew;              /* it was to go on where the last daemon was, and something may be missing all the same */
};

/* Why something was refused. */
struct refusal {
        int error; /* positive errno */
        char message[200];
};

/* Leaves errno as it is. */
_printf_(3, 4) void refusal_set(struct refusal *refusal, int error, const char *format, ...);

/* Fills it in and returns the negative errno: here, so that compilers see that it does not return 0. */
#define refuse(refusal, error, ...) (refusal_set((refusal), (error), __VA_ARGS__), -(error))

/* EOPNOTSUPP: the option can't be given to a watch that was made without it. */
int refuse_later(struct refusal *refusal, const char *option);

/* What happened, to be told to any number of subscriptions one after another. */
struct report {
        uint64_t notes;
        uint32_t flags;
        enum kev_kind kind;
        int64_t data;          /* or ABSENT */
        uint64_t count;
        uint64_t realtime_usec;
        /* Below the watched path. Empty: the path itself. NULL bytes: no path. */
        struct event_path below, from_below;
        const struct event_process *process;
        const struct event_link *link;
        /* The sink's own: what it made of this report for the last subscription,
         * to be shared by the next. report_done() lets go of it. */
        struct event *event;
        const void *event_key;
        const void *judged_by; /* what it has said of the report: */
        bool is_wanted;
};

#define REPORT_INIT ((struct report){ .data = ABSENT, .count = 1 })

void report_done(struct report *report);
/* The same, for the sink to make something of by itself. */
struct report report_copy(const struct report *report);

/* What is above a source. */
struct sink {
        /* Must not detach anything. */
        void (*report)(struct subscription *subscription, struct report *report);
        /* The end of an attach that answered 1: `refusal` is NULL, or the
         * subscription is attached to nothing. */
        void (*attached)(struct subscription *subscription, const struct refusal *refusal);
        /* The end of a modify that answered 1: with a refusal it is as it was. */
        void (*modified)(struct subscription *subscription, const struct refusal *refusal);
        /* tree: whether anything below that directory is of interest. */
        bool (*descends)(const struct subscription *subscription, struct event_path directory);
        /* tree: whether what is of interest below `b` was so below `a`, as far as that is certain. */
        bool (*sees_alike)(const struct subscription *subscription, struct event_path a, struct event_path b);
        /* Whether it takes more than what can't be put off. */
        bool (*has_room)(const struct subscription *subscription);
};

enum file_mechanism {
        FILE_MECHANISM_AUTO,
        FILE_MECHANISM_FANOTIFY,
        FILE_MECHANISM_INOTIFY,
};

enum process_feed {
        PROCESS_FEED_AUTO,
        PROCESS_FEED_BPF,
        PROCESS_FEED_CONNECTOR,
        PROCESS_FEED_PIDFD, /* none: single processes alone */
};

/* What the administrator has chosen, and what follows from the daemon's mode. */
struct source_settings {
        enum file_mechanism file_mechanism;
        enum process_feed process_feed;
        size_t process_buffer; /* bytes of the kernel's queue of what processes do; 0: as the feed likes it */
        size_t netdev_buffer;  /* the same of network devices */
        bool keeps_feed;       /* also while nobody watches, to know who has ended */
        bool has_observers;    /* there is a group whose members may see all processes: */
        gid_t observers;
        bool restores;      /* the last daemon has left something: sources_restored() will be called */
        bool acts_for_others;  /* has its broker mark file systems, enter namespaces and act for users, */
        int files_error;       /* unless it has not the rights: a negative errno, or 0 */
        bool limited_queue; /* fanotify's is no longer than fs.fanotify.max_queued_events */
};

/* What a source finds on its way in; outlives it. */
struct source_context {
        struct mux *mux;
        struct workers *workers;
        const struct sink *sink;  /* what sources report to: crossing.c's, which knows of parts */
        const struct sink *upper; /* what is above all of them */
        uid_t uid; /* the daemon's own */
        struct source_settings settings;
        struct broker *broker; /* for files and namespaces; NULL: there is none, for a reason: */
        int broker_error;      /* a negative errno */
        struct broker *opener; /* the same, for what feeds read and sockets of the daemon's own namespace; or NULL */
        bool revokes; /* what may not be read any more is not told either: it is somebody else's */
        uint64_t kernel_overflows;
};

/* Runs once all that the kernel had queued before source_barrier() is reported,
 * follow-up questions included (for a second at most, where a file system does
 * not answer). */
struct source_barrier {
        struct list link;
        void (*fn)(struct source_barrier *barrier);
        const struct asker *asker; /* what its watches need to know is waited for */
        uint64_t position, serial, appeared, crowds, files; /* the source's own */
        unsigned n_looks;
};

/* Whether all processes are the asker's to see. */
bool asker_sees_all_processes(const struct source_context *context, const struct asker *asker);

/* What the broker is to start for sources: broker.h. */
extern const struct helper_programs source_helpers;

struct source_class {
        const char *name;
        unsigned filters; /* bits: 1 << KEV_FILTER_... */
        /* Probes and opens. An error is logged, and its filters are refused with it. */
        int (*open)(struct source_context *context, struct source **ret_source);
        void (*close)(struct source *source); /* nothing is attached any more */
        /* 0: in force. 1: under way, sink->attached() will tell; detach ends it.
         * Negative errno: refused, with the message. */
        int (*attach)(struct source *source, struct subscription *subscription, const struct subject *subject,
                      struct refusal *refusal);
        /* The same for a change of notes and data (1: sink->modified() will tell); may be NULL where notes are
         * all that can change and the report's are filtered anyway. */
        int (*modify)(struct source *source, struct subscription *subscription, const struct subject *subject,
                      struct refusal *refusal);
        /* Reports what holds now, if anything does. For filters that are about a state; else NULL. */
        void (*look)(struct source *source, struct subscription *subscription);
        /* What sink->descends() says is another from now on. May be NULL. */
        void (*select)(struct source *source, struct subscription *subscription);
        void (*detach)(struct source *source, struct subscription *subscription);
        /* NULL: its callbacks leave nothing behind. True: calls barrier->fn later. */
        bool (*barrier)(struct source *source, struct source_barrier *barrier);
        /* Registrations in the kernel just now, and what is in use. */
        uint64_t (*registrations)(const struct source *source);
        const char *(*mechanism)(const struct source *source);
        /* Why a better mechanism is not in use; may be NULL. */
        const char *reason;

        /* The rest is for the next daemon (server/save.h), and may be NULL. */

        /* Fills in what the subscription is about, beside what is above it too: name, pid and identity, data. Borrowed. */
        void (*describe)(const struct subscription *subscription, struct subject *subject);
        /* Whether it would be whole for the next daemon if it were saved now. NULL: always. */
        bool (*is_settled)(const struct source *source);
        /* What the source itself has. Nothing of what it may have changed by this is used again. */
        void (*save_source)(struct source *source, struct state_writer *w);
        void (*load_source)(struct source *source, struct state_reader *r);
        /* What it needs to go on with the subscription as if nothing had been. False: it can't. */
        bool (*save)(struct source *source, struct subscription *subscription, struct state_writer *w);
        /* As attach, with what save() has written; nothing that happened since is missed. -EBADMSG: it can't be made
         * use of, and the subscription is attached anew. */
        int (*restore)(struct source *source, struct subscription *subscription, const struct subject *subject,
                       struct state_reader *r, struct refusal *refusal);
        /* restore() was called for all that there are. */
        void (*restored)(struct source *source);
};

struct source {
        const struct source_class *class;
        struct source_context *context;
        uint64_t n_subscriptions;
        uint64_t n_reports; /* to subscriptions, those included of which nothing was made */
        uint64_t n_events;  /* that were made of these: the sink's to count */
        uint64_t kernel_overflows, losses_repaired;
        char reason[160]; /* why another mechanism served a watch, the last time; or empty */
};

extern const struct source_class source_crossings;
extern const struct source_class source_deputies;
extern const struct source_class source_descriptors;
extern const struct source_class source_fanotify;
extern const struct source_class source_inotify;
extern const struct source_class source_pidfd;
extern const struct source_class source_processes;
extern const struct source_class source_rtnetlink;
extern const struct source_class source_signals;
extern const struct source_class source_timer;
extern const struct source_class source_user;

/* ---- all of them, by filter ------------------------------------------------ */

enum { SOURCES_MAX = 11 };

struct sources {
        struct source_context context;
        struct source *list[SOURCES_MAX];
        const struct source_class *failed[SOURCES_MAX]; /* could not be opened */
        int errors[SOURCES_MAX];
        size_t n;
};

/* Opens all. `broker_fd`: the broker's socket, from here on; or why there is none, a negative errno. A
 * source that can't be opened leaves its filters without one. */
void sources_open(struct sources *sources, struct mux *mux, struct workers *workers, const struct sink *sink,
                  const struct source_settings *settings, int broker_fd);
void sources_close(struct sources *sources);

/* As in the class, by the first source of the filter that doesn't answer
 * EOPNOTSUPP; the refusal is the last one's. */
int sources_attach(struct sources *sources, struct subscription *subscription, const struct subject *subject,
                   struct refusal *refusal);
/* A source finds out late that it can't serve this: it is detached, and the next that can is asked. */
int sources_pass_on(struct subscription *subscription, const struct subject *subject, struct refusal *refusal);
/* The same for a part, by those sources that can serve one. */
int sources_attach_part(struct source *crossings, struct subscription *part, const struct subject *subject,
                        struct refusal *refusal);
/* What serves the subscription, or its watch's own tree where it has parts. NULL: nothing. */
const struct source *source_serving(const struct subscription *subscription);
int source_modify(struct subscription *subscription, const struct subject *subject, struct refusal *refusal);
void source_look(struct subscription *subscription);
void source_select(struct subscription *subscription);
void source_detach(struct subscription *subscription);

/* ---- for the next daemon --------------------------------------------------- */

bool sources_are_settled(const struct sources *sources);
void sources_save(struct sources *sources, struct state_writer *w);
void sources_load(struct sources *sources, struct state_reader *r);
/* What is needed of the subscription, which may be attached to nothing. NULL: it is not to be again. */
void source_save(struct subscription *subscription, struct state_writer *w);
/* The same while it goes on: what it takes to attach it anew. */
void source_sketch(struct subscription *subscription, struct state_writer *w);
/* As sources_attach(); *ret_anew: what happened since, or was to be listed, may be missing. `subject`: without what
 * describe() knows. 0 with no source: it was attached to nothing. */
int sources_restore(struct sources *sources, struct subscription *subscription, struct subject *subject,
                    struct state_reader *r, bool *ret_anew, struct refusal *refusal);
void sources_restored(struct sources *sources);

/* Losses of one of the kernel's queues, which its owner has one of, zeroed at first. A loss is repaired when all that
 * it may have been about was looked at again, after it was announced, or nobody is left who watches it. */
struct losses {
        uint64_t open;         /* not repaired */
        uint64_t under_repair; /* of these, what the look that is under way covers */
};

void source_on_loss(struct source *source, struct losses *losses);
static inline void losses_begin_repair(struct losses *losses) {
        losses->under_repair = losses->open;
}
/* The look that was begun last has ended. */
void source_on_repaired(struct source *source, struct losses *losses);
/* The queue's end. */
void source_forget_losses(struct source *source, struct losses *losses);

/* A turn of the loop has had enough of a source when so many were told, or might have been: where a user has many watches
 * of one thing, each thing that happens is long work. And to judge one by its globs may take as long as a hundred. */
enum { REPORTS_A_TURN = 128 };
#define SOURCE_TURN_NSEC (500 * NSEC_PER_USEC)

/* How often that was done, for any watch. */
extern uint64_t source_n_judged;

struct source_turn {
        uint64_t n_reports; /* source->n_reports as it began */
        uint64_t n_judged;
        uint64_t until_nsec;
};

static inline struct source_turn source_begin_turn(const struct source *source) {
        return (struct source_turn){ source->n_reports, source_n_judged, monotonic_nsec() + SOURCE_TURN_NSEC };
}

/* Asked after each event. */
static inline bool source_has_told_enough(const struct source *source, struct source_turn *turn) {
        if (source->n_reports - turn->n_reports >= REPORTS_A_TURN)
                return true;
        if (source_n_judged == turn->n_judged)
                return false;
        turn->n_judged = source_n_judged;
        return monotonic_nsec() >= turn->until_nsec;
}

static inline void source_report(struct source *source, struct subscription *subscription, struct report *report) {
        source->n_reports++;
        source->context->sink->report(subscription, report);
}

/* source_crossings */
extern const struct sink crossing_sink;
const struct source *crossing_served_by(const struct subscription *subscription);

enum { USER_WATCHES_MAX = 4096 }; /* of one user on one name, device or process, or on all devices: share.h */

/* source_user: sets off the watches of that user and name. Returns how many. */
uint64_t user_trigger(struct sources *sources, uid_t uid, const char *name, int64_t data);
