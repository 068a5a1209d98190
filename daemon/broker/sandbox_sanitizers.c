/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The sanitizers look at their own process: what of it is mapped, and, as it ends, what its threads still point to. */

#include <signal.h>

#include "macro.h"
#include "sandbox_rules.h"

static const struct rule list[] = {
        ANY(clone), /* a process that shares its memory, and stops the others */
        ANY(ptrace),
        ANY(wait4),
        ANY(getppid),
        ANY(prctl),
        ANY(process_vm_readv),
        ANY(sched_getaffinity),
        ANY(sched_yield),
        ANY(personality),
        ANY(tgkill),
        ANY(kill),
        ANY(mmap),
        ANY(mprotect),
        ANY(pipe),
        ANY(pipe2),
        ANY(msync),
        ANY(mincore),
        ANY(open),
        ANY(openat),
        ANY(readlink),
        ANY(stat),
        ANY(newfstatat),
        ANY(getdents),
        ANY(getdents64),
        ANY(waitid),
};

const struct rules rules_of_build = { list, ARRAY_SIZE(list) };
