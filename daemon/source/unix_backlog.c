/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "unix_backlog.h"

#include <libmnl/libmnl.h>
#include <linux/sock_diag.h>
#include <linux/unix_diag.h>
#include <sys/socket.h>

#include "event.h"

static int read_attribute(const struct nlattr *attribute, void *userdata) {
        int64_t *ret = userdata;

        if (mnl_attr_get_type(attribute) == UNIX_DIAG_RQLEN &&
            mnl_attr_get_payload_len(attribute) >= sizeof(struct unix_diag_rqlen))
                *ret = ((const struct unix_diag_rqlen *)mnl_attr_get_payload(attribute))->udiag_rqueue;
        return MNL_CB_OK;
}

static int read_socket(const struct nlmsghdr *header, void *userdata) {
        (void)mnl_attr_parse(header, sizeof(struct unix_diag_msg), read_attribute, userdata);
        return MNL_CB_STOP;
}

int64_t unix_backlog(ino_t inode) {
        _Alignas(struct nlmsghdr) char buffer[4096];
        struct mnl_socket *socket = mnl_socket_open2(NETLINK_SOCK_DIAG, SOCK_CLOEXEC);
        struct nlmsghdr *header = mnl_nlmsg_put_header(buffer);
        struct unix_diag_req *request;
        int64_t length = ABSENT;
        ssize_t n;

        if (!socket)
                return ABSENT;
        header->nlmsg_type = SOCK_DIAG_BY_FAMILY;
        header->nlmsg_flags = NLM_F_REQUEST;
        request = mnl_nlmsg_put_extra_header(header, sizeof(*request));
        request->sdiag_family = AF_UNIX;
        request->udiag_states = UINT32_MAX;
        request->udiag_ino = (uint32_t)inode;
        request->udiag_show = UDIAG_SHOW_RQLEN;
        request->udiag_cookie[0] = request->udiag_cookie[1] = UINT32_MAX; /* whichever has the inode */
        n = mnl_socket_sendto(socket, header, header->nlmsg_len);
        if (n >= 0)
                n = mnl_socket_recvfrom(socket, buffer, sizeof(buffer));
        if (n > 0)
                (void)mnl_cb_run(buffer, (size_t)n, 0, 0, read_socket, &length);
        (void)mnl_socket_close(socket);
        return length;
}
