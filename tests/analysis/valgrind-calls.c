/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * Loaded into kevd by the dynamic linker, in valgrind: 3.19 has no openat2(2), and without that no tree of files could be
 * watched. Here it is openat(2), which follows links on the way that it was told not to follow: all else is as it is.
 */

#include <dlfcn.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "macro.h"

enum { ARGUMENTS = 6 };

_public_ long syscall(long number, ...) {
        static long (*real)(long number, ...);
        long a[ARGUMENTS];
        va_list arguments;

        va_start(arguments, number);
        for (int i = 0; i < ARGUMENTS; i++)
                a[i] = va_arg(arguments, long);
        va_end(arguments);
        if (number == SYS_openat2) {
                const struct open_how *how = (const void *)a[2];
                int not_followed = how->resolve & RESOLVE_NO_SYMLINKS ? O_NOFOLLOW : 0;

                return openat((int)a[0], (const char *)a[1], (int)how->flags | not_followed, (mode_t)how->mode);
        }
        if (!real)
                *(void **)&real = dlsym(RTLD_NEXT, "syscall");
        return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
