/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "packet.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "macro.h"

enum { AGAIN_MSEC = 1 };

union control {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
};

bool packet_is_for_later(ssize_t n) {
        return n < 0 && is_shortage(-errno);
}

bool packet_again(ssize_t n, int flags) {
        if (flags & MSG_DONTWAIT || !packet_is_for_later(n))
                return false;
        (void)poll(NULL, 0, AGAIN_MSEC);
        return true;
}

ssize_t packet_send(int socket, const struct iovec *parts, size_t n_parts, int fd, int flags) {
        union control control = { 0 };
        struct msghdr message = { .msg_iov = (struct iovec *)parts, .msg_iovlen = n_parts };
        ssize_t n;

        if (fd >= 0) {
                control.header = (struct cmsghdr){
                        .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)),
                };
                memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
                message.msg_control = control.bytes;
                message.msg_controllen = sizeof(control.bytes);
        }
        do
                n = sendmsg(socket, &message, MSG_NOSIGNAL | flags);
        while (packet_again(n, flags));
        return n;
}

ssize_t packet_receive(int socket, void *data, size_t size, int *ret_fd, int flags) {
        struct iovec part = { .iov_base = data, .iov_len = size };
        union control control;
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes),
        };
        struct cmsghdr *c;
        ssize_t n;

        do
                n = recvmsg(socket, &message, MSG_CMSG_CLOEXEC | flags);
        while (packet_again(n, flags));
        c = n < 0 ? NULL : CMSG_FIRSTHDR(&message);
        *ret_fd = -1;
        if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
                memcpy(ret_fd, CMSG_DATA(c), sizeof(int));
        return n;
}
