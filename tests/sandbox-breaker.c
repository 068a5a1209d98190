/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Loaded into kevd by the dynamic linker: on SIGUSR1 the process does what its filter forbids. If it is let, it goes on. */

#include <signal.h>
#include <unistd.h>

#include "macro.h"

static void on_signal(int number _unused_) {
        char *argv[] = { (char *)"true", NULL };

        (void)execve("/nonexistent", argv, argv);
}

__attribute__((constructor)) static void prepare(void) {
        (void)signal(SIGUSR1, on_signal);
}
