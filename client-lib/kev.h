/* SPDX-License-Identifier: LGPL-2.1-or-later */
#ifndef KEV_H
#define KEV_H

/*
 * libkev: kernel events from kevd.
 *
 * A connection (struct kev) is one event queue, as a kqueue descriptor is: the
 * watches made on it, and the events not yet taken from it, end with it. A
 * watch (struct kev_watch) says what is to be watched; an event (struct
 * kev_event) is what was seen. The words are those of kqueue(2).
 *
 * Errors: a function that returns int answers 0 or a positive figure, or a
 * negative errno value. kev_error_message() has the sentence that goes with the
 * last one, from the daemon where it was the daemon that refused.
 *
 * Threads: one connection, with its watches and events, is used by one thread
 * at a time; different connections are independent of each other. The library
 * starts no thread, installs no signal handler and holds no global state.
 *
 * Forking: a connection must not be used on both sides of a fork(2).
 *
 * Units: milliseconds where a name ends in msec, microseconds for usec. Paths
 * are bytes without NUL; they are absolute in events.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

struct kev;
struct kev_watch;
struct kev_event;

/* What is watched; the interface's type Filter. */
enum kev_filter {
        KEV_FILTER_VNODE,  /* one file or directory */
        KEV_FILTER_TREE,   /* a directory and all below it */
        KEV_FILTER_PROC,   /* a process */
        KEV_FILTER_NETDEV, /* network devices */
        KEV_FILTER_READ,   /* a descriptor: there is so much to read, or the end */
        KEV_FILTER_WRITE,  /* a descriptor: there is so much room, or nobody who reads */
        KEV_FILTER_POLL,   /* a descriptor, in the words of poll(2) and epoll(7) */
        KEV_FILTER_AIO,    /* an eventfd that asynchronous input and output completes on */
        KEV_FILTER_SIGNAL, /* signals sent to a process: this one, or kev_watch_set_pid() */
        KEV_FILTER_TIMER, /* a period, or a moment */
        KEV_FILTER_USER,  /* a name that programs of one user set off */
};

/*
 * Notes: what is wanted of a watch, and what happened in an event. A note means
 * something only together with a filter; see kev(1) for which belong to which.
 */
#define KEV_NOTE_DELETE     (UINT64_C(1) << 0)
#define KEV_NOTE_WRITE      (UINT64_C(1) << 1)
#define KEV_NOTE_EXTEND     (UINT64_C(1) << 2)
#define KEV_NOTE_ATTRIB     (UINT64_C(1) << 3)
#define KEV_NOTE_LINK       (UINT64_C(1) << 4)
#define KEV_NOTE_RENAME     (UINT64_C(1) << 5)
#define KEV_NOTE_REVOKE     (UINT64_C(1) << 6)
#define KEV_NOTE_OPEN       (UINT64_C(1) << 7)
#define KEV_NOTE_CLOSE      (UINT64_C(1) << 8)
#define KEV_NOTE_CLOSEWRITE (UINT64_C(1) << 9)
#define KEV_NOTE_READ       (UINT64_C(1) << 10)

#define KEV_NOTE_CREATE   (UINT64_C(1) << 11)
#define KEV_NOTE_REPLACE  (UINT64_C(1) << 12)
#define KEV_NOTE_MOVEDIN  (UINT64_C(1) << 13)
#define KEV_NOTE_MOVEDOUT (UINT64_C(1) << 14)
#define KEV_NOTE_LISTED   (UINT64_C(1) << 15)
#define KEV_NOTE_RESCAN   (UINT64_C(1) << 16)
#define KEV_NOTE_GONE     (UINT64_C(1) << 17)
#define KEV_NOTE_BACK     (UINT64_C(1) << 18)
#define KEV_NOTE_DEGRADED (UINT64_C(1) << 19)

#define KEV_NOTE_EXIT     (UINT64_C(1) << 20)
#define KEV_NOTE_REAP     (UINT64_C(1) << 21)
#define KEV_NOTE_FORK     (UINT64_C(1) << 22)
#define KEV_NOTE_EXEC     (UINT64_C(1) << 23)
#define KEV_NOTE_TRACK    (UINT64_C(1) << 24)
#define KEV_NOTE_CHILD    (UINT64_C(1) << 25)
#define KEV_NOTE_TRACKERR (UINT64_C(1) << 26)
#define KEV_NOTE_UID      (UINT64_C(1) << 27)
#define KEV_NOTE_COMM     (UINT64_C(1) << 28)
#define KEV_NOTE_CORE     (UINT64_C(1) << 29)
#define KEV_NOTE_LOST     (UINT64_C(1) << 30)

#define KEV_NOTE_LINKUP   (UINT64_C(1) << 31)
#define KEV_NOTE_LINKDOWN (UINT64_C(1) << 32)
#define KEV_NOTE_LINKINV  (UINT64_C(1) << 33)
#define KEV_NOTE_ADD      (UINT64_C(1) << 34)
#define KEV_NOTE_MTU      (UINT64_C(1) << 35)
#define KEV_NOTE_ADDRESS  (UINT64_C(1) << 36)
#define KEV_NOTE_ROUTE    (UINT64_C(1) << 37)
#define KEV_NOTE_FLAGS    (UINT64_C(1) << 38)

#define KEV_NOTE_LOWAT    (UINT64_C(1) << 39)
#define KEV_NOTE_EOF      (UINT64_C(1) << 40)
#define KEV_NOTE_COMPLETE (UINT64_C(1) << 41)

#define KEV_NOTE_SEC     (UINT64_C(1) << 42)
#define KEV_NOTE_MSEC    (UINT64_C(1) << 43)
#define KEV_NOTE_USEC    (UINT64_C(1) << 44)
#define KEV_NOTE_NSEC    (UINT64_C(1) << 45)
#define KEV_NOTE_ABSTIME (UINT64_C(1) << 46)

#define KEV_NOTE_TRIGGER (UINT64_C(1) << 47)

#define KEV_NOTE_IN     (UINT64_C(1) << 48)
#define KEV_NOTE_OUT    (UINT64_C(1) << 49)
#define KEV_NOTE_PRI    (UINT64_C(1) << 50)
#define KEV_NOTE_ERR    (UINT64_C(1) << 51)
#define KEV_NOTE_HUP    (UINT64_C(1) << 52)
#define KEV_NOTE_RDHUP  (UINT64_C(1) << 53)
#define KEV_NOTE_NVAL   (UINT64_C(1) << 54)
#define KEV_NOTE_RDNORM (UINT64_C(1) << 55)
#define KEV_NOTE_RDBAND (UINT64_C(1) << 56)
#define KEV_NOTE_WRNORM (UINT64_C(1) << 57)
#define KEV_NOTE_WRBAND (UINT64_C(1) << 58)
/* tree: not a thing that happens, but a wish: events tell of the process that made the change, as
 * far as that is known (kev_event_pid() and so on). Alone it stands beside all the default notes.
 * It takes fanotify: where inotify serves the watch, it is refused with EOPNOTSUPP. */
#define KEV_NOTE_WHO    (UINT64_C(1) << 59)

/* Flags of a watch, and of an event. */
#define KEV_FLAG_ONESHOT   (UINT32_C(1) << 0) /* delivered once, then removed */
#define KEV_FLAG_DISPATCH  (UINT32_C(1) << 1) /* delivered once, then disabled */
#define KEV_FLAG_DISABLED  (UINT32_C(1) << 2) /* made, but silent until kev_enable() */
#define KEV_FLAG_LEVEL     (UINT32_C(1) << 3) /* read, write, poll, aio: told at every wait, as long as it holds */
#define KEV_FLAG_EDGE      (UINT32_C(1) << 4) /* poll: told once for each change, as it is without a flag, too */
#define KEV_FLAG_EXCLUSIVE (UINT32_C(1) << 5) /* poll: of all such watches on a descriptor one is told, in turn */
/* In an event: nothing more will come of this watch; it still is to be removed. read, write: the end was reached (a
 * FIFO or a terminal may begin anew). */
#define KEV_FLAG_EOF       (UINT32_C(1) << 6)

/* What an event's path is. */
enum kev_kind {
        KEV_KIND_UNKNOWN, /* not told; often gone already */
        KEV_KIND_FILE,
        KEV_KIND_DIRECTORY,
        KEV_KIND_SYMLINK,
        KEV_KIND_FIFO,
        KEV_KIND_SOCKET,
        KEV_KIND_BLOCK_DEVICE,
        KEV_KIND_CHARACTER_DEVICE,
};

/* ---- names ---------------------------------------------------------------- */

/* The word for a filter, note (one bit), flag (one bit) or kind, as in the
 * interface; NULL for a value that has none. The strings are static. */
const char *kev_filter_name(enum kev_filter filter);
const char *kev_note_name(uint64_t note);
const char *kev_flag_name(uint32_t flag);
const char *kev_kind_name(enum kev_kind kind);

/* The value for a word: 0, or -EINVAL when there is none of that name. */
int kev_filter_from_name(const char *name, enum kev_filter *ret_filter);
int kev_note_from_name(const char *name, uint64_t *ret_note);

/* All notes that the filter knows, and those that a watch without notes gets. */
uint64_t kev_filter_notes(enum kev_filter filter);
uint64_t kev_filter_default_notes(enum kev_filter filter);

/* ---- watches -------------------------------------------------------------- */

/*
 * A watch is a description: it is filled in, given to kev_add(), and may be
 * freed or used again right after that. Setters copy what they are given, and
 * return 0, -EINVAL for a value that can't be, or -ENOMEM.
 */
int kev_watch_new(enum kev_filter filter, struct kev_watch **ret_watch);

/* From one Watch object in JSON, as in the interface org.kevd.events; id may be
 * left out. `ret_error`, if given, gets an allocated sentence on -EINVAL, which
 * the caller frees. */
int kev_watch_new_from_json(const char *json, struct kev_watch **ret_watch, char **ret_error);

/* Frees; NULL is allowed. Returns NULL. */
struct kev_watch *kev_watch_free(struct kev_watch *watch);

/* The watch's number in its connection's events, 0 to 2^63-1. Without it
 * kev_add() takes the lowest number above all that the connection used. */
int kev_watch_set_id(struct kev_watch *watch, int64_t id);

/* vnode, tree. A relative path is taken from the current directory, now; events
 * then carry the absolute path. Symbolic links in the path are followed, those
 * below it are not. Errors also those of getcwd(3). */
int kev_watch_set_path(struct kev_watch *watch, const char *path);

/* proc, signal. The process that has the pid when kev_add() runs; a pid that is
 * given to another process later is not followed. */
int kev_watch_set_pid(struct kev_watch *watch, pid_t pid);

/* vnode and tree: an open file or directory; proc: a pidfd; read, write and poll: what is to be read, written or
 * polled; aio: an eventfd. The descriptor is duplicated now, sent by kev_add() (poll: by kev_modify(), too), and the
 * duplicate closed with the watch: as long as that is not freed, nobody sees that the descriptor was closed. The
 * daemon keeps no copy: it sees nothing more of what all others have closed, as is so with epoll(7).
 * Errors also those of fcntl(2), F_DUPFD_CLOEXEC: -EBADF, it is not open. */
int kev_watch_set_fd(struct kev_watch *watch, int fd);

/* proc. In place of one process: all that the caller may see and that are like this, those to come
 * too. `exe`, `comm` and `cgroup` are globs (see kev(1)), `uid` is the real user; NULL, and -1, for
 * what doesn't matter. Without a slash in it, a glob for exe or cgroup is matched against the last
 * name. What an earlier call said is replaced; -EINVAL also for a glob that is empty, longer than
 * 1024 bytes or not UTF-8. kev_add() answers -EOPNOTSUPP where the daemon is told of no processes
 * but those it watches one by one. */
int kev_watch_set_match(struct kev_watch *watch, const char *exe, const char *comm, const char *cgroup, int64_t uid);

/* netdev: the device's name; without it all devices. user: the event's name. */
int kev_watch_set_name(struct kev_watch *watch, const char *name);

/* timer: the period or, with KEV_NOTE_ABSTIME, the moment since 1970-01-01
 * 00:00 UTC; in milliseconds unless a note says otherwise. read, write: the low-water mark in bytes (of a listening
 * socket: in connections), at least 1; where the daemon may not look at the caller's descriptors, kev_add() answers
 * -EOPNOTSUPP to one above 1. signal: the number of the only one that is wanted. */
int kev_watch_set_data(struct kev_watch *watch, int64_t data);

/* What is wanted; 0 means kev_filter_default_notes(). */
int kev_watch_set_notes(struct kev_watch *watch, uint64_t notes);
int kev_watch_set_flags(struct kev_watch *watch, uint32_t flags);

/* tree. Globs are matched against the path below the watched directory: `*` and
 * `?` stay within one name, `**` spans directories, a leading `!` takes back an
 * earlier glob. */
int kev_watch_add_include(struct kev_watch *watch, const char *glob);
int kev_watch_add_exclude(struct kev_watch *watch, const char *glob);
/* tree. How far below the directory: 1 is what it holds itself. */
int kev_watch_set_depth(struct kev_watch *watch, int depth);
/* tree. Events are kept back until there was none for settle_msec, but the first of
 * them no longer than max_latency_msec (0: ten times as long as settle_msec). While they
 * never stop, that is counted from the last delivery: each such span brings some. */
int kev_watch_set_settle(struct kev_watch *watch, int settle_msec, int max_latency_msec);
/* tree. What is there already is told as created, and then `listed`. */
int kev_watch_set_list(struct kev_watch *watch, bool list);
/* tree. File systems mounted below the directory belong to it, now and later. A mount that
 * comes or goes is told with `rescan`, one that can't be watched with `degraded`, and one that
 * may not be read not at all. */
int kev_watch_set_cross_mounts(struct kev_watch *watch, bool cross);
/* tree. What this very process does is left out. It takes fanotify: where inotify serves the
 * watch, this is refused with EOPNOTSUPP. */
int kev_watch_set_exclude_self(struct kev_watch *watch, bool exclude);

/* ---- events --------------------------------------------------------------- */

/*
 * An event is read-only, and lives until the handler returns or, from
 * kev_wait(), until the next call on its connection. kev_event_ref() keeps it
 * for longer. Strings that it hands out live as long as the event.
 */
const struct kev_event *kev_event_ref(const struct kev_event *event);
const struct kev_event *kev_event_unref(const struct kev_event *event); /* returns NULL */

int64_t kev_event_id(const struct kev_event *event);
uint64_t kev_event_seq(const struct kev_event *event); /* from 1 on, with no gap; 0: the library's own */
enum kev_filter kev_event_filter(const struct kev_event *event);
uint64_t kev_event_notes(const struct kev_event *event);
uint32_t kev_event_flags(const struct kev_event *event);
uint64_t kev_event_count(const struct kev_event *event);         /* kernel events that it stands for */
uint64_t kev_event_realtime_usec(const struct kev_event *event); /* CLOCK_REALTIME of the first of them */
enum kev_kind kev_event_kind(const struct kev_event *event);

/* timer: expirations; user: what was triggered with; read: bytes to read (a listening socket: connections to accept, a
 * regular file: bytes behind its offset, less than 0 if that is behind the end); write: bytes of room; aio:
 * completions; signal: its number; proc: the status, see wait(2). 0, or -ENODATA if the event has none. */
int kev_event_data(const struct kev_event *event, int64_t *ret_data);

/* Bytes, not necessarily UTF-8; NULL if the event has none. */
const char *kev_event_path(const struct kev_event *event);
const char *kev_event_from_path(const struct kev_event *event);

/* The process that the event is about (proc) or that caused it (tree, signal);
 * each 0, or -ENODATA where it isn't known or may not be told. */
int kev_event_pid(const struct kev_event *event, pid_t *ret_pid);
int kev_event_parent(const struct kev_event *event, pid_t *ret_pid);
int kev_event_uid(const struct kev_event *event, uid_t *ret_uid);
const char *kev_event_comm(const struct kev_event *event);
const char *kev_event_exe(const struct kev_event *event);
const char *kev_event_cgroup(const struct kev_event *event);

/* How it ended: one of exit code (0 to 255) and signal number, or neither where
 * the status can't be known. */
int kev_event_exit_code(const struct kev_event *event, int *ret_code);
int kev_event_signal(const struct kev_event *event, int *ret_signal);
bool kev_event_core_dumped(const struct kev_event *event);
/* What it had used at its end: CPU time in microseconds, and the most memory at a time in bytes. -ENODATA where that
 * isn't known: the daemon follows processes by something else than BPF. */
int kev_event_cpu_time(const struct kev_event *event, uint64_t *ret_usec);
int kev_event_peak_memory(const struct kev_event *event, uint64_t *ret_bytes);

/* The network device. kev_event_link_index() is -ENODATA, and the strings are
 * NULL, where the event has none. */
int kev_event_link_index(const struct kev_event *event, int *ret_index);
const char *kev_event_link_name(const struct kev_event *event);
const char *kev_event_link_old_name(const struct kev_event *event);
bool kev_event_link_up(const struct kev_event *event);
bool kev_event_link_carrier(const struct kev_event *event);
const char *kev_event_link_oper_state(const struct kev_event *event); /* RFC 2863, in lower case */
int kev_event_link_mtu(const struct kev_event *event, uint32_t *ret_mtu); /* bytes */
const char *kev_event_link_address(const struct kev_event *event);        /* hardware address */
/* The i-th IP address with its prefix length ("192.0.2.1/24"); NULL past the last. */
const char *kev_event_link_ip_address(const struct kev_event *event, size_t i);
/* The gateway of the i-th default route through it, "0.0.0.0" or "::" for one without; NULL past the last. */
const char *kev_event_link_gateway(const struct kev_event *event, size_t i);
/* Where it has moved to (linkinv): the namespace as the one that it has left numbers it (RTM_GETNSID), or -1 if it
 * doesn't, and its index there. -ENODATA: it has not moved. */
int kev_event_link_moved_to(const struct kev_event *event, int *ret_namespace, int *ret_index);
/* How often the carrier changed beside what the event shows: one change if it has
 * linkup or linkdown alone, none if it has both. */
uint64_t kev_event_link_flaps(const struct kev_event *event);

/* The Event object, as it came from the daemon: one line of JSON, no newline. */
const char *kev_event_json(const struct kev_event *event);

/* ---- connections ---------------------------------------------------------- */

/*
 * Connects. `address` is one of
 *   NULL        the first of: $KEV_ADDRESS (ignored in setuid programs), system, user, private
 *   "system"    /run/kevd/org.kevd.events
 *   "user"      $XDG_RUNTIME_DIR/kevd/org.kevd.events
 *   "private"   a kevd of this connection's own, with this process's rights, which ends with it
 *   "unix:PATH" or an absolute path; "unix:@NAME" for the abstract namespace
 * A private kevd is not the program's child, as wait(2) and SIGCHLD go, unless
 * the program inherits orphans (process 1, PR_SET_CHILD_SUBREAPER): then it is,
 * and the program has to reap it once it has ended, soon after kev_close().
 * Blocks for the time that connect(2) takes. Errors: those of connect(2);
 * -EINVAL for an address of no such form; -ENOENT where private finds no kevd.
 */
int kev_open(const char *address, struct kev **ret_kev);

/* Closes the connection, and with it its watches; NULL is allowed. Not from
 * within a handler. Returns NULL. */
struct kev *kev_close(struct kev *kev);

/*
 * When kevd has gone (it is restarted, say), the library comes again, to the same
 * address, for so long after the loss: 10,000 msec unless this says otherwise; 0
 * not at all. It does so within the calls that wait; kev_get_fd() is readable when
 * it is time to. Then it makes the watches again, and each says what may have been
 * missed, by an event whose kev_event_seq() is 0 (kevd's count begins anew):
 * KEV_NOTE_RESCAN of tree, vnode and netdev, KEV_NOTE_LOST with the count 0 of the
 * others. A proc watch for the end of one process says nothing, or KEV_NOTE_EXIT
 * if that is over. What can't be made again ends with KEV_FLAG_EOF: always so for
 * descriptors that were passed (but pidfds), of which the library keeps no copy.
 * A call that waited for an answer fails with -ECONNRESET: it was run or not.
 * -EINVAL for a negative time.
 */
int kev_set_reconnect_timeout(struct kev *kev, int timeout_msec);

/* What it is connected to: "private", or "unix:PATH". Lives as long as the
 * connection. */
const char *kev_address(const struct kev *kev);

/* The sentence for the last negative answer on this connection; never NULL,
 * valid until the next call. With NULL: for a kev_open() of this thread. */
const char *kev_error_message(const struct kev *kev);

typedef void kev_handler(struct kev *kev, const struct kev_event *event, void *userdata);

/*
 * Makes a watch. On return it is in force: nothing that happens later is
 * missed. Blocks until the daemon has answered; events that arrive meanwhile
 * are kept for the next kev_dispatch() or kev_wait().
 *
 * `handler` gets this watch's events from kev_dispatch(); it may add and remove
 * watches, its own too, but not call kev_dispatch(), kev_wait() or kev_close().
 * NULL: the events come from kev_wait(). `ret_id` may be NULL.
 *
 * Errors, beside those of the connection: what the daemon refused it with
 * (table "Errors" in kevd(8)).
 *
 * KEV_FILTER_SIGNAL of this very process: where the daemon can't tell of signals
 * (it takes CAP_BPF and CAP_PERFMON), the library does, with a signalfd(2). Then
 * the signal has to be blocked in all threads (without a number: those count that
 * are blocked as kev_add() runs; -EOPNOTSUPP if none is), and is taken away by
 * the event; standard signals that are pending already come once; and
 * kev_event_seq() is 0.
 */
int kev_add(struct kev *kev, const struct kev_watch *watch, kev_handler *handler, void *userdata, int64_t *ret_id);

/* The same for `n_watches` watches in one call. All that can be made are made;
 * `ret_errors[i]`, if given, gets 0 or the refusal's negative errno, and
 * `ret_ids[i]`, if given, the number. Returns how many were refused (the
 * message is the first one's), or a negative errno where none was made. */
int kev_add_many(struct kev *kev, const struct kev_watch *const *watches, size_t n_watches, kev_handler *handler,
                 void *userdata, int64_t *ret_ids, int *ret_errors);

/* Changes notes, flags, data, globs, depth and settling of the watch with that id. For notes that it did not have a
 * poll watch takes the descriptor again: from `watch` or, if that has none, the program's own, as far as the daemon may
 * look at that (-EBADF if not). */
int kev_modify(struct kev *kev, int64_t id, const struct kev_watch *watch);

/* Ends a watch: none of its events is handed out any more, nor is it made again
 * where kevd has gone. -ENOENT: no watch has that id. */
int kev_remove(struct kev *kev, int64_t id);
int kev_enable(struct kev *kev, int64_t id);
int kev_disable(struct kev *kev, int64_t id);

/* Sets off the user watches of that name that belong to the same user. Returns
 * how many were reached. */
int kev_trigger(struct kev *kev, const char *name, int64_t data);

/*
 * For an event loop: the descriptor to wait on for reading, the same for the
 * connection's whole life; it is the library's, and not to be read or closed.
 */
int kev_get_fd(const struct kev *kev);

/*
 * Reads what has come and runs the handlers. `timeout_msec`: how long to wait
 * for the first event; 0 not at all, negative for ever. Events of watches that
 * have no handler are kept for kev_wait(). Returns the number of events handed
 * out, 0 when the time was up (or, with 0, when nothing had come);
 * -ECONNRESET when the daemon has gone and did not come back in time, -EINTR when a signal came first,
 * -EPROTO when what it sent can't be understood.
 */
int kev_dispatch(struct kev *kev, int timeout_msec);

/*
 * Takes the next event, whichever watch it is of (handlers are not run).
 * Everything that this process did before the call is taken into account: with
 * a timeout of 0 the answer tells whether an event is due, not whether one has
 * come by chance. Returns 1 and the event, 0 when the time was up, or a
 * negative errno as kev_dispatch() does.
 */
int kev_wait(struct kev *kev, int timeout_msec, const struct kev_event **ret_event);

/*
 * By which of the kernel's interfaces the watch is served, "inotify" for instance, or "signalfd" by the library; with
 * mounts that are crossed, the watched tree itself. `ret_name` is allocated. -ENOENT: there is no such watch.
 */
int kev_get_mechanism(struct kev *kev, int64_t id, char **ret_name);

/*
 * Any method of the daemon's interfaces: `parameters` is a JSON object, or NULL
 * for none; `ret_reply` gets the reply's parameters, allocated. An error reply
 * is -EREMOTEIO, with the error's name and parameters as the message. Not for
 * Wait, Monitor and Change, which are the library's own.
 */
int kev_call(struct kev *kev, const char *method, const char *parameters, char **ret_reply);

/* The library's version, "MAJOR.MINOR.PATCH". */
const char *kev_version(void);

#ifdef __cplusplus
}
#endif

#endif
