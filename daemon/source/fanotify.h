/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * tree on fanotify(7): what the parts of this source share.
 *
 *   fanotify.c         the source as a whole: opening, closing, what barriers wait for
 *   fanotify_attach.c  attaching, detaching, and which directory a watch is about
 *   fanotify_wait.c    watches whose directory is not there
 *   fanotify_mount.c   mounts that come and go
 *   fanotify_group.c   one file system's queue: reading, and dispatching events
 *   fanotify_place.c   which directory a handle is
 *   fanotify_tree.c    what events do to the trees, and telling them
 *   fanotify_doubt.c   names of which the events may say too little
 *   fanotify_list.c    telling what is in directories that are new to somebody
 *   fanotify_access.c  who may be told
 *   fanotify_verdict.c who sees a directory
 *   fanotify_peer.c    the stand-ins that look
 *   fanotify_who.c     who did it
 *   fanotify_save.c    all of it for the next daemon
 *
 * One group with one mark serves a file system, whatever is watched on it. An
 * event names a directory by its handle, an entry by its name, and the object by
 * its handle; a rename has both ends. It reaches the loop without a question
 * asked as long as its directories are known: handle -> place -> directory in a
 * tree, and up to the subscriptions as in every source of files. A view is one
 * mount of the file system; each has its own tree, from the mount's root down, since
 * what can be seen in one need not be to be seen in another.
 *
 * Unknown directories. A surveyor (daemon/broker) is asked where the handle is to be
 * found, and the group's queue waits. The answer is about now, and the event that
 * waits is older; what lies between has been read by then, as the queue is
 * drained when the answer comes. So the place of a directory at the event is where the
 * first move that is still to be handled takes it away from, and only if there is
 * none, the one that was found. The same goes for each directory above: so an answer
 * need not be of one moment, as long as it is true of each that has not moved since the
 * question, and moves without end, wherever, are no reason to have none. One that is
 * not below a watch is kept as a place outside: its further events cost a look-up.
 *
 * Merged events. The kernel merges an event into one that is still queued if object,
 * directory, name and process are the same: then it comes up too early. This can't be
 * seen, but it needs two events about the same name among those that are queued
 * together. Such names are in doubt: once the queue was empty, and all of it handled,
 * they are looked at, and if they are not what was told, that is told.
 *
 * New to somebody. A directory that is moved into a tree is listed by the surveyor,
 * and what is in it is told as created; from the move until then, the events in it
 * and below are kept from those to whom it is new. What its listing says of a name
 * that had an event meanwhile doesn't count: what the last such event left does.
 */

#include <sys/fanotify.h>
#include <sys/types.h>

#include "barrier.h"
#include "crowd.h"
#include "client.h"
#include "file_watch.h"
#include "handle.h"
#include "listing.h"
#include "mounts.h"
#include "recent.h"
#include "tree.h"
#include "tree_report.h"

struct fanotify;
struct peer;

struct event_info {
        uint64_t mask;
        pid_t pid;
        uint64_t number; /* of all that were read from this group, from 1 on */
        struct handle_ref dir, to_dir, object;
        const char *name, *to_name;
        bool replaces; /* a rename: something had the name */
};

/* The queue of a file system as the last daemon has left it: not read before all its watches have their directories
 * again. */
struct inherited {
        struct list link;
        uint64_t device;
        int fd;              /* -1: the group has it */
        size_t n_restoring;  /* watches */
};

enum { RESTORE_MSEC = 1000 }; /* so long such a queue waits for its watches */

/* One file system. */
struct group {
        struct list link;
        struct fanotify *s;
        uint64_t device;
        char name[32]; /* of the kind of file system */
        bool ready, failed;
        bool unmounted; /* what its mark was on is gone */
        int fd;
        struct mux_io io;
        struct inherited *inherited; /* it is not read yet */
        bool is_saved;
        struct helper surveyor;
        struct mux_deferred go_on;

        struct list chunks; /* read, not handled */
        struct chunk *spare;
        size_t backlog;
        uint64_t n_read, n_handled; /* events */
        uint64_t n_inside;          /* of them, those below a watch */
        uint64_t n_read_then, n_inside_then; /* was_noise() */
        unsigned n_noisy;           /* times in a row that it was read without one */
        uint64_t last_wake_nsec;
        struct mux_timer gather_timer;
        bool drained;
        uint64_t read_nsec; /* CLOCK_MONOTONIC, when something was read last */
        bool in_doubt; /* the kernel has dropped events */
        uint64_t doubt_number; /* then: all that was read by then is handled before the look */
        struct losses losses;
        uint64_t repair_serial; /* the last inquiry of the look that is under way */

        struct list moves;  /* of directories, read and not handled */
        struct hash moving; /* the directories, by handle */
        struct recent moved, changed; /* directories, read: moved; changed or moved. By handle_hash() */

        struct hash names;       /* that had an event lately: fanotify_doubt.c */
        struct list names_order, names_doubtful;
        size_t n_names_asked;
        uint64_t era;            /* how often the queue was found empty */
        struct who *who;         /* processes of the events of this turn: fanotify_who.c */
        size_t n_who;

        struct list views;
        size_t n_watches;
        struct list attaching; /* watches that wait for it to be ready */
        struct list due;
};

/* One mount of it in which there are watches. */
struct view {
        struct list link;
        struct group *group;
        uint64_t mount;
        char *mount_point;
        bool is_lost; /* its mount is gone, or covered: nothing can be looked up there */
        struct tree tree;
        struct hash places;
        uint64_t generation;          /* places outside hold as long as it stays */
        struct list inside, outside;  /* places, the longest unused first */
        size_t n_inside, n_outside;
        struct lister lister;         /* tells what is new to some */
        size_t n_watches;
        pid_t pid;                    /* that did what is told just now; 0: not known */
        size_t n_who;                 /* watches that want to know more of it */
};

/* A directory's handle, and where that is. */
struct place {
        struct hash_node node; /* in view->places */
        struct view *view;
        struct dir *dir;     /* NULL: outside of all that is watched, or not known yet */
        uint64_t generation; /* outside */
        uint64_t asked_generation; /* the view's then */
        bool asks_anew;      /* for that has changed since it was asked */
        struct list used;    /* among those inside, or outside */
        struct asked *asked; /* where it is */
        struct buffer links; /* the answer so far */
        bool answered;
        int error;
        uint64_t asked_at;    /* the last event that was read then */
        struct list verdicts; /* fanotify_verdict.c */
        uint64_t changed;     /* number of the event by which who may read it, or its place, changed last */
        int32_t type;
        uint32_t size;
        unsigned char bytes[];
};

static inline struct handle_ref place_handle(const struct place *place) {
        return (struct handle_ref){ .type = place->type, .size = place->size, .bytes = place->bytes };
}

struct fanotify {
        struct source source;
        struct mux *mux;
        struct broker *broker;
        struct list groups;
        struct list inherited;
        struct list restoring; /* watches whose directory is not known again yet */
        struct mux_timer restore_timer;
        struct list peers; /* stand-ins, by credentials: fanotify_peer.c */
        struct list leaving; /* those that are to end, and may take for ever */
        struct mux_timer peer_timer; /* then they are looked at */
        struct list holding; /* watches whose events wait for a verdict */
        uint64_t n_let_go;   /* how often such were looked through */
        struct list doubtful; /* watches that are to be told `rescan` */
        struct mux_timer doubt_timer;
        struct mounts mounts;
        struct list unanswered; /* watches whose question could not be put */
        struct hash awaited; /* names on the paths of watches whose directory is not there, counted */
        struct list looking; /* peers of which some wait for what has come to be */
        struct mux_deferred look;
        struct list inquiries;
        uint64_t serial;
        uint64_t n_chunks; /* read, of all groups */
        struct barriers barriers;
        struct crowds crowds;
        uint64_t n_watches;
        struct mux_deferred tidy; /* what nobody uses any more goes */
        bool compares_mounts;     /* then: what has come and gone between two daemons is told */
        pid_t pid; /* the daemon's: what it does itself is not told */
};

#define FAN_MASK                                                                                           \
        (FAN_CREATE | FAN_DELETE | FAN_RENAME | FAN_MODIFY | FAN_CLOSE_WRITE | FAN_ATTRIB | FAN_ONDIR)

/* ---- fanotify.c -------------------------------------------------------------------------- */

void inquiry_begin(struct fanotify *s, struct inquiry *inquiry);
void inquiry_end(struct fanotify *s, struct inquiry *inquiry);

/* ---- fanotify_attach.c -------------------------------------------------------------------- */

/* Of the class: source.h. */
int fanotify_attach(struct source *source, struct subscription *subscription, const struct subject *subject,
                    struct refusal *refusal);
int fanotify_modify(struct source *source, struct subscription *subscription, const struct subject *subject,
                    struct refusal *refusal);
void fanotify_select(struct source *source, struct subscription *subscription);
void fanotify_detach(struct source *source, struct subscription *subscription);
/* The watch's directory is gone. */
void fanotify_end_watch(struct fanotify *s, struct file_watch *watch, uint64_t realtime_usec);
/* Whether the watch's directory is still where it was named is asked. */
void fanotify_check_watch(struct fanotify *s, struct file_watch *watch);
/* What could not be asked for that user, for want of a stand-in, is asked now; `hung`: also what one has hung at. */
void fanotify_look_again(struct fanotify *s, uid_t uid, bool hung);
/* The group is ready; with an error (positive) it is not to be had, or is no more. */
void fanotify_on_group(struct group *g, int error);
/* Watches whose question could not be put are refused, or go on as they were. */
void fanotify_take_unanswered(struct fanotify *s);

/* ---- fanotify_save.c ---------------------------------------------------------------------- */

/* Of the class: source.h. */
bool fanotify_is_settled(const struct source *source);
void fanotify_save_source(struct source *source, struct state_writer *w);
void fanotify_load_source(struct source *source, struct state_reader *r);
bool fanotify_save(struct source *source, struct subscription *subscription, struct state_writer *w);
int fanotify_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                     struct state_reader *r, struct refusal *refusal);
void fanotify_restored(struct source *source);
/* What the last daemon has left of that file system; NULL: nothing. */
struct inherited *inherited_find(const struct fanotify *s, uint64_t device);
void inherited_free_all(struct fanotify *s);

/* ---- fanotify_wait.c ---------------------------------------------------------------------- */

void fan_wait_init(struct fanotify *s);
/* A name has come to be: watches that wait for it look again before long. */
void fanotify_on_appeared(struct fanotify *s, const char *name);
/* Whether what has come to be up to that serial was seen to for the user. */
bool fan_wait_has_looked(const struct fanotify *s, uid_t uid, uint64_t serial);
/* Something else may be found from now on: the peer's that wait look again before long. */
void fan_wait_look_soon(struct peer *peer);
/* The same, and those, too, that a file system kept waiting. */
void fan_wait_look_at_hung(struct peer *peer);
/* The names that were waited for, as the source ends. */
void fan_wait_free(struct fanotify *s);

/* ---- fanotify_mount.c --------------------------------------------------------------------- */

void fanotify_follow_mounts(struct fanotify *s);

/* ---- fanotify_group.c --------------------------------------------------------------------- */

/* Records follow one another by multiples of four bytes. */
typedef struct fanotify_event_metadata __attribute__((aligned(4))) event_record;

/* The record that what was read begins with. NULL: there is no whole one. */
const event_record *fanotify_first_record(const char *data, size_t size);
/* What it says, which lies in it; a handle of a directory has its name. False: it is not understood. */
bool fanotify_parse(const event_record *record, struct event_info *ret_event);

/* The group of that file system, which may be just starting. */
int group_get(struct fanotify *s, const struct subject_place *place, const char *mount_point, struct group **ret_group);
/* Frees it if nobody uses it, and views that nobody uses. Not while it is at work. */
void group_release(struct group *g);
/* The group, its views and all in them, as the source ends. */
void group_free(struct group *g);
/* A file system that was unmounted has taken its mark along, and what is mounted now may have its number (proc(5),
 * /proc/PID/fdinfo). True, too, if that can't be told. */
bool group_has_mark(int fd);
/* Reads all that the kernel has, from now on. 0, or it can't be had any more. */
int group_begin_reading(struct group *g);
/* Leaves the queue to a timer, until something of interest has come, and the mux takes it. */
void group_gather(struct group *g);
/* Counts the losses that were repaired; for whenever inquiries may have ended. */
void group_check_repair(struct group *g);
/* Reads all that the kernel has. */
void group_read(struct group *g);
/* Reads, and handles as much as fits into a turn. */
void group_run(struct group *g);
/* Where the mount is may have changed. True: it has. */
bool view_look(struct view *v);
/* It is not to be found any more: what was passed of it ends, and paths may lead elsewhere. */
void view_lose(struct view *v);
struct view *view_find(const struct group *g, uint64_t mount);
struct view *view_get(struct group *g, uint64_t mount, const char *mount_point);
void view_free(struct view *v);
/* Something was missed: everything is in doubt. `why`: for the log. */
void group_doubt(struct group *g, const char *why);
/* The number of the event that is being handled, or of the last. */
static inline uint64_t group_now(const struct group *g) {
        return MIN(g->n_handled + 1, g->n_read);
}
/* Whether a directory with this handle was moved by an event that was read after that of the number. */
bool group_has_moved(const struct group *g, uint64_t number, uint64_t hash);
/* The same of its attributes, or its place. */
bool group_has_changed(const struct group *g, uint64_t number, uint64_t hash);
bool group_has_handled(const struct group *g, uint64_t chunk_number);
/* Handles the answers whose moment has come. */
void group_take_due(struct group *g);
/* An answer has come. */
void group_await(struct group *g, struct due *due);
/* A question of a view. */
struct question view_question(const struct view *v, enum question_kind kind, struct handle_ref handle);

/* A directory's move, or end, that is still to be handled. */
struct pending_move {
        struct list link;      /* in group->moves */
        struct list of_object; /* among those of the same */
        struct moving *moving;
        uint64_t number;
        struct handle_ref from;
        const char *name;
};

/* The first for the object. NULL: none. */
const struct pending_move *group_next_move(const struct group *g, struct handle_ref object);

/* ---- fanotify_place.c ----------------------------------------------------------------------- */

struct place *place_find(struct view *v, struct handle_ref handle);
/* The directory is `dir` from now on; what it was known as before is forgotten. NULL: no memory. */
struct place *place_bind(struct view *v, struct handle_ref handle, struct dir *dir);
void place_free(struct place *place);
/* Asks where it is, if that is not known: it is going to be needed. */
void place_expect(struct view *v, struct handle_ref handle);
/* Its directory at the event that is being handled. False: that is being asked. *ret_dir is NULL for one outside. */
bool place_resolve(struct view *v, struct handle_ref handle, struct dir **ret_dir);
/* The directory at the end of the links of an answer, made with all above it. NULL: no memory, or they make no
 * sense. */
struct dir *place_take_links(struct view *v, const char *links, size_t size);
/* A directory that is not known was made outside of all that is watched. */
void place_is_outside(struct view *v, struct handle_ref handle);
/* Places that were not used for long go if there are too many. */
void places_shrink(struct view *v);

/* What was told lately of the object under that name. */
enum told {
        TOLD_UNKNOWN,
        TOLD_ABSENT, /* nothing has the name */
        TOLD_THIS,
        TOLD_OTHER, /* something else has it */
};

/* ---- fanotify_tree.c ------------------------------------------------------------------------- */

/* The directories of the event are known; NULL: outside. */
void fan_tree_on_event(struct view *v, const struct event_info *e, struct dir *dir, struct dir *to_dir,
                       uint64_t realtime_usec);
/* Takes it and all below it out of the tree; watches there end. */
void fan_tree_drop(struct view *v, struct dir *dir, uint64_t realtime_usec);
/* The same, told as deleted: it is not where the events have let it be. */
void fan_tree_take_away(struct view *v, struct dir *dir, uint64_t realtime_usec);
/* A look-up has found the directory where the events, merged as they were, have let none be: that is made good. */
void fan_tree_make_good(struct view *v, struct dir *dir, enum told told);
void fan_tree_rescan_all(struct view *v);
/* The directory has this name in `parent`: what happens in it is known to be there without a question. NULL: no
 * memory. */
struct dir *fan_tree_place(struct view *v, struct dir *parent, const char *name, struct handle_ref handle);

/* ---- fanotify_doubt.c ------------------------------------------------------------------------- */

/* What the event says of names, once all views have told it. */
void names_on_event(struct group *g, const struct event_info *e);
enum told names_told(const struct group *g, struct handle_ref dir, const char *name, struct handle_ref object);
/* That was told beside what the events say. */
void names_on_corrected(struct group *g, struct handle_ref dir, const char *name, bool exists,
                        struct handle_ref object);
/* All that was queued is handled. */
void names_settle(struct group *g);
void names_forget_all(struct group *g);

/* ---- fanotify_list.c --------------------------------------------------------------------------- */

extern const struct lister_class fanotify_lister;

/* ---- fanotify_who.c ------------------------------------------------------------------------------ */

/* What is known of the process. NULL: nothing. It lives until who_forget(). */
const struct event_process *who_is(struct group *g, pid_t pid);
/* In the next turn the pids may be those of others. */
void who_forget(struct group *g);

/* ---- fanotify_peer.c ------------------------------------------------------------------------------ */

struct state_reader;
struct state_writer;

/* The stand-in of the asker, used once more. NULL: *ret_error. */
struct peer *peer_get(struct fanotify *s, const struct asker *asker, int *ret_error);
void peer_put(struct fanotify *s, struct peer *peer);
struct helper *peer_helper(struct peer *peer);
/* Something: if the answer doesn't come, it is told that it won't. */
void peer_is_asked(struct peer *peer);
/* A check of one of its watches' places could not be made just now: `to_be_checked`. */
void peer_check_later(struct peer *peer);
/* Those that nobody uses go, those that don't answer are replaced; all of them go. */
void peers_tidy(struct fanotify *s);
void peers_free(struct fanotify *s);
/* The directory is no more. */
void peers_forget_directory(struct fanotify *s, uint64_t mount, struct handle_ref handle);
/* Of what they were not told. */
void peers_save(struct fanotify *s, struct state_writer *w);
void peers_load(struct fanotify *s, struct state_reader *r);

/* ---- fanotify_verdict.c --------------------------------------------------------------------------- */

void verdicts_forget(struct place *place);
/* What was not told of the directory is remembered without them. */
void verdicts_keep(const struct place *place);
/* What the peers may see is to be asked again. */
void verdicts_expire(struct view *v);

/* ---- fanotify_access.c ---------------------------------------------------------------------------- */

bool access_may_tell(struct tree *tree, struct file_watch *watch, const struct report *report);
/* Whether two are told the same of whatever happens, now and later. */
bool access_is_alike(const struct file_watch *a, const struct file_watch *b);
/* Whether more can be held for it. */
bool access_has_room(const struct file_watch *watch);
bool access_may_tell_all(struct tree *tree, struct file_watch *one, const struct report *report, bool *ret_all,
                         pid_t *ret_except);
/* To the watches of that user, or of all with NULL, of which all is in doubt: so. */
void access_tell_doubts(struct fanotify *s, const struct asker *asker);
