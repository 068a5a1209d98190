/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* A build that counts which lines run: as a process ends it adds its counts to files, which takes a lock on each. Helpers
 * end by _exit(2), which knows nothing of that; with -Wl,--wrap=_exit it comes by here. */

#include <fcntl.h>
#include <gcov.h>
#include <unistd.h>

#include "macro.h"
#include "sandbox_rules.h"

static const struct rule list[] = {
        ANY(open), ANY(openat), ANY(mkdir), ANY(fstat), ANY(newfstatat), ANY(ftruncate), IS(fcntl, 1, F_SETLKW),
        IS(fcntl, 1, F_OFD_SETLKW), ANY(getcwd),
};

const struct rules rules_of_build = { list, ARRAY_SIZE(list) };

_Noreturn void __real__exit(int status);
_Noreturn void __wrap__exit(int status);

void __wrap__exit(int status) {
        __gcov_dump();
        __real__exit(status);
}
