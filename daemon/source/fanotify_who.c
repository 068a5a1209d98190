/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* Who did it: what /proc says of the process of an event, if it is still there. */

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fanotify.h"
#include "observer.h"

enum { WHO_MAX = 64 };

struct who {
        struct event_process process;
        char comm[64];
        char exe[PATH_MAX];
};

static void read_comm(struct who *who, int directory) {
        int fd _cleanup_(closep) = openat(directory, "comm", O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, who->comm, sizeof(who->comm) - 1);

        if (n <= 0)
                return;
        who->comm[n - (who->comm[n - 1] == '\n')] = 0;
        who->process.comm = who->comm;
}

/* proc_pid_status(5): "Uid:", and real, effective, saved. Where these are not one, /proc tells the program to root
 * alone. */
static void read_uid_and_exe(struct who *who, int directory) {
        int fd _cleanup_(closep) = openat(directory, "status", O_RDONLY | O_CLOEXEC);
        char text[2048], *line;
        ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
        unsigned real, uid, saved;

        if (n <= 0)
                return;
        text[n] = 0;
        line = strstr(text, "\nUid:");
        if (!line || sscanf(line, "\nUid: %u %u %u", &real, &uid, &saved) != 3)
                return;
        if (observer_read_exe((pid_t)who->process.pid, who->exe, sizeof(who->exe)) == 0 &&
            faccessat(directory, "status", F_OK, 0) == 0)
                who->process.exe = who->exe; /* of nobody else who had that number then */
        who->process.uid = uid;
        who->process.has_other_ids = real != uid || saved != uid;
}

const struct event_process *who_is(struct group *g, pid_t pid) {
        int directory _cleanup_(closep) = -1;
        char path[32];
        struct who *who;

        if (pid <= 0)
                return NULL;
        for (size_t i = 0; i < g->n_who; i++)
                if (g->who[i].process.pid == pid)
                        return &g->who[i].process;
        if (!g->who)
                g->who = calloc(WHO_MAX, sizeof(*g->who));
        if (!g->who)
                return NULL;
        if (g->n_who == WHO_MAX)
                g->n_who = 0;
        who = &g->who[g->n_who++];
        who->process = (struct event_process){
                .pid = pid, .parent = ABSENT, .uid = ABSENT, .exit_code = ABSENT, .signal = ABSENT, .cpu_usec = ABSENT, .peak_bytes = ABSENT,
        };
        (void)snprintf(path, sizeof(path), "/proc/%d", pid);
        directory = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
        if (directory < 0)
                return &who->process;
        read_comm(who, directory);
        read_uid_and_exe(who, directory);
        return &who->process;
}

void who_forget(struct group *g) {
        free(take_pointer(&g->who));
        g->n_who = 0;
}
