/* SPDX-License-Identifier: LGPL-2.1-or-later */
#pragma once

/*
 * The command line: what a command is, the options that the commands share, and
 * the help that is made from both.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Exit statuses; kev wait has those of processes too. */
enum {
        STATUS_DONE = 0,
        STATUS_FAILED = 1, /* the daemon refused, or there is none, or it has gone */
        STATUS_USAGE = 2,
        STATUS_TIMEOUT = 124,
};

/* One bit an option; those that are called as a note or filter of a descriptor share one, as do flags. */
enum option_bit {
        OPTION_JSON = 1 << 0,
        OPTION_COUNT = 1 << 1,
        OPTION_TIMEOUT = 1 << 2,
        OPTION_ADDRESS = 1 << 3,
        OPTION_QUIET = 1 << 4,
        OPTION_HELP = 1 << 5,
        OPTION_VERSION = 1 << 6,
        OPTION_NOTES = 1 << 7,
        OPTION_INCLUDE = 1 << 8,
        OPTION_EXCLUDE = 1 << 9,
        OPTION_DEPTH = 1 << 10,
        OPTION_EXEC = 1 << 11,
        OPTION_ONCE = 1 << 12,
        OPTION_SETTLE = 1 << 13,
        OPTION_MAX_LATENCY = 1 << 14,
        OPTION_LIST = 1 << 15,
        OPTION_WHO = 1 << 16,
        OPTION_CROSS_MOUNTS = 1 << 17,
        OPTION_WAIT_ANY = 1 << 18,
        OPTION_WAIT_ALL = 1 << 19,
        OPTION_TRACK = 1 << 20,
        OPTION_EXE = 1 << 21,
        OPTION_COMM = 1 << 22,
        OPTION_CGROUP = 1 << 23,
        OPTION_UID = 1 << 24,
        OPTION_ALL_USERS = 1 << 25,
        OPTION_FD = 1 << 26,
        OPTION_FD_FLAG = 1 << 27,
        OPTION_LOWAT = 1 << 28,
        OPTION_SIGNAL = 1 << 29,
        OPTION_METRICS = 1 << 30,
};

#define OPTIONS_ANY (OPTION_JSON | OPTION_ADDRESS | OPTION_QUIET | OPTION_HELP)
#define OPTIONS_EVENTS (OPTIONS_ANY | OPTION_COUNT | OPTION_TIMEOUT)
#define OPTIONS_TREE (OPTION_INCLUDE | OPTION_EXCLUDE | OPTION_DEPTH | OPTION_SETTLE | OPTION_MAX_LATENCY | OPTION_LIST | \
                      OPTION_WHO | OPTION_CROSS_MOUNTS)
#define OPTIONS_MATCH (OPTION_EXE | OPTION_COMM | OPTION_CGROUP | OPTION_UID)
#define OPTIONS_FD (OPTION_FD | OPTION_FD_FLAG | OPTION_LOWAT)

struct glob {
        bool exclude;
        const char *pattern;
};

/* What is wanted of a descriptor. */
struct fd_option {
        const char *name; /* the option's: of a filter, or of a note of poll */
        int fd;
};

struct options {
        unsigned closed; /* of the bits 1 << fd: standard descriptors that were not open */
        unsigned given; /* of enum option_bit */
        uint64_t count; /* 0: no bound */
        int64_t timeout_nsec;
        const char *address;
        uint64_t notes;
        struct glob *globs; /* in the order given */
        size_t n_globs;
        struct fd_option *fds; /* in the order given */
        size_t n_fds;
        uint32_t flags;
        int64_t lowat; /* 0: not given */
        int signal;
        int depth;
        int settle_msec, max_latency_msec; /* 0: not given */
        const char *exec;
        const char *exe, *comm, *cgroup; /* NULL: not given */
        int64_t uid;                     /* -1: not given */
        char **arguments; /* NULL-terminated */
        int n_arguments;
};

struct command {
        const char *name;
        const char *arguments; /* as the help shows them */
        const char *summary;
        const char *description;
        unsigned options; /* of enum option_bit */
        bool arguments_required;
        int (*run)(const struct command *command, const struct options *options);
};

/*
 * Reads the options and arguments of `command`, or, with NULL, the options that
 * stand before a command: arguments then begin with the command's name. -EINVAL
 * after a message.
 */
int options_read(struct options *o, const struct command *command, int argc, char **argv);
void options_free(struct options *o);

void options_print_help(const struct command *command);

/* Says what is wrong and where help is; returns STATUS_USAGE. */
__attribute__((__format__(__printf__, 2, 3))) int usage_error(const struct command *command, const char *format, ...);

/* A whole number from `min` to `max`, digits only. */
int number_read(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number);
/* "2", "2.5", "500ms" (ns, us, ms, s, m, h), in nanoseconds and above 0; without a unit it is so many `unit`. */
int duration_read(const char *text, int64_t unit, int64_t *ret_nsec);

#define NSEC_PER_USEC INT64_C(1000)
#define NSEC_PER_MSEC INT64_C(1000000)
#define NSEC_PER_SEC INT64_C(1000000000)
