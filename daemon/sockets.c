/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "sockets.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>

#include "config.h"
#include "log.h"

enum { LISTEN_MSEC = 50 }; /* by then a daemon that has just bound its socket listens */

static int fill_address(const char *path, struct sockaddr_un *ret) {
        *ret = (struct sockaddr_un){ .sun_family = AF_UNIX };
        if (strlen(path) >= sizeof(ret->sun_path))
                return -ENAMETOOLONG;
        memcpy(ret->sun_path, path, strlen(path));
        return 0;
}

static int try_stale(const struct sockaddr_un *address) {
        int fd _cleanup_(closep) = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
                return -errno;
        if (connect(fd, (const void *)address, sizeof(*address)) == 0 || errno == EAGAIN || errno == EPROTOTYPE)
                return -EADDRINUSE;
        return errno == ECONNREFUSED || errno == ENOENT ? 0 : -errno;
}

/* 0: what is there is the socket of a daemon that has gone, and may be replaced, or nothing any more. -EADDRINUSE:
 * a socket that somebody serves. -ENOTSOCK: no socket at all, a link to one included. */
static int check_stale(const struct sockaddr_un *address) {
        struct stat st;
        int r;

        if (lstat(address->sun_path, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISSOCK(st.st_mode))
                return -ENOTSOCK;
        r = try_stale(address);
        if (r < 0)
                return r;
        (void)poll(NULL, 0, LISTEN_MSEC);
        return try_stale(address);
}

static int bind_path(int fd, const struct sockaddr_un *address) {
        int r;

        if (bind(fd, (const void *)address, sizeof(*address)) == 0)
                return 0;
        r = errno == EADDRINUSE ? check_stale(address) : -errno;
        if (r < 0)
                return r;
        if (unlink(address->sun_path) < 0 && errno != ENOENT)
                return -errno;
        return bind(fd, (const void *)address, sizeof(*address)) < 0 ? -errno : 0;
}

/* For sockets_close(), once it is bound. */
static int remember(struct sockets *sockets, const char *path) {
        struct made_socket *made = &sockets->made[sockets->n_made];
        struct stat st;

        if (lstat(path, &st) < 0)
                return -errno;
        made->path = strdup(path);
        if (!made->path)
                return -ENOMEM;
        made->device = st.st_dev;
        made->inode = st.st_ino;
        sockets->n_made++;
        return 0;
}

static const char *reason(int error) {
        switch (-error) {
        case EADDRINUSE:
                return "another daemon does";
        case ENOTSOCK:
                return "what is there is not a socket";
        default:
                return strerror(-error);
        }
}

/* Everybody may connect to the system's; who it is decides what is answered. */
static int listen_at(struct sockets *sockets, const char *path, enum mode mode, struct server *server) {
        struct sockaddr_un address;
        int fd _cleanup_(closep) = -1;
        int r = fill_address(path, &address);

        if (r == 0) {
                fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
                r = fd < 0 ? -errno : bind_path(fd, &address);
        }
        if (r == 0)
                r = remember(sockets, path);
        if (r == 0 && (chmod(path, mode == MODE_SYSTEM ? 0666 : 0600) < 0 || listen(fd, SOMAXCONN) < 0))
                r = -errno;
        if (r == 0)
                r = server_listen(server, take_fd(&fd));
        if (r < 0)
                log_error("can't listen on %s: %s", path, reason(r));
        return r;
}

static int listen_at_default(struct sockets *sockets, enum mode mode, struct server *server) {
        const char *directory = getenv("XDG_RUNTIME_DIR");
        char path[512];
        char *slash;

        if (mode == MODE_SYSTEM)
                (void)snprintf(path, sizeof(path), "%s", KEVD_SYSTEM_SOCKET);
        else if (directory && directory[0] == '/')
                (void)snprintf(path, sizeof(path), "%s/%s", directory, KEVD_USER_SOCKET);
        else {
                log_error("nowhere to listen: neither --listen nor XDG_RUNTIME_DIR is given");
                return -ENOENT;
        }
        slash = strrchr(path, '/');
        *slash = 0;
        /* If it can't be made, the socket can't either. Everybody goes through the system's, whatever the umask. */
        if (mkdir(path, mode == MODE_SYSTEM ? 0755 : 0700) == 0 && mode == MODE_SYSTEM)
                (void)chmod(path, 0755);
        *slash = '/';
        return listen_at(sockets, path, mode, server);
}

static int serve_standard_input(struct server *server) {
        int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3), null, r;

        if (fd < 0)
                return -errno;
        null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (null >= 0) {
                (void)dup2(null, STDIN_FILENO);
                (void)close(null);
        }
        r = fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0 ? -errno : 0;
        if (r < 0)
                (void)close(fd);
        else
                r = server_serve(server, fd);
        if (r < 0)
                log_error("private mode serves a socket on standard input, which has none: %s", strerror(-r));
        return r;
}

static int serve_one_handed_over(struct server *server, int fd, const char *name) {
        size_t size = strlen(name);
        bool ours = strcmp(name, "org.kevd.events") == 0 || strcmp(name, "unknown") == 0 ||
                    (size > 7 && strcmp(name + size - 7, ".socket") == 0); /* the unit's, where it has no other */
        int r = -ENOTSOCK;

        if (ours && sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) > 0) {
                (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
                r = server_listen(server, fd);
        }
        if (r < 0)
                log_error("the service manager's descriptor \"%s\" can't be served: %s", name,
                          ours ? strerror(-r) : "only \"org.kevd.events\" is known");
        return r;
}

void sockets_take(struct sockets *sockets, struct handover *handover) {
        int n;

        *sockets = (struct sockets){ 0 };
        n = sd_listen_fds_with_names(true, &sockets->names);
        for (int i = 0; i < n; i++) {
                char *name = sockets->names[i];

                if (handover_take(handover, SD_LISTEN_FDS_START + i, name)) {
                        free(name);
                        continue;
                }
                if (sockets->n_given == LISTENERS_MAX) {
                        log_error("the service manager's descriptor \"%s\" is one too many", name);
                        (void)close(SD_LISTEN_FDS_START + i);
                        free(name);
                        continue;
                }
                sockets->names[sockets->n_given] = name;
                sockets->given[sockets->n_given++] = SD_LISTEN_FDS_START + i;
        }
}

static int serve_given(struct sockets *sockets, struct server *server) {
        int r = 0;

        for (size_t i = 0; r == 0 && i < sockets->n_given; i++)
                r = serve_one_handed_over(server, sockets->given[i], sockets->names[i]);
        return r;
}

int sockets_open(struct sockets *sockets, const struct options *options, struct server *server) {
        int r = 0;

        if (options->mode == MODE_PRIVATE)
                return serve_standard_input(server);
        if (sockets->n_given > 0)
                return serve_given(sockets, server);
        for (size_t i = 0; r == 0 && i < options->n_listen; i++)
                r = listen_at(sockets, options->listen[i], options->mode, server);
        if (options->n_listen == 0)
                r = listen_at_default(sockets, options->mode, server);
        return r;
}

static bool is_still_there(const struct made_socket *made) {
        struct stat st;

        return lstat(made->path, &st) == 0 && st.st_dev == made->device && st.st_ino == made->inode;
}

void sockets_close(struct sockets *sockets) {
        for (size_t i = 0; i < sockets->n_made; i++) {
                if (is_still_there(&sockets->made[i]))
                        (void)unlink(sockets->made[i].path);
                free(sockets->made[i].path);
        }
        for (size_t i = 0; i < sockets->n_given; i++)
                free(sockets->names[i]);
        free(sockets->names);
        *sockets = (struct sockets){ 0 };
}
