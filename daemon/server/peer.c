/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "peer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "kernel.h"
#include "observer.h"
#include "process_info.h"

enum { PEER_GONE = -2 };

/* Namespaces read "mnt:[4026531841]"; root is "/" for who has not changed it
 * within the namespace. */
static bool is_same(const struct observed_links *theirs, const struct observed_links *ours, enum observed_link link) {
        return theirs->text[link] && ours->text[link] && strcmp(theirs->text[link], ours->text[link]) == 0;
}

/* "net:[4026531840]" */
static uint64_t network_of(const struct observed_links *links) {
        const char *inode = links->text[OBSERVED_NETWORK] ? strchr(links->text[OBSERVED_NETWORK], '[') : NULL;

        return inode ? strtoull(inode + 1, NULL, 10) : 0;
}

/* socket(7): SO_PEERGROUPS, Linux 4.13. */
static int get_groups(int fd, struct asker *asker) {
        socklen_t size = 32 * sizeof(gid_t);

        for (;;) {
                socklen_t room = size;

                asker->groups = malloc(room);
                if (!asker->groups)
                        return -ENOMEM;
                if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, asker->groups, &size) == 0)
                        break;
                free(take_pointer(&asker->groups));
                if (errno != ERANGE || size <= room)
                        return -errno;
        }
        asker->n_groups = size / sizeof(gid_t);
        return 0;
}

void peer_done(struct asker *asker) {
        free(take_pointer(&asker->groups));
        asker->n_groups = 0;
}

/* Which don't change under a process that doesn't change them. */
static const struct observed_links *our_namespaces(void) {
        static struct observed_links ours;

        if (!ours.text[OBSERVED_MOUNTS] || !ours.text[OBSERVED_ROOT] || !ours.text[OBSERVED_PIDS] ||
            !ours.text[OBSERVED_NETWORK])
                observer_read_namespaces(getpid(), &ours);
        return &ours;
}

bool peer_is(int fd, const struct asker *asker) {
        struct ucred credentials;
        socklen_t size = sizeof(credentials);

        return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0 && credentials.uid == asker->uid &&
               credentials.gid == asker->gid && credentials.pid == asker->pid;
}

int peer_identify(int fd, struct asker *ret_asker) {
        const struct observed_links *ours = our_namespaces();
        struct observed_links theirs;
        struct ucred credentials;
        socklen_t size = sizeof(credentials);
        int pidfd _cleanup_(closep) = -1, r;

        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
                return -errno;
        size = sizeof(pidfd);
        if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size) < 0)
                pidfd = errno == ENOPROTOOPT ? -1 : PEER_GONE; /* before Linux 6.5, or the peer has gone */
        *ret_asker = (struct asker){ .uid = credentials.uid, .gid = credentials.gid, .pid = credentials.pid };
        r = get_groups(fd, ret_asker);
        if (r < 0)
                return r;
        if (credentials.pid <= 0) { /* of a pid namespace that can't be seen from here */
                ret_asker->other_mounts = ret_asker->other_pids = ret_asker->other_network = true;
                return 0;
        }
        observer_read_namespaces(credentials.pid, &theirs);
        ret_asker->other_mounts = !is_same(&theirs, ours, OBSERVED_MOUNTS) || !is_same(&theirs, ours, OBSERVED_ROOT);
        ret_asker->process = pidfd >= 0 ? pidfd_inode(pidfd) : 0;
        ret_asker->other_pids = !is_same(&theirs, ours, OBSERVED_PIDS);
        ret_asker->other_network = !is_same(&theirs, ours, OBSERVED_NETWORK);
        ret_asker->network = network_of(&theirs);
        /* What we looked at in /proc may have been another: the pid was free for it before we were done. */
        if (pidfd == PEER_GONE || (pidfd >= 0 && pidfd_has_hung_up(pidfd))) {
                ret_asker->other_mounts = ret_asker->other_pids = ret_asker->other_network = true;
                ret_asker->network = 0;
        }
        return 0;
}
