/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "file_watch.h"

#include <errno.h>

bool file_is_absent(int error) {
        return error == ENOENT || error == ENOTDIR || error == ELOOP;
}

const char *file_error_text(int error) {
        switch (error) {
        case ENOENT:
                return "path: there is no such file or directory";
        case ENOTDIR:
                return "path: not a directory";
        case EACCES:
                return "path: it may not be read";
        case ELOOP:
                return "path: too many symbolic links";
        case ENOSPC:
                return "path: the limit fs.inotify.max_user_watches is reached";
        case EXDEV:
                return "descriptor: not to be found from where the daemon is";
        default:
                return "path: it can't be watched";
        }
}

int check_mounts(const struct subject *subject, struct refusal *refusal) {
        if (subject->fd >= 0 || !subject->asker->other_mounts)
                return 0;
        return refuse(refusal, EXDEV, "path: the caller lives in another mount namespace, or in one that can't be seen; "
                                      "pass a descriptor");
}

int refuse_self_and_who(const struct subject *subject, struct refusal *refusal) {
        return refuse(refusal, EOPNOTSUPP, "%s: inotify, which serves this, does not say who does what; fanotify does, "
                                           "in a system daemon",
                      subject->exclude_self ? "tree.excludeSelf" : "notes: who");
}
