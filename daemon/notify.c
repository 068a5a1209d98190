/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "notify.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "macro.h"

int notify_at_once(const char *text, int fd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        const char *path = getenv("NOTIFY_SOCKET");
        size_t size = path ? strlen(path) : 0;
        union {
                struct cmsghdr align;
                char space[CMSG_SPACE(sizeof(int))];
        } control = { 0 };
        struct iovec part = { (char *)text, strlen(text) };
        struct msghdr message = { .msg_name = &address, .msg_iov = &part, .msg_iovlen = 1 };
        int notify _cleanup_(closep) = -1;

        if (size < 2 || size >= sizeof(address.sun_path))
                return -EOPNOTSUPP;
        memcpy(address.sun_path, path, size);
        if (path[0] == '@')
                address.sun_path[0] = 0;
        message.msg_namelen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + size + (path[0] != '@'));
        if (fd >= 0) {
                message.msg_control = &control;
                message.msg_controllen = sizeof(control.space);
                control.align = (struct cmsghdr){
                        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)),
                };
                memcpy(CMSG_DATA(&control.align), &fd, sizeof(fd));
        }
        notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (notify < 0 || sendmsg(notify, &message, MSG_NOSIGNAL) < 0)
                return is_shortage(-errno) || errno == ETOOMANYREFS ? -EAGAIN : -errno; /* too many: unix(7) */
        return 0;
}
