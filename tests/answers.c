/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "answers.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "macro.h"

union control {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
};

void send_answer(int socket, int fd) {
        struct iovec part = { .iov_base = (char[]){ "." }, .iov_len = 1 };
        union control control = { 0 };
        struct msghdr message = { .msg_iov = &part, .msg_iovlen = 1 };

        control.header = (struct cmsghdr){
                .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int)),
        };
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
        if (fd >= 0) {
                message.msg_control = control.bytes;
                message.msg_controllen = sizeof(control.bytes);
        }
        if (sendmsg(socket, &message, MSG_NOSIGNAL) != 1)
                _exit(1);
        (void)safe_close(fd);
}

int connect_to(const char *path) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (strlen(path) >= sizeof(address.sun_path))
                _exit(1);
        memcpy(address.sun_path, path, strlen(path) + 1);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
                return fd;
        return safe_close(fd);
}

bool receive_answer(int socket, int *ret_fd) {
        char byte;
        struct iovec part = { .iov_base = &byte, .iov_len = 1 };
        union control control;
        struct msghdr message = {
                .msg_iov = &part, .msg_iovlen = 1,
                .msg_control = control.bytes, .msg_controllen = sizeof(control.bytes),
        };
        struct cmsghdr *c;

        if (recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1)
                return false;
        c = CMSG_FIRSTHDR(&message);
        *ret_fd = -1;
        if (c)
                memcpy(ret_fd, CMSG_DATA(c), sizeof(*ret_fd));
        return true;
}
