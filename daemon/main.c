/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kevd: wires the parts, and runs the loop.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "broker.h"
#include "bus.h"
#include "client.h"
#include "config.h"
#include "handover.h"
#include "log.h"
#include "memory.h"
#include "options.h"
#include "reload.h"
#include "sandbox.h"
#include "server.h"
#include "sockets.h"
#include "watchdog.h"
#include "workers.h"

enum { DESCRIPTORS_PREPARED = 16 * 1024 };

struct daemon {
        struct mux *mux;
        struct workers *workers;
        struct server server;
        struct sockets sockets;
        struct handover handover; /* from the last daemon */
        struct bus *bus;
        struct reload reload;
        struct watchdog watchdog;
        struct memory memory;
        struct mux_io signals;
        int signal_fd;
        struct mux_deferred broker_failed;
        bool has_failed; /* the next daemon is to begin at once */
        pid_t broker; /* 0: there is none */
        int broker_fd; /* or why, a negative errno */
};

/* A private daemon's environment is its client's, and so is the store of which that tells. */
static bool can_hand_over(enum mode mode) {
        return mode != MODE_PRIVATE && handover_is_possible();
}

static void on_signal(struct mux_io *io, unsigned events _unused_) {
        struct daemon *d = container_of(io, struct daemon, signals);
        struct signalfd_siginfo info;

        while (read(d->signal_fd, &info, sizeof(info)) == sizeof(info)) {
                if (info.ssi_signo == SIGHUP)
                        server_reload(&d->server, NULL);
                else if (can_hand_over(d->server.mode))
                        server_settle(&d->server);
                else
                        d->server.stop = true;
        }
}

/* What a feed would have told is lost from now on, and that can't be said of each watch: the next daemon says it. So it
 * is where only the broker has ended, if the clients notice nothing; else it is better to go on with less. */
static void on_broker_failed(struct mux_deferred *deferred) {
        struct daemon *d = container_of(deferred, struct daemon, broker_failed);

        if (d->server.stopping) /* all of it ends */
                return;
        if (!can_hand_over(d->server.mode) && !broker_has_failed(d->server.sources.context.opener))
                return;
        d->has_failed = true;
        server_settle(&d->server);
}

/* In private mode the connection's end is what ends the daemon. */
static int open_signals(struct daemon *d) {
        sigset_t set;

        (void)signal(SIGPIPE, SIG_IGN);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, SIGTERM);
        (void)sigaddset(&set, SIGINT);
        (void)sigaddset(&set, SIGHUP);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return -errno;
        d->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
        if (d->signal_fd < 0)
                return -errno;
        return mux_add(d->mux, &d->signals, d->signal_fd, MUX_IN, on_signal);
}

/* Pidfds and connections: as many descriptors as may be. Their table grows by itself, but in a process with threads
 * that takes a grace period of RCU, some 20 ms in which accept(2) doesn't return: so some of it is made before there
 * are any. */
static void prepare_descriptors(void) {
        struct rlimit limit;
        int fd;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        fd = eventfd(0, EFD_CLOEXEC);
        (void)safe_close(fcntl(fd, F_DUPFD_CLOEXEC, (int)MIN(limit.rlim_cur, (rlim_t)DESCRIPTORS_PREPARED) - 1));
        (void)safe_close(fd);
}

/* What the last daemon has left. */
static void restore(struct daemon *d) {
        struct state_reader reader;

        if (!handover_open(&d->handover, &reader)) {
                server_restore(&d->server, NULL);
                if (d->handover.live_table >= 0 && !d->handover.state &&
                    live_restore(&d->server, d->handover.live_table, &d->handover.live_sockets,
                                 &d->handover.live_sketches) < 0)
                        log_warning("what the last daemon has left can't be understood: its clients' connections are closed");
                return;
        }
        server_restore(&d->server, &reader);
        log_info("%zu connections and %zu watches of the last daemon's go on", d->server.n_connections,
                 d->server.queues.n_watches);
}

/* Leaves the clients to the next daemon, if there is to be one, and ends: an orderly end would end the connections. */
static void hand_over(struct daemon *d) {
        struct state_writer w = { 0 };
        int r;

        live_close(&d->server);
        server_save(&d->server, &w);
        r = handover_give(&w);
        state_writer_free(&w);
        if (r == 0) {
                log_info("%zu connections are left to the next daemon", d->server.n_connections);
                exit(d->has_failed ? EXIT_FAILURE : EXIT_SUCCESS);
        }
        log_warning("the clients can't be left to the next daemon: %s", strerror(-r));
}

static void enter_sandbox(void) {
        int r = sandbox_enter(SANDBOX_DAEMON);

        if (r < 0)
                log_notice("system calls are not filtered: %s", strerror(-r));
}

static int run(struct daemon *d, const struct options *options) {
        int r;

        enter_sandbox(); /* before there is anybody to be read */
        r = sockets_open(&d->sockets, options, &d->server);
        if (r == 0) {
                restore(d);
                if (options->mode != MODE_PRIVATE)
                        live_open(&d->server, handover_is_possible() ? &handover_store : NULL);
        }
        handover_free(&d->handover);
        if (r < 0)
                return r;
        if (options->mode != MODE_PRIVATE) { /* whose environment is its client's */
                (void)bus_open(&d->server, &d->bus);
                watchdog_open(&d->watchdog, d->mux);
                (void)sd_notify(false, "READY=1\nSTATUS=Serving");
        }
        log_info("%s: mode %s, mux %s, sandbox %s", KEVD_VERSION, mode_name(options->mode), mux_backend_name(d->mux),
                 sandbox_state());
        memory_open(&d->memory, d->mux);
        while (r == 0 && !server_has_ended(&d->server)) {
                r = mux_wait(d->mux, -1);
                memory_after_turn(&d->memory);
        }
        if (r < 0)
                log_error("the multiplexer failed: %s", strerror(-r));
        if (options->mode != MODE_PRIVATE) {
                (void)sd_notify(false, "STOPPING=1");
                if (r == 0 && d->server.stopping && can_hand_over(options->mode))
                        hand_over(d);
        }
        return d->has_failed ? -EPIPE : r;
}

/* What fanotify takes, and acting for other users, is a system daemon's, and of whoever asks for fanotify. Without a broker
 * that should be there already the daemon is to be started again, if there is somebody to do it. */
static int start_broker(struct daemon *d, const struct options *options, struct source_settings *settings) {
        bool files = settings->acts_for_others;
        int r = options->broker ? broker_connect(options->broker, &d->broker_fd) :
                                  broker_start(&source_helpers, &files, &d->broker_fd, &d->broker);

        if (r < 0) {
                d->broker_fd = r;
                if (options->broker)
                        log_warning("no broker at %s: %s", options->broker, strerror(-r));
        } else if (!files && settings->acts_for_others)
                settings->files_error = -EPERM;
        if (settings->acts_for_others && (r < 0 || settings->files_error))
                log_notice("neither fanotify nor files of other users: %s", strerror(r < 0 ? -r : -settings->files_error));
        return r < 0 && options->broker && can_hand_over(options->mode) ? r : 0;
}

static int serve_broker(void) {
        int fd = SD_LISTEN_FDS_START, r;

        if (sd_listen_fds(true) != 1 || sd_is_socket(fd, AF_UNIX, SOCK_SEQPACKET, 0) <= 0) {
                log_error("--serve-broker: the service manager has to pass the one connection");
                return -ENOTCONN;
        }
        r = broker_serve(&source_helpers, fd);
        log_error("can't be a broker: %s", strerror(-r));
        return r;
}

static int serve(const struct options *options, int argc, char **argv) {
        struct daemon d = { .signal_fd = -1, .signals = MUX_IO_INIT, .handover = HANDOVER_INIT };
        struct source_settings settings = options->settings;
        int r = start_broker(&d, options, &settings);

        if (r < 0)
                return r;
        if (options->mode != MODE_PRIVATE)
                sockets_take(&d.sockets, &d.handover);
        settings.restores = handover_has_state(&d.handover);
        prepare_descriptors();
        r = mux_open(options->mux, &d.mux);
        if (r == 0)
                r = workers_new(d.mux, &d.workers);
        if (r == 0)
                r = server_open(&d.server, d.mux, d.workers, options->mode, &settings, &options->limits,
                                d.broker_fd);
        if (r < 0) {
                log_error("can't start: %s", strerror(-r));
                return r;
        }
        mux_deferred_init(&d.broker_failed, on_broker_failed);
        if (d.server.sources.context.opener)
                broker_watch(d.server.sources.context.opener, &d.broker_failed);
        r = reload_open(&d.reload, &d.server, options, argc, argv);
        if (r == 0)
                r = open_signals(&d);
        if (r < 0)
                log_error("can't start: %s", strerror(-r));
        else
                r = run(&d, options);
        memory_close(&d.memory);
        watchdog_close(&d.watchdog);
        d.bus = bus_close(d.bus);
        sockets_close(&d.sockets);
        server_close(&d.server);
        if (!workers_free(d.workers)) /* a thread hangs in a file system, and will until the process ends */
                exit(r == 0 ? EXIT_SUCCESS : EXIT_FAILURE);
        reload_close(&d.reload);
        server_free(&d.server);
        broker_wait(d.broker);
        mux_remove(d.mux, &d.signals);
        (void)safe_close(d.signal_fd);
        mux_close(d.mux);
        return r;
}

int main(int argc, char **argv) {
        struct options options;
        int r, status;

        options_init(&options);
        r = options_read(&options, argc, argv);
        options_print_complaints(&options);
        if (r == 0) {
                if (options.help)
                        options_print_help();
                else if (options.version)
                        printf("kevd %s\n", KEVD_VERSION);
                else if (options.serve_broker)
                        r = serve_broker();
                else if (!options.check_config) {
                        log_set_level(options.log_level);
                        r = serve(&options, argc, argv);
                }
        }
        status = r == 0 ? EXIT_SUCCESS : r == -EINVAL && !options.check_config ? 2 : EXIT_FAILURE;
        options_free(&options);
        return status;
}
