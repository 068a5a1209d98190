/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "signals.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>

#include "options.h"

static const int caught_signals[] = { SIGINT, SIGTERM, SIGHUP };
enum { N_CAUGHT_SIGNALS = sizeof(caught_signals) / sizeof(caught_signals[0]) };

static volatile sig_atomic_t caught;

static void handle(int number) {
        caught = number;
}

void signals_catch(void) {
        /* No SA_RESTART: a write to a reader that has stopped reading must end too. */
        const struct sigaction action = { .sa_handler = handle, .sa_flags = SA_RESETHAND };
        struct sigaction old;

        for (size_t i = 0; i < N_CAUGHT_SIGNALS; i++)
                /* Whoever started us with a signal ignored (nohup) meant it. */
                if (sigaction(caught_signals[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN)
                        (void)sigaction(caught_signals[i], &action, NULL);
}

int signals_caught(void) {
        return caught;
}

int signals_poll(struct pollfd *fds, nfds_t n_fds, int64_t timeout_nsec) {
        const struct timespec timeout = { .tv_sec = timeout_nsec / NSEC_PER_SEC, .tv_nsec = timeout_nsec % NSEC_PER_SEC };
        sigset_t blocked, before;
        int r = -1, error = EINTR;

        (void)sigemptyset(&blocked);
        for (size_t i = 0; i < N_CAUGHT_SIGNALS; i++)
                (void)sigaddset(&blocked, caught_signals[i]);
        (void)sigprocmask(SIG_BLOCK, &blocked, &before);
        if (!caught) {
                r = ppoll(fds, n_fds, timeout_nsec < 0 ? NULL : &timeout, &before);
                error = errno;
        }
        (void)sigprocmask(SIG_SETMASK, &before, NULL);
        errno = error;
        return r;
}

void signals_reraise(void) {
        int number = caught;
        sigset_t set;

        if (number == 0)
                return;
        (void)signal(number, SIG_DFL);
        (void)sigemptyset(&set);
        (void)sigaddset(&set, number);
        (void)sigprocmask(SIG_UNBLOCK, &set, NULL);
        (void)raise(number);
}
