/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * From an address to a connected socket. Which daemon is meant, and who comes
 * next where nobody is there, is decided here and nowhere else.
 */

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "config.h"
#include "internal.h"

/* `path` as in "unix:PATH": with a leading @ it is in the abstract namespace. */
static int connect_socket(const char *path, int *ret_fd) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        size_t size = strlen(path);
        int fd _cleanup_(closep) = -1;

        /* A path is ended by a NUL here, an abstract name by its length. */
        if (size + (path[0] != '@') > sizeof(address.sun_path))
                return error_set(NULL, -ENAMETOOLONG, "%s: too long for the path of a socket", path);
        memcpy(address.sun_path, path, size);
        if (path[0] == '@')
                address.sun_path[0] = 0;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return error_set(NULL, -errno, "Can't make a socket: %s", error_text(errno));
        size += offsetof(struct sockaddr_un, sun_path) + (path[0] != '@');
        if (connect(fd, (const struct sockaddr *)&address, (socklen_t)size) < 0)
                return error_set(NULL, -errno, "Can't connect to kevd at %s: %s", path, error_text(errno));
        *ret_fd = take_fd(&fd);
        return 0;
}

static int open_socket(const char *path, int *ret_fd, char **ret_address) {
        char *address _cleanup_(freep) = NULL;
        int r;

        if (asprintf(&address, "unix:%s", path) < 0) {
                address = NULL;
                return error_set(NULL, -ENOMEM, "There is no memory for an address");
        }
        r = connect_socket(path, ret_fd);
        if (r == 0)
                *ret_address = take_pointer(&address);
        return r;
}

static int open_user(int *ret_fd, char **ret_address) {
        const char *directory = secure_getenv("XDG_RUNTIME_DIR");
        char *path _cleanup_(freep) = NULL;

        if (!directory || !directory[0])
                return error_set(NULL, -ENOENT, "XDG_RUNTIME_DIR is not set: there is no user's kevd");
        if (asprintf(&path, "%s/%s", directory, KEVD_USER_SOCKET) < 0) {
                path = NULL;
                return error_set(NULL, -ENOMEM, "There is no memory for an address");
        }
        return open_socket(path, ret_fd, ret_address);
}

static int open_private(int *ret_fd, char **ret_address) {
        char *address _cleanup_(freep) = strdup("private");
        int r;

        if (!address)
                return error_set(NULL, -ENOMEM, "There is no memory for an address");
        r = private_open(ret_fd);
        if (r == 0)
                *ret_address = take_pointer(&address);
        return r;
}

static int open_named(const char *address, int *ret_fd, char **ret_address) {
        if (strcmp(address, "system") == 0)
                return open_socket(KEVD_SYSTEM_SOCKET, ret_fd, ret_address);
        if (strcmp(address, "user") == 0)
                return open_user(ret_fd, ret_address);
        if (strcmp(address, "private") == 0)
                return open_private(ret_fd, ret_address);
        if (address[0] == '/')
                return open_socket(address, ret_fd, ret_address);
        if (strncmp(address, "unix:", 5) == 0 && (address[5] == '/' || (address[5] == '@' && address[6])))
                return open_socket(address + 5, ret_fd, ret_address);
        return error_set(NULL, -EINVAL,
                         "\"%s\" is no address: it has to be system, user, private, unix:PATH, unix:@NAME or a path",
                         address);
}

/* Whether connecting failed for want of a daemon that talks to us, so that the
 * next one may be tried; anything else the caller wants to hear about. */
static bool is_nobody_there(int error) {
        return error == -ENOENT || error == -ECONNREFUSED || error == -EACCES || error == -EPERM;
}

/* Whoever is there, from the one that can do most. */
static int open_any(int *ret_fd, char **ret_address) {
        char why[ERROR_MESSAGE_MAX];
        int r;

        r = open_named("system", ret_fd, ret_address);
        if (is_nobody_there(r))
                r = open_named("user", ret_fd, ret_address);
        if (!is_nobody_there(r))
                return r;
        r = open_named("private", ret_fd, ret_address);
        if (r == 0)
                return 0;
        (void)snprintf(why, sizeof(why), "%s", kev_error_message(NULL));
        return error_set(NULL, r, "Neither the system's kevd nor the user's answers, nor can a private one start: %s",
                         why);
}

int address_open(const char *address, int *ret_fd, char **ret_address) {
        const char *chosen = address ? address : secure_getenv("KEV_ADDRESS");

        if (address || (chosen && chosen[0]))
                return open_named(chosen, ret_fd, ret_address);
        return open_any(ret_fd, ret_address);
}

int address_open_again(const char *address, int *ret_fd) {
        char *again _cleanup_(freep) = NULL;

        return open_named(address, ret_fd, &again);
}
