/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "connection.h"

#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "macro.h"

bool connection_open(struct connection *connection, const char *socket_path, uid_t uid) {
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool is_connected;

        if (fd < 0)
                err(EXIT_FAILURE, "socket");
        if (strlen(socket_path) >= sizeof(address.sun_path))
                errx(EXIT_FAILURE, "%s: too long for a socket", socket_path);
        memcpy(address.sun_path, socket_path, strlen(socket_path) + 1);
        /* Who connects, the daemon learns by the effective user. */
        if (seteuid(uid) < 0)
                err(EXIT_FAILURE, "seteuid");
        is_connected = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
        if (!is_connected && errno != ECONNREFUSED && errno != EAGAIN && errno != ENOENT)
                err(EXIT_FAILURE, "connect: %s", socket_path);
        if (seteuid(0) < 0)
                err(EXIT_FAILURE, "seteuid");
        if (is_connected)
                connection->fd = take_fd(&fd);
        return is_connected;
}

void connection_close(struct connection *connection) {
        connection->fd = safe_close(connection->fd);
        buffer_free(&connection->input);
        connection->input = BUFFER_INIT;
}

bool connection_send(struct connection *connection, const char *call) {
        size_t size = strlen(call) + 1;

        for (size_t done = 0; done < size;) {
                ssize_t n = send(connection->fd, call + done, size - done, MSG_NOSIGNAL);

                if (n >= 0)
                        done += (size_t)n;
                else if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN)
                        return false;
                else if (errno != EINTR)
                        err(EXIT_FAILURE, "send");
        }
        return true;
}

static int take_message(struct connection *connection, struct json_object **ret_message) {
        char *end = connection->input.size > 0 ? memchr(connection->input.data, '\0', connection->input.size) : NULL;

        if (!end)
                return 0;
        *ret_message = json_tokener_parse(connection->input.data);
        if (!*ret_message)
                errx(EXIT_FAILURE, "not JSON: %s", connection->input.data);
        buffer_consume(&connection->input, (size_t)(end - connection->input.data) + 1);
        return 1;
}

int connection_receive(struct connection *connection, struct json_object **ret_message) {
        while (take_message(connection, ret_message) == 0) {
                char data[16384];
                ssize_t n = recv(connection->fd, data, sizeof(data), MSG_DONTWAIT);

                if (n < 0 && errno == EAGAIN)
                        return 0;
                if (n == 0 || (n < 0 && errno == ECONNRESET))
                        return -1;
                if (n < 0 && errno != EINTR)
                        err(EXIT_FAILURE, "recv");
                if (n > 0)
                        buffer_put(&connection->input, data, (size_t)n);
                if (connection->input.error < 0)
                        errx(EXIT_FAILURE, "no memory");
        }
        return 1;
}

int64_t number_at(struct json_object *object, const char *pointer) {
        struct json_object *value = NULL;

        (void)json_pointer_get(object, pointer, &value);
        return json_object_get_int64(value);
}

const char *text_at(struct json_object *object, const char *pointer) {
        struct json_object *value = NULL;

        if (json_pointer_get(object, pointer, &value) < 0 || !json_object_is_type(value, json_type_string))
                return "";
        return json_object_get_string(value);
}
