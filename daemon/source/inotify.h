/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * vnode and tree on inotify(7): what the parts of this source share.
 *
 *   inotify.c         the instance: reading, dispatching events, attaching
 *   inotify_mark.c    the kernel's watches
 *   inotify_move.c    halves of renames joined
 *   inotify_exchange.c  two names that may have changed places
 *   inotify_answer.c  what lookups have answered, each at its moment
 *   inotify_tree.c    tree watches; inotify_tree.h names their parts
 *   inotify_wait.c    tree watches whose directory is not there
 *   inotify_list.c    what is there already, for those who ask
 *   inotify_mount.c   mounts that come and go
 *   inotify_vnode.c   vnode watches, in kqueue's words
 *   inotify_save.c    all of it for the next daemon
 *   tree.c            which directory is where
 *   lookup.c          the questions that may take long, on workers
 *
 * One instance serves the daemon, and one mark each inode, whoever watches it.
 *
 * The path of an event: read() into a chunk -> the mark of its wd -> the
 * directory nodes on that mark -> up the tree, and to the subscriptions at each
 * node on the way.
 *
 * Answers and events. A directory is watched by a crawl on a thread: watch, then
 * list, then tell the loop. An answer is about the moment in which the thread
 * looked, and the tree is as the events that were handled have made it: so an
 * answer is handled when the events have come to that moment. The first event of
 * a new wd is younger than the watch; for a wd that may be known already the
 * thread leaves a marker in the kernel's queue, between watching and listing.
 * At such an event the reading waits for the answer, as long as a lookup is at
 * work that may bring it (lookup_count_sections()). Where there is none, an answer
 * waits until all that the kernel had queued as it came is handled. Two lookups
 * may bring one new wd, and the marker of the second may come up before the first
 * event: then the mark awaits the first (mark_of_answer()). If what an answer is
 * about has stayed in its place from the question until then, the answer holds;
 * otherwise it is asked once more.
 *
 * Whoever makes changes that need questions faster than these are answered makes
 * the reading wait (answers_are_behind()): what is queued then, with the questions
 * and the answers that wait, has a limit, and the kernel drops the rest.
 *
 * So every doubt leads to a question that was put later than what gave rise to
 * the doubt, and all settles. Two places that have one inode on one mount can
 * only come from events that were lost, or that say too little (an exchange of
 * two names): then the place that was found has it, and the other is asked again.
 *
 * What a crawl lists in a new directory is told as created. A name that was told
 * so and has its IN_CREATE still in the queue would be told twice: it is
 * remembered in `listed` until the queue was empty once. A directory that is
 * watched already can be listed as new too, for those alone into whose tree it
 * moved: its IN_CREATE is still news for all others. A name that had an event
 * while that was under way is told by the event alone: `touched`.
 */

#include <sys/inotify.h>

#include "barrier.h"
#include "crowd.h"
#include "file_watch.h"
#include "listing.h"
#include "lookup.h"
#include "mounts.h"
#include "source.h"
#include "tree.h"

/* The last change of an entry of a directory, if that was an IN_MOVED_TO. Hashes, not keyed. */
struct arrival {
        uint32_t name;   /* 0: it was another change */
        uint32_t origin; /* directory and name; 0: out of sight, or the first half was too late */
};

/* The kernel's watch of one inode. */
struct mark {
        struct hash_node node; /* by wd */
        int wd;
        bool dying;        /* removed; IN_IGNORED is to come, or has come */
        bool is_ghost;     /* it has come, but a lookup under way may still bring the wd */
        bool awaits_first; /* the answer of the lookup that was the first to make this watch may be still to come */
        bool is_fresh;     /* no entry has changed since it was made: the last change may have been any */
        uint64_t order;    /* of the last lookup that may */
        struct dir *dirs;  /* several where a mount shows one inode in two places */
        struct vnode *vnode;
        union {
                struct list waiters; /* tree watches that wait for an entry */
                struct list ghost;   /* among all of them: nobody waits any more */
        };
        struct arrival arrival;
};

/* A MOVED_FROM that has no MOVED_TO yet. */
struct move {
        struct list link; /* in the order of their coming */
        struct hash_node by_cookie, by_wd;
        uint32_t cookie;
        struct mark *mark;
        bool is_dir;
        bool was_filled; /* the name had come just before: this may be the rest of an exchange */
        uint32_t origin; /* then, as in struct arrival */
        uint64_t realtime_usec;
        uint64_t deadline_nsec; /* CLOCK_MONOTONIC: then it went where nobody looks */
        uint64_t position;      /* in what was read */
        char name[];
};

struct inotify {
        struct source source;
        struct mux *mux;
        bool is_saved;    /* for the next daemon: all is settled */
        bool is_restored; /* all is as the last daemon has left it */
        int fd;
        struct mux_io io;

        struct list chunks; /* read, not handled */
        size_t backlog;     /* bytes in them */
        uint64_t bytes_read, bytes_handled;
        struct mux_deferred go_on;
        struct chunk *spare;
        bool drained; /* the last read() left nothing */
        bool in_doubt; /* events were dropped: everything is to be looked at again */
        uint64_t doubt_position; /* then, of what was read */
        struct losses losses;
        bool under_repair;      /* everything is being looked at again */
        uint64_t repair_serial; /* the last question of that */
        uint64_t repair_since;  /* CLOCK_MONOTONIC, ns: the first that has not ended, or the last time this was told */

        struct hash marks;
        struct hash_node *dead_marks; /* to be freed */
        struct list ghosts;
        size_t n_ghosts;
        struct hash late; /* wds whose events were passed over */
        int awaited_wd; /* that the reading waits with, or -1 */
        uint64_t awaited_sections; /* that had begun then */
        uint64_t awaited_since;
        struct mux_timer awaited_timer;

        struct list moves;
        struct hash moves_by_cookie, moves_by_wd;
        struct mux_timer move_timer;

        struct mounts mounts;

        struct tree tree;
        struct crowds crowds;
        struct lister lister;
        struct list waiting; /* those that wait for theirs */
        struct mux_timer wait_timer;
        uint64_t wait_msec;
        struct list degraded; /* directories that could not be watched, and were said to be so */
        struct mux_timer retry_timer;
        uint64_t retry_msec;
        struct mux_timer place_timer; /* for those of which it could not be found out whether they are still there */
        struct dir *trash;   /* cut out of the tree, to be freed in slices; by `next` */
        struct mux_deferred empty_trash;
        struct hash orphans; /* wds that nobody claimed */
        struct hash listed;  /* told as created, IN_CREATE may follow */
        struct hash touched; /* had an event while their directory was being listed */
        uint64_t tick, listed_tick, drained_tick;

        struct mailbox mailbox;
        struct lookup_context lookup_context;
        struct list lookups;
        size_t answer_bytes;    /* of them, and of their answers that wait */
        size_t n_asked;         /* of them, those that have not ended */
        uint64_t answered_nsec; /* CLOCK_MONOTONIC: when one has, the last time, or the first of these was asked */
        struct list due;       /* their answers, as they came */
        struct hash answered;  /* the same, by first_wd */
        struct list crawls;    /* of them, by serial */
        struct list exchanges; /* of them, LOOKUP_NAME, that nothing has answered yet */
        struct hash exchanges_by_name;
        struct list unblocked; /* watches that may be in force now */
        uint64_t serial, order;
        uint64_t answering; /* the serial of the lookup whose answer is being handled, or 0 */
        struct barriers barriers;
};

/* What is asked for a directory of a tree: all that any tree watch may want, so
 * that the mask never changes. */
#define TREE_MASK                                                                                              \
        (IN_CREATE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB |        \
         IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_EXCL_UNLINK)

/* ---- inotify.c ----------------------------------------------------------------------- */

/* Something was lost: everything is looked at again, once what is read by now is handled. */
void inotify_doubt(struct inotify *s);
/* The event that what was read begins with. NULL: there is no whole one. */
const struct inotify_event *inotify_first_event(const char *data, size_t size);
/* Whether all that was read up to there is handled, moves too whose second half may be still to come. */
bool inotify_has_handled(const struct inotify *s, uint64_t position);
void watch_attached(struct inotify *s, struct file_watch *watch, int error, const char *message);

/* A watch that asks for nothing yet. NULL: no memory. */
struct file_watch *watch_new(struct subscription *subscription, const struct subject *subject);
/* Goes on with this instance, which it takes over. */
int inotify_adopt(struct inotify *s, int fd);

/* ---- inotify_save.c ------------------------------------------------------------------- */

/* Of the class: source.h. */
bool inotify_is_settled(const struct source *source);
void inotify_save_source(struct source *source, struct state_writer *w);
void inotify_load_source(struct source *source, struct state_reader *r);
bool inotify_save(struct source *source, struct subscription *subscription, struct state_writer *w);
int inotify_restore(struct source *source, struct subscription *subscription, const struct subject *subject,
                    struct state_reader *r, struct refusal *refusal);
void inotify_restored(struct source *source);

/* ---- inotify_mark.c ------------------------------------------------------------------- */

struct mark *mark_find(const struct inotify *s, int wd);
/* The mark, made if there is none. NULL: no memory. */
struct mark *mark_get(struct inotify *s, int wd);
/* The same, for an answer that brings the wd. */
struct mark *mark_of_answer(struct inotify *s, const struct lookup_message *message);
/* Removes it from the kernel if nothing is attached to it any more. */
void mark_release(struct inotify *s, struct mark *mark);
/* The kernel has dropped it. Lookups that are under way may still bring its wd: then they are asked again. */
void mark_make_ghost(struct inotify *s, struct mark *mark);
/* It is out of the table now, and freed by marks_bury(). */
void mark_free(struct inotify *s, struct mark *mark);
/* Not while an event of theirs is being handled. */
void marks_bury(struct inotify *s);
/* Frees those that no lookup under way can bring any more. */
void marks_lay_ghosts(struct inotify *s);
/* A wd that a lookup brought and nobody took. */
void mark_orphan(struct inotify *s, int wd);
/* With no lookup under way nobody will claim them any more: some of them go, and the rest in the next turns. */
void marks_remove_orphans(struct inotify *s);
/* An event of this wd is passed over: whoever claims it looks at it again. */
void mark_pass_over(struct inotify *s, int wd);
bool mark_is_late(const struct inotify *s, int wd);
/* Whether events of this wd were passed over before it was known; forgets it. */
bool mark_was_late(struct inotify *s, int wd);
void marks_forget_late(struct inotify *s);
/* All, as the source ends. */
void marks_free(struct inotify *s);

/* ---- inotify_move.c ------------------------------------------------------------------- */

void move_on_from(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t realtime_usec);
void move_on_to(struct inotify *s, struct mark *mark, const struct inotify_event *event, uint64_t realtime_usec);
/* Their other halves are out of sight: that out of the mark's directory. */
void moves_out_of(struct inotify *s, const struct mark *mark);
/* The same, unless the event, of an entry of that directory, is its other half. */
void moves_out_before(struct inotify *s, const struct mark *mark, const struct inotify_event *event);
/* That of the mark's directory itself. */
void moves_out_self(struct inotify *s, const struct mark *mark);
/* Those that have waited long enough. */
void moves_out_late(struct inotify *s);
void moves_out_all(struct inotify *s);
/* Nobody is told of that out of the mark's directory. */
void moves_forget(struct inotify *s, const struct mark *mark);
/* Whether `dir` or one above it is about to leave: its move's second half may be still to come. */
bool move_is_pending(const struct inotify *s, const struct dir *dir);

/* ---- inotify_answer.c ----------------------------------------------------------------- */

/* On success `root` and `stop`, which may be NULL, are the lookup's. */
int submit(struct inotify *s, struct lookup *lookup, uid_t user, struct dir *root, struct dir *stop);
/* Takes what the threads have sent. */
void answers_take(struct inotify *s);
/* What was taken comes after that, in what is read: what is older than it, or younger than its watches, does not lie
 * beyond. */
void answers_place(struct inotify *s, uint64_t position);
/* Handles those whose moment has come, as many as fit into a turn. */
void answers_handle(struct inotify *s);
/* There is so much to be answered that events have to wait. */
bool answers_are_behind(struct inotify *s);
/* Whose event it is. NULL: nobody's. False: it has to wait for an answer. */
bool answers_find_mark(struct inotify *s, const struct inotify_event *event, struct mark **ret_mark);
/* All, as the source ends. No lookup is on a thread any more. */
void answers_free(struct inotify *s);

/* ---- inotify_tree.c ------------------------------------------------------------------- */

void tree_on_resolved(struct inotify *s, struct lookup *lookup);
/* Asks whether the watch's directory is still the one that it is about. */
void tree_check_place(struct inotify *s, struct file_watch *watch);
void tree_on_place(struct inotify *s, struct lookup *lookup);
void tree_on_access(struct inotify *s, struct lookup *lookup);
void tree_on_found(struct inotify *s, struct found *found);
void tree_on_crawled(struct inotify *s, struct lookup *lookup);
void tree_on_entry(struct inotify *s, struct dir *dir, uint32_t mask, const char *name, uint64_t realtime_usec);
void tree_on_self(struct inotify *s, struct dir *dir, uint32_t mask, uint64_t realtime_usec);
/* `from` or `to` is NULL where the other end is out of sight. */
void tree_on_move(struct inotify *s, struct dir *from, const char *from_name, struct dir *to, const char *to_name,
                  bool is_dir, uint64_t realtime_usec);
/* The kernel has dropped the mark. */
void tree_on_unmarked(struct inotify *s, struct dir *dir);
/* Everything is asked again. `tell`: `rescan` is told before the answers, too. */
void tree_recheck_all(struct inotify *s, bool tell);
/* The kernel has dropped a watch: there may be room for what could not be watched. */
void tree_retry_soon(struct inotify *s);
/* The watch is about other directories from now on: what is new to it is told with a rescan. */
void tree_select(struct inotify *s, struct file_watch *watch);
void tree_detach(struct inotify *s, struct file_watch *watch);
/* Whether what is found in or below `dir` may be told to a watch of the asker. */
bool tree_is_watched_by(const struct inotify *s, const struct dir *dir, const struct asker *asker);
/* Before it can end. */
void tree_add_crawl(struct inotify *s, struct lookup *lookup);
/* Watches whose crawls are all done are in force. */
void tree_check_starting(struct inotify *s);
void tree_empty_trash(struct inotify *s, unsigned budget);

/* ---- inotify_exchange.c ---------------------------------------------------------------- */

/* The two names may have changed places: then `from_name` is there again. `to` is NULL where the other is out of
 * sight. */
void exchange_on_move(struct inotify *s, struct dir *from, const char *from_name, struct dir *to, const char *to_name,
                      bool is_dir, uint64_t realtime_usec);
/* An entry of that name has changed, about which a question may be under way. */
void exchange_on_entry(struct inotify *s, const struct mark *mark, uint32_t mask, const char *name);
void exchange_on_name(struct inotify *s, struct lookup *lookup);
/* Its answer doesn't matter any more. */
void exchange_settle(struct inotify *s, struct lookup *lookup);

/* ---- inotify_mount.c ------------------------------------------------------------------- */

void inotify_follow_mounts(struct inotify *s);

/* ---- inotify_wait.c -------------------------------------------------------------------- */

/* The watch's directory is not there: from now on it is waited for. */
void wait_begin(struct inotify *s, struct file_watch *watch);
/* Its path is to be looked up again. */
void wait_look(struct inotify *s, struct file_watch *watch);
/* The same of all that wait. */
void wait_look_all(struct inotify *s);
/* The watch is removed. */
void wait_end(struct inotify *s, struct file_watch *watch);
void wait_on_resolved(struct inotify *s, struct lookup *lookup);
/* `error`: it could not be watched. */
void wait_on_started(struct inotify *s, struct file_watch *watch, int error);
/* Something has come to the mark's directory; the directory itself is going; it has no mark any more. */
void wait_on_entry(struct inotify *s, struct mark *mark, const char *name);
void wait_on_self(struct inotify *s, struct mark *mark);
void wait_on_unmarked(struct inotify *s, struct mark *mark);

/* ---- inotify_list.c -------------------------------------------------------------------- */

extern const struct lister_class inotify_lister;
void list_on_listed(struct lookup *lookup);
/* Events were lost: listings that are under way are begun anew. */
void list_doubt(struct inotify *s);
bool list_may_tell(struct tree *tree, struct file_watch *watch, const struct report *report);
bool list_may_tell_all(struct tree *tree, struct file_watch *one, const struct report *report, bool *ret_all,
                       pid_t *ret_except);

/* ---- inotify_names.c ------------------------------------------------------------------- */

/* Once every event from before was handled. */
void names_forget_listed(struct inotify *s);
/* Once no lookup is under way. */
void names_forget_touched(struct inotify *s);

/* ---- inotify_vnode.c ------------------------------------------------------------------- */

/* What the kernel is asked for: all but open, close and read in any case. */
uint32_t vnode_mask(uint64_t notes);
void vnode_on_watched(struct inotify *s, struct lookup *lookup);
void vnode_on_event(struct inotify *s, struct mark *mark, uint32_t mask, bool has_name, uint64_t realtime_usec);
void vnode_on_move(struct mark *mark, bool is_dir, bool within, uint64_t realtime_usec);
void vnode_on_unmarked(struct mark *mark);
void vnode_on_stat(struct inotify *s, struct lookup *lookup);
void vnode_recheck_all(struct inotify *s);
bool vnode_is_watched_by(const struct mark *mark, const struct asker *asker);
void vnode_detach(struct inotify *s, struct file_watch *watch);
/* If nobody watches it any more. */
void vnode_release(struct inotify *s, struct mark *mark);
/* For the next daemon. False: something of it is still to be looked at. */
bool vnode_is_settled(const struct mark *mark);
void vnode_save(const struct mark *mark, struct state_writer *w);
/* The mark's; false: it can't be. */
bool vnode_load(struct mark *mark, struct state_reader *r);
void vnode_attach(struct file_watch *watch, struct mark *mark);
