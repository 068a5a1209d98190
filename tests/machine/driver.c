/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * machine-driver OPTION... DIRECTORY... -- COMMAND...
 *
 * Clients watch, files are made in their trees, a device changes, children end; meanwhile COMMAND is run, which
 * restarts the daemon, kills it, or does nothing, once in each round. All that is made is compared with what is
 * told. Each round prints a line that begins with "# round", and what is missing. The exit status is 1 if something
 * is that may not be.
 *
 * Every second client connects as another user, and the clients' trees are in the directories in turn. The program is
 * one thread, and runs as root.
 */

#include <err.h>
#include <errno.h>
#include <getopt.h>
#include <fcntl.h>
#include <inttypes.h>
#include <net/if.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "macro.h"
#include "triggers.h"

enum {
        BEFORE_MSEC = 100,    /* of load, before the command */
        AFTER_MSEC = 300,     /* and after it */
        SETTLE_MSEC = 10000,  /* for what is still to be told, if nothing is lost */
        COMMAND_MSEC = 60000,
        FILE_MSEC = 1,        /* one file, of any client, each so often */
        TRIGGER_MSEC = 4,
        LINK_MSEC = 8,
        EXIT_MSEC = 10,
        CHILDREN = 3,         /* of each client, in a round */
        LINES_OF_MISSING = 20,
};

struct driver {
        const char *socket_path;
        const char *link;
        size_t n_clients, n_rounds;
        uid_t uid;
        int gap_max_msec; /* 0: any */
        bool may_cover;   /* events may be lost if their client is told to look again */
        bool may_cover_some; /* the same, but not in every round */
        bool may_disconnect; /* so may connections, which tells their client the same */
        char **directories;
        size_t n_directories;
        char **command;

        struct client *clients;
        struct triggers triggers[2]; /* root's, the user's */
        struct pollfd *polled;
        struct round round;
        size_t n_unseen; /* rounds in which the clients noticed nothing */
        size_t n_links, n_files, n_triggers, n_exits;
        int link_fd;
};

/* ---- load ------------------------------------------------------------------------- */

static void make_file(struct driver *d) {
        struct client *client = &d->clients[d->n_files++ % d->n_clients];
        _cleanup_(freep) char *path = client_file(client, client->files.n);
        char *name = strrchr(path, '/');
        int fd;

        if (client->files.n % FILES_TOGETHER == 0) {
                *name = '\0';
                if (mkdir(path, 0755) < 0 && errno != EEXIST)
                        err(EXIT_FAILURE, "mkdir: %s", path);
                *name = '/';
        }
        (void)tally_make(&client->files, &d->round.sums);
        fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        if (fd < 0)
                err(EXIT_FAILURE, "open: %s", path);
        (void)close(fd);
}

static void change_link(struct driver *d) {
        struct ifreq request = { .ifr_mtu = MTU_FIRST + (int)d->n_links++ };

        (void)snprintf(request.ifr_name, sizeof(request.ifr_name), "%s", d->link);
        for (size_t i = 0; i < d->n_clients; i++)
                (void)tally_make(&d->clients[i].links, &d->round.sums);
        if (ioctl(d->link_fd, SIOCSIFMTU, &request) < 0)
                err(EXIT_FAILURE, "%s: MTU %d", d->link, request.ifr_mtu);
}

static void make_trigger(struct driver *d) {
        struct client *client = &d->clients[d->n_triggers++ % d->n_clients];

        triggers_make(&d->triggers[client->uid != 0], client);
}

static void end_child(struct driver *d) {
        for (size_t i = 0; i < d->n_clients; i++)
                if (client_end_child(&d->clients[d->n_exits++ % d->n_clients]))
                        return;
}

/* What is due in the given millisecond of the round. */
static void make_things(struct driver *d, int64_t msec) {
        if (msec % FILE_MSEC == 0)
                make_file(d);
        if (msec % TRIGGER_MSEC == 0)
                make_trigger(d);
        if (msec % LINK_MSEC == 0)
                change_link(d);
        if (msec % EXIT_MSEC == 0)
                end_child(d);
}

/* ---- reading ---------------------------------------------------------------------- */

/* Reads what comes within a millisecond. */
static void turn(struct driver *d) {
        for (size_t i = 0; i < d->n_clients; i++)
                d->polled[i] = (struct pollfd){ .fd = d->clients[i].connection.fd, .events = POLLIN };
        for (size_t i = 0; i < ARRAY_SIZE(d->triggers); i++)
                d->polled[d->n_clients + i] = (struct pollfd){ .fd = d->triggers[i].connection.fd, .events = POLLIN };
        if (poll(d->polled, d->n_clients + ARRAY_SIZE(d->triggers), 1) < 0 && errno != EINTR)
                err(EXIT_FAILURE, "poll");
        for (size_t i = 0; i < d->n_clients; i++) {
                if (d->polled[i].revents || d->polled[i].fd < 0)
                        client_read(&d->clients[i]);
                client_reap(&d->clients[i], false);
        }
        for (size_t i = 0; i < ARRAY_SIZE(d->triggers); i++)
                triggers_read(&d->triggers[i]);
}

static bool all_in_force(struct driver *d) {
        for (size_t i = 0; i < d->n_clients; i++)
                if (!client_is_in_force(&d->clients[i]))
                        return false;
        return true;
}

static void wait_in_force(struct driver *d) {
        int64_t deadline = now_nsec() + SETTLE_MSEC * (int64_t)NSEC_PER_MSEC;

        while (!all_in_force(d)) {
                if (now_nsec() > deadline)
                        errx(EXIT_FAILURE, "the watches are not in force after %d ms", SETTLE_MSEC);
                turn(d);
        }
}

/* ---- the command ------------------------------------------------------------------- */

static pid_t start_command(struct driver *d) {
        pid_t pid;

        (void)fflush(stdout);
        pid = fork();
        if (pid < 0)
                err(EXIT_FAILURE, "fork");
        if (pid == 0) {
                (void)dup2(STDERR_FILENO, STDOUT_FILENO);
                (void)execvp(d->command[0], d->command);
                err(127, "%s", d->command[0]);
        }
        return pid;
}

static bool command_has_ended(struct driver *d, pid_t pid) {
        int status;
        pid_t r = waitpid(pid, &status, WNOHANG);

        if (r < 0)
                err(EXIT_FAILURE, "waitpid");
        if (r > 0 && status != 0)
                errx(EXIT_FAILURE, "%s: wait status %#x", d->command[0], (unsigned)status);
        return r > 0;
}

/* ---- a round ----------------------------------------------------------------------- */

/* Load, and the command in the midst of it. Returns how long it took, in milliseconds. */
static int64_t run_command_under_load(struct driver *d) {
        int64_t start = now_nsec(), made = 0, began = -1, ended = -1, msec;
        pid_t pid = 0;

        while (ended < 0 || made < ended + AFTER_MSEC) {
                for (msec = (now_nsec() - start) / (int64_t)NSEC_PER_MSEC; made <= msec; made++)
                        make_things(d, made);
                turn(d);
                if (began < 0 && msec >= BEFORE_MSEC) {
                        began = msec;
                        pid = start_command(d);
                } else if (pid > 0 && command_has_ended(d, pid)) {
                        ended = msec;
                        pid = 0;
                } else if (pid > 0 && msec - began > COMMAND_MSEC) {
                        errx(EXIT_FAILURE, "%s: not done after %d ms", d->command[0], COMMAND_MSEC);
                }
        }
        return ended - began;
}

/* How many expirations of its timer a client was not told of. One may be on its way. */
static size_t missing_expirations(const struct driver *d, const struct client *client, int64_t until) {
        int64_t due = (until - client->timer_since) / ((int64_t)TIMER_MSEC * (int64_t)NSEC_PER_MSEC) - 1;

        /* How many there were before is not known then: it has to go on. */
        if (d->may_disconnect)
                return client->timer_told_at < until;
        return due > client->timer_told ? (size_t)(due - client->timer_told) : 0;
}

static size_t count_missing(struct driver *d, int64_t until, size_t lines) {
        size_t sum = 0;

        for (size_t i = 0; i < d->n_clients; i++) {
                struct client *client = &d->clients[i];
                struct {
                        const char *name;
                        struct tally *tally;
                } kinds[] = {
                        { "files", &client->files },
                        { "changes of the MTU", &client->links },
                        { "triggers", &client->triggers },
                        { "exits", &client->exits },
                };
                size_t first = 0, last = 0, n = missing_expirations(d, client, until);

                if (n > 0 && lines > 0 && lines--)
                        printf("# client %zu, user %u: %zu expirations missing\n", i, (unsigned)client->uid, n);
                sum += n;
                for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
                        n = tally_count_missing(kinds[k].tally, &first, &last);
                        if (n > 0 && lines > 0 && lines--)
                                printf("# client %zu, user %u, %s: %zu %s missing, from %zu to %zu\n", i,
                                       (unsigned)client->uid, client->directory, n, kinds[k].name, first, last);
                        sum += n;
                }
        }
        return sum;
}

static size_t settle(struct driver *d) {
        int64_t until = now_nsec(), deadline = until + SETTLE_MSEC * (int64_t)NSEC_PER_MSEC;

        for (size_t i = 0; i < d->n_clients; i++)
                while (client_end_child(&d->clients[i]))
                        ;
        while ((count_missing(d, until, 0) > 0 || !all_in_force(d)) && now_nsec() < deadline)
                turn(d);
        /* A second telling of the last one would come now. */
        turn(d);
        return count_missing(d, until, LINES_OF_MISSING);
}

static void close_round(struct driver *d) {
        for (size_t i = 0; i < d->n_clients; i++) {
                struct client *client = &d->clients[i];

                tally_close(&client->files);
                tally_close(&client->links);
                tally_close(&client->triggers);
                tally_close(&client->exits);
                client_reap(client, true);
                client_count_timer(client);
        }
}

static bool is_unseen(const struct round *r) {
        return r->disconnected == 0 && r->rescans == 0 && r->lost == 0 && r->sums.covered == 0 && r->sums.twice == 0;
}

static bool is_good(const struct driver *d, size_t missing, int64_t gap_msec) {
        const struct round *r = &d->round;

        if (missing > 0 || r->wrong > 0 || r->seq_gaps > 0 || (d->gap_max_msec > 0 && gap_msec > d->gap_max_msec))
                return false;
        if (r->disconnected > 0 && !d->may_disconnect)
                return false;
        return d->may_cover || d->may_cover_some || is_unseen(r);
}

static bool run_round(struct driver *d, size_t number) {
        const struct round *r = &d->round;
        int64_t took, gap;
        size_t missing;

        d->round = (struct round){ 0 };
        for (size_t i = 0; i < d->n_clients; i++)
                for (size_t k = 0; k < CHILDREN; k++)
                        client_add_child(&d->clients[i]);
        wait_in_force(d);
        took = run_command_under_load(d);
        missing = settle(d);
        gap = r->sums.gap / (int64_t)NSEC_PER_MSEC;
        printf("# round %zu: gap %" PRId64 " ms, %zu made, %zu told, %zu covered, %zu missing, %zu told twice, "
               "%zu rescan, %zu lost, %zu gaps in seq, %zu wrong, %zu disconnected, command %" PRId64 " ms\n",
               number, gap, r->sums.made, r->sums.told, r->sums.covered, missing, r->sums.twice, r->rescans, r->lost,
               r->seq_gaps, r->wrong, r->disconnected, took);
        (void)fflush(stdout);
        close_round(d);
        d->n_unseen += is_unseen(r);
        return is_good(d, missing, gap);
}

/* ---- from the beginning to the end ---------------------------------------------------- */

static void start_clients(struct driver *d) {
        d->link_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        d->clients = calloc(d->n_clients, sizeof(*d->clients));
        d->polled = calloc(d->n_clients + ARRAY_SIZE(d->triggers), sizeof(*d->polled));
        if (d->link_fd < 0 || !d->clients || !d->polled)
                err(EXIT_FAILURE, "can't start");
        for (size_t i = 0; i < ARRAY_SIZE(d->triggers); i++)
                d->triggers[i] = (struct triggers){ .socket_path = d->socket_path, .uid = i == 0 ? 0 : d->uid,
                                                    .round = &d->round, .connection = CONNECTION_INIT,
                                                    .is_lenient = d->may_disconnect };
        for (size_t i = 0; i < d->n_clients; i++) {
                struct client *client = &d->clients[i];
                const char *above = d->directories[i / 2 % d->n_directories];

                *client = (struct client){ .number = i, .socket_path = d->socket_path, .link = d->link,
                                           .uid = i % 2 == 0 ? 0 : d->uid, .is_stream = i % 3 == 0,
                                           .is_lenient = d->may_cover,
                                           .may_lack_status = d->may_disconnect,
                                           .round = &d->round,
                                           .connection = CONNECTION_INIT };
                if (asprintf(&client->directory, "%s/%zu", above, i) < 0)
                        err(EXIT_FAILURE, "no memory");
                if (mkdir(client->directory, 0700) < 0 || chown(client->directory, client->uid, client->uid) < 0)
                        err(EXIT_FAILURE, "%s", client->directory);
                client_start(client);
        }
        wait_in_force(d);
}

static void end_clients(struct driver *d) {
        for (size_t i = 0; i < d->n_clients; i++)
                client_free(&d->clients[i]);
        for (size_t i = 0; i < ARRAY_SIZE(d->triggers); i++)
                triggers_free(&d->triggers[i]);
        free(d->clients);
        free(d->polled);
        (void)close(d->link_fd);
}

static void read_options(struct driver *d, int argc, char *argv[]) {
        static const struct option options[] = {
                { "socket", required_argument, NULL, 's' },   { "link", required_argument, NULL, 'l' },
                { "clients", required_argument, NULL, 'c' },  { "rounds", required_argument, NULL, 'r' },
                { "user", required_argument, NULL, 'u' },     { "gap", required_argument, NULL, 'g' },
                { "may-cover", no_argument, NULL, 'm' },      { "may-disconnect", no_argument, NULL, 'd' },
                { "may-cover-some", no_argument, NULL, 'o' }, { 0 },
        };
        int option, n = 0;

        while ((option = getopt_long(argc, argv, "+", options, NULL)) >= 0) {
                if (option == 's')
                        d->socket_path = optarg;
                else if (option == 'l')
                        d->link = optarg;
                else if (option == 'c')
                        d->n_clients = strtoul(optarg, NULL, 10);
                else if (option == 'r')
                        d->n_rounds = strtoul(optarg, NULL, 10);
                else if (option == 'u')
                        d->uid = (uid_t)strtoul(optarg, NULL, 10);
                else if (option == 'g')
                        d->gap_max_msec = atoi(optarg);
                else if (option == 'm')
                        d->may_cover = true;
                else if (option == 'o')
                        d->may_cover_some = true;
                else if (option == 'd')
                        d->may_cover = d->may_disconnect = true;
                else
                        exit(2);
        }
        d->directories = argv + optind;
        while (optind + n < argc && strcmp(argv[optind + n], "--") != 0)
                n++;
        d->n_directories = (size_t)n;
        d->command = argv + optind + n + 1;
        if (n == 0 || optind + n + 1 >= argc || d->n_clients == 0 || d->n_rounds == 0)
                errx(2, "OPTION... DIRECTORY... -- COMMAND...");
}

int main(int argc, char *argv[]) {
        struct driver d = {
                .socket_path = "/run/kevd/org.kevd.events", .link = "lo", .n_clients = 20, .n_rounds = 3, .uid = 65534,
        };
        bool all_good = true;

        read_options(&d, argc, argv);
        (void)umask(022);
        start_clients(&d);
        for (size_t i = 1; i <= d.n_rounds; i++)
                all_good &= run_round(&d, i);
        end_clients(&d);
        if (d.may_cover_some && d.n_unseen == 0) {
                printf("# clients noticed something in every round\n");
                all_good = false;
        }
        return all_good ? EXIT_SUCCESS : EXIT_FAILURE;
}
