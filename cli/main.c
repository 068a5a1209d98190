/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kev: kernel events on the command line. The table of commands, and what is the
 * same for all of them before they run and after.
 */

#include <errno.h>
#include <fcntl.h>
#include <kev.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "commands.h"
#include "config.h"
#include "report.h"
#include "signals.h"

static const struct command commands[] = {
        {
                .name = "watch",
                .arguments = "[PATH...]",
                .summary = "changes of files, and of directories with all below them",
                .description =
                        "Prints what changes in each directory PATH and everything below it, and what\n"
                        "happens to each PATH that is a file. Without PATH: the current directory.\n"
                        "\n"
                        "Globs are matched against the path below the directory: * and ? stay within one\n"
                        "name, ** spans directories, and a leading ! takes back an earlier glob.\n"
                        "\n"
                        "COMMAND is run by /bin/sh with the paths that changed on its standard input, one a\n"
                        "line; {} in it is replaced by them, quoted. It never runs twice at once: what\n"
                        "changes meanwhile is for the next run.\n"
                        "\n"
                        "Notes of directories: create delete write closewrite attrib rename replace movedin\n"
                        "movedout. Of files: delete write extend attrib link rename revoke closewrite and,\n"
                        "only when asked for, open close read. Notes that come unasked: rescan (look again\n"
                        "at this path and below), gone, back, degraded.\n"
                        "\n"
                        "  kev watch\n"
                        "  kev watch --exclude '.git/**' --notes create,closewrite,rename src include\n"
                        "  kev watch --exec 'make -s' --exclude 'build/**'",
                .options = OPTIONS_EVENTS | OPTIONS_TREE | OPTION_NOTES | OPTION_EXEC,
                .run = watch_run,
        },
        {
                .name = "wait",
                .arguments = "PID|NAME...",
                .summary = "wait for processes, and end as they did",
                .description =
                        "Waits until all of the processes have ended, whosever children they are, and prints\n"
                        "how each of them did. The exit status is that of the last one to end, 128 and the\n"
                        "signal's number if a signal killed it, or 1 if its status can't be known. With --any\n"
                        "the first that ends is enough.\n"
                        "\n"
                        "NAME, which is not a number, stands for all of your processes (root: all processes)\n"
                        "that run now and are called this.\n"
                        "\n"
                        "  kev wait 1234 && echo it went well\n"
                        "  kev wait make\n"
                        "  kev wait --any 1234 1235",
                .options = OPTIONS_EVENTS | OPTION_WAIT_ANY | OPTION_WAIT_ALL,
                .arguments_required = true,
                .run = wait_run,
        },
        {
                .name = "proc",
                .arguments = "[PID...]",
                .summary = "how processes end, and what they start",
                .description =
                        "Prints the exit and the reap of each process PID, and ends when all of them were\n"
                        "reaped. Without PID: of all processes that you may see and that match or, where the\n"
                        "daemon can't tell of those and nothing has to match, of your processes that run now.\n"
                        "\n"
                        "With --track also which children they make from now on, which programs these run, and\n"
                        "how they end, and so on with their children. Of PIDs, and on a terminal, all this is\n"
                        "shown as a tree.\n"
                        "\n"
                        "In a GLOB, * and ? stay within one name, and ** does not. Without a slash it is about\n"
                        "the last name of the program file's path, or of the control group's.\n"
                        "\n"
                        "With --all-users polkit is asked first, which may ask for a password.\n"
                        "\n"
                        "  kev proc --track 1234\n"
                        "  kev proc --comm 'cc*' --uid builder",
                .options = OPTIONS_EVENTS | OPTION_TRACK | OPTION_ALL_USERS | OPTIONS_MATCH,
                .run = proc_run,
        },
        {
                .name = "signal",
                .arguments = "PID...",
                .summary = "which signals are sent to processes, and by whom",
                .description =
                        "Prints each signal that is sent to each process PID, also those that it ignores or\n"
                        "blocks, and which process has sent it; and ends when all of them have ended.\n"
                        "\n"
                        "  kev signal --signal TERM 1234",
                .options = OPTIONS_EVENTS | OPTION_SIGNAL,
                .arguments_required = true,
                .run = signal_run,
        },
        {
                .name = "netdev",
                .arguments = "[NAME...]",
                .summary = "network devices: carrier, state, addresses, names",
                .description =
                        "Prints how each network device NAME is, and then what happens to it. Without NAME: all\n"
                        "devices, and those to come too. linkup and linkdown are the carrier; flags is what ip\n"
                        "link sets.",
                .options = OPTIONS_EVENTS,
                .run = netdev_run,
        },
        {
                .name = "timer",
                .arguments = "PERIOD",
                .summary = "a line each time a period is over",
                .description =
                        "Prints a line each time PERIOD is over: so many milliseconds, or with a unit ns, us,\n"
                        "ms, s, m or h.\n"
                        "\n"
                        "  kev timer --count 3 250ms",
                .options = OPTIONS_EVENTS | OPTION_ONCE,
                .arguments_required = true,
                .run = timer_run,
        },
        {
                .name = "fd",
                .arguments = "--in FD...",
                .summary = "descriptors that kev was started with, as poll(2) has them",
                .description =
                        "Prints what happens to each descriptor FD that kev has from the shell, as poll(2),\n"
                        "epoll(7) and kqueue(2) would tell it. Nothing is read from it or written to it. Ends when\n"
                        "the other side of all of them has ended: hup, or the eof of --read and --write.\n"
                        "\n"
                        "What poll(2) has words for is one watch for each descriptor. Without --level each change\n"
                        "is told once.\n"
                        "\n"
                        "  make 2>&1 | kev fd --in 0 --count 1\n"
                        "  kev fd --read 3 --lowat 4096 3<fifo",
                .options = OPTIONS_EVENTS | OPTIONS_FD,
                .run = fd_run,
        },
        {
                .name = "monitor",
                .arguments = "WATCH...",
                .summary = "any watches, in JSON",
                .description =
                        "Each WATCH is one object of the type Watch in the interface org.kevd.events; its id\n"
                        "may be left out.\n"
                        "\n"
                        "  kev monitor '{\"filter\":\"user\",\"name\":\"reload\"}'\n"
                        "  kev monitor '{\"filter\":\"tree\",\"path\":\"/etc\",\"tree\":{\"settleMsec\":200}}'",
                .options = OPTIONS_EVENTS,
                .arguments_required = true,
                .run = monitor_run,
        },
        {
                .name = "status",
                .arguments = "",
                .summary = "what the daemon does just now",
                .description =
                        "Prints the daemon's version and mode, the kernel interfaces it uses and why none\n"
                        "better, what it has counted, and who is connected. For root and the user that the\n"
                        "daemon runs as.\n"
                        "\n"
                        "  kev status --metrics >kevd.prom.new && mv kevd.prom.new kevd.prom",
                .options = OPTIONS_ANY | OPTION_METRICS,
                .run = status_run,
        },
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(FILE *file) {
        (void)fputs("Usage: kev COMMAND [OPTION...] [ARGUMENT...]\n\nKernel events from kevd.\n\n", file);
        for (int i = 0; i < N_COMMANDS; i++) {
                char left[40];

                (void)snprintf(left, sizeof(left), "%s %s", commands[i].name, commands[i].arguments);
                (void)fprintf(file, "  kev %-18s %s\n", left, commands[i].summary);
        }
        (void)fprintf(file, "  kev %-18s %s\n", "help COMMAND", "what a command does, and its options");
        (void)fputs("\nExit status: 0 done, 1 the daemon refused or is not there, 2 wrong usage, 124 the time\n"
                    "was up. See kev(1).\n", file);
}

static const struct command *find_command(const char *name) {
        for (int i = 0; i < N_COMMANDS; i++)
                if (strcmp(commands[i].name, name) == 0)
                        return &commands[i];
        usage_error(NULL, "no command '%s'", name);
        return NULL;
}

static int help_run(char *const *arguments) {
        const struct command *command = arguments[0] ? find_command(arguments[0]) : NULL;

        if (command)
                options_print_help(command);
        else if (arguments[0])
                return STATUS_USAGE;
        else
                print_help(stdout);
        return STATUS_DONE;
}

static int run_command(struct options *o, int argc, char **argv) {
        const struct command *command = find_command(argv[0]);

        if (!command || options_read(o, command, argc, argv) < 0)
                return STATUS_USAGE;
        if (o->given & OPTION_HELP) {
                options_print_help(command);
                return STATUS_DONE;
        }
        if (command->arguments_required && o->n_arguments == 0)
                return usage_error(command, "%s is missing", command->arguments);
        return command->run(command, o);
}

static int run(struct options *o, int argc, char **argv) {
        int n;

        if (options_read(o, NULL, argc, argv) < 0)
                return STATUS_USAGE;
        n = o->n_arguments;
        argv = o->arguments;
        if (o->given & OPTION_VERSION) {
                (void)printf("kev %s, libkev %s\n", KEVD_VERSION, kev_version());
                return STATUS_DONE;
        }
        if ((o->given & OPTION_HELP) || (n > 0 && strcmp(argv[0], "help") == 0))
                return help_run(n > 0 && strcmp(argv[0], "help") == 0 ? argv + 1 : argv);
        if (n == 0) {
                print_help(stderr);
                return STATUS_USAGE;
        }
        return run_command(o, n, argv);
}

/* A descriptor that was closed for us would be given to a socket, and written to as if it were a terminal. These
 * stand-ins fail when they are used. */
static int open_standard_descriptors(unsigned *closed) {
        for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
                if (fcntl(fd, F_GETFD) >= 0)
                        continue;
                *closed |= 1u << fd;
                if (open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) != fd)
                        return -1;
        }
        return 0;
}

int main(int argc, char **argv) {
        struct options o = { 0 };
        int status;

        if (open_standard_descriptors(&o.closed) < 0)
                return STATUS_FAILED;
        (void)signal(SIGPIPE, SIG_IGN);
        status = run(&o, argc, argv);
        options_free(&o);
        if ((fflush(stdout) != 0 || ferror(stdout)) && errno != EPIPE) {
                report(NULL, "can't write to standard output", strerror(errno));
                status = STATUS_FAILED;
        }
        signals_reraise();
        return status;
}
