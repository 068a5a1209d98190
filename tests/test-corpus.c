/* SPDX-License-Identifier: LGPL-2.1-or-later */

/*
 * The corpus: each file corpus/NAME.in is what one connection sends, and corpus/NAME.expect says
 * what must come back (corpus/generate.py has the form). After each the daemon has to answer on
 * this connection, unless it was to close it, and on another one.
 */

#include <dirent.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <json-c/json.h>

#include "harness.h"
#include "macro.h"

static struct dirent **entries; /* of the .in files */

static char *read_file(const char *directory, const char *name, const char *suffix, size_t *ret_size) {
        char path[PATH_MAX], *data;
        FILE *file;
        long size;

        (void)snprintf(path, sizeof(path), "%s/%s%s", directory, name, suffix);
        file = fopen(path, "re");
        assert_system(file, path);
        ck_assert_int_eq(fseek(file, 0, SEEK_END), 0);
        size = ftell(file);
        rewind(file);
        data = malloc((size_t)size + 1);
        ck_assert_ptr_nonnull(data);
        ck_assert_uint_eq(fread(data, 1, (size_t)size, file), (size_t)size);
        (void)fclose(file);
        data[size] = 0;
        if (ret_size)
                *ret_size = (size_t)size;
        return data;
}

/* ---- comparing ----------------------------------------------------------------------------- */

static bool string_is(const char *expected, const char *found) {
        size_t size = strlen(expected);
        bool same;
        char *text;

        if (expected[0] == '@') {
                text = read_file(SOURCE_ROOT, expected + 1, "", NULL);
                same = strcmp(text, found) == 0;
                free(text);
                return same;
        }
        if (size >= 3 && strcmp(expected + size - 3, "...") == 0)
                return strncmp(expected, found, size - 3) == 0;
        return strcmp(expected, found) == 0;
}

static bool holds(struct json_object *found, struct json_object *expected) {
        if (json_object_get_type(found) != json_object_get_type(expected))
                return false;
        switch (json_object_get_type(expected)) {
        case json_type_object: {
                json_object_object_foreach(expected, key, value) {
                        struct json_object *v;

                        if (!json_object_object_get_ex(found, key, &v) || !holds(v, value))
                                return false;
                }
                return true;
        }
        case json_type_array:
                if (json_object_array_length(found) != json_object_array_length(expected))
                        return false;
                for (size_t i = 0; i < json_object_array_length(expected); i++)
                        if (!holds(json_object_array_get_idx(found, i), json_object_array_get_idx(expected, i)))
                                return false;
                return true;
        case json_type_string:
                return string_is(json_object_get_string(expected), json_object_get_string(found));
        case json_type_null:
        case json_type_boolean:
        case json_type_double:
        case json_type_int:
                return json_object_equal(found, expected);
        }
        return false;
}

/* "org.kevd.Error key=value key=value" as the reply that it stands for. */
static struct json_object *parse_error(char *line) {
        struct json_object *reply = json_object_new_object(), *parameters = json_object_new_object();
        char *parameter = strchr(line, ' ');

        if (parameter) {
                *parameter++ = 0;
                char *value = strchr(parameter, '=');

                ck_assert_ptr_nonnull(value);
                *value++ = 0;
                json_object_object_add(parameters, parameter, json_object_new_string(value));
        }
        json_object_object_add(reply, "error", json_object_new_string(line));
        json_object_object_add(reply, "parameters", parameters);
        return reply;
}

static struct json_object *parse_expectation(char *line) {
        struct json_object *reply;

        if (strncmp(line, "error ", 6) == 0)
                return parse_error(line + 6);
        ck_assert_msg(strncmp(line, "reply ", 6) == 0, "what does \"%s\" mean?", line);
        reply = json_object_new_object();
        json_object_object_add(reply, "parameters", json_tokener_parse(line + 6));
        return reply;
}

static void expect_reply(int fd, char *line) {
        struct json_object *found, *expected = parse_expectation(line);

        found = client_receive(fd, HARNESS_REPLY_MSEC);
        ck_assert_msg(found, "no reply, but expected %s", json_object_to_json_string(expected));
        ck_assert_msg(holds(found, expected) && json_object_object_get_ex(found, "error", NULL) ==
                                                        json_object_object_get_ex(expected, "error", NULL),
                      "%.2000s came instead of %.2000s", json_object_to_json_string(found),
                      json_object_to_json_string(expected));
        json_object_put(found);
        json_object_put(expected);
}

/* ---- the test -------------------------------------------------------------------------------- */

static void expect_info(int fd) {
        struct json_object *reply = client_receive(fd, HARNESS_REPLY_MSEC), *product = NULL;

        ck_assert_msg(reply, "the connection does not go on");
        (void)json_pointer_get(reply, "/parameters/product", &product);
        ck_assert_msg(product, "more came than was expected: %.2000s", json_object_to_json_string(reply));
        json_object_put(reply);
}

/* The daemon may end the connection before all was sent. */
static void send_what_it_takes(int fd, const char *data, size_t size) {
        while (size > 0) {
                ssize_t n = send(fd, data, size, MSG_NOSIGNAL);

                if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
                        return;
                assert_system(n >= 0, "send");
                data += n;
                size -= (size_t)n;
        }
}

START_TEST(test_file) {
        static const char info[] = "{\"method\":\"org.varlink.service.GetInfo\"}";
        char name[NAME_MAX + 1], *line = NULL, *lines, *state = NULL, *data;
        struct daemon *daemon = daemon_start("--process-feed=pidfd", NULL);
        bool closes = false;
        size_t size;
        int fd, other;

        (void)snprintf(name, sizeof(name), "%.*s", (int)strlen(entries[_i]->d_name) - 3, entries[_i]->d_name);
        harness_label(name);
        data = read_file(CORPUS, name, ".in", &size);
        lines = read_file(CORPUS, name, ".expect", NULL);
        other = client_connect(daemon->socket);
        fd = client_connect(daemon->socket);

        send_what_it_takes(fd, data, size);
        closes = strcmp(lines, "close\n") == 0 || strstr(lines, "\nclose\n");
        if (!closes)
                client_send_message(fd, info);
        for (line = strtok_r(lines, "\n", &state); line; line = strtok_r(NULL, "\n", &state))
                if (strcmp(line, "close") != 0)
                        expect_reply(fd, line);
        if (closes) {
                /* Nothing comes before the end. */
                struct pollfd p = { .fd = fd, .events = POLLIN };
                char byte;

                ck_assert_int_eq(poll(&p, 1, HARNESS_REPLY_MSEC), 1);
                ck_assert_msg(recv(fd, &byte, 1, 0) <= 0, "something came instead of the connection's end: %.1000s",
                              json_object_to_json_string(client_receive(fd, 0)));
        } else
                expect_info(fd);

        client_send_message(other, info);
        expect_info(other);
        (void)close(fd);
        (void)close(other);
        free(lines);
        free(data);
        daemon_stop(daemon);
}
END_TEST

static int is_input(const struct dirent *entry) {
        size_t size = strlen(entry->d_name);

        return size > 3 && strcmp(entry->d_name + size - 3, ".in") == 0;
}

int main(int argc, char *argv[]) {
        TCase *c = harness_case(harness_suite("corpus"), "files");
        int n = scandir(CORPUS, &entries, is_input, alphasort), r;

        if (n <= 0) {
                printf("Bail out! there are no files in %s\n", CORPUS);
                return EXIT_FAILURE;
        }
        tcase_add_loop_test(c, test_file, 0, n);
        r = harness_main(argc, argv);
        for (int i = 0; i < n; i++)
                free(entries[i]);
        free(entries);
        return r;
}
