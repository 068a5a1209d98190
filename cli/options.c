/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <kev.h>
#include <limits.h>
#include <pwd.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "text.h"

/* The one list of options: getopt's table and the help are made from it. */
static const struct {
        enum option_bit option;
        const char *name;
        const char *value; /* what the help calls it; NULL: takes none */
        const char *help;
} table[] = {
        { OPTION_NOTES, "notes", "LIST", "only these, separated by commas: create,delete,..." },
        { OPTION_INCLUDE, "include", "GLOB", "only paths below the directory that match (repeatable)" },
        { OPTION_EXCLUDE, "exclude", "GLOB", "no paths below the directory that match (repeatable)" },
        { OPTION_DEPTH, "depth", "N", "no deeper than N levels; 1 is what the directory itself holds" },
        { OPTION_SETTLE, "settle", "MSEC", "keep events back until there was none for so long" },
        { OPTION_MAX_LATENCY, "max-latency", "MSEC", "with --settle: but no longer than this (default: 10 times as long)" },
        { OPTION_LIST, "list", NULL, "begin with what is there already, told as created, then listed" },
        { OPTION_CROSS_MOUNTS, "cross-mounts", NULL, "go on in what is mounted below the directory" },
        { OPTION_WHO, "who", NULL, "say which process did it" },
        { OPTION_EXEC, "exec", "COMMAND", "run COMMAND for each batch of events, instead of printing them" },
        { OPTION_WAIT_ANY, "any", NULL, "end with the first that ends" },
        { OPTION_WAIT_ALL, "all", NULL, "wait for all of them; so it is without this, too" },
        { OPTION_TRACK, "track", NULL, "descendants too, and which programs they run" },
        { OPTION_EXE, "exe", "GLOB", "only processes whose program file matches" },
        { OPTION_COMM, "comm", "GLOB", "only processes whose name matches" },
        { OPTION_CGROUP, "cgroup", "GLOB", "only processes whose control group matches" },
        { OPTION_UID, "uid", "USER", "only processes of that user, by name or number" },
        { OPTION_ALL_USERS, "all-users", NULL, "ask to be let see the processes of all users" },
        { OPTION_SIGNAL, "signal", "SIGNAL", "only this one, by name or number" },
        { OPTION_ONCE, "once", NULL, "expire once, then end" },
        { OPTION_FD, "in", "FD", "poll(2): there is something to read" },
        { OPTION_FD, "out", "FD", "poll(2): there is room to write" },
        { OPTION_FD, "pri", "FD", "poll(2): urgent data, or another exception" },
        { OPTION_FD, "err", "FD", "poll(2): an error, also that nobody reads; it comes unasked, too" },
        { OPTION_FD, "hup", "FD", "poll(2): the other side has hung up; it comes unasked, too" },
        { OPTION_FD, "rdhup", "FD", "poll(2): the other side writes no more" },
        { OPTION_FD, "rdnorm", "FD", "poll(2): as --in" },
        { OPTION_FD, "rdband", "FD", "poll(2): priority data to read" },
        { OPTION_FD, "wrnorm", "FD", "poll(2): as --out" },
        { OPTION_FD, "wrband", "FD", "poll(2): room for priority data" },
        { OPTION_FD, "read", "FD", "kqueue: there is so much to read, or the end" },
        { OPTION_FD, "write", "FD", "kqueue: there is so much room, or nobody who reads" },
        { OPTION_FD, "aio", "FD", "an eventfd that asynchronous input and output completes on" },
        { OPTION_LOWAT, "lowat", "BYTES", "--read, --write: not for less than this" },
        { OPTION_FD_FLAG, "level", NULL, "again and again as long as it holds, not once for each change" },
        { OPTION_FD_FLAG, "oneshot", NULL, "the first event of each watch is its last" },
        { OPTION_FD_FLAG, "exclusive", NULL, "of all who say this of a descriptor one is told, in turn" },
        { OPTION_JSON, "json", NULL, "print JSON, one object a line" },
        { OPTION_METRICS, "metrics", NULL, "print figures for monitoring, in the OpenMetrics format" },
        { OPTION_COUNT, "count", "N", "end after N events" },
        { OPTION_TIMEOUT, "timeout", "SECONDS", "end after that time, with exit status 124" },
        { OPTION_ADDRESS, "address", "ADDR", "system, user, private, unix:PATH or an absolute path" },
        { OPTION_QUIET, "quiet", NULL, "nothing but errors on standard error" },
        { OPTION_HELP, "help", NULL, "print this help" },
        { OPTION_VERSION, "version", NULL, "print the version" },
};

enum {
        N_OPTIONS = sizeof(table) / sizeof(table[0]),
        FIRST_LONG = 256, /* what getopt_long() answers for table[0]; above every character */
        OPTIONS_GLOBAL = OPTIONS_EVENTS | OPTION_VERSION,
};

int usage_error(const struct command *command, const char *format, ...) {
        struct text t = { 0 };
        char *sentence = NULL;
        va_list ap;

        va_start(ap, format);
        if (vasprintf(&sentence, format, ap) < 0)
                sentence = NULL;
        va_end(ap);
        text_puts(&t, "kev: ");
        text_puts_escaped(&t, sentence ? sentence : "out of memory");
        text_printf(&t, "; try 'kev %s%s--help'\n", command ? command->name : "", command ? " " : "");
        if (t.data)
                (void)fputs(t.data, stderr);
        text_free(&t);
        free(sentence);
        return STATUS_USAGE;
}

/* ---- values ------------------------------------------------------------------ */

int number_read(const char *text, uint64_t min, uint64_t max, uint64_t *ret_number) {
        unsigned long long number;

        if (*text == 0 || text[strspn(text, "0123456789")] != 0)
                return -EINVAL;
        errno = 0;
        number = strtoull(text, NULL, 10);
        if (errno != 0 || number < min || number > max)
                return -ERANGE;
        *ret_number = number;
        return 0;
}

static int unit_read(const char *text, int64_t *unit) {
        static const struct {
                const char *name;
                int64_t nsec;
        } units[] = {
                { "ns", 1 },           { "us", NSEC_PER_USEC },    { "ms", NSEC_PER_MSEC },
                { "s", NSEC_PER_SEC }, { "m", 60 * NSEC_PER_SEC }, { "h", 3600 * NSEC_PER_SEC },
        };

        if (*text == 0)
                return 0;
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
                if (strcmp(text, units[i].name) == 0) {
                        *unit = units[i].nsec;
                        return 0;
                }
        return -EINVAL;
}

int duration_read(const char *text, int64_t unit, int64_t *ret_nsec) {
        size_t whole = strspn(text, "0123456789"), fraction = 0;
        const char *end = text + whole;
        int64_t nsec = 0, weight;

        if (*end == '.')
                fraction = strspn(++end, "0123456789");
        if (whole + fraction == 0 || unit_read(end + fraction, &unit) < 0)
                return -EINVAL;
        for (const char *p = text; p < text + whole; p++)
                if (__builtin_mul_overflow(nsec, 10, &nsec) || __builtin_add_overflow(nsec, *p - '0', &nsec))
                        return -ERANGE;
        if (__builtin_mul_overflow(nsec, unit, &nsec))
                return -ERANGE;
        weight = unit / 10;
        for (const char *p = end; p < end + fraction; p++, weight /= 10)
                if (__builtin_add_overflow(nsec, (*p - '0') * weight, &nsec))
                        return -ERANGE;
        if (nsec == 0)
                return -ERANGE;
        *ret_nsec = nsec;
        return 0;
}

static int notes_read(const struct command *command, const char *list, uint64_t *notes) {
        uint64_t known = kev_filter_notes(KEV_FILTER_VNODE) | kev_filter_notes(KEV_FILTER_TREE), note;
        char word[32];

        for (;;) {
                size_t size = strcspn(list, ",");

                (void)snprintf(word, sizeof(word), "%.*s", (int)(size < sizeof(word) ? size : sizeof(word)), list);
                if (kev_note_from_name(word, &note) < 0 || !(note & known)) {
                        usage_error(command, "--notes: there is no note '%s'", word);
                        return -EINVAL;
                }
                *notes |= note;
                if (list[size] == 0)
                        return 0;
                list += size + 1;
        }
}

/* A number or duration that was refused; `what` says what would do. */
static int bad_value(const struct command *command, const char *name, const char *value, const char *what) {
        usage_error(command, "--%s: '%s' is not %s", name, value, what);
        return -EINVAL;
}

/* A number above 0 that an int holds. */
static int int_read(const struct command *command, size_t i, const char *value, int *ret) {
        uint64_t number;

        if (number_read(value, 1, INT_MAX, &number) < 0)
                return bad_value(command, table[i].name, value, "a whole number above 0");
        *ret = (int)number;
        return 0;
}

/* Whether it is a glob, the daemon says. */
static int glob_read(const struct command *command, size_t i, const char *value, const char **ret) {
        if (*value == 0)
                return bad_value(command, table[i].name, value, "a glob");
        *ret = value;
        return 0;
}

/* A number is one, whatever users are called. */
static int user_read(const struct command *command, size_t i, const char *value, int64_t *ret) {
        const struct passwd *user;
        uint64_t number;
        int r = number_read(value, 0, UINT32_MAX - 1, &number);

        if (r == -EINVAL) {
                user = getpwnam(value);
                if (user) {
                        number = user->pw_uid;
                        r = 0;
                }
        }
        if (r < 0)
                return bad_value(command, table[i].name, value, "a user's name or number");
        *ret = (int64_t)number;
        return 0;
}

/* Whether it is open, the command finds out. */
static int fd_read(struct options *o, const struct command *command, size_t i, const char *value) {
        uint64_t fd;

        if (number_read(value, 0, INT_MAX, &fd) < 0)
                return bad_value(command, table[i].name, value, "a descriptor's number");
        o->fds[o->n_fds++] = (struct fd_option){ table[i].name, (int)fd };
        return 0;
}

/* The option is called as the flag. */
static uint32_t flag_of(const char *name) {
        const char *of_flag;

        for (uint32_t flag = 1; (of_flag = kev_flag_name(flag)); flag <<= 1)
                if (strcmp(of_flag, name) == 0)
                        return flag;
        return 0;
}

static int lowat_read(const struct command *command, size_t i, const char *value, int64_t *ret) {
        uint64_t bytes;

        if (number_read(value, 1, INT64_MAX, &bytes) < 0)
                return bad_value(command, table[i].name, value, "a whole number above 0");
        *ret = (int64_t)bytes;
        return 0;
}

/* "9", "KILL", "SIGKILL", "RTMIN+1". */
static int signal_read(const struct command *command, size_t i, const char *value, int *ret) {
        const char *name = strncmp(value, "SIG", 3) == 0 ? value + 3 : value, *abbreviation;
        uint64_t number = 0;

        if (number_read(value, 1, NSIG - 1, &number) == 0) {
                *ret = (int)number;
                return 0;
        }
        if (strncmp(name, "RTMIN", 5) == 0 && (name[5] == 0 || name[5] == '+') &&
            (name[5] == 0 || number_read(name + 6, 0, (uint64_t)(SIGRTMAX - SIGRTMIN), &number) == 0)) {
                *ret = SIGRTMIN + (name[5] ? (int)number : 0);
                return 0;
        }
        for (*ret = 1; *ret < NSIG; ++*ret)
                if ((abbreviation = sigabbrev_np(*ret)) && strcmp(abbreviation, name) == 0)
                        return 0;
        return bad_value(command, table[i].name, value, "a signal's name or number");
}

static int option_read(struct options *o, const struct command *command, size_t i, const char *value) {

        o->given |= table[i].option;
        switch (table[i].option) {
        case OPTION_JSON:
        case OPTION_METRICS:
        case OPTION_QUIET:
        case OPTION_HELP:
        case OPTION_VERSION:
        case OPTION_ONCE:
        case OPTION_LIST:
        case OPTION_WHO:
        case OPTION_CROSS_MOUNTS:
        case OPTION_WAIT_ANY:
        case OPTION_WAIT_ALL:
        case OPTION_TRACK:
        case OPTION_ALL_USERS:
                return 0;
        case OPTION_COUNT:
                if (number_read(value, 1, INT64_MAX, &o->count) < 0)
                        return bad_value(command, table[i].name, value, "a whole number above 0");
                return 0;
        case OPTION_TIMEOUT:
                if (duration_read(value, NSEC_PER_SEC, &o->timeout_nsec) < 0)
                        return bad_value(command, table[i].name, value, "a number of seconds above 0");
                return 0;
        case OPTION_ADDRESS:
                o->address = value;
                return 0;
        case OPTION_NOTES:
                return notes_read(command, value, &o->notes);
        case OPTION_INCLUDE:
        case OPTION_EXCLUDE:
                o->globs[o->n_globs++] = (struct glob){ table[i].option == OPTION_EXCLUDE, value };
                return 0;
        case OPTION_DEPTH:
                return int_read(command, i, value, &o->depth);
        case OPTION_SETTLE:
                return int_read(command, i, value, &o->settle_msec);
        case OPTION_MAX_LATENCY:
                return int_read(command, i, value, &o->max_latency_msec);
        case OPTION_EXEC:
                o->exec = value;
                return 0;
        case OPTION_EXE:
                return glob_read(command, i, value, &o->exe);
        case OPTION_COMM:
                return glob_read(command, i, value, &o->comm);
        case OPTION_CGROUP:
                return glob_read(command, i, value, &o->cgroup);
        case OPTION_UID:
                return user_read(command, i, value, &o->uid);
        case OPTION_FD:
                return fd_read(o, command, i, value);
        case OPTION_FD_FLAG:
                o->flags |= flag_of(table[i].name);
                return 0;
        case OPTION_SIGNAL:
                return signal_read(command, i, value, &o->signal);
        case OPTION_LOWAT:
                return lowat_read(command, i, value, &o->lowat);
        }
        return 0;
}

/* ---- reading ----------------------------------------------------------------- */

/* What getopt_long() stumbled on, by the name that the user gave it. */
static int unknown_option(const struct command *command, int answer, char *const *argv) {
        if (answer == ':')
                usage_error(command, "option '%s' needs a value", argv[optind - 1]);
        else if (optopt >= FIRST_LONG)
                usage_error(command, "option '--%s' takes no value", table[optopt - FIRST_LONG].name);
        else if (optopt != 0)
                usage_error(command, "unknown option '-%c'", optopt);
        else
                usage_error(command, "unknown option '%s'", argv[optind - 1]);
        return -EINVAL;
}

/* getopt's table, of the options that are allowed. */
static void options_allowed(unsigned allowed, struct option ret_options[static N_OPTIONS + 1]) {
        struct option *option = ret_options;

        for (int i = 0; i < N_OPTIONS; i++)
                if (allowed & table[i].option)
                        *option++ = (struct option){
                                .name = table[i].name,
                                .has_arg = table[i].value ? required_argument : no_argument,
                                .val = FIRST_LONG + i,
                        };
        *option = (struct option){ 0 };
}

int options_read(struct options *o, const struct command *command, int argc, char **argv) {
        struct option allowed[N_OPTIONS + 1];
        unsigned options = command ? command->options : OPTIONS_GLOBAL;
        int answer;

        options_allowed(options, allowed);
        options_free(o);
        o->uid = -1;
        o->globs = calloc((size_t)argc, sizeof(*o->globs));
        o->fds = calloc((size_t)argc, sizeof(*o->fds));
        if (!o->globs || !o->fds) {
                usage_error(command, "out of memory");
                return -EINVAL;
        }
        optind = 0; /* starts getopt_long() anew */
        opterr = 0;
        while ((answer = getopt_long(argc, argv, command ? ":h" : "+:h", allowed, NULL)) != -1)
                if (answer == 'h')
                        o->given |= OPTION_HELP;
                else if (answer < FIRST_LONG)
                        return unknown_option(command, answer, argv);
                else if (option_read(o, command, (size_t)(answer - FIRST_LONG), optarg) < 0)
                        return -EINVAL;
        o->arguments = argv + optind;
        o->n_arguments = argc - optind;
        for (int i = 0; i < N_OPTIONS; i++)
                if (command && o->given & table[i].option & ~options) {
                        usage_error(command, "option '--%s' is not for '%s'", table[i].name, command->name);
                        return -EINVAL;
                }
        return 0;
}

void options_free(struct options *o) {
        free(o->globs);
        o->globs = NULL;
        o->n_globs = 0;
        free(o->fds);
        o->fds = NULL;
        o->n_fds = 0;
}

void options_print_help(const struct command *command) {
        (void)printf("Usage: kev %s [OPTION...]%s%s\n\n%s\n\nOptions:\n", command->name, *command->arguments ? " " : "",
                     command->arguments, command->description);
        for (int i = 0; i < N_OPTIONS; i++) {
                char left[40];

                if (!(command->options & table[i].option))
                        continue;
                (void)snprintf(left, sizeof(left), "--%s%s%s", table[i].name, table[i].value ? " " : "",
                               table[i].value ? table[i].value : "");
                (void)printf("  %-18s %s\n", left, table[i].help);
        }
}
