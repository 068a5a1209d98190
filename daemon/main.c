/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * kevd: wires the parts, and runs the loop.
 */

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <systemd/sd-daemon.h>

#include "broker.h"
#include "bus.h"
#include "config.h"
#include "handover.h"
#include "log.h"
#include "options.h"
#include "reload.h"
#include "sandbox.h"
#include "server.h"
#include "sockets.h"
#include "watchdog.h"
#include "workers.h"

struct daemon {
        struct mux *mux;
        struct workers *workers;
        struct server server;
        struct sockets sockets;
        struct handover handover; /* from the last daemon */
        struct bus *bus;
        struct reload reload;
        struct watchdog watchdog;
        struct mux_io signals;
        int signal_fd;
        pid_t broker; /* 0: there is none */
        int broker_fd; /* or why, a negative errno */
};

static void on_signal(struct mux_io *io, unsigned events _unused_) {
        struct daemon *d = container_of(io, struct daemon, signals);
        struct signalfd_siginfo info;

        while (read(d->signal_fd, &info, sizeof(info)) == sizeof(info)) {
                if (info.ssi_signo == SIGHUP)
                        server_reload(&d->server, NULL);
                else if (d->server.mode != MODE_PRIVATE && handover_is_possible())
                        server_settle(&d->server);
                else
                        d->server.stop = true;
        }
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

/* Pidfds and connections: as many descriptors as may be. */
static void raise_descriptor_limit(void) {
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
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
                exit(EXIT_SUCCESS);
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
        while (r == 0 && !d->server.stop)
                r = mux_wait(d->mux, -1);
        if (r < 0)
                log_error("the multiplexer failed: %s", strerror(-r));
        if (options->mode != MODE_PRIVATE)
                (void)sd_notify(false, "STOPPING=1");
        if (r == 0 && d->server.stopping)
                hand_over(d);
        return r;
}

/* What fanotify takes, and acting for other users, is a system daemon's, and of whoever asks for fanotify. */
static void start_broker(struct daemon *d, const struct options *options) {
        bool files = options->settings.acts_for_others;
        int r = broker_start(&source_helpers, files, &d->broker_fd, &d->broker);

        if (r == 0)
                return;
        d->broker_fd = r;
        if (files)
                log_notice("neither fanotify nor files of other users: %s", strerror(-r));
}

static int serve(const struct options *options, int argc, char **argv) {
        struct daemon d = { .signal_fd = -1, .signals = MUX_IO_INIT, .handover = HANDOVER_INIT };
        struct source_settings settings = options->settings;
        int r;

        start_broker(&d, options);
        if (options->mode != MODE_PRIVATE)
                sockets_take(&d.sockets, &d.handover);
        settings.restores = handover_has_state(&d.handover);
        raise_descriptor_limit();
        r = mux_open(options->mux, &d.mux);
        if (r == 0)
                r = workers_new(&d.workers);
        if (r == 0)
                r = server_open(&d.server, d.mux, d.workers, options->mode, &settings, &options->limits,
                                d.broker_fd);
        if (r < 0) {
                log_error("can't start: %s", strerror(-r));
                return r;
        }
        r = reload_open(&d.reload, &d.server, options, argc, argv);
        if (r == 0)
                r = open_signals(&d);
        if (r == 0)
                r = run(&d, options);
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
                else if (!options.check_config) {
                        log_set_level(options.log_level);
                        r = serve(&options, argc, argv);
                }
        }
        status = r == 0 ? EXIT_SUCCESS : r == -EINVAL && !options.check_config ? 2 : EXIT_FAILURE;
        options_free(&options);
        return status;
}
