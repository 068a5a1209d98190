/* SPDX-License-Identifier: LGPL-2.1-or-later */

/* The double's other half: sys/devpoll.h says of what. There is one open device at a time. */

#include "devpoll/sys/devpoll.h"

#undef open
#undef close
#undef write
#undef ioctl

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct {
        int fd; /* a number of its own; 0: it is closed */
        struct pollfd *members;
        size_t n, capacity;
} device;

int double_open(const char *path, int flags) {
        if (strcmp(path, "/dev/poll") != 0 || device.fd > 0) {
                errno = ENODEV;
                return -1;
        }
        device.fd = open("/dev/null", flags);
        return device.fd;
}

int double_close(int fd) {
        free(device.members);
        memset(&device, 0, sizeof(device));
        return close(fd);
}

static struct pollfd *find(int fd) {
        for (size_t i = 0; i < device.n; i++)
                if (device.members[i].fd == fd)
                        return &device.members[i];
        return NULL;
}

/* What comes for a member is or'ed to what is there. POLLREMOVE stands by itself. */
static int take(const struct pollfd *change) {
        struct pollfd *member = find(change->fd);

        if (change->events == POLLREMOVE) {
                if (member)
                        *member = device.members[--device.n];
                return 0;
        }
        if (member) {
                member->events |= change->events;
                return 0;
        }
        if (device.n == device.capacity) {
                size_t capacity = device.capacity * 2 + 16;

                member = realloc(device.members, capacity * sizeof(*member));
                if (!member)
                        return -ENOMEM;
                device.members = member;
                device.capacity = capacity;
        }
        device.members[device.n++] = (struct pollfd){ .fd = change->fd, .events = change->events };
        return 0;
}

ssize_t double_write(int fd, const void *data, size_t size) {
        const struct pollfd *changes = data;

        if (fd != device.fd || size % sizeof(*changes) != 0) {
                errno = EINVAL;
                return -1;
        }
        for (size_t i = 0; i < size / sizeof(*changes); i++)
                if (take(&changes[i]) < 0) {
                        errno = ENOMEM;
                        return -1;
                }
        return (ssize_t)size;
}

/* No more than dp_nfds, and always the same ones of more. */
int double_ioctl(int fd, unsigned long request, struct dvpoll *question) {
        int n, filled = 0;

        if (fd != device.fd || request != DP_POLL) {
                errno = EINVAL;
                return -1;
        }
        n = poll(device.members, device.n, question->dp_timeout);
        for (size_t i = 0; n > 0 && i < device.n && (nfds_t)filled < question->dp_nfds; i++)
                if (device.members[i].revents)
                        question->dp_fds[filled++] = device.members[i];
        return n < 0 ? n : filled;
}
